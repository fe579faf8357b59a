"""TLS in the server itself: real clients, HTTP/2, and certificates that are wrong or replaced."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from private_pypi.errors import ConfigurationError
from private_pypi.testing.distributions import make_wheel
from private_pypi.web.serving import engines
from private_pypi.web.serving.granian.certificates import Certificate
from tests.clients.conftest import client, target
from tests.clients.environments import Client
from tests.clients.installers import install, installed
from tests.clients.publishers import publish, sent_files
from tests.clients.releases import Release
from tests.clients.serving import Repository
from tests.faults.servers import Server, servers_below, sha256
from tests.machine import need
from tests.proxies.authority import Certificates, Key, make_certificates
from tests.waiting import eventually

__all__ = ["client", "target"]

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(made: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tls")
    flags = ["--tls_cert", str(made.certificate), "--tls_key", str(made.key)]
    with servers_below(folder) as servers:
        yield servers.start(folder / "root", flags=flags)


def trusting(client: Client, made: Certificates) -> Client:
    names = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    return replace(client, variables=dict.fromkeys(names, str(made.authority)))


@pytest.mark.needs("clients")
@pytest.mark.parametrize(
    ("publisher", "installer"), [("twine", "pip"), ("uv", "uv"), ("poetry", "poetry")]
)
def test_what_is_published_with_tls_is_installed_with_tls(
    server: Server,
    made: Certificates,
    client: Callable[[str], Client],
    target: Path,
    publisher: str,
    installer: str,
) -> None:
    assert server.url.startswith("https://")
    repository = Repository(server.url, "mine", read_secret="r", write_secret="w")
    release = Release(name=f"demo_{publisher}_{installer}")
    user = trusting(client(publisher), made)
    sent = publish(user, release, repository)
    assert sent.code == 0, sent.output
    assert sent_files(user)
    got = install(trusting(client(installer), made), [repository.readable()], release.name, target)
    assert got.code == 0, got.output
    assert installed(target)[release.name] == "1.0"


@pytest.mark.needs("a server")
def test_a_session_is_for_tls_only(server: Server, made: Certificates) -> None:
    session = requests.Session()
    session.headers["Accept"] = "text/html"
    trusted = str(made.authority)  # given each time, because a variable of the machine goes first
    page = session.get(f"{server.url}/login/", verify=trusted, timeout=20).text
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token is not None
    form = {"pkg_repo_name": "mine", "pkg_repo_secret_raw": "r", "token": token[1]}
    answer = session.post(
        f"{server.url}/login/", form, verify=trusted, timeout=20, allow_redirects=False
    )
    assert answer.status_code == 303
    assert "; Secure; HttpOnly;" in answer.headers["Set-Cookie"]


@pytest.mark.needs("a server")
@pytest.mark.parametrize(("flag", "version"), [("--http2", "2"), ("--http1.1", "1.1")])
def test_both_versions_of_the_protocol_are_served(
    server: Server, made: Certificates, tmp_path: Path, flag: str, version: str
) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"x" * 10**6)
    content = ["--write-out", " %{http_version} %{http_code}", flag]
    assert _curl(made, *content, f"{server.url}/health/") == f"ok\n {version} 200"
    refused = _curl(
        made,
        *content,
        "--output",
        os.devnull,
        "--data-binary",
        f"@{large}",
        f"{server.url}/r/mine/",
    )
    assert refused == f" {version} 401"


@pytest.mark.needs("a server")
def test_uploads_and_large_files_go_over_http_2(
    server: Server, made: Certificates, tmp_path: Path
) -> None:
    filename, wheel = make_wheel("large", "1.0", files={"large/data": os.urandom(6 * 10**6)})
    path = tmp_path / filename
    path.write_bytes(wheel)
    fields = {":action": "file_upload", "protocol_version": "1", "metadata_version": "2.1"}
    fields |= {"name": "large", "version": "1.0", "filetype": "bdist_wheel", "pyversion": "py3"}
    fields["sha256_digest"] = sha256(wheel)
    form = [word for field in fields.items() for word in ("--form-string", "=".join(field))]
    sent = _curl(
        made, "--http2", "-u", "mine:w", *form, "-F", f"content=@{path}", f"{server.url}/r/mine/"
    )
    assert "is published" in sent
    got = tmp_path / "got"
    _curl(
        *(made, "--http2", "-u", "mine:r", "--output", str(got)),
        f"{server.url}/r/mine/simple/large/{filename}",
    )
    assert got.read_bytes() == wheel


@pytest.mark.needs("a server")
def test_old_versions_of_tls_are_refused(server: Server, made: Certificates) -> None:
    context = ssl.create_default_context(cafile=str(made.authority))
    for version, works in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)):
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.maximum_version = version
        with socket.create_connection((HOST, server.port), timeout=20) as sock:
            try:
                context.wrap_socket(sock, server_hostname=HOST).close()
                found = True
            except (ssl.SSLError, ConnectionError):
                found = False
        assert found is works


@pytest.mark.needs("a server")
def test_a_new_certificate_is_used_without_a_restart_and_a_wrong_one_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "unusual").mkdir()
    old, new = (make_certificates(tmp_path / name, name) for name in ("old", "new"))
    unusual = make_certificates(
        tmp_path / "unusual", own_key=ec.generate_private_key(ec.SECP521R1())
    )
    used = Certificates(old.authority, tmp_path / "cert.pem", tmp_path / "key.pem")
    shutil.copy(old.certificate, used.certificate)
    shutil.copy(old.key, used.key)
    flags = ["--tls_cert", str(used.certificate), "--tls_key", str(used.key)]
    with servers_below(tmp_path) as servers:
        server = servers.start(tmp_path / "root", flags=flags)
        assert _issuer(server, old) == "old"
        shutil.copy(new.certificate, used.certificate)
        eventually(lambda: "the new certificate is not used" in server.log)
        assert _issuer(server, old) == "old"
        # granian aborts the process if it gets such a key.
        shutil.copy(unusual.certificate, used.certificate)
        shutil.copy(unusual.key, used.key)
        eventually(lambda: "granian cannot use a key of this kind" in server.log)
        assert _issuer(server, old) == "old"
        shutil.copy(new.certificate, used.certificate)
        shutil.copy(new.key, used.key)
        eventually(lambda: "is used from now on" in server.log)

        def is_new() -> bool:
            with contextlib.suppress(OSError):  # of TLS, of the connection, or a timeout
                return _issuer(server, new) == "new"
            return False  # it came to the listener that is just being closed

        eventually(is_new)
        assert server.stop() == 0
        assert "panicked" not in server.log


@pytest.mark.needs("a server")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_ends_cleanly_though_clients_are_connected(
    made: Certificates, tmp_path: Path, number: signal.Signals
) -> None:
    flags = ["--tls_cert", str(made.certificate), "--tls_key", str(made.key)]
    context = ssl.create_default_context(cafile=str(made.authority))
    with servers_below(tmp_path) as servers:
        server = servers.start(tmp_path / "root", flags=flags)
        plain = socket.create_connection((HOST, server.port), timeout=20)
        with plain, context.wrap_socket(plain, server_hostname=HOST) as sock:
            sock.sendall(b"GET /health/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"
            server.process.send_signal(number)
            assert server.process.wait(timeout=60) == 0
        assert "panicked" not in server.log
        assert "Traceback" not in server.log


# -- certificates that cannot be used ------------------------------------------------------------


def test_files_that_are_no_pair_are_refused_with_the_reason(
    made: Certificates, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path)
    empty = tmp_path / "empty"
    empty.write_text("")
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    cases = {
        Certificate(tmp_path / "none", made.key): f"--tls_cert {tmp_path}/none: No such file",
        Certificate(made.certificate, tmp_path / "none"): f"--tls_key {tmp_path}/none: No such",
        Certificate(tmp_path, made.key): f"--tls_cert {tmp_path}: Is a directory",
        Certificate(empty, made.key): f"--tls_cert {empty}: not a certificate in PEM",
        Certificate(made.key, made.key): f"--tls_cert {made.key}: not a certificate in PEM",
        Certificate(made.certificate, empty): f"--tls_key {empty}: not a private key in PEM",
        Certificate(made.certificate, other.key): (
            f"--tls_key {other.key}: not the key of the certificate {made.certificate}"
        ),
        Certificate(made.certificate, locked): f"--tls_key {locked} is protected by a password",
    }
    found = {}
    for certificate, begin in cases.items():
        with pytest.raises(ConfigurationError) as caught:
            certificate.check()
        found[certificate] = str(caught.value)[: len(begin)]
    assert found == cases
    Certificate(made.certificate, made.key).check()


@pytest.mark.parametrize(
    ("kind", "key", "is_usable"),
    [
        ("P-256", lambda: ec.generate_private_key(ec.SECP256R1()), True),
        ("P-384", lambda: ec.generate_private_key(ec.SECP384R1()), True),
        ("P-521", lambda: ec.generate_private_key(ec.SECP521R1()), False),
        ("secp256k1", lambda: ec.generate_private_key(ec.SECP256K1()), False),
        ("Ed25519", ed25519.Ed25519PrivateKey.generate, True),
        ("Ed448", ed448.Ed448PrivateKey.generate, False),
        ("RSA, 2048 bits", lambda: rsa.generate_private_key(65537, 2048), True),
        ("RSA, 2560 bits", lambda: rsa.generate_private_key(65537, 2560), False),
        ("RSA, exponent 3", lambda: rsa.generate_private_key(3, 2048), False),
    ],
)
def test_a_key_that_granian_cannot_use_is_refused(
    tmp_path: Path, kind: str, key: Callable[[], Key], is_usable: bool
) -> None:
    made = make_certificates(tmp_path, own_key=key())
    with nullcontext() if is_usable else pytest.raises(ConfigurationError, match=r"P-384, Ed25519"):
        Certificate(made.certificate, made.key).check()


@pytest.mark.needs("openssl")
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["-addext", "1.2.3.4=critical,DER:0500"], "extensions that are not known: 1.2.3.4"),
        (["-config", os.devnull], "version 1"),
    ],
)
def test_a_certificate_that_granian_cannot_use_is_refused(
    tmp_path: Path, words: list[str], problem: str
) -> None:
    need("openssl")
    made = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=localhost"]
    files = ["-keyout", str(made.key), "-out", str(made.chain)]
    subprocess.run([*command, *files, *words], check=True, capture_output=True, timeout=60)
    with pytest.raises(ConfigurationError, match=problem):
        made.check()


def test_a_certificate_that_ends_soon_is_a_warning(
    made: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    Certificate(made.certificate, made.key).warn()  # it is valid for a day
    assert f"the certificate {made.certificate} expires on" in caplog.text


def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "granian", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'private-pypi\[granian\]'"):
        engines.serve_of("granian")


def _curl(made: Certificates, *words: str) -> str:
    command = ["curl", "--silent", "--show-error", "--cacert", str(made.authority), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _issuer(server: Server, made: Certificates) -> str:
    """The name of the authority of the certificate that the server shows."""
    context = ssl.create_default_context(cafile=str(made.authority))
    plain = socket.create_connection((HOST, server.port), timeout=20)
    with plain, context.wrap_socket(plain, server_hostname=HOST) as sock:
        shown = sock.getpeercert()
    assert shown is not None
    return next(value for ((name, value),) in shown["issuer"] if name == "commonName")
