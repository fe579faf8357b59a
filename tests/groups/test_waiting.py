"""Requests that wait for an upstream hold no thread, whatever they ask about a project."""

from __future__ import annotations

import threading

import pytest

from private_pypi.repositories.mirrored_pages import MirroredPages
from private_pypi.testing.distributions import make_wheel
from private_pypi.web.serving import WAITING, Later, Waiting
from tests.groups.conftest import Served
from tests.mirror.upstream import Upstream
from tests.web.conftest import basic

FILENAME, CONTENT = make_wheel("public", "1.0")
OF_PROJECT = [
    "/r/{name}/simple/public/",
    "/r/{name}/simple/public/index.html",
    "/r/{name}/simple/v1+json/public/",
    "/r/{name}/at/2026-11-01/simple/public/",
    f"/r/{{name}}/simple/public/{FILENAME}",
    f"/r/{{name}}/simple/public/{FILENAME}.metadata",
    f"/packages/{{name}}/public/{FILENAME}",
    "/r/{name}/+simple/public/",
    "/r/{name}/pypi/public/json",
    "/r/{name}/pypi/public/1.0/json",
    "/r/{name}/explain/public",
    "/r/{name}/project/public/",
    "/r/{name}/project/public/1.0/",
    "/r/{name}/rss/project/public/releases.xml",
]


@pytest.mark.parametrize("path", OF_PROJECT)
def test_an_address_of_a_project_waits_without_a_thread(
    served: Served, upstream: Upstream, path: str
) -> None:
    def ask(waiting: Waiting) -> int:
        return served.client.get(
            path.format(name="all"),
            headers=basic("all", "boss"),
            environ_overrides={WAITING: waiting},
        ).status_code

    with pytest.raises(Later) as raised:
        ask(Waiting())
    is_over = threading.Event()
    raised.value.call_when_ready(is_over.set)
    assert is_over.wait(20)
    assert upstream.count("page") == 1
    while True:  # for files, which arrive without a thread as well
        try:
            status = ask(Waiting(raised.value.awaited))
        except Later as later:
            is_over.clear()
            later.call_when_ready(is_over.set)
            assert is_over.wait(20)
            raised.value.awaited = later.awaited
        else:
            break
    assert status == 200
    assert upstream.count("page") == 1


def test_a_known_page_is_shown_while_the_upstream_hangs(
    served: Served, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installers give up after some 15 seconds, so that is how long the page may take."""
    path, headers = "/r/all/simple/public/", basic("all", "boss")
    assert served.client.get(path, headers=headers).status_code == 200
    monkeypatch.setattr(MirroredPages, "_believed", lambda self, page: 0.0)
    held = upstream.hold("page")
    try:
        with pytest.raises(Later) as raised:
            served.client.get(path, headers=headers, environ_overrides={WAITING: Waiting()})
        assert raised.value.seconds is not None
        assert raised.value.seconds <= 15
        waited = Waiting(raised.value.awaited, is_over=True)
        answer = served.client.get(path, headers=headers, environ_overrides={WAITING: waited})
    finally:
        held.release()
    assert answer.status_code == 200
    assert "ttl=-" in answer.headers["Cache-Status"]


def test_private_projects_wait_for_no_upstream(served: Served, upstream: Upstream) -> None:
    """Only a mixed name does, although a private member has it."""
    for name, waits in (("tool", False), ("acme-gone", False), ("plans", False), ("torch", True)):
        try:
            served.client.get(
                f"/r/all/simple/{name}/",
                headers=basic("all", "reader"),
                environ_overrides={WAITING: Waiting()},
            )
        except Later:
            assert waits, name
        else:
            assert not waits, name
    assert {each.project for each in upstream.asked} <= {"torch"}
