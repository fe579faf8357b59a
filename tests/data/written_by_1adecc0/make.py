"""Makes the data beside it with the code of commit 1adecc0, which may not be changed any more.

    git worktree add ../old 1adecc0
    cd ../old
    python3 -m venv .venv
    .venv/bin/pip install -r requirements/runtime.txt -r requirements/dev.txt
    .venv/bin/pip install --no-deps --editable .
    PYTHONPATH=. .venv/bin/python ../private_pypi/tests/data/written_by_1adecc0/make.py /srv/pypi

The argument is a folder that is not there yet. Its path is in what is written, as the path of a
server is; the test replaces it by its own. The same goes for the address of the fake GitHub.

A server of its own process serves four repositories: `mine` in ROOT, `shelf` in a folder of its
own, `acme` on GitHub, and `hub` whose projects are repositories on GitHub. What is done with them
is done with commands and requests, as people do it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from private_pypi.testing.distributions import encode_multipart, form_for, make_sdist, make_wheel
from tests.github.fake import FakeGitHub

HERE = Path(__file__).parent
JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
REPOSITORIES = ("mine", "shelf", "acme", "hub")
COPIED_AT = 1_700_000_000_123_456_001  # nanoseconds since 1970: a time that no float can hold

CONFIG = """\
[mine]
type = "file_system"
read_secret = "reader-of-files"
write_secret = "writer-of-files"
claimed = ["claimed-*"]
sync_index_interval = 1
extra_index_url = "https://elsewhere.example/simple/"

[shelf]
type = "file_system"
path = "{folder}/shelf"
read_secret = "reader-of-files"
write_secret = "writer-of-files"
sync_index_interval = 1
extra_index_url = "https://elsewhere.example/simple/"

[acme]
type = "github"
owner = "acme"
repo = "pkgs"
api_url = "{api_url}"
sync_index_interval = 1
extra_index_url = "https://elsewhere.example/simple/"

[hub]
type = "github_projects"
owner = "hub"
api_url = "{api_url}"
sync_index_interval = 1
extra_index_url = ""
"""
ADMIN_SECRET = """\
[acme]
type = "github"
raw = "{writer}"
"""


# Of today's tests, which work with the fake GitHub of then.
spec = importlib.util.spec_from_file_location("kept", HERE.parents[1] / "github" / "kept.py")
assert spec is not None and spec.loader is not None
kept = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kept)


class Server:
    """The server, and what one says to it."""

    def __init__(self, url: str, folder: Path, tokens: dict[str, str]) -> None:
        self.url = url
        self.folder = folder
        self.tokens = tokens

    def auth(self, repository: str) -> tuple[str, str]:
        files = repository in ("mine", "shelf")
        return repository, "writer-of-files" if files else self.tokens["writer"]

    def get(self, repository: str, path: str) -> requests.Response:
        answer = requests.get(
            f"{self.url}/r/{repository}/simple/{path}",
            headers=JSON,
            auth=self.auth(repository),
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        return answer

    def post(self, repository: str, filename: str, content: bytes) -> requests.Response:
        content_type, body = encode_multipart(form_for(filename, content), filename, content)
        return requests.post(
            f"{self.url}/r/{repository}/",
            data=body,
            headers={"Content-Type": content_type},
            auth=self.auth(repository),
            timeout=60,
        )

    def publish(self, repository: str, *files: tuple[str, bytes]) -> None:
        for filename, content in files:
            answer = self.post(repository, filename, content)
            assert answer.status_code == 200, answer.text

    def change(self, repository: str, command: str, *words: str) -> None:
        """What `private_pypi yank` and `delete` do."""
        user, password = self.auth(repository)
        run(
            command,
            f"{self.url}/r/{repository}/simple/",
            *words,
            environ={"PRIVATE_PYPI_USERNAME": user, "PRIVATE_PYPI_PASSWORD": password},
        )

    def wait_for(self, repository: str, project: str) -> None:
        deadline = time.monotonic() + 30
        while project not in {line["name"] for line in self.get(repository, "").json()["projects"]}:
            assert time.monotonic() < deadline, project
            time.sleep(0.1)


def run(*words: str | Path, environ: dict[str, str] | None = None) -> None:
    subprocess.run(
        [sys.executable, "-m", "private_pypi", *words],
        env={**os.environ, **(environ or {})},
        check=True,
    )


@contextmanager
def serving(folder: Path, github: FakeGitHub, tokens: dict[str, str]) -> Iterator[Server]:
    """Serve, with a configuration that is kept in ROOT, until the block ends; then stop cleanly."""
    log_path = folder / "server.log"
    config = CONFIG.format(folder=folder, api_url=github.api_url)
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "private_pypi", "server", folder / "root"),
                *("--config_or_admin_secret_can_be_text", "--config", config),
                *("--admin_secret", ADMIN_SECRET.format(**tokens)),
                *("--host", "127.0.0.1", "--port", "0", "--extra_index_url", ""),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        while (found := re.search(r"serves (http://\S+)", log_path.read_text())) is None:
            assert process.poll() is None, log_path.read_text()
            time.sleep(0.05)
        yield Server(found[1].rstrip("/"), folder, tokens)
    finally:
        process.send_signal(signal.SIGTERM)
        ended = process.wait(60)
    assert ended == 0


# What is done


def demo(version: str, **more: Any) -> tuple[str, bytes]:
    return make_wheel("demo", version, requires_python=">=3.9", **more)


def use_files(server: Server, repository: str, storage: Path) -> None:
    """Several projects, and everything that can happen to a file in a folder."""
    server.publish(
        repository,
        demo("1.0", extra_metadata=[("Summary", "Ein Beispiel – for tests")]),
        make_sdist("demo", "1.0", requires_python=">=3.9"),
        demo("1.1"),
        demo("1.2"),
        demo("1.3"),
        demo("2.0rc1"),
        demo("1.0+local.2"),
        make_sdist("demo", "1!0.5"),
        make_sdist("old", "0.1", metadata_version="1.1", format="zip"),
        make_wheel("Py.Tool_Kit", "2024.1", extra_metadata=[("Keywords", "tool,kit")]),
        make_wheel("gone", "1.0"),
        make_wheel("vanished", "1.0"),
        make_wheel("replaced", "1.0", requires_python=">=3.8"),
    )
    server.change(repository, "yank", "demo", "1.1", "--reason", 'broken "on" 3.13 – sorry')
    server.change(repository, "yank", "demo", "1.3")
    server.change(repository, "yank", "demo", "2.0rc1")
    server.change(repository, "unyank", "demo", "2.0rc1")
    server.change(repository, "delete", "demo", "1.2")
    server.change(repository, "delete", "gone", "1.0")
    # Somebody copies files into the folder: a new one, other bytes of the same size over one that
    # was published (its record does not describe them), and one that is no archive.
    (storage / "in-box").mkdir()
    dropped = make_wheel("dropped", "3.0", requires_python=">=3.8")
    replaced = make_wheel("replaced", "1.0", requires_python=">=3.11")
    assert len(replaced[1]) == (storage / "replaced" / replaced[0]).stat().st_size
    for path, content in (
        (storage / "in-box" / dropped[0], dropped[1]),
        (storage / "replaced" / replaced[0], replaced[1]),
        (storage / "torn-1.0.tar.gz", b"no!"),
    ):
        path.write_bytes(content)
        os.utime(path, ns=(COPIED_AT, COPIED_AT))
    server.wait_for(repository, "dropped")


def use_releases(server: Server, github: FakeGitHub) -> None:
    """What `github` can do: all projects in the releases of one repository."""
    server.publish(
        "acme",
        demo("1.0", extra_metadata=[("Summary", "Ein Beispiel – for tests")]),
        make_sdist("demo", "1.0", requires_python=">=3.9"),
        demo("1.1"),
        demo("1.2"),
        demo("1.0+local.2"),
        make_sdist("demo", "1!0.5"),
        make_wheel("Py.Tool_Kit", "2024.1"),
        make_wheel("gone", "1.0"),
        make_wheel("vanished", "1.0"),
    )
    server.change("acme", "yank", "demo", "1.1", "--reason", 'broken "on" 3.13 – sorry')
    server.change("acme", "delete", "demo", "1.2")
    server.change("acme", "delete", "gone", "1.0")
    filename, content = make_wheel("dropped", "3.0", requires_python=">=3.8")
    github.make_release("acme/pkgs", filename, {filename: content})
    server.wait_for("acme", "dropped")


def use_projects(server: Server, github: FakeGitHub) -> None:
    """What `github_projects` can do: each project in the releases of its own repository."""
    filename, content = make_wheel("demo", "0.9", requires_python=">=3.8")
    github.make_release("hub/demo", "v0.9", {filename: content})
    server.publish(
        "hub",
        demo("1.0"),
        make_sdist("demo", "1.0", requires_python=">=3.9"),
        demo("1.1"),
        demo("1.2"),
        demo("1.0+local.2"),
        make_sdist("demo", "1!0.5"),
        make_wheel("py-tool-kit", "2024.1"),
    )
    server.change("hub", "yank", "demo", "1.1", "--reason", 'broken "on" 3.13 – sorry')
    server.change("hub", "delete", "demo", "1.2")


def update_indexes(root: Path) -> None:
    for name in ("mine", "shelf", "acme"):
        run(
            *("update_index", name, "--config", root / "config.toml"),
            *("--admin_secret", root / "admin_secret.toml", "--root", root),
        )


def remove_by_hand(server: Server, github: FakeGitHub, storages: dict[str, Path]) -> None:
    """Remove a project without the server: its name is known once, and nothing of it is burnt."""
    for storage in storages.values():
        shutil.rmtree(storage / "vanished")
    [release] = [
        release
        for release in github.releases("acme/pkgs")
        if release.tag_name.startswith("vanished-")
    ]
    answer = requests.delete(
        f"{github.api_url}/repos/acme/pkgs/releases/{release.id}",
        headers={"Authorization": f"Bearer {server.tokens['writer']}"},
        timeout=60,
    )
    assert answer.status_code == 204, answer.text


# What is kept


def answers(server: Server, repository: str) -> dict[str, Any]:
    """All that a repository says: its projects, their pages, and what is in their files."""
    pages = {}
    for line in server.get(repository, "").json()["projects"]:
        page = server.get(repository, f"{line['name']}/").json()
        for file in page["files"]:
            address = f"{line['name']}/{file['filename']}"
            content = server.get(repository, address).content
            assert hashlib.sha256(content).hexdigest() == file["hashes"]["sha256"]
            assert len(content) == file["size"]
            if file.get("core-metadata"):
                metadata = server.get(repository, f"{address}.metadata").content
                sha256 = hashlib.sha256(metadata).hexdigest()
                assert file["core-metadata"] == {"sha256": sha256}
        pages[line["name"]] = page
    refused = {}
    for project, version in (("demo", "1.2"), ("gone", "1.0")):
        if repository == "hub" and project == "gone":
            continue
        filename, content = make_wheel(project, version, description="Other bytes.")
        refused[filename] = server.post(repository, filename, content).status_code
    elsewhere = {}  # where a name is looked for that has no files here
    for name in ("gone", "vanished", "claimed-thing", "never-here"):
        answer = requests.get(
            f"{server.url}/r/{repository}/simple/{name}/",
            auth=server.auth(repository),
            timeout=60,
            allow_redirects=False,
        )
        elsewhere[name] = [answer.status_code, answer.headers.get("Location")]
    return {"pages": pages, "refused": refused, "elsewhere": elsewhere}


def pack(folder: Path, names: list[str], target: Path) -> None:
    """A tar file with the times of files to the nanosecond, which records of files name."""
    with tarfile.open(target, "w:xz", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(path for name in names for path in (folder / name).rglob("*")):
            info = archive.gettarinfo(path, str(path.relative_to(folder)))
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            seconds, rest = divmod(path.lstat().st_mtime_ns, 10**9)
            info.pax_headers = {"mtime": f"{seconds}.{rest:09}"}
            if info.isreg():
                with path.open("rb") as content:
                    archive.addfile(info, content)
            else:
                archive.addfile(info)


def write_json(name: str, value: object) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True)
    (HERE / name).write_text(text + "\n", encoding="utf-8")


def main(folder: Path) -> None:
    (folder / "shelf").mkdir(parents=True)
    storages = {"mine": folder / "root/cache/mine/storage", "shelf": folder / "shelf"}
    with FakeGitHub() as github:
        github.make_repo("acme", "pkgs", private=True)
        github.make_repo("hub", "demo", private=True)
        github.make_repo("hub", "py-tool-kit", private=True)
        rights = ("acme/pkgs", "hub/demo", "hub/py-tool-kit")
        tokens = {
            "writer": github.make_token("walter", dict.fromkeys(rights, "write"), prefix="walter_")
        }
        with serving(folder, github, tokens) as server:
            for name, storage in storages.items():
                use_files(server, name, storage)
            use_releases(server, github)
            use_projects(server, github)
            update_indexes(folder / "root")
            remove_by_hand(server, github, storages)
            update_indexes(folder / "root")
            time.sleep(3)  # every repository is synchronised again
            said = {name: answers(server, name) for name in REPOSITORIES}
        api_url = github.api_url
        state = kept.state_of(github)
    write_json(
        "expected.json",
        {
            "folder": str(folder),
            "api_url": api_url,
            "token": tokens["writer"],
            "repositories": said,
        },
    )
    write_json("github.json", state)
    pack(folder, ["root", "shelf"], HERE / "folder.tar.xz")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
