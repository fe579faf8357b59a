"""GitHub's own command line client finds a GitHub in the fake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.environments import Client, Outcome, install_client

from .fake import FakeGitHub

pytestmark = pytest.mark.needs("gh")

Gh = Callable[..., Outcome]


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with FakeGitHub() as fake:
        fake.make_repo("acme", "pkgs", private=True)
        yield fake


@pytest.fixture
def gh(fake: FakeGitHub, tmp_path: Path) -> Gh:
    """Runs `gh` as alice, who may write.

    Its host `github.localhost` is the one that it talks to without TLS; it is reached through the
    fake as an HTTP proxy.
    """
    token = fake.make_token("alice", {"acme/pkgs": "write"})
    client = Client("gh", install_client("gh"), tmp_path)
    environment = {
        "GH_HOST": "github.localhost",
        "GH_REPO": "github.localhost/acme/pkgs",
        "GH_ENTERPRISE_TOKEN": token,
        "GH_TOKEN": token,
        "GH_NO_UPDATE_NOTIFIER": "1",
        "GH_PROMPT_DISABLED": "1",
        "HTTP_PROXY": fake.api_url,
    }
    return lambda *arguments: client.run(*arguments, env=environment)


def answered(outcome: Outcome) -> str:
    assert outcome.code == 0, outcome.output
    return outcome.output.strip()


def test_it_publishes_lists_downloads_and_deletes_a_release(
    fake: FakeGitHub, gh: Gh, tmp_path: Path
) -> None:
    sent, kept = tmp_path / "demo-1!0.zip", tmp_path / "kept"
    sent.write_bytes(b"PK" * 5000)
    answered(gh("release", "create", "demo-1.0.zip", sent, "--notes", 'distrib = "demo"'))
    assert fake.asset_content("acme/pkgs", "demo-1.0.zip", "demo-1.0.zip") == b"PK" * 5000

    listed = json.loads(answered(gh("release", "list", "--json", "tagName,isDraft")))
    assert listed == [{"tagName": "demo-1.0.zip", "isDraft": False}]
    fields = "body,targetCommitish,assets"
    shown = json.loads(answered(gh("release", "view", "demo-1.0.zip", "--json", fields)))
    assert (shown["body"], shown["targetCommitish"]) == ('distrib = "demo"', "main")
    assert [asset["size"] for asset in shown["assets"]] == [10_000]

    answered(gh("release", "download", "demo-1.0.zip", "--dir", kept))
    assert [(file.name, file.read_bytes()) for file in kept.iterdir()] == [
        ("demo-1.0.zip", b"PK" * 5000)
    ]
    answered(gh("release", "delete", "demo-1.0.zip", "--yes", "--cleanup-tag"))
    assert fake.repo("acme/pkgs").releases == {}
    assert fake.repo("acme/pkgs").refs.keys() == {"refs/heads/main"}


def test_it_knows_the_names_that_github_gives_to_assets(
    fake: FakeGitHub, gh: Gh, tmp_path: Path
) -> None:
    fake.make_release("acme/pkgs", "v1")
    file = tmp_path / "démo-1!2.0~rc1+cpu.tar.gz"
    for content in (b"old", b"new"):
        file.write_bytes(content)
        # To replace an asset, it has to find it under its rewritten name.
        answered(gh("release", "upload", "v1", file, "--clobber"))
    assert fake.asset_content("acme/pkgs", "v1", "demo-1.2.0.rc1.cpu.tar.gz") is None
    assert fake.asset_content("acme/pkgs", "v1", "demo-1.2.0.rc1+cpu.tar.gz") == b"new"


def test_it_asks_graphql(gh: Gh) -> None:
    query = 'query={repository(owner: "acme", name: "pkgs") {isPrivate viewerPermission}}'
    answer = json.loads(answered(gh("api", "graphql", "-f", query)))
    assert answer["data"]["repository"] == {"isPrivate": True, "viewerPermission": "WRITE"}


def test_it_pages_through_everything(fake: FakeGitHub, gh: Gh) -> None:
    for number in range(45):
        fake.make_release("acme/pkgs", f"v{number}")
    tags = answered(
        gh("api", "--paginate", "repos/acme/pkgs/releases?per_page=20", "--jq", ".[].tag_name")
    )
    assert tags.split() == [f"v{number}" for number in reversed(range(45))]


def test_it_says_what_was_refused(fake: FakeGitHub, gh: Gh) -> None:
    fake.repo("acme/pkgs").immutable_releases = True
    release = fake.make_release("acme/pkgs", "v1", {"demo.zip": b"content"})
    (asset,) = release.assets
    refused = gh("api", "-X", "DELETE", f"repos/acme/pkgs/releases/assets/{asset}")
    assert refused.code == 1
    assert "immutable release" in refused.text and "HTTP 422" in refused.text
