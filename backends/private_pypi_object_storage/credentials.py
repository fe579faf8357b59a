"""The access keys of a bucket on S3, as the table gives them: its own, or those of a profile.

Source: AWS SDKs and Tools Reference Guide, "Using shared config and credentials files".
"""

from __future__ import annotations

import configparser
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from private_pypi.backend import Secret
from private_pypi.errors import BackendError
from private_pypi_object_storage.settings import ObjectStorageSettings

_SHARED: Final = Path("~/.aws/credentials")
_READ_AGAIN: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class AccessKeys:
    """An access key, its secret, and the token that temporary ones have."""

    key_id: str
    secret: Secret
    token: Secret | None


def access_keys(settings: ObjectStorageSettings) -> AccessKeys | None:
    """The keys that the table gives or names; None: those of the environment or the machine.

    Raises `BackendError` if the file cannot be read or has no keys for the profile.
    """
    if settings.access_key_id is not None and settings.secret_access_key is not None:
        return AccessKeys(
            settings.access_key_id, settings.secret_access_key, settings.session_token
        )
    if settings.profile is None:
        return None
    path = settings.credentials_file or _SHARED
    with contextlib.suppress(RuntimeError):  # the user has no home: then it is not there, either
        path = path.expanduser()
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BackendError(
            f"the credentials file {str(path)!r} cannot be read: {error.strerror}"
        ) from error
    except (configparser.Error, UnicodeDecodeError) as error:
        # Its message may quote a line, and so a secret.
        raise BackendError(
            f"the credentials file {str(path)!r} is not one of AWS: {type(error).__name__}"
        ) from None
    found = dict(parser[settings.profile]) if parser.has_section(settings.profile) else {}
    key_id, secret = found.get("aws_access_key_id"), found.get("aws_secret_access_key")
    if not key_id or not secret:
        raise BackendError(
            f"the credentials file {str(path)!r} has no aws_access_key_id and "
            f"aws_secret_access_key in a section [{settings.profile}]"
        )
    token = found.get("aws_session_token")
    return AccessKeys(key_id, Secret(secret), Secret(token) if token else None)


@dataclass(frozen=True, slots=True)
class ProfileCredentials:
    """What `obstore` asks for credentials: the file is read again every ten minutes."""

    settings: ObjectStorageSettings

    def __call__(self) -> Any:
        """The keys, as `obstore.store.S3CredentialProvider` gives them."""
        keys = access_keys(self.settings)
        assert keys is not None
        return {
            "access_key_id": keys.key_id,
            "secret_access_key": keys.secret.reveal(),
            "token": None if keys.token is None else keys.token.reveal(),
            "expires_at": datetime.now(UTC) + _READ_AGAIN,
        }
