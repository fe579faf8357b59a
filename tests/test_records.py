"""Records: what is kept beside a file, and when it is believed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from private_pypi.model import DistributionFile, Record, StoredFile
from private_pypi.records import file_from_record, format_time, make_record, parse_time

FILE = DistributionFile(
    project=canonicalize_name("demo-pkg"),
    filename="Demo.Pkg-1.0.tar.gz",
    version="1.0",
    size=123,
    sha256="ab" * 32,
    uploaded_at=datetime(2026, 11, 21, 4, 5, 6, 7, tzinfo=UTC),
    requires_python=">=3.8",
    yanked=None,
    core_metadata_sha256="cd" * 32,
    location="here",
    summary="A demo",
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
    ],
)
def test_a_summary_is_one_line(given: str, summary: str | None) -> None:
    file = file_from_record(stored(RECORD | {"summary": given}))
    assert file == replace(FILE, summary=summary)


def test_a_file_of_which_little_is_known_comes_back_from_its_record() -> None:
    file = replace(
        FILE, uploaded_at=None, requires_python=None, core_metadata_sha256=None, summary=None
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
