"""Decides which files of a project a mirror serves, and says why the others are hidden."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from packaging.utils import NormalizedName

from private_pypi.backend.denials import Denial, Denials, parse_denials
from private_pypi.backend.times import parse_duration, parse_instant, show_instant
from private_pypi.backend.upstream import MirrorSettings
from private_pypi.errors import BackendError, ConfigurationError
from private_pypi.model import ListedFile, ProjectStatus
from private_pypi.policy.allowances import Allowance, AllowanceFile
from private_pypi.policy.watched import State, WatchedFile

logger = logging.getLogger(__name__)

QUARANTINED: Final = "quarantined"
"""The status of a project (PEP 792) whose files must not be installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenFile:
    """A file that is not served, and the rule that hides it."""

    filename: str
    version: str | None  # None: unknown
    rule: str
    """"status", "deny", "wheels_only", "as_of" or "cooldown" by a policy; "offline" if an offline
    mirror does not have it; "filename" if it is no distribution file of its project; "unusable" if
    the file in a storage cannot be shown."""
    reason: str  # a sentence for people
    until: datetime | None = None
    """UTC; from then on the rule lets it through by itself. None: it does not do that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A file of an upstream, and when this server first saw it."""

    file: ListedFile
    first_seen_at: datetime  # UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a policy says about the files of a project at some moment."""

    files: tuple[ListedFile, ...]  # those that are served, in the given order
    hidden: tuple[HiddenFile, ...]  # the others, in the given order
    allowed: Mapping[str, Allowance]
    """By filename, for served files, the allowance but for which it would be hidden."""
    changes_at: datetime | None
    """When the result changes by itself, because a file leaves the cooldown or an allowance ends.
    None: never, as long as files, status and rules are the same."""


class Policy:
    """The rules of one mirror. Thread-safe.

    If several rules hide a file, the first one of this order is named: the status of the project,
    denials, `wheels_only`, `as_of`, `cooldown`.
    """

    def __init__(
        self,
        *,
        repository: str,
        cooldown: timedelta,
        as_of: datetime | None,
        denials: Denials,
        deny_file: WatchedFile[Denials] | None,
        wheels_only: bool,
        allowances: AllowanceFile,
    ) -> None:
        self._repository = repository
        self._cooldown = cooldown
        self._as_of = as_of
        self._denials = denials
        self._deny_file = deny_file
        self._wheels_only = wheels_only
        self._allowances = allowances

    @property
    def is_trivial(self) -> bool:
        """Whether there is no rule, so that only the status of a project can hide its files."""
        return not (
            self._cooldown
            or self._as_of
            or self._denials
            or self._deny_file is not None
            or self._wheels_only
        )

    @property
    def problem(self) -> str | None:
        """A sentence about why no exception to the cooldown counts; None: they count."""
        return self._allowances.problem if self._cooldown else None

    def generation(self) -> Hashable:
        """Changes when the deny file or the allowances have changed.

        Ask for it before `judge`, whose result is at least as new. It costs one `stat` for each of
        the files at most once a second.
        """
        deny_file = "" if self._deny_file is None else self._deny_file.state().generation
        return deny_file, self._allowances.generation if self._cooldown else ""

    def at(self, instant: datetime) -> Policy:
        """The same policy, frozen at an instant (UTC); of two such instants, the earlier counts."""
        return Policy(
            repository=self._repository,
            cooldown=self._cooldown,
            as_of=instant if self._as_of is None else min(instant, self._as_of),
            denials=self._denials,
            deny_file=self._deny_file,
            wheels_only=self._wheels_only,
            allowances=self._allowances,
        )

    def denied_project(self, project: NormalizedName) -> str | None:
        """The reason, as a sentence, if all versions of a project are denied; None: they are not.

        Raises `BackendError` if it is unknown what is denied.
        """
        for denial in self._denials_of(project):
            if denial.specifier is None:
                return _denied(denial)
        return None

    def judge(
        self,
        project: NormalizedName,
        sightings: Iterable[Sighting],
        *,
        status: ProjectStatus | None,
        now: datetime,
    ) -> Judged:
        """Which of these files of a project are served at a moment (UTC).

        Raises `BackendError` if it is unknown what is denied, because the deny file cannot be read
        or has a mistake.
        """
        denials = self._denials_of(project)
        if status is not None and status.status == QUARANTINED:
            return _all_hidden(sightings, status)
        served: list[ListedFile] = []
        hidden: list[HiddenFile] = []
        allowed: dict[str, Allowance] = {}
        changes: list[datetime] = []
        verdicts: dict[str, Denial | None] = {}  # by version
        as_of, cooldown, wheels_only = self._as_of, self._cooldown, self._wheels_only
        # In a frozen mirror the clock of the cooldown stands still as well. What it serves would
        # change otherwise, when files leave the cooldown.
        clock = now if as_of is None else min(now, as_of)
        latest = clock - cooldown  # the upload time of the youngest file that is old enough
        allowances = self._counting(project, now) if cooldown else ()
        length = _in_words(cooldown)
        for sighting in sightings:
            file = sighting.file
            since = file.uploaded_at or sighting.first_seen_at
            if denials:
                if file.version not in verdicts:
                    verdicts[file.version] = _matching(denials, file.version)
                denial = verdicts[file.version]
                if denial is not None:
                    hidden.append(_hidden(file, "deny", _denied(denial)))
                    continue
            if wheels_only and not file.filename.endswith(".whl"):
                hidden.append(_hidden(file, "wheels_only", _NO_WHEEL))
            elif as_of is not None and since > as_of:
                hidden.append(_hidden(file, "as_of", _too_late(file, since, as_of)))
            elif cooldown and since > latest:
                until = _end(since, cooldown, as_of)
                allowance = next((each for each in allowances if each.covers(file)), None)
                if allowance is None:
                    reason = _too_young(file, since, length, until, as_of)
                    hidden.append(_hidden(file, "cooldown", reason, until))
                else:
                    served.append(file)
                    allowed[file.filename] = allowance
                    changes.append(allowance.until)
                if until is not None:
                    changes.append(until)
            else:
                served.append(file)
        return Judged(
            files=tuple(served),
            hidden=tuple(hidden),
            allowed=allowed,
            changes_at=min(changes, default=None),
        )

    def _denials_of(self, project: NormalizedName) -> Sequence[Denial]:
        own = self._denials.get(project, ())
        if self._deny_file is None:
            return own
        state = self._deny_file.state()
        if state.value is None:
            raise BackendError(
                f"the deny file of this mirror is wrong: {state.problem}. Nothing is served until "
                "its operator has repaired it"
            )
        return (*own, *state.value.get(project, ()))

    def _counting(self, project: NormalizedName, now: datetime) -> Sequence[Allowance]:
        """The allowances of a project that have not ended; those that end last are first.

        So if several cover a file, the one that is named counts for as long as any of them.
        """
        given = self._allowances.for_repository(self._repository).get(project, ())
        counting = [each for each in given if now < each.until]
        return sorted(counting, key=lambda each: each.until, reverse=True)


def make_policy(settings: MirrorSettings, *, allowances: AllowanceFile) -> Policy:
    """The policy of a mirror.

    Raises `ConfigurationError` if the deny file is missing, cannot be read or has a mistake.
    """
    deny_file = None
    if settings.deny_file is not None:
        path = settings.deny_file

        def report(state: State[Denials]) -> None:
            if state.problem is not None:
                logger.error(
                    "%s: the deny file %s is wrong: %s; nothing is served until it is repaired",
                    settings.name,
                    path,
                    state.problem,
                )

        deny_file = WatchedFile(path, lambda text: parse_denials(text.split("\n")), report=report)
        problem = deny_file.state().problem
        if problem is not None:
            raise ConfigurationError(f"[{settings.name}] deny_file: {str(path)!r}: {problem}")
    return Policy(
        repository=settings.name,
        cooldown=parse_duration(settings.cooldown or "0"),
        as_of=parse_instant(settings.as_of) if settings.as_of else None,
        denials=parse_denials(settings.deny),
        deny_file=deny_file,
        wheels_only=settings.wheels_only,
        allowances=allowances,
    )


_NO_WHEEL: Final = "it is not a wheel, and only wheels are served here"


def _all_hidden(sightings: Iterable[Sighting], status: ProjectStatus) -> Judged:
    reason = "its project is quarantined by the upstream index"
    if status.reason:
        reason += f": {status.reason}"
    hidden = tuple(_hidden(each.file, "status", reason) for each in sightings)
    return Judged(files=(), hidden=hidden, allowed={}, changes_at=None)


def _hidden(file: ListedFile, rule: str, reason: str, until: datetime | None = None) -> HiddenFile:
    return HiddenFile(
        filename=file.filename, version=file.version or None, rule=rule, reason=reason, until=until
    )


def _matching(denials: Sequence[Denial], version: str) -> Denial | None:
    return next((each for each in denials if each.matches(version)), None)


def _denied(denial: Denial) -> str:
    why = denial.reason or "no reason is given"
    return f"the operator of this mirror denies {denial.text!r}: {why}"


def _end(since: datetime, cooldown: timedelta, as_of: datetime | None) -> datetime | None:
    """When a file leaves the cooldown; None: never, because the clock stops before."""
    try:
        end = since + cooldown
    except OverflowError:  # an upstream may say that a file was uploaded in the year 9999
        return None
    return None if as_of is not None and end > as_of else end


def _came(file: ListedFile, since: datetime) -> str:
    if file.uploaded_at is None:
        return f"first seen here {show_instant(since)} (the upstream gives no upload time)"
    return f"uploaded {show_instant(since)}"


def _too_late(file: ListedFile, since: datetime, as_of: datetime) -> str:
    return f"{_came(file, since)}, later than {show_instant(as_of)}, the last moment shown here"


def _too_young(
    file: ListedFile,
    since: datetime,
    length: str,
    until: datetime | None,
    as_of: datetime | None,
) -> str:
    """Does not depend on the present time, so that it stays true until `Judged.changes_at`."""
    age = f"{_came(file, since)}, less than {length}"
    if until is not None:
        return f"{age} ago; it is served from {show_instant(until)} on"
    if as_of is not None:
        return f"{age} before {show_instant(as_of)}, the last moment shown here"
    return f"{age} ago"


def _in_words(duration: timedelta) -> str:
    minutes = duration // timedelta(minutes=1)
    units = {"day": 24 * 60, "hour": 60, "minute": 1}
    unit = next(each for each, length in units.items() if minutes % length == 0)
    number = minutes // units[unit]
    return f"{number} {unit}{'' if number == 1 else 's'}"
