"""A person who signed in through one server is signed in on the others, if they share the key."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import pytest
import requests

from tests.faults.servers import READER, Server, Servers

pytestmark = pytest.mark.needs("servers in processes of their own")


def test_a_session_is_valid_on_every_server_that_has_the_key(
    servers: Servers, tmp_path: Path
) -> None:
    """Also its forms, and while the key is being changed; a server with another key refuses it."""
    old, new = secrets.token_hex(32), secrets.token_hex(32)
    running = {
        name: _start(servers, tmp_path, name, text)
        for name, text in {
            "one": old,
            "other": f"{old}\n{new}\n",
            "next": f"{new}\n{old}\n",
            "stranger": new,
        }.items()
    }
    # The form of one server is sent to another, as a load balancer may do it.
    person = _sign_in(running["one"], running["other"])
    assert person is not None
    assert [name for name in running if _is_signed_in(running[name], person)] == [
        "one",
        "other",
        "next",
    ]
    person = _sign_in(running["next"], running["other"])
    assert person is not None
    assert _is_signed_in(running["next"], person)
    assert _sign_in(running["one"], running["stranger"]) is None


def test_a_server_with_a_short_key_does_not_start(servers: Servers, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("hunter2\n")
    server = servers.begin(tmp_path / "root", flags=("--session_key_file", str(path)))
    assert server.process.wait(60) == 1
    assert f"key 1 for sessions ({path}) has 7 characters" in server.log
    assert "hunter2" not in server.log


def _start(servers: Servers, folder: Path, name: str, text: str) -> Server:
    path = folder / f"key-{name}"
    path.write_text(text)
    server = servers.start(folder / name, flags=("--session_key_file", str(path)))
    assert not (folder / name / "session_key").exists()
    return server


def _sign_in(asked: Server, answers: Server) -> requests.Session | None:
    """A person who got the form of one server, and sent it to another; None: it was refused."""
    person = requests.Session()  # cookies do not differ by port
    person.trust_env = False
    person.headers.update({"Accept": "text/html", "User-Agent": "Mozilla/5.0"})
    form = person.get(f"{asked.url}/login/", timeout=20)
    token = re.search(r'name="token" value="([^"]+)"', form.text)
    assert token is not None, form.text
    fields = {"token": token[1], "pkg_repo_name": READER[0], "pkg_repo_secret_raw": READER[1]}
    answer = person.post(f"{answers.url}/login/", data=fields, allow_redirects=False, timeout=20)
    assert answer.status_code in (303, 403), answer.text
    return person if answer.status_code == 303 else None


def _is_signed_in(server: Server, person: requests.Session) -> bool:
    answer = person.get(f"{server.url}/r/mine/", allow_redirects=False, timeout=20)
    assert answer.status_code in (200, 303, 302), answer.text
    return answer.status_code == 200
