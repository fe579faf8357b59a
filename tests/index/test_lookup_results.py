"""What a lookup has found, and what happens to it in the local index."""

from __future__ import annotations

from pathlib import Path

import pytest

from private_pypi.index.local import LocalIndex, SyncState
from private_pypi.index.lookup_results import Lookup, take_lookup
from tests.files import NOON
from tests.index.test_local import DEMO, file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@pytest.fixture
def index(path: Path) -> LocalIndex:
    return LocalIndex(path, identity="mine", always_ready=True)


def lookup(
    index: LocalIndex,
    *filenames: str,
    begun: int | None = None,
    looked_up_at: float = 5.0,
    uploads_since: float = 4e9,
    broken: dict[str, tuple[str, str]] | None = None,
    **changes: object,
) -> Lookup:
    return Lookup(
        project=DEMO,
        files={name: (file(name, **changes), "stamp") for name in filenames},
        broken=broken or {},
        begun=index.serial() if begun is None else begun,
        looked_up_at=looked_up_at,
        uploads_since=uploads_since,
    )


def test_an_index_without_a_first_listing_is_ready(index: LocalIndex) -> None:
    assert index.ready()
    assert index.looked_up_at(DEMO) is None


def test_a_project_becomes_what_was_seen_of_it(index: LocalIndex) -> None:
    other = file("other-1.0.tar.gz")
    index.add_file(other, "1")
    take_lookup(index, lookup(index, "demo-1.0.tar.gz", "demo-2.0.tar.gz"))
    assert index.project_files(DEMO) == (file("demo-1.0.tar.gz"), file("demo-2.0.tar.gz"))
    take_lookup(index, lookup(index, "demo-2.0.tar.gz", "demo-3.0.tar.gz", requires_python=None))
    assert index.stamped_files(DEMO) == {
        name: (file(name, requires_python=None), "stamp")
        for name in ("demo-2.0.tar.gz", "demo-3.0.tar.gz")
    }
    assert index.project_files("other") == (other,)
    assert index.sync_state() == SyncState(5.0, None, None, None, ready=True)


def test_a_lookup_that_sees_the_same_takes_no_serial(index: LocalIndex) -> None:
    problem = {"demo-3.0.tar.gz": ("stamp", "broken")}
    take_lookup(index, lookup(index, "demo-1.0.tar.gz", broken=problem))
    serial = index.serial()
    take_lookup(index, lookup(index, "demo-1.0.tar.gz", broken=problem, looked_up_at=6.0))
    assert (index.serial(), index.looked_up_at(DEMO)) == (serial, 6.0)
    take_lookup(index, lookup(index, "demo-1.0.tar.gz", looked_up_at=7.0))
    assert index.serial() > serial
    assert index.broken() == {}


def test_what_is_younger_than_a_lookup_stays(index: LocalIndex) -> None:
    take_lookup(index, lookup(index, "demo-1.0.tar.gz", "demo-2.0.tar.gz", "demo-3.0.tar.gz"))
    begun = index.serial()
    index.add_file(file("demo-4.0.tar.gz"), "1")
    index.set_yanked(["demo-1.0.tar.gz"], "bad")
    index.remove_files(["demo-2.0.tar.gz"], burn=False, at=NOON)
    index.remove_files(["demo-3.0.tar.gz"], burn=True, at=NOON)
    names = ("demo-1.0.tar.gz", "demo-2.0.tar.gz", "demo-3.0.tar.gz")
    take_lookup(index, lookup(index, *names, begun=begun))
    found = {each.filename: each.yanked for each in index.project_files(DEMO)}
    assert found == {"demo-1.0.tar.gz": "bad", "demo-4.0.tar.gz": None}
    # The next one began later: only what is burnt stays away.
    take_lookup(index, lookup(index, *names))
    found = {each.filename: each.yanked for each in index.project_files(DEMO)}
    assert found == {"demo-1.0.tar.gz": None, "demo-2.0.tar.gz": None}


def test_a_lookup_that_another_process_overtook_changes_nothing(
    index: LocalIndex, path: Path
) -> None:
    """It saw what is deleted since, and would bring it back."""
    other = LocalIndex(path, identity="mine", always_ready=True)
    take_lookup(index, lookup(index, "demo-1.0.tar.gz", "demo-2.0.tar.gz"))
    slow = lookup(index, "demo-1.0.tar.gz", "demo-2.0.tar.gz", looked_up_at=6.0)
    take_lookup(other, lookup(other, "demo-1.0.tar.gz", looked_up_at=7.0))
    take_lookup(index, slow)
    assert index.project_files(DEMO) == (file("demo-1.0.tar.gz"),)
    assert index.looked_up_at(DEMO) == 7.0
    other.close()


def test_a_lookup_of_the_future_is_none(index: LocalIndex) -> None:
    """A clock that was set back must not keep everything as it is."""
    take_lookup(index, lookup(index, "demo-1.0.tar.gz", looked_up_at=4e9))
    take_lookup(index, lookup(index, "demo-2.0.tar.gz", looked_up_at=6.0))
    assert index.project_files(DEMO) == (file("demo-2.0.tar.gz"),)
    assert index.looked_up_at(DEMO) == 6.0


def test_an_upload_stays_until_the_storage_lists_it_or_had_time_enough(index: LocalIndex) -> None:
    index.add_file(file("demo-1.0.tar.gz"), "1")
    take_lookup(index, lookup(index, uploads_since=0.0))
    assert index.has_files(DEMO)
    take_lookup(index, lookup(index))
    assert not index.has_files(DEMO)
    index.add_file(file("demo-1.0.tar.gz"), "1")
    take_lookup(index, lookup(index, "demo-1.0.tar.gz", uploads_since=0.0))
    take_lookup(index, lookup(index, uploads_since=0.0))
    assert not index.has_files(DEMO)
