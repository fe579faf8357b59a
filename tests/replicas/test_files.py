"""The files that start several servers: compose, Kubernetes and systemd, and their document."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from private_pypi.commands import serving
from private_pypi.configuration.config import ConfigurationText, read_configuration
from private_pypi.web.serving import option_names
from tests.documents import Block, blocks
from tests.documents import commands as commands_of
from tests.faults.servers import Servers
from tests.machine import need
from tests.proxies.fronts import CHECKOUT
from tests.replicas.setting import COMPOSE, CONFIG, ROOT, SECRETS, compose_file, server_services

DOCUMENT = CHECKOUT / "docs" / "scaling.md"
MANIFEST = CHECKOUT / "docker" / "kubernetes" / "private-pypi.yaml"
DOCKERFILE = (CHECKOUT / "docker" / "Dockerfile").read_text()
DRAIN = 30  # seconds in which a server completes requests, as docs/operations.md says
CADDY = Path(sys.executable).with_name("caddy")


def block(language: str, part: str) -> Block:
    """The one block of the document in this language that has this text."""
    (found,) = (
        each for each in blocks(DOCUMENT) if each.language == language and part in each.text
    )
    return found


def flag(command: list[str], name: str) -> str:
    """The value of `--name=value` in a command."""
    (found,) = (word for word in command if word.startswith(f"--{name}="))
    return found.partition("=")[2]


# -- compose -------------------------------------------------------------------------------------


def test_the_compose_file_is_one() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    ended = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", COMPOSE],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout


def test_three_servers_differ_only_in_their_volumes() -> None:
    file = compose_file()
    services = server_services()
    assert len(services) == 3
    volumes = [service.pop("volumes") for service in services.values()]
    assert volumes == [[f"root-{n}:{ROOT}"] for n in (1, 2, 3)]
    first, *others = services.values()
    assert all(each == first for each in others)
    assert "ports" not in first
    assert first["read_only"] is True
    assert first["cap_drop"] == ["ALL"]
    assert int(first["stop_grace_period"].rstrip("s")) >= DRAIN + int(
        flag(first["command"], "stop_delay")
    )
    proxy = file["services"]["proxy"]
    upstreams = proxy["environment"]["PYPI_UPSTREAMS"].split()
    assert upstreams == [f"{name}:8888" for name in services]
    assert "./replicas/Caddyfile:/etc/caddy/Caddyfile:ro" in proxy["volumes"]


def test_every_secret_and_volume_of_the_compose_file_is_declared_and_used() -> None:
    file = compose_file()
    services = file["services"].values()
    used = {name for service in services for name in service.get("secrets", [])}
    assert used == set(file["secrets"])
    mounts = (mount for service in services for mount in service.get("volumes", []))
    named = {mount.partition(":")[0] for mount in mounts}
    assert {name for name in named if not name.startswith(".")} == set(file["volumes"])
    mounted = {f"{SECRETS}/{name}" for service in services for name in service.get("secrets", [])}
    assert (
        set(re.findall(rf"{SECRETS}/[\w.]+", COMPOSE.read_text() + CONFIG.read_text())) <= mounted
    )


def test_the_commands_of_the_document_make_what_the_compose_file_mounts(tmp_path: Path) -> None:
    """And git leaves the secrets out."""
    shutil.copytree(CHECKOUT / "docker", tmp_path / "docker")
    script = "\n".join(c.line for c in commands_of(block("console", "openssl rand")))
    subprocess.run(["sh", "-euc", script], cwd=tmp_path, check=True)
    made = {each["file"] for each in compose_file()["secrets"].values()}
    assert all((tmp_path / "docker" / path).is_file() for path in made)
    folder = tmp_path / "docker" / "replicas"
    assert folder.stat().st_mode & 0o777 == 0o700
    secret = (folder / "store_secret").read_text().strip()
    (identity,) = json.loads((folder / "s3.json").read_text())["identities"]
    text = CONFIG.read_text().replace(SECRETS, str(folder))
    read = read_configuration(
        ConfigurationText(text=text, name="config", folder=folder), None, environ={}
    )
    settings: Any = read.repositories["mine"].backend
    assert identity["credentials"] == [
        {"accessKey": settings.access_key_id, "secretKey": settings.secret_access_key.reveal()}
    ]
    assert settings.secret_access_key.reveal() == secret
    ignored = (CHECKOUT / ".gitignore").read_text().splitlines()
    patterns = [line for line in ignored if line.startswith("docker/replicas/")]
    secrets = [Path("docker") / path for path in made if not path.endswith("config.toml")]
    assert [path for path in secrets if not any(path.match(p) for p in patterns)] == []


@pytest.mark.needs("caddy")
def test_the_proxy_takes_its_configuration() -> None:
    environment = compose_file()["services"]["proxy"]["environment"]
    ended = subprocess.run(
        [CADDY, "validate", "--adapter", "caddyfile", "--config", CONFIG.with_name("Caddyfile")],
        env={
            **os.environ,
            "PYPI_HOST": "localhost",
            "PYPI_UPSTREAMS": environment["PYPI_UPSTREAMS"],
        },
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    # It asks often enough to notice that a server stops.
    interval = re.search(r"health_interval (\d+)s", CONFIG.with_name("Caddyfile").read_text())
    assert interval is not None
    for service in server_services().values():
        assert int(flag(service["command"], "stop_delay")) > 2 * int(interval[1])


# -- Kubernetes ----------------------------------------------------------------------------------


def manifest() -> dict[str, Any]:
    """The resources of the manifest, by their kinds."""
    return {each["kind"]: each for each in YAML(typ="safe").load_all(MANIFEST)}


def container() -> Any:
    (found,) = manifest()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return found


def test_kubernetes_takes_the_manifest() -> None:
    """By the schemas of the newest version that the validator has, and of one of a year before."""
    newest = kubernetes_validate.latest_version()
    major, minor, _ = newest.split(".")
    for version in (newest, f"{major}.{int(minor) - 3}.0"):
        for resource in manifest().values():
            kubernetes_validate.validate(resource, version, strict=True)


def test_an_update_takes_no_server_away_before_another_is_ready() -> None:
    found = manifest()
    spec = found["Deployment"]["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spec["replicas"] > found["PodDisruptionBudget"]["spec"]["maxUnavailable"] >= 1
    delay = int(flag(container()["args"], "stop_delay"))
    pod = spec["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= delay + DRAIN
    probe = container()["readinessProbe"]
    assert delay > probe["periodSeconds"] * probe["failureThreshold"]


def test_everything_in_the_manifest_means_the_same_pods_and_port() -> None:
    found = manifest()
    template = found["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    for selector in (
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector == labels
    (port,) = container()["ports"]
    assert f"EXPOSE {port['containerPort']}" in DOCKERFILE
    (service_port,) = found["Service"]["spec"]["ports"]
    (rule,) = found["NetworkPolicy"]["spec"]["ingress"]
    assert {service_port["targetPort"], rule["ports"][0]["port"]} == {port["name"]}


def test_the_pod_runs_as_the_image_does_and_writes_only_into_root() -> None:
    pod = manifest()["Deployment"]["spec"]["template"]["spec"]
    ids = pod["securityContext"]
    assert ids["runAsNonRoot"] is True
    assert f"USER {ids['runAsUser']}:{ids['runAsGroup']}" in DOCKERFILE
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {each["mountPath"]: each for each in container()["volumeMounts"]}
    assert [path for path, each in mounts.items() if not each.get("readOnly")] == [ROOT]
    assert container()["args"][:2] == ["server", ROOT]
    assert {each["name"] for each in pod["volumes"]} == {e["name"] for e in mounts.values()}


def test_the_configuration_of_the_manifest_is_one(tmp_path: Path) -> None:
    """Its secrets are those that the document puts into the Secret."""
    found = manifest()
    (mount,) = (each for each in container()["volumeMounts"] if each["name"] == "secrets")
    text = found["ConfigMap"]["data"]["config.toml"]
    named = set(re.findall(rf"{mount['mountPath']}/(\w+)", text + " ".join(container()["args"])))
    create = block("sh", "kubectl create secret").text
    assert named == set(re.findall(r"--from-file=(\w+)", create))
    for name in named:
        (tmp_path / name).write_text("x" * 40)
    read_configuration(
        ConfigurationText(
            text=text.replace(mount["mountPath"], str(tmp_path)), name="config", folder=tmp_path
        ),
        None,
        environ={},
    )


# -- the flags, and what the probes ask ----------------------------------------------------------


def commands() -> Iterator[list[str]]:
    """Every command of a server in these files, each flag as one word."""
    yield next(iter(server_services().values()))["command"]
    yield container()["args"]
    (line,) = re.findall(r"(?m)^ExecStart=\S+ (.+)$", block("ini", "[Unit]").text)
    yield re.sub(r" (--\w+) (?!--)", r" \1=", f" {line}").split()


def test_the_flags_are_those_of_the_server() -> None:
    known = inspect.signature(serving.server).parameters.keys() | option_names()
    for command in commands():
        names = set(re.findall(r"--(\w+)", " ".join(command)))
        assert {"config", "session_key_file", "stop_delay"} <= names <= known


@pytest.mark.needs("a server in a process of its own")
def test_the_probes_tell_a_server_that_starts_serves_or_stops(
    servers: Servers, tmp_path: Path
) -> None:
    """A pod gets requests only while it is ready, and is not started again while it stops."""
    probes: Mapping[str, str] = {
        name: container()[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "liveness", "readiness")
    }

    def answers() -> dict[str, int]:
        return {name: server.status(path, auth=None, headers={}) for name, path in probes.items()}

    storage = '[mine]\ntype = "file_system"\nread_secret = "r"\n'
    gone = storage + f'path = "{tmp_path / "later"}"\n'
    server = servers.start(tmp_path / "starting", gone)
    assert answers() == {"startup": 200, "liveness": 200, "readiness": 503}
    server = servers.start(tmp_path / "root", storage, flags=("--stop_delay", "4"))
    assert answers() == {"startup": 200, "liveness": 200, "readiness": 200}
    server.terminate()
    assert answers() == {"startup": 200, "liveness": 200, "readiness": 503}
    assert server.process.wait(60) == 0


# -- systemd -------------------------------------------------------------------------------------


@pytest.mark.needs("systemd-analyze")
def test_systemd_takes_the_template(tmp_path: Path) -> None:
    analyze = need("systemd-analyze")
    program = Path(sys.executable).with_name("private_pypi")
    assert program.exists()
    text = block("ini", "[Unit]").text.replace("/usr/local/bin/private_pypi", str(program))
    (tmp_path / "private-pypi@.service").write_text(text)
    instance = tmp_path / "private-pypi@8881.service"
    ended = subprocess.run(
        [analyze, "verify", "--man=no", instance], capture_output=True, text=True
    )
    about_ours = [line for line in ended.stderr.splitlines() if "private-pypi" in line]
    assert (ended.returncode, about_ours) == (0, [])
    found = re.search(r"TimeoutStopSec=(\d+)", text)
    delay = re.search(r"--stop_delay (\d+)", text)
    assert found is not None
    assert delay is not None
    assert int(found[1]) >= DRAIN + int(delay[1])
