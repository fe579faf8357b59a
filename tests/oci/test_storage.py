"""What is peculiar to registries: PyOCI beside us, and what is asked of the registry."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import Secret
from private_pypi.errors import FileAlreadyExists, InvalidUpload, NotAllowed
from private_pypi.storage.retrying import retrying
from private_pypi.testing.contract.helpers import (
    content_of,
    make_upload,
    new_folders,
    published,
)
from private_pypi_oci import OciBackend, OciSettings
from private_pypi_oci.backend import OciStorage
from private_pypi_oci.journal import Journals
from private_pypi_oci.layout import version_of
from tests.machine import need
from tests.oci.pyoci import PyOci
from tests.oci.registries import Registry, registry

pytestmark = pytest.mark.needs("docker-registry")

SECRET = Secret("walter:write-secret")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Registry]:
    with registry(tmp_path / "registry", bearer=False) as running:
        yield running


@pytest.fixture
def pyoci(running: Registry) -> PyOci:
    return PyOci(running.url, "walter", "write-secret")


def over(url: str, tmp_path: Path, secret: Secret = SECRET, **settings: Any) -> OciStorage:
    """The registry as one more server has it, seen with a secret."""
    given = {"registry": url, "namespace": "acme", "plain_http": True, **settings}
    backend = OciBackend(
        OciSettings(name="mine", max_file_bytes=1 << 30, **given), new_folders(tmp_path)
    )
    return OciStorage(backend, secret)


@pytest.fixture
def storage(running: Registry, tmp_path: Path) -> OciStorage:
    return over(running.url, tmp_path)


def names(storage: OciStorage, project: str = "demo") -> list[str]:
    return sorted(stored.filename for stored in storage.project_files(project))


def test_pyoci_reads_what_we_write(storage: OciStorage, pyoci: PyOci, tmp_path: Path) -> None:
    uploads = [
        make_upload(tmp_path, name, name.encode())
        for name in (
            "demo-1.0.tar.gz",
            "demo-1.0-py3-none-any.whl",
            "demo-2.0+local.1-py3-none-any.whl",
        )
    ]
    for upload in uploads:
        storage.put_file(upload)
    assert pyoci.listed("acme", "demo") == {u.file.filename: u.file.sha256 for u in uploads}
    content = pyoci.download("acme", "demo", "1.0", "py3-none-any.whl")
    assert content == b"demo-1.0-py3-none-any.whl"


def test_we_read_what_pyoci_writes(storage: OciStorage, pyoci: PyOci) -> None:
    pyoci.publish("acme", "demo", "1.0", ".tar.gz", b"sdist")
    pyoci.publish("acme", "demo", "1.0", "py3-none-any.whl", b"wheel!")
    files = {stored.filename: stored for stored in storage.project_files("demo")}
    assert sorted(files) == ["demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"]
    wheel = files["demo-1.0-py3-none-any.whl"]
    assert (wheel.size, wheel.record, wheel.yanked) == (6, None, None)
    assert wheel.uploaded_at is not None
    assert storage.read_part(wheel.location, 1, 3) == b"hee"


def test_what_pyoci_writes_again_keeps_our_yank_and_our_facts(
    storage: OciStorage, pyoci: PyOci, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content", {"keywords": "one"})
    file = published(upload, storage.put_file(upload))
    storage.yank_file(file, "broken")
    pyoci.publish("acme", "demo", "1.0", "py3-none-any.whl", b"wheel")
    files = {stored.filename: stored for stored in storage.project_files("demo")}
    stored = files["demo-1.0.tar.gz"]
    assert (stored.yanked, stored.record) == ("broken", upload.record)
    assert content_of(storage.open_core_metadata(file)) == upload.core_metadata


def test_what_pyoci_loses_is_shown_and_put_back(
    running: Registry, storage: OciStorage, pyoci: PyOci, tmp_path: Path
) -> None:
    """It has read the index before we changed it, and writes it after."""
    begun = pyoci.prepare("acme", "demo", "1.0", ".tar.gz", b"sdist")
    upload = make_upload(tmp_path, "demo-1.0-py3-none-any.whl", b"wheel")
    storage.put_file(upload)
    pyoci.write_index(*begun)
    assert list(pyoci.listed("acme", "demo")) == ["demo-1.0.tar.gz"]
    both = ["demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"]
    assert names(storage) == names(over(running.url, tmp_path)) == both
    storage.put_file(upload)  # the same bytes again
    assert sorted(pyoci.listed("acme", "demo")) == both


def test_the_next_upload_puts_back_what_pyoci_lost(
    storage: OciStorage, pyoci: PyOci, tmp_path: Path
) -> None:
    begun = pyoci.prepare("acme", "demo", "1.0", ".tar.gz", b"sdist")
    lost = make_upload(tmp_path, "demo-1.0-py3-none-any.whl", b"wheel")
    file = published(lost, storage.put_file(lost))
    pyoci.write_index(*begun)
    storage.put_file(make_upload(tmp_path, "demo-1.0-cp311-cp311-win32.whl", b"another"))
    listed = ["demo-1.0-cp311-cp311-win32.whl", "demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"]
    assert sorted(pyoci.listed("acme", "demo")) == names(storage) == listed
    assert content_of(storage.open_file(file)) == b"wheel"


def test_what_pyoci_lost_can_be_yanked(storage: OciStorage, pyoci: PyOci, tmp_path: Path) -> None:
    begun = pyoci.prepare("acme", "demo", "1.0", ".tar.gz", b"sdist")
    lost = make_upload(tmp_path, "demo-1.0-py3-none-any.whl", b"wheel")
    file = published(lost, storage.put_file(lost))
    pyoci.write_index(*begun)
    storage.yank_file(file, "broken")
    found = {stored.filename: stored.yanked for stored in storage.project_files("demo")}
    assert found == {"demo-1.0-py3-none-any.whl": "broken", "demo-1.0.tar.gz": None}


def test_what_pyoci_deletes_is_not_taken_for_lost(
    running: Registry, storage: OciStorage, pyoci: PyOci, tmp_path: Path
) -> None:
    storage.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"sdist"))
    storage.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"another"))
    pyoci.delete("acme", "demo", "1.0")
    assert names(storage) == ["demo-2.0.tar.gz"]
    storage.put_file(make_upload(tmp_path, "demo-1.0-py3-none-any.whl", b"wheel"))
    left = ["demo-1.0-py3-none-any.whl", "demo-2.0.tar.gz"]
    assert names(storage) == names(over(running.url, tmp_path)) == left
    assert sorted(pyoci.listed("acme", "demo")) == left


def test_what_a_publication_asks(running: Registry, tmp_path: Path) -> None:
    """Of the first file of a project, and of another version."""

    def asked(number: int) -> Counter[str]:
        log = len(running.asked())
        over(running.url, tmp_path).put_file(
            make_upload(tmp_path, f"demo-{number}.0.tar.gz", b"content")
        )
        lines = [line.split() for line in running.asked()[log:]]
        return Counter(method for method, _, status in lines if status != "401")

    over(running.url, tmp_path).put_file(make_upload(tmp_path, "other-1.0.tar.gz", b"other"))
    # The blob of the journal is mounted from the list of projects, after its absence was noticed.
    assert asked(1) == {"GET": 5, "HEAD": 2, "POST": 3, "PUT": 9}
    # The content is the same, and is not sent again. The lock of the first server is read.
    assert asked(2) == {"GET": 6, "HEAD": 2, "PUT": 5}


def test_foreign_tags_are_passed_over(storage: OciStorage, pyoci: PyOci, tmp_path: Path) -> None:
    storage.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
    for tag in ("latest", "sha256-0123.sig", "2.0"):
        pyoci.put_image("acme/demo", tag)
    assert names(storage) == ["demo-1.0.tar.gz"]
    with pytest.raises(NotAllowed, match=r"'2\.0' of 'acme/demo' is not a Python package"):
        storage.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))


def test_names_with_dots_are_found(storage: OciStorage, pyoci: PyOci) -> None:
    """PyOCI kept the dots of a name, and could not find it again."""
    pyoci.publish("acme", "foo.bar", "1.0", ".tar.gz", b"sdist")
    [stored] = storage.project_files("foo-bar")
    assert stored.filename == "foo_bar-1.0.tar.gz"
    assert storage.read_part(stored.location, 0, 5) == b"sdist"


def test_an_epoch_is_refused_with_the_reason(storage: OciStorage, tmp_path: Path) -> None:
    with pytest.raises(InvalidUpload, match="use a version without an epoch"):
        storage.put_file(make_upload(tmp_path, "demo-1!2.0.tar.gz", b"content"))


def test_only_the_newest_versions_where_the_table_says_so(
    running: Registry, storage: OciStorage, tmp_path: Path
) -> None:
    for version in ("1.9", "1.10", "1.2"):
        storage.put_file(make_upload(tmp_path, f"demo-{version}.tar.gz", version.encode()))
    newest = over(running.url, tmp_path, max_versions=2)
    assert [stored.filename for stored in newest.project_files("demo")] == [
        "demo-1.10.tar.gz",
        "demo-1.9.tar.gz",
    ]


def test_what_a_lookup_asks(running: Registry, storage: OciStorage, tmp_path: Path) -> None:
    """Cold: the tags, each index once, and the journal's. Then the tags and the newest three."""
    for number in range(6):
        storage.put_file(make_upload(tmp_path, f"demo-{number}.0.tar.gz", str(number).encode()))
    reader = over(running.url, tmp_path)

    def asked() -> Counter[str]:
        before = reader.usage().requests
        log = len(running.asked())
        list(reader.project_files("demo"))
        assert sum(reader.usage().requests.values()) > sum(before.values())
        lines = [line.split() for line in running.asked()[log:]]
        return Counter(
            f"{method} {'tags' if 'tags/list' in path else 'manifest'}"
            + (" of the journal" if "journal" in path else "")
            for method, path, status in lines
            if status != "401"
        )

    assert asked() == {
        "GET tags": 1,
        "GET manifest": 6,
        "GET tags of the journal": 1,
    }
    assert asked() == {"GET tags": 1, "HEAD manifest": 3}
    # A server that is started again has kept the manifests on its disk.
    again = OciStorage(OciBackend(reader.backend.settings, reader.backend.folders), SECRET)
    log = len(running.asked())
    assert len(list(again.project_files("demo"))) == 6
    fetched = [
        line
        for line in running.asked()[log:]
        if line.startswith("GET /v2/acme/demo/manifests") and not line.endswith("401")
    ]
    assert fetched == []


def _publish_some(url: str, folder: Path, number: int, count: int) -> list[str]:
    """In a child process: put several wheels of one version, as a server does it."""
    storage: Any = retrying(over(url, folder))  # this registry fails now and then under load
    published = []
    for each in range(count):
        name = f"demo-1.0-{number}{each}-py3-none-any.whl"
        storage.put_file(make_upload(folder, name, name.encode()))
        published.append(name)
    return published


@pytest.mark.needs("time")
def test_sixteen_publishers_of_four_processes_lose_no_file(
    running: Registry, storage: OciStorage, pyoci: PyOci, tmp_path: Path
) -> None:
    """All of one version, each process being a server of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        answers = [
            pool.apply_async(_publish_some, (running.url, tmp_path, number, 4))
            for number in range(1, 5)
        ]
        told = sorted(name for answer in answers for name in answer.get(120))
    assert len(told) == 16
    assert names(storage) == told
    assert sorted(pyoci.listed("acme", "demo")) == told


def test_other_bytes_of_another_server_are_refused(
    running: Registry, storage: OciStorage, tmp_path: Path
) -> None:
    storage.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
    other = over(running.url, tmp_path)
    with pytest.raises(FileAlreadyExists):
        other.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"CONTENT"))
    assert version_of("1.0") is not None


def test_labels_of_the_table_and_of_the_project_become_annotations(
    running: Registry, pyoci: PyOci, tmp_path: Path
) -> None:
    storage = over(running.url, tmp_path, labels=("team=platform", "a=of the table"))
    metadata = (
        b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
        b"Project-URL: Source, https://github.com/acme/demo\n"
        b"Classifier: PyOCI :: Label :: a :: of the project\n"
    )
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content", core_metadata=metadata)
    storage.put_file(upload)
    index = pyoci.index("acme/demo", "1.0")
    assert index is not None
    [descriptor] = index["manifests"]
    assert descriptor["annotations"]["com.pyoci.project_urls"] == (
        '{"Source":"https://github.com/acme/demo"}'
    )
    annotations = pyoci.manifest("acme/demo", descriptor["digest"])["annotations"]
    del annotations["org.opencontainers.image.created"]
    assert annotations == {
        "org.opencontainers.image.source": "https://github.com/acme/demo",
        "team": "platform",
        "a": "of the project",
    }


def test_skopeo_reads_and_copies_what_we_write(
    running: Registry, storage: OciStorage, tmp_path: Path
) -> None:
    storage.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
    program = need("skopeo")
    address = running.url.replace("http://", "docker://") + "/acme/demo"
    tags = subprocess.run(
        [program, "list-tags", "--tls-verify=false", "--creds=walter:write-secret", address],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert json.loads(tags.stdout)["Tags"] == ["1.0"]
    target = tmp_path / "copied"
    subprocess.run(
        [program, "copy", "--all", "--src-tls-verify=false", "--src-creds=walter:write-secret",
         f"{address}:1.0", f"dir:{target}"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert b"content" in [path.read_bytes() for path in target.iterdir()]


def test_what_another_server_deletes_is_not_taken_for_lost(
    running: Registry, storage: OciStorage, tmp_path: Path
) -> None:
    """The version has another file, and the journal was asked for before."""
    uploads = [
        make_upload(tmp_path, name, name.encode())
        for name in ("demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl")
    ]
    stored = [storage.put_file(upload) for upload in uploads]
    reader = over(running.url, tmp_path)
    assert len(names(reader)) == 2
    storage.delete_file(published(uploads[0], stored[0]))
    assert names(reader) == ["demo-1.0-py3-none-any.whl"]


def test_locks_of_several_killed_servers_expire_at_the_same_time(
    running: Registry, storage: OciStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_pypi_oci.journal._HELD_FOR", 2.0)
    monkeypatch.setattr("private_pypi_oci.journal._PATIENCE", 9.0)  # one by one, it would be 12
    with monkeypatch.context() as killed:
        # A server that is killed leaves its lock as it is.
        killed.setattr(Journals, "_release", lambda journals, project: None)
        for _ in range(6):
            with over(running.url, tmp_path)._journals.alone("demo", "1.0"):
                killed.setattr("private_pypi_oci.journal._HELD_FOR", 0.0)
    storage.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
    assert names(storage) == ["demo-1.0.tar.gz"]
