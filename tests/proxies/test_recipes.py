"""The recipes of docs/proxies.md with real proxies, real clients, TLS, and with a path prefix."""

from __future__ import annotations

import os
import re
import shlex
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter

from private_pypi.testing.distributions import encode_multipart, form_for, make_wheel
from tests.clients.conftest import client, target
from tests.clients.environments import Client
from tests.clients.installers import install, installed
from tests.clients.publishers import publish, sent_files
from tests.clients.releases import Release
from tests.clients.serving import Repository
from tests.faults.servers import (
    READER,
    WRITER,
    Server,
    servers_below,
    sha256,
    table,
    temporary_files,
    upload_request,
)
from tests.waiting import eventually

from .authority import Certificates, make_certificates
from .fronts import CHECKOUT, RECIPES, Front, running_front

__all__ = ["client", "target"]

pytestmark = pytest.mark.needs("nginx", "caddy")

DOCUMENT = (CHECKOUT / "docs" / "proxies.md").read_text()
LARGEST = 12 * 2**20  # bytes; the largest file of these repositories
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Site:
    """A server with a proxy before it."""

    front: Front
    server: Server
    prefix: str
    certificates: Certificates

    @property
    def origin(self) -> str:
        return f"https://{HOST}:{self.front.port}{self.prefix}"

    @property
    def repository(self) -> Repository:
        return Repository(self.origin, "mine", read_secret="r", write_secret="w")

    def trusting(self, client: Client) -> Client:
        """The client, trusting the authority of the proxy's certificate."""
        names = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
        return replace(client, variables=dict.fromkeys(names, str(self.certificates.authority)))

    def session(self, address: str = HOST) -> requests.Session:
        """Requests of a reader who comes from that address of this machine."""

        class From(HTTPAdapter):
            def init_poolmanager(self, *arguments: object, **more: object) -> None:
                more["source_address"] = (address, 0)
                super().init_poolmanager(*arguments, **more)  # type: ignore[no-untyped-call]

        session = requests.Session()
        session.trust_env = False
        session.verify = str(self.certificates.authority)
        session.auth = READER
        session.mount("https://", From())
        return session

    def connect(self) -> ssl.SSLSocket:
        """A connection on which HTTP/1.1 is spoken."""
        context = ssl.create_default_context(cafile=str(self.certificates.authority))
        plain = socket.create_connection((HOST, self.front.port), timeout=30)
        return context.wrap_socket(plain, server_hostname=HOST)


def flags_of(prefix: str) -> list[str]:
    """How the document starts a server for this place, without its port."""
    [words] = [
        shlex.split(line.replace("\\\n", " "))
        for line in re.findall(r"\$ private_pypi server ((?:.*\\\n)*.*)", DOCUMENT)
        if ("--url_prefix" in line) == bool(prefix)
    ]
    root, config, host, *flags = words  # the first three the server of a test has anyway
    assert (root, config, host) == ("ROOT", "--config=config.toml", "--host=127.0.0.1")
    return flags


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


NAMES = [f"{kind}-{prefix.strip('/') or 'root'}" for kind, prefix in RECIPES]


@pytest.fixture(scope="module", params=list(RECIPES), ids=NAMES)
def site(
    request: pytest.FixtureRequest,
    certificates: Certificates,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """The server as the document starts it, behind one of its recipes."""
    kind, prefix = request.param
    folder = tmp_path_factory.mktemp("site")
    config = table(max_file_bytes=LARGEST) + table("other")
    with servers_below(folder) as servers:
        server = servers.start(folder / "root", config, flags=flags_of(prefix))
        with running_front(kind, prefix, folder / "front", certificates, server.port) as front:
            yield Site(front, server, prefix, certificates)


def test_the_document_shows_what_runs_here() -> None:
    blocks = re.findall(r"```[a-z]*\n(.*?)```", DOCUMENT, re.DOTALL)
    shown = {block for block in blocks if "reverse_proxy" in block or "proxy_pass" in block}
    assert shown == {path.read_text() for path in RECIPES.values()}


@pytest.mark.parametrize(("publisher", "installer"), [("twine", "pip"), ("uv", "uv")])
def test_what_is_published_through_a_proxy_is_installed_through_it(
    site: Site, client: Callable[[str], Client], target: Path, publisher: str, installer: str
) -> None:
    release = Release(name=f"demo-{publisher}-{installer}".replace("-", "_"))
    user = site.trusting(client(publisher))
    sent = publish(user, release, site.repository)
    assert sent.code == 0, sent.output
    published = site.server.listed(release.name.replace("_", "-"))
    assert published == sent_files(user)
    indexes = [site.repository.readable()]
    got = install(site.trusting(client(installer)), indexes, release.name, target)
    assert got.code == 0, got.output
    assert installed(target)[release.name] == "1.0"


def test_redirects_and_links_stay_below_the_address_of_the_proxy(site: Site) -> None:
    filename, content = make_wheel("Linked", "1.0")
    site.server.publish(filename, content)
    session = site.session()
    page = session.get(f"{site.repository.index_url}Linked", headers={"Accept": "text/html"})
    assert (page.status_code, page.url) == (200, f"{site.repository.index_url}linked/")
    assert page.history
    hrefs = re.findall(r'href="([^"]+)"', page.text)
    assert hrefs
    for href in hrefs:
        assert urljoin(page.url, href).startswith(f"{site.origin}/")
    file = session.get(urljoin(page.url, hrefs[0]))
    assert (file.content, file.headers["Content-Length"]) == (content, str(len(content)))
    part = session.get(urljoin(page.url, hrefs[0]), headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    again = session.get(page.url, headers={"If-None-Match": page.headers["ETag"]})
    assert again.status_code == 304
    if site.prefix:
        beside = session.get(f"https://{HOST}:{site.front.port}/simple/")
        assert beside.status_code in (403, 404)  # what else there is on that host
        bare = session.get(site.origin, allow_redirects=False)
        assert urlsplit(urljoin(site.origin, bare.headers["Location"])).path == f"{site.prefix}/"


def test_the_server_knows_the_client_and_believes_only_the_proxy(site: Site) -> None:
    filename, content = make_wheel("known", "1.0")
    session = site.session("127.0.0.77")
    session.auth = WRITER
    content_type, body = encode_multipart(form_for(filename, content), filename, content)
    forged = {"X-Forwarded-For": "192.0.2.66", "Forwarded": "for=192.0.2.66"}
    answer = session.post(
        site.repository.upload_url, data=body, headers={"Content-Type": content_type} | forged
    )
    assert answer.status_code == 200, answer.text

    def is_told() -> bool:
        lines = [line for line in site.server.log.splitlines() if filename in line]
        return any("127.0.0.77" in line for line in lines)

    eventually(is_told, lambda: f"a line of the log: {site.server.log}")
    assert "192.0.2.66" not in site.server.log


def test_an_upload_streams_through(site: Site) -> None:
    filename, content = make_wheel("streamed", "1.0", files={"random": os.urandom(8 * 2**20)})
    head, body = upload_request(filename, content)
    head = head.replace(b"POST /", f"POST {site.prefix}/".encode(), 1)
    head = head.replace(b"Host: localhost", f"Host: {HOST}:{site.front.port}".encode(), 1)
    half = len(body) // 2
    with site.connect() as connection:
        connection.sendall(head + body[:half])
        # The server has begun to write what the client has not ended to send.
        eventually(
            lambda: any(each.stat().st_size > half // 2 for each in _parts(site)), "a first part"
        )
        connection.sendall(body[half:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    assert site.server.listed("streamed") == {filename: sha256(content)}
    spooled = [path for path in site.front.folder.rglob("*") if path.stat().st_size > 2**20]
    assert spooled == []


def _parts(site: Site) -> list[Path]:
    return temporary_files(site.server.root)


@pytest.mark.parametrize("publisher", ["twine", "uv"])
@pytest.mark.parametrize(
    ("secret", "size", "said"),
    [
        ("wrong", LARGEST - 2**20, "unknown repository or wrong secret"),
        ("w", LARGEST + 2**20, str(LARGEST)),
    ],
    ids=["401", "413"],
)
def test_clients_hear_why_a_large_file_is_refused(
    site: Site,
    client: Callable[[str], Client],
    publisher: str,
    secret: str,
    size: int,
    said: str,
) -> None:
    user = site.trusting(client(publisher))
    dist = user.home / "large"
    dist.mkdir()
    filename, content = make_wheel("large", "1.0", files={"random": os.urandom(size)})
    (dist / filename).write_bytes(content)
    ended = {
        "twine": lambda: user.run(
            *("upload", "--non-interactive", "--disable-progress-bar", "--verbose"),
            *("--repository-url", site.repository.upload_url),
            *("--username", "mine", "--password", secret, dist / filename),
        ),
        "uv": lambda: user.run(
            *("publish", "--trusted-publishing", "never"),
            *("--publish-url", site.repository.upload_url),
            *("--username", "mine", "--password", secret, dist / filename),
        ),
    }[publisher]()
    assert ended.code != 0
    assert said in ended.text
    # It was told once, and not after a row of broken connections.
    assert "retry" not in ended.text.lower()
    assert site.server.listed("large") == {}
