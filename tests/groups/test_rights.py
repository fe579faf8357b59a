"""Who may read what through a group: each private member decides with the caller's own secret."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client

from private_pypi.backend import Access
from private_pypi.errors import BackendUnavailable, NotConfigured
from private_pypi.pages.simple_api import Representation
from private_pypi.storage.verdicts import Verdicts
from private_pypi.testing.distributions import make_wheel
from private_pypi.web import HOT_PATH, create_app
from private_pypi.web.api.hot_path import WSGI, HotPath
from tests.groups.conftest import TABLES, Serve, Served
from tests.mirror.upstream import Upstream
from tests.web.conftest import basic, publish, sent_by_the_loop
from tests.web.people.test_sign_in import Person

PLANS, _ = make_wheel("plans", "1.0")
ATTACK, _ = make_wheel("plans", "99.0")

# Every address that can tell something about one project.
OF_PROJECT = [
    "/simple/{name}/",
    "/simple/v1+json/{name}/",
    "/simple/v1+html/{name}/",
    "/simple/{name}/index.html",
    "/simple/{name}/{file}",
    "/simple/{name}/{file}.metadata",
    "/simple/{name}/{attack}",
    "/simple/{name}/{attack}.metadata",
    "/at/2099-01-01/simple/{name}/".replace("2099-01-01", "2026-11-01"),
    "/at/2026-11-01/simple/{name}/{file}",
    "/at/2026-11-01/simple/{name}/{attack}",
    "/+simple/{name}/",
    "/legacy/+simple/{name}/",
    "/pypi/{name}/json",
    "/pypi/{name}/1.0/json",
    "/pypi/{name}/99.0/json",
    "/project/{name}/",
    "/project/{name}/1.0/",
    "/rss/project/{name}/releases.xml",
]


def addresses(name: str = "plans") -> list[str]:
    return [each.format(name=name, file=PLANS, attack=ATTACK) for each in OF_PROJECT]


def test_a_name_of_a_member_that_refuses_is_nowhere(served: Served, upstream: Upstream) -> None:
    """And it is not looked for upstream, where somebody has published it."""
    for path in addresses():
        assert served.status(path, "reader") == 404, path
        head = served.client.head(f"/r/all{path}", headers=basic("all", "reader"))
        assert head.status_code == 404, path
    packages = f"/packages/all/plans/{PLANS}"
    assert served.client.get(packages, headers=basic("all", "reader")).status_code == 404
    for path in (
        "/simple/",
        "/simple/v1+json/",
        "/?q=plans",
        "/rss/updates.xml",
        "/rss/packages.xml",
        "/",
    ):
        answer = served.get(path, "reader")
        assert (answer.status_code, "/plans/" in answer.text) == (200, False), path
        assert '"name":"plans"' not in answer.text, path
    # The start page looks up versions of private names that are public too, but not of this one.
    assert "plans" not in [each.project for each in upstream.asked if each.kind == "page"]


def test_the_same_name_is_served_to_those_whom_the_member_lets_in(served: Served) -> None:
    missing = [path for path in addresses() if served.status(path) != 200]
    # What is upstream is not: once private, never from a mirror. Nor was it there in the past.
    assert missing == [
        path
        for path in addresses()
        if "99" in path or path.startswith("/at/2026-11-01/simple/plans/plans")
    ]
    assert served.versions("plans") == ["1.0"]
    for path in (
        "/simple/",
        "/simple/v1+json/",
        "/?q=plans",
        "/rss/updates.xml",
        "/rss/packages.xml",
        "/",
    ):
        assert "plans" in served.get(path).text, path


def test_a_secret_that_no_private_member_accepts_is_refused(served: Served) -> None:
    for path in (*addresses(), *addresses("public"), "/simple/", "/"):
        for secret in ("stranger", ""):
            assert served.status(path, secret) == 401, path
        assert served.client.get(f"/r/all{path}").status_code == 401, path


def test_whoever_may_read_one_member_may_read_mirrors(served: Served) -> None:
    for secret in ("reader", "writer", "boss", "closed-writer"):
        assert served.versions("public", secret) == ["1.0"]
    assert served.status("/simple/tool/", "closed-writer") == 404
    assert "tool" not in served.names("closed-writer")


def test_bearer_tokens_are_secrets_of_members(served: Served) -> None:
    for token, status in (("all:reader", 200), ("reader", 200), ("all:stranger", 401)):
        headers = {"Authorization": f"Bearer {token}"}
        answer = served.client.get("/r/all/simple/tool/", headers=headers)
        assert answer.status_code == status, token


def test_a_person_signs_in_to_a_group(served: Served) -> None:
    person = Person(served.client)
    assert person.sign_in("all", "stranger").status_code == 403
    assert person.sign_in("all", "reader").status_code == 303
    for path, status in (
        ("/r/all/", 200),
        ("/r/all/project/tool/", 200),
        ("/r/all/project/public/", 200),
        ("/r/all/project/plans/", 404),
        ("/r/all/simple/plans/", 404),
    ):
        assert person.go(path).status_code == status, path


def test_a_public_group_shows_what_is_public(serve: Serve, upstream: Upstream) -> None:
    """Each member decides for itself, and mirrors are readable by all who may read the group."""
    tables = TABLES.replace("claimed =", "anonymous_read = true\nclaimed =")
    served = serve(
        '[all]\ntype = "group"\nmembers = ["mine", "closed", "pypi"]\nanonymous_read = true\n',
        tables,
    )
    assert served.publish("tool", "1.0").status_code == 200
    assert served.publish("plans", "1.0", "closed", "closed-writer").status_code == 200
    for project, status in (("tool", 200), ("plans", 404), ("public", 200), ("acme-gone", 404)):
        assert served.client.get(f"/r/all/simple/{project}/").status_code == status, project
    # A secret adds what its member has; a wrong one is not as good as none.
    assert served.status("/simple/plans/", "boss") == 200
    assert served.status("/simple/tool/", "closed-writer") == 200
    assert served.status("/simple/tool/", "stranger") == 401
    assert "plans" not in [each.project for each in upstream.asked]


def test_a_member_that_is_public_does_not_make_the_group_public(serve: Serve) -> None:
    tables = TABLES.replace("claimed =", "anonymous_read = true\nclaimed =")
    served = serve(tables=tables)
    assert served.client.get("/r/all/simple/tool/").status_code == 401


def test_the_credentials_of_a_mirror_reach_nobody(serve: Serve, upstream: Upstream) -> None:
    """And no caller's secret reaches the upstream."""
    upstream.login = ("user-of-upstream", "password-of-upstream")
    tables = TABLES + 'username = "user-of-upstream"\npassword = "password-of-upstream"\n'
    served = serve(tables=tables)
    filename, content = make_wheel("public", "1.0")
    for path in (
        "/simple/",
        "/simple/public/",
        f"/simple/public/{filename}.metadata",
        "/pypi/public/json",
        "/project/public/",
        "/setup/",
        "/?q=pub",
    ):
        answer = served.get(path)
        assert answer.status_code == 200, path
        assert "of-upstream" not in answer.text + json.dumps(list(answer.headers)), path
    assert served.get(f"/simple/public/{filename}").data == content
    assert served.status("/simple/public/", "password-of-upstream") == 401
    upstream.fail("page", "502")
    broken = served.get("/simple/acmeless/")
    assert broken.status_code in (502, 503) and "of-upstream" not in broken.text
    own = basic("user-of-upstream", "password-of-upstream")["Authorization"]
    assert {each.headers.get("authorization") for each in upstream.asked} == {own}


def test_trouble_with_rights_is_trouble(
    served: Served, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never the answer of the next member."""

    def fail(*arguments: object, **keywords: object) -> None:
        raise BackendUnavailable("the provider does not answer")

    monkeypatch.setattr(served.stored("closed"), "access", fail)
    assert served.status("/simple/tool/", "reader") == 200  # the member before it answers
    for path in (*addresses(), *addresses("public"), "/simple/", "/?q=x"):
        assert served.status(path, "reader") == 503, path
    assert served.status("/simple/tool/", "stranger") == 503
    assert [each.kind for each in upstream.asked if each.kind == "page"] == []


def test_the_fast_ways_answer_as_the_views(served: Served) -> None:
    """Without Flask, and before a request has a thread."""
    app = create_app(served.deployment)
    fast = app.extensions[HOT_PATH]
    assert isinstance(fast, HotPath)
    slow = fast._application
    filename, _ = make_wheel("tool", "1.0")

    def answer(application: WSGI, path: str, secret: str) -> tuple[int, bytes, list[object]]:
        client = Client(application, use_cookies=False)
        headers = basic("all", secret) | {"Accept": Representation.JSON.value}
        got = client.get(f"/r/all{path}", headers=headers)
        kept = [pair for pair in got.headers if pair[0] in ("ETag", "Vary", "Cache-Control")]
        return got.status_code, got.data, list(kept)

    for _ in range(2):  # the second time, pages are rendered and rights are known
        for name in ("tool", "plans", "public", "acme-gone", "torch", "nowhere"):
            for path in (f"/simple/{name}/", f"/simple/{name}/{filename}"):
                for secret in ("reader", "boss", "closed-writer", "stranger"):
                    fast_answer = answer(fast, path, secret)
                    assert fast_answer == answer(slow, path, secret), (path, secret)
    told = []
    for secret in ("reader", "boss", "closed-writer", "stranger"):
        for name in ("tool", "plans", "public", "acme-gone", "torch"):
            made = {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": f"/r/all/simple/{name}/",
                "HTTP_AUTHORIZATION": basic("all", secret)["Authorization"],
                "HTTP_ACCEPT": Representation.JSON.value,
            }
            at_once = sent_by_the_loop(app, made)
            if at_once is not None:
                told.append((secret, name, at_once.status))
                assert (at_once.status, at_once.body) == answer(slow, f"/simple/{name}/", secret)[
                    :2
                ]
    shown = {(secret, name) for secret, name, status in told if status == 200}
    assert ("boss", "plans") in shown and ("reader", "tool") in shown
    assert not {("reader", "plans"), ("closed-writer", "tool")} & shown
    assert ("reader", "plans", 404) in told
    assert not [secret for secret, _, _ in told if secret == "stranger"]


def test_addresses_in_answers_are_those_of_the_group(served: Served) -> None:
    """Also if the page of the member was asked for before, and the other way round."""
    for repository in ("mine", "all", "mine"):
        answer = served.get("/pypi/tool/json", "reader", repository)
        assert answer.json is not None
        (file,) = answer.json["urls"]
        assert f"/packages/{repository}/tool/" in file["url"]
        assert f"/r/{repository}/project/tool/" in answer.json["info"]["package_url"]


def test_a_member_can_be_the_user(serve: Serve) -> None:
    """~/.netrc has one entry for each host; the secret decides as it does with the group's name."""
    served = serve(
        '[inner]\ntype = "group"\nmembers = ["mine", "pypi"]\npublish_to = "mine"\n'
        '[all]\ntype = "group"\nmembers = ["inner"]\npublish_to = "inner"\n'
        '[other]\ntype = "group"\nmembers = ["pypi"]\n'
    )

    def status(path: str, user: str, secret: str) -> int:
        return served.client.get(path, headers=basic(user, secret)).status_code

    filename, content = make_wheel("tool", "1.0")
    sent = publish(
        served.client, filename, content, path="/r/all/", headers=basic("mine", "writer")
    )
    assert sent.status_code == 200, sent.text
    for user in ("all", "inner", "mine", "MINE", "pypi"):
        assert status("/r/all/simple/tool/", user, "reader") == 200, user
        assert status(f"/r/all/simple/tool/{filename}", user, "reader") == 200, user
        assert status("/r/all/simple/tool/", user, "stranger") == 401, user
        assert status("/r/all/simple/tool/", user, "closed-writer") == 401, user
    # Not the other way round, nor for others.
    for path, user in (
        ("/r/mine/simple/tool/", "all"),
        ("/r/mine/simple/tool/", "pypi"),
        ("/r/other/simple/tool/", "mine"),
    ):
        assert status(path, user, "reader") == 401, (path, user)
    headers = {"Authorization": "Bearer mine:reader"}
    assert served.client.get("/r/all/simple/tool/", headers=headers).status_code == 200


def test_who_is_no_member_is_refused_after_the_same_work(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a repository that does not exist."""
    asked: list[str] = []
    real = Verdicts.access

    def access(verdicts: Verdicts, *arguments: Any, **keywords: Any) -> Access:
        asked.append(verdicts._name)
        return real(verdicts, *arguments, **keywords)

    monkeypatch.setattr(Verdicts, "access", access)
    told = []
    for path, user in (("/r/pypi/simple/x/", "closed"), ("/r/nowhere/simple/x/", "nowhere")):
        answer = served.client.get(path, headers=basic(user, "boss"))
        told.append((answer.status_code, answer.text, tuple(asked)))
        asked.clear()
    assert told[0] == told[1]
    assert told[0][0] == 401 and told[0][2]


def test_trouble_does_not_name_a_member_that_refuses(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither pages and lists, nor uploads, nor what says whether the server is ready."""
    paths = (*addresses("public"), "/explain/public", "/simple/", "/", "/?q=x", "/rss/updates.xml")

    def check(*arguments: object, **keywords: object) -> None:
        for path in paths:
            answer = served.get(path, "reader")
            assert "closed" not in answer.text, (path, answer.text)
        sent = served.publish("another", "1.0", "all")
        assert "closed" not in sent.text
        ready = served.client.get("/health/ready", headers=basic("all", "reader"))
        assert ready.text.startswith(("ready\nall: ready", "not ready\nall: not ready"))
        assert "closed" not in ready.text

    with served.down("closed"):
        assert served.status("/simple/public/", "reader") == 503
        assert "'closed'" in served.get("/simple/public/", "boss").text  # who may know of it
        check()

    def fail(*arguments: object, **keywords: object) -> None:
        raise NotConfigured("repository 'closed' needs a secret of its own")

    for name in ("require_ready", "ever_had", "had_names", "find"):
        monkeypatch.setattr(served.stored("closed"), name, fail)
    assert served.status("/simple/public/", "reader") == 503
    check()

    def fail_too(*arguments: object, **keywords: object) -> None:
        raise BackendUnavailable("the provider of 'closed' does not answer")

    monkeypatch.setattr(served.stored("closed"), "access", fail_too)
    assert served.status("/simple/public/", "reader") == 503
    check()
    stranger = served.get("/simple/public/", "stranger")
    assert (stranger.status_code, "closed" in stranger.text) == (503, False)
