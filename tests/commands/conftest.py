"""The fixtures of the tests of commands."""

from tests.commands.running import run

__all__ = ["run"]
