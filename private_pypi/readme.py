"""A description as safe HTML, rendered in a process of its own: `python -m private_pypi.readme`.

It is rendered and sanitised by the library that the public index uses. What that lets through is
made fit for our pages: no images of third parties, no identifiers or classes of ours, headings
that begin below ours, links that tell nothing about who follows them.

In a process of its own because a text can be written so that highlighting or docutils takes for
ever, in one regular expression that stops every other thread.
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
from html import escape
from html.parser import HTMLParser
from pathlib import Path

from private_pypi.descriptions import Description, safe_url

logger = logging.getLogger(__name__)

_SECONDS = 8.0  # for one description, with the start of the process
_WAIT_SECONDS = 4.0  # for one of the places below
_AT_A_TIME = 2
_MEMORY = 1 << 29  # bytes; what people write takes less than half of it
_LARGEST = 4 * 2**20  # bytes of an answer
_CACHE_BYTES = 16 * 2**20

_PREFIX = "user-content-"
_FIRST_HEADING = 3  # the page has the two above
_DROPPED = {"script", "style"}  # none is left; were one, its text would not be shown
_AS_DIV = {"section", "aside", "nav", "figure", "picture"}
_VOID = {"br", "hr", "col"}
_KEPT_ATTRIBUTES = {"title", "align", "colspan", "rowspan", "start"}
# Pygments' short names (we have longer ones), and what docutils and comrak call their boxes.
_CLASS = re.compile(r"[a-z][a-z0-9]?|admonition|admonition-title|note|tip|warning|caution")


class Readmes:
    """Rendered descriptions, the least recently used ones dropped; safe for many threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, str] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()  # guards _kept and _bytes
        self._places = threading.BoundedSemaphore(_AT_A_TIME)

    def html(self, description: Description) -> str:
        """The text as HTML; what cannot be rendered, in its time, is shown as it was written."""
        if not description.text.strip():
            return ""
        content_type = _media_type(description.content_type)[0]
        if content_type == "text/plain":
            return plain(description.text)
        key = hashlib.sha256(
            f"{description.content_type}\n{description.text}".encode(errors="replace")
        ).digest()
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
        if not self._places.acquire(timeout=_WAIT_SECONDS):
            return plain(description.text)  # for this time
        try:
            html = _render_apart(description)
        finally:
            self._places.release()
        if html is None:
            html = plain(description.text)
        with self._lock:
            self._bytes += len(html) - len(self._kept.pop(key, ""))
            self._kept[key] = html
            while self._bytes > _CACHE_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return html


def plain(text: str) -> str:
    """A text as it was written."""
    return f'<pre class="plain" tabindex="0">{escape(text)}</pre>'


def render(text: str, content_type: str) -> str | None:
    """Render here, in whatever time it takes; None when the text is not in its markup."""
    from readme_renderer import markdown, rst

    kind, variant = _media_type(content_type)
    if kind == "text/markdown":
        rendered = markdown.render(text, variant=variant)
    elif kind in ("", "text/x-rst"):  # without a type it is reStructuredText, if it can be
        rendered = rst.render(text)
    else:
        return None
    return None if rendered is None else adapt(rendered)


def adapt(html: str) -> str:
    """Make sanitised HTML fit for our pages (see above)."""
    adapter = _Adapter()
    adapter.feed(html)
    adapter.close()
    return adapter.html()


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
            [sys.executable, "-m", "private_pypi.readme"],
            input=asked.encode(),
            capture_output=True,
            # Wherever we were imported from, the child finds the same code there.
            cwd=Path(__file__).parent.parent,
            timeout=_SECONDS,
            start_new_session=True,  # Ctrl-C is for the server alone
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


class _Adapter(HTMLParser):
    def __init__(self) -> None:
        from readme_renderer.clean import ALLOWED_TAGS

        super().__init__(convert_charrefs=True)
        self._allowed = ALLOWED_TAGS
        self._out: list[str] = []
        # The tag as it was, what closes ours, and where ours is in `_out`.
        self._open: list[tuple[str, str, int]] = []
        self._links = 0  # open ones
        self._dropping = 0
        self._level = _FIRST_HEADING - 1

    def html(self) -> str:
        """What was made of what was fed."""
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
        elif tag == "input":  # a task list: a control that nobody can use is none
            if given.get("type") == "checkbox":
                self._out.append("☑" if "checked" in given else "☐")
        elif tag not in self._allowed:
            pass  # only its words are left
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
                del self._out[place:]  # the mark beside a heading: a link of no words
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
            attributes.append(("tabindex", "0"))  # it scrolls, also by keyboard
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
        if url is None:  # relative ones point into a checkout that is not here
            return "span", []
        return "a", [("href", url), ("rel", "nofollow noopener noreferrer")]

    def _image(self, given: dict[str, str]) -> str:
        """Its words: to load it would tell somebody who reads this page."""
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
    """What the child does: a JSON pair on stdin, the HTML or null as JSON on stdout."""
    import os
    import resource

    os.nice(5)  # the server goes first
    with suppress(OSError):  # and, where memory is short, the child
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(_SECONDS), int(_SECONDS)))
    text, content_type = json.load(sys.stdin)
    answer = json.dumps(render(text, content_type))
    # A few lines of reStructuredText make a gigabyte: the server would have to take it in.
    if len(answer) > _LARGEST:
        sys.stderr.write(f"it became {len(answer)} bytes")
        return 1
    sys.stdout.write(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
