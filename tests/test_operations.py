"""What `docs/operations.md` says: its alerts, its unit, its commands; the metrics are in `web`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from private_pypi.testing.distributions import make_wheel
from tests.faults.servers import READER, WRITER, Servers, table
from tests.machine import need

DOCUMENT = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()

# The repository becomes troubled after ten minutes; its storage's limit was low all the time.
_RULE_TEST = """
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: private_pypi_repository_ready{repository="acme"}
        values: 1x10 0x20
      - series: private_pypi_repository_synchronized_timestamp_seconds{repository="acme"}
        values: 0x30
      - series: private_pypi_provider_limit{repository="acme", resource="core"}
        values: 5000x30
      - series: private_pypi_provider_limit_remaining{repository="acme", resource="core"}
        values: 499x30
      - series: private_pypi_changes_total{action="publish", outcome="failed"}
        values: 0x10 1x20
    alert_rule_test:
      - eval_time: 10m
        alertname: PrivatePypiRepositoryNotReady
      - eval_time: 16m
        alertname: PrivatePypiRepositoryNotReady
        exp_alerts: [{exp_labels: {repository: acme}}]
      - eval_time: 14m
        alertname: PrivatePypiSynchronizationStale
      - eval_time: 21m
        alertname: PrivatePypiSynchronizationStale
        exp_alerts: [{exp_labels: {repository: acme}}]
      - eval_time: 5m
        alertname: PrivatePypiProviderLimitLow
        exp_alerts: [{exp_labels: {repository: acme, resource: core}}]
      - eval_time: 10m
        alertname: PrivatePypiUploadsFail
      - eval_time: 12m
        alertname: PrivatePypiUploadsFail
        exp_alerts: [{exp_labels: {action: publish, outcome: failed}}]
"""


def block(language: str, start: str) -> str:
    """The one block of the document that begins so."""
    found = [
        text
        for text in re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
        if text.startswith(start)
    ]
    assert len(found) == 1
    return str(found[0])


def command(part: str) -> str:
    (found,) = [
        line.removeprefix("$ ")
        for line in DOCUMENT.splitlines()
        if line.startswith("$ ") and part in line
    ]
    return found


@pytest.mark.needs("promtool")
def test_the_alerts_are_rules_and_fire(tmp_path: Path) -> None:
    promtool = need("promtool")
    (tmp_path / "rules.yml").write_text(block("yaml", "groups:"))
    (tmp_path / "test.yml").write_text(_RULE_TEST)
    for arguments in (("check", "rules", "rules.yml"), ("test", "rules", "test.yml")):
        ended = subprocess.run([promtool, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_alerts_ask_for_metrics_that_there_are() -> None:
    rules = block("yaml", "groups:")
    asked = set(re.findall(r"private_pypi_\w+", rules))
    listed = set(re.findall(r"(?m)^\| `(private_pypi_\w+)`", DOCUMENT))
    assert {name.removesuffix("_bucket") for name in asked} <= listed


@pytest.mark.needs("systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = need("systemd-analyze")
    unit = block("ini", "[Unit]")
    program = Path(sys.executable).with_name("private_pypi")
    assert program.exists()
    path = tmp_path / "private-pypi.service"
    path.write_text(unit.replace("/usr/local/bin/private_pypi", str(program)))
    ended = subprocess.run(
        [analyze, "verify", "--man=no", path], capture_output=True, text=True, env=os.environ
    )
    about_ours = [line for line in ended.stderr.splitlines() if "private-pypi" in line]
    assert (ended.returncode, about_ours) == (0, [])


def test_the_unit_gives_flags_that_the_server_has() -> None:
    (line,) = [
        line for line in block("ini", "[Unit]").splitlines() if line.startswith("ExecStart=")
    ]
    flags = re.findall(r"--(\w+)", line)
    shown = subprocess.run(
        [sys.executable, "-m", "private_pypi", "server", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [flag for flag in flags if f"--{flag}" not in shown] == []
    limits = set(re.findall(r"`--(\w+)`", DOCUMENT.partition("## Limits")[2].partition("##")[0]))
    assert [flag for flag in sorted(limits) if f"--{flag}" not in shown] == []


@pytest.mark.needs("a server in a process of its own")
def test_what_was_backed_up_is_there_after_a_restore(servers: Servers, tmp_path: Path) -> None:
    root, restored = tmp_path / "root", tmp_path / "restored"
    environ = {**os.environ, "ROOT": str(root), "BACKUP": str(tmp_path / "backup.tar.gz")}
    server = servers.start(root, table(extra_index_url="http://extra.example/simple/"))
    demo, gone, yanked = (make_wheel(name, "1.0") for name in ("demo", "gone", "yanked"))
    for filename, content in (demo, gone, yanked):
        server.publish(filename, content)
    server.change("DELETE", f"gone/{gone[0]}")
    server.change("POST", f"yanked/{yanked[0]}/yank", reason="broken")
    subprocess.run(["sh", "-c", command("-czf")], env=environ, check=True)
    server.kill()
    environ["ROOT"] = str(restored)
    subprocess.run(["sh", "-c", command("-xzf")], env=environ, check=True)
    assert sorted(path.name for path in restored.iterdir()) == [
        "cache",
        "fingerprint.key",
        "log",
        "session_key",
    ]
    again = servers.start(restored, table(extra_index_url="http://extra.example/simple/"))
    assert again.content(demo[0]) == demo[1]
    assert again.yanked("yanked") == {yanked[0]: "broken"}
    # A name that was deleted stays burnt, and ours.
    assert again.put(*gone).status_code == 400
    assert again.status("/r/mine/simple/gone/") == 404
    assert again.status("/r/mine/simple/never/") == 302
    audit = [json.loads(line) for line in (restored / "log/audit.jsonl").read_text().splitlines()]
    assert [line["action"] for line in audit] == [
        *("publish", "publish", "publish", "delete", "yank", "publish")
    ]
    # The same key, so the same secret has the same fingerprint.
    assert len({line["secret"] for line in audit}) == 1
    assert (READER, WRITER) == (("mine", "r"), ("mine", "w"))
