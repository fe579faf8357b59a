"""An archive that is accepted looks the same to all programs that read it."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from private_pypi.distributions import core_metadata, zip_members
from private_pypi.distributions.archives import check_archive
from private_pypi.distributions.core_metadata import read_core_metadata
from private_pypi.errors import InvalidUpload
from tests.archives_by_hand import (
    PKG_INFO,
    Zipped,
    make_tar_gz,
    make_zip,
    pax,
    pkg_info,
    tar_member,
    wheel_members,
)
from tests.distributions.archive_checks import METADATA, Check, refusal, seen_by_tarfile, seen_by_us
from tests.distributions.test_archive_bounds import SDIST, WHEEL, at_most
from tests.distributions.test_tar_archives import GOOD_TARS
from tests.distributions.test_zip_archives import GOOD_ZIPS

# -- what every reader sees ----------------------------------------------------------------------


def test_a_stored_member_of_300_mib_is_checked_in_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    block = random.Random(1).randbytes(2**20)
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("big.bin", "w", force_zip64=True) as opened:
            for _ in range(300):
                opened.write(block)
        for member in wheel_members({}):
            archive.writestr(member.name.decode(), member.content)
    with at_most(4):
        assert check_archive(path, WHEEL).core_metadata == METADATA


def seen_by_zipfile(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return sorted((info.filename, archive.read(info)) for info in archive.infolist())


def zip_seen_by_us(content: bytes) -> list[tuple[str, bytes]]:
    file = io.BytesIO(content)
    members = zip_members.read_members(file, len(content))
    return sorted((m.name, b"".join(zip_members.unpack(file, m))) for m in members)


@st.composite
def mutations(draw: st.DrawFn, length: int) -> list[tuple[int, int, bytes]]:
    """A few changes: the position, the number of bytes to replace, and the new bytes."""
    return draw(
        st.lists(
            st.tuples(
                st.integers(0, length),
                st.sampled_from([0, 1, 1, 1, 2, 4, 8, 512]),
                st.one_of(
                    st.sampled_from([b"", b"\0", b"\xff", b"\xff\xff", b"\xff" * 4, b"/", b"0"]),
                    st.binary(min_size=1, max_size=4),
                ),
            ),
            min_size=1,
            max_size=3,
        )
    )


def mutate(content: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, size, new in changes:
        content = content[:at] + new + content[at + size :]
    return content


FUZZED_ZIPS = (
    "by hand",
    "stored",
    "zip64 sizes",
    "zip64 end records",
    "a data descriptor of 16 bytes",
)


@pytest.mark.needs("time")
@settings(max_examples=600, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_zip_file_is_refused_or_read_as_zipfile_reads_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good = GOOD_ZIPS[data.draw(st.sampled_from(FUZZED_ZIPS))]
    content = mutate(good, data.draw(mutations(len(good))))
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(content)
    try:
        metadata = check_archive(path, WHEEL).core_metadata
    except InvalidUpload:
        return
    assert zip_seen_by_us(content) == seen_by_zipfile(content)
    assert read_core_metadata(path, WHEEL) == metadata


def with_checksums(content: bytes) -> bytes:
    """The tar file with corrected checksums in all blocks that look like headers."""
    blocks = [content[at : at + 512] for at in range(0, len(content), 512)]
    for number, block in enumerate(blocks):
        if block[257:262] == b"ustar" and len(block) == 512:
            blank = block[:148] + b" " * 8 + block[156:]
            blocks[number] = block[:148] + b"%06o\0 " % sum(blank) + block[156:]
    return b"".join(blocks)


FUZZED_TARS = (
    "a pax path",
    "a ustar prefix",
    "a GNU long name and a GNU long link",
    "a hard link to a hard link",
    "a global pax header, as git writes it",
    "a size in base 256",
)


@pytest.mark.needs("time")
@settings(max_examples=600, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_tar_file_is_refused_or_read_as_tarfile_reads_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good = gzip.decompress(GOOD_TARS[data.draw(st.sampled_from(FUZZED_TARS))])
    content = with_checksums(mutate(good, data.draw(mutations(len(good)))))
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(gzip.compress(content))
    try:
        metadata = check_archive(path, SDIST).core_metadata
    except InvalidUpload:
        return
    assert seen_by_us(content) == seen_by_tarfile(content)
    assert read_core_metadata(path, SDIST) == metadata


@pytest.mark.needs("time")
@settings(max_examples=1500, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_core_metadata_that_are_read_strictly_are_those_of_the_standard_library(
    data: st.DataObject,
) -> None:
    filename = data.draw(st.sampled_from([WHEEL, SDIST]))
    if filename == WHEEL:
        content = GOOD_ZIPS[data.draw(st.sampled_from(FUZZED_ZIPS))]
        content = mutate(content, data.draw(mutations(len(content))))
    else:
        content = gzip.decompress(GOOD_TARS[data.draw(st.sampled_from(FUZZED_TARS))])
        content = gzip.compress(with_checksums(mutate(content, data.draw(mutations(len(content))))))
    try:
        found = core_metadata._from_strict(io.BytesIO(content), filename)
    except InvalidUpload:
        return
    if found is not None:
        assert found == core_metadata._from_library(io.BytesIO(content), filename)


def zip_with(method: int, before: bytes = b"") -> bytes:
    file = io.BytesIO(before)
    with zipfile.ZipFile(file, "a", method) as archive:
        archive.writestr("demo-1.0.dist-info/METADATA", METADATA)
    return file.getvalue()


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        (WHEEL, zip_with(zipfile.ZIP_BZIP2)),
        (WHEEL, zip_with(zipfile.ZIP_STORED, before=b"#!/usr/bin/python\n")),
        (SDIST, make_tar_gz(tar_member(b"demo-1.0/a", kind=b"7"), pkg_info())),
        (SDIST, make_tar_gz(pkg_info()) + gzip.compress(b"more")),
    ],
    ids=["bzip2", "data before the members", "a contiguous file", "two streams"],
)
def test_a_dropped_archive_that_no_upload_may_be_is_read_all_the_same(
    tmp_path: Path, filename: str, content: bytes
) -> None:
    path = tmp_path / "dropped"
    path.write_bytes(content)
    with pytest.raises(InvalidUpload):
        check_archive(path, filename)
    assert read_core_metadata(path, filename) == (METADATA if filename == WHEEL else PKG_INFO)


def test_a_name_with_a_null_character_ends_there_as_for_the_standard_library(
    tmp_path: Path,
) -> None:
    path = tmp_path / "dropped"
    member = Zipped(name=b"demo-1.0.dist-info/METADATA\0.txt", content=b"Name: other\n")
    path.write_bytes(make_zip([member, *wheel_members()]))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[0] == "demo-1.0.dist-info/METADATA"
    assert read_core_metadata(path, WHEEL) == b"Name: other\n"


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_gzip_file_is_refused_or_read_as_gzip_reads_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good = GOOD_TARS["a pax path"]
    content = mutate(good, data.draw(mutations(len(good))))
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(content)
    try:
        check_archive(path, SDIST)
    except InvalidUpload:
        return
    assert gzip.decompress(content) == gzip.decompress(good)


# -- names of members --------------------------------------------------------------------------

UNUSUAL_NAMES = [
    "no-break\xa0space.py",
    "\u3000wide.py",
    "line\u2028separator.py",
    "not yet \U0001fbfa assigned.py",  # perhaps in a newer Unicode version
    "ends with a dot.",
    "'quoted' \"twice\".py",
]
# uv unpacks these from a tar file, but not from a zip file.
HIDDEN_NAMES = {
    "\U0001f469\u200d\U0001f4bb.py": "200D",
    "soft\xadhyphen.py": "00AD",
    "right\u202eleft.py": "202E",
    "private\ue000use.py": "E000",
    "mojibake\x92.py": "0092",
}


@pytest.mark.parametrize("name", UNUSUAL_NAMES, ids=ascii)
def test_a_member_name_may_have_any_characters_that_install(check: Check, name: str) -> None:
    zipped = Zipped(name=name.encode(), flags=0x800)
    assert check(WHEEL, make_zip([zipped, *wheel_members()])) == METADATA


@pytest.mark.parametrize("name", [*UNUSUAL_NAMES, *HIDDEN_NAMES], ids=ascii)
def test_in_a_tar_file_it_may_have_more_of_them(check: Check, name: str) -> None:
    tarred = make_tar_gz(pkg_info(), pax((b"path", f"demo-1.0/{name}".encode())), tar_member(b"x"))
    assert check(SDIST, tarred) == PKG_INFO


@pytest.mark.parametrize(("name", "code"), HIDDEN_NAMES.items(), ids=HIDDEN_NAMES.values())
def test_a_zip_file_that_uv_cannot_unpack_is_refused(check: Check, name: str, code: str) -> None:
    zipped = Zipped(name=name.encode(), flags=0x800)
    assert refusal(check, WHEEL, make_zip([zipped, *wheel_members()])) == (
        f"the member name {name!r} has the character U+{code}, so uv cannot unpack it"
    )
