"""All REST operations of the fake GitHub."""

from __future__ import annotations

from collections.abc import Mapping

from . import rest_git, rest_releases, rest_repositories
from .calls import Handler


def handlers() -> Mapping[str, Handler]:
    """The operations that the fake has, by "METHOD /template".

    If a client asks for another operation that GitHub describes, such as those for issues,
    that is a violation.
    """
    return {**rest_repositories.HANDLERS, **rest_git.HANDLERS, **rest_releases.HANDLERS}
