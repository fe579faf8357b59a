"""The pages for people: what they show, how they are sent, and that packages cannot add HTML."""

from __future__ import annotations

import re
import threading
from html import unescape
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from private_pypi.backend import Access
from private_pypi.errors import BackendUnavailable, FileNotFound
from private_pypi.model import DistributionFile, LocalFile, Redirect
from private_pypi.repositories import Grant, Repository, Synchronized
from private_pypi.storage.retrying import retrying
from private_pypi.testing import Memory
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web import create_app
from private_pypi.web.people.rendering import CONTENT_SECURITY_POLICY
from tests.pages.test_readme import check
from tests.web import lookups
from tests.web.conftest import MINE, OTHER, READER, WRITER, Deploy, basic, publish

BROWSER = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
OPEN = MINE.replace("claimed", "anonymous_read = true\nclaimed")


@pytest.fixture
def client(deploy: Deploy) -> FlaskClient:
    """A server with the one repository `mine`, which everybody may read."""
    return create_app(deploy(OPEN)).test_client()


def go(client: FlaskClient, path: str, status: int = 200) -> TestResponse:
    answer = client.get(path, headers=BROWSER)
    assert answer.status_code == status, answer.text
    return answer


def words(answer: TestResponse) -> str:
    """The text of a page as a person reads it."""
    text = re.sub(r"<(script|style).*?</\1>", " ", answer.text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())


def put(client: FlaskClient, *args: Any, description: str = "", **metadata: str) -> None:
    headers = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    wheel = make_wheel(*args, extra_metadata=headers, description=description)
    assert publish(client, *wheel).status_code == 200


# -- how they are sent ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/r/mine/", "/r/mine/setup/", "/r/mine/project/demo/", "/login/", "/logout/", "/nowhere/"],
)
def test_every_page_says_what_it_may(client: FlaskClient, path: str) -> None:
    put(client)
    answer = client.get(path, headers=BROWSER)
    assert {
        name: answer.headers[name]
        for name in (
            "Content-Type",
            "Content-Security-Policy",
            "X-Content-Type-Options",
            "Referrer-Policy",
            "X-Frame-Options",
            "Cache-Control",
        )
    } == {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "X-Frame-Options": "DENY",
        "Cache-Control": "private, no-store",
    }
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert not re.search(r"<style|<script>|\sstyle=|\son\w+=", answer.text)


@pytest.mark.parametrize("prefix", ["", "/pypi"])
def test_style_and_script_are_kept_for_ever_under_names_of_their_own(
    client: FlaskClient, prefix: str
) -> None:
    page = client.get("/r/mine/", base_url=f"http://localhost{prefix}", headers=BROWSER)
    found = re.findall(r'(?:href|src)="../../(static/[^"]+)"', page.text)
    assert sorted({re.sub(r"\.[0-9a-f]{10}\.", ".", name) for name in found}) == [
        "static/copy.js",
        "static/logo.svg",
        "static/style.css",
    ]
    for name in found:
        asset = client.get("/" + name, headers={"Accept-Encoding": "gzip"})
        assert asset.status_code == 200
        assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert asset.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get("/static/style.0123456789.css").status_code == 404
    assert client.get("/static/..%2fpages.py").status_code == 404


def test_addresses_hold_behind_any_prefix(client: FlaskClient) -> None:
    put(client)
    for path in ("/r/mine/", "/r/mine/setup/", "/r/mine/project/demo/", "/login/", "/nowhere/x"):
        page = client.get(path, headers=BROWSER).text
        assert not re.search(r'(?:href|src|action)="/', page)


# -- the start page ------------------------------------------------------------------------------


def test_an_empty_repository_says_how_to_fill_it(client: FlaskClient) -> None:
    said = words(go(client, "/r/mine/"))
    assert "0 projects" in said
    assert "twine upload --repository-url http://localhost/r/mine/ --username mine dist/*" in said


def test_the_start_page_lists_projects_with_their_summaries(client: FlaskClient) -> None:
    put(client, "demo", "1.0", Summary="The first")
    put(client, "demo", "1.1", Summary="The second")
    put(client, "demo", "2.0rc1", Summary="Not yet")
    put(client, "other", "0.1")
    page = go(client, "/r/mine/")
    rows = re.findall(r'<a class="project" href="(.*?)">(.*?)</a>', page.text, re.DOTALL)
    shown = [(href, re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", row)).strip()) for href, row in rows]
    assert [href for href, _ in shown] == ["project/demo/", "project/other/"]
    assert re.fullmatch(r"demo 1\.1 \d+ \w+ \d{4} The second", shown[0][1])
    assert re.fullmatch(r"other 0\.1 \d+ \w+ \d{4}", shown[1][1])
    newest = re.findall(r'<li class="tile">\s*<a href="(.*?)"', page.text)
    assert newest == ["project/other/0.1/", "project/demo/2.0rc1/"]


def test_a_search_looks_at_names_summaries_and_keywords(client: FlaskClient) -> None:
    put(client, "acme-tides", Summary="Water levels")
    put(client, "gauges", Summary="Tides of 100% of all rivers")
    put(client, "third", Summary="Something else", Keywords="ebb, flow")

    def found(query: str) -> list[str]:
        page = go(client, f"/r/mine/?q={query}")
        return re.findall(r'<a class="project" href="project/(.*?)/"', page.text)

    assert found("tides") == ["acme-tides", "gauges"]
    assert found("TIDES+rivers") == ["gauges"]
    assert found("acme_tides") == ["acme-tides"]
    assert found("100%25") == ["gauges"]
    assert found("EBB") == ["third"]
    assert found("%25") == ["gauges"]
    assert found("nothing") == []
    assert "No project matches" in words(go(client, "/r/mine/?q=nothing"))
    assert 'value="&lt;b&gt;"' in go(client, "/r/mine/?q=<b>").text


def test_a_project_is_called_as_its_metadata_calls_it(client: FlaskClient) -> None:
    """Its address and the commands contain the normalized name, which all tools accept."""
    put(client, "PyYAML_Tools", Summary="Tides")
    start = words(go(client, "/r/mine/"))
    assert "PyYAML_Tools" in start
    assert "pyyaml-tools" not in start
    assert "PyYAML_Tools" in words(go(client, "/r/mine/?q=pyyaml"))
    page = go(client, "/r/mine/project/pyyaml-tools/")
    assert "<h1>PyYAML_Tools <" in page.text
    assert "<title>PyYAML_Tools 1.0 " in page.text
    assert "simple/ pyyaml-tools" in words(page)


def test_ten_thousand_projects_come_in_pages(deploy: Deploy) -> None:
    served = deploy(OPEN)
    client = create_app(served).test_client()
    put(client, "demo", "1.0")
    repository = next(iter(served.repositories))
    with repository.index.writing() as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)"
            " INSERT INTO files SELECT replace(f.filename, 'demo', 'p' || i), 'p' || i, version,"
            " size, sha256, uploaded_at, requires_python, yanked, core_metadata_sha256, location,"
            " summary, published_name, keywords, version_key, stamp, documented, seen_at, serial"
            " FROM files AS f, n"
        )
    page = go(client, "/r/mine/")
    assert "10000 projects" in words(page)
    assert "Page 1 of 200" in words(page)
    assert page.text.count('class="project"') == 50
    assert 'rel="next" href="?page=2"' in page.text
    last = go(client, "/r/mine/?page=200")
    assert last.text.count('class="project"') == 50
    assert 'rel="next"' not in last.text
    assert "past the end" in words(go(client, "/r/mine/?page=201"))
    assert 'href="?q=p1&amp;page=2"' in go(client, "/r/mine/?q=p1").text
    for nonsense in ("0", "-1", "x", "²", "9" * 30):
        assert "Page 1 of 200" in words(go(client, f"/r/mine/?page={nonsense}"))


# -- the page of a project -----------------------------------------------------------------------


def test_a_project_with_all_that_it_says(client: FlaskClient) -> None:
    put(
        client,
        "demo",
        "1.0",
        description="# Demo\n\nSome *words*.\n",
        Summary="A demo",
        Author_email="Ada <ada@a.example>",
        License_Expression="MIT",
        Project_URL="Docs, https://docs.example",
        Requires_Dist="httpx",
        Description_Content_Type="text/markdown",
    )
    page = go(client, "/r/mine/project/demo/")
    said = words(page)
    for text in ("demo 1.0", "A demo", "Some words .", "Ada", "MIT", "httpx", "wheel for py3"):
        assert text in said
    assert '<h3 id="user-content-demo">Demo</h3>' in page.text
    outside = 'rel="nofollow noopener noreferrer"'
    assert f'<a href="https://docs.example" {outside}>Docs</a>' in page.text
    assert f'<a href="mailto:ada@a.example" {outside}>Ada</a>' in page.text
    file = re.search(r'href="([^"]+)" download>demo-1.0-py3-none-any.whl<', page.text)
    assert file is not None
    assert file[1] == "../../../../r/mine/simple/demo/demo-1.0-py3-none-any.whl"


def test_commands_have_the_address_of_this_server(deploy: Deploy) -> None:
    client = create_app(deploy(MINE)).test_client()
    put(client, "demo", "1.0")
    put(client, "demo", "2.0")

    def commands(path: str) -> list[str]:
        page = client.get(path, base_url="https://pypi.acme.example/py", headers=READER)
        return [
            unescape(text)
            for text in re.findall("<code data-copy[^>]*>(.*?)</code>", page.text, re.DOTALL)
        ][:3]

    index = "pypi.acme.example/py/r/mine/simple/"
    assert commands("/r/mine/project/demo/") == [
        f"pip install --index-url https://mine@{index} demo",
        f"uv add --default-index mine=https://{index} demo",
        f"poetry source add --priority=primary mine https://{index}\npoetry add demo",
    ]
    assert commands("/r/mine/project/demo/1.0/")[0].endswith(" demo==1.0")


def test_the_current_release_is_what_installers_would_take(client: FlaskClient) -> None:
    for version in ("1.0", "1.1", "1.10", "2.0", "3.0b1"):
        put(client, "demo", version)
    assert (
        client.post(
            "/simple/demo/2.0/yank", headers=WRITER, data={"reason": "bad & <b>"}
        ).status_code
        == 200
    )
    page = go(client, "/r/mine/project/demo/")
    assert "<title>demo 1.10 · mine</title>" in page.text
    listed = re.findall(r'/project/demo/([^/"]+)/"', page.text)
    assert listed == ["3.0b1", "2.0", "1.10", "1.1", "1.0"]
    yanked = words(go(client, "/r/mine/project/demo/2.0/"))
    assert "This release was yanked." in yanked
    assert "bad & <b>" in yanked
    assert "1.10 is the current release" in yanked
    assert "is the current release" not in words(go(client, "/r/mine/project/demo/1.10/"))


def test_other_spellings_lead_to_the_page(client: FlaskClient) -> None:
    put(client, "demo-project", "1.0")
    for path, target in (
        ("/r/mine/project/Demo_Project/", "../demo-project/"),
        ("/r/mine/project/Demo_Project/1.0/", "../../demo-project/1.0/"),
    ):
        assert go(client, path, 301).headers["Location"] == target
    assert "<title>demo-project 1.0 ·" in go(client, "/r/mine/project/demo-project/v1.0.0/").text


def test_three_thousand_files_come_in_pages(deploy: Deploy) -> None:
    served = deploy(OPEN)
    client = create_app(served).test_client()
    put(client, "demo", "1.0")
    repository = next(iter(served.repositories))
    with repository.index.writing() as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
            " INSERT INTO files SELECT 'demo-' || (i / 2) || '.5-' || i || '.whl', project,"
            " (i / 2) || '.5', size, sha256, uploaded_at, requires_python, yanked, NULL, location,"
            " summary, published_name, keywords, printf('%05d', i / 2) || '!~!~!', stamp,"
            " documented, seen_at, serial FROM files, n"
        )
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250)"
            " INSERT INTO files SELECT 'demo-9999-' || i || '.whl', project,"
            " '9999', size, sha256, uploaded_at, requires_python, yanked, NULL, location,"
            " summary, published_name, keywords, '99999!~!~!', stamp, documented, seen_at, serial"
            " FROM files, n WHERE version = '1.0'"
        )
    page = go(client, "/r/mine/project/demo/")
    assert len(page.data) < 200_000
    assert page.text.count(" download>") == 100
    assert "Page 1 of 3" in words(page)
    assert page.text.count('<span class="badge good">current') == 1
    assert "Page 1 of 31" in words(page)
    third = go(client, "/r/mine/project/demo/?files=3")
    assert third.text.count(" download>") == 50


def test_an_sdist_that_offers_no_metadata_shows_its_description_all_the_same(
    client: FlaskClient,
) -> None:
    sdist = make_sdist(
        metadata_version="2.1",
        extra_metadata=[("Description-Content-Type", "text/plain")],
        description="From the sdist\n",
    )
    assert publish(client, *sdist).status_code == 200
    assert "From the sdist" in words(go(client, "/r/mine/project/demo/"))


def test_few_files_are_opened_for_a_description(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = deploy(OPEN)
    client = create_app(served).test_client()
    put(client, "demo", "1.0")
    repository = next(iter(served.repositories))
    with repository.index.writing() as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)"
            " INSERT INTO files SELECT 'demo-2.0-' || i || '-py3-none-any.whl', project,"
            " '2.0', size, sha256, uploaded_at, requires_python, yanked, NULL, location,"
            " summary, published_name, keywords, '00002!~!~!', stamp, documented, seen_at, serial"
            " FROM files, n"
        )
    opened = []

    def open_file(grant: Grant, file: DistributionFile) -> None:
        opened.append(file.filename)
        raise FileNotFound(file.filename)

    monkeypatch.setattr(Grant, "open_file", open_file)
    assert "This release has no description." in words(go(client, "/r/mine/project/demo/2.0/"))
    assert len(opened) == 3


def test_core_metadata_that_is_enormous_is_not_read_whole(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(client)
    enormous = tmp_path / "METADATA"
    with enormous.open("wb") as file:
        file.write(b"Name: demo\nDescription-Content-Type: text/plain\n\nThe beginning\n")
        file.truncate(2**40)  # more than there is memory
    monkeypatch.setattr(Grant, "open_core_metadata", lambda *_: LocalFile(enormous.open("rb")))
    assert "The beginning" in words(go(client, "/r/mine/project/demo/"))


def test_trouble_with_the_description_leaves_the_files(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, description="Words\n")

    def opened(*_: object) -> None:
        raise BackendUnavailable("the storage is down")

    monkeypatch.setattr(Grant, "open_core_metadata", opened)
    page = go(client, "/r/mine/project/demo/")
    assert "The description cannot be read now: the storage is down." in words(page)
    assert " download>" in page.text


def test_a_description_that_the_storage_sends_us_to_is_fetched(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client)

    class Storage(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/signed" else 403)
            self.end_headers()
            self.wfile.write(b"Name: demo\n\nFrom elsewhere\n")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Storage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            for path, expected in (
                ("/signed", "From elsewhere"),
                ("/expired", "The description cannot be read now: the storage answered 403"),
            ):
                there = Redirect(address + path, None)
                monkeypatch.setattr(Grant, "open_core_metadata", lambda *_, there=there: there)
                page = words(go(client, "/r/mine/project/demo/"))
                assert expected in page
                assert address not in page
        finally:
            server.shutdown()
            thread.join()


def test_a_release_without_a_description_says_so(client: FlaskClient) -> None:
    put(client)
    assert "This release has no description." in words(go(client, "/r/mine/project/demo/"))


# -- hostile packages ----------------------------------------------------------------------------

_PIECES = (
    "<script>alert(1)</script>", '"', "'", "<img src=x onerror=y>", "{{ 7*7 }}", "{% x %}",
    "</title>", "&", "javascript:x", "-->", "`", "https://a.example/", ", ", "@", "<a href=//b>",
)  # fmt: skip
_FIELDS = (
    "Summary", "Author", "Author_email", "License", "Keywords", "Classifier", "Project_URL",
    "Home_page", "Requires_Dist", "Provides_Extra", "Description_Content_Type", "Maintainer_email",
)  # fmt: skip


class OurPage(HTMLParser):
    """Fails for every element and address that our templates do not contain."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert not [name for name in given if name.startswith("on") or name == "style"]
        assert tag not in {"iframe", "object", "embed", "style", "base", "svg"}
        if tag in ("script", "img"):
            assert re.fullmatch(
                r"(\.\./)+static/[a-z]+\.[0-9a-f]{10}\.(js|svg)", given["src"] or ""
            )
        if tag == "a":
            href = given["href"] or ""
            assert re.match(r"https?://|mailto:|\.\./|#|\?", href), href
            if not href.startswith((".", "#", "?")):
                assert given["rel"] == "nofollow noopener noreferrer"


@pytest.mark.needs("time")
def test_no_field_of_a_package_makes_markup(client: FlaskClient) -> None:
    number = 0

    @settings(max_examples=15)
    @given(
        st.dictionaries(
            st.sampled_from(_FIELDS),
            st.lists(st.sampled_from(_PIECES), min_size=1, max_size=5).map("".join),
            min_size=1,
        )
    )
    def shows(metadata: dict[str, str]) -> None:
        nonlocal number
        number += 1
        put(client, "demo", str(number), description="".join(metadata.values()), **metadata)
        page = OurPage()
        page.feed(go(client, f"/r/mine/project/demo/{number}/").text)
        page.close()

    shows()


def test_a_hostile_package_gets_no_word_in(client: FlaskClient) -> None:
    evil = "<script>alert(1)</script>\"'<img src=x onerror=alert(2)>"
    put(
        client,
        "hostile",
        "1.0",
        description=f"# {evil}\n\n[x](javascript:alert(1)) <form action=/logout/>\n",
        Summary=evil,
        Author=evil,
        License=evil,
        Keywords=evil,
        Classifier=evil,
        Requires_Dist=evil,
        Provides_Extra=evil,
        Project_URL=f"{evil}, https://evil.example/?<script>",
        Home_page="javascript:alert(1)",
        Description_Content_Type="text/markdown",
    )
    assert (
        client.post("/simple/hostile/1.0/yank", headers=WRITER, data={"reason": evil}).status_code
        == 200
    )
    for path in ("/r/mine/", "/r/mine/project/hostile/", "/r/mine/?q=<script>alert(1)</script>"):
        page = go(client, path).text
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert 'href="javascript' not in page
    page = go(client, "/r/mine/project/hostile/").text
    readme = re.search(r'<div class="readme">(.*?)</div>\s*</section>', page, re.DOTALL)
    assert readme is not None
    check(readme[1])


# -- setting up ----------------------------------------------------------------------------------


def test_the_page_to_set_up_never_shows_a_secret(deploy: Deploy) -> None:
    client = create_app(deploy(MINE)).test_client()
    page = client.get("/r/mine/setup/", headers=READER)
    assert page.status_code == 200
    assert "YOUR-SECRET" in page.text
    assert "reader" not in page.text


def test_an_open_repository_is_set_up_without_a_secret(client: FlaskClient) -> None:
    page = go(client, "/r/mine/setup/")
    assert "YOUR-SECRET" not in page.text
    assert "index-url = http://localhost/r/mine/simple/" in page.text


def test_an_address_without_tls_is_warned_of(client: FlaskClient) -> None:
    for base, warned in (
        ("http://pypi.acme.example", True),
        ("https://pypi.acme.example", False),
        ("http://127.0.0.1:8888", False),
    ):
        page = client.get("/r/mine/setup/", base_url=base, headers=BROWSER)
        assert ("This address is not encrypted" in page.text) is warned


def test_a_host_that_is_none_is_not_shown(client: FlaskClient) -> None:
    page = client.get("/r/mine/setup/", headers=BROWSER | {"Host": "a$(reboot)"})
    assert "reboot" not in page.text


# -- errors --------------------------------------------------------------------------------------


def test_an_error_is_a_page_for_a_person_and_a_sentence_for_a_tool(client: FlaskClient) -> None:
    person = go(client, "/r/mine/project/nothing/", 404)
    assert "no project 'nothing' in this repository" in words(person)
    tool = client.get("/r/mine/project/nothing/", headers=READER)
    assert (tool.status_code, tool.text) == (404, "no project 'nothing' in this repository\n")
    assert tool.status == "404 no project 'nothing' in this repository"


def test_a_release_that_is_not_there(client: FlaskClient) -> None:
    put(client)
    assert "no release '9' of project 'demo'" in words(go(client, "/r/mine/project/demo/9/", 404))


def test_trouble_keeps_its_status_and_when_to_come_back(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def require_ready(self: Repository) -> None:
        raise BackendUnavailable("not yet synchronised", retry_after=5)

    monkeypatch.setattr(Synchronized, "require_ready", require_ready)
    answer = go(client, "/r/mine/", 503)
    assert answer.headers["Retry-After"] == "5"
    assert "not yet synchronised" in words(answer)
    assert "load this page again" in words(answer)


def test_a_method_that_is_not_possible(client: FlaskClient) -> None:
    answer = client.post("/r/mine/setup/", headers=BROWSER)
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    assert "Method Not Allowed" in words(answer)


def test_a_server_without_a_configuration_says_what_it_waits_for(
    deploy: Deploy, tmp_path: Path
) -> None:
    client = create_app(deploy(None)).test_client()
    assert "This server has no configuration yet" in words(go(client, "/"))


def test_a_tool_at_the_start_page_is_told_where_the_index_is(deploy: Deploy) -> None:
    client = create_app(deploy(MINE + OTHER)).test_client()
    answer = client.get("/")
    assert answer.status_code == 200
    assert "pip install --index-url http://NAME:SECRET@HOST/r/NAME/simple/ PROJECT" in answer.text
    assert client.get("/", headers=READER).headers["Location"] == "./r/mine/"


# -- a storage that answers for one project at a time ---------------------------------------------


@pytest.fixture
def lookup(monkeypatch: pytest.MonkeyPatch) -> Memory:
    lookups.install(monkeypatch)
    storage = lookups.STORAGES["mine"] = Memory()
    storage.projects.update({"demo", "other"})
    storage.rights["partial"] = {"demo": Access.READ}
    return storage


def test_projects_that_are_looked_up_are_listed_for_those_who_may_see_them(
    lookup: Memory, deploy: Deploy
) -> None:
    client = create_app(deploy('[mine]\ntype = "lookup"\n')).test_client()
    reader, partly = basic("mine", "read"), basic("mine", "partial")
    summary = [("Summary", "Hidden from some")]
    lookup.drop(*make_wheel("other", "1.0", extra_metadata=summary))
    lookup.drop(*make_wheel("demo", "2.0", description="Words\n"))

    def listed(headers: dict[str, str], query: str = "") -> list[str]:
        page = client.get(f"/r/mine/{query}", headers=headers)
        assert page.status_code == 200
        return re.findall(r'class="project" href="project/(.*?)/"', page.text)

    assert listed(reader) == ["demo", "other"]
    page = client.get("/r/mine/project/other/", headers=reader)
    assert page.status_code == 200
    assert "<title>other 1.0 · mine</title>" in page.text
    assert listed(reader, "?q=hidden") == ["other"]
    assert listed(reader, "?q=dem") == ["demo"]
    assert listed(partly) == ["demo"]
    assert listed(partly, "?q=hidden") == []
    assert "Hidden" not in client.get("/r/mine/", headers=partly).text
    assert client.get("/r/mine/project/other/", headers=partly).status_code == 404
    assert "Words" in client.get("/r/mine/project/demo/", headers=partly).text


def test_while_the_storage_is_down_a_page_says_how_old_it_is(
    lookup: Memory, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "private_pypi.repositories.stored.retrying",
        lambda backend: retrying(backend, sleep=lambda seconds: None),
    )
    table = '[mine]\ntype = "lookup"\nsync_index_interval = 0.000001\n'
    client = create_app(deploy(table)).test_client()
    reader = basic("mine", "read")
    lookup.drop(*make_wheel("demo", "1.0"))
    assert "cannot be reached" not in client.get("/r/mine/project/demo/", headers=reader).text
    lookup.fail_next("project_files", BackendUnavailable("down"), times=100)
    page = client.get("/r/mine/project/demo/", headers=reader)
    assert page.status_code == 200
    assert "The storage cannot be reached. This page shows what it had 1 minute ago." in words(page)
    absent = client.get("/r/mine/project/other/", headers=reader)
    assert absent.status_code == 503


@pytest.mark.parametrize("start", ["/", "/r/mine/"])
@pytest.mark.parametrize("folder", ["", "simple/", "legacy/"])
def test_the_address_that_hatch_prints_leads_to_the_release(
    client: FlaskClient, start: str, folder: str
) -> None:
    """hatch makes it from the address of the upload, and there are several of these."""
    put(client)
    answer = client.get(f"{start}{folder}De.mo/1.0/")
    up = "../../../" if folder else "../../"
    assert (answer.status_code, answer.headers["Location"]) == (301, f"{up}project/de-mo/1.0/")
    assert client.get(f"{start}{folder}demo/1-not/").status_code == 404
    other = client.get(f"{start}{folder}demo/other")
    assert other.status_code in (401, 404)  # no address of hatch, not even by way of a slash
    path = f"{start}{folder}demo/1.0/"
    while (page := client.get(path, headers=BROWSER)).status_code in (301, 302):
        path = urljoin(path, page.headers["Location"])
    assert "<title>demo 1.0 · mine</title>" in page.text
