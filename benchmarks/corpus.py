"""The distribution files that every measured server gets: equal arguments make equal bytes."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import random
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from private_pypi.testing.distributions import (
    encode_multipart,
    form_for,
    make_sdist,
    make_wheel,
)

RELEASES = ("0.9.0", "1.0.0", "1.1.0", "1.2.0", "2.0.0")
_GRAPH = ("1.0.0", "1.1.0", "2.0.0")
GRAPH_RELEASES = len(_GRAPH)
FILES_PER_PROJECT = 2 * len(RELEASES)  # a wheel and an sdist of each release

_BLOCK = 2**20  # bytes


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder `<project>/<filename>` of distribution files."""

    folder: Path

    def projects(self) -> list[str]:
        """The normalised names, sorted."""
        return sorted(path.name for path in self.folder.iterdir())

    def files(self) -> Iterator[Path]:
        """Every file, project by project."""
        for project in self.projects():
            yield from sorted((self.folder / project).iterdir())

    def link_into(self, folder: Path) -> None:
        """Put every file under `folder/<project>/`, without copying where the disk allows it."""
        for path in self.files():
            target = folder / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target)
            except OSError:  # another file system
                shutil.copyfile(path, target)


def make_catalogue(folder: Path, files: int) -> Corpus:
    """`files` distribution files (a multiple of ten): each project has five releases."""
    target = folder / f"catalogue-{files}"
    if not target.exists():
        building = _empty(target.with_suffix(".building"))
        projects = range(files // FILES_PER_PROJECT)
        with ProcessPoolExecutor() as pool:
            for _ in pool.map(partial(_write_project, building), projects, chunksize=20):
                pass
        building.rename(target)
    return Corpus(target)


def make_graph(folder: Path, packages: int) -> Corpus:
    """Wheels of packages that need each other, three releases of each.

    `graph-00` needs all others, directly or not: a binary tree with a few edges across.
    """
    target = folder / f"graph-{packages}"
    if not target.exists():
        building = _empty(target.with_suffix(".building"))
        choose = random.Random(packages)
        for number in range(packages):
            later = {n for n in (2 * number + 1, 2 * number + 2) if n < packages}
            if number + 1 < packages:
                later |= {choose.randrange(number + 1, packages) for _ in range(2)}
            needs = [("Requires-Dist", f"graph-{n:02d}>=1.0,<3") for n in sorted(later)]
            for version in _GRAPH:
                name = f"graph-{number:02d}"
                _write(building / name, *make_wheel(name, version, extra_metadata=needs))
        building.rename(target)
    return Corpus(target)


def make_large_wheel(path: Path, name: str, size: int) -> None:
    """A wheel `name` 1.0 with one stored (not compressed) module of `size` random bytes.

    Written in constant memory; `path` ends in `large_filename(name)`.
    """
    info = f"{name}-1.0.dist-info"
    wanted = (f"{info}/METADATA", f"{info}/WHEEL")
    noise = random.Random(name).randbytes(_BLOCK)
    small = [(part, content) for part, content in _members(name) if part in wanted]
    digest = hashlib.sha256()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(zipfile.ZipInfo(f"{name}.bin"), "w", force_zip64=True) as member:
            left = size
            while left > 0:
                # Rotated by the position, so that no two blocks are equal.
                turn = left // _BLOCK % _BLOCK
                block = (noise[turn:] + noise[:turn])[:left]
                digest.update(block)
                member.write(block)
                left -= len(block)
        record = [f"{name}.bin,sha256={_record_hash(digest.digest())},{size}\n"]
        for part, content in small:
            archive.writestr(zipfile.ZipInfo(part), content)
            fingerprint = _record_hash(hashlib.sha256(content).digest())
            record.append(f"{part},sha256={fingerprint},{len(content)}\n")
        record.append(f"{info}/RECORD,,\n")
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "".join(record))


def large_filename(name: str) -> str:
    """The filename of `make_large_wheel`."""
    return f"{name}-1.0-py3-none-any.whl"


@dataclass(frozen=True, slots=True)
class Form:
    """An upload as twine sends it: `head`, then the bytes of the file, then `tail`."""

    content_type: str
    head: bytes
    file: bytes | Path
    tail: bytes

    @property
    def length(self) -> int:
        """Bytes of the whole body."""
        size = self.file.stat().st_size if isinstance(self.file, Path) else len(self.file)
        return len(self.head) + size + len(self.tail)


def small_form(filename: str, content: bytes) -> Form:
    """The upload of a file in memory."""
    return _form(form_for(filename, content), filename, content)


def large_form(path: Path, name: str) -> Form:
    """The upload of a wheel of `make_large_wheel`, read from the disk while it is sent."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        blake = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
    fields = form_for(*make_wheel(name, "1.0"), sha256_digest=digest, blake2_256_digest=blake)
    return _form(fields, path.name, path)


def small_uploads(prefix: str, count: int) -> list[Form]:
    """`count` wheels of as many new projects."""
    return [
        small_form(*make_wheel(f"{prefix}-{number:04d}", "1.0", extra_metadata=_HEADERS))
        for number in range(count)
    ]


# As much metadata as a small real package has.
_HEADERS = (
    ("Summary", "A package that is measured, not used"),
    ("Author-email", "Nobody <nobody@example.invalid>"),
    ("License-Expression", "MIT"),
    ("Classifier", "Development Status :: 4 - Beta"),
    ("Classifier", "Intended Audience :: Developers"),
    ("Classifier", "Operating System :: OS Independent"),
    ("Classifier", "Programming Language :: Python :: 3"),
    ("Project-URL", "Homepage, https://code.example.invalid/measured"),
)


def _write_project(folder: Path, number: int) -> None:
    name = f"measured-{number:05d}"
    for version in RELEASES:
        files = {"data.bin": random.Random(name + version).randbytes(600)}
        for made in (
            make_wheel(
                name, version, requires_python=">=3.8", extra_metadata=_HEADERS, files=files
            ),
            make_sdist(
                name, version, requires_python=">=3.8", extra_metadata=_HEADERS, files=files
            ),
        ):
            _write(folder / name, *made)


def _write(folder: Path, filename: str, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / filename).write_bytes(content)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _form(fields: list[tuple[str, str]], filename: str, file: bytes | Path) -> Form:
    marker = b"<the bytes of the file>"
    content_type, body = encode_multipart(fields, filename, marker)
    head, tail = body.split(marker)
    return Form(content_type, head, file, tail)


def _members(name: str) -> Iterator[tuple[str, bytes]]:
    _, content = make_wheel(name, "1.0", extra_metadata=_HEADERS)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.namelist():
            yield member, archive.read(member)


def _record_hash(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
