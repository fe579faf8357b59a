"""How each client publishes a release; what comes of it is for the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from .environments import Client, Outcome
from .releases import Release, sha256
from .serving import Repository

_Variables = Callable[[str, str, str], Mapping[str, str]]
"""`(address, user, secret)` as the variables of a client."""


def publish(
    client: Client,
    release: Release,
    repository: Repository | None,
    *options: str,
    user: str | None = None,
    secret: str | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> Outcome:
    """The wheel and the sdist of a release, as one who may write where nothing else is given.

    Without a repository the client has to know itself where to go. `beside` are files that lie
    in dist/ beside the two.
    """
    project = client.home / "project"
    _write_project(project, release)
    for name, content in (beside or {}).items():
        (project / "dist" / name).write_bytes(content)
    env: Mapping[str, str] = {}
    if repository is not None:
        env = _VARIABLES[client.name](
            repository.upload_url, user or repository.name, secret or repository.write_secret
        )
    command = _COMMANDS[client.name]
    return client.run(*command, *options, *_FILES.get(client.name, ()), cwd=project, env=env)


def sent_files(client: Client) -> dict[str, str]:
    """What the client published last: filename -> sha256."""
    return {path.name: sha256(path) for path in (client.home / "project" / "dist").iterdir()}


def how_shown(publisher: Client, outcome: Outcome, status: str, sentence: str) -> str:
    """Assert that the client failed and told its user why; how it did, in words."""
    assert outcome.code not in (0, None), outcome.output
    if publisher.name != "pdm":
        assert sentence in outcome.text, outcome.output
        return "shows the message"
    # pdm's cache of HTTP responses loses the reason phrase, and its log has the body.
    assert status in outcome.text, outcome.output
    logs = (publisher.home / "state" / "pdm" / "log").glob("pdm-publish-*.log")
    newest = max(logs, key=lambda log: log.stat().st_mtime_ns).read_text()
    assert sentence in newest, newest
    return f"shows “{status}”, the message is in its log"


_COMMANDS: Final[Mapping[str, Sequence[str]]] = {
    "uv": ("publish", "--trusted-publishing", "never"),
    "poetry": ("publish", "--repository", "acme"),
    "pdm": ("publish", "--no-build"),
    "twine": ("upload", "--non-interactive", "--disable-progress-bar"),
    "hatch": ("publish", "--no-prompt"),
    "flit": ("publish",),  # it builds its own files, in its own process, in place of those in dist/
}
_FILES: Final[Mapping[str, Sequence[str]]] = {"twine": ("dist/*",)}  # the others know
_VARIABLES: Final[Mapping[str, _Variables]] = {
    "uv": lambda address, user, secret: {
        "UV_PUBLISH_URL": address,
        "UV_PUBLISH_USERNAME": user,
        "UV_PUBLISH_PASSWORD": secret,
    },
    "poetry": lambda address, user, secret: {
        "POETRY_REPOSITORIES_ACME_URL": address,
        "POETRY_HTTP_BASIC_ACME_USERNAME": user,
        "POETRY_HTTP_BASIC_ACME_PASSWORD": secret,
    },
    "pdm": lambda address, user, secret: {
        "PDM_PUBLISH_REPO": address,
        "PDM_PUBLISH_USERNAME": user,
        "PDM_PUBLISH_PASSWORD": secret,
    },
    "twine": lambda address, user, secret: {
        "TWINE_REPOSITORY_URL": address,
        "TWINE_USERNAME": user,
        "TWINE_PASSWORD": secret,
    },
    "hatch": lambda address, user, secret: {
        "HATCH_INDEX_REPO": address,
        "HATCH_INDEX_USER": user,
        "HATCH_INDEX_AUTH": secret,
    },
    "flit": lambda address, user, secret: {
        "FLIT_INDEX_URL": address,
        "FLIT_USERNAME": user,
        "FLIT_PASSWORD": secret,
    },
}
PUBLISHERS: Final = tuple(_COMMANDS)


def _write_project(folder: Path, release: Release) -> None:
    """A project that every client takes for one of its own, built already."""
    dist = folder / "dist"
    dist.mkdir(parents=True, exist_ok=True)
    for older in dist.iterdir():
        older.unlink()
    for filename, content in (release.wheel(), release.sdist()):
        (dist / filename).write_bytes(content)
    (folder / f"{release.name}.py").write_bytes(release.module)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n\n'
        f'[project]\nname = "{release.name}"\nversion = "{release.version}"\n'
        'description = "A tiny project."\nrequires-python = ">=3.8"\n'
    )
