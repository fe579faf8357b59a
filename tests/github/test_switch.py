"""The tests for the real GitHub can be switched on: here they meet the fake one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.clients.environments import CHECKOUT
from tests.github.fake import FakeGitHub

pytestmark = pytest.mark.needs("clients")

_PREFIX = "PRIVATE_PYPI_TEST_GITHUB_"
_FEW = "the_same_bytes_again"
_SOME = (
    f"{_FEW} or an_identifier_opens_its_file or the_projects_are_those_that"
    " or (clients_publish_and_install and redirect)"
)


def run(selected: str, variables: Mapping[str, str]) -> str:
    """What pytest says in the end of the tests that are selected."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((_PREFIX, "PYTEST_")) and name != "CI"
    }
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "tests/github/test_real.py", "-n0", "-q"),
            *("-p", "no:cacheprovider", "-k", selected),
        ],
        cwd=CHECKOUT,
        env=environ | dict(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
    )
    return ended.stdout.decode()


@pytest.mark.parametrize(
    ("owner", "selected", "count"), [("umbrella", _SOME, 6), ("walter", _FEW, 2)]
)
def test_with_a_token_they_run_and_leave_nothing_behind(
    owner: str, selected: str, count: int
) -> None:
    """In an organization, and for a user."""
    with FakeGitHub() as github:
        github.make_org("umbrella")
        said = run(
            selected,
            {
                f"{_PREFIX}TOKEN": github.make_token("walter"),
                f"{_PREFIX}OWNER": owner,
                f"{_PREFIX}API_URL": github.enterprise_url,
            },
        )
        assert re.search(rf"^{count} passed, \d+ deselected", said, re.MULTILINE), said
        made = [r for r in github.requests if r.status == 201 and r.name.endswith("/repos")]
        gone = [r for r in github.requests if r.name.count("/") == 3 and r.method == "DELETE"]
        assert (len(made), len(gone)) == (4, 4)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, f"set {_PREFIX}TOKEN and {_PREFIX}OWNER"),
        ({"CI": "true", f"{_PREFIX}TOKEN": "ghp_x", f"{_PREFIX}OWNER": "acme"}, "CI is set"),
    ],
)
def test_without_one_and_in_ci_the_reason_is_shown(
    variables: Mapping[str, str], reason: str
) -> None:
    said = run(_FEW, variables)
    assert re.search(r"^1 skipped in", said, re.MULTILINE), said
    assert "SKIPPED [1] tests/github/test_real.py" in said
    assert reason in said
