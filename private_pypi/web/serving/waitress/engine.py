"""Start, run and end a server. What happens on a connection is in `channel`."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from waitress import wasyncore
from waitress.server import BaseWSGIServer, create_server

from private_pypi.errors import ConfigurationError
from private_pypi.web.serving.gate import AtOnce, Gate, Kind, KindOf, Load, RequestObserver, ShareOf
from private_pypi.web.serving.options import (
    DEFAULTS,
    WHERE,
    bind_problem,
    bind_refusal,
    checked_options,
    find_client_of,
    possible_connections,
)
from private_pypi.web.serving.peers import Peers
from private_pypi.web.serving.pools import Pools
from private_pypi.web.serving.stopping import Stop, stopped_by_signals
from private_pypi.web.serving.timeouts import connections_over_memory, order_for_closing
from private_pypi.web.serving.waitress.channel import Channel, Dispatcher, Running

logger = logging.getLogger(__name__)

_SHUT_SECONDS = 0.2  # for which a full server does not accept new connections
_YIELD_SECONDS = 0.005  # for which peers can accept a connection first
_QUIET_SECONDS = 60.0  # between two warnings that the server is full


def serve(
    application: Callable[..., Any],
    gate: Gate,
    *,
    host: str,
    port: int,
    options: Mapping[str, Any] | None = None,
    sockets: Sequence[socket.socket] = (),
    peers: Peers | None = None,
    on_listening: Callable[[list[str]], None],
    drain_seconds: float = 30.0,
    leave_seconds: float = 0.0,
    stop: Stop | None = None,
    kind_of: KindOf = lambda path: Kind.PAGES,
    share_of: ShareOf = lambda path, authorization: "",
    at_once: AtOnce = lambda environ: None,
    observer: RequestObserver | None = None,
) -> None:
    """Serve until a signal (`stopping`) or `stop`.

    Then new requests are still accepted for `leave_seconds`, so that a load balancer that asks
    `stop.requested` has time to notice, and no request is refused. Each answer then is the last one
    on its connection. After that, open requests have `drain_seconds` to finish.

    `options` are those of waitress. If `listen` or `unix_socket` is among them, `host` and `port`
    are not used. If there are `sockets`, which listen already (see `open_listeners`), none of these
    is used; `peers` are the other processes that accept from them. `on_listening` is called with
    the addresses once connections are accepted. `kind_of` and `share_of` say which threads a
    request may use. A GET for which `at_once` has an answer needs no thread. `observer` gets to
    know every answer.

    Raises `ConfigurationError` for a wrong option, or if the server cannot listen on an address.
    """
    stop = stop or Stop()
    options = checked_options(options or {})
    max_body_bytes = int(options.pop("max_request_body_size", sys.maxsize))
    if sockets:
        options = {name: options[name] for name in options.keys() - WHERE} | {"sockets": sockets}
    entries: dict[int, Any] = {}
    pools = Pools()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(_close_all, entries, pools)
        server = _bind(application, entries, pools, host, port, options)
        running = Running(
            gate=gate,
            pools=pools,
            max_body_bytes=max_body_bytes,
            at_once=at_once,
            observer=observer,
            find_client=find_client_of(server.adj),
            kind_of=kind_of,
            share_of=share_of,
        )
        servers = _servers(entries)
        if observer is not None:
            observer.serving(lambda: Load(len(_channels(servers)), pools.requests))
        most = possible_connections(server.adj.connection_limit)
        limit = _ConnectionLimit(servers, most, peers)
        for one in servers:
            one.channel_class = partial(limit.open, running)
            one.readable = partial(limit.may_accept, one)
            one.handle_accept = partial(limit.accept, one)
            one.adj.max_request_body_size = sys.maxsize  # the verdict of the gate decides
        pools.start(server.adj.threads)
        stop.wakes(servers[0].pull_trigger)
        cleanup.callback(stop.wakes, None)
        cleanup.enter_context(stopped_by_signals(stop))
        for one in servers:
            one.accept_connections()
        on_listening([_address(one) for one in servers])
        loop = partial(wasyncore.loop, use_poll=server.adj.asyncore_use_poll, map=entries, count=1)
        _run(servers, limit, loop, lambda: stop.requested)
        running.draining = True
        end = time.monotonic() + leave_seconds
        _run(servers, limit, loop, lambda: time.monotonic() >= end)
        if peers is not None:
            peers.leave()
        _drain(running, servers, loop, drain_seconds)


def open_listeners(
    host: str, port: int, options: Mapping[str, Any]
) -> tuple[list[socket.socket], list[str]]:
    """Listen where `serve` would with these arguments: the sockets, and their addresses.

    The sockets are for several processes, each of which calls `serve` with them. A connection waits
    in the kernel until any of the processes accepts it, so none is lost with a process that dies.
    Raises `ConfigurationError` as `serve` does.
    """
    options = checked_options(options)
    entries: dict[int, Any] = {}
    try:
        server = _bind(_no_application, entries, Pools(), host, port, options)
        servers = _servers(entries)
        listeners = []
        for one in servers:
            one.socket.listen(server.adj.backlog)
            listeners.append(one.socket.dup())
        return listeners, [_address(one) for one in servers]
    finally:
        wasyncore.close_all(entries)


# -- starting and ending -------------------------------------------------------------------------


def _no_application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    raise NotImplementedError("this process only listens")


def _servers(entries: Mapping[int, Any]) -> list[Any]:
    """Of the entries of the loop, those that accept connections."""
    return [entry for entry in entries.values() if isinstance(entry, BaseWSGIServer)]


def _bind(
    application: Callable[..., Any],
    sockets: dict[int, Any],
    pools: Pools,
    host: str,
    port: int,
    options: dict[str, Any],
) -> Any:
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"--port {port}: a port is a number from 0 to 65535")
    where: dict[str, Any] = {"host": host, "port": port}
    if WHERE & options.keys():
        where = {}
    try:
        return create_server(
            application,
            map=sockets,
            _start=False,
            _dispatcher=Dispatcher(pools),
            **where,
            **{**DEFAULTS, **options},
        )
    except ValueError as error:
        raise ConfigurationError(bind_refusal(error, host, port, options)) from error
    except OSError as error:
        raise ConfigurationError(bind_problem(error, host, port, options)) from error


def _address(server: Any) -> str:
    host, port = server.effective_host, server.effective_port
    if host == "unix":
        return f"unix:{port}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _channels(servers: list[Any]) -> list[Channel]:
    return [channel for server in servers for channel in list(server.active_channels.values())]


class _ConnectionLimit:
    """Limits the number of connections, and closes some for new ones when all are taken.

    It also leaves new connections to other processes that have fewer (see `peers`).
    """

    def __init__(self, servers: list[Any], most: int, peers: Peers | None) -> None:
        self._servers = servers
        self._most = most
        self._peers = peers
        self._shut_until = 0.0
        self._yields_until = 0.0  # time.monotonic(); 0: peers are not being let go first
        self._is_our_turn = False  # because peers had theirs
        self._told_at = -math.inf

    def may_accept(self, server: Any) -> bool:
        """Whether to accept new connections. This is what waitress calls `readable`."""
        if self._peers is not None:
            self._peers.tell(self._count)
            if self._yields_until:
                return False
        if not server.accepting or not self._is_full:
            return bool(server.accepting)
        now = time.monotonic()
        if now < self._shut_until:
            return False
        if all(channel.is_let_in for channel in _channels(self._servers)):
            self._shut_until = now + _SHUT_SECONDS  # new connections wait in the kernel
            return False
        return True

    def accept(self, server: Any) -> None:
        """Accept a connection that waits. Peers with fewer connections can have it first."""
        if self._peers is not None and not self._is_our_turn and self._peers.have_fewer():
            self._yields_until = time.monotonic() + _YIELD_SECONDS
        else:
            self._is_our_turn = False
            BaseWSGIServer.handle_accept(server)

    def begin_round(self, longest: float) -> float:
        """How many seconds this round of the loop may wait: at most `longest`.

        It waits until peers had their turn. Then one round, which does not wait, is our turn: what
        is still there is accepted, however long this round was in coming.
        """
        left = self._yields_until - time.monotonic() if self._yields_until else longest
        self._is_our_turn = left <= 0
        if self._is_our_turn:
            self._yields_until = 0.0
        return max(0.0, min(longest, left))

    def open(self, running: Running, *args: Any, **others: Any) -> Channel:
        """Make the channel of a connection that was accepted."""
        if self._is_full:
            self._make_room(time.monotonic())
        return Channel(*args, **others, running=running)

    @property
    def _count(self) -> int:
        return sum(len(server.active_channels) for server in self._servers)

    @property
    def _is_full(self) -> bool:
        return self._count >= self._most

    def _make_room(self, now: float) -> None:
        if now - self._told_at > _QUIET_SECONDS:
            self._told_at = now
            logger.warning(
                "all %d connections are taken, so those are closed that have waited the longest",
                self._most,
            )
        channels = _channels(self._servers)
        for channel in channels:
            channel.observe(now)
        # Close several at a time, because it takes long to look at all of them.
        for channel in order_for_closing(channels, self._most, now)[: max(1, self._most // 50)]:
            channel.cut()


def _run(
    servers: list[Any],
    limit: _ConnectionLimit,
    loop: Callable[..., None],
    has_ended: Callable[[], bool],
) -> None:
    options = servers[0].adj
    next_sweep = 0.0
    while not has_ended():
        loop(timeout=limit.begin_round(options.asyncore_loop_timeout))
        if (now := time.monotonic()) >= next_sweep:
            next_sweep = now + options.cleanup_interval
            _sweep(servers, now)


def _sweep(servers: list[Any], now: float) -> None:
    """Close connections whose clients take too long or that take too much memory."""
    channels = _channels(servers)
    for channel in channels:
        channel.resume_if_overdue()
        if channel.is_overdue(now):
            channel.expire()
    for channel in connections_over_memory(channels, now):
        channel.cut()


def _drain(
    running: Running, servers: list[Any], loop: Callable[..., None], drain_seconds: float
) -> None:
    for server in servers:
        _accept_waiting(server)
        # Not server.close(), which would close the trigger that workers still need.
        wasyncore.dispatcher.close(server)
    loop(timeout=0)  # read requests that were sent before the signal, so that they are answered
    end = time.monotonic() + drain_seconds
    while time.monotonic() < end:
        for channel in _channels(servers):
            if channel.is_idle and not channel.is_fresh(time.monotonic()):
                channel.handle_close()
        if not _channels(servers) and not running.pools.busy:
            return
        _sweep(servers, time.monotonic())
        loop(timeout=0.05)
    cut = _channels(servers)
    logger.warning("%d connections were cut after %g seconds", len(cut), drain_seconds)


def _accept_waiting(server: Any) -> None:
    """Take the connections that wait in the kernel, which would be reset otherwise."""
    count = -1
    while count != len(server.active_channels):
        count = len(server.active_channels)
        BaseWSGIServer.handle_accept(server)  # also those that peers could have


def _close_all(sockets: dict[int, Any], pools: Pools) -> None:
    for entry in list(sockets.values()):
        if isinstance(entry, Channel):
            entry.cut()
    end = time.monotonic() + 1
    while pools.busy and time.monotonic() < end:
        time.sleep(0.01)  # workers remove partial files
    is_quiet = not pools.busy
    pools.stop()
    if is_quiet:
        wasyncore.close_all(sockets)
    # Otherwise a worker hangs. The trigger stays open for it: if it were closed, the worker could
    # later write into another file that got the same number.
