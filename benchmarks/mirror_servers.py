"""The upstream of the benchmark of mirrors, and the mirrors of it; measures nothing."""

from __future__ import annotations

import os
import shutil
import sys
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.corpus import Corpus
from benchmarks.load import HOST
from benchmarks.ports import free_port
from benchmarks.processes import Processes
from benchmarks.results import OURS
from benchmarks.servers import Devpi, Server, run

UPSTREAM = "upstream"
TIME_TO_LIVE = 1800
"""Seconds for which a mirror believes a page, the default of proxpi and devpi."""
_NGINX = """\
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_rlimit_nofile 8192;
events {{ worker_connections 2048; }}
http {{
    log_format asked "$request_method $request_uri $status";
    access_log {log};
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    open_file_cache max=20000 inactive=60s;
    map $http_accept $page {{
        default index.html;
        "~application/vnd.pypi.simple.v1\\+json" index.json;
    }}
    types {{
        text/html html;
        application/vnd.pypi.simple.v1+json json;
    }}
    default_type application/octet-stream;
    server {{
        listen {host}:{port} backlog=1024;
        root {tree};
        # Else redirects would lead past a proxy before it.
        absolute_redirect off;
        index $page;
        add_header Vary "Accept, Accept-Encoding";
        gzip_static on;
    }}
}}
"""


class Upstream(Server):
    """nginx with a folder of static pages and files; its answers may come later."""

    name = UPSTREAM

    def __init__(
        self, folder: Path, tree: Path, delay: float, *, workers: int = 1, notes: bool = True
    ) -> None:
        """`delay` in seconds, by a proxy before it. `notes`: whether it keeps what is `asked`."""
        super().__init__(folder)
        self._delay = delay
        self._inner = free_port() if delay else self.port
        self._proxy: Processes | None = None
        text = _NGINX.format(
            folder=folder,
            host=HOST,
            port=self._inner,
            tree=tree,
            workers=workers,
            log=f"{folder}/asked.log asked" if notes else "off",
        )
        if os.getuid() == 0:
            text = f"user root;\n{text}"
        (folder / "nginx.conf").write_text(text)

    def version(self) -> str:
        return f"nginx {run([self._nginx(), '-V'], with_errors=True).split('nginx/')[1].split()[0]}"

    def command(self) -> Sequence[str]:
        return [self._nginx(), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    def start(self, project: str | None) -> float:
        if self._delay:
            words = [str(self.port), str(self._inner), str(self._delay * 1e3)]
            command = [sys.executable, "-m", "benchmarks.delaying", *words]
            self._proxy = Processes(["env", f"PYTHONPATH={Path.cwd()}", *command], self._log)
        return super().start(project)

    def stop(self) -> None:
        super().stop()
        if self._proxy is not None:
            self._proxy.stop()
            self._proxy = None

    def asked(self) -> list[str]:
        """All requests so far, such as "GET /simple/demo/ 200"; waits until they are written."""
        lines: list[str] | None = None
        while True:
            before, lines = lines, (self.folder / "asked.log").read_text().splitlines()
            if lines == before:
                return lines
            time.sleep(0.1 + self._delay)

    def fill(self, corpora: Sequence[Corpus], *, limit: float) -> None:
        raise NotImplementedError("its files are those of `static_tree`")

    @property
    def ready(self) -> str:
        return "/ready"

    @property
    def simple(self) -> str:
        return "/simple/"

    @property
    def vast_url(self) -> str:
        """The address of the index with the long list of projects."""
        return f"http://{HOST}:{self.port}/vast/simple/"

    @property
    def uploads(self) -> str:
        raise NotImplementedError("it takes none")

    @property
    def _log(self) -> Path:
        return self.folder / "proxy.log"

    def _nginx(self) -> str:
        # It is not on everybody's PATH.
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
        found = shutil.which("nginx", path=path)
        if found is None:
            raise SystemExit("nginx is not installed (Debian's package nginx-light)")
        return found


class Mirror(Server):
    """A server that answers with what another index has."""

    def fill(self, corpora: Sequence[Corpus], *, limit: float) -> None:
        raise NotImplementedError("it gets its files from the upstream")

    @property
    def uploads(self) -> str:
        raise NotImplementedError("it takes none")

    @abstractmethod
    def forget(self) -> None:
        """Forget all that came from the upstream. It does not run."""

    def restart_empty(self) -> None:
        """Start once more, with nothing from the upstream."""
        self.stop()
        self.forget()
        self.start(None)
        assert self.processes is not None
        self.processes.settle(limit=30, quiet=0.5)


class PrivatePypiMirror(Mirror):
    """This checkout, with one repository of the type `mirror` that everybody may read."""

    name = OURS

    def __init__(self, folder: Path, index_url: str, tools: Path | None = None) -> None:
        super().__init__(folder, tools)
        (folder / "config.toml").write_text(
            f'[pypi]\ntype = "mirror"\nindex_url = "{index_url}"\nanonymous_read = true\n'
            f"sync_index_interval = {TIME_TO_LIVE}\n"
        )

    def version(self) -> str:
        return version("private-pypi")

    def command(self) -> Sequence[str]:
        command = [sys.executable, "-m", "private_pypi", "server", str(self.folder / "root")]
        command += ["--config", str(self.folder / "config.toml")]
        command += ["--host", HOST, "--port", str(self.port)]
        return [*command, "--extra_index_url", ""]

    def forget(self) -> None:
        shutil.rmtree(self.folder / "root", ignore_errors=True)

    @property
    def ready(self) -> str:
        return "/health/ready"

    @property
    def simple(self) -> str:
        return "/r/pypi/simple/"


class Proxpi(Mirror):
    """proxpi on gunicorn, with one process and 8 threads; it keeps pages in memory only."""

    name = "proxpi"

    def __init__(self, folder: Path, index_url: str, tools: Path | None = None) -> None:
        super().__init__(folder, tools)
        self._index_url = index_url

    def version(self) -> str:
        python = Path(self.tool("gunicorn")).parent / "python"
        program = "import importlib.metadata as m; print(m.version('proxpi'))"
        return run([str(python), "-c", program]).strip()

    def command(self) -> Sequence[str]:
        variables = [f"PROXPI_INDEX_URL={self._index_url}", f"PROXPI_INDEX_TTL={TIME_TO_LIVE}"]
        variables += [f"PROXPI_CACHE_DIR={self.folder / 'cache'}"]
        command = [self.tool("gunicorn"), "-b", f"{HOST}:{self.port}", "-w", "1", "--threads", "8"]
        return ["env", *variables, *command, "-t", "300", "proxpi.server:app"]

    def forget(self) -> None:
        shutil.rmtree(self.folder / "cache", ignore_errors=True)

    @property
    def ready(self) -> str:
        return "/"

    @property
    def simple(self) -> str:
        return "/index/"


class DevpiMirror(Devpi, Mirror):
    """devpi-server with one index of the type `mirror`."""

    def __init__(self, folder: Path, index_url: str, tools: Path | None = None) -> None:
        self._index_url = index_url
        super().__init__(folder, tools)
        self._empty = folder / "empty"
        shutil.copytree(folder / "state", self._empty)

    def command(self) -> Sequence[str]:
        return [word for word in super().command() if word != "--offline-mode"]

    def index_settings(self) -> Mapping[str, object]:
        return {
            "type": "mirror",
            "mirror_url": self._index_url,
            "mirror_cache_expiry": str(TIME_TO_LIVE),
            "volatile": True,
        }

    def forget(self) -> None:
        shutil.rmtree(self.folder / "state")
        shutil.copytree(self._empty, self.folder / "state")

    @property
    def ready(self) -> str:
        return "/+api"


MIRRORS: Mapping[str, type[PrivatePypiMirror] | type[Proxpi] | type[DevpiMirror]] = {
    OURS: PrivatePypiMirror,
    "proxpi": Proxpi,
    "devpi": DevpiMirror,
}
EXECUTABLES: Mapping[str, str] = {"proxpi": "gunicorn", "devpi": "devpi-server"}
