# SPDX-License-Identifier: GPL-3.0-or-later
"""The object store in a bucket of any S3 service."""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from granulo_core.errors import (
    FieldViolation,
    GranuloError,
    Reason,
    invalid_fields,
)
from granulo_core.store.keys import check_folder, check_key, check_prefix, media_type_of
from granulo_core.store.local import (
    check_digest,
    check_range,
    missing_object,
    replacing,
    unreadable_file,
)
from granulo_core.store.measured import measured
from granulo_core.store.port import ListedObject, StoredObject, digest_of

ACCESS_KEY_VARIABLE = "GRANULO_S3_ACCESS_KEY"
SECRET_KEY_VARIABLE = "GRANULO_S3_SECRET_KEY"

_DIGEST_HEADER = "x-amz-meta-granulo-digest"
_PART_BYTES = 16 << 20
_COPY_BYTES = 1 << 20
_CONNECT_TIMEOUT_S = 3.0
_READ_TIMEOUT_S = 20.0
# With the time-outs: a host that swallows packets is given up after about 10 s, one that takes
# requests and never answers after 40 s.
_CONNECT_RETRIES = 2
_READ_RETRIES = 1
_PROBE = ".granulo-write-check"

_MISSING = frozenset({"NoSuchKey", "NoSuchObject"})
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "InvalidAccessKeyId",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
_FULL = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"})


@measured
class S3Store:
    """Objects in one bucket, below an optional prefix; each carries its digest as user metadata.

    Parameters
    ----------
    bucket : str
        Must exist: Granulo makes none, because its region, encryption and life cycle are for the
        bucket's owner to choose.
    prefix : str
        Beginning of all keys, without slashes at its ends; may be empty.
    endpoint : str
        ``http://host:port`` or ``https://host``.
    region : str
    access_key, secret_key : str

    Notes
    -----
    S3 replaces an object in one step and shows a multipart upload only when it is complete. No
    correctness rests on conditional writes.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        endpoint: str,
        region: str,
        access_key: str,
        secret_key: str,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint = endpoint
        self._region = region
        self._access_key = access_key
        self._secret_key = secret_key
        address = urlsplit(endpoint)
        self._client = Minio(
            endpoint=address.netloc,
            access_key=access_key,
            secret_key=secret_key,
            secure=address.scheme == "https",
            region=region,
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S),
                maxsize=16,
                retries=urllib3.Retry(
                    total=_CONNECT_RETRIES,
                    read=_READ_RETRIES,
                    backoff_factor=0.2,
                    status_forcelist=(500, 502, 503, 504),
                    raise_on_status=False,
                ),
            ),
        )

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Open ``s3://bucket/prefix?endpoint=http://host:port&region=name``.

        The keys come from ``GRANULO_S3_ACCESS_KEY`` and ``GRANULO_S3_SECRET_KEY``; they are never
        part of the address, which appears in records and logs.

        Raises
        ------
        GranuloError
            FIELD_INVALID for an unusable address or missing keys.
        """
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        endpoint = query.pop("endpoint", [""])[0].rstrip("/")
        region = query.pop("region", ["us-east-1"])[0]
        address = urlsplit(endpoint)
        access_key = os.environ.get(ACCESS_KEY_VARIABLE, "")
        secret_key = os.environ.get(SECRET_KEY_VARIABLE, "")
        prefix = parts.path.strip("/")
        faults = []
        if parts.username or parts.password or not parts.netloc or query:
            faults.append("must have the form s3://bucket/prefix?endpoint=http://host:port")
        if address.scheme not in ("http", "https") or not address.netloc or address.path:
            faults.append("needs an endpoint of the form http://host:port or https://host")
        if not access_key or not secret_key:
            faults.append(f"needs the keys in {ACCESS_KEY_VARIABLE} and {SECRET_KEY_VARIABLE}")
        if faults:
            raise invalid_fields(
                [FieldViolation("store_url", f"the S3 address {fault}.") for fault in faults]
            )
        if prefix:
            check_key(prefix)
        return cls(
            parts.netloc,
            prefix,
            endpoint=endpoint,
            region=region,
            access_key=access_key,
            secret_key=secret_key,
        )

    @property
    def url(self) -> str:
        """Address from which `open_store` makes an equal store in another process."""
        query = urlencode({"endpoint": self._endpoint, "region": self._region}, safe=":/")
        return f"s3://{self._bucket}/{quote(self._prefix.rstrip('/'))}?{query}"

    def put(self, key: str, data: bytes, media_type: str = "") -> StoredObject:
        """Write (or replace) an object atomically and durably."""
        stored = StoredObject(key, digest_of(data), len(data), media_type or media_type_of(key))
        self._upload(stored, io.BytesIO(data))
        return stored

    def put_file(self, key: str, path: Path, media_type: str = "") -> StoredObject:
        """Like `put`, from a file, without holding it in memory."""
        try:
            with path.open("rb") as source:
                digest, size_bytes = _digest(source)
                source.seek(0)
                stored = StoredObject(key, digest, size_bytes, media_type or media_type_of(key))
                self._upload(stored, source)
        except OSError as error:
            raise unreadable_file(path, error) from error
        return stored

    def get(self, key: str, expected_digest: str | None = None) -> bytes:
        """Read an object; bytes that differ from ``expected_digest`` raise DIGEST_MISMATCH."""
        with self._download(key) as response:
            data = bytes(response.read())
            expected = expected_digest or response.headers.get(_DIGEST_HEADER)
        if expected:
            check_digest(f"object {key}", digest_of(data), expected)
        return data

    def get_file(self, key: str, path: Path, expected_digest: str | None = None) -> None:
        """Like `get`, into a file (written atomically)."""
        with self._download(key) as response, replacing(path) as target:
            expected = expected_digest or response.headers.get(_DIGEST_HEADER)
            sha256 = hashlib.sha256()
            for chunk in response.stream(_COPY_BYTES):
                sha256.update(chunk)
                target.write(chunk)
            if expected:
                check_digest(f"object {key}", "sha256:" + sha256.hexdigest(), expected)

    def read_chunks(self, key: str, offset: int = 0, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """Stream an object from ``offset`` on."""
        check_range(offset, chunk_size)
        try:
            with self._download(key, offset) as response:
                yield from response.stream(chunk_size)
        except _BeyondEndError:
            return

    def stat(self, key: str) -> StoredObject:
        """Describe an object; the digest is read from its metadata where Granulo wrote it."""
        with self._translating(key):
            found = self._client.stat_object(self._bucket, self._name(key))
        headers = found.metadata or {}
        digest = headers.get(_DIGEST_HEADER)
        if digest is None:  # written by another program
            sha256 = hashlib.sha256()
            for chunk in self.read_chunks(key):
                sha256.update(chunk)
            digest = "sha256:" + sha256.hexdigest()
        media_type = found.content_type or media_type_of(key)
        return StoredObject(key, digest, found.size or 0, media_type)

    def exists(self, key: str) -> bool:
        """Tell whether an object exists, without reading it."""
        try:
            with self._translating(key):
                self._client.stat_object(self._bucket, self._name(key))
        except GranuloError as error:
            if error.reason is Reason.RESOURCE_NOT_FOUND:
                return False
            raise
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """Yield all keys that start with ``prefix`` in lexicographic order."""
        for item in self._listed(prefix):
            yield item.key

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        """Like `list`, with the size and age of each object."""
        yield from self._listed(prefix)

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the names of the folders directly below ``prefix`` in order."""
        start = self._prefix + check_folder(prefix)
        with self._translating(prefix):
            for item in self._client.list_objects(self._bucket, prefix=start, recursive=False):
                name = str(item.object_name)[len(start) :]
                if item.is_dir and not name.startswith("."):
                    yield name.rstrip("/")

    def delete(self, key: str) -> None:
        """Remove an object; removing a missing one is no error."""
        with self._translating(key):
            self._client.remove_object(self._bucket, self._name(key))

    def presigned(
        self, verb: Literal["GET", "PUT"], key: str, expires_s: int, endpoint: str
    ) -> str:
        """URL at which anybody may do this to one object for a while; nothing is sent for it."""
        address = urlsplit(endpoint)
        # The host is part of what is signed, so the client that signs must have it.
        client = Minio(
            endpoint=address.netloc,
            access_key=self._access_key,
            secret_key=self._secret_key,
            secure=address.scheme == "https",
            region=self._region,
        )
        return str(
            client.get_presigned_url(
                verb, self._bucket, self._name(key), expires=timedelta(seconds=expires_s)
            )
        )

    def check_writable(self) -> None:
        """Write and remove a probe, to raise at start-up what the first `put` would raise."""
        name = self._prefix + _PROBE
        with self._translating(_PROBE):
            self._client.put_object(self._bucket, name, io.BytesIO(b"granulo"), 7)
            self._client.remove_object(self._bucket, name)

    def _listed(self, prefix: str) -> Iterator[ListedObject]:
        check_prefix(prefix)
        with self._translating(prefix):
            for item in self._client.list_objects(
                self._bucket, prefix=self._prefix + prefix, recursive=True
            ):
                key = str(item.object_name)[len(self._prefix) :]
                if not key.startswith(".") and not key.endswith("/"):
                    assert item.last_modified is not None  # S3 says it of every object
                    yield ListedObject(key, item.size or 0, item.last_modified.timestamp())

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _upload(self, stored: StoredObject, source: BinaryIO) -> None:
        with self._translating(stored.key):
            self._client.put_object(
                self._bucket,
                self._name(stored.key),
                source,
                stored.size_bytes,
                content_type=stored.media_type,
                metadata={_DIGEST_HEADER: stored.digest},
                part_size=_PART_BYTES,
                num_parallel_uploads=2,
            )

    @contextmanager
    def _download(self, key: str, offset: int = 0) -> Iterator[Any]:
        with self._translating(key):
            response = self._client.get_object(self._bucket, self._name(key), offset=offset)
            try:
                yield response
            finally:
                response.close()
                response.release_conn()

    @contextmanager
    def _translating(self, key: str) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            raise self._s3_error(error, key) from error
        except (MinioException, HTTPError) as error:
            raise GranuloError(
                Reason.STORE_UNAVAILABLE,
                f"The S3 service at {self._endpoint} does not answer ({_cause(error)}). Check its "
                "address, and that it runs and can be reached from here.",
                metadata={"endpoint": self._endpoint, "bucket": self._bucket},
                retry_after_s=2.0,
            ) from error

    def _s3_error(self, error: S3Error, key: str) -> Exception:
        code = error.code or ""
        where = f"bucket {self._bucket} at {self._endpoint}"
        metadata = {"endpoint": self._endpoint, "bucket": self._bucket, "s3_code": code}
        if code in _MISSING:
            return missing_object(key, self.url)
        if code == "InvalidRange":
            return _BeyondEndError()
        if code == "NoSuchBucket":
            return GranuloError(
                Reason.STORE_NOT_WRITABLE,
                f"There is no {where}. Make the bucket, or correct the store's address.",
                metadata=metadata,
            )
        if code in _DENIED:
            return GranuloError(
                Reason.STORE_NOT_WRITABLE,
                f"The {where} refused the access ({code}). Check {ACCESS_KEY_VARIABLE} and "
                f"{SECRET_KEY_VARIABLE}, what their user may do, and this machine's clock.",
                metadata=metadata,
            )
        if code in _FULL:
            return GranuloError(
                Reason.STORE_FULL,
                f"The {where} takes no more objects ({code}). Raise its quota or delete datasets "
                "that are no longer needed, then repeat the command: finished parts are kept.",
                metadata=metadata,
            )
        return GranuloError(
            Reason.STORE_UNAVAILABLE,
            f"The {where} failed on {key}: {code} {error.message or ''}. Try again; if it stays, "
            "see the log of the S3 service.",
            metadata=metadata,
            retry_after_s=2.0,
        )


class _BeyondEndError(Exception):
    """A range begins behind the last byte, which for a stream is just its end."""


def _digest(source: BinaryIO) -> tuple[str, int]:
    sha256 = hashlib.sha256()
    size_bytes = 0
    while chunk := source.read(_COPY_BYTES):
        sha256.update(chunk)
        size_bytes += len(chunk)
    return "sha256:" + sha256.hexdigest(), size_bytes


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return f"{type(reason).__name__}: {str(reason)[:200]}"
