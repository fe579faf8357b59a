"""A folder that any web server can serve as an index: the upstream of the mirrors.

Beside the files of a project are its pages, as `index.html` and `index.json` and compressed.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.corpus import Corpus
from private_pypi.distributions.core_metadata import read_core_metadata
from private_pypi.distributions.filenames import normalize, parse_filename
from private_pypi.model import DistributionFile
from private_pypi.pages.simple_api import Representation, project_detail, project_list

_PAGES = {"index.html": Representation.TEXT_HTML, "index.json": Representation.JSON}
_UPLOADED_AT = datetime(2026, 1, 2, 12, tzinfo=UTC)


def write_index(index: Path, corpora: Sequence[Corpus]) -> None:
    """The pages and files of these corpora, which it shares with them; the list is not written."""
    index.mkdir(parents=True)
    for corpus in corpora:
        corpus.link_into(index)
        for project in corpus.projects():
            write_project(index, project)


def write_project(index: Path, project: str) -> None:
    """The page and the core metadata of the files that are in the folder of a project."""
    paths = [path for path in (index / project).iterdir() if path.suffix in (".whl", ".gz")]
    _write_page(index, project, [_describe(path) for path in sorted(paths)])


def write_large_project(index: Path, project: str, files: int) -> None:
    """The page of a project with so many wheels, which are not there."""
    platforms = ("manylinux_2_28_x86_64", "macosx_11_0_arm64", "win_amd64", "musllinux_1_2_x86_64")
    names = [
        f"{project.replace('-', '_')}-{number // 20}.0-cp3{8 + number % 5}-cp3{8 + number % 5}-"
        f"{platforms[number // 5 % 4]}.whl"
        for number in range(files)
    ]
    (index / project).mkdir()
    facts = [(name, 10_000, hashlib.sha256(name.encode()).hexdigest()) for name in names]
    _write_page(index, project, [_file(*fact, metadata=fact[2]) for fact in facts])


def write_list(index: Path, projects: Sequence[str]) -> None:
    """The list of projects, which need not have pages."""
    listed = [(normalize(project), 0) for project in projects]
    index.mkdir(parents=True, exist_ok=True)
    _write(index, lambda shown: "".join(project_list(listed, shown, serial=None)))


def _describe(path: Path) -> DistributionFile:
    content = path.read_bytes()
    metadata = read_core_metadata(path, path.name) if path.suffix == ".whl" else None
    if metadata is not None:
        path.with_name(f"{path.name}.metadata").write_bytes(metadata)
    digest = None if metadata is None else hashlib.sha256(metadata).hexdigest()
    return _file(path.name, len(content), hashlib.sha256(content).hexdigest(), metadata=digest)


def _file(filename: str, size: int, sha256: str, *, metadata: str | None) -> DistributionFile:
    parsed = parse_filename(filename)
    return DistributionFile(
        project=parsed.project,
        filename=filename,
        version=str(parsed.version),
        size=size,
        sha256=sha256,
        location="",
        uploaded_at=_UPLOADED_AT,
        requires_python=">=3.8",
        yanked=None,
        core_metadata_sha256=metadata,
    )


def _write_page(index: Path, project: str, files: Sequence[DistributionFile]) -> None:
    name = normalize(project)
    _write(index / project, lambda shown: project_detail(name, files, shown, serial=None))


def _write(folder: Path, render: Callable[[Representation], str]) -> None:
    for page, representation in _PAGES.items():
        content = render(representation).encode()
        (folder / page).write_bytes(content)
        (folder / f"{page}.gz").write_bytes(gzip.compress(content, 6, mtime=0))
