"""The table of an `object_storage` repository, and what errors say."""

from __future__ import annotations

from typing import Any

import pytest
from obstore.exceptions import AlreadyExistsError, GenericError, PermissionDeniedError

from private_pypi.backend import Secret
from private_pypi.backend.object_store import ObjectChanged, ObjectNotFound
from private_pypi.configuration.fields import backend_fields, names_addresses
from private_pypi.errors import BackendError, BackendUnavailable, StorageFull
from private_pypi_object_storage import ObjectStorageBackend, ObjectStorageSettings
from private_pypi_object_storage.trouble import translated


def settings(**given: Any) -> ObjectStorageSettings:
    return ObjectStorageSettings(**{"name": "mine", "max_file_bytes": 1, **given})


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("az://container/some/prefix/", "container", "some/prefix"),
        ("gs://bucket/python", "bucket", "python"),
    ],
)
def test_an_address_names_a_bucket_and_a_prefix(url: str, bucket: str, prefix: str) -> None:
    found = settings(url=url)
    assert (found.bucket, found.prefix) == (bucket, prefix)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"url": "https://bucket.example"}, "url: must be s3://bucket/prefix"),
        ({"url": "s3:///prefix"}, "url: must be s3://bucket/prefix"),
        ({"url": "s3://bucket?x=1"}, "url: must be s3://bucket/prefix"),
        ({"url": "s3://key:secret@bucket/x"}, "url: names a bucket only"),
        ({"url": "s3://bucket/a//b"}, "url: '/a//b' has an empty part"),
        ({"url": "s3://bucket/../b"}, "url: '/../b' has an empty part"),
        ({"url": "s3://b", "endpoint": "127.0.0.1:9000"}, "endpoint: must begin with https://"),
        ({"url": "s3://b", "endpoint": "http://k:s@host"}, "endpoint: must not contain cred"),
        ({"url": "s3://b", "account": "x"}, "account: is only for az://"),
        ({"url": "gs://b", "region": "x"}, "region: is only for s3://"),
        ({"url": "s3://b", "access_key_id": "x"}, "access_key_id: needs secret_access_key"),
        ({"url": "s3://b", "session_token": Secret("x")}, "session_token: needs access_key_id"),
        ({"url": "az://b", "account_key": Secret("x")}, "account: is needed with account_key"),
    ],
)
def test_a_wrong_table_is_told(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem.replace('?', '.')}"):
        settings(**given)


def test_a_stranger_cannot_choose_which_bucket_the_role_of_the_machine_reaches() -> None:
    addresses = {
        each.name
        for each in backend_fields(ObjectStorageBackend)
        if names_addresses(each.annotation)
    }
    assert addresses == {"url", "endpoint"}


ANSWERED = "Error performing PUT https://x.example/b?sig=SECRET in 1ms - Server returned non-2xx "


@pytest.mark.parametrize(
    ("error", "type_", "words"),
    [
        (GenericError(f"{ANSWERED}status code: 503 : <Code>SlowDown</Code>"), BackendUnavailable,
         "503 SlowDown"),
        (GenericError(f"{ANSWERED}status code: 500 Internal Server Error: "), BackendUnavailable,
         "500"),
        (GenericError("HTTP error: error sending request"), BackendUnavailable, "not answer"),
        (GenericError("Error performing PUT http://169.254.169.254/latest/api/token in 1s - HTTP"),
         BackendUnavailable, "neither the table nor the environment has credentials"),
        (GenericError(f"{ANSWERED}status code: 507 : "), StorageFull, "507"),
        (GenericError(f"{ANSWERED}status code: 403 : <Code>QuotaExceeded</Code>"), StorageFull,
         "QuotaExceeded"),
        (GenericError(f"{ANSWERED}status code: 418 : "), BackendError, "418"),
        (GenericError("Missing something SECRET"), BackendError, "cannot be used (GenericError)"),
        (PermissionDeniedError(f"{ANSWERED}status code: 403 : <Code>AccessDenied</Code>"),
         BackendError, "refuses the credentials of this server (the store answered 403 Access"),
        (FileNotFoundError(f"{ANSWERED}status code: 404 : <Code>NoSuchBucket</Code>"),
         BackendError, "404 NoSuchBucket"),
        (FileNotFoundError(f"{ANSWERED}status code: 404 : <html>"), BackendError, "404"),
        (FileNotFoundError(f"{ANSWERED}status code: 404 : <Code>NoSuchKey</Code>"),
         ObjectNotFound, "demo"),
        (AlreadyExistsError(f"{ANSWERED}status code: 412 : "), ObjectChanged, ""),
        # Another writer is at it, and it is not known whether there will be an object.
        (AlreadyExistsError(f"{ANSWERED}status code: 409 <Code>ConditionalRequestConflict</Code>"),
         BackendUnavailable, "409 ConditionalRequestConflict"),
    ],
)  # fmt: skip
def test_an_error_says_what_the_store_answered_and_nothing_else(
    error: Exception, type_: type[Exception], words: str
) -> None:
    found = translated(error, "trouble with s3://b", "demo")
    assert type(found) is type_
    assert words in str(found)
    assert "SECRET" not in str(found)
    assert "x.example" not in str(found)
