"""Compares the names of a site with the public index, and keeps what was found.

Who has a second index beside the public one may be given a stranger's package of the same name
("dependency confusion"). So each name of a site is compared with the public index by PEP 440.

The verdicts lie in `.private_pypi-verdicts.json` in the folder of the site:

    {
      "format": 1,
      "public_index": "https://…/simple/",
      "verdicts": {
        "demo": {
          "kind": "higher",
          "public_version": "2.0",
          "our_version": "1.0",
          "checked_at": "2026-01-03T12:30:00Z"
        }
      }
    }
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.distributions.filenames import normalize, parse_filename
from private_pypi.errors import BackendError, ConfigurationError, InvalidFilename
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making.http_client import AT_ONCE, HttpClient
from private_pypi_static_site.project_file import Project, is_url

VERDICTS: Final = ".private_pypi-verdicts.json"

Kind = Literal["free", "ours", "taken", "higher"]
"""What the public index has under a name: nothing, so that anybody may register it; our own
project; a stranger's project; a stranger's version that installers prefer to ours."""

_JSON: Final = "application/vnd.pypi.simple.v1+json"  # PEP 691
_LARGEST_PAGE: Final = 32 << 20  # bytes; the largest pages of the public index have half of that
_LARGEST_VERDICTS: Final = 16 << 20  # bytes
_LONGEST_VERSION: Final = 255  # characters
_MOST_TROUBLES: Final = 16  # names without an answer after which the others are not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the public index was found to have under a name. The versions are normalised."""

    kind: Kind
    public_version: str | None = None
    """The highest there, pre-releases and yanked ones too; for `higher`, the one that is preferred.
    None: no version."""
    our_version: str | None = None  # the version here that it was compared with; None: none
    checked_at: datetime  # UTC, whole seconds

    @property
    def is_danger(self) -> bool:
        """Whether an installer that asks both indexes may install a stranger's project."""
        return self.kind in ("taken", "higher")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What asking the public index for all names of a site came to."""

    verdicts: Mapping[NormalizedName, Verdict] = field(default_factory=dict)  # of today
    troubles: Mapping[NormalizedName, str] = field(default_factory=dict)
    """Why there is no verdict of today; a sentence."""


class PublicIndex:
    """An index that everybody can read, asked through its JSON API (PEP 691, PEP 700).

    `url` is the address of its root. Raises `ConfigurationError` if it is none.
    """

    def __init__(self, url: str, client: HttpClient) -> None:
        if not is_url(url) or "?" in url or "#" in url:
            # It is not shown, because it may contain a password.
            raise ConfigurationError(
                "--public_index is not the address of an index; it must begin with https:// or "
                "http:// and must not have a user or a password"
            )
        self.url = url.rstrip("/") + "/"
        self._client = client
        self._parsing = threading.Lock()  # guards memory: one page at a time becomes objects

    def probe(self) -> None:
        """Make sure that this is an index: at a wrong address, every name would seem to be free.

        Raises `BackendError`.
        """
        answer = self._client.ask("GET", self.url, headers=_accepting_json)
        if answer.status != 200 or not _is_json(answer.headers):
            raise BackendError(
                f"{self.url} is no index with the JSON API (PEP 691): it answered {answer.status} "
                f"with the type {answer.headers.get('Content-Type')!r}"
            )

    def versions(self, name: NormalizedName) -> Sequence[Version] | None:
        """All versions of a project, in no order; None if the index does not have the project.

        Texts that are no versions are left out. Raises `BackendError` if the answer does not tell.
        """
        url = f"{self.url}{name}/"
        answer = self._client.ask("GET", url, headers=_accepting_json, largest=_LARGEST_PAGE)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise BackendError(f"{url} answered {answer.status}")
        if not _is_json(answer.headers):
            raise BackendError(
                f"{url} answered with the type {answer.headers.get('Content-Type')!r} instead of "
                f"{_JSON}"
            )
        with self._parsing:
            return _versions(answer.body, name, url)


def _accepting_json(_: str) -> Mapping[str, str]:
    return {"Accept": _JSON}


def _is_json(headers: Mapping[str, str]) -> bool:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() == _JSON


def _versions(body: bytes, name: NormalizedName, url: str) -> list[Version]:
    try:
        page = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BackendError(f"the answer of {url} is no JSON") from error
    told = page.get("name") if isinstance(page, dict) else None
    if not isinstance(told, str) or normalize(told) != name:
        raise BackendError(f"the answer of {url} is no page of {name!r}")
    texts = page.get("versions")  # PEP 700: all of them, also those without files
    if not isinstance(texts, list):
        files = page.get("files")
        if not isinstance(files, list):
            raise BackendError(f"the answer of {url} has neither versions nor files")
        names = [each.get("filename") if isinstance(each, dict) else None for each in files]
        texts = [_version_in(each) for each in names if isinstance(each, str)]
    found = {_parsed(each) for each in texts if isinstance(each, str)}
    return [each for each in found if each is not None]


def _version_in(filename: str) -> str | None:
    try:
        return str(parse_filename(filename).version)
    except InvalidFilename:
        return None


def _parsed(text: str) -> Version | None:
    try:
        return Version(text) if len(text) <= _LONGEST_VERSION else None
    except ValueError:  # InvalidVersion, or too many digits for Python to convert
        return None


# -- comparing -------------------------------------------------------------------------------------


def judge(project: Project, there: Sequence[Version] | None, now: datetime) -> Verdict:
    """The verdict about a project, given the versions of its name on the public index.

    It is `higher` if installers could prefer a version there: because it is higher than all here,
    or because it is a higher final release, and pre-releases are used only when they are asked for.
    What is yanked here does not count, since installers avoid it; what is yanked there does,
    because that may be taken back.
    """
    now = now.astimezone(UTC).replace(microsecond=0)
    here = [
        version.parsed
        for version in project.versions
        if (
            any(file.yanked is None for file in version.files)
            if version.files
            else version.yanked is None
        )
    ]
    ours = max(here, default=None)
    if there is None:
        return Verdict(kind="free", our_version=_text(ours), checked_at=now)
    theirs = max(there, default=None)
    kind: Kind = "ours" if project.ours_on_public else "taken"
    if kind == "taken" and theirs is not None and (ours is None or theirs > ours):
        kind = "higher"
    elif kind == "taken":
        final = max((each for each in there if not each.is_prerelease), default=None)
        our_final = max((each for each in here if not each.is_prerelease), default=None)
        if final is not None and (our_final is None or final > our_final):
            kind, theirs, ours = "higher", final, our_final or ours
    return Verdict(kind=kind, public_version=_text(theirs), our_version=_text(ours), checked_at=now)


def _text(version: Version | None) -> str | None:
    return None if version is None else str(version)


def compare(
    index: PublicIndex,
    projects: Iterable[Project],
    *,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Comparison:
    """Ask the public index for the name of each project, a few at a time.

    Trouble with a name is reported and is never a verdict. After some troubles, the index is asked
    no more. Raises `BackendError` if it is no index, or cannot be reached.
    """
    wanted = list(projects)
    if not wanted:
        return Comparison()
    index.probe()
    verdicts: dict[NormalizedName, Verdict] = {}
    troubles: dict[NormalizedName, str] = {}

    def verdict(project: Project) -> Verdict:
        if len(troubles) >= _MOST_TROUBLES:
            raise BackendError("not asked, because the public index did not answer for others")
        return judge(project, index.versions(project.normalized), datetime.now(UTC))

    pool = ThreadPoolExecutor(max_workers=AT_ONCE)
    try:
        asked: dict[Future[Verdict], NormalizedName] = {
            pool.submit(verdict, each): each.normalized for each in wanted
        }
        for done, future in enumerate(as_completed(asked), 1):
            try:
                verdicts[asked[future]] = future.result()
            except BackendError as error:
                troubles[asked[future]] = str(error)
            progress(done, len(wanted), "names compared")
    finally:
        pool.shutdown(cancel_futures=True)  # nothing is left to cancel, except after Ctrl-C
    return Comparison(verdicts=verdicts, troubles=troubles)


# -- keeping ---------------------------------------------------------------------------------------


def read_verdicts(
    folder: SiteFolder, public_index: str | None = None
) -> dict[NormalizedName, Verdict]:
    """The verdicts that `check` has left in the site; none if it never ran.

    `public_index`: only verdicts about the index with this address. Raises `ConfigurationError` if
    the file is damaged.
    """
    path = folder.root / VERDICTS
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_VERDICTS + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"cannot read {VERDICTS}: {error.strerror}") from error
    try:
        if len(text) > _LARGEST_VERDICTS:
            raise ValueError("larger than 16 MiB")
        document = _table(json.loads(text), {"format", "public_index", "verdicts"})
        if document["format"] != 1 or not isinstance(document["public_index"], str):
            raise ValueError("unknown format")
        if not isinstance(document["verdicts"], dict):
            raise ValueError("'verdicts' must be an object")
        found = {_name(name): _verdict(each) for name, each in document["verdicts"].items()}
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{VERDICTS} is damaged ({error}); delete it, and run private_pypi static_site.check"
        ) from error
    return found if public_index in (None, document["public_index"]) else {}


def write_verdicts(
    folder: SiteFolder, public_index: str, verdicts: Mapping[NormalizedName, Verdict]
) -> None:
    """Write the file of verdicts, so that nobody sees a part of it.

    It is made for differences: sorted, and a key on each line.
    """
    document = {
        "format": 1,
        "public_index": public_index,
        "verdicts": {
            name: {
                "kind": verdict.kind,
                "public_version": verdict.public_version,
                "our_version": verdict.our_version,
                "checked_at": f"{verdict.checked_at:%Y-%m-%dT%H:%M:%SZ}",
            }
            for name, verdict in sorted(verdicts.items())
        },
    }
    folder.write(folder.root / VERDICTS, f"{json.dumps(document, indent=2)}\n".encode())


def _table(value: Any, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != keys:
        raise ValueError(f"an object with the keys {', '.join(sorted(keys))} is expected")
    return value


def _name(text: str) -> NormalizedName:
    if normalize(text) != text or not text.replace("-", "").isalnum():
        raise ValueError(f"{text[:100]!r} is no normalised name")
    return normalize(text)


def _verdict(value: Any) -> Verdict:
    table = _table(value, {"kind", "public_version", "our_version", "checked_at"})
    kind, checked_at = table["kind"], table["checked_at"]
    if kind not in get_args(Kind):
        raise ValueError(f"unknown kind {kind!r}")
    if not isinstance(checked_at, str):
        raise ValueError("'checked_at' must be a time")
    for key in ("public_version", "our_version"):
        text = table[key]
        if text is not None and (not isinstance(text, str) or str(_parsed(text)) != text):
            raise ValueError(f"{key!r} must be a normalised version")
    return Verdict(
        kind=kind,
        public_version=table["public_version"],
        our_version=table["our_version"],
        checked_at=datetime.strptime(checked_at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC),
    )
