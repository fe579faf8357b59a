"""What a release says of itself for people: the fields of its core metadata; renders nothing.

Read leniently, in time and memory in proportion to the text: whatever a file holds, a page of it
can be shown. Every value is what a stranger wrote, so whoever shows it escapes it; only links are
checked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import getaddresses
from urllib.parse import quote, urlsplit

from private_pypi.core_metadata import split_headers
from private_pypi.records import one_line

_LONGEST_HEADERS = 256 * 1024  # bytes; what follows is not looked at
_LONGEST_DESCRIPTION = 256 * 1024  # bytes
_LONGEST_VALUE = 300  # characters of a value on one line
_MOST_VALUES = 200  # of one field

# A header with its continuation lines.
_FIELD = re.compile(
    rb"(?:\A|(?<=[\r\n]))([!-9;-~]++):([^\r\n]*+(?:(?:\r\n|\r|\n)[ \t][^\r\n]*+)*+)"
)
_LINE_END = re.compile(r"\r\n|\r|\n")
# Continuation lines of a Description in the headers (core metadata specification).
_FOLDED = re.compile(r"^(?: {7}\|| {8}|\t)", re.MULTILINE)
_UNSAFE_IN_URL = re.compile(r"[\x00-\x20\x7f-\x9f<>\"\\^`{|}]")


@dataclass(frozen=True, slots=True)
class Link:
    """A place that may be linked to: http, https or mailto, and nothing else."""

    label: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The fields that a page for people shows; empty where a release does not say."""

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
    is_cut: bool = False  # the text was longer than what is shown of it


NOTHING = Description()


def parse_description(core_metadata: bytes) -> Description:
    """Read METADATA or PKG-INFO; nothing in it is an error."""
    headers, body = split_headers(core_metadata)
    fields: dict[str, list[str]] = {}
    for match in _FIELD.finditer(headers[:_LONGEST_HEADERS]):
        values = fields.setdefault(match[1].decode().lower(), [])
        if len(values) < _MOST_VALUES:
            values.append(match[2].decode(errors="replace").strip(" \t"))
    text, is_cut = _text(fields, body)
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
        text=text,
        content_type=_line(fields, "description-content-type") or "",
        is_cut=is_cut,
    )


def safe_url(url: str) -> str | None:
    """The address if a page may link to it; None for other schemes and for what is no address."""
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
    if text.strip() == "UNKNOWN":  # what old setuptools wrote for nothing
        return "", False
    return _LINE_END.sub("\n", text).strip("\n"), is_cut


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
    """`Author` and `Author-email`: the latter may have names of its own, and several people."""
    people: dict[str, Link | str] = {}
    named = _line(fields, role)
    if named is not None:
        people[named] = named
    addresses = getaddresses([_line(fields, f"{role}-email") or ""])
    for name, address in addresses[:20]:
        url = safe_url("mailto:" + quote(address, safe="@+"))
        label = name or address
        if not name and named is not None and len(people) == 1:
            label = named  # of the two fields, one has the name and the other the address
        if label:
            people[label] = label if url is None else Link(label, url)
    return tuple(people.values())


def _license(fields: Mapping[str, Sequence[str]]) -> str | None:
    expression = _line(fields, "license-expression")
    if expression is not None:
        return expression
    # Many files have the whole text of a licence in this field.
    text = _first(fields, "license") or ""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if first and first != "UNKNOWN" and len(first) <= 100:
        return first
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
