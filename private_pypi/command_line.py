"""From words or environment variables to the checked arguments of a function, and its help.

Knows no command, and runs none: fire binds and calls what was checked here.

A command is a function with annotated parameters (`str`, `int`, `float`, `bool`, or one of these
`| None`) and a Google docstring. What may be given by position comes before the `*`. A parameter
`environ` is not a flag: it receives the environment.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import fire
from fire.decorators import SetParseFn

from private_pypi.errors import PrivatePypiError
from private_pypi.plugins import nearest

PROGRAM: Final = "private_pypi"
ENVIRON: Final = "environ"
VARIABLES: Final = ("PRIVATE_PYPI_COMMAND", "PYWHARF_COMMAND")  # the first that is set wins

_BOOLEANS: Final = {"true": True, "1": True, "yes": True, "on": True} | {
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}
_WIDTH: Final = 88


class UsageError(PrivatePypiError):
    """The command was called in a way that it does not know; nothing has run."""


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """An argument of a command."""

    name: str
    annotation: Any = str
    default: Any = REQUIRED
    help: str = ""
    by_position: bool = False
    bare: str | None = None  # the value of a flag without one; None: it needs one


Texts = Mapping[str, str]
More = Callable[[Texts], Sequence[Parameter]]
"""The flags that depend on others: from the texts of those known so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A function with what its signature and its docstring say."""

    name: str
    function: Callable[..., Any]
    summary: str
    description: str
    usage: str  # lines that say more than the signature; "": the signature says it
    example: str
    parameters: tuple[Parameter, ...]
    takes_environ: bool
    takes_any: bool  # has `**flags` of which nothing is known: any flag is taken, as text
    more: More | None


@dataclass(frozen=True, slots=True)
class Given:
    """One argument as it was written."""

    shown: str  # "--port", "PRIVATE_PYPI_COMMAND_PORT", "'a positional'"
    name: str | None  # None: by position
    text: str | None  # None: a flag without a value


def describe(name: str, function: Callable[..., Any], more: More | None = None) -> Command:
    """Read a command from its function; its docstring may also have `Usage:` and `Example:`."""
    annotations = typing.get_type_hints(function)
    documented = _read_docstring(inspect.getdoc(function) or "")
    signature = inspect.signature(function)
    parameters = [
        Parameter(
            name=each.name,
            annotation=annotations.get(each.name, str),
            default=REQUIRED if each.default is each.empty else each.default,
            help=documented.arguments.get(each.name, ""),
            by_position=each.kind is each.POSITIONAL_OR_KEYWORD,
            bare="true" if _plain(annotations.get(each.name)) is bool else None,
        )
        for each in signature.parameters.values()
        if each.name != ENVIRON and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    has_flags = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    return Command(
        name=name,
        function=function,
        summary=documented.summary,
        description=documented.description,
        usage=documented.usage,
        example=documented.example,
        parameters=tuple(parameters),
        takes_environ=ENVIRON in signature.parameters,
        takes_any=has_flags and more is None,
        more=more,
    )


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether `-h` or `--help` is among the words before a `--`."""
    before = words[: words.index("--")] if "--" in words else words
    return "-h" in before or "--help" in before


def from_environment(environ: Mapping[str, str]) -> tuple[str, list[Given]] | None:
    """The command and its flags that the environment gives (seed: environment mode).

    None when no variable names a command. An empty value is that of a bare flag, or "".
    """
    folded = {name.upper(): value for name, value in environ.items()}
    command = next((folded[name] for name in VARIABLES if folded.get(name)), None)
    if command is None:
        return None
    flags: dict[str, Given] = {}
    for prefix in VARIABLES:
        for variable, text in folded.items():
            name = variable.removeprefix(f"{prefix}_").lower()
            if variable.startswith(f"{prefix}_") and name:
                flags.setdefault(name, Given(variable, name, text))
    return command, list(flags.values())


def stray_variable(environ: Mapping[str, str]) -> str | None:
    """A variable of the environment mode that is there although none names a command."""
    if from_environment(environ) is not None:
        return None
    starts = tuple(f"{name}_" for name in VARIABLES)
    return next((name for name in environ if f"{name.upper()}_".startswith(starts)), None)


def from_words(command: Command, words: Sequence[str]) -> list[Given]:
    """The arguments that words give; which word is a flag's value, the flag's type decides."""
    if command.more is not None:
        # Which flags there are may depend on what the others say: `update_index TYPE`.
        loosely = _texts(command, _split(words, {each.name: each for each in command.parameters}))
        parameters = [*command.parameters, *command.more(loosely)]
    else:
        parameters = [*command.parameters]
    return _split(words, {each.name: each for each in parameters})


def check(command: Command, given: Sequence[Given]) -> dict[str, Any]:
    """The arguments by name, each of its type; raises `UsageError` with all that is wrong."""
    problems: list[str] = []
    texts = _texts(command, given)
    more = command.more(texts) if command.more is not None else ()
    known = {each.name: each for each in (*command.parameters, *more)}
    values: dict[str, Any] = {}
    seen: set[str] = set()
    for each, name in _placed(command, given):
        if name is None:
            problems.append(f"one argument too many: {each.shown}")
            continue
        if name in seen:
            problems.append(f"{each.shown} is given twice")
            continue
        seen.add(name)
        parameter = known.get(name)
        if parameter is None and command.takes_any:
            parameter = Parameter(name=name, bare="true")
        if parameter is None:
            near = nearest(name, known)
            meant = "" if near is None else f"; did you mean {_as_shown(each, near)}?"
            problems.append(f"unknown flag {each.shown}{meant}")
            continue
        try:
            values[name] = _convert(parameter, each)
        except UsageError as error:
            problems.append(str(error))
    missing = [p for p in known.values() if p.default is REQUIRED and p.name not in seen]
    problems += [
        f"missing {each.name.upper()}" if each.by_position else f"missing --{each.name}"
        for each in missing
    ]
    if problems:
        raise UsageError("\n".join(problems))
    return values


def run(command: Command, values: Mapping[str, Any], environ: Mapping[str, str]) -> int:
    """Call the function through fire; its exit code, 0 unless it returns one."""

    # Every value travels as a Python literal and is read back as one, so that fire cannot take a
    # text for a number or a flag.
    @SetParseFn(ast.literal_eval)  # type: ignore[untyped-decorator]
    def bound(**arguments: Any) -> Any:
        more = {ENVIRON: environ} if command.takes_environ else {}
        return command.function(**arguments, **more)

    result = fire.Fire(
        bound,
        command=[f"--{name}={value!r}" for name, value in values.items()],
        name=f"{PROGRAM} {command.name}",
        serialize=lambda shown: None if isinstance(shown, int) else shown,
    )
    return result if isinstance(result, int) else 0


def synopsis(commands: Iterable[str]) -> str:
    """The text of `private_pypi --help`."""
    lines = "\n".join(f"    {name}" for name in commands)
    return (
        f"SYNOPSIS\n    {PROGRAM} <command> <command_flags>\n\n"
        f"SUPPORTED COMMANDS\n{lines}\n\n"
        f"Help of a command: {PROGRAM} <command> --help\n"
    )


def usage(command: Command) -> str:
    """A line such as `private_pypi server ROOT <flags>`, or those that its docstring gives."""
    if command.usage:
        return command.usage
    words = [PROGRAM, command.name]
    for each in command.parameters:
        if each.by_position:
            word = each.name.upper()
            words.append(word if each.default is REQUIRED else f"[{word}]")
    if command.more is not None or any(not each.by_position for each in command.parameters):
        words.append("<flags>")
    return " ".join(words)


def help_text(command: Command, words: Sequence[str] = ()) -> str:
    """The text of `private_pypi COMMAND --help`; the words may say which further flags to tell."""
    more: Sequence[Parameter] = ()
    if command.more is not None:
        kept = [each for each in words if each not in ("-h", "--help")]
        given = _split(kept, {each.name: each for each in command.parameters})
        try:
            more = command.more(_texts(command, given))
        except PrivatePypiError:
            more = ()  # the help is told, whatever else is wrong with the line
    blocks = [f"{command.summary}\n", _section("SYNOPSIS", [usage(command)])]
    if command.description:
        blocks.append(f"{command.description}\n")
    positional = [each for each in command.parameters if each.by_position]
    flags = [each for each in command.parameters if not each.by_position]
    flags += [each for each in more if each.help]
    other = [f"--{each.name}" for each in more if not each.help]
    if positional:
        blocks.append(_section("POSITIONAL ARGUMENTS", map(_told, positional)))
    if flags:
        blocks.append(_section("FLAGS", map(_told, flags)))
    if other:
        blocks.append(_section("OTHER FLAGS", [textwrap.fill("  ".join(other), _WIDTH - 4)]))
    if command.example:
        blocks.append(_section("EXAMPLE", [command.example]))
    return "\n".join(blocks)


def type_name(annotation: Any) -> str:
    """`int` for `int | None`."""
    plain = _plain(annotation)
    return getattr(plain, "__name__", str(plain))


def _told(parameter: Parameter) -> str:
    shown = parameter.name.upper() if parameter.by_position else f"--{parameter.name}"
    text = parameter.help
    if parameter.default is REQUIRED:
        text += "" if parameter.by_position else " Required."
    elif parameter.default is not None:
        text += f" Default to {parameter.default!r}."
    body = textwrap.fill(text.strip(), _WIDTH - 8, break_long_words=False, break_on_hyphens=False)
    return f"{shown} ({type_name(parameter.annotation)}):\n{textwrap.indent(body, '    ')}"


def _section(title: str, paragraphs: Iterable[str]) -> str:
    return title + "\n" + "\n".join(textwrap.indent(each, "    ") for each in paragraphs) + "\n"


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
        name = _flag_name(shown)
        parameter = parameters.get(name)
        if equals:
            given.append(Given(shown, name, text))
        elif parameter is not None and _plain(parameter.annotation) is bool:
            has_value = bool(rest) and rest[0].lower() in _BOOLEANS
            given.append(Given(shown, name, rest.pop(0) if has_value else None))
        elif parameter is None and (denied := _denied(name, parameters)) is not None:
            given.append(Given(shown, denied, "false"))
        elif rest and not _looks_like_flag(rest[0], parameters, known_only=parameter is not None):
            given.append(Given(shown, name, rest.pop(0)))
        else:
            given.append(Given(shown, name, None))
    return given


def _looks_like_flag(word: str, parameters: Mapping[str, Parameter], *, known_only: bool) -> bool:
    # The value of a known flag may begin with "-", as secrets do; only where the next word is
    # itself a flag of this command, the value was forgotten.
    if not known_only:
        return word.startswith("-") and word != "-"
    return word.startswith("--") and _flag_name(word.partition("=")[0]) in parameters


def _flag_name(shown: str) -> str:
    return shown.lstrip("-").replace("-", "_")


def _denied(name: str, parameters: Mapping[str, Parameter]) -> str | None:
    """`debug` for `nodebug` and `no_debug`."""
    denied = name.removeprefix("no").removeprefix("_")
    is_flag = denied in parameters and _plain(parameters[denied].annotation) is bool
    return denied if name.startswith("no") and is_flag else None


def _placed(command: Command, given: Sequence[Given]) -> list[tuple[Given, str | None]]:
    """Each argument with its name; positional ones fill what no flag gives, in order."""
    by_flag = {each.name for each in given}
    free = [each.name for each in command.parameters if each.by_position]
    free = [name for name in free if name not in by_flag]
    placed: list[tuple[Given, str | None]] = []
    for each in given:
        if each.name is not None:
            placed.append((each, each.name))
        else:
            placed.append((each, free.pop(0) if free else None))
    return placed


def _as_shown(given: Given, name: str) -> str:
    """A flag's name in the way in which another was written."""
    if given.shown.startswith("-"):
        return f"--{name}"
    return given.shown.removesuffix((given.name or "").upper()) + name.upper()


def _texts(command: Command, given: Sequence[Given]) -> Texts:
    return {
        name: each.text
        for each, name in _placed(command, given)
        if name is not None and each.text is not None
    }


def _convert(parameter: Parameter, given: Given) -> Any:
    text, type_ = given.text, _plain(parameter.annotation)
    # `--debug=$UNSET` is a mistake; an empty variable is the environment's way to say `--debug`.
    from_variable = not given.shown.startswith("-")
    if text is None or (text == "" and type_ is bool and from_variable):
        if parameter.bare is None:
            raise UsageError(f"{given.shown} needs a value (--{parameter.name}=VALUE)")
        text = parameter.bare
    where = parameter.name.upper() if given.name is None else given.shown
    if type_ is bool:
        if text.lower() not in _BOOLEANS:
            raise UsageError(f"{where} must be true or false, not {text!r}")
        return _BOOLEANS[text.lower()]
    if type_ is int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise UsageError(f"{where} must be a whole number, not {text!r}")
        return int(text)
    if type_ is float:
        if not re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", text):
            raise UsageError(f"{where} must be a number, not {text!r}")
        return float(text)
    return text


def _plain(annotation: Any) -> Any:
    """The type itself of `type | None`."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        others = [each for each in typing.get_args(annotation) if each is not types.NoneType]
        return others[0] if len(others) == 1 else annotation
    return annotation


@dataclass(frozen=True, slots=True)
class _Docstring:
    summary: str
    description: str
    usage: str
    arguments: Mapping[str, str]
    example: str


def _read_docstring(text: str) -> _Docstring:
    """Take a Google docstring apart."""
    sections = re.split(r"^(Usage|Args|Example|Returns|Raises):\n", text, flags=re.MULTILINE)
    summary, _, description = sections[0].partition("\n")
    titled = dict(zip(sections[1::2], sections[2::2], strict=True))
    entries = re.split(r"^(\**\w+):", textwrap.dedent(titled.get("Args", "")), flags=re.MULTILINE)
    return _Docstring(
        summary=summary.strip(),
        description=description.strip(),
        usage=textwrap.dedent(titled.get("Usage", "")).strip("\n"),
        arguments={
            name.lstrip("*"): " ".join(body.split())
            for name, body in zip(entries[1::2], entries[2::2], strict=True)
        },
        example=textwrap.dedent(titled.get("Example", "")).strip("\n"),
    )
