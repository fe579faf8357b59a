"""Asks other servers for the commands of a site; knows neither indexes nor packages.

No cookies, no credentials of ~/.netrc, nothing but what a caller gives for an address. Each wait is
bounded, and so is the size of an answer.
"""

from __future__ import annotations

import http.cookiejar
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from private_pypi.backend import retry_after
from private_pypi.errors import BackendError, BackendUnavailable, cause_of

AT_ONCE: Final = 8
"""Requests at a time: what public servers take without a word, and enough for thousands."""

_TRY_AGAIN: Final = {429, 500, 502, 503, 504}
_MOST_REDIRECTS: Final = 5
_PIECE: Final = 1 << 16  # bytes

HeadersFor = Callable[[str], Mapping[str, str]]
"""Returns the headers for an address. It is asked again for the target of a redirect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long an answer is waited for, in seconds, and how often one is asked for."""

    connect: float = 10.0
    silence: float = 30.0  # between two pieces of an answer
    whole: float = 120.0  # for the body of an answer
    attempts: int = 4
    first_pause: float = 0.5  # before the second attempt; doubled for each further one
    longest_pause: float = 60.0  # who wants to be asked later than that is not asked again


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of a server that can be used; `body` is empty unless it was wanted."""

    status: int
    headers: Mapping[str, str] = field(repr=False)  # names in any case
    body: bytes = field(default=b"", repr=False)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # Redirects are followed below. requests would look at them even if it is told not to
        # follow them: it reads the whole body, and fails if the target is no address.
        return None


class HttpClient:
    """Can be used by several threads. `close` ends its connections."""

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._session = _Session()
        self._session.headers["User-Agent"] = "private_pypi"
        self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        self._session.auth = lambda request: request  # so that ~/.netrc is not looked at
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=AT_ONCE, max_retries=0))

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: HeadersFor = lambda _: {},
        largest: int = 0,
        leaves_host: bool = False,
    ) -> Answer:
        """Send a request, and repeat it while the server is in trouble.

        `largest`: the bytes that the body may have; 0: the body is not read.
        `leaves_host`: whether redirects to other hosts are followed.

        Raises `BackendUnavailable` if the server does not answer, or answers 429 or 5xx to every
        attempt, and `BackendError` if its answer is too large or redirects to where it must not.
        """
        patience = self._patience
        pause = patience.first_pause
        attempt = 1
        while True:
            try:
                return self._follow(method, url, headers, largest, leaves_host)
            except BackendUnavailable as error:
                if attempt == patience.attempts or error.retry_after > patience.longest_pause:
                    raise
                # The random part is only added: asking earlier than told is refused again.
                time.sleep(max(pause, error.retry_after) + random.uniform(0, pause))  # noqa: S311
            attempt, pause = attempt + 1, 2 * pause

    def _follow(
        self, method: str, first: str, headers: HeadersFor, largest: int, leaves_host: bool
    ) -> Answer:
        url = first
        host = urlsplit(first).hostname
        for _ in range(_MOST_REDIRECTS + 1):
            found = self._once(method, url, first, headers(url), largest)
            if isinstance(found, Answer):
                return found
            before = urlsplit(url)
            try:
                url = urljoin(url, found)
                parts = urlsplit(url)
                target = parts.hostname or ""
            except ValueError:
                raise BackendError(f"{first} redirects to what is no address") from None
            if parts.scheme not in ("https", before.scheme) or not target:
                raise BackendError(f"{first} redirects to an address that is not secure")
            if target != host and not leaves_host:
                raise BackendError(
                    f"{first} redirects to another host, {target}; give its address instead"
                )
        raise BackendError(f"{first} redirects more than {_MOST_REDIRECTS} times")

    def _once(
        self, method: str, url: str, first: str, headers: Mapping[str, str], largest: int
    ) -> Answer | str:
        """One request; returns the text of `Location` for a redirect.

        Messages name the first address only: what a redirect leads to may be signed.
        """
        patience = self._patience
        try:
            with self._session.request(
                method,
                url,
                headers=dict(headers),
                timeout=(patience.connect, patience.silence),
                allow_redirects=False,
                stream=True,
            ) as response:
                status = response.status_code
                if status in _TRY_AGAIN:
                    wait = retry_after(response.headers.get("Retry-After"), 0)
                    raise BackendUnavailable(f"{first} answered {status}", retry_after=wait)
                if response.is_redirect:
                    return response.headers["Location"]
                body = _read(response, first, largest, patience.whole) if largest else b""
                return Answer(status=status, headers=response.headers, body=body)
        except requests.Timeout as error:
            raise BackendUnavailable(f"{first} did not answer in time", retry_after=0) from error
        except requests.RequestException as error:
            raise BackendUnavailable(
                f"cannot reach {first}: {cause_of(error)}", retry_after=0
            ) from error


def _read(response: requests.Response, url: str, largest: int, seconds: float) -> bytes:
    """The body, decompressed; never more than one piece above `largest` is in memory."""
    end = time.monotonic() + seconds
    pieces: list[bytes] = []
    size = 0
    for piece in response.iter_content(_PIECE):
        size += len(piece)
        if size > largest:
            raise BackendError(f"the answer of {url} is larger than {largest >> 20} MiB")
        if time.monotonic() > end:
            raise BackendUnavailable(f"{url} took longer than {seconds:g} s", retry_after=0)
        pieces.append(piece)
    return b"".join(pieces)
