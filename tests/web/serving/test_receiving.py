"""Forms in any pieces: what is received of them, and what stays on disk if they are broken."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.http import parse_options_header

from private_pypi.errors import BackendUnavailable, InvalidUpload, StorageFull, TooLarge
from private_pypi.web.serving.receiving import (
    RECEIVED_FORM,
    FormLimits,
    FormReceiver,
    ReceivedForm,
    receive_form,
)

BOUNDARY = "0b8e5f0e"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
LIMITS = FormLimits(max_file_bytes=10**6)


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    disposition = f'form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"'
    head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n"
    if filename is not None:
        head += "Content-Type: application/octet-stream\r\n"
    return head.encode() + b"\r\n" + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def receive(
    pieces: Iterable[bytes], folder: Path, limits: FormLimits = LIMITS, kind: str = CONTENT_TYPE
) -> ReceivedForm:
    receiver = FormReceiver(kind, folder, limits)
    for piece in pieces:
        receiver.feed(piece)
    return receiver.finish()


def refusal(body: bytes, folder: Path, limits: FormLimits = LIMITS) -> str:
    """The text of the `InvalidUpload`. Checks that no file stays in the folder."""
    with pytest.raises(InvalidUpload) as caught:
        receive([body], folder, limits)
    assert list(folder.iterdir()) == []
    return str(caught.value)


def taken(received: ReceivedForm) -> tuple[tuple[tuple[str, str], ...], bytes | None]:
    """The fields and the content of a form. Its file is deleted."""
    content = None if received.file is None else received.file.path.read_bytes()
    received.close()
    return received.fields, content


def test_fields_keep_their_order_and_the_file_is_on_disk(tmp_path: Path) -> None:
    content = os.urandom(5000)
    body = form(
        part("name", b"demo"),
        part("classifiers", b"A"),
        part("description", "größer\r\nals\n".encode()),
        part("classifiers", b"B"),
        part("empty", b""),
        part("content", content, "demo-1.0.tar.gz"),
        part("name", b"late"),
    )
    received = receive([body], tmp_path)
    assert received.fields == (
        ("name", "demo"),
        ("classifiers", "A"),
        ("description", "größer\r\nals\n"),
        ("classifiers", "B"),
        ("empty", ""),
        ("name", "late"),
    )
    file = received.file
    assert file is not None
    assert (file.filename, file.size) == ("demo-1.0.tar.gz", 5000)
    assert file.digests == {"sha256": hashlib.sha256(content).hexdigest()}
    assert file.path.parent == tmp_path
    assert file.path.read_bytes() == content
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_a_closed_form_leaves_nothing_and_may_be_closed_again(tmp_path: Path) -> None:
    received = receive([form(part("content", b"x", "a"))], tmp_path)
    received.close()
    received.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_taken_away_is_no_matter(tmp_path: Path) -> None:
    received = receive([form(part("content", b"x", "a"))], tmp_path)
    assert received.file is not None
    received.file.path.rename(tmp_path / "kept")
    received.close()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_digests_are_computed_when_their_fields_come_first(tmp_path: Path) -> None:
    # protocol 48: twine, uv, poetry and flit send different ones
    body = form(
        part("md5_digest", b"?"),
        part("content", b"x", "a"),
        part("blake2_256_digest", b"?"),
    )
    received = receive([body], tmp_path)
    assert received.file is not None
    assert received.file.digests == {
        "sha256": hashlib.sha256(b"x").hexdigest(),
        "md5": hashlib.md5(b"x").hexdigest(),
    }
    body = form(part("blake2_256_digest", b"?"), part("content", b"x", "a"))
    received = receive([body], tmp_path)
    assert received.file is not None
    assert received.file.digests == {
        "sha256": hashlib.sha256(b"x").hexdigest(),
        "blake2_256": hashlib.blake2b(b"x", digest_size=32).hexdigest(),
    }


_QUOTED = st.text('ab é%2"\\;=.-', max_size=8)


@given(name=_QUOTED, filename=st.none() | _QUOTED, blanks=st.sampled_from(["", " ", "  ", "\t"]))
def test_names_are_read_as_werkzeug_reads_them(
    tmp_path_factory: pytest.TempPathFactory, name: str, filename: str | None, blanks: str
) -> None:
    disposition = f'form-data;{blanks}name="{name}"'
    if filename is not None:
        disposition += f';{blanks}filename="{filename}"'
    _, options = parse_options_header(disposition)
    body = form(f"--{BOUNDARY}\r\ncontent-disposition:{blanks}{disposition}\r\n\r\nx\r\n".encode())
    folder = tmp_path_factory.getbasetemp()
    if "name" not in options:
        with pytest.raises(InvalidUpload, match="a part has no name"):
            receive([body], folder)
        return
    received = receive([body], folder)
    found = None if received.file is None else received.file.filename
    received.close()
    if "filename" not in options:
        assert (received.fields, found) == (((options["name"], "x"),), None)
    else:
        assert received.fields == ()
        assert found == (options["filename"] if options["name"] == "content" else None)


@given(filename=_QUOTED)
def test_filenames_are_read_as_werkzeug_reads_them(
    tmp_path_factory: pytest.TempPathFactory, filename: str
) -> None:
    _, options = parse_options_header(f'form-data; name="content"; filename="{filename}"')
    received = receive([form(part("content", b"x", filename))], tmp_path_factory.getbasetemp())
    received.close()
    found = None if received.file is None else received.file.filename
    assert found == options.get("filename")


def test_other_files_are_dropped(tmp_path: Path) -> None:
    # protocol 52: `gpg_signature` is never an error
    body = form(part("gpg_signature", b"s" * 1000, "a.asc"), part("content", b"x", "a"))
    assert taken(receive([body], tmp_path)) == ((), b"x")


def test_a_form_without_a_file_has_none(tmp_path: Path) -> None:
    assert taken(receive([form(part(":action", b"submit"))], tmp_path)) == (
        ((":action", "submit"),),
        None,
    )
    assert list(tmp_path.iterdir()) == []


def test_preamble_epilogue_and_blanks_after_a_boundary_do_no_harm(tmp_path: Path) -> None:
    # RFC 2046 §5.1.1
    body = form(part("content", b"x", "a"))
    body = b"preamble\r\n" + body.replace(b"8e5f0e\r\n", b"8e5f0e \t\r\n", 1) + b"epilogue"
    assert taken(receive([body], tmp_path)) == ((), b"x")


@pytest.mark.parametrize(
    "content",
    [b"", b"\r", b"\n", b"\r\n", b"\r\n--", b"\r\n\r\n", b"--", b"\r\n--0b8e5f0", b"a\r\n--0b\r"],
)
def test_content_that_looks_like_a_boundary_is_kept_at_every_cut(
    tmp_path: Path, content: bytes
) -> None:
    body = form(part("content", content, "a"), part("after", content))
    for at in range(len(body) + 1):
        fields, stored = taken(receive([body[:at], body[at:]], tmp_path))
        assert (fields, stored) == ((("after", content.decode()),), content)
    single = [body[at : at + 1] for at in range(len(body))]
    assert taken(receive(single, tmp_path)) == ((("after", content.decode()),), content)


lumps = st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--", BOUNDARY[:5].encode(), b"x", b"\0\xff"]),
    max_size=30,
).map(b"".join)


@given(content=lumps, cuts=st.lists(st.integers(min_value=0, max_value=400)), late=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_how_a_body_is_cut_changes_nothing(
    tmp_path: Path, content: bytes, cuts: list[int], late: bool
) -> None:
    parts = [part("name", b"demo"), part("content", content, "a")]
    body = form(*(reversed(parts) if late else parts))
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(edges)]
    assert taken(receive(pieces, tmp_path)) == ((("name", "demo"),), content)


def test_a_body_cut_at_any_byte_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    body = form(part("name", b"demo"), part("content", b"x" * 50, "a"))
    end = len(body) - len("\r\n")  # of the last boundary: nobody needs it
    for at in range(end):
        assert "final boundary" in refusal(body[:at], tmp_path), at
    assert taken(receive([body[:end]], tmp_path)) == ((("name", "demo"),), b"x" * 50)


def test_an_aborted_form_leaves_nothing(tmp_path: Path) -> None:
    receiver = FormReceiver(CONTENT_TYPE, tmp_path, LIMITS)
    receiver.feed(form(part("content", b"x" * 50, "a"))[:-30])
    assert len(list(tmp_path.iterdir())) == 1
    receiver.abort()
    receiver.abort()
    assert list(tmp_path.iterdir()) == []


def test_the_space_of_a_broken_form_is_given_back_before_it_ends(tmp_path: Path) -> None:
    receiver = FormReceiver(CONTENT_TYPE, tmp_path, FormLimits(max_file_bytes=10))
    receiver.feed(part("content", b"x" * 11, "a-1.0.tar.gz"))
    assert receiver.failed
    assert list(tmp_path.iterdir()) == []
    receiver.feed(b"more")
    with pytest.raises(TooLarge, match=r"'a-1\.0\.tar\.gz' is larger than the limit of 10 bytes"):
        receiver.finish()


def test_what_waits_for_more_keeps_no_piece_in_memory(tmp_path: Path) -> None:
    start = part("content", b"", "a")[:-2]
    receivers = [FormReceiver(CONTENT_TYPE, tmp_path, LIMITS) for _ in range(20)]
    tracemalloc.start()
    try:
        for receiver in receivers:
            receiver.feed(start + bytes(200_000))
        assert tracemalloc.get_traced_memory()[0] < 10**6
    finally:
        tracemalloc.stop()
        for receiver in receivers:
            receiver.abort()


def test_limits_are_named(tmp_path: Path) -> None:
    limits = FormLimits(max_file_bytes=10, max_field_bytes=300, max_parts=3)
    assert taken(receive([form(part("content", b"x" * 10, "a"))], tmp_path, limits))[1] == b"x" * 10
    for body in (
        form(part("description", b"x" * 300)),
        form(part("content", b"x", "a"), part("gpg_signature", b"x" * 300, "a.asc")),
        b"p" * 300 + form(part("content", b"x", "a")),
        form(part("content", b"x", "a")) + b"e" * 300,
        form(part("content", b"x", "a"), part("n" * 300, b"")),
    ):
        assert "larger together than the limit of 300 bytes" in refusal(body, tmp_path, limits)
    body = form(*[part("n", b"")] * 4)
    assert "more than 3 parts" in refusal(body, tmp_path, limits)


def test_no_body_within_the_limits_is_longer_than_they_say(tmp_path: Path) -> None:
    body = form(part("name", b"demo"), part("content", b"x" * 10, "a"))
    least = next(
        size
        for size in range(1000)
        if not _fails(body, tmp_path, FormLimits(max_file_bytes=10, max_field_bytes=size))
    )
    assert len(body) <= FormLimits(max_file_bytes=10, max_field_bytes=least).max_body_bytes


def _fails(body: bytes, folder: Path, limits: FormLimits) -> bool:
    receiver = FormReceiver(CONTENT_TYPE, folder, limits)
    receiver.feed(body)
    receiver.abort()
    return receiver.failed


def test_a_limit_for_other_files_changes_nothing_else() -> None:
    limits = FormLimits(max_file_bytes=1, max_field_bytes=2, max_parts=3)
    assert limits.for_files(7) == FormLimits(max_file_bytes=7, max_field_bytes=2, max_parts=3)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (form(part("summary", b"\xff")), "'summary' of the form is not UTF-8"),
        (form(part("content", b"x", "a"), part("content", b"x", "a")), "more than one file"),
        (f"--{BOUNDARY}\r\nX: y\r\n\r\nz\r\n--{BOUNDARY}--".encode(), "a part has no name"),
        (f"--{BOUNDARY}\r\n\r\nz\r\n--{BOUNDARY}--".encode(), "a part has no name"),
        (f"--{BOUNDARY}x\r\n".encode(), "something else"),
        (f"--{BOUNDARY}\r\nX: ".encode() + b"\xff\r\n\r\n", "not UTF-8"),
        (f"--{BOUNDARY}\r\n".encode() + b"X" * 20_000, "headers of more than"),
        (b"", "final boundary"),
        (b"garbage", "final boundary"),
    ],
)
def test_what_is_wrong_with_a_form_is_said(tmp_path: Path, body: bytes, sentence: str) -> None:
    assert sentence in refusal(body, tmp_path)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("", "not nothing"),
        ("application/json", "'application/json'"),
        ("multipart/form-data", "boundary"),
        ("multipart/form-data; boundary=" + "x" * 71, "boundary"),
        ("multipart/form-data; boundary=é", "boundary"),
    ],
)
def test_only_a_form_is_received(tmp_path: Path, kind: str, sentence: str) -> None:
    with pytest.raises(InvalidUpload, match=sentence):
        FormReceiver(kind, tmp_path, LIMITS)


def test_a_quoted_boundary_is_one(tmp_path: Path) -> None:
    kind = 'Multipart/Form-Data; charset=utf-8; boundary="0b8e5f0e"'
    assert taken(receive([form(part("content", b"x", "a"))], tmp_path, kind=kind)) == ((), b"x")


def test_a_missing_folder_is_trouble_of_the_server(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="cannot be written"):
        receive([form(part("content", b"x", "a"))], tmp_path / "missing")


def test_a_full_disk_is_remembered_and_its_space_given_back(tmp_path: Path) -> None:
    # A limit of the process fails as a full disk does, in the middle of a write.
    program = f"""
        import resource, signal
        from pathlib import Path
        from private_pypi.errors import StorageFull
        from private_pypi.web.serving.receiving import FormLimits, FormReceiver

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        folder = Path({str(tmp_path)!r})
        receiver = FormReceiver({CONTENT_TYPE!r}, folder, FormLimits(max_file_bytes=10**9))
        receiver.feed({part("content", b"", "a")[:-2]!r})
        for _ in range(3):
            receiver.feed(b"x" * 70_000)
        assert receiver.failed
        assert list(folder.iterdir()) == []
        try:
            receiver.finish()
        except StorageFull as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.startswith("no space left for the upload: ")


def test_a_full_device_is_storage_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_full(prefix: str, dir: Path) -> tuple[int, str]:  # noqa: A002
        return os.open("/dev/full", os.O_WRONLY), str(dir / "missing")

    monkeypatch.setattr("tempfile.mkstemp", open_full)
    with pytest.raises(StorageFull, match="No space left on device"):
        receive([form(part("content", b"x", "a"))], tmp_path)


# -- as WSGI sees it -----------------------------------------------------------------------------


def environ(body: bytes, **more: Any) -> dict[str, Any]:
    return {"CONTENT_TYPE": CONTENT_TYPE, "wsgi.input": BytesIO(body), **more}


def test_a_form_is_read_from_any_wsgi_server(tmp_path: Path) -> None:
    body = form(part("content", b"x", "a"))
    sized = environ(body + b"next request", CONTENT_LENGTH=str(len(body)))
    assert taken(receive_form(sized, tmp_path, LIMITS)) == ((), b"x")
    chunked = environ(body, **{"wsgi.input_terminated": True})
    assert taken(receive_form(chunked, tmp_path, LIMITS)) == ((), b"x")


def test_a_body_of_unknown_length_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidUpload, match="final boundary"):
        receive_form(environ(form(part("content", b"x", "a"))), tmp_path, LIMITS)


def test_a_client_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    class Gone(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(60)
            if not data:
                raise ConnectionResetError
            return data

    request = environ(b"", **{"wsgi.input_terminated": True})
    request["wsgi.input"] = Gone(form(part("content", b"x" * 500, "a"))[:300])
    with pytest.raises(ConnectionResetError):
        receive_form(request, tmp_path, LIMITS)
    assert list(tmp_path.iterdir()) == []


def test_what_the_server_received_is_taken_as_it_is(tmp_path: Path) -> None:
    receiver = FormReceiver(CONTENT_TYPE, tmp_path, LIMITS)
    receiver.feed(form(part("content", b"x", "a")))
    request = environ(b"", **{RECEIVED_FORM: receiver})
    assert taken(receive_form(request, tmp_path, LIMITS)) == ((), b"x")
    with pytest.raises(InvalidUpload, match="as the server saw it"):
        receive_form(
            environ(b"", **{RECEIVED_FORM: InvalidUpload("as the server saw it")}), tmp_path, LIMITS
        )
