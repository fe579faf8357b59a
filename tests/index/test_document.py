"""`index.toml`: what 0.2 wrote is read, and what is written can be read by 0.2."""

from __future__ import annotations

import hashlib
import re
import string
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from private_pypi.errors import InvalidIndex
from private_pypi.index.document import (
    EMPTY,
    IndexDocument,
    IndexEdit,
    IndexEntry,
    UnexaminedEntry,
    new_entry,
    write_document,
)
from private_pypi.index.document_reader import read_document
from private_pypi.model import BurntName, DistributionFile
from tests.files import NOON, make_file

OLD_INDEX = Path(__file__).parents[1] / "data" / "index-0.2.toml"


def file(filename: str = "demo-1.0-py3-none-any.whl", **changes: object) -> DistributionFile:
    facts: dict[str, object] = {
        "size": 1234,
        "core_metadata_sha256": hashlib.sha256(b"metadata").hexdigest(),
        "location": f"/storage/demo/{filename}",
    }
    return make_file(filename, **{**facts, **changes})


def written(document: IndexDocument, folder: Path) -> Path:
    path = folder / "index.toml"
    write_document(document, path, backend_type="file_system", location_key="package_path")
    return path


def read(path: Path, location_key: str = "package_path") -> IndexDocument:
    document, problems = read_document(path, location_key=location_key)
    assert problems == ()
    return document


# -- 0.2 -----------------------------------------------------------------------------------------


class Reader02:
    """A reader with the rules of private-pypi 0.2 (seed 1.6, 1.13): as strict, as easily killed."""

    def __init__(self, text: str, backend_type: str, location_key: str) -> None:
        tables = tomli.loads(text)
        self.mtime = tables["mtime"]
        assert type(self.mtime) is int
        self.packages: dict[str, dict[str, object]] = {}
        for table in tables["pkgs"]:
            for key in ("type", "distrib", "package", "ext", "sha256", location_key):
                assert isinstance(table[key], str), key
            assert table["type"] == backend_type
            assert table["distrib"] == canonicalize_name(table["distrib"])
            assert not table["ext"].startswith(".")
            assert all(isinstance(value, str) for value in table["meta"].values())
            assert table["package"] not in self.packages, "duplicate key: the server is dead"
            self.packages[table["package"]] = table


def test_a_real_index_of_0_2_loads_whole() -> None:
    document = read(OLD_INDEX, "url")
    assert document.mtime == 1594491762
    assert document.entries == ()
    assert len(document.unexamined) == 42
    assert document.unexamined[0].filename == "pywharf-0.2.3-py3-none-any.whl"
    assert document.unexamined[0].location.endswith("/releases/assets/22790093")
    assert document.unexamined[0].sha256.startswith("13e225746919015b")
    assert document.unexamined[0].meta["summary"].startswith("A private PyPI server")


def test_entries_of_0_2_are_written_back_without_their_descriptions(tmp_path: Path) -> None:
    old = read(OLD_INDEX, "url")
    path = tmp_path / "index.toml"
    write_document(old, path, backend_type="github", location_key="url")
    assert "description =" not in path.read_text()
    assert path.stat().st_size < OLD_INDEX.stat().st_size
    again = read(path, "url")
    assert sorted(again.unexamined, key=lambda e: e.filename) == sorted(
        old.unexamined, key=lambda e: e.filename
    )


def test_0_2_reads_what_we_write(tmp_path: Path) -> None:
    document = IndexDocument(
        mtime=1_700_000_000,
        entries=(
            new_entry(file(yanked="broken"), stamp="1:2"),
            new_entry(file("demo-1.0.tar.gz", core_metadata_sha256=None), stamp=None),
            new_entry(file("demo-1.0.zip", yanked=""), stamp="3"),
        ),
        deleted=(burnt("demo-0.9.tar.gz"),),
        former_projects=(canonicalize_name("gone"),),
    )
    reader = Reader02(written(document, tmp_path).read_text(), "file_system", "package_path")
    assert reader.mtime == 1_700_000_000
    # Two files of one stem kill a 0.2 server: it sees the first.
    assert sorted(reader.packages) == ["demo-1.0", "demo-1.0-py3-none-any"]
    assert reader.packages["demo-1.0"]["ext"] == "tar.gz"


def test_0_2_reads_an_empty_index(tmp_path: Path) -> None:
    reader = Reader02(written(EMPTY, tmp_path).read_text(), "file_system", "package_path")
    assert reader.packages == {}


# -- the round trip ------------------------------------------------------------------------------


def burnt(filename: str) -> BurntName:
    return BurntName(
        project=canonicalize_name("demo"), filename=filename, sha256="0" * 64, deleted_at=NOON
    )


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
hashes = st.binary(max_size=3).map(lambda seed: hashlib.sha256(seed).hexdigest())
times = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)


@st.composite
def files(draw: st.DrawFn) -> DistributionFile:
    project = draw(st.sampled_from(["demo", "demo-extra", "a"]))
    version = draw(st.sampled_from(["1.0", "2!1.0.post1", "1.0+local.1"]))
    stem = f"{project.replace('-', '_')}-{version}"
    suffix = draw(st.sampled_from(["-py3-none-any.whl", ".tar.gz", ".zip"]))
    return DistributionFile(
        project=canonicalize_name(project),
        filename=stem + suffix,
        version=version,
        size=draw(st.integers(0, 2**40)),
        sha256=draw(hashes),
        uploaded_at=draw(st.none() | times),
        requires_python=draw(st.none() | texts.filter(bool)),
        yanked=draw(st.none() | texts),
        core_metadata_sha256=draw(st.none() | hashes),
        location=draw(texts),
    )


entries = st.builds(
    IndexEntry,
    file=files(),
    stamp=st.none() | texts,
    meta=st.dictionaries(texts.filter(lambda key: key != "description"), texts, max_size=3),
    extra=st.dictionaries(
        st.text(string.ascii_lowercase, min_size=1).map(lambda key: f"x_{key}"),
        texts | st.integers(-(2**60), 2**60) | st.booleans(),
        max_size=2,
    ),
)


@given(
    st.builds(
        IndexDocument,
        mtime=st.integers(0, 2**36),
        entries=st.lists(entries, max_size=8, unique_by=lambda entry: entry.file.filename).map(
            lambda found: tuple(sorted(found, key=lambda entry: entry.file.filename))
        ),
        deleted=st.lists(
            st.builds(
                BurntName,
                project=st.just(canonicalize_name("demo")),
                filename=texts,
                sha256=texts,
                deleted_at=times,
            ),
            max_size=2,
            unique_by=lambda name: name.filename,
        ).map(tuple),
        former_projects=st.sampled_from([(), ("a", "b")]),
    )
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, document: IndexDocument
) -> None:
    path = written(document, tmp_path_factory.mktemp("index"))
    again = read(path)
    assert sorted(again.entries, key=lambda entry: entry.file.filename) == list(document.entries)
    assert set(again.deleted) == set(document.deleted)
    assert again.former_projects == document.former_projects
    assert again.mtime == document.mtime
    Reader02(path.read_text(), "file_system", "package_path")


def test_a_summary_is_where_02_had_it(tmp_path: Path) -> None:
    entry = new_entry(file(summary='a "demo" of\x7fdemos'), stamp="1")
    assert entry.meta["summary"] == 'a "demo" of\x7fdemos'
    path = written(IndexDocument(mtime=1, entries=(entry,)), tmp_path)
    shown = replace(entry.file, summary='a "demo" of\ufffddemos')
    assert read(path).entries == (replace(entry, file=shown),)


def test_equal_documents_make_equal_bytes(tmp_path: Path) -> None:
    one = new_entry(file(), stamp="1")
    two = new_entry(file("demo-2.0.tar.gz"), stamp="2")
    first = written(IndexDocument(mtime=1, entries=(one, two)), tmp_path).read_bytes()
    assert written(IndexDocument(mtime=1, entries=(two, one)), tmp_path).read_bytes() == first


def test_an_entry_is_small(tmp_path: Path) -> None:
    entry = new_entry(file(), stamp="1234:1700000000000000000")
    path = written(IndexDocument(mtime=1, entries=(entry,)), tmp_path)
    assert path.stat().st_size < 650


# -- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ('ext = "tar.gz"', 'ext = "exe"', "must end with .whl, .tar.gz or .zip"),
        ("size = 1234", "size = -1", "`size` is not a number of bytes: -1"),
        ("size = 1234", 'size = "1"', "`size` is not a number of bytes"),
        (r'sha256 = "[0-9a-f]+"', 'sha256 = "beef"', "`sha256` is not a SHA-256"),
        (r'sha256 = "[0-9a-f]+"', "sha256 = 5", "`sha256` is not a string: 5"),
        (r"package_path = .*", "", "`package_path` is missing"),
        (r"uploaded_at = .*", 'uploaded_at = "yesterday"', "`uploaded_at`"),
        (r"requires_python = .*", "yanked = 3", "`yanked` is neither true nor a reason: 3"),
        ('package = "demo-1.0"', 'package = "demo-2.0"', "is there twice"),
    ],
)
def test_a_broken_entry_is_reported_and_the_others_are_read(
    tmp_path: Path, before: str, after: str, sentence: str
) -> None:
    good = new_entry(file("demo-2.0.tar.gz"), stamp="2")
    bad = new_entry(file("demo-1.0.tar.gz"), stamp="1")
    path = written(IndexDocument(mtime=7, entries=(good, bad)), tmp_path)
    head, first, second = path.read_text().split("\n[[pkgs]]\n")
    broken = re.sub(before, after, first, count=1)
    assert broken != first
    path.write_text("\n[[pkgs]]\n".join([head, broken, second]))
    document, problems = read_document(path, location_key="package_path")
    assert len(problems) == 1
    assert sentence in problems[0]
    assert "[[pkgs]] number" in problems[0]
    assert len(document.entries) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mtime = 1\npkgs = [}\n", "index.toml, line 2, column"),
        ("pkgs = []\n", "no `mtime`"),
        ("mtime = 1\n", "no `pkgs`"),
        ("mtime = 1\npkgs = 3\n", "`pkgs` is not an array of tables"),
        ("mtime = 1\npkgs = [3]\n", "`pkgs` is not an array of tables"),
        ("mtime = 1\npkgs = []\nformer_projects = [1]\n", "`former_projects`"),
        ('mtime = 1\npkgs = []\n[[deleted]]\nfilename = "a-1.0.zip"\n', "[[deleted]] number 1"),
        ("mtime = 1\npkgs = []\nx = " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("mtime = 1\npkgs = []\nx = " + "{a = " * 3000 + "1" + "}" * 3000, "nested too deeply"),
        ("mtime = 1\npkgs = []\n" + "a." * 30_000 + "a = 1\n", "nested too deeply"),
        (f"mtime = {'9' * 5000}\npkgs = []\n", "a number or a time that is out of range"),
        (f"mtime = 0x{'f' * 5000}\npkgs = []\n", "`mtime` is not a time in unix seconds"),
        (f"mtime = {2**63}\npkgs = []\n", "`mtime` is not a time in unix seconds"),
        (f"mtime = -{2**63}\npkgs = []\n", "`mtime` is not a time in unix seconds"),
        (f"mtime = 1\npkgs = []\nformer_projects = 0x{'f' * 5000}\n", "`former_projects`"),
        (f"mtime = 1\npkgs = []\n[[deleted]]\nfilename = 0x{'f' * 5000}\ndistrib = 'a'",
         "[[deleted]] number 1: `filename` is not a string: a number of more than 64 bits"),
    ],
    ids=range(16),
)  # fmt: skip
def test_a_damaged_document_is_an_error_that_says_where(
    tmp_path: Path, text: str, sentence: str
) -> None:
    # A broken burnt name must not come free: the whole document is refused.
    path = tmp_path / "index.toml"
    path.write_text(text)
    with pytest.raises(InvalidIndex, match=re.escape(sentence)):
        read_document(path, location_key="package_path")


HUGE = f"0x{'f' * 5000}"  # which Python reads, and does not write as decimal digits


def test_numbers_that_nobody_can_hold_break_their_entry_alone(tmp_path: Path) -> None:
    path = tmp_path / "index.toml"
    entry = f'package = "a-1.0"\next = "zip"\nsha256 = "{"a" * 64}"\npackage_path = "x"\n'
    texts = {
        f"size = {2**63}": "'a-1.0.zip': `size` is not a number of bytes: "
        "a number of more than 64 bits",
        f"size = {HUGE}": "'a-1.0.zip': `size` is not a number of bytes: "
        "a number of more than 64 bits",
        "size = 1\nyanked = [[[]]]": "'a-1.0.zip': `yanked` is neither true nor a reason: an array",
        f"size = 1\nuploaded_at = {HUGE}": "`uploaded_at` is not a string: "
        "a number of more than 64 bits",
        "size = 1\ncore_metadata_sha256 = 1979-05-27": "`core_metadata_sha256` is not a string: "
        "datetime.date(1979, 5, 27)",
    }
    for text, problem in texts.items():
        path.write_text(f"mtime = 1\n[[pkgs]]\n{entry}{text}\n")
        assert read_document(path, location_key="package_path") == (
            IndexDocument(mtime=1, skipped=("a-1.0.zip",)),
            (f"index.toml, [[pkgs]] number 1: {problem}",),
        )
    path.write_text(f"mtime = 1\n[[pkgs]]\n{entry}size = {2**63 - 1}\nnew = {HUGE}\nmore = 7\n")
    document, problems = read_document(path, location_key="package_path")
    assert problems == ()
    assert [entry.extra for entry in document.entries] == [{"more": 7}]
    written = tmp_path / "new.toml"
    write_document(document, written, backend_type="file_system", location_key="package_path")
    assert read_document(written, location_key="package_path") == (document, ())


def test_of_many_broken_entries_the_first_are_told(tmp_path: Path) -> None:
    path = tmp_path / "index.toml"
    path.write_text(
        "mtime = 1\n" + f'[[pkgs]]\npackage = "{"x" * 999}\\u001b"\next = "zip"\n' * 1500
    )
    document, problems = read_document(path, location_key="package_path")
    assert document == IndexDocument(mtime=1)  # no name of a file is that long
    assert len(problems) == 1001
    assert max(map(len, problems)) <= 300
    assert problems[-1] == "index.toml: 500 further entries are broken"


def test_a_document_of_any_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "index.toml"
    with path.open("wb") as file:
        file.truncate(2**40)  # which takes no space
    with pytest.raises(InvalidIndex) as error:
        read_document(path, location_key="package_path")
    assert str(error.value) == f"index.toml has {2**40} bytes; at most {2**30} can be read"


def test_a_document_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "index.toml"
    path.write_bytes(b"mtime = 1\npkgs = []\n# \xff\n")
    with pytest.raises(InvalidIndex, match="not UTF-8"):
        read_document(path, location_key="package_path")


# -- edits ---------------------------------------------------------------------------------------


def edit(**changes: object) -> IndexEdit:
    return IndexEdit(**{"at": NOON, **changes})  # type: ignore[arg-type]


def test_a_yank_changes_one_entry_and_can_be_undone() -> None:
    one, two = file(), file("demo-2.0.tar.gz")
    document = IndexDocument(
        mtime=5, entries=(new_entry(one, stamp="1"), new_entry(two, stamp="2"))
    )
    yanked = document.edited(edit(yank={one.filename: "bad"}))
    assert [entry.file.yanked for entry in yanked.entries] == ["bad", None]
    assert yanked.mtime == 5  # an edit is no listing
    assert yanked.edited(edit(yank={one.filename: None})) == document


def test_an_edit_adds_the_entries_that_are_missing() -> None:
    old = UnexaminedEntry(filename=file().filename, location="x", sha256="y", meta={})
    document = IndexDocument(mtime=0, unexamined=(old,))
    edited = document.edited(edit(yank={file().filename: ""}, files=(file(),)))
    assert edited == IndexDocument(mtime=0, entries=(new_entry(file(yanked=""), stamp=None),))


def test_a_yank_of_an_unknown_file_is_passed_over() -> None:
    assert EMPTY.edited(edit(yank={"demo-1.0.tar.gz": ""})) == EMPTY


def test_a_delete_burns_the_name_and_remembers_the_project() -> None:
    document = IndexDocument(mtime=1, entries=(new_entry(file(), stamp="1"),))
    edited = document.edited(edit(delete=(file(),)))
    name = BurntName(
        project=file().project, filename=file().filename, sha256=file().sha256, deleted_at=NOON
    )
    assert edited == IndexDocument(mtime=1, deleted=(name,), former_projects=(file().project,))
    assert edited.edited(edit(delete=(file(),))) == edited


def test_a_document_is_the_same_in_pieces_and_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"demo-{number}.0.{ext}" for number in range(9) for ext in ("tar.gz", "zip")]
    document = IndexDocument(
        mtime=7,
        entries=tuple(new_entry(make_file(name), stamp="1") for name in names),
        deleted=(
            BurntName(
                project=file().project, filename="demo-9.0.zip", sha256="0" * 64, deleted_at=NOON
            ),
        ),
    )
    path = written(document, tmp_path)
    whole = read_document(path, location_key="package_path")
    assert {entry.file.filename for entry in whole[0].entries} == set(names)
    monkeypatch.setattr("private_pypi.index.document_reader._PIECE", 1)
    assert read_document(path, location_key="package_path") == whole
    text = path.read_text()
    # A header inside a string of several lines is none.
    path.write_text(text + "\n[extra]\nkey = '''\n[[pkgs]]\nno = table\n'''\n")
    assert read_document(path, location_key="package_path") == whole
    path.write_text(text + "x = = 1\n")
    line = text.count("\n") + 1
    with pytest.raises(InvalidIndex, match=f"line {line}, column 5"):
        read_document(path, location_key="package_path")
