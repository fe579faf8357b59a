"""In which member of a group files are published, and whether they would be seen in the group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from packaging.utils import NormalizedName

from private_pypi.backend import Secret
from private_pypi.errors import NotAllowed, Unsupported
from private_pypi.model import ListedFile
from private_pypi.repositories.group_members import Leaf, Path, any_had, cannot_tell, told_name
from private_pypi.repositories.repository import Repository


class Publishing:
    """Where a group publishes."""

    def __init__(self, group: str, path: Path, leaves: Mapping[Path, Leaf]) -> None:
        """`path`: the way to the repository in which files are published; (): there is none."""
        self._group = group
        self.path = path
        self._leaves = leaves

    def repository_for(self, project: NormalizedName, secret: Secret) -> Repository:
        """The repository to publish in.

        Raises `NotAllowed` if the file would not be seen in the group, and `Unsupported` if nothing
        can be published.
        """
        published = self._leaves.get(self.path)
        if published is None:
            raise self.read_only()
        name = published.repository.name
        unseen = f"so a file that is published in {name!r} would not be seen in {self._group!r}"
        if not published.may_answer(project):
            claimant = next((each for each in self._leaves.values() if each.claims(project)), None)
            raise NotAllowed(
                f"project {project!r} is claimed by {told_name(claimant.repository, secret)}, "
                f"{unseen}"
                if claimant is not None
                else f"project {project!r} is not among the names that repository {name!r} claims "
                f"({', '.join(map(repr, published.repository.claimed))}), {unseen}"
            )
        for leaf in self._leaves.values():
            if leaf is published:
                break
            if leaf.repository.is_mirror or not leaf.may_answer(project):
                continue
            if project in leaf.mix_with(published):
                continue
            other = leaf.repository
            if cannot_tell(other) or any_had([other], project, secret):
                where = told_name(other, secret)
                raise NotAllowed(f"project {project!r} belongs to {where}, {unseen}")
        return published.repository

    def repository_of(self, files: Sequence[ListedFile]) -> Repository:
        """The repository that has all of these files; `Unsupported` if they are in others."""
        if not self.path or any(file.source != self.path for file in files):
            raise self.read_only()
        return self._leaves[self.path].repository

    def read_only(self) -> Unsupported:
        """The error if nothing can be published."""
        return Unsupported(
            f"nothing can be published through {self._group!r}, which is a group without "
            "publish_to; publish at the address of one of its members, or set publish_to to its "
            "name"
        )
