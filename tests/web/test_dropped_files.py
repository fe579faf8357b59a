"""Files that were copied into the storage folder: upload times, and which are not shown."""

from __future__ import annotations

import os
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from private_pypi.backend import Secret
from private_pypi.commands.indexing import update_index
from private_pypi.distributions.records import parse_time
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web import create_app
from private_pypi.web.deployment import Deployment
from tests.web.conftest import MINE, READER, WRITER, Deploy, publish

JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
WHEEL, CONTENT = make_wheel()
LAST_YEAR = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    return deploy(MINE)


@pytest.fixture
def client(deployment: Deployment) -> FlaskClient:
    return create_app(deployment).test_client()


@pytest.fixture
def storage(deployment: Deployment) -> Path:
    path = deployment.root / "cache" / "mine" / "storage"
    path.mkdir(exist_ok=True)
    return path


def drop(path: Path, content: bytes, modified_at: datetime = LAST_YEAR) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    touch(path, modified_at)


def touch(path: Path, modified_at: datetime) -> None:
    os.utime(path, (modified_at.timestamp(), modified_at.timestamp()))


def synchronize(deployment: Deployment) -> None:
    next(iter(deployment.repositories)).synchronize()


def page(client: FlaskClient) -> Any:
    return client.get("/simple/demo/", headers=READER | JSON).get_json(force=True)


def upload_time(client: FlaskClient) -> datetime:
    (file,) = page(client)["files"]
    return parse_time(file["upload-time"])


# -- upload times ----------------------------------------------------------------------------------


def test_a_dropped_file_was_uploaded_when_it_was_last_modified(
    deployment: Deployment, client: FlaskClient, storage: Path
) -> None:
    drop(storage / WHEEL, CONTENT)
    synchronize(deployment)
    assert upload_time(client) == LAST_YEAR
    answer = client.get("/pypi/demo/json", headers=READER).get_json()
    assert answer["urls"][0]["upload_time_iso_8601"] == "2025-03-04T05:06:07.000000Z"
    feed = client.get("/rss/project/demo/releases.xml", headers=READER)
    assert "04 Mar 2025 05:06:07" in feed.text


def test_or_when_it_was_first_seen_if_that_is_earlier(
    deployment: Deployment, client: FlaskClient, storage: Path
) -> None:
    before = datetime.now(UTC)
    drop(storage / WHEEL, CONTENT, before + timedelta(days=400))
    synchronize(deployment)
    seen = upload_time(client)
    assert before <= seen <= datetime.now(UTC)
    synchronize(deployment)
    assert upload_time(client) == seen


@pytest.mark.parametrize("documented", [False, True])
def test_a_touch_a_new_local_index_and_a_publisher_do_not_move_it(
    deployment: Deployment, client: FlaskClient, storage: Path, documented: bool
) -> None:
    drop(storage / WHEEL, CONTENT)
    synchronize(deployment)
    if documented:
        rebuild(deployment)
    touch(storage / WHEEL, LAST_YEAR + timedelta(days=3))
    synchronize(deployment)
    assert upload_time(client) == LAST_YEAR
    assert publish(client, WHEEL, CONTENT).status_code == 200
    assert upload_time(client) == LAST_YEAR
    if documented:
        rebuild(deployment)
        next(iter(deployment.repositories)).index.close()
        for path in deployment.root.glob("index/mine/index.sqlite*"):
            path.unlink()
        synchronize(deployment)
        assert upload_time(client) == LAST_YEAR


def rebuild(deployment: Deployment) -> None:
    config = deployment.root / "config.toml"
    config.write_text(MINE)
    update_index("mine", config=str(config), root=str(deployment.root), environ={})


def test_other_bytes_are_another_upload(
    deployment: Deployment, client: FlaskClient, storage: Path
) -> None:
    drop(storage / WHEEL, CONTENT)
    synchronize(deployment)
    later = LAST_YEAR + timedelta(days=3)
    drop(storage / WHEEL, make_wheel(requires_python=">=3.9")[1], later)
    synchronize(deployment)
    assert upload_time(client) == later


def test_files_that_an_earlier_version_left_without_a_time_get_one(
    deployment: Deployment, client: FlaskClient, storage: Path
) -> None:
    drop(storage / WHEEL, CONTENT)
    synchronize(deployment)
    etag = client.get("/simple/demo/", headers=READER | JSON).headers["ETag"]
    (index,) = deployment.root.glob("index/mine/index.sqlite")
    with sqlite3.connect(index) as connection:
        connection.execute("UPDATE files SET uploaded_at = NULL, serial = serial + 1")
        connection.execute("UPDATE state SET serial = serial + 1")
    connection.close()
    (file,) = page(client)["files"]
    assert "upload-time" not in file
    synchronize(deployment)
    assert upload_time(client) == LAST_YEAR
    assert client.get("/simple/demo/", headers=READER | JSON).headers["ETag"] != etag


def test_a_file_under_a_restored_name_is_not_called_absent_before_the_next_look(
    deployment: Deployment, client: FlaskClient, storage: Path
) -> None:
    drop(storage / WHEEL, CONTENT)
    synchronize(deployment)
    repository = next(iter(deployment.repositories))
    assert client.delete(f"/simple/demo/{WHEEL}", headers=WRITER).status_code == 200
    drop(storage / WHEEL, CONTENT)
    assert repository.restore_name(WHEEL, Secret("writer")) == [WHEEL]
    assert client.get(f"/simple/demo/{WHEEL}", headers=READER).status_code in (200, 503)
    synchronize(deployment)
    assert client.get(f"/simple/demo/{WHEEL}", headers=READER).data == CONTENT


# -- what is not served ----------------------------------------------------------------------------


def warnings(deployment: Deployment, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    synchronize(deployment)
    return [message.split(": ", 1)[1] for message in caplog.messages]


def test_what_is_never_served_is_told_once_and_by_name(
    deployment: Deployment,
    client: FlaskClient,
    storage: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    drop(storage / "demo" / WHEEL, CONTENT)
    drop(storage / "demo-1.0-py3.9.egg", b"egg")
    drop(storage / "demo" / "demo-1.0.exe", b"installer")
    (storage / "other").mkdir()
    drop(storage / "other" / "old" / "other-1.0.tar.gz", make_sdist("other")[1])
    drop(storage / WHEEL, CONTENT + b" ")
    formats = (
        "is not served: installers take wheels (.whl) and source distributions (.tar.gz or .zip) "
        "only; build one of these"
    )
    assert sorted(warnings(deployment, caplog)) == sorted(
        [
            f"'{storage}/demo-1.0-py3.9.egg' {formats}",
            f"'{storage}/demo/demo-1.0.exe' {formats}",
            f"'{storage}/other/old/other-1.0.tar.gz' is not served: it lies two folders below the "
            f"storage; move it into '{storage}/other'",
            f"'{storage}/{WHEEL}' is not served: '{storage}/demo/{WHEEL}' has the same name, and "
            "their sizes differ; remove one of the two",
        ]
    )
    assert warnings(deployment, caplog) == []
    assert client.get(f"/simple/demo/{WHEEL}", headers=READER).data == CONTENT
    assert client.get("/simple/other/", headers=READER).status_code == 404


def test_of_many_the_first_are_named_and_the_others_counted(
    deployment: Deployment, storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(12):
        drop(storage / f"demo-{number}.0-py2.7.egg", b"egg")
    told = warnings(deployment, caplog)
    assert len(told) == 6
    assert "7 more files of other formats are not served" in told
    assert (
        sum(bool(re.search(r"demo-\d+\.0-py2\.7\.egg' is not served", line)) for line in told) == 5
    )


def test_of_two_files_with_one_name_the_same_one_is_served_every_time(
    deployment: Deployment, client: FlaskClient, storage: Path
) -> None:
    contents = {
        folder: make_wheel(requires_python=f">=3.{number}")[1]
        for number, folder in enumerate(("zoo", "Upper", "abc"), 1)
    }
    for folder, content in contents.items():
        drop(storage / folder / WHEEL, content)
    drop(storage / WHEEL, CONTENT)
    for _ in range(2):
        synchronize(deployment)
        assert client.get(f"/simple/demo/{WHEEL}", headers=READER).data == contents["abc"]
