"""What somebody is told who begins: of what is missing, misspelled or slow. Real programs."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from private_pypi.errors import cause_of
from private_pypi.testing.distributions import make_wheel
from tests.faults.servers import READER, Servers, eventually, servers_below, table
from tests.github.fake import FakeGitHub

SCRIPTS = Path(__file__).parent.parent / "tools"
BROWSER = {"User-Agent": "Mozilla/5.0", "Accept": "text/html", "Sec-Fetch-Mode": "navigate"}


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with servers_below(tmp_path) as servers:
        yield servers


def on_github(**fields: object) -> str:
    """A table of a repository on GitHub."""
    lines = "".join(f'{key} = "{value}"\n' for key, value in fields.items())
    return f'[acme]\ntype = "github"\nowner = "acme"\nrepo = "packages"\n{lines}'


def test_a_server_without_a_configuration_says_so_wherever_one_looks(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "private_pypi", "server", tmp_path / "root"]
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", "0"], stdout=stream, stderr=stream
        ) as process,
    ):
        try:
            eventually(lambda: "serves http" in log.read_text(), "that it serves")
            found = re.search(r"serves (http://\S+)", log.read_text())
            assert found is not None
            url = found[1]
            tool = requests.get(url, timeout=10).text
            person = requests.get(url, headers=BROWSER, timeout=10).text
        finally:
            process.terminate()
    assert "there is no configuration yet; POST /initialize/ takes one" in log.read_text()
    submit = f"curl -F config=@config.toml -F admin_secret=@admin_secret.toml {url}/initialize/"
    assert tool.endswith(f"\n    {submit}\n")
    assert f">{submit}</code>" in person


def test_a_missing_secret_is_told_in_the_log_of_the_start(servers: Servers) -> None:
    server = servers.start(servers.folder / "root", table() + on_github())
    assert (
        "WARNING private_pypi.repositories: repository 'acme' needs a secret of its own: add a "
        "table [acme] to admin_secret.toml\n"
    ) in server.log
    assert server.status("/r/mine/simple/") == 200  # the others are served


def test_a_start_that_waits_for_a_storage_says_for_which(servers: Servers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        secret = servers.folder / "admin_secret.toml"
        secret.write_text('[acme]\ntype = "github"\nraw = "ghp_x"\n')
        server = servers.begin(
            servers.folder / "root", on_github(api_url=url), flags=("--admin_secret", str(secret))
        )
        waiting = r"INFO private_pypi\.repositories: waiting [34] s at most for repository 'acme'\n"
        eventually(lambda: re.search(waiting, server.log), "what the start waits for")


def test_the_log_of_the_server_names_a_tool_and_leaves_out_its_machine(servers: Servers) -> None:
    server = servers.start(servers.folder / "root")
    agent = 'pip/26.3 {"ci":null,"cpu":"x86_64","distro":{"id":"bookworm"}}'
    requests.get(
        f"{server.url}/r/mine/simple/", auth=READER, headers={"User-Agent": agent}, timeout=10
    )
    eventually(lambda: re.search(r' ms "pip/26\.3" \S+\n', server.log), "the line of the request")


def test_debugging_shows_requests_to_github_without_what_signs_them(servers: Servers) -> None:
    filename, content = make_wheel("demo", "1.0")
    with FakeGitHub() as github:
        github.make_repo("acme", "packages", private=True)
        token = github.make_token("alice", {"acme/packages": "write"})
        secret = servers.folder / "admin_secret.toml"
        secret.write_text(f'[acme]\ntype = "github"\nraw = "{token}"\n')
        flags = ("--admin_secret", str(secret), "--debug")
        config = on_github(api_url=github.api_url)
        server = servers.start(servers.folder / "root", config, flags=flags)
        server.publish(filename, content, auth=("acme", token))
        for file in (servers.folder / "root" / "cache").rglob("*"):
            if file.is_file():
                file.unlink()  # so that it comes from GitHub
        answer = server.get(f"/r/acme/simple/demo/{filename}", ("acme", token))
        assert answer.content == content
        assert server.stop() == 0
    shown = re.findall(r'DEBUG urllib3.*"GET (\S+) HTTP', server.log)
    signed = [path for path in shown if "/github-production-release-asset/" in path]
    assert signed
    assert all(path.endswith("?…") for path in signed)
    assert token not in server.log


def test_a_release_is_meant_by_each_spelling_of_its_version(servers: Servers) -> None:
    server = servers.start(servers.folder / "root")
    longer, shorter = make_wheel("demo", "1.0.0"), make_wheel("demo", "2.0")
    for filename, content in (longer, shorter):
        server.publish(filename, content)
    server.change("POST", "demo/1/yank", reason="broken")
    server.change("POST", "demo/v2.0.0/yank", reason="broken")
    assert server.yanked() == {longer[0]: "broken", shorter[0]: "broken"}
    both = make_wheel("demo", "1.0")
    server.publish(*both)
    server.change("DELETE", "demo/1.0.0/")  # of two equal ones, the one that is named
    assert set(server.listed()) == {shorter[0], both[0]}


def test_the_cause_of_an_error_is_what_the_system_says() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(requests.ConnectionError) as caught:
        requests.get(f"http://user:secret@127.0.0.1:{port}/signed?token=x", timeout=10)
    assert cause_of(caught.value) == "Connection refused"
    assert cause_of(requests.exceptions.ChunkedEncodingError("http://signed")) == (
        "ChunkedEncodingError"
    )


def test_who_may_not_install_packages_is_told_which_are_missing(tmp_path: Path) -> None:
    """A machine with apt-get and without Python, where nobody may become root."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("dirname", "rm", "cat"):
        (programs / name).symlink_to(shutil.which(name) or pytest.fail(f"there is no {name}"))
    for name, says in (("id", "echo 1000"), ("apt-get", "exit 9")):
        (programs / name).write_text(f"#!/bin/sh\n{says}\n")
        (programs / name).chmod(0o755)
    shutil.copytree(SCRIPTS, tmp_path / "tools")
    shell = shutil.which("sh")
    assert shell is not None
    ended = subprocess.run(
        [shell, tmp_path / "tools" / "quickstart.sh"],
        env={"PATH": str(programs), "HOME": os.devnull},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode != 0
    assert ended.stderr == "error: this needs root once: apt-get install python3 python3-venv\n"
