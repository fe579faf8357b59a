"""Gives up uploads in parts that were begun on S3 by a process that was killed.

`obstore` gives up what fails, but it cannot list what is left of a process that was killed. No
listing of objects shows it, and it costs money. So these two requests are made here, signed with
the keys of the table (AWS Signature Version 4). Without keys there, nothing is done: the bucket
needs a rule for its life cycle.

Source: Amazon S3 API Reference, ListMultipartUploads and AbortMultipartUpload; "Signature
Calculations for the Authorization Header".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from private_pypi.errors import BackendError, BackendUnavailable
from private_pypi_object_storage.credentials import AccessKeys, access_keys
from private_pypi_object_storage.settings import ObjectStorageSettings

_UPLOAD: Final = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_FIELD: Final = re.compile(r"<(Key|UploadId|Initiated)>([^<]*)</")
_NO_BODY: Final = hashlib.sha256(b"").hexdigest()
_TIMEOUT: Final = urllib3.Timeout(connect=10, read=30)
_LARGEST: Final = 8 * 2**20  # bytes of a list of at most 1000 uploads


def give_up(settings: ObjectStorageSettings, *, older_than: timedelta) -> int:
    """Give up what was begun below the prefix and is older; returns how many there were.

    At most a thousand at a time. Raises `BackendError`.
    """
    keys = access_keys(settings) if settings.scheme == "s3" else None
    if keys is None:
        return 0
    prefix = f"{settings.prefix}/" if settings.prefix else ""
    count = 0
    with urllib3.PoolManager(retries=False, timeout=_TIMEOUT) as pool:
        listed = _request(pool, settings, keys, "GET", "", {"prefix": prefix, "uploads": ""})
        for key, upload, begun_at in _uploads(listed):
            if key.startswith(prefix) and datetime.now(UTC) - begun_at > older_than:
                _request(pool, settings, keys, "DELETE", key, {"uploadId": upload})
                count += 1
    return count


def _uploads(listed: str) -> Iterator[tuple[str, str, datetime]]:
    for each in _UPLOAD.findall(listed):
        fields = {name: unescape(value) for name, value in _FIELD.findall(each)}
        try:
            begun_at = datetime.fromisoformat(fields["Initiated"])
            yield fields["Key"], fields["UploadId"], begun_at
        except (KeyError, ValueError):
            continue


def _request(
    pool: urllib3.PoolManager,
    settings: ObjectStorageSettings,
    keys: AccessKeys,
    method: str,
    key: str,
    query: Mapping[str, str],
) -> str:
    region = settings.region or "us-east-1"
    endpoint = (settings.endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/")
    path = quote(f"{urlsplit(endpoint).path}/{settings.bucket}" + (f"/{key}" if key else ""))
    given = urlencode(sorted(query.items()), quote_via=quote)
    headers = _signed(keys, region, urlsplit(endpoint).netloc, method, path, given)
    parts = urlsplit(endpoint)
    url = f"{parts.scheme}://{parts.netloc}{path}?{given}"
    what = f"uploads to {settings.url} that were interrupted cannot be given up"
    try:
        answer = pool.request(method, url, headers=headers, redirect=False, preload_content=False)
        content = answer.read(_LARGEST).decode("utf-8", "replace")
        answer.release_conn()
    except urllib3.exceptions.HTTPError:
        raise BackendUnavailable(f"{what}: the store does not answer") from None
    if answer.status not in (200, 204, 404):
        raise BackendError(f"{what}: the store answered {answer.status}")
    return content if answer.status == 200 else ""


def _signed(
    keys: AccessKeys, region: str, host: str, method: str, path: str, query: str
) -> dict[str, str]:
    """The headers of a request without a body."""
    now = datetime.now(UTC)
    headers = {
        "host": host,
        "x-amz-content-sha256": _NO_BODY,
        "x-amz-date": f"{now:%Y%m%dT%H%M%SZ}",
    }
    if keys.token is not None:
        headers["x-amz-security-token"] = keys.token.reveal()
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{_NO_BODY}"
    scope = f"{now:%Y%m%d}/{region}/s3/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    key = f"AWS4{keys.secret.reveal()}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{digest}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return headers
