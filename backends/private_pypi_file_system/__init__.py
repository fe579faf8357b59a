"""The backend that keeps distribution files in a folder."""

from private_pypi_file_system.backend import FileSystemBackend

__all__ = ["FileSystemBackend"]
