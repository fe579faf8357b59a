"""The table of `docs/compatibility.md`: collected from the tests, written or compared at the end.

A pytest plugin. Tests say what they found with the fixture `found`; the findings travel with the
reports to the process that started the run, so that it does not matter how many workers there are.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from .environments import CHECKOUT, CLIENTS, locked_version

DOCUMENT: Final = CHECKOUT / "docs" / "compatibility.md"
OPTION: Final = "--write-compatibility"

ROWS: Final = {
    "publish": "Publishes a wheel and an sdist",
    "again": "Publishes the same files again",
    "different": "Publishes different content under an existing filename",
    "skip": "Can be told to skip files that exist",
    "refused": "Publishes with a secret that may only read",
    "unknown": "Publishes with a wrong secret",
    "token": "Publishes as the user `__token__`",
    "pypirc": "Publishes with credentials from `.pypirc`",
    "install": "Installs a wheel",
    "sdist": "Installs an sdist",
    "local": "Installs a local version, `1.0+cu1`",
    "damaged": "Downloads a wheel whose hash differs from that of the index",
    "metadata": "Resolves dependencies from `.metadata`, without downloading wheels",
    "revalidate": "Requests an unchanged page again",
    "cutoff": "Ignores files that were uploaded after a given time",
    "yanked": "Ignores yanked releases, except for an exact version in a requirement",
    "lock": "Writes to its lock file",
    "netrc": "Installs with credentials from `.netrc`",
    "latin": "Installs with a secret that is not ASCII",
    "wrong": "Installs with a wrong secret",
    "fall": "Installs with a wrong secret for the first of two indexes",
    "two": "Installs from two repositories at once",
}

Cell = tuple[str, str]  # row, client
Found = Callable[[str, str, str], None]
"""`found(client, row, finding)`: what a test saw a client do, as it stands in the table."""

_PROPERTY = "compatibility"
_FOLDER = Path(__file__).parent
_SELECTING = ("keyword", "markexpr", "deselect", "lf", "collectonly", "ignore", "ignore_glob")

_HEAD = f"""\
# Compatibility

This table shows what current versions of the clients do with a repository of `private_pypi`.
Each cell is the result of a test that runs the client against a real server, in an environment without access to anything else.
An empty cell means that the client does not have this function, or leaves it to pip or uv, as hatch and flit do for installing.

This file is written by `pytest tests/clients {OPTION}`. Every other complete run of these tests compares it with its results.
The versions of the clients are pinned in `requirements/clients/`.

"""  # noqa: E501 - one sentence per line


@pytest.fixture
def found(request: pytest.FixtureRequest) -> Found:
    """Say what a client did; it counts when the test passes."""

    def record(client: str, row: str, finding: str) -> None:
        assert row in ROWS and client in CLIENTS, (row, client)
        request.node.user_properties.append((_PROPERTY, json.dumps([row, client, finding])))

    return record


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        OPTION,
        action="store_true",
        help="write docs/compatibility.md from what the clients did, instead of comparing it",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that started the run
        config.pluginmanager.register(_Collector(config), "compatibility-collector")


class _Collector:
    """Sees every report of the run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._cells: dict[Cell, str] = {}
        self._problems: list[str] = []
        self._said: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == _PROPERTY:
                row, client, finding = json.loads(str(value))
                before = self._cells.setdefault((row, client), finding)
                if before != finding:
                    self._problems.append(f"{client}, {row}: both {before!r} and {finding!r}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        writes = self._config.getoption(OPTION)
        if exitstatus != pytest.ExitCode.OK or not self._cells or not _is_whole(self._config):
            if writes:
                self._problems.append(
                    f"not written: {OPTION} needs a run of all tests of clients, without a failure"
                )
        elif not self._problems:
            text = render(self._cells)
            if writes:
                DOCUMENT.write_text(text, encoding="utf-8")
                self._said.append(f"{DOCUMENT} is written")
            else:
                self._problems += _differences(text)
        if self._problems:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._problems or self._said:
            terminalreporter.section("compatibility of clients")
        for line in (*self._said, *self._problems):
            terminalreporter.line(line, red=line in self._problems)


def render(cells: Mapping[Cell, str]) -> str:
    """The whole document."""
    header = ["", *(f"{client} {locked_version(client)}" for client in CLIENTS)]
    lines = [_row(header), _row(["---"] * len(header))]
    for row, title in ROWS.items():
        lines.append(_row([title, *(cells.get((row, client), "") for client in CLIENTS)]))
    return _HEAD + "".join(f"{line}\n" for line in lines)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _is_whole(config: pytest.Config) -> bool:
    """Whether nothing of the folder was left out by the command line."""
    if any(config.getoption(option, None) for option in _SELECTING):
        return False
    paths = [Path(config.invocation_params.dir, argument) for argument in config.args]
    return any(_FOLDER.is_relative_to(path.resolve()) for path in paths)


def _differences(text: str) -> list[str]:
    before = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
    if before == text:
        return []
    lines = difflib.unified_diff(
        before.splitlines(), text.splitlines(), "docs/compatibility.md", "found", lineterm="", n=0
    )
    return [*lines, f"if this is right: pytest tests/clients {OPTION}"]
