"""The command: `python -m benchmarks`, from the root of a checkout."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

from benchmarks import plot, report
from benchmarks.arguments import add_servers, installed, make_parser
from benchmarks.load import find_generator
from benchmarks.processes import find_uv
from benchmarks.results import OURS, Results
from benchmarks.scenarios import GROUPS, Benchmark, Make, Plan
from benchmarks.servers import EXECUTABLES, PEERS, PrivatePypi

OTHERS = (
    *("github", "limits", "many_files", "mirror", "oci", "replicas", "static_site", "workers"),
)
"""The other commands. Each is a module with a function `main`, and has options of its own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the report and write it; 0 also when a target is missed."""
    words = sys.argv[1:] if arguments is None else arguments
    # Servers have sessions of their own: however we end, they are to be stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if words and words[0] in OTHERS:
        # Each is imported only if it is wanted, because some need what the tests need.
        status: int = import_module(f"benchmarks.{words[0]}").main(words[1:])
        return status
    options = _parse(words)
    plan = Plan().quick() if options.quick else Plan()
    plan = replace(plan, rounds=options.rounds or plan.rounds)
    results = Results()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmark-") as name:
        folder = Path(name)
        makers: dict[str, Make] = {OURS: PrivatePypi}
        versions: dict[str, str] = {}
        for peer in installed(EXECUTABLES, options.peers, options.tools, results.remark):
            makers[peer] = partial(PEERS[peer], tools=options.tools.get(peer))
        generator = find_generator(folder, plan.seconds)
        setting = report.Setting(
            date=time.strftime("%d %B %Y"),
            machine=report.describe_machine(),
            python=platform.python_version(),
            versions=versions,
            generator=generator.name,
            other_work=os.getloadavg()[0],
            synced_write=report.time_synced_write(folder),
            duration=0,
        )
        Benchmark(
            plan=plan,
            makers=makers,
            generator=generator,
            uv=options.uv or find_uv(),
            corpora=options.folder or folder,
            folder=folder,
            results=results,
            versions=versions,
            say=_say,
        ).run(options.only)
    setting = replace(setting, duration=time.monotonic() - begin)
    text = report.render(results, plan, setting)
    (options.out / "RESULTS.md").write_text(text)
    (options.out / "results.svg").write_text(plot.render(results, plan, setting))
    (options.out / "results.json").write_text(json.dumps(results.as_json(), indent=1) + "\n")
    print(text)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks",
        "Measure this checkout, and pypiserver and devpi beside it where installed.",
        GROUPS,
        "RESULTS.md, results.svg and results.json",
        epilog=f"Other commands, with options of their own: {', '.join(OTHERS)}.",
    )
    add_servers(parser, "--peers", list(PEERS), PEERS)
    parser.add_argument("--uv", metavar="PATH", help="another uv than that of the environment")
    parser.add_argument("--rounds", type=int, help="how often each thing is measured")
    parser.add_argument(
        "--folder", type=Path, help="where servers and corpora live; corpora are kept there"
    )
    options = parser.parse_args(arguments)
    options.tools = dict(options.peer)
    return options


def _say(sentence: str) -> None:
    print(time.strftime("%H:%M:%S"), sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
