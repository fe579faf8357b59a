"""Filenames of distribution files: which project, version and kind of file they stand for.

They are parsed by `packaging.utils`. Wheels follow the binary distribution format. Source
distributions (sdists) follow PEP 625, or the looser rules that were in use before it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from packaging.utils import (
    NormalizedName,
    canonicalize_name,
    canonicalize_version,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

from private_pypi.errors import InvalidFilename

Kind = Literal["wheel", "sdist"]

SUFFIXES: dict[str, Kind] = {".whl": "wheel", ".tar.gz": "sdist", ".zip": "sdist"}

_LONGEST = 255  # characters; the limit of nearly every file system
_MOST_TAGS = 1000  # of one wheel, after its compressed tags (py2.py3-none-any) are expanded
# Names, versions, build numbers and tags consist of these. They are safe in paths, URLs and HTML.
_CHARACTERS = re.compile(r"[A-Za-z0-9._+!-]+")
_EXPECTED: dict[Kind, str] = {
    "wheel": "the filename of a wheel must be "
    "<project>-<version>[-<build>]-<python>-<abi>-<platform>.whl, with _ instead of - in the "
    "project name, and a version according to PEP 440",
    "sdist": "the filename of a source distribution must be <project>-<version>{suffix}, with a "
    "version according to PEP 440",
}
_BEFORE_VERSION = re.compile(r"(.+?)-[vV]?[0-9]")
_NORMALIZED = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFilename:
    """What the filename of a distribution file says."""

    project: NormalizedName
    version: Version
    kind: Kind
    pyversion: str  # the Python tags of a wheel joined by ".", or "source" for an sdist
    suffix: str  # ".whl", ".tar.gz" or ".zip"
    build: str = ""  # the build tag of a wheel, without leading zeros; "": none
    tags: str = ""  # the compressed tags of a wheel, such as "py2.py3-none-any", each part sorted

    @property
    def key(self) -> str:
        """The same text for all filenames that installers treat as one file.

        Two such filenames have the same project, version (`1.0` is `1.0.0` in PEP 440), suffix,
        build tag and tags. They may differ in upper and lower case and in the order of the tags.
        """
        version = canonicalize_version(self.version)
        return "/".join((self.project, version, self.build, self.tags + self.suffix))


def normalize(name: str) -> NormalizedName:
    """The normalised name of a project (PEP 503)."""
    return canonicalize_name(name)


def is_version(text: str | None, version: Version) -> bool:
    """Whether a text is this version, in any spelling (`1.0` and `v1.0.0` are the same)."""
    try:
        return text is not None and len(text) <= _LONGEST and Version(text) == version
    except ValueError:  # InvalidVersion, or too many digits for Python to convert
        return False


# The same few names are parsed several times in a row: when a file is uploaded or opened, examined
# and listed.
@lru_cache(maxsize=1024)
def parse_filename(filename: str) -> ParsedFilename:
    """Parse a filename; raises `InvalidFilename` if it is not that of a wheel or an sdist."""
    if len(filename) > _LONGEST:
        raise InvalidFilename(
            filename[:64] + "…", f"it is longer than {_LONGEST} characters, which is the limit"
        )
    suffix = f".{split_suffix(filename)[1]}"
    if not _CHARACTERS.fullmatch(filename):
        raise InvalidFilename(filename, "only letters, digits and . _ - + ! are allowed")
    try:
        if suffix == ".whl":
            parsed = _parse_wheel(filename)
        else:
            project, version = parse_sdist_filename(filename)
            parsed = ParsedFilename(
                project=project, version=version, kind="sdist", pyversion="source", suffix=suffix
            )
    except ValueError as error:  # the base class of all errors of packaging
        expected = _EXPECTED[SUFFIXES[suffix]].format(suffix=suffix)
        raise InvalidFilename(filename, expected) from error
    if not _NORMALIZED.fullmatch(parsed.project):
        raise InvalidFilename(
            filename, "the project name must begin and end with a letter or a digit"
        )
    return parsed


def _parse_wheel(filename: str) -> ParsedFilename:
    tags = filename.removesuffix(".whl").split("-")[-3:]
    if math.prod(1 + part.count(".") for part in tags) > _MOST_TAGS:
        raise InvalidFilename(
            filename, f"its tags stand for more than {_MOST_TAGS} combinations, which is the limit"
        )
    parts = filename.removesuffix(".whl").split("-")
    if len(parts) == 5:
        build = ""
        project, version = _project_of_wheel(parts[0]), _version_of_wheel(parts[1])
    else:
        project, version, build_tag, _ = parse_wheel_filename(filename)
        build = "".join(map(str, build_tag))
    pyversion, sorted_tags = _tags_of_wheel("-".join(tags))
    return ParsedFilename(
        project=project,
        version=version,
        kind="wheel",
        pyversion=pyversion,
        suffix=".whl",
        build=build,
        tags=sorted_tags,
    )


# `packaging` takes a wheel's filename apart at its hyphens and checks each part by itself. So a
# part means the same in any other filename. Most names of a large index share parts with others.


@lru_cache(maxsize=1024)
def _project_of_wheel(text: str) -> NormalizedName:
    return parse_wheel_filename(f"{text}-0-py3-none-any.whl")[0]


@lru_cache(maxsize=1024)
def _version_of_wheel(text: str) -> Version:
    return parse_wheel_filename(f"x-{text}-py3-none-any.whl")[1]


@lru_cache(maxsize=1024)
def _tags_of_wheel(text: str) -> tuple[str, str]:
    """The Python tags, and all tags with each part sorted."""
    found = parse_wheel_filename(f"x-0-{text}.whl")[3]
    return (
        ".".join(sorted({tag.interpreter for tag in found})),
        "-".join(".".join(sorted(set(part.lower().split(".")))) for part in text.split("-")),
    )


def file_key(filename: str) -> str:
    """`ParsedFilename.key`, or the filename itself if it is not that of a distribution file."""
    try:
        return parse_filename(filename).key
    except InvalidFilename:
        return filename


def named_projects(filename: str) -> frozenset[NormalizedName]:
    """The projects that a file with this name may belong to.

    For a valid filename, this is one project. For an invalid one, it is the text before the first
    hyphen that is followed by something like a version. If there is no such hyphen, it is the text
    before the first hyphen of a wheel; for an sdist, both the text before the last hyphen and the
    whole name without its suffix are possible.
    """
    try:
        return frozenset([parse_filename(filename).project])
    except InvalidFilename:
        pass
    stem = filename
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    before = _BEFORE_VERSION.match(stem)
    if before is not None:
        texts = [before[1]]
    elif filename.endswith(".whl"):
        texts = [stem.partition("-")[0]]
    else:
        texts = [stem, stem.rpartition("-")[0]]
    return frozenset(name for name in map(project_name, texts) if name is not None)


def project_name(text: str) -> NormalizedName | None:
    """The normalised name of a project; None if the text cannot be the name of a project."""
    name = normalize(text)
    return name if len(text) <= _LONGEST and _NORMALIZED.fullmatch(name) else None


def split_suffix(filename: str) -> tuple[str, str]:
    """The filename in two parts, as private-pypi 0.2 stores it: `("a-1.0", "tar.gz")`.

    Raises `InvalidFilename` if it does not end like a distribution file.
    """
    for suffix in SUFFIXES:
        if filename.endswith(suffix):
            return filename[: -len(suffix)], suffix[1:]
    raise InvalidFilename(filename, "the filename must end with .whl, .tar.gz or .zip")


def is_filename(text: str) -> bool:
    """Whether a text is a filename as opposed to a version: it ends with one of the suffixes."""
    return text.endswith(tuple(SUFFIXES))


def normalize_version(text: str) -> str:
    """A version as in `DistributionFile.version`; the text itself if it is not a version."""
    try:
        return str(Version(text))
    except ValueError:  # InvalidVersion, or too many digits for Python to convert
        return text
