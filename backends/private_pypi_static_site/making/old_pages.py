"""Reads the HTML pages of github-hosted-pypi and of MIT-Kavli-PyPi; decides nothing about them.

There, the pages are the only record of what is registered. Tools rewrite them (BeautifulSoup puts
every text on lines of its own), people edit them, and template changes have left old and new forms
side by side. So only what all forms have in common is relied on. A page is text from strangers:
nothing in it is run, and the time and memory for it grow in proportion to its size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final
from urllib.parse import unquote, urlsplit

from private_pypi.distributions.filenames import is_filename

_LONGEST: Final = 1000  # characters of a text
# What HTMLParser would need quadratic time for, or what is not the text of a page.
_NO_CONTENT: Final = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\b[^>]*>|\Z)|<[!?][^>]*(?:>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_NO_TAG: Final = re.compile(r"<(?!/?[A-Za-z][^<>]*>)")
_LOST_LINK: Final = re.compile(r"<a(?=\s)(?![^<>]*>)", re.IGNORECASE)
_QUOTED_URL: Final = re.compile(r"https?://[^\s'\"()<>]+")
_INDEX_URL: Final = re.compile(r"--(?:extra-)?index-url[\s=]+['\"]?(https?://[^\s'\"<>]+)")
_LOADED: Final = re.compile(r"load_readme\(\s*['\"]([^'\"]+)['\"]")
_AUTHOR: Final = re.compile(r"Authors?\s*:\s*(.*)")


@dataclass(frozen=True, slots=True)
class Listed:
    """A version as a project page lists it: a link and its text."""

    text: str  # what people took for the version
    href: str
    tag: str | None  # of the element around it; its README was loaded from this tag


@dataclass(frozen=True, slots=True)
class Card:
    """A project as the home page lists it."""

    href: str
    name: str
    version: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OldPage:
    """What a page says; each text is on one line, and "" if there is none."""

    title: str
    header: str  # of a project page: the name of the project
    homepage: str
    author: str
    versions: tuple[Listed, ...]
    cards: tuple[Card, ...]
    index_urls: tuple[str, ...]  # that its commands for pip have
    has_lost_links: bool  # whether it has links that cannot be read, such as with "<" inside


def read_page(html: str) -> OldPage:
    """Read a home page or a project page; what is not there is empty."""
    parser = _Parser()
    content = _NO_CONTENT.sub(" ", html)
    parser.feed(_NO_TAG.sub("&lt;", content))
    parser.close()
    author = _AUTHOR.search(_joined(parser.texts["author"]))
    return OldPage(
        title=_joined(parser.texts["title"]),
        header=_joined(parser.texts["header"]),
        homepage=parser.homepage,
        author=author[1] if author else "",
        versions=tuple(
            Listed(_joined(each.texts["name"]), each.href, each.tag)
            for each in parser.anchors
            if is_version_link(each.href)
        ),
        cards=tuple(
            Card(each.href, *(_joined(each.texts[part]) for part in _PARTS))
            for each in parser.anchors
            if not is_version_link(each.href)
        ),
        index_urls=tuple(parser.index_urls),
        has_lost_links=_LOST_LINK.search(content) is not None,
    )


def is_version_link(href: str) -> bool:
    """Whether an anchor is one of those from which installers take a version."""
    if href.startswith("git+"):
        return True
    try:
        return is_filename(unquote(urlsplit(href).path))
    except ValueError:  # such as http://[
        return False


_PARTS: Final = ("name", "version", "description")


@dataclass(slots=True)
class _Anchor:
    href: str
    tag: str | None
    texts: dict[str, list[str]] = field(default_factory=lambda: {part: [] for part in _PARTS})


class _Parser(HTMLParser):
    """Notes what is inside the few elements that matter; their nesting is not followed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: dict[str, list[str]] = {"title": [], "header": [], "author": []}
        self.homepage = ""
        self.anchors: list[_Anchor] = []
        self.index_urls: dict[str, None] = {}  # in order
        self._texts: list[str] | None = None  # where the text of the open element goes
        self._anchor: _Anchor | None = None
        self._tag: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in reversed(attrs)}  # the first one counts
        classes = values.get("class", "").split()
        onclick = values.get("onclick", "")
        if values.get("id") == "repoHomepage" and not self.homepage:
            found = _QUOTED_URL.search(onclick) or _QUOTED_URL.match(values.get("href", ""))
            self.homepage = found[0] if found else ""
        loaded = _LOADED.search(onclick)
        if tag == "a":
            # Older pages have `onclick` at the link, and newer ones at the element around it.
            self._anchor = _Anchor(
                values.get("href", "").strip(), loaded[1] if loaded else self._tag
            )
            self._texts = self._anchor.texts["name"]
            self.anchors.append(self._anchor)
        elif tag == "div":
            self._tag = loaded[1] if loaded else values.get("id") or None
        elif tag == "span":
            # The name comes before the first span, of a card as well as of a header.
            part = next((each for each in classes if each in _PARTS), None)
            self._texts = self._anchor.texts[part] if self._anchor and part else None
        elif tag == "title":
            self._texts = self.texts["title"]
        elif tag == "section" and "header" in classes:
            self._texts = self.texts["header"]
        elif tag == "p" and "elem" in classes:
            self._texts = self.texts["author"]

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._anchor = self._texts = None
        elif tag in ("span", "title", "section", "p"):
            self._texts = None
        elif tag == "div":
            self._tag = None

    def handle_data(self, data: str) -> None:
        if self._texts is not None:
            self._texts.append(data)
        self.index_urls.update(dict.fromkeys(_INDEX_URL.findall(data)))


def _joined(texts: Iterable[str]) -> str:
    """Texts as one line of limited length."""
    return " ".join("".join(texts).split())[:_LONGEST]
