"""Signing in and out: who gets a session, and what it allows."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from private_pypi.backend import Secret
from private_pypi.errors import BackendUnavailable, NotAllowed
from private_pypi.repositories import Credentials, Grant, Repositories, StoredRepository
from private_pypi.testing.distributions import encode_multipart, form_for, make_wheel
from private_pypi.web import create_app
from private_pypi.web.sessions.attempts import FAILURES_OF_ADDRESS
from private_pypi.web.sessions.sessions import COOKIE, IDLE, KEY_VARIABLE
from tests.web.conftest import MINE, OTHER, READER, WRITER, Deploy, publish

BROWSER = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
OPEN = """
[open]
type = "file_system"
read_secret = "open-reader"
write_secret = "open-writer"
anonymous_read = true
"""


class Person:
    """A person with a browser: follows redirects step by step, and sends the forms of pages."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def go(self, path: str, **headers: str) -> TestResponse:
        return self.client.get(path, headers=BROWSER | headers)

    def token(self, path: str = "/login/") -> str:
        found = re.search(r'name="token" value="([^"]+)"', self.go(path).text)
        assert found is not None
        return found[1]

    def sign_in(
        self,
        name: str = "mine",
        secret: str = "reader",
        *,
        headers: dict[str, str] | None = None,
        **fields: str,
    ) -> TestResponse:
        form = {
            "pkg_repo_name": name,
            "pkg_repo_secret_raw": secret,
            "token": self.token(),
            **fields,
        }
        return self.client.post("/login/", data=form, headers=BROWSER | (headers or {}))

    def sign_out(self, **fields: str) -> TestResponse:
        form = {"token": self.token("/logout/"), **fields}
        return self.client.post("/logout/", data=form, headers=BROWSER)


def target(answer: TestResponse) -> str:
    """Where a redirect leads, with its query."""
    parts = urlsplit(urljoin(answer.request.url, answer.headers["Location"]))
    return parts.path + (f"?{parts.query}" if parts.query else "")


def cookie(answer: TestResponse) -> str:
    """The `Set-Cookie` of the session, without its value."""
    found = [value for value in answer.headers.getlist("Set-Cookie") if COOKIE in value]
    assert len(found) == 1
    return re.sub(f"^{COOKIE}=[^;]*; ", "", found[0])


@pytest.fixture
def person(deploy: Deploy) -> Person:
    return Person(create_app(deploy(MINE + OTHER + OPEN)).test_client())


# -- coming in -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/simple/", "/simple/demo/", "/r/mine/", "/r/mine/project/demo/?page=2"]
)
def test_a_person_is_brought_to_the_sign_in_page_and_back(person: Person, path: str) -> None:
    publish(person.client, *make_wheel())
    sent = person.go(path)
    assert sent.status_code == 302
    assert sent.headers["Cache-Control"] == "no-store"
    assert target(sent).startswith("/login/?next=")
    form = person.go(target(sent))
    back = re.search(r'name="next" value="([^"]*)"', form.text)
    assert back is not None
    done = person.sign_in(next=back[1].replace("&amp;", "&"))
    assert (done.status_code, target(done)) == (303, path)
    assert person.go(path).status_code in (200, 302)


def test_a_tool_gets_its_401(person: Person) -> None:
    for path in ("/simple/", "/simple/demo/", "/r/mine/", "/r/mine/project/demo/"):
        for headers in (
            {"User-Agent": "pip/26.3", "Accept": "text/html"},
            READER | BROWSER | {"Authorization": "Basic eDp5"},
        ):
            answer = person.client.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")


def test_the_page_that_was_asked_for_names_the_repository(person: Person) -> None:
    assert 'name="pkg_repo_name" value="other"' in person.go("/login/?next=/r/other/").text


def test_a_wrong_secret_makes_no_session(person: Person) -> None:
    answer = person.sign_in(secret="wrong")
    assert answer.status_code == 403
    assert "There is no such repository, or this is not its secret." in answer.text
    assert person.go("/r/mine/").status_code == 302
    unknown = person.sign_in(name="nobody")
    assert unknown.status_code == 403
    assert "There is no such repository, or this is not its secret." in unknown.text


@pytest.mark.parametrize(("name", "secret"), [("", "reader"), ("mine", ""), ("mine", " ")])
def test_both_fields_are_needed(person: Person, name: str, secret: str) -> None:
    answer = person.sign_in(name=name, secret=secret)
    assert answer.status_code == 400
    assert "Give the name of a repository and its secret." in answer.text


def test_the_secret_is_nowhere(person: Person, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    texts = [person.sign_in(secret="hunter2-wrong").text, person.sign_in(name="hunter2-x").text]
    done = person.sign_in()
    texts += [done.text, str(done.headers), person.go("/r/mine/").text, caplog.text]
    assert "hunter2-wrong" not in "".join(texts)
    assert "reader" not in "".join(texts)
    assert "hunter2-x" not in caplog.text  # somebody typed the secret into the other field


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "/../x", "/login/"]
)
def test_nobody_is_sent_elsewhere(person: Person, elsewhere: str) -> None:
    assert target(person.sign_in(next=elsewhere)) == "/r/mine/"


def test_the_names_of_repositories_are_not_told_but_open_ones(person: Person) -> None:
    page = person.go("/login/").text
    assert 'href="../r/open/"' in page
    assert "mine" not in page


def test_trouble_of_the_storage_is_no_wrong_secret(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def access(*_: object, **__: object) -> None:
        raise BackendUnavailable("the storage is down", retry_after=7)

    token = person.token()
    monkeypatch.setattr(StoredRepository, "access", access)
    form = {"pkg_repo_name": "mine", "pkg_repo_secret_raw": "reader", "token": token}
    for _ in range(FAILURES_OF_ADDRESS + 1):
        answer = person.client.post("/login/", data=form, headers=BROWSER)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
        assert "could not be checked: the storage is down" in answer.text


def test_a_storage_that_lets_nobody_in_says_why(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def access(*_: object, **__: object) -> None:
        raise NotAllowed("the organisation wants single sign-on for this token")

    token = person.token()
    monkeypatch.setattr(StoredRepository, "access", access)
    form = {"pkg_repo_name": "mine", "pkg_repo_secret_raw": "reader", "token": token}
    for _ in range(FAILURES_OF_ADDRESS + 1):
        answer = person.client.post("/login/", data=form, headers=BROWSER)
        assert answer.status_code == 403
        assert "the organisation wants single sign-on for this token" in answer.text


@pytest.mark.parametrize("text", ["acme. Call 555-1234", "acme<br>", "a" * 65])
def test_nobody_else_writes_on_the_sign_in_page(person: Person, text: str) -> None:
    said = person.client.get("/login/", query_string={"refused": text}, headers=BROWSER).text
    assert "no longer accepted" not in said
    assert text[:10] not in said
    assert "The secret for mine is no longer accepted" in person.go("/login/?refused=mine").text


# -- forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_form_without_its_token_is_not_used(person: Person, token: str) -> None:
    answer = person.sign_in(token=token)
    assert answer.status_code == 403
    assert "it was not used" in answer.text
    assert person.go("/r/mine/").status_code == 302


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}]
)
def test_a_form_of_another_site_is_not_used(person: Person, headers: dict[str, str]) -> None:
    assert person.sign_in(headers=headers).status_code == 403
    assert person.go("/r/mine/").status_code == 302
    person.sign_in()
    form = {"token": person.token("/logout/")}
    person.client.post("/logout/", data=form, headers=BROWSER | headers)
    assert person.go("/r/mine/").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}],
)
def test_another_site_changes_nothing_with_what_a_browser_remembers(
    person: Person, headers: dict[str, str]
) -> None:
    # A browser that knows a user and a password sends them with the forms of any site.
    filename, content = make_wheel()
    refused = publish(person.client, filename, content, headers=WRITER | headers)
    assert refused.status_code == 403
    assert "another site" in refused.text
    assert publish(person.client, filename, content).status_code == 200
    path = f"/r/mine/simple/demo/{filename}"
    assert person.client.post(path + "/yank", headers=WRITER | headers).status_code == 403
    assert person.client.delete(path, headers=WRITER | headers).status_code == 403
    page = person.client.get("/r/mine/simple/demo/", headers=READER).text
    assert filename in page
    assert "data-yanked" not in page


def test_the_token_of_somebody_else_is_none(deploy: Deploy) -> None:
    app = create_app(deploy(MINE))
    theirs = Person(app.test_client()).token()
    assert Person(app.test_client()).sign_in(token=theirs).status_code == 403


def test_a_browser_without_cookies_is_told(deploy: Deploy) -> None:
    person = Person(create_app(deploy(MINE)).test_client(use_cookies=False))
    answer = person.sign_in()
    assert answer.status_code == 403
    assert "allow this site to set cookies" in answer.text


def test_over_the_limit_no_secret_is_looked_at_not_even_the_right_one(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    really = Repositories.authorize

    def authorize(self: Repositories, credentials: Credentials, **options: Any) -> Grant:
        asked.append(credentials.secret.reveal())
        return really(self, credentials, **options)

    token = person.token()
    monkeypatch.setattr(Repositories, "authorize", authorize)

    def guess(secret: str, name: str = "mine") -> int:
        form = {"pkg_repo_name": name, "pkg_repo_secret_raw": secret, "token": token}
        answer = person.client.post("/login/", data=form, headers=BROWSER)
        if answer.status_code == 429:
            assert 0 < int(answer.headers["Retry-After"]) <= 30
            assert "the secret was not checked" in answer.text
        return answer.status_code

    guesses = [f"guess {number}" for number in range(80)]
    assert [guess(each) for each in guesses] == [403] * FAILURES_OF_ADDRESS + [429] * 70
    assert [guess("reader"), guess("reader", "nobody")] == [429, 429]
    assert asked == guesses[:FAILURES_OF_ADDRESS]
    # Tools are not limited.
    assert person.client.get("/simple/", headers=READER).status_code == 200


def test_the_limit_holds_for_guesses_that_come_at_once(deploy: Deploy) -> None:
    app = create_app(deploy(MINE))
    people = [Person(app.test_client()) for _ in range(FAILURES_OF_ADDRESS * 2)]
    tokens = [person.token() for person in people]
    start = threading.Barrier(len(people))

    def guess(number: int) -> int:
        form = {"pkg_repo_name": "mine", "pkg_repo_secret_raw": f"guess {number}"}
        form["token"] = tokens[number]
        start.wait()
        return people[number].client.post("/login/", data=form, headers=BROWSER).status_code

    with ThreadPoolExecutor(len(people)) as pool:
        answers = sorted(pool.map(guess, range(len(people))))
    assert answers == [403] * FAILURES_OF_ADDRESS + [429] * FAILURES_OF_ADDRESS


def test_signing_in_is_no_failure(person: Person) -> None:
    for _ in range(FAILURES_OF_ADDRESS * 2):
        assert person.sign_in().status_code == 303


def test_basic_is_not_limited(person: Person) -> None:
    wrong = {"Authorization": "Basic bWluZTp3cm9uZw=="}
    for _ in range(FAILURES_OF_ADDRESS * 2):
        assert person.client.get("/simple/", headers=wrong).status_code == 401


# -- the cookie ----------------------------------------------------------------------------------


def test_the_cookie_is_for_this_server_and_its_pages_alone(person: Person) -> None:
    assert cookie(person.sign_in()).split("; ")[1:] == [
        f"Max-Age={IDLE}",
        "HttpOnly",
        "Path=/",
        "SameSite=Lax",
    ]


def test_under_tls_the_cookie_is_secure_and_below_a_prefix_it_stays_there(deploy: Deploy) -> None:
    app = create_app(deploy(MINE))
    answer = app.test_client().get("/login/", base_url="https://acme.example/pypi", headers=BROWSER)
    assert "; Secure; " in cookie(answer)
    assert "; Path=/pypi/;" in cookie(answer)


def test_sessions_survive_a_restart_and_other_processes(deploy: Deploy) -> None:
    first = Person(create_app(deploy(MINE)).test_client())
    first.sign_in()
    kept = first.client.get_cookie(COOKIE)
    assert kept is not None
    second = Person(create_app(deploy(MINE)).test_client())
    second.client.set_cookie(COOKIE, kept.value)
    assert second.go("/r/mine/").status_code == 200


def test_keys_of_the_environment_are_used(deploy: Deploy, tmp_path: Path) -> None:
    served = deploy(MINE, environ={KEY_VARIABLE: "k" * 32})
    Person(create_app(served).test_client()).sign_in()
    assert not (tmp_path / "root" / "session_key").exists()


def test_a_secret_that_does_not_fit_is_refused_with_the_reason(deploy: Deploy) -> None:
    secret = "s" * 3000
    config = MINE.replace('"reader"', f'"{secret}"')
    person = Person(create_app(deploy(config)).test_client())
    answer = person.sign_in(secret=secret)
    assert answer.status_code == 400
    assert "A secret of 3000 bytes is too long for a browser" in answer.text
    assert secret not in answer.text


def test_secrets_that_do_not_fit_together_are_refused_with_the_reason(deploy: Deploy) -> None:
    secret = "s" * 2000
    config = MINE.replace('"reader"', f'"{secret}"') + OTHER.replace(
        '"other-reader"', f'"{secret}"'
    )
    person = Person(create_app(deploy(config)).test_client())
    assert person.sign_in(secret=secret).status_code == 303
    answer = person.sign_in(name="other", secret=secret)
    assert answer.status_code == 400
    assert "Sign out of a repository first." in answer.text
    assert person.go("/r/mine/").status_code == 200


# -- what a session may --------------------------------------------------------------------------


def test_a_session_reads_the_machine_pages_as_they_are(person: Person) -> None:
    publish(person.client, *make_wheel())
    person.sign_in()
    for path in (
        "/simple/",
        "/simple/demo/",
        "/r/mine/simple/demo/",
        "/simple/demo/demo-1.0-py3-none-any.whl",
        "/simple/demo/demo-1.0-py3-none-any.whl.metadata",
    ):
        mine = person.client.get(path)
        theirs = person.client.get(path, headers=READER)
        assert (mine.status_code, mine.data) == (200, theirs.data)
        assert mine.headers["Content-Type"] == theirs.headers["Content-Type"]
        assert "Cookie" in mine.headers["Vary"]
        assert "Cookie" not in theirs.headers["Vary"]
        assert person.client.head(path).status_code == 200


def test_no_shared_cache_keeps_what_a_session_opened(person: Person) -> None:
    filename, content = make_wheel()
    publish(person.client, filename, content)
    person.sign_in()
    for path in ("/simple/", "/simple/demo/", f"/simple/demo/{filename}", "/index_mtime/"):
        opened = person.go(f"/r/mine{path}")
        assert opened.status_code == 200
        assert "Cookie" in opened.vary
        assert opened.cache_control.private or opened.cache_control.no_store
        tools = person.client.get(f"/r/mine{path}", headers=READER)
        assert "Cookie" not in tools.vary
    assert tools.headers["Cache-Control"] == "no-store"


def test_what_is_downloaded_is_no_page(person: Person) -> None:
    publish(person.client, *make_wheel())
    person.sign_in()
    wheel = person.client.get("/simple/demo/demo-1.0-py3-none-any.whl")
    assert wheel.headers["Content-Type"] == "application/octet-stream"
    assert wheel.headers["Content-Disposition"] == "attachment"
    metadata = person.client.get("/simple/demo/demo-1.0-py3-none-any.whl.metadata")
    assert metadata.headers["Content-Type"] == "text/plain; charset=utf-8"
    for answer in (wheel, metadata):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_session_changes_nothing(person: Person) -> None:
    filename, content = make_wheel()
    publish(person.client, filename, content)
    person.sign_in(secret="writer")
    content_type, body = encode_multipart(form_for(filename, content), filename, content)
    for path in ("/", "/simple/", "/legacy/", "/r/mine/", "/r/mine/simple/"):
        answer = person.client.post(path, data=body, content_type=content_type)
        assert answer.status_code == 401
    for path in ("/simple/demo/1.0", f"/r/mine/simple/demo/{filename}"):
        assert person.client.delete(path).status_code == 401
        assert person.client.post(f"{path}/yank").status_code == 401
        assert person.client.delete(f"{path}/yank").status_code == 401
    assert filename in person.client.get("/simple/demo/", headers=READER).text
    assert person.client.post("/initialize/", data={"config": MINE}).status_code == 409


def test_a_tool_is_who_it_says_whatever_its_cookies(person: Person) -> None:
    person.sign_in()
    wrong = {"Authorization": "Basic bWluZTp3cm9uZw=="}
    assert person.client.get("/simple/", headers=wrong).status_code == 401


def test_a_secret_that_is_revoked_ends_its_part_of_the_session(deploy: Deploy) -> None:
    before = Person(create_app(deploy(MINE + OTHER)).test_client())
    before.sign_in()
    before.sign_in(name="other", secret="other-reader")
    kept = before.client.get_cookie(COOKIE)
    assert kept is not None
    changed = MINE.replace('"reader"', '"changed"') + OTHER
    person = Person(create_app(deploy(changed)).test_client())
    person.client.set_cookie(COOKIE, kept.value)
    sent = person.go("/r/mine/")
    assert target(sent) == "/login/?next=/r/mine/&refused=mine"
    assert "The secret for mine is no longer accepted." in person.go(target(sent)).text
    page = person.go("/r/other/").text
    assert 'href="../../r/other/"' in page
    assert 'href="../../r/mine/"' not in page


def test_a_repository_that_is_gone_ends_its_part_of_the_session(deploy: Deploy) -> None:
    before = Person(create_app(deploy(MINE + OTHER)).test_client())
    before.sign_in()
    kept = before.client.get_cookie(COOKIE)
    assert kept is not None
    person = Person(create_app(deploy(OTHER)).test_client())
    person.client.set_cookie(COOKIE, kept.value)
    assert target(person.go("/r/mine/")).startswith("/login/")


# -- several repositories ------------------------------------------------------------------------


def test_one_session_has_several_repositories_and_remembers_the_last(person: Person) -> None:
    person.sign_in()
    person.sign_in(name="other", secret="other-reader")
    page = person.go("/r/mine/").text
    assert 'href="../../r/other/"' in page
    assert target(person.go("/")) == "/r/mine/"
    assert person.go("/r/other/").status_code == 200
    assert target(person.go("/project/demo/?page=2")) == "/r/other/project/demo/?page=2"
    assert target(person.go("/setup/")) == "/r/other/setup/"
    person.go("/r/open/")
    assert target(person.go("/")) == "/r/open/"


def test_a_link_of_another_site_does_not_change_the_repository(person: Person) -> None:
    person.sign_in()
    person.sign_in(name="other", secret="other-reader")
    person.go("/r/mine/", **{"Sec-Fetch-Site": "cross-site"})
    assert target(person.go("/")) == "/r/other/"


def test_an_open_repository_needs_no_sign_in(person: Person) -> None:
    assert person.go("/r/open/").status_code == 200
    assert "Set-Cookie" not in person.go("/r/open/").headers


def test_the_only_repository_is_the_start_page_when_it_is_open(deploy: Deploy) -> None:
    person = Person(create_app(deploy(OPEN)).test_client())
    assert target(person.go("/")) == "/r/open/"


# -- going ---------------------------------------------------------------------------------------


def test_getting_the_page_signs_nobody_out(person: Person) -> None:
    person.sign_in()
    page = person.go("/logout/")
    assert page.status_code == 200
    assert "You are signed in to" in page.text
    assert person.go("/r/mine/").status_code == 200


def test_a_person_signs_out(person: Person) -> None:
    person.sign_in()
    answer = person.sign_out()
    assert (answer.status_code, target(answer)) == (303, "/login/")
    assert "Max-Age=0" in cookie(answer)
    assert person.client.get_cookie(COOKIE) is None
    assert person.go("/r/mine/").status_code == 302
    assert "You are not signed in." in person.go("/logout/").text


def test_a_person_signs_out_of_one(person: Person) -> None:
    person.sign_in()
    person.sign_in(name="other", secret="other-reader")
    person.sign_out(repository="other")
    assert person.go("/r/mine/").status_code == 200
    assert person.go("/r/other/").status_code == 302
    assert target(person.sign_out(repository="mine")) == "/login/"
    assert person.client.get_cookie(COOKIE) is None


def test_signing_out_needs_the_token(person: Person) -> None:
    person.sign_in()
    assert person.client.post("/logout/", headers=BROWSER).status_code == 403
    assert person.go("/r/mine/").status_code == 200


def test_addresses_without_the_slash_lead_to_those_with_it(person: Person) -> None:
    for path in ("/login", "/logout", "/r/open"):
        assert target(person.go(path)) == path + "/"


@pytest.mark.parametrize(
    "path",
    [
        "/setup",
        "/project/demo",
        "/r/mine/setup",
        "/r/mine/project/Demo",
        "/r/mine/project/demo/1.0",
        "/r/mine/+simple/demo",
    ],
)
def test_the_way_to_the_slash_names_no_host(person: Person, path: str) -> None:
    # A proxy in front may have another scheme, host and prefix, and a cache may keep the redirect.
    for host in ("pypi.acme.example", "evil.example"):
        answer = person.client.get(path + "?page=2", headers=BROWSER | {"Host": host})
        assert (
            answer.status_code,
            answer.headers["Location"],
            answer.headers["Cache-Control"],
        ) == (
            301,
            path.rpartition("/")[2] + "/?page=2",
            "no-cache",
        )


@pytest.mark.parametrize("name", ["a%0D%0Ab", "a%3Fb%23c", "%E2%82%AC", "100%25"])
def test_whatever_is_in_an_address_goes_along(person: Person, name: str) -> None:
    person.sign_in()
    sent = person.go(f"/project/{name}/")
    assert (sent.status_code, sent.headers["Location"]) == (302, f"../../r/mine/project/{name}/")


def test_a_secret_does_not_show_itself() -> None:
    assert "reader" not in repr(Secret("reader"))
