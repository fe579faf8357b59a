"""Files are built from a tag, by code that sees no secret and has no endless time."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from private_pypi.backend import Secret
from private_pypi.errors import BackendError, BackendUnavailable, ConfigurationError
from private_pypi.testing.distributions import make_wheel
from private_pypi_static_site.making import source_builds
from tests.github.conftest import github
from tests.static_site.sources import BACKEND, BUILDABLE, PYPROJECT, Sources, sources
from tests.waiting import eventually

__all__ = ["github", "sources"]

pytestmark = pytest.mark.needs("git", "time")


def test_what_has_no_release_is_built(sources: Sources) -> None:
    sources.tag("v1.0", BUILDABLE)
    ran = sources.run("register", "demo", "1.0")
    assert ran.code == 0, ran.err
    [project] = sources.site.projects()
    [version] = project.versions
    assert (version.tag, project.summary) == ("v1.0", "built")
    assert {file.filename: file.url for file in version.files} == {
        "demo-1.0-py3-none-any.whl": None,
        "demo-1.0.tar.gz": None,
    }
    assert all(file.core_metadata_sha256 for file in version.files)


def test_a_build_has_no_token_in_its_environment(sources: Sources) -> None:
    sources.tag("v1.0", BUILDABLE, private=True)
    token = sources.github.make_token("rita", {"acme/demo": "read"})
    sources.environ.update(
        {
            "AWS_SECRET_ACCESS_KEY": "secret",
            "HOME": "/root",
            "PIP_INDEX_URL": "https://ann:secret@index.invalid/simple",
            "PIP_EXTRA_INDEX_URL": "https://index.invalid/simple",
            "GIT_TRACE_CURL": "1",
        }
    )
    ran = sources.run("register", "demo", "1.0", "--build", "--host_files", token=token)
    assert ran.code == 0, ran.err
    assert "PIP_INDEX_URL is not passed on" in ran.err
    content = sources.contents()["packages/demo/demo-1.0-py3-none-any.whl"]
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        seen = json.loads(wheel.read("demo_environment.json"))
    everything = json.dumps(seen)
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    assert token not in everything and basic not in everything and "secret" not in everything
    assert not [name for name in seen if name.startswith("GIT_CONFIG")]
    assert seen["HOME"] != "/root"
    assert seen["PIP_EXTRA_INDEX_URL"] == "https://index.invalid/simple"


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_build_finds_no_token_in_the_processes_that_started_it(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name, content in BUILDABLE.items():
        (checkout / name).write_bytes(content)
    with (checkout / "backend.py").open("ab") as backend:
        backend.write(
            f"""
process, found = os.getppid(), []
while process > 1:
    try:
        found.append(pathlib.Path(f"/proc/{{process}}/environ").read_text())
    except OSError as error:
        found.append(str(error))
    if process == {{}}:
        break
    text = pathlib.Path(f"/proc/{{process}}/stat").read_text()
    process = int(text.rpartition(")")[2].split()[1])
pathlib.Path({str(tmp_path / "found")!r}).write_text(repr(found))
""".replace("{}", "int(os.environ['PIP_FIND_LINKS'])").encode()
        )
    program = f"""
import os
from pathlib import Path
from private_pypi_static_site.making.source_builds import build_files
environ = {{"PATH": os.environ["PATH"], "PIP_FIND_LINKS": str(os.getpid())}}
build_files(Path({str(checkout)!r}), Path({str(tmp_path / "made")!r}), environ=environ)
"""
    command = [sys.executable, "-c", program]
    if os.geteuid() == 0:  # who may look into every process
        command = ["setpriv", "--bounding-set=-all", *command]
    subprocess.run(command, env={**os.environ, "TOKEN": "a-token"}, check=True, timeout=120)
    found = (tmp_path / "found").read_text()
    assert "Permission denied" in found
    assert "a-token" not in found


def test_a_release_can_be_ignored_and_one_without_files_is_built(sources: Sources) -> None:
    sources.tag("v1.0", BUILDABLE)
    sources.release("v1.0", make_wheel("demo", "1.0"))
    assert sources.run("register", "demo", "1.0", "--build").code == 0
    [project] = sources.site.projects()
    assert project.summary == "built"
    two = {**BUILDABLE, "backend.py": BACKEND.replace(b'"1.0"', b'"2.0"')}
    sources.tag("v2.0", two)
    sources.release("v2.0", ("notes.txt", b"x"))
    assert sources.run("update", "demo", "2.0").code == 0


def test_a_build_is_renamed(sources: Sources) -> None:
    sources.tag("v1.0", BUILDABLE)
    assert sources.run("register", "demo", "1.0", "--as=acme-demo").code == 0
    [project] = sources.site.projects()
    assert [file.filename for file in project.versions[0].files] == [
        "acme_demo-1.0-py3-none-any.whl"
    ]


@pytest.mark.parametrize(
    ("tag", "name", "message"),
    [
        (
            "v2.0",
            "demo",
            "the tag v2.0 says version 2.0, but demo-1.0.tar.gz is of version 1.0",
        ),
        ("v1.0", "other", "builds files of demo, but the project is other"),
    ],
)
def test_a_build_must_be_what_was_asked_for(
    sources: Sources, tag: str, name: str, message: str
) -> None:
    sources.tag(tag, BUILDABLE)
    ran = sources.run("register", name, tag)
    assert (ran.code, message in ran.err) == (1, True), ran.err
    assert sorted(sources.contents()) == ["site.toml"]


def test_a_build_that_fails_tells_why(sources: Sources) -> None:
    broken = {"pyproject.toml": PYPROJECT, "backend.py": b"raise SystemExit('\x1b[31mno luck')"}
    sources.tag("v1.0", broken)
    ran = sources.run("register", "demo", "1.0")
    assert (ran.code, "no luck" in ran.err, "\x1b" in ran.err) == (1, True, False)
    assert len(ran.err.splitlines()) < 30


def test_a_build_that_hangs_is_ended_with_its_children(
    sources: Sources, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sign = tmp_path / "alive"
    backend = f"""
import subprocess, sys, time
child = "import time, pathlib\\nwhile True: pathlib.Path({str(sign)!r}).touch(); time.sleep(.05)"
subprocess.Popen([sys.executable, "-c", child])
time.sleep(600)
"""
    sources.tag("v1.0", {"pyproject.toml": PYPROJECT, "backend.py": backend.encode()})

    class Hasty(subprocess.Popen[bytes]):
        """The time of a build is over as soon as its child runs, however long that takes."""

        def wait(self, timeout: float | None = None) -> int:
            if timeout != source_builds.BUILD_SECONDS:
                return super().wait(timeout)
            eventually(sign.exists, "the child runs", within=300)
            return super().wait(0)

    monkeypatch.setattr(subprocess, "Popen", Hasty)
    ran = sources.run("register", "demo", "1.0")
    assert (ran.code, "took longer than 1800 seconds" in ran.err) == (1, True)
    sign.unlink()
    time.sleep(0.5)
    assert not sign.exists()


def test_much_output_is_not_kept() -> None:
    program = [
        "python3",
        "-c",
        "import sys; [print('x' * 99) for _ in range(500_000)]; sys.exit(3)",
    ]
    with pytest.raises(BackendError, match="exit code 3") as raised:
        source_builds._run(program, env={"PATH": "/usr/bin:/bin"}, cwd=None, seconds=60, what="it")
    assert len(str(raised.value)) < 3000


def test_a_module_of_the_project_is_not_taken_for_the_builder(sources: Sources) -> None:
    sources.tag("v1.0", {**BUILDABLE, "build.py": b"raise SystemExit('wrong')"})
    assert sources.run("register", "demo", "1.0").code == 0


def test_a_missing_builder_is_named(
    sources: Sources, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(name: str) -> str:
        raise source_builds.PackageNotFoundError(name)

    monkeypatch.setattr(source_builds, "version", missing)
    with pytest.raises(ConfigurationError, match=re.escape("install private-pypi[build]")):
        source_builds.build_files(tmp_path, tmp_path / "out", environ={})


def test_a_branch_of_the_same_name_is_not_taken(sources: Sources, tmp_path: Path) -> None:
    from tests.static_site.sources import git

    sources.tag("v1.0", {"which": b"tag"})
    bare = tmp_path / "git" / "acme" / "demo"
    other = tmp_path / "work" / "v1.0"
    (other / "which").write_bytes(b"branch")
    git("-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qam", "x", cwd=other)
    git("push", "--quiet", str(bare), "HEAD:refs/heads/v1.0", cwd=other)
    checkout = tmp_path / "checkout"
    source_builds.fetch_tag(sources.homepage, "v1.0", checkout, token=None, environ=sources.environ)
    assert (checkout / "which").read_bytes() == b"tag"


def test_git_gets_the_token_for_its_host_and_writes_it_nowhere(
    sources: Sources, tmp_path: Path
) -> None:
    sources.tag("v1.0", {"a": b""}, private=True)
    token = sources.github.make_token("rita", {"acme/demo": "read"})
    checkout = tmp_path / "checkout"
    source_builds.fetch_tag(
        sources.homepage, "v1.0", checkout, token=Secret(token), environ=sources.environ
    )
    basic = base64.b64encode(f"x-access-token:{token}".encode())
    for path in checkout.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes() and basic not in path.read_bytes()
    with pytest.raises(BackendError) as raised:
        source_builds.find_tag(
            sources.homepage, ["v1.0"], token=Secret("wrong" * 8), environ=sources.environ
        )
    assert "wrong" not in str(raised.value)


def test_git_that_hangs_is_ended(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    sources.tag("v1.0", {"a": b""})
    monkeypatch.setattr(source_builds, "GIT_SECONDS", 1)
    sources.github.latency = 5
    with pytest.raises(BackendUnavailable, match=r"git ls-remote of .* took longer than 1 seconds"):
        source_builds.find_tag(sources.homepage, ["v1.0"], token=None, environ=sources.environ)


def test_a_readme_is_markdown(tmp_path: Path) -> None:
    assert source_builds.read_readme(tmp_path) is None
    (tmp_path / "README").write_text("a\n````\nb")
    assert source_builds.read_readme(tmp_path) == b"`````text\na\n````\nb\n`````\n"
    (tmp_path / "ReadMe.md").write_bytes(b"# \xff\x1b")
    assert source_builds.read_readme(tmp_path) == "# \ufffd\ufffd".encode()
