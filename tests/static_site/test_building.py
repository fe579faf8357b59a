"""From the folder of a site to its pages: what they say, what they never say, and what is kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests

from private_pypi.cli import main
from private_pypi.errors import ConfigurationError
from private_pypi.model import DistributionFile
from private_pypi.pages.simple_api import Representation, project_detail
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi_static_site.commands import building as commands
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making import building
from private_pypi_static_site.making.public_index import VERDICTS as FILE
from private_pypi_static_site.making.public_index import Verdict
from private_pypi_static_site.project_file import SiteFile, SiteVersion
from tests.browser.showcase import hostile

from .built_sites import NOON, add, build, host, make_site, written

ABOUT = [
    ("Summary", "Tide tables"),
    ("Author", "Ada"),
    ("License-Expression", "MIT"),
    ("Project-URL", "Source, https://code.example/demo-99.tar.gz"),
    ("Description-Content-Type", "text/markdown"),
]


class Page(HTMLParser):
    """The links of a page and its text, as a tool reads them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: dict[str, str] = {}  # address -> text
        self.attributes: dict[str, dict[str, str | None]] = {}  # of links, by their text
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._link: tuple[str, dict[str, str | None]] | None = None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "a":
            self._link = dict(attrs)["href"] or "", dict(attrs)
            self.links[self._link[0]] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._link is not None:
            self.attributes[self.links[self._link[0]]] = self._link[1]
            self._link = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._link is not None:
            self.links[self._link[0]] += data


@pytest.fixture
def site(tmp_path: Path) -> SiteFolder:
    return make_site(tmp_path / "site")


def page(site: SiteFolder, path: str) -> Page:
    return Page(site.root / "_site" / path)


def files_of(shown: Page) -> set[str]:
    """The links of a page that are no folders of the site."""
    return {address for address in shown.links if not address.endswith("/")}


# -- pages for installers --------------------------------------------------------------------------


def test_everything_that_a_site_has_is_written(site: SiteFolder) -> None:
    host(site, *make_wheel("demo", "1.0"))
    host(site, *make_sdist("demo", "1.0", metadata_version="2.1"), core_metadata_sha256=None)
    build(site)
    names = {re.sub(r"\.[0-9a-f]{10}\.", ".*.", name) for name in written(site.root / "_site")}
    assert names == {
        *(".nojekyll", ".private_pypi-build.json", ".private_pypi-site.json"),
        *("404.html", "files.html", "index.html", "index.json"),
        *("demo/index.html", "demo/index.json", "demo/1.0/index.html"),
        "packages/demo/demo-1.0-py3-none-any.whl",
        "packages/demo/demo-1.0-py3-none-any.whl.metadata",
        "packages/demo/demo-1.0.tar.gz",
        *("static/copy.*.js", "static/logo.*.svg", "static/pep440.*.js", "static/site.*.css"),
        *("static/site.*.js", "static/style.*.css"),
    }


def test_the_list_of_projects_is_one_for_tools(site: SiteFolder) -> None:
    host(site, *make_wheel("a.b_C", "1.0"))
    host(site, *make_wheel("demo", "1.0"))
    build(site)
    shown = page(site, "index.html")
    assert shown.links == {"a-b-c/": "a-b-c", "demo/": "demo"}
    assert ("meta", {"name": "pypi:repository-version", "content": "1.4"}) in shown.tags
    assert json.loads((site.root / "_site/index.json").read_text())["projects"] == [
        {"name": "a-b-c", "_last-serial": 0},
        {"name": "demo", "_last-serial": 0},
    ]


def test_files_have_the_links_of_the_server(site: SiteFolder) -> None:
    first = host(site, *make_wheel("demo", "1.0+a.1", requires_python=">=3.9,<4"))
    second = host(site, *make_wheel("demo", "2.0"), yanked='say "why" & <when>')
    third = host(site, *make_sdist("demo", "2.0"), yanked="")
    build(site)

    def as_served(file: SiteFile, version: str) -> DistributionFile:
        return DistributionFile(
            project=site.names()[0],
            filename=file.filename,
            size=file.size,
            sha256=file.sha256,
            location="",
            version=version,
            uploaded_at=file.uploaded_at,
            requires_python=file.requires_python,
            yanked=file.yanked,
            core_metadata_sha256=file.core_metadata_sha256,
        )

    files = [
        as_served(first, "1.0+a.1"),
        as_served(second, "2.0"),
        as_served(third, "2.0"),
    ]
    base = "../packages/demo/"
    of_server = project_detail(
        site.names()[0], files, Representation.TEXT_HTML, serial=0, base=base
    )
    anchors = re.findall("<a .*?</a>", of_server)
    assert len(anchors) == 3
    source = page(site, "demo/index.html").source
    assert {anchor in source for anchor in anchors} == {True}
    assert files_of(page(site, "demo/index.html")) == {
        re.findall('href="(.*?)"', each)[0] for each in anchors
    }
    as_json = project_detail(site.names()[0], files, Representation.JSON, serial=0, base=base)
    assert json.loads((site.root / "_site/demo/index.json").read_text()) == json.loads(as_json)


def test_every_link_leads_to_a_file_of_the_site(site: SiteFolder) -> None:
    host(site, *make_wheel("demo", "1!2.0+cu.1", extra_metadata=ABOUT, description="# Hello"))
    host(site, *make_wheel("demo", "1.0"))
    build(site)
    output = site.root / "_site"
    checked = 0
    for path in output.rglob("*.html"):
        for address in Page(path).links:
            place = urljoin(f"/{path.relative_to(output).as_posix()}", address)
            if place.startswith(("http", "mailto")) or address.startswith("#"):
                continue
            local = output / requests.utils.unquote(place).partition("#")[0].lstrip("/")
            assert local.is_file() or (local / "index.html").is_file(), (path, address)
            checked += 1
    assert checked > 10


def test_the_flat_page_has_every_file(site: SiteFolder) -> None:
    one = host(site, *make_wheel("demo", "1.0"))
    url = "https://code.example/a/releases/other-1.0-py3-none-any.whl"
    two = host(site, *make_wheel("other", "1.0"), url=url, core_metadata_sha256=None)
    build(site)
    assert files_of(page(site, "files.html")) == {
        f"packages/demo/{one.filename}#sha256={one.sha256}",
        f"{url}#sha256={two.sha256}",
    }


def test_files_elsewhere_are_linked_and_not_copied(site: SiteFolder) -> None:
    filename, content = make_wheel("demo", "1.0", extra_metadata=ABOUT, description="# Hello")
    host(site, filename, content, url=f"https://code.example/a/{filename}")
    (site.packages / "demo" / filename).unlink()
    build(site)
    assert not (site.root / "_site/packages").exists()
    attributes = page(site, "demo/index.html").attributes[filename]
    assert attributes["data-core-metadata"] is not None
    # The copy of the core metadata is for the pages.
    assert "Tide tables" in page(site, "demo/1.0/index.html").text


@pytest.mark.parametrize("tag", ["v2.0;$(id)", "demo@2.0"])
def test_a_tag_that_tools_read_differently_has_no_command(site: SiteFolder, tag: str) -> None:
    git = "https://code.example/acme/demo"
    add(site, SiteVersion(version="2.0", tag=tag, git=git), name="demo")
    build(site)
    for path in ("demo/index.html", "demo/2.0/index.html"):
        shown = page(site, path)
        assert "pip install" not in shown.text
        assert "poetry add" not in shown.text
        assert f"It is the tag {tag} of the repository {git}." in " ".join(shown.text.split())


@pytest.mark.parametrize("only", [True, False])
def test_a_version_that_is_only_a_tag_has_commands_and_no_link(
    site: SiteFolder, only: bool
) -> None:
    if not only:
        host(site, *make_wheel("demo", "1.0"))
    git = "https://code.example/acme/demo"
    version = SiteVersion(version="2.0+cu1", tag="v2.0+cu1", git=git)
    add(site, version, name="demo", homepage="https://code.example/demo-99.tar.gz")
    site.write(site.readme(site.names()[0], "2.0+cu1"), b"# Read *this*")
    build(site)
    project = page(site, "demo/index.html")
    assert not any(address.startswith(("http", "git")) for address in project.links)
    assert "https://code.example/demo-99.tar.gz" in project.text
    shown = page(site, "demo/2.0+cu1/index.html")
    what = "'demo @ git+https://code.example/acme/demo@v2.0+cu1'"
    for command in ("pip install", "uv add", "poetry add"):
        assert f"{command} {what}" in shown.text
    assert "private_pypi server" in shown.text
    assert "<em>this</em>" in shown.source
    # Nothing is tools' to find, and the JSON page says so too.
    versions = json.loads((site.root / "_site/demo/index.json").read_text())["versions"]
    assert versions == ([] if only else ["1.0"])


# -- pages for people ------------------------------------------------------------------------------


def test_the_page_of_a_version_has_its_readme_and_metadata(site: SiteFolder) -> None:
    host(site, *make_wheel("demo", "1.0", extra_metadata=ABOUT, description="# Read *this*"))
    build(site)
    shown = page(site, "demo/1.0/index.html")
    assert "<em>this</em>" in shown.source
    assert all(each in shown.text for each in ("Tide tables", "Ada", "MIT"))
    assert shown.links["https://code.example/demo-99.tar.gz"] == "Source"
    # For installers, that address would be a version.
    assert files_of(page(site, "demo/index.html")) == {
        f"../packages/demo/{each.filename}#sha256={each.sha256}"
        for version in site.project(site.names()[0]).versions  # type: ignore[union-attr]
        for each in version.files
    }


def test_readmes_can_be_left_out(tmp_path: Path) -> None:
    site = make_site(tmp_path, 'title = "Harbour"\nreadmes = false\n')
    host(site, *make_wheel("demo", "1.0", extra_metadata=ABOUT, description="# Read *this*"))
    build(site)
    assert "<em>" not in page(site, "demo/1.0/index.html").source
    assert not (site.root / building.CACHE).exists()


def test_the_current_version_is_the_newest_that_installers_take(site: SiteFolder) -> None:
    host(site, *make_wheel("demo", "1.10"))
    host(site, *make_wheel("demo", "1.9"))
    host(site, *make_wheel("demo", "2.0"), yanked="broken")
    host(site, *make_wheel("demo", "3.0b1"))
    build(site)
    shown = page(site, "demo/index.html")
    assert re.search(r'<h1>demo <span class="version">1\.10</span></h1>', shown.source)
    words = " ".join(shown.text.split())
    assert re.search(r"3\.0b1 pre-release .* 2\.0 yanked .* broken .* 1\.10 current .* 1\.9", words)


def test_hostile_words_stay_words(site: SiteFolder) -> None:
    for filename, content in hostile():
        host(site, filename, content, yanked="<script>1</script>\"'")
    add(
        site,
        SiteVersion(version="2.0", tag='"><script>2</script>', git="https://code.example/x"),
        name="hostile",
        author="<script>3</script>",
        summary="<script>4</script>",
        homepage="https://code.example/?a=1&b=2",
    )
    site.write(
        site.readme(site.names()[0], "2.0"), b"<script>5</script><img src=x onerror=alert(1)>"
    )
    verdict = Verdict(
        kind="higher",
        public_version="<script>6</script>",
        our_version="<script>7</script>",
        checked_at=NOON,
    )
    build(site, verdicts={"hostile": verdict})
    for path in (site.root / "_site").rglob("*.html"):
        shown = Page(path)
        for tag, attributes in shown.tags:
            assert tag != "script" or "src" in attributes
            assert tag not in ("iframe", "form", "style", "object", "base")
            assert not any(name.startswith("on") or name == "style" for name in attributes)
            assert not (attributes.get("href") or "").startswith(("javascript:", "data:"))
            assert tag != "img" or re.fullmatch(
                r"[./]*static/logo\.\w+\.svg", attributes["src"] or ""
            )
            source = attributes.get("src") or ""
            assert not source.startswith(("http", "//"))
    assert "<script>4</script>" in page(site, "index.html").text


def test_a_title_is_text(tmp_path: Path) -> None:
    site = make_site(tmp_path, "title = '<b>\"Ours\"</b> &amp;'\n")
    host(site, *make_wheel("demo", "1.0"))
    build(site)
    assert "<b>" not in page(site, "index.html").source
    assert '<b>"Ours"</b> &amp;' in page(site, "index.html").text
    assert "uv add --index b-ours-b-amp=" in page(site, "demo/index.html").text


def test_an_empty_site_has_pages(site: SiteFolder) -> None:
    assert str(build(site)) == "projects: 0, of which 0 new or changed; files: 0"
    assert "There are no projects yet" in page(site, "index.html").text
    assert page(site, "index.html").links == {}


def test_pages_ask_nobody_else(site: SiteFolder) -> None:
    host(site, *make_wheel("demo", "1.0"))
    build(site, public_index="https://index.example:8443/simple")
    policy = "".join(
        attributes["content"] or ""
        for tag, attributes in page(site, "demo/index.html").tags
        if tag == "meta" and "http-equiv" in attributes
    )
    assert policy.split("; ") == [
        *("default-src 'none'", "style-src 'self'", "script-src 'self'", "img-src 'self'"),
        *("connect-src https://index.example:8443", "form-action 'none'", "base-uri 'none'"),
    ]
    address = '"https://index.example:8443/pypi/demo/json"'
    assert address in page(site, "demo/index.html").source
    (site.root / "site.toml").write_text("check_public_index = false\n")
    build(site)
    assert "connect-src &#39;none&#39;" in page(site, "demo/index.html").source
    assert "index.example" not in page(site, "demo/index.html").source


# -- dependency confusion --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["free", "ours", "taken", "higher"])
def test_a_warning_takes_the_place_of_the_commands(site: SiteFolder, kind: str) -> None:
    host(site, *make_wheel("demo", "1.0"))
    verdict = Verdict(kind=kind, public_version="9.0", our_version="1.0", checked_at=NOON)
    build(site, verdicts={"demo": verdict})
    is_danger = kind in ("taken", "higher")
    for path in ("demo/index.html", "demo/1.0/index.html"):
        shown = page(site, path)
        hidden = {
            attributes["id"]: "hidden" in attributes
            for _, attributes in shown.tags
            if attributes.get("id") in ("danger", "ways")
        }
        assert hidden == {"danger": not is_danger, "ways": is_danger}
        assert ("9.0" in shown.text and "2 Jan 2026" in shown.text) or not is_danger
    marked = "in-danger" in page(site, "index.html").source
    assert marked is is_danger


def test_no_page_recommends_an_extra_index(site: SiteFolder) -> None:
    host(site, *make_wheel("demo", "1.0"))
    build(site)
    for path in (site.root / "_site").rglob("*.html"):
        assert "--extra-index-url" not in path.read_text()


def test_verdicts_are_read(site: SiteFolder) -> None:
    host(site, *make_wheel("demo", "1.0"))
    verdict = {
        "kind": "taken",
        "public_version": "0.1",
        "our_version": "1.0",
        "checked_at": "2026-01-02T12:00:00Z",
    }
    index = "https://index.example/simple/"
    told = {"format": 1, "public_index": index, "verdicts": {"demo": verdict}}
    (site.root / FILE).write_text(json.dumps(told))
    commands.build(folder=str(site.root))  # with the index that all tools know
    assert "in-danger" not in page(site, "index.html").source
    commands.build(folder=str(site.root), public_index=index)
    assert "in-danger" in page(site, "index.html").source


# -- what is kept between builds -------------------------------------------------------------------


def stamps(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in written(folder)}


def age(folder: Path) -> None:
    """Make all files old, so that it is seen which are written, and tell the build so."""
    state = folder / building.STATE
    values = json.loads(state.read_text())
    for name in written(folder):
        os.utime(folder / name, ns=(1, 1))
    for project in values.values():
        for kind, root in (("inputs", folder.parent), ("outputs", folder)):
            for path in project[kind]:
                if (root / path).exists():
                    found = (root / path).stat()
                    project[kind][path] = f"{found.st_size}-{found.st_mtime_ns}"
    state.write_text(json.dumps(values, separators=(",", ":")))
    os.utime(state, ns=(1, 1))


def test_only_what_has_changed_is_written(site: SiteFolder) -> None:
    for name in ("demo", "other"):
        host(site, *make_wheel(name, "1.0", extra_metadata=ABOUT, description="# Hello"))
    output = site.root / "_site"
    assert build(site).made == 2
    age(output)
    assert build(site).made == 0
    assert set(stamps(output).values()) == {1}
    host(site, *make_wheel("demo", "2.0"))
    assert build(site).made == 1
    changed = {name for name, stamp in stamps(output).items() if stamp != 1}
    assert changed == {
        *("demo/index.html", "demo/index.json", "demo/1.0/index.html", "demo/2.0/index.html"),
        "packages/demo/demo-2.0-py3-none-any.whl",
        "packages/demo/demo-2.0-py3-none-any.whl.metadata",
        *("index.html", "files.html", ".private_pypi-build.json", ".private_pypi-site.json"),
    }


@pytest.mark.parametrize(
    "change",
    [
        "a verdict",
        "a page is gone",
        "a page was edited",
        "the metadata",
        "a template",
        "the settings",
        "the state is gone",
    ],
)
def test_every_change_is_noticed(site: SiteFolder, change: str) -> None:
    file = host(site, *make_wheel("demo", "1.0", extra_metadata=ABOUT))
    build(site)
    shown = site.root / "_site/demo/index.html"
    verdicts = {}
    match change:
        case "a verdict":
            verdicts = {
                "demo": Verdict(
                    kind="taken", public_version="1", our_version="1.0", checked_at=NOON
                )
            }
        case "a page is gone":
            shown.unlink()
        case "a page was edited":
            shown.write_text(shown.read_text().replace("Tide", "Tied"))
        case "the metadata":
            metadata = site.core_metadata(site.names()[0], file.filename)
            new = metadata.read_bytes().replace(b"Tide", b"Time")
            site.write(metadata, new)
            project = site.project(site.names()[0])
            assert project is not None
            sha256 = hashlib.sha256(new).hexdigest()
            [version] = project.versions
            version = replace(version, files=(replace(file, core_metadata_sha256=sha256),))
            site.write_project(replace(project, versions=(version,)))
        case "a template":
            (site.root / "templates").mkdir()
            (site.root / "templates/404.html").write_text("nothing")
        case "the settings":
            (site.root / "site.toml").write_text('title = "Yard"\n')
        case "the state is gone":
            (site.root / "_site" / building.STATE).write_text("{")
    assert build(site, verdicts=verdicts).made == 1
    assert ("Time" if change == "the metadata" else "Tide") in shown.read_text()
    assert build(site, verdicts=verdicts).made == 0


def test_rendered_readmes_are_kept(site: SiteFolder) -> None:
    host(site, *make_wheel("demo", "1.0", extra_metadata=ABOUT, description="# Hello"))
    build(site)
    [rendered] = [each for each in (site.root / building.CACHE).rglob("*/*/*") if each.is_file()]
    assert rendered.read_text() == '<h3 id="user-content-hello">Hello</h3>\n'
    rendered.write_text("<h3>Kept</h3>")
    assert build(site, site.root / "elsewhere").made == 1
    assert "Kept" in (site.root / "elsewhere/demo/1.0/index.html").read_text()
    assert (site.root / building.CACHE / ".gitignore").read_text() == "*\n"


def test_readmes_of_removed_projects_are_forgotten(site: SiteFolder) -> None:
    host(site, *make_wheel("demo", "1.0", extra_metadata=ABOUT, description="# Hello"))
    build(site)
    site.delete_project(site.names()[0])
    build(site)
    assert [each for each in (site.root / building.CACHE).rglob("*/*/*") if each.is_file()] == []


def test_what_is_gone_is_removed_and_nothing_else(site: SiteFolder) -> None:
    host(site, *make_wheel("demo", "1.0"))
    host(site, *make_wheel("other", "1.0"))
    output = site.root / "_site"
    build(site)
    (output / "CNAME").write_text("code.example")
    (output / "demo/notes.txt").write_text("mine")
    site.delete_project(site.names()[0])
    built = build(site)
    assert built.removed == 5
    left = {name for name in written(output) if "demo" in name}
    assert left == {"demo/notes.txt"}
    assert (output / "CNAME").exists()
    assert (site.packages / "demo").exists()


def test_what_others_wrote_is_not_replaced(site: SiteFolder) -> None:
    host(site, *make_wheel("demo", "1.0"))
    output = site.root / "_site"
    output.mkdir()
    (output / "index.html").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"contains 'index\.html', which this command"):
        build(site)
    assert list(written(output)) == ["index.html"]


@pytest.mark.parametrize("place", [".", "..", "packages", "packages/demo", "projects"])
def test_the_site_itself_is_no_place_for_pages(site: SiteFolder, place: str) -> None:
    host(site, *make_wheel("demo", "1.0"))
    before = set(written(site.root))
    with pytest.raises(ConfigurationError, match="choose an empty folder"):
        build(site, site.root / place)
    assert set(written(site.root)) == before


# -- what is wrong ---------------------------------------------------------------------------------


def test_a_file_with_another_hash_is_an_error(site: SiteFolder) -> None:
    file = host(site, *make_wheel("demo", "1.0"))
    path = site.hosted(site.names()[0], file.filename)
    path.write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ConfigurationError) as raised:
        build(site)
    assert str(raised.value) == (
        f"packages/demo/{file.filename} has the SHA-256 {found}, but projects/demo.toml says "
        f"{file.sha256}; restore the file, or register its version anew"
    )


@pytest.mark.parametrize("suffix", ["", ".metadata"])
def test_a_missing_file_is_an_error(site: SiteFolder, suffix: str) -> None:
    file = host(site, *make_wheel("demo", "1.0"))
    (site.packages / "demo" / f"{file.filename}{suffix}").unlink()
    with pytest.raises(ConfigurationError, match=rf"whl{suffix} is missing; projects/demo\.toml"):
        build(site)


def test_symbolic_links_lead_nowhere(site: SiteFolder, tmp_path: Path) -> None:
    file = host(site, *make_wheel("demo", "1.0"))
    path = site.packages / "demo" / file.filename
    path.rename(tmp_path / "secret")
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigurationError, match="must be a regular file"):
        build(site)
    path.unlink()
    (tmp_path / "secret").rename(path)
    (site.packages / "demo").rename(tmp_path / "folder")
    (site.packages / "demo").symlink_to(tmp_path / "folder")
    with pytest.raises(ConfigurationError, match="must not be a symbolic link"):
        build(site)


def test_a_project_without_versions_has_no_pages(site: SiteFolder) -> None:
    """Only the names of its deleted files are left."""
    host(site, *make_wheel("other", "1.0"))
    path = site.root / "projects/demo.toml"
    path.write_text('name = "demo"\nburnt = ["demo-1.0.tar.gz"]\n')
    for _ in range(2):
        assert build(site).projects == 1
        assert not (site.root / "_site/demo").exists()
        assert "demo" not in (site.root / "_site/index.html").read_text()


# -- templates of the site -------------------------------------------------------------------------


def test_templates_are_replaced_by_those_of_the_site(site: SiteFolder) -> None:
    own = site.root / "templates"
    (own / "static").mkdir(parents=True)
    (own / "404.html").write_text(
        '{% extends "base.html" %}{% block content %}<p>Lost in {{ site.title }}</p>{% endblock %}'
    )
    (own / "static/site.css").write_text("p { color: red }")
    build(site)
    assert "Lost in Harbour" in page(site, "404.html").text
    [style] = (site.root / "_site/static").glob("site.*.css")
    assert style.read_text() == "p { color: red }"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% if %}", "Expected an expression"),
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{{ site.__class__.__mro__ }}", "unsafe"),
        ("{{ ''.__class__.__base__.__subclasses__() }}", "unsafe"),
        ("{% include '../site.toml' %}", "site.toml"),
    ],
)
def test_wrong_templates_are_named(site: SiteFolder, template: str, said: str) -> None:
    (site.root / "templates").mkdir()
    (site.root / "templates/404.html").write_text(template)
    with pytest.raises(ConfigurationError, match=r"'404\.html' cannot be made") as raised:
        build(site)
    assert said in str(raised.value)


# -- the commands ----------------------------------------------------------------------------------


def test_the_command_says_what_it_did(site: SiteFolder, capsys: pytest.CaptureFixture[str]) -> None:
    host(site, *make_wheel("demo", "1.0"))
    assert main(["static_site.build", "--folder", str(site.root)], {}) == 0
    assert capsys.readouterr().out == "projects: 1, of which 1 new or changed; files: 1\n"
    assert main(["static_site.build", "--folder", str(site.root / "none")], {}) == 1
    assert "is no site, because it has no site.toml" in capsys.readouterr().err
    assert main(["static_site.build", "--folder="], {}) == 2


@pytest.fixture
def local(site: SiteFolder) -> Iterator[str]:
    """The address of a site that is served to look at it."""
    host(site, *make_wheel("demo", "1.0"))
    build(site)
    server = commands.make_server(site.root / "_site", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_served_site_has_the_right_types(local: str) -> None:
    types = {
        path: requests.get(local + path, timeout=30).headers["Content-Type"]
        for path in (
            *("/", "/demo/", "/demo/index.json", "/nothing"),
            "/packages/demo/demo-1.0-py3-none-any.whl",
            "/packages/demo/demo-1.0-py3-none-any.whl.metadata",
        )
    }
    assert types == {
        "/": "text/html; charset=utf-8",
        "/demo/": "text/html; charset=utf-8",
        "/demo/index.json": "application/vnd.pypi.simple.v1+json",
        "/nothing": "text/html; charset=utf-8",
        "/packages/demo/demo-1.0-py3-none-any.whl": "application/octet-stream",
        "/packages/demo/demo-1.0-py3-none-any.whl.metadata": "application/octet-stream",
    }


@pytest.mark.parametrize("path", ["/nothing", "/packages/", "/../site.toml", "/%2e%2e/site.toml"])
def test_what_is_not_there_is_not_found(local: str, path: str) -> None:
    answer = requests.get(local + path, timeout=30)
    assert answer.status_code == 404
    assert "There is no page or file at this address" in answer.text
