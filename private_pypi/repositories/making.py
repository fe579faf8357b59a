"""Which kind of repository a table of the configuration is, and how it is made."""

from __future__ import annotations

from pathlib import Path

from private_pypi.backend import SupportsList, SupportsUpstream, can
from private_pypi.configuration.config import RepositorySettings
from private_pypi.errors import ConfigurationError
from private_pypi.repositories.folders import made, make_folders
from private_pypi.repositories.looked_up import LookedUp
from private_pypi.repositories.mirror import Mirror, NoteAllowance
from private_pypi.repositories.stored import StoredRepository
from private_pypi.repositories.synchronized import Synchronized
from private_pypi.storage.verdicts import Expiry


def make_repository(
    settings: RepositorySettings,
    *,
    root: Path,
    tmp: Path,
    expiry: Expiry,
    extra_index_url: str,
    note_allowance: NoteAllowance | None = None,
) -> StoredRepository | Mirror:
    """The repository of a table of the configuration. Makes its folders below `root`; starts
    nothing. `note_allowance`: see `Mirror`.
    """
    if can(settings.backend_class, SupportsUpstream):
        return Mirror(
            settings,
            settings.backend_class(settings.backend, make_folders(root, settings.name, tmp)),
            root=root,
            index_folder=made(root / "index" / settings.name),
            note_allowance=note_allowance,
        )
    return make_stored(settings, root=root, tmp=tmp, expiry=expiry, extra_index_url=extra_index_url)


def make_stored(
    settings: RepositorySettings, *, root: Path, tmp: Path, expiry: Expiry, extra_index_url: str
) -> StoredRepository:
    """The same for a repository that has a storage; raises `ConfigurationError` for a mirror."""
    require_storage(settings)
    kind = Synchronized if can(settings.backend_class, SupportsList) else LookedUp
    return kind(
        settings,
        settings.backend_class(settings.backend, make_folders(root, settings.name, tmp)),
        index_folder=made(root / "index" / settings.name),
        extra_index_url=extra_index_url,
        expiry=expiry,
    )


def require_storage(settings: RepositorySettings) -> None:
    """Raise `ConfigurationError` if this is the table of a mirror."""
    if can(settings.backend_class, SupportsUpstream):
        raise ConfigurationError(
            f"repository {settings.name!r} is of type {settings.type!r}: it has no storage of its "
            "own, so this command cannot be used for it"
        )
