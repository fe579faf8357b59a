"""What is built from this checkout: whole, installable, and the same from a wheel and an sdist."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from private_pypi.commands import serving

ROOT = Path(__file__).parent.parent


def build(kind: str, source: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", out]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    [built] = out.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module", params=["checkout", "sdist"])
def wheel(
    request: pytest.FixtureRequest, sdist: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A wheel, built as `pip install .` does, or from the sdist."""
    source = ROOT
    if request.param == "sdist":
        unpacked = tmp_path_factory.mktemp("unpacked")
        with tarfile.open(sdist) as archive:
            archive.extractall(unpacked)  # our own
        [source] = unpacked.iterdir()
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_has_the_framework_and_the_backends(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    expected = [
        str(path.relative_to(base))
        for base, package in ((ROOT, "private_pypi"), (ROOT / "backends", "private_pypi_*"))
        for folder in base.glob(package)
        for path in folder.rglob("*")
        if path.suffix in (".py", ".html", ".css", ".js", ".svg") or path.name == "py.typed"
    ]
    assert len(expected) > 30
    assert set(expected) <= set(names)
    [entry_points] = [name for name in names if name.endswith("entry_points.txt")]
    text = zipfile.ZipFile(wheel).read(entry_points).decode()
    assert "private_pypi = private_pypi.cli:main" in text
    assert "private-pypi = private_pypi.cli:main" in text
    assert "[private_pypi.backends]" in text
    assert any(name.endswith("licenses/LICENSE") for name in names)
    folders = {name.split("/")[0] for name in names}
    assert {"tests", "benchmarks", "docs"} & folders == set()


def test_what_is_installed_runs(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    # Before the checkout, which the environment of the tests has as an editable install.
    environ = os.environ | {"PYTHONPATH": str(target)}
    script = (
        "import private_pypi, private_pypi_file_system, private_pypi.storage.plugins as plugins\n"
        "print(private_pypi.__file__, private_pypi_file_system.__file__)\n"
        "print(plugins.load_backend('file_system').__name__)\n"
        "print(plugins.load_backend('github').__module__)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.splitlines() == [
        f"{target}/private_pypi/__init__.py {target}/private_pypi_file_system/__init__.py",
        "FileSystemBackend",
        "private_pypi_github.backend",
    ]
    helped = subprocess.run(
        [sys.executable, "-m", "private_pypi"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"SUPPORTED COMMANDS\n    server +\w", helped.stdout)


def test_what_quickstart_makes_in_a_checkout_is_neither_committed_nor_built() -> None:
    root = inspect.signature(serving.quickstart).parameters["root"].default
    # An sdist has what git does not ignore, and there are secrets in this folder.
    assert f"{root}/" in (ROOT / ".gitignore").read_text().splitlines()


def test_no_lock_file_bears_an_address() -> None:
    folder = ROOT / "requirements"
    locks = [*folder.glob("*.txt"), *folder.glob("clients/*.txt")]
    own = {path.name for path in locks if path.parent == folder}
    assert own == {"dev.txt", "runtime.txt", "build.txt"}
    assert len(locks) == len(own) + len(list(folder.glob("clients/*.in")))
    for lock in locks:
        text = lock.read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text, f"{lock} bears an address"
