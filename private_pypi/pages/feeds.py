"""Makes RSS 2.0 feeds of new projects and releases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from xml.sax.saxutils import escape

# Characters that XML 1.0 does not allow, not even escaped (§2.2). Summaries may contain them.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry of a feed."""

    title: str
    link: str  # an absolute URL, which also identifies the entry
    summary: str | None
    published_at: datetime | None  # UTC; None: unknown


def feed(title: str, link: str, description: str, items: Sequence[Item]) -> str:
    """The text of a feed. `link` is the absolute URL of the page to which the feed belongs."""
    channel = _element("title", title) + _element("link", link)
    channel += _element("description", description) + _element("language", "en")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<rss version="2.0"><channel>\n{channel}{"".join(map(_item, items))}</channel></rss>\n'
    )


def _item(item: Item) -> str:
    text = _element("title", item.title) + _element("link", item.link)
    text += _element("guid", item.link) + _element("description", item.summary or "")
    if item.published_at is not None:
        text += _element("pubDate", format_datetime(item.published_at, usegmt=True))
    return f"<item>\n{text}</item>\n"


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(_NOT_XML.sub('�', text))}</{name}>\n"
