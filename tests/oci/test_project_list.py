"""The list of projects that is kept in a registry which has no catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from private_pypi import cli
from private_pypi.backend import Folders, Secret
from private_pypi.repositories.folders import make_folders
from private_pypi.testing.contract.helpers import make_upload, new_folders
from private_pypi_oci import OciBackend, OciSettings
from private_pypi_oci.backend import OciStorage
from tests.oci.faults import Faults, before
from tests.oci.pyoci import PyOci
from tests.oci.registries import Registry, registry

pytestmark = pytest.mark.needs("docker-registry")

WALTER = "walter:write-secret"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Registry]:
    with registry(tmp_path / "registry", bearer=True) as running:
        yield running


@pytest.fixture
def hidden(running: Registry) -> Iterator[Faults]:
    """The same registry at another address, where it has no catalogue."""
    with before(running.url) as (_, faults):
        faults.has_catalogue = False
        yield faults


def over(url: str, folders: Folders, secret: str = WALTER, namespace: str = "acme") -> OciStorage:
    settings = OciSettings(
        name="acme", max_file_bytes=1 << 30, registry=url, namespace=namespace, plain_http=True
    )
    return OciStorage(OciBackend(settings, folders), Secret(secret))


def forget_list(running: Registry) -> None:
    """Leave the registry as PyOCI alone would have filled it."""
    for name in ("private_pypi.index", "private_pypi.journal"):
        path = running.folder / "files/docker/registry/v2/repositories/acme" / name
        path.rename(running.folder / name)


def test_update_index_puts_back_what_pyoci_lost(tmp_path: Path) -> None:
    with registry(tmp_path / "registry", bearer=False) as running:
        lose_and_update(running, tmp_path)


def lose_and_update(running: Registry, tmp_path: Path) -> None:
    pyoci = PyOci(running.url, "walter", "write-secret")
    begun = [pyoci.prepare("acme", "demo", tag, ".tar.gz", b"sdist") for tag in ("1.0", "2.0")]
    writer = over(running.url, new_folders(tmp_path))
    for version in ("1.0", "2.0"):
        writer.put_file(make_upload(tmp_path, f"demo-{version}-py3-none-any.whl", b"wheel"))
    for each in begun:
        pyoci.write_index(*each)
    assert len(pyoci.listed("acme", "demo")) == 2
    assert update(running.url, tmp_path) == 0
    assert len(pyoci.listed("acme", "demo")) == 4


def update(url: str, tmp_path: Path, root: Path | None = None) -> int:
    config = tmp_path / "config.toml"
    config.write_text(
        f'[acme]\ntype = "oci"\nregistry = "{url}"\nplain_http = true\nnamespace = "acme"\n'
    )
    words = ["update_index", "acme", "--config", str(config), "--secret_env", "SECRET"]
    return cli.main([*words, *(["--root", str(root)] if root else [])], {"SECRET": WALTER})


def test_what_servers_publish_is_in_the_list(hidden: Faults, tmp_path: Path) -> None:
    for name in ("demo-1.0.tar.gz", "demo-2.0.tar.gz", "demo_extra-1.0.tar.gz"):
        over(hidden.url, new_folders(tmp_path)).put_file(make_upload(tmp_path, name, b"content"))
    put = {line for line in hidden.asked if line.startswith("PUT /v2/acme/private_pypi.index/")}
    assert len([line for line in put if "/manifests/" in line]) == 2  # once for each project
    fresh = over(hidden.url, new_folders(tmp_path))
    assert list(fresh.projects()) == ["demo", "demo-extra"]
    # The list is of one namespace, and is itself no project.
    assert list(over(hidden.url, new_folders(tmp_path), namespace="other").projects()) == []
    # This user may read one project, and not the list.
    paul = over(hidden.url, new_folders(tmp_path), "paul:partial-secret")
    assert list(paul.projects()) == []


def test_update_index_lists_what_the_server_has_seen(
    running: Registry, hidden: Faults, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = over(hidden.url, new_folders(tmp_path))
    for name in ("demo-1.0.tar.gz", "seen-1.0.tar.gz", "gone-1.0.tar.gz"):
        writer.put_file(make_upload(tmp_path, name, b"content"))
    forget_list(running)
    root = tmp_path / "root"
    server = over(hidden.url, make_folders(root, "acme", tmp_path / "tmp"))
    for project in ("seen", "gone"):
        assert list(server.project_files(project))
    repositories = running.folder / "files/docker/registry/v2/repositories/acme"
    (repositories / "gone").rename(running.folder / "gone")
    server.put_file(make_upload(tmp_path, "new-1.0.tar.gz", b"content"))
    assert update(hidden.url, tmp_path, root) == 0
    assert capsys.readouterr().out == "acme: 1 added to the list of projects, 1 were in it\n"
    fresh = over(hidden.url, new_folders(tmp_path))
    assert list(fresh.projects()) == ["new", "seen"]


def test_update_index_lists_what_the_catalogue_shows_to_it(
    running: Registry, hidden: Faults, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The catalogue of many registries is for administrators; the list is for everybody."""
    writer = over(hidden.url, new_folders(tmp_path))
    for name in ("demo-1.0.tar.gz", "foo_bar-1.0.tar.gz"):
        writer.put_file(make_upload(tmp_path, name, b"content"))
    forget_list(running)
    assert list(over(hidden.url, new_folders(tmp_path)).projects()) == []
    for _ in range(2):
        assert update(running.url, tmp_path) == 0
    assert capsys.readouterr().out == (
        "acme: 2 added to the list of projects, 0 were in it\n"
        "acme: 0 added to the list of projects, 2 were in it\n"
    )
    assert list(over(hidden.url, new_folders(tmp_path)).projects()) == ["demo", "foo-bar"]
