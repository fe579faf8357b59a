"""Mirrors keep the contract of an upstream, and the contract notices those that do not."""

from __future__ import annotations

import contextlib
import html
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
import urllib3

from private_pypi.backend import AnyBackend, Folders, Secret, UpstreamNames, UpstreamPage
from private_pypi.errors import BackendError, FileNotFound, PrivatePypiError, ProjectNotFound
from private_pypi.model import Download, FileHandle, LocalFile, Redirect, Stream
from private_pypi.testing.contract import PartsContract, UpstreamContract, UsageContract
from private_pypi.testing.contract.upstream import ALL_FACTS
from private_pypi_mirror import IndexMirrorSettings, MirrorBackend
from private_pypi_mirror.backend import MirrorStorage
from tests.mirror.upstream import Project, Published, Upstream, running


class OfMirrors(UpstreamContract, PartsContract, UsageContract):
    """What all mirrors have in common."""

    backend_class: ClassVar[type[MirrorBackend]] = MirrorBackend

    def mirror(self, index_url: str, folders: Folders) -> AnyBackend:
        settings = IndexMirrorSettings(
            name="mirror",
            max_file_bytes=1 << 30,
            index_url=index_url,
            read_secret=(Secret(self.read_secret),),
        )
        return self.backend_class(settings, folders)


class OverHttp(OfMirrors):
    @pytest.fixture
    def place(self) -> Iterator[Upstream]:
        with self.new_place() as place:
            yield place

    @contextlib.contextmanager
    def new_place(self) -> Iterator[Upstream]:
        with running() as upstream:
            yield upstream

    def open_backend(self, place: Upstream, folders: Folders) -> AnyBackend:
        return self.mirror(place.index_url, folders)

    def write_page(
        self, place: Upstream, project: str, page: UpstreamPage, contents: Mapping[str, bytes]
    ) -> None:
        status = page.status
        place.projects[project] = Project(
            status=None if status is None else status.status,
            reason=None if status is None else status.reason,
        )
        for file in page.files:
            metadata = contents.get(f"{file.filename}.metadata")
            place.projects[project].files[file.filename] = Published(
                filename=file.filename,
                content=contents.get(file.filename),  # type: ignore[arg-type]
                hashes=file.hashes,
                size=file.size,
                upload_time=None if file.uploaded_at is None else file.uploaded_at.isoformat(),
                requires_python=file.requires_python,
                yanked=True if file.yanked == "" else file.yanked,
                core_metadata=metadata,
                offers_metadata=None if file.core_metadata is None else True,
                hashes_metadata=bool(file.core_metadata),
                provenance=file.provenance,
            )

    def remove_page(self, place: Upstream, project: str) -> None:
        del place.projects[project]

    def cut_page(self, place: Upstream, project: str) -> None:
        place.fail("page", "cut", only=project)

    def cut_names(self, place: Upstream) -> bool:
        place.fail("list", "cut")
        return True

    def break_storage(self, place: Upstream) -> None:
        place.fail(None, "refused")

    def requests_made(self, place: Upstream) -> int:
        return place.count()


class TestMirrorOfJson(OverHttp):
    pass


class TestMirrorOfJsonThatFails(OverHttp):
    def break_storage(self, place: Upstream) -> None:
        place.fail(None, "500")


class TestMirrorOfHtml(OverHttp):
    facts = ALL_FACTS - {"size", "uploaded_at"}  # which this upstream does not say in HTML

    @contextlib.contextmanager
    def new_place(self) -> Iterator[Upstream]:
        with running() as upstream:
            upstream.format = "html"
            yield upstream


class TestMirrorWithoutValidators(OverHttp):
    validators = frozenset()

    @contextlib.contextmanager
    def new_place(self) -> Iterator[Upstream]:
        with running() as upstream:
            upstream.has_etags = False
            upstream.is_chunked = True
            upstream.files_elsewhere = True
            yield upstream


class TestMirrorOfAFolder(OfMirrors):
    validators = frozenset({"page"})

    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        # Pages have a validator as soon as they are some seconds old.
        monkeypatch.setattr(time, "time", lambda clock=time.time: clock() + 100)
        place = tmp_path / "site" / "simple"
        (place / "kept").mkdir(parents=True)
        return place

    def open_backend(self, place: Path, folders: Folders) -> AnyBackend:
        return self.mirror(place.as_uri(), folders)

    def write_page(
        self, place: Path, project: str, page: UpstreamPage, contents: Mapping[str, bytes]
    ) -> None:
        folder = place / project
        folder.mkdir(exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        declared = {"repository-version": "1.4"}
        if page.status is not None:
            declared["project-status"] = page.status.status
            declared["project-status-reason"] = page.status.reason or ""
        lines = [
            *(f'<meta name="pypi:{k}" content="{html.escape(v)}">' for k, v in declared.items()),
        ]
        for file in page.files:
            hashed = "".join(f"#{key}={value}" for key, value in file.hashes.items())
            metadata = file.core_metadata
            attributes = {
                "href": quote(file.filename) + hashed,
                "data-size": None if file.size is None else f"{file.size}",
                "data-upload-time": file.uploaded_at and file.uploaded_at.isoformat(),
                "data-requires-python": file.requires_python,
                "data-yanked": file.yanked,
                "data-core-metadata": None
                if metadata is None
                else f"sha256={metadata['sha256']}"
                if metadata
                else "true",
                "data-provenance": file.provenance,
            }
            shown = " ".join(
                f'{k}="{html.escape(v)}"' for k, v in attributes.items() if v is not None
            )
            lines.append(f"<a {shown}>a file</a>")
        text = "\n".join(("<!DOCTYPE html><html><body>", *lines, "</body></html>"))
        (folder / "index.html").write_text(text)

    def remove_page(self, place: Path, project: str) -> None:
        shutil.rmtree(place / project)

    def cut_page(self, place: Path, project: str) -> None:
        page = place / project / "index.html"
        text = page.read_text()
        page.write_text(text[: len(text) // 2])

    def break_storage(self, place: Path) -> None:
        place.rename(place.parent / "unmounted")

    def test_what_was_asked_is_counted(self, storage: Any) -> None:
        """A folder is not asked over a network."""
        assert self.listed(storage) == []
        assert sum(storage.usage().requests.values()) == 0


# -- mirrors that are wrong ------------------------------------------------------------------------


class LosesFacts(MirrorStorage):
    lost: ClassVar[Mapping[str, Any]] = {}

    def project_page(self, project: str, validator: str) -> UpstreamPage | None:
        page = super().project_page(project, validator)
        return page and replace(page, files=[replace(each, **self.lost) for each in page.files])


def losing(**facts: Any) -> type[MirrorStorage]:
    return type("LosesFacts", (LosesFacts,), {"lost": facts})


class WithPage(MirrorStorage):
    """Changes the page after it was read."""

    def changed(self, page: UpstreamPage) -> UpstreamPage | None:
        raise NotImplementedError

    def project_page(self, project: str, validator: str) -> UpstreamPage | None:
        page = super().project_page(project, validator)
        return page and self.changed(page)


class LosesTheStatus(WithPage):
    def changed(self, page: UpstreamPage) -> UpstreamPage:
        return replace(page, status=None)


class SortsFiles(WithPage):
    def changed(self, page: UpstreamPage) -> UpstreamPage:
        return replace(page, files=sorted(page.files, key=lambda file: file.filename))


class NormalisesNames(WithPage):
    def changed(self, page: UpstreamPage) -> UpstreamPage:
        return replace(
            page, files=[replace(each, filename=each.filename.lower()) for each in page.files]
        )


class LeavesOutOtherFiles(WithPage):
    def changed(self, page: UpstreamPage) -> UpstreamPage:
        return replace(page, files=[f for f in page.files if not f.filename.endswith(".exe")])


class KeepsFragments(WithPage):
    def changed(self, page: UpstreamPage) -> UpstreamPage:
        return replace(page, files=[replace(each, url=f"{each.url}#x") for each in page.files])


class TakesNoFilesForAbsence(WithPage):
    def changed(self, page: UpstreamPage) -> UpstreamPage:
        if not page.files:
            raise ProjectNotFound("demo")
        return page


class GivesNoValidators(WithPage):
    def changed(self, page: UpstreamPage) -> UpstreamPage:
        return replace(page, validator="")


class NeverAsksAgain(MirrorStorage):
    def project_page(self, project: str, validator: str) -> UpstreamPage | None:
        return None if validator else super().project_page(project, "")


class AlwaysSendsThePage(MirrorStorage):
    def project_page(self, project: str, validator: str) -> UpstreamPage | None:
        return super().project_page(project, "")


class RemembersValidatorsHere(MirrorStorage):
    """The state of a validator is in the process."""

    def project_page(self, project: str, validator: str) -> UpstreamPage | None:
        known: set[str] = self.backend.__dict__.setdefault("known", set())
        page = super().project_page(project, validator if validator in known else "")
        if page is not None:
            known.add(page.validator)
        return page


class RemembersAbsence(MirrorStorage):
    def project_page(self, project: str, validator: str) -> UpstreamPage | None:
        absent: set[str] = self.backend.__dict__.setdefault("absent", set())
        try:
            if project in absent:
                raise ProjectNotFound(project)
            return super().project_page(project, validator)
        except ProjectNotFound:
            absent.add(project)
            raise


def raising(
    caught: type[PrivatePypiError], instead: Callable[[], Any], *methods: str
) -> type[MirrorStorage]:
    """A view in whose methods one error is replaced by something else."""

    def wrapped(name: str) -> Callable[..., Any]:
        def call(self: MirrorStorage, *arguments: Any) -> Any:
            try:
                return getattr(MirrorStorage, name)(self, *arguments)
            except caught:
                return instead()

        return call

    return type("Raising", (MirrorStorage,), {name: wrapped(name) for name in methods})


def throw(error: BaseException) -> Callable[[], Any]:
    def instead() -> Any:
        raise error

    return instead


class WithNames(MirrorStorage):
    def changed(self, names: Iterator[str]) -> Iterator[str]:
        raise NotImplementedError

    def project_names(self, validator: str) -> UpstreamNames | None:
        found = super().project_names(validator)
        return found and replace(found, names=self.changed(found.names))


class EndsListsQuietly(WithNames):
    def changed(self, names: Iterator[str]) -> Iterator[str]:
        with contextlib.suppress(BackendError):
            yield from names


class LosesAName(WithNames):
    def changed(self, names: Iterator[str]) -> Iterator[str]:
        return (name for name in names if name != "demo-extra")


class RepeatsNames(WithNames):
    def changed(self, names: Iterator[str]) -> Iterator[str]:
        return (each for name in names for each in (name, name))


class RemembersTheList(MirrorStorage):
    def project_names(self, validator: str) -> UpstreamNames | None:
        return None if validator else super().project_names("")


class AlwaysSendsTheList(MirrorStorage):
    def project_names(self, validator: str) -> UpstreamNames | None:
        return super().project_names("")


class GoesOnAfterClose(MirrorStorage):
    def project_names(self, validator: str) -> UpstreamNames | None:
        found = super().project_names(validator)
        assert found is not None

        class Deaf(Iterator[str]):
            def __next__(self, names: Iterator[str] = found.names) -> str:
                return next(names)

            def close(self) -> None:
                """Do nothing."""

        return replace(found, names=Deaf())


class Redirects(MirrorStorage):
    def open_file(self, file: FileHandle) -> Download:
        return Redirect(file.location, None)


class ChangesBytes(MirrorStorage):
    def open_file(self, file: FileHandle) -> Download:
        found = super().open_file(file)
        assert isinstance(found, Stream)
        return Stream((chunk.replace(b"\x8b", b"") for chunk in found.chunks), found.size)


class NeedsTheSize(MirrorStorage):
    def open_file(self, file: FileHandle) -> Download:
        if file.size is None:
            raise BackendError("how large is it?")
        return super().open_file(file)


class TakesTheFirstByteForAll(MirrorStorage):
    def file_size(self, file: FileHandle) -> int | None:
        size = super().file_size(file)
        return size and 1


class OpensTheFileAsMetadata(MirrorStorage):
    def open_metadata(self, file: FileHandle) -> Download:
        return self.open_file(file)


class OpensWhatIsHere(MirrorStorage):
    def open_file(self, file: FileHandle) -> Download:
        path = Path(file.location.removeprefix("file://"))
        if path.is_absolute() and path.is_file():
            return LocalFile(path.open("rb"))
        return super().open_file(file)


_PAGE, _NAMES = ("project_page",), ("project_names",)
_EMPTY = UpstreamPage(files=())
_LATER = UpstreamNames(names=iter(()))
_NOTHING = Stream(iter(()), 0)

TELLS = "test_a_page_tells_what_the_index_tells"
NAMES = "test_files_have_the_names_that_they_came_with"
CHANGES = "test_a_page_is_not_given_again_until_it_has_changed"
ABSENT = "test_only_a_project_that_is_missing_is_an_absence"
CUT = "test_a_page_that_is_cut_off_is_trouble"
LIST = "test_the_list_has_every_project"
LIST_CHANGES = "test_the_list_is_not_given_again_until_it_has_changed"
OPENS = "test_files_are_opened_at_their_addresses"
METADATA = "test_core_metadata_is_beside_the_file"
SIZE = "test_the_size_of_a_file_is_right_or_unknown"
MISSING = "test_a_file_that_is_missing_is_a_known_absence"
TROUBLE = "test_trouble_is_never_an_absence"

WRONG: list[tuple[type[MirrorStorage], str]] = [
    (losing(hashes={}), TELLS),
    (losing(size=None), TELLS),
    (losing(uploaded_at=None), TELLS),
    (losing(requires_python=None), TELLS),
    (losing(yanked=None), TELLS),
    (losing(core_metadata=None), TELLS),
    (losing(provenance=None), TELLS),
    (losing(url=""), TELLS),
    (LosesTheStatus, TELLS),
    (SortsFiles, TELLS),
    (KeepsFragments, TELLS),
    (NormalisesNames, NAMES),
    (LeavesOutOtherFiles, NAMES),
    (TakesNoFilesForAbsence, "test_a_project_may_have_no_files"),
    (GivesNoValidators, CHANGES),
    (NeverAsksAgain, CHANGES),
    (NeverAsksAgain, "test_a_validator_of_another_page_does_no_harm"),
    (AlwaysSendsThePage, CHANGES),
    (RemembersValidatorsHere, CHANGES),
    (RemembersAbsence, ABSENT),
    (raising(ProjectNotFound, lambda: _EMPTY, *_PAGE), ABSENT),
    (raising(ProjectNotFound, lambda: None, *_PAGE), ABSENT),
    (raising(ProjectNotFound, throw(BackendError("404")), *_PAGE), ABSENT),
    (raising(BackendError, lambda: _EMPTY, *_PAGE), CUT),
    (raising(BackendError, lambda: None, *_PAGE), CUT),
    (raising(BackendError, throw(ProjectNotFound("demo")), *_PAGE), CUT),
    (raising(BackendError, lambda: _EMPTY, *_PAGE), TROUBLE),
    (raising(BackendError, throw(ProjectNotFound("demo")), *_PAGE), TROUBLE),
    (raising(BackendError, throw(urllib3.exceptions.HTTPError()), *_PAGE), TROUBLE),
    (raising(BackendError, lambda: _LATER, *_NAMES), TROUBLE),
    (raising(BackendError, throw(FileNotFound("demo-1.0.zip")), "open_file"), TROUBLE),
    (raising(BackendError, throw(FileNotFound("demo-1.0.zip")), "open_metadata"), TROUBLE),
    (raising(BackendError, throw(BackendError("read-secret is wrong")), "open_file"), TROUBLE),
    (EndsListsQuietly, "test_a_list_that_is_cut_off_is_trouble"),
    (LosesAName, LIST),
    (RepeatsNames, LIST),
    (RemembersTheList, LIST_CHANGES),
    (AlwaysSendsTheList, LIST_CHANGES),
    (GoesOnAfterClose, "test_a_list_need_not_be_read_to_its_end"),
    (Redirects, OPENS),
    (ChangesBytes, OPENS),
    (NeedsTheSize, OPENS),
    (raising(FileNotFound, throw(BackendError("404")), "open_file"), MISSING),
    (raising(FileNotFound, lambda: _NOTHING, "open_file"), MISSING),
    (TakesTheFirstByteForAll, SIZE),
    (raising(FileNotFound, lambda: None, "file_size"), SIZE),
    (raising(BackendError, lambda: None, "file_size"), TROUBLE),
    (OpensTheFileAsMetadata, METADATA),
    (raising(FileNotFound, lambda: _NOTHING, "open_metadata"), METADATA),
    (raising(FileNotFound, throw(BackendError("404")), "open_metadata"), METADATA),
    (OpensWhatIsHere, "test_a_file_from_elsewhere_on_this_machine_is_refused"),
]


def run(view: type[MirrorStorage], test: str, tmp_path: Path) -> None:
    """One test of the contract, with a mirror over HTTP whose views are of another class."""
    backend_class = type("Backend", (MirrorBackend,), {"View": view})
    contract = type("Contract", (OverHttp,), {"backend_class": backend_class})()
    with contract.new_place() as place:
        contract._place = place
        getattr(contract, test)(place, tmp_path)


@pytest.mark.parametrize(("view", "test"), WRONG, ids=lambda each: getattr(each, "__name__", each))
def test_the_contract_notices(view: type[MirrorStorage], test: str, tmp_path: Path) -> None:
    with pytest.raises(
        (AssertionError, PrivatePypiError, urllib3.exceptions.HTTPError, pytest.fail.Exception)
    ):
        run(view, test, tmp_path)


@pytest.mark.parametrize("test", sorted({test for _, test in WRONG}))
def test_what_notices_passes_with_a_right_mirror(test: str, tmp_path: Path) -> None:
    run(MirrorStorage, test, tmp_path)
