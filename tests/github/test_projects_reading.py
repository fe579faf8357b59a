"""Listing and opening files of repositories on a fake GitHub: requests, moves, links, trouble."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import private_pypi_github.connection
import private_pypi_github.projects
from private_pypi.backend import Access, Secret
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileNotFound,
    NotAllowed,
    PrivatePypiError,
    ProjectNotFound,
)
from private_pypi.index.examining import handle_of
from private_pypi.model import Redirect
from private_pypi.storage.retrying import retrying
from private_pypi.testing.contract.helpers import (
    content_of,
    make_upload,
    new_folders,
    outcome,
    published,
)
from private_pypi_github.client import Client
from private_pypi_github.connection import Connection
from private_pypi_github.downloads import Chunks, SignedAddress
from private_pypi_github.project_names import Replacement
from private_pypi_github.projects import GitHubProjectsStorage
from tests.github.fake import FakeGitHub
from tests.github.fake.state import node_id
from tests.github.owner import (
    DAY,
    PROJECTS,
    WHEEL,
    Storage,
    asset_id,
    file_of,
    impatient,
    make_storage,
    names,
    open_projects,
    restarted,
    with_settings,
    with_token,
)


@pytest.fixture
def storage(github: FakeGitHub) -> Storage:
    return make_storage(github)


@pytest.fixture
def backend(storage: Storage, tmp_path: Path) -> GitHubProjectsStorage:
    return open_projects(storage, "write-secret", new_folders(tmp_path))


# How often GitHub is asked.


def make_releases(github: FakeGitHub, name: str, count: int) -> None:
    """So many releases with a wheel each, from version 2.0 on."""
    for number in range(2, count + 2):
        wheel = f"demo-{number}.0-py3-none-any.whl"
        github.make_release(name, f"v{number}.0", {wheel: b"content"})


@pytest.mark.parametrize(("releases", "pages"), [(1, 1), (99, 1), (101, 2), (250, 3)])
def test_a_page_that_did_not_change_is_a_conditional_request_for_a_hundred_releases(
    github: FakeGitHub, backend: GitHubProjectsStorage, releases: int, pages: int
) -> None:
    make_releases(github, "acme/demo", releases)
    first = list(backend.project_files("demo"))
    assert len(first) == releases
    assert github.counted == pages
    github.forget_requests()
    assert list(backend.project_files("demo")) == first
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)] * pages


def test_pages_that_were_not_asked_for_lately_are_forgotten_first(
    github: FakeGitHub, backend: GitHubProjectsStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept to ask conditionally is bounded; a listing that is in use stays."""
    monkeypatch.setattr(private_pypi_github.connection, "_ETAGS_BYTES", 5 * 4096)
    for _ in range(5):
        backend.project_files("demo")
        for project in PROJECTS:
            backend.access(project)
    github.forget_requests()
    backend.project_files("demo")
    assert github.counted == 0
    for number in range(8):
        with_token(backend, github.make_token(f"user-{number}", {"acme/other": "read"})).access(
            "other"
        )
    github.forget_requests()
    backend.project_files("demo")
    assert github.counted == 1


def test_a_page_behind_a_full_one_that_did_not_change_is_not_missed(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    """A release of an old commit comes last; whether a 304 tells of a next page nobody says."""
    make_releases(github, "acme/demo", 1)
    github.clock.advance(DAY)
    github.commit("acme/demo", "README.md", b"younger")
    for number in range(3, 103):
        wheel = f"demo-{number}.0-py3-none-any.whl"
        github.make_release("acme/demo", f"v{number}.0", {wheel: b"content"})
    (last,) = (r for r in github.releases("acme/demo") if r.tag_name == "v2.0")
    del github.repo("acme/demo").releases[last.id]
    for _ in range(3):
        assert len(list(backend.project_files("demo"))) == 100
    github.forget_requests()
    assert len(list(backend.project_files("demo"))) == 100
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)] * 2
    github.repo("acme/demo").releases[last.id] = last
    assert len(list(backend.project_files("demo"))) == 101


def test_a_project_that_is_not_there_is_asked_for_twice(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    """In moments of trouble GitHub answers 404, too, so one is not believed."""
    assert backend.access("never-was") is Access.NONE
    assert github.counted == 2


def test_nothing_that_was_told_to_one_token_is_told_to_another(
    github: FakeGitHub, storage: Storage, backend: GitHubProjectsStorage
) -> None:
    """Each asks GitHub on its own, and without what GitHub said to another."""
    github.make_release("acme/other", "v1.0", {"other-1.0.zip": b"content"})
    (stored,) = backend.project_files("other")
    file = file_of(stored, b"content", "other")
    content_of(backend.open_file(file))
    partial = with_token(backend, storage.tokens["partial-secret"])
    github.forget_requests()
    with pytest.raises(ProjectNotFound):
        partial.project_files("other")
    with pytest.raises(FileNotFound):
        partial.open_file(file)
    with pytest.raises(FileNotFound):
        partial.read_part(stored.location, 0, 3)
    with pytest.raises(FileNotFound):
        partial.find_alias(asset_id(github, "acme/other", "other-1.0.zip"), "other-1.0.zip")
    assert not [request for request in github.requests if request.conditional]
    assert "other" not in list(partial.projects())


def test_a_release_that_is_deleted_while_we_list_hides_no_other(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    """Those behind it move to a page that was read already."""
    make_releases(github, "acme/demo", 150)
    asked: list[str] = []

    def delete_one(request: str) -> None:
        asked.append(request)
        if len(asked) == 2:  # the second page of the first pass
            repository = github.repo("acme/demo")
            newest = github.releases("acme/demo")[0]
            del repository.releases[newest.id]

    github.before_request(delete_one)
    listed = names(backend.project_files("demo"))
    github.before_request(None)
    assert len(listed) == len(set(listed)) == 149
    assert len(asked) == 6  # until two passes say the same


def test_a_listing_that_never_stands_still_is_trouble(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    make_releases(github, "acme/demo", 101)
    number = iter(range(200, 300))

    def add_one(_: str) -> None:
        version = next(number)
        github.make_release("acme/demo", f"v{version}", {f"demo-{version}.zip": b"content"})

    github.before_request(add_one)
    with pytest.raises(BackendUnavailable, match="changes faster than it can be read"):
        backend.project_files("demo")
    github.before_request(None)


def test_all_assets_of_a_release_are_found(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    """PyPIHub showed the first 32. How many a release shows GitHub does not say."""
    wheels = {f"demo-1.0-{number}-py3-none-any.whl": b"content" for number in range(1, 231)}
    github.make_release("acme/demo", "v1.0", wheels)
    assert set(names(backend.project_files("demo"))) == set(wheels)
    assert len(github.requests) == 1
    github.inlined_assets = 100
    assert set(names(backend.project_files("demo"))) == set(wheels)
    github.forget_requests()
    assert set(names(backend.project_files("demo"))) == set(wheels)
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)] * (1 + 3)


def test_releases_beyond_the_end_of_the_listing_are_found_by_their_tags(
    github: FakeGitHub, backend: GitHubProjectsStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_releases(github, "acme/demo", 103)
    everything = set(names(backend.project_files("demo")))
    github.listing_limit = 100
    monkeypatch.setattr(private_pypi_github.projects, "LISTING_ENDS_AT", 100)
    assert set(names(backend.project_files("demo"))) == everything
    github.forget_requests()
    assert set(names(backend.project_files("demo"))) == everything
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)] * (1 + 1 + 3)


# Repositories that have moved.


def test_a_renamed_repository_is_the_same_project(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    """As for PyPIHub; also what was listed before can be read and published to."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    before = backend.put_file(upload)
    github.move_repo("acme/demo", "acme/renamed")
    assert backend.access("demo") is Access.WRITE
    (stored,) = backend.project_files("demo")
    assert (stored.stamp, stored.sha256) == (before.stamp, before.sha256)
    for location in (before.location, stored.location):
        file = replace(published(upload, stored), location=location)
        assert content_of(backend.open_file(file)) == b"content"
    backend.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))
    assert names(backend.project_files("renamed")) == []
    assert names(backend.project_files("demo")) == ["demo-2.0.tar.gz", WHEEL]
    backend.delete_file(file)
    assert names(backend.project_files("demo")) == ["demo-2.0.tar.gz"]


def test_a_repository_that_went_to_another_owner_is_not_served(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    """Nor called absent: the name was this owner's, and clients would look elsewhere."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    github.move_repo("acme/demo", "others/demo")
    calls: list[Callable[[], Any]] = [
        lambda: backend.access("demo"),
        lambda: backend.project_files("demo"),
        lambda: backend.open_file(file),
    ]
    for call in calls:
        with pytest.raises(BackendError, match="transferred to 'others'"):
            call()


# Opening.


def signed(github: FakeGitHub) -> int:
    """How often an address of an asset was asked for."""
    return len(github.asked("GET /repos/*/releases/assets/*"))


@pytest.mark.parametrize("download", ["proxy", "redirect"])
def test_a_signed_address_is_asked_for_once_while_it_holds(
    github: FakeGitHub, storage: Storage, backend: GitHubProjectsStorage, download: Any
) -> None:
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    backend = with_settings(backend, download=download)
    (stored,) = backend.project_files("demo")
    for _ in range(3):
        opened = backend.open_file(file_of(stored, b"content"))
        assert isinstance(opened, Redirect) == (download == "redirect")
        assert content_of(opened) == b"content"
        assert backend.read_part(stored.location, 3, 2) == b"te"
        backend = with_token(backend, storage.tokens["write-secret"])
    assert signed(github) == 1


def test_an_address_that_ended_early_is_asked_for_again(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    (stored,) = backend.project_files("demo")
    for _ in range(2):
        assert backend.read_part(stored.location, 0, 4) == b"cont"
        github.clock.advance(3600)
        assert content_of(backend.open_file(file_of(stored, b"content"))) == b"content"
        github.clock.advance(3600)
    assert signed(github) == 4


def test_a_part_of_a_file_is_all_that_is_transferred(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    github.make_release("acme/demo", "v1.0", {WHEEL: bytes(range(256)) * 4096})
    (stored,) = backend.project_files("demo")
    github.forget_requests()
    assert backend.read_part(stored.location, 256, 256) == bytes(range(256))
    assert [(r.host, r.status) for r in github.requests] == [("api", 302), ("storage", 206)]


class Careless(http.server.BaseHTTPRequestHandler):
    """A storage that sends everything, or something else, or has nothing."""

    def do_GET(self) -> None:
        status = {"/gone": 404, "/else": 206, "/busy": 503}.get(self.path, 200)
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", "bytes 0-6/7")
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"content")

    def log_message(self, *_: object) -> None:
        pass


def test_a_storage_that_knows_no_ranges_gives_the_same_parts() -> None:
    """An Enterprise server may send assets itself, and a proxy before a storage drop the header."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Careless) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        client = Client(Connection(), url, Secret("token"))

        def part(path: str, start: int, length: int) -> bytes | None:
            return client.fetch_part(SignedAddress(url + path, None, 0.0), start, length)

        expected = {(0, 3): b"con", (3, 2): b"te", (5, 9): b"nt", (7, 1): b"", (9, 1): b""}
        assert {span: part("/whole", *span) for span in expected} == expected
        assert part("/gone", 0, 3) is None
        with pytest.raises(BackendError, match="another part"):
            part("/else", 3, 2)
        with pytest.raises(BackendUnavailable):
            part("/busy", 0, 3)
        for (start, length), content in expected.items():
            chunks = client.content("/repos/acme/demo/releases/assets/1", 1)
            assert isinstance(chunks, Chunks)
            assert chunks.part(start, length) == content
        server.shutdown()


def test_a_file_that_somebody_replaced_is_not_given_for_the_first(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    """The index still has the hash of the first."""
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    (stored,) = backend.project_files("demo")
    (first,) = github.releases("acme/demo")
    del github.repo("acme/demo").releases[first.id]
    github.make_release("acme/demo", "again", {WHEEL: b"CONTENT"})
    with pytest.raises(FileNotFound):
        backend.open_file(file_of(stored, b"content"))
    (other,) = backend.project_files("demo")
    assert other.stamp != stored.stamp


def test_a_location_of_another_owner_opens_nothing(
    github: FakeGitHub, storage: Storage, backend: GitHubProjectsStorage
) -> None:
    """Although the token may read there as well."""
    github.make_repo("others", "demo", private=True)
    github.make_release("others/demo", "v1.0", {WHEEL: b"theirs"})
    github.set_rights("walter", {"others/demo": "read"})
    (theirs,) = with_settings(backend, owner="others").project_files("demo")
    with pytest.raises(FileNotFound):
        backend.open_file(file_of(theirs, b"theirs"))
    with pytest.raises(FileNotFound):
        backend.read_part(theirs.location, 0, 3)
    with pytest.raises(FileNotFound):
        backend.find_alias(asset_id(github, "others/demo", WHEEL), WHEEL)


@pytest.mark.parametrize("digests", [True, False])
def test_core_metadata_beside_a_file_is_given_if_it_is_what_is_advertised(
    github: FakeGitHub, backend: GitHubProjectsStorage, digests: bool
) -> None:
    """It may be of a file that somebody replaced since."""
    github.offers_digests = digests
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content", f"{WHEEL}.metadata": b"metadata"})
    (stored,) = backend.project_files("demo")
    right, wrong = (hashlib.sha256(text).hexdigest() for text in (b"metadata", b"other"))
    file = replace(file_of(stored, b"content"), core_metadata_sha256=right)
    assert content_of(backend.open_core_metadata(file)) == b"metadata"
    for sha256 in (wrong, None):
        with pytest.raises(FileNotFound):
            backend.open_core_metadata(replace(file, core_metadata_sha256=sha256))


def test_a_file_without_a_digest_is_listed_and_opened(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    """GitHub computes them for what was uploaded since June 2025."""
    github.offers_digests = False
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    (stored,) = backend.project_files("demo")
    assert stored.sha256 is None
    assert content_of(backend.open_file(file_of(stored, b"content"))) == b"content"


# What PyPIHub put into its links.


def test_an_old_link_of_pypihub_opens_its_file(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    """Three requests, and one of them counts against the limit of queries."""
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content", "README.md": b"text"})
    id_ = asset_id(github, "acme/demo", WHEEL)
    github.forget_requests()
    stored = backend.find_alias(id_, WHEEL)
    download = backend.open_file(handle_of(stored))
    assert content_of(download) == b"content"
    assert [stored] == list(backend.project_files("demo"))
    assert [r.name.partition(" ")[2] for r in github.requests[:2]] == [
        "/graphql",
        f"/repos/acme/demo/releases/{github.releases('acme/demo')[0].id}",
    ]
    for other, filename in (
        (id_, "demo-2.0-py3-none-any.whl"),
        (asset_id(github, "acme/demo", "README.md"), "README.md"),
        (node_id("Release", github.releases("acme/demo")[0].id), WHEEL),
        (node_id("ReleaseAsset", 1), WHEEL),
    ):
        with pytest.raises(FileNotFound):
            backend.find_alias(other, filename)


def test_a_draft_is_not_opened_by_its_id(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    """Also not for those who may push."""
    release = github.make_release("acme/demo", "v1.0", {WHEEL: b"content"}, draft=True)
    (number,) = release.assets
    with pytest.raises(FileNotFound):
        backend.find_alias(node_id("ReleaseAsset", number), WHEEL)


def test_a_query_that_is_limited_is_trouble(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    github.fail("rate-limit", on="POST /graphql", seconds=30)
    with pytest.raises(BackendUnavailable) as caught:
        backend.find_alias("x", WHEEL)
    assert caught.value.retry_after <= 31


# The projects of an owner.


def test_the_projects_are_the_repositories_that_a_token_may_see(
    github: FakeGitHub, storage: Storage, backend: GitHubProjectsStorage
) -> None:
    github.make_repo("acme", "public")
    github.make_repo("acme", "with_underscore")
    github.make_repo("others", "theirs")
    tokens = {
        "writer": storage.tokens["write-secret"],
        "partial": storage.tokens["partial-secret"],
        "stranger": github.make_token("eve"),
        "workflow": github.make_token(rights={"acme/other": "write"}),
    }
    seen = {who: list(with_token(backend, token).projects()) for who, token in tokens.items()}
    assert seen == {
        "writer": ["demo", "demo-extra", "other", "public"],
        "partial": ["demo", "demo-extra", "public"],
        "stranger": ["public"],
        "workflow": ["other", "public"],
    }


def test_the_projects_of_a_user_have_private_ones_for_those_who_share_them(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    """GitHub lists those only among all repositories of the token's own user."""
    github.make_user("anna")
    github.make_repo("anna", "public")
    github.make_repo("anna", "private", private=True)
    github.make_repo("anna", "shared", private=True)
    of_anna = with_settings(backend, owner="anna")
    seen = {
        who: list(with_token(of_anna, token).projects())
        for who, token in {
            "anna": github.make_token("anna"),
            "friend": github.make_token("berta", {"anna/shared": "read"}),
            "stranger": github.make_token("eve"),
        }.items()
    }
    assert seen == {
        "anna": ["private", "public", "shared"],
        "friend": ["public", "shared"],
        "stranger": ["public"],
    }


def test_the_projects_of_nobody_are_none(backend: GitHubProjectsStorage) -> None:
    assert list(with_settings(backend, owner="nobody").projects()) == []


def test_projects_are_called_as_the_rules_say(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    rules = (Replacement("^acme-(.*)$", "py-$1"), Replacement("^x$", "other"))
    github.make_repo("acme", "py-tool")
    renamed = with_settings(backend, replace=rules)
    assert list(renamed.projects()) == ["acme-tool", "demo", "demo-extra", "other", "py-tool", "x"]


def test_asking_for_the_projects_again_costs_nothing(
    github: FakeGitHub, backend: GitHubProjectsStorage
) -> None:
    for number in range(120):
        github.make_repo("acme", f"more-{number}")
    assert len(list(backend.projects())) == 123
    github.forget_requests()
    assert len(list(backend.projects())) == 123
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)] * 4


# Trouble at every single request.


FAULTS = [
    ("timeout", False),
    ("reset", False),
    ("cut", True),
    ("403", False),
    ("404", False),
    ("422", False),
    ("429", False),
    ("500", False),
    ("502", False),
    ("rate-limit", False),
    ("secondary", False),
]


@pytest.mark.parametrize(("kind", "applied"), FAULTS)
def test_reading_survives_trouble_at_every_request(
    github: FakeGitHub,
    backend: GitHubProjectsStorage,
    tmp_path: Path,
    kind: Any,
    applied: bool,
) -> None:
    """Trouble is an error, never a shorter listing, an absence or other bytes."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    make_releases(github, "acme/other", 1)
    make_releases(github, "acme/demo", 101)
    listed = list(backend.project_files("demo"))
    id_ = asset_id(github, "acme/demo", WHEEL)
    calls: dict[str, tuple[Callable[[Any], Any], Any]] = {
        "access": (lambda reader: reader.access(), Access.READ),
        "access to a project": (lambda reader: reader.access("demo"), Access.WRITE),
        "files": (lambda reader: list(reader.project_files("demo")), listed),
        "projects": (lambda reader: list(reader.projects()), ["demo", "demo-extra", "other"]),
        "open": (lambda reader: content_of(reader.open_file(file)), b"content"),
        "part": (lambda reader: reader.read_part(file.location, 2, 3), b"nte"),
        "metadata": (
            lambda reader: content_of(reader.open_core_metadata(file)),
            upload.core_metadata,
        ),
        "asset": (
            lambda reader: content_of(reader.open_file(handle_of(reader.find_alias(id_, WHEEL)))),
            b"content",
        ),
    }
    for what, (ask, right) in calls.items():
        github.forget_requests()
        assert ask(restarted(backend)) == right
        for at in range(len(github.requests)):
            reader = restarted(backend)
            fault = github.fail(kind, at=at + 1, applied=applied)
            with impatient(kind, 0.4):
                result = outcome(ask, reader)
            github.heal()
            assert fault.happened == 1 or isinstance(result, BackendUnavailable)
            if isinstance(result, PrivatePypiError):
                # GitHub answers 404 to whoever may not see a thing: then there is none.
                absent = kind == "404" and isinstance(result, (FileNotFound, ProjectNotFound))
                assert absent or isinstance(result, (BackendError, NotAllowed)), (what, at, result)
            else:
                believed = {
                    ("access", 0, "403"),
                    ("access to a project", 0, "404"),
                    ("projects", 0, "404"),
                }
                assert result == right or (what, at, kind) in believed, (what, at, kind, result)
            # A connection that broke behind a whole answer is found out by the next request.
            assert ask(retrying(reader)) == right
