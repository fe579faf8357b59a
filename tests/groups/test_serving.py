"""What a group serves and takes: its private names and the mirror's, over HTTP."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from packaging.utils import NormalizedName

from private_pypi.backend import Secret
from private_pypi.model import FRESH
from private_pypi.pages.simple_api import Representation, project_list
from private_pypi.repositories import ProjectList
from private_pypi.repositories.repository import NotAtHand
from private_pypi.testing.distributions import encode_multipart, form_for, make_wheel
from private_pypi.web.api.legacy import make_gate
from private_pypi.web.serving import Answer, PassOn, ReceiveForm, RequestHead
from tests.groups.conftest import GROUP, Serve, Served
from tests.groups.doubles import SECRET, Double, Member, Several, make
from tests.mirror.upstream import Upstream
from tests.web.conftest import basic

# -- which member answers ------------------------------------------------------------------------


def test_attacks_never_win(served: Served, upstream: Upstream) -> None:
    """Upstream has everything in version 99 (protocol 77)."""
    assert served.versions("tool") == ["1.0"]
    assert served.versions("acme-core") == ["1.0"]
    assert served.versions("public") == ["1.0"]
    assert served.status("/simple/acme-gone/") == 404  # claimed, and only upstream
    for name in ("tool", "acme-core", "acme-gone"):
        filename, _ = make_wheel(name, "99.0")
        assert served.status(f"/simple/{name}/{filename}") == 404
        assert served.status(f"/simple/{name}/{filename}.metadata") == 404
    assert {each.project for each in upstream.asked} == {"public"}


@pytest.mark.parametrize("core_metadata", [False, True])
def test_the_loop_begins_to_fetch_only_what_a_mirror_alone_answers_for(
    served: Served, upstream: Upstream, core_metadata: bool
) -> None:
    """Even if the mirror knows the page, because somebody has asked it directly."""
    group, mirror = (
        next(each for each in served.repositories if each.name == name) for name in ("all", "pypi")
    )
    found: dict[str, list[bool]] = {}
    for project in map(NormalizedName, ("public", "tool", "acme-core", "torch")):
        mirror.find(project, Secret(""))
        filename, _ = make_wheel(project, "1.0" if project == "public" else "99.0")
        found[project] = []
        for repository, secret in ((mirror, Secret("")), (group, Secret("boss"))):
            with contextlib.suppress(NotAtHand):
                to_fetch = repository.to_fetch(
                    project, filename, secret, core_metadata=core_metadata
                )
                found[project].append(to_fetch is not None)
    assert found == {
        "public": [True, True],
        "tool": [True, False],
        "acme-core": [True, False],
        "torch": [True, False],  # it is in `mix`
    }
    assert upstream.count("file") == upstream.count("metadata") == 0


def test_a_name_that_was_private_once_stays_private(served: Served, upstream: Upstream) -> None:
    filename, _ = make_wheel("tool", "1.0")
    gone = served.client.delete(f"/r/all/simple/tool/{filename}", headers=basic("all", "writer"))
    assert gone.status_code == 200, gone.text
    assert served.status("/simple/tool/") == 404
    assert "tool" not in served.names()
    assert upstream.count("page") == 0


def test_a_private_storage_that_is_down_hides_what_it_might_have(
    served: Served, upstream: Upstream
) -> None:
    upstream.add(*make_wheel("new", "1.0"))
    with served.down("closed"):
        assert served.versions("tool") == ["1.0"]  # the member before it answers
        assert served.versions("plans") == ["1.0"]  # its local index has it
        for name in ("public", "new", "nowhere"):
            assert served.status(f"/simple/{name}/") == 503, name
        assert served.status("/simple/") == 503
        assert upstream.count("page") == 0
        answer = served.get("/simple/acme-gone/")
        assert answer.status_code == 404  # claimed by the member that works
    assert served.versions("new") == ["1.0"]


def test_an_upstream_in_trouble_hides_no_private_name(served: Served, upstream: Upstream) -> None:
    upstream.fail(None, "502")
    assert served.versions("tool") == ["1.0"]
    assert served.status("/simple/public/") in (502, 503)
    assert served.status("/simple/torch/") in (502, 503)  # it is mixed
    assert served.names("writer", "mine") == ["acme-core", "tool", "torch"]


def test_a_mixed_name_says_where_each_file_is_from(served: Served) -> None:
    page = served.get("/simple/v1+json/torch/").json
    assert page is not None
    assert [(file["filename"].split("-")[1], file["_source"]) for file in page["files"]] == [
        ("2.0", "mine"),
        ("99.0", "pypi"),
    ]
    html = served.get("/simple/torch/index.html").text
    assert ('data-source="mine"' in html, 'data-source="pypi"' in html) == (True, True)
    for file in page["files"]:
        _, content = make_wheel("torch", file["filename"].split("-")[1])
        assert served.get(f"/simple/torch/{file['filename']}").data == content
    # Other pages are those of a member.
    assert "_source" not in served.get("/simple/v1+json/tool/").text


def test_of_equal_filenames_the_first_member_counts(served: Served, upstream: Upstream) -> None:
    filename, content = make_wheel("torch", "2.0")
    upstream.add(filename, make_wheel("torch", "2.0", files={"other.py": b""})[1])
    page = served.get("/simple/v1+json/torch/").json
    assert page is not None
    assert [file["_source"] for file in page["files"]] == ["mine", "pypi"]
    assert served.get(f"/simple/torch/{filename}").data == content


def test_a_mixed_name_with_a_member_that_refuses_is_absent(served: Served) -> None:
    assert served.publish("torch", "3.0", "closed", "closed-writer").status_code == 200
    assert served.versions("torch", "boss") == ["2.0", "3.0", "99.0"]
    assert served.status("/simple/torch/", "reader") == 404
    assert ("torch" in served.names("boss"), "torch" in served.names("reader")) == (True, False)


# -- publishing ----------------------------------------------------------------------------------


def test_what_is_published_hides_the_public_project_at_once(served: Served) -> None:
    assert served.versions("public") == ["1.0"]
    etag = served.get("/simple/public/").headers["ETag"]
    assert served.publish("public", "0.5", "all").status_code == 200
    assert served.versions("public") == ["0.5"]
    again = served.client.get(
        "/r/all/simple/public/", headers=basic("all", "boss") | {"If-None-Match": etag}
    )
    assert again.status_code == 200
    filename, _ = make_wheel("public", "1.0")
    assert served.status(f"/simple/public/{filename}") == 404
    assert served.versions("public", "reader", "mine") == ["0.5"]


def test_yanks_and_deletes_go_to_the_member(served: Served) -> None:
    filename, _ = make_wheel("tool", "1.0")
    writer = basic("all", "writer")
    yanked = served.client.post(
        "/r/all/simple/tool/1.0/yank", headers=writer, data={"reason": "broken"}
    )
    assert yanked.json == {"files": [filename]}, yanked.text
    for repository in ("all", "mine"):
        page = served.get("/simple/v1+json/tool/", "boss", repository).json
        assert page is not None
        assert page["files"][0]["yanked"] == "broken"
    back = served.client.delete(f"/r/all/simple/tool/{filename}/yank", headers=writer)
    assert back.json == {"files": [filename]}
    # Also of a mixed name, where the version is in that member.
    for target, status in (("99.0", 404), ("2.0", 200)):
        gone = served.client.delete(f"/r/all/simple/torch/{target}", headers=writer)
        assert gone.status_code == status, gone.text
    assert served.versions("torch") == ["99.0"]


@pytest.mark.parametrize("target", ["public/1.0", "plans/1.0"])
def test_what_is_in_another_member_cannot_be_changed(served: Served, target: str) -> None:
    headers = basic("all", "writer")
    answer = served.client.delete(f"/r/all/simple/{target}", headers=headers)
    sentence = "this project is in repository 'pypi', and only 'mine' can be changed through 'all'"
    # The other one does not let this secret in, so that it does not exist.
    assert (answer.status_code, sentence in answer.text) == (
        (403, True) if target.startswith("public") else (404, False)
    )


def test_a_secret_that_may_only_read_publishes_nothing(served: Served) -> None:
    for secret in ("reader", "boss", "closed-writer"):
        assert served.publish("another", "1.0", "all", secret).status_code == 403
    assert served.publish("another", "1.0", "all", "stranger").status_code == 401


def test_a_file_that_would_not_be_seen_is_refused(serve: Serve) -> None:
    """Somebody who may not read the other member is not told that it has the project."""
    served = serve(
        '[all]\ntype = "group"\nmembers = ["closed", "mine"]\npublish_to = "mine"\n'
        '[theirs]\ntype = "group"\nmembers = ["mine", "closed"]\npublish_to = "closed"\n'
    )
    assert served.publish("plans", "1.0", "closed", "closed-writer").status_code == 200
    refused = served.publish("plans", "2.0", "all")
    assert refused.status_code == 403
    assert (
        "project 'plans' belongs to another member, so a file that is published in 'mine' would "
        "not be seen in 'all'"
    ) in refused.text
    claimed = served.publish("acme-new", "1.0", "theirs", "closed-writer")
    assert claimed.status_code == 403
    assert (
        "project 'acme-new' is claimed by another member, so a file that is published in "
        "'closed' would not be seen in 'theirs'"
    ) in claimed.text
    assert served.publish("new", "1.0", "theirs", "closed-writer").status_code == 200


def test_a_group_without_publish_to_says_so_before_the_body(serve: Serve) -> None:
    served = serve(GROUP.replace('publish_to = "mine"\n', ""))
    filename, content = make_wheel("tool", "1.0")
    content_type, body = encode_multipart(form_for(filename, content), filename, content)

    def head(secret: str) -> Answer | ReceiveForm | PassOn:
        return make_gate(served.deployment)(
            RequestHead(
                method="POST",
                path="/r/all/",
                headers={
                    "HOST": "localhost",
                    "CONTENT_TYPE": content_type,
                    "AUTHORIZATION": basic("all", secret)["Authorization"],
                },
                content_length=len(body),
                remote_addr="127.0.0.1",
                request_id="x",
            )
        )

    answer = head("writer")
    assert isinstance(answer, Answer)
    assert answer.status == 501
    sentence = b"nothing can be published through 'all', which is a group without publish_to"
    assert sentence in answer.body
    stranger = head("stranger")
    assert isinstance(stranger, Answer) and stranger.status == 401
    assert served.publish("tool", "1.0", "all").status_code == 501


# -- lists ---------------------------------------------------------------------------------------


def test_the_list_is_merged_and_private_names_are_not_from_mirrors(
    served: Served, upstream: Upstream
) -> None:
    upstream.more_names = ["Zebra", "aardvark"]
    assert served.names() == [
        *("aardvark", "acme-core", "plans", "public", "tool", "torch", "zebra")
    ]
    assert served.names("reader") == ["aardvark", "acme-core", "public", "tool", "torch", "zebra"]


def test_the_etag_of_the_list_changes_with_a_member(served: Served) -> None:
    etag = served.get("/simple/").headers["ETag"]
    assert served.get("/simple/").headers["ETag"] == etag
    assert served.publish("newer", "1.0").status_code == 200
    changed = served.get("/simple/").headers["ETag"]
    assert changed != etag
    # A name that is hidden for the caller changes the list too: it was public before.
    for_reader = served.get("/simple/", "reader").headers["ETag"]
    assert served.publish("public", "1.0", "closed", "closed-writer").status_code == 200
    assert served.get("/simple/", "reader").headers["ETag"] != for_reader
    assert "public" not in served.names("reader")


class Huge(Double):
    """A mirror with a long list."""

    count = 100_000

    def list_projects(self, secret: Secret) -> ProjectList:
        def read() -> Iterator[tuple[NormalizedName, int]]:
            return ((NormalizedName(f"p{number:06}"), 0) for number in range(self.count))

        return ProjectList(self, 1, FRESH, read)


def test_the_list_of_a_huge_mirror_is_not_in_memory() -> None:
    group = make(Several((Member(state="had"), Member(kind="mirror"))))
    mirror = group.members[1]
    assert isinstance(mirror, Double)
    mirror.__class__ = Huge
    tracemalloc.start()
    try:
        listed = group.list_projects(SECRET)
        pieces = project_list(listed.read(), Representation.JSON, serial=None)
        length = sum(map(len, pieces))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert length > Huge.count * len('{"name":"p000000"},')  # all of them
    assert peak < 2**20


def test_searches_find_what_is_answered(served: Served) -> None:
    served.get("/simple/", "boss")  # reads the list of the mirror, for which no search waits
    for words, secret, found in (
        ("public", "boss", "/r/all/project/public/"),
        ("tool", "boss", "/r/all/project/tool/"),
    ):
        assert found.rpartition("/project/")[2] in served.get(f"/?q={words}", secret).text
    # Claimed names are not found upstream, and private ones only once.
    assert "acme-gone" not in served.get("/?q=acme").text.replace('value="acme"', "")
    assert "1 project" in served.get("/?q=tool").text


# -- more ----------------------------------------------------------------------------------------


def test_a_secret_that_was_not_checked_yet_is_no_trouble(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    assert served.status("/simple/public/", "reader") == 200
    assert [each.message for each in caplog.records if "answers 503" in each.message] == []


def test_the_time_of_a_group_is_the_latest_of_its_private_members(served: Served) -> None:
    older, newer = served.stored("mine"), served.stored("closed")
    for stored, at in ((older, 1000.5), (newer, 2000.5)):
        with stored.index.writing() as connection:
            connection.execute("UPDATE state SET synced_at = ?", (at,))
    assert served.get("/index_mtime/").text == "2000"
    assert served.get("/index_mtime/", repository="mine").text == "1000"


def test_an_instant_of_a_group(served: Served, upstream: Upstream) -> None:
    """Private files are newer than it, and still hide the public ones."""
    upstream.add(*make_wheel("public", "2.0"), upload_time="2026-06-01T00:00:00Z")
    path = "/at/2026-03-01T00:00:00Z/simple/{}/"
    for name, versions in (("public", ["1.0"]), ("tool", []), ("torch", ["99.0"])):
        answer = served.client.get(
            f"/r/all{path.format(name)}",
            headers=basic("all", "boss") | {"Accept": Representation.JSON.value},
        )
        assert answer.status_code == 200 and answer.json is not None, answer.text
        assert answer.json["versions"] == versions, name
    assert served.status(path.format("acme-gone")) == 404
    assert served.status(path.format("plans"), "reader") == 404
    now = (datetime.now(UTC) + timedelta(seconds=-1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert served.status(f"/at/{now}/simple/public/") == 200


def test_groups_in_groups(serve: Serve, upstream: Upstream) -> None:
    served = serve(
        '[public_side]\ntype = "group"\nmembers = ["pypi"]\n'
        '[inner]\ntype = "group"\nmembers = ["mine", "public_side"]\npublish_to = "mine"\n'
        '[all]\ntype = "group"\nmembers = ["inner", "closed"]\npublish_to = "inner"\n'
    )
    assert served.publish("tool", "1.0", "all").status_code == 200
    assert served.publish("plans", "1.0", "closed", "closed-writer").status_code == 200
    assert served.versions("tool") == ["1.0"]
    assert served.versions("public") == ["1.0"]
    assert served.versions("plans") == ["1.0"]  # although a mirror comes before it
    assert served.status("/simple/plans/", "reader") == 404
    assert served.status("/simple/acme-gone/") == 404
    assert served.names() == ["plans", "public", "tool", "torch"]
    assert "plans" not in {each.project for each in upstream.asked}
    # Who may read only `closed` may read mirrors, too, wherever they are.
    assert served.versions("public", "closed-writer") == ["1.0"]
    # A group of mirrors alone has the secrets of these.
    assert served.status("/simple/public/", "reader", "public_side") == 401
    gone = served.client.delete("/r/all/simple/tool/1.0", headers=basic("all", "writer"))
    assert gone.status_code == 200, gone.text
    assert served.status("/simple/tool/") == 404


def test_health_and_metrics_have_groups(serve: Serve) -> None:
    deployed = serve(admin_token="operator")
    assert deployed.client.get("/health/ready").status_code == 200
    answer = deployed.client.get("/health/ready", headers=basic("all", "reader"))
    assert answer.text.splitlines() == ["ready", "all: ready"]
    with deployed.down("closed"):
        answer = deployed.client.get("/health/ready", headers=basic("all", "boss"))
        assert answer.status_code == 200  # it answers from its local index
        assert "all: ready, stale" in answer.text and "closed: " in answer.text
    metrics = deployed.client.get("/metrics", headers=basic("", "operator")).text
    for line in (
        'repository_ready{repository="all"} 1.0',
        'repository_ready{repository="pypi"} 1.0',
    ):
        assert f"private_pypi_{line}" in metrics
