"""The contract of storages that several processes use, some of which may be killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from private_pypi.model import StoredFile
from private_pypi.testing.contract.base import StorageContract
from private_pypi.testing.contract.helpers import (
    content_of,
    folder,
    make_upload,
    outcome,
    published,
)


class ProcessesContract(StorageContract):
    """A storage that several processes can use. `place` must be picklable."""

    def test_two_processes_share_only_the_storage(self, place: Any, tmp_path: Path) -> None:
        """If two servers publish the same names, one succeeds for each, with all its data."""
        names = [f"demo-{number}.tar.gz" for number in range(10)]
        with contextlib.ExitStack() as stack:
            children = [
                stack.enter_context(
                    child_process(put_all, type(self), place, folder(tmp_path), names, text)
                )
                for text in ("from the first", "from the second")
            ]
            for child in children:
                assert child.receive() == "ready"
            for child in children:
                child.send("go")
            results = [child.receive() for child in children]
        assert [sorted(pair) for pair in zip(*results, strict=True)] == [
            ["FileAlreadyExists", "stored"]
        ] * len(names)
        storage = self.open_another(place, tmp_path)
        listed = self.listing(storage, *names)
        assert set(listed) == set(names)
        for number, name in enumerate(names):
            text = "from the first" if results[0][number] == "stored" else "from the second"
            upload = make_upload(tmp_path, name, text.encode(), {"keywords": text})
            assert listed[name].record == self.record_of(upload)
            file = published(upload, listed[name])
            assert content_of(storage.open_file(file)) == text.encode()

    def test_a_writer_that_is_killed_leaves_a_whole_file_or_none(
        self, place: Any, tmp_path: Path
    ) -> None:
        """No incomplete file is visible, the next writer succeeds, and a sweep removes the rest."""
        chance = random.Random(1)
        content = bytes(range(256)) * 4096
        names = [f"demo-{number}.tar.gz" for number in range(200)]
        told: set[str] = set()
        for _ in range(6):
            arguments = (type(self), place, folder(tmp_path), names, content)
            with child_process(put_until_killed, *arguments) as child:
                assert child.receive() == "ready"
                time.sleep(chance.uniform(0, 0.1))
                child.kill()
                told |= child.received()
        storage = self.open_another(place, tmp_path)
        listed = {file.filename: file for file in self.listed(storage)}
        assert told <= set(listed) <= set(names)
        upload = make_upload(tmp_path, names[0], content)
        for name, stored in listed.items():
            file = replace(published(upload, stored), filename=name)
            assert content_of(storage.open_file(file)) == content
            self.check_core_metadata(storage, replace(upload, file=file), stored)
        self.sweep(storage)
        assert list(self.leftovers(place)) == []
        for name in names[: len(listed) + 2]:
            storage.put_file(make_upload(tmp_path, name, content))


class Child:
    """A child process that exchanges messages with the test, and can be killed."""

    def __init__(self, process: SpawnProcess, connection: Connection) -> None:
        self._process = process
        self._connection = connection

    def send(self, message: object) -> None:
        self._connection.send(message)

    def receive(self) -> Any:
        """The next message; an error if there is none for a minute."""
        assert self._connection.poll(60), "the child process does not answer"
        return self._connection.recv()

    def kill(self) -> None:
        """End the child with SIGKILL, so that it cannot clean up."""
        self._process.kill()
        self._process.join()

    def received(self) -> set[Any]:
        """All messages that the child sent before it ended."""
        messages = set()
        with contextlib.suppress(EOFError, OSError):
            while True:
                messages.add(self._connection.recv())
        return messages


@contextlib.contextmanager
def child_process(target: Callable[..., None], *arguments: Any) -> Iterator[Child]:
    """Run `target(connection, *arguments)` in a new process, which ends with the context."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments))
    process.start()
    theirs.close()
    try:
        yield Child(process, ours)
        process.join(60)
    finally:
        process.kill()
        process.join()
        ours.close()


def put_all(
    connection: Connection,
    contract: type[StorageContract],
    place: Any,
    tmp_path: Path,
    names: Sequence[str],
    text: str,
) -> None:
    """In a child process: publish a file under every name, and send the outcomes."""
    storage = contract().open_another(place, tmp_path)
    uploads = [make_upload(tmp_path, name, text.encode(), {"keywords": text}) for name in names]
    connection.send("ready")
    connection.recv()
    results = [outcome(storage.put_file, upload) for upload in uploads]
    connection.send(
        [
            "stored" if isinstance(result, StoredFile) else type(result).__name__
            for result in results
        ]
    )


def put_until_killed(
    connection: Connection,
    contract: type[StorageContract],
    place: Any,
    tmp_path: Path,
    names: Sequence[str],
    content: bytes,
) -> None:
    """In a child process: publish a file under every name, and send each name afterwards."""
    storage = contract().open_another(place, tmp_path)
    connection.send("ready")
    for name in names:
        storage.put_file(make_upload(tmp_path, name, content))
        connection.send(name)
