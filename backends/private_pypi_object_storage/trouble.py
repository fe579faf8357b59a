"""Turns the errors of `obstore` into those of private_pypi.

Its errors quote the whole request, whose address contains a secret if the store is used with a SAS
token. So only the status of the answer and the code of the error are taken from them, and the
errors are not chained.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotModifiedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from private_pypi.backend.object_store import ObjectChanged, ObjectNotFound, ObjectUnchanged
from private_pypi.errors import BackendError, BackendUnavailable, StorageFull

_STATUS: Final = re.compile(r"status code: ([0-9]{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,80})</Code>")
_ABSENT: Final = {"NoSuchKey", "BlobNotFound"}
"""What a store says of an object that does not exist. A 404 without it may be that of a proxy, or
be about the bucket."""
_ABSENT_IN_WORDS: Final = "The specified blob does not exist."
"""What Azure says of one that is to be deleted; there, its answer has no code."""
_FULL: Final = {
    *("QuotaExceeded", "StorageFull", "XMinioStorageFull", "InsufficientStorage"),
    *("AccountStorageLimitExceeded", "EntityTooLargeForQuota"),
}
_BUSY: Final = {"ConditionalRequestConflict", "OperationAborted", "SlowDown", "RequestTimeout"}
"""Codes of passing trouble, whatever the status is. The first one: another writer is storing the
same object just now, and it is not known which one will succeed."""
_DAMAGED: Final = {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
"""What arrived is not what was sent."""
_PASSING: Final = {408, 425, 429, 500, 502, 503, 504}
_NO_ANSWER: Final = re.compile(
    r"HTTP error|error sending request|operation timed out|[Tt]imed? ?out"
)
_NO_ROLE: Final = re.compile(r"/latest/api/token|/computeMetadata/|/metadata/identity/")
"""Where a machine is asked for its role, if there are no other credentials."""
_SOON: Final = 2  # seconds after which a busy store is asked again


@contextlib.contextmanager
def store_errors(what: str, key: str = "") -> Iterator[None]:
    """Translate what `obstore` raises. `what` is the beginning of the message; it has no secret."""
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        raise translated(error, what, key) from None


def is_behind_the_end(error: BaseException) -> bool:
    """Whether a part was asked for that begins where the object has ended already."""
    return status_of(error) == 416 or "StartTooLarge" in str(error)


def status_of(error: BaseException) -> int | None:
    """The status of the answer that led to an error of `obstore`; None if there was no answer."""
    match = _STATUS.search(str(error))
    return None if match is None else int(match[1])


def translated(error: BaseException, what: str, key: str = "") -> Exception:
    """The error to raise instead."""
    text, status = str(error), status_of(error)
    match = _CODE.search(text)
    code = "" if match is None else match[1]
    if _NO_ROLE.search(text):
        return BackendUnavailable(
            f"{what}: neither the table nor the environment has credentials for the store, and "
            "the machine does not answer when it is asked for its role"
        )
    if code in _BUSY | _DAMAGED:
        return BackendUnavailable(f"{what}: {_told(status, code)}", retry_after=_SOON)
    if isinstance(error, AlreadyExistsError | PreconditionError):
        return ObjectChanged()
    if isinstance(error, NotModifiedError):
        return ObjectUnchanged()
    if code in _ABSENT or (not code and _ABSENT_IN_WORDS in text):
        return ObjectNotFound(key)
    if code in _FULL or status == 507:
        return StorageFull(f"{what}: {_told(status, code)}")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in (401, 403):
        return BackendError(
            f"{what}: the store refuses the credentials of this server ({_told(status, code)})"
        )
    if status in _PASSING:
        return BackendUnavailable(f"{what}: {_told(status, code)}", retry_after=_SOON)
    if status is not None:
        return BackendError(f"{what}: {_told(status, code)}")
    if _NO_ANSWER.search(text):
        return BackendUnavailable(f"{what}: the store does not answer", retry_after=_SOON)
    return BackendError(f"{what}: {_first_words(error)}")


def _told(status: int | None, code: str) -> str:
    return f"the store answered {' '.join(each for each in (str(status or ''), code) if each)}"


def _first_words(error: BaseException) -> str:
    """What kind of error it is, without anything that may come from a request."""
    return {
        "NotSupportedError": "the store cannot do this",
        "InvalidPathError": "the store cannot have such a key",
    }.get(type(error).__name__, f"the store cannot be used ({type(error).__name__})")
