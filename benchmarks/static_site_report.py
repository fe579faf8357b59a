"""What a run over a static site came to, as text and as a picture; it measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from benchmarks.plot import Bar, Canvas
from benchmarks.report import show_targets, table
from benchmarks.results import Measure, Target, Unit

if TYPE_CHECKING:
    from benchmarks.one_run import Setting
    from benchmarks.static_site import Plan

_TITLES: Mapping[str, str] = {
    "build": "Building (`static_site.build`)",
    "check": "Comparing names with the public index (`static_site.check`)",
    "list": "Listing by the server's backend",
    "export": "Exporting from `file_system` (`export`)",
}
GROUPS = tuple(_TITLES)

FIRST, KEPT = "First build", "Empty output folder, READMEs kept"
UNCHANGED, ONE = "Nothing changed", "One project updated"
FIRST_LISTING, FIRST_EXPORT = "First listing", "First export"

_NOTES: Mapping[str, str] = {
    "build": """\
*Command* is the whole command, with the start of Python and all imports.
*Build alone* is the same work done once more by a call in this process, prepared anew.
""",
    "check": """\
The command also reads all projects and hashes all hosted files. It asks for 8 names at a time.
The public index is a server in Python in the process of the benchmark, so it shares the processors.
""",
    "list": """\
This is a call of the backend in one process, without the rest of a synchronisation.
""",
    "export": """\
The command runs without `--root`, so nothing is known of the files from an earlier run.
""",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One thing that was done."""

    group: str
    task: str
    way: str
    seconds: float
    processor: float  # seconds of processor time, of the command with its child processes
    alone: float | None = None  # seconds of the work without the command around it
    memory: int | None = None  # bytes; the peaks of all processes of the command

    def as_json(self) -> dict[str, object]:
        """The same in plain units (seconds, bytes)."""
        return asdict(self)


def render(outcomes: Sequence[Outcome], setting: Setting[Plan]) -> str:
    """The whole report in Markdown."""
    return "\n".join(_lines(outcomes, setting)).rstrip() + "\n"


def draw(outcomes: Sequence[Outcome], setting: Setting[Plan]) -> str:
    """The times as bars; each task has a scale of its own."""
    canvas = Canvas()
    canvas.text(24, 36, "Static sites", size=20, weight=600)
    about = f"{_size(setting.plan)} · {setting.date} · {setting.machine}"
    canvas.text(24, 58, about, colour="#57606a")
    canvas.skip(84)
    for group in GROUPS:
        title = _TITLES[group].replace("`", "")
        canvas.panel(f"{title}: shorter is better", _bars(outcomes, group))
    return canvas.finish()


def targets(outcomes: Sequence[Outcome], plan: Plan) -> list[Target]:
    """The times that were promised, against those of this run."""
    rows = [
        (f"First build of {_size(plan)}", FIRST, 60),
        ("Build into an empty folder, READMEs kept", KEPT, 20),
        ("Build after nothing changed", UNCHANGED, 20),
        ("Build after one project was updated", ONE, 1),
    ]
    seconds = {each.task: each.seconds for each in outcomes if each.group == "build"}
    return [
        Target(f"{what}, whole command", seconds.get(task), limit, False, "{:,.3g} s")
        for what, task, limit in rows
    ]


def _size(plan: Plan) -> str:
    return f"{plan.projects:,} projects × {plan.versions} versions"


def _bars(outcomes: Sequence[Outcome], group: str) -> Iterator[tuple[Measure, list[Bar]]]:
    for outcome in outcomes:
        if outcome.group == group:
            label = "call" if outcome.memory is None else "command"
            bars = [Bar(label, outcome.seconds, "#1f6feb")]
            if outcome.alone is not None:
                bars.append(Bar("build alone", outcome.alone, "#79b0fc"))
            yield Measure(outcome.task, f"{outcome.task}, {outcome.way}", Unit.TIME), bars


def _lines(outcomes: Sequence[Outcome], setting: Setting[Plan]) -> Iterator[str]:
    yield "# Benchmark of static sites"
    yield ""
    yield f"Measured on {setting.date} in {setting.seconds:.0f} seconds by one run of"
    yield "`python -m benchmarks static_site`; nothing here comes from another run or machine."
    yield "What it means is told in [README.md](README.md#static-sites)."
    yield ""
    yield f"- Machine: {setting.machine}; Python {setting.python}."
    load = f"{setting.other_work[0]:.1f}"
    yield (
        f"- Other work: the load average was {load} before the run. Times suffer"
        " from it; processor time, of the command and its child processes, does so less."
    )
    yield (
        f"- The site has {_size(setting.plan)}: each version has a wheel in the site, and a README"
        " of its own, of about 3 kB of Markdown. It was generated before, which is not measured."
    )
    yield (
        "- Each thing was done once. Files that were just written are read from the memory of the"
        " system, not from the disk."
    )
    yield (
        "- Memory is the sum of the highest resident sizes of the command and its child processes,"
        " looked up ten times a second."
    )
    yield ""
    yield "![Times as bars](static_site.svg)"
    yield ""
    yield from show_targets(targets(outcomes, setting.plan))
    for group in GROUPS:
        rows = [each for each in outcomes if each.group == group]
        if rows:
            yield f"## {_TITLES[group]}"
            yield ""
            headings = ["", "", "time" if group == "list" else "command", "processor"]
            headings += ["build alone"] * (group == "build") + ["peak memory"] * (group != "list")
            yield from table(headings, [list(_cells(row)) for row in rows])
            yield _NOTES[group].rstrip()
            yield ""


def _cells(row: Outcome) -> Iterator[str]:
    yield row.task
    yield row.way
    yield Unit.TIME.show(row.seconds)
    yield Unit.TIME.show(row.processor)
    if row.alone is not None:
        yield Unit.TIME.show(row.alone)
    if row.memory is not None:
        yield Unit.MEMORY.show(row.memory)
