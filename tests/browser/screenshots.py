"""Pictures of the pages for the documents: `python -m tests.browser.screenshots FOLDER`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.browser.showcase import ordinary
from tests.browser.watching import running_chromium
from tests.faults.servers import servers_below, table

SHOTS = (
    ("sign-in", "/login/", "light", (900, 560)),
    ("start", "/r/harbour/", "light", (1200, 900)),
    ("project", "/r/harbour/project/tidewater/", "light", (1200, 960)),
    ("phone", "/r/harbour/project/tidewater/", "dark", (390, 844)),
)


def main(folder: Path) -> None:
    """Write one PNG for each of `SHOTS`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as temporary,
        servers_below(Path(temporary)) as servers,
        running_chromium() as browser,
    ):
        # The port of the documents.
        config = table("harbour", sync_index_interval=3600)
        server = servers.start(Path(temporary) / "root", config, port=8888)
        for filename, content in ordinary():
            server.publish(filename, content, auth=("harbour", "w"))
        for name, address, scheme, (width, height) in SHOTS:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
                locale="en-GB",
            )
            page = context.new_page()
            page.goto(f"{server.url}/login/?next=/r/harbour/")
            if name != "sign-in":
                page.get_by_label("Secret").fill("r")
                page.get_by_role("button", name="Sign in").click()
                page.goto(server.url + address)
            page.screenshot(path=folder / f"{name}.png")
            context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
