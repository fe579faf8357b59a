"""The contract over repositories of their own on a fake GitHub, and what is peculiar to reading."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tomli

import private_pypi_github.client
import private_pypi_github.projects
from private_pypi.backend import Access, AnyBackend, Folders, Secret
from private_pypi.config import Source, check_repository
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    FileNotFound,
    InvalidUpload,
    NotAllowed,
    PrivatePypiError,
    ProjectNotFound,
    WrongSecret,
)
from private_pypi.filenames import normalize
from private_pypi.model import DistributionFile, Redirect, StoredFile
from private_pypi.retrying import retrying
from private_pypi.testing.contract import (
    AssetIdsContract,
    DeletingContract,
    PartsContract,
    ProcessesContract,
    RightsPerProjectContract,
    YankingContract,
    content_of,
    make_upload,
    new_folders,
    outcome,
    published,
)
from private_pypi_github import GitHubProjectsBackend, GitHubProjectsSettings
from private_pypi_github.client import Address, Chunks, Client, Connection
from private_pypi_github.project_names import Replacement
from tests.github.fake import FakeGitHub
from tests.github.fake.state import node_id
from tests.github.owner import (
    DAY,
    PROJECTS,
    WHEEL,
    Storage,
    asset_id,
    impatient,
    leftovers,
    make_storage,
    open_projects,
    restarted,
    with_settings,
    with_token,
)


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with FakeGitHub() as github:
        yield github


# The contract.


class ProjectsContract(
    ProcessesContract,
    RightsPerProjectContract,
    DeletingContract,
    YankingContract,
    PartsContract,
    AssetIdsContract,
):
    """What the contract needs to know of this storage."""

    keeps_records: ClassVar[bool] = False
    github: FakeGitHub

    @pytest.fixture
    def storage(self, github: FakeGitHub) -> Storage:
        return self.make_storage(github)

    def make_storage(self, github: FakeGitHub) -> Storage:
        return make_storage(github)

    def open_backend(
        self, storage: Storage, secret: str, folders: Folders
    ) -> GitHubProjectsBackend:
        return open_projects(storage, secret, folders)

    @pytest.fixture(autouse=True)
    def keep_github(self, github: FakeGitHub, tmp_path: Path) -> None:
        self.github, self.tmp_path = github, tmp_path

    def leftovers(self, storage: Storage) -> list[str]:
        """What no reader sees, a day later and after one more upload to each repository."""
        self.github.clock.advance(DAY + 60)
        writer = self.open_another(storage, self.tmp_path)
        for project in PROJECTS:
            name = f"{project.replace('-', '_')}-99.0.tar.gz"
            upload = make_upload(self.tmp_path, name, b"last")
            writer.delete_file(published(upload, writer.put_file(upload)))
        return [left for project in PROJECTS for left in leftovers(self.github, f"acme/{project}")]

    def asset_id(self, storage: Storage, stored: StoredFile) -> str:
        return asset_id(self.github, "acme/demo", stored.filename)

    def test_an_empty_file_is_a_file(self, backend: AnyBackend, tmp_path: Path) -> None:
        """GitHub refuses empty assets, and no distribution file is empty: so it is said."""
        with pytest.raises(InvalidUpload, match="GitHub stores no empty files"):
            backend.put_file(make_upload(tmp_path, "demo-1.0.zip", b""))
        assert self.github.releases("acme/demo", drafts=True) == []

    def test_a_big_file_takes_constant_memory(self, backend: AnyBackend, tmp_path: Path) -> None:
        """The fake takes memory, too, when it checks the first request of a kind."""
        backend.put_file(make_upload(tmp_path, "other-1.0.tar.gz", b"content"))
        super().test_a_big_file_takes_constant_memory(backend, tmp_path)


class TestProxied(ProjectsContract):
    """Files stream through us; nothing but the owner is configured."""


class TestRedirected(ProjectsContract):
    """Clients get their files from GitHub itself."""

    def make_storage(self, github: FakeGitHub) -> Storage:
        return make_storage(github, download="redirect")


class TestEnterpriseServer(ProjectsContract):
    """Another path, no digests, no limits, and ties listed in any order."""

    def make_storage(self, github: FakeGitHub) -> Storage:
        github.offers_digests = False
        github.shuffles_ties = True
        return make_storage(github, api_url=github.enterprise_url)


@pytest.fixture
def storage(github: FakeGitHub) -> Storage:
    return make_storage(github)


@pytest.fixture
def backend(storage: Storage, tmp_path: Path) -> GitHubProjectsBackend:
    return open_projects(storage, "write-secret", new_folders(tmp_path))


def names(stored: Iterator[StoredFile]) -> list[str]:
    return [file.filename for file in stored]


def file_of(stored: StoredFile, content: bytes, project: str = "demo") -> DistributionFile:
    """What the core makes of a file that somebody attached to a release."""
    return DistributionFile(
        project=normalize(project),
        filename=stored.filename,
        version="1.0",
        size=stored.size,
        sha256=hashlib.sha256(content).hexdigest(),
        uploaded_at=stored.uploaded_at,
        requires_python=None,
        yanked=None,
        core_metadata_sha256=None,
        location=stored.location,
    )


# The table.


def checked(text: str) -> GitHubProjectsSettings:
    """The settings that a table of the configuration makes."""
    source = Source(text=text, name="config.toml", folder=None)
    table = tomli.loads(text)["mine"]
    settings = check_repository("mine", table, source=source, environ={}).backend
    assert isinstance(settings, GitHubProjectsSettings)
    return settings


def test_a_table_has_rules_and_filters() -> None:
    settings = checked(
        """
        [mine]
        type = "github_projects"
        owner = "acme"
        prereleases = false
        include = ["*.whl"]
        exclude = ["*-win32.whl"]
        [[mine.replace]]
        patt = "^acme-"
        repl = ""
        [[mine.replace]]
        patt = "-"
        repl = "_"
        """
    )
    assert settings == GitHubProjectsSettings(
        name="mine",
        max_file_bytes=2**31 - 1,
        owner="acme",
        prereleases=False,
        include=("*.whl",),
        exclude=("*-win32.whl",),
        replace=(Replacement("^acme-", ""), Replacement("-", "_")),
    )
    assert settings.rules.repository("acme-demo-x") == "demo_x"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("", "owner: missing"),
        ('owners = ["acme", "other"]', "any_owner = true"),
        ('owner = "acme"\nowners = ["other"]', "owners: needs any_owner = true"),
        ('owner = "acme/demo"', "owner: 'acme/demo' is no user"),
        ('any_owner = true\nowners = ["acme", ""]', "owners: '' is no user"),
        ('owner = "acme"\napi_url = "ftp://x"', "api_url: 'ftp://x' is no address"),
        ('owner = "acme"\nreplace = [{patt = "(", repl = ""}]', r"replace\[0\]\.patt: '\('"),
        ('owner = "acme"\nreplace = [{patt = "a", repl = "$1"}]', r"replace\[0\]\.repl"),
        ('owner = "acme"\nreplace = [{patt = "a"}]', "replace: must be a list, each a table of "),
        ('owner = "acme"\nreplace = [{patt = "a", repl = "", x = 1}]', "replace: must be a list"),
        ('owner = "acme"\nreplace = {patt = "a", repl = ""}', "replace: must be a list"),
    ],
)
def test_a_mistake_in_a_table_is_named(keys: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        checked(f'[mine]\ntype = "github_projects"\n{keys}\n')


def test_one_of_owners_is_the_owner() -> None:
    assert checked('[mine]\ntype = "github_projects"\nowners = ["acme"]').owner == "acme"


def test_an_owner_is_served_under_its_own_name() -> None:
    """Whatever its case, with all else that the table says, over the same sockets."""
    table = replace(checked('[mine]\ntype = "github_projects"\nany_owner = true'), include=("*",))
    tenant = table.tenant("acme")
    assert tenant == replace(table, name="acme", owner="acme", any_owner=False)
    assert tenant.connection is table.connection
    assert table.tenant("acme") == tenant
    for user in ("__token__", "a/b", "", "-x", "a b"):
        assert table.tenant(user) is None
    assert tenant.tenant("other") is None


@pytest.mark.parametrize("owner", ["", 'owner = "Third"'])
def test_only_allowed_owners_are_served_under_their_names(owner: str) -> None:
    text = f'[mine]\ntype = "github_projects"\nany_owner = true\nowners = ["Acme"]\n{owner}'
    table = checked(text)
    served = [user for user in ("acme", "other", "third") if table.tenant(user)]
    assert served == (["acme", "third"] if owner else ["acme"])


def test_a_table_without_an_owner_says_how_it_is_asked(storage: Storage, tmp_path: Path) -> None:
    """It tells whether a token is good, and nothing else."""
    backend = with_settings(
        open_projects(storage, "write-secret", new_folders(tmp_path)), owner=None, any_owner=True
    )
    assert backend.access() is Access.READ
    assert list(backend.projects()) == []
    calls: list[Callable[[], Any]] = [
        lambda: backend.access("demo"),
        lambda: backend.project_files("demo"),
        lambda: backend.put_file(make_upload(tmp_path, WHEEL, b"content")),
        lambda: backend.open_asset("x", WHEEL),
    ]
    for call in calls:
        with pytest.raises(NotAllowed, match="use the name of an owner on GitHub"):
            call()


# Access.


def test_whether_a_token_is_good_counts_against_no_limit(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """Nor does it need a user."""
    for token in (
        github.make_token("rita"),
        github.make_token("rita", limited_to={}),
        github.make_token(rights={"acme/demo": "read"}),
    ):
        assert with_token(backend, token).access() is Access.READ
    assert [request.counted for request in github.requests] == [False] * 3


def test_an_enterprise_server_without_limits_knows_its_tokens(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    github.limits_rates = False
    assert backend.access() is Access.READ
    assert with_token(backend, "wrong").access() is Access.NONE


def test_a_token_without_a_user_may_write_until_github_refuses(
    github: FakeGitHub, backend: GitHubProjectsBackend, tmp_path: Path
) -> None:
    writer = with_token(backend, github.make_token(rights={"acme/demo": "write"}))
    reader = with_token(backend, github.make_token(rights={"acme/demo": "read"}))
    assert [each.access("demo") for each in (writer, reader)] == [Access.WRITE, Access.WRITE]
    assert writer.access("other") is Access.NONE
    writer.put_file(make_upload(tmp_path, WHEEL, b"content"))
    with pytest.raises(NotAllowed, match="Resource not accessible by integration"):
        reader.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))


def test_everybody_may_read_a_public_repository(github: FakeGitHub, tmp_path: Path) -> None:
    storage = make_storage(github, private=False)
    stranger = open_projects(storage, github.make_token("eve"), new_folders(tmp_path))
    assert stranger.access("demo") is Access.READ
    assert open_projects(storage, "", new_folders(tmp_path)).access() is Access.NONE


def test_the_right_of_a_project_is_asked_for_conditionally(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    assert backend.access("demo") is Access.WRITE
    github.forget_requests()
    assert backend.access("demo") is Access.WRITE
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)]
    github.set_rights("walter", {"acme/demo": "read"})
    assert backend.access("demo") is Access.READ
    github.set_rights("walter", {"acme/demo": "none"})
    assert backend.access("demo") is Access.NONE


def test_the_case_of_an_owner_does_not_matter(
    github: FakeGitHub, backend: GitHubProjectsBackend, tmp_path: Path
) -> None:
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    loud = with_settings(backend, owner="ACME")
    (stored,) = loud.project_files("demo")
    assert content_of(loud.open_file(file_of(stored, b"content"))) == b"content"
    assert loud.read_part(stored.location, 0, 3) == b"con"
    assert "demo" in list(loud.projects())


def test_a_token_that_ended_is_a_wrong_secret_everywhere(
    github: FakeGitHub, storage: Storage, backend: GitHubProjectsBackend, tmp_path: Path
) -> None:
    """Never an absence: clients look elsewhere then."""
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    (stored,) = backend.project_files("demo")
    file = replace(file_of(stored, b"content"), core_metadata_sha256="0" * 64)
    github.revoke(storage.tokens["write-secret"])
    calls: list[Callable[[], Any]] = [
        lambda: backend.access("demo"),
        lambda: backend.project_files("demo"),
        lambda: backend.projects(),
        lambda: backend.open_file(file),
        lambda: backend.open_core_metadata(file),
        lambda: backend.read_part(stored.location, 0, 3),
        lambda: backend.open_asset("x", WHEEL),
        lambda: backend.put_file(make_upload(tmp_path, WHEEL, b"content")),
        lambda: backend.delete_file(file),
    ]
    for call in calls:
        with pytest.raises(WrongSecret):
            call()
    assert backend.access() is Access.NONE


def test_what_an_organization_forbids_is_said(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """A token that is not authorized for its single sign-on is told so, and not "not found"."""
    calls: list[Callable[[], Any]] = [
        lambda: backend.access("demo"),
        lambda: backend.project_files("demo"),
    ]
    for call in calls:
        github.fail_next("403")
        with pytest.raises(NotAllowed, match="Resource not accessible"):
            call()


def test_one_false_absence_of_what_was_there_is_not_believed(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """In moments of trouble GitHub answers 404, too; of what nobody ever saw once is enough."""
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    assert backend.access("demo") is Access.WRITE
    github.fail("404", on="GET /repos/acme/demo")
    assert backend.access("demo") is Access.WRITE
    assert backend.access("never-was") is Access.NONE
    assert len(github.asked("GET /repos/acme/never-was")) == 1
    github.fail("404", on="GET /repos/acme/demo/releases")
    assert names(backend.project_files("demo")) == [WHEEL]


# What a project has.


def test_only_distribution_files_of_the_project_are_listed(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """PyPIHub listed everything, also drafts for those who may push."""
    github.make_release(
        "acme/demo",
        "v1.0",
        {
            WHEEL: b"wheel",
            "demo-1.0.tar.gz": b"sdist",
            f"{WHEEL}.metadata": b"metadata",
            "demo_extra-1.0-py3-none-any.whl": b"of another project",
            "demo-1.0.tar.gz.asc": b"signature",
            "SHA256SUMS": b"sums",
            "demo-linux.zip": b"program",
            "demo.exe": b"program",
        },
    )
    github.make_release("acme/demo", "v2.0", {"demo-2.0.zip": b"draft"}, draft=True)
    listed = {file.filename: file for file in backend.project_files("demo")}
    assert set(listed) == {WHEEL, "demo-1.0.tar.gz"}
    assert listed[WHEEL].sha256 == hashlib.sha256(b"wheel").hexdigest()
    assert listed[WHEEL].uploaded_at == github.releases("acme/demo")[0].published_at
    assert listed[WHEEL].record is None


def test_several_projects_may_share_a_repository(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """Each page has the files of its own project, whatever their release is called."""
    shared = with_settings(backend, replace=(Replacement("^demo-.*$", "demo"),))
    wheels = {"demo_extra-2.0-py3-none-any.whl": b"extra", "demo_x_y-1.0.zip": b"x"}
    github.make_release("acme/demo", "v1.0", {WHEEL: b"demo", **wheels})
    assert names(shared.project_files("demo")) == [WHEEL]
    assert names(shared.project_files("demo-extra")) == ["demo_extra-2.0-py3-none-any.whl"]
    assert names(shared.project_files("demo-x-y")) == ["demo_x_y-1.0.zip"]
    assert names(shared.project_files("demo-x")) == []


def test_newer_versions_come_first(github: FakeGitHub, backend: GitHubProjectsBackend) -> None:
    for version in ("1.9", "1.10", "2.0rc1", "1.10.post1", "0.1"):
        github.make_release("acme/demo", version, {f"demo-{version}.zip": b"content"})
    order = ["2.0rc1", "1.10.post1", "1.10", "1.9", "0.1"]
    expected = [f"demo-{version}.zip" for version in order]
    assert names(backend.project_files("demo")) == expected


def test_of_one_name_the_oldest_file_is_meant(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """The same name never changes its bytes; a release "nightly" often repeats an asset."""
    github.make_release("acme/demo", "v1.0", {WHEEL: b"first"})
    github.clock.advance(60)
    github.make_release("acme/demo", "nightly", {WHEEL: b"other"})
    (stored,) = backend.project_files("demo")
    assert stored.sha256 == hashlib.sha256(b"first").hexdigest()


def test_an_asset_that_never_arrived_is_not_listed(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    release = github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    (asset,) = release.assets.values()
    asset.state = "starter"
    assert names(backend.project_files("demo")) == []


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, {"demo-1.0.zip", WHEEL, "demo-2.0.zip"}),
        ({"prereleases": False}, {"demo-1.0.zip", WHEEL}),
        ({"include": ("*.whl",)}, {WHEEL}),
        ({"include": ("*.whl", "*-2.*")}, {WHEEL, "demo-2.0.zip"}),
        ({"exclude": ("*.whl",)}, {"demo-1.0.zip", "demo-2.0.zip"}),
        ({"include": ("*-1.*",), "exclude": ("*.zip",)}, {WHEEL}),
    ],
)
def test_a_table_says_what_is_shown(
    github: FakeGitHub, backend: GitHubProjectsBackend, settings: Any, shown: set[str]
) -> None:
    github.make_release("acme/demo", "v1.0", {WHEEL: b"wheel", "demo-1.0.zip": b"sdist"})
    github.make_release("acme/demo", "v2.0", {"demo-2.0.zip": b"next"}, prerelease=True)
    limited = with_settings(backend, **settings)
    assert set(names(limited.project_files("demo"))) == shown
    for filename, content in ((WHEEL, b"wheel"), ("demo-2.0.zip", b"next")):
        id_ = asset_id(github, "acme/demo", filename)
        if filename in shown:
            assert content_of(limited.open_asset(id_, filename)[1]) == content
        else:
            with pytest.raises(FileNotFound):
                limited.open_asset(id_, filename)


def test_a_project_whose_name_makes_no_repository_is_absent(backend: GitHubProjectsBackend) -> None:
    nowhere = with_settings(backend, replace=(Replacement("^secret-.*$", ".."),))
    assert nowhere.access("secret-x") is Access.NONE
    with pytest.raises(ProjectNotFound):
        nowhere.project_files("secret-x")


# How often GitHub is asked.


def make_releases(github: FakeGitHub, name: str, count: int) -> None:
    """So many releases with a wheel each, from version 2.0 on."""
    for number in range(2, count + 2):
        wheel = f"demo-{number}.0-py3-none-any.whl"
        github.make_release(name, f"v{number}.0", {wheel: b"content"})


@pytest.mark.parametrize(("releases", "pages"), [(1, 1), (99, 1), (101, 2), (250, 3)])
def test_a_page_that_did_not_change_is_a_conditional_request_for_a_hundred_releases(
    github: FakeGitHub, backend: GitHubProjectsBackend, releases: int, pages: int
) -> None:
    make_releases(github, "acme/demo", releases)
    first = list(backend.project_files("demo"))
    assert len(first) == releases
    assert github.counted == pages
    github.forget_requests()
    assert list(backend.project_files("demo")) == first
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)] * pages


def test_pages_that_were_not_asked_for_lately_are_forgotten_first(
    github: FakeGitHub, backend: GitHubProjectsBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept to ask conditionally is bounded; a listing that is in use stays."""
    monkeypatch.setattr(private_pypi_github.client, "_ETAGS_BYTES", 5 * 4096)
    for _ in range(5):
        backend.project_files("demo")
        for project in PROJECTS:
            backend.access(project)
    github.forget_requests()
    backend.project_files("demo")
    assert github.counted == 0
    for number in range(8):
        with_token(backend, github.make_token(f"user-{number}", {"acme/other": "read"})).access(
            "other"
        )
    github.forget_requests()
    backend.project_files("demo")
    assert github.counted == 1


def test_a_page_behind_a_full_one_that_did_not_change_is_not_missed(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """A release of an old commit comes last; whether a 304 tells of a next page nobody says."""
    make_releases(github, "acme/demo", 1)
    github.clock.advance(DAY)
    github.commit("acme/demo", "README.md", b"younger")
    for number in range(3, 103):
        wheel = f"demo-{number}.0-py3-none-any.whl"
        github.make_release("acme/demo", f"v{number}.0", {wheel: b"content"})
    (last,) = (r for r in github.releases("acme/demo") if r.tag_name == "v2.0")
    del github.repo("acme/demo").releases[last.id]
    for _ in range(3):
        assert len(list(backend.project_files("demo"))) == 100
    github.forget_requests()
    assert len(list(backend.project_files("demo"))) == 100
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)] * 2
    github.repo("acme/demo").releases[last.id] = last
    assert len(list(backend.project_files("demo"))) == 101


def test_a_project_that_is_not_there_is_one_request(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    assert backend.access("never-was") is Access.NONE
    assert github.counted == 1


def test_nothing_that_was_told_to_one_token_is_told_to_another(
    github: FakeGitHub, storage: Storage, backend: GitHubProjectsBackend
) -> None:
    """Each asks GitHub on its own, and without what GitHub said to another."""
    github.make_release("acme/other", "v1.0", {"other-1.0.zip": b"content"})
    (stored,) = backend.project_files("other")
    file = file_of(stored, b"content", "other")
    content_of(backend.open_file(file))
    partial = with_token(backend, storage.tokens["partial-secret"])
    github.forget_requests()
    with pytest.raises(ProjectNotFound):
        partial.project_files("other")
    with pytest.raises(FileNotFound):
        partial.open_file(file)
    with pytest.raises(FileNotFound):
        partial.read_part(stored.location, 0, 3)
    with pytest.raises(FileNotFound):
        partial.open_asset(asset_id(github, "acme/other", "other-1.0.zip"), "other-1.0.zip")
    assert not [request for request in github.requests if request.conditional]
    assert "other" not in list(partial.projects())


def test_a_release_that_is_deleted_while_we_list_hides_no_other(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """Those behind it move to a page that was read already."""
    make_releases(github, "acme/demo", 150)
    asked: list[str] = []

    def delete_one(request: str) -> None:
        asked.append(request)
        if len(asked) == 2:  # the second page of the first pass
            repository = github.repo("acme/demo")
            newest = github.releases("acme/demo")[0]
            del repository.releases[newest.id]

    github.before_request(delete_one)
    listed = names(backend.project_files("demo"))
    github.before_request(None)
    assert len(listed) == len(set(listed)) == 149
    assert len(asked) == 6  # until two passes say the same


def test_a_listing_that_never_stands_still_is_trouble(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    make_releases(github, "acme/demo", 101)
    number = iter(range(200, 300))

    def add_one(_: str) -> None:
        version = next(number)
        github.make_release("acme/demo", f"v{version}", {f"demo-{version}.zip": b"content"})

    github.before_request(add_one)
    with pytest.raises(BackendUnavailable, match="changes faster than it can be read"):
        backend.project_files("demo")
    github.before_request(None)


def test_all_assets_of_a_release_are_found(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """PyPIHub showed the first 32. How many a release shows GitHub does not say."""
    wheels = {f"demo-1.0-{number}-py3-none-any.whl": b"content" for number in range(1, 231)}
    github.make_release("acme/demo", "v1.0", wheels)
    assert set(names(backend.project_files("demo"))) == set(wheels)
    assert len(github.requests) == 1
    github.inlined_assets = 100
    assert set(names(backend.project_files("demo"))) == set(wheels)
    github.forget_requests()
    assert set(names(backend.project_files("demo"))) == set(wheels)
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)] * (1 + 3)


def test_releases_beyond_the_end_of_the_listing_are_found_by_their_tags(
    github: FakeGitHub, backend: GitHubProjectsBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_releases(github, "acme/demo", 103)
    everything = set(names(backend.project_files("demo")))
    github.listing_limit = 100
    monkeypatch.setattr(private_pypi_github.projects, "LISTING_ENDS_AT", 100)
    assert set(names(backend.project_files("demo"))) == everything
    github.forget_requests()
    assert set(names(backend.project_files("demo"))) == everything
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)] * (1 + 1 + 3)


# Repositories that have moved.


def test_a_renamed_repository_is_the_same_project(
    github: FakeGitHub, backend: GitHubProjectsBackend, tmp_path: Path
) -> None:
    """As for PyPIHub; also what was listed before can be read and published to."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    before = backend.put_file(upload)
    github.move_repo("acme/demo", "acme/renamed")
    assert backend.access("demo") is Access.WRITE
    (stored,) = backend.project_files("demo")
    assert (stored.stamp, stored.sha256) == (before.stamp, before.sha256)
    for location in (before.location, stored.location):
        file = replace(published(upload, stored), location=location)
        assert content_of(backend.open_file(file)) == b"content"
    backend.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))
    assert names(backend.project_files("renamed")) == []
    assert names(backend.project_files("demo")) == ["demo-2.0.tar.gz", WHEEL]
    backend.delete_file(file)
    assert names(backend.project_files("demo")) == ["demo-2.0.tar.gz"]


def test_a_repository_that_went_to_another_owner_is_not_served(
    github: FakeGitHub, backend: GitHubProjectsBackend, tmp_path: Path
) -> None:
    """Nor called absent: the name was this owner's, and clients would look elsewhere."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    github.move_repo("acme/demo", "others/demo")
    calls: list[Callable[[], Any]] = [
        lambda: backend.access("demo"),
        lambda: backend.project_files("demo"),
        lambda: backend.open_file(file),
    ]
    for call in calls:
        with pytest.raises(BackendError, match="transferred to 'others'"):
            call()


# Opening.


def signed(github: FakeGitHub) -> int:
    """How often an address of an asset was asked for."""
    return len(github.asked("GET /repos/*/releases/assets/*"))


@pytest.mark.parametrize("download", ["proxy", "redirect"])
def test_a_signed_address_is_asked_for_once_while_it_holds(
    github: FakeGitHub, storage: Storage, backend: GitHubProjectsBackend, download: Any
) -> None:
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    backend = with_settings(backend, download=download)
    (stored,) = backend.project_files("demo")
    for _ in range(3):
        opened = backend.open_file(file_of(stored, b"content"))
        assert isinstance(opened, Redirect) == (download == "redirect")
        assert content_of(opened) == b"content"
        assert backend.read_part(stored.location, 3, 2) == b"te"
        backend = with_token(backend, storage.tokens["write-secret"])
    assert signed(github) == 1


def test_an_address_that_ended_early_is_asked_for_again(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    (stored,) = backend.project_files("demo")
    for _ in range(2):
        assert backend.read_part(stored.location, 0, 4) == b"cont"
        github.clock.advance(3600)
        assert content_of(backend.open_file(file_of(stored, b"content"))) == b"content"
        github.clock.advance(3600)
    assert signed(github) == 4


def test_a_part_of_a_file_is_all_that_is_transferred(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    github.make_release("acme/demo", "v1.0", {WHEEL: bytes(range(256)) * 4096})
    (stored,) = backend.project_files("demo")
    github.forget_requests()
    assert backend.read_part(stored.location, 256, 256) == bytes(range(256))
    assert [(r.host, r.status) for r in github.requests] == [("api", 302), ("storage", 206)]


class Careless(http.server.BaseHTTPRequestHandler):
    """A storage that sends everything, or something else, or has nothing."""

    def do_GET(self) -> None:
        status = {"/gone": 404, "/else": 206, "/busy": 503}.get(self.path, 200)
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", "bytes 0-6/7")
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"content")

    def log_message(self, *_: object) -> None:
        pass


def test_a_storage_that_knows_no_ranges_gives_the_same_parts() -> None:
    """An Enterprise server may send assets itself, and a proxy before a storage drop the header."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Careless) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        client = Client(Connection(), url, Secret("token"))

        def part(path: str, start: int, length: int) -> bytes | None:
            return client.fetch_part(Address(url + path, None, 0.0), start, length)

        expected = {(0, 3): b"con", (3, 2): b"te", (5, 9): b"nt", (7, 1): b"", (9, 1): b""}
        assert {span: part("/whole", *span) for span in expected} == expected
        assert part("/gone", 0, 3) is None
        with pytest.raises(BackendError, match="another part"):
            part("/else", 3, 2)
        with pytest.raises(BackendUnavailable):
            part("/busy", 0, 3)
        for (start, length), content in expected.items():
            chunks = client.content("/repos/acme/demo/releases/assets/1", 1)
            assert isinstance(chunks, Chunks)
            assert chunks.part(start, length) == content
        server.shutdown()


def test_a_file_that_somebody_replaced_is_not_given_for_the_first(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """The index still has the hash of the first."""
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    (stored,) = backend.project_files("demo")
    (first,) = github.releases("acme/demo")
    del github.repo("acme/demo").releases[first.id]
    github.make_release("acme/demo", "again", {WHEEL: b"CONTENT"})
    with pytest.raises(FileNotFound):
        backend.open_file(file_of(stored, b"content"))
    (other,) = backend.project_files("demo")
    assert other.stamp != stored.stamp


def test_a_location_of_another_owner_opens_nothing(
    github: FakeGitHub, storage: Storage, backend: GitHubProjectsBackend
) -> None:
    """Although the token may read there as well."""
    github.make_repo("others", "demo", private=True)
    github.make_release("others/demo", "v1.0", {WHEEL: b"theirs"})
    github.set_rights("walter", {"others/demo": "read"})
    (theirs,) = with_settings(backend, owner="others").project_files("demo")
    with pytest.raises(FileNotFound):
        backend.open_file(file_of(theirs, b"theirs"))
    with pytest.raises(FileNotFound):
        backend.read_part(theirs.location, 0, 3)
    with pytest.raises(FileNotFound):
        backend.open_asset(asset_id(github, "others/demo", WHEEL), WHEEL)


@pytest.mark.parametrize("digests", [True, False])
def test_core_metadata_beside_a_file_is_given_if_it_is_what_is_advertised(
    github: FakeGitHub, backend: GitHubProjectsBackend, digests: bool
) -> None:
    """It may be of a file that somebody replaced since."""
    github.offers_digests = digests
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content", f"{WHEEL}.metadata": b"metadata"})
    (stored,) = backend.project_files("demo")
    right, wrong = (hashlib.sha256(text).hexdigest() for text in (b"metadata", b"other"))
    file = replace(file_of(stored, b"content"), core_metadata_sha256=right)
    assert content_of(backend.open_core_metadata(file)) == b"metadata"
    for sha256 in (wrong, None):
        with pytest.raises(FileNotFound):
            backend.open_core_metadata(replace(file, core_metadata_sha256=sha256))


def test_a_file_without_a_digest_is_listed_and_opened(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """GitHub computes them for what was uploaded since June 2025."""
    github.offers_digests = False
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    (stored,) = backend.project_files("demo")
    assert stored.sha256 is None
    assert content_of(backend.open_file(file_of(stored, b"content"))) == b"content"


# What PyPIHub put into its links.


def test_an_old_link_of_pypihub_opens_its_file(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """Three requests, and one of them counts against the limit of queries."""
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content", "README.md": b"text"})
    id_ = asset_id(github, "acme/demo", WHEEL)
    github.forget_requests()
    stored, download = backend.open_asset(id_, WHEEL)
    assert content_of(download) == b"content"
    assert [stored] == list(backend.project_files("demo"))
    assert [r.name.partition(" ")[2] for r in github.requests[:2]] == [
        "/graphql",
        f"/repos/acme/demo/releases/{github.releases('acme/demo')[0].id}",
    ]
    for other, filename in (
        (id_, "demo-2.0-py3-none-any.whl"),
        (asset_id(github, "acme/demo", "README.md"), "README.md"),
        (node_id("Release", github.releases("acme/demo")[0].id), WHEEL),
        (node_id("ReleaseAsset", 1), WHEEL),
    ):
        with pytest.raises(FileNotFound):
            backend.open_asset(other, filename)


def test_a_draft_is_not_opened_by_its_id(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """Also not for those who may push."""
    release = github.make_release("acme/demo", "v1.0", {WHEEL: b"content"}, draft=True)
    (number,) = release.assets
    with pytest.raises(FileNotFound):
        backend.open_asset(node_id("ReleaseAsset", number), WHEEL)


def test_a_query_that_is_limited_is_trouble(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    github.fail("rate-limit", on="POST /graphql", seconds=30)
    with pytest.raises(BackendUnavailable) as caught:
        backend.open_asset("x", WHEEL)
    assert caught.value.retry_after <= 31


# The projects of an owner.


def test_the_projects_are_the_repositories_that_a_token_may_see(
    github: FakeGitHub, storage: Storage, backend: GitHubProjectsBackend
) -> None:
    github.make_repo("acme", "public")
    github.make_repo("acme", "with_underscore")
    github.make_repo("others", "theirs")
    tokens = {
        "writer": storage.tokens["write-secret"],
        "partial": storage.tokens["partial-secret"],
        "stranger": github.make_token("eve"),
        "workflow": github.make_token(rights={"acme/other": "write"}),
    }
    seen = {who: list(with_token(backend, token).projects()) for who, token in tokens.items()}
    assert seen == {
        "writer": ["demo", "demo-extra", "other", "public"],
        "partial": ["demo", "demo-extra", "public"],
        "stranger": ["public"],
        "workflow": ["other", "public"],
    }


def test_the_projects_of_a_user_have_private_ones_for_those_who_share_them(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    """GitHub lists those only among all repositories of the token's own user."""
    github.make_user("anna")
    github.make_repo("anna", "public")
    github.make_repo("anna", "private", private=True)
    github.make_repo("anna", "shared", private=True)
    of_anna = with_settings(backend, owner="anna")
    seen = {
        who: list(with_token(of_anna, token).projects())
        for who, token in {
            "anna": github.make_token("anna"),
            "friend": github.make_token("berta", {"anna/shared": "read"}),
            "stranger": github.make_token("eve"),
        }.items()
    }
    assert seen == {
        "anna": ["private", "public", "shared"],
        "friend": ["public", "shared"],
        "stranger": ["public"],
    }


def test_the_projects_of_nobody_are_none(backend: GitHubProjectsBackend) -> None:
    assert list(with_settings(backend, owner="nobody").projects()) == []


def test_projects_are_called_as_the_rules_say(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    rules = (Replacement("^acme-(.*)$", "py-$1"), Replacement("^x$", "other"))
    github.make_repo("acme", "py-tool")
    renamed = with_settings(backend, replace=rules)
    assert list(renamed.projects()) == ["acme-tool", "demo", "demo-extra", "other", "py-tool", "x"]


def test_asking_for_the_projects_again_costs_nothing(
    github: FakeGitHub, backend: GitHubProjectsBackend
) -> None:
    for number in range(120):
        github.make_repo("acme", f"more-{number}")
    assert len(list(backend.projects())) == 123
    github.forget_requests()
    assert len(list(backend.projects())) == 123
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)] * 4


# Trouble at every single request.


FAULTS = [
    ("timeout", False),
    ("reset", False),
    ("cut", True),
    ("403", False),
    ("404", False),
    ("422", False),
    ("429", False),
    ("500", False),
    ("502", False),
    ("rate-limit", False),
    ("secondary", False),
]


@pytest.mark.parametrize(("kind", "applied"), FAULTS)
def test_reading_survives_trouble_at_every_request(
    github: FakeGitHub,
    backend: GitHubProjectsBackend,
    tmp_path: Path,
    kind: Any,
    applied: bool,
) -> None:
    """Trouble is an error, never a shorter listing, an absence or other bytes."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    make_releases(github, "acme/other", 1)
    make_releases(github, "acme/demo", 101)
    listed = list(backend.project_files("demo"))
    id_ = asset_id(github, "acme/demo", WHEEL)
    calls: dict[str, tuple[Callable[[Any], Any], Any]] = {
        "access": (lambda reader: reader.access(), Access.READ),
        "access to a project": (lambda reader: reader.access("demo"), Access.WRITE),
        "files": (lambda reader: list(reader.project_files("demo")), listed),
        "projects": (lambda reader: list(reader.projects()), ["demo", "demo-extra", "other"]),
        "open": (lambda reader: content_of(reader.open_file(file)), b"content"),
        "part": (lambda reader: reader.read_part(file.location, 2, 3), b"nte"),
        "metadata": (
            lambda reader: content_of(reader.open_core_metadata(file)),
            upload.core_metadata,
        ),
        "asset": (lambda reader: content_of(reader.open_asset(id_, WHEEL)[1]), b"content"),
    }
    for what, (ask, right) in calls.items():
        github.forget_requests()
        assert ask(restarted(backend)) == right
        for at in range(len(github.requests)):
            reader = restarted(backend)
            fault = github.fail(kind, at=at + 1, applied=applied)
            with impatient(kind, 0.4):
                result = outcome(ask, reader)
            github.heal()
            assert fault.happened == 1 or isinstance(result, BackendUnavailable)
            if isinstance(result, PrivatePypiError):
                # GitHub answers 404 to whoever may not see a thing: then there is none.
                absent = kind == "404" and isinstance(result, (FileNotFound, ProjectNotFound))
                assert absent or isinstance(result, (BackendError, NotAllowed)), (what, at, result)
            else:
                believed = {
                    ("access", 0, "403"),
                    ("access to a project", 0, "404"),
                    ("projects", 0, "404"),
                }
                assert result == right or (what, at, kind) in believed, (what, at, kind, result)
            # A connection that broke behind a whole answer is found out by the next request.
            assert ask(retrying(reader)) == right
