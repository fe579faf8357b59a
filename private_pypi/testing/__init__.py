"""What the author of a backend, or of a test, needs; no test runner is imported here.

The contract itself, which needs pytest, is `private_pypi.testing.contract.BackendContract`.
"""

from private_pypi.testing.memory import (
    LocalMemoryBackend,
    LookupMemoryBackend,
    MemoryBackend,
    MemorySettings,
    MemoryStorage,
)

__all__ = [
    "LocalMemoryBackend",
    "LookupMemoryBackend",
    "MemoryBackend",
    "MemorySettings",
    "MemoryStorage",
]
