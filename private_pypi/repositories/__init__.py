"""The repositories of a server: what they have, who may do what, and which one a request means.

Begin with `source`, which says what a repository answers. There are two kinds of repositories,
`synchronized` and `looked_up`, which have their base class in `repository`. A `Grant` is a
repository together with the rights of one caller.
"""

from private_pypi.repositories.choosing import Credentials, Repositories
from private_pypi.repositories.folders import has_state, make_folders
from private_pypi.repositories.grants import Grant
from private_pypi.repositories.looked_up import LookedUp
from private_pypi.repositories.making import make_repository
from private_pypi.repositories.opening import Opened, whole
from private_pypi.repositories.repository import Repository, RepositoryState
from private_pypi.repositories.source import Absent, Elsewhere, Found, ProjectList, Source
from private_pypi.repositories.synchronized import Synchronized

__all__ = [
    "Absent",
    "Credentials",
    "Elsewhere",
    "Found",
    "Grant",
    "LookedUp",
    "Opened",
    "ProjectList",
    "Repositories",
    "Repository",
    "RepositoryState",
    "Source",
    "Synchronized",
    "has_state",
    "make_folders",
    "make_repository",
    "whole",
]
