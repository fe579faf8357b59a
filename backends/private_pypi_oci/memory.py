"""What was learnt of a registry: what tags name, and manifests. It is kept on disk."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from private_pypi_oci import layout
from private_pypi_oci.journal import Entry


@dataclass(slots=True)
class Seen:
    """What a tag named when it was asked for."""

    digest: str
    asked_at: float  # unix seconds


class Memory:
    """What was learnt of repositories, kept on disk; safe for many threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()  # guards _tags
        self._tags: dict[str, dict[str, Seen]] = {}
        self.entries: dict[tuple[str, str], Entry | None] = {}

    def tags(self, repository: str) -> dict[str, Seen]:
        """What is known of the tags of a repository."""
        with self._lock:
            if repository not in self._tags:
                self._tags[repository] = self._read_tags(repository)
            return dict(self._tags[repository])

    def note(self, repository: str, tags: dict[str, Seen]) -> None:
        """Remember what tags name, and keep it."""
        with self._lock:
            known = self._tags.setdefault(repository, self._read_tags(repository))
            known.update(tags)
            seen_tags = {tag: [seen.digest, seen.asked_at] for tag, seen in known.items()}
        content = json.dumps({"repository": repository, "tags": seen_tags}).encode()
        self._write(self._folder / "tags" / hashed(repository), content)

    def forget(self, repository: str, tag: str) -> None:
        """A tag is gone, or names something else."""
        with self._lock:
            self._tags.get(repository, {}).pop(tag, None)

    def _read_tags(self, repository: str) -> dict[str, Seen]:
        try:
            value = json.loads((self._folder / "tags" / hashed(repository)).read_bytes())
            tags = value["tags"].items()
            return {tag: Seen(str(digest), float(at)) for tag, (digest, at) in tags}
        except (OSError, ValueError, AttributeError, TypeError, KeyError):
            return {}

    def repositories(self) -> Iterator[str]:
        """The repositories of which tags are kept."""
        for path in (self._folder / "tags").glob("*"):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                yield str(json.loads(path.read_bytes())["repository"])

    def manifest(self, digest: str) -> bytes | None:
        """The manifest with this digest, if it was fetched before."""
        try:
            content = self._path(digest).read_bytes()
        except OSError:
            return None
        return content if layout.digest_of(content) == digest else None

    def keep(self, digest: str, content: bytes) -> None:
        """Keep a manifest; trouble with the disk only means that it is fetched again."""
        self._write(self._path(digest), content)

    def _path(self, digest: str) -> Path:
        return self._folder / "manifests" / hashed(digest)

    def _write(self, path: Path, content: bytes) -> None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
            try:
                part.write_bytes(content)
                part.replace(path)
            except OSError:
                part.unlink(missing_ok=True)
                raise


def hashed(text: str) -> str:
    """The name of the file for a text that may contain anything."""
    return sha256(text.encode()).hexdigest()
