"""Changes `allowed.toml` for a command: everything that people have written in it stays.

The text is changed by lines, because its comments belong to the entries below them. The result is
parsed before it is written, so an unusual file is refused and not damaged.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import tomlkit
from filelock import FileLock, Timeout

from private_pypi.backend.times import show_instant
from private_pypi.errors import BackendUnavailable, ConfigurationError
from private_pypi.policy.allowances import Allowance, parse_entries
from private_pypi.system.private_files import sync_folder, write_private

_HEADER: Final = re.compile(r"\s*\[\[\s*allow\s*\]\]\s*(#.*)?")
_BESIDE: Final = re.compile(r"\s*(#.*)?")  # a blank line or a comment
_PATIENCE: Final = 30.0  # seconds to wait for the lock

Target = tuple[str, str, str | None, str | None]  # `Allowance.target`


def add_allowance(path: Path, allowance: Allowance) -> Sequence[Allowance]:
    """Add an allowance to the file, in the place of those with the same target, which it returns.

    The file is replaced as a whole or not at all, and made if it does not exist. Raises
    `ConfigurationError` if it has a mistake, and `BackendUnavailable` if another process changes it
    for 30 seconds.
    """
    return _change(path, allowance.target, allowance)


def remove_allowances(path: Path, target: Target) -> Sequence[Allowance]:
    """Remove the allowances with this target, and return them; errors as in `add_allowance`."""
    return _change(path, target, None)


def read_allowances(path: Path) -> Sequence[Allowance]:
    """All allowances of the file; raises `ConfigurationError`."""
    return _entries(path, _text(path))


def _change(path: Path, target: Target, new: Allowance | None) -> Sequence[Allowance]:
    with _locked(path):
        text = _text(path)
        entries = _entries(path, text)
        places = [n for n, each in enumerate(entries) if each.target == target]
        if not places and new is None:
            return []
        changed = _without(text.split("\n"), places)
        wanted = [each for each in entries if each.target != target]
        if new is not None:
            changed += ["", *_lines(new)]
            wanted.append(new)
        # The blank lines above and below a removed entry come together.
        result = re.sub("\n{3,}", "\n\n", "\n".join(changed).strip("\n")) + "\n"
        try:
            is_right = parse_entries(result) == wanted
        except ValueError:
            is_right = False
        if not is_right:
            raise ConfigurationError(
                f"{path}: is written in a way that this command cannot change; edit it by hand"
            )
        try:
            # The file itself, and not a symbolic link to it, is replaced.
            write_private(path.resolve(), result, replace=True)
            sync_folder(path.resolve().parent)
        except OSError as error:
            raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
    return [entries[n] for n in places]


def _without(lines: Sequence[str], places: Sequence[int]) -> list[str]:
    """The lines without the entries at these places; comments between entries stay."""
    headers = [n for n, line in enumerate(lines) if _HEADER.fullmatch(line)]
    kept = list(lines)
    spans = list(itertools.pairwise([*headers, len(lines)]))
    for start, end in reversed([each for n, each in enumerate(spans) if n in places]):
        while end > start + 1 and _BESIDE.fullmatch(lines[end - 1]):
            end -= 1
        del kept[start:end]
    return kept


def _lines(allowance: Allowance) -> list[str]:
    texts = {key: value for key, value in allowance.entry().items() if key != "until"}
    return [
        "[[allow]]",
        *(f"{key} = {tomlkit.string(str(value)).as_string()}" for key, value in texts.items()),
        f"until = {show_instant(allowance.until)}",
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: it is not UTF-8") from error


def _entries(path: Path, text: str) -> list[Allowance]:
    try:
        return parse_entries(text)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}; repair it first") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise BackendUnavailable(
            f"another process has locked {path} for more than {_PATIENCE:g} seconds"
        ) from None
    try:
        yield
    finally:
        lock.release()
