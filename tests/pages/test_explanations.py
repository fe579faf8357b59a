"""Explanations as JSON: what a server writes is read by the command, and nothing else is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from private_pypi.pages.explanations import (
    Report,
    ReportedFile,
    groups_of,
    report_from_json,
    report_json,
)

REPORT = Report(
    repository="pypi",
    project="demo",
    is_found=True,
    notes=["a note"],
    groups=groups_of(
        [
            ReportedFile(
                filename="demo-1.0.tar.gz",
                version="1.0",
                is_served=True,
                suits=True,
                source=["pypi"],
            ),
            ReportedFile(
                filename="demo-2.0.tar.gz",
                version="2.0",
                is_served=False,
                rule="cooldown",
                reason="it is young",
                until=datetime(2026, 11, 1, 12, 30, tzinfo=UTC),
                source=["pypi"],
            ),
        ]
    ),
)


def test_what_is_written_is_read() -> None:
    assert report_from_json(json.loads(report_json(REPORT))) == REPORT


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("until", value) for value in (5, [], "yesterday")),
        *(("filename", value) for value in (5, ["demo"])),
        *(("source", value) for value in ("pypi", [1])),
        *(("is_served", value) for value in (None, "yes", 1)),
    ],
)
def test_other_json_is_no_explanation(key: str, value: Any) -> None:
    document = json.loads(report_json(REPORT))
    document["groups"][0]["files"][0][key] = value
    with pytest.raises(ValueError, match=r"explanation|instant"):
        report_from_json(document)
