"""Every kind of request beside its limits: `python -m benchmarks limits`.

Ours is measured on each of its engines, and on granian with two worker processes as well. The
limits are nginx, with two workers and the same pages and files as a static tree, and for each
engine a bare callable with a constant answer, which shows what the engine costs without our
application. The peers are those in Python that serve files or mirror an index.

Every server has the same files, but devpi takes them as uploads only, and so has some of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from benchmarks.arguments import add_servers, chosen, make_parser
from benchmarks.corpus import Corpus, make_catalogue
from benchmarks.load import Generator, Request, find_generator, together
from benchmarks.mirror_servers import Proxpi, Upstream
from benchmarks.one_run import Setting, Started, write_results
from benchmarks.plot import Bar, Canvas
from benchmarks.report import show_targets, table
from benchmarks.results import OURS, Measure, Results, Target, Unit
from benchmarks.scenarios import Subject
from benchmarks.servers import EXECUTABLES as OF_INDEXES
from benchmarks.servers import HTML, JSON, PEERS, Devpi, PrivatePypi, Pypiserver, Server, run
from benchmarks.static_tree import write_index, write_list
from private_pypi.testing.distributions import make_wheel
from private_pypi.web.serving.engines import GRANIAN, WAITRESS

GROUPS = ("start", "first", "requests", "many")
ON_GRANIAN = "private_pypi-granian"
ON_TWO = "private_pypi-granian-2"
BARE, BARE_GRANIAN = "bare", "bare-granian"
NGINX, SRS, PROXPI = "nginx", "simple-repository-server", "proxpi"
DEVPI, PYPISERVER = Devpi.name, Pypiserver.name
SERVERS = (OURS, ON_GRANIAN, ON_TWO, BARE, BARE_GRANIAN, NGINX, SRS, PROXPI, DEVPI, PYPISERVER)
BARE_OF = {OURS: BARE, ON_GRANIAN: BARE_GRANIAN}
ENGINE_OF = {
    **{OURS: WAITRESS, ON_GRANIAN: GRANIAN, ON_TWO: GRANIAN},
    **{BARE: WAITRESS, BARE_GRANIAN: GRANIAN},
}
WORKERS_OF = {ON_TWO: 2}  # worker processes; the others have one process
EXECUTABLES = {SRS: "simple-repository-server", PROXPI: "gunicorn", **OF_INDEXES}
_MANY = "many-files"
_SLOW = 0.15  # seconds for one answer
_AFTER_START = 1.5  # seconds; our server loads what pages do not need a second after its start
_CONSTANT = b"<a>constant</a>\n" * 100  # as long as a usual page
_COLOURS = {
    **{OURS: "#1f6feb", BARE: "#79b0fc", ON_GRANIAN: "#1a7f37", BARE_GRANIAN: "#7fcf96"},
    **{ON_TWO: "#0b4f1e"},
    **{NGINX: "#c9d1d9", SRS: "#d29922", PROXPI: "#8b949e"},
    **{DEVPI: "#bf3989", PYPISERVER: "#8250df"},
}

WARM = Measure("warm", "Start to first page, warm", Unit.TIME)
COLD = Measure("cold", "Start to first page, no file in memory", Unit.TIME)
FIRST = Measure("first", "Processor time of a page, first request", Unit.TIME)
SECOND = Measure("second", "Processor time of a page, second request", Unit.TIME)
LATER = Measure("later", "Processor time of a page, later requests", Unit.TIME)
PAGES = Measure("pages", "Random pages, HTML", Unit.RATE)
PAGES_JSON = Measure("pages_json", "Random pages, JSON", Unit.RATE)
METADATA = Measure("metadata", "Core metadata", Unit.RATE)
WHEELS = Measure("wheels", "Small wheels", Unit.RATE)
UNKNOWN = Measure("unknown", "Unknown projects (404)", Unit.RATE)
LIST = Measure("list", "The list of all projects", Unit.RATE)
MANY_HTML = Measure("many_html", "A page of many files, HTML, not compressed", Unit.RATE)
MANY_JSON = Measure("many_json", "The same in JSON, not compressed", Unit.RATE)
MANY_GZIP = Measure("many_gzip", "The same in HTML, gzip accepted", Unit.RATE)
MEASURES = (
    *(WARM, COLD, FIRST, SECOND, LATER, PAGES, PAGES_JSON, METADATA, WHEELS, UNKNOWN, LIST),
    *(MANY_HTML, MANY_JSON, MANY_GZIP),
)


_WITH_WORKERS = (PAGES, METADATA)
"""What is measured with more than one process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    files: int = 10_000
    many: int = 3_000  # files of one project
    uploaded: int = 1_000  # of the files, to a server that takes them as uploads only
    rounds: int = 3
    seconds: float = 2.0

    def quick(self) -> Plan:
        """The same with next to nothing of everything."""
        return replace(self, files=40, many=30, uploaded=20, rounds=1, seconds=0.1)


class OnEngine(PrivatePypi):
    """This checkout, on the engine that belongs to the name."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, engine=ENGINE_OF[name])
        self.name = name

    def command(self) -> Sequence[str]:
        workers = WORKERS_OF.get(self.name)
        more = [] if workers is None else ["--workers", str(workers)]
        return [*super().command(), *more]


class Bare(PrivatePypi):
    """A bare callable on an engine, which gives every request the same answer."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, engine=ENGINE_OF[name])
        self.name = name
        (folder / "page").write_bytes(_CONSTANT)

    def version(self) -> str:
        return version(self._engine)

    def command(self) -> Sequence[str]:
        page = str(self.folder / "page")
        words = ["-m", "benchmarks.bare", self._engine, str(self.port), page]
        return ["env", f"PYTHONPATH={Path.cwd()}", sys.executable, *words]


class SimpleRepository(Server):
    """simple-repository-server over a folder of projects."""

    name = SRS

    def version(self) -> str:
        python = Path(self.tool(EXECUTABLES[SRS])).parent / "python"
        program = f"import importlib.metadata as m; print(m.version({SRS!r}))"
        return run([str(python), "-c", program]).strip()

    def command(self) -> Sequence[str]:
        command = [self.tool(EXECUTABLES[SRS]), "--host", "127.0.0.1", "--port", str(self.port)]
        return [*command, str(self.folder / "files")]

    def fill(self, corpora: Sequence[Corpus], *, limit: float) -> None:
        for corpus in corpora:
            corpus.link_into(self.folder / "files")

    @property
    def simple(self) -> str:
        return "/simple/"

    @property
    def uploads(self) -> str:
        raise NotImplementedError("it takes none")


def main(arguments: Sequence[str]) -> int:
    """Measure, print the report and write it."""
    options = _parse(arguments)
    plan = Plan().quick() if options.quick else Plan()
    options.out.mkdir(parents=True, exist_ok=True)
    started, results, versions = Started(), Results(), dict[str, str]()
    tools = dict(options.peer)
    names = chosen(SERVERS, EXECUTABLES, options.servers, tools, results.remark)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        _measure(plan, options.only, names, tools, Path(name), results, versions)
    setting = started.ended(plan)
    write_results(
        options.out,
        "limits",
        text="\n".join(_report(results, setting, versions)) + "\n",
        picture=_draw(results, setting),
        rows=results.as_json(),
    )
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks limits",
        "Measure every kind of request beside nginx, constant answers, and peers in Python.",
        GROUPS,
        "LIMITS.md, limits.svg and limits.json",
    )
    add_servers(parser, "--servers", SERVERS, EXECUTABLES)
    return parser.parse_args(arguments)


def _measure(
    plan: Plan,
    groups: Sequence[str],
    names: Sequence[str],
    tools: dict[str, Path],
    folder: Path,
    results: Results,
    versions: dict[str, str],
) -> None:
    corpora = [make_catalogue(folder, plan.files), _make_many(folder / "many", plan.many)]
    uploaded = [make_catalogue(folder, plan.uploaded), corpora[1]]
    projects = corpora[0].projects()
    tree = folder / "tree"
    write_index(tree / "simple", corpora)
    write_list(tree / "simple", [*projects, _MANY])
    (tree / "ready").touch()
    # nginx is also the upstream of proxpi, and not measured if nobody wants it.
    upstream = Upstream(folder / NGINX, tree, 0, workers=2, notes=False)
    subjects = []
    try:
        for name in names:
            server = _make(name, folder, tools.get(name), upstream)
            versions[name] = server.version()
            if isinstance(server, OnEngine):
                corpora[1].link_into(server.folder / "root/cache/measured/storage")
                server.adopt(corpora[0])
            elif isinstance(server, (SimpleRepository, Pypiserver)):
                server.fill(corpora, limit=600)
            elif isinstance(server, Devpi):
                try:
                    server.fill(uploaded, limit=600)
                except TimeoutError as error:
                    results.remark(f"{name} was left out: {error}.")
                    continue
            its_projects = uploaded[0].projects() if isinstance(server, Devpi) else projects
            subjects.append(Subject(server, plan.files, its_projects))
        if PROXPI in names or NGINX in names:
            upstream.start(None)
        measuring = _Measuring(plan, results, find_generator(folder, plan.seconds), subjects)
        for group in groups:
            getattr(measuring, group)()
    finally:
        for subject in subjects:
            subject.server.stop()
        upstream.stop()


def _make(name: str, folder: Path, tools: Path | None, upstream: Upstream) -> Server:
    if name == NGINX:
        return upstream
    if name == PROXPI:
        return Proxpi(folder / PROXPI, upstream.index_url, tools)
    if name == SRS:
        return SimpleRepository(folder / SRS, tools)
    if name in PEERS:
        return PEERS[name](folder / name, tools)
    return (Bare if name in BARE_OF.values() else OnEngine)(folder / name, name)


def _make_many(folder: Path, files: int) -> Corpus:
    (folder / _MANY).mkdir(parents=True)
    for number in range(files):
        name, content = make_wheel(_MANY, f"{number // 20}.{number % 20}", requires_python=">=3.8")
        (folder / _MANY / name).write_bytes(content)
    return Corpus(folder)


class _Measuring:
    """The groups of measures, each a method."""

    def __init__(
        self, plan: Plan, results: Results, generator: Generator, subjects: Sequence[Subject]
    ) -> None:
        self._plan = plan
        self._results = results
        self._generator = generator
        self._subjects = subjects
        self._names = {subject.name: _shown_name(subject) for subject in subjects}

    def start(self) -> None:
        """Seconds from the start of a process to its first page."""
        others = [
            each
            for each in self._subjects
            if each.server.processes is None and each.name not in WORKERS_OF
        ]
        can_drop = os.access("/proc/sys/vm/drop_caches", os.W_OK)
        if not can_drop:
            self._results.remark("Only root can drop the machine's cache, so no start was cold.")
        for measure in (WARM, COLD) if can_drop else (WARM,):
            for turn in range(self._plan.rounds + 1):
                for subject in others:
                    if measure is COLD:
                        subprocess.run(["sync"], check=True)
                        Path("/proc/sys/vm/drop_caches").write_text("3")
                    seconds = subject.server.start(subject.first)
                    subject.server.stop()
                    if turn > 0:  # the first start fills caches
                        self._add(measure, subject, turn, seconds)

    def first(self) -> None:
        """The processor time of pages when they are asked for the first time, and again.

        Our server compresses a page when it is asked for again, so the second requests are measured
        apart: they must not make the later ones look slower.

        Each page is asked for once. The processor time is compared, because a client that asks so
        takes longer than the server.
        """
        self._start_all()
        for subject in self._subjects:
            if subject.name not in (*BARE_OF, SRS, PROXPI):
                continue
            for turn in range(self._plan.rounds):
                subject.server.stop()
                subject.server.start(subject.first)
                # What a server does or loads only after its start must not count for pages.
                subject.processes.settle(quiet=_AFTER_START)
                for measure in (FIRST, SECOND, LATER):
                    before = subject.processes.processor_time()
                    _ask_each(subject, subject.pages(HTML))
                    used = subject.processes.processor_time() - before
                    self._add(measure, subject, turn, used / len(subject.projects))

    def requests(self) -> None:
        """Requests per second over 8 connections."""
        wheels = {subject.name: _wheels(subject) for subject in self._running()}
        self._load(PAGES, lambda s: s.pages(HTML))
        self._load(PAGES_JSON, lambda s: _json_pages(s))
        self._load(METADATA, lambda s: [s.request(f"{path}.metadata") for path in wheels[s.name]])
        self._load(WHEELS, lambda s: [s.request(path) for path in wheels[s.name]])
        self._load(UNKNOWN, Subject.unknown_pages)
        self._load(LIST, lambda s: [s.request(s.server.simple, HTML)])

    def many(self) -> None:
        """The page of a project with many files."""
        plain = {"Accept_Encoding": "identity"}
        self._load(MANY_HTML, lambda s: [s.request(s.server.page(_MANY), HTML, **plain)])
        self._load(MANY_JSON, lambda s: _many_in_json(s, plain))
        self._load(MANY_GZIP, lambda s: [s.request(s.server.page(_MANY), HTML)])

    def _load(self, measure: Measure, requests: Callable[[Subject], Sequence[Request]]) -> None:
        asked: dict[str, Sequence[Request]] = {}
        slowness: dict[str, float] = {}
        for subject in self._running():
            if subject.name in WORKERS_OF and measure not in _WITH_WORKERS:
                continue
            planned = requests(subject)
            probe = subject.ask(planned[-1]) if planned else None
            # The constant answer is the limit for unknown projects as well.
            is_unknown = measure is UNKNOWN and not isinstance(subject.server, Bare)
            expected = 404 if is_unknown else 200
            if probe is None or probe.status != expected:
                self._results.remark(f"{self._names[subject.name]}: none of: {measure.title}.")
                continue
            asked[subject.name] = planned
            slowness[subject.name] = subject.ask(planned[0]).seconds
        for turn in range(self._plan.rounds):
            for subject in self._subjects if turn % 2 == 0 else self._subjects[::-1]:
                slow = slowness.get(subject.name, 0.0)
                if subject.name not in asked or (slow > _SLOW and turn > 0):
                    continue  # the figure of a slow one would not become better by waiting
                load = self._generator.run(
                    subject.server.port,
                    asked[subject.name],
                    connections=8,
                    seconds=self._plan.seconds + (8 * slow if slow > _SLOW else 0),
                )
                self._add(measure, subject, turn, load.per_second)
                subject.settle()

    def _running(self) -> Sequence[Subject]:
        self._start_all()
        return self._subjects

    def _start_all(self) -> None:
        for subject in self._subjects:
            if subject.server.processes is None:
                subject.server.start(subject.first)

    def _add(self, measure: Measure, subject: Subject, turn: int, value: float) -> None:
        self._results.add(measure, self._names[subject.name], self._plan.files, turn, value)


def _shown_name(subject: Subject) -> str:
    return NGINX if isinstance(subject.server, Upstream) else subject.name


def _wheels(subject: Subject) -> list[str]:
    """Paths of wheels; a bare callable has none, and gives its constant answer at any path."""
    return ["/any.whl"] if isinstance(subject.server, Bare) else subject.wheels(30)


def _json_pages(subject: Subject) -> list[Request]:
    """As `Subject.pages`; the constant answer is the limit of these as well."""
    return subject.pages(HTML if isinstance(subject.server, Bare) else JSON)


def _many_in_json(subject: Subject, headers: dict[str, str]) -> list[Request]:
    """The page of many files in JSON; none if the server has it in another form only."""
    request = subject.request(subject.server.page(_MANY), JSON, **headers)
    given = subject.ask(request).headers.get("content-type", "")
    return [request] if given.startswith(JSON) or isinstance(subject.server, Bare) else []


def _ask_each(subject: Subject, requests: Sequence[Request]) -> None:
    """Ask for each once, over 8 connections at a time."""
    waiting = iter(requests)
    lock = threading.Lock()  # guards waiting

    def work() -> None:
        while True:
            with lock:
                request = next(waiting, None)
            if request is None:
                return
            subject.ask(request)

    together([threading.Thread(target=work) for _ in range(8)])


def _targets(results: Results, plan: Plan) -> Iterator[Target]:
    def ratio(measure: Measure, other: str) -> float | None:
        return results.times_better(measure, other, plan.files)

    for measure in (PAGES, METADATA, WHEELS, UNKNOWN, LIST):
        for ours, bare in BARE_OF.items():
            beside = results.times_better(measure, bare, plan.files, ours=ours)
            promise = f"{measure.title}, against a constant answer of {ENGINE_OF[ours]}"
            yield Target(promise, beside, 0.5, True, "{:.2f} ×")
        if measure in _WITH_WORKERS:
            beside = results.times_better(measure, NGINX, plan.files, ours=ON_TWO)
            promise = f"{measure.title}, on granian with two workers, against nginx"
            yield Target(promise, beside, 0.25, True, "{:.2f} ×")
        if measure is PAGES:
            continue  # below
        peers = [found for peer in EXECUTABLES if (found := ratio(measure, peer)) is not None]
        least = min(peers, default=None)
        yield Target(f"{measure.title}, against the best peer", least, 1.5, True, "{:.2f} ×")
    for measure, least_times in (
        (PAGES, 5.0),
        (MANY_HTML, 10.0),
        (MANY_GZIP, 10.0),
        (MANY_JSON, 6.0),
    ):
        promise = f"{measure.title}, against proxpi"
        yield Target(promise, ratio(measure, PROXPI), least_times, True, "{:.1f} ×")
    first, later = (results.value(each, OURS, plan.files) for each in (FIRST, LATER))
    times = first / later if first and later else None
    yield Target("A page, first request against later ones", times, 1.5, False, "{:.2f} ×")
    for measure, most in ((WARM, 0.35), (COLD, 1.2)):
        seconds = results.value(measure, OURS, plan.files)
        yield Target(measure.title, seconds, most, False, "{:.2f} s")


def _report(results: Results, setting: Setting[Plan], versions: dict[str, str]) -> Iterator[str]:
    plan, names = setting.plan, results.servers()
    yield "# Every kind of request beside its limits"
    yield ""
    yield f"Measured on {setting.date} in {setting.seconds / 60:.0f} minutes by one run of"
    yield "`python -m benchmarks limits`."
    yield ""
    yield f"- Machine: {setting.machine}; Python {setting.python} for ours."
    yield f"- Versions: {', '.join(f'{name} {found}' for name, found in versions.items())}."
    yield "- Other work: the load average was {:.1f} before the run and {:.1f} at its end.".format(
        *setting.other_work
    )
    yield f"- Every server has the same {plan.files:,} files, and one project with {plan.many:,}."
    if DEVPI in versions:
        yield f"- devpi has {plan.uploaded:,} of these files and that project, all as uploads."
    yield "- `private_pypi` and `bare` run on waitress, those with `-granian` on granian."
    yield "- Each is one process, except for `private_pypi-granian-2`, which has two workers."
    yield f"- `bare` is a callable that gives a constant answer of {len(_CONSTANT):,} bytes."
    yield "- nginx has two workers, and the same pages and files as a static tree."
    yield "- A figure is the median over the rounds; a ratio that of the ratios of the rounds."
    yield ""
    yield "![The same figures as bars](limits.svg)"
    yield ""
    yield from show_targets(list(_targets(results, plan)))
    yield "## Figures"
    yield ""
    rows = []
    for measure in MEASURES:
        values = [results.value(measure, name, plan.files) for name in names]
        if any(value is not None for value in values):
            shown = ["–" if value is None else measure.unit.show(value) for value in values]
            rows.append([measure.title, *shown])
    yield from table(["", *names], rows)
    yield from _engines(results, plan)
    if results.remarks:
        yield "## Remarks"
        yield ""
        yield from (f"- {remark}" for remark in results.remarks)


def _engines(results: Results, plan: Plan) -> Iterator[str]:
    """What each engine costs: ours beside the bare callable on the same engine."""
    rows = []
    for measure in (PAGES, PAGES_JSON, METADATA, WHEELS, UNKNOWN, LIST):
        pairs = [*((ours, bare) for ours, bare in BARE_OF.items()), (ON_GRANIAN, OURS)]
        ratios = [
            results.times_better(measure, peer, plan.files, ours=ours) for ours, peer in pairs
        ]
        if any(ratio is not None for ratio in ratios):
            shown = ["–" if ratio is None else f"{ratio:.2f} ×" for ratio in ratios]
            rows.append([measure.title, *shown])
    if rows:
        yield "## Engines"
        yield ""
        yield "How many times as many requests per second, in the median of the rounds:"
        yield ""
        titles = ["waitress: ours / bare", "granian: ours / bare", "ours: granian / waitress"]
        yield from table(["", *titles], rows)


def _draw(results: Results, setting: Setting[Plan]) -> str:
    canvas = Canvas()
    canvas.text(24, 36, "Every kind of request beside its limits", size=20, weight=600)
    canvas.text(24, 58, f"{setting.date} · {setting.machine}", colour="#57606a")
    canvas.skip(84)

    def groups(more_is_better: bool) -> Iterator[tuple[Measure, list[Bar]]]:
        for measure in MEASURES:
            values = {
                name: value
                for name in results.servers()
                if (value := results.value(measure, name, setting.plan.files)) is not None
            }
            if values and measure.unit.more_is_better is more_is_better:
                yield measure, [Bar(name, value, _COLOURS[name]) for name, value in values.items()]

    canvas.panel("longer is better", groups(True))
    canvas.panel("shorter is better", groups(False))
    return canvas.finish()
