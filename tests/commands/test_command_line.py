"""Arguments are converted to the types of the parameters, and checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from private_pypi.commands import command_line
from private_pypi.commands.command_line import Parameter, Texts, UsageError


def brew(
    root: str,
    version: str | None = None,
    *,
    secret: str | None = None,
    port: int = 80,
    ratio: float = 0.5,
    debug: bool = False,
) -> None:
    """Make tea.

    Slowly, and
    with care.

    Args:
        root: The pot.
        version: Which tea; it may
            be left out.
        secret: What nobody knows.
        port: Where it flows.
        debug: Tell all.

    Example:
        private_pypi brew pot
            --debug
    """
    raise AssertionError("checking runs nothing")


def pour(kind: str, **fields: str) -> None:
    """Pour what the kind has."""


def fields_of(texts: Texts) -> Sequence[Parameter]:
    if texts.get("kind") != "tea":
        return []
    return [
        Parameter(name="milk", annotation=bool, default=None, bare=True),
        Parameter(name="cup"),
    ]


def serve(*, as_: str | None = None) -> None:
    """Serve it.

    Args:
        as_: As what.
    """
    raise SystemExit(as_)


BREW = command_line.Command("brew", brew)
POUR = command_line.Command("pour", pour, fields_of)


def values(*words: str, command: command_line.Command = BREW) -> dict[str, Any]:
    return command_line.check(command, command_line.from_words(command, words))


def wrong(*words: str, command: command_line.Command = BREW) -> list[str]:
    with pytest.raises(UsageError) as caught:
        values(*words, command=command)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pot"], {"root": "pot"}),
        (["--root", "pot"], {"root": "pot"}),
        (["1.10", "1e5"], {"root": "1.10", "version": "1e5"}),
        (["--version=v", "pot"], {"root": "pot", "version": "v"}),
        (["--root=pot", "v"], {"root": "pot", "version": "v"}),
        (["pot", "--secret", "1e5"], {"root": "pot", "secret": "1e5"}),
        (["pot", "--secret", "-x"], {"root": "pot", "secret": "-x"}),
        (["pot", "--secret", "--x"], {"root": "pot", "secret": "--x"}),
        (["pot", "--secret=--port"], {"root": "pot", "secret": "--port"}),
        (["pot", "--secret=a=b"], {"root": "pot", "secret": "a=b"}),
        (["pot", "--secret="], {"root": "pot", "secret": ""}),
        (["pot", "--secret", ""], {"root": "pot", "secret": ""}),
        (["pot", "--secret", "None"], {"root": "pot", "secret": "None"}),
        (["pot", "--secret", "(1, 2)"], {"root": "pot", "secret": "(1, 2)"}),
        (["pot", "--port", "-1"], {"root": "pot", "port": -1}),
        (["pot", "--ratio", "2"], {"root": "pot", "ratio": 2.0}),
        (["--debug", "pot"], {"root": "pot", "debug": True}),
        (["--debug", "false", "pot"], {"root": "pot", "debug": False}),
        (["pot", "--debug=False"], {"root": "pot", "debug": False}),
        (["pot", "--nodebug"], {"root": "pot", "debug": False}),
        (["pot", "--no-debug"], {"root": "pot", "debug": False}),
        (["--", "--root"], {"root": "--root"}),
        (["-"], {"root": "-"}),
    ],
)
def test_values_arrive_as_typed(words: list[str], expected: dict[str, Any]) -> None:
    arrived = values(*words)
    assert arrived == expected
    types = {name: type(value) for name, value in arrived.items()}
    assert types == {name: type(value) for name, value in expected.items()}


@pytest.mark.parametrize(
    ("words", "sentences"),
    [
        ([], ["missing ROOT"]),
        (["pot", "--prot", "8"], ["unknown flag --prot; did you mean --port?"]),
        (["pot", "-p", "8"], ["unknown flag -p"]),
        (["pot", "--port", "eighty"], ["--port must be a whole number, not 'eighty'"]),
        (["pot", "--port=1e3"], ["--port must be a whole number, not '1e3'"]),
        (["pot", "--port=" + "9" * 5000], [f"--port must be a whole number, not '{'9' * 5000}'"]),
        (["pot", "--ratio=nan"], ["--ratio must be a number, not 'nan'"]),
        (["pot", "--debug=maybe"], ["--debug must be true or false, not 'maybe'"]),
        (["pot", "--debug="], ["--debug must be true or false, not ''"]),
        (["pot", "--port"], ["--port needs a value (--port=VALUE)"]),
        (["pot", "--secret", "--port", "8"], ["--secret needs a value (--secret=VALUE)"]),
        (["pot", "--port=1", "--port=2"], ["--port is given twice"]),
        (["pot", "v", "--root", "x"], ["unexpected argument 'v'"]),
        (["pot", "v", "w"], ["unexpected argument 'w'"]),
        (
            ["--port=x", "--debugg", "--ratio", "y"],
            [
                "--port must be a whole number, not 'x'",
                "unknown flag --debugg; did you mean --debug?",
                "--ratio must be a number, not 'y'",
                "missing ROOT",
            ],
        ),
    ],
)
def test_all_that_is_wrong_is_told(words: list[str], sentences: list[str]) -> None:
    assert wrong(*words) == sentences


def test_flags_may_depend_on_other_arguments() -> None:
    assert values("tea", "--milk", "--cup", "big", command=POUR) == {
        "kind": "tea",
        "milk": True,
        "cup": "big",
    }
    assert wrong("coffee", "--milk", "--cup", "big", command=POUR) == [
        "unknown flag --milk",
        "unknown flag --cup",
    ]
    assert wrong("tea", command=POUR) == ["missing --cup"]


def test_a_function_that_takes_any_flag_gets_text() -> None:
    command = command_line.Command("pour", pour)
    assert values("tea", "--sugar", "2", "--warm", command=command) == {
        "kind": "tea",
        "sugar": "2",
        "warm": "true",
    }


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["-h"], True),
        (["x", "--port", "1", "--help"], True),
        (["--secret=--help"], False),
        (["--", "--help"], False),
        ([], False),
    ],
)
def test_help_is_asked_for_anywhere(words: list[str], asked: bool) -> None:
    assert command_line.asks_for_help(words) is asked


def environment(**variables: str) -> dict[str, Any]:
    found = command_line.from_environment(variables)
    assert found is not None
    return command_line.check(BREW, found[1])


def test_variables_give_the_command_and_its_flags() -> None:
    assert environment(
        PRIVATE_PYPI_COMMAND="brew",
        private_pypi_command_root="-pot",
        PRIVATE_PYPI_COMMAND_DEBUG="",
        PRIVATE_PYPI_COMMAND_SECRET="",
        PRIVATE_PYPI_COMMAND_PORT="8",
        UNRELATED="x",
    ) == {"root": "-pot", "debug": True, "secret": "", "port": 8}


def test_false_in_a_variable_is_false() -> None:
    arrived = environment(
        PYWHARF_COMMAND="brew", PYWHARF_COMMAND_ROOT="r", PYWHARF_COMMAND_DEBUG="false"
    )
    assert arrived == {"root": "r", "debug": False}


def test_our_own_variables_win_over_those_of_pywharf() -> None:
    found = command_line.from_environment(
        {
            "PYWHARF_COMMAND": "pour",
            "PYWHARF_COMMAND_ROOT": "theirs",
            "PYWHARF_COMMAND_PORT": "1",
            "PRIVATE_PYPI_COMMAND_ROOT": "ours",
            "PRIVATE_PYPI_COMMAND": "brew",
        }
    )
    assert found is not None
    assert found[0] == "brew"
    assert command_line.check(BREW, found[1]) == {"root": "ours", "port": 1}


def test_an_environment_without_a_command_gives_none() -> None:
    unrelated = {"HOME": "/", "PRIVATE_PYPI_COMMANDER": "x", "PRIVATE_PYPI_SECRET_KEY": "x"}
    assert command_line.from_environment(unrelated) is None


@pytest.mark.parametrize(
    ("environ", "stray"),
    [
        ({"HOME": "/", "pywharf_command_root": "r"}, "pywharf_command_root"),
        ({"PRIVATE_PYPI_COMMAND_ROOT": "r"}, "PRIVATE_PYPI_COMMAND_ROOT"),
        ({"PRIVATE_PYPI_COMMAND": ""}, "PRIVATE_PYPI_COMMAND"),
    ],
)
def test_a_variable_without_a_command_is_told(environ: dict[str, str], stray: str) -> None:
    with pytest.raises(UsageError, match=f"^the environment has {stray}, but not "):
        command_line.from_environment(environ)


def test_what_is_wrong_in_the_environment_is_told_by_variable() -> None:
    with pytest.raises(UsageError) as caught:
        environment(
            PRIVATE_PYPI_COMMAND="brew",
            PRIVATE_PYPI_COMMAND_PROT="8",
            PRIVATE_PYPI_COMMAND_PORT="",
        )
    assert str(caught.value).splitlines() == [
        "unknown flag PRIVATE_PYPI_COMMAND_PROT; did you mean PRIVATE_PYPI_COMMAND_PORT?",
        "PRIVATE_PYPI_COMMAND_PORT must be a whole number, not ''",
        "missing ROOT",
    ]


@given(
    text=st.text(),
    number=st.integers(),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
)
@pytest.mark.needs("time")
def test_fire_passes_on_exactly_what_was_checked(
    text: str, number: int, ratio: float, flag: bool
) -> None:
    received: list[dict[str, Any]] = []

    def take(*, environ: Mapping[str, str], **given: Any) -> int:
        received.append({**given, "environ": environ})
        return 3

    sent = {"text": text, "number": number, "ratio": ratio, "flag": flag}
    command = command_line.Command("take", take)
    assert command_line.run(command, sent, {"A": "b"}) == 3
    assert received == [{**sent, "environ": {"A": "b"}}]


def test_a_returned_text_is_printed_and_a_number_is_the_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def tell() -> str:
        return "told"

    def count() -> int:
        return 4

    assert command_line.run(command_line.Command("tell", tell), {}, {}) == 0
    assert command_line.run(command_line.Command("count", count), {}, {}) == 4
    assert capsys.readouterr().out == "told\n"


def test_the_help_is_made_of_signature_and_docstring() -> None:
    assert command_line.help_text(BREW) == (
        "Make tea.\n"
        "\n"
        "SYNOPSIS\n"
        "    private_pypi brew ROOT [VERSION] <flags>\n"
        "\n"
        "Slowly, and\n"
        "with care.\n"
        "\n"
        "POSITIONAL ARGUMENTS\n"
        "    ROOT (str):\n"
        "        The pot.\n"
        "    VERSION (str):\n"
        "        Which tea; it may be left out.\n"
        "\n"
        "FLAGS\n"
        "    --secret (str):\n"
        "        What nobody knows.\n"
        "    --port (int):\n"
        "        Where it flows. Default to 80.\n"
        "    --ratio (float):\n"
        "        Default to 0.5.\n"
        "    --debug (bool):\n"
        "        Tell all. Default to False.\n"
        "\n"
        "EXAMPLE\n"
        "    private_pypi brew pot\n"
        "        --debug\n"
    )


def test_the_help_tells_the_flags_that_the_words_bring() -> None:
    assert "--milk" in command_line.help_text(POUR, ["tea", "--help"])
    assert "--milk" not in command_line.help_text(POUR, ["--help"])


def test_a_flag_can_be_a_keyword_of_python() -> None:
    command = command_line.Command("serve", serve)
    assert "--as (str):\n        As what." in command_line.help_text(command)
    values = command_line.check(command, command_line.from_words(command, ["--as", "cake"]))
    assert values == {"as": "cake"}
    with pytest.raises(SystemExit, match="cake"):
        command_line.run(command, values, {})
