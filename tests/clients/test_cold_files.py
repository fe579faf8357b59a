"""Installers ask for a file that a slow storage has yet to send."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from private_pypi.storage import recent_trouble
from private_pypi.testing.distributions import make_wheel
from tests.waiting import eventually
from tests.web.valves import PIECE, place

from .environments import Client, make_venv
from .installers import install, installed

pytestmark = pytest.mark.needs("clients")

FILE = make_wheel("demo", "1.0", files={"demo.bin": os.urandom(24 * PIECE)})
NAMES = ("pip", "uv")


def test_two_installers_at_once_share_one_fetch_of_a_file_that_drips(
    client: Callable[[str], Client], tmp_path: Path
) -> None:
    """Each gives up when nothing comes for two seconds; all of it takes longer."""
    clients = {name: client(name) for name in NAMES}
    targets = {name: make_venv(tmp_path / name) for name in NAMES}
    impatient = {"PIP_DEFAULT_TIMEOUT": "2", "UV_HTTP_TIMEOUT": "2"}
    with place(tmp_path, FILE, uploaded=True) as at, ThreadPoolExecutor(2) as pool:
        at.valve.seconds = 0.2
        at.valve.open()

        def run(name: str) -> tuple[int, str]:
            made = clients[name]
            impatiently = Client(made.name, made.environment, made.home, impatient)
            outcome = install(impatiently, [at.url], "demo", targets[name])
            return outcome.code, outcome.output

        for code, output in pool.map(run, NAMES):
            assert code == 0, output
        assert at.storage.calls["open_file"] == 1
    for target in targets.values():
        assert installed(target)["demo"] == "1.0"


def test_an_installer_takes_no_part_for_the_whole(
    client: Callable[[str], Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage breaks off, then sends all of it."""
    for name in ("LEAST", "MOST"):  # the second installer comes long after the first
        monkeypatch.setattr(recent_trouble, name, 0.0)
    for name in NAMES:
        target = make_venv(tmp_path / f"target-{name}")
        with place(tmp_path / name, FILE) as at:
            at.valve.cut_after = 12
            at.valve.open()
            outcome = install(client(name), [at.url], "demo", target)
            assert outcome.code != 0, outcome.output
            assert "demo" not in installed(target)
            assert at.kept() == []
            at.valve.cut_after = None
            outcome = install(client(name), [at.url], "demo", target)
            assert outcome.code == 0, outcome.output
            eventually(lambda at=at: len(at.kept()) == 1, "it is kept")
        assert installed(target)["demo"] == "1.0"
