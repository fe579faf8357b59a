"""Archives are opened to the last byte: each fault is refused by its name, and no good file is."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from private_pypi import tar_members, zip_members
from private_pypi.archives import check_archive
from private_pypi.core_metadata import read_core_metadata
from private_pypi.errors import InvalidUpload
from private_pypi.testing.distributions import make_sdist, make_wheel
from tests.archives_by_hand import (
    GNU,
    PKG_INFO,
    UNSET,
    V7,
    Zipped,
    deflate,
    extra,
    make_tar_gz,
    make_zip,
    pax,
    pkg_info,
    tar_member,
    wheel_members,
    with_first,
)

WHEEL = "demo-1.0-py3-none-any.whl"
SDIST = "demo-1.0.tar.gz"
ZIP_SDIST = "demo-1.0.zip"

METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
CODE = b"version = '1.0'\n" * 9  # the content of demo.py


@pytest.fixture
def check(tmp_path: Path) -> Callable[[str, bytes], bytes]:
    def check(filename: str, content: bytes) -> bytes:
        path = tmp_path / "upload-x"
        path.write_bytes(content)
        return check_archive(path, filename)

    return check


Check = Callable[[str, bytes], bytes]


def refusal(check: Check, filename: str, content: bytes) -> str:
    """The sentence of the refusal, without the filename it begins with."""
    with pytest.raises(InvalidUpload) as error:
        check(filename, content)
    sentence = str(error.value)
    assert sentence.startswith(f"{filename}: ")
    assert "\n" not in sentence
    assert "upload-x" not in sentence
    return sentence.removeprefix(f"{filename}: ")


# -- good zip files ------------------------------------------------------------------------------


def test_the_archives_of_the_test_kit_give_their_metadata(check: Check) -> None:
    for filename, content in (
        make_wheel(requires_python=">=3.8"),
        make_sdist(requires_python=">=3.8"),
        make_sdist(requires_python=">=3.8", format="zip"),
    ):
        version = "2.1" if filename.endswith(".whl") else "2.2"
        assert check(filename, content).decode() == (
            f"Metadata-Version: {version}\nName: demo\nVersion: 1.0\nRequires-Python: >=3.8\n"
        )


def sizes64(*values: int) -> bytes:
    return extra(1, struct.pack(f"<{len(values)}Q", *values))


DESCRIBED = (zlib.crc32(CODE), len(deflate(CODE)), len(CODE))

GOOD_ZIPS: dict[str, bytes] = {
    "by hand": make_zip(wheel_members()),
    "a comment": make_zip(wheel_members(), comment=b"built by hand"),
    "zip64 end records": make_zip(wheel_members(), zip64={}),
    "zip64 end records, the short one unset": make_zip(
        wheel_members(), zip64={}, count=0xFFFF, here=0xFFFF, length=UNSET, start=UNSET
    ),
    "zip64 sizes": make_zip(
        with_first(
            wheel_members(),
            local={"size": UNSET, "packed": UNSET, "extra": sizes64(len(CODE), DESCRIBED[1])},
            central={"size": UNSET, "extra": sizes64(len(CODE))},
        )
    ),
    "other extras and padding": make_zip(
        with_first(
            wheel_members(),
            local={"extra": extra(0x5455, b"\1\0\0\0\0") + b"\0\0"},
            central={"extra": extra(0x5455, b"\1\0\0\0\0") + b"\0\0\0"},
        )
    ),
    "a unicode path that is the same": make_zip(
        with_first(wheel_members(), central={"extra": extra(0x7075, b"\1\0\0\0\0demo.py")})
    ),
    "stored": make_zip([replace(m, method=0) for m in wheel_members()]),
    "folders": make_zip([Zipped(name=b"pkg/", method=0), *wheel_members({"pkg/a.py": b"a"})]),
    "utf-8 names": make_zip(
        [Zipped(name="größe.txt".encode(), flags=0x800, content=b"3"), *wheel_members()]
    ),
    "cp437 names": make_zip([Zipped(name=b"gr\x94\xe1e.txt", content=b"3"), *wheel_members()]),
    "no files but its own": make_zip(wheel_members({})),
} | {
    f"a data descriptor {title}": make_zip(
        with_first(
            wheel_members(),
            flags=8,
            descriptor=descriptor,
            local={"crc": 0, "size": 0, "packed": 0},
        )
    )
    for title, descriptor in {
        "of 12 bytes": struct.pack("<3L", *DESCRIBED),
        "of 16 bytes": b"PK\x07\x08" + struct.pack("<3L", *DESCRIBED),
        "of 20 bytes": struct.pack("<LQQ", *DESCRIBED),
        "of 24 bytes": b"PK\x07\x08" + struct.pack("<LQQ", *DESCRIBED),
    }.items()
}


@pytest.mark.parametrize("content", GOOD_ZIPS.values(), ids=GOOD_ZIPS)
def test_a_sound_wheel_is_taken(check: Check, content: bytes) -> None:
    assert check(WHEEL, content) == METADATA
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None  # so by-hand is not made-up


def test_what_zipfile_writes_in_any_way_is_taken(check: Check, tmp_path: Path) -> None:
    class Unseekable(io.BytesIO):
        """Makes zipfile write data descriptors."""

        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for force_zip64 in (False, True):
            for output in (Unseekable(), io.BytesIO()):
                with zipfile.ZipFile(output, "w", method) as archive:
                    archive.mkdir("pkg")
                    for member in wheel_members({"pkg/größe.py": b"x" * 9999}):
                        with archive.open(
                            member.name.decode(), "w", force_zip64=force_zip64
                        ) as opened:
                            opened.write(member.content)
                # The flag of the second member, behind the folder's header.
                has_descriptors = bool(output.getvalue()[30 + 4 + 6] & 8)
                assert has_descriptors == isinstance(output, Unseekable)
                assert check(WHEEL, output.getvalue()) == METADATA


@pytest.mark.parametrize(
    ("filename", "folder"),
    [
        ("zope.interface-5.0-py3-none-any.whl", "zope.interface-5.0"),
        ("zope_interface-5.0-py3-none-any.whl", "Zope.Interface-5.0"),
        ("Zope_Interface-5.0-py3-none-any.whl", "zope_interface-5.0"),
        ("zope_interface-5.0-py3-none-any.whl", "zope-interface-5.0.0"),
        ("demo-1.0+Local.1-py3-none-any.whl", "demo-1.0+local.1"),
        ("demo-1!2.0rc1-py3-none-any.whl", "demo-1!2.0-rc1"),
        ("demo-1.0-2abc-py2.py3-none-any.whl", "demo-1.0"),
    ],
)
def test_a_dist_info_folder_is_its_own_in_any_spelling(
    check: Check, filename: str, folder: str
) -> None:
    members = [
        replace(m, name=m.name.replace(b"demo-1.0.", f"{folder}.".encode()))
        for m in wheel_members()
    ]
    assert check(filename, make_zip(members)) == METADATA


def test_a_zip_file_has_a_limited_number_of_members(check: Check) -> None:
    claim = make_zip(
        wheel_members(),
        zip64={"count": 200_001, "here": 200_001},
        count=0xFFFF,
        here=0xFFFF,
    )
    assert refusal(check, WHEEL, claim) == (
        "the zip file has 200001 members in a directory of 267 bytes; "
        "at most 200000 in 67108864 can be taken"
    )


# -- bad zip files -------------------------------------------------------------------------------

FIRST = wheel_members()[0]
SMALL = len(deflate(CODE))
SECOND_AT = 30 + 7 + SMALL  # where the second header is

BAD_ZIPS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is no zip file, or cut off: the end record is missing"),
    "text": (b"<html>", "it is no zip file, or cut off: the end record is missing"),
    "cut off": (
        GOOD_ZIPS["by hand"][:-1],
        "it is no zip file, or cut off: the end record is missing",
    ),
    "data behind the end": (
        GOOD_ZIPS["by hand"] + b"#!",
        "there is data behind the end of the zip file",
    ),
    "a comment that is cut": (
        make_zip(wheel_members(), comment=b"x", comment_size=2),
        "there is data behind the end of the zip file",
    ),
    "data before the beginning": (
        b"#!/bin/sh\n" + GOOD_ZIPS["by hand"],
        "the zip file has data before its beginning or after its central directory",
    ),
    "data before the first member": (
        make_zip(with_first(wheel_members(), before=b"#!/bin/sh\n")),
        "bytes 0 to 10 of the zip file belong to none of its members",
    ),
    "data between members": (
        make_zip([FIRST, *with_first(wheel_members()[1:], before=b"gap")]),
        f"bytes {SECOND_AT} to {SECOND_AT + 3} of the zip file belong to none of its members",
    ),
    "data before the directory": (
        make_zip([FIRST], before_directory=b"gap"),
        f"bytes {SECOND_AT} to {SECOND_AT + 3} of the zip file belong to none of its members",
    ),
    "data before the directory of nothing": (
        make_zip([], before_directory=b"gap"),
        "bytes 0 to 3 of the zip file belong to none of its members",
    ),
    "data behind the directory": (
        make_zip(wheel_members(), before_end=b"gap"),
        "the zip file has data before its beginning or after its central directory",
    ),
    "overlapping members": (
        make_zip([FIRST, Zipped(name=b"b", central={"offset": 0})]),
        "the members of the zip file overlap at byte 0",
    ),
    "a member over the next": (
        make_zip(
            [
                Zipped(
                    name=b"a",
                    method=0,
                    local={"packed": 40, "size": 40},
                    central={"packed": 40, "size": 40},
                ),
                Zipped(name=b"b", method=0, content=b"x" * 50),
            ]
        ),
        "the members of the zip file overlap at byte 31",
    ),
    "two disks": (make_zip(wheel_members(), disk=1), "the zip file is one part of several"),
    "two disks, by the zip64 record": (
        make_zip(wheel_members(), zip64={"disks": 2}),
        "the zip file is one part of several",
    ),
    "another disk, by the zip64 record": (
        make_zip(wheel_members(), zip64={"locator_disk": 1}),
        "the zip file is one part of several",
    ),
    "a member on another disk": (
        make_zip(with_first(wheel_members(), central={"disk": 1})),
        "the zip file is one part of several",
    ),
    "a count that is wrong": (
        make_zip(wheel_members(), count=3, here=3),
        "the zip file has 4 members in its central directory, but 3 by its end record",
    ),
    "a directory that is cut": (
        make_zip(wheel_members(), before_directory=b"PK\1\2" * 9, length=400),
        "the zip file has data before its beginning or after its central directory",
    ),
    "a directory of something else": (
        make_zip([FIRST], before_end=b"12345", length=46 + 7 + 5),
        "the central directory of the zip file is damaged",
    ),
    "a name longer than the directory": (
        make_zip([FIRST], length=46 + 7 - 1, start=SECOND_AT + 1),
        "the central directory of the zip file is damaged",
    ),
    "zip64 records that disagree": (
        make_zip(wheel_members(), zip64={"count": 3, "here": 3}),
        "the two end records of the zip file (zip64) disagree",
    ),
    "a zip64 record elsewhere": (
        make_zip(wheel_members(), zip64={"place": 0}),
        "the zip64 end record of the zip file is damaged",
    ),
    "a zip64 record with private data": (
        make_zip(wheel_members(), zip64={"record_size": 45}),
        "the zip64 end record of the zip file is damaged",
    ),
    "zip64 sizes that are missing": (
        make_zip(with_first(wheel_members(), central={"size": UNSET})),
        "'demo.py' lacks its zip64 sizes",
    ),
    "zip64 sizes that differ": (
        make_zip(
            with_first(
                wheel_members(),
                local={"size": UNSET, "packed": UNSET, "extra": sizes64(len(CODE) + 1, SMALL)},
            )
        ),
        "'demo.py' has another size or checksum in its header",
    ),
    "zip64 sizes twice": (
        make_zip(
            with_first(wheel_members(), central={"size": UNSET, "extra": sizes64(len(CODE)) * 2})
        ),
        "'demo.py' has an extra field twice",
    ),
    "extras that are cut": (
        make_zip(with_first(wheel_members(), local={"extra": b"\1\0\2\0x"})),
        "the extra fields of 'demo.py' are damaged",
    ),
    "a second name": (
        make_zip(with_first(wheel_members(), central={"extra": extra(0x7075, b"\1\0\0\0\0evil")})),
        "'demo.py' has a second name (Info-ZIP unicode path)",
    ),
    "another name in the header": (
        make_zip(with_first(wheel_members(), local={"name": b"evil.py"})),
        "'demo.py' has another name in its header: 'evil.py'",
    ),
    "another encoding in the header": (
        make_zip([Zipped(name="ö".encode(), central={"flags": 0x800})]),
        "'ö' has another name in its header: '├╢'",
    ),
    "a name that is not UTF-8": (
        make_zip([Zipped(name=b"\xf6", flags=0x800)]),
        "the member name b'\\xf6' is not UTF-8, as it claims",
    ),
    "another checksum in the header": (
        make_zip(with_first(wheel_members(), local={"crc": 1})),
        "'demo.py' has another size or checksum in its header",
    ),
    "another size in the header": (
        make_zip(with_first(wheel_members(), local={"size": 1})),
        "'demo.py' has another size or checksum in its header",
    ),
    "another packed size in the header": (
        make_zip(with_first(wheel_members(), local={"packed": 1})),
        "'demo.py' has another size or checksum in its header",
    ),
    "another method in the header": (
        make_zip(with_first(wheel_members(), local={"method": 0})),
        "'demo.py' must be stored or deflated, not compressed by method 0 and 8",
    ),
    "no header": (
        make_zip([Zipped(name=b"a", central={"offset": 0}, before=b"")]).replace(
            b"PK\3\4", b"PK\3\5"
        ),
        "'a' has no header where the zip file says",
    ),
    "no data descriptor": (
        make_zip(with_first(wheel_members(), flags=8)),
        "'demo.py' has no data descriptor that agrees with it",
    ),
    "a data descriptor that differs": (
        make_zip(
            with_first(wheel_members(), flags=8, descriptor=struct.pack("<3L", 1, SMALL, 144))
        ),
        "'demo.py' has no data descriptor that agrees with it",
    ),
    "a data descriptor and more": (
        make_zip(
            with_first(wheel_members(), flags=8, descriptor=struct.pack("<3L", *DESCRIBED) + b"gap")
        ),
        "'demo.py' has no data descriptor that agrees with it",
    ),
    "a newer format": (
        make_zip(with_first(wheel_members(), central={"needed": 64})),
        "'demo.py' needs version 6.4 of the zip format; 6.3 is known",
    ),
    "a newer format, says its header alone": (
        make_zip(with_first(wheel_members(), local={"needed": 64})),
        "'demo.py' needs version 6.4 of the zip format; 6.3 is known",
    ),
    "encrypted": (
        make_zip(with_first(wheel_members(), flags=1)),
        "'demo.py' is encrypted; upload it in plain",
    ),
    "encrypted, says its header alone": (
        make_zip(with_first(wheel_members(), local={"flags": 1})),
        "'demo.py' is encrypted; upload it in plain",
    ),
    "bzip2": (
        make_zip(with_first(wheel_members(), method=12)),
        "'demo.py' must be stored or deflated, not compressed by method 12",
    ),
    "lzma": (
        make_zip(with_first(wheel_members(), method=14)),
        "'demo.py' must be stored or deflated, not compressed by method 14",
    ),
    "a symbolic link": (
        make_zip(with_first(wheel_members(), central={"attributes": 0o120777 << 16})),
        "'demo.py' is a link or a device; a zip file may only have files and folders",
    ),
    "a device": (
        make_zip(with_first(wheel_members(), central={"attributes": stat.S_IFCHR << 16})),
        "'demo.py' is a link or a device; a zip file may only have files and folders",
    ),
    "a folder with content": (
        make_zip([Zipped(name=b"pkg/", content=b"hidden")]),
        "'pkg/' is a folder, but has 6 bytes of content",
    ),
    "a wrong checksum": (
        make_zip(with_first(wheel_members(), local={"crc": 1}, central={"crc": 1})),
        "'demo.py' is damaged: its size or checksum is wrong",
    ),
    "deflated data that is none": (
        make_zip(with_first(wheel_members(), packed=b"\xff" * 20)),
        "'demo.py' is damaged: Error -3 while decompressing data: invalid block type",
    ),
    "deflated data that is cut off": (
        make_zip(with_first(wheel_members(), packed=deflate(CODE)[:-1])),
        "'demo.py' is cut off",
    ),
    "data behind deflated data": (
        make_zip(with_first(wheel_members(), packed=deflate(CODE) + b"hidden")),
        "'demo.py' has data behind its end",
    ),
    "smaller than it says": (
        make_zip(with_first(wheel_members(), local={"size": 200}, central={"size": 200})),
        "'demo.py' is damaged: its size or checksum is wrong",
    ),
    "larger than it says": (
        make_zip(with_first(wheel_members(), local={"size": 1}, central={"size": 1})),
        "'demo.py' is larger than the zip file says",
    ),
    "stored, of two sizes": (
        make_zip(with_first(wheel_members(), method=0, local={"size": 9}, central={"size": 9})),
        "'demo.py' is damaged: its size or checksum is wrong",
    ),
}


@pytest.mark.parametrize(("content", "sentence"), BAD_ZIPS.values(), ids=BAD_ZIPS)
def test_a_zip_file_that_has_two_readings_is_refused(
    check: Check, content: bytes, sentence: str
) -> None:
    assert refusal(check, WHEEL, content) == sentence


def test_every_zip_end_that_points_behind_the_file_is_refused(check: Check) -> None:
    content = make_zip(wheel_members(), start=UNSET - 1)
    assert refusal(check, WHEEL, content) == (
        "the zip file has data before its beginning or after its central directory"
    )
    offset = make_zip(
        [
            Zipped(
                name=b"a",
                method=0,
                content=b"a" * 90,
                local={"packed": 0xFFFF},
                central={"packed": 0xFFFF},
            )
        ]
    )
    assert refusal(check, WHEEL, offset) == "the members of the zip file overlap at byte 121"


UNSAFE_NAMES = [
    "/etc/passwd",
    "../evil.py",
    "pkg/../../evil.py",
    "pkg/./a.py",
    "./a.py",
    "pkg//a.py",
    "C:/evil.py",
    "c:evil.py",
    "pkg\\evil.py",
    "nul\0byte.py",
    "line\nbreak.py",
    "escape\x1b[2J.py",
    "right\u202eleft.py",
    "",
    "/",
    "..",
]


@pytest.mark.parametrize("name", UNSAFE_NAMES, ids=repr)
def test_a_zip_member_that_leaves_its_folder_is_refused(check: Check, name: str) -> None:
    content = make_zip([Zipped(name=name.encode(), flags=0x800, method=0), *wheel_members()])
    assert (
        refusal(check, WHEEL, content) == f"the member name {name!r} is not a plain relative path"
    )


def test_a_member_name_has_a_limit(check: Check) -> None:
    name = b"n" * 1025
    assert refusal(check, WHEEL, make_zip([Zipped(name=name), *wheel_members()])) == (
        f"the member name {'n' * 100!r}… is longer than 1024 characters"
    )


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a.py", "a.py"], "the member 'a.py' is there twice"),
        (["a/", "a/"], "the member 'a' is there twice"),
        (["a", "a/"], "the member 'a' is there twice"),
        (["a/b/c", "a/b"], "the member 'a/b' is a file and a folder at once"),
        (["a/b", "a-b", "a!b", "a/b/c/d"], "the member 'a/b' is a file and a folder at once"),
    ],
)
def test_no_member_is_there_twice(check: Check, names: list[str], sentence: str) -> None:
    content = make_zip(Zipped(name=name.encode(), method=0) for name in names)
    assert refusal(check, WHEEL, content) == sentence


def test_names_that_only_look_alike_are_fine(check: Check) -> None:
    names = ["a/b", "a/b.c", "a/b-c/d", "a/bc", "a.b", "a-b", "A/b", "ab/c"]
    content = make_zip([*(Zipped(name=n.encode()) for n in names), *wheel_members()])
    assert check(WHEEL, content) == METADATA


def test_a_zip_bomb_is_refused_before_it_is_unpacked(check: Check) -> None:
    zeros = b"\0" * (65 * 2**20)
    content = make_zip([Zipped(name=b"zeros", content=zeros), *wheel_members()])
    total = len(zeros) + sum(len(member.content) for member in wheel_members())
    assert refusal(check, WHEEL, content) == (
        f"it unpacks to {total} bytes, far more than its own {len(content)}"
    )


def test_a_zip_bomb_that_lies_about_its_size_is_stopped(check: Check) -> None:
    bomb = Zipped(
        name=b"zeros", packed=deflate(b"\0" * (65 * 2**20)), central={"size": 5}, local={"size": 5}
    )
    tracemalloc.start()
    sentence = refusal(check, WHEEL, make_zip([bomb, *wheel_members()]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sentence == "'zeros' is larger than the zip file says"
    assert peak < 2 * 2**20


def test_much_that_packs_well_is_no_bomb_below_64_mib(check: Check) -> None:
    content = make_zip([Zipped(name=b"zeros", content=b"\0" * (60 * 2**20)), *wheel_members()])
    assert check(WHEEL, content) == METADATA


def test_a_zip_file_that_is_a_tar_file_too_is_refused(check: Check) -> None:
    # The first header, seen as a tar header: its extra field is made to hold the checksum.
    content = bytearray(
        make_zip(with_first(wheel_members(), local={"extra": extra(9, bytes(470))}))
    )
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    assert tarfile.is_tarfile(io.BytesIO(content))
    assert refusal(check, WHEEL, bytes(content)) == "it is a zip file and a tar file at once"


def test_a_tar_file_that_is_a_zip_file_too_is_refused(check: Check) -> None:
    # In the extra field of the gzip header; pip would unpack the zip file.
    hidden = make_zip(wheel_members())
    plain = make_tar_gz(pkg_info())
    rest = plain[10:]
    content = plain[:3] + b"\x04" + plain[4:10] + struct.pack("<H", len(hidden)) + hidden + rest
    assert gzip.decompress(content) == gzip.decompress(plain)
    assert zipfile.is_zipfile(io.BytesIO(content))
    assert refusal(check, SDIST, content) == "it is a tar file and a zip file at once"


# -- wheels --------------------------------------------------------------------------------------

BAD_WHEELS: dict[str, tuple[list[Zipped], str]] = {
    "no dist-info": (
        [FIRST],
        "a wheel has exactly one .dist-info folder, this one has none",
    ),
    "two dist-infos": (
        [*wheel_members(), Zipped(name=b"other-2.0.dist-info/METADATA")],
        "a wheel has exactly one .dist-info folder, this one has "
        "demo-1.0.dist-info, other-2.0.dist-info",
    ),
    "two dist-infos in other cases": (
        [*wheel_members(), Zipped(name=b"demo-1.0.DIST-INFO/METADATA")],
        "a wheel has exactly one .dist-info folder, this one has "
        "demo-1.0.DIST-INFO, demo-1.0.dist-info",
    ),
    "a dist-info of another project": (
        [replace(m, name=m.name.replace(b"demo-1.0.", b"evil-1.0.")) for m in wheel_members()],
        "'evil-1.0.dist-info' is not the .dist-info folder of the release in its name",
    ),
    "a dist-info of another version": (
        [replace(m, name=m.name.replace(b"demo-1.0.", b"demo-1.1.")) for m in wheel_members()],
        "'demo-1.1.dist-info' is not the .dist-info folder of the release in its name",
    ),
    "a dist-info of no version": (
        [replace(m, name=m.name.replace(b"demo-1.0.", b"demo.")) for m in wheel_members()],
        "'demo.dist-info' is not the .dist-info folder of the release in its name",
    ),
    "a dist-info in capitals": (
        [replace(m, name=m.name.replace(b"dist-info", b"DIST-INFO")) for m in wheel_members()],
        "'demo-1.0.DIST-INFO' is not the .dist-info folder of the release in its name",
    ),
    "a dist-info with a version too long to be one": (
        [Zipped(name=b"demo-" + b"1" * 600 + b".dist-info/METADATA")],
        f"'demo-{'1' * 600}.dist-info' is not the .dist-info folder of the release in its name",
    ),
    "no METADATA": (wheel_members(METADATA=None), "demo-1.0.dist-info/METADATA is missing"),
    "no WHEEL": (wheel_members(WHEEL=None), "demo-1.0.dist-info/WHEEL is missing"),
    "no RECORD": (wheel_members(RECORD=None), "demo-1.0.dist-info/RECORD is missing"),
    "METADATA in a folder of dist-info": (
        [*wheel_members(METADATA=None), Zipped(name=b"demo-1.0.dist-info/x/METADATA")],
        "demo-1.0.dist-info/METADATA is missing",
    ),
    "a wheel of version 2": (
        wheel_members(WHEEL=b"Wheel-Version: 2.0\n"),
        "Wheel-Version in demo-1.0.dist-info/WHEEL must be 1.x, but is 2.0",
    ),
    "a wheel of no version": (
        wheel_members(WHEEL=b"Generator: me\n"),
        "Wheel-Version in demo-1.0.dist-info/WHEEL must be 1.x, but is missing",
    ),
    "a wheel of two versions": (
        wheel_members(WHEEL=b"Wheel-Version: 1.0\r\nWheel-Version: 1.1\r\n"),
        "Wheel-Version in demo-1.0.dist-info/WHEEL must be 1.x, but is 1.0 and 1.1",
    ),
    "a wheel of an endless version": (
        wheel_members(WHEEL=b"Wheel-Version: " + b" " * 900_000 + b"x\n"),
        "Wheel-Version in demo-1.0.dist-info/WHEEL must be 1.x, but is x",
    ),
    "entry points that are none": (
        wheel_members(entry_points=b"demo = demo:main\n"),
        "demo-1.0.dist-info/entry_points.txt cannot be read: File contains no section headers.",
    ),
    "entry points that are not UTF-8": (
        wheel_members(entry_points=b"[console_scripts]\nd\xf6mo = demo:main\n"),
        "demo-1.0.dist-info/entry_points.txt cannot be read: 'utf-8' codec can't decode byte "
        "0xf6 in position 19: invalid start byte",
    ),
    "METADATA that is too large": (
        wheel_members(METADATA=METADATA + b"\n" + b"x" * 2**24),
        f"'demo-1.0.dist-info/METADATA' has {2**24 + len(METADATA) + 1} bytes; "
        "at most 16777216 can be taken",
    ),
}


@pytest.mark.parametrize(("members", "sentence"), BAD_WHEELS.values(), ids=BAD_WHEELS)
def test_a_wheel_has_what_a_wheel_has(check: Check, members: list[Zipped], sentence: str) -> None:
    assert refusal(check, WHEEL, make_zip(members)) == sentence


def test_entry_points_may_have_a_name_twice_and_colons(check: Check) -> None:
    points = b"[console_scripts]\ndemo:x = demo:main\ndemo:x = demo:main\n\n[empty]\n"
    assert check(WHEEL, make_zip(wheel_members(entry_points=points))) == METADATA


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (b"\xff", "RECORD cannot be read: 'utf-8' codec can't decode byte 0xff in position 0: "
                  "invalid start byte"),
        (b"demo-1.0.dist-info/METADATA,,\ndemo-1.0.dist-info/WHEEL,,\n",
         "1 rows of RECORD are wrong: 'demo.py' is missing"),
        (b"demo-1.0.dist-info/METADATA,,\ndemo-1.0.dist-info/WHEEL,,\ndemo.py,,3\n",
         "1 rows of RECORD are wrong: 'demo.py' has 144 bytes, not '3'"),
        (b"demo-1.0.dist-info/METADATA\ndemo-1.0.dist-info/WHEEL,,\ndemo.py,,\ngone.py,,\n",
         "1 rows of RECORD are wrong: 'gone.py' is not in the wheel"),
    ],
)  # fmt: skip
def test_a_record_that_disagrees_is_only_told(
    check: Check, caplog: pytest.LogCaptureFixture, record: bytes, sentence: str
) -> None:
    with caplog.at_level(logging.WARNING):
        assert check(WHEEL, make_zip(wheel_members(RECORD=record))) == METADATA
    assert caplog.messages == [f"{WHEEL}: {sentence}"]


def test_a_record_with_a_field_too_long_for_csv_is_only_told(
    check: Check, caplog: pytest.LogCaptureFixture
) -> None:
    record = b"x" * (csv.field_size_limit() + 1)
    assert check(WHEEL, make_zip(wheel_members(RECORD=record))) == METADATA
    assert caplog.messages == [
        f"{WHEEL}: RECORD cannot be read: field larger than field limit (131072)"
    ]


def test_a_record_that_agrees_is_not_mentioned(
    check: Check, caplog: pytest.LogCaptureFixture
) -> None:
    assert check(*make_wheel(files={'a, "b".py': b"x", "c/d.py": b""}))
    assert check(WHEEL, make_zip([*wheel_members(), Zipped(name=b"demo-1.0.dist-info/RECORD.p7s")]))
    assert caplog.messages == []


# -- zip sdists ----------------------------------------------------------------------------------


def zip_sdist(*members: Zipped) -> bytes:
    return make_zip([Zipped(name=b"demo-1.0/PKG-INFO", content=PKG_INFO), *members])


def test_a_zip_sdist_has_one_top_folder_with_pkg_info(check: Check) -> None:
    assert check(ZIP_SDIST, zip_sdist(Zipped(name=b"demo-1.0/src/PKG-INFO"))) == PKG_INFO
    assert refusal(check, ZIP_SDIST, zip_sdist(Zipped(name=b"setup.py"))) == (
        "an sdist has exactly one top folder, this one has demo-1.0, setup.py"
    )
    assert refusal(check, ZIP_SDIST, make_zip([Zipped(name=b"demo-1.0/a.py")])) == (
        "demo-1.0/PKG-INFO is missing"
    )
    assert refusal(check, ZIP_SDIST, make_zip([Zipped(name=b"demo-2.0/PKG-INFO")])) == (
        "the top folder 'demo-2.0' is not named after the release"
    )
    assert refusal(check, ZIP_SDIST, make_zip([])) == (
        "an sdist has exactly one top folder, this one has none"
    )
    assert refusal(check, ZIP_SDIST, zip_sdist(Zipped(name=b"demo-1.0/../../x"))) == (
        "the member name 'demo-1.0/../../x' is not a plain relative path"
    )


# -- good tar files ------------------------------------------------------------------------------

LONG = "x" * 60 + "/" + "y" * 70 + "/größe.txt"

GOOD_TARS: dict[str, bytes] = {
    "one member": make_tar_gz(pkg_info()),
    "a ./ prefix and the folder itself": make_tar_gz(
        tar_member(b"./", kind=b"5"),
        tar_member(b"./demo-1.0/", kind=b"5"),
        tar_member(b"./demo-1.0/PKG-INFO", PKG_INFO),
    ),
    "a folder named .": make_tar_gz(tar_member(b".", kind=b"5"), pkg_info()),
    "a folder of v7": make_tar_gz(tar_member(b"demo-1.0/", kind=b"\0", magic=V7), pkg_info()),
    "v7": make_tar_gz(tar_member(b"demo-1.0/PKG-INFO", PKG_INFO, kind=b"\0", magic=V7)),
    "gnu": make_tar_gz(tar_member(b"demo-1.0/PKG-INFO", PKG_INFO, magic=GNU)),
    "no end": make_tar_gz(pkg_info(), end=b""),
    "half an end": make_tar_gz(pkg_info(), end=b"\0" * 512),
    "a padded end": make_tar_gz(pkg_info(), end=b"\0" * 10240),
    "a ragged end": make_tar_gz(pkg_info(), end=b"\0" * 1000),
    "a ustar prefix": make_tar_gz(pkg_info(), tar_member(b"a.py", prefix=b"demo-1.0/src")),
    "a pax path": make_tar_gz(
        pkg_info(),
        pax((b"path", f"demo-1.0/{LONG}".encode()), (b"mtime", b"1.5")),
        tar_member(f"demo-1.0/{LONG}".encode()[:80], b"content"),
    ),
    "a pax path beside a name that is cut within a character": make_tar_gz(
        pkg_info(),
        pax((b"path", "demo-1.0/größe".encode())),
        tar_member("demo-1.0/grö".encode()[:-1], b"content"),
    ),
    "a pax size that is the same": make_tar_gz(
        pkg_info(), pax((b"size", b"7")), tar_member(b"demo-1.0/a", b"content")
    ),
    "a pax header that says UTF-8": make_tar_gz(
        pax((b"hdrcharset", b"ISO-IR 10646 2000 UTF-8")), pkg_info()
    ),
    "a global pax header, as git writes it": make_tar_gz(
        pax((b"comment", b"0123456789abcdef"), kind=b"g"), pkg_info()
    ),
    "a GNU long name": make_tar_gz(
        pkg_info(),
        tar_member(b"././@LongLink", b"demo-1.0/" + b"z" * 200 + b"\0", kind=b"L", magic=GNU),
        tar_member(b"demo-1.0/" + b"z" * 91, b"content", magic=GNU),
    ),
    "a GNU long name and a GNU long link": make_tar_gz(
        pkg_info(),
        tar_member(b"././@LongLink", b"a" * 200 + b"\0", kind=b"K", magic=GNU),
        tar_member(b"././@LongLink", b"demo-1.0/" + b"z" * 200 + b"\0", kind=b"L", magic=GNU),
        tar_member(b"demo-1.0/z", kind=b"2", target=b"a" * 100, magic=GNU),
    ),
    "a size in base 256": make_tar_gz(
        tar_member(b"demo-1.0/PKG-INFO", PKG_INFO, size=b"\x80" + len(PKG_INFO).to_bytes(11, "big"))
    ),
    "a size with blanks": make_tar_gz(
        tar_member(b"demo-1.0/PKG-INFO", PKG_INFO, size=b"%10o  " % len(PKG_INFO))
    ),
    "a signed checksum": make_tar_gz(
        pkg_info(),
        tar_member(
            "demo-1.0/ö".encode(),
            checksum=b"%06o\0 "
            % (sum(tar_member("demo-1.0/ö".encode(), checksum=b" " * 8)) - 2 * 256),
        ),
    ),
    "a symbolic link beside": make_tar_gz(
        pkg_info(), tar_member(b"demo-1.0/a", kind=b"2", target=b"PKG-INFO")
    ),
    "a symbolic link upwards": make_tar_gz(
        pkg_info(), tar_member(b"demo-1.0/a/b/c", kind=b"2", target=b"../../docs/./x")
    ),
    "a symbolic link to the top folder": make_tar_gz(
        pkg_info(), tar_member(b"demo-1.0/a/b", kind=b"2", target=b"..")
    ),
    "a hard link": make_tar_gz(
        pkg_info(), tar_member(b"demo-1.0/a", kind=b"1", target=b"demo-1.0/PKG-INFO")
    ),
    "a hard link to a hard link": make_tar_gz(
        pkg_info(),
        tar_member(b"demo-1.0/a", kind=b"1", target=b"./demo-1.0/PKG-INFO"),
        tar_member(b"demo-1.0/b", kind=b"1", target=b"demo-1.0/a"),
    ),
}


@pytest.mark.parametrize("content", GOOD_TARS.values(), ids=GOOD_TARS)
def test_a_sound_tar_sdist_is_taken(check: Check, content: bytes) -> None:
    assert check(SDIST, content) == PKG_INFO
    assert seen_by_us(gzip.decompress(content)) == seen_by_tarfile(gzip.decompress(content))


@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_what_tarfile_writes_in_any_format_is_taken(check: Check, style: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=style) as archive:
        for name in ("demo-1.0/PKG-INFO", f"demo-1.0/{LONG}", "demo-1.0/" + "k" * 91):
            info = tarfile.TarInfo(name)
            info.size = len(PKG_INFO)
            info.mtime = 1.5 if style == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(PKG_INFO))
        link = tarfile.TarInfo("demo-1.0/link")
        link.type = tarfile.SYMTYPE
        link.linkname = "x" * 60 if style == tarfile.USTAR_FORMAT else "x" * 160
        archive.addfile(link)
    assert check(SDIST, buffer.getvalue()) == PKG_INFO


@pytest.mark.parametrize(
    ("filename", "folder"),
    [
        ("demo_pkg-1.0.tar.gz", "demo-pkg-1.0"),
        ("demo-pkg-1.0.tar.gz", "Demo.Pkg-1.0"),
        ("Demo.Pkg-1.0.tar.gz", "demo_pkg-1.0.0"),
        ("demo-pkg-1.0+local.1.tar.gz", "demo-pkg-1.0+local.1"),
        ("demo_pkg-1.0rc1.tar.gz", "demo_pkg-1.0-rc1"),
    ],
)
def test_a_top_folder_is_its_own_in_any_spelling(check: Check, filename: str, folder: str) -> None:
    content = make_tar_gz(tar_member(f"{folder}/PKG-INFO".encode(), PKG_INFO))
    assert check(filename, content) == PKG_INFO


# -- bad tar files -------------------------------------------------------------------------------


def broken_link(name: bytes, target: bytes) -> tuple[bytes, str]:
    return (
        make_tar_gz(pkg_info(), tar_member(name, kind=b"2", target=target)),
        f"the symbolic link {name.decode()!r} to {target.decode()!r} may leave 'demo-1.0'",
    )


BAD_TARS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the gzip file is cut off"),
    "no gzip file": (
        b"plain text, and enough of it to be a header",
        "the gzip file is damaged: Error -3 while decompressing data: incorrect header check",
    ),
    "a tar file that is not packed": (
        gzip.decompress(GOOD_TARS["one member"]),
        "the gzip file is damaged: Error -3 while decompressing data: incorrect header check",
    ),
    "gzip cut off": (GOOD_TARS["one member"][:-9], "the gzip file is cut off"),
    "gzip without its last byte": (GOOD_TARS["one member"][:-1], "the gzip file is cut off"),
    "gzip with a wrong checksum": (
        GOOD_TARS["one member"][:-8] + b"\0" * 4 + GOOD_TARS["one member"][-4:],
        "the gzip file is damaged: Error -3 while decompressing data: incorrect data check",
    ),
    "gzip with a wrong length": (
        GOOD_TARS["one member"][:-4] + b"\0" * 4,
        "the gzip file is damaged: Error -3 while decompressing data: incorrect length check",
    ),
    "data behind the gzip file": (
        GOOD_TARS["one member"] + b"\0",
        "there is data behind the end of the gzip file",
    ),
    "two gzip members": (
        gzip.compress(pkg_info()) + gzip.compress(b"\0" * 1024),
        "there is data behind the end of the gzip file",
    ),
    "data behind the tar file": (
        make_tar_gz(pkg_info(), end=b"\0" * 512 + tar_member(b"demo-1.0/evil.py", b"x")),
        "there is data behind the end of the tar file",
    ),
    "no members": (make_tar_gz(), "an sdist has exactly one top folder, this one has none"),
    "cut in a header": (make_tar_gz(pkg_info(), end=b"x" * 100), "the tar file is cut off"),
    "cut in a member": (
        gzip.compress(pkg_info()[:-1]),
        "the tar file is cut off in 'demo-1.0/PKG-INFO'",
    ),
    "cut behind a pax header": (
        make_tar_gz(pkg_info(), pax((b"path", b"x"))),
        "the tar file is cut off: it ends with a pax header or a long name",
    ),
    "cut in a pax header": (
        make_tar_gz(pkg_info(), pax((b"path", b"x"))[:520], end=b""),
        "the tar file is cut off in a pax header or a long name",
    ),
    "a long name that goes on in its padding": (
        make_tar_gz(
            tar_member(b"L", b"demo-1.0/a", kind=b"L")[:522] + b"b" + b"\0" * 501, pkg_info()
        ),
        "the tar file is damaged: a pax header or a long name does not end",
    ),
    "a checksum that is wrong": (
        make_tar_gz(pkg_info(), tar_member(b"demo-1.0/a", checksum=b"000000\0 ")),
        "the tar file is damaged: a header has a wrong checksum",
    ),
    "a checksum that is none": (
        make_tar_gz(tar_member(b"demo-1.0/a", checksum=b"????????")),
        "the tar file is damaged: a header has a wrong checksum",
    ),
    "a size that is none": (
        make_tar_gz(tar_member(b"demo-1.0/a", size=b"0o7")),
        "the tar file is damaged: a member has the size "
        "b'0o7\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'",
    ),
    "a size below zero": (
        make_tar_gz(tar_member(b"demo-1.0/a", size=b"-1")),
        "the tar file is damaged: a member has the size "
        "b'-1\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'",
    ),
    "a size below zero in base 256": (
        make_tar_gz(tar_member(b"demo-1.0/a", size=b"\xff" * 12)),
        "the tar file is damaged: a member has the size "
        "b'\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff'",
    ),
    "a size beyond all": (
        make_tar_gz(tar_member(b"demo-1.0/a", size=b"\x80" + b"\xff" * 11)),
        "the tar file is cut off in 'demo-1.0/a'",
    ),
    "a fifo": (
        make_tar_gz(tar_member(b"demo-1.0/a", kind=b"6")),
        "'demo-1.0/a' is of type b'6'; "
        "an sdist may only have files, folders and links between them",
    ),
    "a device": (
        make_tar_gz(tar_member(b"demo-1.0/a", kind=b"3")),
        "'demo-1.0/a' is of type b'3'; "
        "an sdist may only have files, folders and links between them",
    ),
    "a device number that is none": (
        make_tar_gz(tar_member(b"demo-1.0/a", device=b"abcdefg\0")),
        "the tar file is damaged: a header has the number b'abcdefg\\x00'",
    ),
    "a sparse member of GNU": (
        make_tar_gz(tar_member(b"demo-1.0/a", kind=b"S", magic=GNU)),
        "'demo-1.0/a' is sparse; an sdist may only have files, folders and links between them",
    ),
    "a sparse member of pax": (
        make_tar_gz(pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")), pkg_info()),
        "the tar file has a sparse member; pack it without --sparse",
    ),
    "a pax header that is none": (
        make_tar_gz(tar_member(b"x", b"9999999999 path=a\n", kind=b"x"), pkg_info()),
        "the tar file is damaged: a pax header cannot be read",
    ),
    "a pax record without a value": (
        make_tar_gz(tar_member(b"x", b"7 path\n", kind=b"x"), pkg_info()),
        "the tar file is damaged: a pax header cannot be read",
    ),
    "a pax record that is longer than its header": (
        make_tar_gz(tar_member(b"x", b"99 path=a\n", kind=b"x"), pkg_info()),
        "the tar file is damaged: a pax header cannot be read",
    ),
    "a pax path twice": (
        make_tar_gz(pax((b"path", b"demo-1.0/a"), (b"path", b"demo-1.0/b")), pkg_info()),
        "a pax header gives 'path' twice",
    ),
    "a pax path and a GNU long name": (
        make_tar_gz(
            pax((b"path", b"demo-1.0/a")),
            tar_member(b"L", b"demo-1.0/b\0", kind=b"L"),
            pkg_info(),
        ),
        "the tar file gives 'path' twice for one member",
    ),
    "an empty pax path": (
        make_tar_gz(pax((b"path", b"")), pkg_info()),
        "the tar file gives an empty 'path' for a member",
    ),
    "a pax path for all members": (
        make_tar_gz(pax((b"path", b"demo-1.0/a"), kind=b"g"), pkg_info()),
        "a global pax header gives 'path' to all members",
    ),
    "a pax size that differs": (
        make_tar_gz(pax((b"size", b"1024")), pkg_info()),
        f"'demo-1.0/PKG-INFO' has {len(PKG_INFO)} bytes, and 1024 in its pax header",
    ),
    "a pax size that is none": (
        make_tar_gz(pax((b"size", b"-1")), pkg_info()),
        "'demo-1.0/PKG-INFO' has the size '-1', which is none",
    ),
    "a pax header that is too large": (
        make_tar_gz(pax((b"comment", b"x" * 2**20)), pkg_info()),
        f"the tar file has a pax header or a long name of {2**20 + 17} bytes; "
        "at most 1048576 can be taken",
    ),
    "names that are not UTF-8, by their pax header": (
        make_tar_gz(pax((b"hdrcharset", b"BINARY")), pkg_info()),
        "the tar file has member names that are not UTF-8",
    ),
    "a name that is not UTF-8": (
        make_tar_gz(tar_member(b"demo-1.0/\xf6"), pkg_info()),
        "the member name b'demo-1.0/\\xf6' is not UTF-8",
    ),
    "a prefix in the GNU format": (
        make_tar_gz(tar_member(b"PKG-INFO", PKG_INFO, prefix=b"demo-1.0", magic=GNU)),
        "'PKG-INFO' has a prefix, which its tar format does not know",
    ),
    "a folder with content": (
        make_tar_gz(pkg_info(), tar_member(b"demo-1.0/a", b"hidden", kind=b"5")),
        "'demo-1.0/a' is a folder, but has 6 bytes of content",
    ),
    "a link with content": (
        make_tar_gz(pkg_info(), tar_member(b"demo-1.0/a", b"hidden", kind=b"2", target=b"b")),
        "'demo-1.0/a' is a symbolic link, but has 6 bytes of content",
    ),
    "a member twice": (
        make_tar_gz(pkg_info(), pkg_info()),
        "the member 'demo-1.0/PKG-INFO' is there twice",
    ),
    "a member twice, once with ./": (
        make_tar_gz(pkg_info(), tar_member(b"./demo-1.0/PKG-INFO")),
        "the member 'demo-1.0/PKG-INFO' is there twice",
    ),
    "a file and a folder at once": (
        make_tar_gz(pkg_info(), tar_member(b"demo-1.0/PKG-INFO/x")),
        "the member 'demo-1.0/PKG-INFO' is a file and a folder at once",
    ),
    "a member below a link": (
        make_tar_gz(
            pkg_info(),
            tar_member(b"demo-1.0/a", kind=b"2", target=b"docs"),
            tar_member(b"demo-1.0/a/x"),
        ),
        "the member 'demo-1.0/a' is a file and a folder at once",
    ),
    "a link to an absolute path": broken_link(b"demo-1.0/a", b"/etc/passwd"),
    "a link out of the folder": broken_link(b"demo-1.0/a", b"../../etc/passwd"),
    "a link beside the folder": broken_link(b"demo-1.0/a", b"../demo-1.0-evil/x"),
    "a link up behind a step down": broken_link(b"demo-1.0/a", b"b/../c"),
    "a link to nothing": broken_link(b"demo-1.0/a", b""),
    "a link to a drive": broken_link(b"demo-1.0/a", b"c:x"),
    "a link with backslashes": broken_link(b"demo-1.0/a", b"..\\..\\x"),
    "a hard link out of the folder": (
        make_tar_gz(pkg_info(), tar_member(b"demo-1.0/a", kind=b"1", target=b"/etc/passwd")),
        "'demo-1.0/a' is a hard link to '/etc/passwd', which is no file before it",
    ),
    "a hard link to a later file": (
        make_tar_gz(tar_member(b"demo-1.0/a", kind=b"1", target=b"demo-1.0/PKG-INFO"), pkg_info()),
        "'demo-1.0/a' is a hard link to 'demo-1.0/PKG-INFO', which is no file before it",
    ),
    "a hard link to a symbolic link": (
        make_tar_gz(
            pkg_info(),
            tar_member(b"demo-1.0/a", kind=b"2", target=b"PKG-INFO"),
            tar_member(b"demo-1.0/b", kind=b"1", target=b"demo-1.0/a"),
        ),
        "'demo-1.0/b' is a hard link to 'demo-1.0/a', which is no file before it",
    ),
    "no PKG-INFO": (
        make_tar_gz(tar_member(b"demo-1.0/setup.py")),
        "demo-1.0/PKG-INFO is missing",
    ),
    "PKG-INFO deeper down": (
        make_tar_gz(tar_member(b"demo-1.0/src/PKG-INFO", PKG_INFO)),
        "demo-1.0/PKG-INFO is missing",
    ),
    "PKG-INFO that is a link": (
        make_tar_gz(
            tar_member(b"demo-1.0/a", PKG_INFO),
            tar_member(b"demo-1.0/PKG-INFO", kind=b"2", target=b"a"),
        ),
        "demo-1.0/PKG-INFO is missing",
    ),
    "PKG-INFO that is too large": (
        make_tar_gz(pkg_info(b"x" * (2**24 + 1))),
        f"'demo-1.0/PKG-INFO' has {2**24 + 1} bytes; at most {2**24} can be taken",
    ),
    "two top folders": (
        make_tar_gz(pkg_info(), tar_member(b"._demo-1.0")),
        "an sdist has exactly one top folder, this one has ._demo-1.0, demo-1.0",
    ),
    "another top folder": (
        make_tar_gz(tar_member(b"evil-1.0/PKG-INFO")),
        "the top folder 'evil-1.0' is not named after the release",
    ),
}


@pytest.mark.parametrize(("content", "sentence"), BAD_TARS.values(), ids=BAD_TARS)
def test_a_tar_sdist_with_a_fault_is_refused(check: Check, content: bytes, sentence: str) -> None:
    assert refusal(check, SDIST, content) == sentence


@pytest.mark.parametrize(
    "name", [n for n in UNSAFE_NAMES if n[:2] != "./" and "\0" not in n], ids=repr
)
def test_a_tar_member_that_leaves_its_folder_is_refused(check: Check, name: str) -> None:
    content = make_tar_gz(pkg_info(), tar_member(name.encode()))
    assert (
        refusal(check, SDIST, content) == f"the member name {name!r} is not a plain relative path"
    )


def test_links_cannot_be_chained_out_of_the_folder(check: Check) -> None:
    # `up` is inside. By the letters `out` stays inside too; by way of `up` it would not.
    content = make_tar_gz(
        pkg_info(),
        tar_member(b"demo-1.0/a/b/up", kind=b"2", target=b"../.."),
        tar_member(b"demo-1.0/out", kind=b"2", target=b"a/b/up/../../etc"),
    )
    assert refusal(check, SDIST, content) == (
        "the symbolic link 'demo-1.0/out' to 'a/b/up/../../etc' may leave 'demo-1.0'"
    )


def test_a_tar_bomb_is_stopped_in_constant_memory(check: Check) -> None:
    content = make_tar_gz(pkg_info(), tar_member(b"demo-1.0/zeros", b"\0" * (65 * 2**20)))
    tracemalloc.start()
    sentence = refusal(check, SDIST, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sentence == f"it unpacks to more than {64 * 2**20} bytes, far more than its own size"
    assert peak < 8 * 2**20


def test_the_names_in_an_sdist_are_limited_together(check: Check) -> None:
    links = [
        tar_member(b"L", b"a" * (2**20 - 1) + b"\0", kind=b"K")
        + tar_member(b"demo-1.0/%d" % number, kind=b"2")
        for number in range(33)
    ]
    assert refusal(check, SDIST, make_tar_gz(pkg_info(), *links)) == (
        "an sdist may have at most 200000 members, with names of 33554432 characters together"
    )


# -- what every reader sees ----------------------------------------------------------------------


def test_a_stored_member_of_300_mib_is_checked_in_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    block = random.Random(1).randbytes(2**20)
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("big.bin", "w", force_zip64=True) as opened:
            for _ in range(300):
                opened.write(block)
        for member in wheel_members({}):
            archive.writestr(member.name.decode(), member.content)
    tracemalloc.start()
    assert check_archive(path, WHEEL) == METADATA
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20


def seen_by_zipfile(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return sorted((info.filename, archive.read(info)) for info in archive.infolist())


def zip_seen_by_us(content: bytes) -> list[tuple[str, bytes]]:
    file = io.BytesIO(content)
    members = zip_members.read_members(file, len(content))
    return sorted((m.name, b"".join(zip_members.unpack(file, m))) for m in members)


Seen = list[tuple[str, str, str, bytes]]


def seen_by_us(content: bytes) -> Seen:
    stream = tar_members.Gunzip(io.BytesIO(gzip.compress(content)), 2**40)
    return [
        (member.name, member.kind, member.target if "link" in member.kind else "", data)
        for member, data in tar_members.read_members(stream, lambda member: True)
    ]


def seen_by_tarfile(content: bytes) -> Seen:
    seen: Seen = []
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for member in archive:
            kind = {
                tarfile.REGTYPE: "file",
                tarfile.AREGTYPE: "file",
                tarfile.DIRTYPE: "folder",
                tarfile.SYMTYPE: "symbolic link",
                tarfile.LNKTYPE: "hard link",
            }[member.type]
            opened = archive.extractfile(member) if kind == "file" else None
            data = b"" if opened is None else opened.read()
            target = member.linkname if "link" in kind else ""
            if member.name != "." or kind != "folder":
                seen.append((member.name.removeprefix("./"), kind, target, data))
    return seen


@st.composite
def mutations(draw: st.DrawFn, length: int) -> list[tuple[int, int, bytes]]:
    """Where, how many bytes are replaced, and by what; a few in a row."""
    return draw(
        st.lists(
            st.tuples(
                st.integers(0, length),
                st.sampled_from([0, 1, 1, 1, 2, 4, 8, 512]),
                st.one_of(
                    st.sampled_from([b"", b"\0", b"\xff", b"\xff\xff", b"\xff" * 4, b"/", b"0"]),
                    st.binary(min_size=1, max_size=4),
                ),
            ),
            min_size=1,
            max_size=3,
        )
    )


def mutate(content: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, size, new in changes:
        content = content[:at] + new + content[at + size :]
    return content


FUZZED_ZIPS = (
    "by hand",
    "stored",
    "zip64 sizes",
    "zip64 end records",
    "a data descriptor of 16 bytes",
)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_zip_file_is_refused_or_read_as_zipfile_reads_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good = GOOD_ZIPS[data.draw(st.sampled_from(FUZZED_ZIPS))]
    content = mutate(good, data.draw(mutations(len(good))))
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(content)
    try:
        metadata = check_archive(path, WHEEL)
    except InvalidUpload:
        return
    assert zip_seen_by_us(content) == seen_by_zipfile(content)
    assert read_core_metadata(path, WHEEL) == metadata


def with_checksums(content: bytes) -> bytes:
    """The tar file with right checksums, block by block, where there seems to be a header."""
    blocks = [content[at : at + 512] for at in range(0, len(content), 512)]
    for number, block in enumerate(blocks):
        if block[257:262] == b"ustar" and len(block) == 512:
            blank = block[:148] + b" " * 8 + block[156:]
            blocks[number] = block[:148] + b"%06o\0 " % sum(blank) + block[156:]
    return b"".join(blocks)


FUZZED_TARS = (
    "a pax path",
    "a ustar prefix",
    "a GNU long name and a GNU long link",
    "a hard link to a hard link",
    "a global pax header, as git writes it",
    "a size in base 256",
)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_tar_file_is_refused_or_read_as_tarfile_reads_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good = gzip.decompress(GOOD_TARS[data.draw(st.sampled_from(FUZZED_TARS))])
    content = with_checksums(mutate(good, data.draw(mutations(len(good)))))
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(gzip.compress(content))
    try:
        metadata = check_archive(path, SDIST)
    except InvalidUpload:
        return
    assert seen_by_us(content) == seen_by_tarfile(content)
    assert read_core_metadata(path, SDIST) == metadata


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_gzip_file_is_refused_or_read_as_gzip_reads_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good = GOOD_TARS["a pax path"]
    content = mutate(good, data.draw(mutations(len(good))))
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(content)
    try:
        check_archive(path, SDIST)
    except InvalidUpload:
        return
    assert gzip.decompress(content) == gzip.decompress(good)
