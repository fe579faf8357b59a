"""Git over HTTP, as GitHub speaks it beside its pages: bare repositories and `git http-backend`.

Tests that use it start git, so they need the mark.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from email.parser import BytesHeaderParser
from pathlib import Path
from urllib.parse import unquote


def git_answer(
    root: Path, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, Mapping[str, str], bytes]:
    """What `git http-backend` answers: status, headers and body. `root` has the repositories."""
    ended = subprocess.run(
        ["git", "http-backend"],
        input=body,
        capture_output=True,
        check=True,
        timeout=60,
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "GIT_PROJECT_ROOT": str(root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REQUEST_METHOD": method,
            "PATH_INFO": unquote(path),
            "QUERY_STRING": query,
            "CONTENT_TYPE": headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": headers.get("Git-Protocol", ""),
        },
    )
    head, _, content = ended.stdout.partition(b"\r\n\r\n")
    found = dict(BytesHeaderParser().parsebytes(head + b"\r\n\r\n").items())
    return int(found.pop("Status", "200 OK").split()[0]), found, content
