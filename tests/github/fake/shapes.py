"""State as the JSON that GitHub answers; decides nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .git import Commit, Person, TreeEntry
from .state import Account, Asset, RateLimit, Release, Repository, Role, node_id, stamp

JSON = dict[str, Any]

_ACCOUNT_LINKS = {
    "followers_url": "/followers",
    "following_url": "/following{/other_user}",
    "gists_url": "/gists{/gist_id}",
    "starred_url": "/starred{/owner}{/repo}",
    "subscriptions_url": "/subscriptions",
    "organizations_url": "/orgs",
    "repos_url": "/repos",
    "events_url": "/events{/privacy}",
    "received_events_url": "/received_events",
}

_REPOSITORY_LINKS = {
    "archive_url": "/{archive_format}{/ref}",
    "assignees_url": "/assignees{/user}",
    "blobs_url": "/git/blobs{/sha}",
    "branches_url": "/branches{/branch}",
    "collaborators_url": "/collaborators{/collaborator}",
    "comments_url": "/comments{/number}",
    "commits_url": "/commits{/sha}",
    "compare_url": "/compare/{base}...{head}",
    "contents_url": "/contents/{+path}",
    "contributors_url": "/contributors",
    "deployments_url": "/deployments",
    "downloads_url": "/downloads",
    "events_url": "/events",
    "forks_url": "/forks",
    "git_commits_url": "/git/commits{/sha}",
    "git_refs_url": "/git/refs{/sha}",
    "git_tags_url": "/git/tags{/sha}",
    "hooks_url": "/hooks",
    "issue_comment_url": "/issues/comments{/number}",
    "issue_events_url": "/issues/events{/number}",
    "issues_url": "/issues{/number}",
    "keys_url": "/keys{/key_id}",
    "labels_url": "/labels{/name}",
    "languages_url": "/languages",
    "merges_url": "/merges",
    "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}",
    "pulls_url": "/pulls{/number}",
    "releases_url": "/releases{/id}",
    "stargazers_url": "/stargazers",
    "statuses_url": "/statuses/{sha}",
    "subscribers_url": "/subscribers",
    "subscription_url": "/subscription",
    "tags_url": "/tags",
    "teams_url": "/teams",
    "trees_url": "/git/trees{/sha}",
}

_ROOT_LINKS = {
    "current_user_url": "/user",
    "authorizations_url": "/authorizations",
    "code_search_url": "/search/code?q={query}{&page,per_page,sort,order}",
    "commit_search_url": "/search/commits?q={query}{&page,per_page,sort,order}",
    "emails_url": "/user/emails",
    "emojis_url": "/emojis",
    "events_url": "/events",
    "feeds_url": "/feeds",
    "followers_url": "/user/followers",
    "following_url": "/user/following{/target}",
    "gists_url": "/gists{/gist_id}",
    "issue_search_url": "/search/issues?q={query}{&page,per_page,sort,order}",
    "issues_url": "/issues",
    "keys_url": "/user/keys",
    "label_search_url": "/search/labels?q={query}&repository_id={repository_id}{&page,per_page}",
    "notifications_url": "/notifications",
    "organization_url": "/orgs/{org}",
    "organization_repositories_url": "/orgs/{org}/repos{?type,page,per_page,sort}",
    "organization_teams_url": "/orgs/{org}/teams",
    "public_gists_url": "/gists/public",
    "rate_limit_url": "/rate_limit",
    "repository_url": "/repos/{owner}/{repo}",
    "repository_search_url": "/search/repositories?q={query}{&page,per_page,sort,order}",
    "current_user_repositories_url": "/user/repos{?type,page,per_page,sort}",
    "starred_url": "/user/starred{/owner}{/repo}",
    "starred_gists_url": "/gists/starred",
    "topic_search_url": "/search/topics?q={query}{&page,per_page}",
    "user_url": "/users/{user}",
    "user_organizations_url": "/user/orgs",
    "user_repositories_url": "/users/{user}/repos{?type,page,per_page,sort}",
    "user_search_url": "/search/users?q={query}{&page,per_page,sort,order}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Renders for clients that reached us under these addresses (without a final slash)."""

    api: str
    uploads: str
    html: str

    def root(self) -> JSON:
        """`GET /`."""
        links = {key: self.api + path for key, path in _ROOT_LINKS.items()}
        html = f"{self.html}/settings/connections/applications{{/client_id}}"
        return {**links, "current_user_authorizations_html_url": html}

    def account(self, account: Account) -> JSON:
        """simple-user."""
        url = f"{self.api}/users/{account.login}"
        return {
            "login": account.login,
            "id": account.id,
            "node_id": node_id(account.type, account.id),
            "avatar_url": f"{self.html}/avatars/{account.id}",
            "gravatar_id": "",
            "url": url,
            "html_url": f"{self.html}/{account.login}",
            **{key: url + path for key, path in _ACCOUNT_LINKS.items()},
            "type": account.type,
            "user_view_type": "public",
            "site_admin": False,
        }

    def user(self, account: Account, *, public_repos: int, private_repos: int | None) -> JSON:
        """public-user; with a number of private repositories private-user."""
        shape = {
            **self.account(account),
            "name": account.login.capitalize(),
            "company": None,
            "blog": "",
            "location": None,
            "email": None,
            "hireable": None,
            "bio": None,
            "twitter_username": None,
            "public_repos": public_repos,
            "public_gists": 0,
            "followers": 0,
            "following": 0,
            "created_at": stamp(account.created_at),
            "updated_at": stamp(account.created_at),
        }
        if private_repos is None:
            return shape
        return {
            **shape,
            "user_view_type": "private",
            "private_gists": 0,
            "total_private_repos": private_repos,
            "owned_private_repos": private_repos,
            "disk_usage": 0,
            "collaborators": 0,
            "two_factor_authentication": True,
        }

    def organization(self, account: Account, *, public_repos: int) -> JSON:
        """organization-full."""
        url = f"{self.api}/orgs/{account.login}"
        return {
            "login": account.login,
            "id": account.id,
            "node_id": node_id(account.type, account.id),
            "url": url,
            "repos_url": f"{url}/repos",
            "events_url": f"{url}/events",
            "hooks_url": f"{url}/hooks",
            "issues_url": f"{url}/issues",
            "members_url": f"{url}/members{{/member}}",
            "public_members_url": f"{url}/public_members{{/member}}",
            "avatar_url": f"{self.html}/avatars/{account.id}",
            "description": None,
            "name": account.login,
            "is_verified": False,
            "has_organization_projects": True,
            "has_repository_projects": True,
            "public_repos": public_repos,
            "public_gists": 0,
            "followers": 0,
            "following": 0,
            "html_url": f"{self.html}/{account.login}",
            "created_at": stamp(account.created_at),
            "updated_at": stamp(account.created_at),
            "archived_at": None,
            "type": account.type,
        }

    def repository(
        self, repository: Repository, *, role: Role | None, minimal: bool = False
    ) -> JSON:
        """full-repository or minimal-repository; `permissions` only for a role."""
        url, html = self._repository(repository), f"{self.html}/{repository.full_name}"
        host = self.html.partition("://")[2]
        owner = self.account(repository.owner)
        shape: JSON = {
            "id": repository.id,
            "node_id": node_id("Repository", repository.id),
            "name": repository.name,
            "full_name": repository.full_name,
            "private": repository.private,
            "owner": owner,
            "html_url": html,
            "description": repository.description,
            "fork": False,
            "url": url,
            **{key: url + path for key, path in _REPOSITORY_LINKS.items()},
            "created_at": stamp(repository.created_at),
            "updated_at": stamp(repository.pushed_at),
            "pushed_at": stamp(repository.pushed_at),
            "git_url": f"git://{host}/{repository.full_name}.git",
            "ssh_url": f"git@{host}:{repository.full_name}.git",
            "clone_url": f"{html}.git",
            "svn_url": html,
            "homepage": None,
            "size": 0,
            "stargazers_count": 0,
            "watchers_count": 0,
            "language": None,
            "has_issues": True,
            "has_projects": True,
            "has_downloads": True,
            "has_wiki": True,
            "has_pages": repository.pages is not None,
            "has_discussions": False,
            "forks_count": 0,
            "mirror_url": None,
            "archived": False,
            "disabled": False,
            "open_issues_count": 0,
            "license": None,
            "allow_forking": True,
            "is_template": False,
            "topics": [],
            "visibility": "private" if repository.private else "public",
            "forks": 0,
            "open_issues": 0,
            "watchers": 0,
            "default_branch": repository.default_branch,
        }
        if role is not None:
            shape["permissions"] = {
                "admin": role >= Role.ADMIN,
                "maintain": role >= Role.MAINTAIN,
                "push": role >= Role.WRITE,
                "triage": role >= Role.TRIAGE,
                "pull": role >= Role.READ,
            }
        if not minimal:
            shape |= {"network_count": 0, "subscribers_count": 0}
            if repository.owner.type == "Organization":
                shape["organization"] = owner
        return shape

    def release(self, repository: Repository, release: Release) -> JSON:
        """release."""
        url = f"{self._repository(repository)}/releases/{release.id}"
        html = f"{self.html}/{repository.full_name}/releases"
        page = release.untagged if release.draft else quote(release.tag_name)
        tag = quote(release.tag_name)
        balls = {} if release.draft else {"tarball_url": "tarball", "zipball_url": "zipball"}
        return {
            "url": url,
            "assets_url": f"{url}/assets",
            "upload_url": (
                f"{self.uploads}/repos/{repository.full_name}/releases/{release.id}/assets"
                "{?name,label}"
            ),
            "html_url": f"{html}/tag/{page}",
            "id": release.id,
            "author": self.account(release.author),
            "node_id": node_id("Release", release.id),
            "tag_name": release.tag_name,
            "target_commitish": release.target_commitish,
            "name": release.name,
            "draft": release.draft,
            "immutable": release.immutable,
            "prerelease": release.prerelease,
            "created_at": stamp(repository.created_at_of(release)),
            "updated_at": stamp(release.updated_at),
            "published_at": stamp(release.published_at) if release.published_at else None,
            "assets": [self.asset(repository, release, a) for a in release.assets.values()],
            "tarball_url": None,
            "zipball_url": None,
            **{key: f"{self._repository(repository)}/{ball}/{tag}" for key, ball in balls.items()},
            "body": release.body,
        }

    def asset(
        self, repository: Repository, release: Release, asset: Asset, *, digest: bool = True
    ) -> JSON:
        """release-asset."""
        page = release.untagged if release.draft else quote(release.tag_name)
        known = digest and asset.sha256 is not None
        return {
            "url": f"{self._repository(repository)}/releases/assets/{asset.id}",
            "id": asset.id,
            "node_id": node_id("ReleaseAsset", asset.id),
            "name": asset.name,
            "label": asset.label,
            "uploader": self.account(asset.uploader),
            "content_type": asset.content_type,
            "state": asset.state,
            "size": asset.size,
            "digest": f"sha256:{asset.sha256}" if known else None,
            "download_count": asset.download_count,
            "created_at": stamp(asset.created_at),
            "updated_at": stamp(asset.updated_at),
            "browser_download_url": (
                f"{self.html}/{repository.full_name}/releases/download/{page}/{quote(asset.name)}"
            ),
        }

    def ref(self, repository: Repository, name: str, sha: str) -> JSON:
        """git-ref."""
        url = self._repository(repository)
        return {
            "ref": name,
            "node_id": node_id("Ref", f"{repository.id}:{name}"),
            "url": f"{url}/git/{quote(name)}",
            "object": {"sha": sha, "type": "commit", "url": f"{url}/git/commits/{sha}"},
        }

    def blob(self, repository: Repository, sha: str, content: bytes) -> JSON:
        """blob."""
        return {
            "sha": sha,
            "node_id": node_id("Blob", f"{repository.id}:{sha}"),
            "size": len(content),
            "url": f"{self._repository(repository)}/git/blobs/{sha}",
            "content": lines_of_base64(content),
            "encoding": "base64",
        }

    def short_blob(self, repository: Repository, sha: str) -> JSON:
        """short-blob."""
        return {"url": f"{self._repository(repository)}/git/blobs/{sha}", "sha": sha}

    def tree(self, repository: Repository, sha: str, *, recursive: bool) -> JSON:
        """git-tree."""
        git, url = repository.git, self._repository(repository)
        entries = git.walk(sha) if recursive else ((e.name, e) for e in git.tree(sha) or ())
        return {
            "sha": sha,
            "url": f"{url}/git/trees/{sha}",
            "tree": [
                {
                    "path": path,
                    "mode": entry.mode,
                    "type": entry.kind,
                    "sha": entry.sha,
                    **self._size(repository, entry),
                    "url": f"{url}/git/{entry.kind}s/{entry.sha}",
                }
                for path, entry in entries
            ],
            "truncated": False,
        }

    def git_commit(self, repository: Repository, commit: Commit) -> JSON:
        """git-commit."""
        url, html = self._repository(repository), f"{self.html}/{repository.full_name}"
        return {
            "sha": commit.sha,
            "node_id": node_id("Commit", f"{repository.id}:{commit.sha}"),
            "url": f"{url}/git/commits/{commit.sha}",
            "html_url": f"{html}/commit/{commit.sha}",
            "author": _person(commit.author),
            "committer": _person(commit.committer),
            "tree": {"sha": commit.tree, "url": f"{url}/git/trees/{commit.tree}"},
            "message": commit.message,
            "parents": [
                {
                    "sha": parent,
                    "url": f"{url}/git/commits/{parent}",
                    "html_url": f"{html}/commit/{parent}",
                }
                for parent in commit.parents
            ],
            "verification": _UNSIGNED,
        }

    def commit(self, repository: Repository, commit: Commit) -> JSON:
        """commit, as branches answer it; no GitHub account is known for an e-mail address."""
        url, html = self._repository(repository), f"{self.html}/{repository.full_name}"
        return {
            "sha": commit.sha,
            "node_id": node_id("Commit", f"{repository.id}:{commit.sha}"),
            "commit": {
                "author": _person(commit.author),
                "committer": _person(commit.committer),
                "message": commit.message,
                "tree": {"sha": commit.tree, "url": f"{url}/git/trees/{commit.tree}"},
                "url": f"{url}/git/commits/{commit.sha}",
                "comment_count": 0,
                "verification": _UNSIGNED,
            },
            "url": f"{url}/commits/{commit.sha}",
            "html_url": f"{html}/commit/{commit.sha}",
            "comments_url": f"{url}/commits/{commit.sha}/comments",
            "author": None,
            "committer": None,
            "parents": [
                {
                    "sha": parent,
                    "url": f"{url}/commits/{parent}",
                    "html_url": f"{html}/commit/{parent}",
                }
                for parent in commit.parents
            ],
        }

    def branch(self, repository: Repository, name: str, head: Commit) -> JSON:
        """branch-with-protection, unprotected."""
        url = f"{self._repository(repository)}/branches/{quote(name)}"
        return {
            "name": name,
            "commit": self.commit(repository, head),
            "_links": {
                "self": url,
                "html": f"{self.html}/{repository.full_name}/tree/{quote(name)}",
            },
            "protected": False,
            "protection": {
                "enabled": False,
                "required_status_checks": {
                    "enforcement_level": "off",
                    "contexts": [],
                    "checks": [],
                },
            },
            "protection_url": f"{url}/protection",
        }

    def pull_request(
        self, repository: Repository, number: int, told: Mapping[str, str], author: Account
    ) -> JSON:
        """pull-request, open and just made."""
        url = f"{self._repository(repository)}/pulls/{number}"
        html = f"{self.html}/{repository.full_name}/pull/{number}"
        issue = f"{self._repository(repository)}/issues/{number}"
        now = stamp(repository.pushed_at)
        nobody: dict[str, None] = dict.fromkeys(
            ("assignee", "closed_at", "merge_commit_sha", "merged_at", "milestone", "auto_merge")
        )
        branches = {
            side: {
                "label": f"{repository.owner.login}:{told[side]}",
                "ref": told[side],
                "sha": "0" * 40,
                "user": self.account(repository.owner),
                "repo": self.repository(repository, role=None),
            }
            for side in ("head", "base")
        }
        addresses = {
            "comments": f"{issue}/comments",
            "commits": f"{url}/commits",
            "review_comment": f"{url}/comments{{/number}}",
            "review_comments": f"{url}/comments",
            "statuses": f"{self._repository(repository)}/statuses/{'0' * 40}",
        }
        links = {"self": url, "html": html, "issue": issue, **addresses}
        return {
            **nobody,
            **branches,
            **{f"{name}_url": address for name, address in addresses.items()},
            "_links": {name: {"href": address} for name, address in links.items()},
            "id": number,
            "node_id": node_id("PullRequest", number),
            "number": number,
            "url": url,
            "html_url": html,
            "issue_url": issue,
            "diff_url": f"{html}.diff",
            "patch_url": f"{html}.patch",
            "title": told["title"],
            "body": told["body"],
            "user": self.account(author),
            "state": "open",
            "locked": False,
            "draft": False,
            "labels": [],
            "created_at": now,
            "updated_at": now,
            "author_association": "CONTRIBUTOR",
            "merged": False,
            "merged_by": None,
            "mergeable": None,
            "mergeable_state": "unknown",
            "maintainer_can_modify": False,
            "additions": 1,
            "deletions": 0,
            "changed_files": 1,
            "commits": 1,
            "comments": 0,
            "review_comments": 0,
        }

    def content(self, repository: Repository, path: str, ref: str, entry: TreeEntry) -> JSON:
        """What content-file and an item of content-directory have in common."""
        url = f"{self._repository(repository)}/contents/{quote(path)}?ref={quote(ref)}"
        kind = "dir" if entry.kind == "tree" else "file"
        git = f"{self._repository(repository)}/git/{entry.kind}s/{entry.sha}"
        page = "tree" if kind == "dir" else "blob"
        html = f"{self.html}/{repository.full_name}/{page}/{quote(ref)}/{quote(path)}"
        raw = f"{self.html}/{repository.full_name}/raw/{quote(ref)}/{quote(path)}"
        return {
            "name": entry.name,
            "path": path,
            "sha": entry.sha,
            "size": 0,
            **self._size(repository, entry),
            "url": url,
            "html_url": html,
            "git_url": git,
            "download_url": None if kind == "dir" else raw,
            "type": kind,
            "_links": {"self": url, "git": git, "html": html},
        }

    def file_commit(
        self, repository: Repository, path: str, branch: str, entry: TreeEntry | None, by: Commit
    ) -> JSON:
        """file-commit: what a change of a file answers."""
        content = self.content(repository, path, branch, entry) if entry else None
        return {"content": content, "commit": self.git_commit(repository, by)}

    def permission(self, account: Account, role: Role) -> JSON:
        """repository-collaborator-permission."""
        word = {Role.TRIAGE: "read", Role.MAINTAIN: "write"}.get(role, role.name.lower())
        shape = self.account(account)
        shape["role_name"] = role.name.lower()
        return {"permission": word, "user": shape, "role_name": role.name.lower()}

    def pages(self, repository: Repository, settings: Mapping[str, Any]) -> JSON:
        """page."""
        return {
            "url": f"{self._repository(repository)}/pages",
            "status": None,
            "cname": settings.get("cname"),
            "custom_404": False,
            "html_url": f"{self.html}/pages/{repository.full_name}/",
            "build_type": settings.get("build_type", "legacy"),
            "source": {"path": "/", **settings.get("source", {"branch": "gh-pages"})},
            "public": settings.get("public", True),
            "https_enforced": True,
        }

    def rate_limits(self, core: RateLimit, graphql: RateLimit) -> JSON:
        """rate-limit-overview."""
        search = RateLimit(limit=30, reset=core.reset)
        return {
            "resources": {
                "core": _limit(core, "core"),
                "graphql": _limit(graphql, "graphql"),
                "search": _limit(search, "search"),
            },
            "rate": _limit(core, "core"),
        }

    def _repository(self, repository: Repository) -> str:
        return f"{self.api}/repos/{repository.full_name}"

    def _size(self, repository: Repository, entry: TreeEntry) -> dict[str, int]:
        content = repository.git.blob(entry.sha)
        return {} if content is None else {"size": len(content)}


_UNSIGNED = {
    "verified": False,
    "reason": "unsigned",
    "signature": None,
    "payload": None,
    "verified_at": None,
}


def lines_of_base64(content: bytes) -> str:
    """Base64 in lines of 60 characters, as GitHub writes it."""
    text = base64.b64encode(content).decode()
    return "".join(f"{text[i : i + 60]}\n" for i in range(0, len(text), 60))


def _person(person: Person) -> JSON:
    return {"name": person.name, "email": person.email, "date": stamp(person.date)}


def _limit(limit: RateLimit, resource: str) -> JSON:
    return {
        "limit": limit.limit,
        "used": limit.used,
        "remaining": limit.remaining,
        "reset": limit.reset,
        "resource": resource,
    }
