"""What a secret may do in a storage."""

from __future__ import annotations

import enum


class Access(enum.IntEnum):
    """What a secret may do in a storage, or with one project. Each level includes those before."""

    NONE = 0
    READ = 1
    WRITE = 2
