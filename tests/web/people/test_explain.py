"""What people see of files that are not served: on the page of a project, and on its own page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from flask.testing import FlaskClient

from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web import create_app
from tests.mirror.upstream import Upstream, running
from tests.web.conftest import MINE, Deploy, publish
from tests.web.people.test_pages import go, words

NOW = datetime.now(UTC)


def ago(days: float) -> str:
    return (NOW - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running() as index:
        for version, days in (("1.0", 300), ("1.1", 200), ("2.0", 1)):
            index.add(*make_wheel("demo", version), upload_time=ago(days))
        index.add(*make_sdist("demo", "1.1"), upload_time=ago(200))
        index.add(*make_wheel("fresh", "0.1"), upload_time=ago(1))
        yield index


@pytest.fixture
def client(deploy: Deploy, upstream: Upstream) -> FlaskClient:
    """A mirror and a group with it, which everybody may read."""
    config = MINE + (
        f'[pypi]\ntype = "mirror"\nindex_url = "{upstream.index_url}"\nanonymous_read = true\n'
        'cooldown = "7 days"\nwheels_only = true\n'
        f'[all-ages]\ntype = "mirror"\nindex_url = "{upstream.index_url}"\nanonymous_read = true\n'
        '[all]\ntype = "group"\nmembers = ["mine", "pypi"]\nanonymous_read = true\n'
    )
    return create_app(deploy(config)).test_client()


@pytest.mark.parametrize("repository", ["pypi", "all"])
def test_the_page_of_a_project_lists_what_is_not_served(
    client: FlaskClient, repository: str
) -> None:
    page = go(client, f"/r/{repository}/project/demo/")
    text = words(page)
    assert "demo 1.1" in text  # the current release of those that are served
    hidden = text.partition("Not served These files")[2]
    assert "demo-2.0-py3-none-any.whl cooldown uploaded" in hidden
    assert "demo-1.1.tar.gz wheels_only it is not a wheel" in hidden
    # They are not links, because they cannot be downloaded.
    assert f'{repository}/simple/demo/demo-2.0-py3-none-any.whl"' not in page.text
    assert f'href="../../../../r/{repository}/explain/demo"' in page.text
    assert ("those of member 'pypi', the first one" in text) == (repository == "all")


@pytest.mark.parametrize("repository", ["pypi", "all"])
def test_the_page_of_an_unknown_project_leads_to_the_explanation(
    client: FlaskClient, repository: str
) -> None:
    page = go(client, f"/r/{repository}/project/no-where/", 404)
    assert f'href="../../../../r/{repository}/explain/no-where"' in page.text
    page = go(client, f"/r/{repository}/explain/no-where")
    assert "There is no such project here." in words(page)
    # There is nothing to ask about it, and no page of it to go to.
    assert 'class="card ask"' not in page.text
    assert f"{repository}/project/no-where" not in page.text
    # An address of no project has no such link.
    assert "/explain/" not in go(client, "/nothing/", 404).text


def test_a_page_without_hidden_files_has_no_such_section(
    client: FlaskClient, upstream: Upstream
) -> None:
    upstream.add(*make_wheel("plain", "1.0"), upload_time=ago(300))
    assert "Not served" not in go(client, "/r/pypi/project/plain/").text


@pytest.mark.parametrize(
    ("path", "filename"),
    [
        ("/r/pypi/project/fresh/", "fresh-0.1-py3-none-any.whl"),
        ("/r/all/project/fresh/", "fresh-0.1-py3-none-any.whl"),
        ("/r/pypi/project/demo/2.0/", "demo-2.0-py3-none-any.whl"),
    ],
)
def test_a_project_or_release_whose_every_file_is_hidden_has_a_page(
    client: FlaskClient, path: str, filename: str
) -> None:
    text = words(go(client, path))
    assert f"{filename} cooldown uploaded" in text
    assert "is served." in text
    assert "demo-1.0" not in text


@pytest.mark.parametrize("path", ["/r/pypi/project/nowhere/", "/r/pypi/project/demo/3.0/"])
def test_what_is_not_there_is_not_found(client: FlaskClient, path: str) -> None:
    go(client, path, 404)


def test_trouble_is_shown_as_trouble(client: FlaskClient, upstream: Upstream) -> None:
    upstream.fail("page", "500")
    answer = client.get(
        "/r/pypi/project/demo/", headers={"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
    )
    assert answer.status_code in (502, 503)


def test_many_hidden_files_are_counted_and_are_on_a_page_of_their_own(
    client: FlaskClient, upstream: Upstream
) -> None:
    for number in range(120):
        upstream.add(*make_sdist("demo", f"0.{number}"), upload_time=ago(300))
    page = go(client, "/r/pypi/project/demo/")
    assert "All 122 files that are not served" in words(page)
    assert page.text.count(">wheels_only</span>") + page.text.count(">cooldown</span>") == 20
    own = words(go(client, "/r/pypi/explain/demo?version=<1.0"))
    assert "120 not served" in own
    assert "Page 1 of 2" in own
    second = go(client, "/r/pypi/explain/demo?version=<1.0&page=2")
    assert second.text.count(">wheels_only</span>") == 20
    assert "version=%3C1.0" in second.text  # also on the way back


def test_rules_are_summed_up_only_where_files_are_many(
    client: FlaskClient, upstream: Upstream
) -> None:
    summary = "cooldown: 1 file of 2.0; uploaded"
    page = go(client, "/r/pypi/explain/demo")
    assert 'class="card ask"' in page.text
    assert summary not in words(page)
    for number in range(7):
        upstream.add(*make_wheel("other", f"1.{number}"), upload_time=ago(300))
        upstream.add(*make_wheel("other", f"2.{number}"), upload_time=ago(1))
    assert "cooldown: 7 files of 2.0 to 2.6; uploaded" in words(go(client, "/r/pypi/explain/other"))


def test_a_release_of_which_nothing_is_known_has_no_section_about_it(
    client: FlaskClient, upstream: Upstream
) -> None:
    upstream.add(*make_wheel("untold", "1.0"), upload_time=ago(300))
    assert 'id="about"' in go(client, "/r/pypi/project/untold/").text  # when it was released
    upstream.add(*make_wheel("told-little", "1.0"), upload_time=None)
    page = go(client, "/r/all-ages/project/told-little/")
    assert "#about" not in page.text
    assert 'id="about"' not in page.text


def test_people_can_ask_for_an_interpreter(client: FlaskClient, upstream: Upstream) -> None:
    upstream.add(*make_wheel("demo", "1.2", requires_python=">=3.13"), upload_time=ago(100))
    page = go(client, "/r/pypi/explain/demo?python=3.11&version=<2")
    text = words(page)
    assert "demo-1.2-py3-none-any.whl does not suit it requires Python >=3.13" in text
    assert "1 not served · 1 not for Python 3.11 · 2 served" in text
    assert 'name="python" maxlength="20" placeholder="3.11" value="3.11"' in page.text


def test_the_page_of_an_instant_stays_there(client: FlaskClient) -> None:
    day = ago(250)[:10]
    page = go(client, f"/r/pypi/at/{day}/explain/demo")
    assert "demo-1.1-py3-none-any.whl as_of uploaded" in words(page)
    assert f'action="../../../../../r/pypi/at/{day}/explain/demo"' in page.text
    assert f'href="../../../../../r/pypi/at/{day}/simple/demo/demo-1.0-py3' in page.text


def test_what_an_upstream_says_is_no_html(client: FlaskClient, upstream: Upstream) -> None:
    upstream.add("<script>alert(1)</script>.exe", b"x", project="demo")
    upstream.projects["demo"].status = "archived"
    upstream.projects["demo"].reason = "<img src=x>"
    for path in ("/r/pypi/project/demo/", "/r/pypi/explain/demo"):
        page = go(client, path)
        assert "<script>alert" not in page.text
        assert "<img src=x>" not in page.text
        assert "&lt;img src=x&gt;" in page.text


def test_a_person_without_a_secret_is_sent_to_sign_in(client: FlaskClient) -> None:
    publish(client, *make_wheel(), path="/r/mine/")
    answer = go(client, "/r/mine/explain/demo", 302)
    assert answer.headers["Location"] == "../../../login/?next=/r/mine/explain/demo"
