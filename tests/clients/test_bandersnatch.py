"""bandersnatch mirrors a repository, and pip installs from the mirror (protocol 35, 72)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from private_pypi.testing.distributions import make_sdist, make_wheel

from .environments import Client
from .installers import installed
from .serving import Repository

pytestmark = pytest.mark.needs("clients")

MakeClient = Callable[[str], Client]

# As docs/clients.md shows it.
CONFIGURATION = """\
[mirror]
directory = {folder}
master = {base}/r/{name}
download-mirror = {base}
download-mirror-no-fallback = true
api-method = simple
json = true
release-files = true
hash-index = false
allow-non-https = true
stop-on-error = true
timeout = 30
workers = 2
"""


def test_bandersnatch_mirrors_what_is_there_and_then_what_is_new(
    client: MakeClient, repository: Repository, target: Path, tmp_path: Path
) -> None:
    files = dict([make_wheel("De.mo", "1.0"), make_sdist("De.mo", "1.0"), make_wheel("other")])
    for filename, content in files.items():
        repository.put(filename, content)
    bandersnatch = client("bandersnatch")
    folder = tmp_path / "mirror"
    configuration = tmp_path / "bandersnatch.conf"
    user = f"{repository.name}:{quote(repository.read_secret, safe='')}@"
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder,
            name=repository.name,
            base=repository.origin.replace("://", f"://{user}"),
        )
    )

    def mirror() -> dict[str, bytes]:
        # It uses a proxy for every host, whatever `no_proxy` says.
        no_proxies = {f"{scheme}_proxy": "" for scheme in ("http", "https", "all")}
        outcome = bandersnatch.run("-c", configuration, "mirror", env=no_proxies)
        assert outcome.code == 0, outcome.output
        packages = folder / "web" / "packages" / repository.name
        return {path.name: path.read_bytes() for path in packages.rglob("*") if path.is_file()}

    assert mirror() == files
    newer, content = make_wheel("De.mo", "2.0")
    repository.put(newer, content)
    assert mirror() == {**files, newer: content}
    # What is yanked is so in the mirror, too.
    yanked = requests.post(
        f"{repository.index_url}de-mo/2.0/yank",
        data={"reason": "broken"},
        auth=(repository.name, repository.write_secret),
        timeout=30,
    )
    assert yanked.status_code == 200
    mirror()
    index = (folder / "web" / "simple").as_uri()
    outcome = client("pip").run(f"--python={target}", "install", "--index-url", index, "de.mo")
    assert outcome.code == 0, outcome.output
    assert installed(target) == {"De.mo": "1.0"}
