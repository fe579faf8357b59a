"""Asks the server of this container whether it lives; exit code 0 when it does.

The port is that of PRIVATE_PYPI_COMMAND_PORT, or of PORT if the server is started with the
variables of PyOCI. PRIVATE_PYPI_HEALTH_URL is another address, for a server that was given --port
or --listen as a flag.
"""

from __future__ import annotations

import http.client
import os
import sys
from urllib.parse import urlsplit

_TIMEOUT = 4  # seconds; the check itself has 5


def main() -> str | None:
    """What is wrong, or None."""
    default = "8888"
    if os.environ.get("PYOCI_REGISTRIES") and not os.environ.get("PRIVATE_PYPI_COMMAND"):
        default = os.environ.get("PORT") or "8080"
    port = os.environ.get("PRIVATE_PYPI_COMMAND_PORT") or default
    url = os.environ.get("PRIVATE_PYPI_HEALTH_URL") or f"http://127.0.0.1:{port}/health/"
    parts = urlsplit(url)
    # Not urllib's openers: they would go to the proxy that the environment may name.
    connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT)
    try:
        connection.request("GET", parts.path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {error}"
    finally:
        connection.close()
    return None if status == 200 else f"{url}: status {status}"


if __name__ == "__main__":
    sys.exit(main())
