"""The options of the engine granian: those of waitress that it has, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from private_pypi.errors import ConfigurationError
from private_pypi.web.serving import Answer, option_names
from private_pypi.web.serving.granian import engine

DOCUMENT = Path(__file__).parents[2] / "docs" / "engines.md"


def start(**options: object) -> None:
    engine.serve(
        lambda environ, start_response: [],
        lambda head: Answer(500, ""),
        host="127.0.0.1",
        port=0,
        options=options,
        on_listening=lambda addresses: pytest.fail("it must not start"),
    )


def test_options_that_it_has_no_use_for_are_refused_by_name() -> None:
    with pytest.raises(ConfigurationError) as caught:
        start(asyncore_use_poll="false", threads="4", recv_bytes="9")
    assert str(caught.value).splitlines() == [
        "--asyncore_use_poll: only --engine waitress has this option",
        "--recv_bytes: only --engine waitress has this option",
    ]


def test_wrong_values_are_refused_as_with_waitress() -> None:
    for options, problem in (
        ({"threads": "0"}, "--threads 0: at least 1 is needed"),
        ({"trusted_proxy_count": "2"}, "trusted_proxy_count has no meaning"),
        ({"unix_socket": "/nowhere/socket"}, "--unix_socket /nowhere/socket: No such file"),
    ):
        with pytest.raises(ConfigurationError, match=re.escape(problem)):
            start(**options)


def test_the_document_names_the_options_that_are_refused() -> None:
    part = DOCUMENT.read_text().partition("## Flags of granian")[2].partition("\n## ")[0]
    named = set(re.findall(r"`--([a-z_]+)`", part))
    assert named == (option_names() - engine.OPTIONS) - {"host", "port"}
