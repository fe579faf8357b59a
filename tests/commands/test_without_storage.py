"""Commands that work on a storage, given a repository that has none: a mirror or a group."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.running import Run

CONFIG = """
[mine]
type = "file_system"
read_secret = "reader"
write_secret = "writer"
[pypi]
type = "mirror"
index_url = "http://127.0.0.1:9/simple/"
[all]
type = "group"
members = ["mine", "pypi"]
"""
MIRROR = (
    "repository 'pypi' is of type 'mirror': it has no storage of its own, so this command cannot "
    "be used for it"
)
GROUP = "[all]: a group has no storage of its own; name one of its members"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize(("name", "sentence"), [("pypi", MIRROR), ("all", GROUP)])
@pytest.mark.parametrize("is_root_given", [True, False])
@pytest.mark.parametrize(
    "command",
    [
        ("update_index", "NAME"),
        ("export", "NAME", "OUT"),
        ("copy", "NAME", "mine"),
        ("copy", "mine", "NAME"),
    ],
    ids=" ".join,
)
def test_the_command_says_that_there_is_no_storage(
    run: Run,
    config: Path,
    tmp_path: Path,
    command: tuple[str, ...],
    name: str,
    sentence: str,
    is_root_given: bool,
) -> None:
    """Before it says anything about folders, and without making any."""
    out = tmp_path / "out"
    words = [{"NAME": name, "OUT": str(out)}.get(word, word) for word in command]
    root = ["--root", str(tmp_path / "root")] if is_root_given else []
    ended = run(*words, "--config", config, *root)
    assert ended.code != 0
    assert ended.err.startswith("error: ") and sentence in ended.err
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize(("name", "sentence"), [("pypi", MIRROR), ("all", GROUP)])
def test_restore_name_says_that_there_is_no_storage(
    run: Run, config: Path, tmp_path: Path, name: str, sentence: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    ended = run("restore_name", root, name, "demo-1.0.tar.gz", "--config", config)
    assert ended.code != 0 and sentence in ended.err
    (root / "config.toml").write_text(CONFIG)  # where a server keeps it
    ended = run("restore_name", root, name, "demo-1.0.tar.gz")
    assert ended.code != 0 and sentence.removeprefix("[all]: ") in ended.err


def test_update_index_of_a_mirror_by_flags(run: Run) -> None:
    ended = run("update_index", "mirror", "pypi", "--index_url", "http://127.0.0.1:9/simple/")
    assert ended.code != 0 and MIRROR in ended.err
