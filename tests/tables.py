"""Tables of a configuration as they are once they are checked."""

from __future__ import annotations

from datetime import timedelta

from private_pypi.backend import Backend, Secret
from private_pypi.configuration.config import RepositorySettings
from private_pypi.testing.memory import Memory, MemoryBackend, MemorySettings


def memory_table(
    storage: Memory,
    name: str = "mine",
    backend_class: type[Backend[MemorySettings]] = MemoryBackend,
) -> RepositorySettings:
    """A repository over a storage in memory, with the admin secret "write"."""
    return RepositorySettings(
        name=name,
        type="memory",
        backend_class=backend_class,
        backend=MemorySettings(name=name, max_file_bytes=1 << 30, storage=storage),
        max_file_bytes=1 << 30,
        sync_index_interval=timedelta(hours=1),
        stale_for=timedelta(hours=1),
        extra_index_url=None,
        claimed=(),
        anonymous_read=False,
        admin_secret=Secret("write"),
    )
