"""Which kind of repository a table of the configuration is, and how it is made."""

from __future__ import annotations

from pathlib import Path

from private_pypi.backend import SupportsList, can
from private_pypi.configuration.config import RepositorySettings
from private_pypi.repositories.folders import made, make_folders
from private_pypi.repositories.looked_up import LookedUp
from private_pypi.repositories.repository import Repository
from private_pypi.repositories.synchronized import Synchronized
from private_pypi.storage.verdicts import Expiry


def make_repository(
    settings: RepositorySettings, *, root: Path, tmp: Path, expiry: Expiry, extra_index_url: str
) -> Repository:
    """The repository of a table of the configuration. Makes its folders below `root`; starts
    nothing.
    """
    kind = Synchronized if can(settings.backend_class, SupportsList) else LookedUp
    return kind(
        settings,
        settings.backend_class(settings.backend, make_folders(root, settings.name, tmp)),
        index_folder=made(root / "index" / settings.name),
        extra_index_url=extra_index_url,
        expiry=expiry,
    )
