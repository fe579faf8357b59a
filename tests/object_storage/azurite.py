"""Azurite, a server that speaks like Azure Blob Storage and checks signatures.

Source: "Authorize with Shared Key", "Create Container" and "Use the Azurite emulator" of the
documentation of Azure Storage.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import requests
from obstore.store import AzureStore

from benchmarks.ports import free_port
from tests.machine import need
from tests.object_storage.running import BUCKET, Running, shared
from tests.waiting import eventually

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account that Azurite has, and its key, which its documentation gives."""

_VERSION = "2023-11-03"  # of the API


class Azurite(Running):
    """A server that is running."""

    scheme: ClassVar = "az"
    credentials: ClassVar = {"account": ACCOUNT, "account_key": KEY}

    def bucket(self, prefix: str | None = None) -> AzureStore:
        return AzureStore(
            BUCKET,
            prefix=prefix,
            endpoint=self.url,
            account_name=ACCOUNT,
            account_key=KEY,
            client_options={"allow_http": True},
        )


@contextlib.contextmanager
def running_azurite(folder: Path) -> Iterator[Azurite]:
    """The server of all workers of a run."""
    with shared(folder, "azurite", _start) as (url, at):
        yield Azurite(url, at)


def _start(at: Path) -> tuple[int, str]:
    port = free_port()
    arguments = [
        *("timeout", "--signal=KILL", "3600"),  # for a run that is killed
        str(need("azurite")),
        "--blobHost=127.0.0.1",
        f"--blobPort={port}",
        f"--location={at}",
        "--silent",
        "--disableTelemetry",
        # It would take the first part of a name like 127.0.0.1 for that of an account.
        "--disableProductStyleUrl",
    ]
    with (at / "log").open("wb") as log:
        process = subprocess.Popen(
            arguments, stdout=log, stderr=log, cwd=at, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}/{ACCOUNT}"

    def answers() -> bool:
        assert process.poll() is None, (at / "log").read_text()[-4000:]
        with contextlib.suppress(requests.ConnectionError):
            return _create_container(url) == 201
        return False

    eventually(answers, "the store has a container")
    return process.pid, url


def _create_container(url: str) -> int:
    """The status of the answer. `obstore` has no function for it."""
    headers = {
        "x-ms-date": f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S} GMT",
        "x-ms-version": _VERSION,
    }
    signed = "".join(f"{name}:{value}\n" for name, value in headers.items())
    # The method and the values of eleven headers, of which we send none.
    text = f"PUT{chr(10) * 12}{signed}/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
    digest = hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    address = f"{url}/{BUCKET}?restype=container"
    return requests.put(address, headers=headers, timeout=5).status_code
