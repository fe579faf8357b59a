"""From TOML to checked settings, naming every mistake at once; opens no storage.

`config.toml` has a table for each repository, `admin_secret.toml` the secrets with which the server
itself goes to the storages. The fields of a backend are those of its `Settings`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import tomli
from pydantic import Field, TypeAdapter, ValidationError

from private_pypi import plugins
from private_pypi.backend import AnyBackend, BackendSettings, Secret
from private_pypi.errors import ConfigurationError

BackendClass = type[AnyBackend]
LoadBackend = Callable[[str], BackendClass]

DEFAULT_SYNC_INDEX_INTERVAL: Final = timedelta(seconds=60)
DEFAULT_STALE_FOR: Final = timedelta(hours=1)

# The name is a part of paths and addresses, and a user of Basic authentication.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_CLAIM = re.compile(r"[A-Za-z0-9._*?\[\]!-]+")

# The keys that a table may have whatever its backend.
_COMMON: Final = {
    "type": str,
    "max_file_bytes": Annotated[int, Field(gt=0)],
    "sync_index_interval": Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)],
    "stale_for": Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)],
    "extra_index_url": str,
    "claimed": tuple[str, ...],
    "anonymous_read": bool,
}


def is_repository_name(text: str) -> bool:
    """Whether a table of the configuration may have this name."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A text of TOML, and where it came from."""

    text: str
    name: str  # shown in errors, such as a path
    folder: Path | None  # what relative paths start from; None: the working folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The rules for a configuration that came over HTTP: it reaches nothing outside ROOT."""

    root: Path
    allowed_env: frozenset[str] = frozenset()  # the variables that it may read


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySettings:
    """One repository: a checked table."""

    name: str  # lower case
    type: str
    backend_class: BackendClass
    backend: BackendSettings  # an instance of `backend_class.Settings`
    max_file_bytes: int
    sync_index_interval: timedelta
    stale_for: timedelta  # for storages that are asked for each project; zero elsewhere
    extra_index_url: str | None  # with one final slash; None: as the server says; "": never
    claimed: tuple[str, ...]  # globs over normalised project names
    anonymous_read: bool  # people without a secret may read
    admin_secret: Secret | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The repositories of a server, by name."""

    repositories: Mapping[str, RepositorySettings]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendField:
    """One of a backend's own fields."""

    name: str
    annotation: Any
    default: Any  # `dataclasses.MISSING`: the field is required
    takes: Literal["a value", "a secret", "secrets"]

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that give the field; a secret may also come from a variable or a file."""
        if self.takes == "a value":
            return (self.name,)
        return (self.name, f"{self.name}_env", f"{self.name}_file")


def read_configuration(
    config: Source,
    admin_secret: Source | None,
    *,
    environ: Mapping[str, str],
    load_backend: LoadBackend = plugins.load_backend,
    submitted: Submitted | None = None,
    only: str | None = None,
) -> Configuration:
    """Check both texts whole, or the tables of one repository (`only`) as if there were no others.

    Raises `ConfigurationError` with a sentence for every mistake. A repository whose backend needs
    an admin secret may be without one: the server says so to whoever asks for that repository.
    """
    problems: list[str] = []
    rules = _Rules(environ, submitted)
    tables = _tables(config, rules, problems)
    if only is not None and only.lower() not in tables:
        problems.append(
            f"{config.name}: no repository {only!r}{plugins.did_you_mean(only, tables)}; "
            f"it has: {', '.join(tables) or 'none'}"
        )
        raise ConfigurationError(*problems)
    if only is not None:
        tables = {only.lower(): tables[only.lower()]}
    repositories: dict[str, RepositorySettings] = {}
    for name, table in tables.items():
        checked = _repository(table, load_backend)
        if checked is not None:
            repositories[name] = checked
    admin_tables = _tables(admin_secret, rules, problems) if admin_secret is not None else {}
    for name, table in admin_tables.items():
        if name not in tables:
            if only is not None:
                continue
            table.problem(
                f"there is no repository {name!r} in {config.name}"
                + plugins.did_you_mean(name, tables)
            )
            continue
        secret = _admin_secret(table, tables[name].values.get("type"))
        if name in repositories:
            repositories[name] = dataclasses.replace(repositories[name], admin_secret=secret)
    if problems:
        raise ConfigurationError(*problems)
    return Configuration(repositories=types.MappingProxyType(repositories))


def check_repository(
    name: str,
    values: Mapping[str, Any],
    *,
    source: Source,
    environ: Mapping[str, str],
    load_backend: LoadBackend = plugins.load_backend,
) -> RepositorySettings:
    """Check one table that did not come as TOML; `source.text` is not looked at.

    Raises `ConfigurationError` as `read_configuration` does.
    """
    problems: list[str] = []
    table = _Table(source, name.lower(), values, _Rules(environ, None), problems)
    if not _NAME.fullmatch(name):
        problems.append(_bad_name(source, name))
    checked = _repository(table, load_backend)
    if problems or checked is None:
        raise ConfigurationError(*problems)
    return checked


def backend_fields(backend_class: BackendClass) -> tuple[BackendField, ...]:
    """The fields that the backend adds to every table's, in the order of its `Settings`."""
    annotations = typing.get_type_hints(backend_class.Settings, include_extras=True)
    given_by_us = {each.name for each in dataclasses.fields(BackendSettings)}
    found = []
    for each in dataclasses.fields(backend_class.Settings):
        if each.name in given_by_us or not each.init:
            continue
        default = each.default
        if each.default_factory is not dataclasses.MISSING:
            default = each.default_factory()
        annotation = annotations[each.name]
        found.append(
            BackendField(
                name=each.name,
                annotation=annotation,
                default=default,
                takes=_takes(annotation),
            )
        )
    return tuple(found)


def check_extra_index_url(url: str) -> str:
    """The address with exactly one final slash; "" stays "". Raises ValueError saying why not.

    Clients are redirected there, so user information would be shown to all of them.
    """
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise ValueError("is no address; right is https://HOST/simple/") from None
    if "@" in parts.netloc:
        # Not shown: what is before the @ may be a secret.
        raise ValueError(
            "must not hold a user or password: clients are redirected there; "
            "right is https://HOST/simple/"
        )
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} is no http or https address; right is https://HOST/simple/")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r} must not have a query or a fragment")
    return url.rstrip("/") + "/"


def in_words(annotation: Any) -> str:
    """What a value of this type looks like, for messages and helps."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return in_words(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(in_words(each) for each in arguments if each is not types.NoneType)
    if origin is Literal:
        return "one of " + ", ".join(repr(each) for each in arguments)
    if origin in (tuple, list, frozenset):
        return f"a list, each {in_words(arguments[0])}"
    if dataclasses.is_dataclass(annotation):
        keys = [field.name for field in dataclasses.fields(annotation)]
        return f"a table of {' and '.join(keys)}"
    plain = {
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        Path: "a path",
        Secret: "a secret",
    }
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)))


@dataclass(frozen=True, slots=True)
class _Rules:
    environ: Mapping[str, str]
    submitted: Submitted | None


@dataclass(frozen=True, slots=True)
class _Table:
    """One table while it is checked; what is wrong is appended to `problems`."""

    source: Source
    name: str
    values: Mapping[str, Any]
    rules: _Rules
    problems: list[str]

    def problem(self, sentence: str, key: str | None = None) -> None:
        where = f"{self.source.name}: [{self.name}]" + (f" {key}:" if key else ":")
        self.problems.append(f"{where} {sentence}")

    def reject_unknown_keys(self, known: Iterable[str]) -> None:
        known = tuple(known)
        for key in self.values:
            if key not in known:
                # The value is not shown: it may be a secret under a mistyped key.
                near = plugins.did_you_mean(key, known)
                self.problem(f"unknown key{near or '; known: ' + ', '.join(known)}", key)

    def value(self, key: str, annotation: Any, default: Any) -> Any:
        """The checked value, or the default when it is missing or wrong."""
        if key not in self.values:
            return default
        given = self.values[key]
        try:
            # As JSON, because there the strict mode takes a text for a path and a list for a
            # tuple, and still no number for a text nor a text for a number.
            text = json.dumps(given, default=str)
            return TypeAdapter(annotation).validate_json(text, strict=True)
        except ValidationError as error:
            why = error.errors(include_url=False)[0]["msg"].lower()
            self.problem(f"must be {in_words(annotation)}, not {given!r} ({why})", key)
            return default

    def path(self, text: Path) -> Path:
        if self.rules.submitted is not None:
            return self.rules.submitted.root / text
        return (self.source.folder or Path()).absolute() / text

    def secrets(self, key: str, env_key: str, file_key: str) -> tuple[Secret, ...] | None:
        """The secrets that one of the three keys gives; None when none is given, or wrongly.

        An empty secret matches nobody and is left out.
        """
        given = [each for each in (key, env_key, file_key) if each in self.values]
        if not given:
            return None
        if len(given) > 1:
            self.problem(f"only one of {' and '.join(given)} may be given")
            return None
        texts = self.values[given[0]]
        texts = texts if isinstance(texts, list) else [texts]
        if not all(isinstance(each, str) for each in texts):
            self.problem("must be text, or a list of texts", given[0])
            return None
        if given[0] == key:
            found: list[str | None] = texts
        else:
            read = self._from_variable if given[0] == env_key else self._from_file
            found = [read(given[0], text) for text in texts]
        if None in found:
            return None
        return tuple(Secret(each) for each in found if each)

    def _from_variable(self, key: str, variable: str) -> str | None:
        submitted = self.rules.submitted
        if submitted is not None and variable not in submitted.allowed_env:
            self.problem(
                f"a submitted configuration may not read the variable {variable!r}; "
                "the operator allows it by --allow_env",
                key,
            )
            return None
        if variable not in self.rules.environ:
            self.problem(f"the environment variable {variable!r} is not set", key)
            return None
        return self.rules.environ[variable]

    def _from_file(self, key: str, name: str) -> str | None:
        if self.rules.submitted is not None:
            self.problem("a submitted configuration may not read files", key)
            return None
        path = self.path(Path(name))
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            self.problem(f"cannot read {str(path)!r}: {error.strerror}", key)
        except ValueError:  # a NUL in the path, or no UTF-8
            self.problem(f"{str(path)!r} is no file of UTF-8 text", key)
        return None


def _tables(source: Source, rules: _Rules, problems: list[str]) -> dict[str, _Table]:
    try:
        document = tomli.loads(source.text)
    except tomli.TOMLDecodeError as error:
        problems.append(
            f"{source.name}, line {error.lineno}, column {error.colno}: no TOML: {error.msg}"
        )
        return {}
    except (ValueError, RecursionError) as error:  # endless numbers, endless nesting
        problems.append(f"{source.name}: no TOML: {error}")
        return {}
    tables: dict[str, _Table] = {}
    for written, values in document.items():
        name = written.lower()
        if not isinstance(values, dict):
            problems.append(
                f"{source.name}: {written}: only tables are known here, such as [{name}] "
                "followed by its keys"
            )
        elif not _NAME.fullmatch(written):
            problems.append(_bad_name(source, written))
        elif name in tables:
            problems.append(
                f"{source.name}: [{written}]: a second table of this name; "
                "names that differ only in case are the same"
            )
        else:
            tables[name] = _Table(source, name, values, rules, problems)
    return tables


def _bad_name(source: Source, name: str) -> str:
    return (
        f"{source.name}: [{name[:80]}]: no name for a repository; right are at most 64 letters, "
        "digits, '.', '_' and '-', not beginning with '.'"
    )


def _repository(table: _Table, load_backend: LoadBackend) -> RepositorySettings | None:
    before = len(table.problems)
    type_ = table.values.get("type")
    if not isinstance(type_, str):
        table.problem("missing" if type_ is None else "must be text, such as 'file_system'", "type")
        return None
    try:
        backend_class = load_backend(type_)
    except ConfigurationError as error:
        for sentence in error.problems:
            table.problem(sentence, "type")
        return None
    fields = backend_fields(backend_class)
    table.reject_unknown_keys([*_COMMON, *(key for field in fields for key in field.keys)])
    largest = backend_class.capabilities.largest_file
    max_file_bytes = table.value("max_file_bytes", _COMMON["max_file_bytes"], largest)
    if max_file_bytes > largest:
        table.problem(
            f"{max_file_bytes} is more than {type_!r} can store, {largest}", "max_file_bytes"
        )
    seconds = table.value("sync_index_interval", _COMMON["sync_index_interval"], None)
    stale_for = _stale_for(table, backend_class)
    anonymous_read = table.value("anonymous_read", bool, False)
    extra_index_url, claimed = _extra_index_url(table), _claimed(table)
    own = {field.name: _field(table, field) for field in fields}
    if len(table.problems) > before:
        return None
    try:
        settings = backend_class.Settings(name=table.name, max_file_bytes=max_file_bytes, **own)
    except ValueError as error:  # from a check of the backend's own
        table.problem(str(error))
        return None
    return RepositorySettings(
        name=table.name,
        type=type_,
        backend_class=backend_class,
        backend=settings,
        max_file_bytes=max_file_bytes,
        sync_index_interval=(
            DEFAULT_SYNC_INDEX_INTERVAL if seconds is None else timedelta(seconds=seconds)
        ),
        stale_for=stale_for,
        extra_index_url=extra_index_url,
        claimed=claimed,
        anonymous_read=anonymous_read,
        admin_secret=None,
    )


def _stale_for(table: _Table, backend_class: BackendClass) -> timedelta:
    if backend_class.capabilities.lists_files:
        if "stale_for" in table.values:
            table.problem(
                "is for storages that are asked for each project alone; what this one has is "
                "synchronised, and served until the storage answers again",
                "stale_for",
            )
        return timedelta(0)
    seconds = table.value("stale_for", _COMMON["stale_for"], None)
    return DEFAULT_STALE_FOR if seconds is None else timedelta(seconds=seconds)


def _extra_index_url(table: _Table) -> str | None:
    url = table.value("extra_index_url", str, None)
    if url is None:
        return None
    try:
        return check_extra_index_url(url)
    except ValueError as error:
        table.problem(str(error), "extra_index_url")
        return None


def _claimed(table: _Table) -> tuple[str, ...]:
    claimed = table.value("claimed", tuple[str, ...], ())
    for glob in claimed:
        if not _CLAIM.fullmatch(glob):
            table.problem(
                f"{glob!r} matches no project; right is a name or a pattern such as 'acme-*'",
                "claimed",
            )
    return tuple(re.sub(r"[-_.]+", "-", glob).lower() for glob in claimed)


def _field(table: _Table, field: BackendField) -> Any:
    if not any(key in table.values for key in field.keys):
        if field.required:
            others = f"; {' or '.join(field.keys[1:])} can name it" if field.keys[1:] else ""
            table.problem(f"missing; it is {in_words(field.annotation)}{others}", field.name)
        return field.default
    if field.takes == "a value":
        value = table.value(field.name, field.annotation, None)
        return _located(table, field.name, value)
    secrets = table.secrets(*field.keys)
    if secrets is None or field.takes == "secrets":
        return secrets
    if len(secrets) > 1:
        table.problem("only one secret may be given", field.name)
    elif not secrets and field.required:
        table.problem("must not be empty", field.name)
    return secrets[0] if secrets else None


def _located(table: _Table, key: str, value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_located(table, key, each) for each in value)
    if not isinstance(value, Path):
        return value
    if "\0" in str(value):
        table.problem(f"{str(value)!r} is no path", key)
        return value
    located = table.path(value)
    submitted = table.rules.submitted
    if submitted is not None and not located.resolve().is_relative_to(submitted.root.resolve()):
        table.problem(f"a submitted configuration may not reach {str(value)!r} outside ROOT", key)
    return located


def _admin_secret(table: _Table, type_: object) -> Secret | None:
    table.reject_unknown_keys(("type", "raw", "env", "file"))
    given_type = table.values.get("type")
    if given_type is None:
        table.problem("missing; it is the type of the repository", "type")
    elif given_type != type_:
        table.problem(f"{given_type!r} is not the type of the repository, {type_!r}", "type")
    if not any(key in table.values for key in ("raw", "env", "file")):
        table.problem("one of raw, env and file must give the secret")
        return None
    secrets = table.secrets("raw", "env", "file")
    if secrets is None:
        return None
    if len(secrets) != 1:
        table.problem("exactly one secret must be given, and it must not be empty")
        return None
    return secrets[0]


def _takes(annotation: Any) -> Literal["a value", "a secret", "secrets"]:
    if annotation is Secret or annotation == Secret | None:
        return "a secret"
    return "secrets" if annotation == tuple[Secret, ...] else "a value"
