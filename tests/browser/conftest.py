"""A real server with projects, and a real Chromium that remembers what went wrong in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import requests
from playwright.sync_api import Browser

from private_pypi.testing.distributions import make_wheel
from tests.browser.showcase import hostile, long, ordinary
from tests.browser.watching import Visitor, running_chromium, visiting
from tests.faults.servers import Server, servers_below, table
from tests.mirror.upstream import running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three repositories: `harbour` with projects, `empty`, and `open` for everybody.

    `together` is a group of `open` and of a mirror that has a project of the same name.
    """
    folder = tmp_path_factory.mktemp("browser")
    config = (
        table("harbour", sync_index_interval=3600)
        + table("empty", sync_index_interval=3600)
        + table("open", sync_index_interval=3600, anonymous_read=True)
    )
    with servers_below(folder) as servers, running() as upstream:
        upstream.add(*make_wheel("odyssey", "99.0"))
        upstream.add(*make_wheel("argo", "1.0"))
        config += (
            f'[pypi]\ntype = "mirror"\nindex_url = "{upstream.index_url}"\nanonymous_read = true\n'
            '[together]\ntype = "group"\nmembers = ["open", "pypi"]\nanonymous_read = true\n'
        )
        started = servers.start(folder / "root", config)
        for filename, content in (*ordinary(), *hostile()):
            started.publish(filename, content, auth=("harbour", "w"))
        for filename, content in (*hostile(), *long()):
            started.publish(filename, content, auth=("open", "w"))
        yanked = requests.post(
            f"{started.url}/r/harbour/simple/tidewater/1.1.0/yank",
            data={"reason": "wrong in leap years"},
            auth=("harbour", "w"),
            timeout=20,
        )
        assert yanked.status_code == 200, yanked.text
        yield started


# Playwright's event loop runs in this thread until it is stopped, and there can be only one. So it
# is stopped at the end of each module that has a browser.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser of the system, once for all tests of a module."""
    with running_chromium() as browser:
        yield browser


class Person(Visitor):
    """Somebody at a browser who uses the server."""

    def go(self, path: str) -> None:
        """Open an address of the server."""
        self.page.goto(self.url + path)

    def sign_in(self, repository: str = "harbour", secret: str = "r") -> None:
        """Fill in the form that is shown, and send it."""
        self.page.get_by_label("Repository").fill(repository)
        self.page.get_by_label("Secret").fill(secret)
        self.page.get_by_role("button", name="Sign in").click()

    @property
    def path(self) -> str:
        """Where the browser is."""
        return self.page.url.removeprefix(self.url)

    @property
    def heading(self) -> str:
        return self.page.locator("h1").inner_text()


Visit = Callable[..., Person]


@pytest.fixture
def visit(server: Server, chromium: Browser) -> Iterator[Visit]:
    """Make people; at the end no browser may have complained or asked anybody else."""
    with visiting(chromium, Person, server.url, expected="status of") as make:
        yield make


@pytest.fixture
def reader(visit: Visit) -> Person:
    """Somebody who is signed in to `harbour`."""
    person = visit()
    person.go("/login/")
    person.sign_in()
    return person
