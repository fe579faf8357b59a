"""How pip, uv, poetry and twine are told to use a repository: addresses, names and commands."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from urllib.parse import quote

from packaging.utils import NormalizedName


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSettings:
    """What tools have to know of a repository."""

    base: str  # the server's address, without a final slash
    repository: str
    needs_secret: bool  # for reading

    @property
    def index_url(self) -> str:
        """The address for installers, without a user."""
        return f"{self.base}/r/{quote(self.repository, safe='')}/simple/"

    @property
    def upload_url(self) -> str:
        """The address for uploads."""
        return f"{self.base}/r/{quote(self.repository, safe='')}/"

    @property
    def index_url_with_user(self) -> str:
        """`index_url` with the user, if a secret is needed: the tool asks for it or looks it up."""
        if not self.needs_secret:
            return self.index_url
        scheme, _, rest = self.index_url.partition("://")
        return f"{scheme}://{quote(self.repository, safe='')}@{rest}"

    @property
    def host(self) -> str:
        """The host in `.netrc`, which has no ports."""
        return re.sub(r":[0-9]+$", "", self.netloc).strip("[]")

    @property
    def netloc(self) -> str:
        """Host and port, under which a keyring has the secret."""
        return self.base.partition("://")[2].partition("/")[0]

    @property
    def index_name(self) -> str:
        """A name for the index that all tools accept."""
        return re.sub(r"[^a-z0-9]+", "-", self.repository.lower()).strip("-") or "private"

    @property
    def variable(self) -> str:
        """The middle of uv's and poetry's variables (`UV_INDEX_<this>_USERNAME`)."""
        return self.index_name.upper().replace("-", "_")


@dataclass(frozen=True, slots=True)
class ShownCommand:
    """A command of a tool, to be copied into a terminal."""

    tool: str
    text: str


def install_commands(
    settings: ToolSettings, project: NormalizedName, version: str | None
) -> tuple[ShownCommand, ...]:
    """The commands of pip, uv and poetry that install a project; `version` None: the newest.

    Each of them uses this index in place of the public one, never beside it. With both, a tool
    could take a dependency from the public index although its name belongs to this repository.
    This index itself redirects to the public one for projects that it does not have.
    """
    what = shlex.quote(project if version is None else f"{project}=={version}")
    name = shlex.quote(settings.index_name)
    url = shlex.quote(settings.index_url_with_user)
    bare = shlex.quote(settings.index_url)
    return (
        ShownCommand("pip", f"pip install --index-url {url} {what}"),
        # Without the user, because uv writes the address into a file that others read.
        ShownCommand("uv", f"uv add --default-index {name}={bare} {what}"),
        ShownCommand(
            "poetry",
            f"poetry source add --priority=primary {name} {bare}\npoetry add {what}",
        ),
    )
