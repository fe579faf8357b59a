"""Publishers and installers that notice everything: what was promised, and what they got.

Each is a thread with an address of its own on loopback (127.0.0.2 and so on), as the proxy chooses
the server by the address of the client. All of them repeat what failed, as people and pipelines
do, and what a repetition healed is counted. What none can heal is a complaint.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from benchmarks.corpus import make_graph
from benchmarks.installing import install_graph
from private_pypi.testing.distributions import encode_multipart, form_for, make_wheel
from tests.faults.servers import JSON, READER, WRITER, sha256
from tests.replicas.setting import Replicas
from tests.waiting import eventually

PROJECTS = 4  # that are published to and installed
HEALED_WITHIN = 30.0  # seconds after which a failure counts as one
PACKAGES = 4  # that the tools install, each of which needs others
_PAUSE = 0.2  # seconds before a repetition


@dataclass(frozen=True, slots=True)
class Published:
    """A file whose upload was acknowledged."""

    project: str
    filename: str
    sha256: str
    at: float  # time.monotonic()


@dataclass
class Outcome:
    """What became of a load; several threads add to it."""

    published: list[Published] = field(default_factory=list)
    downloads: int = 0
    pages: int = 0
    healed: Counter[str] = field(default_factory=Counter)
    """What a client saw that a repetition healed: the request, and the answer or the error."""
    complaints: list[str] = field(default_factory=list)
    late: float = 0.0
    """The longest time, in seconds, after which a page still lacked an acknowledged file."""
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, file: Published) -> None:
        with self._lock:
            self.published.append(file)

    def snapshot(self) -> list[Published]:
        """What was acknowledged until now."""
        with self._lock:
            return list(self.published)

    def complain(self, sentence: str) -> None:
        with self._lock:
            self.complaints.append(sentence)

    def note_late(self, seconds: float) -> None:
        with self._lock:
            self.late = max(self.late, seconds)

    def count(
        self, *, pages: int = 0, downloads: int = 0, healed: Counter[str] | None = None
    ) -> None:
        with self._lock:
            self.pages += pages
            self.downloads += downloads
            self.healed += healed or Counter()


class _Source(HTTPAdapter):
    """Connects from one address of loopback."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, source_address=(self._address, 0), **kwargs)


class Client:
    """One client of the proxy."""

    def __init__(self, url: str, number: int, outcome: Outcome) -> None:
        self._url = url
        self._outcome = outcome
        self._number = number
        self.choose = random.Random(number)
        self._session = requests.Session()
        self._session.mount("http://", _Source(f"127.0.0.{number + 2}"))
        self._session.trust_env = False

    def publish(self, number: int) -> None:
        """Publish a new file of one of the projects, until that was acknowledged."""
        project = f"project-{self._number % PROJECTS}"
        noise = {f"{project.replace('-', '_')}.py": self.choose.randbytes(2000)}
        filename, content = make_wheel(project, f"{self._number}.{number}", files=noise)
        content_type, body = encode_multipart(form_for(filename, content), filename, content)
        headers = {"Content-Type": content_type}
        answer = self._ask(
            lambda: self._session.post(
                f"{self._url}/r/mine/", data=body, headers=headers, auth=WRITER, timeout=30
            ),
            "upload",
        )
        if answer is not None:
            file = Published(project, filename, sha256(content), time.monotonic())
            self._outcome.add(file)

    def install(self) -> None:
        """Read a page, compare it with what was acknowledged before, and fetch one of its files."""
        project = f"project-{self.choose.randrange(PROJECTS)}"
        asked_at = time.monotonic()
        known = {f.filename: f for f in self._outcome.snapshot() if f.project == project}
        page = f"{self._url}/r/mine/simple/{project}/"
        answer = self._get(page, "page", JSON)
        if answer is None:
            return
        listed = [] if answer.status_code == 404 else answer.json()["files"]
        files = {f["filename"]: f["hashes"]["sha256"] for f in listed}
        self._outcome.count(pages=1)
        if missing := [file.at for name, file in known.items() if name not in files]:
            self._outcome.note_late(asked_at - min(missing))
        wrong = [
            name for name in known if files.get(name, known[name].sha256) != known[name].sha256
        ]
        if wrong:
            self._outcome.complain(f"{page} has wrong hashes for {wrong[:3]}")
        if not files:
            return
        filename = self.choose.choice(sorted(files))
        fetched = self._get(f"{page}{filename}", "file", {})
        if fetched is not None:
            self._outcome.count(downloads=1)
            if sha256(fetched.content) != files[filename]:
                self._outcome.complain(f"{filename} has other bytes than its page says")

    def _get(self, url: str, what: str, headers: dict[str, str]) -> requests.Response | None:
        return self._ask(
            lambda: self._session.get(url, headers=headers, auth=READER, timeout=30), what
        )

    def _ask(self, send: Callable[[], requests.Response], what: str) -> requests.Response | None:
        """The answer, after as many repetitions as it takes; None, and a complaint, without one.

        A page may be absent, because a server need not know yet what another one got. A file that
        a page lists may not.
        """
        deadline = time.monotonic() + HEALED_WITHIN
        seen: Counter[str] = Counter()
        while True:
            try:
                answer = send()
            except requests.RequestException as error:
                said = type(error).__name__
            else:
                status = answer.status_code
                if status == 200 or (status == 404 and what == "page"):
                    self._outcome.count(healed=seen)
                    return answer
                said = f"{status}"
                if 400 <= status < 500:
                    self._outcome.complain(f"{what}: {said} {answer.text[:300]}")
                    return None
            seen[f"{what}: {said}"] += 1
            if time.monotonic() > deadline:
                self._outcome.complain(f"{what} failed until the end: {dict(seen)}")
                return None
            time.sleep(_PAUSE)


@contextlib.contextmanager
def load(url: str, *, publishers: int, installers: int, pause: float = 1.0) -> Iterator[Outcome]:
    """So many clients of both kinds, until the block ends and each has ended what it began.

    Publishers rest for `pause` seconds after each upload, and installers for a quarter of that.
    """
    outcome = Outcome()
    ended = threading.Event()

    def work(number: int) -> None:
        client = Client(url, number, outcome)
        count = 0
        try:
            while not ended.wait(pause if number < publishers else pause / 4):
                if number < publishers:
                    client.publish(count)
                else:
                    client.install()
                count += 1
        except Exception as error:
            outcome.complain(f"client {number} failed: {error!r}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(publishers + installers)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        yield outcome
    finally:
        ended.set()
        for thread in threads:
            thread.join(HEALED_WITHIN + 60)
        outcome.seconds = time.monotonic() - begin


# -- real tools, and what is there at the end ----------------------------------------------------


def publish_graph(setting: Replicas, folder: Path) -> None:
    """Publish the packages that `tools` install, until every server shows them."""
    for path in make_graph(folder, PACKAGES).files():
        setting.running[0].publish(path.name, path.read_bytes())
    eventually(lambda: all("graph-00" in each.projects() for each in setting.running), within=60)


@contextlib.contextmanager
def tools(url: str, outcome: Outcome, folder: Path) -> Iterator[None]:
    """uv and pip install packages again and again through the proxy, until the block ends.

    A person would try it again if it fails, and so do they, twice.
    """
    index = url.replace("http://", f"http://{READER[0]}:{READER[1]}@") + "/r/mine/simple/"
    ended = threading.Event()

    def work(tool: str) -> None:
        while not ended.wait(1):
            failures: list[RuntimeError] = []
            while len(failures) < 3:
                try:
                    install_graph(tool, index, PACKAGES, folder / f"by-{tool}")
                except RuntimeError as error:
                    failures.append(error)
                else:
                    healed = Counter({f"{tool}: failed": len(failures)})
                    outcome.count(downloads=PACKAGES, healed=healed)
                    break
            else:
                outcome.complain(f"{tool} failed three times: {failures[-1]}")

    threads = [threading.Thread(target=work, args=(tool,)) for tool in ("uv", "pip")]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def lost(setting: Replicas, outcome: Outcome) -> list[str]:
    """The acknowledged files that a server does not show, or of which one has other bytes."""
    wanted = {file.filename: file.sha256 for file in outcome.published}
    for server in setting.running:
        deadline = time.monotonic() + 60
        while missing := wanted.items() - server.all_listed().items():
            if time.monotonic() > deadline:
                return [f"{server.url} lacks {name}" for name, _ in sorted(missing)]
            time.sleep(0.2)
    return [
        f"{server.url} has other bytes for {file.filename}"
        for file, server in zip(outcome.published, itertools.cycle(setting.running), strict=False)
        if sha256(server.content(file.filename, file.project)) != file.sha256
    ]
