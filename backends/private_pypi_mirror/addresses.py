"""Addresses of the upstream: their origins, how they are shown, and what links lead to."""

from __future__ import annotations

from urllib.parse import unquote, urljoin, urlsplit

Origin = tuple[str, str, int]
"""Scheme, host and port (RFC 6454)."""

_PORTS = {"http": 80, "https": 443}
_LONGEST = 300  # characters of an address in a message


def origin_of(url: str) -> Origin | None:
    """The origin of an http or https address; None for everything else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port


def shown(url: str) -> str:
    """An address for messages: without credentials, and without a query, which may be signed."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "an address that cannot be read"
    host = f"[{host}]" if ":" in host else host
    text = f"{parts.scheme}://{host}{f':{port}' if port is not None else ''}{parts.path}"
    text = "".join(each if each.isprintable() else "?" for each in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def resolved(base: str, link: str) -> tuple[str, str]:
    """The absolute address of a link on a page at `base`, and its fragment.

    Raises `ValueError` if the link is not an address.
    """
    link, _, fragment = link.strip().partition("#")
    is_absolute = link.startswith(("https://", "http://"))
    url = link if is_absolute else urljoin(base, link)
    if "[" in url:  # only then can an address be wrong
        urlsplit(url)
    return url, fragment


def last_component(url: str) -> str:
    """The last component of the path of an address, decoded; "" for that of a folder."""
    path = url.partition("?")[0]
    # The first two slashes are those of `https://`; without a third one there is no path.
    return unquote(path.rpartition("/")[2]) if path.count("/") > 2 else ""
