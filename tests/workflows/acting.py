"""Runs workflows with act, on this machine and without containers, as a job of a fake GitHub.

Services are not started by it: whoever runs a workflow that has one serves its port. The actions
of others are stand-ins from `actions/`, except actions/checkout, which act knows itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from filelock import FileLock
from ruamel.yaml import YAML

from tests.clients.environments import LOCKS
from tests.faults.servers import Server
from tests.github.fake import FakeGitHub

CHECKOUT: Final = Path(__file__).parents[2]
WORKFLOWS: Final = CHECKOUT / "workflows"
EXAMPLES: Final = CHECKOUT / "docs" / "examples" / "ci"
STAND_INS: Final = Path(__file__).parent / "actions"
TOOLS: Final = Path(sys.executable).parent

_TIMEOUT = 600  # seconds; a job that hangs is a failure

# act reads what a step writes from a terminal, and sometimes loses the last lines when the step
# ends at once after them. So the step lasts a moment longer.
_BASH = """#!/bin/sh
/bin/bash "$@"
code=$?
sleep 0.3
exit $code
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, and what it wrote."""

    code: int
    output: str


@dataclass(frozen=True, slots=True)
class Project:
    """A repository whose workflows are run; `folder` is its checkout, `origin` OWNER/NAME."""

    folder: Path
    origin: str
    github: FakeGitHub

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Put these files there, and commit them."""
        if not (self.folder / ".git").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._git("init", "--quiet", "--initial-branch=main")
            self._git("remote", "add", "origin", f"https://github.com/{self.origin}.git")
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message=Change")

    def run(
        self,
        workflow: str,
        *,
        event: str = "workflow_dispatch",
        token: str,
        secrets: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        local: Mapping[str, Path] | None = None,
        payload: Mapping[str, object] | None = None,
        inputs: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run .github/workflows/WORKFLOW; `token` is the GITHUB_TOKEN of its jobs.

        `payload` is `github.event`, without the inputs of a workflow that somebody starts.
        `local`: further actions by OWNER/REPO@REF, and where they are. What the jobs leave running
        is ended with them, as GitHub does.
        """
        run = uuid4().hex
        work = self.folder.parent / "work"
        work.mkdir(exist_ok=True)
        event_payload = {**(payload or {}), **({"inputs": dict(inputs)} if inputs else {})}
        (work / "event.json").write_text(json.dumps(event_payload))
        programs = work / "bin"
        programs.mkdir(exist_ok=True)
        (programs / "bash").write_text(_BASH)
        (programs / "bash").chmod(0o755)
        stand_ins = _stand_ins((self.folder / ".github" / "workflows").glob("*.yml"))
        variables = {
            "GITHUB_API_URL": self.github.api_url,
            "TESTS_PYTHON": str(runner_python()),
            "TESTS_ARTIFACTS": str(work / "artifacts"),
            **(env or {}),
        }
        command: list[str | Path] = [
            *(TOOLS / "act", event, f"--workflows=.github/workflows/{workflow}"),
            *("--platform=ubuntu-latest=-self-hosted", "--no-cache-server"),
            *(f"--eventpath={work / 'event.json'}", f"--secret=GITHUB_TOKEN={token}"),
            *(f"--secret={name}={value}" for name, value in (secrets or {}).items()),
            *(f"--env={name}={value}" for name, value in variables.items()),
            *(
                f"--local-repository={name}={path}"
                for name, path in {**stand_ins, **(local or {})}.items()
            ),
        ]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=machine()
            | {
                "HOME": str(work),
                "PATH": f"{programs}:{os.environ['PATH']}",
                "XDG_CACHE_HOME": str(work / "cache"),
                "TESTS_RUN": run,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            output, _ = process.communicate(timeout=_TIMEOUT)
        finally:
            process.kill()  # when it hangs
            _end_orphans(run)
            process.wait()
        # Colours and cursor movements of the tools within.
        return Outcome(process.returncode, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.decode()))

    def _git(self, *arguments: str) -> None:
        subprocess.run(
            [
                *("git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.invalid"),
                *("-c", "commit.gpgsign=false", *arguments),
            ],
            cwd=self.folder,
            check=True,
            capture_output=True,
        )


@contextmanager
def service(workflow: Path, job: str, folder: Path, github: FakeGitHub) -> Iterator[Server]:
    """The server of a job's service on a port of this machine, with the service's environment."""
    services = YAML(typ="safe").load(workflow)["jobs"][job]["services"]
    variables = {
        name: value.replace("${{ github.api_url }}", github.api_url)
        for name, value in services["private-pypi"]["env"].items()
    }
    with serving(variables, folder) as server:
        yield server


@contextmanager
def serving(variables: Mapping[str, str], folder: Path) -> Iterator[Server]:
    """The server that the image would run with these variables."""
    folder.mkdir()
    root, log_path = folder / "root", folder / "server.log"
    settings = {
        **variables,
        # The image has a folder for it, and listens on every address of its own.
        "PRIVATE_PYPI_COMMAND_ROOT": str(root),
        "PRIVATE_PYPI_COMMAND_HOST": "127.0.0.1",
        "PRIVATE_PYPI_COMMAND_PORT": "0",
    }
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [TOOLS / "private_pypi"],
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = Server(process, root, log_path)
    try:
        server.wait_until_it_serves()
        yield server
        assert (server.stop(), "Traceback" in server.log) == (0, False), server.log
    finally:
        if process.poll() is None:
            server.kill()


def wheel_of_ourselves(folder: Path) -> Path:
    """A wheel of this project, as it is."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    [wheel] = folder.iterdir()
    return wheel


def dependencies_of_ourselves(folder: Path) -> Path:
    """What this project needs, without the project itself: it is what a workflow installs."""
    (site,) = (Path(sys.prefix) / "lib").glob("python*/site-packages")
    for path in site.iterdir():
        if not path.name.lower().lstrip("_").startswith(("private_pypi", "editable", "__pyca")):
            (folder / path.name).symlink_to(path)
    return folder


def _stand_ins(workflows: Iterator[Path]) -> dict[str, Path]:
    """Each pin of an action of GitHub that these workflows name -> what stands in for it."""
    pins = {
        pin
        for workflow in workflows
        for pin in re.findall(r"uses: (actions/[\w-]+@[0-9a-f]{40})", workflow.read_text())
    }
    return {
        pin: folder
        for pin in pins
        if (folder := STAND_INS / pin.split("/")[1].split("@")[0]).is_dir()
    }


def runner_python() -> Path:
    """A virtual environment to copy, which has pip and the locked uv; made on first use.

    So a job that installs uv finds it there, and pip says so.
    """
    lock = LOCKS / "uv.txt"
    facts = lock.read_bytes() + sys.version.encode()
    environment = CHECKOUT / ".cache" / "runner" / hashlib.sha256(facts).hexdigest()[:12]
    environment.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(environment.with_suffix(".lock")):
        done = environment / "installed"
        if not done.exists():
            venv.create(environment, clear=True, symlinks=True, with_pip=True)
            subprocess.run(
                [
                    *(environment / "bin" / "python", "-m", "pip", "install", "--quiet"),
                    *("--disable-pip-version-check", "--require-hashes", f"--requirement={lock}"),
                ],
                check=True,
            )
            done.touch()
    return environment


def machine() -> dict[str, str]:
    """The environment of this machine without what would point pip, uv or curl elsewhere.

    What a registry is reached by (certificates, proxies, the user's configuration of pip) stays:
    jobs install their tools.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "UV_", "GITHUB_", "PRIVATE_PYPI_", "NETRC"))
        or name in ("PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_CONFIG_FILE", "UV_SYSTEM_CERTS")
    }
    configuration = Path.home() / ".config" / "pip" / "pip.conf"
    if configuration.exists():
        kept.setdefault("PIP_CONFIG_FILE", str(configuration))
    return {**kept, "PIP_CACHE_DIR": str(CHECKOUT / ".cache" / "pip")}


def _end_orphans(run: str) -> None:
    """Kill what a run has left: its processes have the variable TESTS_RUN, as those of GitHub's
    runner have RUNNER_TRACKING_ID."""
    mark = f"TESTS_RUN={run}".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environ.read_bytes().split(b"\0"):
                os.kill(int(environ.parent.name), signal.SIGKILL)
        except OSError:  # it has ended meanwhile, or is somebody else's
            continue
