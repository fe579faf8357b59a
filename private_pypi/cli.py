"""The entry point: finds the command, has its arguments checked, runs it, says how it ended."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence

from private_pypi import __version__, command_line, plugins
from private_pypi.command_line import Command, UsageError
from private_pypi.errors import BackendUnavailable, ConfigurationError, PrivatePypiError

_OWN_COMMANDS = ("server", "update_index", "quickstart", "yank", "unyank", "delete")


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command; `argv` is without the program's name.

    Returns the exit code: 0, 1 for a failure that is told in a sentence, 2 for a wrong call, 130
    when interrupted. Without arguments the environment gives them.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    environ = os.environ if environ is None else environ
    names = [*_OWN_COMMANDS, *plugins.command_names()]
    if words:
        name, words, given = words[0], words[1:], None
    else:
        from_environment = command_line.from_environment(environ)
        stray = command_line.stray_variable(environ)
        if stray is not None:
            sys.stderr.write(
                f"error: the environment has {stray}, but no command: "
                f"{command_line.VARIABLES[0]} names it\n\n"
            )
            sys.stderr.write(command_line.synopsis(names))
            return 2
        name, given = from_environment or ("--help", None)
    if name in ("-h", "--help"):
        sys.stdout.write(command_line.synopsis(names))
        return 0
    if name in ("-V", "--version"):
        sys.stdout.write(f"{command_line.PROGRAM} {__version__}\n")
        return 0
    if name not in names:
        sys.stderr.write(f"error: unknown command {name!r}{plugins.did_you_mean(name, names)}\n\n")
        sys.stderr.write(command_line.synopsis(names))
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
    # Imported here: `private_pypi yank` needs no server.
    if name in ("server", "quickstart"):
        from private_pypi.commands import serving

        if name == "server":
            return command_line.describe(name, serving.server, serving.waitress_flags)
        return command_line.describe(name, serving.quickstart)
    if name == "update_index":
        from private_pypi.commands import indexing

        return command_line.describe(name, indexing.update_index, indexing.backend_flags)
    if name in ("yank", "unyank", "delete"):
        from private_pypi.commands import releases

        return command_line.describe(name, getattr(releases, name))
    return command_line.describe(name, plugins.load_command(name))


def _complain(error: PrivatePypiError) -> None:
    problems = error.problems if isinstance(error, ConfigurationError) else str(error).splitlines()
    for problem in problems:
        sys.stderr.write(f"error: {problem}\n")
    if isinstance(error, BackendUnavailable) and error.retry_after >= 60:
        minutes = math.ceil(error.retry_after / 60)
        sys.stderr.write(f"run this again in {minutes} minute{'' if minutes == 1 else 's'}\n")
