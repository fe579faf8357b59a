"""Pages of a mirror that the loop of the server keeps, while the policy or the upstream changes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from werkzeug.test import create_environ

from private_pypi.policy import watched
from private_pypi.testing.distributions import make_wheel
from private_pypi.web.serving import Answer
from tests.mirror.mirrors import PYPI, Asking, Clock, Mirrored, forget_trouble
from tests.mirror.upstream import JSON, Upstream
from tests.web.conftest import sent_by_the_loop

DAY = 86_400
OLD, YOUNG = make_wheel("demo", "1.0"), make_wheel("demo", "2.0")


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_trouble(monkeypatch)
    monkeypatch.setattr(watched, "_EVERY", 0.0)


@pytest.fixture
def aged(index: Upstream) -> Upstream:
    """An upstream with a file of a month and one of a day."""
    for wheel, days in ((OLD, 30), (YOUNG, 1)):
        at = datetime.now(UTC) - timedelta(days=days)
        index.add(*wheel, upload_time=at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    return index


def at_once(asking: Asking) -> Answer | None:
    """What the loop sends for the page of the project."""
    environ = create_environ("/r/pypi/simple/demo/", headers=PYPI | {"Accept": JSON})
    return sent_by_the_loop(asking.client.application, environ)


def kept(asking: Asking) -> Answer:
    """The same once it is kept."""
    assert asking.page().status_code == 200
    answers = [at_once(asking) for _ in range(3)]
    assert answers[1] is answers[2]
    assert answers[2] is not None
    return answers[2]


def shown(asking: Asking) -> set[str]:
    """Which of the two files a client finds, whether the loop answers or a thread."""
    answer = at_once(asking)
    body = asking.page().data
    if answer is not None:
        assert answer.body == body
    return {name for name, _ in (OLD, YOUNG) if name.encode() in body}


def test_a_cooldown_ends(aged: Upstream, mirrored: Mirrored, clock: Clock) -> None:
    asking = mirrored(cooldown="7 days", sync_index_interval=30 * DAY)
    before = kept(asking)
    assert shown(asking) == {OLD[0]}
    clock.go(6.1 * DAY)
    assert at_once(asking) is not before
    assert shown(asking) == {OLD[0], YOUNG[0]}


def test_a_deny_file_changes(aged: Upstream, mirrored: Mirrored, tmp_path: Path) -> None:
    denied = tmp_path / "denied.txt"
    denied.write_text("")
    asking = mirrored(deny_file=denied)
    for text, names in (
        ("demo >= 2  # it steals\n", {OLD[0]}),
        ("", {OLD[0], YOUNG[0]}),
        ("demo  # all of it\n", set()),
    ):
        before = kept(asking)
        denied.write_text(text)
        assert at_once(asking) is not before
        assert shown(asking) == names
    denied.write_text("demo >= is wrong\n")
    assert at_once(asking) is None
    assert asking.page().status_code == 502


Change = Callable[[Upstream], None]


def archive(index: Upstream) -> None:
    index.projects["demo"].status = "archived"


def yank(index: Upstream) -> None:
    index.change(YOUNG[0], yanked="it is broken")


def add(index: Upstream) -> None:
    index.add(*make_wheel("demo", "3.0"))


@pytest.mark.parametrize("change", [archive, yank, add])
def test_the_upstream_changes_the_page(
    aged: Upstream, mirrored: Mirrored, clock: Clock, change: Change
) -> None:
    asking = mirrored(sync_index_interval=60)
    before = kept(asking)
    change(aged)
    assert at_once(asking) is before  # it is believed for a minute
    clock.go(61)
    assert at_once(asking) is None
    after = kept(asking)
    assert after.body != before.body


def test_a_page_that_becomes_stale_says_so(
    aged: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    asking = mirrored(stale_for=600)
    before = kept(asking)
    aged.fail(None, "refused")
    clock.go(3600 + 300)
    assert at_once(asking) is not before
    answer = asking.page()
    assert (answer.status_code, answer.data) == (200, before.body)
    assert "Cache-Status" in answer.headers
    stale = at_once(asking)
    assert stale is None or "Cache-Status" in dict(stale.headers)
    clock.go(301)
    assert at_once(asking) is None
    assert asking.page().status_code == 503
