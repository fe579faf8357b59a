"""What a request of a person's browser is, and which addresses and forms of it are safe; pure."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from werkzeug.datastructures import Headers

_DEFAULT_PORTS = {"http": 80, "https": 443}
# Printable ASCII without what browsers read as something else: "\" is a slash to them.
_PATH = re.compile(r"/[!-\[\]-~]*")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


def is_browser(headers: Headers) -> bool:
    """Whether a person asks for a page.

    A tool says who it is, and gets its 401. `Accept` alone is no sign: old installers ask for HTML.
    """
    if headers.get("Authorization"):
        return False
    if headers.get("Sec-Fetch-Mode", "").lower() == "navigate":
        return True
    accepts_html = "text/html" in headers.get("Accept", "").lower()
    return headers.get("User-Agent", "").startswith("Mozilla/") and accepts_html


def safe_next(text: str | None) -> str | None:
    """A path (with its query) within this server, to go on to; None for anything else.

    Relative to where the server begins, whatever prefix it has. No scheme, no host, no way up.
    """
    if not text or len(text) > 2000 or not _PATH.fullmatch(text) or text.startswith("//"):
        return None
    path = unquote(text.partition("?")[0].partition("#")[0])
    if any(segment in (".", "..") for segment in re.split(r"[/\\]", path)):
        return None
    # What is decoded once more on the way must not become another host.
    return None if path.startswith(("//", "/\\")) or not path.isprintable() else text


def is_own_form(headers: Headers, host: str) -> bool:
    """Whether a form was sent by a page of this very server, as far as the browser says.

    `host` is that of the request. Browsers that say nothing are held by the token of the form.
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
        # A proxy may not tell us of its TLS, so the scheme is not compared.
        asked_port = asked.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return False
    return bool(parts.hostname) and (parts.hostname, port) == (asked.hostname, asked_port)


def is_cross_site(headers: Headers) -> bool:
    """Whether another site sent the browser here."""
    return headers.get("Sec-Fetch-Site", "").lower() in ("cross-site", "same-site")


def shown_host(host: str) -> str | None:
    """The `Host` of a request when it may stand in a command; None when it is no host."""
    return host if _HOST.fullmatch(host) else None


def to_root(path: str) -> str:
    """The relative way from a path of this server to where the server begins.

    Relative addresses hold behind any prefix and proxy, also those that we are not told of.
    """
    return "../" * (path.count("/") - 1) or "./"
