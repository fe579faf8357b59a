"""`copy`: from one repository of a configuration to another, whatever their types are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from packaging.utils import NormalizedName

from private_pypi.backend import Access
from private_pypi.commands.command_line import UsageError
from private_pypi.commands.files import one_secret, say, warn
from private_pypi.commands.indexing import Progress
from private_pypi.commands.opening import (
    StoredGrant,
    folders_of_command,
    found_files,
    open_repository,
    read_table,
)
from private_pypi.distributions.filenames import normalize
from private_pypi.distributions.records import make_record
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    InvalidUpload,
    PrivatePypiError,
)
from private_pypi.model import DistributionFile, Redirect, Upload
from private_pypi.repositories import whole

_BLOCK = 1 << 20  # bytes


@dataclass(slots=True)
class _Counts:
    copied: int = 0
    there: int = 0
    yanked: int = 0
    problems: list[str] = field(default_factory=list)  # a sentence for each file


def copy(
    source: str,
    destination: str,
    *,
    config: str,
    admin_secret: str | None = None,
    root: str | None = None,
    project: str | None = None,
    dry_run: bool = False,
    source_secret: str | None = None,
    source_secret_env: str | None = None,
    source_secret_file: str | None = None,
    destination_secret: str | None = None,
    destination_secret_env: str | None = None,
    destination_secret_file: str | None = None,
    environ: Mapping[str, str],
) -> None:
    """Copy the files of one repository to another one, of whatever type.

    Files that the destination has already are not copied again, so a copy that was interrupted can
    be continued by the same command. Every file is compared with its SHA-256 before it is
    published. Upload times, yanks and core metadata are kept if the destination can keep them.
    Names that were deleted in the destination stay deleted.

    Args:
        source: The name of the repository to copy from.
        destination: The name of the repository to copy to.
        config: Path of a configuration file with a table for each of the two.
        admin_secret: Path of the file of admin secrets (TOML), if one of the two needs it.
        root: The folder of the server. It is needed for a file_system repository without a path
            of its own, whose files are stored inside this folder.
        project: Copy only these projects (names separated by commas).
        dry_run: Tell what would be copied, and copy nothing.
        source_secret: A secret that may read the source, unless the admin secrets have one.
        source_secret_env: Name of the environment variable that holds this secret.
        source_secret_file: Path of a file that holds this secret.
        destination_secret: A secret that may write to the destination, unless the admin secrets
            have one.
        destination_secret_env: Name of the environment variable that holds this secret.
        destination_secret_file: Path of a file that holds this secret.

    Example:
        private_pypi copy old new --config config.toml --source_secret_env GITHUB_TOKEN
    """
    if source.lower() == destination.lower():
        raise UsageError("SOURCE and DESTINATION are the same repository")
    given = [
        one_secret(what, raw=raw, env=env, file=file, environ=environ)
        for what, raw, env, file in (
            ("source_secret", source_secret, source_secret_env, source_secret_file),
            (
                "destination_secret",
                destination_secret,
                destination_secret_env,
                destination_secret_file,
            ),
        )
    ]
    tables = [read_table(name, config, admin_secret, environ) for name in (source, destination)]
    only = None if project is None else [normalize(name) for name in project.split(",")]
    with (
        folders_of_command(tables, root) as folders,
        open_repository(
            tables[0], given[0], folders, access=Access.READ, flag="source_secret"
        ) as reader,
        open_repository(
            tables[1], given[1], folders, access=Access.WRITE, flag="destination_secret"
        ) as writer,
    ):
        counts = _copy_all(reader, writer, only, dry_run=dry_run, tmp=folders.tmp)
    for sentence in counts.problems:
        warn(f"warning: {sentence}")
    would = "would be " if dry_run else ""
    yanked = f", {counts.yanked} yanks {would}carried over" if counts.yanked else ""
    say(
        f"{source} -> {destination}: {counts.copied} files {would}copied, "
        f"{counts.there} were there{yanked}"
    )
    if counts.problems:
        raise BackendError(f"{len(counts.problems)} files were not copied; see above")


def _copy_all(
    source: StoredGrant,
    destination: StoredGrant,
    only: list[NormalizedName] | None,
    *,
    dry_run: bool,
    tmp: Path,
) -> _Counts:
    counts, progress = _Counts(), Progress()
    names = source.list_projects().names() if only is None else only
    try:
        for number, name in enumerate(names, 1):
            progress(number, len(names), f"copying {name}")
            files = found_files(source, name)
            if not files:
                if only is not None:
                    counts.problems.append(f"{source.name!r} has no project {name!r}")
                continue
            there = {file.filename: file for file in found_files(destination, name)}
            for file in files:
                _copy_one(source, destination, file, there, counts, dry_run=dry_run, tmp=tmp)
    except BackendUnavailable as error:
        raise BackendUnavailable(
            f"{error}; {counts.copied} files were copied, run the same command to go on",
            retry_after=error.retry_after,
        ) from error
    finally:
        progress.end()
    return counts


def _copy_one(
    source: StoredGrant,
    destination: StoredGrant,
    file: DistributionFile,
    there: Mapping[str, DistributionFile],
    counts: _Counts,
    *,
    dry_run: bool,
    tmp: Path,
) -> None:
    """Copy a file unless it is there. What is wrong with it is noted, and the others go on."""
    same = there.get(file.filename)
    try:
        if same is not None and same.sha256 != file.sha256:
            raise FileAlreadyExists(file.filename)
        if file.size > destination.max_file_bytes:
            raise InvalidUpload(
                f"{file.filename!r} has {file.size} bytes, and {destination.name!r} takes "
                f"{destination.max_file_bytes} (max_file_bytes)"
            )
        published = same
        if same is None:
            counts.copied += 1
            if dry_run:
                say(f"would copy {file.filename}")
            else:
                published = _publish(source, destination, file, tmp)
        else:
            counts.there += 1
        if file.yanked is not None and (same is None or same.yanked is None):
            counts.yanked += 1
            if published is not None and not dry_run:
                destination.yank([published], file.yanked)
    except BackendUnavailable:
        raise
    except PrivatePypiError as error:
        if same is None:
            counts.copied = max(0, counts.copied - 1)
        counts.problems.append(str(error))


def _publish(
    source: StoredGrant, destination: StoredGrant, file: DistributionFile, tmp: Path
) -> DistributionFile:
    content = tmp / "content"
    digest, size = hashlib.sha256(), 0
    with content.open("wb") as copy:
        for chunk in _chunks(source, file):
            digest.update(chunk)
            size += len(chunk)
            copy.write(chunk)
    if (digest.hexdigest(), size) != (file.sha256, file.size):
        raise BackendError(f"{file.filename!r} of {source.name!r} arrived with other content")
    core_metadata = None
    if file.core_metadata_sha256 is not None:
        opened = whole(source.open_core_metadata(file))
        if isinstance(opened, Redirect):
            core_metadata = b"".join(_fetched(opened, file))
        else:
            with opened:
                core_metadata = opened.read()
    published = replace(file, location="", yanked=None)
    upload = Upload(
        file=published,
        content=content,
        core_metadata=core_metadata,
        record=make_record(published, []),
    )
    try:
        return destination.publish(upload)
    finally:
        content.unlink(missing_ok=True)


def _chunks(source: StoredGrant, file: DistributionFile) -> Iterator[bytes]:
    opened = whole(source.open_file(file))
    if isinstance(opened, Redirect):
        yield from _fetched(opened, file)
        return
    with opened:
        while chunk := opened.read(_BLOCK):
            yield chunk


def _fetched(there: Redirect, file: DistributionFile) -> Iterator[bytes]:
    from private_pypi.index.examining import chunks_of

    return chunks_of(there, file.filename)
