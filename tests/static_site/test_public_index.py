"""Comparing names with the public index: verdicts, and that trouble is never one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.version import Version

from private_pypi.distributions.filenames import normalize
from private_pypi.errors import BackendError, BackendUnavailable, ConfigurationError
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making import http_client
from private_pypi_static_site.making.http_client import AT_ONCE, HttpClient, Patience
from private_pypi_static_site.making.public_index import (
    VERDICTS,
    PublicIndex,
    Verdict,
    compare,
    judge,
    read_verdicts,
    write_verdicts,
)
from private_pypi_static_site.project_file import Project, SiteFile, SiteVersion

from .fake_index import JSON, FakeServer, Reply, bomb, page

NOW = datetime(2026, 1, 3, 12, 30, tzinfo=UTC)
PATIENT = Patience(connect=20, silence=20, whole=20, attempts=3, first_pause=0.01, longest_pause=2)
IMPATIENT = replace(PATIENT, silence=0.3, whole=0.5)  # only where an answer is late
DEMO = normalize("demo")


def project(name: str, *versions: str, ours: bool = False) -> Project:
    return Project(
        name=name,
        ours_on_public=ours,
        versions=tuple(
            SiteVersion(version=each, tag=each, git="https://code.example/acme/demo")
            for each in versions
        ),
    )


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with closing(HttpClient(PATIENT)) as made:
        yield made


@pytest.fixture
def index(public: FakeServer, client: HttpClient) -> PublicIndex:
    return PublicIndex(public.url, client)


# -- verdicts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there", "kind", "theirs", "ours"),
    [
        (["1.0"], None, "free", None, "1.0"),
        (["1.0"], [], "taken", None, "1.0"),
        (["1.10"], ["1.9"], "taken", "1.9", "1.10"),
        (["1.0"], ["1.0"], "taken", "1.0", "1.0"),
        (["1.0"], ["1"], "taken", "1", "1.0"),
        (["1.9"], ["1.10", "1.2"], "higher", "1.10", "1.9"),
        (["2024.1"], ["1!0.1"], "higher", "1!0.1", "2024.1"),
        (["1.0+cu1"], ["1.0"], "taken", "1.0", "1.0+cu1"),
        (["1.0"], ["1.0.post1"], "higher", "1.0.post1", "1.0"),
        (["1.0"], ["2.0rc1"], "higher", "2.0rc1", "1.0"),
        # pip chooses 0.1 or 2.0 here, since it avoids pre-releases.
        (["1.0rc1"], ["0.1"], "higher", "0.1", "1.0rc1"),
        (["1.0", "3.0a1"], ["2.0"], "higher", "2.0", "1.0"),
        ([], ["0.1"], "higher", "0.1", None),
        ([], [], "taken", None, None),
    ],
)
def test_names_are_compared_by_pep_440(
    here: list[str],
    there: list[str] | None,
    kind: str,
    theirs: str | None,
    ours: str | None,
) -> None:
    found = judge(
        project("demo", *here), None if there is None else [Version(each) for each in there], NOW
    )
    assert found == Verdict(
        kind=kind,  # type: ignore[arg-type]
        public_version=theirs,
        our_version=ours,
        checked_at=NOW,
    )


def test_a_name_that_is_ours_there_is_no_danger() -> None:
    ours = project("demo", "1.0", ours=True)
    assert judge(ours, [Version("2.0")], NOW).kind == "ours"
    assert judge(ours, None, NOW).kind == "free"


def test_what_is_yanked_here_does_not_protect() -> None:
    file = SiteFile(filename="demo-3.0.tar.gz", sha256="a" * 64, size=1, yanked="")
    yanked = SiteVersion(version="3.0", files=(file,))
    demo = project("demo", "1.0")
    demo = replace(demo, versions=(*demo.versions, yanked))
    assert judge(demo, [Version("2.0")], NOW).kind == "higher"
    usable = replace(yanked, files=(file, replace(file, filename="demo-3.0.zip", yanked=None)))
    demo = replace(demo, versions=(*demo.versions[:1], usable))
    assert judge(demo, [Version("2.0")], NOW).kind == "taken"


# -- asking ----------------------------------------------------------------------------------------


def test_names_are_asked_and_judged(public: FakeServer, index: PublicIndex) -> None:
    public.has("taken", page("Taken", "1.0"))
    public.has("higher", page("higher", "0.1", "2.0", "no version", "9" * 5000, "1.0"))
    public.has("mine", page("mine", "7.0"))
    found = compare(
        index,
        [project(each, "1.5", ours=each == "mine") for each in ("free", "taken", "higher", "mine")],
    )
    assert found.troubles == {}
    assert {name: (each.kind, each.public_version) for name, each in found.verdicts.items()} == {
        "free": ("free", None),
        "taken": ("taken", "1.0"),
        "higher": ("higher", "2.0"),
        "mine": ("ours", "7.0"),
    }


def test_without_a_list_of_versions_those_of_the_files_count(
    public: FakeServer, index: PublicIndex
) -> None:
    files = [
        {"filename": "demo-1.0.tar.gz"},
        {"filename": "demo-2.0-py3-none-any.whl", "yanked": True},
        {"filename": "demo-9.0.exe"},
        {"filename": None},
        "demo-8.0.tar.gz",
    ]
    public.has("demo", page("demo", versions=None, files=files))
    versions = index.versions(DEMO)
    assert versions is not None
    assert sorted(versions) == [Version("1.0"), Version("2.0")]


def html(body: bytes = b"<h1>Welcome</h1>") -> Reply:
    return Reply(body=body, headers={"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(status=403), "answered 403"),
        (Reply(status=410), "answered 410"),
        (Reply(status=500), "answered 500"),
        (Reply(status=429, headers={"Retry-After": "3600"}), "answered 429"),
        (html(), "instead of application/vnd.pypi.simple"),
        (Reply(body=b"{"), "no JSON"),
        (Reply(body=b"\xff"), "no JSON"),
        (Reply(body=b"[" * 100_000), "no JSON"),
        (Reply(body=b"[]"), "no page of 'demo'"),
        (page("other", "1.0"), "no page of 'demo'"),
        (page("demo", versions=None, files=None), "neither versions nor files"),
        (Reply(body=b"{}", headers={"Content-Type": JSON, "Content-Length": "9"}), "cannot reach"),
        (
            Reply(body=b"{}" * 9, headers={"Content-Type": JSON, "Content-Encoding": "gzip"}),
            "cannot",
        ),
        (bomb(33 << 20), "larger than 32 MiB"),
        (Reply(pause=1), "did not answer in time"),
        (Reply(body=b'{"name": "demo"}', drip=0.05), "took longer than 0.5 s"),
        (Reply(status=302, headers={"Location": "https://other.example/simple/demo/"}), "another"),
        (Reply(status=302, headers={"Location": "ftp://127.0.0.1/"}), "not secure"),
        (Reply(status=302, headers={"Location": "http://[::1/"}), "no address"),
        (Reply(status=301, headers={"Location": "/simple/demo/"}), "more than 5 times"),
    ],
)
def test_trouble_is_never_a_free_name(public: FakeServer, reply: Reply, says: str) -> None:
    public.has("demo", reply)
    is_late = reply.pause or reply.drip or "Content-Length" in reply.headers
    patience = IMPATIENT if is_late else PATIENT
    with closing(HttpClient(patience)) as client:
        index = PublicIndex(public.url, client)
        found = compare(index, [project("demo", "1.0"), project("fine", "1.0")])
    assert list(found.verdicts) == ["fine"]
    assert list(found.troubles) == ["demo"]
    assert says in found.troubles[DEMO]


def test_a_redirect_within_the_index_is_followed(public: FakeServer, index: PublicIndex) -> None:
    public.has("demo", Reply(status=301, headers={"Location": "../../mirror/demo/"}))
    public.replies["/mirror/demo/"] = [page("demo", "1.0")]
    assert index.versions(DEMO) == [Version("1.0")]


def test_trouble_that_passes_does_no_harm(public: FakeServer, index: PublicIndex) -> None:
    limited = Reply(status=429, headers={"Retry-After": "1"})
    public.has("demo", limited, Reply(status=502), page("demo", "1.0"))
    assert index.versions(DEMO) == [Version("1.0")]
    public.has("demo", limited, Reply(status=404))
    assert index.versions(DEMO) is None


def test_it_waits_as_long_as_it_is_told(
    public: FakeServer, index: PublicIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, monotonic=time.monotonic)
    monkeypatch.setattr(http_client, "time", clock)
    public.has("demo", Reply(status=429, headers={"Retry-After": "2"}), page("demo"))
    assert index.versions(DEMO) == []
    assert len(slept) == 1
    assert 2 <= slept[0] < 2.1


@pytest.mark.parametrize(
    "reply",
    [Reply(status=404), html(), Reply(status=401), Reply(status=500)],
    ids=["not there", "a page for people", "locked", "down"],
)
def test_an_address_that_is_no_index_has_no_free_names(
    public: FakeServer, index: PublicIndex, reply: Reply
) -> None:
    public.replies["/simple/"] = [reply]
    with pytest.raises(BackendError, match="/simple/"):
        compare(index, [project("demo", "1.0")])
    assert not [path for _, path, _ in public.requests if path != "/simple/"]


def test_a_server_that_is_down_is_an_error(client: HttpClient) -> None:
    index = PublicIndex("http://127.0.0.1:9/simple/", client)
    with pytest.raises(BackendUnavailable, match=r"cannot reach .*: Connection refused"):
        compare(index, [project("demo", "1.0")])


def test_an_index_that_fails_for_many_names_is_asked_no_more(
    public: FakeServer, index: PublicIndex
) -> None:
    names = [f"demo-{number}" for number in range(200)]
    for name in names:
        public.has(name, Reply(status=403))
    found = compare(index, [project(name, "1.0") for name in names])
    assert found.verdicts == {}
    assert set(found.troubles) == set(names)
    # How many are on their way when it is known depends on how busy the machine is.
    assert len(public.requests) < 150


def test_a_few_names_are_asked_at_a_time(public: FakeServer, index: PublicIndex) -> None:
    names = [f"demo-{number}" for number in range(40)]
    for name in names:
        public.has(name, replace(page(name, "1.0"), pause=0.05))
    found = compare(index, [project(name, "1.0") for name in names])
    assert len(found.verdicts) == 40
    assert 2 <= public.most_at_once <= AT_ONCE


def test_credentials_of_this_machine_are_not_sent(
    public: FakeServer, index: PublicIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    public.has("demo", page("demo", "1.0"))
    compare(index, [project("demo", "1.0")])
    assert [given for _, _, given in public.requests] == [None, None]


@pytest.mark.parametrize(
    "url", ["", "simple", "ftp://h/simple/", "https://u:p@h/simple/", "https://h/simple/?x=1"]
)
def test_only_an_address_is_taken_for_an_index(url: str, client: HttpClient) -> None:
    with pytest.raises(ConfigurationError, match="--public_index is not the address") as caught:
        PublicIndex(url, client)
    assert "u:p" not in str(caught.value)


# -- keeping ---------------------------------------------------------------------------------------

KEPT = {
    normalize("demo"): Verdict(
        kind="higher", public_version="2.0", our_version="1.0", checked_at=NOW
    ),
    normalize("a-2"): Verdict(kind="free", our_version="1!1.0+x", checked_at=NOW),
}


def test_verdicts_that_are_written_are_read(tmp_path: Path) -> None:
    folder = SiteFolder(tmp_path)
    assert read_verdicts(folder) == {}
    write_verdicts(folder, "https://index.example/simple/", KEPT)
    assert read_verdicts(folder) == KEPT
    assert read_verdicts(folder, "https://index.example/simple/") == KEPT
    assert read_verdicts(folder, "https://other.example/simple/") == {}
    assert [path.name for path in tmp_path.iterdir()] == [VERDICTS]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], 2),
        (["public_index"], None),
        (["verdicts"], []),
        (["verdicts", "demo"], None),
        (["verdicts", "demo", "kind"], "unknown"),
        (["verdicts", "demo", "kind"], {}),
        (["verdicts", "demo", "public_version"], "v2.0"),
        (["verdicts", "demo", "public_version"], "<b>"),
        (["verdicts", "demo", "our_version"], 1),
        (["verdicts", "demo", "checked_at"], "yesterday"),
        (["verdicts", "demo", "checked_at"], None),
        (["verdicts", "demo", "more"], 1),
        (["verdicts", "Demo"], {}),
        (["verdicts", "../demo"], {}),
        (["verdicts", ""], {}),
        (["more"], 1),
    ],
)
def test_damaged_verdicts_are_refused(tmp_path: Path, path: list[str], value: object) -> None:
    folder = SiteFolder(tmp_path)
    write_verdicts(folder, "https://index.example/simple/", KEPT)
    document = json.loads((tmp_path / VERDICTS).read_text())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / VERDICTS).write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match=r"is damaged .*; delete it"):
        read_verdicts(folder)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00"])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / VERDICTS).write_text(text)
    with pytest.raises(ConfigurationError, match="is damaged"):
        read_verdicts(SiteFolder(tmp_path))
