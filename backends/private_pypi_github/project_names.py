"""From the name of a project to the name of its repository on GitHub, and back if possible.

The `replace` rules are those of PyPIHub: regular expressions and templates as in Go. They are
applied one after the other to the normalised name of the project.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from packaging.utils import NormalizedName, canonicalize_name

_REPOSITORY = re.compile(r"[A-Za-z0-9._-]{1,100}")
_LONGEST = 255  # characters; rules are not applied to longer names
# `$1`, `${1}`, `$name`, `${name}` and `$$`, as Go's `Regexp.Expand` reads them.
_TEMPLATE = re.compile(r"\$(?:(?P<dollar>\$)|(?P<name>[A-Za-z0-9_]+)|\{(?P<braced>[^}]*)\})?")
# The parts of a pattern that can be reversed: literal characters, and groups that are not nested.
_PIECE = re.compile(r"\\(?P<escaped>[.-])|(?P<literal>[A-Za-z0-9_-])|\((?![?])[^()]*\)")


@dataclass(frozen=True)
class Replacement:
    """A `replace` rule: what matches the regular expression `patt` is replaced by `repl`."""

    patt: str
    repl: str

    __pydantic_config__: ClassVar = {"extra": "forbid"}


class ReplaceRules:
    """All `replace` rules of a table. Each is applied to the result of the one before it."""

    def __init__(self, replacements: Sequence[Replacement]) -> None:
        """Raises ValueError, which names the rule, if a pattern or a template is invalid."""
        self._rules = [
            _ReplaceRule(replacement, f"replace[{number}]")
            for number, replacement in enumerate(replacements)
        ]

    def repository(self, project: str) -> str | None:
        """The name of a project's repository; None if it cannot be a name on GitHub."""
        name = project
        for rule in self._rules:
            if len(name) > _LONGEST:
                return None
            name = rule.apply(name)
        is_valid = _REPOSITORY.fullmatch(name) is not None and name not in (".", "..")
        return name if is_valid else None

    def projects(self, repository: str) -> set[NormalizedName]:
        """The projects that have this repository, if the rules can be reversed.

        That is so for rules that match a whole name and keep all of its groups. If many projects
        share a repository (`patt = ".*"`), its name does not tell which ones.
        """
        names = {repository}
        for rule in reversed(self._rules):
            names |= {before for name in names for before in rule.undo(name)}
        found = {canonicalize_name(name) for name in names}
        wanted = repository.casefold()
        return {name for name in found if (self.repository(name) or "").casefold() == wanted}


class _ReplaceRule:
    def __init__(self, replacement: Replacement, where: str) -> None:
        try:
            self._pattern = re.compile(replacement.patt)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(
                f"{where}.patt: {replacement.patt!r} is not a regular expression: {error}"
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
        """Like `ReplaceAllString` of Go, which ignores an empty match right after another match."""
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
        """The text that this rule turns into `name`; nothing if the rule cannot be reversed."""
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
    """The characters and the numbers of the groups of a pattern that can be reversed."""
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
