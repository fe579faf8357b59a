"""The command `static_site.check`: what it finds, says and answers with, on whole sites."""

from __future__ import annotations

import hashlib
import html
import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pypi_simple import PYPI_SIMPLE_ENDPOINT

from private_pypi import cli
from private_pypi.distributions.filenames import normalize
from private_pypi.pages.readme import render
from private_pypi_static_site.folder import LARGEST_HOSTED, SiteFolder
from private_pypi_static_site.making.check_report import Report, as_markdown, as_text
from private_pypi_static_site.making.public_index import (
    VERDICTS,
    Verdict,
    read_verdicts,
    write_verdicts,
)
from private_pypi_static_site.project_file import Project, SiteFile, SiteVersion

from .fake_index import FakeServer, Reply, page

LONG_AGO = datetime(2026, 1, 3, 12, 30, tzinfo=UTC)
METADATA = b"Metadata-Version: 2.4\nName: demo\nVersion: 1.0\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def with_files(name: str, version: str, *files: SiteFile) -> Project:
    return Project(name=name, versions=(SiteVersion(version=version, files=files),))


def from_git(name: str, version: str, *, ours: bool = False) -> Project:
    git = f"https://code.example/acme/{name}"
    made = SiteVersion(version=version, tag=f"v{version}", git=git)
    return Project(name=name, versions=(made,), ours_on_public=ours)


HOSTED = SiteFile(
    filename="demo-1.0-py3-none-any.whl",
    sha256=sha256(b"content"),
    size=7,
    core_metadata_sha256=sha256(METADATA),
)


@pytest.fixture
def site(tmp_path: Path) -> SiteFolder:
    """One project with a hosted file."""
    folder = SiteFolder(tmp_path / "site")
    folder.write(folder.root / "site.toml", b"")
    folder.write_project(with_files("demo", "1.0", HOSTED))
    folder.write(folder.hosted(normalize("demo"), HOSTED.filename), b"content")
    folder.write(folder.core_metadata(normalize("demo"), HOSTED.filename), METADATA)
    return folder


def check(site: SiteFolder, public: FakeServer, *flags: str) -> int:
    words = ["static_site.check", "--folder", str(site.root), "--public_index", public.url]
    return cli.main([*words, *flags])


# -- names -----------------------------------------------------------------------------------------


def test_a_free_name_is_a_note(
    site: SiteFolder, public: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(site, public) == 0
    out = capsys.readouterr().out
    assert "free: demo" in out
    assert "Anybody can register these names" in out
    assert check(site, public, "--strict") == 1


def test_the_demonstration_of_a_taken_name(
    site: SiteFolder, public: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the first seed shows one: `transformers` in the site, and a higher one for everybody."""
    site.write_project(from_git("transformers", "1.0"))
    public.has("transformers", page("transformers", "1.0", "4.30.2"))
    assert check(site, public) == 1
    out = capsys.readouterr().out
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert re.search(rf"(?m)^transformers +higher +1\.0 +4\.30\.2 +{today}$", out)
    assert (
        "transformers: the public index has 4.30.2, which is higher than 1.0 here; installers that "
        "use both choose it"
    ) in out
    for advice in ("--as NAME", "ours_on_public = true", "one index instead of an extra index"):
        assert advice in out
    assert {name: each.kind for name, each in read_verdicts(site, public.url).items()} == {
        "demo": "free",
        "transformers": "higher",
    }

    site.write_project(from_git("transformers", "5.0"))
    assert check(site, public) == 1  # taken, though nothing is higher
    assert re.search(r"(?m)^transformers +taken +5\.0 +4\.30\.2 ", capsys.readouterr().out)

    site.write_project(from_git("transformers", "1.0", ours=True))
    assert check(site, public) == 0
    assert "1 ours" in capsys.readouterr().out


def test_a_site_may_switch_the_comparison_off(
    site: SiteFolder, public: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write(site.root / "site.toml", b"check_public_index = false\n")
    public.has("demo", page("demo", "2.0"))
    assert check(site, public) == 0
    assert "names were not compared" in capsys.readouterr().out
    assert public.requests == []


def test_the_public_index_is_the_default(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for scheme in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")  # nothing listens there
    assert cli.main(["static_site.check", "--folder", str(site.root)]) == 1
    out = capsys.readouterr().out
    assert f"the public index was not asked: cannot reach {PYPI_SIMPLE_ENDPOINT}" in out


def test_an_index_in_trouble_is_an_error_and_earlier_verdicts_stay(
    site: SiteFolder, public: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write_project(from_git("other", "1.0"))
    earlier = {
        normalize("demo"): Verdict(
            kind="taken", public_version="0.1", our_version="1.0", checked_at=LONG_AGO
        ),
        normalize("gone"): Verdict(kind="free", checked_at=LONG_AGO),
    }
    write_verdicts(site, public.url, earlier)
    public.has("demo", Reply(status=403))
    public.has("other", page("other", "0.5"))
    assert check(site, public) == 1
    out = capsys.readouterr().out
    assert "demo: no verdict: " in out
    assert "answered 403; the verdict of 2026-01-03 is kept" in out
    found = read_verdicts(site)
    assert found.keys() == {"demo", "other"}
    assert found[normalize("demo")] == earlier[normalize("demo")]

    public.replies["/simple/"] = [Reply(status=404)]
    assert check(site, public) == 1
    assert "the public index was not asked: " in capsys.readouterr().out
    assert read_verdicts(site) == found


def test_verdicts_about_another_index_are_not_kept(site: SiteFolder, public: FakeServer) -> None:
    old = {normalize("demo"): Verdict(kind="ours", public_version="1", checked_at=LONG_AGO)}
    write_verdicts(site, "https://other.example/simple/", old)
    public.has("demo", Reply(status=403))
    site.write_project(from_git("other", "1.0"))
    assert check(site, public) == 1
    assert read_verdicts(site).keys() == {"other"}


def test_a_broken_project_keeps_its_verdict(site: SiteFolder, public: FakeServer) -> None:
    old = {normalize("other"): Verdict(kind="free", checked_at=LONG_AGO)}
    write_verdicts(site, public.url, old)
    site.write(site.root / "projects" / "other.toml", b"[")
    assert check(site, public) == 1
    assert read_verdicts(site).keys() == {"demo", "other"}


# -- the folder ------------------------------------------------------------------------------------


def test_a_good_site_has_no_problems(
    site: SiteFolder, public: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    linked = SiteFile(
        filename="linked-1.0.tar.gz",
        sha256="a" * 64,
        size=3,
        url=f"{public.origin}/linked-1.0.tar.gz",
        core_metadata_sha256=sha256(METADATA),
    )
    site.write_project(with_files("linked", "1.0", linked))
    # A copy for the page of the version.
    site.write(site.core_metadata(normalize("linked"), linked.filename), METADATA)
    site.write_project(from_git("tagged", "1.0"))
    assert check(site, public) == 0
    assert "projects: 3; problems: 0; " in capsys.readouterr().out
    assert [path for _, path, _ in public.requests if "linked-1.0" in path] == []


WHEEL = f"packages/demo/{HOSTED.filename}"


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        (WHEEL, None, f"{WHEEL}: missing, but"),
        (WHEEL, b"contents", f"{WHEEL}: has 8 bytes, but the project's file says 7"),
        (WHEEL, b"CONTENT", f"{WHEEL}: its SHA-256 is {sha256(b'CONTENT')}, but"),
        (f"{WHEEL}.metadata", None, f"{WHEEL}.metadata: missing, but"),
        (f"{WHEEL}.metadata", b"Name: x", f"{WHEEL}.metadata: its SHA-256 is"),
        ("packages/demo/demo-2.0.tar.gz", b"", "packages/demo/demo-2.0.tar.gz: no file of a"),
        ("packages/demo/deep/demo-1.0.zip", b"", "packages/demo/deep: no file of a project"),
        ("packages/gone/gone-1.0.tar.gz", b"", "packages/gone/gone-1.0.tar.gz: no file of a"),
        ("packages/readme.txt", b"", "packages/readme.txt: does not belong there"),
        ("projects/broken.toml", b"name =", "projects/broken.toml: no TOML"),
        ("projects/Other.toml", b'name = "Other"', "projects/Other.toml: no file of a project"),
        ("projects/notes.txt", b"", "projects/notes.txt: no file of a project"),
        ("projects/other.toml", b'name = "demo"', "the file of 'demo' must be called demo.toml"),
        (
            "projects/other.toml",
            b'name = "other"\n[[versions]]\nversion = "1.0"',
            "version '1.0' has no files, so it needs `git` and `tag`",
        ),
        ("site.toml", b"titel = 1", "'titel' is unknown"),
    ],
)
def test_a_problem_is_found(
    site: SiteFolder,
    public: FakeServer,
    capsys: pytest.CaptureFixture[str],
    path: str,
    content: bytes | None,
    says: str,
) -> None:
    if content is None:
        (site.root / path).unlink()
    else:
        site.write(site.root / path, content)
    assert check(site, public) == 1
    out = capsys.readouterr().out
    assert says in out
    assert "problems: 1; " in out
    assert "free: demo" in out  # one problem does not hide what else there is


def test_links_in_the_folder_are_not_followed(
    site: SiteFolder, public: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "content").write_bytes(b"content")
    (outside / "secret.toml").write_text('name = "secret"')
    wheel = site.hosted(normalize("demo"), HOSTED.filename)
    wheel.unlink()
    wheel.symlink_to(outside / "content")
    (site.packages / "elsewhere").symlink_to(outside)
    (site.root / "projects" / "secret.toml").symlink_to(outside / "secret.toml")
    (site.root / "projects" / "nowhere.toml").symlink_to(outside / "nothing")
    assert check(site, public) == 1
    out = capsys.readouterr().out
    assert f"{WHEEL}: not a regular file" in out
    assert "packages/elsewhere: does not belong there" in out
    assert "secret.toml: not a regular file" in out
    assert "nowhere.toml: not a regular file" in out
    assert "problems: 4; " in out


@pytest.mark.parametrize(
    "path", ["projects", "packages", "readmes", "readmes/demo", "templates", "templates/base.html"]
)
def test_what_a_build_refuses_as_a_link_is_a_problem(
    site: SiteFolder,
    public: FakeServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    path: str,
) -> None:
    link = site.root / path
    if link.is_dir():
        link.rename(tmp_path / "elsewhere")
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere")
    assert check(site, public) == 1
    assert f"{path}: a symbolic link" in capsys.readouterr().out


def test_a_name_that_is_not_utf_8_can_be_shown(
    site: SiteFolder, public: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("projects", "packages", "packages/demo"):
        (site.root / folder / os.fsdecode(b"x\xff")).write_bytes(b"")
    assert check(site, public) == 1
    out = capsys.readouterr().out
    for folder in ("projects", "packages", "packages/demo"):
        assert f"{folder}/x?: " in out


def test_a_hosted_file_that_github_refuses_is_a_problem(
    site: SiteFolder, public: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    size = LARGEST_HOSTED + 1
    path = site.hosted(normalize("demo"), HOSTED.filename)
    with path.open("wb") as file:
        file.truncate(size)
    digest = hashlib.sha256()
    for _ in range(size // 2**20):
        digest.update(bytes(2**20))
    digest.update(bytes(size % 2**20))
    large = replace(HOSTED, size=size, sha256=digest.hexdigest())
    site.write_project(with_files("demo", "1.0", large))
    assert check(site, public) == 1
    out = capsys.readouterr().out
    assert "larger than 100 MB, which GitHub refuses; make it an asset of a release" in out
    assert "problems: 1; " in out


def test_a_folder_that_is_no_site_is_an_error(
    tmp_path: Path, public: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(SiteFolder(tmp_path), public) == 1
    assert "is no site, because it has no site.toml" in capsys.readouterr().err


# -- links -----------------------------------------------------------------------------------------


@pytest.fixture
def linking(site: SiteFolder, public: FakeServer) -> SiteFolder:
    """A site with a file at /assets/."""
    linked = SiteFile(
        filename="linked-1.0.tar.gz",
        sha256="a" * 64,
        size=3,
        url=f"{public.origin}/assets/linked-1.0.tar.gz",
        core_metadata_sha256=sha256(METADATA),
    )
    site.write_project(with_files("linked", "1.0", linked))
    public.replies["/assets/linked-1.0.tar.gz"] = [Reply(body=b"abc", headers={})]
    public.replies["/assets/linked-1.0.tar.gz.metadata"] = [Reply(body=METADATA, headers={})]
    return site


def test_good_links_are_no_problem(linking: SiteFolder, public: FakeServer) -> None:
    assert check(linking, public, "--links") == 0
    asked = [(method, path) for method, path, _ in public.requests if "/assets/" in path]
    assert asked == [
        ("HEAD", "/assets/linked-1.0.tar.gz"),
        ("GET", "/assets/linked-1.0.tar.gz.metadata"),
    ]


@pytest.mark.parametrize(
    ("suffix", "reply", "says"),
    [
        ("", Reply(status=404), "is not there (404), or needs a token"),
        ("", Reply(status=403), "may not be read (403); give a token with --token_env"),
        ("", Reply(status=418), "answered 418"),
        ("", Reply(body=b"abcd", headers={}), "has 4 bytes, but the project's file says 3"),
        (".metadata", Reply(status=404), ".metadata is not there (404)"),
        (".metadata", Reply(body=b"Name: x", headers={}), ".metadata has other content than"),
    ],
)
def test_a_broken_link_is_found(
    linking: SiteFolder,
    public: FakeServer,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
    reply: Reply,
    says: str,
) -> None:
    public.replies[f"/assets/linked-1.0.tar.gz{suffix}"] = [reply]
    assert check(linking, public, "--links") == 1
    out = capsys.readouterr().out
    assert "linked: linked-1.0.tar.gz: " in out
    assert says in out
    assert check(linking, public) == 0  # only asked for with --links


def test_a_server_that_refuses_head_is_asked_with_get(
    linking: SiteFolder, public: FakeServer
) -> None:
    path = "/assets/linked-1.0.tar.gz"
    public.replies[path] = [Reply(status=405), *public.replies[path]]
    assert check(linking, public, "--links") == 0
    assert [method for method, each, _ in public.requests if each == path] == ["HEAD", "GET"]


def test_a_token_is_sent_to_its_host_only(
    linking: SiteFolder, public: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    flags = ["--links", "--token_env", "TOKEN", "--token_host", f"127.0.0.1:{public.port}"]
    asset = public.replies["/assets/linked-1.0.tar.gz"]
    # Another spelling of the same address, which needs no /etc/hosts.
    elsewhere = f"http://127.1:{public.port}/signed"
    public.replies["/assets/linked-1.0.tar.gz"] = [
        Reply(status=302, headers={"Location": elsewhere})
    ]
    public.replies["/signed"] = asset
    assert check(linking, public, *flags) == 0
    given = {path: authorization for _, path, authorization in public.requests}
    assert given == {
        "/simple/": None,
        "/simple/demo/": None,
        "/simple/linked/": None,
        "/assets/linked-1.0.tar.gz": "Bearer s3cret",
        "/assets/linked-1.0.tar.gz.metadata": "Bearer s3cret",
        "/signed": None,
    }
    public.requests.clear()
    assert check(linking, public, *flags[:3]) == 0  # the token of GitHub
    assert {authorization for _, _, authorization in public.requests} == {None}


def test_a_token_without_links_is_a_mistake(site: SiteFolder, public: FakeServer) -> None:
    assert check(site, public, "--token", "s3cret") == 2


# -- the report ------------------------------------------------------------------------------------


def test_the_summary_is_added_as_markdown(
    site: SiteFolder, public: FakeServer, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    public.has("demo", page("demo", "2.0"))
    assert check(site, public, "--summary", str(summary)) == 1
    text = summary.read_text()
    assert text.startswith("before\n## Check of the site\n")
    assert "\n| demo | higher | 1.0 | 2.0 | " in text


HOSTILE = "x: `` ` <script>alert(1)</script> | [a](javascript:b) **c** @acme\n# big\n\x1b[31m"


def test_nothing_that_a_package_says_is_markup_in_the_summary() -> None:
    report = Report(
        public_index="https://index.example/simple/",
        projects=1,
        problems=[HOSTILE],
        troubles={normalize("demo"): HOSTILE},
        unreached=HOSTILE,
    )
    rendered = render(as_markdown(report), "text/markdown")
    assert rendered is not None
    spans = re.findall("<code>(.*?)</code>", rendered, re.DOTALL)
    told = " ".join(HOSTILE.split())
    assert sum(told in html.unescape(each) for each in spans) == 3
    outside = re.sub("<code>.*?</code>", "", rendered, flags=re.DOTALL)
    assert "alert" not in outside
    assert "acme" not in outside
    assert "big" not in outside
    assert all("\n" not in line for line in as_text(report))


def test_the_address_of_the_public_index_is_no_markup_in_the_summary() -> None:
    address = "https://index.example/![](https://x.example/a.png)*b*/simple/"
    rendered = render(as_markdown(Report(public_index=address, projects=1)), "text/markdown")
    assert rendered is not None
    assert f"<code>{address}</code>" in rendered
    assert "<a" not in rendered


def test_a_summary_is_bounded() -> None:
    names = {
        normalize(f"demo-{number}"): Verdict(kind="free", checked_at=LONG_AGO)
        for number in range(2_000)
    }
    text = as_markdown(
        Report(
            public_index="https://index.example/simple/",
            projects=2_000,
            verdicts=names,
            troubles=dict.fromkeys(names, "x" * 2_000),
            problems=["y" * 2_000] * 2_000,
        )
    )
    assert len(text.encode()) < 1024 * 1024
    assert "… and 1500 more" in text


def test_verdicts_are_a_file_of_the_site(site: SiteFolder, public: FakeServer) -> None:
    check(site, public)
    first = (site.root / VERDICTS).read_text()
    assert re.sub('"checked_at": "[^"]+"', '"checked_at": "…"', first) == (
        "{\n"
        '  "format": 1,\n'
        f'  "public_index": "{public.url}",\n'
        '  "verdicts": {\n'
        '    "demo": {\n'
        '      "kind": "free",\n'
        '      "public_version": null,\n'
        '      "our_version": "1.0",\n'
        '      "checked_at": "…"\n'
        "    }\n"
        "  }\n"
        "}\n"
    )
