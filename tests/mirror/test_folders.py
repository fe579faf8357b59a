"""An index that is a folder of this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from packaging.utils import NormalizedName

from private_pypi.errors import (
    BackendError,
    FileNotFound,
    InvalidUpload,
    PrivatePypiError,
    ProjectNotFound,
)
from private_pypi.model import FileHandle, LocalFile
from private_pypi_mirror.backend import MirrorStorage
from tests.mirror.conftest import MakeMirror
from tests.mirror.serving import Reply, Upstream

WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an index in `a b/simple`, and files in it and beside it."""
    site = tmp_path / "a b"
    for path, text in {
        "simple/demo/index.html": f"""<html><body>
            <a href="{WHEEL}">x</a> <a href="../../packages/demo-1.0.tar.gz">x</a>
            <a href="https://files.acme.example/demo-2.0.tar.gz">x</a>
            <a href="../../../demo-3.0.zip">x</a></body></html>""",
        f"simple/demo/{WHEEL}": "a wheel",
        f"simple/demo/{WHEEL}.metadata": "Name: demo",
        "packages/demo-1.0.tar.gz": "an sdist",
        "config.toml": "password",
        "../demo-3.0.zip": "outside",
    }.items():
        file = site / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return site


@pytest.fixture
def folder(site: Path, mirror_of: MakeMirror) -> MirrorStorage:
    """A mirror of the folder."""
    return mirror_of((site / "simple").as_uri())


def files(folder: MirrorStorage) -> dict[str, str]:
    page = folder.project_page("demo", "")
    assert page is not None
    return {file.filename: file.url for file in page.files}


def handle(filename: str, url: str) -> FileHandle:
    return FileHandle(
        project=NormalizedName("demo"), filename=filename, size=None, sha256=None, location=url
    )


def content(folder: MirrorStorage, filename: str, url: str) -> bytes:
    found = folder.open_file(handle(filename, url))
    assert isinstance(found, LocalFile)
    with found.file as file:
        return file.read()


def test_pages_and_files(site: Path, folder: MirrorStorage) -> None:
    found = files(folder)
    assert found == {
        WHEEL: (site / "simple/demo" / WHEEL).as_uri(),
        "demo-1.0.tar.gz": (site / "packages/demo-1.0.tar.gz").as_uri(),
        "demo-2.0.tar.gz": "https://files.acme.example/demo-2.0.tar.gz",
        "demo-3.0.zip": (site.parent / "demo-3.0.zip").as_uri(),
    }
    assert content(folder, WHEEL, found[WHEEL]) == b"a wheel"
    assert content(folder, "demo-1.0.tar.gz", found["demo-1.0.tar.gz"]) == b"an sdist"
    assert folder.read_part(found[WHEEL], 2, 3) == b"whe"
    assert folder.read_part(found["demo-1.0.tar.gz"], 6, 10) == b"st"
    metadata = folder.open_metadata(handle(WHEEL, found[WHEEL]))
    assert isinstance(metadata, LocalFile)
    with metadata.file as file:
        assert file.read() == b"Name: demo"
    names = folder.project_names("")
    assert names is not None
    assert list(names.names) == ["demo"]


def test_files_of_other_hosts_are_fetched_from_there(
    upstream: Upstream, folder: MirrorStorage
) -> None:
    upstream.answers["/demo-2.0.tar.gz"] = Reply(b"content", "application/gzip")
    found = folder.open_file(handle("demo-2.0.tar.gz", f"{upstream.origin}/demo-2.0.tar.gz"))
    assert not isinstance(found, LocalFile)


@pytest.mark.parametrize(
    ("filename", "path"),
    [
        ("demo-1.0.zip", "config.toml"),
        ("demo-1.0.zip", "simple/demo/index.html"),
        ("config.toml", "config.toml/"),
        ("demo-9.zip", "simple/demo/demo-9.zip"),
        ("simple", "simple"),
        ("..", "simple/.."),
    ],
)
def test_nothing_else_is_opened(
    site: Path, folder: MirrorStorage, filename: str, path: str
) -> None:
    with pytest.raises(FileNotFound):
        folder.open_file(handle(filename, f"{site.as_uri()}/{path}"))


@pytest.mark.parametrize(
    "path",
    [
        "../demo-3.0.zip",
        "simple/%2e%2e/%2e%2e/demo-3.0.zip",
        "simple/../../demo-3.0.zip",
        "simple/%00/demo-3.0.zip",
    ],
)
def test_files_outside_of_the_two_folders_are_trouble(
    site: Path, folder: MirrorStorage, path: str
) -> None:
    with pytest.raises(BackendError, match="is not used"):
        folder.open_file(handle("demo-3.0.zip", f"{site.as_uri()}/{path}"))
    with pytest.raises(BackendError, match="is not used"):
        folder.read_part(f"{site.as_uri()}/{path}", 0, 5)


@pytest.mark.parametrize("path", ["config.toml", "simple/demo/index.html", "simple", ""])
def test_parts_of_other_files_are_not_read(site: Path, folder: MirrorStorage, path: str) -> None:
    with pytest.raises(FileNotFound):
        folder.read_part(f"{site.as_uri()}/{path}", 0, 5)


@pytest.mark.parametrize(
    "url", ["ftp://acme.example/demo-1.0.zip", "file://acme.example/srv/demo-1.0.zip", ""]
)
def test_other_addresses_are_trouble(folder: MirrorStorage, url: str) -> None:
    with pytest.raises(BackendError, match="is not used"):
        folder.open_file(handle("demo-1.0.zip", url))


def test_links_are_not_followed(site: Path, folder: MirrorStorage) -> None:
    secret = site / "config.toml"
    (site / "simple/demo/demo-4.0.zip").symlink_to(secret)
    (site / "simple/linked").symlink_to(site / "simple/demo")
    (site / "simple/page").mkdir()
    (site / "simple/page/index.html").symlink_to(secret)
    (site / "simple/out").symlink_to(site.parent)
    os.mkfifo(site / "simple/demo/demo-5.0.zip")
    base = f"{site.as_uri()}/simple"
    for filename in ("demo-4.0.zip", "demo-5.0.zip"):
        with pytest.raises(InvalidUpload, match="put the file itself there"):
            folder.open_file(handle(filename, f"{base}/demo/{filename}"))
    with pytest.raises(PrivatePypiError):
        folder.open_file(handle("demo-3.0.zip", f"{base}/out/demo-3.0.zip"))
    for project in ("linked", "page", "out"):
        with pytest.raises(BackendError):
            folder.project_page(project, "")
    names = folder.project_names("")
    assert names is not None
    assert list(names.names) == ["demo", "page"]


def test_a_missing_folder_of_a_project_is_absence_and_of_the_index_is_trouble(
    site: Path, folder: MirrorStorage
) -> None:
    with pytest.raises(ProjectNotFound):
        folder.project_page("other", "")
    (site / "simple").rename(site / "moved")
    for call in (
        lambda: folder.project_page("other", ""),
        lambda: folder.project_names(""),
        lambda: folder.open_file(handle(WHEEL, f"{site.as_uri()}/simple/demo/{WHEEL}")),
    ):
        with pytest.raises(BackendError, match="No such file or directory"):
            call()


def test_an_empty_folder_is_trouble_because_a_disk_may_be_missing(
    site: Path, folder: MirrorStorage
) -> None:
    (site / "simple").rename(site / "moved")
    (site / "simple").mkdir()
    with pytest.raises(BackendError, match="is empty"):
        folder.project_page("demo", "")
    with pytest.raises(BackendError, match="no folder of a project"):
        folder.project_names("")


def test_a_project_without_a_page_or_with_half_a_page_is_trouble(
    site: Path, folder: MirrorStorage
) -> None:
    page = site / "simple/demo/index.html"
    text = page.read_text()
    page.write_text(text.removesuffix("</body></html>"))
    with pytest.raises(BackendError, match="may be cut off"):
        folder.project_page("demo", "")
    page.unlink()
    with pytest.raises(BackendError, match=r"has no file 'index.html'"):
        folder.project_page("demo", "")


def test_a_page_that_has_not_changed_is_not_read_again(
    site: Path, folder: MirrorStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = folder.project_page("demo", "")
    assert page is not None
    assert page.validator == ""  # it was written just now
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 100)
    page = folder.project_page("demo", "")
    assert page is not None
    assert folder.project_page("demo", page.validator) is None
    path = site / "simple/demo/index.html"
    path.write_text(path.read_text().replace("1.0", "1.1"))
    changed = folder.project_page("demo", page.validator)
    assert changed is not None
    assert changed.validator != page.validator
