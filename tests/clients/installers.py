"""How each client installs and locks; what comes of it is for the tests.

poetry, pdm and `uv lock` work on a project, which is written here with the indexes that it may use.
Every client gets the addresses with credentials in them, except where a test says otherwise.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import tomli

from .environments import Client, Outcome, site_packages

_Install = Callable[[Client, Sequence[str], str, Path, Sequence[str]], Outcome]
"""`(client, indexes, requirement, target, options)`"""


def install(
    client: Client, indexes: Sequence[str], requirement: str, target: Path, *options: str
) -> Outcome:
    """Install one requirement into the virtual environment `target`, from these indexes only."""
    return _INSTALL[client.name](client, indexes, requirement, target, options)


def lock(client: Client, indexes: Sequence[str], requirement: str, *options: str) -> Outcome:
    """Lock a project that has one requirement, anew; see `locked`."""
    project = _write_project(client, indexes, requirement)
    if client.name == "pip":
        return client.run("lock", *_pip_indexes(indexes), *options, requirement, cwd=project)
    env = _credentials(client, indexes) | {"VIRTUAL_ENV": str(client.environment)}
    return client.run("lock", *options, cwd=project, env=env)


def locked(client: Client) -> Any:
    """The lock file that the client wrote, parsed."""
    return tomli.loads((client.home / "consumer" / _LOCK_FILES[client.name]).read_text())


def install_locked(
    client: Client, indexes: Sequence[str], target: Path, *, uv: Sequence[str] = ("--frozen",)
) -> Outcome:
    """Install exactly what is in the lock file. `uv`: options for `uv sync`."""
    project = client.home / "consumer"
    env = _credentials(client, indexes) | {"VIRTUAL_ENV": str(target)}
    match client.name:
        case "pip":
            # Its lock file has addresses without credentials; the index gives them.
            return client.run(
                f"--python={target}",
                "install",
                *_pip_indexes(indexes),
                "--requirement=pylock.toml",
                cwd=project,
            )
        case "uv":
            return client.run("sync", *uv, "--active", cwd=project, env=env)
        case "poetry":
            return client.run("sync", cwd=project, env=env)
        case _:
            return client.run("sync", "--no-self", cwd=project, env=env)


def installed(target: Path) -> dict[str, str]:
    """What an environment has: name -> version."""
    return {
        each.name: each.version
        for each in importlib.metadata.distributions(path=[str(site_packages(target))])
    }


def _with_pip(
    client: Client, indexes: Sequence[str], requirement: str, target: Path, options: Sequence[str]
) -> Outcome:
    return client.run(
        f"--python={target}", "install", *_pip_indexes(indexes), *options, requirement
    )


def _with_uv(
    client: Client, indexes: Sequence[str], requirement: str, target: Path, options: Sequence[str]
) -> Outcome:
    return client.run(
        *("pip", "install", f"--python={target}"), *_uv_indexes(indexes), *options, requirement
    )


def _with_poetry(
    client: Client, indexes: Sequence[str], requirement: str, target: Path, options: Sequence[str]
) -> Outcome:
    project = _write_project(client, indexes, requirement)
    env = _credentials(client, indexes) | {"VIRTUAL_ENV": str(target)}
    return client.run("install", *options, cwd=project, env=env)


def _with_pdm(
    client: Client, indexes: Sequence[str], requirement: str, target: Path, options: Sequence[str]
) -> Outcome:
    project = _write_project(client, indexes, requirement)
    env = {"VIRTUAL_ENV": str(target)}
    return client.run("install", "--no-self", *options, cwd=project, env=env)


_INSTALL: Final[Mapping[str, _Install]] = {
    "pip": _with_pip,
    "uv": _with_uv,
    "poetry": _with_poetry,
    "pdm": _with_pdm,
}
INSTALLERS: Final = tuple(_INSTALL)
_LOCK_FILES: Final = {
    "pip": "pylock.toml",
    "uv": "uv.lock",
    "poetry": "poetry.lock",
    "pdm": "pdm.lock",
}


def _uv_indexes(indexes: Sequence[str]) -> list[str]:
    # The default index comes last in uv's order.
    return [*(f"--index={url}" for url in indexes[:-1]), f"--default-index={indexes[-1]}"]


def _pip_indexes(indexes: Sequence[str]) -> list[str]:
    return [f"--index-url={indexes[0]}", *(f"--extra-index-url={url}" for url in indexes[1:])]


def _write_project(client: Client, indexes: Sequence[str], requirement: str) -> Path:
    """A project that only has a requirement; the credentials of poetry and uv are not in it."""
    folder = client.home / "consumer"
    folder.mkdir(exist_ok=True)
    (folder / _LOCK_FILES[client.name]).unlink(missing_ok=True)
    parts = [
        '[project]\nname = "consumer"\nversion = "0"\nrequires-python = ">=3.11,<4"\n'
        f'dependencies = ["{requirement}"]\n',
        "[tool.poetry]\npackage-mode = false\n",
        "[tool.pdm]\ndistribution = false\n",
    ]
    for number, url in enumerate(indexes):
        last = "true" if number == len(indexes) - 1 else "false"
        bare = _without_credentials(url)
        parts += [
            f'[[tool.poetry.source]]\nname = "acme{number}"\nurl = "{bare}"\n'
            f'priority = "{"supplemental" if number else "primary"}"\n',
            # The name of pdm's own default, so that it is replaced.
            f'[[tool.pdm.source]]\nname = "{f"acme{number}" if number else "pypi"}"\n'
            f'url = "{url}"\n',
            f'[[tool.uv.index]]\nname = "acme{number}"\nurl = "{bare}"\ndefault = {last}\n',
        ]
    (folder / "pyproject.toml").write_text("\n".join(parts))
    return folder


def _credentials(client: Client, indexes: Sequence[str]) -> dict[str, str]:
    """What the addresses have, as variables of poetry and uv."""
    found: dict[str, str] = {}
    for number, url in enumerate(indexes):
        parts = urlsplit(url)
        if parts.username is None:
            continue
        pair = {
            "USERNAME": unquote(parts.username),
            "PASSWORD": unquote(parts.password or ""),
        }
        for key, value in pair.items():
            found[f"POETRY_HTTP_BASIC_ACME{number}_{key}"] = value
            found[f"UV_INDEX_ACME{number}_{key}"] = value
    return found


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
