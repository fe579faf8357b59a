"""What docker/compose.replicas.yaml starts, as processes: a store, three servers, the proxy.

The command of the servers, their configuration and that of the proxy are those of the files; only
addresses, paths and the interval of synchronising are replaced.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import requests
from ruamel.yaml import YAML

from benchmarks.ports import free_port
from tests.faults.servers import INTERVAL, READER, WRITER, Server, Servers, servers_below
from tests.object_storage.running import BUCKET
from tests.object_storage.seaweed import WRITER as STORE_KEY
from tests.object_storage.seaweed import Seaweed
from tests.proxies.fronts import CHECKOUT, Front, replaced, running_balancer
from tests.waiting import eventually

COMPOSE: Final = CHECKOUT / "docker" / "compose.replicas.yaml"
CONFIG: Final = CHECKOUT / "docker" / "replicas" / "config.toml"
ROOT: Final = "/private-pypi-root"  # of a container
SECRETS: Final = "/run/secrets"  # the same
COUNT: Final = 3

_NOTICED = 1.5  # seconds after which the proxy has asked every server again


def compose_file() -> Any:
    """docker/compose.replicas.yaml, with its anchors resolved."""
    return YAML(typ="safe").load(COMPOSE)


def server_services() -> dict[str, Any]:
    """The services of the file that are servers of ours."""
    services: dict[str, Any] = compose_file()["services"]
    return {name: each for name, each in services.items() if each["image"] == "private-pypi"}


@dataclass
class Replicas:
    """The servers, each with a ROOT and a port of its own, and the proxy before them."""

    servers: Servers
    folder: Path
    config: str
    flags: tuple[str, ...]
    ports: tuple[int, ...]
    running: list[Server] = field(default_factory=list)
    front: Front | None = None

    @property
    def url(self) -> str:
        """The address of the proxy."""
        assert self.front is not None
        return f"http://127.0.0.1:{self.front.port}"

    def start(self, number: int) -> None:
        """Start a server, and wait until it is ready."""
        server = self.servers.start(
            self.folder / f"root-{number}",
            self.config,
            port=self.ports[number],
            flags=self.flags,
            environ={"HOME": str(self.folder)},
        )
        if number == len(self.running):
            self.running.append(server)
        else:
            self.running[number] = server
        eventually(lambda: is_ready(server), lambda: f"ready: {server.log}", within=60)

    def kill_for(self, seconds: float, at_least: int = 1) -> int:
        """Kill a server, or two, and start them again, for so long; how many were killed.

        On a busy machine it goes on until so many were.
        """
        choose = random.Random(14)
        end = time.monotonic() + seconds
        killed = 0
        while time.monotonic() < end or killed < at_least:
            time.sleep(choose.uniform(0.5, 1.5))
            chosen = choose.sample(range(COUNT), choose.choice((1, 1, 2)))
            for number in chosen:
                self.running[number].kill()
            time.sleep(choose.uniform(0.0, 1.0))
            for number in chosen:
                self.start(number)
            killed += len(chosen)
        return killed

    def restart(self, number: int) -> None:
        """End a server as an operator does, and start it again; the proxy uses it afterwards."""
        assert self.running[number].stop() == 0
        self.start(number)
        time.sleep(_NOTICED)


def is_ready(server: Server) -> bool:
    """Whether the server says that it can be used."""
    with contextlib.suppress(requests.ConnectionError):
        return server.status("/health/ready", auth=None, headers={}) == 200
    return False


@contextlib.contextmanager
def replicas(folder: Path, store: Seaweed, *, interval: float = INTERVAL) -> Iterator[Replicas]:
    """The whole setting over a new part of the bucket; its processes end with the block."""
    with prepared(folder, store, secrets.token_hex(8), interval=interval) as made:
        for number in range(COUNT):
            made.start(number)
        with running_balancer(folder / "proxy", made.ports) as made.front:
            yield made


@contextlib.contextmanager
def prepared(folder: Path, store: Seaweed, prefix: str, *, interval: float) -> Iterator[Replicas]:
    """The same over a part of the bucket, before anything was started."""
    own = folder / "secrets"
    own.mkdir(parents=True)
    for name, secret in (
        ("read_secret", READER[1]),
        ("write_secret", WRITER[1]),
        ("store_secret", STORE_KEY[1]),
        ("session_key", secrets.token_hex(32)),
    ):
        (own / name).write_text(f"{secret}\n")
    config = replaced(
        CONFIG.read_text(),
        {
            "s3://packages/mine": f"s3://{BUCKET}/{prefix}",
            "http://store:8333": store.url,
            '"private-pypi"': f'"{STORE_KEY[0]}"',
            "sync_index_interval = 5": f"sync_index_interval = {interval}",
        },
    ).replace(SECRETS, str(own))
    (command,) = {tuple(each["command"]) for each in server_services().values()}
    verb, root, *flags = command
    assert (verb, root) == ("server", ROOT)
    flags.remove(f"--config={SECRETS}/config.toml")
    with servers_below(folder) as servers:
        yield Replicas(
            servers,
            folder,
            config,
            tuple(flag.replace(SECRETS, str(own)) for flag in flags),
            tuple(free_port() for _ in range(COUNT)),
        )
