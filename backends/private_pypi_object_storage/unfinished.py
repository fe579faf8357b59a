"""Gives up uploads in parts that were begun on S3 by a process that was killed.

`obstore` gives up what fails, but it cannot list what is left of a process that was killed. No
listing of objects shows it, and it costs money. So these two requests are made here, to addresses
that the store signs.

Source: Amazon S3 API Reference, ListMultipartUploads and AbortMultipartUpload.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Final, Protocol

import urllib3

from private_pypi.errors import BackendError, BackendUnavailable

_UPLOAD: Final = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_FIELD: Final = re.compile(r"<(Key|UploadId|Initiated)>([^<]*)</")
_TIMEOUT: Final = urllib3.Timeout(connect=10, read=30)
_LARGEST: Final = 8 * 2**20  # bytes of a list of at most 1000 uploads


class Sign(Protocol):
    """Gives the address of a request, with a signature in it.

    It is about a key, or about the bucket if this is empty. Raises `BackendError`.
    """

    def __call__(self, method: str, key: str, query: Mapping[str, str]) -> str: ...


def give_up(sign: Sign, prefix: str, what: str, *, older_than: timedelta) -> int:
    """Give up what was begun below the prefix and is older; returns how many there were.

    `what` is the beginning of messages. At most a thousand at a time. Raises `BackendError`.
    """
    below = f"{prefix}/" if prefix else ""
    count = 0
    with urllib3.PoolManager(retries=False, timeout=_TIMEOUT) as pool:
        listed = _request(pool, what, "GET", sign("GET", "", {"prefix": below, "uploads": ""}))
        for key, upload, begun_at in _uploads(listed):
            if key.startswith(below) and datetime.now(UTC) - begun_at > older_than:
                _request(pool, what, "DELETE", sign("DELETE", key, {"uploadId": upload}))
                count += 1
    return count


def _uploads(listed: str) -> Iterator[tuple[str, str, datetime]]:
    for each in _UPLOAD.findall(listed):
        fields = {name: unescape(value) for name, value in _FIELD.findall(each)}
        try:
            begun_at = datetime.fromisoformat(fields["Initiated"])
            yield fields["Key"], fields["UploadId"], begun_at
        except (KeyError, ValueError):
            continue


def _request(pool: urllib3.PoolManager, what: str, method: str, url: str) -> str:
    """What the store answers. No message has the address, because that has the signature."""
    what = f"{what}: uploads that were interrupted cannot be given up"
    try:
        answer = pool.request(method, url, redirect=False, preload_content=False)
        content = answer.read(_LARGEST).decode("utf-8", "replace")
        answer.release_conn()
    except urllib3.exceptions.HTTPError:
        raise BackendUnavailable(f"{what}: the store does not answer") from None
    if answer.status not in (200, 204, 404):
        raise BackendError(f"{what}: the store answered {answer.status}")
    return content if answer.status == 200 else ""
