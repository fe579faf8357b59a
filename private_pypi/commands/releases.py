"""`yank`, `unyank` and `delete`: one request to a server, one printed line for each file."""

from __future__ import annotations

from collections.abc import Mapping

from packaging.version import InvalidVersion, Version

from private_pypi.command_line import UsageError
from private_pypi.commands.files import say
from private_pypi.filenames import normalize, parse_filename
from private_pypi.index_client import connect


def yank(
    index_url: str,
    project: str,
    version: str,
    filename: str | None = None,
    *,
    reason: str = "",
    environ: Mapping[str, str],
) -> None:
    """Yank a release, or one of its files.

    Installers then choose it only where exactly this version is demanded (PEP 592).
    Credentials come from INDEX_URL, from PRIVATE_PYPI_USERNAME and PRIVATE_PYPI_PASSWORD, or from
    netrc.

    Args:
        index_url: The address of the index, https://HOST/r/<repository>/simple/.
        project: The name of the project.
        version: The version of the release.
        filename: One file of the release; all of them when it is left out.
        reason: A sentence that installers show.

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
    """Take a yank back.

    Credentials come from INDEX_URL, from PRIVATE_PYPI_USERNAME and PRIVATE_PYPI_PASSWORD, or from
    netrc.

    Args:
        index_url: The address of the index, https://HOST/r/<repository>/simple/.
        project: The name of the project.
        version: The version of the release.
        filename: One file of the release; all of them when it is left out.

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
    environ: Mapping[str, str],
) -> None:
    """Delete a release, or one of its files, for ever.

    The names of deleted files are never used again: a new build needs a new version.
    Credentials come from INDEX_URL, from PRIVATE_PYPI_USERNAME and PRIVATE_PYPI_PASSWORD, or from
    netrc.

    Args:
        index_url: The address of the index, https://HOST/r/<repository>/simple/.
        project: The name of the project.
        version: The version of the release.
        filename: One file of the release; all of them when it is left out.

    Example:
        private_pypi delete http://127.0.0.1:8888/r/mine/simple/ demo 1.0 demo-1.0.tar.gz
    """
    target = _target(project, version, filename)
    for name in connect(index_url, environ).delete(project, target):
        say(f"deleted {name}")


def _target(project: str, version: str, filename: str | None) -> str:
    """What the server is asked for; a file must be of the release that was named with it."""
    try:
        parsed_version = Version(version)
    except InvalidVersion as error:
        raise UsageError(f"VERSION {version!r} is no version (PEP 440), such as 1.0") from error
    if filename is None:
        return version
    parsed = parse_filename(filename)
    if parsed.project != normalize(project) or parsed.version != parsed_version:
        raise UsageError(
            f"FILENAME {filename!r} is no file of {project} {version}, "
            f"but of {parsed.project} {parsed.version}"
        )
    return filename
