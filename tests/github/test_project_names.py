"""Names alone: projects and repositories, tags and versions, files and locations."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from packaging.version import Version

from private_pypi.distributions import filenames
from private_pypi.errors import InvalidFilename
from private_pypi.model import DistributionFile
from private_pypi_github.project_layout import (
    ProjectAssetLocation,
    ProjectFile,
    parse_filename,
    parse_project_location,
    read_label,
    tag_before,
    tag_version,
    true_filename,
    yanked_label,
)
from private_pypi_github.project_names import Replacement, ReplaceRules
from private_pypi_github.releases import GitHubAsset, GitHubRelease


def rules(*pairs: tuple[str, str]) -> ReplaceRules:
    return ReplaceRules([Replacement(patt, repl) for patt, repl in pairs])


# From a project to its repository; the expected names are those that Go makes.


@pytest.mark.parametrize(
    ("pairs", "project", "repository"),
    [
        ([], "demo", "demo"),
        ([("^acme-", "")], "acme-demo", "demo"),
        ([("^acme-", "")], "demo-acme-x", "demo-acme-x"),
        ([("-", "_")], "a-b-c", "a_b_c"),
        ([("^(.*)$", "py-$1")], "demo", "py-demo"),
        ([("^(.*)-(.*)$", "$2.$1")], "a-b-c", "c.a-b"),
        ([("^(.*)$", "${1}x")], "demo", "demox"),
        ([("^(?P<name>.*)$", "$name-lib")], "demo", "demo-lib"),
        ([("^(?P<name>.*)$", "${name}lib")], "demo", "demolib"),
        ([("^(a)?(.*)$", "$1-$2")], "demo", "-demo"),
        # Each rule sees what the one before it made.
        ([("^a-", "b-"), ("^b-", "c-")], "a-x", "c-x"),
        ([("^b-", "c-"), ("^a-", "b-")], "a-x", "b-x"),
        # An empty match beside the one before it is none, in Go.
        ([(".*", "mono")], "demo", "mono"),
        ([("x*", "-")], "abc", "-a-b-c-"),
        ([("b*", "-")], "abc", "-a-c-"),
        # GitHub has no such repositories.
        ([(".*", "")], "demo", None),
        ([(".*", "..")], "demo", None),
        ([(".*", "a/b")], "demo", None),
        ([("$", "$$")], "demo", None),
        ([("o", "x" * 101)], "demo", None),
        ([("[a-z]", "$0" * 200), (".*", "never")], "demo", None),
    ],
)
def test_rules_make_the_name_of_a_repository(
    pairs: list[tuple[str, str]], project: str, repository: str | None
) -> None:
    assert rules(*pairs).repository(project) == repository


@pytest.mark.parametrize(
    ("patt", "repl", "said"),
    [
        ("(", "x", r"replace\[0\]\.patt: '\(' is not a regular expression"),
        ("a{2,1}", "x", r"replace\[0\]\.patt"),
        ("a", "$1", r"replace\[0\]\.repl: '\$1' names the group '1', which `patt` does not have"),
        ("(a)", "$1x", r"names the group '1x', .* is written \$\{1\}"),
        ("(a)", "${b}", "names the group 'b'"),
        ("(a)", "${}", "names the group ''"),
        ("(a)", "a$", r"has a lone \$"),
        ("(a)", "$-$1", r"has a lone \$"),
    ],
)
def test_a_bad_rule_is_named(patt: str, repl: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rules((patt, repl))


@pytest.mark.parametrize(
    ("pairs", "repository", "projects"),
    [
        ([], "demo", {"demo"}),
        ([], "Demo", {"demo"}),
        ([], "demo_extra", set()),  # installers ask for demo-extra
        ([("^demo-extra$", "demo_extra")], "demo_extra", {"demo-extra"}),
        ([("^(.*)$", "py-$1")], "py-demo", {"demo"}),
        ([("^(.*)$", "py-$1")], "demo", set()),
        ([("^acme-(.*)$", "$1")], "demo", {"demo", "acme-demo"}),
        ([("^a-(.+)$", "b-$1"), ("^b-(.+)$", "c-$1")], "c-x", {"a-x", "b-x", "c-x"}),
        ([("^(a+)-(b+)$", "$2-$1-$2")], "bb-a-bb", {"a-bb", "bb-a-bb"}),
        ([("^(a+)-(b+)$", "$2-$1-$2")], "bb-a-b", {"bb-a-b"}),
        # Of these no name of a repository tells which projects they have.
        ([("^acme-.*$", "mono")], "mono", {"mono"}),
        ([(".*", "mono")], "mono", {"mono"}),
        ([(".*", "mono")], "demo", set()),
    ],
)
def test_rules_are_read_backwards_as_far_as_they_go(
    pairs: list[tuple[str, str]], repository: str, projects: set[str]
) -> None:
    assert rules(*pairs).projects(repository) == projects


# Tags.


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("1.2.0", "1.2.0"),
        ("v1.2.0", "1.2.0"),
        ("V1.2", "1.2.0"),
        ("demo-extra-1.2.0", "1.2.0"),
        ("demo-extra-v1.2.0", "1.2.0"),
        ("demo_extra-1.2.0", "1.2.0"),
        ("Demo.Extra@1.2.0", "1.2.0"),
        ("demo-extra/v1.2.0", "1.2.0"),
        ("demo-extra_1.2.0", "1.2.0"),
        ("v1.2.0rc1", "1.2.0rc1"),
        ("v1.2.0-rc.1", "1.2.0rc1"),
        ("v1!1.2", "1!1.2"),
        ("1.2+local.1", "1.2+local-1"),
        ("2024.1.15", "2024.1.15"),
        ("demo-1.2.0", None),
        ("other@1.2.0", None),
        ("release-1.2.0", None),
        ("extra-1.2.0", None),
        ("nightly", None),
        ("v", None),
        ("", None),
        ("demo-extra-", None),
        ("demo-extra", None),
    ],
)
def test_a_tag_means_a_version_of_a_project(tag: str, version: str | None) -> None:
    expected = None if version is None else Version(version)
    assert tag_version(tag, "demo-extra") == expected


@pytest.mark.parametrize(
    ("tag", "others", "before"),
    [
        ("1.2.0", set(), ""),
        ("v1.2.0", set(), "v"),
        ("demo-v1.2.0", set(), "demo-v"),
        ("Demo@1.2.0", set(), "Demo@"),
        ("other/v1.2.0", {"other"}, "demo/v"),
        ("other/v1.2.0", set(), None),
        ("release-1.2.0", {"other"}, None),
        ("nightly", set(), None),
    ],
)
def test_a_tag_shows_how_tags_are_written(tag: str, others: set[str], before: str | None) -> None:
    assert tag_before(tag, "demo", others) == before


# Files.


@pytest.mark.parametrize(
    ("name", "label", "filename"),
    [
        ("demo-1.0.zip", "", "demo-1.0.zip"),
        ("demo-1.0.zip", "For old Pythons", "demo-1.0.zip"),
        ("demo-1.0.zip", "demo-2.0.zip", "demo-1.0.zip"),
        ("demo-1.2.0.zip", "demo-1!2.0.zip", "demo-1!2.0.zip"),
        ("demo-1.2.0.zip.metadata", "demo-1!2.0.zip.metadata", "demo-1!2.0.zip.metadata"),
        ("demo-1.2.0.zip", "demo-1!2.0.zip (yanked)", "demo-1!2.0.zip"),
        ("demo-1.0.zip", "For old Pythons (yanked: broken)", "demo-1.0.zip"),
    ],
)
def test_a_label_keeps_the_true_name(name: str, label: str, filename: str) -> None:
    assert true_filename(name, label) == filename


@pytest.mark.parametrize(
    ("label", "read"),
    [
        ("", ("", None)),
        ("demo-1.0.zip", ("demo-1.0.zip", None)),
        ("demo-1.0.zip (yanked)", ("demo-1.0.zip", "")),
        ('demo-1.0.zip (yanked: "a \\"b\\" (c)")', ("demo-1.0.zip", 'a "b" (c)')),
        ("Old one (yanked: does not start)", ("Old one", "does not start")),
        ("(yanked: 5)", ("", "5")),
        ("yanked", ("yanked", None)),
    ],
)
def test_a_label_says_whether_a_file_is_yanked(label: str, read: tuple[str, str | None]) -> None:
    """People may write it as well, without quotes."""
    assert read_label(label) == read


@pytest.mark.parametrize("label", ["", "For old Pythons", "demo-1!0.zip"])
@pytest.mark.parametrize("reason", ["", "broken", 'a "b" (c)\n', "ß 李"])
def test_a_label_that_is_yanked_becomes_what_it_was(label: str, reason: str) -> None:
    yanked = yanked_label("demo-1.0.zip", label, reason)
    assert yanked.isascii() and yanked.isprintable()
    assert read_label(yanked) == (label or "demo-1.0.zip", reason)
    assert yanked_label("demo-1.0.zip", yanked, reason) == yanked
    assert yanked_label("demo-1.0.zip", yanked, None) == label
    assert yanked_label("demo-1.0.zip", label, None) == label


@pytest.mark.parametrize(
    "filename",
    [
        "demo-1.0.tar.gz",
        "demo-1.0.zip",
        "demo_extra-1.0-py3-none-any.whl",
        "Demo.Extra-1.0.post1-1-py3-none-any.whl",
        "demo-extra-1!1.0+local.1.tar.gz",
        "demo-1.0",
        "demo.tar.gz",
        "demo-1.0.tar.bz2",
        "demo-1.0-py3-none.whl",
        "demo-1.0-cp311-win.msi",
        "SHA256SUMS",
        "v1.0.zip",
    ],
)
def test_the_cheap_reading_of_a_name_is_that_of_the_core(filename: str) -> None:
    try:
        parsed = filenames.parse_filename(filename)
    except InvalidFilename:
        assert parse_filename(filename) is None
    else:
        assert parse_filename(filename) == (parsed.project, parsed.version)


NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
URL = "https://ghe.acme.example/api/v3/repos/acme/demo/releases/assets/7"


def found(filename: str, sha256: str | None) -> ProjectFile:
    asset = GitHubAsset(
        id=7,
        name=filename,
        size=3,
        sha256=sha256,
        url=URL,
        is_complete=True,
        label="",
        created_at=NOON,
    )
    release = GitHubRelease(
        id=5,
        tag="v1.0",
        is_draft=False,
        created_at=NOON,
        published_at=NOON,
        notes="",
        assets=(asset,),
        is_prerelease=False,
        is_immutable=False,
        upload_url="",
    )
    return ProjectFile(release, asset, filename, Version("1.0"))


def file_called(filename: str, sha256: str) -> DistributionFile:
    return DistributionFile(
        project=filenames.normalize("demo"),
        filename=filename,
        version="1.0",
        size=3,
        sha256=sha256,
        uploaded_at=None,
        requires_python=None,
        yanked=None,
        core_metadata_sha256=None,
        location="",
    )


@pytest.mark.parametrize("sha256", ["a" * 64, None])
def test_a_location_is_of_one_file_and_its_bytes(sha256: str | None) -> None:
    place = parse_project_location(found("demo-1.0.zip", sha256).stored.location)
    assert place == ProjectAssetLocation("acme", "demo", 7, 5, place.name if place else "", sha256)
    assert place.path == "/repos/acme/demo/releases/assets/7"
    assert place.is_of(file_called("demo-1.0.zip", "a" * 64))
    assert place.is_of(file_called("demo-1.0.zip", ""))
    assert place.is_of(file_called("demo-1.0.zip", "b" * 64)) == (sha256 is None)
    assert not place.is_of(file_called("demo-2.0.zip", "a" * 64))


@pytest.mark.parametrize(
    "location",
    [
        "",
        "/etc/passwd",
        "https://[broken",
        URL,
        URL + "#release=x",
        URL + "/..#release=5",
        "https://api.github.com/repos/acme/../releases/assets/7#release=5",
        "https://api.github.com/repos/acme/demo/releases/assets/x#release=5",
    ],
)
def test_a_location_of_something_else_is_none(location: str) -> None:
    assert parse_project_location(location) is None
