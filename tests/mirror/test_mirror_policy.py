"""The policy of a mirror: what it hides on pages and at addresses, and when that changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend.times import show_instant
from private_pypi.distributions.filenames import normalize
from private_pypi.policy import watched
from private_pypi.testing.distributions import make_sdist, make_wheel
from tests.mirror.mirrors import Asking, Clock, Mirrored, forget_trouble
from tests.mirror.upstream import Upstream

DAY = 86_400
OLD, YOUNG = make_wheel("demo", "1.0"), make_wheel("demo", "2.0")
SDIST = make_sdist("demo", "2.0")


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_trouble(monkeypatch)
    monkeypatch.setattr(watched, "_EVERY", 0.0)


def ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.fixture
def aged(index: Upstream) -> Upstream:
    """An upstream with a file of a month and two of a day."""
    index.add(*OLD, upload_time=ago(30))
    index.add(*YOUNG, upload_time=ago(1))
    index.add(*SDIST, upload_time=ago(1))
    return index


def refused(asking: Asking, filename: str) -> str:
    """Why a file, and its metadata if it is a wheel, are not there."""
    answer = asking.file(filename)
    assert answer.status_code == 404
    if filename.endswith(".whl"):
        metadata = asking.file(f"{filename}.metadata")
        assert metadata.status_code == 404
        assert metadata.text == answer.text
    assert asking.file(filename, method="HEAD").status_code == 404
    return answer.text


def audit(asking: Asking) -> list[dict[str, Any]]:
    path: Path = asking.deployment.root / "log" / "audit.jsonl"
    if not path.exists():
        return []
    lines = map(json.loads, path.read_text().splitlines())
    return [line for line in lines if line["action"] == "use_allowance"]


def allow(asking: Asking, **keys: object) -> None:
    known: Mapping[str, object] = {
        "repository": "pypi",
        "project": "demo",
        "by": "Ada Lovelace",
        "why": "security fix",
        **keys,
    }
    until = datetime.now(UTC) + timedelta(days=3)
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in known.items())
    path = asking.deployment.root / "allowed.toml"
    path.write_text(f"[[allow]]\n{text}until = {show_instant(until)}\n")


# -- cooldown ------------------------------------------------------------------------------------


def test_a_cooldown_ends_by_itself(aged: Upstream, mirrored: Mirrored, clock: Clock) -> None:
    asking = mirrored(cooldown="7 days", sync_index_interval=30 * DAY)
    first = asking.page()
    assert set(asking.files()) == {OLD[0]}
    assert "7 days" in refused(asking, YOUNG[0])
    assert "cooldown" in refused(asking, SDIST[0])
    assert asking.file(OLD[0]).data == OLD[1]
    assert asking.page().headers["ETag"] == first.headers["ETag"]
    clock.go(5.9 * DAY)
    assert set(asking.files()) == {OLD[0]}
    clock.go(0.2 * DAY)
    assert set(asking.files()) == {OLD[0], YOUNG[0], SDIST[0]}
    assert asking.page(If_None_Match=first.headers["ETag"]).status_code == 200
    assert asking.file(YOUNG[0]).data == YOUNG[1]
    assert aged.count("page") == 1
    mirror = asking.mirror
    assert list(mirror.explain(normalize("demo"), mirror.public_secret()).hidden) == []


def test_a_file_without_upload_time_is_as_old_as_our_first_sight_of_it(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    index.format, index.has_attributes = "html", False
    index.add(*OLD)
    asking = mirrored(cooldown="7 days")
    assert asking.files() == {}
    reason = refused(asking, OLD[0])
    assert "first seen here" in reason
    assert "gives no upload time" in reason
    clock.go(7 * DAY + 1)
    assert set(asking.files()) == {OLD[0]}
    assert "upload-time" not in asking.files()[OLD[0]]
    index.add(*YOUNG)
    clock.go(3601)
    assert set(asking.files()) == {OLD[0]}


@pytest.mark.parametrize("hashes", [("sha256",), ("md5",), ()])
def test_a_file_that_was_replaced_waits_as_a_new_one(
    hashes: tuple[str, ...], index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    def add(content: bytes) -> None:
        known = {each: hashlib.new(each, content).hexdigest() for each in hashes}
        index.add(name, content, upload_time=None, hashes=known)

    name, content = make_wheel("demo", "1.0")
    add(content)
    asking = mirrored(cooldown="7 days", sync_index_interval=60)
    assert asking.files() == {}
    clock.go(8 * DAY)
    assert list(asking.files()) == [name]
    index.change(name, requires_python=">=3.9")  # the same bytes
    clock.go(100)
    assert list(asking.files()) == [name]
    _, other = make_wheel("demo", "1.0", files={"demo.py": b"import evil"})
    add(other)
    clock.go(100)
    assert asking.files() == {}
    assert "first seen here" in refused(asking, name)


def test_a_hash_that_is_not_told_any_more_still_counts(index: Upstream, mirrored: Mirrored) -> None:
    name, content = make_wheel("demo", "1.0")
    index.add(name, content)
    asking = mirrored(sync_index_interval=0.001)
    assert asking.files()[name]["hashes"]
    _, other = make_wheel("demo", "1.0", files={"demo.py": b"import evil"})
    index.add(name, other, hashes={}, size=None)
    assert asking.files()[name]["hashes"] == {"sha256": hashlib.sha256(content).hexdigest()}
    assert asking.file(name).status_code == 502


def test_an_allowance_counts_at_once_and_each_download_is_audited(
    aged: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    asking = mirrored(cooldown="7 days")
    assert set(asking.files()) == {OLD[0]}
    allow(asking, version="2.0")
    assert set(asking.files()) == {OLD[0], YOUNG[0], SDIST[0]}
    assert audit(asking) == []
    assert asking.file(YOUNG[0]).data == YOUNG[1]
    (line,) = audit(asking)
    assert line["repository"] == "pypi"
    assert line["filename"] == YOUNG[0]
    assert (line["by"], line["why"], line["version"]) == ("Ada Lovelace", "security fix", "2.0")
    # A part is a download as well.
    assert asking.file(YOUNG[0], Range="bytes=0-9").status_code == 206
    assert len(audit(asking)) == 2
    # These transfer nothing of the file.
    head = asking.file(YOUNG[0], method="HEAD")
    assert head.status_code == 200
    assert asking.file(YOUNG[0], If_None_Match=head.headers["ETag"]).status_code == 304
    assert asking.file(f"{YOUNG[0]}.metadata").status_code == 200
    assert asking.file(OLD[0]).status_code == 200
    assert len(audit(asking)) == 2
    (asking.deployment.root / "allowed.toml").unlink()
    assert set(asking.files()) == {OLD[0]}
    refused(asking, YOUNG[0])
    allow(asking, file=SDIST[0])
    assert set(asking.files()) == {OLD[0], SDIST[0]}
    clock.go(3 * DAY + 60)
    assert set(asking.files()) == {OLD[0]}


def test_an_allowance_is_no_way_around_other_rules(aged: Upstream, mirrored: Mirrored) -> None:
    asking = mirrored(cooldown="7 days", deny=["demo == 2.0  # it steals"])
    allow(asking)
    assert set(asking.files()) == {OLD[0]}
    assert "it steals" in refused(asking, YOUNG[0])
    aged.projects["demo"].status = "quarantined"
    asking.deployment.close()
    asking = mirrored(cooldown="7 days", sync_index_interval=0.001)
    assert asking.files() == {}
    assert "quarantined" in refused(asking, OLD[0])


# -- other rules ---------------------------------------------------------------------------------


def test_a_deny_file_counts_when_it_changes(
    aged: Upstream, mirrored: Mirrored, tmp_path: Path
) -> None:
    denied = tmp_path / "denied.txt"
    denied.write_text("")
    asking = mirrored(deny_file=denied)
    assert len(asking.files()) == 3
    denied.write_text("demo >= 2  # it steals\n")
    assert set(asking.files()) == {OLD[0]}
    assert "it steals" in refused(asking, SDIST[0])
    denied.write_text("demo  # all of it\n")
    assert asking.files() == {}
    assert "all of it" in refused(asking, OLD[0])
    denied.write_text("demo >= is wrong\n")
    assert asking.page().status_code == 502
    assert asking.file(OLD[0]).status_code == 502
    denied.write_text("")
    assert len(asking.files()) == 3


def test_wheels_only(aged: Upstream, mirrored: Mirrored) -> None:
    asking = mirrored(wheels_only=True)
    assert set(asking.files()) == {OLD[0], YOUNG[0]}
    assert "wheels" in refused(asking, SDIST[0])


def test_as_of_in_the_table_and_in_the_address(
    aged: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    aged.add("demo-0.5.tar.gz", SDIST[1], upload_time=None)
    asking = mirrored()
    assert len(asking.files()) == 4
    instant = (datetime.now(UTC) - timedelta(days=7)).strftime("%Y-%m-%d")
    frozen = asking.get(f"at/{instant}/simple/demo/")
    assert [file["filename"] for file in frozen.get_json(force=True)["files"]] == [OLD[0]]
    assert asking.get(f"at/{instant}/simple/demo/{OLD[0]}").data == OLD[1]
    late = asking.get(f"at/{instant}/simple/demo/{YOUNG[0]}")
    assert late.status_code == 404
    assert "as_of" in late.text or "later than" in late.text
    assert asking.get(f"at/{instant}/simple/demo/demo-0.5.tar.gz").status_code == 404
    assert asking.get(f"at/{instant}/simple/").status_code == 200
    assert asking.get("at/2999-01-01/simple/demo/").status_code == 400
    assert len(asking.files()) == 4  # the mirror itself is not frozen
    asking.deployment.close()
    asking = mirrored(as_of=instant)
    assert set(asking.files()) == {OLD[0]}
    refused(asking, YOUNG[0])
    yesterday = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    later = asking.get(f"at/{yesterday}/simple/demo/")
    assert [file["filename"] for file in later.get_json(force=True)["files"]] == [OLD[0]]


def test_views_at_different_instants_do_not_mix(aged: Upstream, mirrored: Mirrored) -> None:
    mirror = mirrored().mirror
    early = datetime.now(UTC) - timedelta(days=60)
    middle = datetime.now(UTC) - timedelta(days=7)
    late = datetime.now(UTC) - timedelta(hours=1)
    secret = mirror.public_secret()
    project = normalize("demo")

    def names(view: Any) -> set[str]:
        return {file.filename for file in view.find(project, secret).files()}

    for _ in range(2):
        assert names(mirror.at(early)) == set()
        assert names(mirror.at(middle)) == {OLD[0]}
        assert names(mirror.at(late)) == {OLD[0], YOUNG[0], SDIST[0]}
        assert names(mirror.at(middle).at(late)) == {OLD[0]}
        assert names(mirror) == {OLD[0], YOUNG[0], SDIST[0]}


def test_a_change_of_the_upstream_is_judged_anew(
    aged: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    asking = mirrored(cooldown="7 days")
    assert set(asking.files()) == {OLD[0]}
    third = make_wheel("demo", "0.9")
    aged.add(*third, upload_time=ago(20))
    aged.change(OLD[0], yanked="it burns")
    clock.go(3601)
    assert set(asking.files()) == {OLD[0], third[0]}
    assert asking.files()[OLD[0]]["yanked"] == "it burns"
