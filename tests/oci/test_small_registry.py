"""What only a registry of our own shows: its abilities, its refusals, and its troubles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from private_pypi.backend import Access, Secret
from private_pypi.errors import (
    BackendUnavailable,
    FileNotFound,
    NotAllowed,
    WrongSecret,
)
from private_pypi.model import Redirect, StoredFile
from private_pypi.storage.retrying import retrying
from private_pypi.testing.contract.helpers import (
    calls_of,
    content_of,
    make_upload,
    outcome,
    published,
)
from private_pypi_oci import registry as registry_module
from private_pypi_oci.backend import OciStorage
from tests.oci import small_registry as small
from tests.oci.pyoci import PyOci
from tests.oci.registries import PASSWORDS
from tests.oci.small_registry import Abilities, SmallRegistry, small_registry
from tests.oci.test_storage import names, over

SDIST, WHEEL = "demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl"
WALTER = ("walter", "write-secret")

Start = Callable[..., SmallRegistry]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a registry that has these abilities."""
    with ExitStack() as stack:
        yield lambda **abilities: stack.enter_context(small_registry(Abilities(**abilities)))


def put(storage: OciStorage, tmp_path: Path, *filenames: str) -> list[StoredFile]:
    return [storage.put_file(make_upload(tmp_path, n, n.encode())) for n in filenames]


# -- the registry itself -----------------------------------------------------------------------


def test_the_registry_checks_what_it_is_sent(start: Start) -> None:
    running = start()
    url = f"{running.url}/v2/acme/demo"

    def send(path: str, content: bytes, media_type: str, **headers: str) -> requests.Response:
        given = {"Content-Type": media_type, **headers}
        return requests.put(f"{url}/{path}", content, auth=WALTER, headers=given, timeout=30)

    begun = requests.post(f"{url}/blobs/uploads/", auth=WALTER, timeout=30)
    place = begun.headers["Location"].removeprefix("/v2/acme/demo/")
    wrong = send(f"{place}&digest=sha256:{'0' * 64}", b"content", "application/octet-stream")
    assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (400, "DIGEST_INVALID")
    pyoci = PyOci(running.url, *WALTER)
    _, _, index = pyoci.prepare("acme", "demo", "1.0", ".tar.gz", b"content")
    content = json.dumps(index).encode()
    assert send(f"manifests/sha256:{'0' * 64}", content, small.INDEX).status_code == 400
    assert send("manifests/1.0", content, "application/json").status_code == 400
    lacking = {**index, "manifests": [{**index["manifests"][0], "digest": "sha256:" + "0" * 64}]}
    assert send("manifests/1.0", json.dumps(lacking).encode(), small.INDEX).status_code == 404
    made = send("manifests/1.0", content, small.INDEX, **{"If-None-Match": "*"})
    assert made.status_code == 201
    again = send("manifests/1.0", content, small.INDEX, **{"If-None-Match": "*"})
    assert again.status_code == 412
    for etag, status in ((made.headers["ETag"], 201), ('"other"', 412)):
        assert send("manifests/1.0", content, small.INDEX, **{"If-Match": etag}).status_code == (
            status
        )
    subject = {"subject": {"digest": made.headers["Docker-Content-Digest"]}}
    answer = send("manifests/note", json.dumps({**index, **subject}).encode(), small.INDEX)
    assert answer.headers["OCI-Subject"] == made.headers["Docker-Content-Digest"]
    found = requests.get(
        f"{url}/referrers/{made.headers['Docker-Content-Digest']}", auth=WALTER, timeout=30
    ).json()
    assert [each["digest"] for each in found["manifests"]] == [
        answer.headers["Docker-Content-Digest"]
    ]
    assert running.asked()["PUT", "manifest"] == 9


def test_a_secret_that_reaches_the_second_host_is_noticed() -> None:
    with pytest.raises(AssertionError), small_registry(Abilities(redirects=True)) as running:
        PyOci(running.url, *WALTER).publish("acme", "demo", "1.0", ".tar.gz", b"content")
        digest = f"sha256:{hashlib.sha256(b'content').hexdigest()}"
        url = f"{running.storage_url}/blobs/acme/demo/{digest}"
        assert requests.get(url, timeout=30).content == b"content"
        requests.get(url, auth=WALTER, timeout=30)


# -- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("absolute", [False, True])
def test_all_pages_of_tags_and_of_projects_are_read(
    start: Start, tmp_path: Path, absolute: bool
) -> None:
    running = start(absolute_links=absolute, relative_uploads=not absolute)
    storage = over(running.url, tmp_path)
    files = [f"demo-{number}.0.tar.gz" for number in range(10)]
    put(storage, tmp_path, *files, *(f"other{number}-1.0.tar.gz" for number in range(5)))
    reader = over(running.url, tmp_path)
    running.asked()
    assert names(reader) == files
    assert running.asked()["GET", "tags"] == 1 + 4 + 4  # refused, demo, and its journal
    assert list(reader.projects()) == ["demo", *(f"other{number}" for number in range(5))]


def test_without_tags_a_project_is_empty(start: Start, tmp_path: Path) -> None:
    """The registry answers `"tags": null`."""
    running = start()
    storage = over(running.url, tmp_path)
    put(storage, tmp_path, SDIST)
    running.repositories["acme/demo"].tags.clear()
    assert list(over(running.url, tmp_path).project_files("demo")) == []


# -- deleting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("unknown", [404, 403])
@pytest.mark.parametrize("deletes", ["", "tag", "digest", "tag digest blob"])
def test_a_version_is_deleted_as_the_registry_allows(
    start: Start, tmp_path: Path, deletes: str, unknown: int
) -> None:
    running = start(deletes=frozenset(deletes.split()), unknown=unknown)
    storage = over(running.url, tmp_path)
    reader = over(running.url, tmp_path)
    upload = make_upload(tmp_path, SDIST, b"content")
    file = published(upload, storage.put_file(upload))
    put(storage, tmp_path, "demo-2.0.tar.gz")
    assert names(reader) == [SDIST, "demo-2.0.tar.gz"]
    digest = running.repositories["acme/demo"].tags["1.0"]
    running.asked()
    storage.delete_file(file)
    asked = running.asked()
    repository = running.repositories["acme/demo"]
    if deletes:
        assert "1.0" not in repository.tags
        assert (digest in repository.manifests) == ("digest" not in deletes)
        assert asked["PUT", "manifest"] == 3  # of the journal: taken, burnt, released
    else:
        # The registry says that it does not; an index without files is what remains.
        _, content = repository.manifests[repository.tags["1.0"]]
        assert json.loads(content)["manifests"] == []
    assert (file.sha256 is not None and f"sha256:{file.sha256}" in repository.blobs) == (
        "blob" not in deletes
    )
    with pytest.raises(FileNotFound):
        content_of(storage.open_file(file))
    assert names(storage) == names(reader) == ["demo-2.0.tar.gz"]
    [stored] = storage.project_files("demo")
    other = make_upload(tmp_path, "demo-2.0.tar.gz", b"")
    storage.yank_file(published(other, stored), "broken")
    assert [each.yanked for each in reader.project_files("demo")] == ["broken"]


def test_who_may_write_but_not_delete_deletes_as_where_nobody_can(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(small.RIGHTS, "walter", {"*": "pull,push"})  # type: ignore[arg-type]
    for bearer in (False, True):
        running = start(bearer=bearer)
        storage = over(running.url, tmp_path)
        put(storage, tmp_path, SDIST)
        storage.delete_file(make_upload(tmp_path, SDIST, b"").file)
        assert names(storage) == names(over(running.url, tmp_path)) == []


@pytest.mark.parametrize("deletes", ["", "tag digest blob"])
def test_what_another_server_deleted_from_a_version_is_not_taken_for_lost(
    start: Start, tmp_path: Path, deletes: str
) -> None:
    running = start(deletes=frozenset(deletes.split()))
    mine, theirs = over(running.url, tmp_path), over(running.url, tmp_path)
    put(theirs, tmp_path, SDIST, WHEEL)
    assert names(mine) == [WHEEL, SDIST]
    theirs.delete_file(make_upload(tmp_path, WHEEL, b"").file)
    assert names(mine) == [SDIST]
    running.asked()
    assert names(mine) == [SDIST]
    assert running.asked()["GET", "tags"] == 1  # the journal is not asked any more


# -- troubles ------------------------------------------------------------------------------------


def test_too_many_requests_are_told_and_repeated_by_the_core_alone(
    start: Start, tmp_path: Path
) -> None:
    for bearer in (False, True):
        running = start(bearer=bearer)
        storage = over(running.url, tmp_path)
        upload = make_upload(tmp_path, SDIST, b"content")
        stored = storage.put_file(upload)
        for again in (storage, over(running.url, tmp_path)):
            calls = calls_of(again, upload, stored, "", tmp_path)
            for verb, call in {**calls, "access": lambda a=again: a.access("demo")}.items():
                running.fail(1 << 30, 429, retry_after=7)
                running.asked()
                error = outcome(call)
                assert isinstance(error, BackendUnavailable), (verb, error)
                assert (error.retry_after, "429" in str(error)) == (7, True), verb
                assert running.asked().total() == 1, verb
        waited: list[float] = []
        patient: Any = retrying(over(running.url, tmp_path), sleep=waited.append)
        running.fail(2, 429, retry_after=3)
        assert [each.filename for each in patient.project_files("demo")] == [SDIST]
        assert len(waited) == 2
        assert min(waited) >= 3


def test_too_many_requests_in_the_middle_of_a_publication(start: Start, tmp_path: Path) -> None:
    running = start(bearer=True)
    for at in range(60):
        namespace = f"acme/try{at}"
        upload = make_upload(tmp_path, SDIST, b"content")
        storage = over(running.url, tmp_path, namespace=namespace)
        running.fail(1, 429, after=at, retry_after=7)
        running.asked()
        result = outcome(storage.put_file, upload)
        is_over = running.asked().total() <= at
        running.fail(0, 429)
        if is_over:
            break
        assert isinstance(result, StoredFile) or result.retry_after == 7, (at, result)
        assert storage.put_file(upload).filename == SDIST
        assert names(over(running.url, tmp_path, namespace=namespace)) == [SDIST]
    assert 15 < at < 59


@pytest.mark.parametrize("redirects", [False, True])
def test_a_blob_that_is_cut_never_becomes_a_file(
    start: Start, tmp_path: Path, redirects: bool
) -> None:
    running = start(redirects=redirects)
    storage = over(running.url, tmp_path)
    upload = make_upload(tmp_path, SDIST, bytes(range(256)) * 1000)
    stored = storage.put_file(upload)
    file = published(upload, stored)
    assert upload.core_metadata is not None
    for after in (0, 1, len(upload.core_metadata) - 1, len(upload.core_metadata), 255_999, 256_000):
        running.cut_blobs(after)
        found = outcome(lambda: content_of(storage.open_file(file)))
        if after < 256_000:
            assert isinstance(found, BackendUnavailable), after
        else:
            assert found == bytes(range(256)) * 1000
        found = outcome(lambda: content_of(storage.open_core_metadata(file)))
        if after < len(upload.core_metadata):
            assert isinstance(found, BackendUnavailable), after
        else:
            assert found == upload.core_metadata
        found = outcome(storage.read_part, stored.location, 100, 300)
        if after < 300:
            assert isinstance(found, BackendUnavailable), after
        else:
            assert found == (bytes(range(256)) * 1000)[100:400]


# -- other hosts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bearer", [False, True])
def test_a_redirected_blob_is_fetched_without_the_secret(
    start: Start, tmp_path: Path, bearer: bool
) -> None:
    """The registry fails at its end if the second host was sent any."""
    running = start(redirects=True, bearer=bearer)
    storage = over(running.url, tmp_path)
    upload = make_upload(tmp_path, SDIST, b"content")
    stored = storage.put_file(upload)
    storage.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))  # the same blob
    file = published(upload, stored)
    assert content_of(storage.open_file(file)) == b"content"
    assert content_of(storage.open_core_metadata(file)) == upload.core_metadata
    assert storage.read_part(stored.location, 3, 100) == b"tent"
    assert running.asked()["GET", "storage"] == 3
    opened = over(running.url, tmp_path, download="redirect").open_file(file)
    assert isinstance(opened, Redirect)
    assert opened.url.startswith(running.storage_url)
    assert running.asked()["GET", "storage"] == 0
    assert content_of(opened) == b"content"


def test_a_large_blob_comes_in_chunks(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "_PART", 1000)
    running = start(largest_put=1000)
    storage = over(running.url, tmp_path)
    content = bytes(range(256)) * 10
    upload = make_upload(tmp_path, SDIST, content)
    file = published(upload, storage.put_file(upload))
    assert running.asked()["PATCH", "upload"] == 3
    assert content_of(storage.open_file(file)) == content


# -- somebody who does not know the journal ------------------------------------------------------


def slip_in(running: SmallRegistry, architecture: str) -> None:
    """Let PyOCI publish a file just before an index of ours is written."""
    pyoci = PyOci(running.url, *WALTER)
    name, tag, index = pyoci.prepare("acme", "demo", "1.0", architecture, b"theirs")
    running.slip_in(name, tag, json.dumps(index).encode())


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize("before", [[], [SDIST]])
def test_nothing_is_lost_where_the_registry_heeds_conditions(
    start: Start, tmp_path: Path, conditions: bool, before: list[str]
) -> None:
    running = start(conditions=conditions)
    storage = over(running.url, tmp_path)
    put(storage, tmp_path, *before)
    slip_in(running, ".zip")
    put(storage, tmp_path, WHEEL)
    theirs = ["demo-1.0.zip"] if conditions else []  # others overwrite what they do not know
    assert sorted(PyOci(running.url, *WALTER).listed("acme", "demo")) == sorted(
        [WHEEL, *before, *theirs]
    )


def test_a_deletion_and_a_yank_lose_nothing_either(start: Start, tmp_path: Path) -> None:
    running = start()
    storage = over(running.url, tmp_path)
    put(storage, tmp_path, SDIST, WHEEL)
    slip_in(running, ".zip")
    storage.delete_file(make_upload(tmp_path, SDIST, b"").file)
    assert names(storage) == [WHEEL, "demo-1.0.zip"]
    slip_in(running, "py2-none-any.whl")
    storage.yank_file(make_upload(tmp_path, WHEEL, b"").file, "broken")
    yanked = {each.filename: each.yanked for each in storage.project_files("demo")}
    assert yanked == {WHEEL: "broken", "demo-1.0.zip": None, "demo-1.0-py2-none-any.whl": None}


def test_who_is_always_overtaken_gives_up(start: Start, tmp_path: Path) -> None:
    running = start()
    storage = over(running.url, tmp_path)
    for number in range(5):
        slip_in(running, f"{number}-py3-none-any.whl")
    with pytest.raises(BackendUnavailable, match="was changed meanwhile"):
        put(storage, tmp_path, SDIST)
    put(storage, tmp_path, SDIST)
    assert SDIST in names(storage)


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("unknown", [404, 403])
def test_a_project_is_shown_without_its_journal(start: Start, tmp_path: Path, unknown: int) -> None:
    """Only PyOCI has published it, or the secret may read the project alone."""
    running = start(bearer=True, unknown=unknown)
    storage = over(running.url, tmp_path)
    put(storage, tmp_path, SDIST, WHEEL)
    upload = make_upload(tmp_path, SDIST, SDIST.encode())
    partial = OciStorage(storage.backend, Secret("paul:" + PASSWORDS["paul"]))
    alone = OciStorage(over(running.url, tmp_path).backend, partial.secret)
    assert names(partial) == names(alone) == [WHEEL, SDIST]
    file = published(upload, storage.put_file(upload))
    assert content_of(alone.open_file(file)) == SDIST.encode()
    storage.delete_file(file)
    assert names(alone) == [WHEEL]
    with pytest.raises(FileNotFound):
        alone.open_file(file)
    # What one secret may not see is not kept for the others.
    both = OciStorage(alone.backend, storage.secret)
    with pytest.raises(FileNotFound):
        both.open_file(file)


def test_what_only_pyoci_has_published_is_served_where_unknown_means_refused(
    start: Start, tmp_path: Path
) -> None:
    running = start(conditions=False, deletes=frozenset())
    PyOci(running.url, *WALTER).publish("acme", "demo", "1.0", ".tar.gz", b"content")
    running.abilities = replace(running.abilities, unknown=403)
    storage = over(running.url, tmp_path)
    [stored] = storage.project_files("demo")
    file = published(make_upload(tmp_path, SDIST, b"content"), stored)
    assert content_of(storage.open_file(file)) == b"content"
    put(storage, tmp_path, WHEEL)
    assert names(storage) == [WHEEL, SDIST]


@pytest.mark.parametrize("bearer", [False, True])
def test_who_may_push_and_not_pull_overwrites_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bearer: bool
) -> None:
    """Refused reads are taken for a new project only until something is written."""
    running = start(bearer=bearer, conditions=False)
    put(over(running.url, tmp_path), tmp_path, SDIST)
    monkeypatch.setitem(small.RIGHTS, "walter", {"*": "push"})  # type: ignore[arg-type]
    storage = over(running.url, tmp_path)
    assert storage.access("demo") is Access.WRITE
    with pytest.raises(NotAllowed):
        put(storage, tmp_path, WHEEL)
    monkeypatch.undo()
    assert names(over(running.url, tmp_path)) == [SDIST]


def test_an_upload_that_was_only_tried_is_given_up(start: Start, tmp_path: Path) -> None:
    running = start(unknown=403)
    storage = over(running.url, tmp_path)
    assert storage.access("demo") is Access.WRITE
    assert running.repositories["acme/demo"].uploads == {}
    rita = OciStorage(storage.backend, Secret("rita:" + PASSWORDS["rita"]))
    with pytest.raises(NotAllowed):
        rita.access("demo")


# -- token endpoints that refuse ---------------------------------------------------------------


def test_a_token_endpoint_that_refuses_a_scope_is_not_an_absence(
    start: Start, tmp_path: Path
) -> None:
    """As ghcr.io is reported to do it. The secret is right, so it is not a wrong secret either."""
    running = start(bearer=True, strict_tokens=True)
    put(over(running.url, tmp_path), tmp_path, SDIST)
    reader = over(running.url, tmp_path, Secret("rita:read-secret"))
    assert (reader.access(), reader.access("demo")) == (Access.READ, Access.READ)
    assert names(reader) == [SDIST]
    partial = over(running.url, tmp_path, Secret("paul:partial-secret"))
    assert (partial.access(), partial.access("demo")) == (Access.READ, Access.READ)
    assert names(partial) == [SDIST]  # although the journal is refused
    with pytest.raises(NotAllowed, match="does not allow this secret to read"):
        partial.access("another")
    wrong = over(running.url, tmp_path, Secret("walter:wrong"))
    assert (wrong.access(), wrong.access("demo")) == (Access.NONE, Access.NONE)


def test_without_credentials_only_what_is_public_is_read(start: Start, tmp_path: Path) -> None:
    running = start(bearer=True, strict_tokens=True, public=frozenset({"acme/demo"}))
    put(over(running.url, tmp_path), tmp_path, SDIST)
    nobody = over(running.url, tmp_path, Secret(":"))
    assert (nobody.access(), nobody.access("demo")) == (Access.READ, Access.READ)
    assert names(nobody) == [SDIST]
    with pytest.raises(WrongSecret):
        nobody.access("another")


@pytest.mark.parametrize("token", ["日本", "a\r\nX", "a\x00", "a b"])
def test_a_token_that_no_header_can_have_is_wrong(start: Start, tmp_path: Path, token: str) -> None:
    running = start(bearer=True)
    storage = over(running.url, tmp_path, Secret(token))
    assert (storage.access(), storage.access("demo")) == (Access.NONE, Access.NONE)
    assert running.asked() == {}
