"""Send traces, metrics and logs to an OpenTelemetry collector, over HTTP with protobuf (OTLP).

Nothing of this happens unless the environment names a collector, and only then is the package
`opentelemetry` imported: it belongs to the extra `otlp` and takes time and memory.

Requests and log records are put into queues of limited length, which is all that the threads of the
server do. Each kind of data (a *signal*) has a thread of its own, which sends what is in its queue
every 30 seconds. While the collector cannot be reached, the newest data is dropped once a queue is
full.

Nothing is sent that is not in the log or in `/metrics` too: a span has the route of a request and
not its path, and the texts of log records are cleaned as they are for the log.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from private_pypi import __version__
from private_pypi.errors import ConfigurationError
from private_pypi.web.operations.logs import clean, describe, without_queries
from private_pypi.web.operations.request_statistics import NO_ROUTE
from private_pypi.web.operations.telemetry_settings import AUTH, HEADERS, NAME, TelemetrySettings
from private_pypi.web.serving import Exchange

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.metrics.export import Metric, MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

logger = logging.getLogger(__name__)

T = TypeVar("T")

_INTERVAL = 30.0  # seconds between two requests with the same signal
_CLOSE_SECONDS = 4.5  # for what still waits when the server stops
_GIVE_UP_SECONDS = 0.5  # after that, until the threads have ended
_WARN_EVERY = 600.0  # seconds between two warnings that nothing can be sent
_LONGEST_QUEUE = 10_000  # requests or log records, some MB
_BATCH = 1000  # spans or log records in one request to the collector
_THREAD = "telemetry "  # how the names of our threads begin
_ADDRESS = re.compile(r"(with url: |https?://)[^\s\"']+")


class Collects(Protocol):
    """What is used of a `CollectorRegistry` of prometheus_client."""

    def collect(self) -> Iterable[Any]:
        """The families of metrics with their present values."""


class Telemetry:
    """Sends the telemetry of this process; `close` it at the end."""

    def __init__(
        self,
        settings: TelemetrySettings,
        *,
        interval: float = _INTERVAL,
        began: int | None = None,
    ) -> None:
        """Keep the log records from now on. Nothing is sent before `start`.

        `began` is when counting began, in nanoseconds since the epoch; None: now.
        Raises `ConfigurationError` if the packages of the extra are missing.
        """
        self._trouble = _Trouble(settings.variable)
        try:
            with self._trouble.starting():
                self._collector = _Collector(settings, began or time.time_ns())
        except ImportError as error:
            raise ConfigurationError(
                f"{settings.variable} is set, but the packages that send telemetry are not "
                f"installed (no module {error.name}); install private-pypi[otlp], or unset it"
            ) from error
        self._interval = interval
        self._spans: _Queue[_Span] = _Queue()
        self._logs: _Queue[_Event] = _Queue()
        self._handler = _Handler(self._logs)
        self._senders: list[_Sender] = []
        logging.getLogger().addHandler(self._handler)

    def answered(self, exchange: Exchange, method: str, route: str, repository: str) -> None:
        """Have a span sent for a request. Does not block."""
        self._spans.append(
            _Span(
                time.time_ns(),
                exchange.seconds,
                method,
                route,
                exchange.status,
                exchange.sent,
                exchange.request_id,
                repository,
            )
        )

    def start(self, metrics: Collects | None) -> None:
        """Begin to send. Without `metrics`, none are sent."""
        collector, spans, logs = self._collector, self._spans, self._logs
        sends: list[tuple[str, Callable[[], bool], threading.Event]] = [
            ("traces", lambda: spans.send(collector.send_spans), spans.is_half_full),
            ("logs", lambda: logs.send(collector.send_logs), logs.is_half_full),
        ]
        if metrics is not None:
            send_metrics = partial(collector.send_metrics, metrics)
            sends.insert(1, ("metrics", send_metrics, threading.Event()))
        self._senders = [
            _Sender(signal, send, wake, self._trouble, self._interval)
            for signal, send, wake in sends
        ]

    def close(self) -> None:
        """Send what waits, for at most five seconds, and end."""
        logging.getLogger().removeHandler(self._handler)
        deadline = time.monotonic() + _CLOSE_SECONDS
        for sender in self._senders:
            sender.end()
        for sender in self._senders:
            sender.join(deadline - time.monotonic())
        self._collector.close()
        for sender in self._senders:  # they stop trying now, and say why it failed
            sender.join(deadline + _GIVE_UP_SECONDS - time.monotonic())
        if not any(sender.is_running for sender in self._senders):
            self._trouble.uninstall()  # a thread that still runs might log
        spans, logs = self._spans.unsent, self._logs.unsent
        if spans or logs:
            logger.warning(
                "of this run, %d spans and %d log records did not get to the collector", spans, logs
            )


# -- queues and threads --------------------------------------------------------------------------


class _Span(NamedTuple):
    """A request, as it is kept until it is sent."""

    ended: int  # nanoseconds since the epoch
    seconds: float
    method: str
    route: str
    status: int
    sent: int
    request_id: str
    repository: str


class _Event(NamedTuple):
    """A log record, as it is kept until it is sent."""

    at: int  # nanoseconds since the epoch
    level: int
    level_name: str
    logger: str
    message: str
    facts: Mapping[str, object]


class _Queue(Generic[T]):
    """What waits to be sent. If it is full, new entries are dropped."""

    def __init__(self) -> None:
        self.is_half_full = threading.Event()
        self._waiting: deque[T] = deque()
        self._lost = 0

    @property
    def unsent(self) -> int:
        """How many entries wait or were lost. Threads that drop at the same time may count one."""
        return len(self._waiting) + self._lost

    def append(self, entry: T) -> None:
        waiting = len(self._waiting)
        if waiting >= _LONGEST_QUEUE:
            self._lost += 1
            return
        self._waiting.append(entry)
        if waiting >= _LONGEST_QUEUE // 2 and not self.is_half_full.is_set():
            self.is_half_full.set()

    def send(self, send: Callable[[Sequence[T]], bool]) -> bool:
        """Send what waits now. Stops after the first batch that fails, which is lost."""
        left = len(self._waiting)
        while left:
            size = min(left, _BATCH)
            if not send([self._waiting.popleft() for _ in range(size)]):
                self._lost += size
                return False
            left -= size
        return True


class _Sender:
    """The thread of one signal."""

    def __init__(
        self,
        signal: str,
        send: Callable[[], bool],
        wake: threading.Event,
        trouble: _Trouble,
        interval: float,
    ) -> None:
        self._signal = signal
        self._send = send
        self._wake = wake
        self._trouble = trouble
        self._interval = interval
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name=_THREAD + signal, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ends.set()
        self._wake.set()

    def join(self, seconds: float) -> None:
        self._thread.join(max(seconds, 0))

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        wake = self._wake
        while True:
            wake.wait(self._interval)
            if self._ends.is_set():
                break
            self._wake.clear()
            # After a failure, a queue that is half full does not wake the thread, but only the end.
            wake = self._wake if self._send_once() else self._ends
        self._send_once()

    def _send_once(self) -> bool:
        try:
            sent = self._send()
        except Exception as error:  # a defect, which must not end the thread
            self._trouble.failed(self._signal, type(error).__name__)
            return False
        if sent:
            self._trouble.succeeded(self._signal)
        else:
            self._trouble.failed(self._signal, None)
        return sent


class _Trouble(logging.Handler):
    """Says that nothing can be sent, and why, but not each time.

    The exporters tell a reason only to their loggers, where they also repeat themselves. So this
    is the handler of these loggers, and keeps the reason for each thread.
    """

    def __init__(self, variable: str) -> None:
        super().__init__(logging.WARNING)
        self._variable = variable
        self._is_starting = False
        self._of_thread = threading.local()  # its `reason`, if there is one
        self._state_lock = threading.Lock()  # guards what follows
        self._failing: set[str] = set()
        self._warned_at: float | None = None
        self._has_warned = False  # since all was well

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Become their handler, and log what they say meanwhile about the environment."""
        theirs = logging.getLogger("opentelemetry")
        theirs.propagate = False
        theirs.addHandler(self)
        self._is_starting = True
        try:
            yield
        except BaseException:
            self.uninstall()
            raise
        finally:
            self._is_starting = False

    def uninstall(self) -> None:
        theirs = logging.getLogger("opentelemetry")
        theirs.removeHandler(self)
        theirs.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_starting:
            logger.warning("opentelemetry: %s", _reason(record))
        elif not hasattr(self._of_thread, "reason"):
            # Of several tries, the first one: the last reason is only that there were too many.
            self._of_thread.reason = _reason(record)

    def failed(self, signal: str, reason: str | None) -> None:
        told = self._taken_reason()
        with self._state_lock:
            self._failing.add(signal)
            now = time.monotonic()
            if self._warned_at is not None and now - self._warned_at < _WARN_EVERY:
                return
            self._warned_at = now
            self._has_warned = True
        logger.warning(
            "the collector that %s names did not get the %s: %s",
            self._variable,
            signal,
            reason or told,
        )

    def succeeded(self, signal: str) -> None:
        self._taken_reason()  # of a try that was repeated
        with self._state_lock:
            self._failing.discard(signal)
            if self._failing or not self._has_warned:
                return
            self._has_warned = False
        logger.info("the collector that %s names gets telemetry again", self._variable)

    def _taken_reason(self) -> str:
        reason = getattr(self._of_thread, "reason", "no reason is known")
        vars(self._of_thread).clear()
        return reason


def _reason(record: logging.LogRecord) -> str:
    """What a record says, without headers and addresses, as both may be secret."""
    said = record.getMessage()
    if "header" in said.lower():  # what refuses a header quotes it
        return f"a header is malformed; check {AUTH} and {HEADERS}"
    return _ADDRESS.sub(r"\1…", clean(said)).partition(", retrying in")[0]


class _Handler(logging.Handler):
    """Puts log records into the queue, except for those about sending."""

    def __init__(self, events: _Queue[_Event]) -> None:
        super().__init__()
        self.addFilter(without_queries)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        if (record.threadName or "").startswith(_THREAD):
            return
        try:
            message, facts = describe(record)
        except Exception:
            self.handleError(record)
            return
        at = int(record.created * 1e9)
        self._events.append(
            _Event(at, record.levelno, record.levelname, record.name, message, facts)
        )


# -- the collector -------------------------------------------------------------------------------


class _Collector:
    """The exporters for the three signals. A request takes at most ten seconds with all tries."""

    def __init__(self, settings: TelemetrySettings, began: int) -> None:
        import requests
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        headers = {"Authorization": settings.auth.reveal()} if settings.auth else None
        base = settings.endpoint

        def address(signal: str) -> str | None:
            return None if base is None else f"{base}/v1/{signal}"

        def session() -> requests.Session | None:
            if headers is None:
                return None
            session = requests.Session()
            # Otherwise an entry for this host in ~/.netrc would replace the header.
            session.auth = lambda request: request
            return session

        self._spans = OTLPSpanExporter(address("traces"), headers=headers, session=session())
        self._metrics = OTLPMetricExporter(address("metrics"), headers=headers, session=session())
        self._logs = OTLPLogExporter(address("logs"), headers=headers, session=session())
        # The environment has precedence.
        said = OTELResourceDetector().detect().attributes
        self._resource: Resource = Resource.create({**settings.attributes, **said})
        self._scope = InstrumentationScope(NAME, __version__)
        self._finished = InMemorySpanExporter()
        self._provider = TracerProvider(resource=self._resource, shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._finished))
        self._tracer = self._provider.get_tracer(NAME, __version__)
        self._began = began

    def send_spans(self, requests: Sequence[_Span]) -> bool:
        """Whether the collector took a span for each of these requests."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        spans = self._made_spans(requests)
        return not spans or self._spans.export(spans) is SpanExportResult.SUCCESS

    def _made_spans(self, requests: Sequence[_Span]) -> Sequence[ReadableSpan]:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._finished.clear()
        for each in requests:
            method = each.method if each.method.isalpha() else "_OTHER"
            attributes: dict[str, str | int] = {
                "http.request.method": method,
                "http.response.status_code": each.status,
                "http.response.body.size": each.sent,
                "private_pypi.request_id": each.request_id,
            }
            name = "HTTP" if method == "_OTHER" else method
            if each.route != NO_ROUTE:
                attributes["http.route"] = each.route
                name = f"{name} {each.route}"
            if each.repository:
                attributes["private_pypi.repository"] = each.repository
            span = self._tracer.start_span(
                name,
                context=Context(),
                kind=SpanKind.SERVER,
                attributes=attributes,
                start_time=each.ended - int(each.seconds * 1e9),
            )
            if each.status >= 500:
                span.set_status(Status(StatusCode.ERROR))
            span.end(each.ended)
        return self._finished.get_finished_spans()

    def send_metrics(self, metrics: Collects) -> bool:
        """Whether the collector took the present values."""
        from opentelemetry.sdk.metrics import export

        points = list(_metrics(metrics.collect(), self._began, time.time_ns()))
        scope = export.ScopeMetrics(scope=self._scope, metrics=points, schema_url="")
        resource = export.ResourceMetrics(
            resource=self._resource, scope_metrics=[scope], schema_url=""
        )
        data: MetricsData = export.MetricsData(resource_metrics=[resource])
        return self._metrics.export(data) is export.MetricExportResult.SUCCESS

    def send_logs(self, events: Sequence[_Event]) -> bool:
        """Whether the collector took these log records."""
        from opentelemetry.sdk._logs.export import LogRecordExportResult

        records = [_log_record(event, self._resource) for event in events]
        return self._logs.export(records) is LogRecordExportResult.SUCCESS

    def close(self) -> None:
        for exporter in (self._spans, self._metrics, self._logs):
            exporter.shutdown()
        self._provider.shutdown()


def _log_record(event: _Event, resource: Resource) -> ReadableLogRecord:
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.context import Context
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    # The numbers of severities are 1, 5, 9, … for trace, debug, info, …; logging has 10 for debug.
    severity = SeverityNumber(min(max(event.level // 10, 0), 5) * 4 + 1)
    names = {"exception": "exception.stacktrace", "request_id": "private_pypi.request_id"}
    attributes: dict[str, Any] = {
        names.get(name, name): value for name, value in event.facts.items() if value is not None
    }
    return ReadableLogRecord(
        LogRecord(
            timestamp=event.at,
            observed_timestamp=event.at,
            context=Context(),
            severity_number=severity,
            severity_text=event.level_name,
            body=event.message,
            attributes=attributes,
        ),
        resource,
        InstrumentationScope(event.logger),
    )


def _metrics(families: Iterable[Any], began: int, now: int) -> Iterator[Metric]:
    """The same metrics for OTLP, under the names that they have in `/metrics`."""
    from opentelemetry.sdk.metrics import export

    total = export.AggregationTemporality.CUMULATIVE
    for family in families:
        if family.type == "histogram":
            points = list(_histogram_points(family.samples, began, now))
            if points:
                yield export.Metric(
                    family.name, family.documentation, "", export.Histogram(points, total)
                )
            continue
        by_name: dict[str, list[export.NumberDataPoint]] = {}
        for sample in family.samples:
            point = export.NumberDataPoint(sample.labels, began, now, float(sample.value))
            by_name.setdefault(sample.name, []).append(point)
        for name, numbers in by_name.items():
            only_grows = family.type in ("counter", "summary")  # OTLP has no summary for our use
            data = export.Sum(numbers, total, True) if only_grows else export.Gauge(numbers)
            yield export.Metric(name, family.documentation, "", data)


def _histogram_points(samples: Iterable[Any], began: int, now: int) -> Iterator[Any]:
    """The points of a histogram. In `/metrics`, a bucket also counts what is in smaller ones."""
    from opentelemetry.sdk.metrics import export

    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, int]]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in samples:
        labels = dict(sample.labels)
        bound = labels.pop("le", None)
        key = tuple(labels.items())
        if bound is not None:
            buckets.setdefault(key, []).append((float(bound), int(sample.value)))
        elif sample.name.endswith("_sum"):
            sums[key] = float(sample.value)
    for key, counted in buckets.items():
        so_far = [0, *(count for _, count in counted)]
        yield export.HistogramDataPoint(
            attributes=dict(key),
            start_time_unix_nano=began,
            time_unix_nano=now,
            count=so_far[-1],
            sum=sums[key],
            bucket_counts=[after - before for before, after in itertools.pairwise(so_far)],
            explicit_bounds=[bound for bound, _ in counted[:-1]],
            min=None,  # type: ignore[arg-type] # not known; the field is optional in OTLP
            max=None,  # type: ignore[arg-type]
        )
