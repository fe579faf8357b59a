"""What we show people to type and to write leaves each client one index: ours.

A name that is claimed, and that nothing but the metadata of another project names, must not be
looked for anywhere else. The public index that a client knows by itself can only be asked through
the proxy of these tests, which notes for which host it was asked. The one that our server sends
clients on to is a server of the test.
"""

from __future__ import annotations

import http.server
import shlex
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pypi_simple import PYPI_SIMPLE_ENDPOINT

from private_pypi.testing.distributions import make_wheel
from tests.documents import DOCS, blocks

from .environments import Client, Outcome, make_venv
from .installers import installed
from .serving import Repository, serving
from .test_pages import PROJECT, said, with_netrc

pytestmark = pytest.mark.needs("clients")

MakeClient = Callable[[str], Client]


@dataclass
class Outside:
    """Everything that a client could ask but our repository, and what it asked there."""

    index: str = ""  # of the local index that stands for the public one
    proxy: str = ""
    paths: list[str] = field(default_factory=list)  # of requests to that index
    hosts: list[str] = field(default_factory=list)  # to which the proxy should have connected

    @property
    def variables(self) -> dict[str, str]:
        """For a client, so that it reaches the rest of the world through the proxy alone."""
        return dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), self.proxy)


class LocalIndex(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and notes what it was asked."""

    def __init__(self, *arguments: object, outside: Outside, folder: Path) -> None:
        self._outside = outside
        super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._outside.paths.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as inherited
        """Say nothing: the tests look at the paths."""


class Proxy(http.server.BaseHTTPRequestHandler):
    """Connects nobody, and notes to whom it should have."""

    def __init__(self, *arguments: object, outside: Outside) -> None:
        self._outside = outside
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_CONNECT(self) -> None:
        self._outside.hosts.append(self.path.rpartition(":")[0])
        self.send_error(502)

    def do_GET(self) -> None:
        self._outside.hosts.append(urlsplit(self.path).hostname or "")
        self.send_error(502)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as inherited
        """Say nothing: the tests look at the hosts."""


def serve(handler: Callable[..., socketserver.BaseRequestHandler]) -> http.server.HTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A public index that has a project of everybody's, `left`, and one under a name of ours."""
    outside, folder = Outside(), tmp_path_factory.mktemp("public")
    for name, version in (("left", "1.0"), ("acme-core", "99.0")):
        filename, content = make_wheel(name, version)
        page = folder / "simple" / name
        page.mkdir(parents=True)
        (page / filename).write_bytes(content)
        (page / "index.html").write_text(f'<!DOCTYPE html><a href="{filename}">{filename}</a>')
    index = serve(partial(LocalIndex, outside=outside, folder=folder))
    proxy = serve(partial(Proxy, outside=outside))
    outside.index = f"http://127.0.0.1:{index.server_port}/simple/"
    outside.proxy = f"http://127.0.0.1:{proxy.server_port}"
    yield outside
    for server in (index, proxy):
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory, outside: Outside) -> Iterator[Repository]:
    """A repository that claims `acme-*` and has none of it, but a project that depends on it."""
    config = (
        '[mine]\ntype = "file_system"\nread_secret = "reader"\nwrite_secret = "writer"\n'
        f'claimed = ["acme-*"]\nextra_index_url = "{outside.index}"\n'
    )
    with serving(tmp_path_factory.mktemp("server"), config) as origin:
        mine = Repository(origin, "mine", read_secret="reader", write_secret="writer")
        for name, needs in (("demo", "acme-core"), ("other", "left")):
            mine.put(*make_wheel(name, "1.0", extra_metadata=[("Requires-Dist", needs)]))
        yield mine


# -- what is shown, typed and written: each installs one project into the environment it returns ---

Installs = Callable[[Client, Repository, str, dict[str, str]], tuple[Outcome, Path]]


def shown(mine: Repository, project: str, tool: str) -> list[list[str]]:
    """The commands of a project's page, in words and without the program."""
    text = said(mine, f"project/{project}/")[f"Command that installs with {tool}"]
    return [shlex.split(line)[1:] for line in text.splitlines()]


def pip_of_the_page(
    pip: Client, mine: Repository, project: str, env: dict[str, str]
) -> tuple[Outcome, Path]:
    target = make_venv(pip.home / project)
    [words] = shown(mine, project, "pip")
    return pip.run(f"--python={target}", *words, env=env), target


def pip_that_is_set_up(
    pip: Client, mine: Repository, project: str, env: dict[str, str]
) -> tuple[Outcome, Path]:
    target = make_venv(pip.home / project)
    config = pip.home / "pip.conf"
    config.write_text(said(mine, "setup/")["pip.conf"])
    env = env | {"PIP_CONFIG_FILE": str(config)}
    return pip.run(f"--python={target}", "install", project, env=env), target


def uv_of_the_page(
    uv: Client, mine: Repository, project: str, env: dict[str, str]
) -> tuple[Outcome, Path]:
    folder = new_project(uv, project)
    [words] = shown(mine, project, "uv")
    return uv.run(*words, cwd=folder, env=env), folder / ".venv"


def uv_that_is_set_up(
    uv: Client, mine: Repository, project: str, env: dict[str, str]
) -> tuple[Outcome, Path]:
    folder = new_project(uv, project, said(mine, "setup/")["Table of pyproject.toml for uv"])
    return uv.run("add", project, cwd=folder, env=env), folder / ".venv"


def poetry_of_the_page(
    poetry: Client, mine: Repository, project: str, env: dict[str, str]
) -> tuple[Outcome, Path]:
    folder = new_project(poetry, project, "[tool.poetry]\npackage-mode = false\n")
    env = env | {"POETRY_VIRTUALENVS_IN_PROJECT": "true"}
    outcomes = [poetry.run(*words, cwd=folder, env=env) for words in shown(mine, project, "poetry")]
    return outcomes[-1], folder / ".venv"


def pdm_of_the_document(
    pdm: Client, mine: Repository, project: str, env: dict[str, str]
) -> tuple[Outcome, Path]:
    [document] = [each for each in DOCS if each.name == "clients.md"]
    [block] = [each for each in blocks(document) if each.about == "pdm, pyproject.toml"]
    text = block.text.replace("http://127.0.0.1:8888/r/mine/simple/", mine.index_url)
    folder = new_project(pdm, project, "[tool.pdm]\ndistribution = false\n\n" + text)
    target = make_venv(folder / ".venv")
    return pdm.run("add", project, cwd=folder, env=env | {"VIRTUAL_ENV": str(target)}), target


def new_project(client: Client, name: str, tables: str = "") -> Path:
    folder = client.home / f"consumer-of-{name}"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(f"{PROJECT}\n{tables}")
    return folder


@pytest.mark.parametrize(
    ("name", "installs"),
    [
        ("pip", pip_of_the_page),
        ("pip", pip_that_is_set_up),
        ("uv", uv_of_the_page),
        ("uv", uv_that_is_set_up),
        ("poetry", poetry_of_the_page),
        ("pdm", pdm_of_the_document),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_claimed_name_that_is_a_dependency_comes_from_nowhere_else(
    name: str, installs: Installs, client: MakeClient, mine: Repository, outside: Outside
) -> None:
    tool = with_netrc(client(name), mine)
    (tool.home / ".netrc").chmod(0o600)
    outside.paths.clear()
    outside.hosts.clear()
    refused, target = installs(tool, mine, "demo", outside.variables)
    assert refused.code != 0, refused.output
    assert "acme-core" in refused.output
    assert not target.exists() or "acme-core" not in installed(target)
    assert (outside.paths, outside.hosts) == ([], []), refused.output
    # The one index is enough for what everybody has.
    done, target = installs(tool, mine, "other", outside.variables)
    assert done.code == 0, done.output
    assert installed(target).items() >= {"other": "1.0", "left": "1.0"}.items()
    assert {path.split("/")[2] for path in outside.paths} == {"left"}
    assert outside.hosts == []


def test_a_further_index_of_uv_leaves_the_public_one_in_place(
    client: MakeClient, mine: Repository, outside: Outside
) -> None:
    """Why `uv add --index` is shown nowhere; and that the proxy sees who asks elsewhere."""
    uv = with_netrc(client("uv"), mine)
    outside.hosts.clear()
    words = [word.replace("--default-index", "--index") for word in shown(mine, "demo", "uv")[0]]
    assert uv.run(*words, cwd=new_project(uv, "demo"), env=outside.variables).code != 0
    assert set(outside.hosts) == {urlsplit(PYPI_SIMPLE_ENDPOINT).hostname}


def test_an_explicit_source_of_poetry_leaves_dependencies_to_the_public_index(
    client: MakeClient, mine: Repository, outside: Outside
) -> None:
    poetry = with_netrc(client("poetry"), mine)
    folder = new_project(poetry, "demo", "[tool.poetry]\npackage-mode = false\n")
    outside.hosts.clear()
    poetry.run("source", "add", "--priority=explicit", "mine", mine.index_url, cwd=folder)
    added = poetry.run("add", "--source=mine", "demo", cwd=folder, env=outside.variables)
    assert added.code != 0
    assert set(outside.hosts) == {urlsplit(PYPI_SIMPLE_ENDPOINT).hostname}
