"""`github.init_pkg_repo` and `github.gen_gh_pages`: from flags to a repository, and to a folder."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from private_pypi.backend import NO_INDEX, Folders, Secret
from private_pypi.command_line import UsageError
from private_pypi.commands.files import one_secret, say, warn
from private_pypi.commands.indexing import Progress
from private_pypi.config import RepositorySettings, Source, check_repository
from private_pypi.errors import ConfigurationError, InvalidIndex, NotConfigured
from private_pypi.index_file import EMPTY, IndexDocument, read_document, write_document
from private_pypi.indexing import chunks_of
from private_pypi.model import DistributionFile, LocalFile
from private_pypi.retrying import retrying
from private_pypi.static_site import SiteFile, write_site
from private_pypi_github.backend import GitHubBackend, GitHubSettings
from private_pypi_github.client import Client, is_token
from private_pypi_github.pages import (
    Visibility,
    as_published,
    public_address,
    require_closed_site,
    visibility,
)
from private_pypi_github.workflow import WorkflowFacts, workflow_text

if TYPE_CHECKING:
    from private_pypi_github import set_up

_INTERVAL = 60  # seconds; what a server without the key takes


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
    """Create a package repository on GitHub, or complete one, and print its configuration.

    It gets an empty index and a workflow that rebuilds the index when releases change. What is
    there already stays. The token needs the rights to create repositories and to write contents
    and workflows (classic: repo and workflow).

    Args:
        name: The repository's name in the configuration of the server.
        repo: The repository on GitHub.
        token: The token; better given by the next one.
        token_env: Name of the environment variable that holds the token.
        owner: The user or the organization that owns it; the token's user when it is left out.
        branch: The branch of the index; the default branch when it is left out.
        index_filename: The file of the index.
        sync_index_interval: Seconds between two looks of the server at GitHub, for the printed
            configuration.
        private: Whether a repository that is created is private.
        enable_gh_pages: Let the workflow publish the index on GitHub Pages, too.
        api_url: The address of the API; https://HOST/api/v3 of an Enterprise Server.
        requirement: How the workflow installs this project, for pip; where this installation came
            from when it is left out.
        dry_run: Look, tell what would be done, and do nothing.
        private_pypi_version: Ignored; private-pypi 0.2 had it.
        pywharf_version: Ignored; pywharf 0.2 had it.

    Example:
        private_pypi github.init_pkg_repo --name acme --owner acme --repo packages --token_env TOKEN
    """
    from private_pypi_github import requirement as installation
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
    workflow_text(facts)  # what cannot stand in it is told before anything is done
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

    Files of a public repository are linked to; those of a private one, which nobody gets without a
    token, are put into the folder, so whoever can read the folder can read them. Run again, it
    renews what it wrote, removes what has vanished, and touches nothing else.

    Args:
        name: The title of the pages.
        owner: The user or the organization that owns the repository.
        repo: The repository on GitHub.
        output_folder: The folder; it is made when it is missing.
        token: The token, which must be able to read; better given by the next one.
        token_env: Name of the environment variable that holds the token.
        branch: The branch of the index; the default branch when it is left out.
        index_filename: The file of the index.
        api_url: The address of the API; https://HOST/api/v3 of an Enterprise Server.
        for_gh_pages: The folder is for the GitHub Pages of the repository: refuse when it is
            private and they are shown to everybody.

    Example:
        private_pypi github.gen_gh_pages --name acme --owner acme --repo packages
            --token_env TOKEN --output_folder site
    """
    secret = _token(token, token_env, environ)
    if not output_folder:  # an unset variable, which is not meant to be the working folder
        raise UsageError("--output_folder is empty; it is the path of a folder")
    settings = _checked(name, _table(owner, repo, branch, index_filename, api_url), environ)
    assert isinstance(settings.backend, GitHubSettings)
    client = Client(settings.backend.connection, api_url.rstrip("/"), secret)
    full_name = f"{owner}/{repo}"
    shown = visibility(client, full_name)
    if for_gh_pages and shown.private:
        require_closed_site(client, full_name)
    with tempfile.TemporaryDirectory(prefix="private-pypi-") as temporary:
        folders = _folders(Path(temporary))
        backend = retrying(GitHubBackend(settings.backend, secret, folders))
        path = folders.tmp / "index.toml"
        if backend.read_index(path) == NO_INDEX:
            raise NotConfigured(
                f"there is no {index_filename!r} in {full_name!r} yet; run "
                f"private_pypi update_index github {settings.name}"
            )
        document = _whole(path, backend.location_key)

        def fetch(file: DistributionFile) -> Iterator[bytes]:
            download = backend.open_file(file)
            # A file on GitHub is elsewhere; so are those of whatever wraps the backend.
            assert not isinstance(download, LocalFile)
            return chunks_of(download, file.filename)

        progress = Progress()
        try:
            update = write_site(
                Path(output_folder).absolute(),
                name,
                [_site_file(entry.file, shown) for entry in document.entries],
                document=path.read_bytes(),
                fetch=fetch,
                progress=progress,
            )
        finally:
            progress.end()
    say(f"{name}: {update}")


def _site_file(file: DistributionFile, shown: Visibility) -> SiteFile:
    address = public_address(file, shown)
    return SiteFile(file=file if address is None else as_published(file), address=address)


def _whole(path: Path, location_key: str) -> IndexDocument:
    """The document; raises `InvalidIndex` where pages would show less than is published."""
    document, problems = read_document(path, location_key=location_key)
    for sentence in problems:
        warn(f"warning: {sentence}")
    if problems or document.unexamined:
        raise InvalidIndex(
            f"{len(problems) + len(document.unexamined)} entries of the index are broken, or of "
            "private-pypi 0.2 and not examined yet; run private_pypi update_index first"
        )
    return document


def _set_up(account: set_up.Account, wanted: set_up.Wanted, *, dry_run: bool) -> str:
    """Do, or tell, what is missing; the text of the workflow."""
    from private_pypi_github import set_up  # not before a command runs

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
    """What the operator adds to the server's files."""
    variable = f"{''.join(c if c.isalnum() else '_' for c in name.upper())}_TOKEN"
    # Of these values, which were checked, JSON writes what TOML reads.
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
        "# Projects whose names nobody else shall serve are named in the table:\n"
        '#   claimed = ["acme-*"]'
    )


def _table(
    owner: str, repo: str, branch: str | None, index_filename: str, api_url: str
) -> dict[str, object]:
    """The repository's table, without what a server takes anyway."""
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
    source = Source(text="", name="command line", folder=None)
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
