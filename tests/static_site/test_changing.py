"""Projects of a site are registered, updated, deleted and yanked."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from pathlib import Path

import pytest

from private_pypi import cli
from private_pypi.distributions.core_metadata import read_core_metadata
from private_pypi.errors import ConfigurationError, NotFound
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making import changing, transactions
from private_pypi_static_site.making.releases import repository_of, tags_for, version_of
from private_pypi_static_site.making.summaries import Line, Summary, code
from private_pypi_static_site.project_file import Project, SiteFile, SiteVersion
from tests.github.conftest import github
from tests.static_site.sources import Sources, sources

__all__ = ["github", "sources"]

WHEEL = make_wheel(
    "Demo",
    "1.0",
    requires_python=">=3.9",
    extra_metadata=[("Summary", "A demo."), ("Author", "Ann")],
)
SDIST = make_sdist("Demo", "1.0", metadata_version="2.1")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def core_metadata_of(filename: str, content: bytes) -> bytes:
    return read_core_metadata(io.BytesIO(content), filename) or b""


def project(sources: Sources, name: str = "demo") -> Project:
    found = sources.site.project(changing.normalize(name))
    assert found is not None
    return found


# -- from releases -----------------------------------------------------------------------------


def test_the_files_of_a_public_release_are_linked(sources: Sources) -> None:
    metadata = (f"{WHEEL[0]}.metadata", core_metadata_of(*WHEEL))
    other = make_wheel("demo_tools", "1.0")
    sources.release("v1.0", WHEEL, SDIST, metadata, other, ("demo.exe", b"MZ"))
    ran = sources.run("register", "Demo", "1.0")
    assert (ran.code, ran.err) == (0, "")
    found = project(sources)
    assert (found.name, found.summary, found.author) == ("Demo", "A demo.", "Ann")
    [version] = found.versions
    assert (version.version, version.tag, version.git) == ("1.0", "v1.0", None)
    base = f"{sources.homepage}/releases/download/v1.0"
    wheel, sdist = version.files
    assert wheel == SiteFile(
        filename=WHEEL[0],
        sha256=sha256(WHEEL[1]),
        size=len(WHEEL[1]),
        url=f"{base}/{WHEEL[0]}",
        uploaded_at=wheel.uploaded_at,
        requires_python=">=3.9",
        core_metadata_sha256=sha256(metadata[1]),
    )
    assert (sdist.url, sdist.core_metadata_sha256) == (f"{base}/{SDIST[0]}", None)
    assert wheel.uploaded_at is not None
    assert sorted(sources.contents()) == [
        *sorted(f"packages/demo/{name}.metadata" for name in (WHEEL[0], SDIST[0])),
        "projects/demo.toml",
        "site.toml",
    ]
    assert f"SHA-256: {wheel.sha256}" in ran.out


def test_core_metadata_that_differ_are_not_offered(sources: Sources) -> None:
    sources.release("v1.0", WHEEL, (f"{WHEEL[0]}.metadata", core_metadata_of(*WHEEL) + b"\n"))
    assert sources.run("register", "demo", "v1.0").code == 0
    assert project(sources).versions[0].files[0].core_metadata_sha256 is None


def test_hosted_files_lie_in_the_site_with_their_metadata(sources: Sources) -> None:
    sources.release("1.0", WHEEL, SDIST)
    assert sources.run("register", "demo", "v1.0", "--host_files").code == 0
    files = {file.filename: file for file in project(sources).versions[0].files}
    assert {file.url for file in files.values()} == {None}
    assert files[WHEEL[0]].core_metadata_sha256 == sha256(core_metadata_of(*WHEEL))
    assert files[SDIST[0]].core_metadata_sha256 is None  # its metadata may be wrong (PEP 643)
    contents = sources.contents()
    assert contents[f"packages/demo/{WHEEL[0]}"] == WHEEL[1]
    assert contents[f"packages/demo/{SDIST[0]}.metadata"] == core_metadata_of(*SDIST)


def test_all_wheels_of_a_version_are_taken(sources: Sources) -> None:
    wheels = [make_wheel("demo", "1.0", tag=f"cp3{n}-cp3{n}-linux_x86_64") for n in range(120)]
    sources.github.inlined_assets = 10
    sources.release("v1.0", *wheels)
    token = sources.github.make_token("rita")  # without one, GitHub allows 60 requests
    assert sources.run("register", "demo", "1.0", token=token).code == 0
    assert len(project(sources).versions[0].files) == 120


def test_a_local_version_is_linked_as_github_writes_it(sources: Sources) -> None:
    sources.release("v1.0+cu1", make_wheel("demo", "1.0+cu1"))
    assert sources.run("register", "demo", "v1.0+cu1").code == 0
    url = project(sources).versions[0].files[0].url or ""
    assert url.endswith("/demo-1.0%2Bcu1-py3-none-any.whl")


def test_the_tag_and_the_metadata_must_agree(sources: Sources) -> None:
    sources.release("v2.0", make_wheel("demo", "2.0.3"))
    before = sources.contents()
    ran = sources.run("register", "demo", "v2.0")
    assert ran.code == 1
    assert "v2.0 says version 2.0" in ran.err and "2.0.3" in ran.err
    assert sources.contents() == before


def test_a_wheel_whose_metadata_are_of_another_version_is_refused(sources: Sources) -> None:
    filename, content = make_wheel("demo", "2.0")
    sources.release("v2.1", (filename.replace("2.0", "2.1"), content))
    ran = sources.run("register", "demo", "v2.1")
    assert ran.code == 1
    assert "2.1" in ran.err and "2.0" in ran.err


def test_files_of_another_project_are_not_taken(sources: Sources) -> None:
    sources.release("v1.0", make_wheel("configurables", "1.0"))
    ran = sources.run("register", "kavli-configurables", "v1.0")
    assert ran.code == 1
    assert "has files of configurables, but not of kavli-configurables" in ran.err


def test_a_name_and_a_version_that_are_there_are_refused(sources: Sources) -> None:
    sources.release("v1.0", WHEEL)
    assert sources.run("register", "demo", "v1.0").code == 0
    before = sources.contents()
    again = sources.run("register", "DEMO", "v1.0")
    assert (again.code, "already has a project 'demo'" in again.err) == (1, True)
    again = sources.run("update", "demo", "1.0.0")
    assert (again.code, "static_site.yank" in again.err) == (1, True)
    assert "static_site.yank" in again.err
    assert sources.contents() == before


def test_an_update_keeps_what_people_wrote(sources: Sources) -> None:
    sources.release("v1.0", WHEEL)
    sources.release("v1.1", make_wheel("demo", "1.1", extra_metadata=[("Summary", "Other.")]))
    assert sources.run("register", "demo", "1.0", "--short_desc=Mine", "--author=Bob").code == 0
    path = sources.site.root / "projects" / "demo.toml"
    path.write_text(f"# important\n{path.read_text()}")
    assert sources.run("update", "demo", "v1.1").code == 0
    assert path.read_text().startswith("# important\n")
    found = project(sources)
    assert [each.version for each in found.versions] == ["1.0", "1.1"]
    assert (found.summary, found.author) == ("Mine", "Bob")


def test_an_update_of_an_unknown_project_says_so(sources: Sources) -> None:
    ran = sources.run("update", "../x", "1.0")
    assert (ran.code, ran.err) == (1, "error: the site has no project '../x'\n")


def test_a_large_file_is_not_hosted(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "LARGEST_HOSTED", 100)
    sources.release("v1.0", WHEEL)
    ran = sources.run("register", "demo", "1.0", "--host_files")
    assert (ran.code, "upload it to a release" in ran.err) == (1, True)
    assert not sources.github.asked("GET */releases/assets/*")  # it was not even fetched
    assert sources.run("register", "demo", "1.0").code == 0


def test_a_folder_that_is_no_site_is_refused(sources: Sources) -> None:
    (sources.site.root / "site.toml").unlink()
    ran = sources.run("register", "demo", "1.0")
    assert (ran.code, "static_site.init" in ran.err) == (1, True)


# -- private repositories ----------------------------------------------------------------------


def test_the_token_is_sent_to_the_interface_only(sources: Sources) -> None:
    sources.release("v1.0", WHEEL, private=True)
    token = sources.github.make_token("rita", {"acme/demo": "read"})
    ran = sources.run("register", "demo", "1.0", "--host_files", token=token)
    assert ran.code == 0
    assert "everybody who can read the site can read these files" in ran.err
    stored = [each for each in sources.github.requests if each.host == "storage"]
    assert stored and all(each.token is None for each in stored)
    assert all(each.token for each in sources.github.requests if each.host == "api")
    assert token.encode() not in b"".join(sources.contents().values())


def test_a_wrong_token_is_an_error(sources: Sources) -> None:
    sources.release("v1.0", WHEEL)
    ran = sources.run("register", "demo", "1.0", token="ghp_" + "x" * 36)
    assert (ran.code, ran.err) == (1, "error: GitHub does not accept the token\n")


@pytest.mark.parametrize("flags", [["--build"], ["--as=acme-demo"]])
def test_files_of_a_private_repository_are_hosted_only_when_told_to(
    sources: Sources, flags: list[str]
) -> None:
    sources.release("v1.0", WHEEL, private=True)
    token = sources.github.make_token("rita", {"acme/demo": "read"})
    ran = sources.run("register", "demo", "1.0", *flags, token=token)
    assert (ran.code, "give --host_files if that is meant" in ran.err) == (1, True)


def test_files_that_nobody_can_see_cannot_be_hosted(sources: Sources) -> None:
    sources.release("v1.0", WHEEL, private=True)
    ran = sources.run("register", "demo", "1.0", "--host_files")
    assert (ran.code, "--token_env" in ran.err) == (1, True)


@pytest.mark.needs("git")
def test_a_private_repository_is_linked_only(sources: Sources) -> None:
    pyproject = b'[project]\nname = "demo"\nversion = "1.0"\ndescription = "Secret."\n'
    files = {"pyproject.toml": pyproject, "README.md": b"# Demo\n"}
    sources.tag("v1.0", files, private=True)
    token = sources.github.make_token("rita", {"acme/demo": "read"})
    ran = sources.run("register", "demo", "1.0", token=token)
    assert ran.code == 0, ran.err
    assert "only a link that those with access to it can follow" in ran.err
    found = project(sources)
    assert found.versions == (SiteVersion(version="1.0", tag="v1.0", git=sources.homepage),)
    assert found.summary == "Secret."
    assert sources.contents()["readmes/demo/1.0.md"] == b"# Demo\n"
    assert token.encode() not in b"".join(sources.contents().values())
    assert sources.run("delete", "demo").code == 0
    assert sorted(sources.contents()) == ["site.toml"]


@pytest.mark.needs("git")
def test_without_access_nothing_is_linked(sources: Sources) -> None:
    sources.tag("v1.0", {"README.md": b"x"}, private=True)
    ran = sources.run("register", "demo", "1.0")
    assert (ran.code, "is private and may not be read without a token" in ran.err) == (1, True)


@pytest.mark.needs("git")
@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            'version = "0.16.8"',
            "the tag v0.1.16 says version 0.1.16, but pyproject.toml says 0.16.8",
        ),
        ('name = "other"', "has the name other"),
        ('version = "' + "9" * 5000 + '"', "they must be the same"),
    ],
)
def test_a_link_and_its_pyproject_must_agree(sources: Sources, said: str, message: str) -> None:
    sources.tag("v0.1.16", {"pyproject.toml": f"[project]\n{said}\n".encode()})
    ran = sources.run("register", "demo", "v0.1.16", "--link_only")
    assert (ran.code, message in ran.err) == (1, True), ran.err


@pytest.mark.needs("git")
def test_a_tag_that_is_not_there_is_not_linked(sources: Sources) -> None:
    sources.tag("v1.0", {"README.rst": b"Demo"})
    ran = sources.run("register", "demo", "2.0", "--link_only")
    assert (ran.code, "has no tag '2.0' or 'v2.0'" in ran.err) == (1, True)
    assert sources.run("register", "demo", "1.0", "--link_only").code == 0
    assert sources.contents()["readmes/demo/1.0.md"] == b"```text\nDemo\n```\n"


@pytest.mark.needs("git")
def test_a_readme_that_is_a_link_is_not_followed(sources: Sources, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    work = tmp_path / "work" / "v1.0"
    work.mkdir(parents=True)
    (work / "README.md").symlink_to(secret)
    sources.tag("v1.0", {"a": b""})
    assert sources.run("register", "demo", "1.0", "--link_only").code == 0
    assert sorted(sources.contents()) == ["projects/demo.toml", "site.toml"]


# -- hostile input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tag", ["--upload-pack=x", "-v", "1.0\n2", "../x", "a..b", "", "a b", "x:y"]
)
def test_what_is_no_tag_is_refused(sources: Sources, tag: str) -> None:
    ran = sources.run("register", "demo", f"--version={tag}")
    assert (ran.code, "must be a version or a tag" in ran.err) == (1, True)
    assert not sources.github.requests


@pytest.mark.parametrize(
    "name", ["../demo", "demo/../x", "de mo", "", "-x", "dem\n", "ＤＥＭＯ", "."]
)
def test_what_is_no_name_is_refused(sources: Sources, name: str) -> None:
    for flags in ([f"--package_name={name}"], ["--package_name=demo", f"--as={name}"]):
        ran = sources.run("register", *flags, "--version=1.0")
        assert (ran.code, "no name of a project" in ran.err) == (2, True), ran.err
    assert sorted(sources.contents()) == ["site.toml"]


@pytest.mark.parametrize(
    "homepage",
    [
        "https://ann:secret@github.com/acme/demo",
        "file:///etc/passwd",
        "ssh://git@github.com/acme/demo",
        "ext::sh -c true",
        "https://github.com/acme",
        "https://github.com/acme/..",
        "https://github.com/-x y/demo",
        "https://elsewhere.invalid/acme/demo",
        "javascript:alert(1)",
        "",
    ],
)
def test_what_is_no_homepage_is_refused(homepage: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        repository_of(homepage)
    assert "secret" not in str(raised.value)


def test_a_password_in_a_homepage_is_not_repeated(sources: Sources) -> None:
    homepage = sources.homepage.replace("://", "://ann:hidden@")
    for flags in (
        [f"--homepage={homepage}"],
        [f"--homepage={sources.homepage}", "--api_url=x://a:hidden@b"],
    ):
        words = ["static_site.register", "demo", "1.0", f"--folder={sources.site.root}", *flags]
        assert cli.main(words, {}) == 1
        out, err = sources.capsys.readouterr()
        assert "an address with a user name or password" in err and "hidden" not in out + err


def test_a_homepage_is_that_of_a_repository() -> None:
    for homepage in (
        "https://github.com/acme/demo.git",
        "https://www.github.com/acme/demo/",
        "http://github.com/acme/demo/tree/main#readme",
    ):
        assert repository_of(homepage).address == "https://github.com/acme/demo"
    found = repository_of("https://git.acme.invalid/a/b", "https://git.acme.invalid/api/v3/")
    assert (found.address, found.api) == (
        "https://git.acme.invalid/a/b",
        "https://git.acme.invalid/api/v3",
    )


def test_a_tag_names_a_version() -> None:
    versions = {tag: version_of(tag) for tag in ("v1.0", "demo-1.0rc1", "release/2", "main", "v")}
    assert {tag: version and str(version) for tag, version in versions.items()} == {
        "v1.0": "1.0",
        "demo-1.0rc1": "1.0rc1",
        "release/2": "2",
        "main": None,
        "v": None,
    }
    assert list(tags_for("v1.0")) == ["v1.0", "1.0"]
    assert list(tags_for("1.0")) == ["1.0", "v1.0"]
    assert version_of("v" + "9" * 5000) is None


def test_hostile_metadata_are_texts(sources: Sources, tmp_path: Path) -> None:
    hostile = "x` @everyone <img src=x> \x1b[31m \u202e | ![](http://x) #1"
    fields = [("Summary", hostile), ("Author", "\x07@root"), ("Requires-Dist", "a; x == '`'")]
    sources.release("v1.0", make_wheel("demo", "1.0", extra_metadata=fields))
    body = tmp_path / "body.md"
    ran = sources.run("register", "demo", "1.0", f"--summary={body}")
    assert ran.code == 0
    assert "\x1b" not in ran.out + ran.err
    assert "\x1b" not in (sources.site.root / "projects" / "demo.toml").read_text()
    text = body.read_text()
    outside = re.sub(r"(?s)(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", text)
    assert "@" not in outside and "<" not in outside and "#" not in outside
    assert "everyone" in text


def test_assets_with_strange_names_are_left_alone(sources: Sources) -> None:
    names = [
        "../demo-1.0-py3-none-any.whl",
        "demo-1.0.whl",
        "demo-.tar.gz",
        "demo-1.0-py3-none-any.whl.sig",
    ]
    sources.release("v1.0", WHEEL, *((name, b"x") for name in names))
    assert sources.run("register", "demo", "1.0").code == 0
    assert [file.filename for file in project(sources).versions[0].files] == [WHEEL[0]]


def test_control_characters_in_flags_are_refused(sources: Sources) -> None:
    for flag in ("--author", "--short_desc"):
        ran = sources.run("register", "demo", "1.0", f"{flag}=a\nb")
        assert (ran.code, f"{flag} must be one line" in ran.err) == (2, True)


def test_nothing_is_written_through_a_link(sources: Sources, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (sources.site.root / "packages").mkdir()
    (sources.site.root / "packages" / "demo").symlink_to(outside)
    sources.release("v1.0", WHEEL)
    ran = sources.run("register", "demo", "1.0")
    assert (ran.code, "is a symbolic link" in ran.err) == (1, True)
    assert list(outside.iterdir()) == []
    assert not (sources.site.root / "projects" / "demo.toml").exists()


@pytest.mark.parametrize("text", ["a", "`", "``a`", "a`b``c", "", " x ", "@me", "a\nb"])
def test_a_span_of_code_holds_any_text(text: str) -> None:
    span = code(text)
    fence = re.match("`+", span)
    assert fence is not None and span.endswith(fence[0])
    inside = span.removeprefix(fence[0]).removesuffix(fence[0])
    assert fence[0] not in re.findall("`+", inside) and "\n" not in span


def test_a_summary_fits_into_a_pull_request() -> None:
    line = Line(label="file", value="x" * 1000)
    text = Summary(done="registered", what="demo", lines=(line,) * 1000).markdown()
    assert len(text) < 65_536


# -- delete and yank ---------------------------------------------------------------------------


def test_a_version_or_a_project_is_deleted_with_its_files(sources: Sources) -> None:
    two = make_wheel("demo", "2.0")
    sources.release("v1.0", WHEEL)
    sources.release("v2.0", two)
    assert sources.run("register", "demo", "1.0", "--host_files").code == 0
    assert sources.run("update", "demo", "2.0", "--host_files").code == 0
    ran = sources.run("delete", "demo", "--version=1")
    assert (ran.code, ran.out.splitlines()[0]) == (0, "deleted demo 1.0")
    assert sorted(sources.contents()) == [
        f"packages/demo/{two[0]}",
        f"packages/demo/{two[0]}.metadata",
        "projects/demo.toml",
        "site.toml",
    ]
    assert sources.run("delete", "demo", "--version=1.0").code == 1
    # Its names are not used again: somebody may have a lock file with their hashes.
    before = sources.contents()
    ran = sources.run("update", "demo", "1.0", "--host_files")
    assert ran.code == 1
    assert f"{WHEEL[0]!r} was deleted" in ran.err
    assert sources.contents() == before
    assert sources.run("delete", "Demo").code == 0
    assert sorted(sources.contents()) == ["site.toml"]
    assert not (sources.site.packages / "demo").exists()
    assert sources.run("delete", "demo").err == "error: the site has no project 'demo'\n"
    assert sources.run("delete", "demo", "--version=").code == 2


def test_a_version_is_yanked_and_back(sources: Sources) -> None:
    sources.release("v1.0", WHEEL, SDIST)
    assert sources.run("register", "demo", "1.0").code == 0
    before = sources.contents()
    assert sources.run("yank", "demo", "1.0", f"--filename={SDIST[0]}", "--reason=broken").code == 0
    yanked = {file.filename: file.yanked for file in project(sources).versions[0].files}
    assert yanked == {WHEEL[0]: None, SDIST[0]: "broken"}
    assert sources.run("yank", "demo", "1.0").code == 0
    assert {file.yanked for file in project(sources).versions[0].files} == {""}
    ran = sources.run("yank", "demo", "1.0", "--undo")
    assert (ran.code, ran.out) == (0, "un-yanked demo 1.0\n")
    assert sources.contents() == before
    for words in (["demo", "2.0"], ["demo", "1.0", "--filename=x.whl"], ["other", "1.0"]):
        assert sources.run("yank", *words).code == 1
    for words in (["demo", "x"], ["demo", "1.0", "--reason=a\x1b"], ["demo", "1.0", "--filename="]):
        assert sources.run("yank", *words).code == 2


# -- all or nothing ----------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int, *, swept: bool) -> None:
    """Let the `number`-th write fail; with `swept` as an error, otherwise as if by kill -9."""
    write, left = SiteFolder.write, [number]

    def break_down(folder: SiteFolder, path: Path, content: bytes) -> None:
        left[0] -= 1
        if left[0] == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.{'0' * 16}").write_bytes(content[:5])
            raise Killed
        write(folder, path, content)

    monkeypatch.setattr(SiteFolder, "write", break_down)
    if not swept:
        monkeypatch.setattr(transactions, "sweep", lambda folder: None)


@pytest.mark.parametrize("swept", [True, False])
@pytest.mark.parametrize("number", range(1, 7))
def test_a_failure_or_a_kill_leaves_the_site_as_it_was(
    sources: Sources, monkeypatch: pytest.MonkeyPatch, number: int, swept: bool
) -> None:
    sources.release("v1.0", WHEEL, SDIST)
    before = sources.contents()
    with monkeypatch.context() as patched:
        killed_at(patched, number, swept=swept)
        with pytest.raises(Killed):  # a journal, four files and the project's file
            sources.run("register", "demo", "1.0", "--host_files")
    if not swept:
        assert sources.run("delete", "other").code == 1  # any command sweeps
    leftovers = {name for name in sources.contents() if not name.startswith(".")} - set(before)
    assert leftovers == set()


def test_a_deletion_that_was_killed_is_completed(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources.release("v1.0", WHEEL)
    assert sources.run("register", "demo", "1.0", "--host_files").code == 0
    with monkeypatch.context() as patched:
        patched.setattr(transactions, "sweep", lambda folder: None)
        assert sources.run("delete", "demo").code == 0
    assert f"packages/demo/{WHEEL[0]}" in sources.contents()
    assert sources.run("delete", "demo").code == 1
    assert sorted(sources.contents()) == ["site.toml"]


def test_a_journal_from_elsewhere_deletes_nothing_of_use(sources: Sources, tmp_path: Path) -> None:
    sources.release("v1.0", WHEEL)
    assert sources.run("register", "demo", "1.0", "--host_files").code == 0
    outside = tmp_path / "demo-1.0.tar.gz"
    outside.write_bytes(b"")
    before = sources.contents()
    entries = [
        ["demo", [WHEEL[0], "../../../demo-1.0.tar.gz"], ["1.0", "../../site"]],
        ["../..", ["demo-1.0.tar.gz"], []],
        ["demo", "x", 3],
        7,
    ]
    for journal in (json.dumps(entries), "[[", "7"):
        (sources.site.root / transactions.JOURNAL).write_text(journal)
        assert sources.run("delete", "other").code == 1
        assert sources.contents() == before
    assert outside.exists()


def test_no_child_process_is_needed_for_a_release(sources: Sources) -> None:
    """So that a workflow can register projects without git and without foreign code."""
    sources.release("v1.0", WHEEL)
    sources.environ["PATH"] = os.devnull
    assert sources.run("register", "demo", "1.0").code == 0


def test_the_errors_are_those_of_the_docstring(sources: Sources) -> None:
    with pytest.raises(NotFound):
        changing.update(sources.site, "demo", changing.Source(tag="1.0"))


def test_what_is_no_name_is_not_described(sources: Sources) -> None:
    ran = sources.run("describe", "../x")
    assert (ran.code, ran.out) == (2, "")
    assert "'../x' is no name of a project" in ran.err
