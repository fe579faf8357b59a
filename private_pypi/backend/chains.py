"""The mirrors through which a request came, so that a mirror notices when it asks itself.

They are in the header `CDN-Loop` (RFC 8586), which each of them sends on with its own pseudonym
added. The older `Via` (RFC 9110 §7.6.3) would do as well, but web servers change their behaviour
when they see it: nginx, for example, no longer compresses pages.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice

HEADER = "CDN-Loop"

Chain = tuple[str, ...]
"""The pseudonyms of mirrors of private_pypi, the first that was asked first."""

LONGEST = 20
"""Mirrors in a chain. A longer one is a loop as well, because nobody has that many in a row."""

_PSEUDONYM = re.compile(r"(?<![^\s,])private-pypi-[0-9a-f]{32}(?![^\s,;])")
_present: ContextVar[Chain] = ContextVar("chain", default=())


def new_pseudonym() -> str:
    """A pseudonym that nobody can guess."""
    return f"private-pypi-{secrets.token_hex(16)}"


def is_pseudonym(text: str) -> bool:
    """Whether a text is a pseudonym."""
    return _PSEUDONYM.fullmatch(text) is not None


def parse_chain(header: str) -> Chain:
    """The chain in the header of a request, without other services; at most `LONGEST` and one."""
    found = _PSEUDONYM.finditer(header)
    return tuple(match[0] for match in islice(found, LONGEST + 1))


def present_chain() -> Chain:
    """The chain of what is being answered, or asked, at this moment in this thread."""
    return _present.get()


@contextmanager
def chained(chain: Chain) -> Iterator[None]:
    """A context in which this is the chain."""
    token = _present.set(chain)
    try:
        yield
    finally:
        _present.reset(token)
