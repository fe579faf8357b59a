"""A backend that keeps a repository in one SQLite file."""

from private_pypi_sqlite.backend import SqliteBackend, SqliteSettings

__all__ = ["SqliteBackend", "SqliteSettings"]
