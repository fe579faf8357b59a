"""Tables of routes: which function answers requests for which address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from flask import Flask, Response
from werkzeug.routing import Rule


class Route(NamedTuple):
    """An address and its view: the function that is called with the variables of the address."""

    path: str  # with variables, such as "/simple/<name>/"
    view: Callable[..., Response]
    methods: tuple[str, ...] = ("GET",)
    options: Mapping[str, Any] = {}  # further arguments of `Flask.add_url_rule`


class MatchedRule(Rule):
    """A rule whose addresses are only matched, and never built (`url_for`).

    Werkzeug compiles two functions for each rule to build addresses, which would take most of the
    time of `create_app`: a tenth of a second.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        return _built


def _built(rule: Rule, **values: object) -> tuple[str, str]:
    raise NotImplementedError("addresses are relative: use `redirect_within`, not `url_for`")


def add_routes(app: Flask, routes: Iterable[Route], prefix: str = "") -> None:
    """Add routes to an application, each with `prefix` before its path."""
    for path, view, methods, options in routes:
        app.add_url_rule(prefix + path, view_func=view, methods=list(methods), **options)
