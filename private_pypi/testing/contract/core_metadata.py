"""The contract of `SupportsCoreMetadata`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from private_pypi.backend import SupportsCoreMetadata
from private_pypi.errors import FileNotFound
from private_pypi.testing.contract.base import StorageContract
from private_pypi.testing.contract.helpers import Tested, content_of, make_upload, published


class CoreMetadataContract(StorageContract):
    """`SupportsCoreMetadata`: the storage stores core metadata separately."""

    protocol: ClassVar[type | None] = SupportsCoreMetadata

    def test_core_metadata_is_kept_byte_for_byte(self, storage: Tested, tmp_path: Path) -> None:
        """Core metadata is not changed, because installers check its hash."""
        content = "Metadata-Version: 2.4\r\nName: demo\n\nÜber\x00\n\n".encode()
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content", core_metadata=content)
        file = published(upload, storage.put_file(upload))
        assert content_of(storage.open_core_metadata(file)) == content

    def test_no_core_metadata_is_an_absence(self, storage: Tested, tmp_path: Path) -> None:
        """If a file has no core metadata, it raises `FileNotFound`, and the file can be opened."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content", core_metadata=None)
        file = published(upload, storage.put_file(upload))
        with pytest.raises(FileNotFound):
            content_of(storage.open_core_metadata(file))
        assert content_of(storage.open_file(file)) == b"content"
