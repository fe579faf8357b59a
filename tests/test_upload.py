"""Uploads: what a form and its file must say, and how the refusals read (protocol 46-52, 59)."""

from __future__ import annotations

import base64
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from private_pypi.errors import InvalidFilename, InvalidUpload, TooLarge
from private_pypi.model import DistributionFile, Upload
from private_pypi.testing.distributions import form_for, make_sdist, make_wheel
from private_pypi.upload import ReceivedFile, check_upload
from tests.archives_by_hand import make_tar_gz, make_zip, tar_member, wheel_members

NOW = datetime(2026, 11, 21, 4, 5, 6, 7, tzinfo=UTC)
WHEEL, CONTENT = make_wheel(requires_python=">=3.8")
METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nRequires-Python: >=3.8\n"

Form = Sequence[tuple[str, str]]
Check = Callable[..., Upload]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def check(
        fields: Form,
        content: bytes = CONTENT,
        filename: str = WHEEL,
        *,
        max_file_bytes: int = 2**30,
        digests: Sequence[str] = ("sha256",),
    ) -> Upload:
        path = tmp_path / "upload-x"
        path.write_bytes(content)
        known = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "md5": hashlib.md5(content).hexdigest(),
            "blake2_256": hashlib.blake2b(content, digest_size=32).hexdigest(),
        }
        received = ReceivedFile(
            filename=filename,
            path=path,
            size=len(content),
            digests={name: known[name] for name in digests},
        )
        return check_upload(fields, received, max_file_bytes=max_file_bytes, now=NOW)

    return check


def refusal(check: Check, *arguments: object, **options: object) -> str:
    with pytest.raises(InvalidUpload) as error:
        check(*arguments, **options)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert "upload-x" not in sentence
    assert len(sentence) < 600
    return sentence


def form(**changes: str | None) -> list[tuple[str, str]]:
    """That of the wheel; None leaves a field out."""
    return form_for(WHEEL, CONTENT, **changes)


# -- what comes out ------------------------------------------------------------------------------


def test_a_wheel_becomes_an_upload(check: Check, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    file = DistributionFile(
        project=canonicalize_name("demo"),
        filename=WHEEL,
        version="1.0",
        size=len(CONTENT),
        sha256=sha256,
        uploaded_at=NOW,
        requires_python=">=3.8",
        yanked=None,
        core_metadata_sha256=hashlib.sha256(METADATA).hexdigest(),
        location="",
    )
    assert check(form()) == Upload(
        file=file,
        content=tmp_path / "upload-x",
        core_metadata=METADATA,
        record={
            ":action": "file_upload",
            "protocol_version": "1",
            "filetype": "bdist_wheel",
            "pyversion": "py3",
            "metadata_version": "2.1",
            "name": "demo",
            "version": "1.0",
            "requires_python": ">=3.8",
            "sha256_digest": sha256,
            "blake2_256_digest": hashlib.blake2b(CONTENT, digest_size=32).hexdigest(),
            "distrib": "demo",
            "sha256": sha256,
            "size": str(len(CONTENT)),
            "uploaded_at": "2026-11-21T04:05:06.000007Z",
            "core_metadata_sha256": hashlib.sha256(METADATA).hexdigest(),
        },
    )
    assert [path.name for path in tmp_path.iterdir()] == ["upload-x"]


@pytest.mark.parametrize("style", ["tar.gz", "zip"])
def test_an_sdist_offers_its_metadata_only_if_a_build_keeps_it(check: Check, style: str) -> None:
    for metadata_version, dynamic, offers in (
        ("2.2", "Description", True),
        ("2.2", "Requires-Dist", False),
        ("2.1", "Description", False),
    ):
        filename, content = make_sdist(
            metadata_version=metadata_version,
            extra_metadata=[("Dynamic", dynamic)],
            format="zip" if style == "zip" else "tar.gz",
        )
        upload = check(form_for(filename, content), content, filename)
        metadata = (
            f"Metadata-Version: {metadata_version}\nName: demo\nVersion: 1.0\nDynamic: {dynamic}\n"
        ).encode()
        assert upload.core_metadata == (metadata if offers else None)  # protocol 30
        assert ("core_metadata_sha256" in upload.record) == offers


def test_what_is_served_are_the_bytes_of_the_file_whatever_they_are(check: Check) -> None:
    raw = "Metadata-Version: 1.1\nName: demo\nVersion: 1.0\nAuthor: François\n".encode("latin-1")
    content = make_zip(wheel_members(METADATA=raw))
    fields = form(metadata_version="1.1", requires_python=None, **digests(content))
    assert check(fields, content).core_metadata == raw


def digests(content: bytes) -> dict[str, str | None]:
    return {"sha256_digest": hashlib.sha256(content).hexdigest(), "blake2_256_digest": None}


# -- what is tolerated ---------------------------------------------------------------------------

SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT)

GOOD_FORMS: dict[str, list[tuple[str, str]]] = {
    "the required fields only": [
        (":action", "file_upload"),
        ("metadata_version", "2.1"),
        ("name", "demo"),
        ("version", "1.0"),
        ("filetype", "bdist_wheel"),
        ("sha256_digest", SHA256),
    ],
    "digests in capitals": form(sha256_digest=SHA256.upper(), md5_digest=MD5.hexdigest().upper()),
    "md5 only": form(
        sha256_digest=None, blake2_256_digest=None, md5_digest=MD5.hexdigest()
    ),
    "blake2 only": form(sha256_digest=None),
    "md5 in URL-safe base64": form(md5_digest=base64.urlsafe_b64encode(MD5.digest()).decode()),
    "md5 in base64 without padding": form(
        md5_digest=base64.urlsafe_b64encode(MD5.digest()).decode().rstrip("=")
    ),
    "an empty digest beside another": form(md5_digest=""),
    "no protocol version": form(protocol_version=None),
    "an empty protocol version": form(protocol_version=""),
    "any pyversion": form(pyversion="2.7"),
    "no pyversion": form(pyversion=None),
    "an empty Requires-Python, as uv sends it": form(requires_python=""),
    "no Requires-Python": form(requires_python=None),
    "an UNKNOWN Requires-Python": form(requires_python="UNKNOWN"),
    "Requires-Python in another spelling": form(requires_python=" >= 3.8.0 "),
    "the name in another spelling": form(name="DEMO"),
    "the version in another spelling": form(version="v1.0.0"),
    "an old metadata version": form(metadata_version="1.0"),
    "the newest metadata version": form(metadata_version="2.6"),
    "a metadata version to come": form(metadata_version="2.99"),
    "UNKNOWN twice": [*form(), ("summary", "UNKNOWN"), ("summary", "UNKNOWN")],
    "unknown fields, twice": [*form(), ("new_field", "\0"), ("new_field", "b"), ("", "")],
    "attestations and a signature": [
        *form(),
        ("attestations", "[{}]"),
        ("attestations", "no JSON"),
        ("gpg_signature", "\x88"),
    ],
    "private classifiers": [*form(), ("classifiers", "Private :: Do Not Upload")] * 1,
    "fields in capitals and with dashes": [
        (name.upper().replace("_", "-"), value) for name, value in form()
    ],
    "5,000 fields": [*form(), *(("classifiers", f"A :: {n}") for n in range(5000))],
    "a description of 5 MB": form(description="größer\n" * 700_000),
    "line breaks, tabs and form feeds in texts": form(
        description="a\r\n\tb\f", license="a\n\fb\n", summary="a\n b", keywords="a,\n\tb",
        author_email="a@example.com,\n        b@example.com",
    ),
    "a line break at the end": form(description_content_type="text/markdown\r\n"),
    "emoji": form(summary="\N{SNAKE} größer \N{ZERO WIDTH JOINER}"),
    "every repeated field": [
        *form(),
        *(
            (name, value)
            for name in (
                "classifiers", "requires_dist", "project_urls", "provides_extra",
                "provides_extras", "dynamic", "license_file", "license_files", "platform",
                "supported_platform", "import_names", "import_namespaces", "requires", "provides",
                "obsoletes", "provides_dist", "obsoletes_dist", "requires_external",
            )
            for value in ("a", "b")
        ),
    ],
}  # fmt: skip


@pytest.mark.parametrize("fields", GOOD_FORMS.values(), ids=GOOD_FORMS)
def test_a_form_of_any_tool_is_taken(check: Check, fields: Form) -> None:
    upload = check(fields)
    assert upload.file.requires_python == ">=3.8"
    assert upload.file.sha256 == SHA256
    assert upload.record["requires_python"] == ">=3.8"
    assert all(len(value) <= 1000 for value in upload.record.values())


@pytest.mark.parametrize(
    "made",
    [
        make_wheel("Demo.Pkg", "1.0+local.1"),
        make_wheel("demo", "1!2.0rc1.post2.dev3"),
        make_wheel("demo", "1.0", tag="py2.py3-none-any"),
        make_wheel("demo", "1.0", tag="cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"),
        make_wheel("demo", "1.0", extra_metadata=[("Classifier", "Private :: Do Not Upload")]),
        make_wheel("demo", "1.0", requires_python="  >=3.8 , <4  "),
        make_sdist("Demo.Pkg", "1.0+local.1"),
        make_sdist("Demo.Pkg", "1.0+local.1", format="zip"),
        make_sdist("demo", "1.0", metadata_version="1.0"),
        make_sdist("demo", "1.0", metadata_version="2.99"),
        make_sdist("demo", "1.0", requires_python=""),
    ],
    ids=lambda made: made[0],
)
def test_a_file_of_any_tool_is_taken(check: Check, made: tuple[str, bytes]) -> None:
    filename, content = made
    assert check(form_for(filename, content), content, filename).file.filename == filename


@pytest.mark.parametrize(
    "digests", [("sha256",), ("sha256", "md5"), ("sha256", "md5", "blake2_256")]
)
def test_digests_are_compared_whether_or_not_they_were_made_on_the_way(
    check: Check, digests: Sequence[str]
) -> None:
    fields = form(md5_digest=MD5.hexdigest())
    assert check(fields, digests=digests).file.sha256 == SHA256
    for field in ("sha256_digest", "md5_digest", "blake2_256_digest"):
        said = dict(fields)[field]
        wrong = form_for(WHEEL, CONTENT, **(dict(fields[-3:]) | {field: "0" * len(said)}))
        assert refusal(check, wrong, digests=digests) == (
            f"the file that arrived does not have the {field} of the form: "
            f"it has {said}, the form says '{'0' * len(said)}'"
        )


# -- what is refused -----------------------------------------------------------------------------

BAD_FORMS: dict[str, tuple[list[tuple[str, str]], str]] = {
    "no fields": ([], "unknown :action ''; it must be 'file_upload'"),
    "another action": (
        form(action="remove_pkg"),
        "unknown :action 'remove_pkg'; it must be 'file_upload'",
    ),
    "another protocol version": (form(protocol_version="2"), "Unknown protocol version."),
    "nothing but an action": (
        [(":action", "file_upload")],
        "the form lacks metadata_version, name, version, filetype",
    ),
    "an empty name": (form(name=" "), "the form lacks name"),
    "no version": (form(version=None), "the form lacks version"),
    "no filetype": (form(filetype=None), "the form lacks filetype"),
    "no metadata version": (form(metadata_version=None), "the form lacks metadata_version"),
    "an UNKNOWN name": (form(name="UNKNOWN"), "the form lacks name"),
    "a metadata version of an unknown major": (
        form(metadata_version="3.0"),
        "the form has metadata version '3.0'; only 1.x and 2.x can be read",
    ),
    "a metadata version that is none": (
        form(metadata_version="2"),
        "the form has metadata version '2'; only 1.x and 2.x can be read",
    ),
    "the filetype of an sdist": (
        form(filetype="sdist"),
        f"filetype 'sdist' does not fit '{WHEEL}'; it must be 'bdist_wheel'",
    ),
    "an old filetype": (
        form(filetype="bdist_egg"),
        f"filetype 'bdist_egg' does not fit '{WHEEL}'; it must be 'bdist_wheel'",
    ),
    "another name": (
        form(name="other"),
        f"the form names project 'other', the file is '{WHEEL}'",
    ),
    "a name that is none": (
        form(name="de mo"),
        "the form names project 'de mo'; a name has letters, digits and . _ - only",
    ),
    "a name that only looks right": (
        form(name="dem\u043e"),
        "the form names project 'dem\u043e'; a name has letters, digits and . _ - only",
    ),
    "a name with dashes around": (
        form(name="-demo-"),
        "the form names project '-demo-'; a name has letters, digits and . _ - only",
    ),
    "another version": (
        form(version="1.1"),
        f"the form names version '1.1', the file is '{WHEEL}' (version 1.0)",
    ),
    "a local version": (
        form(version="1.0+local"),
        f"the form names version '1.0+local', the file is '{WHEEL}' (version 1.0)",
    ),
    "a version that is none": (
        form(version="latest"),
        f"the form names version 'latest', the file is '{WHEEL}' (version 1.0)",
    ),
    "a version beyond what Python converts": (
        form(version="1" * 5000),
        f"the form names version '{'1' * 100}…', the file is '{WHEEL}' (version 1.0)",
    ),
    "another Requires-Python": (
        form(requires_python=">=3.9"),
        f"the form has Requires-Python '>=3.9', the metadata in '{WHEEL}' '>=3.8'",
    ),
    "a Requires-Python that is none": (
        form(requires_python="3.8 or newer"),
        "the form has Requires-Python '3.8 or newer', "
        "which is no list of version specifiers such as '>=3.9,<4'",
    ),
    "a Requires-Python that is endless": (
        form(requires_python=">=" + "1" * 5000),
        f"the form has Requires-Python '>={'1' * 98}…', "
        "which is no list of version specifiers such as '>=3.9,<4'",
    ),
    "no digest": (
        form(sha256_digest=None, blake2_256_digest=""),
        "the form has no digest of the file: send sha256_digest",
    ),
    "a digest cut off": (
        form(sha256_digest=SHA256[:-1]),
        "the file that arrived does not have the sha256_digest of the form: "
        f"it has {SHA256}, the form says '{SHA256[:-1]}'",
    ),
    "sha256 in base64": (
        form(sha256_digest=base64.urlsafe_b64encode(bytes.fromhex(SHA256)).decode()),
        "the file that arrived does not have the sha256_digest of the form: it has "
        f"{SHA256}, the form says '{base64.urlsafe_b64encode(bytes.fromhex(SHA256)).decode()}'",
    ),
} | {
    f"{field} twice": (
        [*form(**{field: value}), (field.upper(), value)],
        f"the field {field!r} has one value, but is given 2",
    )
    for field, value in {
        "name": "demo",
        "version": "1.0",
        "requires_python": ">=3.8",
        "sha256_digest": SHA256,
        "summary": "",
        "description": "",
        "license_expression": "MIT",
        "keywords": "a",
    }.items()
} | {
    f"U+{ord(sign):04X} in {field}": (
        form(**{field: f"a{sign}b"}),
        f"the field {field!r} has a control character or a line break (U+{ord(sign):04X}), "
        "which it may not have",
    )
    for field, signs in {
        "description": "\0\x07\x0b\x1b\x7f\x85",
        "summary": "\0\x1b\x9b",
        "name": "\0\n\r\t\x1f\u2028",
        "version": "\n",
        "requires_python": "\n",
        "home_page": "\n\x0c",
        "classifiers": "\n",
        "project_urls": "\n",
        "requires_dist": "\n",
    }.items()
    for sign in signs
}  # fmt: skip


@pytest.mark.parametrize(("fields", "sentence"), BAD_FORMS.values(), ids=BAD_FORMS)
def test_a_form_that_is_wrong_is_refused(check: Check, fields: Form, sentence: str) -> None:
    assert refusal(check, fields) == sentence


def test_a_control_character_at_the_end_is_one_too(check: Check) -> None:
    assert refusal(check, form(name="demo\x1f")).startswith("the field 'name' has a control")


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        (b"Name: demo\nVersion: 1.0\n", "has no Metadata-Version"),
        (b"", "has no Metadata-Version"),
        (b"Metadata-Version: 3.0\nName: demo\nVersion: 1.0\n",
         "has metadata version '3.0'; only 1.x and 2.x can be read"),
        (b"Metadata-Version: 2.1\nVersion: 1.0\n",
         "names project (none); a name has letters, digits and . _ - only"),
        (b"Metadata-Version: 2.1\nName: other\nVersion: 1.0\n",
         f"names project 'other', the file is '{WHEEL}'"),
        (b"Metadata-Version: 2.1\nName: dem\xc2\xba\nVersion: 1.0\n",
         "names project 'demº'; a name has letters, digits and . _ - only"),
        (b"Metadata-Version: 2.1\nName: demo\n",
         f"names version (none), the file is '{WHEEL}' (version 1.0)"),
        (b"Metadata-Version: 2.1\nName: demo\nVersion: 1.1\n",
         f"names version '1.1', the file is '{WHEEL}' (version 1.0)"),
        (b"Metadata-Version: 2.1\nName: demo\nVersion: latest\n",
         f"names version 'latest', the file is '{WHEEL}' (version 1.0)"),
        (b"Metadata-Version: 2.1\nName: demo\nName: demo\nVersion: 1.0\nVersion: 1.0\n",
         "gives more than once: name, version"),
        (b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nRequires-Python: >=3.6.*\n",
         "has Requires-Python '>=3.6.*', "
         "which is no list of version specifiers such as '>=3.9,<4'"),
    ],
)  # fmt: skip
def test_metadata_in_the_file_that_is_wrong_is_refused(
    check: Check, metadata: bytes, sentence: str
) -> None:
    content = make_zip(wheel_members(METADATA=metadata))
    fields = form(requires_python=None, **digests(content))
    assert refusal(check, fields, content) == f"the metadata in '{WHEEL}' {sentence}"


def test_a_form_may_not_make_up_a_requires_python(check: Check) -> None:
    filename, content = make_wheel()
    assert refusal(check, form_for(filename, content, requires_python=">=3"), content) == (
        f"the form has Requires-Python '>=3', the metadata in '{WHEEL}' (none)"
    )


def test_an_archive_that_is_wrong_is_refused_by_its_name(check: Check) -> None:
    content = CONTENT[:-1]
    assert refusal(check, form(**digests(content)), content) == (
        f"{WHEEL}: it is no zip file, or cut off: the end record is missing"
    )
    sdist = make_tar_gz(tar_member(b"demo-1.0/setup.py"))
    fields = form(filetype="sdist", **digests(sdist))
    assert refusal(check, fields, sdist, "demo-1.0.tar.gz") == (
        "demo-1.0.tar.gz: demo-1.0/PKG-INFO is missing"
    )


def test_a_wheel_may_not_come_as_an_sdist_nor_the_other_way_round(check: Check) -> None:
    filename, content = make_sdist(format="zip")
    assert refusal(check, form(**digests(content)), content) == (
        f"{WHEEL}: a wheel has exactly one .dist-info folder, this one has none"
    )
    assert refusal(check, form(filetype="sdist"), CONTENT, filename) == (
        "demo-1.0.zip: an sdist has exactly one top folder, this one has "
        "demo-1.0.dist-info, demo.py"
    )


def test_a_filename_that_is_none_is_refused(check: Check) -> None:
    for filename in ("../demo-1.0.tar.gz", "demo-1.0.exe", "demo.whl", "x" * 5000):
        with pytest.raises(InvalidFilename) as error:
            check(form(), CONTENT, filename)
        assert len(str(error.value)) < 300


def test_a_file_over_the_limit_is_too_large(check: Check) -> None:
    size = len(CONTENT)
    assert check(form(), max_file_bytes=size).file.size == size
    with pytest.raises(TooLarge) as error:
        check(form(), max_file_bytes=size - 1)
    assert str(error.value) == (
        f"'{WHEEL}' has {size} bytes; this repository takes at most {size - 1}"
    )


def test_long_texts_are_not_kept_in_the_record(check: Check) -> None:
    record = check(form(license="x" * 1001, summary="x" * 1000, description="short")).record
    assert record.keys() & {"license", "summary", "description"} == {"summary"}


def test_a_form_cannot_speak_for_the_record(check: Check) -> None:
    filename, content = make_sdist(metadata_version="2.1")
    evil = {"core_metadata_sha256": "0" * 64, "distrib": "evil", "sha256": "0" * 64, "size": "1"}
    upload = check([*form_for(filename, content), *evil.items()], content, filename)
    assert upload.record == check(form_for(filename, content), content, filename).record
    assert "core_metadata_sha256" not in upload.record


def test_a_record_that_disagrees_is_only_told(
    check: Check, caplog: pytest.LogCaptureFixture
) -> None:
    content = make_zip(wheel_members(RECORD=b"gone.py,,\n"))
    with caplog.at_level(logging.WARNING):
        check(form(requires_python=None, **digests(content)), content)
    assert caplog.messages == [f"{WHEEL}: 4 rows of RECORD are wrong: 'demo-1.0.dist-info/METADATA'"
                               " is missing"]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from([name for name, _ in form()]), st.text(max_size=9))))
def test_any_form_is_taken_or_refused(fields: list[tuple[str, str]]) -> None:
    # It never gets as far as the file, which is not there.
    received = ReceivedFile(filename=WHEEL, path=Path("none"), size=1, digests={"sha256": ""})
    with pytest.raises(InvalidUpload):
        check_upload(fields, received, max_file_bytes=1, now=NOW)


@given(st.sampled_from([name for name, _ in form()]), st.text(max_size=20))
def test_any_value_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: str
) -> None:
    path = tmp_path_factory.getbasetemp() / WHEEL
    path.write_bytes(CONTENT)
    received = ReceivedFile(
        filename=WHEEL, path=path, size=len(CONTENT), digests={"sha256": SHA256}
    )
    fields = [(name, value if name == field else old) for name, old in form()]
    try:
        upload = check_upload(fields, received, max_file_bytes=2**20, now=NOW)
    except InvalidUpload:
        return
    assert upload.file.sha256 == SHA256


def test_a_small_wheel_is_checked_in_a_moment(check: Check) -> None:
    fields = form()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        check(fields)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.01  # about 0.4 ms where nothing else runs
