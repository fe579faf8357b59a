"""docs/container.md: its commands are run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_pypi.testing.distributions import make_wheel
from tests.faults.servers import read_answer, upload_request

from .engine import AGAIN, CHECKOUT, Machine, eventually

pytestmark = [pytest.mark.needs("containers"), AGAIN]

DOCUMENT = (CHECKOUT / "docs" / "container.md").read_text()
CONFIG = '[mine]\ntype = "file_system"\nread_secret = "r"\nwrite_secret = "w"\n'
ADMIN_SECRET = '[mine]\ntype = "file_system"\nraw = "r"\n'
INDEX = "https://pypi.example.org/"


def blocks(language: str, having: str = "") -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    return [each for each in found if having in each]


def commands(having: str) -> str:
    """What a reader types of the one block that has this."""
    [block] = blocks("console", having)
    return re.sub(r"^\$ ", "", block, flags=re.MULTILINE)


class Shell:
    """A folder with the files that the document speaks of, and a program `docker`."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        (folder / "config.toml").write_text(CONFIG)
        (folder / "admin_secret.toml").write_text(ADMIN_SECRET)
        docker = folder / "bin" / "docker"
        docker.parent.mkdir()
        cases = (
            f'{verb}) shift; exec {shlex.join(machine.engine.command([verb]))} "$@";;'
            for verb in ("build", "run")
        )
        anything = shlex.join(machine.engine.command(["stop"])[:-1])
        docker.write_text(f'#!/bin/sh\ncase $1 in {" ".join(cases)} esac\nexec {anything} "$@"\n')
        docker.chmod(0o755)

    def run(self, script: str, cwd: Path | None = None) -> str:
        """Both streams; the first command that fails fails the test."""
        ended = subprocess.run(
            ["sh", "-eu", "-c", script],
            cwd=cwd or self.folder,
            env={"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "HOME": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        said = ended.stdout.decode(errors="replace")
        assert ended.returncode == 0, said
        return said


@pytest.fixture
def shell(machine: Machine, tmp_path: Path) -> Iterator[Shell]:
    folder = tmp_path / "folder"
    folder.mkdir()
    yield Shell(machine, folder)
    for name in ("private-pypi", "private-pypi-service"):
        machine.engine.docker("rm", "--force", "--volumes", name, check=False)
    machine.engine.docker("volume", "rm", "--force", "private-pypi-root", check=False)


def test_every_block_is_run_by_some_test() -> None:
    known = ("--file docker/Dockerfile", "--help", "--read-only", "--env", "docker stop", "netrc")
    assert len(blocks("console")) == len(known)
    assert all(commands(each) for each in known)


def test_build_run_and_stop(shell: Shell) -> None:
    shell.run(commands("--file docker/Dockerfile"), cwd=CHECKOUT)
    said = shell.run(commands("--help"))
    assert "SUPPORTED COMMANDS" in said
    assert "private_pypi github.init_pkg_repo" in said
    shell.run(commands("--read-only"))
    shell.run(commands("--env"))
    for name, port in (("private-pypi", 8888), ("private-pypi-service", 9000)):
        eventually(
            lambda name=name: (
                shell.machine.engine.docker("healthcheck", "run", name, check=False).code == 0
            )
        )
        with shell.machine.connect(port) as connection:
            connection.sendall(b"GET /health/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(connection)[0] == 200
    shell.run("docker stop --time 35 private-pypi-service")
    shell.run(commands("docker stop"))


def test_an_image_of_ones_own_has_the_package_and_not_the_secret(shell: Shell) -> None:
    machine = shell.machine
    secret = "only-in-the-netrc"
    (shell.folder / "config.toml").write_text(CONFIG.replace('"r"', f'"{secret}"'))
    server = machine.serve(
        *("-v", f"{shell.folder}/config.toml:/config.toml:ro"),
        *("private-pypi", "server", "/private-pypi-root", "--config=/config.toml"),
    )
    filename, content = make_wheel("your-project", "1.0", files={"your_project.py": b""})
    with machine.connect() as connection:
        connection.sendall(b"".join(upload_request(filename, content)))
        assert read_answer(connection)[0] == 200

    [dockerfile] = blocks("dockerfile")
    assert dockerfile.count(INDEX) == 1
    text = re.sub(r"^FROM .*", f"FROM {machine.engine.base()}", dockerfile)
    (shell.folder / "Dockerfile").write_text(text.replace(INDEX, "http://127.0.0.1:8888/"))
    (shell.folder / ".netrc").write_text(f"machine 127.0.0.1 login mine password {secret}\n")
    (shell.folder / ".dockerignore").write_text(".netrc\nconfig.toml\n")
    shell.run(commands("netrc"))
    script = "import your_project, sys; print(your_project.__name__)"
    ran = machine.engine.docker("run", "--rm", "your-image", "python3", "-c", script)
    assert ran.out == "your_project\n"
    history = machine.engine.docker("history", "--no-trunc", "--format=json", "your-image").out
    assert secret not in history + str(machine.engine.inspect("your-image"))
    found = machine.engine.docker(
        "run",
        "--rm",
        "your-image",
        "grep",
        "-rlF",
        secret,
        "/etc",
        "/run",
        "/usr",
        "/var",
        check=False,
    )
    assert found.out == ""
    assert server.stop() == 0
