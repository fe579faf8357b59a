"""Credentials as clients really send them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from private_pypi.backend import Secret
from private_pypi.repositories import Credentials
from private_pypi.web.http.credentials import parse_credentials


def basic(raw: bytes) -> str:
    return "Basic " + base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("header", "user", "secret"),
    [
        (basic(b"mine:s3cret"), "mine", "s3cret"),
        (basic(b"mine:with:colons"), "mine", "with:colons"),
        (basic("mine:größe".encode()), "mine", "größe"),  # uv
        (basic("mine:größe".encode("latin-1")), "mine", "größe"),  # pip
        (basic(b"mine: s3cret\n"), "mine", "s3cret"),  # protocol 41
        (basic(b":s3cret"), "", "s3cret"),
        (basic(b"only-a-user"), None, "only-a-user"),
        (basic(b"ghp_token:"), None, "ghp_token"),  # https://ghp_token@host/
        (basic(b":"), "", ""),
        ("basic " + base64.b64encode(b"mine:s").decode(), "mine", "s"),
        ("Basic ???", "", ""),
        ("Bearer s3cret", None, "s3cret"),
        ("Token s3cret", None, "s3cret"),
        ("Negotiate abc", "", ""),
    ],
)
def test_an_authorization_header(header: str, user: str | None, secret: str) -> None:
    assert parse_credentials(header) == Credentials(user, Secret(secret))


@pytest.mark.parametrize("header", [None, ""])
def test_no_header_is_no_credentials(header: str | None) -> None:
    assert parse_credentials(header) is None


@given(st.text(st.characters(max_codepoint=255)))
def test_no_header_is_an_error(header: str) -> None:
    parse_credentials("Basic " + header)
    parse_credentials(header)
