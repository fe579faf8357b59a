"""Start, run and end a server. What happens on a connection is in `channel`."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import FrameType
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.proxy_headers import proxy_headers_middleware
from waitress.server import BaseWSGIServer, create_server

from private_pypi.errors import ConfigurationError
from private_pypi.web.serving.channel import Channel, Running
from private_pypi.web.serving.gate import AtOnce, Gate, Kind, KindOf, Load, RequestObserver, ShareOf
from private_pypi.web.serving.pools import Pools
from private_pypi.web.serving.timeouts import connections_over_memory, order_for_closing

logger = logging.getLogger(__name__)

_DEFAULTS: Mapping[str, Any] = {
    "threads": 8,  # for each share of each pool
    "connection_limit": 1000,
    "asyncore_use_poll": True,  # select() cannot handle more than 1024 files
    "cleanup_interval": 1,
    "ident": "private_pypi",
    # At the first limit a worker waits for the client. At the second one waitress would make a
    # temporary file, which is never reached: the temporary folder may be full or missing.
    "outbuf_high_watermark": 4 * 1024 * 1024,
    "outbuf_overflow": 8 * 1024 * 1024,
}

_OTHER_FILES = 256  # open files that do not belong to connections
_SHUT_SECONDS = 0.2  # for which a full server does not accept new connections
_QUIET_SECONDS = 60.0  # between two warnings that the server is full


class Stop:
    """Ends a running `serve` from another thread or from a signal handler."""

    def __init__(self) -> None:
        self._wake: Callable[[], None] | None = None
        # Guards _wake, which `serve` takes away when it ends. It is re-entrant, because a signal
        # handler may run in the thread that holds it.
        self._lock = threading.RLock()
        self.requested = False

    def request(self) -> None:
        """Let `serve` finish open requests and return. May be called early, and repeatedly."""
        self.requested = True
        with self._lock:
            if self._wake is not None:
                self._wake()

    def wakes(self, wake: Callable[[], None] | None) -> None:
        """Set what makes the running loop look at `requested`; None when it has ended."""
        with self._lock:
            self._wake = wake


def option_names() -> frozenset[str]:
    """The `options` of `serve` that can be given as text."""
    return frozenset(_casts()) - {"sockets"}


def serve(
    application: Callable[..., Any],
    gate: Gate,
    *,
    host: str,
    port: int,
    options: Mapping[str, Any] | None = None,
    on_listening: Callable[[list[str]], None],
    drain_seconds: float = 30.0,
    leave_seconds: float = 0.0,
    stop: Stop | None = None,
    kind_of: KindOf = lambda path: Kind.PAGES,
    share_of: ShareOf = lambda path, authorization: "",
    at_once: AtOnce = lambda environ: None,
    observer: RequestObserver | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; then open requests have `drain_seconds` to finish.

    Before that, new requests are still accepted for `leave_seconds`, so that a load balancer that
    asks `stop.requested` has time to notice, and no request is refused. Each answer then is the
    last one on its connection.

    `options` are those of waitress. If `listen`, `unix_socket` or `sockets` is among them, `host`
    and `port` are not used. `on_listening` is called with the addresses once connections are
    accepted. `kind_of` and `share_of` say which threads a request may use. A GET for which
    `at_once` has an answer needs no thread. `observer` gets to know every answer.

    Signals are only handled in the main thread, and the second one ends the process at once.
    Raises `ConfigurationError` for a wrong option, or if the server cannot listen on an address.
    """
    stop = stop or Stop()
    options = _checked(options or {})
    max_body_bytes = int(options.pop("max_request_body_size", sys.maxsize))
    sockets: dict[int, Any] = {}
    pools = Pools()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(_close_all, sockets, pools)
        server = _bind(application, sockets, pools, host, port, options)
        find_client = _find_client(server.adj)
        running = Running(
            gate, pools, max_body_bytes, at_once, observer, find_client, kind_of, share_of
        )
        servers = [entry for entry in sockets.values() if isinstance(entry, BaseWSGIServer)]
        if observer is not None:
            observer.serving(lambda: Load(len(_channels(servers)), pools.requests))
        limit = _ConnectionLimit(servers, _possible_connections(server.adj.connection_limit))
        for one in servers:
            one.channel_class = partial(limit.open, running)
            one.readable = partial(limit.may_accept, one)
            one.adj.max_request_body_size = sys.maxsize  # the verdict of the gate decides
        pools.start(server.adj.threads)
        stop.wakes(servers[0].pull_trigger)
        cleanup.callback(stop.wakes, None)
        cleanup.enter_context(_signals(stop))
        for one in servers:
            one.accept_connections()
        on_listening([_address(one) for one in servers])
        loop = partial(wasyncore.loop, use_poll=server.adj.asyncore_use_poll, map=sockets, count=1)
        _run(servers, loop, lambda: stop.requested)
        running.draining = True
        end = time.monotonic() + leave_seconds
        _run(servers, loop, lambda: time.monotonic() >= end)
        _drain(running, servers, loop, drain_seconds)


# -- starting and ending -------------------------------------------------------------------------


def _casts() -> dict[str, Callable[[Any], Any]]:
    return dict(Adjustments._params)


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    casts = _casts()
    problems = []
    for name, value in options.items():
        if name not in casts:
            problems.append(f"--{name}: the server has no such option")
            continue
        try:
            number = casts[name](value)
        except (TypeError, ValueError):
            wanted = "an octal number" if name == "unix_socket_perms" else "a whole number"
            problems.append(f"--{name} {value}: not {wanted}")
        else:
            if name == "threads" and number < 1:
                problems.append(f"--{name} {value}: at least 1 is needed")
    if problems:
        raise ConfigurationError(*problems)
    return dict(options)


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
    if {"listen", "unix_socket", "sockets"} & set(options):
        where = {}
    try:
        return create_server(
            application,
            map=sockets,
            _start=False,
            _dispatcher=pools,
            **where,
            **{**_DEFAULTS, **options},
        )
    except ValueError as error:  # options that contradict each other, or an unknown host
        if where and "host/port" in str(error):
            raise ConfigurationError(
                f"cannot listen on host {host!r}, port {port}: no such address; "
                "choose others with --host and --port"
            ) from error
        given = " ".join(f"--{name} {options[name]}" for name in options)
        raise ConfigurationError(f"{error} (given: {given})") from error
    except OSError as error:
        raise ConfigurationError(_bind_problem(error, host, port, options)) from error


def _bind_problem(error: OSError, host: str, port: int, options: Mapping[str, Any]) -> str:
    for name in ("listen", "unix_socket"):
        if name in options:
            return f"--{name} {options[name]}: {error.strerror or error}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} on {host} is in use; choose another with --port"
        case errno.EACCES | errno.EPERM:
            return f"port {port} on {host} needs a privileged user; choose another with --port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine; choose another with --host"
    return f"cannot listen on port {port} of {host}: {error.strerror or error}"


def _find_client(adj: Any) -> Callable[[dict[str, Any]], None]:
    """How to put the client's address into a WSGI environment.

    waitress itself does this only when it calls the application.
    """
    if not adj.trusted_proxy:
        return lambda environ: None
    translate = proxy_headers_middleware(
        lambda environ, start_response: (),
        trusted_proxy=adj.trusted_proxy,
        trusted_proxy_count=adj.trusted_proxy_count,
        trusted_proxy_headers=adj.trusted_proxy_headers,
        clear_untrusted=False,
    )

    def find(environ: dict[str, Any]) -> None:
        translate(environ, lambda status, headers: None)

    return find


def _address(server: Any) -> str:
    host, port = server.effective_host, server.effective_port
    if host == "unix":
        return f"unix:{port}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _possible_connections(wanted: int) -> int:
    """The number of connections to serve: `wanted`, or less if the system allows fewer files.

    Raises the limit of open files first, to three for each connection if possible: the socket, the
    file that it sends or receives, and a spare one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 3 * wanted + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    # A connection needs a file even to be refused, so there must be one.
    possible = max(1, min(wanted, (files - _OTHER_FILES) // 2))
    if possible < wanted:
        logger.warning(
            "the system allows %d open files, so at most %d connections are served, not %d",
            *(files, possible, wanted),
        )
    return possible


@contextlib.contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        for wanted in before:
            signal.signal(wanted, signal.SIG_DFL)  # a second signal ends the process at once
        stop.request()

    before: dict[signal.Signals, Any] = {}
    for wanted in (signal.SIGTERM, signal.SIGINT):
        before[wanted] = signal.signal(wanted, handle)
    try:
        yield
    finally:
        for wanted, handler in before.items():
            signal.signal(wanted, handler)


def _channels(servers: list[Any]) -> list[Channel]:
    return [channel for server in servers for channel in list(server.active_channels.values())]


class _ConnectionLimit:
    """Limits the number of connections, and closes some for new ones when all are taken."""

    def __init__(self, servers: list[Any], most: int) -> None:
        self._servers = servers
        self._most = most
        self._shut_until = 0.0
        self._told_at = -math.inf

    def may_accept(self, server: Any) -> bool:
        """Whether to accept new connections. This is what waitress calls `readable`."""
        if not server.accepting or not self._is_full:
            return bool(server.accepting)
        now = time.monotonic()
        if now < self._shut_until:
            return False
        if all(channel.is_let_in for channel in _channels(self._servers)):
            self._shut_until = now + _SHUT_SECONDS  # new connections wait in the kernel
            return False
        return True

    def open(self, running: Running, *args: Any, **others: Any) -> Channel:
        """Make the channel of a connection that was accepted."""
        if self._is_full:
            self._make_room(time.monotonic())
        return Channel(*args, **others, running=running)

    @property
    def _is_full(self) -> bool:
        return sum(len(server.active_channels) for server in self._servers) >= self._most

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


def _run(servers: list[Any], loop: Callable[..., None], has_ended: Callable[[], bool]) -> None:
    options = servers[0].adj
    next_sweep = 0.0
    while not has_ended():
        loop(timeout=options.asyncore_loop_timeout)
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
        server.handle_accept()


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
