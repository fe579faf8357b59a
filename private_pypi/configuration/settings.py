"""The checked settings of a server, of its repositories and of its groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from private_pypi.backend import AnyBackend, BackendSettings, Secret

BackendClass = type[AnyBackend]

# What a server has in ROOT, apart from the folder `cache`, which has a folder for each repository.
_OWN_IN_ROOT: Final = frozenset(
    {
        *("admin_secret.toml", "allowed.toml", "config.toml", "fingerprint.key", "session_key"),
        *("index", "lock", "log", "tmp"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationText:
    """A TOML text, and where it came from."""

    text: str
    name: str  # shown in errors; a path, for example
    folder: Path | None  # where relative paths in it start; None: the working directory
    path: Path | None = None  # the file that it was read from; None: it was not in a file


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What a configuration that is submitted over HTTP may do. It can use nothing outside ROOT."""

    root: Path
    is_trusted: bool = False  # whether it was submitted with the admin token
    allowed_env: frozenset[str] = frozenset()  # environment variables that it may read
    allowed_addresses: frozenset[str] = frozenset()  # allowed without the admin token

    def may_store(self, path: Path, repository: str) -> bool:
        """Whether a repository may have its files at an absolute path.

        It must be in ROOT, but not where the server has files of its own, which would be replaced.
        """
        try:
            below = path.resolve().relative_to(self.root.resolve()).parts
        except ValueError:
            return False
        if below[:1] == ("cache",):
            return below[1:2] == (repository,)
        return bool(below) and below[0] not in _OWN_IN_ROOT and not below[0].startswith(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySettings:
    """The checked table of a repository."""

    name: str  # lower case
    type: str
    backend_class: BackendClass
    backend: BackendSettings  # an instance of `backend_class.Settings`
    max_file_bytes: int
    sync_index_interval: timedelta
    stale_for: timedelta  # zero for a storage that can list all its files
    extra_index_url: str | None  # ends with one slash; None: that of the server; "": none
    claimed: tuple[str, ...]  # glob patterns for normalised project names
    anonymous_read: bool  # whether clients without a secret may read
    admin_secret: Secret | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """The checked table of a group: several repositories behind one address."""

    name: str  # lower case
    members: tuple[str, ...]  # names of other tables, lower case, in order
    mix: frozenset[str]  # normalised names of projects for which all members answer together
    publish_to: str | None  # one of the members; None: nothing can be published
    claimed: tuple[str, ...]  # as in `RepositorySettings`
    anonymous_read: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The repositories of a server, by name."""

    repositories: Mapping[str, RepositorySettings]
    groups: Mapping[str, GroupSettings] = field(default_factory=dict)
    """A group comes after its members."""
    files: frozenset[Path] = frozenset()
    """All files that were read. If one of them changes, the configuration may change."""
