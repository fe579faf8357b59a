"""What the pages for people tell them to type and to write, typed and written into real clients."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
import requests

from private_pypi.testing.distributions import make_wheel

from .environments import Client
from .installers import installed
from .serving import Repository

pytestmark = pytest.mark.needs("clients")

MakeClient = Callable[[str], Client]

PROJECT = '[project]\nname = "consumer"\nversion = "0"\nrequires-python = ">=3.11,<4"\n'


def said(repository: Repository, path: str) -> dict[str, str]:
    """What a page gives to copy, by the name that it has there; with the secret put in."""
    page = requests.get(
        f"{repository.upload_url}{path}",
        auth=(repository.name, repository.read_secret),
        timeout=30,
    )
    assert page.status_code == 200
    found = re.findall(r'<code data-copy="([^"]+)">(.*?)</code>', page.text, re.DOTALL)
    return {
        unescape(name): unescape(text).replace("YOUR-SECRET", repository.read_secret)
        for name, text in found
    }


def with_netrc(client: Client, repository: Repository) -> Client:
    (client.home / ".netrc").write_text(said(repository, "setup/")[".netrc"])
    return client


@pytest.fixture
def filled(repository: Repository) -> Repository:
    """A repository with the project `demo`."""
    repository.put(*make_wheel("demo", "1.0"))
    repository.put(*make_wheel("demo", "2.0"))
    return repository


def test_pip_installs(client: MakeClient, filled: Repository, target: Path) -> None:
    pip = with_netrc(client("pip"), filled)
    for path, version in (("project/demo/1.0/", "1.0"), ("project/demo/", "2.0")):
        command = shlex.split(said(filled, path)["Command that installs with pip"])
        assert command[:2] == ["pip", "install"]
        options = ["--upgrade"] if version == "2.0" else []
        outcome = pip.run(f"--python={target}", *command[1:], *options)
        assert outcome.code == 0, outcome.output
        assert installed(target)["demo"] == version


def test_pip_is_set_up(client: MakeClient, filled: Repository, target: Path) -> None:
    pip = with_netrc(client("pip"), filled)
    config = pip.home / "pip.conf"
    config.write_text(said(filled, "setup/")["pip.conf"])
    outcome = pip.run(f"--python={target}", "install", "demo", env={"PIP_CONFIG_FILE": str(config)})
    assert outcome.code == 0, outcome.output
    assert installed(target)["demo"] == "2.0"


def test_uv_adds(client: MakeClient, filled: Repository) -> None:
    uv = with_netrc(client("uv"), filled)
    (uv.home / "pyproject.toml").write_text(PROJECT)
    command = shlex.split(said(filled, "project/demo/")["Command that installs with uv"])
    outcome = uv.run(*command[1:])
    assert outcome.code == 0, outcome.output
    assert installed(uv.home / ".venv")["demo"] == "2.0"


def test_uv_is_set_up_and_publishes(client: MakeClient, filled: Repository) -> None:
    uv = client("uv")
    page = said(filled, "setup/")
    text = PROJECT + 'dependencies = ["demo"]\n' + page["Table of pyproject.toml for uv"]
    (uv.home / "pyproject.toml").write_text(text)
    lines = page["Variables with the secret for uv"].splitlines()
    pairs = (line.removeprefix("export ").partition("=") for line in lines)
    variables = {name: value for name, _, value in pairs}
    outcome = uv.run("sync", env=variables)
    assert outcome.code == 0, outcome.output
    assert installed(uv.home / ".venv")["demo"] == "2.0"
    filename, content = make_wheel("other", "1.0")
    (uv.home / "dist").mkdir()
    (uv.home / "dist" / filename).write_bytes(content)
    command = shlex.split(page["Command that publishes with uv"])
    secret = {"UV_PUBLISH_PASSWORD": filled.write_secret}
    outcome = uv.run(*command[1:], env=variables | secret)
    assert outcome.code == 0, outcome.output
    assert filename in filled.files()


def cloned(uv: Client, maker: Client) -> Path:
    """A clone of a project that somebody else has made, where nobody has a secret."""
    clone = uv.home / "clone"
    clone.mkdir()
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(maker.home / name, clone)
    return clone


@pytest.fixture
def made(client: MakeClient, filled: Repository, tmp_path: Path) -> Client:
    """A uv with a home of its own, in which there is a project that uses `demo`."""
    home = tmp_path / "home-of-maker"
    home.mkdir()
    uv = with_netrc(replace(client("uv"), home=home), filled)
    (home / "pyproject.toml").write_text(PROJECT)
    command = shlex.split(said(filled, "project/demo/")["Command that installs with uv"])
    outcome = uv.run(*command[1:])
    assert outcome.code == 0, outcome.output
    return uv


@pytest.mark.parametrize("way", ["login", "variables", "netrc"])
def test_uv_says_what_a_clone_needs(
    client: MakeClient, filled: Repository, made: Client, way: str
) -> None:
    """In the words of our 401: the clone has the address of the index and no secret."""
    uv = client("uv")
    clone = cloned(uv, made)
    refused = uv.run("sync", cwd=clone)
    assert refused.code != 0
    env: dict[str, str] = {}
    match way:
        case "login":
            found = re.search("`uv (auth login INDEX_URL --username REPOSITORY)`", refused.text)
            assert found is not None, refused.output
            words = found[1].replace("INDEX_URL", filled.index_url)
            words = words.replace("REPOSITORY", filled.name)
            outcome = uv.run(*words.split(), "--password", filled.read_secret)
            assert outcome.code == 0, outcome.output
        case "variables":
            table = re.search(r'name = "([^"]+)"\nurl', (clone / "pyproject.toml").read_text())
            assert table is not None
            name = table[1].upper().replace("-", "_")
            values = {"USERNAME": filled.name, "PASSWORD": filled.read_secret}
            for key, value in values.items():
                variable = f"UV_INDEX_<NAME>_{key}"
                assert variable in refused.text
                env[variable.replace("<NAME>", name)] = value
        case _:
            assert "from ~/.netrc" in refused.text
            with_netrc(uv, filled)
    outcome = uv.run("sync", cwd=clone, env=env)
    assert outcome.code == 0, outcome.output
    assert installed(clone / ".venv")["demo"] == "2.0"


def test_uv_signs_in_as_the_page_says(client: MakeClient, filled: Repository, made: Client) -> None:
    uv = client("uv")
    clone = cloned(uv, made)
    command = shlex.split(said(filled, "setup/")["Command that gives uv the secret"])
    outcome = uv.run(*command[1:], "--password", filled.read_secret)
    assert outcome.code == 0, outcome.output
    outcome = uv.run("sync", cwd=clone)
    assert outcome.code == 0, outcome.output
    assert installed(clone / ".venv")["demo"] == "2.0"


def test_poetry_adds(client: MakeClient, filled: Repository) -> None:
    poetry = with_netrc(client("poetry"), filled)
    (poetry.home / "pyproject.toml").write_text(f"{PROJECT}\n[tool.poetry]\npackage-mode = false\n")
    commands = said(filled, "project/demo/")["Command that installs with poetry"].splitlines()
    for command in commands:
        outcome = poetry.run(
            *shlex.split(command)[1:], env={"POETRY_VIRTUALENVS_IN_PROJECT": "true"}
        )
        assert outcome.code == 0, outcome.output
    assert installed(poetry.home / ".venv")["demo"] == "2.0"


def test_twine_is_set_up_and_uploads(client: MakeClient, repository: Repository) -> None:
    twine = client("twine")
    page = said(repository, "setup/")
    (twine.home / ".pypirc").write_text(page[".pypirc"])
    filename, content = make_wheel("demo", "1.0")
    (twine.home / "dist").mkdir()
    (twine.home / "dist" / filename).write_bytes(content)
    command = shlex.split(page["Command that uploads with twine"])
    assert command[-1] == "dist/*"
    outcome = twine.run(*command[1:], env={"TWINE_PASSWORD": repository.write_secret})
    assert outcome.code == 0, outcome.output
    assert list(repository.files()) == [filename]
