"""The content of a fake GitHub as JSON, to be kept in a file and restored; tokens are left out.

`tests/data/*/make.py` loads this file together with the fake GitHub of an earlier commit.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tests.github.fake import FakeGitHub
from tests.github.fake.git import FILE_MODE, Commit, Person, TreeEntry
from tests.github.fake.state import Account, Asset, Hub, Release, Repository, Role

_ASSET = ("id", "name", "label", "content_type", "state")
_RELEASE = ("id", "tag_name", "target_commitish", "name", "body", "prerelease", "untagged")
_REPOSITORY = ("id", "name", "private", "default_branch", "description")


def state_of(github: FakeGitHub) -> dict[str, Any]:
    """Accounts, repositories, commits of the default branches, releases and assets."""
    hub = github._hub
    with hub.lock:
        return {
            "accounts": [
                {
                    "id": account.id,
                    "login": account.login,
                    "type": account.type,
                    "created_at": _text_of(account.created_at),
                }
                for account in hub.accounts.values()
            ],
            "repositories": [_repository(each) for each in hub.repositories.values()],
        }


def restore(github: FakeGitHub, state: Mapping[str, Any]) -> None:
    """Restore everything on an empty fake GitHub, with the same ids.

    Commits get new ids if the text of a file was changed in `state`.
    """
    hub = github._hub
    ids = [0]
    with hub.lock:
        assert not hub.accounts and not hub.repositories
        for account in state["accounts"]:
            ids.append(account["id"])
            hub.accounts[account["login"].lower()] = Account(
                id=account["id"],
                login=account["login"],
                type=account["type"],
                created_at=_time(account["created_at"]),
            )
        for kept in state["repositories"]:
            ids += [kept["id"], *(release["id"] for release in kept["releases"])]
            ids += [asset["id"] for release in kept["releases"] for asset in release["assets"]]
            repository = _restored_repository(hub, kept)
            hub.repositories[repository.full_name.lower()] = repository
        hub._ids = itertools.count(max(ids) + 1)


def restore_token(github: FakeGitHub, raw: str, user: str) -> None:
    """Add a token with this text, which has all rights of its user."""
    hub = github._hub
    with hub.lock:
        token = hub.add_token(hub.account(user), {}, fine_grained=False, expires_at=None)
        hub.tokens[raw] = hub.tokens.pop(token.raw)
        token.raw = raw


# To JSON


def _repository(repository: Repository) -> dict[str, Any]:
    return {
        **{key: getattr(repository, key) for key in _REPOSITORY},
        "owner": repository.owner.login,
        "created_at": _text_of(repository.created_at),
        "pushed_at": _text_of(repository.pushed_at),
        "roles": {login: role.name.lower() for login, role in repository.roles.items()},
        "refs": dict(repository.refs),
        "commits": _commits(repository),
        "releases": [_release(release) for release in repository.releases.values()],
    }


def _commits(repository: Repository) -> list[dict[str, Any]]:
    """All commits, oldest first, each with the files that it changed (None: removed)."""
    head = repository.head()
    kept, before = [], dict[str, Any]()
    for commit in reversed([] if head is None else list(repository.git.history(head.sha))):
        assert len(commit.parents) <= 1, "a merge cannot be kept"
        after = {
            path: _kept(repository.git.blob(entry.sha) or b"")
            for path, entry in repository.git.walk(commit.tree)
            if entry.kind == "blob"
        }
        changed = {path: kept for path, kept in after.items() if before.get(path) != kept}
        kept.append(
            {
                "sha": commit.sha,
                "author": _person(commit.author),
                "committer": _person(commit.committer),
                "message": commit.message,
                "files": changed | dict.fromkeys(before.keys() - after.keys()),
            }
        )
        before = after
    return kept


def _release(release: Release) -> dict[str, Any]:
    return {
        **{key: getattr(release, key) for key in _RELEASE},
        "author": release.author.login,
        "drafted_at": _text_of(release.drafted_at),
        "updated_at": _text_of(release.updated_at),
        "published_at": None if release.published_at is None else _text_of(release.published_at),
        "assets": [_asset(asset) for asset in release.assets.values()],
    }


def _asset(asset: Asset) -> dict[str, Any]:
    return {
        **{key: getattr(asset, key) for key in _ASSET},
        "uploader": asset.uploader.login,
        "created_at": _text_of(asset.created_at),
        "updated_at": _text_of(asset.updated_at),
        "content": _kept(asset.path.read_bytes()),
    }


def _kept(content: bytes) -> dict[str, str]:
    try:
        return {"text": content.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _person(person: Person) -> dict[str, str]:
    return {"name": person.name, "email": person.email, "date": _text_of(person.date)}


def _text_of(moment: datetime) -> str:
    return moment.isoformat()


# From JSON


def _restored_repository(hub: Hub, kept: Mapping[str, Any]) -> Repository:
    repository = Repository(
        **{key: kept[key] for key in _REPOSITORY},
        owner=hub.account(kept["owner"]),
        created_at=_time(kept["created_at"]),
        pushed_at=_time(kept["pushed_at"]),
        roles={login: Role[role.upper()] for login, role in kept["roles"].items()},
    )
    new_ids: dict[str, str] = {}
    last: Commit | None = None
    for commit in kept["commits"]:
        last = _restored_commit(repository, commit, last)
        new_ids[commit["sha"]] = last.sha
    repository.refs = {ref: new_ids[sha] for ref, sha in kept["refs"].items()}
    for release in kept["releases"]:
        repository.releases[release["id"]] = Release(
            **{key: release[key] for key in _RELEASE},
            author=hub.account(release["author"]),
            drafted_at=_time(release["drafted_at"]),
            updated_at=_time(release["updated_at"]),
            published_at=release["published_at"] and _time(release["published_at"]),
            assets={asset["id"]: _restored_asset(hub, asset) for asset in release["assets"]},
        )
    return repository


def _restored_commit(
    repository: Repository, kept: Mapping[str, Any], parent: Commit | None
) -> Commit:
    git = repository.git
    tree = None if parent is None else parent.tree
    for path, content in kept["files"].items():
        entry = None
        if content is not None:
            sha = git.add_blob(_content(content))
            entry = TreeEntry(name=path.rpartition("/")[2], mode=FILE_MODE, sha=sha)
        tree = git.with_entry(tree, path, entry)
    return git.add_commit(
        tree=git.add_tree({}) if tree is None else tree,
        parents=() if parent is None else (parent.sha,),
        author=_restored_person(kept["author"]),
        committer=_restored_person(kept["committer"]),
        message=kept["message"],
    )


def _restored_asset(hub: Hub, kept: Mapping[str, Any]) -> Asset:
    content = _content(kept["content"])
    path = hub.folder / f"asset-{kept['id']}"
    path.write_bytes(content)
    return Asset(
        **{key: kept[key] for key in _ASSET},
        uploader=hub.account(kept["uploader"]),
        created_at=_time(kept["created_at"]),
        updated_at=_time(kept["updated_at"]),
        path=path,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _content(kept: Mapping[str, str]) -> bytes:
    return kept["text"].encode() if "text" in kept else base64.b64decode(kept["base64"])


def _restored_person(kept: Mapping[str, str]) -> Person:
    return Person(name=kept["name"], email=kept["email"], date=_time(kept["date"]))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
