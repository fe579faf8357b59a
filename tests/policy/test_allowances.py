"""`allowed.toml` is read strictly: with a mistake in it, no allowance counts."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from packaging.utils import NormalizedName

from private_pypi.policy import Allowance, AllowanceFile
from private_pypi.policy.allowances import parse_entries
from tests.policy.sightings import DEMO, Clock, sighting

ENTRY = """\
[[allow]]
repository = "PyPI"
project = "Demo"
version = "v2.33.1"
by = "Ada Lovelace"
why = "security fix"
until = 2026-12-15T01:00:00+01:00
"""
READ = Allowance(
    repository="pypi",
    project=DEMO,
    version="v2.33.1",
    by="Ada Lovelace",
    why="security fix",
    until=datetime(2026, 12, 15, tzinfo=UTC),
)


def changed(old: str, new: str) -> str:
    assert old in ENTRY
    return ENTRY.replace(old, new)


def test_an_entry_is_read() -> None:
    assert parse_entries(ENTRY) == [READ]
    assert parse_entries("# Nothing yet.\n") == []


@pytest.mark.parametrize("until", ["2026-12-15", "2026-12-15T00:00:00", "2026-12-15 00:00:00Z"])
def test_a_date_is_its_beginning_in_utc(until: str) -> None:
    assert parse_entries(changed("2026-12-15T01:00:00+01:00", until)) == [READ]


def test_what_an_allowance_covers() -> None:
    version, file, project = (
        parse_entries(changed('version = "v2.33.1"', line))[0]
        for line in ('version = "2.33.1"', 'file = "demo-2.33.1.tar.gz"', "")
    )
    sdist = sighting("2.33.1", filename="demo-2.33.1.tar.gz").file
    wheel, spelled = sighting("2.33.1").file, sighting("2.33.1.0").file
    other = sighting("2.33.2").file
    odd = sighting("", filename="demo.tar.gz").file
    files = (sdist, wheel, spelled, other, odd)
    assert [version.covers(each) for each in files] == [True, True, True, False, False]
    assert [file.covers(each) for each in files] == [True, False, False, False, False]
    assert [project.covers(each) for each in files] == [True] * 5
    assert [each.subject for each in (version, file, project)] == [
        *("demo 2.33.1", "demo-2.33.1.tar.gz", "demo (all versions)"),
    ]


def test_the_entry_for_the_audit_log_is_json() -> None:
    assert json.loads(json.dumps(READ.entry())) == {
        "repository": "pypi",
        "project": "demo",
        "version": "v2.33.1",
        "by": "Ada Lovelace",
        "why": "security fix",
        "until": "2026-12-15T00:00:00Z",
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("allow", "it is not TOML: "),
        ("a = " + "[" * 5000, "it is not TOML: "),
        ("a = " + "1" * 5000, "it is not TOML: "),
        ("allow = 1", "'allow' must be written as tables [[allow]]"),
        ("[allow]", "'allow' must be written as tables [[allow]]"),
        ("[[allowed]]", "unknown key 'allowed'; it may only have tables [[allow]]"),
        ("[[allow]]", "[[allow]] 1: 'repository' is missing"),
        (changed("by =", "from ="), "[[allow]] 1: unknown key 'from'; it may have repository, "),
        (ENTRY + changed('by = "Ada Lovelace"', ""), "[[allow]] 2: 'by' is missing"),
        (changed("Ada Lovelace", " "), "[[allow]] 1: 'by' is empty"),
        (changed('"Ada Lovelace"', "7"), "[[allow]] 1: 'by' must be a text in quotes, not 7"),
        (changed('"v2.33.1"', "2.3"), "[[allow]] 1: 'version' must be a text in quotes, not 2.3"),
        (changed("v2.33.1", "new"), "[[allow]] 1: 'version': 'new' is not a version"),
        (changed("Demo", "Demo*"), "[[allow]] 1: 'project': 'Demo*' is not the name of a project"),
        (changed("security", "\\u001b"), "[[allow]] 1: 'why' must have at most 500 printable"),
        (changed("security", "x" * 500), "[[allow]] 1: 'why' must have at most 500 printable"),
        (
            changed("2026-12-15T01:00:00+01:00", '"2026-12-15"'),
            "[[allow]] 1: 'until' must be a date or an instant without quotes",
        ),
        (
            changed("2026-12-15T01:00:00+01:00", "0001-01-01T00:00:00+02:00"),
            "[[allow]] 1: 'until' is out of range",
        ),
        (
            changed("by =", 'file = "demo-2.33.1.tar.gz"\nby ='),
            "[[allow]] 1: it has 'version' and 'file'; it may only have one of them",
        ),
        (
            changed('version = "v2.33.1"', 'file = "numpy-1.0.tar.gz"'),
            "[[allow]] 1: 'file': 'numpy-1.0.tar.gz' is a file of numpy, not of demo",
        ),
        (
            changed('version = "v2.33.1"', 'file = "demo.exe"'),
            "[[allow]] 1: 'file': invalid distribution filename 'demo.exe'",
        ),
    ],
)
def test_mistakes(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}"):
        parse_entries(text)


def test_a_file_is_reloaded_and_fails_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    path = tmp_path / "allowed.toml"
    file = AllowanceFile(path, clock=clock)

    def after(text: str) -> object:
        path.write_text(text)
        clock.now += 2
        return file.for_repository("PYPI")

    assert (file.for_repository("pypi"), file.problem) == ({}, None)
    of_nothing = file.generation
    assert after(ENTRY) == {DEMO: (READ,)}
    assert file.for_repository("other") == {}
    of_entry = file.generation
    with caplog.at_level(logging.ERROR):
        assert after(ENTRY + "[[allow]]\n") == {}
        clock.now += 2
        assert file.for_repository("pypi") == {}
    sentence = "allowed.toml: [[allow]] 2: 'repository' is missing; no allowance counts"
    assert file.problem == sentence
    assert caplog.messages == [f"{path.parent}/{sentence}"]
    assert len({of_nothing, of_entry, file.generation}) == 3
    assert after(ENTRY) == {NormalizedName("demo"): (READ,)}
    assert (file.generation, file.problem) == (of_entry, None)
