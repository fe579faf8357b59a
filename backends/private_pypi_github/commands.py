"""The commands `github.init_pkg_repo` and `github.gen_gh_pages`."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from private_pypi.backend import NO_INDEX, Folders, Secret, SupportsIndex, capability
from private_pypi.commands.command_line import UsageError
from private_pypi.commands.exporting import write_pages
from private_pypi.commands.files import one_secret, say, warn
from private_pypi.configuration.config import (
    ConfigurationText,
    RepositorySettings,
    check_repository,
)
from private_pypi.errors import ConfigurationError, InvalidIndex, NotConfigured
from private_pypi.index.document import EMPTY, IndexDocument, write_document
from private_pypi.index.document_reader import read_document
from private_pypi.storage.retrying import retrying
from private_pypi_github.backend import GitHubBackend, GitHubSettings
from private_pypi_github.client import Client, is_token
from private_pypi_github.pages import public_addresses, require_closed_site, visibility
from private_pypi_github.workflow import WorkflowFacts, workflow_text

if TYPE_CHECKING:
    from private_pypi_github import set_up

_INTERVAL = 60  # seconds; the server's default for sync_index_interval


def init_pkg_repo(
    *,
    name: str,
    repo: str,
    token: str | None = None,
    token_env: str | None = None,
    owner: str | None = None,
    branch: str | None = None,
    index_filename: str = GitHubSettings.index_filename,
    sync_index_interval: int = _INTERVAL,
    private: bool = True,
    enable_gh_pages: bool = False,
    api_url: str = GitHubSettings.api_url,
    requirement: str | None = None,
    dry_run: bool = False,
    private_pypi_version: str | None = None,
    pywharf_version: str | None = None,
    environ: Mapping[str, str],
) -> None:
    """Create or complete a package repository on GitHub.

    The repository gets an empty index, and a workflow that rebuilds the index when releases change.
    What it already has stays as it is. At the end, the command prints the configuration for the
    server. The token needs the permissions to create repositories and to write contents and
    workflows (scopes of a classic token: repo and workflow).

    Args:
        name: The repository's name in the configuration of the server.
        repo: The repository on GitHub.
        token: The token. Other users of this machine can see it, so prefer --token_env.
        token_env: The name of the environment variable that contains the token.
        owner: The user or organisation that owns the repository. Default: the user of the token.
        branch: The branch of the index. Default: the default branch of the repository.
        index_filename: The path of the index in the repository.
        sync_index_interval: Seconds after which the server looks for changes on GitHub, for the
            printed configuration.
        private: Whether a new repository is private.
        enable_gh_pages: Let the workflow also publish the index on GitHub Pages.
        api_url: The address of the API. For GitHub Enterprise Server: https://HOST/api/v3
        requirement: What the workflow passes to pip to install this project. Default: the origin
            of this installation.
        dry_run: Show what would be done, and change nothing.
        private_pypi_version: Ignored; private-pypi 0.2 had it.
        pywharf_version: Ignored; pywharf 0.2 had it.

    Example:
        private_pypi github.init_pkg_repo --name acme --owner acme --repo packages --token_env TOKEN
    """
    from private_pypi.commands import requirement as installation
    from private_pypi_github import set_up

    for flag, value in (
        ("private_pypi_version", private_pypi_version),
        ("pywharf_version", pywharf_version),
    ):
        if value is not None:
            warn(f"warning: --{flag} is ignored; --requirement says what the workflow installs")
    secret = _token(token, token_env, environ)
    if sync_index_interval <= 0:
        raise UsageError(f"--sync_index_interval must be positive, not {sync_index_interval}")
    table = _table(owner or "owner", repo, branch, index_filename, api_url)
    if sync_index_interval != _INTERVAL:
        table["sync_index_interval"] = sync_index_interval
    settings = _checked(name, table, environ)
    if requirement is None:
        told = installation.installed_from(environ)
        for sentence in told.warnings:
            warn(f"warning: {sentence}")
        requirement = told.requirement
    else:
        requirement = installation.check_requirement(requirement)
    facts = WorkflowFacts(
        name=settings.name,
        requirement=requirement,
        index_filename=index_filename,
        branch=branch,
        pages=enable_gh_pages,
    )
    workflow_text(facts)  # raises before anything is changed if a value is not valid
    account = set_up.Account(api_url, secret)
    try:
        wanted = set_up.Wanted(
            owner=owner or account.login(),
            repo=repo,
            branch=branch,
            index_filename=index_filename,
            index=_empty_index(),
            private=private,
            pages=enable_gh_pages,
            workflow=lambda pages: workflow_text(replace(facts, pages=pages)),
        )
        text = _set_up(account, wanted, dry_run=dry_run)
    finally:
        account.close()
    if dry_run:
        say(f"\n# The workflow:\n\n{text}")
    say(_configuration(settings.name, {**table, "owner": wanted.owner}))


def gen_gh_pages(
    *,
    name: str,
    owner: str,
    repo: str,
    output_folder: str,
    token: str | None = None,
    token_env: str | None = None,
    branch: str | None = None,
    index_filename: str = GitHubSettings.index_filename,
    api_url: str = GitHubSettings.api_url,
    for_gh_pages: bool = False,
    environ: Mapping[str, str],
) -> None:
    """Write the index of a package repository as static pages into a folder.

    For a public repository, the pages link to the files on GitHub. The files of a private
    repository cannot be fetched without a token, so they are copied into the folder, where everyone
    who can read the folder can read them.

    If the command is run again, it updates its own files, and removes those that are not in the
    index any more. It does not change any other files in the folder.

    Args:
        name: The title of the pages.
        owner: The user or organisation that owns the repository.
        repo: The repository on GitHub.
        output_folder: The folder. It is created if it does not exist.
        token: A token that may read the repository. Other users of this machine can see it, so
            prefer --token_env.
        token_env: The name of the environment variable that contains the token.
        branch: The branch of the index. Default: the default branch of the repository.
        index_filename: The path of the index in the repository.
        api_url: The address of the API. For GitHub Enterprise Server: https://HOST/api/v3
        for_gh_pages: The folder is for the GitHub Pages of the repository. The command fails if the
            repository is private and its pages are public.

    Example:
        private_pypi github.gen_gh_pages --name acme --owner acme --repo packages
            --token_env TOKEN --output_folder site
    """
    secret = _token(token, token_env, environ)
    if not output_folder:  # perhaps an unset variable; the current folder is not meant
        raise UsageError("--output_folder is empty; give the path of a folder")
    settings = _checked(name, _table(owner, repo, branch, index_filename, api_url), environ)
    assert isinstance(settings.backend, GitHubSettings)
    full_name = f"{owner}/{repo}"
    with (
        tempfile.TemporaryDirectory(prefix="private-pypi-") as temporary,
        closing(GitHubBackend(settings.backend, _folders(Path(temporary)))) as backend,
    ):
        client = Client(backend.connection, api_url.rstrip("/"), secret)
        shown = visibility(client, full_name)
        if for_gh_pages and shown.private:
            require_closed_site(client, full_name)
        storage = retrying(backend.seen_with(secret))
        index = capability(storage, SupportsIndex)
        assert index is not None
        path = backend.folders.tmp / "index.toml"
        if index.read_index(path) == NO_INDEX:
            raise NotConfigured(
                f"there is no {index_filename!r} in {full_name!r} yet; run "
                f"private_pypi update_index github {settings.name}"
            )
        files = [entry.file for entry in _whole(path, backend.location_key).entries]
        write_pages(
            Path(output_folder),
            name,
            files,
            storage,
            public_addresses(files, shown),
            document=path.read_bytes(),
        )


def _whole(path: Path, location_key: str) -> IndexDocument:
    """The document; raises `InvalidIndex` if files would be missing from the pages."""
    document, problems = read_document(path, location_key=location_key)
    for sentence in problems:
        warn(f"warning: {sentence}")
    if problems or document.unexamined:
        raise InvalidIndex(
            f"{len(problems) + len(document.unexamined)} entries of the index are broken, or were "
            "written by private-pypi 0.2 and not examined yet; run private_pypi update_index first"
        )
    return document


def _set_up(account: set_up.Account, wanted: set_up.Wanted, *, dry_run: bool) -> str:
    """Create what is missing, or only show it; returns the text of the workflow."""
    from private_pypi_github import set_up  # here, because importing PyGithub takes a while

    found = account.look(wanted)
    is_new = found is None
    if found is None:
        create = set_up.CreateRepository(wanted)
        found = set_up.new_repository(wanted)
        if dry_run:
            say(f"would {create}")
        else:
            account.carry_out(create, wanted)
            say(str(create))
            found = replace(account.look(wanted) or found, is_new=True)
    planned = set_up.plan(wanted, found)
    for step in planned.steps:
        if dry_run:
            say(f"would {step}")
        else:
            account.carry_out(step, wanted)
            say(str(step))
    for note in planned.notes:
        warn(f"note: {note}")
    if not planned.steps and not is_new:
        say(f"{wanted.full_name!r} is complete")
    return planned.workflow


def _configuration(name: str, table: Mapping[str, object]) -> str:
    """The text that tells the operator how to configure the server."""
    variable = f"{''.join(c if c.isalnum() else '_' for c in name.upper())}_TOKEN"
    # For these values, JSON and TOML have the same syntax.
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
    key = name if re.fullmatch("[A-Za-z0-9_-]+", name) else json.dumps(name)
    return (
        "\n# Add this to config.toml of the server:\n\n"
        f"[{key}]\n{lines}\n\n"
        "# And this to its admin_secret.toml, with a token that may read the repository in the\n"
        f"# environment variable {variable}:\n\n"
        f'[{key}]\ntype = "github"\nenv = "{variable}"\n\n'
        "# Then start it:\n#   private_pypi server ROOT --config config.toml --admin_secret "
        "admin_secret.toml\n"
        f"# and publish with a token that may write:\n"
        f"#   twine upload --repository-url http://HOST:8888/r/{name}/ -u {name} dist/*\n"
        "# If the names of your projects must never come from another index, claim them in the\n"
        "# table:\n"
        '#   claimed = ["acme-*"]'
    )


def _table(
    owner: str, repo: str, branch: str | None, index_filename: str, api_url: str
) -> dict[str, object]:
    """The repository's table, without keys that have their default values."""
    table: dict[str, object] = {"type": "github", "owner": owner, "repo": repo}
    if branch is not None:
        table["branch"] = branch
    if index_filename != GitHubSettings.index_filename:
        table["index_filename"] = index_filename
    if api_url != GitHubSettings.api_url:
        table["api_url"] = api_url
    return table


def _checked(
    name: str, table: Mapping[str, object], environ: Mapping[str, str]
) -> RepositorySettings:
    source = ConfigurationText(text="", name="command line", folder=None)
    return check_repository(name, table, source=source, environ=environ)


def _token(raw: str | None, env: str | None, environ: Mapping[str, str]) -> Secret:
    secret = one_secret("token", raw=raw, env=env, environ=environ)
    if secret is None:
        raise UsageError("missing --token_env, or --token")
    if not is_token(secret):
        raise ConfigurationError("the token has characters that no token of GitHub has")
    return secret


def _folders(temporary: Path) -> Folders:
    folders = Folders(cache=temporary / "cache", lock=temporary / "lock", tmp=temporary / "tmp")
    for each in (folders.cache, folders.lock, folders.tmp):
        each.mkdir()
    return folders


def _empty_index() -> bytes:
    with tempfile.TemporaryDirectory(prefix="private-pypi-") as temporary:
        path = Path(temporary) / "index.toml"
        write_document(EMPTY, path, backend_type="github", location_key=GitHubBackend.location_key)
        return path.read_bytes()
