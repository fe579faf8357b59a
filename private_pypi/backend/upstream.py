"""The interface of a backend that reads another index: a mirror of it.

The *upstream* is the index that a mirror reads, such as the public index. The core keeps what the
upstream said in a local index of its own (`private_pypi.index.mirrored`), keeps files in the disk
cache, and decides what is let through (`private_pypi.policy`). A backend only asks the upstream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from private_pypi.backend.denials import parse_denials
from private_pypi.backend.settings import CachedSettings, ReadSecretSettings
from private_pypi.backend.times import parse_duration, parse_instant
from private_pypi.model import Download, FileHandle, ProjectStatus

LEAST_INDEX_BYTES = 128 << 20
"""The smallest `index_bytes`: twice the list of 700,000 projects, which is there twice while it is
replaced, and some pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamFile:
    """One file on a page of the upstream, as the upstream describes it."""

    filename: str  # may be anything, also no name of a distribution file
    url: str  # absolute, without a fragment
    hashes: Mapping[str, str] = field(default_factory=dict)
    """By algorithm, such as "sha256", in lower case. Empty if the upstream gives none."""
    size: int | None = None  # bytes; None: unknown
    uploaded_at: datetime | None = None  # UTC; None: unknown
    requires_python: str | None = None
    yanked: str | None = None  # the reason, or "" if none was given; None: not yanked
    core_metadata: Mapping[str, str] | None = None
    """The hashes of its core metadata, which are at `url` plus `.metadata` (PEP 658). Empty: the
    upstream offers them without a hash. None: it does not offer them."""
    provenance: str | None = None  # an absolute https URL (PEP 740)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamPage:
    """The page of one project of the upstream."""

    files: Sequence[UpstreamFile]
    status: ProjectStatus | None = None  # None: active, or the upstream does not say
    validator: str = ""
    """What to give to `project_page` next time, such as an ETag; "" if the upstream gave none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamNames:
    """The list of the projects of the upstream."""

    names: Iterator[str]
    """In any spelling and order, and perhaps hundreds of thousands of them. They are read from the
    upstream while they are iterated, with little memory. The iterator raises `BackendError` if the
    list is damaged or cut off, so a list that ends without an error is complete. Closing it ends
    the transfer."""
    validator: str = ""  # as in `UpstreamPage`


@dataclass(frozen=True, kw_only=True)
class MirrorSettings(CachedSettings, ReadSecretSettings):
    """The fields of every mirror. They say what it lets through (`private_pypi.policy`)."""

    only: tuple[str, ...] = ()
    """Patterns of project names, such as "acme-*". If there are any, the mirror has no others."""
    except_: tuple[str, ...] = ()  # patterns of names that it does not have
    offline: bool = False  # never ask the upstream, and answer with what is here
    cooldown: str = ""  # such as "7 days": younger files are not served
    as_of: str = ""  # a UTC instant or a date: files that were uploaded later are not served
    deny: tuple[str, ...] = ()  # lines in the format of a requirements file; see `policy`
    deny_file: Path | None = None  # a file with such lines
    wheels_only: bool = False  # whether source distributions are not served
    index_bytes: int = 2**30
    """The size of the local index, in bytes. If it is larger, pages that were not used for the
    longest time are removed from it."""

    @property
    def reads_public_index(self) -> bool:
        """Whether the upstream is the public index, so that the mirror has no secrets."""
        return False

    @property
    def costs_requests(self) -> bool:
        """Whether a question to the upstream is a request to a server."""
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.index_bytes < LEAST_INDEX_BYTES:
            raise ValueError(
                f"index_bytes: must be at least {LEAST_INDEX_BYTES}, because the list of projects "
                f"is kept as well, not {self.index_bytes}"
            )
        checks: tuple[tuple[str, Any, Callable[[Any], object]], ...] = (
            ("cooldown", self.cooldown, parse_duration),
            ("as_of", self.as_of, parse_instant),
            ("deny", self.deny, lambda lines: parse_denials(lines, called="entry")),
        )
        for key, value, parse in checks:
            try:
                if value:
                    parse(value)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None


@runtime_checkable
class SupportsUpstream(Protocol):
    """A storage that is another index. Its repository is a mirror.

    The `Settings` of the backend are a subclass of `MirrorSettings`.
    """

    def project_page(self, project: str, validator: str) -> UpstreamPage | None:
        """The page of a project (normalised name).

        None: it is still the page that came with `validator`; "" means that no page is known.
        Raises `ProjectNotFound` only if the upstream says that it has no such project. Everything
        else that goes wrong is a `BackendError`, such as a page that is cut off, is no index page,
        or is refused (401, 403).
        """

    def project_names(self, validator: str) -> UpstreamNames | None:
        """The list of projects; None: it is still the list that came with `validator`.

        Raises `BackendError` as `project_page` does, also if the upstream has no such list.
        """

    def file_size(self, file: FileHandle) -> int | None:
        """The size of a file in bytes; None: the upstream does not say it without sending the file.

        Raises `FileNotFound`, and `Unsupported` if `read_part` does not work for the file.
        """

    def open_metadata(self, file: FileHandle) -> Download:
        """The core metadata at the address of the file plus `.metadata`; raises `FileNotFound`.

        `file.location` is the `url` of an `UpstreamFile`. The method `open_file` and
        `SupportsParts.read_part` use it as well. The credentials of the upstream are only sent to
        its own origin. The size of the `Stream` is 0 if the upstream does not announce it.
        """
