"""Makes the answers of the legacy JSON API: a project, its releases, and core metadata.

The public index serves this API at `/pypi/<project>/json`. Installers do not need it, but Renovate,
Dependabot, bandersnatch, editors and licence checkers do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from packaging.utils import NormalizedName

from private_pypi.distributions.descriptions import Fields, parse_fields
from private_pypi.distributions.filenames import parse_filename
from private_pypi.distributions.records import decoded
from private_pypi.errors import InvalidFilename
from private_pypi.model import ListedFile
from private_pypi.pages.releases import Release
from private_pypi.pages.simple_api import hashes_of

# Fields of the core metadata with one value, by their names in `info`.
_SINGLE = {
    "author": "author",
    "author_email": "author-email",
    "description_content_type": "description-content-type",
    "download_url": "download-url",
    "home_page": "home-page",
    "keywords": "keywords",
    "license": "license",
    "license_expression": "license-expression",
    "maintainer": "maintainer",
    "maintainer_email": "maintainer-email",
    "requires_python": "requires-python",
    "summary": "summary",
}
# Fields with several values. Without values they are null, as on the public index.
_SEVERAL = {
    "dynamic": "dynamic",
    "license_files": "license-file",
    "platform": "platform",
    "provides_extra": "provides-extra",
    "requires_dist": "requires-dist",
}


def project_json(
    project: NormalizedName,
    releases: Sequence[Release],
    shown: Release,
    core_metadata: bytes | None,
    *,
    serial: int,
    page_url: str,
    file_url: Callable[[ListedFile], str],
    with_releases: bool,
) -> str:
    """The answer for a project, or for one release of it (if `with_releases` is false).

    `releases` are those of the project, newest first. `shown` is the one that `info` and `urls` are
    about. `core_metadata` is that of one of its files; None if there is none. `page_url` is the
    absolute URL of the project's page for people, and ends with a slash.
    """
    fields = parse_fields(core_metadata or b"")
    answer: dict[str, Any] = {
        "info": _info(project, shown, fields, page_url),
        "last_serial": serial,
        "ownership": {"organization": None, "roles": []},
        "urls": [_file(file, file_url(file)) for file in shown.files],
        "vulnerabilities": [],
    }
    if with_releases:
        answer["releases"] = {
            release.version: [_file(file, file_url(file)) for file in release.files]
            for release in reversed(releases)
        }
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False)


def _info(
    project: NormalizedName, release: Release, fields: Fields, page_url: str
) -> dict[str, Any]:
    values = fields.values
    info: dict[str, Any] = {name: _first(values, field) or None for name, field in _SINGLE.items()}
    info |= {name: list(values.get(field, ())) or None for name, field in _SEVERAL.items()}
    urls = _project_urls(values)
    return info | {
        # Renovate reads this, but newer build tools write the homepage only into the project URLs.
        "home_page": info["home_page"] or urls.get("Homepage"),
        "name": _first(values, "name") or release.published_name or project,
        "version": release.version,
        "requires_python": info["requires_python"] or release.requires_python,
        "classifiers": list(values.get("classifier", ())),
        "description": fields.text,
        "project_urls": urls or None,
        "package_url": page_url,
        "project_url": page_url,
        "release_url": f"{page_url}{release.version}/",
        "yanked": release.is_yanked,
        "yanked_reason": "\n".join(release.yank_reasons) or None if release.is_yanked else None,
        # These are constant on the public index too. Clients expect them to exist.
        "bugtrack_url": None,
        "docs_url": None,
        "downloads": {"last_day": -1, "last_month": -1, "last_week": -1},
    }


def _project_urls(values: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The project URLs by label, with those of two older fields, as on the public index."""
    urls: dict[str, str] = {}
    for value in values.get("project-url", ()):
        label, comma, url = value.partition(",")
        if comma:
            urls.setdefault(label.strip(), url.strip())
    for label, field in (("Homepage", "home-page"), ("Download", "download-url")):
        url = _first(values, field)
        if url and url not in urls.values():
            urls.setdefault(label, url)
    return urls


def _first(values: Mapping[str, Sequence[str]], field: str) -> str:
    value = decoded(next(iter(values.get(field, ())), ""))
    return "" if value == "UNKNOWN" else value  # old versions of setuptools write it for no value


def _core_metadata(file: ListedFile) -> bool | dict[str, str]:
    sha256 = file.core_metadata_sha256
    return file.offers_core_metadata if sha256 is None else {"sha256": sha256}


def _file(file: ListedFile, url: str) -> dict[str, Any]:
    uploaded = file.upload_time
    try:
        parsed = parse_filename(file.filename)
        kind, python = parsed.kind, parsed.pyversion
    except InvalidFilename:  # stored when the rules for filenames were less strict
        kind, python = "sdist", "source"
    return {
        "comment_text": "",
        "core-metadata": _core_metadata(file),
        "digests": hashes_of(file),
        "downloads": -1,
        "filename": file.filename,
        "has_sig": False,
        "packagetype": "bdist_wheel" if kind == "wheel" else "sdist",
        "python_version": python,
        "requires_python": file.requires_python,
        "size": file.size,
        "upload_time": None if uploaded is None else uploaded.partition(".")[0],
        "upload_time_iso_8601": uploaded,
        "url": url,
        "yanked": file.yanked is not None,
        "yanked_reason": file.yanked or None,
    }
