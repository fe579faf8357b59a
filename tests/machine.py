"""What some tests need of the machine: Debian packages, installed where that is allowed.

Who may not install (no root, no apt-get) is told at the end of the run which tests did not run;
continuous integration may, so a package that is missing there is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

_TIMEOUT = 600  # seconds, on a slow mirror
_LOCK = Path(tempfile.gettempdir()) / f"private_pypi-tests-{os.getuid()}.lock"


def need(command: str, *packages: str) -> Path:
    """The path of a command, which one of these Debian packages brings.

    Skips the test where it is missing and may not be installed; fails it when it should have been.
    """
    found = _find(command)
    if found is not None:
        return found
    with FileLock(_LOCK):  # the workers of a parallel run install one after another
        found = _find(command)
        if found is None:
            _install(command, packages)
            found = _find(command)
    if found is None:
        pytest.fail(f"{' '.join(packages)} brought no command {command!r}")
    return found


def _find(command: str) -> Path | None:
    # What only root uses is not on everybody's PATH.
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(command, path=path)
    return None if found is None else Path(found)


def _install(command: str, packages: tuple[str, ...]) -> None:
    prefix = _as_root()
    if prefix is None or _find("apt-get") is None:
        message = f"needs {command!r}: as root, apt-get install {' '.join(packages)}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    for attempt in (install, ["apt-get", "update", "-qq"], install):
        ended = subprocess.run(
            [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", *attempt],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT,
        )
        if attempt is install and ended.returncode == 0:
            return
    said = ended.stdout.decode("utf-8", "backslashreplace")
    pytest.fail(f"{' '.join(packages)} could not be installed:\n{said[-3000:]}")


def _as_root() -> list[str] | None:
    """What to put before a command that root shall run; None: nobody may."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    may = subprocess.run(["sudo", "-n", "true"], stderr=subprocess.DEVNULL)
    return ["sudo", "-n"] if may.returncode == 0 else None
