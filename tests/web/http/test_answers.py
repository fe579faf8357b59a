"""Every error has its status, and every client finds the sentence."""

from __future__ import annotations

import json

import pytest

from private_pypi import errors
from private_pypi.errors import (
    BackendUnavailable,
    FileAlreadyExists,
    InvalidUpload,
    PrivatePypiError,
    StaleIndex,
    WrongSecret,
)
from private_pypi.web.http.answers import answer_error, answer_text, status_of

STATUSES = {
    "PrivatePypiError": 500,
    "ConfigurationError": 400,
    "AlreadyConfigured": 409,
    "NotConfigured": 503,
    "AccessError": 401,
    "WrongSecret": 401,
    "NotAllowed": 403,
    "NotFound": 404,
    "ProjectNotFound": 404,
    "FileNotFound": 404,
    "FileHidden": 404,
    "InvalidUpload": 400,
    "InvalidFilename": 400,
    "FilenameBurnt": 400,
    "TooLarge": 413,
    "FileAlreadyExists": 409,
    "InvalidIndex": 502,
    "StaleIndex": 503,
    "Unsupported": 501,
    "BackendError": 502,
    "BackendUnavailable": 503,
    "LoopDetected": 508,
    "StorageFull": 507,
}


def test_every_error_of_the_tree_has_its_status() -> None:
    tree = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, PrivatePypiError)
    }
    assert {n: status_of(kind.__new__(kind)) for n, kind in tree.items()} == STATUSES


def test_a_refusal_for_uv_is_json_of_exactly_that_type() -> None:
    accept = "application/json;q=0.9, text/plain;q=0.8, text/html;q=0.7"
    answer = answer_error(FileAlreadyExists("a-1.0.zip"), accept)
    assert (answer.status, dict(answer.headers)["Content-Type"]) == (409, "application/json")
    assert json.loads(answer.body) == {
        "code": f"409 {answer.reason}",
        "title": answer.reason,
        "message": "File already exists ('a-1.0.zip' is published with other content); "
        "use a different version",
    }  # protocol 57


def test_problem_details_where_they_are_asked_for() -> None:
    answer = answer_error(InvalidUpload("no name"), "application/problem+json")
    assert dict(answer.headers)["Content-Type"] == "application/problem+json"
    assert json.loads(answer.body) == {"status": 400, "title": "no name", "detail": "no name"}


@pytest.mark.parametrize("accept", [None, "*/*"])
def test_for_everybody_else_the_sentence_is_the_reason_and_the_body(accept: str | None) -> None:
    answer = answer_error(FileAlreadyExists("a-1.0.zip"), accept)
    assert answer.reason.startswith("File already exists (")  # protocol 56
    assert answer.body.decode().strip() == answer.reason


def test_a_browser_gets_a_page_with_everything_escaped() -> None:
    answer = answer_text(404, "no <b>", "text/html,application/xhtml+xml,*/*;q=0.8")
    assert b"<title>404 no &lt;b&gt;</title>" in answer.body


def test_a_reason_is_one_line_of_latin_1() -> None:
    answer = answer_text(400, "größer als 5 € \r\nSet-Cookie: x", None)
    assert answer.reason == "größer als 5 ? "
    answer.reason.encode("latin-1")


def test_a_401_has_a_challenge_and_a_503_says_when() -> None:
    assert dict(answer_error(WrongSecret(), None).headers)["WWW-Authenticate"].startswith("Basic ")
    busy = answer_error(BackendUnavailable("busy", retry_after=7), None)
    assert dict(busy.headers)["Retry-After"] == "7"  # protocol 90
    assert dict(answer_error(StaleIndex("lost"), None).headers)["Retry-After"] == "5"
