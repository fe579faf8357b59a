"""Answers that the loop keeps: each is sent again only while nothing that it says has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.test import create_environ

from private_pypi.backend import Access
from private_pypi.configuration.config import read_source
from private_pypi.testing import Memory
from private_pypi.testing.distributions import make_wheel
from private_pypi.web import HOT_PATH, create_app
from private_pypi.web.api import asked
from private_pypi.web.deployment import Deployment
from private_pypi.web.serving import Answer
from tests.web import lookups
from tests.web.conftest import (
    MINE,
    READER,
    WRITER,
    Deploy,
    basic,
    publish,
    sent_by_the_loop,
)

FILENAME, WHEEL = make_wheel("demo", "1.0")
PAGE = "/simple/demo/"
FILE, METADATA = f"{PAGE}{FILENAME}", f"{PAGE}{FILENAME}.metadata"
PATHS = ("/simple/", PAGE, FILE, METADATA, "/simple/unknown/")

Ask = Callable[..., Answer | None]


def asking(app: Flask) -> Ask:
    """Asks what the loop sends, as an installer asks that reads `mine`."""

    def ask(path: str = PAGE, headers: dict[str, str] = READER, **more: str) -> Answer | None:
        named = {name.replace("_", "-"): value for name, value in more.items()}
        environ = create_environ(path, headers={"Accept": "text/html", **headers, **named})
        return sent_by_the_loop(app, environ)

    return ask


def warm(app: Flask, ask: Ask) -> dict[str, Answer]:
    """The answers to all `PATHS`, which are kept from now on."""
    for path in PATHS:
        app.test_client().get(path, headers=READER | {"Accept": "text/html"})
        for _ in range(2):  # a page is compressed when it is asked for again
            ask(path)
    kept = {path: ask(path) for path in PATHS}
    assert all(answer is ask(path) for path, answer in kept.items())  # the very same again
    return {path: answer for path, answer in kept.items() if answer is not None}


@pytest.fixture
def app(deploy: Deploy) -> Flask:
    """A server with the one file."""
    made = create_app(deploy(MINE))
    assert publish(made.test_client(), FILENAME, WHEEL).status_code == 200
    return made


def test_what_is_kept_is_what_the_view_says(app: Flask) -> None:
    ask = asking(app)
    kept = warm(app, ask)
    assert set(kept) == set(PATHS)
    for path, answer in kept.items():
        sent = app.test_client().get(f"{path}?x=1", headers=READER | {"Accept": "text/html"})
        assert (answer.status, answer.body) == (sent.status_code, sent.data)
        assert {**dict(sent.headers), **dict(answer.headers)} == dict(sent.headers)


def test_an_upload_shows(app: Flask) -> None:
    ask = asking(app)
    kept = warm(app, ask)
    assert publish(app.test_client(), *make_wheel("demo", "1.1")).status_code == 200
    page = ask()
    assert page is not None
    assert b"demo-1.1" in page.body
    assert ask("/simple/") is None  # it has to be rendered
    assert ask(FILE) is kept[FILE]
    assert publish(app.test_client(), *make_wheel("unknown", "1.0")).status_code == 200
    found = ask("/simple/unknown/")
    assert found is not None
    assert (found.status, kept["/simple/unknown/"].status) == (200, 404)


def test_an_upload_by_another_process_shows(app: Flask, deploy: Deploy) -> None:
    ask = asking(app)
    warm(app, ask)
    other = create_app(deploy(MINE)).test_client()
    assert publish(other, *make_wheel("demo", "1.1")).status_code == 200
    page = ask()
    assert page is not None
    assert b"demo-1.1" in page.body


def test_a_yank_and_its_end_show(app: Flask) -> None:
    ask, client = asking(app), app.test_client()
    kept = warm(app, ask)
    for form, is_yanked in (({"reason": "broken"}, True), ({}, False)):
        change = client.post if is_yanked else client.delete
        answer = change("/r/mine/simple/demo/1.0/yank", headers=WRITER, data=form)
        assert answer.status_code == 200, answer.text
        page = ask()
        assert page is not None
        assert (b"data-yanked" in page.body) is is_yanked
        assert page is not kept[PAGE]
    assert ask(FILE) is not None


def test_a_deleted_file_is_not_sent(app: Flask) -> None:
    ask, client = asking(app), app.test_client()
    warm(app, ask)
    assert client.delete(FILE, headers=WRITER).status_code in (200, 204)
    assert (ask(FILE), ask(METADATA)) == (None, None)
    page = ask()
    assert page is not None
    assert page.status == 404


@pytest.mark.parametrize("secret", ["wrong", "", "writer"])
def test_another_secret_does_not_get_what_was_kept(app: Flask, secret: str) -> None:
    ask = asking(app)
    warm(app, ask)
    answers = [ask(path, basic("mine", secret)) for path in PATHS]
    if secret != "writer":
        assert answers == [None] * len(PATHS)
    assert [ask(path, {}) for path in PATHS] == [None] * len(PATHS)


def test_a_changed_password_counts_at_once(deploy: Deploy, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(MINE)
    served = deploy(read_source(config))
    app = create_app(served)
    ask = asking(app)
    assert publish(app.test_client(), FILENAME, WHEEL).status_code == 200
    warm(app, ask)
    config.write_text(MINE.replace('"reader"', '"other"'))
    look_again(served)
    assert [ask(path) for path in PATHS] == [None] * len(PATHS)
    assert app.test_client().get(PAGE, headers=READER).status_code == 401
    page = ask(PAGE, basic("mine", "other"))
    assert page is not None
    assert page.status == 200


def test_a_changed_configuration_counts_at_once(deploy: Deploy, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(MINE)
    served = deploy(read_source(config), extra_index_url="https://index.example/simple/")
    app = create_app(served)
    ask = asking(app)
    assert publish(app.test_client(), FILENAME, WHEEL).status_code == 200
    kept = warm(app, ask)
    assert kept["/simple/unknown/"].status == 302
    config.write_text(MINE.replace("acme-*", "unknown") + "anonymous_read = true\n")
    look_again(served)
    for path in (PAGE, "/simple/unknown/"):
        answer = ask(path)
        assert answer is not None
        assert answer.headers != kept[path].headers
        assert answer.status == (200 if path == PAGE else 404)  # claimed now
        assert ask(path, {}) is not None
    assert ("Access-Control-Allow-Origin", "*") in (ask() or kept[PAGE]).headers


def look_again(served: Deployment) -> None:
    """Make the next request find out whether the configuration has changed."""
    served._looked_at = 0.0
    assert served.repositories


def test_now_and_then_a_thread_looks_whether_the_configuration_has_changed(app: Flask) -> None:
    ask = asking(app)
    kept = warm(app, ask)
    app.extensions["private_pypi"]._looked_at = 0.0
    environ = create_environ(PAGE, headers={"Accept": "text/html", **READER})
    assert app.extensions[HOT_PATH].at_once(environ) is None
    assert ask() is kept[PAGE]


def test_headers_that_decide_have_answers_of_their_own(app: Flask) -> None:
    ask = asking(app)
    kept = warm(app, ask)
    etag = dict(kept[PAGE].headers)["ETag"]
    told = [
        ask(If_None_Match=etag),
        ask(If_None_Match='"other"'),
        ask(Accept="application/vnd.pypi.simple.v1+json"),
        ask(FILE, Range="bytes=0-3"),
        ask(FILE, Range="bytes=0-3", If_Range='"other"'),
        ask(FILE, If_Modified_Since="Fri, 01 Jan 2100 00:00:00 GMT"),
    ]
    assert [answer and answer.status for answer in told] == [304, 200, 200, 206, 200, 304]
    types = [dict(answer.headers)["Content-Type"] for answer in (ask(), told[2]) if answer]
    assert types == ["text/html; charset=utf-8", "application/vnd.pypi.simple.v1+json"]
    assert ask(PAGE) is kept[PAGE]
    assert ask(f"{PAGE}?x=1") is None


def test_the_fields_of_a_request_count_for_a_path_that_is_new(app: Flask) -> None:
    ask = asking(app)
    assert publish(app.test_client(), *make_wheel("other", "1.0")).status_code == 200
    warm(app, ask)
    json = "application/vnd.pypi.simple.v1+json"
    assert ask(Accept=json) is not None
    assert ask("/simple/other/", basic("mine", "wrong")) is None
    assert ask("/simple/other/", {}) is None
    for accept in (json, "text/html; charset=utf-8"):
        answer = ask("/simple/other/", Accept=accept.partition(";")[0])
        assert answer is not None
        assert dict(answer.headers)["Content-Type"] == accept
        assert b"other-1.0" in answer.body


def test_the_fields_of_a_client_are_read_once_although_each_page_is_new(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        for number in range(3):  # so many that the page is compressed when it is asked for again
            wheel = make_wheel(name, f"{number}.0")
            assert publish(app.test_client(), *wheel).status_code == 200
    ask = asking(app)
    read: list[object] = []

    def reading(environ: dict[str, object], key: asked.Key) -> asked.Fields:
        read.append(key)
        return fields(environ, key)

    fields = asked.Fields
    monkeypatch.setattr(asked, "Fields", reading)
    answers = [ask(f"/simple/{name}/") for name in ("first", "second")]
    assert [answer and answer.status for answer in answers] == [200, 200]
    assert len(read) == 1


def test_a_page_for_a_person_is_not_taken_from_a_tool(deploy: Deploy) -> None:
    app = create_app(deploy(MINE + "anonymous_read = true\n"))
    ask = asking(app)
    assert publish(app.test_client(), FILENAME, WHEEL).status_code == 200
    warm(app, ask)
    for _ in range(2):
        assert ask("/simple/unknown/", {}) is not None
        assert ask("/simple/unknown/", {"User-Agent": "Mozilla/5.0"}) is None


def test_a_server_with_other_names_refuses_what_was_kept(deploy: Deploy) -> None:
    app = create_app(deploy(MINE, host_names=frozenset({"a.example"})))
    ask = asking(app)
    assert publish(app.test_client(), FILENAME, WHEEL).status_code == 200
    warm(app, ask)
    assert ask(Host="a.example") is not None
    assert ask(Host="b.example") is None


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """A storage that is asked for each project and has rights for each secret."""
    lookups.install(monkeypatch)
    storage = lookups.STORAGES["mine"] = Memory()
    storage.projects.add("demo")
    return storage


def test_a_right_ends_with_its_time(
    memory: Memory, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = '[mine]\ntype = "lookup"\nsync_index_interval = 3600\n'
    app = create_app(deploy(config))
    client, ask, reader = app.test_client(), asking(app), basic("mine", "read")
    upload = publish(client, FILENAME, WHEEL, headers=basic("mine", "write"))
    assert upload.status_code == 200
    assert client.get(PAGE, headers=reader).status_code == 200
    assert ask(PAGE, reader) is not None
    assert ask(PAGE, reader) is ask(PAGE, reader)
    (repository,) = app.extensions["private_pypi"].repositories
    verdicts = repository._verdicts
    memory.rights["read"] = {"demo": Access.NONE}
    assert ask(PAGE, reader) is not None  # what the storage said still counts
    monkeypatch.setattr(verdicts, "_read_expires", 0.0)
    assert ask(PAGE, reader) is None  # the storage has to be asked again
    assert client.get(PAGE, headers=reader).status_code == 404
    monkeypatch.undo()
    answer = ask(PAGE, reader)
    assert answer is not None
    assert answer.status == 404


def test_what_is_kept_is_bounded(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = asking(app)
    kept = app.extensions[HOT_PATH]._asked._kept
    monkeypatch.setattr(kept, "_max_bytes", 20_000)
    for number in range(100):
        assert ask(f"/simple/unknown-{number}/") is not None
        assert kept.size <= 20_000
    before = kept.added
    assert ask("/simple/unknown/", READER | {"Accept-Encoding": "gzip, " + "x, " * 400}) is not None
    assert ask("/simple/unknown/", basic("mine", "wrong")) is None
    assert kept.added == before  # neither a long header nor a secret that is not accepted
