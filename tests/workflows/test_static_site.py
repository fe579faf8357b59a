"""The workflows of a static site, run by act: register, merge, build, install, update, delete."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from private_pypi import cli
from private_pypi.testing.distributions import make_sdist, make_wheel
from tests.github.commands import installed_with_pip
from tests.github.fake import FakeGitHub
from tests.static_site.fake_index import FakeServer, page, running

from .acting import Outcome, Project, dependencies_of_ourselves, wheel_of_ourselves

pytestmark = pytest.mark.needs("act", "pip", "git")

INDEX, DEMO = "acme/index", "acme/demo"
WHEEL = "https://code.invalid/private_pypi-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of_ourselves(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dependencies_of_ourselves(tmp_path_factory.mktemp("dependencies"))


@pytest.fixture
def public() -> Iterator[FakeServer]:
    with running() as public:
        yield public


class Site:
    """The repository acme/index, whose branches git pushes to a bare repository."""

    def __init__(
        self, folder: Path, github: FakeGitHub, wheel: Path, dependencies: Path, public: str
    ) -> None:
        self.github = github
        self.project = Project(folder / "index" / "checkout", INDEX, github)
        self.bare = folder / "bare.git"
        self._dependencies = dependencies
        checkout = self.project.folder
        flags = ("--template=github-pages", f"--repository={INDEX}", f"--requirement={WHEEL}")
        assert cli.main(["static_site.init", f"--folder={checkout}", *flags], {}) == 0
        settings = checkout / "site.toml"
        settings.write_text(f'{settings.read_text()}public_index = "{public}"\n')
        for path in (checkout / ".github" / "workflows").iterdir():
            path.write_text(path.read_text().replace(WHEEL, wheel.as_uri()))
        self.project.write({})
        self.git("clone", "--quiet", "--bare", str(checkout), str(self.bare))
        # What is pushed to GitHub goes there.
        work = checkout.parent / "work"
        work.mkdir()
        (work / ".gitconfig").write_text(
            f'[url "{self.bare}"]\n\tinsteadOf = https://github.com/{INDEX}.git\n'
        )
        github.make_repo("acme", "index")
        github.commit(INDEX, "README.md", b"The index.")

    def git(self, *arguments: str) -> str:
        ended = subprocess.run(
            ["git", *arguments],
            cwd=self.project.folder,
            check=True,
            capture_output=True,
            text=True,
        )
        return ended.stdout

    def run(self, workflow: str, *, event: str = "workflow_dispatch", **inputs: str) -> Outcome:
        # The bot of the job may write this repository, and read public ones.
        token = self.github.make_token(rights={INDEX: "write"})
        return self.project.run(
            f"{workflow}.yml",
            event=event,
            token=token,
            inputs=inputs,
            env={
                "PIP_NO_DEPS": "1",
                "PIP_NO_INDEX": "1",
                "PYTHONPATH": str(self._dependencies),
            },
        )

    @property
    def pulls(self) -> list[dict[str, str]]:
        """The pull requests so far."""
        return self.github.repo(INDEX).pulls

    def changed(self) -> list[str]:
        """The paths that the newest pull request changes."""
        branch = self.pulls[-1]["head"]
        self.git("fetch", "--quiet", str(self.bare), branch)
        return self.git("diff", "--name-only", "HEAD...FETCH_HEAD").split()

    def merge(self) -> None:
        """Merge the newest pull request."""
        self.git("fetch", "--quiet", str(self.bare), self.pulls[-1]["head"])
        self.git("merge", "--quiet", "--ff-only", "FETCH_HEAD")
        self.git("push", "--quiet", str(self.bare), "HEAD:main")

    @property
    def deployed(self) -> Path:
        """The pages as GitHub serves them."""
        return self.project.folder.parent / "work" / "artifacts" / "deployed"


@pytest.fixture
def site(
    github: FakeGitHub, tmp_path: Path, wheel: Path, dependencies: Path, public: FakeServer
) -> Site:
    return Site(tmp_path, github, wheel, dependencies, public.url)


def homepage(github: FakeGitHub) -> str:
    return f"{github.api_url}/{DEMO}"


def release(github: FakeGitHub, version: str) -> Mapping[str, bytes]:
    files = dict((make_wheel("demo", version), make_sdist("demo", version)))
    github.make_release(DEMO, f"v{version}", files)
    return files


def test_from_a_release_to_an_installation(
    site: Site, github: FakeGitHub, public: FakeServer, tmp_path: Path
) -> None:
    github.make_repo("acme", "demo")
    files = release(github, "1.0")
    inputs = {
        "package_name": "demo",
        "version": "1.0",
        "author": "Ann @team <b>",
        "short_desc": "A demonstration",
        "homepage": homepage(github),
    }
    ran = site.run("register", **inputs)
    assert ran.code == 0, ran.output
    [pull] = site.pulls
    assert (pull["title"], pull["base"]) == ("Register demo 1.0", "main")
    assert pull["head"] == "register-demo-1"
    assert all(name in pull["body"] for name in files), pull["body"]
    # In a span of code, nobody is mentioned and nothing is markup.
    assert "- author of the project: `Ann @team <b>`\n" in pull["body"]
    assert "projects/demo.toml" in site.changed()
    site.merge()

    ran = site.run("build-and-deploy", event="push")
    assert ran.code == 0, ran.output
    assert installed_with_pip(site.deployed, tmp_path, "demo") == ["demo-1.0.dist-info"]

    # A second version, and the first one goes.
    release(github, "2.0")
    ran = site.run("update", package_name="Demo", version="v2.0")
    assert ran.code == 0, ran.output
    site.merge()
    ran = site.run("delete", package_name="demo", version="1.0")
    assert ran.code == 0, ran.output
    assert site.pulls[-1]["title"] == "Delete demo 1.0"
    site.merge()
    ran = site.run("build-and-deploy")
    assert ran.code == 0, ran.output
    shown = (site.deployed / "demo" / "index.html").read_text()
    assert "demo-2.0" in shown
    assert "demo-1.0" not in shown
    (tmp_path / "again").mkdir()
    found = installed_with_pip(site.deployed, tmp_path / "again", "demo")
    assert found == ["demo-2.0.dist-info"]

    # Somebody takes the name.
    public.has("demo", page("demo", "99.0"))
    ran = site.run("check")
    assert ran.code != 0
    assert "99.0" in ran.output
    assert github.violations == []


@pytest.mark.parametrize(
    "inputs",
    [
        {"package_name": '"; touch "$HOME/pwned"; "', "version": "$(touch $HOME/pwned)"},
        {"package_name": "demo", "version": "9.9"},
    ],
)
def test_what_cannot_be_registered_opens_no_pull_request(
    site: Site, github: FakeGitHub, tmp_path: Path, inputs: dict[str, str]
) -> None:
    github.make_repo("acme", "demo")
    release(github, "1.0")
    github.serve_git(tmp_path)  # which has no such repository
    ran = site.run("register", homepage=homepage(github), **inputs)
    assert ran.code != 0, ran.output
    assert site.pulls == []
    assert not list(site.project.folder.parent.rglob("pwned"))


def test_a_build_changes_nothing_but_its_project(
    site: Site, github: FakeGitHub, tmp_path: Path
) -> None:
    """What the code of a project has written beside its own files is not proposed."""
    workflow = site.project.folder / ".github" / "workflows" / "propose.yml"
    keep = '          mkdir "$RUNNER_TEMP/change"\n'
    evil = "          echo x | tee .github/workflows/evil.yml projects/other.toml\n"
    text = workflow.read_text().replace(keep, evil + keep)
    assert evil in text
    site.project.write({".github/workflows/propose.yml": text})
    github.make_repo("acme", "demo")
    release(github, "1.0")
    ran = site.run("register", package_name="demo", version="1.0", homepage=homepage(github))
    assert ran.code == 0, ran.output
    assert {path.split("/")[1].split(".")[0] for path in site.changed()} == {"demo"}
