"""A storage folder that others may write to: what they put there is served, refused or reported.

Nothing outside the folder is ever given away, and nothing in it stops what else is in it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web import create_app
from private_pypi.web.deployment import Deployment
from tests.permissions import under_permissions
from tests.web.conftest import MINE, OTHER, READER, WRITER, Deploy, basic, publish

FILENAME, CONTENT = make_wheel()
FILE = f"/r/mine/simple/demo/{FILENAME}"
METADATA = f"{FILE}.metadata"
JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    return deploy(MINE + OTHER, extra_index_url="https://public.example/simple/")


@pytest.fixture
def client(deployment: Deployment) -> FlaskClient:
    return create_app(deployment).test_client()


@pytest.fixture
def storage(deployment: Deployment) -> Path:
    return deployment.root / "cache" / "mine" / "storage"


@pytest.fixture
def stored(client: FlaskClient, storage: Path) -> Path:
    """Publish a file; returns where it is stored."""
    assert publish(client, FILENAME, CONTENT, path="/r/mine/").status_code == 200
    return storage / "demo" / FILENAME


def synchronize(deployment: Deployment) -> None:
    next(each for each in deployment.repositories if each.name == "mine").synchronize()


def advertised(client: FlaskClient) -> str:
    [file] = client.get("/r/mine/simple/demo/", headers=READER | JSON).get_json(force=True)["files"]
    digest: str = file["core-metadata"]["sha256"]
    return digest


def link_to_a_secret(path: Path) -> None:
    secret = path.parent / "secret"
    secret.write_bytes(b"secret")
    path.unlink()
    path.symlink_to(secret)


def other_bytes(path: Path) -> None:
    path.write_bytes(b"Name: something-else\n")


def endless(path: Path) -> None:
    os.truncate(path, 2**40)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [link_to_a_secret, other_bytes, endless, fifo, Path.unlink])
def test_core_metadata_is_what_is_advertised_whatever_lies_beside_the_file(
    damage: Callable[[Path], None], client: FlaskClient, stored: Path
) -> None:
    """It is checked before it is sent. If it differs, it is read from the file itself."""
    digest = advertised(client)
    before = client.get(METADATA, headers=READER)
    damage(Path(f"{stored}.metadata"))
    after = client.get(METADATA, headers=READER)
    assert (after.status_code, after.data) == (200, before.data)
    assert hashlib.sha256(after.data).hexdigest() == digest


def test_core_metadata_that_is_advertised_wrongly_is_not_sent(
    deployment: Deployment, client: FlaskClient, storage: Path
) -> None:
    """Records are not trusted, because everybody who can write to the storage can change them."""
    path = storage / "demo" / FILENAME
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    status, digest = path.stat(), hashlib.sha256(CONTENT).hexdigest()
    Path(f"{path}.meta").write_text(
        f"# describes {status.st_size}:{status.st_mtime_ns} sha256:{digest}\n"
        f'sha256 = "{digest}"\nsize = "{status.st_size}"\ncore_metadata_sha256 = "{"0" * 64}"\n'
    )
    secret = storage.parent / "secret"
    secret.write_bytes(b"secret")
    Path(f"{path}.metadata").symlink_to(secret)
    synchronize(deployment)
    assert advertised(client) == "0" * 64
    answer = client.get(METADATA, headers=READER)
    assert answer.status_code == 502
    assert b"secret" not in answer.data
    assert client.get(FILE, headers=READER).data == CONTENT


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-3"}])
@pytest.mark.parametrize("size", [10, len(CONTENT) + 1, 2**40])
def test_a_file_of_another_size_is_trouble(
    size: int, headers: dict[str, str], client: FlaskClient, stored: Path
) -> None:
    """The page has the hash of the old bytes, so the new ones must not be sent."""
    os.truncate(stored, size)
    answer = client.get(FILE, headers=READER | headers)
    assert (answer.status_code, "ETag" in answer.headers) == (503, False)
    assert answer.headers["Retry-After"] == "30"
    assert f"has a file of {size} bytes where the index says {len(CONTENT)}" in answer.text


@pytest.mark.parametrize("damage", [link_to_a_secret, fifo])
def test_a_published_file_that_became_something_else_is_trouble(
    damage: Callable[[Path], None], client: FlaskClient, stored: Path
) -> None:
    damage(stored)
    answer = client.get(FILE, headers=READER)
    assert (answer.status_code, "secret file" in answer.text) == (502, False)
    assert "not a file; it is not served" in answer.text


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=5-3"}, {"If-None-Match": "*"}])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_file_stays_open(
    method: str, headers: dict[str, str], client: FlaskClient, stored: Path
) -> None:
    def opened() -> list[str]:
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]  # noqa: PTH208
        return [link for link in links if os.path.realpath(link).startswith(str(stored))]

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not tell which files are open")
    for path in (FILE, METADATA):
        for _ in range(3):
            client.open(path, method=method, headers=READER | headers).close()
    assert opened() == []


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_an_index_that_is_no_file_stops_its_own_repository_only(
    make: Callable[[Path], None], client: FlaskClient, stored: Path, storage: Path
) -> None:
    """The error says why, and the old configuration stays in use."""
    (storage / "index.toml").unlink(missing_ok=True)
    make(storage / "index.toml")
    begun = time.monotonic()
    answer = publish(client, *make_wheel("second"), path="/r/mine/")
    assert answer.status_code == 502
    assert f"'{storage}/index.toml' is a" in answer.text
    assert client.delete(FILE, headers=WRITER).status_code == 502
    assert client.get(FILE, headers=READER).data == CONTENT
    others = basic("other", "other-writer")
    answer = publish(client, *make_wheel("second"), path="/r/other/", headers=others)
    assert answer.status_code == 200
    assert time.monotonic() - begun < 60  # nobody waited for a writer of the FIFO


def test_files_of_strangers_are_served_or_reported_by_name(
    deployment: Deployment,
    client: FlaskClient,
    stored: Path,
    storage: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each one is logged once, and the good files are served."""
    sdist, sdist_content = make_sdist("dropped")
    (storage / sdist).write_bytes(sdist_content)
    (storage / "cut-1.0.tar.gz").write_bytes(b"\x1f\x8b\x08")
    (storage / "linked-1.0-py3-none-any.whl").symlink_to(stored)
    os.mkfifo(storage / "piped-1.0-py3-none-any.whl")
    (storage / "folder").symlink_to(stored.parent)
    synchronize(deployment)
    reported = {record.getMessage().split(": ", 1)[1] for record in caplog.records}
    assert reported == {
        "cut-1.0.tar.gz: the archive cannot be read: Compressed file ended before the "
        "end-of-stream marker was reached",
        f"linked-1.0-py3-none-any.whl: '{storage}/linked-1.0-py3-none-any.whl' is a symbolic "
        "link, not a file; it is not served, put the file itself there",
        f"piped-1.0-py3-none-any.whl: '{storage}/piped-1.0-py3-none-any.whl' is a FIFO, not a "
        "file; it is not served, put the file itself there",
        f"'{storage}/folder' is a symbolic link; it is not followed",
    }
    assert client.get(f"/r/mine/simple/dropped/{sdist}", headers=READER).data == sdist_content
    page = client.get("/r/mine/simple/", headers=READER | JSON)
    names = [project["name"] for project in page.get_json(force=True)["projects"]]
    assert names == ["demo", "dropped"]
    caplog.clear()
    synchronize(deployment)
    assert caplog.messages == []


def test_a_linked_folder_is_no_trouble(
    deployment: Deployment, client: FlaskClient, stored: Path, storage: Path
) -> None:
    """The operator was warned of this: projects that are not in the storage are absent."""
    (storage / "folder").symlink_to(stored.parent)
    synchronize(deployment)
    answer = client.get("/r/mine/simple/unknown/", headers=READER)
    assert answer.headers["Location"] == "https://public.example/simple/unknown/"


def test_a_folder_that_cannot_be_read_stops_nothing_and_hides_nothing(
    deploy: Deploy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Known and new files are served; projects that may be in it are not reported as absent."""
    with under_permissions():
        deployment = deploy(MINE, extra_index_url="https://public.example/simple/")
        client = create_app(deployment).test_client()
        assert publish(client, FILENAME, CONTENT, path="/r/mine/").status_code == 200
        storage = tmp_path / "root" / "cache" / "mine" / "storage"
        closed = [storage / "lost+found", storage / "team"]
        for folder in closed:
            folder.mkdir()
        known, known_content = make_wheel("known")
        (storage / "team" / known).write_bytes(known_content)
        synchronize(deployment)
        for folder in closed:
            folder.chmod(0)
        new, new_content = make_wheel("new")
        (storage / new).write_bytes(new_content)
        try:
            for _ in range(2):
                synchronize(deployment)
            assert publish(client, *make_wheel("newer"), path="/r/mine/").status_code == 200
            sentence = (
                f"the folder '{storage}/team' cannot be read (Permission denied), so it is not "
                "known which files are in it: let this server read it, or move it out of the "
                "storage"
            )
            assert [m for m in caplog.messages if "storage" in m] == [
                f"mine (file_system): {sentence}"
            ]
            asked = {
                name: client.get(f"/r/mine/simple/{name}/", headers=READER).status_code
                for name in ("demo", "new", "newer", "known", "team", "never-was")
            }
            assert asked == {
                "demo": 200,
                "new": 200,
                "newer": 200,
                "known": 200,
                "team": 503,
                "never-was": 503,
            }
            assert client.get(FILE, headers=READER).data == CONTENT
            answer = client.get(f"/r/mine/simple/known/{known}", headers=READER)
            assert (answer.status_code, "Permission denied" in answer.text) == (502, True)
            health = client.get("/health/ready", headers=READER | {"Accept": "application/json"})
            assert health.status_code == 200
            [state] = health.get_json()["repositories"].values()
            assert (state["ready"], state["error"]) == (True, sentence)
            # The folder of the disk's own tools is ignored, even if it is readable.
            (storage / "team").chmod(0o755)
            synchronize(deployment)
            answer = client.get("/r/mine/simple/never-was/", headers=READER)
            assert answer.headers["Location"] == "https://public.example/simple/never-was/"
            answer = client.get(f"/r/mine/simple/known/{known}", headers=READER)
            assert answer.data == known_content
        finally:
            for folder in closed:
                folder.chmod(0o755)
