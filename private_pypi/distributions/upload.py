"""The legacy upload API: checks a form and its file, and stores nothing.

The form is the one that twine sends. It repeats most of what is in the core metadata of the file.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from private_pypi.distributions.archives import check_archive
from private_pypi.distributions.core_metadata import (
    CoreMetadata,
    parse_core_metadata,
    parse_requires_python,
)
from private_pypi.distributions.filenames import (
    ParsedFilename,
    is_version,
    normalize,
    parse_filename,
)
from private_pypi.distributions.records import make_record, one_line, published_name
from private_pypi.errors import InvalidUpload, TooLarge
from private_pypi.model import DistributionFile, Upload

logger = logging.getLogger(__name__)

_FILETYPES = {"wheel": "bdist_wheel", "sdist": "sdist"}
_DIGESTS = {"sha256_digest": "sha256", "md5_digest": "md5", "blake2_256_digest": "blake2_256"}
_REQUIRED = ("name", "version", "filetype")

# Fields that have one value (from the core metadata specification, and those of the form itself).
_SINGLE = {
    ":action", "protocol_version", "filetype", "pyversion", "metadata_version", "name", "version",
    "summary", "description", "description_content_type", "home_page", "download_url", "author",
    "author_email", "maintainer", "maintainer_email", "license", "license_expression", "keywords",
    "comment", "requires_python", *_DIGESTS,
}  # fmt: skip
# Fields that are repeated for each value, with the plurals and the older names that tools send.
_MULTIPLE = {
    "classifier", "classifiers", "requires_dist", "provides_dist", "obsoletes_dist",
    "requires_external", "requires", "provides", "obsoletes", "provides_extra", "provides_extras",
    "project_url", "project_urls", "platform", "platforms", "supported_platform", "dynamic",
    "license_file", "license_files", "import_name", "import_names", "import_namespace",
    "import_namespaces",
}  # fmt: skip
_KNOWN = _SINGLE | _MULTIPLE

_BLANKS = " \t\r\n"

_LONGEST_IN_RECORD = 1000  # characters; short, because listing a storage reads all its records
_LONGEST_SHOWN = 100  # characters of a value in a message
_PROJECT_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_METADATA_VERSION = re.compile(r"([12])\.[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedFile:
    """The file part of a form, complete and on a local disk.

    `digests` are its hashes in lower-case hex, by the names `sha256` (always there), `md5` and
    `blake2_256`.
    """

    filename: str
    path: Path
    size: int  # bytes
    digests: Mapping[str, str]


def check_upload(
    fields: Sequence[tuple[str, str]], received: ReceivedFile, *, max_file_bytes: int, now: datetime
) -> Upload:
    """Check a form and its file, and make the upload that can be stored.

    `fields` are the names and values of the form, in its order. `now` is the upload time, in UTC.
    Raises `InvalidUpload` or one of its subclasses with the first mistake.
    """
    parsed = parse_filename(received.filename)
    if received.size > max_file_bytes:
        raise TooLarge(
            f"{received.filename!r} has {received.size} bytes; "
            f"this repository accepts at most {max_file_bytes} bytes"
        )
    form = _read_form(fields)
    _check_form(form, received.filename, parsed)
    _check_digests(form, received)
    checked = check_archive(received.path, received.filename)
    for warning in checked.warnings:
        logger.warning("%s: %s", received.filename, warning)
    core_metadata = checked.core_metadata
    metadata = parse_core_metadata(core_metadata)
    requires_python = _check_metadata(metadata, form, received.filename, parsed)
    is_offered = parsed.kind == "wheel" or metadata.is_static
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
        summary=one_line(metadata.summary or _value(form, "summary")),
        published_name=published_name(metadata.name or _value(form, "name"), parsed.project),
        keywords=one_line(metadata.keywords or _value(form, "keywords")),
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
        warnings=tuple(checked.warnings),
    )


# -- the form ------------------------------------------------------------------------------------


def _read_form(fields: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """The values of each known field, by its name in lower case with underscores.

    A value may contain any characters: it is escaped where it is shown.
    """
    form: dict[str, list[str]] = {}
    for name, value in fields:
        key = name.lower().replace("-", "_")
        if key not in _KNOWN:  # from a newer tool, or meant for another index
            continue
        if value.strip(_BLANKS) == "UNKNOWN":  # old versions of setuptools send it for no value
            continue
        form.setdefault(key, []).append(value)
    if "keywords" in form:  # tools before setuptools 42 send one field for each word
        form["keywords"] = [",".join(form["keywords"])]
    for key in sorted(_SINGLE & form.keys()):
        if len(form[key]) > 1:
            raise InvalidUpload(
                f"the form has the field {key!r} {len(form[key])} times; it must be there once"
            )
    return form


def _value(form: Mapping[str, Sequence[str]], name: str) -> str:
    return form[name][0].strip(_BLANKS) if name in form else ""


def _check_form(form: Mapping[str, Sequence[str]], filename: str, parsed: ParsedFilename) -> None:
    action = _value(form, ":action")
    if action != "file_upload":
        raise InvalidUpload(
            f"the form has the :action {_shown(action)}; for an upload it must be 'file_upload'"
        )
    version = _value(form, "protocol_version")
    if version not in ("", "1"):
        raise InvalidUpload(f"the form has the protocol_version {_shown(version)}; it must be '1'")
    missing = [name for name in _REQUIRED if not _value(form, name)]
    if missing:
        raise InvalidUpload(f"the form must have the fields {', '.join(missing)}")
    if _value(form, "metadata_version"):  # otherwise only the one in the file is checked
        _check_metadata_version(_value(form, "metadata_version"), "the form")
    filetype = _value(form, "filetype")
    expected = _FILETYPES[parsed.kind]
    if filetype != expected:
        raise InvalidUpload(
            f"the form has the filetype {_shown(filetype)}; for {filename!r} it must be "
            f"{expected!r}"
        )
    _check_release(_value(form, "name"), _value(form, "version"), "the form", filename, parsed)


def _check_digests(form: Mapping[str, Sequence[str]], received: ReceivedFile) -> None:
    given = {field: _value(form, field) for field in _DIGESTS if _value(form, field)}
    if not given:
        raise InvalidUpload("the form has no hash of the file; it must have sha256_digest")
    for field, text in given.items():
        name = _DIGESTS[field]
        actual = received.digests.get(name) or _digest(received.path, name)
        if text.lower() != actual and not (name == "md5" and _is_base64(text, actual)):
            raise InvalidUpload(
                f"the file was damaged on its way, or the form is wrong: the {name} of the file "
                f"is {actual}, but {field} in the form is {_shown(text)}"
            )


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as file:
        if name == "blake2_256":
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
        return hashlib.file_digest(file, name).hexdigest()


def _is_base64(text: str, digest: str) -> bool:
    """Whether a text is a hex digest in URL-safe base64, as PyPI documents it for md5_digest."""
    return text.rstrip("=") == base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")


# -- the metadata in the archive -----------------------------------------------------------------


def _check_metadata(
    metadata: CoreMetadata,
    form: Mapping[str, Sequence[str]],
    filename: str,
    parsed: ParsedFilename,
) -> str | None:
    """Check that the file and the form are about the same release; return its Requires-Python."""
    where = f"the metadata in {filename!r}"
    if metadata.repeated:
        raise InvalidUpload(
            f"{where} has more than one value for {', '.join(metadata.repeated)}; "
            "each must be there once"
        )
    if metadata.metadata_version is None:
        raise InvalidUpload(f"{where} has no Metadata-Version; it must be 1.x or 2.x")
    _check_metadata_version(metadata.metadata_version, where)
    _check_release(metadata.name, metadata.version, where, filename, parsed)
    inside = _specifiers(metadata.requires_python or "", where)
    said = _value(form, "requires_python")
    # uv always sends an empty value.
    if said and _specifiers(said, "the form") != inside:
        raise InvalidUpload(
            f"the form has Requires-Python {_shown(said)}, but {where} has "
            f"{_shown(metadata.requires_python)}; they must be the same"
        )
    return metadata.requires_python


# -- the form and the metadata -------------------------------------------------------------------


def _check_metadata_version(text: str, where: str) -> None:
    # New minor versions are accepted: otherwise no new tool could upload before we know it.
    if not _METADATA_VERSION.fullmatch(text):
        raise InvalidUpload(
            f"{where} has the metadata version {_shown(text)}; it must be 1.x or 2.x"
        )


def _check_release(
    name: str | None, version: str | None, where: str, filename: str, parsed: ParsedFilename
) -> None:
    if name is None or not _PROJECT_NAME.fullmatch(name):
        raise InvalidUpload(
            f"{where} has the project name {_shown(name)}; a name consists of letters, digits "
            "and . _ - and begins and ends with a letter or a digit"
        )
    if normalize(name) != parsed.project:
        raise InvalidUpload(
            f"{where} has the project name {_shown(name)}, but the project in the filename "
            f"{filename!r} is {parsed.project}"
        )
    if not is_version(version, parsed.version):
        raise InvalidUpload(
            f"{where} has the version {_shown(version)}, but the version in the filename "
            f"{filename!r} is {parsed.version}"
        )


def _specifiers(text: str, where: str) -> SpecifierSet:
    try:
        return parse_requires_python(text)
    except InvalidSpecifier as error:
        raise InvalidUpload(
            f"{where} has Requires-Python {_shown(text)}; it must be a list of version "
            "specifiers such as '>=3.9,<4'"
        ) from error


def _shown(text: str | None) -> str:
    """A text from the upload in quotes, shortened to fit into a message."""
    if text is None:
        return "(none)"
    return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…")
