"""The contract of `SupportsYank`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from private_pypi.backend import SupportsList, SupportsYank, capability
from private_pypi.errors import FileNotFound
from private_pypi.index.stored_document import has_index
from private_pypi.testing.contract.base import StorageContract
from private_pypi.testing.contract.helpers import Tested, content_of, make_upload, published


class YankingContract(StorageContract):
    """`SupportsYank`: the storage stores yanks with its files."""

    protocol: ClassVar[type | None] = SupportsYank

    def test_a_yank_is_kept_beside_the_file_and_changes_nothing_else(
        self, place: Any, tmp_path: Path
    ) -> None:
        """All servers see the yank with exactly its reason; nothing else of the file changes."""
        storage, other = (self.open_another(place, tmp_path) for _ in range(2))
        uploads = [
            make_upload(tmp_path, name, name.encode())
            for name in ("demo-1.0.tar.gz", "demo-1.0.zip", "demo_extra-1.0.tar.gz")
        ]
        stored = {upload.file.filename: self.put(storage, upload) for upload in uploads}
        name = uploads[0].file.filename
        file = published(uploads[0], stored[name])
        strange = 'She said "no"\\n\n# \x00\x7f Ørsted 李 🦄 \u2028\u200f\ufeff'
        for reason in ("broken", "broken", "", strange, None, None, "again"):
            storage.yank_file(file, reason)
            yanked = replace(stored[name], yanked=reason)
            assert self.listing(other, *stored) == {**stored, name: yanked}
            assert content_of(other.open_file(file)) == name.encode()
            self.check_core_metadata(other, uploads[0], stored[name])
        # If the same file is uploaded again, it is still yanked.
        assert self.put(other, uploads[0]) == yanked

    def test_a_yank_of_another_server_is_shown(self, place: Any, tmp_path: Path) -> None:
        """Without an index document, a listing is how a server learns of it."""
        storage, other = (self.open_another(place, tmp_path) for _ in range(2))
        if capability(storage, SupportsList) is None or has_index(storage):
            return
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        file = published(upload, storage.put_file(upload))
        for reason in (None, "broken", "", None):
            other.yank_file(file, reason)
            [shown] = self.index_of(storage).project_files("demo")
            assert shown.yanked == reason

    def test_a_file_that_is_not_there_cannot_be_yanked(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        """It raises `FileNotFound`, and no file is created."""
        for reason in ("broken", None):
            with pytest.raises(FileNotFound):
                storage.yank_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"").file, reason)
        assert self.listed(storage) == []
