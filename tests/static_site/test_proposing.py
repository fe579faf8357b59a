"""What the job that opens a pull request takes of a change that foreign code could have written."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from private_pypi.errors import ConfigurationError
from private_pypi.testing.distributions import make_wheel
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making import changing
from tests.static_site.sites import git, host, make_site

pytestmark = pytest.mark.needs("git")

WORKFLOW = Path(changing.__file__).parent / "workflows/propose.yml"
WHEEL = "demo-1.0-py3-none-any.whl"


class Proposal:
    """A repository with a site, and the step that applies a change to it."""

    def __init__(self, folder: Path) -> None:
        self.temporary = folder / "temporary"
        self.site = make_site(folder / "site")
        (self.temporary / "change").mkdir(parents=True)
        program = self.temporary / "private_pypi/bin/private_pypi"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m private_pypi "$@"\n')
        program.chmod(0o755)
        host(self.site, WHEEL, b"content")
        host(self.site, "other-1.0-py3-none-any.whl", b"other")
        (self.site.root / "README.md").write_text("Read this.\n" * 10)
        git(self.site.root, "init", "--quiet")
        self.commit("as it was")

    def commit(self, message: str) -> None:
        git(self.site.root, "add", "--all")
        who = ("-c", "user.name=a", "-c", "user.email=a@b.example")
        git(self.site.root, *who, "commit", "--quiet", f"--message={message}")

    def take(self, *flags: str) -> None:
        """Make a patch of what has changed in the site, and take the change back."""
        git(self.site.root, "add", "--all")
        patch = git(self.site.root, "diff", "--cached", "--binary", *flags)
        git(self.site.root, "reset", "--quiet", "--hard")
        (self.temporary / "change/change.patch").write_text(patch)

    def apply(self) -> subprocess.CompletedProcess[str]:
        steps = YAML(typ="safe").load(WORKFLOW)["jobs"]["propose"]["steps"]
        [step] = [each for each in steps if each.get("name", "").startswith("Apply the change")]
        env = {**os.environ, "RUNNER_TEMP": str(self.temporary), "PACKAGE_NAME": "Demo"}
        env["GITHUB_ENV"] = str(self.temporary / "env")
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.site.root,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @property
    def body(self) -> str:
        return (self.temporary / "change/body.md").read_text()


@pytest.fixture
def proposal(tmp_path: Path) -> Proposal:
    return Proposal(tmp_path)


def test_a_change_of_the_project_is_taken(proposal: Proposal) -> None:
    filename, content = make_wheel("demo", "1.1")
    host(proposal.site, filename, content)
    readme = proposal.site.readme(proposal.site.names()[0], "1.0")
    proposal.site.write(readme, b"# Demo\n")
    proposal.take()
    ran = proposal.apply()
    assert ran.returncode == 0, ran.stderr
    assert "demo-1.1-py3-none-any.whl" in proposal.body
    assert "Warnings" not in proposal.body
    assert (proposal.temporary / "env").read_text() == "NAME=demo\n"


def move_the_readme(site: Path) -> None:
    (site / "packages/demo").mkdir(exist_ok=True)
    (site / "README.md").rename(site / f"packages/demo/{WHEEL}.metadata")


def add_a_link(site: Path) -> None:
    (site / f"packages/demo/{WHEEL}.metadata").symlink_to("/etc/hostname")


def add_a_program(site: Path) -> None:
    (site / f"packages/demo/{WHEEL}").chmod(0o755)


def add_a_repository(site: Path) -> None:
    inner = site / "packages/demo/inner.zip"
    inner.mkdir()
    git(inner, "init", "--quiet")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    git(inner, *who, "commit", "--quiet", "--allow-empty", "--message=inner")


def add_attributes(site: Path) -> None:
    (site / "packages/demo/.gitattributes").write_text("* text eol=crlf\n")


def add_a_folder(site: Path) -> None:
    (site / "packages/demo/more").mkdir()
    (site / "packages/demo/more/other.whl").write_text("content")


@pytest.mark.parametrize(
    "attack",
    [
        move_the_readme,
        add_a_link,
        add_a_program,
        add_a_repository,
        add_attributes,
        add_a_folder,
    ],
)
def test_what_is_no_file_of_the_project_is_refused(proposal: Proposal, attack: object) -> None:
    attack(proposal.site.root)  # type: ignore[operator]
    proposal.take("--find-renames")
    ran = proposal.apply()
    assert ran.returncode == 1
    assert "the change has something else than the files of demo" in ran.stdout
    assert not (proposal.temporary / "env").exists()


def test_what_is_elsewhere_is_left_out(proposal: Proposal) -> None:
    (proposal.site.root / "README.md").write_text("Visit us.\n")
    (proposal.site.root / "projects/other.toml").unlink()
    proposal.take()
    ran = proposal.apply()
    assert ran.returncode == 1
    assert "nothing has changed" in ran.stdout


def test_decisions_and_wrong_files_are_told(proposal: Proposal) -> None:
    [demo, _] = proposal.site.projects()
    proposal.site.write_project(
        replace(demo, ours_on_public=True, burnt=("demo-0.9.tar.gz", "demo-0.8.tar.gz"))
    )
    (proposal.site.root / f"packages/demo/{WHEEL}").write_bytes(b"another")
    proposal.take()
    ran = proposal.apply()
    assert ran.returncode == 0, ran.stderr
    assert "- the project of this name on the public index is ours: `yes`" in proposal.body
    assert "- name that must not be used again: `demo-0.8.tar.gz`" in proposal.body
    assert f"- `packages/demo/{WHEEL}: its SHA-256 is " in proposal.body


def test_decisions_of_a_new_project_and_those_taken_back_are_told(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    host(site, WHEEL, b"content")
    [demo] = site.projects()
    text = site.project_text(demo.normalized)
    decided = replace(demo, ours_on_public=True, burnt=("demo-0.9.tar.gz",))
    site.write_project(decided)
    assert "ours: yes" in changing.describe(site, "demo", None).text()
    before = site.project_text(demo.normalized)
    site.write(site.root / "projects/demo.toml", text.encode())
    told = changing.describe(site, "demo", before).text()
    assert "ours: no" in told
    assert "name of a deleted file that may be used again: demo-0.9.tar.gz" in told


@pytest.mark.parametrize("part", ["file", "folder"])
def test_a_description_follows_no_link(tmp_path: Path, part: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / f"{WHEEL}.metadata").write_text("Name: demo\nSummary: secret\n")
    site: SiteFolder = make_site(tmp_path / "site")
    host(site, WHEEL, b"content")
    packages = site.root / "packages/demo"
    if part == "file":
        (packages / f"{WHEEL}.metadata").symlink_to(elsewhere / f"{WHEEL}.metadata")
        assert "secret" not in changing.describe(site, "demo", None).text()
        return
    packages.rename(site.root / "packages/was")
    packages.symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match="is a symbolic link"):
        changing.describe(site, "demo", None)
