"""Writes checkouts in the forms of github-hosted-pypi and MIT-Kavli-PyPi, with their mistakes.

The pages have the elements, ids and classes of theirs, and come about in the same way: by replacing
placeholders in a template one after the other, by cloning the last version, and by writing the
whole page again with BeautifulSoup.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

from bs4 import BeautifulSoup, Tag

from private_pypi.distributions.filenames import normalize
from private_pypi.testing.distributions import make_sdist, make_wheel

GITHUB_URL = "https://acme.github.io/packages/"
MIT_URL = "https://institute.github.io/Institute-PyPI/"

_HOME = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/>
<link href="static/index_styles.css" rel="stylesheet"/>
<script src="static/pypi_checker.js"></script>
<title>Packages of Acme &amp; friends</title></head>
<body><div class="container">
<section class="header"><h2 class="title">Acme</h2></section>
<p>Install with:
<pre><code>pip install &lt;package_name&gt; --extra-index-url {url}</code></pre></p>
<h6 class="text-header">Packages</h6>
</div><script>for (let a of document.links) {{ if (a < 3) mark("<a href='no/'>"); }}</script>
</body></html>
"""
_PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><title>Packages of Acme</title>
<script defer src="../static/package_page.js"></script></head>
<body><div class="container">
<section class="header"><button class="goback-button" onclick="redirectToIndex()"><svg height="5">
</svg></button>_package_name<span></span><span class="version" id="latest-version">_version</span>
<span hidden id="latest-main-version">_latest_main</span></section>
<pre hidden id="installdanger">DANGER: _package_name</pre>
<pre id="installcmd"><code>pip install _package_name --extra-index-url {url}</code></pre>
<button id="repoHomepage" onclick="{opening}('_homepage')">Homepage</button>
<p class="elem"><b>Author :</b> _author</p>
<section class="versions" id="versions">
<div id="_norm_version" onclick="load_readme('_norm_version', scroll_to_div=true)">
<a href="_link">_version</a></div></section>
<p class="readme-block" id="markdown-container"></p></div>
<script>var url = '_long_description';
if (url < "<a href='git+https://x.example/a@9'>") {{}}</script>
</body></html>
"""
_SCRIPTS = {
    ".github/actions.py": "# register, update, delete\n",
    ".github/workflows/register.yml": "run: python .github/actions.py\n",
    ".github/workflows/static.yml": "uses: actions/deploy-pages@v4\n",
    ".github/workflows/ours.yml": "run: make\n",
    "static/index_styles.css": "body {}\n",
    "static/package_styles.css": "body {}\n",
    "static/pypi_checker.js": "check();\n",
    "static/package_page.js": "load();\n",
    "static/logo.svg": "<svg/>\n",
    "README.md": "# Our packages\n",
}


@dataclass(frozen=True)
class OldSite:
    """A checkout, and the actions of its workflows."""

    root: Path
    url: str
    is_mit: bool

    def start(self) -> None:
        """What the repository has before anything is registered."""
        for path, text in {**_SCRIPTS, "pkg_template.html": self._template}.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text)
        self._write("index.html", _HOME.format(url=self.url))

    def register(
        self, name: str, tag: str, homepage: str, *, author: str = "Ann", link: str | None = None
    ) -> None:
        """Add a project; `link` is the filename of what was found, instead of the link to git."""
        norm, version = normalize(name), _shown(tag)
        page = self._template
        # One after the other, so a value that contains a later placeholder is mangled.
        for placeholder, value in (
            ("_package_name", name),
            ("_norm_version", tag),
            ("_version", version),
            ("_link", self._link(norm, homepage, tag, version, link)),
            ("_homepage", homepage),
            ("_author", author),
            ("_long_description", f"{homepage}/main/README.md"),
            ("_latest_main", tag),
        ):
            page = page.replace(placeholder, value)
        self._write(f"{norm}/index.html", page)
        home = BeautifulSoup((self.root / "index.html").read_text(), "html.parser")
        card = f"""<a class="card" href="{norm}/">{name}<span></span>
            <span class="version">{version}</span><br/>
            <span class="description">What {norm} &lt;does&gt;.</span></a>"""
        heading = home.find("h6")
        assert isinstance(heading, Tag)
        heading.insert_after(BeautifulSoup(card, "html.parser"))
        self._write("index.html", str(home))

    def update(self, name: str, tag: str, *, link: str | None = None, broken: bool = False) -> None:
        """Add a version; `broken`: after the template changed, so that slicing went wrong."""
        norm, version = normalize(name), _shown(tag)
        page = BeautifulSoup((self.root / norm / "index.html").read_text(), "html.parser")
        button = page.find(id="repoHomepage")
        section = page.find("section", class_="versions")
        assert isinstance(button, Tag) and isinstance(section, Tag)
        onclick = str(button["onclick"])
        homepage = onclick[len("openLinkInNewTa") : -1] if broken else onclick.split("'")[1]
        entry = copy.copy(section.find_all("div")[-1])
        entry["id"] = tag
        entry["onclick"] = f"load_readme('{tag}', scroll_to_div=true);"
        entry["class"] = "prerelease" if {"a", "b"} & set(tag) or "dev" in tag else ""
        anchor = entry.find("a")
        assert isinstance(anchor, Tag)
        anchor.string = version
        anchor["href"] = self._link(norm, homepage, tag, version, link)
        if link is not None:
            anchor["title"] = link
        section.append(entry)
        home = BeautifulSoup((self.root / "index.html").read_text(), "html.parser")
        card = home.find("a", href=f"{norm}/")
        assert isinstance(card, Tag)
        if entry["class"] == "":  # without a look at which version is higher
            for found, text in (
                (page.find(id="latest-version"), tag),
                (page.find(id="latest-main-version"), tag),
                (card.find("span", class_="version"), version),
            ):
                assert isinstance(found, Tag)
                found.string = text
        self._write(f"{norm}/index.html", str(page))
        self._write("index.html", str(home))

    def store(self, folder: str, name: str, version: str, *, sdist: bool = True) -> None:
        """Put a wheel, and an sdist, into a folder of packages/, linked or not."""
        target = self.root / "packages" / folder
        target.mkdir(parents=True, exist_ok=True)
        wheel = make_wheel(name, version, requires_python=">=3.9", description="# Read me")
        for filename, content in [wheel, *([make_sdist(name, version)] if sdist else [])]:
            (target / filename).write_bytes(content)

    def replace(self, path: str, old: str, new: str) -> None:
        """Edit a page by hand."""
        text = (self.root / path).read_text()
        assert old in text
        (self.root / path).write_text(text.replace(old, new))

    @property
    def _template(self) -> str:
        return _PAGE.format(url=self.url, opening="openLinkInNewTab")

    def _link(self, norm: str, homepage: str, tag: str, version: str, link: str | None) -> str:
        if link is not None:
            return link if "/" in link else f"../packages/{norm}/{link}"
        return f"git+{homepage}@{tag}" + ("" if self.is_mit else f"#egg={norm}-{version}")

    def _write(self, path: str, html: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(BeautifulSoup(html, "html.parser").prettify())


def github_hosted_pypi(root: Path) -> OldSite:
    """A checkout of github-hosted-pypi, with links to git alone."""
    site = OldSite(root, GITHUB_URL, is_mit=False)
    site.start()
    site.register("Demo.Project", "0.1", "https://github.com/acme/demo")
    site.update("Demo.Project", "v0.2")
    site.update("Demo.Project", "0.3.dev0")
    site.update("Demo.Project", "1.2.0+CU1")
    site.register("Foo_author.Lib", "v1.0", "https://github.com/acme/foo", author="Jane")
    # Issue 84 of that project.
    site.register("broken", "0.1", "https://github.com/acme/broken")
    site.update("broken", "0.2", broken=True)
    return site


def mit_kavli_pypi(root: Path) -> OldSite:
    """A checkout of MIT-Kavli-PyPi with the versions and files of reference §4.2."""
    site = OldSite(root, MIT_URL, is_mit=True)
    site.start()
    for version in ("1.0.0", "0.16.8", "2.0.0", "2.3.0", "3.0.0b1", "3.0.0b3", "3.0.0b4"):
        site.store("lightcurvedb", "lightcurvedb", version)

    def wheel(version: str) -> str:
        return f"lightcurvedb-{version}-py3-none-any.whl"

    home = "https://github.com/institute/lightcurvedb"
    site.register("lightcurvedb", "v1.0.0", home, author="Will", link=wheel("1.0.0"))
    for tag, version in (
        ("v0.1.16.0", "0.16.8"),
        ("v2.0.0", "2.0.0"),
        ("v2.1.0", "2.0.0"),
        ("v2.2.0", "2.0.0"),
        ("v2.3.0", "2.3.0"),
        ("v3.0.0-beta.1", "3.0.0b1"),
        ("v3.0.0-beta.3", "3.0.0b3"),
        ("v3.0.0-beta.4", "3.0.0b4"),
    ):
        site.update("lightcurvedb", tag, link=wheel(version))
    site.store("kavli-configurables", "configurables", "1.0.0")
    site.store("kavli-configurables", "kavli-configurables", "1.1.0")
    home = "https://github.com/institute/configurables"
    first = "configurables-1.0.0-py3-none-any.whl"
    site.register("kavli-configurables", "1.0.0", home, link=first)
    site.update("kavli-configurables", "1.1.0", link=f"kavli_{first.replace('1.0', '1.1')}")
    site.store("pyticdb", "pyticdb", "2.0.3")
    home = "https://github.com/institute/pyticdb"
    site.register("pyticdb", "1.0.0", home, link="pyticdb-2.0.3-py3-none-any.whl")
    # Nothing could be downloaded or built; installers never saw this version.
    site.register("fallback", "v0.5", "https://github.com/institute/fallback")
    return site


def _shown(tag: str) -> str:
    return tag.lower().removeprefix("v")
