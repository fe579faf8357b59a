"""The settings of a backend, which come from the table of a repository in the configuration."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from private_pypi.backend.access import Access


class Secret:
    """A secret text that is not shown when it is printed or logged by mistake."""

    __slots__ = ("_digest", "_raw")

    def __init__(self, raw: str) -> None:
        self._raw = raw
        self._digest: bytes | None = None

    def reveal(self) -> str:
        """The secret itself. Use it only to send it to the storage or to compare it."""
        return self._raw

    @property
    def digest(self) -> bytes:
        """A hash of it, to be remembered instead of it."""
        if self._digest is None:
            raw = self._raw.encode("utf-8", "surrogatepass")
            self._digest = hashlib.blake2b(raw).digest()
        return self._digest

    def __bool__(self) -> bool:
        return bool(self._raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._raw == other._raw

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return "Secret(…)"


class Contacted:
    """Marks a type as an `Address`."""


Address = Annotated[str, Contacted()]
"""The type of a setting whose value is an address that the server contacts, such as that of an API.

All such fields of a `Settings` must have this type. A configuration that is submitted over HTTP
without the admin token may not set them, because the server can reach addresses that its author
cannot.
"""


@dataclass(frozen=True, kw_only=True)
class BackendSettings:
    """The checked fields of a repository's table. The `Settings` of a backend add their own fields.

    Settings contain only values. Anything that has to be closed, such as a connection, belongs to
    the `Backend`.

    The values from TOML are converted to the types of the fields: `str`, `int`, `float`, `bool`,
    `Path`, `Secret`, `Literal[…]`, tuples of these, `… | None`. The value of a `Secret` or a
    `tuple[Secret, ...]` may also come from an environment variable (`<field>_env`) or a file
    (`<field>_file`). The types also restrict a configuration that is submitted over HTTP: a `Path`
    must be in ROOT, and an `Address` cannot be set without the admin token.

    Check further rules in `__post_init__`, and raise `ValueError("<field>: what is wrong")`. The
    operator sees this sentence after the name of the table.
    """

    names_storage: ClassVar[tuple[str, ...] | None] = None
    """The fields that identify the storage, as opposed to how it is used. None: all of them.

    If one of these fields changes, the server forgets what it remembered about the old storage,
    such as the names of deleted files. Secrets and the fields of `RemoteSettings` never count.
    """

    name: str  # of the repository, lower case
    max_file_bytes: int

    @property
    def has_only_tenants(self) -> bool:
        """Whether only its tenants have a storage (`SupportsTenants`)."""
        return False


@dataclass(frozen=True, kw_only=True)
class CachedSettings(BackendSettings):
    """The field of a storage whose files are kept in the disk cache of the server."""

    cache_bytes: int = 5 * 2**30
    """The size of the cache on the server's disk for files that it sends, in bytes."""

    def __post_init__(self) -> None:
        if self.cache_bytes <= 0:
            raise ValueError(f"cache_bytes: must be greater than 0, not {self.cache_bytes}")


@dataclass(frozen=True, kw_only=True)
class RemoteSettings(CachedSettings):
    """The fields of a storage that is accessed over a network."""

    download: Literal["proxy", "redirect"] = "proxy"
    """Whether clients get files from this server ("proxy"), or are redirected to the storage if it
    supports that ("redirect")."""


@dataclass(frozen=True, kw_only=True)
class ReadSecretSettings(BackendSettings):
    """The field of a storage without users of its own from which clients can only read.

    There may be several secrets, so that an old one works while clients change to a new one.
    """

    read_secret: tuple[Secret, ...] = ()

    def access_of(self, secret: Secret) -> Access:
        """What a secret may do. An empty secret may do nothing, even if it is in the table.

        The time it takes does not reveal how similar the secret is to one in the table.
        """
        return Access.READ if _matches(secret, self.read_secret) else Access.NONE


@dataclass(frozen=True, kw_only=True)
class SecretsSettings(ReadSecretSettings):
    """The fields of a storage without users of its own: its secrets are listed in the table."""

    write_secret: tuple[Secret, ...] = ()

    def access_of(self, secret: Secret) -> Access:
        """What a secret may do; see `ReadSecretSettings`."""
        # Both are always compared, so that the time does not tell which one matches.
        may_read = super().access_of(secret)
        may_write = _matches(secret, self.write_secret)
        return Access.WRITE if may_write else may_read


def _matches(given: Secret, accepted: Sequence[Secret]) -> bool:
    candidate = given.reveal().encode("utf-8", "surrogatepass")
    verdicts = [
        hmac.compare_digest(candidate, secret.reveal().encode("utf-8", "surrogatepass"))
        for secret in accepted
        if secret
    ]
    return any(verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """The folders in ROOT that one repository may use.

    They exist, with one exception: the folders `cache` and `lock` of a tenant (`SupportsTenants`)
    are created when its storage has confirmed that a project exists. So they may be missing when
    `access` or `projects` is called.

    All of them are on the file system of ROOT. If the storage is on another file system, a file in
    `tmp` cannot be linked or renamed into it (`errno.EXDEV`).
    """

    cache: Path  # for files that are kept when the server stops
    lock: Path  # for locks between the processes of this ROOT
    tmp: Path  # used by this process only, and emptied when it starts
