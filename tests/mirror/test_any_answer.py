"""Whatever an upstream answers is read, or is told to be no page: nothing else happens."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from private_pypi.backend import UpstreamFile
from private_pypi_mirror.html import NotAPage
from private_pypi_mirror.names import html_names, json_names
from private_pypi_mirror.pages import html_page, json_page

URL = "https://pypi.acme.example/simple/demo/"
TEXTS = st.sampled_from(
    [
        *("1.0", "1", "demo", "demo-1.0.zip", "true", "https://[::1", "https://a.example/x.zip#"),
        *("#sha256=abc", "\ud800", "", "sha256", "a" * 64, "2026-01-01T00:00:00Z", "-1", "//"),
        *("%00", "../..", "https://a.example:x/y.whl", "\x00"),
    ]
)
KEYS = st.sampled_from(
    [
        *("meta", "api-version", "name", "files", "filename", "url", "hashes", "size", "projects"),
        *("yanked", "core-metadata", "provenance", "upload-time", "requires-python", "sha256"),
        *("project-status", "status", "reason"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.text(max_size=5)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)
FILES = st.lists(st.dictionaries(KEYS, VALUES, max_size=6), max_size=3)
PIECES = st.sampled_from(
    [
        *(
            "<a href=",
            "'",
            '"',
            ">",
            "<",
            "</a>",
            "demo-1.0.zip",
            "<!--",
            "-->",
            "<![",
            "<!",
            "]]>",
        ),
        *("<?", "&", "&#", "&#x110000;", "=", " ", "/", "\x00", "<script>", "</script", "<base "),
        *("<meta name='pypi:repository-version' content='1.0'>", "<h1>", "index of", "</html>"),
        *("href='https://[::1/'", "data-yanked", "#sha256=", "demo/", "<![CDATA[", "<title>"),
    ]
)


def check(files: list[UpstreamFile]) -> None:
    for file in files:
        texts = [file.filename, file.url, file.requires_python, file.yanked, file.provenance]
        for text in [*texts, *file.hashes, *file.hashes.values()]:
            (text or "").encode()
        assert "#" not in file.url
        assert file.size is None or file.size >= 0
        assert len(file.hashes.get("sha256", "a" * 64)) == 64
    assert len({file.filename for file in files}) == len(files)


@given(VALUES | st.fixed_dictionaries({"meta": st.just({"api-version": "1.0"}), "files": FILES}))
def test_any_json(value: Any) -> None:
    content = json.dumps(value).encode()
    try:
        files, _ = json_page(content, URL, "demo")
    except NotAPage:
        return
    check(files)


@given(VALUES, st.integers(min_value=0, max_value=200), st.binary(max_size=3))
def test_any_list_in_json(value: Any, place: int, noise: bytes) -> None:
    content = json.dumps({"meta": {"api-version": "1.0"}, "projects": value}).encode()
    content = content[:place] + noise + content[place:]
    try:
        found = list(json_names(iter([content[:7], content[7:]])))
    except NotAPage:
        return
    assert all(isinstance(name, str) for name in found)


@given(st.lists(PIECES | TEXTS, max_size=30).map("".join))
@example("<![\n")
@example("<![foo[ ]]>")
def test_any_html(text: str) -> None:
    for needs_end in (True, False):
        try:
            files, _ = html_page([text[:5], text[5:]], URL, needs_end=needs_end)
        except NotAPage:
            pass
        else:
            check(files)
        try:
            names = list(html_names([text], URL, needs_end=needs_end))
        except NotAPage:
            pass
        else:
            assert "" not in names
