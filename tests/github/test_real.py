"""The contract and a round trip on a GitHub that is none of ours; only where a token is given.

    PRIVATE_PYPI_TEST_GITHUB_TOKEN       may make and delete private repositories of the owner
    PRIVATE_PYPI_TEST_GITHUB_OWNER       a user or an organization
    PRIVATE_PYPI_TEST_GITHUB_READ_TOKEN  optional: may only read all private repositories there
    PRIVATE_PYPI_TEST_GITHUB_API_URL     optional: of an Enterprise Server

Four repositories are made, whose names begin with `private-pypi-test-`, and deleted at the end.
Never in CI, which may have such variables for other purposes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import pytest
from github import Auth, Github, UnknownObjectException
from github.Repository import Repository as OnGitHub

from private_pypi.backend import AnyBackend, AnyStorage, Folders, Secret
from private_pypi.errors import InvalidUpload
from private_pypi.model import StoredFile
from private_pypi.storage.retrying import retrying
from private_pypi.testing.contract import (
    AliasesContract,
    BackendContract,
    BurningContract,
    CoreMetadataContract,
    DeletingContract,
    FindContract,
    PartsContract,
    ProcessesContract,
    ProjectsContract,
    PublicAddressesContract,
    PublishContract,
    RecentContract,
    RemoteContract,
    RightsPerProjectContract,
    SweepContract,
    UsageContract,
    YankingContract,
)
from private_pypi.testing.contract.helpers import make_upload
from private_pypi_github import (
    GitHubBackend,
    GitHubProjectsBackend,
    GitHubProjectsSettings,
    GitHubSettings,
)
from private_pypi_github.project_names import Replacement
from tests.clients.environments import Client, install_client, make_venv
from tests.clients.installers import install, installed
from tests.clients.publishers import publish, sent_files
from tests.clients.releases import Release
from tests.clients.serving import Repository, serving
from tests.github.places import TYPES, Place, PlaceType

pytestmark = pytest.mark.needs("clients", "GitHub")

_PREFIX: Final = "PRIVATE_PYPI_TEST_GITHUB_"
PROJECTS: Final = ("demo", "demo-extra", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where the tests may do what they like, as child processes need it."""

    api_url: str
    owner: str
    stem: str  # how the names of the repositories begin
    token: str
    read_token: str | None

    def secret(self, name: str) -> str:
        """The token that the contract calls by this name; anything else is no token."""
        given = {"write-secret": self.token, "read-secret": self.read_token}.get(name)
        return name if given is None else given


def find_account(environ: Mapping[str, str]) -> Account | str:
    """What the variables say; or why nothing is run."""
    token, owner = (environ.get(f"{_PREFIX}{name}", "") for name in ("TOKEN", "OWNER"))
    if not token or not owner:
        return f"the real GitHub is not asked: set {_PREFIX}TOKEN and {_PREFIX}OWNER"
    if environ.get("CI"):
        return "the real GitHub is not asked: CI is set"
    return Account(
        api_url=environ.get(f"{_PREFIX}API_URL") or "https://api.github.com",
        owner=owner,
        stem=f"private-pypi-test-{secrets.token_hex(4)}",
        token=token,
        read_token=environ.get(f"{_PREFIX}READ_TOKEN") or None,
    )


_FOUND: Final = find_account(os.environ)
if isinstance(_FOUND, str):
    pytest.skip(_FOUND, allow_module_level=True)
ACCOUNT: Final[Account] = _FOUND


def open_github() -> Github:
    """PyGithub, which takes its time, as GitHub asks programs to."""
    is_far = urlsplit(ACCOUNT.api_url).hostname not in ("127.0.0.1", "localhost")
    return Github(
        auth=Auth.Token(ACCOUNT.token),
        base_url=ACCOUNT.api_url,
        seconds_between_requests=0.25 if is_far else None,
        seconds_between_writes=1 if is_far else None,
    )


@pytest.fixture(scope="module")
def github() -> Iterator[Github]:
    with open_github() as github:
        yield github


@pytest.fixture(scope="module")
def made(github: Github) -> Iterator[Mapping[str, OnGitHub]]:
    """The repositories, by what comes after the stem."""
    owner: Any = github.get_user(ACCOUNT.owner)
    if owner.type == "Organization":
        owner = github.get_organization(ACCOUNT.owner)
    else:
        owner = github.get_user()
        assert owner.login.lower() == ACCOUNT.owner.lower(), f"the token is of {owner.login}"
    with contextlib.ExitStack() as stack:
        found = {}
        for name in ("pkgs", *PROJECTS):
            full = f"{ACCOUNT.stem}-{name}"
            found[name] = owner.create_repo(full, private=True, auto_init=True)
            stack.callback(found[name].delete)
        yield found


def empty(repository: OnGitHub) -> None:
    """As it was made: no releases, drafts and tags."""
    for release in list(repository.get_releases()):
        release.delete_release()
    for tag in list(repository.get_git_matching_refs("tags/")):
        with contextlib.suppress(UnknownObjectException):  # it went with its release
            tag.delete()


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What a test has for itself."""

    account: Account
    index_filename: str


class RealContract(ProcessesContract):
    """What the contract needs to know of a GitHub that is far away."""

    visible_after: ClassVar[timedelta] = timedelta(seconds=60)
    emptied: ClassVar[tuple[str, ...]]

    @pytest.fixture
    def place(self, made: Mapping[str, OnGitHub]) -> Storage:
        for name in self.emptied:
            empty(made[name])
        return Storage(account=ACCOUNT, index_filename=f"{secrets.token_hex(8)}.toml")

    # Nobody can make GitHub fail.
    test_trouble_is_never_an_absence = None

    def secret(self, place: Storage, name: str) -> Secret:
        return Secret(place.account.secret(name))

    def test_an_empty_file_is_a_file(self, storage: Any, tmp_path: Path) -> None:
        """GitHub refuses empty assets, and no distribution file is empty: so it is said."""
        with pytest.raises(InvalidUpload, match="GitHub stores no empty files"):
            storage.put_file(make_upload(tmp_path, "demo-1.0.zip", b""))


needs_reader = pytest.mark.skipif(
    ACCOUNT.read_token is None, reason=f"set {_PREFIX}READ_TOKEN to a token that may only read"
)


class Patient:
    """Limits are waited for: the tests publish faster than GitHub likes."""

    def seen_with(self, secret: Secret) -> AnyStorage:
        view: AnyStorage = super().seen_with(secret)  # type: ignore[misc]
        return retrying(view, attempts=10, longest_wait=120, patience=900)


class PatientGitHub(Patient, GitHubBackend):
    pass


class PatientProjects(Patient, GitHubProjectsBackend):
    pass


class TestGitHub(
    RealContract,
    BackendContract,
    FindContract,
    DeletingContract,
    RecentContract,
    YankingContract,
    SweepContract,
    PublicAddressesContract,
    UsageContract,
    RemoteContract,
):
    """One repository holds all packages."""

    emptied = ("pkgs",)

    # The repositories of these tests stay private.
    test_everybody_can_fetch_what_has_an_address = None

    def open_backend(self, place: Storage, folders: Folders) -> AnyBackend:
        account = place.account
        settings = GitHubSettings(
            name="mine",
            max_file_bytes=1 << 30,
            owner=account.owner,
            repo=f"{account.stem}-pkgs",
            index_filename=place.index_filename,
            api_url=account.api_url,
        )
        return PatientGitHub(settings, folders)

    @needs_reader
    def test_a_secret_may_do_what_the_storage_says(self, place: Any, tmp_path: Path) -> None:
        super().test_a_secret_may_do_what_the_storage_says(place, tmp_path)

    @needs_reader
    def test_a_secret_may_do_the_same_with_a_project(self, place: Any, tmp_path: Path) -> None:
        super().test_a_secret_may_do_the_same_with_a_project(place, tmp_path)


class TestGitHubProjects(
    RealContract,
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
    """Every project in its own repository."""

    emptied = PROJECTS

    # The repositories of these tests stay private.
    test_everybody_can_fetch_what_has_an_address = None

    keeps_records: ClassVar[bool] = False

    def open_backend(self, place: Storage, folders: Folders) -> AnyBackend:
        account = place.account
        settings = GitHubProjectsSettings(
            name="mine",
            max_file_bytes=1 << 30,
            owner=account.owner,
            replace=tuple(
                Replacement(patt=f"^{name}$", repl=f"{account.stem}-{name}") for name in PROJECTS
            ),
            api_url=account.api_url,
        )
        return PatientProjects(settings, folders)

    def alias(self, place: Storage, stored: StoredFile) -> str:
        with open_github() as github:
            repository = github.get_repo(f"{ACCOUNT.owner}/{ACCOUNT.stem}-demo")
            (found,) = (
                asset
                for release in repository.get_releases()
                for asset in release.get_assets()
                if asset.name == stored.filename
            )
            return str(found.raw_data["node_id"])

    @pytest.mark.skip(reason="needs a token that is shown only some of the repositories")
    def test_a_secret_may_do_what_the_storage_says(self, storage: Any, tmp_path: Path) -> None:
        """Left to the fake."""

    @pytest.mark.skip(reason="needs a token that is shown only some of the repositories")
    def test_what_is_not_shown_to_a_secret_is_absent(self, storage: Any, tmp_path: Path) -> None:
        """Left to the fake."""

    @needs_reader
    def test_a_secret_that_may_only_read_publishes_nothing(
        self, storage: Any, tmp_path: Path
    ) -> None:
        super().test_a_secret_that_may_only_read_publishes_nothing(storage, tmp_path)


@pytest.mark.parametrize("download", ["proxy", "redirect"])
@pytest.mark.parametrize("place_type", TYPES)
def test_clients_publish_and_install(
    place_type: PlaceType, download: str, made: Mapping[str, OnGitHub], tmp_path: Path
) -> None:
    """A whole server between twine, pip, uv and GitHub."""
    empty(made["pkgs"])
    empty(made["demo"])
    place = Place(
        type=place_type,
        name=ACCOUNT.owner.lower(),
        api_url=ACCOUNT.api_url,
        repositories=(f"{ACCOUNT.owner}/{ACCOUNT.stem}-pkgs",),
        reader=ACCOUNT.token,
        writer=ACCOUNT.token,
    )
    config = place.table(download=download)
    if place_type == "github_projects":
        config += f'[[{place.name}.replace]]\npatt = "^demo$"\nrepl = "{ACCOUNT.stem}-demo"\n'

    def client(name: str) -> Client:
        home = Path(tempfile.mkdtemp(dir=tmp_path))
        # GitHub's storage is not on this machine, so they go the way that the machine goes.
        way = {
            each: os.environ.get(each, "") for each in ("http_proxy", "https_proxy", "all_proxy")
        }
        return Client(name, install_client(name), home, way)

    with serving(tmp_path / "server", config, place.admin_table or None) as origin:
        repository = Repository(
            origin=origin, name=place.name, read_secret=place.reader, write_secret=place.writer
        )
        twine = client("twine")
        outcome = publish(twine, Release(), repository)
        assert outcome.code == 0, outcome.output
        files = repository.files()
        assert {name: files[name] for name in sent_files(twine)} == sent_files(twine)
        for name in ("pip", "uv"):
            target = make_venv(tmp_path / f"target-of-{name}")
            outcome = install(client(name), [repository.readable()], "demo", target)
            assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output
