"""`POST /initialize/` and `GET /index_mtime/`: who may use them, and no half-done changes."""

from __future__ import annotations

import errno
import gc
import io
import os
import socket
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import create_environ

from private_pypi.configuration import kept as kept_configuration
from private_pypi.configuration.config import read_source
from private_pypi.testing.distributions import make_wheel
from private_pypi.web import create_app
from private_pypi.web.api import legacy
from private_pypi.web.serving import Answer, RequestHead
from tests.waiting import eventually
from tests.web.conftest import (
    MINE,
    OTHER,
    READER,
    WRITER,
    Deploy,
    basic,
    publish,
    sent_by_the_loop,
)

TOKEN = {"Authorization": "Bearer the-token"}


def test_a_fresh_server_is_configured_by_anyone_once(deploy: Deploy, tmp_path: Path) -> None:
    client = create_app(deploy(None)).test_client()
    assert client.get("/simple/", headers=READER).status_code == 401
    answer = client.post("/initialize/", data={"config": MINE})
    assert (answer.status_code, answer.text) == (200, "Done")
    assert client.get("/simple/", headers=READER).status_code == 200
    again = client.post("/initialize", data={"config": OTHER})
    assert again.status_code == 403
    assert "--admin_token_env" in again.text
    kept = tmp_path / "root" / "config.toml"
    assert kept.read_text() == MINE
    assert kept.stat().st_mode & 0o777 == 0o600


def test_it_takes_files_as_the_seed_documents_them(deploy: Deploy) -> None:
    client = create_app(deploy(None)).test_client()
    secret = b'[mine]\ntype = "file_system"\nraw = "writer"\n'
    answer = client.post(
        "/initialize/",
        data={
            "config": (io.BytesIO(MINE.encode()), "config.toml"),
            "admin_secret": (io.BytesIO(secret), "admin_secret.toml"),
        },
    )
    assert answer.status_code == 200
    assert client.get("/simple/", headers=READER).status_code == 200


def test_a_submitted_configuration_is_used_after_a_restart(deploy: Deploy) -> None:
    create_app(deploy(None)).test_client().post("/initialize/", data={"config": MINE})
    client = create_app(deploy(None)).test_client()
    assert client.get("/simple/", headers=READER).status_code == 200


def test_the_admin_token_opens_it_again(deploy: Deploy) -> None:
    client = create_app(deploy(None, admin_token="the-token")).test_client()
    assert client.post("/initialize/", data={"config": MINE}).status_code == 200
    assert publish(client, *make_wheel("demo", "1.0")).status_code == 200
    assert client.post("/initialize/", data={"config": OTHER}).status_code == 401
    wrong = {"Authorization": "Bearer wrong"}
    assert client.post("/initialize/", data={"config": OTHER}, headers=wrong).status_code == 401
    # Basic with any user works as well, for curl -u
    both = client.post(
        "/initialize/", data={"config": MINE + OTHER}, headers=basic("admin", "the-token")
    )
    assert both.status_code == 200
    assert "demo" in client.get("/r/mine/simple/", headers=READER).text
    assert client.get("/r/other/simple/", headers=basic("other", "other-reader")).status_code == 200


def test_closing_stops_what_a_submission_replaced(deploy: Deploy) -> None:
    """It stays open for old requests, but not longer than the server."""

    def running() -> list[str]:
        names = [thread.name for thread in threading.enumerate() if thread.is_alive()]
        return sorted(name for name in names if "replaced-" in name)

    served = deploy(None, admin_token="the-token")
    client = create_app(served).test_client()
    for name in ("replaced-1", "replaced-2"):
        done = client.post(
            "/initialize/", data={"config": MINE.replace("mine", name)}, headers=TOKEN
        )
        assert done.status_code == 200, done.text
    assert running() == [f"synchronize replaced-{number} (file_system)" for number in (1, 2)]
    served.close()
    assert running() == []


def test_what_a_submission_replaced_takes_no_memory_and_no_files(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was asked of it: it stays open for old requests, and is gone after that."""
    monkeypatch.setattr(import_module("private_pypi.web.deployment"), "_OLD_REQUESTS", 0.1)
    served = deploy(None, admin_token="the-token")
    app = create_app(served)
    client = app.test_client()
    assert client.post("/initialize/", data={"config": MINE}, headers=TOKEN).status_code == 200
    filename, content = make_wheel("demo", "1.0")
    assert publish(client, filename, content).status_code == 200
    log = str(served.root / "index" / "mine" / "index.sqlite-wal")
    paths = (f"/simple/demo/{filename}", "/simple/demo/", "/simple/", "/simple/unknown/")

    def opened() -> int:
        return sum(os.path.realpath(each) == log for each in Path("/proc/self/fd").iterdir())

    # The threads of a server live on, and so would what they have opened.
    with ThreadPoolExecutor(4) as pool:
        meet = threading.Barrier(4)

        def ask(_: int) -> None:
            meet.wait(60)
            for path in paths * 2:
                assert app.test_client().get(path, headers=READER).status_code in (200, 404)

        list(pool.map(ask, range(4)))
        for path in paths:
            sent_by_the_loop(app, create_environ(path, headers=READER))
        (before,) = map(weakref.ref, served.repositories)
        assert opened() >= 4
        gc.disable()  # a server looks for garbage rarely
        try:
            done = client.post("/initialize/", data={"config": OTHER}, headers=TOKEN)
            assert done.status_code == 200, done.text
            eventually(lambda: opened() == 0, lambda: f"{opened()} are open")
            eventually(lambda: before() is None, "nothing keeps it")
        finally:
            gc.enable()


def test_of_many_who_come_at_once_one_configures(deploy: Deploy, tmp_path: Path) -> None:
    clients = [create_app(deploy(None)).test_client() for _ in range(2)]
    start = threading.Barrier(8)

    def initialize(number: int) -> tuple[int, str]:
        config = MINE.replace("mine", f"mine{number}")
        start.wait()
        answer = clients[number % 2].post("/initialize/", data={"config": config})
        return answer.status_code, config

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(initialize, range(8)))
    assert sorted(status for status, _ in answers) == [200] + 7 * [403]
    [winner] = [config for status, config in answers if status == 200]
    assert (tmp_path / "root" / "config.toml").read_text() == winner


def test_a_token_that_is_no_utf8_opens_nothing(deploy: Deploy) -> None:
    client = create_app(deploy(None, admin_token=os.fsdecode(b"\xff"))).test_client()
    assert client.post("/initialize/", data={"config": MINE}, headers=TOKEN).status_code == 200
    assert client.post("/initialize/", data={"config": MINE}, headers=TOKEN).status_code == 401


def test_with_a_given_configuration_that_wins(deploy: Deploy) -> None:
    client = create_app(deploy(MINE, admin_token="the-token")).test_client()
    answer = client.post("/initialize/", data={"config": OTHER}, headers=TOKEN)
    assert answer.status_code == 409
    assert "--config" in answer.text


def test_anything_wrong_leaves_the_old_one_serving(deploy: Deploy, tmp_path: Path) -> None:
    client = create_app(deploy(None, admin_token="the-token")).test_client()
    assert client.post("/initialize/", data={"config": MINE}).status_code == 200
    for config in ("[broken", '[x]\ntype = "ftp"\n', '[x]\ntype = "file_system"\ncolour = 1\n', ""):
        data = {"config": config} if config else {}
        answer = client.post("/initialize/", data=data, headers=TOKEN)
        assert answer.status_code == 400, config
    assert client.post("/initialize/", data={"config": "# none"}, headers=TOKEN).status_code == 400
    assert client.get("/simple/", headers=READER).status_code == 200
    assert (tmp_path / "root" / "config.toml").read_text() == MINE


def test_an_existing_store_is_never_handed_to_a_new_secret(deploy: Deploy, tmp_path: Path) -> None:
    root = tmp_path / "root"
    client = create_app(deploy(MINE)).test_client()
    assert publish(client, *make_wheel("demo", "1.0")).status_code == 200
    assert not (root / "config.toml").exists()
    thief = create_app(deploy(None, admin_token="the-token")).test_client()
    stolen = MINE.replace("reader", "thief").replace("writer", "thief")
    assert thief.post("/initialize/", data={"config": stolen}).status_code == 401
    assert thief.get("/simple/", headers=basic("mine", "thief")).status_code == 401
    assert thief.post("/initialize/", data={"config": MINE}, headers=TOKEN).status_code == 200
    assert "demo" in thief.get("/simple/", headers=READER).text


@pytest.mark.parametrize(
    "line",
    [
        'path = "/etc"',
        'path = "../outside"',
        'path = "log"',
        'write_secret_file = "/etc/passwd"',
        'write_secret_env = "HOME"',
    ],
)
def test_a_submitted_configuration_reaches_nothing_outside_root(deploy: Deploy, line: str) -> None:
    client = create_app(
        deploy(None, environ={"HOME": "x", "ALLOWED": "y"}, allow_env=frozenset({"ALLOWED"}))
    ).test_client()
    config = f'[mine]\ntype = "file_system"\n{line}\n'
    assert client.post("/initialize/", data={"config": config}).status_code == 400
    allowed = '[mine]\ntype = "file_system"\nread_secret_env = "ALLOWED"\n'
    assert client.post("/initialize/", data={"config": allowed}).status_code == 200
    assert client.get("/simple/", headers=basic("mine", "y")).status_code == 200


class Listener:
    """An address of this machine that counts who connects."""

    def __enter__(self) -> Listener:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def was_contacted(self) -> bool:
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize("type_", ["github", "github_projects"])
def test_a_stranger_has_the_server_contact_nobody(deploy: Deploy, type_: str) -> None:
    with Listener() as listener:
        config = f'[mine]\ntype = "{type_}"\nowner = "acme"\napi_url = "{listener.url}"\n'
        config += 'repo = "pkgs"\n' if type_ == "github" else ""
        client = create_app(deploy(None, admin_token="the-token")).test_client()
        refused = client.post("/initialize/", data={"config": config})
        assert refused.status_code == 400
        assert "[mine] api_url: a configuration that is submitted without the" in refused.text
        assert client.get("/r/mine/simple/", headers=basic("mine", "ghp_x")).status_code == 401
        assert not listener.was_contacted()
        # The operator may, by the token.
        done = client.post("/initialize/", data={"config": config}, headers=TOKEN)
        assert done.status_code == 200


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8888", "[::1]:8888", "localhost", "private-pypi:8888", "acme__pypi", "10.0.0.7"],
)
def test_a_job_configures_its_service_under_the_name_that_it_has_there(
    deploy: Deploy, host: str
) -> None:
    client = create_app(deploy(None)).test_client()
    answer = client.post("/initialize/", data={"config": MINE}, headers={"Host": host})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:8888", "127.0.0.1.evil.example", "x@y", "localhost."]
)
def test_a_page_whose_name_leads_here_does_not_configure(deploy: Deploy, host: str) -> None:
    client = create_app(deploy(None, admin_token="the-token")).test_client()
    # With DNS rebinding, the browser takes the page for one of this server.
    page = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    refused = client.post("/initialize/", data={"config": MINE}, headers=page)
    assert refused.status_code == 403
    assert "start the server with --host_names" in refused.text
    with_token = client.post("/initialize/", data={"config": MINE}, headers=page | TOKEN)
    assert with_token.status_code == 200


def test_a_name_that_the_operator_gave_configures(deploy: Deploy) -> None:
    client = create_app(deploy(None, host_names=frozenset({"pypi.acme.example"}))).test_client()
    headers = {"Host": "PyPI.acme.example:443"}
    assert client.post("/initialize/", data={"config": MINE}, headers=headers).status_code == 200


def test_a_server_that_knows_its_names_answers_under_no_other(deploy: Deploy) -> None:
    served = deploy(MINE + "anonymous_read = true\n", host_names=frozenset({"pypi.acme.example"}))
    app = create_app(served)
    client = app.test_client()
    filename, content = make_wheel("demo", "1.0")
    assert publish(client, filename, content).status_code == 200
    paths = ("/", "/simple/", "/r/mine/simple/demo/", f"/simple/demo/{filename}", "/login/")

    def statuses(host: str) -> set[int]:
        return {client.get(path, headers={"Host": host}).status_code for path in paths}

    def at_once(host: str) -> bool:
        environ = create_environ("/r/mine/simple/demo/", headers={"Host": host})
        return sent_by_the_loop(app, environ) is not None

    for host in ("pypi.acme.example", "127.0.0.1:8888", "localhost"):
        assert statuses(host) == {200}
        assert at_once(host)
    for host in ("evil.example", "pypi.acme.example.evil.example"):
        assert statuses(host) == {403}
        assert not at_once(host)
    gate = legacy.make_gate(served)
    head = RequestHead("POST", "/r/mine/", {"HOST": "evil.example"}, 1, "192.0.2.1", "1")
    verdict = gate(head)
    assert isinstance(verdict, Answer)
    assert verdict.status == 403


def test_other_processes_of_the_root_follow(deploy: Deploy) -> None:
    first = create_app(deploy(None)).test_client()
    second = create_app(deploy(None)).test_client()
    assert second.get("/simple/", headers=READER).status_code == 401
    assert first.post("/initialize/", data={"config": MINE}).status_code == 200
    deadline = time.monotonic() + 30
    while second.get("/simple/", headers=READER).status_code != 200:
        assert time.monotonic() < deadline, "the second process did not follow"
        time.sleep(0.1)


@pytest.mark.parametrize("path", ["/index_mtime/", "/index_mtime", "/r/mine/index_mtime/"])
def test_index_mtime_is_the_time_of_the_last_synchronisation(
    client: FlaskClient, path: str
) -> None:
    assert client.get(path).status_code == 401
    answer = client.get(path, headers=READER)
    assert answer.mimetype == "text/plain"
    assert 0 <= time.time() - int(answer.text) < 60


def test_a_start_removes_what_a_dead_process_left_and_nothing_else(
    deploy: Deploy, tmp_path: Path
) -> None:
    tmp = tmp_path / "root" / "tmp"
    (tmp / "dead").mkdir(parents=True)
    (tmp / "dead" / "half.whl").write_bytes(b"half")
    (tmp / "dead.lock").touch()
    first = deploy(MINE)
    (first.tmp / "upload").write_bytes(b"being received")
    second = deploy(MINE)
    assert not (tmp / "dead").exists()
    assert (first.tmp / "upload").exists()
    second.close()
    first.close()
    assert list(tmp.iterdir()) == []


def test_one_secret_for_each_role(client: FlaskClient) -> None:
    assert client.get("/simple/", headers=WRITER).status_code == 200
    assert client.get("/simple/", headers=READER).status_code == 200


def test_a_page_of_another_site_does_not_configure(deploy: Deploy) -> None:
    client = create_app(deploy(None, admin_token="t0ken")).test_client()
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        for credentials in ({}, basic("admin", "t0ken")):
            refused = client.post(
                "/initialize/", data={"config": MINE}, headers=headers | credentials
            )
            assert refused.status_code == 403
            assert "another site" in refused.text
    assert client.post("/initialize/", data={"config": MINE}).status_code == 200


TWO = MINE.replace("mine", "two")
SECRET_OF_TWO = '[two]\ntype = "file_system"\nraw = "x"\n'


def test_a_disk_that_is_full_leaves_the_old_configuration_and_a_start_that_works(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = deploy(None, admin_token="the-token")
    client = create_app(served).test_client()
    assert client.post("/initialize/", data={"config": MINE}).status_code == 200
    really = kept_configuration.write_private

    def full(path: Path, text: str, *, replace: bool) -> bool:
        if path.name == "config.toml":
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(path, text, replace=replace)

    monkeypatch.setattr(kept_configuration, "write_private", full)
    both = {"config": TWO, "admin_secret": SECRET_OF_TWO}
    answer = client.post("/initialize/", data=both, headers=TOKEN)
    assert (answer.status_code, answer.text) == (
        507,
        "the configuration could not be kept in ROOT: No space left on device\n",
    )
    assert client.get("/r/mine/simple/", headers=READER).status_code == 200
    restarted = deploy(None, admin_token="the-token")
    assert [repository.name for repository in restarted.repositories] == ["mine"]


def test_a_submission_that_failed_may_be_sent_again_without_a_token(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = create_app(deploy(None)).test_client()

    def full(path: Path, text: str, *, replace: bool) -> bool:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(kept_configuration, "write_private", full)
        assert client.post("/initialize/", data={"config": MINE}).status_code == 507
    assert client.post("/initialize/", data={"config": MINE}).status_code == 200


def test_a_submission_fits_the_admin_secrets_that_the_server_was_started_with(
    deploy: Deploy, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("x")
    given = f'[mine]\ntype = "file_system"\nfile = "{tmp_path / "secret"}"\n'
    served = deploy(None, given, admin_token="the-token")
    client = create_app(served).test_client()
    answer = client.post("/initialize/", data={"config": TWO}, headers=TOKEN)
    assert answer.status_code == 400
    assert "there is no repository 'mine' in config" in answer.text
    both = {"config": TWO, "admin_secret": SECRET_OF_TWO}
    answer = client.post("/initialize/", data=both, headers=TOKEN)
    assert answer.status_code == 409
    assert "started with --admin_secret" in answer.text
    assert client.post("/initialize/", data={"config": MINE}).status_code == 200
    assert [each.name for each in deploy(None, given).repositories] == ["mine"]


# -- secrets that change while the server runs ---------------------------------------------------


@pytest.fixture
def rotating(deploy: Deploy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client, and the file with the read secret. Files are checked at every request."""
    monkeypatch.setattr(import_module("private_pypi.web.deployment"), "_FOLLOW_EVERY", 0.0)
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    config = tmp_path / "config.toml"
    config.write_text(MINE.replace('read_secret = "reader"', f'read_secret_file = "{secret}"'))
    client = create_app(deploy(read_source(config))).test_client()
    return client, secret, config


def status(client: FlaskClient, secret: str) -> int:
    return client.get("/r/mine/simple/", headers=basic("mine", secret)).status_code


def test_a_secret_is_rotated_by_writing_its_file(rotating: Any) -> None:
    client, secret, _ = rotating
    assert (status(client, "first"), status(client, "second")) == (200, 401)
    secret.write_text("second\n")
    assert (status(client, "first"), status(client, "second")) == (401, 200)


def test_a_changed_configuration_is_used_and_a_wrong_one_is_not(
    rotating: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client, _, config = rotating
    right = config.read_text()
    config.write_text("[mine")
    assert status(client, "first") == 200
    assert status(client, "first") == 200
    told = [record for record in caplog.records if "is not used" in record.getMessage()]
    assert len(told) == 1
    config.write_text(right.replace("read_secret_file", 'read_secret = "third"  #'))
    assert (status(client, "first"), status(client, "third")) == (401, 200)


def test_a_file_of_a_secret_that_is_gone_changes_nothing(rotating: Any) -> None:
    client, secret, _ = rotating
    secret.unlink()
    assert status(client, "first") == 200
    secret.write_text("second")
    assert status(client, "second") == 200
