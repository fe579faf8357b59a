"""Which core metadata an installer is likely to ask for after the page of a project; asks nobody.

Installers read the page, and then the core metadata of one file, to find out what it needs. If
these are fetched as soon as the page is here, an installer waits for the upstream once in place of
twice for each level of a tree of requirements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from packaging.version import Version

from private_pypi.index.mirrored import MirroredFile

_MOST_TRIED = 100  # files of a page


def likely_wanted(files: Sequence[MirroredFile]) -> Iterator[MirroredFile]:
    """The wheels whose core metadata may be fetched ahead, the most likely one first.

    `files`: those of a page, the newest release last. Where a release has a wheel for each
    platform, it is not known which of them is wanted.
    """
    newest = files[: -_MOST_TRIED - 1 : -1]
    return (
        file
        for file in newest
        if file.filename.endswith("-none-any.whl")
        and file.yanked is None
        and file.core_metadata_sha256 is not None
        and file.has_upstream_metadata
        and not Version(file.version).is_prerelease
    )
