"""The fake answers what GitHub has answered: recordings of the real one, asked again.

Compared are statuses, the fields and types of every answer, and every address in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from .fake import FakeGitHub
from .fake.described import FOLDER

OWNER = "octokit-fixture-org"
USER = "octokit-fixture-user-a"

# Fields that came after the recordings (of 2022), and those that have gone.
NEWER = {
    "digest",
    "documentation_url",
    "has_discussions",
    "immutable",
    "status",
    "updated_at",
    "user_view_type",
    "verified_at",
}
GONE = {"hub_url", "request_id"}
# What the fake does not have, because nobody here asks for it.
LEFT_OUT = {
    "advanced_security",
    "allow_auto_merge",
    "allow_merge_commit",
    "allow_rebase_merge",
    "allow_squash_merge",
    "allow_update_branch",
    "delete_branch_on_merge",
    "has_pull_requests",
    "merge_commit_message",
    "merge_commit_title",
    "squash_merge_commit_message",
    "squash_merge_commit_title",
    "temp_clone_token",
    "use_squash_pr_title_as_default",
    "web_commit_signoff_required",
}
ELSEWHERE = {"avatar_url", "download_url", "topics"}  # other hosts' addresses, and mere data


def recordings(scenario: str) -> list[dict[str, Any]]:
    recorded = json.loads((FOLDER / "recorded.json").read_text("utf-8"))
    return [one for one in recorded if one["scenario"] == scenario]


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with FakeGitHub() as fake:
        yield fake


class Replay:
    """Asks the fake what was asked then, and compares."""

    def __init__(
        self,
        fake: FakeGitHub,
        repository: str | None = None,
        *,
        default_branch: str = "main",
        empty: bool = False,
    ) -> None:
        rights = {}
        if repository is not None:
            fake.make_repo(OWNER, repository, default_branch=default_branch, empty=empty)
            rights[f"{OWNER}/{repository}"] = "admin"
        self._fake = fake
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"token {fake.make_token(USER, rights)}"
        self._numbers: dict[str, str] = {}  # ids of the recording -> ours
        self.uploads = ""

    def stands_for(self, recorded: str, ours: object) -> None:
        """An id or hash of the recording is this one here."""
        self._numbers[recorded] = str(ours)

    def ask(self, recorded: dict[str, Any], accept: str = "*/*") -> Any:
        """One request again; the answer must be as it was, and is returned."""
        host = self.uploads if recorded["host"] == "uploads" else self._fake.api_url
        path, body = recorded["path"], recorded["request"]
        as_json = isinstance(body, dict)
        answer = self._session.request(
            recorded["method"],
            host + self._ours(path),
            data=None if as_json else body,
            json=json.loads(self._ours(json.dumps(body))) if as_json else None,
            headers={"Accept": accept},
            timeout=30,
        )
        assert answer.status_code == recorded["status"], answer.text
        if isinstance(recorded["answer"], str):
            assert answer.text == recorded["answer"]
            return answer.text
        if recorded["answer"] is None:
            assert answer.content == b""
            return None
        compare(recorded["answer"], answer.json(), path)
        return answer.json()

    def _ours(self, text: str) -> str:
        return re.sub(r"\b(0{36}\d{4}|\d{4})\b", lambda m: self._numbers.get(m[0], m[0]), text)


def compare(recorded: Any, ours: Any, where: str) -> None:
    if isinstance(recorded, dict):
        assert isinstance(ours, dict), where
        assert recorded.keys() - ours.keys() <= GONE | LEFT_OUT, where
        assert ours.keys() - recorded.keys() <= NEWER, where
        for key in (recorded.keys() & ours.keys()) - ELSEWHERE:
            compare(recorded[key], ours[key], f"{where} {key}")
    elif isinstance(recorded, list):
        assert isinstance(ours, list), where
        for one, other in zip(recorded, ours, strict=True):
            compare(one, other, where)
    elif recorded is not None and ours is not None:
        assert type(recorded) is type(ours), where
        if isinstance(recorded, str) and recorded.startswith("https://"):
            assert address(ours) == address(recorded), where


def address(url: str) -> str:
    parts = urlsplit(url)
    rest = url.partition("://")[2].removeprefix(parts.netloc)
    if parts.netloc.startswith("docs."):
        return "documentation"
    return re.sub(r"\b[0-9a-f]{40}\b|(?<=/)\d{4}\b", "ID", rest)


def test_the_root(fake: FakeGitHub) -> None:
    (recorded,) = recordings("get-root")
    Replay(fake).ask(recorded)


def test_a_repository(fake: FakeGitHub) -> None:
    (recorded,) = recordings("get-repository")
    Replay(fake, "hello-world", default_branch="master").ask(recorded)


def test_assets_of_a_release(fake: FakeGitHub) -> None:
    replay = Replay(fake, "release-assets")
    release = fake.make_release(f"{OWNER}/release-assets", "v1.0.0", author=USER)
    by_tag, upload, *others = recordings("release-assets")
    shape = replay.ask(by_tag)
    replay.uploads = shape["upload_url"].partition("/repos/")[0]
    replay.stands_for("1000", release.id)
    asset = replay.ask(upload)
    assert (asset["name"], asset["label"]) == ("test-upload.txt", "test")
    replay.ask(others[0])
    replay.stands_for("1000", asset["id"])
    for recorded in others[1:]:
        replay.ask(recorded)


def test_a_conflict_of_assets(fake: FakeGitHub) -> None:
    replay = Replay(fake, "release-assets-conflict")
    release = fake.make_release(f"{OWNER}/release-assets-conflict", "v1.0.0", author=USER)
    by_tag, conflict, listing, deletion, upload = recordings("release-assets-conflict")
    shape = replay.ask(by_tag)
    replay.uploads = shape["upload_url"].partition("/repos/")[0]
    replay.stands_for("1000", release.id)
    replay.ask(upload)
    refused = replay.ask(conflict)
    assert refused["errors"] == conflict["answer"]["errors"]
    (asset,) = replay.ask(listing)
    replay.stands_for("1000", asset["id"])
    replay.ask(deletion)
    replay.stands_for("1000", release.id)
    replay.ask(upload)


def test_a_file_is_created(fake: FakeGitHub) -> None:
    (recorded,) = recordings("create-file")
    created = Replay(fake, "create-file", empty=True).ask(recorded)
    assert created["content"]["sha"] == recorded["answer"]["content"]["sha"]


def test_contents(fake: FakeGitHub) -> None:
    replay = Replay(fake, "hello-world", default_branch="master")
    fake.commit(f"{OWNER}/hello-world", "README.md", b"# hello-world")
    folder, file = recordings("get-content")
    replay.ask(folder)
    replay.ask(file, accept="application/vnd.github.v3.raw")


def test_refs(fake: FakeGitHub) -> None:
    replay = Replay(fake, "git-refs")
    old = fake.repo(f"{OWNER}/git-refs").refs["refs/heads/main"]
    new = fake.commit(f"{OWNER}/git-refs", "more", b"more")
    create, update, delete = recordings("git-refs")
    replay.stands_for(create["request"]["sha"], old)
    replay.stands_for(update["request"]["sha"], new)
    for recorded in (create, update, delete):
        replay.ask(recorded)
