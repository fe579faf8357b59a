"""A repository whose storage is asked for each project: what it shows to whom, and its errors."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from private_pypi.backend import Access
from private_pypi.commands.indexing import update_index
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    FileNotFound,
    Unsupported,
    WrongSecret,
)
from private_pypi.index import rebuilding as indexing
from private_pypi.index.examining import handle_of
from private_pypi.storage import recent_trouble
from private_pypi.storage.retrying import retrying
from private_pypi.testing import Memory
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web import create_app
from private_pypi.web.deployment import Deployment
from tests import waiting
from tests.web import lookups
from tests.web.conftest import Deploy, basic, publish

JSON = "application/vnd.pypi.simple.v1+json"
READER = basic("mine", "read")
WRITER = basic("mine", "write")
PARTIAL = basic("mine", "partial")

# Nothing is remembered for longer than one request takes.
IMPATIENT = "sync_index_interval = 0.000001\n"
DOWN = BackendUnavailable("the storage is down", retry_after=20)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Memory:
    lookups.install(monkeypatch)
    monkeypatch.setattr(recent_trouble, "MOST", 0.05)
    storage = lookups.STORAGES["mine"] = Memory()
    storage.projects.update({"demo", "other"})
    storage.rights["partial"] = {"demo": Access.READ}
    return storage


Serve = Callable[..., FlaskClient]


@pytest.fixture
def served(storage: Memory, deploy: Deploy) -> Callable[..., Deployment]:
    """A deployment of the storage; `more` are lines of its table."""

    def make(more: str = "sync_index_interval = 3600\n", **options: str) -> Deployment:
        return deploy(f'[mine]\ntype = "lookup"\n{more}', **options)

    return make


@pytest.fixture
def serve(served: Callable[..., Deployment]) -> Serve:
    def make(more: str = "sync_index_interval = 3600\n", **options: str) -> FlaskClient:
        return create_app(served(more, **options)).test_client()

    return make


def page(client: FlaskClient, project: str = "demo", headers: object = READER) -> TestResponse:
    return client.get(f"/simple/{project}/", headers={**headers, "Accept": JSON})  # type: ignore[dict-item]


def names(answer: TestResponse) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [file["filename"] for file in answer.get_json(force=True)["files"]]


def asked(storage: Memory, before: Counter[str]) -> dict[str, int]:
    """The calls of the storage since then."""
    return dict(storage.calls - before)


def eventually(ask: Callable[[], TestResponse], status: int) -> TestResponse:
    """The first answer with this status."""
    deadline = time.monotonic() + 30
    while True:
        answer = ask()
        if answer.status_code == status or time.monotonic() > deadline:
            assert answer.status_code == status
            return answer
        time.sleep(0.01)


# -- what is shown -------------------------------------------------------------------------------


def test_a_page_says_what_is_in_the_files_and_costs_a_few_parts_of_them(
    storage: Memory, serve: Serve
) -> None:
    wheel = make_wheel(
        "demo", "1.0", requires_python=">=3.8", files={"demo.bin": bytes(range(256)) * 4000}
    )
    sdist = make_sdist("demo", "1.0", requires_python=">=3.8")
    for filename, content in (wheel, sdist, make_wheel("demo", "0.9")):
        storage.drop(filename, content)
    client = serve()
    answer = page(client)
    assert names(answer) == ["demo-0.9-py3-none-any.whl", wheel[0], sdist[0]]
    entry = answer.get_json(force=True)["files"][1]
    assert entry["hashes"] == {"sha256": hashlib.sha256(wheel[1]).hexdigest()}
    assert (entry["size"], entry["requires-python"]) == (len(wheel[1]), ">=3.8")
    assert storage.calls == {
        "access": 1,
        "access demo": 1,
        "project_files": 1,
        "read_part": 3,  # one of each: the end has it all, of a small sdist the beginning
    }
    before = storage.calls.copy()
    for filename, _ in (wheel, sdist):
        metadata = client.get(f"/simple/demo/{filename}.metadata", headers=READER)
        assert metadata.status_code == 200
        assert b"Requires-Python: >=3.8" in metadata.data
    assert names(page(client)) == names(answer)
    assert asked(storage, before) == {}
    assert client.get(f"/simple/demo/{wheel[0]}", headers=READER).data == wheel[1]
    assert asked(storage, before) == {"open_file": 1}


def test_only_distribution_files_of_the_project_are_shown(
    storage: Memory, served: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("demo", "demo-extra"):
        storage.drop(*make_wheel(name, "1.0"))
    wheel = make_wheel("demo", "1.0")[0]
    stored = {file.filename: file for file in storage.open_lookup().project_files("demo")}
    extra = list(storage.open_lookup().project_files("demo-extra"))
    odd = [lookups.replace(stored[wheel], filename=f) for f in ("SHA256SUMS", "demo-src.zip", "é")]
    monkeypatch.setattr(
        lookups.LookupStorage,
        "project_files",
        lambda self, project: iter([*odd, *extra, *stored.values(), *stored.values()]),
    )
    assert names(page(create_app(served()).test_client())) == [wheel]


def test_what_did_not_change_costs_one_question_and_no_serial(
    storage: Memory, serve: Serve
) -> None:
    storage.drop(*make_wheel("demo", "1.0"))
    client = serve(IMPATIENT)
    first = page(client)
    before = storage.calls.copy()
    headers = {**READER, "If-None-Match": first.headers["ETag"]}
    again = page(client, headers=headers)
    assert again.status_code == 304
    assert again.headers["X-PyPI-Last-Serial"] == first.headers["X-PyPI-Last-Serial"]
    assert "Cache-Status" not in again.headers
    assert asked(storage, before) == {"project_files": 1}


def test_what_changed_is_shown_and_what_is_gone_is_not(storage: Memory, serve: Serve) -> None:
    old, new = make_wheel("demo", "1.0"), make_wheel("demo", "2.0")
    storage.drop(*old)
    client = serve(IMPATIENT)
    first = page(client)
    storage.remove(old[0])
    storage.drop(*new)
    second = page(client)
    assert (names(first), names(second)) == ([old[0]], [new[0]])
    assert first.headers["ETag"] != second.headers["ETag"]
    assert client.get(f"/simple/demo/{old[0]}", headers=READER).status_code == 404
    replaced = make_wheel("demo", "2.0", requires_python=">=3.12")
    storage.drop(*replaced)
    [entry] = page(client).get_json(force=True)["files"]
    assert entry["requires-python"] == ">=3.12"
    storage.remove(new[0])
    assert page(client).status_code == 404


def test_a_broken_file_is_left_out_and_not_opened_again(
    storage: Memory, served: Callable[..., Deployment]
) -> None:
    good = make_wheel("demo", "1.0")
    storage.drop(*good)
    storage.drop("demo-2.0-py3-none-any.whl", b"this is no archive")
    storage.drop("demo-3.0-py3-none-any.whl", make_wheel("other", "3.0")[1])
    deployment = served(IMPATIENT)
    client = create_app(deployment).test_client()
    assert names(page(client)) == [good[0]]
    [repository] = deployment.repositories
    assert set(repository.index.broken()) == {
        "demo-2.0-py3-none-any.whl",
        "demo-3.0-py3-none-any.whl",
    }
    before = storage.calls.copy()
    assert names(page(client)) == [good[0]]
    assert asked(storage, before) == {"project_files": 1}
    mended = make_wheel("demo", "2.0")
    storage.drop(*mended)
    assert names(page(client)) == [good[0], mended[0]]
    assert set(repository.index.broken()) == {"demo-3.0-py3-none-any.whl"}


def test_without_digests_a_file_is_opened_whole_once_and_for_all(
    storage: Memory, serve: Serve, tmp_path: Path
) -> None:
    storage.gives_sha256 = False
    filename, content = make_wheel("demo", "1.0", requires_python=">=3.8")
    storage.drop(filename, content)
    answer = page(serve())
    [entry] = answer.get_json(force=True)["files"]
    assert entry["hashes"] == {"sha256": hashlib.sha256(content).hexdigest()}
    assert (storage.calls["open_file"], storage.calls["read_part"]) == (1, 0)
    # Another process whose local index was lost.
    for path in (tmp_path / "root" / "index" / "mine").glob("index.sqlite*"):
        path.unlink()
    assert page(serve()).data == answer.data or names(page(serve())) == names(answer)
    assert storage.calls["open_file"] == 1


def test_a_record_spares_reading_the_file_unless_it_is_of_other_bytes(
    storage: Memory, serve: Serve
) -> None:
    client = serve(IMPATIENT)
    filename, content = make_wheel("demo", "1.0", requires_python=">=3.8")
    assert publish(client, filename, content, headers=WRITER).status_code == 200
    [stored] = storage.open_lookup().project_files("demo")
    other = make_wheel("demo", "1.0", requires_python=">=3.9")[1]
    assert len(other) == len(content)
    assert names(page(client)) == [filename]
    assert storage.calls["read_part"] == 0
    storage.drop(filename, other, record=stored.record)
    [entry] = page(client).get_json(force=True)["files"]
    assert entry["requires-python"] == ">=3.9"
    assert storage.calls["read_part"] == 1


def test_metadata_that_the_cache_lost_is_read_again_in_parts(
    storage: Memory, serve: Serve, tmp_path: Path
) -> None:
    filename, content = make_wheel("demo", "1.0")
    storage.drop(filename, content)
    client = serve()
    page(client)
    first = client.get(f"/simple/demo/{filename}.metadata", headers=READER).data
    for path in (tmp_path / "root" / "cache" / "mine" / "metadata").glob("*/*"):
        path.unlink()
    before = storage.calls.copy()
    again = client.get(f"/simple/demo/{filename}.metadata", headers=READER)
    assert again.data == first
    assert asked(storage, before) == {"open_core_metadata": 1, "read_part": 1}


def test_many_who_ask_at_once_ask_the_storage_once(storage: Memory, serve: Serve) -> None:
    storage.drop(*make_wheel("demo", "1.0"))
    client = serve()
    storage.held["project_files"] = threading.Event()
    application = client.application
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(page, application.test_client()) for _ in range(8)]
        deadline = time.monotonic() + 30
        while not storage.calls["project_files"] and time.monotonic() < deadline:
            time.sleep(0.001)
        storage.held["project_files"].set()
        assert {answer.result().status_code for answer in answers} == {200}
    assert storage.calls["project_files"] == 1
    assert storage.calls["access demo"] == 1


# -- never a short list --------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request waits for a moment only."""
    monkeypatch.setattr("private_pypi.repositories.stored.BUDGET", 0.2)
    monkeypatch.setattr("private_pypi.repositories.looked_up.BUDGET", 0.2)


@pytest.mark.usefixtures("hasty")
def test_what_takes_long_is_503_and_goes_on_meanwhile(storage: Memory, serve: Serve) -> None:
    wheels = [make_wheel("demo", f"{number}.0") for number in range(10)]
    for wheel in wheels:
        storage.drop(*wheel)
    storage.held["read_part"] = threading.Event()
    client = serve()
    answer = page(client)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    storage.held["read_part"].set()
    answer = eventually(lambda: page(client), 200)
    assert names(answer) == [filename for filename, _ in wheels]
    assert storage.calls["read_part"] == 10


@pytest.mark.usefixtures("hasty")
def test_while_new_files_are_read_the_old_list_is_not_shown(storage: Memory, serve: Serve) -> None:
    old, new = make_wheel("demo", "1.0"), make_wheel("demo", "2.0")
    storage.drop(*old)
    client = serve(IMPATIENT)
    assert names(eventually(lambda: page(client), 200)) == [old[0]]
    storage.drop(*new)
    storage.held["read_part"] = threading.Event()
    assert page(client).status_code == 503
    storage.held["read_part"].set()
    assert names(eventually(lambda: page(client), 200)) == [old[0], new[0]]


@pytest.mark.usefixtures("hasty")
def test_what_was_read_before_trouble_is_not_read_again(storage: Memory, serve: Serve) -> None:
    wheels = [make_wheel("demo", f"{number}.0") for number in range(12)]
    for wheel in wheels:
        storage.drop(*wheel)
    # The newest are read first: here it is the oldest that is in trouble.
    client = serve()
    storage.fail_next("read_part", DOWN)
    assert page(client).status_code == 503
    assert names(eventually(lambda: page(client), 200)) == [filename for filename, _ in wheels]
    assert storage.calls["read_part"] <= 12 + 4  # what four threads were at


@pytest.mark.parametrize(
    ("method", "error", "status"),
    [
        ("project_files", DOWN, 503),
        ("project_files", BackendError("nonsense"), 502),
        ("project_files", RuntimeError("a mistake of ours"), 502),
        ("read_part", DOWN, 503),
        ("read_part", BackendError("nonsense"), 502),
        ("access", DOWN, 503),
        ("access demo", DOWN, 503),
        ("access demo", BackendError("nonsense"), 502),
    ],
)
@pytest.mark.parametrize("after", [0, 1])
def test_trouble_is_neither_an_absence_nor_a_short_list(
    storage: Memory, serve: Serve, method: str, error: Exception, status: int, after: int
) -> None:
    for version in ("1.0", "2.0", "3.0"):
        storage.drop(*make_wheel("demo", version))
    client = serve('extra_index_url = "https://index.example/simple/"\n')
    storage.fail_next(method, error, after=after)
    answer = page(client)
    assert answer.status_code == status
    assert answer.headers["Cache-Control"] == "no-store"
    assert len(names(eventually(lambda: page(client), 200))) == 3


def test_one_false_absence_of_a_listed_file_is_not_believed(storage: Memory, serve: Serve) -> None:
    """A deleted file stays deleted when the project is looked up again."""
    for version in ("1.0", "2.0"):
        storage.drop(*make_wheel("demo", version))
    client = serve()
    storage.fail_next("read_part", FileNotFound("demo-2.0-py3-none-any.whl"))
    assert len(names(page(client))) == 2


def test_half_a_part_is_trouble_and_no_broken_file(
    storage: Memory, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    filename, content = make_wheel("demo", "1.0")
    storage.drop(filename, content)
    client = serve()
    monkeypatch.setattr(lookups.LookupStorage, "halves", True)
    assert page(client).status_code == 503
    monkeypatch.setattr(lookups.LookupStorage, "halves", False)
    assert names(eventually(lambda: page(client), 200)) == [filename]


# -- when the storage is in trouble --------------------------------------------------------------


def test_the_last_whole_page_is_served_marked_as_stale(storage: Memory, serve: Serve) -> None:
    filename, content = make_wheel("demo", "1.0")
    storage.drop(filename, content)
    client = serve(IMPATIENT)
    fresh = page(client)
    client.get(f"/simple/demo/{filename}", headers=READER)
    storage.fail_next("project_files", DOWN, times=100)
    stale = page(client)
    assert stale.data == fresh.data
    assert stale.headers["Cache-Status"].startswith("private-pypi; hit; ttl=-")
    unchanged = page(client, headers={**READER, "If-None-Match": fresh.headers["ETag"]})
    assert unchanged.status_code == 304
    assert "Cache-Status" in unchanged.headers
    assert client.get(f"/simple/demo/{filename}", headers=READER).data == content
    # A project that is not known may exist nevertheless.
    assert client.get("/simple/demo/demo-2.0.tar.gz", headers=READER).status_code == 503
    assert page(client, "other").status_code == 503
    assert client.delete("/simple/demo/9.0", headers=WRITER).status_code == 503


@pytest.mark.parametrize("quick", [False, True])
def test_one_request_for_a_file_is_one_round_of_tries(
    storage: Memory, serve: Serve, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    """For views, for the hot path, and for a client that asks again at once."""
    monkeypatch.setattr(recent_trouble, "MOST", 10.0)
    monkeypatch.setattr(
        "private_pypi.repositories.stored.retrying",
        lambda backend: retrying(backend, sleep=lambda seconds: None),
    )
    filename, content = make_wheel("demo", "1.0")
    storage.drop(filename, content)
    client = serve()
    assert page(client).status_code == 200
    storage.fail_next("open_file", BackendUnavailable("down", retry_after=0), times=100)
    path = f"/simple/demo/{filename}" + ("" if quick else "?x=1")
    for _ in range(3):
        answer = client.get(path, headers=READER)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert storage.calls["open_file"] == 3


def test_half_a_listing_changes_nothing(storage: Memory, serve: Serve) -> None:
    filenames = []
    for version in ("1.0", "2.0"):
        filename, content = make_wheel("demo", version)
        filenames.append(filename)
        storage.drop(filename, content)
    client = serve(IMPATIENT)
    assert names(page(client)) == filenames
    storage.fail_next("project_files", DOWN, after=1)
    answer = page(client)
    assert names(answer) == filenames
    assert "Cache-Status" in answer.headers


def test_no_longer_than_configured(storage: Memory, serve: Serve) -> None:
    storage.drop(*make_wheel("demo", "1.0"))
    client = serve(IMPATIENT + "stale_for = 0\n")
    assert page(client).status_code == 200
    storage.fail_next("project_files", DOWN, times=100)
    assert page(client).status_code == 503


@pytest.mark.usefixtures("hasty")
def test_a_storage_that_hangs_gets_the_last_whole_page(storage: Memory, serve: Serve) -> None:
    storage.drop(*make_wheel("demo", "1.0"))
    client = serve(IMPATIENT)
    eventually(lambda: page(client), 200)
    storage.held["project_files"] = threading.Event()
    for _ in range(2):
        assert "Cache-Status" in page(client).headers
    storage.held["project_files"].set()
    eventually(lambda: page(client), 200)


# -- who may see it ------------------------------------------------------------------------------


def test_nothing_kept_is_given_to_a_secret_that_the_storage_does_not_let_in(
    storage: Memory, serve: Serve
) -> None:
    wheels = {name: make_wheel(name, "1.0") for name in ("demo", "other")}
    for wheel in wheels.values():
        storage.drop(*wheel)
    client = serve()
    filename = wheels["other"][0]
    paths = ("", filename, f"{filename}.metadata")
    for path in paths:
        for headers in (WRITER, READER):
            answer = client.get(f"/simple/other/{path}", headers=headers)
            assert answer.status_code == 200, path
    for path in paths:
        assert client.get(f"/simple/other/{path}", headers=PARTIAL).status_code == 404, path
    [stored] = storage.open_lookup().project_files("other")
    path = f"/asset/{stored.location}/{filename}"
    assert client.get(path, headers=WRITER).status_code == 200
    assert client.get(path, headers=PARTIAL).status_code == 404
    assert names(page(client, headers=PARTIAL)) == [wheels["demo"][0]]
    listed = {
        str(headers): [
            entry["name"]
            for entry in client.get("/simple/", headers={**headers, "Accept": JSON}).get_json(
                force=True
            )["projects"]
        ]
        for headers in (READER, PARTIAL)
    }
    assert listed == {str(READER): ["demo", "other"], str(PARTIAL): ["demo"]}
    # Refusals are remembered for a while, too.
    assert storage.calls["access other"] == 3


def test_the_list_of_projects_is_kept_for_each_secret(storage: Memory, serve: Serve) -> None:
    client = serve()
    first = client.get("/simple/", headers=READER)
    again = client.get("/simple/", headers={**READER, "If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert storage.calls["projects"] == 1
    client.get("/simple/", headers=WRITER)
    assert storage.calls["projects"] == 2
    impatient = serve(IMPATIENT)
    listed = impatient.get("/simple/", headers=READER)
    storage.fail_next("projects", DOWN, after=1, times=2)
    stale = impatient.get("/simple/", headers=READER)
    assert (stale.data, stale.status_code) == (listed.data, 200)
    assert stale.headers["Cache-Status"].startswith("private-pypi; hit; ttl=-")
    assert impatient.get("/simple/", headers=WRITER).status_code == 503


@pytest.mark.parametrize("path", ["/simple/", "/simple/demo/", "/simple/demo/demo-1.0.tar.gz"])
def test_a_wrong_secret_is_401(storage: Memory, serve: Serve, path: str) -> None:
    client = serve('extra_index_url = "https://index.example/simple/"\n')
    for headers in ({}, basic("mine", "wrong"), basic("mine", "")):
        assert client.get(path, headers=headers).status_code == 401


def test_a_secret_that_is_revoked_meanwhile_is_401_and_gets_nothing_any_more(
    storage: Memory, serve: Serve
) -> None:
    storage.drop(*make_wheel("demo", "1.0"))
    client = serve(IMPATIENT)
    assert page(client).status_code == 200
    storage.read_secret = "another"
    storage.fail_next("project_files", WrongSecret())
    assert page(client).status_code == 401
    assert page(client).status_code == 401
    assert page(client, headers=WRITER).status_code == 200


def test_what_one_secret_meets_says_nothing_about_another(storage: Memory, serve: Serve) -> None:
    storage.drop(*make_wheel("demo", "1.0"))
    client = serve()
    storage.fail_next("project_files", DOWN)
    assert page(client, headers=READER).status_code == 503
    assert page(client, headers=WRITER).status_code == 200


def test_an_absence_goes_nowhere_but_where_the_table_says(storage: Memory, serve: Serve) -> None:
    assert page(serve(extra_index_url="https://index.example/simple/"), "nobody").status_code == 404
    storage.drop(*make_wheel("other", "1.0"))
    client = serve('extra_index_url = "https://index.example/simple/"\nclaimed = ["acme-*"]\n')
    there = page(client, "nobody")
    assert (there.status_code, there.headers["Location"]) == (
        302,
        "https://index.example/simple/nobody/",
    )
    assert page(client, "acme-tool").status_code == 404
    # Ours, though not for everybody.
    assert page(client, "other").status_code == 200
    assert page(client, "other", PARTIAL).status_code == 404


def test_everybody_sees_what_the_servers_own_secret_may_see(
    storage: Memory, deploy: Deploy
) -> None:
    for name in ("demo", "other"):
        storage.drop(*make_wheel(name, "1.0"))
    config = '[mine]\ntype = "lookup"\nanonymous_read = true\n'
    admin = '[mine]\ntype = "lookup"\nraw = "partial"\n'
    client = create_app(deploy(config, admin)).test_client()
    assert len(names(page(client, headers={}))) == 1
    assert page(client, "other", {}).status_code == 404
    assert page(client, "other", READER).status_code == 200
    assert publish(client, *make_wheel("demo", "2.0"), headers={}).status_code == 401


def test_without_a_secret_of_its_own_it_is_open_to_nobody(storage: Memory, serve: Serve) -> None:
    assert page(serve("anonymous_read = true\n"), headers={}).status_code == 503


# -- changing it ---------------------------------------------------------------------------------


def test_an_upload_is_shown_at_once_also_while_the_listing_lags(
    storage: Memory, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(IMPATIENT)
    filename, content = make_wheel("demo", "1.0", requires_python=">=3.8")
    monkeypatch.setattr(lookups.LookupStorage, "lagging", frozenset({filename}))
    assert publish(client, filename, content, headers=WRITER).status_code == 200
    assert names(page(client)) == [filename]
    monkeypatch.setattr(lookups.LookupStorage, "lagging", frozenset())
    assert names(page(client)) == [filename]
    # Once it was listed, the listing counts.
    monkeypatch.setattr(lookups.LookupStorage, "lagging", frozenset({filename}))
    assert page(client).status_code == 404


def test_who_may_publish_is_the_projects_business(storage: Memory, serve: Serve) -> None:
    client = serve()
    wheel = make_wheel("demo", "1.0")
    assert publish(client, *wheel, headers=basic("mine", "wrong")).status_code == 401
    assert publish(client, *wheel, headers=READER).status_code == 403
    assert publish(client, *make_wheel("other", "1.0"), headers=PARTIAL).status_code == 404
    nowhere = publish(client, *make_wheel("nobody", "1.0"), headers=WRITER)
    assert (nowhere.status_code, nowhere.text) == (
        404,
        "no project 'nobody' in this repository: the storage has no place for it, or does not "
        "show it to this secret\n",
    )
    assert storage.calls["put_file"] == 0
    for _ in range(2):
        assert publish(client, *wheel, headers=WRITER).status_code == 200
    other = make_wheel("demo", "1.0", requires_python=">=3.8")
    assert publish(client, *other, headers=WRITER).status_code == 409


def test_yanks_and_deletes_reach_the_storage(storage: Memory, serve: Serve) -> None:
    client = serve(IMPATIENT)
    filename, content = make_wheel("demo", "1.0")
    assert publish(client, filename, content, headers=WRITER).status_code == 200
    path = f"/simple/demo/{filename}"
    assert client.post(f"{path}/yank", data={"reason": "bad"}, headers=READER).status_code == 403
    assert client.delete(path, headers=READER).status_code == 403
    yanked = client.post(f"{path}/yank", data={"reason": "bad"}, headers=WRITER)
    assert yanked.status_code == 200
    [stored] = storage.open_lookup().project_files("demo")
    assert stored.yanked == "bad"
    assert page(client).get_json(force=True)["files"][0]["yanked"] == "bad"
    # And those that were made elsewhere reach us.
    lookup = storage.open_lookup()
    lookup.yank_file(handle_of(stored), None)
    assert page(client).get_json(force=True)["files"][0]["yanked"] is False
    assert client.delete(path, headers=WRITER).status_code == 200
    assert list(lookup.project_files("demo")) == []
    assert page(client).status_code == 404
    storage.drop(filename, content)
    assert page(client).status_code == 404  # its name is burnt
    assert publish(client, filename, content, headers=WRITER).status_code == 400


# -- what is asked beside --------------------------------------------------------------------------


@pytest.mark.parametrize("digests", [True, False])
def test_old_addresses_of_files_hold(storage: Memory, serve: Serve, digests: bool) -> None:
    storage.gives_sha256 = digests
    filename, content = make_wheel("demo", "1.0")
    storage.drop(filename, content)
    [stored] = storage.open_lookup().project_files("demo")
    client = serve()
    for prefix in ("", "/r/mine"):
        answer = client.get(f"{prefix}/asset/{stored.location}/{filename}", headers=READER)
        assert (answer.status_code, answer.data) == (200, content)
    assert storage.calls["find_alias"] == 0  # the project has it under this name
    # The name does not say where the file is stored; only the storage knows that.
    elsewhere = f"/asset/{stored.location}/renamed-1.0-py3-none-any.whl"
    for _ in range(2):
        answer = client.get(elsewhere, headers={**READER, "Range": "bytes=2-5"})
        assert (answer.status_code, answer.data) == (206, content[2:6])
    assert storage.calls["find_alias"] == 2
    assert client.get(elsewhere).status_code == 401
    for path in ("/asset/unknown/renamed-1.0.tar.gz", "/asset/unknown/readme.txt"):
        assert client.get(path, headers=READER).status_code == 404
    storage.fail_next("find_alias", DOWN)
    assert client.get(elsewhere, headers=READER).status_code == 503


def test_the_server_says_how_fresh_it_is_and_has_nothing_to_rebuild(
    storage: Memory, serve: Serve, tmp_path: Path
) -> None:
    storage.drop(*make_wheel("demo", "1.0"))
    client = serve()
    assert client.get("/index_mtime/", headers=READER).text == "0"
    before = int(time.time())
    page(client)
    assert before <= int(client.get("/index_mtime/", headers=READER).text) <= time.time()
    with pytest.raises(Unsupported, match="nothing to rebuild"):
        indexing.update_index(
            storage.open_lookup(), backend_type="lookup", name="mine", folder=tmp_path
        )


def test_update_index_says_that_there_is_nothing_to_do(storage: Memory, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[mine]\ntype = "lookup"\n')
    with pytest.raises(ConfigurationError, match="has no index document"):
        update_index("mine", config=str(config), environ={})
    assert storage.calls == {}


def test_for_how_long_stale_pages_are_served_is_a_key_of_these_tables_alone(
    storage: Memory, deploy: Deploy, tmp_path: Path
) -> None:
    def stale_for(table: str) -> timedelta:
        [repository] = deploy(table).repositories
        return repository.settings.stale_for

    assert stale_for('[mine]\ntype = "lookup"\n') == timedelta(hours=1)
    assert stale_for('[mine]\ntype = "lookup"\nstale_for = 0\n') == timedelta(0)
    with pytest.raises(ConfigurationError, match=r"\[mine\] stale_for: must be a number"):
        deploy('[mine]\ntype = "lookup"\nstale_for = "long"\n')


@pytest.mark.usefixtures("hasty")
def test_closing_ends_what_goes_on_in_the_background(
    storage: Memory, served: Callable[..., Deployment]
) -> None:
    for number in range(50):
        storage.drop(*make_wheel("demo", f"{number}.0"))
    deployment = served()
    storage.held["read_part"] = threading.Event()
    assert page(create_app(deployment).test_client()).status_code == 503
    threading.Timer(0.2, storage.held["read_part"].set).start()
    deployment.close()
    assert storage.calls["read_part"] <= 4
    waiting.eventually(lambda: "repository 'mine'" not in {t.name for t in threading.enumerate()})


# -- one table for many owners -------------------------------------------------------------------

ANN, BEN = basic("Ann", "write"), basic("ben", "write")
OWNERS = 'owners = ["ann", "ben"]\nsync_index_interval = 3600\n'


@pytest.fixture
def owners(storage: Memory) -> dict[str, Memory]:
    for owner in ("ann", "ben"):
        lookups.STORAGES[owner] = Memory()
        lookups.STORAGES[owner].projects.add("demo")
    return lookups.STORAGES


def test_a_user_that_the_table_knows_has_a_place_of_his_own(
    owners: dict[str, Memory], serve: Serve, tmp_path: Path
) -> None:
    wheels = {"ann": make_wheel("demo", "1.0"), "ben": make_wheel("demo", "2.0")}
    for owner, wheel in wheels.items():
        owners[owner].drop(*wheel)
    client = serve(OWNERS)
    assert names(page(client, headers=ANN)) == [wheels["ann"][0]]
    assert names(page(client, headers=BEN)) == [wheels["ben"][0]]
    # However the owner is written, and wherever.
    there = client.get("/r/ANN/simple/demo/", headers={**basic("ann", "write"), "Accept": JSON})
    assert names(there) == [wheels["ann"][0]]
    mine = client.get("/r/mine/simple/demo/", headers={**ANN, "Accept": JSON})
    assert names(mine) == [wheels["ann"][0]]
    assert client.get("/r/ben/simple/demo/", headers=ANN).status_code == 401
    assert client.get("/r/ann/simple/demo/", headers=basic("x", "write")).status_code == 200
    new = make_wheel("demo", "3.0")
    assert publish(client, *new, path="/r/ann/", headers=ANN).status_code == 200
    assert names(page(client, headers=ANN)) == [wheels["ann"][0], new[0]]
    assert names(page(client, headers=BEN)) == [wheels["ben"][0]]
    tenants = tmp_path / "root" / "index" / "mine" / "tenants"
    assert sorted(path.name for path in tenants.iterdir()) == ["ann", "ben"]


def test_an_owner_whose_folder_cannot_be_made_is_an_answer(
    owners: dict[str, Memory], serve: Serve, tmp_path: Path
) -> None:
    owners["ann"].drop(*make_wheel("demo", "1.0"))
    client = serve(OWNERS)
    in_the_way = tmp_path / "root" / "cache" / "mine" / "tenants"
    in_the_way.write_text("")
    answer = page(client, headers=ANN)
    assert (answer.status_code, answer.text) == (
        502,
        "the server cannot make its folders for 'ann': Not a directory\n",
    )
    in_the_way.unlink()
    assert page(client, headers=ANN).status_code == 200


def test_the_same_bytes_are_read_once_for_all_owners(
    owners: dict[str, Memory], serve: Serve
) -> None:
    filename, content = make_wheel("demo", "1.0", requires_python=">=3.8")
    for owner in ("ann", "ben"):
        owners[owner].drop(filename, content)
    client = serve(OWNERS)
    assert page(client, headers=ANN).data
    [entry] = page(client, headers=BEN).get_json(force=True)["files"]
    assert entry["requires-python"] == ">=3.8"
    assert (owners["ann"].calls["read_part"], owners["ben"].calls["read_part"]) == (1, 0)
    metadata = client.get(f"/r/ben/simple/demo/{filename}.metadata", headers=BEN)
    assert hashlib.sha256(metadata.data).hexdigest() == entry["core-metadata"]["sha256"]


def test_a_stranger_leaves_nothing_behind(
    owners: dict[str, Memory], serve: Serve, tmp_path: Path
) -> None:
    client = serve(OWNERS)
    statuses = {
        (user, secret, path): client.get(path, headers=basic(user, secret)).status_code
        for user, secret in (("ann", "wrong"), ("../x", "write"), ("ann", "partial"))
        for path in ("/simple/", "/simple/demo/", "/simple/demo/demo-1.0.tar.gz")
    }
    assert statuses == {
        ("ann", "wrong", "/simple/"): 401,
        ("ann", "wrong", "/simple/demo/"): 401,
        ("ann", "wrong", "/simple/demo/demo-1.0.tar.gz"): 401,
        # No owner: the only table, which the storage lets this secret into.
        ("../x", "write", "/simple/"): 200,
        ("../x", "write", "/simple/demo/"): 404,
        ("../x", "write", "/simple/demo/demo-1.0.tar.gz"): 404,
        # A good secret, but not there.
        ("ann", "partial", "/simple/"): 200,
        ("ann", "partial", "/simple/demo/"): 404,
        ("ann", "partial", "/simple/demo/demo-1.0.tar.gz"): 404,
    }
    assert list((tmp_path / "root").rglob("tenants/*")) == []


def test_what_everybody_may_read_is_the_table_and_no_owner_that_somebody_names(
    owners: dict[str, Memory], serve: Serve
) -> None:
    """Otherwise strangers could make the server fetch everything that its own secret can read."""
    for owner in ("mine", "ann"):
        owners[owner].drop(*make_wheel("demo", "1.0"))
    admin = '[mine]\ntype = "lookup"\nraw = "read"\n'
    client = serve(OWNERS + "anonymous_read = true\n", admin_secret=admin)
    assert client.get("/r/mine/simple/demo/").status_code == 200
    for path in ("/r/ann/simple/demo/", "/r/ann/simple/", "/r/ann/", "/r/ann/index_mtime/"):
        assert client.get(path).status_code == 401, path
    assert page(client, headers=ANN).status_code == 200


@pytest.mark.parametrize("path", ["/index_mtime/", "/r/ann/", "/r/ann/?q=demo", "/r/ann/setup/"])
def test_an_owner_in_whose_projects_nobody_was_let_takes_no_disk(
    owners: dict[str, Memory], serve: Serve, tmp_path: Path, path: str
) -> None:
    """Every name could be an owner."""
    client = serve(OWNERS)
    assert client.get(path, headers=ANN).status_code == 200
    assert list((tmp_path / "root").rglob("tenants/*")) == []


def test_owners_that_nobody_is_let_into_keep_nobody_out(
    owners: dict[str, Memory],
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("private_pypi.repositories.tenants._MOST", 1)
    owners["ben"].drop(*make_wheel("demo", "1.0"))
    client = serve(OWNERS)
    assert client.get("/simple/never-was/", headers=basic("ann", "partial")).status_code == 404
    assert page(client, headers=BEN).status_code == 200


def test_owners_that_nobody_asks_for_are_closed(
    owners: dict[str, Memory],
    served: Callable[..., Deployment],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("private_pypi.repositories.tenants._MOST", 1)
    for owner in ("ann", "ben"):
        owners[owner].drop(*make_wheel("demo", "1.0"))
    client = create_app(served(OWNERS)).test_client()
    assert page(client, headers=ANN).status_code == 200
    answer = page(client, headers=BEN)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    monkeypatch.setattr("private_pypi.repositories.tenants._REQUESTS", 0.0)
    asked = owners["ann"].calls["project_files"]
    for headers in (BEN, ANN, BEN):
        assert page(client, headers=headers).status_code == 200
    # What was found out is on disk.
    assert owners["ann"].calls["project_files"] == asked
