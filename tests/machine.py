"""What tests need of the machine beyond Python and its environment; `--quick` leaves those out.

A pytest plugin. A test that runs a foreign program (a browser, an engine of containers, another
server, a client, git), or a server of ours in a process of its own, says so with the mark `needs`.
It is held to that: without the mark it can start none of them. `--quick` runs the tests that do
not have the mark. What is only slow has it as well: `needs("time")`.

Nothing is installed here. tools/test.sh installs the packages of requirements/debian.list before a
whole run, and who starts pytest in another way is told what is missing.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent
LIST: Final = Path(__file__).parents[1] / "requirements" / "debian.list"

# What every test may start: Python, our own commands, and what each Debian machine and the locked
# environment have and what neither listens nor asks anybody.
_OWN: Final = re.compile(
    r"python[\d.]*|private[_-]pypi"
    r"|sh|tar|unshare"
    r"|actionlint|check-jsonschema|hadolint|shellcheck|zizmor"
)
_STARTING: Final = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn"}

WORKERS: Final = int(os.environ.get("PRIVATE_PYPI_TEST_WORKERS", "1"))
"""How many worker processes the servers of tests have, unless the test is about that."""

LONGEST: Final = (
    "container/test_image.py",
    "test_benchmarks.py",
    "workflows/test_static_site.py",
    "workflows/test_running.py",
    "clients/test_installing.py",
    "clients/test_publishing.py",
    "test_documented_commands.py",
    "web/serving/test_timeouts.py",
)
"""Modules that take a minute or nearly so, of which each is run by one process.

They come first. Of the tests of containers only one module does, because the first one builds the
image, and others would wait for it.
"""

_running: pytest.Item | None = None  # the test that is being set up or run


def need(program: str) -> Path:
    """The path of a program; fails the test that has no mark, or that misses the program."""
    declare(program)
    # What only root uses is not on everybody's PATH, and neither is the environment.
    environment = Path(sys.executable).parent
    path = f"{environment}:{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(program, path=path)
    if found is None:
        packages = [package for package, brings, *_ in listed() if program in (package, brings)]
        brings = f"as root, apt-get install {packages[0]}, or " if packages else ""
        pytest.fail(f"needs {program!r}: {brings}sh tools/test.sh, which installs everything")
    return Path(found)


def declare(what: str) -> None:
    """Say that something is going to be run; fails the test that has no mark."""
    if _running is not None and not _may_need(_running):
        pytest.fail(f"runs {what}: mark this test with pytest.mark.needs")


def listed() -> Iterator[list[str]]:
    """The lines of requirements/debian.list, in words."""
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield line.split()


def _names(code: CodeType) -> Iterator[str]:
    """All that a function refers to by name, also within its comprehensions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _may_need(item: pytest.Item) -> bool:
    return item.get_closest_marker("needs") is not None


# -- the plugin ----------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="leave out the tests that need more than Python and a moment",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "needs(*what): runs a browser, containers, servers, clients or something else that is slow",
    )
    sys.addaudithook(_audit)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        # These start other processes, once for each kind of storage. They belong to the contract
        # with which others test their backends too, so they cannot have a mark of ours.
        if isinstance(item, pytest.Function) and "child_process" in _names(item.function.__code__):
            item.add_marker(pytest.mark.needs("time"))
        # The server that stands for GitHub, which a test asks hundreds of times.
        if "github" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.needs("another server"))
    # Whole modules, since the tests of one share fixtures. What may take minutes comes first: then
    # no worker is left alone with it at the end.
    slow = {item.path for item in items if _may_need(item)}
    first = {TESTS / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (first.get(item.path, len(first)), item.path not in slow))
    if config.getoption("--quick"):
        left_out = [item for item in items if _may_need(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not _may_need(item)]


def pytest_collection_finish() -> None:
    # The collector need not look again at the tests themselves, which are many objects.
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    yield from _during(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield from _during(item)


def _during(item: pytest.Item) -> Iterator[None]:
    # Not while a test is torn down: that ends what belongs to the tests before it as well.
    global _running
    _running = item
    try:
        return (yield)
    finally:
        _running = None


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    """Python calls this before it starts any program, and an exception prevents that."""
    if event not in _STARTING or _running is None or _may_need(_running):
        return
    program = arguments[1] if event == "os.spawn" else arguments[0]
    if not isinstance(program, str | bytes | os.PathLike):
        return
    name = Path(os.fsdecode(program)).name
    if not _OWN.fullmatch(name):
        pytest.fail(f"starts {name!r}: mark this test with pytest.mark.needs")
