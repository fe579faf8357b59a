"""Start, run and end a server; what a connection does is in `channel`."""

from __future__ import annotations

import contextlib
import errno
import logging
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
from private_pypi.web.serving.gate import AtOnce, Gate, Load, Watcher
from private_pypi.web.serving.pools import Pools

logger = logging.getLogger(__name__)

_DEFAULTS: Mapping[str, Any] = {
    "threads": 8,  # in each pool
    "connection_limit": 1000,
    "asyncore_use_poll": True,  # select() ends at 1024 files
    "cleanup_interval": 1,
    "ident": "private_pypi",
    # Buffers stay in memory: a temporary folder may be full or missing. The first limit lets a
    # worker wait, the second would make a temporary file.
    "outbuf_high_watermark": 4 * 1024 * 1024,
    "outbuf_overflow": 8 * 1024 * 1024,
}


class Stop:
    """Ends a running `serve` from another thread or a signal handler."""

    def __init__(self) -> None:
        self._wake: Callable[[], None] | None = None
        # Guards _wake against an end of `serve` meanwhile; re-entrant, for a signal may arrive
        # while this very thread holds it.
        self._lock = threading.RLock()
        self.requested = False

    def request(self) -> None:
        """Let `serve` finish what is open and return. Also before it began, and repeatedly."""
        self.requested = True
        with self._lock:
            if self._wake is not None:
                self._wake()

    def wakes(self, wake: Callable[[], None] | None) -> None:
        """What lets a loop notice at once, while there is one."""
        with self._lock:
            self._wake = wake


def option_names() -> frozenset[str]:
    """The options of `serve` that can be given as text."""
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
    stop: Stop | None = None,
    apart: Callable[[str], bool] = lambda path: False,
    at_once: AtOnce = lambda environ: None,
    watcher: Watcher | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`, then let everybody finish for `drain_seconds`.

    `options` are those of waitress; `listen`, `unix_socket` or `sockets` there replace `host` and
    `port`. `on_listening` gets the addresses once connections are accepted. A GET of a path for
    which `apart` is true, because it may wait for a storage, runs in a pool of its own.
    A GET to which `at_once` has an answer is not given to a thread at all.
    `watcher` is told of every answer.
    Signals are handled only in the main thread; a second one ends the process at once.
    Raises `ConfigurationError` for a wrong option and an address that cannot be had.
    """
    stop = stop or Stop()
    options = _checked(options or {})
    max_body_bytes = int(options.pop("max_request_body_size", sys.maxsize))
    sockets: dict[int, Any] = {}
    pools = Pools(apart)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(_close_all, sockets, pools)
        server = _bind(application, sockets, pools, host, port, options)
        find_client = _find_client(server.adj)
        running = Running(gate, pools, max_body_bytes, at_once, watcher, find_client)
        servers = [entry for entry in sockets.values() if isinstance(entry, BaseWSGIServer)]
        if watcher is not None:
            watcher.serving(lambda: Load(len(_channels(servers)), pools.requests))
        _raise_file_limit(server.adj.connection_limit)
        for one in servers:
            one.channel_class = partial(Channel, running=running)
            one.maintenance = lambda now: None  # `_sweep` knows more of our channels
            one.adj.max_request_body_size = sys.maxsize  # the gate's verdict governs
        pools.start(server.adj.threads)
        stop.wakes(servers[0].pull_trigger)
        cleanup.callback(stop.wakes, None)
        cleanup.enter_context(_signals(stop))
        for one in servers:
            one.accept_connections()
        on_listening([_address(one) for one in servers])
        loop = partial(wasyncore.loop, use_poll=server.adj.asyncore_use_poll, map=sockets, count=1)
        next_sweep = 0.0
        while not stop.requested:
            loop(timeout=server.adj.asyncore_loop_timeout)
            if (now := time.time()) >= next_sweep:
                next_sweep = now + server.adj.cleanup_interval
                _sweep(servers, now)
        _drain(running, servers, loop, drain_seconds)


# -- starting and ending -------------------------------------------------------------------------


def _casts() -> dict[str, Callable[[Any], Any]]:
    return dict(Adjustments._params)


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    casts = _casts()
    problems = []
    for name, value in options.items():
        if name not in casts:
            problems.append(f"--{name}: no such option of the server")
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
    except ValueError as error:  # of Adjustments: options that do not go together, unknown hosts
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
            return f"port {port} on {host} is for privileged users; choose another with --port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine; choose another with --host"
    return f"cannot listen on port {port} of {host}: {error.strerror or error}"


def _find_client(adj: Any) -> Callable[[dict[str, Any]], None]:
    """What waitress does to the environment of an application, for answers without one."""
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


def _raise_file_limit(connections: int) -> None:
    """A connection may need two more files: what it sends or receives, and one to spare."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * connections + 256
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        for wanted in before:
            signal.signal(wanted, signal.SIG_DFL)  # the second one ends at once
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


def _sweep(servers: list[Any], now: float) -> None:
    for channel in _channels(servers):
        if channel.is_overdue(now):
            channel.handle_close()


def _drain(
    running: Running, servers: list[Any], loop: Callable[..., None], drain_seconds: float
) -> None:
    running.draining = True
    for server in servers:
        _accept_waiting(server)
        # Not server.close(): workers still need the trigger.
        wasyncore.dispatcher.close(server)
    loop(timeout=0)  # what was sent before the signal counts as begun
    end = time.monotonic() + drain_seconds
    while time.monotonic() < end:
        for channel in _channels(servers):
            if channel.is_idle and not channel.is_fresh(time.time()):
                channel.handle_close()
        if not _channels(servers) and not running.pools.busy:
            return
        _sweep(servers, time.time())
        loop(timeout=0.05)
    cut = _channels(servers)
    logger.warning("%d connections were cut after %g seconds", len(cut), drain_seconds)


def _accept_waiting(server: Any) -> None:
    """Take the connections that the kernel has accepted already; they would be reset."""
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
        time.sleep(0.01)  # partial files are being removed
    is_quiet = not pools.busy
    pools.stop()
    if is_quiet:
        wasyncore.close_all(sockets)
    # Else a worker hangs: its trigger stays open, lest it writes to a file of that number later.
