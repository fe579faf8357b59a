"""Makes a wheel of another name out of a wheel: the same modules, under a name that is free.

The same wheel always gives the same bytes. An sdist cannot be renamed, because its build names it.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import stat
import zipfile
from pathlib import Path
from typing import Final

from private_pypi.backend import system_errors
from private_pypi.distributions.core_metadata import split_headers
from private_pypi.distributions.filenames import normalize, parse_filename

_CHUNK: Final = 1 << 20  # bytes
_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the first that zip files have
# A header with its continuation lines; see `distributions.core_metadata`.
_NAME: Final = re.compile(rb"(?i)(\A|(?<=[\r\n]))name:[^\r\n]*+((?:\r\n|\r|\n)[ \t][^\r\n]*+)*+")
_REQUIRED: Final = re.compile(
    rb"(?i)((?:\A|(?<=[\r\n]))requires-dist:[ \t]*+)([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
)
_SIGNATURES: Final = ("RECORD.jws", "RECORD.p7s")  # of a RECORD that is not the same any more


def rename_wheel(wheel: Path, name: str, folder: Path) -> Path:
    """Write a wheel under another project name into a folder, and return its path.

    `wheel` must have been checked (`archives.check_archive`). Its filename, its `.dist-info` and
    `.data` folders, METADATA and RECORD get the new name; everything else is as before. Extras
    that require other extras of the project itself (`demo[all]`) require them by the new name.
    """
    project, stem = parse_filename(wheel.name).project, "-".join(wheel.name.split("-")[:2])
    new_stem = f"{normalize(name).replace('-', '_')}-{stem.split('-')[1]}"
    target = folder / f"{new_stem}{wheel.name[len(stem) :]}"
    with (
        system_errors(f"cannot write {str(target)!r}"),
        zipfile.ZipFile(wheel) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        tops = {member.filename.partition("/")[0] for member in old.infolist()}
        [info] = [top for top in tops if top.endswith(".dist-info")]
        renamed = {info: f"{new_stem}.dist-info"}
        renamed |= {
            f"{each}.data": f"{new_stem}.data" for each in (stem, info.removesuffix(".dist-info"))
        }
        members: dict[str, zipfile.ZipInfo] = {}  # some tools write a member twice
        for member in old.infolist():
            if not member.is_dir():
                members[member.filename] = member
        left_out = {f"{info}/{each}" for each in ("RECORD", *_SIGNATURES)}
        rows = []
        for path, member in members.items():
            if path in left_out:
                continue
            top, slash, rest = path.partition("/")
            new_path = f"{renamed.get(top, top)}{slash}{rest}"
            if path == f"{info}/METADATA":
                content = io.BytesIO(_metadata(old.read(member), project, name))
                rows.append(_add(new, new_path, member, content))
            else:
                with old.open(member) as file:
                    rows.append(_add(new, new_path, member, file))
        record = f"{new_stem}.dist-info/RECORD"
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
        _add(new, record, members[f"{info}/RECORD"], io.BytesIO(text.getvalue().encode()))
    return target


def _add(
    wheel: zipfile.ZipFile, path: str, like: zipfile.ZipInfo, content: object
) -> tuple[str, str, str]:
    """Add a member; returns its row of RECORD (path, hash and size)."""
    member = zipfile.ZipInfo(path, _DATE)
    member.create_system = 3  # Unix, so that the permissions count: some files are programs
    mode = 0o755 if like.external_attr >> 16 & 0o111 else 0o644
    member.external_attr = (stat.S_IFREG | mode) << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    member.file_size = like.file_size  # whether the sizes need 64 bits
    digest, size = hashlib.sha256(), 0
    with wheel.open(member, "w") as file:
        while chunk := content.read(_CHUNK):  # type: ignore[attr-defined]
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
    text = base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")
    return path, f"sha256={text}", str(size)


def _metadata(content: bytes, project: str, name: str) -> bytes:
    headers, body = split_headers(content)

    def own(match: re.Match[bytes]) -> bytes:
        required = match[2].decode()
        return match[1] + (name if normalize(required) == project else required).encode()

    headers = _NAME.sub(b"Name: " + name.encode(), headers, count=1)
    return _REQUIRED.sub(own, headers) + body
