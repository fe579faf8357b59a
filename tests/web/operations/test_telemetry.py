"""Telemetry: what a collector gets from a server, and what happens if there is no collector."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import logging
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import CollectorRegistry

from benchmarks.ports import free_port
from private_pypi import __version__
from private_pypi.testing.distributions import make_wheel
from private_pypi.web.operations import telemetry
from private_pypi.web.operations.telemetry import Telemetry
from private_pypi.web.operations.telemetry_settings import TelemetrySettings
from private_pypi.web.options import ServerOptions
from private_pypi.web.serving import Exchange
from tests.faults.servers import Server, Servers
from tests.waiting import eventually
from tests.web.conftest import basic

DEMO, CONTENT = make_wheel("demo", "1.0")
FLAGS = ("--extra_index_url=", "--metrics_token_env", "TOKEN")
AUTH = "Bearer secret-of-the-collector"
MESSAGES = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


class Collector:
    """A collector that keeps what it gets, as messages of the protocol."""

    def __init__(self, status: int = 200, *, hangs: bool = False) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self._answers = threading.Event()
        if not hangs:
            self._answers.set()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector._answers.wait(60)
                headers = {name.lower(): value for name, value in self.headers.items()}
                collector.got.append((self.path, headers, body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._answers.set()
        self._server.shutdown()
        self._server.server_close()

    def messages(self, path: str) -> list[Any]:
        return [MESSAGES[path].FromString(body) for at, _, body in self.got if at == path]

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for message in self.messages("/v1/traces")
            for of_resource in message.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the last message."""
        [of_resource] = self.messages("/v1/metrics")[-1].resource_metrics
        return {each.name: each for scope in of_resource.scope_metrics for each in scope.metrics}

    @property
    def logs(self) -> list[Any]:
        return [
            record
            for message in self.messages("/v1/logs")
            for of_resource in message.resource_logs
            for of_scope in of_resource.scope_logs
            for record in of_scope.log_records
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with contextlib.closing(Collector()) as made:
        yield made


def attributes(of: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in of.attributes
    }


def start(servers: Servers, **environ: str) -> Server:
    environ = {"TOKEN": "secret-of-metrics", **environ}
    return servers.start(servers.folder / "root", flags=FLAGS, environ=environ)


def exchange(status: int = 200) -> Exchange:
    return Exchange("the-id", {}, status, 5, 0.25)


# -- what is sent --------------------------------------------------------------------------------


@pytest.mark.needs("a server in a process of its own")
def test_a_collector_gets_traces_metrics_and_logs(servers: Servers, collector: Collector) -> None:
    server = start(
        servers,
        OTLP_ENDPOINT=f"{collector.url}/",
        OTLP_AUTH=AUTH,
        OTEL_RESOURCE_ATTRIBUTES="team=packaging",
        DEPLOYMENT_ENVIRONMENT="production",
        CONTAINER_APP_NAME="app",
        CONTAINER_APP_REVISION="app--1",
        CONTAINER_APP_REPLICA_NAME="app--1-x",
    )
    server.publish(DEMO, CONTENT)
    page = "/r/mine/simple/demo/"
    for _ in range(2):  # the second one is answered in the loop
        assert server.status(page) == 200
    assert server.status(f"{page}?token=secret-of-a-query") == 200
    assert server.status(page, auth=("mine", "secret-that-is-wrong")) == 401
    assert server.status("/secret-path") == 404
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 20
    assert {path for path, _, _ in collector.got} == set(MESSAGES)

    seen = sorted(
        (span.name, attributes(span)["http.response.status_code"]) for span in collector.spans
    )
    assert seen == [
        ("GET", 404),
        *[("GET /simple/<name>/", 200)] * 3,
        ("GET /simple/<name>/", 401),
        ("POST /", 200),
    ]
    [published] = [span for span in collector.spans if span.name == "POST /"]
    found = attributes(published)
    assert re.fullmatch("[0-9a-f]{16}", found.pop("private_pypi.request_id"))
    assert found.pop("http.response.body.size") > 0
    assert found == {
        "http.request.method": "POST",
        "http.route": "/",
        "http.response.status_code": 200,
        "private_pypi.repository": "mine",
    }
    assert published.kind == published.SPAN_KIND_SERVER
    assert 0 < published.end_time_unix_nano - published.start_time_unix_nano < 20e9
    assert len({span.trace_id for span in collector.spans}) == len(collector.spans)

    metrics = collector.metrics
    requests = metrics["private_pypi_http_requests_total"].sum
    assert requests.is_monotonic
    counts = {
        (labels["method"], labels["route"], labels["status"]): point.as_double
        for point in requests.data_points
        for labels in [attributes(point)]
    }
    assert counts == {
        ("GET", "(none)", "404"): 1,
        ("GET", "/simple/<name>/", "200"): 3,
        ("GET", "/simple/<name>/", "401"): 1,
        ("POST", "/", "200"): 1,
    }
    durations = metrics["private_pypi_http_request_duration_seconds"].histogram.data_points
    pages = [each for each in durations if attributes(each)["status"] == "200"]
    assert sorted(point.count for point in pages) == [1, 3]
    for point in pages:
        assert sum(point.bucket_counts) == point.count
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
        assert point.sum > 0
    ready = metrics["private_pypi_repository_ready"].gauge.data_points
    assert [(attributes(point), point.as_double) for point in ready] == [
        ({"repository": "mine"}, 1)
    ]
    assert {"process_start_time_seconds", "private_pypi_build_info"} <= set(metrics)

    [record] = [each for each in collector.logs if DEMO in each.body.string_value]
    assert (record.severity_text, record.severity_number) == ("INFO", 9)
    assert attributes(record)["action"] == "publish"
    assert attributes(record)["private_pypi.request_id"]

    for _, headers, body in collector.got:
        assert headers["authorization"] == AUTH
        assert b"secret-" not in body
        assert basic("mine", "w")["Authorization"].split()[1].encode() not in body
    for path, name in (
        ("/v1/traces", "resource_spans"),
        ("/v1/metrics", "resource_metrics"),
        ("/v1/logs", "resource_logs"),
    ):
        for message in collector.messages(path):
            for each in getattr(message, name):
                told = attributes(each.resource)
                expected = {
                    "service.name": "private_pypi",
                    "service.version": __version__,
                    "deployment.environment": "production",
                    "k8s.container.name": "app",
                    "k8s.pod.name": "app--1",
                    "k8s.replicaset.name": "app--1-x",
                    "team": "packaging",
                }
                assert expected.items() <= told.items()


@pytest.mark.needs("a server in a process of its own")
def test_the_standard_variables_are_enough(servers: Servers, collector: Collector) -> None:
    server = start(
        servers,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer%20other,X-Tenant=acme",
        OTEL_SERVICE_NAME="packages",
    )
    server.publish(DEMO, CONTENT)
    assert server.stop() == 0
    assert {path for path, _, _ in collector.got} == set(MESSAGES)
    for _, headers, _ in collector.got:
        assert (headers["authorization"], headers["x-tenant"]) == ("Bearer other", "acme")
    [message] = collector.messages("/v1/traces")
    assert attributes(message.resource_spans[0].resource)["service.name"] == "packages"


@pytest.mark.needs("a server in a process of its own")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="oteltap has a binary for x86_64 only")
def test_a_collector_that_others_wrote_understands_it(servers: Servers) -> None:
    from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

    port = free_port()

    async def receive() -> None:
        settings = OtelTapHttpProtobufReceiverSettings(http_port=port)
        async with OtelTapHttpProtobufReceiver(settings) as receiver:
            waits = (
                receiver.await_trace(lambda span: span.name == "GET /simple/", timeout=40),
                receiver.await_metric(
                    lambda metric: metric.name == "private_pypi_http_requests_total", timeout=40
                ),
                receiver.await_log(lambda record: record.severity_text != "", timeout=40),
            )
            together = asyncio.gather(*waits)
            await asyncio.sleep(0)
            await asyncio.to_thread(run)
            await together

    def run() -> None:
        server = start(servers, OTLP_ENDPOINT=f"http://127.0.0.1:{port}")
        server.publish(DEMO, CONTENT)
        assert server.status("/r/mine/simple/") == 200
        assert server.stop() == 0

    asyncio.run(receive())


def settings_for(url: str, **environ: str) -> TelemetrySettings:
    made = TelemetrySettings.from_environ({"OTLP_ENDPOINT": url, **environ})
    assert made is not None
    return made


def test_it_is_sent_again_and_again(collector: Collector) -> None:
    sends = Telemetry(settings_for(collector.url), interval=0.05)
    sends.start(CollectorRegistry())
    try:
        sends.answered(exchange(), "GET", "/simple/", "")
        eventually(lambda: len(collector.spans) == 1, "a span")
        sends.answered(exchange(503), "(other)", "(none)", "")
        eventually(lambda: len(collector.spans) == 2, "another span")
        eventually(lambda: len(collector.messages("/v1/metrics")) >= 2, "metrics")
    finally:
        sends.close()
    failed = collector.spans[-1]
    assert (failed.name, failed.status.code) == ("HTTP", failed.status.STATUS_CODE_ERROR)
    assert attributes(failed)["http.request.method"] == "_OTHER"
    assert failed.end_time_unix_nano - failed.start_time_unix_nano == 250_000_000


def test_log_records_are_cleaned(collector: Collector) -> None:
    sends = Telemetry(settings_for(collector.url))
    sends.start(CollectorRegistry())
    log = logging.getLogger("private_pypi.test")
    try:
        raise ValueError("https://user:secret@example.com")
    except ValueError:
        log.exception("from https://user:secret@example.com/ came \x1b[31m")
    logging.getLogger("urllib3.test").warning("GET /file?signature=secret")
    sends.close()
    assert len(collector.logs) == 2
    assert attributes(collector.logs[0])["exception.stacktrace"].startswith("Traceback")
    assert not any(b"secret" in body or b"\x1b" in body for _, _, body in collector.got)


# -- trouble -------------------------------------------------------------------------------------


@pytest.mark.needs("a server in a process of its own")
def test_a_collector_that_is_away_slows_nothing(servers: Servers) -> None:
    server = start(
        servers, OTLP_ENDPOINT=f"http://u:secret-1@127.0.0.1:{free_port()}", OTLP_AUTH=AUTH
    )
    began = time.monotonic()
    for _ in range(20):
        assert server.status("/r/mine/simple/") == 200
    assert time.monotonic() - began < 10
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 15
    said = [line for line in server.log.splitlines() if "OTLP_ENDPOINT" in line]
    assert len(said) <= 1
    assert "secret" not in server.log


@pytest.mark.needs("time")
def test_a_collector_that_hangs_is_left_after_five_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert telemetry._CLOSE_SECONDS + telemetry._GIVE_UP_SECONDS == 5
    monkeypatch.setattr(telemetry, "_CLOSE_SECONDS", 1.0)
    with contextlib.closing(Collector(hangs=True)) as collector:
        sends = Telemetry(settings_for(collector.url))
        sends.start(CollectorRegistry())
        sends.answered(exchange(), "GET", "/simple/", "")
        began = time.monotonic()
        sends.close()
        assert time.monotonic() - began < 20  # it hangs for 60
    for sender in sends._senders:  # so that the next test does not see what they log
        sender.join(20)
        assert not sender.is_running


def test_trouble_is_logged_once_and_its_end_too(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    with contextlib.closing(Collector(status=401)) as refuses:
        sends = Telemetry(settings_for(refuses.url), interval=0.02)
        sends.start(CollectorRegistry())
        eventually(lambda: len(refuses.messages("/v1/metrics")) >= 5, "tries")
        sends.close()
    said = [each.getMessage() for each in caplog.records if each.name == telemetry.__name__]
    [only] = [each for each in said if "OTLP_ENDPOINT" in each]
    assert "code: 401" in only
    trouble = telemetry._Trouble("OTLP_ENDPOINT")
    caplog.clear()
    trouble.failed("traces", "refused")
    trouble.failed("logs", "refused")
    trouble.succeeded("traces")
    trouble.succeeded("logs")
    trouble.succeeded("logs")
    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO"]


def test_a_full_queue_drops_what_is_new(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telemetry, "_LONGEST_QUEUE", 10)
    sends = Telemetry(settings_for(collector.url))
    for status in range(200, 220):
        sends.answered(exchange(status), "GET", "/simple/", "")
    sends.start(CollectorRegistry())
    sends.close()
    sent = [attributes(span)["http.response.status_code"] for span in collector.spans]
    assert sent == list(range(200, 210))
    assert "10 spans and 0 log records" in caplog.text


@pytest.mark.needs("time")
def test_the_reason_of_a_failure_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "_CLOSE_SECONDS", 1.0)
    port = free_port()
    sends = Telemetry(settings_for(f"http://127.0.0.1:{port}/secret", OTLP_AUTH=AUTH))
    sends.start(CollectorRegistry())
    sends.answered(exchange(), "GET", "/simple/", "")
    sends.close()
    [said] = [each.getMessage() for each in caplog.records if "OTLP_ENDPOINT" in each.getMessage()]
    assert "refused" in said.lower()
    assert "retrying" not in said
    assert "secret" not in caplog.text


def test_a_malformed_header_is_not_quoted(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for header in ("Authorization=secret%0Asecret", "secret"):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", header)
        sends = Telemetry(settings_for(collector.url))
        sends.start(CollectorRegistry())
        sends.close()
        assert "OTEL_EXPORTER_OTLP_HEADERS" in caplog.text
        assert "secret" not in caplog.text
        caplog.clear()


# -- settings ------------------------------------------------------------------------------------


def test_without_a_collector_there_are_no_settings() -> None:
    there = {"OTLP_ENDPOINT": "http://localhost:4318"}
    for environ in ({}, {"OTLP_ENDPOINT": " "}, {**there, "OTEL_SDK_DISABLED": "true"}):
        assert TelemetrySettings.from_environ(environ) is None
    assert settings_for("http://localhost:4318/", OTLP_AUTH="").endpoint == there["OTLP_ENDPOINT"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTLP_ENDPOINT", "secret:4317"),
        ("OTLP_ENDPOINT", "grpc://secret"),
        ("OTLP_ENDPOINT", "http://[secret"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https:///secret"),
        ("OTLP_AUTH", "secret\nsecret"),
    ],
)
def test_wrong_settings_are_told_but_not_quoted(tmp_path: Path, variable: str, value: str) -> None:
    environ = {variable: value}
    if variable == "OTLP_AUTH":
        environ["OTLP_ENDPOINT"] = "http://localhost:4318"
    with pytest.raises(ValueError, match=f"^{variable} must") as caught:
        ServerOptions(root=tmp_path, environ=environ)
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_told_in_one_sentence(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from private_pypi.cli import main\n"
        "raise SystemExit(main(['server', sys.argv[1], '--port=0', '--host=127.0.0.1'],"
        " {'OTLP_ENDPOINT': 'http://localhost:4318'}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "root"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode != 0
    [line] = [line for line in ended.stderr.splitlines() if line.strip()]
    assert "OTLP_ENDPOINT is set" in line
    assert "install private-pypi[otlp]" in line
