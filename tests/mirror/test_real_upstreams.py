"""Mirrors of real servers: this project's own, and folders that web servers list."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from packaging.utils import NormalizedName

from benchmarks.ports import free_port
from private_pypi.backend import Secret, UpstreamFile
from private_pypi.errors import BackendError, ProjectNotFound
from private_pypi.model import FileHandle, Stream
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi_mirror.backend import MirrorStorage
from tests.clients.serving import Repository, running_server
from tests.machine import need
from tests.mirror.conftest import MakeMirror
from tests.waiting import eventually

WHEEL = "demo-1.0-py3-none-any.whl"
SDIST = "demo-1.0.tar.gz"
CONTENTS = dict([make_wheel("demo", "1.0"), make_sdist("demo", "1.0")])


def page(mirror: MirrorStorage) -> dict[str, UpstreamFile]:
    found = mirror.project_page("demo", "")
    assert found is not None
    assert mirror.project_page("demo", found.validator) is None or found.validator == ""
    return {file.filename: file for file in found.files}


def names(mirror: MirrorStorage) -> list[str]:
    found = mirror.project_names("")
    assert found is not None
    return list(found.names)


def handle(file: UpstreamFile) -> FileHandle:
    return FileHandle(
        project=NormalizedName("demo"),
        filename=file.filename,
        size=file.size,
        sha256=file.hashes.get("sha256"),
        location=file.url,
    )


def content(found: Any) -> bytes:
    assert isinstance(found, Stream)
    body = b"".join(found.chunks)
    assert found.size in (0, len(body))
    return body


def check_files(mirror: MirrorStorage, files: dict[str, UpstreamFile]) -> None:
    assert set(files) == set(CONTENTS)
    for filename, file in files.items():
        expected = CONTENTS[filename]
        assert content(mirror.open_file(handle(file))) == expected
        assert mirror.read_part(file.url, len(expected) - 22, 100) == expected[-22:]
        assert mirror.read_part(file.url, 5, 10) == expected[5:15]


# -- this project's server -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """A repository of a server, with two files."""
    with running_server(tmp_path_factory.mktemp("server"), 1) as (repository,):
        for filename, body in CONTENTS.items():
            repository.put(filename, body)
        yield repository


@pytest.mark.needs("another server")
def test_a_repository_of_this_project(repository: Repository, mirror_of: MakeMirror) -> None:
    mirror = mirror_of(
        repository.index_url, username=repository.name, password=Secret(repository.read_secret)
    )
    files = page(mirror)
    check_files(mirror, files)
    for filename, body in CONTENTS.items():
        assert files[filename].hashes == {"sha256": hashlib.sha256(body).hexdigest()}
        assert files[filename].size == len(body)
        assert files[filename].uploaded_at is not None
    metadata = content(mirror.open_metadata(handle(files[WHEEL])))
    assert files[WHEEL].core_metadata == {"sha256": hashlib.sha256(metadata).hexdigest()}
    assert names(mirror) == ["demo"]
    with pytest.raises(ProjectNotFound):
        mirror.project_page("missing", "")


@pytest.mark.needs("another server")
def test_a_repository_that_refuses(repository: Repository, mirror_of: MakeMirror) -> None:
    for keys in ({}, {"username": repository.name, "password": Secret("wrong")}):
        mirror = mirror_of(repository.index_url, **keys)
        with pytest.raises(BackendError, match="password_env"):
            mirror.project_page("demo", "")
        with pytest.raises(BackendError, match="password_env"):
            mirror.project_names("")


@pytest.mark.needs("another server")
def test_what_its_pages_say_in_html_is_the_same(
    repository: Repository, mirror_of: MakeMirror
) -> None:
    mirror = mirror_of(
        repository.index_url, username=repository.name, password=Secret(repository.read_secret)
    )
    in_json = page(mirror)
    answer = requests.get(
        f"{repository.index_url}demo/",
        headers={"Accept": "text/html"},
        auth=(repository.name, repository.read_secret),
        timeout=30,
    )
    from private_pypi_mirror.pages import html_page

    in_html, _ = html_page([answer.text], answer.url, needs_end=True)
    # A page in HTML has neither sizes nor upload times.
    assert [(file.filename, file.url, file.hashes, file.core_metadata) for file in in_html] == [
        (file.filename, file.url, file.hashes, file.core_metadata) for file in in_json.values()
    ]


# -- folders -------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder for each project, without pages."""
    folder = tmp_path / "tree" / "simple" / "demo"
    folder.mkdir(parents=True)
    for filename, body in CONTENTS.items():
        (folder / filename).write_bytes(body)
    (folder / "notes.txt").write_text("no package")
    return tmp_path / "tree"


def test_the_listings_of_pythons_web_server(tree: Path, mirror_of: MakeMirror) -> None:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Say nothing."""

    handler = partial(Handler, directory=str(tree))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True).start()
        mirror = mirror_of(f"http://127.0.0.1:{server.server_port}/simple/")
        files = page(mirror)
        assert {name: content(mirror.open_file(handle(files[name]))) for name in files} == CONTENTS
        assert names(mirror) == ["demo"]
        with pytest.raises(ProjectNotFound):
            mirror.project_page("missing", "")
        server.shutdown()


@contextlib.contextmanager
def running_nginx(folder: Path, tree: Path) -> Iterator[str]:
    """nginx with the tree, and with listings of the folders that have no page: its origin."""
    port = free_port()
    folder.mkdir()
    (folder / "nginx.conf").write_text(
        f"""{"user root;" if os.geteuid() == 0 else ""}  # or it could not read the folder
        daemon off;
        pid {folder}/pid;
        error_log stderr warn;
        events {{ }}
        http {{
            access_log off;
            default_type application/octet-stream;
            types {{ text/html html; }}
            client_body_temp_path {folder}/body;
            proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi;
            scgi_temp_path {folder}/scgi;
            server {{ listen 127.0.0.1:{port}; root {tree}; autoindex on; gzip on; }}
        }}
        """
    )
    command = [need("nginx"), "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"]
    process = subprocess.Popen(command, env={"PATH": os.environ["PATH"]})
    origin = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None
        with contextlib.suppress(requests.RequestException):
            requests.get(origin, timeout=5)
            return True
        return False

    try:
        eventually(answers, "nginx answers", within=60)
        yield origin
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@pytest.mark.needs("nginx")
def test_folders_and_pages_of_nginx(tree: Path, tmp_path: Path, mirror_of: MakeMirror) -> None:
    paged = tree / "pages" / "demo"
    paged.mkdir(parents=True)
    links = "".join(
        f'<a href="../../simple/demo/{name}#sha256={hashlib.sha256(body).hexdigest()}">x</a><br>'
        for name, body in CONTENTS.items()
    )
    (paged / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    with running_nginx(tmp_path / "nginx", tree) as origin:
        listed = mirror_of(f"{origin}/simple")
        files = page(listed)
        check_files(listed, files)
        assert {file.hashes.get("sha256") for file in files.values()} == {None}
        assert names(listed) == ["demo"]
        mirror = mirror_of(f"{origin}/pages/")
        files = page(mirror)
        check_files(mirror, files)
        assert {name: file.hashes["sha256"] for name, file in files.items()} == {
            name: hashlib.sha256(body).hexdigest() for name, body in CONTENTS.items()
        }
        for each in (listed, mirror):
            with pytest.raises(ProjectNotFound):
                each.project_page("missing", "")
        (paged / "index.html").write_text("<!DOCTYPE html><html><body>Welcome</body></html>")
        with pytest.raises(BackendError, match="not a page of an index"):
            mirror.project_page("demo", "")


@pytest.mark.needs("nginx")
def test_two_mirrors_of_one_tree_agree(tree: Path, tmp_path: Path, mirror_of: MakeMirror) -> None:
    links = "".join(f'<a href="{name}">{name}</a>' for name in CONTENTS)
    (tree / "simple/demo/index.html").write_text(f"<html><body>{links}</body></html>")
    folder = mirror_of((tree / "simple").as_uri())
    with running_nginx(tmp_path / "nginx", tree) as origin:
        over_http = mirror_of(f"{origin}/simple/")
        assert set(page(folder)) == set(page(over_http)) == set(CONTENTS)
        assert names(folder) == names(over_http)
