"""What is in a record, and when it is used."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from private_pypi.distributions.records import (
    file_from_record,
    make_record,
    parse_time,
)
from private_pypi.model import Record, StoredFile, format_time
from tests.files import make_file

FILE = make_file(
    "Demo.Pkg-1.0.tar.gz",
    size=123,
    sha256="ab" * 32,
    uploaded_at=datetime(2026, 11, 21, 4, 5, 6, 7, tzinfo=UTC),
    requires_python=">=3.8",
    core_metadata_sha256="cd" * 32,
    location="here",
    summary="A demo",
    published_name="Demo.Pkg",
)

RECORD = {
    "name": "Demo.Pkg",
    "distrib": "demo-pkg",
    "sha256": "ab" * 32,
    "size": "123",
    "uploaded_at": "2026-11-21T04:05:06.000007Z",
    "requires_python": ">=3.8",
    "core_metadata_sha256": "cd" * 32,
    "summary": "A demo",
}


def stored(record: Record | None, size: int = 123) -> StoredFile:
    return StoredFile(filename=FILE.filename, size=size, location="here", stamp="1", record=record)


def test_a_record_has_the_form_and_the_facts() -> None:
    fields = [("name", "Demo.Pkg"), ("classifiers", "A"), ("classifiers", "B")]
    assert make_record(FILE, fields) == RECORD | {"classifiers": "A"}


def test_a_file_comes_back_from_its_record() -> None:
    assert file_from_record(stored(make_record(FILE, [("name", "Demo.Pkg")]))) == FILE


@pytest.mark.parametrize(
    ("given", "summary"),
    [
        ("A demo\n of a demo", "A demo of a demo"),
        ("x" * 600, "x" * 511 + "…"),
        (" ", None),
        ("UNKNOWN", None),
        ("\x1b[1mbold\x1b[0m\0", "\ufffd[1mbold\ufffd[0m\ufffd"),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?= und =?latin-1?b?Zfw=?=", "Grüße und eü"),
        ("=?utf-8?q?=1B[31mred?=", "\ufffd[31mred"),
        ("=?nonsense?q?abc?=", "=?nonsense?q?abc?="),
        ("=?utf-8?b?####?= and =?utf-8?q?=FF?=", "=?utf-8?b?####?= and =?utf-8?q?=FF?="),
        ("what=?", "what=?"),
    ],
)
def test_a_summary_is_one_line(given: str, summary: str | None) -> None:
    file = file_from_record(stored(RECORD | {"summary": given}))
    assert file == replace(FILE, summary=summary)


def test_a_file_of_which_little_is_known_comes_back_from_its_record() -> None:
    file = replace(
        FILE,
        uploaded_at=None,
        requires_python=None,
        core_metadata_sha256=None,
        summary=None,
        published_name=None,
    )
    record = make_record(file, [])
    assert record == {
        "distrib": "demo-pkg",
        "sha256": "ab" * 32,
        "size": "123",
        "requires_python": "",
    }
    assert file_from_record(stored(record)) == file


def test_a_form_cannot_speak_for_the_facts() -> None:
    file = replace(
        FILE, uploaded_at=None, requires_python=None, core_metadata_sha256=None, summary=None
    )
    fields = [(key, "evil") for key in RECORD]
    assert make_record(file, fields) == make_record(file, [("name", "evil")])


def test_names_and_keywords_come_from_the_form_or_else_from_the_metadata() -> None:
    file = replace(FILE, keywords="tides, water")
    assert file_from_record(stored(make_record(file, []))) == file
    record = make_record(file, [("name", "demo_pkg"), ("keywords", "as\nthe form says")])
    assert (record["name"], record["keywords"]) == ("demo_pkg", "as\nthe form says")
    found = file_from_record(stored(record))
    assert found is not None
    assert (found.published_name, found.keywords) == ("demo_pkg", "as the form says")


@pytest.mark.parametrize(
    "name", ["demo-pkg", "other", "demo\x1bpkg", "", "\u212aelvin", "demo-pkg\n"]
)
def test_a_name_is_shown_only_if_it_is_the_projects(name: str) -> None:
    found = file_from_record(stored({**make_record(FILE, []), "name": name}))
    assert found is not None
    assert found.published_name is None


def test_a_description_is_not_kept_in_a_record() -> None:
    fields = [("description", "short"), ("keywords", "x" * 1001)]
    assert make_record(FILE, fields).keys() - make_record(FILE, []).keys() == {"keywords"}


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        {key: value for key, value in RECORD.items() if key != "size"},  # of 0.2
        {key: value for key, value in RECORD.items() if key != "sha256"},
        RECORD | {"size": "124"},
        RECORD | {"sha256": "AB" * 32},
        RECORD | {"sha256": "ab"},
        RECORD | {"core_metadata_sha256": "evil"},
        RECORD | {"core_metadata_sha256": ""},
        RECORD | {"uploaded_at": "yesterday"},
        RECORD | {"uploaded_at": "2026-11-21T04:05:06"},
        RECORD | {"uploaded_at": "0001-01-01T00:00:00+14:00"},
    ],
)
def test_a_record_that_does_not_say_enough_is_not_believed(record: Record | None) -> None:
    assert file_from_record(stored(record)) is None


def test_a_record_beside_something_else_is_not_believed() -> None:
    file = StoredFile(filename="demo.txt", size=123, location="x", stamp="1", record=RECORD)
    assert file_from_record(file) is None


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_survive_the_way_through_text(moment: datetime) -> None:
    text = format_time(moment)
    assert parse_time(text) == moment
    assert len(text) == len("2026-11-21T04:05:06.000007Z")


def test_times_are_written_in_utc() -> None:
    zone = timezone(timedelta(hours=2))
    assert format_time(datetime(2026, 1, 1, 1, tzinfo=zone)) == "2025-12-31T23:00:00.000000Z"
    assert parse_time("2026-01-01T01:00:00+02:00") == datetime(2025, 12, 31, 23, tzinfo=UTC)


@given(st.text())
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    try:
        moment = parse_time(text)
    except ValueError:
        return
    assert moment.tzinfo is UTC
