"""The configuration that is stored in ROOT: two files that are replaced together or not at all.

`config.toml` and `admin_secret.toml` must fit each other: a server cannot start with an old version
of one and a new version of the other. Two files cannot be renamed in one step, so new versions are
first written into a temporary folder. Renaming that folder to `.configuration` commits the change.
After that, the files are moved to their places. If that is interrupted, the next process that gets
the lock completes it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from private_pypi.configuration.config import ConfigurationText
from private_pypi.errors import BackendUnavailable, ConfigurationError
from private_pypi.system.private_files import sync_folder, write_private

CONFIG = "config.toml"
ADMIN_SECRET = "admin_secret.toml"  # noqa: S105 - the name of a file

_COMMITTED = ".configuration"
_PREPARED = ".configuration-"  # and something random
_PATIENCE = 30.0  # seconds to wait for the lock


class KeptConfiguration:
    """The two files in a ROOT, which may be shared by several processes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def state(self) -> tuple[int, int] | None:
        """A value that changes with every replacement; None if there is no configuration."""
        try:
            stat = (self._root / CONFIG).stat()
        except FileNotFoundError:
            return None
        return stat.st_mtime_ns, stat.st_ino

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the files for other processes, and complete an interrupted replacement.

        Raises `BackendUnavailable` if another process holds the lock for 30 seconds.
        """
        lock = FileLock(self._root / f".{CONFIG}.lock")
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            raise BackendUnavailable(
                f"another process has locked the configuration in {self._root} for more than "
                f"{_PATIENCE:g} seconds"
            ) from None
        try:
            self._finish()
            yield
        finally:
            lock.release()

    def read(self) -> tuple[ConfigurationText | None, ConfigurationText | None]:
        """Both files; None for one that does not exist. Call it while they are `locked`.

        Raises `ConfigurationError` if one cannot be read.
        """
        return _read(self._root / CONFIG), _read(self._root / ADMIN_SECRET)

    def replace(self, *, config: str | None = None, admin_secret: str | None = None) -> None:
        """Replace the given files; None leaves a file unchanged, and "" removes the admin secrets.

        Call it while they are `locked`. If it raises `OSError`, or the process is killed, both
        files are old or both are new.
        """
        texts = {CONFIG: config, ADMIN_SECRET: admin_secret}
        prepared = Path(tempfile.mkdtemp(dir=self._root, prefix=_PREPARED))  # mode 0700
        try:
            for name, text in texts.items():
                if text is not None:
                    write_private(prepared / name, text, replace=True)
            sync_folder(prepared)
            prepared.rename(self._root / _COMMITTED)
        except BaseException:
            shutil.rmtree(prepared, ignore_errors=True)
            raise
        sync_folder(self._root)
        self._finish()

    def _finish(self) -> None:
        """Move the files of a committed replacement to their places, unless this is done."""
        for left in self._root.glob(f"{_PREPARED}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        committed = self._root / _COMMITTED
        if not committed.is_dir():
            return
        # config.toml is last, because the other processes watch it.
        for name in (ADMIN_SECRET, CONFIG):
            with contextlib.suppress(FileNotFoundError):  # moved already, or not replaced
                (committed / name).replace(self._root / name)
        with contextlib.suppress(FileNotFoundError):
            if not (self._root / ADMIN_SECRET).stat().st_size:  # `replace` removes it by ""
                (self._root / ADMIN_SECRET).unlink()
        sync_folder(self._root)
        committed.rmdir()


def _read(path: Path) -> ConfigurationText | None:
    try:
        return ConfigurationText(text=path.read_text("utf-8"), name=str(path), folder=path.parent)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
