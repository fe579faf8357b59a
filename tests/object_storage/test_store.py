"""What is peculiar to a bucket: what it stores how, and what it answers."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import urllib3

from private_pypi.backend import Secret, object_listing
from private_pypi.backend.object_journal import JOURNAL
from private_pypi.errors import BackendError, BackendUnavailable, FileAlreadyExists
from private_pypi.model import Redirect, StoredFile
from private_pypi.testing.contract import BackendContract
from private_pypi.testing.contract.helpers import (
    MIB,
    at_once,
    content_of,
    document,
    make_upload,
    new_folders,
    outcome,
    published,
)
from private_pypi_object_storage import ObjectStorageBackend
from private_pypi_object_storage import store as stores
from private_pypi_object_storage.backend import ObjectStorageView
from private_pypi_object_storage.store import NO_COPY, Abilities, CloudStore
from private_pypi_object_storage.unfinished import _uploads
from tests.object_storage.azurite import ACCOUNT, KEY, Azurite
from tests.object_storage.relay import relay
from tests.object_storage.roles import giving_credentials
from tests.object_storage.running import Running
from tests.object_storage.seaweed import WRITER, Seaweed
from tests.object_storage.servers import backend_of, server, settings_of

pytestmark = pytest.mark.needs("weed", "azurite")

WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.fixture
def storage(seaweed: Seaweed, prefix: str, tmp_path: Path) -> ObjectStorageView:
    return server(seaweed, prefix, tmp_path)


@pytest.fixture
def on_each(each_store: Running, prefix: str, tmp_path: Path) -> ObjectStorageView:
    return server(each_store, prefix, tmp_path)


def reopened(storage: ObjectStorageView, **more: Any) -> ObjectStorageView:
    """The same server with other settings."""
    backend = storage.backend
    settings = replace(backend.settings, **more)
    return ObjectStorageView(ObjectStorageBackend(settings, backend.folders), storage.secret)


def cloud_store(storage: ObjectStorageView) -> CloudStore:
    assert isinstance(storage.backend.store, CloudStore)
    return storage.backend.store


def test_a_long_listing_is_divided_between_the_projects(
    each_store: Running, prefix: str, on_each: ObjectStorageView, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a", "a-b", "a-b-c", "a.b", "ab", "b", "z"]
    for name in names:
        each_store.bucket(prefix).put(f"{name}/x-1.0.zip", b"content")
    monkeypatch.setattr(object_listing, "_SHORT", 2)
    parts = on_each.list_parts()
    listed = [[each.location for each in on_each.list_part(part)] for part in parts]
    # One for each project, and one for what is below `.private_pypi`.
    assert sorted(listed) == [[], *sorted([f"{name}/x-1.0.zip"] for name in names)]
    for count in range(1, len(names)):
        monkeypatch.setattr(object_listing, "_PARTS", count)
        parts = on_each.list_parts()
        found = [each.location for part in parts for each in on_each.list_part(part)]
        assert sorted(found) == sorted(f"{name}/x-1.0.zip" for name in names), count


def test_who_goes_on_with_a_listing_knows_as_well_what_the_store_can(
    each_store: Running, prefix: str, tmp_path: Path
) -> None:
    """`update_index` continues with parts that a process has made that was killed."""
    goes_on = server(each_store, prefix, tmp_path)
    list(goes_on.list_part(json.dumps(["a", "b"])))
    store = cloud_store(goes_on)
    assert store.lists_from_anywhere
    assert store.copies != NO_COPY


def test_a_listing_goes_on_after_every_key_in_the_order_of_the_store(
    each_store: Running, prefix: str, on_each: ObjectStorageView
) -> None:
    for name in ("a", "a-b", "a.b", "ab"):
        each_store.bucket(prefix).put(f"{name}/x-1.0.zip", b"content")
    on_each.backend.check_store()
    store = on_each.backend.store
    assert store.lists_from_anywhere
    keys = [each.key for each in store.list("")]
    for at, key in enumerate(keys, 1):
        assert [each.key for each in store.list("", key)] == keys[at:]


# -- layout and writers --------------------------------------------------------------------------


def test_people_find_what_they_look_for(
    each_store: Running, prefix: str, on_each: ObjectStorageView, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    on_each.put_file(upload)
    sha256 = upload.file.sha256
    keys = each_store.keys(prefix)
    assert [key for key in keys if not key.startswith(".private_pypi/")] == [
        f"demo/{WHEEL}",
        f"demo/{WHEEL}.{sha256}.metadata",
        f"demo/{WHEEL}.{sha256}.record",
    ]
    [entry] = [key for key in keys if key.startswith(JOURNAL)]
    assert entry.endswith(f"/demo/{WHEEL}")
    record = each_store.bucket(prefix).get(f"demo/{WHEEL}.{sha256}.record").bytes()
    assert json.loads(bytes(record)) == upload.record


def test_of_sixty_four_writers_one_wins(each_store: Running, prefix: str, tmp_path: Path) -> None:
    """32 contents under one name, each sent twice: the two with the same bytes may both succeed."""
    writers = [server(each_store, prefix, tmp_path) for _ in range(4)]
    uploads = [
        make_upload(tmp_path, WHEEL, b"%d" % (number // 2), {"keywords": str(number // 2)})
        for number in range(64)
    ]
    outcomes = at_once(
        [
            partial(outcome, writers[number % 4].put_file, upload)
            for number, upload in enumerate(uploads)
        ]
    )
    winners = {
        upload.file.sha256
        for upload, found in zip(uploads, outcomes, strict=True)
        if isinstance(found, StoredFile)
    }
    others = {type(found) for found in outcomes if not isinstance(found, StoredFile)}
    assert len(winners) == 1
    assert others == {FileAlreadyExists}
    [listed] = server(each_store, prefix, tmp_path).list_files()
    assert {listed.sha256} == winners
    kept = [key for key in each_store.keys(f"{prefix}/demo") if key != WHEEL]
    assert {key.split(".")[-2] for key in kept} == winners


@pytest.mark.parametrize(
    ("store", "best", "copies"),
    [
        ("seaweed", "header:if-none-match:*", "header:if-none-match:*"),
        ("seaweed", "header:if-none-match:*", "multipart"),
        ("seaweed", "header:if-none-match:*", NO_COPY),
        ("azurite", "native", "native"),
    ],
)
def test_a_large_file_is_stored_on_the_same_condition(
    request: pytest.FixtureRequest,
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store: str,
    best: str,
    copies: str,
) -> None:
    running: Running = request.getfixturevalue(store)
    storage = server(running, prefix, tmp_path)
    monkeypatch.setattr(stores, "_WHOLE", MIB)
    monkeypatch.setattr(stores, "_PART", 5 * MIB)  # as small as S3 allows
    storage.backend.check_store()
    assert cloud_store(storage).copies == best
    cloud_store(storage).copies = copies
    upload = make_upload(tmp_path, WHEEL, secrets.token_bytes(12 * MIB))
    stored = storage.put_file(upload)
    content = content_of(storage.open_file(published(upload, stored)))
    assert hashlib.sha256(content).hexdigest() == upload.file.sha256
    other = server(running, prefix, tmp_path)
    other.backend.check_store()
    cloud_store(other).copies = copies
    with pytest.raises(FileAlreadyExists):
        other.put_file(make_upload(tmp_path, WHEEL, secrets.token_bytes(12 * MIB)))
    assert other.put_file(upload).stamp == stored.stamp
    assert [key for key in running.keys(prefix) if "/parts/" in key] == []


def test_a_file_is_not_read_into_memory(
    on_each: ObjectStorageView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system sees it: what `obstore` uses is not memory of Python."""
    monkeypatch.setattr(stores, "_WHOLE", 32 * MIB)

    def used() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    on_each.put_file(make_upload(tmp_path, "demo-0.1.tar.gz", b"warm"))
    before = used()
    for name, size in (("demo-1.0.tar.gz", 31 * MIB), ("demo-2.0.tar.gz", 160 * MIB)):
        on_each.put_file(make_upload(tmp_path, name, zeros=size))
        assert used() - before < 100 * MIB


def test_what_arrives_otherwise_than_it_was_sent_is_refused(
    seaweed: Seaweed, prefix: str, tmp_path: Path
) -> None:
    """Each request has the SHA-256 of its body, and the store compares."""
    with relay(seaweed.url, lambda sent: sent.replace(b"the content", b"THE CONTENT")) as between:
        storage = server(replace(seaweed, url=between.url), prefix, tmp_path)
        found = outcome(storage.put_file, make_upload(tmp_path, WHEEL, b"the content"))
        assert isinstance(found, BackendUnavailable)  # sending it again may help
        assert "BadDigest" in str(found)
        assert list(storage.list_files()) == []


def begin_in_parts(store: CloudStore, key: str) -> None:
    """What a process has begun that is killed then. `obstore` gives up what it does not end."""
    answer = urllib3.request("POST", store.signed("POST", key, {"uploads": ""}))
    assert b"<UploadId>" in answer.data


def begun(store: CloudStore) -> list[str]:
    """The keys of all uploads in parts that were begun in the bucket below a prefix."""
    query = {"uploads": "", "prefix": store._settings.prefix}
    listed = urllib3.request("GET", store.signed("GET", "", query)).data.decode()
    return [key for key, *_ in _uploads(listed)]


def test_an_upload_in_parts_that_was_killed_is_given_up_after_a_day(
    prefix: str, storage: ObjectStorageView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No listing of objects shows its parts."""
    store = cloud_store(storage)
    ours = [f"{prefix}/.private_pypi/parts/x", f"{prefix}/a b+c/ü&d=é%2F?e.zip"]
    for key in (*ours, f"{prefix}-other/x"):
        begin_in_parts(store, key)
    assert sorted(begun(store)) == sorted([*ours, f"{prefix}-other/x"])
    assert store.give_up(older_than=timedelta(days=1)) == 0
    monkeypatch.setattr(stores, "_DAY", timedelta(seconds=-5))
    list(storage.list_files())
    storage.sweep()
    assert begun(store) == [f"{prefix}-other/x"]
    wrong = cloud_store(reopened(storage, secret_access_key=Secret("wrong")))
    with pytest.raises(BackendError, match="the store answered 403"):
        wrong.give_up(older_than=timedelta())


@pytest.mark.parametrize("kind", ["environment", "container", "machine"])
def test_uploads_are_given_up_with_credentials_of_every_kind(
    seaweed: Seaweed,
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Also with those that are not in the table, but in the environment, or of a role."""
    with giving_credentials(tmp_path, kind, monkeypatch) as token:
        settings = {"access_key_id": None, "secret_access_key": None}
        store = cloud_store(server(seaweed, prefix, tmp_path, **settings))
        address = store.signed("GET", "", {"uploads": ""})
    assert token is None or f"X-Amz-Security-Token={token}" in address
    assert f"X-Amz-Credential={WRITER[0]}%2F" in address
    if token is None:  # else it is one of Amazon, which this store does not know
        begin_in_parts(store, f"{prefix}/x")
        assert store.give_up(older_than=timedelta(seconds=-5)) == 1
        assert begun(store) == []


# -- downloads -----------------------------------------------------------------------------------


def test_clients_are_redirected_to_a_signed_address(
    on_each: ObjectStorageView, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, "demo-1.0+local.1-py3-none-any.whl", b"content")
    file = published(upload, on_each.put_file(upload))
    found = reopened(on_each, download="redirect").open_file(file)
    assert isinstance(found, Redirect)
    assert found.expires_at is not None
    left = found.expires_at - datetime.now(UTC)
    assert timedelta(minutes=5) < left <= timedelta(minutes=10)
    with urllib.request.urlopen(found.url) as answer:
        assert answer.read() == b"content"
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{file.filename}"'
    unsigned = found.url.partition("?")[0]
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(unsigned)


def test_credentials_may_come_from_the_environment(
    seaweed: Seaweed, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", WRITER[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRITER[1])
    storage = server(seaweed, prefix, tmp_path, access_key_id=None, secret_access_key=None)
    stored = storage.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert [each.filename for each in storage.list_files()] == [stored.filename]


def test_credentials_of_azure_may_come_from_the_environment(
    azurite: Azurite, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    storage = server(azurite, prefix, tmp_path, account=None, account_key=None)
    stored = storage.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert [each.filename for each in storage.list_files()] == [stored.filename]


def test_credentials_may_come_from_a_profile(seaweed: Seaweed, prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text(
        "[default]\naws_access_key_id = OTHER\naws_secret_access_key = other\n\n[acme]\n"
        f"aws_access_key_id = {WRITER[0]}\naws_secret_access_key = {WRITER[1]}\n"
    )
    given: dict[str, Any] = {"access_key_id": None, "secret_access_key": None}
    given |= {"profile": "acme", "credentials_file": path}
    storage = server(seaweed, prefix, tmp_path, **given)
    stored = storage.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert [each.filename for each in storage.list_files()] == [stored.filename]
    storage.sweep()  # signs requests of its own
    wrong = server(seaweed, prefix, tmp_path, **{**given, "profile": "default"})
    with pytest.raises(BackendError, match="refuses the credentials"):
        wrong.put_file(make_upload(tmp_path, WHEEL, b"content"))


# -- what the store is asked ---------------------------------------------------------------------


def test_an_unchanged_index_document_is_not_sent(
    on_each: ObjectStorageView, tmp_path: Path
) -> None:
    revision = on_each.write_index(document(tmp_path, b"mtime = 1\n"), "")
    into = tmp_path / "again.toml"
    assert on_each.read_index(into, unless=revision) == revision
    assert not into.exists()


def test_names_that_begin_like_others_are_told_apart(
    each_store: Running, prefix: str, on_each: ObjectStorageView, tmp_path: Path
) -> None:
    """A listing of a store is of a folder; ours is of a beginning of keys."""
    names = [
        *("demo-1.0.zip", "demo-1.0.tar.gz", "demo-1.0.post1.zip", "demo-1.0-py3-none-any.whl"),
        *("demo_demo-1.0.zip", "demo.demo-1.0.zip", "dem-1.0.zip"),
    ]
    for name in names:
        on_each.put_file(make_upload(tmp_path, name, name.encode()))
    assert sorted(each.filename for each in on_each.list_files()) == sorted(names)
    store = on_each.backend.store
    assert next(store.list("demo/demo-1.0.zip")).key == "demo/demo-1.0.zip"
    assert [each.key for each in store.list("demo/demo-1.0.p")] == [
        key
        for key in (each.key for each in store.list("demo/"))
        if key.startswith("demo/demo-1.0.p")
    ]
    assert list(store.list("de/")) == []


# -- trouble that is peculiar to a bucket --------------------------------------------------------


def calls_of(storage: ObjectStorageView, tmp_path: Path) -> list[Any]:
    upload = make_upload(tmp_path, WHEEL, b"content")
    return [
        lambda: storage.read_index(tmp_path / "index.toml"),
        lambda: list(storage.list_files()),
        lambda: list(storage.recent_files(datetime.now(UTC))),
        lambda: content_of(storage.open_file(upload.file)),
        lambda: storage.put_file(upload),
        lambda: storage.delete_file(upload.file),
    ]


WRONG = base64.b64encode(b"wrong secret").decode()


@pytest.mark.parametrize(
    ("store", "more", "words"),
    [
        # It answers, or refuses the credentials.
        ("seaweed", {"url": "s3://no-such-bucket/x"}, "the store "),
        ("seaweed", {"secret_access_key": Secret(WRONG)}, "refuses the credentials"),
        ("seaweed", {"access_key_id": "NOBODY"}, "refuses the credentials"),
        ("azurite", {"url": "az://no-such-container/x"}, "the store answered 404"),
        ("azurite", {"account_key": Secret(WRONG)}, "refuses the credentials"),
        (
            "azurite",
            {"account_key": None, "sas_token": Secret(f"sv=2023-11-03&sr=c&sp=rwdl&sig={WRONG}")},
            "refuses the credentials",
        ),
    ],
)
def test_a_bucket_that_is_not_there_is_no_empty_one(
    request: pytest.FixtureRequest,
    prefix: str,
    tmp_path: Path,
    store: str,
    more: dict[str, Any],
    words: str,
) -> None:
    # Without a secret for writing, so that the store is not probed before.
    given = {"write_secret": (), **more}
    wrong = server(request.getfixturevalue(store), prefix, tmp_path, **given)
    for call in calls_of(wrong, tmp_path):
        found = outcome(call)
        assert isinstance(found, BackendError), found
        assert words in str(found), found
        assert WRONG not in str(found)


def test_a_store_that_does_not_answer_is_asked_again_later(
    each_store: Running, prefix: str, tmp_path: Path
) -> None:
    with relay(each_store.url) as between:
        storage = server(replace(each_store, url=between.url), prefix, tmp_path)
        storage.put_file(make_upload(tmp_path, WHEEL, b"content"))
        between.cut()
        for call in calls_of(storage, tmp_path):
            assert isinstance(outcome(call), BackendUnavailable)


# -- stores that ignore conditions ---------------------------------------------------------------


class Careless(CloudStore):
    """A store that overwrites whatever the condition is."""

    ignores: str

    def _put(self, store: Any, key: str, content: Any, mode: Any) -> str:
        is_create = mode == "create"
        if is_create == (self.ignores == "If-None-Match"):
            mode = "overwrite"
        return super()._put(store, key, content, mode)


@pytest.mark.parametrize("ignores", ["If-None-Match", "If-Match"])
def test_a_store_that_ignores_conditions_is_refused(
    each_store: Running, prefix: str, tmp_path: Path, ignores: str
) -> None:
    class Backend(ObjectStorageBackend):
        def open_store(self) -> CloudStore:
            store = Careless(self.settings)
            store.ignores = ignores
            return store

    folders = new_folders(tmp_path)
    backend = Backend(settings_of(each_store, prefix), folders)
    storage = ObjectStorageView(backend, Secret(BackendContract.write_secret))
    upload = make_upload(tmp_path, WHEEL, b"content")
    for _ in range(2):
        for call in (
            lambda: storage.read_index(tmp_path / "index.toml"),
            lambda: list(storage.list_files()),
            lambda: storage.put_file(upload),
        ):
            with pytest.raises(BackendError, match=f"has the condition {ignores}, so two servers"):
                call()
    assert [key for key in each_store.keys(prefix) if key.startswith("demo/")] == []


def test_what_was_found_out_is_remembered_for_this_store(
    each_store: Running, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = new_folders(tmp_path)
    backend_of(each_store, prefix, folders).check_store()
    asked = []
    found = Abilities(NO_COPY, lists_from_anywhere=True)
    monkeypatch.setattr(CloudStore, "probe", lambda self: asked.append(self) or found)
    backend_of(each_store, prefix, folders).check_store()
    assert asked == []
    backend_of(each_store, prefix, folders, write_secret=()).check_store()
    assert asked == []
    backend_of(each_store, f"{prefix}-other", folders).check_store()
    assert len(asked) == 1
