"""The table of a `mirror` repository: which index it reads, and with which credentials."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from private_pypi.backend import Address, MirrorSettings, Secret
from private_pypi.backend.public_index import public_index_url

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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.index_url:
            self._check_index_url()
        if self.password is not None and not self.username:
            raise ValueError(
                "username: missing; it belongs to the password, and is often '__token__' if the "
                "password is a token"
            )
        if self.username and self.is_folder:
            raise ValueError("username: a folder takes no credentials; remove this key")
        if ":" in self.username or not self.username.isprintable():
            raise ValueError("username: must not have colons or control characters (RFC 7617)")
        for key, patterns in (("only", self.only), ("except", self.except_)):
            for pattern in patterns:
                if not _PATTERN.fullmatch(pattern):
                    raise ValueError(
                        f"{key}: {pattern!r} cannot match a project; it must be a project name, or "
                        "a pattern such as 'acme-*'"
                    )

    def _check_index_url(self) -> None:
        # The value may contain a password, so it is not repeated.
        wanted = "it must be an address such as 'https://pypi.acme.example/simple/'"
        try:
            parts = urlsplit(self.index_url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"index_url: not an address ({error}); {wanted}") from None
        if parts.scheme not in ("http", "https", "file"):
            raise ValueError(f"index_url: does not begin with https:, http: or file:; {wanted}")
        if _CONTROL.search(self.index_url):
            raise ValueError(f"index_url: must not have spaces or control characters; {wanted}")
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "index_url: must not have a user or a password in it; use the keys username and "
                "password_env"
            )
        if parts.query or parts.fragment:
            raise ValueError(f"index_url: must not have a query or a fragment; {wanted}")
        if self.is_folder:
            if host not in (None, "localhost") or "\0" in unquote(parts.path):
                raise ValueError(
                    "index_url: a folder of this machine is meant by three slashes and its path, "
                    "such as 'file:///srv/simple/'"
                )
            if ".." in unquote(parts.path).split("/"):
                raise ValueError("index_url: the path must not have '..' in it")
        elif not host:
            raise ValueError(f"index_url: has no host; {wanted}")

    @property
    def reads_public_index(self) -> bool:
        """Whether the upstream is the public index, so that the mirror has no secrets."""
        return not self.username and self.base_url == public_index_url().rstrip("/") + "/"

    @property
    def is_folder(self) -> bool:
        """Whether the index is a folder on this machine."""
        return urlsplit(self.index_url).scheme == "file"

    @property
    def base_url(self) -> str:
        """The address of the index, with a slash at its end."""
        return (self.index_url or public_index_url()).rstrip("/") + "/"
