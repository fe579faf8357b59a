"""The thin client: limits, signed addresses, redirects and secrets; and the settings of a table."""

from __future__ import annotations

import base64
import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from private_pypi.backend import Secret, Usage
from private_pypi.configuration.config import ConfigurationText, check_repository
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    NotAllowed,
    PrivatePypiError,
    WrongSecret,
)
from private_pypi.testing.contract.helpers import new_folders
from private_pypi_github import GitHubBackend, GitHubSettings
from private_pypi_github.answers import GitHubAnswer, Moved, check, told_limit
from private_pypi_github.backend import _SLOWEST, GitHubStorage
from private_pypi_github.client import Client, _Base64Body, _TimedBody
from private_pypi_github.connection import Connection
from private_pypi_github.downloads import SignedAddress, expiry_of
from tests.github.fake import FakeGitHub

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def answer(status: int, message: str = "", **headers: str) -> GitHubAnswer:
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"message": message}).encode()
    return GitHubAnswer(status, {"Date": format_datetime(NOW, usegmt=True), **said}, body)


def error_of(method: str, said: GitHubAnswer) -> PrivatePypiError:
    with pytest.raises(PrivatePypiError) as caught:
        check(method, "/repos/acme/pkgs", said, (200,))
    return caught.value


# What GitHub says about its limits (REST documentation, "Rate limits for the REST API").


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (answer(403, "API rate limit exceeded", Retry_After="30"), 30),
        (
            answer(
                403,
                X_RateLimit_Remaining="0",
                X_RateLimit_Reset=str(int(NOW.timestamp()) + 120),
            ),
            121,
        ),
        (answer(403, X_RateLimit_Remaining="0", X_RateLimit_Reset="1"), 1),
        (answer(403, "You have exceeded a secondary rate limit."), 60),
        (answer(429), 60),
        (answer(429, Retry_After="7"), 7),
        (answer(403, "Maximum number of login attempts exceeded."), 60),
        (answer(503, Retry_After="9"), 9),
        (answer(500), 5),
        (answer(502), 5),
        (answer(408), 5),
    ],
)
def test_github_says_when_to_come_back(said: GitHubAnswer, seconds: int) -> None:
    """By its own clock: ours may be wrong."""
    error = error_of("GET", said)
    assert isinstance(error, BackendUnavailable)
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("method", "said", "expected"),
    [
        ("GET", answer(403, "Forbidden"), BackendError),
        ("POST", answer(403, "Resource not accessible"), NotAllowed),
        ("GET", answer(401, "Bad credentials"), WrongSecret),
        ("GET", answer(404, "Not Found"), BackendError),
        ("GET", answer(301, "Moved Permanently"), Moved),
        ("GET", GitHubAnswer(418, {}, b"<html>"), BackendError),
    ],
)
def test_a_refusal_is_no_unavailability(
    method: str, said: GitHubAnswer, expected: type[Exception]
) -> None:
    assert type(error_of(method, said)) is expected


def test_a_renamed_repository_is_named_as_the_reason() -> None:
    assert "renamed or transferred" in str(error_of("GET", answer(301)))


@pytest.mark.parametrize(
    ("errors", "why"),
    [
        (
            [{"resource": "Release", "code": "already_exists", "field": "tag_name"}],
            "; tag_name already_exists",
        ),
        (["Sorry.", "No\tspace."], "; Sorry.; No space."),  # `validation-error-simple`
        ("Sorry.", "; Sorry."),
        (None, ""),
    ],
)
def test_what_github_said_is_repeated_on_one_line(errors: object, why: str) -> None:
    body = {"message": "Validation\nFailed", "errors": errors}
    said = GitHubAnswer(422, {}, json.dumps(body).encode())
    assert str(error_of("POST", said)).endswith(f"Validation Failed{why}")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"content": "x"}'])
def test_an_answer_of_another_form_is_trouble(body: bytes) -> None:
    with pytest.raises(BackendError, match=r"not JSON|has no 'content\.sha'"):
        GitHubAnswer(200, {}, body).member("content", "sha")


@pytest.mark.parametrize(
    ("said", "expected", "why"),
    [
        (
            {"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}]},
            BackendUnavailable,
            "limit is reached: .*exceeded",
        ),
        (
            {"data": {"repository": None}, "errors": [{"type": "FORBIDDEN", "message": "No one"}]},
            BackendError,
            "refuses a query: .*No one",
        ),
        (
            {"message": "You have exceeded a secondary rate limit. Please wait a few minutes."},
            BackendUnavailable,
            "limit is reached: .*secondary",
        ),
        (
            {"data": None, "errors": [{"message": "Something went wrong while executing your "}]},
            BackendUnavailable,
            "in trouble: .*Something went wrong",
        ),
        ({"data": None}, BackendError, "has no 'data'"),
        ({"data": []}, BackendError, "not an object"),
    ],
)
def test_an_error_in_the_answer_to_a_query_is_trouble(
    monkeypatch: pytest.MonkeyPatch,
    said: dict[str, Any],
    expected: type[PrivatePypiError],
    why: str,
) -> None:
    """Its status is 200 ("Rate limits and query limits for the GraphQL API")."""
    client = Client(Connection(), "https://github.example/api/v3", Secret("token"))
    asked: list[str] = []

    def request(method: str, url: str, **_: object) -> GitHubAnswer:
        asked.append(f"{method} {url}")
        return GitHubAnswer(200, {}, json.dumps(said).encode())

    monkeypatch.setattr(client, "request", request)
    with pytest.raises(PrivatePypiError, match=why) as caught:
        client.graphql("query { viewer { login } }", {})
    assert type(caught.value) is expected
    assert asked == ["POST https://github.example/api/graphql"]


def test_who_sends_as_slowly_as_is_allowed_is_not_timed_out(tmp_path: Path) -> None:
    """A time-out of a socket is for all that is sent at once (Python, `socket.sendall`), and while
    a body is sent it is that of connecting (urllib3)."""
    path = tmp_path / "content"
    path.write_bytes(bytes(4 << 20))
    with path.open("rb") as content:
        for timeout, body in (
            (Connection.upload_timeout, _TimedBody(content, None)),
            (Connection.timeout, _Base64Body({}, content)),
        ):
            assert max(map(len, body)) / _SLOWEST <= timeout[0] / 2


# Signed addresses.


def jwt(claims: dict[str, Any]) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"head.{middle}.signature"


@pytest.mark.parametrize(
    ("query", "end"),
    [
        ({"se": "2026-11-20T12:05:00Z", "sig": "x"}, NOW + timedelta(minutes=5)),
        ({"X-Amz-Date": "20261120T120000Z", "X-Amz-Expires": "300"}, NOW + timedelta(minutes=5)),
        ({"Expires": str(int(NOW.timestamp()))}, NOW),
        ({"jwt": jwt({"exp": int(NOW.timestamp())}), "se": "2026-11-20T13:00:00Z"}, NOW),
        ({"jwt": "nonsense", "se": "2026-11-20T12:00:00Z"}, NOW),
        ({"jwt": jwt({}), "X-Amz-Expires": "x", "se": "soon", "Expires": "9" * 40}, None),
        ({"se": "2026-11-20T12:05:00"}, None),
        ({}, None),
    ],
)
def test_the_earliest_end_of_a_signed_address_counts(
    query: dict[str, str], end: datetime | None
) -> None:
    assert expiry_of(f"https://storage.example/asset?{urlencode(query)}") == end


# Requests.


@pytest.fixture
def github(github: FakeGitHub) -> FakeGitHub:
    github.make_repo("acme", "pkgs", private=True)
    return github


def client_of(github: FakeGitHub, connection: Connection | None = None) -> Client:
    token = github.make_token(user="walter", rights={"acme/pkgs": "write"})
    return Client(connection or Connection(), github.api_url, Secret(token))


def test_an_unchanged_answer_is_asked_for_and_not_counted(github: FakeGitHub) -> None:
    client = client_of(github)
    first, said = client.get_kept("/repos/acme/pkgs", GitHubAnswer.json)
    again, said_again = client.get_kept("/repos/acme/pkgs", GitHubAnswer.json)
    assert (again.status, again.json(), said_again) == (200, first.json(), said)
    assert [(r.status, r.counted) for r in github.requests] == [(200, True), (304, False)]


def test_an_answer_to_one_token_is_not_given_to_another(github: FakeGitHub) -> None:
    connection = Connection()
    client_of(github, connection).get_kept("/repos/acme/pkgs", GitHubAnswer.json)
    stranger = Client(connection, github.api_url, Secret(github.make_token(user="eve", rights={})))
    with pytest.raises(BackendError, match="404"):
        stranger.get_kept("/repos/acme/pkgs", GitHubAnswer.json)
    assert not github.requests[-1].conditional


def test_half_an_answer_with_the_right_etag_is_not_kept(github: FakeGitHub) -> None:
    """GitHub would confirm it for as long as nothing changes."""
    client = client_of(github)
    github.fail("short")
    with pytest.raises(BackendError, match="not JSON"):
        client.get_kept("/repos/acme/pkgs", GitHubAnswer.json)
    _, said = client.get_kept("/repos/acme/pkgs", GitHubAnswer.json)
    assert said["full_name"] == "acme/pkgs"
    assert [request.conditional for request in github.requests] == [False, False]


def test_a_kept_answer_that_is_not_understood_is_asked_for_anew(github: FakeGitHub) -> None:
    """What one part of the program understands may lack what another one needs."""
    client = client_of(github)
    client.get_kept("/repos/acme/pkgs", GitHubAnswer.json)
    with pytest.raises(BackendError, match="'never_was'"):
        client.get_kept("/repos/acme/pkgs", lambda said: said.member("never_was"))
    client.get_kept("/repos/acme/pkgs", GitHubAnswer.json)
    assert [request.conditional for request in github.requests] == [False, True, False]


# To whom the token is sent.

ENTERPRISE = "https://git.example/api/v3"


@pytest.mark.parametrize(
    ("api_url", "method", "named"),
    [
        ("https://api.github.com", "GET", "https://api.github.com:443/repositories/1/tags?page=2"),
        ("https://api.github.com", "POST", "https://uploads.github.com/repos/a/b/releases/1"),
        ("https://api.acme.ghe.com", "POST", "https://uploads.acme.ghe.com/repos/a/b"),
        (ENTERPRISE, "POST", "https://git.example/api/uploads/repos/a/b/releases/1/assets"),
        (ENTERPRISE, "GET", "https://GIT.example/api/v3/repositories/1/tags"),
    ],
)
def test_the_token_is_sent_to_the_interface_and_its_uploads(
    api_url: str, method: str, named: str
) -> None:
    Client(Connection(), api_url, Secret("token"))._require_ours(method, named)


@pytest.mark.parametrize(
    ("api_url", "method", "named"),
    [
        ("https://api.github.com", "GET", "https://api.github.com.example/repositories/1"),
        ("https://api.github.com", "GET", "http://api.github.com/repositories/1"),
        ("https://api.github.com", "GET", "https://api.github.com:8443/repositories/1"),
        ("https://api.github.com", "GET", "https://uploads.github.com/repositories/1"),
        ("https://api.github.com", "GET", "https://user@api.github.com/repositories/1"),
        ("https://api.github.com", "GET", "https://evil.example\\@api.github.com/"),
        ("https://api.github.com", "GET", "https://[::1/"),
        ("https://api.github.com", "POST", "https://uploads.github.com:8443/repos/a/b"),
        ("https://api.github.com", "POST", "https://uploads.example/repos/a/b"),
        (ENTERPRISE, "POST", "https://uploads.git.example/repos/a/b"),
        (ENTERPRISE, "POST", "http://git.example/api/uploads/repos/a/b"),
    ],
)
def test_an_address_that_an_answer_names_elsewhere_gets_no_token(
    api_url: str, method: str, named: str
) -> None:
    client = Client(Connection(), api_url, Secret("token"))
    with pytest.raises(BackendError, match="the token is not sent there"):
        client.request(method, named, headers={}, expected=(200,))


def test_a_next_page_on_another_host_is_not_fetched(tmp_path: Path) -> None:
    asked: list[str] = []

    class Lying(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Host"])
            body = b"[]"
            self.send_response(200)
            port = self.server.server_address[1]
            link = f'<http://localhost:{port}/next>; rel="next"'
            self.send_header("Link", link)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Lying) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f"127.0.0.1:{server.server_port}"
        settings = GitHubSettings(
            name="mine",
            max_file_bytes=1,
            owner="acme",
            repo="pkgs",
            api_url=f"http://{where}",
        )
        backend = GitHubStorage(GitHubBackend(settings, new_folders(tmp_path)), Secret("token"))
        with pytest.raises(BackendError, match="an address on another host \\('localhost'\\)"):
            backend._listing.tags()
        server.shutdown()
    assert asked == [where]


def test_no_message_has_a_secret(github: FakeGitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the token, nor an address that was signed."""
    monkeypatch.setattr(Connection, "timeout", (0.2, 0.2))
    connection = Connection()
    client = client_of(github, connection)
    token = client._token.reveal()
    errors: list[BaseException] = []
    for kind in ("timeout", "reset", "403", "500"):
        github.fail(kind, on="GET /repos/*")
        with pytest.raises(PrivatePypiError) as caught:
            client.get("/repos/acme/pkgs")
        errors.append(caught.value)
        github.heal()
    signed = "http://127.0.0.1:9/asset?sig=hush"
    with pytest.raises(BackendUnavailable) as unreachable:
        client.fetch(SignedAddress(signed, None, 0.0))
    errors.append(unreachable.value)
    for error in errors:
        shown = f"{error!r} {error.__cause__!r} {error.__suppress_context__}"
        assert token not in shown
        assert "hush" not in shown
        assert error.__cause__ is not None or error.__suppress_context__ or not error.__context__


def test_requests_of_all_tokens_are_counted_and_each_token_has_its_limits(
    github: FakeGitHub,
) -> None:
    connection = Connection()
    walter = client_of(github, connection)
    eve = Client(connection, github.api_url, Secret(github.make_token(user="eve", rights={})))
    assert walter.usage() == Usage(requests={}, limits=())
    for _ in range(2):
        walter.get_kept("/repos/acme/pkgs", GitHubAnswer.json)
    eve.get("/repos/acme/pkgs", expected=(404,))
    (own,), (other,) = walter.usage().limits, eve.usage().limits
    assert (own.resource, own.limit - own.remaining) == ("core", 1)  # the 304 costs nothing
    assert own.limit == other.limit
    assert own.resets_at > datetime.now(UTC)
    github.fail("500", on="GET /repos/*")
    with pytest.raises(BackendUnavailable):
        walter.get("/repos/acme/pkgs")
    github.heal()
    with pytest.raises(BackendUnavailable):
        walter.fetch(SignedAddress("http://127.0.0.1:9/asset", None, 0.0))
    usage = walter.usage()
    assert usage.requests == {"2xx": 1, "304": 1, "4xx": 1, "5xx": 1, "none": 1}
    assert eve.usage().requests == usage.requests


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "1"},
        {"X-RateLimit-Limit": "x", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "1"},
        {"X-RateLimit-Limit": "1", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "9" * 40},
    ],
)
def test_who_says_nothing_of_a_limit_has_none(headers: dict[str, str]) -> None:
    assert told_limit(headers) is None


def test_credentials_of_netrc_are_not_sent(
    github: FakeGitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert client_of(github).get("/repos/acme/pkgs").status == 200


# The settings.


def settings(**values: Any) -> GitHubSettings:
    return GitHubSettings(
        **{"name": "mine", "max_file_bytes": 1, "owner": "acme", "repo": "pkgs", **values}
    )


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"owner": "acme/pkgs"}, "owner: 'acme/pkgs' cannot be a user or an organisation"),
        ({"repo": "acme/pkgs"}, "repo: 'acme/pkgs' is not the name of a repository"),
        ({"repo": ".."}, "repo: '..' is not the name"),
        ({"branch": ""}, "branch: must not be empty"),
        ({"index_filename": "../index.toml"}, "index_filename: '../index.toml' is not a path"),
        ({"index_filename": "/index.toml"}, "index_filename: '/index.toml' is not a path"),
        ({"index_filename": ""}, "index_filename: '' is not a path"),
        ({"api_url": "github.example"}, "api_url: 'github.example' is not the address"),
        ({"api_url": "https://u:hush@github.example"}, "api_url: must not contain a user"),
        ({"cache_bytes": 0}, "cache_bytes: must be greater than 0"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        settings(**values)
    assert "hush" not in str(caught.value)


def test_a_table_is_checked_with_the_keys_of_all_remote_backends(tmp_path: Path) -> None:
    table = {"type": "github", "owner": "acme", "repo": "pkgs", "download": "mirror"}
    source = ConfigurationText(text="", name="config.toml", folder=tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        check_repository("mine", {**table, "connection": "x"}, source=source, environ={})
    unknown, wrong = caught.value.problems
    assert "[mine] connection: unknown key" in unknown
    assert "[mine] download: must be one of 'proxy', 'redirect'" in wrong
    checked = check_repository("mine", {**table, "download": "redirect"}, source=source, environ={})
    assert checked.backend == settings(max_file_bytes=2**31 - 1, download="redirect")


def test_settings_say_no_more_than_the_table() -> None:
    assert "connection" not in repr(settings())
    assert settings() == settings()
