"""Remembers for a while what the storage said about the rights of a secret (its verdicts).

Secrets that the storage has never accepted are unknown: `strangers` decides when the storage may be
asked about them. An error of the storage is repeated to callers who ask the same a moment later.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from private_pypi.backend import Access
from private_pypi.errors import BackendUnavailable, NotAllowed
from private_pypi.storage.bounded import mark_used
from private_pypi.storage.recent_trouble import RecentTrouble
from private_pypi.storage.strangers import Strangers
from private_pypi.system.background import Background

REFUSAL_EXPIRES = 10.0
"""Seconds for which a refusal is remembered, so that wrong secrets cost little. The time is short,
because the secret may be valid by now."""

_LONGEST_REFUSAL = 60.0
"""Seconds as well. Each further refusal of the same secret is remembered twice as long, up to this.
"""

_MAX_VERDICTS = 10_000


@dataclass(frozen=True, slots=True)
class Expiry:
    """For how long a verdict counts: of the right to read, and of the right to write."""

    read: timedelta
    write: timedelta


class Question(NamedTuple):
    """What the storage is asked: the rights of a secret in a project, or in the repository."""

    secret: bytes  # its hash, so that no secret is kept in memory for this
    project: str | None  # None: in the repository


@dataclass(frozen=True, slots=True)
class _Verdict:
    access: Access
    checked_at: float  # time.monotonic(), before the storage was asked
    version: object = None  # see `Verdicts.access`
    refusals: int = 0  # that came directly before this one


_Kept = OrderedDict[Question, _Verdict]


class Verdicts:
    """The verdicts of the storage of one repository; safe for many threads, of limited size."""

    def __init__(
        self, name: str, expiry: Expiry, *, background: Background | None, wait: float = 5.0
    ) -> None:
        """`name` is that of the repository.

        The storage is asked in the threads of `background`, once for equal questions at one time,
        and waited for at most `wait` seconds. None: the storage answers at once, so it is asked in
        the caller's thread, also about unknown secrets.
        """
        self._name = name
        self._read_expires = expiry.read.total_seconds()
        self._write_expires = expiry.write.total_seconds()
        self._background = background
        self._wait = wait
        # Separate, so that made-up secrets never displace those that were accepted.
        self._granted: _Kept = OrderedDict()
        self._refused: _Kept = OrderedDict()
        self._lock = threading.Lock()  # guards both
        self._strangers = Strangers(name)
        self._trouble = RecentTrouble()

    def access(
        self,
        question: Question,
        need: Access,
        ask: Callable[[], Access] | None,
        *,
        client: str = "",
        version: Callable[[], object] = lambda: None,
    ) -> Access:
        """The verdict. `ask` is called only if the last verdict is too old for `need`.

        Raises what `ask` raises, and `BackendUnavailable` if `ask` is None and no verdict is fresh
        enough. `client` identifies whose request it is (see `Strangers`). A refusal counts only
        while `version()` gives the same value as before.
        """
        verdict = self._fresh(question, need, version)
        if verdict is None:
            if ask is None:
                raise BackendUnavailable("the rights of this secret are not known yet")

            def asked_once() -> _Verdict:  # another thread may have been quicker
                fresh = self._fresh(question, need, version)
                return fresh or self._ask(question, ask, client, version())

            if self._background is None:
                verdict = asked_once()
            else:
                error = self._trouble.find(question)
                if error is not None:
                    raise error
                verdict = self._background.result(
                    ("access", self._name, question), asked_once, wait=self._wait
                )
        return verdict.access

    def known(self, question: Question, need: Access) -> Access | None:
        """What `access` would return at once, if it is at least `need`; None: call that."""
        with self._lock:
            verdict = self._granted.get(question)
            if verdict is None or verdict.access < need:
                return None
            self._granted.move_to_end(question)
        return verdict.access if self._counts(verdict, need) else None

    def is_granted(self, question: Question) -> bool:
        """Whether a verdict that still counts gives the right to read."""
        verdict = self._fresh(question, Access.READ, lambda: None)
        return verdict is not None and verdict.access >= Access.READ

    def forget(self, secret: bytes) -> None:
        """Forget all verdicts about a secret, because the storage has refused it."""
        with self._lock:
            for kept in (self._granted, self._refused):
                for question in [each for each in kept if each.secret == secret]:
                    del kept[question]

    def forget_project(self, question: Question) -> None:
        """Forget one verdict, because the storage does not show the project any more."""
        with self._lock:
            for kept in (self._granted, self._refused):
                kept.pop(question, None)

    def _fresh(
        self, question: Question, need: Access, version: Callable[[], object]
    ) -> _Verdict | None:
        with self._lock:
            verdict = self._granted.get(question) or self._refused.get(question)
            if verdict is None:
                return None
            (self._granted if verdict.access else self._refused).move_to_end(question)
        if verdict.access < need:
            age = time.monotonic() - verdict.checked_at
            is_fresh = age < _refusal_expires(question, verdict)
            if not verdict.access:
                is_fresh = is_fresh and verdict.version == version()
            return verdict if is_fresh else None
        return verdict if self._counts(verdict, need) else None

    def _counts(self, verdict: _Verdict, need: Access) -> bool:
        """Whether a verdict that gives the right `need` is fresh enough for it."""
        expires = self._write_expires if need is Access.WRITE else self._read_expires
        return time.monotonic() - verdict.checked_at < expires

    def _ask(
        self, question: Question, ask: Callable[[], Access], client: str, version: object
    ) -> _Verdict:
        with self._lock:
            before = self._refused.get(question)
            # A project is asked about only after the secret itself was accepted.
            is_stranger = question.project is None and question not in self._granted
        asked_at = time.monotonic()
        if self._background is None:
            access = ask()
        elif is_stranger:
            with self._strangers.turn(client):
                access = self._ask_once(question, ask)
            if access is Access.NONE and before is None:
                self._strangers.note_wrong(client)
        else:
            access = self._ask_once(question, ask)
        refusals = 0 if before is None else before.refusals + 1
        verdict = _Verdict(access, asked_at, version, refusals)
        with self._lock:
            kept, others = self._granted, self._refused
            if access is Access.NONE:
                kept, others = others, kept
            others.pop(question, None)
            kept[question] = verdict
            mark_used(kept, question, most=_MAX_VERDICTS)
        return verdict

    def _ask_once(self, question: Question, ask: Callable[[], Access]) -> Access:
        try:
            return self._trouble.ask(question, ask)
        except NotAllowed as error:  # a refusal that gives a reason
            self._trouble.note(question, error, seconds=REFUSAL_EXPIRES)
            raise


def _refusal_expires(question: Question, verdict: _Verdict) -> float:
    # A project may be created at any time, and its secret is known. So it is not remembered longer.
    if question.project is not None or verdict.access:
        return REFUSAL_EXPIRES
    longest = max(REFUSAL_EXPIRES, _LONGEST_REFUSAL)
    return float(min(REFUSAL_EXPIRES * 2 ** min(verdict.refusals, 10), longest))
