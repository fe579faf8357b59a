"""Pages of projects in all the forms that real indexes give them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from private_pypi.backend import UpstreamFile, UpstreamPage
from private_pypi.errors import BackendError, BackendUnavailable
from private_pypi.model import ProjectStatus
from private_pypi_mirror import backend, pages
from private_pypi_mirror.backend import MirrorStorage
from private_pypi_mirror.html import IndexParser
from tests.mirror.serving import HTML, JSON, Reply, Upstream

WHEEL = "demo-1.0-py3-none-any.whl"
SHA = "a" * 64
MD5 = "b" * 32
META = {"api-version": "1.1"}


def in_json(*files: Mapping[str, Any], meta: Any = META, **more: Any) -> bytes:
    return json.dumps({"meta": meta, "name": "demo", "files": files, **more}).encode()


def in_html(*links: str, head: str = "") -> bytes:
    body = "".join(f"{link}<br/>\n" for link in links)
    declared = '<meta name="pypi:repository-version" content="1.1">'
    page = f"<!DOCTYPE html><html><head>{declared}{head}</head><body>{body}</body></html>"
    return page.encode()


def page_of(
    upstream: Upstream, mirror: MirrorStorage, body: bytes, type_: str = JSON
) -> UpstreamPage:
    upstream.answers["/simple/demo/"] = Reply(body, type_)
    page = mirror.project_page("demo", "")
    assert page is not None
    return page


def refusal_of(upstream: Upstream, mirror: MirrorStorage, body: bytes, type_: str) -> str:
    with pytest.raises(BackendError) as caught:
        page_of(upstream, mirror, body, type_)
    assert str(caught.value).startswith(f"{upstream.index_url}demo/: ")
    return str(caught.value)


def file_of(upstream: Upstream, mirror: MirrorStorage, **keys: Any) -> UpstreamFile:
    """One file that a page in JSON describes with these keys, in which "_" stands for "-"."""
    entry = {name.replace("_", "-"): value for name, value in keys.items()}
    page = page_of(upstream, mirror, in_json({"filename": WHEEL, "url": WHEEL, **entry}))
    (file,) = page.files
    return file


def linked(upstream: Upstream, mirror: MirrorStorage, link: str) -> Sequence[UpstreamFile]:
    """The files on a page with one link."""
    return page_of(upstream, mirror, in_html(link), HTML).files


def test_everything_that_json_says_is_passed_on(upstream: Upstream, mirror: MirrorStorage) -> None:
    body = in_json(
        {
            "filename": WHEEL,
            "url": f"https://files.acme.example/a/{WHEEL}",
            "hashes": {"sha256": SHA, "md5": MD5},
            "size": 1234,
            "upload-time": "2026-01-02T03:04:05.678901Z",
            "requires-python": ">=3.9",
            "yanked": "broken",
            "core-metadata": {"sha256": "c" * 64},
            "provenance": "https://acme.example/p",
            "gpg-sig": True,
        },
        **{"project-status": {"status": "archived", "reason": "no time"}},
    )
    assert page_of(upstream, mirror, body) == UpstreamPage(
        files=[
            UpstreamFile(
                filename=WHEEL,
                url=f"https://files.acme.example/a/{WHEEL}",
                hashes={"sha256": SHA, "md5": MD5},
                size=1234,
                uploaded_at=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
                requires_python=">=3.9",
                yanked="broken",
                core_metadata={"sha256": "c" * 64},
                provenance="https://acme.example/p",
            )
        ],
        status=ProjectStatus("archived", "no time"),
    )


def test_everything_that_html_says_is_passed_on(upstream: Upstream, mirror: MirrorStorage) -> None:
    body = in_html(
        f'<a href="https://files.acme.example/a/{WHEEL}#sha256={SHA}" data-size="1234" '
        'data-upload-time="2026-01-02T03:04:05Z" data-requires-python="&gt;=3.9" '
        f'data-yanked="broken &amp; more" data-core-metadata="sha256={"c" * 64}" '
        f'data-provenance="https://acme.example/p">{WHEEL}</a>',
        head='<meta name="pypi:project-status" content="archived">'
        '<meta name="pypi:project-status-reason" content="no time">',
    )
    assert page_of(upstream, mirror, body, HTML) == UpstreamPage(
        files=[
            UpstreamFile(
                filename=WHEEL,
                url=f"https://files.acme.example/a/{WHEEL}",
                hashes={"sha256": SHA},
                size=1234,
                uploaded_at=datetime(2026, 1, 2, 3, 4, 5, 0, UTC),
                requires_python=">=3.9",
                yanked="broken & more",
                core_metadata={"sha256": "c" * 64},
                provenance="https://acme.example/p",
            )
        ],
        status=ProjectStatus("archived", "no time"),
    )


@pytest.mark.parametrize(
    ("hashes", "found"),
    [
        ({"SHA256": SHA.upper()}, {"sha256": SHA}),
        ({"sha256": f" {SHA}\n", "md5": None, "blake2b_256": "d" * 8}, None),
        ({"sha256": ""}, {}),
        ({"sha256": None}, {}),
        ({}, {}),
        (None, {}),
    ],
)
def test_hashes_in_json(
    upstream: Upstream, mirror: MirrorStorage, hashes: Any, found: dict[str, str] | None
) -> None:
    expected = {"sha256": SHA, "blake2b_256": "d" * 8} if found is None else found
    assert file_of(upstream, mirror, hashes=hashes).hashes == expected


def test_hashes_may_be_missing_in_json(upstream: Upstream, mirror: MirrorStorage) -> None:
    assert file_of(upstream, mirror).hashes == {}


@pytest.mark.parametrize(
    "hashes",
    [{"sha256": "../../secret"}, {"sha256": "abc"}, {"sha256": 5}, {"x": "not hex"}, [SHA], "x"],
)
def test_what_cannot_be_a_hash_is_trouble(
    upstream: Upstream, mirror: MirrorStorage, hashes: Any
) -> None:
    body = in_json({"filename": WHEEL, "url": WHEEL, "hashes": hashes})
    assert "hash" in refusal_of(upstream, mirror, body, JSON)


@pytest.mark.parametrize(
    ("size", "found"),
    [
        *((0, 0), (5, 5), ("5", 5), (2**40, 2**40)),
        *((None, None), (-1, None), (1.5, None), (True, None), ("1e3", None), (2**60, None)),
        *(("٣", None), ([], None), ("", None)),
    ],
)
def test_sizes(upstream: Upstream, mirror: MirrorStorage, size: Any, found: int | None) -> None:
    assert file_of(upstream, mirror, size=size).size == found


@pytest.mark.parametrize(
    ("yanked", "found"),
    [(False, None), (None, None), ("", None), (0, None), (True, ""), ("bad", "bad"), (1, "")],
)
def test_yanks_in_json(
    upstream: Upstream, mirror: MirrorStorage, yanked: Any, found: str | None
) -> None:
    assert file_of(upstream, mirror, yanked=yanked).yanked == found


@pytest.mark.parametrize(
    ("attribute", "found"),
    [("", None), ("data-yanked", ""), ('data-yanked=""', ""), ('DATA-YANKED="bad"', "bad")],
)
def test_yanks_in_html(
    upstream: Upstream, mirror: MirrorStorage, attribute: str, found: str | None
) -> None:
    (file,) = linked(upstream, mirror, f'<a href="{WHEEL}" {attribute}>x</a>')
    assert file.yanked == found


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"core-metadata": True}, {}),
        ({"core-metadata": {}}, {}),
        ({"core-metadata": {"sha256": SHA.upper()}}, {"sha256": SHA}),
        ({"core-metadata": {"sha256": "no hash"}}, None),
        ({"core-metadata": {"sha256": None}}, {}),
        ({"core-metadata": False}, None),
        ({"core-metadata": None}, None),
        ({"core-metadata": "true"}, None),
        ({"core-metadata": None, "data-dist-info-metadata": True}, {}),
        ({"core-metadata": False, "data-dist-info-metadata": True}, None),
        ({"data-dist-info-metadata": {"sha256": SHA}}, {"sha256": SHA}),
        ({"dist-info-metadata": {"sha256": SHA}}, {"sha256": SHA}),
        ({}, None),
    ],
)
def test_core_metadata_in_json(
    upstream: Upstream, mirror: MirrorStorage, keys: dict[str, Any], found: Any
) -> None:
    assert file_of(upstream, mirror, **keys).core_metadata == found


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ('data-core-metadata="true"', {}),
        (f'data-core-metadata="sha256={SHA}"', {"sha256": SHA}),
        (f'data-dist-info-metadata="sha256={SHA}"', {"sha256": SHA}),
        ('data-dist-info-metadata="True"', {}),
        ('data-core-metadata="false"', None),
        ('data-core-metadata=""', None),
        ("data-core-metadata", None),
        ('data-core-metadata="sha256=no"', None),
        ("", None),
    ],
)
def test_core_metadata_in_html(
    upstream: Upstream, mirror: MirrorStorage, attributes: str, found: Any
) -> None:
    (file,) = linked(upstream, mirror, f'<a href="{WHEEL}" {attributes}>x</a>')
    assert file.core_metadata == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, 0, UTC)),
        ("2026-01-02T03:04:05.5Z", datetime(2026, 1, 2, 3, 4, 5, 500_000, UTC)),
        ("2026-01-02T03:04:05.123456789Z", datetime(2026, 1, 2, 3, 4, 5, 123_456, UTC)),
        ("2026-01-02T03:04:05+02:00", datetime(2026, 1, 2, 1, 4, 5, 0, UTC)),
        (" 2026-01-02 03:04:05.000Z ", datetime(2026, 1, 2, 3, 4, 5, 0, UTC)),
        ("2026-01-02T03:04:05", None),  # of which place?
        ("0001-01-01T00:00:00+23:59", None),
        ("yesterday", None),
        ("", None),
        (1767323045, None),
        (None, None),
    ],
)
def test_upload_times(
    upstream: Upstream, mirror: MirrorStorage, text: Any, found: datetime | None
) -> None:
    assert file_of(upstream, mirror, upload_time=text).uploaded_at == found


@pytest.mark.parametrize(
    ("text", "found"),
    [(">=3.6", ">=3.6"), (">=2.7.*, bad", ">=2.7.*, bad"), ("", None), (None, None), (3, None)],
)
def test_requires_python_is_passed_on_as_text(
    upstream: Upstream, mirror: MirrorStorage, text: Any, found: str | None
) -> None:
    assert file_of(upstream, mirror, requires_python=text).requires_python == found


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("https://acme.example/p", "https://acme.example/p"),
        ("http://acme.example/p", None),
        ("/integrity/p", None),
        (None, None),
        (True, None),
    ],
)
def test_provenance_is_an_absolute_https_address(
    upstream: Upstream, mirror: MirrorStorage, address: Any, found: str | None
) -> None:
    """protocol 78"""
    assert file_of(upstream, mirror, provenance=address).provenance == found


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"project-status": {"status": "quarantined"}}, ProjectStatus("quarantined")),
        ({"project-status": {"status": "Archived", "reason": ""}}, ProjectStatus("archived")),
        ({"meta": {**META, "project-status": {"status": "archived"}}}, ProjectStatus("archived")),
        ({"project-status": "deprecated"}, ProjectStatus("deprecated")),
        ({"project-status": {"status": "active", "reason": "x"}}, None),
        ({"project-status": None}, None),
        ({"project-status": {"status": 3}}, None),
        ({}, None),
    ],
)
def test_project_status(
    upstream: Upstream, mirror: MirrorStorage, more: dict[str, Any], found: ProjectStatus | None
) -> None:
    assert page_of(upstream, mirror, in_json(**more)).status == found


@pytest.mark.parametrize(
    ("href", "filename", "path"),
    [
        (WHEEL, WHEEL, f"/simple/demo/{WHEEL}"),
        (f"./{WHEEL}", WHEEL, f"/simple/demo/{WHEEL}"),
        (f"../../packages/{WHEEL}", WHEEL, f"/packages/{WHEEL}"),
        (f"  /p/{WHEEL}\n", WHEEL, f"/p/{WHEEL}"),
        (f"{WHEEL}?token=a/b&amp;c=1", WHEEL, f"/simple/demo/{WHEEL}?token=a/b&c=1"),
        ("demo-1.0%2Bcu124.zip", "demo-1.0+cu124.zip", "/simple/demo/demo-1.0%2Bcu124.zip"),
        ("demo-1.0+cu124.zip", "demo-1.0+cu124.zip", "/simple/demo/demo-1.0+cu124.zip"),
        ("demo-1.0.TAR.GZ", "demo-1.0.TAR.GZ", "/simple/demo/demo-1.0.TAR.GZ"),
        ("demo-1.0.egg#egg=demo", "demo-1.0.egg", "/simple/demo/demo-1.0.egg"),
    ],
)
def test_links_to_files(
    upstream: Upstream, mirror: MirrorStorage, href: str, filename: str, path: str
) -> None:
    (file,) = linked(upstream, mirror, f'<a class=x href="{href}">another name</a>')
    assert (file.filename, file.url) == (filename, upstream.origin + path)


@pytest.mark.parametrize(
    "href",
    [
        *("../", "/", "", "#top", "?C=N;O=D", "?C=M&O=A", "demo-1.0.zip/", "about.html"),
        *("mailto:a@acme.example", "javascript:void(0)", f"{WHEEL}.metadata", f"{WHEEL}.asc"),
        *("https://acme.example", "https://acme.zip", "demo"),
    ],
)
def test_other_links_are_no_files(upstream: Upstream, mirror: MirrorStorage, href: str) -> None:
    assert linked(upstream, mirror, f'<a href="{href}">demo-1.0.zip</a>') == []


def test_a_link_without_an_address_is_no_file(upstream: Upstream, mirror: MirrorStorage) -> None:
    assert linked(upstream, mirror, '<a name="demo-1.0.zip">demo-1.0.zip</a><a href>x</a>') == []


@pytest.mark.parametrize(
    ("fragment", "found"),
    [
        (f"#sha256={SHA}", {"sha256": SHA}),
        (f"#SHA256={SHA.upper()}", {"sha256": SHA}),
        (f"#md5={MD5}", {"md5": MD5}),
        (f"#sha256={SHA}&amp;egg=demo", {"sha256": SHA}),
        (f"#egg=demo&sha512={SHA * 2}", {"sha512": SHA * 2}),
        *(("#egg=demo", {}), ("#", {}), ("#sha256=", {}), ("#sha256", {}), ("#top", {})),
    ],
)
def test_hashes_in_fragments(
    upstream: Upstream, mirror: MirrorStorage, fragment: str, found: dict[str, str]
) -> None:
    (file,) = linked(upstream, mirror, f'<a href="{WHEEL}{fragment}">x</a>')
    assert (file.hashes, file.url) == (found, f"{upstream.index_url}demo/{WHEEL}")


def test_a_fragment_that_is_cut_off_is_trouble(upstream: Upstream, mirror: MirrorStorage) -> None:
    body = in_html(f'<a href="{WHEEL}#sha256={SHA[:10]}">x</a>')
    assert "hash" in refusal_of(upstream, mirror, body, HTML)


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ('<base href="/other/">', f"/other/{WHEEL}"),
        ('<base href="../up/">', f"/simple/up/{WHEEL}"),
        ('<base href="/first/"><base href="/second/">', f"/first/{WHEEL}"),
        ("<base target=x>", f"/simple/demo/{WHEEL}"),
    ],
)
def test_links_are_relative_to_the_base(
    upstream: Upstream, mirror: MirrorStorage, base: str, path: str
) -> None:
    page = page_of(upstream, mirror, in_html(f'<a href="{WHEEL}">x</a>', head=base), HTML)
    assert [file.url for file in page.files] == [upstream.origin + path]


def test_of_several_files_of_one_name_the_first_counts(
    upstream: Upstream, mirror: MirrorStorage
) -> None:
    twice = [{"filename": WHEEL, "url": f"/{number}/{WHEEL}"} for number in (1, 2)]
    links = [f'<a href="/{number}/{WHEEL}">x</a>' for number in (1, 2)]
    for page in (
        page_of(upstream, mirror, in_json(*twice)),
        page_of(upstream, mirror, in_html(*links), HTML),
    ):
        assert [file.url for file in page.files] == [f"{upstream.origin}/1/{WHEEL}"]


def test_the_shape_of_download_pytorch_org(upstream: Upstream, mirror: MirrorStorage) -> None:
    name = "demo-2.5.0%2Bcu124-cp311-cp311-linux_x86_64.whl"
    body = (
        "<!DOCTYPE html>\n<html>\n  <body>\n    <h1>Links for demo</h1>\n"
        f'    <a href="https://files.acme.example/whl/cu124/{name}#sha256={SHA}" '
        f'data-dist-info-metadata="sha256={SHA}">demo-2.5.0+cu124</a><br/>\n'
        "  </body>\n</html>\n<!--TIMESTAMP 1700000000-->"
    )
    assert page_of(upstream, mirror, body.encode(), "text/html").files == [
        UpstreamFile(
            filename="demo-2.5.0+cu124-cp311-cp311-linux_x86_64.whl",
            url=f"https://files.acme.example/whl/cu124/{name}",
            hashes={"sha256": SHA},
            core_metadata={"sha256": SHA},
        )
    ]


@pytest.mark.parametrize(
    "body",
    [
        f'<a href="{WHEEL}">x</a>',
        "<html><head><title>Links for demo</title></head><body></body></html>",
        "<h1>Index of /simple/demo/</h1><pre><a href='../'>../</a></pre>",
        "<html><meta name='pypi:repository-version' content='1.0'>",
        f"<script>if (a < b) x('<a href=no>')</script><!-- <form> --><a href='{WHEEL}'>x</a>",
    ],
)
def test_sloppy_pages_are_index_pages(upstream: Upstream, mirror: MirrorStorage, body: str) -> None:
    files = page_of(upstream, mirror, body.encode(), HTML).files
    assert [file.filename for file in files] == ([WHEEL] if WHEEL in body else [])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "not a page of an index"),
        ("<html><body>Welcome</body></html>", "not a page of an index"),
        ("<h1>Maintenance</h1><a href='/status'>status</a>", "not a page of an index"),
        ("<h1>Links for demo</h1><form action=/login><input type=password></form>", "form"),
        (f"<FORM></FORM><a href='{WHEEL}'>x</a>", "form"),
        (f"<a href='{WHEEL}'>x</a><a href='demo-2.0-py3-none-a", "cut off"),
        (f"<a href='{WHEEL}'>x</a><!-- <a href='demo-2.0.zip'>", "cut off"),
        (f"<a href='{WHEEL}'>x</a><script>", "cut off"),
        ("<meta name=pypi:repository-version content=2.0>", "version '2.0'"),
        (f"<a href='https://[::1/{WHEEL}'>x</a>", "not an address"),
        (f"<base href='https://[::1/'><a href='{WHEEL}'>x</a>", "not an address"),
        (f"<a href='{WHEEL}' title='{'x' * 300_000}'>x</a>", ""),  # what is said depends on Python
    ],
)
def test_other_html_is_trouble(
    upstream: Upstream, mirror: MirrorStorage, body: str, why: str
) -> None:
    assert why in refusal_of(upstream, mirror, body.encode(), HTML)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (in_json({"filename": WHEEL, "url": WHEEL})[:-5], "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b'{"a":' + b"1" * 10_000 + b"}", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[" + b"1," * 2_000_001, "more than 2000000 values"),
        (b"[]", "not an object"),
        (b"{}", "api-version"),
        (in_json(meta=None), "api-version"),
        (in_json(meta={}), "api-version"),
        (in_json(meta={"api-version": "2.0"}), "api-version"),
        (in_json(meta={"api-version": "10.1"}), "api-version"),
        (b'{"meta": {"api-version": "1.0"}}', "no list 'files'"),
        (b'{"meta": {"api-version": "1.0"}, "files": {}}', "no list 'files'"),
        (b'{"meta": {"api-version": "1.0"}, "files": ["x"]}', "not an object"),
        (in_json({"filename": WHEEL}), "without 'filename' or 'url'"),
        (in_json({"url": WHEEL}), "without 'filename' or 'url'"),
        (in_json({"filename": "", "url": WHEEL}), "without 'filename' or 'url'"),
        (in_json({"filename": 1, "url": WHEEL}), "without 'filename' or 'url'"),
        (in_json({"filename": WHEEL, "url": "https://[::1/"}), "not an address"),
        (in_json(name="other"), "the page of another project, 'other'"),
    ],
)
def test_other_json_is_trouble(
    upstream: Upstream, mirror: MirrorStorage, body: bytes, why: str
) -> None:
    assert why in refusal_of(upstream, mirror, body, JSON)


@pytest.mark.parametrize(
    "body",
    [
        in_json({"filename": WHEEL, "url": WHEEL}, meta={"api-version": 1.0}),
        in_json({"filename": WHEEL, "url": WHEEL}, meta={"api-version": "1.99"}),
        in_json({"filename": WHEEL, "url": WHEEL}, name="DEMO"),
        b"\xef\xbb\xbf" + in_json({"filename": WHEEL, "url": WHEEL}),
        in_json({"filename": WHEEL, "url": f"{WHEEL}#sha256={SHA}"}),
    ],
)
@pytest.mark.parametrize("type_", [JSON, "application/json", f"{JSON.upper()} ; charset=utf-8"])
def test_sloppy_json_is_understood(
    upstream: Upstream, mirror: MirrorStorage, body: bytes, type_: str
) -> None:
    (file,) = page_of(upstream, mirror, body, type_).files
    assert (file.filename, file.url) == (WHEEL, f"{upstream.index_url}demo/{WHEEL}")


def test_surrogates_do_not_reach_a_database(upstream: Upstream, mirror: MirrorStorage) -> None:
    file = file_of(upstream, mirror, requires_python="\ud800", yanked="ä\udfff")
    assert (file.requires_python, file.yanked) == ("?", "ä?")


@pytest.mark.parametrize("charset", ["latin-1", '"ISO-8859-1"', "hex", "zlib", "nonsense", ""])
def test_charsets(upstream: Upstream, mirror: MirrorStorage, charset: str) -> None:
    body = in_html(f'<a href="{WHEEL}" data-yanked="ä">x</a>').decode().encode("latin-1")
    (file,) = page_of(upstream, mirror, body, f"text/html; charset={charset}").files
    assert file.yanked == ("ä" if "1" in charset else "�")


@pytest.mark.parametrize("type_", [JSON, HTML])
def test_a_page_has_a_limited_number_of_files(
    type_: str, upstream: Upstream, mirror: MirrorStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_MOST_FILES", 3)

    def page(count: int) -> bytes:
        names = [f"demo-{number}.zip" for number in range(count)]
        if type_ == JSON:
            return in_json(*({"filename": name, "url": name} for name in names))
        return in_html(*(f'<a href="{name}">{name}</a>' for name in names))

    assert len(page_of(upstream, mirror, page(3), type_).files) == 3
    assert "more than 3 files" in refusal_of(upstream, mirror, page(4), type_)


def test_attributes_that_are_not_used_take_no_memory() -> None:
    parser = IndexParser()
    parser.take(f"<a {' '.join(f'data-{n}' for n in range(9))} href=demo-1.zip data-yanked>")
    assert parser.links == [{"href": "demo-1.zip", "data-yanked": None}]


def test_large_pages_take_turns(
    upstream: Upstream, mirror: MirrorStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_SMALL_PAGE", 1000)
    small = in_json({"filename": WHEEL, "url": WHEEL})
    large = in_json({"filename": WHEEL, "url": WHEEL}, more="x" * 1000)
    turns = mirror.backend.large_pages
    for _ in range(backend._MOST_LARGE):
        turns.acquire()
    assert page_of(upstream, mirror, small).files

    class Impatient:
        """The turns, for which nobody waits: time for a page has to be long enough to read it."""

        def acquire(self, timeout: float) -> bool:
            return turns.acquire(blocking=False)

    with monkeypatch.context() as patch:
        patch.setattr(mirror.backend, "large_pages", Impatient())
        with pytest.raises(BackendUnavailable, match="too many large pages"):
            page_of(upstream, mirror, large)
    turns.release()
    for _ in range(2):  # the turn is over after each of them, also after one that is refused
        assert page_of(upstream, mirror, large).files
        assert "not JSON" in refusal_of(upstream, mirror, large[:-1], JSON)
