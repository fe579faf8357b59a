"""What is measured, and in which order; servers and load come from elsewhere."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import corpus
from benchmarks.corpus import Form
from benchmarks.load import Answer, Generator, Load, Request, ask, download, upload
from benchmarks.processes import Processes, plain_environment
from benchmarks.results import ONCE, OURS, Measure, Results, Unit
from benchmarks.servers import HTML, JSON, Devpi, PrivatePypi, Server

Say = Callable[[str], None]
Make = Callable[[Path], Server]
"""Makes a server in a folder that does not exist yet."""

GROUPS = ("start", "pages", "files", "install", "uploads", "large", "growth")

START = Measure("start", "Start to first page", Unit.TIME)
MEMORY_IDLE = Measure("memory_idle", "Memory after the first page", Unit.MEMORY)
MEMORY_BUSY = Measure("memory_busy", "Memory after many pages", Unit.MEMORY)

PAGES_HTML = Measure("pages_html", "Random project pages, HTML", Unit.RATE)
PAGES_JSON = Measure("pages_json", "Random project pages, JSON", Unit.RATE)
PAGES_ONE = Measure("pages_one", "Random project pages, one connection", Unit.RATE)
PAGES_WORST = Measure("pages_worst", "The slowest of 100 such pages (8 connections)", Unit.TIME)
NOT_MODIFIED = Measure("not_modified", "Pages that did not change (304)", Unit.RATE)
LIST = Measure("list", "The list of all projects", Unit.RATE)
UNKNOWN = Measure("unknown", "Unknown projects (404)", Unit.RATE)

CORE_METADATA = Measure("core_metadata", "Core metadata of wheels", Unit.RATE)
SMALL_FILES = Measure("small_files", "Small wheels", Unit.RATE)
LARGE_FILE = Measure("large_file", "A large wheel, one connection", Unit.SPEED)
LARGE_FILES = Measure("large_files", "A large wheel, 4 connections", Unit.SPEED)

INSTALL = Measure("install", "`uv pip install` of the graph of packages", Unit.TIME)

UPLOADS = Measure("uploads", "Uploads, one by one", Unit.RATE)
UPLOADS_PASSWORD = Measure("uploads_password", "Uploads, one by one, password", Unit.RATE)
UPLOADS_PARALLEL = Measure("uploads_parallel", "Uploads, 8 at a time", Unit.RATE)

PAGE_COST = Measure("page_cost", "A page, of the same 100 projects", Unit.TIME)
PAGE_COST_ANY = Measure("page_cost_any", "A page, of all projects", Unit.TIME)
UPLOAD_COST = Measure("upload_cost", "An upload", Unit.TIME)
IMPORT = Measure("import", "`update_index` of new files, once", Unit.TIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    files: int = 10_000  # side by side
    sizes: tuple[int, ...] = (0, 1_000, 100_000)  # of our index as it grows
    graph: int = 60  # packages
    rounds: int = 3
    seconds: float = 2.0  # of load in each round
    starts: int = 5
    batch: int = 40  # uploads in each round, one by one
    download: int = 256 * 2**20  # bytes
    large: tuple[int, ...] = (256 * 2**20, 2**30)  # bytes
    fill_limit: float = 1200.0  # seconds

    def quick(self) -> Plan:
        """The same with next to nothing of everything."""
        return replace(
            self,
            files=40,
            sizes=(0, 20, 60),
            graph=6,
            rounds=1,
            seconds=0.1,
            starts=1,
            batch=4,
            download=2**20,
            large=(2**20, 4 * 2**20),
        )


def large_measures(size: int) -> tuple[Measure, Measure]:
    """The time and the memory of one large upload."""
    name = f"{size / 2**30:g} GiB" if size >= 2**30 else f"{size / 2**20:g} MiB"
    return (
        Measure(f"large_{size}", f"Upload of {name}", Unit.TIME),
        Measure(f"large_{size}_memory", f"Memory that it takes, {name}", Unit.MEMORY),
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """A server with so many files, of these projects."""

    server: Server
    files: int
    projects: Sequence[str]

    @property
    def name(self) -> str:
        return self.server.name

    @property
    def key(self) -> tuple[str, int]:
        return self.server.name, self.files

    @property
    def first(self) -> str | None:
        """The project whose page is asked for at start; None: the list of all."""
        return self.projects[0] if self.projects else None

    @property
    def processes(self) -> Processes:
        assert self.server.processes is not None, f"{self.name} does not run"
        return self.server.processes

    def settle(self) -> None:
        self.processes.settle()

    def request(self, path: str, accept: str = "*/*", **headers: str) -> Request:
        return Request(path, self.server.headers(accept, **headers))

    def ask(self, request: Request) -> Answer:
        return ask(self.server.port, request.path, request.headers)

    def upload(
        self,
        forms: Sequence[Form],
        headers: Mapping[str, str] | None = None,
        *,
        connections: int = 1,
        limit: float = 10.0,
    ) -> Load:
        server = self.server
        headers = server.writer_headers if headers is None else headers
        return upload(
            server.port, server.uploads, headers, forms, connections=connections, limit=limit
        )

    def some(self, count: int | None) -> Sequence[str]:
        """The same projects on every server; None: all."""
        if count is None or count >= len(self.projects):
            return self.projects
        return random.Random(count).sample(self.projects, count)

    def pages(self, accept: str, count: int | None = None) -> list[Request]:
        """Requests for project pages; none when the server has them in another form only."""
        requests = [self.request(self.server.page(name), accept) for name in self.some(count)]
        answered = self.ask(requests[0]).headers.get("content-type", "")
        return requests if answered.startswith(accept) else []

    def unchanged_pages(self) -> list[Request]:
        """Requests for pages that the client has already; none when there are no entity tags."""
        found = []
        for request in self.pages(HTML, 200):
            etag = self.ask(request).headers.get("etag")
            if etag is None:
                return []
            found.append(Request(request.path, {**request.headers, "If-None-Match": etag}))
        return found

    def unknown_pages(self) -> list[Request]:
        return [self.request(self.server.page(f"unknown-{n}"), HTML) for n in range(200)]

    def wheels(self, count: int) -> list[str]:
        """The paths of the wheels of `count` projects."""
        return [
            path
            for project in self.some(count)
            for path in self.server.links(project)
            if path.endswith(".whl")
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One run: the plan, its tools and where the results go."""

    plan: Plan
    makers: dict[str, Make]
    generator: Generator
    uv: str
    corpora: Path  # kept between runs when the user names a folder
    folder: Path  # of this run
    results: Results
    versions: dict[str, str]  # filled while the servers are made
    say: Say

    def run(self, groups: Sequence[str]) -> None:
        """Measure these groups; whatever happens, no server stays."""
        if set(groups) - {"growth"}:
            servers: list[Server] = []
            try:
                self._side_by_side(servers, groups)
            finally:
                for server in servers:
                    server.stop()
        if "growth" in groups:
            self._growth()

    def _side_by_side(self, servers: list[Server], groups: Sequence[str]) -> None:
        catalogue = corpus.make_catalogue(self.corpora, self.plan.files)
        graph = corpus.make_graph(self.corpora, self.plan.graph)
        projects = catalogue.projects()
        for name, make in self.makers.items():
            self.say(f"filling {name}")
            try:
                server = make(self.folder / name)
                self.versions[name] = server.version()
                server.fill([catalogue, graph], limit=self.plan.fill_limit)
            except TimeoutError as error:
                self.results.remark(f"{name} was left out: {error}.")
                continue
            servers.append(server)
        if "start" in groups:
            self._starts([Subject(s, self.plan.files, projects) for s in servers])
        _start_all([Subject(server, self.plan.files, projects) for server in servers])
        for group, measure in (
            ("pages", self._pages),
            ("files", self._files),
            ("install", self._install),
            ("uploads", self._uploads),
            ("large", self._large),
        ):
            if group in groups:
                measure([Subject(server, self.plan.files, projects) for server in servers])

    def _starts(self, subjects: Sequence[Subject]) -> None:
        self.say("starting and stopping")
        for turn, subject in self._turns(subjects, self.plan.starts + 1):
            seconds = subject.server.start(subject.first)
            subject.settle()
            if turn > 0:  # the first fills the caches of the disk and of the interpreter
                self._add(START, subject, turn, seconds)
                self._add(MEMORY_IDLE, subject, turn, subject.processes.memory())
            subject.server.stop()

    def _pages(self, subjects: Sequence[Subject]) -> None:
        self._read(PAGES_HTML, subjects, lambda s: s.pages(HTML), worst=PAGES_WORST)
        self._read(PAGES_ONE, subjects, lambda s: s.pages(HTML), connections=1)
        self._read(PAGES_JSON, subjects, lambda s: s.pages(JSON))
        self._read(NOT_MODIFIED, subjects, Subject.unchanged_pages)
        self._read(LIST, subjects, lambda s: [s.request(s.server.simple, HTML)])
        self._read(UNKNOWN, subjects, Subject.unknown_pages, status=404)
        for subject in subjects:
            self._add(MEMORY_BUSY, subject, 0, subject.processes.memory())

    def _files(self, subjects: Sequence[Subject]) -> None:
        wheels = {s.name: s.wheels(30) for s in subjects}
        self._read(
            CORE_METADATA,
            subjects,
            lambda s: [s.request(f"{path}.metadata") for path in wheels[s.name]],
        )
        self._read(SMALL_FILES, subjects, lambda s: [s.request(path) for path in wheels[s.name]])
        with self._large_form("fetched", self.plan.download) as form:
            for subject in subjects:
                subject.upload([form])
        for measure, connections in ((LARGE_FILE, 1), (LARGE_FILES, 4)):
            for turn, subject in self._turns(subjects):
                (path,) = subject.server.links("fetched")
                with self._tolerance(subject, measure):
                    speed = download(
                        subject.server.port,
                        subject.request(path),
                        self.plan.download,
                        connections=connections,
                    )
                    self._add(measure, subject, turn, speed)
                subject.settle()

    def _install(self, subjects: Sequence[Subject]) -> None:
        self.say("installing with uv")
        for turn, subject in self._turns(subjects):
            if (self.results.value(INSTALL, subject.name, subject.files) or 0) > 10:
                continue  # seconds; once is enough
            target = self.folder / "installed"
            command = [self.uv, "pip", "install", "--quiet", "--no-config", "--no-cache"]
            command += ["--index-url", subject.server.index_url, "--python", sys.executable]
            command += ["--target", str(target), "graph-00"]
            begin = time.perf_counter()
            with self._tolerance(subject, INSTALL):
                subprocess.run(command, env=plain_environment(), check=True, timeout=240)
                seconds = time.perf_counter() - begin
                installed = len(list(target.glob("graph_*.dist-info")))
                if installed != self.plan.graph:
                    raise RuntimeError(f"uv installed {installed} packages, not {self.plan.graph}")
                self._add(INSTALL, subject, turn, seconds)
            shutil.rmtree(target, ignore_errors=True)
            subject.settle()

    def _uploads(self, subjects: Sequence[Subject]) -> None:
        self.say("uploads")
        for turn, subject in self._turns(subjects):
            for measure, connections, headers in (
                (UPLOADS, 1, subject.server.writer_headers),
                (UPLOADS_PASSWORD, 1, subject.server.password_headers),
                (UPLOADS_PARALLEL, 8, subject.server.writer_headers),
            ):
                prefix = f"{measure.key}-{turn}".replace("_", "-")
                count = self.plan.batch * 2 if connections > 1 else self.plan.batch
                forms = corpus.small_uploads(prefix, count)
                with self._tolerance(subject, measure):
                    load = subject.upload(forms, headers, connections=connections)
                    self._add(measure, subject, turn, load.per_second)
                subject.settle()

    def _large(self, subjects: Sequence[Subject]) -> None:
        for size in self.plan.large:
            duration, memory = large_measures(size)
            for turn in range(self.plan.rounds):
                self.say(f"{duration.title}, round {turn + 1}")
                with self._large_form(f"large_{size}_{turn}", size) as form:
                    once = _do_once(form, self.folder / "once")
                    self.results.add(duration, ONCE, self.plan.files, turn, once)
                    for subject in subjects if turn % 2 == 0 else subjects[::-1]:
                        before = subject.processes.resident_memory()
                        subject.processes.forget_peak()
                        with self._tolerance(subject, duration):
                            load = subject.upload([form])
                            self._add(duration, subject, turn, load.median)
                            grown = max(0, subject.processes.peak_memory() - before)
                            self._add(memory, subject, turn, grown)
                        subject.settle()

    # As the index grows

    def _growth(self) -> None:
        ours: list[Subject] = []
        try:
            for size in self.plan.sizes:
                catalogue = corpus.make_catalogue(self.corpora, size)
                projects = catalogue.projects()
                group = []
                for name, make in self.makers.items():
                    self.say(f"filling {name} with {size:,} files")
                    server = make(self.folder / f"{name}-{size}")
                    self.versions[name] = server.version()
                    subject = Subject(server, size, projects)
                    if isinstance(server, PrivatePypi):
                        if projects:
                            self._add(IMPORT, subject, 0, server.adopt(catalogue))
                        ours.append(subject)
                    elif isinstance(server, Devpi) and size > self.plan.files:
                        self.results.remark(
                            f"{name} was not filled with {size:,} files: each is an upload."
                        )
                        continue
                    else:
                        server.fill([catalogue], limit=self.plan.fill_limit)
                    group.append(subject)
                self._starts(group)
            _start_all(ours)
            filled = [subject for subject in ours if subject.projects]
            common = min(len(subject.projects) for subject in filled)
            for measure, count in ((PAGE_COST, common), (PAGE_COST_ANY, None)):
                pages = partial(Subject.pages, accept=HTML, count=count)
                self._read(measure, filled, pages, cost=True)
            for turn, subject in self._turns(ours):
                forms = corpus.small_uploads(f"growing-{turn}", self.plan.batch)
                self._add(UPLOAD_COST, subject, turn, subject.upload(forms).median)
            for subject in ours:
                subject.settle()
                self._add(MEMORY_BUSY, subject, 0, subject.processes.memory())
        finally:
            for subject in ours:
                subject.server.stop()

    # Shared by the groups

    def _read(
        self,
        measure: Measure,
        subjects: Sequence[Subject],
        requests: Callable[[Subject], Sequence[Request]],
        *,
        connections: int = 8,
        status: int = 200,
        worst: Measure | None = None,
        cost: bool = False,
    ) -> None:
        self.say(measure.title)
        asked: dict[tuple[str, int], Sequence[Request]] = {}
        slowness: dict[tuple[str, int], float] = {}
        for subject in subjects:
            planned = requests(subject)
            expected = 304 if measure is NOT_MODIFIED else status
            probe = subject.ask(planned[-1]) if planned else None
            if probe is None or probe.status != expected:
                self.results.remark(f"{subject.name}: none of: {measure.title}.")
                continue
            asked[subject.key] = planned
            slowness[subject.key] = subject.ask(planned[0]).seconds
        able = [subject for subject in subjects if subject.key in asked]
        for turn, subject in self._turns(able):
            slow = slowness[subject.key]
            if slow > 0.15 and turn > 0:
                continue  # its figure would not become better by waiting
            load = self.generator.run(
                subject.server.port,
                asked[subject.key],
                connections=connections,
                seconds=self.plan.seconds + 4 * slow if slow > 0.15 else self.plan.seconds,
            )
            subject.settle()
            if load.failures and status < 400:
                self.results.remark(
                    f"{subject.name}: {load.failures} of {load.requests} requests failed "
                    f"({measure.title})."
                )
            self._add(measure, subject, turn, 1 / load.per_second if cost else load.per_second)
            if worst is not None:
                self._add(worst, subject, turn, load.worst)

    def _turns(
        self, subjects: Sequence[Subject], rounds: int | None = None
    ) -> Iterator[tuple[int, Subject]]:
        """Round after round, each in the reverse order of the one before."""
        for turn in range(rounds or self.plan.rounds):
            for subject in subjects if turn % 2 == 0 else subjects[::-1]:
                yield turn, subject

    def _add(self, measure: Measure, subject: Subject, turn: int, value: float) -> None:
        self.results.add(measure, subject.name, subject.files, turn, value)

    @contextlib.contextmanager
    def _tolerance(self, subject: Subject, measure: Measure) -> Iterator[None]:
        """A peer that fails is a remark; ours ends the run."""
        try:
            yield
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            if subject.name == OURS:
                raise
            self.say(f"{subject.name}: {error}")
            self.results.remark(
                f"{subject.name} failed with {type(error).__name__}: {measure.title}."
            )

    @contextlib.contextmanager
    def _large_form(self, name: str, size: int) -> Iterator[Form]:
        path = self.folder / corpus.large_filename(name)
        corpus.make_large_wheel(path, name, size)
        try:
            yield corpus.large_form(path, name)
        finally:
            path.unlink()


def _start_all(subjects: Sequence[Subject]) -> None:
    """Start them, and wait until they have done what they do after a start."""
    for subject in subjects:
        subject.server.start(subject.first)
    for subject in subjects:
        subject.processes.settle(limit=30, quiet=1.0)


def _do_once(form: Form, target: Path) -> float:
    """Seconds of reading, hashing, writing and syncing the file once."""
    assert isinstance(form.file, Path)
    digest = hashlib.sha256()
    begin = time.perf_counter()
    with form.file.open("rb") as source, target.open("wb") as copy:
        while block := source.read(2**20):
            digest.update(block)
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())
    elapsed = time.perf_counter() - begin
    target.unlink()
    return elapsed
