"""Ports for servers that are told beforehand where to listen."""

from __future__ import annotations

import random
import socket

_HOST = "127.0.0.1"


def free_port() -> int:
    """A port of loopback that nobody has yet.

    It is none of those that the system gives to connections, as to whoever asks for any port:
    until the server listens, somebody else would get it.
    """
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return port
    raise OSError("no port from 20000 to 29999 is free")
