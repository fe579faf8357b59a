"""One repository on GitHub that has the releases of a whole index, as one token sees it."""

from __future__ import annotations

from urllib.parse import quote

from private_pypi.errors import BackendError
from private_pypi_github.answers import GitHubAnswer
from private_pypi_github.client import Client
from private_pypi_github.releases import GitHubRelease, parse_release
from private_pypi_github.shared import understand_repository


class PackageRepository:
    """The paths of the repository in GitHub's interface, and requests of several modules."""

    def __init__(self, client: Client, owner: str, repo: str, branch: str | None) -> None:
        """`branch` is that of the index; None stands for the default branch."""
        self.client = client
        self.owner = owner
        self.repo = repo
        self.branch = branch
        self.name = f"{owner}/{repo}"
        self.path = f"/repos/{self.name}"

    def asset_path(self, asset_id: int) -> str:
        return f"{self.path}/releases/assets/{asset_id}"

    def tag_path(self, tag: str, *, ref: str = "ref") -> str:
        """The path of a tag. To change or delete it, GitHub wants `refs` instead of `ref`."""
        return f"{self.path}/git/{ref}/tags/{quote(tag, safe='')}"

    def release(self, tag: str) -> GitHubRelease | None:
        """The published release of a tag; None also if the token may not see the repository.

        GitHub sometimes answers 404 when it is in trouble, so it is asked twice.
        """
        path = f"{self.path}/releases/tags/{quote(tag, safe='')}"
        for _ in range(2):
            answer = self.client.get(path, expected=(200, 404))
            if answer.status == 200:
                return parse_release(answer.json())
        return None

    def require_visible(self) -> None:
        """Raise unless the token may see the repository.

        Only then a 404 for something in the repository means that it does not exist.
        """
        answer, _ = self.client.get_kept(self.path, understand_repository, expected=(200, 404))
        if answer.status == 404:
            raise BackendError(
                f"GitHub does not show the repository {self.name!r} to this token: it was deleted "
                "or renamed, or the token lost its access"
            )


def commit_of(answer: GitHubAnswer) -> str:
    """The commit that a branch or a tag points to."""
    return str(answer.member("object", "sha"))
