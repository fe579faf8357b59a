"""A file of a storage as a seekable file, of which only the needed parts are fetched; no archive.

Readers of zip files jump to the end, readers of tar files go from the beginning: blocks are counted
from the end, and whoever reads on gets more at a time.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable

from private_pypi.errors import BackendUnavailable

_BLOCK = 64 * 1024  # bytes; the end of most wheels has all that is wanted
_MOST_AHEAD = 16  # blocks fetched at once
_MOST_KEPT = 128  # blocks

ReadPart = Callable[[int, int], bytes]
"""`read_part(start, length)`: as `SupportsParts.read_part` of one file."""


class RemoteFile(io.RawIOBase):
    """For one thread. What `read_part` raises goes through; a short answer is trouble, no end."""

    def __init__(self, size: int, read_part: ReadPart) -> None:
        """`size` in bytes; fetches nothing yet."""
        super().__init__()
        self._size = size
        self._read_part = read_part
        self._first = size % _BLOCK  # bytes of block 0; all others are whole
        self._at = 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._next = -1  # the block after those fetched last
        self._ahead = 1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"a place before the beginning: {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer whole, but for the end of the file."""
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._at))
        done = 0
        while done < wanted:
            number = self._block_at(self._at)
            start = self._start_of(number)
            content = self._block(number, until=self._at + wanted - done)
            piece = content[self._at - start : self._at - start + wanted - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
            self._at += len(piece)
        return done

    def _block_at(self, place: int) -> int:
        return 0 if place < self._first else 1 + (place - self._first) // _BLOCK

    def _start_of(self, number: int) -> int:
        return 0 if number == 0 else self._first + (number - 1) * _BLOCK

    def _block(self, number: int, *, until: int) -> bytes:
        if number not in self._kept:
            self._fetch(number, until)
        self._kept.move_to_end(number)
        return self._kept[number]

    def _fetch(self, number: int, until: int) -> None:
        # Who goes on where the last part ended is likely to go on further.
        self._ahead = min(2 * self._ahead, _MOST_AHEAD) if number == self._next else 1
        last = self._block_at(self._size - 1)
        wanted = min(max(self._block_at(until - 1), number + self._ahead - 1), last)
        wanted = min(wanted, number + _MOST_AHEAD - 1)
        start, end = self._start_of(number), self._start_of(wanted + 1)
        part = self._read_part(start, end - start)
        if len(part) != end - start:
            raise BackendUnavailable(
                f"the storage sent {len(part)} of {end - start} bytes of a part of a file"
            )
        for each in range(number, wanted + 1):
            begin = self._start_of(each) - start
            self._kept[each] = part[begin : self._start_of(each + 1) - start]
        self._next = wanted + 1
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
