"""`/health/` and `/health/ready`: what strangers, users of a repository and operators see."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
from flask.testing import FlaskClient

from private_pypi.index.synchronizing import Synchronizer
from private_pypi.web import _kind_of, create_app
from private_pypi.web.api.legacy import make_gate
from private_pypi.web.serving import Stop, serve
from tests.waiting import eventually
from tests.web.conftest import MINE, OTHER, READER, Deploy, basic

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
            "mine": {"ready": True, "synchronized_at": at, "error": None, "stale": False},
            "hub": {"ready": False, "synchronized_at": None, "error": WHY, "stale": False},
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


def test_a_server_that_was_told_to_stop_is_not_ready(deploy: Deploy) -> None:
    """A load balancer leaves it, while it still answers everything else."""
    stop = Stop()
    client = create_app(deploy(MINE), stop=stop).test_client()
    assert client.get("/health/ready").status_code == 200
    stop.request()
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.text) == (503, "stopping\n")
    assert client.get("/health/").status_code == 200
    assert client.get("/r/mine/simple/", headers=READER).status_code == 200


def test_a_server_that_was_away_is_ready_when_it_has_looked_at_the_storage(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its local index may lack what other servers published meanwhile."""
    before = deploy(MINE)
    (repository,) = before.repositories
    with repository.index.writing() as connection:
        connection.execute("UPDATE state SET listed_at = ?", (time.time() - 4000,))
    before.close()
    go_on = threading.Event()
    turn = Synchronizer._turn

    def late(self: Synchronizer, started_at: float | None) -> float:
        assert go_on.wait(30)
        return turn(self, started_at)

    monkeypatch.setattr(Synchronizer, "_turn", late)
    client = create_app(deploy(MINE, admin_token="the-token")).test_client()
    answer = client.get("/health/ready", headers=OPERATOR)
    assert answer.status_code == 503
    assert answer.text.endswith("not yet synchronised since the server was started\n")
    assert client.get("/r/mine/simple/", headers=READER).status_code == 200
    go_on.set()
    eventually(lambda: client.get("/health/ready").status_code == 200, "it has looked")


def test_a_repository_that_is_looked_up_is_always_ready(deploy: Deploy) -> None:
    config = '[hub]\ntype = "github_projects"\nany_owner = true\n'
    client = create_app(deploy(config, admin_token="the-token")).test_client()
    answer = client.get("/health/ready", headers=OPERATOR | JSON)
    state = {"ready": True, "synchronized_at": None, "error": None, "stale": False}
    assert (answer.status_code, answer.json) == (
        200,
        {"status": "ready", "repositories": {"hub": state}},
    )
    told = client.get("/metrics", headers=OPERATOR)
    assert told.status_code == 200
    assert 'private_pypi_repository_ready{repository="hub"} 1.0' in told.text
    assert "private_pypi_synchronizations_total{" not in told.text


def test_a_repository_that_is_not_up_to_date_is_ready_and_stale(deploy: Deploy) -> None:
    served = deploy(MINE, admin_token="the-token")
    client = create_app(served).test_client()
    (repository,) = served.repositories
    repository.close()  # nobody synchronises any more
    with repository.index.writing() as connection:
        connection.execute("UPDATE state SET listed_at = ?", (time.time() - 4000,))
    answer = client.get("/health/ready", headers=OPERATOR | JSON)
    assert answer.json is not None
    at = answer.json["repositories"]["mine"]["synchronized_at"]
    assert (answer.status_code, answer.json) == (
        200,
        {
            "status": "ready",
            "repositories": {
                "mine": {"ready": True, "synchronized_at": at, "error": None, "stale": True}
            },
        },
    )
    plain = client.get("/health/ready", headers=OPERATOR).text
    assert re.sub("40[0-9]{2} seconds", "some time", plain) == (
        f"ready\nmine: ready, synchronised at {at}, stale: names that it does not have are "
        "answered with 503, repository 'mine' was last synchronised some time ago, which is too "
        "long to say what is not there (sync_index_interval is 3600 seconds)\n"
    )
    told = client.get("/metrics", headers=OPERATOR).text
    assert 'private_pypi_repository_stale{repository="mine"} 1.0' in told
    assert 'private_pypi_repository_failing{repository="mine"} 0.0' in told


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
            make_gate(served),
            host="127.0.0.1",
            port=0,
            options={"threads": 1},
            on_listening=on_listening,
            stop=stop,
            kind_of=partial(_kind_of, served),
        )

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert listening.wait(20)
        held = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=20)
        held.request("GET", "/simple/demo/demo-1.0-py3-none-any.whl", headers=READER)
        assert waits.wait(20)
        asking = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=20)
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
