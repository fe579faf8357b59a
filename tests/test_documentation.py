"""The documents name every flag, key, address, error and variable; their links and tables hold."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import certifi
import pytest
from waitress.adjustments import Adjustments

from private_pypi import cli, errors
from private_pypi.commands.command_line import REQUIRED, Parameter
from private_pypi.configuration import config
from private_pypi.configuration.config import ConfigurationText, read_configuration
from private_pypi.configuration.fields import backend_fields
from private_pypi.configuration.groups import OF_GROUPS
from private_pypi.configuration.tables import COMMON
from private_pypi.errors import PrivatePypiError
from private_pypi.storage import plugins
from private_pypi.web import create_app
from private_pypi.web.http.answers import _STATUSES
from private_pypi.web.serving.options import DEFAULTS
from tests.documents import ALL, DOCS, ROOT, Row, anchors, blocks, links, marks, tables
from tests.web.conftest import Deploy, deploy

__all__ = ["deploy"]

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
COMMANDS = (*cli._OWN_COMMANDS, *plugins.command_names())
TYPES = plugins.backend_types()
MARKS = ("table", "admin secrets", "run", "serve", "file", "add", "not run here")


def rows(topic: str) -> list[Row]:
    """The rows of all tables of a topic, in whatever document."""
    return [row for doc in DOCS for about, found in tables(doc) if about == topic for row in found]


def named(topic: str) -> set[str]:
    return {name for row in rows(topic) for name in row.names}


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


# -- flags ---------------------------------------------------------------------------------------


def flags(command: str) -> dict[str, Parameter]:
    described = cli._command(command)
    return {f"--{each.name}": each for each in described.parameters if not each.by_position}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_a_command_is_in_its_table(command: str) -> None:
    if not flags(command):
        assert rows(f"flags of {command}") == []
    assert named(f"flags of {command}") == set(flags(command))
    text = (ROOT / "docs" / "commands.md").read_text()
    assert re.search(rf"(?m)^## private_pypi .*\b{re.escape(command)}\b", text)
    for each in cli._command(command).parameters:
        if each.by_position:
            assert each.name.upper() in text


@pytest.mark.parametrize("command", COMMANDS)
def test_the_defaults_of_flags_are_those_of_the_documents(command: str) -> None:
    for row in rows(f"flags of {command}"):
        for name, told in zip(row.names, told_defaults(row), strict=True):
            check_default(row, name, told, flags(command)[name].default)


def test_every_flag_of_waitress_is_in_a_table_with_its_default() -> None:
    described = cli._command("server")
    assert described.more is not None
    known = {f"--{each.name}" for each in described.more({})}
    assert named("flags of waitress") == known
    for row in rows("flags of waitress"):
        for name, told in zip(row.names, told_defaults(row), strict=True):
            option = name.removeprefix("--")
            default = DEFAULTS.get(option, getattr(Adjustments, option, None))
            if option == "unix_socket_perms":
                default = f"{default:o}"
            if option in ("listen", "trusted_proxy_count", "max_request_body_size"):
                continue  # ours is none, or what `--host` and `--port` say
            check_default(row, name, told, default)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_flag_says_something(command: str) -> None:
    silent = [each.name for each in cli._command(command).parameters if not each.help]
    assert silent == []


# -- keys ----------------------------------------------------------------------------------------


def keys(type_: str) -> dict[str, Any]:
    """The keys of a backend's table, with the defaults of their fields."""
    fields = backend_fields(plugins.load_backend(type_))
    return {key: field.default for field in fields for key in field.keys}


def test_every_key_of_a_table_is_documented() -> None:
    assert named("keys of every repository") == set(COMMON)
    for row in rows("keys of every repository"):
        defaults = {
            "sync_index_interval": config.DEFAULT_SYNC_INDEX_INTERVAL,
            "stale_for": config.DEFAULT_STALE_FOR,
            "claimed": (),
            "anonymous_read": False,
        }
        check_default(row, row.names[0], row.cells[0], defaults.get(row.names[0]))


@pytest.mark.parametrize("type_", TYPES)
def test_every_key_of_a_backend_is_documented_with_its_default(type_: str) -> None:
    found = rows(f"keys of {type_}")
    own = keys(type_)
    own_document = ROOT / "docs" / f"{type_}.md"
    in_configuration = {
        name
        for topic, its_rows in tables(ROOT / "docs" / "configuration.md")
        for row in its_rows
        for name in row.names
        if topic == f"keys of {type_}"
    }
    assert in_configuration == set(own)
    assert own_document in DOCS
    for row in found:
        assert set(row.names) <= set(own) | set(COMMON), row.where
        for name, told in zip(row.names, told_defaults(row), strict=True):
            check_default(row, name, told, own.get(name))


def test_every_key_of_a_group_is_documented_with_its_default() -> None:
    defaults = {"claimed": (), "mix": (), "anonymous_read": False}
    for document in ("group.md", "configuration.md"):
        found = dict(tables(ROOT / "docs" / document))[f"keys of {config.GROUP}"]
        assert {name for row in found for name in row.names} == set(OF_GROUPS)
        for row in found:
            (name,) = row.names
            check_default(row, name, row.cells[0], defaults.get(name))


# -- addresses, errors, variables ----------------------------------------------------------------


@pytest.fixture
def rules(deploy: Deploy) -> set[tuple[str, str, bool]]:
    """Method, address and whether it is of a repository, of every rule of the application."""
    found = [
        (method, re.sub(r"<(?:any\(.*\)|version):(\w+)>", r"<\1>", rule.rule))
        for rule in create_app(deploy(None)).url_map.iter_rules()
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS")
    ]
    prefix = "/r/<repository>"
    of_repositories = {
        (method, rule.removeprefix(prefix)) for method, rule in found if rule.startswith(prefix)
    }
    return {
        (method, bare.rstrip("/"), (method, bare) in of_repositories)
        for method, rule in found
        for bare in [rule.removeprefix(prefix)]
    }


def test_every_address_is_documented(rules: set[tuple[str, str, bool]]) -> None:
    for of_repository, topic in ((True, "routes of a repository"), (False, "routes of the server")):
        known = {(method, rule) for method, rule, such in rules if such is of_repository}
        told = set()
        for name in named(topic):
            method, _, address = name.partition(" ")
            told.add((method, address.rstrip("/")))
        assert told == known


def test_every_error_is_documented_with_its_status() -> None:
    classes = {
        name: each
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, PrivatePypiError)
    }
    told = {row.names[0]: row.cells[0] for row in rows("errors")}
    assert told == {
        name: str(next((status for kind, status in _STATUSES if issubclass(each, kind)), 500))
        for name, each in classes.items()
    }


def test_every_status_of_an_error_is_explained() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    explained = {int(each) for each in re.findall(r"(?m)^\| (\d{3}) ", text)}
    assert {status for _, status in _STATUSES} | {200, 404, 500} <= explained


def test_every_variable_that_is_read_is_documented() -> None:
    sources = [*ROOT.glob("private_pypi/**/*.py"), *ROOT.glob("backends/private_pypi_*/*.py")]
    read = {
        node.value
        for path in [*sources, ROOT / "docker" / "healthcheck.py"]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.fullmatch(
            r"(PRIVATE_PYPI|PYWHARF|PYOCI|OTLP|OTEL|DEPLOYMENT|CONTAINER)(_[A-Z]+)+|PORT|RUST_LOG",
            node.value,
        )
    }
    assert len(read) >= 5
    read |= {"OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"}  # by the SDK of OpenTelemetry
    told = named("variables")
    flags_of = {name.removesuffix("<FLAG>") for name in told if name.endswith("<FLAG>")}
    known = {name for name in told if not name.endswith("<FLAG>")}
    assert {name for name in read if not name.startswith(tuple(flags_of))} == known


def test_no_table_is_of_an_unknown_topic() -> None:
    topics = {topic for doc in DOCS for topic, _ in tables(doc)}
    assert topics == {
        *(f"flags of {command}" for command in COMMANDS if flags(command)),
        *(f"keys of {type_}" for type_ in TYPES),
        *(
            "flags of waitress",
            "keys of every repository",
            "keys of group",
            "errors",
            "statuses",
            "variables",
        ),
        *("routes of a repository", "routes of the server"),
    }


# -- what 0.2 had --------------------------------------------------------------------------------

OF_02 = {
    "Flags": """
        ROOT --config --admin_secret --config_or_admin_secret_can_be_text --auth_read_expires
        --auth_write_expires --extra_index_url --debug --host --port --private_pypi_version
        --pywharf_version --name --repo --owner --token --branch --index_filename
        --sync_index_interval --enable_gh_pages --dry_run --output_folder --secret --secret_env
    """,
    "Programs": """
        private_pypi pywharf private_pypi_server private_pypi_update_index pywharf_server
        pywharf_update_index private_pypi_github_init_pkg_repo private_pypi_github_gen_gh_pages
        private-pypi-core private-pypi-github pywharf-core pywharf-github
        privatepypi/private-pypi pywharf/pywharf
    """,
    "Configuration": """
        type owner repo branch index_filename max_file_bytes sync_index_interval read_secret
        write_secret raw env
    """,
    "Variables": """
        PRIVATE_PYPI_COMMAND PRIVATE_PYPI_COMMAND_<FLAG> PYWHARF_COMMAND PYWHARF_COMMAND_<FLAG>
        PRIVATE_PYPI_SECRET_KEY PYWHARF_SECRET_KEY DYNAMIC_DRAMATIQ_REDIS_BROKER_PORT
    """,
    "Routes": """
        /simple/ /simple/<distrib>/ /simple/<distrib>/<filename> /local_file/<token>
        /index_mtime/ /initialize/ /login/ /logout/
    """,
    "ROOT": """
        config.toml admin_secret.toml index/<name>/index.toml lock/<name>/*.lock
        log/private_pypi_server.log log/pywharf_server.log log/dramatiq_worker.log log/<name>/ job/
        cache/<name>/storage/ cache/upload-… cache/<name>/tmp_index_….toml
    """,
    "PyPIHub": """
        pypihub -c 3141 server.tls.crt server.tls.key /asset/<id>/<name> /simple/
    """,
}


@pytest.mark.parametrize("heading", OF_02)
def test_what_became_of_everything_in_02_is_told(heading: str) -> None:
    text = (ROOT / "docs" / "moving-from-0.2.md").read_text()
    section = re.split(r"(?m)^## ", text.partition(f"\n## {heading}\n")[2])[0]
    first_cells = "".join(line.split("|")[1] for line in section.splitlines() if line[:1] == "|")
    told = set(re.split(r"[`\s,]+", first_cells))
    assert sorted(set(OF_02[heading].split()) - told) == []


# -- what holds for every document ---------------------------------------------------------------


@pytest.mark.parametrize("document", ALL, ids=ids)
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in links(document):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (document.parent / path).resolve() if path else document
        exists = target.exists() and target.is_relative_to(ROOT)
        if not exists or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_index_names_every_document() -> None:
    index = ROOT / "docs" / "README.md"
    assert {ROOT / "docs" / link for link in links(index)} >= set(DOCS) - {index}


@pytest.mark.parametrize("document", ALL, ids=ids)
def test_marks_stand_before_what_they_mark(document: Path) -> None:
    lines = ["", *document.read_text().splitlines(), "", ""]
    for number, line in marks(document):
        found = re.fullmatch(r"<!-- (.+?)(: .+)? -->", line)
        assert found is not None, f"line {number}: {line}"
        if found[1] not in MARKS:
            continue  # a comment
        following = lines[number + 1].strip()
        wanted = "|" if found[1] == "table" else "```"
        assert following.startswith(wanted), f"line {number}: {line} stands before {following!r}"


class Everything(Mapping[str, str]):
    """An environment in which every variable is set."""

    def __getitem__(self, name: str) -> str:
        return f"value-of-{name}"

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def configurations() -> list[Any]:
    return [
        pytest.param(block, id=block.where)
        for document in ALL
        if "backends" not in document.parts  # other backends, which are not installed here
        for block in blocks(document)
        if block.language == "toml" and re.search('(?m)^type = "', block.text)
        if block.mark != "admin secrets"
    ]


def checked(text: str, folder: Path, admin_secret: str | None = None) -> config.Configuration:
    for name in re.findall(r'"([^"\n]+)"', "".join(re.findall(r"_file = (.*)", text))):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        is_certificate = path.suffix == ".pem"
        path.write_text(certifi.contents() if is_certificate else "a secret\n")
    sources = [
        None if each is None else ConfigurationText(text=each, name=name, folder=folder)
        for each, name in ((text, "config.toml"), (admin_secret, "admin_secret.toml"))
    ]
    assert sources[0] is not None
    return read_configuration(sources[0], sources[1], environ=Everything())


@pytest.mark.parametrize("block", configurations())
def test_configurations_are_taken_as_they_stand(block: Any, tmp_path: Path) -> None:
    assert checked(block.text, tmp_path).repositories


def test_configurations_are_looked_at_in_several_documents() -> None:
    documents = {block.values[0].document.name for block in configurations()}
    assert documents >= {
        *("configuration.md", "file_system.md", "github.md", "github_projects.md"),
        *("group.md", "mirror.md", "policy.md"),
        *("quick-start.md", "README.md"),
    }


def test_the_admin_secrets_are_taken_with_the_configuration_that_they_are_for(
    tmp_path: Path,
) -> None:
    document = ROOT / "docs" / "configuration.md"
    [first, *_] = [block.text for block in blocks(document) if block.language == "toml"]
    [admin_secrets] = [block.text for block in blocks(document) if block.mark == "admin secrets"]
    taken = checked(first, tmp_path, admin_secrets)
    assert taken.repositories["acme"].admin_secret is not None


# -- how defaults are written --------------------------------------------------------------------


def told_defaults(row: Row) -> list[str]:
    """One for each name of the row; where the cell has one, or none, it is that of all."""
    cell = row.cells[0]
    parts = [part.strip() for part in re.split(r"(?<!\[), ?", cell)]
    return parts if len(parts) == len(row.names) else [cell] * len(row.names)


def check_default(row: Row, name: str, told: str, default: Any) -> None:
    """Where the code has a value, the document has the same; else it may say what it likes."""
    if default in (None, REQUIRED, dataclasses.MISSING, "") or default == set():
        return
    if name in ("--extra_index_url", "--index_url"):
        assert told == "the public index", row.where
        return
    assert as_value(told) == as_text(default), f"{row.where}: {name}"


def as_value(told: str) -> str:
    found = re.fullmatch(r"(\d+) ([KMG]iB)( − 1)?", told)
    if found is not None:
        return str(int(found[1]) * UNITS[found[2]] - (1 if found[3] else 0))
    told = told.partition(" (")[0].strip("`").strip('"')
    return "" if told in ("none", "[]") else told


def as_text(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, timedelta):
        return f"{default.total_seconds():g}"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default)
