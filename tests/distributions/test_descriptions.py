"""The fields for people are read from real and from hostile files."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from private_pypi.distributions.descriptions import Description, Link, parse_description, safe_url


def test_a_modern_file() -> None:
    content = b"""\
Metadata-Version: 2.4
Name: demo
Version: 1.0
Summary: A demo
Author-email: Ada <ada@a.example>, jun@a.example
Maintainer: Eve
License-Expression: MIT
Keywords: one,two words
Classifier: Topic :: A
Classifier: Topic :: B
Project-URL: Docs, https://docs.example/a?b=c
Project-URL: Chat, irc://chat.example
Requires-Python: >=3.8
Requires-Dist: httpx (>=0.27)
Requires-Dist: tzdata;
  platform_system == "Windows"
Provides-Extra: plot
Description-Content-Type: text/markdown; variant=GFM

# Demo

Gr\xc3\xbc\xc3\x9fe.
"""
    assert parse_description(content) == Description(
        summary="A demo",
        authors=(
            Link("Ada", "mailto:ada@a.example"),
            Link("jun@a.example", "mailto:jun@a.example"),
        ),
        maintainers=("Eve",),
        license="MIT",
        keywords=("one", "two words"),
        classifiers=("Topic :: A", "Topic :: B"),
        requires_python=">=3.8",
        requires=("httpx (>=0.27)", 'tzdata; platform_system == "Windows"'),
        extras=("plot",),
        links=(Link("Docs", "https://docs.example/a?b=c"),),
        text="# Demo\n\nGrüße.",
        content_type="text/markdown; variant=GFM",
    )


def test_an_old_file() -> None:
    content = (
        b"Metadata-Version: 1.1\r\nName: demo\r\nVersion: 1.0\r\nSummary: UNKNOWN\r\n"
        b"Home-page: http://demo.example\r\nAuthor: Ada\r\nAuthor-email: ada@a.example\r\n"
        b"License: UNKNOWN\r\nDescription: Demo\r\n        ====\r\n        \r\n       |  code\r\n"
        b"Keywords: one two\r\n"
        b"Classifier: License :: OSI Approved :: MIT License\r\n"
    )
    assert parse_description(content) == Description(
        authors=(Link("Ada", "mailto:ada@a.example"),),
        license="MIT License",
        keywords=("one", "two"),
        classifiers=("License :: OSI Approved :: MIT License",),
        links=(Link("Homepage", "http://demo.example"),),
        text="Demo\n====\n\n  code",
    )


def test_headers_that_are_encoded_as_in_an_email_are_decoded() -> None:
    content = (
        b"Summary: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nAuthor: =?utf-8?b?w4XFgXVrYXN6?=\n"
        b"Author-email: =?utf-8?q?Fran=C3=A7ois=2C_B=2E?= <f@a.example>,\n"
        b" =?utf-8?q?Jun?= <jun@a.example>\nMaintainer-email: =?what?q?x?= <x@a.example>\n"
        b"Keywords: =?utf-8?q?sch=C3=B6n?=, new\n"
    )
    assert parse_description(content) == Description(
        summary="Grüße",
        authors=(
            "ÅŁukasz",
            Link("François, B.", "mailto:f@a.example"),
            Link("Jun", "mailto:jun@a.example"),
        ),
        maintainers=(Link("=?what?q?x?=", "mailto:x@a.example"),),
        keywords=("schön", "new"),
    )


def test_control_characters_are_shown_as_such() -> None:
    content = (
        b"Summary: \x1b[1mbold\nAuthor: \xc3\x85\xc2\x81ukasz\nLicense: MIT\x07\n\n"
        b"\x1b[32mPASSED\x1b[0m\r\nb\x08bo\x08o\tNUL: \x00 don\xc2\x92t\n"
    )
    assert parse_description(content) == Description(
        summary="\ufffd[1mbold",
        authors=("Å\ufffdukasz",),
        license="MIT\ufffd",
        text="\ufffd[32mPASSED\ufffd[0m\nb\ufffdbo\ufffdo\tNUL: \ufffd don\ufffdt",
    )


def test_a_whole_licence_is_not_shown() -> None:
    text = b"Permission is hereby granted " * 10
    assert parse_description(b"License: " + text + b"\n").license is None
    assert parse_description(b"License: \n  MIT\n  " + text + b"\n").license == "MIT"


def test_a_long_description_is_cut() -> None:
    found = parse_description(b"Name: demo\n\n" + b"x" * 2**20)
    assert (len(found.text), found.is_cut) == (256 * 1024, True)


def test_a_description_of_nothing() -> None:
    assert parse_description(b"") == Description()
    assert parse_description(b"Name: demo\n\nUNKNOWN\n") == Description()


@given(st.binary(max_size=300))
def test_no_file_is_an_error(content: bytes) -> None:
    found = parse_description(b"Author-email: " + content)
    for field in fields(found):
        getattr(found, field.name)
    for author in parse_description(b"Name: x\nAuthor-email: " + content).authors:
        assert isinstance(author, str) or author.url.startswith("mailto:")


@pytest.mark.parametrize(
    "url",
    ["https://a.example", "http://a.example/b?c=d#e", "mailto:a@b.example", " https://a.example "],
)
def test_an_address_that_may_be_linked_to(url: str) -> None:
    assert safe_url(url) == url.strip()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "java\tscript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "file:///etc/passwd",
        "//evil.example",
        "/logout/",
        "../logout/",
        "https:evil",
        "https:///evil",
        "https://a.example/\nb",
        'https://a.example/"onclick=',
        "https://[",
        "mailto:",
        "ftp://a.example",
        "https://a.example/" + "x" * 2000,
    ],
)
def test_an_address_that_may_not(url: str) -> None:
    assert safe_url(url) is None
