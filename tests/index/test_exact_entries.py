"""Entries that are copied as they are have the columns that they have when they are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from private_pypi.index.document import EMPTY, IndexEntry, entry_text, new_entry, write_document
from private_pypi.index.document_reader import DocumentReader, NamesInMemory, read_document
from private_pypi.index.draft import EntryRow, entry_row
from private_pypi.index.exact_entries import ExactEntries, ExactEntry
from private_pypi.model import DistributionFile
from tests.files import make_file
from tests.index.test_written_entries import KEY, SNIPPETS

TYPE = "file_system"
EXACT = ExactEntries(TYPE, KEY)
FILENAMES = (
    "demo-1.0-py3-none-any.whl",
    "demo-1.0.0.post1.tar.gz",
    "demo-1!2.0+local.1.zip",
    "Demo_x-1-py2.py3-none-any.whl",
)
PLAIN = st.text("abc ABC>=3.,#'[]é\U0001f40d=?UNKNOWN", min_size=1, max_size=12)
MAYBE = st.none() | PLAIN


@st.composite
def files(draw: st.DrawFn) -> DistributionFile:
    return make_file(
        draw(st.sampled_from(FILENAMES)),
        size=draw(st.integers(0, 10**18 - 1)),
        location=draw(PLAIN),
        requires_python=draw(MAYBE),
        yanked=draw(st.none() | st.just("") | PLAIN),
        core_metadata_sha256=draw(st.none() | st.just("0" * 64)),
        uploaded_at=draw(st.none() | st.just(make_file("a-1.0.zip").uploaded_at)),
        summary=draw(MAYBE),
        published_name=draw(st.none() | st.sampled_from(["Demo", "DEMO.x", "other"])),
        keywords=draw(MAYBE),
    )


ENTRIES = st.builds(new_entry, files(), stamp=MAYBE)


def text_of(array: str, entry: IndexEntry) -> str:
    text = entry_text(entry, backend_type=TYPE, location_key=KEY)
    return f"[[{array}]]\n{text}\n".replace("\n[pkgs.meta]\n", f"\n[{array}.meta]\n")


PIECES = st.lists(
    st.builds(text_of, st.sampled_from(["pkgs", "more_pkgs"]), ENTRIES), min_size=1, max_size=3
).map("".join)


def rows_of(text: str, folder: Path) -> list[EntryRow]:
    """What the other reader finds in the entries of a piece, each by itself."""
    path = folder / "index.toml"
    rows = []
    for array, tables in tomli.loads(text).items():
        assert array in ("pkgs", "more_pkgs")
        for number in range(len(tables)):
            path.write_text(f"mtime = 1\npkgs = []\n{_only(text, array, number)}", newline="\n")
            reader = DocumentReader(path, location_key=KEY, names=NamesInMemory())
            rows += [entry_row(each, TYPE, KEY) for each in _entries(reader)]
            assert reader.problems() == ()
    return rows


def _only(text: str, array: str, number: int) -> str:
    """One entry of a piece, as an entry of the other array, which does not matter here."""
    entry = text.split(f"[[{array}]]\n")[number + 1].split("\n[[")[0]
    return f"[[more_pkgs]]\n{entry.replace('[pkgs.meta]', '[more_pkgs.meta]', 1)}\n"


def _entries(reader: DocumentReader) -> list[IndexEntry]:
    found = list(reader.entries())
    assert all(isinstance(each, IndexEntry) for each in found)
    return [each for each in found if isinstance(each, IndexEntry)]


def exact_rows(found: list[ExactEntry]) -> list[EntryRow]:
    return [entry_row(each, TYPE, KEY) for each in found]


@given(PIECES)
def test_what_we_write_is_taken_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    found = EXACT.entries(text)
    assert found is not None
    expected = rows_of(text, tmp_path_factory.getbasetemp())
    assert sorted(exact_rows(found), key=repr) == sorted(expected, key=repr)


MORE_SNIPPETS = st.sampled_from(
    [
        *("24:00:00", "2026-02-30", "+00:00", "000000Z", "0000", "pkgs", "more_pkgs", "tar.gz"),
        *('""', "Demo", "demo", "file_system", "F", "f", "true", '"true"', "1.0", "wheel"),
        '"keywords" = "a"\n',
        '"summary" = "a"\n',
        '"description" = "a"\n',
        'requires_python = ""\n',
        'yanked = ""\n',
    ]
)


@settings(max_examples=300)
@given(PIECES, st.data())
def test_what_was_changed_is_found_as_by_the_other_reader_or_left_to_it(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: st.DataObject
) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        first = data.draw(st.integers(0, len(text)))
        last = min(len(text), first + data.draw(st.integers(0, 8)))
        text = text[:first] + data.draw(st.just("") | SNIPPETS | MORE_SNIPPETS) + text[last:]
    found = EXACT.entries(text)
    if found:
        expected = rows_of(text, tmp_path_factory.getbasetemp())
        assert sorted(exact_rows(found), key=repr) == sorted(expected, key=repr)


WRITTEN = text_of(
    "pkgs",
    new_entry(make_file("demo-1.0.zip", yanked="why", summary="A b", keywords="c"), stamp="s"),
)


@pytest.mark.parametrize(
    "change",
    [
        ('type = "file_system"', 'type = "other"'),
        ('distrib = "demo"', 'distrib = "Demo"'),
        ('package = "demo-1.0"', 'package = "demo"'),
        ('ext = "zip"', 'ext = "egg"'),
        ('sha256 = "', 'sha256 = "A'),
        ("size = ", "size = 0"),
        ('requires_python = ">=3.8"', 'requires_python = ""'),
        ('yanked = "why"', 'yanked = ""'),
        ('yanked = "why"', 'yanked = "\\u0077hy"'),
        ('yanked = "why"', "yanked = false"),
        ("T12:", "T24:"),
        ('Z"\n', '+00:00"\n'),
        ('Z"\n', '0Z"\n'),
        ('stamp = "s"\n', 'stamp = "s"\nother = 1\n'),
        ('"summary" = "A b"\n', '"summary" = "A b"\n"summary" = "A b"\n'),
        ('"summary" = "A b"\n', '"description" = "A b"\n'),
        ('"keywords" = "c"\n', '"other" = "c"\n'),
    ],
)
def test_another_form_is_left_to_the_other_reader(change: tuple[str, str]) -> None:
    assert EXACT.entries(WRITTEN) is not None
    assert change[0] in WRITTEN
    assert EXACT.entries(WRITTEN.replace(*change, 1)) is None


def test_a_day_that_does_not_exist_is_left_to_the_other_reader() -> None:
    day = str(make_file("a-1.0.zip").upload_time)[:10]
    assert EXACT.entries(WRITTEN.replace(day, f"{day[:4]}-02-28")) is not None
    assert EXACT.entries(WRITTEN.replace(day, f"{day[:4]}-02-30")) is None


def test_an_entry_that_is_there_twice_is_broken_for_both_readers(tmp_path: Path) -> None:
    entries = [new_entry(make_file(f"demo-{number}.0.zip"), stamp=None) for number in range(3)]
    path = tmp_path / "index.toml"
    document = replace(EMPTY, entries=(*entries, entries[1]))
    write_document(document, path, backend_type=TYPE, location_key=KEY)
    reader = DocumentReader(path, location_key=KEY, names=NamesInMemory())
    found = list(reader.entries_or_exact(EXACT))
    assert {type(each) for each in found} == {ExactEntry}
    assert [each.filename for each in found if isinstance(each, ExactEntry)] == [
        each.file.filename for each in entries
    ]
    expected, problems = read_document(path, location_key=KEY)
    assert reader.rest() == replace(expected, entries=())
    assert reader.problems() == problems
    assert len(problems) == 1
