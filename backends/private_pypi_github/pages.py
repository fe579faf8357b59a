"""Which files of a repository can be fetched from GitHub without a token, and from where."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import quote

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
    return Visibility(answer.member("private") is True, str(answer.member("html_url")))


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


def public_address(file: DistributionFile, shown: Visibility) -> str | None:
    """The address of a file that needs no token; None if there is none that ends in its name."""
    if shown.private or not _KEPT_NAME.fullmatch(file.filename):
        return None
    name = quote(file.filename)
    return f"{shown.address}/releases/download/{name}/{name}"


def as_published(file: DistributionFile) -> DistributionFile:
    """The file, without the hash of its core metadata if its release does not have them.

    If a page announces core metadata, installers may fail when they are not there.
    """
    location = parse_location(file.location)
    if location is not None and location.metadata_id is not None:
        return file
    return replace(file, core_metadata_sha256=None)
