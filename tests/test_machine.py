"""The split of the tests into quick and whole: held by every run, and complete."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.environments import install_client
from tests.machine import LONGEST, TESTS, listed, need

ROOT = Path(__file__).parents[1]


def test_a_test_without_the_mark_starts_no_foreign_program() -> None:
    with pytest.raises(pytest.fail.Exception, match="starts 'git': mark this test"):
        subprocess.run(["git", "--version"], check=False)
    with pytest.raises(pytest.fail.Exception, match="starts 'podman': mark this test"):
        subprocess.run("podman", executable="/usr/bin/podman", check=False)
    with pytest.raises(pytest.fail.Exception, match="starts 'nginx': mark this test"):
        os.posix_spawn("/usr/sbin/nginx", ["nginx"], {})
    with pytest.raises(pytest.fail.Exception, match="starts 'node': mark this test"):
        asyncio.run(asyncio.create_subprocess_exec("/x/playwright/driver/node", "run-driver"))
    with pytest.raises(pytest.fail.Exception, match="starts 'caddy': mark this test"):
        subprocess.run([Path(sys.executable).with_name("caddy"), "version"], check=False)


def test_a_test_without_the_mark_asks_for_no_foreign_program() -> None:
    with pytest.raises(pytest.fail.Exception, match="runs nginx: mark this test"):
        need("nginx")
    with pytest.raises(pytest.fail.Exception, match="runs uv: mark this test"):
        install_client("uv")


@pytest.mark.needs("nginx")  # in a way: a test without the mark may not even ask
def test_who_misses_a_program_is_told_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(pytest.fail.Exception) as missing:
        need("nginx")
    assert str(missing.value) == (
        "needs 'nginx': as root, apt-get install nginx-light, "
        "or sh tools/test.sh, which installs everything"
    )


def test_a_quick_run_leaves_out_what_has_the_mark() -> None:
    """This file has tests of both kinds."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "--collect-only", "--quick", __file__]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout
    assert "test_a_test_without_the_mark_starts_no_foreign_program" in ended.stdout
    assert "test_who_misses_a_program_is_told_its_package" not in ended.stdout


@pytest.mark.needs("time")
def test_modules_with_what_is_slow_come_first() -> None:
    quick, slow = "tests/test_layers.py", "tests/test_machine.py"
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "--collect-only", quick, slow]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout
    assert -1 < ended.stdout.rindex(f"{slow}::") < ended.stdout.index(f"{quick}::")


def test_the_longest_modules_are_there_under_the_names_that_they_are_listed_with() -> None:
    assert [name for name in LONGEST if not (TESTS / name).is_file()] == []


def test_every_program_that_tests_ask_for_is_installed_by_the_test_command() -> None:
    """By a package of requirements/debian.list or of npm, or with the environment."""
    brought = {name for package, program, *_ in listed() for name in (package, program)}
    of_npm = json.loads((ROOT / "requirements" / "azurite" / "package.json").read_text())
    brought |= of_npm["dependencies"].keys()
    scripts = {path.name for path in Path(sys.executable).parent.iterdir()}
    asked = set(programs_asked_for())
    assert {"chromium", "nginx", "podman"} <= asked
    assert asked - brought - scripts == set()


def programs_asked_for() -> Iterator[str]:
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="need"), args=[ast.Constant(value=program)]):
                    yield str(program)
