"""Allowances: exceptions to the cooldown of mirrors, in the file `ROOT/allowed.toml`.

    [[allow]]
    repository = "pypi"
    project = "requests"
    version = "2.33.1"
    by = "Ada Lovelace"
    why = "security fix"
    until = 2026-12-15T00:00:00Z

Instead of `version`, an entry may have `file`, the name of one file; without both, it is for the
whole project. People edit the file by hand as well, so everything is checked. If there is a mistake
in it, no allowance counts: it is unknown what was meant.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import tomli
from packaging.utils import NormalizedName, canonicalize_version
from packaging.version import Version

from private_pypi.backend.times import in_utc, show_instant
from private_pypi.distributions.filenames import is_version, parse_filename, project_name
from private_pypi.errors import InvalidFilename
from private_pypi.model import ListedFile
from private_pypi.policy.watched import State, WatchedFile

logger = logging.getLogger(__name__)

FILENAME: Final = "allowed.toml"  # in ROOT

_LONGEST: Final = 500  # characters of a text
_KEYS: Final = ("repository", "project", "version", "file", "by", "why", "until")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Lets files through before their cooldown ends."""

    repository: str  # lower case
    project: NormalizedName
    version: str | None = None  # None: all versions
    file: str | None = None  # a filename; None: all files
    by: str  # who allowed it
    why: str
    until: datetime  # UTC; from then on it does not count

    @property
    def target(self) -> tuple[str, str, str | None, str | None]:
        """What it allows: the same for two allowances of which one takes the other's place."""
        version = None if self.version is None else canonicalize_version(self.version)
        return self.repository, self.project, version, self.file

    @property
    def subject(self) -> str:
        """What it allows, in words: "requests 2.33.1"."""
        if self.file is not None:
            return self.file
        return f"{self.project} {self.version or '(all versions)'}"

    def covers(self, file: ListedFile) -> bool:
        """Whether it is for a file of its project."""
        if self.file is not None:
            return file.filename == self.file
        return self.version is None or is_version(file.version, Version(self.version))

    def entry(self) -> Mapping[str, object]:
        """What a line of the audit log says about it: its keys in the file, without empty ones."""
        values = {key: getattr(self, key) for key in _KEYS} | {"until": show_instant(self.until)}
        return {key: value for key, value in values.items() if value is not None}


Allowances = Mapping[NormalizedName, tuple[Allowance, ...]]
"""The allowances of a repository by project, in the order of the file."""


class AllowanceFile:
    """The allowances of all mirrors of a ROOT. The file need not exist. Thread-safe.

    It is read again at most a second after it has changed. A mistake in it is logged once.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._file: WatchedFile[Mapping[str, Allowances]] = WatchedFile(
            path, parse_allowances, missing={}, report=self._report, clock=clock
        )

    def for_repository(self, name: str) -> Allowances:
        """Those of a repository, also those that have ended; none if there is a `problem`."""
        found = self._file.state().value
        return {} if found is None else found.get(name.lower(), {})

    @property
    def problem(self) -> str | None:
        """A sentence about why no allowance counts; None: they count."""
        problem = self._file.state().problem
        return None if problem is None else f"{self.path.name}: {problem}; no allowance counts"

    @property
    def generation(self) -> str:
        """Changes when the file does."""
        return self._file.state().generation

    def _report(self, state: State[Any]) -> None:
        if state.problem is not None:
            logger.error("%s: %s; no allowance counts", self.path, state.problem)


def parse_allowances(text: str) -> Mapping[str, Allowances]:
    """The allowances of a file by repository; raises `ValueError` with a sentence."""
    found: dict[str, dict[NormalizedName, list[Allowance]]] = {}
    for each in parse_entries(text):
        found.setdefault(each.repository, {}).setdefault(each.project, []).append(each)
    return {
        repository: {project: tuple(given) for project, given in projects.items()}
        for repository, projects in found.items()
    }


def parse_entries(text: str) -> list[Allowance]:
    """The allowances of a file, in its order; raises `ValueError` with a sentence."""
    try:
        document = tomli.loads(text)
    except RecursionError:
        raise ValueError("it is not TOML: its values are nested too deep") from None
    except ValueError as error:  # TOMLDecodeError, or too many digits for Python to convert
        raise ValueError(f"it is not TOML: {error}") from None
    entries = document.pop("allow", [])
    if document:
        raise ValueError(f"unknown key {min(document)!r}; it may only have tables [[allow]]")
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise ValueError("'allow' must be written as tables [[allow]]")
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(_parse(entry))
        except ValueError as error:
            raise ValueError(f"[[allow]] {number}: {error}") from None
    return found


def _parse(entry: Mapping[str, Any]) -> Allowance:
    unknown = sorted(entry.keys() - set(_KEYS))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; it may have {', '.join(_KEYS)}")
    missing = [key for key in _KEYS if key not in entry and key not in ("version", "file")]
    if missing:
        raise ValueError(f"{missing[0]!r} is missing")
    for key, value in entry.items():
        if key != "until" and not isinstance(value, str):
            raise ValueError(f"{key!r} must be a text in quotes, not {value!r}")
    until = entry["until"]
    if not isinstance(until, date):
        raise ValueError(
            f"'until' must be a date or an instant without quotes, such as 2026-12-15 or "
            f"2026-12-15T00:00:00Z, not {until!r}"
        )
    if not isinstance(until, datetime):
        until = datetime(until.year, until.month, until.day, tzinfo=UTC)
    return make_allowance(**dict(entry) | {"until": until})


def make_allowance(
    *,
    repository: str,
    project: str,
    version: str | None = None,
    file: str | None = None,
    by: str,
    why: str,
    until: datetime,
) -> Allowance:
    """A checked allowance; raises `ValueError` with a sentence that names the key."""
    texts = {"repository": repository, "project": project, "version": version, "file": file}
    for key, text in (texts | {"by": by, "why": why}).items():
        if text is None:
            continue
        if not text.strip():
            raise ValueError(f"{key!r} is empty")
        if len(text) > _LONGEST or not text.isprintable():
            raise ValueError(f"{key!r} must have at most {_LONGEST} printable characters")
    name = project_name(project)
    if name is None:
        raise ValueError(f"'project': {project!r} is not the name of a project")
    if version is not None and file is not None:
        raise ValueError("it has 'version' and 'file'; it may only have one of them")
    if version is not None:
        try:
            Version(version)
        except ValueError:
            raise ValueError(
                f"'version': {version!r} is not a version; it must be like 1.0 (PEP 440)"
            ) from None
    if file is not None:
        try:
            parsed = parse_filename(file)
        except InvalidFilename as error:
            raise ValueError(f"'file': {error}") from None
        if parsed.project != name:
            raise ValueError(f"'file': {file!r} is a file of {parsed.project}, not of {name}")
    try:
        until = in_utc(until)
    except OverflowError:  # the first or the last day that there is, in another zone
        raise ValueError("'until' is out of range") from None
    return Allowance(
        repository=repository.lower(),
        project=name,
        version=version,
        file=file,
        by=by.strip(),
        why=why.strip(),
        until=until,
    )
