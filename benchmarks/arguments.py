"""The arguments that all benchmarks have."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
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


def add_servers(
    parser: argparse.ArgumentParser, option: str, servers: Sequence[str], peers: Collection[str]
) -> None:
    """The option that names some of the `servers`, and `--peer NAME=FOLDER` for those of `peers`.

    The value of the first one is None if it is not given; that of the other one, which may be given
    any number of times, is a list of pairs.
    """
    parser.add_argument(
        option,
        type=partial(some_of, servers),
        metavar="NAMES",
        help=f"some of {','.join(servers)}; '' for none; default: those that are installed",
    )
    parser.add_argument(
        "--peer",
        type=partial(_folder_of_peer, peers),
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="the folder of a peer's executables, when they are not on PATH",
    )


def chosen(
    servers: Sequence[str],
    executables: Mapping[str, str],
    wanted: Sequence[str] | None,
    folders: Mapping[str, Path],
    remark: Callable[[str], None],
) -> list[str]:
    """The wanted servers (None: all); see `installed`. What is no peer is there."""
    peers = None if wanted is None else [name for name in wanted if name in executables]
    found = installed(executables, peers, folders, remark)
    return [
        name
        for name in (servers if wanted is None else wanted)
        if name in found or name not in executables
    ]


def installed(
    executables: Mapping[str, str],
    wanted: Sequence[str] | None,
    folders: Mapping[str, Path],
    remark: Callable[[str], None],
) -> list[str]:
    """The wanted peers (None: all), whose `executables` are in their folders, or on PATH.

    Raises `SystemExit` for one that is wanted by name and missing.
    """
    found = []
    for peer in executables if wanted is None else wanted:
        folder = folders.get(peer)
        if shutil.which(executables[peer], path=str(folder) if folder else None) is not None:
            found.append(peer)
        elif wanted is not None:
            raise SystemExit(f"{peer} is not installed: put it on PATH, or --peer {peer}=FOLDER")
        else:
            remark(f"{peer} is not installed here.")
    return found


def _folder_of_peer(peers: Collection[str], text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if name not in peers or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=FOLDER with a name of {', '.join(peers)} and a folder"
        )
    return name, Path(folder).resolve()
