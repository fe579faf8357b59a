"""A server that is started with the environment variables of PyOCI."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from private_pypi.commands.command_line import UsageError, from_environment
from private_pypi.commands.pyoci import as_command
from private_pypi.configuration.config import ConfigurationText, read_configuration
from private_pypi.testing.distributions import encode_multipart, form_for
from tests.clients.releases import Release
from tests.machine import declare
from tests.oci.registries import registry
from tests.oci.test_root_addresses import namespace_at

_COMMAND = Path(sys.executable).with_name("private_pypi")


@contextmanager
def server(folder: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """A server without arguments: its origin."""
    declare("a server in a process of its own")
    folder.mkdir()
    given = {"PRIVATE_PYPI_COMMAND_HOST": "127.0.0.1", "PORT": "0", "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [_COMMAND],
            cwd=folder,
            env={"PATH": os.environ["PATH"], **given, **environ},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r"http://\S+", line)
            assert match is not None, (line, (folder / "log").read_text())
            yield match[0].rstrip("/")
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=120)


@pytest.mark.needs("docker-registry")
def test_a_server_below_a_path(tmp_path: Path) -> None:
    with (
        registry(tmp_path / "registry", bearer=True) as running,
        server(
            tmp_path / "server",
            {
                "PYOCI_REGISTRIES": f"ghcr.io, {running.url}",
                "PYOCI_PATH": "/acme-corp/",
                "PYOCI_MAX_BODY": "10000",
                "RUST_LOG": "warn",
            },
        ) as origin,
    ):
        assert requests.get(f"{origin}/health", timeout=30).status_code == 200
        start = requests.get(f"{origin}/acme-corp/", headers={"Accept": "text/html"}, timeout=30)
        assert start.status_code == 200
        place = namespace_at((f"{origin}/acme-corp", running.url), "acme")
        filename, content = Release().wheel()
        place.put(filename, content)
        answer = requests.get(
            f"{place.index_url}demo/{filename}", auth=("walter", "write-secret"), timeout=30
        )
        assert answer.content == content
        content_type, body = encode_multipart(form_for(filename, content), filename, bytes(20_000))
        answer = requests.post(
            place.upload_url,
            data=body,
            headers={"Content-Type": content_type},
            auth=("walter", "write-secret"),
            timeout=30,
        )
        assert answer.status_code == 413, answer.text
        # A proxy may have removed the path already.
        assert requests.get(f"{origin}/", timeout=30).status_code == 200
    log = (tmp_path / "server" / "log").read_text()
    assert "GET /" not in log
    assert (tmp_path / "server" / "private_pypi_root").is_dir()


def test_what_the_variables_mean() -> None:
    found = from_environment(
        as_command(
            {
                "PYOCI_REGISTRIES": "ghcr.io,http://127.0.0.1:5000",
                "PYOCI_BEARER_USERNAME": 'a"b',
                "PYOCI_MAX_VERSIONS": "7",
                "PYOCI_PATH": "/",
                "RUST_LOG": "pyoci=debug,hyper=warn",
                "PRIVATE_PYPI_COMMAND_HOST": "127.0.0.1",
            }
        )
    )
    assert found is not None
    name, given = found
    flags = {each.name: each.text for each in given}
    assert name == "server"
    text = flags.pop("config")
    assert text is not None
    assert flags == {
        "root": "private_pypi_root",
        "config_or_admin_secret_can_be_text": "true",
        "port": "8080",
        "debug": "true",
        "request_log": "true",
        "host": "127.0.0.1",
    }
    configuration = read_configuration(
        ConfigurationText(text=text, name="text", folder=None), None, environ={}
    )
    repository = configuration.repositories["pyoci"]
    settings = vars(repository.backend)
    assert repository.max_file_bytes == 50_000_000
    assert settings["registries"] == ("ghcr.io", "http://127.0.0.1:5000")
    assert settings["plain_http"] is settings["any_registry"] is True
    assert (settings["bearer_username"], settings["max_versions"]) == ('a"b', 7)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PYOCI_PATH": "/a"}, "PYOCI_REGISTRIES: it must list"),
        ({"PYOCI_REGISTRIES": " , "}, "PYOCI_REGISTRIES: it must list"),
        ({"PYOCI_REGISTRIES": "ghcr.io", "PORT": "x"}, "PORT=x: not a whole number"),
        ({"PYOCI_REGISTRIES": "ghcr.io", "PYOCI_MAX_BODY": "-1"}, "PYOCI_MAX_BODY=-1: not a"),
    ],
)
def test_wrong_variables_are_refused(environ: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        as_command(environ)


@pytest.mark.parametrize(
    "environ", [{}, {"PORT": "1"}, {"PRIVATE_PYPI_COMMAND": "server", "PYOCI_PATH": "/a"}]
)
def test_other_environments_stay_as_they_are(environ: dict[str, str]) -> None:
    assert as_command(environ) == environ
