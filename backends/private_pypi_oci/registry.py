"""A thin client of a registry (OCI distribution specification 1.1); knows nothing of packages.

Credentials are sent to the registry and to the token endpoint that it names, if that belongs to the
same site or is allowed by name. They are sent nowhere else: what a redirect or an upload address
leads to at another host gets none. Nothing is retried here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter

from private_pypi.backend import Access, Secret, Usage, retry_after
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    NotAllowed,
    StorageFull,
    WrongSecret,
    cause_of,
)
from private_pypi_oci.layout import INDEX, MANIFEST, digest_of

_CHUNK = 1 << 20  # bytes
_PART = 16 << 20  # bytes of a chunked upload
_POOL = 32  # connections that are kept
_MOST_TOKENS = 5_000
_MOST_PAGES = 10_000
_LARGEST_MANIFEST = 8 << 20  # bytes; registries take 4 MiB
_LARGEST_TAG_PAGE = 16 << 20  # bytes
_MARGIN = 10.0  # seconds before its end at which a token is not used any more
_ABSENT = {"NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN", "NOT_FOUND"}
_TOKEN = re.compile("[!-~]+")
_CHALLENGE = re.compile(r'([a-z_]+)="([^"]*)"')


_REDIRECTS = (301, 302, 303, 307, 308)


class BlobUnknown(BackendUnavailable):
    """A manifest names a blob that the registry does not know (yet)."""


class ChangedMeanwhile(BackendUnavailable):
    """Somebody else has written a manifest since it was read."""


class Refused(NotAllowed):
    """The registry does not allow something; or it does not tell that something is not there."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is sent to a registry: a user with a password, a token, or nothing."""

    user: str | None
    password: str  # or the token

    @property
    def is_anonymous(self) -> bool:
        """Whether nothing is sent."""
        return self.user is None and not self.password

    @property
    def basic(self) -> str | None:
        """The value of `Authorization` for Basic; None without a user."""
        if self.user is None:
            return None
        pair = f"{self.user}:{self.password}".encode("utf-8", "surrogatepass")
        return f"Basic {base64.b64encode(pair).decode()}"

    @property
    def key(self) -> bytes:
        """What tokens are kept under."""
        return hashlib.sha256(repr((self.user, self.password)).encode()).digest()


def read_secret(
    secret: Secret, username: str | None, bearer_username: str | None = None
) -> Credentials:
    """The credentials that a secret stands for: a password, `user:password`, or a token.

    ":" stands for nothing. The password of the user `bearer_username` is a token.
    """
    raw = secret.reveal()
    if username is not None:
        return Credentials(username, raw)
    if raw == ":":
        return Credentials(None, "")
    user, colon, password = raw.partition(":")
    if colon and user:
        return Credentials(None if user == bearer_username else user, password)
    return Credentials(None, raw)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    expires_at: float  # time.monotonic()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as the registry keeps it."""

    content: bytes
    digest: str
    media_type: str
    etag: str  # what a write that replaces it names in If-Match


class Connection:
    """What all views of one backend share: sockets, tokens, and counts of requests."""

    timeout: ClassVar[tuple[float, float]] = (10, 60)
    """Seconds to connect, and between two packets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._session: requests.Session | None = None
        self._tokens: OrderedDict[tuple[bytes, str], _Token] = OrderedDict()
        self._requests: dict[str, int] = {}
        self.is_basic = False  # whether the registry asks for Basic

    def session(self) -> requests.Session:
        """The sockets."""
        with self._lock:
            if self._session is None:
                session = requests.Session()
                session.trust_env = False  # neither ~/.netrc nor proxies of the environment
                adapter = HTTPAdapter(pool_maxsize=_POOL, max_retries=0)
                session.mount("https://", adapter)
                session.mount("http://", adapter)
                self._session = session
            return self._session

    def close(self) -> None:
        """Close the sockets."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def token(self, key: bytes, scope: str) -> str | None:
        """The token for a scope, while it holds."""
        with self._lock:
            token = self._tokens.get((key, scope))
        return token.text if token is not None and time.monotonic() < token.expires_at else None

    def keep_token(self, key: bytes, scope: str, text: str, seconds: float) -> None:
        """Keep a token that holds for so many seconds."""
        with self._lock:
            self._tokens[(key, scope)] = _Token(text, time.monotonic() + seconds - _MARGIN)
            self._tokens.move_to_end((key, scope))
            while len(self._tokens) > _MOST_TOKENS:
                self._tokens.popitem(last=False)

    def forget_token(self, key: bytes, scope: str) -> None:
        """The registry does not accept a token any more."""
        with self._lock:
            self._tokens.pop((key, scope), None)

    def count(self, kind: str) -> None:
        """Count a request by the class of its status."""
        with self._lock:
            self._requests[kind] = self._requests.get(kind, 0) + 1

    def usage(self) -> Usage:
        """The requests with all secrets."""
        with self._lock:
            return Usage(requests=dict(self._requests))


class Client:
    """A registry as one secret sees it. `url` is that of the registry, without a final slash."""

    def __init__(
        self,
        connection: Connection,
        url: str,
        credentials: Credentials,
        token_hosts: Collection[str] = (),
    ) -> None:
        self._connection = connection
        self._url = url
        self._credentials = credentials
        self._token_hosts = token_hosts
        self._host = urlsplit(url).netloc

    # -- what is asked ---------------------------------------------------------------------------

    def is_accepted(self) -> bool:
        """Whether the registry accepts the credentials. Nothing is asked if there are none."""
        if self._credentials.is_anonymous:
            return True
        try:
            with self._request("GET", "/v2/", scope="", expected=(200, 401, 403)) as answer:
                return answer.status_code == 200
        except (WrongSecret, NotAllowed):
            return False

    def access(self, repository: str) -> Access:
        """What the credentials may do in a repository, whether or not there is one.

        Some registries and tokens do not tell whether they may push. Then the answer is that they
        may, until the registry refuses. Raises `Refused` when they may not even read, and
        `WrongSecret` if others might: without credentials, or when the registry does not accept
        them at all.
        """
        for actions in ("pull,push", "pull"):
            scope = _scope(repository, actions)
            try:
                with self._request(
                    "GET",
                    f"/v2/{repository}/tags/list?n=1",
                    scope=scope,
                    expected=(200, 401, 403, 404),
                ) as answer:
                    if answer.status_code in (401, 403):
                        continue
                    if answer.status_code == 404:
                        self._require_absence(answer, f"the tags of {repository!r}")
            except Refused:  # by the token endpoint
                continue
            token = self._connection.token(self._credentials.key, scope)
            allowed = _actions(token, repository) if token is not None else None
            may_push = allowed is None or bool(allowed & {"push", "*"})
            return Access.WRITE if actions == "pull,push" and may_push else Access.READ
        if self.may_push(repository):
            return Access.WRITE
        if self._credentials.is_anonymous or not self.is_accepted():
            raise WrongSecret
        raise Refused(
            f"the registry {self._host!r} does not allow this secret to read {repository!r}"
        )

    def may_push(self, repository: str) -> bool:
        """Whether an upload can be begun; it is given up at once.

        Some registries refuse to read a repository that does not exist. Only this tells whether it
        may be made.
        """
        try:
            with self._opened_upload(repository) as answer:
                location = self._upload_address(answer)
        except (Refused, WrongSecret):
            return False
        # Registries throw away what was begun and never finished, so trouble does not matter.
        with (
            contextlib.suppress(BackendError, NotAllowed),
            self._request_at(
                "DELETE", location, repository=repository, push=True, expected=range(200, 500)
            ),
        ):
            pass
        return True

    def tags(self, repository: str) -> list[str] | None:
        """All tags; None when there is no such repository."""
        path: str | None = f"/v2/{repository}/tags/list"
        found: list[str] = []
        seen: set[str] = set()
        while path is not None:
            if path in seen or len(seen) > _MOST_PAGES:
                raise BackendError("the registry's list of tags leads back to a page before")
            seen.add(path)
            with self._request("GET", path, repository=repository, expected=(200, 404)) as answer:
                if answer.status_code == 404:
                    self._require_absence(answer, f"the tags of {repository!r}")
                    return None
                value = _json(_body(answer, _LARGEST_TAG_PAGE))
                tags = value.get("tags") if isinstance(value, dict) else None
                found += [str(tag) for tag in tags or ()]
                path = self._next_page(answer)
        return found

    def catalogue(self) -> list[str] | None:
        """The names of all repositories; None where the registry does not tell them."""
        path: str | None = "/v2/_catalog"
        found: list[str] = []
        while path is not None:
            with self._request(
                "GET", path, scope="registry:catalog:*", expected=(200, 401, 403, 404, 405)
            ) as answer:
                if answer.status_code != 200:
                    return None
                value = _json(_body(answer, _LARGEST_TAG_PAGE))
                names = value.get("repositories") if isinstance(value, dict) else None
                found += [str(name) for name in names or ()]
                path = self._next_page(answer)
        return found

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """A manifest by tag or digest; None when there is none."""
        with self._request(
            "GET",
            f"/v2/{repository}/manifests/{reference}",
            repository=repository,
            headers={"Accept": f"{MANIFEST}, {INDEX}"},
            expected=(200, 404),
        ) as answer:
            if answer.status_code == 404:
                self._require_absence(answer, f"the manifest {reference!r} of {repository!r}")
                return None
            content = _body(answer, _LARGEST_MANIFEST)
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
            etag = answer.headers.get("ETag", "")
        digest = digest_of(content)
        said = reference if ":" in reference else answer.headers.get("Docker-Content-Digest")
        if said is not None and said.startswith("sha256:") and said != digest:
            raise BackendUnavailable(f"a manifest of {repository!r} arrived damaged")
        return Manifest(content, digest, media_type, etag if etag[:1] == '"' else f'"{digest}"')

    def manifest_digest(self, repository: str, tag: str) -> str | None:
        """The digest of a tag's manifest; None when the registry does not tell it."""
        with self._request(
            "HEAD",
            f"/v2/{repository}/manifests/{tag}",
            repository=repository,
            headers={"Accept": f"{MANIFEST}, {INDEX}"},
            expected=(200, 404),
        ) as answer:
            found = answer.headers.get("Docker-Content-Digest")
            return found if answer.status_code == 200 else None

    def put_manifest(
        self,
        repository: str,
        reference: str,
        content: bytes,
        media_type: str,
        *,
        condition: Mapping[str, str] | None = None,
    ) -> None:
        """Store a manifest under a tag or under its digest.

        `condition` is a header, If-Match or If-None-Match, which many registries ignore. Raises
        `ChangedMeanwhile` when it does not hold, and `BlobUnknown`.
        """
        with self._request(
            "PUT",
            f"/v2/{repository}/manifests/{reference}",
            repository=repository,
            push=True,
            headers={"Content-Type": media_type, **(condition or {})},
            data=content,
            expected=(200, 201, 202, 400, 404, 412),
        ) as answer:
            if answer.status_code == 412:
                raise ChangedMeanwhile(f"{reference!r} of {repository!r} was changed meanwhile")
            if answer.status_code in (400, 404):
                if _codes(answer) & {"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"}:
                    raise BlobUnknown("the registry does not know a blob that was just stored")
                raise self._error("PUT", answer.url, answer, repository)

    def delete_manifest(self, repository: str, reference: str) -> bool:
        """Delete a tag or a manifest. False: the registry does not delete that.

        Something that is gone already counts as deleted. A secret that may write, but not delete,
        is like a registry that does not delete.
        """
        with self._request(
            "DELETE",
            f"/v2/{repository}/manifests/{reference}",
            repository=repository,
            scope=_scope(repository, "pull,push,delete"),
            expected=(200, 202, 204, 400, 401, 403, 404, 405, 501),
        ) as answer:
            is_gone = answer.status_code == 404 and bool(_codes(answer) & _ABSENT)
            return is_gone or answer.status_code in (200, 202, 204)

    def delete_blob(self, repository: str, digest: str) -> None:
        """Delete a blob, where the registry allows that; others collect what nothing names."""
        with self._request(
            "DELETE",
            f"/v2/{repository}/blobs/{digest}",
            repository=repository,
            scope=_scope(repository, "pull,push,delete"),
            expected=(200, 202, 204, 400, 401, 403, 404, 405, 501),
        ):
            pass

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether a blob is there, so that it need not be sent."""
        with self._request(
            "HEAD",
            f"/v2/{repository}/blobs/{digest}",
            repository=repository,
            push=True,
            expected=(200, *_REDIRECTS, 403, 404),
        ) as answer:
            # A registry redirects only to what it has. It may refuse where there is no repository
            # yet; the upload shows whether that is so.
            return answer.status_code == 200 or answer.is_redirect

    def blob(
        self, repository: str, digest: str, part: tuple[int, int] | None = None
    ) -> requests.Response | None:
        """The content of a blob, to be closed; None when there is none.

        `part`: from which byte on, and how many. A redirect is followed without credentials.
        """
        headers = {} if part is None else {"Range": f"bytes={part[0]}-{part[0] + part[1] - 1}"}
        path = f"/v2/{repository}/blobs/{digest}"
        answer = self._request(
            "GET",
            path,
            repository=repository,
            headers=headers,
            expected=(200, 206, *_REDIRECTS, 404, 416),
        )
        if answer.is_redirect:
            address = urljoin(self._url + path, answer.headers["Location"])
            answer.close()
            answer = self._send("GET", address, headers, None)
            if answer.status_code not in (200, 206, 416):
                status = answer.status_code
                answer.close()
                raise BackendUnavailable(f"the storage of the registry answered {status}")
        if answer.status_code == 404:
            with answer:
                self._require_absence(answer, f"the blob {digest} of {repository!r}")
            return None
        return answer

    def blob_address(self, repository: str, digest: str) -> str | None:
        """Where a client can fetch a blob without credentials; None where there is no such way."""
        path = f"/v2/{repository}/blobs/{digest}"
        with self._request(
            "GET",
            path,
            repository=repository,
            headers={"Range": "bytes=0-0"},
            expected=(200, 206, *_REDIRECTS, 404, 416),
        ) as answer:
            if not answer.is_redirect:
                return None
            address = urljoin(self._url + path, answer.headers["Location"])
        return address if urlsplit(address).netloc != self._host else None

    def put_blob(
        self,
        repository: str,
        digest: str,
        content: Path | bytes,
        *,
        mount_from: str | None = None,
    ) -> None:
        """Send a blob, whole, or in chunks to a registry that does not take it whole.

        It is not sent if the repository has it, or if the registry can mount it from the repository
        `mount_from` (OCI distribution specification, "Mounting a blob from another repository").
        """
        if mount_from is None:
            if self.has_blob(repository, digest):
                return
        elif self._mounted(repository, digest, mount_from):
            return
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        try:
            with self._opened_upload(repository) as answer:
                location = self._upload_address(answer)
            with (
                _open(content) as body,
                self._put_upload(location, repository, digest, body, size) as answer,
            ):
                if answer.status_code != 413:
                    return
            with _open(content) as body:
                self._put_in_chunks(repository, digest, body, size)
        except BackendUnavailable:
            # Some registries fail when somebody else stores the same blob at the same time.
            if not self.has_blob(repository, digest):
                raise

    def _mounted(self, repository: str, digest: str, source: str) -> bool:
        """Whether the registry mounted a blob of another repository."""
        if repository == source:
            return False
        query = urlencode({"mount": digest, "from": source})
        try:
            with self._request(
                "POST",
                f"/v2/{repository}/blobs/uploads/?{query}",
                repository=repository,
                scope=f"{_scope(repository, 'pull,push')} {_scope(source, 'pull')}",
                data=b"",
                # 202: an upload has begun instead, which the registry forgets again.
                expected=(201, 202, 400, 403, 404, 405),
            ) as answer:
                return answer.status_code == 201
        except (NotAllowed, WrongSecret):  # the secret may not read the other repository
            return False

    def _put_in_chunks(self, repository: str, digest: str, body: BinaryIO, size: int) -> None:
        with self._opened_upload(repository) as answer:
            location = self._upload_address(answer)
        for start in range(0, size, _PART):
            chunk = body.read(_PART)
            with self._request_at(
                "PATCH",
                location,
                repository=repository,
                push=True,
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"{start}-{start + len(chunk) - 1}",
                },
                data=chunk,
                expected=(202, 204),
            ) as answer:
                location = self._upload_address(answer)
        with self._put_upload(location, repository, digest, b"", 0) as answer:
            if answer.status_code == 413:
                raise StorageFull("the registry does not take a file of this size")

    def _opened_upload(self, repository: str) -> requests.Response:
        return self._request(
            "POST",
            f"/v2/{repository}/blobs/uploads/",
            repository=repository,
            push=True,
            headers={"Content-Type": "application/octet-stream"},
            data=b"",
            expected=(202,),
        )

    def _upload_address(self, answer: requests.Response) -> str:
        location = answer.headers.get("Location")
        if not location:
            raise BackendError("the registry does not say where it takes a blob")
        return urljoin(answer.url, location)

    def _put_upload(
        self, location: str, repository: str, digest: str, body: BinaryIO | bytes, size: int
    ) -> requests.Response:
        parts = urlsplit(location)
        query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("digest", digest)])
        return self._request_at(
            "PUT",
            urlunsplit(parts._replace(query=query)),
            repository=repository,
            push=True,
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
            data=body if size else b"",
            expected=(201, 204, 413),
        )

    # -- how -------------------------------------------------------------------------------------

    def _next_page(self, answer: requests.Response) -> str | None:
        for link in requests.utils.parse_header_links(answer.headers.get("Link", "")):
            if link.get("rel") == "next":
                address = urljoin(answer.url, str(link["url"]))
                parts = urlsplit(address)
                if parts.netloc != self._host:
                    raise BackendError("the registry's list goes on at another host")
                return urlunsplit(("", "", parts.path, parts.query, ""))
        return None

    def _request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        return self._request_at(method, self._url + path, **arguments)

    def _request_at(
        self,
        method: str,
        url: str,
        *,
        repository: str | None = None,
        scope: str | None = None,
        push: bool = False,
        headers: Mapping[str, str] | None = None,
        data: BinaryIO | bytes | None = None,
        expected: Collection[int],
    ) -> requests.Response:
        """One request, with the credentials that the registry asks for."""
        if scope is None:
            scope = _scope(repository or "", "pull,push" if push else "pull")
        is_ours = self._is_ours(url)
        given = dict(headers or {})
        authorization = self._authorization(scope) if is_ours else None
        if authorization is not None:
            given["Authorization"] = authorization
        answer = self._send(method, url, given, data)
        if answer.status_code == 401 and is_ours:
            challenge = answer.headers.get("WWW-Authenticate", "")
            answer.close()
            renewed = self._answer_challenge(challenge, scope, authorization)
            if renewed is None or (data is not None and not _rewind(data)):
                raise self._refused(repository)
            given["Authorization"] = renewed
            answer = self._send(method, url, given, data)
        if answer.status_code in expected:
            return answer
        try:
            raise self._error(method, url, answer, repository)
        finally:
            answer.close()

    def _is_ours(self, url: str) -> bool:
        """Whether credentials may be sent there: to the registry, with no less encryption."""
        parts, own = urlsplit(url), urlsplit(self._url)
        return parts.netloc == own.netloc and parts.scheme in ("https", own.scheme)

    def _authorization(self, scope: str) -> str | None:
        credentials = self._credentials
        if credentials.user is None and credentials.password:
            if not _TOKEN.fullmatch(credentials.password):  # it cannot be sent in a header
                raise WrongSecret
            return f"Bearer {credentials.password}"
        if self._connection.is_basic:
            return credentials.basic
        token = self._connection.token(credentials.key, scope)
        return None if token is None else f"Bearer {token}"

    def _answer_challenge(
        self, challenge: str, scope: str, authorization: str | None
    ) -> str | None:
        """What to send instead of `authorization`; None when there is nothing else."""
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic":
            self._connection.is_basic = True
            basic = self._credentials.basic
            return None if authorization == basic else basic
        if kind.lower() != "bearer" or (self._credentials.user is None and authorization):
            return None
        if authorization is not None:
            self._connection.forget_token(self._credentials.key, scope)
        fields = dict(_CHALLENGE.findall(rest))
        return f"Bearer {self._fetch_token(fields, scope)}"

    def _fetch_token(self, fields: Mapping[str, str], scope: str) -> str:
        realm = fields.get("realm", "")
        self._require_trusted(realm)
        query = [("service", fields["service"])] if "service" in fields else []
        # For the credentials alone, some registries name the scope of a repository that is made up.
        query += [("scope", each) for each in scope.split()]
        parts = urlsplit(realm)
        url = urlunsplit(
            parts._replace(query="&".join(filter(None, (parts.query, urlencode(query)))))
        )
        basic = self._credentials.basic
        headers = {"Authorization": basic} if basic is not None else {}
        with self._send("GET", url, headers, None) as answer:
            if answer.status_code in (400, 401, 403, 404):
                if not scope:
                    raise WrongSecret
                raise Refused(
                    f"the registry {self._host!r} gives this secret no token for {scope!r}"
                )
            if answer.status_code != 200:
                raise self._error("GET", "the token endpoint", answer, None)
            value = _json(_body(answer, 1 << 20))
        token = value.get("token") or value.get("access_token") if isinstance(value, dict) else None
        if not isinstance(token, str) or not token:
            raise BackendError("the registry's token endpoint answered without a token")
        seconds = value.get("expires_in")
        self._connection.keep_token(
            self._credentials.key,
            scope,
            token,
            float(seconds) if isinstance(seconds, int | float) and seconds > 0 else 60.0,
        )
        return token

    def _require_trusted(self, realm: str) -> None:
        """Raise unless credentials may be sent to a token endpoint."""
        endpoint, registry = urlsplit(realm), urlsplit(self._url)
        if endpoint.scheme not in {"https", registry.scheme} or not endpoint.hostname:
            raise BackendError(f"the registry names a token endpoint that is not https: {realm!r}")
        host, own = endpoint.hostname, registry.hostname or ""
        if host not in {own, *self._token_hosts} and not _is_same_site(host, own):
            raise BackendError(
                f"the registry {self._host!r} asks to send credentials to {host!r}, which is "
                "another site: name it in `token_hosts` if it belongs to the registry"
            )

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], data: BinaryIO | bytes | None
    ) -> requests.Response:
        try:
            answer = self._connection.session().request(
                method,
                url,
                headers=headers,
                data=data,
                stream=True,
                allow_redirects=False,
                timeout=self._connection.timeout,
            )
        except (requests.RequestException, OSError) as error:
            self._connection.count("none")
            raise BackendUnavailable(
                f"the registry {self._host!r} cannot be reached: {cause_of(error)}"
            ) from None
        status = answer.status_code
        self._connection.count("304" if status == 304 else f"{status // 100}xx")
        return answer

    def _refused(self, repository: str | None) -> WrongSecret | Refused:
        if repository is None:
            return WrongSecret()
        return Refused(
            f"the registry {self._host!r} does not allow this secret to use {repository!r}"
        )

    def _error(
        self, method: str, url: str, answer: requests.Response, repository: str | None
    ) -> Exception:
        status, said = answer.status_code, _message(answer)
        if status == 429 or status >= 500:
            return BackendUnavailable(
                f"the registry {self._host!r} answered {status}: {said}",
                retry_after=min(retry_after(answer.headers.get("Retry-After"), 5), 3600),
            )
        if status == 401:
            return self._refused(repository)
        if status == 403:
            return Refused(f"the registry {self._host!r} refuses: {said}")
        if status in (413, 507):
            return StorageFull(f"the registry {self._host!r} does not take it: {said}")
        return BackendError(
            f"the registry {self._host!r} answered {status} to {method} "
            f"{urlsplit(url).path}: {said}"
        )

    def _require_absence(self, answer: requests.Response, what: str) -> None:
        """Raise unless a 404 is an answer of a registry: that of a proxy is trouble."""
        codes = _codes(answer)
        if not codes & _ABSENT:
            raise BackendError(
                f"the registry {self._host!r} answered 404 for {what} without saying that it is "
                "not there"
            )


def _scope(repository: str, actions: str) -> str:
    return f"repository:{repository}:{actions}"


def _is_same_site(host: str, other: str) -> bool:
    """Whether two hosts share their last two labels, such as `auth.docker.io` and `docker.io`."""
    one, two = host.split(".")[-2:], other.split(".")[-2:]
    # Below "co.uk" and the like two labels are not a site, and numbers are addresses.
    return one == two and len(one) == 2 and len(one[-1]) + len(one[-2]) > 5 and one[-1].isalpha()


def _actions(token: str, repository: str) -> set[str] | None:
    """What a token says that it allows in a repository; None when it is not a JWT that says so."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        access = json.loads(base64.urlsafe_b64decode(padded)).get("access")
        if access is None:
            return set()
        return {
            str(action)
            for each in access
            if each.get("name") == repository
            for action in each.get("actions", ())
        }
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None


def _open(content: Path | bytes) -> BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _rewind(data: BinaryIO | bytes) -> bool:
    if not isinstance(data, bytes):
        data.seek(0)
    return True


def _body(answer: requests.Response, most: int) -> bytes:
    """The body; raises when it is larger than anything that is expected."""
    chunks, size = [], 0
    try:
        for chunk in answer.iter_content(_CHUNK):
            size += len(chunk)
            if size > most:
                raise BackendError(f"the registry answered more than {most} bytes")
            chunks.append(chunk)
    except requests.RequestException as error:
        raise BackendUnavailable(f"an answer of the registry was cut: {cause_of(error)}") from None
    content = b"".join(chunks)
    length = answer.headers.get("Content-Length", "")
    if length.isdecimal() and "Content-Encoding" not in answer.headers and int(length) != size:
        raise BackendUnavailable("an answer of the registry was cut")
    return content


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BackendError("the registry answered something that is not JSON") from error


def _errors(answer: requests.Response) -> list[dict[str, Any]]:
    try:
        value = json.loads(_body(answer, 1 << 20))
    except (ValueError, RecursionError, BackendError):
        return []
    errors = value.get("errors") if isinstance(value, dict) else None
    return [each for each in errors or () if isinstance(each, dict)]


def _codes(answer: requests.Response) -> set[str]:
    return {str(each.get("code")) for each in _errors(answer)}


def _message(answer: requests.Response) -> str:
    """What a registry says of an error, on one line."""
    said = [str(each.get("message") or each.get("code")) for each in _errors(answer)]
    text = "; ".join(said) or answer.reason or "no reason given"
    return " ".join(text.split())[:300]


def read_upto(answer: requests.Response, most: int) -> bytes:
    """The beginning of an answer, at most so many bytes; raises when it is cut."""
    content = bytearray()
    try:
        for chunk in answer.iter_content(1 << 16):
            content += chunk
            if len(content) >= most:
                break
    except requests.RequestException as error:
        raise BackendUnavailable(
            f"a part of a file of the registry was cut: {cause_of(error)}"
        ) from None
    return bytes(content[:most])


def chunks_of(answer: requests.Response, size: int) -> Iterator[bytes]:
    """The content of a blob in chunks; raises when it is cut."""
    received = 0
    with answer:
        try:
            for chunk in answer.iter_content(_CHUNK):
                received += len(chunk)
                yield chunk
        except requests.RequestException as error:
            raise BackendUnavailable(
                f"a file of the registry did not arrive whole: {cause_of(error)}"
            ) from None
    if received != size:
        raise BackendUnavailable(f"a file of the registry came with {received} of {size} bytes")
