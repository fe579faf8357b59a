"""A file on its way: its readers, those who wait, and a disk that takes nothing."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from private_pypi.errors import BackendUnavailable
from private_pypi.storage import arriving as module
from private_pypi.storage.arriving import WITHHELD, Arriving
from tests.waiting import eventually

CONTENT = os.urandom(1 << 20)
PIECES = [CONTENT[start : start + 65536] for start in range(0, len(CONTENT), 65536)]


def begun(tmp_path: Path, *, on_disk: bool = True, is_hash_known: bool = True) -> Arriving:
    sha256 = hashlib.sha256(CONTENT).hexdigest() if is_hash_known else None
    arriving = Arriving("a file", sha256=sha256, size=len(CONTENT))
    arriving.begin(len(CONTENT), tmp_path / ("scratch" if on_disk else "nowhere/scratch"))
    return arriving


def test_readers_follow_and_the_end_waits_for_the_hash(tmp_path: Path) -> None:
    arriving = begun(tmp_path)
    part = arriving.part(0, len(CONTENT))
    found = b""
    for piece in PIECES:
        assert part.is_starved
        arriving.feed(piece)
        found += part.read(len(piece))
    assert found == CONTENT[:-WITHHELD]
    assert part.is_starved
    assert not part.is_broken
    arriving.finish()
    assert part.read() == CONTENT[-WITHHELD:]
    assert (part.read(), len(part), part.is_starved) == (b"", 0, False)
    part.close()


def test_who_waits_is_called_once_there_is_something(tmp_path: Path) -> None:
    arriving = begun(tmp_path)
    called: list[str] = []
    for name, offset in (("first", 0), ("second", 70_000), ("last", len(CONTENT) - 1)):
        arriving.call_when(offset, lambda name=name: called.append(name))
    forgotten = lambda: called.append("forgotten")  # noqa: E731
    arriving.call_when(0, forgotten)
    arriving.forget(forgotten)
    assert called == []
    for piece in PIECES[:2]:
        arriving.feed(piece)
    assert called == ["first", "second"]
    arriving.call_when(5, lambda: called.append("at once"))
    arriving.fail(BackendUnavailable("the storage is down"))
    assert called == ["first", "second", "at once", "last"]
    with pytest.raises(BackendUnavailable, match="the storage is down"):
        arriving.outcome()


def test_a_window_is_as_wide_as_its_slowest_reader_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WINDOW", 4 * 65536)
    arriving = begun(tmp_path, on_disk=False)
    fast, slow = arriving.part(0, len(CONTENT)), arriving.part(0, len(CONTENT))
    fed: list[int] = []

    def feed() -> None:
        for number, piece in enumerate(PIECES):
            arriving.feed(piece)
            fed.append(number)
        arriving.finish()

    thread = threading.Thread(target=feed)
    thread.start()
    eventually(lambda: len(fed) == 4, "the window is full")
    read = {fast: b"", slow: b""}
    while len(read[fast]) < 4 * 65536:
        read[fast] += fast.read(65536)
    assert not thread.join(0.2)
    assert len(fed) == 4
    read[slow] += slow.read(2 * 65536)
    eventually(lambda: len(fed) == 6, "there is room for two more")
    assert not arriving.can_be_joined
    with pytest.raises(BackendUnavailable, match="passed by"):
        arriving.part(0, 10)
    while len(fast) or len(slow):
        for part in (slow, fast):
            if len(part) and not part.is_starved:
                read[part] += part.read(65536)
    thread.join(30)
    assert read == {fast: CONTENT, slow: CONTENT}


def test_a_reader_that_stands_still_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WINDOW", 4 * 65536)
    monkeypatch.setattr(module, "_SLOW_READER", 0.5)
    arriving = begun(tmp_path, on_disk=False)
    moving, still = arriving.part(0, len(CONTENT)), arriving.part(0, len(CONTENT))
    found: list[bytes] = []
    thread = threading.Thread(
        target=lambda: found.extend(iter(lambda: moving.read(65536), b"")), daemon=True
    )
    thread.start()
    for piece in PIECES[:4]:
        arriving.feed(piece)
    eventually(lambda: moving.position == 4 * 65536, "one of them has read all")
    arriving.feed(PIECES[4])
    assert still.is_broken
    monkeypatch.setattr(module, "_SLOW_READER", 60.0)
    for piece in PIECES[5:]:
        arriving.feed(piece)
    arriving.finish()
    thread.join(30)
    assert b"".join(found) == CONTENT


def test_what_nobody_waits_for_is_given_up_unless_it_is_nearly_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LINGER", -1.0)
    arriving = begun(tmp_path)
    part = arriving.part(0, len(CONTENT))
    arriving.feed(PIECES[0])
    part.close()
    with pytest.raises(BackendUnavailable, match="nobody waits"):
        arriving.feed(PIECES[1])
    (tmp_path / "scratch").unlink()
    arriving = begun(tmp_path)
    part = arriving.part(0, len(CONTENT))
    for piece in PIECES[:-1]:
        arriving.feed(piece)
    part.close()
    arriving.feed(PIECES[-1])
    arriving.finish()
    assert arriving.is_whole


def test_what_a_thread_waits_for_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LINGER", -1.0)
    arriving = begun(tmp_path, is_hash_known=False)  # nothing of it may be read before its end
    thread = threading.Thread(target=arriving.wait_for_all, daemon=True)
    thread.start()
    eventually(lambda: not arriving.is_forsaken, "the thread waits")
    for piece in PIECES:
        arriving.feed(piece)
    arriving.finish()
    thread.join(60)
    assert not thread.is_alive()
    assert arriving.is_forsaken


def test_a_storage_that_drips_for_ever_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LEAST_SECONDS", -1000.0)
    with pytest.raises(BackendUnavailable, match="too slowly"):
        begun(tmp_path).feed(PIECES[0])


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_a_transfer_pauses_until_its_first_byte_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_waited_for: bool
) -> None:
    monkeypatch.setattr(module, "_HEAD_START", 20.0)
    arriving = begun(tmp_path)
    is_there, is_fed = threading.Event(), threading.Event()
    if is_waited_for:
        arriving.call_when(0, is_there.set)

    def feed() -> None:
        for piece in PIECES:
            arriving.feed(piece)
        is_fed.set()

    thread = threading.Thread(target=feed)
    thread.start()
    if is_waited_for:
        assert is_there.wait(30)
        assert not is_fed.wait(0.1)
        part = arriving.part(0, len(CONTENT))
        assert part.read(10) == CONTENT[:10]
        part.close()
    assert is_fed.wait(30)
    thread.join()
