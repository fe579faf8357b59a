"""A file that is not known here is looked for in the storage before it is called absent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from private_pypi.errors import BackendUnavailable
from private_pypi.index.looking import LOOK_EVERY, Look, Looks
from private_pypi.testing.distributions import make_wheel
from private_pypi.testing.memory import MemoryBackend
from private_pypi.web.serving import WAITING, Later, Waiting
from tests.faults.servers import read_answer
from tests.waiting import eventually
from tests.web.conftest import basic
from tests.web.valves import READER, Place, place

KNOWN, NEW = make_wheel(version="1.0"), make_wheel(version="2.0")
PAGE = "/r/mine/simple/demo/"
MANY = 40  # requests at the same time, for which the server has two threads


class JournalBackend(MemoryBackend):
    traits = replace(MemoryBackend.traits, has_journal=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Place]:
    """It synchronises once an hour."""
    with place(tmp_path, KNOWN, backend=JournalBackend) as server:
        server.valve.open()
        yield server


def unknown(number: int = 0) -> str:
    return f"{PAGE}demo-9.{number}-py3-none-any.whl"


def looks(server: Place) -> int:
    return server.storage.calls["recent_files"]


def test_what_another_server_has_published_is_there_at_once(server: Place) -> None:
    server.storage.drop(*NEW)
    assert server.get(f"{PAGE}{NEW[0]}") == (200, NEW[1])
    assert server.get(f"{PAGE}{NEW[0]}.metadata")[0] == 200
    assert looks(server) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path",
    [
        f"{PAGE}{NEW[0]}.metadata",
        f"/packages/mine/demo/{NEW[0]}",
        f"/simple/demo/{NEW[0]}",
    ],
)
def test_each_address_of_a_file_is_looked_for(server: Place, path: str, method: str) -> None:
    server.storage.drop(*NEW)
    assert server.get(path, method)[0] == 200


def test_the_index_of_an_instant_is_looked_at_as_well(server: Place) -> None:
    server.storage.drop(*NEW)
    status, text = server.get(f"/r/mine/at/2020-01-01/simple/demo/{NEW[0]}")
    assert (status, b"this is the index of 2020-01-01" in text) == (404, True)


def test_a_file_of_a_new_project_is_looked_for(server: Place) -> None:
    name, content = make_wheel("other")
    server.storage.drop(name, content)
    assert server.get(f"/r/mine/simple/other/{name}") == (200, content)


def test_a_storage_without_a_journal_is_not_asked(tmp_path: Path) -> None:
    with place(tmp_path, KNOWN) as server:
        server.storage.drop(*NEW)
        assert server.get(f"{PAGE}{NEW[0]}")[0] == 404
        assert looks(server) == 0


@pytest.mark.parametrize(
    "path",
    [
        "/r/mine/simple/unknown/",  # a page is at most one interval old
        f"{PAGE}favicon.ico",
        f"{PAGE}{make_wheel('other')[0]}",  # no file of this project
        f"{PAGE}{KNOWN[0]}.provenance",
        f"{PAGE}{KNOWN[0]}.metadata.metadata",
    ],
)
def test_what_cannot_be_a_new_file_is_not_looked_for(server: Place, path: str) -> None:
    assert server.get(path)[0] == 404
    assert looks(server) == 0


def test_who_may_not_read_causes_no_look(server: Place) -> None:
    for stranger in (basic("mine", "wrong"), {"Authorization": ""}):
        assert server.get(unknown(), **stranger)[0] == 401
    assert looks(server) == 0


def test_unknown_files_share_looks_and_wait_without_a_thread(server: Place) -> None:
    """While the storage does not answer, what is known is answered as always."""
    held = server.storage.held["recent_files"] = threading.Event()
    waiting = [server.begin(unknown(number)) for number in range(MANY)]
    eventually(lambda: looks(server) == 1)
    assert server.get(PAGE)[0] == 200
    assert server.get(f"{PAGE}{KNOWN[0]}") == (200, KNOWN[1])
    assert looks(server) == 1
    held.set()
    assert {read_answer(each)[0] for each in waiting} == {404}
    # Some may have asked when the first look had begun already.
    assert looks(server) <= 2
    for each in waiting:
        each.close()


def test_however_many_ask_there_is_one_look_per_second(server: Place) -> None:
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: server.get(unknown(n))[0], range(8 * 4)))
    assert set(answers) == {404}
    assert 0 < looks(server) <= (time.monotonic() - begun) / LOOK_EVERY + 1


def test_nothing_is_kept_of_a_request_that_does_not_wait_any_more() -> None:
    woken: list[str] = []
    looks = Looks(lambda: woken.append("thread"))
    looks.open()
    forgotten, early, late = (Look(looks, since) for since in (1.0, 2.0, 3.0))
    for name, look in (("forgotten", forgotten), ("early", early), ("late", late)):
        look.call_when_over(partial(woken.append, name))
    assert woken == ["thread"]
    forgotten.forget(woken.clear)
    looks.end(2.5)
    assert woken == ["thread", "early"]
    assert looks.are_wanted
    looks.close()
    assert not looks.are_wanted
    forgotten.call_when_over(partial(woken.append, "closed"))
    assert woken == ["thread", "early", "late", "closed"]
    assert not looks.are_wanted


def test_a_look_that_fails_is_trouble_and_not_absence(server: Place) -> None:
    """It is tried again soon, although the interval is an hour."""
    server.storage.fail_next("recent_files", BackendUnavailable("down", retry_after=0), times=3)
    status, text = server.get(unknown())
    assert (status, b"could not be synchronised: down" in text) == (503, True)
    assert server.get(PAGE)[0] == 200
    eventually(lambda: server.get(unknown())[0] == 404)


def test_a_look_that_takes_too_long_is_trouble_and_not_absence(server: Place) -> None:
    """The file is there as soon as the storage has answered after all."""
    ask = partial(server.app.test_client().get, f"{PAGE}{NEW[0]}", headers=READER)
    held = server.storage.held["recent_files"] = threading.Event()
    server.storage.drop(*NEW)
    with pytest.raises(Later) as raised:
        ask(environ_overrides={WAITING: Waiting()})
    assert raised.value.seconds is not None
    assert raised.value.seconds <= 10  # installers give up after some 15 seconds
    is_over = threading.Event()
    raised.value.call_when_ready(is_over.set)
    waited = Waiting(raised.value.awaited, is_over=True)
    assert ask(environ_overrides={WAITING: waited}).status_code == 503
    assert not is_over.is_set()
    held.set()
    assert is_over.wait(60)
    assert server.get(f"{PAGE}{NEW[0]}") == (200, NEW[1])
    # A server of another kind cannot let requests wait without a thread.
    name, content = make_wheel(version="3.0")
    server.storage.drop(name, content)
    assert server.app.test_client().get(f"{PAGE}{name}", headers=READER).status_code == 200


def test_a_request_that_waits_is_answered_when_the_server_stops(server: Place) -> None:
    held = server.storage.held["recent_files"] = threading.Event()
    waiting = server.begin(unknown())
    eventually(lambda: looks(server) == 1)
    server.repository.begin_close()
    assert read_answer(waiting)[0] == 503
    held.set()


def test_another_process_has_looked(server: Place) -> None:
    """Its listing counts, if it began later than the file was asked for."""
    repository, secret = server.repository, server.repository.settings.admin_secret
    before = time.monotonic()
    repository.synchronize()
    name = make_wheel(version="9.0")[0]
    assert repository.begin_look("demo", name, secret, before) is None
    assert repository.begin_look("demo", name, secret, time.monotonic()) is not None
    repository.begin_close()
    with pytest.raises(BackendUnavailable, match="stopping"):
        repository.begin_look("demo", name, secret, time.monotonic())
