"""Three servers, a store and a proxy, while servers are killed, or restarted one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.servers import INTERVAL
from tests.object_storage.seaweed import Seaweed
from tests.replicas.load import load, lost, publish_graph, tools
from tests.replicas.setting import COUNT, Replicas, replicas

pytestmark = pytest.mark.needs("weed", "caddy", "uv", "pip")

SECONDS = 20.0
# Seconds after which a file must be on all pages. It is one interval, and what two processors need
# for all these processes.
LATEST = INTERVAL + 14.0


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory, seaweed: Seaweed) -> Iterator[Replicas]:
    with replicas(tmp_path_factory.mktemp("replicas"), seaweed) as made:
        yield made


def test_servers_that_are_killed_lose_nothing(setting: Replicas, tmp_path: Path) -> None:
    """Of all uploads that were acknowledged none is lost, and what failed is healed by a retry."""
    publish_graph(setting, tmp_path)
    with (
        load(setting.url, publishers=8, installers=6) as outcome,
        tools(setting.url, outcome, tmp_path),
    ):
        killed = setting.kill_for(SECONDS)
    print(f"{killed} kills, {len(outcome.published)} uploads, {outcome.pages} pages,")
    print(
        f"{outcome.downloads} downloads; healed: {dict(outcome.healed)}; {outcome.late:.1f} s late"
    )
    assert outcome.complaints == []
    assert outcome.late < LATEST
    assert killed >= 3
    assert len(outcome.published) > 20
    assert outcome.downloads > 20
    assert lost(setting, outcome) == []


def test_servers_that_are_restarted_one_by_one_fail_nobody(setting: Replicas) -> None:
    """As an operator updates them: no request is refused, cut off or answered with an error.

    A client that is moved to another server may know a file from a page of the first one, which the
    other learns of within an interval.
    """
    with load(setting.url, publishers=4, installers=4) as outcome:
        for number in range(COUNT):
            setting.restart(number)
    assert outcome.complaints == []
    assert set(outcome.healed) <= {"file: 404"}
    assert outcome.late < LATEST
    assert len(outcome.published) > 20
    assert outcome.downloads > 20
    assert lost(setting, outcome) == []
