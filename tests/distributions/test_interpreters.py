"""Which files suit which interpreter: what pip and uv would install there."""

from __future__ import annotations

import pytest

from private_pypi.distributions.interpreters import parse_interpreter, parse_wanted

LINUX = "manylinux_2_28_x86_64"


@pytest.mark.parametrize(
    ("python", "platform", "tags"),
    [
        ("3.11", LINUX, "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"),
        ("3.11", LINUX, "cp311-cp311-manylinux_2_28_x86_64"),
        ("3.11", LINUX, "cp39-abi3-manylinux1_x86_64"),
        ("3.11", LINUX, "py3-none-linux_x86_64"),
        ("3.11", LINUX, "py2.py3-none-any"),
        ("3.11.4", "manylinux2014_aarch64", "cp311-cp311-manylinux_2_17_aarch64"),
        ("3.11", "musllinux_1_2_x86_64", "cp311-cp311-musllinux_1_1_x86_64"),
        ("3.12", "macosx_14_0_arm64", "cp312-cp312-macosx_11_0_universal2"),
        ("3.12", "macosx-14.0-arm64", "cp312-cp312-macosx_12_0_arm64"),
        ("3.12", "win_amd64", "cp312-cp312-win_amd64"),
        ("3.13t", "win_amd64", "cp313-cp313t-win_amd64"),
        ("3.7", LINUX, "cp37-cp37m-manylinux1_x86_64"),
        ("2.7", LINUX, "cp27-cp27mu-manylinux1_x86_64"),
        ("3.11", None, "cp311-cp311-win_amd64"),
        (None, "win_amd64", "cp27-cp27m-win_amd64"),
        (None, "win_amd64", "py3-none-any"),
        (None, None, "cp27-cp27m-os2"),
    ],
)
def test_wheels_that_suit(python: str | None, platform: str | None, tags: str) -> None:
    assert parse_interpreter(python, platform).objection(f"demo-1.0-{tags}.whl", None) is None


@pytest.mark.parametrize(
    ("python", "platform", "tags", "why"),
    [
        ("3.11", LINUX, "cp312-cp312-manylinux_2_17_x86_64", "for cp312, and this is CPython 3.11"),
        ("3.11", LINUX, "cp312-abi3-any", "for cp312, abi3, and this is CPython 3.11"),
        ("3.11", LINUX, "py2-none-any", "for py2, and this is CPython 3.11"),
        ("3.11", LINUX, "cp311-cp311-manylinux_2_34_x86_64", f"34_x86_64, and this is {LINUX}"),
        ("3.11", LINUX, "cp311-cp311-manylinux_2_17_aarch64", f"17_aarch64, and this is {LINUX}"),
        ("3.11", LINUX, "cp311-cp311-musllinux_1_1_x86_64", f"1_1_x86_64, and this is {LINUX}"),
        ("3.11", "macosx_12_0_arm64", "cp311-cp311-macosx_14_0_arm64", "macosx_14_0_arm64, and"),
        ("3.13t", "win_amd64", "cp313-cp313-win_amd64", "for cp313, and this is CPython 3.13t"),
        ("3.13t", "win_amd64", "cp39-abi3-win_amd64", "for cp39, abi3, and this is CPython 3.13t"),
        ("3.11", None, "cp312-cp312-win_amd64", "for cp312"),
        (None, "win_amd64", "py3-none-win32", "for win32, and this is win_amd64"),
    ],
)
def test_wheels_that_do_not_suit(
    python: str | None, platform: str | None, tags: str, why: str
) -> None:
    told = parse_interpreter(python, platform).objection(f"demo-1.0-{tags}.whl", None)
    assert told is not None
    assert why in told


@pytest.mark.parametrize(
    ("python", "requires", "suits"),
    [
        ("3.11", ">=3.11.3", True),  # 3.11 stands for all of its releases
        ("3.11", "<3.11.1,>=3.11", True),
        ("3.11", ">=3.12", False),
        ("3.11.2", ">=3.11.3", False),
        ("3.11.3", ">=3.11.3", True),
        ("3.14.0rc1", ">=3.14.0rc1", True),
        ("3.14.0rc1", ">=3.14", False),
        ("3.11", "<4,>=2.7,!=3.11.*", False),
        ("3.11", "three", True),  # ignored, as pip does
        ("3.11", f">={'9' * 5000}", True),
        (None, ">=3.12", True),
    ],
)
@pytest.mark.parametrize("filename", ["demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl"])
def test_requires_python(python: str | None, requires: str, suits: bool, filename: str) -> None:
    told = parse_interpreter(python).objection(filename, requires)
    assert (told is None) == suits
    assert suits or told == f"it requires Python {requires}, and this is {python}"


@pytest.mark.parametrize("text", ["", "3", "3.x", "311", "0.9", "3.11.1.1", "py3.11", "9" * 5000])
def test_what_is_no_version_of_python(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be like 3\.11, 3\.11\.4 or 3\.13t") as raised:
        parse_interpreter(text)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "must be like manylinux_2_28_x86_64"),
        ("amiga", "win_amd64"),
        ("any", "win_amd64"),
        ("linux_x86_64", "manylinux_2_28_x86_64 (glibc 2.28) or musllinux_1_2_x86_64"),
        ("macosx_9_0_ppc", "macosx_14_0_arm64"),
        ("manylinux_2_999_x86_64", "win_amd64"),
        ("x" * 5000, "win_amd64"),
    ],
)
def test_what_is_no_platform(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match="must be like") as raised:
        parse_interpreter(None, text)
    assert hint in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("text", "of", "others"),
    [
        ("1.0", ["1.0", "1", "1.0.0"], ["1.0.1", "1.0rc1", "1.0+cpu"]),
        ("v2", ["2.0"], ["2.1"]),
        (">=1,<2", ["1.0", "1.5rc1"], ["2.0", "0.9"]),
        ("==1.0", ["1.0", "1.0+cpu"], ["1.1"]),
        ("~=1.4", ["1.9"], ["2.0"]),
    ],
)
def test_versions_that_are_wanted(text: str, of: list[str], others: list[str]) -> None:
    is_wanted = parse_wanted(text)
    assert [each for each in (*of, *others) if is_wanted(each)] == of


@pytest.mark.parametrize("text", ["", " ", "newest", "=1", "1" * 300, ">=" + "9" * 190 + "x"])
def test_what_is_no_wanted_version(text: str) -> None:
    with pytest.raises(ValueError, match="neither a version nor a specifier"):
        parse_wanted(text)
