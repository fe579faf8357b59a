"""The style, script and pictures of the pages, under names that contain a hash of their content."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parent / "static"
TEMPLATES: Final = Path(__file__).parent / "templates"
"""Pieces of templates that the server's pages and static pages use."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
CACHE_CONTROL = "public, max-age=31536000, immutable"
"""Keep it for a year: changed content gets another name."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A static file."""

    name: str  # with the beginning of its hash, such as style.1234abcd.css
    content_type: str
    content: bytes
    compressed: bytes  # with gzip


def load_assets(folder: Path) -> Mapping[str, Asset]:
    """All files of a folder, by their own names, such as `style.css`."""
    assets = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:10]
            assets[path.name] = Asset(
                name=f"{path.stem}.{digest}{path.suffix}",
                content_type=_TYPES[path.suffix],
                content=content,
                compressed=gzip.compress(content, mtime=0),
            )
    return assets
