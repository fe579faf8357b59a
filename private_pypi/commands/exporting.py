"""`export`: the index of any repository as a folder of static pages, with its files or links."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from packaging.utils import NormalizedName

from private_pypi.backend import (
    Access,
    AnyStorage,
    PublicAddress,
    SupportsCoreMetadata,
    SupportsList,
    SupportsProjects,
    SupportsPublicAddresses,
    capability,
)
from private_pypi.commands.command_line import UsageError
from private_pypi.commands.files import one_secret, say, warn
from private_pypi.commands.indexing import Progress
from private_pypi.commands.opening import (
    StoredGrant,
    folders_of_command,
    found_files,
    listed_names,
    open_repository,
    read_table,
)
from private_pypi.distributions.core_metadata import LARGEST_METADATA
from private_pypi.distributions.filenames import normalize
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    FileNotFound,
    InvalidUpload,
    ProjectNotFound,
    WrongSecret,
)
from private_pypi.index.document import EMPTY, new_entry, write_document
from private_pypi.index.examining import chunks_of
from private_pypi.index.reconciling import SKIPPED_BY_DOCUMENT
from private_pypi.model import DistributionFile, Download, LocalFile
from private_pypi.pages.static_site import Document, SiteFile, write_site

_BLOCK = 1 << 20  # bytes
_TOLD = 20  # how many files are named that are not on the pages


def export(
    name: str,
    folder: str,
    *,
    config: str,
    admin_secret: str | None = None,
    root: str | None = None,
    user: str | None = None,
    project: str | None = None,
    link_public: bool = False,
    secret: str | None = None,
    secret_env: str | None = None,
    secret_file: str | None = None,
    environ: Mapping[str, str],
) -> None:
    """Write the pages of a repository of any type into a folder of static files.

    The pages say of every file what the server says. The files are copied into the folder, and
    everyone who can read the folder can read them.

    If the command is run again, it fetches only new files, and removes those that are not in the
    repository any more. It does not change any other files in the folder. If the storage is in
    trouble, the pages stay as they are.

    Args:
        name: The name of the repository.
        folder: The folder. It is created if it does not exist.
        config: Path of a configuration file with a table for NAME.
        admin_secret: Path of the file of admin secrets (TOML), with a table for NAME.
        root: The folder of the server. It is needed for a file_system repository without a path
            of its own, whose files are stored inside this folder. For other types, what this
            server knows is not asked for again.
        user: The tenant, for a repository that serves several: the owner of the projects on
            GitHub, for example.
        project: Write the pages of these projects only (names separated by commas). It is needed
            if the storage cannot list its projects.
        link_public: Link to files that everybody can fetch from the storage, such as those of a
            public repository on GitHub, instead of copying them.
        secret: A secret that may read the storage, unless the admin secrets have one. Use
            --secret_env or --secret_file instead where other users of the machine could see the
            command line.
        secret_env: Name of the environment variable that holds the secret.
        secret_file: Path of a file that holds the secret.

    Example:
        private_pypi export acme site --config config.toml --secret_env GITHUB_TOKEN
    """
    if not folder:  # perhaps an unset variable; the current folder is not meant
        raise UsageError("FOLDER is empty; give the path of a folder")
    given = one_secret("secret", raw=secret, env=secret_env, file=secret_file, environ=environ)
    table = read_table(name, config, admin_secret, environ)
    only: list[NormalizedName] | None = None
    if project is not None:
        only = sorted({normalize(each.strip()) for each in project.split(",")})
    with (
        folders_of_command([table], root) as folders,
        open_repository(table, given, folders, access=Access.READ, user=user) as grant,
    ):
        export_repository(grant, Path(folder), only=only, link_public=link_public)


def export_repository(
    grant: StoredGrant,
    folder: Path,
    *,
    only: Sequence[NormalizedName] | None = None,
    link_public: bool = False,
) -> None:
    """Write the pages of a repository that is up to date. `only`: of these projects.

    Raises an error, before anything is written, unless all that belongs on the pages is known.
    """
    storage = grant.repository.storage(grant.secret)
    _require_read(grant, storage)
    names = _names(grant, storage) if only is None else only
    files = _all_files(grant, storage, names, must_exist=only is not None)
    _check_unshown(grant, storage, None if only is None and _lists_files(storage) else names)
    addresses: Mapping[str, PublicAddress] = {}
    if link_public:
        public = capability(storage, SupportsPublicAddresses)
        if public is None:
            raise ConfigurationError(
                f"a repository of type {grant.repository.settings.type!r} has no files that "
                "everybody can fetch; leave out --link_public"
            )
        addresses = public.public_addresses(files)

    def document(shown: Sequence[DistributionFile]) -> bytes:
        # Where the storage has its files is nobody's business. These are relative to the document.
        entries = (
            replace(
                file,
                location=addresses[file.filename].url
                if file.filename in addresses
                else f"{file.project}/{file.filename}",
            )
            for file in shown
        )
        with tempfile.TemporaryDirectory(prefix="private-pypi-") as temporary:
            path = Path(temporary) / "index.toml"
            write_document(
                replace(EMPTY, entries=tuple(new_entry(each, stamp=None) for each in entries)),
                path,
                backend_type=grant.repository.settings.type,
                location_key="url",
            )
            return path.read_bytes()

    write_pages(folder, grant.name, files, storage, addresses, document=document, with_json=True)


def write_pages(
    folder: Path,
    title: str,
    files: Sequence[DistributionFile],
    storage: AnyStorage,
    addresses: Mapping[str, PublicAddress],
    *,
    document: bytes | Document,
    with_json: bool = False,
) -> None:
    """Write the pages of these files, and tell what was done.

    Files that have an address are linked there, all others are copied. `document` becomes
    `index.toml`. Raises the errors of the storage and those of `write_site`.
    """

    def fetch(file: DistributionFile) -> Iterator[bytes]:
        try:
            return _content(storage.open_file(file), file.filename)
        except InvalidUpload as error:  # it has become something else since it was listed
            raise BackendError(str(error)) from error

    def fetch_core_metadata(file: DistributionFile) -> bytes | None:
        keeping = capability(storage, SupportsCoreMetadata)
        if keeping is None:
            return None
        content = b""
        try:
            for chunk in _content(keeping.open_core_metadata(file), f"{file.filename}.metadata"):
                content += chunk
                if len(content) > LARGEST_METADATA:
                    return None
        except FileNotFound:
            return None
        return content

    progress = Progress()
    try:
        update = write_site(
            folder.absolute(),
            title,
            [_site_file(file, addresses.get(file.filename)) for file in files],
            document=document,
            fetch=fetch,
            fetch_core_metadata=fetch_core_metadata,
            with_json=with_json,
            progress=progress,
        )
    finally:
        progress.end()
    say(f"{title}: {update}")


def _site_file(file: DistributionFile, address: PublicAddress | None) -> SiteFile:
    if address is None:
        return SiteFile(file=file, address=None)
    if not address.has_core_metadata:
        # If a page announces core metadata that are not there, installers may fail.
        file = replace(file, core_metadata_sha256=None)
    return SiteFile(file=file, address=address.url)


def _content(download: Download, filename: str) -> Iterator[bytes]:
    if not isinstance(download, LocalFile):
        yield from chunks_of(download, filename)
        return
    with download.file as file:
        while chunk := file.read(_BLOCK):
            yield chunk


# -- what belongs on the pages -------------------------------------------------------------------


def _require_read(grant: StoredGrant, storage: AnyStorage) -> None:
    """Raise unless the storage accepts the secret: without it, everything would look absent."""
    traits = grant.repository.traits
    is_asked = traits.needs_admin_secret or traits.rights_per_project
    if is_asked and storage.access() is Access.NONE:
        raise WrongSecret(
            f"the storage of {grant.name!r} does not accept the secret, or is not where the "
            "configuration says; nothing was written"
        )


def _lists_files(storage: AnyStorage) -> bool:
    """Whether the repository knows all files; if not, projects are looked up."""
    return capability(storage, SupportsList) is not None


def _names(grant: StoredGrant, storage: AnyStorage) -> list[NormalizedName]:
    """The names of all projects; raises if the storage cannot tell them."""
    if not _lists_files(storage) and capability(storage, SupportsProjects) is None:
        raise UsageError(
            f"the storage of {grant.name!r} cannot list its projects: name them with --project"
        )
    names = listed_names(grant)
    if not names and not _lists_files(storage):
        # Some registries have no list of projects, or do not show it to this secret.
        raise ConfigurationError(
            f"the storage of {grant.name!r} lists no projects for this secret: name them with "
            "--project, or complete its list with update_index if it is an oci repository"
        )
    return names


def _all_files(
    grant: StoredGrant, storage: AnyStorage, names: Sequence[NormalizedName], *, must_exist: bool
) -> list[DistributionFile]:
    """The files of these projects; a project that a storage lists may have none."""
    if _lists_files(storage) and (error := grant.repository.index.sync_state().error):
        raise BackendUnavailable(f"{error}; nothing was written", retry_after=30)
    files: list[DistributionFile] = []
    missing: list[str] = []
    progress = Progress()
    try:
        for number, name in enumerate(names):
            progress(number, len(names), "looking for files")
            found = _indexed(grant, name) if _lists_files(storage) else found_files(grant, name)
            files += found
            if must_exist and not found:
                missing.append(f"{grant.name!r} has no project {name!r}; leave it out of --project")
    finally:
        progress.end()
    if missing:
        raise ConfigurationError(*missing)
    return files


def _indexed(grant: StoredGrant, name: NormalizedName) -> tuple[DistributionFile, ...]:
    """The files of a project in an index that was synchronised just now, so that it has all."""
    try:
        grant.repository.check_project(name, grant.secret)
    except ProjectNotFound:
        return ()
    return grant.repository.index.project_files(name)


def _check_unshown(
    grant: StoredGrant, storage: AnyStorage, names: Sequence[NormalizedName] | None
) -> None:
    """Warn of stored files that are broken; raise if there are others that are not shown.

    They may be all right, so pages without them would call them absent. `names`: only files of
    these projects count.
    """
    index = grant.repository.index
    unshown: dict[str, str] = {}
    for name in [None] if names is None else names:
        unshown |= index.unshown(name)
    # A lookup fails if there is trouble with any file, so the others are broken.
    broken = index.broken() if _lists_files(storage) else unshown
    unread = {
        filename: problem
        for filename, problem in unshown.items()
        if filename not in broken and problem != SKIPPED_BY_DOCUMENT
    }
    if unread:
        filename, problem = next(iter(unread.items()))
        others = f" (and {len(unread) - 1} more)" if len(unread) > 1 else ""
        raise BackendUnavailable(
            f"{filename!r}{others} is in the storage, but cannot be shown now: {problem}; "
            "nothing was written",
            retry_after=30,
        )
    for filename, problem in list(unshown.items())[:_TOLD]:
        warn(f"warning: {filename!r} is not on the pages: {problem}")
    if len(unshown) > _TOLD:
        warn(f"warning: {len(unshown) - _TOLD} more files are not on the pages")
