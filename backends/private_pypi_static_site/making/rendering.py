"""Makes the pages of a site for people and installers, as text, from templates.

A folder `templates/` of the site can replace each template, and add style sheets, scripts and
images in `templates/static/`. Such templates run in a sandbox: they are text of a pull request.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup
from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.distributions.descriptions import Description
from private_pypi.errors import ConfigurationError
from private_pypi.model import DistributionFile
from private_pypi.pages.assets import STATIC, TEMPLATES, Asset, load_assets
from private_pypi.pages.formatting import FILTERS
from private_pypi.pages.simple_api import API_VERSION, anchor
from private_pypi_static_site.folder import SiteSettings
from private_pypi_static_site.making.git_links import direct_requirement, link_for_pip
from private_pypi_static_site.making.public_index import Verdict
from private_pypi_static_site.project_file import Project, SiteVersion

_HERE: Final = Path(__file__).parent
_ASSET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*", re.ASCII)
_PLACEHOLDER: Final = "INDEX-URL"  # in commands, if the settings have no address


@dataclass(frozen=True, slots=True)
class ShownCommand:
    """A command of a tool, to be copied into a terminal."""

    tool: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFile:
    """A file on a page."""

    file: DistributionFile
    url: str  # absolute, or relative to the root of the site; without a fragment

    def at(self, root: str) -> str:
        """Its address on a page from which `root` leads to the root of the site."""
        return self.url if self.url.startswith(("https://", "http://")) else root + self.url

    def anchor(self, root: str) -> Markup:
        """The link for installers."""
        return Markup(anchor(self.file, self.at(root)))  # noqa: S704 - it is escaped there


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownVersion:
    """A version on a page."""

    source: SiteVersion
    files: tuple[ShownFile, ...]  # wheels first
    description: Description
    readme: str = ""  # safe HTML

    @property
    def version(self) -> str:
        """The version, normalised."""
        return self.source.version

    @property
    def is_prerelease(self) -> bool:
        """Whether installers ignore it by default, because it is a pre-release (PEP 440)."""
        return Version(self.version).is_prerelease

    @property
    def is_yanked(self) -> bool:
        """Whether it is yanked as a whole."""
        if not self.files:
            return self.source.yanked is not None
        return all(each.file.yanked is not None for each in self.files)

    @property
    def yank_reasons(self) -> tuple[str, ...]:
        """The reasons for which it was yanked, each once."""
        reasons = [self.source.yanked, *(each.file.yanked for each in self.files)]
        return tuple(dict.fromkeys(reason for reason in reasons if reason))

    @property
    def uploaded_at(self) -> datetime | None:
        """When its first file was uploaded (UTC); None if that is unknown."""
        moments = (each.file.uploaded_at for each in self.files)
        return min((moment for moment in moments if moment is not None), default=None)

    @property
    def requires_python(self) -> str | None:
        """Which versions of Python it is for; None if that is unknown."""
        given = (each.file.requires_python for each in self.files)
        return next(filter(None, given), self.description.requires_python)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownProject:
    """A project on its pages."""

    project: Project
    versions: tuple[ShownVersion, ...]  # newest first; at least one
    current: ShownVersion
    verdict: Verdict | None

    @property
    def has_links_for_pip(self) -> bool:
        """Whether the page has links to git, from which pip installs.

        pip does not take an older file if it cannot read the repository of a newer version. So
        there are such links only if there are no files at all.
        """
        return not any(each.files for each in self.versions)

    @property
    def name(self) -> NormalizedName:
        """The name of its folder."""
        return self.project.normalized

    @property
    def summary(self) -> str | None:
        """What it is, in a sentence."""
        return self.project.summary or self.current.description.summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A project on the start page."""

    name: str  # normalised
    title: str
    version: str
    is_prerelease: bool
    is_yanked: bool
    summary: str | None
    uploaded_at: str | None  # as `format_time` writes it
    day: str | None
    danger: str | None  # of the verdict, if it is one of danger
    author: str | None

    @classmethod
    def of(cls, shown: ShownProject) -> Card:
        """The card of a project."""
        moment = shown.current.uploaded_at
        verdict = shown.verdict
        return cls(
            name=shown.name,
            title=shown.project.name,
            version=shown.current.version,
            is_prerelease=shown.current.is_prerelease,
            is_yanked=shown.current.is_yanked,
            summary=shown.summary,
            uploaded_at=None if moment is None else FILTERS["moment"](moment),
            day=None if moment is None else FILTERS["day"](moment),
            danger=verdict.kind if verdict is not None and verdict.is_danger else None,
            author=shown.project.author,
        )


class Pages:
    """Makes pages. Its methods raise `ConfigurationError` if a template of the site is wrong."""

    def __init__(self, settings: SiteSettings, own: Path, *, public_index: str | None) -> None:
        """`own` is the folder with templates of the site, which need not exist.

        `public_index` is the address of the public index's simple API, with which names are
        compared where a page is opened; None: they are not.
        """
        self._settings = settings
        self._own = own
        _require_no_links(own)
        folders = [_HERE / "templates", TEMPLATES]
        self.assets: Mapping[str, Asset] = {
            **load_assets(STATIC),
            **load_assets(_HERE / "static"),
            **_own_assets(own / "static"),
        }
        kind = ImmutableSandboxedEnvironment if own.is_dir() else Environment
        self._environment = kind(
            loader=ChoiceLoader([FileSystemLoader(each) for each in (own, *folders)]),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,  # else each page looks for changed templates
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(FILTERS)
        public = None if public_index is None else _json_api(public_index)
        self._environment.globals.update(
            site=settings,
            public_api=public,
            policy=_policy(public),
            api_version=API_VERSION,
            index_url=settings.url or _PLACEHOLDER,
            placeholder=_PLACEHOLDER,
        )
        sources = sorted(path for folder in (own, *folders) for path in folder.glob("*.html"))
        facts = [path.read_bytes() for path in sources]
        names = [asset.name for asset in self.assets.values()]
        self.fingerprint = hashlib.sha256(
            repr([facts, names, settings, public]).encode()
        ).hexdigest()
        """Other pages have another one, if what they show is the same."""

    def start(self, cards: Sequence[Card]) -> str:
        """The list of projects (PEP 503), and the start page for people."""
        dated = [card for card in cards if card.uploaded_at is not None]
        newest = sorted(dated, key=lambda card: card.uploaded_at or "", reverse=True)[:6]
        return self._render("start.html", root="", cards=cards, newest=newest)

    def project(self, shown: ShownProject) -> str:
        """The page of a project, for installers (PEP 503) and for people."""
        current = shown.current
        return self._render(
            "project.html",
            root="../",
            shown=shown,
            link_for_pip=link_for_pip,
            commands=self._commands(shown.project, current, None),
        )

    def version(self, shown: ShownProject, version: ShownVersion) -> str:
        """The page of a version, for people."""
        wanted = None if version is shown.current else version.version
        return self._render(
            "version.html",
            root="../../",
            shown=shown,
            release=version,
            # Safe, because `pages.readme` has made this HTML, or has escaped the text.
            readme=Markup(version.readme),  # noqa: S704
            commands=self._commands(shown.project, version, wanted),
        )

    def files(self, anchors: Sequence[str]) -> str:
        """All files, for installers that are given a flat page (`--find-links`)."""
        # Safe, because `simple_api.anchor` has made them.
        return self._render("files.html", root="", anchors=Markup("<br>\n".join(anchors)))  # noqa: S704

    def not_found(self) -> str:
        """What a host shows for addresses that there are not, in whatever folder they are."""
        path = urlsplit(self._settings.url).path if self._settings.url else "/"
        return self._render("404.html", root=path)

    def _render(self, name: str, root: str, **values: Any) -> str:
        def asset(of: str) -> str:
            return f"{root}static/{self.assets[of].name}"

        with self._explained(name):
            template = self._environment.get_template(name)
            return template.render(root=root, asset=asset, **values)

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # A template can compute, so it can fail in any way: by a division, without an end.
            if not self._own.is_dir():
                raise
            line = f", line {error.lineno}" if hasattr(error, "lineno") else ""
            raise ConfigurationError(
                f"the page {name!r} cannot be made with the templates in {str(self._own)!r}: "
                f"{error}{line}"
            ) from error

    def _commands(
        self, project: Project, version: ShownVersion, wanted: str | None
    ) -> tuple[ShownCommand, ...]:
        """The commands that install a version; `wanted` None: the newest.

        pip asks this index only. uv and poetry take the project from here, and are told so in the
        user's project: they never choose between this index and the public one by version.
        """
        if not version.files:
            return _direct_commands(project, version.source)
        name = project.normalized
        what = shlex.quote(name if wanted is None else f"{name}=={wanted}")
        url = shlex.quote(self._settings.url or _PLACEHOLDER)
        index = re.sub(r"[^a-z0-9]+", "-", self._settings.title.lower()).strip("-") or "site"
        return (
            ShownCommand("pip", f"pip install --index-url {url} {what}"),
            ShownCommand("uv", f"uv add --index {index}={url} {what}"),
            ShownCommand(
                "poetry",
                f"poetry source add --priority=explicit {index} {url}\n"
                f"poetry add --source {index} {what}",
            ),
        )


def _direct_commands(project: Project, version: SiteVersion) -> tuple[ShownCommand, ...]:
    """The commands that install a version from its tag, with the user's own git.

    There are none if the tag or the address cannot be written for all tools.
    """
    requirement = direct_requirement(project, version)
    if requirement is None:
        return ()
    what = shlex.quote(requirement)
    return (
        ShownCommand("pip", f"pip install {what}"),
        ShownCommand("uv", f"uv add {what}"),
        ShownCommand("poetry", f"poetry add {what}"),
    )


def _require_no_links(templates: Path) -> None:
    """Templates come with pull requests, which can contain links to any file of this machine."""
    for path in (templates, *sorted(templates.rglob("*"))):
        if path.is_symlink():
            raise ConfigurationError(f"{str(path)!r} must not be a symbolic link")


def _own_assets(folder: Path) -> Mapping[str, Asset]:
    found = load_assets(folder) if folder.is_dir() else {}
    for name in found:
        if not _ASSET.fullmatch(name):  # the list of an output folder has no others
            raise ConfigurationError(
                f"{str(folder / name)!r} cannot be a part of the pages; its name must consist of "
                "letters, digits and . _ + -, and begin with a letter or a digit"
            )
    return found


def _json_api(simple_url: str) -> str:
    """The address of the JSON API of the public index: projects are below it."""
    return f"{simple_url.rstrip('/').removesuffix('/simple')}/pypi/"


def _policy(public: str | None) -> str:
    """The Content-Security-Policy of the pages."""
    asked = "'none'" if public is None else "{0.scheme}://{0.netloc}".format(urlsplit(public))
    return "; ".join(
        (
            "default-src 'none'",
            "style-src 'self'",
            "script-src 'self'",
            "img-src 'self'",
            f"connect-src {asked}",
            "form-action 'none'",
            "base-uri 'none'",
        )
    )
