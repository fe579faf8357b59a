"""PyOCI's own addresses at the root of a server: `/<registry>/<namespace>/<project>/`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import requests

from private_pypi.backend import Access, Secret
from private_pypi.testing.contract.helpers import new_folders
from private_pypi.testing.distributions import encode_multipart, form_for
from private_pypi_oci import OciBackend, OciSettings
from tests.clients.environments import Client, install_client, make_venv
from tests.clients.installers import install, installed
from tests.clients.publishers import publish
from tests.clients.releases import Release
from tests.clients.serving import Repository, serving
from tests.oci.registries import registry
from tests.oci.small_registry import small_registry

pytestmark = pytest.mark.needs("clients", "docker-registry")

WALTER = ("walter", "write-secret")
ONE = Release()


@dataclass(frozen=True)
class Namespace(Repository):
    """A namespace of a registry, addressed as with PyOCI."""

    registry: str = ""  # as it is written in an address
    namespace: str = "acme"

    @property
    def index_url(self) -> str:
        return f"{self.origin}/{self.registry}/{self.namespace}/"

    @property
    def upload_url(self) -> str:
        return self.index_url


@pytest.fixture(scope="module", params=["bearer", "basic"])
def at(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """A server, and the registry that it allows."""
    folder = tmp_path_factory.mktemp(request.param)
    with registry(folder / "registry", bearer=request.param == "bearer") as running:
        table = (
            '[any]\ntype = "oci"\nany_registry = true\nplain_http = true\n'
            f'registries = ["ghcr.io", "{running.url}"]\nbearer_username = "token"\n'
        )
        with serving(folder / "server", table) as origin:
            yield origin, running.url


def namespace_at(at: tuple[str, str], namespace: str) -> Namespace:
    return Namespace(
        origin=at[0],
        name="walter",
        read_secret="write-secret",
        write_secret="write-secret",
        registry=quote(at[1], safe=""),
        namespace=namespace,
    )


@pytest.mark.parametrize("name", ["twine", "uv", "poetry"])
def test_a_client_publishes_and_installs(name: str, at: tuple[str, str], tmp_path: Path) -> None:
    place = namespace_at(at, f"acme/deep/{name}")
    home = tmp_path / "home"
    home.mkdir()
    publisher = Client(name, install_client(name), home)
    outcome = publish(publisher, ONE, place)
    assert outcome.code == 0, outcome.output
    outcome = publish(publisher, Release(version="2.0"), place, secret="wrong")
    assert outcome.code not in (0, None), outcome.output
    assert "401" in outcome.text, outcome.output

    (tmp_path / "installer").mkdir()
    installing = "pip" if name == "twine" else name
    installer = Client(installing, install_client(installing), tmp_path / "installer")
    target = make_venv(tmp_path / "target")
    outcome = install(installer, [place.readable()], "demo", target)
    assert outcome.code == 0, outcome.output
    assert installed(target) == {"demo": "1.0"}


def test_every_address_of_pyoci(at: tuple[str, str]) -> None:
    origin, registry_url = at
    place = namespace_at(at, "acme/addresses")
    for filename, content in (ONE.wheel(), ONE.sdist()):
        place.put(filename, content)
    wheel, content = ONE.wheel()
    host = urlsplit(registry_url).netloc
    for spelling in (place.registry, host, registry_url.replace("://", ":/", 1)):
        base = f"{origin}/{spelling}/acme/addresses"
        page = requests.get(f"{base}/demo/", auth=WALTER, timeout=30)
        assert page.status_code == 200
        assert f'href="{wheel}#sha256=' in page.text
        assert requests.get(f"{base}/demo/{wheel}", auth=WALTER, timeout=30).content == content
        metadata = requests.get(f"{base}/demo/{wheel}.metadata", auth=WALTER, timeout=30)
        assert metadata.text.startswith("Metadata-Version")
        assert requests.get(f"{base}/Demo", auth=WALTER, timeout=30).url == f"{base}/demo/"
        facts = requests.get(f"{base}/demo/json", auth=WALTER, timeout=30).json()
        assert facts["info"]["name"] == "demo"
        assert list(facts["releases"]) == ["1.0"]
    assert requests.get(f"{origin}/{host}/acme/", auth=WALTER, timeout=30).status_code == 200
    # The same packages under our own address, with all that it offers.
    own = f"{origin}/r/http+~~{host.replace(':', '+')}~acme~addresses/simple/demo/"
    assert (
        requests.get(
            own,
            auth=(own.split("/")[4], ":".join(WALTER)),
            headers={"Accept": "application/vnd.pypi.simple.v1+json"},
            timeout=30,
        ).json()["files"][0]["upload-time"]
        is not None
    )
    deleted = requests.delete(f"{base}/demo/{wheel}", auth=WALTER, timeout=30)
    assert deleted.status_code == 200, deleted.text
    assert wheel not in requests.get(f"{base}/demo/", auth=WALTER, timeout=30).text
    deleted = requests.delete(f"{base}/demo/1.0", auth=WALTER, timeout=30)
    assert deleted.status_code == 200, deleted.text


def test_who_may_do_what(at: tuple[str, str], request: pytest.FixtureRequest) -> None:
    """Credentials are those of the registry, and each answer is about them."""
    place = namespace_at(at, "acme/rights")
    place.put(*ONE.wheel())
    page = f"{place.index_url}demo/"
    for auth in (None, ("walter", "wrong"), ("nobody", "write-secret")):
        answer = requests.get(page, auth=auth, timeout=30)
        assert answer.status_code == 401, answer.text
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    reader = ("rita", "read-secret")
    assert requests.get(page, auth=reader, timeout=30).status_code == 200
    if "basic" in request.node.name:  # the passwords of this registry allow everything
        return
    filename, content = Release(version="3.0").wheel()
    content_type, body = encode_multipart(form_for(filename, content), filename, content)
    for url in (place.upload_url, place.upload_url.rstrip("/")):
        answer = requests.post(
            url, data=body, headers={"Content-Type": content_type}, auth=reader, timeout=30
        )
        assert answer.status_code == 403, answer.text
    assert "3.0" not in requests.get(page, auth=WALTER, timeout=30).text


def test_a_token_of_the_registry_is_passed_on(tmp_path: Path) -> None:
    """As Bearer, as the password of the user that is named for it, or instead of a user."""
    with registry(tmp_path / "registry", bearer=True) as running:
        table = (
            '[any]\ntype = "oci"\nany_registry = true\nplain_http = true\n'
            f'registries = ["{running.url}"]\nbearer_username = "token"\n'
        )
        with serving(tmp_path / "server", table) as origin:
            place = namespace_at((origin, running.url), "acme")
            place.put(*ONE.wheel())
            token = token_of(running.url, "repository:acme/demo:pull")
            page = f"{place.index_url}demo/"
            given = {"Authorization": f"Bearer {token}"}
            assert requests.get(page, headers=given, timeout=30).status_code == 200
            for auth in (("token", token), (token, "")):
                assert requests.get(page, auth=auth, timeout=30).status_code == 200


def token_of(url: str, scope: str) -> str:
    challenge = requests.get(f"{url}/v2/", timeout=30).headers["WWW-Authenticate"]
    fields = dict(re.findall('([a-z]+)="([^"]*)"', challenge))
    query = {"service": fields["service"], "scope": scope}
    token = requests.get(fields["realm"], query, auth=WALTER, timeout=30).json()["token"]
    return str(token)


def test_made_up_namespaces_leave_nothing(tmp_path: Path) -> None:
    """The registry would let them be made, so they are not refused."""
    with small_registry() as running:
        table = (
            '[any]\ntype = "oci"\nany_registry = true\nplain_http = true\n'
            f'registries = ["{running.url}"]\n'
        )
        with serving(tmp_path / "server", table) as origin:
            place = namespace_at((origin, running.url), "real")
            place.put(*ONE.wheel())
            with requests.Session() as session:
                session.auth = WALTER
                for number in range(70):  # more than are open at a time
                    address = f"{origin}/{place.registry}/made{number}/demo/"
                    assert session.get(address, timeout=30).status_code == 404
                assert session.get(f"{place.index_url}demo/", timeout=30).status_code == 200
            folders = {path.name for path in (tmp_path / "server" / "root").glob("**/tenants/*")}
            assert len(folders) == 1


def test_the_start_page_explains_the_addresses(at: tuple[str, str]) -> None:
    session = requests.Session()
    session.headers.update({"Accept": "text/html", "User-Agent": "Mozilla/5.0"})
    page = session.get(f"{at[0]}/", timeout=30)
    assert page.status_code == 200
    assert f"{at[0]}/REGISTRY/NAMESPACE/" in page.text
    assert at[1] not in page.text  # strangers do not learn which registries there are


def test_only_the_allowed_registries_are_asked(at: tuple[str, str]) -> None:
    for other in ("registry.example", "http%3A%2F%2F127.0.0.1%3A1", "r", "127.0.0.1%3A1"):
        answer = requests.get(f"{at[0]}/{other}/acme/demo/", auth=WALTER, timeout=30)
        assert answer.status_code in (401, 404), other


def test_the_requests_of_all_namespaces_are_counted(tmp_path: Path) -> None:
    with small_registry() as running:
        given = {"registries": (running.url,), "any_registry": True, "plain_http": True}
        backend = OciBackend(settings(**given), new_folders(tmp_path))
        table = backend.seen_with(Secret("walter:write-secret"))
        assert table.access() == Access.NONE
        for namespace in ("a", "b"):
            name = backend.tenant_at(running.url, namespace)
            assert name is not None
            tenant_settings = backend.tenant_settings(name)
            assert tenant_settings is not None
            tenant = backend.tenant(tenant_settings, new_folders(tmp_path))
            assert tenant.seen_with(table.secret).access() == Access.READ
        assert table.usage().requests["2xx"] == 2
        backend.close()


def settings(**given: object) -> OciSettings:
    return OciSettings(name="any", max_file_bytes=1, **given)  # type: ignore[arg-type]


def test_the_names_of_namespaces() -> None:
    table = settings(
        any_registry=True, registries=("ghcr.io", "http://local:5000"), plain_http=True
    )
    for host, path, name in (
        ("ghcr.io", "acme", "ghcr.io~acme"),
        ("https://ghcr.io", "acme/python", "ghcr.io~acme~python"),
        ("local:5000", "a", "http+~~local+5000~a"),
        ("http://local:5000", "a", "http+~~local+5000~a"),
        ("https://local:5000", "a", None),
        ("http://ghcr.io", "a", None),
        ("evil.example", "a", None),
        ("ghcr.io@evil.example", "a", None),
        ("ghcr.io", "..", None),
        ("ghcr.io", "Acme", None),
    ):
        assert table.tenant_at(host, path) == name, (host, path)
        if name is not None:
            tenant = table.tenant(name)
            assert tenant is not None
            assert (tenant.namespace, tenant.any_registry) == (path, False)
            assert tenant.tenant_at(host, path) is None
    assert {table.tenant(name) for name in ("ghcr.io", "ghcr.io~", "~acme", "evil~a", "")} == {None}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "registry: missing"),
        ({"registry": "ghcr.io"}, "namespace: "),
        ({"any_registry": True}, "registries: missing"),
        ({"registries": ("ghcr.io",)}, "registries: needs any_registry"),
        ({"any_registry": True, "registries": ("ghcr.io",), "namespace": "a"}, "namespace: with"),
        ({"any_registry": True, "registries": ("http://a",)}, "registries: an address that"),
        ({"any_registry": True, "registries": ("user@a",)}, "registries: 'user@a' is neither"),
        ({"any_registry": True, "registries": ("ghcr.io/a",)}, "registries: 'ghcr.io/a' must not"),
        ({"any_registry": True, "registries": ("http:ghcr.io",)}, "registries: 'http:ghcr.io' is"),
        ({"any_registry": True, "registries": ("a~b",)}, "registries: 'a~b' is neither"),
    ],
)
def test_a_wrong_table_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings(**given)
