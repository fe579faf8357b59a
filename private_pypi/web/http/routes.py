"""Tables of routes: which function answers requests for which address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from flask import Flask, Response


class Route(NamedTuple):
    """An address and its view: the function that is called with the variables of the address."""

    path: str  # with variables, such as "/simple/<name>/"
    view: Callable[..., Response]
    methods: tuple[str, ...] = ("GET",)
    options: Mapping[str, Any] = {}  # further arguments of `Flask.add_url_rule`


def add_routes(app: Flask, routes: Iterable[Route], prefix: str = "") -> None:
    """Add routes to an application, each with `prefix` before its path."""
    for path, view, methods, options in routes:
        app.add_url_rule(prefix + path, view_func=view, methods=list(methods), **options)
