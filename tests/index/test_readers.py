"""Reading many files at a time, in threads and in processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import Secret
from private_pypi.errors import BackendError, InvalidUpload
from private_pypi.index import readers
from private_pypi.index.readers import examine_all, take_file
from private_pypi.model import DistributionFile, StoredFile
from private_pypi.testing.contract.helpers import new_folders
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi_file_system import FileSystemBackend

SECRET = "not-for-those-who-read-files"
ODD = "odd-3.0-py3-none-any.whl"


@pytest.fixture
def storage(tmp_path: Path) -> Any:
    folder = tmp_path / "storage" / "odd"
    folder.mkdir(parents=True)
    for number in range(12):
        for name, content in (
            make_wheel("odd", f"{number}.0", requires_python="sometimes" if number == 5 else ">=3"),
            make_sdist("odd", f"{number}.0"),
        ):
            (folder / name).write_bytes(b"no archive" if number == 7 else content)
    settings = FileSystemBackend.Settings(
        name="mine",
        max_file_bytes=1 << 30,
        path=folder.parent,
        write_secret=(Secret(SECRET),),
    )
    return FileSystemBackend(settings, new_folders(tmp_path)).seen_with(Secret(SECRET))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started; they are for more than five files."""
    monkeypatch.setattr(readers, "_FEW", 5)
    monkeypatch.setattr(readers, "_BATCH", 3)
    begun: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            begun.append(self)

    monkeypatch.setattr(readers.subprocess, "Popen", Noted)
    return begun


def listed(storage: Any) -> list[StoredFile]:
    return sorted(storage.list_files(), key=lambda each: str(each.filename))


def test_processes_find_what_threads_find(
    storage: Any,
    started: list[subprocess.Popen[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = list(examine_all(storage, listed(storage), tmp_path, take_file))
    assert started
    assert all(process.poll() is not None for process in started)
    assert [stored for stored, _ in found] == listed(storage)
    assert "invalid Requires-Python 'sometimes'" in caplog.text  # told by the process
    monkeypatch.setattr(readers, "_FEW", 1000)
    count = len(started)
    in_threads = list(examine_all(storage, listed(storage), tmp_path, take_file))
    assert len(started) == count
    assert [str(outcome) for _, outcome in found] == [str(outcome) for _, outcome in in_threads]
    broken = [stored.filename for stored, each in found if isinstance(each, InvalidUpload)]
    assert broken == ["odd-7.0-py3-none-any.whl", "odd-7.0.tar.gz"]


def end_at_odd(stored: StoredFile, file: DistributionFile) -> str:
    if stored.filename == ODD:
        os._exit(9)
    return file.filename


def test_a_file_that_ends_its_process_is_trouble_with_this_file_only(
    storage: Any, started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    files = [each for each in listed(storage) if "odd-2.0" <= each.filename < "odd-7.0"]
    found = {
        s.filename: outcome for s, outcome in examine_all(storage, files, tmp_path, end_at_odd)
    }
    trouble = found.pop(ODD)
    assert isinstance(trouble, BackendError)
    assert str(trouble) == f"{ODD!r}: the process that read it has ended"
    assert {name for name, outcome in found.items() if name != outcome} == set()
    assert len(found) == 9


def test_who_stops_early_leaves_no_process(
    storage: Any, started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    found = examine_all(storage, listed(storage), tmp_path, take_file)
    next(found)
    found.close()  # type: ignore[attr-defined] - it is a generator
    assert started
    assert all(process.poll() is not None for process in started)


def test_a_process_gets_no_secret(storage: Any, tmp_path: Path) -> None:
    work = readers._pickled(readers._Read(storage, tmp_path, take_file, True))
    assert work is not None
    assert SECRET.encode() not in work
