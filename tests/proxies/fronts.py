"""nginx and Caddy as the recipes have them, on loopback and with the certificates of a test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.ports import free_port
from tests.machine import need

from .authority import Certificates

CHECKOUT: Final = Path(__file__).parents[2]
RECIPES: Final[Mapping[tuple[str, str], Path]] = {
    ("caddy", ""): CHECKOUT / "docker" / "Caddyfile",
    ("caddy", "/pypi"): CHECKOUT / "docker" / "proxies" / "prefix.Caddyfile",
    ("nginx", ""): CHECKOUT / "docker" / "proxies" / "nginx.conf",
    ("nginx", "/pypi"): CHECKOUT / "docker" / "proxies" / "prefix.nginx.conf",
}
"""(proxy, prefix) -> its configuration, as users copy it."""
BALANCER: Final = CHECKOUT / "docker" / "replicas" / "Caddyfile"

_START = 60  # seconds until a proxy must answer

# What nginx needs around a file of its conf.d/: nothing is written outside of the test's folder.
_NGINX = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr info;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""
_CADDY = """\
{{
	admin off
	auto_https off
	skip_install_trust
}}
"""


@dataclass(frozen=True, slots=True)
class Front:
    """A proxy that runs."""

    kind: str
    port: int
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


@contextlib.contextmanager
def running_front(
    kind: str, prefix: str, folder: Path, certificates: Certificates, upstream: int
) -> Iterator[Front]:
    """A recipe with its ports and certificates replaced, until the block ends."""
    folder.mkdir()
    port = free_port()
    recipe = RECIPES[kind, prefix].read_text()
    make = {"nginx": _nginx, "caddy": _caddy}[kind]
    with _running(kind, make(recipe, folder, certificates, port, upstream), folder, port) as front:
        yield front


@contextlib.contextmanager
def running_balancer(folder: Path, upstreams: Sequence[int]) -> Iterator[Front]:
    """The proxy of docker/compose.replicas.yaml, without TLS, before the servers on these ports."""
    folder.mkdir()
    port = free_port()
    site = replaced(
        BALANCER.read_text(),
        {
            "{$PYPI_HOST:localhost} {": f"http://127.0.0.1:{port} {{\n\tbind 127.0.0.1",
            "{$PYPI_UPSTREAMS:127.0.0.1:8888}": " ".join(f"127.0.0.1:{each}" for each in upstreams),
        },
    )
    with _running("caddy", _run_caddy(folder, site), folder, port) as front:
        yield front


@contextlib.contextmanager
def _running(kind: str, command: Sequence[str], folder: Path, port: int) -> Iterator[Front]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    front = Front(kind, port, folder)
    try:
        deadline = time.monotonic() + _START
        while not _listens(port):
            assert process.poll() is None, front.log
            assert time.monotonic() < deadline, front.log
            time.sleep(0.02)
        yield front
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=_START)
        print(f"--- {kind}\n{front.log}")  # shown when the test failed


def _nginx(
    recipe: str, folder: Path, certificates: Certificates, port: int, upstream: int
) -> list[str]:
    site = replaced(
        recipe,
        {
            "127.0.0.1:8888": f"127.0.0.1:{upstream}",
            "listen 443": f"listen 127.0.0.1:{port}",
            "/etc/ssl/certs/pypi.example.org.pem": str(certificates.certificate),
            "/etc/ssl/private/pypi.example.org.key": str(certificates.key),
        },
    )
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder))
    nginx = need("nginx")
    return [str(nginx), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _caddy(
    recipe: str, folder: Path, certificates: Certificates, port: int, upstream: int
) -> list[str]:
    # `auto_https off`: no authority of Caddy's own, which it would add to those of this machine.
    tls = f"tls {certificates.certificate} {certificates.key}"
    site = replaced(
        recipe,
        {
            "{$PYPI_HOST:localhost} {": f"https://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n\t{tls}",
            "{$PYPI_UPSTREAM:127.0.0.1:8888}": f"127.0.0.1:{upstream}",
        },
    )
    return _run_caddy(folder, site)


def _run_caddy(folder: Path, site: str) -> list[str]:
    (folder / "Caddyfile").write_text(_CADDY.format() + site)
    caddy = Path(sys.executable).with_name("caddy")
    return [str(caddy), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def replaced(text: str, places: Mapping[str, str]) -> str:
    """The text with each of these places, which it has once, replaced."""
    for old, new in places.items():
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in the text"
        text = text.replace(old, new)
    return text


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
