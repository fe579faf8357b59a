"""What a wheel, or a source distribution in a zip file, must contain."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from private_pypi.testing.distributions import make_wheel
from tests.archives_by_hand import (
    PKG_INFO,
    Zipped,
    make_zip,
    wheel_members,
)
from tests.distributions.archive_checks import (
    CODE,
    FIRST,
    METADATA,
    MISSING,
    NOT_RELATIVE,
    NOT_THE_FOLDER,
    NOT_THE_TOP,
    ZIP_SDIST,
    Check,
    refusal,
    warnings_about,
)
from tests.distributions.test_archive_bounds import WHEEL

# -- wheels --------------------------------------------------------------------------------------

BAD_WHEELS: dict[str, tuple[list[Zipped], str]] = {
    "no dist-info": (
        [FIRST],
        "a wheel must have exactly one .dist-info folder, but this one has none",
    ),
    "two dist-infos": (
        [*wheel_members(), Zipped(name=b"other-2.0.dist-info/METADATA")],
        "a wheel must have exactly one .dist-info folder, but this one has "
        "demo-1.0.dist-info, other-2.0.dist-info",
    ),
    "two dist-infos in other cases": (
        [*wheel_members(), Zipped(name=b"demo-1.0.DIST-INFO/METADATA")],
        "a wheel must have exactly one .dist-info folder, but this one has "
        "demo-1.0.DIST-INFO, demo-1.0.dist-info",
    ),
    "a dist-info of another project": (
        [replace(m, name=m.name.replace(b"demo-1.0.", b"evil-1.0.")) for m in wheel_members()],
        f"the folder 'evil-1.0.dist-info' {NOT_THE_FOLDER}",
    ),
    "a dist-info of another version": (
        [replace(m, name=m.name.replace(b"demo-1.0.", b"demo-1.1.")) for m in wheel_members()],
        f"the folder 'demo-1.1.dist-info' {NOT_THE_FOLDER}",
    ),
    "a dist-info of no version": (
        [replace(m, name=m.name.replace(b"demo-1.0.", b"demo.")) for m in wheel_members()],
        f"the folder 'demo.dist-info' {NOT_THE_FOLDER}",
    ),
    "a dist-info in capitals": (
        [replace(m, name=m.name.replace(b"dist-info", b"DIST-INFO")) for m in wheel_members()],
        f"the folder 'demo-1.0.DIST-INFO' {NOT_THE_FOLDER}",
    ),
    "a dist-info with a version too long to be one": (
        [Zipped(name=b"demo-" + b"1" * 600 + b".dist-info/METADATA")],
        f"the folder 'demo-{'1' * 600}.dist-info' {NOT_THE_FOLDER}",
    ),
    "no METADATA": (wheel_members(METADATA=None), f"demo-1.0.dist-info/METADATA{MISSING}"),
    "no WHEEL": (wheel_members(WHEEL=None), f"demo-1.0.dist-info/WHEEL{MISSING}"),
    "no RECORD": (wheel_members(RECORD=None), f"demo-1.0.dist-info/RECORD{MISSING}"),
    "METADATA in a folder of dist-info": (
        [*wheel_members(METADATA=None), Zipped(name=b"demo-1.0.dist-info/x/METADATA")],
        f"demo-1.0.dist-info/METADATA{MISSING}",
    ),
    "a wheel of version 2": (
        wheel_members(WHEEL=b"Wheel-Version: 2.0\n"),
        "Wheel-Version in demo-1.0.dist-info/WHEEL must be 1.x, but is 2.0",
    ),
    "a wheel of version 0.2": (
        wheel_members(WHEEL=b"Wheel-Version: 0.2\n"),
        "Wheel-Version in demo-1.0.dist-info/WHEEL must be 1.x, but is 0.2",
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
        "at most 16777216 are accepted",
    ),
}


@pytest.mark.parametrize(("members", "sentence"), BAD_WHEELS.values(), ids=BAD_WHEELS)
def test_a_wheel_has_what_a_wheel_has(check: Check, members: list[Zipped], sentence: str) -> None:
    assert refusal(check, WHEEL, make_zip(members)) == sentence


@pytest.mark.parametrize("version", [b"0.1", b"1.0", b"1.9"])
def test_a_wheel_may_be_older_than_the_specification(check: Check, version: bytes) -> None:
    members = wheel_members(WHEEL=b"Wheel-Version: %b\n" % version)
    assert check(WHEEL, make_zip(members)) == METADATA


def test_entry_points_may_have_a_name_twice_and_colons(check: Check) -> None:
    points = b"[console_scripts]\ndemo:x = demo:main\ndemo:x = demo:main\n\n[empty]\n"
    assert check(WHEEL, make_zip(wheel_members(entry_points=points))) == METADATA


INFO = b"demo-1.0.dist-info/"
TOLD_RECORDS: dict[bytes, str] = {
    INFO + b"METADATA,,\n" + INFO + b"WHEEL,,\n": "1 rows of RECORD are wrong: "
    "'demo.py' is missing",
    INFO + b"METADATA,,\n" + INFO + b"WHEEL,,\ndemo.py,,3\n": "1 rows of RECORD are wrong: "
    "'demo.py' has 144 bytes, not '3'",
    INFO + b"METADATA,,\r\n" + INFO + b"WHEEL,,\r\ndemo.py,,\r\ngone.py,,": "1 rows of RECORD are "
    "wrong: 'gone.py' is not in the wheel",
    INFO + b"METADATA,,\r" + INFO + b"WHEEL,,\rdemo.py,,\rgone.py,,\r": "1 rows of RECORD are "
    "wrong: 'gone.py' is not in the wheel",
    INFO + b"METADATA,,\n" + INFO + b"WHEEL,md5=x,\ndemo.py,,\ndemo.py,,\n": "1 rows of RECORD are "
    "wrong: 'demo.py' is listed twice",
    b"demo.py,,1\n" + b"x,,\n" * 2000: "1000 or more rows of RECORD are wrong: "
    "'demo.py' has 144 bytes, not '1'",
}


@pytest.mark.parametrize(("record", "sentence"), TOLD_RECORDS.items(), ids=range(len(TOLD_RECORDS)))
def test_a_record_that_disagrees_is_only_told(tmp_path: Path, record: bytes, sentence: str) -> None:
    content = make_zip(wheel_members(RECORD=record))
    assert warnings_about(tmp_path, WHEEL, content) == [sentence]


# pip or uv refuses to install wheels with these.
UNREADABLE_RECORDS: dict[bytes, str] = {
    b"\xff,,": "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    b"demo.py,,\n\n": "a row has 0 columns; each must have 3: path, hash and size",
    b"demo.py\n": "a row has 1 columns; each must have 3: path, hash and size",
    b"demo.py,,,\ndemo.py,,\n": "a row has 3 columns; each must have 3: path, hash and size",
    b'"demo.py\n",,\n': "a row has 1 columns; each must have 3: path, hash and size",
    b"demo.py,,-1\n": "the size of 'demo.py' is not a number: '-1'",
    "demo.py,,²\n".encode(): "the size of 'demo.py' is not a number: '²'",
    b"x" * (csv.field_size_limit() + 1): "field larger than field limit (131072)",
    b"," * 2**19: "a line is longer than 262144 bytes",
}


@pytest.mark.parametrize(
    ("record", "why"), UNREADABLE_RECORDS.items(), ids=range(len(UNREADABLE_RECORDS))
)
def test_a_record_that_installers_cannot_read_is_refused(
    check: Check, record: bytes, why: str
) -> None:
    assert refusal(check, WHEEL, make_zip(wheel_members(RECORD=record))) == (
        f"demo-1.0.dist-info/RECORD cannot be read: {why}"
    )


def test_members_of_a_zip_file_may_be_there_twice_with_the_same_content(tmp_path: Path) -> None:
    same = Zipped(name=b"demo.py", content=CODE, method=0)
    wheel = make_zip([same, *wheel_members()])
    told = "the member 'demo.py' is repeated, with the same content"
    assert warnings_about(tmp_path, WHEEL, wheel) == [told]
    sdist = zip_sdist(*[Zipped(name=b"demo-1.0/a", content=b"1")] * 2)
    assert warnings_about(tmp_path, ZIP_SDIST, sdist) == [told.replace(".py", "-1.0/a")]


def test_a_record_that_agrees_is_not_mentioned(tmp_path: Path) -> None:
    content = make_zip([*wheel_members(), Zipped(name=b"demo-1.0.dist-info/RECORD.p7s")])
    assert warnings_about(tmp_path, WHEEL, content) == []
    odd = make_wheel(files={'a, "b".py': b"x", "c/d.py": b""})
    assert warnings_about(tmp_path, *odd) == []


# -- zip sdists ----------------------------------------------------------------------------------


def zip_sdist(*members: Zipped) -> bytes:
    return make_zip([Zipped(name=b"demo-1.0/PKG-INFO", content=PKG_INFO), *members])


def test_a_zip_sdist_has_one_top_folder_with_pkg_info(check: Check) -> None:
    assert check(ZIP_SDIST, zip_sdist(Zipped(name=b"demo-1.0/src/PKG-INFO"))) == PKG_INFO
    assert refusal(check, ZIP_SDIST, zip_sdist(Zipped(name=b"setup.py"))) == (
        "an sdist must have exactly one top folder, but this one has demo-1.0, setup.py"
    )
    assert refusal(check, ZIP_SDIST, make_zip([Zipped(name=b"demo-1.0/a.py")])) == (
        "demo-1.0/PKG-INFO is missing; every sdist must have it"
    )
    assert refusal(check, ZIP_SDIST, make_zip([Zipped(name=b"demo-2.0/PKG-INFO")])) == (
        f"the top folder 'demo-2.0' {NOT_THE_TOP}"
    )
    assert refusal(check, ZIP_SDIST, make_zip([])) == (
        "an sdist must have exactly one top folder, but this one has none"
    )
    assert refusal(check, ZIP_SDIST, zip_sdist(Zipped(name=b"demo-1.0/../../x"))) == (
        f"the member name 'demo-1.0/../../x'{NOT_RELATIVE}"
    )
