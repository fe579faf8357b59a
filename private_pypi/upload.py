"""The legacy upload API: from a form and its file to a checked upload; stores nothing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from private_pypi.archives import check_archive
from private_pypi.core_metadata import CoreMetadata, parse_core_metadata
from private_pypi.errors import InvalidUpload, TooLarge
from private_pypi.filenames import ParsedFilename, normalize, parse_filename
from private_pypi.model import DistributionFile, Upload
from private_pypi.records import make_record

_FILETYPES = {"wheel": "bdist_wheel", "sdist": "sdist"}
_DIGESTS = {"sha256_digest": "sha256", "md5_digest": "md5", "blake2_256_digest": "blake2_256"}

# Fields of a release that have one value (core metadata specification, and the form's own).
_SINGLE = {
    ":action", "protocol_version", "filetype", "pyversion", "metadata_version", "name", "version",
    "summary", "description", "description_content_type", "home_page", "download_url", "author",
    "author_email", "maintainer", "maintainer_email", "license", "license_expression", "keywords",
    "comment", "requires_python", "attestations", *_DIGESTS,
}  # fmt: skip

# Values that identify or that others compare: one line each. Elsewhere lines may be broken.
_ONE_LINE = {
    "filetype", "pyversion", "metadata_version", "name", "version", "requires_python",
    "license_expression", "home_page", "download_url", "classifiers", *_DIGESTS,
}  # fmt: skip

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_PROJECT_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_METADATA_VERSION = re.compile(r"([0-9]+)\.[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedFile:
    """The file part of a form: complete, on a local disk, hashed while it arrived.

    `digests` has lower-case hex under `sha256` (always), `md5` and `blake2_256`.
    """

    filename: str
    path: Path
    size: int  # bytes
    digests: Mapping[str, str]


def check_upload(
    fields: Sequence[tuple[str, str]], received: ReceivedFile, *, max_file_bytes: int, now: datetime
) -> Upload:
    """The upload that a form and its file make; raises `InvalidUpload` and its subclasses.

    `fields` in the order of the form; `max_file_bytes` in bytes; `now` in UTC. Reads the file
    once (protocol 46-52 and 59).
    """
    if received.size > max_file_bytes:
        raise TooLarge(
            f"{received.filename!r} has {received.size} bytes; "
            f"this repository takes at most {max_file_bytes}"
        )
    parsed = parse_filename(received.filename)
    form = _read_form(fields)
    _check_form(form, received.filename, parsed)
    _check_digests(form, received)
    core_metadata = check_archive(received.path, received.filename)
    metadata = parse_core_metadata(core_metadata)
    requires_python = _check_metadata(metadata, form, received.filename, parsed)
    is_offered = parsed.kind == "wheel" or metadata.is_static  # protocol 30
    file = DistributionFile(
        project=parsed.project,
        filename=received.filename,
        version=str(parsed.version),
        size=received.size,
        sha256=received.digests["sha256"],
        uploaded_at=now,
        requires_python=requires_python,
        yanked=None,
        core_metadata_sha256=hashlib.sha256(core_metadata).hexdigest() if is_offered else None,
        location="",
    )
    return Upload(
        file=file,
        content=received.path,
        core_metadata=core_metadata if is_offered else None,
        record=make_record(file, [(name, values[0]) for name, values in form.items()]),
    )


# -- the form ------------------------------------------------------------------------------------


def _read_form(fields: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Values by field name; names as the specification spells them, `UNKNOWN` dropped."""
    form: dict[str, list[str]] = {}
    for name, value in fields:
        key = name.lower().replace("-", "_")
        if value.strip() == "UNKNOWN":  # what old setuptools sent for nothing
            continue
        if key != "description" and _CONTROLS.search(value):
            raise InvalidUpload(f"field {name!r} has control characters")
        if "\x00" in value or (key in _ONE_LINE and len(value.splitlines()) > 1):
            raise InvalidUpload(f"field {name!r} has control characters or several lines")
        form.setdefault(key, []).append(value)
    for key in _SINGLE & form.keys():
        if len(form[key]) > 1:
            raise InvalidUpload(f"field {key!r} is given {len(form[key])} times, but has one value")
    return form


def _value(form: Mapping[str, Sequence[str]], name: str) -> str:
    return form[name][0].strip() if name in form else ""


def _check_form(form: Mapping[str, Sequence[str]], filename: str, parsed: ParsedFilename) -> None:
    if _value(form, "protocol_version") not in ("", "1"):
        raise InvalidUpload("Unknown protocol version.")
    missing = [
        n for n in ("metadata_version", "name", "version", "filetype") if not _value(form, n)
    ]
    if missing:
        raise InvalidUpload("the form lacks " + ", ".join(missing))
    _check_metadata_version(_value(form, "metadata_version"))
    filetype = _value(form, "filetype")
    if filetype != _FILETYPES[parsed.kind]:
        raise InvalidUpload(
            f"filetype {filetype!r} does not fit {filename!r}; "
            f"it must be {_FILETYPES[parsed.kind]!r}"
        )
    if not _PROJECT_NAME.fullmatch(_value(form, "name")):
        raise InvalidUpload(f"{_value(form, 'name')!r} is not the name of a project")
    _check_release(_value(form, "name"), _value(form, "version"), "the form", filename, parsed)


def _check_metadata_version(text: str) -> None:
    """Newer minor versions are taken as they come: refusing them breaks every new tool."""
    match = _METADATA_VERSION.fullmatch(text)
    if match is None or match[1] not in ("1", "2"):
        raise InvalidUpload(f"metadata version {text!r} is unknown; 1.x and 2.x can be read")


def _check_release(
    name: str | None, version: str | None, where: str, filename: str, parsed: ParsedFilename
) -> None:
    if name is None or normalize(name) != parsed.project:
        raise InvalidUpload(f"{where} names project {name!r}, the file is {filename!r}")
    try:
        agrees = version is not None and Version(version) == parsed.version
    except InvalidVersion as error:
        raise InvalidUpload(f"{where} has version {version!r}, which is none (PEP 440)") from error
    if not agrees:
        raise InvalidUpload(f"{where} names version {version!r}, the file is {filename!r}")


def _check_digests(form: Mapping[str, Sequence[str]], received: ReceivedFile) -> None:
    given = {field: _value(form, field) for field in _DIGESTS if _value(form, field)}
    if not given:
        raise InvalidUpload("the form has no digest of the file: send sha256_digest")
    for field, text in given.items():
        name = _DIGESTS[field]
        actual = received.digests.get(name) or _digest(received.path, name)
        if text.lower() != actual and _hex_of_base64(text) != actual:
            raise InvalidUpload(
                f"the file does not have the {field} of the form: "
                f"it is {actual}, the form says {text.lower()}"
            )


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as file:
        if name == "blake2_256":
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
        return hashlib.file_digest(file, name).hexdigest()


def _hex_of_base64(text: str) -> str:
    """The documents of the public index say that md5 is in URL-safe base64; hardly anybody does."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex()
    except (binascii.Error, ValueError):
        return ""


# -- the metadata in the archive -----------------------------------------------------------------


def _check_metadata(
    metadata: CoreMetadata,
    form: Mapping[str, Sequence[str]],
    filename: str,
    parsed: ParsedFilename,
) -> str | None:
    """Check that file and form speak of one release; returns its Requires-Python."""
    if metadata.metadata_version is None:
        raise InvalidUpload(f"the metadata in {filename!r} has no Metadata-Version")
    _check_metadata_version(metadata.metadata_version)
    where = f"the metadata in {filename!r}"
    _check_release(metadata.name, metadata.version, where, filename, parsed)
    inside = _specifiers(metadata.requires_python or "", where)
    said = _value(form, "requires_python")
    # uv sends an empty value for every project (protocol 49); what is in the file counts.
    if said and _specifiers(said, "the form") != inside:
        raise InvalidUpload(
            f"the form has Requires-Python {said!r}, {where} {metadata.requires_python!r}"
        )
    return metadata.requires_python or None


def _specifiers(text: str, where: str) -> SpecifierSet:
    try:
        return SpecifierSet(text)
    except InvalidSpecifier as error:
        raise InvalidUpload(f"{where} has Requires-Python {text!r}, which is invalid") from error
