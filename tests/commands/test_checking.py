"""The command `check`: private names that exist on the public index too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from private_pypi.testing.distributions import make_wheel
from tests.commands.running import Ended, Run
from tests.mirror.upstream import Upstream, running

Make = Callable[..., Path]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running() as index:
        yield index


@pytest.fixture
def make(tmp_path: Path, upstream: Upstream) -> Make:
    """Write a configuration with `mine`, the mirror `pypi` and the group `all`; its path."""

    def write(*, mine: str = "", pypi: str = "", group: str = "", more: str = "") -> Path:
        (tmp_path / "mine").mkdir(exist_ok=True)
        path = tmp_path / "config.toml"
        path.write_text(
            f'[mine]\ntype = "file_system"\npath = "mine"\nread_secret = "r"\n{mine}\n'
            f'[pypi]\ntype = "mirror"\nindex_url = {json.dumps(upstream.index_url)}\n{pypi}\n'
            f'[all]\ntype = "group"\nmembers = ["mine", "pypi"]\n{group}\n{more}'
        )
        return path

    return write


@pytest.fixture
def publish(tmp_path: Path) -> Callable[[str, str], None]:
    def put(project: str, version: str) -> None:
        filename, content = make_wheel(project, version)
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / filename).write_bytes(content)

    return put


def lines(ended: Ended) -> list[str]:
    return ended.out.splitlines()[1:]


def test_a_private_name_that_is_public_too_is_a_warning_with_both_versions(
    run: Run, make: Make, publish: Callable[[str, str], None], upstream: Upstream
) -> None:
    for version in ("1.9", "1.10"):
        publish("acme-core", version)
    publish("acme-other", "1.0")
    for version in ("9.0", "99.0rc1", "10.0"):
        upstream.add(*make_wheel("acme-core", version))
    upstream.add(*make_wheel("left", "1.0"))
    ended = run("check", "all", "--config", make())
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "all: compared 2 private names and 0 claimed patterns with pypi\n"
        "warning: acme-core: mine has 1.10, and pypi has 99.0rc1, which is higher\n"
    )
    # The list once, and the one page that is needed.
    assert (upstream.count("list"), upstream.count("page")) == (1, 1)
    assert upstream.count("file") == upstream.count("metadata") == 0


def test_the_configuration_in_root_is_read_without_config(
    run: Run, tmp_path: Path, upstream: Upstream
) -> None:
    root = tmp_path / "server"
    (root / "cache/mine/storage").mkdir(parents=True)
    ended = run("check", "all", "--root", str(root))
    assert (ended.code, f"there is no file '{root / 'config.toml'}'" in ended.err) == (2, True)
    upstream.add(*make_wheel("acme-core", "2.0"))
    (root / "config.toml").write_text(
        '[mine]\ntype = "file_system"\nwrite_secret = "w"\nclaimed = ["acme-*"]\n'
        f'[pypi]\ntype = "mirror"\nindex_url = "{upstream.index_url}"\n'
        '[all]\ntype = "group"\nmembers = ["mine", "pypi"]\n'
    )
    ended = run("check", "all", "--root", str(root))
    assert (ended.code, ended.err) == (0, "")
    assert "warning: claimed acme-*: pypi has acme-core\n" in ended.out
    ended = run("check", "all")
    assert (ended.code, "missing --config, or --root" in ended.err) == (2, True)


def test_names_that_are_free_are_told_as_compared(
    run: Run, make: Make, publish: Callable[[str, str], None], upstream: Upstream
) -> None:
    publish("acme-core", "1.0")
    upstream.add(*make_wheel("left", "1.0"))
    ended = run("check", "all", "--config", make(mine='claimed = ["acme-*"]'))
    assert ended == Ended(
        0,
        "all: compared 1 private name and 1 claimed pattern with pypi; nothing was found\n",
        "",
    )


def test_claimed_patterns_are_compared_and_names_are_not_told_twice(
    run: Run, make: Make, publish: Callable[[str, str], None], upstream: Upstream
) -> None:
    publish("acme-core", "2.0")
    for name in ("acme-core", "acme-web", "acmeish", "tool-x"):
        upstream.add(*make_wheel(name, "1.0"))
    config = make(mine='claimed = ["acme-*"]', group='claimed = ["tool-[!y]"]')
    ended = run("check", "all", "--config", config)
    assert ended.code == 0
    assert lines(ended) == [
        "warning: acme-core: mine has 2.0, and pypi has 1.0",
        "warning: claimed tool-[!y]: pypi has tool-x",
        "warning: claimed acme-*: pypi has acme-web",
    ]


@pytest.mark.parametrize(
    ("tables", "place"),
    [
        ({"group": 'mix = ["acme-core"]'}, "/r/all/"),
        ({"pypi": 'read_secret = "x"'}, "/r/pypi/"),
        ({"pypi": "anonymous_read = true"}, "/r/pypi/"),
    ],
)
def test_a_name_that_this_server_may_serve_publicly_is_no_mere_warning(
    run: Run,
    make: Make,
    publish: Callable[[str, str], None],
    upstream: Upstream,
    tables: dict[str, str],
    place: str,
) -> None:
    publish("acme-core", "1.0")
    upstream.add(*make_wheel("acme-core", "0.1"))
    ended = run("check", "all", "--config", make(**tables))
    assert (ended.code, ended.err) == (1, "")
    assert lines(ended) == [
        "public: acme-core: mine has 1.0, and pypi has 0.1; the public project may be installed "
        f"from {place}"
    ]


@pytest.mark.parametrize("key", ['except = ["acme-*"]', 'only = ["left"]', 'deny = ["acme-core"]'])
def test_what_a_mirror_never_serves_is_a_warning_even_if_everybody_may_read_it(
    run: Run, make: Make, publish: Callable[[str, str], None], upstream: Upstream, key: str
) -> None:
    publish("acme-core", "1.0")
    upstream.add(*make_wheel("acme-core", "2.0"))
    ended = run("check", "all", "--config", make(pypi=f"anonymous_read = true\n{key}"))
    assert ended.code == 0
    assert lines(ended) == ["warning: acme-core: mine has 1.0, and pypi has 2.0, which is higher"]


def test_a_young_public_release_is_seen(
    run: Run, make: Make, publish: Callable[[str, str], None], upstream: Upstream
) -> None:
    publish("acme-core", "1.0")
    upstream.add(*make_wheel("acme-core", "2.0"))
    ended = run("check", "all", "--config", make(pypi='cooldown = "5000 days"'))
    assert "pypi has 2.0, which is higher" in ended.out


def test_a_repository_is_compared_with_the_index_that_is_named(
    run: Run,
    make: Make,
    publish: Callable[[str, str], None],
    upstream: Upstream,
    tmp_path: Path,
) -> None:
    publish("acme-core", "1.0")
    upstream.add(*make_wheel("acme-core", "2.0"))
    config = make(pypi="anonymous_read = true")
    root = tmp_path / "root"
    root.mkdir()
    words = ("check", "mine", "--config", config, "--index_url", upstream.index_url)
    ended = run(*words, "--root", root)
    assert ended.code == 0
    assert ended.out == (
        f"mine: compared 1 private name and 0 claimed patterns with {upstream.index_url}\n"
        f"warning: acme-core: mine has 1.0, and {upstream.index_url} has 2.0, which is higher\n"
    )
    assert [path.name for path in (root / "index").iterdir()] == ["mine"]  # no trace of the other


def test_a_deleted_project_is_still_private(
    run: Run,
    make: Make,
    publish: Callable[[str, str], None],
    upstream: Upstream,
    tmp_path: Path,
) -> None:
    publish("acme-core", "1.0")
    upstream.add(*make_wheel("acme-core", "2.0"))
    root = tmp_path / "root"
    root.mkdir()
    words = ("check", "all", "--config", make(), "--root", root)
    run(*words)
    for path in (tmp_path / "mine").iterdir():
        if path.is_file():
            path.unlink()
    ended = run(*words)
    assert lines(ended) == ["warning: acme-core: mine has no files any more, and pypi has 2.0"]
    assert (upstream.count("list"), upstream.count("page")) == (1, 1)  # ROOT has both


@pytest.mark.parametrize("kind", ["list", "page"])
@pytest.mark.parametrize("fault", ["502", "404"])
def test_trouble_is_never_no_collision(
    run: Run,
    make: Make,
    publish: Callable[[str, str], None],
    upstream: Upstream,
    kind: str,
    fault: str,
) -> None:
    publish("acme-core", "1.0")
    upstream.add(*make_wheel("acme-core", "2.0"))
    upstream.fail(kind, fault)  # type: ignore[arg-type]
    ended = run("check", "all", "--config", make())
    if (kind, fault) == ("page", "404"):  # the project was deleted since the list was made
        assert ended.code == 0
        return
    assert ended.code == 2
    assert "nothing was found" not in ended.out
    assert ended.err.startswith("error: ")


def test_no_list_is_read_when_there_is_nothing_to_compare(
    run: Run, make: Make, upstream: Upstream
) -> None:
    ended = run("check", "all", "--config", make())
    expected = "all: compared 0 private names and 0 claimed patterns with pypi; nothing was found\n"
    assert ended == Ended(0, expected, "")
    assert upstream.count("list") == 0


def test_trouble_of_the_private_storage_is_told(run: Run, make: Make, tmp_path: Path) -> None:
    config = make()
    (tmp_path / "mine").rmdir()
    ended = run("check", "all", "--config", config)
    assert (ended.code, ended.out) == (2, "")
    assert str(tmp_path / "mine") in ended.err


def test_a_group_in_a_group_is_looked_into(
    run: Run, make: Make, publish: Callable[[str, str], None], upstream: Upstream
) -> None:
    publish("acme-core", "1.0")
    upstream.add(*make_wheel("acme-core", "2.0"))
    more = '[outer]\ntype = "group"\nmembers = ["all"]\n'
    ended = run("check", "outer", "--config", make(more=more))
    assert ended.code == 0
    assert lines(ended) == ["warning: acme-core: mine has 1.0, and pypi has 2.0, which is higher"]


def test_tables_that_are_not_needed_are_not_read(run: Run, make: Make) -> None:
    more = '[acme]\ntype = "file_system"\npath = "acme"\nread_secret_env = "NOT_SET"\n'
    ended = run("check", "all", "--config", make(more=more))
    assert (ended.code, ended.err) == (0, "")


def test_a_mirror_has_no_private_names(run: Run, make: Make) -> None:
    ended = run("check", "pypi", "--config", make())
    assert ended.code == 2
    assert "'pypi' is a mirror, which has no private names" in ended.err


def test_an_unknown_name_is_told(run: Run, make: Make) -> None:
    ended = run("check", "al", "--config", make())
    assert ended.code == 2
    assert "there is no repository 'al'; did you mean 'all'?" in ended.err


def test_a_storage_that_needs_a_secret_says_so(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[acme]\ntype = "github"\nowner = "acme"\nrepo = "packages"\n')
    ended = run("check", "acme", "--config", path)
    assert ended.code == 2
    assert "the storage of 'acme' needs a secret that may read: give --admin_secret" in ended.err
