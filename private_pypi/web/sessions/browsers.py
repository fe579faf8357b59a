"""Recognise requests of browsers, and check the addresses and forms that they send."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

_DEFAULT_PORTS = {"http": 80, "https": 443}
# Printable ASCII without "\", which browsers read as a slash.
_PATH = re.compile(r"/[!-\[\]-~]*")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


def is_browser(headers: Headers) -> bool:
    """Whether a person in a browser asks for a page.

    A request with `Authorization` is that of a tool, which has to get a 401 and not a sign-in page.
    `Accept` alone does not tell, because old installers ask for HTML.
    """
    if headers.get("Authorization"):
        return False
    if headers.get("Sec-Fetch-Mode", "").lower() == "navigate":
        return True
    accepts_html = "text/html" in headers.get("Accept", "").lower()
    return headers.get("User-Agent", "").startswith("Mozilla/") and accepts_html


def safe_next(text: str | None) -> str | None:
    """The text if it is a path of this server, with or without a query; else None.

    It is a path below the root of the server, without the prefix that a proxy may add. It has
    neither a scheme nor a host, and does not lead to a parent folder.
    """
    if not text or len(text) > 2000 or not _PATH.fullmatch(text) or text.startswith("//"):
        return None
    path = unquote(text.partition("?")[0].partition("#")[0])
    if any(segment in (".", "..") for segment in re.split(r"[/\\]", path)):
        return None
    # If a proxy decodes it once more, it must not become the address of another host.
    return None if path.startswith(("//", "/\\")) or not path.isprintable() else text


def is_own_form(headers: Headers, host: str) -> bool:
    """Whether the browser says that a page of this server sent the form, or says nothing.

    `host` is the `Host` of the request. Old browsers say nothing; for these, forms contain a token.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site.lower() in ("same-origin", "none")
    origin = headers.get("Origin")
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
        asked = urlsplit(f"//{host}")
        # The scheme is not compared, because a proxy with TLS may not tell us about it.
        asked_port = asked.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return False
    return bool(parts.hostname) and (parts.hostname, port) == (asked.hostname, asked_port)


def is_cross_site(headers: Headers) -> bool:
    """Whether another site sent the browser here."""
    return headers.get("Sec-Fetch-Site", "").lower() in ("cross-site", "same-site")


def shown_host(host: str) -> str | None:
    """The `Host` of a request if it is safe in a command to copy, else None."""
    return host if _HOST.fullmatch(host) else None


def to_root(path: str) -> str:
    """The relative path from a path of this server to its root.

    Relative addresses are right behind any proxy, even if it adds a prefix that we do not know.
    """
    return "../" * (path.count("/") - 1) or "./"
