"""What a workflow passes to pip to install this project: the origin of the running installation.

The name of the project alone is never used, because the public index has an abandoned release of
2020 under it. This module makes no requests.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from private_pypi.errors import ConfigurationError

PROJECT = "private-pypi"
VARIABLE = "PRIVATE_PYPI_REQUIREMENT"

_ABANDONED = "0.2.0"  # the newest release of 2020
_GIVE_ONE = (
    "give --requirement, such as 'private-pypi @ git+https://HOST/OWNER/REPO@COMMIT' "
    "or the address of a wheel"
)
_TIMEOUT = 30  # seconds

# The variables that git needs to be found and to read its own configuration. It does not get any
# others: a checkout can make git run programs, and the environment may contain a token. Variables
# such as GIT_DIR, which hooks of git set, would mean another repository.
_NEEDED_BY_GIT = (
    *("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "SUDO_UID", "XDG_CONFIG_HOME"),
)


class InstalledFrom(NamedTuple):
    """A requirement for pip, and warnings about it."""

    requirement: str
    warnings: tuple[str, ...] = ()


def check_requirement(text: str, given_by: str = "--requirement") -> str:
    """Check a requirement from an operator, and return it without spaces around it.

    Raises `ConfigurationError` if it would install something else than this project. `given_by` is
    the flag or the variable that it comes from, for the error.
    """
    text = url = text.strip()
    if not re.match(r"(?:git\+)?https?://", text):
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise ConfigurationError(
                f"{given_by}: {text!r} is not a requirement; {_GIVE_ONE}"
            ) from error
        url = requirement.url or ""
        if not url and canonicalize_name(requirement.name) != PROJECT:
            raise ConfigurationError(f"{given_by}: {text!r} is not this project; {_GIVE_ONE}")
        if not url and requirement.specifier.contains(_ABANDONED):
            raise ConfigurationError(
                f"{given_by}: {text!r} may install the abandoned release {_ABANDONED} of 2020; "
                f"{_GIVE_ONE}"
            )
    if "@" in urlsplit(url).netloc:
        raise ConfigurationError(f"{given_by}: must not contain a user or a password")
    return text


def installed_from(
    environ: Mapping[str, str], *, installed: Distribution | None = None, source: Path | None = None
) -> InstalledFrom:
    """The origin of this installation, with its commit.

    In a container image it is in the variable `PRIVATE_PYPI_REQUIREMENT`. Otherwise pip has
    recorded it (PEP 610), or git knows it if this is a checkout. Raises `ConfigurationError` if it
    is unknown, or if other machines cannot install from there. The keyword arguments are for tests.
    """
    given = environ.get(VARIABLE, "").strip()
    if given:
        return InstalledFrom(check_requirement(given, VARIABLE))
    folder = source or Path(__file__).parents[2]
    told = _direct_url(installed)
    below = told.get("subdirectory") or ""
    match told:
        case {"url": str(url), "vcs_info": {"vcs": "git", "commit_id": str(commit)}}:
            return InstalledFrom(_git(url, commit, f"#subdirectory={below}" if below else ""))
        case {"url": str(url), "archive_info": info} if address := _public_address(url):
            match info:
                case {"hashes": {"sha256": sha256}}:
                    address += f"#sha256={sha256}"
            return InstalledFrom(f"{PROJECT} @ {address}")
        case {"url": str(url), "dir_info": _} if url.startswith("file:"):
            folder = Path(unquote(urlsplit(url).path), str(below))
        case _ if not told and not (folder / ".git").exists():
            raise _unknown("this installation has no record of its origin")
    return _checkout(folder, environ)


def _unknown(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"it is unknown from where the workflow can install this program: {why}; {_GIVE_ONE}"
    )


def _direct_url(installed: Distribution | None) -> dict[str, object]:
    """The record of pip about the origin of an installation (PEP 610), or an empty one."""
    try:
        text = (installed or distribution(PROJECT)).read_text("direct_url.json")
        told = json.loads(text or "{}")
    except (PackageNotFoundError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _checkout(folder: Path, environ: Mapping[str, str]) -> InstalledFrom:
    # The installation may be in a folder of another project's repository.
    top = _ask_git(folder, environ, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != folder.resolve():
        raise _unknown("this is not installed from a git checkout")
    origin = _ask_git(folder, environ, "remote", "get-url", "origin")
    commit = _ask_git(folder, environ, "rev-parse", "HEAD")
    if not origin or commit is None:
        raise _unknown("this is installed from a git checkout that has no origin or no commit")
    warnings = []
    if _ask_git(folder, environ, "status", "--porcelain", "--untracked-files=no"):
        warnings.append(
            "the checkout has changes that are not committed; the workflow will not have them"
        )
    if not _ask_git(folder, environ, "branch", "--remotes", "--contains", commit):
        warnings.append(
            f"commit {commit[:12]} does not seem to be on any branch of origin; push it"
        )
    return InstalledFrom(_git(origin, commit), tuple(warnings))


def _git(origin: str, commit: str, fragment: str = "") -> str:
    address = _public_address(origin)
    if address is None:
        raise ConfigurationError(
            f"a workflow cannot install from the origin of this checkout; {_GIVE_ONE}"
        )
    if not re.fullmatch("[0-9a-f]{40}(?:[0-9a-f]{24})?", commit):
        raise ConfigurationError(f"the commit of this installation is unknown; {_GIVE_ONE}")
    return f"{PROJECT} @ git+{address}@{commit}{fragment}"


def _public_address(origin: str) -> str | None:
    """The https address of an origin, without the part before @, which may be a password.

    None for a folder, or for anything else on this machine.
    """
    # git@HOST:OWNER/REPO: a workflow has no key for this.
    short = re.fullmatch(r"(?:[^@/:]+@)?([^@/:]+\.[^@/:]+):(?!/)(.+)", origin)
    if short is not None:
        return f"https://{short[1]}/{short[2]}"
    parts = urlsplit(origin)
    if parts.scheme not in ("https", "ssh", "git") or not parts.hostname:
        return None
    host = parts.netloc.rpartition("@")[2] if parts.scheme == "https" else parts.hostname
    return urlunsplit(parts._replace(scheme="https", netloc=host, fragment=""))


def _ask_git(folder: Path, environ: Mapping[str, str], *question: str) -> str | None:
    """The output of a git command in a checkout; None if it fails, or if there is no git."""
    needed = {name: environ[name] for name in _NEEDED_BY_GIT if name in environ}
    try:
        ended = subprocess.run(
            ["git", "-C", str(folder), *question],
            env=needed,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout.strip() if ended.returncode == 0 else None
