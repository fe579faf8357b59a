"""Objects have the ids that git gives them: every id here was computed by git 2.39 itself."""

from __future__ import annotations

from datetime import UTC, datetime

from .fake.git import FILE_MODE, FOLDER_MODE, Commit, GitObjects, Person, TreeEntry, object_id

FILES = {"a-b": b"z", "a.d/x/y": b"x\n", "a.txt": b"top", "a/hello": b"hello\n"}
TREE = "8576dd6c4fd72fbb6940fa778b588e6a56468451"


def filled(git: GitObjects) -> str:
    tree = None
    for path, content in FILES.items():
        name = path.rpartition("/")[2]
        entry = TreeEntry(name=name, mode=FILE_MODE, sha=git.add_blob(content))
        tree = git.with_entry(tree, path, entry)
    assert tree is not None
    return tree


def commits(git: GitObjects) -> tuple[Commit, Commit]:
    author = Person(
        name="Ä Person", email="a@example.invalid", date=datetime.fromtimestamp(1700000000, UTC)
    )
    committer = Person(
        name="Bob", email="b@example.invalid", date=datetime.fromtimestamp(1700000100, UTC)
    )
    first = git.add_commit(
        tree=filled(git), parents=(), author=author, committer=committer, message="First"
    )
    second = git.add_commit(
        tree=first.tree,
        parents=(first.sha,),
        author=author,
        committer=committer,
        message="Second\n\nWith a body.",
    )
    return first, second


def test_blobs() -> None:
    assert object_id("blob", b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert object_id("blob", b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_trees_sort_folders_as_if_they_ended_in_a_slash() -> None:
    git = GitObjects()
    assert filled(git) == TREE
    assert [(path, entry.mode, entry.sha[:4]) for path, entry in git.walk(TREE)] == [
        ("a-b", FILE_MODE, "fa7a"),
        ("a.d", FOLDER_MODE, "9256"),
        ("a.d/x", FOLDER_MODE, "c956"),
        ("a.d/x/y", FILE_MODE, "587b"),
        ("a.txt", FILE_MODE, "83a3"),
        ("a", FOLDER_MODE, "b4d0"),
        ("a/hello", FILE_MODE, "ce01"),
    ]


def test_a_folder_without_files_vanishes() -> None:
    git = GitObjects()
    without = git.with_entry(filled(git), "a/hello", None)
    assert without == "bb3ee229c42700457c977d9ec753ec5c8ff322a1"
    assert git.find(without, "a") is None
    found = git.find(without, "a.d/x/y")
    assert found is not None and git.blob(found.sha) == b"x\n"


def test_commits() -> None:
    git = GitObjects()
    first, second = commits(git)
    assert first.sha == "6084dbb3565c01df43f35345821292edee638dcb"
    assert second.sha == "899e3ff9aae1206d0ea9e183bb860b2d826880ce"
    assert list(git.history(second.sha)) == [second, first]
    assert [git.kind(sha) for sha in (first.sha, TREE, "0" * 40)] == ["commit", "tree", None]
