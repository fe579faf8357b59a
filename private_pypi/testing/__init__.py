"""Tools for tests: backends in memory, and small distribution files (`testing.distributions`).

The tests that every backend has to pass are in `private_pypi.testing.contract`. They need pytest,
which is not imported here.
"""

from private_pypi.testing.memory import (
    LocalMemoryBackend,
    LookupMemoryBackend,
    LookupMemoryStorage,
    Memory,
    MemoryBackend,
    MemorySettings,
    MemoryStorage,
)

__all__ = [
    "LocalMemoryBackend",
    "LookupMemoryBackend",
    "LookupMemoryStorage",
    "Memory",
    "MemoryBackend",
    "MemorySettings",
    "MemoryStorage",
]
