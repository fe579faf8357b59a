"""A fake GitHub for tests, checked against GitHub's own descriptions; see `FakeGitHub`."""

from .control import FakeGitHub
from .faults import Fault
from .server import Request

__all__ = ["FakeGitHub", "Fault", "Request"]
