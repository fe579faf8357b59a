"""The command `static_site.init`."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Final

import tomlkit
from packaging.requirements import Requirement

from private_pypi.backend import system_errors
from private_pypi.commands import requirement as installation
from private_pypi.commands.command_line import UsageError
from private_pypi.commands.files import say, warn
from private_pypi.errors import ConfigurationError
from private_pypi_static_site.folder import SETTINGS, SiteFolder
from private_pypi_static_site.git import ATTRIBUTES, EXACT
from private_pypi_static_site.project_file import is_url

MARK: Final = (
    "# Made by `private_pypi static_site.init`, which renews it while this line is here.\n"
)
"""The first line of a workflow that may be replaced by a newer one.

It must never change, because it is in the workflows of existing sites.
"""

_MAKING: Final = Path(__file__).parents[1] / "making"
_TEMPLATES: Final = ("", "github-pages")
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")


def init(
    *,
    folder: str = ".",
    title: str | None = None,
    url: str | None = None,
    template: str = "",
    repository: str | None = None,
    branch: str = "main",
    requirement: str | None = None,
    environ: Mapping[str, str],
) -> None:
    """Make a folder a static site, or renew its workflows.

    The folder gets the file site.toml, a folder for projects, and a .gitignore. With --template
    github-pages it also gets a README and workflows that register, update and delete projects by
    pull requests, and that publish the pages on GitHub Pages.

    If the command is run again, it adds what is missing and renews its workflows. It does not
    change any other files.

    Args:
        folder: The folder. It is created if it does not exist.
        title: The title of the pages.
        url: The address at which the site is served, such as https://acme.github.io/pypi/. Default
            with --repository: its address on GitHub Pages.
        template: What else the folder is set up for: github-pages.
        repository: The repository on GitHub that the folder is pushed to, as OWNER/NAME.
        branch: The branch whose pages are published.
        requirement: What the workflows pass to pip to install this project. Default: the origin of
            this installation.

    Example:
        private_pypi static_site.init --folder pypi --template github-pages --repository acme/pypi
    """
    if not folder:
        raise UsageError("--folder is empty; give the path of a folder")
    if template not in _TEMPLATES:
        raise UsageError(f"--template: {template!r} is unknown; known: github-pages")
    if repository is not None and not _REPOSITORY.fullmatch(repository):
        raise UsageError(f"--repository: {repository!r} is not of the form OWNER/NAME")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", branch):
        raise UsageError(f"--branch: {branch!r} cannot be written into a workflow")
    if url is None and repository is not None:
        url = _pages_of(repository)
    if url and not is_url(url):
        raise UsageError(f"--url: {url!r} is not an http or https address")
    site = SiteFolder(Path(folder).absolute())
    workflows = _workflows(requirement, branch, environ) if template else {}
    with system_errors(f"cannot make {str(site.root)!r}"):
        (site.root / "projects").mkdir(parents=True, exist_ok=True)
    with site.changing():
        _write_settings(site, title, url)
        if template:
            for name, text in workflows.items():
                _renew(site, Path(".github", "workflows", name), text)
            _add(site, Path("README.md"), _readme(site, repository))
        _add(site, Path(".gitignore"), "_site/\n.private_pypi-*\n")
        attributes = "".join(f"{each} {ATTRIBUTES}\n" for each in EXACT)
        _add(site, Path(".gitattributes"), attributes)
        _add(site, Path("projects", ".gitkeep"), "")
    if template:
        say(
            "\nCommit and push the folder. Then, in the settings of the repository on GitHub:\n"
            "- Pages: choose “GitHub Actions” as the source.\n"
            "- Actions, General: allow workflows to create pull requests.\n"
            "- Secrets, Actions: SOURCES_TOKEN, a token that may read the repositories of private\n"
            "  packages, if there are any."
        )
    else:
        where = shlex.quote(os.path.relpath(site.root))
        say(
            f"\nNext: private_pypi static_site.register PROJECT VERSION --folder={where} \\\n"
            "    --homepage=https://github.com/OWNER/REPOSITORY"
        )


def _pages_of(repository: str) -> str:
    """Where GitHub Pages serves a repository ("About GitHub Pages", types of sites)."""
    owner, _, name = repository.lower().partition("/")
    return f"https://{owner}.github.io/" + ("" if name == f"{owner}.github.io" else f"{name}/")


def _write_settings(site: SiteFolder, title: str | None, url: str | None) -> None:
    path = site.root / SETTINGS
    is_new = not path.exists()
    if not is_new:
        site.settings()  # raises if it is wrong
    document = tomlkit.document() if is_new else tomlkit.parse(path.read_text(encoding="utf-8"))
    for key, value in (("title", title), ("url", url)):
        if value is not None:
            document[key] = value
    document.setdefault("title", "Python packages")
    document.setdefault("url", "")
    text = tomlkit.dumps(document)
    if is_new or text != path.read_text(encoding="utf-8"):
        site.write(path, text.encode())
        site.settings()
        say(f"{'wrote' if is_new else 'changed'} {SETTINGS}")


def _workflows(requirement: str | None, branch: str, environ: Mapping[str, str]) -> dict[str, str]:
    if requirement is None:
        told = installation.installed_from(environ)
        for sentence in told.warnings:
            warn(f"warning: {sentence}")
        requirement = told.requirement
    else:
        requirement = installation.check_requirement(requirement)
    if re.match(r"(?:git\+)?https?://", requirement):
        requirement = f"{installation.PROJECT} @ {requirement}"
    parsed = Requirement(requirement)
    parsed.extras.add("build")  # for projects whose releases have no files
    requirement = str(parsed)
    if not requirement.isprintable() or re.search(r'["\\]|\$\{\{', requirement):
        raise ConfigurationError(
            f"--requirement: {requirement!r} cannot be written into a workflow"
        )
    found = {}
    for path in sorted((_MAKING / "workflows").glob("*.yml")):
        text = path.read_text(encoding="utf-8")
        assert text.startswith(MARK), path
        text = text.replace('REQUIREMENT: "private-pypi"', f'REQUIREMENT: "{requirement}"')
        found[path.name] = text.replace("branches: [main]", f"branches: [{branch}]")
    return found


def _renew(site: SiteFolder, path: Path, text: str) -> None:
    """Write a workflow, unless somebody has made it their own."""
    target = site.root / path
    old = target.read_text(encoding="utf-8") if target.exists() else None
    if old == text:
        return
    if old is not None and not old.startswith(MARK):
        warn(f"note: {path} is not of this command, and stays as it is")
        return
    site.write(target, text.encode())
    say(f"{'wrote' if old is None else 'renewed'} {path}")


def _add(site: SiteFolder, path: Path, text: str) -> None:
    if not os.path.lexists(site.root / path):
        site.write(site.root / path, text.encode())
        if text:
            say(f"wrote {path}")


def _readme(site: SiteFolder, repository: str | None) -> str:
    settings = site.settings()
    address = f"https://github.com/{repository}" if repository else "https://github.com/OWNER/NAME"
    text = (_MAKING / "readme_of_a_site.md").read_text(encoding="utf-8")
    return Template(text).substitute(
        title=settings.title, url=settings.url or "https://OWNER.github.io/NAME/", address=address
    )
