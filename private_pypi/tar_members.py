"""The members of a gzipped tar file, for archives that have one reading only; not a tar library.

Tar readers differ in which extensions they know and in what they do with contradictions; such files
are refused here. Formats: ustar and pax (POSIX.1-2017, `pax`), GNU long names, and the older v7.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from private_pypi.errors import InvalidUpload

_BLOCK = 512
_CHUNK = 2**20
_PACKED_CHUNK = 2**16
_MAX_EXTENSION = 2**20  # bytes of a pax header or a GNU long name
_LARGEST_OCTAL = 8**11 - 1  # bytes; the largest size that a header can say in digits

_KINDS: dict[bytes, Literal["file", "folder", "hard link", "symbolic link"]] = {
    b"0": "file",
    b"\0": "file",
    b"1": "hard link",
    b"2": "symbolic link",
    b"5": "folder",
}
_OCTAL = re.compile(rb" *([0-7]*) *(?:\0.*)?", re.DOTALL)
_PAX_RECORD = re.compile(rb"([1-9][0-9]{0,8}) ")
# Mode, owner, group, time, and both numbers of a device.
_NUMBERS = [slice(100, 108), slice(108, 116), slice(116, 124), slice(136, 148), slice(329, 337),
            slice(337, 345)]  # fmt: skip
_UTF8_NAMES = ("ISO-IR 10646 2000 UTF-8", "UTF-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """A member as its header and the extensions before it describe it."""

    name: str  # without "./" before and "/" behind it
    kind: Literal["file", "folder", "hard link", "symbolic link"]
    size: int  # bytes
    target: str  # of a link, as written


class Gunzip:
    """Reads the single member of a gzip file; checksum and length are verified at its end.

    Raises `InvalidUpload` when it is damaged or unpacks to more than `limit` bytes.
    """

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._limit = limit
        self._left = limit
        self._unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._chunk = memoryview(b"")

    def read(self, size: int) -> bytes:
        """The next bytes: `size` of them, fewer only at the end."""
        found = []
        while size and (self._chunk or self._fill()):
            found.append(bytes(self._chunk[:size]))
            self._chunk = self._chunk[size:]
            size -= len(found[-1])
        return b"".join(found)

    def skip(self, size: int) -> int:
        """Pass over `size` bytes; returns how many of them were not there."""
        while size and (self._chunk or self._fill()):
            step = min(size, len(self._chunk))
            self._chunk = self._chunk[step:]
            size -= step
        return size

    def _fill(self) -> bool:
        """Unpack another chunk; False at the end, behind which nothing may follow."""
        while not self._unpacker.eof:
            data = self._unpacker.unconsumed_tail or self._file.read(_PACKED_CHUNK)
            if not data:
                raise InvalidUpload("the gzip file is cut off")
            try:
                unpacked = self._unpacker.decompress(data, _CHUNK)
            except zlib.error as error:
                raise InvalidUpload(f"the gzip file is damaged: {error}") from error
            self._left -= len(unpacked)
            if self._left < 0:
                raise InvalidUpload(
                    f"it unpacks to more than {self._limit} bytes, far more than its own size"
                )
            if unpacked:
                self._chunk = memoryview(unpacked)
                return True
        if self._unpacker.unused_data or self._file.read(1):
            raise InvalidUpload("there is data behind the end of the gzip file")
        return False


def read_members(
    stream: Gunzip, keep: Callable[[TarMember], bool]
) -> Iterator[tuple[TarMember, bytes]]:
    """The members in the order of the file, read to its end.

    The content is empty but for those that `keep` wants. Raises `InvalidUpload`.
    """
    extensions = _Extensions()
    while block := stream.read(_BLOCK):
        if len(block) < _BLOCK:
            raise InvalidUpload("the tar file is cut off")
        if not any(block):
            _only_zeros(stream)
            break
        if not is_header(block):
            raise InvalidUpload("the tar file is damaged: a header has a wrong checksum")
        _check_numbers(block)
        kind = block[156:157]
        if kind in (b"x", b"g", b"L", b"K"):
            extensions.add(kind, _read_extension(stream, _number(block[124:136])))
            continue
        member = _read_header(block, extensions)
        extensions = _Extensions()
        padding = -member.size % _BLOCK
        content = b""
        if keep(member):
            content = stream.read(member.size)
            missing = member.size - len(content) + stream.skip(padding)
        else:
            missing = stream.skip(member.size + padding)
        if missing:
            raise InvalidUpload(f"the tar file is cut off in {member.name!r}")
        if member.name != "." or member.kind != "folder":  # the one that is unpacked into
            yield member, content
    if extensions:
        raise InvalidUpload("the tar file is cut off: it ends with a pax header or a long name")


def is_header(block: bytes) -> bool:
    """Whether 512 bytes have the checksum of a tar header."""
    match = _OCTAL.fullmatch(block[148:156])
    if len(block) != _BLOCK or match is None:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    checksum = int(match[1] or b"0", 8)
    # Some old writers took bytes for signed numbers.
    return checksum == sum(rest) or checksum == sum(memoryview(rest).cast("b"))


def _only_zeros(stream: Gunzip) -> None:
    while chunk := stream.read(_CHUNK):
        if chunk.count(0) != len(chunk):
            raise InvalidUpload("there is data behind the end of the tar file")


# -- headers -------------------------------------------------------------------------------------


class _Extensions:
    """What pax headers and GNU long names say of the member that follows them."""

    def __init__(self) -> None:
        self._facts: dict[str, str] = {}
        self._met = False

    def __bool__(self) -> bool:
        return self._met

    def get(self, key: Literal["path", "linkpath", "size"]) -> str | None:
        return self._facts.get(key)

    def add(self, kind: bytes, content: bytes) -> None:
        if kind == b"g":
            facts = _read_pax(content)
            if facts:
                raise InvalidUpload(f"a global pax header gives {min(facts)!r} to all members")
            return
        self._met = True
        if kind == b"x":
            facts = _read_pax(content)
        else:
            name = content.partition(b"\0")[0]
            facts = {"path" if kind == b"L" else "linkpath": _text(name)}
        # Readers do not agree which of two counts, or what an empty one means.
        for key, value in facts.items():
            if key in self._facts:
                raise InvalidUpload(f"the tar file gives {key!r} twice for one member")
            if not value:
                raise InvalidUpload(f"the tar file gives an empty {key!r} for a member")
        self._facts |= facts


def _read_extension(stream: Gunzip, size: int) -> bytes:
    if size > _MAX_EXTENSION:
        raise InvalidUpload(
            f"the tar file has a pax header or a long name of {size} bytes; "
            f"at most {_MAX_EXTENSION} can be taken"
        )
    content = stream.read(size)
    padding = stream.read(-size % _BLOCK)
    if (len(content) + len(padding)) % _BLOCK or len(content) < size:
        raise InvalidUpload("the tar file is cut off in a pax header or a long name")
    if any(padding):  # some readers take it for more of the name
        raise InvalidUpload("the tar file is damaged: a pax header or a long name does not end")
    return content


def _read_pax(content: bytes) -> dict[str, str]:
    """Those records of a pax header that say where a member is and how long."""
    facts: dict[str, str] = {}
    at = 0
    while at < len(content):
        match = _PAX_RECORD.match(content, at)
        end = at + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(content) or content[end - 1] != 0x0A:
            raise InvalidUpload("the tar file is damaged: a pax header cannot be read")
        raw_key, equals, raw_value = content[match.end() : end - 1].partition(b"=")
        at = end
        if not equals:
            raise InvalidUpload("the tar file is damaged: a pax header cannot be read")
        if raw_key in (b"path", b"linkpath", b"size"):
            if raw_key.decode() in facts:
                raise InvalidUpload(f"a pax header gives {raw_key.decode()!r} twice")
            facts[raw_key.decode()] = _text(raw_value)
        elif raw_key.startswith(b"GNU.sparse."):
            raise InvalidUpload("the tar file has a sparse member; pack it without --sparse")
        elif raw_key == b"hdrcharset" and _text(raw_value) not in _UTF8_NAMES:
            raise InvalidUpload("the tar file has member names that are not UTF-8")
    return facts


def _read_header(block: bytes, extensions: _Extensions) -> TarMember:
    kind = _KINDS.get(block[156:157])
    if block[156:157] == b"\0" and block[:100].partition(b"\0")[0].endswith(b"/"):
        kind = "folder"  # v7 had no type for it
    # What the header says beside an extension is cut off, maybe within a character.
    name = extensions.get("path") or _name(block)
    if kind is None:
        what = "sparse" if block[156:157] == b"S" else f"of type {block[156:157]!r}"
        raise InvalidUpload(
            f"{name!r} is {what}; an sdist may only have files, folders and links between them"
        )
    size = _number(block[124:136])
    said = extensions.get("size")
    if said is not None:
        if not re.fullmatch("[0-9]{1,15}", said):
            raise InvalidUpload(f"{name!r} has the size {said[:100]!r}, which is none")
        if int(said) != size and int(said) <= _LARGEST_OCTAL:
            raise InvalidUpload(f"{name!r} has {size} bytes, and {said} in its pax header")
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
        raise InvalidUpload(f"{name!r} has a prefix, which its tar format does not know")
    return f"{prefix}/{name}"


def _check_numbers(block: bytes) -> None:
    """Those that are of no use here: some readers refuse a header with a number that is none."""
    for field in _NUMBERS:
        if block[field.start] not in (0x80, 0xFF) and not _OCTAL.fullmatch(block[field]):
            raise InvalidUpload(
                f"the tar file is damaged: a header has the number {block[field]!r}"
            )


def _number(field: bytes) -> int:
    """Octal digits, or base 256 after a byte of 0x80 (GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise InvalidUpload(f"the tar file is damaged: a member has the size {field!r}")
    return int(match[1] or b"0", 8)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidUpload(f"the member name {raw[:100]!r} is not UTF-8") from error
