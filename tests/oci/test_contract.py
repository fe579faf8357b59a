"""The contract over real registries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from private_pypi.backend import Access, AnyStorage, Folders, Secret
from private_pypi.model import Record, Upload
from private_pypi.storage.retrying import retrying
from private_pypi.testing.contract import (
    BurningContract,
    CoreMetadataContract,
    LookupContract,
    PartsContract,
    ProcessesContract,
    ProjectListContract,
    PublishContract,
    RemoteContract,
    RightsPerProjectContract,
    UsageContract,
    YankingContract,
)
from private_pypi_oci import OciBackend, OciSettings
from private_pypi_oci.layout import fit_record
from tests.oci.registries import PASSWORDS, Registry, registry

pytestmark = pytest.mark.needs("docker-registry")

USERS = {password: user for user, password in PASSWORDS.items()}


@dataclass(frozen=True)
class Place:
    """A registry, as other processes reach it."""

    url: str
    settings: dict[str, Any]


class PatientBackend(OciBackend):
    """Calls are repeated, as in a server: two writers of one blob confuse this registry."""

    longest: ClassVar = 0.1  # seconds between two attempts

    def seen_with(self, secret: Secret) -> AnyStorage:
        view = super().seen_with(secret)

        def sleep(seconds: float) -> None:
            time.sleep(min(seconds, self.longest))

        return retrying(view, attempts=5, sleep=sleep)


class OciContract(
    ProcessesContract,
    PublishContract,
    CoreMetadataContract,
    LookupContract,
    ProjectListContract,
    BurningContract,
    YankingContract,
    PartsContract,
    UsageContract,
    RemoteContract,
):
    """What the contract needs to know of this storage."""

    bearer: ClassVar[bool]
    settings: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def running(self, tmp_path: Path) -> Iterator[Registry]:
        with registry(tmp_path / "registry", bearer=self.bearer) as running:
            yield running

    @pytest.fixture
    def place(self, running: Registry) -> Place:
        self.running_now = running
        PatientBackend.longest = 0.1
        return Place(running.url, self.settings)

    def open_backend(self, place: Place, folders: Folders) -> OciBackend:
        settings = OciSettings(
            name="mine",
            max_file_bytes=1 << 30,
            registry=place.url,
            namespace="acme",
            plain_http=True,
            **place.settings,
        )
        return PatientBackend(settings, folders)

    def secret(self, place: Place, name: str) -> Secret:
        return Secret(f"{USERS.get(name, 'walter')}:{name}" if name else "")

    def record_of(self, upload: Upload) -> Record | None:
        return fit_record(upload.record)

    def break_storage(self, place: Place) -> None:
        self.running_now.stop()
        PatientBackend.longest = 0.0  # nobody is waited for


class TestBearer(RightsPerProjectContract, OciContract):
    """Tokens for each repository, as ghcr.io, Harbor and others give them."""

    bearer = True
    makes_projects = True


class TestBasic(OciContract):
    """A registry with a password file: everybody in it may do everything."""

    bearer = False

    # Writing is the same as in TestBearer; these start processes, or ask many times.
    test_two_processes_share_only_the_storage = None
    test_a_writer_that_is_killed_leaves_a_whole_file_or_none = None
    test_sixteen_threads_put_the_same_file = None
    test_sixteen_threads_put_other_bytes_under_one_name = None
    test_a_listing_never_misses_what_was_there_before = None

    def test_a_secret_may_do_what_the_storage_says(self, place: Any, tmp_path: Path) -> None:
        for secret, project_access in (
            (self.read_secret, Access.WRITE),
            (self.write_secret, Access.WRITE),
        ):
            storage = self.open_another(place, tmp_path, secret)
            assert (storage.access(), storage.access("demo")) == (Access.READ, project_access)
        for secret in (self.wrong_secret, "", self.write_secret + "x", "Ünïcode 李"):
            assert self.open_another(place, tmp_path, secret).access() is Access.NONE
