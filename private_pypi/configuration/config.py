"""Reads the configuration of a server, and checks it; opens no storage.

`config.toml` has a table for each repository. Which keys it may have depends on the backend.
`admin_secret.toml` has the secrets that the server itself uses to access storages. All mistakes are
reported together.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import unquote, urlsplit

import tomli
from packaging.utils import is_normalized_name
from pydantic import Field, TypeAdapter, ValidationError

from private_pypi.backend import (
    AnyBackend,
    BackendSettings,
    MirrorSettings,
    Secret,
    SupportsList,
    SupportsUpstream,
    can,
)
from private_pypi.configuration.fields import (
    BackendField,
    backend_fields,
    in_words,
    names_addresses,
    texts_in,
)
from private_pypi.errors import ConfigurationError
from private_pypi.storage import plugins

BackendClass = type[AnyBackend]
LoadBackend = Callable[[str], BackendClass]

DEFAULT_SYNC_INDEX_INTERVAL: Final = timedelta(seconds=60)
DEFAULT_MIRROR_INTERVAL: Final = timedelta(minutes=10)  # as the public index tells its clients
DEFAULT_STALE_FOR: Final = timedelta(hours=1)

# The name of a repository is used in paths, in URLs, and as a user name.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_CLAIM = re.compile(r"[A-Za-z0-9._*?\[\]!-]+")

# What a server has in ROOT, apart from the folder `cache`, which has a folder for each repository.
_OWN_IN_ROOT: Final = frozenset(
    {
        *("admin_secret.toml", "allowed.toml", "config.toml", "fingerprint.key", "session_key"),
        *("index", "lock", "log", "tmp"),
    }
)

# The keys that every table may have, with any backend.
_COMMON: Final = {
    "type": str,
    "max_file_bytes": Annotated[int, Field(gt=0)],
    "sync_index_interval": Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)],
    "stale_for": Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)],
    "extra_index_url": str,
    "claimed": tuple[str, ...],
    "anonymous_read": bool,
}

# The keys of other tables that a mirror refuses, and why.
_REFUSED_FOR_MIRRORS: Final = {
    "claimed": "whose names belong to its upstream",
    "extra_index_url": "whose names belong to its upstream",
    "download": "whose files always go through this server, which checks their hashes and applies "
    "the policy; remove this key",
}

GROUP: Final = "group"
"""The type of a table that is no storage, but has other tables as its members."""

# The keys of a group.
_OF_GROUPS: Final = {
    "members": tuple[str, ...],
    "mix": tuple[str, ...],
    "publish_to": str,
    "claimed": tuple[str, ...],
    "anonymous_read": bool,
}


def is_repository_name(text: str) -> bool:
    """Whether a table of the configuration may have this name."""
    return _NAME.fullmatch(text) is not None


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
    rules = _Rules(environ, submitted)
    tables = _tables(config, rules, problems)
    if only is not None and only.lower() not in tables:
        problems.append(
            f"{config.name}: there is no repository {only!r}{plugins.did_you_mean(only, tables)}; "
            f"it has: {', '.join(tables) or 'none'}"
        )
        raise ConfigurationError(*problems)
    if only is not None:
        tables = (
            _with_members(only.lower(), tables)
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
            groups[name] = _group(table)
            continue
        checked = _repository(table, load_backend)
        if checked is not None:
            repositories[name] = checked
    if only is None:
        groups = _checked_groups(groups, repositories, tables)
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
    table = _Table(source, name.lower(), values, _Rules(environ, None), problems)
    if not _NAME.fullmatch(name):
        problems.append(_bad_name(source, name))
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


@dataclass(frozen=True, slots=True)
class _Rules:
    """What holds for all tables of a configuration."""

    environ: Mapping[str, str]
    submitted: Submitted | None
    files: set[Path] = dataclasses.field(default_factory=set)  # from which secrets were read


@dataclass(frozen=True, slots=True)
class _Table:
    """A table that is being checked. Mistakes are appended to `problems`."""

    source: ConfigurationText
    name: str
    values: Mapping[str, Any]
    rules: _Rules
    problems: list[str]

    def problem(self, sentence: str, key: str | None = None) -> None:
        where = f"{self.source.name}: [{self.name}]" + (f" {key}:" if key else ":")
        self.problems.append(f"{where} {sentence}")

    def reject_unknown_keys(self, known: Iterable[str], but: Iterable[str] = ()) -> None:
        """`but`: keys that are not mentioned, because their problem is told otherwise."""
        told = frozenset(but)
        known = tuple(key for key in known if key not in told)
        for key in self.values:
            if key not in known and key not in told:
                # The value is not shown, because it may be a secret under a misspelled key.
                near = plugins.did_you_mean(key, known)
                self.problem(f"unknown key{near or '; it may be: ' + ', '.join(known)}", key)

    def common(self, key: str, default: Any) -> Any:
        """The same as `value` for one of the keys that every table may have."""
        return self.value(key, _COMMON[key], default)

    def value(self, key: str, annotation: Any, default: Any) -> Any:
        """The checked value, or the default if it is missing or wrong."""
        if key not in self.values:
            return default
        given = self.values[key]
        try:
            # The strict mode converts nothing, such as a text into a number. Only from JSON does it
            # still accept a text for a path and a list for a tuple.
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
        """The secrets that one of three keys gives; None if none is given, or there is a mistake.

        Empty secrets are left out, because they must not match a request without a secret.
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
                "a configuration that is submitted over HTTP may not read the environment variable "
                f"{variable!r}; the operator can allow it with --allow_env",
                key,
            )
            return None
        if variable not in self.rules.environ:
            self.problem(f"the environment variable {variable!r} is not set", key)
            return None
        return self.rules.environ[variable]

    def _from_file(self, key: str, name: str) -> str | None:
        if self.rules.submitted is not None:
            self.problem(
                "a configuration that is submitted over HTTP may not read files; give the secret "
                "itself, or an environment variable that the operator allows with --allow_env",
                key,
            )
            return None
        path = self.path(Path(name))
        self.rules.files.add(path)
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            self.problem(f"cannot read {str(path)!r}: {error.strerror}", key)
        except ValueError:  # a NUL in the path, or not UTF-8
            self.problem(f"{str(path)!r} is not a file of UTF-8 text", key)
        return None


def _tables(source: ConfigurationText, rules: _Rules, problems: list[str]) -> dict[str, _Table]:
    try:
        document = tomli.loads(source.text)
    except tomli.TOMLDecodeError as error:
        problems.append(
            f"{source.name}, line {error.lineno}, column {error.colno}: not valid TOML: {error.msg}"
        )
        return {}
    except (ValueError, RecursionError) as error:  # very long numbers, very deep nesting
        problems.append(f"{source.name}: not valid TOML: {error}")
        return {}
    tables: dict[str, _Table] = {}
    for written, values in document.items():
        name = written.lower()
        if not isinstance(values, dict):
            problems.append(
                f"{source.name}: {written}: must be in a table; there must be one table for each "
                "repository, such as [mine], followed by its keys"
            )
        elif not _NAME.fullmatch(written):
            problems.append(_bad_name(source, written))
        elif name in tables:
            problems.append(
                f"{source.name}: [{written}]: there is another table of this name; names that "
                "differ only in upper and lower case are the same"
            )
        else:
            tables[name] = _Table(source, name, values, rules, problems)
    return tables


def _with_members(name: str, tables: Mapping[str, _Table]) -> dict[str, _Table]:
    """The table of a name, and those of its members if it is a group, and of theirs, in order."""
    wanted, left = {name}, [name]
    while left:
        values = tables[left.pop()].values
        members = values.get("members", ()) if values.get("type") == GROUP else ()
        names = {each.lower() for each in members if isinstance(each, str)}
        left += (names & tables.keys()) - wanted
        wanted |= names
    return {each: table for each, table in tables.items() if each in wanted}


def _bad_name(source: ConfigurationText, name: str) -> str:
    return (
        f"{source.name}: [{name[:80]}]: not a valid name for a repository; it must have at most 64 "
        "letters, digits, '.', '_' and '-', and must not begin with '.'"
    )


def _repository(table: _Table, load_backend: LoadBackend) -> RepositorySettings | None:
    before = len(table.problems)
    type_ = table.values.get("type")
    if not isinstance(type_, str):
        missing = "missing; it " if type_ is None else ""
        table.problem(f"{missing}must be the name of a backend, such as 'file_system'", "type")
        return None
    try:
        backend_class = load_backend(type_)
    except ConfigurationError as error:
        for sentence in error.problems:
            table.problem(sentence, "type")
        return None
    fields = backend_fields(backend_class)
    is_mirror = can(backend_class, SupportsUpstream)
    refused = _REFUSED_FOR_MIRRORS if is_mirror else {}
    for key in refused.keys() & table.values.keys():
        table.problem(f"must not be set for a mirror, {refused[key]}", key)
    known = [*_COMMON, *(key for field in fields for key in field.keys)]
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
    extra_index_url, claimed = _extra_index_url(table), _claimed(table)
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


def _group(table: _Table) -> GroupSettings:
    """The table of a group, whose members are checked later."""
    table.reject_unknown_keys(["type", *_OF_GROUPS])
    values = {key: table.value(key, kind, None) for key, kind in _OF_GROUPS.items()}
    members = tuple(name.lower() for name in values["members"] or ())
    if "members" not in table.values or values["members"] == ():
        why = "must not be empty" if "members" in table.values else "missing"
        table.problem(f"{why}; it must be a list of names of other tables, in order", "members")
    publish_to = values["publish_to"]
    if members and publish_to is not None and publish_to.lower() not in members:
        table.problem(f"{publish_to!r} is not one of the members", "publish_to")
    return GroupSettings(
        name=table.name,
        members=members,
        mix=frozenset(normalized_patterns(values["mix"] or ())),
        publish_to=None if publish_to is None else publish_to.lower(),
        claimed=_claimed(table),
        anonymous_read=bool(values["anonymous_read"]),
    )


def _checked_groups(
    groups: Mapping[str, GroupSettings],
    repositories: Mapping[str, RepositorySettings],
    tables: Mapping[str, _Table],
) -> dict[str, GroupSettings]:
    """The groups, each after its members."""
    for group in groups.values():
        for problem in _member_problems(group, groups, repositories, tables):
            tables[group.name].problem(problem, "members")
    graph = {
        name: [member for member in group.members if member in groups]
        for name, group in groups.items()
    }
    try:
        ordered = {name: groups[name] for name in TopologicalSorter(graph).static_order()}
    except CycleError as error:
        first, *others = reversed(error.args[1])
        tables[first].problem(
            "a group cannot be a member of itself"
            if others == [first]
            else f"the groups are members of each other: {' → '.join((first, *others))}",
            "members",
        )
        return {}
    inside: dict[str, list[str]] = {}  # of each group: all tables in it, at any depth
    for group in ordered.values():
        inside[group.name] = [
            each for member in group.members for each in (member, *inside.get(member, ()))
        ]
        table = tables[group.name]
        _check_publish_to(group, groups, repositories, table)
        claims = {
            each: (repositories.get(each) or groups[each]).claimed
            for each in (group.name, *inside[group.name])
            if each in repositories or each in groups
        }
        _check_mix(group, claims, table)
        _check_readers(
            [repositories[each] for each in inside[group.name] if each in repositories], table
        )
    return ordered


def _member_problems(
    group: GroupSettings,
    groups: Mapping[str, GroupSettings],
    repositories: Mapping[str, RepositorySettings],
    tables: Mapping[str, _Table],
) -> Iterator[str]:
    for number, member in enumerate(group.members):
        if member in group.members[:number]:
            if group.members[:number].count(member) == 1:
                yield f"{member!r} is there more than once"
            continue
        settings = repositories.get(member)
        if settings is None:
            if member in tables:  # a group, or a table with mistakes, which are reported
                continue
            known = [name for name in tables if name != group.name]
            yield f"there is no table {member!r}{plugins.did_you_mean(member, known)}"
            continue
        if settings.backend.has_only_tenants:
            yield (
                f"{member!r} has nothing but tenants, each with secrets of its own, which a group "
                "cannot ask; make a table for the one tenant that is meant"
            )
        elif settings.backend_class.traits.rights_per_project and not settings.claimed:
            yield (
                f"{member!r} is of type {settings.type!r}, which cannot tell a project that does "
                "not exist from one that the caller may not see. So it must say which names it "
                f"answers for: give the table [{member}] a key claimed, such as "
                "claimed = ['acme-*']"
            )


def _check_publish_to(
    group: GroupSettings,
    groups: Mapping[str, GroupSettings],
    repositories: Mapping[str, RepositorySettings],
    table: _Table,
) -> None:
    wanted = group.publish_to
    if wanted not in group.members:
        return
    if wanted in groups and groups[wanted].publish_to is None:
        table.problem(f"the group {wanted!r} has no publish_to itself", "publish_to")
    elif wanted in repositories and can(repositories[wanted].backend_class, SupportsUpstream):
        table.problem(f"{wanted!r} is a mirror, where nothing can be published", "publish_to")


def _check_mix(group: GroupSettings, claims: Mapping[str, tuple[str, ...]], table: _Table) -> None:
    """`claims`: of the group and of everything in it."""
    for name in sorted(group.mix):
        if not is_normalized_name(name):
            table.problem(f"{name!r} is not the name of a project; patterns cannot be mixed", "mix")
        for claimant, patterns in claims.items():
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                table.problem(
                    f"{name!r} is claimed by [{claimant}], which then answers for it alone; take "
                    "it out of mix, or out of claimed",
                    "mix",
                )


def _check_readers(members: Collection[RepositorySettings], table: _Table) -> None:
    """Nobody may read a mirror only because they have an account at a provider.

    A storage with rights for each project accepts the secrets of all its users. Each of them may
    read the group, although they see nothing of that member, and so its mirrors.
    """
    stored = [each for each in members if not can(each.backend_class, SupportsUpstream)]
    by_project = [each for each in stored if each.backend_class.traits.rights_per_project]
    for mirror in members:
        own = mirror.backend
        if (
            by_project
            and isinstance(own, MirrorSettings)
            and not (own.reads_public_index or mirror.anonymous_read)
        ):
            table.problem(
                f"everybody with an account at the provider of [{by_project[0].name}] could read "
                f"the mirror [{mirror.name}] here, because that member accepts the secrets of all "
                f"of them; give the mirror an address of its own, or say anonymous_read = true in "
                f"[{mirror.name}] if everybody may read it",
                "members",
            )


def _stale_for(table: _Table, backend_class: BackendClass) -> timedelta:
    if not can(backend_class, SupportsList):
        return timedelta(seconds=table.common("stale_for", DEFAULT_STALE_FOR.total_seconds()))
    if "stale_for" in table.values:
        table.problem(
            "must not be set for this type: its index is a copy of the whole storage, which is "
            "served until the storage answers again",
            "stale_for",
        )
    return timedelta(0)


def _extra_index_url(table: _Table) -> str | None:
    url = table.common("extra_index_url", None)
    if url is None:
        return None
    try:
        return check_extra_index_url(url)
    except ValueError as error:
        table.problem(str(error), "extra_index_url")
        return None


def _claimed(table: _Table) -> tuple[str, ...]:
    claimed: tuple[str, ...] = table.common("claimed", ())
    for glob in claimed:
        if not _CLAIM.fullmatch(glob):
            table.problem(
                f"{glob!r} cannot match a project; it must be a project name, or a pattern such as "
                "'acme-*'",
                "claimed",
            )
    return normalized_patterns(claimed)


def normalized_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """Glob patterns of project names, spelled so that they match normalised names."""
    return tuple(re.sub(r"[-_.]+", "-", pattern).lower() for pattern in patterns)


def _field(table: _Table, field: BackendField) -> Any:
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


def _located(table: _Table, key: str, value: Any) -> Any:
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


def _check_address(table: _Table, key: str, value: Any) -> None:
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


def _admin_secret(table: _Table, type_: object) -> Secret | None:
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
