"""The legacy upload API: from a form and its file to a checked upload; stores nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from private_pypi.archives import check_archive
from private_pypi.core_metadata import CoreMetadata, parse_core_metadata, parse_requires_python
from private_pypi.errors import InvalidUpload, TooLarge
from private_pypi.filenames import ParsedFilename, is_version, normalize, parse_filename
from private_pypi.model import DistributionFile, Upload
from private_pypi.records import make_record, one_line

_FILETYPES = {"wheel": "bdist_wheel", "sdist": "sdist"}
_DIGESTS = {"sha256_digest": "sha256", "md5_digest": "md5", "blake2_256_digest": "blake2_256"}
_REQUIRED = ("metadata_version", "name", "version", "filetype")

# Fields of a release that have one value (core metadata specification, and the form's own).
_SINGLE = {
    ":action", "protocol_version", "filetype", "pyversion", "metadata_version", "name", "version",
    "summary", "description", "description_content_type", "home_page", "download_url", "author",
    "author_email", "maintainer", "maintainer_email", "license", "license_expression", "keywords",
    "comment", "requires_python", *_DIGESTS,
}  # fmt: skip
# Those that are given once for each value (protocol 49, with the plurals and the older names).
_MULTIPLE = {
    "classifier", "classifiers", "requires_dist", "provides_dist", "obsoletes_dist",
    "requires_external", "requires", "provides", "obsoletes", "provides_extra", "provides_extras",
    "project_url", "project_urls", "platform", "platforms", "supported_platform", "dynamic",
    "license_file", "license_files", "import_name", "import_names", "import_namespace",
    "import_namespaces",
}  # fmt: skip
_KNOWN = _SINGLE | _MULTIPLE

# Texts that people write in lines. Form feeds are in many a license.
_LINES = {
    "description", "summary", "license", "keywords", "comment", "author", "author_email",
    "maintainer", "maintainer_email",
}  # fmt: skip
_BLANKS = " \t\r\n"
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_FORBIDDEN_IN_LINES = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")

_LONGEST_IN_RECORD = 1000  # characters; every listing of a storage reads the records
_LONGEST_SHOWN = 100  # characters of a value in a message
_PROJECT_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_METADATA_VERSION = re.compile(r"([12])\.[0-9]{1,9}")


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
    parsed = parse_filename(received.filename)
    if received.size > max_file_bytes:
        raise TooLarge(
            f"{received.filename!r} has {received.size} bytes; "
            f"this repository takes at most {max_file_bytes}"
        )
    form = _read_form(fields)
    _check_form(form, received.filename, parsed)
    _check_digests(form, received)
    core_metadata = check_archive(received.path, received.filename)
    metadata = parse_core_metadata(core_metadata)
    requires_python = _check_metadata(metadata, form, received.filename, parsed)
    summary = one_line(metadata.summary or _value(form, "summary"))
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
        summary=summary,
    )
    return Upload(
        file=file,
        content=received.path,
        core_metadata=core_metadata if is_offered else None,
        record=make_record(
            file,
            [
                (name, values[0])
                for name, values in form.items()
                if len(values[0]) <= _LONGEST_IN_RECORD
            ],
        ),
    )


# -- the form ------------------------------------------------------------------------------------


def _read_form(fields: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Values by the names of known fields, as the specification spells them."""
    form: dict[str, list[str]] = {}
    for name, value in fields:
        key = name.lower().replace("-", "_")
        if key not in _KNOWN:  # of a newer tool, or of another index
            continue
        stripped = value.strip(_BLANKS)
        if stripped == "UNKNOWN":  # what old setuptools sent for nothing
            continue
        forbidden = (_FORBIDDEN_IN_LINES if key in _LINES else _FORBIDDEN).search(stripped)
        if forbidden is not None:
            raise InvalidUpload(
                f"the field {key!r} has a control character or a line break "
                f"(U+{ord(forbidden[0]):04X}), which it may not have"
            )
        form.setdefault(key, []).append(value)
    for key in sorted(_SINGLE & form.keys()):
        if len(form[key]) > 1:
            raise InvalidUpload(f"the field {key!r} has one value, but is given {len(form[key])}")
    return form


def _value(form: Mapping[str, Sequence[str]], name: str) -> str:
    return form[name][0].strip(_BLANKS) if name in form else ""


def _check_form(form: Mapping[str, Sequence[str]], filename: str, parsed: ParsedFilename) -> None:
    action = _value(form, ":action")
    if action != "file_upload":
        raise InvalidUpload(f"unknown :action {_shown(action)}; it must be 'file_upload'")
    if _value(form, "protocol_version") not in ("", "1"):
        raise InvalidUpload("Unknown protocol version.")
    missing = [name for name in _REQUIRED if not _value(form, name)]
    if missing:
        raise InvalidUpload("the form lacks " + ", ".join(missing))
    _check_metadata_version(_value(form, "metadata_version"), "the form")
    filetype = _value(form, "filetype")
    expected = _FILETYPES[parsed.kind]
    if filetype != expected:
        raise InvalidUpload(
            f"filetype {_shown(filetype)} does not fit {filename!r}; it must be {expected!r}"
        )
    _check_release(_value(form, "name"), _value(form, "version"), "the form", filename, parsed)


def _check_digests(form: Mapping[str, Sequence[str]], received: ReceivedFile) -> None:
    given = {field: _value(form, field) for field in _DIGESTS if _value(form, field)}
    if not given:
        raise InvalidUpload("the form has no digest of the file: send sha256_digest")
    for field, text in given.items():
        name = _DIGESTS[field]
        actual = received.digests.get(name) or _digest(received.path, name)
        if text.lower() != actual and not (name == "md5" and _is_base64(text, actual)):
            raise InvalidUpload(
                f"the file that arrived does not have the {field} of the form: "
                f"it has {actual}, the form says {_shown(text)}"
            )


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as file:
        if name == "blake2_256":
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
        return hashlib.file_digest(file, name).hexdigest()


def _is_base64(text: str, digest: str) -> bool:
    """The documents of the public index want md5 in URL-safe base64; hardly anybody sends it."""
    return text.rstrip("=") == base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")


# -- the metadata in the archive -----------------------------------------------------------------


def _check_metadata(
    metadata: CoreMetadata,
    form: Mapping[str, Sequence[str]],
    filename: str,
    parsed: ParsedFilename,
) -> str | None:
    """Check that file and form speak of one release; returns its Requires-Python."""
    where = f"the metadata in {filename!r}"
    if metadata.repeated:
        raise InvalidUpload(f"{where} gives more than once: {', '.join(metadata.repeated)}")
    if metadata.metadata_version is None:
        raise InvalidUpload(f"{where} has no Metadata-Version")
    _check_metadata_version(metadata.metadata_version, where)
    _check_release(metadata.name, metadata.version, where, filename, parsed)
    inside = _specifiers(metadata.requires_python or "", where)
    said = _value(form, "requires_python")
    # uv sends an empty value for every project (protocol 49); what is in the file counts.
    if said and _specifiers(said, "the form") != inside:
        raise InvalidUpload(
            f"the form has Requires-Python {_shown(said)}, "
            f"{where} {_shown(metadata.requires_python)}"
        )
    return metadata.requires_python


# -- what both share -----------------------------------------------------------------------------


def _check_metadata_version(text: str, where: str) -> None:
    """Newer minor versions are taken as they come: refusing them breaks every new tool."""
    if not _METADATA_VERSION.fullmatch(text):
        raise InvalidUpload(
            f"{where} has metadata version {_shown(text)}; only 1.x and 2.x can be read"
        )


def _check_release(
    name: str | None, version: str | None, where: str, filename: str, parsed: ParsedFilename
) -> None:
    if name is None or not _PROJECT_NAME.fullmatch(name):
        raise InvalidUpload(
            f"{where} names project {_shown(name)}; a name has letters, digits and . _ - only"
        )
    if normalize(name) != parsed.project:
        raise InvalidUpload(f"{where} names project {_shown(name)}, the file is {filename!r}")
    if not is_version(version, parsed.version):
        raise InvalidUpload(
            f"{where} names version {_shown(version)}, the file is {filename!r} "
            f"(version {parsed.version})"
        )


def _specifiers(text: str, where: str) -> SpecifierSet:
    try:
        return parse_requires_python(text)
    except InvalidSpecifier as error:
        raise InvalidUpload(
            f"{where} has Requires-Python {_shown(text)}, which is no list of version specifiers "
            "such as '>=3.9,<4'"
        ) from error


def _shown(text: str | None) -> str:
    """What was sent, short enough for a sentence."""
    if text is None:
        return "(none)"
    return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…")
