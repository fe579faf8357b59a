"""The certificate and the key of a server with TLS: checked, and watched for new ones."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from private_pypi.errors import ConfigurationError, cause_of

if TYPE_CHECKING:
    from cryptography import x509

logger = logging.getLogger(__name__)

_SOON = timedelta(days=7)  # before the end of a certificate, there is a warning


@dataclass(frozen=True, slots=True)
class Certificate:
    """Two files in PEM: the certificate with those of its issuers, and the private key."""

    chain: Path
    key: Path

    def check(self) -> None:
        """Raise `ConfigurationError` if a server cannot use them."""
        import ssl  # as below, for a faster start of servers without TLS

        for flag, path in (("--tls_cert", self.chain), ("--tls_key", self.key)):
            try:
                path.read_bytes()
            except OSError as error:
                raise ConfigurationError(f"{flag} {path}: {cause_of(error)}") from error
        try:
            self._certificates()
        except ValueError as error:
            raise ConfigurationError(
                f"--tls_cert {self.chain}: not a certificate in PEM, which begins with "
                "-----BEGIN CERTIFICATE-----"
            ) from error
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                self.chain, self.key, password=self._no_password
            )
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ConfigurationError(
                    f"--tls_key {self.key}: not the key of the certificate {self.chain}"
                ) from error
            raise ConfigurationError(
                f"--tls_key {self.key}: not a private key in PEM that can be used here: "
                f"{error.reason or error}"
            ) from error

    def warn(self) -> None:
        """Write to the log if the certificate has expired or will soon."""
        end = self._certificates()[0].not_valid_after_utc
        now = datetime.now(UTC)
        if end < now:
            logger.warning("the certificate %s has expired on %s", self.chain, end)
        elif end < now + _SOON:
            logger.warning("the certificate %s expires on %s", self.chain, end)

    def _certificates(self) -> list[x509.Certificate]:
        from cryptography import x509

        return x509.load_pem_x509_certificates(self.chain.read_bytes())

    def _no_password(self) -> str:
        raise ConfigurationError(
            f"--tls_key {self.key} is protected by a password; write a key without one with "
            f"`openssl pkey -in {self.key} -out NEW_KEY`, which only the server may read"
        )

    def state(self) -> object:
        """Something that is different once a file is replaced."""
        facts: list[tuple[int, int, int] | None] = []
        for path in (self.chain, self.key):
            try:
                found = path.stat()
            except OSError:
                facts.append(None)
            else:
                facts.append((found.st_ino, found.st_size, found.st_mtime_ns))
        return facts
