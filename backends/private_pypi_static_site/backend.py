"""The backend `static_site`: a server over the folder of a site, and perhaps publishing into it."""

from __future__ import annotations

from collections.abc import Mapping

from private_pypi.backend import AnyStorage, Backend, Folders, Secret, Traits
from private_pypi_static_site.git import Git
from private_pypi_static_site.publishing import PublishingStorage
from private_pypi_static_site.reading import Known, StaticSiteSettings, StaticSiteStorage

__all__ = ["StaticSiteBackend", "StaticSiteSettings", "StaticSiteStorage"]


class StaticSiteBackend(Backend[StaticSiteSettings]):
    """The folder of a site."""

    Settings = StaticSiteSettings
    View = PublishingStorage
    traits = Traits(
        largest_file=5 * 2**30 - 1,
        lists_cheaply=True,
        opens_here=True,
        answers_at_once=True,
        answers_exactly=True,
        needs_admin_secret=False,
    )

    def __init__(self, settings: StaticSiteSettings, folders: Folders) -> None:
        super().__init__(settings, folders)
        self.known: Mapping[str, Known] = {}  # by the names of projects
        self.git = Git(settings.path) if settings.publish == "commits" else None

    def seen_with(self, secret: Secret) -> AnyStorage:
        """A view with this secret; one that cannot publish, unless the table allows it."""
        view = StaticSiteStorage if self.settings.publish == "no" else PublishingStorage
        return view(self, secret)
