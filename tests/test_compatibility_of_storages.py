"""What an earlier commit wrote on disk and on GitHub is opened by the code of today, unchanged.

`data/written_by_1adecc0` was written by a server of that commit; its `make.py` shows how. A server
of today serves it in a process of its own, and is asked over HTTP and by commands only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from private_pypi.testing.distributions import make_wheel
from tests.faults.servers import JSON, Server
from tests.github.fake import FakeGitHub
from tests.github.kept import restore, restore_token, state_of
from tests.waiting import eventually

pytestmark = pytest.mark.needs("a server in a process of its own")

WRITTEN = Path(__file__).parent / "data" / "written_by_1adecc0"
EXPECTED = json.loads((WRITTEN / "expected.json").read_text(encoding="utf-8"))

IN_FOLDERS = ("mine", "shelf")
SYNCHRONIZED = (*IN_FOLDERS, "acme")
REPOSITORIES = (*SYNCHRONIZED, "hub")
DELETED = "demo-1.2-py3-none-any.whl"  # from every repository
COPIED = ("dropped", "replaced")  # projects whose file somebody copied into the storage
COPIED_AT = "2023-11-14T22:13:20.123456Z"

# What ROOT is to keep.
KEPT = ("config.toml", "admin_secret.toml", "session_key", "fingerprint.key", "log/audit.jsonl")

WAYS = {
    "where it was": "the new version is installed, and everything is where it was",
    "moved": "ROOT and the storage folders were put to another place, and only the configuration "
    "was told",
    "new ROOT": "the storages and the configuration are all that is left",
    "indexed again": "the same, and update_index of today wrote the index documents",
    "without documents": "the same, and the index documents are lost as well",
}


@dataclass
class Place:
    """A copy of what was written, for one test to work on."""

    folder: Path
    github: FakeGitHub

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def storage(self, repository: str) -> Path:
        return (
            self.root / "cache" / "mine" / "storage"
            if repository == "mine"
            else self.folder / repository
        )

    def state(self) -> dict[str, Any]:
        """All that is in the storages: of files the bytes, the time and the mode."""
        return {
            **{name: files_below(self.storage(name)) for name in IN_FOLDERS},
            "github": state_of(self.github),
        }


@contextmanager
def place(folder: Path, way: str) -> Iterator[Place]:
    """What was written, laid out in one of the `WAYS`."""
    text = (WRITTEN / "github.json").read_text(encoding="utf-8")
    with FakeGitHub() as github:
        # GitHub keeps its address, and the fake one has another port each time.
        address = {EXPECTED["api_url"]: github.api_url}
        restore(github, json.loads(text.replace(EXPECTED["api_url"], github.api_url)))
        restore_token(github, EXPECTED["token"], "walter")
        unpack(WRITTEN / "folder.tar.xz", folder)
        path_of_folder = {EXPECTED["folder"]: str(folder)}
        replace_texts(folder / "root" / "config.toml", address | path_of_folder)
        if way in ("where it was", "moved"):
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    replace_texts(path, address if way == "moved" else address | path_of_folder)
        else:
            forget_all_but_storages(folder / "root")
        made = Place(folder, github)
        if way == "indexed again":
            for name in SYNCHRONIZED:
                update_index(made, name)
        if way == "without documents":
            for name in IN_FOLDERS:
                (made.storage(name) / "index.toml").unlink()
            github.commit("acme/pkgs", "index.toml", None)
        yield made


def unpack(archive: Path, folder: Path) -> None:
    """Restore files with their modes, and their times to the nanosecond."""
    times = {}
    with tarfile.open(archive) as members:
        for member in members:
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = members.extractfile(member)
            if content is None:
                path.mkdir()
            else:
                path.write_bytes(content.read())
            path.chmod(member.mode)
            seconds, _, rest = member.pax_headers["mtime"].partition(".")
            times[path] = int(seconds) * 10**9 + int(rest)
    for path, nanoseconds in reversed(times.items()):  # folders after what is in them
        os.utime(path, ns=(nanoseconds, nanoseconds))


def replace_texts(path: Path, replaced: Mapping[str, str]) -> None:
    """Replace texts in a file or in all values of a database; the time of the file stays."""
    status = path.stat()
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as database, database:
            replace_in_database(database, replaced)
    else:
        before = content = path.read_bytes()
        for old, new in replaced.items():
            content = content.replace(old.encode(), new.encode())
        if content != before:
            path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_in_database(database: sqlite3.Connection, replaced: Mapping[str, str]) -> None:
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        columns = database.execute(f"PRAGMA table_info({table})").fetchall()
        for column in (name for _, name, *_ in columns):
            for old, new in replaced.items():
                database.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                    f" WHERE typeof({column}) = 'text' AND instr({column}, ?)",
                    (old, new, old),
                )


def forget_all_but_storages(root: Path) -> None:
    for path in root.iterdir():
        if path.is_dir() and path.name != "cache":
            shutil.rmtree(path)
        elif path.name.endswith(("_key", ".key")):
            path.unlink()
    for path in (root / "cache").glob("*/*"):
        if path != root / "cache" / "mine" / "storage":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def files_below(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Files by their paths, each with its hash, time and mode; folders with their mode only."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[f"{name}/"] = ("", 0, status.st_mode)
        else:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = (sha256, status.st_mtime_ns, status.st_mode)
    return found


# The server, and what it says


def auth_for(repository: str) -> tuple[str, str]:
    secret = "writer-of-files" if repository in IN_FOLDERS else EXPECTED["token"]
    return repository, secret


@contextmanager
def serving(place: Place) -> Iterator[Server]:
    """A server with the configuration that is in ROOT, until the block ends."""
    log_path = place.folder / "server.log"
    words = ["server", str(place.root), "--host", "127.0.0.1", "--port", "0"]
    words += ["--extra_index_url", "", "--request_log", "false"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "private_pypi", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = Server(process, place.root, log_path)
    try:
        server.wait_until_it_serves()
        yield server
        assert server.stop() == 0
    finally:
        if process.poll() is None:
            server.kill()
        print(server.log)  # shown when the test failed
    assert "Traceback" not in server.log


def wait_for_synchronisations(server: Server) -> None:
    """Every repository was synchronised anew, and then once more."""
    since = time.time()

    def all_are_later() -> bool:
        times = [server.get(f"/r/{name}/index_mtime/", auth_for(name)) for name in SYNCHRONIZED]
        return all(int(answer.text) > since + 2 for answer in times)

    eventually(all_are_later, "every repository is synchronised")


def command(*words: str | Path, environ: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "private_pypi", *words],
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def update_index(place: Place, name: str) -> None:
    command(
        *("update_index", name, "--config", place.root / "config.toml"),
        *("--admin_secret", place.root / "admin_secret.toml", "--root", place.root),
    )


def change(server: Server, repository: str, name: str, *words: str) -> None:
    """Yank or delete with the command."""
    user, password = auth_for(repository)
    environ = {"PRIVATE_PYPI_USERNAME": user, "PRIVATE_PYPI_PASSWORD": password}
    command(name, f"{server.url}/r/{repository}/simple/", *words, environ=environ)


def page_of(server: Server, repository: str, project: str) -> dict[str, Any]:
    answer = server.get(f"/r/{repository}/simple/{project}/", auth_for(repository))
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def projects_of(server: Server, repository: str) -> list[str]:
    answer = server.get(f"/r/{repository}/simple/", auth_for(repository), headers=JSON)
    assert answer.status_code == 200, answer.text
    return [project["name"] for project in answer.json()["projects"]]


@dataclass
class Said:
    """What a repository says of itself: its list of projects, pages, and hashes of contents."""

    projects: list[str]
    pages: dict[str, dict[str, Any]]
    contents: dict[str, str] = field(default_factory=dict)  # of files and their core metadata
    elsewhere: dict[str, list[Any]] = field(default_factory=dict)  # name -> status, Location


def all_of(server: Server, repository: str) -> Said:
    projects = projects_of(server, repository)
    said = Said(projects, {name: page_of(server, repository, name) for name in projects})
    for project, page in said.pages.items():
        for file in page["files"]:
            names = [file["filename"]]
            if file.get("core-metadata"):
                names.append(f"{file['filename']}.metadata")
            for name in names:
                path = f"/r/{repository}/simple/{project}/{name}"
                answer = server.get(path, auth_for(repository))
                assert answer.status_code == 200, answer.text
                said.contents[name] = hashlib.sha256(answer.content).hexdigest()
    for name in EXPECTED["repositories"][repository]["elsewhere"]:
        answer = server.get(f"/r/{repository}/simple/{name}/", auth_for(repository))
        said.elsewhere[name] = [answer.status_code, answer.headers.get("Location")]
    return said


def comparable(page: Mapping[str, Any]) -> dict[str, Any]:
    """A page without its serial, and without times that an earlier version did not know.

    That is the time of a file that was published without a server. Folders tell it now; for the
    type `github` it is that of the first `update_index`.
    """
    meta = {key: value for key, value in page["meta"].items() if key != "_last-serial"}
    files = [
        {key: value for key, value in file.items() if key != "upload-time"}
        if page["name"] in COPIED
        else file
        for file in page["files"]
    ]
    return {**page, "meta": meta, "files": files}


def without_yanks(pages: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {**page, "files": [{**file, "yanked": False} for file in page["files"]]}
        for name, page in pages.items()
    }


# Reading


@dataclass
class Opened:
    """What came of opening a place and looking at all of it, while it was synchronised twice."""

    way: str
    said: dict[str, Said]
    before: dict[str, Any]
    after: dict[str, Any]
    kept_before: dict[str, bytes]
    kept_after: dict[str, bytes]


@pytest.fixture(scope="module", params=WAYS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    def kept(root: Path) -> dict[str, bytes]:
        return {name: (root / name).read_bytes() for name in KEPT if (root / name).exists()}

    with place(tmp_path_factory.mktemp("written"), request.param) as made:
        before, kept_before = made.state(), kept(made.root)
        with serving(made) as server:
            at_first = {name: all_of(server, name) for name in REPOSITORIES}
            wait_for_synchronisations(server)
            said = {name: all_of(server, name) for name in REPOSITORIES}
        assert at_first == said
        return Opened(request.param, said, before, made.state(), kept_before, kept(made.root))


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_every_page_is_as_it_was(opened: Opened, repository: str) -> None:
    expected = EXPECTED["repositories"][repository]["pages"]
    found = opened.said[repository].pages
    assert found.keys() == expected.keys()
    if opened.way == "without documents" and repository in IN_FOLDERS:
        expected = without_yanks(expected)  # which nothing else notes in a folder
    for project, page in expected.items():
        assert comparable(found[project]) == comparable(page)
        # Mirrors ask for what is newer than the serial that they saw last.
        assert found[project]["meta"]["_last-serial"] >= page["meta"]["_last-serial"]


@pytest.mark.parametrize("project", COPIED)
@pytest.mark.parametrize("repository", IN_FOLDERS)
def test_a_file_that_was_copied_into_a_folder_has_a_time_now(
    opened: Opened, repository: str, project: str
) -> None:
    [then] = EXPECTED["repositories"][repository]["pages"][project]["files"]
    [now] = opened.said[repository].pages[project]["files"]
    assert "upload-time" not in then
    assert now["upload-time"] == COPIED_AT


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_names_are_looked_for_where_they_were(opened: Opened, repository: str) -> None:
    expected = EXPECTED["repositories"][repository]["elsewhere"]
    # Without documents nothing tells any more that these were here once.
    lost = {"gone", "vanished"} if opened.way == "without documents" else set()
    for name in expected.keys() - lost:
        assert opened.said[repository].elsewhere[name] == expected[name], name


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_nothing_is_listed_twice(opened: Opened, repository: str) -> None:
    said = opened.said[repository]
    names = [file["filename"] for page in said.pages.values() for file in page["files"]]
    assert Counter(said.projects).most_common(1)[0][1] == 1
    assert Counter(names).most_common(1)[0][1] == 1
    assert DELETED not in names


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_contents_have_the_hashes_that_they_had(opened: Opened, repository: str) -> None:
    expected = {}
    for page in EXPECTED["repositories"][repository]["pages"].values():
        for file in page["files"]:
            expected[file["filename"]] = file["hashes"]["sha256"]
            if file.get("core-metadata"):
                expected[f"{file['filename']}.metadata"] = file["core-metadata"]["sha256"]
    assert opened.said[repository].contents == expected


@pytest.mark.parametrize("storage", [*IN_FOLDERS, "github"])
def test_reading_writes_nothing_in_a_storage(opened: Opened, storage: str) -> None:
    assert opened.after[storage] == opened.before[storage]


def test_root_keeps_its_configuration_keys_and_audit(opened: Opened) -> None:
    assert opened.kept_before.keys() >= {"config.toml", "admin_secret.toml"}
    for name, content in opened.kept_before.items():
        assert opened.kept_after[name] == content, name


# Writing


@pytest.mark.parametrize("way", ["where it was", "new ROOT"])
def test_everything_can_be_changed(way: str, tmp_path: Path) -> None:
    with place(tmp_path, way) as made:
        with serving(made) as server:
            for repository in REPOSITORIES:
                # Before version 1.0 was finished, github_projects noted deletions in ROOT alone.
                if (repository, way) != ("hub", "new ROOT"):
                    refuses_deleted_names(server, repository)
                takes_a_new_file(server, repository)
                takes_no_other_bytes(server, repository)
                change(server, repository, "unyank", "demo", "1.1")
                change(server, repository, "yank", "demo", "1.0", "--reason", "why not")
                change(server, repository, "delete", "demo", "1.0+local.2")
            wait_for_synchronisations(server)
            for repository in REPOSITORIES:
                shows_the_changes(server, repository)
        with serving(made) as server:
            for repository in REPOSITORIES:
                shows_the_changes(server, repository)


def test_deleted_names_can_be_restored(tmp_path: Path) -> None:
    filename, content = make_wheel("demo", "1.2", description="Other bytes.")
    with place(tmp_path, "where it was") as made:
        for repository in REPOSITORIES:
            words = () if repository in IN_FOLDERS else ("--secret_env", "SECRET")
            environ = {"SECRET": auth_for(repository)[1]}
            command("restore_name", made.root, repository, filename, *words, environ=environ)
        with serving(made) as server:
            for repository in REPOSITORIES:
                server.publish(filename, content, auth=auth_for(repository))
                assert by_filename(server, repository)[filename]["size"] == len(content)


def by_filename(server: Server, repository: str) -> dict[str, dict[str, Any]]:
    """The files on the page of `demo`, each of which is there once."""
    files = page_of(server, repository, "demo")["files"]
    found = {file["filename"]: file for file in files}
    assert len(found) == len(files)
    return found


def refuses_deleted_names(server: Server, repository: str) -> None:
    for filename, status in EXPECTED["repositories"][repository]["refused"].items():
        project, version, *_ = filename.split("-")
        other = make_wheel(project, version, description="Other bytes.")
        answer = server.put(*other, auth=auth_for(repository))
        assert (answer.status_code, other[0]) == (status, filename)
        assert "previously used by a file that has since been deleted" in answer.text


def takes_a_new_file(server: Server, repository: str) -> None:
    before = by_filename(server, repository)
    filename, content = make_wheel("demo", "3.0", requires_python=">=3.12")
    for _ in range(2):  # the same again changes nothing
        server.publish(filename, content, auth=auth_for(repository))
        after = by_filename(server, repository)
        added = after.pop(filename)
        assert added["hashes"] == {"sha256": hashlib.sha256(content).hexdigest()}
        assert added["requires-python"] == ">=3.12"
        assert after == before


def takes_no_other_bytes(server: Server, repository: str) -> None:
    before = by_filename(server, repository)
    other = make_wheel("demo", "1.1", description="Other bytes.")
    assert server.put(*other, auth=auth_for(repository)).status_code == 409
    assert by_filename(server, repository) == before


def shows_the_changes(server: Server, repository: str) -> None:
    expected = {
        file["filename"]: file["yanked"]
        for file in EXPECTED["repositories"][repository]["pages"]["demo"]["files"]
    }
    del expected["demo-1.0+local.2-py3-none-any.whl"]
    expected |= {
        "demo-1.1-py3-none-any.whl": False,
        "demo-1.0-py3-none-any.whl": "why not",
        "demo-1.0.tar.gz": "why not",
        "demo-3.0-py3-none-any.whl": False,
    }
    found = by_filename(server, repository)
    assert {filename: file["yanked"] for filename, file in found.items()} == expected
    other = make_wheel("demo", "1.0+local.2", description="Other bytes.")
    assert server.put(*other, auth=auth_for(repository)).status_code == 400
