"""The fixtures of the tests of archives."""

from tests.distributions.archive_checks import check

__all__ = ["check"]
