"""A configuration is checked whole, and every mistake is named by file, table and key."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from private_pypi import config
from private_pypi.backend import (
    Access,
    AnyBackend,
    Backend,
    BackendSettings,
    Capabilities,
    Known,
    Secret,
)
from private_pypi.config import Configuration, Source, Submitted, read_configuration
from private_pypi.errors import ConfigurationError
from private_pypi.model import DistributionFile, Download, StoredFile, Upload


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


class ShelfBackend(Backend[ShelfSettings]):
    """The least that has settings; no test here stores anything."""

    Settings = ShelfSettings
    capabilities = Capabilities(largest_file=1000)

    def access(self, project: str | None = None) -> Access:
        return Access.NONE

    def list_files(self, known: Known | None = None) -> Iterator[StoredFile]:
        return iter(())

    def open_file(self, file: DistributionFile) -> Download:
        raise AssertionError

    def open_core_metadata(self, file: DistributionFile) -> Download:
        raise AssertionError

    def put_file(self, upload: Upload) -> StoredFile:
        raise AssertionError

    def read_index(self, into: Path, unless: str | None = None) -> str:
        raise AssertionError

    def write_index(self, content: Path, replaces: str) -> str:
        raise AssertionError


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
        Source(text=text, name="config.toml", folder=folder),
        None if admin is None else Source(text=admin, name="admin.toml", folder=folder),
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
        "config.toml: answer: only tables are known here, such as [answer] followed by its keys",
        "config.toml: [mine] ownr: unknown key; did you mean 'owner'?",
        "config.toml: [mine] max_file_bytes: must be a whole number, not 0 "
        "(input should be greater than 0)",
        "config.toml: [mine] sync_index_interval: must be a number, not -1 "
        "(input should be greater than 0)",
        "config.toml: [mine] anonymous_read: must be true or false, not 'yes' "
        "(input should be a valid boolean)",
        "config.toml: [mine] claimed: must be a list, each text, not 'acme-*' "
        "(input should be a valid array)",
        "config.toml: [mine] owner: missing; it is text",
        "config.toml: [mine] depth: must be a whole number, not 'deep' "
        "(input should be a valid integer)",
        "config.toml: [mine] kind: must be one of 'wood', 'steel', not 'stone' "
        "(input should be 'wood' or 'steel')",
        "config.toml: [mine] read_secret: must be text, or a list of texts",
        "config.toml: [yours] type: missing",
        "config.toml: [theirs] type: unknown backend type 'ftp'; installed: shelf",
        "admin.toml: [hers]: there is no repository 'hers' in config.toml; did you mean 'theirs'?",
    ]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("owner = 5", "owner: must be text, not 5 (input should be a valid string)"),
        ("depth = true", "depth: must be a whole number, not True"),
        ("depth = 1.0", "depth: must be a whole number, not 1.0"),
        ("max_file_bytes = 1001", "max_file_bytes: 1001 is more than 'shelf' can store, 1000"),
        ("sync_index_interval = nan", "sync_index_interval: must be a number, not nan"),
        ("stale_for = 60", "stale_for: is for storages that are asked for each project alone"),
        ("claimed = ['a/b']", "claimed: 'a/b' matches no project"),
        ("extra_index_url = 'ftp://x/'", "extra_index_url: 'ftp://x/' is no http or https"),
        ("extra_index_url = 'https://h/s?q=1'", "extra_index_url: 'https://h/s?q=1' must not"),
        ("extra_index_url = 'https://[h/'", "extra_index_url: is no address"),
        ("seal = ['a', 'b']", "seal: only one secret may be given"),
        ('shelf = "a\\u0000b"', "shelf: 'a\\x00b' is no path"),
        ("name = 'other'", "name: unknown key"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(line: str, sentence: str) -> None:
    text = '[mine]\ntype = "shelf"\n' + ("" if line.startswith("owner") else "owner = 'ann'\n")
    (problem,) = problems(text + line)
    assert problem.startswith(f"config.toml: [mine] {sentence}")


def test_a_check_of_the_backends_own_is_reported_with_its_table() -> None:
    assert problems('[mine]\ntype = "shelf"\nowner = "nobody"\n') == [
        "config.toml: [mine]: a shelf needs an owner"
    ]


def test_bad_toml_is_named_by_file_line_and_column() -> None:
    assert problems(MINE + "depth = = 3\n") == [
        "config.toml, line 4, column 9: no TOML: Invalid value"
    ]


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000])
def test_monstrous_toml_is_a_mistake_like_any_other(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("config.toml")
    assert "no TOML" in problem


@pytest.mark.parametrize(
    "name", ["..", ".hidden", "a/b", "a\\\\b", "", "sp ace", "a" * 65, "ünder", "a:b", "x\\n"]
)
def test_a_repository_name_plays_no_tricks_with_paths(name: str) -> None:
    (problem,) = problems(f'["{name}"]\ntype = "shelf"\nowner = "ann"\n')
    assert "no name for a repository; right are at most 64 letters" in problem


def test_names_that_differ_only_in_case_are_one_too_many() -> None:
    assert problems(MINE + '[MINE]\ntype = "shelf"\nowner = "bob"\n') == [
        "config.toml: [MINE]: a second table of this name; "
        "names that differ only in case are the same"
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
        ('raw = "r"', " type: missing; it is the type of the repository"),
        ('type = "ftp"\nraw = "r"', " type: 'ftp' is not the type of the repository, 'shelf'"),
        ('type = "shelf"', ": one of raw, env and file must give the secret"),
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
    for path in ("/etc", "../x", "out/etc"):
        assert problems(f"{MINE}shelf = '{path}'", submitted=submitted) == [
            f"config.toml: [mine] shelf: a submitted configuration may not reach '{path}' "
            "outside ROOT"
        ]
    assert problems(
        MINE + 'read_secret_file = "/etc/passwd"\nseal_env = "HOME"\n',
        '[mine]\ntype = "shelf"\nfile = "/etc/passwd"\n',
        environ=environ,
        submitted=submitted,
    ) == [
        "config.toml: [mine] read_secret_file: a submitted configuration may not read files",
        "config.toml: [mine] seal_env: a submitted configuration may not read the variable 'HOME'; "
        "the operator allows it by --allow_env",
        "admin.toml: [mine] file: a submitted configuration may not read files",
    ]
    allowed = settings(
        MINE + 'shelf = "cache/mine"\nseal_env = "FREE"\n', environ=environ, submitted=submitted
    )
    assert (allowed.shelf, allowed.seal) == (tmp_path / "cache/mine", Secret("f"))


def test_one_table_can_be_checked_without_toml(tmp_path: Path) -> None:
    source = Source(text="", name="command line", folder=tmp_path)
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
        (each.name, each.required, each.keys) for each in config.backend_fields(ShelfBackend)
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
