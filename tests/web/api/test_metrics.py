"""`/metrics`: who may read it, that its values are right, and that Prometheus can read it."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from private_pypi.testing.distributions import make_wheel
from private_pypi.web import create_app
from private_pypi.web.deployment import Deployment
from private_pypi.web.operations.request_statistics import BUCKETS
from tests.faults.servers import Server, basic, servers_below
from tests.github.fake import FakeGitHub
from tests.machine import need
from tests.waiting import eventually
from tests.web.conftest import MINE, OTHER, READER, WRITER, Deploy, publish
from tests.web.conftest import basic as basic_header

ROOT = Path(__file__).parents[3]
DEMO, CONTENT = make_wheel("demo", "1.0")
TOKEN = {"Authorization": "Bearer the-token"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Name and labels -> value."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"private_pypi_{name}", frozenset(labels.items())))


# -- who may -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
def test_the_token_opens_them(deploy: Deploy, path: str) -> None:
    client = create_app(deploy(MINE, admin_token="the-token")).test_client()
    for headers in (TOKEN, basic_header("prometheus", "the-token")):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 200
        assert answer.content_type.startswith("text/plain; version=")
        assert answer.headers["Cache-Control"] == "no-store"
    openmetrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = client.get(path, headers=TOKEN | openmetrics)
    assert answer.content_type.startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_nobody_else_reads_them_wherever_he_is(deploy: Deploy) -> None:
    client = create_app(deploy(MINE, admin_token="the-token")).test_client()
    for headers in ({}, READER, WRITER, {"Authorization": "Bearer wrong"}):
        answer = client.get("/metrics", headers=headers)
        assert answer.status_code == 401
        assert "WWW-Authenticate" in answer.headers
        assert "private_pypi_" not in answer.text


def test_without_a_token_nobody_reads_them_and_the_answer_says_what_to_do(deploy: Deploy) -> None:
    client = create_app(deploy(MINE)).test_client()
    answer = client.get("/metrics", headers={"Authorization": "Bearer "})
    assert answer.status_code == 403
    assert "--metrics_token_env" in answer.text


# -- what they say -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that the tests of this module share, so they compare values before and after."""
    folder = tmp_path_factory.mktemp("metrics")
    flags = ("--extra_index_url=", "--metrics_token_env", "TOKEN", "--request_log=false")
    with servers_below(folder) as servers:
        yield servers.start(folder / "root", flags=flags, environ={"TOKEN": "the-token"})


def ask(server: Server, method: str, path: str, secret: str = "r", user: str = "mine") -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path, headers={"Authorization": basic(user, secret)})
    answer = connection.getresponse()
    return answer.read().decode("latin-1")


def metrics(server: Server) -> Samples:
    return samples(ask(server, "GET", "/metrics", "the-token"))


def grown(before: Samples, after: Samples, *prefixes: str) -> dict[str, float]:
    """The samples that have changed."""
    names = tuple(f"private_pypi_{prefix}" for prefix in prefixes)
    found = {}
    for (name, labels), now in after.items():
        difference = now - before.get((name, labels), 0)
        if name.startswith(names) and difference:
            inner = ",".join(f'{key}="{text}"' for key, text in sorted(labels))
            found[f"{name.removeprefix('private_pypi_')}{{{inner}}}"] = difference
    return found


@pytest.mark.needs("a server in a process of its own")
def test_requests_are_counted_by_method_route_and_status(server: Server) -> None:
    server.publish(*make_wheel("counted", "1.0"))
    metrics(server)  # a line that is there before: that of these questions themselves
    before = metrics(server)
    page = "/r/mine/simple/counted/"
    size = len(ask(server, "GET", page))
    for _ in range(3):  # the second and later ones are answered in the loop
        ask(server, "GET", page)
    ask(server, "GET", "/simple/counted/", "wrong")
    ask(server, "GET", "/simple/unknown/")
    ask(server, "BREW", "/r/mine/nowhere")
    server.put(*make_wheel("counted", "2.0"), auth=("mine", "wrong"))

    def told() -> dict[str, float]:
        found = grown(before, metrics(server), "http_requests_total", "http_response_bytes")
        return {name: count for name, count in found.items() if "/metrics" not in name}

    eventually(lambda: len(told()) >= 10, "the requests are counted")
    found = told()
    counted = {name: count for name, count in found.items() if name.startswith("http_requests")}
    assert counted == {
        'http_requests_total{method="GET",route="/simple/<name>/",status="200"}': 4,
        'http_requests_total{method="GET",route="/simple/<name>/",status="401"}': 1,
        'http_requests_total{method="GET",route="/simple/<name>/",status="404"}': 1,
        'http_requests_total{method="(other)",route="(none)",status="404"}': 1,
        'http_requests_total{method="POST",route="/",status="401"}': 1,
    }
    sent = 'http_response_bytes_total{method="GET",route="/simple/<name>/",status="200"}'
    assert found[sent] == 4 * size


@pytest.mark.needs("a server in a process of its own")
def test_latencies_add_up(server: Server) -> None:
    labels = {"method": "GET", "route": "/health/", "status": "200"}
    ask(server, "GET", "/health/")
    name = "http_request_duration_seconds"
    eventually(lambda: value(metrics(server), f"{name}_count", **labels), "the count")
    found = metrics(server)
    bounds = [*map(str, BUCKETS), "+Inf"]
    buckets = [value(found, f"{name}_bucket", le=bound, **labels) for bound in bounds]
    assert None not in buckets
    assert buckets == sorted(buckets, key=lambda count: count or 0)
    assert buckets[-1] == value(found, f"{name}_count", **labels)
    assert buckets[-1] == value(found, "http_requests_total", **labels)
    total = value(found, f"{name}_sum", **labels)
    assert total is not None
    assert 0 < total < 60


@pytest.mark.needs("a server in a process of its own")
def test_what_clients_choose_makes_no_series(server: Server) -> None:
    for path in ("/nowhere", "/simple/a/", "/r/mine/simple/a/a-1.0.tar.gz", "/r/x/simple/a/"):
        ask(server, "GET", path)
    eventually(
        lambda: value(
            metrics(server), "http_requests_total", method="GET", route="(none)", status="404"
        ),
        "the first ones are counted",
    )
    before = metrics(server)
    for number in range(30):
        ask(server, "GET", f"/nowhere{number}")
        ask(server, "GET", f"/simple/project{number}/", user=f"user{number}")
        ask(server, "GET", f"/r/repository{number}/simple/a/")
        ask(server, "GET", f"/simple/a/a-{number}.tar.gz")
        ask(server, f"VERB{number}", "/")
    after = metrics(server)
    new = {
        (name, labels)
        for name, labels in after.keys() - before.keys()
        if dict(labels).get("method") != "(other)" and dict(labels).get("status") != "401"
    }
    assert new == set()
    text = ask(server, "GET", "/metrics", "the-token")
    for chosen in ("project", "user", "repository1", "VERB", "nowhere", "a-1"):
        assert not re.search(rf'="[^"]*{chosen}', text), chosen


@pytest.mark.needs("a server in a process of its own")
def test_uploads_and_other_changes_are_counted_by_outcome(server: Server) -> None:
    filename, content = make_wheel("changed", "1.0")
    before = metrics(server)
    for _ in range(2):
        server.publish(filename, content)
    other = make_wheel("changed", "1.0", files={"changed.py": b"other"})[1]
    assert server.put(filename, other).status_code == 409
    assert server.put(filename, content, auth=("mine", "wrong")).status_code == 401
    server.change("POST", f"changed/{filename}/yank", reason="broken")
    server.change("DELETE", f"changed/{filename}/yank")
    server.change("DELETE", f"changed/{filename}")
    prefixes = ("changes_total", "published_bytes", "audit_failures")
    assert grown(before, metrics(server), *prefixes) == {
        'changes_total{action="publish",outcome="done",repository="mine"}': 2,
        'changes_total{action="publish",outcome="refused",repository="mine"}': 1,
        'changes_total{action="publish",outcome="refused",repository=""}': 1,
        'changes_total{action="yank",outcome="done",repository="mine"}': 1,
        'changes_total{action="unyank",outcome="done",repository="mine"}': 1,
        'changes_total{action="delete",outcome="done",repository="mine"}': 1,
        'published_bytes_total{repository="mine"}': len(content),
    }


@pytest.mark.needs("a server in a process of its own")
def test_pages_that_were_rendered_already_are_hits(server: Server) -> None:
    server.publish(*make_wheel("rendered", "1.0"))
    before = metrics(server)
    for _ in range(3):
        ask(server, "GET", "/simple/rendered/")
    found = grown(before, metrics(server), "page_cache_")
    size = found.pop("page_cache_bytes{}")
    assert 500 < size < 5000
    assert found == {"page_cache_hits_total{}": 2, "page_cache_misses_total{}": 1}


def test_the_state_of_each_repository(deploy: Deploy) -> None:
    without_secret = '[hub]\ntype = "github"\nowner = "acme"\nrepo = "pkgs"\n'
    served = deploy(MINE + OTHER + without_secret, admin_token="the-token")
    repositories = {repository.name: repository for repository in served.repositories}
    repositories["other"].index.note_error("the storage is away")
    found = samples(create_app(served).test_client().get("/metrics", headers=TOKEN).text)
    told = {
        name: tuple(
            value(found, f"repository_{what}", repository=name) for what in ("ready", "failing")
        )
        for name in repositories
    }
    assert told == {"mine": (1, 0), "other": (1, 1), "hub": (0, 1)}
    synced = value(found, "repository_synchronized_timestamp_seconds", repository="mine")
    assert synced == repositories["mine"].index.sync_state().synced_at
    done = value(found, "synchronizations_total", repository="mine", outcome="done")
    assert done == value(found, "synchronization_duration_seconds_count", repository="mine")
    assert done == 1


# -- a storage with a provider -------------------------------------------------------------------


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with FakeGitHub() as github:
        github.make_repo("acme", "pkgs", private=True)
        yield github


@pytest.fixture
def on_github(github: FakeGitHub, deploy: Deploy) -> Deployment:
    """A server of a repository on GitHub, that has synchronised."""
    config = (
        '[acme]\ntype = "github"\nowner = "acme"\nrepo = "pkgs"\n'
        f'api_url = "{github.api_url}"\nsync_index_interval = 3600\n'
    )
    token = github.make_token("robot", {"acme/pkgs": "write"})
    admin = f'[acme]\ntype = "github"\nraw = "{token}"\n'
    served = deploy(config, admin, admin_token="the-token")
    (repository,) = served.repositories
    assert repository.wait_until_ready(20)
    return served


def test_the_provider_and_the_cache(on_github: Deployment) -> None:
    client = create_app(on_github).test_client()

    def told() -> Samples:
        return samples(client.get("/metrics", headers=TOKEN).text)

    (repository,) = on_github.repositories
    assert repository.settings.admin_secret is not None
    own = basic_header("acme", repository.settings.admin_secret.reveal())
    assert publish(client, DEMO, CONTENT, headers=own).status_code == 200
    before = told()
    assert client.get(f"/simple/demo/{DEMO}", headers=own).data == CONTENT
    # It is kept after it was sent.
    eventually(lambda: value(told(), "cache_bytes", repository="acme", cache="files"), "kept")
    for _ in range(2):  # the first time from the disk, and then from memory
        assert client.get(f"/simple/demo/{DEMO}", headers=own).data == CONTENT
    after = told()
    limit = {"repository": "acme", "resource": "core"}
    allowed = value(after, "provider_limit", **limit)
    left = [value(found, "provider_limit_remaining", **limit) for found in (before, after)]
    assert None not in left
    assert allowed is not None
    assert allowed > (left[0] or 0) > (left[1] or 0)
    resets = value(after, "provider_limit_resets_timestamp_seconds", **limit)
    assert resets is not None
    found = grown(before, after, "provider_requests_total", "cache_hits", "cache_misses")
    asked = {name: count for name, count in found.items() if name.startswith("provider")}
    assert asked == {
        # The address of the content, and the content.
        'provider_requests_total{repository="acme",status="3xx"}': 1,
        'provider_requests_total{repository="acme",status="2xx"}': 1,
    }
    assert found['cache_hits_total{cache="files",repository="acme"}'] == 1
    assert found['cache_misses_total{cache="files",repository="acme"}'] == 1
    assert value(after, "cache_bytes", repository="acme", cache="files") == len(CONTENT)


# -- Prometheus ----------------------------------------------------------------------------------


@pytest.mark.needs("promtool")
def test_promtool_has_nothing_to_say(server: Server, on_github: Deployment, tmp_path: Path) -> None:
    promtool = need("promtool")
    texts = [
        ask(server, "GET", "/metrics", "the-token"),
        create_app(on_github).test_client().get("/metrics", headers=TOKEN).text,
    ]
    for text in texts:
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.needs("prometheus")
def test_prometheus_scrapes_them(server: Server, tmp_path: Path) -> None:
    prometheus = need("prometheus")
    (tmp_path / "token").write_text("the-token")
    documented = re.search(
        r"```yaml\n(scrape_configs:.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL
    )
    assert documented is not None
    config = documented[1].replace("pypi.example.com", f"127.0.0.1:{server.port}")
    config = config.replace("/etc/prometheus/private_pypi.token", str(tmp_path / "token"))
    config = config.replace("scheme: https", "scheme: http")
    (tmp_path / "prometheus.yml").write_text(f"global:\n  scrape_interval: 1s\n{config}")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                prometheus,
                f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/data",
                "--web.listen-address=127.0.0.1:0",
                "--log.level=info",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        listening = re.compile(r'msg="Listening on" address=127\.0\.0\.1:(\d+)')
        eventually(
            lambda: listening.search((tmp_path / "log").read_text()),
            "Prometheus listens",
            within=60,
        )
        found = listening.search((tmp_path / "log").read_text())
        assert found is not None
        url = f"http://127.0.0.1:{found[1]}/api/v1/query?query=private_pypi_repository_ready"

        def result() -> list[dict[str, object]]:
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    result: list[dict[str, object]] = json.load(answer)["data"]["result"]
            except OSError:
                return []
            return result

        eventually(result, "Prometheus has scraped", within=60)
        (only,) = result()
        assert only["metric"] == {
            "__name__": "private_pypi_repository_ready",
            "instance": f"127.0.0.1:{server.port}",
            "job": "private_pypi",
            "repository": "mine",
        }
        (_, told) = only["value"]  # type: ignore[misc]
        assert told == "1"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.needs("a server in a process of its own")
def test_every_metric_is_documented_and_every_documented_one_is_there(
    server: Server, on_github: Deployment
) -> None:
    client = create_app(on_github).test_client()
    (repository,) = on_github.repositories
    assert repository.settings.admin_secret is not None
    own = basic_header("acme", repository.settings.admin_secret.reveal())
    publish(client, DEMO, CONTENT, headers=own)
    client.get(f"/simple/demo/{DEMO}", headers=own)
    # The size of the cache is known once the file has arrived.
    eventually(lambda: repository.opener.files.size is not None, "the file is kept")
    there: dict[str, tuple[str, tuple[str, ...]]] = {}
    for text in (
        ask(server, "GET", "/metrics", "the-token"),
        client.get("/metrics", headers=TOKEN).text,
    ):
        for family in text_string_to_metric_families(text):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {
                label
                for sample in family.samples
                for label in sample.labels
                if label not in ("le", "quantile")
            }
            _, before = there.get(name, ("", ()))
            there[name] = (family.type, tuple(sorted(labels.union(before))))
    table = (ROOT / "docs/operations.md").read_text()
    documented = {
        name: (kind, tuple(sorted(re.findall(r"`(\w+)`", labels))))
        for names, kind, labels in re.findall(
            r"(?m)^\| (`(?:private_pypi|process)_[^|]+) \| (\w+) \| ([^|]*) \|", table
        )
        for name in re.findall(r"`(\w+)`", names)
    }
    assert documented == there
