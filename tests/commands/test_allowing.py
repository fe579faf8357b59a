"""The command `allow` changes `allowed.toml` in ROOT, and leaves what people wrote in it."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from private_pypi.errors import ConfigurationError
from private_pypi.policy import Allowance, AllowanceFile
from private_pypi.policy.allowances import make_allowance
from private_pypi.policy.changing import add_allowance, read_allowances, remove_allowances
from tests.commands.running import Ended, Run

ADA = ("--by", "Ada Lovelace", "--why", 'a "fix"', "--until", "2999-12-15")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "index" / "pypi").mkdir(parents=True)
    (folder / "index" / "pypi" / "local").touch()
    return folder


def audit(root: Path) -> list[dict[str, str]]:
    lines = (root / "log" / "audit.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_what_is_allowed_is_in_the_file_and_taken_back_again(run: Run, root: Path) -> None:
    path = root / "allowed.toml"
    nothing = Ended(0, "pypi: there are no exceptions to the cooldown\n", "")
    assert run("allow", root, "pypi", "--list") == nothing
    assert not path.exists()
    line = 'demo 1.0 allowed until 2999-12-15T00:00:00Z, by Ada Lovelace: a "fix"\n'
    command = ("allow", root, "PyPI", "Demo", "--version", "1.0")
    assert run(*command, *ADA) == Ended(0, f"pypi: {line}", "")
    assert path.read_text() == (
        '[[allow]]\nrepository = "pypi"\nproject = "demo"\nversion = "1.0"\n'
        'by = "Ada Lovelace"\nwhy = "a \\"fix\\""\nuntil = 2999-12-15T00:00:00Z\n'
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [allowance] = AllowanceFile(path).for_repository("pypi")[allowance_of("1.0").project]
    assert (allowance.version, allowance.why) == ("1.0", 'a "fix"')
    run("allow", root, "pypi", "other", *ADA)
    run("allow", root, "elsewhere", "demo", *ADA)
    listed = run("allow", root, "pypi", "--list")
    assert listed.out == f"pypi: {line}pypi: {line.replace('demo 1.0', 'other (all versions)')}"
    assert run("allow", root, "pypi", "DEMO", "--list").out == f"pypi: {line}"
    removed = run("allow", root, "pypi", "demo", "--version", "v1.0.0", "--remove")
    assert removed == Ended(0, "pypi: demo 1.0 has no exception any more\n", "")
    assert run("allow", root, "pypi", "demo", "--list") == nothing
    entries = [(each["action"], each["repository"], each["project"]) for each in audit(root)]
    assert entries == [
        *(("allow", "pypi", "demo"), ("allow", "pypi", "other"), ("allow", "elsewhere", "demo")),
        ("disallow", "pypi", "demo"),
    ]
    assert audit(root)[0].items() >= {
        "outcome": "done", "version": "1.0", "by": "Ada Lovelace", "why": 'a "fix"',
        "until": "2999-12-15T00:00:00Z",
    }.items()  # fmt: skip


def test_a_new_allowance_takes_the_place_of_that_for_the_same(run: Run, root: Path) -> None:
    run("allow", root, "pypi", "demo", "--file", "demo-1.0.zip", *ADA)
    ended = run(
        *("allow", root, "pypi", "demo", "--file", "demo-1.0.zip"),
        *("--by", "Bob", "--why", "audit", "--until", "3 days"),
    )
    replaced, new = ended.out.splitlines()
    assert replaced == (
        'replaced: pypi: demo-1.0.zip allowed until 2999-12-15T00:00:00Z, by Ada Lovelace: a "fix"'
    )
    [allowance] = read_allowances(root / "allowed.toml")
    in_three_days = datetime.now(UTC) + timedelta(days=3)
    assert timedelta(0) <= in_three_days - allowance.until < timedelta(minutes=10)
    assert new.startswith("pypi: demo-1.0.zip allowed until 2") and new.endswith("by Bob: audit")


def test_an_exception_that_ended_is_listed_as_such(run: Run, root: Path) -> None:
    (root / "allowed.toml").write_text(
        '[[allow]]\nrepository = "pypi"\nproject = "demo"\nby = "Ada"\nwhy = "fix"\n'
        "until = 2020-01-01\n"
    )
    listed = run("allow", root, "pypi", "--list").out
    assert listed == "pypi: demo (all versions) ended 2020-01-01T00:00:00Z, by Ada: fix\n"


def test_a_repository_that_is_not_known_yet_is_a_warning(run: Run, root: Path) -> None:
    ended = run("allow", root, "pipi", "demo", *ADA)
    assert ended.code == 0
    assert ended.err == (
        f"warning: {root} has no data of a repository 'pipi'; the exception counts once a mirror "
        "of this name is served from there; in a group, name the mirror itself\n"
    )


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("gone", "pypi", "demo", *ADA), 1, "ROOT: there is no folder 'gone'"),
        (("", "pypi", "demo", *ADA), 1, "ROOT: there is no folder ''"),
        (("root", "p/p", "demo", *ADA), 2, "REPOSITORY 'p/p' is not a name of a repository"),
        (("root", "pypi"), 2, "PROJECT is missing; to see what is allowed, give --list"),
        (("root", "pypi", "demo"), 2, "missing --by\nerror: missing --why\nerror: missing --until"),
        (("root", "pypi", "-d", *ADA), 2, "unknown flag -d"),
        (("root", "pypi", "d*", *ADA), 2, "'project': 'd*' is not the name of a project"),
        (("root", "pypi", "demo", "--version", "x", *ADA), 2, "'version': 'x' is not a version"),
        (
            ("root", "pypi", "demo", "--file", "other-1.zip", *ADA),
            2,
            "'file': 'other-1.zip' is a file of other, not of demo",
        ),
        (
            ("root", "pypi", "demo", "--file", "demo-1.zip", "--version", "1", *ADA),
            2,
            "it has 'version' and 'file'; it may only have one of them",
        ),
        (("root", "pypi", "demo", *ADA[:-1], "soon"), 2, "--until: 'soon' is neither a duration"),
        (
            ("root", "pypi", "demo", *ADA[:-1], "2020-01-01"),
            2,
            "--until: '2020-01-01' is 2020-01-01T00:00:00Z, which is not in the future; it is 2",
        ),
        (("root", "pypi", "demo", *ADA[:-1], "0"), 2, "--until: '0' is 2"),
        (("root", "pypi", "--list", "--remove"), 2, "--list prints all exceptions; it takes PROJ"),
        (("root", "pypi", "demo", "--remove", *ADA), 2, "--remove does not take --by"),
        (
            ("root", "pypi", "demo", "--remove", "--version", "x"),
            2,
            "--version: 'x' is not a version",
        ),
        (
            ("root", "pypi", "demo", "--remove", "--version", "2.0"),
            1,
            "pypi has no exception for demo 2.0; what is allowed of demo: demo 1.0",
        ),
        (("root", "pypi", "none", "--remove"), 1, "pypi has no exception for none (all versions)"),
    ],
)
def test_mistakes(
    run: Run,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: Sequence[str],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(root.parent)
    run("allow", root, "pypi", "demo", "--version", "1.0", *ADA)
    before = (root / "allowed.toml").read_text()
    ended = run("allow", *words)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(f"error: {sentence}")
    assert (root / "allowed.toml").read_text() == before


def test_a_file_with_a_mistake_is_not_changed(run: Run, root: Path) -> None:
    path = root / "allowed.toml"
    path.write_text("[[allow]]\n")
    for words in (("demo", *ADA), ("demo", "--remove"), ("--list",)):
        ended = run("allow", root, "pypi", *words)
        assert ended == Ended(
            1, "", f"error: {path}: [[allow]] 1: 'repository' is missing; repair it first\n"
        )
    assert path.read_text() == "[[allow]]\n"


# -- the text of the file ------------------------------------------------------------------------

BY_HAND = """\
# Ask security@acme.example before you add anything.

# CVE-2026-1
[[allow]]  # urgent
repository = "pypi"
project = "demo"
version = "1.0"
by = "Ada"
# Only while the other fix is tested.
why = 'fix'
until = 2026-12-15

# Build machines need it.
[[ allow ]]
repository = 'pypi'
project = "Other"
by = "Bob"
why = "build"
until = 2026-12-15
# The end.
"""


def allowance_of(version: str | None = None, project: str = "demo", why: str = "why") -> Allowance:
    return make_allowance(
        repository="pypi",
        project=project,
        version=version,
        by="Ada",
        why=why,
        until=datetime(2026, 12, 20, tzinfo=UTC),
    )


def test_comments_and_other_entries_stay(tmp_path: Path) -> None:
    path = tmp_path / "allowed.toml"
    path.write_text(BY_HAND)
    add_allowance(path, allowance_of("2.0"))
    added = path.read_text()
    assert added.startswith(BY_HAND + "\n[[allow]]\n")
    remove_allowances(path, allowance_of("2.0").target)
    assert path.read_text() == BY_HAND
    remove_allowances(path, allowance_of("1.0").target)
    comments, _, rest = BY_HAND.partition("[[allow]]")
    assert path.read_text() == comments + rest[rest.index("\n\n#") + 1 :]
    remove_allowances(path, allowance_of(None, "other").target)
    assert [line for line in path.read_text().splitlines() if line] == [
        *("# Ask security@acme.example before you add anything.", "# CVE-2026-1"),
        *("# Build machines need it.", "# The end."),
    ]


@pytest.mark.parametrize(
    "text",
    [
        'allow = [{repository="pypi", project="x", by="A", why="w", until=2026-12-15}]\n',
        BY_HAND.replace("'fix'", '"""\\\n[[allow]] # \\\n"""'),
    ],
)
def test_a_file_in_an_unusual_form_is_not_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "allowed.toml"
    path.write_text(text)
    assert read_allowances(path)
    for change in (
        lambda: remove_allowances(path, read_allowances(path)[0].target),
        lambda: add_allowance(path, allowance_of("3.0") if "=[" in text else allowance_of("1.0")),
    ):
        with pytest.raises(ConfigurationError, match="edit it by hand"):
            change()
        assert path.read_text() == text


def test_the_target_of_a_link_is_changed(tmp_path: Path) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "allowed.toml"
    real.write_text("# Kept in git.\n")
    link.symlink_to(real)
    add_allowance(link, allowance_of())
    assert link.is_symlink()
    assert real.read_text().startswith("# Kept in git.\n\n[[allow]]\n")


texts = st.text(
    st.characters(
        codec="utf-8", exclude_categories=("C", "Zl", "Zp", "Zs"), include_characters=" "
    ),
    min_size=1,
    max_size=20,
).filter(str.strip)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "1.0", "2.0"]), st.sampled_from("ab"), texts, st.booleans()
        )
    )
)
def test_after_any_changes_the_file_has_what_was_added_and_not_removed(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str | None, str, str, bool]]
) -> None:
    path = tmp_path_factory.mktemp("root") / "allowed.toml"
    path.write_text("# A comment.\n")
    expected: dict[object, Allowance] = {}
    for version, project, why, adds in changes:
        allowance = allowance_of(version, project, why)
        known = expected.pop(allowance.target, None)
        change = add_allowance(path, allowance) if adds else None
        if change is None:
            change = remove_allowances(path, allowance.target)
        else:
            expected[allowance.target] = allowance
        assert list(change) == ([] if known is None else [known])
        assert list(read_allowances(path)) == list(expected.values())
        assert path.read_text().startswith("# A comment.\n")
        assert "\n\n\n" not in path.read_text()


def test_commands_in_several_processes_lose_nothing(root: Path) -> None:
    command = [sys.executable, "-m", "private_pypi", "allow", str(root), "pypi"]
    running = [subprocess.Popen([*command, f"demo{n}", *ADA]) for n in range(4)]
    assert [each.wait(60) for each in running] == [0] * 4
    names = {each.project for each in read_allowances(root / "allowed.toml")}
    assert names == {f"demo{n}" for n in range(4)}
    assert len(audit(root)) == 4
