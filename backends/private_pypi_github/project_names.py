"""From the name of a project to that of its repository, and back as far as it goes; asks nobody.

The `replace` rules are those of PyPIHub: regular expressions and templates as in Go, applied one
after the other to the normalised name that installers ask for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from packaging.utils import NormalizedName, canonicalize_name

_REPOSITORY = re.compile(r"[A-Za-z0-9._-]{1,100}")
_LONGEST = 255  # characters of a name that rules are applied to
# `$1`, `${1}`, `$name`, `${name}` and `$$`, as Go's `Regexp.Expand` reads them.
_TEMPLATE = re.compile(r"\$(?:(?P<dollar>\$)|(?P<name>[A-Za-z0-9_]+)|\{(?P<braced>[^}]*)\})?")
# A pattern that can be read backwards: a whole name of literal parts and groups without groups.
_PIECE = re.compile(r"\\(?P<escaped>[.-])|(?P<literal>[A-Za-z0-9_-])|\((?![?])[^()]*\)")


@dataclass(frozen=True)
class Replacement:
    """One of the `replace` rules: what matches `patt` becomes `repl`."""

    patt: str
    repl: str

    __pydantic_config__: ClassVar = {"extra": "forbid"}


class Rules:
    """The `replace` rules in their order, each applied to what the one before it made."""

    def __init__(self, replacements: Sequence[Replacement]) -> None:
        """Raises ValueError, naming the rule, for a pattern or a template that is none."""
        self._rules = [
            _Rule(replacement, f"replace[{number}]")
            for number, replacement in enumerate(replacements)
        ]

    def repository(self, project: str) -> str | None:
        """The name of a project's repository; None when GitHub has no names like that."""
        name = project
        for rule in self._rules:
            if len(name) > _LONGEST:
                return None
            name = rule.apply(name)
        is_one = _REPOSITORY.fullmatch(name) is not None and name not in (".", "..")
        return name if is_one else None

    def projects(self, repository: str) -> set[NormalizedName]:
        """The projects whose repository this is, as far as its name can tell.

        Rules are read backwards where they match a whole name of letters and groups; where many
        projects share one repository (`patt = ".*"`), no name says which.
        """
        names = {repository}
        for rule in reversed(self._rules):
            names |= {before for name in names for before in rule.undo(name)}
        found = {canonicalize_name(name) for name in names}
        wanted = repository.casefold()
        return {name for name in found if (self.repository(name) or "").casefold() == wanted}


class _Rule:
    def __init__(self, replacement: Replacement, where: str) -> None:
        try:
            self._pattern = re.compile(replacement.patt)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(
                f"{where}.patt: {replacement.patt!r} is no regular expression: {error}"
            ) from None
        self._template = list(self._parse_template(replacement.repl, f"{where}.repl"))
        self._pieces = _pieces(replacement.patt)

    def _parse_template(self, text: str, where: str) -> Iterator[str | int]:
        end = 0
        for match in _TEMPLATE.finditer(text):
            yield text[end : match.start()]
            end = match.end()
            name = match["braced"] if match["name"] is None else match["name"]
            if match["dollar"]:
                yield "$"
            elif name is None:
                raise ValueError(f"{where}: {text!r} has a lone $; write $1 or ${{1}}, or $$")
            elif name.isdecimal() and int(name) <= self._pattern.groups:
                yield int(name)
            elif name in self._pattern.groupindex:
                yield self._pattern.groupindex[name]
            else:
                raise ValueError(
                    f"{where}: {text!r} names the group {name!r}, which `patt` does not have; "
                    "a group that is followed by a letter, a digit or _ is written ${1}"
                )
        yield text[end:]

    def apply(self, name: str) -> str:
        """As Go's `ReplaceAllString`: an empty match beside the match before it is none."""
        made: list[str] = []
        end = -1  # of the match before
        copied = 0
        for match in self._pattern.finditer(name):
            if match.start() == match.end() == end:
                continue
            made.append(name[copied : match.start()])
            for part in self._template:
                made.append(part if isinstance(part, str) else match[part] or "")
            end = copied = match.end()
        return "".join([*made, name[copied:]])

    def undo(self, name: str) -> Iterator[str]:
        """What this rule would turn into `name`; nothing when that cannot be told."""
        if self._pieces is None:
            return
        pattern = ""
        seen: set[int] = set()
        for part in self._template:
            if isinstance(part, str):
                pattern += re.escape(part)
            elif part in seen:
                pattern += f"(?P=g{part})"
            else:
                seen.add(part)
                pattern += f"(?P<g{part}>.*)"
        match = re.fullmatch(pattern, name)
        if match is not None and 0 not in seen and seen >= _groups(self._pieces):
            yield "".join(
                piece if isinstance(piece, str) else match[f"g{piece}"] for piece in self._pieces
            )


def _pieces(pattern: str) -> list[str | int] | None:
    """The letters and groups (by number) of a pattern for a whole name; None for any other."""
    if not (pattern.startswith("^") and pattern.endswith("$")):
        return None
    pieces: list[str | int] = []
    at, number = 1, 0
    while at < len(pattern) - 1:
        match = _PIECE.match(pattern, at, len(pattern) - 1)
        if match is None:
            return None
        if match["escaped"] or match["literal"]:
            pieces.append(match["escaped"] or match["literal"])
        else:
            number += 1
            pieces.append(number)
        at = match.end()
    return pieces


def _groups(pieces: Iterable[str | int]) -> set[int]:
    return {piece for piece in pieces if isinstance(piece, int)}
