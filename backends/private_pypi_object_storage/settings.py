"""The table of an `object_storage` repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from private_pypi.backend import Address, Secret
from private_pypi.backend.objects import ObjectsSettings

_KEYS: Final = {
    "s3": (
        *("region", "access_key_id", "secret_access_key", "session_token"),
        *("profile", "credentials_file"),
    ),
    "az": ("account", "account_key", "sas_token"),
    "gs": ("service_account_key",),
}
"""The keys that only make sense with one kind of store, by the scheme of `url`."""


@dataclass(frozen=True, kw_only=True)
class ObjectStorageSettings(ObjectsSettings):
    """The table of an `object_storage` repository."""

    names_storage = ("url", "endpoint")

    url: Address
    """Where the repository is: `s3://bucket/prefix`, `az://container/prefix` or
    `gs://bucket/prefix`. It is an address: with a role of its machine, a server can reach buckets
    that the author of a configuration cannot."""
    endpoint: Address | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    profile: str | None = None
    credentials_file: Path | None = None
    account: str | None = None
    account_key: Secret | None = None
    sas_token: Secret | None = None
    service_account_key: Secret | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = urlsplit(self.url)
        if "@" in self.url or ":" in parts.netloc:
            raise ValueError(
                "url: names a bucket only; the address of the store is `endpoint`, and credentials "
                "have keys of their own"
            )
        if parts.scheme not in _KEYS or not parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                f"url: must be s3://bucket/prefix, az://container/prefix or gs://bucket/prefix, "
                f"not {self.url!r}"
            )
        if any(each in ("", ".", "..") for each in self.prefix.split("/") if self.prefix):
            raise ValueError(f"url: {parts.path!r} has an empty part, '.' or '..'")
        if self.endpoint is not None:
            endpoint = urlsplit(self.endpoint)
            if "@" in self.endpoint:
                raise ValueError("endpoint: must not contain credentials; they have keys")
            if endpoint.scheme not in ("http", "https") or not endpoint.hostname:
                raise ValueError(
                    f"endpoint: must begin with https:// or http://, not {self.endpoint!r}"
                )
        for scheme, keys in _KEYS.items():
            for key in keys:
                if scheme != self.scheme and getattr(self, key) is not None:
                    raise ValueError(f"{key}: is only for {scheme}://, and url is {self.url!r}")
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id: needs secret_access_key, and the other way round")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token: needs access_key_id and secret_access_key")
        if self.profile is not None and self.access_key_id is not None:
            raise ValueError("profile: is given instead of access_key_id and secret_access_key")
        if self.credentials_file is not None and self.profile is None:
            raise ValueError("credentials_file: needs profile, the name of a section of the file")
        if (self.account_key is not None or self.sas_token is not None) and self.account is None:
            raise ValueError("account: is needed with account_key and sas_token")
        if self.sas_token is not None and self.download == "redirect":
            raise ValueError(
                "sas_token: cannot sign addresses for clients; with it, download must be 'proxy'"
            )

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def bucket(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def prefix(self) -> str:
        """What all keys begin with, without slashes at its ends."""
        return urlsplit(self.url).path.strip("/")
