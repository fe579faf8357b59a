"""The command `python -m benchmarks mirror`: mirrors of an upstream that runs on this machine."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import corpus, mirror_report, static_tree
from benchmarks.arguments import add_servers, chosen, make_parser
from benchmarks.installing import install_graph
from benchmarks.load import Answer, Fetched, Generator, Request, ask, fetch, find_generator
from benchmarks.mirror_report import Measured
from benchmarks.mirror_servers import EXECUTABLES, MIRRORS, UPSTREAM, Mirror, Upstream
from benchmarks.one_run import Started, write_results
from benchmarks.processes import Processes
from benchmarks.results import Measure, Results
from benchmarks.servers import HTML, JSON, Server

GROUPS = mirror_report.GROUPS
SERVERS = (UPSTREAM, *MIRRORS)

_LARGE, _SHARED, _MANY = "large", "shared", "many"  # names of projects
_CONNECTIONS = 8
_AGAIN = 5  # how often something that is quick is asked again
_PATIENCE = 300.0  # seconds for the list of all projects


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    delays: tuple[int, ...] = (0, 50)  # milliseconds by which the upstream answers later
    files: int = 10_000  # of the upstream
    pages: int = 500  # projects that are asked for
    seconds: float = 3.0  # of load in each round
    packages: int = 60  # installed
    installations: int = 5
    rounds: int = 3  # of everything else
    large: int = 256 * 2**20  # bytes of one wheel
    clients: int = 100  # that ask for one file at once
    shared: int = 4 * 2**20  # bytes of this file
    page: int = 5_000  # files of one project
    names: int = 700_000  # projects in the long list

    def quick(self) -> Plan:
        """The same with next to nothing of everything."""
        return replace(
            self,
            delays=(0, 5),
            files=40,
            pages=4,
            seconds=0.1,
            packages=4,
            installations=1,
            rounds=1,
            large=2**21,
            clients=8,
            shared=2**17,
            page=50,
            names=1_000,
        )


def main(arguments: Sequence[str]) -> int:
    """Measure, print the report and write it."""
    options = _parse(arguments)
    plan = Plan().quick() if options.quick else Plan()
    options.out.mkdir(parents=True, exist_ok=True)
    started = Started()
    measured = Measured({delay: Results() for delay in plan.delays})
    tools = dict(options.peer)
    servers = chosen(SERVERS, EXECUTABLES, options.servers, tools, measured.remark)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        _measure(plan, options.only, servers, tools, Path(name), measured)
    setting = started.ended(plan)
    write_results(
        options.out,
        "mirror",
        text=mirror_report.render(measured, setting),
        picture=mirror_report.draw(measured, setting),
        rows=measured.as_json(),
    )
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks mirror",
        "Measure the type mirror, and proxpi and devpi beside it where installed, "
        "as mirrors of an nginx that runs on this machine.",
        GROUPS,
        "MIRROR.md, mirror.svg and mirror.json",
    )
    add_servers(parser, "--servers", SERVERS, EXECUTABLES)
    return parser.parse_args(arguments)


def _measure(
    plan: Plan,
    groups: Sequence[str],
    servers: Sequence[str],
    tools: Mapping[str, Path],
    folder: Path,
    measured: Measured,
) -> None:
    """Measure these groups with each of the delays."""
    tree = Tree.write(plan, folder)
    generator = find_generator(folder, plan.seconds)
    measured.generator = generator.name
    for delay in plan.delays:
        place = folder / f"delay-{delay}"
        place.mkdir()
        upstream = Upstream(place / UPSTREAM, tree.path, delay / 1e3)
        measured.versions[UPSTREAM] = upstream.version()
        upstream.start(None)
        try:
            makers = {
                name: partial(make, tools=tools.get(name))
                for name, make in MIRRORS.items()
                if name in servers
            }
            of_delay = OfDelay(
                plan=plan,
                delay=delay,
                tree=tree,
                upstream=upstream,
                is_measured=UPSTREAM in servers,
                makers=makers,
                generator=generator,
                folder=place,
                measured=measured,
            )
            of_delay.run(groups)
        finally:
            upstream.stop()


@dataclass(frozen=True, slots=True)
class Tree:
    """The folder that the upstream serves."""

    path: Path
    projects: Sequence[str]  # whose pages are asked for
    files: Mapping[str, tuple[int, str]]  # size and SHA-256 of the only file of a project

    @classmethod
    def write(cls, plan: Plan, folder: Path) -> Tree:
        """Write it into a folder."""
        _say(f"writing an index of {plan.files:,} files")
        catalogue = corpus.make_catalogue(folder, plan.files)
        graph = corpus.make_graph(folder, plan.packages)
        projects = catalogue.projects()[: plan.pages]
        simple = folder / "tree" / "simple"
        static_tree.write_index(simple, [catalogue, graph])
        files = {}
        for project, size in ((_LARGE, plan.large), (_SHARED, plan.shared)):
            (simple / project).mkdir()
            path = simple / project / corpus.large_filename(project)
            corpus.make_large_wheel(path, project, size)
            static_tree.write_project(simple, project)
            files[project] = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
        many = [f"{_MANY}-{number}" for number in range(plan.rounds)]
        for project in many:
            static_tree.write_large_project(simple, project, plan.page)
        static_tree.write_list(
            simple, [*catalogue.projects(), *graph.projects(), *many, _LARGE, _SHARED]
        )
        names = [f"name-{number * 7919:07d}" for number in range(plan.names - 1)]
        vast = folder / "tree" / "vast" / "simple"
        static_tree.write_list(vast, [projects[0], *names])
        (vast / projects[0]).symlink_to(simple / projects[0])
        (folder / "tree" / "ready").touch()
        return cls(folder / "tree", projects, files)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfDelay:
    """All that is measured with one delay of the upstream."""

    plan: Plan
    delay: int  # milliseconds
    tree: Tree
    upstream: Upstream
    is_measured: bool  # the upstream itself as well
    makers: Mapping[str, Callable[[Path, str], Mirror]]
    generator: Generator
    folder: Path
    measured: Measured

    def run(self, groups: Sequence[str]) -> None:
        """Measure these groups; whatever happens, no mirror stays."""
        mirrors: list[Mirror] = []
        try:
            for name, make in self.makers.items():
                mirrors.append(make(self.folder / name, self.upstream.index_url))
                self.measured.versions[name] = mirrors[-1].version()
            for group, measure in (
                ("pages", self._pages),
                ("install", self._install),
                ("large", self._large),
                ("shared", self._shared),
                ("page", self._page),
            ):
                if group in groups:
                    measure(mirrors)
        finally:
            for mirror in mirrors:
                mirror.stop()
        if "list" in groups:
            self._list()

    # -- what is measured ------------------------------------------------------------------------

    def _pages(self, mirrors: Sequence[Mirror]) -> None:
        """Pages for the first time, and then at random again and again."""
        for turn, server in self._turns(mirrors, "first pages", empty=True):
            with self._tolerance(server, mirror_report.PAGES_FIRST):
                self._add(mirror_report.PAGES_FIRST, server, turn, self._get_all_pages(server))
        for accept, measure in ((JSON, mirror_report.PAGES_JSON), (HTML, mirror_report.PAGES_HTML)):
            for turn, server in self._turns(mirrors, measure.title):
                with self._tolerance(server, measure):
                    self._get_all_pages(server)
                    with self._counting(server, turn, measure):
                        self._add(measure, server, turn, self._load_pages(server, accept))

    def _get_all_pages(self, server: Server) -> float:
        """Ask for each page once; return the seconds."""
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            begin = time.perf_counter()
            answers = list(pool.map(partial(_get_page, server), self.tree.projects))
            seconds = time.perf_counter() - begin
        for answer in answers:
            _check(server, answer, corpus.FILES_PER_PROJECT)
        self._settle(server)
        return seconds

    def _load_pages(self, server: Server, accept: str) -> float:
        """Random pages in one format, per second."""
        paths = [server.page(project) for project in self.tree.projects]
        answer = server.get(paths[0], accept=accept)
        if not answer.headers.get("content-type", "").startswith(accept):
            raise RuntimeError(f"it has no pages of the type {accept}")
        requests = [Request(path, server.headers(accept)) for path in paths]
        load = self.generator.run(
            server.port, requests, connections=_CONNECTIONS, seconds=self.plan.seconds
        )
        self._settle(server)
        if load.failures:
            raise RuntimeError(f"{load.failures} of {load.requests} requests failed")
        return load.per_second

    def _install(self, mirrors: Sequence[Mirror]) -> None:
        plan = self.plan
        for turn, server in self._turns(
            mirrors, "installing with uv", empty=True, rounds=plan.installations
        ):
            for measure in (mirror_report.INSTALL_COLD, mirror_report.INSTALL_WARM):
                with self._tolerance(server, measure), self._counting(server, turn, measure):
                    target = self.folder / "installed"
                    seconds = install_graph("uv", server.index_url, plan.packages, target)
                    self._add(measure, server, turn, seconds)
                self._settle(server)

    def _large(self, mirrors: Sequence[Mirror]) -> None:
        """One large file for the first time."""
        for turn, server in self._turns(mirrors, "a large wheel", empty=True):
            with self._tolerance(server, mirror_report.LARGE_WHOLE):
                (path,) = server.links(_LARGE)
                self._settle(server)
                processes = _processes(server)
                self._add(mirror_report.LARGE_BEFORE, server, turn, processes.resident_memory())
                processes.forget_peak()
                with self._counting(server, turn, mirror_report.LARGE_WHOLE):
                    fetched = self._fetch(server, path, _LARGE)
                    self._settle(server)
                self._add(mirror_report.LARGE_FIRST_BYTE, server, turn, fetched.first_byte)
                self._add(mirror_report.LARGE_WHOLE, server, turn, fetched.seconds)
                self._add(mirror_report.LARGE_PEAK, server, turn, processes.peak_memory())

    def _shared(self, mirrors: Sequence[Mirror]) -> None:
        """Many clients that ask for one file at once, for the first time."""
        plan = self.plan
        for turn, server in self._turns(mirrors, f"{plan.clients} clients", empty=True):
            with self._tolerance(server, mirror_report.SHARED):
                (path,) = server.links(_SHARED)
                before = len(self.upstream.asked())
                together = threading.Barrier(plan.clients + 1)

                def work(
                    _: int,
                    server: Server = server,
                    path: str = path,
                    together: threading.Barrier = together,
                ) -> None:
                    together.wait()
                    self._fetch(server, path, _SHARED)

                with ThreadPoolExecutor(plan.clients) as pool:
                    working = [pool.submit(work, number) for number in range(plan.clients)]
                    together.wait()
                    begin = time.perf_counter()
                    for each in working:
                        each.result()
                    self._add(mirror_report.SHARED, server, turn, time.perf_counter() - begin)
                asked = [line for line in self.upstream.asked()[before:] if ".whl" in line]
                self._add(mirror_report.asked_in(mirror_report.SHARED), server, turn, len(asked))

    def _page(self, mirrors: Sequence[Mirror]) -> None:
        """The page of a project with very many files."""
        for turn, server in self._turns(mirrors, f"a page of {self.plan.page:,} files"):
            with self._tolerance(server, mirror_report.PAGE_FIRST):
                get = partial(_get_page, server, f"{_MANY}-{turn}")
                answer = get()
                _check(server, answer, self.plan.page)
                self._add(mirror_report.PAGE_FIRST, server, turn, answer.seconds)
                again = [get().seconds for _ in range(_AGAIN)]
                self._add(mirror_report.PAGE_AGAIN, server, turn, statistics.median(again))
                self._settle(server)

    def _list(self) -> None:
        """The list of very many projects, by servers that have not seen anything before."""
        for name, make in self.makers.items():
            _say(f"{self.delay} ms: a list of {self.plan.names:,} projects, {name}")
            mirror = make(self.folder / f"{name}-vast", self.upstream.vast_url)
            try:
                with self._tolerance(mirror, mirror_report.LIST_FIRST):
                    mirror.start(None)
                    self._list_of(mirror, mirror.simple)
            finally:
                mirror.stop()
        if self.is_measured:
            self._list_of(self.upstream, "/vast/simple/")

    def _list_of(self, server: Server, path: str) -> None:
        page = f"{path}{self.tree.projects[0]}/"
        processes = _processes(server)
        processes.forget_peak()
        get = partial(ask, server.port, headers=server.headers(JSON), timeout=_PATIENCE)
        answer = get(page)
        _check(server, answer, corpus.FILES_PER_PROJECT)
        self._add(mirror_report.LIST_PAGE, server, 0, answer.seconds)
        self._settle(server)
        waits: list[float] = []
        ended = threading.Event()

        def ask_meanwhile() -> None:
            while True:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    waits.append(get(page).seconds)
                if ended.wait(0.05):
                    return

        watcher = threading.Thread(target=ask_meanwhile)
        watcher.start()
        try:
            answer = get(path)
        finally:
            ended.set()
            watcher.join()
        found = len(json.loads(_body(answer)).get("projects", ())) if answer.status == 200 else 0
        if found != self.plan.names:
            raise RuntimeError(f"{answer.status}: a list of {found:,} projects")
        self._add(mirror_report.LIST_FIRST, server, 0, answer.seconds)
        if waits:
            self._add(mirror_report.LIST_MEANWHILE, server, 0, max(waits))
        for turn in range(self.plan.rounds):
            self._add(mirror_report.LIST_AGAIN, server, turn, get(path).seconds)
        self._settle(server)
        self._add(mirror_report.LIST_PEAK, server, 0, processes.peak_memory())

    # -- shared by these -------------------------------------------------------------------------

    def _turns(
        self,
        mirrors: Sequence[Mirror],
        what: str,
        *,
        empty: bool = False,
        rounds: int | None = None,
    ) -> Iterator[tuple[int, Server]]:
        """Round after round, each in the reverse order of the one before.

        `empty`: each time, a mirror begins with nothing.
        """
        servers: list[Server] = [*([self.upstream] if self.is_measured else []), *mirrors]
        for turn in range(rounds or self.plan.rounds):
            for server in servers if turn % 2 == 0 else servers[::-1]:
                _say(f"{self.delay} ms: {what}, {server.name}, {turn + 1}")
                if isinstance(server, Mirror):
                    with self._tolerance(server, None):
                        if empty:
                            # No other mirror runs, so none has work left from what it was asked.
                            for other in mirrors:
                                if other is not server:
                                    other.stop()
                            server.restart_empty()
                        elif server.processes is None:
                            server.start(None)
                yield turn, server

    def _fetch(self, server: Server, path: str, project: str) -> Fetched:
        """The only file of a project, as an installer fetches it."""
        size, sha256 = self.tree.files[project]
        fetched = fetch(server.port, path, server.headers("*/*", Accept_Encoding="identity"), size)
        if fetched.sha256 != sha256:
            raise RuntimeError(f"{path} has other bytes than the upstream has")
        return fetched

    @contextlib.contextmanager
    def _counting(self, server: Server, turn: int, measure: Measure) -> Iterator[None]:
        """Count what the upstream is asked by a mirror in the block."""
        before = len(self.upstream.asked()) if isinstance(server, Mirror) else 0
        yield
        if isinstance(server, Mirror):
            asked = len(self.upstream.asked()) - before
            self._add(mirror_report.asked_in(measure), server, turn, asked)

    @contextlib.contextmanager
    def _tolerance(self, server: Server, measure: Measure | None) -> Iterator[None]:
        """What fails is a remark, and not a figure."""
        try:
            yield
        except (
            RuntimeError,
            OSError,
            ValueError,
            http.client.HTTPException,
            subprocess.SubprocessError,
        ) as error:
            what = "its start" if measure is None else measure.title
            self.measured.remark(
                f"{server.name} failed with a delay of {self.delay} ms ({what}): "
                f"{type(error).__name__}: {str(error)[:100]}"
            )
            _say(f"{server.name}: {error}")

    def _add(self, measure: Measure, server: Server, turn: int, value: float) -> None:
        self.measured.results[self.delay].add(measure, server.name, self.plan.files, turn, value)

    def _settle(self, server: Server) -> None:
        _processes(server).settle(limit=30)


def _processes(server: Server) -> Processes:
    if server.processes is None:
        raise RuntimeError(f"{server.name} does not run")
    return server.processes


def _get_page(server: Server, project: str) -> Answer:
    return server.get(server.page(project), accept=JSON)


def _check(server: Server, answer: Answer, files: int) -> None:
    """Raise if a page in JSON is not one with so many files."""
    found = len(json.loads(_body(answer))["files"]) if answer.status == 200 else 0
    if found != files:
        raise RuntimeError(f"{server.name}: {answer.status}: a page of {found} files, not {files}")


def _body(answer: Answer) -> bytes:
    is_compressed = answer.headers.get("content-encoding") == "gzip"
    return gzip.decompress(answer.body) if is_compressed else answer.body


def _say(sentence: str) -> None:
    print(time.strftime("%H:%M:%S"), sentence, file=sys.stderr, flush=True)
