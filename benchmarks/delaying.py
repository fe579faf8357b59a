"""A TCP proxy that delays: `python -m benchmarks.delaying PORT TARGET_PORT MILLISECONDS`.

Bytes arrive half the delay later on either way, so that an answer comes the whole delay later. What
a client sends into a new connection arrives the whole delay later still, as it would have to wait
for the connection first. How fast bytes flow is limited by this process only.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from benchmarks.load import HOST

_CHUNK = 2**18  # bytes
_UNDERWAY = 256  # chunks in one direction of a connection; then nothing more is read


async def serve(port: int, target: int, delay: float) -> None:
    """Accept connections for ever; `delay` in seconds."""
    loop = asyncio.get_running_loop()
    with socket.create_server((HOST, port), backlog=512) as listening:
        listening.setblocking(False)
        tasks = set()
        while True:
            client, _ = await loop.sock_accept(listening)
            task = asyncio.create_task(_connect(client, target, delay))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def _connect(client: socket.socket, target: int, delay: float) -> None:
    loop = asyncio.get_running_loop()
    opened = loop.time() + delay
    with client, socket.socket() as server:
        for side in (client, server):
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await loop.sock_connect(server, (HOST, target))
            await asyncio.gather(
                _carry(client, server, delay / 2, opened), _carry(server, client, delay / 2, opened)
            )
        except OSError:
            return  # one side has left


async def _carry(
    source: socket.socket, target: socket.socket, delay: float, not_before: float
) -> None:
    loop = asyncio.get_running_loop()
    underway: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDERWAY)

    async def read() -> None:
        chunk = b"?"
        while chunk:
            chunk = await loop.sock_recv(source, _CHUNK)
            await underway.put((max(loop.time(), not_before) + delay, chunk))

    async def write() -> None:
        while True:
            due, chunk = await underway.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if not chunk:
                target.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(target, chunk)

    reading = asyncio.create_task(read())
    try:
        await write()
    finally:
        reading.cancel()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1e3))
