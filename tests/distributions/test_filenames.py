"""Filenames of distribution files are parsed, and others are refused."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.tags import parse_tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from private_pypi.distributions.filenames import (
    Kind,
    ParsedFilename,
    file_key,
    is_filename,
    is_version,
    named_projects,
    normalize,
    normalize_version,
    parse_filename,
    split_suffix,
)
from private_pypi.errors import InvalidFilename


@pytest.mark.parametrize(
    ("filename", "project", "version", "kind", "pyversion"),
    [
        ("demo-1.0-py3-none-any.whl", "demo", "1.0", "wheel", "py3"),
        ("demo-1.0-py2.py3-none-any.whl", "demo", "1.0", "wheel", "py2.py3"),
        ("demo-1.0-cp311-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
         "demo", "1.0", "wheel", "cp311"),
        ("demo-1.0-1-py3-none-any.whl", "demo", "1.0", "wheel", "py3"),
        ("demo-1.0-2local-py3-none-any.whl", "demo", "1.0", "wheel", "py3"),
        ("Zope.Interface-5.0-py3-none-any.whl", "zope-interface", "5.0", "wheel", "py3"),
        ("demo_pkg-1.0+local.1-py3-none-any.whl", "demo-pkg", "1.0+local.1", "wheel", "py3"),
        ("demo_pkg-1.0+local_1-py3-none-any.whl", "demo-pkg", "1.0+local.1", "wheel", "py3"),
        ("demo-1!2.0rc1-py3-none-any.whl", "demo", "1!2.0rc1", "wheel", "py3"),
        ("demo-1.0_beta2-py3-none-any.whl", "demo", "1.0b2", "wheel", "py3"),
        ("demo-01.0-py3-none-any.whl", "demo", "1.0", "wheel", "py3"),
        ("demo-1.0.tar.gz", "demo", "1.0", "sdist", "source"),
        ("demo-1.0.zip", "demo", "1.0", "sdist", "source"),
        ("demo_pkg-1.0.tar.gz", "demo-pkg", "1.0", "sdist", "source"),
        ("my-old-demo-1.0.tar.gz", "my-old-demo", "1.0", "sdist", "source"),
        ("Demo.Pkg__x-1.0.post1.dev2+a.b.tar.gz", "demo-pkg-x", "1.0.post1.dev2+a.b",
         "sdist", "source"),
        ("demo-v1.0-1.zip", "demo-v1-0", "1", "sdist", "source"),
        ("2to3-1.tar.gz", "2to3", "1", "sdist", "source"),
    ],
)  # fmt: skip
def test_a_filename_says_what_it_is(
    filename: str, project: str, version: str, kind: Kind, pyversion: str
) -> None:
    parsed = parse_filename(filename)
    assert parsed == ParsedFilename(
        project=canonicalize_name(project),
        version=Version(version),
        kind=kind,
        pyversion=pyversion,
        suffix=parsed.suffix,
        build=parsed.build,
        tags=parsed.tags,
    )
    assert str(parsed.version) == version


@pytest.mark.parametrize(
    ("filename", "key"),
    [
        ("demo-1.0-py3-none-any.whl", "demo/1//py3-none-any.whl"),
        ("DEMO-v1.0.0-PY3-none-ANY.whl", "demo/1//py3-none-any.whl"),
        ("demo-1.0-01-py3-none-any.whl", "demo/1/1/py3-none-any.whl"),
        ("demo-1.0-1a-py3-none-any.whl", "demo/1/1a/py3-none-any.whl"),
        ("demo-1.0-py3.py2-none-any.whl", "demo/1//py2.py3-none-any.whl"),
        ("demo-1.0-py2.py3.py3-none-any.whl", "demo/1//py2.py3-none-any.whl"),
        ("demo-0!1.0.rc.1+A_01-py3-none-any.whl", "demo/1rc1+a.1//py3-none-any.whl"),
        ("Demo.Pkg-1.10.tar.gz", "demo-pkg/1.10//.tar.gz"),
        ("demo__pkg-1.10.zip", "demo-pkg/1.10//.zip"),
    ],
)
def test_spellings_of_one_file_have_one_key(filename: str, key: str) -> None:
    assert parse_filename(filename).key == file_key(filename) == key


def test_a_name_of_no_distribution_file_is_its_own_key() -> None:
    assert file_key("readme.txt") == "readme.txt"


@pytest.mark.parametrize(
    ("filename", "projects"),
    [
        ("Demo_Pkg-1.0-py3-none-any.whl", {"demo-pkg"}),
        ("demo-pkg-1.0-any.whl", {"demo-pkg"}),  # a hyphen too many, and tags too few
        ("demo-latest-py3-none-any.whl", {"demo"}),
        ("demo-v1-x-y-z.whl", {"demo"}),
        ("demo.tar.gz", {"demo"}),
        ("demo-latest.tar.gz", {"demo", "demo-latest"}),
        ("demo-1.0-beta.tar.gz", {"demo"}),
        ("demo.exe", {"demo-exe"}),
        ("-1.0.zip", set()),
        ("d\u00e9mo-1.0.zip", set()),
        ("x" * 300 + ".zip", set()),
    ],
)
def test_a_name_means_a_project_however_it_is_spelled(filename: str, projects: set[str]) -> None:
    assert named_projects(filename) == projects


WHEEL_FORM = (
    "the filename of a wheel must be "
    "<project>-<version>[-<build>]-<python>-<abi>-<platform>.whl, "
    "with _ instead of - in the project name, and a version according to PEP 440"
)
SDIST_FORM = (
    "the filename of a source distribution must be <project>-<version>.tar.gz, "
    "with a version according to PEP 440"
)
ENDINGS = "the filename must end with .whl, .tar.gz or .zip"
CHARACTERS = "only letters, digits and . _ - + ! are allowed"
NAME = "the project name must begin and end with a letter or a digit"


@pytest.mark.parametrize(
    ("filename", "why"),
    [
        ("", ENDINGS),
        ("demo-1.0.tar.bz2", ENDINGS),
        ("demo-1.0.egg", ENDINGS),
        ("demo-1.0.exe", ENDINGS),
        ("demo-1.0.tar", ENDINGS),
        ("demo-1.0.tgz", ENDINGS),
        ("demo-1.0.tar.gz.asc", ENDINGS),
        ("demo-1.0.tar.gz.metadata", ENDINGS),
        ("demo-1.0-py3-none-any.WHL", ENDINGS),
        ("demo.whl", WHEEL_FORM),
        ("demo-1.0-py3-none.whl", WHEEL_FORM),
        ("demo-1.0-py3-none-any-x-y.whl", WHEEL_FORM),
        ("demo-x-py3-none-any.whl", WHEEL_FORM),
        ("demo-1.0-build-py3-none-any.whl", WHEEL_FORM),
        ("de__mo-1.0-py3-none-any.whl", WHEEL_FORM),
        ("-1.0-py3-none-any.whl", WHEEL_FORM),
        (".whl", WHEEL_FORM),
        ("demo.tar.gz", SDIST_FORM),
        ("demo-.tar.gz", SDIST_FORM),
        ("demo-latest.tar.gz", SDIST_FORM),
        ("demo-1.0-beta.tar.gz", SDIST_FORM),
        (".tar.gz", SDIST_FORM),
        ("demo.zip", SDIST_FORM.replace(".tar.gz", ".zip")),
        ("_demo-1.0.tar.gz", NAME),
        ("demo_-1.0-py3-none-any.whl", NAME),
        ("..-1.0.zip", NAME),
        ("-demo-1.0.zip", NAME),
        ("../demo-1.0.tar.gz", CHARACTERS),
        ("demo/demo-1.0.tar.gz", CHARACTERS),
        ("..\\demo-1.0.tar.gz", CHARACTERS),
        ("demo-1.0 .tar.gz", CHARACTERS),
        (" demo-1.0.tar.gz", CHARACTERS),
        ("demo-1.0\n.tar.gz", CHARACTERS),
        ("demo\0-1.0.tar.gz", CHARACTERS),
        ("d\u00e9mo-1.0.tar.gz", CHARACTERS),
        ("demo-\u0661.0.tar.gz", CHARACTERS),
        ("<b>-1.0.tar.gz", CHARACTERS),
        ('de"mo-1.0.tar.gz', CHARACTERS),
        ("demo?-1.0.tar.gz", CHARACTERS),
        ("demo#-1.0.tar.gz", CHARACTERS),
        ("demo%2F-1.0.tar.gz", CHARACTERS),
        ("demo-1.0-py3-none-a$b.whl", CHARACTERS),
    ],
)
def test_what_is_no_filename_is_refused_with_the_reason(filename: str, why: str) -> None:
    with pytest.raises(InvalidFilename) as error:
        parse_filename(filename)
    assert str(error.value) == f"invalid distribution filename {filename!r}: {why}"


def test_a_filename_has_at_most_255_characters() -> None:
    longest = "d" * (255 - len("-1.tar.gz")) + "-1.tar.gz"
    assert parse_filename(longest).project == "d" * 246
    with pytest.raises(InvalidFilename) as error:
        parse_filename("d" + longest)
    assert str(error.value) == (
        f"invalid distribution filename '{'d' * 64}…': "
        "it is longer than 255 characters, which is the limit"
    )


def test_tags_that_multiply_are_refused() -> None:
    many = ".".join(string.ascii_lowercase)  # 26 ** 3 tags in 170 characters
    with pytest.raises(InvalidFilename, match="more than 1000 combinations"):
        parse_filename(f"demo-1.0-{many}-{many}-{many}.whl")
    few = ".".join(string.ascii_lowercase[:10])
    assert parse_filename(f"demo-1.0-{few}-{few}-{few}.whl").pyversion == few


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for filename in (text, f"{text}.whl", f"{text}.tar.gz", f"demo-{text}.zip"):
        try:
            parsed = parse_filename(filename)
        except InvalidFilename:
            continue
        assert canonicalize_name(parsed.project, validate=True) == parsed.project


@given(st.text(string.ascii_letters + string.digits + "._-+!", max_size=40))
def test_any_text_of_the_right_characters_is_parsed_or_refused(text: str) -> None:
    for filename in (f"{text}.tar.gz", f"{text}-1.0.zip", f"{text}-1-py3-none-any.whl"):
        try:
            parsed = parse_filename(filename)
        except InvalidFilename:
            continue
        assert canonicalize_name(parsed.project, validate=True) == parsed.project
        assert Version(str(parsed.version)) == parsed.version


NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True)
VERSIONS = st.from_regex(
    r"([0-9]{1,3}!)?[0-9]{1,4}(\.[0-9]{1,4}){0,3}((a|b|rc)[0-9]{1,2})?(\.post[0-9])?(\.dev[0-9])?"
    r"(\+[a-z0-9]{1,5}(\.[a-z0-9]{1,5})?)?",
    fullmatch=True,
)


@given(NAMES, VERSIONS, st.sampled_from(["", "-1", "-2abc"]))
def test_names_that_tools_build_are_read_back(name: str, version: str, build: str) -> None:
    stem = f"{normalize(name).replace('-', '_')}-{Version(version)}"
    for filename, kind in (
        (f"{stem}.tar.gz", "sdist"),
        (f"{stem}.zip", "sdist"),
        (f"{name}-{version}.tar.gz", "sdist"),  # before PEP 625
        (f"{stem}{build}-py3-none-any.whl", "wheel"),
    ):
        parsed = parse_filename(filename)
        assert (parsed.project, parsed.version, parsed.kind) == (
            normalize(name),
            Version(version),
            kind,
        )
        package, ext = split_suffix(filename)
        assert f"{package}.{ext}" == filename
        assert is_filename(filename)
        assert not is_filename(version)


def test_a_suffix_is_split_off_as_in_0_2() -> None:
    assert split_suffix("a-1.0.tar.gz") == ("a-1.0", "tar.gz")
    assert split_suffix("a-1.0.zip") == ("a-1.0", "zip")
    assert split_suffix("a-1.0-py3-none-any.whl") == ("a-1.0-py3-none-any", "whl")
    with pytest.raises(InvalidFilename, match="must end with"):
        split_suffix("a-1.0.egg")


def test_a_version_is_compared_and_normalised_as_in_pep_440() -> None:
    assert is_version("v1.0.0", Version("1"))
    assert is_version(" 1.0-RC1 ", Version("1.0rc1"))
    assert not is_version("1.0+local", Version("1.0"))
    assert not is_version("latest", Version("1.0"))
    assert not is_version(None, Version("1.0"))
    assert normalize_version("v1.0-RC1") == "1.0rc1"
    assert normalize_version("latest") == "latest"


def test_a_number_that_python_does_not_convert_is_no_version() -> None:
    digits = "1" * 5000
    assert not is_version(digits, Version("1"))
    assert normalize_version(digits) == digits


PARTS = st.sampled_from(
    [
        *("demo", "Demo.Pkg", "a__b", "1", "1.0", "v1.0.0", "1!2.0rc1", "1.0+a_b", "x", "py2.py3"),
        *(
            "any",
            "cp311.CP312",
            "abi3",
            "none",
            "manylinux1_x86_64.linux_x86_64",
            "",
            "_",
            ".",
            "0",
        ),
    ]
)


@given(st.lists(PARTS, min_size=3, max_size=7))
@example(["Demo", "1.0", "py3.py2", "none", "any"])
def test_the_parts_of_a_wheel_mean_what_packaging_says(parts: list[str]) -> None:
    filename = f"{'-'.join(parts)}.whl"
    try:
        project, version, build, tags = parse_wheel_filename(filename)
    except ValueError:
        with pytest.raises(InvalidFilename):
            parse_filename(filename)
        return
    try:
        parsed = parse_filename(filename)
    except InvalidFilename as error:
        assert "begin and end with a letter or a digit" in str(error)  # which packaging allows
        return
    assert (parsed.project, parsed.version) == (project, version)
    assert parsed.build == "".join(map(str, build))
    assert parsed.pyversion == ".".join(sorted({tag.interpreter for tag in tags}))
    assert {str(tag) for tag in parse_tag(parsed.tags)} == {str(tag) for tag in tags}
