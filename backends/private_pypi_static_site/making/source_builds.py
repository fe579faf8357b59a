"""Fetches a tag from a git repository, and builds distribution files from it.

Git gets the token in its environment, for one host. A build runs code of the project: it gets an
environment without secrets, a home folder of its own, and a limited time. On Linux it can read the
environment and the memory of this process only as root. It still runs as the same user, so secrets
belong neither into the job of a workflow that builds, nor into its files.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import tomli

from private_pypi.backend import Secret
from private_pypi.commands.files import warn
from private_pypi.distributions.filenames import is_filename
from private_pypi.distributions.records import printable
from private_pypi.errors import BackendError, BackendUnavailable, ConfigurationError
from private_pypi.system.child_environment import child_environment

GIT_SECONDS: Final = 600
BUILD_SECONDS: Final = 1800
MOST_FILES: Final = 20  # that one build may make

_TAIL: Final = 64 << 10  # bytes of output that are kept, from the end
_SHOWN_LINES: Final = 20  # of the output, in an error
_LARGEST_TEXT: Final = 256 << 10  # bytes of a README or pyproject.toml

# Besides those of `child_environment`. The variables for certificates and proxies have the same
# meaning for git and for pip.
_FOR_BOTH: Final = (
    *("PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)
# Git may use what its user has configured, also to log in.
_FOR_GIT: Final = (
    *("HOME", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK", "GIT_SSL_CAINFO"),
    *("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"),
)
_FOR_BUILDS: Final = (
    *("PIP_CERT", "PIP_CONFIG_FILE", "PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"),
    *("PIP_INDEX_URL", "PIP_NO_INDEX", "PIP_PROXY"),
)
_CREDENTIALS: Final = re.compile(r"//[^/\s]*@")
_PR_SET_DUMPABLE: Final = 4  # prctl(2)


# -- git -------------------------------------------------------------------------------------------


def find_tag(
    address: str, tags: Sequence[str], *, token: Secret | None, environ: Mapping[str, str]
) -> str:
    """The first of these tags that a git repository has; raises `ConfigurationError`."""
    refs = [f"refs/tags/{tag}" for tag in tags]
    output = _git(["ls-remote", "--refs", "--", address, *refs], address, token, environ)
    found = {line.partition("\t")[2] for line in output.splitlines()}
    for tag, ref in zip(tags, refs, strict=True):
        if ref in found:
            return tag
    raise ConfigurationError(f"{address} has no tag {' or '.join(map(repr, tags))}")


def fetch_tag(
    address: str, tag: str, folder: Path, *, token: Secret | None, environ: Mapping[str, str]
) -> None:
    """Check out a tag into a folder, which is created.

    `git clone --branch` would prefer a branch of the same name, so the tag is fetched by its ref.
    """
    ref = f"refs/tags/{tag}"
    _git(["init", "--quiet", "--", str(folder)], address, None, environ)
    inside = ["-C", str(folder)]
    fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules"]
    _git([*inside, *fetch, "--", address, f"+{ref}:{ref}"], address, token, environ)
    # Without the token: filters that the user has configured run here.
    _git([*inside, "checkout", "--quiet", "--detach", ref], address, None, environ)


def _git(
    arguments: Sequence[str], address: str, token: Secret | None, environ: Mapping[str, str]
) -> str:
    env = _environment((*_FOR_BOTH, *_FOR_GIT), environ)
    # Git must not ask for a password, neither here nor in a window.
    env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "SSH_ASKPASS": "true"}
    env |= {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes", "LC_ALL": "C"}
    if token is not None:
        # Of the environment, other users see nothing, unlike arguments. Nothing of it is written
        # into the new repository, and it is for this host alone: redirects are not followed.
        parts = urlsplit(address)
        basic = base64.b64encode(f"x-access-token:{token.reveal()}".encode()).decode()
        header = (
            f"http.{parts.scheme}://{parts.netloc}/.extraHeader",
            f"Authorization: Basic {basic}",
        )
        pairs = [header, ("http.followRedirects", "false"), ("credential.helper", "")]
        env["GIT_CONFIG_COUNT"] = str(len(pairs))
        for number, (key, value) in enumerate(pairs):
            env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    what = f"git {next(each for each in arguments if not each.startswith(('-', '/')))} of {address}"
    return _run(["git", *arguments], env=env, cwd=None, seconds=GIT_SECONDS, what=what)


# -- what a checkout says --------------------------------------------------------------------------


def read_readme(checkout: Path) -> bytes | None:
    """The README of a checkout as Markdown; None: there is none.

    Other markup is shown as it is written, in a block of code.
    """
    named = {path.name.lower(): path for path in sorted(checkout.iterdir(), reverse=True)}
    for name in ("readme.md", "readme.markdown", "readme.rst", "readme.txt", "readme"):
        content = _read(named[name]) if name in named else None
        if content is None:
            continue
        text = printable(content.decode(errors="replace"))
        if not name.endswith((".md", ".markdown")):
            longest = max((len(run) for run in re.findall("`+", text)), default=0)
            fence = "`" * max(3, longest + 1)
            text = f"{fence}text\n{text.rstrip()}\n{fence}\n"
        return text.encode()
    return None


def read_declared(checkout: Path) -> Mapping[str, Any]:
    """The table `project` of `pyproject.toml`; empty if there is none that can be read."""
    content = _read(checkout / "pyproject.toml")
    try:
        table = tomli.loads((content or b"").decode()).get("project")
    except (tomli.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def _read(path: Path) -> bytes | None:
    """A regular file, up to 256 KiB. A link could lead to a file of this machine."""
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(_LARGEST_TEXT)


# -- builds ----------------------------------------------------------------------------------------


def build_files(checkout: Path, folder: Path, *, environ: Mapping[str, str]) -> Sequence[Path]:
    """Build an sdist, and a wheel from it, into a folder; `folder` is created.

    Raises `ConfigurationError` if the package `build` is missing, and `BackendError` with the end
    of the output if the build fails.
    """
    try:
        version("build")
    except PackageNotFoundError:
        raise ConfigurationError(
            "building from source needs the package build; install private-pypi[build]"
        ) from None
    home, output, temporary = folder / "home", folder / "output", folder / "tmp"
    for each in (home, output, temporary):
        each.mkdir(parents=True)
    env = _environment((*_FOR_BOTH, *_FOR_BUILDS), environ)
    env |= {"HOME": str(home), "TMPDIR": str(temporary), "PIP_NO_INPUT": "1"}
    env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "GIT_TERMINAL_PROMPT": "0"}
    _hide()
    # -P: otherwise, a module of the project called `build` would be run instead.
    command = [sys.executable, "-P", "-m", "build", f"--outdir={output}", "--", str(checkout)]
    _run(command, env=env, cwd=home, seconds=BUILD_SECONDS, what="the build")
    found = sorted(output.iterdir())
    files = [path for path in found if is_filename(path.name) and not path.is_symlink()]
    files = [path for path in files if path.is_file()]
    if not files or len(files) > MOST_FILES:
        raise BackendError(
            f"the build made {len(files)} wheels and sdists; it must make 1 to {MOST_FILES}"
        )
    return files


def _hide() -> None:
    """Keep other processes of this user from reading the token in /proc, or in memory.

    It stays so, because what a build has started may outlive it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # no library of C, or another one
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


# -- child processes -------------------------------------------------------------------------------


def _environment(names: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    env = child_environment()
    for name in names:
        value = environ.get(name)
        if value is None:
            continue
        if _CREDENTIALS.search(value):
            warn(f"warning: {name} is not passed on, because it has a user name or password")
            continue
        env[name] = value
    return env


def _run(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path | None, seconds: int, what: str
) -> str:
    """Run a program in a session of its own and return the end of its output.

    When it ends or its time is over, all its children are killed.
    """
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise BackendError(f"cannot run {command[0]!r}: {error.strerror}") from error
    assert process.stdout is not None
    pipe, tail = process.stdout, bytearray()

    def read() -> None:
        while chunk := os.read(pipe.fileno(), 1 << 16):
            tail.extend(chunk)
            del tail[:-_TAIL]

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise BackendUnavailable(f"{what} took longer than {seconds} seconds") from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join(5)
        if not reader.is_alive():  # otherwise a child that left the session still has the pipe
            pipe.close()
    text = printable(bytes(tail).decode(errors="replace"))
    if code != 0:
        lines = "\n".join(text.splitlines()[-_SHOWN_LINES:])
        raise BackendError(f"{what} failed (exit code {code}):\n{lines}")
    return text
