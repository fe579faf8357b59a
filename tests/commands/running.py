"""Runs a command in this process, and captures what it prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from private_pypi import cli


@dataclass(frozen=True)
class Ended:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str | Path, environ: Mapping[str, str] | None = None) -> Ended:
        code = cli.main([str(word) for word in argv], environ or {})
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run
