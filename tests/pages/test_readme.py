"""Descriptions are rendered as safe HTML in a child process."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from private_pypi.distributions.descriptions import Description
from private_pypi.pages import readme
from private_pypi.pages.readme import Readmes, Renderer, adapt, plain, render

MARKDOWN = "text/markdown"
RST = "text/x-rst"

_ATTRIBUTES = {
    "href", "rel", "class", "id", "title", "align", "colspan", "rowspan", "start", "tabindex",
}  # fmt: skip


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer than usual, because this machine may be slow."""
    monkeypatch.setattr(readme, "_WAIT_SECONDS", 60)


class Harmless(HTMLParser):
    """Check that nothing can run or load, and that links lead to the web only."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {
            "script", "style", "iframe", "object", "embed", "form", "input", "button", "img", "svg",
            "math", "link", "meta", "base", "video", "audio", "source", "template", "h1", "h2",
        }, tag  # fmt: skip
        for name, value in attrs:
            assert name in _ATTRIBUTES, (tag, name)
            if name == "href":
                assert re.match(r"https?://|mailto:|#user-content-", value or ""), value
            if name == "id":
                assert (value or "").startswith("user-content-")

    handle_startendtag = handle_starttag


def check(html: str) -> None:
    parser = Harmless()
    parser.feed(html)
    parser.close()


def rendered(text: str, content_type: str = MARKDOWN) -> str:
    html = render(text, content_type)
    assert html is not None
    check(html)
    return html


def test_headings_begin_below_those_of_the_page_and_leave_none_out() -> None:
    html = rendered("# One\n#### Two\n# Three\n")
    assert re.findall(r"<h(\d)[^>]*>(\w+)", html) == [("3", "One"), ("4", "Two"), ("3", "Three")]


def test_images_are_links_with_their_text() -> None:
    outside = 'rel="nofollow noopener noreferrer"'
    assert rendered("See ![logo](https://a.example/l.png).") == (
        f'<p>See <a href="https://a.example/l.png" {outside} class="image">logo</a>.</p>\n'
    )
    assert rendered("[![ci](https://a.example/b.svg)](https://c.d)") == (
        f'<p><a href="https://c.d" {outside}><span class="image">ci</span></a></p>\n'
    )


@pytest.mark.parametrize(
    ("text", "content_type"),
    [
        (
            "[![one](https://a.example/1.svg)](https://c.d)\n![two](https://a.example/2.svg)\n"
            "![three](https://a.example/3.svg)\n\nWords",
            "text/markdown",
        ),
        (
            ".. image:: https://a.example/1.svg\n   :alt: one\n   :target: https://c.d\n"
            ".. image:: https://a.example/2.svg\n   :alt: two\n"
            ".. image:: https://a.example/3.svg\n   :alt: three\n\nWords\n",
            "text/x-rst",
        ),
    ],
)
def test_badges_are_one_line_that_scrolls(text: str, content_type: str) -> None:
    html = render(text, content_type)
    assert html is not None
    badges = re.findall(
        r'<span class="badges" tabindex="0">(.*?)</span>\s*(?:</p>|<p>)', html, re.S
    )
    assert [re.findall(r'class="image">(\w+)<', each) for each in badges] == [
        ["one", "two", "three"]
    ]
    assert "Words" not in badges[0]


def test_links_into_the_checkout_are_words() -> None:
    assert rendered("[docs](docs/a.md) [up](../../logout/)") == (
        "<p><span>docs</span> <span>up</span></p>\n"
    )


def test_a_task_list_has_no_controls() -> None:
    html = rendered("- [x] done\n- [ ] not\n")
    assert "☑ done" in html
    assert "☐ not" in html


def test_code_is_highlighted_and_can_be_scrolled_to() -> None:
    html = rendered("```python\nimport this\n```\n")
    assert '<pre tabindex="0"><span class="kn">import</span>' in html


def test_classes_of_ours_are_not_to_be_had() -> None:
    html = rendered('<p class="card primary k">a</p><div class="message bar" id="content">b</div>')
    assert 'class="k"' in html
    assert 'id="user-content-content"' in html
    assert not re.search("card|primary|message|bar", html)


def test_reference_links_stay_within_the_description() -> None:
    html = rendered("a[^1]\n\n[^1]: b\n")
    assert 'href="#user-content-fn-1"' in html
    assert 'id="user-content-fn-1"' in html


def test_restructured_text() -> None:
    html = rendered("Demo\n====\n\n.. note:: look\n\n`there <https://a.example>`_\n", RST)
    assert re.search(r"<h3>Demo</h3>", html)
    assert '<div class="admonition note">' in html
    assert 'href="https://a.example"' in html


@pytest.mark.parametrize(
    "text",
    [
        ".. raw:: html\n\n   <script>alert(1)</script>\n",
        ".. include:: /etc/passwd\n",
        ".. csv-table::\n   :file: /etc/passwd\n",
        "Title\n==\n\n.. nonsense:: x\n",
    ],
)
def test_restructured_text_that_may_not_be_is_shown_as_written(text: str) -> None:
    assert Readmes().html(Description(text=text, content_type=RST), "mine") == plain(text)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<a href='javascript:alert(1)'>x</a>",
        "[x](javascript:alert(1)) [y](data:text/html,z) <javascript:alert(1)>",
        "<svg onload=alert(1)><style>*{}</style></svg>",
        "<form action=/logout/><button>x</button><input type=text name=token></form>",
        "<iframe srcdoc='<script>alert(1)</script>'></iframe><base href=//evil.example>",
        "<p style='position:fixed' onclick=x>y</p><math><mi href='javascript:x'>z</mi></math>",
        "<details open ontoggle=alert(1)><summary>x</summary></details>",
        "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
        '```"><script>alert(1)</script>\nx\n```',
    ],
)
def test_nothing_in_a_description_runs(text: str) -> None:
    rendered(text)


_pieces = st.sampled_from(
    ["<", ">", '"', "'", "&", "=", "/", "`", "[", "](", ")", "!", "#", "\n", " ", "javascript:",
     "script", "img src=x", "onerror=", "a href=", "https://a.example", "&#x3c;", "-->", "<!--",
     "style", "svg", "math", "]]>", "|", "id=content", "class=card"]
)  # fmt: skip


@settings(max_examples=200)
@given(st.lists(_pieces, max_size=30).map("".join))
def test_nothing_that_is_put_together_of_markup_runs(text: str) -> None:
    html = render(text, MARKDOWN)
    if html is not None:
        check(html)


@example("<script]]>")
@example("<iframe src='https://a.example'>")
@given(st.lists(_pieces, max_size=30).map("".join))
def test_what_was_not_sanitised_makes_no_scripts_either(text: str) -> None:
    html = adapt(text)
    check(html)
    assert "<script" not in html
    assert not re.search(r"<[^>]*\bon\w+=", html)
    assert not re.search(r'href="javascript', html)


def test_plain_text_is_escaped() -> None:
    description = Description(text="<b>&\n", content_type="text/plain; charset=UTF-8")
    assert (
        Readmes().html(description, "mine")
        == '<pre class="plain" tabindex="0">&lt;b&gt;&amp;\n</pre>'
    )


def test_an_unknown_type_is_shown_as_written() -> None:
    description = Description(text="<b>", content_type="application/x")
    assert Readmes().html(description, "mine") == plain("<b>")


def test_no_text_is_nothing() -> None:
    assert Readmes().html(Description(text=" \n"), "mine") == ""


def test_a_text_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    readmes = Readmes()
    description = Description(text="# Demo", content_type=MARKDOWN)
    first = readmes.html(description, "mine")
    assert first == '<h3 id="user-content-demo">Demo</h3>\n'
    monkeypatch.setattr(readme.subprocess, "run", None)
    assert readmes.html(description, "mine") == first


def test_what_takes_for_ever_is_shown_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme, "_SECONDS", 0.001)
    description = Description(text="# Demo", content_type=MARKDOWN)
    assert Readmes().html(description, "mine") == plain("# Demo")


def test_descriptions_that_take_long_hold_up_no_other_repository(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_end = threading.Event()

    def render(description: Description) -> str:
        if description.text.startswith("slow"):
            may_end.wait(20)
        return f"<p>{description.text}</p>"

    monkeypatch.setattr(readme, "_render_apart", render)
    monkeypatch.setattr(readme, "_WAIT_SECONDS", 0.1)
    readmes = Readmes()
    slow = [Description(text=f"slow & {number}", content_type=MARKDOWN) for number in range(5)]
    # They were not rendered in time, so their text is shown, escaped.
    assert [readmes.html(each, "slow") for each in slow] == [plain(each.text) for each in slow]
    monkeypatch.setattr(readme, "_WAIT_SECONDS", 20)
    quick = Description(text="quick", content_type=MARKDOWN)
    assert readmes.html(quick, "other") == "<p>quick</p>"
    may_end.set()
    assert readmes.html(slow[0], "slow") == "<p>slow & 0</p>"


def test_what_was_rendered_too_late_for_one_page_is_there_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    may_end = threading.Event()

    def render(description: Description) -> str:
        asked.append(description.text)
        may_end.wait(20)
        return "<p>late</p>"

    monkeypatch.setattr(readme, "_render_apart", render)
    monkeypatch.setattr(readme, "_WAIT_SECONDS", 0.01)
    readmes = Readmes()
    late = Description(text="late", content_type=MARKDOWN)
    assert readmes.html(late, "mine") == plain("late")
    may_end.set()
    end = time.monotonic() + 20
    while readmes.html(late, "mine") != "<p>late</p>":
        assert time.monotonic() < end
    assert asked == ["late"]


def test_a_text_that_becomes_enormous_is_shown_as_written_and_never_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = f".. |a| replace:: {'é' * 9000}\n\n" + "|a|\\\n" * 200
    really, answered = subprocess.run, []

    def run(*args: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
        done = really(*args, **options)
        answered.append(len(done.stdout))
        return done

    monkeypatch.setattr(readme.subprocess, "run", run)
    assert Readmes().html(Description(text=text, content_type="text/x-rst"), "mine") == plain(text)
    assert answered == [0]


def test_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme, "_CACHE_BYTES", 100)
    monkeypatch.setattr(readme, "_render_apart", lambda description: description.text * 2)
    readmes = Readmes()
    for number in range(10):
        readmes.html(Description(text=f"{number}" * 30, content_type=MARKDOWN), "mine")
    assert (len(readmes._kept), readmes._bytes) == (1, 60)


# -- many descriptions ---------------------------------------------------------------------------


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    made = Renderer()
    yield made
    made.close()


def described(text: str, content_type: str = MARKDOWN) -> Description:
    return Description(text=text, content_type=content_type)


def test_one_process_renders_several_descriptions(renderer: Renderer) -> None:
    texts = ["# One", "*two*\n\u2028\nlines", "", "<script>three</script>"]
    assert [renderer.html(described(text)) for text in texts] == [
        render(text, MARKDOWN) if text else "" for text in texts
    ]
    assert renderer.html(described("*a*", "text/plain")) == plain("*a*")
    assert renderer.html(described("*a*", "text/unknown")) == plain("*a*")


def test_what_takes_too_long_is_shown_unchanged_and_the_next_is_rendered(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as hurried:
        hurried.setattr(readme, "_SECONDS", 0.001)
        long = "*one*\n\n" * 20_000
        assert renderer.html(described(long)) == plain(long)
    assert renderer.html(described("*two*")) == "<p><em>two</em></p>\n"


def test_a_process_that_was_ended_is_replaced(renderer: Renderer) -> None:
    renderer.html(described("*one*"))
    assert renderer._child is not None
    renderer._child.kill()
    renderer._child.wait()
    assert renderer.html(described("*two*")) == "<p><em>two</em></p>\n"


def test_a_process_that_was_started_early_is_the_one_that_renders(renderer: Renderer) -> None:
    renderer.start()
    started = renderer._child
    renderer.start()
    assert renderer.html(described("*one*")) == "<p><em>one</em></p>\n"
    assert renderer._child is started
