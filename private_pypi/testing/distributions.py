"""Makes small distribution files and upload forms for tests, in memory and without build tools.

The same arguments give the same bytes, so that tests can compare hashes.
"""

from __future__ import annotations

import base64
import csv
import email.message
import email.parser
import gzip
import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Literal

from private_pypi.distributions.core_metadata import read_core_metadata

_FIRST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_BOUNDARY = "----private-pypi-testing-boundary"


def make_wheel(
    name: str = "demo",
    version: str = "1.0",
    *,
    requires_python: str | None = None,
    extra_metadata: Sequence[tuple[str, str]] = (),
    description: str = "",
    files: Mapping[str, bytes] | None = None,
    tag: str = "py3-none-any",
) -> tuple[str, bytes]:
    """The filename and the content of a wheel that can be installed.

    `files` are the contents of its files by path; None: one small module. `extra_metadata` are
    further headers of METADATA, such as `("Summary", "a demo")`, and `description` is its body.
    `tag` may be compressed (`py2.py3-none-any`).
    """
    stem = _stem(name, version)
    info = f"{stem}.dist-info"
    members = dict(_default_files(name, version) if files is None else files)
    members[f"{info}/METADATA"] = _metadata(
        name, version, "2.1", requires_python, extra_metadata, description
    )
    members[f"{info}/WHEEL"] = _wheel_facts(tag)
    members[f"{info}/RECORD"] = _record(members, f"{info}/RECORD")
    return f"{stem}-{tag}.whl", _zip(members)


def make_sdist(
    name: str = "demo",
    version: str = "1.0",
    *,
    metadata_version: str = "2.2",
    requires_python: str | None = None,
    extra_metadata: Sequence[tuple[str, str]] = (),
    description: str = "",
    files: Mapping[str, bytes] | None = None,
    format: Literal["tar.gz", "zip"] = "tar.gz",  # noqa: A002 - the word of the tools
) -> tuple[str, bytes]:
    """The filename and the content of a source distribution that setuptools can build.

    `files` are the contents of its files by path in the top folder; None: one module and a
    `pyproject.toml`.
    """
    stem = _stem(name, version)
    members = {
        f"{stem}/{path}": content
        for path, content in (
            _default_sources(name, version) if files is None else dict(files)
        ).items()
    }
    members[f"{stem}/PKG-INFO"] = _metadata(
        name, version, metadata_version, requires_python, extra_metadata, description
    )
    return f"{stem}.{format}", _zip(members) if format == "zip" else _tar_gz(members)


def form_for(filename: str, content: bytes, **overrides: str | None) -> list[tuple[str, str]]:
    """The form fields that twine 7 would send with this file, in its order.

    An override replaces all values of a field, or adds the field at the end; None removes it. The
    field `:action` is called `action`, because it must be a Python name.
    """
    metadata = _read_metadata(filename, content)
    fields = [
        (":action", "file_upload"),
        ("protocol_version", "1"),
        ("filetype", "bdist_wheel" if filename.endswith(".whl") else "sdist"),
        ("pyversion", filename.split("-")[-3] if filename.endswith(".whl") else "source"),
    ]
    for header, value in metadata.items():
        field = _FORM_NAMES.get(header.lower(), header.lower().replace("-", "_"))
        fields.append((field, str(value)))
    description = metadata.get_payload()
    if isinstance(description, str) and description:
        fields.append(("description", description))
    fields.append(("sha256_digest", hashlib.sha256(content).hexdigest()))
    fields.append(("blake2_256_digest", hashlib.blake2b(content, digest_size=32).hexdigest()))
    for key, replacement in overrides.items():
        name = ":action" if key == "action" else key
        place = next((i for i, (field, _) in enumerate(fields) if field == name), len(fields))
        fields = [pair for pair in fields if pair[0] != name]
        if replacement is not None:
            fields.insert(place, (name, replacement))
    return fields


def encode_multipart(
    fields: Sequence[tuple[str, str]],
    filename: str | None,
    content: bytes,
    boundary: str = _BOUNDARY,
) -> tuple[str, bytes]:
    """The `Content-Type` and the body of a `multipart/form-data` request (RFC 7578).

    The file is the last part, named `content`. It is left out if `filename` is None.
    """
    delimiter = b"--" + boundary.encode()
    lines = []
    for name, value in fields:
        lines += [
            delimiter,
            f'Content-Disposition: form-data; name="{name}"'.encode(),
            b"",
            value.encode(),
        ]
    if filename is not None:
        disposition = f'Content-Disposition: form-data; name="content"; filename="{filename}"'
        lines += [
            delimiter,
            disposition.encode(),
            b"Content-Type: application/octet-stream",
            b"",
            content,
        ]
    lines += [delimiter + b"--", b""]
    return f"multipart/form-data; boundary={boundary}", b"\r\n".join(lines)


# Headers whose form field has another name than the header in lower case with underscores.
_FORM_NAMES = {
    "classifier": "classifiers",
    "project-url": "project_urls",
    "import-name": "import_names",
    "import-namespace": "import_namespaces",
}


def _stem(name: str, version: str) -> str:
    return f"{_module(name)}-{version.replace('-', '_')}"


def _module(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _default_files(name: str, version: str) -> dict[str, bytes]:
    return {f"{_module(name)}.py": f"version = {version!r}\n".encode()}


def _default_sources(name: str, version: str) -> dict[str, bytes]:
    project = (
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\n\n'
        f'[tool.setuptools]\npy-modules = ["{_module(name)}"]\n'
    )
    return {**_default_files(name, version), "pyproject.toml": project.encode()}


def _metadata(
    name: str,
    version: str,
    metadata_version: str,
    requires_python: str | None,
    extra: Sequence[tuple[str, str]],
    description: str,
) -> bytes:
    headers = [("Metadata-Version", metadata_version), ("Name", name), ("Version", version)]
    if requires_python is not None:
        headers.append(("Requires-Python", requires_python))
    text = "".join(f"{header}: {value}\n" for header, value in (*headers, *extra))
    return (text + (f"\n{description}" if description else "")).encode()


def _wheel_facts(tag: str) -> bytes:
    pythons, abis, platforms = tag.split("-")
    tags = [
        f"Tag: {python}-{abi}-{platform}\n"
        for python in pythons.split(".")
        for abi in abis.split(".")
        for platform in platforms.split(".")
    ]
    pure = "true" if platforms == "any" else "false"
    head = f"Wheel-Version: 1.0\nGenerator: private-pypi-testing\nRoot-Is-Purelib: {pure}\n"
    return (head + "".join(tags)).encode()


def _record(members: Mapping[str, bytes], record: str) -> bytes:
    output = io.StringIO()
    rows = csv.writer(output, lineterminator="\n")
    for path, content in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.writerow((path, f"sha256={digest}", len(content)))
    rows.writerow((record, "", ""))
    return output.getvalue().encode()


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in members.items():
            info = zipfile.ZipInfo(path, _FIRST_ZIP_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o100644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def _tar_gz(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            info.mode = 0o644
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def _read_metadata(filename: str, content: bytes) -> email.message.Message:
    core_metadata = read_core_metadata(io.BytesIO(content), filename)
    assert core_metadata is not None
    return email.parser.Parser().parsestr(core_metadata.decode())
