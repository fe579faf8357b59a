"""What all tokens of one repository share: sockets, kept answers, and counts of requests."""

from __future__ import annotations

import contextlib
import http.cookiejar
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import requests
from requests.adapters import HTTPAdapter

from private_pypi.backend import Limit, Usage
from private_pypi_github.answers import GitHubAnswer, told_limit
from private_pypi_github.downloads import SignedAddress

_POOL = 32  # open connections to one host
_ETAGS_BYTES = 32 << 20  # of compressed answers that are kept for conditional requests
_MAX_ADDRESSES = 20_000
_MAX_LIMITS = 1_000  # tokens whose limits are remembered


class Connection:
    """What all views of one backend share: sockets, answers with ETags, and signed addresses.

    An answer is used again only for the token that it was given to. Tokens are told apart by
    `token_hash`, the SHA-256 of a token.
    """

    timeout: ClassVar[tuple[float, float]] = (10, 60)
    """Seconds that may pass while connecting or sending one part, and between two packets."""
    upload_timeout: ClassVar[tuple[float, float]] = (10, 300)
    """The same for uploads: GitHub computes the hash of up to 2 GiB before it answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._session: requests.Session | None = None
        self._answers: OrderedDict[tuple[bytes, str], GitHubAnswer] = OrderedDict()
        self._answers_bytes = 0
        self._addresses: OrderedDict[tuple[int, bytes], SignedAddress] = OrderedDict()
        self._asking: dict[tuple[int, bytes], threading.Event] = {}  # set when the turn ends
        self._absent: set[str] = set()
        self._requests: dict[str, int] = {}  # by class of status
        self._limits: OrderedDict[bytes, dict[str, Limit]] = OrderedDict()

    def _opened_session(self) -> requests.Session:
        with self._lock:
            if self._session is None:
                self._session = _new_session()
            return self._session

    def close(self) -> None:
        """Close the sockets; a later request opens new ones."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def answer(self, token_hash: bytes, url: str) -> GitHubAnswer | None:
        """The last answer with an ETag, if it is still kept."""
        with self._lock:
            kept = self._answers.get((token_hash, url))
            if kept is None:
                return None
            self._answers.move_to_end((token_hash, url))
        return replace(kept, body=zlib.decompress(kept.body))

    def keep_answer(self, token_hash: bytes, url: str, answer: GitHubAnswer) -> None:
        # A page of a listing may have megabytes. Compression makes it about 15 times smaller.
        packed = replace(answer, body=zlib.compress(answer.body, 1))
        with self._lock:
            self._forget_answer((token_hash, url))
            self._answers[(token_hash, url)] = packed
            self._answers_bytes += _size(packed)
            while self._answers_bytes > _ETAGS_BYTES:
                self._forget_answer(next(iter(self._answers)))

    def forget_answer(self, token_hash: bytes, url: str) -> None:
        with self._lock:
            self._forget_answer((token_hash, url))

    def _forget_answer(self, key: tuple[bytes, str]) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self._answers_bytes -= _size(answer)

    def address(self, token_hash: bytes, number: int) -> SignedAddress | None:
        """The signed address of an asset, if one is known that has not expired."""
        with self._lock:
            address = self._addresses.get((number, token_hash))
        return address if address and time.monotonic() < address.kept_until else None

    def keep_address(self, token_hash: bytes, number: int, address: SignedAddress) -> None:
        with self._lock:
            self._addresses[(number, token_hash)] = address
            self._addresses.move_to_end((number, token_hash))
            while len(self._addresses) > _MAX_ADDRESSES:
                self._addresses.popitem(last=False)

    @contextlib.contextmanager
    def turn(self, token_hash: bytes, number: int) -> Iterator[None]:
        """Wait while another thread asks for the signed address of the same asset.

        After this, look first whether that thread got it. A thread waits for at most one other.
        """
        key, done = (number, token_hash), threading.Event()
        with self._lock:
            asking = self._asking.setdefault(key, done)
        try:
            if asking is not done:
                asking.wait(sum(self.timeout))
            yield
        finally:
            done.set()
            with self._lock:
                if self._asking.get(key) is done:
                    del self._asking[key]

    def request(
        self, method: str, url: str, *, token_hash: bytes | None = None, **arguments: Any
    ) -> requests.Response:
        """Send a request, and count it. The body of the response is not read yet.

        With `token_hash`, the limit in the headers is remembered for this token.
        """
        try:
            response = self._opened_session().request(
                method, url, stream=True, allow_redirects=False, **arguments
            )
        except requests.RequestException:
            self._count("none")
            raise
        status = response.status_code
        self._count("304" if status == 304 else f"{status // 100}xx")
        limit = None if token_hash is None else told_limit(response.headers)
        if token_hash is not None and limit is not None:
            with self._lock:
                self._limits.setdefault(token_hash, {})[limit.resource] = limit
                self._limits.move_to_end(token_hash)
                while len(self._limits) > _MAX_LIMITS:
                    self._limits.popitem(last=False)
        return response

    def _count(self, kind: str) -> None:
        with self._lock:
            self._requests[kind] = self._requests.get(kind, 0) + 1

    def usage(self, token_hash: bytes) -> Usage:
        """How many requests were made with all tokens, and the limits of one token."""
        with self._lock:
            limits = tuple(self._limits.get(token_hash, {}).values())
            return Usage(requests=dict(self._requests), limits=limits)

    def is_absent(self, path: str) -> bool:
        """Whether nothing was found at a path when it was last asked for."""
        with self._lock:
            return path in self._absent

    def note_absent(self, path: str, absent: bool) -> None:
        """Remember whether something was found at a path."""
        with self._lock:
            (self._absent.add if absent else self._absent.discard)(path)

    def forget_addresses(self, numbers: Collection[int]) -> None:
        """Forget the signed addresses of some assets, for all tokens."""
        with self._lock:
            for key in [key for key in self._addresses if key[0] in numbers]:
                del self._addresses[key]


def _size(packed: GitHubAnswer) -> int:
    """About how many bytes of memory a compressed answer takes."""
    return len(packed.body) + 4096  # the headers


def _new_session() -> requests.Session:
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=8, pool_maxsize=_POOL, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.headers["User-Agent"] = "private_pypi"
    # The session is shared by all tokens, so it must not keep cookies.
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    return session
