"""The local index: many threads and processes, and every way to lose the file."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name
from packaging.version import Version

from private_pypi.errors import BackendUnavailable, FilenameBurnt
from private_pypi.filenames import parse_filename
from private_pypi.local_index import LocalIndex, Look, ProjectLine, SyncState, version_key
from private_pypi.model import BurntName, DistributionFile
from private_pypi.reconciling import Reconciliation

NOON = datetime(2026, 1, 2, 12, 0, 0, 250_000, tzinfo=UTC)
DEMO = canonicalize_name("demo")


def file(filename: str = "demo-1.0.tar.gz", **changes: object) -> DistributionFile:
    parsed = parse_filename(filename)
    facts: dict[str, object] = {
        "project": parsed.project,
        "filename": filename,
        "version": str(parsed.version),
        "size": 1234,
        "sha256": hashlib.sha256(filename.encode()).hexdigest(),
        "uploaded_at": NOON,
        "requires_python": ">=3.8",
        "yanked": None,
        "core_metadata_sha256": None,
        "location": f"/storage/{filename}",
        "summary": "a demo",
    }
    return DistributionFile(**{**facts, **changes})  # type: ignore[arg-type]


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


def test_a_change_is_seen_by_another_process_at_once(index: LocalIndex, path: Path) -> None:
    index.add_file(file(), "1")
    code = (
        "import sys; from pathlib import Path; from private_pypi.local_index import LocalIndex\n"
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


def test_a_forked_child_opens_its_own_connection(index: LocalIndex) -> None:
    index.add_file(file(), "1")
    child = os.fork()
    if child == 0:
        try:
            index.add_file(file("demo-2.0.tar.gz"), "1")
            index.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    index.add_file(file("demo-3.0.tar.gz"), "1")
    assert [found.version for found in index.project_files("demo")] == ["1.0", "2.0", "3.0"]


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
    assert index.sync_state() == SyncState(5.0, None, "r1", None)
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
    assert other.project_serial("demo") is None


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


def test_words_are_found_in_names_and_summaries(index: LocalIndex) -> None:
    put_all(
        index,
        file("demo_extra-1.0.tar.gz", summary="Tides"),
        file("demo-1.0.tar.gz", summary="50% of_all"),
        file("other-1.0.tar.gz", summary=None),
    )

    def found(*words: str) -> list[str]:
        total, lines = index.search(words, limit=10)
        assert total == len(lines)
        return [line.name for line in lines]

    assert found("demo") == ["demo", "demo-extra"]
    assert found("extra", "demo") == ["demo-extra"]
    assert found("Demo.Extra") == ["demo-extra"]
    assert found("TIDES") == ["demo-extra"]
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
    monkeypatch.setattr("private_pypi.local_index._LOOK_EVERY", 0.0)
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


def damage(path: Path) -> None:
    """Overwrite most of it, as a bad disk would; what says whose it is stays."""
    with path.open("r+b") as database:
        database.seek(12 * 4096)
        database.write(b"\xa5" * (path.stat().st_size - 12 * 4096))


def filled(path: Path, scratch: Path) -> None:
    index = LocalIndex(path, identity="mine")
    for number in range(200):
        index.add_file(file(f"demo-{number}.tar.gz"), "1")
    finish(index, scratch)
    index.close()


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
    monkeypatch.setattr("private_pypi.local_index._LOOK_EVERY", 0.0)
    for found in path.parent.glob("index.sqlite*"):
        found.unlink()
    assert not index.ready()
    index.add_file(file(), "1")
    assert LocalIndex(path, identity="mine").file("demo-1.0.tar.gz") == file()


def test_many_first_openings_make_one_index(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from test_local_index import file, LocalIndex\n"
        "LocalIndex(Path(sys.argv[1]), identity='mine').add_file(file(sys.argv[3]), '1')"
    )
    tests = str(Path(__file__).parent)
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


# -- projects that are looked up -----------------------------------------------------------------


@pytest.fixture
def looked(path: Path) -> LocalIndex:
    return LocalIndex(path, identity="mine", always_ready=True)


def look(
    index: LocalIndex,
    *filenames: str,
    begun: int | None = None,
    looked_at: float = 5.0,
    uploads_since: float = 4e9,
    broken: dict[str, tuple[str, str]] | None = None,
    **changes: object,
) -> Look:
    return Look(
        project=DEMO,
        files={name: (file(name, **changes), "stamp") for name in filenames},
        broken=broken or {},
        begun=index.serial() if begun is None else begun,
        looked_at=looked_at,
        uploads_since=uploads_since,
    )


def test_an_index_without_a_first_listing_is_ready(looked: LocalIndex) -> None:
    assert looked.ready()
    assert looked.looked_at(DEMO) is None


def test_a_project_becomes_what_was_seen_of_it(looked: LocalIndex) -> None:
    other = file("other-1.0.tar.gz")
    looked.add_file(other, "1")
    looked.take_look(look(looked, "demo-1.0.tar.gz", "demo-2.0.tar.gz"))
    assert looked.project_files(DEMO) == (file("demo-1.0.tar.gz"), file("demo-2.0.tar.gz"))
    looked.take_look(look(looked, "demo-2.0.tar.gz", "demo-3.0.tar.gz", requires_python=None))
    assert looked.stamped_files(DEMO) == {
        name: (file(name, requires_python=None), "stamp")
        for name in ("demo-2.0.tar.gz", "demo-3.0.tar.gz")
    }
    assert looked.project_files("other") == (other,)
    assert looked.sync_state() == SyncState(5.0, None, None, None)


def test_a_look_that_sees_the_same_takes_no_serial(looked: LocalIndex) -> None:
    problem = {"demo-3.0.tar.gz": ("stamp", "broken")}
    looked.take_look(look(looked, "demo-1.0.tar.gz", broken=problem))
    serial = looked.serial()
    looked.take_look(look(looked, "demo-1.0.tar.gz", broken=problem, looked_at=6.0))
    assert (looked.serial(), looked.looked_at(DEMO)) == (serial, 6.0)
    looked.take_look(look(looked, "demo-1.0.tar.gz", looked_at=7.0))
    assert looked.serial() > serial
    assert looked.broken() == {}


def test_what_is_younger_than_a_look_stays(looked: LocalIndex) -> None:
    looked.take_look(look(looked, "demo-1.0.tar.gz", "demo-2.0.tar.gz", "demo-3.0.tar.gz"))
    begun = looked.serial()
    looked.add_file(file("demo-4.0.tar.gz"), "1")
    looked.set_yanked(["demo-1.0.tar.gz"], "bad")
    looked.remove_files(["demo-2.0.tar.gz"], burn=False, at=NOON)
    looked.remove_files(["demo-3.0.tar.gz"], burn=True, at=NOON)
    names = ("demo-1.0.tar.gz", "demo-2.0.tar.gz", "demo-3.0.tar.gz")
    looked.take_look(look(looked, *names, begun=begun))
    found = {each.filename: each.yanked for each in looked.project_files(DEMO)}
    assert found == {"demo-1.0.tar.gz": "bad", "demo-4.0.tar.gz": None}
    # The next one began later: only what is burnt stays away.
    looked.take_look(look(looked, *names))
    found = {each.filename: each.yanked for each in looked.project_files(DEMO)}
    assert found == {"demo-1.0.tar.gz": None, "demo-2.0.tar.gz": None}


def test_a_look_that_another_process_overtook_changes_nothing(
    looked: LocalIndex, path: Path
) -> None:
    """It saw what is deleted since, and would bring it back."""
    other = LocalIndex(path, identity="mine", always_ready=True)
    looked.take_look(look(looked, "demo-1.0.tar.gz", "demo-2.0.tar.gz"))
    slow = look(looked, "demo-1.0.tar.gz", "demo-2.0.tar.gz", looked_at=6.0)
    other.take_look(look(other, "demo-1.0.tar.gz", looked_at=7.0))
    looked.take_look(slow)
    assert looked.project_files(DEMO) == (file("demo-1.0.tar.gz"),)
    assert looked.looked_at(DEMO) == 7.0
    other.close()


def test_a_look_of_the_future_is_none(looked: LocalIndex) -> None:
    """A clock that was set back must not keep everything as it is."""
    looked.take_look(look(looked, "demo-1.0.tar.gz", looked_at=4e9))
    looked.take_look(look(looked, "demo-2.0.tar.gz", looked_at=6.0))
    assert looked.project_files(DEMO) == (file("demo-2.0.tar.gz"),)
    assert looked.looked_at(DEMO) == 6.0


def test_an_upload_stays_until_the_storage_lists_it_or_had_time_enough(looked: LocalIndex) -> None:
    looked.add_file(file("demo-1.0.tar.gz"), "1")
    looked.take_look(look(looked, uploads_since=0.0))
    assert looked.has_files(DEMO)
    looked.take_look(look(looked))
    assert not looked.has_files(DEMO)
    looked.add_file(file("demo-1.0.tar.gz"), "1")
    looked.take_look(look(looked, "demo-1.0.tar.gz", uploads_since=0.0))
    looked.take_look(look(looked, uploads_since=0.0))
    assert not looked.has_files(DEMO)
