"""A certificate authority for one test run, and a certificate of it for this machine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID

Key = (
    ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | rsa.RSAPrivateKey
)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files: what clients have to trust, and what a proxy shows them."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(
    folder: Path, issuer_name: str = "private_pypi tests", *, own_key: Key | None = None
) -> Certificates:
    """For `localhost` and 127.0.0.1, valid for a day; by default with a key for P-256."""
    issuer_key = ec.generate_private_key(ec.SECP256R1())
    own_key = own_key or ec.generate_private_key(ec.SECP256R1())
    issuer, own = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        for name in (issuer_name, "localhost")
    )
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    begin = datetime.now(UTC) - timedelta(minutes=5)

    def builder(subject: x509.Name, key: Key) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=1))
        )

    authority = builder(issuer, issuer_key).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    certificate = (
        builder(own, own_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(names, critical=False)
    )
    made = Certificates(folder / "authority.pem", folder / "own.pem", folder / "own.key")
    for path, unsigned in ((made.authority, authority), (made.certificate, certificate)):
        signed = unsigned.sign(issuer_key, hashes.SHA256())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        own_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made
