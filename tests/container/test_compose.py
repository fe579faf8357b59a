"""The compose file: each service runs as the file says, and the two work together."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.clients.conftest import client, target
from tests.clients.environments import Client
from tests.clients.installers import install, installed
from tests.clients.publishers import publish
from tests.clients.releases import Release
from tests.clients.serving import Repository

from .engine import AGAIN, CHECKOUT, IMAGE, Engine, Machine, eventually

__all__ = ["client", "target"]

pytestmark = [pytest.mark.needs("containers"), AGAIN]

FILE = CHECKOUT / "docker" / "compose.yaml"
CONFIG = '[mine]\ntype = "file_system"\nread_secret = "r"\nwrite_secret = "w"\n'
AUTHORITY = "/data/caddy/pki/authorities/local/root.crt"
# What the official image of Caddy is, as far as the compose file relies on it.
CADDY = """\
ARG BASE
FROM ${BASE}
COPY caddy /usr/bin/caddy
ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
"""


class Compose:
    """The file, and how its services are run; a key that is not known here fails the test."""

    def __init__(self, folder: Path, engine: Engine, project: str) -> None:
        self.folder = folder  # where the file would lie, with what belongs beside it
        self.file: Any = YAML(typ="safe").load(FILE)
        self._engine = engine
        self._project = project

    def words(self, service: str) -> list[str]:
        """The arguments of `docker run`."""
        given: dict[str, Any] = dict(self.file["services"][service])
        for ours in ("build", "depends_on", "image", "restart", "stop_grace_period"):
            given.pop(ours, None)
        command = given.pop("command", [])
        words = ["--add-host=private-pypi:127.0.0.1"]  # the machine of a test has one network
        if given.pop("read_only", False):
            words.append("--read-only")
        words += [f"--cap-drop={each}" for each in given.pop("cap_drop", [])]
        words += [f"--cap-add={each}" for each in given.pop("cap_add", [])]
        words += [f"--security-opt={each}" for each in given.pop("security_opt", [])]
        words += [f"--publish={each}" for each in given.pop("ports", [])]
        for name, value in given.pop("environment", {}).items():
            words.append(f"--env={name}={_with_defaults(value)}")
        for name in given.pop("secrets", []):
            path = self.folder / self.file["secrets"][name]["file"]
            words.append(f"--volume={path}:/run/secrets/{name}:ro")
        for volume in given.pop("volumes", []):
            source, _, rest = volume.partition(":")
            known = source in self.file["volumes"]
            path = self.volume(source) if known else str(self.folder / source)
            words.append(f"--volume={path}:{rest}")
        assert given == {}, f"not run as the file says: {sorted(given)}"
        return [*words, self.image(service), *command]

    def volume(self, name: str) -> str:
        return f"{self._project}-{name}"

    def image(self, service: str) -> str:
        named: str = self.file["services"][service]["image"]
        return {"private-pypi": IMAGE, "caddy:2": "localhost/caddy"}[named]

    def remove_volumes(self) -> None:
        for name in self.file["volumes"]:
            self._engine.docker("volume", "rm", "--force", self.volume(name))


def _with_defaults(value: str) -> str:
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


@pytest.fixture(scope="module")
def caddy(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("caddy")
    shutil.copy(Path(sys.executable).with_name("caddy"), folder / "caddy")
    (folder / "Dockerfile").write_text(CADDY)
    engine.docker("build", "--tag", "localhost/caddy", folder)


@pytest.fixture
def compose(engine: Engine, caddy: None, tmp_path: Path) -> Iterator[Compose]:
    folder = tmp_path / "docker"
    shutil.copytree(FILE.parent, folder)
    config = folder / "config.toml"
    config.write_text(CONFIG)
    config.chmod(0o400)
    shutil.chown(config, 10001)
    made = Compose(folder, engine, f"private-pypi-{secrets.token_hex(4)}")
    yield made
    made.remove_volumes()


def test_the_file_is_one() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    ended = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout


def test_the_server_is_reached_only_through_the_proxy_and_after_it_is_healthy() -> None:
    file: Mapping[str, Any] = YAML(typ="safe").load(FILE)
    server, proxy = file["services"]["private-pypi"], file["services"]["proxy"]
    assert "ports" not in server
    assert proxy["depends_on"] == {"private-pypi": {"condition": "service_healthy"}}
    assert server["stop_grace_period"] == "35s"
    for service in (server, proxy):
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "tmpfs" not in service
    build = server["build"]
    assert (FILE.parent / build["context"] / build["dockerfile"]).resolve() == (
        CHECKOUT / "docker" / "Dockerfile"
    )


def test_clients_publish_and_install_through_tls(
    compose: Compose,
    machine: Machine,
    client: Callable[[str], Client],
    target: Path,
    tmp_path: Path,
) -> None:
    server = machine.serve(*compose.words("private-pypi"))
    eventually(lambda: server.health() == 0)  # what the proxy waits for
    proxy = machine.start(*compose.words("proxy"))
    eventually(lambda: proxy.execute("test", "-s", AUTHORITY).code == 0, lambda: proxy.log)
    authority = tmp_path / "authority.crt"
    authority.write_text(proxy.execute("cat", AUTHORITY).out)
    proxy.wait_for("certificate obtained successfully")

    trust = dict.fromkeys(("PIP_CERT", "REQUESTS_CA_BUNDLE"), str(authority))
    trust["no_proxy"] = "localhost"
    repository = Repository("https://localhost", "mine", read_secret="r", write_secret="w")
    twine, pip = (
        replace(client(name), variables=trust, before=machine.inside) for name in ("twine", "pip")
    )
    sent = publish(twine, Release(name="demo"), repository)
    assert sent.code == 0, sent.output
    got = install(pip, [repository.readable()], "demo", target)
    assert got.code == 0, got.output
    assert installed(target)["demo"] == "1.0"
    assert (proxy.stop(), server.stop()) == (0, 0)
