"""How the upstream is asked: conditions, redirects, credentials, statuses, bodies."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import urllib3

from private_pypi.backend import Secret, UpstreamNames
from private_pypi.errors import BackendError, BackendUnavailable, ProjectNotFound
from private_pypi_mirror.backend import MirrorStorage
from private_pypi_mirror.connection import Connection
from tests.mirror.conftest import MakeMirror
from tests.mirror.serving import HTML, JSON, Asked, Reply, Upstream, redirect, running_upstream
from tests.proxies.authority import make_certificates

PATH = "/simple/demo/"
FILE = {"filename": "demo-1.0.zip", "url": "demo-1.0.zip", "hashes": {}}
BODY = json.dumps({"meta": {"api-version": "1.1"}, "name": "demo", "files": [FILE]}).encode()
PAGE = Reply(BODY)
LINKS = b'<!DOCTYPE html><html><body><a href="demo-1.0.zip">x</a></body></html>'
LIST = Reply(json.dumps({"meta": {"api-version": "1.1"}, "projects": [{"name": "demo"}]}).encode())
WALTER = "Basic d2FsdGVyOmh1bnRlcjI="  # walter:hunter2


def found(mirror: MirrorStorage, validator: str = "") -> list[str]:
    page = mirror.project_page("demo", validator)
    assert page is not None
    return [file.url for file in page.files]


def trouble(mirror: MirrorStorage) -> BackendError:
    with pytest.raises(BackendError) as caught:
        mirror.project_page("demo", "")
    return caught.value


# -- what is asked -------------------------------------------------------------------------------


def test_json_is_asked_for(upstream: Upstream, mirror: MirrorStorage) -> None:
    """protocol 80"""
    upstream.answers[PATH] = PAGE
    assert found(mirror) == [f"{upstream.index_url}demo/demo-1.0.zip"]
    (asked,) = upstream.asked
    assert asked.path == PATH
    assert asked.headers["accept"].split(";")[0].split(", ")[0] == JSON
    assert "text/html;q=0.01" in asked.headers["accept"]
    assert "if-none-match" not in asked.headers
    assert "authorization" not in asked.headers


@pytest.mark.parametrize("project", ["../secret", "Demo", "a/b", "", ".", "a b"])
def test_what_is_no_name_is_not_asked_for(
    upstream: Upstream, mirror: MirrorStorage, project: str
) -> None:
    with pytest.raises(ProjectNotFound):
        mirror.project_page(project, "")
    assert upstream.asked == []


def test_one_connection_is_used_again(upstream: Upstream, mirror: MirrorStorage) -> None:
    upstream.answers |= {"/there/": PAGE, "/simple/": LIST, PATH: redirect("/there/")}
    found(mirror)
    with pytest.raises(ProjectNotFound):
        mirror.project_page("missing", "")
    names = mirror.project_names("")
    assert names is not None
    assert list(names.names) == ["demo"]
    found(mirror)
    assert (len(upstream.asked), upstream.connections) == (6, 1)
    assert mirror.usage().requests == {"2xx": 3, "3xx": 2, "4xx": 1}


# -- conditions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "condition", "value"),
    [
        ("ETag", "if-none-match", '"abc"'),
        ("ETag", "if-none-match", 'W/"abc, d"'),
        ("Last-Modified", "if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ],
)
def test_a_page_that_has_not_changed_is_not_sent_again(
    upstream: Upstream, mirror: MirrorStorage, name: str, condition: str, value: str
) -> None:
    """protocol 80"""

    def answer(asked: Asked) -> Reply:
        is_known = asked.headers.get(condition) == value
        return Reply(status=304, type="") if is_known else PAGE.but(**{name: value})

    upstream.answers[PATH] = answer
    page = mirror.project_page("demo", "")
    assert page is not None
    assert page.validator != ""
    assert mirror.project_page("demo", page.validator) is None
    assert found(mirror, page.validator.replace("2026", "2025").replace("abc", "x")) != []
    assert mirror.usage().requests == {"2xx": 2, "304": 1}


def test_an_etag_counts_more_than_a_date(upstream: Upstream, mirror: MirrorStorage) -> None:
    upstream.answers[PATH] = PAGE.but(ETag='"a"', Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")
    page = mirror.project_page("demo", "")
    assert page is not None
    found(mirror, page.validator)
    assert "if-modified-since" not in upstream.asked[-1].headers
    assert upstream.asked[-1].headers["if-none-match"] == '"a"'


def test_the_list_has_a_validator_as_well(upstream: Upstream, mirror: MirrorStorage) -> None:
    upstream.answers["/simple/"] = LIST.but(ETag='"l"')
    names = mirror.project_names("")
    assert isinstance(names, UpstreamNames)
    assert list(names.names) == ["demo"]
    upstream.answers["/simple/"] = Reply(status=304, type="")
    assert mirror.project_names(names.validator) is None


def test_304_to_a_request_without_a_condition_is_trouble(
    upstream: Upstream, mirror: MirrorStorage
) -> None:
    upstream.answers |= {PATH: Reply(status=304, type=""), "/simple/": Reply(status=304, type="")}
    assert "304" in str(trouble(mirror))
    with pytest.raises(BackendError, match="304"):
        mirror.project_names("")


def test_a_condition_is_for_the_address_that_it_came_from(
    upstream: Upstream, mirror: MirrorStorage
) -> None:
    upstream.answers |= {
        PATH: redirect("/first/"),
        "/first/": PAGE.but(ETag='"1"'),
        "/second/": PAGE.but(ETag='"1"'),
    }
    page = mirror.project_page("demo", "")
    assert page is not None
    upstream.answers[PATH] = redirect("/second/")
    assert found(mirror, page.validator) == [f"{upstream.origin}/second/demo-1.0.zip"]
    asked = [(each.path, each.headers.get("if-none-match")) for each in upstream.asked]
    assert asked[2:] == [(PATH, None), ("/second/", None)]


@pytest.mark.parametrize("validator", ["nonsense", "1 2 3", "x ETag", '"abc"', " ", "a\r\nb: c"])
def test_a_validator_that_is_damaged_is_ignored(
    upstream: Upstream, mirror: MirrorStorage, validator: str
) -> None:
    upstream.answers[PATH] = PAGE
    assert found(mirror, validator) != []
    assert "if-none-match" not in upstream.asked[-1].headers


# -- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(upstream: Upstream, mirror: MirrorStorage, status: int) -> None:
    upstream.answers |= {
        PATH: redirect("../moved/page?a=b#c", status),
        "/simple/moved/page?a=b": PAGE,
    }
    assert found(mirror) == [f"{upstream.origin}/simple/moved/demo-1.0.zip"]


def test_five_redirects_are_followed_and_not_six(upstream: Upstream, mirror: MirrorStorage) -> None:
    upstream.answers |= {f"/{n}": redirect(f"/{n + 1}") for n in range(1, 9)}
    upstream.answers |= {PATH: redirect("/1"), "/5": PAGE}
    assert found(mirror) != []
    upstream.answers |= {"/5": redirect("/6"), "/6": PAGE}
    assert "redirects" in str(trouble(mirror))
    assert upstream.paths()[-1] == "/5"


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://acme.example/", "https://[::1/", "javascript:x"]
)
def test_redirects_lead_to_http_only(
    upstream: Upstream, mirror: MirrorStorage, location: str
) -> None:
    upstream.answers[PATH] = redirect(location)
    assert "redirects to what is not an http or https address" in str(trouble(mirror))


def test_a_redirect_without_an_address_is_trouble(
    upstream: Upstream, mirror: MirrorStorage
) -> None:
    upstream.answers[PATH] = Reply(status=302)
    assert "answered 302 (Found)" in str(trouble(mirror))


@pytest.fixture
def encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    """An upstream with TLS, whose authority this machine trusts."""
    made = make_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    with running_upstream((made.certificate, made.key)) as running:
        yield running


def test_authorities_of_the_system_are_trusted(
    encrypted: Upstream, upstream: Upstream, mirror_of: MakeMirror
) -> None:
    encrypted.answers[PATH] = PAGE
    assert found(mirror_of(encrypted.index_url)) == [f"{encrypted.index_url}demo/demo-1.0.zip"]
    # It may also be redirected to.
    upstream.answers[PATH] = redirect(f"{encrypted.origin}{PATH}")
    assert found(mirror_of(upstream.index_url)) == [f"{encrypted.index_url}demo/demo-1.0.zip"]


def test_a_redirect_never_leads_from_https_to_http(
    encrypted: Upstream, upstream: Upstream, mirror_of: MakeMirror
) -> None:
    encrypted.answers[PATH] = redirect(f"{upstream.origin}{PATH}")
    upstream.answers[PATH] = PAGE
    assert "not encrypted" in str(trouble(mirror_of(encrypted.index_url)))
    assert upstream.asked == []


def test_a_certificate_of_somebody_else_is_trouble(
    tmp_path: Path, upstream: Upstream, mirror_of: MakeMirror
) -> None:
    made = make_certificates(tmp_path)
    with running_upstream((made.certificate, made.key)) as other:
        other.answers[PATH] = PAGE
        assert isinstance(trouble(mirror_of(other.index_url)), BackendUnavailable)


# -- credentials ---------------------------------------------------------------------------------


@pytest.fixture
def as_walter(upstream: Upstream, mirror_of: MakeMirror) -> MirrorStorage:
    """A mirror with credentials."""
    return mirror_of(upstream.index_url, username="walter", password=Secret("hunter2"))


def test_credentials_are_sent_to_the_index(upstream: Upstream, as_walter: MirrorStorage) -> None:
    upstream.answers |= {PATH: redirect("/moved/"), "/moved/": PAGE}
    found(as_walter)
    assert [each.headers.get("authorization") for each in upstream.asked] == [WALTER, WALTER]


def test_credentials_do_not_follow_a_redirect_elsewhere_or_back(
    upstream: Upstream, elsewhere: Upstream, as_walter: MirrorStorage
) -> None:
    upstream.answers |= {PATH: redirect(f"{elsewhere.origin}/there/"), "/back/": PAGE}
    elsewhere.answers["/there/"] = redirect(f"{upstream.origin}/back/")
    found(as_walter)
    assert [each.headers.get("authorization") for each in upstream.asked] == [WALTER, None]
    assert [each.headers.get("authorization") for each in elsewhere.asked] == [None]


def test_another_name_of_the_host_is_another_origin(
    upstream: Upstream, as_walter: MirrorStorage
) -> None:
    # Another spelling of the same address, which needs no /etc/hosts.
    other = upstream.origin.replace("127.0.0.1", "127.1")
    upstream.answers |= {PATH: redirect(f"{other}/there/"), "/there/": PAGE}
    found(as_walter)
    assert upstream.asked[-1].headers.get("authorization") is None


def test_credentials_of_netrc_are_not_used(
    upstream: Upstream, mirror: MirrorStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login walter password hunter2\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    upstream.answers[PATH] = PAGE
    found(mirror)
    assert "authorization" not in upstream.asked[0].headers


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_trouble_and_never_shown(
    upstream: Upstream, elsewhere: Upstream, as_walter: MirrorStorage, status: int
) -> None:
    upstream.answers[PATH] = Reply(b"walter:hunter2", "text/plain", status)
    said = str(trouble(as_walter))
    assert f"answered {status}" in said
    assert "the upstream refuses these credentials: username, password_env" in said
    upstream.answers[PATH] = redirect(f"{elsewhere.origin}/there/?signature=secret")
    elsewhere.answers["/there/?signature=secret"] = Reply(status=status)
    again = str(trouble(as_walter))
    assert "only sent to the origin of index_url" in again
    assert f"{elsewhere.origin}/there/ answered" in again
    for hidden in ("hunter2", "secret", "d2Fs"):
        assert hidden not in said + again


def test_missing_credentials_are_told(upstream: Upstream, mirror: MirrorStorage) -> None:
    upstream.answers[PATH] = Reply(status=401)
    assert "set username and password_env" in str(trouble(mirror))


# -- statuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 410])
def test_only_404_and_410_mean_that_there_is_no_project(
    upstream: Upstream, mirror: MirrorStorage, status: int
) -> None:
    """protocol 79"""
    upstream.answers[PATH] = Reply(b"<html>not here</html>", HTML, status)
    with pytest.raises(ProjectNotFound):
        mirror.project_page("demo", "")


@pytest.mark.parametrize("status", [404, 410])
def test_a_list_that_is_missing_is_trouble(
    upstream: Upstream, mirror: MirrorStorage, status: int
) -> None:
    upstream.answers["/simple/"] = Reply(status=status)
    with pytest.raises(BackendError, match="no list of projects"):
        mirror.project_names("")


@pytest.mark.parametrize("status", [201, 204, 206, 400, 401, 402, 403, 405, 406, 418, 451])
def test_other_statuses_are_trouble(upstream: Upstream, mirror: MirrorStorage, status: int) -> None:
    upstream.answers[PATH] = Reply(b"" if status == 204 else BODY, status=status)
    error = trouble(mirror)
    assert f"{upstream.index_url}demo/ answered {status}" in str(error)
    assert not isinstance(error, BackendUnavailable)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 507, 599])
def test_an_upstream_that_fails_may_be_asked_again(
    upstream: Upstream, mirror: MirrorStorage, status: int
) -> None:
    """protocol 79"""
    upstream.answers[PATH] = Reply(BODY, status=status).but(Retry_After="17")
    error = trouble(mirror)
    assert isinstance(error, BackendUnavailable)
    assert error.retry_after == 17


def test_retry_after_may_be_a_date_or_too_long(upstream: Upstream, mirror: MirrorStorage) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    waits = []
    for value in (soon, "999999", "soon"):
        upstream.answers[PATH] = Reply(status=503).but(Retry_After=value)
        error = trouble(mirror)
        assert isinstance(error, BackendUnavailable)
        waits.append(error.retry_after)
    assert waits[0] in range(80, 101)
    assert waits[1:] == [3600, 5]


@pytest.mark.parametrize("type_", ["", "text/plain", "application/octet-stream", "image/png"])
def test_other_media_types_are_trouble(
    upstream: Upstream, mirror: MirrorStorage, type_: str
) -> None:
    upstream.answers |= {PATH: Reply(BODY, type_), "/simple/": Reply(LIST.body, type_)}
    assert "is index_url right?" in str(trouble(mirror))
    with pytest.raises(BackendError, match="is index_url right"):
        mirror.project_names("")


def test_an_upstream_that_is_down_is_trouble(upstream: Upstream, mirror_of: MakeMirror) -> None:
    with running_upstream() as gone:
        pass
    error = trouble(mirror_of(gone.index_url))
    assert isinstance(error, BackendUnavailable)
    assert str(error) == f"{gone.index_url}demo/ cannot be reached: Connection refused"


def test_a_name_that_is_too_long_for_a_host_is_trouble(mirror_of: MakeMirror) -> None:
    assert "not an address" in str(trouble(mirror_of(f"http://{'a' * 70}/simple/")))


# -- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [BODY, LINKS])
@pytest.mark.parametrize("how", ["plain", "chunks", "gzip", "deflate", "two members"])
def test_bodies_arrive_in_many_ways(
    upstream: Upstream, mirror: MirrorStorage, body: bytes, how: str
) -> None:
    type_ = JSON if body == BODY else HTML
    replies = {
        "plain": Reply(body, type_),
        "chunks": Reply(body, type_, chunks=True),
        "gzip": Reply(gzip.compress(body), type_).but(Content_Encoding="gzip"),
        "deflate": Reply(zlib.compress(body), type_, chunks=True).but(Content_Encoding="Deflate"),
        "two members": Reply(gzip.compress(body[:9]) + gzip.compress(body[9:]), type_).but(
            Content_Encoding="x-gzip"
        ),
    }
    upstream.answers[PATH] = replies[how]
    assert found(mirror) == [f"{upstream.index_url}demo/demo-1.0.zip"]


@pytest.mark.parametrize("body", [BODY, LINKS])
@pytest.mark.parametrize("how", ["plain", "chunks", "gzip", "gzip in chunks"])
def test_a_body_that_is_cut_off_is_trouble(
    upstream: Upstream, mirror: MirrorStorage, body: bytes, how: str
) -> None:
    type_ = JSON if body == BODY else HTML
    packed = gzip.compress(body)
    replies = {
        "plain": Reply(body, type_, length=len(body) + 1),
        "chunks": Reply(body, type_, length=0, chunks=True),
        "gzip": Reply(packed[:-9], type_).but(Content_Encoding="gzip"),
        "gzip in chunks": Reply(packed[:-9], type_, chunks=True).but(Content_Encoding="gzip"),
    }
    upstream.answers[PATH] = replies[how]
    error = trouble(mirror)
    assert isinstance(error, BackendUnavailable)
    assert "did not arrive whole" in str(error)


def test_a_body_without_a_length_must_have_an_end(
    upstream: Upstream, mirror: MirrorStorage
) -> None:
    for body, type_ in ((BODY, JSON), (LINKS, HTML)):
        upstream.answers[PATH] = Reply(body, type_, length=-1)
        assert len(found(mirror)) == 1
        upstream.answers[PATH] = Reply(body[: body.index(b"zip") + 9], type_, length=-1)
        trouble(mirror)
    links = b'<a href="demo-1.0.zip">x</a>\n<a href="demo-2.0.zip">x</a>\n'
    upstream.answers[PATH] = Reply(links[:29], HTML, length=-1)
    assert "may be cut off" in str(trouble(mirror))


def test_a_body_of_many_empty_parts_is_refused(upstream: Upstream, mirror: MirrorStorage) -> None:
    """Each of them takes a thousand times as long as a byte of a page."""
    body = gzip.compress(b"") * 1001
    upstream.answers["/simple/demo/"] = Reply(body).but(Content_Encoding="gzip")
    with pytest.raises(BackendError, match="more than 1000 parts"):
        mirror.project_page("demo", "")


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
def test_other_compression_is_trouble(
    upstream: Upstream, mirror: MirrorStorage, encoding: str
) -> None:
    upstream.answers[PATH] = PAGE.but(Content_Encoding=encoding)
    assert "compressed as" in str(trouble(mirror))


def test_what_is_not_compressed_as_it_says_is_trouble(
    upstream: Upstream, mirror: MirrorStorage
) -> None:
    upstream.answers[PATH] = PAGE.but(Content_Encoding="gzip")
    assert "not compressed as it says" in str(trouble(mirror))


def test_a_page_is_bounded_before_and_after_it_is_decompressed(
    upstream: Upstream, mirror: MirrorStorage
) -> None:
    most = 64 << 20
    bomb = zlib.compressobj(9, wbits=31)
    packed = b"".join(bomb.compress(b" " * (1 << 20)) for _ in range(65)) + bomb.flush()
    upstream.answers[PATH] = Reply(packed).but(Content_Encoding="gzip")
    assert f"more than {most} bytes" in str(trouble(mirror))
    upstream.answers[PATH] = Reply(b" " * (most + 1))
    assert f"more than {most} bytes" in str(trouble(mirror))


def test_headers_without_end_are_trouble(upstream: Upstream, mirror: MirrorStorage) -> None:
    upstream.answers[PATH] = Reply(BODY, headers={f"X-{n}": "x" for n in range(200)})
    assert isinstance(trouble(mirror), BackendUnavailable)


@pytest.mark.parametrize("length", ["5, 6", "-5", "x"])
def test_lengths_that_contradict_each_other_are_trouble_or_none(
    upstream: Upstream, mirror: MirrorStorage, length: str
) -> None:
    upstream.answers[PATH] = Reply(BODY[:-5], length=-1).but(Content_Length=length)
    trouble(mirror)


# -- time ----------------------------------------------------------------------------------------


def test_an_upstream_that_does_not_answer_is_not_waited_for(
    upstream: Upstream, mirror: MirrorStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "timeout", urllib3.Timeout(connect=5, read=0.05))
    may_end = threading.Event()

    def answer(_: Asked) -> Reply:
        assert may_end.wait(20)
        return PAGE

    upstream.answers[PATH] = answer
    assert isinstance(trouble(mirror), BackendUnavailable)
    # The same in the middle of a body.
    upstream.answers[PATH] = Reply(BODY, length=len(BODY) + 1, stays_open=may_end)
    assert isinstance(trouble(mirror), BackendUnavailable)
    may_end.set()


def test_an_upstream_that_sends_too_slowly_is_not_waited_for(
    upstream: Upstream, mirror: MirrorStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_pypi_mirror.backend._PAGE_SECONDS", 0.0)
    upstream.answers[PATH] = PAGE
    error = trouble(mirror)
    assert isinstance(error, BackendUnavailable)
    assert "sends too slowly" in str(error)
