"""The contract over registries that can do more, and less, than the real one of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from private_pypi.backend import Access, Folders
from private_pypi.errors import NotAllowed
from private_pypi.model import StoredFile
from private_pypi.testing.contract import RightsPerProjectContract
from private_pypi.testing.contract.helpers import access_of, files_of, make_upload
from private_pypi_oci import OciBackend, OciSettings
from tests.oci.small_registry import Abilities, SmallRegistry, small_registry
from tests.oci.test_contract import OciContract, Place


class SmallContract(OciContract):
    """The contract over a registry in memory, without anything that repeats calls."""

    abilities: ClassVar[Abilities]
    broken: ClassVar[int]  # the status that a registry in trouble answers

    test_a_big_file_takes_constant_memory = None  # the registry itself is in this memory

    @pytest.fixture
    def place(self) -> Iterator[Place]:  # type: ignore[override]
        with small_registry(self.abilities) as running:
            self.running = running
            yield Place(running.url, self.settings)

    running: SmallRegistry  # type: ignore[assignment]

    def open_backend(self, place: Place, folders: Folders) -> OciBackend:
        settings = OciSettings(
            name="mine",
            max_file_bytes=1 << 30,
            registry=place.url,
            namespace="acme",
            plain_http=True,
            **place.settings,
        )
        return OciBackend(settings, folders)

    def break_storage(self, place: Place) -> None:
        self.running.fail(1 << 30, self.broken, retry_after=0)

    def requests_made(self, place: Place) -> int:
        return self.running.counts.total()


class TestEverything(SmallContract):
    """Pages of tags, deletion of tags, conditional writes, and blobs from a second host."""

    abilities = Abilities(redirects=True)
    broken = 429

    test_a_writer_that_is_killed_leaves_a_whole_file_or_none = None  # as over a real registry

    def test_a_secret_may_do_what_the_storage_says(self, place: Any, tmp_path: Path) -> None:
        """Basic does not tell who may write."""
        assert self.open_another(place, tmp_path, self.read_secret).access("demo") is Access.WRITE
        for secret in (self.wrong_secret, "", self.write_secret + "x"):
            assert self.open_another(place, tmp_path, secret).access() is Access.NONE


class TestLikeGhcr(RightsPerProjectContract, SmallContract):
    """Opaque tokens, no deletion, no catalogue, and 403 for what is not there."""

    abilities = Abilities(
        page=100,
        deletes=frozenset(),
        conditions=False,
        unknown=403,
        catalogue=404,
        bearer=True,
        redirects=True,
    )
    broken = 503

    # Writing is the same as in TestEverything.
    test_a_writer_that_is_killed_leaves_a_whole_file_or_none = None
    test_sixteen_threads_put_other_bytes_under_one_name = None
    test_a_listing_never_misses_what_was_there_before = None

    def listed(self, storage: Any) -> list[StoredFile]:
        files = []
        for project in self.projects:
            try:
                files += files_of(storage, project)
            except NotAllowed:
                continue
        return files

    def test_a_project_that_never_was_is_a_known_absence(
        self, storage: Any, tmp_path: Path
    ) -> None:
        """It is not: this registry does not tell it from a project that is not shown."""
        for _ in range(2):
            with pytest.raises(NotAllowed):
                list(storage.project_files("never-was"))
            storage.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))

    def test_a_missing_file_is_a_known_absence(self, storage: Any, tmp_path: Path) -> None:
        """In a project that is there."""
        storage.put_file(make_upload(tmp_path, "other-0.1.tar.gz", b"content"))
        super().test_a_missing_file_is_a_known_absence(storage, tmp_path)

    def test_a_secret_may_do_what_the_storage_says(self, place: Any, tmp_path: Path) -> None:
        """Who may publish a project that is not there yet is found out by beginning an upload."""
        secrets = (self.read_secret, self.write_secret, self.partial_secret, self.wrong_secret)

        def rights() -> list[Access]:
            return [
                access_of(self.open_another(place, tmp_path, secret), "demo") for secret in secrets
            ]

        assert rights() == [Access.NONE, Access.WRITE, Access.NONE, Access.NONE]
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        self.open_another(place, tmp_path).put_file(upload)
        # The tokens do not tell who may write.
        assert rights() == [Access.WRITE, Access.WRITE, Access.WRITE, Access.NONE]
        partial = self.open_another(place, tmp_path, self.partial_secret)
        assert [stored.filename for stored in partial.project_files("demo")] == ["demo-1.0.tar.gz"]
