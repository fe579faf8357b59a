"""What somebody is told who begins: of what is missing, misspelled or slow. Real programs."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from private_pypi.errors import cause_of
from private_pypi.testing.distributions import make_wheel
from private_pypi.web import _is_of_this_machine
from tests.faults.servers import READER, Servers, table
from tests.github.fake import FakeGitHub
from tests.waiting import eventually

pytestmark = pytest.mark.needs("a server in a process of its own")

BROWSER = {"User-Agent": "Mozilla/5.0", "Accept": "text/html", "Sec-Fetch-Mode": "navigate"}


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
            tool = requests.get(url, timeout=30).text
            person = requests.get(url, headers=BROWSER, timeout=30).text
        finally:
            process.terminate()
    assert "there is no configuration yet; POST /initialize/ takes one" in log.read_text()
    submit = f"curl -F config=@config.toml -F admin_secret=@admin_secret.toml {url}/initialize/"
    assert tool.endswith(f"\n    {submit}\n")
    assert f">{submit}</code>" in person


def test_a_missing_secret_is_told_in_the_log_of_the_start(servers: Servers) -> None:
    server = servers.start(servers.folder / "root", table() + on_github())
    assert (
        "WARNING private_pypi.repositories.synchronized: repository 'acme' needs a secret of its "
        "own: add a table [acme] to admin_secret.toml\n"
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
        waiting = (
            r"INFO private_pypi\.repositories\.choosing: "
            r"waiting [34] s at most for repository 'acme'\n"
        )
        eventually(lambda: re.search(waiting, server.log), "what the start waits for")


def test_the_log_of_the_server_names_a_tool_and_leaves_out_its_machine(servers: Servers) -> None:
    server = servers.start(servers.folder / "root")
    agent = 'pip/26.3 {"ci":null,"cpu":"x86_64","distro":{"id":"bookworm"}}'
    requests.get(
        f"{server.url}/r/mine/simple/", auth=READER, headers={"User-Agent": agent}, timeout=30
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
    server.change("DELETE", "demo/1.0/")
    assert set(server.listed()) == {shorter[0]}


@pytest.mark.parametrize(("answer", "code"), [("no", 1), ("yes", 0)])
def test_delete_asks_at_a_terminal(servers: Servers, answer: str, code: int) -> None:
    server = servers.start(servers.folder / "root")
    filename, content = make_wheel("demo", "1.0")
    server.publish(filename, content)
    index = f"{server.url.replace('//', '//mine:w@')}/r/mine/simple/"
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "private_pypi", "delete", index, "demo", "1.0"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, f"{answer}\n".encode())
        assert process.wait(timeout=60) == code
    os.close(theirs)
    os.close(ours)
    assert b"Delete all files of demo 1.0 permanently?" in shown
    assert (filename in server.listed()) is (answer == "no")


def test_quickstart_keeps_its_folder_out_of_git(tmp_path: Path) -> None:
    from private_pypi.commands.serving import _private_root

    root = _private_root(str(tmp_path / "made"))
    assert (root / ".gitignore").read_text() == "*\n"
    there = tmp_path / "there"
    there.mkdir()
    assert list(_private_root(str(there)).iterdir()) == []  # a folder of somebody else's


@pytest.mark.parametrize(
    ("address", "is_of_this_machine"),
    [
        ("http://127.0.0.1:8888", True),
        ("http://[::1]:8888", True),
        ("unix:/run/private_pypi.sock", True),
        ("http://0.0.0.0:8888", False),
        ("http://[::]:8888", False),
        ("http://10.0.0.5:8888", False),
    ],
)
def test_plain_http_that_others_can_reach_is_warned_about(
    address: str, is_of_this_machine: bool
) -> None:
    assert _is_of_this_machine(address) is is_of_this_machine


def test_the_cause_of_an_error_is_what_the_system_says() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(requests.ConnectionError) as caught:
        requests.get(f"http://user:secret@127.0.0.1:{port}/signed?token=x", timeout=30)
    assert cause_of(caught.value) == "Connection refused"
    assert cause_of(requests.exceptions.ChunkedEncodingError("http://signed")) == (
        "ChunkedEncodingError"
    )
