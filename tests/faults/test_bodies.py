"""Uploads that are cut, refused, or in flight when a server ends; and servers without a /tmp."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

from private_pypi.testing.distributions import encode_multipart, form_for, make_wheel
from tests.faults.disks import MIB, only_writable
from tests.faults.servers import (
    READER,
    Server,
    Servers,
    assert_tidy,
    basic,
    get_request,
    read_answer,
    sha256,
    table,
    temporary_files,
    upload_request,
)
from tests.waiting import eventually

pytestmark = pytest.mark.needs("a server in a process of its own")

RARELY = table(sync_index_interval=3600)

# -- cut -----------------------------------------------------------------------------------------


def leave_nothing(server: Server) -> None:
    eventually(lambda: not temporary_files(server.root), "no part of an upload is left")
    storage = server.root / "cache" / "mine" / "storage"
    # Not even the folder of the project, when it has nothing else.
    assert [path for path in storage.rglob("*") if path.is_file()] == []
    assert server.projects() == set()


def reset(connection: socket.socket) -> None:
    """End a connection as a crash of the client does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("end", ["half-close", "close", "reset"])
def test_a_body_that_is_cut_at_any_byte_leaves_nothing(
    servers: Servers, root: Path, end: str
) -> None:
    server = servers.start(root, RARELY)
    filename, content = make_wheel()
    head, body = upload_request(filename, content)
    assert len(body) > 1000
    # Around every boundary, at both ends, and anywhere.
    where = random.Random(end)
    boundary = body[: body.index(b"\r\n")]
    cuts = {0, 1, 2, *range(len(body) - len(boundary) - 8, len(body) - 2)}
    cuts |= {where.randrange(len(body) - 2) for _ in range(150)}
    file_at = body.index(b"PK\x03\x04")
    cuts |= set(range(file_at - 6, file_at + 6))
    for cut in sorted(cuts):
        with server.connect() as connection:
            connection.sendall(head + body[:cut])
            if end == "half-close":
                connection.shutdown(socket.SHUT_WR)
                # A request that is not whole has no answer that anybody could rely on.
                assert b" 200 " not in connection.recv(65536)
            elif end == "reset":
                reset(connection)
    leave_nothing(server)
    server.publish(filename, content)
    assert server.content(filename) == content


def test_a_form_without_its_final_boundary_is_refused(servers: Servers, root: Path) -> None:
    server = servers.start(root, RARELY)
    filename, content = make_wheel()
    _, body = upload_request(filename, content)
    boundary = body[: body.index(b"\r\n")]
    final = body.rindex(boundary)
    for cut in (*range(final - 4, final + len(boundary) + 2), body.index(b"PK\x03\x04") + 20):
        # Complete as HTTP counts: `Content-Length` is what is sent.
        whole = len(body) - cut
        head, _ = upload_request(filename, content, length=len(body) - whole)
        with server.connect() as connection:
            connection.sendall(head + body[:cut])
            status, reason, text = read_answer(connection)
            assert (status, reason) == (400, text.strip())
            assert text == "the form is cut off: its final boundary did not arrive\n"
    leave_nothing(server)
    server.publish(filename, content)


def test_a_chunked_body_that_is_cut_leaves_nothing(servers: Servers, root: Path) -> None:
    server = servers.start(root, RARELY)
    filename, content = make_wheel()
    head, body = upload_request(filename, content)
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    chunked = b"\r\n".join([*lines[:-2], b"Transfer-Encoding: chunked", b"", b""])
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(body[at : at + 100]), body[at : at + 100])
        for at in range(0, len(body), 100)
    )
    where = random.Random(1)
    for cut in sorted({where.randrange(len(chunks)) for _ in range(50)}):
        with server.connect() as connection:
            connection.sendall(chunked + chunks[:cut])
            connection.shutdown(socket.SHUT_WR)
            assert b" 200 " not in connection.recv(65536)
    leave_nothing(server)
    with server.connect() as connection:
        connection.sendall(chunked + chunks + b"0\r\n\r\n")
        assert read_answer(connection)[0] == 200
    assert server.content(filename) == content


# -- refused -------------------------------------------------------------------------------------


def test_a_refused_upload_leaves_nothing_on_the_disk(servers: Servers, root: Path) -> None:
    server = servers.start(root, table(max_file_bytes=3 * MIB))
    kept, burnt = make_wheel(version="1.0"), make_wheel(version="0.1")
    server.publish(*kept)
    server.publish(*burnt)
    server.change("DELETE", f"demo/{burnt[0]}")
    assert_tidy(root)

    def all_files() -> list[Path]:
        # SQLite has a log beside its file, or not; and temporary files come and go.
        return sorted(path for path in (root / "cache").rglob("*") if path.is_file())

    before = all_files()
    noise = os.urandom(2 * MIB)
    filename, content = make_wheel(version="2.0", files={"data": noise})
    large = make_wheel(version="2.0", files={"data": 2 * noise})[1]
    huge = make_wheel(version="2.0", files={"data": 8 * noise})[1]
    other = make_wheel(version="1.0", files={"data": noise})[1]
    form = form_for(filename, content)
    statuses = {
        "a wrong secret": server.put(filename, content, auth=("mine", "x")),
        "an unknown repository": server.put(filename, content, auth=("theirs", "w")),
        "a secret that may only read": server.put(filename, content, auth=READER),
        "a large file": server.put(filename, large),
        "a large body": server.put(filename, huge),
        "other bytes": server.put(kept[0], other),
        "a burnt name": server.put(*burnt),
        "a wrong hash": server.put(
            filename, content, form=form_for(filename, content, sha256_digest="0" * 64)
        ),
        "another project": server.put(
            filename, content, form=form_for(filename, content, name="other")
        ),
        "a broken archive": server.put(
            filename, content[:-30], form=[pair for pair in form if "digest" not in pair[0]]
        ),
        "another action": server.put(
            filename, content, form=form_for(filename, content, action="doc_upload")
        ),
    }
    assert {why: answer.status_code for why, answer in statuses.items()} == {
        "a wrong secret": 401,
        "an unknown repository": 401,
        "a secret that may only read": 403,
        "a large file": 413,
        "a large body": 413,
        "other bytes": 409,
        "a burnt name": 400,
        "a wrong hash": 400,
        "another project": 400,
        "a broken archive": 400,
        "another action": 400,
    }
    assert temporary_files(root) == []
    assert_tidy(root)
    assert all_files() == before
    assert server.listed() == {kept[0]: sha256(kept[1])}
    server.publish(filename, content)


# -- no temporary folder of the system -----------------------------------------------------------


def upload_and_download(server: Server) -> None:
    for version, filler in (("1.0", os.urandom(5 * MIB)), ("2.0", bytes(5 * MIB))):
        filename, content = make_wheel(version=version, files={"data": filler})
        server.publish(filename, content)
        assert server.content(filename) == content
        assert server.get(f"/r/mine/simple/demo/{filename}.metadata").content.startswith(b"Meta")
    # These rewrite the index document.
    server.change("POST", "demo/1.0/yank", reason="it burns")
    server.change("DELETE", "demo/2.0")
    assert list(server.yanked().values()) == ["it burns"]
    assert server.stop() == 0
    assert_tidy(server.root)


def test_a_server_needs_no_folder_but_root(servers: Servers, root: Path) -> None:
    nowhere = {"TMPDIR": "/nonexistent", "HOME": "/nonexistent"}
    wrapper = only_writable(root)
    inside = subprocess.run(
        [*wrapper, sys.executable, "-c", "import tempfile; tempfile.gettempdir()"],
        env=nowhere,
        cwd="/proc",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No usable temporary directory found" in inside.stderr
    root.rmdir()
    wrapper = only_writable(root)
    upload_and_download(servers.start(root, environ=nowhere, cwd=Path("/proc"), wrapper=wrapper))


def test_a_server_asks_python_for_no_temporary_folder(
    servers: Servers, root: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    # What tempfile finds when no candidate can be written to.
    (site / "sitecustomize.py").write_text(
        "import tempfile\ntempfile._candidate_tempdir_list = lambda: ['/proc']\n"
    )
    nowhere = {"PYTHONPATH": str(site), "HOME": "/nonexistent", "SQLITE_TMPDIR": "/proc"}
    upload_and_download(servers.start(root, environ=nowhere, cwd=Path("/proc")))


# -- ended ---------------------------------------------------------------------------------------


def refuses_connections(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # the listener was closed while this connection waited in its queue: ask again
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_upload_in_flight_outlives_the_signal(
    servers: Servers, root: Path, number: signal.Signals
) -> None:
    server = servers.start(root, RARELY)
    filename, content = make_wheel(files={"data": os.urandom(4 * MIB)})
    head, body = upload_request(filename, content)
    with server.connect() as connection:
        connection.sendall(head + body[: 2 * MIB])
        eventually(lambda: temporary_files(root), "the upload begins")
        server.process.send_signal(number)
        eventually(lambda: refuses_connections(server), "the listener is closed")
        # Its successor need not wait for it.
        successor = servers.start(root, RARELY, port=server.port)
        connection.sendall(body[2 * MIB :])
        assert read_answer(connection)[:2] == (200, "OK")
    assert server.process.wait(timeout=60) == 0
    assert successor.listed() == {filename: sha256(content)}
    assert successor.content(filename) == content
    assert "Traceback" not in server.log
    assert_tidy(root)


def test_a_slow_download_outlives_the_signal(servers: Servers, root: Path) -> None:
    server = servers.start(root, RARELY)
    filename, content = make_wheel(files={"data": os.urandom(24 * MIB)})
    server.publish(filename, content)
    with server.connect() as connection:
        connection.sendall(get_request(f"/r/mine/simple/demo/{filename}"))
        received = connection.recv(65536)
        server.terminate()
        eventually(lambda: refuses_connections(server), "the listener is closed")
        successor = servers.start(root, RARELY, port=server.port)
        while data := connection.recv(256 * 1024):
            received += data
            time.sleep(0.005)
    assert received.partition(b"\r\n\r\n")[2] == content
    assert server.process.wait(timeout=60) == 0
    assert successor.content(filename) == content


def test_a_request_on_a_connection_that_was_just_made_outlives_the_signal(
    servers: Servers, root: Path
) -> None:
    server = servers.start(root, RARELY)
    wheel = make_wheel()
    with server.connect() as connection:
        server.terminate()
        eventually(lambda: refuses_connections(server), "the listener is closed")
        for part in upload_request(*wheel):
            connection.sendall(part)
        assert read_answer(connection)[:2] == (200, "OK")
    assert server.process.wait(timeout=60) == 0
    # A connection without a request does not keep a server for long.
    server = servers.start(root, RARELY)
    with server.connect() as connection:
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < 10
        assert connection.recv(1) == b""


def test_uploads_that_come_while_a_server_ends_are_answered_or_not_begun(
    servers: Servers, root: Path
) -> None:
    server = servers.start(root, RARELY)
    acknowledged: dict[str, str] = {}
    unexpected: list[str] = []

    def upload(number: int) -> None:
        for count in range(1000):
            filename, content = make_wheel(f"project-{number}", f"{count}")
            try:
                answer = server.put(filename, content)
            except requests.ConnectionError:
                return  # it was not begun: else it would be found below
            if answer.status_code == 200:
                acknowledged[filename] = sha256(content)
            else:
                unexpected.append(f"{answer.status_code} {answer.reason}")

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(acknowledged) > 20, "some uploads")
    assert server.stop() == 0
    for thread in threads:
        thread.join(timeout=60)
    assert unexpected == []
    assert servers.start(root, RARELY).all_listed() == acknowledged
    assert_tidy(root)


# -- who is asking -------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_a_password_outside_ascii_is_understood(
    servers: Servers, root: Path, encoding: str
) -> None:
    reader, writer = "gehëimnis-süß", "schlüssel:ÿ"  # pip sends latin-1, uv UTF-8
    server = servers.start(root, table(read_secret=reader, write_secret=writer))
    filename, content = make_wheel()
    content_type, body = encode_multipart(form_for(filename, content), filename, content)
    headers = {"Authorization": basic("mine", writer, encoding), "Content-Type": content_type}
    assert requests.post(f"{server.url}/r/mine/", body, headers=headers, timeout=20).ok
    for path, secret, expected in (
        ("/simple/demo/", reader, 200),
        (f"/simple/demo/{filename}", reader, 200),
        ("/simple/demo/", writer, 200),
        ("/simple/demo/", reader + "ß", 401),
    ):
        headers = {"Authorization": basic("mine", secret, encoding)}
        assert server.status(path, auth=None, headers=headers) == expected
