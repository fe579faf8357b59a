"""Every workflow, action and configuration for others passes the linters and its schema."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from private_pypi_github.workflow import WorkflowFacts, workflow_text
from tests.clients.environments import locked_version

from .acting import CHECKOUT, EXAMPLES, STAND_INS, TOOLS, WORKFLOWS

OWN = CHECKOUT / ".github" / "workflows"
ACTIONS = [WORKFLOWS / "start" / "action.yml", *sorted(STAND_INS.glob("*/action.yml"))]
RUNNABLE = [
    *sorted(WORKFLOWS.glob("*.yml")),
    *sorted((WORKFLOWS / "static").glob("*.yml")),
    *sorted(OWN.glob("*.yml")),
    *(path for path in sorted(EXAMPLES.glob("*.yml")) if "jobs:" in path.read_text()),
]
ZIZMOR = CHECKOUT / ".github" / "zizmor.yml"


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(CHECKOUT)) for path in paths]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a linter says; nothing, or its word for it, when all is well."""
    ended = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": "/nonexistent", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def loaded(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def steps(path: Path) -> Iterator[dict[str, Any]]:
    """The steps of a workflow or of a composite action."""
    document = loaded(path)
    yield from document.get("runs", {}).get("steps", ())
    for job in document.get("jobs", {}).values():
        yield from job.get("steps", ())


def test_there_is_something_to_lint() -> None:
    assert {path.name for path in RUNNABLE} >= {
        *("publish.yml", "install.yml", "update-index.yml", "ci.yml"),
        *("release.yml", "release-here.yml", "test.yml", "own-job.yml", "service.yml"),
        *("register.yml", "update.yml", "delete.yml", "propose.yml", "build-and-deploy.yml"),
    }


def test_actionlint_and_shellcheck_have_nothing_to_say(tmp_path: Path) -> None:
    # As in the repository of a user, where the called workflows lie beside the calling ones.
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    for path in RUNNABLE:
        (folder / path.name).write_text(path.read_text())
    assert run("actionlint", "-shellcheck=shellcheck", cwd=tmp_path) == ""


def test_zizmor_finds_no_weakness() -> None:
    offline = ("--offline", "--no-progress", "--quiet", f"--config={ZIZMOR}")
    assert "No findings to report" in run("zizmor", *offline, *RUNNABLE, *ACTIONS)


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-workflows", RUNNABLE),
        ("github-actions", ACTIONS),
        ("dependabot", [EXAMPLES / "dependabot.yml"]),
        ("renovate", [EXAMPLES / "renovate.json"]),
        ("gitlab-ci", [EXAMPLES / "gitlab-ci.yml"]),
    ],
)
def test_files_are_as_their_schemas_say(schema: str, paths: list[Path]) -> None:
    assert "ok" in run("check-jsonschema", f"--builtin-schema=vendor.{schema}", *paths)


@pytest.mark.parametrize("path", [*RUNNABLE, *ACTIONS], ids=names([*RUNNABLE, *ACTIONS]))
def test_no_expression_stands_in_a_command(path: Path) -> None:
    """zizmor knows expressions that nobody else can choose; here there is none at all."""
    commands = [step["run"] for step in steps(path) if "run" in step]
    assert [command for command in commands if "${{" in command] == []


@pytest.mark.parametrize("path", [*RUNNABLE, *ACTIONS], ids=names([*RUNNABLE, *ACTIONS]))
def test_actions_of_others_are_pinned_by_commit_and_say_which_version_that_is(path: Path) -> None:
    for used in re.findall(r"uses: (.*)", path.read_text()):
        if not used.startswith(("./", "acme/")):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used


@pytest.mark.parametrize("path", RUNNABLE, ids=names(RUNNABLE))
def test_jobs_end_and_ask_for_what_they_need(path: Path) -> None:
    document = loaded(path)
    for name, job in document["jobs"].items():
        if "uses" not in job:  # a called workflow has its own
            assert job["timeout-minutes"] <= 60, name
        # publish.yml takes what its caller gives, and says so.
        inherits = path == WORKFLOWS / "publish.yml" and name == "publish"
        assert inherits or "permissions" in job or "permissions" in document, name


@pytest.mark.parametrize("path", RUNNABLE, ids=names(RUNNABLE))
def test_what_runs_an_image_may_read_it(path: Path) -> None:
    """What a list of permissions leaves out is taken away, also from what a caller gives."""
    document = loaded(path)
    for name, job in document["jobs"].items():
        listed = job.get("permissions", document.get("permissions"))
        if "services" in job and listed is not None:
            assert listed.get("packages") == "read", name


def test_the_steps_that_start_a_server_are_the_same_everywhere() -> None:
    paths = [
        WORKFLOWS / "publish.yml",
        WORKFLOWS / "install.yml",
        WORKFLOWS / "start" / "action.yml",
    ]
    for name in ("Start the server", "Configure the server", "Show the log of the server"):
        found = {step["run"] for path in paths for step in steps(path) if step.get("name") == name}
        assert len(found) == 1, name


def test_update_index_is_the_workflow_that_the_set_up_command_installs() -> None:
    facts = WorkflowFacts(
        name="packages",
        requirement=f"git+https://github.com/acme/private_pypi@{'0' * 40}",
        index_filename="index.toml",
        branch=None,
        pages=False,
    )
    assert (WORKFLOWS / "update-index.yml").read_text() == workflow_text(facts)


@pytest.mark.parametrize("path", [WORKFLOWS / "publish.yml", EXAMPLES / "gitlab-ci.yml"])
def test_the_publishing_tool_is_the_version_that_the_tests_of_clients_use(path: Path) -> None:
    found = re.findall(r"pip install .* (uv\S+)$", path.read_text(), re.MULTILINE)
    assert set(found) == {f"uv=={locked_version('uv')}"}


def test_continuous_integration_runs_what_the_readme_says() -> None:
    (job,) = loaded(OWN / "ci.yml")["jobs"].values()
    (command,) = [step["run"] for step in job["steps"] if "run" in step]
    assert f"$ {command}\n" in (CHECKOUT / "README.md").read_text()
    assert (CHECKOUT / ".ci" / "run").read_text().endswith(f"\nexec {command}\n")
    assert f"\ntest:\n\t{command}\n" in (CHECKOUT / "Makefile").read_text()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]


@pytest.mark.parametrize("name", ["publish.yml", "install.yml", "start/action.yml"])
def test_the_document_names_every_input_and_output(name: str) -> None:
    text = (CHECKOUT / "docs" / "ci.md").read_text()
    document = loaded(WORKFLOWS / name)
    called = document.get("on", {}).get("workflow_call", document)
    expected = [*called["inputs"], *called.get("secrets", ()), *called.get("outputs", ())]
    assert [each for each in expected if not re.search(rf"`{each}(`|: )", text)] == []


def test_the_document_shows_the_examples_as_they_are() -> None:
    text = (CHECKOUT / "docs" / "ci.md").read_text()
    shown = re.findall(r"```(?:yaml|json)\n(.*?)```", text, re.DOTALL)
    assert set(shown) == {path.read_text() for path in EXAMPLES.iterdir()}
