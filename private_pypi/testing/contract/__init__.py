"""The tests that every backend has to pass. They define what a backend has to do.

There is a test class for pytest, a *contract*, for each protocol in
`private_pypi.backend.capabilities`. The test class of a backend derives from the contracts of the
protocols that its storage supports. `BackendContract` combines those of a usual storage: one that
lists its files, accepts uploads, stores records and core metadata, and replaces its index document
by compare and swap.

    from private_pypi.testing.contract import BackendContract, DeletingContract

    class TestMyBackend(BackendContract, DeletingContract):
        @pytest.fixture
        def place(self, tmp_path):
            return tmp_path / "packages.db"

        def open_backend(self, place, folders):
            settings = MySettings(
                name="mine",
                max_file_bytes=1 << 30,
                path=place,
                read_secret=(Secret(self.read_secret),),
                write_secret=(Secret(self.write_secret),),
            )
            return MyBackend(settings, folders)

        def break_storage(self, place):
            place.unlink()

For a storage that can only list the files of one project at a time, derive from `LookupContract`
and from the contracts of its other abilities. For a storage that is another index, derive from
`UpstreamContract`.

Give the tests an empty storage that nothing else uses. They write and delete files of the projects
`demo`, `demo-extra` and `other`, replace the index document, and kill their own child processes
while these are writing. New tests may be added: if a bug is found in one backend, a test for it is
added here, and another backend that used to pass may fail it.

If an assertion fails, pytest shows the values in it. The entry point `private_pypi` in the group
`pytest11` arranges this for the assertions of this package.
"""

from __future__ import annotations

from private_pypi.testing.contract.base import RemoteContract, StorageContract
from private_pypi.testing.contract.core_metadata import CoreMetadataContract
from private_pypi.testing.contract.deleting import BurningContract, DeletingContract
from private_pypi.testing.contract.index_document import (
    OverwriteIndexContract,
    ReplaceIndexContract,
)
from private_pypi.testing.contract.listing import (
    FindContract,
    KeepOpenContract,
    ListContract,
    ListingMarkContract,
    ListPartsContract,
    RecentContract,
    SweepContract,
)
from private_pypi.testing.contract.lookup import (
    LookupContract,
    ProjectListContract,
    ProjectsContract,
    RightsPerProjectContract,
)
from private_pypi.testing.contract.parts import (
    AliasesContract,
    PartsContract,
    PublicAddressesContract,
    UsageContract,
)
from private_pypi.testing.contract.processes import ProcessesContract
from private_pypi.testing.contract.publishing import PublishContract
from private_pypi.testing.contract.records import KeptRecordsContract, RecordsContract
from private_pypi.testing.contract.upstream import UpstreamContract
from private_pypi.testing.contract.yanking import YankingContract


class InProcessContract(
    ListContract, PublishContract, CoreMetadataContract, KeptRecordsContract, ReplaceIndexContract
):
    """The same as `BackendContract`, for a storage that exists in one process only."""


class BackendContract(ProcessesContract, InProcessContract):
    """The contract of a usual storage. `place` must be picklable for child processes."""


__all__ = [
    "AliasesContract",
    "BackendContract",
    "BurningContract",
    "CoreMetadataContract",
    "DeletingContract",
    "FindContract",
    "InProcessContract",
    "KeepOpenContract",
    "KeptRecordsContract",
    "ListContract",
    "ListPartsContract",
    "ListingMarkContract",
    "LookupContract",
    "OverwriteIndexContract",
    "PartsContract",
    "ProcessesContract",
    "ProjectListContract",
    "ProjectsContract",
    "PublicAddressesContract",
    "PublishContract",
    "RecentContract",
    "RecordsContract",
    "RemoteContract",
    "ReplaceIndexContract",
    "RightsPerProjectContract",
    "StorageContract",
    "SweepContract",
    "UpstreamContract",
    "UsageContract",
    "YankingContract",
]
