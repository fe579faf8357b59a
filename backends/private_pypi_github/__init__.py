"""The backend that keeps distribution files in the releases of one GitHub repository."""

from private_pypi_github.backend import GitHubBackend, GitHubSettings

__all__ = ["GitHubBackend", "GitHubSettings"]
