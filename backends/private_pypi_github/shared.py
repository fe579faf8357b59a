"""What both backends need: checks of settings, the access of a token, the content of an asset."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import urlsplit

from private_pypi.backend import Access, Secret
from private_pypi.errors import BackendUnavailable, FileAlreadyExists, NotAllowed
from private_pypi.model import DistributionFile, Download, Redirect, Stream
from private_pypi_github.answers import GitHubAnswer, message_of
from private_pypi_github.client import Client
from private_pypi_github.downloads import Chunks

LISTING_ENDS_AT = 10_000
"""The number of releases that GitHub lists. Others have to be found by their tags."""

PAGE = 100  # the largest number of items in a page that GitHub gives

_USER_TOKENS = ("ghp_", "github_pat_", "gho_", "ghu_")
_OWNER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9_])?")


def check_owner(key: str, owner: str) -> None:
    """Raise ValueError unless this can be the name of a user or an organisation on GitHub."""
    if not _OWNER.fullmatch(owner):
        raise ValueError(f"{key}: {owner!r} cannot be a user or an organisation on GitHub")


def check_api_url(api_url: str) -> None:
    """Raise ValueError unless this can be the address of GitHub's REST interface."""
    url = urlsplit(api_url)
    if url.scheme not in ("https", "http") or not url.hostname or url.query or url.fragment:
        raise ValueError(
            f"api_url: {api_url!r} is not the address of an API; for GitHub Enterprise Server it "
            "is https://HOST/api/v3"
        )
    if "@" in url.netloc:
        raise ValueError("api_url: must not contain a user or a password")


def understand_repository(answer: GitHubAnswer) -> GitHubAnswer:
    """The same answer; raises `BackendError` if it lacks something that is needed later."""
    for key in ("full_name", "private", "default_branch"):
        answer.member(key)
    return answer


def repository_access(client: Client, token: Secret, repository: GitHubAnswer) -> Access:
    """What a token may do with a repository; `repository` is GitHub's answer to this token.

    GitHub does not tell whether a token without a user may push, so it is assumed to, until GitHub
    refuses an upload. Raises `NotAllowed` if the token may see the repository, but not its content.
    """
    full_name, private = repository.member("full_name"), repository.member("private")
    require_contents(client, repository, str(full_name), is_private=private is not False)
    permissions = repository.member("permissions", default={})
    may_push = isinstance(permissions, dict) and any(
        permissions.get(right) for right in ("push", "maintain", "admin")
    )
    return Access.WRITE if may_push or _has_no_user(client, token, repository) else Access.READ


def require_contents(
    client: Client, answer: GitHubAnswer, full_name: str, *, is_private: bool
) -> None:
    """Raise `NotAllowed` unless a token that may see a repository may also read its releases.

    Fine-grained tokens, and the tokens of Apps and workflows, have separate permissions: "Metadata"
    shows a private repository, and "Contents" also its releases. For a public repository, and for
    classic tokens with the scope `repo`, there is no such difference. `answer` is any answer that
    GitHub gave to this token.
    """
    scopes = answer.headers.get("X-OAuth-Scopes", "").replace(",", " ").split()
    if not is_private or "repo" in scopes:
        return
    path = f"/repos/{full_name}/releases?per_page=1"
    asked, _ = client.get_kept(path, GitHubAnswer.objects, expected=(200, 403, 404))
    if asked.status == 200:
        return
    said = (
        f"GitHub shows the repository {full_name!r} to this token, but not its releases: the token "
        f"needs to read contents ({message_of(asked)})"
    )
    # GitHub sometimes answers 404 when it is in trouble, so only 403 is a refusal.
    raise NotAllowed(said) if asked.status == 403 else BackendUnavailable(said)


def _has_no_user(client: Client, token: Secret, answer: GitHubAnswer) -> bool:
    """Whether a token belongs to a workflow or an App instead of a user.

    Most tokens show this by their prefix, and classic tokens of users by a header of each answer.
    For others, such as those of older GitHub Enterprise Servers, a request is made that GitHub
    allows only for installations of Apps.
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
    """The content of asset `number` at `path`, or its address; None if there is no such asset.

    `size` (bytes) is used if GitHub does not announce the size.
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
    raise BackendUnavailable("GitHub's storage refuses the addresses that GitHub signed")


def require_same_file(
    client: Client,
    path: str,
    number: int,
    published: tuple[int, str | None],
    file: DistributionFile,
) -> None:
    """Raise `FileAlreadyExists` unless an upload has the bytes of asset `number` at `path`.

    `published` is the size and the SHA-256 of the asset. If GitHub has not computed the latter, the
    content is read.
    """
    size, sha256 = published
    if sha256 is None and size == file.size:
        download = open_content(client, path, number, None, redirect=False)
        if not isinstance(download, Stream):
            raise BackendUnavailable("the published file cannot be read")
        digest = hashlib.sha256()
        for chunk in download.chunks:
            digest.update(chunk)
        sha256 = digest.hexdigest()
    if (size, sha256) != (file.size, file.sha256):
        raise FileAlreadyExists(file.filename)


def _as_stream(chunks: Chunks, size: int | None) -> Stream:
    announced = chunks.size
    return Stream(chunks, (size or 0) if announced is None else announced)


def tags_in(answer: GitHubAnswer) -> list[str]:
    """The tags in an answer of "List matching references"; none for an empty repository (409)."""
    if answer.status == 409:
        return []
    return [str(ref.get("ref")).removeprefix("refs/tags/") for ref in answer.objects()]
