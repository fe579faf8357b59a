"""A server that stops waits for requests, and not for what nobody waits for any more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from private_pypi.errors import BackendUnavailable
from private_pypi.repositories import mirrored_pages
from private_pypi.repositories.mirror import _ENDING_SECONDS
from private_pypi.repositories.repository import CLOSING_SECONDS
from private_pypi.testing.distributions import make_wheel
from private_pypi_mirror.connection import Connection
from tests.mirror.mirrors import Mirrored
from tests.mirror.serving import Reply, running_upstream
from tests.mirror.upstream import Kind, Upstream
from tests.proxies.authority import make_certificates
from tests.waiting import eventually

assert _ENDING_SECONDS < CLOSING_SECONDS / 2
WITHIN = CLOSING_SECONDS * 0.8  # seconds: less than what is waited for other storages
DRIP = "one byte per second"


def threads_of_mirror() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "mirror 'pypi'"]


def ended(closing: Callable[[], object]) -> Future[object]:
    """The end of a call in a thread."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(closing)
        eventually(future.done, "it is closed", within=WITHIN)
    return future


@pytest.mark.parametrize("kind", ["page", "list"])
@pytest.mark.parametrize("how", ["it says nothing", DRIP])
def test_what_nobody_waits_for_is_broken_off(
    index: Upstream, mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch, kind: Kind, how: str
) -> None:
    monkeypatch.setattr(mirrored_pages, "_BUDGET", 0.3)
    monkeypatch.setattr(mirrored_pages, "_NAMES_BUDGET", 0.3)
    index.add(*make_wheel("demo", "1.0"))
    index.is_compressed = False
    asking = mirrored()
    if how == DRIP:
        index.fail(kind, DRIP)
    else:
        index.hold(kind)
    answer = asking.page() if kind == "page" else asking.get("simple/")
    assert answer.status_code == 503
    assert threads_of_mirror()  # it goes on, so that a later request may find what it brings
    assert ended(asking.deployment.close).result() is None
    eventually(lambda: not threads_of_mirror(), "its threads end", within=WITHIN)


@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.parametrize("has_head", [False, True])
def test_a_connection_that_is_closed_ends_what_is_asked(
    tmp_path: Path, is_encrypted: bool, has_head: bool
) -> None:
    made = make_certificates(tmp_path)
    may_go_on = threading.Event()
    asked = threading.Event()

    def wait(_: object) -> Reply:
        asked.set()
        assert may_go_on.wait(20)
        return Reply()

    pair = (made.certificate, made.key) if is_encrypted else None
    with running_upstream(pair) as upstream, ThreadPoolExecutor(1) as pool:
        body = Reply(b"x", length=100, stays_open=may_go_on)
        upstream.answers["/simple/demo/"] = body if has_head else wait
        connection = Connection(upstream.index_url, "", "", ca_file=made.authority)

        def ask() -> bytes:
            answer = connection.get(f"{upstream.index_url}demo/", {})
            asked.set()
            return b"".join(answer.body(1000, 60))

        asking = pool.submit(ask)
        try:
            assert asked.wait(20)
            connection.close()
            with pytest.raises(BackendUnavailable):
                asking.result(WITHIN)
        finally:
            may_go_on.set()
        with pytest.raises(BackendUnavailable, match="the server is stopping"):
            connection.get(f"{upstream.index_url}demo/", {})
