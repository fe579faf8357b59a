"""Makes the pages of the simple repository API, in JSON (PEP 691) or HTML (PEP 503).

Both are of version 1.4 of the API. Later versions will exist in JSON only (PEP 833).
"""

from __future__ import annotations

import enum
import functools
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from json.encoder import encode_basestring as _encode_text
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote

from packaging.utils import NormalizedName

from private_pypi.model import (
    ProjectStatus,
    ShownColumns,
    ShownFile,
    ShownRow,
    format_microseconds,
)

API_VERSION = "1.4"

_BODY = "BODY"  # stands for what is put into a page later
# `quote` and `html.escape` take longer than everything else on a page of plain names.
_is_plain = re.compile(r"[A-Za-z0-9._~-]*").fullmatch
_escape = functools.lru_cache(maxsize=512)(html.escape)  # for values that many files share
_encode_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

File = TypeVar("File", bound=ShownFile)

_NO_HASHES = MappingProxyType[str, str]({})
_IN_FRAGMENTS = ("sha256", "sha512", "sha384", "blake2b", "md5")


class Representation(enum.Enum):
    """The content types of a page. The value is the media type without parameters."""

    JSON = "application/vnd.pypi.simple.v1+json"
    HTML = "application/vnd.pypi.simple.v1+html"
    TEXT_HTML = "text/html"

    @property
    def content_type(self) -> str:
        """The value of `Content-Type`."""
        if self is Representation.JSON:
            return str(self.value)  # without a charset, because poetry expects exactly this value
        return f"{self.value}; charset=utf-8"


_NAMES = {
    "application/vnd.pypi.simple.v1+json": Representation.JSON,
    "application/vnd.pypi.simple.latest+json": Representation.JSON,
    "application/vnd.pypi.simple.v1+html": Representation.HTML,
    "application/vnd.pypi.simple.latest+html": Representation.HTML,
    "text/html": Representation.TEXT_HTML,
}

_QVALUE = re.compile(r"0(?:\.[0-9]*)?|\.[0-9]+|1(?:\.0*)?")  # also ".5", although it is invalid


def named_representation(name: str) -> Representation | None:
    """The representation for a value of `?format=`; a `+` in it may have become a space."""
    return _NAMES.get(name.strip().replace(" ", "+").lower())


def negotiate(accept: str | None) -> Representation | None:
    """Choose a representation by an `Accept` header (RFC 9110 §12.5.1); None if none is accepted.

    Of types with the same quality, one that is named is preferred to one that a wildcard matches,
    and JSON is preferred to HTML, because it contains more. If there is only `*/*`, the answer is
    `text/html`, which all tools can read.
    """
    if accept is None or not accept.strip():
        return Representation.TEXT_HTML
    # representation -> (how specific the range is that applies to it, its quality)
    decided: dict[Representation, tuple[int, float]] = {}
    for part in accept.split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        quality = _quality(parameters)
        for representation, specificity in _matches(media.lower()):
            best = decided.get(representation, (-1, 0.0))
            if (specificity, quality) > best:
                decided[representation] = (specificity, quality)
    acceptable = {r: d for r, d in decided.items() if d[1] > 0}
    if not acceptable:
        return None
    return max(
        acceptable, key=lambda r: (acceptable[r][1], acceptable[r][0], _preference(r, acceptable))
    )


def _matches(media: str) -> Iterable[tuple[Representation, int]]:
    if media in _NAMES:
        return [(_NAMES[media], 2)]
    if media == "*/*":
        return [(representation, 0) for representation in Representation]
    if media == "application/*":
        return [(Representation.JSON, 1), (Representation.HTML, 1)]
    if media == "text/*":
        return [(Representation.TEXT_HTML, 1)]
    return []


def _preference(
    representation: Representation, decided: dict[Representation, tuple[int, float]]
) -> int:
    if decided[representation][0] == 0:  # only `*/*` matches it
        return 3 if representation is Representation.TEXT_HTML else 0
    return {Representation.JSON: 2, Representation.HTML: 1, Representation.TEXT_HTML: 0}[
        representation
    ]


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            # A type with an invalid quality is treated as one that is not accepted.
            return float(value) if _QVALUE.fullmatch(value.strip()) else 0.0
    return 1.0


def project_list(
    projects: Iterable[tuple[NormalizedName, int]],
    representation: Representation,
    *,
    serial: int | None,
) -> Iterator[str]:
    """The list of projects in pieces, because it may be long.

    `projects` are their names and serial numbers, in order. If `serial` is None, the page has no
    serial numbers.
    """
    if representation is Representation.JSON:
        yield from _list_json(projects, serial)
        return
    before, after = _page("Simple index", _BODY).split(_BODY)
    yield before
    for name, _ in projects:
        yield f'<a href="{name}/">{name}</a><br>\n'
    yield after


def _list_json(projects: Iterable[tuple[NormalizedName, int]], serial: int | None) -> Iterator[str]:
    before, after = _json({"meta": _meta(serial), "projects": [_BODY]}).split(f'"{_BODY}"')
    yield before
    separator = ""
    for name, last in projects:
        # As `_json` would write it. A normalised name needs no escaping.
        serial_of = "" if serial is None else f',"_last-serial":{last}'
        yield f'{separator}{{"name":"{name}"{serial_of}}}'
        separator = ","
    yield after


def project_detail(
    project: NormalizedName,
    files: Sequence[File],
    representation: Representation,
    *,
    serial: int | None,
    status: ProjectStatus | None = None,
    base: str = "",
    address: Callable[[File], str | None] | None = None,
) -> str:
    """The page of a project.

    The URL of a file consists of `base`, which is relative to the page, and the filename. For files
    that are on another server, `address` returns the absolute URL, without a fragment. If `serial`
    is None, the page has no serial number.

    If files come from several repositories of a group, each says from which one: `_source` in JSON,
    `data-source` in HTML.
    """

    def url(file: File) -> str:
        elsewhere = None if address is None else address(file)
        return base + quote(file.filename, safe="") if elsewhere is None else elsewhere

    names = [file.filename for file in files]
    # Looking at all names at once takes a tenth of the time of looking at each.
    is_plain = address is None and bool(_is_plain("".join(names)))
    urls = [base + name for name in names] if is_plain else [url(file) for file in files]
    if representation is Representation.JSON:
        versions = [file.version for file in files]
        return _project_json(project, versions, map(_file_json, files, urls), serial, status)
    if base or not is_plain:
        names, urls = [html.escape(name) for name in names], [html.escape(url) for url in urls]
    return _project_html(project, map(_link, files, names, urls), status)


def project_of_rows(
    project: NormalizedName,
    rows: Sequence[ShownColumns],
    representation: Representation,
    *,
    serial: int,
    base: str = "",
) -> str:
    """The same page for the rows of a local index, in less than half of the time."""
    if base or not _is_plain("".join([row[1] for row in rows])):
        files = [ShownRow._make(row) for row in rows]
        return project_detail(project, files, representation, serial=serial, base=base)
    if representation is Representation.JSON:
        return _project_json(project, [row[2] for row in rows], _entries_of_rows(rows), serial)
    return _project_html(project, _links_of_rows(rows))


def _project_json(
    project: NormalizedName,
    versions: Sequence[str],
    entries: Iterable[str],
    serial: int | None,
    status: ProjectStatus | None = None,
) -> str:
    head = _json(
        {
            "meta": _meta(serial),
            **_status_json(status),
            "name": project,
            # Each version must be there once (PEP 700). The files are ordered by version.
            "versions": list(dict.fromkeys(versions)),
        }
    )
    return f'{head[:-1]},"files":[{",".join(entries)}]}}'


def _project_html(
    project: NormalizedName, links: Iterable[str], status: ProjectStatus | None = None
) -> str:
    body = "<br>\n".join([*links, ""])
    return _page(f"Links for {project}", body, _status_html(status))


def _meta(serial: int | None) -> dict[str, Any]:
    numbered = {} if serial is None else {"_last-serial": serial}
    return {"api-version": API_VERSION, **numbered}


def _status_json(status: ProjectStatus | None) -> dict[str, Any]:
    """The status at the top level, where the public index has it and uv looks for it."""
    if status is None:
        return {}
    reason = {} if status.reason is None else {"reason": status.reason}
    return {"project-status": {"status": status.status, **reason}}


def _status_html(status: ProjectStatus | None) -> str:
    if status is None:
        return ""
    lines = [f'<meta name="pypi:project-status" content="{html.escape(status.status)}">\n']
    if status.reason is not None:
        reason = html.escape(status.reason)
        lines.append(f'<meta name="pypi:project-status-reason" content="{reason}">\n')
    return "".join(lines)


def _file_json(file: ShownFile, url: str) -> str:
    """The entry of a file. To make a dictionary and encode that takes twice as long."""
    # Unknown values are left out. uv rejects a page if size, upload-time, yanked or hashes is null.
    sha256, others = file.sha256, file.hashes
    hashes = _json(_hashes(sha256, others)) if sha256 is None or others else _sha256_json(sha256)
    name = _encode_text(file.filename)
    entry = f'{{"filename":{name},"url":{_encode_text(url)},"hashes":{hashes}'
    if (size := file.size) is not None:
        entry = f'{entry},"size":{size}'
    if (requires_python := file.requires_python) is not None:
        entry = f'{entry},"requires-python":{_encode_text(requires_python)}'
    if (upload_time := file.upload_time) is not None:
        entry = f'{entry},"upload-time":"{upload_time}"'
    # unearth, which pdm uses, reads the second name. `dist-info-metadata` would be a third one, but
    # pip 22.3 to 23.0.1 crashes if it is there (the reason for PEP 714). Debian 12 has such a pip.
    if (metadata_sha256 := file.core_metadata_sha256) is not None:
        hashes = _sha256_json(metadata_sha256)
        entry = f'{entry},"core-metadata":{hashes},"data-dist-info-metadata":{hashes}'
    elif file.offers_core_metadata:
        entry += ',"core-metadata":true,"data-dist-info-metadata":true'
    yanked = file.yanked
    entry = f'{entry},"yanked":{"false" if yanked is None else _yanked_json(yanked)}'
    if (provenance := file.provenance) is not None:
        entry = f'{entry},"provenance":{_encode_text(provenance)}'
    if source := file.source:
        entry = f'{entry},"_source":{_encode_text(source[-1])}'
    return entry + "}"


def _yanked_json(reason: str) -> str:
    # It is true if no reason was given, because an empty string would mean false (PEP 592).
    return _encode_text(reason) if reason else "true"


def _sha256_json(sha256: str) -> str:
    return f'{{"sha256":{_encode_text(sha256)}}}'


def hashes_of(file: ShownFile) -> dict[str, str]:
    """All hashes of a file, by algorithm; none if they are unknown."""
    return _hashes(file.sha256, file.hashes)


def _hashes(sha256: str | None, others: Mapping[str, str]) -> dict[str, str]:
    return {**({} if sha256 is None else {"sha256": sha256}), **others}


def anchor(file: ShownFile, url: str) -> str:
    """The link to a file on a page for installers (PEP 503); `url` has no fragment."""
    return _link(file, html.escape(file.filename), html.escape(url))


def _link(file: ShownFile, name: str, url: str) -> str:
    """The same, given the filename and the address as they are in HTML."""
    link = f'<a href="{url}'
    if (sha256 := file.sha256) is not None:
        link = f"{link}#sha256={sha256}"
    elif hashes := file.hashes:
        # uv rejects a page with a hash that it does not know.
        usable = (f"#{name}={hashes[name]}" for name in _IN_FRAGMENTS if name in hashes)
        link += next(usable, "")
    link = f'{link}"{_attributes(file.requires_python, file.yanked)}'
    if (sha256 := file.core_metadata_sha256) is not None:
        value = f"sha256={sha256}"
        link = f'{link} data-core-metadata="{value}" data-dist-info-metadata="{value}"'
    elif file.offers_core_metadata:
        link += ' data-core-metadata="true" data-dist-info-metadata="true"'
    if (provenance := file.provenance) is not None:
        link = f'{link} data-provenance="{html.escape(provenance)}"'
    if source := file.source:
        link = f'{link} data-source="{_escape(source[-1])}"'
    # These are not in PEP 503, but uv reads them.
    if (size := file.size) is not None:
        link = f'{link} data-size="{size}"'
    if (upload_time := file.upload_time) is not None:
        link = f'{link} data-upload-time="{upload_time}"'
    return f"{link}>{name}</a>"


@functools.lru_cache(maxsize=512)  # values that many files share
def _attributes(requires_python: str | None, yanked: str | None) -> str:
    text = ""
    if requires_python is not None:
        text += f' data-requires-python="{html.escape(requires_python)}"'
    if yanked is not None:
        text += f' data-yanked="{html.escape(yanked)}"'
    return text


def _links_of_rows(rows: Sequence[ShownColumns]) -> Iterator[str]:
    """What `_link` makes of each row, if its filename needs no escaping."""
    for uploaded_at, name, _, size, sha256, requires_python, yanked, metadata in rows:
        attributes = _attributes(requires_python, yanked)
        core = uploaded = ""
        if metadata is not None:
            value = f"sha256={metadata}"
            core = f' data-core-metadata="{value}" data-dist-info-metadata="{value}"'
        if uploaded_at is not None:
            uploaded = f' data-upload-time="{format_microseconds(uploaded_at)}"'
        yield (
            f'<a href="{name}#sha256={sha256}"{attributes}{core} data-size="{size}"{uploaded}>'
            f"{name}</a>"
        )


def _entries_of_rows(rows: Sequence[ShownColumns]) -> Iterator[str]:
    """What `_file_json` makes of each row, if its filename needs no escaping."""
    for uploaded_at, name, _, size, sha256, requires_python, yanked, metadata in rows:
        requires = uploaded = core = ""
        if requires_python is not None:
            requires = f',"requires-python":{_encode_text(requires_python)}'
        if uploaded_at is not None:
            uploaded = f',"upload-time":"{format_microseconds(uploaded_at)}"'
        if metadata is not None:
            hashes = f'{{"sha256":"{metadata}"}}'
            core = f',"core-metadata":{hashes},"data-dist-info-metadata":{hashes}'
        shown = "false" if yanked is None else _yanked_json(yanked)
        yield (
            f'{{"filename":"{name}","url":"{name}","hashes":{{"sha256":"{sha256}"}},'
            f'"size":{size}{requires}{uploaded}{core},"yanked":{shown}}}'
        )


def _page(title: str, body: str, head: str = "") -> str:
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="pypi:repository-version" content="{API_VERSION}">\n'
        f"{head}<title>{title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    )


def _json(value: dict[str, Any]) -> str:
    return _encode_json(value)
