"""The interface between the core of private_pypi and its backends.

A *storage* is where the files of a repository are kept, such as a folder. A *backend* is the code
that accesses one kind of storage: it stores, lists and fetches files. The *core*, which is the rest
of private_pypi, deals with filenames, hashes, metadata, HTML, retries, caches and the index. The
tests in `private_pypi.testing.contract` define what a backend has to do; this package describes it.

There is one `Backend` object for each repository. It owns connections and caches. For each secret,
which is what clients send as their password, it makes a view of the storage, a `Storage`. Every
view can say what its secret may do, and open a file. Everything else is optional, and described by
a protocol for each ability (`private_pypi.backend.capabilities`).

Rules for every method of every view:

1. It may be called by several threads and several processes at the same time.
2. It is atomic: nobody ever sees a part of a file or of an index, even if a process is killed.
3. It raises errors from `private_pypi.errors` only: `BackendUnavailable` if it may help to try
   again, `StorageFull` if there is no space, and `BackendError` for other failures. A failure is
   never reported as `NotFound`: a missing folder, bucket or database is not an empty storage.
4. It does not retry, because `private_pypi.storage.retrying` does. Retries of a client library have
   to be turned off. Every wait for a network has a time-out.
5. It may raise `WrongSecret` if the storage no longer accepts the secret of the view.
"""

from __future__ import annotations

from private_pypi.backend.access import Access
from private_pypi.backend.capabilities import (
    NO_INDEX,
    STORAGE_CAPABILITIES,
    Limit,
    PublicAddress,
    SupportsAliases,
    SupportsCoreMetadata,
    SupportsDelete,
    SupportsFind,
    SupportsIndex,
    SupportsKeepOpen,
    SupportsList,
    SupportsListingMark,
    SupportsListParts,
    SupportsLookup,
    SupportsOverwriteIndex,
    SupportsParts,
    SupportsProjectList,
    SupportsProjects,
    SupportsPublicAddresses,
    SupportsPublish,
    SupportsRecent,
    SupportsRecords,
    SupportsReplaceIndex,
    SupportsRestore,
    SupportsRootAddresses,
    SupportsSweep,
    SupportsTenants,
    SupportsUsage,
    SupportsYank,
    Usage,
    missing_capability,
)
from private_pypi.backend.retry_after import retry_after
from private_pypi.backend.settings import (
    Address,
    BackendSettings,
    CachedSettings,
    Contacted,
    Folders,
    ReadSecretSettings,
    RemoteSettings,
    Secret,
    SecretsSettings,
)
from private_pypi.backend.storage import (
    AnyBackend,
    AnyStorage,
    Backend,
    Storage,
    Traits,
    can,
    capability,
)
from private_pypi.backend.system_errors import system_errors
from private_pypi.backend.upstream import (
    MirrorSettings,
    SupportsUpstream,
    UpstreamFile,
    UpstreamNames,
    UpstreamPage,
)

__all__ = [
    "NO_INDEX",
    "STORAGE_CAPABILITIES",
    "Access",
    "Address",
    "AnyBackend",
    "AnyStorage",
    "Backend",
    "BackendSettings",
    "CachedSettings",
    "Contacted",
    "Folders",
    "Limit",
    "MirrorSettings",
    "PublicAddress",
    "ReadSecretSettings",
    "RemoteSettings",
    "Secret",
    "SecretsSettings",
    "Storage",
    "SupportsAliases",
    "SupportsCoreMetadata",
    "SupportsDelete",
    "SupportsFind",
    "SupportsIndex",
    "SupportsKeepOpen",
    "SupportsList",
    "SupportsListParts",
    "SupportsListingMark",
    "SupportsLookup",
    "SupportsOverwriteIndex",
    "SupportsParts",
    "SupportsProjectList",
    "SupportsProjects",
    "SupportsPublicAddresses",
    "SupportsPublish",
    "SupportsRecent",
    "SupportsRecords",
    "SupportsReplaceIndex",
    "SupportsRestore",
    "SupportsRootAddresses",
    "SupportsSweep",
    "SupportsTenants",
    "SupportsUpstream",
    "SupportsUsage",
    "SupportsYank",
    "Traits",
    "UpstreamFile",
    "UpstreamNames",
    "UpstreamPage",
    "Usage",
    "can",
    "capability",
    "missing_capability",
    "retry_after",
    "system_errors",
]
