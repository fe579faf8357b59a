"""Renders the description (README) of a project as safe HTML.

The text is rendered and sanitised by `readme_renderer`, as on the public index. Its output is then
adapted to our pages: images are replaced by links, because loading them would tell other servers
who reads the page; identifiers and classes cannot be confused with those of the page; headings
start below those of the page; and links do not send a referrer.

All this happens in a child process, `python -m private_pypi.pages.readme`. Some texts make a
regular expression of a highlighter or of docutils run for hours, which would block all threads.
A server starts a process for each description; who has thousands uses a `Renderer`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from html import escape
from html.parser import HTMLParser
from pathlib import Path

from private_pypi.distributions.descriptions import Description, safe_url
from private_pypi.errors import BackendError
from private_pypi.system.background import Background
from private_pypi.system.child_environment import child_environment

logger = logging.getLogger(__name__)

_SECONDS = 8.0  # time limit for a description, including the start of the process
_WAIT_SECONDS = 5.0  # how long a page waits for its description
_AT_A_TIME = 2  # child processes for all repositories; each repository has one at a time
_MEMORY = 1 << 29  # memory limit in bytes; real descriptions take less than half of it
_LARGEST = 4 * 2**20  # size limit of the HTML in bytes
_CACHE_BYTES = 16 * 2**20

_PREFIX = "user-content-"
_FIRST_HEADING = 3  # the page itself has headings of the two levels above
_DROPPED = {"script", "style"}  # these have been removed; if one is left, its text is not shown
_AS_DIV = {"section", "aside", "nav", "figure", "picture"}
_VOID = {"br", "hr", "col"}
_KEPT_ATTRIBUTES = {"title", "align", "colspan", "rowspan", "start"}
# The classes of Pygments, which are shorter than ours, and of the boxes of docutils and comrak.
_CLASS = re.compile(r"[a-z][a-z0-9]?|admonition|admonition-title|note|tip|warning|caution")


# An image as `_Adapter` writes it, alone or in a link, and several of them in a row. `_Adapter`
# escapes all text, so these patterns match only tags that it has written.
_IMAGE = (
    r"(?:<a [^>]*+>\s*+)?<(?:a|span)(?: [^>]*)? class=\"image\">[^<]*+</(?:a|span)>(?:\s*+</a>)?"
)
_BADGES = re.compile(rf"{_IMAGE}(?:(?:\s|<br>)*+{_IMAGE})++")


class Readmes:
    """Renders descriptions and caches the results. It can be used from several threads.

    Each repository gets one child process at a time, so that many descriptions of one repository do
    not delay the pages of the others for long.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, str] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()  # guards _kept, _bytes and _rendering
        self._rendering: dict[str, Background] = {}
        self._places = threading.BoundedSemaphore(_AT_A_TIME)

    def html(self, description: Description, repository: str) -> str:
        """The description as HTML; the unchanged text if it cannot be rendered in time.

        If rendering takes longer than the page can wait, it goes on, and the result will be there
        for the next request.
        """
        at_once = without_markup(description)
        if at_once is not None:
            return at_once
        key = hashlib.sha256(
            f"{description.content_type}\n{description.text}".encode(errors="replace")
        ).digest()
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
            rendering = self._rendering.get(repository)
            if rendering is None:
                name = f"descriptions of {repository!r}"
                rendering = self._rendering[repository] = Background(name, most=1)
        try:
            return rendering.result(
                key, partial(self._render, key, description), wait=_WAIT_SECONDS
            )
        except BackendError:  # it takes too long, another one does, or it failed
            return plain(description.text)

    def _render(self, key: bytes, description: Description) -> str:
        with self._places:
            html = _render_apart(description)
        if html is None:
            html = plain(description.text)
        with self._lock:
            self._bytes += len(html) - len(self._kept.pop(key, ""))
            self._kept[key] = html
            while self._bytes > _CACHE_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return html


class Renderer:
    """Renders one description after another in a child process, which starts at the first one.

    It is for one thread. A description that takes too long or too much memory ends the process,
    and the next one gets another.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def html(self, description: Description) -> str:
        """The description as HTML; the unchanged text if it cannot be rendered."""
        at_once = without_markup(description)
        if at_once is not None:
            return at_once
        asked = json.dumps([description.text, description.content_type]).encode() + b"\n"
        try:
            answer = self._ask(asked)
        except BrokenPipeError:  # the process was ended while nothing was asked
            self.close()
            answer = self._ask(asked)
        if not answer.endswith(b"\n"):
            logger.warning("a description was not rendered; its text is shown unchanged")
            self.close()
            return plain(description.text)
        html = json.loads(answer)
        return plain(description.text) if html is None else str(html)

    def start(self) -> None:
        """Start the process, without waiting for it, if it does not run."""
        if self._child is None:
            self._child = _start_child("several", str(_SECONDS))

    def _ask(self, asked: bytes) -> bytes:
        self.start()
        assert self._child is not None
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(asked)
        self._child.stdin.flush()
        return self._child.stdout.readline()

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with suppress(BrokenPipeError), child:  # closes the pipes, and waits
                pass


def without_markup(description: Description) -> str | None:
    """The HTML of a description that need not be rendered; None if it has to be."""
    if not description.text.strip():
        return ""
    if _media_type(description.content_type)[0] == "text/plain":
        return plain(description.text)
    return None


def plain(text: str) -> str:
    """HTML that shows a text unchanged."""
    return f'<pre class="plain" tabindex="0">{escape(text)}</pre>'


def render(text: str, content_type: str) -> str | None:
    """Render in this process, without a time limit; None if the markup is invalid or unknown."""
    from readme_renderer import markdown, rst

    kind, variant = _media_type(content_type)
    if kind == "text/markdown":
        rendered = markdown.render(text, variant=variant)
    elif kind in ("", "text/x-rst"):  # a text without a type is taken for reStructuredText
        rendered = rst.render(text)
    else:
        return None
    return None if rendered is None else adapt(rendered)


def adapt(html: str) -> str:
    """Adapt sanitised HTML to our pages, as described at the top of this module."""
    adapter = _Adapter()
    try:
        adapter.feed(html)
        adapter.close()
    except AssertionError:  # Python 3.11 raises it for an invalid declaration
        return plain(html)
    return _BADGES.sub(_in_one_line, adapter.html())


def _in_one_line(images: re.Match[str]) -> str:
    """Put images in a row, such as badges at the top, into one line that can be scrolled."""
    row = images[0].replace("<br>", " ")
    return f'<span class="badges" tabindex="0">{row}</span>'


def _media_type(content_type: str) -> tuple[str, str]:
    """The type without parameters, and the variant of Markdown."""
    kind, *parameters = (part.strip() for part in content_type.split(";"))
    variant = "GFM"
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "variant" and value.strip().lower() == "commonmark":
            variant = "CommonMark"
    return kind.lower(), variant


def _render_apart(description: Description) -> str | None:
    asked = json.dumps([description.text, description.content_type])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "private_pypi.pages.readme"],
            input=asked.encode(),
            capture_output=True,
            # The child imports private_pypi from the same place as this process.
            cwd=Path(__file__).parent.parent,
            env=child_environment(),
            timeout=_SECONDS,
            start_new_session=True,  # Ctrl-C in a terminal must not reach the child
        )
    except subprocess.TimeoutExpired:
        logger.warning("a description was not rendered within %.0f s", _SECONDS)
        return None
    if done.returncode != 0:
        said = done.stderr[-200:].decode(errors="replace").strip()
        logger.warning("a description was not rendered: %d, %s", done.returncode, said)
        return None
    answer = json.loads(done.stdout)
    return None if answer is None else str(answer)


def _start_child(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "private_pypi.pages.readme", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parent.parent,
        env=child_environment(),
        start_new_session=True,
    )


class _Adapter(HTMLParser):
    """Parses sanitised HTML, and writes what is allowed on our pages."""

    def __init__(self) -> None:
        from readme_renderer.clean import ALLOWED_TAGS

        super().__init__(convert_charrefs=True)
        self._allowed = ALLOWED_TAGS
        self._out: list[str] = []
        # For each open element: its tag in the input, its closing tag in the output, and the
        # position of its opening tag in `_out`.
        self._open: list[tuple[str, str, int]] = []
        self._links = 0  # the number of open links
        self._dropping = 0  # the number of open elements in `_DROPPED`
        self._level = _FIRST_HEADING - 1

    def html(self) -> str:
        """The output for everything that was fed to the parser."""
        return "".join(self._out) + "".join(closing for _, closing, _ in reversed(self._open))

    def handle_data(self, data: str) -> None:
        if not self._dropping:
            self._out.append(escape(data))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in _DROPPED:
            self._dropping += 1
        elif tag == "img":
            self._out.append(self._image(given))
        elif tag == "input":  # in a task list; a character is shown, because it cannot be changed
            if given.get("type") == "checkbox":
                self._out.append("☑" if "checked" in given else "☐")
        elif tag not in self._allowed:
            pass  # only its text is shown
        elif tag in _VOID:
            self._out.append(f"<{tag}>")
        else:
            opening, closing = self._element(tag, given)
            self._open.append((tag, closing, len(self._out)))
            self._out.append(opening)

    def handle_endtag(self, tag: str) -> None:
        if tag in _DROPPED:
            self._dropping = max(0, self._dropping - 1)
        if not any(name == tag for name, _, _ in self._open):
            return
        while self._open:
            name, closing, place = self._open.pop()
            self._links -= name == "a"
            if name == "a" and not "".join(self._out[place + 1 :]).strip():
                del self._out[place:]  # a link without text, such as an anchor next to a heading
            else:
                self._out.append(closing)
            if name == tag:
                return

    def _element(self, tag: str, given: dict[str, str]) -> tuple[str, str]:
        attributes = [(name, given[name]) for name in sorted(given.keys() & _KEPT_ATTRIBUTES)]
        if "id" in given:
            attributes.append(("id", _own(given["id"])))
        classes = [name for name in given.get("class", "").split() if _CLASS.fullmatch(name)]
        if tag == "a":
            self._links += 1
            tag, more = self._link(given.get("href", ""))
            attributes += more
        elif re.fullmatch("h[1-6]", tag):
            wanted = int(tag[1]) + _FIRST_HEADING - 1
            self._level = min(wanted, self._level + 1, 6)
            tag = f"h{self._level}"
        elif tag in _AS_DIV:
            tag = "div"
        elif tag == "pre":
            attributes.append(("tabindex", "0"))  # it can be scrolled with the keyboard
        if classes:
            attributes.append(("class", " ".join(classes)))
        opening = _tag(tag, attributes)
        if tag == "table":
            return f'<div class="scroll" tabindex="0">{opening}', "</table></div>"
        return opening, f"</{tag}>"

    def _link(self, href: str) -> tuple[str, Sequence[tuple[str, str]]]:
        if href.startswith("#") and len(href) > 1:
            return "a", [("href", "#" + _own(href[1:]))]
        url = safe_url(href)
        if url is None:  # a relative link points to a file of the project that is not here
            return "span", []
        return "a", [("href", url), ("rel", "nofollow noopener noreferrer")]

    def _image(self, given: dict[str, str]) -> str:
        """A link to the image, or only its alternative text if it is in a link already."""
        words = escape(" ".join(given.get("alt", "").split()) or "image")
        url = safe_url(given.get("src", ""))
        if self._links or url is None:
            return f'<span class="image">{words}</span>'
        opening = _tag(
            "a", [("href", url), ("rel", "nofollow noopener noreferrer"), ("class", "image")]
        )
        return f"{opening}{words}</a>"


def _own(identifier: str) -> str:
    return _PREFIX + identifier.removeprefix(_PREFIX)


def _tag(tag: str, attributes: Sequence[tuple[str, str]]) -> str:
    return f"<{tag}" + "".join(f' {name}="{escape(value)}"' for name, value in attributes) + ">"


def main() -> int:
    """Run the child process.

    It reads the text and its content type from stdin as JSON, and writes the HTML or null to stdout
    as JSON. With the arguments "several" and a number of seconds it does so for each line.
    """
    import os
    import resource
    import signal

    os.nice(5)  # the server is more important
    with suppress(OSError):  # if the system runs out of memory, it shall kill this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    if sys.argv[1:2] == ["several"]:
        import readme_renderer.markdown  # before it is needed, because it takes a while
        import readme_renderer.rst  # noqa: F401

        for line in sys.stdin:
            # The signal ends the process, whatever it is doing.
            signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
            answer = json.dumps(render(*json.loads(line)))
            sys.stdout.write((answer if len(answer) <= _LARGEST else "null") + "\n")
            sys.stdout.flush()
            signal.setitimer(signal.ITIMER_REAL, 0)
        return 0
    resource.setrlimit(resource.RLIMIT_CPU, (int(_SECONDS), int(_SECONDS)))
    text, content_type = json.load(sys.stdin)
    answer = json.dumps(render(text, content_type))
    # A few lines of reStructuredText can become a gigabyte, which the server would have to read.
    if len(answer) > _LARGEST:
        sys.stderr.write(f"it became {len(answer)} bytes")
        return 1
    sys.stdout.write(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
