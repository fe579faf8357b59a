"""PyGithub, which knows nothing of us, finds a GitHub in the fake."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from io import BytesIO

import pytest
from github import Auth, Github, GithubException, InputGitTreeElement
from github.GithubRetry import GithubRetry

from .fake import FakeGitHub


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with FakeGitHub() as fake:
        fake.make_repo("acme", "pkgs", private=True)
        yield fake


def client(fake: FakeGitHub, token: str) -> Github:
    return Github(
        auth=Auth.Token(token),
        base_url=fake.enterprise_url,
        retry=GithubRetry(total=0),
        seconds_between_requests=None,
        seconds_between_writes=None,
    )


@pytest.fixture
def alice(fake: FakeGitHub) -> Iterator[Github]:
    with client(fake, fake.make_token("alice", {"acme/pkgs": "write"})) as github:
        yield github


def test_a_user_sees_themselves_and_their_rights(alice: Github) -> None:
    repository = alice.get_repo("acme/pkgs")
    assert alice.get_user().login == "alice"
    assert (repository.full_name, repository.private) == ("acme/pkgs", True)
    assert repository.permissions.push and not repository.permissions.admin
    assert repository.get_collaborator_permission("alice") == "write"
    assert [found.full_name for found in alice.get_user().get_repos()] == ["acme/pkgs"]


def test_a_release_is_drafted_filled_published_and_deleted(fake: FakeGitHub, alice: Github) -> None:
    repository = alice.get_repo("acme/pkgs")
    content = b"PK" * 5000
    draft = repository.create_git_release(
        "demo-1.0.zip", name="demo-1.0.zip", message="", draft=True
    )
    assert draft.draft and draft.raw_data["published_at"] is None
    assert fake.releases("acme/pkgs") == []

    asset = draft.upload_asset_from_memory(
        BytesIO(content), len(content), name="demo-1.0.zip", content_type="application/zip"
    )
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert (asset.name, asset.size, asset.state) == ("demo-1.0.zip", len(content), "uploaded")
    assert asset.raw_data["digest"] == digest

    published = draft.update_release(name="demo-1.0.zip", message='a = "b"', draft=False)
    assert (published.draft, published.body) == (False, 'a = "b"')
    assert [release.tag_name for release in repository.get_releases()] == ["demo-1.0.zip"]
    assert repository.get_release("demo-1.0.zip").id == draft.id
    head = repository.get_branch("main").commit.sha
    assert repository.get_git_ref("tags/demo-1.0.zip").object.sha == head
    assert fake.asset_content("acme/pkgs", "demo-1.0.zip", "demo-1.0.zip") == content

    published.delete_release()
    assert list(repository.get_releases()) == []
    repository.get_git_ref("tags/demo-1.0.zip").delete()
    assert fake.repo("acme/pkgs").refs.keys() == {"refs/heads/main"}


def test_listings_are_paged(fake: FakeGitHub, alice: Github) -> None:
    for number in range(65):
        fake.make_release("acme/pkgs", f"v{number}")
    found = [release.tag_name for release in alice.get_repo("acme/pkgs").get_releases()]
    assert found == [f"v{number}" for number in reversed(range(65))]
    assert len(fake.asked("GET /repos/acme/pkgs/releases")) == 3


def test_files_are_created_changed_and_deleted_by_compare_and_swap(alice: Github) -> None:
    repository = alice.get_repo("acme/pkgs")
    created = repository.create_file("index.toml", "Create", "a = 1\n", branch="main")
    sha = created["content"].sha
    repository.update_file("index.toml", "Update", "a = 2\n", sha, branch="main")
    with pytest.raises(GithubException) as stale:
        repository.update_file("index.toml", "Update", "a = 3\n", sha, branch="main")
    assert stale.value.status == 409
    with pytest.raises(GithubException) as unnamed:
        repository.create_file("index.toml", "Create", "a = 3\n", branch="main")
    assert unnamed.value.status == 422

    file = repository.get_contents("index.toml")
    assert not isinstance(file, list)
    assert file.decoded_content == b"a = 2\n"
    repository.delete_file("index.toml", "Delete", file.sha)
    top = repository.get_contents("")
    assert isinstance(top, list)
    assert [item.path for item in top] == ["README.md"]


def test_commits_are_made_of_blobs_and_trees(fake: FakeGitHub, alice: Github) -> None:
    repository = alice.get_repo("acme/pkgs")
    head = repository.get_branch("main").commit
    blob = repository.create_git_blob("aGVsbG8K", "base64")
    assert blob.sha == "ce013625030ba8dba906f756967f9e9ca394464a"  # echo hello | git hash-object
    tree = repository.create_git_tree(
        [InputGitTreeElement("a/b/hello", "100644", "blob", sha=blob.sha)],
        base_tree=repository.get_git_tree(head.sha),
    )
    commit = repository.create_git_commit("More", tree, [repository.get_git_commit(head.sha)])
    ref = repository.get_git_ref("heads/main")
    ref.edit(commit.sha)
    assert repository.get_git_blob(blob.sha).content.strip() == "aGVsbG8K"
    assert [item.path for item in repository.get_git_tree("main", recursive=True).tree] == [
        "README.md",
        "a",
        "a/b",
        "a/b/hello",
    ]
    assert fake.file("acme/pkgs", "a/b/hello") == b"hello\n"
    with pytest.raises(GithubException) as backwards:
        ref.edit(head.sha)
    assert backwards.value.status == 422
    ref.edit(head.sha, force=True)
    assert fake.file("acme/pkgs", "a/b/hello") is None


def test_repositories_are_created_for_users_and_organizations(fake: FakeGitHub) -> None:
    with client(fake, fake.make_token("alice", {"acme/pkgs": "write"})) as github:
        own = github.get_user().create_repo("mine", private=True, auto_init=True)
        assert own.owner.login == "alice" and own.permissions.admin
        shared = github.get_organization("acme").create_repo("more", private=True)
        assert (shared.full_name, shared.default_branch) == ("acme/more", "main")
        with pytest.raises(GithubException) as taken:
            github.get_organization("acme").create_repo("more")
        assert taken.value.status == 422
        shared.create_file(".github/workflows/update.yml", "Add", "on: push\n")
        own.delete()
        assert "alice/mine" not in {found.full_name for found in github.get_user().get_repos()}


def test_an_installation_has_no_user_and_shows_no_rights_but_has_them(fake: FakeGitHub) -> None:
    with client(fake, fake.make_token(rights={"acme/pkgs": "write"})) as github:
        repository = github.get_repo("acme/pkgs")
        assert not repository.permissions.push
        with pytest.raises(GithubException) as refused:
            assert github.get_user().login
        assert refused.value.status == 403
        repository.create_git_release("v1", name="v1", message="", draft=True)
        with pytest.raises(GithubException) as workflow:
            repository.create_file(".github/workflows/update.yml", "Add", "on: push\n")
        assert workflow.value.status == 403
    assert [release.tag_name for release in fake.releases("acme/pkgs", drafts=True)] == ["v1"]


def test_strangers_and_bad_tokens_are_refused(fake: FakeGitHub) -> None:
    for token, status in ((fake.make_token("mallory"), 404), ("ghp_wrong", 401)):
        with client(fake, token) as github, pytest.raises(GithubException) as refused:
            github.get_repo("acme/pkgs")
        assert refused.value.status == status


def test_graphql_answers(fake: FakeGitHub, alice: Github) -> None:
    _, answer = alice.requester.graphql_query(
        'query($name: String!) { repository(owner: "acme", name: $name) { nameWithOwner } }',
        {"name": "pkgs"},
    )
    assert answer["data"] == {"repository": {"nameWithOwner": "acme/pkgs"}}
