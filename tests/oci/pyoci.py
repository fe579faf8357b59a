"""PyOCI's rules, read independently of our code: what it writes, lists, and serializes again.

From the description of PyOCI 0.1.40: an index for each version, one layer for each file, and an
index that is read, changed and written without a condition.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import requests

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PACKAGE = "application/pyoci.package.v1"


class PyOci:
    """Its client of a registry with Basic authentication."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url
        self._auth = (user, password)

    def _ask(self, method: str, path: str, **arguments: Any) -> requests.Response:
        url = path if path.startswith("http") else self._url + path
        return requests.request(method, url, auth=self._auth, timeout=30, **arguments)

    def listed(self, namespace: str, package: str) -> dict[str, str | None]:
        """The links of a project page: filename -> sha256. It fails at a foreign tag."""
        name = f"{namespace}/{package.replace('-', '_')}".lower()
        tags = self._ask("GET", f"/v2/{name}/tags/list").json()["tags"]
        found = {}
        for tag in sorted(tags, reverse=True):
            index = self.index(name, tag)
            assert index is not None
            assert index["artifactType"] == PACKAGE, f"Unknown artifact type of {tag}"
            for descriptor in index["manifests"]:
                architecture = descriptor["platform"]["architecture"]
                dash = "-" if architecture.endswith(".whl") else ""
                version = tag.replace("-", "+")
                filename = f"{package.replace('-', '_')}-{version}{dash}{architecture}"
                annotations = descriptor.get("annotations", {})
                assert all(isinstance(value, str) for value in annotations.values())
                found[filename] = annotations.get("com.pyoci.sha256_digest")
        return found

    def index(self, name: str, tag: str) -> dict[str, Any] | None:
        answer = self._ask(
            "GET", f"/v2/{name}/manifests/{tag}", headers={"Accept": f"{MANIFEST}, {INDEX}"}
        )
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == INDEX
        index: dict[str, Any] = answer.json()
        return index

    def download(self, namespace: str, package: str, tag: str, architecture: str) -> bytes:
        name = f"{namespace}/{package.replace('-', '_')}".lower()
        index = self.index(name, tag)
        assert index is not None
        [descriptor] = [
            each for each in index["manifests"] if each["platform"]["architecture"] == architecture
        ]
        [layer] = self.manifest(name, descriptor["digest"])["layers"]  # exactly one
        return self._ask("GET", f"/v2/{name}/blobs/{layer['digest']}").content

    def manifest(self, name: str, digest: str) -> dict[str, Any]:
        path = f"/v2/{name}/manifests/{digest}"
        manifest: dict[str, Any] = self._ask("GET", path, headers={"Accept": MANIFEST}).json()
        return manifest

    def publish(
        self, namespace: str, package: str, tag: str, architecture: str, content: bytes
    ) -> None:
        """Put a file beside those of its version: read, change, write."""
        self.write_index(*self.prepare(namespace, package, tag, architecture, content))

    def prepare(
        self, namespace: str, package: str, tag: str, architecture: str, content: bytes
    ) -> tuple[str, str, dict[str, Any]]:
        """All of a publication but its last request."""
        name = f"{namespace}/{package.replace('-', '_')}".lower()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        old = self.index(name, tag)
        layer = self._blob(name, content)
        config = self._blob(name, b"{}")
        manifest = _compact(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": PACKAGE,
                "config": {
                    "mediaType": "application/vnd.oci.empty.v1+json",
                    "digest": config,
                    "size": 2,
                },
                "layers": [{"mediaType": PACKAGE, "digest": layer, "size": len(content)}],
                "annotations": {"org.opencontainers.image.created": now},
            }
        )
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        self._put(name, digest, manifest, MANIFEST)
        # It knows these fields of what was there, and writes no others.
        manifests = [
            {
                key: each[key]
                for key in ("mediaType", "digest", "size", "annotations", "platform")
                if key in each
            }
            for each in (old or {"manifests": []})["manifests"]
        ]
        assert architecture not in [each["platform"]["architecture"] for each in manifests]
        manifests.append(
            {
                "mediaType": MANIFEST,
                "digest": digest,
                "size": len(manifest),
                "annotations": {
                    "com.pyoci.sha256_digest": layer.removeprefix("sha256:"),
                    "org.opencontainers.image.created": now,
                    "com.pyoci.project_urls": "{}",
                },
                "platform": {"architecture": architecture, "os": "any"},
            }
        )
        index = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "artifactType": PACKAGE,
            "manifests": manifests,
            "annotations": (old or {}).get(
                "annotations", {"org.opencontainers.image.created": now}
            ),
        }
        return name, tag, index

    def write_index(self, name: str, tag: str, index: dict[str, Any]) -> None:
        """The last request of a publication."""
        self._put(name, tag, _compact(index), INDEX)

    def delete(self, namespace: str, package: str, tag: str) -> None:
        """Delete a version: for each file its blob and its manifest, then the tag by its digest."""
        name = f"{namespace}/{package.replace('-', '_')}".lower()
        index = self.index(name, tag)
        assert index is not None
        for descriptor in index["manifests"]:
            [layer] = self.manifest(name, descriptor["digest"])["layers"]
            for kind, digest in (("blobs", layer["digest"]), ("manifests", descriptor["digest"])):
                assert self._ask("DELETE", f"/v2/{name}/{kind}/{digest}").status_code == 202
        # The registry of the tests deletes no tags, only what they name.
        headers = {"Accept": INDEX}
        head = self._ask("HEAD", f"/v2/{name}/manifests/{tag}", headers=headers).headers
        digest = head["Docker-Content-Digest"]
        assert self._ask("DELETE", f"/v2/{name}/manifests/{digest}").status_code == 202

    def put_image(self, name: str, tag: str) -> None:
        """Something that is not a package, such as a signature."""
        config = self._blob(name, b"{}")
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "application/json", "digest": config, "size": 2},
            "layers": [{"mediaType": "application/json", "digest": config, "size": 2}],
        }
        self._put(name, tag, _compact(manifest), MANIFEST)

    def _put(self, name: str, reference: str, content: bytes, media_type: str) -> None:
        answer = self._ask(
            "PUT",
            f"/v2/{name}/manifests/{reference}",
            data=content,
            headers={"Content-Type": media_type},
        )
        assert answer.status_code == 201, answer.text

    def _blob(self, name: str, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if self._ask("HEAD", f"/v2/{name}/blobs/{digest}").status_code != 200:
            begun = self._ask("POST", f"/v2/{name}/blobs/uploads/")
            assert begun.status_code == 202, begun.text
            location = begun.headers["Location"]
            joined = f"{location}{'&' if '?' in location else '?'}digest={digest}"
            assert self._ask("PUT", joined, data=content).status_code == 201
        return digest


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
