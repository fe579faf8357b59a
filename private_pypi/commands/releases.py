"""The commands `yank`, `unyank` and `delete`, which send one request to a server."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from packaging.version import InvalidVersion, Version

from private_pypi.commands.command_line import UsageError
from private_pypi.commands.files import say
from private_pypi.commands.index_client import connect
from private_pypi.distributions.filenames import normalize, parse_filename


def yank(
    index_url: str,
    project: str,
    version: str,
    filename: str | None = None,
    *,
    reason: str = "",
    environ: Mapping[str, str],
) -> None:
    """Yank a release or one of its files, so that installers avoid it.

    Installers then use it only for requirements that name exactly this version (PEP 592).
    The user name and the secret are taken from INDEX_URL (https://USER:SECRET@HOST/…), from the
    environment variables PRIVATE_PYPI_USERNAME and PRIVATE_PYPI_PASSWORD, or from the netrc file.

    Args:
        index_url: The address of the index, https://HOST/r/<repository>/simple/.
        project: The name of the project.
        version: The version of the release.
        filename: One file of the release. Without it, the command applies to all files.
        reason: A sentence that installers show to their users.

    Example:
        private_pypi yank http://127.0.0.1:8888/r/mine/simple/ demo 1.0 --reason "broken on 3.13"
    """
    target = _target(project, version, filename)
    for name in connect(index_url, environ).yank(project, target, reason):
        say(f"yanked {name}")


def unyank(
    index_url: str,
    project: str,
    version: str,
    filename: str | None = None,
    *,
    environ: Mapping[str, str],
) -> None:
    """Undo the yank of a release or of one of its files.

    The user name and the secret are taken from INDEX_URL (https://USER:SECRET@HOST/…), from the
    environment variables PRIVATE_PYPI_USERNAME and PRIVATE_PYPI_PASSWORD, or from the netrc file.

    Args:
        index_url: The address of the index, https://HOST/r/<repository>/simple/.
        project: The name of the project.
        version: The version of the release.
        filename: One file of the release. Without it, the command applies to all files.

    Example:
        private_pypi unyank http://127.0.0.1:8888/r/mine/simple/ demo 1.0
    """
    target = _target(project, version, filename)
    for name in connect(index_url, environ).unyank(project, target):
        say(f"un-yanked {name}")


def delete(
    index_url: str,
    project: str,
    version: str,
    filename: str | None = None,
    *,
    yes: bool = False,
    environ: Mapping[str, str],
) -> None:
    """Delete a release or one of its files permanently.

    The names of deleted files cannot be used again, unless the operator of the server allows it
    with the command restore_name. So a new build needs a new version.
    On a terminal, the command asks for confirmation. In a script it does not.
    The user name and the secret are taken from INDEX_URL (https://USER:SECRET@HOST/…), from the
    environment variables PRIVATE_PYPI_USERNAME and PRIVATE_PYPI_PASSWORD, or from the netrc file.

    Args:
        index_url: The address of the index, https://HOST/r/<repository>/simple/.
        project: The name of the project.
        version: The version of the release.
        filename: One file of the release. Without it, the command applies to all files.
        yes: Do not ask for confirmation.

    Example:
        private_pypi delete http://127.0.0.1:8888/r/mine/simple/ demo 1.0 demo-1.0.tar.gz
    """
    target = _target(project, version, filename)
    client = connect(index_url, environ)
    if not yes and sys.stdin.isatty() and sys.stdout.isatty():
        what = filename or f"all files of {project} {version}"
        question = f"Delete {what} permanently? Only restore_name allows its name again. [y/N] "
        if input(question).strip().lower() not in ("y", "yes"):
            say("nothing was deleted")
            sys.exit(1)
    for name in client.delete(project, target):
        say(f"deleted {name}")


def _target(project: str, version: str, filename: str | None) -> str:
    """What the command applies to: the filename, which must be of this release, or the version."""
    try:
        parsed_version = Version(version)
    except InvalidVersion as error:
        raise UsageError(
            f"VERSION {version!r} is not a version; it must be like 1.0 (PEP 440)"
        ) from error
    if filename is None:
        return version
    parsed = parse_filename(filename)
    if parsed.project != normalize(project) or parsed.version != parsed_version:
        raise UsageError(
            f"FILENAME {filename!r} is a file of {parsed.project} {parsed.version}; "
            f"it must be a file of {project} {version}"
        )
    return filename
