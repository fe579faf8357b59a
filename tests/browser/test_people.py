"""The pages in a real browser, as people use them; `visit` sees to it that it never complains."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import Person, Visit
from tests.browser.watching import DESKTOP, PHONE
from tests.faults.servers import Server

pytestmark = pytest.mark.needs("a browser")

PAGES = (
    "/login/",
    "/r/harbour/",
    "/r/harbour/?q=tide",
    "/r/harbour/?q=nothing-at-all",
    "/r/harbour/project/tidewater/",
    "/r/harbour/project/tidewater/1.1.0/",
    "/r/harbour/project/hostile/",
    "/r/harbour/project/nothing/",
    "/r/harbour/setup/",
    "/r/open/",
    "/r/open/project/odyssey/",
    "/r/open/setup/",
    "/r/together/",
    "/r/together/?q=argo",
    "/r/together/setup/",
    "/r/pypi/",
    "/r/pypi/setup/",
    "/logout/",
)


def test_a_person_is_brought_to_the_sign_in_page_and_back(visit: Visit) -> None:
    person = visit()
    person.go("/r/harbour/project/tidewater/?page=1")
    assert person.path == "/login/?next=/r/harbour/project/tidewater/%3Fpage%3D1"
    person.sign_in(secret="wrong")
    assert "this is not its secret" in person.page.get_by_role("alert").inner_text()
    person.sign_in()
    assert person.path == "/r/harbour/project/tidewater/?page=1"
    assert person.heading == "tidewater 1.2.0"


def test_the_machine_pages_open_after_signing_in(visit: Visit) -> None:
    person = visit()
    person.go("/simple/")
    person.sign_in()
    assert person.path == "/simple/"
    person.page.get_by_role("link", name="tidewater").click()
    assert person.heading == "Links for tidewater"


def test_a_wrong_secret_opens_no_dialog_of_the_browser(visit: Visit, server: Server) -> None:
    # Chromium shows its own dialog for a 401 with Basic; Playwright would answer it by failing.
    person = visit()
    person.go("/login/")
    with person.page.expect_response("**/login/") as answered:
        person.sign_in(secret="wrong")
    assert answered.value.status == 403
    assert "www-authenticate" not in answered.value.headers


def test_repositories_are_switched(reader: Person) -> None:
    page = reader.page
    page.locator(".switcher summary").click()
    page.get_by_role("link", name="Sign in to another").click()
    reader.sign_in("empty")
    assert reader.path == "/r/empty/"
    page.locator(".switcher summary").click()
    page.get_by_role("link", name="harbour", exact=True).click()
    assert reader.path == "/r/harbour/"
    reader.go("/")
    assert reader.path == "/r/harbour/"


def test_the_menu_is_used_with_the_keyboard(reader: Person) -> None:
    summary = reader.page.locator(".switcher summary")
    summary.focus()
    reader.page.keyboard.press("Enter")
    sign_out = reader.page.get_by_role("link", name="Sign out")
    assert sign_out.is_visible()
    reader.page.keyboard.press("Escape")
    assert not sign_out.is_visible()
    assert summary.evaluate("element => element === document.activeElement")


def test_the_first_key_leads_to_the_content(reader: Person) -> None:
    reader.go("/r/harbour/project/tidewater/")
    reader.page.keyboard.press("Tab")
    skip = reader.page.locator(":focus")
    assert skip.inner_text() == "Skip to the content"
    reader.page.keyboard.press("Enter")
    assert reader.page.evaluate("document.activeElement.id") == "content"


def test_a_project_is_searched_for(reader: Person) -> None:
    box = reader.page.get_by_role("searchbox")
    box.fill("gauges")
    box.press("Enter")
    assert reader.path == "/r/harbour/?q=gauges"
    names = reader.page.locator(".project .name").all_inner_texts()
    assert names == ["tidewater"]
    reader.page.locator("a.project").click()
    assert reader.heading == "tidewater 1.2.0"


def test_a_command_is_copied(reader: Person) -> None:
    reader.context.grant_permissions(["clipboard-read", "clipboard-write"])
    reader.go("/r/harbour/project/tidewater/")
    button = reader.page.get_by_role("button", name="Copy: Command that installs with pip")
    button.click()
    reader.page.get_by_text("Copied", exact=True).first.wait_for()
    copied = reader.page.evaluate("navigator.clipboard.readText()")
    host = reader.url.removeprefix("http://")
    assert copied == f"pip install --index-url http://harbour@{host}/r/harbour/simple/ tidewater"
    assert reader.page.get_by_role("status").inner_text() == "Copied"


def test_where_there_is_no_clipboard_the_command_is_selected(reader: Person) -> None:
    reader.page.add_init_script("delete Navigator.prototype.clipboard")
    reader.go("/r/harbour/project/tidewater/")
    reader.page.get_by_role("button", name="Copy: Command that installs with uv").click()
    selected = reader.page.evaluate("String(getSelection())")
    assert selected.startswith("uv add --default-index harbour=http://")


def test_a_file_is_downloaded(reader: Person) -> None:
    reader.go("/r/harbour/project/tidewater/")
    with reader.page.expect_download() as started:
        reader.page.get_by_role("link", name="tidewater-1.2.0.tar.gz", exact=True).click()
    assert started.value.suggested_filename == "tidewater-1.2.0.tar.gz"
    content = started.value.path().read_bytes()
    assert content.startswith(b"\x1f\x8b")


def test_everything_works_without_scripts(visit: Visit) -> None:
    person = visit(javascript=False)
    person.go("/r/harbour/")
    person.sign_in()
    page = person.page
    page.get_by_role("searchbox").fill("tidewater")
    page.get_by_role("button", name="Search").click()
    page.locator("a.project").click()
    assert person.heading == "tidewater 1.2.0"
    assert "pip install" in page.locator(".commands").inner_text()
    assert page.get_by_role("button", name=re.compile("Copy")).count() == 0
    page.get_by_text("Hash of tidewater-1.2.0.tar.gz").click()
    assert (
        page.get_by_text("sha256:").first.is_visible() or page.get_by_text("sha256:").count() == 3
    )
    page.locator(".switcher summary").click()
    page.get_by_role("link", name="Sign out").click()
    page.get_by_role("button", name="Sign out").click()
    assert person.path == "/login/"
    person.go("/r/harbour/")
    assert person.path.startswith("/login/")


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_files_and_releases_are_one_step_away_from_a_long_description(
    visit: Visit, size: tuple[int, int]
) -> None:
    person = visit(size=size, javascript=False)
    person.go("/r/open/project/odyssey/")
    page = person.page
    page.mouse.wheel(0, 20_000)
    parts = page.get_by_role("navigation", name="On this page")
    for name, found in (("Files", ".files .file"), ("Releases", ".releases a")):
        parts.get_by_role("link", name=name).click()
        box = page.locator(found).first.bounding_box()
        assert box is not None
        assert 0 < box["y"] < size[1]
        bar = parts.bounding_box()
        assert bar is not None
        assert bar["y"] + bar["height"] <= box["y"]


def test_badges_take_one_line(visit: Visit) -> None:
    person = visit(size=PHONE)
    person.go("/r/open/project/odyssey/")
    box = person.page.locator(".badges").bounding_box()
    assert box is not None
    assert box["height"] < 50
    assert person.page.locator(".badges .image").count() == 30


def test_a_pager_jumps(visit: Visit) -> None:
    person = visit(javascript=False)
    person.go("/r/open/project/odyssey/")
    person.page.get_by_label("Go to page").fill("3")
    person.page.get_by_role("button", name="Go", exact=True).click()
    assert person.path == "/r/open/project/odyssey/?page=3"
    assert person.page.locator(".releases a").all_inner_texts() == ["1.0"]


def test_commands_are_whole_on_a_small_screen(visit: Visit) -> None:
    person = visit(size=PHONE)
    for path in ("/r/open/project/odyssey/", "/r/open/setup/"):
        person.go(path)
        hidden = person.page.locator(".command pre").evaluate_all(
            "found => found.filter(one => one.scrollWidth > one.clientWidth).length"
        )
        assert hidden == 0


def test_one_of_two_repositories_is_left(reader: Person) -> None:
    reader.go("/login/")
    reader.sign_in("empty")
    reader.go("/logout/")
    reader.page.get_by_role("button", name="Sign out of harbour").click()
    assert reader.path == "/r/empty/"
    reader.go("/r/harbour/")
    assert reader.path.startswith("/login/")


def test_an_open_repository_needs_no_sign_in(visit: Visit) -> None:
    person = visit()
    person.go("/r/open/")
    assert person.heading == "open"
    assert person.context.cookies() == []


def test_the_cookie_is_out_of_reach(reader: Person) -> None:
    (cookie,) = reader.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/")
    assert reader.page.evaluate("document.cookie") == ""


def test_a_hostile_package_does_nothing(reader: Person) -> None:
    dialogs = []
    reader.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    reader.go("/r/harbour/project/hostile/")
    assert reader.page.title() == "hostile 1.0 · harbour"
    assert reader.page.locator(".readme :is(script, style, form, iframe, img)").count() == 0
    assert reader.page.locator("main").is_visible()
    assert dialogs == []


def test_an_error_leads_on(reader: Person) -> None:
    reader.go("/r/harbour/project/nothing/")
    assert reader.heading == "Not Found"
    assert "No project 'nothing' in this repository" in reader.page.locator("main").inner_text()
    reader.page.get_by_role("link", name="Start page").last.click()
    assert reader.path == "/r/harbour/"


@pytest.mark.parametrize("size", [PHONE, (768, 1024)])
def test_nothing_is_wider_than_the_screen(visit: Visit, size: tuple[int, int]) -> None:
    person = visit(size=size)
    person.go("/login/")
    person.sign_in()
    wide = {}
    for path in PAGES:
        person.go(path)
        width = person.page.evaluate("document.documentElement.scrollWidth")
        if width > size[0]:
            wide[path] = width
    assert wide == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_every_page(visit: Visit, scheme: str) -> None:
    person = visit(scheme=scheme)
    person.go("/login/")
    found = {"before": _violations(person)}
    person.sign_in()
    person.go("/login/")
    person.sign_in("empty")
    found["/r/empty/"] = _violations(person)
    for path in PAGES:
        person.go(path)
        person.page.locator("details").evaluate_all("found => found.map(one => one.open = true)")
        found[path] = _violations(person)
    assert {path: text for path, text in found.items() if text} == {}


def test_the_schemes_differ(visit: Visit) -> None:
    colours = []
    for scheme in ("light", "dark"):
        person = visit(scheme=scheme)
        person.go("/r/open/")
        colours.append(person.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(246, 247, 249)", "rgb(18, 21, 28)"]


def test_on_paper_there_are_no_controls(reader: Person) -> None:
    reader.go("/r/harbour/project/tidewater/")
    reader.page.emulate_media(media="print")
    assert not reader.page.locator(".bar").is_visible()
    assert not reader.page.locator(".copy").first.is_visible()
    assert reader.page.locator(".readme").is_visible()


def _violations(person: Person) -> str:
    results = Axe().run(person.page)
    return results.generate_report() if results.violations_count else ""
