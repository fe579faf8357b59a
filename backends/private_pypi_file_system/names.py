"""Which names in a storage folder can be those of distribution files."""

from __future__ import annotations

import hashlib
import os

LONGEST_FILENAME = 255 - len(".metadata")
"""Bytes. Most file systems allow 255, and the core metadata have the longest name of a file."""

_SUFFIXES = (".whl", ".tar.gz", ".zip")
_BUCKETS = 256


def is_distribution(name: str) -> bool:
    """Whether this can be the name of a distribution file, by its suffix."""
    return name.endswith(_SUFFIXES) and is_plain(name)


def is_plain(name: str) -> bool:
    """Whether this is a single component of a path that is not hidden."""
    return name.isprintable() and "/" not in name and not name.startswith(".") and bool(name)


def bucket_of(filename: str) -> str:
    """The bucket of a filename: all files of one bucket share one lock.

    So the number of lock files is limited. In one of 256 cases, two unrelated uploads wait for each
    other.
    """
    return f"{hashlib.sha256(os.fsencode(filename)).digest()[0] % _BUCKETS:02x}"
