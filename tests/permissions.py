"""Tests of files that may not be read: root may read everything, so such a test gives that up.

The user stays the same, because another one may not read the checkout either (below `/root`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7)): to pass over permissions of files.
_OVER_PERMISSIONS = 1 << 1 | 1 << 2


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@contextlib.contextmanager
def under_permissions() -> Iterator[None]:
    """Obey the permissions of files, as every user but root does.

    This holds for this thread and for those that it starts meanwhile.
    """
    if os.geteuid() != 0:
        yield
        return
    header = _Header(_VERSION, 0)
    both = (_Capabilities * 2)()  # the lower 32 bits, and the higher ones
    _call("capget", header, both)
    before = both[0].effective
    both[0].effective = before & ~_OVER_PERMISSIONS
    _call("capset", header, both)
    try:
        yield
    finally:
        both[0].effective = before
        _call("capset", header, both)


def _call(name: str, header: _Header, both: ctypes.Array[_Capabilities]) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(ctypes.byref(header), both) != 0:
        raise OSError(ctypes.get_errno(), name)
