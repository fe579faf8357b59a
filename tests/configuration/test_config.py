"""All mistakes of a configuration are reported, with their file, table and key."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from private_pypi.backend import (
    Access,
    Address,
    AnyBackend,
    Backend,
    BackendSettings,
    Secret,
    Storage,
    Traits,
)
from private_pypi.configuration import config, fields
from private_pypi.configuration.config import (
    Configuration,
    ConfigurationText,
    Submitted,
    read_configuration,
)
from private_pypi.errors import ConfigurationError
from private_pypi.model import Download, FileHandle, StoredFile
from private_pypi.storage import plugins


@dataclass(frozen=True, kw_only=True)
class ShelfSettings(BackendSettings):
    owner: str
    shelf: Path | None = None
    depth: int = 3
    kind: Literal["wood", "steel"] = "wood"
    read_secret: tuple[Secret, ...] = ()
    seal: Secret | None = None

    def __post_init__(self) -> None:
        if self.owner == "nobody":
            raise ValueError("a shelf needs an owner")


class ShelfStorage(Storage[Any]):
    """A minimal storage that can be synchronised; these tests do not store anything."""

    def access(self, project: str | None = None) -> Access:
        return Access.NONE

    def list_files(self) -> Iterator[StoredFile]:
        return iter(())

    def open_file(self, file: FileHandle) -> Download:
        raise AssertionError

    def read_index(self, into: Path, unless: str | None = None) -> str:
        raise AssertionError


class ShelfBackend(Backend[ShelfSettings]):
    """A minimal backend with settings."""

    Settings = ShelfSettings
    View = ShelfStorage
    traits = Traits(largest_file=1000)


NO_FILES = (
    "a configuration that is submitted over HTTP may not read files; give the secret itself, "
    "or an environment variable that the operator allows with --allow_env"
)


def load_backend(type_: str) -> type[AnyBackend]:
    if type_ != "shelf":
        raise ConfigurationError(f"unknown backend type {type_!r}; installed: shelf")
    return ShelfBackend


def read(
    text: str,
    admin: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    submitted: Submitted | None = None,
) -> Configuration:
    return read_configuration(
        ConfigurationText(text=text, name="config.toml", folder=folder),
        None if admin is None else ConfigurationText(text=admin, name="admin.toml", folder=folder),
        environ=environ or {},
        load_backend=load_backend,
        submitted=submitted,
    )


def problems(
    text: str,
    admin: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    submitted: Submitted | None = None,
) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(text, admin, environ=environ, folder=folder, submitted=submitted)
    return list(caught.value.problems)


MINE = '[mine]\ntype = "shelf"\nowner = "ann"\n'


def settings(text: str, **where: object) -> ShelfSettings:
    backend = read(text, **where).repositories["mine"].backend  # type: ignore[arg-type]
    assert isinstance(backend, ShelfSettings)
    return backend


def test_a_table_with_the_least_gets_the_defaults() -> None:
    assert read(MINE) == Configuration(
        repositories={
            "mine": config.RepositorySettings(
                name="mine",
                type="shelf",
                backend_class=ShelfBackend,
                backend=ShelfSettings(name="mine", max_file_bytes=1000, owner="ann"),
                max_file_bytes=1000,
                sync_index_interval=timedelta(seconds=60),
                stale_for=timedelta(0),
                extra_index_url=None,
                claimed=(),
                anonymous_read=False,
                admin_secret=None,
            )
        }
    )


def test_every_key_arrives_checked(tmp_path: Path) -> None:
    text = MINE + (
        'shelf = "boards"\ndepth = 7\nkind = "steel"\nread_secret = ["one", "two"]\nseal = "wax"\n'
        "max_file_bytes = 10\nsync_index_interval = 0.5\nanonymous_read = true\n"
        'extra_index_url = "https://index.example/simple"\nclaimed = ["Acme_*", "secret.tool"]\n'
    )
    checked = read(text, folder=tmp_path).repositories["mine"]
    assert dataclasses.asdict(checked) == {
        "name": "mine",
        "type": "shelf",
        "backend_class": ShelfBackend,
        "backend": {
            "name": "mine",
            "max_file_bytes": 10,
            "owner": "ann",
            "shelf": tmp_path / "boards",
            "depth": 7,
            "kind": "steel",
            "read_secret": (Secret("one"), Secret("two")),
            "seal": Secret("wax"),
        },
        "max_file_bytes": 10,
        "sync_index_interval": timedelta(seconds=0.5),
        "stale_for": timedelta(0),
        "extra_index_url": "https://index.example/simple/",
        "claimed": ("acme-*", "secret-tool"),
        "anonymous_read": True,
        "admin_secret": None,
    }


def test_no_table_at_all_is_a_configuration() -> None:
    assert read("") == Configuration(repositories={})


def test_all_mistakes_are_named_at_once() -> None:
    text = (
        "answer = 42\n"
        "[Mine]\n"
        'type = "shelf"\n'
        "ownr = 'ann'\n"
        "depth = 'deep'\n"
        "max_file_bytes = 0\n"
        "sync_index_interval = -1\n"
        "anonymous_read = 'yes'\n"
        "claimed = 'acme-*'\n"
        "read_secret = 5\n"
        "kind = 'stone'\n"
        "[yours]\n"
        'owner = "bob"\n'
        "[theirs]\n"
        'type = "ftp"\n'
    )
    assert problems(text, '[hers]\ntype = "shelf"\nraw = "r"\n') == [
        "config.toml: answer: must be in a table; there must be one table for each repository, "
        "such as [mine], followed by its keys",
        "config.toml: [mine] ownr: unknown key; did you mean 'owner'?",
        "config.toml: [mine] max_file_bytes: must be a whole number, not 0 "
        "(input should be greater than 0)",
        "config.toml: [mine] sync_index_interval: must be a number, not -1 "
        "(input should be greater than 0)",
        "config.toml: [mine] anonymous_read: must be true or false, not 'yes' "
        "(input should be a valid boolean)",
        "config.toml: [mine] claimed: must be a list, each text, not 'acme-*' "
        "(input should be a valid array)",
        "config.toml: [mine] owner: missing; it must be text",
        "config.toml: [mine] depth: must be a whole number, not 'deep' "
        "(input should be a valid integer)",
        "config.toml: [mine] kind: must be one of 'wood', 'steel', not 'stone' "
        "(input should be 'wood' or 'steel')",
        "config.toml: [mine] read_secret: must be text, or a list of texts",
        "config.toml: [yours] type: missing; "
        "it must be the name of a backend, such as 'file_system'",
        "config.toml: [theirs] type: unknown backend type 'ftp'; installed: shelf",
        "admin.toml: [hers]: there is no repository 'hers' in config.toml; did you mean 'theirs'?",
    ]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("owner = 5", "owner: must be text, not 5 (input should be a valid string)"),
        ("depth = true", "depth: must be a whole number, not True"),
        ("depth = 1.0", "depth: must be a whole number, not 1.0"),
        ("max_file_bytes = 1001", "max_file_bytes: must be at most 1000, not 1001: 'shelf'"),
        ("sync_index_interval = nan", "sync_index_interval: must be a number, not nan"),
        ("stale_for = 60", "stale_for: must not be set for this type"),
        ("claimed = ['a/b']", "claimed: 'a/b' cannot match a project"),
        (
            "extra_index_url = 'ftp://x/'",
            "extra_index_url: 'ftp://x/' is not a valid http or https",
        ),
        ("extra_index_url = 'https://h/s?q=1'", "extra_index_url: 'https://h/s?q=1' must not"),
        ("extra_index_url = 'https://[h/'", "extra_index_url: is not a valid address"),
        ("seal = ['a', 'b']", "seal: only one secret may be given"),
        ('shelf = "a\\u0000b"', "shelf: 'a\\x00b' is not a path"),
        ("name = 'other'", "name: unknown key"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(line: str, sentence: str) -> None:
    text = '[mine]\ntype = "shelf"\n' + ("" if line.startswith("owner") else "owner = 'ann'\n")
    (problem,) = problems(text + line)
    assert problem.startswith(f"config.toml: [mine] {sentence}")


def test_a_type_that_is_nearly_a_group_is_told_so() -> None:
    assert problems('[all]\ntype = "gruop"\nmembers = []\n') == [
        "config.toml: [all] type: unknown backend type 'gruop'; installed: shelf; "
        "did you mean 'group'?"
    ]


def test_a_check_of_the_backends_own_is_reported_with_its_table() -> None:
    assert problems('[mine]\ntype = "shelf"\nowner = "nobody"\n') == [
        "config.toml: [mine]: a shelf needs an owner"
    ]


def test_bad_toml_is_named_by_file_line_and_column() -> None:
    assert problems(MINE + "depth = = 3\n") == [
        "config.toml, line 4, column 9: not valid TOML: Invalid value"
    ]


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000])
def test_monstrous_toml_is_a_mistake_like_any_other(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("config.toml")
    assert "not valid TOML" in problem


@pytest.mark.parametrize(
    "name", ["..", ".hidden", "a/b", "a\\\\b", "", "sp ace", "a" * 65, "ünder", "a:b", "x\\n"]
)
def test_a_repository_name_plays_no_tricks_with_paths(name: str) -> None:
    (problem,) = problems(f'["{name}"]\ntype = "shelf"\nowner = "ann"\n')
    assert "not a valid name for a repository; it must have at most 64" in problem


def test_names_that_differ_only_in_case_are_one_too_many() -> None:
    assert problems(MINE + '[MINE]\ntype = "shelf"\nowner = "bob"\n') == [
        "config.toml: [MINE]: there is another table of this name; "
        "names that differ only in upper and lower case are the same"
    ]


def test_names_of_both_files_are_compared_without_case() -> None:
    checked = read(MINE.replace("mine", "Mine"), '[mINE]\ntype = "shelf"\nraw = "r"\n')
    assert list(checked.repositories) == ["mine"]
    assert checked.repositories["mine"].admin_secret == Secret("r")


def test_no_message_shows_a_secret(tmp_path: Path) -> None:
    text = MINE + (
        'read_sekret = "hush"\nseal = ["hush", "hush"]\nread_secret = ["hush", 3]\n'
        'extra_index_url = "https://user:hush@index.example/simple/"\n'
    )
    admin = 'raw = "hush"\n[mine]\ntype = "other"\nraw = "hush"\nenv = "hush"\nrow = "hush"\n'
    shown = problems(text, admin)
    assert len(shown) == 8
    assert not any("hush" in each for each in shown)


def test_a_secret_comes_from_text_a_variable_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("from file\r\n")
    (tmp_path / "two").write_text("another\n")
    by_file = settings(MINE + 'read_secret_file = ["one", "two"]\n', folder=tmp_path)
    assert by_file.read_secret == (Secret("from file"), Secret("another"))
    by_variable = settings(
        MINE + 'read_secret_env = "S"\nseal_env="T"', environ={"S": "a", "T": "b"}
    )
    assert (by_variable.read_secret, by_variable.seal) == ((Secret("a"),), Secret("b"))
    by_text = settings(MINE + 'read_secret = "1e5"\n')
    assert by_text.read_secret == (Secret("1e5"),)


def test_an_empty_secret_is_as_good_as_none() -> None:
    text = MINE + 'read_secret = ["", "x"]\nseal_env = "EMPTY"\n'
    checked = settings(text, environ={"EMPTY": ""})
    assert (checked.read_secret, checked.seal) == ((Secret("x"),), None)


def test_a_secret_that_cannot_be_had_is_a_mistake(tmp_path: Path) -> None:
    text = MINE + 'read_secret_env = "UNSET"\nseal_file = "gone"\n'
    assert problems(text, folder=tmp_path) == [
        "config.toml: [mine] read_secret_env: the environment variable 'UNSET' is not set",
        f"config.toml: [mine] seal_file: cannot read '{tmp_path / 'gone'}': "
        "No such file or directory",
    ]


def test_a_secret_is_given_in_one_way_only() -> None:
    assert problems(MINE + 'seal = "a"\nseal_env = "B"\n', environ={"B": "b"}) == [
        "config.toml: [mine]: only one of seal and seal_env may be given"
    ]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ('raw = "r"', " type: missing; it must be the type of the repository, 'shelf'"),
        (
            'type = "ftp"\nraw = "r"',
            " type: must be the type of the repository, 'shelf', not 'ftp'",
        ),
        ('type = "shelf"', ": the secret is missing; it must be given by raw, env or file"),
        (
            'type = "shelf"\nraw = ""',
            ": exactly one secret must be given, and it must not be empty",
        ),
        ('type = "shelf"\nenv = "E"', " env: the environment variable 'E' is not set"),
        ('type = "shelf"\nraw = "r"\nenv = "E"', ": only one of raw and env may be given"),
        ('type = "shelf"\nrow = "r"\nraw = "r"', " row: unknown key; did you mean 'raw'?"),
    ],
)
def test_an_admin_secret_is_checked(table: str, sentence: str) -> None:
    assert problems(MINE, f"[mine]\n{table}\n") == [f"admin.toml: [mine]{sentence}"]


def test_an_admin_secret_comes_from_a_variable_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k\n")
    for line, environ in (('env = "E"', {"E": "k"}), ('file = "key"', {})):
        checked = read(MINE, f'[mine]\ntype = "shelf"\n{line}\n', environ=environ, folder=tmp_path)
        assert checked.repositories["mine"].admin_secret == Secret("k")


def test_a_submitted_configuration_reaches_nothing_outside_root(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/")
    submitted = Submitted(root=tmp_path, allowed_env=frozenset({"FREE"}))
    environ = {"FREE": "f", "HOME": "h"}
    outside = ("/etc", "../x", "out/etc")
    of_the_server = (".", "index/x", "log", "tmp/x", "config.toml", ".configuration", "cache/other")
    for path in outside + of_the_server:
        assert problems(f"{MINE}shelf = '{path}'", submitted=submitted) == [
            f"config.toml: [mine] shelf: a configuration that is submitted over HTTP may not use "
            f"'{path}'; it must be a folder in ROOT that the server does not use itself, "
            "such as 'storage'"
        ]
    for path in ("storage", "storage/mine", "cache/mine/storage"):
        assert settings(f"{MINE}shelf = '{path}'", submitted=submitted).shelf == tmp_path / path
    assert problems(
        MINE + 'read_secret_file = "/etc/passwd"\nseal_env = "HOME"\n',
        '[mine]\ntype = "shelf"\nfile = "/etc/passwd"\n',
        environ=environ,
        submitted=submitted,
    ) == [
        f"config.toml: [mine] read_secret_file: {NO_FILES}",
        "config.toml: [mine] seal_env: a configuration that is submitted over HTTP may not read "
        "the environment variable 'HOME'; the operator can allow it with --allow_env",
        f"admin.toml: [mine] file: {NO_FILES}",
    ]
    allowed = settings(
        MINE + 'shelf = "cache/mine"\nseal_env = "FREE"\n', environ=environ, submitted=submitted
    )
    assert (allowed.shelf, allowed.seal) == (tmp_path / "cache/mine", Secret("f"))


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """A part of a field."""

    url: Address
    weight: int = 1


@dataclass(frozen=True, kw_only=True)
class MirroredSettings(BackendSettings):
    """Addresses in every place where a field may have one."""

    api_url: Address = "https://api.example"
    proxy: Address | None = None
    others: tuple[Address, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    title: str = ""


class MirroredBackend(ShelfBackend):
    Settings = MirroredSettings


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('api_url = "http://169.254.169.254"', "api_url"),
        ('proxy = "http://169.254.169.254"', "proxy"),
        ('others = ["http://169.254.169.254"]', "others"),
        ('mirrors = [{url = "http://169.254.169.254"}]', "mirrors"),
    ],
)
def test_only_the_operator_chooses_which_addresses_the_server_contacts(
    tmp_path: Path, line: str, key: str
) -> None:
    def wrong(submitted: Submitted | None) -> list[str]:
        try:
            read_configuration(
                ConfigurationText(
                    text=f'[mine]\ntype = "x"\n{line}\n', name="config.toml", folder=None
                ),
                None,
                environ={},
                load_backend=lambda type_: MirroredBackend,
                submitted=submitted,
            )
        except ConfigurationError as error:
            return list(error.problems)
        return []

    assert wrong(Submitted(root=tmp_path)) == [
        f"config.toml: [mine] {key}: a configuration that is submitted without the admin token may "
        "not make the server contact 'http://169.254.169.254'; the operator can allow it with "
        "--allow_address"
    ]
    allowed = frozenset({"http://169.254.169.254"})
    assert wrong(Submitted(root=tmp_path, allowed_addresses=allowed)) == []
    assert wrong(Submitted(root=tmp_path, is_trusted=True)) == []
    assert wrong(None) == []


def test_the_address_of_a_folder_is_restricted_like_a_path(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/")
    root = tmp_path.as_uri()

    def wrong(address: str, **submitted: Any) -> list[str]:
        try:
            read_configuration(
                ConfigurationText(
                    text=f"[mine]\ntype = 'x'\napi_url = '{address}'\n", name="c.toml", folder=None
                ),
                None,
                environ={},
                load_backend=lambda type_: MirroredBackend,
                submitted=Submitted(root=tmp_path, **submitted),
            )
        except ConfigurationError as error:
            return list(error.problems)
        return []

    outside = ("file:///etc", "file:///", "file:", "FILE:///etc", "file://localhost/etc")
    tricks = ("/../x", "/out/etc", "/storage/%2e%2e/%2E./etc", "/stor%00age/../../x")
    of_the_server = ("", "/", "/index/simple", "/tmp/x", "/cache/other", "/.configuration")
    for address in (*outside, *(root + each for each in tricks + of_the_server)):
        for is_trusted in (True, False):
            assert wrong(address, is_trusted=is_trusted) == [
                "c.toml: [mine] api_url: a configuration that is submitted over HTTP may not use "
                f"'{address}'; a file: address must lead to a folder in ROOT that the server does "
                "not use itself"
            ]
    for path in ("/storage/simple/", "/cache/mine/simple", "/a%20b"):
        for is_trusted in (True, False):
            assert wrong(root + path, is_trusted=is_trusted) == []
    # What the operator allows on the command line is allowed, wherever it is.
    assert wrong("file:///etc", allowed_addresses=frozenset({"file:///etc"})) == []


@pytest.mark.parametrize("line", ['api_url = "https://api.example"', 'title = "http://x"', ""])
def test_a_stranger_may_name_the_default_and_what_is_no_address(tmp_path: Path, line: str) -> None:
    checked = read_configuration(
        ConfigurationText(text=f'[mine]\ntype = "x"\n{line}\n', name="config.toml", folder=None),
        None,
        environ={},
        load_backend=lambda type_: MirroredBackend,
        submitted=Submitted(root=tmp_path),
    )
    assert list(checked.repositories) == ["mine"]


@pytest.mark.parametrize("type_", plugins.backend_types())
def test_every_installed_backend_marks_its_addresses(type_: str) -> None:
    # A field looks like an address if its name does, or if its default is one.
    words = "url|uri|host|endpoint|address|server|proxy(?!_(username|password)$)"
    for field in fields.backend_fields(plugins.load_backend(type_)):
        looks_so = re.search(words, field.name) is not None
        if looks_so or "://" in str(field.default):
            assert fields.names_addresses(field.annotation), field.name


def test_one_table_can_be_checked_without_toml(tmp_path: Path) -> None:
    source = ConfigurationText(text="", name="command line", folder=tmp_path)
    checked = config.check_repository(
        "Mine",
        {"type": "shelf", "owner": "ann", "shelf": "x"},
        source=source,
        environ={},
        load_backend=load_backend,
    )
    assert checked.backend == ShelfSettings(
        name="mine", max_file_bytes=1000, owner="ann", shelf=tmp_path / "x"
    )
    with pytest.raises(ConfigurationError) as caught:
        config.check_repository(
            "../x", {"type": "shelf"}, source=source, environ={}, load_backend=load_backend
        )
    assert len(caught.value.problems) == 2


def test_the_fields_of_a_backend_are_told() -> None:
    assert [
        (each.name, each.required, each.keys) for each in fields.backend_fields(ShelfBackend)
    ] == [
        ("owner", True, ("owner",)),
        ("shelf", False, ("shelf",)),
        ("depth", False, ("depth",)),
        ("kind", False, ("kind",)),
        ("read_secret", False, ("read_secret", "read_secret_env", "read_secret_file")),
        ("seal", False, ("seal", "seal_env", "seal_file")),
    ]


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("", ""),
        ("https://index.example/simple", "https://index.example/simple/"),
        ("http://index.example:8080/simple//", "http://index.example:8080/simple/"),
    ],
)
def test_an_extra_index_url_ends_in_one_slash(written: str, right: str) -> None:
    assert config.check_extra_index_url(written) == right
