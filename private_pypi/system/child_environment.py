"""Which environment variables child processes get."""

from __future__ import annotations

import os

# Python needs these to find its libraries and modules, to decode filenames, and to put temporary
# files where the operator wants them.
_NEEDED = (
    "DYLD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONUTF8",
    "SQLITE_TMPDIR",
    "TMPDIR",
)


def child_environment() -> dict[str, str]:
    """The environment for a child process that parses or renders uploaded content.

    It has none of the secrets in the environment of the server, such as the admin token or those
    that a configuration refers to by `<field>_env`.
    """
    return {name: os.environ[name] for name in _NEEDED if name in os.environ}
