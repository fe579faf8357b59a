"""Reads entries of the index document that have exactly the form in which `document` writes them.

Nearly all entries have this form, because servers write the document, and one regular expression
takes an entry apart in a fraction of the time that a parser of TOML needs. Whatever has another
form is left to the parser. For what is read here, the parser would return the same tables.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

# A string without characters that have to be escaped, and with the escapes that JSON and TOML
# share. The quantifiers are possessive, so that a text that does not match is given up at once.
_PLAIN: Final = r'[^"\\\x00-\x1f\x7f]*+'
_STRING: Final = rf'"({_PLAIN}(?:\\(?:["\\bfnrt]|u00[0-9A-Fa-f]{{2}}){_PLAIN})*+)"'
_META: Final = re.compile(rf"{_STRING} = {_STRING}\n")
_UNCAPTURED: Final = _STRING.replace('"(', '"(?:', 1)

_BEFORE_LOCATION: Final = ("type", "distrib", "package", "ext", "sha256")
_AFTER_LOCATION: Final = ("uploaded_at", "requires_python", "yanked", "core_metadata_sha256")


class WrittenEntries:
    """Reads the entries of the documents of one type of storage."""

    def __init__(self, location_key: str) -> None:
        """`location_key` is that of the backend."""
        self._keys = (*_BEFORE_LOCATION, location_key, "size", *_AFTER_LOCATION, "stamp")
        lines = [f"{key} = {_STRING}\n" for key in (*_BEFORE_LOCATION, re.escape(location_key))]
        # No more digits than a number of SQLite is sure to have.
        lines.append(r"size = (0|[1-9][0-9]{0,17})\n")
        lines += [
            f"(?:{key} = {'(?:true|' + _STRING + ')' if key == 'yanked' else _STRING}\n)?+"
            for key in (*_AFTER_LOCATION, "stamp")
        ]
        self._entry = re.compile(
            rf"\[\[((?:more_)?pkgs)\]\]\n{''.join(lines)}"
            rf"\n\[\1\.meta\]\n((?:{_UNCAPTURED} = {_UNCAPTURED}\n)*+)(?:\n|\Z)"
        )

    def tables(self, text: str) -> dict[str, Any] | None:
        """The arrays of tables in a part of a document; None: the parser has to read it."""
        arrays: dict[str, list[dict[str, Any]]] = {}
        place = 0
        while place < len(text):
            found = self._entry.match(text, place)
            if found is None:
                return None
            array, *values, lines = found.groups()
            place = found.end()
            if "\\" in found[0]:
                values = [
                    json.loads(f'"{value}"') if value and "\\" in value else value
                    for value in values
                ]
            table: dict[str, Any] = {
                key: value
                for key, value in zip(self._keys, values, strict=True)
                if value is not None
            }
            table["size"] = int(table["size"])
            if "yanked" not in table and "\nyanked = true\n" in found[0]:
                table["yanked"] = True
            pairs = _META.findall(lines)
            if "\\" in lines:
                pairs = [tuple(json.loads(f'"{part}"') for part in pair) for pair in pairs]
            table["meta"] = meta = dict(pairs)
            if len(meta) < len(pairs):  # a key is there twice, which the parser refuses
                return None
            arrays.setdefault(array, []).append(table)
        return arrays
