"""Our server over a GitHub of the tests, or over a registry; measures nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.corpus import Form
from benchmarks.load import HOST, Answer, Load, ask, upload
from benchmarks.ports import free_port
from benchmarks.processes import Processes, plain_environment
from benchmarks.servers import basic

_METRICS_TOKEN = "measured-metrics"
_PAUSE = 0.005  # seconds between two looks at a server that is not there yet
_LIMIT = 120.0  # seconds for whatever is waited for


class RemoteServer:
    """A `private_pypi server` whose repositories lie elsewhere; `with` ends it."""

    def __init__(
        self, folder: Path, tables: Mapping[str, Mapping[str, object]], token: str
    ) -> None:
        """`tables` are the repositories by their names; everybody comes with the same token."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self._token = token
        self._config = folder / "config.toml"
        self._config.write_text("".join(_table(name, keys) for name, keys in tables.items()))
        self._secrets = folder / "admin_secret.toml"
        self._secrets.write_text(
            "".join(
                _table(name, {"type": keys["type"], "raw": token})
                for name, keys in tables.items()
                if keys["type"] == "github"
            )
        )
        (folder / "metrics_token").write_text(_METRICS_TOKEN)
        self._processes: Processes | None = None

    def __enter__(self) -> RemoteServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def with_tables(self, tables: Mapping[str, Mapping[str, object]]) -> RemoteServer:
        """The same server, with all that it knows, configured anew; this one must have ended."""
        return RemoteServer(self.folder, tables, self._token)

    def start(self) -> None:
        """Start, and return at once."""
        command = [sys.executable, "-m", "private_pypi", "server", str(self.folder / "root")]
        command += [*self._configured, "--host", HOST, "--port", str(self.port)]
        command += ["--extra_index_url", ""]
        command += ["--metrics_token_file", str(self.folder / "metrics_token")]
        self._processes = Processes(command, self.folder / "log")

    def stop(self) -> None:
        if self._processes is not None:
            self._processes.stop()
            self._processes = None

    def update_index(self, name: str) -> str:
        """What an operator or a workflow does; what the command says."""
        command = [sys.executable, "-m", "private_pypi", "update_index", name, *self._configured]
        done = subprocess.run(
            command, env=plain_environment(), capture_output=True, text=True, timeout=_LIMIT
        )
        if done.returncode:
            raise RuntimeError(f"update_index failed: {done.stdout[-800:]}{done.stderr[-800:]}")
        return done.stdout.strip()

    def wait_until_ready(self) -> None:
        """Until it can be used; nothing is asked of GitHub for this."""
        self._wait_for("/health/ready", {})

    def wait_for_page(self, name: str, project: str, files: int) -> None:
        """Until the page of a project is there; it must have so many files."""
        headers = basic(name, self._token)
        answer = self._wait_for(f"/r/{name}/simple/{project}/", headers)
        found = answer.body.count(b"<a ")
        if found != files:
            raise RuntimeError(f"the page of {project} has {found} files, not {files}")

    def synchronizations(self, name: str) -> tuple[int, float]:
        """How many there were since the start, and the seconds that they took together."""
        answer = ask(self.port, "/metrics", basic("metrics", _METRICS_TOKEN))
        if answer.status != 200:
            raise RuntimeError(f"no metrics: {answer.status} {answer.body[:300]!r}")
        family = "private_pypi_synchronization_duration_seconds"
        values = {
            sample.name.removeprefix(family): sample.value
            for metric in text_string_to_metric_families(answer.body.decode())
            for sample in metric.samples
            if sample.name.startswith(family) and sample.labels["repository"] == name
        }
        return int(values["_count"]), values["_sum"]

    def wait_for_synchronizations(self, name: str, count: int) -> tuple[int, float]:
        """Until so many were made since the start."""
        end = time.monotonic() + _LIMIT
        while (found := self.synchronizations(name))[0] < count:
            if time.monotonic() > end:
                raise TimeoutError(f"no {count} synchronisations within {_LIMIT:.0f} s")
            time.sleep(_PAUSE)
        return found

    def publish(self, name: str, forms: Sequence[Form], *, connections: int = 1) -> Load:
        """Send uploads as twine sends them; raises when one is refused."""
        headers = basic(name, self._token)
        return upload(self.port, f"/r/{name}/", headers, forms, connections=connections)

    def index_url(self, name: str, token: str | None = None) -> str:
        """What an installer is given; with another token that of somebody else."""
        return f"http://{name}:{quote(token or self._token)}@{HOST}:{self.port}/r/{name}/simple/"

    @property
    def _configured(self) -> list[str]:
        return ["--config", str(self._config), "--admin_secret", str(self._secrets)]

    def _wait_for(self, path: str, headers: Mapping[str, str]) -> Answer:
        end = time.monotonic() + _LIMIT
        answer: Answer | None = None
        while time.monotonic() < end:
            if self._processes is not None:
                self._processes.check_alive()
            try:
                answer = ask(self.port, path, {"Accept": "text/html, text/plain", **headers})
            except OSError:  # it does not listen yet
                answer = None
            if answer is not None and answer.status == 200:
                return answer
            if answer is not None and answer.status != 503:
                break
            time.sleep(_PAUSE)
        raise RuntimeError(f"GET {path} was not answered: {answer}")


def _table(name: str, keys: Mapping[str, object]) -> str:
    lines = [f"[{name}]"]
    lines += [
        f"{key} = {json.dumps(value)}" if isinstance(value, (int, float)) else f'{key} = "{value}"'
        for key, value in keys.items()
    ]
    return "\n".join(lines) + "\n"
