"""A disk without space: an answer that every client can read, and everything else goes on.

Where this user may mount, ROOT or the storage is a small tmpfs in a mount namespace of the server
alone. A limit for the size of files (RLIMIT_FSIZE) stands in for it in the tests that run
everywhere: writing fails in the middle of a file just the same.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from pathlib import Path

import pytest

from private_pypi.testing.distributions import make_wheel
from tests.faults.disks import MIB, Disk, small_disk
from tests.faults.servers import (
    INTERVAL,
    Servers,
    assert_tidy,
    litter,
    read_answer,
    sha256,
    table,
    temporary_files,
    upload_request,
)
from tests.waiting import eventually

pytestmark = pytest.mark.needs("a server in a process of its own")


def receive_all(connection: socket.socket) -> bytes:
    """Until the server ends; a reset is an error."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


def test_a_full_disk_refuses_before_the_body(servers: Servers, root: Path) -> None:
    server = servers.start(root, wrapper=small_disk(root))
    disk = Disk(server, root)
    kept = make_wheel()
    server.publish(*kept)
    disk.fill(leave=MIB)
    free = disk.free

    filename, content = make_wheel(version="2.0", files={"data": os.urandom(5 * MIB)})
    head, body = upload_request(filename, content)
    with server.connect() as connection:
        # Nothing of the body is sent: whoever waits for it would wait for ever.
        connection.sendall(head)
        status, reason, text = read_answer(connection)
    assert (status, reason) == (507, text.strip())
    assert text.startswith(f"no space left for an upload of {len(body)} bytes")
    # A client that sends everything before it reads, as twine does, sees the same.
    assert server.put(filename, content).status_code == 507
    with server.connect() as connection:
        connection.sendall(head + body)
        assert receive_all(connection).startswith(b"HTTP/1.1 507 no space left")

    assert free - disk.free < MIB // 4  # the log of SQLite grows
    eventually(
        lambda: litter(disk.folder) == [str(disk.folder / "ballast")], "nothing but the ballast"
    )
    assert server.listed() == {kept[0]: sha256(kept[1])}
    assert server.content(kept[0]) == kept[1]
    assert server.status("/r/mine/simple/demo/", headers={"Accept": "text/html"}) == 200
    disk.empty()
    server.publish(filename, content)
    assert server.content(filename) == content


@pytest.mark.parametrize("reads_early", [True, False])
def test_a_disk_that_fills_up_during_a_body_is_an_answer(
    servers: Servers, root: Path, reads_early: bool
) -> None:
    server = servers.start(root, wrapper=small_disk(root))
    disk = Disk(server, root)
    kept = make_wheel()
    server.publish(*kept)
    before = disk.free

    filename, content = make_wheel(version="2.0", files={"data": os.urandom(12 * MIB)})
    head, body = upload_request(filename, content)
    with server.connect() as connection:
        connection.sendall(head + body[: 4 * MIB])
        eventually(
            lambda: sum(path.stat().st_size for path in temporary_files(disk.folder)) > 3 * MIB,
            "the first part is written",
        )
        disk.fill()
        if reads_early:
            # What does not fit is known before all has arrived, and need not be sent.
            connection.sendall(body[4 * MIB : 9 * MIB])
            status, reason, text = read_answer(connection)
        else:
            connection.sendall(body[4 * MIB :])
            received = receive_all(connection).decode()
            status, reason = int(received.split()[1]), received.splitlines()[0].split(" ", 2)[2]
            text = received.partition("\r\n\r\n")[2]
    assert (status, reason) == (507, text.strip())
    assert text == "no space left for the upload: No space left on device\n"

    # Still full: the space of the cut upload is the ballast's now.
    disk.fill()
    assert temporary_files(disk.folder) == []
    assert server.listed() == {kept[0]: sha256(kept[1])}
    assert server.content(kept[0]) == kept[1]
    disk.empty()
    assert before - disk.free < MIB
    server.publish(filename, content)
    assert server.content(filename) == content
    assert_tidy(disk.folder)


def test_a_full_disk_stops_no_reader_and_recovers_by_itself(servers: Servers, root: Path) -> None:
    server = servers.start(root, wrapper=small_disk(root))
    disk = Disk(server, root)
    kept = make_wheel(files={"data": os.urandom(100_000)})
    server.publish(*kept)
    disk.fill()
    synchronized = server.get("/r/mine/index_mtime/").text
    # Several synchronisations fail meanwhile; nobody who reads notices.
    end = time.monotonic() + 3 * INTERVAL
    while time.monotonic() < end:
        assert server.listed() == {kept[0]: sha256(kept[1])}
        assert server.content(kept[0]) == kept[1]
        assert server.status("/r/mine/simple/") == 200
        assert server.status("/r/mine/simple/unknown/") in (404, 503)
        assert server.put(*make_wheel(version="2.0")).status_code == 507
    disk.empty()
    eventually(lambda: server.get("/r/mine/index_mtime/").text > synchronized, "synchronised again")
    assert server.status("/r/mine/simple/unknown/") == 404
    server.publish(*make_wheel(version="2.0"))
    assert server.process.poll() is None


def test_a_full_storage_beside_a_root_with_space_is_an_answer(
    servers: Servers, root: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    server = servers.start(root, table(path=storage), wrapper=small_disk(storage))
    disk = Disk(server, storage)
    kept = make_wheel()
    server.publish(*kept)
    filename, content = make_wheel(version="2.0", files={"data": os.urandom(5 * MIB)})
    for leave in (0, 2 * MIB):
        disk.fill(leave=leave)
        free = disk.free
        answer = server.put(filename, content)
        assert (answer.status_code, answer.reason) == (507, answer.text.strip())
        assert answer.reason.startswith(f"cannot store {filename!r} in ")
        assert answer.reason.endswith("No space left on device")
        assert abs(disk.free - free) <= 64 * 1024
        assert server.listed() == {kept[0]: sha256(kept[1])}
        assert server.content(kept[0]) == kept[1]
        disk.empty()
    assert_tidy(root, disk.folder)
    server.publish(filename, content)
    assert server.content(filename) == content
    assert_tidy(root, disk.folder)


def test_a_file_that_cannot_be_written_whole_is_an_answer(servers: Servers, root: Path) -> None:
    server = servers.start(root)
    kept = make_wheel()
    server.publish(*kept)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (3 * MIB, resource.RLIM_INFINITY))
    filename, content = make_wheel(version="2.0", files={"data": os.urandom(8 * MIB)})
    head, body = upload_request(filename, content)
    answer = server.put(filename, content)
    assert (answer.status_code, answer.reason) == (507, answer.text.strip())
    assert answer.reason.startswith("no space left for the upload: ")
    with server.connect() as connection:
        connection.sendall(head + body)
        assert receive_all(connection).startswith(b"HTTP/1.1 507 no space left")
    assert temporary_files(root) == []
    assert_tidy(root)
    assert server.listed() == {kept[0]: sha256(kept[1])}
    server.publish(*make_wheel(version="3.0"))
    resource.prlimit(
        server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    server.publish(filename, content)
