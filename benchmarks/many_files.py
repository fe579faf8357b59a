"""Measures `update_index` of very many files: `python -m benchmarks many_files`."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.corpus import make_catalogue
from benchmarks.report import describe_machine

_FOLDER = """
import sys
from private_pypi.cli import main
main(["update_index", "file_system", "many", "--path", sys.argv[1]])
"""
_BUCKET = """
import sys
from pathlib import Path
from benchmarks.many_objects import ManyObjects, update
folder, files = Path(sys.argv[1]), int(sys.argv[2])
print(update(folder, ManyObjects(files, folder / "index.toml", delay=0.02)))
"""
_MEASURED = """
import resource, sys
{program}
for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
    print(resource.getrusage(who).ru_maxrss // 1024)
"""


def main(arguments: Sequence[str]) -> int:
    """Measure, print a table and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks many_files", description=__doc__)
    parser.add_argument("--files", type=int, default=100_000, help="files in a folder")
    parser.add_argument("--objects", type=int, default=1_000_000, help="files in a bucket")
    parser.add_argument("--quick", action="store_true", help="a thousand of both")
    parser.add_argument("--folder", type=Path, help="where files are, and are kept for a next run")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args(arguments)
    if options.quick:
        options.files = options.objects = 1000
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="many-files-") as name:
        folder = Path(name)
        corpus = make_catalogue(options.folder or folder, options.files)
        corpus.link_into(folder / "storage")
        (folder / "bucket").mkdir()
        for state in ("new", "unchanged"):
            measured = _measured(_FOLDER, folder / "storage")
            rows.append((f"a folder with {options.files:,} files", state, *measured))
        for state in ("new", "unchanged"):
            measured = _measured(_BUCKET, folder / "bucket", options.objects)
            rows.append((f"a bucket with {options.objects:,} files", state, *measured))
    text = _table(rows)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "MANY_FILES.md").write_text(text)
    (options.out / "many_files.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(text)
    return 0


def _measured(program: str, *arguments: object) -> tuple[float, float, int, int]:
    """Seconds by the clock and of the processors, and MiB of the command and of its largest child.

    Each run is a process of its own, with the processes that it starts.
    """
    before, begun = _processor_seconds(), time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", _MEASURED.format(program=program), *map(str, arguments)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = time.monotonic() - begun
    *_, own, children = ended.stdout.splitlines()
    return seconds, _processor_seconds() - before, int(own), int(children)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _table(rows: Sequence[tuple[str, str, float, float, int, int]]) -> str:
    lines = [
        "# `update_index` of many files",
        "",
        f"Measured on {time.strftime('%d %B %Y')}: {describe_machine()}.",
        "",
        "| what | state | seconds | processor seconds | MiB | MiB of a process that reads files |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {what} | {state} | {wall:.1f} | {cpu:.1f} | {own} | {child} |"
        for what, state, wall, cpu, own, child in rows
    ]
    return "\n".join(lines) + "\n"
