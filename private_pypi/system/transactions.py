"""Transactions of SQLite that leave the connection usable however they end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def transaction(connection: sqlite3.Connection, *, immediate: bool = True) -> Iterator[None]:
    """A transaction that is committed at the end, or rolled back if anything fails.

    `immediate`: take the lock for writing at once, and not at the first statement that writes.
    `connection` has no isolation level, so that it begins nothing itself. Raises `sqlite3.Error`.
    """
    connection.execute("BEGIN IMMEDIATE" if immediate else "BEGIN")
    try:
        yield
        # A commit that fails, such as with a full disk, leaves the transaction open.
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # after some errors, SQLite has ended it already
            connection.execute("ROLLBACK")
        raise
