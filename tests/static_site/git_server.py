"""Repositories of git over smart HTTP, and a folder of pages beside them, on loopback.

git itself serves the repositories (`git http-backend`), as it does on forges. What clients do with
`git+http://` is what they do with `git+https://`.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import parse_headers
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.clients.releases import Release
from tests.machine import need

_LARGEST = 16 << 20  # bytes of a request


@dataclass
class GitServer:
    """`root/git/<name>.git` are the repositories, and `root/site` are the pages."""

    root: Path
    port: int = 0
    requests: list[str] = field(default_factory=list)  # paths

    @property
    def index(self) -> str:
        return f"http://127.0.0.1:{self.port}/site/"

    def repository(self, name: str, *versions: str) -> str:
        """A repository with a package that is built from source; the tags are `v<version>`.

        Returns its address.
        """
        work = self.root / "work" / name
        work.mkdir(parents=True)
        _git("init", "--quiet", "--initial-branch=main", cwd=work)
        for version in versions:
            for path in work.glob("[!.]*"):
                path.unlink()
            _, content = Release(name=name, version=version).sdist()
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive.getmembers():
                    member.name = member.name.partition("/")[2]
                    if member.name != "PKG-INFO":  # which only sdists have
                        archive.extract(member, work)  # made by the test; Debian 12 has no filters
            _git("add", "--all", cwd=work)
            _git("commit", "--quiet", f"--message={version}", cwd=work)
            _git("tag", f"v{version}", cwd=work)
        (self.root / "git").mkdir(exist_ok=True)
        _git("clone", "--quiet", "--bare", str(work), str(self.root / "git" / f"{name}.git"))
        bare = self.root / "git" / f"{name}.git"
        # As forges do: pip asks for a clone without blobs, uv for single commits.
        for key in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
            _git("config", key, "true", cwd=bare)
        return f"http://127.0.0.1:{self.port}/git/{name}.git"

    def page(self, name: str, *lines: str) -> None:
        """A project page with these lines in its body."""
        folder = self.root / "site" / name
        folder.mkdir(parents=True, exist_ok=True)
        body = "\n".join(f"{line}<br>" for line in lines)
        (folder / "index.html").write_text(
            '<!DOCTYPE html>\n<html><head><meta name="pypi:repository-version" content="1.4">'
            f"<title>Links for {name}</title></head><body>\n{body}\n</body></html>\n"
        )

    def file(self, name: str, filename: str, content: bytes) -> None:
        """A file beside a project page."""
        folder = self.root / "site" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / filename).write_bytes(content)


@contextmanager
def git_server(root: Path) -> Iterator[GitServer]:
    """A server without repositories and pages."""
    served = GitServer(root)
    backend = need("git")

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(root))

        def do_GET(self) -> None:
            served.requests.append(self.path)
            if self.path.startswith("/git/"):
                self.answer_git()
            else:
                super().do_GET()

        def do_POST(self) -> None:
            served.requests.append(self.path)
            self.answer_git()

        def answer_git(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = self.chunks()
            else:
                body = self.rfile.read(min(length, _LARGEST))
            ended = subprocess.run(
                [backend, "http-backend"],
                input=body,
                capture_output=True,
                env={
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(root / "git"),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                    "REQUEST_METHOD": self.command,
                    "PATH_INFO": unquote(parts.path).removeprefix("/git"),
                    "QUERY_STRING": parts.query,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "REMOTE_ADDR": "127.0.0.1",
                },
                timeout=60,
            )
            answer = io.BytesIO(ended.stdout)
            headers = parse_headers(answer)
            content = answer.read()
            self.send_response(int((headers.get("Status") or "200").split()[0]))
            for name, value in headers.items():
                if name.lower() != "status":
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def chunks(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(100), 16):
                body += self.rfile.read(size)
                self.rfile.readline(10)
                assert len(body) <= _LARGEST
            self.rfile.readline(10)
            return body

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _git(*arguments: str, cwd: Path | None = None) -> None:
    subprocess.run(
        [need("git"), *arguments],
        cwd=cwd,
        check=True,
        capture_output=True,
        timeout=60,
        env={
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_AUTHOR_NAME": "Ann",
            "GIT_AUTHOR_EMAIL": "ann@code.example",
            "GIT_COMMITTER_NAME": "Ann",
            "GIT_COMMITTER_EMAIL": "ann@code.example",
        },
    )
