"""Versions that are only tags of a git repository, with today's clients.

`docs/static-site-git-links.md` says in words what is held here. The repositories are served by git
itself on loopback; what is done with `git+http` is done with `git+https`.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from private_pypi_static_site.making.git_links import direct_requirement, link_for_pip
from private_pypi_static_site.project_file import Project, SiteVersion
from tests.clients.environments import Client, Outcome, install_client, make_venv
from tests.clients.installers import INSTALLERS, install, installed
from tests.clients.releases import Release

from .git_server import GitServer, git_server

pytestmark = pytest.mark.needs("clients", "git")

each_installer = pytest.mark.parametrize("name", INSTALLERS)

WHEEL, WHEEL_CONTENT = Release(version="1.5").wheel()
VERSIONS = ("1.0", "2.0", "3.0+cu1")
DEMO = Project(name="Demo")
MakeClient = Callable[[str], Client]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    """A server with the repository `demo`, its tags, and a hosted wheel of demo 1.5."""
    with git_server(tmp_path_factory.mktemp("git-server")) as made:
        made.repository("demo", *VERSIONS)
        made.file("demo", WHEEL, WHEEL_CONTENT)
        yield made


@pytest.fixture
def client(tmp_path: Path) -> MakeClient:
    def make(name: str) -> Client:
        home = tmp_path / f"home-of-{name}"
        home.mkdir()
        return Client(name, install_client(name), home)

    return make


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_venv(tmp_path / "target")


def tagged(server: GitServer, version: str, tag: str | None = None) -> SiteVersion:
    git = f"http://127.0.0.1:{server.port}/git/demo.git"
    return SiteVersion(version=version, tag=tag or f"v{version}", git=git)


def file_anchor() -> str:
    return f'<a href="{WHEEL}#sha256={hashlib.sha256(WHEEL_CONTENT).hexdigest()}">{WHEEL}</a>'


def anchor(address: str | None, more: str = "") -> str:
    assert address is not None
    return f'<a href="{html.escape(address)}"{more}>link</a>'


def text(server: GitServer, version: str) -> str:
    """How a page shows a version without a link."""
    return html.escape(f'pip install "{direct_requirement(DEMO, tagged(server, version))}"')


# -- commands --------------------------------------------------------------------------------------


def add(client: Client, target: Path, *words: str) -> Outcome:
    """Run a command in a project that has no requirement yet."""
    folder = client.home / "consumer"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "consumer"\nversion = "0"\nrequires-python = ">=3.11,<4"\n'
        "dependencies = []\n[tool.poetry]\npackage-mode = false\n[tool.pdm]\ndistribution = false\n"
        "[tool.uv]\npackage = false\n"
    )
    return client.run(*words, cwd=folder, env={"VIRTUAL_ENV": str(target)})


@pytest.mark.parametrize("version", ["2.0", "3.0+cu1"])
@pytest.mark.parametrize(
    "command",
    [
        "pip install",
        "uv pip install",
        "uv add --active",
        "poetry add",
        "pdm add",
    ],
)
def test_a_tag_is_installed_with_each_client(
    command: str, version: str, client: MakeClient, server: GitServer, target: Path
) -> None:
    """These are the commands that a project page shows."""
    requirement = direct_requirement(DEMO, tagged(server, version))
    assert requirement is not None
    name, *words = command.split()
    if "pip" in command:
        where = [f"--python={target}"]
        words = [*where, *words] if name == "pip" else [*words, *where]
    outcome = add(client(name), target, *words, requirement)
    assert (outcome.code, installed(target)) == (0, {"demo": version}), outcome.output


def test_a_tag_is_installed_with_hatch(client: MakeClient, server: GitServer) -> None:
    hatch = client("hatch")
    folder = hatch.home / "consumer"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "consumer"\nversion = "0"\n[tool.hatch.envs.default]\n'
        'skip-install = true\ninstaller = "pip"\n'
        f'dependencies = ["{direct_requirement(DEMO, tagged(server, "2.0"))}"]\n'
    )
    program = "import demo; print(demo.__version__)"
    outcome = hatch.run("run", "python", "-c", program, cwd=folder)
    assert outcome.code == 0, outcome.output
    assert outcome.text.endswith("2.0")


# -- pages -----------------------------------------------------------------------------------------


@each_installer
def test_versions_as_text_break_no_client(
    name: str, client: MakeClient, server: GitServer, target: Path
) -> None:
    server.page("demo", file_anchor(), text(server, "2.0"), text(server, "3.0+cu1"))
    outcome = install(client(name), [server.index], "demo", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.5"}), outcome.output


@each_installer
def test_a_link_for_pip_breaks_no_client(
    name: str, client: MakeClient, server: GitServer, target: Path
) -> None:
    link = link_for_pip(DEMO, tagged(server, "2.0"))
    server.page("demo", file_anchor(), anchor(link), text(server, "3.0+cu1"))
    outcome = install(client(name), [server.index], "demo", target)
    version = "2.0" if name in ("pip", "pdm") else "1.5"
    assert (outcome.code, installed(target)) == (0, {"demo": version}), outcome.output


@pytest.mark.parametrize("name", ["pip", "pdm"])
def test_a_yanked_link_is_avoided(
    name: str, client: MakeClient, server: GitServer, target: Path
) -> None:
    link = link_for_pip(DEMO, tagged(server, "2.0"))
    server.page("demo", file_anchor(), anchor(link, ' data-yanked="broken"'))
    outcome = install(client(name), [server.index], "demo", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.5"}), outcome.output


@pytest.mark.parametrize(
    ("name", "fragment", "says"),
    [
        # What both seeds wrote.
        ("uv", "#egg=demo-2.0", "Unsupported hash algorithm"),
        ("pip", "#egg=demo-3.0+cu1", "invalid-egg-fragment"),
        ("pip", "#egg=demo-3.0+cu1&subdirectory=.", "invalid-egg-fragment"),
        ("pip", "#egg=demo-1!2.0&subdirectory=.", "invalid-egg-fragment"),
    ],
)
def test_other_links_break_a_page_with_files(
    name: str, fragment: str, says: str, client: MakeClient, server: GitServer, target: Path
) -> None:
    """Why `link_for_pip` is so narrow. If this fails, a client has become kinder."""
    requirement = direct_requirement(DEMO, tagged(server, "2.0"))
    assert requirement is not None
    server.page("demo", file_anchor(), anchor(requirement.removeprefix("demo @ ") + fragment))
    outcome = install(client(name), [server.index], "demo", target)
    assert outcome.code != 0
    assert says in outcome.text


def test_pip_needs_the_repository_of_the_newest_link(
    client: MakeClient, server: GitServer, target: Path
) -> None:
    """It does not fall back to the file of an older version."""
    server.page("demo", file_anchor(), anchor(link_for_pip(DEMO, tagged(server, "9.0"))))
    outcome = install(client("pip"), [server.index], "demo", target)
    assert outcome.code != 0
    assert "git checkout -q v9.0 did not run successfully" in outcome.text
