"""The address of the public index, which no file of ours repeats."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path


def public_index_url() -> str:
    """The value of `pypi_simple.PYPI_SIMPLE_ENDPOINT`.

    It is read from the source of that package, because importing it takes a quarter of the time
    that a server needs to start, and nothing else of it is used.
    """
    spec = importlib.util.find_spec("pypi_simple")
    if spec is not None and spec.origin is not None and spec.has_location:
        for node in ast.parse(Path(spec.origin).read_bytes()).body:
            match node:
                case ast.AnnAssign(
                    target=ast.Name(id="PYPI_SIMPLE_ENDPOINT"),
                    value=ast.Constant(value=str(address)),
                ):
                    return address
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    return PYPI_SIMPLE_ENDPOINT
