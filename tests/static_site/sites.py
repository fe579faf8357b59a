"""Folders of sites for tests, and repositories of git for them."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from packaging.utils import canonicalize_name

from private_pypi.distributions.filenames import parse_filename
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.project_file import Project, SiteFile, SiteVersion
from tests.machine import need

UPLOADED = datetime(2026, 1, 3, 12, 30, tzinfo=UTC)


def make_site(path: Path) -> SiteFolder:
    """An empty site."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "site.toml").write_text('title = "Packages of acme"\n')
    return SiteFolder(path)


def host(site: SiteFolder, filename: str, content: bytes, **changes: object) -> SiteFile:
    """Add a hosted file to the site, as a person or a command does."""
    parsed = parse_filename(filename)
    name = canonicalize_name(parsed.project)
    site.write(site.hosted(name, filename), content)
    values: dict[str, object] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "uploaded_at": UPLOADED,
    }
    file = SiteFile(filename=filename, **{**values, **changes})  # type: ignore[arg-type]
    project = site.project(name) or Project(name=name)
    version = project.find(str(parsed.version)) or SiteVersion(version=str(parsed.version))
    others = [each for each in project.versions if each is not version]
    changed = SiteVersion(version=version.version, files=(*version.files, file))
    site.write_project(Project(name=project.name, versions=(*others, changed)))
    return file


def leftovers(path: Path) -> list[str]:
    """What is in a site and belongs to no file of a project."""
    site = SiteFolder(path)
    known = {"site.toml", ".private_pypi-site.lock"}
    for project in site.projects():
        known.add(f"projects/{project.normalized}.toml")
        for version in project.versions:
            for file in version.files:
                hosted = f"packages/{project.normalized}/{file.filename}"
                known |= {hosted, f"{hosted}.metadata"}
    found = {str(each.relative_to(path)) for each in path.rglob("*") if each.is_file()}
    return sorted(each for each in found - known if not each.startswith(".git/"))


def git(folder: Path, *arguments: str) -> str:
    """What git writes; it has to succeed."""
    program = need("git")
    ended = subprocess.run(
        [program, "-C", folder, *arguments], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, f"{arguments}: {ended.stderr}"
    return ended.stdout


def make_repository(folder: Path) -> None:
    """Make the folder a repository of git in which everything is committed."""
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "user.name", "Ann")
    git(folder, "config", "user.email", "ann@example.org")
    commit_all(folder, "Begin")


def commit_all(folder: Path, message: str) -> None:
    """Commit all that is in the folder."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)


def messages(folder: Path) -> list[str]:
    """The first lines of the messages of all commits, the newest one first."""
    return git(folder, "log", "--format=%s").splitlines()


def make_upstream(folder: Path, bare: Path) -> None:
    """A bare repository, to which the folder pushes."""
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    git(folder, "remote", "add", "origin", str(bare))
    git(folder, "push", "--quiet", "--set-upstream", "origin", "main")


def clone(bare: Path, folder: Path) -> None:
    """Another clone of an upstream, of somebody else."""
    git(bare, "clone", "--quiet", str(bare), str(folder))
    git(folder, "config", "user.name", "Bob")
    git(folder, "config", "user.email", "bob@example.org")
