"""The backend that keeps a repository in one SQLite file; it opens no distribution file."""

from private_pypi_sqlite.backend import SqliteBackend, SqliteSettings

__all__ = ["SqliteBackend", "SqliteSettings"]
