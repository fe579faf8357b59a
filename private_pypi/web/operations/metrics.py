"""`GET /metrics` in the text formats of Prometheus; everything is counted elsewhere.

What is shown is this process alone, but for the state of the repositories, which all processes of a
ROOT share. No label holds what a client chose: methods, routes, statuses and repositories are few.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator

from flask import Blueprint, Response, request
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
from private_pypi.backend import Usage
from private_pypi.repositories import Repository
from private_pypi.web.auth import parse_credentials
from private_pypi.web.content import PageCache
from private_pypi.web.deployment import Deployment
from private_pypi.web.operations.watching import BUCKETS, Watch
from private_pypi.web.requests import deployment

_OF_REQUEST = ("method", "route", "status")
_OF_REPOSITORY = ("repository",)
_OTHERS = "(others)"


class Metrics:
    """All that one process counts."""

    def __init__(self, served: Deployment, watch: Watch, pages: PageCache) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Server(served, watch, pages))
        self._registry.register(_Repositories(served))
        ProcessCollector(registry=self._registry)

    def render(self, accept: str | None) -> tuple[str, bytes]:
        """The content type and the text that suit an `Accept` header."""
        encode, content_type = choose_encoder(accept or "")
        return content_type, encode(self._registry)


def make_blueprint(metrics: Metrics) -> Blueprint:
    """The route; for those who show a token."""
    blueprint = Blueprint("metrics", __name__)

    def show() -> Response:
        deployment().require_operator(parse_credentials(request.headers.get("Authorization")))
        content_type, text = metrics.render(request.headers.get("Accept"))
        return Response(text, content_type=content_type, headers={"Cache-Control": "no-store"})

    for rule in ("/metrics", "/metrics/"):
        blueprint.add_url_rule(rule, view_func=show, methods=["GET"])
    return blueprint


class _Server(Collector):
    def __init__(self, served: Deployment, watch: Watch, pages: PageCache) -> None:
        self._served = served
        self._watch = watch
        self._pages = pages

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "private_pypi_build",
            "What runs.",
            value={"version": __version__, "python": platform.python_version()},
        )
        yield from self._requests()
        load = self._watch.load()
        if load is not None:
            yield _gauge("connections", "Open connections of clients.", load.connections)
            yield _gauge(
                "http_requests_in_flight",
                "Requests that wait for a thread or are in one.",
                load.requests,
            )
        yield from self._changes()
        yield _counter("page_cache_hits", "Pages that were rendered already.", self._pages.hits)
        yield _counter("page_cache_misses", "Pages that were rendered.", self._pages.misses)
        yield _gauge("page_cache_bytes", "Memory of rendered pages.", self._pages.size)
        dropped = 0 if self._watch.log is None else self._watch.log.dropped
        yield _counter(
            "log_lines_dropped",
            "Lines of requests that were not written because nobody read the log.",
            dropped,
        )

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "private_pypi_http_requests", "Requests that were answered.", labels=_OF_REQUEST
        )
        seconds = HistogramMetricFamily(
            "private_pypi_http_request_duration_seconds",
            "From the first byte of a request to the last of its answer that was handed over.",
            labels=_OF_REQUEST,
        )
        sent = CounterMetricFamily(
            "private_pypi_http_response_bytes", "Bytes of bodies of answers.", labels=_OF_REQUEST
        )
        for (method, route, status), (counts, total, size) in self._watch.series().items():
            labels = (method, route, str(status))
            requests.add_metric(labels, sum(counts))
            sent.add_metric(labels, size)
            so_far, buckets = 0, []
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                so_far += count
                buckets.append((bound, float(so_far)))
            seconds.add_metric(labels, buckets, total)
        yield from (requests, seconds, sent)

    def _changes(self) -> Iterator[Metric]:
        changes = CounterMetricFamily(
            "private_pypi_changes",
            "Uploads (publish), deletes, yanks and new configurations.",
            labels=("repository", "action", "outcome"),
        )
        published = CounterMetricFamily(
            "private_pypi_published_bytes", "Bytes of uploaded files.", labels=_OF_REPOSITORY
        )
        counted = self._served.changes
        known = {repository.name for repository in self._served.repositories}
        totals: dict[tuple[str, str, str], int] = {}
        for (name, action, outcome), count in counted.counts().items():
            key = (_bounded(name, known), action, outcome)
            totals[key] = totals.get(key, 0) + count
        for labels, count in totals.items():
            changes.add_metric(labels, count)
        sizes: dict[str, int] = {}
        for name, size in counted.published_bytes().items():
            sizes[_bounded(name, known)] = sizes.get(_bounded(name, known), 0) + size
        for name, size in sizes.items():
            published.add_metric((name,), size)
        yield from (changes, published)
        yield _counter(
            "audit_failures", "Audit lines that could not be written.", counted.audit.failures
        )


class _Repositories(Collector):
    def __init__(self, served: Deployment) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        repositories = list(self._served.repositories)
        yield from _states(repositories)
        yield from _synchronizations(repositories)
        yield from _caches(repositories)
        used = [(repository.name, repository.usage()) for repository in repositories]
        yield from _usages([(name, usage) for name, usage in used if usage is not None])


def _states(repositories: Iterable[Repository]) -> Iterator[Metric]:
    ready = GaugeMetricFamily(
        "private_pypi_repository_ready",
        "Whether a repository can answer.",
        labels=_OF_REPOSITORY,
    )
    failing = GaugeMetricFamily(
        "private_pypi_repository_failing",
        "Whether its last synchronisation failed, or it cannot answer.",
        labels=_OF_REPOSITORY,
    )
    synced = GaugeMetricFamily(
        "private_pypi_repository_synchronized_timestamp_seconds",
        "When a process of this ROOT synchronised it last.",
        labels=_OF_REPOSITORY,
    )
    for repository in repositories:
        state = repository.state()
        ready.add_metric((repository.name,), state.ready)
        failing.add_metric((repository.name,), state.error is not None)
        if state.synced_at is not None:
            synced.add_metric((repository.name,), state.synced_at)
    yield from (ready, failing, synced)


def _synchronizations(repositories: Iterable[Repository]) -> Iterator[Metric]:
    count = CounterMetricFamily(
        "private_pypi_synchronizations",
        "Synchronisations by this process.",
        labels=("repository", "outcome"),
    )
    seconds = SummaryMetricFamily(
        "private_pypi_synchronization_duration_seconds",
        "Time that they took.",
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
    labels = ("repository", "cache")
    hits = CounterMetricFamily(
        "private_pypi_cache_hits", "Files of the storage that were on our disk.", labels=labels
    )
    misses = CounterMetricFamily(
        "private_pypi_cache_misses", "Files of the storage that were not.", labels=labels
    )
    kept = GaugeMetricFamily(
        "private_pypi_cache_bytes",
        "What the cache keeps, as far as this process knows.",
        labels=labels,
    )
    for repository in repositories:
        if repository.is_local:
            continue  # its storage is as near as a cache
        for name, cache in (("files", repository.files), ("metadata", repository.metadata)):
            hits.add_metric((repository.name, name), cache.hits)
            misses.add_metric((repository.name, name), cache.misses)
            if cache.size is not None:
                kept.add_metric((repository.name, name), cache.size)
    yield from (hits, misses, kept)


def _usages(used: Iterable[tuple[str, Usage]]) -> Iterator[Metric]:
    asked = CounterMetricFamily(
        "private_pypi_provider_requests",
        "Requests to the provider of the storage, by class of status.",
        labels=("repository", "status"),
    )
    labels = ("repository", "resource")
    limit = GaugeMetricFamily(
        "private_pypi_provider_limit",
        "Requests that the provider allows to the repository's own secret.",
        labels=labels,
    )
    remaining = GaugeMetricFamily(
        "private_pypi_provider_limit_remaining",
        "Requests that are left of them, as the provider said last.",
        labels=labels,
    )
    resets = GaugeMetricFamily(
        "private_pypi_provider_limit_resets_timestamp_seconds",
        "When the limit begins anew.",
        labels=labels,
    )
    for name, usage in used:
        for status, count in usage.requests.items():
            asked.add_metric((name, status), count)
        for told in usage.limits:
            limit.add_metric((name, told.resource), told.limit)
            remaining.add_metric((name, told.resource), told.remaining)
            resets.add_metric((name, told.resource), told.resets_at.timestamp())
    yield from (asked, limit, remaining, resets)


def _bounded(name: str, known: set[str]) -> str:
    """The label of a repository: of those that come and go there may be many."""
    return name if not name or name in known else _OTHERS


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"private_pypi_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"private_pypi_{name}", text, value=value)
