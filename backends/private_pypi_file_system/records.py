"""The record and the core metadata that lie beside a file.

The first line of a record, its seal, is a comment with the size, the modification time and the hash
of the file that the record describes. If other bytes are put under the same name later, the seal
does not fit, and the record is ignored. Records of private-pypi 0.2 have no seal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedWriter

import tomli

from private_pypi.backend.open_folder import OpenFolder, WrongKind
from private_pypi.model import Record, Upload

_LONGEST_RECORD = 16 * 2**20  # bytes; the form of an upload is smaller
_ESCAPED = {code: f"\\u{code:04x}" for code in (*b'"\\', *range(0x20), 0x7F)}
_METADATA, _RECORD = ".metadata", ".record"  # names in a stage
_SEAL = re.compile(rb"# describes (?P<stamp>[0-9]+:-?[0-9]+) sha256:(?P<sha256>[0-9a-f]{64})\n")


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it was read."""

    values: Record
    sha256: str | None  # of the file that the record describes; None: the record has no seal


def stamp_of(status: os.stat_result) -> str:
    """Size and modification time of a file. They differ when the file was written to."""
    return f"{status.st_size}:{status.st_mtime_ns}"


def read_record(folder: OpenFolder, filename: str, stamp: str) -> StoredRecord | None:
    """The record of a file with this stamp.

    None if there is no record, if it is damaged, or if it describes other bytes. The core then
    reads the same facts from the file itself.
    """
    try:
        content = folder.read(f"{filename}.meta", _LONGEST_RECORD + 1)
        if len(content) > _LONGEST_RECORD:
            return None
        seal = _SEAL.match(content)
        if seal is not None and seal["stamp"].decode() != stamp:
            return None
        table = tomli.loads(content.decode())
    except (OSError, WrongKind, ValueError, RecursionError):
        return None
    values = {key: value for key, value in table.items() if isinstance(value, str)}
    return StoredRecord(values, None if seal is None else seal["sha256"].decode())


def has_seal(folder: OpenFolder, filename: str) -> bool:
    """Whether the record of a file has a seal that fits the file."""
    try:
        stamp = stamp_of(folder.status(filename))
        seal = _SEAL.match(folder.read(f"{filename}.meta", 512))
    except (OSError, WrongKind):  # there is no record, or it is being deleted
        return False
    return seal is not None and seal["stamp"].decode() == stamp


def stage_sidecars(
    stage: OpenFolder, mode: int, status: os.stat_result, upload: Upload
) -> Iterator[BufferedWriter]:
    """Write the core metadata and the record of an upload into a stage.

    The files are open: the caller syncs them before `move_sidecars`, and closes them. `status` is
    that of the file that the record describes.
    """
    # A stage also has a folder with the name of the project, which never begins with a dot.
    if upload.core_metadata is not None:
        yield stage.begin(_METADATA, mode, upload.core_metadata)
    content = _format_record(upload.record, stamp_of(status), upload.file.sha256)
    yield stage.begin(_RECORD, mode, content)


def move_sidecars(stage: OpenFolder, folder: OpenFolder, upload: Upload) -> None:
    """Move the core metadata and the record from a stage to their places beside the file.

    The record comes last, because its seal also vouches for the core metadata.
    """
    filename = upload.file.filename
    if upload.core_metadata is None:
        folder.remove(f"{filename}.metadata")
    else:
        stage.move_to(_METADATA, folder, f"{filename}.metadata")
    stage.move_to(_RECORD, folder, f"{filename}.meta")


def remove_sidecars(folder: OpenFolder, filename: str) -> None:
    """Remove the record and the core metadata of a file, if there are any."""
    folder.remove(f"{filename}.meta")
    folder.remove(f"{filename}.metadata")


def _format_record(record: Record, stamp: str, sha256: str) -> bytes:
    """The seal, then one line of TOML for each value."""
    lines = [f"# describes {stamp} sha256:{sha256}"]
    lines += [f"{_toml_string(key)} = {_toml_string(value)}" for key, value in record.items()]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _toml_string(text: str) -> str:
    """A basic string of TOML 1.0, with quotes, backslashes and control characters escaped."""
    return f'"{text.translate(_ESCAPED)}"'
