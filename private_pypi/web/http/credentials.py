"""Read the credentials of a request. What they allow is decided in `repositories`."""

from __future__ import annotations

import base64
import binascii

from private_pypi.backend import Secret
from private_pypi.repositories import Credentials

CHALLENGE = ("WWW-Authenticate", 'Basic realm="private_pypi", charset="UTF-8"')
"""The header that every 401 must have (RFC 9110 §11.6.1)."""


def parse_credentials(authorization: str | None, client: str = "") -> Credentials | None:
    """Parse an `Authorization` header in the form of WSGI (latin-1); None if there is none.

    Basic credentials are split at the first colon; pip sends them as latin-1, uv as UTF-8. After
    `Bearer` or `Token` comes the secret without a user. A header that cannot be parsed counts as a
    wrong secret. `client` is the network of the client (see `Credentials`).
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
            user, password = (_text(part).strip() for part in raw.partition(b":")[::2])
            if user and not password:  # https://TOKEN@host/, as it is usual for other services
                return Credentials(None, Secret(user), client)
            return Credentials(user, Secret(password), client)
        case "bearer" | "token":
            secret = Secret(_text(rest.encode("latin-1", "replace")).strip())
            return Credentials(None, secret, client)
        case _:
            return Credentials("", Secret(""))


def credentials_for(name: str, authorization: str | None) -> str:
    """An `Authorization` header that names a repository, and has the credentials as its secret.

    The secret is `user:password`, or a token that comes without a user. Without credentials it is
    ":". A header that cannot be parsed stays as it is.
    """
    scheme, _, rest = (authorization or "").partition(" ")
    match scheme.lower():
        case "":
            secret = b":"
        case "basic":
            try:
                secret = base64.b64decode(rest.strip().encode("latin-1"), validate=True)
            except (binascii.Error, ValueError):
                return authorization or ""
            user, _, password = secret.partition(b":")
            if user and not password:
                secret = user
        case "bearer" | "token":
            secret = rest.strip().encode("latin-1", "replace")
        case _:
            return authorization or ""
    if not secret.strip():
        return authorization or ""
    return f"Basic {base64.b64encode(name.encode() + b':' + secret).decode()}"


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
