"""The least that an engine can do: the same answer to every request, without an application.

Run as `python -m benchmarks.bare ENGINE PORT FILE`; the body of the answers is that file.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.load import HOST

_HEADERS = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("ETag", '"53e0e09eea8c1841450997f513a758c7-gzip"'),
    ("Cache-Control", "max-age=0, must-revalidate"),
    ("Vary", "Accept, Accept-Encoding, Authorization"),
    ("Content-Encoding", "gzip"),
]


def run_waitress(port: int, body: bytes) -> None:
    """waitress as it comes, with as many threads as we use for pages."""
    import waitress

    headers = [*_HEADERS, ("Content-Length", str(len(body)))]

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", headers)
        return [body]

    waitress.serve(application, host=HOST, port=port, threads=8, _quiet=True)


def run_granian(port: int, body: bytes) -> None:
    """granian in one process, with the interface that our engine uses."""
    from granian.constants import HTTPModes, Interfaces
    from granian.server.embed import Server

    async def application(scope: Any, protocol: Any) -> None:
        protocol.response_bytes(200, _HEADERS, body)

    async def serve() -> None:
        await Server(
            application,
            address=HOST,
            port=port,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            websockets=False,
            log_enabled=False,
        ).serve()

    asyncio.run(serve())


if __name__ == "__main__":
    run = {"waitress": run_waitress, "granian": run_granian}[sys.argv[1]]
    run(int(sys.argv[2]), Path(sys.argv[3]).read_bytes())
