"""Every way in which an upstream can go wrong, at every kind of request (protocol 77-80).

Whatever happens, a client gets the right answer, or an error that is no 404 unless the upstream
says 404; never a short page or list, other bytes, or half a file.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
from werkzeug.test import TestResponse

from private_pypi.testing.distributions import make_sdist, make_wheel
from tests.mirror.mirrors import Asking, Clock, Mirrored, cached, forget_trouble, impatience
from tests.mirror.upstream import Kind, Upstream
from tests.mirror.upstream_faults import faults_of
from tests.waiting import eventually

WHEEL = make_wheel("demo", "1.0", files={"demo.bin": bytes(range(256)) * 300})
SDIST = make_sdist("demo", "0.9")
NAMES = {WHEEL[0], SDIST[0]}
ABSENT = {"404", "410"}  # what the upstream says if it has no such thing
TROUBLE = {502, 503, 504}

pytestmark = pytest.mark.needs("time")

# In HTML, these answers are what an index may say: a page that is short is a page.
LIES_IN_HTML = {"half, announced as whole", "no list in it"}


def both_formats(kind: Kind) -> pytest.MarkDecorator:
    """Each fault of a kind, in JSON and in HTML."""
    cases = [
        (shown, fault)
        for shown in ("json", "html")
        for fault in faults_of(kind)
        if shown == "json" or fault not in LIES_IN_HTML
    ]
    return pytest.mark.parametrize(("shown", "fault"), cases, indirect=["shown"])


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_trouble(monkeypatch)


@pytest.fixture
def shown(request: pytest.FixtureRequest, index: Upstream) -> Upstream:
    """The upstream with two files, in JSON or in HTML."""
    index.format = request.param
    index.files_elsewhere = True  # where nobody is refused when pages are
    index.add(*WHEEL)
    index.add(*SDIST)
    return index


def outcome(answer: TestResponse) -> tuple[int, bytes]:
    """The status, and the body as far as it came."""
    try:
        return answer.status_code, answer.get_data()
    except Exception:  # how a body that breaks off shows itself in this process
        return 0, b""


def comes(ask: Callable[[], TestResponse]) -> TestResponse:
    """The answer once there is one: what was asked during the trouble may still wait."""
    answers: list[TestResponse] = []

    def is_there() -> bool:
        answers[:] = [ask()]
        return answers[0].status_code == 200

    eventually(is_there, lambda: f"an answer, not {answers[0].status}")
    return answers[0]


def names(answer: TestResponse) -> set[str]:
    return {file["filename"] for file in answer.get_json(force=True)["files"]}


def projects(answer: TestResponse) -> list[str]:
    return [project["name"] for project in answer.get_json(force=True)["projects"]]


def impatience_with(fault: str) -> AbstractContextManager[None]:
    """An upstream that says at once that it has nothing is waited for, on a busy machine too."""
    return nullcontext() if fault in ABSENT else impatience()


@both_formats("page")
def test_pages(shown: Upstream, mirrored: Mirrored, clock: Clock, fault: str) -> None:
    asking = mirrored()
    shown.fail("page", fault)
    with impatience_with(fault):
        answer = asking.page()
        missing = asking.file(WHEEL[0]).status_code
    if answer.status_code == 200:
        assert names(answer) == NAMES
    else:
        assert answer.status_code in ({404} if fault in ABSENT else TROUBLE)
    # Nothing is called absent, because nothing is known.
    assert missing == 200 or missing in ({404} if fault in ABSENT else TROUBLE)
    shown.heal()
    clock.go(31)  # for so long an absence is believed
    assert names(comes(asking.page)) == NAMES
    assert comes(lambda: asking.file(WHEEL[0])).data == WHEEL[1]


@both_formats("page")
def test_pages_that_are_known(
    shown: Upstream, mirrored: Mirrored, clock: Clock, fault: str
) -> None:
    asking = mirrored()
    before = asking.page()
    assert names(before) == NAMES
    shown.fail("page", fault)
    clock.go(3601)
    with impatience_with(fault):
        answer, unknown = asking.page(), asking.file("demo-2.0.tar.gz")
        if fault not in ABSENT:
            assert comes(lambda: asking.file(SDIST[0])).data == SDIST[1]
    if fault in ABSENT:
        assert answer.status_code == 404
    else:
        assert (answer.status_code, answer.data) == (200, before.data)
        if "Cache-Status" in answer.headers:
            # What the old page does not have may be there by now.
            assert unknown.status_code in TROUBLE
    shown.heal()
    clock.go(31)
    assert names(comes(asking.page)) == NAMES


@both_formats("list")
def test_lists(shown: Upstream, mirrored: Mirrored, clock: Clock, fault: str) -> None:
    shown.more_names = [f"other-{number}" for number in range(200)]
    whole = ["demo", *sorted(shown.more_names)]
    asking = mirrored()
    shown.fail("list", fault)
    with impatience():
        answer = asking.get("simple/")
    assert answer.status_code in TROUBLE or projects(answer) == whole
    shown.heal()
    assert projects(comes(lambda: asking.get("simple/"))) == whole
    shown.fail("list", fault)
    clock.go(3601)
    with impatience():
        answer = asking.get("simple/")
    assert (answer.status_code, projects(answer)) == (200, whole)
    shown.heal()
    assert projects(comes(lambda: asking.get("simple/"))) == whole


@pytest.mark.parametrize("fault", faults_of("file"))
@pytest.mark.parametrize("has_hashes", [True, False])
@pytest.mark.parametrize("file", [WHEEL, SDIST], ids=["wheel", "sdist"])
def test_files(
    index: Upstream, mirrored: Mirrored, fault: str, has_hashes: bool, file: tuple[str, bytes]
) -> None:
    index.has_hashes, index.files_elsewhere = has_hashes, True
    index.add(*WHEEL)
    index.add(*SDIST)
    asking = mirrored()
    index.fail("file", fault)
    with impatience():
        status, body = outcome(asking.file(file[0]))
    if status == 200:
        assert body == file[1]
    else:
        assert status in TROUBLE or status == 0
        assert cached(asking.deployment.root) == []
        assert asking.files()[file[0]]["hashes"].keys() == ({"sha256"} if has_hashes else set())
    index.heal()
    assert comes(lambda: asking.file(file[0])).data == file[1]


@pytest.mark.parametrize("fault", faults_of("metadata"))
@pytest.mark.parametrize("hashes_metadata", [True, False])
def test_core_metadata(
    index: Upstream, mirrored: Mirrored, fault: str, hashes_metadata: bool
) -> None:
    content = index.add(*WHEEL, hashes_metadata=hashes_metadata).core_metadata
    check_metadata(index, mirrored(), "metadata", fault, content)


@pytest.mark.parametrize("fault", faults_of("range"))
@pytest.mark.parametrize("size", ["known", "unknown"])
def test_ranges(index: Upstream, mirrored: Mirrored, fault: str, size: str) -> None:
    content = index.add(*WHEEL, offers_metadata=None).core_metadata
    if size == "unknown":
        index.change(WHEEL[0], size=None)
    check_metadata(index, mirrored(), "range", fault, content)


def check_metadata(
    index: Upstream, asking: Asking, kind: Kind, fault: str, content: bytes | None
) -> None:
    """The core metadata are right or an error while requests of a kind fail, and right then."""
    index.fail(kind, fault)
    with impatience():
        status, body = outcome(asking.file(f"{WHEEL[0]}.metadata"))
    if status == 200:
        assert body == content
    else:
        assert status in TROUBLE or status == 0
        assert cached(asking.deployment.root, "metadata") == []
    index.heal()
    assert comes(lambda: asking.file(f"{WHEEL[0]}.metadata")).data == content


def test_an_origin_of_files_that_is_down_leaves_the_pages(
    index: Upstream, mirrored: Mirrored
) -> None:
    index.files_elsewhere = True
    index.add(*WHEEL)
    asking: Asking = mirrored()
    index.fail("file", "refused")
    assert set(asking.files()) == {WHEEL[0]}
    assert asking.file(WHEEL[0]).status_code in TROUBLE
    index.heal()
    assert asking.file(WHEEL[0]).data == WHEEL[1]
