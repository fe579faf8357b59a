"""What we write is what PyOCI 0.1.40 writes, and what it wrote before can be read."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from private_pypi.distributions.filenames import parse_filename
from private_pypi.errors import BackendError
from private_pypi_oci import layout
from private_pypi_oci.layout import Descriptor, Index, Manifest

CREATED = datetime(2024, 11, 20, 20, 23, 36, tzinfo=UTC)
SDIST = b"someawesomepackagedata"


def test_the_manifest_of_a_file_is_byte_for_byte_that_of_pyoci() -> None:
    """The golden vector of PyOCI's own tests."""
    digest = layout.digest_of(SDIST)
    content = layout.make_manifest(digest, len(SDIST), created=CREATED, labels={}).content()
    assert len(content) == 496
    assert hashlib.sha256(content).hexdigest() == (
        "e281659053054737342fd0c74a7605c4678c227db1e073260b44f845dfdf535a"
    )


def test_the_manifest_of_a_wheel_with_a_label() -> None:
    wheel = b"someawesomewheeldata"
    labels = {layout.SOURCE: "https://github.com/acme/hello"}
    created = datetime(2024, 11, 20, 20, 25, 1, 123456, tzinfo=UTC)
    manifest = layout.make_manifest(
        layout.digest_of(wheel), len(wheel), created=created, labels=labels
    )
    value = json.loads(manifest.content())
    assert list(value) == [
        "schemaVersion", "mediaType", "artifactType", "config", "layers", "annotations",
    ]  # fmt: skip
    assert value["layers"][0]["digest"] == (
        "sha256:c6f1488d94848f3be4e443c734577196ad1dec6d0fa189bc2e1847a5c28808ba"
    )
    assert value["annotations"] == {
        "org.opencontainers.image.source": "https://github.com/acme/hello",
        "org.opencontainers.image.created": "2024-11-20T20:25:01.123456Z",
    }


@pytest.mark.parametrize(
    ("filename", "tag", "architecture"),
    [
        ("foobar-1.0.0.tar.gz", "1.0.0", ".tar.gz"),
        ("foobar-1.0.zip", "1.0", ".zip"),
        ("foobar-1.0-py3-none-any.whl", "1.0", "py3-none-any.whl"),
        (
            "foobar-1.0+abc.1-1234-cp311-cp311-macosx_13_0_x86_64.whl",
            "1.0-abc.1",
            "1234-cp311-cp311-macosx_13_0_x86_64.whl",
        ),
    ],
)
def test_a_filename_is_taken_apart_and_put_together(
    filename: str, tag: str, architecture: str
) -> None:
    parsed = parse_filename(filename)
    assert layout.tag_of(str(parsed.version)) == tag
    assert layout.version_of(tag) == parsed.version
    descriptor = layout.make_descriptor(
        b"{}",
        parsed,
        filename,
        tag=tag,
        file_sha256="0" * 64,
        file_size=7,
        created=CREATED,
        project_urls={"Homepage": "https://acme.example"},
        record={},
    )
    assert descriptor.architecture == architecture
    assert descriptor.filename(parsed.project, tag) == filename
    assert (descriptor.size, descriptor.sha256, descriptor.created) == (7, "0" * 64, CREATED)
    assert "private_pypi.filename" not in descriptor.annotations  # PyOCI makes the same name
    assert descriptor.annotations["com.pyoci.project_urls"] == '{"Homepage":"https://acme.example"}'


def test_a_name_that_pyoci_would_spell_otherwise_is_kept() -> None:
    filename = "Foo.Bar-1.0-py3-none-any.whl"
    parsed = parse_filename(filename)
    descriptor = layout.make_descriptor(
        b"{}", parsed, filename, tag="1.0", file_sha256="0" * 64, file_size=7, created=CREATED,
        project_urls={}, record={},
    )  # fmt: skip
    assert descriptor.filename(canonicalize_name("foo-bar"), "1.0") == filename


@pytest.mark.parametrize("version", ["1!2.0", "1." + "0" * 128])
def test_versions_that_no_tag_can_carry(version: str) -> None:
    assert layout.tag_of(version) is None


@pytest.mark.parametrize("tag", ["latest", "sha256-abc.sig", "main", "1.0-"])
def test_foreign_tags_are_no_versions(tag: str) -> None:
    assert layout.version_of(tag) is None


@pytest.mark.parametrize(
    ("annotations", "created"),
    [
        (None, None),  # until 0.1.13
        ({"org.opencontainers.image.created": "2024-11-20T20:23:36Z"}, CREATED),
        (
            {"org.opencontainers.image.created": "2024-11-20T20:23:36.123456789Z"},
            CREATED.replace(microsecond=123456),
        ),
        ({"org.opencontainers.image.created": "yesterday"}, None),
    ],
)
def test_older_forms_are_read(annotations: dict[str, str] | None, created: datetime | None) -> None:
    value = {
        "mediaType": layout.MANIFEST,
        "digest": "sha256:" + "1" * 64,
        "size": 496,
        "platform": {"architecture": ".tar.gz", "os": "any"},
    }
    if annotations is not None:
        value["annotations"] = annotations
    content = json.dumps(
        {"schemaVersion": 2, "mediaType": layout.INDEX, "artifactType": layout.ARTIFACT,
         "manifests": [value]}
    ).encode()  # fmt: skip
    index = Index.parse(content)
    assert index is not None
    [descriptor] = index.descriptors
    assert descriptor.filename(canonicalize_name("foobar"), "1.0.0") == "foobar-1.0.0.tar.gz"
    assert (descriptor.sha256, descriptor.size, descriptor.record) == (None, None, None)
    assert descriptor.created == created


def test_what_is_not_a_package_is_no_index() -> None:
    assert Index.parse(b'{"schemaVersion":2,"manifests":[]}') is None
    assert Index.parse(b'{"artifactType":"application/pyoci.package.v1","layers":[]}') is None


def test_an_index_keeps_what_others_wrote_into_it() -> None:
    content = layout.compact(
        {
            "schemaVersion": 2,
            "mediaType": layout.INDEX,
            "artifactType": layout.ARTIFACT,
            "manifests": [
                {
                    "mediaType": layout.MANIFEST,
                    "digest": "sha256:" + "1" * 64,
                    "size": 1,
                    "urls": ["https://acme.example"],
                    "annotations": {"theirs": "é"},
                    "platform": {"architecture": ".zip", "os": "any", "variant": "x"},
                }
            ],
            "annotations": {"org.opencontainers.image.created": "2024-11-20T20:23:36Z"},
            "subject": {"digest": "sha256:" + "2" * 64},
        }
    )
    index = Index.parse(content)
    assert index is not None
    assert index.content() == content
    [descriptor] = index.descriptors
    yanked = Index.parse(index.put(descriptor.with_yank("broken")).content())
    assert yanked is not None
    assert yanked.descriptors[0].yanked == "broken"
    assert yanked.put(yanked.descriptors[0].with_yank(None)).content() == content


def test_a_record_is_cut_to_what_fits() -> None:
    facts = {"sha256": "0" * 64, "size": "7", "name": "demo", "requires_python": ">=3.8"}
    record = {**facts, "short": "x", "long": "y" * 100_000}
    assert layout.fit_record(record) == {**facts, "short": "x"}


def test_labels_are_read_from_classifiers() -> None:
    assert layout.labels_of(
        [
            "PyOCI :: Label :: a :: one",
            "PyOCI :: Label :: a :: two :: three",
            "PyOCI :: Label :: nothing",
            "Programming Language :: Python",
        ]
    ) == {"a": "two :: three"}


def test_a_manifest_with_two_layers_is_refused() -> None:
    layer = {"mediaType": layout.ARTIFACT, "digest": "sha256:" + "0" * 64, "size": 1}
    with pytest.raises(Exception, match="exactly one layer"):
        Manifest.parse(json.dumps({"layers": [layer, layer]}).encode())


def test_versions_are_compared_as_pep_440_does() -> None:
    tags = ["1.9", "1.10", "1.10-local.1", "1.10rc1"]
    versions = sorted(filter(None, map(layout.version_of, tags)))
    assert versions == [
        Version("1.9"),
        Version("1.10rc1"),
        Version("1.10"),
        Version("1.10+local.1"),
    ]


def test_a_descriptor_without_anything_is_read() -> None:
    assert Descriptor({}).filename(canonicalize_name("demo"), "1.0") is None


def test_urls_and_classifiers_are_read_from_core_metadata() -> None:
    metadata = (
        b"Metadata-Version: 2.1\r\nName: demo\r\n"
        b"Project-URL: Docs, https://docs.acme.example\r\n"
        b"project-url:Source,https://github.com/acme/demo/  \r\n"
        b"Classifier: PyOCI :: Label :: a :: b\r\n\r\nProject-URL: Not, one\r\n"
    )
    urls = layout.project_urls_of(layout.fields_of(metadata, "Project-URL"))
    assert urls == {
        "Docs": "https://docs.acme.example",
        "Source": "https://github.com/acme/demo/",
    }
    assert layout.source_of(urls) == "https://github.com/acme/demo"
    assert layout.labels_of(layout.fields_of(metadata, "Classifier")) == {"a": "b"}
    assert layout.fields_of(None, "Classifier") == []
    assert layout.source_of({"Homepage": "https://acme.example"}) is None


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"[]", b"null", b"\xff"])
def test_what_a_registry_may_answer_instead_of_a_manifest_is_trouble(content: bytes) -> None:
    for parse in (Index.parse, Manifest.parse):
        with pytest.raises(BackendError):
            parse(content)
