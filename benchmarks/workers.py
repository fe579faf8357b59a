"""`python -m benchmarks workers`: what more worker processes of one server bring.

The load generator and all that the machine does beside it need processors as well, so the rate
alone does not tell how a server scales. The report therefore has the processors that a server used,
and the requests that it answered for each second of processor time. If the second number stays the
same with more workers, and all workers are used evenly, they do not hinder each other, and the rate
grows with the processors.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.arguments import make_parser
from benchmarks.corpus import make_catalogue
from benchmarks.load import Load, Request, find_generator
from benchmarks.report import describe_machine
from benchmarks.servers import HTML, PrivatePypi

GROUPS = ("pages", "files")
_CONNECTIONS = 16
_FILES = 1000


class Workers(PrivatePypi):
    """This checkout with several worker processes."""

    def __init__(self, folder: Path, workers: int) -> None:
        super().__init__(folder)
        self.workers = workers

    def command(self) -> Sequence[str]:
        return [*super().command(), "--request_log=false", "--workers", str(self.workers)]


@dataclass(frozen=True, slots=True)
class Measured:
    """One round with one server."""

    per_second: float
    processors: float  # that the server used
    each: tuple[float, ...]  # of these, what each process used; the parent is first
    per_processor_second: float  # requests

    @property
    def least_used(self) -> float:
        """What the least used worker used, divided by the mean of all workers."""
        workers = self.each[1:] or self.each  # the only process is no parent
        return min(workers) / statistics.mean(workers)


def main(arguments: Sequence[str]) -> int:
    """Measure, print the report and write it."""
    parser = make_parser(
        "python -m benchmarks workers", "Measure worker processes.", GROUPS, "WORKERS.md"
    )
    parser.add_argument("--workers", default="1,2", help="numbers of workers (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each (%(default)s)")
    options = parser.parse_args(arguments)
    counts = [int(count) for count in options.workers.split(",")]
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, 3.0)
    found: dict[tuple[str, int], list[Measured]] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        generator = find_generator(folder, seconds)
        corpus = make_catalogue(folder, 100 if options.quick else _FILES)
        servers = [Workers(folder / f"workers-{count}", count) for count in counts]
        try:
            for server in servers:
                server.adopt(corpus)
                server.start(corpus.projects()[0])
            for number in range(rounds):
                for group in options.only:
                    for server in servers if number % 2 == 0 else reversed(servers):
                        requests = _requests(server, group, corpus.projects())
                        run = partial(
                            generator.run,
                            *(server.port, requests),
                            connections=_CONNECTIONS,
                            seconds=seconds,
                        )
                        found.setdefault((group, server.workers), []).append(_measure(server, run))
        finally:
            for server in servers:
                server.stop()
    text = _report(found, generator.name, rounds)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "WORKERS.md").write_text(text)
    print(text)
    return 0


def _requests(server: Workers, group: str, projects: Sequence[str]) -> list[Request]:
    headers = server.headers(HTML)
    if group == "pages":
        return [Request(server.page(project), headers) for project in projects]
    return [
        Request(path, headers)
        for project in projects[:20]
        for path in server.links(project)
        if path.endswith(".whl")
    ]


def _measure(server: Workers, run: partial[Load]) -> Measured:
    assert server.processes is not None
    server.processes.settle()
    before, begin = server.processes.processor_times(), time.perf_counter()
    load = run()
    after, elapsed = server.processes.processor_times(), time.perf_counter() - begin
    if load.failures:
        raise RuntimeError(f"{load.failures} of {load.requests} requests failed")
    used = [after[pid] - before.get(pid, 0.0) for pid in sorted(after)]
    return Measured(
        per_second=load.per_second,
        processors=sum(used) / elapsed,
        each=tuple(seconds / elapsed for seconds in used),
        per_processor_second=load.requests / sum(used),
    )


def _report(found: dict[tuple[str, int], list[Measured]], generator: str, rounds: int) -> str:
    fewest = min(workers for _, workers in found)
    lines = [
        "# Worker processes",
        "",
        f"{time.strftime('%d %B %Y')}, {describe_machine()}; {generator}, {_CONNECTIONS} "
        f"connections that stay open; medians of {rounds} rounds, in which the servers took turns.",
        "The load generator and other work shared the processors, so the rates do not show what "
        "more processors would bring.",
        "Workers do not hinder each other if as many requests are answered in a second of "
        "processor time as with fewer workers, and if the least used worker is used as much as "
        "the mean of all.",
        "",
        "| requests | workers | per second | processors used | by each process | "
        f"requests per second of processor time | against {fewest} | least used worker |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (group, workers), all_measured in sorted(found.items(), reverse=True):
        middle = sorted(all_measured, key=lambda one: one.per_second)[len(all_measured) // 2]
        each = ", ".join(f"{share:.2f}" for share in middle.each)
        beside = [
            one.per_processor_second / other.per_processor_second
            for one, other in zip(all_measured, found[group, fewest], strict=True)
        ]
        least_used = statistics.median(one.least_used for one in all_measured)
        lines.append(
            f"| {group} | {workers} "
            f"| {statistics.median(one.per_second for one in all_measured):,.0f} "
            f"| {statistics.median(one.processors for one in all_measured):.2f} "
            f"| {each} "
            f"| {statistics.median(one.per_processor_second for one in all_measured):,.0f} "
            f"| {statistics.median(beside):.2f} × | {least_used:.0%} of the mean |"
        )
    return "\n".join([*lines, ""])
