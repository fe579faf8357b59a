"""The numbers of several workers, added up: also those of workers that ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from private_pypi.errors import BackendUnavailable
from private_pypi.web.api.worker_metrics import WorkerMetrics


class Numbers(Collector):
    """The metrics of one process, as a test sets them."""

    def __init__(self) -> None:
        self.requests: dict[str, float] = {}
        self.connections = 0.0
        self.cache = 0.0
        self.limit: tuple[float, float] | None = None  # what remains, and when it is reset

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("private_pypi_http_requests", "Requests.", labels=["route"])
        seconds = HistogramMetricFamily("private_pypi_seconds", "Seconds.", labels=["route"])
        for route, count in self.requests.items():
            requests.add_metric([route], count)
            seconds.add_metric([route], [("1", count - 1), ("+Inf", count)], count / 2)
        yield from (requests, seconds)
        yield GaugeMetricFamily("private_pypi_connections", "Open.", value=self.connections)
        yield GaugeMetricFamily("private_pypi_cache_bytes", "Size.", value=self.cache)
        remaining = GaugeMetricFamily(
            "private_pypi_provider_limit_remaining", "Left.", labels=["repository"]
        )
        resets = GaugeMetricFamily(
            "private_pypi_provider_limit_resets_timestamp_seconds", "Then.", labels=["repository"]
        )
        if self.limit is not None:
            remaining.add_metric(["mine"], self.limit[0])
            resets.add_metric(["mine"], self.limit[1])
        yield from (remaining, resets)


class Worker:
    """A worker of these tests; all of them are in one process."""

    def __init__(self, folder: Path, number: int) -> None:
        self.numbers = Numbers()
        self.metrics = WorkerMetrics(self.numbers, folder, number)

    def text(self) -> list[str]:
        lines = generate_latest(self.metrics).decode().splitlines()
        return [line.removeprefix("private_pypi_") for line in lines if line[0] != "#"]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Worker, Worker]]:
    workers = Worker(tmp_path, 1), Worker(tmp_path, 2)
    yield workers
    for worker in workers:
        worker.metrics.close()


def test_counters_and_gauges_are_added_up(both: tuple[Worker, Worker]) -> None:
    one, other = both
    one.numbers.requests = {"/": 3, "/a": 1}
    other.numbers.requests = {"/": 4, "/b": 2}
    one.numbers.connections, other.numbers.connections = 5, 6
    one.numbers.cache, other.numbers.cache = 100, 70
    other.text()
    assert one.text() == [
        'http_requests_total{route="/"} 7.0',
        'http_requests_total{route="/a"} 1.0',
        'http_requests_total{route="/b"} 2.0',
        # In each series, the buckets are in order.
        'seconds_bucket{le="1",route="/"} 5.0',
        'seconds_bucket{le="+Inf",route="/"} 7.0',
        'seconds_count{route="/"} 7.0',
        'seconds_sum{route="/"} 3.5',
        'seconds_bucket{le="1",route="/a"} 0.0',
        'seconds_bucket{le="+Inf",route="/a"} 1.0',
        'seconds_count{route="/a"} 1.0',
        'seconds_sum{route="/a"} 0.5',
        'seconds_bucket{le="1",route="/b"} 1.0',
        'seconds_bucket{le="+Inf",route="/b"} 2.0',
        'seconds_count{route="/b"} 2.0',
        'seconds_sum{route="/b"} 1.0',
        "connections 11.0",
        "cache_bytes 100.0",  # they share it
    ]


def test_a_worker_goes_on_from_the_numbers_of_the_one_that_it_replaces(tmp_path: Path) -> None:
    first = Worker(tmp_path, 1)
    first.numbers.requests, first.numbers.connections = {"/": 3, "/rare": 1}, 9
    first.metrics.close()
    second = Worker(tmp_path, 1)
    second.numbers.requests = {"/": 1}
    told = second.text()
    assert [line for line in told if line.startswith(("http", "conn"))] == [
        'http_requests_total{route="/"} 4.0',
        'http_requests_total{route="/rare"} 1.0',
        "connections 0.0",
    ]
    second.numbers.requests = {"/": 2}
    second.metrics.close()
    third = Worker(tmp_path, 1)
    assert 'http_requests_total{route="/"} 5.0' in third.text()
    third.metrics.close()


def test_gauges_of_a_process_that_ended_do_not_count(
    tmp_path: Path, both: tuple[Worker, Worker]
) -> None:
    one, other = both
    other.numbers.requests, other.numbers.connections = {"/": 4}, 6
    other.metrics.close()
    one.numbers.connections = 5
    path = tmp_path / "numbers-2.json"
    value = json.loads(path.read_text())
    assert value["process"] == os.getpid()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path.write_text(json.dumps({**value, "process": ended.pid}))
    assert "connections 5.0" in one.text()
    assert 'http_requests_total{route="/"} 4.0' in one.text()


def test_of_a_limit_the_newest_is_told(both: tuple[Worker, Worker]) -> None:
    one, other = both
    one.numbers.limit, other.numbers.limit = (10.0, 1000.0), (40.0, 2000.0)
    other.text()
    assert 'provider_limit_remaining{repository="mine"} 40.0' in one.text()
    one.numbers.limit = (30.0, 2000.0)  # both have asked since the reset
    assert 'provider_limit_remaining{repository="mine"} 30.0' in one.text()
    assert 'provider_limit_resets_timestamp_seconds{repository="mine"} 2000.0' in one.text()


def test_numbers_that_cannot_be_read_are_an_error(
    tmp_path: Path, both: tuple[Worker, Worker]
) -> None:
    (tmp_path / "numbers-3.json").write_text("{")
    with pytest.raises(BackendUnavailable, match="could not be added up"):
        both[0].text()
