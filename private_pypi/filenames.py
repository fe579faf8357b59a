"""From the name of a distribution file to its project, version and kind; opens nothing.

Names are read by `packaging.utils` (wheels: binary distribution format; sdists: PEP 625 and the
looser names that came before it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    NormalizedName,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from private_pypi.errors import InvalidFilename

Kind = Literal["wheel", "sdist"]

SUFFIXES: dict[str, Kind] = {".whl": "wheel", ".tar.gz": "sdist", ".zip": "sdist"}


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


def parse_filename(filename: str) -> ParsedFilename:
    """Read a filename; raises `InvalidFilename` for anything but a wheel or an sdist."""
    if not filename.isprintable() or not filename.isascii() or {"/", "\\"} & set(filename):
        raise InvalidFilename(filename, "only printable ASCII without slashes is allowed")
    if len(filename) > 255:
        raise InvalidFilename(filename[:64] + "…", "longer than 255 characters")
    try:
        if filename.endswith(".whl"):
            project, version, _build, tags = parse_wheel_filename(filename)
            pyversion = ".".join(sorted({tag.interpreter for tag in tags}))
            return ParsedFilename(
                project=project, version=version, kind="wheel", pyversion=pyversion
            )
        if filename.endswith((".tar.gz", ".zip")):
            project, version = parse_sdist_filename(filename)
            if not project:
                raise InvalidFilename(filename, "the project name is empty")
            return ParsedFilename(
                project=project, version=version, kind="sdist", pyversion="source"
            )
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion) as error:
        raise InvalidFilename(filename, str(error)) from error
    raise InvalidFilename(filename, "only .whl, .tar.gz and .zip files are distribution files")


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
    except InvalidVersion:
        return text
