"""Reads the configuration of a server, and checks it; opens no storage.

`config.toml` has a table for each repository. Which keys it may have depends on the backend.
`admin_secret.toml` has the secrets that the server itself uses to access storages. All mistakes are
reported together.

`settings` has the types of what is read, `tables` checks single keys, and `groups` those tables
that have others as their members.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from private_pypi.backend import Secret, SupportsList, SupportsUpstream, can
from private_pypi.configuration.fields import (
    BackendField,
    backend_fields,
    in_words,
    names_addresses,
    texts_in,
)
from private_pypi.configuration.groups import (
    GROUP,
    checked_group,
    checked_groups,
    with_members_of,
)
from private_pypi.configuration.settings import (
    BackendClass,
    Configuration,
    ConfigurationText,
    GroupSettings,
    RepositorySettings,
    Submitted,
)
from private_pypi.configuration.tables import (
    COMMON,
    NAME,
    Rules,
    Table,
    bad_name,
    checked_claims,
    is_repository_name,
    normalized_patterns,
    read_tables,
)
from private_pypi.errors import ConfigurationError
from private_pypi.storage import plugins

__all__ = [
    "Configuration",
    "ConfigurationText",
    "GroupSettings",
    "RepositorySettings",
    "Submitted",
    "check_extra_index_url",
    "check_repository",
    "is_repository_name",
    "normalized_patterns",
    "read_configuration",
    "read_source",
]

LoadBackend = Callable[[str], BackendClass]

DEFAULT_SYNC_INDEX_INTERVAL: Final = timedelta(seconds=60)
DEFAULT_MIRROR_INTERVAL: Final = timedelta(minutes=10)  # as the public index tells its clients
DEFAULT_STALE_FOR: Final = timedelta(hours=1)

# The keys of other tables that a mirror refuses, and why.
_REFUSED_FOR_MIRRORS: Final = {
    "claimed": "whose names belong to its upstream",
    "extra_index_url": "whose names belong to its upstream",
    "download": "whose files always go through this server, which checks their hashes and applies "
    "the policy; remove this key",
}


def read_source(path: Path) -> ConfigurationText:
    """Read a TOML file without parsing it; raises `ConfigurationError` if that fails."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{str(path)!r} is not a file of UTF-8 text") from error
    return ConfigurationText(
        text=text, name=str(path), folder=path.absolute().parent, path=path.absolute()
    )


def read_configuration(
    config: ConfigurationText,
    admin_secret: ConfigurationText | None,
    *,
    environ: Mapping[str, str],
    load_backend: LoadBackend = plugins.load_backend,
    submitted: Submitted | None = None,
    only: str | None = None,
    with_members: bool = False,
) -> Configuration:
    """Parse and check a configuration and its admin secrets.

    With `only`, the tables of other repositories are ignored; it may be a group if `with_members`,
    and then the tables of its members are read too. Raises `ConfigurationError` with a
    sentence for every mistake. It is not a mistake if an admin secret is missing: then the server
    can serve the other repositories.
    """
    problems: list[str] = []
    rules = Rules(environ, submitted)
    tables = read_tables(config, rules, problems)
    if only is not None and only.lower() not in tables:
        problems.append(
            f"{config.name}: there is no repository {only!r}{plugins.did_you_mean(only, tables)}; "
            f"it has: {', '.join(tables) or 'none'}"
        )
        raise ConfigurationError(*problems)
    if only is not None:
        tables = (
            with_members_of(only.lower(), tables)
            if with_members
            else {only.lower(): tables[only.lower()]}
        )
    repositories: dict[str, RepositorySettings] = {}
    groups: dict[str, GroupSettings] = {}
    for name, table in tables.items():
        if table.values.get("type") == GROUP:
            if only is not None and not with_members:
                problems.append(
                    f"{config.name}: [{name}]: a group has no storage of its own; name one of its "
                    "members"
                )
            groups[name] = checked_group(table)
            continue
        checked = _repository(table, load_backend)
        if checked is not None:
            repositories[name] = checked
    if only is None:
        groups = checked_groups(groups, repositories, tables)
    admin_tables = read_tables(admin_secret, rules, problems) if admin_secret is not None else {}
    for name, table in admin_tables.items():
        if name not in tables:
            if only is not None:
                continue
            table.problem(
                f"there is no repository {name!r} in {config.name}"
                + plugins.did_you_mean(name, tables)
            )
            continue
        if name in groups:
            table.problem("a group has no storage of its own; give its members their secrets")
            continue
        secret = _admin_secret(table, tables[name].values.get("type"))
        if name in repositories:
            repositories[name] = dataclasses.replace(repositories[name], admin_secret=secret)
    if problems:
        raise ConfigurationError(*problems)
    paths = (source.path for source in (config, admin_secret) if source is not None)
    rules.files.update(path for path in paths if path is not None)
    return Configuration(
        repositories=types.MappingProxyType(repositories),
        groups=types.MappingProxyType(groups),
        files=frozenset(rules.files),
    )


def check_repository(
    name: str,
    values: Mapping[str, Any],
    *,
    source: ConfigurationText,
    environ: Mapping[str, str],
    load_backend: LoadBackend = plugins.load_backend,
) -> RepositorySettings:
    """Check one table whose keys and values did not come from TOML; `source.text` is ignored.

    Raises `ConfigurationError` like `read_configuration`.
    """
    problems: list[str] = []
    table = Table(source, name.lower(), values, Rules(environ, None), problems)
    if not NAME.fullmatch(name):
        problems.append(bad_name(source, name))
    checked = _repository(table, load_backend)
    if problems or checked is None:
        raise ConfigurationError(*problems)
    return checked


def check_extra_index_url(url: str) -> str:
    """The address, ending with exactly one slash; "" stays "".

    Raises ValueError with the end of a sentence that says what is wrong. The address must not have
    a user or password, because clients are redirected to it and would see them.
    """
    if not url:
        return ""
    right = "it must be like https://HOST/simple/"
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise ValueError(f"is not a valid address; {right}") from None
    if "@" in parts.netloc:
        # The address is not shown, because what is before the @ may be a secret.
        raise ValueError(
            f"must not have a user or password, because clients are redirected there; {right}"
        )
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} is not a valid http or https address; {right}")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r} must not have a query or a fragment; {right}")
    return url.rstrip("/") + "/"


def _repository(table: Table, load_backend: LoadBackend) -> RepositorySettings | None:
    before = len(table.problems)
    type_ = table.values.get("type")
    if not isinstance(type_, str):
        missing = "missing; it " if type_ is None else ""
        table.problem(f"{missing}must be the name of a backend, such as 'file_system'", "type")
        return None
    try:
        backend_class = load_backend(type_)
    except ConfigurationError as error:
        # A group has no backend, so `load_backend` cannot suggest it.
        hint = plugins.did_you_mean(type_, [GROUP])
        for sentence in error.problems:
            table.problem(f"{sentence}{hint}", "type")
        return None
    fields = backend_fields(backend_class)
    is_mirror = can(backend_class, SupportsUpstream)
    refused = _REFUSED_FOR_MIRRORS if is_mirror else {}
    for key in refused.keys() & table.values.keys():
        table.problem(f"must not be set for a mirror, {refused[key]}", key)
    known = [*COMMON, *(key for field in fields for key in field.keys)]
    table.reject_unknown_keys(known, but=refused)
    largest = backend_class.traits.largest_file
    max_file_bytes = table.common("max_file_bytes", largest)
    if max_file_bytes > largest:
        table.problem(
            f"must be at most {largest}, not {max_file_bytes}: {type_!r} cannot store larger files",
            "max_file_bytes",
        )
    default_interval = DEFAULT_MIRROR_INTERVAL if is_mirror else DEFAULT_SYNC_INDEX_INTERVAL
    interval = table.common("sync_index_interval", default_interval.total_seconds())
    stale_for = _stale_for(table, backend_class)
    anonymous_read = table.common("anonymous_read", False)
    extra_index_url, claimed = _extra_index_url(table), checked_claims(table)
    own = {field.name: _field(table, field) for field in fields}
    if len(table.problems) > before:
        return None
    try:
        settings = backend_class.Settings(name=table.name, max_file_bytes=max_file_bytes, **own)
    except ValueError as error:  # from a check in the `Settings` of the backend
        table.problem(str(error))
        return None
    return RepositorySettings(
        name=table.name,
        type=type_,
        backend_class=backend_class,
        backend=settings,
        max_file_bytes=max_file_bytes,
        sync_index_interval=timedelta(seconds=interval),
        stale_for=stale_for,
        extra_index_url=extra_index_url,
        claimed=claimed,
        anonymous_read=anonymous_read,
        admin_secret=None,
    )


def _stale_for(table: Table, backend_class: BackendClass) -> timedelta:
    if not can(backend_class, SupportsList):
        return timedelta(seconds=table.common("stale_for", DEFAULT_STALE_FOR.total_seconds()))
    if "stale_for" in table.values:
        table.problem(
            "must not be set for this type: its index is a copy of the whole storage, which is "
            "served until the storage answers again",
            "stale_for",
        )
    return timedelta(0)


def _extra_index_url(table: Table) -> str | None:
    url = table.common("extra_index_url", None)
    if url is None:
        return None
    try:
        return check_extra_index_url(url)
    except ValueError as error:
        table.problem(str(error), "extra_index_url")
        return None


def _field(table: Table, field: BackendField) -> Any:
    if not any(key in table.values for key in field.keys):
        if field.required:
            others = (
                f"; {' or '.join(field.keys[1:])} can be used instead" if field.keys[1:] else ""
            )
            table.problem(f"missing; it must be {in_words(field.annotation)}{others}", field.key)
        return field.default
    if field.takes == "a value":
        value = table.value(field.key, field.annotation, None)
        if names_addresses(field.annotation) and value != field.default:
            _check_address(table, field.key, value)
        return _located(table, field.key, value)
    secrets = table.secrets(*field.keys)
    if secrets is None or field.takes == "secrets":
        return secrets
    if len(secrets) > 1:
        table.problem("only one secret may be given", field.key)
    elif not secrets and field.required:
        table.problem("must not be empty", field.key)
    return secrets[0] if secrets else None


def _located(table: Table, key: str, value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_located(table, key, each) for each in value)
    if not isinstance(value, Path):
        return value
    if "\0" in str(value):
        table.problem(f"{str(value)!r} is not a path, because it has a NUL character", key)
        return value
    located = table.path(value)
    submitted = table.rules.submitted
    if submitted is not None and not submitted.may_store(located, table.name):
        table.problem(
            f"a configuration that is submitted over HTTP may not use {str(value)!r}; it must be a "
            "folder in ROOT that the server does not use itself, such as 'storage'",
            key,
        )
    return located


def _check_address(table: Table, key: str, value: Any) -> None:
    submitted = table.rules.submitted
    if submitted is None:
        return
    for text in texts_in(value):
        if text in submitted.allowed_addresses:
            continue
        folder = _folder_of(text)
        if folder is not None:
            if not submitted.may_store(folder, table.name):
                table.problem(
                    f"a configuration that is submitted over HTTP may not use {text!r}; a file: "
                    "address must lead to a folder in ROOT that the server does not use itself",
                    key,
                )
        elif not submitted.is_trusted:
            table.problem(
                "a configuration that is submitted without the admin token may not make the server "
                f"contact {text!r}; the operator can allow it with --allow_address",
                key,
            )


def _folder_of(address: str) -> Path | None:
    """The path of a `file:` address; None: it is another address, or none at all."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    if parts.scheme != "file":
        return None
    return Path("/", unquote(parts.path).replace("\0", "").lstrip("/"))


def _admin_secret(table: Table, type_: object) -> Secret | None:
    table.reject_unknown_keys(("type", "raw", "env", "file"))
    given_type = table.values.get("type")
    if given_type is None:
        table.problem(f"missing; it must be the type of the repository, {type_!r}", "type")
    elif given_type != type_:
        table.problem(f"must be the type of the repository, {type_!r}, not {given_type!r}", "type")
    if not any(key in table.values for key in ("raw", "env", "file")):
        table.problem("the secret is missing; it must be given by raw, env or file")
        return None
    secrets = table.secrets("raw", "env", "file")
    if secrets is None:
        return None
    if len(secrets) != 1:
        table.problem("exactly one secret must be given, and it must not be empty")
        return None
    return secrets[0]
