"""The `object_storage` backend: a bucket of S3, Azure Blob Storage or Google Cloud Storage."""

from private_pypi_object_storage.backend import ObjectStorageBackend
from private_pypi_object_storage.settings import ObjectStorageSettings

__all__ = ["ObjectStorageBackend", "ObjectStorageSettings"]
