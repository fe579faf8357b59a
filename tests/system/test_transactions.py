"""Transactions of SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from private_pypi.system.transactions import transaction


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "numbers.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as made:
        made.execute("CREATE TABLE numbers (number INTEGER)")
        yield made


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT number FROM numbers")]


def test_all_statements_count_or_none(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        connection.execute("INSERT INTO numbers VALUES (1)")
    with pytest.raises(ZeroDivisionError), transaction(connection):
        connection.execute("INSERT INTO numbers VALUES (2)")
        raise ZeroDivisionError
    assert numbers(connection) == [1]


def test_a_commit_that_fails_leaves_nothing_open(connection: sqlite3.Connection) -> None:
    (path,) = connection.execute("SELECT file FROM pragma_database_list").fetchone()
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM numbers").fetchall()
        with pytest.raises(sqlite3.OperationalError, match="locked"), transaction(connection):
            connection.execute("INSERT INTO numbers VALUES (1)")
    with transaction(connection):
        connection.execute("INSERT INTO numbers VALUES (2)")
    assert numbers(connection) == [2]


def test_the_error_that_ended_a_transaction_is_the_one_that_is_told(
    connection: sqlite3.Connection,
) -> None:
    connection.execute("CREATE UNIQUE INDEX once ON numbers (number)")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"), transaction(connection):
        connection.execute("INSERT INTO numbers VALUES (1)")
        connection.execute("INSERT OR ROLLBACK INTO numbers VALUES (1)")
    assert numbers(connection) == []


def test_one_that_only_reads_does_not_wait_for_a_writer(connection: sqlite3.Connection) -> None:
    (path,) = connection.execute("SELECT file FROM pragma_database_list").fetchone()
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        with transaction(other), transaction(connection, immediate=False):
            assert numbers(connection) == []
        with (
            transaction(other),
            pytest.raises(sqlite3.OperationalError, match="locked"),
            transaction(connection),
        ):
            pass
