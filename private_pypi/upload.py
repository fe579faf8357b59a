"""The legacy upload API: from a form and its file to a checked upload; stores nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from private_pypi.model import Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedFile:
    """The file part of a form: complete, on a local disk, hashed while it arrived.

    `digests` has lower-case hex under `sha256` (always), `md5` and `blake2_256`.
    """

    filename: str
    path: Path
    size: int  # bytes
    digests: Mapping[str, str]


def check_upload(
    fields: Sequence[tuple[str, str]], received: ReceivedFile, *, max_file_bytes: int, now: datetime
) -> Upload:
    """The upload that a form and its file make; raises `InvalidUpload` and its subclasses."""
    raise NotImplementedError
