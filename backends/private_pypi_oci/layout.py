"""How packages lie in a registry, as PyOCI 0.1.40 lays them out. Nothing here sends requests.

| Python | OCI |
|---|---|
| project | repository `<namespace>/<project>`, with `_` for `-` |
| version | tag, with `-` for `+`, whose manifest is an image index |
| file | a descriptor in that index; its "architecture" is the rest of the filename |

The file itself is the only layer of the manifest that the descriptor names. PyOCI writes the whole
index again with every upload to the version and keeps annotations, so what it does not know itself
is kept in annotations whose keys begin with `private_pypi.`. Core metadata is the config of the
manifest, which PyOCI does not look at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from packaging.utils import NormalizedName
from packaging.version import InvalidVersion, Version

from private_pypi.distributions.filenames import ParsedFilename, normalize, parse_filename
from private_pypi.errors import BackendError, InvalidFilename
from private_pypi.model import Record

ARTIFACT = "application/pyoci.package.v1"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
METADATA = "application/vnd.private-pypi.core-metadata.v1"
EMPTY_CONTENT = b"{}"

CREATED = "org.opencontainers.image.created"
SOURCE = "org.opencontainers.image.source"
SHA256 = "com.pyoci.sha256_digest"
PROJECT_URLS = "com.pyoci.project_urls"
LABEL = "PyOCI :: Label :: "

_RECORD = "private_pypi.record"  # JSON
_SIZE = "private_pypi.size"  # bytes of the file
_YANKED = "private_pypi.yanked"  # the reason, "" for none given
_FILENAME = "private_pypi.filename"  # as it was uploaded, where PyOCI's rules make another one

_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_ON_GITHUB = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST_RECORD = 8 * 1024  # characters of JSON; an index has all files of a version
_FACTS = {
    "distrib", "sha256", "size", "uploaded_at", "requires_python", "core_metadata_sha256",
    "summary", "name", "keywords",
}  # fmt: skip


def repository_of(namespace: str, project: str) -> str:
    """The repository of a project: what PyOCI makes of its name."""
    return f"{namespace}/{project.replace('-', '_')}".lower()


def is_repository(name: str) -> bool:
    """Whether a registry can have a repository of this name."""
    return len(name) <= 255 and all(_NAME.fullmatch(part) for part in name.split("/"))


def tag_of(version: str) -> str | None:
    """The tag of a version; None for a version that no tag can carry, such as one with an epoch."""
    tag = version.replace("+", "-")
    return tag if _TAG.fullmatch(tag) else None


def version_of(tag: str) -> Version | None:
    """The version of a tag; None for a foreign tag, such as `latest` or a signature's."""
    try:
        return Version(tag.replace("-", "+"))
    except InvalidVersion:
        return None


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What an index says of one manifest, with whatever else somebody wrote into it."""

    value: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return str(self.value.get("digest", ""))

    @property
    def architecture(self) -> str:
        platform = self.value.get("platform")
        return str(platform.get("architecture", "")) if isinstance(platform, dict) else ""

    @property
    def annotations(self) -> Mapping[str, str]:
        found = self.value.get("annotations")
        return found if isinstance(found, dict) else {}

    def annotated(self, changes: Mapping[str, str | None]) -> Descriptor:
        """The same with other annotations; None removes one."""
        merged = {**self.annotations, **changes}
        kept = {key: text for key, text in merged.items() if text is not None}
        return Descriptor({**self.value, "annotations": kept})

    # -- the file --------------------------------------------------------------------------------

    @property
    def sha256(self) -> str | None:
        """The hash of the file; None in what PyOCI wrote before 0.1.20."""
        text = self.annotations.get(SHA256, "")
        return text if re.fullmatch("[0-9a-f]{64}", text) else None

    @property
    def size(self) -> int | None:
        """Bytes of the file; None where PyOCI wrote the descriptor."""
        text = self.annotations.get(_SIZE, "")
        return int(text) if text.isdecimal() and len(text) < 19 else None

    @property
    def created(self) -> datetime | None:
        return parse_time(self.annotations.get(CREATED))

    @property
    def yanked(self) -> str | None:
        return self.annotations.get(_YANKED)

    @property
    def record(self) -> Record | None:
        try:
            found = json.loads(self.annotations.get(_RECORD, "null"))
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict):
            return None
        return {str(key): text for key, text in found.items() if isinstance(text, str)}

    def filename(self, project: NormalizedName, tag: str) -> str | None:
        """The name of the file; None where it is not one that can be served."""
        given = self.annotations.get(_FILENAME)
        for name in (given, _filename(project, tag, self.architecture)):
            if name is None:
                continue
            try:
                parsed = parse_filename(name)
            except InvalidFilename:
                continue
            if parsed.project == project and parsed.version == version_of(tag):
                return name
        return None

    def with_yank(self, reason: str | None) -> Descriptor:
        """The same, yanked with a reason, or not yanked (None)."""
        return self.annotated({_YANKED: reason})


@dataclass(frozen=True, slots=True)
class Index:
    """The image index of a version."""

    descriptors: Sequence[Descriptor] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)  # fields that we do not know

    @classmethod
    def parse(cls, content: bytes) -> Index | None:
        """The index of a version; None for a manifest of somebody else, such as an image."""
        value = _object(content)
        if value.get("artifactType") != ARTIFACT or "manifests" not in value:
            return None
        manifests = value.get("manifests") or ()
        known = {"schemaVersion", "mediaType", "artifactType", "manifests", "annotations"}
        return cls(
            [Descriptor(each) for each in manifests if isinstance(each, dict)],
            dict(value.get("annotations") or {}),
            {key: other for key, other in value.items() if key not in known},
        )

    def content(self) -> bytes:
        """The bytes, in PyOCI's order of fields."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "artifactType": ARTIFACT,
            "manifests": [dict(each.value) for each in self.descriptors],
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return compact({**value, **self.others})

    def find(self, architecture: str) -> Descriptor | None:
        """The descriptor of a file."""
        return next((d for d in self.descriptors if d.architecture == architecture), None)

    def put(self, descriptor: Descriptor) -> Index:
        """The same with a descriptor in place of the one of its architecture, or at the end."""
        kept = list(self.descriptors)
        for number, each in enumerate(kept):
            if each.architecture == descriptor.architecture:
                kept[number] = descriptor
                break
        else:
            kept.append(descriptor)
        return replace(self, descriptors=kept)

    def without(self, architecture: str) -> Index:
        """The same without a file."""
        kept = [each for each in self.descriptors if each.architecture != architecture]
        return replace(self, descriptors=kept)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of a file."""

    layer: Mapping[str, Any]  # its descriptor
    config: Mapping[str, Any]
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, content: bytes) -> Manifest:
        """Raises `BackendError` for a manifest that PyOCI's rules do not allow."""
        value = _object(content)
        layers = value.get("layers")
        if not isinstance(layers, list) or len(layers) != 1 or not isinstance(layers[0], dict):
            raise BackendError("a manifest in the registry does not have exactly one layer")
        if not _DIGEST.fullmatch(str(layers[0].get("digest"))):
            raise BackendError("a manifest in the registry has a layer without a sha256 digest")
        if not isinstance(layers[0].get("size"), int):
            raise BackendError("a manifest in the registry has a layer without a size")
        config = value.get("config")
        return cls(
            layers[0],
            config if isinstance(config, dict) else {},
            dict(value.get("annotations") or {}),
        )

    def content(self) -> bytes:
        """The bytes, in PyOCI's order of fields."""
        return compact(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": ARTIFACT,
                "config": dict(self.config),
                "layers": [dict(self.layer)],
                "annotations": dict(self.annotations),
            }
        )


def make_manifest(
    digest: str,
    size: int,
    *,
    created: datetime,
    labels: Mapping[str, str],
    core_metadata: bytes | None = None,
) -> Manifest:
    """The manifest of a file with this digest ("sha256:…") and size (bytes)."""
    config = (
        {"mediaType": EMPTY, "digest": digest_of(EMPTY_CONTENT), "size": len(EMPTY_CONTENT)}
        if core_metadata is None
        else {
            "mediaType": METADATA,
            "digest": digest_of(core_metadata),
            "size": len(core_metadata),
        }
    )
    return Manifest(
        {"mediaType": ARTIFACT, "digest": digest, "size": size},
        config,
        {**labels, CREATED: format_time(created)},
    )


def make_descriptor(
    manifest: bytes,
    parsed: ParsedFilename,
    filename: str,
    *,
    tag: str,
    file_sha256: str,
    file_size: int,
    created: datetime,
    project_urls: Mapping[str, str],
    record: Record,
) -> Descriptor:
    """What the index of its version says of a file that has this manifest (its bytes)."""
    architecture = architecture_of(parsed, filename)
    annotations = {
        SHA256: file_sha256,
        CREATED: format_time(created),
        PROJECT_URLS: json.dumps(dict(project_urls), separators=(",", ":")),
        _SIZE: str(file_size),
        _RECORD: json.dumps(dict(fit_record(record)), separators=(",", ":")),
    }
    if _filename(parsed.project, tag, architecture) != filename:
        annotations[_FILENAME] = filename
    return Descriptor(
        {
            "mediaType": MANIFEST,
            "digest": digest_of(manifest),
            "size": len(manifest),
            "annotations": annotations,
            "platform": {"architecture": architecture, "os": "any"},
        }
    )


def architecture_of(parsed: ParsedFilename, filename: str) -> str:
    """What PyOCI calls the platform of a file: what follows its version."""
    if parsed.kind == "sdist":
        return parsed.suffix
    return filename.split("-", 2)[2]


def _filename(project: NormalizedName, tag: str, architecture: str) -> str:
    """The name that PyOCI gives to a file."""
    dash = "-" if architecture.lower().endswith(".whl") else ""
    return f"{project.replace('-', '_')}-{tag.replace('-', '+')}{dash}{architecture}"


def fit_record(record: Record) -> Record:
    """A record that is small enough for an index: facts first, then what fits."""
    kept = {key: text for key, text in record.items() if key in _FACTS}
    room = _LONGEST_RECORD - len(json.dumps(kept))
    others = sorted((len(json.dumps([key, text])), key) for key, text in record.items())
    for length, key in others:
        if key not in kept and length <= room:
            kept[key] = record[key]
            room -= length
    return kept


def fields_of(core_metadata: bytes | None, field: str) -> list[str]:
    """The values of a field of core metadata that may be given several times."""
    headers = re.split(rb"\r?\n\r?\n", core_metadata or b"", maxsplit=1)[0]
    found = re.findall(rb"(?im)^%s:(.*)$" % field.encode(), headers)
    return [value.decode(errors="replace").strip() for value in found]


def project_urls_of(values: Sequence[str]) -> dict[str, str]:
    """The addresses of a project by their labels (`Project-URL: label, address`)."""
    urls = {}
    for value in values:
        label, comma, url = value.partition(",")
        if comma:
            urls[label.strip()] = url.strip()
    return urls


def source_of(urls: Mapping[str, str]) -> str | None:
    """The repository of a project on GitHub, under which ghcr.io then shows the package."""
    for label in ("source", "source code", "repository", "code", "homepage"):
        for key, url in urls.items():
            if key.lower() == label and _ON_GITHUB.fullmatch(url):
                return url.removesuffix("/")
    return None


def labels_of(classifiers: Sequence[str]) -> dict[str, str]:
    """The labels among classifiers (`PyOCI :: Label :: key :: value`); the last of a key counts."""
    labels = {}
    for classifier in classifiers:
        if classifier.startswith(LABEL):
            key, separator, value = classifier.removeprefix(LABEL).partition(" :: ")
            if separator and key:
                labels[key] = value
    return labels


def digest_of(content: bytes) -> str:
    """How a registry calls these bytes."""
    return f"sha256:{sha256(content).hexdigest()}"


def compact(value: object) -> bytes:
    """JSON without blanks, as PyOCI writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC; the fraction without zeros at its end, as PyOCI writes it."""
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
    return f"{text}Z"


def parse_time(text: str | None) -> datetime | None:
    """A time of PyOCI, whose fraction may have nine digits; None for anything else."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", text or "")
    if match is None:
        return None
    try:
        moment = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError:
        return None
    return moment.replace(microsecond=int((match[2] or "0")[:6].ljust(6, "0")))


def project_of(name: str) -> NormalizedName:
    """The project of a repository, by its last segment."""
    return NormalizedName(normalize(name.rpartition("/")[2]))


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BackendError("the registry answered a manifest that is not JSON") from error
    if not isinstance(value, dict):
        raise BackendError("the registry answered a manifest that is not an object")
    return value
