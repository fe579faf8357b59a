"""`python -m benchmarks` works; that its figures are good is not tested here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks_main
from benchmarks import limits, replicas_report
from benchmarks.github_results import (
    install_of_pypihub,
    install_of_seed,
    page_of_pypihub,
    start_of_seed,
    update_of_seed,
    upload_of_seed,
)

pytestmark = pytest.mark.needs("time")

ROOT = Path(__file__).parent.parent

EVERY_SERVER = {
    "start",
    "memory_idle",
    "memory_busy",
    "pages_html",
    "pages_json",
    "pages_one",
    "pages_worst",
    "not_modified",
    "list",
    "unknown",
    "core_metadata",
    "small_files",
    "large_file",
    "large_files",
    "uploads",
    "uploads_password",
    "uploads_parallel",
    "large_1048576",
    "large_1048576_memory",
    "large_4194304",
    "large_4194304_memory",
}
GROWING = {"start", "memory_idle", "memory_busy", "page_cost", "page_cost_any", "upload_cost"}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one quick run of ours alone has put its results."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--peers", "", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert (folder / "RESULTS.md").read_text() in done.stdout
    return folder


def test_a_quick_run_measures_everything_of_ours(out: Path) -> None:
    samples = json.loads((out / "results.json").read_text())
    side_by_side = {s["measure"] for s in samples if s["files"] == 40} - {"install"}
    assert side_by_side == EVERY_SERVER
    assert {s["measure"] for s in samples if s["files"] == 60} == GROWING | {"import"}
    positive = [s for s in samples if not s["measure"].endswith("_memory")]
    assert [s for s in positive if s["value"] <= 0] == []


def test_the_report_says_where_it_was_made_and_what_was_promised(out: Path) -> None:
    report = (out / "RESULTS.md").read_text()
    headings = [line for line in report.splitlines() if line.startswith("#")]
    assert headings[:5] == [
        "# Benchmarks",
        "## Targets",
        "## Side by side, 40 files",
        "## Large uploads",
        "## As the index grows",
    ]
    assert "- Machine: " in report
    assert "- Versions: private_pypi " in report
    assert "Random pages, against devpi" in report
    assert "requests failed" not in report


def test_the_picture_has_a_bar_for_each_value_that_it_names(out: Path) -> None:
    picture = ElementTree.fromstring((out / "results.svg").read_text())
    texts = ["".join(element.itertext()) for element in picture.iter() if "text" in element.tag]
    assert {"Random project pages, HTML", "Uploads, one by one", "Start to first page"} <= {*texts}
    ground, *bars = [element for element in picture.iter() if element.tag.endswith("rect")]
    assert len(bars) == sum(text.endswith(("/s", " ms", " s", " MB")) for text in texts)
    assert all(float(bar.attrib["width"]) > 0 for bar in bars)
    assert float(ground.attrib["height"]) > 200


def test_an_unknown_group_is_refused_with_the_known_ones() -> None:
    command = [sys.executable, "-m", "benchmarks", "--only", "speed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "'speed' is not one of start, pages, files, install, uploads, large" in done.stderr


@pytest.fixture(scope="module")
def over_github(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one quick run over a GitHub of our own has put its results."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-m", "benchmarks", "github", "--quick", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert (folder / "GITHUB.md").read_text() in done.stdout
    return folder


def test_a_run_over_github_counts_what_was_asked(over_github: Path) -> None:
    """Four packages of three releases: file and metadata of each, or of each release a look."""
    rows = json.loads((over_github / "github.json").read_text())
    assert [row for row in rows if row["seconds"] <= 0] == []
    asked = {
        (row["task"], row["way"]): (row["counted"], row["not_counted"], row["storage"])
        for row in rows
    }
    expected = {
        ("A synchronisation without change", "20 releases"): (0, 2, 0),
        ("`update_index`, nothing new", "20 releases"): (4, 0, 0),
        ("One file, the first of its publisher", "`github`"): (6, 0, 0),
        ("2 files, 4 at a time", "`github`"): (10, 0, 0),
        ("uv, cold", "`github`, proxy"): (1 + 2 * 4, 0, 2 * 4),
        ("uv, warm", "`github`, proxy"): (0, 0, 0),
        ("uv, warm, another token", "`github`, proxy"): (1, 0, 0),
        ("uv, cold", "`github`, redirect"): (1 + 2 * 4, 0, 2 * 4),
        ("uv, warm", "`github`, redirect"): (0, 0, 2 * 4),
        ("uv, cold", "`github_projects`"): (4 * (2 + 3), 1, 4 * (3 + 1)),
        ("uv, warm", "`github_projects`"): (0, 0, 0),
        ("The page, unchanged", "5 releases"): (0, 1, 0),
    }
    assert {key: asked.get(key) for key in expected} == expected


def test_the_report_over_github_says_what_is_measured_and_what_computed(over_github: Path) -> None:
    report = (over_github / "GITHUB.md").read_text()
    headings = [line for line in report.splitlines() if line.startswith("#")]
    assert headings == [
        "# Benchmark of the GitHub types",
        "## Targets",
        "## Listing and synchronising, `github`",
        "## Publishing",
        "## Installing 4 packages that need each other, three releases of each",
        "## One project with many releases, `github_projects`",
        "## What the others would have asked",
    ]
    assert "Each of its answers comes 2 ms later than it could" in report
    assert "Computed from what is known of these systems, not measured" in report
    assert "not measured |" not in report
    assert "**missed**" not in report  # these are requests, not times


def test_the_picture_over_github_has_a_bar_for_everybody(over_github: Path) -> None:
    rows = json.loads((over_github / "github.json").read_text())
    picture = ElementTree.fromstring((over_github / "github.svg").read_text())
    _, *bars = [element for element in picture.iter() if element.tag.endswith("rect")]
    assert len(bars) == sum(1 + len(row["computed"]) for row in rows if row["computed"])
    assert all(float(bar.attrib["width"]) > 0 for bar in bars)


def test_what_others_would_have_asked_is_computed_from_what_is_known_of_them() -> None:
    assert [
        update_of_seed(10_000, changed=True).requests,  # login 3, pages 100, read, write
        update_of_seed(101, changed=False).requests,  # login 3, pages 2, read
        start_of_seed().requests,  # synchronisation 4, login 3
        upload_of_seed(20).requests,  # login 3, each 4
        install_of_seed(60, again=False).requests,  # login 3, each 1
        install_of_seed(60, again=True).requests,
        page_of_pypihub(64).requests,
        page_of_pypihub(65).requests,
        install_of_pypihub(60, 3).requests,  # a page and a file of each
    ] == [105, 6, 7, 83, 63, 60, 1, 2, 120]


@pytest.fixture(scope="module")
def over_a_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one quick run over a registry has put its results."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-m", "benchmarks", "oci", "--quick", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert (folder / "OCI.md").read_text() in done.stdout
    return folder


@pytest.mark.needs("docker-registry")
def test_a_run_over_a_registry_counts_what_was_asked(over_a_registry: Path) -> None:
    """Five versions; four packages of three versions each."""
    rows = json.loads((over_a_registry / "oci.json").read_text())
    assert [row for row in rows if row["seconds"] <= 0] == []
    asked = {(row["task"], row["way"]): (row["requests"], row["pyoci"]) for row in rows}
    expected = {
        # Refused without credentials; the rights of the secret and to the project; the tags, the
        # versions, and the tags of the journal.
        ("Cold", "5 versions"): (1 + 2 + 1 + 5 + 1, 1 + 5),
        ("Warm", "5 versions"): (0, 1 + 5),
        ("After the time to live", "5 versions"): (1 + 3, 1 + 5),
        ("uv, warm", "4 packages"): (0, 4 * (1 + 3 + 3)),
        ("uv, warm, pages too old", "4 packages"): (4 * (1 + 3), 4 * (1 + 3 + 3)),
    }
    assert {key: asked.get(key) for key in expected} == expected
    report = (over_a_registry / "OCI.md").read_text()
    assert "**missed**" not in report  # these are requests, not times
    picture = ElementTree.fromstring((over_a_registry / "oci.svg").read_text())
    _, *bars = [element for element in picture.iter() if element.tag.endswith("rect")]
    assert len(bars) == 2 * len(rows)


@pytest.fixture(scope="module")
def over_a_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one quick run over a static site has put its results."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-m", "benchmarks", "static_site", "--quick", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert (folder / "STATIC_SITE.md").read_text() in done.stdout
    return folder


def test_a_run_over_a_static_site_measures_everything(over_a_site: Path) -> None:
    """Twenty projects of two versions; two projects get a version while they are built."""
    rows = json.loads((over_a_site / "static_site.json").read_text())
    assert [(row["group"], row["task"], row["way"]) for row in rows] == [
        ("build", "First build", "20 made"),
        ("build", "Empty output folder, READMEs kept", "20 made"),
        ("build", "Nothing changed", "none made"),
        ("build", "One project updated", "1 made"),
        ("list", "First listing", "42 files"),
        ("list", "Again, nothing changed", "42 files"),
        ("list", "Again, one project updated", "43 files"),
        ("check", "Answers after 0 ms", "20 names"),
        ("check", "Answers after 5 ms", "20 names"),
        ("export", "First export", "40 files"),
        ("export", "Again, nothing changed", "40 files"),
    ]
    assert [row for row in rows if row["seconds"] <= 0] == []
    assert [row for row in rows if row["group"] == "build" and not row["alone"] > 0] == []
    assert [row for row in rows if row["group"] != "list" and not row["memory"] > 0] == []


def test_the_report_over_a_static_site_has_the_targets(over_a_site: Path) -> None:
    report = (over_a_site / "STATIC_SITE.md").read_text()
    headings = [line for line in report.splitlines() if line.startswith("#")]
    assert headings == [
        "# Benchmark of static sites",
        "## Targets",
        "## Building (`static_site.build`)",
        "## Comparing names with the public index (`static_site.check`)",
        "## Listing by the server's backend",
        "## Exporting from `file_system` (`export`)",
    ]
    for promise in ("First build of 20 projects × 2 versions", "≤ 60 s", "≤ 20 s", "≤ 1 s"):
        assert promise in report
    assert "not measured |" not in report
    picture = ElementTree.fromstring((over_a_site / "static_site.svg").read_text())
    _, *bars = [element for element in picture.iter() if element.tag.endswith("rect")]
    rows = json.loads((over_a_site / "static_site.json").read_text())
    assert len(bars) == sum(1 if row["alone"] is None else 2 for row in rows)
    assert all(float(bar.attrib["width"]) > 0 for bar in bars)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "speed"], "'speed' is not one of sync, publish, install, project"),
        (["--delay", "5000"], "'5000' is no number of milliseconds up to 1000"),
    ],
)
def test_what_a_run_over_github_cannot_do_is_refused(arguments: list[str], told: str) -> None:
    command = [sys.executable, "-m", "benchmarks", "github", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert told in done.stderr


@pytest.fixture(scope="module")
def over_mirrors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one quick run over ours and its upstream has put its results."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-m", "benchmarks", "mirror", "--quick", "--out", str(folder)]
    command += ["--servers", "upstream,private_pypi"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert (folder / "MIRROR.md").read_text() in done.stdout
    return folder


OF_MIRRORS = {
    "pages_first",
    "pages_json",
    "pages_html",
    "install_cold",
    "install_warm",
    "large_first_byte",
    "large_whole",
    "large_before",
    "large_peak",
    "shared",
    "shared_asked",
    "page_first",
    "page_again",
    "list_page",
    "list_first",
    "list_again",
    "list_meanwhile",
    "list_peak",
}
COUNTED = {"pages_json", "pages_html", "install_cold", "install_warm", "large_whole"}


@pytest.mark.needs("nginx")
def test_a_run_over_mirrors_measures_everything_and_counts_what_was_asked(
    over_mirrors: Path,
) -> None:
    """Four packages that need each other: a page, metadata and a wheel of each."""
    samples = json.loads((over_mirrors / "mirror.json").read_text())
    assert "## Remarks" not in (over_mirrors / "MIRROR.md").read_text()  # nothing has failed
    for delay in (0, 5):
        of_delay = [s for s in samples if s["delay"] == delay]
        measured = {(s["server"], s["measure"]) for s in of_delay}
        assert measured == {
            *(
                (server, measure)
                for server in ("upstream", "private_pypi")
                for measure in OF_MIRRORS
            ),
            *(("private_pypi", f"{measure}_asked") for measure in COUNTED),
        }
        assert [s for s in of_delay if s["unit"] != "number" and s["value"] <= 0] == []
        ours = {
            s["measure"].removesuffix("_asked"): s["value"]
            for s in of_delay
            if s["unit"] == "number" and s["server"] == "private_pypi"
        }
        assert ours == {
            "pages_json": 0,
            "pages_html": 0,
            "install_cold": 4 * 3,
            "install_warm": 0,
            "large_whole": 1,
            "shared": 1,
        }


@pytest.mark.needs("nginx")
def test_the_report_over_mirrors_has_the_targets_of_each_delay(over_mirrors: Path) -> None:
    report = (over_mirrors / "MIRROR.md").read_text()
    groups = [
        "### Targets",
        "### Pages, 8 connections",
        "### Installing 4 packages that need each other, three releases of each",
        "### A wheel of 2 MiB, cold",
        "### 8 clients that ask for one cold wheel of 128 KiB at once",
        "### The page of a project with 50 files, JSON",
        "### The list of 1,000 projects, JSON",
    ]
    assert [line for line in report.splitlines() if line.startswith("#")] == [
        "# Benchmark of mirrors",
        "## Answers without delay",
        *groups,
        "## Answers of the upstream after 5 ms",
        *groups,
    ]
    picture = ElementTree.fromstring((over_mirrors / "mirror.svg").read_text())
    _, *bars = [element for element in picture.iter() if element.tag.endswith("rect")]
    assert len(bars) == 2 * 2 * 13  # delays, servers, measures
    assert all(float(bar.attrib["width"]) > 0 for bar in bars)


def test_a_run_with_workers_measures_each_number_of_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "workers", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "WORKERS.md").read_text()
    rows = [line.split("|")[1:-1] for line in report.splitlines() if line.startswith("| ")][1:]
    assert [[cell.strip() for cell in row[:2]] for row in rows] == [
        ["pages", "2"],
        ["pages", "1"],
        ["files", "2"],
        ["files", "1"],
    ]
    # The parent and its workers, or the only process.
    assert [len(row[4].split(",")) for row in rows] == [3, 1, 3, 1]
    assert all(float(row[5].replace(",", "")) > 0 for row in rows)
    assert all(re.fullmatch(r"\d+\.\d\d ×", row[6].strip()) for row in rows)
    assert [row[6].strip() for row in rows[1::2]] == ["1.00 ×"] * 2
    assert all(re.fullmatch(r"\d+% of the mean", row[7].strip()) for row in rows)


# -- replicas and limits -------------------------------------------------------------------------


def test_a_run_with_replicas_keeps_what_was_measured_before(tmp_path: Path) -> None:
    """Servers that are killed or restarted under load are the matter of tests/replicas."""
    earlier = {
        "group": "restarted",
        "date": "1 May 2026",
        "machine": "another one",
        "other_work": 0.5,
        "seconds": 60.0,
        "values": {"seconds": 50.0, "ended": 3, "uploads": 100, "pages": 200, "downloads": 200}
        | {"healed": 0, "lost": 0, "wrong": 0, "late": 0.5},
    }
    (tmp_path / "replicas.json").write_text(json.dumps([earlier]))
    command = [sys.executable, "-m", "benchmarks", "replicas", "--quick", "--only"]
    command += ["start,visible", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "replicas.json").read_text())
    assert [row["group"] for row in rows] == ["start", "visible", "restarted"]
    assert rows[2] == earlier
    assert all(value > 0 for row in rows[:2] for value in row["values"].values())
    report = (tmp_path / "REPLICAS.md").read_text()
    assert report in done.stdout
    assert "`restarted`: 1 May 2026" in report
    assert "| 2.0/s, 4.0/s, 4.0/s |" in report


def test_the_document_shows_the_figures_that_were_committed() -> None:
    rows = json.loads((ROOT / "benchmarks" / "replicas.json").read_text())
    outcomes = [replicas_report.Outcome.of_json(row) for row in rows]
    table = "\n".join(replicas_report.figures(outcomes)).strip()
    document = (ROOT / "docs" / "scaling.md").read_text()
    before, _, shown = document.partition("<!-- figures: replicas -->\n")
    assert before != document
    assert shown.partition("\n<!-- end of figures -->")[0] == table
    assert (ROOT / "benchmarks" / "REPLICAS.md").read_text() == replicas_report.render(outcomes)


@pytest.mark.needs("nginx")
def test_a_run_beside_the_limits_measures_each_engine_and_its_bare_callable(tmp_path: Path) -> None:
    own = {"private_pypi", "private_pypi-granian"}
    servers = own | {"bare", "bare-granian", "nginx"}
    two = "private_pypi-granian-2"
    command = [sys.executable, "-m", "benchmarks", "limits", "--quick", "--out", str(tmp_path)]
    command += ["--servers", ",".join([*servers, two]), "--only", "first,requests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "limits.json").read_text())
    costs = {"first", "second", "later"}  # of so few pages, less than the system can measure
    rates = {(row["measure"], row["server"]) for row in rows if row["value"] > 0}
    rates = {(kind, server) for kind, server in rates if kind not in costs}
    kinds = ("pages", "pages_json", "metadata", "wheels", "unknown", "list")
    of_two = {("pages", two), ("metadata", two)}
    assert rates == {(kind, server) for kind in kinds for server in servers} | of_two
    costly = {(row["measure"], row["server"]) for row in rows if row["measure"] in costs}
    assert costly == {(cost, server) for cost in costs for server in own}
    report = (tmp_path / "LIMITS.md").read_text()
    assert report in done.stdout
    for measure in ("Random pages, HTML", "Core metadata"):
        for limit in ("against a constant answer of granian", "on granian with two workers"):
            row = re.search(rf"^\| {measure}, {limit}.*$", report, re.MULTILINE)
            assert row is not None
            assert "not measured" not in row[0]
    engines = report.partition("## Engines")[2]
    assert len(re.findall(r"^\| [\w ].*\|(?: +\d+\.\d\d × \|){3}$", engines, re.MULTILINE)) == 6
    ElementTree.fromstring((tmp_path / "limits.svg").read_text())


def test_a_run_beside_the_limits_names_the_peers_that_are_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(limits, "_measure", lambda *arguments: None)
    assert limits.main(["--out", str(tmp_path / "out")]) == 0
    remarks = capsys.readouterr().out.partition("## Remarks")[2].split("\n")
    peers = ("simple-repository-server", "proxpi", "pypiserver", "devpi")
    assert [line for line in remarks if line] == [
        f"- {peer} is not installed here." for peer in peers
    ]


def test_the_readme_has_a_table_of_all_commands() -> None:
    """A command is a module that can be run as `python -m benchmarks NAME`."""
    readme = (ROOT / "benchmarks" / "README.md").read_text()
    named = re.findall(r"^\| \[`python -m benchmarks(?: (\w+))?`\]", readme, re.MULTILINE)
    assert sorted(named) == sorted(["", *benchmarks_main.OTHERS])
