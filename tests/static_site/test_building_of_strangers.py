"""Builds of a site to which a stranger has added something, by a pull request or beside it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from private_pypi.errors import BackendUnavailable, ConfigurationError
from private_pypi.testing.distributions import make_wheel
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making import building

from .built_sites import build, host, make_site
from .sites import git

pytestmark = pytest.mark.needs("git")

README = [("Description-Content-Type", "text/markdown")]


@pytest.fixture
def site(tmp_path: Path) -> SiteFolder:
    site = make_site(tmp_path)
    host(site, *make_wheel(extra_metadata=README, description="# Demo\n"))
    return site


@pytest.mark.parametrize("path", ["", "base.html", "static", "static/own.css"])
def test_no_template_is_read_through_a_link(site: SiteFolder, tmp_path: Path, path: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "own.css").write_text("secret")
    link = site.root / "templates" / path
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere / "own.css" if "." in path else elsewhere)
    with pytest.raises(ConfigurationError, match="must not be a symbolic link"):
        build(site)


@pytest.mark.parametrize("name", [".own.css", "own style.css", "-own.css", "öwn.css"])
def test_an_asset_that_the_next_build_would_not_know_is_refused(
    site: SiteFolder, name: str
) -> None:
    folder = site.root / "templates/static"
    folder.mkdir(parents=True)
    (folder / name).write_text("p {}")
    with pytest.raises(ConfigurationError, match=re.escape(repr(str(folder / name)))):
        build(site)
    (folder / name).rename(folder / "own.css")
    (folder / ".DS_Store").write_text("")
    build(site)
    assert build(site).made == 0


@pytest.mark.parametrize(
    "text",
    [
        "{{ 1 / 0 }}",
        "{{ 'a'.encode('none') }}",
        "{{ 1.0 * 10 ** 400 }}",
        "{{ range(10 ** 7) }}",
        "{% macro more() %}{{ more() }}{% endmacro %}{{ more() }}",
        "{% extends 'start.html' %}",
    ],
)
def test_a_template_that_fails_is_named(site: SiteFolder, text: str) -> None:
    folder = site.root / "templates"
    folder.mkdir()
    (folder / "start.html").write_text(text)
    with pytest.raises(ConfigurationError, match=r"the page 'start\.html' cannot be made"):
        build(site)


@pytest.mark.parametrize("path", ["_site", "_site/inner"])
def test_pages_are_not_written_through_a_link_in_the_site(
    site: SiteFolder, tmp_path: Path, path: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (site.root / "_site").symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match="is a symbolic link"):
        building.build_site(
            site, site.root / path, public_index="https://index.example/simple/", verdicts={}
        )
    assert list(elsewhere.iterdir()) == []


def test_readmes_that_somebody_has_committed_are_not_shown(site: SiteFolder) -> None:
    build(site)
    [kept] = [each for each in (site.root / building.CACHE).rglob("*/*/*") if each.is_file()]
    kept.write_text("<b>not sanitised</b>")
    git(site.root, "init", "--quiet")
    ((site.root / "_site") / building.STATE).unlink()
    build(site)  # a cache that git does not have is one's own
    git(site.root, "add", "--force", building.CACHE)
    with pytest.raises(ConfigurationError, match=r"git rm -r \.private_pypi-cache"):
        build(site)


def test_readmes_of_which_git_cannot_tell_are_rendered_again(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(site)
    [kept] = [each for each in (site.root / building.CACHE).rglob("*/*/*") if each.is_file()]
    kept.write_text("<b>not sanitised</b>")
    (site.root / ".git").write_text("gitdir: nowhere\n")
    ((site.root / "_site") / building.STATE).unlink()
    build(site)
    assert "sanitised" not in ((site.root / "_site") / "demo/1.0/index.html").read_text()


@pytest.mark.parametrize("outputs", [{}, {"demo/index.html": None}])
def test_what_somebody_says_about_pages_that_are_not_there_is_not_believed(
    site: SiteFolder, outputs: dict[str, None]
) -> None:
    build(site)
    path = (site.root / "_site") / building.STATE
    state = json.loads(path.read_bytes())
    state["demo"] |= {"inputs": {}, "outputs": outputs, "anchors": ["<b>anchor</b>"]}
    for each in sorted((site.root / "_site").rglob("*"), reverse=True):
        each.rmdir() if each.is_dir() else each.unlink()
    path.write_text(json.dumps(state))
    ((site.root / "_site") / ".private_pypi-site.json").write_text(
        json.dumps({"paths": [path.name]})
    )
    build(site)
    assert "<b>" not in ((site.root / "_site") / "files.html").read_text()
    assert ((site.root / "_site") / "demo/index.html").exists()


def test_two_builds_do_not_write_at_once(site: SiteFolder) -> None:
    build(site)
    before = {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (site.root / "_site").rglob("*")
        if path.is_file()
    }
    descriptor = os.open((site.root / "_site"), os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as the other one
    try:
        with pytest.raises(BackendUnavailable, match="another command is writing into"):
            build(site)
    finally:
        os.close(descriptor)
    assert build(site).made == 0
    assert {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in before} == before


def test_pages_stay_if_the_site_has_lost_its_projects(site: SiteFolder) -> None:
    build(site)
    (site.root / "projects").rename(site.root / "was")
    with pytest.raises(ConfigurationError, match="projects' is missing, but"):
        build(site)
    assert (site.root / "_site/demo/index.html").exists()
