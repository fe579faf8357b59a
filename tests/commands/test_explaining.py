"""`explain`: what a server tells, what the page of another index tells, and the exit code."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from private_pypi.testing.distributions import make_sdist, make_wheel
from tests.commands.running import Run
from tests.faults.servers import servers_below, table
from tests.mirror.serving import Reply, running_upstream
from tests.mirror.upstream import Upstream, running

pytestmark = pytest.mark.needs("a server in a process of its own")

NOW = datetime.now(UTC)


def ago(days: float) -> str:
    return (NOW - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


def fill(index: Upstream) -> None:
    index.add(*make_wheel("demo", "1.0", requires_python=">=3.12"), upload_time=ago(300))
    index.add(*make_sdist("demo", "1.0"), upload_time=ago(300))
    index.add(*make_wheel("demo", "1.1"), upload_time=ago(200), yanked="broken")
    index.add(*make_wheel("demo", "2.0"), upload_time=ago(1))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a mirror, `pypi`."""
    folder = tmp_path_factory.mktemp("explaining")
    with running() as index, servers_below(folder) as servers:
        fill(index)
        config = table("mine") + (
            f'[pypi]\ntype = "mirror"\nindex_url = "{index.index_url}"\n'
            'read_secret = "r"\ncooldown = "7 days"\n'
        )
        yield servers.start(folder / "root", config).url


@pytest.fixture
def other() -> Iterator[Upstream]:
    """An index that is no server of this project."""
    with running() as index:
        fill(index)
        yield index


def at(server: str, path: str = "/r/pypi/simple/", secret: str = "r") -> str:
    return server.replace("://", f"://pypi:{secret}@") + path


def test_a_server_tells_what_it_hides(run: Run, server: str) -> None:
    ended = run("explain", at(server), "Demo", "--python", "3.11")
    assert (ended.code, ended.err) == (0, "")
    blocks = ended.out.split("\n\n")
    assert blocks[0] == "demo in pypi"
    assert blocks[1].startswith(
        "Not served: 1 file\n  demo-2.0-py3-none-any.whl\n      cooldown: uploaded "
    )
    assert blocks[2:] == [
        "Served, and not for Python 3.11: 1 file\n"
        "  demo-1.0-py3-none-any.whl\n"
        "      it requires Python >=3.12, and this is 3.11",
        "Served for Python 3.11: 2 files\n"
        "  demo-1.1-py3-none-any.whl\n"
        "      yanked: broken\n"
        "  demo-1.0.tar.gz\n",
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["demo"], 0),
        (["demo", "2.0"], 1),  # in the cooldown
        (["demo", "1.1"], 0),  # yanked, and asked for
        (["demo", "==1.1"], 0),
        (["demo", ">=1.1"], 1),  # yanked or in the cooldown
        (["demo", "9"], 1),
        (["nowhere"], 1),
        (["demo", "1.0", "--platform", "win_amd64"], 0),
    ],
)
def test_the_exit_code_tells_whether_something_can_be_installed(
    run: Run, server: str, words: list[str], code: int
) -> None:
    ended = run("explain", at(server), *words)
    assert (ended.code, ended.err) == (code, "")


def test_of_many_files_the_newest_are_listed(run: Run, other: Upstream, server: str) -> None:
    for number in range(30):
        other.add(*make_wheel("demo", f"0.{number}"), upload_time=ago(300))
    ended = run("explain", other.index_url, "demo", "<1")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.partition("\n\n")[2] == (
        "Not served: 0 files\n"
        "\n"
        "Served: 30 files\n"
        "  served: 30 files of 0.0 to 0.29\n"
        + "".join(f"  demo-0.{number}-py3-none-any.whl\n" for number in range(29, 24, -1))
        + "  … and 25 more\n"
        "\n"
        "Of each rule or reason, only the newest files are listed; --all lists every file.\n"
    )
    every = run("explain", other.index_url, "demo", "<1", "--all").out
    assert every.count("  demo-0.") == 30
    assert "--all" not in every
    assert run("explain", at(server), "demo", "--all").out == run("explain", at(server), "demo").out


def test_an_index_at_an_instant(run: Run, server: str) -> None:
    ended = run("explain", at(server, f"/r/pypi/at/{ago(250)[:10]}/simple/"), "demo", ">1.0")
    assert ended.code == 1
    assert "as_of: uploaded" in ended.out


def test_the_address_of_the_repository_stands_for_its_index(run: Run, server: str) -> None:
    ended = run("explain", at(server, "/r/pypi/"), "demo")
    assert (ended.code, ended.out) == (0, run("explain", at(server), "demo").out)


def test_a_wrong_secret_is_told(run: Run, server: str) -> None:
    ended = run("explain", at(server, secret="wrong"), "demo")
    assert (ended.code, ended.out) == (1, "")
    assert "the server answered 401" in ended.err
    environ = {"PRIVATE_PYPI_USERNAME": "pypi", "PRIVATE_PYPI_PASSWORD": "r"}
    assert run("explain", f"{server}/r/pypi/simple/", "demo", environ=environ).code == 0


@pytest.mark.parametrize("format_", ["json", "html"])
def test_of_another_index_the_page_is_explained(run: Run, other: Upstream, format_: str) -> None:
    other.format = format_  # type: ignore[assignment]
    other.add("demo-0.1.exe", b"x", project="demo")
    ended = run("explain", other.index_url, "demo", "--python=3.11")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        f"demo in {other.index_url}\n"
        "- this index does not tell what it hides, so only the page of the project is explained\n"
        "\n"
        "Not served: 0 files\n"
        "\n"
        "Served, and not for Python 3.11: 2 files\n"
        "  demo-1.0-py3-none-any.whl\n"
        "      it requires Python >=3.12, and this is 3.11\n"
        "  demo-0.1.exe\n"
        "      invalid distribution filename 'demo-0.1.exe': the filename must end with .whl, "
        ".tar.gz or .zip\n"
        "\n"
        "Served for Python 3.11: 3 files\n"
        "  demo-2.0-py3-none-any.whl\n"
        "  demo-1.0.tar.gz\n"
        "  demo-1.1-py3-none-any.whl\n"
        "      yanked: broken\n"
    )
    assert run("explain", other.index_url, "demo", "1.0", "--python=3.11").code == 0
    assert run("explain", other.index_url, "demo", ">1,<2").code == 1  # yanked
    assert run("explain", other.index_url, "demo", "3.0").code == 1


def test_a_project_that_another_index_does_not_have(run: Run, other: Upstream) -> None:
    ended = run("explain", other.index_url, "nowhere")
    assert (ended.code, ended.err) == (1, "")
    assert "- the index has no such project\n" in ended.out


@pytest.mark.parametrize("fault", ["500", "cut", "refused"])
def test_trouble_of_another_index_is_no_absence(run: Run, other: Upstream, fault: str) -> None:
    other.fail("page", fault)
    ended = run("explain", other.index_url, "demo")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: ")


@pytest.mark.parametrize(
    "answer",
    [
        Reply(b"<html>Welcome</html>", "text/html"),
        Reply(b'{"files": [{}]}', "application/json"),
        Reply(b'{"files": [], "project": 3, "repository": "", "is_found": true}'),
        Reply(b"[" * 100_000, "application/json"),
        Reply(b"no", "text/plain", 403),
        Reply(b"no", "text/plain", 400),
    ],
)
def test_what_is_no_explanation_is_not_taken_for_one(run: Run, answer: Reply) -> None:
    with running_upstream() as upstream:
        upstream.answers["/explain/demo"] = answer
        upstream.answers["/simple/demo/"] = Reply(
            b'<a href="demo-1.0.zip">demo-1.0.zip</a>', "text/html"
        )
        ended = run("explain", upstream.index_url, "demo")
    assert (ended.code, ended.err) == (0, "")
    assert "  demo-1.0.zip\n" in ended.out


@pytest.mark.parametrize(
    "page",
    [
        Reply(b"%PDF", "application/pdf"),
        Reply(b"{"),
        Reply(b"[" * 100_000),
        Reply(b'{"meta": {"api-version": "9.0"}, "name": "demo", "files": []}'),
    ],
)
def test_what_is_no_page_of_a_project_is_an_error(run: Run, page: Reply) -> None:
    with running_upstream() as upstream:
        upstream.answers["/simple/demo/"] = page
        ended = run("explain", upstream.index_url, "demo")
    assert (ended.code, ended.out) == (1, "")
    assert "is not the page of a project" in ended.err


def test_credentials_do_not_follow_a_redirect_to_another_place(run: Run, tmp_path: Path) -> None:
    with running_upstream() as upstream, running_upstream() as elsewhere:
        there = elsewhere.origin.replace("127.0.0.1", "localhost")
        upstream.answers["/simple/demo/"] = Reply(
            status=302, headers={"Location": f"{there}/simple/demo/"}
        )
        elsewhere.answers["/simple/demo/"] = Reply(
            b'<a href="demo-1.0.zip">demo-1.0.zip</a>', "text/html"
        )
        ended = run("explain", at(upstream.origin, "/simple/"), "demo")
        assert f"the page is at another address: {there}/simple/demo/" in ended.out
        assert ended.code == 0
        assert ["authorization" in each.headers for each in upstream.asked] == [True, True]
        assert ["authorization" in each.headers for each in elsewhere.asked] == [False]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["---"], "PROJECT"),
        (["demo", "newest"], "it must be like 1.0 or '>=1,<2'"),
        (["demo", "--python", "3"], "must be like 3.11"),
        (["demo", "--platform", "linux_x86_64"], "manylinux_2_28_x86_64"),
        (["demo", "--platfrom", "win32"], "did you mean --platform?"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_asked(
    run: Run, other: Upstream, words: list[str], sentence: str
) -> None:
    ended = run("explain", other.index_url, *words)
    assert (ended.code, ended.out) == (2, "")
    assert sentence in ended.err
    assert other.count() == 0
