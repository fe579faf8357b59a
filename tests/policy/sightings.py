"""Files of an upstream and policies, made in one line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from packaging.utils import NormalizedName

from private_pypi.backend import MirrorSettings
from private_pypi.model import ListedFile
from private_pypi.policy import AllowanceFile, Policy, Sighting, make_policy

DEMO = NormalizedName("demo")
DAY = timedelta(days=1)
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
NOWHERE = Path("/nowhere")


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def sighting(
    version: str = "1.0",
    *,
    uploaded_at: datetime | None = None,
    first_seen_at: datetime = NOW,
    filename: str | None = None,
    yanked: str | None = None,
) -> Sighting:
    file = ListedFile(
        project=DEMO,
        filename=filename or f"demo-{version}-py3-none-any.whl",
        size=1,
        sha256=None,
        location="there",
        version=version,
        uploaded_at=uploaded_at,
        requires_python=None,
        yanked=yanked,
        core_metadata_sha256=None,
    )
    return Sighting(file=file, first_seen_at=first_seen_at)


def settings(**values: Any) -> MirrorSettings:
    return MirrorSettings(name="pypi", max_file_bytes=1 << 30, **values)


def policy(allowances: Path = NOWHERE, **values: Any) -> Policy:
    return make_policy(settings(**values), allowances=AllowanceFile(allowances))
