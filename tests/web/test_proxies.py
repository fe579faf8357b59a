"""Behind a prefix and a reverse proxy: addresses hold, and only trusted proxies are believed."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest
from flask.testing import FlaskClient

from private_pypi.testing.distributions import make_wheel
from tests.web.conftest import READER, publish


@pytest.mark.parametrize("prefix", ["", "/indexes/python"])
def test_links_and_redirects_hold_behind_any_prefix(client: FlaskClient, prefix: str) -> None:
    """Whether the proxy strips the prefix or the server does (`--url_prefix`)."""
    filename, content = make_wheel("Demo", "1.0")
    assert publish(client, filename, content).status_code == 200

    def get(url: str) -> tuple[int, str, bytes]:
        path = url.removeprefix("http://proxy" + prefix)
        assert path.startswith("/"), f"{url} leaves the prefix"
        # Headers of a proxy that is not trusted change nothing.
        forged = {"X-Forwarded-Host": "evil.invalid", "X-Forwarded-Prefix": "/evil"}
        answer = client.get(
            path, headers=READER | forged, environ_overrides={"SCRIPT_NAME": prefix}
        )
        location = answer.headers.get("Location", "")
        assert "evil" not in location
        return answer.status_code, location, answer.data

    url = f"http://proxy{prefix}/r/mine/simple/Demo"
    for _ in range(3):
        status, location, body = get(url)
        if status == 200:
            break
        url = urljoin(url, location)
    assert url == f"http://proxy{prefix}/r/mine/simple/demo/"
    [href] = [line.split('"')[1] for line in body.decode().splitlines() if line.startswith("<a ")]
    assert get(urljoin(url, href.partition("#")[0]))[2] == content
