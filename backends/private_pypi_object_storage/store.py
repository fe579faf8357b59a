"""The object stores that `obstore` can access."""

from __future__ import annotations

import contextlib
import mmap
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from private_pypi.backend import Secret, system_errors
from private_pypi.backend.object_store import (
    NO_OBJECT,
    PARTS,
    RESERVED,
    ObjectChanged,
    ObjectNotFound,
    ObjectStore,
    StoredObject,
)
from private_pypi.errors import BackendError, BackendUnavailable
from private_pypi.model import Download, Redirect, Stream
from private_pypi_object_storage.credentials import ProfileCredentials, access_keys
from private_pypi_object_storage.settings import ObjectStorageSettings
from private_pypi_object_storage.trouble import is_behind_the_end, store_errors
from private_pypi_object_storage.unfinished import give_up

Store = S3Store | AzureStore | GCSStore

_MIB: Final = 2**20
_CHUNK: Final = _MIB  # bytes that are read at a time
_WHOLE: Final = 64 * _MIB  # bytes up to which a file is stored with one request
_PART: Final = 8 * _MIB  # bytes of a part of a larger file; at most 10,000 parts are possible
_PARTS_AT_ONCE: Final = 3
_PAGE: Final = 1000  # objects of a listing that are given at a time
_LINK_VALID: Final = timedelta(minutes=10)
_SIGNED: Final = timedelta(minutes=5)  # how long a request of ours is valid

_CONNECT: Final = timedelta(seconds=10)
_SILENCE: Final = timedelta(seconds=30)  # of a store that is sending
_SHORT: Final = timedelta(minutes=2)  # for a request that sends at most `_WHOLE`
_LONG: Final = timedelta(hours=1)  # for 5 GiB

_DAY: Final = timedelta(days=1)
_PROBE: Final = f"{RESERVED}probe"
_FOLDERS: Final = f"{RESERVED}folders"  # a folder with two others, of which only one is asked for

# How S3 is asked to copy an object unless there is one already. The first keeps Content-Disposition
# and is a single request; the second works with stores that know conditions only for uploads.
_COPY_OF_S3: Final = ("header:if-none-match:*", "multipart")
_COPY: Final = "native"  # of other stores
NO_COPY: Final = "none"
"""The way to copy of a store that cannot do it on a condition. It stores large files with one
request."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What `CloudStore.probe` finds out about a store."""

    copies: str
    """How it copies on a condition."""
    lists_from_anywhere: bool


class CloudStore(ObjectStore):
    """A bucket, or the part of it below a prefix.

    A file of up to 64 MiB is stored with one request on the condition that it does not exist. It is
    mapped into memory and not read into it. Larger files are sent in parts, for which not every
    store knows such a condition. So they are first stored under a key of their own, and then copied
    on this condition, which the store does by itself.
    """

    def __init__(self, settings: ObjectStorageSettings) -> None:
        self._settings = settings
        self._what = f"trouble with {settings.url}"
        self.copies = NO_COPY
        """How the store copies on a condition, if that is known."""
        with self._errors():
            self._reading = _open(settings, timeout=_LONG, read_timeout=_SILENCE)
            self._writing = _open(settings, timeout=_SHORT)
            self._sending = _open(settings, timeout=_LONG)
        # Not every store with the API of Azure can, so it is found out.
        self.lists_from_anywhere = settings.scheme != "az"

    def _errors(self, key: str = "") -> contextlib.AbstractContextManager[None]:
        return store_errors(self._what, key)

    # -- reading ---------------------------------------------------------------------------------

    def get(self, key: str, unless: str = NO_OBJECT) -> tuple[Stream, str]:
        options = {"if_none_match": _etag(unless)} if unless != NO_OBJECT else {}
        with self._errors(key):
            found = obstore.get(self._reading, key, options=options)  # type: ignore[arg-type]
            size = found.meta["size"]
            revision = _revision(found.meta)
        return Stream(self._chunks(found, size), size), revision

    def _chunks(self, found: obstore.GetResult, size: int) -> Iterator[bytes]:
        received = 0
        with self._errors():
            for chunk in found.stream(min_chunk_size=_CHUNK):
                received += len(chunk)
                yield bytes(chunk)
        if received != size:
            raise BackendUnavailable(f"{self._what}: {received} of {size} bytes arrived")

    def get_part(self, key: str, start: int, length: int) -> bytes:
        with self._errors(key):
            try:
                options: Any = {"range": (start, start + max(length, 1))}
                found = obstore.get(self._reading, key, options=options)
                return bytes(found.bytes())[:length]
            except BaseError as error:
                if is_behind_the_end(error):
                    return b""
                raise

    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        folder, _, begin = prefix.rpartition("/")
        if begin and self.lists_from_anywhere:
            # A listing is of a folder. It begins right before the first key that is asked for.
            after = max(after, f"{prefix[:-1]}{chr(ord(prefix[-1]) - 1)}~")
        offset = after if after and self.lists_from_anywhere else None
        with self._errors():
            for page in obstore.list(
                self._reading, folder or None, offset=offset, chunk_size=_PAGE
            ):
                for each in page:
                    key = each["path"]
                    if key[: len(prefix)] > prefix and begin:
                        return
                    # With an offset, the order of the store decides what comes after it.
                    if key.startswith(prefix) and (offset is not None or key > after):
                        yield StoredObject(
                            key=key,
                            size=each["size"],
                            revision=each["e_tag"] or each["last_modified"].isoformat(),
                            modified_at=each["last_modified"].astimezone(UTC),
                        )

    def folders(self) -> Iterable[str]:
        with self._errors():
            found = obstore.list_with_delimiter(self._reading)
        return [each.rstrip("/") for each in found["common_prefixes"]]

    def link(self, key: str, filename: str) -> Download | None:
        with self._errors(key):
            expires_at = datetime.now(UTC) + _LINK_VALID
            return Redirect(obstore.sign(self._reading, "GET", key, _LINK_VALID), expires_at)

    # -- writing ---------------------------------------------------------------------------------

    def put(self, key: str, content: Path | bytes, *, replaces: str) -> str:
        mode = "create" if replaces == NO_OBJECT else _version(replaces)
        if isinstance(content, bytes):
            return self._put(self._writing, key, content, mode)
        with system_errors(f"cannot read {content.name!r}"), content.open("rb") as file:
            size = content.stat().st_size
            if size > _WHOLE and replaces == NO_OBJECT and self.copies != NO_COPY:
                return self._put_in_parts(key, file)
            if size == 0:
                return self._put(self._writing, key, b"", mode)
            store = self._writing if size <= _WHOLE else self._sending
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                return self._put(store, key, mapped, mode)

    def _put(self, store: Store, key: str, content: Any, mode: Any) -> str:
        with self._errors(key):
            return _revision(
                obstore.put(
                    store,
                    key,
                    content,
                    mode=mode,
                    use_multipart=False,
                    attributes=_attributes(key),
                )
            )

    def _put_in_parts(self, key: str, file: Any) -> str:
        part = f"{PARTS}{secrets.token_hex(16)}"
        try:
            with self._errors(key):
                obstore.put(
                    self._writing,
                    part,
                    file,
                    use_multipart=True,
                    chunk_size=_PART,
                    max_concurrency=_PARTS_AT_ONCE,
                    attributes=_attributes(key),
                )
            self._copy(part, key)
        finally:
            with contextlib.suppress(BackendError):  # it is swept
                self.delete(part)
        found = next(self.list(key), None)
        if found is None or found.key != key:
            raise BackendError(f"{self._what}: {key!r} vanished from the store")
        return found.revision

    def _copy(self, source: str, to: str) -> None:
        try:
            with self._errors():
                obstore.copy(self._copying(self.copies), source, to, overwrite=False)
        except ObjectNotFound:
            raise BackendUnavailable(f"{self._what}: what was stored for {to!r} vanished") from None

    def _copying(self, way: str) -> Store:
        more = {"copy_if_not_exists": way} if self._settings.scheme == "s3" else {}
        return _open(self._settings, timeout=_LONG, **more)

    def delete(self, *keys: str) -> None:
        if self._settings.scheme == "s3" and keys:
            with self._errors():
                obstore.delete(self._writing, keys if len(keys) > 1 else keys[0])
            return
        for key in keys:
            with contextlib.suppress(ObjectNotFound), self._errors(key):
                obstore.delete(self._writing, key)

    def sweep(self) -> None:
        if self._settings.scheme == "s3":
            self.give_up(older_than=_DAY)

    def give_up(self, *, older_than: timedelta) -> int:
        """Give up uploads to S3 in parts that nobody continues; returns how many there were."""
        return give_up(self.signed, self._settings.prefix, self._what, older_than=older_than)

    def signed(self, method: Any, key: str, query: Mapping[str, str]) -> str:
        """The address of a request to S3 about any key of the bucket, or about the bucket itself.

        `obstore` has the credentials, whatever kind they are of, and signs only the address of an
        object. Therefore what is asked is made a part of the address of the store. The path of the
        object, which comes after it, becomes the value of `x-id`: Amazon's own clients send this
        parameter too, and stores ignore it.
        """
        with self._errors():
            bucket = replace(self._settings, url=f"s3://{self._settings.bucket}")
            at = obstore.sign(_open(bucket, timeout=_SHORT), "GET", "-", _SIGNED)
            address = at.partition("?")[0].removesuffix("/-") + (f"/{quote(key)}" if key else "")
            asked = urlencode([*query.items(), ("x-id", "")], quote_via=quote)
            bucket = replace(bucket, endpoint=f"{address}?{asked}")
            store = _open(bucket, timeout=_SHORT, virtual_hosted_style_request=True)
            return obstore.sign(store, method, "", _SIGNED)

    # -- what the store can do -------------------------------------------------------------------

    def probe(self) -> Abilities:
        """Find out whether the store heeds conditions, and what else it can.

        Raises `BackendError` for a store that does not. A few small objects are written, which
        stay.
        """
        for _ in range(2):
            refused = self._is_refused(lambda: self.put(_PROBE, b"1", replaces=NO_OBJECT))
        if not refused:
            raise self._unsafe("If-None-Match")
        if not self._is_refused(lambda: self.put(_PROBE, b"2", replaces='"0"')):
            raise self._unsafe("If-Match")
        ways = _COPY_OF_S3 if self._settings.scheme == "s3" else (_COPY,)
        copies = next((way for way in ways if self._copies_safely(way)), NO_COPY)
        return Abilities(copies, self._lists_from_anywhere())

    def _is_refused(self, put: Callable[[], object]) -> bool:
        try:
            put()
        except ObjectChanged:
            return True
        return False

    def _unsafe(self, header: str) -> BackendError:
        return BackendError(
            f"{self._settings.url}: this store overwrites objects although the request has the "
            f"condition {header}, so two servers could overwrite each other's files; it needs "
            "conditional writes, as Amazon S3, Azure Blob Storage, Google Cloud Storage (gs://) "
            "and SeaweedFS have them"
        )

    def _copies_safely(self, way: str) -> bool:
        copying = self._copying(way)
        new = f"{PARTS}{secrets.token_hex(16)}"
        try:
            with self._errors(_PROBE):
                obstore.copy(copying, _PROBE, new, overwrite=False)
            with self._errors(_PROBE):
                obstore.copy(copying, _PROBE, new, overwrite=False)
            return False  # the second one was not refused
        except ObjectChanged:
            return True
        except BackendUnavailable:
            raise
        except (BackendError, ObjectNotFound):
            return False
        finally:
            with contextlib.suppress(BackendError):
                self.delete(new)

    def _lists_from_anywhere(self) -> bool:
        """Whether a listing can begin in the middle. Not every store that speaks like Azure can."""
        first, second = (f"{_FOLDERS}/{name}/x" for name in "ab")
        for key in (first, second):
            with contextlib.suppress(ObjectChanged):
                self.put(key, b"1", replaces=NO_OBJECT)
        try:
            with self._errors():
                pages = obstore.list(self._reading, _FOLDERS, offset=f"{_FOLDERS}/a~")
                return [each["path"] for page in pages for each in page] == [second]
        except BackendUnavailable:
            raise
        except BackendError:
            return False


def _open(settings: ObjectStorageSettings, **more: Any) -> Store:
    """The store of a table. What the table does not say, such as credentials, comes from the
    environment or the role of the machine."""
    client: dict[str, Any] = {"connect_timeout": _CONNECT}
    for name in ("timeout", "read_timeout"):
        if name in more:
            client[name] = more.pop(name)
    if settings.endpoint is not None and settings.endpoint.startswith("http:"):
        client["allow_http"] = True
    common: Any = {
        "prefix": settings.prefix or None,
        "client_options": client,
        "retry_config": {"max_retries": 0},
    }
    endpoint = None if settings.endpoint is None else settings.endpoint.rstrip("/")
    match settings.scheme:
        case "s3":
            config = {
                "endpoint": endpoint,
                "region": settings.region,
                "access_key_id": settings.access_key_id,
                "secret_access_key": settings.secret_access_key,
                "session_token": settings.session_token,
                # The store compares it with what it received. It is not enough that the signature
                # of a request has it as well: SeaweedFS does not compare that.
                "checksum_algorithm": None if "copy_if_not_exists" in more else "SHA256",
                # Not every store that speaks S3 knows how to delete many objects at once.
                "disable_bulk_delete": True if endpoint else None,
                **more,
            }
            if settings.profile is not None:
                access_keys(settings)  # trouble with the file is told as it is
                common["credential_provider"] = ProfileCredentials(settings)
            return S3Store(settings.bucket, **_given(config), **common)
        case "az":
            config = {
                "endpoint": endpoint,
                "account_name": settings.account,
                "account_key": settings.account_key,
                "sas_key": settings.sas_token,
            }
            return AzureStore(settings.bucket, **_given(config), **common)
        case _:
            config = {"base_url": endpoint, "service_account_key": settings.service_account_key}
            return GCSStore(settings.bucket, **_given(config), **common)


def _given(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.reveal() if isinstance(value, Secret) else value
        for key, value in config.items()
        if value is not None
    }


def _attributes(key: str) -> Any:
    """What a client gets as headers if it fetches the object from the store itself."""
    folder, _, filename = key.rpartition("/")
    if not folder or key.startswith(RESERVED):
        return {"Content-Type": "application/octet-stream"}
    if filename.endswith(".metadata"):
        return {"Content-Type": "text/plain; charset=utf-8"}
    if filename.endswith(".record"):
        return {"Content-Type": "application/json"}
    attributes = {"Content-Type": "application/octet-stream"}
    if filename.isascii() and filename.isprintable() and not set(filename) & set('"\\'):
        attributes["Content-Disposition"] = f'attachment; filename="{filename}"'
    return attributes


# A revision is the ETag, and for Google Cloud Storage also the number that its conditions need.


def _revision(meta: Any) -> str:
    etag, version = meta.get("e_tag") or "", meta.get("version")
    is_number = version is not None and str(version).isdigit()
    return f"{version}@{etag}" if is_number else etag


def _etag(revision: str) -> str:
    number, at, etag = revision.partition("@")
    return etag if at and number.isdigit() else revision


def _version(revision: str) -> dict[str, str]:
    number, at, etag = revision.partition("@")
    if at and number.isdigit():
        return {"e_tag": etag, "version": number}
    return {"e_tag": revision}
