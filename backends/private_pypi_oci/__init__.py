"""The `oci` backend: packages in a registry of container images."""

from private_pypi_oci.backend import OciBackend
from private_pypi_oci.settings import OciSettings

__all__ = ["OciBackend", "OciSettings"]
