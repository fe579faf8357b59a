"""Odd archives: what we take uv installs, and what we refuse for its sake it refuses as well.

That pip reads what we take as `zipfile` and `tarfile` do is shown by test_archives.py of
tests/distributions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final
from unicodedata import category

import pytest

from tests.archives_by_hand import Zipped, make_tar_gz, make_zip, pax, tar_member, wheel_members
from tests.distributions.archive_checks import Check, check, refusal
from tests.distributions.test_archive_readers import HIDDEN_NAMES, UNUSUAL_NAMES
from tests.distributions.test_wheels import TOLD_RECORDS, UNREADABLE_RECORDS
from tests.distributions.test_zip_archives import BAD_ZIPS, GOOD_ZIPS

from .environments import Client, Outcome

pytestmark = pytest.mark.needs("clients")

__all__ = ["check"]  # the fixture

WHEEL: Final = "demo-1.0-py3-none-any.whl"
SDIST: Final = "demo-1.0.tar.gz"


def named(name: str) -> bytes:
    return make_zip([Zipped(name=name.encode(), flags=0x800), *wheel_members()])


TAKEN: Final = (
    GOOD_ZIPS
    | {
        f"named {name!a}": named(name)
        for name in UNUSUAL_NAMES
        if "Cn" not in map(category, name)  # the Unicode of uv may know it, or not
    }
    | {f"RECORD {n}": make_zip(wheel_members(RECORD=r)) for n, r in enumerate(TOLD_RECORDS)}
    | {
        "of version 0.1": make_zip(wheel_members(WHEEL=b"Wheel-Version: 0.1\n")),
        "a member twice": make_zip([*wheel_members()[:1], *wheel_members()]),
    }
)
# Where pip is the one that fails, and a line break in a name, which no member can have.
NOT_BY_UV: Final = {b"demo.py,,\n\n", b'"demo.py\n",,\n'}
REFUSED: Final = (
    {
        name: BAD_ZIPS[name][0]
        for name in (
            "times twice",
            "padding that is an extra field twice",
            "zip64 sizes that are not needed",
            "more zip64 sizes than are needed",
        )
    }
    | {f"named {name!a}": named(name) for name in HIDDEN_NAMES}
    | {
        f"RECORD {ascii(record)[:20]}": make_zip(wheel_members(RECORD=record))
        for record in UNREADABLE_RECORDS
        if len(record) < 100 and record not in NOT_BY_UV
    }
    | {"of version 0.2": make_zip(wheel_members(WHEEL=b"Wheel-Version: 0.2\n"))}
    | {"names of code page 437": make_zip([Zipped(name=b"gr\x94\xe1e.txt"), *wheel_members()])}
)

# Builds without anything from elsewhere.
BACKEND: Final = b"""\
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    info = "demo-1.0.dist-info/"
    with zipfile.ZipFile(f"{folder}/demo-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return "demo-1.0-py3-none-any.whl"
"""
PYPROJECT: Final = (
    b'[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["."]\n'
    b'[project]\nname = "demo"\nversion = "1.0"\n'
)
SOURCE: Final = [
    tar_member(b"demo-1.0/PKG-INFO", b"Metadata-Version: 2.2\nName: demo\nVersion: 1.0\n"),
    tar_member(b"demo-1.0/pyproject.toml", PYPROJECT),
    tar_member(b"demo-1.0/b.py", BACKEND),
]


def install(uv: Client, folder: Path, filename: str, content: bytes) -> Outcome:
    path = folder / filename
    path.parent.mkdir()
    path.write_bytes(content)
    target = folder / "installed"
    return uv.run("pip", "install", "--no-index", "--no-deps", "--target", target, path)


def test_uv_installs_the_wheels_that_are_taken(
    client: Callable[[str], Client], check: Check, tmp_path: Path
) -> None:
    uv = client("uv")
    for number, (what, content) in enumerate(TAKEN.items()):
        check(WHEEL, content)
        outcome = install(uv, tmp_path / str(number), WHEEL, content)
        assert outcome.code == 0, (what, outcome.output)


def test_uv_refuses_the_wheels_that_are_refused_for_its_sake(
    client: Callable[[str], Client], check: Check, tmp_path: Path
) -> None:
    uv = client("uv")
    for number, (what, content) in enumerate(REFUSED.items()):
        refusal(check, WHEEL, content)
        outcome = install(uv, tmp_path / str(number), WHEEL, content)
        assert outcome.code != 0, (what, outcome.output)


@pytest.mark.parametrize("name", ["pip", "uv"])
def test_an_sdist_that_is_odd_is_installed(
    name: str, client: Callable[[str], Client], check: Check, tmp_path: Path
) -> None:
    odd = [
        tar_member(b"demo-1.0/src/", kind=b"5"),
        tar_member(b"demo-1.0/a.c", b"1"),
        tar_member(b"demo-1.0/link", kind=b"2", target=b"a.c"),
        *(
            pax((b"path", f"demo-1.0/{name}".encode())) + tar_member(b"x")
            for name in (*UNUSUAL_NAMES, *HIDDEN_NAMES)
        ),
    ]
    content = make_tar_gz(*SOURCE, *odd, *odd) + bytes(512)
    check(SDIST, content)
    path = tmp_path / SDIST
    path.write_bytes(content)
    words = ["pip"] if name == "uv" else []
    outcome = client(name).run(
        *words, "install", "--no-index", "--no-deps", "--target", tmp_path / "installed", path
    )
    assert outcome.code == 0, outcome.output
