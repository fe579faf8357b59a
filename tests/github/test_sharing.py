"""Two server processes over one GitHub, in both types: what one does, the other shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from private_pypi.testing.distributions import make_wheel
from tests.clients.serving import Repository, serving
from tests.faults.servers import JSON, sha256
from tests.github.fake import FakeGitHub
from tests.github.places import TYPES, PlaceType, make_place
from tests.waiting import eventually

INTERVAL = 0.5  # seconds after which a server looks again


def listed(repository: Repository) -> dict[str, dict[str, Any]]:
    """What a server shows of demo, to a reader."""
    answer = requests.get(
        f"{repository.index_url}demo/",
        headers=JSON,
        auth=(repository.name, repository.read_secret),
        timeout=30,
    )
    if answer.status_code == 404:
        return {}
    assert answer.status_code == 200, answer.text
    return {file["filename"]: file for file in answer.json()["files"]}


@pytest.mark.needs("a server in a process of its own")
@pytest.mark.parametrize("place_type", TYPES)
def test_what_one_server_publishes_yanks_and_deletes_the_other_shows(
    place_type: PlaceType, tmp_path: Path
) -> None:
    """They have nothing in common but GitHub, and no workflow runs there."""
    with FakeGitHub() as github:
        place = make_place(github, place_type, "acme", ("demo",))
        table = place.table(sync_index_interval=INTERVAL)
        with (
            serving(tmp_path / "one", table, place.admin_table) as first,
            serving(tmp_path / "other", table, place.admin_table) as second,
        ):
            one, other = (
                Repository(
                    origin=origin,
                    name="acme",
                    read_secret=place.reader,
                    write_secret=place.writer,
                )
                for origin in (first, second)
            )
            wheels = dict(make_wheel("demo", version) for version in ("1.0", "2.0"))
            old, new = wheels
            assert (listed(one), listed(other)) == ({}, {})

            one.put(old, wheels[old])
            other.put(new, wheels[new])  # each is new to the other one
            for server in (one, other):
                eventually(
                    lambda server=server: set(listed(server)) == {old, new}, "both files", within=60
                )
                hashes = {name: file["hashes"]["sha256"] for name, file in listed(server).items()}
                assert hashes == {name: sha256(content) for name, content in wheels.items()}

            one.run_command("yank", "demo", "2.0", "--reason", "broken")
            assert listed(one)[new]["yanked"] == "broken"
            eventually(lambda: listed(other)[new]["yanked"] == "broken", "the yank", within=60)

            one.run_command("delete", "demo", "1.0")
            assert set(listed(one)) == {new}
            eventually(lambda: set(listed(other)) == {new}, "the deletion", within=60)
            answer = requests.get(
                f"{other.index_url}demo/{old}", auth=("acme", place.reader), timeout=30
            )
            assert answer.status_code == 404
