"""What both backends make of GitHub's answers and of their tables; it knows no layout of files."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import urlsplit

from private_pypi.backend import Access, Secret
from private_pypi.errors import BackendUnavailable
from private_pypi.model import Download, Redirect, Stream
from private_pypi_github.client import Answer, Chunks, Client

_USER_TOKENS = ("ghp_", "github_pat_", "gho_", "ghu_")
_OWNER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9_])?")


def check_owner(key: str, owner: str) -> None:
    """Raise ValueError unless this may be the login of a user or an organization."""
    if not _OWNER.fullmatch(owner):
        raise ValueError(f"{key}: {owner!r} is no user or organization of GitHub")


def check_api_url(api_url: str) -> None:
    """Raise ValueError unless this may be the address of GitHub's REST interface."""
    url = urlsplit(api_url)
    if url.scheme not in ("https", "http") or not url.hostname or url.query or url.fragment:
        raise ValueError(
            f"api_url: {api_url!r} is no address of an API; right is "
            "https://HOST/api/v3 for GitHub Enterprise Server"
        )
    if "@" in url.netloc:
        raise ValueError("api_url: must not hold a user or password")


def repository_access(client: Client, token: Secret, repository: Answer) -> Access:
    """What a token may do with the repository that GitHub showed to it.

    Tokens without a user are never told that they may push, so they are believed to until GitHub
    refuses.
    """
    permissions = repository.member("permissions", default={})
    may_push = isinstance(permissions, dict) and any(
        permissions.get(right) for right in ("push", "maintain", "admin")
    )
    return Access.WRITE if may_push or _has_no_user(client, token, repository) else Access.READ


def _has_no_user(client: Client, token: Secret, answer: Answer) -> bool:
    """Whether a token is of a workflow or of another installation of an App.

    Most tell by their prefix, and classic tokens of users by a header of every answer. The others
    (of an older GitHub Enterprise Server, or of a kind to come) are told by a request that GitHub
    grants to installations alone.
    """
    raw = token.reveal()
    if raw.startswith("ghs_"):
        return True
    if raw.startswith(_USER_TOKENS) or "X-OAuth-Scopes" in answer.headers:
        return False
    asked = client.get("/installation/repositories?per_page=1", expected=(200, 401, 403, 404))
    return asked.status == 200


def open_content(
    client: Client, path: str, number: int, size: int | None, *, redirect: bool
) -> Download | None:
    """The content of asset `number` at `path`, or where it is; None when there is no such asset.

    `size`: what is believed of it where GitHub does not announce one.
    """
    for _ in range(2):
        found = client.content(path, number)
        if found is None:
            return None
        if isinstance(found, Chunks):
            return _as_stream(found, size)
        if redirect:
            return Redirect(found.url, found.expires_at)
        chunks = client.fetch(found)
        if chunks is not None:
            return _as_stream(chunks, size)
        client.forget_address(number)
    raise BackendUnavailable("GitHub's storage refuses the addresses that GitHub signs")


def hash_content(client: Client, path: str, number: int) -> str:
    """The SHA-256 of asset `number` at `path`, which is so old that GitHub has none."""
    download = open_content(client, path, number, None, redirect=False)
    if not isinstance(download, Stream):
        raise BackendUnavailable("the published file cannot be read")
    digest = hashlib.sha256()
    for chunk in download.chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _as_stream(chunks: Chunks, size: int | None) -> Stream:
    """A body as the core takes it."""
    announced = chunks.size
    return Stream(chunks, (size or 0) if announced is None else announced)
