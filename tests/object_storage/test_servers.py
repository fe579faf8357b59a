"""Server processes over one bucket, each with a ROOT of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from private_pypi.backend.object_journal import JOURNAL
from private_pypi.testing.contract.helpers import folder
from private_pypi.testing.distributions import make_wheel
from tests.clients.environments import Client, install_client
from tests.faults.servers import READER, Servers, sha256, table
from tests.object_storage.relay import relay
from tests.object_storage.running import BUCKET, Running
from tests.object_storage.seaweed import Seaweed
from tests.object_storage.servers import url_of
from tests.waiting import eventually

pytestmark = pytest.mark.needs("weed", "azurite", "pip")


def config(store: Running, prefix: str, **more: object) -> str:
    given: dict[str, object] = {
        "type": "object_storage",
        "url": url_of(store, prefix),
        "endpoint": store.url,
        **store.credentials,
    }
    return table(**{**given, **more})


def test_two_servers_show_one_bucket(
    servers: Servers, each_store: Running, prefix: str, tmp_path: Path
) -> None:
    """An upload is seen at once here and within an interval there; so are yanks and deletions."""
    text = config(each_store, prefix)
    one = servers.start(tmp_path / "one", text)
    other = servers.start(tmp_path / "other", config(each_store, prefix, download="redirect"))
    filename, content = make_wheel()
    one.publish(filename, content)
    assert one.listed() == {filename: sha256(content)}
    eventually(lambda: other.listed() == {filename: sha256(content)}, "the other one shows it")
    other.publish(filename, content)
    assert other.put(filename, content + b" ").status_code in (400, 409)

    # The other one redirects, and says itself what the file is like.
    path = f"/r/mine/simple/demo/{filename}"
    assert one.content(filename) == content
    redirected = other.get(path)
    assert redirected.status_code == 302
    fetched = requests.get(redirected.headers["Location"], timeout=20)
    assert fetched.content == content
    assert fetched.headers["Content-Disposition"] == f'attachment; filename="{filename}"'
    head = requests.head(other.url + path, auth=READER, timeout=20)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(content)))
    assert other.get(f"{path}.metadata").status_code == 200
    pip = Client("pip", install_client("pip"), folder(tmp_path))
    index = other.url.replace("://", f"://{READER[0]}:{READER[1]}@") + "/r/mine/simple/"
    downloaded = pip.run("download", "--no-deps", "--index-url", index, "--dest", ".", "demo")
    assert (pip.home / filename).read_bytes() == content, downloaded.output

    one.change("POST", f"demo/{filename}/yank", reason="broken")
    eventually(lambda: other.yanked() == {filename: "broken"}, "the other one shows the yank")
    command = ["private_pypi", "update_index", "mine", "--config", tmp_path / "config-0.toml"]
    updated = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert updated.stdout == "mine: 0 added, 0 removed, 1 unchanged\n", updated.stderr
    one.change("DELETE", f"demo/{filename}")
    eventually(lambda: other.listed() == {}, "the other one has noticed the deletion")
    assert other.put(filename, content).status_code == 400
    kept = [key for key in each_store.keys(prefix) if key.startswith(("demo/", JOURNAL))]
    assert kept == []


def test_a_server_over_a_bucket_that_is_not_there_says_so(
    servers: Servers, each_store: Running, tmp_path: Path
) -> None:
    """It answers nothing, rather than that there is nothing."""
    text = config(each_store, "x").replace(f"://{BUCKET}/", "://no-such-bucket/")
    server = servers.start(tmp_path / "root", text)
    eventually(lambda: "could not be synchronised" in server.log, "it has tried")
    assert server.status("/r/mine/simple/demo/") == 503
    for secret in each_store.credentials.values():
        assert secret not in server.log


def test_a_slow_store_and_one_that_hangs_delay_only_what_needs_them(
    servers: Servers, seaweed: Seaweed, prefix: str, tmp_path: Path
) -> None:
    """Pages and files that are known are answered meanwhile, and what hung goes on afterwards."""
    goes_on = threading.Event()
    goes_on.set()
    seconds = 0.0  # that everything sent to the store is late

    def late(data: bytes) -> bytes:
        time.sleep(seconds)
        goes_on.wait(60)
        return data

    def answers_meanwhile(upload: Future[int]) -> int:
        """How many requests were answered before the upload was."""
        count = 0
        while not upload.done() and count < 20:
            begun = time.monotonic()
            assert one.listed()[known[0]] == sha256(known[1])
            assert one.content(known[0]) == known[1]
            assert one.get("/health/").status_code == 200
            assert time.monotonic() - begun < 30  # of a busy machine; what hangs does so for 60
            count += 1
        return count

    known, slow, hung = (make_wheel(version=f"{number}.0") for number in (1, 2, 3))
    with relay(seaweed.url, late) as between, ThreadPoolExecutor(1) as pool:
        one = servers.start(tmp_path / "one", config(seaweed, prefix, endpoint=between.url))
        one.publish(*known)
        assert one.content(known[0]) == known[1]  # it is in the cache from now on
        seconds = 0.3
        upload = pool.submit(lambda: one.put(*slow).status_code)
        assert answers_meanwhile(upload) > 0
        assert upload.result(60) == 200
        seconds = 0.0
        goes_on.clear()
        try:
            upload = pool.submit(lambda: one.put(*hung).status_code)
            assert answers_meanwhile(upload) == 20
            assert not upload.done()
        finally:
            goes_on.set()
        assert upload.result(60) == 200
