"""The contract over the folder of a site: read only, published into, and with commits."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from private_pypi.backend import AnyStorage, Folders, Secret, SupportsPublish
from private_pypi.model import Record, StoredFile, Upload
from private_pypi.testing.contract import (
    BurningContract,
    CoreMetadataContract,
    ListContract,
    ProcessesContract,
    ProjectsContract,
    PublishContract,
    StorageContract,
    SweepContract,
    YankingContract,
)
from private_pypi_static_site import StaticSiteBackend, StaticSiteSettings
from private_pypi_static_site.reading import StaticSiteStorage
from tests.static_site.sites import git, leftovers, make_repository, make_site, make_upstream

_LISTED = {"distrib", "sha256", "size", "uploaded_at", "requires_python", "core_metadata_sha256"}


class SiteContract(StorageContract):
    """What the contract needs to know of a site."""

    publish: ClassVar[Literal["no", "files", "commits"]] = "files"
    push: ClassVar[bool] = False

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        make_site(tmp_path / "site")
        return tmp_path / "site"

    def open_backend(self, place: Path, folders: Folders) -> StaticSiteBackend:
        settings = StaticSiteSettings(
            name="mine",
            max_file_bytes=1 << 30,
            path=place,
            publish=self.publish,
            push=self.push,
            read_secret=(Secret(self.read_secret),),
            write_secret=(Secret(self.write_secret),),
        )
        return StaticSiteBackend(settings, folders)

    def record_of(self, upload: Upload) -> Record | None:
        """The facts that the file of a project has."""
        kept = {key: upload.record[key] for key in _LISTED & set(upload.record)}
        return {**kept, "name": upload.file.published_name or upload.file.project}

    def break_storage(self, place: Path) -> None:
        place.rename(place.with_name("unmounted"))

    def leftovers(self, place: Path) -> list[str]:
        return leftovers(place)


class TestFiles(
    SiteContract,
    ListContract,
    ProjectsContract,
    PublishContract,
    ProcessesContract,
    CoreMetadataContract,
    BurningContract,
    YankingContract,
    SweepContract,
):
    """Uploads change the folder."""


@pytest.mark.needs("git")
class TestCommits(TestFiles):
    """Each change is a commit; the working tree is clean afterwards."""

    publish = "commits"

    @pytest.fixture
    def place(self, tmp_path: Path) -> Any:
        place = make_site(tmp_path / "site").root
        make_repository(place)
        yield place
        if place.exists():
            self.sweep(self.open_another(place, tmp_path))
            assert git(place, "status", "--porcelain") == ""


@pytest.mark.needs("git")
class TestPartOfARepository(TestCommits):
    """The site is a folder in a repository that has other things as well."""

    test_a_writer_that_is_killed_leaves_a_whole_file_or_none = None
    test_two_processes_share_only_the_storage = None

    @pytest.fixture
    def place(self, tmp_path: Path) -> Any:
        place = make_site(tmp_path / "repository" / "our site").root
        make_repository(place.parent)
        (place.parent / ".gitignore").write_text("*.whl\n*.zip\npackages/\n")
        (place.parent / "notes.txt").write_text("not ready\n")
        git(place.parent, "add", "notes.txt")
        yield place
        if place.exists():
            status = git(place.parent, "status", "--porcelain")
            assert status.splitlines() == ["A  notes.txt", "?? .gitignore"]


@pytest.mark.needs("git")
class TestPush(TestFiles):
    """Each server has a clone of its own, and the upstream decides between them."""

    publish = "commits"
    push = True

    @pytest.fixture
    def place(self, tmp_path: Path) -> Any:
        place = make_site(tmp_path / "site").root
        make_repository(place)
        make_upstream(place, tmp_path / "upstream")
        yield place
        if place.exists():
            self.sweep(self.open_another(place, tmp_path))
            assert git(place, "status", "--porcelain") == ""
            assert git(place, "rev-list", "@{upstream}..HEAD") == ""


class Filled(StaticSiteStorage):
    """A view that cannot publish, into whose folder somebody else can."""

    def put_file(self, upload: Upload) -> StoredFile:
        settings = replace(self.settings, publish="files")
        writing = StaticSiteBackend(settings, self.backend.folders).seen_with(self.secret)
        copy = upload.content.with_name("copy")
        shutil.copy(upload.content, copy)
        stored: StoredFile = writing.put_file(replace(upload, content=copy))
        return stored


class FilledBackend(StaticSiteBackend):
    def seen_with(self, secret: Secret) -> AnyStorage:
        view = super().seen_with(secret)
        assert not isinstance(view, SupportsPublish)
        return Filled(self, secret)


class TestReadOnly(SiteContract, ListContract, ProjectsContract, CoreMetadataContract):
    """By default, the folder is only read."""

    publish = "no"

    def open_backend(self, place: Path, folders: Folders) -> StaticSiteBackend:
        return FilledBackend(super().open_backend(place, folders).settings, folders)

    def test_a_project_without_files_belongs_to_the_repository(
        self, place: Path, tmp_path: Path
    ) -> None:
        """Nobody may look for it elsewhere; it has versions in git only, or burnt names."""
        (place / "projects").mkdir()
        text = 'name = "demo"\n[[versions]]\nversion = "1.0"\ntag = "v1"\n'
        link = f'{text}git = "https://code.example/demo"\n'
        (place / "projects" / "demo.toml").write_text(link)
        (place / "projects" / "other.toml").write_text('name = "other"\n')
        index = self.index_of(self.open_another(place, tmp_path))
        known = {name: index.project_serial(name) is not None for name in ("demo", "other", "x")}
        assert known == {"demo": True, "other": True, "x": False}
