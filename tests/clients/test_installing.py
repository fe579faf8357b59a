"""Installing and locking with real clients (protocol 1-45)."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from .compatibility import Found
from .environments import Client, Outcome, make_venv
from .installers import INSTALLERS, install, install_locked, installed, lock, locked
from .releases import Release
from .serving import UMLAUT, RecordingProxy, Repository

pytestmark = pytest.mark.needs("clients")

MakeClient = Callable[[str], Client]

ONE: Final = Release(version="1.0")
TWO: Final = Release(version="2.0")

each_installer = pytest.mark.parametrize("name", INSTALLERS)


@each_installer
def test_a_wheel_is_installed(
    name: str, client: MakeClient, repository: Repository, target: Path, found: Found
) -> None:
    """protocol 1, 2, 12, 13, 21, 43"""
    repository.put(*ONE.wheel())
    repository.put(*TWO.wheel())
    outcome = install(client(name), [repository.readable()], "demo<2", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output
    found(name, "install", "yes")


@each_installer
def test_an_sdist_is_installed(
    name: str,
    client: MakeClient,
    repository: Repository,
    proxy: RecordingProxy,
    target: Path,
    found: Found,
) -> None:
    """protocol 13, 30"""
    repository.put(*ONE.sdist())
    outcome = install(client(name), [repository.at(proxy.origin).readable()], "demo", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output
    # uv takes the metadata of an sdist from the sdist.
    metadata = [] if name == "uv" else [("demo-1.0.tar.gz.metadata", 200)]
    files = [each for each in proxy.asked() if each[0] != "page"]
    assert files == [*metadata, ("demo-1.0.tar.gz", 200)]
    found(name, "sdist", "yes, its metadata from " + ("`.metadata`" if metadata else "the sdist"))


@each_installer
def test_a_local_version_is_installed(
    name: str, client: MakeClient, repository: Repository, target: Path, found: Found
) -> None:
    """protocol 28, 59"""
    repository.put(*Release(version="1.0+cu1").wheel())
    outcome = install(client(name), [repository.readable()], "demo==1.0+cu1", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0+cu1"}), outcome.output
    found(name, "local", "yes")


@each_installer
def test_a_wheel_that_is_not_the_one_of_the_index_is_refused(
    name: str, client: MakeClient, repository: Repository, target: Path, found: Found
) -> None:
    """protocol 13, 36: the hash of the page is the one that clients check."""
    filename, mine = ONE.wheel()
    _, another = Release(note="somebody else's").wheel()
    repository.put(filename, mine)
    proxy = RecordingProxy(repository.origin, instead={filename: another})
    outcome = install(client(name), [repository.at(proxy.origin).readable()], "demo", target)
    proxy.close()
    assert outcome.code != 0
    wanted, got = (hashlib.sha256(each).hexdigest() for each in (mine, another))
    assert got in outcome.text, outcome.output
    if name != "poetry":  # it shows the wrong hash only
        assert wanted in outcome.text, outcome.output
    assert installed(target) == {}
    found(name, "damaged", "refuses it")


@each_installer
def test_metadata_is_used_instead_of_the_wheel(
    name: str, client: MakeClient, repository: Repository, proxy: RecordingProxy, found: Found
) -> None:
    """protocol 17, 29"""
    repository.put(*Release(requires=("solo",)).wheel())
    repository.put(*Release(name="solo").wheel())
    outcome = lock(client(name), [repository.at(proxy.origin).readable()], "demo")
    assert outcome.code == 0, outcome.output
    asked = set(proxy.asked()) - {("page", 304)}  # pdm asks again within one run
    assert sorted(asked) == [
        ("demo-1.0-py3-none-any.whl.metadata", 200),
        ("page", 200),
        ("solo-1.0-py3-none-any.whl.metadata", 200),
    ]
    found(name, "metadata", "yes")


@pytest.mark.parametrize(
    ("name", "status", "finding"),
    [
        ("pip", 200, "downloads it again (does not cache over plain HTTP)"),
        ("uv", 304, "304"),
        ("poetry", 304, "304"),
        ("pdm", 304, "304"),
    ],
)
def test_a_page_that_did_not_change_is_not_sent_again(
    name: str,
    status: int,
    finding: str,
    client: MakeClient,
    repository: Repository,
    proxy: RecordingProxy,
    found: Found,
) -> None:
    """protocol 33, 34: strong validators, and every use asks."""
    repository.put(*ONE.wheel())
    again = client(name)
    index = [repository.at(proxy.origin).readable()]
    assert lock(again, index, "demo").code == 0
    proxy.forget()
    assert lock(again, index, "demo").code == 0
    pages = [each for each in proxy.exchanges if each.leaf == "page"]
    assert {each.status for each in pages} == {status}
    if status == 304:
        assert re.fullmatch(r'"[^"]+"', pages[0].headers["if-none-match"])
    # A new release is seen at once all the same.
    repository.put(*TWO.wheel())
    assert lock(again, index, "demo").code == 0
    assert _locked_versions(again) == ["2.0"]
    found(name, "revalidate", finding)


_CUTOFFS: Final = {
    "pip": "--uploaded-prior-to",
    "uv": "--exclude-newer",
    "pdm": "--exclude-newer",
}


@pytest.mark.parametrize("name", _CUTOFFS)
def test_what_was_uploaded_after_a_given_time_is_ignored(
    name: str, client: MakeClient, repository: Repository, found: Found
) -> None:
    """protocol 14"""
    resolver = client(name)
    repository.put(*ONE.wheel())
    between = datetime.now(UTC)
    time.sleep(0.01)
    repository.put(*TWO.wheel())

    def lock_at(moment: datetime) -> Outcome:
        option = f"{_CUTOFFS[name]}={moment.isoformat()}"
        return lock(resolver, [repository.readable()], "demo", option)

    assert lock_at(between + timedelta(days=1)).code == 0
    assert _locked_versions(resolver) == ["2.0"]
    assert lock_at(between).code == 0
    assert _locked_versions(resolver) == ["1.0"]
    assert lock_at(between - timedelta(days=1)).code != 0
    found(name, "cutoff", f"`{_CUTOFFS[name]}`")


def test_poetry_ignores_what_is_younger_than_a_given_age(
    client: MakeClient, repository: Repository, found: Found
) -> None:
    """protocol 14: it would take a file without a time."""
    poetry = client("poetry")
    repository.put(*ONE.wheel())
    index = [repository.readable()]
    assert lock(poetry, index, "demo").code == 0
    assert poetry.run("config", "solver.min-release-age", "1").code == 0
    outcome = lock(poetry, index, "demo")
    assert outcome.code != 0
    assert "ignored due to solver.min-release-age=1" in outcome.text, outcome.output
    found("poetry", "cutoff", "`solver.min-release-age`")


@each_installer
def test_a_yanked_release_is_passed_over_unless_it_is_demanded(
    name: str, client: MakeClient, repository: Repository, tmp_path: Path, found: Found
) -> None:
    """protocol 16, 69; the release is yanked by the command."""
    repository.put(*ONE.wheel())
    repository.put(*TWO.wheel())
    repository.run_command("yank", "demo", "2.0", "--reason", "broken on Mondays")
    index = [repository.readable()]

    passing, demanding = make_venv(tmp_path / "passing"), make_venv(tmp_path / "demanding")
    outcome = install(client(name), index, "demo>=1", passing)
    assert (outcome.code, installed(passing)) == (0, {"demo": "1.0"}), outcome.output
    outcome = install(client(name), index, "demo==2.0", demanding)
    assert (outcome.code, installed(demanding)) == (0, {"demo": "2.0"}), outcome.output
    shown = "broken on Mondays" in outcome.text
    assert shown == (name != "pdm"), outcome.output
    found(name, "yanked", "yes, shows the reason" if shown else "yes, shows nothing")


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("pip", "sha256 (experimental `pip lock`)"),
        ("uv", "sha256, size, upload time"),
        ("poetry", "sha256"),
        ("pdm", "sha256"),
    ],
)
def test_a_lock_has_the_hashes_and_is_installed_from(
    name: str,
    finding: str,
    client: MakeClient,
    repository: Repository,
    target: Path,
    found: Found,
) -> None:
    """protocol 13, 14, 20"""
    filename, content = ONE.wheel()
    repository.put(filename, content)
    locker = client(name)
    index = [repository.readable()]
    outcome = lock(locker, index, "demo")
    assert outcome.code == 0, outcome.output

    (package,) = (each for each in _packages(locker) if each["name"] == "demo")
    digest = hashlib.sha256(content).hexdigest()
    url = f"{repository.index_url}demo/{filename}"
    match name:
        case "pip":
            expected: Any = [{"name": filename, "url": url, "hashes": {"sha256": digest}}]
            assert package["wheels"] == expected
        case "uv":
            (wheel,) = package["wheels"]
            uploaded_at = datetime.fromisoformat(wheel.pop("upload-time"))
            assert abs(uploaded_at - datetime.now(UTC)) < timedelta(minutes=5)
            assert wheel == {"url": url, "hash": f"sha256:{digest}", "size": len(content)}
        case _:
            assert package["files"] == [{"file": filename, "hash": f"sha256:{digest}"}]

    outcome = install_locked(locker, index, target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output
    found(name, "lock", finding)


@each_installer
def test_credentials_come_from_netrc(
    name: str, client: MakeClient, repository: Repository, target: Path, found: Found
) -> None:
    """protocol 45"""
    repository.put(*ONE.wheel())
    installer = client(name)
    netrc = installer.home / ".netrc"
    netrc.write_text(
        f"machine 127.0.0.1 login {repository.name} password {repository.read_secret}\n"
    )
    netrc.chmod(0o600)
    outcome = install(installer, [repository.index_url], "demo", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output
    found(name, "netrc", "yes")


@each_installer
def test_a_secret_that_is_not_ascii_is_understood(
    name: str,
    client: MakeClient,
    repository: Repository,
    proxy: RecordingProxy,
    target: Path,
    found: Found,
) -> None:
    """protocol 42: percent-encoded as UTF-8 in the address, and sent as each client does."""
    repository.put(*ONE.wheel())
    index = [repository.at(proxy.origin).readable(UMLAUT)]
    outcome = install(client(name), index, "demo", target)
    assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output
    (sent,) = {each.headers["authorization"] for each in proxy.exchanges}
    encoding = "latin-1" if name in ("pip", "poetry") else "UTF-8"
    credentials = f"{repository.name}:{UMLAUT}".encode(encoding)
    assert base64.b64decode(sent.removeprefix("Basic ")) == credentials
    found(name, "latin", f"yes, sends {encoding}")


_WRONG: Final = {
    "pip": "401 Error, Credentials not correct for",
    "uv": "lack of valid authentication credentials (401 Unauthorized)",
    "poetry": "Authorization error accessing",
    "pdm": "Unable to find candidates for demo",
}


@each_installer
def test_a_wrong_secret_fails_at_once(
    name: str, client: MakeClient, repository: Repository, target: Path, found: Found
) -> None:
    """protocol 8, 40"""
    repository.put(*ONE.wheel())
    begun = time.monotonic()
    outcome = install(client(name), [repository.readable("open-sesame")], "demo", target)
    assert time.monotonic() - begun < 60  # of a busy machine
    assert (outcome.code != 0, installed(target)) == (True, {}), outcome.output
    assert _WRONG[name] in outcome.text, outcome.output
    assert "open-sesame" not in outcome.output
    found(name, "wrong", f"fails, shows “{_WRONG[name]}”")


@each_installer
def test_two_repositories_of_one_server_are_installed_from_at_once(
    name: str,
    client: MakeClient,
    repository: Repository,
    other_repository: Repository,
    target: Path,
    found: Found,
) -> None:
    """protocol 43: credentials are kept apart though host and port are the same."""
    repository.put(*Release(requires=("solo",)).wheel())
    other_repository.put(*Release(name="solo", version="5.0").wheel())
    indexes = [repository.readable(), other_repository.readable()]
    outcome = install(client(name), indexes, "demo", target)
    both = {"demo": "1.0", "solo": "5.0"}
    assert (outcome.code, installed(target)) == (0, both), outcome.output
    found(name, "two", "yes")


def test_uv_goes_on_after_404_and_stops_at_the_first_index_that_has_the_name(
    client: MakeClient,
    repository: Repository,
    other_repository: Repository,
    tmp_path: Path,
) -> None:
    """protocol 8: `first-index`, uv's protection against dependency confusion"""
    indexes = [repository.readable(), other_repository.readable()]
    other_repository.put(*TWO.wheel())
    before, after = make_venv(tmp_path / "before"), make_venv(tmp_path / "after")
    assert install(client("uv"), indexes, "demo", before).code == 0
    assert installed(before) == {"demo": "2.0"}
    repository.put(*ONE.wheel())
    assert install(client("uv"), indexes, "demo", after).code == 0
    assert installed(after) == {"demo": "1.0"}


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("pip", "takes the name from the second, warns"),
        ("uv", "fails"),
        ("poetry", "takes the name from the second, warns"),
        ("pdm", "takes the name from the second, shows nothing"),
    ],
)
def test_only_uv_does_not_fall_through_from_a_wrong_secret(
    name: str,
    finding: str,
    client: MakeClient,
    repository: Repository,
    other_repository: Repository,
    target: Path,
    found: Found,
) -> None:
    """protocol 8: whoever has two indexes should know what his client does."""
    other_repository.put(*ONE.wheel())
    indexes = [repository.readable("open-sesame"), other_repository.readable()]
    outcome = install(client(name), indexes, "demo", target)
    if name == "uv":
        assert (outcome.code != 0, installed(target)) == (True, {}), outcome.output
    else:
        assert (outcome.code, installed(target)) == (0, {"demo": "1.0"}), outcome.output
    assert (_WRONG[name] in outcome.text) == (name != "pdm"), outcome.output
    found(name, "fall", finding)


@pytest.mark.parametrize("name", ["pip", "uv"])
def test_nothing_outside_this_machine_can_be_reached(
    name: str, client: MakeClient, target: Path
) -> None:
    """Without an index of ours: what the other tests found came from our server."""
    outcome = client(name).run(
        *(["pip"] if name == "uv" else []), "install", f"--target={target}", "demo"
    )
    assert outcome.code != 0
    assert "Connection refused" in outcome.text, outcome.output


def _packages(client: Client) -> Any:
    document = locked(client)
    return document["packages" if client.name == "pip" else "package"]


def _locked_versions(client: Client) -> list[str]:
    return [each["version"] for each in _packages(client) if each["name"] == "demo"]
