"""How installers reach a version that is only a tag of a git repository; makes texts, no I/O.

What clients do with such links was tried; `docs/static-site-git-links.md` says it, and
`tests/static_site/test_git_links.py` holds it.
"""

from __future__ import annotations

import re
from typing import Final

from private_pypi_static_site.project_file import Project, SiteVersion

# What a shell and all clients leave as it is. poetry and pdm do not decode a tag, and the others
# cannot tell where it begins if it has an @ that is not encoded: `demo@1.0` is of no use.
_PLAIN_URL: Final = re.compile("https?://[A-Za-z0-9.:-]+(/[A-Za-z0-9._~+-]+)+/?")
_PLAIN_TAG: Final = re.compile("[A-Za-z0-9][A-Za-z0-9._+/-]*")
_FILE: Final = re.compile(r"\.(whl|egg|zip|tar|tar\.\w+|tgz|tbz2?|txz|tlz)$", re.IGNORECASE)


def direct_requirement(project: Project, version: SiteVersion) -> str | None:
    """A requirement that pip, uv, poetry, pdm and hatch understand (PEP 508).

    It is `name @ git+https://…@tag`, and has no character with a meaning in a shell except spaces.
    None: the version has files, or no such requirement works with all of them.
    """
    address = _address(version)
    return None if address is None else f"{project.normalized} @ {address}"


def link_for_pip(project: Project, version: SiteVersion) -> str | None:
    """An address for an anchor on a project page, with which pip and pdm find the version.

    uv and poetry pass over it. None: there is none that does no harm to any of them.
    """
    address = _address(version)
    # pip refuses the whole page if the text after `egg=` could not be the name of a project.
    if address is None or not re.fullmatch("[a-z0-9.]+", version.version):
        return None
    if _FILE.search(address):  # which uv and poetry would fetch
        return None
    # uv takes a fragment with one `=` for a hash, and refuses the whole page if it is none. So
    # there are two; the folder is the one that would be used anyway.
    return f"{address}#egg={project.normalized}-{version.version}&subdirectory=."


def _address(version: SiteVersion) -> str | None:
    git, tag = version.git, version.tag
    if version.files or git is None or tag is None:
        return None
    if not _PLAIN_URL.fullmatch(git) or not _PLAIN_TAG.fullmatch(tag):
        return None
    return f"git+{git}@{tag}"
