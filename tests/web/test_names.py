"""Strangers cannot find out which repositories exist: not by an answer, a header or its cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from private_pypi.backend import Access
from private_pypi.errors import WrongSecret
from private_pypi.repositories import Repository
from private_pypi.storage.verdicts import Verdicts
from private_pypi.web import create_app
from private_pypi.web.api import legacy
from private_pypi.web.serving import Answer, RequestHead
from tests.web.conftest import MINE, OTHER, Deploy, basic
from tests.web.people.test_sign_in import BROWSER, Person

KNOWN, UNKNOWN = "mine", "nope"  # of one length, because a body may repeat what was asked for
METHODS = ("GET", "POST", "DELETE")
FURTHER_METHODS = ("HEAD", "OPTIONS", "PUT", "PATCH", "TRACE")  # without and with a wrong secret
VALUES = {"name": "demo", "filename": "demo-1.0.tar.gz", "version": "1.0", "asset_id": "1"}


def strangers(name: str) -> Iterator[dict[str, str]]:
    """Headers of requests without a right secret."""
    for accept in ("*/*", "application/json", "text/html"):
        yield {"Accept": accept}
    yield BROWSER
    yield basic(name, "wrong")
    yield basic(name, "")
    yield basic("__token__", "wrong")
    yield {"Authorization": "Bearer wrong"}
    yield {"Authorization": f"Bearer {name}:wrong"}
    yield {"Authorization": "Basic %"}
    yield basic(name, "wrong") | {"If-None-Match": "*", "Range": "bytes=0-1"}
    yield basic(name, "wrong") | {"Origin": "http://evil.example"}


def paths(app: Flask) -> Iterator[str]:
    """All addresses with the name of a repository, and those that get it from the credentials."""
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<repository>", "REPOSITORY")
        path = re.sub(r"<any\('(.*?)'.*?\):version>", r"\1", path)
        path = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: VALUES.get(found[1], "demo"), path)
        if not path.startswith("/static"):
            yield path
    yield "/r/REPOSITORY/nothing/is/here"
    yield "/r/REPOSITORY/simple/De_mo/"
    yield "/login/?next=/r/REPOSITORY/"


def seen(app: Flask, name: str, path: str, method: str, headers: dict[str, str]) -> Any:
    answer = app.test_client().open(
        path.replace("REPOSITORY", name), method=method, headers=headers, data=b"x"
    )
    hidden = ("Set-Cookie", "Date")
    told = sorted((key, value) for key, value in answer.headers.items() if key not in hidden)
    text = re.sub(r'name="token" value="[^"]*"', "", answer.text)
    return repr((answer.status, told, text)).replace(name, "REPOSITORY")


@pytest.mark.needs("time")
def test_no_answer_tells_whether_there_is_a_repository(deploy: Deploy) -> None:
    app = create_app(deploy(MINE + OTHER))
    asked = 0
    for path in sorted(set(paths(app))):
        for method in METHODS + FURTHER_METHODS:
            pairs = [*zip(strangers(KNOWN), strangers(UNKNOWN), strict=True)]
            for of_known, of_unknown in pairs if method in METHODS else (pairs[0], pairs[4]):
                known = seen(app, KNOWN, path, method, of_known)
                assert known == seen(app, UNKNOWN, path, method, of_unknown), (path, of_known)
                asked += 1
    assert asked > 500


@pytest.mark.parametrize("path", ["/r/REPOSITORY/", "/r/REPOSITORY/legacy/", "/simple/"])
@pytest.mark.parametrize("length", [1, 2**50, None])
def test_no_early_answer_to_an_upload_tells_it(
    deploy: Deploy, path: str, length: int | None
) -> None:
    gate = legacy.make_gate(deploy(MINE + OTHER))

    def refused(name: str, headers: dict[str, str]) -> Answer:
        head = RequestHead(
            method="POST",
            path=path.replace("REPOSITORY", name),
            headers={key.upper(): value for key, value in headers.items()},
            content_length=length,
            remote_addr="192.0.2.1",
            request_id="1",
        )
        verdict = gate(head)
        assert isinstance(verdict, Answer)
        assert verdict.status == 401
        return verdict

    for of_known, of_unknown in zip(strangers(KNOWN), strangers(UNKNOWN), strict=True):
        assert refused(KNOWN, of_known) == refused(UNKNOWN, of_unknown)


def test_the_sign_in_form_does_not_tell_it(deploy: Deploy) -> None:
    app = create_app(deploy(MINE + OTHER))

    def told(name: str) -> list[tuple[str, str]]:
        person = Person(app.test_client())
        answers = [person.sign_in(name=name, secret="wrong") for _ in range(12)]
        form = re.compile(r'name="token" value="[^"]*"')
        return [
            (answer.status, form.sub("", answer.text).replace(name, "REPOSITORY"))
            for answer in answers
        ]

    first = told(KNOWN)
    app = create_app(deploy(MINE + OTHER))  # its limit is not used up
    assert told(UNKNOWN) == first


def test_a_wrong_secret_is_as_much_work_under_every_name(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(deploy(MINE + OTHER))
    checked: list[tuple[Access, bool]] = []
    really = Verdicts.access

    def access(self: Verdicts, asked: Any, need: Access, ask: Any, **others: Any) -> Access:
        checked.append((need, ask is None))
        return really(self, asked, need, ask, **others)

    monkeypatch.setattr(Verdicts, "access", access)

    def work(name: str) -> list[tuple[Access, bool]]:
        checked.clear()
        for path in (f"/r/{name}/simple/demo/", f"/r/{name}/simple/", f"/r/{name}/"):
            app.test_client().get(path, headers=basic(name, "wrong"))
        app.test_client().delete(f"/r/{name}/simple/demo/1.0", headers=basic(name, "wrong"))
        return [*checked]

    assert len(work(KNOWN)) >= 4
    assert work(UNKNOWN) == work(KNOWN)


def test_what_a_storage_says_of_a_wrong_secret_is_not_passed_on(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def access(self: Repository, *_: object, **__: object) -> Access:
        raise WrongSecret("the storage of mine has ceased to accept this token")

    monkeypatch.setattr(Repository, "access", access)
    client = create_app(deploy(MINE + OTHER)).test_client()
    answers = [
        client.get(f"/r/{name}/simple/", headers=basic(name, "wrong")).text
        for name in (KNOWN, UNKNOWN)
    ]
    assert answers == ["unknown repository or wrong secret\n"] * 2
