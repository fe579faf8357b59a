"""The servers that are measured: how each is filled, started and asked; measures nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote, urljoin, urlsplit

from benchmarks.corpus import Corpus, small_form
from benchmarks.load import HOST, Answer, ask, upload
from benchmarks.ports import free_port
from benchmarks.processes import Processes, plain_environment

HTML = "text/html"
JSON = "application/vnd.pypi.simple.v1+json"
CLIENT_HEADERS = {"Accept-Encoding": "gzip, deflate", "User-Agent": "benchmark"}
"""As pip and uv send them: an answer may be compressed."""

_USER = "measured"
_PASSWORD = "measured-secret"  # of a server that lives for a few minutes on loopback
_LINK = re.compile(rb'<a\s[^>]*?href="([^"]+)"', re.IGNORECASE)


class Server(ABC):
    """One server with its own folder; stopped and started as often as needed."""

    name: str
    start_limit: ClassVar[float] = 120.0  # seconds

    def __init__(self, folder: Path, tools: Path | None = None) -> None:
        """`tools` is the folder of its executables; None: they are on PATH."""
        folder.mkdir(parents=True)
        self.folder = folder
        self.port = free_port()
        self.processes: Processes | None = None
        self._tools = tools

    @abstractmethod
    def version(self) -> str:
        """As the server itself says it."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What starts it."""

    @abstractmethod
    def fill(self, corpora: Sequence[Corpus], *, limit: float) -> None:
        """Give it the files as its operator would; it does not run before, nor after.

        Raises `TimeoutError` when that takes longer than `limit` seconds.
        """

    @property
    @abstractmethod
    def simple(self) -> str:
        """The path of the index, with a slash at both ends."""

    @property
    @abstractmethod
    def uploads(self) -> str:
        """The path that takes uploads."""

    @property
    def ready(self) -> str:
        """The path of a page that shows that it answers: the index."""
        return self.simple

    @property
    def reader_headers(self) -> Mapping[str, str]:
        """The credentials of those who read."""
        return {}

    @property
    def writer_headers(self) -> Mapping[str, str]:
        """The credentials of those who publish, the cheapest that it knows."""
        return self.password_headers

    @property
    def password_headers(self) -> Mapping[str, str]:
        """The credentials of those who publish with a password."""
        return basic(_USER, _PASSWORD)

    @property
    def index_url(self) -> str:
        """What an installer is given, with credentials when it needs them."""
        login = f"{_USER}:{quote(_PASSWORD)}@" if self.reader_headers else ""
        return f"http://{login}{HOST}:{self.port}{self.simple}"

    def start(self, project: str | None) -> float:
        """Start; return the seconds until the page of a project (None: `ready`) is there."""
        begin = time.perf_counter()
        self.processes = Processes(list(self.command()), self.folder / "log")
        path = self.ready if project is None else self.page(project)
        try:
            while not self._answers(path):
                self.processes.check_alive()
                if time.perf_counter() - begin > self.start_limit:
                    raise TimeoutError(f"{self.name} had no page after {self.start_limit:.0f} s")
                time.sleep(0.003)
        except BaseException:
            self.stop()
            raise
        return time.perf_counter() - begin

    def stop(self) -> None:
        """Stop, when it runs."""
        if self.processes is not None:
            self.processes.stop()
            self.processes = None

    def get(self, path: str, *, accept: str = "*/*", **headers: str) -> Answer:
        """One GET, as a client of this server would send it."""
        return ask(self.port, path, self.headers(accept, **headers))

    def headers(self, accept: str, **more: str) -> dict[str, str]:
        """The headers of a request (`If_None_Match` for `If-None-Match`)."""
        given = {name.replace("_", "-"): value for name, value in more.items()}
        return {**CLIENT_HEADERS, **self.reader_headers, "Accept": accept, **given}

    def page(self, project: str) -> str:
        """The path of a project's page."""
        return f"{self.simple}{project}/"

    def links(self, project: str) -> list[str]:
        """The paths of the files on a project's page."""
        page = self.page(project)
        answer = ask(self.port, page, {**self.reader_headers, "Accept": HTML})
        found = [html.unescape(link.decode()) for link in _LINK.findall(answer.body)]
        return [urlsplit(urljoin(page, link)).path for link in found]

    def _answers(self, path: str) -> bool:
        try:
            return self.get(path, accept=f"{HTML}, */*;q=0.1").status == 200
        except OSError:  # it does not listen yet
            return False

    def tool(self, name: str) -> str:
        """The path of one of its executables."""
        found = shutil.which(name, path=str(self._tools) if self._tools else None)
        if found is None:
            raise FileNotFoundError(f"{name} is neither on PATH nor in --peer {self.name}=FOLDER")
        return found


class PrivatePypi(Server):
    """This checkout: one `file_system` repository, private."""

    name = "private_pypi"
    start_limit = 900.0  # the first start of a storage without index reads every file

    def __init__(
        self, folder: Path, tools: Path | None = None, *, engine: str = "waitress"
    ) -> None:
        super().__init__(folder, tools)
        self._engine = engine
        (folder / "config.toml").write_text(
            f'[{_USER}]\ntype = "file_system"\nread_secret = "reads-only"\n'
            f'write_secret = "{_PASSWORD}"\n'
        )

    def version(self) -> str:
        return version("private-pypi")

    def command(self) -> Sequence[str]:
        config = str(self.folder / "config.toml")
        command = [sys.executable, "-m", "private_pypi", "server", str(self.folder / "root")]
        command += ["--config", config, "--host", HOST, "--port", str(self.port)]
        return [*command, "--extra_index_url", "", "--engine", self._engine]

    def fill(self, corpora: Sequence[Corpus], *, limit: float) -> None:
        _fill_by_upload(self, corpora, limit=limit)

    def adopt(self, corpus: Corpus) -> float:
        """Drop the files into the storage and run `update_index`; return its seconds."""
        storage = self.folder / "root" / "cache" / _USER / "storage"
        corpus.link_into(storage)
        begin = time.perf_counter()
        command = [sys.executable, "-m", "private_pypi", "update_index", _USER]
        command += ["--config", str(self.folder / "config.toml")]
        command += ["--root", str(self.folder / "root")]
        run(command, limit=900)
        return time.perf_counter() - begin

    @property
    def simple(self) -> str:
        return f"/r/{_USER}/simple/"

    @property
    def uploads(self) -> str:
        return self.simple

    @property
    def reader_headers(self) -> Mapping[str, str]:
        return self.writer_headers


class Pypiserver(Server):
    """pypiserver with its defaults: reading is free, publishing needs a password."""

    name = "pypiserver"

    def __init__(self, folder: Path, tools: Path | None = None) -> None:
        super().__init__(folder, tools)
        digest = base64.b64encode(hashlib.sha1(_PASSWORD.encode()).digest()).decode()
        (folder / "htpasswd").write_text(f"{_USER}:{{SHA}}{digest}\n")
        (folder / "packages").mkdir()

    def version(self) -> str:
        return run([self.tool("pypi-server"), "--version"]).split()[-1]

    def command(self) -> Sequence[str]:
        command = [self.tool("pypi-server"), "run", "-i", HOST, "-p", str(self.port)]
        command += ["--disable-fallback", "-a", "update", "-P", str(self.folder / "htpasswd")]
        return [*command, str(self.folder / "packages")]

    def fill(self, corpora: Sequence[Corpus], *, limit: float) -> None:
        for corpus in corpora:
            corpus.link_into(self.folder / "packages")

    @property
    def simple(self) -> str:
        return "/simple/"

    @property
    def uploads(self) -> str:
        return "/"


class Devpi(Server):
    """devpi-server with one index, nothing behind it; publishing with a login token."""

    name = "devpi"

    def __init__(self, folder: Path, tools: Path | None = None) -> None:
        super().__init__(folder, tools)
        state, secret = str(folder / "state"), str(folder / "secret")
        run([self.tool("devpi-init"), "--serverdir", state, "--no-root-pypi"])
        run([self.tool("devpi-gen-secret"), "--secretfile", secret])
        self._token = ""
        self.start(None)
        try:
            root = self._login("root", "")
            self._put(f"/{_USER}", {"password": _PASSWORD}, root)
            self._put(f"/{_USER}/dev", self.index_settings(), root)
            self._token = self._login(_USER, _PASSWORD)
        finally:
            self.stop()

    def version(self) -> str:
        return run([self.tool("devpi-server"), "--version"]).split()[-1]

    def command(self) -> Sequence[str]:
        command = [self.tool("devpi-server"), "--host", HOST, "--port", str(self.port)]
        command += ["--serverdir", str(self.folder / "state")]
        command += ["--secretfile", str(self.folder / "secret")]
        command += ["--max-request-body-size", str(2**31)]
        return [*command, "--offline-mode", "--enable-core-metadata"]

    def fill(self, corpora: Sequence[Corpus], *, limit: float) -> None:
        _fill_by_upload(self, corpora, limit=limit)

    def index_settings(self) -> Mapping[str, object]:
        """What its index is."""
        return {"type": "stage", "bases": [], "volatile": True}

    @property
    def ready(self) -> str:
        # Before its index exists, any page at all shows that it answers.
        return self.simple if self._token else "/+api"

    @property
    def simple(self) -> str:
        return f"/{_USER}/dev/+simple/"

    @property
    def uploads(self) -> str:
        return f"/{_USER}/dev/"

    @property
    def writer_headers(self) -> Mapping[str, str]:
        """With a login token, as `devpi upload` sends it.

        From a password, as twine sends it, devpi derives a key each time.
        """
        return basic(_USER, self._token)

    def _login(self, user: str, password: str) -> str:
        content = json.dumps({"user": user, "password": password}).encode()
        answer = ask(self.port, "/+login", _JSON_BODY, method="POST", body=content)
        if answer.status != 200:
            raise RuntimeError(f"devpi refused the login of {user}: {answer.body[:300]!r}")
        return str(json.loads(answer.body)["result"]["password"])

    def _put(self, path: str, value: Mapping[str, object], token: str) -> None:
        headers = {**_JSON_BODY, **basic("root", token)}
        body = json.dumps(value).encode()
        answer = ask(self.port, path, headers, method="PUT", body=body)
        if answer.status not in (200, 201):
            raise RuntimeError(f"devpi refused PUT {path}: {answer.status} {answer.body[:300]!r}")


PEERS: Mapping[str, type[Server]] = {"pypiserver": Pypiserver, "devpi": Devpi}
EXECUTABLES: Mapping[str, str] = {"pypiserver": "pypi-server", "devpi": "devpi-server"}
_JSON_BODY = {"Content-Type": "application/json", "Accept": "application/json"}


def _fill_by_upload(server: Server, corpora: Sequence[Corpus], *, limit: float) -> None:
    end = time.monotonic() + limit
    server.start(None)
    try:
        for corpus in corpora:
            for project in corpus.projects():
                if time.monotonic() > end:
                    raise TimeoutError(f"filling {server.name} took more than {limit:.0f} s")
                forms = [
                    small_form(path.name, path.read_bytes())
                    for path in sorted((corpus.folder / project).iterdir())
                ]
                upload(server.port, server.uploads, server.writer_headers, forms, connections=4)
    finally:
        server.stop()


def basic(user: str, password: str) -> dict[str, str]:
    """The headers of a Basic login."""
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


def run(command: Sequence[str], limit: float = 120.0, *, with_errors: bool = False) -> str:
    """What a command prints; `with_errors` also what it prints as errors. Raises if it fails."""
    done = subprocess.run(
        command,
        env=plain_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit,
    )
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout[-800:]}{done.stderr[-800:]}")
    return done.stdout + (done.stderr if with_errors else "")
