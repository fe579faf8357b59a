"""Files of a remote storage: sent while they arrive, fetched once, and cut off if damaged."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from private_pypi.errors import BackendUnavailable, FileNotFound
from private_pypi.testing.distributions import make_wheel
from private_pypi.testing.memory import LookupMemoryBackend
from private_pypi.web.serving import Exchange, Load, growing
from tests.waiting import eventually
from tests.web.conftest import basic
from tests.web.valves import PIECE, READER, Place, place

BIG, BIG_CONTENT = make_wheel("big", "1.0", files={"big.bin": os.urandom(20 * PIECE)})
SMALL, SMALL_CONTENT = make_wheel("small", "1.0")
BIG_PATH = f"/simple/big/{BIG}"
SMALL_PATH = f"/simple/small/{SMALL}"
ETAG = f'"{hashlib.sha256(BIG_CONTENT).hexdigest()}"'


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path, (BIG, BIG_CONTENT), (SMALL, SMALL_CONTENT)) as made:
        yield made


def waiting_for_files(at: Place) -> int:
    """How many requests wait for a file to arrive."""
    return sum(len(each._waiting) for each in [*at.repository.opener.files._arriving.values()])


def test_a_file_is_sent_while_it_arrives_and_fetched_once_for_all_who_wait(at: Place) -> None:
    """There are more of them than threads, and other requests are still answered."""
    at.valve.let(1)
    assert at.get(SMALL_PATH) == (200, SMALL_CONTENT)
    with ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(at.request, BIG_PATH) for _ in range(12)]
        eventually(lambda: waiting_for_files(at) == 12, "all of them wait")
        assert not any(each.done() for each in waiting)
        assert at.get(SMALL_PATH) == (200, SMALL_CONTENT)
        assert at.request("/simple/big/").status == 200
        at.valve.let(2)
        answers = [each.result() for each in waiting]
    assert {each.status for each in answers} == {200}
    assert {each.getheader("Content-Length") for each in answers} == {str(len(BIG_CONTENT))}
    for answer in answers:
        assert answer.read(2 * PIECE) == BIG_CONTENT[: 2 * PIECE]
    late = at.request(BIG_PATH)
    at.valve.open()
    for answer in answers:
        assert answer.read() == BIG_CONTENT[2 * PIECE :]
    assert late.read() == BIG_CONTENT
    eventually(lambda: len(at.kept()) == 2, "it is kept")
    assert at.get(BIG_PATH) == (200, BIG_CONTENT)
    assert at.storage.calls["open_file"] == 2
    assert list((at.repository.folders.tmp).iterdir()) == []


@pytest.mark.parametrize("is_cut", [True, False])
def test_what_is_cut_or_damaged_is_never_handed_on_whole(
    at: Place, is_cut: bool, caplog: pytest.LogCaptureFixture
) -> None:
    at.valve.cut_after = 20 if is_cut else None
    at.valve.spoiled = not is_cut
    at.valve.let(3)
    answers = [at.request(BIG_PATH) for _ in range(3)]
    at.valve.open()
    for answer in answers:
        with pytest.raises((http.client.IncompleteRead, ConnectionError)) as raised:
            answer.read()
        if isinstance(raised.value, http.client.IncompleteRead):
            assert len(raised.value.partial) <= len(BIG_CONTENT) - 1
    spoiled = BIG_CONTENT[:-1] + bytes([BIG_CONTENT[-1] ^ 1])
    why = (
        f"the storage sent {20 * PIECE} bytes of {len(BIG_CONTENT)}, then nothing more"
        if is_cut
        else f"the storage sent {len(BIG_CONTENT)} bytes with sha256 "
        f"{hashlib.sha256(spoiled).hexdigest()}, the index says {ETAG[1:-1]}"
    )
    told = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert [each for each in told if "transfer" in each] == [
        f"a transfer to clients breaks off: {why}"
    ]
    assert at.kept() == []
    at.valve.cut_after, at.valve.spoiled = None, False
    assert at.get(BIG_PATH) == (200, BIG_CONTENT)
    # A transfer that breaks off is repeated, for clients that have a part of it.
    assert at.storage.calls["open_file"] == (4 if is_cut else 2)


def test_a_transfer_that_breaks_off_is_mended_for_those_who_read_it(at: Place) -> None:
    at.valve.cut_after = 10
    at.valve.let(3)
    answers = [at.request(BIG_PATH) for _ in range(3)]
    at.valve.let(8)
    eventually(lambda: at.valve.ended == 1, "it breaks off")
    at.valve.cut_after = None
    at.valve.open()
    assert [answer.read() for answer in answers] == [BIG_CONTENT] * 3
    assert at.storage.calls["open_file"] == 2


def test_trouble_before_the_first_byte_is_an_answer_for_all_who_wait(at: Place) -> None:
    errors = [
        (FileNotFound(BIG), 404),
        (BackendUnavailable("the storage is down", retry_after=60), 503),
    ]
    for error, status in errors:
        at.storage.calls.clear()
        held = at.storage.held["open_file"] = threading.Event()
        at.storage.fail_next("open_file", error)
        with ThreadPoolExecutor(6) as pool:
            waiting = [pool.submit(at.get, BIG_PATH) for _ in range(6)]
            eventually(lambda: waiting_for_files(at) == 6, "all of them wait")
            held.set()
            found = {each.result() for each in waiting}
        assert found == {(status, f"{error}\n".encode())}
        assert at.storage.calls["open_file"] == 1
    # A small file is checked before its first byte is sent.
    at.valve.spoiled = True
    at.valve.open()
    assert at.get(SMALL_PATH)[0] == 502
    at.valve.spoiled = False
    assert at.get(SMALL_PATH) == (200, SMALL_CONTENT)


def test_a_storage_that_hangs_is_waited_for_only_so_long(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as impatient:
        impatient.setattr(growing, "_LONGEST_WAIT", 0.5)
        status, body = at.get(BIG_PATH)
    assert (status, body) == (503, b"the storage takes too long to send the file\n")
    at.valve.open()
    assert at.get(BIG_PATH) == (200, BIG_CONTENT)
    assert at.storage.calls["open_file"] == 1


def test_the_index_answers_what_needs_no_content(at: Place) -> None:
    head = at.request(BIG_PATH, "HEAD")
    assert (head.status, head.getheader("Content-Length")) == (200, str(len(BIG_CONTENT)))
    assert head.getheader("ETag") == ETAG
    for known in (ETAG, f"W/{ETAG}", f'"other", W/{ETAG}', "*"):
        assert at.get(BIG_PATH, If_None_Match=known) == (304, b"")
    assert at.storage.calls["open_file"] == 0


def test_parts_of_a_file_wait_for_their_bytes_and_no_longer(at: Place) -> None:
    at.valve.let(3)
    first = at.request(BIG_PATH)  # without an end: it begins at once, and stays open
    part = {"Range": f"bytes={PIECE}-{2 * PIECE - 1}"}
    answer = at.request(BIG_PATH, **part)
    assert answer.getheader("Content-Range") == (
        f"bytes {PIECE}-{2 * PIECE - 1}/{len(BIG_CONTENT)}"
    )
    assert (answer.status, answer.read()) == (206, BIG_CONTENT[PIECE : 2 * PIECE])
    assert at.get(BIG_PATH, **part, If_Range=ETAG) == (206, BIG_CONTENT[PIECE : 2 * PIECE])
    assert at.request(BIG_PATH, **part, If_Range='"other"').status == 200
    # The end is only sent when the whole file was checked.
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(at.get, BIG_PATH, Range="bytes=-5000")
        time.sleep(0.2)
        assert not end.done()
        at.valve.open()
        assert end.result() == (206, BIG_CONTENT[-5000:])
    assert at.get(BIG_PATH, Range=f"bytes={len(BIG_CONTENT)}-")[0] == 416
    assert first.read() == BIG_CONTENT
    assert at.storage.calls["open_file"] == 1


def test_a_client_that_goes_away_ends_nothing(at: Place) -> None:
    at.valve.let(2)
    gone, other = at.begin(BIG_PATH), at.request(BIG_PATH)
    assert gone.recv(1000).startswith(b"HTTP/1.1 200")
    gone.close()
    at.valve.open()
    assert other.read() == BIG_CONTENT
    # A client that comes back gets what has arrived meanwhile.
    eventually(lambda: len(at.kept()) == 1, "it is kept")
    assert at.get(BIG_PATH) == (200, BIG_CONTENT)
    assert at.storage.calls["open_file"] == 1


def test_core_metadata_is_fetched_once_without_holding_threads(at: Place) -> None:
    path = f"{BIG_PATH}.metadata"
    held = at.storage.held["open_core_metadata"] = threading.Event()
    at.valve.open()
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(at.get, path) for _ in range(6)]
        time.sleep(0.2)
        assert at.get(SMALL_PATH) == (200, SMALL_CONTENT)
        held.set()
        ((status, content),) = {each.result() for each in waiting}
    assert (status, content.startswith(b"Metadata-Version: ")) == (200, True)
    assert at.storage.calls["open_core_metadata"] == 1


def test_a_server_that_ends_lets_a_file_arrive(at: Place) -> None:
    at.valve.let(2)
    begun, waiting = at.request(BIG_PATH), at.begin(SMALL_PATH)
    eventually(lambda: at.storage.calls["open_file"] == 2, "both files are asked for")
    at.stop.request()
    at.valve.open()
    assert begun.read() == BIG_CONTENT
    assert waiting.recv(100).startswith(b"HTTP/1.1 200")
    waiting.close()


def test_answers_on_one_connection_come_in_order(at: Place) -> None:
    head = f"Host: x\r\nAuthorization: {READER['Authorization']}\r\n\r\n"
    connection = at.begin(BIG_PATH)
    connection.sendall(f"GET {SMALL_PATH} HTTP/1.1\r\nConnection: close\r\n{head}".encode())
    time.sleep(0.2)
    at.valve.open()
    with connection, connection.makefile("rb") as answers:
        first, _, rest = answers.read().partition(BIG_CONTENT)
    second, _, end = rest.partition(SMALL_CONTENT)
    assert first.startswith(b"HTTP/1.1 200") and first.endswith(b"\r\n\r\n")
    assert second.startswith(b"HTTP/1.1 200") and second.endswith(b"\r\n\r\n")
    assert end == b""


def test_a_damaged_entry_of_the_cache_is_fetched_again(at: Place) -> None:
    at.valve.open()
    assert at.get(BIG_PATH) == (200, BIG_CONTENT)
    eventually(lambda: len(at.kept()) == 1, "it is kept")
    eventually(lambda: not at.repository.opener.files._arriving, "nobody shares its arrival")
    (entry,) = at.repository.folders.cache.glob("files/*/*")
    os.truncate(entry, 0)
    assert at.get(BIG_PATH) == (200, BIG_CONTENT)
    assert at.storage.calls["open_file"] == 2


def test_every_answer_is_noted_once(tmp_path: Path) -> None:
    noted: list[tuple[int, int]] = []

    class Notes:
        def serving(self, load: object) -> None:
            assert isinstance(load(), Load)  # type: ignore[operator]

        def answered(self, exchange: Exchange) -> None:
            noted.append((exchange.status, exchange.sent))

    with place(tmp_path, (BIG, BIG_CONTENT), observer=Notes()) as at:
        at.storage.fail_next("open_file", FileNotFound(BIG))
        missing = at.get(BIG_PATH)
        answer = at.begin(BIG_PATH)
        eventually(lambda: waiting_for_files(at) == 1, "it waits")
        eventually(lambda: noted, "the first one is noted")
        assert noted == [(404, len(missing[1]))]
        at.valve.open()
        content = b""
        while not content.endswith(BIG_CONTENT):
            content += answer.recv(1 << 20)
        answer.close()
    assert noted == [(404, len(missing[1])), (200, len(BIG_CONTENT))]


# -- a disk that takes nothing ---------------------------------------------------------------------


HUGE, HUGE_CONTENT = make_wheel("huge", "1.0", files={"huge.bin": os.urandom(150 * PIECE)})
HUGE_PATH = f"/simple/huge/{HUGE}"


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file gets larger than a MiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def without_tmp(root: Path) -> None:
    shutil.rmtree(root / "tmp")


def with_a_file_for_a_folder(root: Path) -> None:
    (root / "cache" / "mine" / "files").write_text("")


@pytest.mark.parametrize(
    "spoil", [lambda root: None, without_tmp, with_a_file_for_a_folder], ids=["full", "gone", "bad"]
)
def test_what_the_disk_does_not_take_is_handed_on_without_being_kept(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: object,
) -> None:
    """Through a window in memory that is smaller than the file, to all clients that wait."""
    with place(tmp_path, (HUGE, HUGE_CONTENT), cache=spoil) as at:  # type: ignore[arg-type]
        if spoil not in (without_tmp, with_a_file_for_a_folder):
            request.getfixturevalue("small_files")
        at.valve.let(2)
        answers = [at.request(HUGE_PATH) for _ in range(3)]
        at.valve.open()
        with ThreadPoolExecutor(3) as pool:
            assert set(pool.map(lambda answer: answer.read(), answers)) == {HUGE_CONTENT}
        assert at.storage.calls["open_file"] == 1
        eventually(lambda: at.repository.opener.files.not_kept == 1, "it was noted")
        assert at.get(HUGE_PATH) == (200, HUGE_CONTENT)
        eventually(lambda: at.repository.opener.files.not_kept == 2, "it was noted again")
        assert at.kept() == []
    told = [each.message for each in caplog.records if "without being kept" in each.message]
    assert len(told) == 1


# -- secrets -------------------------------------------------------------------------------------


def test_what_the_storage_refuses_to_one_secret_is_asked_again_with_another(tmp_path: Path) -> None:
    with place(tmp_path, (BIG, BIG_CONTENT), backend=LookupMemoryBackend) as at:
        at.valve.open()
        assert at.get("/simple/big/")[0] == 200
        held = at.storage.held["open_file"] = threading.Event()
        at.storage.fail_next("open_file", FileNotFound(BIG))
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(at.get, BIG_PATH)
            eventually(lambda: at.storage.calls["open_file"] == 1, "the storage is asked")
            second = pool.submit(at.get, BIG_PATH, **basic("mine", "write"))
            time.sleep(0.3)
            held.set()
            assert first.result()[0] == 404
            assert second.result() == (200, BIG_CONTENT)
