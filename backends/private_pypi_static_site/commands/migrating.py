"""The command `static_site.migrate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from private_pypi.commands.command_line import UsageError
from private_pypi.commands.files import one_secret, say
from private_pypi.commands.indexing import Progress
from private_pypi.errors import ConfigurationError
from private_pypi_static_site.making.migrating import (
    Migration,
    Readmes,
    fetch_readmes,
    read_old_site,
    remove_files,
    require_no_site,
    write_site,
)
from private_pypi_static_site.making.releases import API_URL
from private_pypi_static_site.project_file import Project, SiteVersion


def migrate(
    source: str,
    *,
    folder: str | None = None,
    dry_run: bool = False,
    remove_old: bool = False,
    readmes: bool = False,
    token_env: str | None = None,
    api_url: str = API_URL,
    environ: Mapping[str, str],
) -> int:
    """Turn a checkout of github-hosted-pypi or MIT-Kavli-PyPi into a site of private_pypi.

    The metadata in hosted files decide what they are, and the command tells where the old pages
    said something else. Project pages and hosted files keep their addresses. Versions that were
    links to git keep their repository and tag.
    The exit code is 1 if something could not be taken; the command tells what, and why.

    Args:
        source: The folder of the checkout.
        folder: The folder of the new site, which must not be a site yet. Default: SOURCE.
        dry_run: Tell what would be done, and write nothing.
        remove_old: Remove the old pages and scripts from SOURCE, where the new site is. Pages
            of projects of which something was left out stay.
        readmes: Fetch the READMEs of versions that are links to repositories on GitHub. Without
            this flag, nothing is fetched. READMEs of private repositories become public with the
            pages.
        token_env: The name of the environment variable that contains a token for these
            repositories.
        api_url: The address of the API. For GitHub Enterprise Server: https://HOST/api/v3

    Example:
        private_pypi static_site.migrate my-index --dry_run
    """
    if not source or folder == "":  # from an unset variable
        raise UsageError("SOURCE and --folder must not be empty")
    old = Path(source).absolute()
    new = old if folder is None else Path(folder).absolute()
    if not old.is_dir():
        raise ConfigurationError(f"SOURCE {source!r} is no folder")
    in_place = new.resolve() == old.resolve()
    if remove_old and not in_place:
        raise UsageError("--remove_old is only for a site that takes the place of SOURCE")
    if token_env is not None and not readmes:
        raise UsageError("--token_env is only for --readmes")
    token = one_secret("token", env=token_env, environ=environ)
    migration = read_old_site(old, environ)
    require_no_site(new, migration)
    fetched: Readmes = {}
    if readmes and not dry_run:
        progress = Progress()
        try:
            fetched, missing = fetch_readmes(
                migration, token=token, api_url=api_url, environ=environ, progress=progress
            )
        finally:
            progress.end()
        migration = replace(migration, notes=[*migration.notes, *missing])
    if not dry_run:
        write_site(migration, new, fetched)
        if remove_old:
            remove_files(migration, {*migration.old} - migration.needed)
    _report(migration, new, dry_run=dry_run, in_place=in_place, removed=remove_old)
    return 1 if migration.left_out else 0


def _report(
    migration: Migration, new: Path, *, dry_run: bool, in_place: bool, removed: bool
) -> None:
    projects = migration.projects
    versions = [version for project in projects for version in project.versions]
    files = sum(len(version.files) for version in versions)
    would = "would write" if dry_run else "wrote"
    say(
        f"{migration.kind} in {migration.source}: {would} {len(projects)} projects with "
        f"{len(versions)} versions and {files} hosted files to {new}"
    )
    say(f"  title: {migration.settings.title}")
    say(f"  url: {migration.settings.url or '(not found; add it to site.toml)'}")
    _listed("taken", map(_taken, projects))
    _listed("the pages disagree with the files, or with themselves", migration.disagreements)
    _listed("notes", migration.notes)
    _listed("left out", migration.left_out)
    if in_place:
        gone = [path for path in migration.old if path not in migration.needed]
        is_removed = removed and not dry_run
        _listed("removed" if is_removed else "not needed any more (--remove_old removes it)", gone)
        _listed("old pages that are the only record of what was left out", sorted(migration.needed))


def _listed(title: str, lines: Iterable[str]) -> None:
    shown = list(lines)
    if shown:
        say(f"{title}:")
    for line in shown:
        say(f"  {line}")


def _taken(project: Project) -> str:
    return f"{project.name}: {', '.join(map(_version, project.versions)) or 'no versions'}"


def _version(version: SiteVersion) -> str:
    if not version.files:
        return f"{version.version} (git, tag {version.tag})"
    count = len(version.files)
    return f"{version.version} ({count} {'file' if count == 1 else 'files'})"
