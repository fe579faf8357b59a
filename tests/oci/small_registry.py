"""A registry in memory, with the abilities and the troubles that a test chooses.

It implements the OCI distribution specification 1.1 as far as the backend uses it, and what the
registry of `registries` lacks: pages of tags, deleting a tag, referrers, conditional writes, and
redirects of blobs to a second host. The users and their rights are those of `registries`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.oci.registries import PASSWORDS, RIGHTS

Kind = Literal[
    "ping", "token", "catalogue", "tags", "manifest", "blob", "upload", "referrers", "storage"
]
"""What a request is about; "storage": a blob of the second host."""

INDEX = "application/vnd.oci.image.index.v1+json"

_PATHS: Mapping[Kind, re.Pattern[str]] = {
    "ping": re.compile(r"/v2/"),
    "token": re.compile(r"/token"),
    "catalogue": re.compile(r"/v2/_catalog"),
    "tags": re.compile(r"/v2/(?P<name>.+)/tags/list"),
    "manifest": re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)"),
    "upload": re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<reference>[^/]*)"),
    "blob": re.compile(r"/v2/(?P<name>.+)/blobs/(?P<reference>[^/]+)"),
    "referrers": re.compile(r"/v2/(?P<name>.+)/referrers/(?P<reference>[^/]+)"),
}
_NAME = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_ACTIONS = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}  # of other methods: push


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What a registry does; the defaults are all that the specification offers."""

    page: int = 3  # the most names that a page has
    absolute_links: bool = False  # whether `Link` has the whole address of the next page
    deletes: frozenset[str] = frozenset({"tag", "digest", "blob"})
    conditions: bool = True  # whether it heeds If-Match and If-None-Match
    relative_uploads: bool = True  # whether the `Location` of an upload is relative
    redirects: bool = False  # whether blobs are fetched from a second host
    unknown: Literal[404, 403] = 404  # what is answered for a repository that does not exist
    catalogue: Literal[200, 404, 405] = 200
    bearer: bool = False  # whether it gives tokens, which say nothing to others; else Basic
    strict_tokens: bool = False  # no token for less than was asked; the challenge names some scope
    public: frozenset[str] = frozenset()  # repositories that anybody may read, with a token
    largest_put: int | None = None  # bytes; what is larger has to come in chunks


@dataclass
class _Repository:
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # digest -> type, content
    tags: dict[str, str] = field(default_factory=dict)  # -> digest
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None  # bytes after which the connection ends


def _problem(status: int, code: str, **headers: str) -> _Answer:
    body = json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]})
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _Answer(status, {"Content-Type": "application/json", **named}, body.encode())


def _good(value: Any, **headers: str) -> _Answer:
    kinds = {"Content-Type": headers.pop("media_type", "application/json")}
    return _Answer(200, {**kinds, **headers}, json.dumps(value).encode())


@dataclass
class SmallRegistry:
    """A registry that is running."""

    abilities: Abilities
    url: str = ""
    storage_url: str = ""  # of the second host
    counts: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)  # requests of the second host with a secret
    repositories: dict[str, _Repository] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)  # guards everything here

    _tokens: dict[str, tuple[str, frozenset[tuple[str, str]]]] = field(default_factory=dict)
    _failing: range = range(0)  # the numbers of the requests that fail; the next one is 0
    _failure: _Answer = _Answer(500)
    _cut: int | None = None
    _before_put: list[tuple[str, str, bytes]] = field(default_factory=list)

    # -- what a test orders ----------------------------------------------------------------------

    def fail(
        self, count: int, status: int, *, after: int = 0, retry_after: int | None = None
    ) -> None:
        """Let requests fail, `after` others; a `count` of 0 lets them succeed again."""
        code = "TOOMANYREQUESTS" if status == 429 else "UNKNOWN"
        headers = {} if retry_after is None else {"Retry_After": str(retry_after)}
        with self.lock:
            self._failing = range(after, after + count)
            self._failure = _problem(status, code, **headers)

    def cut_blobs(self, after: int | None) -> None:
        """End the connection after so many bytes of each blob; None: send them whole."""
        with self.lock:
            self._cut = after

    def slip_in(self, name: str, tag: str, index: bytes) -> None:
        """Let somebody else write an index just before the next one is put under this tag.

        Several are written before as many of the next ones.
        """
        with self.lock:
            self._before_put.append((name, tag, index))

    def asked(self) -> Counter[tuple[str, Kind]]:
        """The requests since the last call, by method and kind."""
        with self.lock:
            counts, self.counts = self.counts, Counter()
            return counts

    # -- answers ---------------------------------------------------------------------------------

    def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, *, second: bool
    ) -> _Answer:
        """The answer to a request to the registry, or to the `second` host."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        given = {name: values[0] for name, values in query.items()}
        kind, match = _kind_of(path, second=second)
        with self.lock:
            self.counts[method, kind] += 1
            if second and "Authorization" in headers:
                self.leaks.append(f"{method} {target}")
            is_failing = 0 in self._failing
            self._failing = range(self._failing.start - 1, self._failing.stop - 1)
            if is_failing:
                return self._failure
            if second:
                repository, _, digest = path.removeprefix("/blobs/").rpartition("/")
                return self._content(self.repositories[repository].blobs[digest], headers)
            if match is None:
                return _Answer(404, {"Content-Type": "text/plain"}, b"404 page not found\n")
            if kind == "token":
                return self._token(headers, query.get("scope", []))
            name = match.groupdict().get("name") or ""
            reference = match.groupdict().get("reference") or ""
            refusal = self._refusal(method, kind, name, headers)
            if refusal is not None:
                return refusal
            match kind:
                case "ping":
                    return _good({})
                case "catalogue":
                    return self._catalogue(given)
                case "upload":
                    return self._upload(method, name, reference, given, headers, body)
                case "manifest" if method == "PUT":
                    return self._put_manifest(name, reference, headers, body)
            repository = self.repositories.get(name)
            if repository is None or not (repository.manifests or kind == "blob"):
                if self.abilities.unknown == 403:
                    return _problem(403, "DENIED")
                return _problem(404, "NAME_UNKNOWN")
            if method == "DELETE":
                return self._delete(repository, kind, reference)
            match kind:
                case "tags":
                    return self._tags(name, repository, given)
                case "manifest":
                    return self._manifest(repository, reference, headers)
                case "blob":
                    return self._blob(name, repository, reference, headers)
                case _:
                    return self._referrers(repository, reference)

    def _refusal(
        self, method: str, kind: Kind, name: str, headers: Mapping[str, str]
    ) -> _Answer | None:
        scheme, _, text = headers.get("Authorization", "").partition(" ")
        if self.abilities.bearer:
            challenge = f'Bearer realm="{self.url}/token",service="small"'
            if self.abilities.strict_tokens:
                challenge += ',scope="repository:user/image:pull"'
            found = self._tokens.get(text) if scheme == "Bearer" else None
            allowed = None if found is None else {action for at, action in found[1] if at == name}
        else:
            challenge = 'Basic realm="small"'
            user = _user_of(headers)
            allowed = None if user is None else _rights(user, name)
        if allowed is None:
            return _problem(401, "UNAUTHORIZED", WWW_Authenticate=challenge)
        if kind in ("ping", "catalogue") or _ACTIONS.get(method, "push") in allowed:
            return None
        return _problem(403, "DENIED")

    def _token(self, headers: Mapping[str, str], scopes: Sequence[str]) -> _Answer:
        user = _user_of(headers)
        if user is None and not self.abilities.public:
            return _problem(401, "UNAUTHORIZED")
        given = set()
        for scope in " ".join(scopes).split():
            _, name, actions = scope.split(":")
            rights = set() if user is None else _rights(user, name)
            if name in self.abilities.public:
                rights.add("pull")
            wanted = set(actions.split(","))
            if self.abilities.strict_tokens and not wanted <= rights:
                return _problem(403, "DENIED")
            given |= {(name, each) for each in wanted & rights}
        text = secrets.token_hex(16)
        self._tokens[text] = (user or "", frozenset(given))
        return _good({"token": text, "expires_in": 300})

    def _catalogue(self, given: Mapping[str, str]) -> _Answer:
        if self.abilities.catalogue != 200:
            return _problem(self.abilities.catalogue, "UNSUPPORTED")
        names = [name for name, each in self.repositories.items() if each.manifests]
        page, link = self._page("/v2/_catalog", sorted(names), given)
        return _good({"repositories": page}, **link)

    def _tags(self, name: str, repository: _Repository, given: Mapping[str, str]) -> _Answer:
        page, link = self._page(f"/v2/{name}/tags/list", sorted(repository.tags), given)
        return _good({"name": name, "tags": page if repository.tags else None}, **link)

    def _page(
        self, path: str, names: Sequence[str], given: Mapping[str, str]
    ) -> tuple[Sequence[str], dict[str, str]]:
        after = [name for name in names if name > given.get("last", "")]
        count = min(int(given.get("n", self.abilities.page)), self.abilities.page)
        page = after[:count]
        if page == after or not page:
            return page, {}
        origin = self.url if self.abilities.absolute_links else ""
        address = f"{origin}{path}?{urlencode({'n': count, 'last': page[-1]})}"
        return page, {"Link": f'<{address}>; rel="next"'}

    def _manifest(
        self, repository: _Repository, reference: str, headers: Mapping[str, str]
    ) -> _Answer:
        digest = repository.tags.get(reference, reference)
        media_type, content = repository.manifests.get(digest, ("", b""))
        if not media_type or media_type not in headers.get("Accept", ""):
            return _problem(404, "MANIFEST_UNKNOWN")
        return _Answer(200, {"Content-Type": media_type, **_identity(digest)}, content)

    def _put_manifest(
        self, name: str, reference: str, headers: Mapping[str, str], content: bytes
    ) -> _Answer:
        digest = _digest(content)
        is_digest = ":" in reference
        if not _NAME.fullmatch(name):
            return _problem(400, "NAME_INVALID")
        if not is_digest and not _TAG.fullmatch(reference):
            return _problem(400, "TAG_INVALID")
        if is_digest and reference != digest:
            return _problem(400, "DIGEST_INVALID")
        try:
            value = json.loads(content)
        except ValueError:
            return _problem(400, "MANIFEST_INVALID")
        media_type = headers.get("Content-Type", "")
        if value.get("mediaType", media_type) != media_type or value["schemaVersion"] != 2:
            return _problem(400, "MANIFEST_INVALID")
        repository = self.repositories.setdefault(name, _Repository())
        for other in [each for each in self._before_put if each[:2] == (name, reference)][:1]:
            self._before_put.remove(other)
            repository.manifests[_digest(other[2])] = (INDEX, other[2])
            repository.tags[reference] = _digest(other[2])
        named = {each["digest"] for each in value.get("manifests", ())}
        blobs = {each["digest"] for each in [*value.get("layers", ()), value.get("config")] if each}
        if not (named <= set(repository.manifests) and blobs <= set(repository.blobs)):
            return _problem(404, "MANIFEST_BLOB_UNKNOWN")
        now = repository.tags.get(reference, reference if reference in repository.manifests else "")
        if self.abilities.conditions and not _holds(headers, now):
            return _problem(412, "PRECONDITION_FAILED")
        repository.manifests[digest] = (media_type, content)
        if not is_digest:
            repository.tags[reference] = digest
        subject = {"OCI-Subject": value["subject"]["digest"]} if "subject" in value else {}
        place = {"Location": f"/v2/{name}/manifests/{digest}"}
        return _Answer(201, {**place, **_identity(digest), **subject})

    def _delete(self, repository: _Repository, kind: Kind, reference: str) -> _Answer:
        what = kind if kind == "blob" else "digest" if ":" in reference else "tag"
        if what not in self.abilities.deletes:
            return _problem(405, "UNSUPPORTED")
        if what == "blob":
            is_there = repository.blobs.pop(reference, None) is not None
        elif what == "tag":
            is_there = repository.tags.pop(reference, None) is not None
        else:
            is_there = repository.manifests.pop(reference, None) is not None
            left = {tag: digest for tag, digest in repository.tags.items() if digest != reference}
            repository.tags = left
        if is_there:
            return _Answer(202)
        return _problem(404, "BLOB_UNKNOWN" if what == "blob" else "MANIFEST_UNKNOWN")

    def _blob(
        self, name: str, repository: _Repository, digest: str, headers: Mapping[str, str]
    ) -> _Answer:
        content = repository.blobs.get(digest)
        if content is None:
            return _problem(404, "BLOB_UNKNOWN")
        if self.abilities.redirects:
            address = f"{self.storage_url}/blobs/{name}/{digest}?signature=of-the-registry"
            return _Answer(307, {"Location": address})
        return self._content(content, headers)

    def _content(self, content: bytes, headers: Mapping[str, str]) -> _Answer:
        given = {"Content-Type": "application/octet-stream"}
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("Range", ""))
        if part is None:
            return self._maybe_cut(_Answer(200, given, content))
        start, end = int(part[1]), min(int(part[2]), len(content) - 1)
        if start >= len(content):
            return _Answer(416, {"Content-Range": f"bytes */{len(content)}"})
        given["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return self._maybe_cut(_Answer(206, given, content[start : end + 1]))

    def _maybe_cut(self, answer: _Answer) -> _Answer:
        is_cut = self._cut is not None and self._cut < len(answer.body)
        return replace(answer, cut=self._cut) if is_cut else answer

    def _upload(
        self,
        method: str,
        name: str,
        number: str,
        given: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
    ) -> _Answer:
        if not _NAME.fullmatch(name):
            return _problem(400, "NAME_INVALID")
        repository = self.repositories.setdefault(name, _Repository())
        if method == "POST":
            number = secrets.token_hex(8)
            repository.uploads[number] = b""
        elif number not in repository.uploads or given.get("state") != "begun":
            return _problem(404, "BLOB_UPLOAD_UNKNOWN")
        elif method == "DELETE":
            del repository.uploads[number]
            return _Answer(204)
        else:
            largest = self.abilities.largest_put
            before = repository.uploads[number]
            if largest is not None and len(body) > largest:
                return _problem(413, "SIZE_INVALID")
            if method == "PATCH" and headers.get("Content-Range", "").split("-")[0] != str(
                len(before)
            ):
                return _problem(416, "BLOB_UPLOAD_INVALID")
            repository.uploads[number] = before + body
        if method == "PUT":
            content = repository.uploads.pop(number)
            if given.get("digest") != _digest(content):
                return _problem(400, "DIGEST_INVALID")
            repository.blobs[_digest(content)] = content
            return _Answer(201, {"Location": f"/v2/{name}/blobs/{_digest(content)}"})
        origin = "" if self.abilities.relative_uploads else self.url
        end = max(len(repository.uploads[number]) - 1, 0)
        address = f"{origin}/v2/{name}/blobs/uploads/{number}?state=begun"
        return _Answer(202, {"Location": address, "Range": f"0-{end}"})

    def _referrers(self, repository: _Repository, digest: str) -> _Answer:
        found = []
        for each, (media_type, content) in repository.manifests.items():
            value = json.loads(content)
            if value.get("subject", {}).get("digest") == digest:
                kept = {key: value[key] for key in ("artifactType", "annotations") if key in value}
                about = {"mediaType": media_type, "digest": each, "size": len(content)}
                found.append(about | kept)
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": found}
        return _good(index, media_type=INDEX)


@contextmanager
def small_registry(abilities: Abilities | None = None) -> Iterator[SmallRegistry]:
    """A registry without repositories. It fails if the second host was sent a secret."""
    registry = SmallRegistry(abilities or Abilities())
    with ExitStack() as stack:
        registry.url = stack.enter_context(_serving(registry, second=False))
        registry.storage_url = stack.enter_context(_serving(registry, second=True))
        yield registry
    assert registry.leaks == []


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def _serving(registry: SmallRegistry, *, second: bool) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.title(): value for name, value in self.headers.items()}
            answer = registry.answer(self.command, self.path, headers, body, second=second)
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body[: answer.cut])
            self.close_connection |= answer.cut is not None

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _handle

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _kind_of(path: str, *, second: bool) -> tuple[Kind, re.Match[str] | None]:
    if second:
        return "storage", None
    for kind, pattern in _PATHS.items():
        match = pattern.fullmatch(path)
        if match is not None:
            return kind, match
    return "ping", None


def _user_of(headers: Mapping[str, str]) -> str | None:
    scheme, _, pair = headers.get("Authorization", "").partition(" ")
    try:
        user, _, password = base64.b64decode(pair).decode().partition(":")
    except ValueError:
        return None
    return user if scheme == "Basic" and PASSWORDS.get(user) == password else None


def _rights(user: str, name: str) -> set[str]:
    rights = RIGHTS[user]
    return set(rights.get(name, rights.get("*", "")).split(","))


def _identity(digest: str) -> dict[str, str]:
    return {"Docker-Content-Digest": digest, "ETag": f'"{digest}"'}


def _holds(headers: Mapping[str, str], now: str) -> bool:
    """Whether the conditions of a write hold; `now` is the digest that is there, or ""."""
    if headers.get("If-None-Match") == "*" and now:
        return False
    return headers.get("If-Match") in (None, f'"{now}"')


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
