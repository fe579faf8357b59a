"""GitHub's description is really used: what it does not allow is found."""

from __future__ import annotations

import pytest

from .fake.described import Description, NotAsDescribed, Operation
from .fake.rest import handlers

REPO = "/repos/acme/pkgs"
ERROR = {"message": "Not Found", "documentation_url": "https://docs.github.com/rest"}


@pytest.fixture(scope="module")
def description() -> Description:
    return Description()


def found(description: Description, method: str, path: str) -> Operation:
    operation = description.find(method, path)
    assert operation is not None
    return operation


@pytest.mark.parametrize(
    ("path", "template", "parameter"),
    [
        ("/releases/latest", "/releases/latest", None),
        ("/releases/17", "/releases/{release_id}", ("release_id", "17")),
        ("/releases/tags/demo-1.0.tar.gz", "/releases/tags/{tag}", ("tag", "demo-1.0.tar.gz")),
        ("/contents/a/b%20c", "/contents/{path}", ("path", "a/b c")),
        ("/contents/", "/contents/{path}", ("path", "")),
        ("/contents", "/contents/{path}", ("path", "")),
        ("/git/ref/heads/a/b", "/git/ref/{ref}", ("ref", "heads/a/b")),
    ],
)
def test_an_operation_is_found_by_its_path(
    description: Description, path: str, template: str, parameter: tuple[str, str] | None
) -> None:
    operation = found(description, "GET", REPO + path)
    assert operation.template == "/repos/{owner}/{repo}" + template
    expected = {"owner": "acme", "repo": "pkgs", **dict([parameter] if parameter else [])}
    assert operation.parameters == expected


def test_what_is_not_described_is_not_found(description: Description) -> None:
    assert description.find("GET", "/nowhere") is None
    assert description.find("PUT", f"{REPO}/releases") is None


def test_every_operation_that_is_built_is_described(description: Description) -> None:
    for name in handlers():
        method, _, template = name.partition(" ")
        path = template.translate(str.maketrans("", "", "{}"))
        assert found(description, method, path).name == name


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "message"),
    [
        ("GET", "/releases", {"sort": "name"}, None, "no query parameter 'sort'"),
        ("GET", "/releases", {"per_page": "all"}, None, "'per_page' is no integer: 'all'"),
        ("GET", "/releases/demo", {}, None, "'release_id' is no integer: 'demo'"),
        ("POST", "/releases/1/assets", {}, b"", "query parameter 'name' missing"),
        ("POST", "/releases", {}, {"name": "demo"}, "must contain .'tag_name'."),
        ("POST", "/releases", {}, {"tag_name": "v1", "draft": "no"}, "draft must be boolean"),
        ("POST", "/releases", {}, None, "no body"),
        ("DELETE", "/releases/1", {}, {}, "takes no body"),
    ],
)
def test_a_request_must_be_as_described(
    description: Description,
    method: str,
    path: str,
    query: dict[str, str],
    body: object,
    message: str,
) -> None:
    with pytest.raises(NotAsDescribed, match=message):
        description.check_request(found(description, method, REPO + path), query, body)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, [{"id": 1}], "must contain"),
        (200, {}, "must be array"),
        (201, [], "no status 201"),
        (403, {"message": 1}, "message must be string"),
        (422, {"message": "no"}, "must contain .'documentation_url'."),
    ],
)
def test_an_answer_must_be_as_described(
    description: Description, status: int, body: object, message: str
) -> None:
    with pytest.raises(NotAsDescribed, match=message):
        description.check_answer(found(description, "GET", f"{REPO}/releases"), status, body)


def test_limits_and_refusals_need_no_description_but_a_body_like_others(
    description: Description,
) -> None:
    operation = found(description, "GET", f"{REPO}/releases")
    for status in (401, 403, 404, 429, 500, 502, 503):
        description.check_answer(operation, status, ERROR)
    description.check_answer(operation, 304, None)


def test_null_formats_and_unknown_fields_are_told_apart(description: Description) -> None:
    ref = {
        "ref": "refs/tags/v1",
        "node_id": "x",
        "url": "http://127.0.0.1/x",
        "object": {"type": "commit", "sha": "0" * 40, "url": "http://127.0.0.1/y"},
    }
    description.check_schema("git-ref", ref)
    for change in ({"url": "nowhere"}, {"ref": None}, {"object": {**ref, "sha": "0"}}):
        with pytest.raises(NotAsDescribed):
            description.check_schema("git-ref", {**ref, **change})
    blob = {"sha": "0", "url": "http://h/", "node_id": "x", "content": "", "encoding": "base64"}
    description.check_schema("blob", {**blob, "size": None})
    with pytest.raises(NotAsDescribed, match="size"):
        description.check_schema("blob", blob)
