"""The table of an `object_storage` repository, and what errors say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from obstore.exceptions import AlreadyExistsError, GenericError, PermissionDeniedError

from private_pypi.backend import Secret
from private_pypi.backend.object_store import ObjectChanged, ObjectNotFound
from private_pypi.configuration.fields import backend_fields, names_addresses
from private_pypi.errors import BackendError, BackendUnavailable, StorageFull
from private_pypi_object_storage import ObjectStorageBackend, ObjectStorageSettings
from private_pypi_object_storage.credentials import (
    AccessKeys,
    ProfileCredentials,
    access_keys,
)
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
        ({"url": "az://b", "profile": "x"}, "profile: is only for s3://"),
        ({"url": "s3://b", "credentials_file": Path("x")}, "credentials_file: needs profile"),
        (
            {
                "url": "s3://b",
                "profile": "x",
                "access_key_id": "x",
                "secret_access_key": Secret("x"),
            },
            "profile: is given instead of access_key_id",
        ),
        ({"url": "az://b", "account_key": Secret("x")}, "account: is needed with account_key"),
        (
            {"url": "az://b", "account": "x", "sas_token": Secret("x"), "download": "redirect"},
            "sas_token: cannot sign addresses",
        ),
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


# -- the shared credentials file of AWS ----------------------------------------------------------


def of_profile(profile: str, path: Path) -> ObjectStorageSettings:
    return ObjectStorageSettings(
        name="mine",
        max_file_bytes=1 << 30,
        url="s3://bucket/prefix",
        profile=profile,
        credentials_file=path,
    )


def test_the_keys_of_a_profile_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text(
        "[old]\naws_access_key_id=A\naws_secret_access_key=b%c\n"
        "[new]\naws_access_key_id = D\naws_secret_access_key = e=f\naws_session_token = t\n"
    )
    assert access_keys(of_profile("old", path)) == AccessKeys("A", Secret("b%c"), None)
    provider = ProfileCredentials(of_profile("new", path))
    assert {**provider(), "expires_at": None} == {
        "access_key_id": "D",
        "secret_access_key": "e=f",
        "token": "t",
        "expires_at": None,
    }
    path.write_text("[new]\naws_access_key_id = G\naws_secret_access_key = h\n")
    assert provider()["access_key_id"] == "G"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        ("[other]\naws_access_key_id = A\n", "has no aws_access_key_id and aws_secret_access_key"),
        ("[acme]\nrole_arn = arn:aws:iam::1:role/x\n", r"in a section \[acme\]"),
        ("hidden = key\n", "is not one of AWS: MissingSectionHeaderError"),
    ],
)
def test_what_is_wrong_with_a_credentials_file_is_told(
    tmp_path: Path, content: str | None, problem: str
) -> None:
    path = tmp_path / "credentials"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BackendError, match=problem) as error:
        access_keys(of_profile("acme", path))
    assert "hidden" not in str(error.value)


def test_a_user_without_a_home_has_no_credentials_file() -> None:
    path = Path("~nobody-of-this-name/credentials")  # for which there is no home, as without $HOME
    with pytest.raises(BackendError, match="cannot be read: No such file or directory"):
        access_keys(of_profile("acme", path))
