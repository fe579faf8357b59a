"""Entries in the form in which we write them are read as a parser of TOML reads them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import example, given
from hypothesis import strategies as st

from private_pypi.errors import InvalidIndex
from private_pypi.index import document_reader
from private_pypi.index.document import EMPTY, IndexEntry, entry_text, new_entry, write_document
from private_pypi.index.document_reader import NamesInMemory, read_document
from private_pypi.index.staging import NamesOnDisk
from private_pypi.index.written_entries import WrittenEntries
from tests.files import make_file

KEY = "package_path"
WRITTEN = WrittenEntries(KEY)

# What needs an escape, what looks like TOML, and what other characters there are.
TEXTS = st.text(
    st.sampled_from("a\"\\\b\f\n\r\t\x00\x1f\x7f\x80é\u2028\U0001f40d[]=#' ") | st.characters(),
    max_size=12,
).filter(lambda text: text.isascii() or text.encode(errors="replace").decode() == text)
MAYBE = st.none() | TEXTS


@st.composite
def entries(draw: st.DrawFn) -> IndexEntry:
    file = make_file(
        "demo-1.0-py3-none-any.whl",
        size=draw(st.integers(0, 10**18 - 1)),
        location=draw(TEXTS),
        requires_python=draw(MAYBE),
        yanked=draw(MAYBE),
        core_metadata_sha256=draw(MAYBE),
        uploaded_at=draw(st.none() | st.just(make_file("a-1.0.zip").uploaded_at)),
    )
    entry = new_entry(file, stamp=draw(MAYBE))
    return replace(entry, meta=draw(st.dictionaries(TEXTS, TEXTS, max_size=3)))


def text_of(array: str, entry: IndexEntry) -> str:
    text = entry_text(entry, backend_type="file_system", location_key=KEY)
    return f"[[{array}]]\n{text}\n".replace("\n[pkgs.meta]\n", f"\n[{array}.meta]\n")


def parsed(text: str) -> dict[str, Any] | None:
    """What the parser makes of a text; None if it refuses it."""
    try:
        return tomli.loads(text)
    except (ValueError, RecursionError):
        return None


PIECES = st.lists(
    st.builds(text_of, st.sampled_from(["pkgs", "more_pkgs"]), entries()), min_size=1, max_size=3
).map("".join)


@given(PIECES)
def test_what_we_write_is_read_without_the_parser(text: str) -> None:
    found = WRITTEN.tables(text)
    assert found is not None
    assert found == tomli.loads(text)
    # The order of what is for people is kept when the document is written again.
    for array, tables in found.items():
        expected = tomli.loads(text)[array]
        assert [list(each["meta"]) for each in tables] == [list(each["meta"]) for each in expected]


SNIPPETS = st.sampled_from(
    [
        *('"', "\\", "\n", "\r\n", "\t", " ", "'", '"""', "'''", "=", "[", "]", "#", "0", "_", "é"),
        *("\\u00e9", "\\u00E9", "\\ud800", "\\/", "\\x41", "\\u0", "\\U0001F40D", "\\e", "\x00"),
        *(
            "size = 1\n",
            "yanked = true\n",
            "yanked = false\n",
            'more = "x"\n',
            '"name" = "twice"\n',
        ),
        *("[[pkgs]]\n", "[pkgs.meta]\n", "[pkgs]\n", "[[deleted]]\n", "true", "-", "1e3", "٣"),
    ]
)


@given(PIECES, st.data())
def test_what_was_changed_is_read_as_by_the_parser_or_left_to_it(
    text: str, data: st.DataObject
) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        first = data.draw(st.integers(0, len(text)))
        last = min(len(text), first + data.draw(st.integers(0, 3)))
        text = text[:first] + data.draw(st.just("") | SNIPPETS) + text[last:]
    found = WRITTEN.tables(text)
    assert found is None or found == parsed(text)


@pytest.mark.parametrize(
    "change",
    [
        ('"name" = "demo"\n', '"name" = "demo"\n"name" = "demo"\n'),  # refused: twice
        ('"name" = "demo"\n', '"name" = "\\ud800"\n'),  # JSON only
        ('"name" = "demo"\n', '"name" = "\\/"\n'),  # JSON only
        ('"name" = "demo"\n', '"name" = "\x7f"\n'),  # refused: a control character
        ('"name" = "demo"\n', '"name" = "\t"\n'),  # TOML only
        ('"name" = "demo"\n', "\"name\" = 'demo'\n"),  # TOML only
        ("size = ", "size = 0"),
        ("size = ", "size = +"),
        ("[pkgs.meta]", "[more_pkgs.meta]"),
        ("type = ", "other = 1\ntype = "),
        ("\n[pkgs.meta]", "[pkgs.meta]"),
    ],
)
def test_another_form_is_left_to_the_parser(change: tuple[str, str]) -> None:
    text = text_of("pkgs", new_entry(make_file("demo-1.0-py3-none-any.whl"), stamp="s"))
    assert WRITTEN.tables(text) is not None
    assert change[0] in text
    assert WRITTEN.tables(text.replace(*change)) is None


# -- pieces --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 40, 700, 2**18])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_document_says_the_same_in_pieces_of_every_size(
    size: int, line_end: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [make_file(f"demo-{n}.0{end}") for n in range(9) for end in (".tar.gz", ".zip")]
    document = replace(
        EMPTY, mtime=5, entries=tuple(new_entry(each, stamp='"s"') for each in files)
    )
    path = tmp_path / "index.toml"
    write_document(document, path, backend_type="file_system", location_key=KEY)
    path.write_bytes(path.read_bytes().replace(b"\n", line_end))
    whole = read_document(path, location_key=KEY)
    assert {each.file.filename: each.file for each in whole[0].entries} == {
        each.filename: each for each in files
    }
    monkeypatch.setattr(document_reader, "_PIECE", size)
    assert read_document(path, location_key=KEY) == whole


HIDING = '''
mtime = 5

[[pkgs]]
type = "t"
distrib = "demo"
package = "demo-1.0"
ext = "zip"
sha256 = "{hash}"
package_path = "p"
size = 1
stamp = """
[[pkgs]]
"""

[[pkgs]]
type = "t"
distrib = "demo"
package = "demo-2.0"
ext = "zip"
sha256 = "{hash}"
package_path = "p"
size = 1
'''.format(hash="0" * 64)


def test_a_header_inside_a_string_is_no_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.toml"
    path.write_text(HIDING)
    monkeypatch.setattr(document_reader, "_PIECE", 1)
    document, problems = read_document(path, location_key=KEY)
    assert problems == ()
    assert [(each.file.filename, each.stamp) for each in document.entries] == [
        ("demo-1.0.zip", "[[pkgs]]\n"),
        ("demo-2.0.zip", None),
    ]
    path.write_text(HIDING + "broken")
    with pytest.raises(InvalidIndex, match=rf"line {HIDING.count(chr(10)) + 1}, "):
        read_document(path, location_key=KEY)


def test_quotes_in_a_summary_do_not_make_a_document_be_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quoted = [make_file(f"demo-{number}.0.zip", summary="'''") for number in range(20)]
    document = replace(EMPTY, entries=tuple(new_entry(each, stamp=None) for each in quoted))
    path = tmp_path / "index.toml"
    write_document(document, path, backend_type="file_system", location_key=KEY)
    longest = 0

    def tables(_: WrittenEntries, text: str) -> None:
        nonlocal longest
        longest = max(longest, len(text))

    monkeypatch.setattr(document_reader, "_PIECE", 100)
    monkeypatch.setattr(WrittenEntries, "tables", tables)
    assert len(read_document(path, location_key=KEY)[0].entries) == 20
    assert longest < path.stat().st_size / 10


# -- names ---------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abcdefé\U0001f40d")))
@example(["a", "c", "b", "c", "d"])
def test_a_name_is_new_once_in_any_order(names: list[str]) -> None:
    memory = NamesInMemory()
    with closing(sqlite3.connect(":memory:")) as connection:
        disk = NamesOnDisk(connection, "names")
        for name in names:
            assert disk.add(name) == memory.add(name)
        for name in "abcxé":
            assert (name in disk) == (name in memory)
