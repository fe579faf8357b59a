"""Work on an index document in a child process: `python -m private_pypi.index.child`.

Parsing 40 MB of TOML takes seconds of pure Python, during which the server could answer nothing. A
small document is not worth a process, so the same functions run in this one. The child process has
limits, because a document may be made to use much time and memory.
"""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from private_pypi.errors import BackendUnavailable, InvalidIndex
from private_pypi.index.document import EMPTY, IndexEdit, write_document
from private_pypi.index.document_reader import read_document
from private_pypi.index.staging import stage_document
from private_pypi.system.child_environment import child_environment

_SMALL = 256 * 1024  # bytes; parsed in about 10 ms
_LONGEST = 600.0  # seconds
_INVALID_INDEX = 3  # exit code
# Bytes of memory of the process: a document takes about 10 times its size.
_MEMORY = 512 * 2**20
_MEMORY_FOR_EACH_BYTE = 32


def stage(document: Path, scratch: Path, *, location_key: str) -> None:
    """Read a document into a scratch database (see `staging`); raises `InvalidIndex`."""
    _run(document, partial(stage_document, document, scratch, location_key=location_key))


def edit(
    document: Path, change: IndexEdit, into: Path, *, backend_type: str, location_key: str
) -> None:
    """Write the edited document to `into`, or nothing when the edit changes nothing.

    A missing document counts as an empty one. Raises `InvalidIndex`.
    """
    _run(document, partial(_edit, document, change, into, backend_type, location_key))


def _edit(
    document: Path, change: IndexEdit, into: Path, backend_type: str, location_key: str
) -> None:
    before = read_document(document, location_key=location_key)[0] if document.exists() else EMPTY
    after = before.edited(change)
    if after != before:
        write_document(after, into, backend_type=backend_type, location_key=location_key)


def _run(document: Path, work: Callable[[], None]) -> None:
    """Do the work in this process, or in a child process if the document is large."""
    if not document.exists() or document.stat().st_size <= _SMALL:
        work()
        return
    try:
        done = subprocess.run(
            [sys.executable, "-m", "private_pypi.index.child", str(document)],
            input=pickle.dumps(work),
            capture_output=True,
            # So the child imports the same code, wherever this process has it from.
            cwd=Path(__file__).parents[2],
            env=child_environment(),
            timeout=_LONGEST,
            start_new_session=True,  # Ctrl-C is meant for the server only
        )
    except subprocess.TimeoutExpired as error:
        raise BackendUnavailable(
            f"reading index.toml took longer than {_LONGEST:.0f} s", retry_after=60
        ) from error
    message = done.stderr.decode(errors="replace").strip()
    if done.returncode == _INVALID_INDEX:
        raise InvalidIndex(message)
    if done.returncode != 0:
        raise BackendUnavailable(
            f"the process that reads index.toml ended with {done.returncode}: {message[-500:]}",
            retry_after=60,
        )


def main(document: str) -> int:
    """Do the work that the parent process sends on stdin, pickled."""
    os.nice(5)  # requests are more urgent
    most = _MEMORY + _MEMORY_FOR_EACH_BYTE * Path(document).stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    work = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by our own parent
    try:
        work()
    except InvalidIndex as error:
        sys.stderr.write(str(error))
        return _INVALID_INDEX
    except MemoryError:
        sys.stderr.write(f"index.toml takes more than {most >> 20} MiB of memory to be read")
        return _INVALID_INDEX
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
