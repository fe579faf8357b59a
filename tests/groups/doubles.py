"""Members of groups whose answers a test decides, and groups of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from packaging.utils import NormalizedName

from private_pypi.backend import Access, Secret
from private_pypi.configuration.config import GroupSettings
from private_pypi.errors import BackendUnavailable, FileNotFound, NotAllowed, WrongSecret
from private_pypi.index.local import ProjectLine
from private_pypi.model import FRESH, DistributionFile, ListedFile, ProjectPage, Upload
from private_pypi.repositories import Absent, Found, ProjectList, Repository, RepositoryState
from private_pypi.repositories.group import Group
from private_pypi.repositories.opening import Opened
from private_pypi.storage.arriving import Arriving

NAME = NormalizedName("wanted")
SECRET = Secret("of the caller")
AT = datetime(2026, 1, 2, tzinfo=UTC)

State = Literal["has", "had", "never", "trouble"]
Rights = Literal["accepts", "refuses", "refuses with a reason", "refuses late", "trouble", "public"]


@dataclass(frozen=True)
class Member:
    """What a member answers about the project `NAME`."""

    kind: Literal["private", "cannot tell", "mirror"] = "private"
    state: State = "never"
    rights: Rights = "accepts"
    claims: bool = False


@dataclass(frozen=True)
class Several:
    """A group: its members, and what its table says of `NAME`."""

    members: tuple[Member | Several, ...]
    claims: bool = False
    mixes: bool = False


class Double(Repository):
    """A repository that answers as a `Member` says, and whose one file has its own name in it."""

    type = "double"
    max_file_bytes = 1000

    def __init__(self, name: str, member: Member) -> None:
        self.name = name
        self.member = member
        self.is_mirror = member.kind == "mirror"
        self.rights_per_project = member.kind == "cannot tell"
        self.claimed = (NAME,) if member.claims else ("something-else-*",)
        if self.is_mirror:
            self.claimed = ()
        self.asked: list[tuple[str, Secret]] = []
        self.published: list[Upload] = []

    @property
    def is_public(self) -> bool:
        return self.member.rights == "public"

    def public_secret(self, *, ask: bool = True) -> Secret:
        return Secret("of everybody")

    def access(
        self,
        secret: Secret,
        need: Access,
        *,
        project: NormalizedName | None = None,
        ask: bool = True,
        client: str = "",
    ) -> Access:
        self.asked.append(("access", secret))
        assert not self.is_mirror or secret == SECRET
        match self.member.rights:
            case "refuses" | "public":
                return Access.NONE
            case "refuses with a reason":
                raise NotAllowed("sign in at the provider first")
            case "trouble":
                raise BackendUnavailable("rights are not known")
        return Access.WRITE

    def _require(self, secret: Secret) -> None:
        self.asked.append(("find", secret))
        if self.is_mirror:
            assert secret == Secret(""), "nobody's secret goes to a mirror"
        elif self.member.rights == "public":
            assert secret == Secret("of everybody")
        else:
            assert secret == SECRET
            if self.member.rights == "refuses late":
                raise WrongSecret
        self._require_up()

    def _require_up(self) -> None:
        if self.member.state == "trouble":
            raise BackendUnavailable(f"{self.name} is down")

    def require_ready(self) -> None:
        self._require_up()

    def state(self) -> RepositoryState:
        return RepositoryState(ready=True, synced_at=None, error=None)

    def serial(self) -> int:
        return 1

    def may_ask_storage(self) -> bool:
        return False

    def find(self, project: NormalizedName, secret: Secret, *, ask: bool = True) -> Found | Absent:
        self._require(secret)
        if project != NAME or self.member.state != "has":
            return Absent()
        return Found(project, 1, FRESH, self, lambda: ProjectPage([self._file()]))

    def _file(self) -> DistributionFile:
        return DistributionFile(
            project=NAME,
            filename=f"{NAME}-1.0-{self.name}.tar.gz",
            size=1,
            sha256="0" * 64,
            location=self.name,
            version="1.0",
            uploaded_at=AT,
            requires_python=None,
            yanked=None,
            core_metadata_sha256=None,
        )

    def ever_had(self, project: NormalizedName) -> bool:
        if self.is_mirror:
            return False
        self._require_up()
        return project == NAME and self.member.state in ("has", "had")

    def had_names(self) -> Collection[NormalizedName]:
        if self.is_mirror:
            return ()
        self._require_up()
        return {NAME} if self.member.state in ("has", "had") else set()

    def list_projects(self, secret: Secret) -> ProjectList:
        self._require(secret)
        names = [(NAME, 1)] if self.member.state == "has" else []
        return ProjectList(self, 1, FRESH, lambda: names)

    def search(
        self, words: Sequence[str], secret: Secret, *, limit: int, offset: int
    ) -> tuple[int, list[ProjectLine]]:
        self._require(secret)
        lines = self._lines()
        return len(lines), lines[offset : offset + limit]

    def _lines(self) -> list[ProjectLine]:
        line = ProjectLine(name=NAME, version="1.0", summary=self.name, uploaded_at=AT)
        return [line] if self.member.state == "has" else []

    def newest_releases(
        self, limit: int, secret: Secret, *, once_each: bool = True
    ) -> list[ProjectLine]:
        assert not self.is_mirror
        self._require(secret)
        return self._lines()

    def newest_projects(self, limit: int, secret: Secret) -> list[ProjectLine]:
        return self.newest_releases(limit, secret)

    def file(
        self,
        project: NormalizedName,
        filename: str,
        secret: Secret,
        need: Access = Access.READ,
    ) -> ListedFile:
        self._require(secret)
        if self.member.state != "has" or filename != self._file().filename:
            raise FileNotFound(filename)
        return self._file()

    def release(
        self,
        project: NormalizedName,
        version: str,
        secret: Secret,
        need: Access = Access.READ,
    ) -> Sequence[ListedFile]:
        self._require(secret)
        return [self._file()]

    def open_file(
        self, file: ListedFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        raise NotImplementedError

    def open_core_metadata(
        self, file: ListedFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        raise NotImplementedError

    def at(self, instant: datetime) -> Double:
        return self

    def publish(self, upload: Upload, secret: Secret) -> DistributionFile:
        assert secret == SECRET
        self.published.append(upload)
        return upload.file


def make(several: Several, name: str = "all", publish_to: str | None = None) -> Group:
    """A group whose members are called "all.0", "all.1", …, and in a group, "all.1.0", …"""
    members: list[Repository] = []
    for number, member in enumerate(several.members):
        inner = f"{name}.{number}"
        if isinstance(member, Several):
            deeper = publish_to if publish_to and publish_to.startswith(f"{inner}.") else None
            members.append(make(member, inner, deeper))
        else:
            members.append(Double(inner, member))
    here = publish_to and next(
        each.name for each in members if f"{publish_to}.".startswith(f"{each.name}.")
    )
    settings = GroupSettings(
        name=name,
        members=tuple(each.name for each in members),
        mix=frozenset({NAME}) if several.mixes else frozenset(),
        publish_to=here,
        claimed=(NAME,) if several.claims else (),
        anonymous_read=False,
    )
    return Group(settings, members)
