"""Every way in which an upstream can go wrong, at every kind of request (protocol 77-80).

Whatever happens, a client gets the right answer, or an error that is no 404 unless the upstream
says 404; never a short page or list, other bytes, or half a file.
"""

from __future__ import annotations

import pytest
from werkzeug.test import TestResponse

from private_pypi.testing.distributions import make_sdist, make_wheel
from tests.mirror.mirrors import Asking, Clock, Mirrored, be_impatient, cached
from tests.mirror.upstream import Upstream
from tests.mirror.upstream_faults import faults_of

WHEEL = make_wheel("demo", "1.0", files={"demo.bin": bytes(range(256)) * 300})
SDIST = make_sdist("demo", "0.9")
NAMES = {WHEEL[0], SDIST[0]}
ABSENT = {"404", "410"}  # what the upstream says if it has no such thing
TROUBLE = {502, 503, 504}

# In HTML, these answers are what an index may say: a page that is short is a page.
LIES_IN_HTML = {"half, announced as whole", "no list in it"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_impatient(monkeypatch)


@pytest.fixture(params=["json", "html"])
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


@pytest.mark.parametrize("fault", faults_of("page"))
def test_pages(shown: Upstream, mirrored: Mirrored, clock: Clock, fault: str) -> None:
    if shown.format == "html" and fault in LIES_IN_HTML:
        pytest.skip("the upstream says so")
    asking = mirrored()
    shown.fail("page", fault)
    answer = asking.page()
    if answer.status_code == 200:
        assert set(asking.files()) == NAMES
    elif fault in ABSENT:
        assert answer.status_code == 404
    else:
        assert answer.status_code in TROUBLE
    # Nothing is called absent, because nothing is known.
    missing = asking.file(WHEEL[0]).status_code
    assert missing in (TROUBLE if fault not in ABSENT else {404}) or missing == 200
    shown.heal()
    clock.go(31)  # for so long an absence is believed
    assert set(asking.files()) == NAMES
    assert asking.file(WHEEL[0]).data == WHEEL[1]


@pytest.mark.parametrize("fault", faults_of("page"))
def test_pages_that_are_known(
    shown: Upstream, mirrored: Mirrored, clock: Clock, fault: str
) -> None:
    if shown.format == "html" and fault in LIES_IN_HTML:
        pytest.skip("the upstream says so")
    asking = mirrored()
    before = asking.page()
    shown.fail("page", fault)
    clock.go(3601)
    answer = asking.page()
    if fault in ABSENT:
        assert answer.status_code == 404
    else:
        assert (answer.status_code, answer.data) == (200, before.data)
        assert asking.file(SDIST[0]).data == SDIST[1]
        is_stale = "Cache-Status" in answer.headers
        if is_stale:
            # A file that it does not have may be there by now.
            assert asking.file("demo-2.0.tar.gz").status_code in TROUBLE
    shown.heal()
    clock.go(31)
    assert set(asking.files()) == NAMES


@pytest.mark.parametrize("fault", faults_of("list"))
def test_lists(shown: Upstream, mirrored: Mirrored, clock: Clock, fault: str) -> None:
    if shown.format == "html" and fault in LIES_IN_HTML:
        pytest.skip("the upstream says so")
    shown.more_names = [f"other-{number}" for number in range(200)]
    whole = ["demo", *sorted(shown.more_names)]
    asking = mirrored()
    shown.fail("list", fault)
    answer = asking.get("simple/")
    assert answer.status_code in TROUBLE or asking.projects() == whole
    shown.heal()
    assert asking.projects() == whole
    shown.fail("list", fault)
    clock.go(3601)
    assert asking.projects() == whole
    assert asking.get("simple/").status_code == 200
    shown.heal()
    assert asking.projects() == whole


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
    status, body = outcome(asking.file(file[0]))
    if status == 200:
        assert body == file[1]
    else:
        assert status in TROUBLE or status == 0
        assert cached(asking.deployment.root) == []
        assert asking.files()[file[0]]["hashes"].keys() == ({"sha256"} if has_hashes else set())
    index.heal()
    assert outcome(asking.file(file[0])) == (200, file[1])


@pytest.mark.parametrize("fault", faults_of("metadata"))
@pytest.mark.parametrize("hashes_metadata", [True, False])
def test_core_metadata(
    index: Upstream, mirrored: Mirrored, fault: str, hashes_metadata: bool
) -> None:
    content = index.add(*WHEEL, hashes_metadata=hashes_metadata).core_metadata
    asking = mirrored()
    index.fail("metadata", fault)
    status, body = outcome(asking.file(f"{WHEEL[0]}.metadata"))
    if status == 200:
        assert body == content
    else:
        assert status in TROUBLE or status == 0
        assert cached(asking.deployment.root, "metadata") == []
    index.heal()
    assert outcome(asking.file(f"{WHEEL[0]}.metadata")) == (200, content)


@pytest.mark.parametrize("fault", faults_of("range"))
@pytest.mark.parametrize("size", ["known", "unknown"])
def test_ranges(index: Upstream, mirrored: Mirrored, fault: str, size: str) -> None:
    content = index.add(*WHEEL, offers_metadata=None).core_metadata
    if size == "unknown":
        index.change(WHEEL[0], size=None)
    asking = mirrored()
    index.fail("range", fault)
    status, body = outcome(asking.file(f"{WHEEL[0]}.metadata"))
    if status == 200:
        assert body == content
    else:
        assert status in TROUBLE or status == 0
        assert cached(asking.deployment.root, "metadata") == []
    index.heal()
    assert outcome(asking.file(f"{WHEEL[0]}.metadata")) == (200, content)


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
