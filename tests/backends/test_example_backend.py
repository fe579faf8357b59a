"""The example of `backends/README.md`, installed and used as a third party would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from private_pypi.testing.distributions import encode_multipart, form_for, make_wheel

pytestmark = pytest.mark.needs("a server in a process of its own", "pip")

EXAMPLE = Path(__file__).parent.parent.parent / "backends" / "example"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment in which the example is installed.

    It sees what this environment has (private_pypi, pytest, hatchling), so nothing is fetched.
    """
    folder = tmp_path_factory.mktemp("example")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    purelib = Path(
        run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder
        ).strip()
    )
    ours = sysconfig.get_path("purelib")
    (purelib / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    sources = shutil.copytree(EXAMPLE, folder / "sources")
    install = ("pip", "--python", str(python), "install", "--no-index", "--no-deps")
    run(sys.executable, "-m", *install, "--no-build-isolation", str(sources), folder=folder)
    shutil.rmtree(sources / "private_pypi_sqlite")  # only the installed one is left
    return python


def run(*command: str | Path, folder: Path) -> str:
    """The output of a command that succeeds, without what our environment would tell it."""
    ended = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": tempfile.gettempdir(),  # that of the run, which is removed with it
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_its_contract_is_green(installed: Path) -> None:
    sources = installed.parent.parent.parent / "sources"
    # The configuration of pytest is the example's own, that is none.
    told = run(installed, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir=.", folder=sources)
    summary = re.search(r"(?m)^(\d+) passed in .*$", told)
    assert summary is not None, told
    assert int(summary[1]) > 40


def test_it_is_found_by_its_entry_point(installed: Path, tmp_path: Path) -> None:
    question = (
        "from private_pypi.storage.plugins import backend_types, load_backend\n"
        "print(backend_types(), load_backend('sqlite'))"
    )
    told = run(installed, "-c", question, folder=tmp_path)
    assert "'sqlite'" in told
    assert "<class 'private_pypi_sqlite.backend.SqliteBackend'>" in told


@contextmanager
def serving(python: Path, folder: Path) -> Iterator[str]:
    """The address of a server with one `sqlite` repository, until the block ends."""
    (folder / "acme.db").touch()
    (folder / "config.toml").write_text(
        "[acme]\n"
        'type = "sqlite"\n'
        f'path = "{folder / "acme.db"}"\n'
        'read_secret = "may-read"\n'
        'write_secret = "may-write"\n'
    )
    command = [str(python), "-m", "private_pypi", "server", "root", "--config", "config.toml"]
    with subprocess.Popen(
        [*command, "--extra_index_url=", "--host", "127.0.0.1", "--port", "0"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            told = []
            for line in server.stdout:
                told.append(line)
                if address := re.search(r"http://127\.0\.0\.1:\d+", line):
                    break
            else:
                raise AssertionError("the server ended:\n" + "".join(told))
            yield address[0]
        finally:
            server.terminate()


def test_a_server_publishes_to_it_and_serves_from_it(installed: Path, tmp_path: Path) -> None:
    filename, content = make_wheel()
    content_type, form = encode_multipart(form_for(filename, content), filename, content)
    for restart in (False, True):
        with serving(installed, tmp_path) as address:
            index = f"{address}/r/acme/simple/"
            if not restart:
                answer = requests.post(
                    index,
                    data=form,
                    headers={"Content-Type": content_type},
                    auth=("acme", "may-write"),
                    timeout=60,
                )
                assert answer.status_code == 200, answer.text
            session = requests.Session()
            session.auth = ("acme", "may-read")
            assert filename in session.get(f"{index}demo/", timeout=60).text
            assert session.get(f"{index}demo/{filename}", timeout=60).content == content
            metadata = session.get(f"{index}demo/{filename}.metadata", timeout=60)
            assert b"Name: demo" in metadata.content
        # All of it is in the database, and nothing of it in ROOT.
        shutil.rmtree(tmp_path / "root")
