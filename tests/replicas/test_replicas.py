"""Three servers, a store and a proxy, while servers are killed, or restarted one by one."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from benchmarks.corpus import make_graph
from benchmarks.installing import install_graph
from tests.faults.servers import INTERVAL, READER, Server, sha256
from tests.object_storage.seaweed import Seaweed
from tests.replicas.load import Outcome, load
from tests.replicas.setting import COUNT, Replicas, replicas
from tests.waiting import eventually

pytestmark = pytest.mark.needs("weed", "caddy", "uv", "pip")

SECONDS = 20.0
PACKAGES = 4  # that uv and pip install, each of which needs others
# Seconds after which a file must be on all pages. It is one interval, and what two processors need
# for thirty processes.
ALLOWANCE = INTERVAL + 9.0


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory, seaweed: Seaweed) -> Iterator[Replicas]:
    with replicas(tmp_path_factory.mktemp("replicas"), seaweed) as made:
        yield made


def test_servers_that_are_killed_lose_nothing(setting: Replicas, tmp_path: Path) -> None:
    """Of all uploads that were acknowledged none is lost, and what failed is healed by a retry."""
    graph = make_graph(tmp_path, PACKAGES)
    for path in graph.files():
        setting.running[0].publish(path.name, path.read_bytes())
    eventually(lambda: all("graph-00" in each.projects() for each in setting.running), within=30)
    with load(setting.url, publishers=8, installers=6, allowance=ALLOWANCE) as outcome:
        tools = [
            threading.Thread(target=_install, args=(tool, setting.url, outcome, tmp_path))
            for tool in ("uv", "pip")
        ]
        for tool in tools:
            tool.start()
        killed = _kill_for(setting, SECONDS)
        for tool in tools:
            tool.join(120)
    print(f"{killed} kills, {len(outcome.published)} uploads, {outcome.pages} pages,")
    import json

    Path("/tmp/rep/out.json").write_text(
        json.dumps(
            {
                "c": outcome.complaints,
                "p": [(f.project, f.filename, f.at) for f in outcome.published],
                "listed": [s.all_listed() for s in setting.running],
                "logs": [str(s.log_path) for s in setting.servers._started],
                "now": time.monotonic(),
            }
        )
    )
    print(f"{outcome.downloads} downloads; healed: {dict(outcome.healed)}")
    assert outcome.complaints == []
    assert killed >= 3
    assert len(outcome.published) > 20
    assert outcome.downloads > 20
    check_all_published(setting, outcome)


def test_servers_that_are_restarted_one_by_one_fail_nobody(setting: Replicas) -> None:
    """As an operator updates them: no client has to repeat anything."""
    with load(setting.url, publishers=4, installers=4, allowance=ALLOWANCE) as outcome:
        for number in range(COUNT):
            setting.restart(number)
    assert (outcome.complaints, dict(outcome.healed)) == ([], {})
    assert len(outcome.published) > 20
    assert outcome.downloads > 20
    check_all_published(setting, outcome)


def check_all_published(setting: Replicas, outcome: Outcome) -> None:
    """Every server shows every acknowledged file, and one of them has its bytes."""
    wanted = {file.filename: file.sha256 for file in outcome.published}
    for server in setting.running:
        eventually(partial(_shows, server, wanted), within=60)
    for file in outcome.published:
        server = setting.running[hash(file.filename) % COUNT]
        assert sha256(server.content(file.filename, file.project)) == file.sha256


def _shows(server: Server, wanted: dict[str, str]) -> bool:
    return wanted.items() <= server.all_listed().items()


def _kill_for(setting: Replicas, seconds: float) -> int:
    """Kill a server, or two, and start them again, for so long; how many were killed."""
    choose = random.Random(14)
    end = time.monotonic() + seconds
    killed = 0
    while time.monotonic() < end:
        time.sleep(choose.uniform(0.5, 1.5))
        chosen = choose.sample(range(COUNT), choose.choice((1, 1, 2)))
        for number in chosen:
            setting.running[number].kill()
        time.sleep(choose.uniform(0.0, 1.0))
        for number in chosen:
            setting.start(number)
        killed += len(chosen)
    return killed


def _install(tool: str, url: str, outcome: Outcome, folder: Path) -> None:
    """Install with a real tool, again and again; a second try may be needed while servers die."""
    index = url.replace("http://", f"http://{READER[0]}:{READER[1]}@") + "/r/mine/simple/"
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for again in (True, True, False):
            try:
                install_graph(tool, index, PACKAGES, folder / f"by-{tool}")
                outcome.count(downloads=PACKAGES)
                break
            except (RuntimeError, requests.RequestException) as error:
                if not again:
                    outcome.complain(f"{tool} failed three times: {error}")
        time.sleep(1)
