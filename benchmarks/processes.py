"""A measured server's processes: started, watched through `/proc`, ended by their own ids."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_CLIENT_VARIABLES = ("PIP_", "UV_", "TWINE_", "PRIVATE_PYPI_", "PYWHARF_", "DEVPI", "PYTHON")


def plain_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process' environment without what would configure a server or a client."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_CLIENT_VARIABLES)}
    return {**kept, "NO_PROXY": "*", "no_proxy": "*", **(extra or {})}


def find_uv() -> str:
    """The uv of this environment, or one on PATH."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    found = shutil.which("uv", path=os.pathsep.join(folders))
    if found is None:
        raise SystemExit("uv is not installed; it is one of the development requirements")
    return found


class Processes:
    """One command and all its descendants: they share a session of their own."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.command = " ".join(command)
        self.log = log
        with log.open("ab") as output:
            self._leader = subprocess.Popen(
                command,
                cwd=log.parent,
                env=plain_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check_alive(self) -> None:
        """Raise `RuntimeError` with the end of the log when the command has ended."""
        if self._leader.poll() is not None:
            tail = self.log.read_text(errors="replace")[-1500:]
            raise RuntimeError(f"{self.command!r} ended with {self._leader.returncode}:\n{tail}")

    def wait(self) -> int:
        """Wait until the command has ended; its exit code."""
        return self._leader.wait()

    def stop(self) -> None:
        """End the session: politely, then for good."""
        self._leader.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._leader.wait(35.0)  # one of them lets open requests finish for 30 s
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._leader.wait(10.0)

    def memory(self) -> int:
        """Bytes in use: PSS, so that what the processes share counts once."""
        return sum(self._kilobytes("smaps_rollup", "Pss")) * 1024

    def peak_memory(self) -> int:
        """The highest resident sizes since `forget_peak`, in bytes."""
        return sum(self._kilobytes("status", "VmHWM")) * 1024

    def resident_memory(self) -> int:
        """The resident sizes now, in bytes."""
        return sum(self._kilobytes("status", "VmRSS")) * 1024

    def forget_peak(self) -> None:
        """Let the highest resident size begin again from now."""
        for pid in self._pids():
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def processor_time(self) -> float:
        """Seconds of processor time that the living processes have used."""
        return sum(self.processor_times().values())

    def processor_times(self) -> dict[int, float]:
        """The same for each process, by its id."""
        found = {}
        for pid in self._pids():
            with contextlib.suppress(OSError):
                fields = _stat(pid)
                found[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
        return found

    def settle(self, limit: float = 10.0, quiet: float = 0.1) -> None:
        """Wait, at most `limit` seconds, until it does next to nothing for `quiet` seconds.

        Requests that nobody waits for any more are worked off by then.
        """
        end = time.monotonic() + limit
        before = self.processor_time()
        while time.monotonic() < end:
            time.sleep(quiet)
            now = self.processor_time()
            if now - before <= max(1 / _TICKS, quiet / 20):
                return
            before = now

    def family(self) -> list[int]:
        """The ids of the command and its descendants, also of those with sessions of their own."""
        children: dict[int, list[int]] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(folder.name))[1]), []).append(int(folder.name))
        found = [self._leader.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def _pids(self) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = _stat(int(folder.name))
                if int(fields[3]) == self._leader.pid and fields[0] != "Z":
                    found.append(int(folder.name))
        return found

    def _kilobytes(self, file: str, key: str) -> list[int]:
        found = []
        for pid in self._pids():
            found += _kilobytes(pid, file, key)
        return found


def _kilobytes(pid: int, file: str, key: str) -> list[int]:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/{file}").read_text()
        return [int(value) for value in re.findall(rf"^{key}:\s+(\d+)", text, re.M)]
    return []


def peak_of(pid: int) -> int:
    """The highest resident size of one process, in bytes; 0 if there is no such process."""
    return sum(_kilobytes(pid, "status", "VmHWM")) * 1024


def processor_of(pid: int) -> float:
    """Seconds of processor time of one process, and of its children that have ended."""
    return sum(map(int, _stat(pid)[11:15])) / _TICKS


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a command that was watched until its end."""

    code: int
    seconds: float
    processor: float  # seconds of processor time of it and its descendants
    peak: int  # bytes: the highest resident sizes of it and its descendants, in any session


def run_watched(command: Sequence[str], log: Path, every: float = 0.1) -> Run:
    """Run a command to its end, and look at the memory of its processes `every` so many seconds."""
    peaks = [0]
    ended = threading.Event()
    before = _processor_of_children()
    begin = time.perf_counter()
    processes = Processes(command, log)

    def watch() -> None:
        while not ended.wait(every):
            peaks.append(sum(map(peak_of, processes.family())))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        code = processes.wait()
        seconds = time.perf_counter() - begin
    finally:
        ended.set()
        watcher.join()
        processes.stop()
    return Run(code, seconds, _processor_of_children() - before, max(peaks))


def _processor_of_children() -> float:
    """Seconds of processor time of all that this process has waited for, with their children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _stat(pid: int) -> list[str]:
    """The fields of `/proc/<pid>/stat` from the state on (the third of proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
