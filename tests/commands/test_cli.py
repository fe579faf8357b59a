"""The command line as users see it: help texts, mistakes, and commands from the environment."""

from __future__ import annotations

import inspect
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pypi_simple import PYPI_SIMPLE_ENDPOINT

from private_pypi import __version__
from private_pypi.commands import (
    allowing,
    checking,
    copying,
    explaining,
    exporting,
    indexing,
    releases,
    serving,
)
from private_pypi.configuration.config import read_configuration, read_source
from private_pypi.errors import ConfigurationError
from tests.commands.running import Ended, Run

SYNOPSIS = """\
SYNOPSIS
    private_pypi <command> <command_flags>

SUPPORTED COMMANDS
    server                Run a server that serves the repositories of a configuration.
    update_index          Rebuild the index document of a repository from the files in its storage.
    quickstart            Start a server with one new repository, and print how to use it.
    yank                  Yank a release or one of its files, so that installers avoid it.
    unyank                Undo the yank of a release or of one of its files.
    delete                Delete a release or one of its files permanently.
    copy                  Copy the files of one repository to another one, of whatever type.
    export                Write the pages of a repository of any type into a folder of static files.
    allow                 Let a young release of a mirror through before its cooldown ends.
    explain               Explain which files of a project an index serves, and why not the others.
    check                 Report private names that exist on the public index as well.
    restore_name          Allow the filename of a deleted file to be used again.
    github.gen_gh_pages   """

FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "server": serving.server,
    "update_index": indexing.update_index,
    "quickstart": serving.quickstart,
    "yank": releases.yank,
    "unyank": releases.unyank,
    "delete": releases.delete,
    "copy": copying.copy,
    "export": exporting.export,
    "allow": allowing.allow,
    "explain": explaining.explain,
    "check": checking.check,
    "restore_name": indexing.restore_name,
}


# -- helps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_the_synopsis_is_the_help(run: Run, argv: list[str]) -> None:
    ended = run(*argv)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(SYNOPSIS)


def test_the_line_of_each_command_is_the_first_one_of_its_help(run: Run) -> None:
    listed = run("--help").out.partition("SUPPORTED COMMANDS\n")[2].partition("\n\n")[0]
    for line in listed.splitlines():
        name, summary = line.split(maxsplit=1)
        assert run(name, "--help").out.startswith(f"{summary}\n\n")


def test_the_list_of_commands_imports_none_of_them() -> None:
    listing = (
        "import sys; from private_pypi.cli import main; main(['--help']); "
        "print(*({'flask', 'waitress', 'requests', 'private_pypi_github'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("--help\n\n")


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
    assert "--auth_read_expires (int): For how many seconds" in flat
    assert "Default to 3600." in flat
    assert "--threads" in out.partition("OTHER FLAGS")[2]


def test_the_help_of_update_index_tells_the_fields_of_a_type(run: Run) -> None:
    assert "--path (str)" not in run("update_index", "--help").out
    out = run("update_index", "file_system", "--help").out
    assert "    --path (str):\n        Field of the configuration: a path.\n" in out
    assert "    --write_secret_env (str):\n" in out


@pytest.mark.needs("time")
def test_the_helps_reach_people_through_the_installed_programs() -> None:
    for program in (["private_pypi"], ["private-pypi"], [sys.executable, "-m", "private_pypi"]):
        program[0] = str(Path(sys.executable).parent / program[0])
        ended = subprocess.run(
            [*program, "server", "--help"], capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "private_pypi server ROOT <flags>" in ended.stdout


# -- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--help",), ("allow", "ROOT", "pypi", "--list")])
def test_a_command_ends_quietly_if_nobody_reads_its_output(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "config.toml").write_text('[pypi]\ntype = "mirror"\nread_secret = "r"\n')
    (root / "allowed.toml").write_text(
        '[[allow]]\nrepository = "pypi"\nproject = "demo"\n'
        'by = "a"\nwhy = "b"\nuntil = 2999-01-01\n'
    )
    command = [sys.executable, "-m", "private_pypi", *words]
    command = [str(root) if word == "ROOT" else word for word in command]
    for unbuffered in ("", "1"):
        read, write = os.pipe()
        os.close(read)
        environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        with os.fdopen(write, "wb") as out:
            ended = subprocess.run(
                command, stdout=out, stderr=subprocess.PIPE, timeout=60, env=environ
            )
        assert (ended.returncode, ended.stderr) == (141, b"")


def test_an_error_of_another_pipe_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BrokenPipeError("of a child process")

    monkeypatch.setattr("private_pypi.cli.command_line.run", fail)
    with pytest.raises(BrokenPipeError, match="of a child process"):
        run("explain", "https://pypi.example.org/simple/", "demo")


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
        "error: --extra_index_url: must not have a user or password, because clients are "
        "redirected there; it must be like https://HOST/simple/",
    ]
    assert "hush" not in ended.err
    assert not root.exists()


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--engine", "fast"), "--engine must be waitress or granian, but is 'fast'"),
        (
            ("--tls_key=k.pem",),
            "--tls_cert and --tls_key belong together, but --tls_cert is missing",
        ),
        (
            ("--tls_cert", "c.pem"),
            "--tls_cert and --tls_key belong together, but --tls_key is missing",
        ),
        (
            ("--tls_cert=c.pem", "--tls_key=k.pem", "--engine=waitress"),
            "--tls_cert: the engine waitress does not support TLS; leave out --engine, or put a "
            "proxy in front of the server (docs/proxies.md)",
        ),
    ],
)
def test_engines_and_certificates_that_do_not_fit_are_refused(
    run: Run, tmp_path: Path, flags: tuple[str, ...], problem: str
) -> None:
    root = tmp_path / "root"
    ended = run("server", root, *flags)
    assert (ended.code, ended.err.splitlines()[0]) == (2, f"error: {problem}")
    assert not root.exists()


def test_all_mistakes_of_a_configuration_are_told_one_a_line(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[a]\ntype = "ftp"\n[b]\ntype = "file_system"\nread_secrets = "hush"\n')
    ended = run("server", tmp_path / "root", "--config", config)
    assert ended == Ended(
        1,
        "",
        f"error: {config}: [a] type: unknown backend type 'ftp'; "
        "installed: file_system, github, github_projects, mirror, object_storage, oci, "
        "static_site\n"
        f"error: {config}: [b] read_secrets: unknown key; did you mean 'read_secret'?\n",
    )


def test_a_configuration_that_cannot_be_read_is_told(run: Run, tmp_path: Path) -> None:
    ended = run("server", tmp_path, "--config", tmp_path / "gone.toml")
    assert ended.code == 1
    assert ended.err == f"error: cannot read '{tmp_path}/gone.toml': No such file or directory\n"
    (tmp_path / "bad.toml").write_text("[mine\n")
    ended = run("server", tmp_path, "--config", tmp_path / "bad.toml")
    assert ended.code == 1
    assert ended.err.startswith(f"error: {tmp_path}/bad.toml, line 1, column 6: not valid TOML: ")


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
        (["server", ""], "ROOT is empty; it must be the path of a folder"),
        (["quickstart", ""], "ROOT is empty; it must be the path of a folder"),
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
        "error: --config: [mine] type: must be the name of a backend, such as 'file_system'\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_text_for_admin_secrets_is_not_kept_beside_what_is_kept(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text('[mine]\ntype = "file_system"\n')
    text = '[other]\ntype = "file_system"\nraw = "x"\n'
    ended = run("server", tmp_path, "--config_or_admin_secret_can_be_text", "--admin_secret", text)
    assert (ended.code, ended.err) == (
        1,
        "error: --admin_secret: [other]: there is no repository 'other' in "
        f"{tmp_path}/config.toml\n",
    )
    assert not (tmp_path / "admin_secret.toml").exists()


def test_a_misspelled_path_where_a_text_may_be_is_told_to_be_no_file(
    run: Run, tmp_path: Path
) -> None:
    ended = run("server", tmp_path, "--config_or_admin_secret_can_be_text", "--config=konfig.toml")
    assert ended.err.startswith(
        "error: --config (taken as text: there is no such file), line 1, column 12: "
        "not valid TOML: "
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
    assert ended.err.startswith(
        "error: --name: [../x]: not a valid name for a repository; it must "
    )
    assert [path.name for path in (tmp_path / "root").iterdir()] == [".gitignore"]


def test_quickstart_does_not_rename(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[mine]\ntype = "file_system"\n')
    assert run("quickstart", tmp_path, "--name", "mien") == Ended(
        1,
        "",
        f"error: {tmp_path}/config.toml: there is no repository 'mien'; did you mean 'mine'?; "
        "it has: mine\n",
    )


@pytest.mark.parametrize("name", ["pypi", "All"])
def test_quickstart_with_public_needs_its_names(run: Run, tmp_path: Path, name: str) -> None:
    ended = run("quickstart", tmp_path / "root", "--name", name, "--with_public")
    assert ended.code == 2
    assert "choose another name for the repository" in ended.err
    assert not (tmp_path / "root" / "config.toml").exists()


def test_quickstart_with_public_changes_no_configuration(run: Run, tmp_path: Path) -> None:
    text = '[acme]\ntype = "file_system"\nread_secret = "r"\n'
    (tmp_path / "config.toml").write_text(text)
    ended = run("quickstart", tmp_path, "--with_public")
    assert (ended.code, ended.out) == (1, "")
    assert (tmp_path / "config.toml").read_text() == text
    assert "Add these tables to it, and run the command again:" in ended.err
    added = ended.err.partition("again:\n")[2].replace("error: ", "")
    # What is said to be right is right.
    (tmp_path / "config.toml").write_text(text + added)
    source = read_source(tmp_path / "config.toml")
    read = read_configuration(source, None, environ={})
    assert read.groups["all"].members == ("acme", "pypi")
    assert read.groups["all"].publish_to == "acme"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["ftp", "mine"], 1, "unknown backend type 'ftp'; installed: file_system"),
        (["file_system"], 2, "NAME is missing; the command must be update_index TYPE NAME, or"),
        (
            ["mine"],
            2,
            "NAME is missing; the command must be update_index TYPE NAME, or update_index NAME --",
        ),
        ([], 2, "NAME is missing; the command must be update_index TYPE NAME, or"),
        (
            ["file_system", "mine"],
            2,
            "the files of 'mine' are in ROOT: give --root",
        ),
        (["file_system", "mine", "--root=gone"], 1, "--root: there is no folder 'gone/cache/mine'"),
        (["file_system", "mine", "--owner", "x"], 2, "unknown flag --owner"),
        (
            ["file_system", "a/b", "--root", "."],
            1,
            "command line: [a/b]: not a valid name for a repository",
        ),
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
        (["http://h/simple/", "demo", "one"], 2, "VERSION 'one' is not a version"),
        (["http://h/simple/", "demo", "1.0", "a.exe"], 1, "invalid distribution filename 'a.exe'"),
        (
            ["http://h/simple/", "demo", "1.0", "demo-2.0.tar.gz"],
            2,
            "FILENAME 'demo-2.0.tar.gz' is a file of demo 2.0; it must be a file of demo 1.0",
        ),
        (["h/simple/", "demo", "1.0"], 1, "INDEX_URL is not the address of an index"),
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
        "error: the environment has PRIVATE_PYPI_COMMAND_ROOT, but not "
        "PRIVATE_PYPI_COMMAND, which must be the name of the command\n\nSYNOPSIS\n"
    )
