"""The hot path gives the same answers as the views, and leaves the rest to them."""

from __future__ import annotations

from itertools import product

import pytest
from flask.testing import FlaskClient
from werkzeug.test import create_environ

from private_pypi.testing.distributions import make_wheel
from private_pypi.web import create_app
from private_pypi.web.api import hot_path
from private_pypi.web.http import content
from private_pypi.web.operations import logs
from private_pypi.web.serving import Exchange
from tests.web.conftest import MINE, OTHER, READER, Deploy, basic, publish

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
    caches = (hot_path._negotiate, content._accepts_gzip, logs._short_agent, logs._quoted_agent)
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
