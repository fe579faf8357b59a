"""Repositories on a fake GitHub, for tests that run with both types of backends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from tests.github.fake import FakeGitHub

PlaceType = Literal["github", "github_projects"]
TYPES: Final[tuple[PlaceType, ...]] = ("github", "github_projects")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The repositories that one table of a configuration serves; their owner has its name."""

    type: PlaceType
    name: str
    api_url: str
    repositories: tuple[str, ...]  # "owner/name" on GitHub
    reader: str  # a token
    writer: str  # another

    def table(self, **keys: object) -> str:
        """The table in `config.toml`; `keys` are added, or replace other values."""
        values: dict[str, object] = {
            "type": self.type,
            "owner": self.name,
            "api_url": self.api_url,
            "extra_index_url": "",
        }
        if self.type == "github":
            values["repo"] = self.repositories[0].partition("/")[2]
        return _table(self.name, values | keys)

    @property
    def admin_table(self) -> str:
        """The table in `admin_secret.toml`; empty if the server needs no token of its own."""
        if self.type == "github_projects":
            return ""
        return _table(self.name, {"type": self.type, "raw": self.writer})


def make_place(
    github: FakeGitHub, place_type: PlaceType, name: str, projects: tuple[str, ...]
) -> Place:
    """Private repositories, with a user who may read them and a user who may write to them.

    For `github` there is one repository for all projects, for `github_projects` one for each.

    """
    place = Place(
        type=place_type,
        name=name,
        api_url=github.api_url,
        repositories=(),
        reader=github.make_token("rita"),
        writer=github.make_token("walter"),
    )
    for project in projects if place_type == "github_projects" else ("pkgs",):
        place = add_project(github, place, project)
    return place


def add_project(github: FakeGitHub, place: Place, repository: str) -> Place:
    """The same place with one more repository."""
    name = f"{place.name}/{repository}"
    github.make_repo(place.name, repository, private=True)
    github.set_rights("rita", {name: "read"})
    github.set_rights("walter", {name: "write"})
    return replace(place, repositories=(*place.repositories, name))


def stored(github: FakeGitHub, place: Place) -> dict[str, str]:
    """The distribution files that are published on GitHub: filename -> SHA-256."""
    return {
        asset.name: asset.sha256 or ""
        for repository in place.repositories
        for release in github.releases(repository)
        for asset in release.assets.values()
        if not asset.name.endswith((".metadata", ".deleted"))
    }


def leftovers(github: FakeGitHub, place: Place) -> list[str]:
    """Drafts, and assets of uploads that were not finished."""
    found = []
    for repository in place.repositories:
        for release in github.releases(repository, drafts=True):
            if release.draft:
                found.append(f"draft {release.tag_name}")
            found += [
                asset.name
                for asset in release.assets.values()
                if asset.state != "uploaded" or asset.name.endswith(".part")
            ]
    return found


def _table(name: str, values: Mapping[str, object]) -> str:
    # JSON values are TOML values as long as there is no null and no object.
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    return f"[{name}]\n" + "".join(lines) + "\n"
