"""The temporary folder of a process below ROOT, which is removed even if the process was killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from private_pypi.errors import ConfigurationError


class TemporaryFolder:
    """A temporary folder for this process. Those of processes that have ended are removed.

    Several servers may use one ROOT, so each process locks its folder. If a lock is free, the
    process of that folder has ended.
    """

    def __init__(self, root: Path) -> None:
        parent = root / "tmp"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for lock_path in parent.glob("*.lock"):
                with contextlib.suppress(Timeout), FileLock(lock_path).acquire(timeout=0):
                    shutil.rmtree(lock_path.with_suffix(""), ignore_errors=True)
                    lock_path.unlink(missing_ok=True)
            name = f"{os.getpid()}-{secrets.token_hex(4)}"
            # The lock is made first, because a folder without one would never be removed.
            self._lock = FileLock(parent / f"{name}.lock")
            self._lock.acquire()
            self.folder = parent / name
            self.folder.mkdir(mode=0o700)
        except OSError as error:
            raise ConfigurationError(f"cannot write below {root}: {error}") from error

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)
