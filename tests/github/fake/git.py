"""Git objects and the ids that git gives them; no files, no packs, no network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

FILE_MODE = "100644"
FOLDER_MODE = "040000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who wrote a commit, and when."""

    name: str
    email: str
    date: datetime  # UTC, whole seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit as git keeps it."""

    sha: str
    tree: str
    parents: tuple[str, ...]
    author: Person
    committer: Person
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """One line of a tree: `mode` as GitHub writes it, six digits."""

    name: str
    mode: str
    sha: str

    @property
    def kind(self) -> str:
        """`tree`, `commit` (a submodule) or `blob`."""
        return {FOLDER_MODE: "tree", "160000": "commit"}.get(self.mode, "blob")


class GitObjects:
    """What one repository has in its object database."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._trees: dict[str, tuple[TreeEntry, ...]] = {}
        self._commits: dict[str, Commit] = {}

    def add_blob(self, content: bytes) -> str:
        """Keep a blob; its id."""
        sha = object_id("blob", content)
        self._blobs[sha] = content
        return sha

    def add_tree(self, entries: Mapping[str, TreeEntry]) -> str:
        """Keep a tree of these entries (by name); its id."""
        # Git compares the names of folders as if they ended in a slash.
        ordered = tuple(
            sorted(entries.values(), key=lambda entry: entry.name + "/" * (entry.kind == "tree"))
        )
        content = b"".join(
            f"{entry.mode.lstrip('0')} {entry.name}\0".encode() + bytes.fromhex(entry.sha)
            for entry in ordered
        )
        sha = object_id("tree", content)
        self._trees[sha] = ordered
        return sha

    def add_commit(
        self,
        *,
        tree: str,
        parents: tuple[str, ...],
        author: Person,
        committer: Person,
        message: str,
    ) -> Commit:
        """Keep a commit."""
        lines = [
            f"tree {tree}",
            *(f"parent {parent}" for parent in parents),
            f"author {_signature(author)}",
            f"committer {_signature(committer)}",
            "",
            message,
        ]
        commit = Commit(
            sha=object_id("commit", "\n".join(lines).encode()),
            tree=tree,
            parents=parents,
            author=author,
            committer=committer,
            message=message,
        )
        self._commits[commit.sha] = commit
        return commit

    def blob(self, sha: str) -> bytes | None:
        """The content of a blob, None when there is none of this id."""
        return self._blobs.get(sha)

    def tree(self, sha: str) -> tuple[TreeEntry, ...] | None:
        """The entries of a tree in git's order, None when there is none of this id."""
        return self._trees.get(sha)

    def commit(self, sha: str) -> Commit | None:
        """A commit, None when there is none of this id."""
        return self._commits.get(sha)

    def kind(self, sha: str) -> str | None:
        """`blob`, `tree` or `commit`; None when there is no object of this id."""
        if sha in self._blobs:
            return "blob"
        if sha in self._trees:
            return "tree"
        return "commit" if sha in self._commits else None

    def find(self, tree: str, path: str) -> TreeEntry | None:
        """The entry at a path below a tree; the tree itself for an empty path."""
        entry = TreeEntry(name="", mode=FOLDER_MODE, sha=tree)
        for part in filter(None, path.split("/")):
            inside = self._trees.get(entry.sha, ()) if entry.kind == "tree" else ()
            found = next((child for child in inside if child.name == part), None)
            if found is None:
                return None
            entry = found
        return entry

    def with_entry(self, tree: str | None, path: str, entry: TreeEntry | None) -> str:
        """A tree like this one, with this entry (None: without any) at the path; its id.

        Folders that are needed appear, folders that become empty vanish, as in git's index.
        """
        name, _, rest = path.partition("/")
        children = {child.name: child for child in self._trees.get(tree or "", ())}
        if rest:
            old = children.get(name)
            below = old.sha if old is not None and old.kind == "tree" else None
            folder = self.with_entry(below, rest, entry)
            children[name] = TreeEntry(name=name, mode=FOLDER_MODE, sha=folder)
            if not self._trees[folder]:
                del children[name]
        elif entry is None:
            children.pop(name, None)
        else:
            children[name] = entry
        return self.add_tree(children)

    def walk(self, tree: str, prefix: str = "") -> Iterator[tuple[str, TreeEntry]]:
        """Every entry below a tree with its path, folders before what is in them."""
        for entry in self._trees[tree]:
            yield prefix + entry.name, entry
            if entry.kind == "tree":
                yield from self.walk(entry.sha, f"{prefix}{entry.name}/")

    def history(self, commit: str) -> Iterator[Commit]:
        """The commit and everything that it stands on, each once."""
        waiting, seen = [commit], set[str]()
        while waiting:
            sha = waiting.pop()
            if sha not in seen:
                seen.add(sha)
                waiting.extend(self._commits[sha].parents)
                yield self._commits[sha]


def object_id(kind: str, content: bytes) -> str:
    """The id that git gives to a blob, tree or commit of this content."""
    header = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _signature(person: Person) -> str:
    seconds = int(person.date.astimezone(UTC).timestamp())
    return f"{person.name} <{person.email}> {seconds} +0000"
