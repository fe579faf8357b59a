"""`update_index`: from flags to a backend, whose index is then rebuilt."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from private_pypi import plugins
from private_pypi.backend import Access, AnyBackend, Folders, Secret
from private_pypi.command_line import REQUIRED, Parameter, Texts, UsageError, type_name
from private_pypi.commands.files import one_secret, read_source, say, usable_root, warn
from private_pypi.config import (
    BackendField,
    RepositorySettings,
    Source,
    backend_fields,
    check_repository,
    in_words,
    read_configuration,
)
from private_pypi.errors import ConfigurationError, NotAllowed, WrongSecret


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
    """Rebuild the index of a repository from what its storage holds.

    Files that the index knows are not opened again; yanks are kept. Nothing is written when
    nothing changed. The fields of the configuration are flags: those of file_system are told by
    `private_pypi update_index file_system --help`.

    Usage:
        private_pypi update_index TYPE NAME --secret_env VARIABLE <fields>
        private_pypi update_index NAME --config FILE <flags>

    Args:
        type: The type of the backend, such as file_system.
        name: The repository.
        secret: The secret that may write to the storage; better given by one of the next two.
        secret_env: Name of the environment variable that holds the secret.
        secret_file: Path of a file that holds the secret.
        config: Path of a configuration that has a table for NAME; TYPE is then left out.
        admin_secret: Path of the admin secrets (TOML) that hold the secret for NAME.
        root: The folder of the server, where file_system keeps its files unless it is given a
            path.

    Example:
        private_pypi update_index file_system mine --root ./root
        private_pypi update_index mine --config config.toml --admin_secret admin_secret.toml
    """
    from private_pypi.indexing import update_index as update
    from private_pypi.retrying import retrying

    for flag, path in (("config", config), ("admin_secret", admin_secret), ("root", root)):
        if path == "":  # an unset variable, which is not meant to be the working folder
            raise UsageError(f"--{flag} is empty; leave it out, or give a path")
    given = one_secret("secret", raw=secret, env=secret_env, file=secret_file, environ=environ)
    if config is None:
        settings = _from_flags(type, name, fields, admin_secret, environ)
    else:
        settings = _from_configuration(type, name, Path(config), admin_secret, environ)
    if not settings.backend_class.capabilities.lists_files:
        raise ConfigurationError(
            f"a repository of type {settings.type!r} has no index: there is nothing to rebuild, "
            "the server asks the storage for each project"
        )
    secret_to_use = _secret_for(settings, given)
    parent = _existing_root(settings, root)
    with tempfile.TemporaryDirectory(prefix="private-pypi-") as temporary:
        folders = _folders(parent or Path(temporary), settings.name, Path(temporary))
        backend: AnyBackend = settings.backend_class(settings.backend, secret_to_use, folders)
        if not backend.capabilities.is_local:
            backend = retrying(backend)
        if backend.capabilities.needs_admin_secret:
            access = backend.access()
            if access is Access.NONE:
                raise WrongSecret(
                    f"the storage of {settings.name!r} does not accept the secret, or is not "
                    "where the configuration says; nothing was done"
                )
            if access < Access.WRITE:
                raise NotAllowed(
                    f"the secret may read the storage of {settings.name!r}, but not write to it; "
                    "nothing was done"
                )
        progress = Progress()
        try:
            result = update(
                backend,
                backend_type=settings.type,
                name=settings.name,
                progress=progress,
                folder=folders.tmp,
            )
        finally:
            progress.end()
    for sentence in result.skipped:
        warn(f"warning: {sentence}")
    say(str(result))


def backend_flags(texts: Texts) -> Sequence[Parameter]:
    """The flags of `update_index TYPE`: the fields of that backend."""
    if "config" in texts or "type" not in texts:
        return []
    if "name" not in texts and texts["type"] not in plugins.backend_types():
        return []  # `update_index NAME` without --config; what is missing is told later
    found: list[Parameter] = []
    for field in backend_fields(plugins.load_backend(texts["type"])):
        required = field.required and field.takes == "a value"
        found.append(
            Parameter(
                name=field.name,
                annotation=_flag_type(field),
                help=f"Field of the configuration: {_in_words(field)}.",
                default=REQUIRED if required else None,
                bare="true" if field.annotation is bool else None,
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
    """Tells how far long work is: one line rewritten on a terminal, else a line now and then."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._every = 0.1 if self._terminal else 5.0  # seconds
        self._last = clock()
        self._shown = 0  # characters of the line that stands on the terminal

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
        """Leave the line that was rewritten."""
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
            "missing NAME; right is update_index TYPE NAME, or update_index NAME --config FILE"
        )
    if admin_secret is not None:
        raise UsageError("--admin_secret goes with --config; without it give --secret_env")
    split = {
        each.name
        for each in backend_fields(plugins.load_backend(type_))
        if in_words(each.annotation).startswith("a list") and each.takes == "a value"
    }
    values = {key: value.split(",") if key in split else value for key, value in fields.items()}
    return check_repository(
        name,
        {"type": type_, **values},
        source=Source(text="", name="command line", folder=None),
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
        raise UsageError("missing NAME; right is update_index NAME --config FILE")
    # Only its own tables: the secrets of the others may be elsewhere.
    settings = read_configuration(
        read_source(config),
        read_source(Path(admin_secret)) if admin_secret is not None else None,
        environ=environ,
        only=name,
    ).repositories[name.lower()]
    if type_ is not None and type_ != settings.type:
        raise ConfigurationError(f"{config}: [{settings.name}] is {settings.type}, not {type_}")
    return settings


def _secret_for(settings: RepositorySettings, given: Secret | None) -> Secret:
    secret = given or settings.admin_secret
    if secret is not None:
        return secret
    if settings.backend_class.capabilities.needs_admin_secret:
        raise ConfigurationError(
            f"{settings.type} needs a secret that may write: "
            "give --secret_env, --secret_file, --secret, or --config and --admin_secret"
        )
    return Secret("")


def _existing_root(settings: RepositorySettings, root: str | None) -> Path | None:
    """ROOT, if one was given; refused where an empty storage would be found only by mistake."""
    values = (getattr(settings.backend, each.name) for each in dataclasses.fields(settings.backend))
    is_below_root = settings.backend_class.capabilities.is_local and not any(
        isinstance(value, Path) for value in values
    )
    if root is None:
        if is_below_root:
            raise UsageError(
                f"{settings.type} keeps the files of {settings.name!r} below ROOT: give --root, "
                "or --path, the folder of the files"
            )
        return None
    needed = Path(root, "cache", settings.name) if is_below_root else Path(root)
    if not needed.is_dir():
        raise ConfigurationError(f"--root: there is no folder {str(needed)!r}")
    return usable_root(root)


def _folders(parent: Path, name: str, temporary: Path) -> Folders:
    folders = Folders(
        cache=parent / "cache" / name, lock=parent / "lock" / name, tmp=temporary / "tmp"
    )
    for each in (folders.cache, folders.lock, folders.tmp):
        each.mkdir(parents=True, exist_ok=True)
    return folders


def _in_words(field: BackendField) -> str:
    return in_words(field.annotation) if field.takes == "a value" else "a secret"


def _flag_type(field: BackendField) -> Any:
    plain = type_name(field.annotation)
    return {"int": int, "float": float, "bool": bool}.get(plain, str)
