"""The command `python -m benchmarks static_site`: a site of many projects, built, checked, listed.

The commands run as a user runs them, each in a process of its own. The site is generated before,
and this is not measured. The public index is that of the tests, on this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from packaging.utils import NormalizedName

from benchmarks import static_site_report
from benchmarks.arguments import make_parser
from benchmarks.one_run import Started, write_results
from benchmarks.processes import Run, run_watched
from benchmarks.static_site_report import Outcome
from private_pypi.backend import Secret, SupportsList, capability
from private_pypi.distributions.core_metadata import read_core_metadata
from private_pypi.distributions.filenames import normalize
from private_pypi.testing.contract.helpers import new_folders
from private_pypi.testing.distributions import make_wheel
from private_pypi_static_site.backend import StaticSiteBackend, StaticSiteSettings
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making.building import CACHE, Built, build_site
from private_pypi_static_site.making.public_index import read_verdicts
from private_pypi_static_site.project_file import Project, SiteFile, SiteVersion
from tests.static_site.built_sites import NOWHERE, make_site
from tests.static_site.fake_index import Reply, page, running

GROUPS = static_site_report.GROUPS

T = TypeVar("T")

_TAKEN = 10  # every tenth name is taken on the public index
_TRUSTED = 2.5  # seconds after which a listing trusts the time of a file
_BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    projects: int = 2_000
    versions: int = 5  # of each, a wheel and a README of its own
    delays: tuple[float, ...] = (0.0, 0.05)  # seconds before an answer of the public index

    def quick(self) -> Plan:
        """The same with next to nothing of everything."""
        return replace(self, projects=20, versions=2, delays=(0.0, 0.005))

    @property
    def files(self) -> int:
        """Files in all."""
        return self.projects * self.versions


def main(arguments: Sequence[str]) -> int:
    """Measure, print the report and write it."""
    options = _parse(arguments)
    plan = Plan().quick() if options.quick else Plan()
    options.out.mkdir(parents=True, exist_ok=True)
    started = Started()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        Benchmark(plan, Path(name), outcomes).run(options.only)
    setting = started.ended(plan)
    write_results(
        options.out,
        "static_site",
        text=static_site_report.render(outcomes, setting),
        picture=static_site_report.draw(outcomes, setting),
        rows=[outcome.as_json() for outcome in outcomes],
    )
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks static_site",
        "Measure static sites: building, checking, listing and exporting.",
        GROUPS,
        "STATIC_SITE.md, static_site.svg and static_site.json",
    )
    return parser.parse_args(arguments)


class Benchmark:
    """One run over one site."""

    def __init__(self, plan: Plan, folder: Path, outcomes: list[Outcome]) -> None:
        self._plan = plan
        self._folder = folder
        self._outcomes = outcomes
        _say(f"generating {plan.projects:,} projects")
        self._site = make_site(folder / "site")
        for number in range(plan.projects):
            _add_project(self._site, number, plan.versions)
        time.sleep(_TRUSTED)

    def run(self, groups: Sequence[str]) -> None:
        """Measure these groups; `check` leaves verdicts in the site, so it comes after `build`."""
        for group, measure in (
            ("build", self._build),
            ("list", self._list),
            ("check", self._check),
            ("export", self._export),
        ):
            if group in groups:
                measure()

    def _command(self, *words: str, code: int = 0) -> Run:
        command = [sys.executable, "-m", "private_pypi", *words]
        run = run_watched(command, self._folder / "log")
        if run.code != code:
            tail = (self._folder / "log").read_text(errors="replace")[-1500:]
            raise RuntimeError(f"{command} ended with {run.code}:\n{tail}")
        return run

    def _add(self, group: str, task: str, way: str, run: Run, alone: float | None = None) -> None:
        self._outcomes.append(
            Outcome(group, task, way, run.seconds, run.processor, alone, run.peak)
        )

    # -- what is measured ------------------------------------------------------------------------

    def _build(self) -> None:
        plan = self._plan
        everything = plan.projects
        output = self._site.root / "_site"
        changed = iter(range(plan.projects))

        def forget_pages() -> None:
            shutil.rmtree(output, ignore_errors=True)

        def forget_all() -> None:
            forget_pages()
            shutil.rmtree(self._site.root / CACHE, ignore_errors=True)

        def change_one() -> None:
            _add_version(self._site, next(changed), plan.versions)

        for task, prepare, made in (
            (static_site_report.FIRST, forget_all, everything),
            (static_site_report.KEPT, forget_pages, everything),
            (static_site_report.UNCHANGED, lambda: None, 0),
            (static_site_report.ONE, change_one, 1),
        ):
            _say(task)
            prepare()
            words = ["--folder", str(self._site.root), "--public_index", NOWHERE]
            run = self._command("static_site.build", *words)
            prepare()
            alone, built = _timed(self._build_here)
            if built.made != made:
                raise RuntimeError(f"{task}: {built.made} projects were made, not {made}")
            way = f"{made:,} made" if made else "none made"
            self._outcomes.append(
                Outcome("build", task, way, run.seconds, run.processor, alone, run.peak)
            )

    def _build_here(self) -> Built:
        """What the command does, after its imports."""
        return build_site(
            self._site,
            self._site.root / "_site",
            public_index=NOWHERE,
            verdicts=read_verdicts(self._site),
        )

    def _list(self) -> None:
        plan = self._plan
        settings = StaticSiteSettings(name="acme", max_file_bytes=1 << 30, path=self._site.root)
        backend = StaticSiteBackend(settings, new_folders(self._folder))
        storage = capability(backend.seen_with(Secret("any")), SupportsList)
        assert storage is not None

        def measure(task: str, files: int) -> None:
            before = time.process_time()
            seconds, listed = _timed(lambda: list(storage.list_files()))
            processor = time.process_time() - before
            if len(listed) != files:
                raise RuntimeError(f"{len(listed)} files were listed, not {files}")
            self._outcomes.append(Outcome("list", task, f"{files:,} files", seconds, processor))

        _say("listing")
        files = sum(len(v.files) for project in self._site.projects() for v in project.versions)
        measure(static_site_report.FIRST_LISTING, files)
        measure("Again, nothing changed", files)
        _add_version(self._site, plan.projects - 1, plan.versions)
        measure("Again, one project updated", files + 1)
        backend.close()

    def _check(self) -> None:
        plan = self._plan
        for delay in plan.delays:
            _say(f"checking, with answers after {delay * 1e3:.0f} ms")
            with running() as index:
                index.replies = {path: _later(each, delay) for path, each in index.replies.items()}
                for number in range(plan.projects):
                    name = _name(number)
                    reply = page(name, "0.1") if number % _TAKEN == 0 else Reply(status=404)
                    index.has(name, replace(reply, pause=delay))
                words = ["--folder", str(self._site.root), "--public_index", index.url]
                run = self._command("static_site.check", *words, code=1)  # names are taken
                asked = len(index.requests)
            if asked != plan.projects + 1:
                raise RuntimeError(f"{asked} requests for {plan.projects} names")
            task = f"Answers after {delay * 1e3:.0f} ms"
            way = f"{plan.projects:,} names"
            self._outcomes.append(
                Outcome("check", task, way, run.seconds, run.processor, memory=run.peak)
            )

    def _export(self) -> None:
        plan = self._plan
        storage = self._folder / "storage"
        for number in range(plan.projects):
            name = _name(number)
            (storage / name).mkdir(parents=True)
            for version in range(plan.versions):
                filename = _filename(name, version)
                os.link(self._site.hosted(name, filename), storage / name / filename)
        config = self._folder / "config.toml"
        config.write_text(
            f'[acme]\ntype = "file_system"\npath = "{storage}"\nread_secret = "reads-only"\n'
        )
        words = [str(self._folder / "exported"), "--config", str(config)]
        for task in (static_site_report.FIRST_EXPORT, "Again, nothing changed"):
            _say(f"exporting ({task})")
            run = self._command("export", "acme", *words, "--secret", "reads-only")
            found = sum(1 for _ in (self._folder / "exported").glob("*/*.whl"))
            if found != plan.files:
                raise RuntimeError(f"{found} files were exported, not {plan.files}")
            way = f"{plan.files:,} files"
            self._outcomes.append(
                Outcome("export", task, way, run.seconds, run.processor, memory=run.peak)
            )


def _timed(do: Callable[[], T]) -> tuple[float, T]:
    begin = time.perf_counter()
    result = do()
    return time.perf_counter() - begin, result


def _later(replies: Sequence[Reply], delay: float) -> list[Reply]:
    return [replace(each, pause=delay) for each in replies]


# -- the site --------------------------------------------------------------------------------------


def _name(number: int) -> NormalizedName:
    return normalize(f"measured-{number:05d}")


def _filename(name: str, version: int) -> str:
    return f"{name.replace('-', '_')}-{version}.0-py3-none-any.whl"


def _add_project(site: SiteFolder, number: int, versions: int) -> None:
    """A project whose versions have a wheel each, as the commands register them."""
    made = tuple(_version(site, number, version) for version in range(versions))
    project = Project(
        name=_name(number),
        homepage=f"https://code.example.invalid/{_name(number)}",
        summary="A package that is measured, not used",
        author="Nobody",
        versions=made,
    )
    site.write_project(project)


def _add_version(site: SiteFolder, number: int, versions: int) -> None:
    """The next version of a project, which has at least so many."""
    project = site.project(_name(number))
    assert project is not None and len(project.versions) >= versions
    added = _version(site, number, len(project.versions))
    site.write_project(replace(project, versions=(*project.versions, added)))


def _version(site: SiteFolder, number: int, version: int) -> SiteVersion:
    name = _name(number)
    filename, content = make_wheel(
        name,
        f"{version}.0",
        requires_python=">=3.8",
        extra_metadata=[
            ("Summary", "A package that is measured, not used"),
            ("Description-Content-Type", "text/markdown"),
            ("Requires-Dist", "requests>=2"),
        ],
        description=_readme(name, version),
    )
    assert filename == _filename(name, version)
    metadata = read_core_metadata(io.BytesIO(content), filename)
    assert metadata is not None
    site.write(site.hosted(name, filename), content)
    site.write(site.core_metadata(name, filename), metadata)
    file = SiteFile(
        filename=filename,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        uploaded_at=_BEGIN + timedelta(days=version, minutes=number),
        requires_python=">=3.8",
        core_metadata_sha256=hashlib.sha256(metadata).hexdigest(),
    )
    return SiteVersion(version=f"{version}.0", files=(file,))


def _readme(name: str, version: int) -> str:
    """A README of 3 kB with what READMEs have; no two are equal."""
    return "\n".join(_paragraphs(name, version))


def _paragraphs(name: str, version: int) -> Iterator[str]:
    choose = random.Random(f"{name} {version}")
    words = ["index", "wheel", "upload", "mirror", "stable", "cache", "folder", "release", "proof"]

    def sentence(count: int = 14) -> str:
        return " ".join(choose.choices(words, k=count)).capitalize() + "."

    yield f"# {name} {version}.0\n"
    yield f"[![build](https://ci.example.invalid/{name}.svg)](https://ci.example.invalid/{name})\n"
    for part in ("Installation", "Usage", "Configuration", "Changes"):
        yield f"## {part}\n\n{sentence(40)} See [the manual](https://docs.example.invalid/{name}).\n"
        yield "\n".join(f"- **{choose.choice(words)}**: {sentence()}" for _ in range(4)) + "\n"
    yield f"```python\nimport {name.replace('-', '_')}\n"
    for _ in range(8):
        first, second = choose.sample(words, 2)
        yield f"{first} = load({second!r}, retries={choose.randrange(9)})  # {sentence(4)}"
    yield "```\n\n| option | default | meaning |\n|---|---|---|"
    for _ in range(5):
        yield f"| `{choose.choice(words)}` | {choose.randrange(99)} | {sentence(6)} |"


def _say(sentence: str) -> None:
    print(time.strftime("%H:%M:%S"), sentence, file=sys.stderr, flush=True)
