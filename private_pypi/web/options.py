"""The options of a server, their defaults and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from private_pypi.backend import Secret
from private_pypi.backend.public_index import public_index_url
from private_pypi.configuration.config import ConfigurationText, check_extra_index_url
from private_pypi.storage.verdicts import Expiry
from private_pypi.web.operations.telemetry_settings import TelemetrySettings
from private_pypi.web.serving.engines import ENGINES, GRANIAN, WAITRESS
from private_pypi.web.serving.granian.certificates import Certificate
from private_pypi.web.serving.receiving import FormLimits

MOST_WORKERS = 256
"""More are a mistake, such as a number that was meant for another flag."""


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """The options of a server, with the names of the flags of `private_pypi server`.

    Raises `ValueError` with all problems, one on each line.
    """

    root: Path
    environ: Mapping[str, str]
    config: ConfigurationText | None = None  # None: the configuration that is kept in ROOT
    admin_secret: ConfigurationText | None = None
    auth_read_expires: int = 3600  # seconds
    auth_write_expires: int = 300  # seconds
    extra_index_url: str = public_index_url()  # "": none
    debug: bool = False
    host: str = "0.0.0.0"  # noqa: S104 - as private-pypi 0.2 did
    port: int = 8888
    workers: int = 1  # processes
    admin_token: Secret | None = None
    allow_env: frozenset[str] = frozenset()
    allow_address: frozenset[str] = frozenset()
    host_names: frozenset[str] = frozenset()  # in lower case; empty: any
    max_form_bytes: int = FormLimits.max_field_bytes
    max_form_parts: int = FormLimits.max_parts
    metrics_token: Secret | None = None
    session_key: ConfigurationText | None = None  # None: the variable, or else the file in ROOT
    stop_delay: int = 0  # seconds
    log_format: str = "text"
    request_log: bool = True
    security_txt: str | None = None  # the content of /.well-known/security.txt (RFC 9116)
    engine: str | None = None  # None: granian if there is a certificate, else waitress
    tls_cert: Path | None = None
    tls_key: Path | None = None
    waitress_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        least = {"auth_read_expires": 0, "auth_write_expires": 0, "stop_delay": 0}
        least |= {"max_form_bytes": 1, "max_form_parts": 1}
        problems = [
            f"--{flag} must be at least {number}, but is {getattr(self, flag)}"
            for flag, number in least.items()
            if getattr(self, flag) < number
        ]
        if not 0 <= self.port <= 65535:
            problems.append(f"--port must be from 0 to 65535, but is {self.port}")
        if not 1 <= self.workers <= MOST_WORKERS:
            problems.append(f"--workers must be from 1 to {MOST_WORKERS}, but is {self.workers}")
        if self.log_format not in ("text", "json"):
            problems.append(f"--log_format must be text or json, but is {self.log_format!r}")
        if self.engine not in (None, *ENGINES):
            problems.append(f"--engine must be {' or '.join(ENGINES)}, but is {self.engine!r}")
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "--tls_cert" if self.tls_cert is None else "--tls_key"
            problems.append(f"--tls_cert and --tls_key belong together, but {missing} is missing")
        elif self.tls_cert is not None and self.engine == WAITRESS:
            problems.append(
                "--tls_cert: the engine waitress does not support TLS; leave out --engine, or put "
                "a proxy in front of the server (docs/proxies.md)"
            )
        try:
            url = check_extra_index_url(self.extra_index_url)
            object.__setattr__(self, "extra_index_url", url)
        except ValueError as error:
            problems.append(f"--extra_index_url: {error}")
        try:
            _ = self.telemetry
        except ValueError as error:
            problems.append(str(error))
        if problems:
            raise ValueError("\n".join(problems))

    @property
    def used_engine(self) -> str:
        """The engine that runs the server."""
        return self.engine or (WAITRESS if self.tls_cert is None else GRANIAN)

    @property
    def certificate(self) -> Certificate | None:
        """The certificate of a server with TLS; None: plain HTTP."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return Certificate(self.tls_cert, self.tls_key)

    @property
    def expiry(self) -> Expiry:
        """How long the storage's answers about secrets are remembered."""
        return Expiry(
            timedelta(seconds=self.auth_read_expires), timedelta(seconds=self.auth_write_expires)
        )

    @property
    def telemetry(self) -> TelemetrySettings | None:
        """Where to send traces, metrics and logs, as the environment says; None: nowhere."""
        return TelemetrySettings.from_environ(self.environ)

    @property
    def limits(self) -> FormLimits:
        """The limits of an upload form, without that of the file, which its repository has."""
        return FormLimits(
            max_file_bytes=0, max_field_bytes=self.max_form_bytes, max_parts=self.max_form_parts
        )
