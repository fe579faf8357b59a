"""The `mirror` backend: another index, such as the public one, that is read over HTTP."""

from private_pypi_mirror.backend import MirrorBackend
from private_pypi_mirror.settings import IndexMirrorSettings

__all__ = ["IndexMirrorSettings", "MirrorBackend"]
