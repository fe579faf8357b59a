"""The command `allow`, which changes the exceptions to the cooldown of mirrors."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from packaging.utils import canonicalize_version
from packaging.version import Version

from private_pypi.backend.times import parse_duration, parse_instant, show_instant
from private_pypi.commands.command_line import UsageError
from private_pypi.commands.files import say, usable_root, warn
from private_pypi.configuration.config import is_repository_name
from private_pypi.distributions.filenames import normalize
from private_pypi.errors import ConfigurationError
from private_pypi.policy import FILENAME, Allowance
from private_pypi.policy.allowances import make_allowance
from private_pypi.policy.changing import add_allowance, read_allowances, remove_allowances


def allow(
    root: str,
    repository: str,
    project: str | None = None,
    *,
    version: str | None = None,
    file: str | None = None,
    by: str | None = None,
    why: str | None = None,
    until: str | None = None,
    list: bool = False,  # noqa: A002 - the flag's name
    remove: bool = False,
) -> None:
    """Let a young release of a mirror through before its cooldown ends.

    A mirror with a cooldown hides files that were uploaded a short time ago. This command adds an
    exception for a project, one of its versions or one file to the file allowed.toml in ROOT, or
    changes the exception that is there. Servers notice this within seconds.
    Run the command on the machine of the server, as the user of the server, which may be running.

    Usage:
        private_pypi allow ROOT REPOSITORY PROJECT --by WHO --why TEXT --until WHEN
        private_pypi allow ROOT REPOSITORY PROJECT --remove
        private_pypi allow ROOT REPOSITORY --list

    Args:
        root: The folder of the server.
        repository: The name of the mirror.
        project: The name of the project.
        version: Only this version.
        file: Only the file of this name.
        by: Who allows it.
        why: The reason, which people are shown.
        until: When the exception ends: a duration from now, such as "3 days", or a date or time in
            UTC, such as 2026-12-15 (its beginning) or 2026-12-15T18:00:00Z.
        list: Print the exceptions of the mirror, and change nothing.
        remove: Take the exception for exactly this project, version or file back.

    Example:
        private_pypi allow ./root pypi requests --version 2.33.1 --by "Ada Lovelace" \\
            --why "security fix" --until "3 days"
        private_pypi allow ./root pypi requests --version 2.33.1 --remove
    """
    now = datetime.now(UTC)
    if not is_repository_name(repository):
        raise UsageError(f"REPOSITORY {repository!r} is not a name of a repository")
    if not root or not Path(root).is_dir():
        raise ConfigurationError(f"ROOT: there is no folder {root!r}")
    entry = {"--by": by, "--why": why, "--until": until}
    given = [flag for flag, value in entry.items() if value is not None]
    path = usable_root(root) / FILENAME
    if list:
        if remove or given or version is not None or file is not None:
            raise UsageError("--list prints all exceptions; it takes PROJECT, but no other flag")
        _print_all(path, repository, project, now)
        return
    if project is None:
        raise UsageError("PROJECT is missing; to see what is allowed, give --list")
    if remove:
        if given:
            raise UsageError(f"--remove does not take {given[0]}")
        _remove(path, repository, project, version, file)
        return
    missing = [flag for flag, value in entry.items() if value is None]
    if by is None or why is None or until is None:
        raise UsageError("\n".join(f"missing {flag}" for flag in missing))
    try:
        allowance = make_allowance(
            repository=repository,
            project=project,
            version=version,
            file=file,
            by=by,
            why=why,
            until=_parse_until(until, now),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    _warn_of_unknown(path.parent, allowance.repository)
    for replaced in add_allowance(path, allowance):
        say(f"replaced: {_in_words(replaced, now)}")
    say(_in_words(allowance, now))
    _audit(path.parent, "allow", allowance)


def _remove(
    path: Path, repository: str, project: str, version: str | None, file: str | None
) -> None:
    try:
        normalized = None if version is None else canonicalize_version(Version(version))
    except ValueError as error:
        raise UsageError(
            f"--version: {version!r} is not a version; it must be like 1.0 (PEP 440)"
        ) from error
    name = normalize(project)
    removed = remove_allowances(path, (repository.lower(), name, normalized, file))
    if not removed:
        others = [
            each.subject
            for each in read_allowances(path)
            if (each.repository, each.project) == (repository.lower(), name)
        ]
        hint = f"; what is allowed of {name}: {', '.join(others)}" if others else ""
        what = file or f"{name} {version or '(all versions)'}"
        raise ConfigurationError(f"{repository.lower()} has no exception for {what}{hint}")
    for each in removed:
        say(f"{each.repository}: {each.subject} has no exception any more")
        _audit(path.parent, "disallow", each)


def _print_all(path: Path, repository: str, project: str | None, now: datetime) -> None:
    found = [
        each
        for each in read_allowances(path)
        if each.repository == repository.lower()
        and (project is None or each.project == normalize(project))
    ]
    for each in found:
        say(_in_words(each, now))
    if not found:
        say(f"{repository.lower()}: there are no exceptions to the cooldown")


def _in_words(allowance: Allowance, now: datetime) -> str:
    when = "ended" if allowance.until <= now else "allowed until"
    return (
        f"{allowance.repository}: {allowance.subject} {when} {show_instant(allowance.until)}, "
        f"by {allowance.by}: {allowance.why}"
    )


def _parse_until(text: str, now: datetime) -> datetime:
    """The instant that `--until` means, which is in the future."""
    try:
        until = now.replace(microsecond=0) + parse_duration(text)
    except ValueError:
        try:
            until = parse_instant(text)
        except ValueError:
            raise UsageError(
                f"--until: {text!r} is neither a duration, such as '3 days', nor a date or time in "
                "UTC, such as 2026-12-15 or 2026-12-15T18:00:00Z"
            ) from None
    if until <= now:
        raise UsageError(
            f"--until: {text!r} is {show_instant(until)}, which is not in the future; it is "
            f"{show_instant(now)} now"
        )
    return until.replace(microsecond=0)


def _warn_of_unknown(root: Path, repository: str) -> None:
    from private_pypi.repositories import has_state

    if not has_state(root, repository):
        warn(
            f"warning: {root} has no data of a repository {repository!r}; the exception counts "
            "once a mirror of this name is served from there; in a group, name the mirror itself"
        )


def _audit(root: Path, action: str, allowance: Allowance) -> None:
    from private_pypi.web.operations.audit import AuditLog, entry_time

    audit = AuditLog(root)
    line = {"time": entry_time(datetime.now(UTC)), "action": action, "outcome": "done"}
    audit.append({**line, **allowance.entry()})
    audit.close()
