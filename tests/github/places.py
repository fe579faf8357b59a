"""Places of both types on a fake GitHub, for servers of any kind: tables, tokens, repositories."""

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
    """What one table of a configuration serves; the table and the owner have one name."""

    type: PlaceType
    name: str
    api_url: str
    repositories: tuple[str, ...]  # "owner/name" on GitHub
    reader: str  # a token
    writer: str  # another

    def table(self, **keys: object) -> str:
        """Its table of `config.toml`, with further keys or other values."""
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
        """Its table of `admin_secret.toml`; nothing where the server needs no token of its own."""
        if self.type == "github_projects":
            return ""
        return _table(self.name, {"type": self.type, "raw": self.writer})


def make_place(
    github: FakeGitHub, place_type: PlaceType, name: str, projects: tuple[str, ...]
) -> Place:
    """Private repositories with one user who may read them, and one who may write.

    The one of `github` holds whatever project there is, those of `github_projects` one each.
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
    """The place with one more repository."""
    name = f"{place.name}/{repository}"
    github.make_repo(place.name, repository, private=True)
    github.set_rights("rita", {name: "read"})
    github.set_rights("walter", {name: "write"})
    return replace(place, repositories=(*place.repositories, name))


def stored(github: FakeGitHub, place: Place) -> dict[str, str]:
    """filename -> sha256 of what is published on GitHub itself, without core metadata."""
    return {
        asset.name: asset.sha256 or ""
        for repository in place.repositories
        for release in github.releases(repository)
        for asset in release.assets.values()
        if not asset.name.endswith(".metadata")
    }


def leftovers(github: FakeGitHub, place: Place) -> list[str]:
    """Drafts, and assets that never became whole."""
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
