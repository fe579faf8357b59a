"""What both backends make of GitHub's answers and of their tables; it knows no layout of files."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from private_pypi.backend import Access, Secret
from private_pypi.errors import BackendUnavailable, NotAllowed, WrongSecret
from private_pypi.model import Download, Redirect, Stream
from private_pypi_github.client import Answer, BadToken, Chunks, Client, message_of

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


@contextlib.contextmanager
def callers_token() -> Iterator[None]:
    """The caller's token is the caller's affair: who sent a wrong one is told that."""
    try:
        yield
    except BadToken as error:
        raise WrongSecret(str(error)) from error


def repository_access(client: Client, token: Secret, repository: Answer) -> Access:
    """What a token may do with the repository that GitHub showed to it.

    Tokens without a user are never told that they may push, so they are believed to until GitHub
    refuses. Raises `NotAllowed` when the token sees the repository alone.
    """
    full_name, private = repository.member("full_name"), repository.member("private")
    require_contents(client, repository, str(full_name), is_private=private is not False)
    permissions = repository.member("permissions", default={})
    may_push = isinstance(permissions, dict) and any(
        permissions.get(right) for right in ("push", "maintain", "admin")
    )
    return Access.WRITE if may_push or _has_no_user(client, token, repository) else Access.READ


def require_contents(client: Client, answer: Answer, full_name: str, *, is_private: bool) -> None:
    """Raise `NotAllowed` unless a token may read what is in a repository that it was shown.

    Fine-grained tokens and those of Apps and workflows have a right for each kind of thing: with
    "Metadata" they are shown a private repository, with "Contents" also its releases. Whoever may
    read a public repository may read all of it, and so may the scope `repo` of other tokens.
    `answer` is one to this token.
    """
    scopes = answer.headers.get("X-OAuth-Scopes", "").replace(",", " ").split()
    if not is_private or "repo" in scopes:
        return
    path = f"/repos/{full_name}/releases?per_page=1"
    asked = client.get(path, expected=(200, 403, 404), conditional=True)
    if asked.status == 200:
        return
    said = (
        f"GitHub shows the repository {full_name!r} to this token, but not its releases: the token "
        f"needs to read contents ({message_of(asked)})"
    )
    # GitHub answers 404 in moments of trouble, too.
    raise NotAllowed(said) if asked.status == 403 else BackendUnavailable(said)


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
