"""Parses and checks the arguments of commands, and makes their help texts.

A command is a function with a docstring in Google style and annotated parameters of the types
`str`, `int`, `float` or `bool`, or one of these `| None`. Parameters before the `*` may be given by
position, all others are flags. The flag of a parameter `as_` is `--as`: a keyword of Python cannot
be the name of a parameter. A parameter `environ` is not a flag: it gets the environment.

fire calls the function, but its own rules are too loose here: it would take the secret `1e5` for a
number, and guess what an unknown flag means. So the arguments are checked before fire gets them.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import fire
from fire.decorators import SetParseFn

from private_pypi.errors import PrivatePypiError
from private_pypi.storage.plugins import nearest

PROGRAM: Final = "private_pypi"
ENVIRON: Final = "environ"
VARIABLES: Final = ("PRIVATE_PYPI_COMMAND", "PYWHARF_COMMAND")  # the first that is set is used
REQUIRED: Final = inspect.Parameter.empty

_TRUE = "(?ai:true|1|yes|on)"
# For each type, how messages describe its values, and a pattern that they match.
_KINDS: Final[Mapping[type, tuple[str, str]]] = {
    bool: ("true or false", f"{_TRUE}|(?ai:false|0|no|off)"),
    int: ("a whole number", "[+-]?[0-9]{1,18}"),
    float: ("a number", r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"),
    str: ("text", "(?s:.*)"),
}
_WIDTH: Final = 88


class UsageError(PrivatePypiError):
    """The arguments of a command are wrong. It has not been run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """An argument of a command."""

    name: str
    annotation: Any = str
    default: Any = REQUIRED
    help: str = ""
    by_position: bool = False
    bare: bool = False  # whether the flag may be given without a value; it is "true" then

    @property
    def kind(self) -> type:
        """The type of its value; `str` if the annotation is not one of the known types."""
        return next((each for each in _KINDS if self.annotation in (each, each | None)), str)

    @property
    def shown(self) -> str:
        """How the help and messages refer to it, such as `ROOT` or `--port`."""
        return self.name.upper() if self.by_position else f"--{self.name}"


class Given(NamedTuple):
    """One argument as it was given."""

    shown: str  # for messages: "--port", "PRIVATE_PYPI_COMMAND_PORT" or "ROOT", for example
    name: str | None  # None: given by position, but there are no more such parameters
    text: str | None  # None: a flag without a value


Texts = Mapping[str, str]
More = Callable[[Texts], Sequence[Parameter]]
"""Returns the flags that depend on others. It gets the arguments that are known so far."""


class Command:
    """A command, as described by the signature and the docstring of its function.

    The docstring may also have the sections `Usage:` and `Example:`.
    """

    def __init__(self, name: str, function: Callable[..., Any], more: More | None = None) -> None:
        self.name = name
        self.function = function
        self.more = more
        # The sections of the docstring by title; the text before the first title is under "".
        self.sections, helps = _read_docstring(inspect.getdoc(function) or "")
        signature = inspect.signature(function, eval_str=True).parameters
        self.keywords = {name.removesuffix("_"): name for name in signature if name.endswith("_")}
        self.takes_environ = ENVIRON in signature
        kinds = {each.kind for each in signature.values()}
        # If the function has `**flags`, and `more` does not say which, it gets any flag as text.
        self.takes_any = inspect.Parameter.VAR_KEYWORD in kinds and more is None
        self.parameters = [
            Parameter(
                name=each.name.removesuffix("_"),
                annotation=each.annotation,
                default=each.default,
                help=helps.get(each.name, ""),
                by_position=each.kind is each.POSITIONAL_OR_KEYWORD,
            )
            for each in signature.values()
            if each.name != ENVIRON and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        ]

    def known(self, given: Iterable[Given] = ()) -> dict[str, Parameter]:
        """All parameters by name, including the flags that depend on the given arguments."""
        texts = {each.name: each.text for each in given if each.name and each.text is not None}
        more = self.more(texts) if self.more is not None else ()
        return {each.name: each for each in (*self.parameters, *more)}


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether `-h` or `--help` is among the words, before any `--`."""
    return not {"-h", "--help"}.isdisjoint(itertools.takewhile("--".__ne__, words))


def from_environment(environ: Mapping[str, str]) -> tuple[str, list[Given]] | None:
    """The command and its flags according to the environment; None if it has no such variables.

    An empty value is "", or stands for a flag without a value. Raises `UsageError` if there are
    flags, but no command.
    """
    folded = {name.upper(): value for name, value in environ.items()}
    command = next(filter(None, map(folded.get, VARIABLES)), None)
    if command is None:
        for name in environ:
            if f"{name.upper()}_".startswith(tuple(f"{each}_" for each in VARIABLES)):
                raise UsageError(
                    f"the environment has {name}, but not {VARIABLES[0]}, which must be the name "
                    "of the command"
                )
        return None
    flags: dict[str, Given] = {}
    for prefix in VARIABLES:
        for variable, text in folded.items():
            name = variable.removeprefix(f"{prefix}_").lower()
            if variable.startswith(f"{prefix}_") and name:
                flags.setdefault(name, Given(variable, name, text))
    return command, list(flags.values())


def from_words(command: Command, words: Sequence[str]) -> list[Given]:
    """Split the words of the command line into arguments."""
    # Twice, because the flags may depend on other arguments, as in `update_index TYPE`.
    return _split(words, command.known(_split(words, command.known())))


def check(command: Command, given: Sequence[Given]) -> dict[str, Any]:
    """The values of the arguments by name; raises `UsageError` with a line for each mistake."""
    problems: list[str] = []
    known = command.known(given)
    values: dict[str, Any] = {}
    seen: set[str] = set()
    for each in given:
        if each.name is None:
            problems.append(f"unexpected argument {each.shown}")
        elif each.name in seen:
            problems.append(f"{each.shown} is given twice")
        elif each.name in known or command.takes_any:
            parameter = known.get(each.name) or Parameter(name=each.name, bare=True)
            try:
                values[each.name] = _convert(parameter, each)
            except UsageError as error:
                problems.append(str(error))
        else:
            near = nearest(each.name, known)
            variable = each.shown.removesuffix(each.name.upper()) + (near or "").upper()
            meant = f"--{near}" if each.shown.startswith("-") else variable
            hint = f"; did you mean {meant}?" if near else ""
            problems.append(f"unknown flag {each.shown}{hint}")
        seen.add(each.name or "")
    problems += [
        f"missing {each.shown}"
        for each in known.values()
        if each.default is REQUIRED and each.name not in seen
    ]
    if problems:
        raise UsageError("\n".join(problems))
    return values


def run(command: Command, values: Mapping[str, Any], environ: Mapping[str, str]) -> int:
    """Call the function through fire; return the exit code, which is 0 if it returns none."""

    # fire gets every value as a Python literal and evaluates it, so that it does not take a text
    # for a number or a flag.
    @SetParseFn(ast.literal_eval)  # type: ignore[untyped-decorator]
    def bound(**arguments: Any) -> Any:
        more = {ENVIRON: environ} if command.takes_environ else {}
        named = {command.keywords.get(name, name): value for name, value in arguments.items()}
        return command.function(**named, **more)

    result = fire.Fire(
        bound,
        command=[f"--{name}={value!r}" for name, value in values.items()],
        name=f"{PROGRAM} {command.name}",
        serialize=lambda shown: None if isinstance(shown, int) else shown,
    )
    return result if isinstance(result, int) else 0


def synopsis(summaries: Mapping[str, str]) -> str:
    """The text of `private_pypi --help`. `summaries` has a line of text for each command."""
    width = max(map(len, summaries), default=0)
    lines = "\n".join(f"    {name:{width}}  {text}" for name, text in summaries.items())
    return (
        f"SYNOPSIS\n    {PROGRAM} <command> <command_flags>\n\n"
        f"SUPPORTED COMMANDS\n{lines}\n\n"
        f"Help of a command: {PROGRAM} <command> --help\n"
    )


def usage(command: Command) -> str:
    """A line such as `private_pypi server ROOT <flags>`, or `Usage:` of the docstring."""
    if "Usage" in command.sections:
        return command.sections["Usage"]
    words = [
        each.shown if each.default is REQUIRED else f"[{each.shown}]"
        for each in command.parameters
        if each.by_position
    ]
    if command.more is not None or len(words) < len(command.parameters):
        words.append("<flags>")
    return " ".join([PROGRAM, command.name, *words])


def help_text(command: Command, words: Sequence[str] = ()) -> str:
    """The text of `private_pypi COMMAND --help`.

    `words` are all arguments: the flags that depend on other arguments are explained if these are
    among them.
    """
    own = command.parameters
    more: list[Parameter] = []
    with contextlib.suppress(PrivatePypiError):  # mistakes in other arguments do not matter
        given = from_words(command, [each for each in words if each not in ("-h", "--help")])
        more = list(command.known(given).values())[len(own) :]
    summary, _, description = command.sections[""].partition("\n")
    flags = [each for each in own if not each.by_position] + [each for each in more if each.help]
    other = textwrap.fill("  ".join(each.shown for each in more if not each.help), _WIDTH - 4)
    blocks = [
        f"{summary}\n",
        _section("SYNOPSIS", usage(command)),
        f"{description.strip()}\n" if description else "",
        _section("POSITIONAL ARGUMENTS", *(_explained(each) for each in own if each.by_position)),
        _section("FLAGS", *map(_explained, flags)),
        _section("OTHER FLAGS", other),
        _section("EXAMPLE", command.sections.get("Example", "")),
    ]
    return "\n".join(filter(None, blocks))


def _section(title: str, *texts: str) -> str:
    body = textwrap.indent("\n".join(texts), "    ")
    return f"{title}\n{body}\n" if body else ""


def _explained(parameter: Parameter) -> str:
    text = parameter.help
    if parameter.default is REQUIRED:
        text += "" if parameter.by_position else " Required."
    elif parameter.default is not None:
        text += f" Default to {parameter.default!r}."
    body = textwrap.fill(text.strip(), _WIDTH - 8, break_long_words=False, break_on_hyphens=False)
    return f"{parameter.shown} ({parameter.kind.__name__}):\n{textwrap.indent(body, '    ')}"


def _split(words: Sequence[str], parameters: Mapping[str, Parameter]) -> list[Given]:
    given: list[Given] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            given += [Given(repr(each), None, each) for each in rest]
            break
        if not word.startswith("-") or word == "-":
            given.append(Given(repr(word), None, word))
            continue
        shown, equals, text = word.partition("=")
        name = _name_of(word)
        parameter, denied = parameters.get(name), parameters.get(re.sub("^no_?", "", name))
        if equals:
            given.append(Given(shown, name, text))
        elif parameter is None and denied is not None and denied.kind is bool:  # `--nodebug`
            given.append(Given(shown, denied.name, "false"))
        else:
            has_value = bool(rest) and _is_value(rest[0], parameter, parameters)
            given.append(Given(shown, name, rest.pop(0) if has_value else None))
    # Arguments without a flag are assigned to the remaining positions, in order.
    by_flag = {each.name for each in given}
    free = (each for each in parameters.values() if each.by_position and each.name not in by_flag)
    return [
        Given(place.shown, place.name, each.text)
        if each.name is None and (place := next(free, None)) is not None
        else each
        for each in given
    ]


def _is_value(word: str, parameter: Parameter | None, parameters: Mapping[str, Parameter]) -> bool:
    """Whether the word after a flag is its value."""
    if parameter is None:
        return not word.startswith("-") or word == "-"
    if parameter.kind is bool:
        return re.fullmatch(_KINDS[bool][1], word) is not None
    # The value of a known flag may begin with "-", as some secrets do. But if the next word is a
    # flag of this command, the value was forgotten.
    return not (word.startswith("--") and _name_of(word) in parameters)


def _name_of(word: str) -> str:
    return word.partition("=")[0].lstrip("-").replace("-", "_")


def _convert(parameter: Parameter, given: Given) -> Any:
    text, kind = given.text, parameter.kind
    # `--debug=` is a mistake, because it comes from `--debug=$UNSET`. In the environment, an empty
    # value means the same as `--debug`.
    if text is None or (text == "" and kind is bool and not given.shown.startswith("-")):
        if not parameter.bare and kind is not bool:
            raise UsageError(f"{given.shown} needs a value (--{parameter.name}=VALUE)")
        text = "true"
    what, pattern = _KINDS[kind]
    if not re.fullmatch(pattern, text):
        raise UsageError(f"{given.shown} must be {what}, not {text!r}")
    return re.fullmatch(_TRUE, text) is not None if kind is bool else kind(text)


def _read_docstring(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """The sections of a docstring by title, and the descriptions of its arguments by name."""
    first, *titled = re.split(r"^(Usage|Args|Example|Returns|Raises):\n", text, flags=re.MULTILINE)
    sections = {
        title: textwrap.dedent(body).strip("\n")
        for title, body in zip(titled[::2], titled[1::2], strict=True)
    }
    entries = re.split(r"^(\**\w+):", sections.get("Args", ""), flags=re.MULTILINE)[1:]
    helps = zip(entries[::2], entries[1::2], strict=True)
    return {"": first.strip(), **sections}, {
        name.lstrip("*"): " ".join(body.split()) for name, body in helps
    }
