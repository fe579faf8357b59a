"""The facts of a distribution file, made from its name."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from private_pypi.distributions.filenames import parse_filename
from private_pypi.model import DistributionFile

NOON = datetime(2026, 1, 2, 12, 0, 0, 250_000, tzinfo=UTC)


def make_file(filename: str, content: bytes | None = None, **changes: object) -> DistributionFile:
    """A file with this content, else with its name as its content; `changes` are other facts."""
    parsed = parse_filename(filename)
    content = filename.encode() if content is None else content
    facts: dict[str, object] = {
        "project": parsed.project,
        "filename": filename,
        "version": str(parsed.version),
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "uploaded_at": NOON,
        "requires_python": ">=3.8",
        "yanked": None,
        "core_metadata_sha256": None,
        "location": "",
    }
    return DistributionFile(**{**facts, **changes})  # type: ignore[arg-type]
