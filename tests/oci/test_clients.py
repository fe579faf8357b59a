"""Real clients, a real server, and a real registry behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from private_pypi import cli
from private_pypi.index.document import IndexEdit
from private_pypi.index.stored_document import edit_index
from private_pypi.model import StoredFile
from private_pypi.testing.contract.helpers import content_of, make_upload, published
from tests.clients.environments import Client, install_client, make_venv
from tests.clients.installers import install, installed
from tests.clients.publishers import how_shown, publish, sent_files
from tests.clients.releases import Release
from tests.clients.serving import Repository, serving
from tests.commands.test_copying import storage as file_storage
from tests.oci.pyoci import PyOci
from tests.oci.registries import registry

pytestmark = pytest.mark.needs("clients", "docker-registry")


@pytest.fixture(scope="module", params=["bearer", "basic"])
def at(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str, bool]]:
    """A server over a registry, the registry, and whether that asks for Basic."""
    folder = tmp_path_factory.mktemp(request.param)
    with registry(folder / "registry", bearer=request.param == "bearer") as running:
        tables = "".join(
            f'[{name}]\ntype = "oci"\nregistry = "{running.url}"\nplain_http = true\n'
            f'namespace = "acme/{name}"\n'
            for name in ("twine", "uv", "poetry")
        )
        with serving(folder / "server", tables) as origin:
            yield origin, running.url, request.param == "basic"


@pytest.mark.parametrize("name", ["twine", "uv", "poetry"])
def test_a_client_publishes_and_installs(
    name: str, at: tuple[str, str, bool], tmp_path: Path
) -> None:
    """protocol 46, 55, 56, 58; a release that is published again, and another one."""
    origin, registry_url, is_basic = at
    repository = Repository(
        origin=origin,
        name=name,
        read_secret="walter:write-secret",
        write_secret="walter:write-secret",
    )
    home = tmp_path / "home"
    home.mkdir()
    publisher = Client(name, install_client(name), home)
    first = Release(note="first")
    for _ in range(2):
        outcome = publish(publisher, first, repository)
        assert outcome.code == 0, outcome.output
    sent = sent_files(publisher)
    assert len(sent) == 2
    outcome = publish(publisher, Release(note="second"), repository)
    how_shown(publisher, outcome, "409 Conflict", "File already exists")
    outcome = publish(publisher, Release(version="2.0"), repository, secret="walter:wrong")
    how_shown(publisher, outcome, "401 Unauthorized", "unknown repository or wrong secret")

    installing = "pip" if name == "twine" else name
    (tmp_path / "installer").mkdir()
    installer = Client(installing, install_client(installing), tmp_path / "installer")
    target = make_venv(tmp_path / "target")
    outcome = install(installer, [repository.readable()], "demo", target)
    assert outcome.code == 0, outcome.output
    assert installed(target) == {"demo": "1.0"}
    if is_basic:  # what PyOCI cannot speak to, our reading of its rules can
        assert PyOci(registry_url, "walter", "write-secret").listed(f"acme/{name}", "demo") == sent


def test_packages_are_copied_into_a_registry_and_back(
    at: tuple[str, str, bool], tmp_path: Path
) -> None:
    """With their times, their yanks and their core metadata."""
    _, registry_url, is_basic = at
    folders = {name: tmp_path / name for name in ("old", "new")}
    for folder in folders.values():
        folder.mkdir()
    config = tmp_path / "config.toml"
    config.write_text(
        "".join(
            f'[{n}]\ntype = "file_system"\npath = "{folder}"\n' for n, folder in folders.items()
        )
        + f'[there]\ntype = "oci"\nregistry = "{registry_url}"\nplain_http = true\n'
        f'namespace = "acme/copied-{is_basic}"\n'.lower()
    )
    old = file_storage(folders["old"], tmp_path)
    upload = make_upload(tmp_path, "demo-1.0+local.1-py3-none-any.whl", b"content")
    file = published(upload, old.put_file(upload))
    edit_index(
        old,
        IndexEdit(yank={file.filename: "broken"}, files=[file]),
        backend_type="file_system",
    )
    secret = {"SECRET": "walter:write-secret"}
    flags = ["--config", str(config)]
    to = ["copy", "old", "there", *flags, "--destination_secret_env", "SECRET"]
    back = ["copy", "there", "new", *flags, "--source_secret_env", "SECRET"]
    assert [cli.main(words, secret) for words in (to, back)] == [0, 0]
    new = file_storage(folders["new"], tmp_path)
    [stored] = (each for each in new.list_files() if isinstance(each, StoredFile))
    record = new.read_record(stored)
    assert record is not None
    assert record["uploaded_at"] == upload.record["uploaded_at"]
    assert content_of(new.open_file(file)) == b"content"
    assert content_of(new.open_core_metadata(file)) == upload.core_metadata
    assert "broken" in (folders["new"] / "index.toml").read_text()
