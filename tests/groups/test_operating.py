"""A running server with a group and a mirror: changes of its configuration, and what is counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import requests

from private_pypi.testing.distributions import make_wheel
from tests.faults.servers import Server, Servers
from tests.mirror.upstream import Upstream, running
from tests.waiting import eventually
from tests.web.operations.test_telemetry import FLAGS, Collector, attributes, collector

__all__ = ["collector"]

pytestmark = pytest.mark.needs("a server in a process of its own")

READER = ("all", "r")


@dataclass(frozen=True)
class Tables:
    """The configuration, of which a test changes parts."""

    index_url: str
    members: tuple[str, ...] = ("mine", "pypi")
    claimed: tuple[str, ...] = ()
    policy: str = ""
    mix: tuple[str, ...] = ()

    def text(self) -> str:
        return f"""
[mine]
type = "file_system"
read_secret = "r"
write_secret = "w"
claimed = {list(self.claimed)}
[pypi]
type = "mirror"
index_url = "{self.index_url}"
read_secret = "r"
{self.policy}
[all]
type = "group"
members = {list(self.members)}
mix = {list(self.mix)}
"""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running() as upstream:
        for version in ("1.0", "2.0"):
            upstream.add(*make_wheel("public", version))
        upstream.add(*make_wheel("tool", "99.0"))
        upstream.add(*make_wheel("acme-web", "99.0"))
        yield upstream


def pages(server: Server) -> dict[str, list[str]]:
    """The versions on the pages of the group, as every client gets them; of the list, the names."""
    found = {}
    for project in ("tool", "public", "acme-web"):
        answer = server.get(f"/r/all/simple/{project}/", READER)
        assert answer.status_code in (200, 404), answer.text
        found[project] = answer.json()["versions"] if answer.status_code == 200 else []
        # A page in HTML, and one that is asked for again, are of the same configuration.
        html = server.get(f"/r/all/simple/{project}/", READER, headers={"Accept": "text/html"})
        assert re.findall(r">[a-z_]+-([0-9.]+)-py3", html.text) == found[project]
        etag = {"Accept": "text/html", "If-None-Match": html.headers.get("ETag", '"x"')}
        again = server.get(f"/r/all/simple/{project}/", READER, headers=etag)
        assert again.status_code == (304 if html.status_code == 200 else 404)
    listed = server.get("/r/all/simple/", READER)
    found["names"] = [each["name"] for each in listed.json()["projects"]]
    return found


def test_a_changed_configuration_counts_for_every_page(
    servers: Servers, upstream: Upstream, tmp_path: Path
) -> None:
    """No page that was rendered before is sent, also to clients that have it (ETag)."""
    tables = Tables(upstream.index_url)
    server = servers.start(tmp_path / "root", tables.text(), flags=["--extra_index_url="])
    server.publish(*make_wheel("tool", "1.0"))
    everything = ["acme-web", "public", "tool"]
    both, first, none = ["1.0", "2.0"], ["1.0"], list[str]()

    def shown(
        tool: list[str], public: list[str], acme: list[str], names: list[str]
    ) -> dict[str, list[str]]:
        return {"tool": tool, "public": public, "acme-web": acme, "names": names}

    known = shown(["1.0"], both, ["99.0"], everything)
    assert pages(server) == known
    etags = {
        path: server.get(path, READER).headers["ETag"]
        for path in ("/r/all/simple/", "/r/all/simple/tool/", "/r/all/simple/public/")
    }
    for changes, (changed, expected) in enumerate(
        (
            # A group loses a member, and gets it back.
            (replace(tables, members=("pypi",)), shown(["99.0"], both, ["99.0"], everything)),
            (tables, known),
            (replace(tables, members=("mine",)), shown(["1.0"], none, none, ["tool"])),
            # The policy of its mirror; what is denied as a whole stays in the list of upstream.
            (
                replace(tables, policy='deny = ["public==2.0"]'),
                shown(["1.0"], first, ["99.0"], everything),
            ),
            (
                replace(tables, policy='cooldown = "36500 days"'),
                shown(["1.0"], none, none, everything),
            ),
            (
                replace(tables, policy='except = ["public"]'),
                shown(["1.0"], none, ["99.0"], ["acme-web", "tool"]),
            ),
            # A claimed pattern.
            (replace(tables, claimed=("acme-*",)), shown(["1.0"], both, none, ["public", "tool"])),
            (replace(tables, mix=("tool",)), shown(["1.0", "99.0"], both, ["99.0"], everything)),
            (tables, known),
        ),
        1,
    ):
        (servers.folder / "config-0.toml").write_text(changed.text())
        eventually(
            lambda: (
                server.status("/r/all/simple/tool/", auth=READER)
                and server.log.count("is used from now on") == changes  # noqa: B023
            ),
            lambda: f"the change is used: {server.log}",
        )
        assert pages(server) == expected, changed
        if expected["tool"] == ["99.0"]:
            for path, etag in etags.items():
                answer = server.get(path, READER, headers={"If-None-Match": etag})
                # The page of the mirror alone is the same as it was in the group.
                assert answer.status_code == 200 or path == "/r/all/simple/public/", path


def test_requests_are_counted_for_the_group_and_files_for_the_mirror(
    servers: Servers, upstream: Upstream, collector: Collector, tmp_path: Path
) -> None:
    """`/metrics`, and what a collector gets."""
    server = servers.start(
        tmp_path / "root",
        Tables(upstream.index_url).text(),
        flags=FLAGS,
        environ={"TOKEN": "secret-of-metrics", "OTLP_ENDPOINT": collector.url},
    )
    server.publish(*make_wheel("tool", "1.0"))
    # The newest release: its core metadata are fetched ahead, and not once more.
    filename, content = make_wheel("public", "2.0")
    asked = [
        ("/simple/<name>/", "/simple/tool/"),
        ("/simple/<name>/", "/simple/public/"),
        ("/simple/<name>/<filename>", f"/simple/public/{filename}"),
        ("/simple/<name>/<filename>", f"/simple/public/{filename}"),
        ("/simple/<name>/<filename>", f"/simple/public/{filename}.metadata"),
        ("/explain/<name>", "/explain/public"),
    ]
    for _, path in asked:
        answer = server.get(f"/r/all{path}", READER)
        assert answer.status_code == 200, path
    upstream.fail("page", "500")
    assert server.status("/r/all/simple/nowhere/", auth=READER) in (502, 503)
    metrics = requests.get(
        f"{server.url}/metrics", auth=("", "secret-of-metrics"), timeout=20
    ).text.replace("private_pypi_", "")
    for line in (
        'provider_requests_total{repository="pypi",status="2xx"} 3.0',
        'provider_requests_total{repository="pypi",status="5xx"} 1.0',
        'cache_misses_total{cache="files",repository="pypi"} 1.0',
        'cache_hits_total{cache="files",repository="pypi"} 1.0',
        'cache_misses_total{cache="metadata",repository="pypi"} 1.0',
        f'cache_bytes{{cache="files",repository="pypi"}} {len(content)}.0',
        'repository_ready{repository="all"} 1.0',
        'repository_failing{repository="pypi"} 1.0',
        'repository_failing{repository="all"} 1.0',
        'repository_failing{repository="mine"} 0.0',
    ):
        assert line in metrics, f"{line} not in {metrics}"
    # A group has neither a cache nor a provider: those of its members are not counted twice.
    assert not re.search(r'(cache|provider)_\w+{[^}]*repository="all"', metrics)
    assert server.stop() == 0
    spans = [
        (found["http.route"], found["private_pypi.repository"])
        for span in collector.spans
        for found in [attributes(span)]
        if found.get("private_pypi.repository") not in (None, "", "mine")
    ]
    expected = [(route, "all") for route, _ in asked] + [("/simple/<name>/", "all")]
    assert sorted(spans) == sorted(expected)
    assert {
        attributes(point)["repository"]
        for point in collector.metrics["private_pypi_provider_requests_total"].sum.data_points
    } == {"pypi"}
