"""What the tests of archives share: checking an archive, and parts of error messages."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from private_pypi.distributions import tar_members
from private_pypi.distributions.archives import check_archive
from private_pypi.errors import InvalidUpload
from tests.archives_by_hand import wheel_members

ZIP_SDIST = "demo-1.0.zip"

METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
CODE = b"version = '1.0'\n" * 9  # the content of demo.py


@pytest.fixture
def check(tmp_path: Path) -> Callable[[str, bytes], bytes]:
    def check(filename: str, content: bytes) -> bytes:
        path = tmp_path / "upload-x"
        path.write_bytes(content)
        return check_archive(path, filename).core_metadata

    return check


Check = Callable[[str, bytes], bytes]

MISSING = " is missing; every wheel must have it"
TWICE = "with different content; a name must be used once"
SPLIT = "the zip file is one part of a split archive; it must be complete"
NOT_RELATIVE = (
    " must be a relative path, without '..', '.', empty parts, backslashes and control characters"
)
NOT_BEFORE = "; it must be a link to a file that comes before it in the archive"
NOT_THE_FOLDER = (
    "does not fit the filename: "
    "it must be <name>-<version>.dist-info with project demo and version 1.0"
)
NOT_THE_TOP = NOT_THE_FOLDER.replace(".dist-info", "")


def refusal(check: Check, filename: str, content: bytes) -> str:
    """The error message for an archive, without the filename at its beginning."""
    with pytest.raises(InvalidUpload) as error:
        check(filename, content)
    sentence = str(error.value)
    assert sentence.startswith(f"{filename}: ")
    assert "\n" not in sentence
    assert "upload-x" not in sentence
    return sentence.removeprefix(f"{filename}: ")


def warnings_about(folder: Path, filename: str, content: bytes) -> list[str]:
    path = folder / "upload-x"
    path.write_bytes(content)
    return list(check_archive(path, filename).warnings)


UNSAFE_NAMES = [
    "/etc/passwd",
    "../evil.py",
    "pkg/../../evil.py",
    "pkg/./a.py",
    "./a.py",
    "pkg//a.py",
    "C:/evil.py",
    "c:evil.py",
    "pkg\\evil.py",
    "nul\0byte.py",
    "line\nbreak.py",
    "escape\x1b[2J.py",
    "",
    "/",
    "..",
]

FIRST = wheel_members()[0]


Seen = list[tuple[str, str, str, bytes]]


def seen_by_us(content: bytes) -> Seen:
    stream = tar_members.Gunzip(io.BytesIO(gzip.compress(content)), 2**40)
    return [
        (member.name, member.kind, member.target if "link" in member.kind else "", b"".join(data))
        for member, data in tar_members.read_members(stream)
    ]


def seen_by_tarfile(content: bytes) -> Seen:
    seen: Seen = []
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for member in archive:
            kind = {
                tarfile.REGTYPE: "file",
                tarfile.AREGTYPE: "file",
                tarfile.DIRTYPE: "folder",
                tarfile.SYMTYPE: "symbolic link",
                tarfile.LNKTYPE: "hard link",
            }[member.type]
            opened = archive.extractfile(member) if kind == "file" else None
            data = b"" if opened is None else opened.read()
            target = member.linkname if "link" in kind else ""
            if member.name != "." or kind != "folder":
                seen.append((member.name.removeprefix("./"), kind, target, data))
    return seen
