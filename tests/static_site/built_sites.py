"""Makes the folder of a site for tests, by hand instead of with the commands that fetch files."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from packaging.version import Version

from private_pypi.distributions.core_metadata import read_core_metadata
from private_pypi.distributions.filenames import normalize, parse_filename
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making.building import Built, build_site
from private_pypi_static_site.making.public_index import Verdict
from private_pypi_static_site.project_file import Project, SiteFile, SiteVersion

NOWHERE = "https://index.example/simple/"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def make_site(root: Path, settings: str = 'title = "Harbour"\n') -> SiteFolder:
    """An empty site."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "site.toml").write_text(settings)
    return SiteFolder(root)


def host(site: SiteFolder, filename: str, content: bytes, **facts: Any) -> SiteFile:
    """Put a file into the site, with its core metadata; `facts` are fields of its `SiteFile`."""
    parsed = parse_filename(filename)
    metadata = read_core_metadata(io.BytesIO(content), filename)
    assert metadata is not None
    site.write(site.hosted(parsed.project, filename), content)
    site.write(site.core_metadata(parsed.project, filename), metadata)
    given = [line for line in metadata.split(b"\n") if line.startswith(b"Requires-Python: ")]
    file = SiteFile(
        filename=filename,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        uploaded_at=NOON,
        requires_python=given[0].decode().partition(": ")[2] if given else None,
        core_metadata_sha256=hashlib.sha256(metadata).hexdigest(),
    )
    file = replace(file, **facts)
    add(site, SiteVersion(version=str(parsed.version), files=(file,)), name=parsed.project)
    return file


def add(site: SiteFolder, version: SiteVersion, *, name: str, **facts: Any) -> Project:
    """Add a version to a project, or files to a version; `facts` are fields of the `Project`."""
    project = site.project(normalize(name)) or Project(name=name)
    old = project.find(version.version)
    if old is not None:
        version = replace(old, files=(*old.files, *version.files))
    others = [each for each in project.versions if each is not old]
    versions = tuple(sorted([*others, version], key=lambda each: Version(each.version)))
    project = replace(project, versions=versions, **facts)
    site.write_project(project)
    return project


def build(
    site: SiteFolder,
    output: Path | None = None,
    *,
    verdicts: Mapping[str, Verdict] | None = None,
    public_index: str = NOWHERE,
) -> Built:
    """Build a site."""
    return build_site(
        site, output or site.root / "_site", public_index=public_index, verdicts=verdicts or {}
    )


def written(folder: Path) -> Iterator[str]:
    """The paths of all files in a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


class PlainServer:
    """A server of files as Python brings it, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        asked: list[str] = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                asked.append(unquote(self.path).partition("?")[0])

        self.asked = asked
        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Handler, directory=str(folder))
        )
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def names(self) -> list[str]:
        """The names of the files that were asked for; "" for a page."""
        return [path.rpartition("/")[2] for path in self.asked]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
