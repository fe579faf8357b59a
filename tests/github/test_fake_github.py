"""What is peculiar to GitHub and matters to us, in the fake: plain requests, whole answers."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
import requests

from .fake import FakeGitHub
from .fake.calls import Answer
from .fake.rest import handlers

REPO = "/repos/acme/pkgs"
BINARY = {"Accept": "application/octet-stream"}


class Client(requests.Session):
    """Asks one GitHub with one token, and follows no redirects."""

    def __init__(self, fake: FakeGitHub, token: str | None) -> None:
        super().__init__()
        self._fake = fake
        if token is not None:
            self.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        url = path if path.startswith("http") else self._fake.api_url + path
        return self.request(method, url, **{"allow_redirects": False, "timeout": 10, **options})

    def upload(self, release: dict[str, Any], name: str, content: bytes) -> requests.Response:
        url = release["upload_url"].partition("{")[0]
        return self.ask("POST", url, params={"name": name}, data=content)


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with FakeGitHub() as fake:
        fake.make_repo("acme", "pkgs", private=True)
        yield fake


@pytest.fixture
def writer(fake: FakeGitHub) -> Client:
    return Client(fake, fake.make_token("alice", {"acme/pkgs": "write"}))


@pytest.fixture
def reader(fake: FakeGitHub) -> Client:
    return Client(fake, fake.make_token("bob", {"acme/pkgs": "read"}))


def draft(client: Client, tag: str = "demo-1.0.zip") -> dict[str, Any]:
    answer = client.ask("POST", f"{REPO}/releases", json={"tag_name": tag, "draft": True})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def publish(client: Client, release: dict[str, Any]) -> requests.Response:
    return client.ask("PATCH", f"{REPO}/releases/{release['id']}", json={"draft": False})


def errors(answer: requests.Response) -> list[tuple[str, str]]:
    return [(error["field"], error["code"]) for error in answer.json()["errors"]]


# Releases


def test_readers_see_no_drafts(writer: Client, reader: Client) -> None:
    release = draft(writer)
    asset = writer.upload(release, "demo-1.0.zip", b"content").json()
    for path in (
        f"{REPO}/releases/{release['id']}",
        f"{REPO}/releases/{release['id']}/assets",
        f"{REPO}/releases/tags/demo-1.0.zip",
        f"{REPO}/releases/assets/{asset['id']}",
    ):
        assert reader.ask("GET", path).status_code == 404
    assert reader.ask("GET", f"{REPO}/releases").json() == []
    assert [found["id"] for found in writer.ask("GET", f"{REPO}/releases").json()] == [
        release["id"]
    ]
    assert writer.ask("GET", f"{REPO}/releases/tags/demo-1.0.zip").status_code == 404


def test_the_second_of_two_drafts_of_one_tag_cannot_be_published(writer: Client) -> None:
    first, second = draft(writer), draft(writer)
    assert publish(writer, first).status_code == 200
    refused = publish(writer, second)
    assert (refused.status_code, errors(refused)) == (422, [("tag_name", "already_exists")])


def test_of_many_who_publish_one_tag_at_once_one_wins(writer: Client, fake: FakeGitHub) -> None:
    drafts = [draft(writer) for _ in range(8)]
    token = str(writer.headers["Authorization"]).split()[1]
    with ThreadPoolExecutor(len(drafts)) as pool:
        answers = pool.map(lambda release: publish(Client(fake, token), release), drafts)
        statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] + [422] * 7
    assert len(fake.releases("acme/pkgs")) == 1


@pytest.mark.parametrize("tag", ["a b", "a~1", "a..b", "a.lock", ".a", "a/", "@{", "a:b", ""])
def test_a_tag_must_be_a_name_that_git_takes(writer: Client, tag: str) -> None:
    refused = writer.ask("POST", f"{REPO}/releases", json={"tag_name": tag, "draft": True})
    assert (refused.status_code, errors(refused)) == (422, [("tag_name", "custom")])


def test_publishing_tags_the_head_of_its_target_unless_the_tag_is_there(
    fake: FakeGitHub, writer: Client
) -> None:
    old = fake.repo("acme/pkgs").refs["refs/heads/main"]
    first, second = draft(writer, "one"), draft(writer, "two")
    ref = {"ref": "refs/tags/two", "sha": old}
    assert writer.ask("POST", f"{REPO}/git/refs", json=ref).status_code == 201
    new = fake.commit("acme/pkgs", "index.toml", b"mtime = 1\n")
    for release in (first, second):
        assert publish(writer, release).status_code == 200
    assert fake.repo("acme/pkgs").refs == {
        "refs/heads/main": new,
        "refs/tags/one": new,
        "refs/tags/two": old,
    }


def test_listings_follow_the_date_of_the_tagged_commit(fake: FakeGitHub, reader: Client) -> None:
    ref = fake.repo("acme/pkgs").refs["refs/heads/main"]
    fake.clock.advance(60)
    fake.commit("acme/pkgs", "index.toml", b"mtime = 1\n")
    fake.make_release("acme/pkgs", "new-commit")
    fake.clock.advance(60)
    fake.repo("acme/pkgs").refs["refs/tags/old-commit"] = ref
    fake.make_release("acme/pkgs", "old-commit")
    listed = reader.ask("GET", f"{REPO}/releases").json()
    assert [release["tag_name"] for release in listed] == ["new-commit", "old-commit"]
    new, old = listed
    assert new["created_at"] > old["created_at"]
    assert new["published_at"] < old["published_at"]


def test_a_copy_of_a_release_is_one_of_its_own(fake: FakeGitHub, reader: Client) -> None:
    """For tests that need thousands; the bytes are shared, and nothing else is."""
    model = fake.make_release("acme/pkgs", "a-1.zip", {"a-1.zip": b"content"})
    (asset,) = model.assets.values()
    model.body = f"file {asset.id} of a-1.zip"
    fake.copy_release("acme/pkgs", "a-1.zip", ["a-2.zip", "a-3.zip"])
    listed = reader.ask("GET", f"{REPO}/releases").json()
    assert [release["tag_name"] for release in listed] == ["a-3.zip", "a-2.zip", "a-1.zip"]
    for release in listed:
        (asset_of_it,) = release["assets"]
        tag = release["tag_name"]
        assert (release["name"], asset_of_it["name"]) == (tag, tag)
        assert release["body"] == f"file {asset_of_it['id']} of {tag}"
        assert fake.asset_content("acme/pkgs", tag, tag) == b"content"
    assert len({release["assets"][0]["id"] for release in listed}) == 3
    assert reader.ask("GET", f"{REPO}/git/ref/tags/a-2.zip").status_code == 200


def test_a_listing_ends_and_says_so(fake: FakeGitHub, reader: Client) -> None:
    fake.listing_limit = 4
    for number in range(6):
        fake.make_release("acme/pkgs", f"v{number}")
    first = reader.ask("GET", f"{REPO}/releases?per_page=2")
    assert list(first.links) == ["next", "last"]
    last = reader.ask("GET", first.links["next"]["url"])
    assert [release["tag_name"] for release in last.json()] == ["v3", "v2"]
    assert list(last.links) == ["prev", "first"]
    beyond = reader.ask("GET", f"{REPO}/releases?per_page=2&page=3")
    assert (beyond.status_code, beyond.json()["message"]) == (
        422,
        "Only the first 4 results are available.",
    )


def test_notes_end_at_125000_characters(writer: Client) -> None:
    path = f"{REPO}/releases/{draft(writer)['id']}"
    assert writer.ask("PATCH", path, json={"body": "ä" * 125_000}).status_code == 200
    refused = writer.ask("PATCH", path, json={"body": "ä" * 125_001})
    assert (refused.status_code, errors(refused)) == (422, [("body", "custom")])


def test_an_empty_repository_takes_no_release_but_a_first_file(
    fake: FakeGitHub, writer: Client
) -> None:
    fake.make_repo("acme", "bare", empty=True)
    fake.set_rights("alice", {"acme/bare": "write"})
    release = writer.ask("POST", "/repos/acme/bare/releases", json={"tag_name": "v1"})
    assert release.status_code == 422
    assert writer.ask("GET", "/repos/acme/bare/git/ref/heads/main").status_code == 409
    file = {"message": "Begin", "content": "eA=="}
    assert writer.ask("PUT", "/repos/acme/bare/contents/x", json=file).status_code == 201
    assert fake.file("acme/bare", "x") == b"x"


def test_deleting_a_release_keeps_its_tag_and_deleting_a_tag_its_release(
    fake: FakeGitHub, writer: Client
) -> None:
    one, two = fake.make_release("acme/pkgs", "one"), fake.make_release("acme/pkgs", "two")
    assert writer.ask("DELETE", f"{REPO}/releases/{one.id}").status_code == 204
    assert "refs/tags/one" in fake.repo("acme/pkgs").refs
    assert writer.ask("DELETE", f"{REPO}/git/refs/tags/two").status_code == 204
    assert (fake.releases("acme/pkgs"), two.draft) == ([], True)


def test_an_immutable_release_keeps_its_assets_and_tag_until_it_is_deleted(
    fake: FakeGitHub, writer: Client
) -> None:
    fake.repo("acme/pkgs").immutable_releases = True
    release = draft(writer)
    asset = writer.upload(release, "demo-1.0.zip", b"content").json()
    release = publish(writer, release).json()
    assert release["immutable"]
    path, tag = f"{REPO}/releases/{release['id']}", f"{REPO}/git/refs/tags/demo-1.0.zip"
    assert writer.upload(release, "more.txt", b"more").status_code == 422
    assert writer.ask("DELETE", f"{REPO}/releases/assets/{asset['id']}").status_code == 422
    assert writer.ask("DELETE", tag).status_code == 422
    assert writer.ask("PATCH", path, json={"body": "yanked"}).json()["body"] == "yanked"

    assert writer.ask("DELETE", path).status_code == 204
    assert writer.ask("DELETE", tag).status_code == 204
    again = publish(writer, draft(writer))
    assert again.status_code == 422
    assert again.json()["errors"][0]["message"] == "tag_name was used by an immutable release"


# Assets


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("demo-1.0-py3-none-any.whl", "demo-1.0-py3-none-any.whl"),
        ("demo-1.0+cpu_1@x.zip", "demo-1.0+cpu_1@x.zip"),
        ("demo-1!2.0~rc1.tar.gz", "demo-1.2.0.rc1.tar.gz"),
        ("dé mo (1).zip", "de.mo.1.zip"),
        (".hidden.", "default.hidden"),
    ],
)
def test_special_characters_of_asset_names_become_full_stops(
    writer: Client, sent: str, kept: str
) -> None:
    release = draft(writer)
    assert writer.upload(release, sent, b"content").json()["name"] == kept
    again = writer.upload(release, sent, b"content")
    assert (again.status_code, errors(again)) == (422, [("name", "already_exists")])


def test_an_asset_is_described_and_downloaded_through_a_signed_address_that_expires(
    fake: FakeGitHub, writer: Client, reader: Client
) -> None:
    content = bytes(range(256)) * 100
    release = draft(writer)
    asset = writer.upload(release, "demo-1.0.zip", content).json()
    publish(writer, release)
    assert (asset["state"], asset["size"], asset["digest"]) == (
        "uploaded",
        len(content),
        f"sha256:{hashlib.sha256(content).hexdigest()}",
    )
    redirect = reader.ask("GET", asset["url"], headers=BINARY)
    url = redirect.headers["Location"]
    assert (redirect.status_code, redirect.content) == (302, b"")
    assert requests.get(url, timeout=10).content == content
    part = requests.get(url, headers={"Range": "bytes=256-511"}, timeout=10)
    assert (part.status_code, part.content) == (206, bytes(range(256)))
    assert part.headers["Content-Range"] == f"bytes 256-511/{len(content)}"
    head = requests.head(url, timeout=10)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(content)))

    assert reader.ask("GET", url).status_code == 400  # with the token beside the signature
    assert requests.get(url + "x", timeout=10).status_code == 403
    fake.clock.advance(fake.asset_url_validity.total_seconds())
    assert requests.get(url, timeout=10).status_code == 403


def test_a_private_asset_needs_the_token_and_a_public_one_does_not(
    fake: FakeGitHub, reader: Client
) -> None:
    fake.make_repo("acme", "open")
    stranger = Client(fake, None)
    for name, status in (("open", 302), ("pkgs", 404)):
        release = fake.make_release(f"acme/{name}", "v1", {"demo.zip": b"content"})
        (asset,) = release.assets
        path = f"/repos/acme/{name}/releases/assets/{asset}"
        assert stranger.ask("GET", path, headers=BINARY).status_code == status
        page = stranger.ask("GET", f"/acme/{name}/releases/download/v1/demo.zip")
        assert page.status_code == status


def test_without_digests_an_asset_says_null(fake: FakeGitHub, reader: Client) -> None:
    fake.offers_digests = False
    fake.make_release("acme/pkgs", "v1", {"demo.zip": b"content"})
    (release,) = reader.ask("GET", f"{REPO}/releases").json()
    assert [asset["digest"] for asset in release["assets"]] == [None]


def test_an_upload_that_breaks_leaves_a_starter(fake: FakeGitHub, writer: Client) -> None:
    release = draft(writer)
    fake.fail("reset", host="uploads")
    with pytest.raises(requests.ConnectionError):
        writer.upload(release, "demo-1.0.zip", bytes(10_000_000))
    assets = writer.ask("GET", f"{REPO}/releases/{release['id']}/assets").json()
    assert [(asset["name"], asset["state"], asset["size"]) for asset in assets] == [
        ("demo-1.0.zip", "starter", 0)
    ]
    again = writer.upload(release, "demo-1.0.zip", b"content")
    assert (again.status_code, errors(again)) == (422, [("name", "already_exists")])
    url = assets[0]["url"]
    assert writer.ask("GET", url, headers=BINARY).status_code == 404
    assert writer.ask("DELETE", url).status_code == 204
    assert writer.upload(release, "demo-1.0.zip", b"content").status_code == 201


# Files


def test_a_big_file_is_answered_raw_and_as_a_blob_but_not_as_json(
    fake: FakeGitHub, reader: Client
) -> None:
    content = b"x" * (1024**2 + 1)
    fake.commit("acme/pkgs", "index.toml", content)
    shape = reader.ask("GET", f"{REPO}/contents/index.toml").json()
    assert (shape["size"], shape["encoding"], shape["content"]) == (len(content), "none", "")
    raw = {"Accept": "application/vnd.github.raw+json"}
    assert reader.ask("GET", f"{REPO}/contents/index.toml", headers=raw).content == content
    assert reader.ask("GET", f"{REPO}/git/blobs/{shape['sha']}", headers=raw).content == content


def test_of_two_first_writers_of_a_file_one_wins(writer: Client) -> None:
    file = {"message": "Begin", "content": "eA=="}
    statuses = [
        writer.ask("PUT", f"{REPO}/contents/index.toml", json=file).status_code for _ in range(2)
    ]
    assert statuses == [201, 422]


def test_refs_are_made_found_and_removed(fake: FakeGitHub, writer: Client) -> None:
    sha = fake.repo("acme/pkgs").refs["refs/heads/main"]
    for tag in ("a-1", "a-2", "b-1"):
        ref = {"ref": f"refs/tags/{tag}", "sha": sha}
        assert writer.ask("POST", f"{REPO}/git/refs", json=ref).status_code == 201
    assert writer.ask("POST", f"{REPO}/git/refs", json=ref).status_code == 422
    found = writer.ask("GET", f"{REPO}/git/matching-refs/tags/a-").json()
    assert [(ref["ref"], ref["object"]["sha"]) for ref in found] == [
        ("refs/tags/a-1", sha),
        ("refs/tags/a-2", sha),
    ]
    assert writer.ask("DELETE", f"{REPO}/git/refs/tags/a-1").status_code == 204
    assert writer.ask("DELETE", f"{REPO}/git/refs/tags/a-1").status_code == 422
    assert writer.ask("GET", f"{REPO}/git/ref/tags/a-1").status_code == 404


def test_pages_and_workflows_are_switched_on(fake: FakeGitHub) -> None:
    admin = Client(fake, fake.make_token("root", {"acme/pkgs": "admin"}))
    source = {"source": {"branch": "gh-pages", "path": "/"}}
    assert admin.ask("GET", f"{REPO}/pages").status_code == 404
    assert admin.ask("POST", f"{REPO}/pages", json=source).status_code == 422
    fake.commit("acme/pkgs", "index.html", b"<html>", branch="gh-pages")
    assert admin.ask("POST", f"{REPO}/pages", json=source).status_code == 201
    assert admin.ask("POST", f"{REPO}/pages", json=source).status_code == 409
    assert admin.ask("GET", f"{REPO}/pages").json()["source"] == source["source"]

    closed = {"public": False}
    assert admin.ask("PUT", f"{REPO}/pages", json=closed).status_code == 422
    assert admin.ask("GET", f"{REPO}/pages").json()["public"] is True
    fake.restricts_pages = True
    assert admin.ask("PUT", f"{REPO}/pages", json=closed).status_code == 204
    assert admin.ask("GET", f"{REPO}/pages").json()["public"] is False

    run = f"{REPO}/actions/workflows/update.yml/dispatches"
    assert admin.ask("POST", run, json={"ref": "main"}).status_code == 404
    fake.commit("acme/pkgs", ".github/workflows/update.yml", b"on: workflow_dispatch\n")
    assert admin.ask("POST", run, json={"ref": "main"}).status_code == 204
    assert fake.repo("acme/pkgs").dispatches == [
        {"workflow": "update.yml", "ref": "main", "inputs": {}}
    ]


def test_a_commit_that_changes_a_workflow_is_tagged_by_those_only_who_may_change_one(
    fake: FakeGitHub, writer: Client
) -> None:
    job = Client(fake, fake.make_token(rights={"acme/pkgs": "write"}))
    fake.commit("acme/pkgs", ".github/workflows/update.yml", b"on: push\n")
    assert job.ask("POST", f"{REPO}/releases", json={"tag_name": "v1"}).status_code == 403
    assert writer.ask("POST", f"{REPO}/releases", json={"tag_name": "v1"}).status_code == 201
    fake.commit("acme/pkgs", "file", b"1")
    assert job.ask("POST", f"{REPO}/releases", json={"tag_name": "v2"}).status_code == 201


# Rights


def test_a_write_without_the_right_is_refused_in_the_way_of_each_kind_of_token(
    fake: FakeGitHub, reader: Client
) -> None:
    limited = fake.make_token("carol", {"acme/pkgs": "write"}, limited_to={"acme/pkgs": "read"})
    tokens = {
        reader: 404,
        Client(fake, limited): 403,
        Client(fake, fake.make_token(rights={"acme/pkgs": "read"})): 403,
    }
    for client, status in tokens.items():
        answer = client.ask("POST", f"{REPO}/releases", json={"tag_name": "v1"})
        assert answer.status_code == status
    permissions = Client(fake, limited).ask("GET", REPO).json()["permissions"]
    assert permissions["push"], "permissions are the user's, not the token's"
    fake.make_repo("acme", "open")
    anonymous = Client(fake, None)
    assert anonymous.ask("GET", REPO).status_code == 404
    assert "permissions" not in anonymous.ask("GET", "/repos/acme/open").json()
    refused = anonymous.ask("POST", "/repos/acme/open/releases", json={"tag_name": "v1"})
    assert refused.status_code == 401


def test_users_see_their_own_role_and_those_who_push_that_of_others(
    writer: Client, reader: Client
) -> None:
    path = f"{REPO}/collaborators"
    assert reader.ask("GET", f"{path}/bob/permission").json()["permission"] == "read"
    assert reader.ask("GET", f"{path}/alice/permission").status_code == 403
    assert writer.ask("GET", f"{path}/bob/permission").json()["role_name"] == "read"


def test_a_token_may_see_a_repository_and_nothing_of_what_is_in_it(fake: FakeGitHub) -> None:
    """`permissions` are those of the user all the same."""
    limited = fake.make_token("dave", {"acme/pkgs": "write"}, limited_to={"acme/pkgs": "metadata"})
    job = fake.make_token(rights={"acme/pkgs": "metadata"})
    for token, words in ((limited, "personal access token"), (job, "integration")):
        client = Client(fake, token)
        assert client.ask("GET", REPO).status_code == 200
        assert [each["name"] for each in client.ask("GET", "/orgs/acme/repos").json()] == ["pkgs"]
        refused = client.ask("GET", f"{REPO}/releases")
        assert (refused.status_code, words in refused.json()["message"]) == (403, True)
    assert Client(fake, limited).ask("GET", REPO).json()["permissions"]["push"] is True


def test_a_token_may_expire_or_be_revoked(fake: FakeGitHub) -> None:
    brief = fake.make_token(rights={"acme/pkgs": "read"}, valid_for=timedelta(hours=1))
    revoked = fake.make_token("alice", {"acme/pkgs": "read"})
    for token in (brief, revoked):
        assert Client(fake, token).ask("GET", REPO).status_code == 200
    fake.clock.advance(3600)
    fake.revoke(revoked)
    for token in (brief, revoked):
        assert Client(fake, token).ask("GET", REPO).status_code == 401


# Limits and conditional requests


def test_a_304_is_not_counted_and_downloads_change_the_listing(
    fake: FakeGitHub, reader: Client
) -> None:
    release = fake.make_release("acme/pkgs", "v1", {"demo.zip": b"content"})
    listing = reader.ask("GET", f"{REPO}/releases")
    known = {"If-None-Match": listing.headers["ETag"]}
    fake.forget_requests()
    unchanged = reader.ask("GET", f"{REPO}/releases", headers=known)
    assert (unchanged.status_code, unchanged.content, fake.counted) == (304, b"", 0)
    assert unchanged.headers["X-RateLimit-Used"] == listing.headers["X-RateLimit-Used"]
    (asset,) = release.assets
    reader.ask("GET", f"{REPO}/releases/assets/{asset}", headers=BINARY)
    assert reader.ask("GET", f"{REPO}/releases", headers=known).status_code == 200
    assert [(r.status, r.counted) for r in fake.requests] == [
        (304, False),
        (302, True),
        (200, True),
    ]


def test_an_etag_belongs_to_one_token(fake: FakeGitHub, writer: Client, reader: Client) -> None:
    known = {"If-None-Match": writer.ask("GET", f"{REPO}/releases").headers["ETag"]}
    assert reader.ask("GET", f"{REPO}/releases", headers=known).status_code == 200


def test_when_nothing_remains_everything_is_refused_until_the_hour_is_over(
    fake: FakeGitHub,
) -> None:
    token = fake.make_token("alice", {"acme/pkgs": "read"})
    client = Client(fake, token)
    fake.set_remaining(token, 1)
    last = client.ask("GET", REPO)
    assert (last.status_code, last.headers["X-RateLimit-Remaining"]) == (200, "0")
    refused = client.ask("GET", REPO)
    assert (refused.status_code, refused.headers["X-RateLimit-Remaining"]) == (403, "0")
    reset = int(refused.headers["X-RateLimit-Reset"])
    assert client.ask("GET", "/rate_limit").json()["rate"]["remaining"] == 0
    fake.clock.advance(reset - fake.now().timestamp())
    assert client.ask("GET", REPO).status_code == 200


def test_the_time_in_answers_is_that_of_the_clock(fake: FakeGitHub, reader: Client) -> None:
    fake.clock.advance(10 * 365 * 86400)
    answer = reader.ask("GET", REPO)
    date = datetime.strptime(answer.headers["Date"], "%a, %d %b %Y %H:%M:%S %Z")
    assert abs((date - fake.now().replace(tzinfo=None)).total_seconds()) <= 2


# Faults


def test_faults_strike_the_request_they_were_made_for(fake: FakeGitHub, reader: Client) -> None:
    fault = fake.fail("500", on="GET */releases", at=2, times=2)
    statuses = [reader.ask("GET", f"{REPO}/releases").status_code for _ in range(4)]
    assert (statuses, fault.happened) == ([200, 500, 500, 200], 2)
    assert reader.ask("GET", REPO).status_code == 200


def test_a_request_may_take_effect_although_its_answer_is_lost(
    fake: FakeGitHub, writer: Client
) -> None:
    for kind in ("reset", "cut"):
        fake.fail_next(kind, applied=True)
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            draft(writer, kind)
    fake.fail_next("502", applied=True)
    answer = writer.ask("POST", f"{REPO}/releases", json={"tag_name": "502", "draft": True})
    assert answer.status_code == 502
    fake.fail_next("reset")
    with pytest.raises(requests.ConnectionError):
        draft(writer, "never")
    made = [release.tag_name for release in fake.releases("acme/pkgs", drafts=True)]
    assert sorted(made) == ["502", "cut", "reset"]


def test_limits_name_their_end(fake: FakeGitHub, reader: Client) -> None:
    fake.fail_next("secondary")
    secondary = reader.ask("GET", REPO)
    assert (secondary.status_code, secondary.headers["Retry-After"]) == (403, "60")
    fake.fail_next("rate-limit")
    primary = reader.ask("GET", REPO)
    assert (primary.status_code, primary.headers["X-RateLimit-Remaining"]) == (403, "0")
    assert int(primary.headers["X-RateLimit-Reset"]) >= fake.now().timestamp() + 58
    fake.fail("429", seconds=7)
    busy = reader.ask("GET", REPO)
    assert (busy.status_code, busy.headers["Retry-After"]) == (429, "7")


def test_a_download_may_break_in_the_middle(fake: FakeGitHub, reader: Client) -> None:
    release = fake.make_release("acme/pkgs", "v1", {"demo.zip": bytes(1_000_000)})
    (asset,) = release.assets
    path = f"{REPO}/releases/assets/{asset}"
    url = reader.ask("GET", path, headers=BINARY).headers["Location"]
    fake.fail("cut", host="storage")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        assert requests.get(url, timeout=10).content
    assert requests.get(url, timeout=10).content == bytes(1_000_000)


def test_a_request_may_never_be_answered(fake: FakeGitHub, reader: Client) -> None:
    fake.fail_next("timeout")
    with pytest.raises(requests.Timeout):
        reader.ask("GET", REPO, timeout=0.2)


def test_closing_does_not_wait_for_those_who_wait() -> None:
    with FakeGitHub() as other:
        other.make_repo("acme", "pkgs")
        fault = other.fail_next("timeout")
        thread = threading.Thread(target=_ask_in_vain, args=(Client(other, None),))
        thread.start()
        while not fault.happened:
            time.sleep(0.01)
    thread.join(20)
    assert not thread.is_alive()


def _ask_in_vain(client: Client) -> None:
    with pytest.raises(requests.ConnectionError):
        client.ask("GET", REPO)


def test_a_hook_runs_before_a_request_is_decided(fake: FakeGitHub, writer: Client) -> None:
    def intrude(name: str) -> None:
        if name.startswith("PATCH"):
            fake.make_release("acme/pkgs", "demo-1.0.zip")

    release = draft(writer)
    fake.before_request(intrude)
    assert publish(writer, release).status_code == 422


# The descriptions


def test_a_request_that_is_not_as_described_is_a_violation(
    writer: Client, fake: FakeGitHub
) -> None:
    fake.allow_violations = True
    answer = writer.ask("POST", f"{REPO}/releases", json={"name": "no tag"})
    assert answer.status_code == 422
    writer.ask("GET", f"{REPO}/releases?sort=name")
    writer.ask("GET", f"{REPO}/stargazers")
    writer.ask("GET", f"{REPO}/pulls")
    assert [violation.partition(":")[0] for violation in fake.violations] == [
        "request",
        "request",
        "not described",
        "not built",
    ]


def test_an_answer_that_is_not_as_described_is_a_violation(fake: FakeGitHub) -> None:
    fake.allow_violations = True
    broken = {**handlers(), "GET /rate_limit": lambda _: Answer(body={"rate": None})}
    fake._front.handlers = broken
    assert Client(fake, None).ask("GET", "/rate_limit").status_code == 200
    (violation,) = fake.violations
    assert violation.startswith("answer: 200 GET /rate_limit: data must contain")


def test_leaving_after_a_violation_fails() -> None:
    with pytest.raises(AssertionError, match="not described: GET /nowhere"), FakeGitHub() as fake:
        Client(fake, None).ask("GET", "/nowhere")


def test_the_log_tells_what_was_asked_and_never_the_token(fake: FakeGitHub, reader: Client) -> None:
    reader.ask("GET", f"{REPO}/releases?per_page=5")
    (request,) = fake.requests
    assert (request.host, request.name, request.query, request.status, request.counted) == (
        "api",
        "GET /repos/acme/pkgs/releases",
        "per_page=5",
        200,
        True,
    )
    assert str(reader.headers["Authorization"]).split()[1] not in repr(request)


# Repositories that have moved, and what Enterprise servers do differently.


def test_a_repository_that_was_renamed_redirects_to_its_id(
    fake: FakeGitHub, writer: Client, reader: Client
) -> None:
    """Whoever may read it, by GET with 301 and otherwise with 307; strangers see nothing."""
    fake.make_release("acme/pkgs", "v1", {"demo-1.zip": b"content"})
    before = reader.ask("GET", f"{REPO}/releases?per_page=5")
    fake.move_repo("acme/pkgs", "acme/renamed")
    moved = reader.ask("GET", f"{REPO}/releases?per_page=5")
    number = fake.repo("acme/renamed").id
    target = f"{fake.api_url}/repositories/{number}/releases?per_page=5"
    assert (moved.status_code, moved.headers["Location"]) == (301, target)
    (old,), (new,) = before.json(), reader.ask("GET", target).json()
    assert (new["id"], new["url"]) == (old["id"], old["url"].replace("pkgs", "renamed"))
    assert reader.ask("GET", REPO).headers["Location"] == f"{fake.api_url}/repositories/{number}"
    assert writer.ask("POST", f"{REPO}/releases", json={"tag_name": "v2"}).status_code == 307
    stranger = Client(fake, fake.make_token("eve", {}))
    assert stranger.ask("GET", REPO).status_code == 404
    assert stranger.ask("GET", f"/repositories/{number}").status_code == 404


def test_a_new_repository_ends_the_redirection_of_its_name(
    fake: FakeGitHub, reader: Client
) -> None:
    fake.move_repo("acme/pkgs", "other/pkgs")
    assert reader.ask("GET", REPO).status_code == 301
    fake.make_repo("acme", "pkgs")
    assert reader.ask("GET", REPO).json()["full_name"] == "acme/pkgs"


def test_without_limits_there_are_none_to_ask_for(fake: FakeGitHub, reader: Client) -> None:
    fake.limits_rates = False
    assert reader.ask("GET", "/rate_limit").status_code == 404
    assert Client(fake, "wrong").ask("GET", "/rate_limit").status_code == 401


def test_assets_that_a_release_does_not_show_are_listed(fake: FakeGitHub, reader: Client) -> None:
    """GitHub does not say how many it shows; a test may choose."""
    fake.inlined_assets = 2
    release = fake.make_release("acme/pkgs", "v1", {f"demo-{n}.zip": b"content" for n in range(3)})
    (shown,) = reader.ask("GET", f"{REPO}/releases").json()
    listed = reader.ask("GET", f"{REPO}/releases/{release.id}/assets").json()
    assert [asset["name"] for asset in shown["assets"]] == ["demo-0.zip", "demo-1.zip"]
    assert [asset["name"] for asset in listed] == ["demo-0.zip", "demo-1.zip", "demo-2.zip"]
