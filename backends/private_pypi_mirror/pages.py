"""Reads the page of a project, in JSON (PEP 691) or HTML (PEP 503); does no I/O.

Real indexes are less strict than the specifications. What is missing or has the wrong type counts
as not said, if that does no harm. A page that lacks what makes it an index page, or has a hash that
cannot be one, is refused as a whole: a file without its hash or a shorter page would be wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from private_pypi.backend import UpstreamFile
from private_pypi.distributions.filenames import normalize
from private_pypi.model import ProjectStatus
from private_pypi_mirror.addresses import last_component, resolved
from private_pypi_mirror.html import Attributes, IndexParser, NotAPage

_HEX: Final = re.compile("[0-9a-f]+")
_DIGITS: Final = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}
"""How many digits the hashes have that links may name after a `#`."""
_MOST_VALUES: Final = 2_000_000  # on a page
_MOST_FILES: Final = 100_000  # on a page, each of which takes about 1 KiB of memory
_MOST_BYTES: Final = 2**53  # of a file; larger numbers are not exact in JSON
ENDINGS: Final = (
    *(".whl", ".egg", ".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tbz", ".tar.xz", ".tar.z", ".tar"),
    *(".exe", ".msi", ".dmg", ".rpm", ".deb"),
)
"""How files of an index end, or have ended (PEP 527)."""

Page = tuple[list[UpstreamFile], ProjectStatus | None]


def json_page(content: bytes, url: str, project: str) -> Page:
    """The files and the status on a page in JSON; `url` is its address. Raises `NotAPage`."""
    page = read_json(content)
    require_version(page.get("meta"))
    name = page.get("name")
    if isinstance(name, str) and normalize(name) != project:
        raise NotAPage(f"the answer is the page of another project, {_text(name)[:100]!r}")
    files = page.get("files")
    if not isinstance(files, list):
        raise NotAPage("the JSON has no list 'files'")
    _require_few(files)
    meta = page["meta"]
    status = page.get("project-status", meta.get("project-status"))
    return _once(_json_file(each, url) for each in files), _json_status(status)


def html_page(texts: Iterable[str], url: str, *, needs_end: bool) -> Page:
    """The same of a page in HTML, which comes in pieces. Raises `NotAPage`.

    `needs_end`: see `IndexParser.finish`.
    """
    parser = IndexParser()
    for text in texts:
        parser.take(text)
        _require_few(parser.links)
    parser.finish(needs_end=needs_end)
    base = base_of(parser, url)
    files = _once(found for link in parser.links if (found := _html_file(link, base)) is not None)
    parser.require_index(has_entries=bool(files))
    declared = parser.declared
    return files, _status(declared.get("project-status"), declared.get("project-status-reason"))


def base_of(parser: IndexParser, url: str) -> str:
    """The address that the links of an HTML page are relative to. Raises `NotAPage`."""
    try:
        return url if parser.base is None else resolved(url, parser.base)[0]
    except ValueError:
        raise NotAPage("the page names a base that is not an address") from None


def read_json(content: bytes) -> dict[str, Any]:
    """An object in JSON; raises `NotAPage`."""
    # An empty list takes 2 bytes in JSON and 56 in memory.
    if sum(content.count(sign) for sign in (b",", b"[", b"{")) > _MOST_VALUES:
        raise NotAPage(f"the JSON has more than {_MOST_VALUES} values")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):  # also: not UTF-8, too many digits, nested too deeply
        raise NotAPage("the answer is not JSON, although it says so") from None
    if not isinstance(found, dict):
        raise NotAPage("the JSON is not an object")
    return found


def require_version(meta: object) -> None:
    """Raise unless the value of `meta` names version 1 of the simple API (PEP 629)."""
    version = meta.get("api-version") if isinstance(meta, dict) else None
    if not isinstance(version, str | float | int) or str(version).partition(".")[0] != "1":
        raise NotAPage(
            "the JSON does not say that it has version 1 of the simple API (meta.api-version)"
        )


def _require_few(files: Sequence[object]) -> None:
    if len(files) > _MOST_FILES:
        raise NotAPage(f"the page has more than {_MOST_FILES} files")


def _once(files: Iterator[UpstreamFile]) -> list[UpstreamFile]:
    """The files without those whose name another one had before."""
    found: dict[str, UpstreamFile] = {}
    for file in files:
        found.setdefault(file.filename, file)
    return list(found.values())


# -- JSON ----------------------------------------------------------------------------------------


def _json_file(entry: object, base: str) -> UpstreamFile:
    if not isinstance(entry, dict):
        raise NotAPage("the JSON has a file that is not an object")
    filename, link = entry.get("filename"), entry.get("url")
    if not isinstance(filename, str) or not isinstance(link, str) or not filename:
        raise NotAPage("the JSON has a file without 'filename' or 'url'")
    url, fragment = _resolved(base, _text(link))
    hashes = entry.get("hashes")
    if hashes is not None and not isinstance(hashes, dict):
        raise NotAPage(f"the hashes of {_text(filename)[:200]!r} are not an object")
    return UpstreamFile(
        filename=_text(filename),
        url=url,
        hashes=_hashes(hashes) if hashes else _fragment_hashes(fragment),
        size=_size(entry.get("size")),
        uploaded_at=_moment(entry.get("upload-time")),
        requires_python=_text_or_none(entry.get("requires-python")),
        yanked=_json_yanked(entry.get("yanked")),
        core_metadata=_json_metadata(entry),
        provenance=_provenance(entry.get("provenance")),
    )


def _json_yanked(value: object) -> str | None:
    # PEP 691: a boolean or a reason; an empty text is false.
    if not value:
        return None
    return _text(value) if isinstance(value, str) else ""


def _json_metadata(entry: Mapping[str, Any]) -> Mapping[str, str] | None:
    for key in ("core-metadata", "data-dist-info-metadata", "dist-info-metadata"):
        value = entry.get(key)
        if value is not None:
            return _metadata(value) if isinstance(value, dict) else ({} if value is True else None)
    return None


def _json_status(value: object) -> ProjectStatus | None:
    if isinstance(value, dict):
        return _status(value.get("status"), value.get("reason"))
    return _status(value, None)


# -- HTML ----------------------------------------------------------------------------------------


def _html_file(link: Attributes, base: str) -> UpstreamFile | None:
    """The file that a link leads to; None: it leads to something else, such as another folder.

    The filename is the last component of the address, as for pip, whatever the text of the link.
    """
    url, fragment = _resolved(base, link["href"] or "")
    filename = last_component(url)
    if not filename.lower().endswith(ENDINGS):
        return None
    yanked = link.get("data-yanked") or ""
    return UpstreamFile(
        filename=filename,
        url=url,
        hashes=_fragment_hashes(fragment),
        size=_size(link.get("data-size")),
        uploaded_at=_moment(link.get("data-upload-time")),
        requires_python=_text_or_none(link.get("data-requires-python")),
        yanked=yanked if "data-yanked" in link else None,
        core_metadata=_html_metadata(link),
        provenance=_provenance(link.get("data-provenance")),
    )


def _fragment_hashes(fragment: str) -> Mapping[str, str]:
    if not fragment:
        return {}
    pairs = (part.partition("=") for part in fragment.split("&"))
    return _hashes({name: value for name, _, value in pairs if name.lower() in _DIGITS})


def _html_metadata(link: Attributes) -> Mapping[str, str] | None:
    for key in ("data-core-metadata", "data-dist-info-metadata"):
        value = link.get(key)
        if value is not None:
            if value.strip().lower() == "true":
                return {}
            name, equals, digits = value.partition("=")
            return _metadata({name: digits}) if equals else None
    return None


# -- both ----------------------------------------------------------------------------------------


def _resolved(base: str, link: str) -> tuple[str, str]:
    try:
        return resolved(base, link)
    except ValueError:
        raise NotAPage("the page has a link that is not an address") from None


def _hashes(given: Mapping[str, Any]) -> Mapping[str, str]:
    """Hashes by algorithm, all in lower case; raises `NotAPage` for one that cannot be one."""
    found = {}
    for name, value in given.items():
        if not value:  # null, or nothing after "sha256="
            continue
        algorithm = name.strip().lower()
        digits = value.strip().lower() if isinstance(value, str) else ""
        if not _HEX.fullmatch(digits) or len(digits) != _DIGITS.get(algorithm, len(digits)):
            raise NotAPage(f"the page has a hash that is not one of {_text(algorithm)[:20]!r}")
        found[algorithm] = digits
    return found


def _metadata(given: Mapping[str, Any]) -> Mapping[str, str] | None:
    """The same of core metadata, which are not taken if their hash is wrong."""
    try:
        return _hashes(given)
    except NotAPage:
        return None


def _size(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 16:
        value = int(value)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and 0 <= value < _MOST_BYTES else None  # type: ignore[operator,return-value]


def _moment(value: object) -> datetime | None:
    """A moment in ISO 8601 with its offset (PEP 700); more than six digits are cut."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        return None if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _provenance(value: object) -> str | None:
    is_absolute = isinstance(value, str) and value.startswith("https://")
    return _text(value) if is_absolute else None  # type: ignore[arg-type]


def _status(status: object, reason: object) -> ProjectStatus | None:
    if not isinstance(status, str) or status.strip().lower() in ("", "active"):
        return None
    return ProjectStatus(_text(status.strip().lower()), _text_or_none(reason))


def _text_or_none(value: object) -> str | None:
    return _text(value) if isinstance(value, str) and value else None


def _text(value: str) -> str:
    """The text without surrogates, which JSON can contain, but neither UTF-8 nor databases."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
