"""Installers and publishers at the one address of a group; the attacks never win (protocol 77).

Upstream has the private names in version 99, and a name that is claimed here. Each client gets the
address of the group and no other index.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from tests.clients.environments import Client
from tests.clients.installers import install, install_locked, installed, lock
from tests.clients.publishers import publish
from tests.clients.releases import Release
from tests.clients.serving import Repository, serving
from tests.mirror.upstream import Upstream, running

pytestmark = pytest.mark.needs("clients")

MakeClient = Callable[[str], Client]

CONFIG = """
[mine]
type = "file_system"
read_secret = "reader"
write_secret = "writer"
claimed = ["acme-*"]
[closed]
type = "file_system"
read_secret = "boss"
write_secret = "closed-writer"
[off]
type = "file_system"
path = "not-there"
read_secret = "reader"
[pypi]
type = "mirror"
index_url = "{index_url}"
[all]
type = "group"
members = ["mine", "closed", "pypi"]
publish_to = "mine"
mix = ["torch"]
[broken]
type = "group"
members = ["mine", "off", "pypi"]
"""
GRAPH = {"app": "1.0", "helper": "1.0", "left": "1.0", "right": "1.0"}
FUTURE = "2099-01-01T00:00:00Z"


@dataclass(frozen=True)
class Place:
    """A server with the groups `all` and `broken`, and the upstream of its mirror."""

    origin: str
    upstream: Upstream

    def index(self, secret: str = "reader", group: str = "all") -> str:
        host = self.origin.removeprefix("http://")
        return f"http://{group}:{secret}@{host}/r/{group}/simple/"

    def repository(self, name: str, write_secret: str = "writer") -> Repository:
        return Repository(
            origin=self.origin, name=name, read_secret="reader", write_secret=write_secret
        )

    def send(self, release: Release, repository: str = "mine", secret: str = "writer") -> None:
        self.repository(repository, secret).put(*release.wheel())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running() as upstream:
        for release in (
            Release(name="left", requires=("right",)),
            Release(name="right"),
            Release(name="torch", version="3.0", note="public"),
            *(
                Release(name=name, version="99.0", note="attack")
                for name in ("app", "helper", "acme-gone", "gone", "plans", "published")
            ),
        ):
            upstream.add(*release.wheel())
        upstream.add(
            *Release(name="right", version="2.0").wheel(), upload_time=FUTURE, yanked="not yet"
        )
        config = CONFIG.format(index_url=upstream.index_url)
        with serving(tmp_path_factory.mktemp("server"), config) as origin:
            place = Place(origin, upstream)
            place.send(Release(name="app", requires=("helper", "left")))
            place.send(Release(name="helper"))
            place.send(Release(name="torch", version="2.0"))
            place.send(Release(name="gone"))
            place.send(Release(name="plans"), "closed", "closed-writer")
            gone = requests.delete(
                f"{origin}/r/mine/simple/gone/1.0", auth=("mine", "writer"), timeout=30
            )
            assert gone.status_code == 200, gone.text
            yield place


@pytest.mark.parametrize("name", ["pip", "uv", "poetry", "pdm"])
def test_a_graph_of_private_and_public_packages_is_locked_and_installed(
    place: Place, client: MakeClient, target: Path, name: str
) -> None:
    """The lock file has hashes, with which the files are checked."""
    used, indexes = client(name), [place.index()]
    locked = lock(used, indexes, "app")
    assert locked.code == 0, locked.output
    (file,) = (used.home / "consumer").glob("*lock*")
    assert len(set(re.findall(r"[0-9a-f]{64}", file.read_text()))) >= len(GRAPH)
    done = install_locked(used, indexes, target)
    assert done.code == 0, done.output
    assert {name: version for name, version in installed(target).items() if name in GRAPH} == GRAPH
    assert "attack" not in (next(target.rglob("app.py"))).read_text()


def test_pip_with_hashes(place: Place, client: MakeClient, target: Path, tmp_path: Path) -> None:
    """A private file that is replaced by the public one of its name would not be installed."""
    pip = client("pip")
    lines = []
    for name, version in GRAPH.items():
        page = requests.get(
            f"{place.origin}/r/all/simple/v1+json/{name}/", auth=("all", "reader"), timeout=30
        ).json()
        (sha256,) = [
            file["hashes"]["sha256"] for file in page["files"] if f"-{version}-" in file["filename"]
        ]
        lines.append(f"{name}=={version} --hash=sha256:{sha256}\n")
    (tmp_path / "requirements.txt").write_text("".join(lines))
    done = pip.run(
        *(f"--python={target}", "install", f"--index-url={place.index()}", "--require-hashes"),
        f"--requirement={tmp_path / 'requirements.txt'}",
    )
    assert done.code == 0, done.output
    assert installed(target).items() >= GRAPH.items()


def test_uv_leaves_out_what_is_newer(place: Place, client: MakeClient, target: Path) -> None:
    """Upload times are those of upstream, and of our own uploads."""
    place.upstream.change("right-2.0-py3-none-any.whl", yanked=None)
    uv = client("uv")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    done = install(uv, [place.index()], "app", target, f"--exclude-newer={tomorrow}")
    assert done.code == 0, done.output
    assert installed(target).items() >= GRAPH.items()
    place.upstream.change("right-2.0-py3-none-any.whl", yanked="not yet")
    # The same for a lock file, which `uv sync --locked` resolves and compares.
    options = ("--locked", f"--exclude-newer={tomorrow}")
    locked = lock(uv, [place.index()], "app", options[1])
    assert locked.code == 0, locked.output
    done = install_locked(uv, [place.index()], target, uv=options)
    assert done.code == 0, done.output
    assert installed(target).items() >= GRAPH.items()
    early = lock(uv, [place.index()], "app", "--exclude-newer=2026-03-01T00:00:00Z", "--upgrade")
    assert early.code != 0, early.output
    before = install(
        uv, [place.index()], "app", target, "--exclude-newer=2026-03-01T00:00:00Z", "--reinstall"
    )
    assert before.code != 0, before.output  # our own files are newer, and 99.0 is not taken


@pytest.mark.parametrize("name", ["pip", "uv", "poetry", "pdm"])
def test_what_is_not_ours_to_give_is_not_installed(
    place: Place, client: MakeClient, target: Path, name: str
) -> None:
    """A claimed name, a name that was ours once, and one that this caller may not read."""
    used = client(name)
    for project in ("acme-gone", "gone", "plans"):
        done = install(used, [place.index()], project, target)
        assert done.code != 0, f"{project}: {done.output}"
        assert project not in installed(target)
    asked = {each.project for each in place.upstream.asked if each.kind == "page"}
    assert not asked & {"acme-gone", "gone", "plans", "app", "helper"}


@pytest.mark.parametrize("name", ["pip", "uv"])
def test_while_a_private_storage_is_down_nothing_comes_from_upstream(
    place: Place, client: MakeClient, target: Path, name: str
) -> None:
    used = client(name)
    options = ["--retries=0"] if name == "pip" else []
    done = install(used, [place.index(group="broken")], "left", target, *options)
    assert done.code != 0, done.output
    done = install(used, [place.index(group="broken")], "helper", target)
    assert done.code == 0, done.output  # the member before it has it
    assert installed(target)["helper"] == "1.0"


@pytest.mark.parametrize("name", ["pip", "uv"])
def test_of_a_mixed_name_the_highest_version_is_taken(
    place: Place, client: MakeClient, target: Path, name: str
) -> None:
    used = client(name)
    for requirement, version in (("torch", "3.0"), ("torch<3", "2.0")):
        done = install(used, [place.index()], requirement, target)
        assert done.code == 0, done.output
        assert installed(target)["torch"] == version


@pytest.mark.parametrize("name", ["twine", "uv", "poetry", "pdm"])
def test_what_is_published_through_the_group_is_installed_from_it(
    place: Place, client: MakeClient, target: Path, name: str
) -> None:
    """At once, and in place of the public project of its name."""
    release = Release(
        name="published",
        version={"twine": "1.0", "uv": "1.1", "poetry": "1.2", "pdm": "1.3"}[name],
    )
    sent = publish(client(name), release, place.repository("all"))
    assert sent.code == 0, sent.output
    done = install(client("pip"), [place.index()], "published<50", target)
    assert done.code == 0, done.output
    assert installed(target)["published"] == release.version
    refused = publish(client(name), release, place.repository("broken"))
    assert refused.code != 0, refused.output
