"""The exact pages of the simple API, and their content types for the clients."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from private_pypi.model import ListedFile
from private_pypi.pages.simple_api import (
    Representation,
    named_representation,
    negotiate,
    project_detail,
    project_list,
)
from tests.files import make_file

DEMO = canonicalize_name("demo")
WHEEL = make_file(
    "demo-1.0+cu1-py3-none-any.whl",
    size=1234,
    sha256="a" * 64,
    uploaded_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    requires_python=">=3.8,<4",
    core_metadata_sha256="b" * 64,
    location="somewhere",
)
BARE = replace(
    WHEEL,
    filename="demo-1.0+cu1.tar.gz",
    uploaded_at=None,
    requires_python=None,
    core_metadata_sha256=None,
)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        # what clients really send
        (
            "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, "
            "text/html; q=0.01",
            Representation.JSON,
        ),
        (
            "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, "
            "text/html;q=0.01",
            Representation.JSON,
        ),
        ("application/vnd.pypi.simple.v1+json, */*;q=0.1", Representation.JSON),
        ("application/vnd.pypi.simple.v1+json;q=1, text/html;q=0.1", Representation.JSON),
        (None, Representation.TEXT_HTML),
        ("", Representation.TEXT_HTML),
        ("*/*", Representation.TEXT_HTML),
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            Representation.TEXT_HTML,
        ),
        ("application/vnd.pypi.simple.latest+json", Representation.JSON),
        ("APPLICATION/VND.PYPI.SIMPLE.V1+JSON", Representation.JSON),
        (
            "application/vnd.pypi.simple.v1+json;q=0.5, text/html;q=0.5",
            Representation.JSON,
        ),
        ("application/vnd.pypi.simple.v1+html", Representation.HTML),
        ("application/*", Representation.JSON),
        ("text/*", Representation.TEXT_HTML),
        ("application/xml", None),
        ("application/json", None),
        ("text/html;q=0", None),
        ("*/*, application/vnd.pypi.simple.v1+json;q=0", Representation.TEXT_HTML),
        ("text/html;q=.5, application/vnd.pypi.simple.v1+json;q=.4", Representation.TEXT_HTML),
        ("text/html;q=nonsense, application/vnd.pypi.simple.v1+html;q=0.1", Representation.HTML),
    ],
)
def test_negotiation_gives_every_client_what_it_understands(
    accept: str | None, chosen: Representation | None
) -> None:
    assert negotiate(accept) is chosen


@given(st.text(st.sampled_from("aptlinchvd./*+;=q01, jsoml")))
def test_negotiation_never_fails(accept: str) -> None:
    assert negotiate(accept) in {*Representation, None}


@given(
    st.dictionaries(
        st.sampled_from([r.value for r in Representation]),
        st.integers(0, 1000),
        min_size=1,
    )
)
def test_the_best_quality_wins(qualities: dict[str, int]) -> None:
    accept = ", ".join(f"{name};q={q / 1000:.3f}" for name, q in qualities.items())
    chosen = negotiate(accept)
    best = max(qualities.values())
    if best == 0:
        assert chosen is None
    else:
        assert chosen is not None
        assert qualities[chosen.value] == best


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("application/vnd.pypi.simple.v1+json", Representation.JSON),
        ("application/vnd.pypi.simple.v1 json", Representation.JSON),  # protocol 4
        ("application/vnd.pypi.simple.latest+html", Representation.HTML),
        ("application/json", None),
    ],
)
def test_a_format_may_be_named(name: str, chosen: Representation | None) -> None:
    assert named_representation(name) is chosen


def test_a_project_in_json_has_every_fact_and_no_null() -> None:
    yanked = replace(BARE, yanked="", filename="demo-0.9.zip", version="0.9")
    page = project_detail(DEMO, [yanked, WHEEL], Representation.JSON, serial=7)
    assert json.loads(page) == {
        "meta": {"api-version": "1.4", "_last-serial": 7},
        "name": "demo",
        "versions": ["0.9", "1.0+cu1"],
        "files": [
            {
                "filename": "demo-0.9.zip",
                "url": "demo-0.9.zip",
                "hashes": {"sha256": "a" * 64},
                "size": 1234,
                "yanked": True,  # protocol 16: true instead of an empty reason
            },
            {
                "filename": "demo-1.0+cu1-py3-none-any.whl",
                "url": "demo-1.0%2Bcu1-py3-none-any.whl",  # protocol 28
                "hashes": {"sha256": "a" * 64},
                "size": 1234,
                "requires-python": ">=3.8,<4",
                "upload-time": "2026-01-02T03:04:05.000006Z",
                "core-metadata": {"sha256": "b" * 64},
                "data-dist-info-metadata": {"sha256": "b" * 64},
                "yanked": False,
            },
        ],
    }
    assert "null" not in page  # protocol 15


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)


@given(TEXT, TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=3), st.booleans())
def test_json_survives_whatever_another_index_says(
    filename: str, text: str, sha256: str, hashes: dict[str, str], is_hashed: bool
) -> None:
    hostile = ListedFile(
        project=DEMO,
        filename=filename,
        size=None,
        sha256=sha256 if is_hashed else None,
        location="",
        version=text,
        uploaded_at=None,
        requires_python=text,
        yanked=text,
        core_metadata_sha256=None,
        offers_unhashed_metadata=True,
        hashes=hashes,
        provenance=text,
        source=("all", text),
    )
    page = project_detail(
        DEMO, [hostile, hostile], Representation.JSON, serial=None, address=lambda file: text
    )
    entry = {
        "filename": filename,
        "url": text,
        "hashes": {**({"sha256": sha256} if is_hashed else {}), **hashes},
        "requires-python": text,
        "core-metadata": True,
        "data-dist-info-metadata": True,
        "yanked": text,
        "provenance": text,
        "_source": text,
    }
    assert json.loads(page) == {
        "meta": {"api-version": "1.4"},
        "name": "demo",
        "versions": [text],
        "files": [entry, entry],
    }


def test_versions_are_named_once() -> None:
    page = json.loads(project_detail(DEMO, [BARE, WHEEL], Representation.JSON, serial=1))
    assert page["versions"] == ["1.0+cu1"]  # protocol 12


def test_a_project_in_html_is_exactly_this() -> None:
    hostile = replace(BARE, yanked='"><script>', requires_python=None)
    page = project_detail(DEMO, [WHEEL, hostile], Representation.TEXT_HTML, serial=7)
    assert page == (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="pypi:repository-version" content="1.4">\n'
        "<title>Links for demo</title>\n</head>\n<body>\n<h1>Links for demo</h1>\n"
        '<a href="demo-1.0%2Bcu1-py3-none-any.whl#sha256=' + "a" * 64 + '"'
        ' data-requires-python="&gt;=3.8,&lt;4"'
        ' data-core-metadata="sha256=' + "b" * 64 + '"'
        ' data-dist-info-metadata="sha256=' + "b" * 64 + '"'
        ' data-size="1234" data-upload-time="2026-01-02T03:04:05.000006Z">'
        "demo-1.0+cu1-py3-none-any.whl</a><br>\n"
        '<a href="demo-1.0%2Bcu1.tar.gz#sha256=' + "a" * 64 + '"'
        ' data-yanked="&quot;&gt;&lt;script&gt;" data-size="1234">'
        "demo-1.0+cu1.tar.gz</a><br>\n"
        "</body>\n</html>\n"
    )


def test_the_base_goes_before_each_filename() -> None:
    page = json.loads(
        project_detail(DEMO, [BARE], Representation.JSON, serial=1, base="../../demo/")
    )
    assert page["files"][0]["url"] == "../../demo/demo-1.0%2Bcu1.tar.gz"


def test_the_list_of_projects() -> None:
    other = canonicalize_name("other")
    listed = [(DEMO, 3), (other, 4)]
    assert json.loads("".join(project_list(listed, Representation.JSON, serial=4))) == {
        "meta": {"api-version": "1.4", "_last-serial": 4},
        "projects": [{"name": "demo", "_last-serial": 3}, {"name": "other", "_last-serial": 4}],
    }
    page = "".join(project_list(listed, Representation.HTML, serial=4))
    assert '<a href="demo/">demo</a><br>\n<a href="other/">other</a><br>\n' in page  # protocol 26
