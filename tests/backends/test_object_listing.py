"""A long listing is divided without losing anything, whatever the store's order of folders is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from private_pypi.backend import object_listing
from private_pypi.backend.object_listing import divide, list_folders, list_part
from private_pypi.backend.object_store import NO_OBJECT, ObjectStore, StoredObject
from private_pypi.errors import BackendUnavailable
from private_pypi.model import Download, Stream

Order = Callable[[str], Any]


def as_bytes(key: str) -> bytes:
    """As Amazon S3 and Azure Blob Storage list keys."""
    return key.encode()


def as_tree(key: str) -> list[bytes]:
    """As SeaweedFS does, and Azure with a hierarchical namespace: what is in "a" before "a-b"."""
    return [part.encode() for part in key.split("/")]


class OrderedStore(ObjectStore):
    """Keys in an order, of which a listing fails after every `pages` ones."""

    lists_from_anywhere = True

    def __init__(self, keys: Iterable[str], order: Order, page: int = 10**9) -> None:
        self._order = order
        self._keys = sorted(keys, key=order)
        self._page = page

    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        given = 0
        for key in self._keys:
            if key.startswith(prefix) and (not after or self._order(key) > self._order(after)):
                if given == self._page:
                    raise BackendUnavailable("busy", retry_after=0)
                given += 1
                yield StoredObject(key=key, size=1, revision="1", modified_at=datetime.now(UTC))

    def get(self, key: str, unless: str = NO_OBJECT) -> tuple[Stream, str]:
        raise NotImplementedError

    def get_part(self, key: str, start: int, length: int) -> bytes:
        raise NotImplementedError

    def put(self, key: str, content: Path | bytes, *, replaces: str) -> str:
        raise NotImplementedError

    def delete(self, *keys: str) -> None:
        raise NotImplementedError

    def link(self, key: str, filename: str) -> Download | None:
        raise NotImplementedError


folder_names = st.text("-.0a~ä", min_size=1, max_size=5).filter(lambda name: name[0] not in "-.")


@pytest.mark.parametrize("order", [as_bytes, as_tree])
@given(data=st.data())
def test_every_folder_is_in_one_part(order: Order, data: st.DataObject) -> None:
    """Also those that are made when the parts are known, and when the listing fails on the way."""
    names = data.draw(st.sets(folder_names, min_size=1, max_size=12))
    later = data.draw(st.sets(folder_names, max_size=4)) | names
    page = data.draw(st.integers(1, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_listing, "_SHORT", 1)
        patch.setattr(object_listing, "_PARTS", data.draw(st.integers(1, 6)))
        patch.setattr(object_listing, "_WAIT", 0)
        parts = divide(OrderedStore(keys_of(names), order))
        store = OrderedStore(keys_of(later), order, page)
        folders = [folder for part in parts for folder in list_part(store, part)]
    assert Counter(name for name, _ in folders) == Counter(later)
    assert {each.key for _, objects in folders for each in objects} == set(keys_of(later))


def keys_of(names: Iterable[str]) -> list[str]:
    return [f"{name}/{name}-{number}.zip" for name in names for number in range(3)]


@pytest.mark.parametrize("order", [as_bytes, as_tree])
def test_a_folder_beside_the_boundary_of_a_part_is_not_lost(
    order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one: which of two names is a boundary, the shorter one or the longer one."""
    names = ["a", "a-b", "a-b-c", "a-b.d", "a.b", "ab", "b"]
    monkeypatch.setattr(object_listing, "_SHORT", 1)
    for count in range(1, len(names) + 1):
        monkeypatch.setattr(object_listing, "_PARTS", count)
        found = list(list_folders(OrderedStore(keys_of(names), order)))
        assert sorted(name for name, _ in found) == sorted(names), count
