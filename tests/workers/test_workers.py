"""A server with several worker processes answers as one with a single process does."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from private_pypi.testing.distributions import make_wheel
from private_pypi.web.sessions.attempts import FAILURES_OF_ADDRESS
from tests.commands.test_servers import CONFIG, LOOPBACK, serving_process
from tests.faults.servers import READER, Server, Servers, assert_tidy, servers_below, sha256, table
from tests.waiting import eventually
from tests.web.api.test_metrics import Samples, samples, value

pytestmark = pytest.mark.needs("a server in a process of its own")

RARELY = table(sync_index_interval=3600)
TOKEN = {"TOKEN": "the-token"}
FLAGS = ("--metrics_token_env", "TOKEN")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with servers_below(tmp_path, workers=2) as servers:
        yield servers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose workers nobody kills, for tests that can share it."""
    folder = tmp_path_factory.mktemp("workers")
    with servers_below(folder, workers=2) as servers:
        server = servers.start(folder / "root", RARELY, flags=FLAGS, environ=TOKEN)
        both_serve(server)
        yield server


def workers_of(parent: int) -> list[int]:
    return [
        int(each) for each in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    ]


def ask_at_once(server: Server) -> None:
    """Requests that come one after the other may all be taken by the same worker."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(server.get, ["/health/"] * 8))


def both_serve(server: Server) -> None:
    """Wait until both workers have answered a request."""

    def have_answered() -> bool:
        ask_at_once(server)
        return set(re.findall(r'requests\[(\d)\]: \S+ \S+ "GET /health/"', server.log)) == {
            "1",
            "2",
        }

    eventually(have_answered, lambda: server.log)


@contextlib.contextmanager
def clients_of_both(server: Server) -> Iterator[tuple[requests.Session, requests.Session]]:
    """Clients whose connections stay open, so that one worker answers each of them.

    Which worker takes a new connection is the system's choice: perhaps always the same one, as
    long as they come one after the other.
    """
    found: dict[str, requests.Session] = {}

    def answered_by(path: str) -> list[str]:
        return re.findall(rf'requests\[(\d)\]: \S+ \S+ "GET {path}"', server.log)

    with contextlib.ExitStack() as clients:

        def connect() -> tuple[str, requests.Session]:
            client = clients.enter_context(requests.Session())
            path = f"/health/{secrets.token_hex(8)}"
            assert client.get(f"{server.url}{path}", timeout=20).status_code == 404
            eventually(lambda: answered_by(path), lambda: server.log)
            return answered_by(path)[0], client

        def both_are_there() -> bool:
            with ThreadPoolExecutor(8) as pool:
                found.update([each.result() for each in [pool.submit(connect) for _ in range(8)]])
            return len(found) == 2

        eventually(both_are_there, lambda: server.log, within=60)
        yield found["1"], found["2"]


def metrics(server: Server) -> Samples:
    answer = server.get("/metrics", ("x", "the-token"))
    assert answer.status_code == 200, answer.text
    return samples(answer.text)


# -- killed workers ------------------------------------------------------------------------------


@dataclass
class Clients:
    """Clients that upload and download, and try again when their connection breaks."""

    server: Server
    ends: threading.Event = field(default_factory=threading.Event)
    acknowledged: dict[str, str] = field(default_factory=dict)  # filename -> sha256
    broken: int = 0
    downloads: int = 0
    unexpected: list[str] = field(default_factory=list)

    def upload(self, number: int) -> None:
        dice = random.Random(number)
        for count in range(1000):
            if self.ends.is_set():
                return
            data = dice.randbytes(dice.choice([0, 300_000, 2_000_000]))
            filename, content = make_wheel(f"project-{number}", f"{count}", files={"data": data})
            for _ in range(20):
                with contextlib.suppress(requests.RequestException):
                    answer = self.server.put(filename, content)
                    if answer.status_code != 200:
                        self.unexpected.append(f"{filename}: {answer.status_code} {answer.reason}")
                    self.acknowledged[filename] = sha256(content)
                    break
                self.broken += 1
            else:
                self.unexpected.append(f"{filename} could not be uploaded")

    def download(self) -> None:
        while not self.ends.is_set():
            for filename, digest in list(self.acknowledged.items()):
                project = filename.split("-")[0].replace("_", "-")
                for _ in range(20):
                    with contextlib.suppress(requests.RequestException):
                        # An answer that ends too early is an error for requests.
                        answer = self.server.get(f"/r/mine/simple/{project}/{filename}")
                        if (answer.status_code, sha256(answer.content)) != (200, digest):
                            self.unexpected.append(f"{filename}: {answer.status_code}")
                        self.downloads += 1
                        break
                    self.broken += 1
                else:
                    self.unexpected.append(f"{filename} could not be downloaded")
                if self.ends.is_set():
                    return
            time.sleep(0.01)


def test_killed_workers_are_replaced_and_nothing_is_lost(servers: Servers, root: Path) -> None:
    server = servers.start(root, RARELY, flags=FLAGS, environ=TOKEN)
    clients = Clients(server)
    threads = [threading.Thread(target=clients.upload, args=(number,)) for number in range(3)]
    threads += [threading.Thread(target=clients.download) for _ in range(2)]
    for thread in threads:
        thread.start()
    dice, killed = random.Random(0), set()
    published = 0.0
    try:
        for _ in range(6):
            before = len(clients.acknowledged)
            eventually(lambda before=before: len(clients.acknowledged) > before + 2, "uploads")
            time.sleep(dice.uniform(0, 0.2))
            # Not one that is just beginning: the pauses between such deaths become long.
            victim = dice.choice(workers_of(server.process.pid) or [0])
            if victim:
                killed.add(victim)
                os.kill(victim, signal.SIGKILL)
            with contextlib.suppress(requests.RequestException):
                counted = value(metrics(server), "changes_total", **PUBLISHED) or 0.0
                assert counted >= published
                published = counted
    finally:
        clients.ends.set()
        for thread in threads:
            thread.join(timeout=60)
    assert clients.unexpected == []
    assert clients.broken > 0, "no client noticed anything: nothing was killed at work"
    assert clients.downloads > 0
    assert server.process.poll() is None
    assert clients.acknowledged.items() == server.all_listed().items()
    for filename, digest in clients.acknowledged.items():
        assert sha256(server.content(filename, filename.split("-")[0].replace("_", "-"))) == digest

    # One that was replaced may be waiting for its turn.
    def all_replaced() -> bool:
        workers = workers_of(server.process.pid)  # also one that was killed and not yet missed
        return len(workers) == 2 and killed.isdisjoint(workers)

    eventually(all_replaced, within=60)
    assert server.log.count("was killed by SIGKILL; it is replaced") == len(killed)
    assert server.stop() == 0
    assert_tidy(root)
    assert list((root / "tmp").iterdir()) == []


PUBLISHED = {"repository": "mine", "action": "publish", "outcome": "done"}


def test_a_worker_that_gets_a_signal_completes_its_requests_and_is_replaced(
    servers: Servers, root: Path
) -> None:
    server = servers.start(root, RARELY)
    both_serve(server)
    first = workers_of(server.process.pid)
    for process in first:
        os.kill(process, signal.SIGTERM)
    server.publish(*make_wheel())
    eventually(lambda: set(first).isdisjoint(workers_of(server.process.pid)))
    eventually(lambda: server.log.count("ended with status 0; it is replaced") == 2)
    assert list(server.listed()) == [make_wheel()[0]]
    assert server.stop() == 0


# -- what workers share --------------------------------------------------------------------------


def test_metrics_are_the_sums_of_all_workers(server: Server) -> None:
    labels = {"method": "GET", "route": "/simple/<name>/", "status": "404"}
    before = value(metrics(server), "http_requests_total", **labels) or 0.0
    with clients_of_both(server) as both:
        for session in both * 15:
            answer = session.get(f"{server.url}/r/mine/simple/counted/", auth=READER, timeout=20)
            assert answer.status_code == 404
    eventually(
        lambda: value(metrics(server), "http_requests_total", **labels) == before + 30,
        "all requests are counted",
    )
    found = metrics(server)
    assert value(found, "http_request_duration_seconds_count", **labels) == before + 30
    bucket = value(found, "http_request_duration_seconds_bucket", **labels, le="+Inf")
    assert bucket == before + 30

    def in_log() -> set[str]:
        asked = r'requests\[(\d)\]: .*"GET /r/mine/simple/counted/" 404'
        return set(re.findall(asked, server.log))

    eventually(lambda: in_log() == {"1", "2"})
    assert value(found, "repository_ready", repository="mine") == 1
    assert found["process_open_fds", frozenset()] > 20
    memory = found["process_resident_memory_bytes", frozenset()]
    assert memory > 2 * 20e6


def test_counters_do_not_go_down_when_a_worker_is_replaced(servers: Servers, root: Path) -> None:
    server = servers.start(root, RARELY, flags=FLAGS, environ=TOKEN)
    both_serve(server)
    labels = {"method": "GET", "route": "/health/", "status": "200"}
    # What is told was written down, and outlives the worker that answers.
    before = value(metrics(server), "http_requests_total", **labels)
    assert before is not None
    first = workers_of(server.process.pid)
    for process in first:
        os.kill(process, signal.SIGKILL)
    eventually(lambda: set(first).isdisjoint(workers_of(server.process.pid)))
    server.get("/health/")
    eventually(lambda: (value(metrics(server), "http_requests_total", **labels) or 0) >= before + 1)
    # Gauges are those of processes that live.
    assert (value(metrics(server), "connections") or 0) <= 3


def test_failed_sign_ins_are_counted_together(server: Server) -> None:
    browser = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}

    def attempt(secret: str, shows: requests.Session, takes: requests.Session) -> requests.Response:
        page = shows.get(f"{server.url}/login/", headers=browser, timeout=20)
        token = re.search(r'name="token" value="([^"]+)"', page.text)
        assert token is not None
        answer = takes.post(
            f"{server.url}/login/",
            data={"pkg_repo_name": "mine", "pkg_repo_secret_raw": secret, "token": token[1]},
            headers=browser,
            # The session in the cookie is read by another worker than the one that wrote it.
            cookies=page.cookies,
            allow_redirects=False,
            timeout=20,
        )
        for client in (shows, takes):
            client.cookies.clear()
        return answer

    with clients_of_both(server) as (one, other):
        signed_in = attempt("r", one, other)
        assert signed_in.status_code == 303
        for client in (one, other):
            page = client.get(
                f"{server.url}/r/mine/", headers=browser, cookies=signed_in.cookies, timeout=20
            )
            assert (page.status_code, page.url) == (200, f"{server.url}/r/mine/")
            client.cookies.clear()
        statuses = []
        for number in range(FAILURES_OF_ADDRESS + 4):
            pair = (one, other) if number % 2 else (other, one)
            statuses.append(attempt("wrong", *pair).status_code)
    assert statuses == [403] * FAILURES_OF_ADDRESS + [429] * 4

    def answered_by() -> set[str]:
        return set(re.findall(r'requests\[(\d)\]: .*"POST /login/"', server.log))

    eventually(lambda: answered_by() == {"1", "2"})


def test_an_upload_is_shown_by_all_workers_at_once(server: Server) -> None:
    for number in range(10):
        filename, content = make_wheel("shown", f"{number}")
        server.publish(filename, content)
        for _ in range(4):
            assert server.listed("shown")[filename] == sha256(content)


def test_a_submitted_configuration_is_used_by_all_workers_at_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    environ = {"ADMIN": "the-admin-token"}
    flags = ("--workers", "2", "--extra_index_url=", "--admin_token_env", "ADMIN")
    with serving_process("server", root, *LOOPBACK, *flags, environ=environ) as server:
        for number in range(8):
            name = f"repository-{number}"
            answer = requests.post(
                f"{server.url}/initialize/",
                data={"config": CONFIG.replace("mine", name)},
                headers={"Authorization": "Bearer the-admin-token"},
                timeout=30,
            )
            assert (answer.status_code, answer.text) == (200, "Done")
            for _ in range(6):  # each over a connection of its own
                page = requests.get(f"{server.url}/r/{name}/simple/", auth=(name, "r"), timeout=20)
                assert page.status_code == 200, (number, page.text)
        assert server.stop() == 0
    lines = (root / "log" / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["initialize"] * 8


def test_of_two_first_configurations_one_is_taken(tmp_path: Path) -> None:
    flags = ("--workers", "3", "--extra_index_url=")
    with serving_process("server", tmp_path / "root", *LOOPBACK, *flags) as server:
        answers: dict[str, int] = {}

        def submit(name: str) -> None:
            config = CONFIG.replace("mine", name)
            url = f"{server.url}/initialize/"
            answers[name] = requests.post(url, data={"config": config}, timeout=30).status_code

        threads = [threading.Thread(target=submit, args=(f"r{number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert sorted(answers.values()) == [200, 403, 403, 403, 403, 403]
        (name,) = [name for name, status in answers.items() if status == 200]
        for _ in range(9):
            page = requests.get(f"{server.url}/r/{name}/simple/", auth=(name, "r"), timeout=20)
            assert page.status_code == 200


def test_a_changed_file_of_the_configuration_is_used_by_all_workers(
    servers: Servers, root: Path, tmp_path: Path
) -> None:
    server = servers.start(root, RARELY)
    both_serve(server)
    config = tmp_path / "config-0.toml"
    config.write_text(RARELY + table("second", sync_index_interval=3600))

    def is_served() -> bool:
        statuses = [server.status("/r/second/simple/", auth=("second", "r")) for _ in range(8)]
        return set(statuses) == {200}

    eventually(is_served)
    eventually(lambda: server.log.count("the configuration has changed") == 2)


# -- the command ---------------------------------------------------------------------------------


def test_lines_of_the_log_name_the_worker(servers: Servers, root: Path) -> None:
    server = servers.start(root, RARELY, flags=("--log_format", "json"))

    def workers() -> set[int | None]:
        ask_at_once(server)
        whole = server.log.rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return {line.get("worker") for line in lines if line["message"] == "request"}

    eventually(lambda: workers() == {1, 2})
    assert server.stop() == 0


@pytest.mark.parametrize("number", [0, 257])
def test_a_wrong_number_of_workers_is_told(servers: Servers, root: Path, number: int) -> None:
    servers.workers = number
    server = servers.begin(root)
    assert server.process.wait(timeout=60) == 2
    assert f"error: --workers must be from 1 to 256, but is {number}" in server.log


def test_problems_of_the_start_are_told_once(servers: Servers, root: Path) -> None:
    server = servers.start(root)
    second = servers.begin(root, port=server.port)
    assert second.process.wait(timeout=60) == 1
    assert second.log.count(f"error: port {server.port} on 127.0.0.1 is in use") == 1
    broken = servers.begin(root, "[mine]\ntype = 'file_system'\ncolour = 'red'\n")
    assert broken.process.wait(timeout=60) == 1
    assert broken.log.count("error: ") == 1
    assert "colour" in broken.log
    assert "serves" not in broken.log


def test_one_worker_is_a_single_process(servers: Servers, root: Path) -> None:
    servers.workers = 1
    server = servers.start(root)
    assert workers_of(server.process.pid) == []
    assert "worker" not in server.log
