"""The log: one line for each event and each request, as text or JSON.

A line does not contain secrets: of a request it has the path without the query, and of the headers
only the user agent. Text that comes from clients (a path, a name, a user agent) is quoted, so it
cannot end a line or look like the beginning of one.

Lines of requests are written together by a thread, up to a tenth of a second later. So a program
that reads the log slowly does not slow down requests; when too many lines wait, new ones are lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import logging
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, Literal, TextIO

from private_pypi.web.serving import REQUEST_ID, Exchange

LogFormat = Literal["text", "json"]

LOGGER = "private_pypi.requests"
"""The name of the logger in lines of requests."""

_TOGETHER = 0.1  # seconds after which the lines of requests are written
_MOST_WAITING = 50_000  # lines of requests, about 20 MB
_LONGEST_PATH = 1000  # characters
_LONGEST_AGENT = 150  # characters; pip appends facts about the machine
_USERINFO = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@\"'<>]*@")
_QUERY = re.compile(r"\?[^\s\"']+")
# In quotes and in ASCII, so that no reader sees the end of a line in it.
_quoted = encode_basestring_ascii
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class Log:
    """Writes whole lines to one stream; thread-safe. A closed stream is not an error."""

    def __init__(
        self,
        stream: TextIO,
        form: LogFormat,
        *,
        worker: int | None = None,
        lock_path: Path | None = None,
    ) -> None:
        """`worker` is named in each line. All processes that write to the stream use `lock_path`.

        Without a lock, the lines of several processes could mix, because the system writes at once
        only what is shorter than 4096 bytes.
        """
        self.form: LogFormat = form
        self.worker = worker
        self._stream = stream
        self._lock = threading.Lock()  # so that lines do not mix
        self._shared_lock = None if lock_path is None else lock_path.open("ab")

    def install(self, *, debug: bool) -> None:
        """Write everything that this process logs with `logging`."""
        handler = _Handler(self)
        formatter = _JsonFormatter if self.form == "json" else _TextFormatter
        handler.setFormatter(formatter(self.worker))
        handler.addFilter(without_queries)
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(logging.DEBUG if debug else logging.INFO)
        logging.getLogger("filelock").setLevel(logging.INFO)  # not its four lines for every lock

    def write(self, lines: str) -> None:
        """Write lines, each of which ends with "\\n"."""
        with self._lock, contextlib.suppress(OSError, ValueError), self._turn():
            self._stream.write(lines)
            self._stream.flush()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Keep other processes from writing. The kernel ends this if the process is killed."""
        if self._shared_lock is None:
            yield
            return
        fcntl.flock(self._shared_lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._shared_lock, fcntl.LOCK_UN)


class RequestLog:
    """Writes a line for each request; `close` it at the end."""

    def __init__(self, log: Log) -> None:
        self._log = log
        if log.form == "json":
            more = "" if log.worker is None else f'"worker": {log.worker}, '
            self._format = partial(_json_request, more)
        else:
            self._format = partial(_text_request, LOGGER + _of_worker(log.worker))
        self._clock = _Clock(log.form)
        self._waiting: deque[str] = deque()
        self._some = threading.Event()
        self._ends = threading.Event()
        self._drop_lock = threading.Lock()  # guards dropped
        self.dropped = 0
        """How many lines were lost because too many waited."""
        self._thread = threading.Thread(target=self._run, name="request log", daemon=True)
        self._thread.start()

    def append(self, exchange: Exchange, route: str, repository: str) -> None:
        """Have a line written. Does not block."""
        if len(self._waiting) >= _MOST_WAITING:
            with self._drop_lock:
                self.dropped += 1
            return
        self._waiting.append(self._format(self._clock.now(), exchange, route, repository))
        if not self._some.is_set():
            self._some.set()

    def close(self) -> None:
        """Write the lines that wait, and end the thread."""
        self._ends.set()
        self._some.set()
        self._thread.join(2)  # not for ever, because writing blocks if nobody reads the stream

    def _run(self) -> None:
        while not self._ends.is_set():
            self._some.wait()
            self._ends.wait(_TOGETHER)
            self._some.clear()
            self._write_waiting()
        self._write_waiting()

    def _write_waiting(self) -> None:
        self._log.write("".join(self._waiting.popleft() for _ in range(len(self._waiting))))


class _Clock:
    """The time for lines. It is formatted once in a millisecond, most of it once in a second."""

    def __init__(self, form: LogFormat) -> None:
        self._is_json = form == "json"
        self._second = (0, "")
        self._last = (0, "")

    def now(self) -> str:
        milliseconds = int(time.time() * 1000)
        last, text = self._last
        if last != milliseconds:
            text = self._format(milliseconds)
            self._last = (milliseconds, text)
        return text

    def _format(self, milliseconds: int) -> str:
        whole, rest = divmod(milliseconds, 1000)
        second, text = self._second
        if second != whole:
            if self._is_json:
                text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(whole))
            else:
                text = time.strftime("%Y-%m-%d %H:%M:%S,", time.localtime(whole))
            self._second = (whole, text)  # in one assignment, because several threads do this
        return f"{text}{rest:03d}"


def _of_worker(worker: int | None) -> str:
    """What follows the name of the logger in a line of text."""
    return "" if worker is None else f"[{worker}]"


def _text_request(source: str, now: str, exchange: Exchange, route: str, repository: str) -> str:
    method, path, address, agent = _facts(exchange.environ)
    return (
        f"{now} INFO {source}: {address} {repository or '-'} {_quoted(f'{method} {path}')} "
        f"{exchange.status} {exchange.sent} B {exchange.seconds * 1000:.2f} ms "
        f"{_short_agent(agent)} "
        f"{exchange.request_id}\n"
    )


def _json_request(more: str, now: str, exchange: Exchange, route: str, repository: str) -> str:
    method, path, address, agent = _facts(exchange.environ)
    return (
        f'{{"time": "{now}Z", "level": "info", "logger": "{LOGGER}", {more}"message": "request", '
        f'"request_id": "{exchange.request_id}", "method": {_quoted(method)}, '
        f'"path": {_quoted(path)}, "route": {_quoted(route)}, "status": {exchange.status}, '
        f'"bytes": {exchange.sent}, "seconds": {exchange.seconds:.6f}, '
        f'"repository": {_quoted(repository) if repository else "null"}, '
        f'"address": {_quoted(address)}, "user_agent": {_quoted_agent(agent)}}}\n'
    )


def _facts(environ: Mapping[str, Any] | None) -> tuple[str, str, str, str]:
    """The method, the path, the client's address and its user agent."""
    if environ is None:
        return "-", "-", "-", ""
    path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    if not path.isascii():  # in WSGI, each byte of it is a character of latin-1
        path = path.encode("latin-1", "replace").decode("utf-8", "replace")
    return (
        environ["REQUEST_METHOD"],
        path if len(path) <= _LONGEST_PATH else path[:_LONGEST_PATH] + "…",
        environ["REMOTE_ADDR"],
        # Cut off, because it may have 256 KiB, and the functions below cache it.
        environ.get("HTTP_USER_AGENT", "")[: _LONGEST_AGENT + 1],
    )


@functools.lru_cache(maxsize=256)  # because most requests have one of a few agents
def _short_agent(agent: str) -> str:
    """The agent without the JSON object about the machine that pip and uv append to it."""
    return _quoted_agent(agent.partition(" {")[0])


@functools.lru_cache(maxsize=256)
def _quoted_agent(agent: str) -> str:
    return _quoted(agent if len(agent) <= _LONGEST_AGENT else agent[:_LONGEST_AGENT] + "…")


# -- events --------------------------------------------------------------------------------------


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            self._log.write(line + "\n")


def without_queries(record: logging.LogRecord) -> bool:
    """Hide queries in the lines that urllib3 logs for debugging: some addresses are signed."""
    if record.name.startswith("urllib3"):
        record.msg, record.args = _QUERY.sub("?…", record.getMessage()), ()
    return True


class _TextFormatter(logging.Formatter):
    """Formats as text. Further lines of a message or a traceback are indented."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__(f"%(asctime)s %(levelname)s %(name)s{_of_worker(worker)}: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        text = clean(super().format(record)).replace("\n", "\n    ")
        request_id = _request_id()
        return f"{text} [{request_id}]" if request_id and "\n" not in text else text


class _JsonFormatter(logging.Formatter):
    """Formats as a JSON object, to which `extra={"fields": {…}}` of a record adds members."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        message, facts = describe(record)
        line: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._worker,
            "message": message,
        }
        line.update(facts)
        return json.dumps(line)


def describe(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    """The message of a record, and what else is known: the request, the exception, its fields."""
    facts: dict[str, object] = {}
    request_id = _request_id()
    if request_id:
        facts["request_id"] = request_id
    if record.exc_info:
        facts["exception"] = clean(logging.Formatter().formatException(record.exc_info))
    facts.update(getattr(record, "fields", {}))
    return clean(record.getMessage()), facts


def clean(text: str) -> str:
    """Hide the passwords of addresses, and escape control characters except for line ends."""
    text = _USERINFO.sub(r"\1…@", text)
    return _CONTROL.sub(lambda found: _quoted(found[0])[1:-1], text)


def _request_id() -> str:
    if "flask" not in sys.modules:  # then no request has got as far as there yet
        return ""
    from flask import has_request_context, request

    return str(request.environ.get(REQUEST_ID, "")) if has_request_context() else ""
