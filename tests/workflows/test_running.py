"""What the workflows do when a real runner runs them: the packages, the index, the secrets."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.clients.releases import Release
from tests.github.fake import FakeGitHub

from .acting import EXAMPLES, WORKFLOWS, Outcome, Project, machine, runner_python, service, serving

pytestmark = pytest.mark.needs("act", "git")

PUBLISH = WORKFLOWS / "publish.yml"
INSTALL = WORKFLOWS / "install.yml"
ACTION = f"acme/private_pypi/workflows/start@{'0' * 40}"

MakeProject = Callable[[str], Project]

BACKEND = '''\
"""Builds the files that lie beside it: building fetches nothing."""

import pathlib
import shutil

HERE = pathlib.Path(__file__).parent


def build_sdist(directory, config_settings=None):
    return shutil.copy(next(HERE.glob("built/*.tar.gz")), directory).rpartition("/")[2]


def build_wheel(directory, config_settings=None, metadata_directory=None):
    return shutil.copy(next(HERE.glob("built/*.whl")), directory).rpartition("/")[2]
'''
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "in_tree"\nbackend-path = ["."]\n'


def sources(release: Release) -> dict[str, str | bytes]:
    """A project that is built into exactly these files."""
    return {
        "pyproject.toml": PYPROJECT,
        "in_tree.py": BACKEND,
        **{f"built/{name}": content for name, content in files(release).items()},
    }


def files(release: Release) -> dict[str, bytes]:
    return dict([release.wheel(), release.sdist()])


def published(github: FakeGitHub) -> dict[str, bytes | None]:
    """What acme/pkgs keeps: filename -> content."""
    tags = [release.tag_name for release in github.releases("acme/pkgs", drafts=True)]
    return {tag: github.asset_content("acme/pkgs", tag, tag) for tag in tags}


def put(github: FakeGitHub, release: Release) -> None:
    """Publish a release as somebody else has, without its facts: the index has to open it."""
    for name, content in files(release).items():
        github.make_release("acme/pkgs", name, {name: content})


def example(name: str, port: int, **inputs: str) -> str:
    """A workflow of the documents, whose server is on this port; `inputs` are added or replaced."""
    text = (EXAMPLES / name).read_text()
    for key, value in {"port": str(port), **inputs}.items():
        text, found = re.subn(rf"(?m)^( +){key}: .*$", rf"\1{key}: {value}", text)
        if not found:
            text = re.sub(r"(?m)^( +)repo: ", rf"\1{key}: {value}\n\1repo: ", text, count=1)
    return text


def in_workflows(**texts: str) -> dict[str, str | bytes]:
    """`publish="…"` -> .github/workflows/publish.yml"""
    return {f".github/workflows/{name.replace('_', '-')}.yml": text for name, text in texts.items()}


@pytest.fixture
def release(github: FakeGitHub, project: MakeProject, tmp_path: Path) -> Callable[..., Outcome]:
    """Run release.yml of the documents in acme/demo."""

    def run(token: str, **inputs: str) -> Outcome:
        demo = project("acme/demo")
        with service(PUBLISH, "publish", tmp_path / "publishing", github) as server:
            demo.write(
                {
                    **in_workflows(
                        publish=PUBLISH.read_text(),
                        release=example("release.yml", server.port, **inputs),
                    ),
                    **sources(Release()),
                }
            )
            return demo.run(
                "release.yml",
                event="push",
                token="of-another-repository",
                secrets={"PACKAGES_TOKEN": token},
            )

    return run


def test_a_release_is_published_through_the_service_and_the_index_workflow_is_started(
    github: FakeGitHub, release: Callable[..., Outcome]
) -> None:
    token = github.make_token("walter", {"acme/pkgs": "write"})
    ran = release(token)
    assert ran.code == 0, ran.output
    assert published(github) == files(Release())
    assert github.repo("acme/pkgs").dispatches == [
        {"workflow": "update-index.yml", "ref": "main", "inputs": {}}
    ]
    assert token not in ran.output


def test_a_token_that_may_only_read_publishes_nothing_and_says_so(
    github: FakeGitHub, release: Callable[..., Outcome]
) -> None:
    ran = release(github.make_token("rita", {"acme/pkgs": "read"}))
    assert ran.code == 1
    assert "403" in ran.output
    assert published(github) == {}
    assert github.repo("acme/pkgs").dispatches == []


def test_the_index_workflow_is_text_and_no_command_and_named_when_it_cannot_be_started(
    github: FakeGitHub, release: Callable[..., Outcome], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    token = github.make_token("walter", {"acme/pkgs": "write"})
    evil = f"$(touch {mark}) `touch {mark}` '; touch {mark}; ' \"; touch {mark}; \""
    ran = release(token, **{"index-workflow": json.dumps(evil)})
    assert ran.code == 1
    assert f"the packages are published, but {evil} of acme/pkgs could not be" in ran.output
    assert published(github) == files(Release())
    assert not mark.exists()


def test_a_repository_publishes_its_own_packages_with_the_token_of_its_job(
    github: FakeGitHub, project: MakeProject, tmp_path: Path
) -> None:
    """What it dispatches is run by tests/github/test_commands.py."""
    packages = project("acme/pkgs")
    with service(PUBLISH, "publish", tmp_path / "publishing", github) as server:
        packages.write(
            {
                **in_workflows(
                    publish=PUBLISH.read_text(),
                    release=example("release-here.yml", server.port, image="service"),
                ),
                **sources(Release()),
            }
        )
        ran = packages.run(
            "release.yml",
            event="push",
            token=github.make_token(rights={"acme/pkgs": "write"}),
            payload={"repository": {"name": "pkgs"}},
        )
    assert ran.code == 0, ran.output
    assert published(github) == files(Release())
    assert github.repo("acme/pkgs").dispatches == [
        {"workflow": "update-index.yml", "ref": "main", "inputs": {}}
    ]


def test_what_the_index_has_is_installed_and_commands_run_with_it(
    github: FakeGitHub, project: MakeProject, tmp_path: Path
) -> None:
    put(github, Release(note="from GitHub"))
    token = github.make_token("rita", {"acme/pkgs": "read"})
    demo = project("acme/consumer")
    with service(INSTALL, "install", tmp_path / "installing", github) as server:
        demo.write(in_workflows(install=INSTALL.read_text(), test=example("test.yml", server.port)))
        ran = demo.run(
            "test.yml",
            event="push",
            token="of-another-repository",
            secrets={"PACKAGES_TOKEN": token},
            env={"PIP_CONFIG_FILE": "/dev/null"},
        )
    assert ran.code == 0, ran.output
    assert "installed 1.0 from GitHub" in ran.output
    assert token not in ran.output


def test_a_wrong_token_ends_the_job_before_anything_is_installed(
    github: FakeGitHub, project: MakeProject, tmp_path: Path
) -> None:
    put(github, Release())
    demo = project("acme/consumer")
    with service(INSTALL, "install", tmp_path / "installing", github) as server:
        demo.write(in_workflows(install=INSTALL.read_text(), test=example("test.yml", server.port)))
        ran = demo.run("test.yml", event="push", token="x", secrets={"PACKAGES_TOKEN": "ghp_wrong"})
    assert ran.code == 1
    assert "401" in ran.output
    assert "Main Install" not in ran.output
    assert "ghp_wrong" not in ran.output


def test_without_image_and_requirement_the_job_says_what_to_give(
    github: FakeGitHub, project: MakeProject
) -> None:
    demo = project("acme/consumer")
    demo.write(in_workflows(install=INSTALL.read_text(), test=example("test.yml", 1, image='""')))
    ran = demo.run("test.yml", event="push", token="x", secrets={"PACKAGES_TOKEN": "x"})
    assert ran.code == 1
    assert "give 'image' or 'requirement'" in ran.output


def test_the_action_starts_an_index_of_its_own_version_in_any_job(
    github: FakeGitHub, project: MakeProject, ourselves: Path, free_port: int
) -> None:
    put(github, Release(note="from GitHub"))
    token = github.make_token("rita", {"acme/pkgs": "read"})
    demo = project("acme/consumer")
    demo.write(in_workflows(own_job=example("own-job.yml", free_port)))
    ran = demo.run(
        "own-job.yml",
        event="push",
        token="of-another-repository",
        secrets={"PACKAGES_TOKEN": token},
        local={ACTION.replace("/workflows/start", ""): ourselves},
    )
    assert ran.code == 0, ran.output
    assert "Successfully installed demo-1.0" in ran.output
    assert f"demo came from http://127.0.0.1:{free_port}/r/packages/simple/" in ran.output
    assert token not in ran.output


def test_the_action_configures_a_service_and_uv_uses_it_as_well(
    github: FakeGitHub, project: MakeProject, ourselves: Path, tmp_path: Path
) -> None:
    put(github, Release())
    token = github.make_token("rita", {"acme/pkgs": "read"})
    demo = project("acme/consumer")
    uv = (
        '      - run: uv pip install --no-config --python "$(command -v python)" --reinstall demo\n'
    )
    with service(EXAMPLES / "service.yml", "service", tmp_path / "service", github) as server:
        text = example("own-job.yml", server.port, service='"true"')
        demo.write(in_workflows(own_job=text + uv))
        ran = demo.run(
            "own-job.yml",
            event="push",
            token="of-another-repository",
            secrets={"PACKAGES_TOKEN": token},
            env={"PIP_CONFIG_FILE": "/dev/null"},
            local={ACTION.replace("/workflows/start", ""): ourselves},
        )
    assert ran.code == 0, ran.output
    assert "Main Start the server" not in ran.output
    assert "Successfully installed demo-1.0" in ran.output  # pip
    assert "~ demo==1.0" in ran.output  # uv
    assert token not in ran.output


def test_a_service_is_configured_with_curl_alone(
    github: FakeGitHub, project: MakeProject, tmp_path: Path
) -> None:
    """The flow of private-pypi 0.2, step by step."""
    put(github, Release())
    token = github.make_token("rita", {"acme/pkgs": "read"})
    demo = project("acme/consumer")
    with service(EXAMPLES / "service.yml", "service", tmp_path / "service", github) as server:
        text = (EXAMPLES / "service.yml").read_text()
        text = text.replace("localhost:8888", f"127.0.0.1:{server.port}")
        text = text.replace(
            'repo = "pkgs"\n', f'repo = "pkgs"\n            api_url = "{github.api_url}"\n'
        )
        demo.write(in_workflows(service=text))
        ran = demo.run(
            "service.yml",
            event="push",
            token="of-another-repository",
            secrets={"PACKAGES_TOKEN": token},
            env={"PIP_CONFIG_FILE": "/dev/null"},
        )
    assert ran.code == 0, ran.output
    assert "Successfully installed demo-1.0" in ran.output
    assert token not in ran.output


def test_the_job_for_gitlab_publishes_through_its_service(
    github: FakeGitHub, tmp_path: Path
) -> None:
    """Its script, by the shell that GitLab's runner takes; the service is on another port."""
    token = github.make_token("walter", {"acme/pkgs": "write"})
    job = YAML(typ="safe").load(EXAMPLES / "gitlab-ci.yml")["publish"]
    python = shutil.copytree(runner_python(), tmp_path / "python", symlinks=True)
    checkout = tmp_path / "checkout"
    for name, content in sources(Release()).items():
        path = checkout / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    variables = {name: value for name, value in job["variables"].items() if name != "INDEX"}
    # Only this GitHub is not the public one.
    variables["PRIVATE_PYPI_COMMAND_ALLOW_ADDRESS"] = github.api_url
    with serving(variables, tmp_path / "service") as server:
        ended = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", "\n".join(job["script"])],
            cwd=checkout,
            env={
                **machine(),
                **variables,
                "HOME": str(tmp_path),
                "PATH": f"{python}/bin:/usr/bin:/bin",
                "CONFIG": f'{variables["CONFIG"]}api_url = "{github.api_url}"\n',
                "INDEX": server.url,
                "PACKAGES_TOKEN": token,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
    output = ended.stdout.decode()
    assert ended.returncode == 0, output
    assert published(github) == files(Release())
    assert token not in output
