"""The image: what is in it, and how it runs, locked down and in each way that 0.2 had."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest
from packaging.requirements import Requirement

from private_pypi import __version__
from private_pypi.testing.distributions import make_wheel
from tests.clients.conftest import client, target
from tests.clients.environments import Client
from tests.clients.installers import install, installed
from tests.clients.publishers import publish
from tests.clients.releases import Release
from tests.clients.serving import Repository
from tests.faults.servers import get_request, read_answer, upload_request
from tests.machine import need
from tests.oci.registries import write_config, write_passwords
from tests.oci.test_root_addresses import namespace_at

from .engine import AGAIN, CHECKOUT, IMAGE, Container, Engine, Machine, eventually

__all__ = ["client", "target"]

pytestmark = [pytest.mark.needs("containers"), AGAIN]

CONFIG = '[mine]\ntype = "file_system"\nread_secret = "r"\nwrite_secret = "w"\n'
ADMIN_SECRET = '[mine]\ntype = "file_system"\nraw = "r"\n'
MINE = Repository("http://127.0.0.1:8888", "mine", read_secret="r", write_secret="w")
LOCKED_DOWN = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
LARGEST = 140 * 2**20  # bytes that the image may have beyond its base; 122 MiB at first


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with config.toml and admin_secret.toml."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG)
    (folder / "admin_secret.toml").write_text(ADMIN_SECRET)
    return folder


@pytest.fixture
def volume(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """The name of a volume for ROOT."""
    name = f"root-of-{tmp_path.parent.name}-{tmp_path.name}"
    yield name
    engine.docker("volume", "rm", "--force", name)


def ask(machine: Machine, method: str, path: str, **form: str) -> tuple[int, str]:
    """The answer of the server to one who is nobody."""
    connection = http.client.HTTPConnection("127.0.0.1", 8888)
    connection.sock = machine.connect()
    headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
    connection.request(method, path, urlencode(form) if form else None, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def listed(machine: Machine, project: str) -> list[str]:
    """The filenames on a project's page."""
    with machine.connect() as connection:
        connection.sendall(get_request(f"/r/mine/simple/{project}/"))
        status, _, page = read_answer(connection)
    assert status == 200, page
    return re.findall(r">([^<>]+\.(?:whl|tar\.gz))</a>", page)


# -- without a container -------------------------------------------------------------------------


def test_the_dockerfile_has_nothing_to_complain_of() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run([hadolint, "docker/Dockerfile"], cwd=CHECKOUT, capture_output=True)
    assert (ended.returncode, ended.stdout.decode()) == (0, "")


def test_the_dockerfile_names_this_version() -> None:
    text = (CHECKOUT / "docker" / "Dockerfile").read_text()
    assert re.findall(r"^ARG VERSION=(.+)$", text, re.MULTILINE) == [__version__]


# -- what it is ----------------------------------------------------------------------------------


def test_it_says_what_it_is_and_how_it_runs(engine: Engine, image: str) -> None:
    found = engine.inspect(image)
    config = found["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["private_pypi"]
    assert config.get("Cmd") is None  # words would win over the environment
    assert config["WorkingDir"] == "/private-pypi-root"
    assert config["ExposedPorts"] == {"8888/tcp": {}}
    assert config["Volumes"] == {"/private-pypi-root": {}}
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert found["HealthCheck" if "HealthCheck" in found else "Healthcheck"]["Test"] == [
        "CMD",
        "/app/bin/python3",
        "/app/healthcheck.py",
    ]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "private_pypi"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert labels["org.opencontainers.image.base.name"] == engine.base()


def test_it_knows_from_where_workflows_install_it(machine: Machine, tmp_path: Path) -> None:
    command = ("github.init_pkg_repo", "--name=acme", "--repo=packages", "--token=none")
    untold = machine.engine.docker("run", "--rm", IMAGE, *command, check=False)
    assert untold.code == 1
    assert "give --requirement" in untold.err

    # buildah 1.28 takes a layer that was made with other arguments; another spelling is another.
    written = (CHECKOUT / "docker" / "Dockerfile").read_text()
    assert written.count("${REQUIREMENT}") == 1
    recipe = tmp_path / "Dockerfile"
    recipe.write_text(written.replace("${REQUIREMENT}", "${REQUIREMENT:-}"))
    told = f"{IMAGE}-told"
    build = ("build", "--file", recipe, "--tag", told)
    # A release of 2020: the command refuses it before it asks GitHub anything.
    machine.engine.docker(*build, "--build-arg", "REQUIREMENT=private-pypi==0.2.0", ".")
    refused = machine.engine.docker("run", "--rm", told, *command, check=False)
    machine.engine.docker("rmi", told)
    assert refused.code == 1
    assert "PRIVATE_PYPI_REQUIREMENT: 'private-pypi==0.2.0' may install" in refused.err


def test_it_is_small(engine: Engine, image: str) -> None:
    assert engine.inspect(image)["Size"] - engine.inspect(engine.base())["Size"] < LARGEST


def test_it_has_what_is_locked_and_nothing_else(engine: Engine, image: str) -> None:
    script = (
        "import importlib.metadata as m, json, sys\n"
        "found = {d.name.lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        "print(json.dumps(found))\n"
    )
    ended = engine.docker("run", "--rm", "--entrypoint=python3", image, "-c", script)
    have = json.loads(ended.out)
    assert have.pop("private-pypi") == __version__
    version = engine.docker("run", "--rm", "--entrypoint=python3", image, "--version").out.split()
    environment = {"python_full_version": version[1]}
    locked = {}
    for line in (CHECKOUT / "requirements" / "runtime.txt").read_text().splitlines():
        if line and line[0] not in " #":
            requirement = Requirement(line.removesuffix("\\"))
            if requirement.marker is None or requirement.marker.evaluate(environment):
                locked[requirement.name] = str(requirement.specifier).removeprefix("==")
    assert have == locked


def test_no_secret_of_the_build_is_in_it(engine: Engine, image: str, tmp_path: Path) -> None:
    assert engine.marker in (engine.folder / "pip.conf").read_text()
    history = engine.docker("history", "--no-trunc", "--format=json", image).out
    assert engine.marker not in history + json.dumps(engine.inspect(image))
    engine.docker("save", "--format=docker-archive", f"--output={tmp_path / 'image.tar'}", image)
    has_code = False
    with tarfile.open(tmp_path / "image.tar") as archive:
        [manifest] = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        for layer in manifest["Layers"][1:]:  # the first one is the base
            stored = archive.extractfile(layer)
            assert stored is not None
            content = stored.read()
            assert engine.marker.encode() not in content
            with tarfile.open(fileobj=io.BytesIO(content)) as files:
                assert not [name for name in files.getnames() if name.startswith("run/secrets/")]
            has_code = has_code or b"site-packages/private_pypi/cli.py" in content
    assert has_code  # else what was searched is not the image


# -- how it runs ---------------------------------------------------------------------------------


def test_its_help_is_that_of_the_program(machine: Machine) -> None:
    own = subprocess.run(
        [sys.executable, "-m", "private_pypi", "--help"], capture_output=True, text=True, check=True
    )
    for words in (["--help"], []):
        assert machine.engine.docker("run", "--rm", *LOCKED_DOWN, IMAGE, *words).out == own.stdout
    shown = machine.engine.docker("run", "--rm", IMAGE, "github.init_pkg_repo", "--help")
    assert "private_pypi github.init_pkg_repo" in shown.out
    wrong = machine.engine.docker("run", "--rm", IMAGE, "github.init_pkg_repo", check=False)
    assert wrong.code == 2
    assert "missing --repo" in wrong.err


def test_it_serves_as_that_of_0_2_did(
    machine: Machine,
    files: Path,
    volume: str,
    client: Callable[[str], Client],
    target: Path,
) -> None:
    """Published to with twine, installed from with pip, and all of it without a right too many."""
    container = machine.serve(
        *LOCKED_DOWN,
        *("-v", f"{volume}:/private-pypi-root"),
        *("-v", f"{files}/config.toml:/config.toml:ro"),
        *("-v", f"{files}/admin_secret.toml:/admin_secret.toml:ro"),
        *("-p", "8888:8888", IMAGE),
        *("server", "/private-pypi-root"),
        *("--config=/config.toml", "--admin_secret=/admin_secret.toml"),
    )
    assert container.execute("touch", "/tmp/x", "/var/tmp/x", "/app/x").err.count("Read-only") == 3
    status = container.execute("cat", "/proc/1/status").out
    facts = dict(re.findall(r"^(\w+):\s+(.*)$", status, re.MULTILINE))
    assert facts["Uid"].split() == ["10001"] * 4
    assert {facts[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    eventually(lambda: container.health() == 0)

    twine, pip = (replace(client(name), before=machine.inside) for name in ("twine", "pip"))
    release = Release(name="demo")
    sent = publish(twine, release, MINE)
    assert sent.code == 0, sent.output
    got = install(pip, [MINE.readable()], "demo", target)
    assert got.code == 0, got.output
    assert installed(target)["demo"] == "1.0"
    assert container.stop() == 0

    again = machine.serve(
        *LOCKED_DOWN,
        *("-v", f"{volume}:/private-pypi-root"),
        *("-v", f"{files}/config.toml:/config.toml:ro"),
        *(IMAGE, "server", "/private-pypi-root", "--config=/config.toml"),
    )
    assert sorted(listed(machine, "demo")) == sorted(
        filename for filename, _ in (release.wheel(), release.sdist())
    )
    assert again.stop() == 0


def test_the_environment_starts_it_and_a_post_configures_it(machine: Machine) -> None:
    """As a service of a workflow: nothing can be mounted, and the command is not given either."""
    container = machine.serve(
        *("-e", "PRIVATE_PYPI_COMMAND=server"),
        *("-e", "PRIVATE_PYPI_COMMAND_ROOT=/private-pypi-root", IMAGE),
    )
    eventually(lambda: container.health() == 0)
    status, said = ask(machine, "POST", "/initialize/", config=CONFIG, admin_secret=ADMIN_SECRET)
    assert status == 200, said
    with machine.connect() as connection:
        connection.sendall(get_request("/r/mine/simple/"))
        assert read_answer(connection)[0] == 200
    assert container.stop() == 0


def test_the_variables_of_pyoci_start_it(
    machine: Machine,
    volume: str,
    tmp_path: Path,
    client: Callable[[str], Client],
    target: Path,
) -> None:
    """Without any argument, and below a path; the registry is in the same network."""
    folder = tmp_path / "registry"
    folder.mkdir()
    config = write_config(folder, 5000, write_passwords(folder))
    program = need("docker-registry")
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [*machine.inside, program, "serve", config], stdout=log, stderr=log
        )
    try:
        eventually(lambda: _accepts(machine, 5000))
        container = machine.serve(
            *("-e", "PYOCI_REGISTRIES=ghcr.io,http://127.0.0.1:5000"),
            *("-e", "PYOCI_PATH=/acme-corp", "-e", "PYOCI_MAX_BODY=1000000"),
            *(*LOCKED_DOWN, "-v", f"{volume}:/private-pypi-root", IMAGE),
            url="http://0.0.0.0:8080",
        )
        eventually(lambda: container.health() == 0)
        place = namespace_at(("http://127.0.0.1:8080/acme-corp", "http://127.0.0.1:5000"), "acme")
        twine, pip = (replace(client(name), before=machine.inside) for name in ("twine", "pip"))
        sent = publish(twine, Release(name="demo"), place)
        assert sent.code == 0, sent.output
        got = install(pip, [place.readable()], "demo", target)
        assert got.code == 0, got.output
        assert installed(target)["demo"] == "1.0"
        assert container.stop() == 0
    finally:
        running.kill()
        running.wait()
    refused = machine.engine.docker("run", "--rm", "-e", "PYOCI_PATH=/x", IMAGE, check=False)
    assert refused.code == 2
    assert "PYOCI_REGISTRIES" in refused.err


def test_a_signal_lets_an_upload_finish(machine: Machine, files: Path, volume: str) -> None:
    words = (
        *LOCKED_DOWN,
        *("-v", f"{volume}:/private-pypi-root", "-v", f"{files}/config.toml:/config.toml:ro"),
        *(IMAGE, "server", "/private-pypi-root", "--config=/config.toml"),
    )
    container = machine.serve(*words)
    filename, content = make_wheel("demo", "1.0", files={"random": os.urandom(2**20)})
    head, body = upload_request(filename, content)
    with machine.connect() as connection:
        connection.sendall(head + body[: 2**19])
        eventually(lambda: _parts(container))
        container.signal()
        eventually(lambda: not _accepts(machine))
        connection.sendall(body[2**19 :])
        assert read_answer(connection)[0] == 200
    assert container.wait() == 0
    again = machine.serve(*words)
    assert listed(machine, "demo") == [filename]
    assert again.stop() == 0


def _parts(container: Container) -> bool:
    return "upload-" in container.execute("find", "/private-pypi-root/tmp").out


def _accepts(machine: Machine, port: int = 8888) -> bool:
    try:
        machine.connect(port).close()
    except ConnectionError:  # refused, or reset while the listener was closed
        return False
    return True


def test_any_user_may_run_it_and_a_folder_that_is_not_theirs_is_named(
    machine: Machine, files: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "root"
    folder.mkdir(mode=0o700)
    words = (
        *("--read-only", "--user=4242:4242", "-v", f"{folder}:/private-pypi-root"),
        *("-v", f"{files}/config.toml:/config.toml:ro"),
        *(IMAGE, "server", "/private-pypi-root", "--config=/config.toml"),
    )
    refused = machine.engine.docker("run", "--rm", *words, check=False)
    assert (refused.code, refused.err) == (
        1,
        "error: cannot use '/private-pypi-root' as ROOT: Permission denied; "
        "the user with the ID 4242 must be able to write there\n",
    )
    os.chown(folder, 4242, 4242)
    container = machine.serve(*words)
    assert container.stop() == 0
    assert (folder / "index" / "mine").stat().st_uid == 4242


def test_the_check_of_health_follows_the_port_and_tells_what_is_wrong(machine: Machine) -> None:
    container = machine.serve(
        *("-e", "PRIVATE_PYPI_COMMAND=server", "-e", "PRIVATE_PYPI_COMMAND_PORT=9000"),
        *("-e", "PRIVATE_PYPI_COMMAND_ROOT=/private-pypi-root"),
        # What the environment says of proxies is for others.
        *("-e", "http_proxy=http://127.0.0.1:9", IMAGE),
        url="http://0.0.0.0:9000",
    )
    check = ("/app/bin/python3", "/app/healthcheck.py")
    assert container.execute(*check).code == 0
    elsewhere = ("env", "PRIVATE_PYPI_HEALTH_URL=http://127.0.0.1:9000/nothing/", *check)
    told = container.execute(*elsewhere)
    assert (told.code, told.err) == (1, "http://127.0.0.1:9000/nothing/: status 404\n")
    nobody = container.execute("env", "PRIVATE_PYPI_COMMAND_PORT=9001", *check)
    assert nobody.code == 1
    assert "http://127.0.0.1:9001/health/: " in nobody.err
    assert container.stop() == 0
