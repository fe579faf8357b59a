"""Long lists that pages show in parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from flask import request

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Pagination:
    """A long list that is shown on several pages, and the page that is shown."""

    total: int  # items in all
    size: int  # items on one page
    number: int  # of the shown page, from 1
    parameter: str  # of the query, which has the number
    others: dict[str, str]  # the other parameters of the query

    @property
    def last(self) -> int:
        """The number of the last page."""
        return max(1, -(-self.total // self.size))

    def parameters(self, number: int) -> dict[str, str]:
        """All parameters of the address of another page."""
        return {**self.others, self.parameter: str(number)}


def page_number(parameter: str) -> int:
    """The number that the query of the present request has in a parameter; 1 if it has none."""
    text = request.args.get(parameter, "1")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 7 else 1


def part(items: Sequence[_Item], number: int, size: int) -> Sequence[_Item]:
    """The items of a page."""
    return items[(number - 1) * size : number * size]
