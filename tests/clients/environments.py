"""A virtual environment for each client, installed from its lock and kept between runs.

Only the installation reaches a registry, with the pip configuration of this machine; a client that
is being tested runs with `Client.run`, in an environment from which nothing outside this machine
can be reached.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from filelock import FileLock

from tests.machine import declare

CHECKOUT: Final = Path(__file__).parents[2]
LOCKS: Final = CHECKOUT / "requirements" / "clients"
CACHE: Final = CHECKOUT / ".cache" / "clients"

CLIENTS: Final = ("pip", "uv", "poetry", "pdm", "twine", "hatch", "flit")

_TIMEOUT = 300  # seconds; a client that hangs is a failure
_NOBODY = "http://127.0.0.1:9"  # nothing listens there: what is asked outside fails at once


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client said, and how it ended."""

    code: int
    output: str  # both streams, as the user saw them

    @property
    def text(self) -> str:
        """The output on one line: clients break lines where it pleases them."""
        return " ".join(self.output.split())


@dataclass(frozen=True, slots=True)
class Client:
    """An installed client with a home of its own; `home` is empty at the start of a test."""

    name: str
    environment: Path
    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)  # added in every run
    before: tuple[str, ...] = ()  # what runs the client, with words of its own

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    def run(
        self, *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> Outcome:
        """Run the client whatever comes of it; `env` is added to the scrubbed environment.

        Raises `subprocess.TimeoutExpired` when it hangs or asks something.
        """
        if self.name == "pip":
            command: list[str | Path] = [*self.before, self.python, "-m", "pip", *arguments]
        else:
            command = [*self.before, self.environment / "bin" / self.name, *arguments]
        ended = subprocess.run(
            command,
            cwd=cwd or self.home,
            env=self.scrubbed() | dict(self.variables) | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT,
        )
        return Outcome(ended.returncode, ended.stdout.decode("utf-8", "backslashreplace"))

    def scrubbed(self) -> dict[str, str]:
        """The variables with which it runs: of this machine it knows the Python, no more."""
        home = self.home
        proxies = {f"{scheme}_proxy": _NOBODY for scheme in ("http", "https", "all")}
        return {
            **proxies,
            "no_proxy": "127.0.0.1",
            "PATH": f"{self.environment / 'bin'}:/usr/bin:/bin",
            "HOME": str(home),
            "TMPDIR": str(_made(home / "tmp")),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_CONFIG_DIRS": str(home / "etc"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_STATE_HOME": str(home / "state"),
            "LANG": "C.UTF-8",
            "COLUMNS": "400",  # rich breaks lines, and paths, at the width of the terminal
            "NO_COLOR": "1",
            "SOURCE_DATE_EPOCH": "1700000000",  # what is built twice is the same bytes
            "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
            "PIP_RETRIES": "1",
            "UV_PYTHON": sys.executable,
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            "UV_HTTP_RETRIES": "1",
            "POETRY_KEYRING_ENABLED": "false",
            "POETRY_NO_INTERACTION": "1",
            "PDM_CHECK_UPDATE": "false",
            "PDM_IGNORE_SAVED_PYTHON": "1",
            "PDM_NON_INTERACTIVE": "1",
        }


def install_client(name: str) -> Path:
    """The environment of a client, made on first use; safe to call from several processes.

    Raises `RuntimeError` when pip cannot install what the lock names.
    """
    declare(name)
    lock = LOCKS / f"{name}.txt"
    facts = lock.read_bytes() + sys.version.encode() + str(CHECKOUT).encode()
    environment = _made(CACHE) / f"{name}-{hashlib.sha256(facts).hexdigest()[:12]}"
    done = environment / "installed"
    with FileLock(environment.with_suffix(".lock")):
        if not done.exists():
            for older in CACHE.glob(f"{name}-*/"):
                shutil.rmtree(older)
            venv.create(environment, symlinks=True)
            _pip_install(lock, environment)
            done.touch()
    return environment


def locked_version(name: str) -> str:
    """The version of a client that its lock names."""
    text = (LOCKS / f"{name}.txt").read_text()
    found = re.search(rf"^{name}==(\S+)", text, re.MULTILINE)
    assert found is not None, f"no version of {name} in its lock"
    return found[1]


def make_venv(folder: Path) -> Path:
    """An empty virtual environment to install into."""
    venv.create(folder, symlinks=True)
    return folder


def site_packages(environment: Path) -> Path:
    (found,) = environment.glob("lib/python*/site-packages")
    return found


def _pip_install(lock: Path, environment: Path) -> None:
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pip", f"--python={environment}", "install", "--quiet"),
            *("--no-input", "--disable-pip-version-check", "--only-binary=:all:"),
            # A lock is complete, and pip cannot match `name[extra]` with a hashed `name==1`.
            *("--no-deps", "--require-hashes", f"--requirement={lock}"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if ended.returncode != 0:
        raise RuntimeError(f"pip cannot install {lock}:\n{ended.stdout.decode(errors='replace')}")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
