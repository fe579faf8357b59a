"""Helpers of the commands for output, for the folder of the server, and for secrets."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from private_pypi.backend import Secret
from private_pypi.commands.command_line import UsageError
from private_pypi.configuration.config import read_source
from private_pypi.distributions.records import printable
from private_pypi.errors import ConfigurationError


def say(text: str) -> None:
    """Write a line to stdout at once, with control characters replaced."""
    sys.stdout.write(f"{printable(text)}\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """Write a line to stderr at once, with control characters replaced."""
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def usable_root(root: str) -> Path:
    """ROOT as an absolute path. It is created if it does not exist.

    Raises `UsageError` if it is empty, and `ConfigurationError` if files cannot be created in it.
    """
    if not root:  # from an unset variable; it must not mean the working directory
        raise UsageError("ROOT is empty; it must be the path of a folder")
    path = Path(root).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        if isinstance(error, PermissionError):
            # This happens in containers, if the folder of the host belongs to root.
            why = f"{why}; the user with the ID {os.geteuid()} must be able to write there"
        raise ConfigurationError(f"cannot use {str(path)!r} as ROOT: {why}") from error
    return path


def one_secret(
    what: str,
    *,
    raw: str | None = None,
    env: str | None = None,
    file: str | None = None,
    environ: Mapping[str, str],
) -> Secret | None:
    """The secret given by one of `--<what>`, `--<what>_env` and `--<what>_file`; None without them.

    Raises `UsageError` if several of them are given, and `ConfigurationError` if the variable is
    not set, the file cannot be read, or the secret is empty.
    """
    ways = {f"--{what}": raw, f"--{what}_env": env, f"--{what}_file": file}
    given = [flag for flag, value in ways.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"only one of {' and '.join(given)} may be given")
    if not given:
        return None
    secret = raw or ""
    if env is not None:
        if env not in environ:
            raise ConfigurationError(f"{given[0]}: the environment variable {env!r} is not set")
        secret = environ[env]
    if file is not None:
        secret = read_source(Path(file)).text.rstrip("\r\n")
    if not secret:
        raise ConfigurationError(f"{given[0]}: the secret is empty")
    return Secret(secret)
