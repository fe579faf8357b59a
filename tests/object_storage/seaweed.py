"""SeaweedFS, a server that speaks S3 and checks signatures; one for all tests of a run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
import requests
from filelock import FileLock
from obstore.store import S3Store

from benchmarks.ports import free_port
from tests.machine import need
from tests.waiting import eventually

BUCKET = "packages"
# The second may not create buckets, which SeaweedFS does by itself for somebody who may.
ADMIN = ("ADMIN-KEY", "admin-secret-key")
WRITER = ("WRITER-KEY", "writer-secret-key")
_ACTIONS = {ADMIN: ["Admin", "Read", "Write", "List"], WRITER: ["Read", "Write", "List"]}


@dataclass(frozen=True)
class Seaweed:
    """A server that is running."""

    url: str
    folder: Path

    def bucket(self, prefix: str | None = None, name: str = BUCKET) -> S3Store:
        """A bucket, to look into it and to break it."""
        return S3Store(
            name,
            prefix=prefix,
            endpoint=self.url,
            access_key_id=ADMIN[0],
            secret_access_key=ADMIN[1],
            client_options={"allow_http": True},
        )

    def keys(self, prefix: str) -> list[str]:
        """What is stored below a prefix."""
        return [each["path"] for each in obstore.list(self.bucket(prefix)).collect()]


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[Seaweed]:
    """The server of all workers of a run: the first one starts it, and the last one ends it."""
    lock = FileLock(folder / "seaweed.lock")
    state = folder / "seaweed.json"
    with lock:
        found: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {"users": 0}
        if not found["users"]:
            found = {**_start(folder), "users": 0}
        found["users"] += 1
        state.write_text(json.dumps(found))
    try:
        yield Seaweed(found["url"], Path(found["folder"]))
    finally:
        with lock:
            found = json.loads(state.read_text())
            found["users"] -= 1
            state.write_text(json.dumps(found))
            if not found["users"]:
                os.killpg(found["pid"], signal.SIGKILL)  # it takes 25 s to end by itself
                shutil.rmtree(found["folder"], ignore_errors=True)


def _start(folder: Path) -> dict[str, Any]:
    program = need("weed")
    at = folder / f"seaweed-{time.time_ns()}"
    (at / "data").mkdir(parents=True)
    config = at / "s3.json"
    identities = [
        {
            "name": key.lower(),
            "credentials": [{"accessKey": key, "secretKey": secret}],
            "actions": actions,
        }
        for (key, secret), actions in _ACTIONS.items()
    ]
    config.write_text(json.dumps({"identities": identities}))
    s3 = free_port()
    ports = {
        name: free_port()
        for name in (
            *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
            *("filer.port", "filer.port.grpc", "s3.port.grpc"),
        )
    }
    arguments = [
        *("timeout", "--signal=KILL", "3600"),  # for a run that is killed
        str(program),
        f"-logdir={at}",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={at / 'data'}",
        "-s3",
        f"-s3.port={s3}",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-volume.max=200",
        "-master.volumeSizeLimitMB=64",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    with (at / "log").open("wb") as log:
        process = subprocess.Popen(
            arguments, stdout=log, stderr=log, cwd=at, start_new_session=True
        )
    server = Seaweed(f"http://127.0.0.1:{s3}", at)

    def answers() -> bool:
        assert process.poll() is None, (at / "log").read_text()[-4000:]
        with contextlib.suppress(requests.RequestException):
            return requests.get(server.url, timeout=5).status_code == 403
        return False

    eventually(answers, "the store answers", within=120)

    def stores() -> bool:
        with contextlib.suppress(obstore.exceptions.BaseError):
            server.bucket().put("ready", b"1")
            return True
        return False

    eventually(stores, "the store has room", within=120)
    return {"pid": process.pid, "url": server.url, "folder": str(at)}
