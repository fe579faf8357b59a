"""The pages of a built site in a real browser, over a plain file server and without any server."""

from __future__ import annotations

import http.server
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from packaging.version import Version
from playwright.sync_api import Browser

from private_pypi.testing.distributions import make_wheel
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making.public_index import Verdict
from private_pypi_static_site.project_file import SiteVersion
from tests.browser.showcase import hostile, ordinary
from tests.browser.watching import PHONE, Visitor, running_chromium, visiting

from .built_sites import NOON, PlainServer, add, build, host, make_site

pytestmark = pytest.mark.needs("a browser")

PAGES = (
    *("", "tidewater/", "tidewater/1.2.0/", "tidewater/1.1.0/", "hostile/", "hostile/1.0/"),
    *("secret-ship/", "secret-ship/2.0+cu1/", "acme-auth/", "acme-auth/2.4.1/"),
    *("files.html", "404.html"),
)
CLAIMED = Verdict(kind="higher", public_version="99.0", our_version="2.4.1", checked_at=NOON)


class PublicIndex:
    """A stand-in for the public index's JSON API, which any page may ask."""

    def __init__(self) -> None:
        projects: dict[str, dict[str, Any]] = {}
        asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                answer = projects.get(self.path)
                self.send_response(404 if answer is None else 200)
                self.send_header("Access-Control-Allow-Origin", "*")
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(answer or {"message": "Not Found"}).encode())

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                pass

        self.projects = projects
        self.asked = asked
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def has(self, name: str, *versions: str, yanked: str | None = None) -> None:
        releases = {each: [{"yanked": each == yanked}] for each in versions}
        answer = {"info": {"version": versions[0]}, "releases": releases}
        self.projects[f"/pypi/{name}/json"] = answer


@pytest.fixture(scope="module")
def public() -> Iterator[PublicIndex]:
    made = PublicIndex()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, public: PublicIndex) -> SiteFolder:
    made = make_site(tmp_path_factory.mktemp("site"))
    for filename, content in (*ordinary(), *hostile()):
        yanked = "wrong in leap years" if filename.startswith("tidewater-1.1.0") else None
        host(made, filename, content, yanked=yanked)
    add(
        made,
        SiteVersion(version="2.0+cu1", tag="v2", git="https://code.example/acme/secret-ship"),
        name="secret-ship",
        homepage="https://code.example/acme/secret-ship",
        author="Ann",
        summary="For us only",
    )
    build(made, verdicts={"acme-auth": CLAIMED}, public_index=f"{public.url}simple/")
    return made


@pytest.fixture(scope="module")
def address(site: SiteFolder) -> Iterator[str]:
    server = PlainServer(site.root / "_site")
    yield server.url
    server.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


class Reader(Visitor):
    """Somebody at a browser who looks at the site."""

    def go(self, path: str) -> None:
        self.page.goto(self.url + path)
        self.page.wait_for_load_state("networkidle")


Open = Callable[..., Reader]


@pytest.fixture
def visit(address: str, public: PublicIndex, chromium: Browser) -> Iterator[Open]:
    """At the end no browser may have complained, or asked anybody but the public index."""
    public.projects.clear()
    asked = [f"{public.url}pypi/"]
    with visiting(chromium, Reader, address, expected="status of 404", may_ask=asked) as make:
        yield make


# -- looking ---------------------------------------------------------------------------------------


def test_a_project_is_searched_for(visit: Open) -> None:
    reader = visit()
    reader.go("")
    reader.page.get_by_role("searchbox").fill("gauges tide")
    assert reader.page.locator(".project:visible .name").all_inner_texts() == ["tidewater"]
    assert reader.page.locator("#count").inner_text() == "1 of 13 projects"
    reader.page.get_by_role("searchbox").fill("nothing of this")
    assert reader.page.get_by_text("No project matches").is_visible()
    reader.page.get_by_role("searchbox").fill("")
    assert reader.page.locator(".project:visible").count() == 13
    reader.page.locator(".project", has_text="tidewater").click()
    assert reader.page.locator("h1").inner_text() == "tidewater 1.2.0"


def test_everything_works_without_scripts(visit: Open) -> None:
    reader = visit(javascript=False)
    reader.go("")
    assert reader.page.locator(".project:visible").count() == 13
    assert not reader.page.locator("#search").is_visible()
    reader.page.locator(".project", has_text="tidewater").click()
    assert "pip install --index-url INDEX-URL tidewater" in reader.page.inner_text("main")
    assert reader.page.get_by_text("INDEX-URL is the address of the start page").is_visible()
    reader.page.get_by_role("link", name="1.1.0", exact=True).click()
    assert "wrong in leap years" in reader.page.inner_text("main")
    assert "Read tide tables" in reader.page.locator(".readme").inner_text()
    reader.page.get_by_role("link", name="Harbour").first.click()
    assert reader.page.locator("h1").inner_text() == "Harbour"
    reader.go("acme-auth/")
    assert reader.page.locator("#danger").is_visible()
    assert not reader.page.locator("#ways").is_visible()


def test_a_command_with_the_address_of_the_site_is_copied(visit: Open, address: str) -> None:
    reader = visit()
    reader.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for path in ("tidewater/", "tidewater/1.2.0/"):
        reader.go(path)
        reader.page.get_by_role("button", name="Copy: Command that installs with pip").click()
        copied = reader.page.evaluate("navigator.clipboard.readText()")
        assert copied == f"pip install --index-url {address} tidewater"


def test_a_homepage_is_a_link_for_people(visit: Open) -> None:
    reader = visit()
    reader.go("secret-ship/")
    link = reader.page.get_by_role("link", name="https://code.example/acme/secret-ship")
    assert link.get_attribute("rel") == "nofollow noopener noreferrer"


def test_pages_work_from_a_folder(visit: Open, site: SiteFolder) -> None:
    reader = visit(url=(site.root / "_site").as_uri() + "/")
    reader.go("tidewater/index.html")
    colour = reader.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(246, 247, 249)"
    assert f"--index-url {reader.url} tidewater" in reader.page.inner_text("main")


# -- dependency confusion --------------------------------------------------------------------------


def test_a_fresh_verdict_replaces_that_of_the_build(visit: Open, public: PublicIndex) -> None:
    reader = visit()
    reader.go("acme-auth/")
    # Nobody has the name any more.
    assert not reader.page.locator("#danger").is_visible()
    assert "pip install" in reader.page.locator("#ways").inner_text()
    public.has("tidewater", "1.0", "1.1.9", "9.0rc1", "5.0", yanked="5.0")
    reader.go("tidewater/")
    assert not reader.page.locator("#ways").is_visible()
    danger = reader.page.locator("#danger").inner_text()
    assert "The public index has another project called tidewater" in danger
    assert "Here: 1.2.0. On the public index: 1.1.9. Compared just now." in danger
    public.has("tidewater", "1.10.0")
    reader.go("tidewater/1.2.0/")
    danger = reader.page.locator("#danger").inner_text()
    assert "The public index has a higher version of tidewater" in danger


def test_names_are_not_compared_if_the_site_does_not_want_it(
    visit: Open, public: PublicIndex, tmp_path: Path
) -> None:
    quiet = make_site(tmp_path, "check_public_index = false\n")
    host(quiet, *make_wheel("demo", "1.0"))
    build(quiet, public_index=f"{public.url}simple/")
    server = PlainServer(quiet.root / "_site")
    before = list(public.asked)
    public.has("demo", "9.0")
    reader = visit(url=server.url)
    reader.go("demo/")
    assert reader.page.locator("#ways").is_visible()
    assert public.asked == before
    server.close()


def test_an_acknowledged_name_has_commands(
    visit: Open, public: PublicIndex, tmp_path: Path
) -> None:
    ours = make_site(tmp_path)
    host(ours, *make_wheel("demo", "1.0"))
    tagged = SiteVersion(version="0.1", tag="v0", git="https://code.example/acme/demo")
    add(ours, tagged, name="demo", ours_on_public=True)
    build(ours, public_index=f"{public.url}simple/")
    server = PlainServer(ours.root / "_site")
    public.has("demo", "9.0")
    reader = visit(url=server.url)
    reader.go("demo/")
    assert reader.page.locator("#ways").is_visible()
    server.close()


def test_without_the_public_index_the_verdict_of_the_build_stays(
    chromium: Browser, address: str, public: PublicIndex
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.route(f"{public.url}**", lambda route: route.abort())
    page.goto(f"{address}acme-auth/")
    page.wait_for_load_state("networkidle")
    assert page.locator("#danger").is_visible()
    assert "On the public index: 99.0. Compared 2 Jan 2026." in page.inner_text("#danger")
    context.close()


VERSIONS = [
    *("1.0", "1.0.0", "1", "1.0.1", "1.10", "1.9", "0.9", "2!0.1", "1!1.0", "v1.0", "01.0"),
    *("1.0a1", "1.0alpha1", "1.0.a1", "1.0-a.1", "1.0b2", "1.0beta2", "1.0rc1", "1.0c1", "1.0pre1"),
    *("1.0a", "1.0-preview", "1.0a2", "1.0a10", "1.0a1.dev1", "1.0a1.post1", "1.0a1.post1.dev2"),
    *("1.0.dev0", "1.0.dev", "1.0.dev10", "1.0dev9", "1.0.post1", "1.0-1", "1.0.post", "1.0rev2"),
    *("1.0.post1.dev1", "1.0.post1.dev2", "1.0post0", "1.0-r10", "1.0.post1+a"),
    *("1.0+a", "1.0+b", "1.0+A.1", "1.0+a.1", "1.0+a-1", "1.0+a_2", "1.0+1", "1.0+10", "1.0+2"),
    *("1.0+1.a", "1.0+1.2", "1.0+cu118", "1.0+cu12", "1.0.dev1+x", "1.0rc1+x", " 1.0 "),
    *("20260102", "2026.1.2", "99999999999999999999.1", "99999999999999999999.2", "0", "0.0.0"),
]


def test_versions_are_compared_as_in_python(visit: Open) -> None:
    reader = visit()
    reader.go("")
    pairs = list(itertools.product(VERSIONS, VERSIONS))
    found = reader.page.evaluate("pairs => pairs.map(([a, b]) => comparePep440(a, b))", pairs)
    parsed = {text: Version(text) for text in VERSIONS}
    wrong = [
        (one, other, result)
        for (one, other), result in zip(pairs, found, strict=True)
        if result != (parsed[one] > parsed[other]) - (parsed[one] < parsed[other])
    ]
    assert wrong == []
    none = ["", "x", "1.0.x", "1.0-", "1..0", "1.0+", "1.0+a..b", "١", "1.0 2"]
    for text in none:
        with pytest.raises(ValueError):
            Version(text)
    assert reader.page.evaluate("texts => texts.map((t) => comparePep440(t, '1'))", none) == [
        None for _ in none
    ]
    expected = [parsed[text].is_prerelease for text in VERSIONS]
    assert reader.page.evaluate("texts => texts.map(isPrerelease)", VERSIONS) == expected


# -- for everybody ---------------------------------------------------------------------------------


def test_a_hostile_package_does_nothing(visit: Open) -> None:
    dialogs = []
    reader = visit()
    reader.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for path in ("", "hostile/", "hostile/1.0/"):
        reader.go(path)
        assert "taken" not in reader.page.title()
        assert reader.page.locator(".readme :is(script, style, form, iframe, img)").count() == 0
        assert reader.page.locator("main").is_visible()
    assert dialogs == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_every_page(visit: Open, public: PublicIndex, scheme: str) -> None:
    public.has("acme-auth", "99.0")
    reader = visit(scheme=scheme)
    found = {}
    for path in PAGES:
        reader.go(path)
        reader.page.locator("details").evaluate_all("found => found.map(one => one.open = true)")
        # The schemes differ in nothing but their colours.
        only = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}
        results = Axe().run(reader.page, options={"resultTypes": ["violations"], **only})
        found[path] = results.generate_report() if results.violations_count else ""
    assert {path: text for path, text in found.items() if text} == {}


@pytest.mark.parametrize("size", [PHONE, (768, 1024)])
def test_nothing_is_wider_than_the_screen(
    visit: Open, public: PublicIndex, size: tuple[int, int]
) -> None:
    public.has("acme-auth", "99.0")
    reader = visit(size=size)
    wide = {}
    for path in PAGES:
        reader.go(path)
        width = reader.page.evaluate("document.documentElement.scrollWidth")
        if width > size[0]:
            wide[path] = width
    assert wide == {}


def test_the_schemes_differ(visit: Open) -> None:
    colours = []
    for scheme in ("light", "dark"):
        reader = visit(scheme=scheme)
        reader.go("")
        colours.append(reader.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(246, 247, 249)", "rgb(18, 21, 28)"]


def test_the_first_key_leads_to_a_project(visit: Open) -> None:
    reader = visit()
    reader.go("")
    reader.page.keyboard.press("Tab")
    assert reader.page.evaluate("document.activeElement.id") == "q"
    reader.page.locator(".project .name").first.focus()
    reader.page.keyboard.press("Enter")
    reader.page.wait_for_load_state("networkidle")
    assert reader.page.locator("h1").inner_text() == "acme-auth 2.4.1"
