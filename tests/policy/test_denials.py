"""Denials are lines of a requirements file; whatever else is in a line is a mistake."""

from __future__ import annotations

import pytest
from packaging.utils import NormalizedName

from private_pypi.backend.denials import Denial, parse_denials

LINES = """\
# A comment.

Left_Pad
requests==2.31.0 # broken with our proxy
requests < 2 , >= 1\t# too old  # really
numpy==1.26.*   #
"""


def only(line: str) -> Denial:
    [(denial,)] = parse_denials([line]).values()
    return denial


def test_lines_are_read_with_their_reasons() -> None:
    found = parse_denials(LINES.split("\n"))
    told = {
        project: [(str(each.specifier or ""), each.text, each.reason) for each in denials]
        for project, denials in found.items()
    }
    assert told == {
        "left-pad": [("", "Left_Pad", "")],
        "requests": [
            ("==2.31.0", "requests==2.31.0", "broken with our proxy"),
            ("<2,>=1", "requests < 2 , >= 1", "too old  # really"),
        ],
        "numpy": [("==1.26.*", "numpy==1.26.*", "")],
    }


@pytest.mark.parametrize(
    ("line", "denied", "others"),
    [
        ("demo", ["1.0", "2.0rc1", "what?"], []),
        ("demo==1.0", ["1.0", "1.0.0", "1.0+cu124"], ["1.0.post1", "1.1", "1.0rc1"]),
        ("demo==1.*", ["1.0", "1.9rc1", "1.2.dev3"], ["2.0"]),
        ("demo<2,>=1", ["1.0", "1.5rc1"], ["0.9", "2.0", "2.0rc1", "1.0rc1"]),
        ("demo!=1.0", ["1.1", "2.0a1"], ["1.0"]),
        ("demo===1.0", ["1.0"], ["1.1"]),
        ("demo (>=2)", ["2.0", "3.0rc1"], ["1.0"]),
    ],
)
def test_versions_are_compared_by_pep_440_with_pre_releases(
    line: str, denied: list[str], others: list[str]
) -> None:
    denial = only(line)
    assert [version for version in [*denied, *others] if denial.matches(version)] == denied


@pytest.mark.parametrize("version", ["", "latest", "1" * 5000])
def test_a_version_that_cannot_be_compared_is_denied(version: str) -> None:
    assert only("demo<1").matches(version)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("-r other.txt", "options are not allowed here"),
        ("--index-url=x", "options are not allowed here"),
        ("demo==1 --hash=sha256:00", "options are not allowed here"),
        ("demo==1 \\", "a line cannot be continued on the next one"),
        ("https://example.org/demo-1.0.tar.gz", "addresses are not allowed here"),
        ("demo @ file:///demo", "addresses are not allowed here"),
        ("demo[extra]", "extras are not allowed here"),
        ("demo; python_version < '3'", "markers (after ;) are not allowed here"),
        ("demo==", "is not a requirement"),
        ("demo<abc", "is not a requirement"),
        ("demo-*", "is not a requirement"),
        ("demo#1", "is not a requirement"),
        ("a b", "is not a requirement"),
        ("a\nb", "has control characters"),
        ("demo # \x1b[31mred", "has control characters"),
        ("demo #" + "x" * 1000, "has 1006 characters; the limit is 1000"),
    ],
)
def test_a_mistake_names_its_line(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"^line 3, ") as caught:
        parse_denials(["numpy", "", line])
    assert f": {why}" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_nothing_is_denied_by_nothing() -> None:
    assert parse_denials([]) == parse_denials(["", " # demo"]) == {}
    assert NormalizedName("demo") not in parse_denials(["demo2"])
