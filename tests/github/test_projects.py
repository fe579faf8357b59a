"""The contract over repositories of their own on a fake GitHub: the table, access and files."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tomli

from private_pypi.backend import Access, Folders, Secret
from private_pypi.configuration.config import ConfigurationText, check_repository
from private_pypi.errors import (
    BackendError,
    ConfigurationError,
    FileNotFound,
    InvalidUpload,
    NotAllowed,
    ProjectNotFound,
    WrongSecret,
)
from private_pypi.index.examining import handle_of
from private_pypi.model import StoredFile
from private_pypi.testing.contract import (
    AliasesContract,
    BurningContract,
    CoreMetadataContract,
    PartsContract,
    ProcessesContract,
    ProjectsContract,
    PublicAddressesContract,
    PublishContract,
    RemoteContract,
    RightsPerProjectContract,
    UsageContract,
    YankingContract,
)
from private_pypi.testing.contract.helpers import (
    content_of,
    make_upload,
    new_folders,
    published,
)
from private_pypi_github import GitHubProjectsBackend, GitHubProjectsSettings
from private_pypi_github.project_names import Replacement
from private_pypi_github.projects import GitHubProjectsStorage
from tests.github.fake import FakeGitHub
from tests.github.owner import (
    DAY,
    PROJECTS,
    WHEEL,
    Storage,
    asset_id,
    backend_of,
    file_of,
    leftovers,
    make_storage,
    names,
    open_projects,
    restarted,
    with_settings,
    with_token,
)

# The contract.


class ProjectsContract(
    ProcessesContract,
    PublishContract,
    CoreMetadataContract,
    RightsPerProjectContract,
    ProjectsContract,
    BurningContract,
    YankingContract,
    PartsContract,
    AliasesContract,
    PublicAddressesContract,
    UsageContract,
    RemoteContract,
):
    """What the contract needs to know of this storage."""

    keeps_records: ClassVar[bool] = False
    github: FakeGitHub
    last = 0

    @pytest.fixture
    def place(self, github: FakeGitHub) -> Storage:
        return self.make_storage(github)

    def make_storage(self, github: FakeGitHub) -> Storage:
        return make_storage(github)

    def open_backend(self, place: Storage, folders: Folders) -> GitHubProjectsBackend:
        return backend_of(place, folders)

    def secret(self, place: Storage, name: str) -> Secret:
        return Secret(place.tokens.get(name, name))

    def break_storage(self, place: Storage) -> None:
        self.github.fail("500", times=10_000)

    def make_public(self, place: Storage) -> None:
        self.github.repo("acme/demo").private = False

    def requests_made(self, place: Storage) -> int:
        return len(self.github.requests)

    @pytest.fixture(autouse=True)
    def keep_github(self, github: FakeGitHub, tmp_path: Path) -> None:
        self.github, self.tmp_path = github, tmp_path

    def leftovers(self, place: Storage) -> list[str]:
        """What no reader sees, a day later and after one more upload to each repository."""
        self.github.clock.advance(DAY + 60)
        writer = self.open_another(place, self.tmp_path)
        for project in PROJECTS:
            self.last += 1  # a name that was deleted is burnt
            name = f"{project.replace('-', '_')}-99.{self.last}.tar.gz"
            upload = make_upload(self.tmp_path, name, b"last")
            writer.delete_file(published(upload, writer.put_file(upload)))
        return [left for project in PROJECTS for left in leftovers(self.github, f"acme/{project}")]

    def alias(self, place: Storage, stored: StoredFile) -> str:
        return asset_id(self.github, "acme/demo", stored.filename)

    def test_an_empty_file_is_a_file(self, storage: Any, tmp_path: Path) -> None:
        """GitHub refuses empty assets, and no distribution file is empty: so it is said."""
        with pytest.raises(InvalidUpload, match="GitHub stores no empty files"):
            storage.put_file(make_upload(tmp_path, "demo-1.0.zip", b""))
        assert self.github.releases("acme/demo", drafts=True) == []

    def test_a_big_file_takes_constant_memory(self, storage: Any, tmp_path: Path) -> None:
        """The fake takes memory, too, when it checks the first request of a kind."""
        storage.put_file(make_upload(tmp_path, "other-1.0.tar.gz", b"content"))
        super().test_a_big_file_takes_constant_memory(storage, tmp_path)


class TestProxied(ProjectsContract):
    """Files stream through us; nothing but the owner is configured."""


class TestRedirected(ProjectsContract):
    """Clients get their files from GitHub itself."""

    # Writing is the same as in TestProxied; these start processes.
    test_two_processes_share_only_the_storage = None
    test_a_writer_that_is_killed_leaves_a_whole_file_or_none = None

    def make_storage(self, github: FakeGitHub) -> Storage:
        return make_storage(github, download="redirect")


class TestEnterpriseServer(ProjectsContract):
    """Another path, no digests, no limits, and ties listed in any order."""

    # Writing is the same as in TestProxied; these start processes.
    test_two_processes_share_only_the_storage = None
    test_a_writer_that_is_killed_leaves_a_whole_file_or_none = None

    def make_storage(self, github: FakeGitHub) -> Storage:
        github.offers_digests = False
        github.shuffles_ties = True
        return make_storage(github, api_url=github.enterprise_url)


@pytest.fixture
def storage(github: FakeGitHub) -> Storage:
    return make_storage(github)


@pytest.fixture
def backend(storage: Storage, tmp_path: Path) -> GitHubProjectsStorage:
    return open_projects(storage, "write-secret", new_folders(tmp_path))


# The table.


def checked(text: str) -> GitHubProjectsSettings:
    """The settings that a table of the configuration makes."""
    source = ConfigurationText(text=text, name="config.toml", folder=None)
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
        ('owner = "acme/demo"', "owner: 'acme/demo' cannot be a user"),
        ('any_owner = true\nowners = ["acme", ""]', "owners: '' cannot be a user"),
        ('owner = "acme"\napi_url = "ftp://x"', "api_url: 'ftp://x' is not the address"),
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
    """Whatever its case, and with everything else that the table says."""
    table = replace(checked('[mine]\ntype = "github_projects"\nany_owner = true'), include=("*",))
    tenant = table.tenant("acme")
    assert tenant == replace(table, name="acme", owner="acme", any_owner=False)
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
        lambda: backend.find_alias("x", WHEEL),
    ]
    for call in calls:
        with pytest.raises(NotAllowed, match="use the name of a user or an organisation on GitHub"):
            call()


# Access.


def test_whether_a_token_is_good_counts_against_no_limit(
    github: FakeGitHub, backend: GitHubProjectsStorage
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
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    github.limits_rates = False
    assert backend.access() is Access.READ
    assert with_token(backend, "wrong").access() is Access.NONE


def test_a_token_without_a_user_may_write_until_github_refuses(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
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
    github: FakeGitHub, backend: GitHubProjectsStorage
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
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    loud = with_settings(backend, owner="ACME")
    (stored,) = loud.project_files("demo")
    assert content_of(loud.open_file(file_of(stored, b"content"))) == b"content"
    assert loud.read_part(stored.location, 0, 3) == b"con"
    assert "demo" in list(loud.projects())


def test_a_token_that_ended_is_a_wrong_secret_everywhere(
    github: FakeGitHub, storage: Storage, backend: GitHubProjectsStorage, tmp_path: Path
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
        lambda: backend.find_alias("x", WHEEL),
        lambda: backend.put_file(make_upload(tmp_path, WHEEL, b"content")),
        lambda: backend.delete_file(file),
    ]
    for call in calls:
        with pytest.raises(WrongSecret):
            call()
    assert backend.access() is Access.NONE


def test_what_an_organization_forbids_is_said(
    github: FakeGitHub, backend: GitHubProjectsStorage
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


@pytest.mark.parametrize("seen_before", [False, True])
def test_one_false_absence_is_not_believed(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path, seen_before: bool
) -> None:
    """In moments of trouble GitHub answers 404, too: at every request, also at the first sight."""
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    identifier = asset_id(github, "acme/demo", WHEEL)
    number = 0

    def publish() -> str:
        nonlocal number
        number += 1
        filename = f"demo-{number + 1}.0-py3-none-any.whl"
        return backend.put_file(make_upload(tmp_path, filename, b"other")).filename

    reads: list[tuple[Callable[[], Any], object]] = [
        (lambda: backend.access("demo"), Access.WRITE),
        (lambda: WHEEL in names(backend.project_files("demo")), True),
        (lambda: "demo" in list(backend.projects()), True),
        (lambda: backend.find_alias(identifier, WHEEL).filename, WHEEL),
        (lambda: publish().startswith("demo-"), True),
    ]
    for read, expected in reads:
        for at in range(1, 20):
            if not seen_before:
                backend = restarted(backend)
            fault = github.fail("404", on="GET *", host="api", at=at)
            with contextlib.suppress(BackendError):  # trouble is said to be trouble
                assert read() == expected, at
            github.heal()
            if not fault.happened:
                break
        assert at > 1


# What a project has.


def test_only_distribution_files_of_the_project_are_listed(
    github: FakeGitHub, backend: GitHubProjectsStorage
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
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    """Each page has the files of its own project, whatever their release is called."""
    shared = with_settings(backend, replace=(Replacement("^demo-.*$", "demo"),))
    wheels = {"demo_extra-2.0-py3-none-any.whl": b"extra", "demo_x_y-1.0.zip": b"x"}
    github.make_release("acme/demo", "v1.0", {WHEEL: b"demo", **wheels})
    assert names(shared.project_files("demo")) == [WHEEL]
    assert names(shared.project_files("demo-extra")) == ["demo_extra-2.0-py3-none-any.whl"]
    assert names(shared.project_files("demo-x-y")) == ["demo_x_y-1.0.zip"]
    assert names(shared.project_files("demo-x")) == []


def test_newer_versions_come_first(github: FakeGitHub, backend: GitHubProjectsStorage) -> None:
    for version in ("1.9", "1.10", "2.0rc1", "1.10.post1", "0.1"):
        github.make_release("acme/demo", version, {f"demo-{version}.zip": b"content"})
    order = ["2.0rc1", "1.10.post1", "1.10", "1.9", "0.1"]
    expected = [f"demo-{version}.zip" for version in order]
    assert names(backend.project_files("demo")) == expected


def test_of_one_name_the_oldest_file_is_meant(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    """The same name never changes its bytes; a release "nightly" often repeats an asset."""
    github.make_release("acme/demo", "v1.0", {WHEEL: b"first"})
    github.clock.advance(60)
    github.make_release("acme/demo", "nightly", {WHEEL: b"other"})
    (stored,) = backend.project_files("demo")
    assert stored.sha256 == hashlib.sha256(b"first").hexdigest()


def test_an_asset_that_never_arrived_is_not_listed(
    github: FakeGitHub, backend: GitHubProjectsStorage
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
    github: FakeGitHub, backend: GitHubProjectsStorage, settings: Any, shown: set[str]
) -> None:
    github.make_release("acme/demo", "v1.0", {WHEEL: b"wheel", "demo-1.0.zip": b"sdist"})
    github.make_release("acme/demo", "v2.0", {"demo-2.0.zip": b"next"}, prerelease=True)
    limited = with_settings(backend, **settings)
    assert set(names(limited.project_files("demo"))) == shown
    for filename, content in ((WHEEL, b"wheel"), ("demo-2.0.zip", b"next")):
        id_ = asset_id(github, "acme/demo", filename)
        if filename in shown:
            found = limited.find_alias(id_, filename)
            assert content_of(limited.open_file(handle_of(found))) == content
        else:
            with pytest.raises(FileNotFound):
                limited.find_alias(id_, filename)


def test_a_project_whose_name_makes_no_repository_is_absent(backend: GitHubProjectsStorage) -> None:
    nowhere = with_settings(backend, replace=(Replacement("^secret-.*$", ".."),))
    assert nowhere.access("secret-x") is Access.NONE
    with pytest.raises(ProjectNotFound):
        nowhere.project_files("secret-x")
