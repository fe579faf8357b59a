"""Reads the release of a tag from GitHub: which files it has, and their content.

The token is sent to the interface of GitHub (`api_url`) alone. The content of an asset is at
another host, to which GitHub redirects with an address that needs no token.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urljoin, urlsplit

import requests
from packaging.utils import NormalizedName
from packaging.version import Version
from requests.auth import AuthBase

from private_pypi.backend import Secret, retry_after, system_errors
from private_pypi.distributions.filenames import ParsedFilename, parse_filename
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    InvalidFilename,
    WrongSecret,
    cause_of,
)
from private_pypi_static_site.project_file import is_url

API_URL: Final = "https://api.github.com"

_LARGEST_ANSWER: Final = 32 << 20  # bytes of JSON
_CHUNK: Final = 1 << 20  # bytes
_TIMEOUT: Final = (10, 60)  # seconds for connecting, and between two packets
_DOWNLOAD_SECONDS: Final = 1800  # of one file
_MOST_PAGES: Final = 10  # of 100 assets: a release has at most 1,000
_MOST_REDIRECTS: Final = 3
_OWNER: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_REPOSITORY: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
# What git-check-ref-format(1) allows, without texts that a program could take for an option.
_TAG: Final = re.compile(
    r"(?![-/.])(?!.*(?:\.\.|//|/\.|@\{|\.lock(?:/|$)))[^\s~^:?*\[\\]{1,255}(?<![/.])"
)


# -- repositories and tags -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository on GitHub, or on GitHub Enterprise Server."""

    owner: str
    name: str
    web: str  # such as https://github.com
    api: str  # such as https://api.github.com

    @property
    def address(self) -> str:
        """Where people see it, and where git clones it from."""
        return f"{self.web}/{self.owner}/{self.name}"


def repository_of(homepage: str, api_url: str = API_URL) -> Repository:
    """The repository whose page is `homepage`; raises `ConfigurationError`.

    Its host must be the one that `api_url` belongs to, because the token is sent there.
    """
    if not is_url(api_url):
        raise ConfigurationError(
            f"--api_url must be an address such as https://HOST/api/v3, not {_shown(api_url)}"
        )
    if not is_url(homepage):
        raise ConfigurationError(
            "the homepage must be an address such as https://github.com/OWNER/REPOSITORY, without "
            f"user name and password, not {_shown(homepage)}"
        )
    page, api = urlsplit(homepage), urlsplit(api_url)
    host = page.netloc.lower().removeprefix("www.")
    if api.netloc.lower() not in (host, f"api.{host}"):
        raise ConfigurationError(
            f"the homepage {homepage!r} is not at the GitHub whose interface is {api_url!r}; for "
            f"GitHub Enterprise Server, give --api_url https://{host}/api/v3"
        )
    owner, _, rest = page.path.strip("/").partition("/")
    name = rest.partition("/")[0].removesuffix(".git")
    if not _OWNER.fullmatch(owner) or not _REPOSITORY.fullmatch(name):
        raise ConfigurationError(
            "the homepage must be that of a repository, such as "
            f"https://{host}/OWNER/REPOSITORY, not {homepage!r}"
        )
    return Repository(owner=owner, name=name, web=f"{api.scheme}://{host}", api=api_url.rstrip("/"))


def tags_for(text: str) -> Sequence[str]:
    """The tags that may be meant: the text itself, and with or without a leading `v`.

    Raises `ConfigurationError` if it cannot be the name of a tag.
    """
    if not _TAG.fullmatch(text) or not text.isprintable():
        raise ConfigurationError(
            f"the version must be a version or a tag such as v1.0, not {_shown(text)}"
        )
    other = text[1:] if text[0] in "vV" else f"v{text}"
    return [tag for tag in (text, other) if _TAG.fullmatch(tag)]


def version_of(tag: str) -> Version | None:
    """The version that a tag names, such as 1.0 for `v1.0` and `demo-1.0`; None: it names none."""
    match = re.search(r"(?:^|[-_/@])([vV]?[0-9].*)", tag)
    try:
        return None if match is None else Version(match[1])
    except ValueError:  # InvalidVersion, or too many digits for Python to convert
        return None


# -- releases --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file of a release."""

    number: int
    name: str
    filename: str  # `name`, or the one that was sent, if GitHub changed it
    size: int  # bytes
    sha256: str | None  # lower-case hex; None: an older server, which does not say it
    url: str  # where everybody finds it if the repository is public
    uploaded_at: datetime  # UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The release of a tag."""

    tag: str
    assets: Sequence[Asset]

    def find(self, filename: str) -> Asset | None:
        """The asset with this name."""
        return next((asset for asset in self.assets if asset.filename == filename), None)

    def wheels_and_sdists(self) -> Sequence[tuple[Asset, ParsedFilename]]:
        """All that are wheels or sdists by their names, of whatever project."""
        found = []
        for asset in self.assets:
            try:
                found.append((asset, parse_filename(asset.filename)))
            except InvalidFilename:  # programs, signatures, and so on
                continue
        return found

    def files(self, project: NormalizedName) -> Sequence[Asset]:
        """All wheels of a project, and one sdist."""
        of_project = [each for each in self.wheels_and_sdists() if each[1].project == project]
        sdists = [each for each in of_project if each[1].kind == "sdist"]
        # Where there are two, the .zip is of older tools; PEP 625 has .tar.gz alone.
        sdists.sort(key=lambda each: each[1].suffix == ".zip")
        kept = {asset.number for asset, _ in sdists[:1]}
        return [
            asset for asset, parsed in of_project if parsed.kind == "wheel" or asset.number in kept
        ]


class _Authorization(AuthBase):
    """Sends the token, or nothing; without it, `requests` would look into the netrc file."""

    def __init__(self, token: Secret | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.pop("Authorization", None)
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token.reveal()}"
        return request


class GitHub:
    """The interface of GitHub for one repository. It reads, and changes nothing."""

    def __init__(self, repository: Repository, token: Secret | None) -> None:
        self.repository = repository
        self._token = token
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "private_pypi"

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def is_private(self) -> bool | None:
        """Whether only some people can read it; None: GitHub does not show it to this token.

        A repository that was renamed is `repository` under its new name afterwards.
        """
        found = self._json(f"/repos/{self.repository.owner}/{self.repository.name}")
        if found is None:
            return None
        owner, _, name = str(_member(found, "full_name", str)).partition("/")
        if not _OWNER.fullmatch(owner) or not _REPOSITORY.fullmatch(name):
            raise BackendError("GitHub's answer has a repository with a strange name")
        self.repository = Repository(
            owner=owner, name=name, web=self.repository.web, api=self.repository.api
        )
        private: bool = _member(found, "private", bool)
        return private

    def release(self, tags: Sequence[str]) -> Release | None:
        """The published release of the first of these tags that has one."""
        base = f"/repos/{self.repository.owner}/{self.repository.name}/releases"
        for tag in tags:
            found = self._json(f"{base}/tags/{quote(tag, safe='')}")
            if found is None:
                continue
            # The release itself may show only some of its assets.
            number, assets = _member(found, "id", int), []
            for page in range(1, _MOST_PAGES + 1):
                listed = self._json(f"{base}/{number}/assets?per_page=100&page={page}")
                if not isinstance(listed, list):
                    raise BackendError("GitHub's answer is not a list of assets")
                assets += [
                    _asset(each) for each in listed if _member(each, "state", str) == "uploaded"
                ]
                if len(listed) < 100:
                    break
            return Release(tag=tag, assets=assets)
        return None

    def download(self, asset: Asset, into: Path) -> None:
        """Write the content of an asset into a file, and compare it with what GitHub says of it."""
        repository = self.repository
        path = f"/repos/{repository.owner}/{repository.name}/releases/assets/{asset.number}"
        end = time.monotonic() + _DOWNLOAD_SECONDS
        digest, size = hashlib.sha256(), 0
        with (
            self._content(f"{repository.api}{path}") as response,
            system_errors(f"cannot write {str(into)!r}"),
            into.open("wb") as file,
        ):
            for chunk in response.iter_content(_CHUNK):
                size += len(chunk)
                if size > asset.size:
                    break
                if time.monotonic() > end:
                    raise BackendUnavailable(
                        f"{asset.filename!r} took longer than {_DOWNLOAD_SECONDS} seconds"
                    )
                digest.update(chunk)
                file.write(chunk)
        if size != asset.size or asset.sha256 not in (None, digest.hexdigest()):
            raise BackendUnavailable(
                f"{asset.filename!r} was damaged on its way: it has another size or hash than "
                "GitHub says; run the command again"
            )

    @contextmanager
    def _content(self, url: str) -> Iterator[requests.Response]:
        """The answer with the content of an asset, behind the redirect, which gets no token."""
        token, scheme = self._token, urlsplit(url).scheme
        for _ in range(_MOST_REDIRECTS):
            with self._get(url, "application/octet-stream", token) as response:
                if response.status_code not in (301, 302, 303, 307, 308):
                    _require(response, (200,))
                    with _network_errors():
                        yield response
                    return
                url = urljoin(url, response.headers.get("Location", ""))
            token = None
            if urlsplit(url).scheme not in ("https", scheme):
                break
        raise BackendError("GitHub redirects to the content of an asset, but not to its address")

    def _json(self, path: str) -> Any:
        """The answer to a request; None: 404."""
        url = f"{self.repository.api}{path}"
        for _ in range(_MOST_REDIRECTS):
            with self._get(url, "application/vnd.github+json", self._token) as response:
                if response.status_code in (301, 307, 308):  # the repository was renamed
                    url = urljoin(url, response.headers.get("Location", ""))
                    if not url.startswith(f"{self.repository.api}/"):
                        break
                    continue
                _require(response, (200, 404))
                return None if response.status_code == 404 else _parsed(response)
        raise BackendError("GitHub redirects to an address that is not its own")

    def _get(self, url: str, accept: str, token: Secret | None) -> requests.Response:
        with _network_errors():
            return self._session.get(
                url,
                headers={"Accept": accept},
                auth=_Authorization(token),
                stream=True,
                allow_redirects=False,
                timeout=_TIMEOUT,
            )


# -- answers ---------------------------------------------------------------------------------------


def _asset(value: Any) -> Asset:
    name, label = _member(value, "name", str), value.get("label")
    digest = value.get("digest")
    sha256 = re.fullmatch("sha256:([0-9a-f]{64})", digest) if isinstance(digest, str) else None
    try:
        uploaded_at = datetime.fromisoformat(_member(value, "created_at", str)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BackendError("GitHub's answer has a wrong time of an asset") from error
    return Asset(
        number=_member(value, "id", int),
        name=name,
        filename=label if isinstance(label, str) and _was_renamed(name, label) else name,
        size=_member(value, "size", int),
        sha256=None if sha256 is None else sha256[1],
        url=_member(value, "browser_download_url", str),
        uploaded_at=uploaded_at,
    )


def _was_renamed(name: str, label: str) -> bool:
    """Whether GitHub made `name` out of `label`: it replaces some characters by dots."""
    return label != name and re.sub(r"\.+", ".", re.sub(r"[^\w.+-]", ".", label)) == name


def is_at(url: str, filename: str) -> bool:
    """Whether an address is one that pages may link to, and ends with a filename."""
    return is_url(url) and unquote(urlsplit(url).path).endswith(f"/{filename}")


def _member(value: Any, key: str, kind: type) -> Any:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise BackendError(f"GitHub's answer has no {key!r}")
    return found


def _parsed(response: requests.Response) -> Any:
    content = bytearray()
    with _network_errors():
        for chunk in response.iter_content(_CHUNK):
            content += chunk
            if len(content) > _LARGEST_ANSWER:
                raise BackendError("GitHub's answer is too large")
    try:
        return json.loads(bytes(content))
    except (ValueError, RecursionError) as error:
        raise BackendError("GitHub's answer is not JSON") from error


def _require(response: requests.Response, expected: Sequence[int]) -> None:
    status, headers = response.status_code, response.headers
    if status in expected:
        return
    if status == 401:
        raise WrongSecret("GitHub does not accept the token")
    limited = headers.get("X-RateLimit-Remaining") == "0" or "Retry-After" in headers
    if status in (403, 429) and limited:
        raise BackendUnavailable(
            "GitHub's limit is reached; it is higher with a token (--token_env)",
            retry_after=retry_after(headers.get("Retry-After"), 60),
        )
    if status >= 500:
        raise BackendUnavailable(f"GitHub is in trouble ({status})", retry_after=5)
    raise BackendError(f"GitHub answered {status}; the token may lack the right to read contents")


@contextmanager
def _network_errors() -> Iterator[None]:
    """Turn errors of `requests` into ours, without the address, which may be signed."""
    try:
        yield
    except requests.Timeout:
        raise BackendUnavailable("GitHub took too long") from None
    except requests.RequestException as error:
        raise BackendUnavailable(f"the connection to GitHub failed: {cause_of(error)}") from None


def _shown(text: str) -> str:
    """A text for a message; of an address with credentials, only that it has them."""
    if re.search(r"//[^/\s]*@", text):
        return "an address with a user name or password"
    return repr(text if len(text) <= 100 else f"{text[:100]}…")
