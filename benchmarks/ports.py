"""Ports for servers that are told beforehand where to listen."""

from __future__ import annotations

import random
import socket

_HOST = "127.0.0.1"

# Names of sockets that stand for ports which were given away. Linux forgets such a name, which
# begins with a null byte and is no file, with the process that has bound it.
_given: list[socket.socket] = []


def free_port() -> int:
    """A port of loopback that nobody has yet.

    It is none of those that the system gives to connections, as to whoever asks for any port:
    until the server listens, somebody else would get it. Nor is it given twice, to this process or
    to another one that asks here, for as long as this process lives.
    """
    for port in random.sample(range(20_000, 30_000), 100):
        if not _take(port):
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return port
    raise OSError("no port from 20000 to 29999 is free")


def _take(port: int) -> bool:
    """Whether nobody who asked here was given this port before."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0private_pypi-port-{port}")
    except OSError:
        name.close()
        return False
    _given.append(name)
    return True
