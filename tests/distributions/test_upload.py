"""What an upload form and its file must contain, and the messages if they do not.

protocol 46-52, 59
"""

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

from private_pypi.distributions.upload import ReceivedFile, check_upload
from private_pypi.errors import InvalidFilename, InvalidUpload, TooLarge
from private_pypi.model import DistributionFile, Upload
from private_pypi.testing.distributions import form_for, make_sdist, make_wheel
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
    """The form of the wheel, with other values; None leaves a field out."""
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

A_NAME = "a name consists of letters, digits and . _ - and begins and ends with a letter or a digit"
VERSION = f"the version in the filename '{WHEEL}' is 1.0"
DAMAGED = "the file was damaged on its way, or the form is wrong"

GOOD_FORMS: dict[str, list[tuple[str, str]]] = {
    "the required fields only": [
        (":action", "file_upload"),
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
        make_sdist("demo", metadata_version="1.1", extra_metadata=[("Provides-Extra", "x")]),
        make_sdist("demo", "1.0", metadata_version="1.3"),
        make_sdist("demo", "1.0", metadata_version="2.0"),
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
            f"{DAMAGED}: the {field.removesuffix('_digest')} of the file is {said}, "
            f"but {field} in the form is '{'0' * len(said)}'"
        )


# -- what is refused -----------------------------------------------------------------------------

BAD_FORMS: dict[str, tuple[list[tuple[str, str]], str]] = {
    "no fields": ([], "the form has the :action ''; for an upload it must be 'file_upload'"),
    "another action": (
        form(action="remove_pkg"),
        "the form has the :action 'remove_pkg'; for an upload it must be 'file_upload'",
    ),
    "another protocol version": (
        form(protocol_version="2"),
        "the form has the protocol_version '2'; it must be '1'",
    ),
    "nothing but an action": (
        [(":action", "file_upload")],
        "the form must have the fields name, version, filetype",
    ),
    "an empty name": (form(name=" "), "the form must have the fields name"),
    "no version": (form(version=None), "the form must have the fields version"),
    "no filetype": (form(filetype=None), "the form must have the fields filetype"),
    "an UNKNOWN name": (form(name="UNKNOWN"), "the form must have the fields name"),
    "a metadata version of an unknown major": (
        form(metadata_version="3.0"),
        "the form has the metadata version '3.0'; it must be 1.x or 2.x",
    ),
    "a metadata version that is none": (
        form(metadata_version="2"),
        "the form has the metadata version '2'; it must be 1.x or 2.x",
    ),
    "the filetype of an sdist": (
        form(filetype="sdist"),
        f"the form has the filetype 'sdist'; for '{WHEEL}' it must be 'bdist_wheel'",
    ),
    "an old filetype": (
        form(filetype="bdist_egg"),
        f"the form has the filetype 'bdist_egg'; for '{WHEEL}' it must be 'bdist_wheel'",
    ),
    "another name": (
        form(name="other"),
        f"the form has the project name 'other', but the project in the filename '{WHEEL}' is demo",
    ),
    "a name that is none": (
        form(name="de mo"),
        f"the form has the project name 'de mo'; {A_NAME}",
    ),
    "a name that only looks right": (
        form(name="dem\u043e"),
        f"the form has the project name 'dem\u043e'; {A_NAME}",
    ),
    "a name with dashes around": (
        form(name="-demo-"),
        f"the form has the project name '-demo-'; {A_NAME}",
    ),
    "another version": (
        form(version="1.1"),
        f"the form has the version '1.1', but {VERSION}",
    ),
    "a local version": (
        form(version="1.0+local"),
        f"the form has the version '1.0+local', but {VERSION}",
    ),
    "a version that is none": (
        form(version="latest"),
        f"the form has the version 'latest', but {VERSION}",
    ),
    "a version beyond what Python converts": (
        form(version="1" * 5000),
        f"the form has the version '{'1' * 100}…', but {VERSION}",
    ),
    "another Requires-Python": (
        form(requires_python=">=3.9"),
        f"the form has Requires-Python '>=3.9', "
        f"but the metadata in '{WHEEL}' has '>=3.8'; they must be the same",
    ),
    "a Requires-Python that is none": (
        form(requires_python="3.8 or newer"),
        "the form has Requires-Python '3.8 or newer'; "
        "it must be a list of version specifiers such as '>=3.9,<4'",
    ),
    "a Requires-Python that is endless": (
        form(requires_python=">=" + "1" * 5000),
        f"the form has Requires-Python '>={'1' * 98}…'; "
        "it must be a list of version specifiers such as '>=3.9,<4'",
    ),
    "no digest": (
        form(sha256_digest=None, blake2_256_digest=""),
        "the form has no hash of the file; it must have sha256_digest",
    ),
    "a digest cut off": (
        form(sha256_digest=SHA256[:-1]),
        f"{DAMAGED}: the sha256 of the file is {SHA256}, "
        f"but sha256_digest in the form is '{SHA256[:-1]}'",
    ),
    "sha256 in base64": (
        form(sha256_digest=base64.urlsafe_b64encode(bytes.fromhex(SHA256)).decode()),
        f"{DAMAGED}: the sha256 of the file is {SHA256}, but sha256_digest in the form is "
        f"'{base64.urlsafe_b64encode(bytes.fromhex(SHA256)).decode()}'",
    ),
} | {
    f"{field} twice": (
        [*form(**{field: value}), (field.upper(), value)],
        f"the form has the field {field!r} 2 times; it must be there once",
    )
    for field, value in {
        "name": "demo",
        "version": "1.0",
        "requires_python": ">=3.8",
        "sha256_digest": SHA256,
        "summary": "",
        "description": "",
        "license_expression": "MIT",
    }.items()
} | {
    f"U+{ord(sign):04X} in a name": (
        form(name=f"de{sign}mo"),
        f"the form has the project name {f'de{sign}mo'!r}; {A_NAME}",
    )
    for sign in "\0\n\t\x1f\u2028"
}  # fmt: skip


@pytest.mark.parametrize(("fields", "sentence"), BAD_FORMS.values(), ids=BAD_FORMS)
def test_a_form_that_is_wrong_is_refused(check: Check, fields: Form, sentence: str) -> None:
    assert refusal(check, fields) == sentence


# Texts are only made safe where they are shown: see `descriptions` and `printable`.
TEXTS: dict[str, tuple[str, str]] = {
    "colours of a terminal": ("summary", "\x1b[1mbold\x1b[0m"),
    "NUL": ("license", "MBR: \0\x55"),
    "C1": ("author", "\xc5\x81ukasz"),
    "NEL": ("comment", "one\x85two"),
    "man-page backspaces": ("maintainer", "b\x08bo\x08o"),
    "a vertical tab": ("license", "MIT\x0bLicense"),
    "DEL": ("keywords", "a,b\x7f"),
    "a tab in a classifier": ("classifiers", "Framework ::\tDjango"),
    "a folded address": ("project_urls", "Documentation,\n https://a.example/"),
    "a folded content type": ("description_content_type", "text/markdown;\n variant=GFM"),
    "a form feed": ("license", "a\n\x0cb"),
}


@pytest.mark.parametrize(("field", "text"), TEXTS.values(), ids=TEXTS)
def test_texts_are_data_whatever_they_are(check: Check, field: str, text: str) -> None:
    upload = check([*form(), (field, text), ("description", text)])
    shown = {"summary": "\ufffd[1mbold\ufffd[0m"}  # the summary is shown on pages
    assert upload.record[field] == shown.get(field, text)
    assert upload.core_metadata == METADATA
    assert "description" not in upload.record


def test_a_folded_requires_python_is_the_one_of_the_file(check: Check) -> None:
    filename, content = make_wheel(requires_python=">=3.8, <4")
    upload = check(form_for(filename, content, requires_python=">=3.8,\n  <4"), content, filename)
    assert upload.file.requires_python == ">=3.8, <4"


def test_keywords_may_come_one_by_one(check: Check) -> None:
    # setuptools before 42 sends several, because the documentation of distutils asks for a list.
    upload = check([*form(), ("keywords", "alpha"), ("keywords", "beta"), ("Keywords", "gamma")])
    assert upload.record["keywords"] == "alpha,beta,gamma"


def test_a_form_need_not_repeat_the_metadata_version_of_the_file(check: Check) -> None:
    for value in (None, "", "UNKNOWN"):
        assert check(form(metadata_version=value)).core_metadata == METADATA


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        (b"Name: demo\nVersion: 1.0\n", "has no Metadata-Version; it must be 1.x or 2.x"),
        (b"", "has no Metadata-Version; it must be 1.x or 2.x"),
        (b"Metadata-Version: 3.0\nName: demo\nVersion: 1.0\n",
         "has the metadata version '3.0'; it must be 1.x or 2.x"),
        (b"Metadata-Version: 2.1\nVersion: 1.0\n",
         f"has the project name (none); {A_NAME}"),
        (b"Metadata-Version: 2.1\nName: other\nVersion: 1.0\n",
         f"has the project name 'other', but the project in the filename '{WHEEL}' is demo"),
        (b"Metadata-Version: 2.1\nName: dem\xc2\xba\nVersion: 1.0\n",
         f"has the project name 'demº'; {A_NAME}"),
        (b"Metadata-Version: 2.1\nName: demo\n",
         f"has the version (none), but {VERSION}"),
        (b"Metadata-Version: 2.1\nName: demo\nVersion: 1.1\n",
         f"has the version '1.1', but {VERSION}"),
        (b"Metadata-Version: 2.1\nName: demo\nVersion: latest\n",
         f"has the version 'latest', but {VERSION}"),
        (b"Metadata-Version: 2.1\nName: demo\nName: demo\nVersion: 1.0\nVersion: 1.0\n",
         "has more than one value for name, version; each must be there once"),
        (b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nRequires-Python: >=3.6.*\n",
         "has Requires-Python '>=3.6.*'; "
         "it must be a list of version specifiers such as '>=3.9,<4'"),
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
        f"the form has Requires-Python '>=3', "
        f"but the metadata in '{WHEEL}' has (none); they must be the same"
    )


def test_an_archive_that_is_wrong_is_refused_by_its_name(check: Check) -> None:
    content = CONTENT[:-1]
    assert refusal(check, form(**digests(content)), content) == (
        f"{WHEEL}: it is not a complete zip file: its end record is missing"
    )
    sdist = make_tar_gz(tar_member(b"demo-1.0/setup.py"))
    fields = form(filetype="sdist", **digests(sdist))
    assert refusal(check, fields, sdist, "demo-1.0.tar.gz") == (
        "demo-1.0.tar.gz: demo-1.0/PKG-INFO is missing; every sdist must have it"
    )


def test_a_wheel_may_not_come_as_an_sdist_nor_the_other_way_round(check: Check) -> None:
    filename, content = make_sdist(format="zip")
    assert refusal(check, form(**digests(content)), content) == (
        f"{WHEEL}: a wheel must have exactly one .dist-info folder, but this one has none"
    )
    assert refusal(check, form(filetype="sdist"), CONTENT, filename) == (
        "demo-1.0.zip: an sdist must have exactly one top folder, but this one has "
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
        f"'{WHEEL}' has {size} bytes; this repository accepts at most {size - 1} bytes"
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
        upload = check(form(requires_python=None, **digests(content)), content)
    sentence = "4 rows of RECORD are wrong: 'gone.py' is not in the wheel"
    assert upload.warnings == (sentence,)
    assert caplog.messages == [f"{WHEEL}: {sentence}"]


@given(st.lists(st.tuples(st.sampled_from([name for name, _ in form()]), st.text(max_size=9))))
def test_any_form_is_taken_or_refused(fields: list[tuple[str, str]]) -> None:
    # The file does not exist, so this fails if it is opened.
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
    assert min(times) < 0.01  # about 0.4 ms on an idle machine
