"""Server processes that a test may kill, a client for them, and what they may leave on a disk."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests

from private_pypi.testing.distributions import encode_multipart, form_for
from tests.machine import WORKERS, declare

READER = ("mine", "r")
WRITER = ("mine", "w")
INTERVAL = 1  # seconds between two synchronisations of a repository
JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}

_START = 120.0  # seconds until a server must serve
_FILENAME = re.compile(r".*\.(whl|tar\.gz|zip)")


def table(name: str = "mine", *, type: str = "file_system", **fields: object) -> str:  # noqa: A002
    """A table of a configuration: secrets "r" and "w", and the fields given."""
    values = {
        "type": type,
        "read_secret": "r",
        "write_secret": "w",
        "sync_index_interval": INTERVAL,
        "extra_index_url": "",
        **{key: str(value) if isinstance(value, Path) else value for key, value in fields.items()},
    }
    # JSON values are TOML values as long as there is no null and no object.
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    return f"[{name}]\n" + "".join(f"{line}\n" for line in lines) + "\n"


@dataclass
class Server:
    """A server process, and what one says to it."""

    process: subprocess.Popen[bytes]
    root: Path
    log_path: Path
    url: str = ""

    # -- the process -----------------------------------------------------------------------------

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def kill(self) -> None:
        """As a power cut would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=60)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        self.terminate()
        return self.process.wait(timeout=120)

    def wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + _START
        while (found := re.search(r"serves (https?://\S+)", self.log)) is None:
            assert self.process.poll() is None, f"the server ended: {self.log}"
            assert time.monotonic() < deadline, f"the server does not start: {self.log}"
            time.sleep(0.01)
        self.url = found[1].rstrip("/")

    # -- requests --------------------------------------------------------------------------------

    def get(
        self,
        path: str,
        auth: tuple[str, str] | None = READER,
        *,
        headers: Mapping[str, str] = JSON,
        timeout: float = 20,
    ) -> requests.Response:
        return requests.get(
            self.url + path, auth=auth, headers=headers, timeout=timeout, allow_redirects=False
        )

    def put(
        self,
        filename: str,
        content: bytes,
        *,
        auth: tuple[str, str] = WRITER,
        form: Sequence[tuple[str, str]] | None = None,
    ) -> requests.Response:
        content_type, body = encode_multipart(
            form_for(filename, content) if form is None else form, filename, content
        )
        return requests.post(
            f"{self.url}/r/{auth[0]}/",
            data=body,
            headers={"Content-Type": content_type},
            auth=auth,
            timeout=60,
        )

    def publish(self, filename: str, content: bytes, *, auth: tuple[str, str] = WRITER) -> None:
        answer = self.put(filename, content, auth=auth)
        assert (answer.status_code, answer.reason) == (200, "OK")

    def status(self, path: str, **arguments: object) -> int:
        return self.get(path, **arguments).status_code  # type: ignore[arg-type]

    def listed(self, project: str = "demo", repository: str = "mine") -> dict[str, str]:
        """filename -> sha256 of a project's page; empty when there is none."""
        answer = self.get(f"/r/{repository}/simple/{project}/", (repository, "r"))
        if answer.status_code == 404:
            return {}
        assert answer.status_code == 200, answer.text
        return {file["filename"]: file["hashes"]["sha256"] for file in answer.json()["files"]}

    def yanked(self, project: str = "demo") -> dict[str, object]:
        files = self.get(f"/r/mine/simple/{project}/").json()["files"]
        return {file["filename"]: file["yanked"] for file in files}

    def projects(self) -> set[str]:
        answer = self.get("/r/mine/simple/")
        assert answer.status_code == 200, answer.text
        return {project["name"] for project in answer.json()["projects"]}

    def all_listed(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for project in self.projects():
            found |= self.listed(project)
        return found

    def content(self, filename: str, project: str = "demo") -> bytes:
        answer = self.get(f"/r/mine/simple/{project}/{filename}")
        assert answer.status_code == 200, answer.text
        return answer.content

    def change(self, method: str, path: str, **form: str) -> None:
        """A delete or a yank."""
        answer = requests.request(
            method, f"{self.url}/r/mine/simple/{path}", data=form, auth=WRITER, timeout=20
        )
        assert answer.status_code == 200, answer.text

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


def basic(user: str, secret: str, encoding: str = "utf-8") -> str:
    return "Basic " + b64encode(f"{user}:{secret}".encode(encoding)).decode()


def upload_request(
    filename: str,
    content: bytes,
    *,
    auth: tuple[str, str] = WRITER,
    length: int | None = None,
) -> tuple[bytes, bytes]:
    """Head and body of an upload as they go over the wire; `length` for one that is not true."""
    content_type, body = encode_multipart(form_for(filename, content), filename, content)
    head = (
        f"POST /r/{auth[0]}/legacy/ HTTP/1.1\r\n"
        "Host: localhost\r\n"
        f"Authorization: {basic(*auth)}\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n"
        "\r\n"
    )
    return head.encode(), body


def get_request(path: str, auth: tuple[str, str] = READER) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {basic(*auth)}\r\n\r\n"
    ).encode()


def read_answer(connection: socket.socket) -> tuple[int, str, str]:
    """Status, reason and text of the next answer."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.reason, answer.read().decode()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# -- starting ------------------------------------------------------------------------------------


@dataclass
class Servers:
    """Starts servers; whatever still runs at the end of a test is killed."""

    folder: Path
    _started: list[Server]
    workers: int = WORKERS

    def begin(
        self,
        root: Path,
        config: str | None = None,
        *,
        port: int = 0,
        flags: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        wrapper: Sequence[str | Path] = (),
    ) -> Server:
        """A server that may not serve yet."""
        declare("a server in a process of its own")
        number = len(self._started)
        config_path = self.folder / f"config-{number}.toml"
        config_path.write_text(table() if config is None else config, encoding="utf-8")
        log_path = self.folder / f"server-{number}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [
                    *wrapper,
                    *(sys.executable, "-m", "private_pypi", "server", root),
                    *("--config", config_path, "--host", "127.0.0.1", "--port", str(port)),
                    *("--workers", str(self.workers)),
                    *flags,
                ],
                env={**os.environ, **(environ or {})},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        server = Server(process, root, log_path)
        self._started.append(server)
        return server

    def start(self, root: Path, config: str | None = None, **arguments: object) -> Server:
        """A server that serves."""
        server = self.begin(root, config, **arguments)  # type: ignore[arg-type]
        server.wait_until_it_serves()
        return server

    def kill_all(self) -> None:
        for server in self._started:
            with contextlib.suppress(ProcessLookupError):
                server.kill()
            print(f"--- {server.log_path.name}\n{server.log}")  # shown when the test failed


@contextlib.contextmanager
def servers_below(folder: Path, workers: int = WORKERS) -> Iterator[Servers]:
    servers = Servers(folder, [], workers)
    try:
        yield servers
    finally:
        servers.kill_all()


def install_backend(folder: Path, type_: str, class_name: str, source: str) -> dict[str, str]:
    """Lay down a distribution with one backend as an installer would; the environment to use it."""
    module = f"{type_}_backend"
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[private_pypi.backends]\n{type_} = {module}:{class_name}\n"
    )
    (folder / f"{module}.py").write_text(source)
    return {"PYTHONPATH": str(folder)}


# -- what is on a disk ---------------------------------------------------------------------------


def litter(root: Path, storage: Path | None = None) -> list[str]:
    """Files below a ROOT and its storage that nothing accounts for; none when all is well.

    The folder of a server that runs is accounted for, what is in it is not.
    """
    storage = storage or root / "cache" / "mine" / "storage"
    known = [
        rf"{re.escape(str(root))}/(index/[^/]+/index\.sqlite(-wal|-shm|\.lock|\.old(-wal|-shm)?)?"
        r"|lock/[^/]+/([a-z_]+|publish-[0-9a-f]{3})\.lock|cache/[^/]+/storage_id"
        r"|tmp/[0-9]+-[0-9a-f]{8}(\.lock|/attempts\.sqlite|/log\.lock|/numbers-[0-9]+\.json)"
        r"|log/audit\.jsonl|fingerprint\.key|session_key)",
        rf"{re.escape(str(storage))}/(index\.toml|\.private_pypi/(id|lock/[^/]+))",
    ]
    found = []
    for folder in {root, storage}:
        for path in folder.rglob("*"):
            if path.is_dir() or any(re.fullmatch(each, str(path)) for each in known):
                continue
            if path.is_relative_to(storage) and ".private_pypi" not in path.parts:
                described = path.with_name(
                    path.name.removesuffix(".meta").removesuffix(".metadata")
                )
                if _FILENAME.fullmatch(described.name) and described.exists():
                    continue
            found.append(str(path))
    staged = storage / ".private_pypi" / "tmp"
    if staged.exists():
        found += [str(path) for path in staged.iterdir() if str(path) not in found]
    return sorted(set(found))


def assert_tidy(root: Path, storage: Path | None = None) -> None:
    """Nothing is left, apart from what a server is at, which is gone after a moment."""
    deadline = time.monotonic() + 30
    while left := litter(root, storage):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def temporary_files(root: Path) -> list[Path]:
    """What the servers of a ROOT have in their temporary folders."""
    return [path for path in (root / "tmp").glob("*/*") if path.name.startswith("upload-")]
