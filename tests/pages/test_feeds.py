"""Feeds as text."""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from private_pypi.pages.feeds import Item, feed


def test_a_feed_is_rss_2_0() -> None:
    item = Item(
        title="demo 1.0",
        link="https://pypi.example/r/mine/project/demo/1.0/",
        summary="A & B",
        published_at=datetime(2026, 11, 1, 12, 30, tzinfo=UTC),
    )
    without_time = Item(title="old 1", link="https://x/", summary=None, published_at=None)
    root = ElementTree.fromstring(feed("mine", "https://x/", "News", [item, without_time]))
    assert (root.tag, root.attrib) == ("rss", {"version": "2.0"})
    (channel,) = root
    assert [(entry.tag, entry.text) for entry in channel if entry.tag != "item"] == [
        ("title", "mine"),
        ("link", "https://x/"),
        ("description", "News"),
        ("language", "en"),
    ]
    assert [[(entry.tag, entry.text) for entry in item] for item in channel.findall("item")] == [
        [
            ("title", "demo 1.0"),
            ("link", "https://pypi.example/r/mine/project/demo/1.0/"),
            ("guid", "https://pypi.example/r/mine/project/demo/1.0/"),
            ("description", "A & B"),
            ("pubDate", "Sun, 01 Nov 2026 12:30:00 GMT"),
        ],
        [("title", "old 1"), ("link", "https://x/"), ("guid", "https://x/"), ("description", None)],
    ]


@given(st.text())
def test_whatever_a_summary_says_the_feed_is_well_formed(text: str) -> None:
    item = Item(title=text, link=f"https://x/{text}", summary=text, published_at=None)
    written = feed(text, "https://x/", text, [item]).encode("utf-8", "strict")
    ElementTree.fromstring(written)
