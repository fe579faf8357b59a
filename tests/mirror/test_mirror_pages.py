"""Pages and the list of projects of a mirror: when the upstream is asked, and what they say."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from private_pypi.distributions.filenames import normalize
from private_pypi.errors import BackendUnavailable
from private_pypi.index import connections
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web import create_app
from tests.faults.servers import table
from tests.mirror.mirrors import Asking, Clock, Mirrored, cached, forget_trouble, mirror_table
from tests.mirror.upstream import JSON, Upstream
from tests.waiting import eventually
from tests.web.conftest import Deploy, basic, publish

HOUR = 3600  # for which a page is believed here; and it may be shown for an hour more
WHEEL, SDIST = make_wheel("demo", "1.0"), make_sdist("demo", "0.9")


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_trouble(monkeypatch)


# -- asking --------------------------------------------------------------------------------------


def test_a_page_is_believed_and_then_revalidated(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    index.add(*WHEEL)
    asking = mirrored()
    first = asking.page()
    clock.go(HOUR - 1)
    second = asking.page()
    assert index.lines() == ["GET /simple/demo/"]
    assert asking.page(If_None_Match=first.headers["ETag"]).status_code == 304
    clock.go(2)
    third = asking.page()
    assert [each.status for each in index.asked] == [200, 304]
    asking.page()
    assert len(index.asked) == 2
    for answer in (second, third):
        assert answer.data == first.data
        for name in ("ETag", "X-PyPI-Last-Serial"):
            assert answer.headers[name] == first.headers[name]
        assert "Cache-Status" not in answer.headers


def test_a_page_without_validator_costs_its_transfer_and_keeps_its_serial(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    index.has_etags = False
    index.add(*WHEEL)
    asking = mirrored()
    first = asking.page()
    clock.go(HOUR + 1)
    second = asking.page()
    assert [each.status for each in index.asked] == [200, 200]
    assert second.headers["X-PyPI-Last-Serial"] == first.headers["X-PyPI-Last-Serial"]


def test_a_page_is_shown_for_stale_for_while_the_upstream_is_down(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    index.add(*WHEEL)
    asking = mirrored(stale_for=600)
    before = asking.page()
    index.fail(None, "refused")
    clock.go(HOUR + 300)
    answer = asking.page()
    assert (answer.status_code, answer.data) == (200, before.data)
    assert answer.headers["Cache-Status"].startswith("private-pypi; hit; ttl=-39")
    assert asking.file(WHEEL[0]).status_code == 503  # is known, and not here
    clock.go(299)
    assert asking.page().status_code == 200
    clock.go(2)
    answer = asking.page()
    assert answer.status_code == 503
    assert asking.file(WHEEL[0]).status_code == 503
    state = asking.mirror.state()
    assert state.ready
    assert state.error is not None
    index.heal()
    assert asking.page().data == before.data
    assert asking.mirror.state().error is None


def test_an_absence_is_believed_for_half_a_minute(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    asking = mirrored()
    assert asking.page().status_code == 404
    index.add(*WHEEL)
    clock.go(29)
    assert asking.page().status_code == 404
    assert asking.file(WHEEL[0]).status_code == 404
    assert index.count("page") == 1
    clock.go(2)
    assert set(asking.files()) == {WHEEL[0]}
    # And it is not believed at all when it is old and nobody can be asked.
    index.projects.clear()
    clock.go(HOUR + 1)
    assert asking.page().status_code == 404
    index.fail(None, "refused")
    clock.go(31)
    assert asking.page().status_code == 503


def test_a_file_that_a_known_page_lacks_is_asked_for_once_in_half_a_minute(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    index.add(*WHEEL)
    asking = mirrored()
    assert set(asking.files()) == {WHEEL[0]}
    index.add(*SDIST)
    assert asking.file(SDIST[0]).status_code == 404
    clock.go(31)
    assert asking.file(SDIST[0]).data == SDIST[1]
    index.forget()
    clock.go(31)
    assert [asking.file("demo-7.tar.gz").status_code for _ in range(3)] == [404] * 3
    assert index.lines() == ["GET /simple/demo/"]
    index.fail("page", "502")
    clock.go(31)
    assert asking.file("demo-7.tar.gz").status_code == 503
    assert asking.file(SDIST[0]).data == SDIST[1]


def test_concurrent_lookups_cost_one_request(index: Upstream, mirrored: Mirrored) -> None:
    index.add(*WHEEL)
    asking = mirrored()
    with index.hold("page") as hold, ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(asking.page) for _ in range(20)]
        hold.until()
        hold.release()
        assert {answer.result().status_code for answer in answers} == {200}
    assert index.lines() == ["GET /simple/demo/"]


def test_a_clock_that_was_set_back_makes_a_page_no_younger(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    index.add(*WHEEL)
    asking = mirrored()
    clock.go(10 * HOUR)
    asking.page()
    clock.go(-9 * HOUR)
    index.add(*SDIST)
    assert set(asking.files()) == {WHEEL[0], SDIST[0]}
    assert index.count("page") == 2
    asking.page()
    assert index.count("page") == 2
    clock.go(-HOUR)
    index.fail(None, "refused")
    assert asking.page().status_code == 200


def test_names_that_the_mirror_may_not_have_cost_nothing(
    index: Upstream, mirrored: Mirrored
) -> None:
    for name in ("demo", "acme-one", "acme-two", "other"):
        index.add(*make_wheel(name, "1.0"))
    only = mirrored(**{"only": ["Acme_*", "demo"], "except": ["*-two"]})
    statuses = {name: only.page(name).status_code for name in (*index.projects,)}
    assert statuses == {"demo": 200, "acme-one": 200, "acme-two": 404, "other": 404}
    assert only.file("other-1.0-py3-none-any.whl", "other").status_code == 404
    assert index.lines() == ["GET /simple/demo/", "GET /simple/acme-one/"]
    assert only.projects() == ["acme-one", "demo"]
    search = only.mirror.search
    assert search([], only.mirror.public_secret(), limit=9, offset=0)[0] == 2
    total, lines = search(["acme"], only.mirror.public_secret(), limit=9, offset=0)
    assert (total, [line.name for line in lines]) == (1, ["acme-one"])


# -- offline -------------------------------------------------------------------------------------


def test_an_offline_mirror_has_what_is_here(
    index: Upstream, deploy: Deploy, clock: Clock, tmp_path: Path
) -> None:
    index.add(*WHEEL)
    index.add(*SDIST)
    index.add(*make_wheel("known", "1.0"))
    index.add(*make_wheel("unknown", "1.0"))
    config = mirror_table(index.index_url)
    online = Asking(deploy(config))
    for name in ("demo", "known", "missing"):
        online.page(name)
    assert online.file(WHEEL[0]).data == WHEEL[1]
    eventually(lambda: cached(online.deployment.root), "it is kept")
    online.deployment.close()
    index.forget()
    clock.go(9 * HOUR)
    offline = Asking(deploy(mirror_table(index.index_url, offline=True)))
    assert set(offline.files()) == {WHEEL[0]}
    assert offline.file(WHEEL[0]).data == WHEEL[1]
    metadata = offline.file(f"{WHEEL[0]}.metadata")
    assert metadata.status_code == 200
    hidden = offline.file(SDIST[0])
    assert hidden.status_code == 404
    assert "offline" in hidden.text
    assert offline.files("known") == {}
    assert offline.page("missing").status_code == 404
    assert offline.page("unknown").status_code == 503
    assert offline.get("simple/").status_code == 503
    assert index.lines() == []
    offline.deployment.close()
    online = Asking(deploy(config))
    assert online.projects() == ["demo", "known", "unknown"]
    online.deployment.close()
    offline = Asking(deploy(mirror_table(index.index_url, offline=True)))
    clock.go(900 * HOUR)
    assert offline.projects() == ["demo", "known", "unknown"]
    assert offline.page("never").status_code == 404  # the list does not have it
    assert offline.page("unknown").status_code == 503


# -- changes of the upstream ---------------------------------------------------------------------


def test_changes_of_the_upstream(index: Upstream, mirrored: Mirrored, clock: Clock) -> None:
    index.add(*WHEEL)
    asking = mirrored()
    serials = []

    def after_change() -> dict[str, object]:
        clock.go(HOUR + 1)
        answer = asking.page()
        serials.append(int(answer.headers["X-PyPI-Last-Serial"]))
        page: dict[str, object] = answer.get_json(force=True)
        page["by name"] = {file["filename"]: file for file in page["files"]}  # type: ignore[attr-defined]
        return page

    def yanked() -> object:
        return after_change()["by name"][WHEEL[0]]["yanked"]  # type: ignore[index]

    assert yanked() is False
    index.add(*SDIST)
    assert list(after_change()["by name"]) == [SDIST[0], WHEEL[0]]  # type: ignore[call-overload]
    index.change(WHEEL[0], yanked="it burns")
    assert yanked() == "it burns"
    index.change(WHEEL[0], yanked=True)
    assert yanked() is True
    index.change(WHEEL[0], yanked=False)
    assert yanked() is False
    index.remove(SDIST[0])
    assert list(after_change()["by name"]) == [WHEEL[0]]  # type: ignore[call-overload]
    assert asking.file(SDIST[0]).status_code == 404
    index.projects["demo"].status, index.projects["demo"].reason = "archived", "no time"
    page = after_change()
    assert page["project-status"] == {"status": "archived", "reason": "no time"}
    assert list(page["by name"]) == [WHEEL[0]]  # type: ignore[call-overload]
    index.projects["demo"].status, index.projects["demo"].reason = "quarantined", "malware"
    page = after_change()
    assert page["project-status"] == {"status": "quarantined", "reason": "malware"}
    assert page["files"] == []
    for name in (WHEEL[0], f"{WHEEL[0]}.metadata"):
        refused = asking.file(name)
        assert refused.status_code == 404
        assert "quarantined" in refused.text
    index.projects["demo"].status = None
    assert list(after_change()["by name"]) == [WHEEL[0]]  # type: ignore[call-overload]
    assert serials == sorted(set(serials))


def test_a_project_that_was_absent_for_a_while_is_as_before(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    index.has_hashes = False
    index.add(*WHEEL)
    asking = mirrored()
    asking.file(WHEEL[0])
    before = asking.mirror.index.files("demo")
    assert before[0].sha256 is not None
    gone = index.projects.pop("demo")
    clock.go(HOUR + 1)
    assert asking.page().status_code == 404
    assert asking.file(WHEEL[0]).status_code == 404
    index.projects["demo"] = gone
    clock.go(31)
    assert set(asking.files()) == {WHEEL[0]}
    assert asking.mirror.index.files("demo") == before


# -- what the pages say --------------------------------------------------------------------------


def test_a_page_in_json_is_passed_on(index: Upstream, mirrored: Mirrored) -> None:
    index.add(
        *make_wheel("demo", "1.0", requires_python=">=3.9"),
        upload_time="2026-03-04T05:06:07.250000Z",
        provenance="https://acme.example/demo.provenance",
        yanked="it burns",
    )
    file = mirrored().files()[WHEEL[0]]
    published = index.projects["demo"].files[WHEEL[0]]
    assert file["hashes"] == published.hashes
    assert file["size"] == published.size
    assert file["upload-time"] == "2026-03-04T05:06:07.250000Z"
    assert file["requires-python"] == ">=3.9"
    assert file["yanked"] == "it burns"
    assert file["provenance"] == "https://acme.example/demo.provenance"
    assert file["core-metadata"]["sha256"]


def test_a_page_in_html_without_hashes(index: Upstream, mirrored: Mirrored) -> None:
    index.format, index.has_hashes, index.has_attributes = "html", False, False
    index.add(*WHEEL)
    index.add(*SDIST)
    files = mirrored().files()
    assert files[WHEEL[0]]["hashes"] == files[SDIST[0]]["hashes"] == {}
    assert "size" not in files[WHEEL[0]]
    assert "upload-time" not in files[WHEEL[0]]  # ours is never published (protocol 14)
    assert files[WHEEL[0]]["core-metadata"] is True  # read from the wheel
    assert not files[SDIST[0]].get("core-metadata")


def test_names_and_filenames_that_are_odd(index: Upstream, mirrored: Mirrored) -> None:
    odd = make_sdist("demo", "2.0")
    index.add("Demo-2.0.tar.gz", odd[1], project="demo")
    index.add("torch-2.5.1+cu124-cp311-cp311-linux_x86_64.whl", b"?", project="demo")
    index.add("notes.txt", b"?", project="demo")
    index.add("demo-1.0.exe", b"?", project="demo")
    index.more_names = ["Not_Normal", "-bad-", "b<script>", "", "ok.ok", "\u00fc"]
    asking = mirrored()
    assert set(asking.files()) == {"Demo-2.0.tar.gz"}
    assert asking.file("Demo-2.0.tar.gz").data == odd[1]
    assert asking.file("demo-2.0.tar.gz").status_code == 404
    mirror = asking.mirror
    explained = mirror.explain(normalize("demo"), mirror.public_secret())
    hidden = {each.filename: each.rule for each in explained.hidden}
    assert hidden.keys() == {
        "torch-2.5.1+cu124-cp311-cp311-linux_x86_64.whl",
        "notes.txt",
        "demo-1.0.exe",
    }
    assert asking.projects() == ["demo", "not-normal", "ok-ok"]
    assert asking.page("DEMO").status_code in (301, 302, 308)


def test_a_page_of_pytorch_has_local_versions_and_files_on_another_host(
    index: Upstream, mirrored: Mirrored
) -> None:
    index.format, index.has_attributes, index.files_elsewhere = "html", False, True
    wheel = make_wheel("torch", "2.5.1+cu124")
    index.add(*wheel)
    asking = mirrored()
    ((name, file),) = asking.files("torch").items()
    assert name == wheel[0]
    assert file["hashes"].keys() == {"sha256"}
    assert asking.file(name, "torch").data == wheel[1]
    escaped = name.replace("+", "%2B")
    assert asking.file(escaped, "torch").data == wheel[1]


def test_an_upstream_that_is_a_folder(mirrored: Mirrored, tmp_path: Path) -> None:
    folder = tmp_path / "static"
    (folder / "demo").mkdir(parents=True)
    (folder / "demo" / WHEEL[0]).write_bytes(WHEEL[1])
    (folder / "demo" / "index.html").write_text(
        f"<!DOCTYPE html><html><body><a href='{WHEEL[0]}'>{WHEEL[0]}</a></body></html>"
    )
    (folder / "index.html").write_text(
        "<!DOCTYPE html><html><body><a href='demo/'>demo</a></body></html>"
    )
    asking = mirrored(folder.as_uri())
    assert asking.projects() == ["demo"]
    assert asking.files()[WHEEL[0]]["core-metadata"] is True
    assert asking.file(f"{WHEEL[0]}.metadata").data.startswith(b"Metadata-Version")
    assert asking.file(WHEEL[0]).data == WHEEL[1]
    assert asking.files()[WHEEL[0]]["hashes"].keys() == {"sha256"}
    assert asking.page("other").status_code == 404


# -- the local index -----------------------------------------------------------------------------


def test_a_local_index_that_is_damaged_is_replaced(
    index: Upstream, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add(*WHEEL)
    config = mirror_table(index.index_url)
    asking = Asking(deploy(config))
    asking.page()
    asking.deployment.close()
    path = asking.deployment.root / "index" / "pypi" / "index.sqlite"
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    asking = Asking(deploy(config))
    eventually(lambda: asking.page().status_code == 200, "the page is there again")
    assert set(asking.files()) == {WHEEL[0]}
    assert asking.file(WHEEL[0]).data == WHEEL[1]


def test_pages_are_served_from_memory_while_the_disk_is_full(
    index: Upstream, mirrored: Mirrored, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add(*WHEEL)
    for name in ("other", "new"):
        index.add(*make_wheel(name, "1.0"))
    asking = mirrored()
    kept = asking.page()
    # SQLite says the same about a file that may not grow as about a full disk. It is only asked to
    # grow if nothing is free in it.
    asking.page("other")
    path = asking.deployment.root / "index" / "pypi" / "index.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    opened = connections._open

    def narrow(path: Path) -> sqlite3.Connection:
        connection = opened(path)
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    many = [make_wheel("big", f"{number}.0") for number in range(150)]
    for file in many:
        index.add(*file)
    asking.mirror.index.close()
    with monkeypatch.context() as patch:
        patch.setattr(connections, "_open", narrow)
        for _ in range(2):
            answer = asking.page("big")
            assert len(answer.get_json(force=True)["files"]) == 150
        assert index.lines().count("GET /simple/big/") == 1  # it is remembered
        assert asking.mirror.index.page("big") is None
        assert asking.file(many[0][0], "big").data == many[0][1]
        assert asking.file("big-777.0.tar.gz", "big").status_code == 404
        assert asking.page().data == kept.data
        index.change(many[0][0], yanked="it burns")
        clock.go(HOUR + 1)
        assert asking.files("big")[many[0][0]]["yanked"] == "it burns"
        index.fail("page", "502")
        clock.go(HOUR + 1)
        assert asking.page("big").headers["Cache-Status"]
        index.heal()
        del index.projects["big"]
        clock.go(HOUR + 1)
        assert asking.page("big").status_code == 404
    asking.mirror.index.close()
    for file in many:
        index.add(*file)
    clock.go(31)
    assert len(asking.files("big")) == 150
    assert asking.mirror.index.page("big") is not None


# -- the list of projects ------------------------------------------------------------------------


def test_the_list_is_believed_for_an_hour_and_revalidated(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    index.more_names = ["b", "A"]
    asking = mirrored(sync_index_interval=1)
    assert asking.projects() == ["a", "b"]
    serial = asking.get("simple/").headers["X-PyPI-Last-Serial"]
    clock.go(3599)
    asking.projects()
    assert index.count("list") == 1
    clock.go(2)
    asking.projects()
    assert [each.status for each in index.asked] == [200, 304]
    assert asking.get("simple/").headers["X-PyPI-Last-Serial"] == serial
    index.more_names = ["b", "c"]
    clock.go(3601)
    assert asking.projects() == ["b", "c"]


def test_a_list_that_is_read_is_shown_as_it_was_for_stale_for_only(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    index.more_names = ["a"]
    asking = mirrored(stale_for=600)
    assert asking.projects() == ["a"]
    index.fail("list", "502")
    clock.go(3601)
    assert asking.get("simple/").headers["Cache-Status"]
    clock.go(600)
    assert asking.get("simple/").status_code == 503


def test_pages_are_answered_while_the_list_is_read(index: Upstream, mirrored: Mirrored) -> None:
    index.add(*WHEEL)
    index.more_names = [f"project-{number}" for number in range(20_000)]
    index.is_compressed = False
    asking = mirrored()
    with index.hold("list", after=300_000) as hold, ThreadPoolExecutor(1) as pool:
        listed = pool.submit(asking.get, "simple/")
        hold.until()
        eventually(
            lambda: asking.mirror.index._first("SELECT count(*) FROM names")[0] > 0,
            "the first names are written",
        )
        assert set(asking.files()) == {WHEEL[0]}
        assert asking.file(WHEEL[0]).data == WHEEL[1]
        assert asking.mirror.index.names_state().generation is None
        hold.release()
        listed.result()
    eventually(lambda: asking.get("simple/").status_code == 200, "the list is there")
    assert len(asking.projects()) == 20_001


def test_a_list_that_is_cut_keeps_the_old_one(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    index.is_compressed = False
    index.more_names = [f"project-{number}" for number in range(12_000)]
    asking = mirrored()
    eventually(lambda: asking.get("simple/").status_code == 200, "the list is there")
    old = asking.projects()
    index.more_names = [f"new-{number}" for number in range(12_000)]
    index.fail("list", "cut")
    clock.go(3601)
    assert asking.projects() == old
    index.heal()
    assert asking.projects() == sorted(index.more_names)
    counted = asking.mirror.index._first("SELECT count(*), count(DISTINCT generation) FROM names")
    assert counted == (12_000, 1)  # nothing is left of the others


def test_one_of_two_servers_reads_the_list(index: Upstream, deploy: Deploy) -> None:
    index.more_names = ["a", "b"]
    config = mirror_table(index.index_url)
    one, two = Asking(deploy(config)), Asking(deploy(config))
    with index.hold("list") as hold, ThreadPoolExecutor(1) as pool:
        first = pool.submit(one.get, "simple/")
        hold.until()
        refused = two.get("simple/")
        assert refused.status_code == 503
        assert "another process" in refused.text
        hold.release()
        assert first.result().status_code == 200
    assert two.projects() == one.projects() == ["a", "b"]
    assert index.count("list") == 1


def test_a_list_that_is_replaced_while_it_is_read_is_not_a_short_one(
    index: Upstream, mirrored: Mirrored
) -> None:
    asking = mirrored()
    names = asking.mirror.index
    names.take_names((f"a{number}" for number in range(6000)), "", asked_at=1.0)
    reading = names.names()
    next(reading)
    names.take_names((f"b{number}" for number in range(6000)), "", asked_at=2.0)
    with pytest.raises(BackendUnavailable, match="was replaced while it was read"):
        list(reading)
    assert len(list(names.names())) == 6000


def test_an_upstream_without_a_list(index: Upstream, mirrored: Mirrored) -> None:
    index.has_list = False
    index.add(*WHEEL)
    asking = mirrored()
    assert asking.get("simple/").status_code == 502
    assert set(asking.files()) == {WHEEL[0]}


# -- another server of this project --------------------------------------------------------------


def test_an_upstream_that_is_a_server_of_this_project(
    deploy: Deploy, mirrored: Mirrored, tmp_path: Path
) -> None:
    served = create_app(deploy(table("mine", sync_index_interval=3600), root=tmp_path / "other"))
    writer = basic("mine", "w")
    for file in (WHEEL, SDIST):
        assert publish(served.test_client(), *file, headers=writer).status_code == 200
    server = make_server("127.0.0.1", 0, served, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/r/mine/simple/"
        refused = mirrored(url)
        answer = refused.page()
        assert answer.status_code == 502
        assert "credentials" in answer.text
        refused.deployment.close()
        asking = mirrored(url, username="mine", password="r")
        own = served.test_client().get("/r/mine/simple/demo/", headers={**writer, "Accept": JSON})
        theirs = {file["filename"]: file for file in own.get_json(force=True)["files"]}
        ours = asking.files()
        assert ours.keys() == {WHEEL[0], SDIST[0]}
        for name, file in ours.items():
            for key in ("hashes", "size", "upload-time", "core-metadata", "yanked"):
                assert file[key] == theirs[name][key]
        assert asking.file(WHEEL[0]).data == WHEEL[1]
        assert asking.file(f"{WHEEL[0]}.metadata").status_code == 200
        assert asking.projects() == ["demo"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_who_may_read(index: Upstream, mirrored: Mirrored) -> None:
    index.add(*WHEEL)
    asking = mirrored()
    paths = ("/r/pypi/simple/", "/r/pypi/simple/demo/", f"/r/pypi/simple/demo/{WHEEL[0]}")
    for path in paths:
        assert asking.client.get(path).status_code == 401
        assert asking.client.get(path, headers=basic("pypi", "wrong")).status_code == 401
    assert index.lines() == []
    assert all("authorization" not in each.headers for each in index.asked)
    asking.deployment.close()
    asking = mirrored(anonymous_read=True)
    for path in paths:
        assert asking.client.get(path).status_code == 200
    assert asking.client.post("/r/pypi/legacy/", headers=basic("pypi", "r")).status_code in (
        400,
        403,
        405,
    )
    deleted = asking.client.delete(f"/r/pypi/simple/demo/{WHEEL[0]}", headers=basic("pypi", "r"))
    assert deleted.status_code in (403, 405)
    assert asking.file(WHEEL[0]).data == WHEEL[1]
    assert all("authorization" not in each.headers for each in index.asked)


def test_names_that_strangers_make_up_do_not_fill_the_disk(
    index: Upstream, mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_pypi.index.mirrored._MOST_ABSENT", 3)
    index.add(*make_wheel("demo", "1.0"))
    asking = mirrored(anonymous_read=True)
    assert list(asking.files())
    for number in range(6):
        assert asking.page(f"made-up-{number}").status_code == 404
    asking.mirror._pages.write()
    known = [asking.mirror.index.page(f"made-up-{number}") is not None for number in range(6)]
    assert known == [False, False, False, True, True, True]
    assert list(asking.files())
    index.forget()
    assert asking.page("made-up-5").status_code == 404
    assert index.count("page") == 0
    assert asking.page("made-up-0").status_code == 404
    assert index.count("page") == 1


@pytest.mark.parametrize("name", ["a" * 6000, "tool-", "-tool", "%C3%A9", "a%00b"])
def test_what_cannot_be_a_name_is_neither_asked_for_nor_remembered(
    name: str, index: Upstream, mirrored: Mirrored
) -> None:
    asking = mirrored()
    for path in (f"simple/{name}/", f"simple/{name}/demo-1.0.zip"):
        assert asking.get(path).status_code == 404
    assert "not known to have such a project" in asking.get(f"explain/{name}").text
    assert index.count() == 0
    assert asking.mirror.index._all("SELECT project FROM pages") == []
