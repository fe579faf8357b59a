"""The body of a request, in the pieces in which it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from private_pypi.web.serving.granian.head import Head


class CutOff(Exception):
    """The client has gone before the end of the body."""


class Expired(Exception):
    """The client takes too long to send the body."""


class Body:
    """The body of one request. granian reads no more from the socket than is asked for here.

    It also sends `100 Continue` when it is first asked for data, if the client waits for that.
    """

    def __init__(self, protocol: Any, head: Head) -> None:
        self._protocol = protocol
        self._pieces: AsyncIterator[bytes] | None = None
        self._length = head.content_length
        self._is_http2 = head.is_http2
        self._reading: asyncio.Future[bytes | None] | None = None
        self._is_expired = False
        self.received = 0
        """Bytes of the content that were read."""
        self.is_read = not head.has_body
        """Whether all of it was read."""

    async def read(self) -> bytes:
        """The next piece; empty at the end.

        Raises `CutOff` or `Expired`. A chunked body with trailers counts as cut off: granian does
        not tell the two apart, and no client of an index sends trailers.
        """
        while not self.is_read:
            piece = await self._next()
            if piece is None:
                self.is_read = True
            elif piece:
                self.received += len(piece)
                return piece
            elif self._length is None and not self._is_http2:
                # At the end granian gives an empty piece. If it is followed by another one, the
                # first one was an error, or the trailers of a chunked body.
                if await self._next() is not None:
                    raise CutOff
                self.is_read = True
        if self._length is not None and self.received < self._length:
            raise CutOff
        return b""

    def expire(self) -> None:
        """Make `read` raise `Expired`."""
        self._is_expired = True
        if self._reading is not None:
            self._reading.cancel()

    async def _next(self) -> bytes | None:
        if self._is_expired:
            raise Expired
        if self._pieces is None:
            self._pieces = aiter(self._protocol)
        try:
            self._reading = asyncio.ensure_future(_piece(self._pieces))
            return await self._reading
        except asyncio.CancelledError:
            if self._is_expired:
                raise Expired from None
            raise
        finally:
            self._reading = None


async def _piece(pieces: AsyncIterator[bytes]) -> bytes | None:
    """The next piece; None at the end, because a future cannot hold `StopAsyncIteration`."""
    try:
        return await anext(pieces)
    except StopAsyncIteration:
        return None
