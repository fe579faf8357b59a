"""The entry point of the program: finds the command, checks its arguments, runs it."""

from __future__ import annotations

import gc
import importlib
import math
import os
import select
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import TextIO

from private_pypi import __version__
from private_pypi.commands import command_line, pyoci
from private_pypi.commands.command_line import Command, UsageError
from private_pypi.distributions.records import printable
from private_pypi.errors import BackendUnavailable, ConfigurationError, PrivatePypiError
from private_pypi.storage import plugins

# The module of each command, and the function that gives the flags which depend on other flags.
_OWN_COMMANDS = {
    "server": ("serving", "waitress_flags"),
    "update_index": ("indexing", "backend_flags"),
    "quickstart": ("serving", None),
    "yank": ("releases", None),
    "unyank": ("releases", None),
    "delete": ("releases", None),
    "copy": ("copying", None),
    "export": ("exporting", None),
    "allow": ("allowing", None),
    "explain": ("explaining", None),
    "check": ("checking", None),
    "restore_name": ("indexing", None),
}


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command. `argv` does not include the name of the program.

    If there are no arguments, the environment variables PRIVATE_PYPI_COMMAND… give the command and
    its flags, or those of PyOCI start a server. Returns the exit code: 0 for success, 1 for an
    error, 2 for wrong arguments, 130 if it was interrupted, 141 if nobody reads its output any
    more, such as `head` that has seen enough.
    """
    try:
        code = _run(argv, environ)
        sys.stdout.flush()
    except BrokenPipeError:
        if _has_reader(sys.stdout):  # it was another pipe
            raise
        # Otherwise the interpreter would try to write the rest when it ends.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
        return 141
    return code


def _has_reader(stream: TextIO) -> bool:
    try:
        descriptor = stream.fileno()
    except OSError:  # it is in memory
        return True
    poll = select.poll()
    poll.register(descriptor, 0)
    return not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _run(argv: Sequence[str] | None, environ: Mapping[str, str] | None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    environ = os.environ if environ is None else environ
    names = [*_OWN_COMMANDS, *plugins.command_names()]
    given = None
    if words:
        name, words = words[0], words[1:]
    else:
        try:
            variables = pyoci.as_command(environ)
            name, given = command_line.from_environment(variables) or ("--help", None)
        except UsageError as error:
            sys.stderr.write(f"error: {error}\n\n{command_line.synopsis(_summaries(names))}")
            return 2
    if name in ("-h", "--help"):
        sys.stdout.write(command_line.synopsis(_summaries(names)))
        return 0
    if name in ("-V", "--version"):
        sys.stdout.write(f"{command_line.PROGRAM} {__version__}\n")
        return 0
    if name not in names:
        meant = plugins.did_you_mean(name, names)
        sys.stderr.write(
            f"error: unknown command {name!r}{meant}\n\n{command_line.synopsis(_summaries(names))}"
        )
        return 2
    debug = False
    try:
        command = _command(name)
        if given is None:
            if command_line.asks_for_help(words):
                sys.stdout.write(command_line.help_text(command, words))
                return 0
            given = command_line.from_words(command, words)
        values = command_line.check(command, given)
        debug = values.get("debug") is True
        return command_line.run(command, values, environ)
    except UsageError as error:
        _complain(error)
        usage = command_line.usage(command).replace("\n", "\n       ")
        sys.stderr.write(f"usage: {usage}\nhelp:  {command_line.PROGRAM} {name} --help\n")
        return 2
    except PrivatePypiError as error:
        if debug:
            raise
        _complain(error)
        return 1
    except KeyboardInterrupt:
        return 130


def _command(name: str) -> Command:
    if name not in _OWN_COMMANDS:
        return Command(name, plugins.load_command(name))
    module_name, more = _OWN_COMMANDS[name]
    # Imported here, so that `private_pypi yank` does not import the whole server. What imports make
    # stays, so to look for garbage in it again and again is in vain, and takes a fifth of the time.
    gc.disable()
    try:
        module = importlib.import_module(f"private_pypi.commands.{module_name}")
    finally:
        gc.enable()
    return Command(name, getattr(module, name), getattr(module, more) if more else None)


def _summaries(names: Sequence[str]) -> dict[str, str]:
    """The first line of the help of each command."""
    own = [
        EntryPoint(name, f"private_pypi.commands.{module}:{name}", plugins.COMMANDS)
        for name, (module, _) in _OWN_COMMANDS.items()
    ]
    summaries = {}
    for name in names:
        try:
            summary = plugins.command_summary(name, own if name in _OWN_COMMANDS else None)
            summaries[name] = printable(summary)
        except Exception as error:  # the help must work even if a backend is broken
            summaries[name] = f"cannot be used: {printable(str(error))}"
    return summaries


def _complain(error: PrivatePypiError) -> None:
    problems = error.problems if isinstance(error, ConfigurationError) else str(error).splitlines()
    for problem in problems:
        # It may quote a server, whose text must not contain control sequences for the terminal.
        sys.stderr.write(f"error: {printable(problem)}\n")
    if isinstance(error, BackendUnavailable) and error.retry_after >= 60:
        minutes = math.ceil(error.retry_after / 60)
        sys.stderr.write(f"run this again in {minutes} minute{'' if minutes == 1 else 's'}\n")
