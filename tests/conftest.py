"""What every test run has: the split into quick and whole, the table of clients, and an end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.faults.servers import Servers

pytest_plugins = ["tests.machine", "tests.clients.compatibility"]

# No test is about speed, and hypothesis would otherwise fail each example that takes 200 ms.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


# Hundreds of processes of Python are started. Where this is set, as it is in many containers, each
# of them compiles every module again, which takes a second for a server.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Under nohup, a run ignores it, and so would every server that a test starts. In contrast to that,
# new programs do not inherit a handler that does nothing.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Server processes, which end with the test."""
    from tests.faults.servers import servers_below  # not before the plugins are loaded

    with servers_below(tmp_path) as servers:
        yield servers


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three processes on two cores: a third of the time, tests wait for servers and clients."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) * 3 // 2)


def pytest_unconfigure(config: pytest.Config) -> None:
    # Only the process that started the run, at its very end, and not those that a test starts.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        from tests.container.engine import forget_running  # not before the plugins are loaded

        forget_running()
