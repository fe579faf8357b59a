"""Dictionaries of limited size: the entries that were not used for the longest time are dropped."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeVar

Key = TypeVar("Key")


def mark_used(entries: OrderedDict[Key, Any], key: Key, *, most: int) -> None:
    """Mark an entry as used last, and drop the entries used first until there are at most `most`.

    The caller holds the lock of the dictionary.
    """
    entries.move_to_end(key)
    while len(entries) > most:
        entries.popitem(last=False)
