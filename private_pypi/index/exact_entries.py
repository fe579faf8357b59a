"""Reads entries of the index document that `document` would write again in the same way.

`update_index` compares and copies the texts of entries, and nearly all entries of a document are
what it wrote before. Such an entry is checked completely, but no `IndexEntry` is made of it, and it
is not written again to know its text. Whatever has another form is left to `document_reader`. For
what is read here, that would find the same.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, NamedTuple

from packaging.utils import NormalizedName

from private_pypi.distributions.filenames import SUFFIXES, parse_filename
from private_pypi.distributions.records import one_line, published_name
from private_pypi.errors import InvalidFilename

# Strings that need no escapes. The quantifiers are possessive, so that a text that does not match
# is given up at once.
_PLAIN: Final = r'[^"\\\x00-\x1f\x7f]*+'
_FILLED: Final = r'[^"\\\x00-\x1f\x7f]++'
_SHA256: Final = "[0-9a-f]{64}"
_TIME: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z"
_ENDINGS: Final = "|".join(re.escape(suffix[1:]) for suffix in SUFFIXES)


class ExactEntry(NamedTuple):
    """An entry of an examined file."""

    array: str  # "pkgs" or "more_pkgs"
    package: str
    ext: str
    sha256: str
    location: str
    size: str
    uploaded_at: str | None
    requires_python: str | None
    yanked: str | None
    core_metadata_sha256: str | None
    stamp: str | None
    project: NormalizedName
    summary: str | None
    published_name: str | None
    keywords: str | None
    text: str  # as `document.entry_text` gives it

    @property
    def filename(self) -> str:
        return f"{self.package}.{self.ext}"


class ExactEntries:
    """Reads the entries of the documents of one type of storage."""

    def __init__(self, backend_type: str, location_key: str) -> None:
        """`location_key` is that of the backend."""
        meta = "".join(f'"{key}" = "{_PLAIN}"\n' for key in ("version", "filetype", "pyversion"))
        self._entry = re.compile(
            r"\[\[((?:more_)?pkgs)\]\]\n"
            f'(type = "{re.escape(backend_type)}"\n'
            f'distrib = "({_FILLED})"\n'
            f'package = "({_FILLED})"\n'
            f'ext = "({_ENDINGS})"\n'
            f'sha256 = "({_SHA256})"\n'
            f'{re.escape(location_key)} = "({_PLAIN})"\n'
            r"size = (0|[1-9][0-9]{0,17})\n"
            f'(?:uploaded_at = "({_TIME})"\n)?+'
            f'(?:requires_python = "({_FILLED})"\n)?+'
            f'(?:yanked = (true|"{_FILLED}")\n)?+'
            f'(?:core_metadata_sha256 = "({_SHA256})"\n)?+'
            f'(?:stamp = "({_PLAIN})"\n)?+'
            r"\n\[\1\.meta\]\n"
            f'"name" = "({_PLAIN})"\n{meta}'
            f'(?:"summary" = "({_PLAIN})"\n)?+'
            f'(?:"keywords" = "({_PLAIN})"\n)?+'
            r")(?:\n|\Z)"
        )

    def entries(self, text: str) -> list[ExactEntry] | None:
        """The entries in a part of a document; None: one of them may have another form."""
        found: list[ExactEntry] = []
        place = 0
        while place < len(text):
            match = self._entry.match(text, place)
            if match is None:
                return None
            place = match.end()
            (array, lines, distrib, package, ext, sha256, location, size, uploaded_at,
             requires_python, yanked, core_metadata_sha256, stamp, name, summary,
             keywords) = match.groups()  # fmt: skip
            try:
                project = parse_filename(f"{package}.{ext}").project
                if uploaded_at is not None:
                    datetime.fromisoformat(uploaded_at)
            except (InvalidFilename, ValueError):
                return None
            if distrib != project:
                return None
            if yanked is not None:
                yanked = "" if yanked == "true" else yanked[1:-1]
            if array != "pkgs":
                lines = lines.replace("\n[more_pkgs.meta]\n", "\n[pkgs.meta]\n", 1)
            found.append(
                ExactEntry(
                    array,
                    package,
                    ext,
                    sha256,
                    location,
                    size,
                    uploaded_at,
                    requires_python,
                    yanked,
                    core_metadata_sha256,
                    stamp,
                    project,
                    one_line(summary),
                    published_name(name, project),
                    one_line(keywords),
                    lines,
                )
            )
        return found
