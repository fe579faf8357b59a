"""The members of a zip file, for archives that have one reading only; not a general zip reader.

Clients read zip files in different ways: from the central directory at the end, or from the local
headers as they stream by; with or without the zip64 and unicode extras. A file that two of them
would see differently is refused here. Section numbers are those of PKWARE's APPNOTE.TXT 6.3.10.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from private_pypi.errors import InvalidUpload

MAX_MEMBERS: Final = 200_000
_MAX_DIRECTORY = 64 * 2**20  # bytes; it is held in memory
_CHUNK = 2**20

_LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # 4.3.12
_END = struct.Struct("<4s4H2LH")  # 4.3.16
_END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_LOCATOR64 = struct.Struct("<4sLQL")  # 4.3.15
_EXTRA = struct.Struct("<2H")  # 4.5.1

# General purpose flags (4.4.4).
_DESCRIPTOR = 0x8
_UTF8 = 0x800
_UNREADABLE = 0x1 | 0x20 | 0x40 | 0x2000  # encrypted, patched, strongly encrypted, masked

_NEWEST = 63  # ten times the version of the format (4.4.3)
_ZIP64_EXTRA = 0x0001  # 4.5.3
_UNICODE_PATH_EXTRA = 0x7075  # 4.6.9
_UNSET16 = 0xFFFF
_UNSET32 = 0xFFFFFFFF

_SEVERAL = "the zip file is one part of several"

STORED: Final = 0
DEFLATED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipMember:
    """A member as both of its headers describe it."""

    name: str  # as written; that of a folder ends with "/"
    method: int  # STORED or DEFLATED
    crc: int
    size: int  # bytes, unpacked
    packed_size: int  # bytes
    start: int  # where the packed data begins

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


def read_members(file: BinaryIO, size: int) -> list[ZipMember]:
    """The members in the order of the file; every byte of it belongs to one of them.

    `size` is that of the file, in bytes. Raises `InvalidUpload`; reads no content.
    """
    start, length, count = _find_directory(file, size)
    entries = _read_directory(_read(file, start, length))
    if len(entries) != count:
        raise InvalidUpload(
            f"the zip file has {len(entries)} members in its central directory, "
            f"but {count} by its end record"
        )
    entries.sort(key=lambda entry: entry.offset)
    # Each ends where the next begins, and the last where the central directory does.
    borders = [*(entry.offset for entry in entries), start]
    if borders[0] != 0:
        raise InvalidUpload(_not_adjacent(borders[0], 0))
    return [_locate(file, entry, end) for entry, end in zip(entries, borders[1:], strict=True)]


def unpack(file: BinaryIO, member: ZipMember) -> Iterator[bytes]:
    """The content in chunks; raises `InvalidUpload` unless size and checksum are right."""
    file.seek(member.start)
    packed = _packed(file, member)
    crc = 0
    left = member.size
    for chunk in packed if member.method == STORED else _inflate(packed, member):
        crc = zlib.crc32(chunk, crc)
        left -= len(chunk)
        yield chunk
    if left or crc != member.crc:
        raise InvalidUpload(f"{member.name!r} is damaged: its size or checksum is wrong")


# -- the end and the central directory -----------------------------------------------------------


def _find_directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Where the central directory starts, its length in bytes, and how many members it has."""
    tail = _read(file, max(0, size - _END.size - _UNSET16), min(size, _END.size + _UNSET16))
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise InvalidUpload("it is no zip file, or cut off: the end record is missing")
    _, disk, first_disk, here, count, length, start, comment = _END.unpack_from(tail, at)
    if len(tail) - at != _END.size + comment:
        raise InvalidUpload("there is data behind the end of the zip file")
    end = size - len(tail) + at
    short = (disk, first_disk, here, count, length, start)
    whole = _read_end64(file, end)
    if whole is not None:
        end -= _LOCATOR64.size + _END64.size
        unset = (_UNSET16, _UNSET16, _UNSET16, _UNSET16, _UNSET32, _UNSET32)
        if any(s not in (w, u) for s, w, u in zip(short, whole, unset, strict=True)):
            raise InvalidUpload("the two end records of the zip file (zip64) disagree")
        disk, first_disk, here, count, length, start = whole
    if disk or first_disk or here != count:
        raise InvalidUpload(_SEVERAL)
    if start + length != end:
        raise InvalidUpload(
            "the zip file has data before its beginning or after its central directory"
        )
    if count > MAX_MEMBERS or length > _MAX_DIRECTORY:
        raise InvalidUpload(
            f"the zip file has {count} members in a directory of {length} bytes; "
            f"at most {MAX_MEMBERS} in {_MAX_DIRECTORY} can be taken"
        )
    return start, length, count


def _read_end64(file: BinaryIO, end: int) -> tuple[int, ...] | None:
    """The fields of the zip64 end record before `end`, in the order of the short one's."""
    at = end - _LOCATOR64.size - _END64.size
    if at < 0:
        return None
    data = _read(file, at, _END64.size + _LOCATOR64.size)
    locator, disk, place, disks = _LOCATOR64.unpack_from(data, _END64.size)
    if locator != b"PK\x06\x07":
        return None
    signature, record_size, _, _, *fields = _END64.unpack_from(data)
    # What is longer has private data; 0 disks is what some writers call one.
    if (signature, record_size) != (b"PK\x06\x06", _END64.size - 12) or place != at:
        raise InvalidUpload("the zip64 end record of the zip file is damaged")
    if disk or disks > 1:
        raise InvalidUpload(_SEVERAL)
    return tuple(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A member as the central directory describes it."""

    raw_name: bytes
    name: str
    flags: int
    method: int
    crc: int
    size: int
    packed_size: int
    offset: int  # of its local header


def _read_directory(data: bytes) -> list[_Entry]:
    entries = []
    at = 0
    while at < len(data):
        if len(data) - at < _CENTRAL.size or data[at : at + 4] != b"PK\x01\x02":
            raise InvalidUpload("the central directory of the zip file is damaged")
        (_, _, needed, flags, method, _, _, crc, packed, size, name_size, extra_size,
         comment_size, disk, _, attributes, offset) = _CENTRAL.unpack_from(data, at)  # fmt: skip
        name_at = at + _CENTRAL.size
        extra_at = name_at + name_size
        at = extra_at + extra_size + comment_size
        if at > len(data):
            raise InvalidUpload("the central directory of the zip file is damaged")
        raw_name = data[name_at:extra_at]
        name = _decode(raw_name, flags)
        extra = _read_extra(data[extra_at : extra_at + extra_size], name)
        size, packed, offset = _with_zip64(extra, name, size, packed, offset)
        _check_version(name, needed)
        if disk:
            raise InvalidUpload(_SEVERAL)
        if stat.S_IFMT(attributes >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InvalidUpload(
                f"{name!r} is a link or a device; a zip file may only have files and folders"
            )
        if name.endswith("/") and size:
            raise InvalidUpload(f"{name!r} is a folder, but has {size} bytes of content")
        entries.append(
            _Entry(
                raw_name=raw_name,
                name=name,
                flags=flags,
                method=method,
                crc=crc,
                size=size,
                packed_size=packed,
                offset=offset,
            )
        )
    return entries


def _check_version(name: str, needed: int) -> None:
    version = needed & 0xFF  # the other byte is of the system that wrote it
    if version > _NEWEST:
        raise InvalidUpload(
            f"{name!r} needs version {version / 10} of the zip format; {_NEWEST / 10} is known"
        )


def _decode(raw: bytes, flags: int) -> str:
    try:
        return raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise InvalidUpload(f"the member name {raw[:100]!r} is not UTF-8, as it claims") from error


def _read_extra(data: bytes, name: str) -> bytes:
    """The zip64 extra of a member; empty when it has none."""
    zip64 = b""
    seen: set[int] = set()
    at = 0
    while len(data) - at >= _EXTRA.size:  # fewer bytes are padding
        kind, size = _EXTRA.unpack_from(data, at)
        value = data[at + _EXTRA.size : at + _EXTRA.size + size]
        at += _EXTRA.size + size
        if at > len(data):
            raise InvalidUpload(f"the extra fields of {name!r} are damaged")
        if kind not in (_ZIP64_EXTRA, _UNICODE_PATH_EXTRA):
            continue
        if kind in seen:
            raise InvalidUpload(f"{name!r} has an extra field twice")
        seen.add(kind)
        if kind == _ZIP64_EXTRA:
            zip64 = value
        elif value[5:] != name.encode():
            raise InvalidUpload(f"{name!r} has a second name (Info-ZIP unicode path)")
    return zip64


def _with_zip64(zip64: bytes, name: str, *short: int) -> tuple[int, ...]:
    """Sizes and offset, those that do not fit into 32 bits from the zip64 extra, in its order."""
    wanted = short.count(_UNSET32)
    if len(zip64) < 8 * wanted:
        raise InvalidUpload(f"{name!r} lacks its zip64 sizes")
    longs = iter(struct.unpack_from(f"<{wanted}Q", zip64))
    return tuple(next(longs) if value == _UNSET32 else value for value in short)


# -- the members ---------------------------------------------------------------------------------


def _locate(file: BinaryIO, entry: _Entry, following: int) -> ZipMember:
    """The member of an entry: its local header says the same, and it ends at `following`."""
    head = _read(file, entry.offset, _LOCAL.size)
    (signature, needed, flags, method, _, _, crc, packed, size, name_size, extra_size) = (
        _LOCAL.unpack(head)
    )
    if signature != b"PK\x03\x04":
        raise InvalidUpload(f"{entry.name!r} has no header where the zip file says")
    rest = file.read(name_size + extra_size)
    raw_name, raw_extra = rest[:name_size], rest[name_size:]
    if raw_name != entry.raw_name or _decode(raw_name, flags) != entry.name:
        raise InvalidUpload(
            f"{entry.name!r} has another name in its header: {_decode(raw_name, flags)[:100]!r}"
        )
    _check_version(entry.name, needed)
    if (flags | entry.flags) & _UNREADABLE:
        raise InvalidUpload(f"{entry.name!r} is encrypted; upload it in plain")
    if method != entry.method or method not in (STORED, DEFLATED):
        methods = " and ".join(str(found) for found in sorted({method, entry.method}))
        raise InvalidUpload(
            f"{entry.name!r} must be stored or deflated, not compressed by method {methods}"
        )
    zip64 = _read_extra(raw_extra, entry.name)
    facts = (entry.crc, entry.size, entry.packed_size)
    said = (crc, *_with_zip64(zip64, entry.name, size, packed))
    # What was unknown when the header was written is zero in it, and follows in a descriptor.
    unknown = facts if not flags & _DESCRIPTOR else (0, 0, 0)
    if any(s not in (f, u) for s, f, u in zip(said, facts, unknown, strict=True)):
        raise InvalidUpload(f"{entry.name!r} has another size or checksum in its header")
    start = entry.offset + _LOCAL.size + name_size + extra_size
    end = start + entry.packed_size
    if end > following:
        raise InvalidUpload(_not_adjacent(following, end))
    if flags & _DESCRIPTOR:
        if _read(file, end, min(following - end, 25)) not in _descriptors(facts):
            raise InvalidUpload(f"{entry.name!r} has no data descriptor that agrees with it")
    elif end != following:
        raise InvalidUpload(_not_adjacent(following, end))
    return ZipMember(
        name=entry.name,
        method=method,
        crc=entry.crc,
        size=entry.size,
        packed_size=entry.packed_size,
        start=start,
    )


def _descriptors(facts: tuple[int, int, int]) -> Iterable[bytes]:
    """All spellings of a data descriptor (4.3.9): with and without signature, 32 and 64 bits."""
    crc, size, packed = facts
    spellings = [struct.pack("<LQQ", crc, packed, size)]
    if max(size, packed) <= _UNSET32:
        spellings.append(struct.pack("<LLL", crc, packed, size))
    return [*spellings, *(b"PK\x07\x08" + spelling for spelling in spellings)]


def _not_adjacent(at: int, end: int) -> str:
    if at < end:
        return f"the members of the zip file overlap at byte {at}"
    return f"bytes {end} to {at} of the zip file belong to none of its members"


# -- bytes ---------------------------------------------------------------------------------------


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) != size:
        raise InvalidUpload("the zip file points behind its own end")
    return data


def _packed(file: BinaryIO, member: ZipMember) -> Iterator[bytes]:
    left = member.packed_size
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise InvalidUpload(f"{member.name!r} is cut off")
        left -= len(chunk)
        yield chunk


def _inflate(packed: Iterable[bytes], member: ZipMember) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    left = member.size
    try:
        for chunk in packed:
            data = chunk
            while data:
                # One byte more than was declared is enough to see that there is more.
                unpacked = unpacker.decompress(data, min(left + 1, _CHUNK))
                left -= len(unpacked)
                if left < 0:
                    raise InvalidUpload(f"{member.name!r} is larger than the zip file says")
                yield unpacked
                data = unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error as error:
        raise InvalidUpload(f"{member.name!r} is damaged: {error}") from error
    if not unpacker.eof:
        raise InvalidUpload(f"{member.name!r} is cut off")
    if unpacker.unused_data:
        raise InvalidUpload(f"{member.name!r} has data behind its end")
