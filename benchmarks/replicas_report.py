"""What the benchmark of replicas came to, as text; it measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.report import show_targets, table
from benchmarks.results import Target

START, VISIBLE, RESTARTED, KILLED = "start", "visible", "restarted", "killed"
GROUPS = (START, VISIBLE, RESTARTED, KILLED)

_START_LIMIT = 30.0  # seconds
_VISIBLE_LIMIT = 1.0  # intervals

_NOTES: Mapping[str, str] = {
    START: """\
A server with an empty ROOT, over a bucket whose `index.toml` has all files.
The time is from the start of the process until `/health/ready` is answered with 200.
""",
    VISIBLE: """\
Files are published one after the other, through all servers in turn.
The time is from the answer to an upload until the pages of all servers show the file.
""",
    RESTARTED: """\
Each server is told to stop, ends, and is started again, while 8 clients publish and 8 install.
No request is refused or cut off. A client may ask a server for a file of which that server has not
heard yet, because it has read the page of another one. Then the server looks into the journal.
""",
    KILLED: """\
Again and again one or two of the servers are ended with SIGKILL and started again, while 8 clients
publish and 8 install, two of them with uv and pip.
What failed is repeated by the client. Each file is checked to be what its page says, and each page
is compared with what was acknowledged before; at the end, every acknowledged file is looked for on
every server.
""",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One group, measured once."""

    group: str
    date: str
    machine: str
    other_work: float  # load average before
    seconds: float  # for the whole group
    values: Mapping[str, float]  # in seconds, bytes or numbers

    @classmethod
    def of_json(cls, row: Mapping[str, Any]) -> Outcome:
        return cls(**row)

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def render(outcomes: Sequence[Outcome]) -> str:
    """The whole report in Markdown."""
    return "\n".join(_lines(outcomes)).rstrip() + "\n"


def figures(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The table that docs/scaling.md shows as well."""
    rows = [list(row) for each in outcomes for row in _ROWS[each.group](each.values)]
    yield from table(["what", "measured"], rows)


def targets(outcomes: Sequence[Outcome]) -> list[Target]:
    """What was promised, against what was measured."""
    values = {each.group: each.values for each in outcomes}

    def value(group: str, name: str) -> float | None:
        return values[group][name] if group in values else None

    seen = values.get(VISIBLE)
    intervals = None if seen is None else seen["median"] / seen["interval"]
    promised = [
        ("A new server is ready, with all files: seconds", value(START, "ready"), _START_LIMIT),
        ("Median until an upload is seen everywhere: intervals", intervals, _VISIBLE_LIMIT),
        ("Requests that failed while servers were restarted", value(RESTARTED, "healed"), 0),
        ("Wrong or missing answers then", value(RESTARTED, "wrong"), 0),
        ("Acknowledged uploads that were lost when servers were killed", value(KILLED, "lost"), 0),
        ("Wrong answers, and errors that no repetition healed, then", value(KILLED, "wrong"), 0),
    ]
    return [Target(what, measured, limit, False, "{:,.3g}") for what, measured, limit in promised]


def _start(values: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    what = f"A new server, empty ROOT, {values['files']:,.0f} files"
    yield f"{what}: ready after", f"{values['ready']:.1f} s"
    yield f"{what}: processor time", f"{values['processor']:.1f} s"
    yield f"{what}: highest memory of its process", f"{values['memory'] / 1e6:.0f} MB"


def _visible(values: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    what = f"An upload is seen on all servers (interval of {values['interval']:g} s)"
    yield f"{what}, median", f"{values['median']:.2f} s"
    yield f"{what}, the slowest of {values['uploads']:.0f}", f"{values['worst']:.2f} s"


def _restarted(values: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    what = "All servers restarted one by one"
    yield f"{what}: uploads, pages and downloads", _rates(values)
    yield f"{what}: requests that failed", f"{values['healed'] + values['wrong']:.0f}"


def _killed(values: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    what = f"{values['ended']:.0f} kills in {values['seconds']:.0f} s"
    yield f"{what}: uploads, pages and downloads", _rates(values)
    asked = values["uploads"] + values["pages"] + values["downloads"] + values["healed"]
    yield f"{what}: failed and repeated with success", f"{values['healed']:,.0f} of {asked:,.0f}"
    yield f"{what}: acknowledged uploads that were lost", f"{values['lost']:.0f}"
    yield f"{what}: wrong answers, or failures that remained", f"{values['wrong']:.0f}"
    yield f"{what}: a page lacked a file for at most", f"{values['late']:.1f} s"


def _rates(values: Mapping[str, float]) -> str:
    names = ("uploads", "pages", "downloads")
    return ", ".join(f"{values[name] / values['seconds']:.1f}/s" for name in names)


_ROWS: Mapping[str, Callable[[Mapping[str, float]], Iterator[tuple[str, str]]]] = {
    START: _start,
    VISIBLE: _visible,
    RESTARTED: _restarted,
    KILLED: _killed,
}


def _lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "# Benchmark of replicas"
    yield ""
    yield "Measured by `python -m benchmarks replicas`, each group by itself."
    yield "What it means is told in [README.md](README.md#replicas)."
    yield ""
    for each in outcomes:
        load = f"the load average was {each.other_work:.1f} before"
        yield f"- `{each.group}`: {each.date}, {each.seconds:.0f} seconds; {load}; {each.machine}."
    yield "- The store, three servers, the proxy and all clients share the processors."
    yield "  So these figures tell what works, not how fast several machines are."
    yield ""
    yield from show_targets(targets(outcomes))
    yield "## Figures"
    yield ""
    yield from figures(outcomes)
    yield "## What was done"
    yield ""
    for each in outcomes:
        yield f"`{each.group}`:"
        yield _NOTES[each.group]
