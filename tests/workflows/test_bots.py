"""What Renovate and Dependabot ask of a server, in the requests that they send (protocol 93)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import requests
from ruamel.yaml import YAML

from private_pypi.testing.distributions import make_wheel
from tests.clients.releases import Release
from tests.clients.serving import Repository, running_server

from .acting import EXAMPLES

pytestmark = pytest.mark.needs("a server in a process of its own")

# lib/modules/datasource/pypi and lib/util/http of Renovate; the version is any.
RENOVATE = {
    "User-Agent": "RenovateBot/43.0.0 (https://github.com/renovatebot/renovate)",
    "Accept": "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, "
    "text/html; q=0.01",
}
# Renovate 40, as it was seen to ask; it takes what comes, and that is HTML.
RENOVATE_40 = {"User-Agent": "RenovateBot/40.62.1 (https://github.com/renovatebot/renovate)"}
# python/lib/dependabot/python/package/package_details_fetcher.rb and SharedHelpers of Dependabot.
DEPENDABOT = {
    "User-Agent": "dependabot-core/0.350.0 excon/1.3.0 ruby/3.4.7 (x86_64-linux) "
    "(+https://github.com/dependabot/dependabot-core)",
    "Accept": "text/html",
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """A repository with two versions of demo."""
    with running_server(tmp_path_factory.mktemp("server"), 1) as (made,):
        for version in ("1.0", "1.1"):
            made.put(*Release(version=version).wheel())
        yield made


def ask(
    repository: Repository, url: str, headers: dict[str, str], *, known: bool = True
) -> requests.Response:
    auth = (repository.name, repository.read_secret) if known else None
    return requests.get(url, headers=headers, auth=auth, timeout=30, allow_redirects=False)


def test_renovate_is_told_versions_times_and_yanks_in_json(repository: Repository) -> None:
    answer = ask(repository, f"{repository.index_url}demo/", RENOVATE)
    assert answer.status_code == 200
    assert "json" in answer.headers["Content-Type"]  # how Renovate decides what to parse
    files = answer.json()["files"]
    assert [file["filename"] for file in files] == [
        "demo-1.0-py3-none-any.whl",
        "demo-1.1-py3-none-any.whl",
    ]
    for file in files:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", file["upload-time"])
        assert not file.get("yanked", False)


@pytest.mark.parametrize("headers", [RENOVATE_40, DEPENDABOT], ids=["Renovate 40", "Dependabot"])
def test_bots_are_told_versions_in_html(repository: Repository, headers: dict[str, str]) -> None:
    page = f"{repository.index_url}demo/"
    answer = ask(repository, page, headers)
    assert (answer.status_code, answer.headers["Content-Type"].split(";")[0]) == (200, "text/html")
    links = re.findall(r'<a href="([^"]+)"[^>]*>([^<]+)</a>', answer.text)
    assert [text for _, text in links] == [
        "demo-1.0-py3-none-any.whl",
        "demo-1.1-py3-none-any.whl",
    ]
    # Dependabot adds the credentials to what lies below the address of the registry only.
    assert all(urljoin(page, href).startswith(repository.index_url) for href, _ in links)


def test_the_json_interface_that_dependabot_tries_first_is_plainly_missing(
    repository: Repository,
) -> None:
    """It goes on with the HTML page after any answer but 200."""
    url = repository.index_url.replace("/simple/", "/pypi/") + "demo/json"
    answer = ask(repository, url, {**DEPENDABOT, "Accept": "application/json"}, known=False)
    assert answer.status_code in (401, 404)


@pytest.mark.parametrize("headers", [RENOVATE, DEPENDABOT], ids=["Renovate", "Dependabot"])
def test_without_credentials_a_bot_is_challenged_and_never_sent_to_a_form(
    repository: Repository, headers: dict[str, str]
) -> None:
    for url in (repository.index_url, f"{repository.index_url}demo/"):
        answer = ask(repository, url, headers, known=False)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")


def addresses(document: Any) -> Iterator[str]:
    """Every address in a configuration that is one of our server."""
    if isinstance(document, str):
        if document.startswith("https://packages.example.com/"):
            yield document
    elif isinstance(document, dict | list):
        for value in document.values() if isinstance(document, dict) else document:
            yield from addresses(value)


@pytest.mark.parametrize("name", ["renovate.json", "dependabot.yml"])
def test_the_examples_name_an_index_as_this_server_has_it(
    repository: Repository, name: str
) -> None:
    text = (EXAMPLES / name).read_text()
    document = json.loads(text) if name.endswith(".json") else YAML(typ="safe").load(text)
    found = [url for url in addresses(document) if url.endswith("/simple/")]
    assert found
    for url in found:
        path = urlsplit(url).path.replace("/r/mine/", f"/r/{repository.name}/")
        answer = ask(repository, f"{repository.origin}{path}demo/", RENOVATE)
        assert answer.status_code == 200


def test_renovate_finds_homepage_source_and_changelog_in_the_legacy_json_api(
    repository: Repository,
) -> None:
    """As getDependency in lib/modules/datasource/pypi reads it (protocol 72)."""
    urls = {"Homepage": "https://a.example", "Source": "https://github.com/acme/linked"}
    urls["Changelog"] = "https://github.com/acme/linked/blob/main/CHANGELOG.md"
    extra = [("Project-URL", f"{label}, {url}") for label, url in urls.items()]
    repository.put(*make_wheel("linked", "1.0", requires_python=">=3.9", extra_metadata=extra))
    # With registryUrls ["…/r/mine/pypi/"] it asks for the project and `json` below that address.
    url = urljoin(f"{repository.upload_url}pypi/", "linked/json")
    answer = ask(
        repository, url, {"User-Agent": RENOVATE["User-Agent"], "Accept": "application/json"}
    )
    assert answer.status_code == 200
    found = answer.json()
    assert found["info"]["home_page"] == urls["Homepage"]
    assert found["info"]["project_urls"] == urls
    (file,) = found["releases"]["1.0"]
    assert file["requires_python"] == ">=3.9"
    assert file["yanked"] is False
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", file["upload_time"])
