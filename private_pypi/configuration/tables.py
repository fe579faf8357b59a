"""The tables of a configuration while they are checked: their keys, values and secrets."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import tomli
from pydantic import Field, TypeAdapter, ValidationError

from private_pypi.backend import Secret
from private_pypi.configuration.fields import in_words
from private_pypi.configuration.settings import ConfigurationText, Submitted
from private_pypi.storage import plugins

# The name of a repository is used in paths, in URLs, and as a user name.
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_CLAIM = re.compile(r"[A-Za-z0-9._*?\[\]!-]+")

# The keys that every table may have, with any backend.
COMMON: Final = {
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
    return NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all tables of a configuration."""

    environ: Mapping[str, str]
    submitted: Submitted | None
    files: set[Path] = dataclasses.field(default_factory=set)  # from which secrets were read


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is being checked. Mistakes are appended to `problems`."""

    source: ConfigurationText
    name: str
    values: Mapping[str, Any]
    rules: Rules
    problems: list[str]

    def problem(self, sentence: str, key: str | None = None) -> None:
        """Note a mistake in the table, or in the value of one of its keys."""
        where = f"{self.source.name}: [{self.name}]" + (f" {key}:" if key else ":")
        self.problems.append(f"{where} {sentence}")

    def reject_unknown_keys(self, known: Iterable[str], but: Iterable[str] = ()) -> None:
        """Note a mistake for each key that is not known.

        `but`: keys that are not mentioned, because their problem is told otherwise.
        """
        told = frozenset(but)
        known = tuple(key for key in known if key not in told)
        for key in self.values:
            if key not in known and key not in told:
                # The value is not shown, because it may be a secret under a misspelled key.
                near = plugins.did_you_mean(key, known)
                self.problem(f"unknown key{near or '; it may be: ' + ', '.join(known)}", key)

    def common(self, key: str, default: Any) -> Any:
        """The same as `value` for one of the keys that every table may have."""
        return self.value(key, COMMON[key], default)

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
        """A path in the table as an absolute one."""
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


def read_tables(source: ConfigurationText, rules: Rules, problems: list[str]) -> dict[str, Table]:
    """The tables of a text by their names in lower case, without those whose names are wrong."""
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
    tables: dict[str, Table] = {}
    for written, values in document.items():
        name = written.lower()
        if not isinstance(values, dict):
            problems.append(
                f"{source.name}: {written}: must be in a table; there must be one table for each "
                "repository, such as [mine], followed by its keys"
            )
        elif not NAME.fullmatch(written):
            problems.append(bad_name(source, written))
        elif name in tables:
            problems.append(
                f"{source.name}: [{written}]: there is another table of this name; names that "
                "differ only in upper and lower case are the same"
            )
        else:
            tables[name] = Table(source, name, values, rules, problems)
    return tables


def bad_name(source: ConfigurationText, name: str) -> str:
    """The sentence about a name that no table may have."""
    return (
        f"{source.name}: [{name[:80]}]: not a valid name for a repository; it must have at most 64 "
        "letters, digits, '.', '_' and '-', and must not begin with '.'"
    )


def checked_claims(table: Table) -> tuple[str, ...]:
    """The key `claimed`, spelled so that it matches normalised names."""
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
