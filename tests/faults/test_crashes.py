"""kill -9, at any moment: what was answered is there, what was not is whole or absent."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from private_pypi.testing.distributions import make_sdist, make_wheel
from tests.faults.servers import (
    Server,
    Servers,
    assert_tidy,
    get_request,
    install_backend,
    sha256,
    table,
)
from tests.waiting import eventually

pytestmark = pytest.mark.needs("a server in a process of its own")

UPLOADERS = 4


@dataclass
class Uploads:
    """Several uploaders who never rest, one who looks at everything, and what they were told."""

    server: Server
    round: int
    random: random.Random
    acknowledged: dict[str, str] = field(default_factory=dict)  # filename -> sha256
    attempted: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [
            threading.Thread(target=self._upload, args=(number,)) for number in range(UPLOADERS)
        ]
        self._threads.append(threading.Thread(target=self._look))
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive()

    def _look(self) -> None:
        looked_at: set[str] = set()
        with contextlib.suppress(requests.RequestException):  # killed
            while True:
                for filename, digest in self.server.all_listed().items():
                    if filename in looked_at or not filename.startswith("project"):
                        continue
                    looked_at.add(filename)
                    answer = self.server.get(f"/r/mine/simple/{project_of(filename)}/{filename}")
                    if (answer.status_code, sha256(answer.content)) != (200, digest):
                        self.unexpected.append(f"{filename} is listed, but {answer.status_code}")

    def _upload(self, number: int) -> None:
        for count in range(1000):
            # Some fit into one packet, some are killed while they arrive.
            size = self.random.choice([0, 0, 0, 300_000, 2_000_000])
            filename, content = make_wheel(
                f"project-{number}",
                f"{self.round}.{count}",
                files={"data": self.random.randbytes(size)},
            )
            self.attempted[filename] = sha256(content)
            try:
                answer = self.server.put(filename, content, auth=("mine", "w"))
            except requests.RequestException:
                return  # killed
            if answer.status_code != 200:
                self.unexpected.append(f"{filename}: {answer.status_code} {answer.reason}")
                return
            self.acknowledged[filename] = sha256(content)


def project_of(filename: str) -> str:
    return filename.split("-")[0].replace("_", "-")


def stored_files(storage: Path) -> dict[str, str]:
    """filename -> sha256 of the distribution files in a storage, whether or not they are listed."""
    return {path.name: sha256(path.read_bytes()) for path in storage.glob("*/*.whl")}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_server_killed_at_any_moment_keeps_what_it_acknowledged(
    servers: Servers, root: Path, seed: int
) -> None:
    moments = random.Random(seed)
    acknowledged: dict[str, str] = {}
    attempted: dict[str, str] = {}
    for round_ in range(6):
        server = servers.start(root)
        uploads = Uploads(server, round_, random.Random(f"{seed} {round_}"))
        uploads.start()
        if round_ == 5 and not acknowledged:  # the machine was too slow for that until now
            eventually(lambda uploads=uploads: uploads.acknowledged, "an upload")
        time.sleep(moments.uniform(0.01, 0.5))
        server.kill()
        uploads.join()
        assert uploads.unexpected == []
        acknowledged |= uploads.acknowledged
        attempted |= uploads.attempted
    assert acknowledged

    server = servers.start(root)
    # What was acknowledged is there at once; what was stored and not yet listed, a little later.
    assert acknowledged.items() <= server.all_listed().items()
    server.publish(*make_wheel("last"))
    storage = root / "cache" / "mine" / "storage"
    eventually(lambda: server.all_listed() == stored_files(storage), "a listing of the storage")
    listed = server.all_listed()
    assert acknowledged.items() <= listed.items()
    # A file whose answer was lost is there whole, or not at all: also its name is free again.
    assert listed.items() <= {**attempted, **server.listed("last")}.items()
    for filename, digest in listed.items():
        assert sha256(server.content(filename, project_of(filename))) == digest
    assert_tidy(root)


# A storage that ends the server at a known moment. The marker says which, and is gone afterwards.
DEADLY = '''
import os
import signal
from pathlib import Path

from private_pypi_file_system import backend as file_system
from private_pypi_file_system import records
from private_pypi_file_system.backend import FileSystemBackend, FileSystemStorage


class DeadlyStorage(FileSystemStorage):
    """The file system, and a moment to die at."""

    def _die_when(self, moment):
        marker = Path(os.environ["MARKER"])
        if marker.exists() and marker.read_text() == moment:
            marker.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    def put_file(self, upload):
        self._die_when("before it is stored")
        stored = super().put_file(upload)
        self._die_when("after it is stored")
        return stored

    def _put(self, storage, upload):
        def move_sidecars(*arguments):
            self._die_when("before its record is stored")
            records.move_sidecars(*arguments)
            self._die_when("after its record is stored")

        file_system.move_sidecars = move_sidecars
        return super()._put(storage, upload)

    def delete_file(self, file):
        self._die_when("before it is deleted")
        super().delete_file(file)

    def write_index(self, content, replaces):
        self._die_when("before the index is written")
        revision = super().write_index(content, replaces)
        self._die_when("after the index is written")
        return revision


class DeadlyBackend(FileSystemBackend):
    View = DeadlyStorage
'''


@pytest.mark.parametrize(
    ("moment", "is_there"),
    [
        ("before it is stored", False),
        ("before its record is stored", False),
        ("after its record is stored", False),
        ("after it is stored", True),
    ],
)
def test_an_upload_that_was_cut_by_a_crash_is_there_whole_or_not_at_all(
    servers: Servers, root: Path, tmp_path: Path, moment: str, is_there: bool
) -> None:
    marker = tmp_path / "marker"
    environ = install_backend(tmp_path / "site", "deadly", "DeadlyBackend", DEADLY)
    environ["MARKER"] = str(marker)
    config = table(type="deadly")
    server = servers.start(root, config, environ=environ)
    first, second = make_wheel(version="1.0"), make_wheel(version="2.0")
    server.publish(*first)

    marker.write_text(moment)
    with pytest.raises(requests.ConnectionError):
        server.put(*second)
    assert server.process.wait(timeout=60) == -signal.SIGKILL

    server = servers.start(root, config, environ=environ)
    eventually(lambda: len(server.listed()) == 1 + is_there, "what was stored whole is listed")
    expected = [first, second][: 1 + is_there]
    assert server.listed() == {name: sha256(content) for name, content in expected}
    assert_tidy(root)
    server.publish(*second)  # again, as its client will
    assert server.content(second[0]) == second[1]
    assert_tidy(root)


@pytest.mark.parametrize(
    ("moment", "is_deleted"),
    [
        ("before the index is written", False),
        ("after the index is written", True),
        ("before it is deleted", True),
    ],
)
def test_a_delete_that_was_cut_by_a_crash_holds_or_never_was(
    servers: Servers, root: Path, tmp_path: Path, moment: str, is_deleted: bool
) -> None:
    marker = tmp_path / "marker"
    environ = install_backend(tmp_path / "site", "deadly", "DeadlyBackend", DEADLY)
    environ["MARKER"] = str(marker)
    config = table(type="deadly")
    server = servers.start(root, config, environ=environ)
    filename, content = make_wheel()
    server.publish(filename, content)

    marker.write_text(moment)
    with pytest.raises(requests.ConnectionError):
        server.change("DELETE", f"demo/{filename}")
    assert server.process.wait(timeout=60) == -signal.SIGKILL

    server = servers.start(root, config, environ=environ)
    eventually(
        lambda: bool(server.listed()) is not is_deleted, f"the file is deleted: {is_deleted}"
    )
    assert server.put(filename, content).status_code == (400 if is_deleted else 200)
    assert server.status(f"/r/mine/simple/demo/{filename}") == (404 if is_deleted else 200)


FOREIGN = 300


def kept_files(index: Path) -> int:
    """How many files the local index of a server has, whether or not it shows them yet."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM files").fetchone()
    except sqlite3.OperationalError:  # it is just being made
        return 0
    return int(count)


def test_a_first_import_that_was_killed_goes_on_where_it_was(
    servers: Servers, root: Path, tmp_path: Path
) -> None:
    # Every examination is told, and takes long enough to be killed among them.
    slow = '''
import os
import time

from private_pypi_file_system.backend import FileSystemBackend, FileSystemStorage


class SlowStorage(FileSystemStorage):
    """The file system, but every file takes a moment to open."""

    def open_file(self, file):
        with open(os.environ["OPENED"], "a") as opened:
            opened.write(file.filename + "\\n")
        time.sleep(0.08)
        return super().open_file(file)


class SlowBackend(FileSystemBackend):
    View = SlowStorage
'''
    opened = tmp_path / "opened"
    environ = install_backend(tmp_path / "site", "slow", "SlowBackend", slow)
    environ["OPENED"] = str(opened)
    storage = root / "cache" / "mine" / "storage"
    dropped = {}
    for number in range(FOREIGN):
        make = make_wheel if number % 2 else make_sdist
        filename, content = make(f"project-{number % 30}", f"1.{number}")
        folder = storage / f"project-{number % 30}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / filename).write_bytes(content)
        dropped[filename] = sha256(content)
    config = table(type="slow")

    server = servers.begin(root, config, environ=environ)
    index = root / "index" / "mine" / "index.sqlite"
    eventually(lambda: kept_files(index) > 0, "the first results are kept")
    kept = kept_files(index)
    server.kill()
    opened_first = opened.read_text().split()
    assert len(opened_first) < FOREIGN
    opened.unlink()

    server = servers.start(root, config, environ=environ)
    eventually(lambda: server.status("/r/mine/simple/") == 200, "ready")
    assert server.all_listed() == dropped
    opened_again = opened.read_text().split()
    assert len(opened_again) == len(set(opened_again))
    assert kept >= 20
    assert len(opened_again) <= FOREIGN - kept
    assert set(opened_first) | set(opened_again) == set(dropped)


def test_a_server_killed_while_a_file_arrives_keeps_nothing_of_it(
    servers: Servers, root: Path, tmp_path: Path
) -> None:
    dripping = '''
import dataclasses
import os
import time
from pathlib import Path

from private_pypi.model import Stream
from private_pypi_file_system.backend import FileSystemBackend, FileSystemStorage


class DrippingStorage(FileSystemStorage):
    """The file system behind a network that drips for as long as the file DRIPS is there."""

    def open_file(self, file):
        [path] = (self.folders.cache / "storage").rglob(file.filename)
        content = path.read_bytes()

        def chunks():
            for start in range(0, len(content), 1 << 16):
                yield content[start : start + (1 << 16)]
                while start > len(content) // 2 and os.path.exists(os.environ["DRIPS"]):
                    time.sleep(0.05)

        return Stream(chunks(), len(content))


class DrippingBackend(FileSystemBackend):
    View = DrippingStorage
    traits = dataclasses.replace(
        FileSystemBackend.traits, lists_cheaply=True, opens_here=False, answers_at_once=False
    )
'''
    drips = tmp_path / "drips"
    environ = install_backend(tmp_path / "site", "dripping", "DrippingBackend", dripping)
    environ["DRIPS"] = str(drips)
    config = table(type="dripping")
    filename, content = make_wheel(files={"data": os.urandom(2 << 20)})

    server = servers.start(root, config, environ=environ)
    eventually(lambda: server.status("/r/mine/simple/") == 200, "ready")
    server.publish(filename, content)
    drips.touch()
    with server.connect() as connection:
        connection.sendall(get_request(f"/r/mine/simple/demo/{filename}"))
        received = b""
        while len(received) < 1 << 20:
            received += connection.recv(65536)
        [arriving] = root.glob("tmp/*/cache-*")
        eventually(lambda: arriving.stat().st_size > 1 << 20, "half of it is on the disk")
        server.kill()
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                received += data
    assert len(received) < len(content)
    assert list(root.glob("cache/mine/files/*/*")) == []

    drips.unlink()
    server = servers.start(root, config, environ=environ)
    assert not arriving.exists()
    eventually(lambda: server.status("/r/mine/simple/") == 200, "ready")
    assert server.content(filename) == content
    eventually(
        lambda: [path.name for path in root.glob("cache/mine/files/*/*")] == [sha256(content)],
        "it is kept",
    )
