"""Mirrors that lead back to themselves: every request ends at once, and says why."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from private_pypi.backend.chains import LONGEST, new_pseudonym, parse_chain
from private_pypi.testing.distributions import make_wheel
from tests.faults.servers import Servers, servers_below, table
from tests.mirror.mirrors import Mirrored, forget_trouble, mirror_table
from tests.mirror.upstream import Upstream
from tests.mirror.upstream_faults import Instead
from tests.web.conftest import Deploy

WHEEL = make_wheel("demo", "1.0")
AT_ONCE = 14  # seconds; a request to an upstream that hangs takes at least 15


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with servers_below(tmp_path) as started:
        yield started


def group(*members: str, name: str = "all") -> str:
    return f'[{name}]\ntype = "group"\nmembers = {list(members)}\nanonymous_read = true\n\n'


def mirror(port: int, repository: str) -> str:
    url = f"http://127.0.0.1:{port}/r/{repository}/simple/"
    return mirror_table(url, anonymous_read=True)


@pytest.mark.needs("a server in a process of its own")
def test_a_mirror_whose_upstream_is_its_own_group(servers: Servers, tmp_path: Path) -> None:
    port = free_port()
    config = table(anonymous_read=True) + mirror(port, "all") + group("mine", "pypi")
    server = servers.start(tmp_path / "root", config, port=port)
    server.publish(*WHEEL)
    since = time.monotonic()
    for path in ("/r/all/simple/other/", "/r/pypi/simple/another/", "/r/all/simple/"):
        answer = server.get(path, None)
        assert answer.status_code == 502, answer.text
        assert "508 (Loop Detected)" in answer.text
        assert "the upstream asks this mirror" in answer.text
    assert server.status("/r/all/simple/demo/", auth=None) == 200
    assert time.monotonic() - since < AT_ONCE
    assert "mirror 'pypi' is asked by itself" in server.log


@pytest.mark.needs("a server in a process of its own")
def test_two_servers_that_mirror_each_other(servers: Servers, tmp_path: Path) -> None:
    one, two = free_port(), free_port()
    first = servers.start(tmp_path / "one", mirror(two, "pypi"), port=one)
    second = servers.start(tmp_path / "two", mirror(one, "pypi"), port=two)
    since = time.monotonic()
    for server, name in ((first, "a"), (second, "b")):
        answer = server.get(f"/r/pypi/simple/{name}/", None)
        assert answer.status_code == 502, answer.text
        assert "508 (Loop Detected)" in answer.text
    assert time.monotonic() - since < AT_ONCE


@pytest.mark.needs("a server in a process of its own")
def test_a_mirror_of_another_mirror_of_the_same_server_is_no_loop(
    servers: Servers, tmp_path: Path, index: Upstream
) -> None:
    index.add(*WHEEL)
    port = free_port()
    inner = mirror_table(index.index_url, anonymous_read=True).replace("[pypi]", "[inner]")
    server = servers.start(tmp_path / "root", mirror(port, "inner") + inner, port=port)
    assert server.status("/r/pypi/simple/demo/", auth=None) == 200
    assert server.status("/r/pypi/simple/missing/", auth=None) == 404
    # The upstream sees through which mirrors the request came, each with a name of its own.
    chains = {each.headers["cdn-loop"] for each in index.asked if each.kind == "page"}
    (chain,) = chains
    assert re.fullmatch(r"private-pypi-[0-9a-f]{32}, private-pypi-[0-9a-f]{32}", chain)
    assert len(set(parse_chain(chain))) == 2


def test_all_servers_of_one_root_have_the_same_name_in_chains(
    index: Upstream, deploy: Deploy, mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_trouble(monkeypatch)
    index.add(*WHEEL)
    first, second = mirrored(), mirrored()
    assert first.page().status_code == 200
    assert second.page("missing").status_code == 404
    chains = [each.headers["cdn-loop"] for each in index.asked]
    assert len(chains) == 2
    assert len(set(chains)) == 1
    # A request that came through this mirror asks the upstream for nothing, and gets what is known.
    index.forget()
    refused = second.page("another", CDN_Loop=f"cdn.example, {chains[0]}; loops=1")
    assert refused.status_code == 508
    assert second.get("simple/", CDN_Loop=chains[0]).status_code == 508
    assert first.page(CDN_Loop=chains[0]).status_code == 200
    assert index.asked == []


def test_a_chain_is_limited_and_others_are_not_passed_on(
    index: Upstream, mirrored: Mirrored
) -> None:
    index.add(*WHEEL)
    others = [new_pseudonym() for _ in range(LONGEST + 100)]
    assert len(parse_chain(",".join(others))) == LONGEST + 1
    asking = mirrored()
    assert asking.page("missing", CDN_Loop=", ".join(others)).status_code == 508
    assert asking.page("missing", CDN_Loop="x" * 100_000).status_code == 404
    assert asking.page(CDN_Loop=f"fastly, {others[0]}").status_code == 200
    *_, last = index.asked
    assert parse_chain(last.headers["cdn-loop"])[0] == others[0]
    assert "fastly" not in last.headers["cdn-loop"]
    assert "x" not in index.asked[0].headers["cdn-loop"]


def test_a_chain_that_somebody_made_up_is_no_trouble_of_others(
    index: Upstream, mirrored: Mirrored
) -> None:
    # A mirror upstream of this one says so when the chain is too long for it.
    looped = Instead(508, b"loop", Content_Type="text/plain")
    index.add(*WHEEL)
    asking = mirrored()
    made_up = ", ".join(new_pseudonym() for _ in range(LONGEST))
    index.fail("page", looped, times=1)
    assert asking.page(CDN_Loop=made_up).status_code == 508
    assert asking.page().status_code == 200
    index.fail("list", looped, times=1)
    assert asking.get("simple/", CDN_Loop=made_up).status_code == 508
    assert asking.get("simple/").status_code == 200


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", ()),
        ("private-pypi-" + "0" * 32, ("private-pypi-" + "0" * 32,)),
        ("private-pypi-" + "0" * 31, ()),
        ("private-pypi-" + "0" * 33, ()),
        ("x-private-pypi-" + "0" * 32, ()),
        ("a,private-pypi-" + "0" * 32 + ";b=1 , c", ("private-pypi-" + "0" * 32,)),
    ],
)
def test_what_is_read_of_a_chain(header: str, expected: tuple[str, ...]) -> None:
    assert parse_chain(header) == expected
