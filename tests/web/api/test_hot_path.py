"""The hot path gives the same answers as the views, and leaves the rest to them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import create_environ

from private_pypi.testing.distributions import make_wheel
from private_pypi.web import create_app
from private_pypi.web.api import asked, hot_path
from private_pypi.web.http import content, page_cache
from private_pypi.web.operations import logs
from private_pypi.web.serving import Answer, Exchange
from tests.web.conftest import (
    MINE,
    OTHER,
    READER,
    WRITER,
    Deploy,
    basic,
    publish,
    sent_by_the_loop,
)

ACCEPTS = ("application/vnd.pypi.simple.v1+json", "text/html", "*/*", "application/xml", "")
ENCODINGS = ("", "gzip", "gzip, deflate, zstd", "identity", "gzip;q=0")


def test_both_ways_give_the_same(client: FlaskClient) -> None:
    for version in ("1.0", "1.1", "2.0"):
        assert publish(client, *make_wheel("demo", version)).status_code == 200
    headers = READER
    for accept, encoding, prefix in product(ACCEPTS, ENCODINGS, ("", "/r/mine")):
        headers = READER | {"Accept": accept, "Accept-Encoding": encoding}
        short = client.get(f"{prefix}/simple/demo/", headers=headers)
        # A request with a query is answered by the view, even if the query has no effect.
        long = client.get(f"{prefix}/simple/demo/?x=1", headers=headers)
        assert (short.status, short.data) == (long.status, long.data), headers
        assert sorted(short.headers) == sorted(long.headers), headers
        etag = {"If-None-Match": short.headers.get("ETag", '"x"')}
        short = client.get(f"{prefix}/simple/demo/", headers=headers | etag)
        long = client.get(f"{prefix}/simple/demo/?x=1", headers=headers | etag)
        assert (short.status_code, short.data) == (long.status_code, long.data), headers
        assert sorted(short.headers) == sorted(long.headers), headers


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/simple/demo/", {}, 401),
        ("/simple/demo/", basic("mine", "wrong"), 401),
        ("/r/other/simple/demo/", READER, 401),
        ("/r/nobody/simple/demo/", READER, 401),
        ("/simple/unknown/", READER, 404),
        ("/simple/Demo/", READER, 301),
        ("/simple/de--mo/", READER, 301),
    ],
)
def test_what_is_not_plain_goes_the_long_way(
    deploy: Deploy, path: str, headers: dict[str, str], status: int
) -> None:
    client = create_app(deploy(MINE + OTHER)).test_client()
    assert publish(client, *make_wheel("demo", "1.0")).status_code == 200
    assert client.get(path, headers=headers).status_code == status
    assert client.get("/simple/demo/", headers=READER).status_code == 200


def test_long_headers_are_answered_and_not_remembered(client: FlaskClient) -> None:
    assert publish(client, *make_wheel("demo", "1.0")).status_code == 200
    caches = (asked._negotiate, content._accepts_gzip, logs._short_agent, logs._quoted_agent)
    for cache in caches:
        cache.cache_clear()
    json = "application/vnd.pypi.simple.v1+json"
    headers = {
        "Accept": f"a/b, {json}, " + "c/d, " * 500,
        "Accept-Encoding": "gzip, " + "x, " * 999,
    }
    answer = client.get("/simple/demo/", headers=READER | headers)
    assert (answer.status_code, answer.content_type) == (200, json)
    assert "Content-Encoding" not in answer.headers
    assert [cache.cache_info().currsize for cache in caches[:2]] == [0, 0]
    for end in "ab":  # what is remembered of both is the same
        environ = create_environ(
            headers={"User-Agent": "agent" * 100 + end}, environ_overrides={"REMOTE_ADDR": "::1"}
        )
        exchange = Exchange("id", environ, 200, 0, 0.0)
        assert "agentagent" in logs._text_request(logs.LOGGER, "now", exchange, "/", "")
        assert "agentagent" in logs._json_request("", "now", exchange, "/", "")
    assert [cache.cache_info().currsize for cache in caches[2:]] == [1, 1]


AtOnce = Callable[..., Answer | None]


def at_once_of(app: Flask) -> AtOnce:
    """Asks what the loop of the server sends itself to a reader of `mine`."""

    def ask(path: str, headers: dict[str, str] = READER) -> Answer | None:
        environ = create_environ(path, headers={"Accept": "text/html", **headers})
        return sent_by_the_loop(app, environ)

    return ask


def test_the_loop_sends_small_files_that_were_sent_before(deploy: Deploy) -> None:
    app = create_app(deploy(MINE))
    client, at_once = app.test_client(), at_once_of(app)
    filename, content = make_wheel("demo", "1.0")
    assert publish(client, filename, content).status_code == 200
    for path in (f"/simple/demo/{filename}", f"/r/mine/simple/demo/{filename}.metadata"):
        assert at_once(path) is None  # it would have to be read from disk
        sent = client.get(path, headers=READER)
        again = at_once(path)
        assert again is not None
        assert (again.status, again.body) == (200, sent.data)
        assert dict(again.headers) == dict(sent.headers)
        etag = sent.headers["ETag"]
        unchanged = at_once(path, READER | {"If-None-Match": etag})
        assert unchanged is not None
        assert (unchanged.status, unchanged.body) == (304, b"")
        part = at_once(path, READER | {"Range": "bytes=1-3"})
        assert part is not None
        assert (part.status, part.body) == (206, sent.data[1:4])
        for headers in ({}, basic("mine", "wrong")):
            assert at_once(path, headers) is None


def test_a_file_that_another_process_deleted_is_not_sent_from_memory(deploy: Deploy) -> None:
    served = deploy(MINE)
    app, other = create_app(served), create_app(deploy(MINE))
    client, at_once = app.test_client(), at_once_of(app)
    filename, content = make_wheel("demo", "1.0")
    assert publish(client, filename, content).status_code == 200
    assert client.get(f"/simple/demo/{filename}", headers=READER).status_code == 200
    assert at_once(f"/simple/demo/{filename}") is not None
    deleted = other.test_client().delete(f"/r/mine/simple/demo/{filename}", headers=WRITER)
    assert deleted.status_code in (200, 204), deleted.data
    assert at_once(f"/simple/demo/{filename}") is None
    assert client.get(f"/simple/demo/{filename}", headers=READER).status_code == 404


def test_a_file_with_other_bytes_than_the_index_says_is_not_kept(
    deploy: Deploy, tmp_path: Path
) -> None:
    app = create_app(deploy(MINE))
    client, at_once = app.test_client(), at_once_of(app)
    filename, content = make_wheel("demo", "1.0")
    assert publish(client, filename, content).status_code == 200
    (stored,) = (tmp_path / "root" / "cache" / "mine" / "storage").glob(f"*/{filename}")
    stored.chmod(0o600)
    stored.write_bytes(bytes(len(content)))
    assert client.get(f"/simple/demo/{filename}", headers=READER).data == bytes(len(content))
    assert at_once(f"/simple/demo/{filename}") is None


def test_the_loop_sends_the_list_until_it_changes(deploy: Deploy) -> None:
    app = create_app(deploy(MINE))
    client, at_once = app.test_client(), at_once_of(app)
    assert publish(client, *make_wheel("demo", "1.0")).status_code == 200
    assert at_once("/simple/") is None
    sent = client.get("/simple/", headers=READER | {"Accept": "text/html"})
    again = at_once("/simple/")
    assert again is not None
    assert (again.status, again.body) == (200, sent.data)
    assert dict(again.headers) == dict(sent.headers)
    assert publish(client, *make_wheel("second", "1.0")).status_code == 200
    assert at_once("/simple/") is None
    assert b"second" in client.get("/simple/", headers=READER).data


def test_the_loop_renders_short_pages(deploy: Deploy) -> None:
    app = create_app(deploy(MINE))
    client, at_once = app.test_client(), at_once_of(app)
    for project, files in (("short", 1), ("long", hot_path._FEW + 1)):
        for number in range(files):
            wheel = make_wheel(project, f"{number}.0")
            assert publish(client, *wheel).status_code == 200
    short = at_once("/simple/short/")
    assert short is not None
    assert short.body == client.get("/simple/short/?x=1", headers=READER).data
    assert at_once("/simple/long/") is None
    assert client.get("/simple/long/", headers=READER).status_code == 200
    assert at_once("/simple/long/") is not None


def test_the_loop_sends_pages_of_any_size_and_unpacks_only_short_ones(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_cache, "_QUICK_TEXT", 10_000)
    app = create_app(deploy(MINE))
    client, at_once = app.test_client(), at_once_of(app)
    for number in range(50):
        assert publish(client, *make_wheel("demo", f"{number}.0")).status_code == 200
    packed, plain = READER | {"Accept-Encoding": "gzip"}, READER | {"Accept-Encoding": "identity"}
    assert at_once("/simple/demo/", packed) is None
    sent = client.get("/simple/demo/", headers=packed | {"Accept": "text/html"})
    again = at_once("/simple/demo/", packed)
    assert again is not None
    assert again.body == sent.data
    assert at_once("/simple/demo/", plain) is None  # it is kept compressed, and it is long
    sent = client.get("/simple/demo/", headers=plain | {"Accept": "text/html"})
    assert len(sent.data) > 10_000
    again = at_once("/simple/demo/", plain)
    assert again is not None
    assert again.body == sent.data
    assert dict(again.headers) == dict(sent.headers)
    monkeypatch.setattr(page_cache, "_QUICK_TEXT", len(sent.data))
    assert at_once("/simple/demo/", plain) == again


@pytest.mark.parametrize("elsewhere", ["", "https://index.example/simple/"])
def test_the_loop_says_what_is_not_there(deploy: Deploy, elsewhere: str) -> None:
    app = create_app(deploy(MINE, extra_index_url=elsewhere))
    client, at_once = app.test_client(), at_once_of(app)
    assert publish(client, *make_wheel("demo", "1.0")).status_code == 200
    for path, status in (
        ("/simple/unknown/", 302 if elsewhere else 404),
        ("/simple/acme-unknown/", 404),  # claimed
    ):
        answer = at_once(path)
        shown = client.get(f"{path}?x=1", headers=READER | {"Accept": "text/html"})
        assert answer is not None
        assert (answer.status, answer.body) == (status, shown.data)
        assert shown.status_code == status
        assert {**dict(shown.headers), **dict(answer.headers)} == dict(shown.headers)
        assert at_once(path, {}) is None


def test_a_person_gets_a_page_about_what_is_not_there(deploy: Deploy) -> None:
    app = create_app(deploy(MINE + "anonymous_read = true\n"))
    at_once = at_once_of(app)
    assert app.test_client().get("/simple/unknown/").status_code == 404
    assert at_once("/simple/unknown/", {}) is not None
    assert at_once("/simple/unknown/", {"User-Agent": "Mozilla/5.0"}) is None
    assert at_once("/simple/unknown/", {"Sec-Fetch-Mode": "navigate"}) is None
