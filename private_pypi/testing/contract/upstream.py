"""The contract of a storage that is another index, of which a repository is a mirror."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
from packaging.utils import NormalizedName

from private_pypi.backend import Access, SupportsUpstream, UpstreamFile, UpstreamPage
from private_pypi.distributions.filenames import normalize
from private_pypi.errors import BackendError, FileNotFound, PrivatePypiError, ProjectNotFound
from private_pypi.model import (
    FileHandle,
    LocalFile,
    ProjectStatus,
    Redirect,
    StoredFile,
    Stream,
    Upload,
)
from private_pypi.testing.contract.base import StorageContract
from private_pypi.testing.contract.helpers import Tested, chunks_of, outcome

PROJECTS: Final = ("demo", "demo-extra", "other")
ALL_FACTS: Final = frozenset(each.name for each in fields(UpstreamFile)) - {"filename", "url"}


class UpstreamContract(StorageContract):
    """`SupportsUpstream`: the storage is another index.

    `place` is an index that has none of the projects `demo`, `demo-extra`, `other` and `never-was`,
    and `read_secret` is a secret of the mirror. Nobody may write, so there is no `write_secret`.
    """

    protocol: ClassVar[type | None] = SupportsUpstream

    write_secret: ClassVar[str] = StorageContract.read_secret  # that of a view with all rights
    keeps_records: ClassVar[bool] = False

    facts: ClassVar[frozenset[str]] = ALL_FACTS
    """Override with the fields of `UpstreamFile` that the pages of this kind of index can tell."""

    tells_status: ClassVar[bool] = True
    """Override with False for an index whose pages cannot tell the status of a project."""

    validators: ClassVar[frozenset[str]] = frozenset({"page", "names"})
    """Override if the index gives no validators for its pages or for its list."""

    def write_page(
        self, place: Any, project: str, page: UpstreamPage, contents: Mapping[str, bytes]
    ) -> None:
        """Override: let the index have this page of a project, instead of an earlier one.

        The `url` of each file is empty: choose one. `contents` has the content of each file by its
        filename, and its core metadata, if it has any, by the filename plus `.metadata`. Facts that
        are not in `facts` are left out, and so are files whose name is in `page` but not in
        `contents`: they are on the page, and missing at their addresses.
        """
        raise NotImplementedError("override `write_page`")

    def remove_page(self, place: Any, project: str) -> None:
        """Override: let the index not have the project any longer."""
        raise NotImplementedError("override `remove_page`")

    def cut_page(self, place: Any, project: str) -> None:
        """Override: let the page of the project, which exists, end in the middle."""
        raise NotImplementedError("override `cut_page`")

    def cut_names(self, place: Any) -> bool:
        """Override if possible: let the list of projects end in the middle, and return True."""
        return False

    # -- for the tests ---------------------------------------------------------------------------

    @pytest.fixture(autouse=True)
    def _place_of_this_test(self, place: Any) -> None:
        self._place = place

    def rights(self) -> Mapping[str, Access]:
        return {self.read_secret: Access.READ}

    def listed(self, storage: Tested) -> list[StoredFile]:
        found = []
        for project in PROJECTS:
            page = outcome(storage.project_page, project, "")
            if isinstance(page, ProjectNotFound):
                continue
            if isinstance(page, Exception):
                raise page
            found += [_stored(file) for file in page.files]
        return found

    def put(self, storage: Tested, upload: Upload) -> StoredFile:
        project, name = upload.file.project, upload.file.filename
        contents = {name: upload.content.read_bytes()}
        self.write_page(self._place, project, page_of(name, contents), contents)
        (file,) = storage.project_page(project, "").files
        return _stored(file)

    def opened(self, place: Any, tmp_path: Path) -> Tested:
        """A view of the index."""
        return self.open_another(place, tmp_path)

    def names_of(self, storage: Tested) -> list[str]:
        """All names of the list."""
        names = storage.project_names("")
        assert names is not None, "no list was known"
        return list(names.names)

    # -- pages -----------------------------------------------------------------------------------

    def test_a_page_tells_what_the_index_tells(self, place: Any, tmp_path: Path) -> None:
        """No fact is lost or invented; files come in the order of the page."""
        metadata = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
        files = [
            UpstreamFile(
                filename="demo-1.0-py3-none-any.whl",
                url="",
                hashes={"sha256": _sha256(b"wheel")},
                size=5,
                uploaded_at=datetime(2026, 1, 2, 12, 30, 0, 250000, tzinfo=UTC),
                requires_python=">=3.8, <4",
                yanked='it is "broken" & <b>old</b>',
                core_metadata={"sha256": _sha256(metadata)},
                provenance="https://index.example/provenance/demo",
            ),
            UpstreamFile(filename="demo-2.0-py3-none-any.whl", url="", core_metadata={}, yanked=""),
            UpstreamFile(filename="demo-1.0.tar.gz", url="", size=0, hashes={"md5": "0" * 32}),
            UpstreamFile(filename="demo-0.1.zip", url=""),
        ]
        status = ProjectStatus("archived", "use <another>")
        contents = {file.filename: b"wheel" for file in files}
        contents |= {f"{name}.metadata": metadata for name in contents if name.endswith(".whl")}
        self.write_page(place, "demo", UpstreamPage(files=files, status=status), contents)
        page = self.opened(place, tmp_path).project_page("demo", "")
        assert [_without_url(each) for each in page.files] == [self._told(each) for each in files]
        assert page.status == (status if self.tells_status else None)
        assert [each.filename for each in page.files if "#" in each.url or not each.url] == []
        self.write_page(place, "demo", UpstreamPage(files=files[3:]), contents)
        assert self.opened(place, tmp_path).project_page("demo", "").status is None

    def test_files_have_the_names_that_they_came_with(self, place: Any, tmp_path: Path) -> None:
        """Names are neither normalised nor left out; a page has also what is no distribution."""
        names = [
            *("Demo_1.0.zip", "DEMO-2.0.TAR.GZ", "demo-3.0.exe", "other-4.0.zip", "demo.zip"),
            *("demo-1.0+local.1.zip", "demo-1!2.0.zip", "demo 5.0.zip", "dämo-6.0.zip", "%41.zip"),
        ]
        contents = {name: name.encode() for name in names}
        self.write_page(place, "demo", page_of(names, contents), contents)
        storage = self.opened(place, tmp_path)
        page = storage.project_page("demo", "")
        assert [file.filename for file in page.files] == names

    def test_a_project_may_have_no_files(self, place: Any, tmp_path: Path) -> None:
        """That is an empty page, and no absence."""
        self.write_page(place, "demo", UpstreamPage(files=()), {})
        assert list(self.opened(place, tmp_path).project_page("demo", "").files) == []

    def test_a_page_is_not_given_again_until_it_has_changed(
        self, place: Any, tmp_path: Path
    ) -> None:
        """With the validator of a page: None while it is the same, and then the other page."""
        storage = self.opened(place, tmp_path)
        for count in (1, 2, 3):
            contents = {f"demo-{n}.0.zip": b"content" for n in range(count)}
            self.write_page(place, "demo", page_of(contents, contents), contents)
            page = storage.project_page("demo", "")
            assert [file.filename for file in page.files] == list(contents)
            assert (page.validator != "") == ("page" in self.validators)
            if page.validator:
                # A validator is also good on another server, and after a restart.
                for view in (storage, self.opened(place, tmp_path)):
                    assert view.project_page("demo", page.validator) is None
            assert storage.project_page("demo", "") is not None
            more = {**contents, "demo-9.0.zip": b"content"}
            self.write_page(place, "demo", page_of(more, more), more)
            changed = storage.project_page("demo", page.validator)
            assert changed is not None
            assert [file.filename for file in changed.files] == list(more)

    def test_a_validator_of_another_page_does_no_harm(self, place: Any, tmp_path: Path) -> None:
        """Nor does one that is no validator, such as that of an older version."""
        storage = self.opened(place, tmp_path)
        for project in ("demo", "other"):
            contents = {f"{project}-1.0.zip": b"content"}
            self.write_page(place, project, page_of(contents, contents), contents)
        other = storage.project_page("other", "").validator
        for validator in (other, "x", "nonsense ETag", "\x00", "é"):
            page = storage.project_page("demo", validator)
            assert page is not None
            assert [file.filename for file in page.files] == ["demo-1.0.zip"]

    def test_only_a_project_that_is_missing_is_an_absence(self, place: Any, tmp_path: Path) -> None:
        """It raises `ProjectNotFound`, with any validator, each time, until it is there."""
        storage = self.opened(place, tmp_path)
        contents = {"demo-1.0.zip": b"content"}
        for _ in range(2):
            for view in (storage, self.opened(place, tmp_path)):
                for project in ("demo", "never-was", "x" * 100):
                    with pytest.raises(ProjectNotFound):
                        view.project_page(project, "")
            self.write_page(place, "demo", page_of(contents, contents), contents)
            page = storage.project_page("demo", "")
            assert [file.filename for file in page.files] == ["demo-1.0.zip"]
            self.remove_page(place, "demo")
            with pytest.raises(ProjectNotFound):
                storage.project_page("demo", page.validator)

    def test_a_page_that_is_cut_off_is_trouble(self, place: Any, tmp_path: Path) -> None:
        """It is an error, never a shorter page, an empty one or an absence."""
        contents = {f"demo-{number}.0.zip": b"content" for number in range(50)}
        self.write_page(place, "demo", page_of(contents, contents), contents)
        self.cut_page(place, "demo")
        for _ in range(2):
            found = outcome(self.opened(place, tmp_path).project_page, "demo", "")
            assert isinstance(found, BackendError), repr(found)

    # -- the list --------------------------------------------------------------------------------

    def test_the_list_has_every_project(self, place: Any, tmp_path: Path) -> None:
        """Projects are there once they have a page, and no longer than that."""
        storage = self.opened(place, tmp_path)
        for project in PROJECTS:
            self.write_page(place, project, page_of((), {}), {})
        names = self.names_of(storage)
        assert len(names) == len(set(names))
        assert set(PROJECTS) <= {normalize(name) for name in names}
        assert "never-was" not in names
        self.remove_page(place, "other")
        assert "other" not in self.names_of(storage)

    def test_the_list_is_not_given_again_until_it_has_changed(
        self, place: Any, tmp_path: Path
    ) -> None:
        """With the validator of a list: None while it is the same, and then the other list."""
        storage = self.opened(place, tmp_path)
        self.write_page(place, "demo", page_of((), {}), {})
        names = storage.project_names("")
        assert "demo" in list(names.names)
        assert (names.validator != "") == ("names" in self.validators)
        if names.validator:
            assert self.opened(place, tmp_path).project_names(names.validator) is None
        self.write_page(place, "other", page_of((), {}), {})
        changed = storage.project_names(names.validator)
        assert changed is not None
        assert {"demo", "other"} <= set(changed.names)

    def test_a_list_that_is_cut_off_is_trouble(self, place: Any, tmp_path: Path) -> None:
        """It raises before it ends, so that a list without an error is complete."""
        for project in PROJECTS:
            self.write_page(place, project, page_of((), {}), {})
        if not self.cut_names(place):  # such a list is always whole
            assert set(PROJECTS) <= set(self.names_of(self.opened(place, tmp_path)))
            return
        with pytest.raises(BackendError):
            self.names_of(self.opened(place, tmp_path))

    def test_a_list_need_not_be_read_to_its_end(self, place: Any, tmp_path: Path) -> None:
        """Its iterator can be closed before, also before its first name; the index still works."""
        storage = self.opened(place, tmp_path)
        self.write_page(place, "demo", page_of((), {}), {})
        for count in (0, 1):
            names = storage.project_names("").names
            for _ in range(count):
                next(names)
            close = getattr(names, "close", None)
            if close is not None:
                close()
                rest = outcome(list, names)
                assert rest == [] or isinstance(rest, BackendError), repr(rest)
            assert "demo" in self.names_of(storage)

    # -- files -----------------------------------------------------------------------------------

    def test_files_are_opened_at_their_addresses(self, place: Any, tmp_path: Path) -> None:
        """The content comes through this server, and is exactly that of the index."""
        contents = {
            "demo-1.0.tar.gz": b"\x1f\x8b not gzip",
            "demo-1.0-py3-none-any.whl": b"x" * 300_000,
            "Demo-2.0.zip": b"\x00",
            "demo-1.0+local.1.zip": b"local",
        }
        self.write_page(place, "demo", page_of(contents, contents), contents)
        storage = self.opened(place, tmp_path)
        for file in storage.project_page("demo", "").files:
            for handle in (handle_of(file), replace(handle_of(file), size=None, sha256=None)):
                found = storage.open_file(handle)
                assert isinstance(found, LocalFile | Stream), "clients are never redirected"
                size = found.size if isinstance(found, Stream) else 0
                content = b"".join(chunks_of(found))
                assert content == contents[file.filename]
                assert size in (0, len(content))

    def test_a_file_that_is_missing_is_a_known_absence(self, place: Any, tmp_path: Path) -> None:
        """A file that a page names, and the index does not have, raises `FileNotFound`."""
        contents = {"demo-1.0.zip": b"content"}
        page = page_of(["demo-1.0.zip", "demo-2.0.zip"], contents)
        self.write_page(place, "demo", page, contents)
        storage = self.opened(place, tmp_path)
        _, missing = storage.project_page("demo", "").files
        with pytest.raises(FileNotFound):
            storage.open_file(handle_of(missing))

    def test_the_size_of_a_file_is_right_or_unknown(self, place: Any, tmp_path: Path) -> None:
        """It is asked for where a page does not tell it; a file that is missing is an absence."""
        contents = {"demo-1.0.zip": b"x" * 300_000, "demo-2.0.zip": b""}
        page = page_of([*contents, "demo-3.0.zip"], contents)
        self.write_page(place, "demo", page, contents)
        storage = self.opened(place, tmp_path)
        *files, missing = storage.project_page("demo", "").files
        for file in files:
            size = storage.file_size(replace(handle_of(file), size=None))
            assert size in (None, len(contents[file.filename]))
        with pytest.raises(FileNotFound):
            storage.file_size(handle_of(missing))

    def test_core_metadata_is_beside_the_file(self, place: Any, tmp_path: Path) -> None:
        """It is at the address of the file plus `.metadata`; without it, `FileNotFound`."""
        metadata = "Metadata-Version: 2.1\nName: demo\nSummary: Größe\n".encode()
        names = ["demo-1.0-py3-none-any.whl", "demo-2.0-py3-none-any.whl"]
        contents = dict.fromkeys(names, b"wheel") | {f"{names[0]}.metadata": metadata}
        self.write_page(place, "demo", page_of(names, contents), contents)
        storage = self.opened(place, tmp_path)
        has, lacks = storage.project_page("demo", "").files
        opened = storage.open_metadata(handle_of(has))
        assert not isinstance(opened, Redirect)
        assert b"".join(chunks_of(opened)) == metadata
        for file in (lacks, replace(has, url=lacks.url, filename=lacks.filename)):
            with pytest.raises(FileNotFound):
                storage.open_metadata(handle_of(file))

    def test_a_file_from_elsewhere_on_this_machine_is_refused(
        self, place: Any, tmp_path: Path
    ) -> None:
        """A page that names a file of this machine, or nonsense, does not make it public."""
        storage = self.opened(place, tmp_path)
        for name in ("demo-1.0.zip", "demo-1.0.zip.metadata"):
            path = tmp_path / "elsewhere" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"secret")
        secret = tmp_path / "elsewhere" / "demo-1.0.zip"
        handle = handle_of(UpstreamFile(filename="demo-1.0.zip", url=""))
        for location in (str(secret), secret.as_uri(), "", "/", "..", "\x00", "ftp://x/", "//"):
            for call in (storage.open_file, storage.open_metadata):
                with pytest.raises(PrivatePypiError):
                    b"".join(chunks_of(call(replace(handle, location=location))))

    def _told(self, file: UpstreamFile) -> UpstreamFile:
        """What the index tells of a file, as far as this kind of index can."""
        return replace(UpstreamFile(filename=file.filename, url=""), **facts_of(file, self.facts))


def facts_of(file: UpstreamFile, names: Collection[str]) -> dict[str, Any]:
    """The facts of a file with these names."""
    return {name: getattr(file, name) for name in sorted(names)}


def page_of(
    names: Sequence[str] | Mapping[str, bytes] | str, contents: Mapping[str, bytes]
) -> UpstreamPage:
    """A page with what is true of files: their hash and size, and that they have core metadata."""
    return UpstreamPage(
        files=[
            UpstreamFile(
                filename=name,
                url="",
                hashes={"sha256": _sha256(contents.get(name, b""))},
                size=len(contents.get(name, b"")),
                core_metadata={} if f"{name}.metadata" in contents else None,
            )
            for name in ([names] if isinstance(names, str) else names)
        ]
    )


def handle_of(file: UpstreamFile) -> FileHandle:
    """What identifies a file of the project `demo` for `open_file`."""
    return FileHandle(
        project=NormalizedName("demo"),
        filename=file.filename,
        size=file.size,
        sha256=file.hashes.get("sha256"),
        location=file.url,
    )


def _stored(file: UpstreamFile) -> StoredFile:
    return StoredFile(
        filename=file.filename,
        size=file.size or 0,
        location=file.url,
        stamp="",
        sha256=file.hashes.get("sha256"),
    )


def _without_url(file: UpstreamFile) -> UpstreamFile:
    return replace(file, url="")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
