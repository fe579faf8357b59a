"""Reads HTML pages of the simple API piece by piece: links, headings and `pypi:` declarations.

What a link means is decided in `pages` and `names`.
"""

from __future__ import annotations

from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Final

_STEP: Final = 16 << 10  # characters that the parser is given at once
_LONGEST: Final = 256 << 10  # characters of a tag or comment
_HEADINGS: Final = ("title", "h1")
# How pages of indexes and listings of folders by web servers begin.
_TITLES: Final = ("links for", "simple index", "index of", "directory listing for")
_DECLARATION: Final = "pypi:"
_MOST_DECLARED: Final = 100
_OF_LINKS: Final = frozenset(
    (
        *("href", "data-core-metadata", "data-dist-info-metadata", "data-provenance"),
        *("data-requires-python", "data-size", "data-upload-time", "data-yanked"),
    )
)
"""The attributes of links that are used."""

Attributes = Mapping[str, str | None]
"""The attributes of a tag by name in lower case; None: an attribute without a value."""


class NotAPage(ValueError):
    """What the upstream sent is no page of an index, or a damaged one; the message says why."""


class IndexParser(HTMLParser):
    """Collects what a page of an index says. `links` may be emptied between two pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[Attributes] = []  # with an href
        self.declared: dict[str, str] = {}
        """The contents of `<meta name="pypi:…">` by what follows the colon."""
        self.base: str | None = None  # of `<base href>`
        self._has_form = False
        self._has_end = False
        self._has_title = False
        self._heading: list[str] | None = None

    def take(self, text: str) -> None:
        """Parse the next piece of the page."""
        for start in range(0, len(text), _STEP):
            try:
                self.feed(text[start : start + _STEP])
            except AssertionError:  # for some declarations, such as `<![x[`
                raise NotAPage("the page has a declaration that cannot be read") from None
            if len(self.rawdata) > _LONGEST:
                raise NotAPage(f"the page has a tag of more than {_LONGEST} characters")

    def finish(self, *, needs_end: bool) -> None:
        """Check that the page was whole.

        `needs_end`: its last tag must be there, because the connection did not say where the page
        ends.
        """
        # A tag, a comment or a script that has not ended.
        if "<" in self.rawdata or self.cdata_elem is not None:
            raise NotAPage("the page is cut off")
        if needs_end and not self._has_end:
            raise NotAPage(
                "the page may be cut off: the upstream neither says its length nor ends it with "
                "</html>"
            )
        version = self.declared.get("repository-version")
        if version is not None and version.partition(".")[0] != "1":
            raise NotAPage(
                f"the page has version {version[:20]!r} of the simple API; version 1 is understood"
            )

    def require_index(self, *, has_entries: bool) -> None:
        """Raise unless this is a page of an index.

        Proxies answer 200 with pages of their own, for people to sign in, for example, and such a
        page must not count as a project without files. A page of an index declares
        `pypi:repository-version` (PEP 629). If it does not, it must have no form, and either links
        to files or projects (`has_entries`), or a title that indexes and listings of folders have.
        This does not recognise each foreign page, but one that is taken for an index page has a
        link that ends like a distribution file, or such a title.
        """
        if "repository-version" in self.declared:
            return
        if self._has_form:
            raise NotAPage("the answer is a page with a form, not a page of an index")
        if not has_entries and not self._has_title:
            raise NotAPage(
                "the answer is HTML without links to packages and does not declare "
                "pypi:repository-version, so it is not a page of an index"
            )

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            # Others are left out, because a page may have millions of them.
            found = {name: value for name, value in attrs if name in _OF_LINKS}
            if found.get("href") is not None:
                self.links.append(found)
        elif tag == "meta":
            given = dict(attrs)
            name, content = given.get("name") or "", given.get("content")
            is_declared = name.startswith(_DECLARATION) and len(self.declared) < _MOST_DECLARED
            if is_declared and content is not None:
                self.declared.setdefault(name.removeprefix(_DECLARATION), content.strip())
        elif tag == "base" and self.base is None:
            self.base = dict(attrs).get("href")
        elif tag == "form":
            self._has_form = True
        elif tag in _HEADINGS:
            self._heading = []

    def handle_endtag(self, tag: str) -> None:
        if tag in _HEADINGS and self._heading is not None:
            self._has_title |= "".join(self._heading).strip().lower().startswith(_TITLES)
            self._heading = None
        elif tag in ("html", "body"):
            self._has_end = True

    def handle_data(self, data: str) -> None:
        if self._heading is not None and len(self._heading) < 100:
            self._heading.append(data)
