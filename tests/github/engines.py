"""Complete servers, with engine and gate, that run in threads of the test and use a fake GitHub."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from private_pypi.configuration.config import ConfigurationText
from private_pypi.repositories import Repository
from private_pypi.testing.distributions import encode_multipart, form_for
from private_pypi.web import HOT_PATH, create_app
from private_pypi.web.api.legacy import make_gate
from private_pypi.web.deployment import Deployment
from private_pypi.web.options import ServerOptions
from private_pypi.web.serving import Kind, Stop, serve
from tests.github.places import Place

JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
_WAIT = 60  # seconds


@dataclass(frozen=True, slots=True)
class Engine:
    """A running server with one place, and requests to it.

    The token is that of the place's writer unless another one is given.
    """

    url: str
    place: Place
    deployment: Deployment
    session: requests.Session

    @property
    def repository(self) -> Repository:
        """The repository that is served."""
        (found,) = self.deployment.repositories
        return found

    def ask(
        self, method: str, path: str, token: str | None = None, **form: str
    ) -> requests.Response:
        """Send a request below /r/<repository>/simple/; redirects are not followed."""
        return self.session.request(
            method,
            f"{self.url}/r/{self.place.name}/simple/{path}",
            data=form or None,
            headers=JSON,
            auth=(self.place.name, token or self.place.writer),
            timeout=_WAIT,
            allow_redirects=False,
        )

    def publish(self, filename: str, content: bytes, token: str | None = None) -> requests.Response:
        """Upload a file."""
        content_type, body = encode_multipart(form_for(filename, content), filename, content)
        return self.session.post(
            f"{self.url}/r/{self.place.name}/",
            data=body,
            headers={"Content-Type": content_type},
            auth=(self.place.name, token or self.place.writer),
            timeout=_WAIT,
        )


@contextmanager
def engine(place: Place, root: Path, **keys: object) -> Iterator[Engine]:
    """Serve until the block ends; `keys` are keys of the table."""
    root.mkdir(parents=True, exist_ok=True)
    config = place.table(**{"sync_index_interval": 3600, **keys})
    admin = place.admin_table
    deployment = Deployment(
        ServerOptions(
            root=root,
            config=ConfigurationText(text=config, name="config", folder=root),
            admin_secret=ConfigurationText(text=admin, name="admin_secret", folder=root)
            if admin
            else None,
            extra_index_url="",
            environ={},
        )
    )
    app = create_app(deployment)
    stop, listening, addresses = Stop(), threading.Event(), list[str]()

    def listen(opened: list[str]) -> None:
        addresses.extend(opened)
        listening.set()

    thread = threading.Thread(
        target=serve,
        args=(app, make_gate(deployment)),
        kwargs={
            "host": "127.0.0.1",
            "port": 0,
            "on_listening": listen,
            "stop": stop,
            "kind_of": lambda path: Kind.FILES,
            "at_once": app.extensions[HOT_PATH].at_once,
        },
    )
    thread.start()
    try:
        assert listening.wait(_WAIT)
        with requests.Session() as session:
            session.trust_env = False  # no proxies, no ~/.netrc
            yield Engine(addresses[0], place, deployment, session)
    finally:
        stop.request()
        thread.join(_WAIT)
        deployment.close()
    assert not thread.is_alive()
