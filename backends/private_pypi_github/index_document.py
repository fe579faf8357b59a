"""The index document: a file on a branch, which is replaced only if its git id is as expected."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from private_pypi.backend import NO_INDEX
from private_pypi.errors import BackendError, NotAllowed, StaleIndex
from private_pypi_github.answers import GitHubAnswer, message_of
from private_pypi_github.client import OBJECT
from private_pypi_github.connection import Connection
from private_pypi_github.package_repository import PackageRepository, commit_of

_MAX_IN_FOLDER = 1000  # files of a folder that GitHub lists ("Get repository content")
_GIT_ID = re.compile("[0-9a-f]{40}")
_RULE = re.compile(r"protected|rule|pull request|signed|status check", re.IGNORECASE)


class GitHubIndex:
    """Reads and writes the index document. A revision is the git id of the file."""

    def __init__(
        self, repository: PackageRepository, connection: Connection, filename: str
    ) -> None:
        self._repository = repository
        self._client = repository.client
        self._connection = connection
        self._filename = filename
        self._contents_path = f"{repository.path}/contents/{quote(filename)}"
        self._path = self._at_branch(self._contents_path)

    def read(self, into: Path, unless: str | None) -> str:
        """As `SupportsReplaceIndex.read_index` promises."""
        was_absent = self._connection.is_absent(self._path)
        if was_absent and self._folder_lacks_index():
            return NO_INDEX
        # GitHub sometimes answers 404 when it is in trouble. So if the document was there before,
        # GitHub is asked twice, and for the repository in between.
        for _ in range(1 if was_absent else 2):
            revision = self._client.get_blob(self._path, into, unless)
            if revision is not None:
                self._connection.note_absent(self._path, False)
                return revision
            self._repository.require_visible()
            self._require_branch()
        self._connection.note_absent(self._path, True)
        return NO_INDEX

    def write(self, content: Path, replaces: str) -> str:
        """As `SupportsReplaceIndex.write_index` promises."""
        if replaces != NO_INDEX and not _GIT_ID.fullmatch(replaces):
            raise StaleIndex(f"{replaces!r} is not a revision of an index on GitHub")
        value = {"message": f"Update {self._filename}"}
        if replaces != NO_INDEX:
            value["sha"] = replaces
        if self._repository.branch is not None:
            value["branch"] = self._repository.branch
        with content.open("rb") as file:
            answer = self._client.put_base64(
                self._contents_path, value, file, expected=(200, 201, 404, 409, 422)
            )
        if answer.status in (200, 201):
            self._connection.note_absent(self._path, False)
            return str(answer.member("content", "sha"))
        self._require_stale(answer, replaces)
        raise StaleIndex("the index was written by somebody else since it was read")

    def _require_stale(self, answer: GitHubAnswer, replaces: str) -> None:
        """Raise what GitHub refused, unless the reason is that somebody else writes as well."""
        said = f"GitHub refuses to write {self._filename!r}: {message_of(answer)}"
        current = self._client.get(self._path, accept=OBJECT, expected=(200, 404))
        revision = NO_INDEX if current.status == 404 else str(current.member("sha"))
        if revision != replaces:
            return
        if answer.status == 404 or _RULE.search(message_of(answer)):
            raise NotAllowed(said)
        if answer.status == 422:
            raise BackendError(said)

    def _folder_lacks_index(self) -> bool:
        """Whether the folder of the document is known not to have it.

        Unlike a 404, the answer for a folder that did not change does not count against the limit
        of requests. GitHub does not list all files of a large folder, so this is False for one.
        """
        folder, _, name = self._filename.rpartition("/")
        path = self._at_branch(f"{self._repository.path}/contents/{quote(folder)}")
        _, files = self._client.get_kept(path, GitHubAnswer.objects, expected=(200, 404))
        if files is None:
            return False
        return len(files) < _MAX_IN_FOLDER and all(file.get("name") != name for file in files)

    def _at_branch(self, path: str) -> str:
        branch = self._repository.branch
        return path + (f"?ref={quote(branch, safe='')}" if branch else "")

    def _require_branch(self) -> None:
        """Raise if the repository has commits, but lacks the branch of the index."""
        branch = self._repository.branch
        if branch is None:
            return
        path = f"{self._repository.path}/git/ref/heads/{quote(branch)}"
        # 409: "Git Repository is empty."
        answer, _ = self._client.get_kept(path, commit_of, expected=(200, 404, 409))
        if answer.status == 404:
            raise BackendError(f"there is no branch {branch!r} in {self._repository.name!r}")
