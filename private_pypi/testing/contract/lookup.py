"""The contracts of storages that are asked for one project at a time, and of their projects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from private_pypi.backend import (
    Access,
    SupportsDelete,
    SupportsLookup,
    SupportsProjectList,
    SupportsProjects,
    capability,
)
from private_pypi.distributions.filenames import normalize
from private_pypi.errors import FileNotFound, NotAllowed, ProjectNotFound, WrongSecret
from private_pypi.model import StoredFile
from private_pypi.testing.contract.base import StorageContract
from private_pypi.testing.contract.helpers import (
    Tested,
    access_of,
    content_of,
    files_of,
    make_upload,
    outcome,
    published,
)


class LookupContract(StorageContract):
    """`SupportsLookup`: the storage can list the files of a project.

    The tests publish files of the projects `demo`, `demo-extra` and `other`. The project
    `never-was` must not exist.
    """

    protocol: ClassVar[type | None] = SupportsLookup

    projects: ClassVar[Sequence[str]] = ("demo", "demo-extra", "other")

    def listed(self, storage: Tested) -> list[StoredFile]:
        return [file for project in self.projects for file in files_of(storage, project)]

    def test_a_project_that_never_was_is_a_known_absence(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        """It raises `ProjectNotFound` instead of giving an empty listing."""
        for _ in range(2):
            with pytest.raises(ProjectNotFound):
                list(storage.project_files("never-was"))
            storage.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))

    def test_each_file_of_a_project_is_given_once(self, storage: Tested, tmp_path: Path) -> None:
        """All files are given, with any version and each time, with the right size and hash."""
        uploads = {
            name: make_upload(tmp_path, name, name.encode())
            for name in (
                "demo-10.0.tar.gz",
                "demo-9.0.tar.gz",
                "demo-9.0-py3-none-any.whl",
                "demo-1.0rc1.tar.gz",
                "demo_extra-1.0.tar.gz",
            )
        }
        for upload in uploads.values():
            storage.put_file(upload)
        self.listing(storage, *uploads)
        for _ in range(2):
            stored = list(storage.project_files("demo"))
            mine = {f.filename: f for f in stored if not f.filename.startswith("demo_extra")}
            assert len({file.filename for file in stored}) == len(stored)
            assert set(mine) == set(uploads) - {"demo_extra-1.0.tar.gz"}
            for name, file in mine.items():
                assert file.size == len(name)
                assert file.sha256 in (None, uploads[name].file.sha256)
                assert file.uploaded_at is None or file.uploaded_at.utcoffset() == timedelta(0)

    def test_what_changed_is_given_the_next_time(self, place: Any, tmp_path: Path) -> None:
        """Changes by other servers are seen at once, even if the backend caches answers."""
        mine, theirs = (self.open_another(place, tmp_path) for _ in range(2))
        names = [f"demo-{number}.0.tar.gz" for number in range(3)]
        for count, name in enumerate(names, 1):
            theirs.put_file(make_upload(tmp_path, name, name.encode()))
            assert set(self.listing(mine, *names[:count])) == set(names[:count])
            if capability(theirs, SupportsDelete) is not None and count == 2:
                theirs.delete_file(make_upload(tmp_path, names[0], b"").file)
                assert set(self.listing(mine, names[1])) == {names[1]}
                names[0] = "demo-0.1.tar.gz"  # a name that was deleted is burnt
                theirs.put_file(make_upload(tmp_path, names[0], names[0].encode()))


class ProjectsContract(StorageContract):
    """`SupportsProjects`: the storage can list its projects."""

    protocol: ClassVar[type | None] = SupportsProjects

    def test_the_projects_are_those_that_may_be_read(self, storage: Tested, tmp_path: Path) -> None:
        """Each project is there once, with its normalised name."""
        storage.put_file(make_upload(tmp_path, "demo_extra-1.0.tar.gz", b"content"))
        names = list(storage.projects())
        assert len(names) == len(set(names))
        assert "demo-extra" in names
        assert "never-was" not in names
        assert [name for name in names if normalize(name) != name] == []


class ProjectListContract(ProjectsContract):
    """`SupportsProjectList`: the storage keeps a list of projects for all servers."""

    protocol: ClassVar[type | None] = SupportsProjectList

    def test_the_list_is_complete_without_an_update(self, storage: Tested, tmp_path: Path) -> None:
        """Publishing adds a project to the list, so there is nothing left to add."""
        for name in ("demo-1.0.tar.gz", "demo-2.0.tar.gz", "demo_extra-1.0.tar.gz"):
            storage.put_file(make_upload(tmp_path, name, b"content"))
        assert storage.update_projects() == (0, 2)
        assert list(storage.projects()) == ["demo", "demo-extra"]


class RightsPerProjectContract(LookupContract):
    """A storage with `rights_per_project`: what a secret may do depends on the project."""

    makes_projects: ClassVar[bool] = False
    """True for a storage in which publishing makes a project that was not there."""

    partial_secret: ClassVar[str] = "partial-secret"
    """A secret that may read `demo` and must not see `other`. The rights of `read_secret` and
    `write_secret` are the same for all projects."""

    def test_a_secret_may_do_what_the_storage_says(self, place: Any, tmp_path: Path) -> None:
        """`access()` tells whether a secret is valid, `access(project)` what it may do there."""
        good = (self.read_secret, self.write_secret, self.partial_secret)
        for secret in good:
            assert self.open_another(place, tmp_path, secret).access() >= Access.READ
        for secret in (self.wrong_secret, "", self.write_secret + "x", "Ünïcode 李"):
            assert self.open_another(place, tmp_path, secret).access() is Access.NONE
        rights = {
            (secret, project): access_of(self.open_another(place, tmp_path, secret), project)
            for secret in good
            for project in ("demo", "other", "never-was")
        }
        wrong = self.open_another(place, tmp_path, self.wrong_secret)
        for project in ("demo", "other", "never-was"):
            # The storage may raise `WrongSecret` instead of returning NONE.
            result = outcome(wrong.access, project)
            assert result is Access.NONE or isinstance(result, WrongSecret)
        assert rights == {
            (self.read_secret, "demo"): Access.READ,
            (self.read_secret, "other"): Access.READ,
            (self.read_secret, "never-was"): Access.READ if self.makes_projects else Access.NONE,
            (self.write_secret, "demo"): Access.WRITE,
            (self.write_secret, "other"): Access.WRITE,
            (self.write_secret, "never-was"): Access.WRITE if self.makes_projects else Access.NONE,
            (self.partial_secret, "demo"): Access.READ,
            (self.partial_secret, "other"): Access.NONE,
            (self.partial_secret, "never-was"): Access.NONE,
        }

    def test_what_is_not_shown_to_a_secret_is_absent(self, place: Any, tmp_path: Path) -> None:
        """A secret that may not see a project finds nothing, even if another secret just saw it.

        So caches that all secrets share must not reveal it.
        """
        writer = self.open_another(place, tmp_path)
        partial = self.open_another(place, tmp_path, self.partial_secret)
        upload = make_upload(tmp_path, "other-1.0.tar.gz", b"content")
        writer.put_file(upload)
        stored = self.listing(writer, "other-1.0.tar.gz")["other-1.0.tar.gz"]
        file = published(upload, stored)
        assert content_of(writer.open_file(file)) == b"content"
        # The storage may as well say that it refuses.
        with pytest.raises((ProjectNotFound, NotAllowed)):
            list(partial.project_files("other"))
        with pytest.raises((FileNotFound, NotAllowed)):
            content_of(partial.open_file(file))

    def test_a_secret_that_may_only_read_publishes_nothing(
        self, place: Any, tmp_path: Path
    ) -> None:
        """The storage itself refuses an upload with it, even though the core checks this before."""
        reader = self.open_another(place, tmp_path, self.read_secret)
        with pytest.raises((NotAllowed, ProjectNotFound)):
            reader.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
        assert self.listed(reader) == []
