"""The commands `update_index` and `restore_name`, which access a storage directly."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from private_pypi.backend import (
    Access,
    AnyStorage,
    Folders,
    SupportsList,
    SupportsProjectList,
    can,
    capability,
)
from private_pypi.commands.command_line import REQUIRED, Parameter, Texts, UsageError
from private_pypi.commands.files import one_secret, say, usable_root, warn
from private_pypi.commands.opening import (
    existing_root,
    read_table,
    secret_for,
    sources_of_command,
)
from private_pypi.configuration.config import (
    ConfigurationText,
    RepositorySettings,
    check_repository,
    read_configuration,
)
from private_pypi.configuration.fields import BackendField, backend_fields, in_words
from private_pypi.distributions.filenames import parse_filename
from private_pypi.errors import ConfigurationError, NotAllowed, WrongSecret
from private_pypi.storage import plugins


def update_index(
    type: str | None = None,  # noqa: A002 - the flag's name
    name: str | None = None,
    *,
    secret: str | None = None,
    secret_env: str | None = None,
    secret_file: str | None = None,
    config: str | None = None,
    admin_secret: str | None = None,
    root: str | None = None,
    environ: Mapping[str, str],
    **fields: Any,
) -> None:
    """Rebuild the index document of a repository from the files in its storage.

    The index document, index.toml, is a list of all files in the storage. Files that are listed
    in it already are not opened again, and yanks are kept. If nothing has changed, nothing is
    written.
    An oci repository has no such document. There, this command completes the list of projects,
    which registries without a catalogue need: it adds the projects of the catalogue, if the secret
    may read it, and those that the server in --root has seen.
    The settings of the repository are read from a configuration file (--config), or given as
    flags. To see the flags for a type of storage, such as file_system, run
    `private_pypi update_index file_system --help`.

    Usage:
        private_pypi update_index TYPE NAME --secret_env VARIABLE <fields>
        private_pypi update_index NAME --config FILE <flags>

    Args:
        type: The type of the repository, such as file_system.
        name: The name of the repository.
        secret: A secret that may write to the storage. Use --secret_env or --secret_file
            instead where other users of the machine could see the command line.
        secret_env: Name of the environment variable that holds the secret.
        secret_file: Path of a file that holds the secret.
        config: Path of a configuration file with a table for NAME. Leave out TYPE if you give
            this flag.
        admin_secret: Path of the file of admin secrets (TOML), with a table for NAME.
        root: The folder of the server. It is needed for a file_system repository without a path
            of its own, whose files are stored inside this folder. For an object_storage repository,
            a listing that was interrupted is kept there, and the next run continues it. For an oci
            repository, the projects that this server has seen are listed.

    Example:
        private_pypi update_index file_system mine --root ./root
        private_pypi update_index mine --config config.toml --admin_secret admin_secret.toml
    """
    from private_pypi.index.rebuilding import update_index as update
    from private_pypi.repositories import require_storage
    from private_pypi.storage.retrying import retrying

    for flag, path in (("config", config), ("admin_secret", admin_secret), ("root", root)):
        if path == "":  # from an unset variable; it must not mean the working directory
            raise UsageError(f"--{flag} is empty; leave it out, or give a path")
    given = one_secret("secret", raw=secret, env=secret_env, file=secret_file, environ=environ)
    if config is None:
        settings = _from_flags(type, name, fields, admin_secret, environ)
    else:
        settings = _from_configuration(type, name, Path(config), admin_secret, environ)
    require_storage(settings)
    has_document = can(settings.backend_class, SupportsList)
    if not has_document and not can(settings.backend_class, SupportsProjectList):
        raise ConfigurationError(
            f"a repository of type {settings.type!r} has no index document that could be rebuilt: "
            "the server asks the storage for each project"
        )
    secret_to_use = secret_for(settings, given)
    parent = existing_root(settings, root)
    with tempfile.TemporaryDirectory(prefix="private-pypi-") as temporary:
        folders = _folders(parent or Path(temporary), settings.name, Path(temporary))
        backend = settings.backend_class(settings.backend, folders)
        storage = backend.seen_with(secret_to_use)
        if not backend.traits.answers_at_once:
            storage = retrying(storage)
        progress = Progress()
        try:
            if backend.traits.needs_admin_secret:
                _require_write(storage, settings.name)
            if not has_document:
                listing = capability(storage, SupportsProjectList)
                assert listing is not None
                added, before = listing.update_projects()
                say(f"{settings.name}: {added} added to the list of projects, {before} were in it")
                return
            result = update(
                storage,
                backend_type=settings.type,
                name=settings.name,
                progress=progress,
                folder=folders.tmp,
                keep=folders.cache,
            )
        finally:
            progress.end()
            backend.close()
    for sentence in result.skipped:
        warn(f"warning: {sentence}")
    say(str(result))


def restore_name(
    root: str,
    name: str,
    filename: str,
    *,
    user: str | None = None,
    config: str | None = None,
    admin_secret: str | None = None,
    secret: str | None = None,
    secret_env: str | None = None,
    secret_file: str | None = None,
    environ: Mapping[str, str],
) -> None:
    """Allow the filename of a deleted file to be used again.

    The filename of a deleted file is normally never used again, because installers and lock files
    remember its content: where the deleted file was installed, a new file of the same name may be
    refused. Publish a new version instead if you can.
    Run this command on the machine of the server, as the user of the server. The server may be
    running, and accepts an upload of the file right away. If the storage still has a file of this
    name, for example one from a backup, that file is shown again.

    Args:
        root: The folder of the server.
        name: The name of the repository.
        filename: The name of the deleted file; different spellings of it are accepted.
        user: The owner of the project on GitHub, for a github_projects repository that serves
            several owners.
        config: Path of the configuration file, if it is not in ROOT.
        admin_secret: Path of the file of admin secrets (TOML), if it is not in ROOT.
        secret: A secret that may write to the storage, if it needs one and the admin secrets do
            not have it. Use --secret_env or --secret_file instead where other users of the
            machine could see the command line.
        secret_env: Name of the environment variable that holds the secret.
        secret_file: Path of a file that holds the secret.

    Example:
        private_pypi restore_name ./root mine demo-1.0.tar.gz --config config.toml
    """
    from private_pypi.repositories import has_state, make_stored, require_storage
    from private_pypi.storage.verdicts import Expiry
    from private_pypi.web.operations.audit import AuditLog, entry_time

    given = one_secret("secret", raw=secret, env=secret_env, file=secret_file, environ=environ)
    folder = Path(root)
    if not root or not folder.is_dir():
        raise ConfigurationError(f"ROOT: there is no folder {root!r}")
    folder = usable_root(root)
    project = parse_filename(filename).project
    source, admin_source = sources_of_command(config, admin_secret, folder)
    settings = read_configuration(source, admin_source, environ=environ, only=name).repositories[
        name.lower()
    ]
    require_storage(settings)
    if not has_state(folder, settings.name):
        raise ConfigurationError(
            f"ROOT: {root!r} does not contain a repository {settings.name!r}; it must be the "
            "folder with which the server was started"
        )
    with tempfile.TemporaryDirectory(prefix="private-pypi-", dir=folder) as temporary:
        table = make_stored(
            settings,
            root=folder,
            tmp=Path(temporary),
            expiry=Expiry(timedelta(), timedelta()),
            extra_index_url="",
        )
        try:
            repository = table if user is None else table.tenant(user.lower())
            if repository is None:
                raise ConfigurationError(
                    f"--user: repository {settings.name!r} does not serve the user {user!r}"
                )
            secret_to_use = secret_for(settings, given)
            traits = settings.backend_class.traits
            if traits.needs_admin_secret or traits.rights_per_project:
                _require_write(
                    repository.storage(secret_to_use),
                    repository.name,
                    project if traits.rights_per_project else None,
                )
            restored = repository.restore_name(filename, secret_to_use)
        finally:
            table.close()
    if not restored:
        say(f"{repository.name}: no file named {filename} was deleted; nothing to do")
        return
    audit = AuditLog(folder)
    audit.append(
        {
            "time": entry_time(datetime.now(UTC)),
            "action": "restore_name",
            "outcome": "done",
            "repository": repository.name,
            "files": [{"filename": each} for each in restored],
        }
    )
    audit.close()
    for each in restored:
        say(f"{repository.name}: the name {each} can be used again")


def _require_write(storage: AnyStorage, name: str, project: str | None = None) -> None:
    where = f"the storage of {name!r}" if project is None else f"project {project!r} of {name!r}"
    access = storage.access(project)
    if access is Access.NONE:
        raise WrongSecret(
            f"{where} does not accept the secret, or is not where the configuration says; "
            "nothing was changed"
        )
    if access < Access.WRITE:
        raise NotAllowed(f"the secret may read {where}, but not write to it; nothing was changed")


def backend_flags(texts: Texts) -> Sequence[Parameter]:
    """The flags of `update_index TYPE`, which are the fields of that backend."""
    if "config" in texts or "type" not in texts:
        return []
    if "name" not in texts and texts["type"] not in plugins.backend_types():
        return []  # `update_index NAME` without --config, for which `_from_flags` raises an error
    found: list[Parameter] = []
    for field in backend_fields(plugins.load_backend(texts["type"])):
        required = field.required and field.takes == "a value"
        found.append(
            Parameter(
                name=field.name,
                annotation=field.annotation,
                help=f"Field of the configuration: {_in_words(field)}.",
                default=REQUIRED if required else None,
            )
        )
        found += [
            Parameter(
                name=key, help=f"Instead of --{field.name}: {what} that holds it.", default=None
            )
            for key, what in zip(
                field.keys[1:], ("the environment variable", "the file"), strict=False
            )
        ]
    return found


class Progress:
    """Reports the progress of long work to stderr.

    On a terminal, one line is rewritten. Otherwise, a new line is written every five seconds.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._every = 0.1 if self._terminal else 5.0  # seconds
        self._last = clock()
        self._shown = 0  # characters of the line on the terminal

    def __call__(self, done: int, total: int | None, what: str) -> None:
        now = self._clock()
        if now - self._last < self._every:
            return
        self._last = now
        line = f"{what}: {done}{f' of {total}' if total is not None else ''}"
        if self._terminal:
            self._stream.write("\r" + line.ljust(self._shown))
            self._shown = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def end(self) -> None:
        """End the line that was rewritten."""
        if self._shown:
            self._stream.write("\n")


def _from_flags(
    type_: str | None,
    name: str | None,
    fields: Mapping[str, Any],
    admin_secret: str | None,
    environ: Mapping[str, str],
) -> RepositorySettings:
    if type_ is None or name is None:
        raise UsageError(
            "NAME is missing; the command must be update_index TYPE NAME, or update_index NAME "
            "--config FILE"
        )
    if admin_secret is not None:
        raise UsageError("--admin_secret needs --config; without it, give --secret_env instead")
    split = {
        each.name
        for each in backend_fields(plugins.load_backend(type_))
        if in_words(each.annotation).startswith("a list") and each.takes == "a value"
    }
    values = {key: value.split(",") if key in split else value for key, value in fields.items()}
    return check_repository(
        name,
        {"type": type_, **values},
        source=ConfigurationText(text="", name="command line", folder=None),
        environ=environ,
    )


def _from_configuration(
    type_: str | None,
    name: str | None,
    config: Path,
    admin_secret: str | None,
    environ: Mapping[str, str],
) -> RepositorySettings:
    if name is None:
        type_, name = None, type_
    if name is None:
        raise UsageError("NAME is missing; the command must be update_index NAME --config FILE")
    settings = read_table(name, config, admin_secret, environ)
    if type_ is not None and type_ != settings.type:
        raise ConfigurationError(
            f"TYPE: {settings.name!r} is of type {settings.type!r} in {config}, not {type_!r}"
        )
    return settings


def _folders(parent: Path, name: str, temporary: Path) -> Folders:
    folders = Folders(
        cache=parent / "cache" / name, lock=parent / "lock" / name, tmp=temporary / "tmp"
    )
    for each in (folders.cache, folders.lock, folders.tmp):
        each.mkdir(parents=True, exist_ok=True)
    return folders


def _in_words(field: BackendField) -> str:
    return in_words(field.annotation) if field.takes == "a value" else "a secret"
