"""Opens repositories of a configuration for commands that work without a server."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path

from packaging.utils import NormalizedName

from private_pypi.backend import Access, Secret
from private_pypi.commands.command_line import UsageError
from private_pypi.commands.files import usable_root
from private_pypi.configuration.config import (
    ConfigurationText,
    RepositorySettings,
    read_configuration,
    read_source,
)
from private_pypi.configuration.kept import CONFIG, KeptConfiguration
from private_pypi.errors import BackendUnavailable, ConfigurationError
from private_pypi.model import FRESH, DistributionFile
from private_pypi.repositories import Found, Grant, StoredRepository, make_stored, require_storage
from private_pypi.system.background import StillRunning

LOOKUP_SECONDS = 600
"""For which a lookup of one project is waited for."""

_TROUBLE_SECONDS = 30  # for which a storage in trouble is asked again


def read_table(
    name: str, config: str | Path, admin_secret: str | None, environ: Mapping[str, str]
) -> RepositorySettings:
    """The table of one repository that has a storage, for a command that works on that.

    The secrets of others may not be on this machine.
    """
    table = read_configuration(
        read_source(Path(config)),
        None if admin_secret is None else read_source(Path(admin_secret)),
        environ=environ,
        only=name,
    ).repositories[name.lower()]
    require_storage(table)
    return table


def sources_of_command(
    config: str | None, admin_secret: str | None, root: Path | None
) -> tuple[ConfigurationText, ConfigurationText | None]:
    """The configuration and the admin secrets: the given files, or else those in ROOT.

    Raises `UsageError` if there is no configuration.
    """
    admin_source = None if admin_secret is None else read_source(Path(admin_secret))
    if config is not None:
        return read_source(Path(config)), admin_source
    if root is None:
        raise UsageError("missing --config, or --root of a server that has a configuration in it")
    kept = KeptConfiguration(root)
    if kept.state() is None:
        raise UsageError(f"there is no file {str(root / CONFIG)!r}: give --config")
    with kept.locked():
        source, kept_admin_secret = kept.read()
    assert source is not None
    return source, admin_source or kept_admin_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandFolders:
    """Where a command keeps what it needs."""

    root: Path  # the folder of the server, or one that is removed afterwards
    tmp: Path  # for temporary files, in `root`


@contextlib.contextmanager
def folders_of_command(
    tables: Sequence[RepositorySettings], root: str | None
) -> Iterator[CommandFolders]:
    """The folders in which a command opens these repositories; `root` is `--root`."""
    with contextlib.ExitStack() as stack:
        for table in tables:
            existing_root(table, root)
        parent = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="private-pypi-")))
        if root is not None:
            parent = usable_root(root)
        tmp = stack.enter_context(tempfile.TemporaryDirectory(prefix="command-", dir=parent))
        yield CommandFolders(root=parent, tmp=Path(tmp))


@dataclass(frozen=True, slots=True)
class StoredGrant(Grant):
    """A grant for a repository that has a storage."""

    repository: StoredRepository


@contextlib.contextmanager
def open_repository(
    settings: RepositorySettings,
    given: Secret | None,
    folders: CommandFolders,
    *,
    access: Access,
    flag: str = "secret",
    user: str | None = None,
) -> Iterator[StoredGrant]:
    """A repository that is up to date, with the rights that are needed.

    `flag` is that of the secret, for messages. `user` is the name of a tenant.
    """
    from private_pypi.storage.verdicts import Expiry

    secret = secret_for(settings, given, flag=flag, access=access)
    if given is not None and settings.backend_class.traits.needs_admin_secret:
        settings = replace(settings, admin_secret=given)
    table = make_stored(
        settings,
        root=folders.root,
        tmp=folders.tmp,
        expiry=Expiry(timedelta(hours=1), timedelta(hours=1)),
        extra_index_url="",
    )
    try:
        repository = table if user is None else table.tenant(user.lower())
        if repository is None:
            raise ConfigurationError(
                f"--user: repository {settings.name!r} does not serve the user {user!r}"
            )
        repository.synchronize()
        repository.require_ready()
        yield StoredGrant(repository, access, secret)
    finally:
        table.close()


def secret_for(
    settings: RepositorySettings,
    given: Secret | None,
    *,
    flag: str = "secret",
    access: Access = Access.WRITE,
) -> Secret:
    """The secret with which a command uses a storage: the given one, or the admin secret."""
    secret = given or settings.admin_secret
    if secret is not None:
        return secret
    traits = settings.backend_class.traits
    if traits.needs_admin_secret or traits.rights_per_project:
        raise ConfigurationError(
            f"a repository of type {settings.type} needs a secret that may "
            f"{'read' if access is Access.READ else 'write'}: give "
            f"--{flag}_env, --{flag}_file or --{flag}, or --config and --admin_secret"
        )
    return Secret("")


def existing_root(settings: RepositorySettings, root: str | None) -> Path | None:
    """ROOT, if it was given. It must exist: a new one would look like an empty storage."""
    values = (getattr(settings.backend, each.name) for each in fields(settings.backend))
    is_below_root = settings.backend_class.traits.opens_here and not any(
        isinstance(value, Path) for value in values
    )
    if root is None:
        if is_below_root:
            raise UsageError(
                f"the files of {settings.name!r} are in ROOT: give --root, or configure a path "
                "with the folder of the files"
            )
        return None
    needed = Path(root, "cache", settings.name) if is_below_root else Path(root)
    if not needed.is_dir():
        raise ConfigurationError(f"--root: there is no folder {str(needed)!r}")
    return usable_root(root)


def listed_names(grant: StoredGrant) -> list[NormalizedName]:
    """The names that the storage lists now; a list that takes long is waited for."""
    deadline = time.monotonic() + LOOKUP_SECONDS
    while True:
        try:
            listed = grant.list_projects()
            break
        except StillRunning:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
    if listed.freshness != FRESH:
        raise BackendUnavailable(
            f"which projects {grant.name!r} has is not known now, because the storage is in "
            "trouble",
            retry_after=30,
        )
    return listed.names()


def found_files(grant: StoredGrant, name: NormalizedName) -> tuple[DistributionFile, ...]:
    """The files of a project as it is now; none if there is no such project.

    A lookup that takes long is waited for, and a short trouble too.
    """
    begun = time.monotonic()
    while True:
        trouble: BackendUnavailable
        try:
            found = grant.find(name)
        except StillRunning as error:
            trouble, patience = error, LOOKUP_SECONDS
        except BackendUnavailable:
            if grant.is_at_hand(name):
                return ()  # it was looked up, and all of its files are broken
            raise
        else:
            if not isinstance(found, Found):
                return ()
            if found.freshness == FRESH:
                return grant.repository.index.project_files(name)
            patience = _TROUBLE_SECONDS
            trouble = BackendUnavailable(
                f"which files project {name!r} has is not known now, because the storage is in "
                "trouble",
                retry_after=30,
            )
        if time.monotonic() - begun > patience:
            raise trouble
        time.sleep(1)
