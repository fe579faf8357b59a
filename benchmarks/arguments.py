"""The arguments that all benchmarks have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path


def make_parser(
    command: str, description: str, groups: Sequence[str], results: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """A parser for `--quick`, `--only` (some of `groups`) and `--out`, where `results` are put."""
    parser = argparse.ArgumentParser(prog=command, description=description, epilog=epilog)
    parser.add_argument("--quick", action="store_true", help="next to nothing of everything")
    parser.add_argument(
        "--only",
        type=partial(some_of, groups),
        default=list(groups),
        metavar="GROUPS",
        help=f"some of {','.join(groups)}",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/benchmarks"),
        help=f"where {results} go (%(default)s)",
    )
    return parser


def some_of(known: Sequence[str], text: str) -> list[str]:
    """The names in a text that has commas between them; each must be known."""
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
    return names
