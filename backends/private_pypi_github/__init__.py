"""The backends that keep distribution files in releases on GitHub: of one repository or many."""

from private_pypi_github.backend import GitHubBackend, GitHubSettings
from private_pypi_github.projects import GitHubProjectsBackend, GitHubProjectsSettings

__all__ = [
    "GitHubBackend",
    "GitHubProjectsBackend",
    "GitHubProjectsSettings",
    "GitHubSettings",
]
