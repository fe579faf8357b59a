"""Explains which files of a project are served and which suit an interpreter: as text and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from packaging.version import Version

from private_pypi.distributions.interpreters import Interpreter
from private_pypi.distributions.records import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedFile:
    """One file of a project, and what is to be said of it."""

    filename: str
    version: str | None  # None: unknown
    is_served: bool
    rule: str | None = None  # that hides the file; see `HiddenFile`
    reason: str | None = None  # a sentence: why it is hidden, or why it does not suit
    until: str | None = None  # when the rule ends by itself, such as "2026-11-01T12:30:00Z"
    suits: bool | None = None
    """Whether a served file suits the interpreter; None: it was not asked, or it is hidden."""
    yanked: str | None = None  # the reason, or "" if none was given; None: not yanked
    exception: str | None = None  # a sentence: why a file is served that a rule would hide
    source: Sequence[str] = ()  # in a group, the repositories that lead to the file


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
    files: Sequence[ReportedFile] = ()  # the newest version first

    @property
    def interpreter(self) -> str:
        """Such as "Python 3.11 on win_amd64"; "" if none was asked for."""
        return Interpreter(self.python, self.platform).title

    @property
    def hidden(self) -> list[ReportedFile]:
        """The files that are not served."""
        return [each for each in self.files if not each.is_served]

    @property
    def unsuitable(self) -> list[ReportedFile]:
        """The files that are served and do not suit the interpreter."""
        return [each for each in self.files if each.suits is False]

    @property
    def usable(self) -> list[ReportedFile]:
        """The other files that are served."""
        return [each for each in self.files if each.is_served and each.suits is not False]


def newest_first(files: Iterable[ReportedFile]) -> list[ReportedFile]:
    """Files by version, those of unknown versions last; those of one version by name."""
    by_name = sorted(files, key=lambda each: each.filename)
    known = (each for each in by_name if each.version is not None)
    ordered = sorted(known, key=lambda each: Version(each.version or "0"), reverse=True)
    return [*ordered, *(each for each in by_name if each.version is None)]


def report_json(report: Report) -> str:
    """The report as JSON; the keys are the fields of `Report` and of `ReportedFile`."""
    return json.dumps(asdict(report))


def report_from_json(document: Any) -> Report:
    """The report that `report_json` has written; raises `ValueError` if it is something else."""
    try:
        files = [_checked(ReportedFile, each) for each in document["files"]]
        report: Report = _checked(Report, {**document, "files": files})
    except (KeyError, TypeError) as error:
        raise ValueError("it is no explanation of a project") from error
    return report


def _checked(kind: type[Any], values: Mapping[str, Any]) -> Any:
    # Keys that later versions have are left out.
    known = {key: value for key, value in values.items() if key in kind.__dataclass_fields__}
    for key, value in known.items():
        if key in ("is_found", "is_served", "suits"):
            is_right = isinstance(value, bool) or (key == "suits" and value is None)
        elif key in ("notes", "source"):
            is_right = isinstance(value, list) and all(isinstance(each, str) for each in value)
        else:
            is_right = key == "files" or value is None or isinstance(value, str)
        if not is_right:
            raise TypeError(key)
    return kind(**known)


def report_text(report: Report) -> Iterator[str]:
    """The report as lines for people, without control characters."""
    return (printable(line) for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
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


def _part(title: str, files: Sequence[ReportedFile]) -> Iterator[str]:
    yield ""
    yield f"{title}: {len(files)} {'file' if len(files) == 1 else 'files'}"
    for file in files:
        origin = f" (from {'/'.join(file.source)})" if file.source else ""
        yield f"  {file.filename}{origin}"
        if file.reason:
            yield f"      {file.rule + ': ' if file.rule else ''}{file.reason}"
        if file.exception:
            yield f"      served by exception: {file.exception}"
        if file.yanked is not None:
            yield f"      yanked{': ' + file.yanked if file.yanked else ', without a reason'}"
