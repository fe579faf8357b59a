"""Zip files are read to the last byte: each fault has its own message, and good files pass."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from private_pypi.testing.distributions import make_sdist, make_wheel
from tests.archives_by_hand import (
    UNSET,
    Zipped,
    deflate,
    extra,
    make_tar_gz,
    make_zip,
    pkg_info,
    wheel_members,
    with_first,
)
from tests.distributions.archive_checks import (
    CODE,
    FIRST,
    METADATA,
    NOT_RELATIVE,
    SPLIT,
    TWICE,
    UNSAFE_NAMES,
    Check,
    refusal,
)
from tests.distributions.test_archive_bounds import SDIST, WHEEL, at_most

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
    "UTF-8 said of ASCII in one of the headers": make_zip(
        with_first(wheel_members(), local={"flags": 0x800})
    ),
    "an empty zip64 extra": make_zip(with_first(wheel_members(), central={"extra": extra(1, b"")})),
    "folders twice": make_zip([Zipped(name=b"pkg/", method=0)] * 2 + wheel_members()),
    "no files but its own": make_zip(wheel_members({})),
} | {
    f"a data descriptor {title}": make_zip(
        with_first(
            wheel_members(),
            flags=8,
            descriptor=descriptor,
            local={"crc": 0, "size": unset, "packed": unset, "extra": zip64},
        )
    )
    for title, (descriptor, unset, zip64) in {
        "of 12 bytes": (struct.pack("<3L", *DESCRIBED), 0, b""),
        "of 16 bytes": (b"PK\x07\x08" + struct.pack("<3L", *DESCRIBED), 0, b""),
        "of 20 bytes": (struct.pack("<LQQ", *DESCRIBED), UNSET, sizes64(0, 0)),
        "of 24 bytes": (b"PK\x07\x08" + struct.pack("<LQQ", *DESCRIBED), UNSET, sizes64(0, 0)),
        "of 24 bytes, sizes zero": (
            b"PK\x07\x08" + struct.pack("<LQQ", *DESCRIBED),
            0,
            sizes64(0, 0),
        ),
    }.items()
}


@pytest.mark.parametrize("content", GOOD_ZIPS.values(), ids=GOOD_ZIPS)
def test_a_sound_wheel_is_taken(check: Check, content: bytes) -> None:
    assert check(WHEEL, content) == METADATA
    assert (
        zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    )  # the file is a valid one for zipfile


def test_what_zipfile_writes_in_any_way_is_taken(check: Check, tmp_path: Path) -> None:
    class Unseekable(io.BytesIO):
        """A stream, for which zipfile writes data descriptors."""

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
                # The flag of the second member, after the header of the folder.
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
        "the zip file has 200001 members in a central directory of 267 bytes; "
        "at most 200000 members in 33554432 bytes are accepted"
    )


# -- bad zip files -------------------------------------------------------------------------------

SMALL = len(deflate(CODE))
SECOND_AT = 30 + 7 + SMALL  # where the second header is

BAD_ZIPS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is not a complete zip file: its end record is missing"),
    "text": (b"<html>", "it is not a complete zip file: its end record is missing"),
    "cut off": (
        GOOD_ZIPS["by hand"][:-1],
        "it is not a complete zip file: its end record is missing",
    ),
    "data behind the end": (
        GOOD_ZIPS["by hand"] + b"#!",
        "there is data after the end of the zip file",
    ),
    "a comment that is cut": (
        make_zip(wheel_members(), comment=b"x", comment_size=2),
        "there is data after the end of the zip file",
    ),
    "data before the beginning": (
        b"#!/bin/sh\n" + GOOD_ZIPS["by hand"],
        "the zip file has data before its beginning or after its central directory",
    ),
    "data before the first member": (
        make_zip(with_first(wheel_members(), before=b"#!/bin/sh\n")),
        "bytes 0 to 10 of the zip file do not belong to any member",
    ),
    "data between members": (
        make_zip([FIRST, *with_first(wheel_members()[1:], before=b"gap")]),
        f"bytes {SECOND_AT} to {SECOND_AT + 3} of the zip file do not belong to any member",
    ),
    "data before the directory": (
        make_zip([FIRST], before_directory=b"gap"),
        f"bytes {SECOND_AT} to {SECOND_AT + 3} of the zip file do not belong to any member",
    ),
    "data before the directory of nothing": (
        make_zip([], before_directory=b"gap"),
        "bytes 0 to 3 of the zip file do not belong to any member",
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
    "two disks": (make_zip(wheel_members(), disk=1), SPLIT),
    "two disks, by the zip64 record": (
        make_zip(wheel_members(), zip64={"disks": 2}),
        SPLIT,
    ),
    "another disk, by the zip64 record": (
        make_zip(wheel_members(), zip64={"locator_disk": 1}),
        SPLIT,
    ),
    "a member on another disk": (
        make_zip(with_first(wheel_members(), central={"disk": 1})),
        SPLIT,
    ),
    "a count that is wrong": (
        make_zip(wheel_members(), count=3, here=3),
        "the zip file has 4 members in its central directory, but 3 according to its end record",
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
        "the two end records of the zip file (zip64) contradict each other",
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
        "the sizes of 'demo.py' are missing from its zip64 extra field",
    ),
    "zip64 sizes that differ": (
        make_zip(
            with_first(
                wheel_members(),
                local={"size": UNSET, "packed": UNSET, "extra": sizes64(len(CODE) + 1, SMALL)},
            )
        ),
        "'demo.py' has another size or checksum in its local header "
        "than in the central directory; both must be the same",
    ),
    "zip64 sizes twice": (
        make_zip(
            with_first(wheel_members(), central={"size": UNSET, "extra": sizes64(len(CODE)) * 2})
        ),
        "'demo.py' has the extra field 0x0001 twice; "
        "it must be there once, otherwise uv cannot open the zip file",
    ),
    "times twice": (
        make_zip(with_first(wheel_members(), local={"extra": extra(0x5455, b"\1\0\0\0\0") * 2})),
        "'demo.py' has the extra field 0x5455 twice; "
        "it must be there once, otherwise uv cannot open the zip file",
    ),
    "padding that is an extra field twice": (
        make_zip(with_first(wheel_members(), central={"extra": bytes(8)})),
        "'demo.py' has the extra field 0x0000 twice; "
        "it must be there once, otherwise uv cannot open the zip file",
    ),
    "zip64 sizes that are not needed": (
        make_zip(with_first(wheel_members(), central={"extra": sizes64(len(CODE), SMALL)})),
        "the zip64 extra field of 'demo.py' has 16 bytes in the central directory; "
        "it must have 0, otherwise uv cannot open the zip file",
    ),
    "more zip64 sizes than are needed": (
        make_zip(
            with_first(wheel_members(), central={"size": UNSET, "extra": sizes64(len(CODE), SMALL)})
        ),
        "the zip64 extra field of 'demo.py' has 16 bytes in the central directory; "
        "it must have 8, otherwise uv cannot open the zip file",
    ),
    "a long data descriptor without zip64 sizes": (
        make_zip(with_first(wheel_members(), flags=8, descriptor=struct.pack("<LQQ", *DESCRIBED))),
        "'demo.py' must have a data descriptor "
        "with the same size and checksum as in the central directory",
    ),
    "a short data descriptor beside zip64 sizes": (
        make_zip(
            with_first(
                wheel_members(),
                flags=8,
                descriptor=struct.pack("<3L", *DESCRIBED),
                local={"crc": 0, "size": UNSET, "packed": UNSET, "extra": sizes64(0, 0)},
            )
        ),
        "'demo.py' must have a data descriptor "
        "with the same size and checksum as in the central directory",
    ),
    "names of code page 437": (
        make_zip([Zipped(name=b"gr\x94\xe1e.txt"), *wheel_members()]),
        "the member name b'gr\\x94\\xe1e.txt' is not ASCII, "
        "so it must be marked as UTF-8 (flag 0x800); otherwise uv cannot unpack it",
    ),
    "extras that are cut": (
        make_zip(with_first(wheel_members(), local={"extra": b"\1\0\2\0x"})),
        "the extra fields of 'demo.py' are damaged",
    ),
    "a second name": (
        make_zip(with_first(wheel_members(), central={"extra": extra(0x7075, b"\1\0\0\0\0evil")})),
        "'demo.py' has another name in its extra field for Unicode names (0x7075); "
        "both must be the same",
    ),
    "another name in the header": (
        make_zip(with_first(wheel_members(), local={"name": b"evil.py"})),
        "'demo.py' has another name in its local header, 'evil.py'; both must be the same",
    ),
    "another encoding in the header": (
        make_zip([Zipped(name="ö".encode(), central={"flags": 0x800})]),
        "the member name b'\\xc3\\xb6' is not ASCII, "
        "so it must be marked as UTF-8 (flag 0x800); otherwise uv cannot unpack it",
    ),
    "a name that is not UTF-8": (
        make_zip([Zipped(name=b"\xf6", flags=0x800)]),
        "the member name b'\\xf6' is marked as UTF-8, but is not valid UTF-8",
    ),
    "another checksum in the header": (
        make_zip(with_first(wheel_members(), local={"crc": 1})),
        "'demo.py' has another size or checksum in its local header "
        "than in the central directory; both must be the same",
    ),
    "another size in the header": (
        make_zip(with_first(wheel_members(), local={"size": 1})),
        "'demo.py' has another size or checksum in its local header "
        "than in the central directory; both must be the same",
    ),
    "another packed size in the header": (
        make_zip(with_first(wheel_members(), local={"packed": 1})),
        "'demo.py' has another size or checksum in its local header "
        "than in the central directory; both must be the same",
    ),
    "another method in the header": (
        make_zip(with_first(wheel_members(), local={"method": 0})),
        "'demo.py' must be stored or deflated, not compressed by method 0 and 8",
    ),
    "no header": (
        make_zip([Zipped(name=b"a", central={"offset": 0}, before=b"")]).replace(
            b"PK\3\4", b"PK\3\5"
        ),
        "'a' has no header at the position that the central directory gives",
    ),
    "no data descriptor": (
        make_zip(with_first(wheel_members(), flags=8)),
        "'demo.py' must have a data descriptor "
        "with the same size and checksum as in the central directory",
    ),
    "a data descriptor that differs": (
        make_zip(
            with_first(wheel_members(), flags=8, descriptor=struct.pack("<3L", 1, SMALL, 144))
        ),
        "'demo.py' must have a data descriptor "
        "with the same size and checksum as in the central directory",
    ),
    "a data descriptor and more": (
        make_zip(
            with_first(wheel_members(), flags=8, descriptor=struct.pack("<3L", *DESCRIBED) + b"gap")
        ),
        "'demo.py' must have a data descriptor "
        "with the same size and checksum as in the central directory",
    ),
    "a newer format": (
        make_zip(with_first(wheel_members(), central={"needed": 64})),
        "'demo.py' needs version 6.4 of the zip format; at most 6.3 is accepted",
    ),
    "a newer format, says its header alone": (
        make_zip(with_first(wheel_members(), local={"needed": 64})),
        "'demo.py' needs version 6.4 of the zip format; at most 6.3 is accepted",
    ),
    "encrypted": (
        make_zip(with_first(wheel_members(), flags=1)),
        "'demo.py' is encrypted; it must not be",
    ),
    "encrypted, says its header alone": (
        make_zip(with_first(wheel_members(), local={"flags": 1})),
        "'demo.py' is encrypted; it must not be",
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
        "'demo.py' is a link or a device; only files and folders are accepted in zip files",
    ),
    "a device": (
        make_zip(with_first(wheel_members(), central={"attributes": stat.S_IFCHR << 16})),
        "'demo.py' is a link or a device; only files and folders are accepted in zip files",
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
        "'demo.py' has data after its end",
    ),
    "smaller than it says": (
        make_zip(with_first(wheel_members(), local={"size": 200}, central={"size": 200})),
        "'demo.py' is damaged: its size or checksum is wrong",
    ),
    "larger than it says": (
        make_zip(with_first(wheel_members(), local={"size": 1}, central={"size": 1})),
        "'demo.py' is larger than its header says",
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


@pytest.mark.parametrize("name", UNSAFE_NAMES, ids=repr)
def test_a_zip_member_that_leaves_its_folder_is_refused(check: Check, name: str) -> None:
    content = make_zip([Zipped(name=name.encode(), flags=0x800, method=0), *wheel_members()])
    assert refusal(check, WHEEL, content) == f"the member name {name!r}{NOT_RELATIVE}"


def test_a_member_name_has_a_limit(check: Check) -> None:
    name = b"n" * 1025
    assert refusal(check, WHEEL, make_zip([Zipped(name=name), *wheel_members()])) == (
        f"the member name {'n' * 100!r}… is longer than 1024 characters"
    )


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a.py", "a.py"], f"the archive has two members 'a.py' {TWICE}"),
        (["a/", "a"], "the member 'a' is both a file and a folder"),
        (["a/b/c", "a/b"], "the member 'a/b' is both a file and a folder"),
        (["a/b", "a-b", "a!b", "a/b/c/d"], "the member 'a/b' is both a file and a folder"),
    ],
)
def test_no_member_is_there_twice(check: Check, names: list[str], sentence: str) -> None:
    content = make_zip(
        Zipped(name=name.encode(), method=0, content=b"" if name[-1] == "/" else b"%d" % number)
        for number, name in enumerate(names)
    )
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
        f"it unpacks to {total} bytes; a file of {len(content)} bytes "
        f"may unpack to at most {64 * 2**20}"
    )


def test_a_zip_bomb_that_lies_about_its_size_is_stopped(check: Check) -> None:
    bomb = Zipped(
        name=b"zeros", packed=deflate(b"\0" * (65 * 2**20)), central={"size": 5}, local={"size": 5}
    )
    with at_most(2):
        sentence = refusal(check, WHEEL, make_zip([bomb, *wheel_members()]))
    assert sentence == "'zeros' is larger than its header says"


def test_much_that_packs_well_is_no_bomb_below_64_mib(check: Check) -> None:
    content = make_zip([Zipped(name=b"zeros", content=b"\0" * (60 * 2**20)), *wheel_members()])
    assert check(WHEEL, content) == METADATA


def test_a_zip_file_that_is_a_tar_file_too_is_refused(check: Check) -> None:
    # The first header is also a tar header, because its extra field has the right checksum.
    content = bytearray(
        make_zip(with_first(wheel_members(), local={"extra": extra(9, bytes(470))}))
    )
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    assert tarfile.is_tarfile(io.BytesIO(content))
    sentence = refusal(check, WHEEL, bytes(content))
    assert sentence == "it is a zip file and a tar file at the same time"


def test_a_tar_file_that_is_a_zip_file_too_is_refused(check: Check) -> None:
    # The zip file is in the extra field of the gzip header, and pip would unpack it.
    hidden = make_zip(wheel_members())
    plain = make_tar_gz(pkg_info())
    rest = plain[10:]
    content = plain[:3] + b"\x04" + plain[4:10] + struct.pack("<H", len(hidden)) + hidden + rest
    assert gzip.decompress(content) == gzip.decompress(plain)
    assert zipfile.is_zipfile(io.BytesIO(content))
    assert refusal(check, SDIST, content) == "it is a tar file and a zip file at the same time"
