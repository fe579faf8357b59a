"""Installing the packages that need each other (`corpus.make_graph`) as users do it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.processes import find_uv, plain_environment

_PATIENCE = 240.0  # seconds for one installation


def install_graph(client: str, index_url: str, packages: int, target: Path) -> float:
    """Install all packages with uv or pip and an empty cache; `target` is removed again.

    Returns the seconds that the client took. `graph-00` needs all the others. Raises when not all
    of them are there.
    """
    python = sys.executable
    if client == "uv":
        command = [find_uv(), "pip", "install", "--no-config", "--no-cache", "--python", python]
    else:
        command = [python, "-m", "pip", "--isolated", "install", "--no-cache-dir"]
        command += ["--no-compile", "--disable-pip-version-check"]
    command += ["--quiet", "--index-url", index_url, "--target", str(target), "graph-00"]
    environment = plain_environment({"PIP_CONFIG_FILE": os.devnull})
    begin = time.perf_counter()
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_PATIENCE
    )
    seconds = time.perf_counter() - begin
    installed = len(list(target.glob("graph_*.dist-info")))
    shutil.rmtree(target, ignore_errors=True)
    if done.returncode or installed != packages:
        raise RuntimeError(
            f"{client} installed {installed} packages, not {packages}: "
            f"{done.stdout[-800:]}{done.stderr[-800:]}"
        )
    return seconds
