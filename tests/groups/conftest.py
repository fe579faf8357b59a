"""A deployment with real folders, and an upstream."""

from __future__ import annotations

from tests.web.conftest import deploy

__all__ = ["deploy"]
