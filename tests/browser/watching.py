"""Pages in a real Chromium, in which everything is noted that goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.machine import need

DESKTOP = (1280, 900)
PHONE = (360, 740)

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Visitor:
    """Somebody at a browser, and what it complained about meanwhile."""

    context: BrowserContext
    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


VisitorT = TypeVar("VisitorT", bound=Visitor)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """The browser of the system."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need("chromium"), args=_FLAGS)
        yield browser
        browser.close()


@contextmanager
def visiting(
    chromium: Browser,
    kind: type[VisitorT],
    address: str,
    *,
    expected: str,
    may_ask: Sequence[str] = (),
) -> Iterator[Callable[..., VisitorT]]:
    """Make visitors; at the end no browser may have complained or asked anybody else.

    Complaints with the text `expected` do not count. Pages may ask for addresses that begin with
    that of the visitor, or with one of `may_ask`.
    """
    visitors: list[VisitorT] = []

    def make(
        *,
        size: tuple[int, int] = DESKTOP,
        scheme: str = "light",
        javascript: bool = True,
        url: str = address,
    ) -> VisitorT:
        context = chromium.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=javascript,
            locale="en-GB",
        )
        visitor = kind(context, context.new_page(), url)
        visitors.append(visitor)
        page = visitor.page
        page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                visitor.complaints.append(message.text)
                if message.type in ("error", "warning") and expected not in message.text
                else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((url, *may_ask))
                else visitor.foreign.append(request.url)
            ),
        )
        return visitor

    yield make
    for visitor in visitors:
        visitor.context.close()
        assert (visitor.complaints, visitor.foreign) == ([], [])
