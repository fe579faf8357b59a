"""The texts with which installers reach a tag: which are made, and which are not."""

from __future__ import annotations

import pytest

from private_pypi_static_site.making.git_links import direct_requirement, link_for_pip
from private_pypi_static_site.project_file import Project, SiteFile, SiteVersion

DEMO = Project(name="Demo.X")
GIT = "https://code.example/acme/demo"


def tagged(version: str = "1.0", tag: str = "v1.0", git: str = GIT) -> SiteVersion:
    return SiteVersion(version=version, tag=tag, git=git)


def test_a_tag_has_a_requirement_and_a_link() -> None:
    assert direct_requirement(DEMO, tagged()) == f"demo-x @ git+{GIT}@v1.0"
    assert link_for_pip(DEMO, tagged()) == f"git+{GIT}@v1.0#egg=demo-x-1.0&subdirectory=."


@pytest.mark.parametrize("version", ["1.0rc1", "1.0.post1.dev2"])
def test_usual_versions_have_links(version: str) -> None:
    assert link_for_pip(DEMO, tagged(version)) is not None


@pytest.mark.parametrize("version", ["1.0+cu1", "1!1.0"])
def test_a_local_version_or_an_epoch_has_no_link(version: str) -> None:
    assert direct_requirement(DEMO, tagged(version)) is not None
    assert link_for_pip(DEMO, tagged(version)) is None


@pytest.mark.parametrize("suffix", ["whl", "tar.gz", "zip", "tar.bz2", "tgz", "TAR.XZ"])
def test_a_tag_that_looks_like_a_file_has_no_link(suffix: str) -> None:
    """uv and poetry would fetch it."""
    file = tagged(tag=f"x/demo_x-9.0.{suffix}")
    assert direct_requirement(DEMO, file) is not None
    assert link_for_pip(DEMO, file) is None


@pytest.mark.parametrize(
    "version",
    [
        *(tagged(tag=tag) for tag in ("demo@1.0", "a#b", "$(id)", 'x"', "a b", "-x", "%40", "a'b")),
        *(
            tagged(git=f"{GIT}{end}")
            for end in ("$(id)", "?x=1", "#x", "/;id", "/a@b", "/%24", "&x")
        ),
        tagged(git="https://ü.example/demo"),
        SiteVersion(
            version="1.0",
            tag="v1.0",
            files=(SiteFile(filename="demo_x-1.0.tar.gz", sha256="a" * 64, size=1),),
        ),
    ],
    ids=repr,
)
def test_what_a_shell_or_a_client_would_read_differently_is_not_written(
    version: SiteVersion,
) -> None:
    assert direct_requirement(DEMO, version) is None
    assert link_for_pip(DEMO, version) is None
