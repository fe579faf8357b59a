"""REST operations on git objects, refs, and files of branches."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime

from .calls import (
    REPO,
    Answer,
    Call,
    Handler,
    Refusal,
    find,
)
from .git import FILE_MODE, FOLDER_MODE, Person, TreeEntry
from .shapes import JSON, lines_of_base64
from .state import (
    Repository,
    Role,
)

_MAX_INLINE = 1024**2  # bytes of a file that the contents API answers as JSON
_MAX_CONTENT = 100 * 1024**2  # bytes of a file or blob that the API answers at all


# Git


def _head(repository: Repository) -> None:
    if repository.is_empty:
        raise Refusal(409, "Git Repository is empty.")


def _branch(call: Call) -> Answer:
    repository = find(call)
    name = call.parameters["branch"]
    head = repository.head(name)
    if head is None:
        raise Refusal(404, "Branch not found")
    return Answer(body=call.shapes.branch(repository, name, head))


def _ref(call: Call) -> Answer:
    repository = find(call)
    _head(repository)
    name = f"refs/{call.parameters['ref']}"
    if name not in repository.refs:
        raise Refusal(404, "Not Found")
    return Answer(body=call.shapes.ref(repository, name, repository.refs[name]))


def _matching_refs(call: Call) -> Answer:
    repository = find(call)
    _head(repository)
    prefix = f"refs/{call.parameters['ref']}"
    found = sorted(name for name in repository.refs if name.startswith(prefix))
    return Answer(body=[call.shapes.ref(repository, name, repository.refs[name]) for name in found])


def _create_ref(call: Call) -> Answer:
    repository = find(call, Role.WRITE)
    _head(repository)
    name, sha = call.body["ref"], call.body["sha"]
    if not name.startswith("refs/") or name.count("/") < 2:
        raise Refusal(422, "Reference name must start with 'refs/' and have at least two slashes.")
    if name in repository.refs:
        raise Refusal(422, "Reference already exists")
    if repository.git.commit(sha) is None:
        raise Refusal(422, "Object does not exist")
    if name.removeprefix("refs/tags/") in repository.burnt_tags and name.startswith("refs/tags/"):
        raise Refusal(422, "Repository rule violations found\n\nCannot create ref")
    repository.refs[name] = sha
    shape = call.shapes.ref(repository, name, sha)
    return Answer(status=201, body=shape, headers={"Location": shape["url"]})


def _update_ref(call: Call) -> Answer:
    repository = find(call, Role.WRITE)
    _head(repository)
    name, sha = f"refs/{call.parameters['ref']}", call.body["sha"]
    if name not in repository.refs:
        raise Refusal(422, "Reference does not exist")
    if repository.git.commit(sha) is None:
        raise Refusal(422, "Object does not exist")
    _check_unlocked(repository, name)
    ancestors = {commit.sha for commit in repository.git.history(sha)}
    if not call.body.get("force", False) and repository.refs[name] not in ancestors:
        raise Refusal(422, "Update is not a fast forward")
    repository.refs[name] = sha
    return Answer(body=call.shapes.ref(repository, name, sha))


def _delete_ref(call: Call) -> Answer:
    repository = find(call, Role.WRITE)
    _head(repository)
    name = f"refs/{call.parameters['ref']}"
    if name not in repository.refs:
        raise Refusal(422, "Reference does not exist")
    _check_unlocked(repository, name)
    del repository.refs[name]
    # A published release whose tag goes away becomes a draft again.
    for release in repository.releases.values():
        if name == f"refs/tags/{release.tag_name}":
            release.published_at = None
    return Answer(status=204)


def _check_unlocked(repository: Repository, name: str) -> None:
    # "Git tags can't be moved" nor deleted: documentation, "Immutable releases".
    if name.startswith("refs/tags/") and name.removeprefix("refs/tags/") in (
        repository.locked_tags()
    ):
        raise Refusal(422, "Repository rule violations found\n\nCannot update this protected ref.")


def _blob(call: Call) -> Answer:
    repository = find(call)
    sha = call.parameters["file_sha"]
    content = repository.git.blob(sha)
    if content is None:
        raise Refusal(404, "Not Found")
    if len(content) > _MAX_CONTENT:
        raise _too_large("blob")
    if _wants_raw(call):
        return _raw(content)
    return Answer(body=call.shapes.blob(repository, sha, content))


def _create_blob(call: Call) -> Answer:
    repository = find(call, Role.WRITE)
    _head(repository)
    content = call.body["content"]
    encoded = call.body.get("encoding", "utf-8") == "base64"
    sha = repository.git.add_blob(_decoded(content) if encoded else content.encode())
    shape = call.shapes.short_blob(repository, sha)
    return Answer(status=201, body=shape, headers={"Location": shape["url"]})


def _tree(call: Call) -> Answer:
    repository = find(call)
    _head(repository)
    name = call.parameters["tree_sha"]
    commit = repository.resolve(name)
    sha = commit.tree if commit else name
    if repository.git.tree(sha) is None:
        raise Refusal(404, "Not Found")
    return Answer(body=call.shapes.tree(repository, sha, recursive="recursive" in call.query))


def _create_tree(call: Call) -> Answer:
    repository = find(call, Role.WRITE)
    _head(repository)
    git, sha = repository.git, call.body.get("base_tree")
    commit = git.commit(sha) if sha else None
    sha = commit.tree if commit else sha
    if sha is not None and git.tree(sha) is None:
        raise Refusal(422, "Base tree does not exist")
    for item in call.body["tree"]:
        path = item["path"]
        name = path.rpartition("/")[2]
        mode = item.get("mode", FILE_MODE)
        if "content" in item:
            entry = TreeEntry(name=name, mode=mode, sha=git.add_blob(item["content"].encode()))
        elif item.get("sha") is None:
            entry = None
        elif git.kind(item["sha"]) != ("tree" if mode == FOLDER_MODE else "blob"):
            raise Refusal(422, f"GitRPC::BadObjectState: {item['sha']} does not exist")
        else:
            entry = TreeEntry(name=name, mode=mode, sha=item["sha"])
        sha = git.with_entry(sha, path, entry)
    if sha is None:
        raise Refusal(422, "Invalid tree info")
    shape = call.shapes.tree(repository, sha, recursive=False)
    return Answer(status=201, body=shape, headers={"Location": shape["url"]})


def _commit(call: Call) -> Answer:
    repository = find(call)
    _head(repository)
    commit = repository.git.commit(call.parameters["commit_sha"])
    if commit is None:
        raise Refusal(404, "Not Found")
    return Answer(body=call.shapes.git_commit(repository, commit))


def _create_commit(call: Call) -> Answer:
    repository = find(call, Role.WRITE)
    _head(repository)
    tree, parents = call.body["tree"], tuple(call.body.get("parents", ()))
    if repository.git.tree(tree) is None:
        raise Refusal(422, "Tree SHA does not exist")
    if any(repository.git.commit(parent) is None for parent in parents):
        raise Refusal(422, "Parent SHA does not exist or is not a commit object")
    author, committer = _people(call)
    commit = repository.git.add_commit(
        tree=tree,
        parents=parents,
        author=author,
        committer=committer,
        message=call.body["message"],
    )
    shape = call.shapes.git_commit(repository, commit)
    return Answer(status=201, body=shape, headers={"Location": shape["url"]})


def _people(call: Call) -> tuple[Person, Person]:
    now, login = call.hub.clock.now(), call.actor.login
    themselves = {"name": login, "email": f"{login}@users.noreply.github.com"}

    def person(given: Mapping[str, str]) -> Person:
        date = datetime.fromisoformat(given["date"]).astimezone(UTC) if "date" in given else now
        return Person(name=given["name"], email=given["email"], date=date)

    committer = {**themselves, **call.body.get("committer", {})}
    return person(call.body.get("author", committer)), person(committer)


# Files on branches


def _readme(call: Call) -> Answer:
    repository = find(call)
    head = repository.head()
    for entry in repository.git.tree(head.tree) or () if head else ():
        if entry.name.lower().startswith("readme"):
            return _file(call, repository, entry.name, repository.default_branch, entry)
    raise Refusal(404, "Not Found")


def _contents(call: Call) -> Answer:
    repository = find(call)
    if repository.is_empty:
        raise Refusal(404, "This repository is empty.")
    ref = call.query.get("ref", repository.default_branch)
    commit = repository.resolve(ref)
    if commit is None:
        raise Refusal(404, f"No commit found for the ref {ref}")
    path = call.parameters["path"].strip("/")
    entry = repository.git.find(commit.tree, path)
    if entry is None:
        raise Refusal(404, "Not Found")
    if entry.kind != "tree":
        return _file(call, repository, path, ref, entry)
    below = repository.git.tree(entry.sha) or ()
    prefix = f"{path}/" if path else ""
    return Answer(
        body=[call.shapes.content(repository, prefix + item.name, ref, item) for item in below]
    )


def _file(call: Call, repository: Repository, path: str, ref: str, entry: TreeEntry) -> Answer:
    # Sizes: "Get repository content", "Notes": up to 1 MB everything is supported, up to 100 MB
    # only raw and object (whose content is then empty and its encoding "none"), beyond nothing.
    content = repository.git.blob(entry.sha) or b""
    if len(content) > _MAX_CONTENT:
        raise _too_large("blob")
    if _wants_raw(call):
        return _raw(content)
    shape = call.shapes.content(repository, path, ref, entry)
    if len(content) > _MAX_INLINE:
        return Answer(body={**shape, "content": "", "encoding": "none"})
    return Answer(body={**shape, "content": lines_of_base64(content), "encoding": "base64"})


def _put_contents(call: Call) -> Answer:
    content = _decoded(call.body["content"])
    entry, answer = _change_file(call, content)
    return Answer(status=200 if entry else 201, body=answer)


def _delete_contents(call: Call) -> Answer:
    entry, answer = _change_file(call, None)
    if entry is None:
        raise Refusal(404, "Not Found")
    return Answer(body=answer)


def _change_file(call: Call, content: bytes | None) -> tuple[TreeEntry | None, JSON]:
    repository = find(call, Role.WRITE)
    branch = call.body.get("branch", repository.default_branch)
    head = repository.head(branch)
    if head is None and not repository.is_empty:
        raise Refusal(404, f"Branch {branch} not found")
    path = call.parameters["path"].strip("/")
    if path.startswith(".github/workflows/") and call.token and call.token.user is None:
        # An Actions job can never be given the permission `workflows`.
        raise Refusal(403, "Resource not accessible by integration")
    old = repository.git.find(head.tree, path) if head else None
    _check_replaced(path, old, call.body.get("sha"))
    if old is None and content is None:
        return None, {}
    author, committer = _people(call)
    commit = repository.commit_file(
        path,
        content,
        branch=branch,
        message=call.body["message"],
        author=author,
        committer=committer,
    )
    new = repository.git.find(commit.tree, path)
    return old, call.shapes.file_commit(repository, path, branch, new, commit)


def _check_replaced(path: str, old: TreeEntry | None, sha: str | None) -> None:
    # The blob that is replaced must be named: this is GitHub's compare-and-swap for a file.
    if old is not None and old.kind == "tree":
        raise Refusal(422, f"{path} is a directory")
    if old is not None and sha is None:
        raise Refusal(422, 'Invalid request.\n\n"sha" wasn\'t supplied.')
    if sha is not None and (old is None or old.sha != sha):
        raise Refusal(409, f"{path} does not match {sha}")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise Refusal(422, "content is not valid Base64") from error


def _wants_raw(call: Call) -> bool:
    return "application/vnd.github.raw" in call.accept or "vnd.github.v3.raw" in call.accept


def _raw(content: bytes) -> Answer:
    kind = "application/vnd.github.raw+json; charset=utf-8"
    return Answer(content=content, content_type=kind)


def _too_large(what: str) -> Refusal:
    message = f"This API returns {what}s up to 100 MB in size."
    errors = [{"resource": what.capitalize(), "field": "data", "code": "too_large"}]
    return Refusal(403, message, errors)


HANDLERS: Mapping[str, Handler] = {
    f"GET {REPO}/branches/{{branch}}": _branch,
    f"GET {REPO}/readme": _readme,
    f"GET {REPO}/contents/{{path}}": _contents,
    f"PUT {REPO}/contents/{{path}}": _put_contents,
    f"DELETE {REPO}/contents/{{path}}": _delete_contents,
    f"POST {REPO}/git/blobs": _create_blob,
    f"GET {REPO}/git/blobs/{{file_sha}}": _blob,
    f"POST {REPO}/git/trees": _create_tree,
    f"GET {REPO}/git/trees/{{tree_sha}}": _tree,
    f"POST {REPO}/git/commits": _create_commit,
    f"GET {REPO}/git/commits/{{commit_sha}}": _commit,
    f"GET {REPO}/git/ref/{{ref}}": _ref,
    f"GET {REPO}/git/matching-refs/{{ref}}": _matching_refs,
    f"POST {REPO}/git/refs": _create_ref,
    f"PATCH {REPO}/git/refs/{{ref}}": _update_ref,
    f"DELETE {REPO}/git/refs/{{ref}}": _delete_ref,
}
