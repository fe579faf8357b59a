"""What the commands read and write of files and streams; knows nothing of what is in them."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from private_pypi.backend import Secret
from private_pypi.command_line import UsageError
from private_pypi.config import Source
from private_pypi.errors import ConfigurationError


def say(text: str) -> None:
    """A line on stdout, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """A line on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def read_source(path: Path) -> Source:
    """A TOML file; raises `ConfigurationError` when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{str(path)!r} is no file of UTF-8 text") from error
    return Source(text=text, name=str(path), folder=path.absolute().parent)


def usable_root(root: str) -> Path:
    """ROOT as an absolute path; made when it is missing, refused when nothing can be written."""
    if not root:  # an unset variable, which is not meant to be the working folder
        raise UsageError("ROOT is empty; it is the path of a folder")
    path = Path(root).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        if isinstance(error, PermissionError):
            # Seen in containers: a folder of the host belongs to root.
            why = f"{why}; this is user {os.geteuid()}, who must be able to write there"
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
    """The secret that at most one of `--<what>`, `--<what>_env` and `--<what>_file` gives.

    Raises `UsageError` for more than one, `ConfigurationError` when it cannot be had or is empty.
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
