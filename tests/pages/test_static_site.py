"""A folder of static pages: what is written, what is left alone, and how it looks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from private_pypi.distributions.core_metadata import offered_core_metadata
from private_pypi.distributions.filenames import normalize
from private_pypi.errors import BackendError, BackendUnavailable, ConfigurationError
from private_pypi.model import DistributionFile
from private_pypi.pages.simple_api import Representation, project_detail
from private_pypi.pages.static_site import LIST, SiteFile, SiteUpdate, start_page, write_site
from private_pypi.testing.distributions import make_sdist, make_wheel
from tests.browser.conftest import chromium
from tests.clients.environments import Client, install_client, make_venv, site_packages
from tests.files import make_file

__all__ = ["chromium"]

WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
ELSEWHERE = "https://files.invalid/demo-1.0-py3-none-any.whl"


@dataclass
class Store:
    """Files that can be fetched into the folder."""

    folder: Path
    contents: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, filename: str, content: bytes, **changes: object) -> DistributionFile:
        self.contents[filename] = content
        path = self.folder / filename
        path.write_bytes(content)
        metadata = offered_core_metadata(path, filename)
        facts: dict[str, object] = {
            "uploaded_at": WHEN,
            "core_metadata_sha256": metadata and hashlib.sha256(metadata).hexdigest(),
        }
        return make_file(filename, content, **{**facts, **changes})

    def fetch(self, file: DistributionFile) -> Iterator[bytes]:
        self.asked.append(file.filename)
        content = self.contents[file.filename]
        yield content[:10]
        yield content[10:]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    folder = tmp_path / "store"
    folder.mkdir()
    return Store(folder)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site"


def write(site: Path, store: Store, *files: SiteFile, name: str = "acme") -> SiteUpdate:
    return write_site(site, name, files, document=b"mtime = 1\n", fetch=store.fetch)


def here(file: DistributionFile) -> SiteFile:
    return SiteFile(file=file, address=None)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Anchors(HTMLParser):
    """The links that installers find on a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._href: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._href = dict(attrs).get("href") if tag == "a" else self._href

    def handle_data(self, data: str) -> None:
        if self._href is not None:
            self.found.append((self._href, data))
            self._href = None


def test_the_pages_of_projects_are_those_of_the_server(store: Store, site: Path) -> None:
    wheel = store.add(*make_wheel("demo", "1.0"))
    newer = store.add(*make_sdist("demo", "1.10"), yanked='no "good" <at> all')
    older = store.add(*make_sdist("demo", "1.9"), requires_python=None, uploaded_at=None)
    update = write(site, store, here(newer), SiteFile(file=wheel, address=ELSEWHERE), here(older))
    assert update == SiteUpdate(projects=1, linked=1, kept=2, removed=0)
    assert (site / "demo" / "index.html").read_text() == project_detail(
        normalize("demo"),
        [wheel, older, newer],
        Representation.TEXT_HTML,
        serial=0,
        address=lambda file: ELSEWHERE if file is wheel else None,
    )
    page = (site / "demo" / "index.html").read_text()
    assert f'href="{ELSEWHERE}#sha256={wheel.sha256}"' in page
    assert f'href="{newer.filename}#sha256={newer.sha256}"' in page
    assert 'data-upload-time="2026-03-04T05:06:07.000000Z"' in page
    assert f'data-size="{wheel.size}"' in page
    assert 'data-yanked="no &quot;good&quot; &lt;at&gt; all"' in page


def test_what_nobody_gets_elsewhere_lies_in_the_folder_with_its_core_metadata(
    store: Store, site: Path
) -> None:
    wheel = store.add(*make_wheel("demo", "1.0"))
    write(site, store, here(wheel))
    files = tree(site)
    metadata = files.pop(f"demo/{wheel.filename}.metadata")
    assert hashlib.sha256(metadata).hexdigest() == wheel.core_metadata_sha256
    assert files.pop(f"demo/{wheel.filename}") == store.contents[wheel.filename]
    assert files.keys() == {".nojekyll", LIST, "demo/index.html", "index.html", "index.toml"}
    assert files["index.toml"] == b"mtime = 1\n"
    assert b"data-core-metadata" in files["demo/index.html"]


def test_core_metadata_that_the_file_does_not_have_are_not_offered(
    store: Store, site: Path
) -> None:
    wheel = store.add(*make_wheel("demo", "1.0"), core_metadata_sha256="0" * 64)
    write(site, store, here(wheel))
    assert f"demo/{wheel.filename}.metadata" not in tree(site)
    assert b"core-metadata" not in tree(site)["demo/index.html"]


def test_the_start_page_lists_every_project_once(store: Store, site: Path) -> None:
    files = [here(store.add(*make_wheel(name, "1.0"))) for name in ("zeta", "Alpha.One", "mid")]
    write(site, store, *files, here(store.add(*make_wheel("mid", "2.0rc1"))))
    page = (site / "index.html").read_text()
    assert Anchors(page).found == [
        ("alpha-one/", "alpha-one"),
        ("mid/", "mid"),
        ("zeta/", "zeta"),
    ]
    assert "<p>2.0rc1 · 2 files · 2026-03-04</p>" in page


def test_the_start_page_names_the_newest_version_that_is_not_yanked(
    store: Store, site: Path
) -> None:
    first = store.add(*make_wheel("demo", "1.0"))
    second = store.add(*make_wheel("demo", "2.0"), yanked="")
    only = store.add(*make_wheel("other", "3.0"), yanked="broken")
    write(site, store, here(first), here(second), here(only))
    page = (site / "index.html").read_text()
    assert "<p>1.0 · 2 files · 2026-03-04</p>" in page
    assert "<p>3.0 · 1 file · 2026-03-04 · yanked</p>" in page


def test_an_empty_index_says_so(store: Store, site: Path) -> None:
    assert write(site, store) == SiteUpdate(projects=0, linked=0, kept=0, removed=0)
    assert "There are no projects yet." in (site / "index.html").read_text()


def test_nothing_that_a_package_or_an_operator_says_is_markup(store: Store) -> None:
    file = store.add(*make_wheel("demo", "1.0"), summary="<script>alert(1)</script>")
    page = start_page("<b>&</b>", {file.project: [here(file)]})
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_what_has_vanished_goes_and_what_is_foreign_stays(store: Store, site: Path) -> None:
    gone = store.add(*make_wheel("gone", "1.0"))
    kept = store.add(*make_wheel("kept", "1.0"))
    newer = store.add(*make_wheel("kept", "2.0"))
    write(site, store, here(gone), here(kept), here(newer))
    (site / "gone" / "notes.txt").write_text("mine")
    (site / "CNAME").write_text("packages.invalid")
    update = write(site, store, here(newer))
    assert update == SiteUpdate(projects=1, linked=0, kept=1, removed=5)
    assert tree(site).keys() == {
        ".nojekyll",
        LIST,
        "CNAME",
        "gone/notes.txt",
        "index.html",
        "index.toml",
        "kept/index.html",
        f"kept/{newer.filename}",
        f"kept/{newer.filename}.metadata",
    }
    (site / "gone" / "notes.txt").unlink()
    assert write(site, store).removed == 3
    assert not (site / "kept").exists()


def test_a_second_run_fetches_and_writes_nothing_again(store: Store, site: Path) -> None:
    files = [here(store.add(*make_wheel("demo", "1.0"))), here(store.add(*make_sdist("a", "1")))]
    write(site, store, *files)
    store.asked.clear()
    before = {path: path.stat().st_ino for path in site.rglob("*") if path.name != LIST}
    write(site, store, *files)
    assert store.asked == []
    assert {path: path.stat().st_ino for path in site.rglob("*") if path.name != LIST} == before


def test_a_file_that_was_damaged_in_the_folder_is_fetched_again(store: Store, site: Path) -> None:
    wheel = store.add(*make_wheel("demo", "1.0"))
    write(site, store, here(wheel))
    path = site / "demo" / wheel.filename
    path.write_bytes(b"x" * wheel.size)
    write(site, store, here(wheel))
    assert path.read_bytes() == store.contents[wheel.filename]


def test_other_bytes_than_the_index_names_are_never_shown(store: Store, site: Path) -> None:
    wheel = store.add(*make_wheel("demo", "1.0"), sha256="0" * 64)
    with pytest.raises(BackendError, match="gave another content"):
        write(site, store, here(wheel))
    assert tree(site).keys() == {LIST}


def test_a_run_that_broke_is_completed_by_the_next(store: Store, site: Path) -> None:
    first = store.add(*make_wheel("demo", "1.0"))
    write(site, store, here(first))
    before = tree(site)
    files = [here(first), *(here(store.add(*make_wheel("demo", f"{n}.0"))) for n in (2, 3))]

    def breaks(file: DistributionFile) -> Iterator[bytes]:
        if file.version == "3.0":
            yield b"half"
            raise BackendUnavailable("down")
        yield from store.fetch(file)

    with pytest.raises(BackendUnavailable):
        write_site(site, "acme", files, document=b"mtime = 2\n", fetch=breaks)
    now = tree(site)
    for page in ("index.html", "demo/index.html", "index.toml"):
        assert now[page] == before[page]
    assert not [path for path in site.rglob("*") if "tmp" in path.name]

    (site / ".private_pypi-site.tmp").mkdir()  # left by a run that was killed
    (site / ".private_pypi-site.tmp" / "part").write_bytes(b"half")
    assert write(site, store, *files).kept == 3
    assert store.asked.count("demo-2.0-py3-none-any.whl") == 1
    assert not (site / ".private_pypi-site.tmp").exists()
    assert set(json.loads((site / LIST).read_text())["paths"]) == tree(site).keys() - {LIST}


def test_what_lies_where_a_page_belongs_is_not_touched(store: Store, site: Path) -> None:
    site.mkdir()
    (site / "index.html").write_text("my home page")
    (site / "demo").write_text("a file")
    with pytest.raises(ConfigurationError) as refused:
        write(site, store, here(store.add(*make_wheel("demo", "1.0"))))
    assert "contains 'demo', 'index.html', which this command did not write" in str(refused.value)
    assert tree(site) == {"index.html": b"my home page", "demo": b"a file"}


def test_no_link_leads_out_of_the_folder(store: Store, site: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    site.mkdir()
    (site / "demo").symlink_to(outside)
    file = here(store.add(*make_wheel("demo", "1.0")))
    with pytest.raises(ConfigurationError, match="'demo'"):
        write(site, store, file)
    (site / "demo").unlink()
    write(site, store, file)
    for path in (site / "demo").iterdir():
        path.rename(outside / path.name)
    (site / "demo").rmdir()
    (site / "demo").symlink_to(outside)
    before = tree(outside)
    with pytest.raises(ConfigurationError, match="'demo'"):
        write(site, store, replace(file, file=replace(file.file, yanked="broken")))
    assert tree(outside) == before
    assert write(site, store).removed == 0
    assert tree(outside) == before


@pytest.mark.parametrize(
    "text", ["nonsense", "[]", '{"paths": ["../x"]}', '{"paths": ["/etc/x"]}', '{"paths": [1]}']
)
def test_a_list_that_names_anything_else_is_refused(store: Store, site: Path, text: str) -> None:
    site.mkdir()
    (site / LIST).write_text(text)
    with pytest.raises(ConfigurationError, match="was not written by this command"):
        write(site, store)
    assert tree(site) == {LIST: text.encode()}


def test_a_folder_that_cannot_be_used_is_named(store: Store, site: Path) -> None:
    site.write_text("a file")
    with pytest.raises(ConfigurationError, match="cannot write the pages into"):
        write(site, store)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the folder on a simple web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Write no log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.needs("pip", "uv")
@pytest.mark.parametrize("name", ["pip", "uv"])
def test_installers_install_from_the_folder(
    store: Store, site: Path, tmp_path: Path, name: str
) -> None:
    write(site, store, here(store.add(*make_wheel("demo", "1!1.0"))))
    home, target = tmp_path / "home", make_venv(tmp_path / "target")
    home.mkdir()
    client = Client(name, install_client(name), home)
    with served(site) as address:
        if name == "pip":
            arguments = [f"--python={target}", "install"]
        else:
            arguments = ["pip", "install", f"--python={target}"]
        outcome = client.run(*arguments, f"--index-url={address}/", "demo")
    assert outcome.code == 0, outcome.output
    assert [path.name for path in site_packages(target).glob("demo-*")] == ["demo-1!1.0.dist-info"]


@pytest.mark.needs("a browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_start_page_is_readable_on_a_phone_and_by_everybody(
    store: Store, site: Path, chromium: Browser, scheme: str
) -> None:
    long = "a" * 60
    write(
        site,
        store,
        here(store.add(*make_wheel(long, "1.0"), summary="What it is for. " * 12)),
        here(store.add(*make_wheel("demo", "2.0.dev20260304+g0123456789abcdef0123456789"))),
        name="acme-" + "packages" * 8,
    )
    requests: list[str] = []
    with served(site) as address:
        page = chromium.new_page(
            viewport={"width": 360, "height": 740},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{address}/")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 25, 31)"}[scheme]
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        page.get_by_role("link", name="demo").click()
        assert page.title() == "Links for demo"
        page.close()
    assert [url for url in requests if not url.startswith(address)] == []
