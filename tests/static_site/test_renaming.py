"""A wheel under another name installs, and is the same in all but its name."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from private_pypi.distributions.archives import check_archive
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi_static_site.making.renaming import rename_wheel
from tests.clients.environments import Client, install_client, make_venv, site_packages
from tests.clients.installers import install
from tests.github.conftest import github
from tests.pages.test_static_site import served
from tests.static_site.sources import Sources, sources

__all__ = ["github", "sources"]

MODULE = b"def main():\n    print('hello')\n"
FILES = {
    "numpy/__init__.py": MODULE,
    "numpy/data.txt": b"data",
    "numpy-1.0.data/data/share/numpy.txt": b"shared",
    "numpy-1.0.data/scripts/np-script": b"#!python\nprint('script')\n",
    "numpy-1.0.dist-info/entry_points.txt": b"[console_scripts]\nnp-run = numpy:main\n",
    "numpy-1.0.dist-info/licenses/LICENSE": b"MIT",
    "numpy-1.0.dist-info/RECORD.jws": b"{}",
}
WHEEL = make_wheel(
    "NumPy",
    "1.0",
    files=FILES,
    description="The array. Name: NumPy\n",
    extra_metadata=[
        ("Provides-Extra", "all"),
        ("Provides-Extra", "fast"),
        ("Requires-Dist", 'numpy[fast]>=1; extra == "all"'),
        ("Requires-Dist", 'numpy-stubs; extra == "fast"'),
    ],
)


def renamed(folder: Path, name: str = "Kavli-NumPy") -> Path:
    old = folder / WHEEL[0].replace("NumPy", "numpy")
    old.write_bytes(WHEEL[1].replace(b"NumPy-1.0.dist-info", b"numpy-1.0.dist-info"))
    target = folder / "renamed"
    target.mkdir(exist_ok=True)
    return rename_wheel(old, name, target)


def test_everything_but_the_name_is_kept(tmp_path: Path) -> None:
    path = renamed(tmp_path)
    assert path.name == "kavli_numpy-1.0-py3-none-any.whl"
    info = "kavli_numpy-1.0.dist-info"
    with zipfile.ZipFile(path) as wheel:
        members = {each.filename: wheel.read(each) for each in wheel.infolist()}
    record = members.pop(f"{info}/RECORD").decode()
    metadata = members.pop(f"{info}/METADATA").decode()
    assert members == {
        "numpy/__init__.py": MODULE,
        "numpy/data.txt": b"data",
        "kavli_numpy-1.0.data/data/share/numpy.txt": b"shared",
        "kavli_numpy-1.0.data/scripts/np-script": FILES["numpy-1.0.data/scripts/np-script"],
        f"{info}/entry_points.txt": FILES["numpy-1.0.dist-info/entry_points.txt"],
        f"{info}/licenses/LICENSE": b"MIT",
        f"{info}/WHEEL": members[f"{info}/WHEEL"],
    }
    headers, _, body = metadata.partition("\n\n")
    assert "\nName: Kavli-NumPy\n" in headers
    assert 'Requires-Dist: Kavli-NumPy[fast]>=1; extra == "all"' in headers
    assert 'Requires-Dist: numpy-stubs; extra == "fast"' in headers
    assert body == "The array. Name: NumPy\n"
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(record))}
    assert rows.pop(f"{info}/RECORD") == ["", ""]
    members[f"{info}/METADATA"] = metadata.encode()
    assert rows == {name: [digest(content), str(len(content))] for name, content in members.items()}
    assert check_archive(path, path.name).warnings == []


def digest(content: bytes) -> str:
    raw = hashlib.sha256(content).digest()
    return f"sha256={base64.urlsafe_b64encode(raw).decode().rstrip('=')}"


def test_the_same_wheel_gives_the_same_bytes(tmp_path: Path) -> None:
    first = renamed(tmp_path).read_bytes()
    os.utime(tmp_path, (0, 0))
    assert renamed(tmp_path).read_bytes() == first


def test_a_program_can_still_be_run(tmp_path: Path) -> None:
    filename, content = make_wheel("demo", "1.0", files={})
    path = tmp_path / filename
    path.write_bytes(content)
    with zipfile.ZipFile(path, "a") as wheel:
        member = zipfile.ZipInfo("demo/bin/tool")
        member.external_attr = 0o100755 << 16
        wheel.writestr(member, b"#!/bin/sh\n")
    target = tmp_path / "renamed"
    target.mkdir()
    with zipfile.ZipFile(rename_wheel(path, "other", target)) as wheel:
        modes = {each.filename: oct(each.external_attr >> 16) for each in wheel.infolist()}
    assert modes["demo/bin/tool"] == "0o100755"
    assert modes["other-1.0.dist-info/METADATA"] == "0o100644"


@pytest.mark.needs("pip", "uv", "poetry")
@pytest.mark.parametrize("name", ["pip", "uv", "poetry"])
def test_installers_install_it(tmp_path: Path, name: str) -> None:
    path = renamed(tmp_path)
    index = tmp_path / "index"
    page = index / "kavli-numpy"
    page.mkdir(parents=True)
    (page / path.name).write_bytes(path.read_bytes())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    (page / "index.html").write_text(f'<a href="{path.name}#sha256={sha256}">{path.name}</a>')
    home, target = tmp_path / "home", make_venv(tmp_path / "target")
    home.mkdir()
    client = Client(name, install_client(name), home)
    with served(index) as address:
        outcome = install(client, [f"{address}/"], "kavli-numpy", target)
    assert outcome.code == 0, outcome.output
    found = sorted(each.name for each in site_packages(target).glob("*.dist-info"))
    assert "kavli_numpy-1.0.dist-info" in found and "numpy-1.0.dist-info" not in found
    assert (site_packages(target) / "numpy" / "data.txt").read_bytes() == b"data"
    assert (target / "share" / "numpy.txt").read_bytes() == b"shared"
    for program, said in (("np-run", "hello\n"), ("np-script", "script\n")):
        command = [target / "bin" / "python", target / "bin" / program]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert ended.stdout == said


def test_a_project_is_registered_under_another_name(sources: Sources) -> None:
    sources.release("v1.0", make_wheel("demo", "1.0"), make_sdist("demo", "1.0"))
    sources.release("v1.1", make_wheel("demo", "1.1"))
    ran = sources.run("register", "demo", "1.0", "--as=acme-Demo")
    assert ran.code == 0, ran.err
    assert "demo-1.0.tar.gz is left out, because an sdist cannot be renamed" in ran.err
    assert sources.run("update", "acme-demo", "1.1").code == 0
    [project] = sources.site.projects()
    assert (project.name, project.source) == ("acme-Demo", "demo")
    files = [file for version in project.versions for file in version.files]
    assert [(file.filename, file.url) for file in files] == [
        ("acme_demo-1.0-py3-none-any.whl", None),
        ("acme_demo-1.1-py3-none-any.whl", None),
    ]
    metadata = sources.contents()["packages/acme-demo/acme_demo-1.1-py3-none-any.whl.metadata"]
    assert b"Name: acme-Demo\n" in metadata
    assert files[1].core_metadata_sha256 == hashlib.sha256(metadata).hexdigest()
    ran = sources.run("update", "acme-demo", "1.2", "--link_only")
    assert (ran.code, "cannot be renamed" in ran.err) == (2, True)


def test_an_sdist_alone_cannot_be_renamed(sources: Sources) -> None:
    sources.release("v1.0", make_sdist("demo", "1.0"))
    ran = sources.run("register", "demo", "1.0", "--as=acme-demo")
    assert (ran.code, "give --build to build one" in ran.err) == (1, True)
