"""The commands of the documents are run as they stand there, with real clients and real servers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import requests
import tomli

from private_pypi import cli
from private_pypi.commands import command_line
from private_pypi.errors import PrivatePypiError
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web.sessions.sessions import SessionSeal, new_session
from tests.clients.environments import CLIENTS, Client, install_client, make_venv
from tests.clients.releases import Release
from tests.documents import ALL, DOCS, ROOT, Block, blocks, commands, says
from tests.faults.servers import servers_below, table
from tests.faults.test_damage import make_root_of_02
from tests.github.fake import FakeGitHub
from tests.machine import need
from tests.oci.registries import registry
from tests.oci.test_root_addresses import namespace_at

ADDRESS = "127.0.0.1:8888"  # of the server, in every document
HELD_BY = {  # documents whose commands other tests run
    "container.md": "tests/container/test_documents.py",
    "operations.md": "tests/test_operations.py",
    "proxies.md": "tests/proxies/test_recipes.py",
    "scaling.md": "tests/replicas/test_files.py",
}
OF_PYOCI = ("pip", "uv", "poetry", "twine", "curl")  # the clients in the document of that name
_PATIENCE = 120  # seconds, for a command and for the start of a server

# Builds the project as its sdist builds it, with nothing that would have to be fetched.
_IN_TREE = """\
import pathlib


def build_wheel(directory, config_settings=None, metadata_directory=None):
    return copy("*.whl", directory)


def build_sdist(directory, config_settings=None):
    return copy("*.tar.gz", directory)


def copy(pattern, directory):
    [built] = pathlib.Path("built").glob(pattern)
    (pathlib.Path(directory) / built.name).write_bytes(built.read_bytes())
    return built.name


build_editable = build_wheel
"""
_BUILD_SYSTEMS = {
    "poetry": 'requires = ["poetry-core"]\nbuild-backend = "poetry.core.masonry.api"\n',
    "flit": 'requires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n',
}


@dataclass
class Session:
    """A folder, a shell's variables, and the server that was started last."""

    folder: Path
    variables: dict[str, str]
    address: str = ADDRESS
    replaced: dict[str, str] = field(default_factory=dict)  # placeholders and what they stand for
    api_url: str = ""
    _server: subprocess.Popen[bytes] | None = None
    said: list[str] = field(default_factory=list)

    # -- what blocks ask for -----------------------------------------------------------------------

    def take(self, block: Block) -> None:
        """Do what a marked block says."""
        if block.mark in ("file", "add"):
            path = self.folder / block.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a" if block.mark == "add" else "w", encoding="utf-8") as file:
                file.write(self._with_api_url(self.fill(block.text)))
            return
        given = commands(block)
        for number, command in enumerate(given, 1):
            line = self.fill(command.line)
            if block.mark == "serve" and number == len(given):
                said = self.serve(line)
            else:
                said = self.run(line)
            if self.api_url:
                said = said.replace(f'api_url = "{self.api_url}"\n', "")
            expected = self.fill(command.says)
            assert says(expected, said), f"{block.where}: $ {line}\n{said}\n--- not:\n{expected}"

    def fill(self, text: str) -> str:
        """A text of a document with what its placeholders stand for here."""
        text = text.replace(ADDRESS, self.address)
        for placeholder, meant in self.replaced.items():
            text = text.replace(placeholder, meant)
        return text

    def _with_api_url(self, text: str) -> str:
        """A configuration, for the GitHub that stands here for the public one."""
        if not self.api_url:
            return text
        return re.sub(r'(?m)^type = "github.*"$', rf'\g<0>\napi_url = "{self.api_url}"', text)

    # -- commands ----------------------------------------------------------------------------------

    def run(self, line: str) -> str:
        """Both streams of a command, which must succeed; what it exports, later ones have."""
        state = self.folder / "variables"
        ended = subprocess.run(
            ["sh", "-eu", "-c", f"{line}\nenv -0 > {shlex.quote(str(state))}"],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
        )
        said = ended.stdout.decode("utf-8", "backslashreplace")
        self.said.append(f"$ {line}\n{said}")
        assert ended.returncode == 0, f"$ {line}\n{said}"
        pairs = state.read_text().rstrip("\0").split("\0")
        self.variables = dict(pair.split("=", 1) for pair in pairs)
        state.unlink()
        return said

    def serve(self, line: str) -> str:
        """What a server says until it serves; it takes the place of the one before it."""
        self.end()
        log_path = self.folder / "server.log"
        with log_path.open("wb") as log:
            self._server = subprocess.Popen(
                ["sh", "-c", f"exec {line} --port 0"],
                cwd=self.folder,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _PATIENCE
        while (found := re.search(r"serves http://([^/\s]+).*\n", log_path.read_text())) is None:
            assert self._server.poll() is None, f"$ {line}\n{log_path.read_text()}"
            assert time.monotonic() < deadline, f"$ {line}\n{log_path.read_text()}"
            time.sleep(0.02)
        self.address = found[1]
        self._learn_secrets()
        said = log_path.read_text()
        self.said.append(f"$ {line}\n{said}")
        return said

    def _learn_secrets(self) -> None:
        """Those that `quickstart` made, and printed."""
        path = self.folder / "private-pypi-root" / "config.toml"
        if path.exists():
            made = tomli.loads(path.read_text())["mine"]
            self.replaced["READ_SECRET"] = made["read_secret"]
            self.replaced["WRITE_SECRET"] = made["write_secret"]

    def end(self) -> None:
        """Stop the server."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGTERM)
            self._server.wait(timeout=_PATIENCE)
            self._server = None

    # -- looking -----------------------------------------------------------------------------------

    def listed(self, project: str, *auth: str) -> set[str]:
        """The files on the page of a project."""
        answer = requests.get(
            f"http://{self.address}/r/{auth[0]}/simple/{project}/",
            auth=(auth[0], auth[1]),
            headers={"Accept": "application/vnd.pypi.simple.v1+json"},
            timeout=20,
        )
        assert answer.status_code == 200, answer.text
        return {file["filename"] for file in answer.json()["files"]}


# -- the sessions, what they find, and what must have come of them ---------------------------------

Check = Callable[[], object]
Prepare = Callable[[Session, ExitStack], Check]


def write_project(session: Session, name: str = "your-project", version: str = "1.0") -> set[str]:
    """What was built in dist/; the names of its files."""
    dist = session.folder / "dist"
    dist.mkdir()
    built = make_wheel(name, version), make_sdist(name, version)
    for filename, content in built:
        (dist / filename).write_bytes(content)
    return {filename for filename, _ in built}


def write_own_project(session: Session, tool: str) -> None:
    """A project of one's own, `app`, which a tool may build."""
    folder = session.folder
    (folder / "built").mkdir()
    release = Release(name="app", version="0.1")
    for filename, content in (release.wheel(), release.sdist()):
        (folder / "built" / filename).write_bytes(content)
    (folder / "in_tree.py").write_text(_IN_TREE)
    (folder / "app.py").write_bytes(release.module)
    system = _BUILD_SYSTEMS.get(
        tool, 'requires = []\nbuild-backend = "in_tree"\nbackend-path = ["."]\n'
    )
    (folder / "pyproject.toml").write_text(
        f'[build-system]\n{system}\n[project]\nname = "app"\nversion = "0.1"\n'
        'description = "An application."\nrequires-python = ">=3.11,<4"\n\n'
    )


def start_server(session: Session, end: ExitStack, name: str = "mine") -> Callable[..., None]:
    """A server with a repository; how to publish in it."""
    config = table(
        name,
        read_secret=["READ_SECRET", "SECRET"],
        write_secret=["WRITE_SECRET", "SECRET"],
        sync_index_interval=3600,
    )
    servers = end.enter_context(servers_below(session.folder))
    server = servers.start(session.folder / "served", config)
    session.address = urlsplit(server.url).netloc

    def publish(*files: tuple[str, bytes]) -> None:
        for filename, content in files:
            server.publish(filename, content, auth=(name, "SECRET"))

    return publish


def quick_start(session: Session, end: ExitStack) -> Check:
    files = write_project(session)
    # What is published last goes to the second server, whose secrets are variables.
    return lambda: holds(
        session.listed("your-project", "mine", session.variables["MINE_READ"]) == files
    )


def with_server(session: Session, end: ExitStack) -> Check:
    publish = start_server(session, end)
    publish(make_wheel("your-project", "1.0"), make_sdist("your-project", "1.0"))
    [wheel] = {make_wheel("your-project", "1.0")[0]}
    return lambda: holds(session.listed("your-project", "mine", "SECRET") == {wheel})


def installer(session: Session, end: ExitStack) -> Check:
    start_server(session, end)(make_wheel("your-project", "1.0"))
    return lambda: None


def publisher(tool: str, *, publishes: str, adds: bool) -> Prepare:
    def prepare(session: Session, end: ExitStack) -> Check:
        publish = start_server(session, end)
        write_own_project(session, tool)
        if publishes == "your-project":
            write_project(session)
        elif adds:
            publish(make_wheel("your-project", "1.0"))

        def check() -> None:
            version = "1.0" if publishes == "your-project" else "0.1"
            stem = f"{publishes.replace('-', '_')}-{version}"
            found = session.listed(publishes, "mine", "SECRET")
            assert {f"{stem}.tar.gz", f"{stem}-py3-none-any.whl"} == {
                name.replace("-py2.py3-", "-py3-") for name in found
            }
            if adds:
                assert "your-project" in (session.folder / "pyproject.toml").read_text()

        return check

    return prepare


def submitted(session: Session, end: ExitStack) -> Check:
    def check() -> None:
        answer = requests.get(
            f"http://{session.address}/r/mine/simple/", auth=("mine", "READ_SECRET"), timeout=20
        )
        assert answer.status_code == 200

    return check


def stored(session: Session, end: ExitStack) -> Check:
    write_project(session)
    storage = session.folder / "ROOT" / "cache" / "mine" / "storage"
    shutil.copytree(session.folder / "dist", storage)
    return lambda: holds("[[pkgs]]" in (storage / "index.toml").read_text())


def folder_of_wheels(session: Session, end: ExitStack) -> Check:
    files = write_project(session)
    return lambda: holds(session.listed("your-project", "mine", "READ_SECRET") == files)


def of_pypiserver(session: Session, end: ExitStack) -> Check:
    files = write_project(session)
    shutil.copytree(session.folder / "dist", session.folder / "packages")
    write_newer(session)
    newer = {name.replace("-1.0", "-1.1") for name in files}
    return lambda: holds(session.listed("your-project", "mine", "WRITE_SECRET") == files | newer)


def of_devpi(session: Session, end: ExitStack) -> Check:
    files = write_project(session)
    # What devpi-export of devpi-server 6.20 wrote.
    for name, version in (("your-project", "1.0"), ("other-thing", "2.0")):
        folder = session.folder / "export" / "acme" / "prod" / name / version
        folder.mkdir(parents=True)
        for filename, content in (make_wheel(name, version), make_sdist(name, version)):
            (folder / filename).write_bytes(content)
    (session.folder / "export" / "dataindex.json").write_text("{}")
    write_newer(session)
    newer = {name.replace("-1.0", "-1.1") for name in files}

    def check() -> None:
        assert session.listed("your-project", "mine", "READ_SECRET") == files | newer
        assert len(session.listed("other-thing", "mine", "READ_SECRET")) == 2

    return check


def write_newer(session: Session) -> None:
    """The next version of the project takes the place of the first in dist/."""
    shutil.rmtree(session.folder / "dist")
    write_project(session, version="1.1")


def old_root(session: Session, end: ExitStack) -> Check:
    root = session.folder / "ROOT"
    make_root_of_02(root, [make_wheel("demo", "1.0")])

    def check() -> None:
        left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        wheel = make_wheel("demo", "1.0")[0]
        assert left == {
            "cache/mine/storage/index.toml",
            f"cache/mine/storage/demo/{wheel}",
            f"cache/mine/storage/demo/{wheel}.meta",
            "lock/mine/index.toml.lock",
            f"lock/mine/{wheel}.lock",
        }

    return check


def packages(session: Session, end: ExitStack) -> Check:
    start_server(session, end, "packages")
    session.variables["UV_PUBLISH_PASSWORD"] = "SECRET"
    files = write_project(session)
    return lambda: holds(session.listed("your-project", "packages", "SECRET") == files)


def on_github(session: Session, end: ExitStack) -> Check:
    github = end.enter_context(FakeGitHub())
    github.make_org("acme")
    session.replaced["ghp_…"] = github.make_token("alice")
    session.api_url = github.enterprise_url
    write_project(session, "acme-core")
    (session.folder / "admin_secret.toml").write_text(
        '[acme]\ntype = "github"\nenv = "ACME_TOKEN"\n'
    )
    # What the commands are told on no other machine: where this GitHub is, and where we are from.
    wrap(
        session,
        "private_pypi",
        'case "$1" in\n'
        f"github.init_pkg_repo) set -- \"$@\" --api_url='{session.api_url}' "
        "--requirement='private-pypi @ git+https://code.invalid/x@"
        "0123456789abcdef0123456789abcdef01234567';;\n"
        f"github.gen_gh_pages | update_index) set -- \"$@\" --api_url='{session.api_url}';;\n"
        "esac\n",
    )

    def check() -> None:
        tags = {release.tag_name for release in github.releases("acme/packages")}
        assert tags == {"acme_core-1.0.tar.gz", "acme_core-1.0-py3-none-any.whl"}
        assert "acme_core" in str(github.file("acme/packages", "index.toml"))
        assert (session.folder / "site" / "acme-core" / "index.html").exists()
        assert github.violations == []

    return check


def on_github_projects(session: Session, end: ExitStack) -> Check:
    github = end.enter_context(FakeGitHub())
    github.make_repo("acme", "demo", private=True)
    filename, content = make_wheel("demo", "1.0")
    github.make_release("acme/demo", "v1.0", {filename: content})
    token = github.make_token("alice", {"acme/demo": "write"})
    session.replaced |= {"acme:TOKEN": f"acme:{token}", "-p TOKEN": f"-p {token}"}
    session.api_url = github.api_url
    files = write_project(session, "demo", "2.0")
    return lambda: holds(session.listed("demo", "acme", token) == files | {filename})


def over_registry(tool: str) -> Prepare:
    """A server with the addresses of PyOCI, and a registry that has `hello`, if it is only read."""

    def prepare(session: Session, end: ExitStack) -> Check:
        running = end.enter_context(registry(session.folder / "registry", bearer=True))
        servers = end.enter_context(servers_below(session.folder))
        server = servers.start(
            session.folder / "served",
            '[any]\ntype = "oci"\nany_registry = true\nplain_http = true\n'
            f'registries = ["{running.url}"]\n',
        )
        session.address = urlsplit(server.url).netloc
        place = f"{session.address}/{quote(running.url, safe='')}"
        session.replaced |= {
            "https://USER:TOKEN@pypi.acme.example/ghcr.io": f"http://USER:TOKEN@{place}",
            "https://pypi.acme.example/ghcr.io": f"http://{place}",
        }
        files = dict((make_wheel("hello", "1.0"), make_sdist("hello", "1.0")))
        if tool in ("uv", "poetry"):
            write_own_project(session, tool)
        if tool in ("uv", "twine"):
            write_project(session, "hello")
        else:
            for filename, content in files.items():
                namespace_at((server.url, running.url), "acme").put(filename, content)

        def check() -> None:
            project = "app" if tool == "poetry" else "hello"
            page = requests.get(
                f"http://{place}/acme/{project}/", auth=("USER", "TOKEN"), timeout=20
            )
            if tool == "curl":
                assert re.findall(r">([^<]+\.(?:whl|gz))<", page.text) == []
                return
            assert page.status_code == 200, page.text
            assert len(re.findall(r"#sha256=", page.text)) == 2
            if tool == "pip":
                assert any((session.folder / "venv").rglob("hello-1.0.dist-info"))
            if tool in ("uv", "poetry"):
                assert "hello" in (session.folder / f"{tool}.lock").read_text()

        return check

    return prepare


def with_key(session: Session, end: ExitStack) -> Check:
    def check() -> None:
        key = session.variables["PRIVATE_PYPI_SECRET_KEY"]
        opened = new_session(1.0)
        sealed = SessionSeal([key]).seal(opened)
        assert SessionSeal([key]).open(sealed, 2.0) == opened

    return check


def static_site(session: Session, end: ExitStack) -> Check:
    def check() -> None:
        start = session.folder / "site" / "_site" / "index.html"
        assert "There are no projects yet" in start.read_text()

    return check


def holds(condition: bool) -> None:
    assert condition


SESSIONS: Mapping[tuple[str, str], Prepare] = {
    ("quick-start.md", "quick start"): quick_start,
    ("clients.md", "pip"): installer,
    ("clients.md", "uv"): publisher("uv", publishes="your-project", adds=True),
    ("clients.md", "poetry"): publisher("poetry", publishes="app", adds=True),
    ("clients.md", "pdm"): publisher("pdm", publishes="app", adds=True),
    ("clients.md", "twine"): publisher("twine", publishes="your-project", adds=False),
    ("clients.md", "hatch"): publisher("hatch", publishes="your-project", adds=False),
    ("clients.md", "flit"): publisher("flit", publishes="app", adds=False),
    ("configuration.md", "submit"): submitted,
    ("configuration.md", "submit again"): submitted,
    ("configuration.md", "environment"): stored,
    ("file_system.md", "folder"): folder_of_wheels,
    ("http.md", "server"): with_server,
    ("moving-from-0.2.md", "old ROOT"): old_root,
    ("moving-from-pypiserver.md", "pypiserver"): of_pypiserver,
    ("moving-from-devpi.md", "devpi"): of_devpi,
    **{("moving-from-pyoci.md", tool): over_registry(tool) for tool in OF_PYOCI},
    ("ci.md", "packages"): packages,
    ("sign-in.md", "key"): with_key,
    ("static_site.md", "site"): static_site,
    ("github.md", "github"): on_github,
    ("github_projects.md", "projects"): on_github_projects,
}


def wrap(session: Session, name: str, before: str = "") -> None:
    """Put a program on the path of a session."""
    path = session.folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    program = {
        "private_pypi": [sys.executable, "-m", "private_pypi"],
        # `pip` is that of the user's environment.
        "pip": [
            str(install_client("pip") / "bin" / "python"),
            *("-m", "pip", f"--python={session.folder / 'venv'}"),
        ],
    }[name]
    path.write_text(f'#!/bin/sh\n{before}exec {shlex.join(program)} "$@"\n')
    path.chmod(0o755)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A user's folder with an empty home, and every tool that the documents name."""
    folder = tmp_path / "folder"
    home = folder / "home"
    home.mkdir(parents=True)
    make_venv(folder / "venv")
    need("curl")
    need("openssl")
    variables = Client("pip", install_client("pip"), home).scrubbed()
    for name in ("PIP_CONFIG_FILE", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        del variables[name]
    variables["no_proxy"] = "127.0.0.1,localhost"
    variables["PATH"] = f"{folder / 'bin'}:/usr/bin:/bin"
    session = Session(folder, variables)
    for name in ("private_pypi", "pip"):
        wrap(session, name)
    yield session
    session.end()
    print("\n".join(session.said))  # shown when the test failed


def sessions() -> list[tuple[str, str]]:
    """Those that the documents have, in their order."""
    found = [(each.document.name, each.session) for each in all_blocks() if is_of_session(each)]
    return [*dict.fromkeys(found)]


def all_blocks() -> Iterator[Block]:
    return (block for document in DOCS for block in blocks(document))


def is_of_session(block: Block) -> bool:
    return block.mark in ("run", "serve", "file", "add")


@pytest.mark.needs("clients", "curl", "openssl", "docker-registry")
@pytest.mark.parametrize(("document", "name"), sessions())
def test_the_commands_do_what_the_document_says(session: Session, document: str, name: str) -> None:
    its_blocks = [
        block
        for block in all_blocks()
        if is_of_session(block) and (block.document.name, block.session) == (document, name)
    ]
    text = "".join(block.text for block in its_blocks)
    for client in CLIENTS:
        if client != "pip" and re.search(rf"(?m)^\$ (.* )?{client} ", text):
            target = install_client(client) / "bin" / client
            (session.folder / "bin" / client).symlink_to(target)
    with ExitStack() as end:
        end.callback(session.end)
        check = SESSIONS[document, name](session, end)
        for block in its_blocks:
            session.take(block)
        check()


def test_every_session_is_prepared_and_every_preparation_used() -> None:
    assert sorted(sessions()) == sorted(SESSIONS)


def test_every_command_is_run_by_somebody() -> None:
    forgotten = [
        block.where
        for block in all_blocks()
        if block.language == "console"
        if block.mark not in ("run", "serve", "not run here")
        if block.document.name not in HELD_BY
    ]
    assert forgotten == []
    for document, test in HELD_BY.items():
        assert document in (ROOT / test).read_text()


@pytest.mark.needs("clients")
def test_a_command_that_fails_or_says_something_else_is_found(session: Session) -> None:
    def block(text: str) -> Block:
        return Block(DOCS[0], 1, "console", text, "run", "test")

    session.take(block("$ echo one two\none…\n$ export A=1\n"))
    session.take(block('$ echo "$A" \\\n    more\n1 more\n'))
    for wrong in ("$ false\n", "$ echo one\ntwo\n", "$ private_pypi srever\n…\n", "$ echo $B\n"):
        with pytest.raises(AssertionError):
            session.take(block(wrong))


# -- calls that are shown, but not run ---------------------------------------------------------


def calls() -> list[object]:
    """Every `private_pypi …` in a block of any document."""
    found = []
    for document in ALL:
        for block in blocks(document):
            for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
                line = re.sub(r"^(\$|docker run .*? private-pypi(?=\s)) ", "", line.strip())
                if re.match(r"private_pypi( |$)", line):
                    found.append(pytest.param(line, id=f"{block.where} {line[:40]}"))
    return found


@pytest.mark.parametrize("line", calls())
def test_calls_that_are_shown_are_right(line: str) -> None:
    words = shlex.split(re.split(r" [|>#] ", line)[0], comments=True)[1:]
    if not words or words[0] in ("-h", "--help", "serves"):
        return
    # `[FILENAME]` may be given, `<flags>` stand for some.
    words = [re.sub(r"^\[(.*)\]$", r"\1", word) for word in words if not word.startswith("<")]
    words = ["1.0" if word == "VERSION" else word for word in words]
    command = cli._command(words[0])
    if words[1:2] == ["TYPE"]:
        words[1] = "file_system"
    try:
        if not command_line.asks_for_help(words):
            command_line.check(command, command_line.from_words(command, words[1:]))
    except PrivatePypiError as error:
        raise AssertionError(f"{line}: {error}") from error


def test_calls_are_found_in_many_documents() -> None:
    assert len(calls()) > 20
