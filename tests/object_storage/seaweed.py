"""SeaweedFS, a server that speaks S3 and checks signatures; one for all tests of a run."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import obstore
import requests
from obstore.store import S3Store

from benchmarks.ports import free_port
from tests.machine import need
from tests.object_storage.running import BUCKET, Running, shared
from tests.waiting import eventually

# The second may not create buckets, which SeaweedFS does by itself for somebody who may.
ADMIN = ("ADMIN-KEY", "admin-secret-key")
WRITER = ("WRITER-KEY", "writer-secret-key")
_ACTIONS = {ADMIN: ["Admin", "Read", "Write", "List"], WRITER: ["Read", "Write", "List"]}


class Seaweed(Running):
    """A server that is running."""

    scheme: ClassVar = "s3"
    credentials: ClassVar = {"access_key_id": WRITER[0], "secret_access_key": WRITER[1]}

    def bucket(self, prefix: str | None = None, name: str = BUCKET) -> S3Store:
        return S3Store(
            name,
            prefix=prefix,
            endpoint=self.url,
            access_key_id=ADMIN[0],
            secret_access_key=ADMIN[1],
            client_options={"allow_http": True},
        )


@contextlib.contextmanager
def running_seaweed(folder: Path) -> Iterator[Seaweed]:
    """The server of all workers of a run."""
    with shared(folder, "seaweed", _start) as (url, at):
        yield Seaweed(url, at)


def _start(at: Path) -> tuple[int, str]:
    program = need("weed")
    (at / "data").mkdir()
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
    return process.pid, server.url
