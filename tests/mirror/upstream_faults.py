"""What can be wrong with an answer of the upstream of the tests, by name.

The names say what a client sees. Some answers are wrong for one kind of request only: a file may
have any content type, and a distribution file may be anywhere, but an index page may not. A body is
never compressed by a fault that is not about that, so that clients see just what the name says; an
ETag stays, so that a client which keeps it although the page was bad is told "not modified" later.
"""

from __future__ import annotations

import gzip
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

from private_pypi.testing.distributions import make_wheel
from tests.mirror.upstream import KINDS, Exchange, Kind, Project, Published, Reply

_PAGES: tuple[Kind, ...] = ("page", "list")
_LOGIN_PAGE = b"""<!DOCTYPE html><html><head><title>Sign in</title></head><body>
<form action="/login" method="post"><input name="user"><input name="password" type="password">
<a href="/forgotten">Forgot your password?</a></form></body></html>"""


class Fault(ABC):
    """A way to answer a request wrongly."""

    kinds: tuple[Kind, ...] = KINDS  # the requests for which there is this way

    @abstractmethod
    def answer(self, exchange: Exchange) -> None:
        """Answer wrongly, or not at all."""


class Refused(Fault):
    """Nobody listens. `Upstream.fail` sees to that itself, before there is a request."""

    def answer(self, exchange: Exchange) -> None:
        raise AssertionError("a connection that is refused has no requests")


class Broken(Fault):
    """Something that is not an answer, and then the end of the connection."""

    def __init__(self, do: Callable[[Exchange], object]) -> None:
        self._do = do

    def answer(self, exchange: Exchange) -> None:
        self._do(exchange)
        exchange.close()


class Instead(Fault):
    """Always the same answer, whatever was asked."""

    def __init__(self, status: int, body: bytes = b"", **headers: str) -> None:
        self._reply = Reply(status=status, body=body).plus(**headers)

    def answer(self, exchange: Exchange) -> None:
        exchange.send(self._reply)


class Changed(Fault):
    """The right answer, not compressed, and then changed."""

    def __init__(
        self, change: Callable[[Reply, Exchange], Reply], *, kinds: tuple[Kind, ...] = KINDS
    ) -> None:
        self._change = change
        self.kinds = kinds

    def answer(self, exchange: Exchange) -> None:
        exchange.send(self._change(_plain(exchange.whole()), exchange))


class Longer(Fault):
    """More than Content-Length announces: an answer to a request that nobody has sent."""

    def answer(self, exchange: Exchange) -> None:
        exchange.send(_plain(exchange.whole()))
        exchange.write_body(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmore")


class CutInChunk(Fault):
    """The connection ends in the middle of a chunk."""

    def answer(self, exchange: Exchange) -> None:
        reply = _plain(exchange.whole())
        exchange.send(replace(reply, body=b"", is_chunked=True, is_cut=True))
        exchange.write_body(b"%x\r\n%s" % (len(reply.body), _half(reply.body)))


class Endless(Fault):
    """A body in chunks that never ends, until the client or the test leaves."""

    def answer(self, exchange: Exchange) -> None:
        reply = _plain(exchange.whole())
        exchange.send(replace(reply, is_chunked=True, is_cut=True))
        while not exchange.ended.is_set() and exchange.asked.method != "HEAD":
            exchange.write_body(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


class SlowHead(Fault):
    """One byte of the head per second: a limit for the wait between two bytes does not end it."""

    def answer(self, exchange: Exchange) -> None:
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Patience: needed\r\n" * 1000:
            if exchange.ended.wait(1.0):
                break
            exchange.write(bytes([byte]))
        exchange.close()


class Elsewhere(Fault):
    """A redirect to the other origin, which has the right answer."""

    def answer(self, exchange: Exchange) -> None:
        upstream, asked = exchange.upstream, exchange.asked
        assert asked.kind is not None
        if asked.origin != upstream.origin_of(asked.kind):
            exchange.send(exchange.whole())
            return
        other = upstream.origin("index" if asked.origin == "files" else "files")
        exchange.send(Reply(status=302).plus(Location=f"{other}{asked.path}"))


def _plain(reply: Reply) -> Reply:
    """The same, not compressed."""
    headers = dict(reply.headers)
    is_compressed = headers.pop("Content-Encoding", None) is not None
    body = gzip.decompress(reply.body) if is_compressed else reply.body
    return replace(reply, headers=headers, body=body)


def _half(body: bytes) -> bytes:
    return body[: len(body) // 2]


def _cut(reply: Reply, _: Exchange) -> Reply:
    return replace(
        reply, body=_half(reply.body), length=len(reply.body), is_chunked=False, is_cut=True
    )


def _without_list(reply: Reply, _: Exchange) -> Reply:
    """Without the files of a project, or the projects; in HTML without any link."""
    if "json" not in reply.headers.get("Content-Type", ""):
        return replace(reply, body=b"<!DOCTYPE html>\n<html><body></body></html>\n")
    page = json.loads(reply.body)
    kept = {key: value for key, value in page.items() if key not in ("files", "projects")}
    return replace(reply, body=json.dumps(kept).encode())


def _of_another(reply: Reply, exchange: Exchange) -> Reply:
    """The page of another project, another file, or its metadata."""
    filename, content = make_wheel("demo-of-another", "1.0")
    if exchange.asked.kind == "metadata":
        body = b"Metadata-Version: 2.1\nName: demo-of-another\nVersion: 1.0\n"
        return replace(reply, body=body)
    if exchange.asked.kind == "file":
        return replace(reply, body=content)
    file = Published(filename=filename, content=content, hashes={}, size=len(content))
    project = Project(files={filename: file})
    return _plain(exchange.upstream.page_of(exchange.asked, "demo-of-another", project))


def _another_range(reply: Reply, exchange: Exchange) -> Reply:
    """As many bytes that begin one later, or one earlier at the end of the file; it says so."""
    if reply.status != 206:
        return reply
    numbers = reply.headers["Content-Range"].removeprefix("bytes ").replace("/", "-")
    begin, last, size = map(int, numbers.split("-"))
    content = exchange.whole_file()
    shift = 1 if last + 1 < size else -1
    begin, last = max(0, begin + shift), last + shift
    body = content[begin : last + 1]
    return replace(reply, body=body).plus(Content_Range=f"bytes {begin}-{last}/{size}")


def _whole_file(reply: Reply, exchange: Exchange) -> Reply:
    headers = {k: v for k, v in reply.headers.items() if k != "Content-Range"}
    return replace(reply, status=200, headers=headers, body=exchange.whole_file())


@cache
def _bomb() -> bytes:
    """A GiB of spaces as a MiB of gzip."""
    return gzip.compress(b" " * 2**24, 9, mtime=0) * 2**6


FAULTS: Mapping[str, Fault] = {
    # -- no answer
    "refused": Refused(),
    "closed before the status": Broken(Exchange.close),
    "reset before the status": Broken(Exchange.reset),
    "silent": Broken(lambda exchange: exchange.ended.wait()),
    "not HTTP": Broken(lambda exchange: exchange.write(b"SSH-2.0-OpenSSH_9.2\r\n")),
    "one byte of the head per second": SlowHead(),
    # -- a status
    "500": Instead(500, b"<h1>Internal Server Error</h1>", Content_Type="text/html"),
    "502": Instead(502, b"<h1>Bad Gateway</h1>", Content_Type="text/html"),
    "503 with Retry-After": Instead(503, b"later", Content_Type="text/plain", Retry_After="120"),
    "429": Instead(429, b"slower", Content_Type="text/plain", Retry_After="120"),
    "401": Instead(401, b"no", WWW_Authenticate='Basic realm="upstream"'),
    "403": Instead(403, b"<h1>Forbidden</h1>", Content_Type="text/html"),
    "404": Instead(404, b"<h1>Not Found</h1>", Content_Type="text/html"),
    "410": Instead(410, b"<h1>Gone</h1>", Content_Type="text/html"),
    "304 to any request": Instead(304),
    "204": Instead(204),
    # -- redirects
    "redirect loop": Changed(
        lambda _, exchange: Reply(status=302).plus(Location=exchange.asked.path)
    ),
    "redirect to another origin": Elsewhere(),
    "redirect to a file": Instead(302, Location="file:///etc/passwd"),
    "redirect to nowhere": Instead(302),
    # -- 200, with something else
    "wrong content type": Changed(lambda good, _: good.plus(Content_Type="application/json")),
    "no content type": Changed(
        lambda good, _: replace(
            good, headers={k: v for k, v in good.headers.items() if k != "Content-Type"}
        )
    ),
    "login page": Instead(200, _LOGIN_PAGE, Content_Type="text/html; charset=utf-8"),
    "empty": Changed(lambda good, _: replace(good, body=b"")),
    "wrong bytes": Changed(
        lambda good, _: replace(good, body=bytes(byte ^ 0x55 for byte in good.body))
    ),
    "half, announced as whole": Changed(lambda good, _: replace(good, body=_half(good.body))),
    "no list in it": Changed(_without_list, kinds=_PAGES),
    "of another project": Changed(_of_another, kinds=("page", "metadata", "file")),
    "another range": Changed(_another_range, kinds=("range",)),
    "the whole file instead of a range": Changed(_whole_file, kinds=("range",)),
    # -- 200, and a body that does not arrive
    "cut": Changed(_cut),
    "cut between chunks": Changed(
        lambda good, _: replace(good, body=_half(good.body), is_chunked=True, is_cut=True)
    ),
    "cut in a chunk": CutInChunk(),
    "one byte per second": Changed(lambda good, _: replace(good, pause=1.0)),
    "longer than announced": Longer(),
    "endless": Endless(),
    # -- compression and headers
    "gzip that is none": Changed(lambda good, _: good.plus(Content_Encoding="gzip")),
    "half of gzip": Changed(
        lambda good, _: replace(good, body=_half(gzip.compress(good.body))).plus(
            Content_Encoding="gzip"
        )
    ),
    "gzip of 1 GiB": Changed(
        lambda good, _: replace(good, body=_bomb()).plus(Content_Encoding="gzip")
    ),
    "a header of 1 MB": Changed(lambda good, _: good.plus(X_Large="x" * 10**6)),
    "headers of 1 MB": Changed(
        lambda good, _: good.plus(**{f"X_Large_{number}": "x" * 50_000 for number in range(20)})
    ),
}


def faults_of(kind: Kind) -> list[str]:
    """The names of all faults that a request of this kind can have."""
    return [name for name, fault in FAULTS.items() if kind in fault.kinds]
