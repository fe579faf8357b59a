"""Child processes that work on uploaded content do not inherit secrets from the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from private_pypi.commands.requirement import installed_from
from private_pypi.distributions.descriptions import Description
from private_pypi.errors import ConfigurationError
from private_pypi.index import child as index_child
from private_pypi.pages.readme import Readmes

SECRETS = {"MINE_WRITE": "s3cret", "ADMIN_TOKEN": "s3cret", "GITHUB_TOKEN": "s3cret"}
# Variables that the Python of this machine may need.
INTERPRETER = {
    *("DYLD_LIBRARY_PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONUTF8"),
    *("LANG", "LC_ALL", "LC_CTYPE", "SQLITE_TMPDIR", "TMPDIR"),
}

# Every Python process that has this on its path writes its initial environment to a file.
_TELL = """\
import json, os, pathlib
told = dict(os.environ)
pathlib.Path(__file__).with_name("told.json").write_text(json.dumps(told))
"""


def render_readme(folder: Path) -> None:
    html = Readmes().html(Description(text="# Demo", content_type="text/markdown"), "mine")
    assert html == '<h3 id="user-content-demo">Demo</h3>\n'


def parse_index(folder: Path) -> None:
    document = folder / "index.toml"
    document.write_text("mtime = 1\npkgs = []\n" + "# filling\n" * 40_000)
    index_child.stage(document, folder / "scratch.sqlite", location_key="url")
    assert (folder / "scratch.sqlite").exists()


@pytest.mark.parametrize("work", [render_readme, parse_index])
def test_a_python_child_gets_what_an_interpreter_needs(
    work: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_TELL)
    given = {"PYTHONPATH": str(tmp_path), "LANG": "C.UTF-8", "TMPDIR": str(tmp_path)}
    for name, value in {**SECRETS, **given}.items():
        monkeypatch.setenv(name, value)
    work(tmp_path)
    told = json.loads((tmp_path / "told.json").read_text())
    assert {name: told.get(name) for name in given} == given
    assert set(told) <= INTERPRETER
    assert "s3cret" not in told.values()


@pytest.mark.needs("a program that stands for git")
def test_git_gets_no_secret_when_it_is_asked_about_a_checkout(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    git = tmp_path / "git"
    git.write_text('#!/bin/sh\n/usr/bin/env -0 >> "$HOME/told"\nexit 1\n')
    git.chmod(0o755)
    environ = {**SECRETS, "PATH": str(tmp_path), "HOME": str(tmp_path), "GIT_DIR": "/elsewhere"}
    with pytest.raises(ConfigurationError):
        installed_from(environ, installed=Untold(), source=tmp_path)  # type: ignore[arg-type]
    told = {pair.partition("=")[0] for pair in (tmp_path / "told").read_text().split("\0")}
    assert told - {"", "PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "HOME"}


class Untold:
    """A distribution without the file that says from where it was installed."""

    def read_text(self, name: str) -> None:
        return None
