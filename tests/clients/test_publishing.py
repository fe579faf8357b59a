"""Publishing with real clients (protocol 46-58)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from .compatibility import Found
from .environments import Client
from .publishers import PUBLISHERS, how_shown, publish, sent_files
from .releases import Release
from .serving import RecordingProxy, Repository

pytestmark = pytest.mark.needs("clients")

MakeClient = Callable[[str], Client]

FIRST: Final = Release(note="first")
SECOND: Final = Release(note="second")  # the same names, other bytes

each_publisher = pytest.mark.parametrize("name", PUBLISHERS)


@each_publisher
def test_a_wheel_and_an_sdist_are_published(
    name: str, client: MakeClient, repository: Repository, found: Found
) -> None:
    """protocol 46, 47, 48, 53, 61"""
    publisher = client(name)
    outcome = publish(publisher, FIRST, repository)
    assert outcome.code == 0, outcome.output
    assert repository.files() == sent_files(publisher)
    assert len(sent_files(publisher)) == 2
    found(name, "publish", "yes")


@each_publisher
def test_identical_files_are_published_again_without_an_error(
    name: str, client: MakeClient, repository: Repository, found: Found
) -> None:
    """protocol 55"""
    publisher = client(name)
    outcomes = [publish(publisher, FIRST, repository) for _ in range(2)]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert repository.files() == sent_files(publisher)
    found(name, "again", "succeeds")


@pytest.mark.parametrize("name", [name for name in PUBLISHERS if name != "hatch"])
def test_other_content_under_a_taken_name_fails_and_shows_the_sentence(
    name: str, client: MakeClient, repository: Repository, found: Found
) -> None:
    """protocol 55, 56, 57"""
    publisher = client(name)
    publish(publisher, FIRST, repository)
    before = repository.files()
    outcome = publish(publisher, SECOND, repository)
    shown = how_shown(publisher, outcome, "409 Conflict", "File already exists")
    assert repository.files() == before
    found(name, "different", f"fails, {shown}")


def test_hatch_passes_over_a_taken_name_without_sending_the_file(
    client: MakeClient, repository: Repository, proxy: RecordingProxy, found: Found
) -> None:
    """protocol 94: it asks `+simple` beside the upload address, and looks at names only."""
    hatch = client("hatch")
    publish(hatch, FIRST, repository)
    before = repository.files()
    outcome = publish(hatch, SECOND, repository.at(proxy.origin))
    assert outcome.code == 0, outcome.output
    assert outcome.text.count("already exists") == 2
    assert [(each.method, each.path) for each in proxy.exchanges] == [
        ("GET", f"/r/{repository.name}/%2Bsimple/demo/")
    ]
    assert repository.files() == before
    found("hatch", "different", "skips it, shows “already exists”")
    found("hatch", "skip", "always, compares names")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("poetry", "File exists. Skipping"), ("pdm", "because it appears to already exist")],
)
def test_skip_existing_turns_the_conflict_into_a_notice(
    name: str, sentence: str, client: MakeClient, repository: Repository, found: Found
) -> None:
    """protocol 56"""
    publisher = client(name)
    publish(publisher, FIRST, repository)
    before = repository.files()
    outcome = publish(publisher, SECOND, repository, "--skip-existing")
    assert (outcome.code, outcome.text.count(sentence)) == (0, 2), outcome.output
    assert repository.files() == before
    found(name, "skip", "`--skip-existing`")


def test_twine_refuses_skip_existing_for_any_index_of_ones_own(
    client: MakeClient, repository: Repository, proxy: RecordingProxy, found: Found
) -> None:
    """protocol 55: so that identical files must be no error."""
    outcome = publish(client("twine"), FIRST, repository.at(proxy.origin), "--skip-existing")
    assert outcome.code != 0
    assert "UnsupportedConfiguration" in outcome.text
    assert proxy.exchanges == []
    found("twine", "skip", "refuses `--skip-existing` here; it is not needed for identical files")


def test_uv_with_check_url_sends_nothing_that_is_there_and_compares_hashes(
    client: MakeClient, repository: Repository, proxy: RecordingProxy, found: Found
) -> None:
    """protocol 20, 34, 55, 56"""
    uv = client("uv")
    through = repository.at(proxy.origin)
    check = ("--check-url", through.readable())
    assert publish(uv, FIRST, through, *check).code == 0
    assert repository.files() == sent_files(uv)
    proxy.forget()

    outcome = publish(uv, FIRST, through, *check)
    assert (outcome.code, outcome.text.count("already exists, skipping")) == (0, 2)
    assert {each.method for each in proxy.exchanges} == {"GET"}

    before = repository.files()
    outcome = publish(uv, SECOND, through, *check)
    assert outcome.code != 0
    assert "Local file and index file do not match" in outcome.text
    assert repository.files() == before
    found("uv", "skip", "`--check-url`, compares hashes")


@each_publisher
def test_a_secret_that_may_only_read_is_refused_with_a_sentence(
    name: str, client: MakeClient, repository: Repository, found: Found
) -> None:
    """protocol 57, 58"""
    publisher = client(name)
    outcome = publish(publisher, FIRST, repository, secret=repository.read_secret)
    sentence = f"this secret may read repository '{repository.name}', but not change it"
    shown = how_shown(publisher, outcome, "403 Forbidden", sentence)
    assert repository.files() == {}
    found(name, "refused", f"fails, {shown}")


@each_publisher
def test_a_wrong_secret_is_refused_and_not_shown(
    name: str, client: MakeClient, repository: Repository, found: Found
) -> None:
    """protocol 40, 58"""
    publisher = client(name)
    outcome = publish(publisher, FIRST, repository, secret="open-sesame")
    shown = how_shown(publisher, outcome, "401 Unauthorized", "unknown repository or wrong secret")
    assert "open-sesame" not in outcome.output
    assert repository.files() == {}
    found(name, "unknown", f"fails, {shown}")


@each_publisher
def test_the_user_may_be_token_where_the_address_names_the_repository(
    name: str, client: MakeClient, repository: Repository, found: Found
) -> None:
    """protocol 41"""
    publisher = client(name)
    outcome = publish(publisher, FIRST, repository, user="__token__")
    assert outcome.code == 0, outcome.output
    assert repository.files() == sent_files(publisher)
    found(name, "token", "yes")


@pytest.mark.parametrize("ending", ["", "/", "/simple", "/simple/", "/legacy", "/legacy/"])
def test_twine_publishes_to_every_address_that_people_type(
    ending: str, client: MakeClient, repository: Repository
) -> None:
    """protocol 47: twine follows no redirect."""
    twine = client("twine")
    address = repository.upload_url.rstrip("/") + ending
    outcome = publish(twine, FIRST, repository, "--repository-url", address)
    assert outcome.code == 0, outcome.output
    assert repository.files() == sent_files(twine)


def test_attestations_that_uv_finds_beside_the_files_do_no_harm(
    client: MakeClient, repository: Repository
) -> None:
    """protocol 52"""
    uv = client("uv")
    attestation = f"{FIRST.wheel()[0]}.publish.attestation"
    outcome = publish(uv, FIRST, repository, beside={attestation: b'{"version": 1}'})
    assert outcome.code == 0, outcome.output
    sent = sent_files(uv)
    del sent[attestation]
    assert repository.files() == sent


@pytest.mark.parametrize("name", ["twine", "hatch", "flit"])
def test_credentials_come_from_pypirc(
    name: str, client: MakeClient, repository: Repository, found: Found
) -> None:
    """protocol 45"""
    publisher = client(name)
    (publisher.home / ".pypirc").write_text(
        "[distutils]\nindex-servers = acme\n\n"
        f"[acme]\nrepository = {repository.upload_url}\n"
        f"username = {repository.name}\npassword = {repository.write_secret}\n"
    )
    # hatch finds the section by its address.
    where = ("--repo", repository.upload_url) if name == "hatch" else ("--repository", "acme")
    outcome = publish(publisher, FIRST, None, *where)
    assert outcome.code == 0, outcome.output
    assert repository.files() == sent_files(publisher)
    found(name, "pypirc", "yes")
