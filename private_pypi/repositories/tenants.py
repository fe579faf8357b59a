"""The tenants of one table of the configuration.

A tenant is a repository that has no table of its own: it is served by another repository's table
(`SupportsTenants`), under the user name that a request gives with its secret. For example, a table
of type `github_projects` may serve each owner on GitHub as a tenant. Tenants are opened when a
request needs them, and closed when they were not used for long.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from private_pypi.backend import BackendSettings
from private_pypi.errors import BackendUnavailable
from private_pypi.repositories.stored import StoredRepository

_MOST = 32  # tenants of one table that are open at the same time
_REQUESTS = 60.0  # seconds after which the requests to a tenant have ended
# A name is a part of paths, so it must not lead out of a folder.
_NAME = re.compile(r"[a-z0-9][a-z0-9._~+-]{0,199}")

RepositoryT = TypeVar("RepositoryT", bound=StoredRepository)


@dataclass(slots=True)
class _Tenant(Generic[RepositoryT]):
    repository: RepositoryT
    used_at: float  # time.monotonic()


class Tenants(Generic[RepositoryT]):
    """The open tenants of one table, which is called `table` in messages."""

    def __init__(
        self,
        table: str,
        settings: Callable[[str], BackendSettings | None],
        make: Callable[[str, BackendSettings], RepositoryT],
    ) -> None:
        """`settings` gives those of the tenant with a name, or None if there is no such tenant; it
        asks no storage. `make` opens a tenant.
        """
        self._table = table
        self._settings = settings
        self._make = make
        self._open: OrderedDict[str, _Tenant[RepositoryT]] = OrderedDict()
        self._lock = threading.Lock()  # guards _open

    def has(self, user: str) -> bool:
        """Whether a user name (lower case) is that of a tenant; opens nothing."""
        return self._settings_of(user) is not None

    def get(self, user: str) -> RepositoryT | None:
        """The tenant with this user name (lower case); None: there is none.

        Call it only for secrets that the storage accepts, because each tenant takes memory.
        """
        settings = self._settings_of(user)
        if settings is None:
            return None
        with self._lock:
            tenant = self._open.get(user)
            if tenant is None:
                self._make_room()
                tenant = _Tenant(self._make(user, settings), 0.0)
                self._open[user] = tenant
            tenant.used_at = time.monotonic()
            self._open.move_to_end(user)
        return tenant.repository

    def close(self) -> None:
        """Close all tenants."""
        with self._lock:
            tenants = [tenant.repository for tenant in self._open.values()]
            self._open.clear()
        for tenant in tenants:
            tenant.close()

    def _settings_of(self, user: str) -> BackendSettings | None:
        return self._settings(user) if _NAME.fullmatch(user) else None

    def _make_room(self) -> None:
        while len(self._open) >= _MOST:
            over = time.monotonic() - _REQUESTS
            # The tenant that was not used for the longest time. A tenant without an index can be
            # closed even during a request. So made-up names do not displace tenants in use.
            ended = (
                user
                for user, tenant in self._open.items()
                if tenant.used_at <= over or not tenant.repository.has_index()
            )
            user = next(ended, None)
            if user is None:
                raise BackendUnavailable(
                    f"too many tenants of {self._table!r} at once", retry_after=30
                )
            self._open.pop(user).repository.close()
