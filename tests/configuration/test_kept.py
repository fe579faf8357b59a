"""Both files of a stored configuration are old or both are new, even after a crash."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from private_pypi.configuration import kept as kept_configuration
from private_pypi.configuration.kept import KeptConfiguration
from private_pypi.errors import BackendUnavailable

# Replaces a configuration once for each step that it takes, and is stopped at that step: by the
# end of the process, or by an error of the disk. Prints what is there before and after a start.
_INTERRUPTED = """\
import errno, json, os, shutil, sys
from pathlib import Path
from private_pypi.configuration.kept import KeptConfiguration

root, how, old, new = Path(sys.argv[1]), sys.argv[2], *map(json.loads, sys.argv[3:])
STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "tempfile.mkdtemp"}

seen = 0

def stop_at(step):
    def hook(event, arguments):
        global seen
        if event not in STEPS or not str(arguments[0]).startswith(str(root)):
            return
        seen += 1
        if seen == step:
            if how == "kill":
                os._exit(9)
            raise OSError(errno.ENOSPC, "No space left on device")
    sys.addaudithook(hook)

def texts():
    with kept.locked():
        return [source and source.text for source in kept.read()]

for step in range(1, 100):
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    kept = KeptConfiguration(root)
    with kept.locked():
        kept.replace(config=old[0], admin_secret=old[1])
    child = os.fork()
    if child == 0:
        stop_at(step)
        try:
            with kept.locked():
                kept.replace(config=new[0], admin_secret=new[1])
        except OSError:
            pass
        os._exit(9 if seen >= step else 0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = texts()
    print(json.dumps([ended, found, sorted(os.listdir(root)), texts() == found]))
    if ended == 0:
        break
"""


def texts(kept: KeptConfiguration) -> list[str | None]:
    with kept.locked():
        return [None if source is None else source.text for source in kept.read()]


@pytest.mark.parametrize("how", ["kill", "full disk"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["one", "secrets of one"], ["two", "secrets of two"]),
        (["one", "secrets of one"], ["two", ""]),
        (["one", ""], ["two", "secrets of two"]),
    ],
)
def test_an_interruption_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, how: str, old: list[str], new: list[str]
) -> None:
    arguments = [str(tmp_path / "root"), how, json.dumps(old), json.dumps(new)]
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) > 10
    assert [ended for ended, *_ in lines] == [9] * (len(lines) - 1) + [0]
    states = [[config or None, secrets or None] for config, secrets in (old, new)]
    for _, found, names, stays in lines:
        assert found in states
        assert stays
        # Nothing of an interrupted replacement is left.
        assert set(names) <= {".config.toml.lock", "config.toml", "admin_secret.toml"}
    assert {tuple(found) for _, found, *_ in lines} == {tuple(state) for state in states}
    assert lines[-1][1] == states[1]


def test_what_is_not_given_stays(tmp_path: Path) -> None:
    kept = KeptConfiguration(tmp_path)
    assert (kept.state(), texts(kept)) == (None, [None, None])
    for given, expected in (
        ({"admin_secret": "secrets"}, [None, "secrets"]),
        ({"config": "one"}, ["one", "secrets"]),
        ({"config": "two", "admin_secret": ""}, ["two", None]),
    ):
        with kept.locked():
            kept.replace(**given)
        assert texts(kept) == expected
    assert kept.state() is not None
    assert (tmp_path / "config.toml").stat().st_mode & 0o777 == 0o600


def test_a_lock_that_is_held_for_ever_is_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_configuration, "_PATIENCE", 0.01)
    kept = KeptConfiguration(tmp_path)
    with (
        FileLock(tmp_path / ".config.toml.lock"),
        pytest.raises(BackendUnavailable, match="another process has locked the configuration"),
        kept.locked(),
    ):
        pass
