"""Repositories: what their local indexes are copies of, whatever else a table says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import AnyBackend, BackendSettings, Secret, SupportsList, can
from private_pypi.configuration.config import RepositorySettings
from private_pypi.index.local import LocalIndex
from private_pypi.repositories import Absent, LookedUp, Repository, Synchronized, make_folders
from private_pypi.storage.verdicts import Expiry
from private_pypi_file_system.backend import FileSystemBackend, FileSystemSettings
from private_pypi_github import GitHubBackend, GitHubProjectsBackend
from private_pypi_github.backend import GitHubSettings
from private_pypi_github.projects import GitHubProjectsSettings
from tests.index.test_local import burn, file

COMMON: dict[str, Any] = {"name": "mine", "max_file_bytes": 1000}
FOLDER = FileSystemSettings(**COMMON, path=Path("/srv/mine"), read_secret=(Secret("hush"),))
GITHUB = GitHubSettings(**COMMON, owner="acme", repo="packages")
PROJECTS = GitHubProjectsSettings(**COMMON, owner="acme")
API = "https://api.github.com"


def repository(
    tmp_path: Path, type_: str, backend_class: type[AnyBackend], settings: BackendSettings
) -> Repository:
    """The repository `mine` of a ROOT; nothing of it is started."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    kind = Synchronized if can(backend_class, SupportsList) else LookedUp
    return kind(
        RepositorySettings(
            name="mine",
            type=type_,
            backend_class=backend_class,
            backend=settings,
            max_file_bytes=1000,
            sync_index_interval=timedelta(seconds=60),
            stale_for=timedelta(0),
            extra_index_url=None,
            claimed=(),
            anonymous_read=False,
            admin_secret=None,
        ),
        backend_class(settings, make_folders(tmp_path, "mine", tmp_path / "tmp")),
        index_folder=tmp_path,
        extra_index_url="https://index.invalid/simple/",
        expiry=Expiry(timedelta(hours=1), timedelta(minutes=5)),
    )


# As the version before wrote them: with every key, also those at their defaults.
WRITTEN = [
    (
        "file_system",
        FileSystemBackend,
        FOLDER,
        "file_system\nname=mine\npath=/srv/mine\nwrite_secret=()",
    ),
    (
        "github",
        GitHubBackend,
        GITHUB,
        f"github\nname=mine\nowner=acme\nrepo=packages\nbranch=None\nindex_filename=index.toml\n"
        f"api_url={API}",
    ),
    (
        "github_projects",
        GitHubProjectsBackend,
        PROJECTS,
        "github_projects\nname=mine\nowner=acme\nowners=()\nany_owner=False\nreplace=()\n"
        f"prereleases=True\ninclude=()\nexclude=()\napi_url={API}",
    ),
]


@pytest.mark.parametrize(("type_", "backend_class", "settings", "text"), WRITTEN)
def test_an_index_of_the_version_before_is_kept(
    tmp_path: Path,
    type_: str,
    backend_class: type[AnyBackend],
    settings: BackendSettings,
    text: str,
) -> None:
    LocalIndex(tmp_path / "index.sqlite", identity=text).add_file(file(), "1")
    opened = repository(tmp_path, type_, backend_class, settings)
    assert opened.index.project_files("demo") == (file(),)
    opened.close()


CHANGES = [
    # (settings, changed, whether the index is kept, whether burnt names hold)
    (*WRITTEN[0][:3], {"read_secret": ()}, True, True),
    (*WRITTEN[0][:3], {"write_secret": (Secret("new"),)}, True, True),
    (*WRITTEN[0][:3], {"max_file_bytes": 1}, True, True),
    (*WRITTEN[0][:3], {"path": Path("/srv/other")}, False, False),
    (*WRITTEN[1][:3], {"download": "redirect", "cache_bytes": 1}, True, True),
    (*WRITTEN[1][:3], {"branch": "packages"}, False, True),
    (*WRITTEN[1][:3], {"index_filename": "other.toml"}, False, True),
    (*WRITTEN[1][:3], {"repo": "other"}, False, False),
    (*WRITTEN[2][:3], {"include": ("*.whl",)}, False, True),
    (*WRITTEN[2][:3], {"prereleases": False}, False, True),
    (*WRITTEN[2][:3], {"owner": "other"}, False, False),
]


@pytest.mark.parametrize(
    ("type_", "backend_class", "settings", "changed", "is_kept", "is_burnt"), CHANGES
)
def test_a_changed_key_forgets_no_name_of_the_storage(
    tmp_path: Path,
    type_: str,
    backend_class: type[AnyBackend],
    settings: BackendSettings,
    changed: dict[str, Any],
    is_kept: bool,
    is_burnt: bool,
) -> None:
    before = repository(tmp_path, type_, backend_class, settings)
    before.index.add_file(file(), "1")
    burn(before.index, "other-1.0.tar.gz")
    before.close()
    after = repository(tmp_path, type_, backend_class, replace(settings, **changed))
    assert (after.index.project_files("demo") == (file(),)) == is_kept
    assert (after.index.burnt("Other-1.0.0.tar.gz") is not None) == is_burnt
    for project in ("demo", "other"):  # private for ever
        assert after.index.project_serial(project) is not None
        assert after.missing(file(f"{project}-1.0.zip").project) == Absent()
    after.close()
    back = repository(tmp_path, type_, backend_class, settings)
    assert back.index.burnt("other-1.0.tar.gz") is not None
    back.close()
