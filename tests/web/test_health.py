"""`/health/` and `/health/ready`: what a stranger, a repository's secret and an operator learn."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
from flask.testing import FlaskClient

from private_pypi.web import _may_wait, create_app
from private_pypi.web.legacy import make_gate
from private_pypi.web.receiving import FormLimits
from private_pypi.web.serving import Stop, serve

from .conftest import MINE, OTHER, READER, Deploy, basic

JSON = {"Accept": "application/json"}
OPERATOR = {"Authorization": "Bearer the-token"}
# Nobody gave it the secret that it needs.
WITHOUT_SECRET = '[hub]\ntype = "github"\nowner = "acme"\nrepo = "pkgs"\n'
WHY = "repository 'hub' needs a secret of its own: add a table [hub] to admin_secret.toml"


@pytest.mark.parametrize("path", ["/health/", "/health"])
def test_a_server_that_serves_says_so_to_everybody(client: FlaskClient, path: str) -> None:
    plain = client.get(path)
    assert (plain.status_code, plain.text) == (200, "ok\n")
    assert plain.content_type == "text/plain; charset=utf-8"
    assert plain.headers["Cache-Control"] == "no-store"
    assert client.get(path, headers=JSON).json == {"status": "ok"}
    assert client.head(path).status_code == 200
    assert client.get(path, headers=basic("mine", "wrong")).status_code == 200


def test_a_server_without_a_configuration_lives_and_is_not_ready(deploy: Deploy) -> None:
    client = create_app(deploy(None)).test_client()
    assert client.get("/health/").status_code == 200
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.text) == (503, "not ready\n")
    assert answer.headers["Retry-After"] == "5"
    client.post("/initialize/", data={"config": MINE})
    assert client.get("/health/ready").status_code == 200


@pytest.mark.parametrize("path", ["/health/ready", "/health/ready/"])
def test_a_stranger_learns_a_word(deploy: Deploy, path: str) -> None:
    client = create_app(deploy(MINE)).test_client()
    answer = client.get(path)
    assert (answer.status_code, answer.text) == (200, "ready\n")
    assert client.get(path, headers=JSON).json == {"status": "ready"}
    troubled = create_app(deploy(MINE + WITHOUT_SECRET)).test_client()
    answer = troubled.get(path)
    assert (answer.status_code, answer.text) == (503, "not ready\n")
    assert troubled.get(path, headers=JSON).json == {"status": "not ready"}


def test_an_operator_learns_what_is_wrong_with_which_repository(deploy: Deploy) -> None:
    served = deploy(MINE + WITHOUT_SECRET, admin_token="the-token")
    client = create_app(served).test_client()
    answer = client.get("/health/ready", headers=OPERATOR | JSON)
    assert answer.status_code == 503
    assert answer.json is not None
    at = answer.json["repositories"]["mine"]["synchronized_at"]
    assert answer.json == {
        "status": "not ready",
        "repositories": {
            "mine": {"ready": True, "synchronized_at": at, "error": None},
            "hub": {"ready": False, "synchronized_at": None, "error": WHY},
        },
    }
    plain = client.get("/health/ready", headers=basic("anybody", "the-token"))
    assert plain.text == f"not ready\nmine: ready, synchronised at {at}\nhub: not ready, {WHY}\n"


def test_a_secret_of_a_repository_asks_about_that_one_alone(deploy: Deploy) -> None:
    client = create_app(deploy(MINE + OTHER + WITHOUT_SECRET)).test_client()
    answer = client.get("/health/ready", headers=READER | JSON)
    assert answer.status_code == 200
    assert answer.json is not None
    assert list(answer.json["repositories"]) == ["mine"]


def test_a_wrong_secret_learns_nothing(deploy: Deploy) -> None:
    client = create_app(deploy(MINE + OTHER, admin_token="the-token")).test_client()
    for headers in (
        basic("mine", "wrong"),
        basic("nothing", "wrong"),
        {"Authorization": "Bearer wrong"},
    ):
        answer = client.get("/health/ready", headers=headers)
        assert answer.status_code == 401
        assert "synchronised" not in answer.text


def test_a_repository_that_has_something_to_serve_stays_ready(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = deploy(MINE, admin_token="the-token")
    (repository,) = served.repositories
    repository.index.note_error("the storage is away")
    answer = create_app(served).test_client().get("/health/ready", headers=OPERATOR | JSON)
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["repositories"]["mine"]["error"] == "the storage is away"


def test_a_repository_that_is_looked_up_is_always_ready(deploy: Deploy) -> None:
    config = '[hub]\ntype = "github_projects"\nany_owner = true\n'
    client = create_app(deploy(config, admin_token="the-token")).test_client()
    answer = client.get("/health/ready", headers=OPERATOR | JSON)
    state = {"ready": True, "synchronized_at": None, "error": None}
    assert (answer.status_code, answer.json) == (
        200,
        {"status": "ready", "repositories": {"hub": state}},
    )
    told = client.get("/metrics", headers=OPERATOR)
    assert told.status_code == 200
    assert 'private_pypi_repository_ready{repository="hub"} 1.0' in told.text
    assert "private_pypi_synchronizations_total{" not in told.text


def test_who_asks_does_not_stand_behind_those_who_wait_for_a_storage(deploy: Deploy) -> None:
    served = deploy(MINE, admin_token="the-token")
    app = create_app(served)
    waits, released = threading.Event(), threading.Event()

    def hang_at_files(
        environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ["PATH_INFO"].endswith(".whl"):
            waits.set()
            assert released.wait(20)
        return app(environ, start_response)

    listening, stop, ports = threading.Event(), Stop(), []

    def on_listening(addresses: list[str]) -> None:
        ports.append(int(addresses[0].rpartition(":")[2]))
        listening.set()

    def run() -> None:
        serve(
            hang_at_files,
            make_gate(served, FormLimits(max_file_bytes=0)),
            host="127.0.0.1",
            port=0,
            options={"threads": 1},
            on_listening=on_listening,
            stop=stop,
            apart=partial(_may_wait, served),
        )

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert listening.wait(10)
        held = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=20)
        held.request("GET", "/simple/demo/demo-1.0-py3-none-any.whl", headers=READER)
        assert waits.wait(10)
        asking = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=10)
        for path in ("/health", "/health/", "/health/ready", "/metrics"):
            asking.request("GET", path, headers=OPERATOR)
            answer = asking.getresponse()
            assert (path, answer.status) == (path, 200)
            answer.read()
    finally:
        released.set()
        stop.request()
        thread.join(20)
    assert not thread.is_alive()
