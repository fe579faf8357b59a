"""Work on an index document in a process of its own: `python -m private_pypi.index_child`.

Parsing 40 MB of TOML takes seconds of pure Python, and would stop every page of the server that
does it. A small document is not worth a process: then the same functions run here.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

from private_pypi.errors import BackendUnavailable, InvalidIndex
from private_pypi.index_file import EMPTY, IndexEdit, read_document, write_document
from private_pypi.reconciling import stage_document

_SMALL = 256 * 1024  # bytes; parsed in about 10 ms
_LONGEST = 600.0  # seconds
_INVALID_INDEX = 3  # exit code


def stage(document: Path, scratch: Path, *, location_key: str) -> None:
    """Read a document into a scratch database (see `reconciling`); raises `InvalidIndex`."""
    if document.stat().st_size <= _SMALL:
        stage_here(str(document), str(scratch), location_key)
    else:
        _run("stage", str(document), str(scratch), location_key)


def edit(
    document: Path, change: IndexEdit, into: Path, *, backend_type: str, location_key: str
) -> None:
    """Write the edited document to `into`, or nothing when the edit changes nothing.

    `document` may be missing: it is empty then. Raises `InvalidIndex`.
    """
    arguments = (str(document), str(into), backend_type, location_key)
    if not document.exists() or document.stat().st_size <= _SMALL:
        edit_here(*arguments, change=change)
    else:
        _run("edit", *arguments, change=change)


def stage_here(document: str, scratch: str, location_key: str) -> None:
    """`stage`, in this process."""
    stage_document(*read_document(Path(document), location_key=location_key), Path(scratch))


def edit_here(
    document: str, into: str, backend_type: str, location_key: str, *, change: IndexEdit
) -> None:
    """`edit`, in this process."""
    path = Path(document)
    before = read_document(path, location_key=location_key)[0] if path.exists() else EMPTY
    after = before.edited(change)
    if after != before:
        write_document(after, Path(into), backend_type=backend_type, location_key=location_key)


def _run(*arguments: str, change: IndexEdit | None = None) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "private_pypi.index_child", *arguments],
            input=pickle.dumps(change),
            capture_output=True,
            # Wherever we were imported from, the child finds the same code there.
            cwd=Path(__file__).parent.parent,
            timeout=_LONGEST,
            start_new_session=True,  # Ctrl-C is for the server alone
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


def main(task: str, *arguments: str) -> int:
    """What the child does: `stage` or `edit`; the pickled edit comes on stdin from our parent."""
    os.nice(5)  # the server goes first
    change = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by our own parent
    try:
        if task == "stage":
            stage_here(*arguments)
        else:
            edit_here(*arguments, change=change)
    except InvalidIndex as error:
        sys.stderr.write(str(error))
        return _INVALID_INDEX
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
