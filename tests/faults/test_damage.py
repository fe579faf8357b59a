"""Damaged and vanished files: what is known is served on, and trouble is never an absence."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from private_pypi.testing.distributions import form_for, make_sdist, make_wheel
from tests.faults.servers import INTERVAL, JSON, Server, Servers, assert_tidy, sha256, table
from tests.waiting import eventually

pytestmark = pytest.mark.needs("a server in a process of its own")

SOON = 3 * INTERVAL + 20  # seconds; servers take turns about an interval
PUBLIC = "https://index.example/simple/"

# -- the local index -----------------------------------------------------------------------------


def fill(server: Server) -> dict[str, str]:
    """A repository of 40 projects, one of them with a burnt name; filename -> sha256."""
    expected = {}
    for number in range(40):
        filename, content = make_wheel(f"project-{number}", "1.0")
        server.publish(filename, content)
        expected[filename] = sha256(content)
    burnt = make_wheel("project-0", "0.1")
    server.publish(*burnt)
    server.change("DELETE", f"project-0/{burnt[0]}")
    return expected


def assert_it_serves_the_truth(server: Server, expected: dict[str, str]) -> None:
    """From the first answer on: the right page, or 503; and after a while only the right pages."""
    serving: set[str] = set()

    def all_are_served() -> bool:
        for filename, digest in expected.items():
            project = filename.split("-")[0].replace("_", "-")
            answer = server.get(f"/r/mine/simple/{project}/")
            if answer.status_code == 503:
                assert int(answer.headers["Retry-After"]) > 0
                continue
            assert answer.status_code == 200, answer.text
            files = {file["filename"]: file["hashes"]["sha256"] for file in answer.json()["files"]}
            assert files == {filename: digest}
            serving.add(filename)
        assert server.status("/r/mine/simple/unknown/") in (302, 503)
        return serving == set(expected)

    eventually(all_are_served, "every page")
    eventually(lambda: server.status("/r/mine/simple/unknown/") == 302, "absences are known again")
    assert server.all_listed() == expected
    answer = server.put(*make_wheel("project-0", "0.1"))
    assert (answer.status_code, "deleted" in answer.reason) == (400, True)


def garbage_after_the_header(path: Path) -> None:
    # SQLite's magic and sizes are right, all tables are not.
    content = path.read_bytes()
    path.write_bytes(content[:100] + random.Random(2).randbytes(len(content) - 100))


def lost_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(3 * 4096, len(content), 2 * 4096):
        content[at : at + 4096] = bytes(4096)
    path.write_bytes(content)


def a_log_of_another(path: Path) -> None:
    path.with_name("index.sqlite-wal").write_bytes(random.Random(3).randbytes(100_000))


def a_folder_that_is_gone(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize(
    "damage",
    [
        # tests/index/test_local.py has more of them.
        garbage_after_the_header,
        lost_pages,
        a_log_of_another,
        a_folder_that_is_gone,
    ],
)
def test_a_damaged_local_index_is_rebuilt_and_never_served(
    servers: Servers, root: Path, damage: Callable[[Path], None]
) -> None:
    config = table(extra_index_url=PUBLIC)
    server = servers.start(root, config)
    expected = fill(server)
    assert server.stop() == 0
    index = root / "index" / "mine" / "index.sqlite"
    assert index.stat().st_size > 8 * 4096
    assert not index.with_name("index.sqlite-wal").exists()
    damage(index)
    server = servers.start(root, config)
    assert_it_serves_the_truth(server, expected)
    assert "Traceback" not in server.log


def test_caches_may_be_deleted_while_a_server_runs(servers: Servers, root: Path) -> None:
    server = servers.start(root, table(extra_index_url=PUBLIC))
    expected = fill(server)
    filename, content = make_wheel("project-1", "1.0")
    for _ in range(2):
        for folder in ("index", "cache/mine/files", "cache/mine/metadata"):
            shutil.rmtree(root / folder, ignore_errors=True)
        # Every thread looks for itself, once in a second, whether its file was replaced.
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            answer = server.get(f"/r/mine/simple/project-1/{filename}")
            assert (answer.status_code, answer.content) == (200, content) or (
                answer.status_code == 503
            )
        assert_it_serves_the_truth(server, expected)
        assert server.content(filename, "project-1") == content
        assert server.status(f"/r/mine/simple/project-1/{filename}.metadata") == 200
    wheel = make_wheel()
    server.publish(*wheel)
    assert server.content(wheel[0]) == wheel[1]
    assert server.stop() == 0
    assert "Traceback" not in server.log


# -- the index document --------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"\x00\xff garbage", b'mtime = 1\n[[pkgs]]\nsha256 = "', b""])
def test_a_damaged_document_is_trouble_and_no_absence(
    servers: Servers, root: Path, damage: bytes
) -> None:
    config = table(extra_index_url=PUBLIC)
    server = servers.start(root, config)
    kept, burnt = make_wheel(version="1.0"), make_wheel(version="0.1")
    server.publish(*kept)
    server.publish(*burnt)
    server.change("DELETE", f"demo/{burnt[0]}")
    server.change("POST", "demo/1.0/yank", reason="it burns")
    document = root / "cache" / "mine" / "storage" / "index.toml"
    sound = document.read_bytes()
    assert server.status("/r/mine/simple/unknown/") == 302

    document.write_bytes(damage)
    eventually(lambda: server.status("/r/mine/simple/unknown/") == 503, "trouble", within=SOON)
    answer = server.put(*make_wheel(version="2.0"))
    assert (answer.status_code, answer.reason) == (502, answer.text.strip())
    assert "index.toml" in answer.text
    end = time.monotonic() + 2 * INTERVAL
    while time.monotonic() < end:
        assert server.yanked() == {kept[0]: "it burns"}
        assert server.content(kept[0]) == kept[1]
        assert server.status("/r/mine/simple/unknown/") == 503
        assert server.put(*burnt).status_code == 502

    document.write_bytes(sound)
    eventually(lambda: server.status("/r/mine/simple/unknown/") == 302, "mended", within=SOON)
    server.publish(*make_wheel(version="2.0"))
    assert server.put(*burnt).status_code == 400
    assert server.yanked() == {kept[0]: "it burns", make_wheel(version="2.0")[0]: False}


def test_a_document_that_is_damaged_before_the_first_synchronisation_is_waited_for(
    servers: Servers, root: Path
) -> None:
    storage = root / "cache" / "mine" / "storage"
    filename, content = make_wheel()
    (storage / "demo").mkdir(parents=True)
    (storage / "demo" / filename).write_bytes(content)
    (storage / "index.toml").write_bytes(b"\x00\xff garbage")
    server = servers.start(root, table(extra_index_url=PUBLIC))
    for path in ("", "demo/", "unknown/", f"demo/{filename}"):
        answer = server.get(f"/r/mine/simple/{path}")
        assert answer.status_code == 503
        assert "index.toml" in answer.text
    (storage / "index.toml").unlink()
    eventually(lambda: server.status("/r/mine/simple/demo/") == 200, "ready", within=SOON)
    assert server.content(filename) == content


# -- the storage folder --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "instead"),
    [("below ROOT", "nothing"), ("elsewhere", "an empty folder"), ("elsewhere", "a file")],
)
def test_a_storage_that_vanishes_is_trouble_and_no_absence(
    servers: Servers, root: Path, tmp_path: Path, place: str, instead: str
) -> None:
    storage = root / "cache" / "mine" / "storage" if place == "below ROOT" else tmp_path / "storage"
    storage.mkdir(parents=True)
    fields = {} if place == "below ROOT" else {"path": storage}
    server = servers.start(root, table(extra_index_url=PUBLIC, **fields))
    filename, content = make_wheel()
    server.publish(filename, content)
    assert server.status("/r/mine/simple/unknown/") == 302

    away = tmp_path / "away"
    storage.rename(away)
    if instead == "an empty folder":
        storage.mkdir()
    elif instead == "a file":
        storage.touch()
    eventually(lambda: server.status("/r/mine/simple/unknown/") == 503, "trouble", within=SOON)
    end = time.monotonic() + 1.5 * INTERVAL
    while time.monotonic() < end:
        assert server.listed() == {filename: sha256(content)}
        assert server.status("/r/mine/simple/unknown/") == 503
        assert server.status(f"/r/mine/simple/demo/{filename}") == 502
        answer = server.put(*make_wheel(version="2.0"))
        assert answer.status_code == 502
        assert answer.text.startswith(answer.reason)  # which is cut where it gets long
        assert str(storage) in answer.reason
    # Nothing was begun in what is there instead, and a new server is as careful.
    if instead == "an empty folder":
        assert list(storage.iterdir()) == []
    assert server.stop() == 0
    server = servers.start(root, table(extra_index_url=PUBLIC, **fields))
    eventually(lambda: server.status("/r/mine/simple/unknown/") == 503, "trouble", within=SOON)
    assert server.listed() == {filename: sha256(content)}

    if instead == "an empty folder":
        storage.rmdir()
    elif instead == "a file":
        storage.unlink()
    away.rename(storage)
    eventually(lambda: server.status("/r/mine/simple/unknown/") == 302, "it is back", within=SOON)
    assert server.content(filename) == content
    server.publish(*make_wheel(version="2.0"))
    assert_tidy(root, storage)


# -- a root of private-pypi 0.2 ------------------------------------------------------------------


def toml_of_02(values: dict[str, str]) -> str:
    """As the library `toml` wrote it."""
    lines = []
    for key, value in values.items():
        shown = key if key.replace("_", "").isalnum() else json.dumps(key)
        lines.append(f"{shown} = {json.dumps(value)}\n")
    return "".join(lines)


def make_root_of_02(root: Path, files: list[tuple[str, bytes]]) -> None:
    """What private-pypi 0.2 left on another machine, with all that it never deleted."""
    storage = root / "cache" / "mine" / "storage"
    document = "mtime = 1594491762\n"
    for filename, content in files:
        fields = dict(form_for(filename, content))
        project = fields["name"].lower().replace("_", "-").replace(".", "-")
        meta = toml_of_02({**fields, "distrib": project, "sha256": sha256(content)})
        (storage / project).mkdir(parents=True, exist_ok=True)
        (storage / project / filename).write_bytes(content)
        (storage / project / f"{filename}.meta").write_text(meta)
        suffix = next(each for each in (".tar.gz", ".zip", ".whl") if filename.endswith(each))
        package = {
            "type": "file_system",
            "distrib": project,
            "package": filename.removesuffix(suffix),
            "ext": suffix[1:],
            "sha256": sha256(content),
            "package_path": f"/home/old/pypi/cache/mine/storage/{project}/{filename}",
        }
        document += f"\n[[pkgs]]\n{toml_of_02(package)}\n[pkgs.meta]\n{meta}"
    (storage / "index.toml").write_text(document)
    for folder in ("index/mine", "lock/mine", "log/mine", "job/mine"):
        (root / folder).mkdir(parents=True)
    (root / "index" / "mine" / "index.toml").write_text(document)
    (root / "lock" / "mine" / "index.toml.lock").touch()
    (root / "lock" / "mine" / f"{files[0][0]}.lock").touch()
    (root / "log" / "private_pypi_server.log").write_text("old\n")
    (root / "cache" / "upload-0a6f1d50-6f3c-11ea-b0d1-0242ac110002").write_bytes(files[0][1])
    (root / "cache" / "mine" / "tmp_index_KwpVqPZ3nZ9Rk4aJ7MfQ2v.toml").write_text(document)


def test_a_root_of_02_serves_as_it_is(servers: Servers, root: Path) -> None:
    files = [
        make_sdist("a", "1.0", requires_python=">=3.6"),
        make_sdist("a", "1.0", format="zip"),  # of this 0.2 died
        make_wheel("a", "1.0", requires_python=">=3.6"),
        make_wheel("Some_Thing", "2.0", extra_metadata=[("Summary", 'with "quotes" and \\')]),
    ]
    make_root_of_02(root, files)
    # As its configuration was: no field that 0.2 did not know.
    config = '[mine]\ntype = "file_system"\nread_secret = "r"\nwrite_secret = "w"\n'
    server = servers.start(root, config, flags=["--extra_index_url", PUBLIC])
    eventually(lambda: server.status("/simple/") == 200, "ready")
    expected = {filename: sha256(content) for filename, content in files}
    assert server.all_listed() == expected
    assert server.projects() == {"a", "some-thing"}
    for filename, content in files:
        project = filename.split("-")[0].replace("_", "-")
        assert server.content(filename, project) == content
    page = server.get("/simple/a/", headers=JSON).json()["files"]
    assert {(file["filename"], file.get("requires-python")) for file in page} == {
        (files[0][0], ">=3.6"),
        (files[1][0], None),
        (files[2][0], ">=3.6"),
    }
    assert server.get(f"/simple/a/{files[2][0]}.metadata").text.startswith("Metadata-Version")

    # It is a storage like any other.
    server.change("POST", f"a/{files[1][0]}/yank", reason="it burns")
    server.change("DELETE", f"a/{files[0][0]}")
    assert server.put(*files[2]).status_code == 200  # again
    assert server.put(*files[0]).status_code == 400  # burnt
    server.publish(*make_wheel("a", "2.0"))
    assert server.yanked("a") == {
        files[1][0]: "it burns",
        files[2][0]: False,
        make_wheel("a", "2.0")[0]: False,
    }
    assert server.stop() == 0
    server = servers.start(root, config)
    assert server.yanked("a")[files[1][0]] == "it burns"
    assert "Traceback" not in server.log
