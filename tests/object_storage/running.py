"""A store that is started once for all workers of a run, and what tests know of it."""

from __future__ import annotations

import abc
import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import obstore
from filelock import FileLock
from obstore.store import AzureStore, S3Store

BUCKET: Final = "packages"  # that of each store; Azure calls it a container


@dataclass(frozen=True)
class Running(abc.ABC):
    """A store that is running."""

    scheme: ClassVar[str]
    """That of the address of a repository."""
    credentials: ClassVar[dict[str, str]]
    """The keys of a table that say who we are."""

    url: str
    """Where it is; to reach it through something else, replace this."""
    folder: Path

    @abc.abstractmethod
    def bucket(self, prefix: str | None = None) -> S3Store | AzureStore:
        """The bucket, to look into it and to break it."""

    def keys(self, prefix: str) -> list[str]:
        """What is stored below a prefix."""
        return [each["path"] for each in obstore.list(self.bucket(prefix)).collect()]


@contextlib.contextmanager
def shared(
    folder: Path, name: str, start: Callable[[Path], tuple[int, str]]
) -> Iterator[tuple[str, Path]]:
    """The address and the folder of a store; the first worker starts it, and the last one ends it.

    `start` gets the folder, and returns the group of its processes and its address.
    """
    lock = FileLock(folder / f"{name}.lock")
    state = folder / f"{name}.json"
    with lock:
        found: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {"users": 0}
        if not found["users"]:
            at = folder / f"{name}-{time.time_ns()}"
            at.mkdir()
            group, url = start(at)
            found = {"group": group, "url": url, "folder": str(at), "users": 0}
        found["users"] += 1
        state.write_text(json.dumps(found))
    try:
        yield found["url"], Path(found["folder"])
    finally:
        with lock:
            found = json.loads(state.read_text())
            found["users"] -= 1
            state.write_text(json.dumps(found))
            if not found["users"]:
                os.killpg(found["group"], signal.SIGKILL)  # SeaweedFS takes 25 s to end by itself
                shutil.rmtree(found["folder"], ignore_errors=True)
