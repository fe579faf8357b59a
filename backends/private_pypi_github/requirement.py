"""How a workflow installs this very project: from where this installation came; it asks no network.

Never by the bare name: the public index has a release of 2020 under it, which was abandoned.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import private_pypi
from private_pypi.errors import ConfigurationError

PROJECT = "private-pypi"
VARIABLE = "PRIVATE_PYPI_REQUIREMENT"

_ABANDONED = "0.2.0"  # the newest release of 2020
_COMMIT = re.compile("[0-9a-f]{40}(?:[0-9a-f]{24})?")
_GIVE_ONE = (
    "give --requirement, such as 'private-pypi @ git+https://HOST/OWNER/REPO@COMMIT' "
    "or the address of a wheel"
)
_UNTOLD = "where the workflow gets this program from cannot be told"
_TIMEOUT = 30  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledFrom:
    """What pip is given, and what may be wrong with it."""

    requirement: str
    warnings: tuple[str, ...] = ()


def check_requirement(text: str, given_by: str = "--requirement") -> str:
    """What an operator gave; raises `ConfigurationError` for what would install something else.

    `given_by` is the flag or the variable that errors name.
    """
    text = text.strip()
    if re.match(r"(?:git\+)?https?://", text):
        if "@" in urlsplit(text).netloc:
            raise ConfigurationError(f"{given_by}: must not hold a user or password")
        return text
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise ConfigurationError(f"{given_by}: {text!r} is none; {_GIVE_ONE}") from error
    if requirement.url is not None:
        if "@" in urlsplit(requirement.url).netloc:
            raise ConfigurationError(f"{given_by}: must not hold a user or password")
    elif canonicalize_name(requirement.name) != PROJECT:
        raise ConfigurationError(f"{given_by}: {text!r} is not this project; {_GIVE_ONE}")
    elif requirement.specifier.contains(_ABANDONED):
        raise ConfigurationError(
            f"{given_by}: {text!r} may install the abandoned release {_ABANDONED} of 2020; "
            f"{_GIVE_ONE}"
        )
    return text


def installed_from(
    environ: Mapping[str, str], *, installed: Distribution | None = None, source: Path | None = None
) -> InstalledFrom:
    """The origin of this installation, at its commit.

    The variable tells it in an image, PEP 610 elsewhere, and git for a checkout. Raises
    `ConfigurationError` when it cannot be told, or when nobody else could install from there.
    The arguments are for tests.
    """
    given = environ.get(VARIABLE, "").strip()
    if given:
        return InstalledFrom(requirement=check_requirement(given, VARIABLE))
    told = _direct_url(installed)
    folder = source or Path(private_pypi.__file__).parent.parent
    if told is not None:
        url = str(told.get("url"))
        below = told.get("subdirectory")
        vcs = told.get("vcs_info")
        if isinstance(vcs, dict) and vcs.get("vcs") == "git":
            return InstalledFrom(requirement=_git(url, str(vcs.get("commit_id")), below))
        if "archive_info" in told and url.startswith("https:"):
            return InstalledFrom(requirement=f"{PROJECT} @ {_archive(url, told['archive_info'])}")
        if url.startswith("file:") and "dir_info" in told:
            folder = Path(unquote(urlsplit(url).path), str(below or ""))
    elif not (folder / ".git").exists():
        raise ConfigurationError(
            f"{_UNTOLD}, because this installation does not say it; {_GIVE_ONE}"
        )
    return _checkout(folder, environ)


def _direct_url(installed: Distribution | None) -> dict[str, object] | None:
    try:
        text = (installed or distribution(PROJECT)).read_text("direct_url.json")
        told = None if text is None else json.loads(text)
    except (PackageNotFoundError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _archive(url: str, info: object) -> str:
    hashes = info.get("hashes") if isinstance(info, dict) else None
    sha256 = hashes.get("sha256") if isinstance(hashes, dict) else None
    address = _without_user(url).partition("#")[0]
    return f"{address}#sha256={sha256}" if sha256 else address


def _checkout(folder: Path, environ: Mapping[str, str]) -> InstalledFrom:
    # Another project's repository may have this installation somewhere below it.
    top = _ask_git(folder, environ, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != folder.resolve():
        raise ConfigurationError(
            f"{_UNTOLD}, because this is installed from no git checkout; {_GIVE_ONE}"
        )
    origin = _ask_git(folder, environ, "remote", "get-url", "origin")
    commit = _ask_git(folder, environ, "rev-parse", "HEAD")
    if not origin or commit is None:
        raise ConfigurationError(
            f"{_UNTOLD}, because the checkout that this is installed from has no origin and "
            f"commit; {_GIVE_ONE}"
        )
    warnings = []
    if _ask_git(folder, environ, "status", "--porcelain", "--untracked-files=no"):
        warnings.append("the checkout has changes that are not committed; the workflow lacks them")
    if not _ask_git(folder, environ, "branch", "--remotes", "--contains", commit):
        warnings.append(f"no branch of origin is known to have commit {commit[:12]}; push it")
    return InstalledFrom(requirement=_git(origin, commit, None), warnings=tuple(warnings))


def _git(origin: str, commit: str, below: object) -> str:
    address = _public_address(origin)
    if address is None:
        raise ConfigurationError(
            f"a workflow cannot install from the origin of this checkout; {_GIVE_ONE}"
        )
    if not _COMMIT.fullmatch(commit):
        raise ConfigurationError(f"the commit of this installation is unknown; {_GIVE_ONE}")
    fragment = f"#subdirectory={below}" if below else ""
    return f"{PROJECT} @ git+{address}@{commit}{fragment}"


def _public_address(origin: str) -> str | None:
    """The https address of an origin; None for a folder or anything else of this machine."""
    # git@HOST:OWNER/REPO, which a workflow has no key for.
    short = re.fullmatch(r"(?:[^@/:]+@)?([^@/:]+\.[^@/:]+):(?!/)(.+)", origin)
    if short is not None:
        return f"https://{short[1]}/{short[2]}"
    parts = urlsplit(origin)
    if parts.scheme in ("https", "ssh", "git") and parts.hostname:
        if parts.scheme == "https":
            return _without_user(origin)
        return f"https://{parts.hostname}{parts.path}"
    return None


def _without_user(url: str) -> str:
    """An address as everybody may see it: what is before an @ may be a secret."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _ask_git(folder: Path, environ: Mapping[str, str], *question: str) -> str | None:
    """What git says about a checkout; None when it says nothing, or is not there."""
    # GIT_DIR and the like, which hooks set, speak of another repository.
    clean = {key: value for key, value in environ.items() if not key.startswith("GIT_")}
    try:
        ended = subprocess.run(
            ["git", "-C", str(folder), *question],
            env=clean,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout.strip() if ended.returncode == 0 else None
