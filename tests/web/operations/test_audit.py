"""The audit file, and the line of each change."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import Secret
from private_pypi.testing.distributions import make_wheel
from private_pypi.web import create_app
from private_pypi.web.api.legacy import make_gate
from private_pypi.web.operations.audit import AuditLog
from private_pypi.web.serving import Answer, RequestHead
from tests.machine import need
from tests.web import conftest
from tests.web.conftest import MINE, OTHER, READER, WRITER, Deploy, basic, publish

deploy = conftest.deploy

DEMO, CONTENT = make_wheel("demo", "1.0")
FILE = {
    "filename": DEMO,
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
    "size": len(CONTENT),
}


def lines(root: Path) -> list[dict[str, Any]]:
    """All audit lines, without their times, which are checked."""
    path = root / "log" / "audit.jsonl"
    found = [json.loads(line) for line in path.read_text("ascii").split("\n")[:-1]]
    times = [line.pop("time") for line in found]
    assert times == sorted(times)
    assert all(time.endswith("Z") for time in times)
    return found


def line(action: str, outcome: str = "done", status: int = 200, **more: object) -> dict[str, Any]:
    return {
        "action": action,
        "outcome": outcome,
        "status": status,
        "repository": "mine",
        "address": "127.0.0.1",
        "user_agent": "tool/1",
        "request_id": "",
        "files": [FILE],
        **more,
    }


# -- changes -------------------------------------------------------------------------------------


def test_every_change_leaves_a_line(deploy: Deploy) -> None:
    served = deploy(MINE)
    client = create_app(served).test_client()
    tool = {"User-Agent": "tool/1"}
    writer = WRITER | tool
    for _ in range(2):
        assert publish(client, DEMO, CONTENT, headers=writer).status_code == 200
    yank = f"/simple/demo/{DEMO}/yank"
    assert client.post(yank, data={"reason": "broken"}, headers=writer).status_code == 200
    assert client.delete(yank, headers=writer).status_code == 200
    assert client.delete("/r/mine/simple/demo/1.0", headers=writer).status_code == 200
    secret = served.changes.audit.fingerprint(Secret("writer"))
    assert lines(served.root) == [
        line("publish", secret=secret),
        line("publish", secret=secret, unchanged=True),
        line("yank", secret=secret, reason="broken"),
        line("unyank", secret=secret),
        line("delete", secret=secret),
    ]


def test_what_somebody_known_is_refused_leaves_a_line(deploy: Deploy) -> None:
    served = deploy(MINE)
    client = create_app(served).test_client()
    tool = {"User-Agent": "tool/1"}
    assert publish(client, DEMO, CONTENT, headers=WRITER | tool).status_code == 200
    assert publish(client, DEMO, CONTENT, headers=READER | tool).status_code == 403
    other = make_wheel("demo", "1.0", files={"demo.py": b"other"})[1]
    assert publish(client, DEMO, other, headers=WRITER | tool).status_code == 409
    assert client.delete("/simple/demo/2.0", headers=WRITER | tool).status_code == 404
    writer, reader = (
        served.changes.audit.fingerprint(Secret(secret)) for secret in ("writer", "reader")
    )
    assert writer != reader
    assert lines(served.root)[1:] == [
        line(
            "publish",
            "refused",
            403,
            secret=reader,
            files=[],
            error="this secret may read repository 'mine', but not change it",
        ),
        line(
            "publish",
            "refused",
            409,
            secret=writer,
            files=[
                {
                    "filename": DEMO,
                    "sha256": hashlib.sha256(other).hexdigest(),
                    "size": len(other),
                }
            ],
            error=f"File already exists ({DEMO!r} is published with other content); "
            "use a different version",
        ),
        line(
            "delete",
            "refused",
            404,
            secret=writer,
            files=[],
            error="no release '2.0' of project 'demo' in this repository",
        ),
    ]


def test_strangers_leave_no_line(deploy: Deploy) -> None:
    served = deploy(MINE, admin_token="the-token")
    client = create_app(served).test_client()
    wrong = basic("mine", "wrong")
    assert publish(client, DEMO, CONTENT, headers=wrong).status_code == 401
    assert publish(client, DEMO, CONTENT, headers={}).status_code == 401
    assert client.delete(f"/simple/demo/{DEMO}", headers=wrong).status_code == 401
    assert client.post("/initialize/", data={"config": OTHER}).status_code == 409
    assert not (served.root / "log").exists()
    assert served.changes.counts() == {
        ("", "publish", "refused"): 2,
        ("", "delete", "refused"): 1,
        ("", "initialize", "refused"): 1,
    }


def test_what_the_gate_refuses_leaves_a_line_too(deploy: Deploy) -> None:
    served = deploy(MINE)
    gate = make_gate(served)

    def answer(headers: dict[str, str]) -> int:
        head = RequestHead(
            method="POST",
            path="/r/mine/",
            headers={
                "AUTHORIZATION": headers["Authorization"],
                "CONTENT_TYPE": "multipart/form-data; boundary=x",
                "CONTENT_LENGTH": str(2**60),
                "USER_AGENT": "tool/1",
            },
            content_length=2**60,
            remote_addr="127.0.0.1",
            request_id="one",
        )
        verdict = gate(head)
        assert isinstance(verdict, Answer)
        return verdict.status

    assert [answer(READER), answer(WRITER), answer(basic("mine", "wrong"))] == [403, 413, 401]
    found = lines(served.root)
    assert [(entry["status"], entry["request_id"]) for entry in found] == [
        (403, "one"),
        (413, "one"),
    ]


def test_a_new_configuration_leaves_a_line_without_its_secrets(deploy: Deploy) -> None:
    served = deploy(None, admin_token="the-token")
    client = create_app(served).test_client()
    client.environ_base["HTTP_USER_AGENT"] = "tool/1"
    assert client.post("/initialize/", data={"config": MINE}).status_code == 200
    token = {"Authorization": "Bearer the-token"}
    both = {"config": MINE + OTHER}
    assert client.post("/initialize/", data=both, headers=token).status_code == 200
    assert client.post("/initialize/", data={"config": "["}, headers=token).status_code == 400
    secret = served.changes.audit.fingerprint(Secret("the-token"))
    found = lines(served.root)
    error = found[2].pop("error")
    assert error.startswith("config, line 1, column 2: not valid TOML")
    of_none = {"repository": None, "files": []}
    assert found == [
        line("initialize", secret=None, repositories=["mine"], **of_none),
        line("initialize", secret=secret, repositories=["mine", "other"], **of_none),
        line("initialize", "refused", 400, secret=secret, repositories=[], **of_none),
    ]


def test_register_is_no_change(deploy: Deploy) -> None:
    served = deploy(MINE)
    client = create_app(served).test_client()
    overrides = {":action": "submit"}
    assert publish(client, DEMO, CONTENT, **overrides).status_code == 200
    assert served.changes.counts() == {}


def test_an_upload_that_is_stored_is_not_lost_with_its_line(
    deploy: Deploy, caplog: pytest.LogCaptureFixture
) -> None:
    served = deploy(MINE)
    (served.root / "log").write_text("no folder")
    client = create_app(served).test_client()
    assert publish(client, DEMO, CONTENT).status_code == 200
    assert DEMO in client.get("/simple/demo/", headers=READER).text
    assert served.changes.audit.failures == 1
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert said.startswith("no audit line could be written (")
    # The log has what could not be written to the file.
    assert json.loads(said.partition("it is: ")[2])["files"] == [FILE]


# -- the file ------------------------------------------------------------------------------------


def test_only_its_owner_reads_the_file(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path)
    audit.append({"a": 1})
    assert audit.fingerprint(Secret("x"))
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "log" / "audit.jsonl").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "fingerprint.key").stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path)
    path = tmp_path / "log" / "audit.jsonl"
    audit.append({"number": 1})
    path.rename(path.with_suffix(".1"))
    audit.append({"number": 2})
    assert path.with_suffix(".1").read_text() == '{"number": 1}\n'
    assert path.read_text() == '{"number": 2}\n'
    shutil.rmtree(path.parent)
    audit.append({"number": 3})
    assert path.read_text() == '{"number": 3}\n'


def test_nothing_that_is_written_ends_a_line(tmp_path: Path) -> None:
    nasty = 'a\n{"action": "publish"}\r\x85\u2028\x1b[2J\ud800'
    AuditLog(tmp_path).append({"user_agent": nasty})
    (only,) = (tmp_path / "log" / "audit.jsonl").read_text("ascii").splitlines()
    assert json.loads(only) == {"user_agent": nasty}


def test_a_line_that_was_cut_off_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = AuditLog(tmp_path)
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
        audit.append({"number": 1})
    audit.append({"number": 2})
    assert audit.failures == 1
    assert (tmp_path / "log" / "audit.jsonl").read_text() == '{"num\n{"number": 2}\n'


@pytest.mark.needs("time")
def test_threads_and_processes_share_the_file(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from private_pypi.web.operations.audit import AuditLog
        audit = AuditLog(Path(sys.argv[1]))
        for number in range(100):
            audit.append({"writer": sys.argv[2], "number": number, "filler": "x" * 5000})
    """)
    command = [sys.executable, "-c", code, str(tmp_path)]
    others = [subprocess.Popen([*command, name]) for name in ("b", "c")]
    audit = AuditLog(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: audit.append({"writer": "a", "number": n}), range(100)))
    assert [process.wait(60) for process in others] == [0, 0]
    written = [
        json.loads(line) for line in (tmp_path / "log" / "audit.jsonl").read_text().splitlines()
    ]
    found = sorted((entry["writer"], entry["number"]) for entry in written)
    assert found == [(writer, number) for writer in "abc" for number in range(100)]


def test_all_processes_of_a_root_give_a_secret_the_same_fingerprint(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        audits = [AuditLog(tmp_path) for _ in range(8)]
        found = set(pool.map(lambda audit: audit.fingerprint(Secret("writer")), audits))
    (fingerprint,) = found
    assert fingerprint is not None
    assert len(fingerprint) == 16
    assert AuditLog(tmp_path).fingerprint(Secret("other")) != fingerprint
    # Without the key, secrets cannot be guessed from it.
    assert not hashlib.sha256(b"writer").hexdigest().startswith(fingerprint)


@pytest.mark.needs("openssl")
def test_the_documented_command_makes_the_same_fingerprint(tmp_path: Path) -> None:
    need("openssl")
    operations = Path(__file__).parents[3] / "docs" / "operations.md"
    (command,) = [
        line.removeprefix("$ ")
        for line in operations.read_text().splitlines()
        if line.startswith("$ ") and "fingerprint.key" in line
    ]
    fingerprint = AuditLog(tmp_path).fingerprint(Secret("wr:ter é"))
    ended = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "ROOT": str(tmp_path), "SECRET": "wr:ter é"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == fingerprint


def test_a_key_that_cannot_be_read_costs_no_upload(
    deploy: Deploy, caplog: pytest.LogCaptureFixture
) -> None:
    served = deploy(MINE)
    (served.root / "fingerprint.key").write_text("no hex")
    assert publish(create_app(served).test_client(), DEMO, CONTENT).status_code == 200
    assert lines(served.root)[0]["secret"] is None
    assert "no fingerprint of a secret can be made" in caplog.text


def test_no_line_holds_a_secret(deploy: Deploy) -> None:
    served = deploy(MINE, admin_token="the-token")
    client = create_app(served).test_client()
    publish(client, DEMO, CONTENT)
    publish(client, DEMO, CONTENT, headers=READER)
    publish(client, DEMO, CONTENT, headers={"Authorization": "Bearer mine:writer"})
    text = (served.root / "log" / "audit.jsonl").read_text()
    encoded = base64.b64encode(b"mine:writer").decode().rstrip("=")
    for secret in ("writer", "reader", "the-token", encoded):
        assert secret not in text
    assert text.count('"action": "publish"') == 3
