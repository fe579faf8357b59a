"""The content of assets: the signed addresses that GitHub gives out, and bodies in chunks.

GitHub does not send the content of an asset itself. It redirects to a storage provider, with an
address that is signed and is valid for some minutes.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import requests

from private_pypi.errors import BackendError
from private_pypi_github.answers import date_of, network_errors, read_answer

_CHUNK = 1 << 20  # bytes
_MARGIN = 15.0  # seconds; signed addresses are not used when so little time is left


@dataclass(frozen=True, slots=True)
class SignedAddress:
    """An address from which content can be fetched without a token, so it must be kept secret."""

    url: str
    expires_at: datetime | None  # UTC; None: unknown
    kept_until: float  # a time of time.monotonic(); afterwards GitHub is asked for a new address


class Chunks:
    """An iterator over a body that arrives in chunks; `close` may be called at any time."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self._parts = response.iter_content(_CHUNK)

    @property
    def size(self) -> int | None:
        """The size of the body as it was announced, in bytes; None if it was not."""
        headers = self._response.headers
        length = "" if "Content-Encoding" in headers else headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None

    def part(self, start: int, length: int) -> bytes:
        """`length` bytes from `start` on, or fewer at the end of the body; then close it."""
        skip, found = start, bytearray()
        try:
            for chunk in self:
                found += chunk[skip : skip + length - len(found)]
                skip = max(0, skip - len(chunk))
                if len(found) == length:
                    break
        finally:
            self.close()
        return bytes(found)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with network_errors("a body"):
                part: bytes = next(self._parts)
        except BaseException:
            self.close()
            raise
        return part

    def close(self) -> None:
        self._response.close()


def chunks_of(path: str, response: requests.Response) -> Chunks:
    """The body of a response; raises the error that it stands for if its status is not 200."""
    if response.status_code != 200:
        read_answer("GET", path, response, (200,))
    return Chunks(response)


def signed_address(headers: Mapping[str, str]) -> SignedAddress:
    """The address in a redirect to the content of an asset."""
    url = headers.get("Location", "")
    if not url.startswith(("https:", "http:")):
        raise BackendError("GitHub's redirect to the content of an asset has no address")
    expires_at = expiry_of(url)
    holds = 0.0 if expires_at is None else (expires_at - date_of(headers)).total_seconds()
    return SignedAddress(url, expires_at, time.monotonic() + holds - _MARGIN)


def expiry_of(url: str) -> datetime | None:
    """When a signed address expires; None if it does not tell. The earliest time counts.

    `se` is a parameter of shared access signatures (Azure), `X-Amz-*` and `Expires` are those of
    S3, and the token in `jwt` has the claim `exp`.
    """
    query = {key.lower(): values[0] for key, values in parse_qs(urlsplit(url).query).items()}
    ends: list[datetime] = []
    with contextlib.suppress(KeyError, ValueError):
        ends.append(datetime.fromisoformat(query["se"]))
    with contextlib.suppress(KeyError, ValueError):
        signed_at = datetime.strptime(query["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        ends.append(signed_at + timedelta(seconds=int(query["x-amz-expires"])))
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        ends.append(datetime.fromtimestamp(int(query["expires"]), UTC))
    with contextlib.suppress(KeyError, ValueError, IndexError, TypeError, binascii.Error):
        claims = query["jwt"].split(".")[1]
        decoded = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        ends.append(datetime.fromtimestamp(int(decoded["exp"]), UTC))
    return min((end for end in ends if end.tzinfo is not None), default=None)
