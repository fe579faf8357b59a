"""A repository whose local index is a copy of everything in the storage."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from packaging.utils import NormalizedName

from private_pypi.backend import AnyBackend, Secret, SupportsIndex, capability
from private_pypi.configuration.config import RepositorySettings
from private_pypi.distributions.filenames import parse_filename
from private_pypi.errors import (
    BackendUnavailable,
    InvalidFilename,
    NotConfigured,
    PrivatePypiError,
)
from private_pypi.index.local import ProjectLine, SyncState
from private_pypi.index.looking import Look
from private_pypi.index.synchronizing import Pace, SyncCounts, Synchronizer
from private_pypi.model import FRESH, Freshness
from private_pypi.repositories.answers import ProjectList
from private_pypi.repositories.repository import CLOSING_SECONDS, RepositoryState
from private_pypi.repositories.stored import StoredRepository, new_background
from private_pypi.storage.verdicts import Expiry

_log = logging.getLogger(__name__)

_BEHIND_SECONDS = 30.0  # for which a storage that hangs may keep a server from being ready


class Synchronized(StoredRepository):
    """A thread keeps the local index up to date, and every caller may read all of it."""

    has_everything = True

    def __init__(
        self,
        settings: RepositorySettings,
        backend: AnyBackend,
        *,
        index_folder: Path,
        extra_index_url: str,
        expiry: Expiry,
    ) -> None:
        super().__init__(
            settings,
            backend,
            index_folder=index_folder,
            extra_index_url=extra_index_url,
            expiry=expiry,
            background=None if backend.traits.answers_at_once else new_background(settings.name),
        )
        self._is_stale = False  # the last answer of `_stale`
        self._behind_since: float | None = None  # time.monotonic() of a start, see `_is_behind`
        self._synchronizer: Synchronizer | None = None
        admin = settings.admin_secret
        if admin is not None or not self.traits.needs_admin_secret:
            self._synchronizer = Synchronizer(
                self.storage(admin or Secret("")),
                self.index,
                backend_type=settings.type,
                name=settings.name,
                interval=settings.sync_index_interval,
            )

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to synchronise in the background."""
        if self._synchronizer is not None:
            age = None
            with contextlib.suppress(PrivatePypiError):  # then it is built anew
                age = self.index.age()
            if age is None or age > self._synchronizer.pace.interval:
                self._behind_since = time.monotonic()
            self._synchronizer.start()
        else:
            _log.warning("%s", self._without_secret())

    def begin_close(self) -> None:
        """Tell the threads of this repository to stop; does not wait for them."""
        if self._synchronizer is not None:
            self._synchronizer.begin_stop()
        super().begin_close()

    def close(self, timeout: float = CLOSING_SECONDS) -> None:
        """Stop synchronising and close the local index, waiting at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self.begin_close()
        if self._synchronizer is not None:
            self._synchronizer.stop(max(0.0, deadline - time.monotonic()))
        if self._background is not None:
            self._background.close(max(0.0, deadline - time.monotonic()))
        self.index.close()
        self.backend.close()

    def wait_until_ready(self, timeout: float) -> bool:
        """Wait until a first listing is complete, at most `timeout` seconds; whether it is."""
        if self._synchronizer is None:
            return False
        return self.index.ready() or self._synchronizer.wait_until_ready(timeout)

    def synchronize(self) -> None:
        """Bring the local index up to date now, in this thread."""
        self._require_configured().synchronize()

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> RepositoryState:
        """The state of the repository. No storage is asked.

        It is not ready while its local index may lack what other servers published while this one
        did not run. If the storage does not answer then, what is known is better than nothing.
        """
        state = super().state()
        if state.ready and self._is_behind():
            why = "not yet synchronised since the server was started"
            return replace(state, ready=False, error=why)
        return state

    def _is_behind(self) -> bool:
        since = self._behind_since
        if since is None or self._synchronizer is None:
            return False
        counts, age = self._synchronizer.counts, self.index.age()
        has_asked = counts.done or counts.failed
        is_new = age is not None and age <= self._synchronizer.pace.interval
        if not has_asked and not is_new and time.monotonic() - since <= _BEHIND_SECONDS:
            return True
        self._behind_since = None
        return False

    def sync_counts(self) -> SyncCounts | None:
        """The synchronisations of this process."""
        return None if self._synchronizer is None else self._synchronizer.counts

    def require_ready(self) -> None:
        """Raise an error until a first listing is complete."""
        if not self.index.ready():
            self._require_configured()
            error = self.index.sync_state().error
            raise BackendUnavailable(
                f"repository {self.name!r} is not yet synchronised"
                + (f": {error}" if error else ""),
                retry_after=5,
            )

    def require_fresh(self) -> None:
        """See `StoredRepository`; in one query, because each unknown project asks this."""
        state = self.index.sync_state()
        if not state.ready:
            self.require_ready()
        self._require_believed(self._stale(state))

    def _stale(self, state: SyncState | None = None) -> str | None:
        """Why nothing may be called absent; None: it may. The beginning and the end are logged.

        The reason is that the last synchronisation failed, or that the last listing is too old
        (`synchronizing.Pace`). The files of the local index are served all the same. `state`: that
        of the index, as it was read last.
        """
        pace = Pace(self.settings.sync_index_interval.total_seconds())
        state = state or self.index.sync_state()
        error, age = state.error, self.index.age(state)
        sentence = None
        if error:
            sentence = f"repository {self.name!r} could not be synchronised: {error}"
        elif not pace.is_believed(age):
            since = "at an unknown time" if age is None else f"{age:.0f} seconds ago"
            sentence = (
                f"repository {self.name!r} was last synchronised {since}, which is too long to say "
                f"what is not there (sync_index_interval is {pace.interval:g} seconds)"
            )
        if sentence is None and self._is_stale:
            _log.info("repository %r is up to date again", self.name)
        elif sentence is not None and not self._is_stale and not error:
            # An error was logged by the synchronisation.
            _log.warning("%s: what it does not have is answered with 503", sentence)
        self._is_stale = sentence is not None
        return sentence

    # -- reading ---------------------------------------------------------------------------------

    def may_ask_storage(self) -> bool:
        """False: pages are made of the local index."""
        return False

    def is_fresh(self, project: NormalizedName) -> bool:
        """True: the local index is at most one interval behind."""
        return True

    def look_up(self, project: NormalizedName, secret: Secret) -> Freshness:
        """Do nothing: the local index has all projects."""
        return FRESH

    def begin_look(
        self, project: NormalizedName, filename: str, secret: Secret, since: float
    ) -> Look | None:
        """Have the journal read before the interval is over; see `Repository`."""
        if self._synchronizer is None or not self.traits.has_journal:
            return None
        try:
            is_possible = parse_filename(filename).project == project
        except InvalidFilename:
            return None
        if not is_possible or self.index.file_if_ready(filename) is not None:
            return None
        return self._synchronizer.look(since)

    def list_projects(self, secret: Secret) -> ProjectList:
        """All projects of the local index."""
        self.require_ready()
        return ProjectList(self.index, self.index.serial(), FRESH, self.index.projects)

    def among(self, secret: Secret) -> Collection[str] | None:
        """None: every caller may see all of them."""
        return None

    def search(
        self, words: Sequence[str], secret: Secret, *, limit: int, offset: int
    ) -> tuple[int, list[ProjectLine]]:
        """How many projects have every word in their name, summary or keywords, and a part."""
        return self.index.search(words, limit=limit, offset=offset)

    # -- changing --------------------------------------------------------------------------------

    def learn_burnt_names(self, secret: Secret) -> None:
        """Synchronise if another server has changed the document, if that is quick to find out.

        Otherwise this server knows names that another one has burnt within one interval.
        """
        index = capability(self.storage(secret), SupportsIndex)
        if index is None or not self.traits.answers_at_once:
            return
        probe = self.folders.tmp / f"index-{threading.get_ident()}"
        known = self.index.sync_state().revision
        try:
            changed = index.read_index(probe, unless=known) != (known or "")
        finally:
            probe.unlink(missing_ok=True)
        if changed:
            self.synchronize()

    def _require_configured(self) -> Synchronizer:
        if self._synchronizer is None:
            raise NotConfigured(self._without_secret())
        return self._synchronizer

    def _without_secret(self) -> str:
        return (
            f"repository {self.name!r} needs a secret of its own: add a table "
            f"[{self.name}] to admin_secret.toml"
        )
