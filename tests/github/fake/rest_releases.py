"""REST operations on releases and assets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from .calls import (
    REPO,
    Answer,
    Call,
    Handler,
    Refusal,
    find,
    invalid,
    page_of,
)
from .git import Commit
from .shapes import JSON
from .state import (
    Asset,
    Hub,
    Release,
    Repository,
    Role,
    asset_name,
)

MAX_BODY = 125_000  # characters of a release's notes
MAX_ASSETS = 1000  # of one release
MAX_ASSET_BYTES = 2 * 1024**3 - 1  # "must be under 2 GiB"


# Releases


def _may_see_drafts(call: Call, repository: Repository) -> bool:
    # "Information about draft releases is available only to users with push access."
    return call.hub.role_of(call.token, repository) >= Role.WRITE


def _releases(call: Call) -> Answer:
    repository = find(call)
    found = call.hub.listed_releases(repository, with_drafts=_may_see_drafts(call, repository))
    page, headers = page_of(call, found, limit=call.hub.listing_limit)
    return Answer(body=[_release_shape(call, repository, r) for r in page], headers=headers)


def _release_shape(call: Call, repository: Repository, release: Release) -> JSON:
    shape = call.shapes.release(repository, release)
    shape["assets"] = shape["assets"][: call.hub.inlined_assets]
    if not call.hub.offers_digests:
        shape["assets"] = [{**asset, "digest": None} for asset in shape["assets"]]
    return shape


def _asset_shape(call: Call, repository: Repository, release: Release, asset: Asset) -> JSON:
    digest = call.hub.offers_digests
    return call.shapes.asset(repository, release, asset, digest=digest)


def _find_release(call: Call, repository: Repository) -> Release:
    release = repository.releases.get(int(call.parameters["release_id"]))
    if release is None or (release.draft and not _may_see_drafts(call, repository)):
        raise Refusal(404, "Not Found")
    return release


def _release(call: Call) -> Answer:
    repository = find(call)
    release = _find_release(call, repository)
    return Answer(body=_release_shape(call, repository, release))


def _latest_release(call: Call) -> Answer:
    repository = find(call)
    listed = call.hub.listed_releases(repository, with_drafts=False)
    full = [release for release in listed if not release.prerelease]
    if not full:
        raise Refusal(404, "Not Found")
    return Answer(body=_release_shape(call, repository, full[0]))


def _release_by_tag(call: Call) -> Answer:
    repository = find(call)
    release = _published(repository, call.parameters["tag"])
    if release is None:
        raise Refusal(404, "Not Found")
    return Answer(body=_release_shape(call, repository, release))


def _published(repository: Repository, tag: str) -> Release | None:
    of_tag = (r for r in repository.releases.values() if r.tag_name == tag and not r.draft)
    return next(of_tag, None)


def _create_release(call: Call) -> Answer:
    repository = find(call, Role.WRITE)
    if repository.is_empty:
        raise Refusal(422, "Repository is empty.")
    tag = call.body["tag_name"]
    _check_release(call, repository, tag)
    now = call.hub.clock.now()
    release = Release(
        id=call.hub.next_id(),
        tag_name=tag,
        target_commitish=call.body.get("target_commitish") or repository.default_branch,
        name=call.body.get("name"),
        body=call.body.get("body"),
        prerelease=call.body.get("prerelease", False),
        author=call.actor,
        drafted_at=now,
        updated_at=now,
        untagged=f"untagged-{secrets.token_hex(10)}",
    )
    if not call.body.get("draft", False):
        _publish(call, repository, release)
    repository.releases[release.id] = release
    shape = _release_shape(call, repository, release)
    return Answer(status=201, body=shape, headers={"Location": shape["url"]})


def _edit_release(call: Call) -> Answer:
    repository = find(call, Role.WRITE)
    release = _find_release(call, repository)
    body = call.body or {}
    tag = body.get("tag_name", release.tag_name)
    _check_release(call, repository, tag)
    if release.immutable and (tag != release.tag_name or body.get("draft")):
        raise Refusal(422, "Cannot change the tag of an immutable release")
    if not release.draft and tag != release.tag_name and _published(repository, tag):
        raise _already_exists("tag_name")
    if release.draft and not body.get("draft", True):
        # Checked and tagged under the new name and target before anything is changed.
        old = release.tag_name, release.target_commitish
        release.tag_name = tag
        release.target_commitish = body.get("target_commitish") or release.target_commitish
        try:
            _publish(call, repository, release)
        except Refusal:
            release.tag_name, release.target_commitish = old
            raise
    elif body.get("draft"):
        release.published_at = None
    release.tag_name = tag
    release.target_commitish = body.get("target_commitish") or release.target_commitish
    release.name = body.get("name", release.name)
    release.body = body.get("body", release.body)
    release.prerelease = body.get("prerelease", release.prerelease)
    release.updated_at = call.hub.clock.now()
    return Answer(body=_release_shape(call, repository, release))


def _check_release(call: Call, repository: Repository, tag: str) -> None:
    notes = (call.body or {}).get("body") or ""
    if len(notes) > MAX_BODY:
        message = f"body is too long (maximum is {MAX_BODY} characters)"
        errors = [{"resource": "Release", "code": "custom", "field": "body", "message": message}]
        raise Refusal(422, "Validation Failed", errors)
    if not _is_ref(tag):
        message = "tag_name is not a valid tag"
        errors = [
            {"resource": "Release", "code": "custom", "field": "tag_name", "message": message}
        ]
        raise Refusal(422, "Validation Failed", errors)


def _is_ref(name: str) -> bool:
    # The rules of git-check-ref-format.
    parts = name.split("/")
    return (
        all(part and not part.startswith(".") and not part.endswith(".lock") for part in parts)
        and not name.endswith(".")
        and name != "@"
        and not re.search(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{", name)
    )


def _publish(call: Call, repository: Repository, release: Release) -> None:
    """Tag it (at the head of the target, unless the tag is there) and show it to readers."""
    tag = release.tag_name
    if _published(repository, tag):
        raise _already_exists("tag_name")
    if tag in repository.burnt_tags:
        message = "tag_name was used by an immutable release"
        errors = [
            {"resource": "Release", "code": "custom", "field": "tag_name", "message": message}
        ]
        raise Refusal(422, "Validation Failed", errors)
    if f"refs/tags/{tag}" not in repository.refs:
        target = repository.resolve(release.target_commitish)
        if target is None:
            raise invalid("Release", "target_commitish")
        if call.token and call.token.user is None and _changes_workflows(repository, target):
            raise Refusal(403, "Resource not accessible by integration")
        repository.refs[f"refs/tags/{tag}"] = target.sha
    release.published_at = call.hub.clock.now()
    release.immutable = repository.immutable_releases


def _changes_workflows(repository: Repository, commit: Commit) -> bool:
    """Whether tagging this commit for a release needs the permission `workflows`.

    "GitHub Actions – Enforcing workflow scope when creating a release" (changelog of 2023-11-02).
    """

    def workflows(tree: str) -> str | None:
        entry = repository.git.find(tree, ".github/workflows")
        return entry.sha if entry else None

    before = [repository.git.commit(parent) for parent in commit.parents]
    return any(
        workflows(commit.tree) != (workflows(parent.tree) if parent else None)
        for parent in before or [None]
    )


def _delete_release(call: Call) -> Answer:
    repository = find(call, Role.WRITE)
    release = _find_release(call, repository)
    if release.immutable:
        repository.burnt_tags.add(release.tag_name)
    for asset in release.assets.values():
        asset.path.unlink(missing_ok=True)
    del repository.releases[release.id]  # its tag stays
    return Answer(status=204)


def _already_exists(name: str) -> Refusal:
    errors = [{"resource": "Release", "code": "already_exists", "field": name}]
    return Refusal(422, "Validation Failed", errors)


# Assets


def begin_upload(call: Call, size: int | None, content_type: str) -> Upload:
    """Make room for an asset of so many bytes, in state "starter".

    The caller writes them to `asset.path` and calls `finish`; until then the asset stays what it
    is, as it does on GitHub after a failure.
    """
    repository = find(call, Role.WRITE)
    release = _find_release(call, repository)
    if release.immutable:
        raise Refusal(422, "Cannot upload assets to an immutable release.")
    if size is None or size == 0:
        raise Refusal(400, "Bad Content-Length: 0")
    if size > MAX_ASSET_BYTES:
        errors = [{"resource": "ReleaseAsset", "code": "custom", "field": "size"}]
        raise Refusal(422, "Validation Failed", errors)
    name = asset_name(call.query["name"])
    taken = any(asset.name == name for asset in release.assets.values())
    if taken or len(release.assets) >= MAX_ASSETS:
        code, field_name = ("already_exists", "name") if taken else ("custom", "assets")
        errors = [{"resource": "ReleaseAsset", "code": code, "field": field_name}]
        raise Refusal(422, "Validation Failed", errors)
    now = call.hub.clock.now()
    asset = Asset(
        id=call.hub.next_id(),
        name=name,
        label=call.query.get("label", ""),
        content_type=content_type,
        uploader=call.actor,
        created_at=now,
        updated_at=now,
        path=call.hub.folder / f"asset-{secrets.token_hex(8)}",
    )
    asset.path.touch()
    release.assets[asset.id] = asset
    return Upload(call=call, repository=repository, release=release, asset=asset, size=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An asset on its way."""

    call: Call
    repository: Repository
    release: Release
    asset: Asset
    size: int

    def finish(self, sha256: str) -> Answer:
        """Everything is there, and this is its digest (hex)."""
        if self.asset.id not in self.release.assets:
            raise Refusal(404, "Not Found")  # deleted meanwhile
        self.asset.size = self.size
        self.asset.sha256 = sha256
        self.asset.state = "uploaded"
        self.asset.updated_at = self.call.hub.clock.now()
        shape = _asset_shape(self.call, self.repository, self.release, self.asset)
        return Answer(status=201, body=shape, headers={"Location": shape["url"]})


def _assets(call: Call) -> Answer:
    repository = find(call)
    release = _find_release(call, repository)
    page, headers = page_of(call, list(release.assets.values()))
    shapes = [_asset_shape(call, repository, release, asset) for asset in page]
    return Answer(body=shapes, headers=headers)


def _find_asset(call: Call, repository: Repository) -> tuple[Release, Asset]:
    number = int(call.parameters["asset_id"])
    for release in repository.releases.values():
        if number in release.assets and (not release.draft or _may_see_drafts(call, repository)):
            return release, release.assets[number]
    raise Refusal(404, "Not Found")


def _asset(call: Call) -> Answer:
    repository = find(call)
    release, asset = _find_asset(call, repository)
    if "application/octet-stream" not in call.accept:
        return Answer(body=_asset_shape(call, repository, release, asset))
    if asset.state != "uploaded":
        raise Refusal(404, "Not Found")
    asset.download_count += 1
    return Answer(
        status=302, headers={"Location": signed_url(call.hub, call.storage, repository, asset)}
    )


def signed_url(hub: Hub, storage: str, repository: Repository, asset: Asset) -> str:
    """Where the content is, for a while and for whoever holds this address.

    `se` is the end of its validity, `sig` its signature, as in a shared access signature.
    """
    path = f"/github-production-release-asset/{repository.id}/{asset.id}"
    end = hub.clock.now() + hub.asset_url_validity
    query = {
        "sp": "r",
        "sv": "2018-11-09",
        "sr": "b",
        "se": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "rscd": f"attachment; filename={asset.name}",
        "rsct": "application/octet-stream",
    }
    return f"{storage}{path}?{urlencode({**query, 'sig': signature(hub, path, query)})}"


def signature(hub: Hub, path: str, query: Mapping[str, str]) -> str:
    """Base64 of what only this hub can compute about a path and its parameters (without `sig`)."""
    message = json.dumps([path, sorted((k, v) for k, v in query.items() if k != "sig")])
    digest = hmac.new(hub.signing_key, message.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def _edit_asset(call: Call) -> Answer:
    repository = find(call, Role.WRITE)
    release, asset = _find_asset(call, repository)
    if release.immutable:
        raise Refusal(422, "Cannot update assets of an immutable release.")
    body = call.body or {}
    name = asset_name(body.get("name", asset.name))
    if any(other.name == name and other is not asset for other in release.assets.values()):
        errors = [{"resource": "ReleaseAsset", "code": "already_exists", "field": "name"}]
        raise Refusal(422, "Validation Failed", errors)
    asset.name, asset.label = name, body.get("label", asset.label)
    asset.updated_at = call.hub.clock.now()
    return Answer(body=_asset_shape(call, repository, release, asset))


def _delete_asset(call: Call) -> Answer:
    repository = find(call, Role.WRITE)
    release, asset = _find_asset(call, repository)
    if release.immutable:
        raise Refusal(422, "Cannot delete assets of an immutable release.")
    asset.path.unlink(missing_ok=True)
    del release.assets[asset.id]
    return Answer(status=204)


HANDLERS: Mapping[str, Handler] = {
    f"GET {REPO}/releases": _releases,
    f"POST {REPO}/releases": _create_release,
    f"GET {REPO}/releases/latest": _latest_release,
    f"GET {REPO}/releases/tags/{{tag}}": _release_by_tag,
    f"GET {REPO}/releases/{{release_id}}": _release,
    f"PATCH {REPO}/releases/{{release_id}}": _edit_release,
    f"DELETE {REPO}/releases/{{release_id}}": _delete_release,
    f"GET {REPO}/releases/{{release_id}}/assets": _assets,
    f"GET {REPO}/releases/assets/{{asset_id}}": _asset,
    f"PATCH {REPO}/releases/assets/{{asset_id}}": _edit_asset,
    f"DELETE {REPO}/releases/assets/{{asset_id}}": _delete_asset,
}
