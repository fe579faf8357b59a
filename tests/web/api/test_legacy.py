"""Uploads, deletes and what is refused, over HTTP."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from private_pypi.testing.distributions import (
    encode_multipart,
    form_for,
    make_sdist,
    make_wheel,
)
from private_pypi.web import create_app
from private_pypi.web.api.legacy import make_gate
from private_pypi.web.serving import Answer, PassOn, ReceiveForm, RequestHead
from tests.archives_by_hand import make_zip, wheel_members
from tests.web.conftest import MINE, OTHER, READER, WRITER, Deploy, basic, publish


@pytest.mark.parametrize(
    "path",
    [
        prefix + path
        for prefix in ("", "/r/mine")
        for path in ("/", "/simple", "/simple/", "/legacy", "/legacy/")
    ]
    + ["/r/mine"],
)
def test_uploads_work_wherever_people_send_them_and_never_redirect(
    client: FlaskClient, path: str
) -> None:
    filename, content = make_wheel("demo", "1.0")
    answer = publish(client, filename, content, path=path)
    assert answer.status_code == 200  # protocol 47, 53
    assert client.get(f"/simple/demo/{filename}", headers=READER).data == content


def test_the_same_bytes_again_are_fine_and_others_are_not(client: FlaskClient) -> None:
    filename, content = make_wheel("demo", "1.0")
    _, other = make_wheel("demo", "1.0", files={"demo/more.py": b"x = 1\n"})
    assert publish(client, filename, content).status_code == 200
    assert publish(client, filename, content).status_code == 200  # protocol 55
    answer = publish(client, filename, other)
    assert answer.status_code == 409  # protocol 56
    assert answer.status.startswith("409 File already exists (")
    assert answer.text.startswith("File already exists (")
    assert client.get(f"/simple/demo/{filename}", headers=READER).data == content


def test_a_file_appears_in_the_next_page(client: FlaskClient) -> None:
    assert client.get("/simple/demo/", headers=READER).status_code == 404
    filename, content = make_sdist("demo", "1.0")
    assert publish(client, filename, content).status_code == 200
    assert filename in client.get("/simple/demo/", headers=READER).text  # protocol 61


def test_what_a_publisher_should_mend_is_in_the_answer(client: FlaskClient) -> None:
    filename, content = "demo-1.0-py3-none-any.whl", make_zip(wheel_members(RECORD=b"x.py,,\n"))
    answer = publish(client, filename, content)
    assert (answer.status_code, answer.text) == (
        200,
        f"{filename} is published\n"
        "warning: 4 rows of RECORD are wrong: 'x.py' is not in the wheel\n",
    )


def test_wrong_digests_are_refused_and_leave_nothing(client: FlaskClient, tmp_path: Path) -> None:
    filename, content = make_wheel("demo", "1.0")
    for field in ("sha256_digest", "md5_digest", "blake2_256_digest"):
        digest = hashlib.sha256(b"something else").hexdigest()
        digest = digest[:32] if field == "md5_digest" else digest
        answer = publish(client, filename, content, **{field: digest})
        assert answer.status_code == 400, field  # protocol 48
    assert client.get("/simple/demo/", headers=READER).status_code == 404
    left = [p for p in tmp_path.rglob("*") if p.is_file() and b"demo/__init__" in p.read_bytes()]
    assert left == []


def test_a_reader_may_not_publish_and_a_stranger_is_asked_for_a_secret(
    client: FlaskClient,
) -> None:
    file = make_wheel("demo", "1.0")
    assert publish(client, *file, headers=READER).status_code == 403  # protocol 58
    assert publish(client, *file, headers={}).status_code == 401
    assert publish(client, *file, headers=basic("mine", "wrong")).status_code == 401


@pytest.mark.parametrize("action", ["submit", "verify"])
def test_register_is_a_friendly_no_op(client: FlaskClient, action: str) -> None:
    answer = client.post(
        "/legacy/",
        data={":action": action, "name": "demo"},
        content_type="multipart/form-data",
        headers=WRITER,
    )
    assert answer.status_code == 200
    answer = publish(client, *make_wheel("demo", "1.0"), **{":action": action})
    assert answer.status_code == 200  # protocol 46
    assert client.get("/simple/demo/", headers=READER).status_code == 404


def test_a_deleted_name_stays_burnt(client: FlaskClient) -> None:
    filename, content = make_wheel("demo", "1.0")
    assert publish(client, filename, content).status_code == 200
    assert client.delete(f"/simple/demo/{filename}", headers=READER).status_code == 403
    answer = client.delete(f"/simple/demo/{filename}", headers=WRITER)
    assert (answer.status_code, answer.get_json()) == (200, {"files": [filename]})
    assert client.get(f"/simple/demo/{filename}", headers=READER).status_code == 404
    answer = publish(client, filename, content)
    assert answer.status_code == 400  # protocol 71
    assert "previously used by a file that has since been deleted" in answer.text


@pytest.mark.parametrize("version", ["1", "1.0.0", "v1.0"])
def test_a_file_has_one_name_however_it_is_spelled(client: FlaskClient, version: str) -> None:
    first = make_wheel("kiosk", "1.0", files={"kiosk/__init__.py": b"good = True"})
    again = make_wheel("kiosk", version, files={"kiosk/__init__.py": b"good = False"})
    assert first[0] != again[0]
    assert publish(client, *first).status_code == 200
    content_type, body = encode_multipart(form_for(*first), again[0], first[1])
    same = client.post("/simple/", data=body, content_type=content_type, headers=WRITER)
    assert (same.status_code, same.text) == (200, f"{first[0]} is published\n")
    refused = publish(client, *again)
    assert refused.status_code == 409
    assert refused.status.startswith("409 File already exists (")
    page = client.get(
        "/simple/kiosk/", headers=READER | {"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    [entry] = page.get_json(force=True)["files"]
    assert (entry["filename"], entry["size"]) == (first[0], len(first[1]))
    assert client.delete(f"/simple/kiosk/{first[0]}", headers=WRITER).status_code == 200
    burnt = publish(client, *again)
    assert (burnt.status_code, "was previously used" in burnt.text) == (400, True)
    assert client.get("/simple/kiosk/", headers=READER).status_code == 404


def test_a_release_is_deleted_whole(client: FlaskClient) -> None:
    for file in (make_wheel("demo", "1.0"), make_sdist("demo", "1.0"), make_wheel("demo", "2.0")):
        assert publish(client, *file).status_code == 200
    answer = client.delete("/simple/demo/1.0/", headers=WRITER)
    assert sorted(answer.get_json()["files"]) == ["demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"]
    page = client.get("/simple/demo/", headers=READER).text
    assert "demo-2.0" in page
    assert "demo-1.0" not in page


def test_burnt_names_and_yanks_survive_the_loss_of_root_but_the_storage(
    deploy: Deploy, tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    config = MINE + f'path = "{storage}"\n'
    first = create_app(deploy(config)).test_client()
    kept = make_wheel("demo", "2.0")
    gone = make_wheel("demo", "1.0")
    assert publish(first, *kept).status_code == 200
    assert publish(first, *gone).status_code == 200
    assert first.delete(f"/simple/demo/{gone[0]}", headers=WRITER).status_code == 200
    assert (
        first.post("/simple/demo/2.0/yank", data={"reason": "bad"}, headers=WRITER).status_code
        == 200
    )
    second = create_app(deploy(config, root=tmp_path / "another-root")).test_client()
    assert publish(second, *gone).status_code == 400
    assert 'data-yanked="bad"' in second.get("/simple/demo/", headers=READER).text


def test_a_name_burnt_by_another_server_is_burnt_here_at_once(
    deploy: Deploy, tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    config = MINE + f'path = "{storage}"\n'
    first = create_app(deploy(config)).test_client()
    second = create_app(deploy(config, root=tmp_path / "another-root")).test_client()
    file = make_wheel("demo", "1.0")
    assert publish(first, *file).status_code == 200
    assert first.delete(f"/simple/demo/{file[0]}", headers=WRITER).status_code == 200
    assert publish(second, *file).status_code == 400


def head(method: str = "POST", path: str = "/legacy/", **headers: str) -> RequestHead:
    length = headers.get("CONTENT_LENGTH")
    return RequestHead(
        method=method,
        path=path,
        headers={"CONTENT_TYPE": "multipart/form-data; boundary=x"} | headers,
        content_length=None if length is None else int(length),
        remote_addr="127.0.0.1",
        request_id="one",
    )


def test_the_gate_decides_before_the_body(deploy: Deploy) -> None:
    deployment = deploy(MINE + "max_file_bytes = 1000\n" + OTHER)
    gate = make_gate(deployment)
    writer, reader = WRITER["Authorization"], READER["Authorization"]

    def status(**headers: str) -> int:
        answer = gate(head(**headers))
        assert isinstance(answer, Answer)
        return answer.status

    assert status() == 401
    assert status(AUTHORIZATION=reader) == 403
    assert status(AUTHORIZATION=writer, CONTENT_LENGTH=str(50 * 2**20)) == 413
    assert status(AUTHORIZATION=writer, CONTENT_TYPE="application/json") == 400
    assert status(AUTHORIZATION=writer, path="/r/other/") == 401
    passed = gate(head(AUTHORIZATION=writer, CONTENT_LENGTH="1500"))
    assert isinstance(passed, ReceiveForm)
    assert passed.limits.max_file_bytes == 1000
    huge = str(2**60)
    unlimited = make_gate(deploy(MINE, root=deployment.root.parent / "second"))
    refused = unlimited(head(AUTHORIZATION=writer, CONTENT_LENGTH=huge))
    assert isinstance(refused, Answer)
    assert refused.status == 413


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/initialize/"), ("POST", "/simple/demo/1.0/yank"), ("DELETE", "/simple/demo/1.0/")],
)
def test_other_requests_pass_with_a_small_body(deploy: Deploy, method: str, path: str) -> None:
    gate = make_gate(deploy(MINE))
    for other in (head(method=method, path=path), head(CONTENT_TYPE="text/xml; charset=utf-8")):
        answer = gate(other)
        assert isinstance(answer, PassOn)
        assert answer.max_body_bytes == 2**20


def test_a_full_disk_is_said_before_the_body(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    gate = make_gate(deploy(MINE))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 99, 1))
    answer = gate(head(AUTHORIZATION=WRITER["Authorization"], CONTENT_LENGTH="1000"))
    assert isinstance(answer, Answer)
    assert answer.status == 507


def test_posting_to_a_page_says_where_uploads_go(client: FlaskClient) -> None:
    answer = client.post("/simple/demo/", headers=WRITER)
    assert answer.status_code == 405  # protocol 47
    assert "uploads go to" in answer.text
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/at/2026-01-01/", "/r/mine/at/2026-01-01/"])
def test_posting_to_an_index_of_an_earlier_day_says_that_it_cannot_be_changed(
    client: FlaskClient, path: str
) -> None:
    answer = client.post(path, headers=WRITER)
    assert answer.status_code in (404, 405)
    expected = "cannot be changed" if answer.status_code == 405 else "/at/<instant>/simple/"
    assert expected in answer.text
