"""The legacy JSON API as text (protocol 72)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from packaging.utils import canonicalize_name

from private_pypi.model import DistributionFile
from private_pypi.pages.legacy_json import project_json
from private_pypi.pages.releases import releases_of
from tests.files import make_file

DEMO = canonicalize_name("demo")
METADATA = """\
Metadata-Version: 2.4
Name: De.mo
Version: 1.0
Summary: A demo
Home-page: https://demo.example
Author: Ann
Author-email: ann@demo.example
Keywords: one,two
Classifier: Programming Language :: Python :: 3
Classifier: Private :: Do Not Upload
Project-URL: Source, https://demo.example/source
Project-URL: Changelog,https://demo.example/changes
Requires-Python: >=3.9
Requires-Dist: other>=1
Requires-Dist: third ; extra == "more"
Provides-Extra: more
License: UNKNOWN
Description-Content-Type: text/markdown

# Demo
"""


def file(filename: str, **changes: Any) -> DistributionFile:
    facts: dict[str, Any] = {
        "sha256": "ab" * 32,
        "uploaded_at": datetime(2026, 11, 1, 12, 30, 0, 250_000, tzinfo=UTC),
        "requires_python": ">=3.9",
    }
    return make_file(filename, b"7 bytes", **(facts | changes))


OLD = file("demo-0.9.tar.gz", yanked="too old", uploaded_at=None)
WHEEL = file("demo-1.0-py2.py3-none-any.whl", core_metadata_sha256="cd" * 32)


def answer(*, core_metadata: bytes | None, with_releases: bool, shown: int = 0) -> dict[str, Any]:
    releases = releases_of([OLD, WHEEL])
    text = project_json(
        DEMO,
        releases,
        releases[shown],
        core_metadata,
        serial=12,
        page_url="https://pypi.example/r/mine/project/demo/",
        file_url=lambda file: f"https://pypi.example/packages/mine/demo/{file.filename}",
        with_releases=with_releases,
    )
    found: dict[str, Any] = json.loads(text)
    return found


WHEEL_JSON = {
    "comment_text": "",
    "core-metadata": {"sha256": "cd" * 32},
    "digests": {"sha256": "ab" * 32},
    "downloads": -1,
    "filename": "demo-1.0-py2.py3-none-any.whl",
    "has_sig": False,
    "packagetype": "bdist_wheel",
    "python_version": "py2.py3",
    "requires_python": ">=3.9",
    "size": 7,
    "upload_time": "2026-11-01T12:30:00",
    "upload_time_iso_8601": "2026-11-01T12:30:00.250000Z",
    "url": "https://pypi.example/packages/mine/demo/demo-1.0-py2.py3-none-any.whl",
    "yanked": False,
    "yanked_reason": None,
}
OLD_JSON = WHEEL_JSON | {
    "core-metadata": False,
    "filename": "demo-0.9.tar.gz",
    "packagetype": "sdist",
    "python_version": "source",
    "upload_time": None,
    "upload_time_iso_8601": None,
    "url": "https://pypi.example/packages/mine/demo/demo-0.9.tar.gz",
    "yanked": True,
    "yanked_reason": "too old",
}


def test_a_project_has_its_core_metadata_and_every_release() -> None:
    assert answer(core_metadata=METADATA.encode(), with_releases=True) == {
        "info": {
            "author": "Ann",
            "author_email": "ann@demo.example",
            "bugtrack_url": None,
            "classifiers": ["Programming Language :: Python :: 3", "Private :: Do Not Upload"],
            "description": "# Demo",
            "description_content_type": "text/markdown",
            "docs_url": None,
            "download_url": None,
            "downloads": {"last_day": -1, "last_month": -1, "last_week": -1},
            "dynamic": None,
            "home_page": "https://demo.example",
            "keywords": "one,two",
            "license": None,
            "license_expression": None,
            "license_files": None,
            "maintainer": None,
            "maintainer_email": None,
            "name": "De.mo",
            "package_url": "https://pypi.example/r/mine/project/demo/",
            "platform": None,
            "project_url": "https://pypi.example/r/mine/project/demo/",
            "project_urls": {
                "Source": "https://demo.example/source",
                "Changelog": "https://demo.example/changes",
                "Homepage": "https://demo.example",
            },
            "provides_extra": ["more"],
            "release_url": "https://pypi.example/r/mine/project/demo/1.0/",
            "requires_dist": ["other>=1", 'third ; extra == "more"'],
            "requires_python": ">=3.9",
            "summary": "A demo",
            "version": "1.0",
            "yanked": False,
            "yanked_reason": None,
        },
        "last_serial": 12,
        "ownership": {"organization": None, "roles": []},
        "releases": {"0.9": [OLD_JSON], "1.0": [WHEEL_JSON]},
        "urls": [WHEEL_JSON],
        "vulnerabilities": [],
    }


def test_one_release_has_its_own_files_and_no_others() -> None:
    found = answer(core_metadata=None, with_releases=False, shown=1)
    assert "releases" not in found
    assert found["urls"] == [OLD_JSON]
    info = found["info"]
    assert {name: info[name] for name in ("name", "version", "yanked", "yanked_reason")} == {
        "name": "demo",
        "version": "0.9",
        "yanked": True,
        "yanked_reason": "too old",
    }


def test_without_core_metadata_the_index_says_what_it_knows() -> None:
    info = answer(core_metadata=None, with_releases=True)["info"]
    assert (info["requires_python"], info["summary"], info["classifiers"], info["description"]) == (
        ">=3.9",
        None,
        [],
        "",
    )


def test_words_that_are_encoded_as_in_an_e_mail_are_decoded() -> None:
    encoded = METADATA.replace("Author: Ann", "Author: =?utf-8?q?Gr=C3=BC=C3=9Fe?=").replace(
        "Author-email: ann@", "Author-email: =?utf-8?b?w4RubmU=?= <ann@"
    )
    info = answer(core_metadata=encoded.encode(), with_releases=False)["info"]
    assert info["author"] == "Grüße"
    assert info["author_email"].startswith("Änne <ann@")


def test_a_project_without_core_metadata_is_called_as_its_files_say() -> None:
    releases = releases_of([file("demo-1.0.tar.gz", published_name="De.mo")])
    text = project_json(
        DEMO,
        releases,
        releases[0],
        None,
        serial=12,
        page_url="",
        file_url=lambda file: "",
        with_releases=True,
    )
    assert json.loads(text)["info"]["name"] == "De.mo"
