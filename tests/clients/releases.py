"""Releases of a tiny project: as files for those who publish files, as sources for flit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from private_pypi.testing.distributions import make_sdist, make_wheel

# A backend inside the sdist: building needs nothing that would have to be fetched.
_BACKEND = '''\
"""Builds the wheel that lies beside it."""

import pathlib


def build_wheel(directory, config_settings=None, metadata_directory=None):
    wheel = next(pathlib.Path(__file__).parent.glob("*.whl"))
    (pathlib.Path(directory) / wheel.name).write_bytes(wheel.read_bytes())
    return wheel.name
'''
_IN_TREE = """\
[build-system]
requires = []
build-backend = "in_tree"
backend-path = ["."]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Equal releases have equal bytes; another `note` is other content under the same names."""

    name: str = "demo"
    version: str = "1.0"
    note: str = "first"
    requires: tuple[str, ...] = ()

    @property
    def module(self) -> bytes:
        """The one module: what is installed can be told by its note."""
        return (
            f'"""A tiny project."""\n\n__version__ = "{self.version}"\nnote = "{self.note}"\n'
        ).encode()

    def wheel(self) -> tuple[str, bytes]:
        return make_wheel(
            self.name,
            self.version,
            extra_metadata=[("Requires-Dist", each) for each in self.requires],
            files={f"{self.name}.py": self.module},
        )

    def sdist(self) -> tuple[str, bytes]:
        """An sdist that can be built without any other package."""
        filename, content = self.wheel()
        return make_sdist(
            self.name,
            self.version,
            extra_metadata=[("Requires-Dist", each) for each in self.requires],
            files={
                "pyproject.toml": _IN_TREE.encode(),
                "in_tree.py": _BACKEND.encode(),
                f"{self.name}.py": self.module,
                filename: content,
            },
        )


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
