"""The rule against dependency confusion: which projects may be looked for at another index.

Anybody may publish a project under a name of this repository at a public index. So a name that is
claimed, or that the repository ever had, is never looked for elsewhere.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.utils import NormalizedName, is_normalized_name


@dataclass(frozen=True, slots=True)
class ExtraIndex:
    """Another index, to which clients are sent for projects that are not here."""

    url: str  # with a final slash; "" when there is none
    claimed: Sequence[str]
    """Patterns of names that belong to the repository, whether or not it has such a project."""

    def page_of(self, project: NormalizedName, *, was_ours: bool) -> str | None:
        """The address of the project's page there; None if it must not be looked for.

        `was_ours`: whether the repository ever had the project. A text that is not a normalised
        name is not looked for, because it could give the address of another project.
        """
        if not self.url or was_ours or self.is_claimed(project) or not is_normalized_name(project):
            return None
        return f"{self.url}{project}/"

    def is_claimed(self, project: NormalizedName) -> bool:
        """Whether the configuration claims this name for the repository."""
        return any(fnmatch.fnmatchcase(project, pattern) for pattern in self.claimed)
