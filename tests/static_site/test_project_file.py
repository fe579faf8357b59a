"""The files of projects: what they say, what is wrong in them, and what a change keeps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from private_pypi_static_site.project_file import (
    InvalidProject,
    Project,
    SiteFile,
    SiteVersion,
    format_project,
    parse_project,
    yank,
)

FILE = SiteFile(
    filename="demo-1.0-py3-none-any.whl",
    sha256="a" * 64,
    size=1234,
    url="https://code.example/acme/demo/releases/download/v1.0/demo-1.0-py3-none-any.whl",
    uploaded_at=datetime(2026, 1, 3, 12, 30, tzinfo=UTC),
    requires_python=">=3.9",
    core_metadata_sha256="b" * 64,
    yanked="broken",
)
ONE = SiteVersion(version="1.0", tag="v1.0", files=(FILE,))
TWO = SiteVersion(version="2.0+local.1", tag="v2.0", git="https://code.example/acme/demo")
DEMO = Project(
    name="Demo",
    homepage="https://code.example/acme/demo",
    author="Ann",
    summary="A demonstration.",
    ours_on_public=True,
    source="demo-of-acme",
    versions=(ONE, TWO),
)
SDIST = "demo-1.0.tar.gz"
TEXT = """\
name = "demo"
[[versions]]
version = "1.0"
[[versions.files]]
filename = "demo-1.0.tar.gz"
sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
size = 3
"""
FILES = TEXT[TEXT.index("[[versions.files]]") :]


def parse(text: str) -> Project:
    return parse_project(text, "demo", where="projects/demo.toml")


def test_what_is_written_is_read() -> None:
    assert parse(format_project(DEMO)) == DEMO


def test_versions_are_in_the_order_of_pep_440() -> None:
    versions = [replace(TWO, version=each) for each in ("1.10", "1.9", "1.10rc1", "1!0.1")]
    found = parse(format_project(replace(DEMO, versions=tuple(versions)))).versions
    assert [each.version for each in found] == ["1.9", "1.10rc1", "1.10", "1!0.1"]


def test_a_change_keeps_comments_and_the_order_of_keys() -> None:
    old = f'# ours\nauthor = "Ann"\n{TEXT.replace("size = 3", "size = 3  # bytes")}'
    project = replace(parse(old), summary="New.")
    new = format_project(replace(project, versions=(*project.versions, TWO)), old)
    assert new.startswith('# ours\nauthor = "Ann"\n')
    assert "size = 3  # bytes" in new
    assert parse(new) == replace(project, versions=(*project.versions, TWO))
    assert parse(format_project(project, new)).versions == project.versions


def test_what_is_written_again_stays_as_it_is() -> None:
    files = tuple(replace(FILE, filename=f"demo-1.0-{n}-py3-none-any.whl") for n in range(3))
    files = tuple(replace(file, url=None) for file in files)
    project = replace(DEMO, versions=(replace(ONE, files=files), TWO))
    text = format_project(project)
    assert format_project(project, text) == text
    more = replace(project, versions=(*project.versions, replace(TWO, version="3.0")))
    longer = format_project(more, text)
    assert longer.startswith(text)
    assert format_project(project, longer) == text


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "demo"\n', "", "'name' is missing"),
        ('name = "demo"', 'name = "../demo"', "no name of a project"),
        ('name = "demo"', 'name = "other"', "must be called other.toml"),
        ('name = "demo"', 'name = "demo"\nhomepage = "javascript:alert(1)"', "'homepage' must be"),
        ('name = "demo"', 'name = "demo"\nhomepage = "https://u:p@x.example/"', "'homepage' must"),
        ('name = "demo"', 'name = "demo"\nauthor = "a\\u001b[31m"', "'author' has control"),
        ('name = "demo"', 'name = "demo"\nauthor = 3', "'author' must be a text, not 3"),
        ('name = "demo"', 'name = "demo"\nsize = 3', "unknown: 'size'"),
        ('name = "demo"', "name = demo", "no TOML"),
        ('"1.0"', '"one"', "no version"),
        ('"1.0"', f'"1{"0" * 5000}"', "'version' has 5001 characters"),
        ('"demo-1.0.tar.gz"', '"../demo-1.0.tar.gz"', "filename"),
        ('"demo-1.0.tar.gz"', '"demo-2.0.tar.gz"', "is a file of demo 2.0, not of demo 1.0"),
        ('"demo-1.0.tar.gz"', '"other-1.0.tar.gz"', "is a file of other 1.0"),
        ("aaaa", "AAAA", "'sha256' must be 64"),
        ("size = 3", "size = -3", "'size' must be from 0"),
        ("size = 3", f"size = {2**63}", "'size' must be from 0"),
        ("size = 3", "size = true", "must be a whole number"),
        ("size = 3", 'size = 3\nurl = "https://x.example/b.tar.gz"', "must end with /demo-1.0"),
        ("size = 3", 'size = 3\nrequires_python = "three"', "three"),
        ("size = 3", f'size = 3\nrequires_python = ">={"9" * 5000}"', "has 5002 characters"),
        ("size = 3", 'size = 3\nuploaded_at = "yesterday"', "must be a time"),
        ("size = 3", "size = 3\nuploaded_at = 0001-01-01T00:00:00+23:00", "out of range"),
        ("size = 3", "size = 3\nuploaded_at = 9999-12-31T23:59:59-23:00", "out of range"),
        ("size = 3", f'size = 3\nurl = "https://x.example/{SDIST}#md5=x"', "begins with #"),
        ("size = 3", f'size = 3\nurl = "https://x;img-src/{SDIST}"', "'url' must be an address"),
        ("size = 3", "size = 3\nuploaded_at = 2026-01-03T12:30:00", "has no zone"),
        ("[[versions.files]]", 'git = "https://x.example/a"\n[[versions.files]]', "must not have"),
    ],
)
def test_what_is_wrong_is_said(old: str, new: str, says: str) -> None:
    assert TEXT.count(old) >= 1
    with pytest.raises(InvalidProject) as caught:
        parse(TEXT.replace(old, new, 1))
    assert "projects/demo.toml" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("added", "says"),
    [
        ('[[versions]]\nversion = "2.0"\n', "needs `git` and `tag`"),
        ('[[versions]]\nversion = "1"\ntag = "v1"\ngit = "https://x.example/a"\n', "twice"),
        (f"{TEXT[14:].replace('1.0', '2.0', 1)}", "is a file of demo 1.0, not of demo 2.0"),
        ('[[versions]]\nversion = "2"\ntag = ""\ngit = "https://x.example/a"\n', "needs `git`"),
        (f"{FILES.replace('demo', 'Demo')}", "'Demo-1.0.tar.gz' is there twice, also as 'demo-1"),
    ],
)
def test_versions_that_do_not_fit(added: str, says: str) -> None:
    with pytest.raises(InvalidProject, match=says):
        parse(TEXT + added)


def test_yanks() -> None:
    assert [file.yanked for file in yank(ONE, "worse").files] == ["worse"]
    assert [file.yanked for file in yank(ONE, None).files] == [None]
    assert yank(ONE, "worse", ["other.whl"]) == ONE
    assert yank(TWO, "").yanked == ""
