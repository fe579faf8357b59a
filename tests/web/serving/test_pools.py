"""Threads are divided: work that hangs only takes those of its own share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest

from private_pypi.web import _kind_of, _share_of
from private_pypi.web.serving import Kind
from private_pypi.web.serving.pools import Pool
from tests.waiting import eventually
from tests.web.conftest import Deploy, basic


@dataclass
class Task:
    """Runs until the test ends it."""

    begun: threading.Event = field(default_factory=threading.Event)
    may_end: threading.Event = field(default_factory=threading.Event)

    def service(self) -> None:
        self.begun.set()
        assert self.may_end.wait(20)


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool("test")
    made.start(2)
    yield made
    made.stop()


def begun(tasks: list[Task]) -> list[bool]:
    return [task.begun.is_set() for task in tasks]


def test_a_share_that_hangs_takes_only_its_own_threads(pool: Pool) -> None:
    hanging = [Task() for _ in range(5)]
    others = [Task() for _ in range(2)]
    for task in hanging:
        pool.add(task.service, "hangs")
    for task in others:
        pool.add(task.service, "other")
    assert all(task.begun.wait(20) for task in others)
    assert begun(hanging) == [True, True, False, False, False]
    assert pool.busy == 7
    hanging[0].may_end.set()
    assert hanging[2].begun.wait(20)
    for task in hanging + others:
        task.may_end.set()
    eventually(lambda: pool.busy == 0)


def test_all_shares_together_have_four_times_as_many_threads(pool: Pool) -> None:
    tasks = [Task() for _ in range(10)]
    for number, task in enumerate(tasks):
        pool.add(task.service, f"share {number // 2}")
    eventually(lambda: sum(begun(tasks)) == 8)
    time.sleep(0.1)
    assert sum(begun(tasks)) == 8
    next(task for task in tasks if task.begun.is_set()).may_end.set()
    eventually(lambda: sum(begun(tasks)) == 9)
    for task in tasks:
        task.may_end.set()


def test_shares_take_turns() -> None:
    pool = Pool("test")
    order: list[str] = []

    blocking = [Task() for _ in range(4)]
    pool.start(1)
    for number, task in enumerate(blocking):
        pool.add(task.service, f"blocking {number}")
    for share in ("a", "a", "a", "b", "c", "b"):
        pool.add(partial(order.append, share), share)
    assert all(task.begun.wait(20) for task in blocking)
    blocking[0].may_end.set()  # one thread for all of them
    eventually(lambda: len(order) == 6)
    assert order == ["a", "b", "c", "a", "b", "a"]
    for task in blocking:
        task.may_end.set()
    pool.stop()


def test_a_task_that_fails_costs_no_thread(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise RuntimeError("detail")

    for _ in range(20):
        pool.add(broken)
    task = Task()
    task.may_end.set()
    pool.add(task.service)
    assert task.begun.wait(20)
    eventually(lambda: pool.busy == 0)
    assert "detail" in caplog.text


def test_work_that_comes_at_once_gets_a_thread_each(pool: Pool) -> None:
    first = [Task(), Task()]
    for tasks in (first, [Task(), Task()]):  # the second time the threads are idle
        for task in tasks:
            pool.add(task.service)
        assert all(task.begun.wait(20) for task in tasks)
        for task in tasks:
            task.may_end.set()
        eventually(lambda: pool.busy == 0)


# -- which threads a request uses ----------------------------------------------------------------

CONFIG = """
[mine]
type = "file_system"
read_secret = "reader"

[other]
type = "file_system"
read_secret = "other-reader"
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/simple/demo/", Kind.PAGES),
        ("/r/mine/simple/", Kind.PAGES),
        ("/health/ready", Kind.PAGES),
        ("/simple/demo/demo-1.0.tar.gz", Kind.FILES),
        ("/simple/project/project-1.0.tar.gz", Kind.FILES),
        ("/r/mine/simple/demo/demo-1.0.tar.gz", Kind.FILES),
        ("/r/mine/", Kind.PEOPLE),
        ("/r/mine/project/demo/", Kind.PEOPLE),
        ("/project/demo/1.0/", Kind.PEOPLE),
    ],
)
def test_downloads_and_pages_of_tools_do_not_wait_for_pages_of_people(
    deploy: Deploy, path: str, kind: Kind
) -> None:
    assert _kind_of(deploy(CONFIG), path) is kind


@pytest.mark.parametrize("name", ["health", "metrics", "ready"])
def test_a_project_may_have_the_name_of_an_address_of_the_server(deploy: Deploy, name: str) -> None:
    upstream = '[pypi]\ntype = "mirror"\nread_secret = "r"\n'
    served = deploy(upstream)
    assert _kind_of(served, f"/r/pypi/simple/{name}/") is Kind.FILES  # the upstream may be slow
    assert _kind_of(served, f"/r/pypi/project/{name}/") is Kind.PEOPLE


@pytest.mark.parametrize(
    ("path", "user", "share"),
    [
        ("/r/mine/simple/", None, "mine"),
        ("/r/MINE/", "other", "mine"),
        ("/r/Mine/project/demo/", None, "mine"),
        ("/simple/demo/", "other", "other"),
        ("/simple/demo/", "nobody", ""),
        ("/r/nobody/simple/", "mine", ""),
        ("/login/", None, ""),
    ],
)
def test_requests_for_a_repository_share_its_threads(
    deploy: Deploy, path: str, user: str | None, share: str
) -> None:
    authorization = None if user is None else basic(user, "any")["Authorization"]
    assert _share_of(deploy(CONFIG), path, authorization) == share
