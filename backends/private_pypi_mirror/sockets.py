"""The sockets of the client: TLS, an HTTP proxy, and connections that were closed while unused."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssltransport import SSLTransport

from private_pypi.errors import BackendError, BackendUnavailable

_POOL: Final = 64  # connections to one host that are kept
_HOSTS: Final = 32  # hosts to which connections are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """An HTTP proxy, and the credentials for it; there are none without a username."""

    url: str
    username: str
    password: str


class Sockets:
    """Connections to the upstream and to the hosts of its files. They are kept and used again."""

    def __init__(self, proxy: Proxy | None, ca_file: Path | None) -> None:
        """`ca_file`: authorities in PEM that are trusted as well as those of the system."""
        self._proxy = proxy
        self._ca_file = ca_file
        self._lock = threading.Lock()  # guards everything below
        self._managers: dict[bool, urllib3.PoolManager] = {}  # by whether they know TLS
        self._tls: ssl.SSLContext | None = None
        self._is_closed = False
        self._connected: WeakSet[socket.socket] = WeakSet()

    def for_address(self, url: str, *, fresh: bool = False) -> urllib3.PoolManager:
        """What sends requests to this address.

        `fresh`: through a new connection, which is not kept afterwards. Raises `BackendError` if
        `ca_file` cannot be read.
        """
        # TLS takes a while to set up, so it is only done where it is needed.
        through = "" if self._proxy is None else self._proxy.url
        has_tls = url.startswith("https:") or through.startswith("https:")
        with self._lock:
            if self._is_closed:
                raise BackendUnavailable("the server is stopping")
            if has_tls and self._tls is None:
                self._tls = self._make_tls()
            if fresh:
                return self._make(self._tls if has_tls else None)
            if has_tls not in self._managers:
                self._managers[has_tls] = self._make(self._tls if has_tls else None)
            return self._managers[has_tls]

    def close(self) -> None:
        """End everything that is asked for at this moment, and whatever is asked for later.

        Whoever waits for an answer has an error at once, even if the upstream never sends it.
        """
        with self._lock:
            self._is_closed = True
            managers, self._managers = self._managers, {}
            connected = list(self._connected)
        for manager in managers.values():
            manager.clear()
        for each in connected:
            _shut_down(each)

    def _note_connected(self, connected: socket.socket) -> None:
        with self._lock:
            self._connected.add(connected)
            is_closed = self._is_closed
        if is_closed:
            _shut_down(connected)

    def _make(self, tls: ssl.SSLContext | None) -> urllib3.PoolManager:
        limits: dict[str, Any] = {"num_pools": _HOSTS, "maxsize": _POOL, "block": False}
        proxy = self._proxy
        if proxy is None:
            made = urllib3.PoolManager(ssl_context=tls, **limits)
        else:
            # Credentials for the proxy are sent to it only, and those for an index with https only
            # to the index, through the tunnel (RFC 9110, 9.3.6).
            headers = {"Proxy-Authorization": basic(proxy.username, proxy.password)}
            made = urllib3.ProxyManager(
                proxy.url,
                proxy_headers=headers if proxy.username else None,
                proxy_ssl_context=tls,
                ssl_context=tls,
                **limits,
            )
        kinds = {"http": _HttpPool, "https": _HttpsPool}
        made.pool_classes_by_scheme = {
            scheme: partial(self._pool, kind)  # type: ignore[misc]  # called only
            for scheme, kind in kinds.items()
        }
        return made

    def _pool(self, kind: type[urllib3.HTTPConnectionPool], *place: Any, **limits: Any) -> Any:
        made = kind(*place, **limits)
        made.conn_kw["connected"] = self._note_connected
        return made

    def _make_tls(self) -> ssl.SSLContext:
        # Authorities that the operator has added to the system are trusted as well.
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        if self._ca_file is not None:
            try:
                load_authorities(context, self._ca_file)
            except ValueError as error:
                raise BackendError(f"ca_file: {error}") from None
        return context


def load_authorities(context: ssl.SSLContext, path: Path) -> None:
    """Trust the authorities in a PEM file as well; raises `ValueError`, which says why not."""
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError(
            f"{str(path)!r} is not a file of certificates in PEM format, which begin with "
            "'-----BEGIN CERTIFICATE-----'"
        ) from None
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r}: {error.strerror}") from None


def _shut_down(connected: socket.socket | SSLTransport) -> None:
    """End a connection that another thread may be using; closing it is left to that thread."""
    if isinstance(connected, SSLTransport):  # to a server behind a proxy that has TLS itself
        connected = connected.socket
    with suppress(OSError):
        # Not the method of SSL sockets, which takes the TLS away from whoever reads now.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


def basic(username: str, password: str) -> str:
    """The value of a header with credentials (RFC 7617, with UTF-8)."""
    pair = f"{username}:{password}".encode("utf-8", "surrogatepass")
    return f"Basic {base64.b64encode(pair).decode()}"


# -- connections that were closed while unused -----------------------------------------------------

_Connected = Callable[[socket.socket], None]

_USED: Final[WeakSet[Any]] = WeakSet()
"""The sockets on which an answer has arrived."""


class Unanswered(ConnectionError):
    """A connection that was used before ended before the first byte of the next answer.

    A server may close a connection that is not used at any time, also while a request is on its
    way. It has then not answered, so the request may be sent again (RFC 9112, 9.3.1).
    """


def is_unanswered(error: BaseException) -> bool:
    """Whether an error of urllib3 is about a connection that was closed while unused."""
    return any(isinstance(each, Unanswered) for each in (error, *error.args))


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self._socket = sock

    def begin(self) -> None:
        if self._socket in _USED:
            try:
                has_begun = bool(self.fp.peek(1))
            except (ConnectionError, ssl.SSLEOFError) as error:
                raise Unanswered("closed while unused") from error
            if not has_begun:
                raise Unanswered("closed while unused")
        super().begin()
        _USED.add(self._socket)


class _Http(HTTPConnection):
    response_class = _Response

    def __init__(self, *place: Any, connected: _Connected, **options: Any) -> None:
        super().__init__(*place, **options)
        self._connected = connected

    def connect(self) -> None:
        super().connect()
        self._connected(self.sock)


class _Https(_Http, HTTPSConnection):
    """The same with TLS."""


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https
