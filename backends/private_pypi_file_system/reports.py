"""Reports about things in the storage that a listing leaves out, a few of each kind by name."""

from __future__ import annotations

from collections.abc import Iterator

from private_pypi.model import Unlisted

_MOST = 5  # reports of one kind; the rest is only counted

NOT_SERVED = (
    ".egg", ".exe", ".msi", ".rpm", ".deb", ".dmg",
    ".tar", ".tgz", ".tar.bz2", ".tar.xz", ".tar.Z", ".tar.zst",
)  # fmt: skip
"""Suffixes of distribution formats that installers do not support, or no longer support."""


class Reports:
    """Collects the reports of one listing."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._reports: list[Unlisted] = []

    def wrong_format(self, path: str) -> None:
        """Report a file in a format that is not served."""
        self._note(
            "files of other formats are not served",
            path,
            f"{path!r} is not served: installers take wheels (.whl) and source distributions "
            "(.tar.gz or .zip) only; build one of these",
        )

    def too_deep(self, path: str, folder: str) -> None:
        """Report a distribution file that is two folders below the storage."""
        self._note(
            "files two folders below the storage are not served",
            path,
            f"{path!r} is not served: it lies two folders below the storage; move it into "
            f"{folder!r}",
        )

    def duplicate(self, path: str, served: str, *, same_size: bool) -> None:
        """Report a file whose name is served from another folder."""
        differ = "" if same_size else ", and their sizes differ"
        self._note(
            "files have the name of a file in another folder, which is served instead",
            path,
            f"{path!r} is not served: {served!r} has the same name{differ}; remove one of the two",
        )

    def all(self) -> Iterator[Unlisted]:
        """All reports: the first ones of each kind by name, then how many more there are."""
        yield from self._reports
        for kind, count in self._counts.items():
            if count > _MOST:
                yield _report(kind, f"{count - _MOST} more {kind}")

    def _note(self, kind: str, path: str, problem: str) -> None:
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if count <= _MOST:
            self._reports.append(_report(path, problem))


def _report(location: str, problem: str) -> Unlisted:
    return Unlisted(location=location, problem=problem, may_hold_files=False)
