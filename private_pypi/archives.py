"""The archives of distribution files, opened and checked from end to end; nothing is extracted.

A wheel is a zip file (binary distribution format), an sdist a gzipped tar file or a zip file
(source distribution format). What a client would unpack is what was looked at here: one reading of
the bytes only, every checksum verified, nothing before, between or behind the members.
"""

from __future__ import annotations

import configparser
import csv
import logging
import posixpath
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import dropwhile, pairwise
from pathlib import Path
from typing import BinaryIO

from private_pypi import tar_members, zip_members
from private_pypi.errors import InvalidUpload
from private_pypi.filenames import ParsedFilename, is_version, normalize, parse_filename
from private_pypi.tar_members import TarMember
from private_pypi.zip_members import ZipMember

logger = logging.getLogger(__name__)

_BOMB_FREE = 64 * 2**20  # bytes that any archive may unpack to
_BOMB_RATIO = 50  # above that, how many times its own size (protocol 59)
_LONGEST_NAME = 1024  # characters
_MAX_NAMES = 32 * 2**20  # characters of all names together

_OF_DIST_INFO = ("METADATA", "WHEEL", "RECORD")
# Bytes of a member that is held in memory.
_MAX_TEXTS = {
    "METADATA": 16 * 2**20,
    "PKG-INFO": 16 * 2**20,
    "RECORD": 16 * 2**20,
    "WHEEL": 2**20,
    "entry_points.txt": 2**20,
}

_WHEEL_VERSION = re.compile(rb"^wheel-version:(.*)$", re.IGNORECASE | re.MULTILINE)


def check_archive(path: Path, filename: str) -> bytes:
    """Check the whole archive and return its core metadata, byte for byte.

    Raises `InvalidUpload` with the first thing that is wrong. Memory does not grow with the file.
    """
    parsed = parse_filename(filename)
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            if parsed.kind == "wheel":
                return _check_wheel(file, size, filename, parsed)
            if filename.endswith(".zip"):
                return _check_zip_sdist(file, size, parsed)
            return _check_tar_sdist(file, size, parsed)
    except InvalidUpload as error:
        raise InvalidUpload(f"{filename}: {error}") from error


# -- wheels --------------------------------------------------------------------------------------


def _check_wheel(file: BinaryIO, size: int, filename: str, parsed: ParsedFilename) -> bytes:
    members = _open_zip(file, size)
    folder = _dist_info_folder(parsed, (member.name for member in members))
    texts = _read_zip(
        file, members, *(f"{folder}/{name}" for name in (*_OF_DIST_INFO, "entry_points.txt"))
    )
    core_metadata, wheel, record = (_required(texts, f"{folder}/{name}") for name in _OF_DIST_INFO)
    versions = [found.decode(errors="replace").strip() for found in _WHEEL_VERSION.findall(wheel)]
    if len(versions) != 1 or not versions[0].startswith("1."):
        found = " and ".join(versions)[:100] or "missing"
        raise InvalidUpload(f"Wheel-Version in {folder}/WHEEL must be 1.x, but is {found}")
    entry_points = f"{folder}/entry_points.txt"
    _check_entry_points(entry_points, texts.get(entry_points, b""))
    _warn_of_record(filename, folder, record, members)
    return core_metadata


def _dist_info_folder(parsed: ParsedFilename, names: Iterable[str]) -> str:
    tops = {name.split("/", 1)[0] for name in names}
    folders = sorted(top for top in tops if top.lower().endswith(".dist-info"))
    if len(folders) != 1:
        found = ", ".join(folders)[:200] or "none"
        raise InvalidUpload(f"a wheel has exactly one .dist-info folder, this one has {found}")
    [folder] = folders
    if not folder.endswith(".dist-info") or not _is_named(folder[: -len(".dist-info")], parsed):
        raise InvalidUpload(f"{folder!r} is not the .dist-info folder of the release in its name")
    return folder


def _check_entry_points(name: str, content: bytes) -> None:
    parser = configparser.RawConfigParser(delimiters=("=",), strict=False)
    try:
        parser.read_string(content.decode("utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        why = str(error).splitlines()[0]
        raise InvalidUpload(f"{name} cannot be read: {why}") from error


def _warn_of_record(
    filename: str, folder: str, record: bytes, members: Sequence[ZipMember]
) -> None:
    """A RECORD that disagrees is told, not refused: installers do not mind, and old tools err."""
    try:
        rows = {row[0]: row for row in csv.reader(record.decode().splitlines()) if row}
    except (csv.Error, UnicodeDecodeError) as error:
        logger.warning("%s: RECORD cannot be read: %s", filename, error)
        return
    signatures = {f"{folder}/{name}" for name in ("RECORD", "RECORD.jws", "RECORD.p7s")}
    files = {member.name: member.size for member in members if not member.is_folder}
    wrong = [f"{name!r} is missing" for name in files.keys() - rows.keys() - signatures]
    wrong += [f"{name!r} is not in the wheel" for name in rows.keys() - files.keys()]
    wrong += [
        f"{name!r} has {files[name]} bytes, not {row[2]!r}"
        for name, row in rows.items()
        if name in files and row[2:] not in ([], [""], [str(files[name])])
    ]
    if wrong:
        # One line, however much is wrong.
        logger.warning("%s: %d rows of RECORD are wrong: %.300s", filename, len(wrong), min(wrong))


# -- sdists --------------------------------------------------------------------------------------


def _check_zip_sdist(file: BinaryIO, size: int, parsed: ParsedFilename) -> bytes:
    members = _open_zip(file, size)
    folder = _top_folder(parsed, (member.name for member in members))
    wanted = f"{folder}/PKG-INFO"
    return _required(_read_zip(file, members, wanted), wanted)


def _check_tar_sdist(file: BinaryIO, size: int, parsed: ParsedFilename) -> bytes:
    # pip unpacks whatever ends like a zip file as one, whatever its name says.
    if zipfile.is_zipfile(file):
        raise InvalidUpload("it is a tar file and a zip file at once")
    file.seek(0)
    stream = tar_members.Gunzip(file, max(_BOMB_FREE, _BOMB_RATIO * size))
    members: list[TarMember] = []
    total = 0
    texts: dict[str, bytes] = {}
    for member, content in tar_members.read_members(stream, _is_pkg_info):
        members.append(member)
        total += len(member.name) + len(member.target)
        if len(members) > zip_members.MAX_MEMBERS or total > _MAX_NAMES:
            raise InvalidUpload(
                f"an sdist may have at most {zip_members.MAX_MEMBERS} members, "
                f"with names of {_MAX_NAMES} characters together"
            )
        if _is_pkg_info(member):
            texts[member.name] = content
    _check_names((member.name, member.kind == "folder") for member in members)
    folder = _top_folder(parsed, (member.name for member in members))
    _check_links(folder, members)
    return _required(texts, f"{folder}/PKG-INFO")


def _is_pkg_info(member: TarMember) -> bool:
    if member.kind != "file" or member.name.partition("/")[2] != "PKG-INFO":
        return False
    _check_text_size(member.name, member.size)
    return True


def _check_links(folder: str, members: Sequence[TarMember]) -> None:
    """Links stay in the top folder, also when they are followed through one another.

    Every step up comes first, from a real folder (no member lies below a link: that was a name of
    a file and a folder at once); what follows goes down, maybe through links that stay inside too.
    """
    files: set[str] = set()
    for member in members:
        if member.kind == "file":
            files.add(member.name)
        elif member.kind == "hard link":
            target = member.target.removeprefix("./")
            if target not in files:
                raise InvalidUpload(
                    f"{member.name!r} is a hard link to {target!r}, which is no file before it"
                )
            files.add(member.name)
        elif member.kind == "symbolic link":
            path = posixpath.join(posixpath.dirname(member.name), member.target)
            is_inside = f"{posixpath.normpath(path)}/".startswith(f"{folder}/")
            behind = dropwhile(lambda step: step in ("", ".", ".."), member.target.split("/"))
            if not member.target or not is_inside or not _is_plain(member.target) or ".." in behind:
                raise InvalidUpload(
                    f"the symbolic link {member.name!r} to {member.target!r} may leave {folder!r}"
                )


def _top_folder(parsed: ParsedFilename, names: Iterable[str]) -> str:
    tops = sorted({name.split("/", 1)[0] for name in names})
    if len(tops) != 1:
        found = ", ".join(tops)[:200] or "none"
        raise InvalidUpload(f"an sdist has exactly one top folder, this one has {found}")
    if not _is_named(tops[0], parsed):
        raise InvalidUpload(f"the top folder {tops[0]!r} is not named after the release")
    return tops[0]


# -- what both share -----------------------------------------------------------------------------


def _open_zip(file: BinaryIO, size: int) -> list[ZipMember]:
    if tar_members.is_header(file.read(512)):
        raise InvalidUpload("it is a zip file and a tar file at once")
    members = zip_members.read_members(file, size)
    _check_names((member.name, member.is_folder) for member in members)
    total = sum(member.size for member in members)
    if total > max(_BOMB_FREE, _BOMB_RATIO * size):
        raise InvalidUpload(f"it unpacks to {total} bytes, far more than its own {size}")
    return members


def _read_zip(file: BinaryIO, members: Iterable[ZipMember], *wanted: str) -> dict[str, bytes]:
    """Read every member to its end; the contents of those that are wanted."""
    texts: dict[str, bytes] = {}
    for member in members:
        content = zip_members.unpack(file, member)
        if member.name in wanted:
            _check_text_size(member.name, member.size)
            texts[member.name] = b"".join(content)
        else:
            for _chunk in content:
                pass
    return texts


def _check_text_size(name: str, size: int) -> None:
    limit = _MAX_TEXTS[name.rpartition("/")[2]]
    if size > limit:
        raise InvalidUpload(f"{name!r} has {size} bytes; at most {limit} can be taken")


def _check_names(members: Iterable[tuple[str, bool]]) -> None:
    """No name leaves the folder it is unpacked into, and none is there twice."""
    paths: list[tuple[str, bool]] = []
    for name, is_folder in members:
        path = name.removesuffix("/") if is_folder else name
        if len(name) > _LONGEST_NAME:
            raise InvalidUpload(
                f"the member name {name[:100]!r}… is longer than {_LONGEST_NAME} characters"
            )
        if not _is_plain(path) or {"", ".", ".."} & set(path.split("/")):
            raise InvalidUpload(f"the member name {name!r} is not a plain relative path")
        # So that what is in a folder comes right behind it when sorted.
        paths.append((path.replace("/", "\0"), is_folder))
    paths.sort()
    for (path, is_folder), (following, _) in pairwise(paths):
        shown = path.replace("\0", "/")
        if path == following:
            raise InvalidUpload(f"the member {shown!r} is there twice")
        if not is_folder and following.startswith(path + "\0"):
            raise InvalidUpload(f"the member {shown!r} is a file and a folder at once")


def _is_plain(path: str) -> bool:
    return path.isprintable() and "\\" not in path and path[1:2] != ":" and path[:1] != "/"


def _is_named(folder: str, parsed: ParsedFilename) -> bool:
    """Whether a folder `<name>-<version>` is that of the release, in whatever spelling."""
    if len(folder) > 2 * 255:  # the limit of a filename; nothing is ever spelled that long
        return False
    return any(
        normalize(folder[:at]) == parsed.project and is_version(folder[at + 1 :], parsed.version)
        for at, character in enumerate(folder)
        if character == "-"
    )


def _required(texts: Mapping[str, bytes], name: str) -> bytes:
    if name not in texts:
        raise InvalidUpload(f"{name} is missing")
    return texts[name]
