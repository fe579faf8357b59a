"""The fields that a backend adds to the table of a repository: their keys, types and defaults."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from private_pypi.backend import AnyBackend, BackendSettings, Contacted, Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendField:
    """A field of the `Settings` of a backend."""

    name: str  # of the attribute; `except_` has the key `except`, a keyword of Python
    annotation: Any
    default: Any  # `dataclasses.MISSING`: the field is required
    takes: Literal["a value", "a secret", "secrets"]

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def key(self) -> str:
        """The key of the table that sets the field."""
        return self.name.removesuffix("_")

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that set the field. A secret can also come from a variable or a file."""
        if self.takes == "a value":
            return (self.key,)
        return (self.name, f"{self.name}_env", f"{self.name}_file")


def backend_fields(backend_class: type[AnyBackend]) -> tuple[BackendField, ...]:
    """The fields that the backend adds to those of every table, in the order of its `Settings`."""
    annotations = typing.get_type_hints(backend_class.Settings, include_extras=True)
    common = {each.name for each in dataclasses.fields(BackendSettings)}
    found = []
    for each in dataclasses.fields(backend_class.Settings):
        if each.name in common or not each.init:
            continue
        default = each.default
        if each.default_factory is not dataclasses.MISSING:
            default = each.default_factory()
        annotation = annotations[each.name]
        takes = _takes(annotation)
        found.append(
            BackendField(name=each.name, annotation=annotation, default=default, takes=takes)
        )
    return tuple(found)


def in_words(annotation: Any) -> str:
    """A description of the values of a type for messages, such as "a whole number"."""
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


def names_addresses(annotation: Any) -> bool:
    """Whether a field, or a part of it, is an `Address`, which the server contacts."""
    if isinstance(annotation, Contacted):
        return True
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        hints = typing.get_type_hints(annotation, include_extras=True)
        return any(names_addresses(each) for each in hints.values())
    # `get_args` does not return the marks of an `Annotated`.
    marks = getattr(annotation, "__metadata__", ())
    return any(names_addresses(each) for each in (*typing.get_args(annotation), *marks))


def texts_in(value: Any) -> list[str]:
    """All texts in the value of a field, which may have several parts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, (tuple, list)):
        return [text for each in value for text in texts_in(each)]
    return [value] if isinstance(value, str) else []


def _takes(annotation: Any) -> Literal["a value", "a secret", "secrets"]:
    if annotation is Secret or annotation == Secret | None:
        return "a secret"
    return "secrets" if annotation == tuple[Secret, ...] else "a value"
