"""Note every change, also one that failed: in the audit file, in the log and as a count.

An attempt with a wrong secret is counted but gets no line in the audit file, because otherwise
anybody could fill the disk.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from private_pypi.backend import Secret
from private_pypi.errors import PrivatePypiError
from private_pypi.model import ListedFile
from private_pypi.repositories import Repository
from private_pypi.web.http.answers import status_of
from private_pypi.web.operations.audit import AuditLog, entry_time

logger = logging.getLogger(__name__)

PUBLISH = "publish"
DELETE = "delete"
YANK = "yank"
UNYANK = "unyank"
INITIALIZE = "initialize"

_PAST = {
    PUBLISH: "published",
    DELETE: "deleted",
    YANK: "yanked",
    UNYANK: "un-yanked",
    INITIALIZE: "configured",
}
_LONGEST_AGENT = 300  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Who made a request."""

    address: str
    user_agent: str
    request_id: str


@dataclass(slots=True, kw_only=True)
class Change:
    """A change that a request asks for. Its attributes are set as they become known."""

    action: str
    repository: str = ""  # "" if there is none, or it is not known
    secret: Secret | None = None  # of the caller, if it is right
    files: Sequence[ListedFile] = ()
    reason: str | None = None  # of a yank
    repositories: Sequence[str] = ()  # of a new configuration
    is_made: bool = True  # False if there was nothing to do
    is_repeated: bool = False  # whether an upload has the same bytes as the file that exists
    is_known: bool = False
    """Whether the caller has a right secret, or needs none."""

    def let_in(self, repository: str, secret: Secret | None) -> None:
        """Note that the caller is known, with this secret. The change may still fail."""
        self.repository, self.secret, self.is_known = repository, secret, True

    def refuse(self, meant: tuple[Repository, Secret | None] | None) -> None:
        """Note that the caller is known, but is not allowed to do this.

        `meant` comes from `Repositories.meant`.
        """
        if meant is not None:
            self.let_in(meant[0].name, meant[1])


class Changes:
    """Notes the changes of one process; thread-safe."""

    def __init__(self, audit: AuditLog) -> None:
        self.audit = audit
        self._lock = threading.Lock()  # guards both counters
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._published: Counter[str] = Counter()

    def note(self, change: Change, requester: Requester, error: Exception | None = None) -> None:
        """Note how a change ended. When this returns, its audit line is on disk."""
        if error is None and not change.is_made:
            return
        status = 200 if error is None else _status(error)
        outcome = "done" if error is None else "refused" if status < 500 else "failed"
        with self._lock:
            self._counts[change.repository, change.action, outcome] += 1
            if outcome == "done" and change.action == PUBLISH and not change.is_repeated:
                self._published[change.repository] += sum(file.size or 0 for file in change.files)
        if not change.is_known:
            return
        entry = self._entry(change, requester, outcome, status, error)
        self.audit.append(entry)
        logger.info("%s", _sentence(change, requester, outcome, error), extra={"fields": entry})

    def counts(self) -> Mapping[tuple[str, str, str], int]:
        """How many changes, by repository, action and outcome ("done", "refused", "failed")."""
        with self._lock:
            return dict(self._counts)

    def published_bytes(self) -> Mapping[str, int]:
        """How many bytes were uploaded, by repository."""
        with self._lock:
            return dict(self._published)

    def close(self) -> None:
        """Close the audit file."""
        self.audit.close()

    def _entry(
        self,
        change: Change,
        requester: Requester,
        outcome: str,
        status: int,
        error: Exception | None,
    ) -> dict[str, object]:
        entry: dict[str, object] = {
            "time": entry_time(datetime.now(UTC)),
            "action": change.action,
            "outcome": outcome,
            "status": status,
            "repository": change.repository or None,
            "secret": None if change.secret is None else self.audit.fingerprint(change.secret),
            "address": requester.address,
            "user_agent": requester.user_agent[:_LONGEST_AGENT],
            "request_id": requester.request_id,
            "files": [
                {"filename": file.filename, "sha256": file.sha256, "size": file.size}
                for file in change.files
            ],
        }
        if change.is_repeated and error is None:
            entry["unchanged"] = True
        if change.action == YANK:
            entry["reason"] = change.reason or ""
        if change.action == INITIALIZE:
            entry["repositories"] = list(change.repositories)
        if error is not None:
            known = isinstance(error, PrivatePypiError)
            entry["error"] = str(error) if known else f"internal error ({type(error).__name__})"
        return entry


def _status(error: Exception) -> int:
    if isinstance(error, PrivatePypiError):
        return status_of(error)
    from werkzeug.exceptions import HTTPException  # not needed to start a server

    return (error.code if isinstance(error, HTTPException) else None) or 500


def _sentence(change: Change, requester: Requester, outcome: str, error: Exception | None) -> str:
    names = ", ".join(file.filename for file in change.files) or "something"
    if change.action == INITIALIZE:
        names = ", ".join(change.repositories) or "something"
    where = f" in {change.repository}" if change.repository else ""
    if outcome == "done":
        what = f"{names} (unchanged, because it was there already)" if change.is_repeated else names
        return f"{_PAST[change.action]} {what}{where} from {requester.address}"
    said = str(error) if isinstance(error, PrivatePypiError) else type(error).__name__
    return f"{outcome} to {change.action} {names}{where} from {requester.address}: {said}"
