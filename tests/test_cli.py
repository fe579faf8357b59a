"""The commands as their users meet them: helps, mistakes, and real servers in real processes."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import tomli
from pypi_simple import PYPI_SIMPLE_ENDPOINT

from private_pypi import __version__, cli
from private_pypi.commands import indexing, releases, serving
from private_pypi.errors import ConfigurationError
from private_pypi.testing.distributions import make_sdist, make_wheel

SYNOPSIS = """\
SYNOPSIS
    private_pypi <command> <command_flags>

SUPPORTED COMMANDS
    server
    update_index
    quickstart
    yank
    unyank
    delete
"""

FUNCTIONS: Mapping[str, Callable[..., None]] = {
    "server": serving.server,
    "update_index": indexing.update_index,
    "quickstart": serving.quickstart,
    "yank": releases.yank,
    "unyank": releases.unyank,
    "delete": releases.delete,
}


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

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


# -- helps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_the_synopsis_is_the_help(run: Run, argv: list[str]) -> None:
    ended = run(*argv)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(SYNOPSIS)


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_the_version_is_told(run: Run, word: str) -> None:
    assert run(word) == Ended(0, f"private_pypi {__version__}\n", "")


def test_an_unknown_command_is_answered_with_the_list_and_the_nearest(run: Run) -> None:
    ended = run("sever", "--port", "1")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: unknown command 'sever'; did you mean 'server'?\n\n")
    assert SYNOPSIS in ended.err


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_every_command_tells_every_argument(run: Run, name: str, word: str) -> None:
    ended = run(name, "something", word, "--else")
    assert (ended.code, ended.err) == (0, "")
    assert "SYNOPSIS\n    private_pypi " + name in ended.out
    assert "EXAMPLE\n    private_pypi " + name in ended.out
    for parameter in inspect.signature(FUNCTIONS[name]).parameters.values():
        if parameter.name == "environ" or parameter.kind is parameter.VAR_KEYWORD:
            continue
        by_position = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        shown = parameter.name.upper() if by_position else f"--{parameter.name}"
        told = re.search(rf"^    {shown} \((str|int|bool)\):\n        \w", ended.out, re.MULTILINE)
        assert told, f"{shown} is not told"


def test_the_help_of_server_tells_the_defaults_and_the_flags_of_waitress(run: Run) -> None:
    out = run("server", "--help").out
    flat = " ".join(out.split())
    assert f"an empty text disables it. Default to '{PYPI_SIMPLE_ENDPOINT}'." in flat
    assert "--auth_read_expires (int): Seconds" in flat
    assert "Default to 3600." in flat
    assert "--threads" in out.partition("OTHER FLAGS")[2]


def test_the_help_of_update_index_tells_the_fields_of_a_type(run: Run) -> None:
    assert "--path (str)" not in run("update_index", "--help").out
    out = run("update_index", "file_system", "--help").out
    assert "    --path (str):\n        Field of the configuration: a path.\n" in out
    assert "    --write_secret_env (str):\n" in out


def test_the_helps_reach_people_through_the_installed_programs() -> None:
    for program in (["private_pypi"], ["private-pypi"], [sys.executable, "-m", "private_pypi"]):
        program[0] = str(Path(sys.executable).parent / program[0])
        ended = subprocess.run(
            [*program, "server", "--help"], capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "private_pypi server ROOT <flags>" in ended.stdout


# -- mistakes ------------------------------------------------------------------------------------


def test_nothing_runs_before_all_is_checked(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "root"
    ended = run("server", root, "--prot", "8", "--thread=2", "--debug=maybe")
    assert ended == Ended(
        2,
        "",
        "error: unknown flag --prot; did you mean --port?\n"
        "error: unknown flag --thread; did you mean --threads?\n"
        "error: --debug must be true or false, not 'maybe'\n"
        "usage: private_pypi server ROOT <flags>\n"
        "help:  private_pypi server --help\n",
    )
    assert not root.exists()


def test_values_out_of_range_are_told_at_once(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "root"
    url = "https://user:hush@index.example/simple/"
    ended = run(
        "server", root, "--port=70000", "--auth_read_expires", "-1", "--extra_index_url", url
    )
    assert ended.code == 2
    assert ended.err.splitlines()[:3] == [
        "error: --auth_read_expires must be at least 0, but is -1",
        "error: --port must be from 0 to 65535, but is 70000",
        "error: --extra_index_url: must not hold a user or password: clients are redirected there; "
        "right is https://HOST/simple/",
    ]
    assert "hush" not in ended.err
    assert not root.exists()


@pytest.mark.parametrize(
    ("flags", "named", "line"),
    [
        (("--tls_cert=c.pem", "--tls_key", "k.pem"), "--tls_cert and --tls_key", "c.pem k.pem"),
        (("--tls_key=k.pem",), "--tls_key", "CERT k.pem"),
        (("--tls_cert", "c.pem"), "--tls_cert", "c.pem KEY"),
    ],
)
def test_tls_is_refused_by_name_and_with_the_recipe(
    run: Run, tmp_path: Path, flags: tuple[str, ...], named: str, line: str
) -> None:
    root = tmp_path / "root"
    ended = run("server", root, "--port=8080", *flags)
    assert ended == Ended(
        2,
        "",
        f"error: {named}: this server speaks no TLS itself, a proxy before it does; with Caddy "
        f"that takes two lines in the block of the site, `tls {line}` and "
        "`reverse_proxy 127.0.0.1:8080` (docs/proxies.md, also for nginx)\n"
        "usage: private_pypi server ROOT <flags>\n"
        "help:  private_pypi server --help\n",
    )
    assert not root.exists()


def test_all_mistakes_of_a_configuration_are_told_one_a_line(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[a]\ntype = "ftp"\n[b]\ntype = "file_system"\nread_secrets = "hush"\n')
    ended = run("server", tmp_path / "root", "--config", config)
    assert ended == Ended(
        1,
        "",
        f"error: {config}: [a] type: unknown backend type 'ftp'; "
        "installed: file_system, github, github_projects\n"
        f"error: {config}: [b] read_secrets: unknown key; did you mean 'read_secret'?\n",
    )


def test_a_configuration_that_cannot_be_read_is_told(run: Run, tmp_path: Path) -> None:
    ended = run("server", tmp_path, "--config", tmp_path / "gone.toml")
    assert ended.code == 1
    assert ended.err == f"error: cannot read '{tmp_path}/gone.toml': No such file or directory\n"
    (tmp_path / "bad.toml").write_text("[mine\n")
    ended = run("server", tmp_path, "--config", tmp_path / "bad.toml")
    assert ended.code == 1
    assert ended.err.startswith(f"error: {tmp_path}/bad.toml, line 1, column 6: no TOML: ")


@pytest.mark.parametrize("command", ["server", "quickstart"])
def test_a_root_that_cannot_be_used_is_told(run: Run, tmp_path: Path, command: str) -> None:
    root = tmp_path / "file"
    root.write_text("")
    assert run(command, root) == Ended(1, "", f"error: cannot use '{root}' as ROOT: File exists\n")
    assert run(command, root / "below") == Ended(
        1, "", f"error: cannot use '{root}/below' as ROOT: Not a directory\n"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["server", ""], "ROOT is empty; it is the path of a folder"),
        (["quickstart", ""], "ROOT is empty; it is the path of a folder"),
        (["server", "root", "--config="], "--config is empty; leave it out, or give a path"),
        (["server", "root", "--admin_secret="], "--admin_secret is empty; leave it out, or give"),
        (["update_index", "file_system", "mine", "--root="], "--root is empty; leave it out, or"),
        (["update_index", "mine", "--config="], "--config is empty; leave it out, or give a path"),
    ],
)
def test_an_unset_variable_is_not_the_working_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(*words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {sentence}")
    assert not list(tmp_path.rglob("*.toml"))


def test_an_admin_token_that_cannot_be_had_is_told(run: Run, tmp_path: Path) -> None:
    ended = run("server", tmp_path, "--admin_token_env", "TOKEN")
    assert (ended.code, ended.err) == (
        1,
        "error: --admin_token_env: the environment variable 'TOKEN' is not set\n",
    )
    ended = run("server", tmp_path, "--admin_token_env", "TOKEN", environ={"TOKEN": ""})
    assert (ended.code, ended.err) == (1, "error: --admin_token_env: the secret is empty\n")


def test_a_key_for_sessions_that_is_none_is_told_and_leaves_nothing_behind(
    run: Run, tmp_path: Path
) -> None:
    ended = run("server", tmp_path, environ={"PRIVATE_PYPI_SECRET_KEY": "short"})
    assert (ended.code, ended.out) == (1, "")
    assert "key 1 for sessions" in ended.err
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_wrong_text_for_a_configuration_is_not_kept(run: Run, tmp_path: Path) -> None:
    ended = run(
        "server", tmp_path, "--config_or_admin_secret_can_be_text", "--config", "[mine]\ntype = 1\n"
    )
    assert (ended.code, ended.err) == (
        1,
        "error: --config: [mine] type: must be text, such as 'file_system'\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_misspelled_path_where_a_text_may_be_is_told_to_be_no_file(
    run: Run, tmp_path: Path
) -> None:
    ended = run("server", tmp_path, "--config_or_admin_secret_can_be_text", "--config=konfig.toml")
    assert ended.err.startswith(
        "error: --config (the text, because it is no file), line 1, column 12: no TOML: "
    )


def test_debug_shows_where_an_error_comes_from(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        run("server", tmp_path, "--config", tmp_path / "gone.toml", "--debug")


@pytest.mark.parametrize("command", ["server", "quickstart"])
def test_a_port_in_use_is_told(run: Run, tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run(command, tmp_path, "--host", "127.0.0.1", "--port", str(port))
    assert (ended.code, ended.out) == (1, "")
    (line,) = [each for each in ended.err.splitlines() if each.startswith("error:")]
    assert str(port) in line
    assert "in use" in line


def test_quickstart_refuses_a_name_that_is_none(run: Run, tmp_path: Path) -> None:
    ended = run("quickstart", tmp_path / "root", "--name", "../x")
    assert ended.code == 1
    assert ended.err.startswith("error: --name: [../x]: no name for a repository; right are ")
    assert list((tmp_path / "root").iterdir()) == []


def test_quickstart_does_not_rename(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[mine]\ntype = "file_system"\n')
    assert run("quickstart", tmp_path, "--name", "mien") == Ended(
        1,
        "",
        f"error: {tmp_path}/config.toml has no repository 'mien'; did you mean 'mine'?; "
        "it has: mine\n",
    )


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["ftp", "mine"], 1, "unknown backend type 'ftp'; installed: file_system"),
        (["file_system"], 2, "missing NAME; right is update_index TYPE NAME, or"),
        (["mine"], 2, "missing NAME; right is update_index TYPE NAME, or update_index NAME --"),
        ([], 2, "missing NAME; right is update_index TYPE NAME, or"),
        (
            ["file_system", "mine"],
            2,
            "file_system keeps the files of 'mine' below ROOT: give --root",
        ),
        (["file_system", "mine", "--root=gone"], 1, "--root: there is no folder 'gone/cache/mine'"),
        (["file_system", "mine", "--owner", "x"], 2, "unknown flag --owner"),
        (["file_system", "a/b", "--root", "."], 1, "command line: [a/b]: no name for a repository"),
        (["mine", "--config", "gone"], 1, "cannot read 'gone': No such file or directory"),
        (["file_system", "mine", "--secret=a", "--secret_env=B"], 2, "only one of --secret and "),
        (["file_system", "mine", "--secret_env=B"], 1, "--secret_env: the environment variable"),
    ],
)
def test_update_index_tells_what_is_wrong(
    run: Run, words: list[str], code: int, sentence: str
) -> None:
    ended = run("update_index", *words)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(f"error: {sentence}")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["http://h/simple/", "demo"], 2, "missing VERSION"),
        (["http://h/simple/", "demo", "one"], 2, "VERSION 'one' is no version (PEP 440)"),
        (["http://h/simple/", "demo", "1.0", "a.exe"], 1, "invalid distribution filename 'a.exe'"),
        (
            ["http://h/simple/", "demo", "1.0", "demo-2.0.tar.gz"],
            2,
            "FILENAME 'demo-2.0.tar.gz' is no file of demo 1.0, but of demo 2.0",
        ),
        (["h/simple/", "demo", "1.0"], 1, "INDEX_URL is no address of an index"),
    ],
)
@pytest.mark.parametrize("command", ["yank", "unyank", "delete"])
def test_the_commands_for_releases_tell_what_is_wrong(
    run: Run, command: str, words: list[str], code: int, sentence: str
) -> None:
    ended = run(command, *words)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(f"error: {sentence}")


# -- environment mode ----------------------------------------------------------------------------


def test_without_arguments_the_environment_gives_them(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cache" / "mine").mkdir(parents=True)
    environ = {
        "PRIVATE_PYPI_COMMAND": "update_index",
        "PRIVATE_PYPI_COMMAND_TYPE": "file_system",
        "PRIVATE_PYPI_COMMAND_NAME": "mine",
        "PRIVATE_PYPI_COMMAND_ROOT": str(tmp_path),
    }
    assert run(environ=environ) == Ended(0, "mine: 0 added, 0 removed, 0 unchanged\n", "")
    assert run("--help", environ=environ).out.startswith("SYNOPSIS")


def test_an_unknown_command_in_the_environment_is_a_wrong_call(run: Run) -> None:
    assert run(environ={"PYWHARF_COMMAND": "sever"}).code == 2


def test_an_environment_with_flags_and_no_command_is_a_wrong_call(run: Run) -> None:
    ended = run(environ={"PRIVATE_PYPI_COMAND": "server", "PRIVATE_PYPI_COMMAND_ROOT": "root"})
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(
        "error: the environment has PRIVATE_PYPI_COMMAND_ROOT, but no command: "
        "PRIVATE_PYPI_COMMAND names it\n\nSYNOPSIS\n"
    )


# -- backends that others install ----------------------------------------------------------------

VAULT = '''
import dataclasses
import sys

from private_pypi.backend import Access, Secret
from private_pypi_file_system import FileSystemBackend


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaultSettings(FileSystemBackend.Settings):
    door: str
    level: int = 1
    keys: tuple[str, ...] = ()


class VaultBackend(FileSystemBackend):
    """The file system, but one that asks for a secret."""

    Settings = VaultSettings
    capabilities = dataclasses.replace(
        FileSystemBackend.capabilities, is_local=False, needs_admin_secret=True
    )

    def access(self, project=None):
        if self.secret == Secret("reader"):
            return Access.READ
        return Access.WRITE if self.secret == Secret("-1e5") else Access.NONE


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
"""


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution `vault-backend`, installed beside private_pypi."""
    site = tmp_path / "site"
    info = site / "vault_backend-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vault-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (site / "vault_backend.py").write_text(VAULT)
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("vault_backend", None)


@pytest.mark.usefixtures("vault")
def test_commands_of_backends_are_listed_without_importing_them(run: Run) -> None:
    out = run("--help").out
    ours = "    github.gen_gh_pages\n    github.init_pkg_repo\n"
    assert f"    delete\n    absent.open\n{ours}    vault.open\n    vault.wait\n" in out
    assert "vault_backend" not in sys.modules


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
        "error: vault needs a secret that may write: give --secret_env, --secret_file, --secret, "
        "or --config and --admin_secret\n",
    )
    assert run(*words, "--secret", "wrong") == Ended(
        1,
        "",
        "error: the storage of 'mine' does not accept the secret, or is not where the "
        "configuration says; nothing was done\n",
    )
    assert run(*words, "--secret", "reader") == Ended(
        1,
        "",
        "error: the secret may read the storage of 'mine', but not write to it; nothing was done\n",
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
        f"error: {config}: no repository 'mien'; did you mean 'mine'?; it has: mine\n",
    )


@pytest.mark.usefixtures("vault")
def test_update_index_demands_the_variables_of_its_own_repository_alone(
    run: Run, tmp_path: Path
) -> None:
    """The others may be rebuilt elsewhere, with secrets that are not here."""
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
        f"error: {config}: no repository 'thrid'; did you mean 'third'?; "
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


# -- servers -------------------------------------------------------------------------------------


@dataclass
class Server:
    """A server process, what it printed until it served, and what it printed in all."""

    process: subprocess.Popen[str]
    out: str
    url: str

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        self.process.send_signal(with_signal)
        return self.process.wait(timeout=30)


@contextlib.contextmanager
def serving_process(
    *argv: str | Path, environ: Mapping[str, str] | None = None, until: str = "private_pypi serves"
) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-m", "private_pypi", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environ or {})},
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        out = ""
        while until not in out:
            line = process.stdout.readline()
            if not line:
                pytest.fail(f"the server ended: {out}{process.stderr.read()}")
            out += line
        url = re.search(r"serves (http://\S+)", out)
        assert url is not None
        yield Server(process, out, url[1].rstrip("/"))
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
        process.communicate()


CONFIG = '[mine]\ntype = "file_system"\nread_secret = "r"\nwrite_secret = "w"\n'
LOOPBACK = ("--host", "127.0.0.1", "--port", "0")


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_server_serves_and_ends_cleanly(tmp_path: Path, with_signal: int) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    with serving_process("server", tmp_path / "root", "--config", config, *LOOPBACK) as server:
        page = requests.get(f"{server.url}/r/mine/simple/", auth=("mine", "r"), timeout=10)
        assert page.status_code == 200
        assert server.stop(with_signal) == 0


def test_a_server_started_by_variables_takes_texts(tmp_path: Path) -> None:
    root = tmp_path / "root"
    prefix = "PYWHARF_COMMAND"
    environ = {
        prefix: "server",
        f"{prefix}_ROOT": str(root),
        f"{prefix}_HOST": "127.0.0.1",
        f"{prefix}_PORT": "0",
        f"{prefix}_CONFIG": CONFIG,
        f"{prefix}_ADMIN_SECRET": '[mine]\ntype = "file_system"\nraw = "w"\n',
        f"{prefix}_CONFIG_OR_ADMIN_SECRET_CAN_BE_TEXT": "",
        f"{prefix}_EXTRA_INDEX_URL": "",
        f"{prefix}_THREADS": "2",
    }
    with serving_process(environ=environ) as server:
        unknown = f"{server.url}/r/mine/simple/unknown/"
        page = requests.get(unknown, auth=("mine", "r"), timeout=10, allow_redirects=False)
        assert page.status_code == 404
        assert server.stop() == 0
    assert (root / "config.toml").read_text() == CONFIG
    for name in ("config.toml", "admin_secret.toml"):
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o600


def test_a_wrong_option_of_waitress_is_told(run: Run, tmp_path: Path) -> None:
    ended = run("server", tmp_path, *LOOPBACK, "--threads", "many")
    assert (ended.code, ended.out) == (1, "")
    (line,) = [each for each in ended.err.splitlines() if each.startswith("error:")]
    assert "--threads" in line
    assert "many" in line


def test_quickstart_makes_a_repository_once_and_serves_it_again(tmp_path: Path) -> None:
    root = tmp_path / "root"
    words = ("quickstart", root, "--port", "0", "--name", "acme")
    with serving_process(*words, until="poetry add") as first:
        table = tomli.loads((root / "config.toml").read_text())["acme"]
        read, write = table["read_secret"], table["write_secret"]
        assert re.fullmatch("[A-Za-z0-9]{32}", read)
        assert re.fullmatch("[A-Za-z0-9]{32}", write)
        assert read != write
        assert stat.S_IMODE((root / "config.toml").stat().st_mode) == 0o600
        assert stat.S_IMODE(root.stat().st_mode) == 0o700  # what is private lies below
        index = first.url
        start = index.removesuffix("r/acme/simple")
        assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/r/acme/simple", index)
        readable = index.replace("//", f"//acme:{read}@")
        upload = f"--username acme --password {write} dist/*"
        published = index.removesuffix("simple")
        for line in (
            f"twine upload --repository-url {published} {upload}",
            f"uv publish --publish-url {published} {upload}",
            f"pip install --index-url {readable}/ PACKAGE",
            f"uv pip install --index-url {readable}/ PACKAGE",
            f"poetry config repositories.acme {published}",
            f"poetry source add --priority=primary acme {index}/",
            f"poetry config http-basic.acme acme {write}",
            f"{start} in a browser; sign in with acme and a password of above",
        ):
            assert f"\n    {line}\n" in first.out
        assert requests.get(f"{index}/", auth=("acme", read), timeout=10).status_code == 200
        assert first.stop(signal.SIGINT) == 0
    with serving_process("quickstart", root, "--port", "0", until="poetry add") as second:
        assert second.out.replace(urlsplit(second.url).netloc, urlsplit(index).netloc) == first.out


def test_releases_are_yanked_unyanked_and_deleted(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    wheel, sdist = make_wheel(), make_sdist()
    project = tmp_path / "root" / "cache" / "mine" / "storage" / "demo"
    project.mkdir(parents=True)
    for filename, content in (wheel, sdist):
        (project / filename).write_bytes(content)
    with serving_process("server", tmp_path / "root", "--config", config, *LOOPBACK) as server:
        index = f"{server.url}/r/mine/simple/"

        def listed() -> dict[str, object]:
            accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
            page = requests.get(f"{index}demo/", auth=("mine", "r"), headers=accept, timeout=10)
            return {each["filename"]: each.get("yanked", False) for each in page.json()["files"]}

        environ = {"PRIVATE_PYPI_USERNAME": "mine", "PRIVATE_PYPI_PASSWORD": "w"}
        both = sorted([wheel[0], sdist[0]])

        yanked = run("yank", index, "Demo", "1.0", "--reason", "it burns", environ=environ)
        assert (yanked.code, yanked.err) == (0, "")
        assert sorted(yanked.out.splitlines()) == [f"yanked {name}" for name in both]
        assert listed() == dict.fromkeys(both, "it burns")

        again = run("unyank", index, "demo", "1.0", sdist[0], environ=environ)
        assert again == Ended(0, f"un-yanked {sdist[0]}\n", "")
        assert listed() == {wheel[0]: "it burns", sdist[0]: False}

        credentials = index.replace("//", "//mine:w@")
        deleted = run("delete", credentials, "demo", "1.0", wheel[0])
        assert deleted == Ended(0, f"deleted {wheel[0]}\n", "")
        assert listed() == {sdist[0]: False}

        refused = run("delete", index.replace("//", "//mine:hush@"), "demo", "1.0")
        assert (refused.code, refused.out) == (1, "")
        assert refused.err.startswith("error: the server answers 401: ")
        assert "hush" not in refused.err
        gone = run("delete", credentials, "demo", "9")
        assert (gone.code, gone.out) == (1, "")
        assert gone.err.startswith("error: the server answers 404: ")
