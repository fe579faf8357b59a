"""The command `python -m benchmarks oci`: our server over a registry that runs on this machine.

Measured are the times, and what the registry was asked. The same things are done once more by
PyOCI's rules as our tests read them, to count what PyOCI would have asked.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import corpus, oci_report
from benchmarks.arguments import make_parser
from benchmarks.corpus import Corpus, small_form, small_uploads
from benchmarks.installing import install_graph
from benchmarks.oci_report import Outcome, kind_of
from benchmarks.one_run import Started, write_results
from benchmarks.remote_server import RemoteServer
from private_pypi.backend import Secret
from private_pypi.distributions.filenames import parse_filename
from private_pypi.testing.contract.helpers import make_upload, new_folders
from private_pypi.testing.distributions import make_wheel
from private_pypi_oci import OciBackend, OciSettings, layout
from private_pypi_oci.journal import Entry, Journals
from private_pypi_oci.registry import Client, read_secret
from tests.oci.pyoci import PyOci
from tests.oci.registries import Registry, registry

GROUPS = oci_report.GROUPS

_NAME = "acme"  # of our repository, and the namespace
_WRITER, _READER = "walter:write-secret", "rita:read-secret"
_LONG = 3600.0  # seconds; no measurement takes so long
_SETTLED = 0.3  # seconds after which the registry has written what it was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    sizes: tuple[int, ...] = (10, 100, 1_000)  # versions of one project
    files: int = 20  # published in a row
    packages: int = 60  # installed
    old: float = 12.0  # seconds after which a page is renewed, where that is measured

    def quick(self) -> Plan:
        """The same with next to nothing of everything."""
        return replace(self, sizes=(5,), files=2, packages=4, old=3.0)


def main(arguments: Sequence[str]) -> int:
    """Measure, print the report and write it."""
    options = _parse(arguments)
    plan = Plan().quick() if options.quick else Plan()
    options.out.mkdir(parents=True, exist_ok=True)
    started = Started()
    outcomes: list[Outcome] = []
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as name,
        registry(Path(name) / "registry", bearer=False) as running,
    ):
        Benchmark(plan, running, Path(name), outcomes).run(options.only)
    setting = started.ended(plan)
    write_results(
        options.out,
        "oci",
        text=oci_report.render(outcomes, setting),
        picture=oci_report.draw(outcomes, setting),
        rows=[outcome.as_json() for outcome in outcomes],
    )
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks oci",
        "Measure the type oci over a registry that runs on this machine.",
        GROUPS,
        "OCI.md, oci.svg and oci.json",
    )
    return parser.parse_args(arguments)


class Benchmark:
    """One run over one registry."""

    def __init__(
        self, plan: Plan, running: Registry, folder: Path, outcomes: list[Outcome]
    ) -> None:
        self._plan = plan
        self._registry = running
        self._folder = folder
        self._outcomes = outcomes
        self._servers = 0  # so far, each with a folder of its own
        self._pyoci = PyOci(running.url, *_WRITER.split(":"))

    def run(self, groups: Sequence[str]) -> None:
        """Measure these groups."""
        for group, measure in (
            ("list", self._list),
            ("publish", self._publish),
            ("install", self._install),
        ):
            if group in groups:
                measure()

    def _server(self, seconds: float = _LONG) -> RemoteServer:
        """A server that knows nothing yet, and renews a page after so many seconds."""
        self._servers += 1
        folder = self._folder / f"server-{self._servers}"
        return RemoteServer(folder, self._tables(seconds), _WRITER)

    def _tables(self, seconds: float) -> dict[str, dict[str, object]]:
        """The configuration of a server that renews a page after so many seconds."""
        table = {
            "type": "oci",
            "registry": self._registry.url,
            "namespace": _NAME,
            "plain_http": True,
            "sync_index_interval": seconds,
        }
        return {_NAME: table}

    def _fill(self, project: str, count: int) -> None:
        """Store a wheel of each version, as our server stores it, but several at a time."""
        settings = OciSettings(
            name=_NAME,
            max_file_bytes=1 << 30,
            registry=self._registry.url,
            namespace=_NAME,
            plain_http=True,
        )
        backend = OciBackend(settings, new_folders(self._folder))
        secret = read_secret(Secret(_WRITER), None)
        client = Client(backend.connection, settings.url, secret)
        journals = Journals(client, _NAME, {}, lambda: "filling")
        journal = journals.read(project)
        repository = layout.repository_of(_NAME, project)

        def store(number: int) -> None:
            version = f"{number}.0"
            upload = make_upload(
                self._folder, f"{project}-{version}-py3-none-any.whl", version.encode()
            )
            file, metadata = upload.file, upload.core_metadata
            assert file.uploaded_at is not None
            assert metadata is not None
            digest = f"sha256:{file.sha256}"
            client.put_blob(repository, digest, upload.content)
            client.put_blob(repository, layout.digest_of(metadata), metadata)
            manifest = layout.make_manifest(
                digest, file.size, created=file.uploaded_at, labels={}, core_metadata=metadata
            ).content()
            parsed = parse_filename(file.filename)
            descriptor = layout.make_descriptor(
                manifest,
                parsed,
                file.filename,
                tag=version,
                file_sha256=file.sha256,
                file_size=file.size,
                created=file.uploaded_at,
                project_urls={},
                record=upload.record,
            )
            client.put_manifest(repository, descriptor.digest, manifest, layout.MANIFEST)
            entry = Entry(version, file.filename, descriptor)
            journals.add(project, parsed.key, entry, journal)
            index = layout.Index().put(descriptor)
            client.put_manifest(repository, version, index.content(), layout.INDEX)

        store(0)  # alone: this registry fails when several writers begin a repository
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(store, range(1, count)))
        backend.close()

    # -- what is measured ------------------------------------------------------------------------

    def _asked(self) -> list[str]:
        """The requests to the registry so far; waits until it has written them all down."""
        asked = self._registry.asked()
        while True:
            time.sleep(_SETTLED)
            before, asked = asked, self._registry.asked()
            if len(before) == len(asked):
                return asked

    def _count(self, do: Callable[[], object]) -> int:
        """The requests that something makes."""
        before = len(self._asked())
        do()
        return len(self._asked()) - before

    @contextmanager
    def _task(self, group: str, task: str, way: str, by_pyoci: int) -> Iterator[None]:
        """Measure the block; `by_pyoci` are the requests of the same by PyOCI's rules."""
        _say(f"{task} ({way})")
        before = len(self._asked())
        begin = time.perf_counter()
        yield
        seconds = time.perf_counter() - begin
        asked = Counter(kind_of(line) for line in self._asked()[before:])
        self._outcomes.append(Outcome(group, task, way, seconds, asked, by_pyoci))

    def _list(self) -> None:
        """The page of one project: cold, warm, when it is too old, and after a restart."""
        projects = {f"listed{size}": size for size in self._plan.sizes}
        by_pyoci = {}
        for project, size in projects.items():
            _say(f"storing {size:,} versions")
            self._fill(project, size)
            by_pyoci[project] = self._count(lambda each=project: self._pyoci.listed(_NAME, each))

        def measure(task: str, project: str, size: int) -> None:
            with self._task("list", task, f"{size:,} versions", by_pyoci[project]):
                server.wait_for_page(_NAME, project, size)

        server = self._server()
        with server:
            server.wait_until_ready()
            for project, size in projects.items():
                measure(oci_report.COLD, project, size)
                measure(oci_report.WARM, project, size)
        time.sleep(self._plan.old)
        server = server.with_tables(self._tables(self._plan.old))
        with server:
            server.wait_until_ready()
            for project, size in projects.items():
                measure(oci_report.RESTARTED, project, size)
            time.sleep(self._plan.old)
            for project, size in projects.items():
                measure(oci_report.OLD, project, size)

    def _publish(self) -> None:
        files = self._plan.files
        versions = [
            small_form(*make_wheel("versions", f"{number}.0", requires_python=">=3.8"))
            for number in range(files)
        ]
        with self._server() as server:
            server.wait_until_ready()
            for task, prefix, forms, connections in (
                ("One file, the first of its publisher", "first", small_uploads("first", 1), 1),
                (oci_report.in_a_row(files), "row", small_uploads("row", files), 1),
                (f"{files} files, 4 at a time", "side", small_uploads("side", files), 4),
                (f"{files} versions of one project", "versions", versions, 1),
            ):
                way = "a new project" if len(forms) == 1 else "as many new projects"

                def by_pyoci(prefix: str = prefix, count: int = len(forms)) -> None:
                    for number in range(count):
                        is_one = prefix == "versions"
                        project = "theirs" if is_one else f"theirs-{prefix}-{number:04d}"
                        tag = f"{number}.0"
                        content = f"{prefix} {number}".encode()
                        self._pyoci.publish(_NAME, project, tag, "py3-none-any.whl", content)

                way = "one project" if prefix == "versions" else way
                with self._task("publish", task, way, self._count(by_pyoci)):
                    server.publish(_NAME, forms, connections=connections)

    def _install(self) -> None:
        plan = self._plan
        graph = corpus.make_graph(self._folder, plan.packages)
        _say("storing the packages")
        forms = [small_form(path.name, path.read_bytes()) for path in graph.files()]
        with self._server() as server:
            server.wait_until_ready()
            server.publish(_NAME, forms, connections=4)

        by_pyoci = self._count(lambda: self._read_by_pyoci(graph))
        way = f"{plan.packages} packages"

        def install(server: RemoteServer, secret: str = _WRITER) -> None:
            address = server.index_url(_NAME, secret)
            install_graph("uv", address, plan.packages, self._folder / "installed")

        with self._server() as server:
            server.wait_until_ready()
            for task, secret in (
                (oci_report.INSTALL_COLD, _WRITER),
                (oci_report.INSTALL_WARM, _WRITER),
                ("uv, warm, another secret", _READER),
            ):
                with self._task("install", task, way, by_pyoci):
                    install(server, secret)
        with self._server(plan.old) as server:
            server.wait_until_ready()
            install(server)
            time.sleep(plan.old)
            with self._task("install", "uv, warm, pages too old", way, by_pyoci):
                install(server)

    def _read_by_pyoci(self, graph: Corpus) -> None:
        """A page of each project, and one file: as little as an installer needs."""
        for project in graph.projects():
            filename = max(self._pyoci.listed(_NAME, project))
            tag, architecture = filename.removesuffix(".whl").split("-", 2)[1:]
            self._pyoci.download(_NAME, project, tag, f"{architecture}.whl")


def _say(sentence: str) -> None:
    print(time.strftime("%H:%M:%S"), sentence, file=sys.stderr, flush=True)
