"""`static_site.init`: what it writes, what it renews, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from private_pypi import cli
from private_pypi_static_site.commands.starting import MARK
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making.site_checks import check_site

REQUIREMENT = f"private-pypi @ git+https://code.example/acme/private_pypi@{'0' * 40}"
NAMES = ["build-and-deploy", "check", "delete", "propose", "register", "update"]


@pytest.fixture
def init(tmp_path: Path) -> Callable[..., int]:
    def run(*words: str) -> int:
        return cli.main(["static_site.init", "--folder", str(tmp_path / "site"), *words], {})

    return run


def test_a_plain_site(init: Callable[..., int], tmp_path: Path) -> None:
    assert init("--title", "Acme's “packages”", "--url", "https://pypi.acme.example") == 0
    site = SiteFolder(tmp_path / "site")
    settings = site.settings()
    assert (settings.title, settings.url) == ("Acme's “packages”", "https://pypi.acme.example/")
    assert list(site.projects()) == []
    assert {path.name for path in site.root.iterdir()} <= {
        *("site.toml", "projects", ".gitignore", ".gitattributes", ".private_pypi-site.lock")
    }


def test_a_new_site_has_no_problems(init: Callable[..., int], tmp_path: Path) -> None:
    assert init() == 0
    assert check_site(SiteFolder(tmp_path / "site")).problems == []


def test_for_github_pages(
    init: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--template=github-pages", "--repository=Acme/Index", f"--requirement={REQUIREMENT}")
    assert init(*flags, "--branch=trunk") == 0
    assert "“GitHub Actions” as the source" in capsys.readouterr().out
    site = SiteFolder(tmp_path / "site")
    assert site.settings().url == "https://acme.github.io/index/"
    readme = (site.root / "README.md").read_text()
    assert "https://acme.github.io/index/" in readme
    assert "https://github.com/Acme/Index/actions" in readme
    assert "$" not in readme.replace("$ pip", "").replace("$ poetry", "").replace("$ docker", "")
    workflows = sorted((site.root / ".github" / "workflows").iterdir())
    assert [path.stem for path in workflows] == NAMES
    for path in workflows:
        document = YAML(typ="safe").load(path)
        told = document.get("env", {"REQUIREMENT": REQUIREMENT})["REQUIREMENT"]
        assert told.replace("[build]", "") == REQUIREMENT
    deploy = YAML(typ="safe").load(workflows[0])
    assert deploy["on"]["push"]["branches"] == ["trunk"]


def test_again_it_renews_its_workflows_and_nothing_else(
    init: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--template=github-pages", "--repository=acme/index", f"--requirement={REQUIREMENT}")
    assert init(*flags) == 0
    root = tmp_path / "site"
    settings = root / "site.toml"
    settings.write_text(f"# ours\n{settings.read_text()}check_public_index = false\n")
    (root / "README.md").write_text("ours")
    check, update = (root / ".github/workflows" / f"{name}.yml" for name in ("check", "update"))
    check.write_text("name: ours\n")
    update.write_text(MARK + "name: old\n")
    capsys.readouterr()
    assert init(*flags, "--title=New") == 0
    told = capsys.readouterr()
    assert "renewed .github/workflows/update.yml" in told.out
    assert "check.yml is not of this command" in told.err
    assert check.read_text() == "name: ours\n"
    assert "name: old" not in update.read_text()
    assert (root / "README.md").read_text() == "ours"
    assert settings.read_text().startswith("# ours\n")
    assert SiteFolder(root).settings().title == "New"
    assert not SiteFolder(root).settings().check_public_index
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.yml")}
    assert init(*flags) == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.yml")} == before


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--template=gitlab", "known: github-pages"),
        ("--repository=acme", "not of the form OWNER/NAME"),
        ("--url=javascript:alert(1)", "not an http or https address"),
        ("--branch=a]b", "cannot be written into a workflow"),
    ],
)
def test_wrong_flags(
    init: Callable[..., int], capsys: pytest.CaptureFixture[str], flag: str, says: str
) -> None:
    assert init(flag) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", ["private-pypi", "other", f'{REQUIREMENT}"', f"{REQUIREMENT}${{{{"]
)
def test_wrong_requirements_write_nothing(
    init: Callable[..., int], tmp_path: Path, wrong: str
) -> None:
    assert init("--template=github-pages", f"--requirement={wrong}") == 1
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("title = 3", "'title' has a wrong type: 3"),
        ("colour = 'red'", "'colour' is unknown"),
        ("url = 'ftp://x'", "'url' is no http or https address"),
        ("title =", "site.toml: "),
    ],
)
def test_wrong_settings_are_told_and_stay(
    init: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    says: str,
) -> None:
    (tmp_path / "site").mkdir()
    path = tmp_path / "site" / "site.toml"
    path.write_text(text)
    assert init("--title=New") == 1
    assert says in capsys.readouterr().err
    assert path.read_text() == text
