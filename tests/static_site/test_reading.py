"""What a server sees of the folder of a site: what is listed, opened, wrong, or in the making."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import Secret
from private_pypi.distributions.records import file_from_record
from private_pypi.errors import BackendError, BackendUnavailable, FileNotFound, InvalidUpload
from private_pypi.index.examining import handle_of
from private_pypi.model import DistributionFile, Redirect, StoredFile, Unlisted
from private_pypi.testing.contract.helpers import content_of, new_folders
from private_pypi_static_site import StaticSiteBackend, StaticSiteSettings, reading
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.project_file import yank
from tests.static_site.sites import UPLOADED, host, make_site

WHEEL = "demo-1.0-py3-none-any.whl"
URL = f"https://code.example/acme/demo/releases/download/v1.0/{WHEEL}"
METADATA = b"Metadata-Version: 2.4\nName: demo\nSummary: A demonstration.\n\nSummary: no header\n"


@pytest.fixture
def site(tmp_path: Path) -> SiteFolder:
    return make_site(tmp_path / "site")


@pytest.fixture
def storage(site: SiteFolder, tmp_path: Path) -> Any:
    settings = StaticSiteSettings(name="mine", max_file_bytes=1 << 30, path=site.root)
    return StaticSiteBackend(settings, new_folders(tmp_path)).seen_with(Secret("any"))


def listed(storage: Any) -> dict[str, StoredFile]:
    found = list(storage.list_files())
    assert [each for each in found if isinstance(each, Unlisted)] == []
    return {each.filename: each for each in found}


def problems(storage: Any) -> list[Unlisted]:
    return [each for each in storage.list_files() if isinstance(each, Unlisted)]


def make_old(path: Path) -> None:
    """Let a file look as if it had been written an hour ago."""
    moment = time.time() - 3600
    os.utime(path, (moment, moment))


# -- listing ---------------------------------------------------------------------------------------


def test_a_site_that_has_lost_its_projects_is_in_trouble(storage: Any, site: SiteFolder) -> None:
    assert listed(storage) == {}
    host(site, WHEEL, b"content")
    (site.root / "projects").rename(site.root / "was")
    for look in (storage.list_files, storage.projects):
        with pytest.raises(BackendError, match="/projects is missing"):
            list(look())
    (site.root / "was").rename(site.root / "projects")
    assert [*listed(storage)] == [WHEEL]


def test_the_file_of_a_project_says_all_that_a_page_needs(site: SiteFolder, storage: Any) -> None:
    sha256 = hashlib.sha256(METADATA).hexdigest()
    file = host(
        site, WHEEL, b"content", requires_python=">=3.9", core_metadata_sha256=sha256, yanked="old"
    )
    site.write(site.core_metadata(site.names()[0], WHEEL), METADATA)
    stored = listed(storage)[WHEEL]
    assert file_from_record(stored) == DistributionFile(
        project=site.names()[0],
        filename=WHEEL,
        version="1.0",
        size=7,
        sha256=file.sha256,
        uploaded_at=UPLOADED,
        requires_python=">=3.9",
        yanked="old",
        core_metadata_sha256=sha256,
        location=f"demo/{WHEEL}",
        summary="A demonstration.",
    )
    assert content_of(storage.open_file(handle_of(stored))) == b"content"


def test_a_file_elsewhere_is_a_redirect_and_its_copied_metadata_are_offered(
    site: SiteFolder, storage: Any
) -> None:
    host(site, WHEEL, b"content", url=URL)
    name = site.names()[0]
    site.hosted(name, WHEEL).unlink()
    site.write(site.core_metadata(name, WHEEL), METADATA)
    stored = listed(storage)[WHEEL]
    assert storage.open_file(handle_of(stored)) == Redirect(URL, None)
    file = file_from_record(stored)
    assert file is not None
    assert file.core_metadata_sha256 == hashlib.sha256(METADATA).hexdigest()
    assert content_of(storage.open_core_metadata(file)) == METADATA


def test_a_correction_of_a_fact_changes_the_stamp_and_a_yank_does_not(
    site: SiteFolder, storage: Any
) -> None:
    host(site, WHEEL, b"content")
    before = listed(storage)[WHEEL]
    project = next(site.projects())
    site.write_project(replace(project, versions=(yank(project.versions[0], "broken"),)))
    yanked = listed(storage)[WHEEL]
    assert yanked == replace(before, yanked="broken")
    site.write_project(replace(project, summary="New."))
    assert listed(storage)[WHEEL].stamp != before.stamp


def test_a_file_without_a_time_has_that_of_the_file_of_its_project(
    site: SiteFolder, storage: Any
) -> None:
    host(site, WHEEL, b"content", uploaded_at=None)
    stored = listed(storage)[WHEEL]
    assert stored.uploaded_at is None
    assert stored.modified_at is not None
    assert abs(stored.modified_at.timestamp() - time.time()) < 60


def test_versions_without_files_are_not_listed(site: SiteFolder, storage: Any) -> None:
    host(site, WHEEL, b"content")
    path = site.root / "projects" / "demo.toml"
    text = '\n[[versions]]\nversion = "2.0"\ntag = "v2.0"\ngit = "https://code.example/acme/demo"\n'
    path.write_text(path.read_text() + text)
    assert list(listed(storage)) == [WHEEL]


def test_only_what_has_changed_is_read_again(
    site: SiteFolder, storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        host(site, f"demo{number}-1.0.tar.gz", b"content")
        make_old(site.root / "projects" / f"demo{number}.toml")
    before = listed(storage)
    read: list[str] = []
    parse = reading.parse_project

    def counting(text: str, name: str, *, where: str) -> Any:
        read.append(name)
        return parse(text, name, where=where)

    monkeypatch.setattr(reading, "parse_project", counting)
    assert listed(storage) == before
    assert read == []
    host(site, "demo3-2.0.tar.gz", b"content")
    make_old(site.root / "projects" / "demo3.toml")
    assert set(listed(storage)) == {*before, "demo3-2.0.tar.gz"}
    assert set(read) == {"demo3"}
    (site.root / "projects" / "demo4.toml").unlink()
    assert set(listed(storage)) == {*before, "demo3-2.0.tar.gz"} - {"demo4-1.0.tar.gz"}


# -- what is wrong ---------------------------------------------------------------------------------


def no_toml(path: Path) -> None:
    path.write_text("name = [")


def no_text(path: Path) -> None:
    path.write_bytes(b"name = '\xff'")


def huge(path: Path) -> None:
    path.write_bytes(b"#" * (5 << 20))


def a_link(path: Path) -> None:
    path.rename(path.with_suffix(".old"))
    path.symlink_to(path.with_suffix(".old"))


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def of_another(path: Path) -> None:
    path.write_text('name = "other"\n')


@pytest.mark.parametrize("spoil", [no_toml, no_text, huge, a_link, a_fifo, of_another])
def test_a_wrong_file_of_a_project_does_not_hide_the_others(
    spoil: Callable[[Path], None], site: SiteFolder, storage: Any
) -> None:
    """Its files may still be there, so that nothing counts as absent until it is corrected."""
    host(site, WHEEL, b"content")
    host(site, "other-1.0.tar.gz", b"content")
    path = site.root / "projects" / "demo.toml"
    text = path.read_text()
    stored = listed(storage)[WHEEL]
    spoil(path)
    names = [each.filename for each in storage.list_files() if isinstance(each, StoredFile)]
    assert names == ["other-1.0.tar.gz"]
    [problem] = problems(storage)
    assert problem.may_hold_files
    assert stored.location.startswith(problem.location)
    assert "demo.toml" in problem.problem
    path.unlink()
    path.write_text(text)
    assert set(listed(storage)) == {WHEEL, "other-1.0.tar.gz"}


def test_a_file_under_a_wrong_name_is_reported(site: SiteFolder, storage: Any) -> None:
    host(site, WHEEL, b"content")
    path = site.root / "projects" / "demo.toml"
    path.rename(path.with_name("De_mo.toml"))
    [problem] = problems(storage)
    assert "must be called de-mo.toml" in problem.problem


def test_a_hosted_file_that_is_lost_is_trouble(site: SiteFolder, storage: Any) -> None:
    """The project's file says that it is there; only what that does not have is absent."""
    host(site, WHEEL, b"content")
    stored = listed(storage)[WHEEL]
    site.hosted(site.names()[0], WHEEL).unlink()
    with pytest.raises(BackendError, match="put it there"):
        storage.open_file(handle_of(stored))
    with pytest.raises(FileNotFound):
        storage.open_file(replace(handle_of(stored), filename="demo-2.0.tar.gz"))


def test_no_link_leads_out_of_the_folder(site: SiteFolder, storage: Any, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / WHEEL).write_bytes(b"secret")
    (tmp_path / "demo" / f"{WHEEL}.metadata").write_bytes(b"secret")
    host(site, WHEEL, b"content", core_metadata_sha256="a" * 64)
    hosted = site.hosted(site.names()[0], WHEEL)
    file = file_from_record(listed(storage)[WHEEL])
    assert file is not None
    hosted.unlink()
    hosted.symlink_to(tmp_path / "demo" / WHEEL)
    with pytest.raises(InvalidUpload, match="symbolic link"):
        storage.open_file(file)
    hosted.unlink()
    hosted.parent.rmdir()
    hosted.parent.symlink_to(tmp_path / "demo")
    with pytest.raises(BackendError, match="symbolic link"):
        storage.open_file(file)
    with pytest.raises(FileNotFound):
        storage.open_core_metadata(file)


def test_a_folder_that_is_no_site_is_not_an_empty_one(site: SiteFolder, storage: Any) -> None:
    (site.root / "site.toml").unlink()
    with pytest.raises(BackendError, match="mount the right folder"):
        list(storage.list_files())


# -- git, which changes files one after another ----------------------------------------------------


@pytest.mark.parametrize("worktree", [False, True])
def test_while_git_changes_the_folder_nothing_is_absent(
    worktree: bool, site: SiteFolder, storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(site, WHEEL, b"content")
    stored = listed(storage)[WHEEL]
    folder = site.root.parent / ".git" if worktree else site.root / ".git"
    folder.mkdir()
    if worktree:
        (site.root / ".git").write_text("gitdir: ../.git\n")
    lock = folder / "index.lock"
    lock.touch()
    (site.root / "projects" / "demo.toml").unlink()
    site.hosted(stored_project(stored), WHEEL).unlink()
    monkeypatch.setattr(reading, "_PATIENCE", 0.2)
    with pytest.raises(BackendUnavailable, match="git is changing"):
        list(storage.list_files())
    with pytest.raises(BackendUnavailable, match="git is changing"):
        storage.open_file(handle_of(stored))
    lock.unlink()
    assert listed(storage) == {}
    with pytest.raises(FileNotFound):
        storage.open_file(handle_of(stored))


def stored_project(stored: StoredFile) -> Any:
    assert stored.project is not None
    return stored.project


def test_pushing_needs_commits(site: SiteFolder) -> None:
    with pytest.raises(ValueError, match="push: there is nothing to push"):
        StaticSiteSettings(name="mine", max_file_bytes=1, path=site.root, push=True)
