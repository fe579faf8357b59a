"""`ROOT/log/audit.jsonl`: who changed what, one line of JSON for each change.

Each line is appended by one write, so that several processes of a ROOT can share the file, and is
on disk before the client gets its answer. Lines of several threads share a sync. If the file was
moved, as logrotate does, a new one is made. Secrets are written as fingerprints.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from private_pypi.backend import Secret
from private_pypi.system.private_files import sync_folder, write_private
from private_pypi.system.shared_sync import SharedSync

logger = logging.getLogger(__name__)

FILENAME = "audit.jsonl"  # in ROOT/log
KEY_FILENAME = "fingerprint.key"  # in ROOT, because others may be allowed to read the logs

_DIGITS = 16  # of a fingerprint: 64 bits


class AuditLog:
    """The audit file of a ROOT. It is made with its folder when the first line is written."""

    def __init__(self, root: Path) -> None:
        self._path = root / "log" / FILENAME
        self._key_path = root / KEY_FILENAME
        self._lock = threading.Lock()  # guards everything below
        self._file: SharedSync | None = None
        self._key: bytes | None = None
        self._is_torn = False  # whether the last write ended within a line
        self.failures = 0
        """How many lines could not be written."""

    def append(self, entry: Mapping[str, object]) -> None:
        """Write a line. If that fails, it is written to the log as an error.

        Does not raise, because the change was made, and an error would tell the client otherwise.
        """
        line = json.dumps(entry)  # ASCII, so it contains no character that could end a line
        try:
            with self._lock:
                file = self._write(line.encode() + b"\n")
                file.hold()
            file.sync()
        except OSError as error:
            with self._lock:
                self.failures += 1
            logger.error("no audit line could be written (%s); it is: %s", error, line)

    def fingerprint(self, secret: Secret) -> str | None:
        """16 hexadecimal digits that identify a secret; None if the key cannot be read.

        This is an HMAC-SHA256 with a key that only the owner of ROOT can read, because a short
        secret could be guessed from a plain hash.
        """
        try:
            with self._lock:
                if self._key is None:
                    self._key = self._read_key()
                key = self._key
        except (OSError, ValueError) as error:
            logger.error("no fingerprint of a secret can be made: %s", error)
            return None
        raw = secret.reveal().encode("utf-8", "surrogatepass")
        return hmac.new(key, raw, hashlib.sha256).hexdigest()[:_DIGITS]

    def close(self) -> None:
        """Close the file. A later line opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, line: bytes) -> SharedSync:
        file = self._open()
        if self._is_torn:
            line = b"\n" + line
        written = os.write(file.descriptor, line)
        self._is_torn = 0 < written < len(line)
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return file

    def _open(self) -> SharedSync:
        path = self._path
        if self._file is not None:
            if _is_at(path, self._file.descriptor):
                return self._file
            self._close()
        path.parent.mkdir(mode=0o700, exist_ok=True)
        file = SharedSync(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
        try:
            for folder in (path.parent, path.parent.parent):  # both names may be new
                sync_folder(folder)
        except OSError as error:
            if error.errno != errno.EINVAL:  # this file system cannot sync folders
                file.close()
                raise
        self._file = file
        return file

    def _read_key(self) -> bytes:
        path = self._key_path
        if not path.exists():
            # If several processes are here at the same time, only one of them writes.
            write_private(path, secrets.token_hex(32), replace=False)
        return bytes.fromhex(path.read_text("ascii"))


def entry_time(moment: datetime) -> str:
    """A time in the format of the entries: in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one at this path."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
