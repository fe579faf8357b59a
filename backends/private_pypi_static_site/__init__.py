"""The `static_site` backend: an index that is only files, such as on GitHub Pages."""

from private_pypi_static_site.backend import StaticSiteBackend, StaticSiteSettings

__all__ = ["StaticSiteBackend", "StaticSiteSettings"]
