"""The keys of a table with `type = "mirror"`."""

from __future__ import annotations

from typing import Any

import pytest

from private_pypi.backend import Access, Secret
from private_pypi.backend.public_index import public_index_url
from private_pypi.configuration.config import ConfigurationText, read_configuration
from private_pypi.errors import ConfigurationError
from private_pypi.storage import plugins
from private_pypi_mirror import IndexMirrorSettings, MirrorBackend
from tests.mirror.conftest import MakeMirror

INDEX = "https://pypi.acme.example/simple/"


def settings(**keys: Any) -> IndexMirrorSettings:
    return IndexMirrorSettings(name="mirror", max_file_bytes=1, **keys)


def test_the_type_is_installed() -> None:
    assert plugins.load_backend("mirror") is MirrorBackend


def test_a_table_needs_nothing_but_its_type() -> None:
    assert settings().base_url == public_index_url()


@pytest.mark.parametrize(
    ("index_url", "base_url"),
    [
        (INDEX, INDEX),
        (INDEX.rstrip("/"), INDEX),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
        ("file:///srv/simple", "file:///srv/simple/"),
        ("file://localhost/srv/simple/", "file://localhost/srv/simple/"),
    ],
)
def test_addresses_of_indexes(index_url: str, base_url: str) -> None:
    assert settings(index_url=index_url).base_url == base_url


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"index_url": "pypi.acme.example/simple"}, "index_url: does not begin with https:"),
        ({"index_url": "ftp://acme.example/"}, "index_url: does not begin with https:"),
        ({"index_url": "https://u:p@acme.example/"}, "index_url: must not have a user"),
        ({"index_url": "https://acme.example/?token=x"}, "index_url: must not have a query"),
        ({"index_url": "https://acme.example/#x"}, "index_url: must not have a query"),
        ({"index_url": "https://acme.example/a b"}, "index_url: must not have spaces"),
        ({"index_url": "https:///simple/"}, "index_url: has no host"),
        ({"index_url": "https://[::1/simple/"}, "index_url: not an address"),
        ({"index_url": "https://acme.example:x/"}, "index_url: not an address"),
        ({"index_url": "file://acme.example/srv/"}, "index_url: a folder of this machine"),
        ({"index_url": "file:///srv%00/"}, "index_url: a folder of this machine"),
        ({"index_url": "file:///a/%2e%2e/b/"}, "index_url: the path must not"),
        ({"index_url": "file:///srv/", "username": "u"}, "username: a folder takes no"),
        ({"password": Secret("p")}, "username: missing"),
        ({"username": "a:b"}, "username: must not have colons"),
        ({"username": "a\nb"}, "username: must not have colons"),
        ({"only": ("acme-*", "a b")}, "only: 'a b' cannot match a project"),
        ({"except_": ("",)}, "except: '' cannot match a project"),
    ],
)
def test_mistakes_are_told(keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        settings(**keys)
    assert str(caught.value).startswith(problem)


def test_a_password_in_the_address_is_not_repeated() -> None:
    with pytest.raises(ValueError) as caught:
        settings(index_url="https://walter:hunter2@acme.example/")
    assert "hunter2" not in str(caught.value)


def test_the_password_comes_from_a_variable() -> None:
    text = f"""
        [pypi]
        type = "mirror"
        index_url = "{INDEX}"
        username = "__token__"
        password_env = "UPSTREAM"
        read_secret = "read"
        except = ["acme-*"]
    """
    found = read_configuration(
        ConfigurationText(text=text, name="config.toml", folder=None),
        None,
        environ={"UPSTREAM": "hunter2"},
    )
    backend = found.repositories["pypi"].backend
    assert isinstance(backend, IndexMirrorSettings)
    assert backend.password == Secret("hunter2")
    assert backend.except_ == ("acme-*",)


def test_a_mistake_names_the_table() -> None:
    text = '[pypi]\ntype = "mirror"\nindex_url = "acme.example"\n'
    with pytest.raises(ConfigurationError) as caught:
        read_configuration(
            ConfigurationText(text=text, name="config.toml", folder=None), None, environ={}
        )
    assert "config.toml: [pypi]: index_url: does not begin with https:" in str(caught.value)


@pytest.mark.parametrize("download", ["redirect", "proxy"])
def test_files_are_never_redirected(download: str) -> None:
    text = f'[pypi]\ntype = "mirror"\ndownload = "{download}"\ncooldwn = "7 days"\n'
    with pytest.raises(ConfigurationError) as caught:
        read_configuration(
            ConfigurationText(text=text, name="config.toml", folder=None), None, environ={}
        )
    first, second = caught.value.problems
    assert first == (
        "config.toml: [pypi] download: must not be set for a mirror, whose files always go through "
        "this server, which checks their hashes and applies the policy; remove this key"
    )
    assert "did you mean 'cooldown'" in second


def test_secrets_may_read_and_nothing_else(mirror_of: MakeMirror) -> None:
    backend = mirror_of(INDEX).backend
    for project in (None, "demo"):
        assert backend.seen_with(Secret("read")).access(project) is Access.READ
        assert backend.seen_with(Secret("other")).access(project) is Access.NONE
        assert backend.seen_with(Secret("")).access(project) is Access.NONE
