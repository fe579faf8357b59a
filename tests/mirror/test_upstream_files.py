"""Files, core metadata and parts of files, as the upstream sends them."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.utils import NormalizedName

from private_pypi.backend import Secret
from private_pypi.errors import BackendError, BackendUnavailable, FileNotFound, Unsupported
from private_pypi.model import FileHandle, Stream
from private_pypi_mirror.backend import MirrorStorage
from tests.mirror.conftest import MakeMirror
from tests.mirror.serving import HTML, Asked, Reply, Upstream, redirect, running_upstream
from tests.proxies.authority import make_certificates

BYTES = "application/octet-stream"
CONTENT = bytes(range(256)) * 100
FILE = Reply(CONTENT, BYTES)


def handle(
    url: str, filename: str = "demo-1.0.zip", *, size: int | None = None, sha256: str | None = None
) -> FileHandle:
    return FileHandle(
        project=NormalizedName("demo"), filename=filename, size=size, sha256=sha256, location=url
    )


def at(upstream: Upstream, filename: str = "demo-1.0.zip") -> FileHandle:
    return handle(f"{upstream.origin}/files/{filename}", filename)


def opened(mirror: MirrorStorage, file: FileHandle) -> Stream:
    found = mirror.open_file(file)
    assert isinstance(found, Stream)
    return found


def trouble(mirror: MirrorStorage, file: FileHandle) -> BackendError:
    with pytest.raises(BackendError) as caught:
        for _ in opened(mirror, file).chunks:
            pass
    return caught.value


def test_a_file_is_a_stream_with_its_size(upstream: Upstream, mirror: MirrorStorage) -> None:
    upstream.answers["/files/demo-1.0.zip"] = FILE
    stream = opened(mirror, at(upstream))
    assert (stream.size, b"".join(stream.chunks)) == (len(CONTENT), CONTENT)
    assert upstream.asked[0].headers["accept-encoding"] == "identity"


def test_a_size_that_is_not_announced_is_0(upstream: Upstream, mirror: MirrorStorage) -> None:
    upstream.answers["/files/demo-1.0.zip"] = Reply(CONTENT, BYTES, chunks=True)
    stream = opened(mirror, at(upstream))
    assert (stream.size, b"".join(stream.chunks)) == (0, CONTENT)


@pytest.mark.parametrize("known", ["size", "sha256", None])
def test_a_file_without_any_length_needs_another_check(
    upstream: Upstream, mirror: MirrorStorage, known: str | None
) -> None:
    upstream.answers["/files/demo-1.0.zip"] = Reply(CONTENT, BYTES, length=-1)
    url = at(upstream).location
    if known is None:
        assert "does not say its length" in str(trouble(mirror, handle(url)))
        return
    facts = handle(url, size=5) if known == "size" else handle(url, sha256="a" * 64)
    assert b"".join(opened(mirror, facts).chunks) == CONTENT


def test_the_first_bytes_come_before_the_rest_is_sent(mirror_of: MakeMirror) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as thread:
        is_read = threading.Event()

        def serve() -> None:
            with listening.accept()[0] as client:
                client.recv(1 << 16)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n123")
                assert is_read.wait(20)
                client.sendall(b"45")

        served = thread.submit(serve)
        origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
        chunks = opened(mirror_of(f"{origin}/"), handle(f"{origin}/demo-1.0.zip")).chunks
        assert next(chunks) == b"123"
        is_read.set()
        assert b"".join(chunks) == b"45"
        served.result()


@pytest.mark.parametrize("how", ["plain", "chunks"])
def test_a_file_that_is_cut_off_is_trouble(
    upstream: Upstream, mirror: MirrorStorage, how: str
) -> None:
    length = len(CONTENT) + 1 if how == "plain" else 0
    upstream.answers["/files/demo-1.0.zip"] = Reply(
        CONTENT, BYTES, length=length, chunks=how == "chunks"
    )
    error = trouble(mirror, at(upstream))
    assert isinstance(error, BackendUnavailable)
    assert "did not arrive whole" in str(error)


@pytest.mark.parametrize("status", [404, 410])
def test_a_file_that_is_gone(upstream: Upstream, mirror: MirrorStorage, status: int) -> None:
    upstream.answers["/files/demo-1.0.zip"] = Reply(status=status)
    with pytest.raises(FileNotFound, match=r"demo-1\.0\.zip"):
        mirror.open_file(at(upstream))
    with pytest.raises(FileNotFound, match=r"demo-1\.0\.zip\.metadata"):
        mirror.open_metadata(at(upstream))
    with pytest.raises(FileNotFound, match=r"demo-1\.0\.zip"):
        mirror.read_part(at(upstream).location, 0, 5)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(b"<form>", HTML), "a web page in place of a file"),
        (Reply(b"x", BYTES, 206), "answered 206"),
        (Reply(b"x", BYTES, 304), "answered 304"),
        (Reply(b"x", BYTES, 401), "answered 401"),
        (Reply(b"x", BYTES, 500), "answered 500"),
        (FILE.but(Content_Encoding="gzip"), "compressed ('gzip')"),
        (FILE.but(Content_Encoding="br"), "compressed ('br')"),
    ],
)
def test_other_answers_are_trouble(
    upstream: Upstream, mirror: MirrorStorage, reply: Reply, why: str
) -> None:
    upstream.answers |= {"/files/demo-1.0.zip": reply, "/files/demo-1.0.zip.metadata": reply}
    assert why in str(trouble(mirror, at(upstream)))
    with pytest.raises(BackendError):
        mirror.open_metadata(at(upstream))


def test_an_sdist_may_be_called_compressed(upstream: Upstream, mirror: MirrorStorage) -> None:
    """As by web servers that are configured so; its bytes are not changed then."""
    content = gzip.compress(b"a tar file")
    reply = Reply(content, "application/x-tar").but(Content_Encoding="x-gzip")
    upstream.answers["/files/demo-1.0.tar.gz"] = reply
    stream = opened(mirror, at(upstream, "demo-1.0.tar.gz"))
    assert b"".join(stream.chunks) == content


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://acme.example/x.zip", "/etc/passwd", "", "https://[::1/x.zip"],
)
def test_only_addresses_of_http_are_opened(
    upstream: Upstream, mirror: MirrorStorage, location: str
) -> None:
    for call in (
        lambda: mirror.open_file(handle(location)),
        lambda: mirror.open_metadata(handle(location)),
        lambda: mirror.read_part(location, 0, 5),
    ):
        with pytest.raises(BackendError, match="only http: and https: addresses"):
            call()


def test_files_elsewhere_get_no_credentials(
    upstream: Upstream, elsewhere: Upstream, mirror_of: MakeMirror
) -> None:
    mirror = mirror_of(upstream.index_url, username="walter", password=Secret("hunter2"))
    for each in (upstream, elsewhere):
        each.answers |= {"/files/demo-1.0.zip": FILE, "/files/demo-1.0.zip.metadata": FILE}
        b"".join(opened(mirror, at(each)).chunks)
        mirror.open_metadata(at(each))
    upstream.answers["/files/demo-1.0.zip"] = redirect(f"{elsewhere.origin}/files/demo-1.0.zip")
    assert b"".join(opened(mirror, at(upstream)).chunks) == CONTENT
    assert {"authorization" in asked.headers for asked in upstream.asked} == {True}
    assert {"authorization" in asked.headers for asked in elsewhere.asked} == {False}


def test_signed_addresses_are_not_shown(upstream: Upstream, mirror: MirrorStorage) -> None:
    url = f"{at(upstream).location}?X-Signature=secret"
    upstream.answers["/files/demo-1.0.zip?X-Signature=secret"] = Reply(status=403)
    said = str(trouble(mirror, handle(url)))
    assert "/files/demo-1.0.zip answered 403" in said
    assert "secret" not in said


def test_core_metadata_are_beside_the_file(upstream: Upstream, mirror: MirrorStorage) -> None:
    for query in ("", "?a=b"):
        upstream.answers[f"/files/demo-1.0.zip.metadata{query}"] = Reply(b"Name: demo\n", BYTES)
        found = mirror.open_metadata(handle(at(upstream).location + query))
        assert isinstance(found, Stream)
        assert (found.size, b"".join(found.chunks)) == (11, b"Name: demo\n")


def test_core_metadata_need_a_length(upstream: Upstream, mirror: MirrorStorage) -> None:
    upstream.answers["/files/demo-1.0.zip.metadata"] = Reply(b"Name: demo\n", BYTES, length=-1)
    with pytest.raises(BackendError, match="does not say its length"):
        mirror.open_metadata(at(upstream))


# -- parts ---------------------------------------------------------------------------------------


def in_parts(asked: Asked) -> Reply:
    """As a web server that knows ranges."""
    start, _, end = asked.headers["range"].removeprefix("bytes=").partition("-")
    if int(start) >= len(CONTENT):
        return Reply(status=416)
    part = CONTENT[int(start) : int(end) + 1]
    last = int(start) + len(part) - 1
    said = f"bytes {start}-{last}/{len(CONTENT)}"
    return Reply(part, BYTES, 206).but(Content_Range=said)


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (5, 10), (len(CONTENT) - 3, 10), (len(CONTENT), 5), (3, 0)]
)
def test_a_part_of_a_file(
    upstream: Upstream, mirror: MirrorStorage, start: int, length: int
) -> None:
    upstream.answers["/files/demo-1.0.zip"] = in_parts
    part = mirror.read_part(at(upstream).location, start, length)
    assert part == CONTENT[start : start + length]


def test_an_upstream_without_parts_is_not_read(upstream: Upstream, mirror: MirrorStorage) -> None:
    # The announced rest never comes, so reading it would end as a body that is cut off.
    upstream.answers["/files/demo-1.0.zip"] = Reply(CONTENT, BYTES, length=2 << 30)
    with pytest.raises(Unsupported):
        mirror.read_part(at(upstream).location, 0, 5)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"12345", BYTES, 206),
        Reply(b"12345", BYTES, 206).but(Content_Range="bytes 1-5/100"),
        Reply(b"12345", BYTES, 206).but(Content_Range="bytes 10-14/100"),
        Reply(b"x" * 200_000, BYTES, 206).but(Content_Range="bytes 0-199999/200000"),
        Reply(b"12345", BYTES, 206, length=9).but(Content_Range="bytes 0-8/9"),
        Reply(b"12345", BYTES, 206).but(Content_Range="bytes 0-4/9", Content_Encoding="gzip"),
        Reply(b"12345", "multipart/byteranges", 206),
        Reply(b"12345", BYTES, 500),
    ],
)
def test_another_part_is_trouble(upstream: Upstream, mirror: MirrorStorage, reply: Reply) -> None:
    upstream.answers["/files/demo-1.0.zip"] = reply
    with pytest.raises(BackendError):
        mirror.read_part(at(upstream).location, 0, 9)


# -- encryption ----------------------------------------------------------------------------------


@pytest.fixture
def encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    made = make_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    with running_upstream((made.certificate, made.key)) as running:
        yield running


def test_files_of_an_encrypted_index_that_are_not_encrypted_need_a_hash(
    encrypted: Upstream, upstream: Upstream, mirror_of: MakeMirror
) -> None:
    mirror = mirror_of(encrypted.index_url)
    url = at(upstream).location
    links = "".join(
        f'<a href="{each}" data-core-metadata="true">x</a>' for each in (url, "demo-2.0.zip")
    )
    encrypted.answers["/simple/demo/"] = Reply(links.encode(), HTML)
    page = mirror.project_page("demo", "")
    assert page is not None
    assert [file.core_metadata for file in page.files] == [None, {}]
    upstream.answers["/files/demo-1.0.zip"] = FILE
    assert "not encrypted" in str(trouble(mirror, handle(url)))
    assert upstream.asked == []
    assert b"".join(opened(mirror, handle(url, sha256="a" * 64)).chunks) == CONTENT


def test_many_files_are_fetched_at_once(upstream: Upstream, mirror: MirrorStorage) -> None:
    everybody = threading.Barrier(64, timeout=20)

    def answer(_: Asked) -> Reply:
        everybody.wait()  # passes only if 64 requests are there
        return FILE

    upstream.answers["/files/demo-1.0.zip"] = answer
    got: list[bytes] = []

    def fetch() -> None:
        got.append(b"".join(opened(mirror, at(upstream)).chunks))

    for _ in range(2):
        threads = [threading.Thread(target=fetch) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == [CONTENT] * 128
    assert upstream.connections == 64


def test_the_size_of_a_file_comes_with_its_first_byte(
    upstream: Upstream, mirror: MirrorStorage
) -> None:
    def say(content_range: str) -> None:
        part = Reply(CONTENT[:1], BYTES, 206).but(Content_Range=content_range)
        upstream.answers["/files/demo-1.0.zip"] = part

    file = at(upstream)
    say(f"bytes 0-0/{len(CONTENT)}")
    assert mirror.file_size(file) == len(CONTENT)
    assert upstream.asked[0].headers["range"] == "bytes=0-0"
    say("bytes 0-0/*")
    assert mirror.file_size(file) is None
    for wrong in ("", "bytes 1-1/7", "bytes 0-0/x", "items 0-0/7", "bytes */7"):
        say(wrong)
        with pytest.raises(BackendError, match="another part than was asked for"):
            mirror.file_size(file)
    upstream.answers["/files/demo-1.0.zip"] = FILE
    with pytest.raises(Unsupported):
        mirror.file_size(file)
    upstream.answers["/files/demo-1.0.zip"] = Reply(status=404)
    with pytest.raises(FileNotFound):
        mirror.file_size(file)
    upstream.answers["/files/demo-1.0.zip"] = Reply(status=416)
    assert mirror.file_size(file) is None


def test_the_size_of_a_file_in_a_folder(tmp_path: Path, mirror_of: MakeMirror) -> None:
    (tmp_path / "demo-1.0.zip").write_bytes(CONTENT)
    mirror = mirror_of(tmp_path.as_uri())
    assert mirror.file_size(handle((tmp_path / "demo-1.0.zip").as_uri())) == len(CONTENT)
