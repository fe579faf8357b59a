"""The cookie: encrypted, limited in size and time, and with keys that can be changed."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from private_pypi.backend import Secret
from private_pypi.configuration.config import read_source
from private_pypi.errors import BackendError, ConfigurationError
from private_pypi.web.sessions.sessions import (
    IDLE,
    KEY_FILE,
    KEY_VARIABLE,
    LARGEST,
    LONGEST,
    SessionSeal,
    SessionTooLarge,
    load_seal,
    new_session,
)

NOW = 1_800_000_000
KEY = "k" * 32
OTHER_KEY = "o" * 32

SESSION = new_session(NOW).with_repository("mine", Secret("s3cret"))


@pytest.fixture
def seal() -> SessionSeal:
    return SessionSeal([KEY])


def test_a_session_comes_back(seal: SessionSeal) -> None:
    assert seal.open(seal.seal(SESSION), NOW + 1) == SESSION


def test_nobody_reads_a_session(seal: SessionSeal) -> None:
    sealed = seal.seal(SESSION)
    for secret in ("s3cret", "mine"):
        assert secret not in sealed
    assert "s3cret" not in repr(SESSION)
    assert SessionSeal([OTHER_KEY]).open(sealed, NOW) is None


def test_nobody_changes_a_session(seal: SessionSeal) -> None:
    sealed = seal.seal(SESSION)
    for place in range(0, len(sealed), 7):
        other = "A" if sealed[place] != "A" else "B"
        assert seal.open(sealed[:place] + other + sealed[place + 1 :], NOW) is None


@given(st.text(max_size=100))
def test_what_is_no_session_is_none(text: str) -> None:
    assert SessionSeal([KEY]).open(text, NOW) is None


def test_a_session_ends_when_nobody_comes_and_in_any_case(seal: SessionSeal) -> None:
    sealed = seal.seal(SESSION)
    assert seal.open(sealed, NOW + IDLE - 1) is not None
    assert seal.open(sealed, NOW + IDLE) is None
    kept_up = seal.seal(replace(SESSION, seen_at=NOW + LONGEST - 10))
    assert seal.open(kept_up, NOW + LONGEST - 1) is not None
    assert seal.open(kept_up, NOW + LONGEST) is None


def test_repositories_come_and_go() -> None:
    both = SESSION.with_repository("other", Secret("x"))
    assert (list(both.repositories), both.current_name) == (["mine", "other"], "other")
    assert both.token != SESSION.token
    back = both.with_current("mine")
    assert back.without_repository("mine").current_name == "other"
    assert back.without_repository("other").current_name == "mine"
    nobody = SESSION.without_repository("mine")
    assert (dict(nobody.repositories), nobody.current_name) == ({}, None)


def test_a_cookie_has_room_for_many_tokens_and_then_says_so(seal: SessionSeal) -> None:
    session = new_session(NOW)
    for number in range(20):
        session = session.with_repository(f"repository-{number}", Secret("t" * 93))
        assert len(seal.seal(session)) <= LARGEST
    with pytest.raises(SessionTooLarge):
        seal.seal(session.with_repository("more", Secret("t" * 2000)))


def test_keys_are_changed_without_ending_sessions() -> None:
    sealed = SessionSeal([KEY]).seal(SESSION)
    both = SessionSeal([OTHER_KEY, KEY])
    assert both.open(sealed, NOW) == SESSION
    assert SessionSeal([OTHER_KEY]).open(both.seal(SESSION), NOW) == SESSION
    assert SessionSeal([KEY]).open(both.seal(SESSION), NOW) is None


def test_a_form_is_known_by_its_token() -> None:
    assert SESSION.has_token(SESSION.token)
    for token in ("", "x", SESSION.token + "x", "é", "\ud800"):
        assert not SESSION.has_token(token)


# -- keys ----------------------------------------------------------------------------------------


def test_the_first_process_makes_a_key_that_all_use(tmp_path: Path) -> None:
    sealed = load_seal(tmp_path, {}).seal(SESSION)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert load_seal(tmp_path, {}).open(sealed, NOW) == SESSION
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_many_that_begin_at_once_have_one_key(tmp_path: Path) -> None:
    begin = threading.Barrier(8)
    seals = []

    def start() -> None:
        begin.wait()
        seals.append(load_seal(tmp_path, {}))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sealed = seals[0].seal(SESSION)
    assert [seal.open(sealed, NOW) for seal in seals] == [SESSION] * 8


def test_the_environment_has_keys(tmp_path: Path) -> None:
    sealed = load_seal(tmp_path, {KEY_VARIABLE: KEY}).seal(SESSION)
    assert not (tmp_path / KEY_FILE).exists()
    assert load_seal(tmp_path, {KEY_VARIABLE: f"{OTHER_KEY} {KEY}\n"}).open(sealed, NOW) == SESSION
    assert load_seal(tmp_path, {KEY_VARIABLE: f"{OTHER_KEY},{KEY}"}).open(sealed, NOW) == SESSION


def test_a_short_key_is_refused_and_not_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_seal(tmp_path, {KEY_VARIABLE: f"{KEY} hunter2"})
    assert str(caught.value) == (
        "key 2 for sessions (PRIVATE_PYPI_SECRET_KEY) has 7 characters; a key is random and has at "
        "least 32, such as one that `openssl rand -hex 32` makes"
    )


def test_servers_with_the_same_file_share_sessions(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    path.write_text(f"{KEY}\n")
    roots = [tmp_path / "one", tmp_path / "other"]
    sealed = load_seal(roots[0], {}, read_source(path)).seal(SESSION)
    assert load_seal(roots[1], {}, read_source(path)).open(sealed, NOW) == SESSION
    assert not any(root.exists() for root in roots)
    path.write_text(f"{OTHER_KEY}\n{KEY}\n")
    assert load_seal(roots[1], {}, read_source(path)).open(sealed, NOW) == SESSION


def test_the_message_of_a_short_key_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    path.write_text("hunter2")
    with pytest.raises(ConfigurationError) as caught:
        load_seal(tmp_path, {}, read_source(path))
    assert str(caught.value).startswith(f"key 1 for sessions ({path}) has 7 characters; a key is")


def test_keys_of_a_file_and_of_the_environment_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    path.write_text(KEY)
    with pytest.raises(ConfigurationError) as caught:
        load_seal(tmp_path, {KEY_VARIABLE: KEY}, read_source(path))
    assert str(caught.value) == (
        f"PRIVATE_PYPI_SECRET_KEY and {path} both have keys for sessions; give only one of them, "
        "and all keys in it"
    )


def test_an_empty_file_is_no_key(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text("\n")
    with pytest.raises(ConfigurationError, match="has no key"):
        load_seal(tmp_path, {})


def test_a_key_that_cannot_be_read_is_trouble(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(BackendError, match="cannot be used"):
        load_seal(tmp_path, {})
