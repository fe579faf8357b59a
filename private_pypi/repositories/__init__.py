"""The repositories of a server: what they have, who may do what, and which one a request means.

Begin with `repository`, which says what a repository is asked, and `answers`. Repositories with a
storage (`stored`) are of two kinds, `synchronized` and `looked_up`. A `mirror` reads another index
(`mirrored_pages`, `mirrored_files`). A `group` has other repositories as its members. A `Grant` is
a repository together with the rights of one caller.
"""

from private_pypi.repositories.answers import Absent, Elsewhere, Found, ProjectList, ToFetch
from private_pypi.repositories.choosing import Credentials, Repositories
from private_pypi.repositories.explaining import Explanation
from private_pypi.repositories.folders import has_state, make_folders
from private_pypi.repositories.grants import Grant
from private_pypi.repositories.group import Group
from private_pypi.repositories.looked_up import LookedUp
from private_pypi.repositories.making import make_repository, make_stored, require_storage
from private_pypi.repositories.mirror import Mirror
from private_pypi.repositories.mirrored_pages import ListNotRead
from private_pypi.repositories.opening import Opened, whole
from private_pypi.repositories.repository import Repository, RepositoryState
from private_pypi.repositories.stored import StoredRepository
from private_pypi.repositories.synchronized import Synchronized

__all__ = [
    "Absent",
    "Credentials",
    "Elsewhere",
    "Explanation",
    "Found",
    "Grant",
    "Group",
    "ListNotRead",
    "LookedUp",
    "Mirror",
    "Opened",
    "ProjectList",
    "Repositories",
    "Repository",
    "RepositoryState",
    "StoredRepository",
    "Synchronized",
    "ToFetch",
    "has_state",
    "make_folders",
    "make_repository",
    "make_stored",
    "require_storage",
    "whole",
]
