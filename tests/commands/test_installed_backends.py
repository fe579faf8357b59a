"""Backends and commands of other distributions, as the command line uses them."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_pypi.commands import indexing
from private_pypi.testing.distributions import make_wheel
from tests.commands.running import Ended, Run

# -- backends that others install ----------------------------------------------------------------

VAULT = '''
import dataclasses
import sys

from private_pypi.backend import Access, Secret
from private_pypi_file_system.backend import FileSystemBackend, FileSystemStorage


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaultSettings(FileSystemBackend.Settings):
    door: str
    level: int = 1
    keys: tuple[str, ...] = ()


class VaultStorage(FileSystemStorage):
    """A file system backend that needs a secret."""

    def access(self, project=None):
        if self.secret == Secret("reader"):
            return Access.READ
        return Access.WRITE if self.secret == Secret("-1e5") else Access.NONE


class VaultBackend(FileSystemBackend):
    Settings = VaultSettings
    View = VaultStorage
    traits = dataclasses.replace(
        FileSystemBackend.traits,
        lists_cheaply=False,
        opens_here=False,
        answers_at_once=False,
        needs_admin_secret=True,
    )


def open_door(door: str, *, level: int = 1, token: str | None = None, environ) -> str:
    """Open a door.

    Args:
        door: Which one.
        level: On which level.
        token: What opens it.

    Example:
        private_pypi vault.open front
    """
    return f"{door!r} {level!r} {token!r} {environ['WHO']}"


def interrupted() -> None:
    """Wait for somebody to press Ctrl-C."""
    raise KeyboardInterrupt
'''

ENTRY_POINTS = """\
[private_pypi.backends]
vault = vault_backend:VaultBackend
absent = vault_backend_that_is_absent:Backend [absent]
[private_pypi.commands]
vault.open = vault_backend:open_door
vault.wait = vault_backend:interrupted
absent.open = vault_backend_that_is_absent:open_door
bent.open = bent_backend:open_door
"""


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a distribution `vault-backend` next to private_pypi."""
    site = tmp_path / "site"
    info = site / "vault_backend-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vault-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (site / "vault_backend.py").write_text(VAULT)
    (site / "bent_backend.py").write_text("raise RuntimeError('the door is bent')\n")
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("vault_backend", None)


@pytest.mark.usefixtures("vault")
def test_commands_of_backends_are_listed_with_their_summaries(run: Run) -> None:
    listed = run("--help").out.partition("    restore_name ")[2].splitlines()[1:]
    names = [line.split()[0] for line in listed[: listed.index("")]]
    assert [name for name in names if not name.startswith("static_site.")] == [
        *("absent.open", "bent.open", "github.gen_gh_pages", "github.init_pkg_repo"),
        *("vault.open", "vault.wait"),
    ]
    assert f"    {'vault.wait':20}  Wait for somebody to press Ctrl-C." in listed


@pytest.mark.usefixtures("vault")
def test_a_backend_that_cannot_be_loaded_does_not_break_the_help(run: Run) -> None:
    ended = run("--help")
    assert (ended.code, ended.err) == (0, "")
    assert (
        f"    {'absent.open':20}  cannot be used: command 'absent.open' cannot be imported: "
        "No module named 'vault_backend_that_is_absent'\n" in ended.out
    )
    assert f"    {'bent.open':20}  cannot be used: the door is bent\n" in ended.out


@pytest.mark.usefixtures("vault")
def test_a_command_of_a_backend_gets_its_values_as_typed(run: Run) -> None:
    words = ["vault.open", "1.10", "--level", "3", "--token", "-1e5"]
    assert run(*words, environ={"WHO": "me"}) == Ended(0, "'1.10' 3 '-1e5' me\n", "")
    assert (
        "    --level (int):\n        On which level. Default to 1.\n"
        in run("vault.open", "--help").out
    )


@pytest.mark.usefixtures("vault")
def test_an_interrupted_command_ends_with_130(run: Run) -> None:
    assert run("vault.wait") == Ended(130, "", "")


@pytest.mark.usefixtures("vault")
def test_a_missing_extra_is_named(run: Run) -> None:
    for words in (["absent.open"], ["update_index", "absent", "mine"]):
        ended = run(*words)
        assert ended.code == 1
        assert "vault_backend_that_is_absent" in ended.err
    assert "needs the extra 'absent': install 'vault-backend[absent]'" in ended.err


@pytest.mark.usefixtures("vault")
def test_update_index_needs_a_secret_that_may_write(run: Run, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    words = ["update_index", "vault", "mine", "--path", storage]
    assert run(*words).err.startswith("error: missing --door\n")
    storage.mkdir()
    words += ["--door", "1.10", "--level", "2", "--keys", "a,b"]
    assert run(*words) == Ended(
        1,
        "",
        "error: a repository of type vault needs a secret that may write: give --secret_env, "
        "--secret_file or --secret, "
        "or --config and --admin_secret\n",
    )
    assert run(*words, "--secret", "wrong") == Ended(
        1,
        "",
        "error: the storage of 'mine' does not accept the secret, or is not where the "
        "configuration says; nothing was changed\n",
    )
    assert run(*words, "--secret", "reader") == Ended(
        1,
        "",
        "error: the secret may read the storage of 'mine', but not write to it; "
        "nothing was changed\n",
    )
    assert list(storage.iterdir()) == []
    done = Ended(0, "mine: 0 added, 0 removed, 0 unchanged\n", "")
    (tmp_path / "secret").write_text("-1e5\n")
    assert run(*words, "--secret", "-1e5") == done
    assert run(*words, "--secret_env", "S", environ={"S": "-1e5"}) == done
    assert run(*words, "--secret_file", tmp_path / "secret") == done


@pytest.mark.usefixtures("vault")
def test_update_index_takes_a_table_of_a_configuration(run: Run, tmp_path: Path) -> None:
    (tmp_path / "storage" / "demo").mkdir(parents=True)
    filename, content = make_wheel()
    (tmp_path / "storage" / "demo" / filename).write_bytes(content)
    config, admin = tmp_path / "config.toml", tmp_path / "admin.toml"
    config.write_text('[Mine]\ntype = "vault"\ndoor = "front"\npath = "storage"\n')
    admin.write_text('[mine]\ntype = "vault"\nraw = "-1e5"\n')
    words = ["update_index", "mine", "--config", config]
    assert run(*words).code == 1
    first = run(*words, "--admin_secret", admin)
    assert first == Ended(0, "mine: 1 added, 0 removed, 0 unchanged\n", "")
    assert run(*words, "--secret=-1e5").out == "mine: 0 added, 0 removed, 1 unchanged\n"
    ended = run("update_index", "mien", "--config", config)
    assert (ended.code, ended.err) == (
        1,
        f"error: {config}: there is no repository 'mien'; did you mean 'mine'?; it has: mine\n",
    )


@pytest.mark.usefixtures("vault")
def test_update_index_demands_the_variables_of_its_own_repository_alone(
    run: Run, tmp_path: Path
) -> None:
    """Mistakes in other tables do not matter: their secrets may not be on this machine."""
    (tmp_path / "storage").mkdir()
    config, admin = tmp_path / "config.toml", tmp_path / "admin.toml"
    config.write_text(
        '[Mine]\ntype = "vault"\ndoor = "front"\npath = "storage"\n'
        '[other]\ntype = "file_system"\nwrite_secret_env = "OTHERS"\n'
        '[third]\ntype = "vault"\ndoor = "back"\npath = "gone"\n'
    )
    admin.write_text(
        '[mine]\ntype = "vault"\nenv = "MINE"\n[third]\ntype = "vault"\nenv = "THIRDS"\n'
    )
    words = ["update_index", "mine", "--config", config, "--admin_secret", admin]
    done = Ended(0, "mine: 0 added, 0 removed, 0 unchanged\n", "")
    assert run(*words, environ={"MINE": "-1e5"}) == done
    ended = run(*words)
    assert (ended.code, ended.err) == (
        1,
        f"error: {admin}: [mine] env: the environment variable 'MINE' is not set\n",
    )
    ended = run("update_index", "thrid", "--config", config)
    assert (ended.code, ended.err) == (
        1,
        f"error: {config}: there is no repository 'thrid'; did you mean 'third'?; "
        "it has: mine, other, third\n",
    )


def test_update_index_reports_what_it_skips(run: Run, tmp_path: Path) -> None:
    filename, content = make_wheel()
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / filename).write_bytes(content)
    (tmp_path / "demo" / "demo-2.0-py3-none-any.whl").write_bytes(b"no wheel")
    ended = run("update_index", "file_system", "mine", "--path", tmp_path)
    assert (ended.code, ended.out) == (0, "mine: 1 added, 0 removed, 0 unchanged\n")
    assert ended.err.startswith("warning: ")
    assert "demo-2.0-py3-none-any.whl" in ended.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "shown"),
    [
        (Terminal(), "\rexamining: 2 of 10\rexamining: 3 of 10\rlisting: 4        \n"),
        (io.StringIO(), "listing: 4\n"),
    ],
)
def test_progress_is_told_now_and_then(stream: io.StringIO, shown: str) -> None:
    seconds = iter([0.0, 0.01, 0.2, 0.4, 6.0])
    progress = indexing.Progress(stream, lambda: next(seconds))
    for done in (1, 2, 3):
        progress(done, 10, "examining")
    progress(4, None, "listing")
    progress.end()
    assert stream.getvalue() == shown
