"""The base classes of every backend: one `Backend` for each repository, and its `Storage` views."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, cast

from private_pypi.backend.access import Access
from private_pypi.backend.settings import BackendSettings, Folders, Secret
from private_pypi.model import Download, FileHandle

SettingsT = TypeVar("SettingsT", bound=BackendSettings)
BackendT = TypeVar("BackendT", bound="Backend[Any]")
P = TypeVar("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Properties of the kind of storage that a backend accesses.

    The defaults fit a storage that is accessed over a network.
    """

    largest_file: int
    """The size of the largest file that can be stored, in bytes. It is the default and the upper
    limit of `max_file_bytes`."""
    lists_cheaply: bool = False
    """Listing all files takes hardly any time. The server then lists them regularly, and the index
    document only adds what a listing cannot contain. Otherwise, the server relies on the index
    document, and only asks for `recent_files` in addition."""
    opens_here: bool = False
    """The files are on this machine, so the server does not store copies in its disk cache."""
    has_journal: bool = False
    """`recent_files` takes one request if nothing is new, and has each file as soon as it was
    published. The server then also asks it, at most once a second, when a client asks for a file
    that the server does not know."""
    answers_at_once: bool = False
    """A call is about as fast as one of the file system. It is made in the thread of the request,
    and is not repeated if it fails. Otherwise, a limited number of calls are made in background
    threads, and repeated if they fail (`private_pypi.storage.retrying`)."""
    answers_exactly: bool = False
    """An answer is always up to date. Otherwise, it may be some seconds old, for example because
    the provider has caches."""
    needs_admin_secret: bool = True
    """The server needs a secret of its own to list files, from `admin_secret.toml`."""
    rights_per_project: bool = False
    """`access(project)` may differ from `access()`. The server then shows nothing about a project
    before the storage has confirmed that the secret may read it."""
    secrets_per_tenant: bool = False
    """A secret may be valid for one tenant only (see `SupportsTenants`), so `access()` of the
    tenant's storage is asked about it, and not that of the table's own."""


class Storage(abc.ABC, Generic[BackendT]):
    """A view of a storage: what one secret may see of it. Creating a view does no I/O.

    The two methods of this class are required. The other abilities of a storage are described by
    the protocols in `private_pypi.backend.capabilities`; a view supports a protocol by having its
    methods.
    """

    lacks: frozenset[type] = frozenset()
    """Protocols that this view does not support although it has their methods. Use it if this
    depends on the instance: a registry that does not allow deletions, for example."""

    def __init__(self, backend: BackendT, secret: Secret) -> None:
        self.backend = backend
        self.secret = secret

    @abc.abstractmethod
    def access(self, project: str | None = None) -> Access:
        """What the secret of this view may do in the storage, or with a project (normalised name).

        The caller remembers the answer for a while, even if it is NONE. It must be NONE for an
        empty secret. If rights differ from project to project, `access()` tells whether the secret
        is valid at all, and `access(project)` what it may do. For a project, NONE means that it
        does not exist, or that the secret may not see it.
        """

    @abc.abstractmethod
    def open_file(self, file: FileHandle) -> Download:
        """The content of a file, or the address where clients can fetch it.

        Raises `FileNotFound` if the file is known not to exist, and `InvalidUpload` if it is not a
        regular file, but a symbolic link, for example. The filename is always that of a
        distribution file. But `file.location` may come from an index document that somebody has
        edited, so the backend must make sure that it does not lead to another file.
        """


class Backend(abc.ABC, Generic[SettingsT]):
    """The storage of one repository: its settings, and everything that its views share.

    That includes connections, caches and access tokens. Creating it does no I/O. It must be safe to
    use from several threads at the same time.
    """

    Settings: ClassVar[type[BackendSettings]]
    """The class of the settings, whose fields are the keys of the repository's table."""
    View: ClassVar[type[Storage[Any]]]
    """The class of the views."""
    traits: ClassVar[Traits]
    location_key: ClassVar[str] = "location"
    """The key in `index.toml` under which the `location` of a file is stored."""

    def __init__(self, settings: SettingsT, folders: Folders) -> None:
        self.settings = settings
        self.folders = folders

    @classmethod
    def may_be_secret(cls, secret: Secret) -> bool:
        """Whether a text looks like a secret of this storage. This does no I/O.

        If it does not, it is not sent to the provider. That saves a request, and protects users who
        enter the password of another service by mistake.
        """
        return bool(secret)

    def seen_with(self, secret: Secret) -> Storage[Any]:
        """A view of the storage with this secret. The core keeps it while it is in use."""
        return self.View(self, secret)

    def close(self) -> None:
        """Close all connections. This is called once, when the repository is no longer served."""


AnyBackend = Backend[Any]
AnyStorage = Storage[Any]


def capability(storage: AnyStorage, protocol: type[P]) -> P | None:
    """The same storage, typed as the protocol; None if it does not support the protocol."""
    # `isinstance` looks for each method again and again, and the class nearly always has them.
    has = issubclass(type(storage), protocol) or isinstance(storage, protocol)
    return cast(P, storage) if has and protocol not in storage.lacks else None


def can(backend_class: type[AnyBackend], protocol: type) -> bool:
    """Whether the views of a backend have the methods of a protocol."""
    return issubclass(backend_class.View, protocol)
