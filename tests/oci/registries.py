"""Real registries (CNCF distribution) for tests, with Basic or with Bearer authentication."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from benchmarks.ports import free_port
from tests.machine import need
from tests.waiting import eventually

PASSWORDS = {
    "rita": "read-secret",
    "walter": "write-secret",
    "paul": "partial-secret",
    "USER": "TOKEN",  # as the documents write them
}

Rights = Mapping[str, Mapping[str, str]]
"""User -> repository, or "*" -> "pull" or "pull,push"."""

RIGHTS: Rights = {
    "rita": {"*": "pull"},
    "walter": {"*": "pull,push,delete"},
    "paul": {"acme/demo": "pull"},
    "USER": {"*": "pull,push,delete"},
}


@dataclass
class Registry:
    """A registry that is running."""

    url: str
    folder: Path
    log: Path
    process: subprocess.Popen[bytes]
    tokens_given: list[str] = field(default_factory=list)  # scopes

    def stop(self) -> None:
        """End it; its files stay."""
        self.process.kill()
        self.process.wait()

    def asked(self) -> list[str]:
        """The requests so far, as "GET /v2/… 200"."""
        lines = self.log.read_text().splitlines()
        found = []
        for line in lines:
            if '"http.request.method":' not in line and "HTTP/1." in line:
                quoted = line.split('"')
                words = quoted[1].split() if len(quoted) > 2 else []
                if len(words) == 3:
                    found.append(f"{words[0]} {words[1]} {quoted[2].split()[0]}")
        return found


@contextlib.contextmanager
def registry(folder: Path, *, bearer: bool) -> Iterator[Registry]:
    """A registry in a new folder, which asks for Basic, or for tokens of an issuer of its own."""
    program, port = need("docker-registry"), free_port()
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        tokens: list[str] = []
        if bearer:
            issuer = stack.enter_context(_Issuer(folder).running(tokens))
            auth = (
                f"auth:\n  token:\n    realm: {issuer}\n    service: registry\n"
                f"    issuer: tests\n    rootcertbundle: {folder / 'issuer.pem'}\n"
            )
        else:
            auth = write_passwords(folder)
        config = write_config(folder, port, auth)
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, "serve", str(config)], stdout=output, stderr=output
            )
        url = f"http://127.0.0.1:{port}"
        running = Registry(url, folder, log, process, tokens)
        stack.callback(running.stop)

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(requests.RequestException):
                return requests.get(f"{url}/v2/", timeout=5).status_code == 401
            return False

        eventually(answers, "the registry answers", within=60)
        yield running


def write_config(folder: Path, port: int, auth: str) -> Path:
    """The configuration of a registry that keeps its files in a folder."""
    path = folder / "config.yml"
    path.write_text(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: false\n"
        f"storage:\n  filesystem:\n    rootdirectory: {folder / 'files'}\n"
        "  delete:\n    enabled: true\n"
        "  maintenance:\n    uploadpurging:\n      enabled: false\n"
        f"http:\n  addr: 127.0.0.1:{port}\n{auth}"
    )
    return path


def write_passwords(folder: Path) -> str:
    """The passwords for Basic authentication, and what the configuration says of them."""
    program, path = need("htpasswd"), folder / "htpasswd"
    path.touch()
    for user, password in PASSWORDS.items():
        subprocess.run(
            [program, "-bB", "-C", "4", str(path), user, password], check=True, capture_output=True
        )
    return f"auth:\n  htpasswd:\n    realm: tests\n    path: {path}\n"


class _Issuer:
    """Gives tokens as registries of providers do (Token Authentication Specification)."""

    def __init__(self, folder: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        (folder / "issuer.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        der = certificate.public_bytes(serialization.Encoding.DER)
        self._header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}

    def token(self, user: str, scopes: list[str]) -> str:
        """A token with as much of the scopes as the user may have."""
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            rights = RIGHTS[user]
            allowed = rights.get(name, rights.get("*", "")).split(",")
            if kind == "registry":
                given = actions.split(",") if "*" in rights else []
            elif name.startswith("acme/private_pypi.journal/") and user == "paul":
                given = []
            else:
                given = [action for action in actions.split(",") if action in allowed]
            access.append({"type": kind, "name": name, "actions": given})
        now = int(time.time())
        claims = {
            "iss": "tests", "aud": "registry", "sub": user, "exp": now + 300, "nbf": now - 10,
            "iat": now, "jti": str(now), "access": access,
        }  # fmt: skip
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (self._header, claims))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64(signature)}"

    @contextlib.contextmanager
    def running(self, given: list[str]) -> Iterator[str]:
        """The address of the issuer, which answers until the end."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                scheme, _, pair = self.headers.get("Authorization", "").partition(" ")
                user, _, password = base64.b64decode(pair or "").decode().partition(":")
                scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
                is_good = scheme == "Basic" and PASSWORDS.get(user) == password
                given.extend(scopes)
                body = b"{}"
                if is_good:
                    token = issuer.token(user, [each for scope in scopes for each in scope.split()])
                    body = json.dumps({"token": token, "expires_in": 300}).encode()
                self.send_response(200 if is_good else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/token"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
