"""What a run over mirrors came to, as text and as a picture; it measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.plot import Bar, Canvas
from benchmarks.report import show_targets, table
from benchmarks.results import OURS, Measure, Results, Target, Unit

if TYPE_CHECKING:
    from benchmarks.mirror import Plan
    from benchmarks.one_run import Setting

PAGES_FIRST = Measure("pages_first", "{pages} pages for the first time", Unit.TIME)
PAGES_JSON = Measure("pages_json", "Random pages, JSON", Unit.RATE)
PAGES_HTML = Measure("pages_html", "Random pages, HTML", Unit.RATE)
INSTALL_COLD = Measure("install_cold", "uv, cold", Unit.TIME)
INSTALL_WARM = Measure("install_warm", "uv, warm", Unit.TIME)
LARGE_FIRST_BYTE = Measure("large_first_byte", "First byte", Unit.TIME)
LARGE_WHOLE = Measure("large_whole", "The whole file", Unit.TIME)
LARGE_BEFORE = Measure("large_before", "Memory before", Unit.MEMORY)
LARGE_PEAK = Measure("large_peak", "Highest memory", Unit.MEMORY)
SHARED = Measure("shared", "Until all have it", Unit.TIME)
PAGE_FIRST = Measure("page_first", "For the first time", Unit.TIME)
PAGE_AGAIN = Measure("page_again", "Again", Unit.TIME)
LIST_PAGE = Measure("list_page", "The page of a project, before the list", Unit.TIME)
LIST_FIRST = Measure("list_first", "For the first time", Unit.TIME)
LIST_AGAIN = Measure("list_again", "Again", Unit.TIME)
LIST_MEANWHILE = Measure("list_meanwhile", "The slowest page of a project meanwhile", Unit.TIME)
LIST_PEAK = Measure("list_peak", "Highest memory", Unit.MEMORY)


def asked_in(measure: Measure) -> Measure:
    """The requests that the upstream got while something was measured."""
    return Measure(f"{measure.key}_asked", f"{measure.title}: requests upstream", Unit.COUNT)


_GROUPS: Mapping[str, tuple[str, Sequence[Measure]]] = {
    "pages": (
        "Pages, 8 connections",
        (PAGES_FIRST, PAGES_JSON, asked_in(PAGES_JSON), PAGES_HTML, asked_in(PAGES_HTML)),
    ),
    "install": (
        "Installing {packages} packages that need each other, three releases of each",
        (INSTALL_COLD, asked_in(INSTALL_COLD), INSTALL_WARM, asked_in(INSTALL_WARM)),
    ),
    "large": (
        "A wheel of {large}, cold",
        (LARGE_FIRST_BYTE, LARGE_WHOLE, asked_in(LARGE_WHOLE), LARGE_BEFORE, LARGE_PEAK),
    ),
    "shared": (
        "{clients} clients that ask for one cold wheel of {shared} at once",
        (SHARED, asked_in(SHARED)),
    ),
    "page": ("The page of a project with {page:,} files, JSON", (PAGE_FIRST, PAGE_AGAIN)),
    "list": (
        "The list of {names:,} projects, JSON",
        (LIST_PAGE, LIST_FIRST, LIST_AGAIN, LIST_MEANWHILE, LIST_PEAK),
    ),
}
GROUPS = tuple(_GROUPS)
_DRAWN = (
    PAGES_JSON,
    PAGES_HTML,
    PAGES_FIRST,
    INSTALL_COLD,
    INSTALL_WARM,
    LARGE_FIRST_BYTE,
    LARGE_WHOLE,
    SHARED,
    PAGE_FIRST,
    PAGE_AGAIN,
    LIST_FIRST,
    LIST_AGAIN,
    LIST_PEAK,
)
_COLOURS = {OURS: "#1f6feb", "proxpi": "#d29922", "devpi": "#8b949e", "upstream": "#c9d1d9"}
_GROWN = 16e6  # bytes more than before that still count as flat


@dataclass(slots=True)
class Measured:
    """What was measured, by the delay of the upstream in milliseconds."""

    results: dict[int, Results]
    versions: dict[str, str] = field(default_factory=dict)  # by server
    generator: str = ""  # of load
    remarks: list[str] = field(default_factory=list)

    def remark(self, sentence: str) -> None:
        """A sentence that a reader needs beside the figures."""
        if sentence not in self.remarks:
            self.remarks.append(sentence)

    def servers(self) -> list[str]:
        """The measured servers, ours first."""
        found = {name for results in self.results.values() for name in results.servers()}
        return sorted(found, key=list(_COLOURS).index)

    def as_json(self) -> list[dict[str, object]]:
        """Every sample, in plain units (seconds, bytes, requests; the delay in milliseconds)."""
        return [
            {"delay": delay, **sample}
            for delay, results in self.results.items()
            for sample in results.as_json()
        ]


def render(measured: Measured, setting: Setting[Plan]) -> str:
    """The whole report in Markdown."""
    return "\n".join(_lines(measured, setting)).rstrip() + "\n"


def draw(measured: Measured, setting: Setting[Plan]) -> str:
    """The figures as bars; those of each measure have a scale of their own."""
    plan = setting.plan
    canvas = Canvas()
    canvas.text(24, 36, "Mirrors of an index", size=20, weight=600)
    versions = " · ".join(f"{name} {version}" for name, version in _versions(measured).items())
    canvas.text(24, 58, f"{versions} · {setting.date} · {setting.machine}", colour="#57606a")
    canvas.skip(84)
    for delay, results in measured.results.items():
        for better, title in ((True, "longer is better"), (False, "shorter is better")):
            groups = _bars(measured, results, plan, better)
            canvas.panel(f"{_heading(delay)}: {title}", groups)
    return canvas.finish()


def targets(results: Results, plan: Plan) -> list[Target]:
    """What was promised, against what one run measured."""
    files = plan.files

    def against(measure: Measure, peer: str) -> float | None:
        """Ours in units of the peer's."""
        better = results.times_better(measure, peer, files)
        if better is None or measure.unit.more_is_better:
            return better
        return 1 / better

    def worst(*measures: Measure) -> float | None:
        values = [results.value(measure, OURS, files) for measure in measures]
        return max((value for value in values if value is not None), default=None)

    def in_mb(value: float | None) -> float | None:
        return None if value is None else value / 1e6

    before, peak = (results.value(each, OURS, files) for each in (LARGE_BEFORE, LARGE_PEAK))
    grown = None if before is None or peak is None else max(0.0, peak - before)
    clients = f"{plan.clients} clients, one cold file: requests upstream"
    times, count, memory = "{:.2f} ×", "{:,.3g}", "{:,.0f} MB"
    return [
        Target("Warm pages in JSON, against proxpi", against(PAGES_JSON, "proxpi"), 4, True, times),
        Target("Warm pages in HTML, against proxpi", against(PAGES_HTML, "proxpi"), 4, True, times),
        Target(
            "Installation, cold, against the upstream itself",
            against(INSTALL_COLD, "upstream"),
            *(1.2, False, times),
        ),
        Target(
            "Installation, warm, against proxpi", against(INSTALL_WARM, "proxpi"), 1.1, False, times
        ),
        Target(
            "Installation, warm: requests upstream",
            results.value(asked_in(INSTALL_WARM), OURS, files),
            *(0, False, count),
        ),
        Target(
            f"First byte of a cold wheel of {_size(plan.large)}, against the upstream itself",
            against(LARGE_FIRST_BYTE, "upstream"),
            *(1.2, False, times),
        ),
        Target("Memory that this wheel takes", in_mb(grown), _GROWN / 1e6, False, memory),
        Target(clients, results.value(asked_in(SHARED), OURS, files), 1, False, count),
        Target("Highest memory", in_mb(worst(LARGE_PEAK, LIST_PEAK)), 150, False, memory),
    ]


def _lines(measured: Measured, setting: Setting[Plan]) -> Iterator[str]:
    plan = setting.plan
    versions = ", ".join(f"{name} {version}" for name, version in _versions(measured).items())
    yield "# Benchmark of mirrors"
    yield ""
    yield f"Measured on {setting.date} in {setting.seconds / 60:.0f} minutes by one run of"
    yield "`python -m benchmarks mirror`; nothing here comes from another run or machine."
    yield "What it means is told in [README.md](README.md#mirrors)."
    yield ""
    yield f"- Machine: {setting.machine}; Python {setting.python}."
    yield f"- Versions: {versions}."
    load = f"{setting.other_work[0]:.1f}"
    yield f"- Other work: the load average was {load} before the run. Times suffer from it."
    yield (
        f"- The upstream is nginx with {plan.files:,} files, pages in HTML and JSON, and all core"
        " metadata of wheels. Its figures are those of clients that ask it themselves."
    )
    yield (
        f"- Load: {measured.generator}, on the same processors as the servers, over"
        " loopback. Requests for pages accept gzip, as those of pip and uv do."
    )
    yield (
        f"- *Cold* is a mirror that was started with nothing. A figure is the median of"
        f" {plan.rounds} rounds, of {plan.installations} for installations, with the servers in"
        " reverse order every second time; a ratio is the median of the ratios of the rounds."
    )
    yield (
        "- Memory is the sum of the resident sizes of all processes of a server, so what they share"
        " counts twice."
    )
    yield ""
    yield "![The same figures as bars](mirror.svg)"
    yield ""
    for delay, results in measured.results.items():
        yield f"## {_heading(delay)}"
        yield ""
        for line in show_targets(targets(results, plan)):
            yield f"#{line}" if line.startswith("#") else line
        yield from _tables(measured, results, plan)
    if measured.remarks:
        yield "## Remarks"
        yield ""
        yield from (f"- {remark}" for remark in measured.remarks)


def _tables(measured: Measured, results: Results, plan: Plan) -> Iterator[str]:
    servers = measured.servers()
    for title, measures in _GROUPS.values():
        rows = []
        for measure in measures:
            values = [results.value(measure, server, plan.files) for server in servers]
            if any(value is not None for value in values):
                shown = ["–" if v is None else measure.unit.show(v) for v in values]
                rows.append([_title(measure.title, plan), *shown])
        if rows:
            yield f"### {_title(title, plan)}"
            yield ""
            yield from table(["", *servers], rows)


def _bars(
    measured: Measured, results: Results, plan: Plan, more_is_better: bool
) -> Iterator[tuple[Measure, list[Bar]]]:
    titles = {m: title for title, measures in _GROUPS.values() for m in measures}
    for measure in _DRAWN:
        bars = [
            Bar(server, value, _COLOURS[server])
            for server in measured.servers()
            if (value := results.value(measure, server, plan.files)) is not None
        ]
        if bars and measure.unit.more_is_better is more_is_better:
            group, _, _ = _title(titles[measure], plan).partition(", ")
            title = _title(measure.title, plan)
            title = f"{group}: {title[0].lower()}{title[1:]}"
            yield Measure(measure.key, title, measure.unit), bars


def _heading(delay: int) -> str:
    return f"Answers of the upstream after {delay} ms" if delay else "Answers without delay"


def _versions(measured: Measured) -> dict[str, str]:
    return {name: measured.versions[name] for name in measured.servers()}


def _title(text: str, plan: Plan) -> str:
    return text.format(
        pages=plan.pages,
        packages=plan.packages,
        large=_size(plan.large),
        clients=plan.clients,
        shared=_size(plan.shared),
        page=plan.page,
        names=plan.names,
    )


def _size(size: int) -> str:
    return f"{size / 2**20:g} MiB" if size >= 2**20 else f"{size / 2**10:g} KiB"
