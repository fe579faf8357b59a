"""Several servers on one ROOT, and several on one storage."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from private_pypi.testing.distributions import make_wheel
from tests.faults.servers import INTERVAL, Server, Servers, assert_tidy, sha256, table
from tests.waiting import eventually

pytestmark = pytest.mark.needs("a server in a process of its own")

# Servers take turns about an interval, and a busy machine takes its time.
SOON = 3 * INTERVAL + 20


def at_once(calls: list[Callable[[], requests.Response]]) -> list[requests.Response]:
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], requests.Response]) -> requests.Response:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


# -- one ROOT ------------------------------------------------------------------------------------

# No synchronisation comes to the help of what should be there at once.
RARELY = table(sync_index_interval=3600)


def test_what_one_process_of_a_root_takes_the_others_show_at_once(
    servers: Servers, root: Path
) -> None:
    one, other = servers.start(root, RARELY), servers.start(root, RARELY)
    expected: dict[str, str] = {}
    for number in range(10):
        filename, content = make_wheel(version=f"{number}")
        (one, other)[number % 2].publish(filename, content)
        expected[filename] = sha256(content)
        assert (other, one)[number % 2].listed() == expected

    yanked = next(iter(expected))
    one.change("POST", f"demo/{yanked}/yank", reason="it burns")
    assert other.yanked()[yanked] == "it burns"
    other.change("DELETE", f"demo/{yanked}/yank")
    assert one.yanked()[yanked] is False

    other.change("DELETE", f"demo/{yanked}")
    del expected[yanked]
    assert one.listed() == expected
    assert one.status(f"/r/mine/simple/demo/{yanked}") == 404
    answer = one.put(*make_wheel(version="0"))
    assert (answer.status_code, "deleted" in answer.reason) == (400, True)


def test_of_64_uploads_of_one_name_one_wins(servers: Servers, root: Path) -> None:
    both = [servers.start(root, RARELY), servers.start(root, RARELY)]
    variants = [make_wheel(files={"data": bytes([variant]) * 50_000}) for variant in range(8)]
    filename = variants[0][0]
    contents = [variants[number % len(variants)][1] for number in range(64)]

    def upload(number: int) -> Callable[[], requests.Response]:
        # Each of the contents goes to both servers.
        return lambda: both[number // len(variants) % 2].put(filename, contents[number])

    answers = at_once([upload(number) for number in range(64)])
    (winner,) = {sha256(both[0].content(filename)), sha256(both[1].content(filename))}
    for answer, content in zip(answers, contents, strict=True):
        expected = 200 if sha256(content) == winner else 409
        assert (answer.status_code, answer.reason[:19]) == (
            expected,
            "File already exists" if expected == 409 else "OK",
        )
    assert Counter(answer.status_code for answer in answers) == {200: 8, 409: 56}
    assert [server.listed() for server in both] == [{filename: winner}] * 2
    assert_tidy(root)


def test_uploads_of_many_names_through_two_processes_are_all_listed(
    servers: Servers, root: Path
) -> None:
    both = [servers.start(root, RARELY), servers.start(root, RARELY)]
    wheels = [make_wheel(f"project-{number % 8}", f"{number}") for number in range(64)]

    def upload(number: int) -> Callable[[], requests.Response]:
        return lambda: both[number % 2].put(*wheels[number])

    answers = at_once([upload(number) for number in range(64)])
    assert Counter(answer.status_code for answer in answers) == {200: 64}
    expected = {filename: sha256(content) for filename, content in wheels}
    assert [server.all_listed() for server in both] == [expected] * 2


def test_a_process_that_starts_leaves_the_temporary_files_of_the_others(
    servers: Servers, root: Path
) -> None:
    one = servers.start(root)
    folder = next(path for path in (root / "tmp").iterdir() if path.is_dir())
    (folder / "upload-of-one").touch()
    other = servers.start(root)
    assert (folder / "upload-of-one").exists()
    one.kill()
    assert other.stop() == 0
    servers.start(root)
    assert not folder.exists()


# -- one storage ---------------------------------------------------------------------------------


def two_roots(servers: Servers, tmp_path: Path) -> tuple[Server, Server, Path]:
    storage = tmp_path / "shared"
    storage.mkdir()
    config = table(path=storage)
    one, other = (servers.start(tmp_path / name, config) for name in ("one", "other"))
    return one, other, storage


def test_servers_of_one_storage_follow_each_other(servers: Servers, tmp_path: Path) -> None:
    one, other, storage = two_roots(servers, tmp_path)
    expected = {}
    for server, version in ((one, "1"), (other, "2")):
        filename, content = make_wheel(version=version)
        server.publish(filename, content)
        expected[filename] = sha256(content)
    for server in (one, other):
        eventually(lambda server=server: server.listed() == expected, "both files", within=SOON)

    first, second = expected
    one.change("POST", f"demo/{first}/yank", reason="it burns")
    eventually(lambda: other.yanked()[first] == "it burns", "the yank", within=SOON)
    other.change("DELETE", f"demo/{first}/yank")
    eventually(lambda: one.yanked()[first] is False, "the end of the yank", within=SOON)

    other.change("DELETE", f"demo/{second}")
    eventually(lambda: list(one.listed()) == [first], "the delete", within=SOON)
    for path in (one.root, other.root):
        assert_tidy(path, storage)


def test_a_name_that_one_server_burnt_no_other_takes(servers: Servers, tmp_path: Path) -> None:
    storage = tmp_path / "shared"
    storage.mkdir()
    rarely = table(path=storage, sync_index_interval=3600)
    one, other = (servers.start(tmp_path / name, rarely) for name in ("one", "other"))
    filename, content = make_wheel()
    one.publish(filename, content)
    one.change("DELETE", f"demo/{filename}")
    for wheel in (make_wheel(), make_wheel(files={"other.py": b""})):
        answer = other.put(*wheel)
        assert (answer.status_code, "deleted" in answer.reason) == (400, True)
    third = servers.start(tmp_path / "third", rarely)  # whose ROOT never saw the file
    assert third.put(filename, content).status_code == 400
    assert not (storage / "demo" / filename).exists()


def test_of_parallel_uploads_through_two_roots_one_wins(servers: Servers, tmp_path: Path) -> None:
    one, other, storage = two_roots(servers, tmp_path)
    variants = [make_wheel(files={"data": bytes([variant]) * 50_000}) for variant in range(2)]
    filename = variants[0][0]

    def upload(number: int) -> Callable[[], requests.Response]:
        server, content = (one, other)[number % 2], variants[number // 2 % 2][1]
        return lambda: server.put(filename, content)

    answers = at_once([upload(number) for number in range(16)])
    assert Counter(answer.status_code for answer in answers) == {200: 8, 409: 8}
    winner = answers[0].status_code == 409  # the first content lost
    for server in (one, other):
        assert server.content(filename) == variants[winner][1]
    for path in (one.root, other.root):
        assert_tidy(path, storage)
