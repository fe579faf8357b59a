"""A real server with projects, and a real Chromium that remembers what went wrong in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.showcase import hostile, long, ordinary
from tests.faults.servers import Server, servers_below, table
from tests.machine import need

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = (1280, 900)
PHONE = (360, 740)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three repositories: `harbour` with projects, `empty`, and `open` for everybody."""
    folder = tmp_path_factory.mktemp("browser")
    config = (
        table("harbour", sync_index_interval=3600)
        + table("empty", sync_index_interval=3600)
        + table("open", sync_index_interval=3600, anonymous_read=True)
    )
    with servers_below(folder) as servers:
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
    path = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Person:
    """Somebody at a browser, and what it complained about meanwhile."""

    context: BrowserContext
    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

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
    people: list[Person] = []

    def make(
        *,
        size: tuple[int, int] = DESKTOP,
        scheme: str = "light",
        javascript: bool = True,
        url: str = server.url,
    ) -> Person:
        context = chromium.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=javascript,
            locale="en-GB",
        )
        person = Person(context, context.new_page(), url)
        people.append(person)
        page = person.page
        page.on("pageerror", lambda error: person.complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                person.complaints.append(message.text)
                if message.type in ("error", "warning") and "status of" not in message.text
                else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(url) else person.foreign.append(request.url)
            ),
        )
        return person

    yield make
    for person in people:
        person.context.close()
        assert (person.complaints, person.foreign) == ([], [])


@pytest.fixture
def reader(visit: Visit) -> Person:
    """Somebody who is signed in to `harbour`."""
    person = visit()
    person.go("/login/")
    person.sign_in()
    return person
