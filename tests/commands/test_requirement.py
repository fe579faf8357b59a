"""How a workflow installs this project: told by pip's records and by git, never guessed."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from private_pypi.commands import requirement
from private_pypi.commands.requirement import InstalledFrom, check_requirement, installed_from
from private_pypi.errors import ConfigurationError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA256 = "ab" * 32


def installed(folder: Path, direct_url: object = None) -> Distribution:
    """What pip recorded of an installation."""
    record = folder / "private_pypi-1.0.0.dist-info"
    record.mkdir()
    if direct_url is not None:
        (record / "direct_url.json").write_text(json.dumps(direct_url))
    return Distribution.at(record)


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.invalid")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    ended = subprocess.run(
        ["git", *identity, *words],
        cwd=folder,
        env=clean,
        check=True,
        capture_output=True,
        text=True,
    )
    return ended.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a commit that its origin has."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "remote", "add", "origin", "https://code.invalid/acme/private_pypi.git")
    (folder / "file").write_text("1")
    git(folder, "add", "file")
    git(folder, "commit", "--quiet", "--message=First")
    git(folder, "update-ref", "refs/remotes/origin/main", "HEAD")
    return folder


@pytest.mark.parametrize(
    ("direct_url", "expected"),
    [
        (
            {
                "url": "https://code.invalid/acme/private_pypi",
                "vcs_info": {"vcs": "git", "commit_id": COMMIT, "requested_revision": "main"},
            },
            f"private-pypi @ git+https://code.invalid/acme/private_pypi@{COMMIT}",
        ),
        (
            {
                "url": "ssh://git@code.invalid/acme/private_pypi.git",
                "vcs_info": {"vcs": "git", "commit_id": COMMIT},
                "subdirectory": "python",
            },
            f"private-pypi @ git+https://code.invalid/acme/private_pypi.git@{COMMIT}"
            "#subdirectory=python",
        ),
        (
            {
                "url": "https://files.invalid/private_pypi-1.0.0-py3-none-any.whl",
                "archive_info": {"hashes": {"sha256": SHA256}},
            },
            "private-pypi @ https://files.invalid/private_pypi-1.0.0-py3-none-any.whl"
            f"#sha256={SHA256}",
        ),
    ],
)
def test_what_pip_recorded_is_installed_again(
    tmp_path: Path, direct_url: object, expected: str
) -> None:
    told = installed_from({}, installed=installed(tmp_path, direct_url))
    assert (told.requirement, told.warnings) == (expected, ())
    assert check_requirement(told.requirement) == expected


@pytest.mark.needs("git")
@pytest.mark.parametrize("editable", [True, False])
def test_a_checkout_is_its_origin_at_its_commit(
    tmp_path: Path, checkout: Path, editable: bool
) -> None:
    direct_url = {"url": checkout.as_uri(), "dir_info": {"editable": editable}}
    commit = git(checkout, "rev-parse", "HEAD")
    # As in a hook of another repository.
    environ = {**os.environ, "GIT_DIR": str(tmp_path), "GIT_WORK_TREE": str(tmp_path)}
    told = installed_from(environ, installed=installed(tmp_path, direct_url))
    assert told.requirement == (
        f"private-pypi @ git+https://code.invalid/acme/private_pypi.git@{commit}"
    )
    assert told.warnings == ()
    assert installed_from(environ, installed=installed(checkout), source=checkout) == told


@pytest.mark.needs("git")
@pytest.mark.parametrize(
    ("origin", "address"),
    [
        ("git@code.invalid:acme/private_pypi.git", "https://code.invalid/acme/private_pypi.git"),
        (
            "https://user:ghp_secret@code.invalid/acme/private_pypi",
            "https://code.invalid/acme/private_pypi",
        ),
        ("ssh://git@code.invalid:22/acme/private_pypi", "https://code.invalid/acme/private_pypi"),
    ],
)
def test_an_origin_is_written_as_everybody_may_use_it(
    tmp_path: Path, checkout: Path, origin: str, address: str
) -> None:
    git(checkout, "remote", "set-url", "origin", origin)
    told = installed_from(dict(os.environ), installed=installed(tmp_path), source=checkout)
    assert told.requirement.rpartition("@")[0] == f"private-pypi @ git+{address}"


@pytest.mark.needs("git")
def test_what_the_workflow_would_lack_is_told(tmp_path: Path, checkout: Path) -> None:
    git(checkout, "update-ref", "-d", "refs/remotes/origin/main")
    (checkout / "file").write_text("2")
    told = installed_from(dict(os.environ), installed=installed(tmp_path), source=checkout)
    assert [sentence.split(";")[1] for sentence in told.warnings] == [
        " the workflow will not have them",
        " push it",
    ]


@pytest.mark.needs("git")
@pytest.mark.parametrize(
    "direct_url",
    [
        None,
        {"url": "file:///nowhere", "dir_info": {"editable": True}},
        {"url": "file:///nowhere/private_pypi.whl", "archive_info": {}},
        {"url": "file:///nowhere", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
        {"url": "https://code.invalid/x", "vcs_info": {"vcs": "git", "commit_id": "main"}},
    ],
)
def test_what_cannot_be_told_is_asked_for(tmp_path: Path, direct_url: object) -> None:
    with pytest.raises(ConfigurationError, match="give --requirement"):
        installed_from(
            dict(os.environ), installed=installed(tmp_path, direct_url), source=tmp_path / "nowhere"
        )


@pytest.mark.needs("git")
def test_a_checkout_without_a_usable_origin_is_asked_for(tmp_path: Path, checkout: Path) -> None:
    below = checkout / "environment"  # another project's checkout that we were installed into
    below.mkdir()
    for number, (folder, origin) in enumerate(
        [(below, None), (checkout, "/srv/git/private_pypi"), (checkout, "")]
    ):
        if origin is not None:
            git(checkout, "remote", "remove", "origin")
            if origin:
                git(checkout, "remote", "add", "origin", origin)
        record = tmp_path / str(number)
        record.mkdir()
        direct_url = {"url": folder.as_uri(), "dir_info": {}}
        with pytest.raises(ConfigurationError, match="give --requirement"):
            installed_from(dict(os.environ), installed=installed(record, direct_url))


@pytest.mark.parametrize(
    "text",
    [
        "private-pypi",
        "private_pypi[oci]",
        "Private.PyPI<1",
        "private-pypi==0.2.0",
        "pywharf>=1",
        "-r requirements.txt",
        "https://user:secret@files.invalid/private_pypi-1.0.0-py3-none-any.whl",
        "private-pypi @ git+https://secret@code.invalid/acme/private_pypi",
        "",
    ],
)
def test_what_would_install_something_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--requirement") as refused:
        check_requirement(text)
    assert "user:secret" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "private-pypi>=1.0",
        "private-pypi == 1.2.3",
        f"git+https://code.invalid/acme/private_pypi@{COMMIT}",
        "https://files.invalid/private_pypi-1.0.0-py3-none-any.whl",
    ],
)
def test_what_an_operator_gives_is_taken(text: str) -> None:
    assert check_requirement(f" {text} ") == text


def test_an_image_is_told_when_it_is_built(tmp_path: Path) -> None:
    given = f"private-pypi @ git+https://code.invalid/acme/private_pypi@{COMMIT}"
    told = installed_from(
        {"PRIVATE_PYPI_REQUIREMENT": f" {given}"}, installed=installed(tmp_path), source=tmp_path
    )
    assert told == InstalledFrom(requirement=given)


def test_an_image_that_was_told_nothing_asks_for_a_requirement(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give --requirement"):
        installed_from(
            {"PRIVATE_PYPI_REQUIREMENT": ""}, installed=installed(tmp_path), source=tmp_path
        )


def test_what_an_image_was_told_is_checked_like_a_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^PRIVATE_PYPI_REQUIREMENT: .*abandoned"):
        installed_from({"PRIVATE_PYPI_REQUIREMENT": "private-pypi"}, installed=installed(tmp_path))


@pytest.mark.needs("git")
def test_a_machine_without_git_asks_for_a_requirement(tmp_path: Path, checkout: Path) -> None:
    with pytest.raises(ConfigurationError, match="give --requirement"):
        installed_from({"PATH": ""}, installed=installed(tmp_path), source=checkout)


def test_the_project_is_called_what_pip_calls_it() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'name = "{requirement.PROJECT}"' in text
