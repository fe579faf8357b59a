"""The address that explains a project: every file with its rule, in the words of each repository.

Protocol 77 to 80: nothing is mixed, nothing is hidden without being told, and trouble is no
absence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from private_pypi.distributions.filenames import normalize
from private_pypi.repositories.explaining import MOST_BYTES, Explanation, KeptExplanations
from private_pypi.repositories.mirror import Mirror
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web import create_app
from tests.mirror.conftest import clock
from tests.mirror.mirrors import Clock
from tests.mirror.upstream import Project, Upstream, running
from tests.web.conftest import MINE, OTHER, READER, WRITER, Deploy, basic, publish
from tests.web.people.test_pages import words

__all__ = ["clock"]

JSON = {"Accept": "application/json"}
MIRROR = basic("pypi", "reader")
GROUP = basic("all", "reader")
NOW = datetime.now(UTC)
PLATFORM = "manylinux_2_28_x86_64"


def ago(days: float) -> str:
    return (NOW - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


def mirror(upstream: Upstream, *lines: str, name: str = "pypi") -> str:
    own = "".join(f"{line}\n" for line in lines)
    return (
        f'[{name}]\ntype = "mirror"\nindex_url = "{upstream.index_url}"\n'
        f'read_secret = "reader"\n{own}\n'
    )


def explained(client: FlaskClient, path: str, headers: dict[str, str] = MIRROR) -> Any:
    answer = client.get(path, headers=headers | JSON)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    said = json.loads(answer.data)
    said["files"] = [file for group in said["groups"] for file in group["files"]]
    return said


def rules(said: Any) -> dict[str, str]:
    """The rule for each file that is not served."""
    return {each["filename"]: each["rule"] for each in said["files"] if not each["is_served"]}


def served(said: Any) -> set[str]:
    return {each["filename"] for each in said["files"] if each["is_served"]}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """Three old releases of `demo`, and one of yesterday."""
    with running() as index:
        for version, days in (("0.9", 400), ("1.0", 300), ("1.1", 200), ("2.0", 1)):
            index.add(*make_wheel("demo", version), upload_time=ago(days))
        index.add(*make_sdist("demo", "1.0"), upload_time=ago(300))
        yield index


# -- mirrors -------------------------------------------------------------------------------------


def test_every_file_of_the_upstream_is_told_with_its_rule(
    deploy: Deploy, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.add("demo-1.0.win32.exe", b"x", project="demo")
    upstream.change("demo-1.0-py3-none-any.whl", yanked="broken")
    config = mirror(
        upstream,
        'cooldown = "7 days"',
        "wheels_only = true",
        'deny = ["demo==1.1  # wrong in leap years"]',
        f'as_of = "{ago(0)[:10]}"',
    )
    client = create_app(deploy(config)).test_client()
    said = explained(client, "/r/pypi/explain/demo")
    assert rules(said) == {
        "demo-2.0-py3-none-any.whl": "cooldown",
        "demo-1.1-py3-none-any.whl": "deny",
        "demo-1.0.tar.gz": "wheels_only",
        "demo-1.0.win32.exe": "filename",
    }
    assert served(said) == {"demo-1.0-py3-none-any.whl", "demo-0.9-py3-none-any.whl"}
    by_name = {each["filename"]: each for each in said["files"]}
    assert "wrong in leap years" in by_name["demo-1.1-py3-none-any.whl"]["reason"]
    assert by_name["demo-1.0-py3-none-any.whl"]["yanked"] == "broken"
    # First what is not served, and then the newest first; what has no version is at the end.
    assert [
        (each["rule"], each["is_yanked"], each["count"], each["oldest"], each["newest"])
        for each in said["groups"]
    ] == [
        ("cooldown", False, 1, "2.0", "2.0"),
        ("deny", False, 1, "1.1", "1.1"),
        ("wheels_only", False, 1, "1.0", "1.0"),
        ("filename", False, 1, None, None),
        (None, True, 1, "1.0", "1.0"),
        (None, False, 1, "0.9", "0.9"),
    ]
    assert said["is_found"]


def test_the_end_of_a_cooldown_is_told(deploy: Deploy, upstream: Upstream) -> None:
    client = create_app(deploy(mirror(upstream, 'cooldown = "7 days"'))).test_client()
    [young] = [
        each for each in explained(client, "/r/pypi/explain/demo")["files"] if not each["is_served"]
    ]
    assert young["until"] == (NOW + timedelta(days=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert young["until"] in young["reason"]


def test_an_exception_is_told_with_its_author_and_a_broken_file_of_them_too(
    deploy: Deploy, upstream: Upstream, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    until = (NOW + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    allowed = (
        '[[allow]]\nrepository = "pypi"\nproject = "demo"\nversion = "2.0"\nby = "Ada"\n'
        f'why = "security fix"\nuntil = {until}\n'
    )
    (root / "allowed.toml").write_text(allowed)
    client = create_app(deploy(mirror(upstream, 'cooldown = "7 days"'))).test_client()
    said = explained(client, "/r/pypi/explain/demo")
    [file] = [each for each in said["files"] if each["version"] == "2.0"]
    assert file["is_served"]
    assert file["exception"] == f"Ada has allowed demo 2.0 until {until}: security fix"
    assert said["notes"] == []

    (root / "allowed.toml").write_text(allowed.replace("why", "wy"))
    other = create_app(deploy(mirror(upstream, 'cooldown = "7 days"'))).test_client()
    said = explained(other, "/r/pypi/explain/demo")
    assert rules(said) == {"demo-2.0-py3-none-any.whl": "cooldown"}
    assert "unknown key 'wy'" in said["notes"][0]
    assert "no allowance counts" in said["notes"][0]


@pytest.mark.parametrize(
    ("lines", "found", "note"),
    [
        (['only = ["numpy"]'], False, "because of `only` in its table"),
        (['except = ["de*"]'], False, "because of `except` in its table"),
        (['deny = ["demo  # a typo"]'], True, "denies 'demo': a typo"),
    ],
)
def test_rules_about_whole_projects(
    deploy: Deploy, upstream: Upstream, lines: list[str], found: bool, note: str
) -> None:
    client = create_app(deploy(mirror(upstream, *lines))).test_client()
    said = explained(client, "/r/pypi/explain/demo")
    assert said["is_found"] is found
    assert note in said["notes"][0]
    assert served(said) == set()
    assert len(rules(said)) == (5 if found else 0)
    assert found or upstream.count() == 0


def test_the_status_of_a_project_is_told(deploy: Deploy, upstream: Upstream) -> None:
    upstream.projects["demo"].status = "quarantined"
    upstream.projects["demo"].reason = "malware"
    client = create_app(deploy(mirror(upstream))).test_client()
    said = explained(client, "/r/pypi/explain/demo")
    assert set(rules(said).values()) == {"status"}
    assert said["notes"] == ["the upstream says that this project is quarantined: malware"]


def test_a_project_that_is_nowhere(deploy: Deploy, upstream: Upstream) -> None:
    client = create_app(deploy(mirror(upstream))).test_client()
    said = explained(client, "/r/pypi/explain/nowhere")
    assert (said["is_found"], said["files"]) == (False, [])
    assert said["notes"] == ["the upstream has no such project"]


@pytest.mark.parametrize(("fault", "status"), [("500", (502, 503)), ("refused", (502, 503))])
def test_trouble_is_an_error_and_no_absence(
    deploy: Deploy, upstream: Upstream, fault: str, status: tuple[int, ...]
) -> None:
    upstream.fail("page", fault)
    client = create_app(deploy(mirror(upstream))).test_client()
    assert client.get("/r/pypi/explain/demo", headers=MIRROR | JSON).status_code in status


def test_what_is_known_is_explained_while_the_upstream_is_in_trouble(
    deploy: Deploy, upstream: Upstream
) -> None:
    config = mirror(upstream, "sync_index_interval = 1", "stale_for = 3600")
    served_by = deploy(config)
    client = create_app(served_by).test_client()
    explained(client, "/r/pypi/explain/demo")
    [repository] = served_by.repositories
    with repository.index.writing() as connection:  # type: ignore[attr-defined]
        connection.execute("UPDATE pages SET checked_at = checked_at - 60")
    upstream.fail("page", "500")
    said = explained(client, "/r/pypi/explain/demo")
    assert len(said["files"]) == 5
    assert re.search(r"in trouble: this is what it had 6\d seconds ago", said["notes"][-1])


def test_what_was_explained_before_is_not_repeated_when_something_has_changed(
    deploy: Deploy, upstream: Upstream, tmp_path: Path, clock: Clock
) -> None:
    deny = tmp_path / "deny.txt"
    deny.write_text("demo==1.0\n")
    lines = (f'deny_file = "{deny}"', 'cooldown = "7 days"', "sync_index_interval = 3600")
    served_by = deploy(mirror(upstream, *lines))
    client = create_app(served_by).test_client()
    [repository] = served_by.repositories
    assert isinstance(repository, Mirror)

    def told() -> dict[str, str]:
        return rules(explained(client, "/r/pypi/explain/demo"))

    young, old = "demo-2.0-py3-none-any.whl", "demo-1.1-py3-none-any.whl"
    denied = {"demo-1.0-py3-none-any.whl": "deny", "demo-1.0.tar.gz": "deny"}
    assert told() == {young: "cooldown", **denied}
    assert repository._explained._kept.hits == 0
    assert told() == {young: "cooldown", **denied}
    assert (repository._explained._kept.hits, repository._explained._kept.added) == (1, 1)
    deny.write_text("demo==1.1\n")  # the policy
    repository.policy._deny_file._next_look = 0.0  # type: ignore[union-attr]
    assert told() == {young: "cooldown", old: "deny"}
    upstream.add("demo-0.1.exe", b"x", project="demo")  # the page
    clock.go(3601)
    assert told() == {young: "cooldown", old: "deny", "demo-0.1.exe": "filename"}
    with pytest.MonkeyPatch.context() as patch:  # the time
        patch.setattr(repository._pages, "_interval", 10**7)
        clock.go(6 * 24 * 3600)
        assert told() == {old: "deny", "demo-0.1.exe": "filename"}
    assert repository._explained.size == 7 * 1500  # of 6 files, and of the project itself


def test_few_explanations_are_kept(
    deploy: Deploy, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_pypi.repositories.explaining.MOST_BYTES", 10 * 1500)
    for name in ("other", "third"):
        upstream.add(*make_wheel(name, "1.0"))
    served_by = deploy(mirror(upstream))
    client = create_app(served_by).test_client()
    [repository] = served_by.repositories
    assert isinstance(repository, Mirror)
    for name in ("demo", "other", "third"):
        assert len(explained(client, f"/r/pypi/explain/{name}")["files"]) == (
            5 if name == "demo" else 1
        )
    assert repository._explained.size == 10 * 1500
    upstream.add(*make_wheel("fourth", "1.0"))
    explained(client, "/r/pypi/explain/fourth")
    assert repository._explained.size == 6 * 1500


def test_explanations_without_files_do_not_fill_the_memory() -> None:
    kept = KeptExplanations()
    said = Explanation(project=normalize("empty"), is_found=True)
    for second in range(30_000):  # anybody who may read can ask for other and other instants
        question = (NOW - timedelta(seconds=second), said.project)
        kept.keep(question, 1, said, until=NOW + timedelta(days=1))
    assert kept.find((NOW, said.project), 1, now=NOW) is None
    assert kept.find(question, 1, now=NOW) is said
    assert kept.size <= MOST_BYTES


def test_a_broken_deny_file_is_an_error_that_names_the_mistake(
    deploy: Deploy, upstream: Upstream, tmp_path: Path
) -> None:
    deny = tmp_path / "deny.txt"
    deny.write_text("demo==1.0\n")
    served_by = deploy(mirror(upstream, f'deny_file = "{deny}"'))
    client = create_app(served_by).test_client()
    deny.write_text("demo==one\n")
    [repository] = served_by.repositories
    repository.policy._deny_file._next_look = 0.0  # type: ignore[attr-defined]
    answer = client.get("/r/pypi/explain/demo", headers=MIRROR | JSON)
    assert answer.status_code == 502
    assert "the deny file of this mirror is wrong" in answer.text


def test_an_offline_mirror_says_so(deploy: Deploy, upstream: Upstream) -> None:
    first = deploy(mirror(upstream))
    client = create_app(first).test_client()
    explained(client, "/r/pypi/explain/demo")
    client.get("/r/pypi/simple/demo/demo-0.9-py3-none-any.whl", headers=MIRROR).close()
    first.close()
    client = create_app(deploy(mirror(upstream, "offline = true"))).test_client()
    said = explained(client, "/r/pypi/explain/demo")
    assert set(rules(said).values()) == {"offline"}
    assert served(said) <= {"demo-0.9-py3-none-any.whl"}
    assert "this mirror is offline" in said["notes"][0]
    said = explained(client, "/r/pypi/explain/other")
    assert not said["is_found"]
    assert "this mirror is offline" in said["notes"][0]


def test_a_mirror_at_an_instant(deploy: Deploy, upstream: Upstream) -> None:
    client = create_app(deploy(mirror(upstream))).test_client()
    said = explained(client, f"/r/pypi/at/{ago(250)[:10]}/explain/demo")
    assert rules(said) == {
        "demo-2.0-py3-none-any.whl": "as_of",
        "demo-1.1-py3-none-any.whl": "as_of",
    }
    assert len(served(said)) == 3


# -- repositories with a storage -----------------------------------------------------------------


def test_a_storage_hides_nothing_but_what_cannot_be_shown(deploy: Deploy, tmp_path: Path) -> None:
    folder = tmp_path / "storage"
    folder.mkdir()
    (folder / make_wheel("demo", "1.0")[0]).write_bytes(make_wheel("demo", "1.0")[1])
    (folder / "demo-2.0-py3-none-any.whl").write_bytes(b"broken")
    (folder / "other-2.0-py3-none-any.whl").write_bytes(b"broken")
    served_by = deploy(MINE + f'path = "{folder}"\n')
    client = create_app(served_by).test_client()
    served_by.repositories.start(wait=20)
    said = explained(client, "/r/mine/explain/demo", READER)
    assert served(said) == {"demo-1.0-py3-none-any.whl"}
    assert rules(said) == {"demo-2.0-py3-none-any.whl": "unusable"}
    assert said["files"][0]["reason"]
    # A project without one usable file is trouble for installers, and is explained nevertheless.
    assert client.get("/simple/other/", headers=READER).status_code == 503
    said = explained(client, "/explain/other", READER)
    assert said["is_found"]
    assert rules(said) == {"other-2.0-py3-none-any.whl": "unusable"}


def test_a_project_that_clients_look_for_elsewhere(deploy: Deploy) -> None:
    served_by = deploy(MINE, extra_index_url="https://index.example/simple/")
    client = create_app(served_by).test_client()
    served_by.repositories.start(wait=20)
    said = explained(client, "/r/mine/explain/demo", READER)
    assert not said["is_found"]
    assert "clients are sent to https://index.example/simple/demo/" in said["notes"][0]
    # An index at an instant sends nobody elsewhere.
    said = explained(client, "/r/mine/at/2026-01-01/explain/demo", READER)
    assert (said["is_found"], said["notes"]) == (False, [])


def test_a_group_does_not_name_the_index_to_which_its_members_send_clients(
    deploy: Deploy, upstream: Upstream
) -> None:
    config = MINE + mirror(upstream) + group("mine", "pypi")
    served_by = deploy(config, extra_index_url="https://index.example/simple/")
    client = create_app(served_by).test_client()
    served_by.repositories.start(wait=20)
    said = explained(client, "/r/all/explain/nowhere", GROUP)
    assert said["notes"] == [
        "no member of this group answers for this project",
        "member 'mine': it has no such project",
        "member 'pypi': the upstream has no such project",
    ]
    assert "index.example" in explained(client, "/r/mine/explain/nowhere", READER)["notes"][0]


def test_a_storage_at_an_instant(client: FlaskClient) -> None:
    publish(client, *make_wheel("demo", "1.0"))
    said = explained(client, "/at/2020-01-01/explain/demo", READER)
    assert rules(said) == {"demo-1.0-py3-none-any.whl": "as_of"}
    assert "this is the index of 2020-01-01T00:00:00Z" in said["files"][0]["reason"]
    assert said["is_found"]


# -- groups --------------------------------------------------------------------------------------

FIRST = "the files are those of member '{}', the first one that has this project"


def group(*members: str, name: str = "all", more: str = "") -> str:
    return f'[{name}]\ntype = "group"\nmembers = {json.dumps(members)}\n{more}\n'


@pytest.fixture
def grouped(deploy: Deploy, upstream: Upstream) -> FlaskClient:
    """A group of two private repositories with other secrets, and of a mirror."""
    config = MINE + OTHER + mirror(upstream, 'cooldown = "7 days"')
    client = create_app(deploy(config + group("mine", "other", "pypi"))).test_client()
    writer = basic("other", "other-writer")
    assert publish(client, *make_wheel("ours", "1.0"), path="/r/mine/").status_code == 200
    for project in ("theirs", "demo-tools"):
        wheel = make_wheel(project, "1.0")
        assert publish(client, *wheel, path="/r/other/", headers=writer).status_code == 200
        upstream.add(*make_wheel(project, "99.0"), upload_time=ago(300))
    return client


def test_a_group_says_which_member_answers_and_why(grouped: FlaskClient) -> None:
    said = explained(grouped, "/r/all/explain/ours", GROUP)
    assert said["notes"] == [FIRST.format("mine")]
    assert [each["source"] for each in said["files"]] == [["mine"]]
    said = explained(grouped, "/r/all/explain/demo", GROUP)
    assert said["notes"] == [FIRST.format("pypi")]
    assert rules(said) == {"demo-2.0-py3-none-any.whl": "cooldown"}


def test_what_a_refused_member_has_is_explained_as_what_is_nowhere(grouped: FlaskClient) -> None:
    """A caller who may not read `other` cannot find out its name, nor one name that it has."""
    answers = [
        grouped.get(f"/r/all/explain/{name}", headers=GROUP | accept)
        for name in ("theirs", "demo-tools", "no-where", "acme-x")
        for accept in (JSON, {}, {"Accept": "text/html"})
    ]
    assert {answer.status_code for answer in answers} == {200}
    texts = [re.sub("theirs|demo-tools|no-where|acme-x", "NAME", answer.text) for answer in answers]
    assert len(set(texts)) == 3  # one for each representation
    assert not any("other" in text for text in texts)
    headers = [
        sorted((key, value) for key, value in answer.headers if key != "Content-Length")
        for answer in answers
    ]
    assert headers[:3] == headers[3:6] == headers[6:9] == headers[9:]


def test_those_who_may_read_everything_are_told_why_nobody_answers(
    deploy: Deploy, upstream: Upstream
) -> None:
    config = MINE + mirror(upstream) + group("mine", "pypi", more='claimed = ["own-*"]')
    client = create_app(deploy(config)).test_client()
    publish(client, *make_wheel("gone", "1.0"), path="/r/mine/")
    client.delete("/r/mine/simple/gone/1.0/", headers=WRITER)
    told = {
        name: explained(client, f"/r/all/explain/{name}", GROUP)["notes"][1:]
        for name in ("gone", "acme-x", "own-x", "nowhere")
    }
    not_asked = "member 'pypi': it is not asked, because "
    assert told == {
        "gone": [
            "member 'mine': it has no such project",
            not_asked + "this name was that of a private project",
        ],
        "acme-x": [
            "member 'mine': it has no such project",
            not_asked + "this name is claimed",
        ],
        "own-x": [
            "member 'mine': it has no such project",
            not_asked + "this name is claimed",
        ],
        "nowhere": [
            "member 'mine': it has no such project",
            "member 'pypi': the upstream has no such project",
        ],
    }


def test_names_in_mix_are_explained_by_all_members_that_have_them(
    deploy: Deploy, upstream: Upstream
) -> None:
    config = MINE + mirror(upstream, 'deny = ["demo==1.1"]')
    config += group("mine", "pypi", more='mix = ["demo"]')
    client = create_app(deploy(config)).test_client()
    publish(client, *make_wheel("demo", "2.0", extra_metadata=[("Summary", "x")]), path="/r/mine/")
    said = explained(client, "/r/all/explain/demo", GROUP)
    sources = {each["filename"]: each["source"] for each in said["files"] if each["is_served"]}
    assert sources == {
        "demo-2.0-py3-none-any.whl": ["mine"],
        "demo-1.0-py3-none-any.whl": ["pypi"],
        "demo-1.0.tar.gz": ["pypi"],
        "demo-0.9-py3-none-any.whl": ["pypi"],
    }
    assert rules(said) == {"demo-1.1-py3-none-any.whl": "deny"}
    assert "the files are those of all members that have it: 'mine', 'pypi'" in said["notes"][0]


def test_a_group_of_a_group_gives_away_no_more(deploy: Deploy, upstream: Upstream) -> None:
    config = MINE + OTHER + mirror(upstream)
    config += group("other", "mine", name="inner") + group("inner", "pypi")
    client = create_app(deploy(config)).test_client()
    writer = basic("other", "other-writer")
    publish(client, *make_wheel("theirs", "1.0"), path="/r/other/", headers=writer)
    publish(client, *make_wheel("ours", "1.0"), path="/r/mine/")
    upstream.add(*make_wheel("theirs", "99.0"), upload_time=ago(300))
    hidden, nowhere = (
        client.get(f"/r/all/explain/{name}", headers=GROUP | JSON).text.replace(name, "NAME")
        for name in ("theirs", "nowhere")
    )
    assert hidden == nowhere
    said = explained(client, "/r/all/explain/ours", GROUP)
    assert [each["source"] for each in said["files"]] == [["inner", "mine"]]


# -- what is asked for ---------------------------------------------------------------------------


@pytest.fixture
def tagged(deploy: Deploy, upstream: Upstream) -> FlaskClient:
    """A mirror of `demo` with wheels for some interpreters."""
    index = upstream
    index.projects["demo"] = Project()
    index.add(*make_wheel("demo", "3.0", tag=f"cp311-cp311-{PLATFORM}"))
    index.add(*make_wheel("demo", "3.0", tag="cp312-cp312-win_amd64"))
    index.add(*make_wheel("demo", "3.0", requires_python=">=3.12"))
    index.add(*make_sdist("demo", "3.0"))
    index.add(*make_wheel("demo", "4.0rc1"))
    return create_app(deploy(mirror(index))).test_client()


def test_files_that_do_not_suit_are_told_with_the_reason(tagged: FlaskClient) -> None:
    said = explained(tagged, f"/r/pypi/explain/demo?python=3.11&platform={PLATFORM}&version=3")
    assert {each["filename"]: (each["suits"], each["reason"]) for each in said["files"]} == {
        f"demo-3.0-cp311-cp311-{PLATFORM}.whl": (True, None),
        "demo-3.0-cp312-cp312-win_amd64.whl": (
            False,
            "it is a wheel for cp312, and this is CPython 3.11",
        ),
        "demo-3.0-py3-none-any.whl": (False, "it requires Python >=3.12, and this is 3.11"),
        "demo-3.0.tar.gz": (True, None),
    }
    assert (said["python"], said["platform"], said["version"]) == ("3.11", PLATFORM, "3")


@pytest.mark.parametrize(
    ("version", "versions"),
    [("", {"3.0", "4.0rc1"}), ("3.0.0", {"3.0"}), (">3.0", {"4.0rc1"}), ("7", set())],
)
def test_only_wanted_versions(tagged: FlaskClient, version: str, versions: set[str]) -> None:
    said = explained(tagged, f"/r/pypi/explain/demo?version={version}")
    assert {each["version"] for each in said["files"]} == versions
    assert said["is_found"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("python=3", "must be like 3.11"),
        ("python=" + "9" * 9000, "must be like 3.11"),
        ("platform=linux_x86_64", "it must be like manylinux_2_28_x86_64 (glibc 2.28)"),
        ("platform=%00", "it must be like manylinux_2_28_x86_64"),
        ("version=new", "it must be like 1.0 or '>=1,<2'"),
        ("version=" + "1" * 9000, "it must be like 1.0 or '>=1,<2'"),
        ("pyhton=3.11", "'pyhton' is unknown; there are python, platform, version, all"),
        ("all=yes", "'all' must be true or false"),
        ("python=3.11&python=3.12", "'python' is given 2 times"),
    ],
)
@pytest.mark.parametrize("accept", [JSON, {}, {"Accept": "text/html"}])
def test_a_wrong_query_is_answered_with_what_would_be_right(
    tagged: FlaskClient, query: str, sentence: str, accept: dict[str, str]
) -> None:
    answer = tagged.get(f"/r/pypi/explain/demo?{query}", headers=MIRROR | accept)
    assert answer.status_code == 400
    assert sentence.replace("'", "") in re.sub("&#x27;|&#39;|'", "", answer.text).replace(
        "&gt;", ">"
    ).replace("&lt;", "<")
    assert len(answer.data) < 2000


def test_five_thousand_files(deploy: Deploy, upstream: Upstream) -> None:
    content = make_wheel("demo", "1.0")[1]
    for number in range(1250):
        for tag in ("cp311-cp311-win32", f"cp311-cp311-{PLATFORM}", "py3-none-any", "py2-none-any"):
            upstream.add(
                f"demo-5.{number}-{tag}.whl", content, core_metadata=None, offers_metadata=None
            )
    client = create_app(deploy(mirror(upstream, 'deny = ["demo==5.7"]'))).test_client()
    path = f"/r/pypi/explain/demo?python=3.11&platform={PLATFORM}"
    few = explained(client, path)
    assert [(each["rule"], each["suits"], each["count"]) for each in few["groups"]] == [
        ("deny", None, 4),
        (None, False, 1249),
        (None, False, 1249),
        (None, True, 2503),
    ]
    assert [len(each["files"]) for each in few["groups"]] == [4, 5, 5, 5]
    assert [each["reason"] for each in few["groups"][1:3]] == [
        "it is a wheel for win32, and this is manylinux_2_28_x86_64",
        "it is a wheel for py2, and this is CPython 3.11",
    ]
    text = client.get(path, headers=MIRROR).text
    assert (
        "  not suitable: 1249 files of 5.0 to 5.1249\n"
        "      it is a wheel for py2, and this is CPython 3.11\n"
        "  demo-5.1249-py2-none-any.whl\n"
    ) in text
    assert "  … and 1244 more\n" in text
    assert "only the newest files are listed; add all=true to the query for all.\n" in text
    assert len(text.splitlines()) < 50
    said = explained(client, f"{path}&all=true")
    assert [{**each, "files": []} for each in said["groups"]] == [
        {**each, "files": []} for each in few["groups"]
    ]
    assert len(said["files"]) == 5005
    every = client.get(f"{path}&all=true", headers=MIRROR).text
    assert every.count("  demo-") == 5005
    assert "only the newest" not in every
    assert len(rules(said)) == 4
    assert sum(each["suits"] is True for each in said["files"]) == 2 * 1249 + 5
    page = client.get("/r/pypi/explain/demo", headers=MIRROR | {"Accept": "text/html"})
    assert page.text.count('<p class="file">') == 100
    assert "deny: 4 files of 5.7; the operator of this mirror denies" in words(page)
    assert "Page 1 of 51" in page.text


# -- how it is answered --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "type_"),
    [
        (None, "text/plain; charset=utf-8"),
        ("*/*", "text/plain; charset=utf-8"),
        ("image/png", "text/plain; charset=utf-8"),
        ("application/json", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
    ],
)
def test_the_format_is_the_one_that_is_accepted(
    tagged: FlaskClient, accept: str | None, type_: str
) -> None:
    headers = MIRROR if accept is None else MIRROR | {"Accept": accept}
    answer = tagged.get("/r/pypi/explain/demo", headers=headers)
    assert (answer.status_code, answer.content_type) == (200, type_)
    assert "Accept" in answer.headers["Vary"]
    assert "demo-4.0rc1-py3-none-any.whl" in answer.text


def test_the_text_is_for_people(tagged: FlaskClient, upstream: Upstream) -> None:
    upstream.change("demo-3.0.tar.gz", yanked="bro\x1bken")
    answer = tagged.get("/r/pypi/explain/demo?python=3.11&version=3.0", headers=MIRROR)
    assert answer.text == (
        "demo 3.0 in pypi\n"
        "\n"
        "Not served: 0 files\n"
        "\n"
        "Served, and not for Python 3.11: 2 files\n"
        "  demo-3.0-cp312-cp312-win_amd64.whl\n"
        "      it is a wheel for cp312, and this is CPython 3.11\n"
        "  demo-3.0-py3-none-any.whl\n"
        "      it requires Python >=3.12, and this is 3.11\n"
        "\n"
        "Served for Python 3.11: 2 files\n"
        f"  demo-3.0-cp311-cp311-{PLATFORM}.whl\n"
        "  demo-3.0.tar.gz\n"
        "      yanked: bro\ufffdken\n"
    )


@pytest.mark.parametrize("path", ["/explain/demo", "/explain/demo/", "/r/pypi/explain/demo/"])
def test_the_short_address_and_a_final_slash(tagged: FlaskClient, path: str) -> None:
    assert explained(tagged, path)["repository"] == "pypi"


@pytest.mark.parametrize(
    ("path", "location"),
    [("/r/pypi/explain/De_mo?python=3.11", "de-mo?python=3.11"), ("/explain/De_mo/", "../de-mo/")],
)
def test_other_spellings_are_redirected(tagged: FlaskClient, path: str, location: str) -> None:
    answer = tagged.get(path, headers=MIRROR)
    assert (answer.status_code, answer.headers["Location"]) == (301, location)


def test_it_needs_the_right_to_read(tagged: FlaskClient) -> None:
    assert tagged.get("/r/pypi/explain/demo").status_code == 401
    assert tagged.get("/r/pypi/explain/demo", headers=basic("pypi", "x")).status_code == 401
    answer = tagged.get("/r/pypi/at/2999-01-01/explain/demo", headers=MIRROR)
    assert answer.status_code == 400
    assert "is in the future" in answer.text
