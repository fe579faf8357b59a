"""Passes connections on to a server, until it is cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Relay:
    """Where clients connect to."""

    url: str
    _listener: socket.socket
    _open: list[socket.socket]

    def cut(self) -> None:
        """From now on, nobody is connected, and nobody can connect."""
        for each in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextlib.contextmanager
def relay(to: str, change: Callable[[bytes], bytes] = bytes) -> Iterator[Relay]:
    """A relay to the server with this address. `change` is applied to what clients send."""
    parts = urlsplit(to)
    assert parts.hostname is not None and parts.port is not None
    address = (parts.hostname, parts.port)
    listener = socket.create_server(("127.0.0.1", 0))
    running = Relay(f"http://127.0.0.1:{listener.getsockname()[1]}{parts.path}", listener, [])

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(address)
                running._open.extend((client, server))
                for source, sink, how in ((client, server, change), (server, client, bytes)):
                    arguments = (source, sink, how)
                    threading.Thread(target=_pass_on, args=arguments, daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        running.cut()
        thread.join()


def _pass_on(source: socket.socket, sink: socket.socket, change: Callable[[bytes], bytes]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(change(data))
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
