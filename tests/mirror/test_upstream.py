"""The upstream of the tests does what it says: else tests of the mirror would prove nothing."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from private_pypi.testing.distributions import make_sdist, make_wheel
from tests.mirror.upstream import HTML, JSON, KINDS, Kind, Upstream, running
from tests.mirror.upstream_faults import FAULTS, faults_of
from tests.waiting import eventually

PAGE, LIST = "/simple/demo/", "/simple/"
NAME, CONTENT = make_wheel("demo", "1.0+cu124", requires_python=">=3.8")
FILE = "/files/demo/demo-1.0%2Bcu124-py3-none-any.whl"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATHS: Mapping[Kind, str] = {
    "page": PAGE,
    "list": LIST,
    "metadata": f"{FILE}.metadata",
    "file": FILE,
    "range": FILE,
}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running() as upstream:
        upstream.add(NAME, CONTENT)
        yield upstream


@dataclass
class Answer:
    """What a client got; `error` is the name of what `http.client` raised."""

    status: int | None = None
    headers: Mapping[str, str] | None = None
    body: bytes = b""
    error: str | None = None


def connect(upstream: Upstream, origin: str | None = None) -> http.client.HTTPConnection:
    port = urlsplit(origin or upstream.index_url).port
    return http.client.HTTPConnection("127.0.0.1", port, timeout=30)


def ask(
    upstream: Upstream,
    path: str,
    *,
    method: str = "GET",
    accept: str = JSON,
    origin: str | None = None,
    **headers: str,
) -> Answer:
    connection = connect(upstream, origin)
    answer = Answer()
    given = {"Accept": accept, **{k.replace("_", "-"): v for k, v in headers.items()}}
    try:
        connection.request(method, path, headers=given)
        response = connection.getresponse()
        answer.status = response.status
        answer.headers = {name.lower(): value for name, value in response.getheaders()}
        answer.body = response.read()
    except http.client.IncompleteRead as error:
        answer.error, answer.body = "IncompleteRead", error.partial
    except (OSError, http.client.HTTPException) as error:
        answer.error = type(error).__name__
    finally:
        connection.close()
    return answer


def ask_for(upstream: Upstream, kind: Kind) -> Answer:
    ranged = {"Range": "bytes=10-19"} if kind == "range" else {}
    return ask(upstream, PATHS[kind], **ranged)


# -- what is right ---------------------------------------------------------------------------------


def test_a_page_in_json_says_what_is_known_of_its_files(upstream: Upstream) -> None:
    answer = ask(upstream, PAGE)
    assert answer.headers is not None
    assert (answer.status, answer.headers["content-type"]) == (200, JSON)
    metadata = ask(upstream, f"{FILE}.metadata").body
    hashed = {"sha256": hashlib.sha256(metadata).hexdigest()}
    assert json.loads(answer.body) == {
        "meta": {"api-version": "1.4", "_last-serial": 7},
        "name": "demo",
        "versions": ["1.0+cu124"],
        "files": [
            {
                "filename": NAME,
                "url": upstream.origin("index") + FILE,
                "hashes": {"sha256": SHA256},
                "size": len(CONTENT),
                "upload-time": "2026-01-02T12:00:00.250000Z",
                "requires-python": ">=3.8",
                "core-metadata": hashed,
                "data-dist-info-metadata": hashed,
            }
        ],
    }


def test_more_can_be_said_of_a_file_and_a_project(upstream: Upstream) -> None:
    upstream.change(
        NAME,
        hashes={"blake2b": "1f"},
        size=None,
        upload_time=None,
        yanked="broken",
        provenance="https://attested.example/1",
        hashes_metadata=False,
        more={"gpg-sig": False, "url": "../x.whl"},
    )
    upstream.projects["demo"].status = "archived"
    upstream.projects["demo"].reason = "done"
    page = json.loads(ask(upstream, PAGE).body)
    assert page["project-status"] == {"status": "archived", "reason": "done"}
    assert page["files"] == [
        {
            "filename": NAME,
            "url": "../x.whl",
            "hashes": {"blake2b": "1f"},
            "requires-python": ">=3.8",
            "yanked": "broken",
            "core-metadata": True,
            "data-dist-info-metadata": True,
            "provenance": "https://attested.example/1",
            "gpg-sig": False,
        }
    ]


def test_a_page_in_html_has_attributes_and_hashes_or_neither(upstream: Upstream) -> None:
    upstream.change(NAME, yanked="a < b", provenance="https://attested.example/1")
    upstream.projects["demo"].status = "deprecated"
    answer = ask(upstream, PAGE, accept="text/html")
    metadata = ask(upstream, f"{FILE}.metadata").body
    hashed = f"sha256={hashlib.sha256(metadata).hexdigest()}"
    url = upstream.origin("index") + FILE
    assert answer.headers is not None
    assert answer.headers["content-type"] == HTML
    text = answer.body.decode()
    assert '<meta name="pypi:project-status" content="deprecated">' in text
    assert (
        f'<a href="{url}#sha256={SHA256}" data-requires-python="&gt;=3.8" '
        f'data-yanked="a &lt; b" data-core-metadata="{hashed}" data-dist-info-metadata="{hashed}" '
        f'data-provenance="https://attested.example/1">{NAME}</a>' in text
    )
    upstream.format, upstream.has_attributes, upstream.has_hashes = "html", False, False
    text = ask(upstream, PAGE).body.decode()
    assert re.findall("<(?:a|meta) .*?>", text) == [
        '<meta name="pypi:repository-version" content="1.4">',
        f'<a href="{url}">',
    ]


def test_the_list_of_projects_has_more_names_where_a_test_wants_them(upstream: Upstream) -> None:
    upstream.more_names = ["Other.Name"]
    assert json.loads(ask(upstream, LIST).body)["projects"] == [
        {"name": "demo"},
        {"name": "Other.Name"},
    ]
    upstream.format = "html"
    text = ask(upstream, LIST).body.decode()
    assert re.findall("<a .*</a>", text) == [
        '<a href="/simple/demo/">demo</a>',
        '<a href="/simple/other-name/">Other.Name</a>',
    ]
    upstream.has_list = False
    assert ask(upstream, LIST).status == 404


def test_what_it_does_not_have_is_404(upstream: Upstream) -> None:
    upstream.add(*make_sdist("demo", "2.0"))
    paths = ["/simple/none/", "/files/demo/none.whl", "/files/demo/demo-2.0.tar.gz.metadata", "/x"]
    assert [ask(upstream, path).status for path in paths] == [404] * 4
    upstream.remove(NAME)
    upstream.remove("demo-2.0.tar.gz")
    assert json.loads(ask(upstream, PAGE).body)["files"] == []


def test_other_spellings_of_an_address_are_redirected(upstream: Upstream) -> None:
    for path in ("/simple/demo", "/simple/De.Mo/"):
        answer = ask(upstream, path)
        assert answer.headers is not None
        expected = path.replace("De.Mo", "de-mo").rstrip("/") + "/"
        assert (answer.status, answer.headers["location"]) == (301, expected)


@pytest.mark.parametrize("kind", ["page", "list", "metadata", "file"])
def test_an_etag_makes_304_until_something_changes(upstream: Upstream, kind: Kind) -> None:
    first = ask(upstream, PATHS[kind])
    assert first.headers is not None
    etag = first.headers["etag"]
    again = ask(upstream, PATHS[kind], If_None_Match=f'"other", {etag}')
    assert (again.status, again.body, again.headers) == (304, b"", {"etag": etag})
    upstream.add(*make_wheel("more", "1.0"))
    upstream.change(NAME, content=b"x", core_metadata=b"y", yanked=True)
    assert ask(upstream, PATHS[kind], If_None_Match=etag).status == 200
    upstream.has_etags = False
    bare = ask(upstream, PATHS[kind], If_None_Match="*")
    assert bare.headers is not None
    assert (bare.status, "etag" in bare.headers) == (200, False)


def test_pages_are_compressed_for_those_who_accept_it(upstream: Upstream) -> None:
    plain = ask(upstream, PAGE)
    packed = ask(upstream, PAGE, Accept_Encoding="gzip, deflate")
    assert plain.headers is not None
    assert packed.headers is not None
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert plain.headers["etag"] != packed.headers["etag"]
    upstream.is_compressed = False
    assert ask(upstream, PAGE, Accept_Encoding="gzip").body == plain.body


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [("0-0", 0, 1), ("10-19", 10, 20), ("10-", 10, None), ("-7", -7, None), ("5-99999", 5, None)],
)
def test_parts_of_a_file(upstream: Upstream, asked: str, begin: int, end: int | None) -> None:
    answer = ask(upstream, FILE, Range=f"bytes={asked}")
    assert answer.headers is not None
    assert (answer.status, answer.body) == (206, CONTENT[begin:end])
    first, last = range(len(CONTENT))[begin], range(len(CONTENT))[begin:end][-1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(CONTENT)}"


def test_parts_that_are_not_there_or_not_given(upstream: Upstream) -> None:
    beyond = ask(upstream, FILE, Range="bytes=99999-")
    assert beyond.headers is not None
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")
    other = ask(upstream, FILE, Range="bytes=0-1", If_Range='"another"')
    same = ask(upstream, FILE, Range="bytes=0-1", If_Range=f'"{SHA256}"')
    upstream.has_ranges = False
    without = ask(upstream, FILE, Range="bytes=0-1")
    assert [(a.status, a.body) for a in (other, same, without)] == [
        (200, CONTENT),
        (206, CONTENT[:2]),
        (200, CONTENT),
    ]


@pytest.mark.parametrize("kind", ["page", "list", "metadata", "file"])
def test_head_answers_like_get_without_a_body(upstream: Upstream, kind: Kind) -> None:
    whole, head = (ask(upstream, PATHS[kind], method=method) for method in ("GET", "HEAD"))
    assert (head.status, head.headers, head.body) == (200, whole.headers, b"")
    assert int((head.headers or {})["content-length"]) == len(whole.body)


def test_bodies_in_chunks(upstream: Upstream) -> None:
    upstream.is_chunked = True
    answer = ask(upstream, FILE)
    assert answer.headers is not None
    assert (answer.body, "content-length" in answer.headers) == (CONTENT, False)


def test_files_on_another_origin_need_no_login(upstream: Upstream) -> None:
    upstream.files_elsewhere, upstream.login = True, ("user", "geheim")
    refused = ask(upstream, PAGE)
    assert refused.headers is not None
    assert (refused.status, "www-authenticate" in refused.headers) == (401, True)
    token = base64.b64encode(b"user:geheim").decode()
    page = ask(upstream, PAGE, Authorization=f"Basic {token}")
    url = json.loads(page.body)["files"][0]["url"]
    assert url == upstream.file_url(NAME) == upstream.origin("files") + FILE
    assert ask(upstream, FILE, origin=url).body == CONTENT
    assert [(each.origin, each.headers.get("authorization")) for each in upstream.asked] == [
        ("index", None),
        ("index", f"Basic {token}"),
        ("files", None),
    ]


def test_it_tells_what_it_was_asked_and_what_it_sent(upstream: Upstream) -> None:
    connection = connect(upstream)
    try:
        for method, path in (("GET", PAGE), ("HEAD", FILE), ("GET", FILE), ("GET", "/x?y=z")):
            connection.request(method, path)  # all over one connection
            connection.getresponse().read()
    finally:
        connection.close()
    eventually(lambda: upstream.asked[-1].sent)
    asked = upstream.asked
    assert [(each.kind, each.status, each.project, each.filename) for each in asked] == [
        ("page", 200, "demo", ""),
        ("file", 200, "", NAME),
        ("file", 200, "", NAME),
        (None, 404, "", ""),
    ]
    assert [each.sent for each in asked][1:3] == [0, len(CONTENT)]
    assert upstream.lines() == [f"GET {PAGE}", f"HEAD {FILE}", f"GET {FILE}", "GET /x?y=z"]
    assert (upstream.count("file"), upstream.count("range"), upstream.count()) == (2, 0, 4)
    upstream.forget()
    assert upstream.count() == 0


# -- waiting ---------------------------------------------------------------------------------------


def test_requests_wait_until_the_test_releases_them(upstream: Upstream) -> None:
    with ThreadPoolExecutor(3) as pool, upstream.hold("file") as hold:
        waiting = [pool.submit(ask, upstream, FILE) for _ in range(3)]
        hold.until(3)
        assert ask(upstream, PAGE).status == 200  # another kind
        assert [each.done() for each in waiting] == [False] * 3
        hold.release()
        assert [each.result().body for each in waiting] == [CONTENT] * 3
        assert ask(upstream, FILE).body == CONTENT


def test_a_body_waits_after_so_many_bytes(upstream: Upstream) -> None:
    hold = upstream.hold("file", only=NAME, after=10)
    connection = connect(upstream)
    try:
        connection.request("GET", FILE)
        response = connection.getresponse()
        assert response.read(10) == CONTENT[:10]
        hold.until()
        assert upstream.asked[0].sent == 10
        upstream.release()
        assert response.read() == CONTENT[10:]
    finally:
        connection.close()


def test_the_end_of_the_block_ends_whatever_waits() -> None:
    before = set(threading.enumerate())  # servers of other tests may still be ending
    with ThreadPoolExecutor(1) as pool, running() as upstream:
        upstream.add(NAME, CONTENT)
        hold = upstream.hold("page")
        waiting = pool.submit(ask, upstream, PAGE)
        hold.until()
        upstream.fail("page", "refused")  # ends all connections, also those that wait
        assert waiting.result().error == "RemoteDisconnected"
    new = [each.name for each in threading.enumerate() if each not in before]
    assert [name for name in new if "process_request" in name] == []


# -- going wrong -----------------------------------------------------------------------------------


def test_faults_concern_some_requests_and_end(upstream: Upstream) -> None:
    upstream.add(*make_wheel("other", "1.0"))
    upstream.fail("page", "502", only="demo", skip=1, times=2)
    paths = [PAGE, "/simple/other/", PAGE, LIST, PAGE, PAGE]
    assert [ask(upstream, path).status for path in paths] == [200, 200, 502, 200, 502, 200]
    upstream.fail(None, "500")
    assert [ask_for(upstream, kind).status for kind in KINDS] == [500] * 5
    upstream.heal()
    assert [ask_for(upstream, kind).status for kind in KINDS] == [200, 200, 200, 200, 206]


def test_only_the_origin_of_the_kind_refuses(upstream: Upstream) -> None:
    upstream.files_elsewhere = True
    upstream.fail("file", "refused")
    assert ask(upstream, FILE, origin=upstream.origin("files")).error == "ConnectionRefusedError"
    assert ask(upstream, PAGE).status == 200
    upstream.heal()
    assert ask(upstream, FILE, origin=upstream.origin("files")).body == CONTENT


def test_a_fault_that_a_kind_cannot_have_is_a_mistake_of_the_test(upstream: Upstream) -> None:
    with pytest.raises(AssertionError, match="page has no fault another range"):
        upstream.fail("page", "another range")
    assert "another range" not in faults_of("page")


# What the client sees instead of an answer, or its status.
SEEN: Mapping[str, str | int] = {
    "refused": "ConnectionRefusedError",
    "closed before the status": "RemoteDisconnected",
    "reset before the status": "ConnectionResetError",
    "not HTTP": "BadStatusLine",
    "500": 500,
    "502": 502,
    "503 with Retry-After": 503,
    "429": 429,
    "401": 401,
    "403": 403,
    "404": 404,
    "410": 410,
    "304 to any request": 304,
    "204": 204,
    "redirect loop": 302,
    "redirect to another origin": 302,
    "redirect to a file": 302,
    "redirect to nowhere": 302,
    "cut": "IncompleteRead",
    "cut between chunks": "IncompleteRead",
    "cut in a chunk": "IncompleteRead",
    "a header of 1 MB": "LineTooLong",
}
SLOW = ("silent", "one byte of the head per second", "one byte per second")

# What is true of the answer `bad`, where `good` is the right one. Each has the status 200.
Check = Callable[[Answer, Answer], bool]


def size(answer: Answer) -> int:
    return int((answer.headers or {})["content-length"])


def without(key: str, answer: Answer) -> dict[str, object]:
    return {k: v for k, v in json.loads(answer.body).items() if k != key}


ANSWERED: Mapping[str, Check] = {
    "wrong content type": lambda bad, good: (
        bad.body == good.body and (bad.headers or {})["content-type"] == "application/json"
    ),
    "no content type": lambda bad, good: (
        bad.body == good.body and "content-type" not in (bad.headers or {})
    ),
    "login page": lambda bad, good: (
        b"password" in bad.body and (bad.headers or {})["content-type"] == HTML
    ),
    "empty": lambda bad, good: bad.body == b"" and size(bad) == 0,
    "wrong bytes": lambda bad, good: (
        len(bad.body) == len(good.body)
        and not any(a == b for a, b in zip(bad.body, good.body, strict=True))
    ),
    "half, announced as whole": lambda bad, good: (
        bad.body == good.body[: len(good.body) // 2] and size(bad) == len(bad.body)
    ),
    "no list in it": lambda bad, good: json.loads(bad.body) == without("files", good),
    "of another project": lambda bad, good: json.loads(bad.body)["name"] == "demo-of-another",
    "longer than announced": lambda bad, good: bad.body == good.body,
    "gzip that is none": lambda bad, good: (
        bad.body == good.body and (bad.headers or {})["content-encoding"] == "gzip"
    ),
    "half of gzip": lambda bad, good: (
        bad.body == gzip.compress(good.body)[: len(bad.body)] or bad.body[:2] == b"\x1f\x8b"
    ),
    "gzip of 1 GiB": lambda bad, good: (
        len(bad.body) < 2 * 2**20 and len(gzip.decompress(bad.body[: len(bad.body) // 64])) == 2**24
    ),
    "headers of 1 MB": lambda bad, good: (
        bad.body == good.body and sum(map(len, (bad.headers or {}).values())) > 10**6
    ),
}


def test_the_tables_of_this_test_name_every_fault() -> None:
    others = {"another range", "the whole file instead of a range", "endless"}
    assert set(FAULTS) == {*SEEN, *SLOW, *ANSWERED, *others}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", SEEN)
def test_what_goes_wrong_before_the_body_or_in_it(
    upstream: Upstream, fault: str, kind: Kind
) -> None:
    good = ask_for(upstream, kind)
    upstream.fail(kind, fault)
    bad = ask_for(upstream, kind)
    assert SEEN[fault] == (bad.error or bad.status)
    if bad.error == "IncompleteRead":
        # What is complete in the last chunk that is cut is not known to `http.client`.
        assert fault == "cut in a chunk" or bad.body == good.body[: len(good.body) // 2]
    upstream.heal()
    assert ask_for(upstream, kind) == good


@pytest.mark.parametrize("fault", ANSWERED)
def test_what_is_wrong_with_a_whole_answer(upstream: Upstream, fault: str) -> None:
    good = ask(upstream, PAGE)
    upstream.fail("page", fault)
    # It is wrong also for those who have the right page.
    for known in ('"none"', (good.headers or {})["etag"]):
        bad = ask(upstream, PAGE, If_None_Match=known)
        assert (bad.status, bad.error) == (200, None)
        assert ANSWERED[fault](bad, good)


@pytest.mark.parametrize("fault", SLOW)
def test_what_is_slow_ends_with_the_block(fault: str) -> None:
    with running() as upstream:
        upstream.add(NAME, CONTENT)
        upstream.fail("file", fault)
        port = urlsplit(upstream.index_url).port
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        connection.sendall(f"GET {FILE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        eventually(lambda: upstream.count("file"))
        head = b""
        while fault == "one byte per second" and b"\r\n\r\n" not in head:
            head += connection.recv(65536)
    with connection:
        rest = b""
        while more := connection.recv(65536):
            rest += more
    assert len(rest) < len(CONTENT) // 2
    assert (b"200 OK" in head) == (fault == "one byte per second")


def test_an_endless_body_ends_when_the_client_leaves_or_the_test_ends() -> None:
    with running() as upstream:
        upstream.add(NAME, CONTENT)
        upstream.fail("file", "endless")
        for leaves in (True, False):
            connection = connect(upstream)
            connection.request("GET", FILE)
            response = connection.getresponse()
            assert len(response.read(2**20)) == 2**20
            if leaves:
                connection.close()
                eventually(lambda: upstream.count() == 1)
    connection.close()


def test_a_redirect_to_another_origin_leads_to_the_right_answer(upstream: Upstream) -> None:
    upstream.files_elsewhere = True
    for kind, origin in (("page", "index"), ("file", "files")):
        upstream.fail(kind, "redirect to another origin")  # type: ignore[arg-type]
        home = upstream.origin(origin)  # type: ignore[arg-type]
        path = PATHS[kind]  # type: ignore[index]
        target = (ask(upstream, path, origin=home).headers or {})["location"]
        assert urlsplit(target).port != urlsplit(home).port
        assert ask(upstream, path, origin=target).status == 200


def test_a_loop_leads_to_itself(upstream: Upstream) -> None:
    upstream.fail("page", "redirect loop")
    assert (ask(upstream, PAGE).headers or {})["location"] == PAGE


def test_more_than_announced_is_an_answer_that_nobody_asked_for(upstream: Upstream) -> None:
    upstream.fail("file", "longer than announced")
    port = urlsplit(upstream.index_url).port
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"GET {FILE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        received = b""
        while not received.endswith(b"more"):
            received += connection.recv(65536)
    assert f"Content-Length: {len(CONTENT)}\r\n".encode() in received
    more = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmore"
    assert received.endswith(b"\r\n\r\n" + CONTENT + more)


@pytest.mark.parametrize(
    ("asked", "begin", "end"), [("10-19", 11, 21), ("-10", -11, -1), ("0-", 0, -1)]
)
def test_another_range_than_asked(upstream: Upstream, asked: str, begin: int, end: int) -> None:
    upstream.fail("range", "another range")
    answer = ask(upstream, FILE, Range=f"bytes={asked}")
    assert answer.headers is not None
    assert (answer.status, answer.body) == (206, CONTENT[begin:end])
    first, last = range(len(CONTENT))[begin], range(len(CONTENT))[begin:end][-1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(CONTENT)}"
    upstream.heal()
    upstream.fail("range", "the whole file instead of a range")
    whole = ask(upstream, FILE, Range=f"bytes={asked}")
    assert whole.headers is not None
    assert (whole.status, whole.body, "content-range" in whole.headers) == (200, CONTENT, False)


@pytest.mark.parametrize("fault", ["longer than announced", "endless", "cut in a chunk", "cut"])
def test_no_fault_sends_a_body_to_head(upstream: Upstream, fault: str) -> None:
    upstream.fail("file", fault)
    answer = ask(upstream, FILE, method="HEAD")
    assert (answer.status, answer.body, answer.error) == (200, b"", None)
