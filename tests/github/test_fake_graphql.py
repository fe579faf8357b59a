"""GraphQL queries of PyPIHub's kind, executed on GitHub's own types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from .fake import FakeGitHub

# What PyPIHub asks for one page of a project, in our words.
PAGE = """
query($owner: String!, $repo: String!, $after: String) {
  repository(owner: $owner, name: $repo) {
    releases(first: 2, after: $after) {
      pageInfo { hasNextPage endCursor }
      nodes { tagName isDraft releaseAssets(first: 32) { nodes { id name size } } }
    }
  }
}
"""
ASSET = """
query($id: ID!) {
  node(id: $id) {
    ... on ReleaseAsset { url release { repository { owner { login } } } }
  }
}
"""


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with FakeGitHub() as fake:
        fake.make_repo("acme", "pkgs", private=True)
        for number in range(3):
            fake.make_release("acme/pkgs", f"v{number}", {f"demo-{number}.zip": b"content"})
        fake.make_release("acme/pkgs", "draft", draft=True)
        yield fake


def ask(fake: FakeGitHub, token: str, query: str, **variables: object) -> dict[str, Any]:
    answer = requests.post(
        fake.graphql_url,
        json={"query": query, "variables": variables},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def errors(answer: dict[str, Any]) -> list[tuple[str | None, str]]:
    return [(error.get("type"), error["message"]) for error in answer["errors"]]


def test_releases_are_paged_and_drafts_hidden_from_readers(fake: FakeGitHub) -> None:
    token, seen, after, more = fake.make_token("bob", {"acme/pkgs": "read"}), [], None, True
    while more:
        answer = ask(fake, token, PAGE, owner="acme", repo="pkgs", after=after)
        page = answer["data"]["repository"]["releases"]
        for release in page["nodes"]:
            (asset,) = release["releaseAssets"]["nodes"]
            seen.append((release["tagName"], release["isDraft"], asset["name"], asset["size"]))
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    assert seen == [(f"v{number}", False, f"demo-{number}.zip", 7) for number in (2, 1, 0)]


def test_an_asset_is_found_by_its_node_id_which_rest_shares(fake: FakeGitHub) -> None:
    token = fake.make_token("bob", {"acme/pkgs": "read"})
    listing = requests.get(
        f"{fake.api_url}/repos/acme/pkgs/releases",
        headers={"Authorization": f"token {token}"},
        timeout=30,
    ).json()
    answer = ask(fake, token, ASSET, id=listing[0]["assets"][0]["node_id"])
    node = answer["data"]["node"]
    assert node["release"]["repository"]["owner"]["login"] == "acme"
    assert requests.get(node["url"], timeout=30).content == b"content"


def test_what_a_token_may_not_see_is_not_there(fake: FakeGitHub) -> None:
    answer = ask(fake, fake.make_token("mallory"), PAGE, owner="acme", repo="pkgs")
    assert answer["data"] == {"repository": None}
    message = "Could not resolve to a Repository with the name 'acme/pkgs'."
    assert errors(answer) == [("NOT_FOUND", message)]


def test_a_query_of_fields_that_github_does_not_have_is_refused(fake: FakeGitHub) -> None:
    token = fake.make_token("bob", {"acme/pkgs": "read"})
    # "REST release assets carry a digest; GraphQL's do not."
    answer = ask(fake, token, ASSET.replace("url release", "digest release"), id="x")
    assert errors(answer) == [(None, "Cannot query field 'digest' on type 'ReleaseAsset'.")]
    assert "data" not in answer


@pytest.mark.parametrize(
    ("size", "kind"),
    [("", "MISSING_PAGINATION_BOUNDARIES"), ("(first: 101)", "EXCESSIVE_PAGINATION")],
)
def test_a_connection_needs_a_size_of_at_most_a_hundred(
    fake: FakeGitHub, size: str, kind: str
) -> None:
    token = fake.make_token("bob", {"acme/pkgs": "read"})
    releases = f"releases{size} {{ totalCount }}"
    answer = ask(fake, token, f'{{ repository(owner: "acme", name: "pkgs") {{ {releases} }} }}')
    assert [error["type"] for error in answer["errors"]] == [kind]


def test_an_installation_has_no_viewer_and_nobody_asks_without_a_token(fake: FakeGitHub) -> None:
    token = fake.make_token(rights={"acme/pkgs": "write"})
    answer = ask(fake, token, "{ viewer { login } }")
    assert errors(answer) == [("FORBIDDEN", "Resource not accessible by integration")]
    anonymous = requests.post(fake.graphql_url, json={"query": "{ viewer { login } }"}, timeout=30)
    assert anonymous.status_code == 401


def test_repositories_of_an_owner_and_files_are_found(fake: FakeGitHub) -> None:
    fake.make_repo("acme", "open")
    fake.commit("acme/open", "index.toml", b"mtime = 1\n")
    query = """
    {
      repositoryOwner(login: "acme") {
        repositories(first: 100, orderBy: {field: NAME, direction: ASC}) {
          totalCount
          nodes {
            name
            isPrivate
            viewerPermission
            object(expression: "HEAD:index.toml") { ... on Blob { text byteSize } }
          }
        }
      }
      rateLimit { remaining }
    }
    """
    answer = ask(fake, fake.make_token("alice", {"acme/pkgs": "write"}), query)
    assert answer["data"] == {
        "repositoryOwner": {
            "repositories": {
                "totalCount": 2,
                "nodes": [
                    {
                        "name": "open",
                        "isPrivate": False,
                        "viewerPermission": "READ",
                        "object": {"text": "mtime = 1\n", "byteSize": 10},
                    },
                    {
                        "name": "pkgs",
                        "isPrivate": True,
                        "viewerPermission": "WRITE",
                        "object": None,
                    },
                ],
            }
        },
        "rateLimit": {"remaining": 4999},
    }
