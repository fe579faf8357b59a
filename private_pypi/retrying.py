"""Any backend with patience: the only place that retries, and it knows nothing of any storage.

Single calls that may be repeated without harm are tried again after `BackendUnavailable`. A listing
that breaks starts again and leaves out what it gave already. A stream that has begun is not tried
again: its reader has the first half.

`write_index` is not tried again either. After a lost answer nobody knows whether it was written; a
second try would find its own document and say `StaleIndex`, although no other writer was there.
Whoever writes the index reads it again first, and so learns what is true.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from private_pypi.backend import (
    Access,
    AnyBackend,
    Backend,
    Known,
    SupportsAssetIds,
    SupportsDelete,
    SupportsLookup,
    SupportsParts,
    SupportsRecent,
    SupportsUsage,
    SupportsYank,
)
from private_pypi.errors import BackendUnavailable
from private_pypi.model import DistributionFile, Download, StoredFile, Upload

T = TypeVar("T")
Item = TypeVar("Item", bound=str | StoredFile)  # a project, or a file


def retrying(
    backend: AnyBackend,
    *,
    attempts: int = 3,
    longest_wait: float = 10.0,
    patience: float = 30.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> AnyBackend:
    """`backend`, but a call is tried up to `attempts` times; usable wherever `backend` was.

    Between two tries it waits at least as long as the storage asks for (`retry_after`), at least a
    growing time of its own, and a little more, so that not everybody comes back at once. Who would
    have to wait longer than `longest_wait` seconds gets the error at once; so does who would still
    wait `patience` seconds after the first failure.

    The optional protocols that `backend` supports, and only those, are supported by the result.
    """
    return _Retrying(backend, lambda: _Patience(attempts, longest_wait, patience, sleep, clock))


class _Retrying(Backend[Any]):
    def __init__(self, backend: AnyBackend, new_patience: Callable[[], _Patience]) -> None:
        super().__init__(backend.settings, backend.secret, backend.folders)
        self._backend = backend
        self._new_patience = new_patience
        # These describe a class, but here every object stands for one of another class.
        self.Settings = backend.Settings  # type: ignore[misc]
        self.capabilities = backend.capabilities  # type: ignore[misc]
        self.location_key = backend.location_key  # type: ignore[misc]
        # A protocol is recognised by its method, so it must not be there in vain.
        if isinstance(backend, SupportsDelete):
            delete_file = backend.delete_file

            def retry_delete_file(file: DistributionFile) -> None:
                self._retry(lambda: delete_file(file))

            self.delete_file = retry_delete_file
        if isinstance(backend, SupportsYank):
            yank_file = backend.yank_file

            def retry_yank_file(file: DistributionFile, reason: str | None) -> None:
                self._retry(lambda: yank_file(file, reason))

            self.yank_file = retry_yank_file
        if isinstance(backend, SupportsRecent):
            recent_files = backend.recent_files

            def retry_recent_files(since: datetime) -> Iterator[StoredFile]:
                return self._restart(lambda: recent_files(since))

            self.recent_files = retry_recent_files
        if isinstance(backend, SupportsLookup):
            project_files, projects = backend.project_files, backend.projects

            def retry_project_files(
                project: str, known: Known | None = None
            ) -> Iterator[StoredFile]:
                return self._restart(lambda: project_files(project, known))

            def retry_projects() -> Iterator[str]:
                return self._restart(projects)

            self.project_files = retry_project_files
            self.projects = retry_projects
        if isinstance(backend, SupportsParts):
            read_part = backend.read_part

            def retry_read_part(location: str, start: int, length: int) -> bytes:
                return self._retry(lambda: read_part(location, start, length))

            self.read_part = retry_read_part
        if isinstance(backend, SupportsAssetIds):
            open_asset = backend.open_asset

            def retry_open_asset(asset_id: str, filename: str) -> tuple[StoredFile, Download]:
                return self._retry(lambda: open_asset(asset_id, filename))

            self.open_asset = retry_open_asset
        if isinstance(backend, SupportsUsage):
            self.usage = backend.usage  # every try was counted

    def access(self, project: str | None = None) -> Access:
        return self._retry(lambda: self._backend.access(project))

    def list_files(self, known: Known | None = None) -> Iterator[StoredFile]:
        return self._restart(lambda: self._backend.list_files(known))

    def open_file(self, file: DistributionFile) -> Download:
        return self._retry(lambda: self._backend.open_file(file))

    def open_core_metadata(self, file: DistributionFile) -> Download:
        return self._retry(lambda: self._backend.open_core_metadata(file))

    def put_file(self, upload: Upload) -> StoredFile:
        return self._retry(lambda: self._backend.put_file(upload))

    def read_index(self, into: Path, unless: str | None = None) -> str:
        return self._retry(lambda: self._backend.read_index(into, unless))

    def write_index(self, content: Path, replaces: str) -> str:
        return self._backend.write_index(content, replaces)

    def _retry(self, call: Callable[[], T]) -> T:
        patience = self._new_patience()
        while True:
            try:
                return call()
            except BackendUnavailable as error:
                patience.wait(error)

    def _restart(self, start: Callable[[], Iterator[Item]]) -> Iterator[Item]:
        patience = self._new_patience()
        given: set[str] = set()
        while True:
            try:
                for item in start():
                    name = item if isinstance(item, str) else item.filename
                    if name not in given:
                        # It got further than before: that is no repeated failure.
                        patience = self._new_patience()
                        given.add(name)
                        yield item
                return
            except BackendUnavailable as error:
                patience.wait(error)


class _Patience:
    """How long one call, which fails again and again, is borne."""

    def __init__(
        self,
        attempts: int,
        longest_wait: float,
        patience: float,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._attempts = attempts
        self._longest_wait = longest_wait
        self._patience = patience
        self._sleep = sleep
        self._clock = clock
        self._failures = 0
        self._deadline: float | None = None

    def wait(self, error: BackendUnavailable) -> None:
        """Sleep until the next try, or raise `error` when there should be none."""
        if self._deadline is None:
            self._deadline = self._clock() + self._patience
        own = 0.25 * 2**self._failures
        # Jitter only adds: asking earlier than the storage said costs another refusal.
        seconds = max(own, error.retry_after) + random.uniform(0, own)  # noqa: S311
        self._failures += 1
        if (
            self._failures >= self._attempts
            or max(own, error.retry_after) > self._longest_wait
            or self._clock() + seconds > self._deadline
        ):
            raise error
        self._sleep(seconds)
