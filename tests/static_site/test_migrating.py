"""Checkouts of github-hosted-pypi and MIT-Kavli-PyPi become sites, and nothing is lost silently."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from private_pypi import cli
from private_pypi.errors import ConfigurationError
from private_pypi.testing.distributions import make_wheel
from private_pypi_static_site.folder import SiteFolder, SiteSettings
from private_pypi_static_site.making.migrating import read_old_site
from private_pypi_static_site.making.old_pages import read_page
from private_pypi_static_site.project_file import Project, SiteVersion, by_filename
from tests.github.commands import Ran
from tests.github.conftest import github
from tests.machine import need
from tests.pages.test_static_site import served
from tests.static_site.seeds import (
    GITHUB_URL,
    MIT_URL,
    OldSite,
    github_hosted_pypi,
    mit_kavli_pypi,
)
from tests.static_site.sources import Sources, sources

from ..clients.environments import Client, install_client

__all__ = ["github", "sources"]

Migrate = Callable[..., Ran]


@pytest.fixture
def migrate(capsys: pytest.CaptureFixture[str]) -> Migrate:
    def run(source: Path, *flags: str, **environ: str) -> Ran:
        code = cli.main(["static_site.migrate", str(source), *flags], environ)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def links(tmp_path: Path) -> OldSite:
    return github_hosted_pypi(tmp_path / "old")


@pytest.fixture
def files(tmp_path: Path) -> OldSite:
    return mit_kavli_pypi(tmp_path / "old")


def contents(folder: Path) -> Mapping[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and ".git" not in path.parts
    }


def project(folder: Path, name: str) -> Project:
    return next(each for each in SiteFolder(folder).projects() if each.normalized == name)


def section(out: str, title: str) -> list[str]:
    """The lines of one section of the report."""
    found = re.search(rf"(?m)^{re.escape(title)}.*:\n((?:  .*\n)*)", out)
    return [line.strip() for line in found[1].splitlines()] if found else []


# -- github-hosted-pypi ------------------------------------------------------------------------


def test_links_become_repositories_and_tags(links: OldSite, migrate: Migrate) -> None:
    ran = migrate(links.root)
    assert (ran.code, ran.err) == (0, "")
    git = "https://github.com/acme/demo"
    assert project(links.root, "demo-project") == Project(
        name="Demo.Project",
        homepage=git,
        author="Ann",
        summary="What demo-project <does>.",
        versions=(
            SiteVersion(version="0.1", tag="0.1", git=git),
            SiteVersion(version="0.2", tag="v0.2", git=git),
            SiteVersion(version="0.3.dev0", tag="0.3.dev0", git=git),
            SiteVersion(version="1.2.0+cu1", tag="1.2.0+CU1", git=git),
        ),
    )
    settings = SiteSettings(title="Packages of Acme & friends", url=GITHUB_URL)
    assert SiteFolder(links.root).settings() == settings
    assert ran.out.startswith("github-hosted-pypi in ")


def test_a_name_that_registering_mangled_is_that_of_the_home_page(
    links: OldSite, migrate: Migrate
) -> None:
    ran = migrate(links.root)
    assert project(links.root, "foo-author-lib").name == "Foo_author.Lib"
    assert "foo-author-lib: the page called it 'FooJane.Lib', which is another name" in ran.out


def test_a_broken_link_is_mended_with_the_homepage(links: OldSite, migrate: Migrate) -> None:
    page = (links.root / "broken" / "index.html").read_text()
    assert "git+b('https://github.com/acme/broken'@0.2" in page
    ran = migrate(links.root)
    git = "https://github.com/acme/broken"
    assert project(links.root, "broken").versions == (
        SiteVersion(version="0.1", tag="0.1", git=git),
        SiteVersion(version="0.2", tag="0.2", git=git),
    )
    assert any(
        "'0.2'" in line and "broken link" in line and "git+b(" in line
        for line in section(ran.out, "the pages disagree")
    )


def test_a_broken_link_without_a_homepage_is_left_out(links: OldSite, migrate: Migrate) -> None:
    links.replace("broken/index.html", "openLinkInNewTab('https://", "open('git@")
    ran = migrate(links.root, "--remove_old")
    assert ran.code == 1
    [line] = section(ran.out, "left out")
    assert line.startswith("broken: '0.2'") and "it needs `git`" in line and "`tag`" in line
    assert [each.version for each in project(links.root, "broken").versions] == ["0.1"]
    # What is left out is known from this page alone.
    assert (links.root / "broken" / "index.html").exists()
    assert not (links.root / "demo-project").exists()


@pytest.mark.parametrize(
    ("href", "code", "says"),
    [
        ("git+https://u:hunter2@github.com/acme/demo@0.1#egg=demo-project-0.1", 0, "revoke"),
        ("git+https://github.com/acme/demo@0.1#egg=demo-project-0.4", 0, "is one of 0.4"),
        ("git+https://github.com/acme/demo@0.1#egg=other-0.1", 0, "link for another project"),
        ("git+https://github.com/acme/demo#egg=demo-project-0.1", 0, "broken link"),
        ("git+https://github.com/acme/demo@--upload-pack=x#egg=demo-project-0.1", 0, "broken link"),
        ("git+ssh://git@github.com/acme/demo@0.1#egg=demo-project-0.1", 0, "broken link"),
        ("git+https://[::1@0.1#egg=demo-project-0.1", 0, "broken link"),
        ("git+https://github.com/acme/demo@0.1#egg=demo-project-0.1&subdirectory=a", 1, "subdir"),
        ("https://x.example/demo_project-0.1-py3-none-any.whl", 1, "size and hash"),
        ("https://u:hunter2@x.example/demo_project-0.1-py3-none-any.whl", 1, "size and hash"),
        ("../../../../etc/demo_project-0.1.tar.gz", 1, "size and hash"),
        ("../packages/%2e%2e/%2e%2e/old/demo_project-0.1.tar.gz", 1, "size and hash"),
        ("../packages/demo-project/demo_project-0.1.tar.gz", 1, "which is missing"),
        ("//x.example/demo_project-0.1.zip", 1, "size and hash"),
        ("http://[/demo_project-0.1.zip", 0, ""),
        ("javascript:alert(1)", 0, ""),
    ],
)
def test_links_by_hand(links: OldSite, migrate: Migrate, href: str, code: int, says: str) -> None:
    old = "git+https://github.com/acme/demo@0.1#egg=demo-project-0.1"
    links.replace("demo-project/index.html", old, href)
    ran = migrate(links.root)
    assert (ran.code, ran.err) == (code, "")
    assert says in ran.out
    assert "hunter2" not in ran.out
    assert not any(b"hunter2" in text for text in map(Path.read_bytes, toml_files(links.root)))
    for version in project(links.root, "demo-project").versions:
        assert version.git == "https://github.com/acme/demo"
    assert "0.2 (git, tag v0.2)" in ran.out  # the others are not affected


def toml_files(folder: Path) -> list[Path]:
    return sorted((folder / "projects").iterdir())


def test_a_tag_that_is_no_version(links: OldSite, migrate: Migrate) -> None:
    links.update("broken", "release-3.0")
    links.update("broken", "stable")
    ran = migrate(links.root)
    assert ran.code == 1
    versions = project(links.root, "broken").versions
    assert [(each.version, each.tag) for each in versions][-1] == ("3.0", "release-3.0")
    [line] = section(ran.out, "left out")
    assert line.startswith("broken: 'stable'") and "it needs `version`" in line


def test_of_two_links_for_a_version_the_last_is_taken(links: OldSite, migrate: Migrate) -> None:
    links.update("Demo.Project", "v0.2")  # the same again is no trouble
    assert migrate(links.root, "--dry_run").code == 0
    links.update("Demo.Project", "0.2")
    ran = migrate(links.root)
    assert ran.code == 1
    found = project(links.root, "demo-project").find("0.2")
    assert found is not None and found.tag == "0.2"
    assert "0.2 is listed twice" in section(ran.out, "left out")[0]


def test_older_pages_with_onclick_at_the_links(links: OldSite, migrate: Migrate) -> None:
    page = links.root / "broken" / "index.html"
    text = (
        page.read_text().replace("openLinkInNewTab('", "location.href='").replace("')\">", "'\">")
    )
    text = re.sub(r'(<div[^>]*?id="[^"]*") (onclick="load[^"]*")>(\s*<a) ', r"\1>\3 \2 ", text)
    text = re.sub(r'(<div[^>]*id=")[^"]+', r"\1other", text)
    page.write_text(text)
    assert migrate(links.root).code == 0
    found = project(links.root, "broken")
    assert found.homepage == "https://github.com/acme/broken"
    assert [each.tag for each in found.versions] == ["0.1", "0.2"]


def test_pages_and_cards_without_each_other(links: OldSite, migrate: Migrate) -> None:
    links.replace("index.html", 'href="broken/"', 'href="gone/"')
    (links.root / "Upper").mkdir()
    shutil.copy(links.root / "broken" / "index.html", links.root / "Upper")
    ran = migrate(links.root)
    assert ran.code == 1
    assert section(ran.out, "left out")[0].startswith("'Upper': installers ask for")
    assert section(ran.out, "left out")[1:] == ["gone: the home page lists it, but it has no page"]
    assert "broken: the home page did not list it; now it does" in ran.out
    assert SiteFolder(links.root).names() == ["broken", "demo-project", "foo-author-lib"]


# -- MIT-Kavli-PyPi ----------------------------------------------------------------------------

REAL = {
    "fallback": [],
    "kavli-configurables": ["1.1.0"],
    "lightcurvedb": ["0.16.8", "1.0.0", "2.0.0", "2.3.0", "3.0.0b1", "3.0.0b3", "3.0.0b4"],
    "pyticdb": ["2.0.3"],
}
"""The versions that pip sees, according to reference §4.2."""


def test_files_are_what_their_metadata_say(files: OldSite, migrate: Migrate) -> None:
    before = contents(files.root)
    ran = migrate(files.root)
    hosted = {
        each.normalized: [version.version for version in each.versions if version.files]
        for each in SiteFolder(files.root).projects()
    }
    assert hosted == REAL
    assert section(ran.out, "the pages disagree")[:5] == [
        "kavli-configurables: '1.0.0', which the page lists, is at "
        "'packages/kavli-configurables/configurables-1.0.0-py3-none-any.whl', which is left out",
        *(
            f"lightcurvedb: the page said '{said}', but lightcurvedb-{real}-py3-none-any.whl is "
            f"lightcurvedb {real}"
            for said, real in (("0.1.16.0", "0.16.8"), ("2.1.0", "2.0.0"), ("2.2.0", "2.0.0"))
        ),
        "pyticdb: the page said '1.0.0', but pyticdb-2.0.3-py3-none-any.whl is pyticdb 2.0.3",
    ]
    assert {key: contents(files.root)[key] for key in before} == before
    assert SiteFolder(files.root).settings().url == MIT_URL
    assert ran.out.startswith("MIT-Kavli-PyPi in ")


def test_every_stored_file_is_taken_with_its_facts(files: OldSite, migrate: Migrate) -> None:
    migrate(files.root)
    site = SiteFolder(files.root)
    taken = {}
    for each in site.projects():
        for filename, file in by_filename(each).items():
            content = site.hosted(each.normalized, filename).read_bytes()
            metadata = site.core_metadata(each.normalized, filename).read_bytes()
            assert file.sha256 == hashlib.sha256(content).hexdigest()
            assert file.size == len(content)
            assert file.core_metadata_sha256 == hashlib.sha256(metadata).hexdigest()
            assert file.requires_python == (">=3.9" if filename.endswith(".whl") else None)
            assert file.uploaded_at is None  # nobody knows
            taken[f"packages/{each.normalized}/{filename}"] = content
    stored = {
        path: content
        for path, content in contents(files.root).items()
        if path.startswith("packages/") and not path.endswith(".metadata")
    }
    stranger = "packages/kavli-configurables/configurables-1.0.0"
    left_out = {f"{stranger}.tar.gz", f"{stranger}-py3-none-any.whl"}
    assert taken == {path: stored[path] for path in stored.keys() - left_out}
    assert left_out < stored.keys()


def test_versions_keep_the_tags_that_their_files_were_listed_with(
    files: OldSite, migrate: Migrate
) -> None:
    migrate(files.root)
    tags = {each.version: each.tag for each in project(files.root, "lightcurvedb").versions}
    assert (tags["2.0.0"], tags["0.16.8"]) == ("v2.0.0", "v0.1.16.0")
    git = "https://github.com/institute/fallback"
    assert project(files.root, "fallback").versions == (
        SiteVersion(version="0.5", tag="v0.5", git=git),
    )


def test_files_of_another_project_are_left_out(files: OldSite, migrate: Migrate) -> None:
    ran = migrate(files.root)
    assert ran.code == 1
    for line, suffix in zip(
        section(ran.out, "left out"), ("-py3-none-any.whl", ".tar.gz"), strict=True
    ):
        assert f"configurables-1.0.0{suffix} is a file of configurables 1.0.0" in line
    assert "configurables" not in SiteFolder(files.root).names()


def test_a_project_with_the_same_homepage_gets_its_files(files: OldSite, migrate: Migrate) -> None:
    home = "https://github.com/Institute/configurables.git"
    files.store("configurables", "configurables", "2.0")
    files.register("configurables", "2.0", home, link="configurables-2.0-py3-none-any.whl")
    ran = migrate(files.root)
    assert ran.code == 0
    versions = project(files.root, "configurables").versions
    assert [(each.version, len(each.files)) for each in versions] == [("1.0.0", 2), ("2.0", 2)]
    name = "configurables-1.0.0.tar.gz"
    packages = files.root / "packages"
    copied, stored = packages / "configurables" / name, packages / "kavli-configurables" / name
    assert copied.read_bytes() == stored.read_bytes()


def test_a_project_with_another_homepage_does_not(files: OldSite, migrate: Migrate) -> None:
    files.store("configurables", "configurables", "2.0")
    home = "https://github.com/somebody/configurables"
    files.register("configurables", "2.0", home, link="configurables-2.0-py3-none-any.whl")
    assert migrate(files.root).code == 1
    assert [each.version for each in project(files.root, "configurables").versions] == ["2.0"]


def test_a_damaged_file_is_left_out(files: OldSite, migrate: Migrate) -> None:
    folder = files.root / "packages" / "pyticdb"
    (folder / "pyticdb-3.0-py3-none-any.whl").write_bytes(b"PK")
    (folder / "pyticdb-4.0-py3-none-any.whl").write_bytes(make_wheel("pyticdb", "4.1")[1])
    (folder / "notes.txt").write_text("later")
    (folder / ".gitkeep").write_text("")
    ran = migrate(files.root)
    assert ran.code == 1
    lines = [line for line in section(ran.out, "left out") if line.startswith("pyticdb: ")]
    assert [line.split()[1].strip("':") for line in lines] == [
        "packages/pyticdb/notes.txt",
        "pyticdb-3.0-py3-none-any.whl",
        "pyticdb-4.0-py3-none-any.whl",
    ]
    assert [each.version for each in project(files.root, "pyticdb").versions] == ["2.0.3"]


@pytest.mark.needs("pip")
def test_pip_sees_the_same_versions_before_and_after(
    files: OldSite, migrate: Migrate, tmp_path: Path
) -> None:
    client = Client("pip", install_client("pip"), tmp_path)

    def seen() -> Mapping[str, list[str]]:
        with served(files.root) as address:
            found = {}
            for name in REAL:
                flags = ("--pre", "--disable-pip-version-check", f"--index-url={address}/")
                ran = client.run("index", "versions", name, *flags)
                listed = re.search("Available versions: (.*)", ran.output)
                assert listed or "No matching distribution" in ran.output, ran.output
                found[name] = listed[1].split(", ")[::-1] if listed else []
            return found

    assert seen() == REAL
    migrate(files.root, "--remove_old")
    for each in SiteFolder(files.root).projects():
        page = "".join(
            f'<a href="../packages/{each.normalized}/{name}">{name}</a>'
            for name in by_filename(each)
        )
        (files.root / each.normalized).mkdir(exist_ok=True)
        (files.root / each.normalized / "index.html").write_text(page)
    assert seen() == REAL


# -- times and READMEs -------------------------------------------------------------------------


def commit(folder: Path, at: str) -> None:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@x.invalid"}
    who |= {key.replace("AUTHOR", "COMMITTER"): value for key, value in who.items()}
    env = {**who, "GIT_COMMITTER_DATE": at, "GIT_CONFIG_GLOBAL": "/dev/null"}
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message=x")):
        subprocess.run([need("git"), *words], cwd=folder, env=env, check=True)


@pytest.mark.needs("git")
def test_upload_times_are_those_of_the_commits(
    files: OldSite, migrate: Migrate, tmp_path: Path
) -> None:
    commit(files.root, "2025-07-25T10:00:00+02:00")
    files.store("pyticdb", "pyticdb", "3.0", sdist=False)
    commit(files.root, "2025-08-01T00:00:00Z")
    files.store("pyticdb", "pyticdb", "4.0", sdist=False)
    clone = tmp_path / "clone"
    subprocess.run(
        [need("git"), "clone", "--quiet", "--depth=1", f"file://{files.root}", clone], check=True
    )
    migrate(files.root, PATH="/usr/bin:/bin")
    times = {
        version.version: file.uploaded_at
        for version in project(files.root, "pyticdb").versions
        for file in version.files
    }
    assert times == {
        "2.0.3": datetime(2025, 7, 25, 8, tzinfo=UTC),
        "3.0": datetime(2025, 8, 1, tzinfo=UTC),
        "4.0": None,
    }
    ran = migrate(clone, PATH="/usr/bin:/bin")
    assert "git fetch --unshallow" in ran.out
    assert {file.uploaded_at for file in by_filename(project(clone, "pyticdb")).values()} == {None}


@pytest.mark.needs("git")
def test_git_runs_nothing_that_a_checkout_names(
    files: OldSite, migrate: Migrate, tmp_path: Path
) -> None:
    commit(files.root, "2025-07-25T10:00:00Z")
    trap = tmp_path / "trap"
    (tmp_path / "run").write_text(f"#!/bin/sh\ntouch {trap}\n")
    (tmp_path / "run").chmod(0o755)
    run = tmp_path / "run"
    (files.root / ".git" / "config").write_text(
        f"[core]\nfsmonitor = {run}\npager = {run}\nsshCommand = {run}\n"
        f"[log]\nshowSignature = true\n[gpg]\nprogram = {run}\n[diff]\nexternal = {run}\n"
        f'[remote "origin"]\nurl = git@github.com:Institute/Py.git\npromisor = true\n'
        f"uploadpack = {run}\n[extensions]\npartialClone = origin\n"
        "[protocol]\nallow = always\n"
    )
    for blob in (files.root / ".git" / "objects").glob("[0-9a-f][0-9a-f]/*"):
        if blob.stat().st_size > 200:
            blob.unlink()
    ran = migrate(files.root, "--dry_run", PATH="/usr/bin:/bin")
    assert not trap.exists()
    assert f"taken to be {MIT_URL}, but there is also 'https://institute.github.io/Py/'" in ran.out


@pytest.mark.needs("git", "another server")
def test_readmes_of_links_are_fetched_when_asked_for(
    sources: Sources, links: OldSite, migrate: Migrate
) -> None:
    sources.tag("v0.2", {"README.md": b"# Read me"}, private=True)
    token = sources.github.make_token("rita", {"acme/demo": "read"})
    page = links.root / "demo-project" / "index.html"
    page.write_text(page.read_text().replace("https://github.com/acme/demo", sources.homepage))
    flags = (f"--api_url={sources.github.api_url}", "--readmes", "--token_env=T")
    ran = migrate(links.root, *flags, **sources.environ, T=token)
    assert ran.code == 0
    assert token not in ran.out + ran.err
    readmes = {key: value for key, value in contents(links.root).items() if "readme" in key}
    assert readmes == {"readmes/demo-project/0.2.md": b"# Read me"}
    notes = section(ran.out, "notes")
    assert any(line.startswith("demo-project: 0.1 gets no README") for line in notes)
    assert any("foo-author-lib: 1.0 gets no README" in line for line in notes)  # another host


# -- what is written, and what is not ----------------------------------------------------------


def test_a_dry_run_writes_nothing_and_says_the_same(files: OldSite, migrate: Migrate) -> None:
    before = contents(files.root)
    dry = [migrate(files.root, "--dry_run", "--remove_old") for _ in range(2)]
    assert contents(files.root) == before
    assert not (files.root / ".private_pypi-site.lock").exists()
    assert dry[0] == dry[1]
    done = migrate(files.root)
    assert dry[0].code == done.code == 1
    assert dry[0].out.replace("would write", "wrote") == done.out


def test_another_folder_gets_the_site(files: OldSite, migrate: Migrate, tmp_path: Path) -> None:
    before = contents(files.root)
    new = tmp_path / "deep" / "new"
    migrate(files.root, f"--folder={new}")
    assert contents(files.root) == before
    found = contents(new)
    stored = {path for path in before if path.startswith("packages/")}
    assert {path: found[path] for path in stored} == {path: before[path] for path in stored}
    migrate(files.root)
    assert {**before, **found} == contents(files.root)


def test_a_migration_that_was_interrupted_can_be_repeated(
    files: OldSite, migrate: Migrate, tmp_path: Path
) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    migrate(files.root, f"--folder={once}")
    shutil.copytree(once, again)
    (again / "site.toml").unlink()
    shutil.rmtree(again / "packages" / "pyticdb")
    assert migrate(files.root, f"--folder={again}").err == ""
    assert contents(again) == contents(once)


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        ("site.toml", b"", "is a site already"),
        ("packages/pyticdb/pyticdb-2.0.3.tar.gz", b"mine", "is not the file of the old site"),
    ],
)
def test_what_is_there_already_is_not_overwritten(
    files: OldSite, migrate: Migrate, tmp_path: Path, path: str, content: bytes, says: str
) -> None:
    target = tmp_path / "new" / path
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    ran = migrate(files.root, f"--folder={tmp_path / 'new'}")
    assert ran.code == 1 and says in ran.err
    assert contents(tmp_path / "new") == {path: content}


def test_only_what_belongs_to_the_old_site_is_removed(links: OldSite, migrate: Migrate) -> None:
    ran = migrate(links.root)
    before = contents(links.root)
    listed = section(ran.out, "not needed any more")
    assert before.keys() >= set(listed)
    (links.root / "site.toml").unlink()
    assert section(migrate(links.root, "--remove_old").out, "removed") == listed
    assert contents(links.root).keys() == before.keys() - set(listed)
    assert {path for path in contents(links.root) if not path.startswith("projects/")} == {
        *("site.toml", "README.md", "static/logo.svg", ".github/workflows/ours.yml")
    }


def test_wrong_arguments(links: OldSite, migrate: Migrate, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, says in (
        ((tmp_path / "empty",), "is no checkout of"),
        ((tmp_path / "none",), "is no folder"),
        ((links.root, "--folder="), "must not be empty"),
        ((links.root, f"--folder={tmp_path / 'new'}", "--remove_old"), "takes the place of SOURCE"),
        ((links.root, "--token_env=T"), "only for --readmes"),
    ):
        ran = migrate(*words)
        assert ran.code != 0 and says in ran.err, words
    assert not (tmp_path / "new").exists()


# -- hostile checkouts -------------------------------------------------------------------------


def test_links_of_the_file_system_are_not_followed(
    files: OldSite, migrate: Migrate, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(files.root / "packages" / "pyticdb", outside / "pyticdb")
    shutil.copytree(files.root / "pyticdb", outside / "page")
    wheel = make_wheel("pyticdb", "9.0")
    (outside / wheel[0]).write_bytes(wheel[1])
    (files.root / "packages" / "pyticdb" / wheel[0]).symlink_to(outside / wheel[0])
    (files.root / "packages" / "linked").symlink_to(outside / "pyticdb")
    (files.root / "linked").symlink_to(outside / "page")
    shutil.rmtree(files.root / "fallback")
    (files.root / "fallback").mkdir()
    (files.root / "fallback" / "index.html").symlink_to(outside / "page" / "index.html")
    before = contents(outside)
    ran = migrate(files.root, "--remove_old", f"--folder={files.root}")
    assert SiteFolder(files.root).names() == ["kavli-configurables", "lightcurvedb", "pyticdb"]
    assert [each.version for each in project(files.root, "pyticdb").versions] == ["2.0.3"]
    assert f"packages/pyticdb/{wheel[0]}' is no regular file" in ran.out
    assert "'packages/linked' is no folder" in ran.out
    assert "fallback: the home page lists it, but it has no page" in ran.out
    assert contents(outside) == before


@pytest.mark.parametrize("name", ["projects", "packages", "packages/pyticdb", "readmes/x"])
def test_nothing_is_written_through_a_link(
    files: OldSite, migrate: Migrate, tmp_path: Path, name: str
) -> None:
    new, outside = tmp_path / "new", tmp_path / "outside"
    outside.mkdir()
    (new / name).parent.mkdir(parents=True, exist_ok=True)
    (new / name).symlink_to(outside)
    ran = migrate(files.root, f"--folder={new}")
    assert contents(outside) == {}
    assert name == "readmes/x" or "is a symbolic link" in ran.err


@pytest.mark.parametrize(
    "part",
    [
        *("<div>", "<a href=git+x>", '<a x=">', "<a 'x>", "<a / >", "</", "<!--a", "<![", "<?"),
        *("<script>", "<script", "&", "&#", "&amp", "<title>", "<a ", '<a title="', "<"),
        *(
            "load_readme('",
            "<p class=elem>Author : ",
            "--extra-index-url ",
            "<section class=header>",
        ),
    ],
)
def test_large_pages_take_little_time(part: str) -> None:
    size = 1 << 20
    started = time.process_time()
    read_page((part * (size // len(part) + 1))[:size])
    # Here it takes a second; in time that grows with the square, hours.
    assert time.process_time() - started < 20


def test_hostile_pages(links: OldSite, migrate: Migrate) -> None:
    page = links.root / "demo-project" / "index.html"
    text = page.read_text()
    text = text.replace("Ann", "\x1b[31mAnn&#27;]0;x&lt;script&gt;&#x202e;" + "y" * 9000)
    text = text.replace("<body>", "<body>" + "<div>" * 50_000 + "<!-- <a href='git+https://no'>")
    page.write_text(text.replace('<div class="container">', '--><div class="container">', 1))
    links.replace("broken/index.html", "com/acme/broken')", "com/acme/\u202ebroken')")
    links.replace("index.html", "What demo-project", '&#0;&#27;[2J"><img src=x onerror=y>What')
    links.replace("index.html", "Packages of Acme", "&#27;[2J{{ url }} " + "A" * 9000)
    (links.root / "huge").mkdir()
    (links.root / "huge" / "index.html").write_bytes(b"<a href='git+x'>" + b" " * (5 << 20))
    (links.root / "latin").mkdir()
    (links.root / "latin" / "index.html").write_bytes(b"<a href='git+https://\xff'>\xff</a>")
    ran = migrate(links.root)
    assert ran.code == 1
    found = project(links.root, "demo-project")
    assert [each.version for each in found.versions] == ["0.1", "0.2", "0.3.dev0", "1.2.0+cu1"]
    assert found.author is not None and found.author.startswith("[31mAnn]0;x<script> yyy")
    assert found.summary == '\ufffd[2J">What <does>.'
    title = SiteFolder(links.root).settings().title
    assert title.startswith("[2J{{ url }} AAA") and len(title) == 512
    assert project(links.root, "broken").homepage is None
    assert "\x1b" not in ran.out
    assert "huge: its page is larger than 4 MiB" in ran.out
    assert any(line.startswith("latin: ") for line in section(ran.out, "left out"))


def test_what_is_advised_is_one_argument_in_a_shell(files: OldSite, migrate: Migrate) -> None:
    files.update("pyticdb", "$(touch${IFS}x)", link="pyticdb-5.0.tar.gz")
    ran = migrate(files.root)
    assert "static_site.update pyticdb '$(touch${IFS}x)'" in ran.out


def test_a_link_that_cannot_be_read_is_said(links: OldSite, migrate: Migrate) -> None:
    links.replace("broken/index.html", '<a href="git+https', '<a title="<" href="git+https')
    ran = migrate(links.root)
    assert ran.code == 1
    assert "broken: its page has a link with < inside" in ran.out


def test_any_other_website_is_no_checkout(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<a href='x/'>x</a>")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "index.html").write_text("<a href='../'>back</a>")
    (tmp_path / "packages" / "x").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="is no checkout of"):
        read_old_site(tmp_path, {})
