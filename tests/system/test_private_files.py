"""Private files are written completely, and only their owner may read them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from private_pypi.system.private_files import write_private


def test_a_private_file_is_written_whole_and_replaced_only_if_wanted(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert write_private(path, "first", replace=False)
    assert not write_private(path, "second", replace=False)
    assert path.read_text() == "first"
    assert write_private(path, "third", replace=True)
    assert path.read_text() == "third"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            os.link = lambda *_, **__: os._exit(9)
            write_private(tmp_path / "key", "secret", replace=False)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert list(tmp_path.iterdir()) == []


def test_file_systems_that_know_only_files_with_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.open

    def open_(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return really(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", open_)
    path = tmp_path / "key"
    assert write_private(path, "first", replace=False)
    assert not write_private(path, "second", replace=False)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("first", [path])
