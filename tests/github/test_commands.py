"""The command that sets up a repository on a fake GitHub, and its workflow."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import tomli
from ruamel.yaml import YAML

from private_pypi import cli
from private_pypi.backend import Secret
from private_pypi.configuration.config import ConfigurationText, read_configuration
from private_pypi.errors import ConfigurationError, NotAllowed
from private_pypi.testing.distributions import make_wheel
from private_pypi_github.workflow import MARK, WORKFLOW_PATH, WorkflowFacts, workflow_text
from tests.github.commands import (
    Ran,
    Run,
    installed_with_pip,
    publish,
)
from tests.github.fake import FakeGitHub
from tests.workflows.acting import (
    TOOLS,
    Outcome,
    Project,
    dependencies_of_ourselves,
    wheel_of_ourselves,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REQUIREMENT = f"private-pypi @ git+https://code.invalid/acme/private_pypi@{COMMIT}"


@pytest.fixture
def github(github: FakeGitHub) -> FakeGitHub:
    github.make_org("acme")
    return github


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("github.init_pkg_repo", token, "--flag", …)`, with the token in a variable."""

    def run(command: str, token: str, *flags: str, environ: Mapping[str, str] = os.environ) -> Ran:
        variables = {**environ, "TOKEN": token}
        code = cli.main([command, "--token_env=TOKEN", *flags], variables)
        out, err = capsys.readouterr()
        assert token not in out + err
        return Ran(code, out, err)

    return run


Init = Callable[..., Ran]


@pytest.fixture
def init(github: FakeGitHub, run: Run) -> Init:
    """`init(token, "--flag", …)`: the repository acme/packages, for the table `acme`."""

    def init(token: str, *flags: str, owner: str | None = "acme") -> Ran:
        return run(
            "github.init_pkg_repo",
            token,
            *("--name=acme", "--repo=packages", f"--api_url={github.enterprise_url}"),
            *((f"--owner={owner}",) if owner else ()),
            *(
                ()
                if any("requirement" in flag for flag in flags)
                else ("--requirement", REQUIREMENT)
            ),
            *flags,
        )

    return init


def expected_workflow(*, branch: str | None = None, pages: bool = False) -> bytes:
    facts = WorkflowFacts(
        name="acme",
        requirement=REQUIREMENT,
        index_filename="index.toml",
        branch=branch,
        pages=pages,
    )
    return workflow_text(facts).encode()


def tables(ran: Ran) -> list[str]:
    """The TOML documents that were printed: config.toml and admin_secret.toml."""
    _, config, admin = ran.out.split("\n[acme]\n")
    return ["[acme]\n" + config, "[acme]\n" + admin]


# github.init_pkg_repo: what is made.


def test_a_private_repository_with_an_index_and_a_workflow_is_made(
    github: FakeGitHub, init: Init
) -> None:
    ran = init(github.make_token("alice"))
    assert (ran.code, ran.err) == (0, "")
    repository = github.repo("acme/packages")
    assert (repository.private, repository.default_branch) == (True, "main")
    assert github.file("acme/packages", "index.toml") == b"mtime = 0\npkgs = []\n"
    assert github.file("acme/packages", WORKFLOW_PATH) == expected_workflow()
    assert repository.pages is None
    assert ran.out.splitlines()[:3] == [
        "create the private repository 'acme/packages'",
        f"create {WORKFLOW_PATH!r} on branch 'main'",
        "create 'index.toml' on branch 'main'",
    ]


def test_the_printed_configuration_is_one_that_a_server_takes(
    github: FakeGitHub, init: Init
) -> None:
    ran = init(
        github.make_token("alice"),
        *("--branch=index", "--index_filename=all/packages.toml", "--sync_index_interval=30"),
    )
    config, admin = tables(ran)
    assert tomli.loads(config) == {
        "acme": {
            "type": "github",
            "owner": "acme",
            "repo": "packages",
            "branch": "index",
            "index_filename": "all/packages.toml",
            "api_url": github.enterprise_url,
            "sync_index_interval": 30,
        }
    }
    read = read_configuration(
        ConfigurationText(text=config, name="config.toml", folder=None),
        ConfigurationText(text=admin, name="admin_secret.toml", folder=None),
        environ={"ACME_TOKEN": "ghp_1"},
    )
    assert read.repositories["acme"].admin_secret == Secret("ghp_1")
    assert github.file("acme/packages", "all/packages.toml", "index") is not None


def test_the_owner_is_the_user_of_the_token_unless_another_is_named(
    github: FakeGitHub, init: Init
) -> None:
    ran = init(github.make_token("alice"), owner=None)
    assert ran.code == 0
    assert github.repo("alice/packages").private
    assert tomli.loads(tables(ran)[0])["acme"]["owner"] == "alice"


def test_a_repository_is_public_only_when_that_is_said(github: FakeGitHub, init: Init) -> None:
    assert init(github.make_token("alice"), "--private", "false").code == 0
    assert not github.repo("acme/packages").private


def test_another_branch_becomes_the_default_of_a_new_repository(
    github: FakeGitHub, init: Init
) -> None:
    assert init(github.make_token("alice"), "--branch=master").code == 0
    assert github.repo("acme/packages").default_branch == "master"
    assert github.file("acme/packages", WORKFLOW_PATH, "master") == expected_workflow(
        branch="master"
    )
    assert github.file("acme/packages", "index.toml", "main") is None


def test_the_flags_of_private_pypi_0_2_are_ignored_with_a_warning(
    github: FakeGitHub, init: Init
) -> None:
    token = github.make_token("alice")
    ran = init(token, "--private_pypi_version=0.2.0", "--pywharf_version=0.2.1")
    assert ran.code == 0
    assert [line.split()[:2] for line in ran.err.splitlines()] == [
        ["warning:", "--private_pypi_version"],
        ["warning:", "--pywharf_version"],
    ]
    assert b"0.2" not in (github.file("acme/packages", WORKFLOW_PATH) or b"0.2")


def test_a_dry_run_tells_all_and_changes_nothing(github: FakeGitHub, init: Init) -> None:
    token = github.make_token("alice")
    ran = init(token, "--dry_run", "--enable_gh_pages", "--private=false", "--branch=index")
    assert ran.code == 0
    assert ran.out.splitlines()[:5] == [
        "would create the public repository 'acme/packages'",
        "would create branch 'index' at the head of 'main', which becomes the default",
        "would switch the pages on",
        f"would create {WORKFLOW_PATH!r} on branch 'index'",
        "would create 'index.toml' on branch 'index'",
    ]
    assert expected_workflow(branch="index", pages=True).decode() in ran.out
    assert tomli.loads(tables(ran)[0])["acme"]["branch"] == "index"
    assert {request.method for request in github.requests} == {"GET"}

    assert init(token, "--private=false").code == 0
    github.forget_requests()
    ran = init(token, "--dry_run", "--enable_gh_pages", "--private=false")
    assert ran.out.splitlines()[:3] == [
        "would switch the pages on",
        f"would renew {WORKFLOW_PATH!r} on branch 'main'",
        "would add an empty commit to branch 'main', which releases can tag",
    ]
    assert {request.method for request in github.requests} == {"GET"}


@pytest.mark.needs("git")
def test_the_workflow_installs_what_runs_here_unless_it_is_told(
    github: FakeGitHub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "private_pypi-1.0.0.dist-info"
    record.mkdir()
    monkeypatch.setattr(
        "private_pypi.commands.requirement.distribution", lambda _: Distribution.at(record)
    )
    vcs = {"vcs": "git", "commit_id": COMMIT}
    told = {"url": "https://code.invalid/acme/private_pypi", "vcs_info": vcs}
    (record / "direct_url.json").write_text(json.dumps(told))
    flags = ("--name=acme", "--repo=packages", f"--api_url={github.enterprise_url}")
    token = github.make_token("alice")
    assert run("github.init_pkg_repo", token, *flags).code == 0
    assert github.file("alice/packages", WORKFLOW_PATH) == expected_workflow()

    (record / "direct_url.json").write_text("{}")
    monkeypatch.setattr("private_pypi.__file__", str(tmp_path / "private_pypi" / "__init__.py"))
    github.forget_requests()
    ran = run("github.init_pkg_repo", token, *flags)
    assert (ran.code, "give --requirement" in ran.err) == (1, True)
    ran = run("github.init_pkg_repo", token, *flags, "--requirement=private-pypi")
    assert (ran.code, "abandoned release 0.2.0 of 2020" in ran.err) == (1, True)
    assert github.requests == []


# github.init_pkg_repo: what is there already.


def test_a_second_run_finds_everything_and_writes_nothing(github: FakeGitHub, init: Init) -> None:
    token = github.make_token("alice")
    init(token)
    github.forget_requests()
    ran = init(token)
    assert ran.code == 0
    assert ran.out.startswith("'acme/packages' is complete\n")
    assert {request.method for request in github.requests} == {"GET"}


@pytest.mark.parametrize("step", range(1, 4))
def test_a_run_that_broke_at_any_step_is_completed_by_the_next(
    github: FakeGitHub, init: Init, step: int
) -> None:
    token = github.make_token("alice")
    # Of the three that change something: the repository, the index, the workflow.
    github.fail("500", on="P*T *", at=step)
    assert init(token).code == 1
    assert init(token).code == 0
    assert github.file("acme/packages", "index.toml") == b"mtime = 0\npkgs = []\n"
    assert github.file("acme/packages", WORKFLOW_PATH) == expected_workflow()


@pytest.mark.parametrize("answers", ["without its content", "that it is too large"])
def test_an_index_of_any_size_stays(
    github: FakeGitHub, init: Init, monkeypatch: pytest.MonkeyPatch, answers: str
) -> None:
    github.make_repo("acme", "packages", private=True)
    index = b"#" * 2_000_000
    github.commit("acme/packages", "index.toml", index)
    if answers == "that it is too large":
        monkeypatch.setattr("tests.github.fake.rest_git._MAX_CONTENT", 1_000_000)
    assert init(github.make_token("alice", {"acme/packages": "admin"})).code == 0
    assert github.file("acme/packages", "index.toml") == index


def test_an_empty_repository_and_one_with_another_default_branch_are_completed(
    github: FakeGitHub, init: Init
) -> None:
    github.make_repo("acme", "packages", private=True, empty=True, default_branch="trunk")
    token = github.make_token("alice", {"acme/packages": "write"})
    assert init(token).code == 0
    assert github.repo("acme/packages").refs.keys() == {"refs/heads/trunk"}
    assert github.file("acme/packages", WORKFLOW_PATH) == expected_workflow()

    assert init(token, "--branch=index").code == 0
    assert github.repo("acme/packages").default_branch == "trunk"
    # The schedule runs what is on the default branch, releases what is on the branch they tag.
    for branch in ("index", "trunk"):
        assert github.file("acme/packages", WORKFLOW_PATH, branch) == expected_workflow(
            branch="index"
        )


def test_a_workflow_of_ours_is_renewed_and_one_of_others_stays(
    github: FakeGitHub, init: Init
) -> None:
    token = github.make_token("alice")
    init(token)
    github.commit("acme/packages", WORKFLOW_PATH, MARK.encode() + b"name: older\n")
    ran = init(token)
    assert f"renew {WORKFLOW_PATH!r} on branch 'main'\n" in ran.out
    assert github.file("acme/packages", WORKFLOW_PATH) == expected_workflow()

    theirs = b"name: theirs\non: push\n"
    github.commit("acme/packages", WORKFLOW_PATH, theirs)
    ran = init(token)
    assert (ran.code, github.file("acme/packages", WORKFLOW_PATH)) == (0, theirs)
    assert "was written by somebody else and stays" in ran.err


def test_a_token_without_the_right_to_workflows_can_publish_after_every_run(
    github: FakeGitHub, init: Init, tmp_path: Path
) -> None:
    token = github.make_token("alice")
    init(token)
    job = github.make_token(rights={"acme/packages": "write"})
    publish(github, job, tmp_path, *make_wheel("demo", "1.0"))

    github.commit("acme/packages", WORKFLOW_PATH, MARK.encode() + b"name: older\n")
    github.fail("500", on="POST */git/commits")  # the workflow is renewed, and that was all
    assert init(token).code == 1
    with pytest.raises(NotAllowed):
        publish(github, job, tmp_path, *make_wheel("demo", "2.0"))
    assert init(token).code == 0
    publish(github, job, tmp_path, *make_wheel("demo", "2.0"))
    assert init(token).out.startswith("'acme/packages' is complete\n")


def test_the_dead_workflow_of_private_pypi_0_2_is_named(github: FakeGitHub, init: Init) -> None:
    github.make_repo("acme", "packages", private=True)
    dead = b"run: echo ::set-env name=OWNER::acme\n"
    github.commit("acme/packages", ".github/workflows/main.yml", dead)
    ran = init(github.make_token("alice", {"acme/packages": "write"}))
    assert ran.code == 0
    assert "note: '.github/workflows/main.yml', of private-pypi 0.2, fails" in ran.err
    assert github.file("acme/packages", ".github/workflows/main.yml") == dead


def test_a_public_repository_is_not_taken_for_a_private_one(github: FakeGitHub, init: Init) -> None:
    github.make_repo("acme", "packages")
    token = github.make_token("alice", {"acme/packages": "admin"})
    ran = init(token)
    assert ran.code == 1
    assert "'acme/packages' exists and is public" in ran.err
    assert "--private false" in ran.err
    assert {request.method for request in github.requests} == {"GET"}
    assert init(token, "--private=false").code == 0


def test_a_private_repository_is_not_made_public(github: FakeGitHub, init: Init) -> None:
    token = github.make_token("alice")
    init(token)
    ran = init(token, "--private=false")
    assert (ran.code, github.repo("acme/packages").private) == (0, True)
    assert "note: 'acme/packages' exists and stays private" in ran.err


# github.init_pkg_repo: pages.


def test_pages_are_published_by_the_workflow(github: FakeGitHub, init: Init) -> None:
    token = github.make_token("alice")
    assert init(token, "--enable_gh_pages", "--private=false").code == 0
    assert github.repo("acme/packages").pages == {"build_type": "workflow"}
    assert github.file("acme/packages", WORKFLOW_PATH) == expected_workflow(pages=True)
    assert init(token, "--private=false").out.startswith("'acme/packages' is complete\n")


def test_a_site_from_a_branch_is_handed_to_the_workflow(github: FakeGitHub, init: Init) -> None:
    github.make_repo("acme", "packages")
    source = {"branch": "main", "path": "/"}
    github.repo("acme/packages").pages = {"source": source}
    token = github.make_token("alice", {"acme/packages": "admin"})
    assert init(token, "--private=false").code == 0
    assert github.repo("acme/packages").pages == {"source": source}
    ran = init(token, "--private=false", "--enable_gh_pages")
    assert "let the workflow publish the pages, in place of a branch\n" in ran.out
    assert github.repo("acme/packages").pages == {"source": source, "build_type": "workflow"}


def test_pages_of_a_private_repository_are_never_shown_to_everybody(
    github: FakeGitHub, init: Init
) -> None:
    token = github.make_token("alice")
    ran = init(token, "--enable_gh_pages")
    assert ran.code == 1
    assert "only GitHub Enterprise Cloud restricts them" in ran.err
    assert github.repo("acme/packages").pages is None
    assert github.file("acme/packages", WORKFLOW_PATH) is None
    assert init(token).code == 0
    assert github.file("acme/packages", WORKFLOW_PATH) == expected_workflow()

    github.restricts_pages = True
    ran = init(token, "--enable_gh_pages")
    assert "switch the pages on, for those who may read the repository\n" in ran.out
    assert github.repo("acme/packages").pages == {"build_type": "workflow", "public": False}
    assert github.file("acme/packages", WORKFLOW_PATH) == expected_workflow(pages=True)


# github.init_pkg_repo: what is refused.


def test_a_token_without_a_user_needs_an_owner_and_may_write_no_workflow(
    github: FakeGitHub, init: Init
) -> None:
    github.make_repo("acme", "packages", private=True)
    token = github.make_token(rights={"acme/packages": "write"})
    ran = init(token, owner=None)
    assert (ran.code, "give --owner" in ran.err) == (1, True)
    ran = init(token)
    assert ran.code == 1
    assert f"cannot create {WORKFLOW_PATH!r} on branch 'main': GitHub says 403" in ran.err
    assert "docs/github.md tells which rights the token needs" in ran.err


def test_who_may_not_create_a_repository_is_told_why(github: FakeGitHub, init: Init) -> None:
    github.make_user("bob")
    token = github.make_token("alice")
    ran = init(token, owner="bob")
    assert (ran.code, "'bob' is a user, and this token is somebody else's" in ran.err) == (1, True)
    ran = init(token, owner="nobody")
    assert (ran.code, "no user or organisation 'nobody'" in ran.err) == (1, True)
    github.make_repo("acme", "packages", private=True)  # which alice may not see
    ran = init(token)
    assert ran.code == 1
    assert "name already exists on this account" in ran.err
    ran = init("ghp_wrong")
    assert (ran.code, "does not know this token" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("rate-limit", "limits the requests of this token"),
        ("503", "run this again later"),
        ("reset", "does not answer"),
        ("403", "GitHub says 403"),
        ("422", "GitHub says 422"),
    ],
)
def test_trouble_is_a_sentence_and_asks_once(
    github: FakeGitHub, init: Init, kind: str, said: str
) -> None:
    token = github.make_token("alice")
    github.fail(kind, on="POST /orgs/acme/repos")  # type: ignore[arg-type]
    ran = init(token)
    assert (ran.code, "Traceback" in ran.err) == (1, False)
    assert said in ran.err
    assert len(github.asked("POST *")) == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--name=a/b",), "a/b"),
        (("--owner=-",), "owner"),
        (("--branch=",), "branch"),
        (("--index_filename=../x",), "index_filename"),
        (("--index_filename=${{ github.token }}",), "cannot be written into a workflow"),
        (("--sync_index_interval=0",), "--sync_index_interval must be positive"),
        (("--api_url=ftp://x",), "api_url"),
        (("--token_env=NONE",), "given twice"),
    ],
)
def test_a_wrong_flag_is_named_before_anything_is_asked(
    github: FakeGitHub, run: Run, flags: tuple[str, ...], said: str
) -> None:
    given = {
        "--name": "acme",
        "--repo": "packages",
        "--owner": "acme",
        "--api_url": github.enterprise_url,
        "--requirement": REQUIREMENT,
    }
    for flag in flags:
        given.pop(flag.partition("=")[0], None)
    ran = run("github.init_pkg_repo", "ghp_1", *(f"{k}={v}" for k, v in given.items()), *flags)
    assert ran.code in (1, 2)
    assert said in ran.err
    assert github.requests == []


def test_the_token_must_come_from_somewhere(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("github.init_pkg_repo", "github.gen_gh_pages"):
        flags = ["--name=acme", "--repo=packages", "--owner=acme"]
        if command == "github.gen_gh_pages":
            flags.append("--output_folder=site")
        assert cli.main([command, *flags], {}) == 2
        assert "missing --token_env, or --token" in capsys.readouterr().err
        assert cli.main([command, *flags, "--token=a b"], {}) == 1
        assert "characters that no token of GitHub has" in capsys.readouterr().err


# The workflow.


def test_every_value_reaches_the_workflow_as_it_is() -> None:
    facts = WorkflowFacts(
        name="acme",
        requirement=REQUIREMENT,
        index_filename="Pakete für \U0001f40d \\ \"'#: ${HOME}.toml",
        branch="größe-\U0001f40d",
        pages=True,
    )
    assert YAML(typ="safe").load(workflow_text(facts))["env"] == {
        "NAME": facts.name,
        "REQUIREMENT": facts.requirement,
        "INDEX_FILENAME": facts.index_filename,
        "BRANCH": facts.branch,
    }


@pytest.mark.parametrize("branch", ["a${{ github.token }}", "a\nb", "a\x85b", "a\u2028b", "a\x7f"])
def test_what_a_workflow_would_not_take_as_it_is_is_refused(branch: str) -> None:
    facts = WorkflowFacts(
        name="acme",
        requirement=REQUIREMENT,
        index_filename="index.toml",
        branch=branch,
        pages=False,
    )
    with pytest.raises(ConfigurationError, match=r"--branch: .* cannot be written into a workflow"):
        workflow_text(facts)


@pytest.mark.parametrize("pages", [False, True])
@pytest.mark.parametrize("branch", [None, "ind ex\"'$(id)"])
def test_the_workflow_passes_every_linter(tmp_path: Path, pages: bool, branch: str | None) -> None:
    path = tmp_path / "repository" / WORKFLOW_PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(expected_workflow(branch=branch, pages=pages))
    environ = {"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    linters: tuple[list[str | Path], ...] = (
        ["actionlint", "-shellcheck", TOOLS / "shellcheck", path],
        ["zizmor", "--offline", "--no-progress", "--persona=pedantic", path],
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", path],
    )
    for linter in linters:
        ended = subprocess.run(
            linter, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert ended.returncode == 0, ended.stdout.decode()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of_ourselves(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dependencies_of_ourselves(tmp_path_factory.mktemp("dependencies"))


def filenames(github: FakeGitHub) -> list[str]:
    """What the index of the repository has."""
    document = github.file("acme/packages", "index.toml")
    assert document is not None
    entries = tomli.loads(document.decode())["pkgs"]
    return [f"{entry['package']}.{entry['ext']}" for entry in entries]


@pytest.mark.needs("act", "pip")
def test_the_workflow_rebuilds_the_index_and_publishes_the_pages(
    github: FakeGitHub, init: Init, tmp_path: Path, wheel: Path, dependencies: Path
) -> None:
    token = github.make_token("alice")
    requirement = f"private-pypi @ {wheel.as_uri()}"
    flags = ("--private=false", "--enable_gh_pages")
    assert init(token, *flags, "--requirement", requirement).code == 0
    publish(github, token, tmp_path, *make_wheel("demo", "1.0"))
    job = github.make_token(rights={"acme/packages": "write"})
    project = Project(tmp_path / "project" / "checkout", "acme/packages", github)
    project.write({WORKFLOW_PATH: github.file("acme/packages", WORKFLOW_PATH) or b""})

    def act(event: str) -> Outcome:
        return project.run(
            "update-index.yml",
            event=event,
            token=job,
            env={
                "PIP_NO_DEPS": "1",
                "PIP_NO_INDEX": "1",
                "PYTHONPATH": str(dependencies),
            },
            payload={
                "action": "published",
                "release": {"tag_name": "demo-1.0-py3-none-any.whl"},
                "repository": {"default_branch": "main"},
            },
        )

    assert filenames(github) == []
    ran = act("release")
    assert ran.code == 0, ran.output
    assert "acme: 1 added, 0 removed, 0 unchanged" in ran.output
    assert filenames(github) == ["demo-1.0-py3-none-any.whl"]
    # A release never deploys: its run starts one that does.
    deployed = tmp_path / "project" / "work" / "artifacts" / "deployed"
    assert not deployed.exists()
    assert github.repo("acme/packages").dispatches == [
        {"workflow": "update-index.yml", "ref": "main", "inputs": {}}
    ]

    # The schedule starts the same jobs as whoever dispatches the workflow.
    publish(github, token, tmp_path, *make_wheel("demo", "2.0"))
    ran = act("workflow_dispatch")
    assert ran.code == 0, ran.output
    assert filenames(github) == ["demo-1.0-py3-none-any.whl", "demo-2.0-py3-none-any.whl"]
    assert len(github.repo("acme/packages").dispatches) == 1
    assert sorted(path.name for path in deployed.iterdir()) == ["demo", "index.html", "index.toml"]
    assert installed_with_pip(deployed, tmp_path, "demo") == ["demo-2.0.dist-info"]


# update_index.


def test_the_index_is_rebuilt_by_hand(github: FakeGitHub, tmp_path: Path, run: Run) -> None:
    github.make_repo("acme", "packages", private=True)
    token = github.make_token("alice", {"acme/packages": "write"})
    publish(github, token, tmp_path, *make_wheel("demo", "1.0"))
    flags = ["--owner=acme", "--repo=packages", "--branch=main", f"--api_url={github.api_url}"]
    words = ["update_index", "github", "acme", "--secret_env=GITHUB_TOKEN", *flags]
    assert cli.main(words, {"GITHUB_TOKEN": token}) == 0
    assert filenames(github) == ["demo-1.0-py3-none-any.whl"]
    assert cli.main(words, {"GITHUB_TOKEN": github.make_token("reader")}) == 1
