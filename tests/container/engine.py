"""`docker build` and `docker run` without Docker: buildah, podman with runc, a base of Debian's.

It needs root and Debian packages (see `tests.machine`), and keeps images below .cache/, so that
only what has changed is built again. Each test has a network of its own: ports are those of
the documents, nothing else listens there, and nothing outside can be reached.
"""

from __future__ import annotations

import configparser
import contextlib
import ctypes
import functools
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from filelock import FileLock

from tests import waiting
from tests.machine import need

CHECKOUT: Final = Path(__file__).parents[2]
IMAGE: Final = "localhost/private-pypi"

_CACHE: Final = CHECKOUT / ".cache" / "containers"
# What a restart of the machine makes void. Podman remembers the path, so it must not change.
_RUNNING: Final = Path("/run") / (
    f"private_pypi-containers-{hashlib.sha256(bytes(_CACHE)).hexdigest()[:12]}"
)
_SUITE: Final = "bookworm"
_PACKAGES: Final = ("python3", "python3-pip", "python3-venv")
_TIMEOUT: Final = 900  # seconds, for a build with everything that it downloads
_LOST: Final = "no such exit code"
_CONFUSED: Final = "container state improper"
_WAIT: Final = 90  # seconds until a container must do what is waited for
_CLONE_NEWNET: Final = 0x40000000


AGAIN: Final = pytest.mark.flaky(reruns=2, only_rerun=[_LOST, _CONFUSED])
"""For tests of containers. While the machine is busy, podman 4.3 may lose the exit code of a
container, or take one that serves for one that was never started. What the container did is known
to nobody then, so the test is repeated; it is not repeated for anything else."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


class Engine:
    """Images and containers of this checkout; containers have the network of `network`."""

    def __init__(self, podman: Path, buildah: Path, folder: Path) -> None:
        self._podman = podman
        self._buildah = buildah
        self._runc = need("runc")
        self._storage = [
            f"--root={_CACHE / 'storage'}",
            f"--runroot={_RUNNING / 'run'}",
            # Otherwise its folder is mounted upon itself, and stays so.
            "--storage-opt=overlay.skip_mount_home=true",
        ]
        self._tmp = _RUNNING / "tmp"
        self.folder = folder
        self.network: Path | None = None

    # -- commands --------------------------------------------------------------------------------

    def command(self, words: Sequence[str | Path]) -> list[str]:
        """What to run instead of `docker` with these words."""
        verb, *rest = map(str, words)
        inside = [] if self.network is None else ["nsenter", f"--net={self.network}"]
        if verb == "build":
            return [
                *(*inside, str(self._buildah), *self._storage),
                *("bud", "--isolation=chroot", "--format=docker", "--layers", "--pull-never"),
                *(f"--build-arg=BASE={self.base()}", *self._build_secrets(), *rest),
            ]
        podman = [
            *(*inside, str(self._podman), *self._storage, f"--tmpdir={self._tmp}"),
            *(f"--runtime={self._runc}", "--cgroup-manager=cgroupfs"),
        ]
        if verb == "run":
            limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
            # Unlike Docker's, podman's read-only containers have a writable /tmp.
            return [*podman, "run", "--network=host", "--read-only-tmpfs=false", *limits, *rest]
        return [*podman, verb, *rest]

    def docker(self, *words: str | Path, check: bool = True) -> Ended:
        """Run it to its end."""
        ended = subprocess.run(
            self.command(words),
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
        )
        out, err = (
            each.decode("utf-8", "backslashreplace") for each in (ended.stdout, ended.stderr)
        )
        # Without systemd podman complains that nothing will ask for the health by itself.
        lines = [line for line in err.splitlines(True) if "systemd" not in line]
        said = "".join(lines)
        if ended.returncode != 0 and (check or _LOST in said):
            raise RuntimeError(f"docker {words[0]} ended with {ended.returncode}:\n{out}\n{said}")
        return Ended(ended.returncode, out, said)

    def inspect(self, name: str) -> Any:
        """What is known of an image or a container."""
        [found] = json.loads(self.docker("inspect", name).out)
        return found

    # -- images ----------------------------------------------------------------------------------

    def base(self) -> str:
        """A base as small and as bare as the usual ones of Python; made on first use."""
        recipe = f"{_SUITE} {_PACKAGES} 1"
        tag = f"localhost/python:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
        if self.docker("image", "exists", tag, check=False).code == 0:
            return tag
        _CACHE.mkdir(parents=True, exist_ok=True)
        with FileLock(_CACHE / "base.lock"):
            if self.docker("image", "exists", tag, check=False).code != 0:
                self._make_base(tag)
        return tag

    def build(self) -> str:
        """The image of this checkout, as docs/container.md builds it."""
        _CACHE.mkdir(parents=True, exist_ok=True)
        with FileLock(_CACHE / "image.lock"):
            self.docker("build", "--file", "docker/Dockerfile", "--tag", IMAGE, ".")
            # What older sources left; a layer that is still of use is made again.
            self.docker("image", "prune", "--force", "--filter=until=72h")
        return IMAGE

    def _make_base(self, tag: str) -> None:
        debootstrap = need("debootstrap")
        with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
            root = Path(folder) / "root"
            bootstrap = ["--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, str(root)]
            subprocess.run([debootstrap, *bootstrap], check=True, stdout=subprocess.DEVNULL)
            for litter in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc"):
                shutil.rmtree(root / litter, ignore_errors=True)
            archive = Path(folder) / "root.tar"
            subprocess.run(["tar", "--directory", root, "-cf", archive, "."], check=True)
            # As in the usual images, pip may install into the system.
            self.docker("import", "--change=ENV PIP_BREAK_SYSTEM_PACKAGES=1", archive, tag)

    def _build_secrets(self) -> list[str]:
        """How this machine reaches a package index, as the secrets that the Dockerfile takes."""
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
        )
        options: dict[str, str] = {}
        for line in listed.stdout.splitlines():
            name, _, value = line.partition("=")
            options[name.rpartition(".")[2]] = value.strip("'")
        arguments = []
        if certificate := options.get("cert") or os.environ.get("SSL_CERT_FILE"):
            arguments.append(f"--secret=id=ca.crt,src={certificate}")
        config = configparser.RawConfigParser()
        config["global"] = {
            name: value
            for name, value in options.items()
            if name in ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
            and "file:" not in value  # a folder of this machine is none inside
        }
        path = self.folder / "pip.conf"
        with path.open("w") as file:
            config.write(file)
            file.write(f"# {self.marker}\n")
        return [*arguments, f"--secret=id=pip.conf,src={path}"]

    marker: Final = f"only-in-a-secret-{hashlib.sha256(bytes(_CACHE)).hexdigest()[:20]}"
    """Stands in pip's configuration, and must stand nowhere else."""


@dataclass
class Container:
    """A container that runs until it is stopped; it leaves nothing but its volumes."""

    engine: Engine
    name: str
    process: subprocess.Popen[bytes]
    log_path: Path
    pid_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        """Until the log has this text."""
        eventually(lambda: text in self.log or self.process.poll() is not None, lambda: self.log)
        assert text in self.log, self.log

    def execute(self, *words: str) -> Ended:
        """Run something inside."""
        return self.engine.docker("exec", self.name, *words, check=False)

    def health(self) -> int:
        """The exit code of the image's own check of health."""
        return self.engine.docker("healthcheck", "run", self.name, check=False).code

    def signal(self, name: str = "TERM") -> None:
        self.engine.docker("kill", f"--signal={name}", self.name)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        code = self.process.wait(timeout=_WAIT)
        if _LOST in self.log:
            raise RuntimeError(self.log)
        return code

    def stop(self) -> int:
        """As `docker stop` does; the exit code."""
        self.signal()
        return self.wait()

    def remove(self) -> None:
        """End it, if it has not ended, also if podman takes it for one that does not run."""
        if self.process.poll() is not None:
            return
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(self.pid_path.read_text()), signal.SIGKILL)
        self.engine.docker("rm", "--force", "--volumes", self.name, check=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=_WAIT)
        self.process.kill()


@dataclass
class Machine:
    """A network of its own with containers in it; what runs at the end of a test is removed."""

    engine: Engine
    folder: Path
    network: Path  # the file that stands for it
    _started: list[Container]

    def start(self, *words: str | Path) -> Container:
        """`docker run` with these words, which are options, the image and its arguments."""
        name = f"test-{secrets.token_hex(6)}"
        log_path = self.folder / f"{name}.log"
        pid_path = self.folder / f"{name}.pid"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                self.engine.command(["run", "--rm", "--name", name, "--pidfile", pid_path, *words]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        container = Container(self.engine, name, process, log_path, pid_path)
        self._started.append(container)
        return container

    def serve(self, *words: str | Path, url: str = "http://0.0.0.0:8888") -> Container:
        """The same for a server, which serves when this returns."""
        container = self.start(*words)
        container.wait_for(f"private_pypi serves {url}")
        return container

    @property
    def inside(self) -> tuple[str, ...]:
        """What to put before a command that shall use this network."""
        return ("nsenter", f"--net={self.network}")

    def connect(self, port: int = 8888) -> socket.socket:
        """A connection to a container; it stays in that network wherever it is used."""
        return self._in_network(
            lambda: socket.create_connection(("127.0.0.1", port), timeout=_WAIT)
        )

    def _in_network(self, call: Callable[[], socket.socket]) -> socket.socket:
        made: list[socket.socket | Exception] = []

        def enter() -> None:
            # A thread may have a network of its own, and this one ends with the call.
            try:
                with self.network.open("rb") as namespace:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                made.append(call())
            except Exception as error:
                made.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if isinstance(made[0], Exception):
            raise made[0]
        return made[0]


eventually = functools.partial(waiting.eventually, within=_WAIT)


def make_engine(folder: Path) -> Engine:
    """The engine; skips the test where there can be none."""
    if os.geteuid() != 0:
        message = "needs root: containers are built and run"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    need("nsenter")
    need("conmon")
    return Engine(need("podman"), need("buildah"), folder)


@contextlib.contextmanager
def machine_in(engine: Engine, folder: Path) -> Iterator[Machine]:
    with _network() as network:
        engine.network = network
        machine = Machine(engine, folder, network, [])
        try:
            yield machine
        finally:
            for container in machine._started:
                container.remove()
                print(f"--- {container.name}\n{container.log}")  # shown when the test failed
            engine.network = None


@contextlib.contextmanager
def _network() -> Iterator[Path]:
    """A network that is nothing but a loopback; it is gone with the process that holds it."""
    held = f"{need('ip')} link set lo up && echo && exec cat"
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        yield Path(f"/proc/{holder.pid}/ns/net")
        holder.stdin.close()


def forget_running() -> None:
    """Remove what podman keeps while containers run; no container of this checkout may run."""
    shutil.rmtree(_RUNNING, ignore_errors=True)
