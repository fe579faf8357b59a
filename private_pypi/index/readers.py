"""Reads many stored files at a time: in threads, or in processes if they are on this machine.

Reading files that are elsewhere means waiting, for which threads are right. Reading files that are
here keeps a processor busy, mostly with Python, of which a process runs only one thread at a time.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import closing, suppress
from dataclasses import dataclass, fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, TypeVar

from private_pypi.backend import (
    AnyBackend,
    AnyStorage,
    BackendSettings,
    Folders,
    Secret,
    SupportsKeepOpen,
    capability,
)
from private_pypi.distributions.records import file_from_record
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    PrivatePypiError,
    StorageFull,
)
from private_pypi.index.examining import examine_stored, with_record
from private_pypi.model import DistributionFile, StoredFile
from private_pypi.system.background import DaemonThreads
from private_pypi.system.child_environment import child_environment

T = TypeVar("T")
Item = TypeVar("Item")
Into = Callable[[StoredFile, DistributionFile], T]

_THREADS: Final = min(8, 2 * (os.cpu_count() or 2))  # they hash, or wait for the network
_PROCESSES: Final = min(8, os.cpu_count() or 2)
_FEW: Final = 500  # files that are read before a process would have started
_BATCH: Final = 50  # files that a process is given at a time


def take_file(_: StoredFile, file: DistributionFile) -> DistributionFile:
    """The facts of a file as they are, for `examine_all`."""
    return file


def examine_all(
    storage: AnyStorage,
    stored_files: Iterable[StoredFile],
    folder: Path,
    into: Into[T],
    *,
    use_records: bool = False,
) -> Iterator[tuple[StoredFile, T | PrivatePypiError]]:
    """Find out the facts of files, a few at a time, in the order of `stored_files`.

    Each file comes with what `into` makes of its facts, or with an error: `FileNotFound` if it is
    gone, `InvalidUpload` if it is broken, `BackendError` for trouble with this file only. Raises
    `BackendUnavailable` and `StorageFull`, which would happen to the other files as well.

    `into` is called in the thread or the process that has read the file; it must be possible to
    pickle it. `use_records`: a file is only opened if its record does not say enough; files then
    come with their records. `folder` is for temporary files.
    """
    read = _Read(storage, folder, into, use_records)
    files = iter(stored_files)
    first: list[StoredFile] = []
    if _reads_here(storage):
        first = list(islice(files, _FEW))
        if len(first) == _FEW and (work := _pickled(read)) is not None:
            with closing(_in_processes(work, chain(first, files))) as found:
                yield from found
            return
    pool = DaemonThreads(_THREADS, "examine")
    with closing(_windowed(pool, read, chain(first, files), 4 * _THREADS)) as found:
        yield from found


@dataclass(frozen=True, slots=True)
class _Read:
    """Finds out the facts of one file."""

    storage: AnyStorage
    folder: Path
    into: Into[Any]
    use_records: bool

    def together(self, batch: Sequence[StoredFile]) -> list[tuple[StoredFile, Any]]:
        """What a call gives for each of these files."""
        keeping = capability(self.storage, SupportsKeepOpen)
        if keeping is None:
            return [self(stored) for stored in batch]
        with keeping.kept_open() as storage:
            read = replace(self, storage=storage)
            return [read(stored) for stored in batch]

    def __call__(self, stored: StoredFile) -> tuple[StoredFile, Any]:
        try:
            file = None
            if self.use_records:
                stored = with_record(self.storage, stored)
                file = file_from_record(stored)
            found = file or examine_stored(self.storage, stored, self.folder)
        except (BackendUnavailable, StorageFull):
            raise
        except BackendError as error:
            return stored, error
        return stored, self.into(stored, found) if isinstance(found, DistributionFile) else found


def _windowed(
    pool: Executor, call: Callable[[Item], T], items: Iterable[Item], most: int
) -> Generator[T, None, None]:
    """The results in the order of the items, of which at most `most` are begun and not taken."""
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


# -- processes -----------------------------------------------------------------------------------


def _reads_here(storage: AnyStorage) -> bool:
    traits = storage.backend.traits
    return traits.opens_here and traits.answers_at_once and not traits.needs_admin_secret


@dataclass(frozen=True, slots=True)
class _Work:
    """What a process needs to read files: no secret is in it."""

    backend_class: type[AnyBackend]
    settings: BackendSettings
    folders: Folders
    folder: Path
    into: Into[Any]
    use_records: bool

    def read(self) -> _Read:
        storage = self.backend_class(self.settings, self.folders).seen_with(Secret(""))
        return _Read(storage, self.folder, self.into, self.use_records)


def _pickled(read: _Read) -> bytes | None:
    """The work for a process; None if the backend or its settings cannot be sent to one."""
    backend = read.storage.backend
    settings = _without_secrets(backend.settings)
    try:
        return pickle.dumps(
            _Work(
                type(backend), settings, backend.folders, read.folder, read.into, read.use_records
            )
        )
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


def _without_secrets(settings: BackendSettings) -> BackendSettings:
    """The same settings for a process that reads what strangers have made."""
    blank: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Secret):
            blank[field.name] = Secret("")
        elif isinstance(value, tuple) and any(isinstance(each, Secret) for each in value):
            blank[field.name] = ()
    return replace(settings, **blank)


def _in_processes(
    work: bytes, files: Iterator[StoredFile]
) -> Generator[tuple[StoredFile, Any], None, None]:
    idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
    processes = [_Process(work) for _ in range(_PROCESSES)]
    for process in processes:
        idle.put(process)

    def read(batch: list[StoredFile]) -> list[tuple[StoredFile, Any]]:
        process = idle.get()
        try:
            return process.read(batch)
        finally:
            idle.put(process)

    batches = iter(lambda: list(islice(files, _BATCH)), [])
    pool = DaemonThreads(_PROCESSES, "examine")
    try:
        with closing(_windowed(pool, read, batches, 2 * _PROCESSES)) as found:
            for some in found:
                yield from some
    finally:
        for process in processes:
            process.close()


class _Process:
    """A process that reads files. It ends when its input ends, so it never outlives this one."""

    def __init__(self, work: bytes) -> None:
        self._work = work
        self._child: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    def read(self, batch: list[StoredFile]) -> list[tuple[StoredFile, Any]]:
        """What `_Read` gives for each file. Raises what it raises."""
        try:
            answer, logged = self._ask(batch)
        except (EOFError, OSError, pickle.UnpicklingError):
            self._end()
            if self._is_closed:
                raise BackendUnavailable("reading files was ended") from None
            if len(batch) > 1:  # each in a process of its own, to find the one that ends it
                return [found for each in batch for found in self.read([each])]
            problem = f"{batch[0].filename!r}: the process that read it has ended"
            return [(batch[0], BackendError(problem))]
        for name, level, message in logged:
            logging.getLogger(name).log(level, "%s", message)
        if isinstance(answer, Exception):
            raise answer
        found: list[tuple[StoredFile | None, Any]] = answer
        return [(file or asked, each) for asked, (file, each) in zip(batch, found, strict=True)]

    def _ask(self, batch: list[StoredFile]) -> tuple[Any, list[tuple[str, int, str]]]:
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "private_pypi.index.readers"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # So the process imports the same code, wherever this one has it from.
                cwd=Path(__file__).parents[2],
                env=child_environment(),
                start_new_session=True,  # Ctrl-C is meant for this process only
            )
            assert self._child.stdin is not None
            self._child.stdin.write(self._work)
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        pickle.dump(batch, child.stdin)
        child.stdin.flush()
        answer: tuple[Any, list[tuple[str, int, str]]] = pickle.load(child.stdout)  # noqa: S301
        return answer

    def close(self) -> None:
        """End the process. A thread that waits for it gets an error."""
        self._is_closed = True
        self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                with suppress(OSError):  # what was not sent yet cannot be sent any more
                    pipe.close()


class _Log(logging.Handler):
    """Keeps what is logged, for the process that has a log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.name, record.levelno, record.getMessage()))

    def take(self) -> list[tuple[str, int, str]]:
        """What was logged since the last call."""
        lines, self.lines = self.lines, []
        return lines


def main() -> None:
    """Read the files that the parent process sends, until it sends no more."""
    os.nice(5)  # requests are more urgent
    log = _Log()
    logging.getLogger().addHandler(log)
    # Whatever else writes to the standard output must not write into the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = sys.stdin.buffer
    read: _Read = pickle.load(source).read()  # noqa: S301 - written by our own parent
    while True:
        try:
            batch: list[StoredFile] = pickle.load(source)  # noqa: S301
        except EOFError:
            return
        answer: object
        try:
            # A file that has got no record is not sent back.
            answer = [
                (None if stored is asked else stored, found)
                for asked, (stored, found) in zip(batch, read.together(batch), strict=True)
            ]
        except PrivatePypiError as error:
            answer = error
        pickle.dump((answer, log.take()), answers)
        answers.flush()


if __name__ == "__main__":
    main()
