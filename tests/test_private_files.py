"""Private files: whole, and for their owner only."""

from __future__ import annotations

import stat
from pathlib import Path

from private_pypi.private_files import write_private


def test_a_private_file_is_written_whole_and_replaced_only_if_wanted(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert write_private(path, "first", replace=False)
    assert not write_private(path, "second", replace=False)
    assert path.read_text() == "first"
    assert write_private(path, "third", replace=True)
    assert path.read_text() == "third"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
