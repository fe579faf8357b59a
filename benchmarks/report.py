"""Results as text: tables, targets and the method; also for people without a Markdown viewer."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import scenarios
from benchmarks.results import ONCE, OURS, Measure, Results, Target
from benchmarks.scenarios import Plan, large_measures

SIDE_BY_SIDE = (
    scenarios.PAGES_HTML,
    scenarios.PAGES_WORST,
    scenarios.PAGES_ONE,
    scenarios.PAGES_JSON,
    scenarios.NOT_MODIFIED,
    scenarios.LIST,
    scenarios.UNKNOWN,
    scenarios.CORE_METADATA,
    scenarios.SMALL_FILES,
    scenarios.LARGE_FILE,
    scenarios.LARGE_FILES,
    scenarios.INSTALL,
    scenarios.UPLOADS,
    scenarios.UPLOADS_PASSWORD,
    scenarios.UPLOADS_PARALLEL,
    scenarios.START,
    scenarios.MEMORY_IDLE,
    scenarios.MEMORY_BUSY,
)
GROWING = (
    scenarios.START,
    scenarios.MEMORY_IDLE,
    scenarios.MEMORY_BUSY,
    scenarios.PAGE_COST,
    scenarios.PAGE_COST_ANY,
    scenarios.UPLOAD_COST,
    scenarios.IMPORT,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how a run was made."""

    date: str
    machine: str
    python: str
    versions: dict[str, str]
    generator: str
    other_work: float  # processes that wanted to run in the minute before (load average)
    synced_write: float  # seconds
    duration: float  # seconds


def describe_machine() -> str:
    """Processors, memory and kernel in one line."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    model = models[0] if models else platform.machine()
    return f"{os.cpu_count()} × {model}, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def time_synced_write(folder: Path) -> float:
    """The median of the seconds that writing and syncing a new file of 4 KiB takes."""
    path = folder / "synced"
    elapsed = []
    for _ in range(50):
        begin = time.perf_counter()
        with path.open("wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        elapsed.append(time.perf_counter() - begin)
        path.unlink()
    return statistics.median(elapsed)


def targets(results: Results, plan: Plan) -> list[Target]:
    """What was promised, against what this run measured."""
    sizes = [size for size in plan.sizes if size]
    smaller, larger = sizes[0], sizes[-1]
    found = [
        Target(
            "Random pages, against devpi",
            results.times_better(scenarios.PAGES_HTML, "devpi", plan.files),
            *(5, True, "{:.1f} ×"),
        ),
        Target(
            "Uploads with a password, as twine sends them, against devpi",
            results.times_better(scenarios.UPLOADS_PASSWORD, "devpi", plan.files),
            *(20, True, "{:.1f} ×"),
        ),
    ]
    for measure, what in (
        (scenarios.UPLOAD_COST, "Cost of an upload"),
        (scenarios.PAGE_COST, "Cost of a page, the same projects"),
        (scenarios.PAGE_COST_ANY, "Cost of a page, all projects"),
        (scenarios.START, "Start to first page"),
    ):
        promise = f"{what} at {larger:,} files, against {smaller:,}"
        growth = results.growth(measure, smaller, larger)
        found.append(Target(promise, growth, 1.3, False, "{:.2f} ×"))
    start = results.value(scenarios.START, OURS, larger)
    found.append(Target(f"Start to first page at {larger:,} files", start, 1, False, "{:.2f} s"))
    memories = [
        results.value(measure, OURS, larger)
        for measure in (scenarios.MEMORY_IDLE, scenarios.MEMORY_BUSY)
    ]
    known = [memory / 1e6 for memory in memories if memory is not None]
    promise = f"Memory at {larger:,} files"
    found.append(Target(promise, max(known) if known else None, 120, False, "{:.0f} MB"))
    duration, memory = large_measures(plan.large[-1])
    found.append(
        Target(
            f"{duration.title}, against doing it once",
            results.times_once(duration, OURS, plan.files),
            *(2.5, False, "{:.2f} ×"),
        )
    )
    grown = results.value(memory, OURS, plan.files)
    in_mb = None if grown is None else grown / 1e6
    found.append(Target(memory.title, in_mb, 8, False, "{:.1f} MB"))
    return found


def render(results: Results, plan: Plan, setting: Setting) -> str:
    """The whole report in Markdown."""
    return "\n".join(_lines(results, plan, setting)) + "\n"


def _lines(results: Results, plan: Plan, setting: Setting) -> Iterator[str]:
    servers = results.servers()
    versions = ", ".join(f"{name} {version}" for name, version in setting.versions.items())
    yield "# Benchmarks"
    yield ""
    yield f"Measured on {setting.date} in {setting.duration / 60:.0f} minutes by one run of"
    yield "`python -m benchmarks`; nothing here comes from another run or machine."
    yield ""
    yield f"- Machine: {setting.machine}."
    yield f"- Versions: {versions}; Python {setting.python} for ours."
    yield f"- Load: {setting.generator}, on the same processors as the servers, over loopback."
    yield f"- Other work: the load average was {setting.other_work:.1f} before the run began."
    yield f"- A synced write of 4 KiB takes {setting.synced_write * 1e3:.2f} ms on this disk."
    yield from _method(plan)
    yield ""
    yield "![The same figures as bars](results.svg)"
    yield ""
    yield from show_targets(targets(results, plan))
    fair = results.times_better(scenarios.UPLOADS, "devpi", plan.files)
    if fair is not None:
        yield "Of an upload with a password devpi spends most on deriving a key from it."
        yield f"With its login token instead, which only its own client uses, ours is {fair:.2g} ×"
        yield "as fast: the fairer figure for the publishing itself."
        yield ""
    yield from _side_by_side(results, plan, servers)
    yield from _large(results, plan, servers)
    yield from _growing(results, plan, servers)
    if results.remarks:
        yield "## Remarks"
        yield ""
        yield from (f"- {remark}" for remark in results.remarks)


def _method(plan: Plan) -> Iterator[str]:
    yield (
        f"- Every server has the same {plan.files:,} files and runs at the same time; each thing is"
        f" measured in {plan.rounds} rounds over all servers, every second one in reverse order."
    )
    yield (
        "- A figure is the median over the rounds; a ratio is the median of the ratios of the"
        " rounds, and above 1 where ours is better."
    )
    yield (
        "- Requests accept gzip, as those of pip and uv do, and go over 8 connections unless it"
        " says otherwise. Those to private_pypi bear credentials: its repository is private."
        " pypiserver and devpi are asked without, which is less work for them."
    )
    yield (
        "- pypiserver got its files as a folder, the others as uploads; as the index grows,"
        " private_pypi as a folder too."
    )
    yield (
        "- What takes a server more than 0.15 s for a page, or 10 s for an installation, is"
        " measured in one round only."
    )
    yield (
        "- Memory is the proportional set size of all processes of a server; what an upload takes"
        " is the peak of the resident size less that before."
    )


def show_targets(found: Sequence[Target]) -> Iterator[str]:
    """A section that holds what was promised against what came out."""
    yield "## Targets"
    yield ""
    yield from table(
        ["", "target", "measured", ""],
        [
            [
                target.promise,
                ("≥ " if target.at_least else "≤ ") + target.show.format(target.limit),
                "–" if target.measured is None else target.show.format(target.measured),
                {True: "reached", False: "**missed**", None: "not measured"}[target.reached],
            ]
            for target in found
        ],
    )


def _side_by_side(results: Results, plan: Plan, servers: Sequence[str]) -> Iterator[str]:
    peers = [name for name in servers if name != OURS]
    rows = []
    for measure in SIDE_BY_SIDE:
        values = [results.value(measure, name, plan.files) for name in servers]
        if any(value is not None for value in values):
            ratios = [results.times_better(measure, peer, plan.files) for peer in peers]
            rows.append(
                [measure.title]
                + [_show(measure, value) for value in values]
                + ["–" if ratio is None else f"{ratio:,.3g} ×" for ratio in ratios]
            )
    if rows:
        yield f"## Side by side, {plan.files:,} files"
        yield ""
        yield from table(["", *servers, *(f"against {peer}" for peer in peers)], rows)


def _large(results: Results, plan: Plan, servers: Sequence[str]) -> Iterator[str]:
    rows = []
    for size in plan.large:
        duration, memory = large_measures(size)
        once = results.value(duration, ONCE, plan.files)
        if once is None:
            continue
        times = results.times_once(duration, OURS, plan.files)
        values = [results.value(duration, name, plan.files) for name in servers]
        rows.append(
            [duration.title, _show(duration, once)]
            + [_show(duration, value) for value in values]
            + ["–" if times is None else f"{times:.2f} ×"]
        )
        values = [results.value(memory, name, plan.files) for name in servers]
        rows.append([memory.title, "–", *(_show(memory, value) for value in values), "–"])
    if rows:
        yield "## Large uploads"
        yield ""
        yield "“Once” is the same file read, hashed (SHA-256), written and synced in one process."
        yield "The client sends what twine sends; the wheels are not compressed."
        yield ""
        yield from table(["", "once", *servers, "ours against once"], rows)


def _growing(results: Results, plan: Plan, servers: Sequence[str]) -> Iterator[str]:
    sizes = sorted({*plan.sizes, plan.files})
    smaller, larger = next(size for size in plan.sizes if size), plan.sizes[-1]
    rows = []
    for measure in GROWING:
        for name in servers:
            values = [results.value(measure, name, size) for size in sizes]
            if any(value is not None for value in values) and measure_grows(results, measure):
                growth = results.growth(measure, smaller, larger) if name == OURS else None
                rows.append(
                    [f"{measure.title}, {name}"]
                    + [_show(measure, value) for value in values]
                    + ["–" if growth is None or measure is scenarios.IMPORT else f"{growth:.2f} ×"]
                )
    if rows:
        yield "## As the index grows"
        yield ""
        headings = [f"{size:,} files" for size in sizes]
        yield from table(["", *headings, f"{larger:,} against {smaller:,}"], rows)


def measure_grows(results: Results, measure: Measure) -> bool:
    """Whether it was measured at more than one size."""
    return len({s.files for s in results.samples if s.measure == measure}) > 1


def _show(measure: Measure, value: float | None) -> str:
    return "–" if value is None else measure.unit.show(value)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table with aligned columns: text to the left, figures to the right."""
    widths = [max(len(row[n]) for row in (headings, *rows)) for n in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    yield line(headings)
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    yield "| " + " | ".join(rules) + " |"
    yield from (line(row) for row in rows)
    yield ""
