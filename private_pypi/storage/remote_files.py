"""A stored file as a seekable file object that fetches only the parts that are read.

Readers of zip files seek to the end, and readers of tar files begin at the start. So the file is
divided into blocks counted from its end, and reading on fetches more and more blocks at a time.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable

from private_pypi.errors import BackendUnavailable

_BLOCK = (
    64 * 1024
)  # bytes; one block is enough for the list of files and the metadata of most wheels
_MOST_AHEAD = 16  # blocks that are fetched at once
_MOST_KEPT = 128  # blocks in memory

ReadPart = Callable[[int, int], bytes]
"""`read_part(start, length)`: as `SupportsParts.read_part`, for one file."""


class RemoteFile(io.RawIOBase):
    """The file object; for one thread at a time.

    Reading raises what `read_part` raises, and `BackendUnavailable` if a part is too short.
    """

    def __init__(self, size: int, read_part: ReadPart) -> None:
        """`size` is that of the file in bytes. Nothing is fetched yet."""
        super().__init__()
        self._size = size
        self._read_part = read_part
        self._first = size % _BLOCK  # bytes of block 0; all other blocks are full
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
            raise ValueError(f"cannot seek to {base + offset}, which is before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer completely, unless the file ends before."""
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
        # A reader that goes on where the last part ended is likely to read further.
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
