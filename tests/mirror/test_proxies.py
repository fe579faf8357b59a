"""The upstream through an HTTP proxy, and with a certificate authority of the configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.utils import NormalizedName

from private_pypi.backend import Secret
from private_pypi.configuration.config import ConfigurationText, Submitted, read_configuration
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    ProjectNotFound,
)
from private_pypi.model import FileHandle
from private_pypi.testing.contract.helpers import content_of
from private_pypi_mirror import IndexMirrorSettings
from private_pypi_mirror.backend import MirrorStorage
from tests.mirror.conftest import MakeMirror
from tests.mirror.http_proxy import HttpProxy, running_proxy
from tests.mirror.serving import Reply, Upstream, running_upstream
from tests.proxies.authority import Certificates, make_certificates

PATH = "/simple/demo/"
WALTER = "Basic d2FsdGVyOmh1bnRlcjI="  # walter:hunter2
PROXIED = "Basic cHJveHk6c2VzYW1l"  # proxy:sesame
LOGIN = {"proxy_username": "proxy", "proxy_password": Secret("sesame")}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def encrypted(certificates: Certificates) -> Iterator[Upstream]:
    """An upstream with TLS, whose authority this machine does not know."""
    with running_upstream((certificates.certificate, certificates.key)) as running:
        fill(running)
        yield running


@pytest.fixture
def plain(upstream: Upstream) -> Upstream:
    fill(upstream)
    return upstream


@pytest.fixture
def proxy() -> Iterator[HttpProxy]:
    with running_proxy() as running:
        yield running


def fill(upstream: Upstream) -> None:
    file = {"filename": "demo-1.0.zip", "url": "/files/demo-1.0.zip", "hashes": {}, "size": 7}
    page = {"meta": {"api-version": "1.1"}, "name": "demo", "files": [file]}
    upstream.answers[PATH] = Reply(json.dumps(page).encode())
    upstream.answers["/files/demo-1.0.zip"] = Reply(b"content", "application/zip")


def found(mirror: MirrorStorage) -> str:
    page = mirror.project_page("demo", "")
    assert page is not None
    (file,) = page.files
    handle = FileHandle(
        project=NormalizedName("demo"),
        filename=file.filename,
        size=file.size,
        sha256=None,
        location=file.url,
    )
    assert content_of(mirror.open_file(handle)) == b"content"
    return file.url


def trouble(mirror: MirrorStorage) -> BackendError:
    with pytest.raises(BackendError) as caught:
        mirror.project_page("demo", "")
    assert "sesame" not in str(caught.value)
    return caught.value


# -- a proxy -------------------------------------------------------------------------------------


def test_an_index_with_http_is_asked_through_the_proxy(
    plain: Upstream, proxy: HttpProxy, mirror_of: MakeMirror
) -> None:
    mirror = mirror_of(plain.index_url, proxy_url=proxy.url)
    assert found(mirror) == f"{plain.origin}/files/demo-1.0.zip"
    assert proxy.lines == [
        f"GET {plain.origin}{PATH} HTTP/1.1",
        f"GET {plain.origin}/files/demo-1.0.zip HTTP/1.1",
    ]
    with pytest.raises(ProjectNotFound):
        mirror.project_page("other", "")
    plain.answers[PATH] = Reply(b"", status=502)
    assert str(trouble(mirror)) == (
        f"{plain.index_url}demo/ answered 502 (Bad Gateway) through the proxy {proxy.url}"
    )


def test_an_index_with_https_is_asked_through_a_tunnel(
    encrypted: Upstream, certificates: Certificates, proxy: HttpProxy, mirror_of: MakeMirror
) -> None:
    mirror = mirror_of(
        encrypted.index_url,
        proxy_url=proxy.url,
        ca_file=certificates.authority,
        username="walter",
        password=Secret("hunter2"),
        **LOGIN,
    )
    proxy.authorization = PROXIED
    assert found(mirror) == f"{encrypted.origin}/files/demo-1.0.zip"
    host = encrypted.origin.removeprefix("https://")
    # One tunnel, which is used again. The proxy has seen nothing that is meant for the index, and
    # the index nothing that is meant for the proxy.
    assert [line.rpartition(" ")[0] for line in proxy.lines] == [f"CONNECT {host}"]
    assert [each["proxy-authorization"] for each in proxy.headers] == [PROXIED]
    assert "authorization" not in proxy.headers[0]
    assert [each.headers["authorization"] for each in encrypted.asked] == [WALTER, WALTER]
    assert [each for each in encrypted.asked if "proxy-authorization" in each.headers] == []
    encrypted.answers[PATH] = Reply(b"", status=502)
    assert str(trouble(mirror)) == f"{encrypted.index_url}demo/ answered 502 (Bad Gateway)"


def test_a_proxy_may_have_tls_itself(
    encrypted: Upstream, plain: Upstream, certificates: Certificates, mirror_of: MakeMirror
) -> None:
    with running_proxy((certificates.certificate, certificates.key)) as proxy:
        for index_url in (encrypted.index_url, plain.index_url):
            trusting = mirror_of(index_url, proxy_url=proxy.url, ca_file=certificates.authority)
            assert found(trusting) != ""
            assert isinstance(
                trouble(mirror_of(index_url, proxy_url=proxy.url)), BackendUnavailable
            )
    assert len(proxy.lines) == 3


def test_the_proxy_gets_credentials_of_its_own(
    plain: Upstream, proxy: HttpProxy, mirror_of: MakeMirror
) -> None:
    proxy.authorization = PROXIED
    found(mirror_of(plain.index_url, proxy_url=proxy.url, **LOGIN))
    assert [each["proxy-authorization"] for each in proxy.headers] == [PROXIED, PROXIED]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_credentials_is_named(
    scheme: str, plain: Upstream, encrypted: Upstream, proxy: HttpProxy, mirror_of: MakeMirror
) -> None:
    index_url = plain.index_url if scheme == "http" else encrypted.index_url
    proxy.authorization = "Basic other"
    said = f"{index_url}demo/ cannot be reached, because the proxy {proxy.url} answered 407 (Proxy "
    error = trouble(mirror_of(index_url, proxy_url=proxy.url, **LOGIN))
    assert str(error) == (
        f"{said}Authentication Required): it refuses these credentials: proxy_username, "
        "proxy_password_env"
    )
    assert not isinstance(error, BackendUnavailable)
    assert str(trouble(mirror_of(index_url, proxy_url=proxy.url))) == (
        f"{said}Authentication Required): it needs credentials; set proxy_username and "
        "proxy_password_env"
    )
    assert plain.asked == encrypted.asked == []


@pytest.mark.parametrize("status", [403, 404, 410, 502])
def test_a_tunnel_that_is_refused_is_trouble_and_no_absence(
    encrypted: Upstream, proxy: HttpProxy, mirror_of: MakeMirror, status: int
) -> None:
    """protocol 79"""
    proxy.refuses = status
    error = trouble(mirror_of(encrypted.index_url, proxy_url=proxy.url))
    assert isinstance(error, BackendUnavailable) == (status == 502)
    assert f"because the proxy {proxy.url} answered {status} (" in str(error)


def test_a_proxy_that_is_down_is_named(
    plain: Upstream, encrypted: Upstream, mirror_of: MakeMirror
) -> None:
    with running_proxy() as gone:
        pass
    for index_url in (plain.index_url, encrypted.index_url):
        error = trouble(mirror_of(index_url, proxy_url=gone.url))
        assert isinstance(error, BackendUnavailable)
        assert str(error) == (
            f"{index_url}demo/ cannot be reached, because the proxy {gone.url} cannot: Connection "
            "refused"
        )


def test_an_index_that_breaks_off_behind_the_proxy_is_named_with_it(
    proxy: HttpProxy, encrypted: Upstream, mirror_of: MakeMirror
) -> None:
    error = trouble(mirror_of(encrypted.index_url, proxy_url=proxy.url))  # an unknown authority
    assert isinstance(error, BackendUnavailable)
    start = f"{encrypted.index_url}demo/ cannot be reached through the proxy {proxy.url}: "
    assert str(error).startswith(start)


def test_the_environment_names_no_proxy(
    plain: Upstream, proxy: HttpProxy, mirror_of: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    found(mirror_of(plain.index_url))
    assert proxy.lines == []
    # Nor does it name addresses that are asked without the proxy of the configuration.
    monkeypatch.setenv("no_proxy", "*")
    found(mirror_of(plain.index_url, proxy_url=proxy.url))
    assert len(proxy.lines) == 2


def test_only_the_operator_chooses_the_proxy(tmp_path: Path) -> None:
    text = '[pypi]\ntype = "mirror"\nproxy_url = "http://169.254.169.254"\n'
    with pytest.raises(ConfigurationError, match=r"proxy_url: .* --allow_address"):
        read_configuration(
            ConfigurationText(text=text, name="config.toml", folder=None),
            None,
            environ={},
            submitted=Submitted(root=tmp_path),
        )


# -- an authority --------------------------------------------------------------------------------


def test_an_authority_of_the_configuration_is_trusted_as_well(
    encrypted: Upstream,
    certificates: Certificates,
    mirror_of: MakeMirror,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(trouble(mirror_of(encrypted.index_url)), BackendUnavailable)
    of_the_system = make_certificates(tmp_path, "of the system")
    monkeypatch.setenv("SSL_CERT_FILE", str(of_the_system.authority))
    with running_upstream((of_the_system.certificate, of_the_system.key)) as other:
        fill(other)
        for upstream in (encrypted, other):
            mirror = mirror_of(upstream.index_url, ca_file=certificates.authority)
            assert found(mirror) == f"{upstream.origin}/files/demo-1.0.zip"


def test_an_authority_that_is_not_that_of_the_upstream_helps_nothing(
    encrypted: Upstream, mirror_of: MakeMirror, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path)
    trouble(mirror_of(encrypted.index_url, ca_file=other.authority))
    assert encrypted.asked == []


def test_a_file_of_authorities_is_read_at_the_start(
    certificates: Certificates, tmp_path: Path
) -> None:
    def problems(ca_file: str, submitted: Submitted | None = None) -> list[str]:
        text = f'[pypi]\ntype = "mirror"\nca_file = "{ca_file}"\n'
        source = ConfigurationText(text=text, name="config.toml", folder=tmp_path)
        try:
            read = read_configuration(source, None, environ={}, submitted=submitted)
        except ConfigurationError as error:
            return list(error.problems)
        settings = read.repositories["pypi"].backend
        assert isinstance(settings, IndexMirrorSettings)
        assert settings.ca_file == tmp_path / "own.pem"
        return []

    (tmp_path / "own.pem").write_bytes(certificates.authority.read_bytes())
    assert problems("own.pem") == []
    assert problems("missing.pem") == [
        f"config.toml: [pypi]: ca_file: cannot read '{tmp_path}/missing.pem': No such file or "
        "directory"
    ]
    not_pem = (
        f"config.toml: [pypi]: ca_file: '{tmp_path}/other' is not a file of certificates in PEM "
        "format, which begin with '-----BEGIN CERTIFICATE-----'"
    )
    for content in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n", certificates.key.read_bytes()):
        (tmp_path / "other").write_bytes(content)
        assert problems("other") == [not_pem]
    outside = problems(str(certificates.authority), Submitted(root=tmp_path, is_trusted=True))
    assert len(outside) == 1
    assert "submitted over HTTP may not use" in outside[0]


def test_a_file_of_authorities_that_is_lost_later_is_trouble(
    encrypted: Upstream, certificates: Certificates, mirror_of: MakeMirror, tmp_path: Path
) -> None:
    file = tmp_path / "own.pem"
    file.write_bytes(certificates.authority.read_bytes())
    mirror = mirror_of(encrypted.index_url, ca_file=file)
    file.unlink()
    assert str(trouble(mirror)).startswith("ca_file: cannot read ")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"proxy_url": "proxy.acme.example:3128"}, "proxy_url: does not begin with http: or "),
        ({"proxy_url": "socks5://acme.example"}, "proxy_url: does not begin with http: or https:"),
        ({"proxy_url": "http://u:sesame@acme.example"}, "proxy_url: must not have a user"),
        ({"proxy_url": "http://acme.example/simple"}, "proxy_url: must not have a path"),
        ({"proxy_url": "http://acme.example/?a"}, "proxy_url: must not have a query"),
        ({"proxy_url": "http:///"}, "proxy_url: has no host"),
        (LOGIN, "proxy_url: missing"),
        (
            {"proxy_url": "http://acme.example", "proxy_password": Secret("sesame")},
            "proxy_username: missing",
        ),
        (
            {"proxy_url": "http://acme.example", "proxy_username": "a:b"},
            "proxy_username: must not have colons",
        ),
    ],
)
def test_mistakes_are_told(keys: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        IndexMirrorSettings(name="mirror", max_file_bytes=1, **keys)  # type: ignore[arg-type]
    assert str(caught.value).startswith(problem)
    assert "sesame" not in str(caught.value)
