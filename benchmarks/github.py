"""The command `python -m benchmarks github`: our two types over a GitHub of our own, with a delay.

GitHub itself is never asked. What is measured is our side: how often it asks, and how much of the
waiting it does at the same time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import requests

from benchmarks import corpus, github_report
from benchmarks.arguments import make_parser
from benchmarks.corpus import Corpus, small_form, small_uploads
from benchmarks.github_results import (
    Estimate,
    Outcome,
    Outcomes,
    Tally,
    install_of_pypihub,
    install_of_seed,
    page_of_pypihub,
    start_of_seed,
    sync_of_seed,
    update_of_seed,
    upload_of_seed,
)
from benchmarks.installing import install_graph
from benchmarks.one_run import Started, write_results
from benchmarks.remote_server import RemoteServer
from private_pypi.testing.distributions import make_wheel
from tests.github.fake import FakeGitHub

GROUPS = github_report.GROUPS

_ORG = "acme"
_SINGLE = "packages"  # the repository of type `github` from which is installed
_MANY = "many"  # the project with many releases
_MONTH = 30 * 24 * 60 * 60.0  # seconds
_MOST_DELAY = 1.0  # seconds
_IDLE_INTERVAL = 2.0  # seconds between the beginnings of two synchronisations
_USER = "walter"  # whose token may write everywhere
_PER_PROJECT = 10  # files, where a repository has many
_SOON = 0.5  # seconds after which one page is renewed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    delay: float = 0.06  # seconds before each answer of GitHub
    sizes: tuple[int, ...] = (1_000, 10_000)  # releases of one repository
    releases: int = 250  # of one project
    files: int = 20  # published in a row
    packages: int = 60  # installed
    syncs: int = 2  # in a row, without a change
    old: float = 8.0  # seconds after which a page is renewed; longer than an installation
    clients: tuple[str, ...] = ("uv", "pip")

    def quick(self) -> Plan:
        """The same with next to nothing of everything."""
        return replace(
            self,
            delay=0.002,
            sizes=(20,),
            releases=5,
            files=2,
            packages=4,
            syncs=1,
            old=1.0,
            clients=("uv",),
        )


def main(arguments: Sequence[str]) -> int:
    """Measure, print the report and write it."""
    options = _parse(arguments)
    plan = Plan().quick() if options.quick else Plan()
    if options.delay is not None:
        plan = replace(plan, delay=options.delay / 1000)
    options.out.mkdir(parents=True, exist_ok=True)
    started = Started()
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name, FakeGitHub() as github:
        Benchmark(plan, github, Path(name), outcomes).run(options.only)
    setting = started.ended(plan)
    write_results(
        options.out,
        "github",
        text=github_report.render(outcomes, setting),
        picture=github_report.draw(outcomes, setting),
        rows=outcomes.as_json(),
    )
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks github",
        "Measure the types github and github_projects over a GitHub of our own.",
        GROUPS,
        "GITHUB.md, github.svg and github.json",
    )
    parser.add_argument(
        "--delay",
        type=_delay,
        metavar="MILLISECONDS",
        help=f"before each answer of GitHub ({Plan().delay * 1000:.0f}; at most 1000)",
    )
    return parser.parse_args(arguments)


def _delay(text: str) -> float:
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = -1.0
    if not 0 <= milliseconds <= _MOST_DELAY * 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of milliseconds up to 1000")
    return milliseconds


class Benchmark:
    """One run over one GitHub."""

    def __init__(self, plan: Plan, github: FakeGitHub, folder: Path, outcomes: Outcomes) -> None:
        self._plan = plan
        self._github = github
        self._folder = folder
        self._outcomes = outcomes
        self._servers = 0  # so far, each with a folder of its own

    def run(self, groups: Sequence[str]) -> None:
        """Measure these groups."""
        _say("filling the repositories")
        self._fill()
        self._weigh_the_fake()
        for group, measure in (
            ("sync", self._sync),
            ("publish", self._publish),
            ("install", self._install),
            ("project", self._project),
        ):
            if group in groups:
                measure()

    # What there is

    def _fill(self) -> None:
        """One repository for each size, one to install from, and one for each project.

        All of it was published a month ago: a server that starts today need not look for what the
        index document does not have yet.
        """
        github, plan = self._github, self._plan
        graph = corpus.make_graph(self._folder, plan.packages)
        github.clock.advance(-_MONTH)
        for repository in (*map(_sized, plan.sizes), _SINGLE):
            self._make_repo(repository)
        tables = {name: self._single(name) for name in (*map(_sized, plan.sizes), _SINGLE)}
        with self._server(tables) as server:
            server.wait_until_ready()
            for size in plan.sizes:
                server.publish(_sized(size), [small_form(*make_wheel(_project(0), "1.0"))])
            forms = [small_form(path.name, path.read_bytes()) for path in graph.files()]
            server.publish(_SINGLE, forms, connections=4)
            server.update_index(_SINGLE)
        for size in plan.sizes:
            first, *others = (_filename(number) for number in range(size))
            github.copy_release(f"{_ORG}/{_sized(size)}", first, others)
        self._fill_projects(graph)
        github.clock.advance(_MONTH)

    def _fill_projects(self, graph: Corpus) -> None:
        for project in (*graph.projects(), _MANY):
            self._make_repo(project)
        for path in graph.files():
            version = path.name.split("-")[1]
            files = {path.name: path.read_bytes()}
            self._github.make_release(f"{_ORG}/{path.parent.name}", f"v{version}", files)
        for number in range(self._plan.releases):
            filename, content = make_wheel(_MANY, f"{number}.0", requires_python=">=3.8")
            self._github.make_release(f"{_ORG}/{_MANY}", f"v{number}.0", {filename: content})

    def _make_repo(self, name: str) -> None:
        self._github.make_repo(_ORG, name, private=True)
        self._github.set_rights(_USER, {f"{_ORG}/{name}": "write"})

    def _single(self, repository: str, **keys: object) -> dict[str, object]:
        """The table of a repository that holds all packages."""
        place = {"owner": _ORG, "repo": repository, "api_url": self._github.api_url}
        return {"type": "github", **place, **keys}

    def _projects(self, **keys: object) -> dict[str, object]:
        """The table of an owner whose projects have repositories of their own."""
        place = {"owner": _ORG, "api_url": self._github.api_url}
        return {"type": "github_projects", **place, **keys}

    def _server(self, tables: dict[str, dict[str, object]]) -> RemoteServer:
        """A server that knows nothing yet, with a token that was never used."""
        self._servers += 1
        folder = self._folder / f"server-{self._servers}"
        return RemoteServer(folder, tables, self._github.make_token(_USER))

    def _weigh_the_fake(self) -> None:
        """How long it takes by itself: it checks everything against GitHub's descriptions."""
        token = self._github.make_token(_USER)
        largest = f"/repos/{_ORG}/{_sized(max(self._plan.sizes))}"
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {token}"
            for what, path in (
                ("a repository", largest),
                ("a page of 100 releases", f"{largest}/releases?per_page=100"),
            ):
                elapsed = []
                for _ in range(5):
                    begin = time.perf_counter()
                    session.get(self._github.api_url + path).raise_for_status()
                    elapsed.append(time.perf_counter() - begin)
                self._outcomes.fake[what] = median(elapsed)

    # What is measured

    @contextmanager
    def _task(
        self, group: str, task: str, way: str, *others: Estimate, times: int = 1
    ) -> Iterator[_Watch]:
        """Measure the block, in which a thing is done so many times."""
        _say(f"{task} ({way})")
        self._github.forget_requests()
        self._github.latency = self._plan.delay
        watch = _Watch()
        begin = time.perf_counter()
        try:
            yield watch
        finally:
            seconds = time.perf_counter() - begin
            self._github.latency = 0.0
        times = watch.times or times
        asked = Tally.of(self._github.requests, times)
        seconds = seconds / times if watch.seconds is None else watch.seconds
        self._outcomes.rows.append(Outcome(group, task, way, seconds, asked, others))

    def _sync(self) -> None:
        for size in self._plan.sizes:
            repository = _sized(size)
            table = {repository: self._single(repository, sync_index_interval=0.2)}
            last = _project((size - 1) // _PER_PROJECT)
            way = f"{size:,} releases"
            task = "First start, without an index document"
            self._start(self._server(table), task, way, repository, last)
            server = self._server(table)
            for task, changed in (
                (github_report.UPDATE_ALL, True),
                ("`update_index`, nothing new", False),
            ):
                with self._task("sync", task, way, update_of_seed(size, changed=changed)):
                    said = server.update_index(repository)
                new, old = (size, 0) if changed else (0, size)
                if said != f"{repository}: {new} added, 0 removed, {old} unchanged":
                    raise RuntimeError(f"update_index said: {said}")
            for task in ("First start, with the index document", "Restart"):
                self._start(server, task, way, repository, last, start_of_seed())
            # Time enough between two synchronisations for beginning and ending to count.
            slower = {repository: self._single(repository, sync_index_interval=_IDLE_INTERVAL)}
            with server.with_tables(slower) as server:
                server.wait_until_ready()
                self._idle(server, repository, way)

    def _start(
        self,
        server: RemoteServer,
        task: str,
        way: str,
        repository: str,
        project: str,
        *others: Estimate,
    ) -> None:
        """Until the page of a project is there; then it is stopped."""
        try:
            with self._task("sync", task, way, *others):
                server.start()
                server.wait_for_page(repository, project, _PER_PROJECT)
        finally:
            server.stop()

    def _idle(self, server: RemoteServer, repository: str, way: str) -> None:
        """Synchronisations of a server that found nothing new in the one before."""
        plan = self._plan
        done, _ = server.wait_for_synchronizations(repository, 2)
        # This one has just ended, so that the requests of no other one are counted in part.
        before, seconds = server.wait_for_synchronizations(repository, done + 1)
        with self._task("sync", github_report.IDLE, way, sync_of_seed(), times=plan.syncs) as watch:
            after, total = server.wait_for_synchronizations(repository, before + plan.syncs)
            watch.times = after - before
            watch.seconds = (total - seconds) / watch.times

    def _publish(self) -> None:
        files = self._plan.files
        batches = (
            ("first", 1, 1, "One file, the first of its publisher"),
            ("row", files, 1, github_report.in_a_row(files)),
            ("side", files, 4, f"{files} files, 4 at a time"),
        )
        for prefix, count, _, _ in batches:
            for number in range(count):
                self._make_repo(f"{prefix}-{number:04d}")
        for way, name, table in (
            ("`github`", _SINGLE, self._single(_SINGLE)),
            ("`github_projects`", _ORG, self._projects()),
        ):
            with self._server({name: table}) as server:
                server.wait_until_ready()
                for prefix, count, connections, task in batches:
                    forms = small_uploads(prefix, count)
                    others = [upload_of_seed(count)] if name == _SINGLE else []
                    with self._task("publish", task, way, *others):
                        server.publish(name, forms, connections=connections)

    def _install(self) -> None:
        packages = self._plan.packages
        seed = [install_of_seed(packages, again=again) for again in (False, True)]
        hub = [install_of_pypihub(packages, corpus.GRAPH_RELEASES)] * 2
        proxy, redirect = (self._single(_SINGLE, download=how) for how in ("proxy", "redirect"))
        for way, name, table, clients, (first, again) in (
            ("`github`, proxy", _SINGLE, proxy, self._plan.clients, seed),
            ("`github`, redirect", _SINGLE, redirect, self._plan.clients[:1], seed),
            ("`github_projects`", _ORG, self._projects(), self._plan.clients, hub),
        ):
            for client in clients:
                with self._server({name: table}) as server:
                    server.wait_until_ready()
                    own = server.index_url(name)
                    with self._task("install", f"{client}, cold", way, first):
                        self._install_with(client, own)
                    with self._task("install", f"{client}, warm", way, again):
                        self._install_with(client, own)
                    if client == clients[0]:
                        other = server.index_url(name, self._github.make_token(_USER))
                        with self._task("install", f"{client}, warm, another token", way, first):
                            self._install_with(client, other)
        self._install_later(hub[0])

    def _install_later(self, other: Estimate) -> None:
        """When all looks at the projects are old; none becomes old in the middle."""
        client = self._plan.clients[0]
        with self._server({_ORG: self._projects(sync_index_interval=self._plan.old)}) as server:
            server.wait_until_ready()
            index_url = server.index_url(_ORG)
            self._install_with(client, index_url)
            for state in ("pages too old", "pages too old again"):
                time.sleep(self._plan.old)
                with self._task("install", f"{client}, warm, {state}", "`github_projects`", other):
                    self._install_with(client, index_url)

    def _install_with(self, client: str, index_url: str) -> None:
        install_graph(client, index_url, self._plan.packages, self._folder / "installed")

    def _project(self) -> None:
        """One project with many releases, in a repository of its own."""
        count = self._plan.releases
        way, other = f"{count:,} releases", page_of_pypihub(count)
        with self._server({_ORG: self._projects()}) as server:
            server.wait_until_ready()
            with self._task("project", github_report.PAGE_FIRST, way, other):
                server.wait_for_page(_ORG, _MANY, count)
        again = server.with_tables({_ORG: self._projects(sync_index_interval=_SOON)})
        with again:
            # The first look after the start does not count: it is not conditional. It only asks
            # GitHub if the page has expired, and a start may be quicker than that.
            again.wait_until_ready()
            time.sleep(2 * _SOON)
            again.wait_for_page(_ORG, _MANY, count)
            time.sleep(2 * _SOON)
            with self._task("project", github_report.PAGE_UNCHANGED, way, other):
                again.wait_for_page(_ORG, _MANY, count)


@dataclass(slots=True)
class _Watch:
    """Where a block puts how often it was done and the seconds of one time, if it knows better."""

    times: int | None = None
    seconds: float | None = None


def _sized(size: int) -> str:
    """The repository that has so many releases."""
    return f"releases-{size}"


def _project(number: int) -> str:
    return f"measured-{number:04d}"


def _filename(number: int) -> str:
    """The file of a release: ten of them are a project."""
    project = _project(number // _PER_PROJECT).replace("-", "_")
    return f"{project}-{number % _PER_PROJECT + 1}.0-py3-none-any.whl"


def _say(sentence: str) -> None:
    print(time.strftime("%H:%M:%S"), sentence, file=sys.stderr, flush=True)
