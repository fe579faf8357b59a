"""Tells whether the machine was started again since."""

from __future__ import annotations

import functools
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # random(4)


@functools.cache
def boot_id() -> str | None:
    """A text that is another one after each start of the machine; None: this system has none.

    What a process wrote and did not sync can only be lost together with the memory of the machine.
    So it is there while this is the same. Containers have it from their machine.
    """
    try:
        return _BOOT_ID.read_text("ascii").strip() or None
    except (OSError, ValueError):  # only Linux has it
        return None
