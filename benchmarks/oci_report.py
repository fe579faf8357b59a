"""What a run over a registry came to, as text and as a picture; it measures nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.plot import Bar, Canvas
from benchmarks.report import show_targets, table
from benchmarks.results import Measure, Target, Unit

if TYPE_CHECKING:
    from benchmarks.oci import Plan
    from benchmarks.one_run import Setting

_TITLES: Mapping[str, str] = {
    "list": "The page of one project",
    "publish": "Publishing",
    "install": "Installing {packages} packages that need each other, three releases of each",
}
GROUPS = tuple(_TITLES)

COLD, WARM, OLD = "Cold", "Warm", "After the time to live"
RESTARTED = "After the time to live and a restart"
INSTALL_COLD, INSTALL_WARM = "uv, cold", "uv, warm"

_KINDS = ("rights", "tag lists", "manifests", "blobs", "written", "journal", "refused")
_NOTES: Mapping[str, str] = {
    "list": """\
*Cold* is a server with a new ROOT. *Warm* is the same page again, within `sync_index_interval`.
After this time the registry is asked for the tags, and for the digests of the newest three.
""",
    "publish": """\
Most requests are for taking turns with other servers, which PyOCI does not do.
The first file of a project also adds it to the list of projects.
""",
    "install": """\
uv reads the pages, the core metadata and one wheel of each package, with an empty cache of its own.
PyOCI has no core metadata; that an installer then reads more of the wheels is not counted.
""",
}


def in_a_row(files: int) -> str:
    """The task of publishing so many files."""
    return f"{files} files, one after the other"


def kind_of(line: str) -> str:
    """What a request was for, by its line in the log: "GET /v2/… 200"."""
    method, path, status = line.split()
    if status == "401":
        return "refused"
    if path == "/v2/" or path.endswith("/tags/list?n=1"):
        return "rights"
    if "/private_pypi." in path:
        return "journal"
    if method not in ("GET", "HEAD"):
        return "written"
    if "/tags/list" in path:
        return "tag lists"
    return "blobs" if "/blobs/" in path else "manifests"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One thing that was done once."""

    group: str
    task: str
    way: str
    seconds: float
    asked: Counter[str]  # requests by kind
    pyoci: int  # requests, by its rules

    def as_json(self) -> dict[str, object]:
        """The same in plain units (seconds, requests)."""
        return {
            "group": self.group,
            "task": self.task,
            "way": self.way,
            "seconds": self.seconds,
            "requests": self.asked.total(),
            "by_kind": dict(self.asked),
            "pyoci": self.pyoci,
        }


def render(outcomes: Sequence[Outcome], setting: Setting[Plan]) -> str:
    """The whole report in Markdown."""
    return "\n".join(_lines(outcomes, setting)).rstrip() + "\n"


def draw(outcomes: Sequence[Outcome], setting: Setting[Plan]) -> str:
    """The requests as bars; each task has a scale of its own."""
    canvas = Canvas()
    canvas.text(24, 36, "Requests to the registry", size=20, weight=600)
    about = f"private_pypi measured · PyOCI's rules, as our tests read them · {setting.date}"
    canvas.text(24, 58, about, colour="#57606a")
    canvas.skip(84)
    for group in GROUPS:
        title = _TITLES[group].format(packages=setting.plan.packages)
        canvas.panel(f"{title}: shorter is better", _bars(outcomes, group))
    return canvas.finish()


def targets(outcomes: Sequence[Outcome], plan: Plan) -> list[Target]:
    """The requests that were promised, against those of this run."""
    largest = max(plan.sizes)
    way = f"{largest:,} versions"
    cold = _asked(outcomes, "list", COLD, way)
    rows = [
        (
            "A cold page: requests for a version, and 5 more",
            None if cold is None else (cold - 5) / largest,
            1,
        ),
        ("A warm page: requests", _asked(outcomes, "list", WARM, way), 0),
        ("A page after the time to live: requests", _asked(outcomes, "list", OLD, way), 4),
        (
            "A warm installation: requests",
            _asked(outcomes, "install", INSTALL_WARM, f"{plan.packages} packages"),
            0,
        ),
    ]
    return [Target(what, measured, limit, False, "{:,.3g}") for what, measured, limit in rows]


def _asked(outcomes: Sequence[Outcome], group: str, task: str, way: str) -> int | None:
    return next(
        (o.asked.total() for o in outcomes if (o.group, o.task, o.way) == (group, task, way)), None
    )


def _bars(outcomes: Sequence[Outcome], group: str) -> Iterator[tuple[Measure, list[Bar]]]:
    for outcome in _rows(outcomes, group):
        bars = [
            Bar("ours", outcome.asked.total(), "#1f6feb"),
            Bar("PyOCI's rules", outcome.pyoci, "#8b949e"),
        ]
        yield Measure(outcome.task, f"{outcome.task}, {outcome.way}", Unit.COUNT), bars


def _rows(outcomes: Sequence[Outcome], group: str) -> list[Outcome]:
    """Those of a group; the same way of different tasks together."""
    rows = [outcome for outcome in outcomes if outcome.group == group]
    ways = list(dict.fromkeys(row.way for row in rows))
    return sorted(rows, key=lambda row: ways.index(row.way))


def _lines(outcomes: Sequence[Outcome], setting: Setting[Plan]) -> Iterator[str]:
    yield "# Benchmark of the type oci"
    yield ""
    yield f"Measured on {setting.date} in {setting.seconds:.0f} seconds by one run of"
    yield "`python -m benchmarks oci`; nothing here comes from another run or machine."
    yield "What it means is told in [README.md](README.md#over-a-registry)."
    yield ""
    yield f"- Machine: {setting.machine}; Python {setting.python}."
    load = f"{setting.other_work[0]:.1f}"
    yield (
        f"- Other work: the load average was {load} before the run. Times suffer"
        " from it, requests do not."
    )
    yield (
        "- The registry is a CNCF distribution on the same machine, without TLS. It answers at"
        " once, so times are what our server and this registry take, not those of a network."
    )
    yield (
        "- Each thing was done once. All requests count that the registry wrote into its log, also"
        " those that it refused because they came without credentials."
    )
    yield (
        "- “PyOCI's rules” are the requests of the same thing as `tests/oci/pyoci.py` does it,"
        " counted in the same log. PyOCI itself was not run, so there is no time of it."
    )
    yield ""
    yield "![Requests as bars](oci.svg)"
    yield ""
    yield from show_targets(targets(outcomes, setting.plan))
    for group in GROUPS:
        rows = _rows(outcomes, group)
        if rows:
            yield f"## {_TITLES[group].format(packages=setting.plan.packages)}"
            yield ""
            kinds = [kind for kind in _KINDS if any(row.asked[kind] for row in rows)]
            headings = ["", "", "time", "requests", *kinds, "PyOCI's rules"]
            yield from table(headings, [_cells(row, kinds) for row in rows])
            yield _NOTES[group].rstrip()
            yield ""


def _cells(row: Outcome, kinds: Sequence[str]) -> list[str]:
    counts = [row.asked.total(), *(row.asked[kind] for kind in kinds), row.pyoci]
    return [row.task, row.way, Unit.TIME.show(row.seconds), *(f"{n:,}" for n in counts)]
