"""The page at the address of the server, for people; it tells nothing about repositories."""

from __future__ import annotations

from flask import Blueprint, Response

from private_pypi.web.requests import redirect_within

_START = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>private_pypi</title>
</head>
<body>
<h1>private_pypi</h1>
<p>This is a private Python package index. Give your tools an address of this form, with the name
of a repository as user and its secret as password:</p>
<pre>pip install --index-url http://NAME:SECRET@HOST/r/NAME/simple/ PROJECT
twine upload --repository-url http://HOST/r/NAME/ -u NAME dist/*</pre>
<p>Projects are listed at <a href="simple/">simple/</a>.</p>
</body>
</html>
"""


def make_blueprint() -> Blueprint:
    """The start page."""
    blueprint = Blueprint("pages", __name__)

    @blueprint.get("/")
    def start(repository: str | None = None) -> Response:
        del repository  # the page is the same for all: nobody has signed in yet
        return Response(_START, content_type="text/html; charset=utf-8")

    return blueprint


def to_slash(repository: str) -> Response:
    """From `/r/<repository>` to its start page."""
    return redirect_within(repository, "")
