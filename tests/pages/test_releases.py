"""The files of a project are grouped into releases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from private_pypi.pages.releases import Release, current_release, releases_of, with_metadata_first
from tests.files import NOON, make_file

SDIST = make_file("demo-1.0.tar.gz", requires_python=None)
WHEEL = make_file(
    "demo-1.0-py3-none-any.whl",
    uploaded_at=NOON - timedelta(hours=1),
    requires_python=">=3.9",
    core_metadata_sha256="cd" * 32,
)


def test_releases_come_newest_first_with_wheels_before_sources() -> None:
    newer = make_file("demo-1.1.tar.gz", yanked="bad")
    (first, second) = releases_of([SDIST, WHEEL, newer])
    assert first == Release(version="1.1", files=(newer,))
    assert second == Release(version="1.0", files=(WHEEL, SDIST))
    assert (first.is_yanked, first.yank_reasons) == (True, ("bad",))
    assert (second.uploaded_at, second.requires_python) == (WHEEL.uploaded_at, ">=3.9")


@pytest.mark.parametrize(
    ("filenames", "yanked", "current"),
    [
        (["demo-1.0.tar.gz", "demo-2.0.tar.gz"], [], "2.0"),
        (["demo-1.0.tar.gz", "demo-2.0rc1.tar.gz"], [], "1.0"),
        (["demo-1.0.tar.gz", "demo-2.0rc1.tar.gz"], ["demo-1.0.tar.gz"], "2.0rc1"),
        (["demo-1.0.tar.gz", "demo-2.0.tar.gz"], ["demo-2.0.tar.gz"], "1.0"),
        (["demo-1.0.tar.gz"], ["demo-1.0.tar.gz"], "1.0"),
        (["demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"], ["demo-1.0.tar.gz"], "1.0"),
    ],
)
def test_the_current_release(filenames: list[str], yanked: list[str], current: str) -> None:
    files = [make_file(name, yanked="" if name in yanked else None) for name in filenames]
    assert current_release(releases_of(files)).version == current


def test_files_that_offer_their_metadata_are_asked_first() -> None:
    assert with_metadata_first([SDIST, WHEEL]) == [WHEEL, SDIST]
