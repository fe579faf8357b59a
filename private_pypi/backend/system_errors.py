"""Turns errors of the operating system into errors of private_pypi."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from private_pypi.errors import BackendError, BackendUnavailable, StorageFull

DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
PASSING = frozenset({errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE})
"""Errors after which another attempt may succeed."""


@contextlib.contextmanager
def system_errors(what: str) -> Iterator[None]:
    """Turn an `OSError` into `StorageFull`, `BackendUnavailable` or `BackendError`.

    `what` is the beginning of the message, such as "cannot store 'demo-1.0.zip'".
    """
    try:
        yield
    except OSError as error:
        message = f"{what}: {error.strerror or error}"
        if error.errno in DISK_IS_FULL:
            raise StorageFull(message) from error
        if error.errno in PASSING:
            raise BackendUnavailable(message) from error
        raise BackendError(message) from error
