"""`python -m benchmarks` works; that its figures are good is not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

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
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
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
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "'speed' is none of start, pages, files, install, uploads, large" in done.stderr
