"""What pages show, as values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from packaging.utils import canonicalize_name

from private_pypi.filenames import parse_filename
from private_pypi.model import DistributionFile
from private_pypi.web.people.presenting import (
    Command,
    Place,
    Release,
    current_release,
    day_of,
    install_commands,
    kind_of,
    minute_of,
    releases_of,
    size_of,
    with_metadata_first,
)

NOON = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
DEMO = canonicalize_name("demo")


def file(filename: str, *, yanked: str | None = None, hours: int = 0) -> DistributionFile:
    parsed = parse_filename(filename)
    return DistributionFile(
        project=parsed.project,
        filename=filename,
        version=str(parsed.version),
        size=1,
        sha256="ab" * 32,
        uploaded_at=NOON + timedelta(hours=hours),
        requires_python=">=3.9" if filename.endswith(".whl") else None,
        yanked=yanked,
        core_metadata_sha256="cd" * 32 if filename.endswith(".whl") else None,
        location="",
    )


SDIST, WHEEL = file("demo-1.0.tar.gz"), file("demo-1.0-py3-none-any.whl", hours=-1)


def test_releases_come_newest_first_with_wheels_before_sources() -> None:
    newer = file("demo-1.1.tar.gz", yanked="bad")
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
    files = [file(name, yanked="" if name in yanked else None) for name in filenames]
    assert current_release(releases_of(files)).version == current


def test_files_that_offer_their_metadata_are_asked_first() -> None:
    assert with_metadata_first([SDIST, WHEEL]) == [WHEEL, SDIST]


@pytest.mark.parametrize(
    ("filename", "kind"),
    [
        ("demo-1.0.tar.gz", "source"),
        ("demo-1.0-py3-none-any.whl", "wheel for py3"),
        ("demo-1.0-cp312-cp312-win_amd64.whl", "wheel for cp312, win_amd64"),
        ("demo-1.0-1-cp312-abi3-macosx_11_0_arm64.whl", "wheel for cp312, abi3, macosx_11_0_arm64"),
    ],
)
def test_the_kind_of_a_file(filename: str, kind: str) -> None:
    assert kind_of(file(filename)) == kind


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (123_456, "123 kB"),
        (5_250_000, "5.2 MB"),
        (2_000_000_000_000, "2000 GB"),
    ],
)
def test_a_size(size: int, text: str) -> None:
    assert size_of(size) == text


def test_times_are_in_utc() -> None:
    moment = datetime(2026, 1, 1, 1, 5, tzinfo=timezone(timedelta(hours=2)))
    assert (day_of(moment), minute_of(moment)) == ("31 Dec 2025", "2025-12-31 23:05 UTC")


def test_a_place_for_tools() -> None:
    place = Place(base="https://acme.example:8443/py", repository="my_repo.x", needs_secret=True)
    assert (
        place.index_url,
        place.index_url_with_user,
        place.upload_url,
        place.host,
        place.netloc,
        place.index_name,
        place.variable,
    ) == (
        "https://acme.example:8443/py/r/my_repo.x/simple/",
        "https://my_repo.x@acme.example:8443/py/r/my_repo.x/simple/",
        "https://acme.example:8443/py/r/my_repo.x/",
        "acme.example",
        "acme.example:8443",
        "my-repo-x",
        "MY_REPO_X",
    )
    assert Place(base="http://[::1]:80", repository="a", needs_secret=True).host == "::1"


def test_what_everybody_may_read_is_installed_without_a_user() -> None:
    place = Place(base="https://acme.example", repository="open", needs_secret=False)
    assert install_commands(place, DEMO, "1!2.0")[0] == Command(
        "pip", "pip install --index-url https://acme.example/r/open/simple/ 'demo==1!2.0'"
    )
