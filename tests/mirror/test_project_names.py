"""The list of projects, in JSON and HTML."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from typing import Any

import pytest

from private_pypi.errors import BackendError
from private_pypi_mirror.backend import MirrorStorage
from private_pypi_mirror.connection import Transfer
from tests.mirror.conftest import MakeMirror
from tests.mirror.serving import HTML, JSON, Reply, Upstream

META = {"api-version": "1.1"}


def in_json(*projects: Any, meta: Any = META) -> bytes:
    return json.dumps({"meta": meta, "projects": projects}).encode()


def names(upstream: Upstream, mirror: MirrorStorage, reply: Reply) -> list[str]:
    upstream.answers["/simple/"] = reply
    found = mirror.project_names("")
    assert found is not None
    return list(found.names)


def test_names_in_json(upstream: Upstream, mirror: MirrorStorage) -> None:
    body = in_json({"_last-serial": 5, "name": "Demo_One"}, {"name": "b.c", "tags": ["name"]})
    assert names(upstream, mirror, Reply(body)) == ["Demo_One", "b.c"]
    assert names(upstream, mirror, Reply(in_json())) == []
    last = json.dumps({"projects": [{"name": "x"}], "meta": META, "name": "y"}).encode()
    assert names(upstream, mirror, Reply(last)) == ["x"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (in_json({"name": "a"}, {"name": "b"})[:-1], "cut off"),
        (in_json({"name": "a"}, {"name": "b"})[:-14], "cut off"),
        (b"", "cut off"),
        (b"<html>", "not JSON"),
        (in_json({"name": "a"}) + b"{", "not JSON"),
        (b'{"meta": {"api-version": "1.0"}}', "no list 'projects'"),
        (b'{"meta": {"api-version": "1.0"}, "projects": {}}', "no list 'projects'"),
        (b'{"meta": {"api-version": "1.0"}, "x": {"projects": []}}', "no list 'projects'"),
        (b"[]", "api-version"),
        (in_json({"name": "a"}, meta={}), "api-version"),
        (in_json({"name": "a"}, meta={"api-version": "2.0"}), "api-version"),
        (in_json({"name": "a"}, {"nome": "b"}), "without a name"),
        (in_json({"name": "a"}, "b"), "without a name"),
        (in_json({"name": "a"}, None), "without a name"),
        (in_json({"name": 5}), "not text"),
        (in_json({"name": ["a"]}), "without a name"),
        (b"[" * 100_000, "too deeply"),
        (b'{"x": "' + b"x" * 2_000_000 + b'"}', "a value of more than"),
        (b'{"\xff": 1}', "not JSON"),
    ],
)
def test_other_json_is_trouble(
    upstream: Upstream, mirror: MirrorStorage, body: bytes, why: str
) -> None:
    with pytest.raises(BackendError, match=why):
        names(upstream, mirror, Reply(body))


def test_names_in_html(upstream: Upstream, mirror: MirrorStorage) -> None:
    body = f"""<!DOCTYPE html><html><head><title>Simple index</title></head><body>
        <a href="demo/">Demo</a><a href="/simple/b.c/">x</a><a href="{upstream.index_url}d_e">x</a>
        <a href="f/index.html">f</a><A HREF=' g/ '>g</A><a href="Zope%2Einterface/">z</a>
        <a href="../">up</a><a href="?C=N;O=D">order</a><a href="#top">top</a><a>none</a>
        <a href="/">root</a><a href="/other/h/">other</a><a href="https://acme.example/simple/i/">
        i</a><a href="demo-1.0.zip">file</a><a href="index.html">this</a><a href="a/b/">deep</a>
        <a href="mailto:a@b.example">mail</a><a href="robots.txt">robots</a><a href="-/">no</a>
        </body></html>"""
    found = names(upstream, mirror, Reply(body.encode(), HTML))
    assert found == ["demo", "b.c", "d_e", "f", "g", "Zope.interface"]


def test_names_are_relative_to_the_base(upstream: Upstream, mirror: MirrorStorage) -> None:
    body = b'<head><base href="/other/"></head><a href="a.b/">x</a><a href="/simple/c.d/">x</a>'
    assert names(upstream, mirror, Reply(body, HTML)) == ["a.b"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("<a href='demo/'>x</a><a href='demo2/'", "cut off"),
        ("<a href='demo/'>x</a><form>", "form"),
        ("<h1>Welcome</h1><a href='/'>x</a>", "not a page of an index"),
        ("<meta name='pypi:repository-version' content='2.0'><a href='demo/'>x</a>", "version"),
        ("<a href='https://[::1/'>x</a>", "not an address"),
        ("<h1>Simple index</h1><a href='/other/demo/'>x</a>", "none of the 1 links"),
        ("<h1>Index of /simple/</h1><a href='../'>../</a>", "none of the 1 links"),
    ],
)
def test_other_html_is_trouble(
    upstream: Upstream, mirror: MirrorStorage, body: str, why: str
) -> None:
    with pytest.raises(BackendError, match=why):
        names(upstream, mirror, Reply(body.encode(), HTML))


@pytest.mark.parametrize("type_", [JSON, HTML])
@pytest.mark.parametrize("chunks", [True, False])
def test_a_list_that_is_cut_off_raises_at_its_end(
    upstream: Upstream, mirror: MirrorStorage, type_: str, chunks: bool
) -> None:
    whole = [f"project-{number}" for number in range(20_000)]
    if type_ == JSON:
        body = in_json(*({"name": name} for name in whole))
    else:
        links = "".join(f'<a href="{name}/">{name}</a>\n' for name in whole)
        body = f"<html><h1>Simple index</h1>{links}</html>".encode()
    assert names(upstream, mirror, Reply(body, type_, chunks=chunks)) == whole
    upstream.answers["/simple/"] = Reply(body, type_, chunks=chunks, length=len(body) + 1)
    found = mirror.project_names("")
    assert found is not None
    got = []
    with pytest.raises(BackendError, match="did not arrive whole"):
        for name in found.names:
            got.append(name)
    assert got == whole[: len(got)]
    assert len(got) > 1000


@pytest.mark.parametrize("read", [0, 1])
def test_closing_a_list_ends_the_transfer(
    upstream: Upstream, mirror_of: MakeMirror, read: int
) -> None:
    body = in_json(*({"name": f"project-{number}"} for number in range(500_000)))
    upstream.answers["/simple/"] = Reply(body)
    mirror = mirror_of(upstream.index_url)
    found = mirror.project_names("")
    assert found is not None
    for _ in range(read):
        next(found.names)
    assert isinstance(found.names, Transfer)
    found.names.close()
    left = 0
    with pytest.raises(BackendError):
        for _ in found.names:
            left += 1
    assert left < 100_000  # what had arrived before


def test_a_long_list_needs_little_memory(upstream: Upstream, mirror: MirrorStorage) -> None:
    body = in_json(*({"_last-serial": n, "name": f"project-{n}"} for n in range(100_000)))
    upstream.answers["/simple/"] = Reply(body)
    found = mirror.project_names("")
    assert found is not None
    tracemalloc.start()
    with contextlib.ExitStack() as stack:
        stack.callback(tracemalloc.stop)
        assert sum(1 for _ in found.names) == 100_000
        _, peak = tracemalloc.get_traced_memory()
    assert peak < len(body) / 2
