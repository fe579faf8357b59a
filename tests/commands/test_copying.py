"""`copy`: between repositories, with what they know of their files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from private_pypi import cli
from private_pypi.backend import Secret
from private_pypi.index.document import IndexEdit
from private_pypi.index.stored_document import edit_index
from private_pypi.testing.contract.helpers import (
    content_of,
    make_upload,
    new_folders,
    published,
)
from private_pypi_file_system.backend import (
    FileSystemBackend,
    FileSystemSettings,
    FileSystemStorage,
)

NAMES = ("demo-1.0.tar.gz", "demo-2.0.tar.gz", "other-1.0.zip")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """The storages of two repositories."""
    found = {name: tmp_path / name for name in ("old", "new")}
    for path in found.values():
        path.mkdir()
    return found


@pytest.fixture
def config(tmp_path: Path, folders: dict[str, Path]) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(
        "".join(
            f'[{name}]\ntype = "file_system"\npath = "{folder}"\n'
            for name, folder in folders.items()
        )
    )
    return path


@pytest.fixture
def run(config: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        code = cli.main(["copy", "old", "new", "--config", str(config), *words], {})
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def storage(path: Path, tmp_path: Path) -> FileSystemStorage:
    settings = FileSystemSettings(name="mine", max_file_bytes=1 << 30, path=path)
    return FileSystemStorage(FileSystemBackend(settings, new_folders(tmp_path)), Secret(""))


def fill(path: Path, tmp_path: Path) -> dict[str, Any]:
    """Three files, one of them yanked; their facts by name."""
    old = storage(path, tmp_path)
    uploads = [make_upload(tmp_path, name, name.encode()) for name in NAMES]
    files = [published(upload, old.put_file(upload)) for upload in uploads]
    edit_index(
        old,
        IndexEdit(yank={NAMES[1]: "broken"}, files=files),
        backend_type="file_system",
    )
    return {file.filename: file for file in files}


def test_everything_is_copied_once(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    files = fill(folders["old"], tmp_path)
    assert run() == (
        0, "old -> new: 3 files copied, 0 were there, 1 yanks carried over\n", "",
    )  # fmt: skip
    new = storage(folders["new"], tmp_path)
    listed = {stored.filename: stored for stored in new.list_files() if hasattr(stored, "stamp")}
    assert sorted(listed) == sorted(NAMES)
    for name, stored in listed.items():
        assert content_of(new.open_file(files[name])) == name.encode()
        record = new.read_record(stored)
        assert record is not None
        assert record["sha256"] == hashlib.sha256(name.encode()).hexdigest()
        assert record["uploaded_at"].startswith("2026-11-20T12:30:00")
        assert content_of(new.open_core_metadata(files[name])).startswith(b"Metadata-Version")
    assert "broken" in (folders["new"] / "index.toml").read_text()
    assert run() == (0, "old -> new: 0 files copied, 3 were there\n", "")


def test_a_dry_run_copies_nothing(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    fill(folders["old"], tmp_path)
    code, out, _ = run("--dry_run")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("would copy")] == [
        f"would copy {name}" for name in NAMES
    ]
    assert out.endswith("3 files would be copied, 0 were there, 1 yanks would be carried over\n")
    assert list(folders["new"].iterdir()) == []


def test_some_projects_alone(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    fill(folders["old"], tmp_path)
    assert run("--project", "Other")[:2] == (0, "old -> new: 1 files copied, 0 were there\n")
    code, _, err = run("--project", "other,missing")
    assert code == 1
    assert "'old' has no project 'missing'" in err


def test_other_content_under_a_name_is_told_and_stops_no_other_file(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    fill(folders["old"], tmp_path)
    storage(folders["new"], tmp_path).put_file(make_upload(tmp_path, NAMES[0], b"other content"))
    code, out, err = run()
    assert (code, out.startswith("old -> new: 2 files copied, 0 were there")) == (1, True)
    assert "File already exists ('demo-1.0.tar.gz' is published with other content)" in err


def test_damaged_content_is_not_published(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    fill(folders["old"], tmp_path)
    path = folders["old"] / "demo" / NAMES[0]
    status = path.stat()
    path.write_bytes(b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    code, _, err = run()
    assert code == 1
    assert f"'{NAMES[0]}' of 'old' arrived with other content" in err
    assert not (folders["new"] / "demo" / NAMES[0]).exists()


def test_a_name_that_is_burnt_there_stays_so(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    files = fill(folders["old"], tmp_path)
    new = storage(folders["new"], tmp_path)
    new.put_file(make_upload(tmp_path, "demo-0.1.tar.gz"))
    edit_index(new, IndexEdit(delete=[files[NAMES[0]]]), backend_type="file_system")
    code, _, err = run()
    assert code == 1
    assert "was previously used" in err
    assert not (folders["new"] / "demo" / NAMES[0]).exists()


def test_a_repository_is_not_copied_to_itself(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["copy", "old", "OLD", "--config", str(config)], {}) == 2
    assert "the same repository" in capsys.readouterr().err
