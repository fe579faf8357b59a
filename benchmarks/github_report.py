"""What a run over GitHub came to, as text and as a picture; it measures nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from benchmarks.github_results import (
    PYPIHUB,
    SEED,
    SYSTEMS,
    Formula,
    Outcome,
    Outcomes,
    Tally,
)
from benchmarks.plot import Bar, Canvas
from benchmarks.report import show_targets, table
from benchmarks.results import Measure, Target, Unit

if TYPE_CHECKING:
    from benchmarks.github import Plan
    from benchmarks.one_run import Setting

_TITLES: Mapping[str, str] = {
    "sync": "Listing and synchronising, `github`",
    "publish": "Publishing",
    "install": "Installing {packages} packages that need each other, three releases of each",
    "project": "One project with many releases, `github_projects`",
}
GROUPS = tuple(_TITLES)

UPDATE_ALL = "`update_index`, all new"
IDLE = "A synchronisation without change"
PAGE_FIRST = "The first page"
PAGE_UNCHANGED = "The page, unchanged"


def in_a_row(files: int) -> str:
    """The task of publishing so many files."""
    return f"{files} files, one after the other"


_NOTES: Mapping[str, str] = {
    "publish": """\
The files are of as many projects.
For `github_projects` each has a repository of its own, and the rights to it are asked for.
""",
    "install": """\
Cold, a package costs `github` two requests, for the core metadata and for the file.
It costs `github_projects` two, for the rights and the listing, and one for each release whose
wheel was never read before; what was learnt from it is kept, also over restarts.
""",
}
_COLOURS = {SEED: "#d29922", PYPIHUB: "#8b949e"}
_OURS = "#1f6feb"


def render(outcomes: Outcomes, setting: Setting[Plan]) -> str:
    """The whole report in Markdown."""
    return "\n".join(_lines(outcomes, setting)) + "\n"


def draw(outcomes: Outcomes, setting: Setting[Plan]) -> str:
    """The requests of installing and publishing as bars; each group has a scale of its own."""
    canvas = Canvas()
    canvas.text(24, 36, "Requests to GitHub that count against the rate limit", size=20, weight=600)
    about = f"ours (private_pypi) measured · the others computed, at least so many · {setting.date}"
    canvas.text(24, 58, about, colour="#57606a")
    canvas.skip(84)
    for group in GROUPS:
        title = _TITLES[group].format(packages=setting.plan.packages).replace("`", "")
        canvas.panel(f"{title}: shorter is better", _bars(outcomes, group))
    return canvas.finish()


def targets(outcomes: Outcomes, plan: Plan) -> list[Target]:
    """The requests that were promised, against those of this run."""
    client, largest = plan.clients[0], max(plan.sizes)
    installing = ("install", "`github`, proxy")
    cold = _asked(outcomes, *installing, f"{client}, cold")
    warm = _asked(outcomes, *installing, f"{client}, warm")
    listing = ("sync", f"{largest:,} releases")
    update = _asked(outcomes, *listing, UPDATE_ALL)
    idle = _asked(outcomes, *listing, IDLE)
    row = _asked(outcomes, "publish", "`github`", in_a_row(plan.files))
    page = _asked(outcomes, "project", f"{plan.releases:,} releases", PAGE_UNCHANGED)
    hundreds = math.ceil(plan.releases / 100)
    found = [
        # One request finds out what the token may do.
        ("A cold installation, `github`: requests for a package", cold, 1, plan.packages, 2),
        ("A warm installation, `github`: requests", warm, 0, 1, 0),
        ("An upload, `github`, once access is known: requests", row, 0, plan.files, 5),
        ("A synchronisation without change: requests", idle, 0, 1, 2),
        (f"`update_index` of {largest:,} releases: requests", update, 0, 1, 110),
        ("A page that did not change: requests for 100 releases", page, 0, hundreds, 1),
    ]
    promised = [
        Target(what, None if n is None else (n.api - less) / times, limit, False, "{:,.3g}")
        for what, n, less, times, limit in found
    ]
    counted = None if idle is None else idle.counted
    promise = "The same, of those that count"
    return [*promised[:4], Target(promise, counted, 0, False, "{:.3g}"), *promised[4:]]


def _asked(outcomes: Outcomes, group: str, way: str, task: str) -> Tally | None:
    rows = (row for row in outcomes.of(group) if (row.way, row.task) == (way, task))
    return next((row.asked for row in rows), None)


def _bars(outcomes: Outcomes, group: str) -> Iterator[tuple[Measure, list[Bar]]]:
    for row in outcomes.of(group):
        if row.others:
            title = f"{row.task}, {row.way}".replace("`", "")
            bars = [Bar("ours", row.asked.counted, _OURS)]
            bars += [
                Bar(f"{e.formula.system}, computed", e.requests, _COLOURS[e.formula.system])
                for e in row.others
            ]
            yield Measure(row.task, title, Unit.COUNT), bars


def _lines(outcomes: Outcomes, setting: Setting[Plan]) -> Iterator[str]:
    plan = setting.plan
    yield "# Benchmark of the GitHub types"
    yield ""
    yield f"Measured on {setting.date} in {setting.seconds:.0f} seconds by one run of"
    yield "`python -m benchmarks github`; nothing here comes from another run or machine."
    yield "What it means is told in [README.md](README.md#over-github)."
    yield ""
    before, after = setting.other_work
    yield f"- Machine: {setting.machine}; Python {setting.python}."
    yield (
        f"- Other work: the load average was {before:.1f} before the run and {after:.1f} at its"
        " end; the run itself makes less than 1. Times suffer from it, requests do not."
    )
    yield (
        "- GitHub is the fake of the tests, in another process on the same machine. Each of its"
        f" answers comes {plan.delay * 1000:.0f} ms later than it could; the delay is chosen, not"
        " measured at GitHub. Requests that are sent at the same time wait at the same time."
        " There is no TLS, and a new connection costs nothing."
    )
    fake = " and ".join(f"{took * 1000:.0f} ms for {what}" for what, took in outcomes.fake.items())
    yield (
        f"- By itself the fake takes {fake}: it checks every request and answer against GitHub's"
        " descriptions. That is part of the times."
    )
    yield (
        "- Each thing was done once, but for synchronisations without change. The columns are"
        " requests: those that count against the limit of the token, others to GitHub (answered by"
        " 304, or free), and those for content at signed addresses, which nobody counts."
    )
    yield ""
    yield "![Requests that count, as bars](github.svg)"
    yield ""
    yield from show_targets(targets(outcomes, plan))
    for group in GROUPS:
        yield from _group(outcomes, group, plan)
    yield from _formulas(outcomes)


def _group(outcomes: Outcomes, group: str, plan: Plan) -> Iterator[str]:
    rows = outcomes.of(group)
    if not rows:
        return
    systems = [system for system in SYSTEMS if any(row.estimate(system) for row in rows)]
    yield f"## {_TITLES[group].format(packages=plan.packages)}"
    yield ""
    headings = ["", "", "time", "counted", "not counted", "content"]
    yield from table([*headings, *systems], [_cells(row, systems) for row in rows])
    if group in _NOTES:
        yield _NOTES[group]


def _cells(row: Outcome, systems: list[str]) -> list[str]:
    cells = [row.task, row.way, Unit.TIME.show(row.seconds)]
    asked = row.asked
    cells += [Unit.COUNT.show(n) for n in (asked.counted, asked.free, asked.storage)]
    for system in systems:
        estimate = row.estimate(system)
        cells.append("–" if estimate is None else f"≥ {estimate.requests:,}")
    return cells


def _formulas(outcomes: Outcomes) -> Iterator[str]:
    used: dict[Formula, None] = {}
    for row in outcomes.rows:
        used |= dict.fromkeys(estimate.formula for estimate in row.others)
    if not used:
        return
    yield "## What the others would have asked"
    yield ""
    yield "Computed from what is known of these systems, not measured: they were not run."
    yield "The sections are those of the study of them that came before this project."
    yield "All requests of 0.2 count against the limit of the caller (§1.13 (10)); those of PyPIHub"
    yield "are queries, which have a limit of their own."
    yield ""
    for formula in used:
        yield f"- **{formula.system}: {formula.words}.** {formula.reason} ({formula.sections})"
