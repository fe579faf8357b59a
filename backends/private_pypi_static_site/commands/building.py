"""The commands `static_site.build` and `static_site.serve`."""

from __future__ import annotations

import http.server
from functools import partial
from pathlib import Path
from typing import Final

from private_pypi.backend.public_index import public_index_url
from private_pypi.commands.command_line import UsageError
from private_pypi.commands.files import say
from private_pypi.commands.indexing import Progress
from private_pypi.errors import ConfigurationError
from private_pypi.pages.simple_api import Representation
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making.building import Built, build_site
from private_pypi_static_site.making.public_index import read_verdicts

_OUTPUT: Final = "_site"


def build(
    *, folder: str = ".", output_folder: str = _OUTPUT, public_index: str | None = None
) -> None:
    """Build the pages of a site, which any web server can serve.

    The output folder gets a start page, pages for each project and version, and the hosted files.
    What a former build wrote there is replaced or removed, and nothing else is touched.

    Args:
        folder: The folder of the site.
        output_folder: Where the pages are written. A relative path begins in the folder of the
            site.
        public_index: The address of the simple API of the public index, with which open pages
            compare their names. Default: the one that all tools know.

    Example:
        private_pypi static_site.build --folder my-site
    """
    say(str(_build(folder, output_folder, public_index)[1]))


def serve(
    *,
    folder: str = ".",
    output_folder: str = _OUTPUT,
    public_index: str | None = None,
    port: int = 8000,
) -> None:
    """Build the pages of a site, and serve them on this machine, to look at them.

    Only this machine can reach them. Press Ctrl-C to stop.

    Args:
        folder: The folder of the site.
        output_folder: Where the pages are written. A relative path begins in the folder of the
            site.
        public_index: The address of the simple API of the public index, with which open pages
            compare their names. Default: the one that all tools know.
        port: The port. 0 takes a free one.

    Example:
        private_pypi static_site.serve --folder my-site
    """
    output, built = _build(folder, output_folder, public_index)
    say(str(built))
    with make_server(output, port) as server:
        say(f"serving {output} at http://127.0.0.1:{server.server_port}/")
        server.serve_forever()


def make_server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of the pages in a folder, for this machine only; the caller runs and closes it."""
    handler = partial(_Handler, directory=str(folder))
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"cannot listen on port {port}: {error}") from error


def _build(folder: str, output_folder: str, public_index: str | None) -> tuple[Path, Built]:
    if not folder or not output_folder:  # perhaps an unset variable
        raise UsageError("--folder and --output_folder must not be empty")
    site = SiteFolder(Path(folder).absolute())
    output = site.root / output_folder
    settings = site.settings()
    address = public_index or settings.public_index or public_index_url()
    address = f"{address.rstrip('/')}/"
    progress = Progress()
    try:
        built = build_site(
            site,
            output,
            public_index=address,
            # Verdicts about another index would be of no use here.
            verdicts=read_verdicts(site, address) if settings.check_public_index else {},
            progress=progress,
        )
    finally:
        progress.end()
    return output, built


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the pages with the types that a good host gives them."""

    extensions_map: dict[str, str] = {  # noqa: RUF012 - as inherited
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
        ".json": Representation.JSON.content_type,
        "": "application/octet-stream",
    }

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The page of the site for what is not there, as hosts of static pages show it."""
        page = Path(self.directory) / "404.html"
        if code != http.HTTPStatus.NOT_FOUND or not page.is_file():
            return super().send_error(code, message, explain)
        content = page.read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", self.extensions_map[".html"])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        return None

    def list_directory(self, path: object) -> None:
        """Folders without a page, such as `packages/`, are not listed."""
        self.send_error(http.HTTPStatus.NOT_FOUND)
