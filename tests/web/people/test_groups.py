"""The start pages of mirrors and groups, and which private names they say are public too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient

from private_pypi.testing.distributions import make_wheel
from private_pypi.web import create_app
from tests.mirror.upstream import Upstream, running
from tests.waiting import eventually
from tests.web.conftest import Deploy, basic, publish

BROWSER = {"Accept": "text/html", "User-Agent": "Mozilla/5.0"}

Start = Callable[..., FlaskClient]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running() as index:
        yield index


@pytest.fixture
def client(deploy: Deploy, upstream: Upstream) -> Start:
    """A server with `mine`, `other`, the mirror `pypi` and the group `all`."""

    def make(*, all_: str = "", pypi: str = "") -> FlaskClient:
        config = (
            '[mine]\ntype = "file_system"\nread_secret = "r"\nwrite_secret = "w"\n'
            'claimed = ["acme-*"]\n'
            '[other]\ntype = "file_system"\nread_secret = "r2"\nwrite_secret = "w2"\n'
            'claimed = ["secret-*"]\n'
            f'[pypi]\ntype = "mirror"\nindex_url = "{upstream.index_url}"\n'
            f'read_secret = "p"\n{pypi}\n'
            '[all]\ntype = "group"\nmembers = ["mine", "other", "pypi"]\npublish_to = "mine"\n'
            f"{all_}\n"
        )
        return create_app(deploy(config)).test_client()

    return make


def page(client: FlaskClient, path: str, user: str, secret: str = "r") -> str:
    answer = client.get(path, headers={**BROWSER, **basic(user, secret)})
    assert answer.status_code == 200, answer.text
    return " ".join(re.sub("<[^>]*>", " ", answer.text.partition("<main")[2]).split())


def known_page(client: FlaskClient, upstream: Upstream, secret: str = "r") -> str:
    """The start page of the group after all that it asked for has come."""

    def is_known() -> bool:
        text = page(client, "/r/all/", "all", secret)
        return "not been read" not in text and "being looked up" not in text

    eventually(is_known, "that the upstream was read")
    return page(client, "/r/all/", "all", secret)


def test_private_names_that_are_public_too_are_marked_with_both_versions(
    client: Start, upstream: Upstream
) -> None:
    web = client()
    for project, version in (("tool", "1.0"), ("free", "3.0")):
        publish(web, *make_wheel(project, version), headers=basic("mine", "w"), path="/r/mine/")
    for project in ("tool", "acme-web", "left"):
        upstream.add(*make_wheel(project, "9.0"))
    text = known_page(web, upstream)
    assert "tool higher there mine has 1.0, pypi has 9.0" in text
    assert "claimed acme-* pypi has acme-web" in text
    assert "free public too" not in text
    assert "tool public too 1.0" in text  # in the list
    assert "served from there" not in text


def test_the_page_does_not_wait_for_the_upstream(client: Start, upstream: Upstream) -> None:
    web = client()
    publish(web, *make_wheel("tool", "1.0"), headers=basic("mine", "w"), path="/r/mine/")
    upstream.add(*make_wheel("tool", "9.0"))
    with upstream.hold("list") as hold:
        text = page(web, "/r/all/", "all")
        assert "The list of projects of pypi has not been read yet" in text
        assert "Names that are public too" not in text
        assert "tool 1.0" in text
        hold.until(1)  # it is being read
        assert "has not been read yet" in page(web, "/r/all/?q=tool", "all")
        assert "has not been read yet" in page(web, "/r/pypi/", "pypi", "p")
    assert "tool higher there" in known_page(web, upstream)


def test_a_mirror_in_trouble_leaves_the_page_as_it_is(client: Start, upstream: Upstream) -> None:
    web = client()
    publish(web, *make_wheel("tool", "1.0"), headers=basic("mine", "w"), path="/r/mine/")
    upstream.fail("list", "502")
    for _ in range(2):
        text = page(web, "/r/all/", "all")
        assert "The list of projects of pypi has not been read yet" in text
        assert "tool 1.0" in text


def test_names_of_members_that_refuse_the_caller_are_not_told(
    client: Start, upstream: Upstream
) -> None:
    web = client()
    publish(web, *make_wheel("hush", "1.0"), headers=basic("other", "w2"), path="/r/other/")
    publish(web, *make_wheel("gadget", "1.0"), headers=basic("mine", "w"), path="/r/mine/")
    for project in ("hush", "gadget", "secret-x"):
        upstream.add(*make_wheel(project, "9.0"))
    text = known_page(web, upstream)
    assert "gadget" in text
    assert "hush" not in text
    assert "secret-" not in text
    assert "other" not in text
    assert "hush" not in page(web, "/r/all/?q=hu", "all")  # the public one neither
    theirs = known_page(web, upstream, "r2")
    assert "hush higher there other has 1.0, pypi has 9.0" in theirs
    assert "claimed secret-* pypi has secret-x" in theirs
    assert "gadget" not in theirs


def test_a_mixed_name_is_told_as_served(client: Start, upstream: Upstream) -> None:
    web = client(all_='mix = ["tool"]')
    publish(web, *make_wheel("tool", "1.0"), headers=basic("mine", "w"), path="/r/mine/")
    upstream.add(*make_wheel("tool", "0.5"))
    text = known_page(web, upstream)
    assert "tool served from there as well mine has 1.0, pypi has 0.5" in text


def test_a_group_says_what_it_is_made_of(client: Start, upstream: Upstream) -> None:
    web = client()
    text = page(web, "/r/all/", "all")
    assert "mine file_system has every name like acme-* · uploads go here pypi mirror" in text
    setup = page(web, "/r/all/setup/", "all")
    assert "/r/all/simple/" in setup
    assert "This one address is enough: it has the projects of mine and pypi." in setup
    assert "twine upload" in setup
    assert "redirects to the public" not in setup


def test_a_search_in_a_group_finds_what_it_would_serve(client: Start, upstream: Upstream) -> None:
    web = client()
    publish(web, *make_wheel("lefty", "1.0"), headers=basic("mine", "w"), path="/r/mine/")
    for project in ("left", "lefty", "acme-left"):
        upstream.add(*make_wheel(project, "9.0"))
    known_page(web, upstream)
    text = page(web, "/r/all/?q=left", "all")
    assert "2 projects in all" in text
    assert "acme-left" not in text  # claimed by a member that does not have it
    assert "lefty public too 1.0" in text


def test_a_count_that_may_be_too_large_is_called_so(client: Start, upstream: Upstream) -> None:
    web = client()
    publish(web, *make_wheel("lefty", "1.0"), headers=basic("mine", "w"), path="/r/mine/")
    upstream.more_names = [f"left-{number}" for number in range(60)]
    known_page(web, upstream)
    assert "about 61 projects in all" in page(web, "/r/all/?q=left", "all")
    text = page(web, "/r/all/?q=left-1", "all")  # all of them were read
    assert "11 projects in all" in text
    assert "about 11" not in text


def test_a_mirror_lists_what_it_may_have(client: Start, upstream: Upstream) -> None:
    web = client(pypi='only = ["l*", "acme-*"]\nexcept = ["acme-[!x]*"]')
    for project in ("left", "right", "acme-web", "acme-x"):
        upstream.add(*make_wheel(project, "9.0"))
    page(web, "/r/pypi/", "pypi", "p")
    eventually(lambda: "2 projects" in page(web, "/r/pypi/", "pypi", "p"), "that it was read")
    text = page(web, "/r/pypi/", "pypi", "p")
    assert "All projects acme-x left" in text
    assert "1 project in pypi" in page(web, "/r/pypi/?q=ef", "pypi", "p")
    setup = page(web, "/r/pypi/setup/", "pypi", "p")
    assert "/r/pypi/simple/" in setup
    assert "twine" not in setup.lower()
    assert "publish" not in setup.lower()


def test_a_project_of_a_mirror_is_shown_in_a_group(client: Start, upstream: Upstream) -> None:
    web = client()
    upstream.add(*make_wheel("left", "9.0", extra_metadata=[("Summary", "Which side")]))
    assert "Which side" in page(web, "/r/all/project/left/", "all")
