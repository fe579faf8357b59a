"""What was answered with 200 survives a power cut, and nobody is told that it does not exist."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web import create_app
from tests.power import ForgetfulDisk
from tests.web import conftest
from tests.web.conftest import MINE, READER, Deploy, publish

deploy = conftest.deploy

EXTRA = "https://index.invalid/simple/"


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], ForgetfulDisk]]:
    made: list[ForgetfulDisk] = []

    def make(root: Path) -> ForgetfulDisk:
        made.append(ForgetfulDisk(root, monkeypatch))
        return made[-1]

    yield make
    for disk in made:
        disk.close()


def test_an_upload_that_was_answered_survives_a_power_cut(
    deploy: Deploy,
    forgetful: Callable[[Path], ForgetfulDisk],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, left = tmp_path / "root", tmp_path / "left"
    served = deploy(MINE, extra_index_url=EXTRA)
    client = create_app(served).test_client()
    (repository,) = served.repositories
    assert repository.wait_until_ready(30)
    disk = forgetful(root)
    first = make_wheel("demo", "1.0")
    assert publish(client, *first).status_code == 200
    repository.close()  # nobody synchronises any more

    # The local index is not synced for an upload, so it may lose all that follows.
    shutil.copytree(root / "index", tmp_path / "index")
    one_by_one = [make_wheel("demo", "2.0"), make_sdist("demo", "2.0"), make_wheel("fresh", "1.0")]
    together = [make_wheel(f"parallel-{number}", "1.0") for number in range(8)]
    acknowledged = dict([first, *one_by_one, *together])
    for filename, content in [*one_by_one, one_by_one[0]]:
        assert publish(client, filename, content).status_code == 200
    app = create_app(served)
    with ThreadPoolExecutor(8) as threads:
        answers = [
            threads.submit(publish, app.test_client(), filename, content)
            for filename, content in together
        ]
        assert [answer.result().status_code for answer in answers] == [200] * 8
    assert disk.unfinished == []
    disk.leave(left)

    stored = {path.name: path for path in left.glob("cache/mine/storage/*/*")}
    assert {name: stored[name].read_bytes() for name in acknowledged} == acknowledged
    assert all(stored[f"{name}.meta"].read_bytes() for name in acknowledged)
    lines = [json.loads(line) for line in (left / "log" / "audit.jsonl").open()]
    assert {line["files"][0]["filename"] for line in lines} == set(acknowledged)

    # The machine starts again, and the server with it.
    shutil.rmtree(left / "index")
    shutil.copytree(tmp_path / "index", left / "index")
    monkeypatch.setattr("private_pypi.index.local.boot_id", lambda: "another")
    (left / "lock" / "mine").mkdir(parents=True, exist_ok=True)
    with FileLock(left / "lock" / "mine" / "synchronize.lock"):  # the first listing has to wait
        again = deploy(MINE, root=left, extra_index_url=EXTRA)
        client = create_app(again).test_client()
        assert client.get("/simple/demo/", headers=READER).status_code == 200
        # It had this name a moment ago. The public index must not be asked about it.
        assert client.get("/simple/fresh/", headers=READER).status_code == 503
        lost = client.get(f"/simple/demo/{one_by_one[0][0]}", headers=READER)
        assert lost.status_code == 503
    (repository,) = again.repositories
    repository.synchronize()
    for filename, content in acknowledged.items():
        project = filename.partition("-")[0].replace("_", "-")
        assert client.get(f"/simple/{project}/{filename}", headers=READER).data == content
    assert client.get("/simple/unknown/", headers=READER).status_code == 302


def test_the_double_notices_what_is_not_synced(
    forgetful: Callable[[Path], ForgetfulDisk], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    disk = forgetful(root)
    (root / "folder" / "a").write_bytes(b"content")
    os.link(root / "folder" / "a", root / "b")
    assert disk.unfinished == [str(root / "b")]
    descriptor = os.open(root, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    disk.leave(tmp_path / "left")
    assert {path.name for path in (tmp_path / "left").rglob("*")} == {"folder", "b"}
    assert (tmp_path / "left" / "b").read_bytes() == b""
