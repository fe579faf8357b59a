"""Which files of a mirror are served, which rule hides the others, and when that changes."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import NormalizedName

from private_pypi.backend.times import show_instant
from private_pypi.errors import BackendError, ConfigurationError
from private_pypi.model import ProjectStatus
from private_pypi.policy import HiddenFile, Judged, Policy, Sighting
from tests.policy.sightings import DAY, DEMO, NOW, policy, sighting

MICROSECOND = timedelta(microseconds=1)


def judge(
    rules: Policy, *files: Sighting, now: datetime = NOW, status: ProjectStatus | None = None
) -> Judged:
    return rules.judge(DEMO, files, status=status, now=now)


def hidden(rules: Policy, *files: Sighting, now: datetime = NOW) -> dict[str | None, str]:
    """The rules by the version of each hidden file."""
    return {each.version: each.rule for each in judge(rules, *files, now=now).hidden}


def reason(rules: Policy, file: Sighting) -> str:
    [found] = judge(rules, file).hidden
    return found.reason


def allow(path: Path, *entries: str) -> Path:
    """A file of allowances for `demo`, each with some lines of its own."""
    common = '[[allow]]\nrepository = "pypi"\nproject = "demo"\n'
    path.write_text("".join(f"{common}{entry}\n" for entry in entries))
    return path


# -- no rules ------------------------------------------------------------------------------------


def test_without_rules_everything_is_served_in_the_given_order() -> None:
    files = [sighting("2.0", yanked="broken"), sighting("1.0"), sighting("1.0", filename="odd")]
    assert judge(policy(), *files) == Judged(
        files=tuple(each.file for each in files), hidden=(), allowed={}, changes_at=None
    )


@pytest.mark.parametrize(
    "rule",
    [
        {"cooldown": "1 day"},
        {"as_of": "2026-11-01"},
        {"deny": ("demo",)},
        {"wheels_only": True},
    ],
)
def test_a_policy_is_trivial_without_rules(rule: dict[str, object], tmp_path: Path) -> None:
    assert policy().is_trivial
    assert policy(cooldown="0", deny=("# nothing",)).is_trivial
    assert not policy(**rule).is_trivial
    assert not policy().at(NOW).is_trivial
    (tmp_path / "deny.txt").touch()
    assert not policy(deny_file=tmp_path / "deny.txt").is_trivial


# -- cooldown ------------------------------------------------------------------------------------


def test_a_young_file_is_hidden_until_it_is_old_enough() -> None:
    rules = policy(cooldown="7 days")
    old = sighting("1.0", uploaded_at=NOW - 7 * DAY)
    young = sighting("1.1", uploaded_at=NOW - 7 * DAY + MICROSECOND, first_seen_at=NOW - 90 * DAY)
    leaves = NOW + MICROSECOND
    assert judge(rules, old, young) == Judged(
        files=(old.file,),
        hidden=(
            HiddenFile(
                filename=young.file.filename,
                version="1.1",
                rule="cooldown",
                reason="uploaded 2026-11-22T12:00:00Z, less than 7 days ago; it is served from "
                "2026-11-29T12:00:00Z on",
                until=leaves,
            ),
        ),
        allowed={},
        changes_at=leaves,
    )
    assert judge(rules, old, young, now=leaves).files == (old.file, young.file)


def test_without_an_upload_time_a_file_is_as_old_as_the_first_sight_of_it() -> None:
    """protocol 14: that time is never published as the upload time of the file."""
    rules = policy(cooldown="36 hours")
    seen = sighting("1.0", first_seen_at=NOW - DAY)
    [found] = judge(rules, seen).hidden
    assert found.until == NOW + DAY / 2
    assert found.reason == (
        "first seen here 2026-11-28T12:00:00Z (the upstream gives no upload time), less than "
        "36 hours ago; it is served from 2026-11-30T00:00:00Z on"
    )
    [served] = judge(rules, seen, now=NOW + DAY / 2).files
    assert served.uploaded_at is None


@pytest.mark.parametrize("year", [2027, 9999])
def test_a_file_from_the_future_is_young(year: int) -> None:
    uploaded = datetime(year, 12, 31, 23, 59, tzinfo=UTC)
    judged = judge(policy(cooldown="7 days"), sighting("1.0", uploaded_at=uploaded))
    assert [each.rule for each in judged.hidden] == ["cooldown"]
    assert judged.changes_at == (uploaded + 7 * DAY if year < 9999 else None)


@pytest.mark.parametrize(
    ("cooldown", "told"),
    [
        ("2 weeks", "14 days"),
        ("24 hours", "1 day"),
        ("120 minutes", "2 hours"),
        ("61 minutes", "61 minutes"),
    ],
)
def test_the_cooldown_is_told_in_words(cooldown: str, told: str) -> None:
    assert f"less than {told} ago" in reason(policy(cooldown=cooldown), sighting(uploaded_at=NOW))


# -- as_of ---------------------------------------------------------------------------------------


def test_a_frozen_mirror_has_the_files_up_to_an_instant() -> None:
    rules = policy(as_of="2026-11-01")
    instant = datetime(2026, 11, 1, tzinfo=UTC)
    before = sighting("1.0", uploaded_at=instant)
    after = sighting("1.1", uploaded_at=instant + DAY, first_seen_at=instant - DAY)
    unknown = sighting("1.2", first_seen_at=instant + DAY)
    judged = judge(rules, before, after, unknown)
    assert judged.files == (before.file,)
    assert [(each.rule, each.until, each.reason) for each in judged.hidden] == [
        (
            "as_of",
            None,
            "uploaded 2026-11-02T00:00:00Z, later than 2026-11-01T00:00:00Z, the last moment "
            "shown here",
        ),
        (
            "as_of",
            None,
            "first seen here 2026-11-02T00:00:00Z (the upstream gives no upload time), later than "
            "2026-11-01T00:00:00Z, the last moment shown here",
        ),
    ]
    assert judged.changes_at is None


def test_of_two_instants_the_earlier_counts() -> None:
    files = [sighting(str(age), uploaded_at=NOW - age * DAY) for age in (1, 3, 5)]
    frozen = policy(as_of=show_instant(NOW - 2 * DAY))
    assert hidden(policy().at(NOW - 4 * DAY), *files) == {"1": "as_of", "3": "as_of"}
    assert hidden(frozen.at(NOW - 4 * DAY), *files) == {"1": "as_of", "3": "as_of"}
    assert hidden(frozen.at(NOW), *files) == {"1": "as_of"}


def test_the_cooldown_of_a_frozen_mirror_is_counted_up_to_its_instant() -> None:
    rules = policy(cooldown="7 days").at(NOW - DAY)
    young = sighting("1.0", uploaded_at=NOW - 3 * DAY)
    old = sighting("0.9", uploaded_at=NOW - 9 * DAY)
    judged = judge(rules, old, young)
    assert judged.files == (old.file,)
    assert [(each.rule, each.until, each.reason) for each in judged.hidden] == [
        (
            "cooldown",
            None,
            "uploaded 2026-11-26T12:00:00Z, less than 7 days before 2026-11-28T12:00:00Z, the "
            "last moment shown here",
        )
    ]
    assert judge(rules, old, young, now=NOW + 90 * DAY) == judged


# -- deny, wheels_only, status -------------------------------------------------------------------


def test_denied_versions_are_hidden_with_the_reason() -> None:
    rules = policy(deny=("demo<2,>=1  # CVE-2026-1", "demo==3.0", "other"))
    files = [sighting(each) for each in ("0.9", "1.0", "1.5rc1", "2.0", "3.0")]
    assert hidden(rules, *files) == {"1.0": "deny", "1.5rc1": "deny", "3.0": "deny"}
    assert reason(rules, files[1]) == "the operator of this mirror denies 'demo<2,>=1': CVE-2026-1"
    assert reason(rules, files[4]) == (
        "the operator of this mirror denies 'demo==3.0': no reason is given"
    )


def test_a_whole_project_is_denied() -> None:
    rules = policy(deny=("Demo # typo of demos", "part<2"))
    assert rules.denied_project(DEMO) == (
        "the operator of this mirror denies 'Demo': typo of demos"
    )
    assert rules.denied_project(NormalizedName("part")) is None
    assert hidden(rules, sighting("1.0"), sighting("")) == {"1.0": "deny", None: "deny"}


def test_only_wheels_are_served() -> None:
    rules = policy(wheels_only=True)
    files = [sighting("1.0"), sighting("1.1", filename="demo-1.1.tar.gz")]
    assert hidden(rules, *files) == {"1.1": "wheels_only"}
    assert reason(rules, files[1]) == "it is not a wheel, and only wheels are served here"


@pytest.mark.parametrize("status", ["active", "archived", "deprecated", "new-in-2030"])
def test_a_project_with_another_status_is_served(status: str) -> None:
    assert judge(policy(), sighting(), status=ProjectStatus(status)).hidden == ()


def test_a_quarantined_project_has_no_files_whatever_is_allowed(tmp_path: Path) -> None:
    """protocol 70"""
    path = allow(tmp_path / "allowed.toml", 'by = "Ada"\nwhy = "now"\nuntil = 9999-01-01T00:00:00Z')
    for rules in (policy(), policy(path, cooldown="7 days", deny=("demo",))):
        status = ProjectStatus("quarantined", "malware")
        judged = judge(rules, sighting(uploaded_at=NOW), status=status)
        assert (judged.files, judged.allowed, judged.changes_at) == ((), {}, None)
        assert [(each.rule, each.reason) for each in judged.hidden] == [
            ("status", "its project is quarantined by the upstream index: malware")
        ]


def test_the_first_rule_that_hides_a_file_is_named() -> None:
    files = [
        sighting("1.0", uploaded_at=NOW, filename="demo-1.0.tar.gz"),
        sighting("2.0", uploaded_at=NOW, filename="demo-2.0.tar.gz"),
        sighting("2.1", uploaded_at=NOW),
        sighting("2.2", uploaded_at=NOW - 2 * DAY),
    ]
    rules = policy(deny=("demo<2",), wheels_only=True, cooldown="7 days").at(NOW - DAY)
    assert hidden(rules, *files) == {
        "1.0": "deny",
        "2.0": "wheels_only",
        "2.1": "as_of",
        "2.2": "cooldown",
    }


# -- the deny file -------------------------------------------------------------------------------


@pytest.fixture
def deny_file(tmp_path: Path) -> Path:
    path = tmp_path / "deny.txt"
    path.write_text("# Shared list.\r\n\r\ndemo<2 # CVE-2026-1\r\n")
    return path


def changed(rules: Policy, path: Path, text: str | None) -> None:
    """Change the deny file, and let its next look be due."""
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    assert rules._deny_file is not None
    rules._deny_file._next_look = 0.0


def test_a_deny_file_is_read_again_when_it_changes(deny_file: Path) -> None:
    rules = policy(deny=("demo==2.0",), deny_file=deny_file)
    frozen = rules.at(NOW)
    files = [sighting("1.0"), sighting("2.0"), sighting("3.0")]
    assert hidden(rules, *files) == hidden(frozen, *files) == {"1.0": "deny", "2.0": "deny"}
    before = rules.generation()
    assert before == rules.generation()
    changed(rules, deny_file, "demo==3.*\n")
    assert hidden(rules, *files) == hidden(frozen, *files) == {"2.0": "deny", "3.0": "deny"}
    assert rules.generation() == frozen.generation() != before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "it does not exist"),
        ("demo<2\n\n-r more.txt\n", "line 3, '-r more.txt': options are not allowed here"),
    ],
)
def test_with_a_wrong_deny_file_nothing_is_served_until_it_is_repaired(
    deny_file: Path, text: str | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    rules = policy(deny_file=deny_file)
    before = rules.generation()
    changed(rules, deny_file, text)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            with pytest.raises(BackendError, match="the deny file of this mirror is wrong: ") as e:
                judge(rules, sighting())
            assert why in str(e.value)
            assert str(deny_file.parent) not in str(e.value)  # clients read it
    with pytest.raises(BackendError):
        rules.denied_project(NormalizedName("other"))
    assert rules.generation() != before
    assert [str(deny_file) in each for each in caplog.messages] == [True]
    changed(rules, deny_file, "demo<1")
    assert judge(rules, sighting()).hidden == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "it does not exist"), ("demo<2\ndemo[x]\n", r"line 2, 'demo\[x\]': extras are not")],
)
def test_a_mirror_does_not_start_with_a_wrong_deny_file(
    deny_file: Path, text: str | None, why: str
) -> None:
    deny_file.unlink()
    if text is not None:
        deny_file.write_text(text)
    with pytest.raises(ConfigurationError, match=rf"\[pypi\] deny_file: '.*deny.txt': {why}"):
        policy(deny_file=deny_file)


# -- allowances ----------------------------------------------------------------------------------


def test_an_allowance_is_an_exception_to_the_cooldown(tmp_path: Path) -> None:
    path = allow(
        tmp_path / "allowed.toml",
        'version = "1.1"\nby = "Ada"\nwhy = "fix"\nuntil = 2026-12-01',
        'version = "1.1"\nby = "Bob"\nwhy = "ended"\nuntil = 2026-11-29T12:00:00Z',
    )
    rules = policy(path, cooldown="7 days")
    files = [sighting(each, uploaded_at=NOW - DAY) for each in ("1.0", "1.1")]
    judged = judge(rules, *files)
    assert judged.files == (files[1].file,)
    assert {name: each.by for name, each in judged.allowed.items()} == {
        files[1].file.filename: "Ada"
    }
    assert judged.changes_at == datetime(2026, 12, 1, tzinfo=UTC)
    ended = judge(rules, *files, now=judged.changes_at)
    assert (ended.files, ended.allowed) == ((), {})
    assert ended.changes_at == NOW + 6 * DAY
    other = policy(path, cooldown="7 days")
    other._repository = "other"
    assert judge(other, *files).files == ()


def test_of_several_allowances_the_one_that_ends_last_is_named(tmp_path: Path) -> None:
    lines = [
        f'by = "{by}"\nwhy = "fix"\nuntil = 2026-12-0{day}'
        for by, day in (("Ada", 1), ("Bob", 3), ("Cyd", 2))
    ]
    rules = policy(allow(tmp_path / "allowed.toml", *lines), cooldown="7 days")
    judged = judge(rules, sighting(uploaded_at=NOW))
    assert [each.by for each in judged.allowed.values()] == ["Bob"]
    assert judged.changes_at == datetime(2026, 12, 3, tzinfo=UTC)


def test_a_file_that_is_old_enough_is_not_allowed_but_served(tmp_path: Path) -> None:
    path = allow(tmp_path / "allowed.toml", 'by = "Ada"\nwhy = "fix"\nuntil = 2027-01-01')
    rules = policy(path, cooldown="7 days")
    young = sighting(uploaded_at=NOW - DAY)
    assert judge(rules, young).changes_at == NOW + 6 * DAY
    judged = judge(rules, young, now=NOW + 6 * DAY)
    assert judged == Judged(files=(young.file,), hidden=(), allowed={}, changes_at=None)


def test_an_allowance_lets_nothing_else_through(tmp_path: Path) -> None:
    path = allow(tmp_path / "allowed.toml", 'by = "Ada"\nwhy = "fix"\nuntil = 2027-01-01')
    rules = policy(path, cooldown="7 days", wheels_only=True, deny=("demo==1.0",))
    files = [
        sighting("1.0", uploaded_at=NOW - 2 * DAY),
        sighting("1.1", uploaded_at=NOW - 2 * DAY, filename="demo-1.1.zip"),
        sighting("1.2", uploaded_at=NOW),
        sighting("1.3", uploaded_at=NOW - 2 * DAY),
    ]
    assert hidden(rules.at(NOW - DAY), *files) == {
        "1.0": "deny",
        "1.1": "wheels_only",
        "1.2": "as_of",
    }


def test_a_mistake_among_the_allowances_lets_nothing_through(tmp_path: Path) -> None:
    path = allow(tmp_path / "allowed.toml", 'by = "Ada"\nwhy = "fix"\nuntil = 2027-01-01')
    path.write_text(path.read_text() + "[[allow]]\n")
    assert hidden(policy(path, cooldown="7 days"), sighting("1.0")) == {"1.0": "cooldown"}


def test_the_generation_follows_the_allowances_only_if_they_matter(tmp_path: Path) -> None:
    path = tmp_path / "allowed.toml"
    with_cooldown, without = policy(path, cooldown="7 days"), policy(path, wheels_only=True)
    before = with_cooldown.generation(), without.generation()
    allow(path, 'by = "Ada"\nwhy = "fix"\nuntil = 2027-01-01')
    os.utime(path, (1, 1))
    with_cooldown._allowances._file._next_look = 0.0
    assert with_cooldown.generation() != before[0]
    assert without.generation() == before[1]


# -- properties ----------------------------------------------------------------------------------

moments = st.integers(-20 * 24 * 6, 20 * 24 * 6).map(lambda n: NOW + n * timedelta(minutes=10))


@st.composite
def sightings(draw: st.DrawFn) -> list[Sighting]:
    versions = st.sampled_from(["1.0", "1.1", "2.0", "2.0rc1", "odd"])
    return [
        sighting(
            draw(versions),
            filename=f"demo-{n}{draw(st.sampled_from(['.whl', '.tar.gz']))}",
            uploaded_at=draw(st.none() | moments),
            first_seen_at=draw(moments),
        )
        for n in range(draw(st.integers(0, 6)))
    ]


rules_without_allowances = st.builds(
    policy,
    cooldown=st.sampled_from(["", "0", "1 day", "7 days", "90 minutes"]),
    as_of=st.just("") | moments.map(show_instant),
    deny=st.sampled_from([(), ("demo==1.*",), ("demo",), ("demo>1.0", "other")]),
    wheels_only=st.booleans(),
)


@st.composite
def allowance_lines(draw: st.DrawFn) -> str:
    what = draw(st.sampled_from(["", 'version = "1.0"', 'version = "2"', 'file = "demo-2.tar.gz"']))
    until = show_instant(draw(moments))
    return f'{what}\nby = "{draw(st.sampled_from("ABC"))}"\nwhy = "because"\nuntil = {until}'


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@given(rules_without_allowances, sightings(), moments)
def test_every_file_is_served_or_hidden(
    rules: Policy, files: list[Sighting], now: datetime
) -> None:
    judged = judge(rules, *files, now=now)
    names = [each.file.filename for each in files]
    served = [each.filename for each in judged.files]
    others = [each.filename for each in judged.hidden]
    assert [name for name in names if name not in others] == served
    assert [name for name in names if name not in served] == others
    assert judged.files == tuple(each.file for each in files if each.file.filename in served)


@given(rules_without_allowances, sightings(), moments, moments)
def test_time_only_adds_files(
    rules: Policy, files: list[Sighting], one: datetime, other: datetime
) -> None:
    earlier, later = sorted((one, other))
    before, after = judge(rules, *files, now=earlier), judge(rules, *files, now=later)
    assert {each.filename for each in before.files} <= {each.filename for each in after.files}


@given(rules_without_allowances, sightings(), moments, moments, moments)
def test_what_is_frozen_never_changes(
    rules: Policy, files: list[Sighting], one: datetime, two: datetime, three: datetime
) -> None:
    instant, earlier, later = sorted((one, two, three))
    frozen = rules.at(instant)
    judged = judge(frozen, *files, now=earlier)
    assert judged == judge(frozen, *files, now=later)
    assert judged.changes_at is None


@given(rules_without_allowances, sightings(), moments, moments)
def test_a_frozen_mirror_has_nothing_that_the_mirror_hides(
    rules: Policy, files: list[Sighting], one: datetime, other: datetime
) -> None:
    instant, now = sorted((one, other))
    frozen = {each.filename for each in judge(rules.at(instant), *files, now=now).files}
    assert frozen <= {each.filename for each in judge(rules, *files, now=now).files}
    known = [each for each in files if (each.file.uploaded_at or each.first_seen_at) <= instant]
    # And of the files that were there, exactly those that it served then.
    assert frozen == {each.filename for each in judge(rules, *known, now=instant).files}


@given(
    cooldown=st.sampled_from(["1 day", "7 days"]),
    as_of=st.just("") | moments.map(show_instant),
    files=sightings(),
    now=moments,
    entries=st.lists(allowance_lines(), max_size=4),
)
def test_changes_at_is_the_first_moment_at_which_the_result_differs(
    folder: Path,
    cooldown: str,
    as_of: str,
    files: list[Sighting],
    now: datetime,
    entries: list[str],
) -> None:
    path = allow(folder / "allowed.toml", *entries)
    rules = policy(path, cooldown=cooldown, as_of=as_of)
    judged = judge(rules, *files, now=now)

    def seen(at: datetime) -> tuple[object, ...]:
        found = judge(rules, *files, now=at)
        return found.files, found.hidden, found.allowed

    if judged.changes_at is None:
        assert seen(now + 3650 * DAY) == seen(now)
        return
    assert judged.changes_at > now
    assert seen(judged.changes_at - MICROSECOND) == seen(now)
    assert seen(judged.changes_at) != seen(now)


@given(files=sightings(), now=moments, entries=st.lists(allowance_lines(), max_size=4))
def test_files_are_allowed_by_allowances_that_count(
    folder: Path, files: list[Sighting], now: datetime, entries: list[str]
) -> None:
    path = allow(folder / "allowed.toml", *entries)
    judged = judge(policy(path, cooldown="7 days"), *files, now=now)
    plain = judge(policy(cooldown="7 days"), *files, now=now)
    by_name = {each.filename: each for each in judged.files}
    assert set(judged.allowed) == set(by_name) - {each.filename for each in plain.files}
    assert all(each.until > now for each in judged.allowed.values())
    assert all(each.covers(by_name[name]) for name, each in judged.allowed.items())
