"""Trouble at every single request that a whole server sends to GitHub, in both types.

Whoever asks meanwhile gets the right answer or is told of trouble: never an absence of what is
there, a short page, other bytes, or a success for what did not succeed. Afterwards the same request
succeeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Literal

import pytest
import requests

import private_pypi.index.lookups
import private_pypi.repositories.stored
import private_pypi.storage.recent_trouble
import private_pypi.storage.verdicts
from private_pypi.backend import Secret
from private_pypi.errors import BackendError
from private_pypi.index.rebuilding import update_index
from private_pypi.storage.retrying import retrying
from private_pypi.testing.contract.helpers import outcome
from private_pypi.testing.distributions import make_wheel
from tests.faults.servers import sha256
from tests.github.engines import Engine, engine
from tests.github.fake import FakeGitHub
from tests.github.fake.faults import Fault
from tests.github.owner import impatient
from tests.github.places import (
    TYPES,
    Place,
    PlaceType,
    add_project,
    leftovers,
    make_place,
    stored,
)

pytestmark = pytest.mark.needs("time")

Mode = Literal["once", "retried", "lasting"]
"""The fault comes once, to a server that does not try again or to one that does; or it goes on."""

DAY: Final = 24 * 60 * 60  # seconds

# What may go wrong with a request; with True it takes effect all the same. How each of GitHub's
# errors is understood is tested with the storages alone: here is one of each kind.
FAULTS: Final = [
    ("timeout", False),
    ("reset", True),
    ("cut", True),
    ("403", False),
    ("404", False),
    ("422", False),
    ("500", False),
    ("rate-limit", False),
]
FEWER: Final = [("timeout", False), ("reset", True), ("403", False), ("500", False)]
# Those after which the server tries again, and those that go on.
RETRIED: Final = [("reset", True), ("502", True)]
LASTING: Final = [("reset", False), ("500", False)]

each_type = pytest.mark.parametrize("place_type", TYPES)
each_fault = pytest.mark.parametrize(("kind", "applied"), [*FAULTS, ("short", True)])
each_mode = pytest.mark.parametrize(
    ("kind", "applied", "mode"),
    [
        *((*fault, "once") for fault in FAULTS),
        *((*fault, "retried") for fault in RETRIED),
        *((*fault, "lasting") for fault in LASTING),
    ],
)


@dataclass
class World:
    """A place on GitHub for one test, which takes a new project for each thing that it tries, and
    servers with it."""

    github: FakeGitHub
    place: Place
    folder: Path
    stack: ExitStack
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def serve(self, **keys: object) -> Engine:
        """A server that was just started."""
        return self.stack.enter_context(
            engine(self.place, self.folder / f"server-{next(self._numbers)}", **keys)
        )

    @cached_property
    def one(self) -> Engine:
        """The server that has trouble."""
        return self.serve()

    @cached_property
    def other(self) -> Engine:
        """A server of somebody else, who looks each time."""
        is_asked = self.place.type == "github_projects"
        return self.serve(**({"sync_index_interval": 0.001} if is_asked else {}))

    def new_project(self) -> str:
        """A project that nobody has asked for yet; there is a place for it."""
        name = f"demo-{next(self._numbers)}"
        if self.place.type == "github_projects":
            self.place = add_project(self.github, self.place, name)
        return name

    def new_token(self) -> str:
        """Another token of the writer: nothing that a server keeps is of this one."""
        return self.github.make_token("walter", {})

    def make_files(self, project: str, *versions: str) -> dict[str, bytes]:
        """Publish wheels of a project as somebody else would."""
        made = dict(make_wheel(project, version, requires_python=">=3.8") for version in versions)
        for filename, content in made.items():
            if self.place.type == "github_projects":
                tag = f"v{filename.split('-')[1]}"
                self.github.make_release(f"{self.place.name}/{project}", tag, {filename: content})
                continue
            answer = self.one.publish(filename, content)
            assert answer.status_code == 200, answer.text
        return made

    def listed(self, project: str) -> dict[str, dict[str, Any]]:
        """The files on the page of the second server."""
        self.other.repository.synchronize()
        answer = self.other.ask("GET", f"{project}/")
        if answer.status_code == 404:
            return {}
        assert answer.status_code == 200, answer.text
        return {file["filename"]: file for file in answer.json()["files"]}

    def statuses(self, server: Engine, *paths: str) -> list[int]:
        """What a server answers to the writer."""
        return [server.ask("GET", path).status_code for path in paths]


def _patient(attempts: int) -> Callable[[Any], Any]:
    """What the server wraps its storages into, without the waiting."""
    return lambda backend: retrying(backend, attempts=attempts, sleep=lambda seconds: None)


# Each test has its own: the more repositories there are, the more pages have their trouble.
@pytest.fixture
def world(
    github: FakeGitHub, place_type: PlaceType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    monkeypatch.setattr(private_pypi.repositories.stored, "retrying", _patient(1))
    # Refusals and trouble are kept for seconds, to spare the provider; nobody waits here.
    monkeypatch.setattr(private_pypi.storage.verdicts, "REFUSAL_EXPIRES", 0.0)
    monkeypatch.setattr(private_pypi.storage.recent_trouble, "MOST", 0.0)
    monkeypatch.setattr(private_pypi.index.lookups, "_ABSENT_SECONDS", 0.0)
    with ExitStack() as stack:
        place = make_place(github, place_type, "acme", ())
        yield World(github, place, tmp_path, stack)
        github.heal()


@dataclass
class Trouble(AbstractContextManager["Trouble"]):
    """What shall go wrong; while it is entered, new tokens meet a server that tries as often as
    its mode says."""

    world: World
    kind: Any
    applied: bool
    mode: Mode = "once"
    _patch: pytest.MonkeyPatch = field(default_factory=pytest.MonkeyPatch)

    def __enter__(self) -> Trouble:
        if self.mode != "once":
            self._patch.setattr(private_pypi.repositories.stored, "retrying", _patient(3))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    @contextmanager
    def strikes(self, at: int, *, on: str = "*", times: int = 1) -> Iterator[Fault]:
        """The `at`-th request to GitHub from now on (from 0 on) fails, and the next ones."""
        github = self.world.github
        with impatient(self.kind, 0.4):
            yield github.fail(self.kind, on=on, at=at + 1, times=times, applied=self.applied)
            github.heal()

    def during(self, at: int, ask: Callable[[], requests.Response]) -> requests.Response | None:
        """The answer when the `at`-th request to GitHub fails; None when there was none, and so
        everything went well."""
        with self.strikes(at, times=1000 if self.mode == "lasting" else 1) as fault:
            answer = ask()
        is_right = answer.status_code in (200, 302)
        if not fault.happened and is_right:
            return None
        # On a machine that is busy, somebody may give up before it is time.
        assert fault.happened or (self.kind == "timeout" and answer.status_code == 503), at
        self.check_refusal(answer)
        if self.mode == "retried":
            assert is_right, (at, answer.status_code, answer.text)
        return answer

    def check_refusal(self, answer: requests.Response) -> None:
        """An answer that is no success says what it is, and nothing else is said."""
        said = (answer.status_code, answer.text[:300])
        if answer.status_code in (200, 302):
            return
        allowed = {502, 503}
        if self.kind == "403":  # GitHub says that this token may not
            allowed |= {401, 403}
        if self.kind == "422" and answer.request.method != "GET":  # it refuses what was asked for
            allowed |= {403}
        if self.kind == "404":  # GitHub's word for what one may not, may not see, or is not there
            allowed |= {403}
            # An absence is believed when it is told twice.
            if self.world.place.type == "github_projects" and self.mode == "lasting":
                allowed |= {404}
        assert answer.status_code in allowed, said
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) > 0, said
        if self.kind == "rate-limit" and self.mode == "once":
            assert answer.status_code == 503, said
            assert int(answer.headers["Retry-After"]) <= 61, said


# Reading.


Read = tuple[str, Callable[[requests.Response], None]]
"""A path, and what is right there."""


def reads_of(project: str, files: dict[str, bytes]) -> list[Read]:
    """The page of a project, core metadata and a file."""
    filename = min(files)

    def check_page(answer: requests.Response) -> None:
        page = answer.json()
        listed = {each["filename"]: each["hashes"]["sha256"] for each in page["files"]}
        assert listed == {name: sha256(content) for name, content in files.items()}
        assert {each["requires-python"] for each in page["files"]} == {">=3.8"}

    def check_metadata(answer: requests.Response) -> None:
        assert f"\nName: {project}\n".encode() in answer.content

    def check_file(answer: requests.Response) -> None:
        assert answer.content == files[filename]

    return [
        (f"{project}/", check_page),
        (f"{project}/{filename}.metadata", check_metadata),
        (f"{project}/{filename}", check_file),
    ]


def check_reading(
    trouble: Trouble,
    server: Engine,
    prepare: Callable[[], tuple[str, list[Read]]],
    *,
    least: int,
) -> None:
    """What is prepared is asked for in turn, with trouble at each request that it takes, of which
    there are `least` or more."""
    total = 0
    for which in range(len(prepare()[1])):
        for at in itertools.count():
            token, reads = prepare()
            for path, _ in reads[:which]:
                assert server.ask("GET", path, token).status_code == 200
            path, check = reads[which]
            answer = trouble.during(at, partial(server.ask, "GET", path, token))
            if answer is None:
                break
            total += 1
            if answer.status_code == 200:
                check(answer)
            for path, check in reads:
                answer = server.ask("GET", path, token)
                assert answer.status_code == 200, (which, at, path, answer.text)
                check(answer)
    assert total >= least


@each_fault
@each_type
def test_reading_survives_trouble_at_every_request(world: World, kind: str, applied: bool) -> None:
    """A page, core metadata and a file, for somebody whom the server does not know."""

    def prepare() -> tuple[str, list[Read]]:
        project = world.new_project()
        # Two where the page is made of them; else it comes from what was synchronised.
        versions = ("1.0", "2.0") if world.place.type == "github_projects" else ("1.0",)
        return world.new_token(), reads_of(project, world.make_files(project, *versions))

    with Trouble(world, kind, applied) as trouble:
        check_reading(trouble, world.one, prepare, least=5)


@each_fault
@each_type
def test_listing_the_projects_survives_trouble_at_every_request(
    world: World, kind: str, applied: bool
) -> None:
    """Whoever is shown fewer is told so: it would be kept for a while."""
    projects = [world.new_project(), world.new_project()]
    for project in projects:
        world.make_files(project, "1.0")

    def check(answer: requests.Response) -> None:
        assert [each["name"] for each in answer.json()["projects"]] == projects

    def prepare() -> tuple[str, list[Read]]:
        return world.new_token(), [("", check)]

    with Trouble(world, kind, applied) as trouble:
        check_reading(trouble, world.one, prepare, least=1)


# Publishing.


@each_mode
@each_type
def test_publishing_survives_trouble_at_every_request(
    world: World, kind: str, applied: bool, mode: Mode
) -> None:
    """Success means published; anything else means whole or not at all; again makes it whole."""
    github, is_many = world.github, world.place.type == "github_projects"

    def prepare() -> tuple[str, str, bytes, Callable[[], requests.Response]]:
        project = world.new_project()
        filename, content = make_wheel(project, "1.0", requires_python=">=3.8")
        token = world.new_token()
        return project, filename, content, partial(world.one.publish, filename, content, token)

    def check_everywhere(project: str, filename: str, content: bytes) -> None:
        """Another server has it, whole."""
        page = world.other.ask("GET", f"{project}/").json()
        (file,) = (each for each in page["files"] if each["filename"] == filename)
        assert file["hashes"] == {"sha256": sha256(content)}
        assert file["requires-python"] == ">=3.8"
        assert world.other.ask("GET", f"{project}/{filename}").content == content
        metadata = world.other.ask("GET", f"{project}/{filename}.metadata")
        assert f"\nName: {project}\n".encode() in metadata.content

    made = []
    with Trouble(world, kind, applied, mode) as trouble:
        for at in itertools.count():
            project, filename, content, publish = prepare()
            answer = trouble.during(at, publish)
            if answer is None:
                break
            on_github = stored(github, world.place).get(filename)
            if on_github is None:
                assert answer.status_code != 200, at
            else:
                assert on_github == sha256(content), at
                assert answer.status_code == 200 or applied, at
                world.other.repository.synchronize()
                check_everywhere(project, filename, content)
            assert world.statuses(world.one, f"{project}/") in ([200], [404]), at
            again = publish()
            assert again.status_code == 200, (at, again.text)
            other = make_wheel(project, "1.0", files={"other.py": b"other"})[1]
            assert world.one.publish(filename, other).status_code == 409
            page = world.one.ask("GET", f"{project}/")
            assert [each["filename"] for each in page.json()["files"]] == [filename]
            if is_many:  # what a killed writer left is removed after a day
                github.clock.advance(DAY + 60)
                assert world.one.publish(*make_wheel(project, "2.0")).status_code == 200
            made.append((project, filename, content))
    assert len(made) >= 6
    world.other.repository.synchronize()
    assert leftovers(github, world.place) == []
    for each in made:
        check_everywhere(*each)


# Yanking and deleting.


@pytest.mark.parametrize(("kind", "applied"), FEWER)
@each_type
def test_yanking_survives_trouble_at_every_request(world: World, kind: str, applied: bool) -> None:
    """Success means yanked, on every server; and the file itself is there all the time."""

    def prepare() -> tuple[str, str, bytes, Callable[[], requests.Response]]:
        project = world.new_project()
        ((filename, content),) = world.make_files(project, "1.0").items()
        yank = partial(
            world.one.ask, "POST", f"{project}/1.0/yank", world.new_token(), reason="broken"
        )
        return project, filename, content, yank

    with Trouble(world, kind, applied) as trouble:
        for at in itertools.count():
            project, filename, content, yank = prepare()
            answer = trouble.during(at, yank)
            if answer is None:
                break
            listed = world.listed(project)
            assert set(listed) == {filename}
            assert listed[filename]["hashes"] == {"sha256": sha256(content)}
            allowed = {"broken"} if answer.status_code == 200 else {False, "broken"}
            assert listed[filename]["yanked"] in allowed, at
            again = yank()
            assert again.status_code == 200, (at, again.text)
            for server in (world.one, world.other):
                server.repository.synchronize()
                (file,) = server.ask("GET", f"{project}/").json()["files"]
                assert (file["filename"], file["yanked"]) == (filename, "broken"), at
        assert at >= 5


@pytest.mark.parametrize(("kind", "applied"), FEWER)
@each_type
def test_deleting_survives_trouble_at_every_request(world: World, kind: str, applied: bool) -> None:
    """Success means gone, on every server; who was told of trouble has a whole file, or none."""

    def prepare() -> tuple[str, str, bytes, Callable[[], requests.Response]]:
        project = world.new_project()
        files = world.make_files(project, "1.0", "2.0")
        filename = min(files)
        delete = partial(world.one.ask, "DELETE", f"{project}/{filename}", world.new_token())
        return project, filename, files[filename], delete

    with Trouble(world, kind, applied) as trouble:
        for at in itertools.count():
            project, filename, content, delete = prepare()
            answer = trouble.during(at, delete)
            if answer is None:
                break
            listed = world.listed(project)
            if answer.status_code == 200:
                assert filename not in listed, at
            elif filename in listed:
                assert listed[filename]["hashes"] == {"sha256": sha256(content)}
                assert world.other.ask("GET", f"{project}/{filename}").content == content
            again = delete()
            # Where the name is burnt first, it is gone already.
            assert again.status_code in (200, 404), (at, again.text)
            for server in (world.one, world.other):
                server.repository.synchronize()
                page = server.ask("GET", f"{project}/").json()["files"]
                assert [file["filename"] for file in page] == [max(set(listed) | {filename})], at
                assert server.ask("GET", f"{project}/{filename}").status_code == 404
            assert world.one.publish(filename, content).status_code == 400  # burnt
        assert at >= 4


# Synchronising.


def rebuild(world: World) -> None:
    """What the workflow of the repository does."""
    repository = world.one.repository
    update_index(
        repository.storage(Secret(world.place.writer)),
        backend_type="github",
        name=world.place.name,
        folder=world.folder,
    )


@each_fault
@pytest.mark.parametrize("place_type", ["github"])
def test_synchronising_survives_trouble_at_every_request(
    world: World, kind: str, applied: bool
) -> None:
    """What was known is served on; what is new is there, or nobody can tell."""
    old = world.new_project()
    (before,) = world.make_files(old, "1.0")
    other, trouble = world.other, Trouble(world, kind, applied)
    for at in itertools.count():
        # An index that another one wrote, and a file that is younger.
        rebuild(world)
        new = world.new_project()
        ((filename, content),) = world.make_files(new, "1.0").items()
        with trouble.strikes(at) as fault:
            error = outcome(other.repository.synchronize)
        if not fault.happened and error is None:
            break
        assert error is None or isinstance(error, BackendError), (at, error)
        assert world.statuses(other, "", f"{old}/", f"{old}/{before}") == [200] * 3
        assert old in other.ask("GET", "").text
        status = 200 if error is None else 503
        assert world.statuses(other, f"{new}/", f"{new}/{filename}") == [status] * 2, (at, error)
        other.repository.synchronize()
        assert other.ask("GET", f"{new}/{filename}").content == content
    assert at >= 2


@pytest.mark.parametrize(("kind", "applied"), [*FEWER, ("404", False)])
@pytest.mark.parametrize("place_type", ["github"])
def test_a_server_that_starts_amid_trouble_calls_nothing_absent(
    world: World, kind: str, applied: bool
) -> None:
    """503 until the first synchronisation is whole; then everything is there."""
    project, trouble = world.new_project(), Trouble(world, kind, applied)
    ((filename, content),) = world.make_files(project, "1.0").items()
    rebuild(world)
    for on in ("GET /repos/*/contents/*", "GET /repos/*/releases"):
        with trouble.strikes(0, on=on, times=1000) as fault:
            server = world.serve()
            error = outcome(server.repository.synchronize)
            statuses = world.statuses(server, "", f"{project}/", f"{project}/{filename}", "other/")
            statuses.append(server.publish(*make_wheel(project, "2.0")).status_code)
        assert fault.happened
        if error is None:  # no document is what 404 means, and then the listing tells all
            assert (kind, on[-1]) == ("404", "*")
            assert statuses == [200, 200, 200, 404, 200]
        else:
            assert isinstance(error, BackendError), (on, error)
            assert statuses == [503] * 5, on
        server.repository.synchronize()
        assert server.ask("GET", f"{project}/{filename}").content == content
        assert world.statuses(server, "other/") == [404]
