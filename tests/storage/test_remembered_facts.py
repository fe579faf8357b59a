"""Facts that are remembered by digest, and lost without harm."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from private_pypi.errors import InvalidUpload
from private_pypi.model import StoredFile
from private_pypi.storage import remembered_facts
from private_pypi.storage.remembered_facts import RememberedFacts
from tests.files import make_file

STORED = StoredFile(
    filename="demo-1.0.tar.gz",
    size=7,
    location="here",
    stamp="1",
    record=None,
    sha256="ab" * 32,
    uploaded_at=datetime(2026, 11, 20, tzinfo=UTC),
)
FILE = make_file(
    "demo-1.0.tar.gz",
    size=7,
    sha256="ab" * 32,
    uploaded_at=datetime(2026, 11, 20, tzinfo=UTC),
    requires_python=">=3.8",
    core_metadata_sha256="cd" * 32,
    location="here",
    summary="a demo",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "facts.sqlite"


@pytest.fixture
def facts(path: Path) -> Iterator[RememberedFacts]:
    facts = RememberedFacts(path)
    assert not path.exists()
    yield facts
    facts.close()


def test_a_digest_stands_for_the_same_bytes_wherever_they_lie(
    facts: RememberedFacts, path: Path
) -> None:
    facts.keep(STORED, "ann", FILE)
    elsewhere = replace(
        STORED,
        location="there",
        stamp="2",
        yanked="bad",
        uploaded_at=datetime(2027, 1, 1, tzinfo=UTC),
    )
    for reader in (facts, RememberedFacts(path)):
        assert reader.find(STORED, "ann") == FILE
        assert reader.find(elsewhere, "ben") == replace(
            FILE, location="there", yanked="bad", uploaded_at=datetime(2027, 1, 1, tzinfo=UTC)
        )
        for other in (
            replace(STORED, sha256="00" * 32),
            replace(STORED, size=8),
            replace(STORED, filename="demo-1.0.zip"),  # whether it fits was not looked at
        ):
            assert reader.find(other, "ann") is None


def test_without_a_digest_they_hold_for_a_stamp_in_one_place(facts: RememberedFacts) -> None:
    stored = replace(STORED, sha256=None)
    facts.keep(stored, "ann", FILE)
    assert facts.find(stored, "ann") == FILE
    assert facts.find(stored, "ben") is None
    assert facts.find(replace(stored, stamp="2"), "ann") is None
    assert facts.find(STORED, "ann") is None


def test_what_is_wrong_with_a_file_is_remembered_too(facts: RememberedFacts) -> None:
    facts.keep(STORED, "ann", InvalidUpload("it is broken"))
    found = facts.find(STORED, "ben")
    assert isinstance(found, InvalidUpload)
    assert str(found) == "it is broken"


def test_facts_of_another_version_are_found_out_anew(facts: RememberedFacts, path: Path) -> None:
    facts.keep(STORED, "ann", FILE)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute('UPDATE facts SET facts = \'{"version": "1.0"}\'')
    connection.close()
    assert facts.find(STORED, "ann") is None


def test_facts_that_lack_what_a_later_version_added_still_hold(
    facts: RememberedFacts, path: Path
) -> None:
    facts.keep(STORED, "ann", replace(FILE, published_name="De.mo", keywords="tides"))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE facts SET facts = json_remove(facts, '$.published_name')")
    connection.execute("UPDATE facts SET facts = json_remove(facts, '$.keywords')")
    connection.close()
    assert facts.find(STORED, "ann") == FILE


def test_a_damaged_file_is_begun_anew(facts: RememberedFacts, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 1000)
    assert facts.find(STORED, "ann") is None
    facts.keep(STORED, "ann", FILE)
    assert facts.find(STORED, "ann") == FILE


def test_a_file_that_cannot_be_written_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    facts = RememberedFacts(tmp_path / "file" / "facts.sqlite")
    facts.keep(STORED, "ann", FILE)
    assert facts.find(STORED, "ann") is None


def test_the_oldest_are_forgotten(facts: RememberedFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered_facts, "_MOST", 5)
    monkeypatch.setattr(remembered_facts, "_SWEEP_EVERY", 10)
    clock = iter(range(1000))
    monkeypatch.setattr("private_pypi.storage.remembered_facts.time.time", lambda: next(clock))
    stored = [replace(STORED, sha256=f"{number:064x}") for number in range(10)]
    for each in stored:
        facts.keep(each, "ann", FILE)
    assert [facts.find(each, "ann") is None for each in stored] == [True] * 5 + [False] * 5
