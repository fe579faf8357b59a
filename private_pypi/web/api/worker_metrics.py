"""The metrics of all worker processes of a server, added up by the one that is asked.

Each worker writes what it has counted into a file of its own: about a second after a change, when
it is asked for the metrics, and when it ends. A process that replaces a worker goes on from the
numbers in its file. So a counter never goes down while the server runs. Of a worker that is killed,
what it counted in its last second is lost.

prometheus_client has a mode for several processes as well. It is not used, because in it each
number is a Python object that writes to a mapped file, and most of ours are plain numbers of the
parts of the server that count them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.registry import Collector

from private_pypi.errors import BackendUnavailable, PrivatePypiError, cause_of

logger = logging.getLogger(__name__)

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, Labels]
"""The name and the labels of a sample."""

_EVERY = 1.0  # seconds between two times that a worker writes its numbers, if they have changed
_GAUGES = ("gauge", "info")  # types of metrics whose numbers are those of the present

# Gauges that are not the sum of those of the workers.
_NOT_ADDED = {
    "private_pypi_cache_bytes": max,  # the workers share the cache; some know less of it
    "private_pypi_provider_limit": max,  # all of them use the same secret
    "private_pypi_provider_limit_remaining": min,
    "private_pypi_provider_limit_resets_timestamp_seconds": max,
    "process_max_fds": min,  # each worker has as many
    "process_start_time_seconds": min,
}
_RESETS = "private_pypi_provider_limit_resets_timestamp_seconds"
_OF_A_LIMIT = ("private_pypi_provider_limit", "private_pypi_provider_limit_remaining", _RESETS)


class _Family(NamedTuple):
    """A metric with the numbers of one worker."""

    name: str
    type: str
    documentation: str
    samples: dict[Key, float]


class WorkerMetrics(Collector):
    """The metrics of all workers that write into `folder`; `close` it at the end."""

    def __init__(self, own: Collector, folder: Path, number: int) -> None:
        """Go on from what was counted under this `number`. `own` are those of this process."""
        self._own = own
        self._folder = folder
        self._path = folder / f"numbers-{number}.json"
        self._lock = threading.Lock()  # held while the file is written
        self._before = {
            family.name: family for family in _read(self._path) if family.type not in _GAUGES
        }
        self._written = b""
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def collect(self) -> Iterator[Metric]:
        """The metrics of all workers. Raises `BackendUnavailable` if their files cannot be used."""
        try:
            # This worker is not asked for newer numbers than those it has written, because they
            # would be lost if it were killed now, and its counters would go down.
            self._write()
            all_families = [_read(path) for path in sorted(self._folder.glob("numbers-*.json"))]
        except (OSError, ValueError) as error:
            raise BackendUnavailable(
                f"the numbers of the workers could not be added up: {cause_of(error)}",
                retry_after=5,
            ) from error
        for family in _added_up(all_families):
            metric = Metric(family.name, family.documentation, family.type)
            for (name, labels), value in family.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric

    def close(self) -> None:
        """Write the last numbers."""
        self._ends.set()
        self._thread.join()
        self._try_to_write()

    def _run(self) -> None:
        while not self._ends.is_set():
            self._try_to_write()
            self._ends.wait(_EVERY)

    def _try_to_write(self) -> None:
        try:
            self._write()
        except (OSError, PrivatePypiError) as error:
            logger.warning("the numbers of this worker could not be written: %s", error)

    def _write(self) -> None:
        with self._lock:
            own = [_family(metric) for metric in self._own.collect()]
            counted = [self._with_before(family) for family in own]
            named = {family.name for family in own}
            counted += [each for each in self._before.values() if each.name not in named]
            content = _encoded(counted)
            if content == self._written:
                return
            part = self._path.with_suffix(".part")
            part.write_bytes(content)
            part.replace(self._path)
            self._written = content

    def _with_before(self, family: _Family) -> _Family:
        before = self._before.get(family.name)
        return family if before is None else family._replace(samples=_sums([before, family]))


def _family(metric: Metric) -> _Family:
    samples = {
        (sample.name, tuple(sample.labels.items())): float(sample.value)
        for sample in metric.samples
    }
    return _Family(metric.name, metric.type, metric.documentation, samples)


def _encoded(families: Iterable[_Family]) -> bytes:
    value = {
        "process": os.getpid(),
        "families": [
            [
                *family[:3],
                [[name, labels, value] for (name, labels), value in family.samples.items()],
            ]
            for family in families
        ],
    }
    return json.dumps(value, separators=(",", ":")).encode()


def _read(path: Path) -> list[_Family]:
    """What a worker has counted; without its gauges if its process has ended."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:  # of a worker that has not written yet
        return []
    families = [
        _Family(
            *(name, type_, documentation),
            {(name, tuple(map(tuple, labels))): number for name, labels, number in samples},
        )
        for name, type_, documentation, samples in value["families"]
    ]
    if _runs(value["process"]):
        return families
    return [family for family in families if family.type not in _GAUGES]


def _runs(process: int) -> bool:
    with contextlib.suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True


def _added_up(all_families: Iterable[list[_Family]]) -> Iterator[_Family]:
    same: dict[str, list[_Family]] = {}
    for families in _of_present_limits(all_families):
        for family in families:
            same.setdefault(family.name, []).append(family)
    for families in same.values():
        yield families[0]._replace(samples=_sums(families))


def _of_present_limits(
    all_families: Iterable[list[_Family]],
) -> Iterator[list[_Family]]:
    """The families without the limits that a worker knows from before they were last reset."""
    told = [
        (families, next((each.samples for each in families if each.name == _RESETS), {}))
        for families in all_families
    ]
    newest: dict[Labels, float] = {}
    for _, resets in told:
        for (_, labels), moment in resets.items():
            newest[labels] = max(moment, newest.get(labels, moment))
    for families, resets in told:
        past = {labels for (_, labels), moment in resets.items() if moment < newest[labels]}
        yield [
            family._replace(
                samples={key: value for key, value in family.samples.items() if key[1] not in past}
            )
            if family.name in _OF_A_LIMIT
            else family
            for family in families
        ]


def _sums(families: Iterable[_Family]) -> dict[Key, float]:
    """The samples of one metric, with what several have under one key in one number."""
    found: dict[Key, float] = {}
    for family in families:
        join = _NOT_ADDED.get(family.name)
        for key, value in family.samples.items():
            before = found.get(key)
            if before is None:
                found[key] = value
            else:
                found[key] = before + value if join is None else join(before, value)
    return found
