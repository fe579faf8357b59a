"""The parent of worker processes: when they serve, die, cannot begin to serve, or do not end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import eventually

# Workers that answer each connection with their number and process, as the file MODE says.
PROGRAM = """
    import contextlib, ctypes, errno, logging, os, socket, subprocess, sys, time
    from pathlib import Path
    from private_pypi.errors import ConfigurationError, PrivatePypiError
    from private_pypi.web.serving import parent

    mode, stop_seconds = Path(sys.argv[1]), float(sys.argv[2])

    def run(number, sockets, stop, on_serving):
        text = mode.read_text()
        if "refuse" in text:
            raise ConfigurationError("this is wrong", "and that")
        if "crash" in text:
            os._exit(3)
        if "child" in text:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            print("child of worker", number, "is", child.pid, flush=True)
        on_serving()
        print("worker", number, "is there", flush=True)
        told = False
        while not stop.requested or "stay" in text:
            if stop.requested and not told:
                told = print("worker", number, "shall end", flush=True) is None
            sockets[0].settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                connection, _ = sockets[0].accept()
                with connection:
                    connection.sendall(f"{number} {os.getpid()}".encode())
        print("worker", number, "ended", flush=True)

    fork = os.fork

    def fork_if_possible():
        if "full" in mode.read_text():
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = fork_if_possible
    if "child" in mode.read_text():
        # Orphans become children of this process, as if it was the first one of a container.
        PR_SET_CHILD_SUBREAPER = 36
        assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    port = listener.getsockname()[1]
    try:
        parent.supervise(
            run,
            [listener],
            2,
            on_serving=lambda: print("serves", port, flush=True),
            on_end=lambda number: print("gone", number, flush=True),
            stop_seconds=stop_seconds,
        )
    except PrivatePypiError as error:
        print("error:", error, flush=True)
        sys.exit(1)
    print("ended", flush=True)
"""


CHILD = re.compile(r"child of worker (\d) is (\d+)")


class Parent:
    """The program in a process of its own, and what it said."""

    def __init__(self, folder: Path, mode: str = "", stop_seconds: float = 20) -> None:
        self._mode = folder / "mode"
        self.mode(mode)
        self._out = folder / "out"
        arguments = [textwrap.dedent(PROGRAM), str(self._mode), str(stop_seconds)]
        with self._out.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", *arguments],
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def mode(self, mode: str) -> None:
        self._mode.write_text(mode)

    @property
    def said(self) -> str:
        return self._out.read_text()

    @property
    def workers(self) -> list[int]:
        """The processes of the workers, in the order in which they were started."""
        return [int(found) for found in re.findall(r"worker \d is process (\d+)", self.said)]

    def served(self) -> Parent:
        eventually(lambda: re.search(r"serves \d+", self.said), lambda: self.said)
        eventually(lambda: self.said.count("is there") == 2, lambda: self.said)
        return self

    def ask(self) -> tuple[int, int]:
        """The number and the process of the worker that answers."""
        found = re.search(r"serves (\d+)", self.said)
        assert found is not None
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=20) as connection:
            number, process = connection.recv(100).split()
        return int(number), int(process)


Start = Callable[..., Parent]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Parent] = []

    def begin(mode: str = "", stop_seconds: float = 20) -> Parent:
        started.append(Parent(tmp_path, mode, stop_seconds))
        return started[-1]

    yield begin
    for parent in started:
        # The workers are in the session of their parent, also if it has ended.
        children = [int(child) for _, child in CHILD.findall(parent.said)]
        for process in [parent.process.pid, *parent.workers, *children]:
            if runs(process):
                os.kill(process, signal.SIGKILL)
        parent.process.wait(20)


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("to_all", [False, True], ids=["to the parent", "to all"])
def test_a_signal_ends_all_workers_cleanly(
    start: Start, number: signal.Signals, to_all: bool
) -> None:
    parent = start().served()
    (os.killpg if to_all else os.kill)(parent.process.pid, number)
    assert parent.process.wait(20) == 0
    ends = sorted(line for line in parent.said.splitlines() if "ended" in line)
    assert ends == ["ended", "worker 1 ended", "worker 2 ended"]
    assert "replaced" not in parent.said


def test_a_killed_worker_is_replaced_and_its_connections_wait(start: Start) -> None:
    parent = start().served()
    first = parent.workers
    for process in first:  # one after the other, so that for a moment nobody may accept
        os.kill(process, signal.SIGKILL)
    # Before it is dead, a process that was killed may still take a connection.
    eventually(lambda: not any(runs(process) for process in first))
    assert parent.ask()[1] not in first
    eventually(lambda: len(parent.workers) == 4)
    assert sorted(line for line in parent.said.splitlines() if "gone" in line) == [
        "gone 1",
        "gone 2",
    ]
    for number, process in enumerate(first, 1):
        assert f"worker {number} (process {process}) was killed by SIGKILL; it is" in parent.said
    parent.process.terminate()
    assert parent.process.wait(20) == 0


def test_nothing_is_left_of_the_children_of_a_killed_worker(start: Start) -> None:
    parent = start("child").served()
    children = [int(child) for _, child in sorted(CHILD.findall(parent.said))]
    for worker, child in zip(parent.workers, children, strict=True):
        os.kill(worker, signal.SIGKILL)
        eventually(lambda child=child: parent_of(child) == parent.process.pid)
        os.kill(child, signal.SIGKILL)
        eventually(lambda child=child: not runs(child))
    eventually(lambda: len(parent.workers) == 4)
    os.kill(parent.workers[2], signal.SIGKILL)  # which makes the parent look
    for child in children:
        eventually(lambda child=child: not Path(f"/proc/{child}").exists())
    parent.process.terminate()
    assert parent.process.wait(20) == 0


@pytest.mark.needs("time")
def test_a_worker_that_dies_again_and_again_is_replaced_after_growing_pauses(start: Start) -> None:
    parent = start().served()
    parent.mode("crash")
    os.kill(parent.workers[0], signal.SIGKILL)
    eventually(lambda: "in 2 seconds" in parent.said)
    pauses = re.findall(r"worker 1 .* it is replaced(.*)", parent.said)
    assert pauses[:3] == ["", " in 1 seconds", " in 2 seconds"]
    assert "worker 1 (process" in parent.said
    assert "ended with status 3" in parent.said
    assert parent.ask() == (2, parent.workers[1])  # which served all the time
    parent.mode("")
    eventually(lambda: 1 in {parent.ask()[0] for _ in range(20)}, "worker 1 serves again")


def test_problems_at_the_start_are_those_of_the_server(start: Start) -> None:
    parent = start("refuse")
    assert parent.process.wait(20) == 1
    assert "error: this is wrong\nand that\n" in parent.said
    assert "serves" not in parent.said


def test_a_crash_at_the_start_is_not_repeated(start: Start) -> None:
    parent = start("crash")
    assert parent.process.wait(20) == 1
    assert re.search(r"error: worker \d ended with status 3 before it could serve", parent.said)
    assert len(parent.workers) == 2


def test_a_worker_that_cannot_begin_again_says_why(start: Start) -> None:
    parent = start().served()
    parent.mode("refuse")
    os.kill(parent.workers[1], signal.SIGKILL)
    eventually(lambda: "worker 2 cannot serve: this is wrong" in parent.said)
    assert parent.ask() == (1, parent.workers[0])


def test_a_machine_without_room_for_a_process_is_told(start: Start) -> None:
    parent = start("full")
    assert parent.process.wait(20) == 1
    assert "error: no process can be started for worker 1: Resource temporarily un" in parent.said


def test_a_worker_that_cannot_be_started_again_is_started_later(start: Start) -> None:
    parent = start().served()
    parent.mode("full")
    os.kill(parent.workers[0], signal.SIGKILL)
    eventually(lambda: "no process can be started for worker 1" in parent.said)
    assert parent.ask() == (2, parent.workers[1])
    parent.mode("")
    eventually(lambda: parent.said.count("worker 1 is there") == 2)


def test_workers_end_if_their_parent_is_killed(start: Start) -> None:
    parent = start().served()
    parent.process.kill()
    parent.process.wait(10)
    eventually(lambda: not any(runs(process) for process in parent.workers))
    assert "worker 1 ended" in parent.said


def test_workers_that_do_not_end_are_killed_and_that_is_an_error(start: Start) -> None:
    parent = start("stay", stop_seconds=0.5).served()
    eventually(lambda: parent.ask())
    parent.process.terminate()
    assert parent.process.wait(20) == 1
    assert "error: workers that did not end within 0.5 seconds were killed: 1 (pro" in parent.said
    assert not any(runs(process) for process in parent.workers)


def test_the_second_signal_kills_at_once(start: Start) -> None:
    parent = start("stay").served()
    eventually(lambda: parent.ask())
    parent.process.terminate()
    eventually(lambda: parent.said.count("shall end") == 2, "the first signal has arrived")
    assert parent.process.poll() is None
    parent.process.terminate()
    assert parent.process.wait(20) == -signal.SIGTERM
    eventually(lambda: not any(runs(process) for process in parent.workers))
