"""Which files of a repository can be fetched from GitHub without a token, and from where."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from private_pypi.backend import PublicAddress
from private_pypi.errors import BackendError, NotAllowed
from private_pypi.model import DistributionFile
from private_pypi_github.answers import message_of
from private_pypi_github.client import Client
from private_pypi_github.releases import parse_location

# "GitHub renames asset filenames that have special characters, non-alphanumeric characters, and
# leading or trailing periods" (REST documentation, "Upload a release asset"). Installers read the
# filename from the end of the address, so a file that was renamed cannot be linked to.
_KEPT_NAME = re.compile("[A-Za-z0-9._+-]+")


@dataclass(frozen=True, slots=True)
class Visibility:
    """Who may see a repository, and where."""

    private: bool
    address: str  # of the repository's page on GitHub


def visibility(client: Client, full_name: str) -> Visibility:
    """Ask GitHub who may see a repository; raises `NotAllowed` if the token may not."""
    answer = client.get(f"/repos/{full_name}", expected=(200, 403, 404))
    if answer.status == 403:
        raise NotAllowed(f"GitHub does not let this token see {full_name!r}: {message_of(answer)}")
    if answer.status == 404:
        raise NotAllowed(f"GitHub does not show a repository {full_name!r} to this token")
    return Visibility(answer.member("private") is not False, str(answer.member("html_url")))


def require_closed_site(client: Client, full_name: str) -> None:
    """Raise unless the GitHub Pages of a private repository are as private as the repository.

    That is possible only with Enterprise Cloud. Elsewhere, pages are public.
    """
    answer = client.get(f"/repos/{full_name}/pages", expected=(200, 403, 404))
    if answer.status != 200:
        raise BackendError(
            f"GitHub does not tell who may see the pages of the private repository {full_name!r}; "
            "they must be switched on, and the token needs the right to read them"
        )
    if answer.json().get("public") is not False:
        raise NotAllowed(
            f"{full_name!r} is private, and GitHub shows its pages to everybody; only GitHub "
            "Enterprise Cloud restricts them. Nothing was written"
        )


def public_addresses(
    files: Iterable[DistributionFile], shown: Visibility
) -> dict[str, PublicAddress]:
    """The addresses of the files that need no token, by filename."""
    return {
        file.filename: _public_address(file, shown)
        for file in files
        if not shown.private and _KEPT_NAME.fullmatch(file.filename)
    }


def _public_address(file: DistributionFile, shown: Visibility) -> PublicAddress:
    name, location = quote(file.filename), parse_location(file.location)
    return PublicAddress(
        url=f"{shown.address}/releases/download/{name}/{name}",
        has_core_metadata=location is not None and location.metadata_id is not None,
    )
