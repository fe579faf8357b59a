"""Reads the list of projects, in JSON or HTML, while it arrives; does no I/O.

The list of the public index has 700,000 names in 40 MB, so neither the body nor the names are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote, urlsplit

import ijson

from private_pypi.distributions.filenames import project_name
from private_pypi_mirror.addresses import resolved
from private_pypi_mirror.html import IndexParser, NotAPage
from private_pypi_mirror.pages import ENDINGS, base_of, require_version

_MOST: Final = 5_000_000  # names
_DEEPEST: Final = 32  # levels of JSON
_FILES: Final = (*ENDINGS, ".html", ".json", ".txt", ".xml")  # how what is no folder ends
_LONGEST: Final = 1 << 20  # bytes of one value in JSON


def json_names(pieces: Iterator[bytes]) -> Iterator[str]:
    """The names in a list in JSON (PEP 691). Raises `NotAPage`, at the end if it is cut off."""
    reader = _Reader(pieces)
    path: list[str] = []  # the keys that lead to the current value, "" for an item of a list
    version: object = None
    has_projects, count, entries = False, 0, 0
    try:
        for event, value in ijson.basic_parse(reader, buf_size=_Reader.SIZE):
            reader.quiet = 0
            if len(path) == 2 and path[0] == "projects" and event != "end_array":
                entries += 1
            if event == "map_key":
                path[-1] = value
            elif event in ("start_map", "start_array"):
                has_projects |= event == "start_array" and path == ["projects"]
                path.append("")
                if len(path) > _DEEPEST:
                    raise NotAPage("the JSON is nested too deeply")
            elif event in ("end_map", "end_array"):
                path.pop()
            elif len(path) == 3 and path[2] == "name" and path[0] == "projects":
                if event != "string":
                    raise NotAPage("the JSON has a project whose name is not text")
                count = _counted(count)
                yield value
            elif path == ["meta", "api-version"]:
                version = str(value)
    except (ijson.JSONError, UnicodeDecodeError):
        raise NotAPage("the list is not JSON, or is cut off") from None
    require_version({"api-version": version})
    if not has_projects:
        raise NotAPage("the JSON has no list 'projects'")
    if count != entries:
        raise NotAPage("the JSON has a project without a name, or with several")


class _Reader:
    """The pieces as a file for ijson."""

    SIZE = 64 << 10  # bytes

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.quiet = 0
        """Bytes since the last event: the parser keeps them, because they are one value."""

    def read(self, size: int) -> bytes:
        while not self._rest and size:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        found, self._rest = self._rest[:size], self._rest[size:]
        self.quiet += len(found)
        if self.quiet > _LONGEST:
            raise NotAPage(f"the JSON has a value of more than {_LONGEST} bytes")
        return found


def html_names(texts: Iterable[str], url: str, *, needs_end: bool) -> Iterator[str]:
    """The same of a list in HTML (PEP 503). A project is a link to what is directly below the list.

    `needs_end`: see `IndexParser.finish`.
    """
    parser, seen, count = IndexParser(), 0, 0
    for text in texts:
        parser.take(text)
        links, parser.links = parser.links, []
        if links:
            base = base_of(parser, url)
            folder = urlsplit(base).path.rpartition("/")[0] + "/"
            seen += len(links)
            for link in links:
                name = _linked_project(base, folder, link["href"] or "")
                if name is not None:
                    count = _counted(count)
                    yield name
    parser.finish(needs_end=needs_end)
    parser.require_index(has_entries=count > 0)
    if seen and not count:
        raise NotAPage(f"none of the {seen} links in the list leads to a project below its address")


def _linked_project(base: str, folder: str, link: str) -> str | None:
    """The project that a link in the list leads to; None: it leads to something else.

    `folder`: the path of `base`, up to its last slash.
    """
    name = link.removeprefix(folder).removesuffix("/")
    # The usual link is `name/` or `/simple/name/`, hundreds of thousands of times.
    if not name.isascii() or not name.replace("-", "").isalnum():
        try:
            parts = urlsplit(resolved(base, link)[0])
        except ValueError:
            raise NotAPage("the list has a link that is not an address") from None
        path = unquote(parts.path).removesuffix("/index.html")
        parent, _, name = path.removesuffix("/").rpartition("/")
        is_below = (parts.netloc, f"{parent}/") == (urlsplit(base).netloc, unquote(folder))
        # A query is the order of a listing of a folder.
        if not is_below or parts.query or name.lower().endswith(_FILES):
            return None
    return name if project_name(name) is not None else None


def _counted(count: int) -> int:
    if count == _MOST:
        raise NotAPage(f"the list has more than {_MOST} names")
    return count + 1
