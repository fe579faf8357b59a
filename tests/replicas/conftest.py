"""The store of these tests, which is that of the object storage."""

from __future__ import annotations

from tests.object_storage.conftest import prefix, seaweed

__all__ = ["prefix", "seaweed"]
