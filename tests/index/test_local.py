"""The local index: many threads and processes, and every way to lose the file."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name
from packaging.version import Version

from private_pypi.errors import BackendUnavailable, FilenameBurnt
from private_pypi.index.identity import Identity
from private_pypi.index.local import LocalIndex, ProjectLine, SyncState
from private_pypi.index.reconciling import Reconciliation
from private_pypi.index.rows import microseconds, version_key
from private_pypi.model import BurntName, DistributionFile, format_microseconds, format_time
from private_pypi.pages.simple_api import Representation, project_detail, project_of_rows
from tests.files import NOON, make_file

DEMO = canonicalize_name("demo")


def file(filename: str = "demo-1.0.tar.gz", **changes: object) -> DistributionFile:
    return make_file(
        filename, **{"location": f"/storage/{filename}", "summary": "a demo", **changes}
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@pytest.fixture
def index(path: Path) -> LocalIndex:
    return LocalIndex(path, identity="mine")


def finish(index: LocalIndex, scratch: Path, *, now: float = 5.0) -> None:
    with Reconciliation(index, scratch) as changes:
        changes.finish("r1", now=now)


# -- order ---------------------------------------------------------------------------------------

numbers = st.integers(0, 120)
versions = st.builds(
    lambda epoch, release, pre, post, dev, local: Version(
        f"{epoch}!" + ".".join(map(str, release)) + pre + post + dev + local
    ),
    st.integers(0, 2),
    st.lists(numbers, min_size=1, max_size=4),
    st.just("") | st.builds("{}{}".format, st.sampled_from(["a", "b", "rc"]), numbers),
    st.just("") | st.builds(".post{}".format, numbers),
    st.just("") | st.builds(".dev{}".format, numbers),
    st.just("")
    | st.lists(
        st.sampled_from(["1", "10", "9", "a", "ab", "b1", "1a"]), min_size=1, max_size=3
    ).map(lambda parts: "+" + ".".join(parts)),
)


@given(versions, versions)
def test_keys_of_versions_sort_as_pep_440_says(one: Version, other: Version) -> None:
    assert (version_key(one) < version_key(other)) == (one < other)
    assert (version_key(one) == version_key(other)) == (one == other)


def test_the_files_of_a_project_come_by_version_and_then_by_name(index: LocalIndex) -> None:
    ordered = [
        "demo-1.0.dev1.tar.gz",
        "demo-1.0rc1.tar.gz",
        "demo-1.0-py3-none-any.whl",
        "demo-1.0.tar.gz",
        "demo-1.0.post1.tar.gz",
        "demo-1.9.tar.gz",
        "demo-1.10.tar.gz",
        "demo-1!0.1.tar.gz",
    ]
    for filename in sorted(ordered):
        index.add_file(file(filename), "1")
    assert [found.filename for found in index.project_files("demo")] == ordered


# -- reading and changing -------------------------------------------------------------------------


def test_a_new_index_is_empty_and_not_ready(index: LocalIndex) -> None:
    assert not index.ready()
    assert index.projects() == []
    assert index.project_files("demo") == ()
    assert index.file("demo-1.0.tar.gz") is None
    assert index.sync_state() == SyncState(None, None, None, None)


def test_a_file_is_read_as_it_was_added(index: LocalIndex) -> None:
    added = file(yanked="why not", uploaded_at=None, core_metadata_sha256="ab" * 32)
    index.add_file(added, "1")
    assert index.file(added.filename) == added
    assert index.project_files("demo") == (added,)
    assert index.projects() == [(DEMO, index.project_serial("demo"))]


@pytest.mark.parametrize("shown", list(Representation))
@pytest.mark.parametrize("base", ["", "demo/"])
@pytest.mark.parametrize("odd", ["demo-2.0.zip", "demo-2.0+cu1.zip"])
def test_a_page_of_rows_says_the_same_as_one_of_whole_files(
    index: LocalIndex, shown: Representation, base: str, odd: str
) -> None:
    long_ago = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    for each in (
        file(),
        file("demo-1.0-py3-none-any.whl", core_metadata_sha256="c" * 64, yanked=""),
        file(odd, yanked='"why" <&>', requires_python=None, uploaded_at=None),
        file("demo-0.9.tar.gz", uploaded_at=long_ago),
    ):
        index.add_file(each, None)
    files, rows = index.project_files("demo"), index.shown_rows("demo")
    page = project_detail(DEMO, files, shown, serial=7, base=base)
    assert project_of_rows(DEMO, rows, shown, serial=7, base=base) == page
    assert page.count("sha256") > 4


@given(st.datetimes(timezones=st.just(UTC)))
def test_the_time_of_a_row_is_that_of_the_file(moment: datetime) -> None:
    assert format_microseconds(microseconds(moment)) == format_time(moment)


def test_a_change_is_seen_by_another_process_at_once(index: LocalIndex, path: Path) -> None:
    index.add_file(file(), "1")
    code = (
        "import sys; from pathlib import Path; from private_pypi.index.local import LocalIndex\n"
        "index = LocalIndex(Path(sys.argv[1]), identity='mine')\n"
        "index.set_yanked(['demo-1.0.tar.gz'], 'seen')\n"
        "print(index.project_files('demo')[0].filename)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "demo-1.0.tar.gz\n"
    assert index.project_files("demo") == (file(yanked="seen"),)


def test_the_serial_of_a_project_grows_with_its_page_and_only_then(index: LocalIndex) -> None:
    index.add_file(file(), "1")
    index.add_file(file("other-1.0.tar.gz"), "1")
    first, other = index.project_serial("demo"), index.project_serial("other")
    index.add_file(file(), "1")  # the same again
    assert index.project_serial("demo") == first
    index.add_file(file(location="/elsewhere"), "2")  # the page does not show where it is
    assert index.project_serial("demo") == first
    assert index.file("demo-1.0.tar.gz") == file(location="/elsewhere")
    index.set_yanked(["demo-1.0.tar.gz"], "")
    second = index.project_serial("demo")
    assert first is not None
    assert second is not None
    assert second > first
    index.remove_files(["demo-1.0.tar.gz"], burn=False, at=NOON)
    third = index.project_serial("demo")
    assert third is not None
    assert third > second
    assert index.serial() >= third
    assert index.project_serial("other") == other


def test_the_same_bytes_again_keep_their_yank(index: LocalIndex) -> None:
    index.add_file(file(), "1")
    index.set_yanked(["demo-1.0.tar.gz"], "broken")
    index.add_file(file(), "1")
    assert index.file("demo-1.0.tar.gz") == file(yanked="broken")
    index.set_yanked(["demo-1.0.tar.gz"], None)
    assert index.file("demo-1.0.tar.gz") == file()


def test_a_project_that_had_files_stays_known(index: LocalIndex) -> None:
    assert index.project_serial("demo") is None
    index.add_file(file(), "1")
    assert index.has_files("demo")
    index.remove_files(["demo-1.0.tar.gz"], burn=False, at=NOON)
    assert not index.has_files("demo")
    assert index.project_serial("demo") is not None
    assert index.projects() == []


def test_a_burnt_name_is_never_used_again(index: LocalIndex) -> None:
    index.add_file(file(), "1")
    index.remove_files(["demo-1.0.tar.gz", "unknown-1.0.tar.gz"], burn=True, at=NOON)
    assert index.file("demo-1.0.tar.gz") is None
    assert index.burnt("demo-1.0.tar.gz") == BurntName(
        project=DEMO, filename="demo-1.0.tar.gz", sha256=file().sha256, deleted_at=NOON
    )
    assert index.burnt("demo-2.0.tar.gz") is None
    with pytest.raises(FilenameBurnt):
        index.add_file(file(), "2")
    assert index.file("demo-1.0.tar.gz") is None


def test_a_failed_change_leaves_nothing_behind(index: LocalIndex) -> None:
    index.add_file(file(), "1")
    index.remove_files(["demo-1.0.tar.gz"], burn=True, at=NOON)
    before = index.serial()
    with pytest.raises(FilenameBurnt):
        index.add_file(file(), "2")
    assert index.serial() == before
    index.add_file(file("demo-2.0.tar.gz"), "1")  # no transaction was left open


def test_sixteen_threads_add_and_nothing_is_lost(index: LocalIndex) -> None:
    def add(thread: int) -> None:
        for number in range(10):
            index.add_file(file(f"demo-{thread}.{number}.tar.gz"), "1")
            assert index.has_files("demo")

    threads = [threading.Thread(target=add, args=(thread,)) for thread in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(index.project_files("demo")) == 160


def test_threads_that_ended_leave_no_connection_open(index: LocalIndex, path: Path) -> None:
    for _ in range(30):
        thread = threading.Thread(target=index.ready)
        thread.start()
        thread.join()
    index.ready()
    log = os.path.realpath(f"{path}-wal")
    fds = Path("/proc/self/fd")
    assert sum(os.path.realpath(fd) == log for fd in fds.iterdir()) <= 2


def test_it_can_be_closed_and_used_again(index: LocalIndex) -> None:
    index.add_file(file(), "1")
    index.close()
    index.close()
    assert index.file("demo-1.0.tar.gz") == file()


def test_an_error_is_remembered_until_a_synchronisation_succeeds(
    index: LocalIndex, tmp_path: Path
) -> None:
    index.note_error("the storage is down")
    assert index.sync_state() == SyncState(None, None, None, "the storage is down")
    finish(index, tmp_path / "scratch")
    assert index.sync_state() == SyncState(5.0, None, "r1", None, ready=True)
    assert index.ready()


# -- losing it -----------------------------------------------------------------------------------


def test_it_is_kept_over_a_restart(index: LocalIndex, path: Path, tmp_path: Path) -> None:
    index.add_file(file(), "1")
    finish(index, tmp_path / "scratch")
    index.close()
    again = LocalIndex(path, identity="mine")
    assert again.ready()
    assert again.file("demo-1.0.tar.gz") == file()


def test_what_belongs_to_another_repository_is_never_served(
    index: LocalIndex, path: Path, tmp_path: Path
) -> None:
    index.add_file(file(), "1")
    finish(index, tmp_path / "scratch")
    other = LocalIndex(path, identity="another storage")
    assert not other.ready()
    assert other.file("demo-1.0.tar.gz") is None
    assert not other.has_files("demo")


HERE = Identity(
    "folder", {"path": "/a", "order": "up"}, {"path": "/default", "order": "up"}, ["path"]
)


@pytest.mark.parametrize(
    ("text", "same", "same_storage"),
    [
        ("folder\npath=/a", True, True),
        ("folder\npath=/a\norder=up", True, True),  # as earlier versions wrote defaults, too
        ("folder\nname=mine\npath=/a\nread_secret=()", True, True),  # and more
        ("folder\npath=/a\norder=down", False, True),
        ("folder\npath=/b", False, False),
        ("folder", False, False),
        ("other\npath=/a", False, False),
    ],
)
def test_an_identity_is_what_matters_of_the_settings(
    text: str, same: bool, same_storage: bool
) -> None:
    assert (HERE.is_same(text), HERE.is_same_storage(text)) == (same, same_storage)
    assert HERE.text == "folder\npath=/a"


def test_a_setting_that_a_later_version_adds_leaves_the_index(path: Path) -> None:
    LocalIndex(path, identity=HERE).add_file(file(), "1")
    later = Identity(
        "folder",
        {**HERE.settings, "depth": "1"},
        {**HERE.defaults, "depth": "1"},
        [*HERE.naming, "depth"],
    )
    assert LocalIndex(path, identity=later).file("demo-1.0.tar.gz") == file()


def burn(index: LocalIndex, *names: str) -> None:
    for name in names:
        index.add_file(file(name), "1")
    index.remove_files(names, burn=True, at=NOON)


def test_a_changed_setting_forgets_no_burnt_and_no_private_names(path: Path) -> None:
    index = LocalIndex(path, identity=HERE)
    index.add_file(file("former-1.0.tar.gz"), "1")
    burn(index, "demo-1.0.tar.gz")
    seen = Identity("folder", {"path": "/a", "order": "down"}, HERE.defaults, HERE.naming)
    other = LocalIndex(path, identity=seen)
    assert not other.ready()
    assert other.project_files("former") == ()
    assert other.project_serial("former") is not None
    assert other.burnt("demo-1.0.tar.gz") == BurntName(
        project=DEMO, filename="demo-1.0.tar.gz", sha256=file().sha256, deleted_at=NOON
    )


def test_burnt_names_of_another_storage_wait_until_it_comes_back(path: Path) -> None:
    """They were deleted there, and not here; what is private stays private everywhere."""
    burn(LocalIndex(path, identity=HERE), "demo-1.0.tar.gz")
    moved = Identity("folder", {"path": "/b", "order": "up"}, HERE.defaults, HERE.naming)
    there = LocalIndex(path, identity=moved)
    assert there.burnt("demo-1.0.tar.gz") is None
    assert there.project_serial("demo") is not None
    burn(there, "demo-2.0.tar.gz")
    back = LocalIndex(path, identity=HERE)
    assert list(back.burnt_names("demo")) == ["demo-1.0.tar.gz"]
    again = LocalIndex(path, identity=moved)
    assert list(again.burnt_names("demo")) == ["demo-2.0.tar.gz"]


def test_an_index_of_an_earlier_version_opens_unchanged(path: Path, tmp_path: Path) -> None:
    first = LocalIndex(path, identity="mine")
    first.add_file(file(), "1")
    burn(first, "gone-1.0.tar.gz")
    finish(first, tmp_path / "scratch")
    first.close()
    earlier = sqlite3.connect(path)
    earlier.executescript(
        "DROP INDEX burnt_of_project; DROP TABLE unshown; DROP TABLE burnt_elsewhere;"
        "ALTER TABLE state DROP COLUMN listed_at; ALTER TABLE state DROP COLUMN listing_seconds;"
        "ALTER TABLE files DROP COLUMN published_name; ALTER TABLE files DROP COLUMN keywords;"
        "UPDATE state SET identity = 'folder' || char(10) || 'name=mine' || char(10) || 'path=/a'"
        " || char(10) || 'order=up' || char(10) || 'read_secret=()';"
        "INSERT INTO broken VALUES ('broken-1.0.zip', 's', 'no zip')"
    )
    earlier.close()
    index = LocalIndex(path, identity=HERE)
    assert index.ready()
    assert index.project_files("demo") == (file(),)
    assert index.burnt("Gone-1.tar.gz") is not None
    assert index.unshown("broken") == {"broken-1.0.zip": "no zip"}
    assert index.project_serial("broken") is not None
    # The next synchronisation reads the records again, which have the names and keywords.
    assert "1" not in {stamp for _, stamp in index.stamped_files("demo").values()}
    assert index.sync_state().revision is None
    assert index.age() is None  # unknown: so a synchronisation is due, and nothing is absent
    assert not path.with_name("index.sqlite.old").exists()


def test_names_are_salvaged_from_a_damaged_file(path: Path, tmp_path: Path) -> None:
    index = LocalIndex(path, identity="mine")
    index.add_file(file("former-1.0.tar.gz"), "1")
    burn(index, "other-1.0.tar.gz")
    index.close()
    filled(path, tmp_path / "scratch")
    damage(path, pages=24)
    index = LocalIndex(path, identity="mine")
    assert not index.check()
    assert not index.ready()
    assert index.project_files("demo") == ()
    assert index.project_serial("former") is not None
    assert index.burnt("other-1.0.tar.gz") is not None


def test_what_was_burnt_a_moment_ago_is_carried_over_from_the_log(path: Path) -> None:
    """A process that was killed has left it in the log of the database alone."""
    code = (
        "import os, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from tests.index.test_local import HERE, LocalIndex, burn\n"
        "burn(LocalIndex(Path(sys.argv[1]), identity=HERE), 'demo-1.0.tar.gz')\n"
        "os._exit(0)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(path), str(Path(__file__).parents[2])], check=True
    )
    assert path.with_name("index.sqlite-wal").stat().st_size > 0
    seen = Identity("folder", {"path": "/a", "order": "down"}, HERE.defaults, HERE.naming)
    assert LocalIndex(path, identity=seen).burnt("demo-1.0.tar.gz") is not None


# -- spellings -----------------------------------------------------------------------------------


def test_a_file_is_found_under_every_spelling(index: LocalIndex) -> None:
    put_all(index, file(), file("Demo-1.0.0.tar.gz"), file("demo-1.0.zip"), file("demo-1.1.tar.gz"))
    assert index.same_files("demo-1.0.tar.gz") == (file(), file("Demo-1.0.0.tar.gz"))
    assert index.same_files("Demo-1.0.0.tar.gz") == (file("Demo-1.0.0.tar.gz"), file())
    assert index.same_files("DEMO-v1.tar.gz") == (file("Demo-1.0.0.tar.gz"), file())
    assert index.same_files("demo-1.2.tar.gz") == index.same_files("readme.txt") == ()


def test_a_burnt_name_is_burnt_in_every_spelling(index: LocalIndex) -> None:
    index.add_file(file("Demo-1.tar.gz"), "1")  # of old, beside the one that is deleted
    burn(index, "demo-1.0.tar.gz")
    for spelling in ("demo-1.0.tar.gz", "DEMO-1.0.0.tar.gz"):
        found = index.burnt(spelling)
        assert found is not None
        assert found.filename == "demo-1.0.tar.gz"
        with pytest.raises(FilenameBurnt, match=r"'demo-1\.0\.tar\.gz'"):
            index.add_file(file(spelling), "2")
    index.add_file(file("Demo-1.tar.gz"), "1")
    assert index.project_files("demo") == (file("Demo-1.tar.gz"),)
    index.restore_files([file()])
    assert index.burnt("demo-1.0.tar.gz") is None
    assert index.project_files("demo") == (file("Demo-1.tar.gz"), file())


# -- how old it is -------------------------------------------------------------------------------


def list_at(index: LocalIndex, moment: float) -> None:
    with index.writing() as connection:
        connection.execute("UPDATE state SET listed_at = ?", (moment,))


def test_the_age_of_a_listing_survives_clocks_that_are_set(
    index: LocalIndex, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, elapsed = 1e9, 100.0
    monkeypatch.setattr("private_pypi.index.local.time.time", lambda: now)
    monkeypatch.setattr("private_pypi.index.local.time.monotonic", lambda: elapsed)
    assert index.age() is None
    list_at(index, now - 5)
    assert index.age() == 5
    now -= 86_400
    elapsed += 20
    assert index.age() == 25
    # Who sees it now for the first time cannot know.
    other = LocalIndex(path, identity="mine")
    assert other.age() is None
    now += 2 * 86_400  # and so is a machine that was suspended: its own clock stood still
    assert (index.age(), other.age()) == (86_405, 86_405)
    list_at(index, now)
    assert (index.age(), other.age()) == (0, 0)


# -- for people ----------------------------------------------------------------------------------


def put_all(index: LocalIndex, *files: DistributionFile) -> None:
    for one in files:
        index.add_file(one, "1")


def line(name: str, version: str, summary: str | None = "a demo") -> ProjectLine:
    return ProjectLine(
        name=canonicalize_name(name), version=version, summary=summary, uploaded_at=NOON
    )


def test_a_project_is_listed_with_what_an_installer_would_take(index: LocalIndex) -> None:
    put_all(
        index,
        *(file(f"demo-{version}.tar.gz") for version in ("1.0", "1.9", "1.10", "2.0rc1", "3.dev1")),
        file("demo-1.11.tar.gz", yanked="broken"),
        file("pre-1.0a1.tar.gz"),
        file("pre-0.9.post1.dev2.tar.gz"),
        file("post-1.0.tar.gz"),
        file("post-1.0.post1.tar.gz"),
        file("gone-1.0.tar.gz", yanked=""),
        file("local-1.0+a.1.tar.gz"),
    )
    assert index.search(limit=10) == (
        5,
        [
            line("demo", "1.10"),
            line("gone", "1.0"),
            line("local", "1.0+a.1"),
            line("post", "1.0.post1"),
            line("pre", "1.0a1"),
        ],
    )
    index.remove_files(["gone-1.0.tar.gz"], burn=False, at=NOON)
    assert index.search(limit=2, offset=1) == (
        4,
        [line("local", "1.0+a.1"), line("post", "1.0.post1")],
    )
    assert index.search(limit=9, among=["pre", "nobody"]) == (1, [line("pre", "1.0a1")])


def test_words_are_found_in_names_summaries_and_keywords(index: LocalIndex) -> None:
    put_all(
        index,
        file("demo_extra-1.0.tar.gz", summary="Tides"),
        file("demo-1.0.tar.gz", summary="50% of_all"),
        file("other-1.0.tar.gz", summary=None, keywords="Gezeiten, 50_x"),
    )

    def found(*words: str) -> list[str]:
        total, lines = index.search(words, limit=10)
        assert total == len(lines)
        return [line.name for line in lines]

    assert found("demo") == ["demo", "demo-extra"]
    assert found("extra", "demo") == ["demo-extra"]
    assert found("Demo.Extra") == ["demo-extra"]
    assert found("TIDES") == ["demo-extra"]
    assert found("gezeiten") == found("50_x") == ["other"]
    assert found("50%") == found("of_all") == ["demo"]
    assert found("%") == ["demo"]
    assert found("o%o") == found("demo", "nothing") == found("\\") == []


def test_the_newest_releases_are_one_of_each_project(index: LocalIndex) -> None:
    def at(filename: str, hour: int, **changes: object) -> DistributionFile:
        return file(filename, uploaded_at=NOON + timedelta(hours=hour), **changes)

    put_all(
        index,
        at("a-1.0.tar.gz", 1),
        at("a-2.0.tar.gz", 5),
        at("b-1.0.tar.gz", 3),
        at("c-1.0.tar.gz", 9, yanked=""),
        at("d-1.0.tar.gz", 2),
        file("e-1.0.tar.gz", uploaded_at=None),
    )
    newest = index.newest_releases(2)
    assert [(one.name, one.version) for one in newest] == [("a", "2.0"), ("b", "1.0")]
    assert [one.name for one in index.newest_releases(9, among=["b", "c"])] == ["b"]


def test_an_old_configuration_does_not_take_the_file_back(
    index: LocalIndex, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(index, tmp_path / "scratch")
    LocalIndex(path, identity="new").ready()
    monkeypatch.setattr("private_pypi.index.connections._CHECK_EVERY", 0.0)
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="another configuration"):
            index.ready()
    assert not LocalIndex(path, identity="new").ready()


def test_a_file_of_an_older_schema_is_built_anew(
    index: LocalIndex, path: Path, tmp_path: Path
) -> None:
    finish(index, tmp_path / "scratch")
    index.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE state SET schema = 0")
    connection.close()
    assert not LocalIndex(path, identity="mine").ready()


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 500])
def test_a_foreign_file_is_set_aside(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    index = LocalIndex(path, identity="mine")
    assert not index.ready()
    index.add_file(file(), "1")
    assert path.with_name("index.sqlite.old").read_bytes() == content


def damage(path: Path, pages: int = 20) -> None:
    """Overwrite all but the first pages, as a bad disk would; what says whose it is stays."""
    with path.open("r+b") as database:
        database.seek(pages * 4096)
        database.write(b"\xa5" * (path.stat().st_size - pages * 4096))


def filled(path: Path, scratch: Path) -> None:
    index = LocalIndex(path, identity="mine")
    for number in range(200):
        index.add_file(file(f"demo-{number}.tar.gz"), "1")
    finish(index, scratch)
    index.close()


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 8192 * 4096)


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def another_database(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE state (only_row INTEGER, schema INTEGER, identity TEXT)")
    connection.execute("INSERT INTO state VALUES (1, 999, 'file_system')")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("damage", [garbage, half, nothing, another_database])
def test_what_is_no_index_of_ours_is_begun_anew(
    path: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    filled(path, tmp_path / "scratch")
    damage(path)
    index = LocalIndex(path, identity="mine")
    index.check()
    assert not index.ready()
    assert index.project_files("demo") == ()
    index.add_file(file("demo-1.0.tar.gz"), "1")
    assert len(index.project_files("demo")) == 1


def test_damage_that_shows_while_serving_is_trouble_and_then_a_new_index(
    path: Path, tmp_path: Path
) -> None:
    filled(path, tmp_path / "scratch")
    damage(path)
    index = LocalIndex(path, identity="mine")
    with pytest.raises(BackendUnavailable, match="damaged"):
        assert index.ready()
        index.project_files("demo")
    assert not index.ready()
    assert index.project_files("demo") == ()


def test_a_check_finds_damage_that_no_page_has_shown_yet(path: Path, tmp_path: Path) -> None:
    filled(path, tmp_path / "scratch")
    index = LocalIndex(path, identity="mine")
    assert index.check()
    index.close()
    size = path.stat().st_size
    with path.open("r+b") as database:
        database.seek(size // 4096 // 2 * 4096)
        database.write(b"\xa5" * 4096)
    assert index.ready()
    assert not index.check()
    assert not index.ready()


def test_a_file_that_was_removed_under_us_is_built_anew(
    index: LocalIndex, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(index, tmp_path / "scratch")
    monkeypatch.setattr("private_pypi.index.connections._CHECK_EVERY", 0.0)
    for found in path.parent.glob("index.sqlite*"):
        found.unlink()
    assert not index.ready()
    index.add_file(file(), "1")
    assert LocalIndex(path, identity="mine").file("demo-1.0.tar.gz") == file()


@pytest.mark.needs("time")
def test_many_first_openings_make_one_index(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from tests.index.test_local import file, LocalIndex\n"
        "LocalIndex(Path(sys.argv[1]), identity='mine').add_file(file(sys.argv[3]), '1')"
    )
    tests = str(Path(__file__).parents[2])
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(path), tests, f"demo-{n}.tar.gz"])
        for n in range(4)
    ]
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    assert len(LocalIndex(path, identity="mine").project_files("demo")) == 4


def test_yanks_pass_over_names_that_are_not_there(index: LocalIndex) -> None:
    index.add_file(file(), "1")
    index.set_yanked(["demo-1.0.tar.gz", "demo-9.tar.gz"], "")
    assert index.project_files("demo") == (replace(file(), yanked=""),)


def test_closing_while_others_read_breaks_none_of_their_statements(index: LocalIndex) -> None:
    index.age()
    stop = threading.Event()
    troubles: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                index.age()
        except BaseException as error:
            troubles.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for _ in range(300):
        index.close()
    stop.set()
    for reader in readers:
        reader.join()
    assert not troubles


# -- after a power cut ---------------------------------------------------------------------------


def test_nothing_is_absent_after_a_start_of_the_machine_until_the_next_listing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(boot: str | None) -> LocalIndex:
        monkeypatch.setattr("private_pypi.index.local.boot_id", lambda: boot)
        return LocalIndex(path, identity="mine")

    list_at(opened("first"), 5.0)
    assert opened("first").age() is not None
    assert opened(None).age() is not None  # a system that does not tell
    second = opened("second")
    assert second.age() is None
    list_at(second, 6.0)
    assert opened("second").age() is not None


@pytest.mark.parametrize(
    ("boot", "is_listed", "is_synced"),
    [("first", True, False), ("first", False, True), (None, True, True)],
)
def test_the_name_of_a_new_project_is_synced_unless_a_listing_will_find_it(
    index: LocalIndex,
    monkeypatch: pytest.MonkeyPatch,
    boot: str | None,
    is_listed: bool,
    is_synced: bool,
) -> None:
    monkeypatch.setattr("private_pypi.index.local.boot_id", lambda: boot)
    statements: list[str] = []
    index.connection().set_trace_callback(statements.append)
    index.add_file(file("demo-1.0.tar.gz"), "1", is_listed=is_listed)
    assert ("PRAGMA synchronous = FULL" in statements) == is_synced
    statements.clear()
    index.add_file(file("demo-2.0.tar.gz"), "2", is_listed=is_listed)
    assert "PRAGMA synchronous = FULL" not in statements
