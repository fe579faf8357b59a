"""The fields of core metadata that are shown to people, such as the summary and the README.

Any content can be parsed without an error, with limited time and memory. The values are unchanged
texts of a publisher, so they must be escaped where they are shown. Only links are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import getaddresses
from urllib.parse import quote, urlsplit

from private_pypi.distributions.core_metadata import read_fields, split_headers
from private_pypi.distributions.records import one_line, printable

_LONGEST_HEADERS = 256 * 1024  # bytes; the rest is ignored
_LONGEST_DESCRIPTION = 256 * 1024  # bytes
_LONGEST_VALUE = 300  # characters of a value on one line
_LONGEST_PEOPLE = 4096  # characters of an Author-email, which can have several addresses
_MOST_VALUES = 200  # of one field; the rest is ignored

_LINE_END = re.compile(r"\r\n|\r|\n")
# How continuation lines of a Description in the headers begin (core metadata specification).
_FOLDED = re.compile(r"^(?: {7}\|| {8}|\t)", re.MULTILINE)
_UNSAFE_IN_URL = re.compile(r"[\x00-\x20\x7f-\x9f<>\"\\^`{|}]")


@dataclass(frozen=True, slots=True)
class Link:
    """A link that may be shown on a page: its scheme is http, https or mailto."""

    label: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The fields that are shown to people. A field that a release does not have is empty."""

    summary: str | None = None
    authors: tuple[Link | str, ...] = ()
    maintainers: tuple[Link | str, ...] = ()
    license: str | None = None
    keywords: tuple[str, ...] = ()
    classifiers: tuple[str, ...] = ()
    requires_python: str | None = None
    requires: tuple[str, ...] = ()  # Requires-Dist
    extras: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    text: str = ""  # the README, in the markup of `content_type`
    content_type: str = ""  # as written, such as "text/markdown; variant=GFM"
    is_cut: bool = False  # whether only the beginning of the README is in `text`


NOTHING = Description()


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a METADATA or PKG-INFO file, as they are written."""

    values: Mapping[str, Sequence[str]]
    """By name in lower case, such as "requires-dist". Continuation lines are kept."""
    text: str  # the README: the body of the file, or its `Description` field
    is_cut: bool  # whether only the beginning of the README is in `text`


def parse_fields(core_metadata: bytes) -> Fields:
    """Parse METADATA or PKG-INFO; never fails.

    Only the first 256 KiB of the headers and of the README are used, and 200 values of each field.
    """
    headers, body = split_headers(core_metadata)
    fields: dict[str, list[str]] = {}
    for name, value in read_fields(headers[:_LONGEST_HEADERS]):
        values = fields.setdefault(name, [])
        if len(values) < _MOST_VALUES:
            values.append(value.decode(errors="replace").strip(" \t"))
    return Fields(fields, *_text(fields, body))


def parse_description(core_metadata: bytes) -> Description:
    """Parse METADATA or PKG-INFO, and shorten and order its fields for a page; never fails."""
    parsed = parse_fields(core_metadata)
    fields = parsed.values
    return Description(
        summary=one_line(_first(fields, "summary")),
        authors=_people(fields, "author"),
        maintainers=_people(fields, "maintainer"),
        license=_license(fields),
        keywords=_keywords(fields),
        classifiers=_all(fields, "classifier"),
        requires_python=_line(fields, "requires-python"),
        requires=_all(fields, "requires-dist"),
        extras=_all(fields, "provides-extra"),
        links=_links(fields),
        text=parsed.text,
        content_type=_line(fields, "description-content-type") or "",
        is_cut=parsed.is_cut,
    )


def safe_url(url: str) -> str | None:
    """The URL without spaces around it; None if it is not one that a page may link to."""
    url = url.strip()
    if len(url) > 2000 or _UNSAFE_IN_URL.search(url):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme in ("http", "https") and parts.netloc:
        return url
    return url if parts.scheme == "mailto" and "@" in parts.path else None


def _text(fields: Mapping[str, Sequence[str]], body: bytes) -> tuple[str, bool]:
    body = body.lstrip(b"\r\n")
    is_cut = len(body) > _LONGEST_DESCRIPTION
    text = body[:_LONGEST_DESCRIPTION].decode(errors="replace")
    if not text.strip():
        text, is_cut = _first(fields, "description") or "", False
        text = _FOLDED.sub("", _LINE_END.sub("\n", text))
    if text.strip() == "UNKNOWN":  # old versions of setuptools write it for no value
        return "", False
    return printable(_LINE_END.sub("\n", text)).strip("\n"), is_cut


def _first(fields: Mapping[str, Sequence[str]], name: str) -> str | None:
    return next(iter(fields.get(name, ())), None)


def _line(fields: Mapping[str, Sequence[str]], name: str) -> str | None:
    return _short(_first(fields, name) or "")


def _short(value: str) -> str | None:
    line = one_line(value)
    return line if line is None or len(line) <= _LONGEST_VALUE else line[:_LONGEST_VALUE] + "…"


def _all(fields: Mapping[str, Sequence[str]], name: str) -> tuple[str, ...]:
    lines = (_short(value) for value in fields.get(name, ()))
    return tuple(dict.fromkeys(line for line in lines if line is not None))


def _people(fields: Mapping[str, Sequence[str]], role: str) -> tuple[Link | str, ...]:
    """The people in `Author` and `Author-email`. The latter can have several, with their names."""
    people: dict[str, Link | str] = {}
    named = _line(fields, role)
    if named is not None:
        people[named] = named
    # An encoded name can contain a comma, so names are decoded after the list is split.
    addresses = getaddresses(
        [" ".join((_first(fields, f"{role}-email") or "").split())[:_LONGEST_PEOPLE]]
    )
    for name, address in addresses[:20]:
        name, address = _short(name) or "", _short(address) or ""
        url = safe_url("mailto:" + quote(address, safe="@+"))
        label = name or address
        if not name and named is not None and len(people) == 1:
            label = named  # one field has the name of this person, the other the address
        if label:
            people[label] = label if url is None else Link(label, url)
    return tuple(people.values())


def _license(fields: Mapping[str, Sequence[str]]) -> str | None:
    expression = _line(fields, "license-expression")
    if expression is not None:
        return expression
    # Many files have the whole text of a licence in this field; then only a short first line is
    # useful.
    text = _first(fields, "license") or ""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if first and first != "UNKNOWN" and len(first) <= 100:
        return printable(first)
    named = [name for name in _all(fields, "classifier") if name.startswith("License :: ")]
    return named[0].rpartition(" :: ")[2] if named else None


def _keywords(fields: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    text = one_line(_first(fields, "keywords")) or ""
    words = text.split(",") if "," in text else text.split()
    return tuple(dict.fromkeys(word.strip() for word in words if word.strip()))[:50]


def _links(fields: Mapping[str, Sequence[str]]) -> tuple[Link, ...]:
    pairs = [("Homepage", _first(fields, "home-page") or "")]
    for value in fields.get("project-url", ()):
        label, _, url = value.partition(",")
        pairs.append((_short(label) or "Link", url))
    pairs.append(("Download", _first(fields, "download-url") or ""))
    links: dict[str, Link] = {}
    for label, text in pairs:
        safe = safe_url(text)
        if safe is not None:
            links.setdefault(safe, Link(label, safe))
    return tuple(links.values())
