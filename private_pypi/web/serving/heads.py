"""What every engine reads in the same way from the head of a request."""

from __future__ import annotations

import random
import re

# Clients and proxies send hex, UUIDs, base64, and `Root=1-67891233-abcdef012345`.
_SAFE_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")

HOST = re.compile(
    rb"(?:[0-9A-Za-z._~!$&'()*+,;=%-]*|\[[0-9A-Za-z:.%_~-]+\])(?::[0-9]{0,5})?", re.ASCII
)
"""A valid field `Host`."""


class BadFraming(Exception):
    """The request is malformed. The message is for the client; `status` is that of the answer."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


def request_id(given: str | None) -> str:
    """The `X-Request-ID` of the client if it is safe in headers and logs, else a random one."""
    if given is not None and _SAFE_ID.fullmatch(given):
        return given
    return f"{random.getrandbits(64):016x}"


def path_info(path: str, prefix: str) -> str:
    """The path as the application gets it, without the operator's `url_prefix`.

    Several slashes in a row count as one. People append paths to addresses that end with a slash,
    and clients do not follow a redirect when they upload (protocol 47).
    """
    if not path.startswith("/"):
        path = f"/{path}"
    if "//" in path:
        path = re.sub("/{2,}", "/", path)
    return path.removeprefix(prefix) if prefix and path.startswith(f"{prefix}/") else path


def hides_early_answers(via: str) -> bool:
    """Whether a proxy would not pass on an answer that is sent before the end of the body.

    Proxies written in Go, such as Caddy, close the connection to an HTTP/1 client when they get
    such an answer. The client sees a broken connection, and tries again. The header `Via` tells
    us that there is a proxy and which version the client speaks (RFC 9110 §7.6.3).
    """
    nearest = via.rpartition(",")[2].split()
    protocol = nearest[0].upper().removeprefix("HTTP/") if nearest else ""
    return protocol.startswith("1.")
