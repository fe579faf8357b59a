"""Runs a command so that nothing of it stays behind: python tools/tidily.py COMMAND [ARGUMENTS]

The command gets a temporary folder of its own, which is removed at the end. Processes that outlive
the command, and mounts that it has left below this folder or the current one, are named, ended and
make the run a failure: a test that leaves something behind has to be mended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_GRACE = 10  # seconds in which what was told to end may do so


def main(command: list[str]) -> int:
    """The exit status of the command, or 1 when it succeeded and left something behind."""
    if sys.platform == "linux":
        # Orphans become our children, however they were started and whatever they call themselves.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="private_pypi-") as folder:
        # Sockets have short paths, and some programs want the real one.
        folder = os.path.realpath(folder)
        # As /tmp, it may be passed by others: tests of root run programs as somebody else.
        Path(folder).chmod(0o711)
        status = _run(command, {**os.environ, "TMPDIR": folder})
        left = [*_end_processes(), *_unmount(folder, os.path.realpath("."))]
    for each in left:
        sys.stderr.write(f"error: the run has left this behind: {each}\n")
    return status or (1 if left else 0)


def _run(command: list[str], environ: dict[str, str]) -> int:
    # No signal comes between the start of the command and what is done about signals; the command
    # begins as if they were not blocked.
    handled = {signal.SIGINT, signal.SIGTERM}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    child = os.posix_spawnp(command[0], command, environ, setsigmask=blocked)
    # A terminal sends SIGINT to both of us; the command decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _end_processes() -> list[str]:
    """End what is still there; what did not do so by itself is told."""
    deadline = time.monotonic() + _GRACE
    told: dict[int, str] = {}
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                if time.monotonic() > deadline:
                    for process in _children():
                        told.setdefault(process, f"process {process}: {_command_line(process)}")
                        os.kill(process, signal.SIGKILL)
                time.sleep(0.05)
        except ChildProcessError:
            return [*told.values()]


def _children() -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name of the program stands in brackets and may hold anything.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.append(int(stat.parent.name))
    return found


def _command_line(process: int) -> str:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "it has ended meanwhile"
    return " ".join(os.fsdecode(word) for word in words).strip()


def _unmount(*folders: str) -> list[str]:
    """Unmount what is mounted below these folders."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:  # not Linux
        return []
    told = []
    for line in reversed(lines):  # the inner ones first
        point = line.split()[4].encode().decode("unicode_escape")  # a space is written as \040
        if any(point.startswith(f"{folder}/") for folder in folders):
            told.append(f"mount {point}")
            subprocess.run(["umount", "--lazy", point], check=False)
    return told


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
