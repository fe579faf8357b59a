"""Start, run and end a server with granian."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from granian._granian import CallbackScheduler, RSGIWorker
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.log import LogLevels
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.embed import AsyncWorker, Server
from waitress.adjustments import Adjustments
from waitress.proxy_headers import proxy_headers_middleware

from private_pypi.errors import ConfigurationError
from private_pypi.web.serving import timeouts
from private_pypi.web.serving.gate import AtOnce, Gate, Kind, KindOf, Load, RequestObserver, ShareOf
from private_pypi.web.serving.granian.certificates import Certificate
from private_pypi.web.serving.granian.connections import Connections, unaccepted
from private_pypi.web.serving.granian.exchange import Serving
from private_pypi.web.serving.granian.head import constant_environ
from private_pypi.web.serving.granian.piped import folder_of_files
from private_pypi.web.serving.granian.responding import Application
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

logger = logging.getLogger(__name__)

OPTIONS = frozenset(
    {
        *("backlog", "channel_timeout", "cleanup_interval", "connection_limit", "ident"),
        *("ipv4", "ipv6", "listen", "unix_socket", "unix_socket_perms", "url_prefix"),
        *("max_request_body_size", "max_request_header_size", "server_name", "threads"),
        *("trusted_proxy", "trusted_proxy_count", "trusted_proxy_headers", "url_scheme"),
        *("clear_untrusted_proxy_headers", "log_untrusted_proxy_headers"),
    }
)
"""The options of waitress that have the same meaning here; all others are refused."""

_LOOKS_FOR_CERTIFICATES = 2.0  # seconds between two looks at the files
# Of a connection: its socket, the two ends of a pipe, one of these again in granian, a file, and a
# spare one. If granian could not open a pipe, it would answer 404.
_FILES = 6
_TAKE_IN_SECONDS = 1.0  # for which connections that wait are accepted at the end
_READ_SECONDS = 0.05  # for which their requests are then read
# Where no other program connects, by the family of the socket; "" is a new name for a Unix socket.
_NOWHERE: dict[int, Any] = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}
_RELEASE_SECONDS = 2.0  # for which the threads of granian are waited for at the end


def serve(
    application: Application,
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
    certificate: Certificate | None = None,
) -> None:
    """Serve as the `serve` of the default engine does; with a certificate, with TLS only.

    The kernel divides connections between processes that accept from the same `sockets`: granian
    has no way to let others accept first, so `peers` is not used. A certificate that is replaced is
    used for new connections within 10 seconds.
    """
    stop = stop or Stop()
    options = checked_options(options or {})
    if unknown := sorted(set(options) - OPTIONS):
        raise ConfigurationError(
            *(f"--{name}: only --engine waitress has this option" for name in unknown)
        )
    folder = folder_of_files()
    if certificate is not None:
        certificate.check()
        certificate.warn()
    max_body_bytes = int(options.pop("max_request_body_size", sys.maxsize))
    pools = Pools()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(pools.stop)
        adj, bound = _bind(host, port, options, sockets)
        for sock in bound:
            cleanup.callback(sock.close)
        most = possible_connections(adj.connection_limit, files=_FILES)
        connections = Connections(most, adj.channel_timeout, folder)
        connections.listen_at(bound)
        scheme = adj.url_scheme if certificate is None else "https"
        name, number = _name_of(bound[0])
        serving = Serving(
            application=_trusting(application, adj),
            gate=gate,
            pools=pools,
            connections=connections,
            max_head_bytes=adj.max_request_header_size,
            max_body_bytes=max_body_bytes,
            at_once=at_once,
            observer=observer,
            find_client=find_client_of(adj),
            kind_of=kind_of,
            share_of=share_of,
            constant=constant_environ(
                host=name, port=number, scheme=scheme, software=adj.ident, prefix=adj.url_prefix
            ),
            ident=adj.ident,
            folder=folder,
            pipes=asyncio.Semaphore(most),
        )
        if observer is not None:
            observer.serving(lambda: Load(connections.count(), pools.requests))
        pools.start(adj.threads)
        cleanup.enter_context(stopped_by_signals(stop))
        addresses = [_address(sock, tls=certificate is not None) for sock in bound]
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(
                _Running(serving, adj, bound, most, certificate, stop).run(
                    partial(on_listening, addresses), leave_seconds, drain_seconds
                )
            )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop: uvloop, or asyncio itself (None) where that is not installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


# -- sockets -------------------------------------------------------------------------------------


def _bind(
    host: str, port: int, options: dict[str, Any], sockets: Sequence[socket.socket]
) -> tuple[Any, list[socket.socket]]:
    """The options as waitress understands them, and the listening sockets."""
    where: dict[str, Any] = {"host": host, "port": port}
    if sockets:
        where = {"sockets": list(sockets)}
        options = {name: options[name] for name in options.keys() - WHERE}
    elif WHERE & options.keys():
        where = {}
    try:
        adj = Adjustments(**where, **{**DEFAULTS, **options})
    except ValueError as error:
        raise ConfigurationError(bind_refusal(error, host, port, options)) from error
    given = list(sockets)
    made: list[socket.socket] = []
    try:
        if adj.unix_socket and not given:
            made.append(_unix_socket(adj.unix_socket, adj.unix_socket_perms))
        elif not given:
            for family, kind, protocol, address in adj.listen:
                sock = socket.socket(family, kind, protocol)
                made.append(sock)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(address)
        for sock in (*given, *made):
            if sock.family != socket.AF_UNIX:
                # Connections inherit it. Otherwise the end of a long answer could wait for 40 ms.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.listen(adj.backlog)
    except OSError as error:
        for sock in made:
            sock.close()
        raise ConfigurationError(bind_problem(error, host, port, options)) from error
    return adj, [*given, *made]


def _unix_socket(path: str, permissions: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if Path(path).is_socket():  # of a server that has ended
        Path(path).unlink()
    sock.bind(path)
    Path(path).chmod(permissions)
    return sock


def _name_of(sock: socket.socket) -> tuple[str, str]:
    """The host and the port of a socket, as text."""
    if sock.family == socket.AF_UNIX:
        return "unix", str(sock.getsockname())
    host, port = sock.getsockname()[:2]
    return host, str(port)


def _address(sock: socket.socket, *, tls: bool) -> str:
    host, port = _name_of(sock)
    if sock.family == socket.AF_UNIX:
        return f"unix:{port}"
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _trusting(application: Application, adj: Any) -> Application:
    """The application, with the addresses that a trusted proxy names."""
    if not (adj.trusted_proxy or adj.clear_untrusted_proxy_headers):
        return application
    trusting: Application = proxy_headers_middleware(
        application,
        trusted_proxy=adj.trusted_proxy,
        trusted_proxy_count=adj.trusted_proxy_count,
        trusted_proxy_headers=adj.trusted_proxy_headers,
        clear_untrusted=adj.clear_untrusted_proxy_headers,
        log_untrusted=adj.log_untrusted_proxy_headers,
        logger=logger,
    )
    return trusting


# -- granian -------------------------------------------------------------------------------------


class _Scheduler(CallbackScheduler):
    """Calls `take` with each request, in granian's thread for Python."""

    def __new__(cls, take: Callable[[Any], None], loop: asyncio.AbstractEventLoop) -> Any:
        # granian's own schedulers make a coroutine of each request, which these are for.
        new: Any = super().__new__
        return new(cls, loop, take, None, None, None)

    def __init__(self, take: Callable[[Any], None], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._schedule_fn = take


class _Granian(Server):
    """granian in this process, over a socket that is listening already.

    granian itself would bind one of its own, with SO_REUSEPORT: any other program of the same
    user could then take a part of the connections, and those that wait in the kernel would be
    lost with the process. It has no public way to be given a socket.
    """

    def __init__(self, sock: socket.socket, serving: Serving, **settings: Any) -> None:
        # What is running in this one, and not in one before with another certificate.
        self.serving = replace(serving, running=set(), opened=set())
        super().__init__(
            self.serving,
            interface=Interfaces.RSGI,
            websockets=False,
            log_level=LogLevels.error,
            # Not incremental, this would close the handlers of all other loggers.
            log_dictconfig={"incremental": True, "handlers": {}, "loggers": {}},
            **settings,
        )
        self._given = sock
        self._signals: list[Any] = []

    def _init_shared_socket(self) -> None:
        is_unix = self._given.family == socket.AF_UNIX
        # It closes what it is given.
        self._listener = self._given.dup().detach()
        self._shd: Any = SocketHolder(self._listener, is_unix, self.backlog)  # type: ignore[call-arg]

    def _spawn_worker(self, *args: Any, **others: Any) -> AsyncWorker:
        worker = super()._spawn_worker(*args, **others)
        self._signals.append(worker._sig)
        return worker

    @staticmethod
    @AsyncWorker.wrap_target  # type: ignore[untyped-decorator]
    async def spawn(
        number: int,
        signal: Any,
        serving: Serving,
        sockets: tuple[Any, Any],
        loop: asyncio.AbstractEventLoop,
        *settings: Any,
    ) -> None:
        """Serve until the signal, as granian's own function does, but with our scheduler."""
        *threads, _, mode, http1, http2, websockets, _, _, tls, _ = settings
        ended = loop.create_future()
        signal.add_cb(lambda: loop.call_soon_threadsafe(ended.set_result, None))
        make: Any = RSGIWorker
        worker = make(
            *(number, sockets, None, *threads, mode, http1, http2, websockets, None),
            *(*tls, (None, None)),
        )
        is_unix = (sockets[0] or sockets[1]).is_uds()
        run = worker.serve_async_uds if is_unix else worker.serve_async
        run(_Scheduler(partial(serving.take, loop), loop), loop, signal)
        await ended

    def leave(self) -> None:
        """Accept no more connections. Each answer is the last one on its connection."""
        self.serving.is_leaving = True
        # granian would stop to accept when it is told to end, but see `end`. So it gets a socket
        # to which nobody connects in place of its own.
        family = self._given.family
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as nobody:
            nobody.setblocking(False)
            nobody.bind(_NOWHERE.get(family, ""))
            nobody.listen(1)
            if self._has_listener():
                os.dup2(nobody.fileno(), self._listener, inheritable=False)

    def _has_listener(self) -> bool:
        """False: granian has closed its socket, so the number may be that of another file."""
        with socket.socket(fileno=os.dup(self._listener)) as its:
            is_listening = its.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return bool(is_listening) and its.getsockname() == self._given.getsockname()

    async def end(self) -> None:
        """End when all requests are answered, after `leave`.

        At its end, granian waits for its threads that read from pipes, and holds the lock of the
        interpreter meanwhile. So nobody could write into a pipe that is empty, or close it, and the
        process would hang for ever.
        """
        while self.serving.running or self.serving.opened:
            await asyncio.sleep(0.01)
        self.serving.is_ended = True
        self.stop()  # type: ignore[no-untyped-call]

    async def released(self) -> None:
        """Wait until no thread of granian uses Python any more.

        If the interpreter ended before, such a thread would abort the process.
        """
        end = time.monotonic() + _RELEASE_SECONDS
        # The last thread drops its reference when it is done; the others are ours.
        while any(sys.getrefcount(signal) > 3 for signal in self._signals):
            if time.monotonic() > end:
                return
            await asyncio.sleep(0.005)


class _Running:
    """A server from its start to its end."""

    def __init__(
        self,
        serving: Serving,
        adj: Any,
        sockets: Sequence[socket.socket],
        most: int,
        certificate: Certificate | None,
        stop: Stop,
    ) -> None:
        self._serving = serving
        self._adj = adj
        self._sockets = sockets
        self._most = most
        self._certificate = certificate
        self._stop = stop
        # Before granian reads the files, so that a change in between is noticed.
        self._used = self._seen = None if certificate is None else certificate.state()
        self._servers: dict[_Granian, asyncio.Task[None]] = {}
        self._old: dict[_Granian, asyncio.Task[None]] = {}

    async def run(
        self, on_listening: Callable[[], None], leave_seconds: float, drain_seconds: float
    ) -> None:
        """Serve until the stop and for `leave_seconds` more, and drain."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        self._stop.wakes(partial(_wake, loop, woken))
        try:
            self._start()
            await asyncio.sleep(0)
            on_listening()
            look_at = time.monotonic() + _LOOKS_FOR_CERTIFICATES
            leave_at: float | None = None
            while leave_at is None or time.monotonic() < leave_at:
                pause = float(self._adj.cleanup_interval)
                if leave_at is not None:
                    await asyncio.sleep(min(pause, leave_at - time.monotonic()))
                else:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(woken.wait(), pause)
                if self._stop.requested and leave_at is None:
                    for server in self._servers:
                        server.serving.is_leaving = True
                    leave_at = time.monotonic() + leave_seconds
                self._serving.connections.sweep()
                self._check_alive()
                if self._certificate is not None and time.monotonic() > look_at:
                    look_at = time.monotonic() + _LOOKS_FOR_CERTIFICATES
                    self._renew(self._certificate)
        finally:
            self._stop.wakes(None)
            await self._drain(drain_seconds)

    def _start(self) -> None:
        tls: dict[str, Any] = {}
        if self._certificate is not None:
            tls = {
                "ssl_cert": self._certificate.chain,
                "ssl_key": self._certificate.key,
                "ssl_protocol_min": SSLProtocols.tls12,  # TLS 1.3 is used if the client can
            }
        size = self._adj.max_request_header_size
        for sock in self._sockets:
            server = _Granian(
                sock,
                self._serving,
                http=HTTPModes.auto if tls else HTTPModes.http1,
                backlog=self._adj.backlog,
                backpressure=self._most,
                # Each answer that goes through a pipe needs one while the pipe is empty.
                runtime_blocking_threads=self._most,
                http1_settings=HTTP1Settings(
                    header_read_timeout=int(
                        1000 * min(timeouts.HEAD_SECONDS, self._adj.channel_timeout)
                    ),
                    max_buffer_size=max(8192, size),  # the least that granian takes
                ),
                http2_settings=HTTP2Settings(max_headers_size=size, max_concurrent_streams=100),
                **tls,
            )
            self._servers[server] = asyncio.create_task(server.serve(server.spawn))

    def _check_alive(self) -> None:
        if any(task.done() for task in self._servers.values()):
            raise ConfigurationError(
                "granian has ended; if it has printed an error above, that says why"
            )

    def _renew(self, certificate: Certificate) -> None:
        """Use a certificate that was replaced.

        The two files are replaced one after the other, and granian, which reads them once more,
        aborts the process if it cannot use them. So nothing may have changed between two looks.
        """
        before, self._seen = self._seen, certificate.state()
        if self._seen == self._used or self._seen != before:
            return
        try:
            certificate.check()
            certificate.warn()
        except ConfigurationError as error:
            logger.warning("the new certificate is not used: %s", error)
            return
        self._used = self._seen
        old = self._servers
        self._servers = {}
        self._start()
        for server, task in old.items():
            server.leave()
            self._old[server] = asyncio.create_task(_ended(server, task))
        logger.info("the certificate %s was replaced, and is used from now on", certificate.chain)

    async def _drain(self, seconds: float) -> None:
        """Let open requests finish, and cut those that do not."""
        serving = self._serving
        await self._take_in()
        for server in self._servers:
            server.leave()
        for sock in self._sockets:
            sock.close()
        ending = {asyncio.create_task(_ended(*each)) for each in self._servers.items()}
        ending |= set(self._old.values())
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            _, ending = await asyncio.wait(ending, timeout=0.05) if ending else (set(), set())
            if not ending and not serving.pools.busy:
                return
            serving.connections.sweep(is_ending=True)
        cut = serving.connections.cut()
        logger.warning("%d connections were cut after %g seconds", cut, seconds)
        for server in (*self._servers, *self._old):
            for task in tuple(server.serving.running):
                task.cancel()
        if ending:
            await asyncio.wait(ending, timeout=_RELEASE_SECONDS)
        quiet = time.monotonic() + 1
        while serving.pools.busy and time.monotonic() < quiet:
            await asyncio.sleep(0.01)  # workers remove partial files

    async def _take_in(self) -> None:
        """Let granian begin what was sent before the stop.

        It would close connections that it has not accepted, or whose first request it has not read.
        """
        end = time.monotonic() + _TAKE_IN_SECONDS
        while any(map(unaccepted, self._sockets)) and time.monotonic() < end:
            await asyncio.sleep(0.002)
        await asyncio.sleep(_READ_SECONDS)


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Event) -> None:
    loop.call_soon_threadsafe(woken.set)


async def _ended(server: _Granian, task: asyncio.Task[None]) -> None:
    await server.end()
    await task
    await server.released()
