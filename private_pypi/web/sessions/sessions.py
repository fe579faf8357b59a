"""The session of a person who signed in, which is kept in an encrypted cookie.

The server itself stores nothing, so a session survives a restart and works in every process. The
cookie is encrypted and authenticated (Fernet: AES-128-CBC and HMAC-SHA-256), because it contains
the secrets of the person. The storage is asked about them again and again, as about those of tools,
so a revoked secret stops to work in a session too.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from private_pypi.backend import Secret
from private_pypi.configuration.config import ConfigurationText
from private_pypi.errors import BackendError, ConfigurationError
from private_pypi.system.private_files import write_private

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

COOKIE = "private_pypi_session"
KEY_FILE = "session_key"
KEY_VARIABLE = "PRIVATE_PYPI_SECRET_KEY"

IDLE = 12 * 3600  # seconds without a request, after which a session ends
LONGEST = 7 * 24 * 3600  # seconds after which it ends in any case
RENEW_AFTER = 300  # seconds; a newer cookie is not sent again

# Bytes of the cookie's value. Browsers accept 4096 with its name and attributes.
LARGEST = 3800

_SHORTEST_KEY = 32  # characters


class SessionTooLarge(ValueError):
    """The secrets of a session do not fit into a cookie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The content of a cookie. Times are in Unix seconds."""

    began_at: int
    seen_at: int
    token: str  # in every form of this session, against forms of other sites (CSRF)
    repositories: Mapping[str, Secret] = field(default_factory=dict)
    current: str | None = None  # the repository that is meant by addresses without one

    @property
    def current_name(self) -> str | None:
        """`current`, or else the repository that was signed in to last."""
        if self.current is not None:
            return self.current
        return next(reversed([*self.repositories]), None)

    def has_token(self, token: str) -> bool:
        """Whether this is the token of the session."""
        return hmac.compare_digest(self.token.encode(), token.encode("utf-8", "replace"))

    def with_repository(self, name: str, secret: Secret) -> Session:
        """The session after signing in to a repository. It has a new token."""
        others = {key: value for key, value in self.repositories.items() if key != name}
        return replace(
            self, repositories={**others, name: secret}, current=name, token=_new_token()
        )

    def with_current(self, name: str) -> Session:
        """The session with this current repository."""
        return replace(self, current=name)

    def without_repository(self, name: str) -> Session:
        """The session after signing out of a repository."""
        others = {key: value for key, value in self.repositories.items() if key != name}
        return replace(
            self, repositories=others, current=None if self.current == name else self.current
        )


def new_session(now: float) -> Session:
    """A session of somebody who has not signed in yet."""
    return Session(began_at=int(now), seen_at=int(now), token=_new_token())


def _new_token() -> str:
    return secrets.token_urlsafe(16)


class SessionSeal:
    """Encrypts sessions (`seal`) and decrypts them (`open`)."""

    def __init__(self, keys: Sequence[str], source: str = "the given text") -> None:
        """Use these keys, each of at least 32 characters. Raises `ConfigurationError`.

        The first key encrypts, and all of them decrypt. To change keys, put a new one first. Remove
        the old one a week later, when its sessions have ended, or at once to end them.
        `source` is where the keys come from, for the messages of errors.
        """
        if not keys:
            raise ConfigurationError(f"{source} has no key for sessions")
        for number, key in enumerate(keys, 1):
            if len(key) < _SHORTEST_KEY:
                raise ConfigurationError(
                    f"key {number} for sessions ({source}) has {len(key)} characters; a key is "
                    f"random and has at least {_SHORTEST_KEY}, such as one that "
                    "`openssl rand -hex 32` makes"
                )
        self._keys = tuple(keys)

    @cached_property
    def _fernet(self) -> MultiFernet:
        # Imported here, because a server may answer thousands of tools before the first session.
        from cryptography.fernet import Fernet, MultiFernet

        return MultiFernet([Fernet(_derived(key)) for key in self._keys])

    def seal(self, session: Session) -> str:
        """The value of the cookie. Raises `SessionTooLarge`."""
        facts = {
            "began": session.began_at,
            "seen": session.seen_at,
            "token": session.token,
            "current": session.current,
            "repositories": {
                name: secret.reveal() for name, secret in session.repositories.items()
            },
        }
        plain = json.dumps(facts, separators=(",", ":"), ensure_ascii=False)
        sealed = self._fernet.encrypt(plain.encode("utf-8", "surrogatepass")).decode()
        if len(sealed) > LARGEST:
            raise SessionTooLarge
        return sealed

    def open(self, sealed: str | None, now: float) -> Session | None:
        """The session in the value of a cookie; None if there is none or it has ended.

        Also None for a value that was not encrypted with one of the keys. `now` is in Unix seconds.
        """
        if not sealed or len(sealed) > LARGEST:
            return None
        from cryptography.fernet import InvalidToken

        try:
            facts = json.loads(self._fernet.decrypt(sealed.encode()))
            session = Session(
                began_at=facts["began"],
                seen_at=facts["seen"],
                token=facts["token"],
                repositories={
                    name: Secret(secret) for name, secret in facts["repositories"].items()
                },
                current=facts["current"],
            )
        except (InvalidToken, UnicodeEncodeError, ValueError, KeyError):
            return None  # not one of ours, or made by another version
        if not (now - session.seen_at < IDLE and now - session.began_at < LONGEST):
            return None
        return session


def load_seal(
    root: Path, environ: Mapping[str, str], shared: ConfigurationText | None = None
) -> SessionSeal:
    """The seal of a server, with the keys of `shared`, of the environment, or of a file in ROOT.

    `shared` is a file with keys that several servers have. If there are no other keys and no file
    in ROOT, the latter is made with a random key. Several keys are separated by white space or
    commas. Raises `ConfigurationError` for an invalid key, or if there are both `shared` and the
    variable, and `BackendError` if the file in ROOT cannot be read or written.
    """
    given = environ.get(KEY_VARIABLE, "").strip()
    if given and shared is not None:
        raise ConfigurationError(
            f"{KEY_VARIABLE} and {shared.name} both have keys for sessions; give only one of them, "
            "and all keys in it"
        )
    if shared is not None:
        return SessionSeal(_keys(shared.text), shared.name)
    if given:
        return SessionSeal(_keys(given), KEY_VARIABLE)
    path = root / KEY_FILE
    try:
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32) + "\n", replace=False)
        return SessionSeal(_keys(path.read_text("utf-8")), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BackendError(f"the key for sessions, {path}, cannot be used: {error}") from error


def _keys(text: str) -> list[str]:
    return re.split(r"[\s,]+", text.strip(" \t\r\n,")) if text.strip(" \t\r\n,") else []


def _derived(key: str) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    derivation = HKDF(
        algorithm=hashes.SHA256(), length=32, salt=None, info=b"private_pypi sessions 1"
    )
    return base64.urlsafe_b64encode(derivation.derive(key.encode("utf-8", "surrogatepass")))
