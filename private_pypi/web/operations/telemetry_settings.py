"""To which OpenTelemetry collector telemetry is sent, as the environment says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from private_pypi import __version__
from private_pypi.backend import Secret

NAME = "private_pypi"
"""What this server calls itself."""

ENDPOINT = "OTLP_ENDPOINT"
STANDARD_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
AUTH = "OTLP_AUTH"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
DISABLED = "OTEL_SDK_DISABLED"

_ATTRIBUTES = {
    "DEPLOYMENT_ENVIRONMENT": "deployment.environment",
    "CONTAINER_APP_NAME": "k8s.container.name",
    "CONTAINER_APP_REVISION": "k8s.pod.name",
    "CONTAINER_APP_REPLICA_NAME": "k8s.replicaset.name",
}


@dataclass(frozen=True)
class TelemetrySettings:
    """Where to send telemetry, and what to say about this server."""

    variable: str  # the one that names the collector
    endpoint: str | None  # None: the SDK finds it in the OTEL_… variables
    auth: Secret | None  # the whole value of the header `Authorization`
    attributes: Mapping[str, str]

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> TelemetrySettings | None:
        """The settings of an environment; None if nothing is to be sent.

        Raises `ValueError`. Neither the address nor the header is quoted, as both may be secret.
        """
        variable = ENDPOINT if environ.get(ENDPOINT, "").strip() else STANDARD_ENDPOINT
        address = environ.get(variable, "").strip()
        if not address or environ.get(DISABLED, "").strip().lower() == "true":
            return None
        try:
            parts = urlsplit(address)
            is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_usable = False
        if not is_usable:
            raise ValueError(
                f"{variable} must be the address of an OpenTelemetry collector, such as "
                "http://localhost:4318"
            )
        auth = environ.get(AUTH, "").strip()
        if not (auth.isascii() and auth.isprintable()):
            raise ValueError(f"{AUTH} must have only printable ASCII characters")
        attributes = {"service.name": NAME, "service.version": __version__}
        attributes |= {key: environ[name] for name, key in _ATTRIBUTES.items() if environ.get(name)}
        return cls(
            variable,
            address.rstrip("/") if variable == ENDPOINT else None,
            Secret(auth) if auth else None,
            attributes,
        )
