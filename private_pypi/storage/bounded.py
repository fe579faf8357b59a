"""Dictionaries of limited size: the entries that were not used for the longest time are dropped."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def mark_used(entries: OrderedDict[Key, Any], key: Key, *, most: int) -> None:
    """Mark an entry as used last, and drop the entries used first until there are at most `most`.

    The caller holds the lock of the dictionary.
    """
    entries.move_to_end(key)
    while len(entries) > most:
        entries.popitem(last=False)


class BoundedBytes(Generic[Value]):
    """Values that take at most `max_bytes` of memory together; safe for many threads.

    One value is kept even if it is larger than that.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()  # guards everything here
        self.size = 0
        """Bytes of all values together."""
        self.hits = 0
        """How often a value was found."""
        self.added = 0
        """How often a value was kept that was not there."""

    def find(self, key: Hashable) -> Value | None:
        """The value with this key; None if it is not there (any more)."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            self.hits += 1
            return found[0]

    def keep(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value, which takes `size` bytes, in place of one with the same key."""
        with self._lock:
            self.added += key not in self._values
            _, before = self._values.pop(key, (None, 0))
            self._values[key] = value, size
            self.size += size - before
            while self.size > self._max_bytes and len(self._values) > 1:
                _, (_, dropped) = self._values.popitem(last=False)
                self.size -= dropped
