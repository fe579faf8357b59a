"""`ROOT/log/audit.jsonl`: who changed what, one line of JSON for each change; nothing is decided.

Lines are only ever appended, each by one write, so that several processes of a ROOT may share the
file, and are on the disk before the client gets its answer. A file that was moved away (as
logrotate does) is opened anew. Which secret was used is told by its fingerprint.
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
from pathlib import Path

from private_pypi.backend import Secret
from private_pypi.private_files import write_private

logger = logging.getLogger(__name__)

FILENAME = "audit.jsonl"  # in ROOT/log
KEY_FILENAME = "fingerprint.key"  # in ROOT: the folder of the logs may be for others to read

_DIGITS = 16  # of a fingerprint: 64 bits


class AuditLog:
    """The audit file of a ROOT; it is made, and its folder, when it is needed first."""

    def __init__(self, root: Path) -> None:
        self._path = root / "log" / FILENAME
        self._key_path = root / KEY_FILENAME
        self._lock = threading.Lock()  # guards everything below
        self._descriptor: int | None = None
        self._key: bytes | None = None
        self._is_torn = False  # the last write was cut off within a line
        self.failures = 0
        """Lines that could not be written."""

    def append(self, entry: Mapping[str, object]) -> None:
        """Write a line; what cannot be written goes to the log, as an error.

        Never raises: the change was made, and telling the client otherwise would be untrue.
        """
        line = json.dumps(entry)  # ASCII: no reader takes anything in it for the end of a line
        with self._lock:
            try:
                self._write(line.encode() + b"\n")
            except OSError as error:
                self.failures += 1
                logger.error("no audit line could be written (%s); it is: %s", error, line)

    def fingerprint(self, secret: Secret) -> str | None:
        """16 digits that tell secrets apart; None when the key cannot be had.

        HMAC-SHA256 with a key that only the owner of ROOT can read: a configured secret may be
        short enough to be guessed from a plain hash.
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
        """Close the file; a later line opens it again."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _write(self, line: bytes) -> None:
        descriptor = self._open()
        if self._is_torn:
            line = b"\n" + line
        written = os.write(descriptor, line)
        self._is_torn = 0 < written < len(line)
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)

    def _open(self) -> int:
        path = self._path
        if self._descriptor is not None:
            if _is_at(path, self._descriptor):
                return self._descriptor
            os.close(self._descriptor)
            self._descriptor = None
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return self._descriptor

    def _read_key(self) -> bytes:
        path = self._key_path
        if not path.exists():
            # Of several processes that come here at once, one writes.
            write_private(path, secrets.token_hex(32), replace=False)
        return bytes.fromhex(path.read_text("ascii"))


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one of this path."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
