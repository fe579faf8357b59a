"""Lines that deny projects or versions, in the format of a requirements file.

    requests==2.31.0      # broken with our proxy
    numpy<2,>=1.26
    leftpad               # the whole project

A comment, which begins with a `#` after a space, is the reason. It is shown to people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

_LONGEST: Final = 1000  # characters of a line
_BARE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_COMMENT: Final = re.compile(r"(?:^|\s+)#(.*)")
_EXPECTED: Final = "it must be like 'name', 'name==1.2' or 'name<2,>=1', and may end with ' # why'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A line that denies a project or some versions of it."""

    project: NormalizedName
    specifier: SpecifierSet | None  # of the versions that are denied; None: all
    text: str  # as it is written, without the reason
    reason: str  # "": none is given

    def matches(self, version: str) -> bool:
        """Whether a version is denied; pre-releases are, as other versions.

        A version that cannot be compared (PEP 440) is denied by every line of its project, because
        it might be meant.
        """
        if self.specifier is None:
            return True
        try:
            return self.specifier.contains(Version(version), prereleases=True)
        except ValueError:  # InvalidVersion, or too many digits for Python to convert
            return True


Denials = Mapping[NormalizedName, tuple[Denial, ...]]
"""By project, in the order of the lines."""


def parse_denials(lines: Iterable[str], *, called: str = "line") -> Denials:
    """Parse lines; blank ones and comments are skipped.

    Raises `ValueError` with a sentence that begins with the number of the first wrong line, counted
    from 1. `called` is what the sentence calls a line.
    """
    found: dict[NormalizedName, list[Denial]] = {}
    for number, line in enumerate(lines, 1):
        try:
            denial = _parse(line)
        except ValueError as error:
            shown = line.strip() if len(line) <= _LONGEST else f"{line[:50]}…"
            raise ValueError(f"{called} {number}, {shown!r}: {error}") from None
        if denial is not None:
            found.setdefault(denial.project, []).append(denial)
    return {project: tuple(denials) for project, denials in found.items()}


def _parse(line: str) -> Denial | None:
    line = line.expandtabs(1).strip()
    if len(line) > _LONGEST:
        raise ValueError(f"has {len(line)} characters; the limit is {_LONGEST}")
    if not line.isprintable():  # the reason is shown on terminals and pages
        raise ValueError("has control characters")
    comment = _COMMENT.search(line)
    text = line[: comment.start()] if comment else line
    reason = comment[1].strip() if comment else ""
    if not text:
        return None
    if _BARE.fullmatch(text):
        return Denial(project=canonicalize_name(text), specifier=None, text=text, reason=reason)
    if text.startswith("-") or " --" in text:
        raise ValueError(f"options are not allowed here; {_EXPECTED}")
    if text.endswith("\\"):
        raise ValueError(f"a line cannot be continued on the next one; {_EXPECTED}")
    if "://" in text:
        raise ValueError(f"addresses are not allowed here; {_EXPECTED}")
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise ValueError(f"is not a requirement; {_EXPECTED}") from None
    for part, what in (
        (requirement.url, "addresses"),
        (requirement.extras, "extras"),
        (requirement.marker, "markers (after ;)"),
    ):
        if part:
            raise ValueError(f"{what} are not allowed here; {_EXPECTED}")
    return Denial(
        project=canonicalize_name(requirement.name),
        specifier=requirement.specifier or None,
        text=text,
        reason=reason,
    )
