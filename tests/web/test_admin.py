"""`POST /initialize/` and `GET /index_mtime/`: who may, and that nothing is half done."""

from __future__ import annotations

import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from private_pypi.testing.distributions import make_wheel
from private_pypi.web import create_app

from .conftest import MINE, OTHER, READER, WRITER, Deploy, basic, publish

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
        'write_secret_file = "/etc/passwd"',
        'write_secret_env = "HOME"',
    ],
)
def test_a_submitted_configuration_reaches_nothing_outside_root(deploy: Deploy, line: str) -> None:
    client = create_app(
        deploy(None, environ={"HOME": "x", "ALLOWED": "y"}, allowed_env=frozenset({"ALLOWED"}))
    ).test_client()
    config = f'[mine]\ntype = "file_system"\n{line}\n'
    assert client.post("/initialize/", data={"config": config}).status_code == 400
    allowed = '[mine]\ntype = "file_system"\nread_secret_env = "ALLOWED"\n'
    assert client.post("/initialize/", data={"config": allowed}).status_code == 200
    assert client.get("/simple/", headers=basic("mine", "y")).status_code == 200


def test_other_processes_of_the_root_follow(deploy: Deploy) -> None:
    first = create_app(deploy(None)).test_client()
    second = create_app(deploy(None)).test_client()
    assert second.get("/simple/", headers=READER).status_code == 401
    assert first.post("/initialize/", data={"config": MINE}).status_code == 200
    deadline = time.monotonic() + 5
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
