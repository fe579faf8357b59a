"""The command `python -m benchmarks replicas`: what docker/compose.replicas.yaml starts, measured.

SeaweedFS, three servers and the proxy run as processes on this machine, together with all clients.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import replicas_report
from benchmarks.arguments import make_parser
from benchmarks.one_run import Started
from benchmarks.processes import peak_of, processor_of
from benchmarks.replicas_report import KILLED, RESTARTED, START, VISIBLE, Outcome
from private_pypi.distributions.filenames import normalize
from private_pypi.index.document import IndexDocument, new_entry, write_document
from private_pypi.model import DistributionFile
from private_pypi.testing.distributions import make_wheel
from private_pypi_object_storage import ObjectStorageBackend
from tests.faults.servers import Server
from tests.object_storage.seaweed import Seaweed, running_seaweed
from tests.replicas import load as clients
from tests.replicas.setting import COUNT, Replicas, is_ready, prepared, replicas
from tests.waiting import eventually

GROUPS = replicas_report.GROUPS

_PATIENCE = 120.0  # seconds for whatever is waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    files: int = 100_000  # in the index of the server that starts
    uploads: int = 30  # whose way to the other servers is measured
    killing: float = 120.0  # seconds
    pause: float = 0.5  # seconds between two uploads of one publisher
    interval: float = 1.0  # sync_index_interval, in seconds

    def quick(self) -> Plan:
        """The same with next to nothing of everything."""
        return replace(self, files=200, uploads=3, killing=4.0)


def main(arguments: Sequence[str]) -> int:
    """Measure some groups, and write the report of these and of those that were measured before."""
    options = _parse(arguments)
    plan = Plan().quick() if options.quick else Plan()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "replicas.json"
    known = [Outcome.of_json(row) for row in json.loads(path.read_text())] if path.exists() else []
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as name,
        running_seaweed(Path(name)) as store,
    ):
        for group in options.only:
            _say(group)
            folder = Path(name) / group
            folder.mkdir()
            started = Started()
            with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
                values = _MEASURES[group](plan, store, folder)  # it prints the servers' logs
            setting = started.ended(plan)
            outcome = Outcome(
                group, setting.date, setting.machine, setting.other_work[0], setting.seconds, values
            )
            known = [each for each in known if each.group != group] + [outcome]
    known.sort(key=lambda each: GROUPS.index(each.group))
    path.write_text(json.dumps([each.as_json() for each in known], indent=1) + "\n")
    text = replicas_report.render(known)
    (options.out / "REPLICAS.md").write_text(text)
    print(text)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks replicas",
        "Measure three servers over one object store, all on this machine. Groups that are not "
        "measured now keep their results in --out.",
        GROUPS,
        "REPLICAS.md and replicas.json",
    )
    return parser.parse_args(arguments)


def _start(plan: Plan, store: Seaweed, folder: Path) -> dict[str, float]:
    """A server with an empty ROOT, over a store whose index document has all files."""
    document = folder / "index.toml"
    write_document(
        _document(plan.files),
        document,
        backend_type="object_storage",
        location_key=ObjectStorageBackend.location_key,
    )
    store.bucket("start").put("index.toml", document.read_bytes())
    with prepared(folder, store, "start", interval=plan.interval) as made:
        begin = time.perf_counter()
        server = made.servers.begin(folder / "root", made.config, flags=made.flags)
        server.wait_until_it_serves()
        eventually(lambda: is_ready(server), within=_PATIENCE)
        ready = time.perf_counter() - begin
        last = f"project-{(plan.files - 1) // 10}"
        found = len(server.listed(last))
        if found != (plan.files - 1) % 10 + 1:
            raise RuntimeError(f"the page of {last} has {found} files")
        page = time.perf_counter() - begin
        return {
            "files": plan.files,
            "document": document.stat().st_size,
            "ready": ready,
            "page": page,
            "processor": processor_of(server.process.pid),
            "memory": peak_of(server.process.pid),
        }


def _document(files: int) -> IndexDocument:
    """Ten wheels of each project, as `update_index` would have written them."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    entries = []
    for number in range(files):
        project, version = f"project-{number // 10}", f"{number % 10}.0"
        filename = f"{project.replace('-', '_')}-{version}-py3-none-any.whl"
        file = DistributionFile(
            filename=filename,
            project=normalize(project),
            version=version,
            size=10_000 + number,
            sha256=f"{number:064x}",
            location=f"{project}/{filename}",
            uploaded_at=at,
            requires_python=">=3.9",
            core_metadata_sha256=f"{number:063x}f",
            yanked=None,
            summary="A package of the benchmark of replicas",
        )
        entries.append(new_entry(file, stamp=f'"{number:032x}"'))
    return IndexDocument(mtime=int(time.time()), entries=tuple(entries))


def _visible(plan: Plan, store: Seaweed, folder: Path) -> dict[str, float]:
    """How long after its acknowledgement each upload is on the pages of all servers."""
    with replicas(folder, store, interval=plan.interval) as made:
        published: dict[str, float] = {}
        seen: list[dict[str, float]] = [{} for _ in range(COUNT)]
        ended = threading.Event()

        def watch(server: Server, into: dict[str, float]) -> None:
            while not ended.wait(0.05):
                for filename in server.listed():
                    into.setdefault(filename, time.monotonic())

        watchers = [
            threading.Thread(target=watch, args=(server, into))
            for server, into in zip(made.running, seen, strict=True)
        ]
        for watcher in watchers:
            watcher.start()
        try:
            for number in range(plan.uploads):
                filename, content = make_wheel("demo", f"{number}.0")
                made.running[number % COUNT].publish(filename, content)
                published[filename] = time.monotonic()
                time.sleep(0.3)
            eventually(
                lambda: all(published.keys() <= each.keys() for each in seen), within=_PATIENCE
            )
        finally:
            ended.set()
            for watcher in watchers:
                watcher.join()
    delays = sorted(
        max(max(each[name] for each in seen) - at, 0.0) for name, at in published.items()
    )
    return {
        "uploads": len(delays),
        "interval": plan.interval,
        "median": delays[len(delays) // 2],
        "worst": delays[-1],
    }


def _restarted(plan: Plan, store: Seaweed, folder: Path) -> dict[str, float]:
    """All servers are restarted one after the other, as for an update."""
    with replicas(folder, store, interval=plan.interval) as made:
        with clients.load(made.url, publishers=8, installers=8, pause=plan.pause) as outcome:
            for number in range(COUNT):
                made.restart(number)
        return _counts(made, outcome, COUNT)


def _killed(plan: Plan, store: Seaweed, folder: Path) -> dict[str, float]:
    """Servers are killed and started again, one or two at a time."""
    with replicas(folder, store, interval=plan.interval) as made:
        clients.publish_graph(made, folder)
        with (
            clients.load(made.url, publishers=8, installers=6, pause=plan.pause) as outcome,
            clients.tools(made.url, outcome, folder),
        ):
            killed = made.kill_for(plan.killing)
        return _counts(made, outcome, killed)


def _counts(made: Replicas, outcome: clients.Outcome, ended: int) -> dict[str, float]:
    lost = clients.lost(made, outcome)
    for sentence in (*lost, *outcome.complaints):
        _say(sentence)
    _say(f"healed: {dict(outcome.healed)}")
    return {
        "seconds": outcome.seconds,
        "ended": ended,
        "uploads": len(outcome.published),
        "pages": outcome.pages,
        "downloads": outcome.downloads,
        "healed": outcome.healed.total(),
        "lost": len(lost),
        "wrong": len(outcome.complaints),
        "late": outcome.late,
    }


_MEASURES = {START: _start, VISIBLE: _visible, RESTARTED: _restarted, KILLED: _killed}


def _say(sentence: str) -> None:
    print(time.strftime("%H:%M:%S"), sentence, file=sys.stderr, flush=True)
