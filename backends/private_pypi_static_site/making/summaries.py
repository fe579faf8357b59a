"""What a command changed in a site, as lines for a terminal and as the text of a pull request.

Many of these texts come from packages. In the pull request, each of them is a span of code, so that
none can be markup, mention anybody or refer to an issue.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_LONGEST_TEXT: Final = 500  # characters of one value
_LONGEST: Final = 60_000  # characters; GitHub takes 65,536 for a pull request


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A fact: our own word for it, and its value, which may come from anywhere."""

    label: str
    value: str
    is_part: bool = False  # of the last line that is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What changed."""

    done: str  # our own words, such as "registered"
    what: str  # such as "demo 1.0"
    lines: tuple[Line, ...] = ()
    warnings: tuple[str, ...] = ()

    def text(self) -> str:
        """For a terminal; without the warnings, which belong to stderr."""
        rows = (
            f"{'    ' if each.is_part else '  '}{each.label}: {each.value}" for each in self.lines
        )
        return "\n".join([f"{self.done} {self.what}", *(_one_line(row) for row in rows)])

    def markdown(self) -> str:
        """For the body of a pull request."""
        rows = [f"{self.done[:1].upper()}{self.done[1:]} {code(self.what)}", ""]
        rows += (
            f"{'  ' if each.is_part else ''}- {each.label}: {code(each.value)}"
            for each in self.lines
        )
        if self.warnings:
            rows += ["", "Warnings:", "", *(f"- {code(each)}" for each in self.warnings)]
        return _cut(rows)


def code(text: str) -> str:
    """A text as a span of code in Markdown, on one line (CommonMark 6.1)."""
    line = _one_line(text)[:_LONGEST_TEXT] or " "
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}" if longest else f"{fence}{line}{fence}"


def _one_line(text: str) -> str:
    indent = len(text) - len(text.lstrip(" "))
    return " " * indent + "".join(
        each if each.isprintable() else "\ufffd" for each in " ".join(text.split())
    )


def _cut(rows: Iterable[str]) -> str:
    kept, length = [], 0
    for row in rows:
        length += len(row) + 1
        if length > _LONGEST:
            kept += ["", "There is more, which is too long to be shown here."]
            break
        kept.append(row)
    return "\n".join(kept) + "\n"
