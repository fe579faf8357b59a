"""Several servers over one storage of each kind that is elsewhere, each with a ROOT of its own."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import requests

from private_pypi.backend.object_journal import JOURNAL
from private_pypi.testing.distributions import encode_multipart, form_for, make_wheel
from tests.clients.serving import Repository, serving
from tests.faults.servers import READER, WRITER, sha256, table
from tests.github.fake import FakeGitHub
from tests.github.places import make_place
from tests.object_storage.relay import relay
from tests.object_storage.running import BUCKET
from tests.object_storage.seaweed import WRITER as STORE_KEY
from tests.object_storage.seaweed import Seaweed
from tests.oci.registries import registry
from tests.waiting import eventually

pytestmark = pytest.mark.needs("weed", "docker-registry", "another server")

INTERVAL: Final = 1.0  # seconds
TIMES: Final = 4  # synchronisations of each idle server of which the requests are counted
KINDS: Final = ("object_storage", "github", "github_projects", "oci")

_REQUEST = re.compile(rb"(?:GET|HEAD|PUT|POST|DELETE|PATCH) (\S+) HTTP/1\.1\r\n")


@dataclass(frozen=True)
class Shared:
    """A storage, and how servers use it."""

    name: str
    table: str
    admin_table: str
    reader: str  # a secret
    writer: str  # another
    asked: Callable[[], list[str]]
    """What each request that servers made until now was for."""
    is_synchronized: bool = True
    """Whether servers ask again and again; otherwise they ask about a project when it is needed."""

    def repository(self, origin: str) -> Repository:
        return Repository(origin, self.name, read_secret=self.reader, write_secret=self.writer)


@pytest.fixture(params=KINDS)
def shared(
    request: pytest.FixtureRequest, seaweed: Seaweed, prefix: str, tmp_path: Path
) -> Iterator[Shared]:
    with _SHARED[request.param](seaweed, prefix, tmp_path) as made:
        yield made


@contextlib.contextmanager
def _object_storage(seaweed: Seaweed, prefix: str, folder: Path) -> Iterator[Shared]:
    asked: list[str] = []

    def note(data: bytes) -> bytes:
        for path in _REQUEST.findall(data):
            about = path.decode().replace("%2F", "/")
            is_index = about.endswith("/index.toml")
            asked.append("index" if is_index else "journal" if JOURNAL in about else about)
        return data

    with relay(seaweed.url, note) as between:
        text = table(
            type="object_storage",
            url=f"s3://{BUCKET}/{prefix}",
            endpoint=between.url,
            access_key_id=STORE_KEY[0],
            secret_access_key=STORE_KEY[1],
            sync_index_interval=INTERVAL,
        )
        yield Shared("mine", text, "", READER[1], WRITER[1], lambda: list(asked))


@contextlib.contextmanager
def _github(seaweed: Seaweed, prefix: str, folder: Path) -> Iterator[Shared]:
    with FakeGitHub() as github:
        place = make_place(github, "github", "acme", ("demo",))

        def asked() -> list[str]:
            # The folder that has index.toml, and the releases, of which the newest come first.
            kinds = {"contents/": "index", "releases": "journal"}
            paths = [each.path.removeprefix("/repos/acme/pkgs/") for each in github.requests]
            return [kinds.get(path, path) for path in paths]

        text = place.table(sync_index_interval=INTERVAL)
        yield Shared("acme", text, place.admin_table, place.reader, place.writer, asked)


@contextlib.contextmanager
def _github_projects(seaweed: Seaweed, prefix: str, folder: Path) -> Iterator[Shared]:
    with FakeGitHub() as github:
        place = make_place(github, "github_projects", "acme", ("demo",))
        text = place.table(sync_index_interval=INTERVAL)

        def asked() -> list[str]:
            return [each.path for each in github.requests]

        yield Shared("acme", text, "", place.reader, place.writer, asked, False)


@contextlib.contextmanager
def _oci(seaweed: Seaweed, prefix: str, folder: Path) -> Iterator[Shared]:
    with registry(folder / "registry", bearer=True) as running:
        text = (
            f'[mine]\ntype = "oci"\nregistry = "{running.url}"\nplain_http = true\n'
            f'namespace = "acme"\nsync_index_interval = {INTERVAL}\n'
        )
        reader, writer = "rita:read-secret", "walter:write-secret"
        yield Shared("mine", text, "", reader, writer, running.asked, False)


_SHARED = {
    "object_storage": _object_storage,
    "github": _github,
    "github_projects": _github_projects,
    "oci": _oci,
}


def test_an_upload_is_seen_at_once_here_and_within_an_interval_everywhere(
    shared: Shared, tmp_path: Path
) -> None:
    """Of three servers; one name that all of them get at once is stored once."""
    with ExitStack() as stack:
        servers = [
            shared.repository(stack.enter_context(serving(tmp_path / name, *_texts(shared))))
            for name in ("one", "two", "three")
        ]
        wanted: dict[str, str] = {}
        for number, server in enumerate(servers, 1):
            filename, content = make_wheel("demo", f"{number}.0")
            server.put(filename, content)
            wanted[filename] = sha256(content)
            assert _page(server).get(filename) == sha256(content)
        for server in servers:
            eventually(partial(_shows, server, wanted), "all three", within=60)

        contents = [make_wheel("demo", "9.0", files={"demo.py": b"#" * n})[1] for n in range(3)]
        filename = make_wheel("demo", "9.0")[0]
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(_status_of_upload, servers, [filename] * 3, contents))
        assert answers.count(200) == 1
        wanted[filename] = sha256(contents[answers.index(200)])
        for server in servers:
            eventually(partial(_shows, server, wanted), "the one", within=60)


def test_idle_servers_ask_two_things_each_in_an_interval(shared: Shared, tmp_path: Path) -> None:
    """The index and the journal; storages of which projects are looked up are asked nothing."""
    count = 3
    with ExitStack() as stack:
        for number in range(count):
            folder = tmp_path / f"server-{number}"
            origin = stack.enter_context(serving(folder, *_texts(shared)))
            _page(shared.repository(origin))

        def asked_since(before: int) -> Counter[str]:
            return Counter(shared.asked()[before:])

        def have_asked(before: int, times: int) -> bool:
            asked = asked_since(before)
            return min(asked["index"], asked["journal"]) >= count * times

        if not shared.is_synchronized:
            before = len(shared.asked())
            time.sleep(3 * INTERVAL)
            assert asked_since(before) == {}
            return
        started = len(shared.asked())
        eventually(lambda: have_asked(started, 1), "what follows on a start is over")
        before, begun = len(shared.asked()), time.monotonic()
        eventually(lambda: have_asked(before, TIMES), lambda: str(asked_since(before)), within=60)
        asked = asked_since(before)
        # A listing starts between 0.8 and 1 intervals after the one before.
        most = count * ((time.monotonic() - begun) / (0.8 * INTERVAL) + 1)
        assert set(asked) == {"index", "journal"}
        assert max(asked["index"], asked["journal"]) <= most


def _shows(server: Repository, wanted: dict[str, str]) -> bool:
    return _page(server) == wanted


def _texts(shared: Shared) -> tuple[str, str | None]:
    return shared.table, shared.admin_table or None


def _page(server: Repository) -> dict[str, str]:
    """filename -> sha256 of the page of demo, which is empty if there is none."""
    answer = requests.get(
        f"{server.index_url}demo/",
        headers={"Accept": "application/vnd.pypi.simple.v1+json"},
        auth=(server.name, server.read_secret),
        timeout=30,
    )
    if answer.status_code == 404:
        return {}
    assert answer.status_code == 200, answer.text
    return {file["filename"]: file["hashes"]["sha256"] for file in answer.json()["files"]}


def _status_of_upload(server: Repository, filename: str, content: bytes) -> int:
    content_type, body = encode_multipart(form_for(filename, content), filename, content)
    return requests.post(
        server.upload_url,
        data=body,
        headers={"Content-Type": content_type},
        auth=(server.name, server.write_secret),
        timeout=60,
    ).status_code
