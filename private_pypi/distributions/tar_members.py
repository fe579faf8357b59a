"""Reads the members of a gzipped tar file strictly, refusing files that could be read differently.

Programs that read tar files know different extensions of the format, and treat contradictions in a
file differently. A file that two programs would understand differently is refused here. These
formats are accepted: ustar and pax (POSIX.1-2017, `pax`), GNU long names, and the older v7.

A tar file is a sequence of headers, each followed by the content of its member. A pax header or a
GNU long name is an extra header in front of the header of a member, with values that do not fit
into it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from private_pypi.errors import InvalidUpload

_BLOCK = 512
_CHUNK = 2**20
_PACKED_CHUNK = 2**16
# Bytes that are unpacked at a time: first few, because what is sought is often at the beginning.
_FIRST_CHUNK = 2**12
_LARGEST_CHUNK = 2**18
_MAX_HEADERS = 600_000  # headers of members and of extensions; each takes time to read
_MAX_EXTENSION = 2**20  # bytes of a pax header or a GNU long name
_MAX_RECORDS = 1_000_000  # values in all pax headers together; reading them takes a second or two
_LARGEST_OCTAL = 8**11 - 1  # bytes; the largest size that fits into the digits of a header

_KINDS: dict[bytes, Literal["file", "folder", "hard link", "symbolic link"]] = {
    b"0": "file",
    b"\0": "file",
    b"1": "hard link",
    b"2": "symbolic link",
    b"5": "folder",
}
_OCTAL = re.compile(rb" *([0-7]*) *(?:\0.*)?", re.DOTALL)
_PAX_RECORD = re.compile(rb"([1-9][0-9]{0,8}) ")
# Where a header has the mode, owner, group, time and the two device numbers.
_NUMBERS = [slice(100, 108), slice(108, 116), slice(116, 124), slice(136, 148), slice(329, 337),
            slice(337, 345)]  # fmt: skip
_UTF8_NAMES = ("ISO-IR 10646 2000 UTF-8", "UTF-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """A member as described by its header and the extensions in front of it."""

    name: str  # without a leading "./", and for a folder without trailing slashes
    kind: Literal["file", "folder", "hard link", "symbolic link"]
    size: int  # bytes
    target: str  # of a link, as written


class Gunzip:
    """Unpacks a gzip file, and verifies its checksum and length at its end.

    A gzip file may consist of several streams in general, but here it must be a single one. Zeros
    may follow it: some tools add them to fill a block, and all programs ignore them. Raises
    `InvalidUpload` if the file is damaged or unpacks to more than `limit` bytes.
    """

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._limit = limit
        self._left = limit
        self._unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._chunk = memoryview(b"")
        self._most = _FIRST_CHUNK

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        if size <= len(self._chunk):  # as nearly always
            some = bytes(self._chunk[:size])
            self._chunk = self._chunk[size:]
            return some
        found = []
        while size and (self._chunk or self._fill()):
            found.append(bytes(self._chunk[:size]))
            self._chunk = self._chunk[size:]
            size -= len(found[-1])
        return b"".join(found)

    def skip(self, size: int) -> int:
        """Skip `size` bytes; return how many of them did not exist."""
        while size and (self._chunk or self._fill()):
            step = min(size, len(self._chunk))
            self._chunk = self._chunk[step:]
            size -= step
        return size

    def _fill(self) -> bool:
        """Unpack another chunk; False at the end, after which there may only be zeros."""
        while not self._unpacker.eof:
            data = self._unpacker.unconsumed_tail or self._file.read(_PACKED_CHUNK)
            if not data:
                raise InvalidUpload("the gzip file is incomplete")
            try:
                unpacked = self._unpacker.decompress(data, self._most)
            except zlib.error as error:
                raise InvalidUpload(f"the gzip file is damaged: {error}") from error
            self._most = min(_LARGEST_CHUNK, 8 * self._most)
            self._left -= len(unpacked)
            if self._left < 0:
                raise InvalidUpload(
                    f"it unpacks to more than {self._limit} bytes, which is the limit for its size"
                )
            if unpacked:
                self._chunk = memoryview(unpacked)
                return True
        rest = self._unpacker.unused_data
        while rest or (rest := self._file.read(_PACKED_CHUNK)):
            if rest.count(0) != len(rest):
                raise InvalidUpload("there is data after the end of the gzip file")
            rest = b""
        return False


class Content:
    """The content of one member, in chunks."""

    def __init__(self, stream: Gunzip, size: int) -> None:
        self._stream = stream
        self.left = size  # bytes that have not been read yet

    def __iter__(self) -> Iterator[bytes]:
        while self.left and (chunk := self._stream.read(min(self.left, _CHUNK))):
            self.left -= len(chunk)
            yield chunk


def read_members(stream: Gunzip) -> Iterator[tuple[TarMember, Content]]:
    """The members in the order of the file, which is read to its end; raises `InvalidUpload`.

    The content of a member can only be read until the next member is requested. What has not been
    read by then is skipped.
    """
    extensions = _Extensions()
    headers = records = 0
    while block := stream.read(_BLOCK):
        headers += 1
        if headers > _MAX_HEADERS:
            raise InvalidUpload(
                f"the tar file has more than {_MAX_HEADERS} headers, which is the limit"
            )
        if len(block) < _BLOCK:
            raise InvalidUpload("the tar file is incomplete")
        if not any(block):
            _only_zeros(stream)
            break
        if not is_header(block):
            raise InvalidUpload("the tar file is damaged: a header has a wrong checksum")
        _check_numbers(block)
        kind = block[156:157]
        if kind in (b"x", b"g", b"L", b"K"):
            records += extensions.add(kind, _read_extension(stream, _number(block[124:136])))
            if records > _MAX_RECORDS:
                raise InvalidUpload(
                    f"the pax headers of the tar file have more than {_MAX_RECORDS} records, "
                    "which is the limit"
                )
            continue
        member = _read_header(block, extensions)
        extensions = _Extensions()
        content = Content(stream, member.size)
        if member.name != "." or member.kind != "folder":  # "." is where it is unpacked
            yield member, content
        if stream.skip(content.left + -member.size % _BLOCK):
            raise InvalidUpload(f"the tar file is incomplete: it ends inside {member.name!r}")
    if extensions:
        raise InvalidUpload("the tar file is incomplete: it ends with a pax header or a long name")


def is_header(block: bytes) -> bool:
    """Whether 512 bytes have the checksum of a tar header."""
    match = _OCTAL.fullmatch(block[148:156])
    if len(block) != _BLOCK or match is None:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    checksum = int(match[1] or b"0", 8)
    # Some old tools computed it with signed bytes.
    return checksum == sum(rest) or checksum == sum(memoryview(rest).cast("b"))


def _only_zeros(stream: Gunzip) -> None:
    while chunk := stream.read(_CHUNK):
        if chunk.count(0) != len(chunk):
            raise InvalidUpload("there is data after the end of the tar file")


# -- headers -------------------------------------------------------------------------------------


class _Extensions:
    """What pax headers and GNU long names say about the member that follows them."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._found = False

    def __bool__(self) -> bool:
        return self._found

    def get(self, key: Literal["path", "linkpath", "size"]) -> str | None:
        return self._values.get(key)

    def add(self, kind: bytes, content: bytes) -> int:
        """Read one more extension; return how many records it has."""
        records = 1
        if kind == b"g":
            values, records = _read_pax(content)
            if values:
                raise InvalidUpload(
                    f"a global pax header gives all members the same {min(values)!r}; "
                    "each member must have its own"
                )
            return records
        self._found = True
        if kind == b"x":
            values, records = _read_pax(content)
        else:
            name = content.partition(b"\0")[0]
            values = {"path" if kind == b"L" else "linkpath": _text(name)}
        # Programs do not agree which of two values counts, or what an empty one means.
        for key, value in values.items():
            if key in self._values:
                raise InvalidUpload(f"the tar file gives {key!r} twice for one member")
            if not value:
                raise InvalidUpload(f"the tar file gives an empty {key!r} for a member")
        self._values |= values
        return records


def _read_extension(stream: Gunzip, size: int) -> bytes:
    if size > _MAX_EXTENSION:
        raise InvalidUpload(
            f"the tar file has a pax header or a long name of {size} bytes; "
            f"at most {_MAX_EXTENSION} are accepted"
        )
    content = stream.read(size)
    padding = stream.read(-size % _BLOCK)
    if (len(content) + len(padding)) % _BLOCK or len(content) < size:
        raise InvalidUpload("the tar file is incomplete: it ends in a pax header or a long name")
    if any(padding):  # some programs take it for a part of the name
        raise InvalidUpload(
            "the tar file is damaged: a pax header or a long name is not followed by zeros"
        )
    return content


def _read_pax(content: bytes) -> tuple[dict[str, str], int]:
    """The path, link target and size in a pax header, and the number of all its records.

    A record has the form `<length> <key>=<value>` with a line end. Records that make no difference
    here, such as times, are skipped.
    """
    values: dict[str, str] = {}
    records = 0
    at = 0
    while at < len(content):
        records += 1
        match = _PAX_RECORD.match(content, at)
        end = at + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(content) or content[end - 1] != 0x0A:
            raise InvalidUpload("the tar file is damaged: a pax header cannot be read")
        raw_key, equals, raw_value = content[match.end() : end - 1].partition(b"=")
        at = end
        if not equals:
            raise InvalidUpload("the tar file is damaged: a pax header cannot be read")
        if raw_key in (b"path", b"linkpath", b"size"):
            if raw_key.decode() in values:
                raise InvalidUpload(f"a pax header gives {raw_key.decode()!r} twice")
            values[raw_key.decode()] = _text(raw_value)
        elif raw_key.startswith(b"GNU.sparse."):
            raise InvalidUpload("the tar file has a sparse member; pack it without --sparse")
        elif raw_key == b"hdrcharset" and _text(raw_value) not in _UTF8_NAMES:
            raise InvalidUpload(
                "the tar file has member names in another encoding; they must be UTF-8"
            )
    return values, records


def _read_header(block: bytes, extensions: _Extensions) -> TarMember:
    kind = _KINDS.get(block[156:157])
    if block[156:157] == b"\0" and block[:100].partition(b"\0")[0].endswith(b"/"):
        kind = "folder"  # the v7 format has no type for folders
    # If there is an extension, the name in the header is cut off, perhaps inside a character.
    name = extensions.get("path") or _name(block)
    if kind is None:
        what = "sparse" if block[156:157] == b"S" else f"of type {block[156:157]!r}"
        raise InvalidUpload(
            f"{name!r} is {what}; only files, folders and links are accepted in an sdist"
        )
    size = _number(block[124:136])
    said = extensions.get("size")
    if said is not None:
        if not re.fullmatch("[0-9]{1,15}", said):
            raise InvalidUpload(f"{name!r} has the size {said[:100]!r}; it must be a number")
        if int(said) != size and int(said) <= _LARGEST_OCTAL:
            raise InvalidUpload(
                f"{name!r} has the size {size} in its header and {said} in its pax header; "
                "both must be the same"
            )
        size = int(said)
    if kind != "file" and size:
        raise InvalidUpload(f"{name!r} is a {kind}, but has {size} bytes of content")
    if kind == "folder":
        name = name.rstrip("/")
    return TarMember(
        name=name.removeprefix("./"),
        kind=kind,
        size=size,
        target=extensions.get("linkpath") or _text(block[157:257].partition(b"\0")[0]),
    )


def _name(block: bytes) -> str:
    name = _text(block[:100].partition(b"\0")[0])
    prefix = _text(block[345:500].partition(b"\0")[0])
    if not prefix:
        return name
    if block[257:263] != b"ustar\0":
        raise InvalidUpload(f"{name!r} has a prefix, which only the ustar format may have")
    return f"{prefix}/{name}"


def _check_numbers(block: bytes) -> None:
    """Check the numbers that are not used here; some programs fail if they are wrong."""
    for field in _NUMBERS:
        if block[field.start] not in (0x80, 0xFF) and not _OCTAL.fullmatch(block[field]):
            raise InvalidUpload(
                f"the tar file is damaged: a header has {block[field]!r} instead of a number"
            )


def _number(field: bytes) -> int:
    """A number in octal digits, or in binary after a byte 0x80 (GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise InvalidUpload(f"the tar file is damaged: a header has {field!r} instead of a size")
    return int(match[1] or b"0", 8)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidUpload(f"the member name {raw[:100]!r} is not UTF-8; it must be") from error
