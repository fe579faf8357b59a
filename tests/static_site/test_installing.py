"""Real clients install from a built site, over a plain file server and from the folder itself."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.project_file import SiteVersion
from tests.clients.environments import Client, Outcome, install_client, make_venv
from tests.clients.installers import install, installed
from tests.machine import need

from .built_sites import NOON, PlainServer, add, build, host, make_site

pytestmark = pytest.mark.needs("clients")

MakeClient = Callable[[str], Client]
CLIENTS: Final = ("pip", "uv", "poetry")

each_client = pytest.mark.parametrize("name", CLIENTS)


@pytest.fixture
def client(tmp_path: Path) -> MakeClient:
    def make(name: str) -> Client:
        home = tmp_path / f"home-of-{name}"
        home.mkdir(exist_ok=True)
        return Client(name, install_client(name), home)

    return make


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_venv(tmp_path / "target")


@pytest.fixture
def site(tmp_path: Path) -> SiteFolder:
    return make_site(tmp_path / "site")


@pytest.fixture
def served(site: SiteFolder) -> Iterator[PlainServer]:
    output = site.root / "_site"
    output.mkdir()
    server = PlainServer(output)
    yield server
    server.close()


@each_client
def test_the_newest_version_is_installed(
    name: str, client: MakeClient, site: SiteFolder, served: PlainServer, target: Path
) -> None:
    """Not a pre-release, not a yanked version, not one for another Python; local ones count."""
    for version in ("1.0", "1.1+harbour.1", "2.0rc1"):
        host(site, *make_wheel("demo", version))
    host(site, *make_wheel("demo", "1.2"), yanked="broken")
    host(site, *make_wheel("demo", "1.3", requires_python=">=4"))
    build(site)
    outcome = install(client(name), [served.url], "demo", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.1+harbour.1"}), outcome.output


@each_client
def test_a_yanked_version_is_installed_if_it_is_named(
    name: str, client: MakeClient, site: SiteFolder, served: PlainServer, target: Path
) -> None:
    host(site, *make_wheel("demo", "1.0"), yanked="broken")
    build(site)
    outcome = install(client(name), [served.url], "demo==1.0", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output
    assert "broken" in outcome.output or name == "poetry"


@each_client
def test_a_pre_release_is_installed_if_it_is_named(
    name: str, client: MakeClient, site: SiteFolder, served: PlainServer, target: Path
) -> None:
    host(site, *make_wheel("demo", "1.0"))
    host(site, *make_wheel("demo", "2.0rc1"))
    build(site)
    outcome = install(client(name), [served.url], "demo>=2.0rc1", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "2.0rc1"}), outcome.output


@each_client
def test_the_metadata_are_read_instead_of_wheels(
    name: str, client: MakeClient, site: SiteFolder, served: PlainServer, target: Path
) -> None:
    about = [("Requires-Dist", "other>=2")]
    host(site, *make_wheel("demo", "1.0", extra_metadata=about))
    host(site, *make_wheel("other", "1.0"))
    host(site, *make_wheel("other", "2.0"))
    build(site)
    outcome = install(client(name), [served.url], "demo", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0", "other": "2.0"}), outcome.output
    names = served.names()
    wheel = "demo-1.0-py3-none-any.whl"
    assert names.index(f"{wheel}.metadata") < names.index(wheel)
    assert "other-1.0-py3-none-any.whl" not in names


@each_client
def test_the_wheel_for_this_machine_is_taken(
    name: str, client: MakeClient, site: SiteFolder, served: PlainServer, target: Path
) -> None:
    for tag in ("cp27-cp27m-win32", "py3-none-any", "cp39-cp39-macosx_11_0_arm64"):
        host(site, *make_wheel("demo", "1.0", tag=tag))
    host(site, *make_sdist("demo", "1.0"))
    build(site)
    outcome = install(client(name), [served.url], "demo", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output
    files = {each for each in served.names() if each.startswith("demo-") and "metadata" not in each}
    assert files == {"demo-1.0-py3-none-any.whl"}


@each_client
def test_a_file_that_was_changed_on_the_host_is_refused(
    name: str, client: MakeClient, site: SiteFolder, served: PlainServer, target: Path
) -> None:
    filename, content = make_wheel("demo", "1.0")
    host(site, filename, content)
    build(site)
    wheel = site.root / "_site/packages/demo" / filename
    wheel.unlink()  # it may be a link to the file of the site
    wheel.write_bytes(make_wheel("demo", "1.0", description="other")[1])
    outcome = install(client(name), [served.url], "demo", target)
    assert outcome.code != 0
    assert installed(target) == {}
    assert "hash" in outcome.text.lower()


@each_client
def test_files_elsewhere_are_installed(
    name: str,
    client: MakeClient,
    site: SiteFolder,
    served: PlainServer,
    target: Path,
    tmp_path: Path,
) -> None:
    """As assets of releases are."""
    filename, content = make_wheel("demo", "1.0")
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / filename).write_bytes(content)
    elsewhere = PlainServer(assets)
    host(site, filename, content, url=elsewhere.url + filename, core_metadata_sha256=None)
    site.hosted(site.names()[0], filename).unlink()
    build(site)
    outcome = install(client(name), [served.url], "demo", target)
    elsewhere.close()
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output
    assert filename in elsewhere.names()


@pytest.mark.parametrize("name", ["pip", "uv"])
def test_the_folder_itself_is_an_index(
    name: str, client: MakeClient, site: SiteFolder, target: Path
) -> None:
    host(site, *make_wheel("demo", "1.0+harbour.1", extra_metadata=[("Requires-Dist", "other")]))
    host(site, *make_wheel("other", "1.0"))
    build(site)
    url = (site.root / "_site").as_uri()
    outcome = install(client(name), [url], "demo", target)
    if name == "pip" and outcome.code:
        pytest.fail(outcome.output)
    assert (outcome.code, installed(target)) == (
        0,
        {"demo": "1.0+harbour.1", "other": "1.0"},
    ), outcome.output


@pytest.mark.parametrize("name", ["pip", "uv"])
def test_the_flat_page_is_enough(
    name: str, client: MakeClient, site: SiteFolder, served: PlainServer, target: Path
) -> None:
    host(site, *make_wheel("demo", "1.0", extra_metadata=[("Requires-Dist", "other")]))
    host(site, *make_wheel("other", "1.0+x"))
    build(site)
    words = ("install", "--no-index", f"--find-links={served.url}files.html", "demo")
    if name == "pip":
        outcome = client(name).run(f"--python={target}", *words)
    else:
        outcome = client(name).run("pip", *words, f"--python={target}")
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0", "other": "1.0+x"}), (
        outcome.output
    )


def test_uv_knows_when_a_file_was_published(
    client: MakeClient, site: SiteFolder, served: PlainServer, target: Path
) -> None:
    host(site, *make_wheel("demo", "1.0"))
    host(site, *make_wheel("demo", "2.0"), uploaded_at=NOON.replace(year=2027))
    build(site)
    outcome = install(
        client("uv"), [served.url], "demo", target, "--exclude-newer=2026-06-01T00:00:00Z"
    )
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output


@each_client
def test_versions_that_are_only_tags_leave_the_others_alone(
    name: str, client: MakeClient, site: SiteFolder, served: PlainServer, target: Path
) -> None:
    """A link to git with a local version broke the whole page for pip (seed systems 3.5)."""
    host(site, *make_wheel("demo", "1.0"))
    only_tag = SiteVersion(
        version="2.0+cu1", tag="v2", git="https://code.example/acme/demo-3.tar.gz"
    )
    add(site, only_tag, name="demo", homepage="https://code.example/demo-99.tar.gz")
    build(site)
    outcome = install(client(name), [served.url], "demo", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output


@each_client
def test_the_commands_of_a_page_install(
    name: str, client: MakeClient, site: SiteFolder, served: PlainServer, tmp_path: Path
) -> None:
    (site.root / "site.toml").write_text(f'title = "Harbour"\nurl = "{served.url}"\n')
    host(site, *make_wheel("demo", "1.0"))
    host(site, *make_wheel("demo", "2.0"))
    build(site)
    outcome, has = follow(site, "demo/index.html", client(name), tmp_path)
    assert (outcome.code, has) == (0, {"demo": "2.0"}), outcome.output
    outcome, has = follow(site, "demo/1.0/index.html", client(name), tmp_path)
    assert (outcome.code, has) == (0, {"demo": "1.0"}), outcome.output


@each_client
def test_the_commands_for_a_tag_install(
    name: str, client: MakeClient, site: SiteFolder, tmp_path: Path
) -> None:
    repository = tmp_path / "demo.git"
    git = need("git")
    (tmp_path / "work").mkdir()
    (tmp_path / "work/pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "built"\nbackend-path = ["."]\n'
        '[project]\nname = "demo"\nversion = "1.0+cu1"\n'
    )
    wheel, content = make_wheel("demo", "1.0+cu1")
    (tmp_path / "work/built.py").write_text(_BACKEND.format(wheel=wheel, content=content))

    def run(*arguments: str | Path) -> None:
        identity = ("-c", "user.name=Ann", "-c", "user.email=ann@harbour.example")
        subprocess.run(
            [git, *identity, *arguments], cwd=tmp_path / "work", check=True, capture_output=True
        )

    run("init", "-q")
    run("add", ".")
    run("commit", "-qm", "demo")
    run("tag", "v1.0")
    run("clone", "-q", "--bare", ".", repository)
    run("--git-dir", repository, "update-server-info")
    server = PlainServer(tmp_path)
    add(site, SiteVersion(version="1.0+cu1", tag="v1.0", git=f"{server.url}demo.git"), name="demo")
    build(site)
    try:
        outcome, has = follow(site, "demo/index.html", client(name), tmp_path)
    finally:
        server.close()
    assert (outcome.code, has) == (0, {"demo": "1.0+cu1"}), outcome.output


_BACKEND = """\
import pathlib, zipfile, io

def build_wheel(folder, config_settings=None, metadata_directory=None):
    pathlib.Path(folder, {wheel!r}).write_bytes({content!r})
    return {wheel!r}

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    archive = zipfile.ZipFile(io.BytesIO({content!r}))
    for name in archive.namelist():
        if ".dist-info/" in name:
            archive.extract(name, folder)
            info = name.partition("/")[0]
    return info
"""


def follow(
    site: SiteFolder, page: str, client: Client, folder: Path
) -> tuple[Outcome, dict[str, str]]:
    """Run what a page says in an empty project; returns the end, and what is installed then."""
    from html import unescape
    from re import findall
    from shlex import split

    text = (site.root / "_site" / page).read_text()
    commands = [unescape(each) for each in findall(r"<code data-copy=[^>]*>([^<]*)</code>", text)]
    [command] = [each for each in commands if each.startswith(client.name)]
    project = folder / hashlib.sha256(page.encode()).hexdigest()[:8]
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "consumer"\nversion = "0"\nrequires-python = ">=3.11,<4"\n'
        "[tool.poetry]\npackage-mode = false\n"
    )
    environment = make_venv(project / ".venv")
    for line in command.splitlines():
        words = split(line)[1:]
        if client.name == "pip":
            words = [f"--python={environment}", *words]
        env = {"VIRTUAL_ENV": str(environment), "UV_NO_MANAGED_PYTHON": "1"}
        outcome = client.run(*words, cwd=project, env=env)
        if outcome.code:
            break
    return outcome, installed(environment)
