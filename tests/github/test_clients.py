"""Real clients, a real server, and all of it stored on a fake GitHub, in both types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.clients.environments import Client, install_client, make_venv
from tests.clients.installers import INSTALLERS, install, install_locked, installed, lock, locked
from tests.clients.publishers import PUBLISHERS, how_shown, publish, sent_files
from tests.clients.releases import Release
from tests.clients.serving import RecordingProxy, Repository, serving
from tests.github.fake import FakeGitHub
from tests.github.owner import asset_id
from tests.github.places import TYPES, Place, PlaceType, make_place, stored

pytestmark = pytest.mark.needs("clients")

DOWNLOADS: Final = ("proxy", "redirect")
# Every client meets GitHub, and every kind of place all that clients do differently: what they do
# with our answers, whatever the storage, is in tests/clients.
PUBLISHING: Final = (
    ("twine", "github"),
    ("twine", "github_projects"),
    ("uv", "github"),
    ("hatch", "github"),
    ("poetry", "github_projects"),
    ("pdm", "github_projects"),
    ("flit", "github_projects"),
)
INSTALLING: Final = (
    *((name, "github", "redirect") for name in INSTALLERS),
    ("pip", "github", "proxy"),
    ("uv", "github_projects", "proxy"),
    ("pip", "github_projects", "redirect"),
    ("poetry", "github_projects", "redirect"),
)
PROJECTS: Final = ("demo", "solo")
MakeClient = Callable[[str], Client]
Before = Callable[[Repository], RecordingProxy]


@dataclass(frozen=True, slots=True)
class World:
    """A GitHub, and a server with places on it that nobody has used."""

    github: FakeGitHub
    origin: str
    unused: dict[tuple[str, str], list[Place]]

    def take(self, place_type: PlaceType, download: str = "proxy") -> tuple[Place, Repository]:
        """A place of a type, and how it is reached."""
        place = self.unused[place_type, download].pop()
        return place, Repository(
            origin=self.origin,
            name=place.name,
            read_secret=place.reader,
            write_secret=place.writer,
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all tests: what takes time is to start it."""
    unused: dict[tuple[str, str], list[Place]] = {}
    config = admin_secret = ""
    with FakeGitHub() as github:
        for place_type in TYPES:
            for download in DOWNLOADS:
                count = len(INSTALLERS) + (len(PUBLISHERS) if download == "proxy" else 0)
                kind = f"{place_type.replace('_', '-')}-{download}"
                made = [
                    make_place(github, place_type, f"{kind}-{number}", PROJECTS)
                    for number in range(count)
                ]
                unused[place_type, download] = made
                for place in made:
                    config += place.table(download=download, sync_index_interval=3600)
                    admin_secret += place.admin_table
        # And as PyPIHub was configured: its owners are made by the test.
        config += (
            f'[hub]\ntype = "github_projects"\nany_owner = true\napi_url = "{github.api_url}"\n'
        )
        with serving(tmp_path_factory.mktemp("server") / "on", config, admin_secret) as origin:
            yield World(github, origin, unused)


@pytest.fixture
def client(tmp_path: Path) -> MakeClient:
    """`client("uv")`: installed if it is not yet, and with a new, empty home."""

    def make(name: str) -> Client:
        home = tmp_path / f"home-of-{name}"
        home.mkdir(exist_ok=True)
        return Client(name, install_client(name), home)

    return make


@pytest.fixture
def before() -> Iterator[Before]:
    """`before(repository)`: a proxy that remembers what its server is asked."""
    with ExitStack() as stack:

        def make(repository: Repository) -> RecordingProxy:
            proxy = RecordingProxy(repository.origin)
            stack.callback(proxy.close)
            return proxy

        yield make


@pytest.mark.parametrize(("name", "place_type"), PUBLISHING)
def test_a_client_publishes_once_and_is_told_what_it_may_not(
    name: str, place_type: PlaceType, client: MakeClient, world: World
) -> None:
    """protocol 46, 55, 56, 57, 58: files, the same again, others, a reader, a wrong token."""
    place, repository = world.take(place_type)
    publisher = client(name)
    first = Release(note="first")
    for _ in range(2):
        outcome = publish(publisher, first, repository)
        assert outcome.code == 0, outcome.output
    sent = sent_files(publisher)
    assert len(sent) == 2
    assert stored(world.github, place) == sent
    assert repository.files() == sent

    outcome = publish(publisher, Release(note="second"), repository)
    if name == "hatch":  # it looks at names only, and sends nothing (protocol 94)
        assert (outcome.code, outcome.text.count("already exists")) == (0, 2), outcome.output
    else:
        how_shown(publisher, outcome, "409 Conflict", "File already exists")

    another = Release(version="2.0")
    outcome = publish(publisher, another, repository, secret=repository.read_secret)
    what = f"repository '{place.name}'" if place_type == "github" else "project 'demo'"
    sentence = f"this secret may read {what}, but not change it"
    how_shown(publisher, outcome, "403 Forbidden", sentence)

    outcome = publish(publisher, another, repository, secret="ghp_wrong")
    how_shown(publisher, outcome, "401 Unauthorized", "unknown repository or wrong secret")
    assert "ghp_wrong" not in outcome.output
    assert stored(world.github, place) == sent
    assert repository.files() == sent


@pytest.mark.parametrize(("name", "place_type", "download"), INSTALLING)
def test_a_client_resolves_locks_and_installs(
    name: str,
    place_type: PlaceType,
    download: str,
    client: MakeClient,
    before: Before,
    world: World,
    tmp_path: Path,
) -> None:
    """protocol 13, 16, 17, 29, 40: by metadata alone, past what is yanked, and from a lock.

    GitHub's storage refuses whoever sends it our credentials along, so nobody does.
    """
    _, repository = world.take(place_type, download)
    for release in (Release(requires=("solo",)), Release(version="2.0")):
        repository.put(*release.wheel())
    repository.put(*Release(name="solo").sdist())
    repository.run_command("yank", "demo", "2.0", "--reason", "broken on Mondays")
    proxy = before(repository)
    through, installer = repository.at(proxy.origin), client(name)
    wheel, both = "demo-1.0-py3-none-any.whl", {"demo": "1.0", "solo": "1.0"}

    outcome = lock(installer, [through.readable()], "demo")
    assert outcome.code == 0, outcome.output
    asked = dict(proxy.asked())
    assert f"{wheel}.metadata" in asked
    assert [leaf for leaf in asked if leaf.endswith(".whl")] == []
    assert _versions(installer) == both

    proxy.forget()
    target = make_venv(tmp_path / "locked")
    outcome = install_locked(installer, [through.readable()], target)
    assert (outcome.code, installed(target)) == (0, both), outcome.output
    assert dict(proxy.asked())[wheel] == (200 if download == "proxy" else 302)

    if download == "redirect":  # what follows is the same
        return
    target = make_venv(tmp_path / "refused")
    outcome = install(installer, [repository.readable("ghp_wrong")], "demo", target)
    assert (outcome.code != 0, installed(target)) == (True, {}), outcome.output
    assert "ghp_wrong" not in outcome.output

    target = make_venv(tmp_path / "target")
    outcome = install(client(name), [repository.readable()], "demo>=1", target)
    assert (outcome.code, installed(target)) == (0, both), outcome.output


@pytest.mark.parametrize("name", ["pip", "uv"])
def test_the_address_and_the_links_of_pypihub_work_with_clients_of_today(
    name: str, client: MakeClient, world: World, tmp_path: Path
) -> None:
    """http://OWNER:TOKEN@host/simple/, and /asset/<id>/<name> as lock files keep it."""
    place = make_place(world.github, "github_projects", f"hub-of-{name}", ("demo",))
    filename, content = Release().wheel()
    world.github.make_release(place.repositories[0], "v1.0", {filename: content})
    host = world.origin.removeprefix("http://")
    target = make_venv(tmp_path / "target")
    address = f"http://{place.name}:{place.reader}@{host}/simple/"
    outcome = install(client(name), [address], "demo", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output

    link = asset_id(world.github, place.repositories[0], filename)
    target = make_venv(tmp_path / "linked")
    url = f"http://{place.name}:{place.reader}@{host}/asset/{link}/{filename}"
    outcome = install(client(name), [address], f"demo @ {url}", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output


def _versions(client: Client) -> dict[str, str]:
    """What the lock file of a client has, beside the project that was locked."""
    document: Any = locked(client)
    packages = document["packages" if client.name == "pip" else "package"]
    return {each["name"]: each["version"] for each in packages if each["name"] != "consumer"}
