"""A file that one server lists is found on another one, which learns of it an hour later."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from private_pypi.backend.object_journal import JOURNAL
from private_pypi.index.looking import LOOK_EVERY
from private_pypi.testing.distributions import make_wheel
from tests.faults.servers import READER, Server, Servers, servers_below, sha256, table
from tests.mirror.upstream import Upstream, running
from tests.object_storage.relay import Relay, relay
from tests.object_storage.running import BUCKET
from tests.object_storage.seaweed import WRITER as STORE_KEY
from tests.object_storage.seaweed import Seaweed
from tests.waiting import eventually

pytestmark = pytest.mark.needs("weed", "servers in processes of their own")

RARELY = 3600  # seconds between two synchronisations
GROUP = """
[pypi]
type = "mirror"
index_url = "{index_url}"
[all]
type = "group"
members = ["mine", "pypi"]
"""
PAGE = "/r/mine/simple/demo/"
ENGINES = ("waitress", "granian")
WORKERS = 2


@dataclass
class Shared:
    """A bucket, and servers over it with two workers each. A relay counts what some of them ask."""

    servers: Servers
    folder: Path
    seaweed: Seaweed
    prefix: str
    between: Relay
    asked: list[bytes]
    upstream: Upstream
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def start(self, *flags: str, counted: bool = False) -> Server:
        text = table(
            type="object_storage",
            url=f"s3://{BUCKET}/{self.prefix}",
            endpoint=self.between.url if counted else self.seaweed.url,
            access_key_id=STORE_KEY[0],
            secret_access_key=STORE_KEY[1],
            sync_index_interval=RARELY,
        )
        root = self.folder / f"root-{next(self._numbers)}"
        text += GROUP.format(index_url=self.upstream.index_url)
        server = self.servers.start(root, text, flags=flags)
        eventually(lambda: server.status("/health/ready", auth=None, headers={}) == 200)
        return server

    def looks(self) -> int:
        """How often the journal was listed through the relay."""
        return sum(data.count(b"GET ") for data in self.asked if JOURNAL.encode() in data)


@pytest.fixture
def shared(tmp_path: Path, seaweed: Seaweed, prefix: str) -> Iterator[Shared]:
    asked: list[bytes] = []

    def note(data: bytes) -> bytes:
        asked.append(data.replace(b"%2F", b"/"))
        return data

    with ExitStack() as stack:
        between = stack.enter_context(relay(seaweed.url, note))
        servers = stack.enter_context(servers_below(tmp_path, WORKERS))
        upstream = stack.enter_context(running())
        yield Shared(servers, tmp_path, seaweed, prefix, between, asked, upstream)


def unknown(number: int) -> str:
    return f"{PAGE}demo-9.{number}-py3-none-any.whl"


@pytest.mark.parametrize("engine", ENGINES)
def test_what_one_server_lists_is_found_on_another(shared: Shared, engine: str) -> None:
    """Under each address of a file, whichever of its workers is asked."""
    one, other = shared.start(), shared.start("--engine", engine)
    addresses = (
        "/r/mine/simple/demo/{}",
        "/r/mine/simple/demo/{}.metadata",
        "/r/all/simple/demo/{}",
        "/r/all/simple/demo/{}.metadata",
        "/packages/mine/demo/{}",
    )
    for number, address in enumerate(addresses):
        filename, content = make_wheel(version=f"{number}.0")
        one.publish(filename, content)
        assert filename in one.listed()
        name = "all" if "/all/" in address else "mine"
        answer = other.get(address.format(filename), (name, READER[1]))
        assert answer.status_code == 200, answer.text
        if not address.endswith(".metadata"):
            assert sha256(answer.content) == sha256(content)
        assert other.listed()[filename] == sha256(content)


def test_a_private_file_is_found_through_a_group_with_a_mirror(shared: Shared) -> None:
    """Its project is as new as the file. What the mirror has causes no look."""
    shared.servers.workers = 1  # a second one may synchronise once more when it starts
    public, bytes_of_public = make_wheel("public")
    shared.upstream.add(public, bytes_of_public)
    one, other = shared.start(), shared.start(counted=True)
    auth = ("all", READER[1])
    before = shared.looks()
    answer = other.get(f"/r/all/simple/public/{public}", auth)
    assert (answer.status_code, answer.content) == (200, bytes_of_public)
    assert shared.looks() == before
    filename, content = make_wheel()
    one.publish(filename, content)
    answer = other.get(f"/r/all/simple/demo/{filename}", auth)
    assert (answer.status_code, answer.content) == (200, content)
    assert other.status(f"/r/all/simple/public/{make_wheel('public', '9.0')[0]}", auth=auth) == 404


@pytest.mark.parametrize("engine", ENGINES)
def test_an_unknown_file_costs_a_look_per_second_however_many_ask(
    shared: Shared, engine: str
) -> None:
    """All workers together; and none for those who may not read."""
    begun = time.monotonic()
    server = shared.start("--engine", engine, counted=True)
    for auth in (("mine", "wrong"), None):
        assert server.status(unknown(0), auth=auth) == 401
    before = shared.looks()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: server.status(unknown(number)), range(16 * 4)))
    assert set(answers) == {404}
    # Each worker may synchronise once when it starts, however short before the last time is.
    most = (time.monotonic() - begun) / LOOK_EVERY + WORKERS
    assert before < shared.looks() <= most


def test_a_store_in_trouble_makes_no_file_absent(shared: Shared) -> None:
    server = shared.start(counted=True)
    filename, content = make_wheel()
    server.publish(filename, content)
    assert server.content(filename) == content  # it is in the cache from now on
    assert server.status(unknown(0)) == 404
    shared.between.cut()
    assert server.status(unknown(1)) == 503
    assert server.status(unknown(0)) == 503
    assert server.content(filename) == content
    assert server.status(PAGE) == 200
