"""Tar files are read to the last byte: each fault has its own message, and good files pass."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zlib
from pathlib import Path

import pytest

from tests.archives_by_hand import (
    GNU,
    PKG_INFO,
    V7,
    make_tar_gz,
    pax,
    pkg_info,
    tar_member,
)
from tests.distributions.archive_checks import (
    NOT_BEFORE,
    NOT_RELATIVE,
    NOT_THE_TOP,
    TWICE,
    UNSAFE_NAMES,
    Check,
    refusal,
    seen_by_tarfile,
    seen_by_us,
    warnings_about,
)
from tests.distributions.test_archive_bounds import SDIST, at_most

# -- good tar files ------------------------------------------------------------------------------

LONG = "x" * 60 + "/" + "y" * 70 + "/größe.txt"

GOOD_TARS: dict[str, bytes] = {
    "one member": make_tar_gz(pkg_info()),
    "a ./ prefix and the folder itself": make_tar_gz(
        tar_member(b"./", kind=b"5"),
        tar_member(b"./demo-1.0/", kind=b"5"),
        tar_member(b"./demo-1.0/PKG-INFO", PKG_INFO),
    ),
    "a folder named .": make_tar_gz(tar_member(b".", kind=b"5"), pkg_info()),
    "a folder of v7": make_tar_gz(tar_member(b"demo-1.0/", kind=b"\0", magic=V7), pkg_info()),
    "v7": make_tar_gz(tar_member(b"demo-1.0/PKG-INFO", PKG_INFO, kind=b"\0", magic=V7)),
    "gnu": make_tar_gz(tar_member(b"demo-1.0/PKG-INFO", PKG_INFO, magic=GNU)),
    "no end": make_tar_gz(pkg_info(), end=b""),
    "half an end": make_tar_gz(pkg_info(), end=b"\0" * 512),
    "a padded end": make_tar_gz(pkg_info(), end=b"\0" * 10240),
    "a ragged end": make_tar_gz(pkg_info(), end=b"\0" * 1000),
    "a ustar prefix": make_tar_gz(pkg_info(), tar_member(b"a.py", prefix=b"demo-1.0/src")),
    "a pax path": make_tar_gz(
        pkg_info(),
        pax((b"path", f"demo-1.0/{LONG}".encode()), (b"mtime", b"1.5")),
        tar_member(f"demo-1.0/{LONG}".encode()[:80], b"content"),
    ),
    "a pax path beside a name that is cut within a character": make_tar_gz(
        pkg_info(),
        pax((b"path", "demo-1.0/größe".encode())),
        tar_member("demo-1.0/grö".encode()[:-1], b"content"),
    ),
    "a pax size that is the same": make_tar_gz(
        pkg_info(), pax((b"size", b"7")), tar_member(b"demo-1.0/a", b"content")
    ),
    "a pax header that says UTF-8": make_tar_gz(
        pax((b"hdrcharset", b"ISO-IR 10646 2000 UTF-8")), pkg_info()
    ),
    "a global pax header, as git writes it": make_tar_gz(
        pax((b"comment", b"0123456789abcdef"), kind=b"g"), pkg_info()
    ),
    "a GNU long name": make_tar_gz(
        pkg_info(),
        tar_member(b"././@LongLink", b"demo-1.0/" + b"z" * 200 + b"\0", kind=b"L", magic=GNU),
        tar_member(b"demo-1.0/" + b"z" * 91, b"content", magic=GNU),
    ),
    "a GNU long name and a GNU long link": make_tar_gz(
        pkg_info(),
        tar_member(b"././@LongLink", b"a" * 200 + b"\0", kind=b"K", magic=GNU),
        tar_member(b"././@LongLink", b"demo-1.0/" + b"z" * 200 + b"\0", kind=b"L", magic=GNU),
        tar_member(b"demo-1.0/z", kind=b"2", target=b"a" * 100, magic=GNU),
    ),
    "a size in base 256": make_tar_gz(
        tar_member(b"demo-1.0/PKG-INFO", PKG_INFO, size=b"\x80" + len(PKG_INFO).to_bytes(11, "big"))
    ),
    "a size with blanks": make_tar_gz(
        tar_member(b"demo-1.0/PKG-INFO", PKG_INFO, size=b"%10o  " % len(PKG_INFO))
    ),
    "a signed checksum": make_tar_gz(
        pkg_info(),
        tar_member(
            "demo-1.0/ö".encode(),
            checksum=b"%06o\0 "
            % (sum(tar_member("demo-1.0/ö".encode(), checksum=b" " * 8)) - 2 * 256),
        ),
    ),
    "a symbolic link beside": make_tar_gz(
        pkg_info(), tar_member(b"demo-1.0/a", kind=b"2", target=b"PKG-INFO")
    ),
    "a symbolic link upwards": make_tar_gz(
        pkg_info(), tar_member(b"demo-1.0/a/b/c", kind=b"2", target=b"../../docs/./x")
    ),
    "a symbolic link to the top folder": make_tar_gz(
        pkg_info(), tar_member(b"demo-1.0/a/b", kind=b"2", target=b"..")
    ),
    "a hard link": make_tar_gz(
        pkg_info(), tar_member(b"demo-1.0/a", kind=b"1", target=b"demo-1.0/PKG-INFO")
    ),
    "a hard link to a hard link": make_tar_gz(
        pkg_info(),
        tar_member(b"demo-1.0/a", kind=b"1", target=b"./demo-1.0/PKG-INFO"),
        tar_member(b"demo-1.0/b", kind=b"1", target=b"demo-1.0/a"),
    ),
}


# Files with repetitions that pip and uv install nevertheless.
TOLD_TARS: dict[str, tuple[bytes, list[str]]] = {
    "zeros behind the gzip file": (GOOD_TARS["one member"] + bytes(200_000), []),
    "a folder twice": (
        make_tar_gz(
            tar_member(b"demo-1.0/src/", kind=b"5"),
            pkg_info(),
            tar_member(b"./demo-1.0/src", kind=b"5"),
        ),
        [],
    ),
    "files twice with the same bytes": (
        make_tar_gz(pkg_info(), *[tar_member(b"demo-1.0/a", b"1"), pkg_info()] * 2),
        ["the member 'demo-1.0/PKG-INFO' and 1 more are repeated, with the same content"],
    ),
    "a link twice with the same target": (
        make_tar_gz(pkg_info(), *[tar_member(b"demo-1.0/a", kind=b"2", target=b"b")] * 2),
        ["the member 'demo-1.0/a' is repeated, with the same content"],
    ),
}


@pytest.mark.parametrize(("content", "warnings"), TOLD_TARS.values(), ids=TOLD_TARS)
def test_a_tar_sdist_that_installs_is_taken_and_its_oddities_are_told(
    tmp_path: Path, content: bytes, warnings: list[str]
) -> None:
    assert warnings_about(tmp_path, SDIST, content) == warnings
    with tarfile.open(tmp_path / "upload-x") as archive:  # the file is a valid one for tarfile
        assert archive.getnames()


@pytest.mark.parametrize("content", GOOD_TARS.values(), ids=GOOD_TARS)
def test_a_sound_tar_sdist_is_taken(check: Check, content: bytes) -> None:
    assert check(SDIST, content) == PKG_INFO
    assert seen_by_us(gzip.decompress(content)) == seen_by_tarfile(gzip.decompress(content))


@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_what_tarfile_writes_in_any_format_is_taken(check: Check, style: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=style) as archive:
        for name in ("demo-1.0/PKG-INFO", f"demo-1.0/{LONG}", "demo-1.0/" + "k" * 91):
            info = tarfile.TarInfo(name)
            info.size = len(PKG_INFO)
            info.mtime = 1.5 if style == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(PKG_INFO))
        link = tarfile.TarInfo("demo-1.0/link")
        link.type = tarfile.SYMTYPE
        link.linkname = "x" * 60 if style == tarfile.USTAR_FORMAT else "x" * 160
        archive.addfile(link)
    assert check(SDIST, buffer.getvalue()) == PKG_INFO


@pytest.mark.parametrize(
    ("filename", "folder"),
    [
        ("demo_pkg-1.0.tar.gz", "demo-pkg-1.0"),
        ("demo-pkg-1.0.tar.gz", "Demo.Pkg-1.0"),
        ("Demo.Pkg-1.0.tar.gz", "demo_pkg-1.0.0"),
        ("demo-pkg-1.0+local.1.tar.gz", "demo-pkg-1.0+local.1"),
        ("demo_pkg-1.0rc1.tar.gz", "demo_pkg-1.0-rc1"),
    ],
)
def test_a_top_folder_is_its_own_in_any_spelling(check: Check, filename: str, folder: str) -> None:
    content = make_tar_gz(tar_member(f"{folder}/PKG-INFO".encode(), PKG_INFO))
    assert check(filename, content) == PKG_INFO


# -- bad tar files -------------------------------------------------------------------------------


def broken_link(name: bytes, target: bytes) -> tuple[bytes, str]:
    return (
        make_tar_gz(pkg_info(), tar_member(name, kind=b"2", target=target)),
        f"the symbolic link {name.decode()!r} to {target.decode()!r} must stay inside 'demo-1.0', "
        "with '..' only at its beginning",
    )


BAD_TARS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the gzip file is incomplete"),
    "no gzip file": (
        b"plain text, and enough of it to be a header",
        "the gzip file is damaged: Error -3 while decompressing data: incorrect header check",
    ),
    "a tar file that is not packed": (
        gzip.decompress(GOOD_TARS["one member"]),
        "the gzip file is damaged: Error -3 while decompressing data: incorrect header check",
    ),
    "gzip cut off": (GOOD_TARS["one member"][:-9], "the gzip file is incomplete"),
    "gzip without its last byte": (GOOD_TARS["one member"][:-1], "the gzip file is incomplete"),
    "gzip with a wrong checksum": (
        GOOD_TARS["one member"][:-8] + b"\0" * 4 + GOOD_TARS["one member"][-4:],
        "the gzip file is damaged: Error -3 while decompressing data: incorrect data check",
    ),
    "gzip with a wrong length": (
        GOOD_TARS["one member"][:-4] + b"\0" * 4,
        "the gzip file is damaged: Error -3 while decompressing data: incorrect length check",
    ),
    "data behind the gzip file": (
        GOOD_TARS["one member"] + b"\0" * 9 + b"x",
        "there is data after the end of the gzip file",
    ),
    "two gzip members": (
        gzip.compress(pkg_info()) + gzip.compress(b"\0" * 1024),
        "there is data after the end of the gzip file",
    ),
    "data behind the tar file": (
        make_tar_gz(pkg_info(), end=b"\0" * 512 + tar_member(b"demo-1.0/evil.py", b"x")),
        "there is data after the end of the tar file",
    ),
    "no members": (
        make_tar_gz(),
        "an sdist must have exactly one top folder, but this one has none",
    ),
    "cut in a header": (make_tar_gz(pkg_info(), end=b"x" * 100), "the tar file is incomplete"),
    "cut in a member": (
        gzip.compress(pkg_info()[:-1]),
        "the tar file is incomplete: it ends inside 'demo-1.0/PKG-INFO'",
    ),
    "cut behind a pax header": (
        make_tar_gz(pkg_info(), pax((b"path", b"x"))),
        "the tar file is incomplete: it ends with a pax header or a long name",
    ),
    "cut in a pax header": (
        make_tar_gz(pkg_info(), pax((b"path", b"x"))[:520], end=b""),
        "the tar file is incomplete: it ends in a pax header or a long name",
    ),
    "a long name that goes on in its padding": (
        make_tar_gz(
            tar_member(b"L", b"demo-1.0/a", kind=b"L")[:522] + b"b" + b"\0" * 501, pkg_info()
        ),
        "the tar file is damaged: a pax header or a long name is not followed by zeros",
    ),
    "a checksum that is wrong": (
        make_tar_gz(pkg_info(), tar_member(b"demo-1.0/a", checksum=b"000000\0 ")),
        "the tar file is damaged: a header has a wrong checksum",
    ),
    "a checksum that is none": (
        make_tar_gz(tar_member(b"demo-1.0/a", checksum=b"????????")),
        "the tar file is damaged: a header has a wrong checksum",
    ),
    "a size that is none": (
        make_tar_gz(tar_member(b"demo-1.0/a", size=b"0o7")),
        "the tar file is damaged: a header has "
        "b'0o7\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00' instead of a size",
    ),
    "a size below zero": (
        make_tar_gz(tar_member(b"demo-1.0/a", size=b"-1")),
        "the tar file is damaged: a header has "
        "b'-1\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00' instead of a size",
    ),
    "a size below zero in base 256": (
        make_tar_gz(tar_member(b"demo-1.0/a", size=b"\xff" * 12)),
        "the tar file is damaged: a header has "
        "b'\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff' instead of a size",
    ),
    "a size beyond all": (
        make_tar_gz(tar_member(b"demo-1.0/a", size=b"\x80" + b"\xff" * 11)),
        "the tar file is incomplete: it ends inside 'demo-1.0/a'",
    ),
    "a fifo": (
        make_tar_gz(tar_member(b"demo-1.0/a", kind=b"6")),
        "'demo-1.0/a' is of type b'6'; only files, folders and links are accepted in an sdist",
    ),
    "a device": (
        make_tar_gz(tar_member(b"demo-1.0/a", kind=b"3")),
        "'demo-1.0/a' is of type b'3'; only files, folders and links are accepted in an sdist",
    ),
    "a device number that is none": (
        make_tar_gz(tar_member(b"demo-1.0/a", device=b"abcdefg\0")),
        "the tar file is damaged: a header has b'abcdefg\\x00' instead of a number",
    ),
    "a sparse member of GNU": (
        make_tar_gz(tar_member(b"demo-1.0/a", kind=b"S", magic=GNU)),
        "'demo-1.0/a' is sparse; only files, folders and links are accepted in an sdist",
    ),
    "a sparse member of pax": (
        make_tar_gz(pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")), pkg_info()),
        "the tar file has a sparse member; pack it without --sparse",
    ),
    "a pax header that is none": (
        make_tar_gz(tar_member(b"x", b"9999999999 path=a\n", kind=b"x"), pkg_info()),
        "the tar file is damaged: a pax header cannot be read",
    ),
    "a pax record without a value": (
        make_tar_gz(tar_member(b"x", b"7 path\n", kind=b"x"), pkg_info()),
        "the tar file is damaged: a pax header cannot be read",
    ),
    "a pax record that is longer than its header": (
        make_tar_gz(tar_member(b"x", b"99 path=a\n", kind=b"x"), pkg_info()),
        "the tar file is damaged: a pax header cannot be read",
    ),
    "a pax path twice": (
        make_tar_gz(pax((b"path", b"demo-1.0/a"), (b"path", b"demo-1.0/b")), pkg_info()),
        "a pax header gives 'path' twice",
    ),
    "a pax path and a GNU long name": (
        make_tar_gz(
            pax((b"path", b"demo-1.0/a")),
            tar_member(b"L", b"demo-1.0/b\0", kind=b"L"),
            pkg_info(),
        ),
        "the tar file gives 'path' twice for one member",
    ),
    "an empty pax path": (
        make_tar_gz(pax((b"path", b"")), pkg_info()),
        "the tar file gives an empty 'path' for a member",
    ),
    "a pax path for all members": (
        make_tar_gz(pax((b"path", b"demo-1.0/a"), kind=b"g"), pkg_info()),
        "a global pax header gives all members the same 'path'; each member must have its own",
    ),
    "a pax size that differs": (
        make_tar_gz(pax((b"size", b"1024")), pkg_info()),
        f"'demo-1.0/PKG-INFO' has the size {len(PKG_INFO)} in its header "
        "and 1024 in its pax header; both must be the same",
    ),
    "a pax size that is none": (
        make_tar_gz(pax((b"size", b"-1")), pkg_info()),
        "'demo-1.0/PKG-INFO' has the size '-1'; it must be a number",
    ),
    "a pax header that is too large": (
        make_tar_gz(pax((b"comment", b"x" * 2**20)), pkg_info()),
        f"the tar file has a pax header or a long name of {2**20 + 17} bytes; "
        "at most 1048576 are accepted",
    ),
    "names that are not UTF-8, by their pax header": (
        make_tar_gz(pax((b"hdrcharset", b"BINARY")), pkg_info()),
        "the tar file has member names in another encoding; they must be UTF-8",
    ),
    "a name that is not UTF-8": (
        make_tar_gz(tar_member(b"demo-1.0/\xf6"), pkg_info()),
        "the member name b'demo-1.0/\\xf6' is not UTF-8; it must be",
    ),
    "a prefix in the GNU format": (
        make_tar_gz(tar_member(b"PKG-INFO", PKG_INFO, prefix=b"demo-1.0", magic=GNU)),
        "'PKG-INFO' has a prefix, which only the ustar format may have",
    ),
    "a folder with content": (
        make_tar_gz(pkg_info(), tar_member(b"demo-1.0/a", b"hidden", kind=b"5")),
        "'demo-1.0/a' is a folder, but has 6 bytes of content",
    ),
    "a link with content": (
        make_tar_gz(pkg_info(), tar_member(b"demo-1.0/a", b"hidden", kind=b"2", target=b"b")),
        "'demo-1.0/a' is a symbolic link, but has 6 bytes of content",
    ),
    "a member twice": (
        make_tar_gz(pkg_info(), pkg_info(PKG_INFO.replace(b"demo", b"evil"))),
        f"the archive has two members 'demo-1.0/PKG-INFO' {TWICE}",
    ),
    "a member twice, once with ./": (
        make_tar_gz(pkg_info(), tar_member(b"./demo-1.0/PKG-INFO")),
        f"the archive has two members 'demo-1.0/PKG-INFO' {TWICE}",
    ),
    "a member twice, with the same checksum": (
        make_tar_gz(
            pkg_info(),
            # zlib.crc32 is the same for both, because each ends with its own checksum.
            tar_member(b"demo-1.0/a", b"1" + struct.pack("<L", zlib.crc32(b"1"))),
            tar_member(b"demo-1.0/a", b"2" + struct.pack("<L", zlib.crc32(b"2"))),
        ),
        f"the archive has two members 'demo-1.0/a' {TWICE}",
    ),
    "a link twice": (
        make_tar_gz(
            pkg_info(),
            tar_member(b"demo-1.0/a", kind=b"2", target=b"b"),
            tar_member(b"demo-1.0/a", kind=b"2", target=b"c"),
        ),
        f"the archive has two members 'demo-1.0/a' {TWICE}",
    ),
    "a file and a link of one name": (
        make_tar_gz(
            pkg_info(),
            tar_member(b"demo-1.0/a"),
            tar_member(b"demo-1.0/a", kind=b"2", target=b"PKG-INFO"),
        ),
        f"the archive has two members 'demo-1.0/a' {TWICE}",
    ),
    "a file and a folder of one name": (
        make_tar_gz(pkg_info(), tar_member(b"demo-1.0/a"), tar_member(b"demo-1.0/a", kind=b"5")),
        "the member 'demo-1.0/a' is both a file and a folder",
    ),
    "a file and a folder at once": (
        make_tar_gz(pkg_info(), tar_member(b"demo-1.0/PKG-INFO/x")),
        "the member 'demo-1.0/PKG-INFO' is both a file and a folder",
    ),
    "a member below a link": (
        make_tar_gz(
            pkg_info(),
            tar_member(b"demo-1.0/a", kind=b"2", target=b"docs"),
            tar_member(b"demo-1.0/a/x"),
        ),
        "the member 'demo-1.0/a' is both a file and a folder",
    ),
    "a link to an absolute path": broken_link(b"demo-1.0/a", b"/etc/passwd"),
    "a link out of the folder": broken_link(b"demo-1.0/a", b"../../etc/passwd"),
    "a link beside the folder": broken_link(b"demo-1.0/a", b"../demo-1.0-evil/x"),
    "a link up behind a step down": broken_link(b"demo-1.0/a", b"b/../c"),
    "a link to nothing": broken_link(b"demo-1.0/a", b""),
    "a link to a drive": broken_link(b"demo-1.0/a", b"c:x"),
    "a link with backslashes": broken_link(b"demo-1.0/a", b"..\\..\\x"),
    "a hard link out of the folder": (
        make_tar_gz(pkg_info(), tar_member(b"demo-1.0/a", kind=b"1", target=b"/etc/passwd")),
        f"'demo-1.0/a' is a hard link to '/etc/passwd'{NOT_BEFORE}",
    ),
    "a hard link to a later file": (
        make_tar_gz(tar_member(b"demo-1.0/a", kind=b"1", target=b"demo-1.0/PKG-INFO"), pkg_info()),
        f"'demo-1.0/a' is a hard link to 'demo-1.0/PKG-INFO'{NOT_BEFORE}",
    ),
    "a hard link to a symbolic link": (
        make_tar_gz(
            pkg_info(),
            tar_member(b"demo-1.0/a", kind=b"2", target=b"PKG-INFO"),
            tar_member(b"demo-1.0/b", kind=b"1", target=b"demo-1.0/a"),
        ),
        f"'demo-1.0/b' is a hard link to 'demo-1.0/a'{NOT_BEFORE}",
    ),
    "no PKG-INFO": (
        make_tar_gz(tar_member(b"demo-1.0/setup.py")),
        "demo-1.0/PKG-INFO is missing; every sdist must have it",
    ),
    "PKG-INFO deeper down": (
        make_tar_gz(tar_member(b"demo-1.0/src/PKG-INFO", PKG_INFO)),
        "demo-1.0/PKG-INFO is missing; every sdist must have it",
    ),
    "PKG-INFO that is a link": (
        make_tar_gz(
            tar_member(b"demo-1.0/a", PKG_INFO),
            tar_member(b"demo-1.0/PKG-INFO", kind=b"2", target=b"a"),
        ),
        "demo-1.0/PKG-INFO is missing; every sdist must have it",
    ),
    "PKG-INFO that is too large": (
        make_tar_gz(pkg_info(b"x" * (2**24 + 1))),
        f"'demo-1.0/PKG-INFO' has {2**24 + 1} bytes; at most {2**24} are accepted",
    ),
    "two top folders": (
        make_tar_gz(pkg_info(), tar_member(b"._demo-1.0")),
        "an sdist must have exactly one top folder, but this one has ._demo-1.0, demo-1.0",
    ),
    "another top folder": (
        make_tar_gz(tar_member(b"evil-1.0/PKG-INFO")),
        f"the top folder 'evil-1.0' {NOT_THE_TOP}",
    ),
}


@pytest.mark.parametrize(("content", "sentence"), BAD_TARS.values(), ids=BAD_TARS)
def test_a_tar_sdist_with_a_fault_is_refused(check: Check, content: bytes, sentence: str) -> None:
    assert refusal(check, SDIST, content) == sentence


@pytest.mark.parametrize(
    "name", [n for n in UNSAFE_NAMES if n[:2] != "./" and "\0" not in n], ids=repr
)
def test_a_tar_member_that_leaves_its_folder_is_refused(check: Check, name: str) -> None:
    content = make_tar_gz(pkg_info(), tar_member(name.encode()))
    assert refusal(check, SDIST, content) == f"the member name {name!r}{NOT_RELATIVE}"


def test_links_cannot_be_chained_out_of_the_folder(check: Check) -> None:
    # `up` stays inside. The path of `out` looks as if it did too, but not if `up` is followed.
    content = make_tar_gz(
        pkg_info(),
        tar_member(b"demo-1.0/a/b/up", kind=b"2", target=b"../.."),
        tar_member(b"demo-1.0/out", kind=b"2", target=b"a/b/up/../../etc"),
    )
    assert refusal(check, SDIST, content) == (
        "the symbolic link 'demo-1.0/out' to 'a/b/up/../../etc' must stay inside 'demo-1.0', "
        "with '..' only at its beginning"
    )


def test_a_tar_bomb_is_stopped_in_constant_memory(check: Check) -> None:
    content = make_tar_gz(pkg_info(), tar_member(b"demo-1.0/zeros", b"\0" * (65 * 2**20)))
    with at_most(8):
        sentence = refusal(check, SDIST, content)
    assert sentence == (
        f"it unpacks to more than {64 * 2**20} bytes, which is the limit for its size"
    )


@pytest.mark.needs("time")
def test_the_names_in_an_sdist_are_limited_together(check: Check) -> None:
    links = [
        tar_member(b"L", b"a" * (2**20 - 1) + b"\0", kind=b"K")
        + tar_member(b"demo-1.0/%d" % number, kind=b"2")
        for number in range(17)
    ]
    assert refusal(check, SDIST, make_tar_gz(pkg_info(), *links)) == (
        "the targets of all links together have more than 16777216 characters, which is the limit"
    )
    longest = [
        pax((b"path", b"demo-1.0/%01014d" % number)) + tar_member(b"x") for number in range(16_400)
    ]
    assert refusal(check, SDIST, make_tar_gz(pkg_info(), *longest)) == (
        "an archive may have at most 200000 members, with names of 16777216 characters together"
    )
