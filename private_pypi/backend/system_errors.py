"""Turns errors of the operating system into errors of private_pypi."""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager

from private_pypi.errors import BackendError, BackendUnavailable, StorageFull

DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
PASSING = frozenset({errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE})
"""Errors after which another attempt may succeed."""


class _SystemErrors:
    """The context of `system_errors`: a generator takes longer, and each file needs several."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        if isinstance(error, OSError):
            message = f"{self._what}: {error.strerror or error}"
            if error.errno in DISK_IS_FULL:
                raise StorageFull(message) from error
            if error.errno in PASSING:
                raise BackendUnavailable(message) from error
            raise BackendError(message) from error


def system_errors(what: str) -> AbstractContextManager[None]:
    """Turn an `OSError` into `StorageFull`, `BackendUnavailable` or `BackendError`.

    `what` is the beginning of the message, such as "cannot store 'demo-1.0.zip'".
    """
    return _SystemErrors(what)
