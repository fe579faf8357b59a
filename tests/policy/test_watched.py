"""A watched file is read again when it has changed, and looked at once a second at most."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from private_pypi.policy.watched import LARGEST, State, WatchedFile
from tests.permissions import under_permissions
from tests.policy.sightings import Clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rules"


def watched(path: Path, clock: Clock, **more: str) -> tuple[WatchedFile[str], list[State[str]]]:
    reported: list[State[str]] = []

    def parse(text: str) -> str:
        if "wrong" in text:
            raise ValueError("it has something wrong")
        return text

    return WatchedFile(path, parse, report=reported.append, clock=clock, **more), reported


def write(path: Path, text: str, *, modified: int = 1_000_000_000) -> None:
    """Write the file as it was a long time ago, so that its times can be relied on."""
    path.write_text(text)
    os.utime(path, (modified, modified))


def test_changes_are_seen_after_a_second(path: Path) -> None:
    clock = Clock()
    write(path, "one")
    file, reported = watched(path, clock)
    first = file.state()
    assert (first.value, first.problem) == ("one", None)
    write(path, "two", modified=1_000_000_001)
    clock.now = 0.9
    assert file.state() is first
    clock.now = 1.1
    second = file.state()
    assert (second.value, second.generation != first.generation) == ("two", True)
    clock.now = 3
    assert file.state() is second
    assert reported == [first, second]


def test_the_same_text_is_no_change(path: Path) -> None:
    clock = Clock()
    write(path, "one")
    file, reported = watched(path, clock)
    first = file.state()
    write(path, "one", modified=1_000_000_001)
    clock.now = 2
    assert file.state() is first
    assert len(reported) == 1


def test_a_change_within_the_grain_of_the_clock_is_seen(path: Path) -> None:
    """File systems may give two changes of one length the same time."""
    clock = Clock()
    path.write_text("one")
    times = path.stat()
    file, _ = watched(path, clock)
    assert file.state().value == "one"
    path.write_text("two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    clock.now = 2
    assert file.state().value == "two"


def test_what_is_wrong_is_told_until_it_is_repaired(path: Path) -> None:
    clock = Clock()
    file, reported = watched(path, clock)
    problems = []
    for make in (
        lambda: None,
        lambda: write(path, "wrong"),
        lambda: path.write_bytes(b"\xff"),
        lambda: path.write_bytes(b"x" * (LARGEST + 1)),
        lambda: (path.unlink(), os.mkfifo(path)),
        lambda: (path.unlink(), path.mkdir()),
        lambda: (path.rmdir(), write(path, "right")),
    ):
        make()
        clock.now += 2
        problems.append((file.state().value, file.state().problem))
    assert problems == [
        (None, "it does not exist"),
        (None, "it has something wrong"),
        (None, "it is not UTF-8"),
        (None, "it is larger than 4 MiB"),
        (None, "it is not a regular file"),
        (None, "it is not a regular file"),
        ("right", None),
    ]
    assert len(reported) == 6  # the same problem is reported once


def test_a_file_that_may_not_be_read_is_a_problem_also_where_it_may_be_missing(
    path: Path,
) -> None:
    clock = Clock()
    file, _ = watched(path, clock, missing="nothing")
    assert file.state().value == "nothing"
    write(path, "one")
    path.chmod(0)
    clock.now = 2
    with under_permissions():
        assert file.state() == State(
            file.state().generation, None, "it cannot be read: Permission denied"
        )
    path.chmod(0o600)
    clock.now = 4
    assert file.state().value == "one"


def test_a_byte_order_mark_and_line_ends_of_windows_are_read(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfone\r\n")
    file, _ = watched(path, Clock())
    assert file.state().value == "one\r\n"


def test_threads_that_ask_together_have_it_read_once(path: Path) -> None:
    write(path, "one")
    calls = []
    together = threading.Barrier(4)

    def parse(text: str) -> str:
        calls.append(text)
        return text

    file = WatchedFile(path, parse, clock=Clock())

    def ask() -> None:
        together.wait(10)
        file.state()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    assert calls == ["one"]
