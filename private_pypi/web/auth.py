"""The credentials that a request bears; what they may do is decided by `repositories`."""

from __future__ import annotations

import base64
import binascii

from private_pypi.backend import Secret
from private_pypi.repositories import Credentials

CHALLENGE = ("WWW-Authenticate", 'Basic realm="private_pypi", charset="UTF-8"')
"""Every 401 bears it: browsers and RFC 9110 §11.6.1 need it."""


def parse_credentials(authorization: str | None) -> Credentials | None:
    """Read an `Authorization` header as WSGI gives it (latin-1); None when there is none.

    Basic is split at the first colon; pip sends latin-1, uv UTF-8. `Bearer` and `Token` bear the
    bare secret. What cannot be read is a wrong secret, not an error of its own.
    """
    if not authorization:
        return None
    scheme, _, rest = authorization.partition(" ")
    match scheme.lower():
        case "basic":
            try:
                raw = base64.b64decode(rest.strip().encode("latin-1"), validate=True)
            except (binascii.Error, ValueError):
                return Credentials("", Secret(""))
            user, _, password = raw.partition(b":")
            return Credentials(_text(user).strip(), Secret(_text(password).strip()))
        case "bearer" | "token":
            return Credentials(None, Secret(_text(rest.encode("latin-1", "replace")).strip()))
        case _:
            return Credentials("", Secret(""))


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
