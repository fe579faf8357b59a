"""Pages and files over HTTP, statement by statement of the protocol."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web import create_app
from private_pypi.web.http.content import Conditions, page_content
from private_pypi.web.http.page_cache import make_page
from tests.web.conftest import MINE, OTHER, READER, Deploy, basic, publish

JSON = "application/vnd.pypi.simple.v1+json"


@pytest.fixture
def wheel(client: FlaskClient) -> tuple[str, bytes]:
    filename, content = make_wheel("Demo.Project", "1.0", requires_python=">=3.8")
    assert publish(client, filename, content).status_code == 200
    return filename, content


def test_pages_come_as_the_client_asks(client: FlaskClient, wheel: tuple[str, bytes]) -> None:
    filename, content = wheel
    page = client.get("/simple/demo-project/", headers=READER | {"Accept": JSON})
    assert page.status_code == 200
    assert page.content_type == JSON
    [file] = page.get_json(force=True)["files"]
    assert file["filename"] == filename
    assert file["url"] == filename
    assert file["hashes"] == {"sha256": hashlib.sha256(content).hexdigest()}
    assert file["size"] == len(content)
    assert file["requires-python"] == ">=3.8"
    assert file["upload-time"].endswith("Z")
    assert set(page.headers["Vary"].split(", ")) == {"Accept", "Accept-Encoding", "Authorization"}
    plain = client.get("/simple/demo-project/", headers=READER)
    assert plain.content_type == "text/html; charset=utf-8"  # protocol 2
    assert f">{filename}</a>" in plain.text
    root = client.get("/simple/", headers=READER | {"Accept": JSON})
    assert root.get_json(force=True)["projects"][0]["name"] == "demo-project"
    assert root.headers["X-PyPI-Last-Serial"] == str(
        root.get_json(force=True)["meta"]["_last-serial"]
    )


def test_nothing_acceptable_is_406(client: FlaskClient, wheel: tuple[str, bytes]) -> None:
    page = client.get("/simple/demo-project/", headers=READER | {"Accept": "application/xml"})
    assert page.status_code == 406
    page = client.get("/simple/demo-project/?format=application/xml", headers=READER)
    assert page.status_code == 406


def test_the_address_may_name_the_format(client: FlaskClient, wheel: tuple[str, bytes]) -> None:
    for path in (
        "/simple/demo-project/?format=application/vnd.pypi.simple.v1%2Bjson",
        "/simple/demo-project/?format=application/vnd.pypi.simple.v1+json",
        "/simple/v1+json/demo-project/",
        "/simple/v1+json/",
        "/simple/v1%2Bjson/",
    ):
        page = client.get(path, headers=READER | {"Accept": "text/html"})
        assert (page.status_code, page.content_type) == (200, JSON), path  # protocol 4, 5
    page = client.get("/simple/v1+json/demo-project/", headers=READER)
    assert page.get_json(force=True)["files"][0]["url"] == f"../../demo-project/{wheel[0]}"


def test_a_page_that_did_not_change_is_a_304_with_the_same_strong_etag(
    client: FlaskClient, wheel: tuple[str, bytes]
) -> None:
    for encoding in ("identity", "gzip"):
        headers = READER | {"Accept": JSON, "Accept-Encoding": encoding}
        page = client.get("/simple/demo-project/", headers=headers)
        etag = page.headers["ETag"]
        assert etag.startswith('"')  # protocol 33: never W/
        assert page.headers["Cache-Control"] == "max-age=0, must-revalidate"
        again = client.get("/simple/demo-project/", headers=headers | {"If-None-Match": etag})
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["ETag"] == etag
        many = client.get(
            "/simple/demo-project/", headers=headers | {"If-None-Match": f'"x", {etag}'}
        )
        assert many.status_code == 304
    assert publish(client, *make_wheel("demo-project", "2.0")).status_code == 200
    page = client.get("/simple/demo-project/", headers=headers | {"If-None-Match": etag})
    assert page.status_code == 200  # protocol 61


def test_pages_are_compressed_for_those_who_can(
    client: FlaskClient, wheel: tuple[str, bytes]
) -> None:
    plain = client.get("/simple/demo-project/", headers=READER)
    packed = client.get("/simple/demo-project/", headers=READER | {"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["ETag"] != plain.headers["ETag"]


def test_a_short_page_is_compressed_when_it_is_asked_for_again(
    deploy: Deploy, client: FlaskClient, wheel: tuple[str, bytes]
) -> None:
    assert publish(client, *make_wheel("demo-project", "2.0")).status_code == 200
    headers = READER | {"Accept": JSON, "Accept-Encoding": "gzip"}
    new = create_app(deploy(MINE)).test_client()  # another process, which has rendered nothing
    first, again, third = (new.get("/simple/demo-project/", headers=headers) for _ in range(3))
    assert "Content-Encoding" not in first.headers
    assert again.headers["Content-Encoding"] == third.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(again.data) == first.data
    assert third.data == again.data
    etags = [first.headers["ETag"], again.headers["ETag"]]
    assert etags[0] != etags[1]  # protocol 33: each is of other bytes
    newer = create_app(deploy(MINE)).test_client()
    for each in (newer, new):  # one that has the page as text, and one that has it compressed
        for etag in etags:
            unchanged = each.get("/simple/demo-project/", headers=headers | {"If-None-Match": etag})
            assert (unchanged.status_code, unchanged.headers["ETag"]) == (304, etag)
    plain = headers | {"Accept-Encoding": "identity", "If-None-Match": etags[1]}
    assert new.get("/simple/demo-project/", headers=plain).data == first.data


def test_a_page_that_does_not_fit_into_the_first_packets_is_compressed_at_once() -> None:
    long = make_page("<a>link</a>\n" * 2_000, "text/html", 1)
    answer = page_content(long, Conditions(accept_encoding="gzip"), public=False)
    assert ("Content-Encoding", "gzip") in answer.headers
    assert isinstance(answer.body, bytes)
    assert gzip.decompress(answer.body) == b"<a>link</a>\n" * 2_000


def test_head_is_answered_everywhere(client: FlaskClient, wheel: tuple[str, bytes]) -> None:
    filename, _ = wheel
    for path in (
        "/simple/",
        "/simple/demo-project/",
        f"/simple/demo-project/{filename}",
        f"/simple/demo-project/{filename}.metadata",
    ):
        head = client.head(path, headers=READER)
        got = client.get(path, headers=READER)
        assert (head.status_code, head.data) == (200, b"")  # protocol 9
        assert head.headers["Content-Length"] == str(len(got.data))
        assert head.headers["ETag"] == got.headers["ETag"]


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/simple", "simple/"),
        ("/simple/demo-project", "demo-project/"),
        ("/simple/Demo.Project", "demo-project/"),
        ("/simple/Demo.Project/", "../demo-project/"),
        ("/simple/Demo.Project/x-1.0.tar.gz", "../demo-project/x-1.0.tar.gz"),
        ("/simple/v1+json", "v1%2Bjson/"),
        ("/simple/v1+json/Demo_Project/", "../demo-project/"),
        ("/r/mine/simple", "simple/"),
        ("/r/mine/simple/Demo.Project/", "../demo-project/"),
        ("/simple/Demo.Project/?format=text/html", "../demo-project/?format=text/html"),
        ("/r/mine", "mine/"),
        # Nothing in a path becomes a header, another address or a query.
        ("/simple/x%0D%0ASet-Cookie:a", "x%0D%0Aset-cookie%3Aa/"),
        ("/simple/HTTP:evil", "http%3Aevil/"),
        ("/simple/%5C%5CEVIL", "%5C%5Cevil/"),
        ("/simple/Demo.Project/a%3Fb%23c%0Ad", "../demo-project/a%3Fb%23c%0Ad"),
    ],
)
def test_redirects_are_relative_so_that_they_hold_behind_any_prefix(
    client: FlaskClient, path: str, location: str
) -> None:
    answer = client.get(path, headers=READER)
    assert (answer.status_code, answer.headers["Location"]) == (301, location)  # protocol 6, 7


def test_a_file_with_all_it_needs_to_be_kept(client: FlaskClient, wheel: tuple[str, bytes]) -> None:
    filename, content = wheel
    path = f"/simple/demo-project/{filename}"
    answer = client.get(path, headers=READER | {"Accept-Encoding": "gzip"})
    assert answer.data == content
    assert "Content-Encoding" not in answer.headers  # protocol 10
    assert answer.headers["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert answer.headers["Cache-Control"] == "max-age=365000000, immutable, private"
    assert answer.headers["Accept-Ranges"] == "bytes"
    again = client.get(path, headers=READER | {"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


def test_a_proxy_that_compresses_makes_weak_what_it_passes_on(
    client: FlaskClient, wheel: tuple[str, bytes]
) -> None:
    """RFC 9110 §13.1.2: `If-None-Match` compares weakly, also in a list."""
    file = f"/simple/demo-project/{wheel[0]}"
    for path in ("/simple/", "/simple/demo-project/", file, f"{file}.metadata"):
        etag = client.get(path, headers=READER).headers["ETag"]
        for known in (etag, f"W/{etag}", f'"other", W/{etag}', "*"):
            answer = client.get(path, headers=READER | {"If-None-Match": known})
            assert (answer.status_code, answer.headers["ETag"]) == (304, etag), (path, known)
        assert client.get(path, headers=READER | {"If-None-Match": 'W/"other"'}).status_code == 200


def test_a_file_is_not_sent_again_to_who_knows_its_date(
    client: FlaskClient, wheel: tuple[str, bytes]
) -> None:
    """RFC 9110 §13.1.3: a date is only compared if the request has no ETags."""
    file = f"/simple/demo-project/{wheel[0]}"
    for path in (file, f"{file}.metadata"):
        whole = client.get(path, headers=READER)
        etag, date = whole.headers["ETag"], whole.headers["Last-Modified"]
        for headers, status in (
            ({"If-Modified-Since": date}, 304),
            ({"If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}, 200),
            ({"If-Modified-Since": "yesterday"}, 200),
            ({"If-Modified-Since": date, "If-None-Match": '"other"'}, 200),
            ({"If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT", "If-None-Match": etag}, 304),
        ):
            for method in ("GET", "HEAD"):
                answer = client.open(path, method=method, headers=READER | headers)
                assert answer.status_code == status, (path, method, headers)


def test_parts_of_a_file(client: FlaskClient, wheel: tuple[str, bytes]) -> None:
    filename, content = wheel
    path = f"/simple/demo-project/{filename}"
    whole = client.get(path, headers=READER)

    def part(value: str, **headers: str) -> tuple[int, bytes, str | None]:
        answer = client.get(path, headers=READER | {"Range": value} | headers)
        return answer.status_code, answer.data, answer.headers.get("Content-Range")

    size = len(content)
    assert part("bytes=5-9") == (206, content[5:10], f"bytes 5-9/{size}")  # protocol 31
    assert part("bytes=-4") == (206, content[-4:], f"bytes {size - 4}-{size - 1}/{size}")
    assert part(f"bytes={size}-") == (416, b"", f"bytes */{size}")
    beyond = client.get(path, headers=READER | {"Range": f"bytes={size}-"})
    assert beyond.headers["Cache-Control"] == "no-store"  # the file is immutable, not this answer
    assert part("lines=1-2") == (200, content, None)
    etag, modified = whole.headers["ETag"], whole.headers["Last-Modified"]
    # protocol 32: pip resumes with If-Range
    assert part("bytes=5-", **{"If-Range": etag})[:2] == (206, content[5:])
    assert part("bytes=5-", **{"If-Range": modified})[:2] == (206, content[5:])
    assert part("bytes=5-", **{"If-Range": '"other"'}) == (200, content, None)


def test_core_metadata_byte_for_byte(client: FlaskClient, wheel: tuple[str, bytes]) -> None:
    filename, _ = wheel
    page = client.get("/simple/demo-project/", headers=READER | {"Accept": JSON})
    [file] = page.get_json(force=True)["files"]
    answer = client.get(f"/simple/demo-project/{filename}.metadata", headers=READER)
    assert hashlib.sha256(answer.data).hexdigest() == file["core-metadata"]["sha256"]
    assert b"Name: Demo.Project" in answer.data  # protocol 29


def test_core_metadata_of_sdists_only_where_it_can_be_relied_on(client: FlaskClient) -> None:
    for version, metadata_version in (("1.0", "2.1"), ("2.0", "2.2")):
        filename, content = make_sdist("demo", version, metadata_version=metadata_version)
        assert publish(client, filename, content).status_code == 200
    page = client.get("/simple/demo/", headers=READER | {"Accept": JSON})
    files = {file["filename"]: file for file in page.get_json(force=True)["files"]}
    assert "core-metadata" not in files["demo-1.0.tar.gz"]  # protocol 30
    assert "core-metadata" in files["demo-2.0.tar.gz"]
    assert client.get("/simple/demo/demo-1.0.tar.gz.metadata", headers=READER).status_code == 404


def test_an_unknown_project_is_404_without_an_extra_index(client: FlaskClient) -> None:
    answer = client.get("/simple/unknown/", headers=READER)
    assert answer.status_code == 404  # protocol 8
    assert client.get("/simple/unknown/unknown-1.0.zip", headers=READER).status_code == 404


def test_an_unknown_project_may_be_elsewhere_but_never_one_of_ours(deploy: Deploy) -> None:
    client = create_app(deploy(MINE, extra_index_url="https://index.invalid/simple/")).test_client()
    assert publish(client, *make_wheel("demo", "1.0")).status_code == 200
    headers = READER | {"If-None-Match": "*"}
    answer = client.get("/simple/unknown/", headers=headers)
    assert answer.status_code == 302
    assert answer.headers["Location"] == "https://index.invalid/simple/unknown/"
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.get("/simple/acme-secret/", headers=headers).status_code == 404  # claimed
    filename = "demo-1.0-py3-none-any.whl"
    assert (
        client.delete(f"/simple/demo/{filename}", headers=basic("mine", "writer")).status_code
        == 200
    )
    assert client.get("/simple/demo/", headers=headers).status_code == 404  # once ours


def test_a_project_of_files_that_cannot_be_read_is_neither_absent_nor_elsewhere(
    deploy: Deploy, tmp_path: Path
) -> None:
    storage = tmp_path / "root" / "cache" / "mine" / "storage"
    _, content = make_wheel("demo", "1.0")
    places = {
        "cut": "cut/cut-1.0-py3-none-any.whl",
        "misnamed": "misnamed/misnamed-1.0-py3-none-any.whl",
        "its-folder": "Its.Folder/demo.whl",
        "partly": "partly/partly-1.0.zip",
    }
    for place in places.values():
        (storage / place).parent.mkdir(parents=True)
        (storage / place).write_bytes(content if "misnamed" in place else content[:50])
    good, content = make_wheel("partly", "2.0")
    (storage / "partly" / good).write_bytes(content)
    served = deploy(MINE, extra_index_url="https://index.invalid/simple/")
    (repository,) = served.repositories
    repository.synchronize()
    client = create_app(served).test_client()
    for project, place in places.items():
        name = place.partition("/")[2]
        page = client.get(f"/simple/{project}/", headers=READER)
        if project == "partly":  # what is good is shown
            assert (page.status_code, good in page.text, name in page.text) == (200, True, False)
        else:
            assert (page.status_code, page.headers["Retry-After"]) == (503, "60")
            assert page.text.startswith(
                f"project {project!r} has a file that cannot be served now, {name!r}: "
            )
        assert client.get(f"/simple/{project}/{name}", headers=READER).status_code == 503
    assert client.get("/simple/unknown/", headers=READER).status_code == 302


def test_nothing_is_absent_in_a_listing_that_is_too_old(
    deploy: Deploy, caplog: pytest.LogCaptureFixture
) -> None:
    served = deploy(MINE, extra_index_url="https://index.invalid/simple/")
    client = create_app(served).test_client()
    filename, content = make_wheel("demo", "1.0")
    assert publish(client, filename, content).status_code == 200
    (repository,) = served.repositories
    repository.close()  # nobody synchronises any more
    for age, status in ((3605, 302), (3620, 503), (-60, 503)):
        with repository.index.writing() as connection:
            connection.execute("UPDATE state SET listed_at = ?", (time.time() - age,))
        answer = client.get("/simple/unknown/", headers=READER)
        assert answer.status_code == status, age
        assert client.get("/simple/demo/", headers=READER).status_code == 200
        missing = client.get("/simple/demo/demo-2.0.zip", headers=READER)
        assert missing.status_code == (404 if status == 302 else 503)
    assert answer.headers["Retry-After"] == "30"
    assert answer.text == (
        "repository 'mine' was last synchronised at an unknown time, which is too long to say what "
        "is not there (sync_index_interval is 3600 seconds)\n"
    )
    told = [record.message for record in caplog.records if "is answered with 503" in record.message]
    assert len(told) == 1  # when it began


@pytest.mark.parametrize(
    "name", ["acme-secret%3F", "%20acme-secret", "%00", "-", "a%0D%0Ab", "d%C3%A9mo", "a%5Cb"]
)
def test_what_is_no_name_is_nowhere(deploy: Deploy, name: str) -> None:
    """It would become the address of a claimed project there, or of none."""
    client = create_app(deploy(MINE, extra_index_url="https://index.invalid/simple/")).test_client()
    assert client.get(f"/simple/{name}/", headers=READER).status_code == 404


def test_a_table_may_have_an_extra_index_of_its_own(deploy: Deploy) -> None:
    config = MINE + 'extra_index_url = ""\n' + OTHER + 'extra_index_url = "http://up.invalid/s"\n'
    client = create_app(deploy(config, extra_index_url="https://index.invalid/")).test_client()
    assert client.get("/r/mine/simple/x/", headers=READER).status_code == 404
    answer = client.get("/r/other/simple/x/", headers=basic("other", "other-reader"))
    assert answer.headers["Location"] == "http://up.invalid/s/x/"


@pytest.mark.parametrize(
    "path", ["/simple/", "/simple/demo/", "/simple/demo/a-1.zip", "/r/mine/simple/"]
)
def test_every_401_has_a_challenge(client: FlaskClient, path: str) -> None:
    wrong = (None, basic("mine", "wrong"), basic("mine", ""), {"Authorization": "Bearer wrong"})
    for headers in wrong:
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401  # protocol 40
        assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")


def test_an_unknown_repository_looks_like_a_wrong_secret(deploy: Deploy) -> None:
    client = create_app(deploy(MINE + OTHER)).test_client()
    unknown = client.get("/simple/", headers=basic("nobody", "reader"))
    wrong = client.get("/simple/", headers=basic("mine", "other-reader"))
    assert (
        (unknown.status_code, unknown.data) == (wrong.status_code, wrong.data) == (401, wrong.data)
    )
    assert client.get("/r/nobody/simple/", headers=READER).status_code == 401


@pytest.mark.parametrize("user", ["mine", "Mine", "__token__", "", "oauth2accesstoken", "octocat"])
def test_with_one_repository_any_user_may_bear_the_secret(client: FlaskClient, user: str) -> None:
    assert client.get("/simple/", headers=basic(user, "reader")).status_code == 200  # protocol 41
    assert client.get("/r/mine/simple/", headers=basic(user, "reader")).status_code == 200


def test_with_several_repositories_the_user_or_the_path_chooses(deploy: Deploy) -> None:
    client = create_app(deploy(MINE + OTHER)).test_client()

    def status(path: str, user: str, secret: str) -> int:
        return client.get(path, headers=basic(user, secret)).status_code

    assert status("/simple/", "mine", "reader") == 200
    assert status("/simple/", "other", "other-reader") == 200
    assert status("/simple/", "__token__", "reader") == 401
    assert status("/r/mine/simple/", "__token__", "reader") == 200
    assert status("/r/other/simple/", "__token__", "reader") == 401
    assert status("/r/other/simple/", "mine", "reader") == 401  # names another repository
    assert status("/r/other/simple/", "mine", "other-reader") == 401

    def bearer(path: str, token: str) -> int:
        return client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code

    assert bearer("/r/mine/simple/", "reader") == 200
    assert bearer("/simple/", "mine:reader") == 200
    assert bearer("/simple/", "reader") == 401
    assert bearer("/r/other/simple/", "mine:reader") == 401


@pytest.mark.parametrize("agent", ["pip/26.3", "Mozilla/5.0", "Renovate/1", ""])
def test_basic_is_honoured_for_every_user_agent(client: FlaskClient, agent: str) -> None:
    headers = READER | {"User-Agent": agent, "Accept": "text/html"}
    assert client.get("/simple/", headers=headers).status_code == 200


def test_people_without_a_secret_read_only_where_the_operator_said_so(deploy: Deploy) -> None:
    client = create_app(deploy(MINE + "anonymous_read = true\n" + OTHER)).test_client()
    public = client.get("/r/mine/simple/")
    assert public.status_code == 200
    assert public.headers["Access-Control-Allow-Origin"] == "*"  # protocol 38
    private = client.get("/r/other/simple/", headers=basic("other", "other-reader"))
    assert "Access-Control-Allow-Origin" not in private.headers
    assert client.get("/r/other/simple/").status_code == 401
    assert client.get("/r/mine/simple/", headers=basic("mine", "wrong")).status_code == 401
    refused = publish(client, *make_wheel("demo", "1.0"), path="/r/mine/", headers={})
    assert refused.status_code == 401


@pytest.mark.parametrize("prefix", ["", "/simple", "/legacy", "/r/mine", "/r/mine/simple"])
def test_hatch_finds_what_is_published(
    client: FlaskClient, wheel: tuple[str, bytes], prefix: str
) -> None:
    answer = client.get(f"{prefix}/%2Bsimple/demo-project/", headers=READER | {"Accept": "*/*"})
    assert (answer.status_code, answer.mimetype) == (200, "text/html")  # protocol 94
    [href] = [line.split('"')[1] for line in answer.text.splitlines() if line.startswith("<a ")]
    from urllib.parse import urljoin

    target = urljoin(f"http://localhost{prefix}/%2Bsimple/demo-project/", href)
    assert client.get(target, headers=READER).data == wheel[1]


def test_a_repository_that_is_not_synchronised_is_503(deploy: Deploy) -> None:
    deployment = deploy(
        MINE.replace('type = "file_system"', 'type = "file_system"\npath = "/nonexistent/storage"'),
        extra_index_url="https://index.invalid/simple/",
    )
    client = create_app(deployment).test_client()
    for path in ("/simple/", "/simple/demo/", "/simple/demo/demo-1.0.zip"):
        answer = client.get(path, headers=READER)
        assert answer.status_code == 503, path  # never 404, never the extra index
        assert int(answer.headers["Retry-After"]) > 0


def test_yanked_files_stay_listed_and_downloadable(
    client: FlaskClient, wheel: tuple[str, bytes]
) -> None:
    filename, content = wheel
    writer = basic("mine", "writer")
    answer = client.post(
        "/simple/demo-project/1.0/yank", data={"reason": "broken <b>"}, headers=writer
    )
    assert answer.get_json() == {"files": [filename]}
    page = client.get("/simple/demo-project/", headers=READER | {"Accept": JSON})
    assert page.get_json(force=True)["files"][0]["yanked"] == "broken <b>"
    assert client.get(f"/simple/demo-project/{filename}", headers=READER).data == content
    assert client.post(f"/simple/demo-project/{filename}/yank", headers=writer).status_code == 200
    page = client.get("/simple/demo-project/", headers=READER | {"Accept": JSON})
    assert page.get_json(force=True)["files"][0]["yanked"] is True
    assert client.delete("/simple/demo-project/1.0/yank", headers=writer).status_code == 200
    page = client.get("/simple/demo-project/", headers=READER | {"Accept": JSON})
    assert page.get_json(force=True)["files"][0]["yanked"] is False  # protocol 69
    assert (
        client.post(
            "/simple/demo-project/1.0/yank", data={"reason": "two\nlines"}, headers=writer
        ).status_code
        == 400
    )
    assert client.post("/simple/demo-project/1.0/yank", headers=READER).status_code == 403
    absent = client.post("/simple/demo-project/3.0/yank", headers=writer)
    assert absent.status_code == 404
    assert "no release '3.0' of project 'demo-project'" in absent.text


def test_the_start_page_is_for_people_and_tells_nothing(client: FlaskClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "mine" not in page.text


def test_json_bodies_are_utf8_without_a_charset(client: FlaskClient) -> None:
    page = client.get("/simple/", headers=READER | {"Accept": JSON})
    assert page.headers["Content-Type"] == JSON  # protocol 1
    assert json.loads(page.data.decode("utf-8"))["projects"] == []


@pytest.mark.parametrize("path", ["/mine/", "/simple//demo/", "/r/mine/demo/1.0/file"])
def test_where_nothing_is_the_answer_says_where_an_index_is(client: FlaskClient, path: str) -> None:
    answer = client.get(path, headers=READER)
    assert (answer.status_code, answer.text) == (
        404,
        f"nothing is at {path!r}; an index is at /simple/ and /r/<repository>/simple/\n",
    )
