"""The command that makes pages of the index of a repository on a fake GitHub."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from private_pypi import cli
from private_pypi.pages.static_site import LIST
from private_pypi.testing.distributions import make_sdist, make_wheel
from tests.github.commands import (
    Ran,
    Run,
    installed_with_pip,
    publish,
)
from tests.github.fake import FakeGitHub


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


# github.gen_gh_pages.


@dataclass(frozen=True)
class Packages:
    """A repository with some files and its index."""

    github: FakeGitHub
    token: str
    folder: Path
    run: Run

    def update_index(self) -> None:
        flags = ["--owner=acme", "--repo=packages", f"--api_url={self.github.api_url}"]
        words = ["update_index", "github", "acme", "--secret_env=TOKEN", *flags]
        assert cli.main(words, {"TOKEN": self.token}) == 0

    def publish(self, filename: str, content: bytes) -> None:
        publish(self.github, self.token, self.folder, filename, content)

    def make_pages(self, *flags: str) -> Ran:
        return self.run(
            "github.gen_gh_pages",
            self.token,
            *("--name=acme", "--owner=acme", "--repo=packages"),
            *(f"--api_url={self.github.api_url}", f"--output_folder={self.site}"),
            *flags,
        )

    @property
    def site(self) -> Path:
        return self.folder / "site"

    def names(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.site)) for path in self.site.rglob("*") if path.is_file()
        )


MakePackages = Callable[..., Packages]


@pytest.fixture
def packages(
    github: FakeGitHub, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> MakePackages:
    def make(*files: tuple[str, bytes], private: bool = False) -> Packages:
        github.make_repo("acme", "packages", private=private)
        token = github.make_token("alice", {"acme/packages": "write"})
        made = Packages(github, token, tmp_path, run)
        for filename, content in files:
            made.publish(filename, content)
        made.update_index()
        capsys.readouterr()
        return made

    return make


@pytest.mark.needs("pip")
def test_files_of_a_public_repository_are_linked_with_their_core_metadata(
    packages: MakePackages, tmp_path: Path
) -> None:
    filename, content = make_wheel("demo", "1.0+local")
    made = packages((filename, content), make_wheel("demo", "0.9"))
    ran = made.make_pages()
    assert (ran.code, ran.out) == (0, "acme: projects: 1; files: 2 linked, 0 in the folder\n")
    assert made.names() == [
        ".nojekyll",
        LIST,
        "demo/index.html",
        "index.html",
        "index.toml",
    ]
    page = (made.site / "demo" / "index.html").read_text()
    name = filename.replace("+", "%2B")
    sha256 = hashlib.sha256(content).hexdigest()
    assert (
        f'href="{made.github.api_url}/acme/packages/releases/download/{name}/{name}#sha256={sha256}"'
        in page
    )
    assert page.count("data-core-metadata=") == 2
    assert page.count("data-upload-time=") == page.count("data-size=") == 2
    assert page.count('data-requires-python="&gt;=3.8"') == 2
    assert (made.site / "index.toml").read_bytes() == made.github.file(
        "acme/packages", "index.toml"
    )
    made.github.forget_requests()
    assert installed_with_pip(made.site, tmp_path, "demo") == ["demo-1.0+local.dist-info"]
    assert made.github.asked(f"GET /acme/packages/releases/download/{name}/{name}.metadata")


def test_core_metadata_that_a_release_does_not_have_are_not_offered(
    packages: MakePackages,
) -> None:
    made = packages()
    filename, content = make_wheel("demo", "1.0")  # as private-pypi 0.2 and people publish
    made.github.make_release("acme/packages", filename, {filename: content})
    made.update_index()
    assert made.make_pages().code == 0
    page = (made.site / "demo" / "index.html").read_text()
    assert "core-metadata" not in page


@pytest.mark.needs("pip")
def test_files_of_a_private_repository_are_put_into_the_folder(
    packages: MakePackages, tmp_path: Path
) -> None:
    made = packages(make_wheel("demo", "1.0"), make_sdist("other", "1.0"), private=True)
    ran = made.make_pages()
    assert (ran.code, ran.out.splitlines()[-1]) == (
        0,
        "acme: projects: 2; files: 0 linked, 2 in the folder",
    )
    page = (made.site / "demo" / "index.html").read_text()
    assert made.github.api_url not in page
    assert "data-core-metadata=" in page
    assert installed_with_pip(made.site, tmp_path, "demo") == ["demo-1.0.dist-info"]
    made.github.forget_requests()
    assert made.make_pages().code == 0
    assert len(made.github.requests) == 2  # the repository and the index, no file


@pytest.mark.needs("pip")
def test_a_file_that_github_renames_is_put_into_the_folder(
    packages: MakePackages, tmp_path: Path
) -> None:
    made = packages(make_wheel("demo", "1!1.0"), make_wheel("demo", "2.0"))
    assert "1 linked, 1 in the folder" in made.make_pages().out
    assert "demo/demo-1!1.0-py3-none-any.whl" in made.names()
    assert installed_with_pip(made.site, tmp_path, "demo") == ["demo-1!1.0.dist-info"]


def test_what_was_deleted_and_yanked_is_so_after_another_run(packages: MakePackages) -> None:
    made = packages(make_wheel("demo", "1.0"), make_wheel("gone", "1.0"), private=True)
    assert made.make_pages().code == 0
    (made.site / "CNAME").write_text("packages.invalid")
    document = made.github.file("acme/packages", "index.toml") or b""
    first, _, _ = document.decode().partition('\n[[pkgs]]\ntype = "github"\ndistrib = "gone"')
    yanked = first.replace("\nsize = ", '\nyanked = "broken"\nsize = ', 1)
    made.github.commit("acme/packages", "index.toml", yanked.encode())
    ran = made.make_pages()
    assert ran.code == 0, ran.err
    assert "3 old pages and files removed" in ran.out
    assert made.names() == [
        ".nojekyll",
        LIST,
        "CNAME",
        "demo/demo-1.0-py3-none-any.whl",
        "demo/demo-1.0-py3-none-any.whl.metadata",
        "demo/index.html",
        "index.html",
        "index.toml",
    ]
    assert 'data-yanked="broken"' in (made.site / "demo" / "index.html").read_text()


def test_an_index_of_more_than_a_megabyte_on_another_branch_is_read(
    packages: MakePackages,
) -> None:
    made = packages(make_wheel("demo", "1.0"))
    document = made.github.file("acme/packages", "index.toml") or b""
    made.github.commit("acme/packages", "all.toml", document + b"# " + b"x" * 2**20, branch="index")
    ran = made.make_pages("--branch=index", "--index_filename=all.toml")
    assert (ran.code, "1 linked" in ran.out) == (0, True)


def test_pages_for_everybody_never_show_a_private_repository(packages: MakePackages) -> None:
    made = packages(make_wheel("demo", "1.0"), private=True)
    repository = made.github.repo("acme/packages")
    ran = made.make_pages("--for_gh_pages")
    assert (ran.code, "they must be switched on" in ran.err) == (1, True)
    repository.pages = {"build_type": "workflow", "public": True}
    ran = made.make_pages("--for_gh_pages")
    assert (ran.code, "shows its pages to everybody" in ran.err) == (1, True)
    assert not made.site.exists()
    repository.pages = {"build_type": "workflow", "public": False}
    assert made.make_pages("--for_gh_pages").code == 0


def test_pages_never_show_less_than_the_index_has(packages: MakePackages) -> None:
    made = packages(make_wheel("demo", "1.0"))
    document = made.github.file("acme/packages", "index.toml") or b""
    old = b'[[pkgs]]\ntype = "github"\ndistrib = "a"\npackage = "a-1"\next = "zip"\n'
    old += b'sha256 = "%s"\nurl = "https://x.invalid"\n[pkgs.meta]\n' % (b"0" * 64)
    made.github.commit("acme/packages", "index.toml", document + b"\n" + old)
    ran = made.make_pages()
    assert (ran.code, "run private_pypi update_index first" in ran.err) == (1, True)
    made.github.commit("acme/packages", "index.toml", None)
    ran = made.make_pages()
    assert ran.code == 1
    assert "there is no 'index.toml' in 'acme/packages' yet" in ran.err
    assert not made.site.exists()


def test_who_may_not_read_gets_no_pages(packages: MakePackages) -> None:
    made = packages(private=True)
    for token, said in (
        (
            made.github.make_token("stranger"),
            "does not show a repository 'acme/packages' to this token",
        ),
        ("ghp_wrong", "does not accept the token: Bad credentials"),
    ):
        ran = Packages(made.github, token, made.folder, made.run).make_pages()
        assert (ran.code, ran.err) == (1, f"error: GitHub {said}\n")
    made.github.fail("403", on="GET /repos/acme/packages")
    ran = made.make_pages()
    refused = "does not let this token see 'acme/packages': Resource not accessible by integration"
    assert (ran.code, ran.err) == (1, f"error: GitHub {refused}\n")
    assert not made.site.exists()


@pytest.mark.parametrize(
    ("seconds", "hint"),
    [(59, ""), (60, "run this again in 1 minute\n"), (90, "run this again in 2 minutes\n")],
)
def test_a_limit_tells_when_it_ends(packages: MakePackages, seconds: int, hint: str) -> None:
    made = packages()
    made.github.fail("secondary", on="GET /repos/acme/packages", seconds=seconds)
    ran = made.make_pages()
    said = "error: GitHub's limit is reached: You have exceeded a secondary rate limit.\n"
    assert (ran.code, ran.err) == (1, said + hint)


def test_a_download_that_breaks_leaves_the_pages_as_they_were(packages: MakePackages) -> None:
    made = packages(make_wheel("demo", "1.0"), private=True)
    assert made.make_pages().code == 0
    before = (made.site / "index.html").read_bytes()
    made.publish(*make_wheel("more", "1.0"))
    made.update_index()
    made.github.fail("cut", host="storage")
    assert made.make_pages().code == 1
    assert (made.site / "index.html").read_bytes() == before
    assert not (made.site / "more" / "index.html").exists()
    assert made.make_pages().code == 0
    assert (made.site / "more" / "more-1.0-py3-none-any.whl").exists()
