"""A site, and repositories on a fake GitHub that its projects come from."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from private_pypi import cli
from private_pypi_static_site.folder import SiteFolder
from tests.github.commands import Ran
from tests.github.fake import FakeGitHub

BACKEND = b'''\
"""A build backend without dependencies, which tells what it was given."""

import io, json, os, pathlib, tarfile, zipfile

NAME, VERSION = "demo", "1.0"


def _text():
    return f"Metadata-Version: 2.2\\nName: {NAME}\\nVersion: {VERSION}\\nSummary: built\\n"


def build_sdist(folder, config_settings=None):
    filename = f"{NAME}-{VERSION}.tar.gz"
    with tarfile.open(pathlib.Path(folder, filename), "w:gz") as tar:
        for path in ("pyproject.toml", "backend.py"):
            tar.add(path, f"{NAME}-{VERSION}/{path}")
        content = _text().encode()
        member = tarfile.TarInfo(f"{NAME}-{VERSION}/PKG-INFO")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return filename


def build_wheel(folder, config_settings=None, metadata_directory=None):
    filename, info = f"{NAME}-{VERSION}-py3-none-any.whl", f"{NAME}-{VERSION}.dist-info"
    with zipfile.ZipFile(pathlib.Path(folder, filename), "w") as wheel:
        wheel.writestr("demo_environment.json", json.dumps(dict(os.environ)))
        wheel.writestr(f"{info}/METADATA", _text())
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", f"{info}/RECORD,,\\n")
    return filename
'''
PYPROJECT = b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
BUILDABLE = {"pyproject.toml": PYPROJECT, "backend.py": BACKEND}


@dataclass(frozen=True, slots=True)
class Sources:
    """A fake GitHub with git, and a site that takes projects from there."""

    github: FakeGitHub
    folder: Path
    capsys: pytest.CaptureFixture[str]
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def site(self) -> SiteFolder:
        return SiteFolder(self.folder / "site")

    @property
    def homepage(self) -> str:
        return f"{self.github.api_url}/acme/demo"

    def run(self, command: str, *words: str, token: str | None = None) -> Ran:
        """`run("update", "demo", "1.0")`; the token must not be in what is said."""
        flags = [f"--folder={self.site.root}"]
        if command in ("register", "update"):
            flags.append(f"--api_url={self.github.api_url}")
        if command == "register" and not any(each.startswith("--homepage") for each in words):
            flags.append(f"--homepage={self.homepage}")
        environ = dict(self.environ)
        if token is not None:
            flags.append("--token_env=TOKEN")
            environ["TOKEN"] = token
        code = cli.main([f"static_site.{command}", *words, *flags], environ)
        out, err = self.capsys.readouterr()
        assert token is None or token not in out + err
        return Ran(code, out, err)

    def release(self, tag: str, *files: tuple[str, bytes], private: bool = False) -> None:
        """A release in acme/demo."""
        if "acme/demo" not in self.github._hub.repositories:
            self.github.make_repo("acme", "demo", private=private)
        self.github.make_release("acme/demo", tag, dict(files))

    def tag(self, tag: str, files: Mapping[str, bytes], private: bool = False) -> None:
        """A tag in the git repository of acme/demo, which has no release."""
        if "acme/demo" not in self.github._hub.repositories:
            self.github.make_repo("acme", "demo", private=private)
        work = self.folder / "work" / tag
        commit_files(work, files, tag)
        bare = self.folder / "git" / "acme" / "demo"
        bare.mkdir(parents=True, exist_ok=True)
        git("init", "--quiet", "--bare", cwd=bare)
        git("push", "--quiet", str(bare), tag, cwd=work)
        self.github.serve_git(self.folder / "git")

    def contents(self) -> dict[str, bytes]:
        """All files of the site, apart from its lock."""
        root = self.site.root
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.suffix != ".lock"
        }


def commit_files(folder: Path, files: Mapping[str, bytes], tag: str) -> None:
    """A new repository with one commit, which is tagged."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    git("init", "--quiet", cwd=folder)
    git("add", "--all", cwd=folder)
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.invalid")
    git(*who, "commit", "--quiet", "--message=All", cwd=folder)
    git("update-ref", f"refs/tags/{tag}", "HEAD", cwd=folder)


def git(*arguments: str, cwd: Path) -> None:
    subprocess.run(["git", *arguments], cwd=cwd, check=True, timeout=60)


@pytest.fixture
def sources(
    github: FakeGitHub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Sources:
    site = tmp_path / "site"
    site.mkdir()
    (site / "site.toml").write_text("")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "GIT_CONFIG_GLOBAL": "/dev/null"}
    return Sources(github, tmp_path, capsys, environ)
