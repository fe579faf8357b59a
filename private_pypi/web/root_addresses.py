"""Addresses at the root of the server that mean a tenant (`SupportsRootAddresses`).

They have the form `/<host>/<path>/<project>/`. Each is an alias of an address below
`/r/<repository>/`, into which it is translated before anything else sees the request. The user of
the request is one of the host; it becomes a part of the secret. All links on our pages are
relative, so they work at either address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cached_property
from typing import Any

from private_pypi.distributions.filenames import is_filename
from private_pypi.web.deployment import Deployment
from private_pypi.web.http.credentials import credentials_for
from private_pypi.web.serving import RequestHead

# The host may have a scheme, whose slashes clients encode as %2F.
_PATH = re.compile(r"/(?P<host>(?i:https?:/{1,2})?[^/]+)/(?P<rest>.*)")
_METADATA = ".metadata"
_DOCUMENTS = ("json", "index.html")


class RootAddresses:
    """The addresses at the root of one server."""

    def __init__(self, served: Deployment, own: Callable[[], Collection[str]]) -> None:
        """`own` gives the first segments of all other addresses, which take precedence.

        It is called once, and only if tenants may have addresses.
        """
        self._served = served
        self._find_own = own

    @cached_property
    def _own(self) -> Collection[str]:
        return self._find_own()

    def path_of(self, path: str, method: str = "GET") -> str:
        """The address that a path is an alias of, or the path itself."""
        found = self._find(path, method)
        return path if found is None else found[1]

    def of_head(self, head: RequestHead) -> RequestHead:
        """The head of a request to the address that its path is an alias of."""
        found = self._find(head.path, head.method)
        if found is None:
            return head
        authorization = credentials_for(found[0], head.headers.get("AUTHORIZATION"))
        headers = {**head.headers, "AUTHORIZATION": authorization}
        return replace(head, path=found[1], headers=headers)

    def translate(self, environ: dict[str, Any]) -> None:
        """Make the environment that of a request to the address that its path is an alias of."""
        found = self._find(environ["PATH_INFO"], environ["REQUEST_METHOD"])
        if found is not None:
            name, environ["PATH_INFO"] = found
            environ["HTTP_AUTHORIZATION"] = credentials_for(name, environ.get("HTTP_AUTHORIZATION"))

    def _find(self, path: str, method: str) -> tuple[str, str] | None:
        """The name of the tenant, and the path of its address."""
        if not self._served.last_repositories.have_root_addresses():
            return None
        match = _PATH.fullmatch(path)
        if match is None or match["host"] in self._own:
            return None
        host = re.sub("^(https?):/+", r"\1://", match["host"].lower())
        segments = match["rest"].split("/")
        rest = _rest(segments, method)
        # What is before `rest` is the path of the tenant.
        above = segments[: len(segments) - len(rest)]
        if not above or not all(above):
            return None
        name = self._served.last_repositories.tenant_at(host, "/".join(above).lower())
        if name is None:
            return None
        if method == "POST":
            return name, f"/r/{name}/legacy/"
        if rest[1:] == ["json"]:
            return name, f"/r/{name}/pypi/{rest[0]}/json"
        return name, "/".join(["", "r", name, "simple", *rest])


def _rest(segments: list[str], method: str) -> list[str]:
    """The segments of an address from the project on: `[project, file or version]`, for example."""
    if method == "POST":  # an upload, whose address has no project
        return [""] if segments[-1] == "" else []
    if method == "DELETE":
        return segments[-2:]
    last = segments[-1]
    if last == "":  # a project, or all of them
        return segments[-2:] if len(segments) > 2 else segments[-1:]
    is_target = last in _DOCUMENTS or is_filename(last.removesuffix(_METADATA))
    if len(segments) > 2 and is_target:
        return segments[-2:]
    return segments[-1:]
