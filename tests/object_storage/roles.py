"""Gives credentials of a role, as machines and containers at Amazon do.

The third way, a web identity, is left out: `obstore` asks only over HTTPS for it.

Source: "Retrieve instance metadata" of the EC2 user guide, and "Container credential provider" of
the AWS SDKs and Tools Reference Guide.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.object_storage.seaweed import WRITER

TOKEN = "a-session-token"


@contextlib.contextmanager
def giving_credentials(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str | None]:
    """The environment of a server that has the credentials `WRITER`; gives their session token."""
    if kind == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", WRITER[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRITER[1])
        yield None
        return
    with _role_service() as url:
        if kind == "machine":
            monkeypatch.setenv("AWS_METADATA_ENDPOINT", url)
        else:
            token = folder / "token"
            token.write_text("of the container")
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/container")
            monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
        yield TOKEN


@contextlib.contextmanager
def _role_service() -> Iterator[str]:
    expires_at = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    given = {
        "AccessKeyId": WRITER[0],
        "SecretAccessKey": WRITER[1],
        "Token": TOKEN,
        "Expiration": expires_at,
        "Code": "Success",
        "Type": "AWS-HMAC",
        "LastUpdated": expires_at,
    }

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            if self.path.endswith("/latest/api/token"):
                content = "of the machine"
            elif self.path.rstrip("/").endswith("/security-credentials"):
                content = "role"
            else:
                content = json.dumps(given)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.encode())

        do_GET = do_PUT = _handle

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
