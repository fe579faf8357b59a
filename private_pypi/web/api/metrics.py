"""`GET /metrics` in the text formats of Prometheus. Nothing is counted here.

All values are those of this process, except for the state of the repositories, which the processes
of a ROOT share. If the server has several worker processes, `worker_metrics` adds up their values.
No label has a value that a client can choose, so their number is limited.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator

from flask import Response, current_app, request
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from private_pypi import __version__
from private_pypi.repositories import Repository
from private_pypi.web.api.worker_metrics import WorkerMetrics
from private_pypi.web.deployment import Deployment
from private_pypi.web.http.credentials import parse_credentials
from private_pypi.web.http.page_cache import PageCache
from private_pypi.web.http.routes import Route
from private_pypi.web.operations.request_statistics import BUCKETS, RequestStatistics
from private_pypi.web.requests import deployment

METRICS = "private_pypi.metrics"
"""The key of the `AllMetrics` in `Flask.extensions`."""

_OF_REQUEST = ("method", "route", "status")
_OF_REPOSITORY = ("repository",)
_OF_CACHE = ("repository", "cache")
_OF_PROVIDER = ("repository", "resource")
_OTHERS = "(others)"


class AllMetrics(Collector):
    """The metrics of a server: of this process, or of all its workers. `close` it at the end."""

    def __init__(self, served: Deployment, statistics: RequestStatistics, pages: PageCache) -> None:
        counted = CollectorRegistry()
        counted.register(_Counted(served, statistics, pages))
        ProcessCollector(registry=counted)
        self._counted: Collector = counted
        self._workers = None
        if served.worker is not None:
            folder, number = served.worker.shared.folder, served.worker.number
            self._counted = self._workers = WorkerMetrics(counted, folder, number)
        self._state = _State(served)

    def collect(self) -> Iterator[Metric]:
        """The families of metrics with their present values."""
        yield from self._state.collect()
        yield from self._counted.collect()

    def close(self) -> None:
        """Let what this process has counted count for the process that replaces it."""
        if self._workers is not None:
            self._workers.close()


def show_metrics() -> Response:
    """The metrics, for callers with the token of an operator."""
    deployment().require_operator(parse_credentials(request.headers.get("Authorization")))
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    text = encode(current_app.extensions[METRICS])
    return Response(text, content_type=content_type, headers={"Cache-Control": "no-store"})


ROUTES = (Route("/metrics", show_metrics), Route("/metrics/", show_metrics))


class _State(Collector):
    """What all processes of a ROOT would say."""

    def __init__(self, served: Deployment) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "private_pypi_build",
            "The versions of this server and of Python.",
            value={"version": __version__, "python": platform.python_version()},
        )
        yield from _states(self._served.repositories)


class _Counted(Collector):
    """What this process has counted."""

    def __init__(self, served: Deployment, statistics: RequestStatistics, pages: PageCache) -> None:
        self._served = served
        self._statistics = statistics
        self._pages = pages

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._load()
        repositories = list(self._served.repositories)
        yield from self._changes({repository.name for repository in repositories})
        yield from self._page_cache()
        yield from _synchronizations(repositories)
        yield from _caches(repositories)
        yield from _usages(repositories)

    def _requests(self) -> Iterator[Metric]:
        requests = _counter("http_requests", "Requests that were answered.", _OF_REQUEST)
        seconds = HistogramMetricFamily(
            "private_pypi_http_request_duration_seconds",
            "Time from the first byte of a request until its answer was handed over.",
            labels=_OF_REQUEST,
        )
        sent = _counter("http_response_bytes", "Bytes of bodies of answers.", _OF_REQUEST)
        for (method, route, status), (counts, total, size) in self._statistics.series().items():
            labels = (method, route, str(status))
            requests.add_metric(labels, sum(counts))
            sent.add_metric(labels, size)
            so_far, buckets = 0, []
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                so_far += count
                buckets.append((bound, float(so_far)))
            seconds.add_metric(labels, buckets, total)
        yield from (requests, seconds, sent)

    def _load(self) -> Iterator[Metric]:
        load = self._statistics.load()
        if load is not None:
            connections = "Open connections of clients."
            yield _gauge("connections", connections, value=load.connections)
            requests = "Requests that wait for a thread or run in one."
            yield _gauge("http_requests_in_flight", requests, value=load.requests)
        lost = "Lines of requests that were lost because the log was not read fast enough."
        log = self._statistics.log
        yield _counter("log_lines_dropped", lost, value=0 if log is None else log.dropped)

    def _changes(self, known: set[str]) -> Iterator[Metric]:
        changes = _counter(
            "changes",
            "Uploads (publish), deletes, yanks and new configurations.",
            ("repository", "action", "outcome"),
        )
        published = _counter("published_bytes", "Bytes of uploaded files.", _OF_REPOSITORY)
        noted = self._served.changes
        totals: Counter[tuple[str, str, str]] = Counter()
        for (name, action, outcome), count in noted.counts().items():
            totals[_label(name, known), action, outcome] += count
        for labels, count in totals.items():
            changes.add_metric(labels, count)
        sizes: Counter[str] = Counter()
        for name, size in noted.published_bytes().items():
            sizes[_label(name, known)] += size
        for name, size in sizes.items():
            published.add_metric((name,), size)
        yield from (changes, published)
        failures = "Audit lines that could not be written."
        yield _counter("audit_failures", failures, value=noted.audit.failures)

    def _page_cache(self) -> Iterator[Metric]:
        pages = self._pages
        yield _counter("page_cache_hits", "Pages that were found in memory.", value=pages.hits)
        yield _counter("page_cache_misses", "Pages that were rendered.", value=pages.misses)
        yield _gauge("page_cache_bytes", "Memory of rendered pages.", value=pages.size)


def _states(repositories: Iterable[Repository]) -> Iterator[Metric]:
    ready = _gauge("repository_ready", "Whether a repository can answer.", _OF_REPOSITORY)
    failing = _gauge(
        "repository_failing",
        "Whether the last synchronisation of a repository failed, or it cannot answer.",
        _OF_REPOSITORY,
    )
    stale = _gauge(
        "repository_stale",
        "Whether projects that a repository does not have are answered with 503, because its "
        "index may be out of date.",
        _OF_REPOSITORY,
    )
    synced = _gauge(
        "repository_synchronized_timestamp_seconds",
        "When a process of this ROOT last synchronised the repository.",
        _OF_REPOSITORY,
    )
    for repository in repositories:
        state = repository.state()
        labels = (repository.name,)
        ready.add_metric(labels, state.ready)
        failing.add_metric(labels, state.error is not None)
        stale.add_metric(labels, state.stale is not None)
        if state.synced_at is not None:
            synced.add_metric(labels, state.synced_at)
    yield from (ready, failing, stale, synced)


def _synchronizations(repositories: Iterable[Repository]) -> Iterator[Metric]:
    count = _counter(
        "synchronizations", "Synchronisations by this process.", ("repository", "outcome")
    )
    seconds = SummaryMetricFamily(
        "private_pypi_synchronization_duration_seconds",
        "Time that synchronisations took.",
        labels=_OF_REPOSITORY,
    )
    for repository in repositories:
        counts = repository.sync_counts()
        if counts is not None:
            count.add_metric((repository.name, "done"), counts.done)
            count.add_metric((repository.name, "failed"), counts.failed)
            seconds.add_metric((repository.name,), counts.done + counts.failed, counts.seconds)
    yield from (count, seconds)


def _caches(repositories: Iterable[Repository]) -> Iterator[Metric]:
    hits = _counter(
        "cache_hits",
        "Files of the storage that were in the disk cache, or on their way there.",
        _OF_CACHE,
    )
    misses = _counter(
        "cache_misses", "Files of the storage that were not in the disk cache.", _OF_CACHE
    )
    damaged = _counter(
        "cache_damaged",
        "Files that were removed from the disk cache because they were damaged.",
        _OF_CACHE,
    )
    not_kept = _counter(
        "cache_not_kept",
        "Files that were sent without being kept, because they could not be written to disk.",
        _OF_CACHE,
    )
    kept = _gauge("cache_bytes", "Size of the disk cache, as this process knows it.", _OF_CACHE)
    for repository in repositories:
        for name, cache in repository.caches().items():
            labels = (repository.name, name)
            hits.add_metric(labels, cache.hits)
            misses.add_metric(labels, cache.misses)
            damaged.add_metric(labels, cache.damaged)
            not_kept.add_metric(labels, cache.not_kept)
            if cache.size is not None:
                kept.add_metric(labels, cache.size)
    yield from (hits, misses, damaged, not_kept, kept)


def _usages(repositories: Iterable[Repository]) -> Iterator[Metric]:
    requests = _counter(
        "provider_requests",
        "Requests to the provider of the storage, by class of status.",
        ("repository", "status"),
    )
    limit = _gauge(
        "provider_limit",
        "Requests that the provider allows with the repository's own secret.",
        _OF_PROVIDER,
    )
    remaining = _gauge(
        "provider_limit_remaining",
        "Requests that were left of the limit when the provider last reported it.",
        _OF_PROVIDER,
    )
    resets = _gauge(
        "provider_limit_resets_timestamp_seconds", "When the limit is reset.", _OF_PROVIDER
    )
    for repository in repositories:
        usage = repository.usage()
        if usage is None:
            continue
        for status, count in usage.requests.items():
            requests.add_metric((repository.name, status), count)
        for each in usage.limits:
            labels = (repository.name, each.resource)
            limit.add_metric(labels, each.limit)
            remaining.add_metric(labels, each.remaining)
            resets.add_metric(labels, each.resets_at.timestamp())
    yield from (requests, limit, remaining, resets)


def _label(name: str, known: set[str]) -> str:
    """The label for a repository; all that were removed share one, because they may be many."""
    return name if not name or name in known else _OTHERS


def _gauge(
    name: str, text: str, labels: tuple[str, ...] | None = None, value: float | None = None
) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"private_pypi_{name}", text, labels=labels, value=value)


def _counter(
    name: str, text: str, labels: tuple[str, ...] | None = None, value: float | None = None
) -> CounterMetricFamily:
    return CounterMetricFamily(f"private_pypi_{name}", text, labels=labels, value=value)
