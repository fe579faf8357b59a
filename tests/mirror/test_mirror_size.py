"""A mirror of everything: the memory of a server with a list of 700,000 projects."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from private_pypi.testing.distributions import make_wheel
from tests.faults.servers import JSON, Server, Servers
from tests.mirror.mirrors import mirror_table
from tests.mirror.upstream import Project, Published, Upstream
from tests.waiting import eventually

COUNT = 700_000
MOST = 150  # MiB
READER = ("pypi", "r")

pytestmark = pytest.mark.needs("a server in a process of its own", "time")


def peak(server: Server) -> int:
    """The most memory that the process ever had, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found
    return int(found[1]) // 1024


@pytest.mark.parametrize("shown", ["json", "html"])
def test_a_list_of_all_projects_and_a_page_of_5000_files(
    index: Upstream, servers: Servers, tmp_path: Path, shown: str
) -> None:
    index.format = shown  # type: ignore[assignment]
    index.more_names = [f"project-{number:06}-of-the-list" for number in range(COUNT)]
    index.add(*make_wheel("demo", "1.0"))
    big = {
        filename: Published(
            filename=filename, content=b"", hashes={"sha256": f"{number:064}"}, size=1000
        )
        for number in range(5000)
        for filename in [f"big-{number}.0-py3-none-any.whl"]
    }
    index.projects["big"] = Project(files=big)
    server = servers.start(tmp_path / "root", mirror_table(index.index_url))
    is_over = threading.Event()
    statuses: list[int] = []

    def ask_others() -> None:
        while not is_over.wait(0.1):
            statuses.append(server.status("/r/pypi/simple/demo/", auth=READER))

    others = threading.Thread(target=ask_others)
    others.start()
    try:
        eventually(
            lambda: server.status("/r/pypi/simple/", auth=READER) == 200, "it is read", within=120
        )
    finally:
        is_over.set()
        others.join()
    assert set(statuses) == {200}  # nobody was stopped meanwhile
    assert index.count("list") == 1
    # In the other format than that of the upstream: the first question was about JSON.
    accept, times = (JSON["Accept"], 1) if shown == "html" else ("text/html", 2)
    for encoding in ("gzip", "identity"):
        headers = {"Accept": accept, "Accept-Encoding": encoding}
        answer = server.get("/r/pypi/simple/", READER, headers=headers, timeout=120)
        assert answer.status_code == 200
        assert answer.content.count(b"-of-the-list") == times * COUNT
    page = server.get("/r/pypi/simple/big/", READER)
    assert len(page.json()["files"]) == 5000
    assert peak(server) < MOST
