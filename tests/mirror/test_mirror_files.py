"""Files and core metadata of a mirror: how they arrive, how they are checked, and what is kept."""

from __future__ import annotations

import hashlib
import http.client
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web.serving import WAITING, Later, Waiting
from tests.faults.disks import MIB, Disk, small_disk
from tests.faults.servers import JSON as ACCEPTS_JSON
from tests.faults.servers import Server, Servers, basic
from tests.mirror.mirrors import Clock, Mirrored, cached, forget_trouble, kept_pages, mirror_table
from tests.mirror.upstream import Upstream
from tests.waiting import eventually

WHEEL, SDIST = make_wheel("demo", "1.0"), make_sdist("demo", "0.9")
LARGE = make_wheel("demo", "2.0", files={"demo.bin": os.urandom(6 * MIB)})
READER = ("pypi", "r")

needs_server = pytest.mark.needs("a server in a process of its own")


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_trouble(monkeypatch)


# -- hashes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha512", "sha3_256", "blake2b"])
def test_another_hash_is_compared(index: Upstream, mirrored: Mirrored, algorithm: str) -> None:
    hashes = {algorithm: hashlib.new(algorithm, WHEEL[1]).hexdigest()}
    index.add(*WHEEL, hashes=hashes)
    asking = mirrored()
    other = make_wheel("demo", "1.0", files={"other.py": b""})[1]
    index.change(WHEEL[0], content=other, size=None)
    assert asking.file(WHEEL[0]).status_code in (502, 503)
    assert cached(asking.deployment.root) == []
    index.change(WHEEL[0], content=WHEEL[1])
    assert asking.file(WHEEL[0]).data == WHEEL[1]
    page = asking.files()[WHEEL[0]]
    assert page["hashes"] == {**hashes, "sha256": hashlib.sha256(WHEEL[1]).hexdigest()}


@pytest.mark.parametrize("shown", ["json", "html"])
def test_a_hash_that_nobody_says_is_learned_and_then_compared(
    index: Upstream, mirrored: Mirrored, clock: Clock, shown: str
) -> None:
    index.format, index.has_hashes = shown, False  # type: ignore[assignment]
    index.add(*WHEEL)
    asking = mirrored()
    before = asking.page()
    assert asking.files()[WHEEL[0]]["hashes"] == {}
    first = asking.file(WHEEL[0])
    assert (first.data, first.headers.get("ETag")) == (WHEEL[1], None)
    after = asking.page()
    file = after.get_json(force=True)["files"][0]
    sha256 = hashlib.sha256(WHEEL[1]).hexdigest()
    assert file["hashes"] == {"sha256": sha256}
    assert file["size"] == len(WHEEL[1])
    assert before.headers["ETag"] != after.headers["ETag"]
    assert asking.file(WHEEL[0]).headers["ETag"] == f'"{sha256}"'
    assert index.count("file") == 1
    # Other bytes are refused from now on, also when the page is asked for again.
    eventually(lambda: cached(asking.deployment.root), "it is kept")
    (kept,) = cached(asking.deployment.root)
    kept.unlink()
    other = make_wheel("demo", "1.0", files={"demo.py": b"evil"})[1]
    index.change(WHEEL[0], content=other, size=len(other))
    clock.go(3601)
    refused = asking.file(WHEEL[0])
    assert refused.status_code in (502, 503)
    assert cached(asking.deployment.root) == []
    index.change(WHEEL[0], content=WHEEL[1], size=len(WHEEL[1]))
    clock.go(3601)
    assert asking.file(WHEEL[0]).data == WHEEL[1]


def test_a_hash_that_the_upstream_says_later_counts(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    index.has_hashes = False
    index.add(*WHEEL)
    asking = mirrored()
    asking.file(WHEEL[0])
    other = make_wheel("demo", "1.0", files={"demo.py": b"mended"})[1]
    index.has_hashes = True
    index.add(WHEEL[0], other)
    clock.go(3601)
    assert asking.file(WHEEL[0]).data == other


def test_metadata_that_were_learned_of_other_bytes_do_not_count(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    index.add(*WHEEL, offers_metadata=None)
    asking = mirrored()
    old = asking.file(f"{WHEEL[0]}.metadata").data
    other = make_wheel("demo", "1.0", requires_python=">=3.9")[1]
    index.add(WHEEL[0], other, offers_metadata=None)
    clock.go(3601)
    new = asking.file(f"{WHEEL[0]}.metadata").data
    assert b"Requires-Python: >=3.9" in new
    assert new != old


@pytest.mark.parametrize("file", [WHEEL, SDIST], ids=["wheel", "sdist"])
@pytest.mark.parametrize("damage", ["half", "empty", "of another release"])
def test_nothing_is_learned_of_a_file_that_is_damaged(
    index: Upstream, mirrored: Mirrored, file: tuple[str, bytes], damage: str
) -> None:
    make = make_wheel if file is WHEEL else make_sdist
    content = {
        "half": file[1][: len(file[1]) // 2],
        "empty": b"",
        "of another release": make("other", "1.0")[1],
    }[damage]
    index.has_hashes = False
    index.add(*file, size=None)
    index.change(file[0], content=content)
    asking = mirrored()
    assert asking.file(file[0]).status_code == 502
    assert cached(asking.deployment.root) == []
    index.change(file[0], content=file[1])
    assert asking.file(file[0]).data == file[1]


def test_a_file_that_the_upstream_lists_and_does_not_have_is_trouble(
    index: Upstream, mirrored: Mirrored
) -> None:
    index.add(*WHEEL, offers_metadata=None)
    asking = mirrored()
    asking.page()
    index.fail("file", "404")
    index.fail("range", "404")
    for name in (WHEEL[0], f"{WHEEL[0]}.metadata"):
        answer = asking.file(name)
        assert answer.status_code == 502
        assert "does not exist" in answer.text


def test_head_and_ranges(index: Upstream, mirrored: Mirrored) -> None:
    index.add(*WHEEL)
    asking = mirrored()
    head = asking.file(WHEEL[0], method="HEAD")
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(WHEEL[1])))
    assert index.count("file") == 0  # the page says it
    part = asking.file(WHEEL[0], Range="bytes=10-19")
    assert (part.status_code, part.data) == (206, WHEEL[1][10:20])
    assert asking.file(WHEEL[0], Range="bytes=-5").data == WHEEL[1][-5:]
    etag = head.headers["ETag"]
    assert asking.file(WHEEL[0], If_None_Match=etag).status_code == 304
    assert asking.file(WHEEL[0], Range="bytes=999999999-").status_code == 416
    assert index.count("file") == 1


def test_a_file_of_unknown_size(index: Upstream, mirrored: Mirrored) -> None:
    index.format, index.has_attributes, index.has_hashes = "html", False, False
    index.is_chunked = True
    index.add(*WHEEL)
    asking = mirrored()
    head = asking.file(WHEEL[0], method="HEAD")
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(WHEEL[1])))
    assert asking.file(WHEEL[0]).data == WHEEL[1]
    assert index.count("file") == 1


# -- core metadata -------------------------------------------------------------------------------


def test_core_metadata_of_the_upstream(index: Upstream, mirrored: Mirrored) -> None:
    content = index.add(*WHEEL).core_metadata
    asking = mirrored()
    for _ in range(2):
        assert asking.file(f"{WHEEL[0]}.metadata").data == content
    assert (index.count("metadata"), index.count("file"), index.count("range")) == (1, 0, 0)


@pytest.mark.parametrize("size", ["known", "unknown"])
def test_core_metadata_from_parts_of_the_wheel(
    index: Upstream, mirrored: Mirrored, size: str
) -> None:
    content = index.add(*LARGE, offers_metadata=None).core_metadata
    if size == "unknown":
        index.format, index.has_attributes = "html", False
    asking = mirrored()
    assert asking.files()[LARGE[0]]["core-metadata"] is True
    for _ in range(2):
        assert asking.file(f"{LARGE[0]}.metadata").data == content
    sent = sum(each.sent for each in index.asked if each.kind in ("range", "file"))
    assert sent < 200_000
    assert index.count("file") == 0
    assert index.count("range") <= (2 if size == "known" else 3)
    digest = hashlib.sha256(content or b"").hexdigest()
    assert asking.files()[LARGE[0]]["core-metadata"] == {"sha256": digest}


@pytest.mark.parametrize("size", ["known", "unknown"])
def test_core_metadata_from_the_file_if_there_are_no_parts(
    index: Upstream, mirrored: Mirrored, size: str
) -> None:
    index.has_ranges = False
    content = index.add(*WHEEL, offers_metadata=None).core_metadata
    if size == "unknown":
        index.change(WHEEL[0], size=None)
    asking = mirrored()
    assert asking.file(f"{WHEEL[0]}.metadata").data == content
    index.forget()
    assert asking.file(WHEEL[0]).data == WHEEL[1]  # it is here by now
    assert index.lines() == []


def test_core_metadata_that_are_announced_and_missing(index: Upstream, mirrored: Mirrored) -> None:
    content = index.add(*WHEEL).core_metadata
    index.fail("metadata", "404")
    assert mirrored().file(f"{WHEEL[0]}.metadata").data == content


def test_core_metadata_with_another_hash_than_announced(
    index: Upstream, mirrored: Mirrored
) -> None:
    index.add(*WHEEL)
    other = make_wheel("demo", "1.0", requires_python=">=3.9")[1]
    index.change(WHEEL[0], content=other, hashes={}, size=len(other))
    index.fail("metadata", "404")  # so that they are read from the wheel
    asking = mirrored()
    assert asking.file(f"{WHEEL[0]}.metadata").status_code == 502
    assert cached(asking.deployment.root, "metadata") == []


def test_core_metadata_of_an_sdist(index: Upstream, mirrored: Mirrored) -> None:
    index.add(*SDIST)
    assert mirrored().file(f"{SDIST[0]}.metadata").status_code == 404
    assert index.lines() == ["GET /simple/demo/"]


def test_core_metadata_of_an_sdist_that_the_upstream_has(
    index: Upstream, mirrored: Mirrored
) -> None:
    content = b"Metadata-Version: 2.2\nName: demo\nVersion: 0.9\n"
    index.add(*SDIST, core_metadata=content, offers_metadata=True)
    asking = mirrored()
    assert asking.file(f"{SDIST[0]}.metadata").data == content
    index.fail("metadata", "404")
    eventually(lambda: cached(asking.deployment.root, "metadata"), "they are kept")
    (kept,) = cached(asking.deployment.root, "metadata")
    kept.unlink()
    assert asking.file(f"{SDIST[0]}.metadata").status_code == 502


# -- with real servers ---------------------------------------------------------------------------


def stream(server: Server, filename: str) -> http.client.HTTPResponse:
    """An answer of which the head has arrived."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(
        "GET", f"/r/pypi/simple/demo/{filename}", headers={"Authorization": basic(*READER)}
    )
    return connection.getresponse()


def fetch(server: Server, filename: str) -> requests.Response:
    return server.get(f"/r/pypi/simple/demo/{filename}", READER, headers={}, timeout=60)


@needs_server
@pytest.mark.parametrize("has_hashes", [True, False])
def test_the_first_client_is_served_while_the_file_arrives(
    index: Upstream, servers: Servers, tmp_path: Path, has_hashes: bool
) -> None:
    index.has_hashes = has_hashes
    index.add(*LARGE)
    server = servers.start(tmp_path / "root", mirror_table(index.index_url))
    with index.hold("file", after=4 * MIB) as hold:
        answer = stream(server, LARGE[0])
        begin = answer.read(3 * MIB)
        hold.until()
        assert begin == LARGE[1][: 3 * MIB]
        late = stream(server, LARGE[0])  # also what is here for the second one
        assert late.read(MIB) == LARGE[1][:MIB]
        hold.release()
        assert begin + answer.read() == LARGE[1]
        assert LARGE[1][:MIB] + late.read() == LARGE[1]
    assert index.count("file") == 1
    assert fetch(server, LARGE[0]).content == LARGE[1]
    assert index.count("file") == 1


@needs_server
def test_a_hundred_clients_for_one_cold_file_cost_one_request(
    index: Upstream, servers: Servers, tmp_path: Path
) -> None:
    index.add(*LARGE)
    server = servers.start(tmp_path / "root", mirror_table(index.index_url))
    with (
        index.hold("page") as page,
        index.hold("file", after=MIB) as hold,
        ThreadPoolExecutor(100) as pool,
    ):
        answers = [pool.submit(fetch, server, LARGE[0]) for _ in range(100)]
        page.until()
        page.release()
        hold.until()
        hold.release()
        assert {answer.result().content == LARGE[1] for answer in answers} == {True}
    assert sorted(index.lines()) == [
        f"GET /files/demo/{LARGE[0]}",
        "GET /simple/demo/",
    ]


@needs_server
@pytest.mark.parametrize("fault", ["cut", "wrong bytes", "cut in a chunk"])
@pytest.mark.parametrize("has_hashes", [True, False])
def test_a_large_body_that_is_cut_or_wrong_is_never_whole(
    index: Upstream, servers: Servers, tmp_path: Path, fault: str, has_hashes: bool
) -> None:
    index.has_hashes = has_hashes
    index.add(*LARGE)
    root = tmp_path / "root"
    server = servers.start(root, mirror_table(index.index_url))
    index.fail("file", fault)
    answer = stream(server, LARGE[0])
    if answer.status == 200:
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
    else:
        assert answer.status in (502, 503)
    assert cached(root) == []
    index.heal()
    eventually(lambda: fetch(server, LARGE[0]).content == LARGE[1], "it is there")


@needs_server
def test_a_server_that_is_killed_leaves_no_half_file(
    index: Upstream, servers: Servers, tmp_path: Path
) -> None:
    index.add(*LARGE)
    root, config = tmp_path / "root", mirror_table(index.index_url)
    server = servers.start(root, config)
    with index.hold("file", after=4 * MIB) as hold:
        answer = stream(server, LARGE[0])
        answer.read(3 * MIB)
        hold.until()
        server.kill()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
    assert cached(root) == []
    server = servers.start(root, config)
    assert fetch(server, LARGE[0]).content == LARGE[1]
    eventually(lambda: not list((root / "tmp").rglob("cache-*")), "nothing else is left")


@needs_server
def test_two_servers_on_one_root_share_pages_and_files(
    index: Upstream, servers: Servers, tmp_path: Path
) -> None:
    index.add(*LARGE)
    config = mirror_table(index.index_url)
    one, two = (servers.start(tmp_path / "root", config) for _ in range(2))
    root = tmp_path / "root"
    assert fetch(one, LARGE[0]).content == LARGE[1]
    eventually(lambda: len(cached(root)) == 1, "it is kept")
    eventually(lambda: kept_pages(root) == ["demo"], "the page is kept")
    assert fetch(two, LARGE[0]).content == LARGE[1]
    assert sorted(index.lines()) == [f"GET /files/demo/{LARGE[0]}", "GET /simple/demo/"]
    # And with a hash that one of them has learned.
    index.has_hashes = False
    index.add(*SDIST, project="other", upload_time=None)
    index.add(*make_wheel("other", "1.0"))
    for server in (one, two):
        answer = server.get("/r/pypi/simple/other/other-1.0-py3-none-any.whl", READER)
        assert answer.status_code == 200
        eventually(lambda: len(cached(root)) == 2, "it is kept")
        eventually(lambda: "other" in kept_pages(root), "the page is kept")
    page = two.get("/r/pypi/simple/other/", READER, headers=ACCEPTS_JSON).json()
    assert [file["hashes"].keys() for file in page["files"]] == [{"sha256"}]
    assert sum("other-1.0" in line for line in index.lines()) == 1


@needs_server
def test_a_full_disk_serves_without_keeping(
    index: Upstream, servers: Servers, tmp_path: Path
) -> None:
    index.add(*LARGE)
    for number in range(400):
        index.add(*make_wheel("many", f"{number}.0"))
    root = tmp_path / "root"
    server = servers.start(root, mirror_table(index.index_url), wrapper=small_disk(root))
    disk = Disk(server, root)
    assert server.status("/r/pypi/simple/demo/", auth=READER) == 200
    disk.fill()
    assert fetch(server, LARGE[0]).content == LARGE[1]
    page = server.get("/r/pypi/simple/many/", READER)
    assert (page.status_code, page.reason) == (200, "OK")
    assert len(page.json()["files"]) == 400
    name = page.json()["files"][7]["filename"]
    assert server.status(f"/r/pypi/simple/many/{name}", auth=READER) == 200
    assert server.status(f"/r/pypi/simple/many/{name}.metadata", auth=READER) == 200
    assert cached(disk.folder) == []
    disk.empty()
    assert fetch(server, LARGE[0]).content == LARGE[1]
    eventually(lambda: len(cached(disk.folder)) == 1, "it is kept")


@pytest.mark.parametrize("path", ["", "demo-1.0-py3-none-any.whl"])
def test_a_request_holds_no_thread_while_the_upstream_hangs(
    path: str, index: Upstream, mirrored: Mirrored
) -> None:
    """Otherwise a few of them would keep everybody from the private packages of a group."""
    index.add(*make_wheel("demo", "1.0"))
    asking = mirrored(anonymous_read=True)
    address = f"/r/pypi/simple/demo/{path}"
    with index.hold("page") as hold:
        with pytest.raises(Later) as raised:
            asking.client.get(address, environ_overrides={WAITING: Waiting()})
        hold.until()
        over = Waiting(raised.value.awaited, is_over=True)
        answer = asking.client.get(address, environ_overrides={WAITING: over})
        assert answer.status_code == 503
    assert index.count("page") == 1
