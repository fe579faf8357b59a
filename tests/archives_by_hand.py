"""Zip and tar files made byte by byte, so that each can have just the one fault it is made for."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

UNSET = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class Zipped:
    """A member of a zip file; `local` and `central` override fields of its two headers.

    The fields are `name`, `needed`, `flags`, `method`, `crc`, `packed`, `size`, `extra`, and of the
    central header also `comment`, `disk`, `attributes` and `offset`.
    """

    name: bytes
    content: bytes = b""
    method: int = 8
    flags: int = 0
    packed: bytes | None = None
    descriptor: bytes = b""
    before: bytes = b""  # what lies in front of the local header
    local: Mapping[str, int | bytes] = field(default_factory=dict)
    central: Mapping[str, int | bytes] = field(default_factory=dict)


def deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def make_zip(
    members: Iterable[Zipped],
    *,
    before_directory: bytes = b"",
    before_end: bytes = b"",
    comment: bytes = b"",
    zip64: Mapping[str, int] | None = None,
    **end: int,
) -> bytes:
    """A zip file. `end` overrides fields of its end record (`disk`, `first_disk`, `here`, `count`,
    `length`, `start`, `comment_size`); `zip64` asks for the zip64 records and overrides fields of
    theirs (also `record_size`, `place`, `disks`, `locator_disk`)."""
    body = b""
    directory = b""
    count = 0
    for member in members:
        body += member.before
        header, entry = _headers(member, len(body))
        body += header
        directory += entry
        count += 1
    body += before_directory
    facts: dict[str, int] = {
        "disk": 0,
        "first_disk": 0,
        "here": count,
        "count": count,
        "length": len(directory),
        "start": len(body),
    }
    names = ("disk", "first_disk", "here", "count", "length", "start")
    result = body + directory + before_end
    if zip64 is not None:
        long = {"record_size": 44, "place": len(result), "disks": 1} | facts | dict(zip64)
        record = struct.pack("<4sQ2H", b"PK\x06\x06", long["record_size"], 45, 45)
        record += struct.pack("<2L4Q", *(long[name] for name in names))
        locator = (long.get("locator_disk", 0), long["place"], long["disks"])
        result += record + struct.pack("<4sLQL", b"PK\x06\x07", *locator)
    short = facts | {"comment_size": len(comment)} | end
    fields = [short[name] for name in (*names, "comment_size")]
    return result + struct.pack("<4s4H2LH", b"PK\x05\x06", *fields) + comment


def _headers(member: Zipped, offset: int) -> tuple[bytes, bytes]:
    packed = member.packed
    if packed is None:
        packed = deflate(member.content) if member.method == 8 else member.content
    facts: dict[str, int | bytes] = {
        "name": member.name,
        "needed": 20,
        "flags": member.flags,
        "method": member.method,
        "crc": zlib.crc32(member.content),
        "packed": len(packed),
        "size": len(member.content),
        "extra": b"",
        "comment": b"",
        "disk": 0,
        "attributes": 0o100644 << 16,
        "offset": offset,
    }
    there = facts | dict(member.local)
    here = facts | dict(member.central)
    local = struct.pack(
        "<4s5H3L2H", b"PK\x03\x04", there["needed"], there["flags"], there["method"], 0, 33,
        there["crc"], there["packed"], there["size"],
        _length(there, "name"), _length(there, "extra"),
    )  # fmt: skip
    central = struct.pack(
        "<4s6H3L5H2L", b"PK\x01\x02", 20, here["needed"], here["flags"], here["method"], 0, 33,
        here["crc"], here["packed"], here["size"], _length(here, "name"), _length(here, "extra"),
        _length(here, "comment"), here["disk"], 0, here["attributes"], here["offset"],
    )  # fmt: skip
    local += _bytes(there, "name", "extra") + packed + member.descriptor
    return local, central + _bytes(here, "name", "extra", "comment")


def _bytes(facts: Mapping[str, int | bytes], *names: str) -> bytes:
    found = [facts[name] for name in names]
    return b"".join(part for part in found if isinstance(part, bytes))


def _length(facts: Mapping[str, int | bytes], name: str) -> int:
    return len(_bytes(facts, name))


def extra(kind: int, value: bytes) -> bytes:
    return struct.pack("<2H", kind, len(value)) + value


def wheel_members(
    files: Mapping[str, bytes] | None = None, **changes: bytes | None
) -> list[Zipped]:
    """What `demo-1.0-py3-none-any.whl` has; a change replaces METADATA, WHEEL, RECORD or
    entry_points (None leaves it out)."""
    facts: dict[str, bytes | None] = {
        "METADATA": b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
        "WHEEL": b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": b"",
    }
    facts |= {key.replace("entry_points", "entry_points.txt"): v for key, v in changes.items()}
    members = dict(files if files is not None else {"demo.py": b"version = '1.0'\n" * 9})
    members |= {f"demo-1.0.dist-info/{key}": v for key, v in facts.items() if v is not None}
    if facts["RECORD"] == b"":
        rows = [f"{name},,{len(content)}\n" for name, content in members.items() if content]
        members["demo-1.0.dist-info/RECORD"] = "".join(
            [*rows, "demo-1.0.dist-info/RECORD,,\n"]
        ).encode()
    return [Zipped(name=name.encode(), content=content) for name, content in members.items()]


def with_first(members: Sequence[Zipped], **changes: object) -> list[Zipped]:
    """The members, the first of them changed."""
    return [replace(members[0], **changes), *members[1:]]  # type: ignore[arg-type]


# -- tar -----------------------------------------------------------------------------------------

POSIX = b"ustar\x0000"
GNU = b"ustar  \0"
V7 = b"\0" * 8


def tar_member(
    name: bytes,
    content: bytes = b"",
    *,
    kind: bytes = b"0",
    target: bytes = b"",
    prefix: bytes = b"",
    magic: bytes = POSIX,
    size: bytes | None = None,
    checksum: bytes | None = None,
    device: bytes = b"",
) -> bytes:
    """Header, content and padding; `size` and `checksum` are the fields as written."""
    said = b"%011o\0" % len(content) if size is None else size
    header = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + said.ljust(12, b"\0")
    header += b"%011o\0" % 0 + b" " * 8 + kind + target.ljust(100, b"\0") + magic.ljust(8, b"\0")
    header = header.ljust(329, b"\0") + device
    header = (header.ljust(345, b"\0") + prefix).ljust(512, b"\0")
    assert len(header) == 512
    written = b"%06o\0 " % sum(header) if checksum is None else checksum
    header = header[:148] + written + header[156:]
    return header + content + b"\0" * (-len(content) % 512)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """A pax header for the member that follows."""
    lines = b""
    for key, value in records:
        line = b" %b=%b\n" % (key, value)
        length = len(line) + 1
        while len(b"%d" % length) + len(line) != length:
            length += 1
        lines += b"%d%b" % (length, line)
    return tar_member(b"PaxHeaders/member", lines, kind=kind)


def make_tar_gz(*members: bytes, end: bytes = b"\0" * 1024) -> bytes:
    return gzip.compress(b"".join(members) + end, mtime=0)


PKG_INFO = b"Metadata-Version: 2.2\nName: demo\nVersion: 1.0\n"


def pkg_info(content: bytes = PKG_INFO) -> bytes:
    return tar_member(b"demo-1.0/PKG-INFO", content)
