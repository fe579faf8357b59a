"""The contracts of other protocols for reading, and of `SupportsUsage`."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import pytest

from private_pypi.backend import (
    SupportsAliases,
    SupportsParts,
    SupportsPublicAddresses,
    SupportsUsage,
)
from private_pypi.errors import FileNotFound, PrivatePypiError
from private_pypi.index.examining import handle_of
from private_pypi.model import Redirect, StoredFile
from private_pypi.testing.contract.base import StorageContract
from private_pypi.testing.contract.helpers import Tested, content_of, make_upload, published


class PartsContract(StorageContract):
    """`SupportsParts`: the storage can return a part of a file."""

    protocol: ClassVar[type | None] = SupportsParts

    def test_parts_are_those_of_the_whole(self, storage: Tested, tmp_path: Path) -> None:
        """Parts at the beginning, at the end, across the end and after it are right."""
        content = random.Random(7).randbytes(300_000)
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", content)
        location = self.put(storage, upload).location
        for start, length in (
            (0, 1),
            (0, 300_000),
            (1, 65_536),
            (299_999, 1),
            (299_990, 100),
            (300_000, 1),
            (400_000, 5),
        ):
            assert storage.read_part(location, start, length) == content[start : start + length]

    def test_a_part_of_a_file_from_elsewhere_is_refused(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        """A location that the storage did not give to a file is an error, as for whole files."""
        secret = tmp_path / "secret.txt"
        secret.write_text("secret")
        self.put(storage, make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
        for location in (str(secret), secret.as_uri(), "", "/", "..", "\x00"):
            with pytest.raises(PrivatePypiError):
                storage.read_part(location, 0, 6)


class AliasesContract(StorageContract):
    """`SupportsAliases`: the download addresses of older servers still work."""

    protocol: ClassVar[type | None] = SupportsAliases

    def alias(self, place: Any, stored: StoredFile) -> str:
        """Override: return the identifier of this file in the addresses of older servers."""
        raise NotImplementedError("override `alias`")

    def test_an_identifier_opens_its_file(self, place: Any, tmp_path: Path) -> None:
        """The identifier of a file leads to it, and an unknown one leads to nothing."""
        storage = self.open_another(place, tmp_path)
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = storage.put_file(upload)
        found = storage.find_alias(self.alias(place, stored), "demo-1.0.tar.gz")
        assert (found.filename, found.size) == ("demo-1.0.tar.gz", 7)
        assert found.sha256 in (None, upload.file.sha256)
        assert content_of(storage.open_file(handle_of(found))) == b"content"
        for unknown in ("x", "RA_unknown", "../demo", "%00"):
            with pytest.raises(FileNotFound):
                storage.find_alias(unknown, "demo-1.0.tar.gz")


class PublicAddressesContract(StorageContract):
    """`SupportsPublicAddresses`: everybody can fetch files of a public storage.

    The storage that `place` creates must not be public.
    """

    protocol: ClassVar[type | None] = SupportsPublicAddresses

    def make_public(self, place: Any) -> None:
        """Override: let everybody read the storage."""
        raise NotImplementedError("override `make_public`")

    def test_a_storage_with_secrets_has_no_public_addresses(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        """What only some may read is nothing that a page could link to."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        file = published(upload, storage.put_file(upload))
        assert storage.public_addresses([file]) == {}

    def test_everybody_can_fetch_what_has_an_address(self, place: Any, tmp_path: Path) -> None:
        """The file and its core metadata are there without a secret, under the name of the file."""
        storage = self.open_another(place, tmp_path)
        upload = make_upload(tmp_path, "demo-1.0+local.1.tar.gz", b"content")
        bare = make_upload(tmp_path, "demo-2.0.tar.gz", b"bare", core_metadata=None)
        files = {
            each.file.filename: published(each, storage.put_file(each)) for each in (upload, bare)
        }
        self.make_public(place)
        found = self.open_another(place, tmp_path).public_addresses(list(files.values()))
        assert found.keys() == files.keys()
        for name, address in found.items():
            parts = urlsplit(address.url)
            assert unquote(parts.path.rpartition("/")[2]) == name
            assert (parts.query, parts.fragment, parts.username) == ("", "", None)
        first, second = found["demo-1.0+local.1.tar.gz"], found["demo-2.0.tar.gz"]
        assert content_of(Redirect(first.url, None)) == b"content"
        assert content_of(Redirect(second.url, None)) == b"bare"
        if first.has_core_metadata:  # a storage need not be able to tell
            assert content_of(Redirect(f"{first.url}.metadata", None)) == upload.core_metadata
        assert not second.has_core_metadata


class UsageContract(StorageContract):
    """`SupportsUsage`: requests to the provider are counted."""

    protocol: ClassVar[type | None] = SupportsUsage

    def test_what_was_asked_is_counted(self, storage: Tested) -> None:
        """The number of requests is zero before the first call, and grows with each call."""
        assert sum(storage.usage().requests.values()) == 0
        assert self.listed(storage) == []
        once = sum(storage.usage().requests.values())
        assert once > 0
        assert self.listed(storage) == []
        assert sum(storage.usage().requests.values()) > once
