"""Core metadata is parsed leniently, and only offered if installers can rely on it."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import logging
import time
import zipfile
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.metadata import parse_email
from packaging.utils import canonicalize_name

from private_pypi.distributions.core_metadata import (
    CoreMetadata,
    Examined,
    examine,
    offered_core_metadata,
    parse_core_metadata,
    read_core_metadata,
)
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    InvalidFilename,
    InvalidUpload,
)
from private_pypi.model import DistributionFile, StoredFile
from private_pypi.testing.distributions import make_sdist, make_wheel
from tests.archives_by_hand import PKG_INFO, Zipped, make_tar_gz, make_zip, tar_member

WHEEL = "demo-1.0-py3-none-any.whl"

# -- parsing -------------------------------------------------------------------------------------

NOTHING = CoreMetadata(
    metadata_version=None,
    name=None,
    version=None,
    requires_python=None,
    summary=None,
    keywords=None,
    dynamic=frozenset(),
    repeated=(),
)


def test_the_facts_are_found_whatever_else_is_there() -> None:
    content = (
        b"Metadata-Version: 2.4\r\nname:  Demo.Pkg \r\nVERSION:1.0\r\n"
        b"Author: Fran\xe7ois\r\nX-New-Field: \x00\r\nRequires-Python: >=3.8,\r\n  <4\r\n"
        b"Summary: Does\r\n this\r\nSummary: and that\r\n"
        b"Keywords: one,\r\n two\r\n"
        b"Dynamic: Summary\r\nDynamic: requires-DIST\r\nDescription: Name: other\r\n"
        b"        Name: other\r\n\r\nName: other\r\n"
    )
    assert parse_core_metadata(content) == CoreMetadata(
        metadata_version="2.4",
        name="Demo.Pkg",
        version="1.0",
        requires_python=">=3.8, <4",
        summary="Does this",
        keywords="one, two",
        dynamic=frozenset({"requires-dist"}),
        repeated=(),
    )


def test_a_field_given_twice_is_no_fact() -> None:
    content = b"Name: demo\nName: demo\nVersion: 1.0\nRequires-Python: >=3\nRequires-Python: >=2\n"
    assert parse_core_metadata(content) == replace(
        NOTHING, version="1.0", repeated=("name", "requires-python")
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\nName: demo\n",
        b"just text\nName: demo\n",
        b"\xef\xbb\xbfName: demo\n",
        b"Name:\nVersion: \nRequires-Python:\t\n",
        b"Names: demo\nMy-Name: demo\n Name: demo\n",
        b"\xff\x00" * 99,
    ],
)
def test_what_is_not_there_is_not_found(content: bytes) -> None:
    assert parse_core_metadata(content) == NOTHING


HEADER = st.sampled_from(
    ["Name", "name", "VERSION", "Metadata-Version", "Requires-Python", "Summary", "X", "Na me", ""]
)
LINE_END = st.sampled_from(["\n", "\r\n", "\r", "\n ", "\r\n\t", "\n\n", ": "])
VALUE = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=8)


@given(st.lists(st.tuples(HEADER, st.sampled_from([":", ": ", " :", ""]), VALUE, LINE_END)))
def test_facts_are_read_as_packaging_reads_them(lines: list[tuple[str, str, str, str]]) -> None:
    content = "".join("".join(line) for line in lines).encode()
    found = parse_core_metadata(content)
    raw, _ = parse_email(content)
    facts = (raw.get("name"), raw.get("version"), raw.get("requires_python"))
    expected = tuple(" ".join(fact.split()) or None if fact else None for fact in facts)
    # packaging takes an empty value for a repetition; we ignore it.
    actual = (found.name, found.version, found.requires_python)
    for ours, theirs, field in zip(
        actual, expected, ("name", "version", "requires_python"), strict=True
    ):
        empty = ours is not None and theirs is None and field not in raw
        assert ours == theirs or empty


def test_metadata_of_5_mb_is_parsed_in_no_time() -> None:
    head = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
    folded = head + b"Description: x\n" + b"        some more text\n" * 250_000
    distinct = head + b"".join(b"X-%d: y\n" % number for number in range(500_000))
    for content in (folded, distinct, head + b"\n" + b"x\n" * 2_500_000):
        start = time.process_time()
        assert parse_core_metadata(content).name == "demo"
        assert time.process_time() - start < 5  # the email parser takes minutes for the second


# -- core metadata that may be offered -----------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata_version", "dynamic", "is_static"),
    [
        ("2.1", (), False),
        ("2.2", (), True),
        ("2.2", ("Description", "License-File"), True),
        ("2.4", ("Requires-Dist",), False),
        ("2.4", ("requires-python",), False),
        ("2.4", ("PROVIDES-EXTRA",), False),
        ("2.4", ("Provides",), False),
        ("2.10", (), True),
        ("1.2", (), False),
        ("none", (), False),
        ("2." + "1" * 5000, (), False),
    ],
)
def test_an_sdist_offers_only_metadata_that_a_build_keeps(
    tmp_path: Path, metadata_version: str, dynamic: tuple[str, ...], is_static: bool
) -> None:
    filename, content = make_sdist(
        metadata_version=metadata_version,
        requires_python=">=3.8",
        extra_metadata=[("Dynamic", field) for field in dynamic],
    )
    (tmp_path / filename).write_bytes(content)
    read = read_core_metadata(tmp_path / filename, filename)
    assert read is not None
    assert parse_core_metadata(read).is_static == is_static
    assert offered_core_metadata(tmp_path / filename, filename) == (read if is_static else None)


def test_a_wheel_offers_its_metadata_whatever_the_version(tmp_path: Path) -> None:
    filename, content = make_wheel()
    (tmp_path / filename).write_bytes(content)
    read = read_core_metadata(tmp_path / filename, filename)
    assert read == b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
    assert offered_core_metadata(tmp_path / filename, filename) == read


# -- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("filename", ["demo-1.0.tar.gz", "demo-1.0.zip"])
def test_the_metadata_of_an_sdist_are_the_bytes_in_its_top_folder(
    tmp_path: Path, filename: str
) -> None:
    raw = PKG_INFO + "Author: François\n".encode("latin-1") + b"\r\n\0"
    members = {
        "./demo-1.0/src/PKG-INFO": b"not this",
        "./demo-1.0/NOT-PKG-INFO": b"nor this",
        "./demo-1.0/PKG-INFO": raw,
        "./demo-1.0/PKG-INFO.orig": b"nor that",
    }
    if filename.endswith(".zip"):
        content = make_zip(
            Zipped(name=name.removeprefix("./").encode(), content=data)
            for name, data in members.items()
        )
    else:
        content = make_tar_gz(*(tar_member(n.encode(), data) for n, data in members.items()))
    (tmp_path / filename).write_bytes(content)
    assert read_core_metadata(tmp_path / filename, filename) == raw


def test_metadata_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    huge = b"x" * (2**24 + 1)
    for filename, content in (
        (WHEEL, make_zip([Zipped(name=b"demo-1.0.dist-info/METADATA", content=huge)])),
        ("demo-1.0.tar.gz", make_tar_gz(tar_member(b"demo-1.0/PKG-INFO", huge))),
    ):
        (tmp_path / filename).write_bytes(content)
        with pytest.raises(InvalidUpload, match="is larger than 16777216 bytes"):
            read_core_metadata(tmp_path / filename, filename)


def test_a_file_that_cannot_be_opened_is_not_called_broken(tmp_path: Path) -> None:
    for filename in (WHEEL, "demo-1.0.tar.gz"):
        with pytest.raises(FileNotFoundError):
            read_core_metadata(tmp_path / filename, filename)
        (tmp_path / filename).mkdir()
        with pytest.raises(IsADirectoryError):
            read_core_metadata(tmp_path / filename, filename)


# -- files that were not uploaded through a server -----------------------------------------------


STORED_AT = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


def put(folder: Path, filename: str, content: bytes) -> tuple[StoredFile, BufferedReader]:
    path = folder / "somewhere"
    path.write_bytes(content)
    stored = StoredFile(
        filename=filename,
        size=len(content),
        location="there",
        stamp="1",
        record=None,
        uploaded_at=STORED_AT,
    )
    return stored, path.open("rb")


def expected(
    filename: str, content: bytes, core_metadata: bytes | None, requires_python: str | None
) -> Examined:
    digest = None if core_metadata is None else hashlib.sha256(core_metadata).hexdigest()
    return Examined(
        file=DistributionFile(
            project=canonicalize_name("demo"),
            filename=filename,
            version="1.0",
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            uploaded_at=STORED_AT,
            requires_python=requires_python,
            yanked=None,
            core_metadata_sha256=digest,
            location="there",
        ),
        core_metadata=core_metadata,
    )


def test_a_wheel_that_was_dropped_in_is_examined(tmp_path: Path) -> None:
    filename, content = make_wheel(requires_python=">=3.8")
    metadata = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nRequires-Python: >=3.8\n"
    assert examine(*put(tmp_path, filename, content)) == expected(
        filename, content, metadata, ">=3.8"
    )


def test_an_sdist_with_old_metadata_offers_none_of_it(tmp_path: Path) -> None:
    filename, content = make_sdist(metadata_version="2.1", requires_python=">=3.8")
    assert examine(*put(tmp_path, filename, content)) == expected(filename, content, None, ">=3.8")


def test_a_requires_python_that_is_none_is_told_and_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filename, content = make_wheel(requires_python=">=3.6.*")
    found = examine(*put(tmp_path, filename, content))
    assert found == expected(filename, content, found.core_metadata, None)
    assert caplog.record_tuples == [
        (
            "private_pypi.distributions.core_metadata",
            logging.WARNING,
            f"{filename}: invalid Requires-Python '>=3.6.*'",
        )
    ]


def test_an_sdist_without_pkg_info_is_a_file_all_the_same(tmp_path: Path) -> None:
    # PyPDF2-1.26.0.tar.gz on the public index is such a file.
    filename, content = "demo-1.0.tar.gz", make_tar_gz(tar_member(b"demo-1.0/setup.py"))
    assert examine(*put(tmp_path, filename, content)) == expected(filename, content, None, None)


def test_archives_that_no_upload_may_be_are_examined_all_the_same(tmp_path: Path) -> None:
    filename, content = make_wheel()
    for odd in (b"#!/bin/sh\n" + content, make_zip([Zipped(name=b"demo-1.0.dist-info/METADATA",
                content=b"Name: demo\nVersion: 1.0", before=b"gap")])):  # fmt: skip
        assert examine(*put(tmp_path, filename, odd)).file.size == len(odd)
    twice = gzip.compress(tar_member(b"demo-1.0/PKG-INFO", PKG_INFO)) + gzip.compress(b"\0" * 1024)
    assert examine(*put(tmp_path, "demo-1.0.tar.gz", twice)).core_metadata == PKG_INFO
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("demo-1.0/PKG-INFO", PKG_INFO)
    assert examine(*put(tmp_path, "demo-1.0.zip", buffer.getvalue())).core_metadata == PKG_INFO


def encrypted() -> bytes:
    return make_zip([Zipped(name=b"demo-1.0.dist-info/METADATA", content=PKG_INFO, flags=1)])


def with_pax(records: bytes) -> bytes:
    return make_tar_gz(tar_member(b"x", records, kind=b"x"), tar_member(b"demo-1.0/PKG-INFO"))


@pytest.mark.parametrize(
    ("filename", "content", "sentence"),
    [
        (WHEEL, b"", "the archive cannot be read: File is not a zip file"),
        (WHEEL, make_wheel()[1][:-30], "the archive cannot be read: File is not a zip file"),
        (WHEEL, make_zip([Zipped(name=b"a.dist-info/METADATA")], start=2**20),
         "the archive cannot be read: it is damaged"),
        (WHEEL, make_zip([]), ".dist-info/METADATA is missing"),
        (WHEEL, encrypted(),
         "the archive cannot be read: 'demo-1.0.dist-info/METADATA' is encrypted"),
        (WHEEL, make_zip([Zipped(name=b"demo-1.0.dist-info/METADATA", method=99)]),
         "the archive cannot be read: That compression method is not supported"),
        (WHEEL, make_zip([Zipped(name=b"a.dist-info/METADATA", packed=b"BZh9no", method=12)]),
         "the archive cannot be read: it is damaged"),
        (WHEEL, make_wheel("other")[1], "its metadata has the project name 'other'"),
        (WHEEL, make_wheel(version="1.1")[1], "its metadata has the version '1.1'"),
        (WHEEL, make_zip([Zipped(name=b"a.dist-info/METADATA", content=b"Version: 1.0")]),
         "its metadata has the project name None"),
        (WHEEL, make_zip([Zipped(name=b"a.dist-info/METADATA", content=b"Name: demo")]),
         "its metadata has the version None"),
        (WHEEL, make_zip([Zipped(name=b"a.dist-info/METADATA",
                                 content=b"Name: demo\nVersion: " + b"1" * 5000)]),
         "its metadata has the version '" + "1" * 99),
        ("demo-1.0.tar.gz", b"", "the archive cannot be read: empty file"),
        ("demo-1.0.tar.gz", b"text", "the archive cannot be read: Not a gzipped file (b'te')"),
        ("demo-1.0.tar.gz", b"\x1f\x8b\x08", "the archive cannot be read: "),
        ("demo-1.0.tar.gz", make_sdist()[1][:60], "the archive cannot be read: "),
        ("demo-1.0.tar.gz", with_pax(b"1" * 5000 + b" path=x\n"), "the archive cannot be read: "),
        ("demo-1.0.zip", make_sdist()[1], "the archive cannot be read: File is not a zip file"),
    ],
)  # fmt: skip
def test_a_broken_file_is_called_so(
    tmp_path: Path, filename: str, content: bytes, sentence: str
) -> None:
    with pytest.raises(InvalidUpload) as error:
        examine(*put(tmp_path, filename, content))
    assert str(error.value).startswith(f"{filename}: {sentence}")
    assert "somewhere" not in str(error.value)
    assert len(str(error.value)) < 300


def test_a_file_that_is_none_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidFilename):
        examine(*put(tmp_path, "demo.txt", b""))


@given(
    filename=st.sampled_from([WHEEL, "demo-1.0.tar.gz", "demo-1.0.zip"]),
    content=st.one_of(
        st.binary(max_size=100),
        st.binary(max_size=100).map(lambda content: b"\x1f\x8b\x08" + content),
        st.binary(max_size=2000).map(gzip.compress),
        st.binary(max_size=100).map(lambda content: content + b"PK\x05\x06" + bytes(18)),
        st.binary(max_size=500).map(
            lambda content: make_zip([Zipped(name=b"a.dist-info/METADATA", content=content)])
        ),
        st.binary(max_size=500).map(
            lambda content: make_tar_gz(tar_member(b"demo-1.0/PKG-INFO", content))
        ),
        st.sampled_from([b"Requires-Python: ", b"Version: 1.", b"Name: "]).flatmap(
            lambda start: st.text("0123456789.,<>=!~* ()[]{}", max_size=6000).map(
                lambda text: make_tar_gz(
                    tar_member(b"demo-1.0/PKG-INFO", PKG_INFO + start + text.encode())
                )
            )
        ),
    ),
)
def test_no_bytes_are_more_than_a_broken_file(
    filename: str, content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    try:
        found = examine(*put(tmp_path_factory.getbasetemp(), filename, content))
    except InvalidUpload:
        return
    assert found.file.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TypeError("ord() expected a character"), InvalidUpload),
        (RecursionError("too deep"), InvalidUpload),
        (zlib.error("incorrect data"), InvalidUpload),
        (MemoryError(), BackendError),
        (OSError(errno.EIO, "Input/output error"), OSError),
        (BackendUnavailable("down"), BackendUnavailable),
    ],
)
def test_only_trouble_is_no_verdict_on_a_file(
    error: Exception, expected: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other error while a file is read means that this file is damaged."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(zipfile, "ZipFile", fail)
    with pytest.raises(Exception) as raised:
        examine(*put(tmp_path, WHEEL, b""))
    assert type(raised.value) is expected


@given(data=st.data())
def test_any_damage_is_an_invalid_upload_or_none(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    filename, content = data.draw(st.sampled_from([make_wheel(), make_sdist(format="zip")]))
    at = data.draw(st.integers(0, len(content)))
    damaged = content[:at] + data.draw(st.binary(max_size=4)) + content[at + 1 :]
    try:
        found = examine(*put(tmp_path_factory.getbasetemp(), filename, damaged))
    except InvalidUpload:
        return
    assert found.file.sha256 == hashlib.sha256(damaged).hexdigest()


@given(data=st.data())
def test_any_damage_in_a_tar_file_is_an_invalid_upload_or_none(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    filename, content = make_sdist(files={"x" * 120: b""})
    tar = gzip.decompress(content)
    at = data.draw(st.integers(0, len(tar)))
    damaged = gzip.compress(tar[:at] + data.draw(st.binary(max_size=4)) + tar[at + 1 :])
    try:
        found = examine(*put(tmp_path_factory.getbasetemp(), filename, damaged))
    except InvalidUpload:
        return
    assert found.file.sha256 == hashlib.sha256(damaged).hexdigest()
