"""The contracts of storages that store records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from private_pypi.backend import SupportsRecords
from private_pypi.testing.contract.base import StorageContract
from private_pypi.testing.contract.helpers import Tested, make_upload


class KeptRecordsContract(StorageContract):
    """A storage that stores records, and returns them with a listing or on request."""

    def test_a_record_comes_back_exactly(self, storage: Tested, tmp_path: Path) -> None:
        """A record is not changed, even with quotes, control characters, emoji or empty texts."""
        strange = {
            "keywords": 'She said "no"\\n, \'\'\' and """ \\u0041 #',
            "author": "Ørsted 李 🦄 \u2028\u200f\ufeff",
            "lines": "one\ntwo\r\nthree\ttabbed \x00\x07\x1b\x7f\x85",
            "key with spaces.and = [signs] \"'\n": "value",
            "": "empty key",
            "empty value": "",
            ":action": "file_upload",
            "stamp": "a field of the form",
            "long": "x" * 50_000,
        }
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content", strange)
        assert set(strange) < set(upload.record)
        assert self.put(storage, upload).record == upload.record
        listed = self.listing(storage, "demo-1.0.tar.gz")
        assert listed["demo-1.0.tar.gz"].record == upload.record


class RecordsContract(KeptRecordsContract):
    """`SupportsRecords`: records are requested one by one."""

    protocol: ClassVar[type | None] = SupportsRecords

    def test_a_record_that_is_not_there_is_none(self, storage: Tested, tmp_path: Path) -> None:
        """There is no error, because a file may be deleted or replaced right after a listing."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = self.put(storage, upload)
        gone = replace(stored, filename="demo-2.0.tar.gz", record=None)
        assert storage.read_record(gone) is None
        of_other_bytes = replace(stored, stamp="another stamp", record=None)
        assert storage.read_record(of_other_bytes) is None
        assert storage.read_record(replace(stored, record=None)) == upload.record
