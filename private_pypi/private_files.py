"""Files that only their owner may read, written whole or not at all; nothing is read here."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_private(path: Path, text: str, *, replace: bool) -> bool:
    """Write a whole file that only its owner may read (mode 0600), or nothing.

    False when the file exists and may not be replaced.
    """
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            Path(part).replace(path)
        else:
            os.link(part, path)  # unlike a rename it never replaces what somebody else made
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(part).unlink()
    return True
