"""Checks the archive of a distribution file from its first byte to its last; extracts nothing.

A wheel is a zip file. A source distribution (sdist) is a gzipped tar file or a zip file. The files
and folders in an archive are called its members.

An archive can be built so that different programs unpack different files from it. A reviewer or a
scanner could then see something else than what is installed. Such archives are refused: all
checksums must be right, and every byte must belong to exactly one member or header.

The time and memory of a check are limited, whatever is uploaded. There are limits for the number of
members, the length of their names, the unpacked bytes, the size of each text that is read into
memory, and the number of archives that are checked at a time.
"""

from __future__ import annotations

import configparser
import csv
import hashlib
import posixpath
import re
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import dropwhile, pairwise
from pathlib import Path
from typing import BinaryIO
from unicodedata import category

from private_pypi.distributions import tar_members, zip_members
from private_pypi.distributions.filenames import (
    ParsedFilename,
    is_version,
    normalize,
    parse_filename,
)
from private_pypi.distributions.tar_members import TarMember
from private_pypi.distributions.zip_members import ZipMember
from private_pypi.errors import BackendUnavailable, InvalidUpload

# How many bytes an archive may unpack to; see `most_unpacked`.
_BOMB_FREE = 64 * 2**20
_BOMB_RATIO = 50
_BOMB_MOST = 8 * 2**30  # takes half a minute to unpack
_LONGEST_NAME = 1024  # characters
_MAX_NAMES = 16 * 2**20  # characters of all names together

_OF_DIST_INFO = ("METADATA", "WHEEL", "RECORD")
# The size limits of members that are read into memory, in bytes. (RECORD is read line by line.)
_MAX_TEXTS = {
    "METADATA": 16 * 2**20,
    "PKG-INFO": 16 * 2**20,
    "RECORD": 16 * 2**20,
    "WHEEL": 2**20,
    "entry_points.txt": 256 * 2**10,  # its parser needs many times as much memory
}
_LONGEST_ROW = 2**18  # bytes of a line of RECORD
_MOST_WRONG_ROWS = 1000  # the rest of RECORD is not checked after so many

_WHEEL_VERSION = re.compile(rb"^wheel-version:(.*)$", re.IGNORECASE | re.MULTILINE)
_FORBIDDEN_IN_NAMES = re.compile(r"[\x00-\x1f\x7f\\]")

# Files of up to `_SMALL` bytes are checked quickly. They never wait for larger ones, which can take
# half a minute each.
_SMALL = 4 * 2**20
_SMALL_PLACES = threading.BoundedSemaphore(4)
_LARGE_PLACES = threading.BoundedSemaphore(2)
_WAIT_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedArchive:
    """What a check found in an archive that is accepted."""

    core_metadata: bytes
    warnings: Sequence[str]  # sentences about what the publisher should correct


def check_archive(path: Path, filename: str) -> CheckedArchive:
    """Check the whole archive and return its core metadata.

    Raises `InvalidUpload` with the first mistake, and `BackendUnavailable` if too many other
    archives are being checked.
    """
    parsed = parse_filename(filename)
    size = path.stat().st_size
    try:
        with place_to_read(size), path.open("rb") as file:
            if parsed.kind == "wheel":
                return _check_wheel(file, size, parsed)
            if filename.endswith(".zip"):
                return _check_zip_sdist(file, size, parsed)
            return _check_tar_sdist(file, size, parsed)
    except InvalidUpload as error:
        raise InvalidUpload(f"{filename}: {error}") from error


def most_unpacked(size: int) -> int:
    """How many bytes an archive of `size` bytes may unpack to.

    That is 64 MiB or 50 times its own size, whichever is more; but at most 8 GiB more than its own
    size.
    """
    return max(_BOMB_FREE, min(_BOMB_RATIO * size, size + _BOMB_MOST))


@contextmanager
def place_to_read(size: int) -> Iterator[None]:
    """Wait until an archive of `size` bytes may be opened, so that few are open at a time.

    Raises `BackendUnavailable` after two minutes.
    """
    places = _SMALL_PLACES if size <= _SMALL else _LARGE_PLACES
    if not places.acquire(timeout=_WAIT_SECONDS):
        raise BackendUnavailable(
            "too many other archives are being checked; send the file again", retry_after=60
        )
    try:
        yield
    finally:
        places.release()


# -- wheels --------------------------------------------------------------------------------------


def _check_wheel(file: BinaryIO, size: int, parsed: ParsedFilename) -> CheckedArchive:
    members, warnings = _open_zip(file, size)
    folder = _dist_info_folder(parsed, (member.name for member in members))
    texts: dict[str, bytes] = {}

    def take(member: ZipMember, content: Iterator[bytes]) -> None:
        name = member.name.removeprefix(f"{folder}/")
        if member.name == name or name not in (*_OF_DIST_INFO, "entry_points.txt"):
            return
        _check_text_size(member.name, member.size)
        if name == "RECORD":
            texts[name] = b""  # it exists
            warnings.extend(_wrong_in_record(folder, content, members))
        else:
            texts[name] = b"".join(content)

    _read_zip(file, members, take)
    for name in _OF_DIST_INFO:
        if name not in texts:
            raise InvalidUpload(f"{folder}/{name} is missing; every wheel must have it")
    versions = [
        found.decode(errors="replace").strip() for found in _WHEEL_VERSION.findall(texts["WHEEL"])
    ]
    # Wheels that are older than the specification have 0.1. Installers accept no other 0.x.
    if len(versions) != 1 or not (versions[0].startswith("1.") or versions[0] == "0.1"):
        found = " and ".join(versions)[:100] or "missing"
        raise InvalidUpload(f"Wheel-Version in {folder}/WHEEL must be 1.x, but is {found}")
    if "entry_points.txt" in texts:
        _check_entry_points(f"{folder}/entry_points.txt", texts["entry_points.txt"])
    return CheckedArchive(core_metadata=texts["METADATA"], warnings=warnings)


def _dist_info_folder(parsed: ParsedFilename, names: Iterable[str]) -> str:
    tops = {name.split("/", 1)[0] for name in names}
    folders = sorted(top for top in tops if top.lower().endswith(".dist-info"))
    if len(folders) != 1:
        raise InvalidUpload(
            f"a wheel must have exactly one .dist-info folder, but this one has {_listed(folders)}"
        )
    [folder] = folders
    if not folder.endswith(".dist-info") or not _is_named(folder[: -len(".dist-info")], parsed):
        raise InvalidUpload(
            f"the folder {folder!r} does not fit the filename: it must be "
            f"<name>-<version>.dist-info with project {parsed.project} and version {parsed.version}"
        )
    return folder


def _check_entry_points(name: str, content: bytes) -> None:
    parser = configparser.RawConfigParser(delimiters=("=",), strict=False)
    try:
        parser.read_string(content.decode("utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        why = str(error).splitlines()[0]
        raise InvalidUpload(f"{name} cannot be read: {why}") from error


def _wrong_in_record(
    folder: str, record: Iterator[bytes], members: Sequence[ZipMember]
) -> Sequence[str]:
    """Compare RECORD with the members; return one sentence if they differ, and none otherwise.

    A difference is only a warning, because installers ignore it and old tools write wrong rows.
    Raises `InvalidUpload` if the RECORD cannot be read, because then pip and uv cannot install it.
    """
    files = {member.name: member.size for member in members if not member.is_folder}
    seen: set[str] = set()
    first = ""
    wrong = 0
    try:
        for name, size in _rows(record):
            if name not in files:
                why = f"{name[:_LONGEST_NAME]!r} is not in the wheel"
            elif name in seen:
                why = f"{name!r} is listed twice"
            elif size not in ("", str(files[name])):
                why = f"{name!r} has {files[name]} bytes, not {size[:100]!r}"
            else:
                why = ""
            if name in files:
                seen.add(name)
            wrong += bool(why)
            first = first or why
            if wrong == _MOST_WRONG_ROWS:
                return [f"{wrong} or more rows of RECORD are wrong: {first:.300}"]
    except (csv.Error, ValueError) as error:
        raise InvalidUpload(f"{folder}/RECORD cannot be read: {error}") from error
    seen |= {f"{folder}/{name}" for name in ("RECORD", "RECORD.jws", "RECORD.p7s")}
    missing = files.keys() - seen
    if missing:
        wrong += len(missing)
        first = first or f"{min(missing)!r} is missing"
    return [f"{wrong} rows of RECORD are wrong: {first:.300}"] if wrong else []


def _rows(record: Iterator[bytes]) -> Iterator[tuple[str, str]]:
    """The name and the size in each row of a RECORD; raises ValueError and `csv.Error`."""
    columns = None
    for line in _lines(record):
        # Each line is one row, because names contain no line breaks. "\r" alone also ends a line.
        for row in csv.reader(line.decode().removesuffix("\r").split("\r")):
            columns = columns or len(row)
            if len(row) != columns or columns < 3:
                raise ValueError(
                    f"a row has {len(row)} columns; each must have 3: path, hash and size"
                )
            name, _, size, *_ = row
            if size and not (size.isascii() and size.isdigit()):
                raise ValueError(f"the size of {name[:100]!r} is not a number: {size[:100]!r}")
            yield name, size


def _lines(content: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in content:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_ROW:
            raise ValueError(f"a line is longer than {_LONGEST_ROW} bytes")
        yield from lines
    if rest:
        yield rest


# -- sdists --------------------------------------------------------------------------------------


def _check_zip_sdist(file: BinaryIO, size: int, parsed: ParsedFilename) -> CheckedArchive:
    members, warnings = _open_zip(file, size)
    tops = {member.name.split("/", 1)[0] for member in members}
    wanted = f"{_top_folder(parsed, tops)}/PKG-INFO"
    texts: list[bytes] = []

    def take(member: ZipMember, content: Iterator[bytes]) -> None:
        if member.name == wanted:
            _check_text_size(wanted, member.size)
            texts.append(b"".join(content))

    _read_zip(file, members, take)
    if not texts:
        raise InvalidUpload(f"{wanted} is missing; every sdist must have it")
    return CheckedArchive(core_metadata=texts[0], warnings=warnings)


def _check_tar_sdist(file: BinaryIO, size: int, parsed: ParsedFilename) -> CheckedArchive:
    # pip unpacks a file that ends like a zip file as a zip file, even if its name is .tar.gz.
    if zipfile.is_zipfile(file):
        raise InvalidUpload("it is a tar file and a zip file at the same time")
    file.seek(0)
    names = _Names()
    links = _Links()
    folder = ""
    core_metadata = None
    for member, content in tar_members.read_members(_unpacked_tar(file, size)):
        names.add(member.name, is_folder=member.kind == "folder")
        top = member.name.split("/", 1)[0]
        if top != folder:
            folder = _top_folder(parsed, {top} | ({folder} if folder else set()))
        links.check(folder, member)
        if member.kind == "file" and member.name == f"{folder}/PKG-INFO":
            _check_text_size(member.name, member.size)
            core_metadata = b"".join(content)
    repeated = names.check()
    if not folder:
        _top_folder(parsed, ())
    if core_metadata is None:
        raise InvalidUpload(f"{folder}/PKG-INFO is missing; every sdist must have it")

    def read_again() -> Iterator[_Comparable]:
        file.seek(0)
        for member, content in tar_members.read_members(_unpacked_tar(file, size)):
            target = member.target if "link" in member.kind else ""
            yield member.name, (member.kind, target), content

    return CheckedArchive(core_metadata=core_metadata, warnings=_check_same(repeated, read_again))


def _unpacked_tar(file: BinaryIO, size: int) -> tar_members.Gunzip:
    return tar_members.Gunzip(file, most_unpacked(size))


class _Links:
    """Checks that no link leads out of the top folder, even through other links.

    The target of a symbolic link may go up (`..`) only at its beginning. There it starts from a
    real folder, because no member may be inside a link (`_Names.check` refuses it). After that it
    only goes down, perhaps through other links, which have been checked in the same way.
    """

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._characters = 0

    def check(self, folder: str, member: TarMember) -> None:
        """Check the next member."""
        if member.kind == "file":
            self._files.add(member.name)
            return
        if member.kind == "folder":
            return
        self._characters += len(member.target)
        if self._characters > _MAX_NAMES:
            raise InvalidUpload(
                f"the targets of all links together have more than {_MAX_NAMES} characters, which "
                "is the limit"
            )
        if member.kind == "hard link":
            target = member.target.removeprefix("./")
            if target not in self._files:
                raise InvalidUpload(
                    f"{member.name!r} is a hard link to {_shown(target)}; it must be a link to a "
                    "file that comes before it in the archive"
                )
            self._files.add(member.name)
            return
        path = posixpath.join(posixpath.dirname(member.name), member.target)
        is_inside = f"{posixpath.normpath(path)}/".startswith(f"{folder}/")
        behind = dropwhile(lambda step: step in ("", ".", ".."), member.target.split("/"))
        if not member.target or not is_inside or not _is_plain(member.target) or ".." in behind:
            raise InvalidUpload(
                f"the symbolic link {member.name!r} to {_shown(member.target)} must stay inside "
                f"{folder!r}, with '..' only at its beginning"
            )


def _top_folder(parsed: ParsedFilename, tops: Iterable[str]) -> str:
    found = sorted(tops)
    if len(found) != 1:
        raise InvalidUpload(
            f"an sdist must have exactly one top folder, but this one has {_listed(found)}"
        )
    if not _is_named(found[0], parsed):
        raise InvalidUpload(
            f"the top folder {found[0]!r} does not fit the filename: it must be <name>-<version> "
            f"with project {parsed.project} and version {parsed.version}"
        )
    return found[0]


# -- wheels and sdists ---------------------------------------------------------------------------


def _open_zip(file: BinaryIO, size: int) -> tuple[list[ZipMember], list[str]]:
    """The members, and warnings about them. Their content has not been read."""
    if tar_members.is_header(file.read(512)):
        raise InvalidUpload("it is a zip file and a tar file at the same time")
    members = zip_members.read_members(file, size)
    names = _Names()
    for member in members:
        names.add(member.name, is_folder=member.is_folder)
        hidden = None
        if not member.name.isprintable():
            hidden = next(filter(_is_hidden, member.name), None)
        if hidden is not None:
            raise InvalidUpload(
                f"the member name {member.name!r} has the character U+{ord(hidden):04X}, "
                "so uv cannot unpack it"
            )
    total = sum(member.size for member in members)
    if total > most_unpacked(size):
        raise InvalidUpload(
            f"it unpacks to {total} bytes; a file of {size} bytes may unpack to at most "
            f"{most_unpacked(size)}"
        )
    return members, _check_same(
        names.check(),
        lambda: (
            (member.name, ("file", ""), zip_members.unpack(file, member)) for member in members
        ),
    )


def _read_zip(
    file: BinaryIO,
    members: Iterable[ZipMember],
    take: Callable[[ZipMember, Iterator[bytes]], None],
) -> None:
    """Read every member to its end, which verifies its checksum.

    `take` is called with each member and its content in chunks; it may leave some of them unread.
    """
    for member in members:
        content = zip_members.unpack(file, member)
        take(member, content)
        for _chunk in content:
            pass


_Comparable = tuple[str, object, Iterable[bytes]]  # name, kind and content of a member


def _check_same(
    repeated: AbstractSet[str], read_again: Callable[[], Iterable[_Comparable]]
) -> list[str]:
    """Check that members of the same name have the same content; return a warning about them.

    Some tools write a member twice, and pip and uv install such files. If all of them are the same,
    it makes no difference which one is unpacked. `read_again` reads the archive a second time; it
    is only called if there are repeated members.
    """
    if not repeated:
        return []
    seen: dict[str, tuple[object, bytes]] = {}
    for name, kind, content in read_again():
        if name in repeated:
            digest = hashlib.sha256()
            for chunk in content:
                digest.update(chunk)
            found = (kind, digest.digest())
            if seen.setdefault(name, found) != found:
                raise InvalidUpload(
                    f"the archive has two members {name!r} with different content; "
                    "a name must be used once"
                )
    first = f"the member {min(repeated)!r}"
    which = f"{first} is" if len(repeated) == 1 else f"{first} and {len(repeated) - 1} more are"
    return [f"{which} repeated, with the same content"]


def _check_text_size(name: str, size: int) -> None:
    limit = _MAX_TEXTS[name.rpartition("/")[2]]
    if size > limit:
        raise InvalidUpload(f"{name!r} has {size} bytes; at most {limit} are accepted")


class _Names:
    """Checks the names of all members: none may lead out of the folder it is unpacked into."""

    def __init__(self) -> None:
        # Each name, and whether it is a folder. Bytes take up to four times less memory than text.
        # Slashes are replaced by zeros, so that sorting puts the content of a folder right after
        # the folder.
        self._paths: list[tuple[bytes, bool]] = []
        self._characters = 0

    def add(self, name: str, *, is_folder: bool) -> None:
        path = name.removesuffix("/") if is_folder else name
        if len(name) > _LONGEST_NAME:
            raise InvalidUpload(
                f"the member name {name[:100]!r}… is longer than {_LONGEST_NAME} characters"
            )
        if not _is_plain(path) or {"", ".", ".."} & set(path.split("/")):
            raise InvalidUpload(
                f"the member name {name!r} must be a relative path, without '..', '.', empty "
                "parts, backslashes and control characters"
            )
        self._characters += len(name)
        self._paths.append((path.replace("/", "\0").encode(), is_folder))
        if len(self._paths) > zip_members.MAX_MEMBERS or self._characters > _MAX_NAMES:
            raise InvalidUpload(
                f"an archive may have at most {zip_members.MAX_MEMBERS} members, "
                f"with names of {_MAX_NAMES} characters together"
            )

    def check(self) -> AbstractSet[str]:
        """Check all names together; return those that more than one file has.

        Raises `InvalidUpload` if a name is that of a file and of a folder.
        """
        repeated = set()
        self._paths.sort()
        for (path, is_folder), (following, next_is_folder) in pairwise(self._paths):
            if is_folder:  # folders may be repeated, and may have content
                continue
            shown = path.replace(b"\0", b"/").decode()
            if path == following and not next_is_folder:
                repeated.add(shown)
            elif path == following or following.startswith(path + b"\0"):
                raise InvalidUpload(f"the member {shown!r} is both a file and a folder")
        return repeated


def _is_plain(path: str) -> bool:
    """Whether all systems take a path for a relative one, and it is safe to show in a terminal."""
    return not _FORBIDDEN_IN_NAMES.search(path) and path[1:2] != ":" and path[:1] != "/"


def _is_hidden(character: str) -> bool:
    """Whether uv refuses zip files that have this character in a name."""
    return category(character) in ("Cc", "Cf", "Co")  # none of them is printable


def _is_named(folder: str, parsed: ParsedFilename) -> bool:
    """Whether a folder is named `<name>-<version>` after the release, in any spelling."""
    if len(folder) > 2 * 255:  # far more than any filename has; the search below is quadratic
        return False
    return any(
        normalize(folder[:at]) == parsed.project and is_version(folder[at + 1 :], parsed.version)
        for at, character in enumerate(folder)
        if character == "-"
    )


def _listed(names: Iterable[str]) -> str:
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names)
    return shown[:200] or "none"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_NAME else text[:_LONGEST_NAME] + "…")
