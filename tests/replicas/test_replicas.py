"""Three servers, a store and a proxy, while servers are killed, or restarted one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.servers import INTERVAL
from tests.object_storage.seaweed import Seaweed
from tests.replicas.load import Outcome, load, lost, publish_graph, tools
from tests.replicas.setting import COUNT, Replicas, replicas
from tests.waiting import eventually

pytestmark = pytest.mark.needs("weed", "caddy", "uv", "pip")

SECONDS = 10.0
KILLED = 5  # servers, at least
MANY = 20  # uploads, and downloads
# Seconds after which a file must be on all pages. It is one interval, and what two processors need
# for all these processes, beside those of other tests.
LATEST = INTERVAL + 29.0


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory, seaweed: Seaweed) -> Iterator[Replicas]:
    with replicas(tmp_path_factory.mktemp("replicas"), seaweed) as made:
        yield made


def has_many(outcome: Outcome) -> bool:
    return len(outcome.published) > MANY and outcome.downloads > MANY


def test_servers_that_are_killed_lose_nothing(setting: Replicas, tmp_path: Path) -> None:
    """Of all uploads that were acknowledged none is lost, and what failed is healed by a retry."""
    publish_graph(setting, tmp_path)
    with (
        load(setting.url, publishers=8, installers=6) as outcome,
        tools(setting.url, outcome, tmp_path),
    ):
        killed = setting.kill_for(SECONDS, at_least=KILLED)
        eventually(lambda: has_many(outcome), within=60)
    print(f"{killed} kills, {len(outcome.published)} uploads, {outcome.pages} pages,")
    print(
        f"{outcome.downloads} downloads; healed: {dict(outcome.healed)}; {outcome.late:.1f} s late"
    )
    assert outcome.complaints == []
    assert outcome.late < LATEST
    assert lost(setting, outcome) == []


def test_servers_that_are_restarted_one_by_one_fail_nobody(setting: Replicas) -> None:
    """As an operator updates them: no request is refused, cut off or answered with an error.

    That includes clients that are moved to another server, and ask it for a file that they know
    from a page of the first one.
    """
    with load(setting.url, publishers=4, installers=4) as outcome:
        for number in range(COUNT):
            setting.restart(number)
        eventually(lambda: has_many(outcome), within=60)
    assert outcome.complaints == []
    assert not outcome.healed
    assert outcome.late < LATEST
    assert lost(setting, outcome) == []
