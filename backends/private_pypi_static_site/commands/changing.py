"""The commands `static_site.register`, `.update`, `.delete` and `.yank`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from private_pypi.backend import system_errors
from private_pypi.commands.command_line import UsageError
from private_pypi.commands.files import one_secret, say, warn
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making import changing
from private_pypi_static_site.making.releases import API_URL
from private_pypi_static_site.making.summaries import Summary
from private_pypi_static_site.project_file import Project


def register(
    package_name: str,
    version: str,
    *,
    homepage: str,
    author: str | None = None,
    short_desc: str | None = None,
    as_: str | None = None,
    folder: str = ".",
    host_files: bool = False,
    link_only: bool = False,
    build: bool = False,
    token_env: str | None = None,
    api_url: str = API_URL,
    summary: str | None = None,
    environ: Mapping[str, str],
) -> None:
    """Add a project with its first version to a site.

    The wheels and the sdist are those of the release on GitHub that has the tag VERSION, with or
    without a leading v. If there are none, they are built from the tag, which runs code of the
    project: do it where there are no secrets. The site links to the files of a public repository,
    and has a copy of files that were built.
    Of a private repository, the site has only the tag and the README, and installers need access
    to the repository. With --host_files, its files are as public as the site.

    Args:
        package_name: The name of the project, as its files have it.
        version: The version, or the tag in the repository.
        homepage: The address of the repository, https://github.com/OWNER/REPOSITORY.
        author: Who made it. Default: what the metadata say.
        short_desc: What it is, in one line. Default: what the metadata say.
        as_: Another name for the project in the site, for example because the public index has
            a project of its name. The wheels are rebuilt under this name.
        folder: The folder of the site.
        host_files: Put the files into the site instead of linking to the release.
        link_only: Add no files, but only the tag, which installers get with git.
        build: Build the files from the tag, even if there is a release with files.
        token_env: The name of the environment variable that contains a token for the repository.
        api_url: The address of the API. For GitHub Enterprise Server: https://HOST/api/v3
        summary: A file to which a description of the change is written, as Markdown for a pull
            request.

    Example:
        private_pypi static_site.register demo v1.0 --homepage https://github.com/acme/demo
    """
    source = _source(version, host_files, link_only, build, token_env, api_url, environ)
    project = Project(
        name=as_ if as_ is not None else package_name,
        source=package_name if as_ is not None else None,
        homepage=homepage,
        author=author or None,
        summary=short_desc or None,
    )
    _tell(changing.register(_site(folder), project, source), summary)


def update(
    package_name: str,
    version: str,
    *,
    folder: str = ".",
    host_files: bool = False,
    link_only: bool = False,
    build: bool = False,
    token_env: str | None = None,
    api_url: str = API_URL,
    summary: str | None = None,
    environ: Mapping[str, str],
) -> None:
    """Add a version to a project of a site.

    The files come from the homepage in the project's file, in the same way as for
    static_site.register.

    Args:
        package_name: The name of the project in the site.
        version: The version, or the tag in the repository.
        folder: The folder of the site.
        host_files: Put the files into the site instead of linking to the release.
        link_only: Add no files, but only the tag, which installers get with git.
        build: Build the files from the tag, even if there is a release with files.
        token_env: The name of the environment variable that contains a token for the repository.
        api_url: The address of the API. For GitHub Enterprise Server: https://HOST/api/v3
        summary: A file to which a description of the change is written, as Markdown for a pull
            request.

    Example:
        private_pypi static_site.update demo v1.1
    """
    source = _source(version, host_files, link_only, build, token_env, api_url, environ)
    _tell(changing.update(_site(folder), package_name, source), summary)


def delete(
    package_name: str,
    *,
    version: str | None = None,
    folder: str = ".",
    summary: str | None = None,
) -> None:
    """Remove a project or one version from a site, with the files that the site has of it.

    Args:
        package_name: The name of the project in the site.
        version: The version. Default: the whole project.
        folder: The folder of the site.
        summary: A file to which a description of the change is written, as Markdown for a pull
            request.

    Example:
        private_pypi static_site.delete demo --version 1.0
    """
    if version == "":  # from an unset variable; it must not mean the whole project
        raise UsageError("--version is empty; leave it out to delete the whole project")
    _tell(changing.delete(_site(folder), package_name, version), summary)


def yank(
    package_name: str,
    version: str,
    *,
    filename: str | None = None,
    reason: str = "",
    undo: bool = False,
    folder: str = ".",
    summary: str | None = None,
) -> None:
    """Yank a version of a site or one of its files, so that installers avoid it.

    Installers then use it only for requirements that name exactly this version (PEP 592).

    Args:
        package_name: The name of the project in the site.
        version: The version.
        filename: One file of the version. Default: all of them.
        reason: A sentence that installers show to their users.
        undo: Take the yank back.
        folder: The folder of the site.
        summary: A file to which a description of the change is written, as Markdown for a pull
            request.

    Example:
        private_pypi static_site.yank demo 1.0 --reason "broken on 3.13"
    """
    if undo and reason:
        raise UsageError("--undo needs no --reason")
    if filename == "":  # from an unset variable; it must not mean all files
        raise UsageError("--filename is empty; leave it out to yank all files")
    changed = changing.yank(
        _site(folder), package_name, version, filename, None if undo else reason
    )
    _tell(changed, summary)


def _site(folder: str) -> SiteFolder:
    if not folder:  # from an unset variable; it must not mean the working directory
        raise UsageError("--folder is empty; give the path of a folder")
    return SiteFolder(Path(folder).absolute())


def _source(
    version: str,
    host_files: bool,
    link_only: bool,
    build: bool,
    token_env: str | None,
    api_url: str,
    environ: Mapping[str, str],
) -> changing.Source:
    return changing.Source(
        tag=version,
        api_url=api_url,
        token=one_secret("token", env=token_env, environ=environ),
        host_files=host_files,
        link_only=link_only,
        build=build,
        environ=environ,
    )


def _tell(summary: Summary, path: str | None) -> None:
    say(summary.text())
    for sentence in summary.warnings:
        warn(f"warning: {sentence}")
    if path is not None:
        with system_errors(f"cannot write {path!r}"):
            Path(path).write_text(summary.markdown(), encoding="utf-8")
