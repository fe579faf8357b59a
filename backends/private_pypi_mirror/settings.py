"""The table of a `mirror` repository: which index it reads, and with which credentials."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from private_pypi.backend import Address, MirrorSettings, Secret
from private_pypi.backend.public_index import public_index_url
from private_pypi_mirror.sockets import Proxy, load_authorities

# Project names and patterns of them, as the key `claimed` takes them.
_PATTERN: Final = re.compile(r"[A-Za-z0-9._*?\[\]!-]+")
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, kw_only=True)
class IndexMirrorSettings(MirrorSettings):
    """The table of a `mirror` repository."""

    names_storage = ("index_url",)

    index_url: Address = ""  # of the list of projects; "": the public index
    username: str = ""
    password: Secret | None = None
    proxy_url: Address = ""  # of an HTTP proxy, through which everything is asked; "": none
    proxy_username: str = ""
    proxy_password: Secret | None = None
    ca_file: Path | None = None
    """Certificate authorities in PEM format that are trusted as well as those of the system."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.index_url:
            self._check_index_url()
        if self.proxy_url:
            wanted = "it must be an address such as 'http://proxy.acme.example:3128'"
            keys = "proxy_username and proxy_password_env"
            parts = _address("proxy_url", self.proxy_url, ("http", "https"), wanted, keys)
            if parts.path not in ("", "/"):
                raise ValueError(f"proxy_url: must not have a path; {wanted}")
        elif self.proxy_username or self.proxy_password is not None:
            raise ValueError("proxy_url: missing; the credentials are for a proxy")
        if self.ca_file is not None:
            try:
                load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self.ca_file)
            except ValueError as error:
                raise ValueError(f"ca_file: {error}") from None
        self._check_credentials("", self.username, self.password)
        self._check_credentials("proxy_", self.proxy_username, self.proxy_password)
        if self.username and self.is_folder:
            raise ValueError("username: a folder takes no credentials; remove this key")
        for key, patterns in (("only", self.only), ("except", self.except_)):
            for pattern in patterns:
                if not _PATTERN.fullmatch(pattern):
                    raise ValueError(
                        f"{key}: {pattern!r} cannot match a project; it must be a project name, or "
                        "a pattern such as 'acme-*'"
                    )

    @staticmethod
    def _check_credentials(prefix: str, username: str, password: Secret | None) -> None:
        if password is not None and not username:
            often = "" if prefix else ", and is often '__token__' if the password is a token"
            raise ValueError(f"{prefix}username: missing; it belongs to the password{often}")
        if ":" in username or not username.isprintable():
            raise ValueError(
                f"{prefix}username: must not have colons or control characters (RFC 7617)"
            )

    def _check_index_url(self) -> None:
        wanted = "it must be an address such as 'https://pypi.acme.example/simple/'"
        keys = "username and password_env"
        parts = _address("index_url", self.index_url, ("https", "http", "file"), wanted, keys)
        if self.is_folder:
            if parts.hostname not in (None, "localhost") or "\0" in unquote(parts.path):
                raise ValueError(
                    "index_url: a folder of this machine is meant by three slashes and its path, "
                    "such as 'file:///srv/simple/'"
                )
            if ".." in unquote(parts.path).split("/"):
                raise ValueError("index_url: the path must not have '..' in it")

    @property
    def reads_public_index(self) -> bool:
        """Whether the upstream is the public index, so that the mirror has no secrets."""
        return not self.username and self.base_url == public_index_url().rstrip("/") + "/"

    @property
    def is_folder(self) -> bool:
        """Whether the index is a folder on this machine."""
        return urlsplit(self.index_url).scheme == "file"

    @property
    def costs_requests(self) -> bool:
        return not self.is_folder

    @property
    def base_url(self) -> str:
        """The address of the index, with a slash at its end."""
        return (self.index_url or public_index_url()).rstrip("/") + "/"

    @property
    def proxy(self) -> Proxy | None:
        """The HTTP proxy, if there is one."""
        if not self.proxy_url:
            return None
        password = (self.proxy_password or Secret("")).reveal()
        return Proxy(url=self.proxy_url, username=self.proxy_username, password=password)


def _address(
    key: str, value: str, schemes: tuple[str, ...], wanted: str, credentials: str
) -> SplitResult:
    """The parts of an address; raises `ValueError` without the value, which may have a password.

    `wanted`: what would be right. `credentials`: the keys that credentials belong to.
    """
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{key}: not an address ({error}); {wanted}") from None
    if parts.scheme not in schemes:
        *others, last = (f"{scheme}:" for scheme in schemes)
        raise ValueError(f"{key}: does not begin with {', '.join(others)} or {last}; {wanted}")
    if _CONTROL.search(value):
        raise ValueError(f"{key}: must not have spaces or control characters; {wanted}")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            f"{key}: must not have a user or a password in it; use the keys {credentials}"
        )
    if parts.query or parts.fragment:
        raise ValueError(f"{key}: must not have a query or a fragment; {wanted}")
    if parts.scheme != "file" and not host:
        raise ValueError(f"{key}: has no host; {wanted}")
    return parts
