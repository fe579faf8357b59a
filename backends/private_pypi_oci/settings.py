"""The table of an `oci` repository, and the names of the namespaces that it serves."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from private_pypi.backend import Address, RemoteSettings
from private_pypi_oci import layout

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")


@dataclass(frozen=True, kw_only=True)
class OciSettings(RemoteSettings):
    """The table of an `oci` repository."""

    names_storage = ("registry", "namespace")

    registry: Address = ""  # a host with its port, or an address with a scheme
    namespace: str = ""  # such as "acme" or "acme/python"
    any_registry: bool = False  # serve every namespace of `registries`, each at its own address
    registries: tuple[Address, ...] = ()
    bearer_username: str | None = None  # the password of this user is a token of the registry
    username: str | None = None  # the secret is its password; None: the secret is user:password
    plain_http: bool = False
    token_hosts: tuple[Address, ...] = ()  # of token endpoints outside the registry's site
    labels: tuple[str, ...] = ()  # "key=value": annotations of what is published
    max_versions: int = 0  # how many of the newest versions are shown; 0: all

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.any_registry:
            self._check_any_registry()
        else:
            self._check_one_registry()
        if self.max_versions < 0:
            raise ValueError(f"max_versions: must not be negative, not {self.max_versions}")
        for label in self.labels:
            if "=" not in label:
                raise ValueError(f"labels: {label!r} is not of the form key=value")

    def _check_one_registry(self) -> None:
        if self.registries:
            raise ValueError(
                "registries: needs any_registry = true, which serves all their namespaces"
            )
        if not self.registry:
            raise ValueError(
                "registry: missing; name the registry that has the packages, or set "
                "any_registry = true and list the `registries` that clients may name"
            )
        _check_registry("registry", self.registry, self.url, self.plain_http)
        if not layout.is_repository(self.namespace):
            raise ValueError(
                f"namespace: {self.namespace!r} cannot be the beginning of a repository's name: "
                "lower-case letters, digits and single separators, parts separated by '/'"
            )

    def _check_any_registry(self) -> None:
        for key in ("registry", "namespace", "username"):
            if getattr(self, key):
                raise ValueError(f"{key}: with any_registry = true, each client says this itself")
        if not self.registries:
            raise ValueError(
                "registries: missing; any_registry needs the list of the registries that clients "
                "may name"
            )
        for registry in self.registries:
            # An address without a scheme is of https, as PyOCI has it.
            _check_registry("registries", registry, _url_of(registry, "https"), self.plain_http)

    @property
    def url(self) -> str:
        """The address of the registry, without a path."""
        return _url_of(self.registry, "http" if self.plain_http else "https")

    @property
    def has_only_tenants(self) -> bool:
        """Whether each client names its registry and its namespace."""
        return self.any_registry

    def tenant_at(self, host: str, path: str) -> str | None:
        """The name of the tenant for a namespace of an allowed registry; None for all others.

        It is the address of the namespace, but with "~" and "+", which neither a host nor a
        namespace contains, in place of "/" and ":".
        """
        if not self.any_registry or not layout.is_repository(path):
            return None
        urls = [_url_of(registry, "https") for registry in self.registries]
        wanted = [host] if "://" in host else [f"https://{host}", f"http://{host}"]
        url = next((url for url in wanted if url in urls), None)
        if url is None:
            return None
        return f"{url.removeprefix('https://')}/{path}".replace("/", "~").replace(":", "+")

    def tenant(self, name: str) -> OciSettings | None:
        """The settings for a tenant; None if there is none of this name."""
        scheme, _, address = name.replace("~", "/").replace("+", ":").rpartition("://")
        host, _, path = address.partition("/")
        url = f"{scheme or 'https'}://{host}"
        if self.tenant_at(url, path) != name:
            return None
        return replace(
            self, name=name, registry=url, namespace=path, any_registry=False, registries=()
        )


def _url_of(registry: str, scheme: str) -> str:
    """The address of a registry, without a path; `scheme` is for those that have none."""
    text = registry.lower().rstrip("/")
    parts = urlsplit(text if "://" in text else f"{scheme}://{text}")
    return f"{parts.scheme}://{parts.netloc}"


def _check_registry(key: str, registry: str, address: str, plain_http: bool) -> None:
    url = urlsplit(address)
    rest = registry.rpartition("://")[2].rstrip("/").lower()
    if url.scheme not in ("https", "http") or not _HOST.fullmatch(url.netloc):
        raise ValueError(
            f"{key}: {registry!r} is neither a host, such as 'ghcr.io', nor an address"
        )
    if rest != url.netloc:
        raise ValueError(f"{key}: {registry!r} must not have a path; that is the namespace")
    if url.scheme == "http" and not plain_http:
        raise ValueError(
            f"{key}: an address that begins with http: needs plain_http = true, because "
            "secrets are then sent without encryption"
        )
