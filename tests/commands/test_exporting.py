"""`export`: pages that say what a server says, of every kind of storage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import requests
import tomli
from flask.testing import FlaskClient

from private_pypi.backend import SupportsProjects
from private_pypi.errors import BackendError, BackendUnavailable
from private_pypi.index.document_reader import read_document
from private_pypi.index.local import LocalIndex
from private_pypi.model import Unlisted
from private_pypi.pages.output_folder import LIST
from private_pypi.pages.simple_api import Representation
from private_pypi.storage import plugins
from private_pypi.testing import LookupMemoryBackend, Memory, MemoryBackend, MemorySettings
from private_pypi.testing.contract.helpers import make_upload
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web import create_app
from tests.clients.environments import Client, install_client, make_venv, site_packages
from tests.commands.running import Ended, Run
from tests.github.fake import FakeGitHub
from tests.github.places import add_project, make_place
from tests.oci.small_registry import small_registry
from tests.pages.test_static_site import served, tree
from tests.web.conftest import Deploy, basic, deploy, publish

__all__ = ["deploy"]

MEMORY = Memory(write_secret="w-secret", read_secret="r-secret")


@dataclass(frozen=True, kw_only=True)
class ListedSettings(MemorySettings):
    """A storage in memory that a configuration can name."""

    storage: Memory = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "storage", MEMORY)


class ListedBackend(MemoryBackend):
    Settings = ListedSettings


class LookupBackend(LookupMemoryBackend):
    Settings = ListedSettings


@dataclass
class Repository:
    """A repository of some type: in a server, and for the command."""

    config: Path
    secret: str  # may write
    run: Run
    site: Path
    admin: str | None = None  # the text of admin_secret.toml
    environ: dict[str, str] = field(default_factory=dict)
    client: FlaskClient | None = None
    deploy: Deploy | None = None
    github: FakeGitHub | None = None

    def __post_init__(self) -> None:
        self.environ = {"SECRET": self.secret}

    def export(self, *flags: str) -> Ended:
        words = ["export", "mine", str(self.site), "--config", str(self.config), *flags]
        if self.secret:
            words.append("--secret_env=SECRET")
        ended = self.run(*words, environ=self.environ)
        assert not self.secret or self.secret not in ended.out + ended.err
        return ended

    def server(self) -> FlaskClient:
        if self.client is None:
            assert self.deploy is not None
            self.client = create_app(self.deploy(self.config.read_text(), self.admin)).test_client()
        return self.client

    @property
    def headers(self) -> dict[str, str]:
        return basic("mine", self.secret or "writer")

    def publish(self, filename: str, content: bytes) -> None:
        answer = publish(self.server(), filename, content, path="/r/mine/", headers=self.headers)
        assert answer.status_code == 200, answer.text

    def yank(self, project: str, version: str, reason: str) -> None:
        answer = self.server().post(
            f"/r/mine/simple/{project}/{version}/yank",
            data={"reason": reason},
            headers=self.headers,
        )
        assert answer.status_code == 200, answer.text

    def page(self, path: str, representation: Representation) -> str:
        answer = self.server().get(
            f"/r/mine/simple/{path}", headers={**self.headers, "Accept": representation.value}
        )
        assert answer.status_code == 200, answer.text
        return answer.text


KINDS = ("file_system", "memory", "lookup", "github", "github_projects", "oci")
Make = Callable[[str], Repository]


@pytest.fixture
def make(
    tmp_path: Path, run: Run, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    """`make("oci")`: an empty repository `mine` of this type."""
    with ExitStack() as stack:

        def make(kind: str) -> Repository:
            admin, github, secret = None, None, "w-secret"
            match kind:
                case "file_system":
                    (tmp_path / "files").mkdir()
                    table = f'path = "{tmp_path / "files"}"\nwrite_secret = "writer"\n'
                    kind_name, secret = kind, ""
                case "memory" | "lookup":
                    MEMORY.__init__(write_secret=secret, read_secret="r-secret")  # type: ignore[misc]
                    MEMORY.projects = {"demo", "other"} if kind == "lookup" else set()
                    install(monkeypatch)
                    table, kind_name = "", kind
                    admin = '[mine]\ntype = "memory"\nraw = "w-secret"\n'
                case "github" | "github_projects":
                    github = stack.enter_context(FakeGitHub())
                    place = make_place(github, kind, "acme", ("demo",))  # type: ignore[arg-type]
                    if kind == "github_projects":
                        add_project(github, place, "other")
                        table = ""
                    else:
                        table = 'repo = "pkgs"\n'
                    table += f'owner = "acme"\napi_url = "{github.api_url}"\n'
                    secret, kind_name = place.writer, kind
                    admin = f'[mine]\ntype = "github"\nraw = "{secret}"\n'
                case _:
                    registry = stack.enter_context(small_registry())
                    table = f'registry = "{registry.url}"\nnamespace = "acme"\nplain_http = true\n'
                    secret, kind_name = "walter:write-secret", kind
            if kind in ("lookup", "github_projects", "oci", "file_system"):
                admin = None
            config = tmp_path / "config.toml"
            config.write_text(f'[mine]\ntype = "{kind_name}"\nextra_index_url = ""\n{table}')
            return Repository(
                config=config,
                secret=secret,
                run=run,
                site=tmp_path / "site",
                admin=admin,
                deploy=deploy,
                github=github,
            )

        yield make


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a configuration say `type = "memory"` and `type = "lookup"`."""
    points = [
        EntryPoint(name=name, value=f"{__name__}:{backend.__name__}", group=plugins.BACKENDS)
        for name, backend in (("memory", ListedBackend), ("lookup", LookupBackend))
    ]

    def find(*, group: str) -> EntryPoints:
        return EntryPoints(points if group == plugins.BACKENDS else [])

    monkeypatch.setattr(plugins, "entry_points", find)


def without_serials(page: str) -> Any:
    """A JSON page, without the numbers that only a server has."""
    value = json.loads(page)
    value["meta"].pop("_last-serial")
    for each in value.get("projects", ()):
        each.pop("_last-serial")
    return value


FILES = (
    make_wheel("demo", "1.0"),
    make_wheel("demo", "1.0+local.2", requires_python=">=3.9,<4"),
    make_sdist("demo", "1.10"),
    make_wheel("demo", "1!0.5"),
    make_sdist("other", "2.0rc1"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_pages_say_what_the_server_says(make: Make, kind: str) -> None:
    repository = make(kind)
    files = [file for file in FILES if kind != "oci" or "!" not in file[0]]
    for filename, content in files:
        repository.publish(filename, content)
    repository.yank("demo", "1.0", 'no "good" <at> all & more')
    repository.yank("other", "2.0rc1", "")
    ended = repository.export()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"mine: projects: 2; files: 0 linked, {len(files)} in the folder\n"

    pages = {name: tree(repository.site).get(name) for name in ("index.json", "index.html")}
    assert json.loads(pages["index.json"] or b"") == without_serials(
        repository.page("", Representation.JSON)
    )
    for project in ("demo", "other"):
        page = (repository.site / project / "index.json").read_text()
        assert json.loads(page) == without_serials(
            repository.page(f"{project}/", Representation.JSON)
        )
        page = (repository.site / project / "index.html").read_text()
        assert page == repository.page(f"{project}/", Representation.TEXT_HTML)
        for file in json.loads((repository.site / project / "index.json").read_text())["files"]:
            served_file = repository.server().get(
                f"/r/mine/simple/{project}/{file['url']}", headers=repository.headers
            )
            path = repository.site / project / file["filename"]
            assert path.read_bytes() == served_file.data
            metadata = path.with_name(f"{path.name}.metadata")
            sha256 = file.get("core-metadata", {}).get("sha256")
            assert metadata.exists() == (sha256 is not None)
            if sha256 is not None:
                assert hashlib.sha256(metadata.read_bytes()).hexdigest() == sha256
    names = set(tree(repository.site))
    assert {".nojekyll", LIST, "index.html", "index.json", "index.toml"} <= names
    document, problems = read_document(repository.site / "index.toml", location_key="url")
    assert problems == ()
    locations = {entry.file.filename: entry.file.location for entry in document.entries}
    assert locations == {
        name: f"{'other' if name.startswith('other') else 'demo'}/{name}" for name, _ in files
    }
    written = b"".join(tree(repository.site).values())
    assert not repository.secret or repository.secret.encode() not in written
    assert str(repository.config.parent).encode() not in written


@pytest.mark.parametrize("kind", ["file_system", "github_projects"])
def test_a_second_run_fetches_and_writes_nothing_again(make: Make, kind: str) -> None:
    repository = make(kind)
    for filename, content in FILES:
        repository.publish(filename, content)
    assert repository.export().code == 0
    before = tree(repository.site)
    inodes = {path: path.stat().st_ino for path in repository.site.rglob("*")}
    assert repository.export().code == 0
    assert tree(repository.site) == before
    assert {path: path.stat().st_ino for path in repository.site.rglob("*")} == inodes


def test_what_was_deleted_goes_and_what_is_foreign_stays(make: Make) -> None:
    repository = make("memory")
    for filename, content in FILES:
        repository.publish(filename, content)
    assert repository.export().code == 0
    (repository.site / "CNAME").write_text("packages.invalid")
    MEMORY.remove("other-2.0rc1.tar.gz")
    repository.client = None
    answer = repository.run(
        "update_index", "mine", "--config", repository.config, "--secret_env=SECRET",
        environ=repository.environ,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    ended = repository.export()
    assert (ended.code, "; 4 old pages and files removed" in ended.out) == (0, True)
    assert not (repository.site / "other").exists()
    assert (repository.site / "CNAME").read_text() == "packages.invalid"


def test_a_folder_with_other_pages_is_refused(make: Make) -> None:
    repository = make("file_system")
    repository.publish(*FILES[0])
    repository.site.mkdir()
    (repository.site / "index.json").write_text("{}")
    ended = repository.export()
    assert (ended.code, "which this command did not write" in ended.err) == (1, True)
    assert tree(repository.site) == {"index.json": b"{}"}


TROUBLE = BackendUnavailable("the storage is down", retry_after=3600)  # not tried again


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("memory", "read_index"),
        ("memory", "recent_files"),
        ("memory", "open_file"),
        ("lookup", "access"),
        ("lookup", "access demo"),
        ("lookup", "projects"),
        ("lookup", "project_files"),
        ("lookup", "open_file"),
    ],
)
def test_trouble_leaves_the_pages_as_they_are(make: Make, kind: str, method: str) -> None:
    repository = make(kind)
    repository.publish(*FILES[0])
    assert repository.export().code == 0
    before = tree(repository.site)
    repository.publish(*FILES[1])
    MEMORY.fail_next(method, TROUBLE, times=100)
    ended = repository.export()
    assert (ended.code, "the storage is down" in ended.err) == (1, True)
    now = tree(repository.site)
    assert {path: now.get(path) for path in before if path != LIST} == {
        path: content for path, content in before.items() if path != LIST
    }
    MEMORY._faults.clear()
    assert repository.export().out == "mine: projects: 1; files: 0 linked, 2 in the folder\n"


def test_a_storage_that_shows_nothing_to_the_secret_is_not_an_empty_one(make: Make) -> None:
    for kind in ("memory", "lookup"):
        repository = make(kind)
        repository.publish(*FILES[0])
        assert repository.export().code == 0
        before = tree(repository.site)
        repository.environ["SECRET"] = "wrong"
        ended = repository.export()
        assert (ended.code, "does not accept the secret" in ended.err) == (1, True)
        assert tree(repository.site) == before
        repository.environ["SECRET"] = repository.secret
        if kind == "lookup":
            MEMORY.remove(FILES[0][0])
            MEMORY.projects.clear()
            ended = repository.export()
            assert (ended.code, "lists no projects for this secret" in ended.err) == (1, True)
            assert tree(repository.site) == before


@pytest.mark.parametrize("kind", ["memory", "lookup"])
def test_a_broken_file_is_told_and_one_that_cannot_be_read_stops_everything(
    make: Make, kind: str
) -> None:
    repository = make(kind)
    repository.publish(*FILES[0])
    MEMORY.drop("demo-7.0-py3-none-any.whl", b"garbage")
    MEMORY.drop("other-7.0-py3-none-any.whl", b"garbage")
    ended = repository.export()
    assert (ended.code, ended.out) == (0, "mine: projects: 1; files: 0 linked, 1 in the folder\n")
    for project in ("demo", "other"):
        assert f"warning: '{project}-7.0-py3-none-any.whl' is not on the pages" in ended.err
    before = tree(repository.site)
    MEMORY.gives_sha256 = False  # so that the file has to be opened
    MEMORY.drop(*make_wheel("demo", "8.0"))
    MEMORY.fail_next("open_file", BackendError("this one is stuck"), times=10)
    ended = repository.export()
    assert (ended.code, "this one is stuck" in ended.err) == (1, True)
    assert tree(repository.site) == before


def test_a_folder_of_the_storage_that_cannot_be_read_stops_everything(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = make("memory")
    repository.publish(*FILES[0])
    assert repository.export().code == 0
    before = tree(repository.site)

    def list_files(self: object) -> Iterator[object]:
        yield Unlisted(location="demo/", problem="'demo' cannot be read", may_hold_files=True)

    monkeypatch.setattr(ListedBackend.View, "list_files", list_files)
    monkeypatch.setattr(ListedBackend, "traits", replace(ListedBackend.traits, lists_cheaply=True))
    ended = repository.export()
    assert (ended.code, "'demo' cannot be read; nothing was written" in ended.err) == (1, True)
    assert tree(repository.site) == before


def test_a_synchronisation_may_take_longer_than_its_interval(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = make("memory")
    repository.publish(*FILES[0])
    monkeypatch.setattr(LocalIndex, "age", lambda _: 1e6)
    assert repository.export().code == 0
    assert repository.export("--project=missing").code == 1


def test_a_lookup_that_takes_long_is_waited_for(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = make("lookup")
    repository.publish(*FILES[0])
    monkeypatch.setattr("private_pypi.repositories.looked_up.BUDGET", 0.05)
    MEMORY.delay.update(projects=0.2, project_files=0.2)
    ended = repository.export()
    assert (ended.code, ended.out) == (0, "mine: projects: 1; files: 0 linked, 1 in the folder\n")


def test_other_content_than_the_index_says_is_never_shown(make: Make) -> None:
    repository = make("memory")
    filename, content = FILES[0]
    repository.publish(filename, content)
    for wrong in (content[:-1] + b"x", content + b"x", content[:-1]):
        MEMORY.transfer = lambda _, wrong=wrong: iter([wrong])  # type: ignore[misc]
        ended = repository.export()
        assert (ended.code, "another content" in ended.err) == (1, True)
        assert set(tree(repository.site)) == {LIST}


def test_core_metadata_that_only_the_storage_has_are_written(make: Make, tmp_path: Path) -> None:
    storage = make("memory")
    said = b"Metadata-Version: 2.4\nName: demo\nVersion: 1.0\n"
    for number, kept in enumerate((said, said + b"other", None)):
        upload = make_upload(tmp_path, f"demo-{number}.tar.gz", b"no archive", core_metadata=said)
        MEMORY.open("w-secret").put_file(replace(upload, core_metadata=kept))
    assert storage.export().code == 0
    files = tree(storage.site)
    assert files["demo/demo-0.tar.gz.metadata"] == said
    page = json.loads(files["demo/index.json"])
    assert ["core-metadata" in each for each in page["files"]] == [True, False, False]
    assert not {"demo/demo-1.tar.gz.metadata", "demo/demo-2.tar.gz.metadata"} & files.keys()
    assert files["demo/index.html"].count(b"data-core-metadata") == 1
    document = tomli.loads(files["index.toml"].decode())
    assert ["core_metadata_sha256" in each for each in document["pkgs"]] == [True, False, False]


def test_projects_can_be_named(make: Make) -> None:
    for kind in ("memory", "lookup"):
        repository = make(kind)
        for filename, content in FILES:
            repository.publish(filename, content)
        ended = repository.export("--project", "Other")
        assert ended.out == "mine: projects: 1; files: 0 linked, 1 in the folder\n"
        before = tree(repository.site)
        ended = repository.export("--project", "other,missing,../demo")
        assert ended.code == 1
        assert "'mine' has no project 'missing'; leave it out" in ended.err
        assert tree(repository.site) == before


def test_a_storage_without_a_list_of_projects_needs_their_names(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = make("lookup")
    repository.publish(*FILES[0])
    monkeypatch.setattr(LookupBackend.View, "lacks", frozenset({SupportsProjects}))
    ended = repository.export()
    assert (ended.code, "name them with --project" in ended.err) == (2, True)
    assert not repository.site.exists()
    assert repository.export("--project=demo").code == 0


@pytest.mark.parametrize("kind", ["github", "github_projects"])
def test_files_of_a_public_storage_are_linked_when_that_is_wanted(make: Make, kind: str) -> None:
    repository = make(kind)
    filename, content = FILES[1]
    repository.publish(filename, content)
    assert "0 linked, 1 in the folder" in repository.export("--link_public").out  # it is private
    github = repository.github
    assert github is not None
    github.repo("acme/pkgs" if kind == "github" else "acme/demo").private = False
    copied = tree(repository.site)
    assert "1 linked, 0 in the folder" in repository.export("--link_public").out
    expected = json.loads(copied["demo/index.json"])
    assert "core-metadata" in expected["files"][0]
    page = json.loads((repository.site / "demo" / "index.json").read_text())
    url = page["files"][0]["url"]
    assert url.startswith(f"{github.api_url}/acme/")
    assert url.endswith(f"/{filename.replace('+', '%2B')}")
    expected["files"][0]["url"] = url
    assert page == expected
    assert requests.get(url, timeout=30).content == content
    metadata = requests.get(f"{url}.metadata", timeout=30).content
    assert metadata == copied[f"demo/{filename}.metadata"]
    document = tomli.loads((repository.site / "index.toml").read_text())
    assert [each["url"] for each in document["pkgs"]] == [url]
    assert tree(repository.site).keys() == copied.keys() - {
        f"demo/{filename}",
        f"demo/{filename}.metadata",
    }


def test_a_storage_without_public_addresses_links_nothing(make: Make) -> None:
    ended = make("file_system").export("--link_public")
    assert (ended.code, "leave out --link_public" in ended.err) == (1, True)


def test_a_tenant_is_exported_by_its_name(make: Make) -> None:
    repository = make("github_projects")
    repository.publish(*FILES[0])
    text = repository.config.read_text().replace('owner = "acme"', "any_owner = true")
    repository.config.write_text(text)
    ended = repository.export("--user", "acme")
    assert ended.out == "acme: projects: 1; files: 0 linked, 1 in the folder\n"
    assert repository.export("--user", "a/b").code == 1


def test_an_empty_folder_name_is_refused(make: Make, tmp_path: Path) -> None:
    repository = make("file_system")
    ended = repository.run("export", "mine", "", "--config", repository.config)
    assert (ended.code, "FOLDER is empty" in ended.err) == (2, True)


@pytest.mark.needs("pip", "uv")
@pytest.mark.parametrize("name", ["pip", "uv"])
def test_installers_install_over_http_and_from_the_folder_itself(
    make: Make, tmp_path: Path, name: str
) -> None:
    repository = make("file_system")
    for filename, content in FILES:
        repository.publish(filename, content)
    repository.yank("demo", "1!0.5", "broken")
    assert repository.export().code == 0
    home = tmp_path / "home"
    home.mkdir()
    client = Client(name, install_client(name), home)
    with served(repository.site) as address:
        for number, index in enumerate((address, repository.site.as_uri())):
            target = make_venv(tmp_path / f"target-{number}")
            before = [f"--python={target}", "install"] if name == "pip" else ["pip", "install"]
            after = [] if name == "pip" else [f"--python={target}"]
            outcome = client.run(
                *before, *after, f"--index-url={index}/", "--only-binary=:all:", "demo"
            )
            assert outcome.code == 0, outcome.output
            found = [path.name for path in site_packages(target).glob("demo-*")]
            assert found == ["demo-1.0+local.2.dist-info"]
