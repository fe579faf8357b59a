"""A client that yanks, deletes and explains files on a server of private_pypi over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import requests
from requests.auth import HTTPBasicAuth

from private_pypi import __version__
from private_pypi.backend import Secret
from private_pypi.distributions.filenames import normalize
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    InvalidUpload,
    NotAllowed,
    NotFound,
    PrivatePypiError,
    Unsupported,
    WrongSecret,
    cause_of,
)

USERNAME: Final = "PRIVATE_PYPI_USERNAME"
PASSWORD: Final = "PRIVATE_PYPI_PASSWORD"  # noqa: S105 - the name of a variable

_TIMEOUT: Final = (10.0, 120.0)  # seconds to connect, and between two pieces of the answer

_ERRORS: Mapping[int, type[PrivatePypiError]] = {
    400: InvalidUpload,
    401: WrongSecret,
    403: NotAllowed,
    501: Unsupported,
    503: BackendUnavailable,
}


@dataclass(frozen=True, slots=True)
class IndexClient:
    """The address of an index, and the credentials for it."""

    url: str  # of the simple API; ends with one slash, and has no user or password
    username: str = ""
    password: Secret | None = None  # None: that of the netrc file

    def yank(self, project: str, target: str, reason: str = "") -> list[str]:
        """Yank a file or a release (PEP 592). `target` is a filename or a version.

        Returns the names of the files that are yanked now. Raises an error with the message of the
        server, such as `NotFound` or `AccessError`.
        """
        return self._change("POST", project, target, "/yank", {"reason": reason})

    def unyank(self, project: str, target: str) -> list[str]:
        """Undo `yank`; return the names of the files."""
        return self._change("DELETE", project, target, "/yank")

    def delete(self, project: str, target: str) -> list[str]:
        """Delete a file or a release permanently; return the names of the files.

        The names cannot be used again.
        """
        return self._change("DELETE", project, target, "/")

    def _change(
        self,
        method: str,
        project: str,
        target: str,
        action: str,
        form: Mapping[str, str] | None = None,
    ) -> list[str]:
        # The server redirects requests with a name that is not normalised, and a POST request must
        # not be repeated at another address.
        url = f"{self.url}{normalize(project)}/{quote(target, safe='')}{action}"
        response = self.request(method, url, "application/json", data=form)
        if response.is_redirect:
            raise BackendError(
                f"{self.url} redirects to another address; give that address instead"
            )
        require_ok(response)
        return _files(response, self.url)

    def request(
        self, method: str, url: str, accept: str, *, follow: bool = False, **more: Any
    ) -> requests.Response:
        """Send a request with the credentials; raises `BackendUnavailable` if none is answered.

        `follow`: redirects are followed, to other hosts without the credentials.
        """
        auth = None
        if self.password is not None:
            # These are bytes, because requests would encode text as latin-1.
            auth = HTTPBasicAuth(self.username.encode(), self.password.reveal().encode())
        try:
            return requests.request(
                method,
                url,
                auth=auth,
                headers={"Accept": accept, "User-Agent": f"private_pypi/{__version__}"},
                timeout=_TIMEOUT,
                allow_redirects=follow,
                **more,
            )
        except requests.Timeout as error:
            raise BackendUnavailable(f"{self.url} did not answer in time") from error
        except requests.RequestException as error:
            raise BackendUnavailable(f"cannot reach {self.url}: {cause_of(error)}") from error


def connect(index_url: str, environ: Mapping[str, str]) -> IndexClient:
    """A client for the index with this simple API, such as `https://host/r/mine/simple/`; no I/O.

    The credentials are those in the address, or PRIVATE_PYPI_USERNAME and PRIVATE_PYPI_PASSWORD, or
    those in the netrc file. Raises `ConfigurationError` if the address is not valid.
    """
    try:
        parts = urlsplit(index_url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        # The address is not shown, because it may contain a password.
        raise ConfigurationError(
            "INDEX_URL is not the address of an index; it must be like "
            "https://HOST/r/REPOSITORY/simple/"
        )
    userinfo, at, bare = parts.netloc.rpartition("@")
    url = urlunsplit((parts.scheme, bare, parts.path.rstrip("/") + "/", "", ""))
    username, colon, password = userinfo.partition(":")
    if colon:
        return IndexClient(url, unquote(username), Secret(unquote(password)))
    username = unquote(username) if at else environ.get(USERNAME, "")
    if PASSWORD in environ:
        return IndexClient(url, username, Secret(environ[PASSWORD]))
    return IndexClient(url)


def require_ok(response: requests.Response) -> None:
    """Raise an error with the message of the server unless it has answered 200."""
    if response.status_code != requests.codes.ok:
        raise _ERRORS.get(response.status_code, _other(response.status_code))(_sentence(response))


def _other(status: int) -> type[PrivatePypiError]:
    return NotFound if status in (404, 410) else BackendError


def _sentence(response: requests.Response) -> str:
    answer = _json(response)
    sentence = answer.get("message") if isinstance(answer, dict) else None
    if not isinstance(sentence, str):
        sentence = response.reason or "error"
    if response.status_code == requests.codes.unauthorized:
        sentence += (
            f" (give the secret in the address, in {USERNAME} and {PASSWORD}, or in the netrc file)"
        )
    return f"the server answered {response.status_code}: {sentence}"


def _files(response: requests.Response, url: str) -> list[str]:
    answer = _json(response)
    files = answer.get("files") if isinstance(answer, dict) else None
    if not isinstance(files, list) or not all(isinstance(each, str) for each in files):
        raise BackendError(
            f"{url} is not an index of private_pypi: its answer does not have a list of files"
        )
    return files


def _json(response: requests.Response) -> Any:
    try:
        return json.loads(response.content)
    except ValueError:
        return None
