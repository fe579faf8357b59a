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
_CURVES = ("secp256r1", "secp384r1")  # P-256 and P-384
_RSA_BITS = (2048, 3072, 4096)
_LEAST_EXPONENT = 65537


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
        self._certificates()
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
        self._check_kind()

    def _check_kind(self) -> None:
        """Raise `ConfigurationError` for what OpenSSL can use and granian cannot.

        granian uses rustls, and aborts the process if that cannot use the files.
        """
        from cryptography import x509

        certificate = self._certificates()[0]
        flaw = None
        if certificate.version is not x509.Version.v3:
            flaw = "it has version 1, and must have version 3, such as one with a subjectAltName"
        elif flaws := _unknown_to_rustls(certificate):
            flaw = f"it has critical extensions that are not known: {', '.join(flaws)}"
        if flaw is not None:
            raise ConfigurationError(f"--tls_cert {self.chain}: granian cannot use it: {flaw}")
        if not _has_usual_key(certificate):
            raise ConfigurationError(
                f"--tls_key {self.key}: granian cannot use a key of this kind; it can use ECDSA "
                "with the curve P-256 or P-384, Ed25519, and RSA with 2048, 3072 or 4096 bits and "
                "the exponent 65537"
            )

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

        try:
            return x509.load_pem_x509_certificates(self.chain.read_bytes())
        except (ValueError, x509.InvalidVersion) as error:
            raise ConfigurationError(
                f"--tls_cert {self.chain}: not a certificate in PEM, which begins with "
                "-----BEGIN CERTIFICATE-----"
            ) from error

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


def _unknown_to_rustls(certificate: x509.Certificate) -> list[str]:
    """The critical extensions that rustls does not know, as numbers with dots."""
    from cryptography import x509
    from cryptography.x509.oid import ExtensionOID

    known = (
        *(ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.NAME_CONSTRAINTS),
        *(ExtensionOID.EXTENDED_KEY_USAGE, ExtensionOID.SUBJECT_ALTERNATIVE_NAME),
    )
    try:
        critical = [each.oid for each in certificate.extensions if each.critical]
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        return [str(error)]
    return [oid.dotted_string for oid in critical if oid not in known]


def _has_usual_key(certificate: x509.Certificate) -> bool:
    """Whether the key is of a kind that rustls can use."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.x509.oid import PublicKeyAlgorithmOID

    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return False
    match key:
        case rsa.RSAPublicKey():
            is_pss = certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS
            is_usual = key.key_size in _RSA_BITS and key.public_numbers().e >= _LEAST_EXPONENT
            return is_usual and not is_pss
        case ec.EllipticCurvePublicKey():
            return key.curve.name in _CURVES
        case _:
            return isinstance(key, ed25519.Ed25519PublicKey)
