"""The scripts of tools/: what they say when something is missing, and what they leave behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.disks import need_mounts
from tests.machine import listed

ROOT = Path(__file__).parents[1]
INSTALL = "apt-get update && apt-get install -y --no-install-recommends"
MISSING = f"error: this needs root once: {INSTALL}"
PYTHON = ["python3", "python3-venv"]


def packages_for(*who: str) -> list[str]:
    """Those of requirements/debian.list for everybody, or for root.

    Without those whose program is in a folder where the script looks on its own.
    """
    return [
        package
        for package, program, *whose in listed()
        if tuple(whose) == who
        if shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin") is None
    ]


FOR_USERS = packages_for()
FOR_ROOT = packages_for("root")


# -- packages that are missing -------------------------------------------------------------------


def bare_machine(folder: Path, user: int = 1000) -> Path:
    """A checkout on a machine with apt-get and nothing else, where nobody may become root."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("dirname", "rm", "cat"):
        (programs / name).symlink_to(shutil.which(name) or pytest.fail(f"there is no {name}"))
    for name, says in (("id", f"echo {user}"), ("apt-get", 'echo "$0 $*" >&2; exit 9')):
        (programs / name).write_text(f"#!/bin/sh\n{says}\n")
        (programs / name).chmod(0o755)
    (programs / "env").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (programs / "env").chmod(0o755)
    shutil.copytree(ROOT / "tools", folder / "tools")
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    return programs


def run_there(folder: Path, script: str, *arguments: str) -> tuple[int, str]:
    """The exit status of a script of tools/, and all that it says."""
    shell = shutil.which("sh")
    assert shell is not None
    ended = subprocess.run(
        [shell, folder / "tools" / script, *arguments],
        env={"PATH": str(folder / "bin"), "HOME": os.devnull},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return ended.returncode, ended.stdout


@pytest.mark.parametrize(
    ("command", "packages"),
    [
        (("quickstart.sh",), PYTHON),
        (("test.sh", "--quick"), PYTHON),
        (("test.sh",), PYTHON + FOR_USERS),
        (("test.sh", "tests/web"), PYTHON + FOR_USERS),
    ],
)
def test_who_may_not_install_packages_is_told_all_that_are_missing(
    tmp_path: Path, command: tuple[str, ...], packages: list[str]
) -> None:
    bare_machine(tmp_path)
    assert run_there(tmp_path, *command) == (1, f"{MISSING} {' '.join(packages)}\n")


def test_what_is_there_is_not_asked_for(tmp_path: Path) -> None:
    programs = bare_machine(tmp_path)
    for name in ("git", "nginx"):
        (programs / name).symlink_to("/bin/true")
    (programs / "dpkg-query").write_text('#!/bin/sh\n[ "$3" = libatomic1 ] && printf installed\n')
    (programs / "dpkg-query").chmod(0o755)
    left = [each for each in FOR_USERS if each not in ("git", "nginx-light", "libatomic1")]
    assert run_there(tmp_path, "test.sh") == (1, f"{MISSING} {' '.join(PYTHON + left)}\n")


def test_root_gets_what_is_missing_and_the_error_of_apt_get(tmp_path: Path) -> None:
    bare_machine(tmp_path, user=0)
    code, said = run_there(tmp_path, "test.sh")
    packages = " ".join(PYTHON + FOR_USERS + FOR_ROOT)
    assert code == 9
    assert said == (f"installing Debian packages: {packages}\n{tmp_path}/bin/apt-get update -qq\n")


# -- what a run leaves behind --------------------------------------------------------------------


IMPATIENT = f"""
import sys
sys.path.insert(0, {str(ROOT / "tools")!r})
import tidily
tidily._GRACE = 1
sys.exit(tidily.main(sys.argv[1:]))
"""


def tidily(
    folder: Path, script: str, wrapper: tuple[str, ...] = (), *, impatient: bool = False
) -> subprocess.CompletedProcess[str]:
    """A shell script that is run by tools/tidily.py."""
    run = ("-c", IMPATIENT) if impatient else (ROOT / "tools" / "tidily.py",)
    return subprocess.run(
        [*wrapper, sys.executable, *run, "sh", "-euc", script],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("status", [0, 3])
def test_a_command_that_leaves_nothing_ends_as_it_does(tmp_path: Path, status: int) -> None:
    ended = tidily(tmp_path, f"echo said; true & exit {status}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "said\n", "")


def test_the_temporary_folder_of_a_command_goes_with_it(tmp_path: Path) -> None:
    ended = tidily(tmp_path, 'mkdir "$TMPDIR/a"; touch "$TMPDIR/a/b"; chmod 0 "$TMPDIR/a"')
    assert (ended.returncode, ended.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("time")
def test_a_process_that_stays_is_named_and_ended(tmp_path: Path) -> None:
    """Whatever it did to be nobody's child."""
    code = "import os; os.fork() and os._exit(0); os.setsid(); import time; time.sleep(600)"
    ended = tidily(tmp_path, f"'{sys.executable}' -c '{code}' >/dev/null 2>&1", impatient=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: the run has left this behind: process ")
    assert ended.stderr.endswith(f": {sys.executable} -c {code}\n")
    process = int(ended.stderr.split("process ")[1].split(":")[0])
    assert not Path(f"/proc/{process}").exists()


def test_a_mount_that_stays_is_named_and_removed(tmp_path: Path) -> None:
    need_mounts()
    mounted = tmp_path / "a folder"
    mounted.mkdir()
    script = f"mount -t tmpfs tmpfs '{mounted}'; touch '{mounted}/file'"
    namespace = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "-r")
    ended = tidily(tmp_path, script, namespace)
    said = f"error: the run has left this behind: mount {mounted}\n"
    assert (ended.returncode, ended.stderr) == (1, said)


def test_a_signal_reaches_the_command(tmp_path: Path) -> None:
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    command = [sys.executable, ROOT / "tools" / "tidily.py", "sh", "-c", script]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 7
    assert list(tmp_path.iterdir()) == []


def test_what_is_installed_is_pinned_and_names_no_registry() -> None:
    """Where packages come from is a matter of the machine."""
    lock = json.loads((ROOT / "requirements" / "azurite" / "package-lock.json").read_text())
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert len(packages) > 100
    assert {name for name, each in packages.items() if "integrity" not in each} == set()
    assert {name for name, each in packages.items() if "resolved" in each} == set()


# -- who installs --------------------------------------------------------------------------------


def test_nothing_but_the_scripts_installs_packages() -> None:
    installing = [
        str(path.relative_to(ROOT))
        for folder in ("tests", "benchmarks", ".ci")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sh", "") and path.is_file()
        if '"apt-get", "install"' in path.read_text() or "apt-get install -y" in path.read_text()
    ]
    assert installing in ([], ["tests/test_tools.py"])  # which names what it looks for
