"""Explains which files of a project are served and which suit an interpreter: as text and JSON.

A project may have thousands of files, of which hardly anybody wants to read all. So they are in
groups, one for each rule that hides files, of which only the newest files are listed unless all are
asked for.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from operator import attrgetter
from typing import Any

from packaging.version import Version

from private_pypi.backend.times import parse_instant, show_instant
from private_pypi.distributions.interpreters import Interpreter
from private_pypi.distributions.records import printable

FEW = 5
"""Files of each group that a summary lists."""

_MOST_REASONS = 5  # of one rule that make groups of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedFile:
    """One file of a project, and what is to be said of it."""

    filename: str
    version: str | None  # None: unknown
    is_served: bool
    rule: str | None = None  # that hides the file; see `HiddenFile`
    reason: str | None = None  # a sentence: why it is hidden, or why it does not suit
    until: datetime | None = None  # UTC; when the rule ends by itself
    suits: bool | None = None
    """Whether a served file suits the interpreter; None: it was not asked, or it is hidden."""
    yanked: str | None = None  # the reason, or "" if none was given; None: not yanked
    exception: str | None = None  # a sentence: why a file is served that a rule would hide
    source: Sequence[str] = ()  # in a group, the repositories that lead to the file


@dataclass(frozen=True, slots=True, kw_only=True)
class FileGroup:
    """Files of a project of which the same is to be said."""

    is_served: bool
    suits: bool | None = None  # these two: see `ReportedFile`
    rule: str | None = None
    reason: str | None = None  # of all of them; None: there is none, or they have several
    is_yanked: bool = False
    is_exception: bool = False  # whether they are served although a rule would hide them
    count: int
    oldest: str | None  # these two: versions; None: unknown
    newest: str | None
    files: Sequence[ReportedFile] = ()  # the newest first; all, or only some


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is said of a project."""

    repository: str  # its name, or the address of another index
    project: str
    is_found: bool
    python: str | None = None  # these three: what was asked for
    platform: str | None = None
    version: str | None = None
    notes: Sequence[str] = ()  # sentences about the whole project
    groups: Sequence[FileGroup] = ()
    """First the files that are not served, then those that do not suit, then the others."""

    @property
    def interpreter(self) -> str:
        """Such as "Python 3.11 on win_amd64"; "" if none was asked for."""
        return Interpreter(self.python, self.platform).title

    @property
    def files(self) -> list[ReportedFile]:
        """The files that are listed."""
        return [file for group in self.groups for file in group.files]

    @property
    def is_whole(self) -> bool:
        """Whether all files are listed."""
        return all(len(group.files) == group.count for group in self.groups)

    @property
    def hidden(self) -> list[FileGroup]:
        """The files that are not served."""
        return [each for each in self.groups if not each.is_served]

    @property
    def unsuitable(self) -> list[FileGroup]:
        """The files that are served and do not suit the interpreter."""
        return [each for each in self.groups if each.suits is False]

    @property
    def usable(self) -> list[FileGroup]:
        """The other files that are served."""
        return [each for each in self.groups if each.is_served and each.suits is not False]

    def summary(self) -> Report:
        """The same with only the newest files of each group."""
        return replace(self, groups=[replace(each, files=each.files[:FEW]) for each in self.groups])


def count_of(groups: Iterable[FileGroup]) -> int:
    """How many files there are in some groups."""
    return sum(group.count for group in groups)


def groups_of(files: Iterable[ReportedFile]) -> list[FileGroup]:
    """All groups of a project, in the order of `Report.groups`, with all of their files."""
    kinds: dict[tuple[object, ...], list[ReportedFile]] = defaultdict(list)
    for file in _newest_first(files):
        is_yanked, is_exception = file.yanked is not None, file.exception is not None
        kinds[file.is_served, file.suits, file.rule, is_yanked, is_exception].append(file)
    groups: list[FileGroup] = []
    for same in kinds.values():
        by_reason: dict[str | None, list[ReportedFile]] = defaultdict(list)
        for file in same:
            by_reason[file.reason].append(file)
        # The reasons of some rules contain the upload time of the file.
        is_one = len(by_reason) > _MOST_REASONS
        groups += [_group(same)] if is_one else map(_group, by_reason.values())
    return sorted(groups, key=lambda each: (each.is_served, each.suits is not False))


def _group(files: Sequence[ReportedFile]) -> FileGroup:
    first = files[0]
    versions = [file.version for file in files if file.version is not None]
    return FileGroup(
        is_served=first.is_served,
        suits=first.suits,
        rule=first.rule,
        reason=first.reason if all(file.reason == first.reason for file in files) else None,
        is_yanked=first.yanked is not None,
        is_exception=first.exception is not None,
        count=len(files),
        oldest=versions[-1] if versions else None,
        newest=versions[0] if versions else None,
        files=files,
    )


def _newest_first(files: Iterable[ReportedFile]) -> list[ReportedFile]:
    """Files by version, those of unknown versions last; those of one version by name."""
    by_version: dict[str | None, list[ReportedFile]] = defaultdict(list)
    for file in files:
        by_version[file.version].append(file)
    unknown = by_version.pop(None, [])
    # A version has many files, and to understand it takes long.
    ordered = sorted(by_version, key=lambda text: Version(text or "0"), reverse=True)
    return [
        file
        for same in (*(by_version[version] for version in ordered), unknown)
        for file in sorted(same, key=attrgetter("filename"))
    ]


def report_json(report: Report) -> str:
    """The report as JSON; the keys are the fields of `Report`, `FileGroup` and `ReportedFile`."""
    return json.dumps(asdict(report), default=show_instant)


def report_from_json(document: Any) -> Report:
    """The report that `report_json` has written; raises `ValueError` if it is something else."""
    try:
        groups = [
            _checked(
                FileGroup,
                {**group, "files": [_checked(ReportedFile, each) for each in group["files"]]},
            )
            for group in document["groups"]
        ]
        report: Report = _checked(Report, {**document, "groups": groups})
    except (KeyError, TypeError) as error:
        raise ValueError("it is no explanation of a project") from error
    return report


def _checked(kind: type[Any], values: Mapping[str, Any]) -> Any:
    # Keys that later versions have are left out.
    known = {key: value for key, value in values.items() if key in kind.__dataclass_fields__}
    if isinstance(known.get("until"), str):
        known["until"] = parse_instant(known["until"])
    for key, value in known.items():
        if key.startswith("is_") or key == "suits":
            is_right = isinstance(value, bool) or (key == "suits" and value is None)
        elif key == "count":
            is_right = isinstance(value, int)
        elif key == "until":
            is_right = value is None or isinstance(value, datetime)
        elif key in ("notes", "source"):
            is_right = isinstance(value, list) and all(isinstance(each, str) for each in value)
        else:
            is_checked = key in ("groups", "files")
            is_right = is_checked or value is None or isinstance(value, str)
        if not is_right:
            raise TypeError(key)
    return kind(**known)


def report_text(report: Report, how_to_see_all: str) -> Iterator[str]:
    """The report as lines for people, without control characters.

    `how_to_see_all` is the end of a sentence, for a report that does not list all files.
    """
    return (printable(line) for line in _lines(report, how_to_see_all))


def _lines(report: Report, how_to_see_all: str) -> Iterator[str]:
    asked = f" {report.version}" if report.version else ""
    yield f"{report.project}{asked} in {report.repository}"
    for note in report.notes:
        yield f"- {note}"
    if not report.is_found:
        return
    yield from _part("Not served", report.hidden)
    if report.interpreter or report.unsuitable:
        # Without an interpreter, these have names that no installer understands.
        yield from _part(
            f"Served, and not for {report.interpreter or 'installers'}", report.unsuitable
        )
    yield from _part(
        f"Served for {report.interpreter}" if report.interpreter else "Served", report.usable
    )
    if not report.is_whole:
        yield ""
        yield f"Of each rule or reason, only the newest files are listed; {how_to_see_all}."


def _part(title: str, groups: Sequence[FileGroup]) -> Iterator[str]:
    yield ""
    yield f"{title}: {_files(count_of(groups))}"
    is_whole = all(len(group.files) == group.count for group in groups)
    for group in groups:
        if not is_whole:
            yield f"  {title_of(group)}: {_files(group.count)}{_versions(group)}"
            if group.reason:
                yield f"      {group.reason}"
        for file in group.files:
            yield from _file_lines(file, with_reason=is_whole or not group.reason)
        if len(group.files) < group.count:
            yield f"  … and {group.count - len(group.files)} more"


def title_of(group: FileGroup) -> str:
    """What the files of a group have in common, in a word or a few."""
    if group.rule is not None:
        return group.rule
    if group.suits is False:
        title = "not suitable"
    else:
        title = "served by exception" if group.is_exception else "served"
    return f"{title}, yanked" if group.is_yanked else title


def _file_lines(file: ReportedFile, *, with_reason: bool) -> Iterator[str]:
    origin = f" (from {'/'.join(file.source)})" if file.source else ""
    yield f"  {file.filename}{origin}"
    if file.reason and with_reason:
        yield f"      {file.rule + ': ' if file.rule else ''}{file.reason}"
    if file.exception:
        yield f"      served by exception: {file.exception}"
    if file.yanked is not None:
        yield f"      yanked{': ' + file.yanked if file.yanked else ', without a reason'}"


def _files(count: int) -> str:
    return f"{count} {'file' if count == 1 else 'files'}"


def _versions(group: FileGroup) -> str:
    if group.oldest is None or group.newest is None:
        return ""
    if group.oldest == group.newest:
        return f" of {group.newest}"
    return f" of {group.oldest} to {group.newest}"
