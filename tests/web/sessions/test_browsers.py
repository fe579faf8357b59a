"""Which requests are those of browsers, and which addresses and forms are safe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from private_pypi.web.sessions.browsers import (
    is_browser,
    is_own_form,
    safe_next,
    shown_host,
    to_root,
)

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"User-Agent": FIREFOX, "Accept": HTML}, True),
        ({"Sec-Fetch-Mode": "navigate"}, True),
        ({"User-Agent": FIREFOX, "Accept": HTML, "Authorization": "Basic x"}, False),
        ({"Sec-Fetch-Mode": "navigate", "Authorization": "Basic x"}, False),
        ({"Sec-Fetch-Mode": "cors", "User-Agent": FIREFOX, "Accept": "*/*"}, False),
        ({"User-Agent": "pip/26.3", "Accept": "text/html"}, False),
        ({"User-Agent": "Python-urllib/3.11", "Accept": HTML}, False),
        ({"User-Agent": "uv/0.13.8", "Accept": "application/vnd.pypi.simple.v1+json"}, False),
        ({"User-Agent": FIREFOX, "Accept": "application/json"}, False),
        ({}, False),
    ],
)
def test_a_browser(headers: dict[str, str], expected: bool) -> None:
    assert is_browser(Headers(headers)) is expected


@pytest.mark.parametrize(
    "path",
    ["/", "/simple/", "/r/mine/project/demo/?page=2", "/r/mine/?q=a%20b", "/a:b/", "/r/x/#files"],
)
def test_a_way_within_the_server(path: str) -> None:
    assert safe_next(path) == path


@pytest.mark.parametrize(
    "path",
    [
        None,
        "",
        "simple/",
        "//evil.example/",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/%2Fevil.example",
        "/%5Cevil.example",
        "/a/../../etc",
        "/%2e%2e/other",
        "/./",
        "/a\r\nSet-Cookie: x=y",
        "/a%0d%0ab",
        "/a b",
        "/é",
        "/\x00",
        "/" + "x" * 2001,
    ],
)
def test_a_way_elsewhere(path: str | None) -> None:
    assert safe_next(path) is None


@given(st.text(max_size=20))
def test_a_way_never_leaves(text: str) -> None:
    found = safe_next("/" + text)
    assert found is None or (found[:2] not in ("//", "/\\") and found.isascii())


@pytest.mark.parametrize(
    ("headers", "host", "expected"),
    [
        ({}, "pypi.acme.example", True),  # an old browser: the token decides
        ({"Sec-Fetch-Site": "same-origin"}, "pypi.acme.example", True),
        ({"Sec-Fetch-Site": "none"}, "pypi.acme.example", True),
        ({"Sec-Fetch-Site": "same-site"}, "pypi.acme.example", False),
        ({"Sec-Fetch-Site": "cross-site"}, "pypi.acme.example", False),
        ({"Origin": "https://pypi.acme.example"}, "pypi.acme.example", True),
        ({"Origin": "https://pypi.acme.example"}, "pypi.acme.example:443", True),
        ({"Origin": "http://127.0.0.1:8888"}, "127.0.0.1:8888", True),
        ({"Origin": "http://[::1]:8888"}, "[::1]:8888", True),
        ({"Origin": "http://127.0.0.1:9999"}, "127.0.0.1:8888", False),
        ({"Origin": "https://evil.example"}, "pypi.acme.example", False),
        ({"Origin": "null"}, "pypi.acme.example", False),
        ({"Origin": "https://pypi.acme.example:x"}, "pypi.acme.example", False),
    ],
)
def test_a_form_of_ours(headers: dict[str, str], host: str, expected: bool) -> None:
    assert is_own_form(Headers(headers), host) is expected


@pytest.mark.parametrize("host", ["a.example", "a.example:8888", "127.0.0.1", "[::1]:8888"])
def test_a_host_that_may_be_shown(host: str) -> None:
    assert shown_host(host) == host


@pytest.mark.parametrize("host", ["", "a;rm -rf", "a b", "<b>", "a:b", "$(x)", "`x`"])
def test_a_host_that_may_not(host: str) -> None:
    assert shown_host(host) is None


@pytest.mark.parametrize(
    ("path", "way"), [("/", "./"), ("/simple", "./"), ("/login/", "../"), ("/r/x/y/", "../../../")]
)
def test_the_way_to_the_root(path: str, way: str) -> None:
    assert to_root(path) == way
