"""From the name of a distribution file to its project, version and kind; opens nothing.

Names are read by `packaging.utils` (wheels: binary distribution format; sdists: PEP 625 and the
looser names that came before it).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from packaging.utils import (
    NormalizedName,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

from private_pypi.errors import InvalidFilename

Kind = Literal["wheel", "sdist"]

SUFFIXES: dict[str, Kind] = {".whl": "wheel", ".tar.gz": "sdist", ".zip": "sdist"}

_LONGEST = 255  # characters; the limit of nearly every file system
_MOST_TAGS = 1000  # of one wheel: compressed tag sets multiply
# All that names, versions, build numbers and tags are made of; safe in a path, an address, a page.
_CHARACTERS = re.compile(r"[A-Za-z0-9._+!-]+")
_EXPECTED = {
    "whl": "a wheel is named <project>-<version>[-<build>]-<python>-<abi>-<platform>.whl, with _ "
    "for - in the project, and a version as in PEP 440",
    "gz": "an sdist is named <project>-<version>.tar.gz, with a version as in PEP 440",
    "zip": "an sdist is named <project>-<version>.zip, with a version as in PEP 440",
}
_NORMALIZED = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFilename:
    """What the name of a distribution file says."""

    project: NormalizedName
    version: Version
    kind: Kind
    pyversion: str  # python tags of a wheel joined by ".", "source" for an sdist


def normalize(name: str) -> NormalizedName:
    """The normalised name of a project (PEP 503)."""
    return canonicalize_name(name)


def is_version(text: str | None, version: Version) -> bool:
    """Whether a text spells this version (PEP 440: `1.0` and `v1.0.0` are one)."""
    try:
        return text is not None and len(text) <= _LONGEST and Version(text) == version
    except ValueError:  # InvalidVersion, or more digits than Python takes for a number
        return False


def parse_filename(filename: str) -> ParsedFilename:
    """Read a filename; raises `InvalidFilename` for anything but a wheel or an sdist."""
    if len(filename) > _LONGEST:
        raise InvalidFilename(filename[:64] + "…", f"longer than {_LONGEST} characters")
    if not filename.endswith(tuple(SUFFIXES)):
        raise InvalidFilename(filename, "only .whl, .tar.gz and .zip files are distribution files")
    if not _CHARACTERS.fullmatch(filename):
        raise InvalidFilename(filename, "only letters, digits and . _ - + ! are allowed")
    try:
        if filename.endswith(".whl"):
            parsed = _parse_wheel(filename)
        else:
            project, version = parse_sdist_filename(filename)
            parsed = ParsedFilename(
                project=project, version=version, kind="sdist", pyversion="source"
            )
    except ValueError as error:  # all errors of packaging are
        raise InvalidFilename(filename, _EXPECTED[filename.rpartition(".")[2]]) from error
    if not _NORMALIZED.fullmatch(parsed.project):
        raise InvalidFilename(
            filename, "the name of a project begins and ends with a letter or a digit"
        )
    return parsed


def _parse_wheel(filename: str) -> ParsedFilename:
    tags = filename.removesuffix(".whl").split("-")[-3:]
    if math.prod(1 + part.count(".") for part in tags) > _MOST_TAGS:
        raise InvalidFilename(filename, f"more than {_MOST_TAGS} tags")
    project, version, _build, found = parse_wheel_filename(filename)
    pyversion = ".".join(sorted({tag.interpreter for tag in found}))
    return ParsedFilename(project=project, version=version, kind="wheel", pyversion=pyversion)


def split_suffix(filename: str) -> tuple[str, str]:
    """`package` and `ext` as private-pypi 0.2 writes them: `("a-1.0", "tar.gz")`."""
    for suffix in SUFFIXES:
        if filename.endswith(suffix):
            return filename[: -len(suffix)], suffix[1:]
    raise InvalidFilename(filename, "only .whl, .tar.gz and .zip files are distribution files")


def is_filename(text: str) -> bool:
    """Whether a text ends as a distribution file's name does (a version never does)."""
    return text.endswith(tuple(SUFFIXES))


def normalize_version(text: str) -> str:
    """A version as `DistributionFile.version` has it (PEP 440); as it is when it is none."""
    try:
        return str(Version(text))
    except ValueError:  # InvalidVersion, or more digits than Python takes for a number
        return text
