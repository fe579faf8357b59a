"""The engines beside each other, beside bare callables on them, and beside nginx.

nginx has the same pages and files as a static tree, and two workers. It is the limit. A bare
callable shows what an engine costs without our application.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks import report
from benchmarks.corpus import Corpus, make_catalogue
from benchmarks.load import Generator, Request, find_generator
from benchmarks.mirror_servers import Upstream
from benchmarks.servers import HTML, PrivatePypi, Server
from benchmarks.static_tree import write_index

ENGINES = ("waitress", "granian")
CONNECTIONS = 8
LIMIT = "nginx"


class OnEngine(PrivatePypi):
    """This checkout, with an engine."""

    def __init__(self, folder: Path, engine: str) -> None:
        super().__init__(folder)
        self._engine = engine

    def command(self) -> Sequence[str]:
        return [*super().command(), "--engine", self._engine]


class Bare(PrivatePypi):
    """A bare callable on an engine, which answers every request with the same page."""

    name = "bare"

    def __init__(self, folder: Path, engine: str, page: bytes) -> None:
        super().__init__(folder)
        self._engine = engine
        (folder / "page").write_bytes(page)

    def version(self) -> str:
        return version(self._engine)

    def command(self) -> Sequence[str]:
        page = str(self.folder / "page")
        words = ["-m", "benchmarks.bare", self._engine, str(self.port), page]
        return ["env", f"PYTHONPATH={Path.cwd()}", sys.executable, *words]


@dataclass(frozen=True, slots=True)
class Figure:
    """What one server does with one kind of request."""

    kind: str
    server: str
    rates: tuple[float, ...]  # requests per second in each round

    @property
    def rate(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rates)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write `ENGINES.md` and `engines.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks engines", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="next to nothing of everything")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        generator = find_generator(folder)
        figures = measure(
            folder,
            generator,
            files=40 if options.quick else 2000,
            rounds=1 if options.quick else 3,
            seconds=0.1 if options.quick else 2.0,
        )
    text = as_text(figures, generator.name)
    (options.out / "ENGINES.md").write_text(text)
    found = [{"kind": f.kind, "server": f.server, "rates": f.rates} for f in figures]
    (options.out / "engines.json").write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(text)
    return 0


def measure(
    folder: Path, generator: Generator, *, files: int, rounds: int, seconds: float
) -> list[Figure]:
    """Ask all servers for the same pages and core metadata, in turn, several times."""
    corpus = make_catalogue(folder / "corpus", files)
    write_index(folder / "tree" / "simple", [corpus])
    (folder / "tree" / "ready").write_text("ready")
    project = corpus.projects()[0]
    page = gzip.compress((folder / "tree" / "simple" / project / "index.html").read_bytes())
    servers: dict[str, Server] = {
        LIMIT: Upstream(folder / LIMIT, folder / "tree", 0.0, workers=2, notes=False)
    }
    for engine in ENGINES:
        servers[f"a bare callable on {engine}"] = Bare(folder / f"bare-{engine}", engine, page)
        own = OnEngine(folder / engine, engine)
        own.adopt(corpus)
        servers[f"private_pypi on {engine}"] = own
    rates: dict[tuple[str, str], list[float]] = {}
    for name, server in servers.items():
        server.start(None if name == LIMIT else project)
    try:
        asked = {name: _requests(server, corpus) for name, server in servers.items()}
        for number in range(rounds + 1):
            order = list(servers) if number % 2 else list(reversed(servers))
            for kind in ("pages", "core metadata"):
                for name in order:
                    load = generator.run(
                        servers[name].port,
                        asked[name][kind],
                        connections=CONNECTIONS,
                        seconds=seconds,
                    )
                    if load.failures:
                        raise RuntimeError(f"{name}: {load.failures} failures")
                    if number:  # the first round warms them up
                        rates.setdefault((kind, name), []).append(load.per_second)
    finally:
        for server in servers.values():
            server.stop()
    return [Figure(kind, name, tuple(found)) for (kind, name), found in rates.items()]


def _requests(server: Server, corpus: Corpus) -> Mapping[str, list[Request]]:
    headers = server.headers(HTML)
    pages = [Request(server.page(name), headers) for name in corpus.projects()]
    wheels = [path for path in corpus.files() if path.suffix == ".whl"]
    metadata = [
        Request(f"{server.simple}{path.parent.name}/{path.name}.metadata", headers)
        for path in wheels
    ]
    return {"pages": pages, "core metadata": metadata}


def as_text(figures: Sequence[Figure], generator: str) -> str:
    """The report."""
    lines = [
        "# Engines",
        "",
        f"Measured on {time.strftime('%d %B %Y')} with {generator}, {CONNECTIONS} connections, on",
        f"{report.describe_machine()}.",
        "Requests per second, the median of the rounds; all servers in one run, in turn.",
        "nginx has two workers, and serves the same pages and files as a static tree.",
    ]
    for kind in dict.fromkeys(figure.kind for figure in figures):
        of_kind = {figure.server: figure.rate for figure in figures if figure.kind == kind}
        lines += ["", f"## {kind.capitalize()}", "", "| server | per second | × nginx | × bare |"]
        lines.append("|---|---|---|---|")
        for name, rate in sorted(of_kind.items(), key=lambda item: -item[1]):
            bare = of_kind.get(f"a bare callable on {name.rpartition(' ')[2]}")
            share = "" if bare is None else f"{rate / bare:.2f}"
            lines.append(f"| {name} | {rate:,.0f} | {rate / of_kind[LIMIT]:.3f} | {share} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
