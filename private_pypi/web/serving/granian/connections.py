"""Which clients take too long, and whose connections are closed when there are too many.

granian only limits how long the head of a request may take, and how many connections there are. It
does not give its sockets away either, so they are found among the open files of this process: the
kernel knows how many bytes each client has sent and taken. The limits are those of `timeouts`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import socket
import struct
import termios
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from private_pypi.web.serving.granian.head import Fields
from private_pypi.web.serving.timeouts import (
    Progress,
    Stage,
    connections_over_memory,
    order_for_closing,
    time_limits,
)

logger = logging.getLogger(__name__)

_INTERNET = (socket.AF_INET, socket.AF_INET6)
_UNUSED_SECONDS = 1.0  # in which nothing happens on a connection that is closed at the end
_QUIET_SECONDS = 60.0  # between two warnings that the server is full
# In `struct tcp_info` of Linux: how many connections wait at a listening socket; and the bytes that
# the client of a connection has acknowledged, and those it has sent.
_UNACKED, _UNACKED_AT = struct.Struct("=I"), 24
_BYTES_ACKED_AND_RECEIVED = struct.Struct("QQ")
_AT = 120


class Running(Protocol):
    """A request that is being received or answered."""

    @property
    def stage(self) -> Stage:
        """What it waits for."""

    @property
    def is_let_in(self) -> bool:
        """Whether a secret of it was accepted so far."""

    @property
    def held(self) -> int:
        """How much memory its body takes, in bytes."""

    def expire(self) -> None:
        """End it, because its client takes too long."""

    def gone(self) -> None:
        """End it, because its client has gone."""


class Connection:
    """One connection, as it was at the last sweep."""

    def __init__(self, address: str, now: float) -> None:
        self.address = address
        self.begun = 0
        """Requests."""
        self.was_let_in = False
        """Whether a secret of the last request was accepted."""
        self.fields: Fields | None = None
        """Those of the last request; None if they are large, or of no plain request."""
        self.requests: set[Running] = set()
        """Those that are being received or answered; with HTTP/2 there may be several."""
        self.progress = Progress(now)

    @property
    def is_let_in(self) -> bool:
        """Whether a request here, or the answer that is being sent, is of a client let in."""
        if self.requests:
            return any(request.is_let_in for request in self.requests)
        return self.was_let_in and self.progress.stage is Stage.SENDING

    @property
    def held(self) -> int:
        """How much memory the bodies take, in bytes."""
        return sum(request.held for request in self.requests)

    def stage(self, *, is_sending: bool) -> Stage:
        """What this connection waits for. `is_sending`: the client has to take something."""
        if not self.requests:
            return Stage.SENDING if is_sending else Stage.IDLE
        stages = {request.stage for request in self.requests}
        order = (Stage.SERVER, Stage.BODY, Stage.DISCARDING, Stage.LINGERING)
        return next((stage for stage in order if stage in stages), Stage.SENDING)


class Connections:
    """The connections of a server."""

    def __init__(self, most: int, timeout: float, folder: str) -> None:
        """`folder` has the open files of this process by number."""
        self._most = most
        self._timeout = timeout
        self._folder = folder
        self._known: dict[str, Connection] = {}  # by the address and port of the client
        self._missing: set[str] = set()  # those of them that had no socket at the last sweep
        self._listening: set[object] = set()
        self._told_at = -math.inf

    def listen_at(self, sockets: Iterable[socket.socket]) -> None:
        """Look after the connections of these listening sockets."""
        self._listening |= {sock.getsockname()[1] for sock in sockets if sock.family in _INTERNET}

    def of(self, client: str) -> Connection:
        """The connection of a client, given as granian gives it. May be called in any thread."""
        known = self._known.get(client)
        if known is None:
            new = Connection(client.rpartition(":")[0], time.monotonic())
            known = self._known.setdefault(client, new)
        return known

    def sweep(self, *, is_ending: bool = False) -> None:
        """Close the connections whose clients take too long, and some if there are too many.

        To be called about once a second. `is_ending`: also close those that are not used.
        """
        now = time.monotonic()
        sockets = dict(self._sockets())
        try:
            # Clients of a Unix socket have no address, and cannot be found here.
            # A copy, because requests add to it in another thread.
            self._forget({each for each in list(self._known) if ":" in each} - sockets.keys())
            for client, sock in sockets.items():
                connection = self.of(client)
                sent, untaken = _moved(sock)
                stage = connection.stage(is_sending=untaken > 0)
                connection.progress.observe(stage, connection.begun, sent, now)
                limits = time_limits(stage, let_in=connection.is_let_in, timeout=self._timeout)
                if connection.progress.is_over(limits, now):
                    _end(connection, sock)
                elif is_ending and connection.progress.is_idle(now, _UNUSED_SECONDS):
                    _shut(sock)
            self._close_some(sockets, now)
        finally:
            for sock in sockets.values():
                sock.close()

    def count(self) -> int:
        """How many connections are open."""
        number = 0
        for _, sock in self._sockets():
            sock.close()
            number += 1
        return number

    def cut(self) -> int:
        """Close all connections; returns how many there were."""
        sockets = dict(self._sockets())
        for sock in sockets.values():
            _shut(sock)
            sock.close()
        return len(sockets)

    def cut_one(self, client: str) -> None:
        """Close the connection of a client, which then sees that its answer is not whole."""
        for address, sock in self._sockets():
            with sock:
                if address == client:
                    _shut(sock)

    def _forget(self, missing: set[str]) -> None:
        """Forget connections that are closed.

        One that is missing for the first time may have been opened while the others were found.
        """
        for client in missing & self._missing:
            for request in tuple(self._known[client].requests):
                request.gone()
            if not self._known[client].requests:
                del self._known[client]
        self._missing = missing

    def _close_some(self, sockets: dict[str, socket.socket], now: float) -> None:
        connections = {self._known[client]: client for client in sockets}
        closing = list(connections_over_memory(connections, now))
        if len(sockets) >= self._most:
            if now - self._told_at > _QUIET_SECONDS:
                self._told_at = now
                logger.warning(
                    "all %d connections are taken, so those are closed that have waited the "
                    "longest",
                    self._most,
                )
            # More than the default engine closes at a time, because there is a second between.
            number = max(1, self._most // 10)
            closing += order_for_closing(connections, self._most, now)[:number]
        for connection in closing:
            _shut(sockets[connections[connection]])

    def _sockets(self) -> Iterator[tuple[str, socket.socket]]:
        """The client of each connection, and a copy of its socket that the caller closes."""
        for path in list(Path(self._folder).iterdir()):
            with contextlib.suppress(OSError):
                if not path.is_socket():
                    continue
                # A copy, because granian may close its own in this moment, and the number may
                # then be that of another file. All that is asked is asked of the copy.
                sock = socket.socket(fileno=os.dup(int(path.name)))
                client = self._client_of(sock)
                if client is None:
                    sock.close()
                else:
                    yield client, sock

    def _client_of(self, sock: socket.socket) -> str | None:
        """The client of an accepted connection, as granian gives it; None for other sockets."""
        with contextlib.suppress(OSError):
            if sock.family in _INTERNET and sock.getsockname()[1] in self._listening:
                host, port = sock.getpeername()[:2]
                return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"
        return None


def _moved(sock: socket.socket) -> tuple[int, int]:
    """How many bytes the client has sent and taken, and how many it has still to take."""
    try:
        facts = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        moved = sum(_BYTES_ACKED_AND_RECEIVED.unpack_from(facts, _AT))
        untaken = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
    except (OSError, struct.error):  # not on this system, or the connection is closed
        return 0, 0
    return moved, int(struct.unpack("i", untaken)[0])


def unaccepted(sock: socket.socket) -> int:
    """How many connections wait at a listening socket to be accepted; 0 if it is not known."""
    try:
        facts = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(_UNACKED.unpack_from(facts, _UNACKED_AT)[0])
    except (OSError, struct.error):  # not on this system, or a Unix socket
        return 0


def _end(connection: Connection, sock: socket.socket) -> None:
    receiving = [
        request
        for request in connection.requests
        if request.stage in (Stage.BODY, Stage.DISCARDING)
    ]
    for request in receiving:
        request.expire()  # which gets an answer
    if not receiving:
        _shut(sock)


def _shut(sock: socket.socket) -> None:
    """End a connection for all copies of its socket."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
