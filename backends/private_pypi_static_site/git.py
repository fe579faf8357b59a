"""Commits of single paths of a folder, made and pushed by the program git.

Other changes of the folder, staged or not, are left alone. Whoever uses this excludes others that
do so (`SiteFolder.changing`).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from private_pypi.backend import system_errors
from private_pypi.errors import BackendError, BackendUnavailable

_TIMEOUT: Final = 60.0  # seconds; of one command, also over the network
_CREDENTIALS: Final = re.compile(r"(?<=//)[^/@\s]+@")
_DURABLE: Final = "core.fsync=committed,index,reference"

ATTRIBUTES: Final = "-text -eol -ident -filter -working-tree-encoding"
"""What gitattributes(5) must say of files whose hashes are known: git changes no byte of them."""
EXACT: Final = ("packages/**", "readmes/**")
"""Such files of a site, as patterns."""


class Git:
    """The repository that a folder is in. Methods raise `BackendError`, and say what git said."""

    def __init__(self, folder: Path) -> None:
        """`folder`: that of the site, which may be a part of the repository."""
        self._folder = folder
        self._identity: Sequence[str] | None = None

    def prepare(self, ignored: Sequence[str]) -> None:
        """Check that there is a repository, and prepare this clone of it; done once.

        It ignores names, and it keeps every byte of hosted files, whatever `.gitattributes` says.
        """
        if self._identity is not None:
            return
        self._complete("info/exclude", ignored)
        prefix = self._run("rev-parse", "--show-prefix").rstrip("\n")
        quoted = re.sub(r'([\\"])', r"\\\1", re.sub(r"([\\*?\[])", r"\\\1", prefix))
        self._complete("info/attributes", [f'"{quoted}{each}" {ATTRIBUTES}' for each in EXACT])
        email = self._run("config", "--get", "user.email", may_fail=True)
        own = ("-c", "user.name=private_pypi", "-c", "user.email=private_pypi@localhost")
        self._identity = () if email else own

    def _complete(self, name: str, lines: Sequence[str]) -> None:
        """Add lines to a file of this clone, unless it has them."""
        path = self._folder / self._run("rev-parse", "--git-path", name).strip()
        with system_errors(f"cannot write {str(path)!r}"):
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            missing = [line for line in lines if line not in text.splitlines()]
            if missing:
                path.parent.mkdir(exist_ok=True)
                path.write_text("\n".join([text.rstrip("\n"), *missing, ""]).lstrip("\n"))

    def head(self) -> str | None:
        """The current commit; None if there is none yet."""
        return self._run("rev-parse", "--quiet", "--verify", "HEAD", may_fail=True).strip() or None

    def commit(self, paths: Sequence[str], message: str) -> None:
        """Commit what these paths, relative to the folder, have become; nothing if unchanged."""
        if not self._run("symbolic-ref", "--quiet", "HEAD", may_fail=True):
            raise BackendError(
                f"no branch is checked out in {str(self._folder)!r}, so a commit would be lost; "
                "check out the branch of the site, or finish what is going on there"
            )
        self._stage(paths)
        changed = self._run(
            *("diff", "--cached", "--name-only", "--no-renames", "--relative", "-z", "--", *paths)
        ).split("\0")[:-1]
        if changed:
            self._run("commit", "--quiet", "--file=-", "--only", "--", *changed, given=message)

    def uncommit(self, before: str | None, paths: Sequence[str]) -> None:
        """Go back to the commit `before`. The paths are as they were then, in the folder."""
        if self.head() != before:
            self._run(*("update-ref", "HEAD", before) if before else ("update-ref", "-d", "HEAD"))
        self._stage(paths)

    def _stage(self, paths: Sequence[str]) -> None:
        # Unlike `git add`, this takes names literally, also those that .gitignore has.
        listed = "".join(f"{path}\0" for path in paths)
        self._run("update-index", "--add", "--remove", "-z", "--stdin", given=listed)

    # -- the upstream, which decides between several writers ---------------------------------------

    def push(self) -> bool:
        """Push what the upstream lacks; False if somebody else has pushed, which is fetched."""
        if not self._is_ahead():
            return True
        branch = self._run("symbolic-ref", "--short", "HEAD").strip()
        remote = self._run("config", "--get", f"branch.{branch}.remote").strip()
        to = self._run("config", "--get", f"branch.{branch}.merge").strip()
        try:
            self._run("push", "--quiet", remote, f"HEAD:{to}")
        except BackendError:
            # What git says depends on the language, so look.
            self._run("fetch", "--quiet", remote)
            if self._run("rev-list", "--count", "HEAD..@{upstream}").strip() != "0":
                return False
            if self._is_ahead():
                raise
            # It was pushed, and only the answer was lost.
        return True

    def catch_up(self) -> None:
        """Take over what others have pushed, below the commits that are not pushed yet."""
        if not self._is_ahead():
            self._run("merge", "--quiet", "--ff-only", "@{upstream}")
            return
        try:
            self._run("rebase", "--quiet", "@{upstream}")
        except BackendError:
            self._run("rebase", "--abort", may_fail=True)
            raise

    def drop(self, before: str) -> None:
        """Remove the last commit, if `before` is the one before it; it was never acknowledged."""
        if self._run("rev-parse", "--quiet", "--verify", "HEAD~1", may_fail=True).strip() == before:
            self._run("reset", "--quiet", "--keep", before)

    def _is_ahead(self) -> bool:
        return self._run("rev-list", "--count", "@{upstream}..HEAD").strip() != "0"

    def _run(self, *arguments: str, given: str = "", may_fail: bool = False) -> str:
        """What git writes; with `may_fail`, "" if it fails."""
        command = ["git", "-C", str(self._folder), "--literal-pathspecs", "-c", _DURABLE]
        command += [*(self._identity or ()), *arguments]
        verb = f"git {arguments[0]} in {str(self._folder)!r}"
        try:
            ended = subprocess.run(
                command,
                input=given.encode("utf-8", "replace"),
                capture_output=True,
                timeout=_TIMEOUT,
                check=False,
                start_new_session=True,  # without a terminal, it cannot ask for a password
            )
        except FileNotFoundError:
            raise BackendError("git is not installed, so nothing can be committed") from None
        except subprocess.TimeoutExpired:
            raise BackendUnavailable(f"{verb} took longer than {_TIMEOUT:g} s") from None
        if ended.returncode and may_fail:
            return ""
        if ended.returncode:
            told = ended.stderr.decode("utf-8", "replace").strip() or f"exit {ended.returncode}"
            raise BackendError(f"{verb}: {_CREDENTIALS.sub('…@', ' '.join(told.split()))[:500]}")
        return ended.stdout.decode("utf-8", "replace")


def lock_of(folder: Path) -> Path | None:
    """The lock that git has while it changes the files of a folder; None if it does not.

    git changes one file after another, and those that it replaces are absent for a moment. git
    itself need not be installed.
    """
    folder = folder.absolute()
    for parent in (folder, *folder.parents):
        found = parent / ".git"
        if found.is_file():  # of a worktree or a submodule
            key, _, path = found.read_text(encoding="utf-8", errors="replace").partition(":")
            found = parent / path.strip() if key == "gitdir" else found
        if found.is_dir():
            lock = found / "index.lock"
            return lock if lock.exists() else None
    return None
