# SPDX-License-Identifier: GPL-3.0-or-later
"""`ArtifactService`: bytes in and out for clients without credentials of the store."""

import hashlib
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import grpc
from google.protobuf import timestamp_pb2

from granulo.artifact.v1 import artifact_service_pb2 as pb
from granulo.artifact.v1 import artifact_service_pb2_grpc as rpc
from granulo.type.v1 import artifact_pb2
from granulo_core.errors import (
    FieldViolation,
    GranuloError,
    Reason,
    invalid_fields,
    not_found,
)
from granulo_core.security.settings import SecuritySettings
from granulo_core.store.port import ObjectStore, StoredObject

CHUNK_BYTES = 1 << 20
# Operation records and pointers are nobody's business but the services'.
_READABLE = (
    "datasets/", "annotated/", "models/", "serving/", "cross-validations/", "segmentations/",
    "analyses/", "comparisons/", "uploads/",
)  # fmt: skip
_PENDING = "pending/"
"""What clients put to presigned URLs, until it is checked."""


def to_proto(stored: StoredObject, display_name: str = "") -> artifact_pb2.Artifact:
    """A stored object as the contract's message."""
    return artifact_pb2.Artifact(
        uri=stored.key,
        digest=stored.digest,
        size_bytes=stored.size_bytes,
        media_type=stored.media_type,
        display_name=display_name,
    )


def from_proto(artifact: artifact_pb2.Artifact) -> StoredObject:
    """The contract's message as a stored object; its digest may be empty."""
    return StoredObject(artifact.uri, artifact.digest, artifact.size_bytes, artifact.media_type)


class ArtifactServicer(rpc.ArtifactServiceServicer):
    """Uploads to ``uploads/<sha256>`` and downloads from the public prefixes."""

    def __init__(self, store: ObjectStore, settings: SecuritySettings) -> None:
        self._store = store
        self._settings = settings

    def UploadArtifact(
        self, request_iterator: Iterator[pb.UploadArtifactRequest], context: grpc.ServicerContext
    ) -> pb.UploadArtifactResponse:
        """Store the streamed bytes; the same bytes meet the same artifact."""
        first = next(request_iterator, None)
        if first is None or first.WhichOneof("part") != "header" or not first.header.media_type:
            raise invalid_fields(
                [FieldViolation("header", "must come first, with the media type.")]
            )
        header = first.header
        self._check_size("header.size_bytes", header.size_bytes)
        stored = self._take_in(
            _chunks_of(request_iterator), header.media_type, header.expected_digest
        )
        if header.size_bytes and header.size_bytes != stored.size_bytes:
            text = f"is {header.size_bytes}, but {stored.size_bytes} bytes were sent."
            raise invalid_fields([FieldViolation("header.size_bytes", text)])
        return pb.UploadArtifactResponse(artifact=to_proto(stored, header.display_name))

    def DownloadArtifact(
        self, request: pb.DownloadArtifactRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.DownloadArtifactResponse]:
        """Stream an object; the first message describes it."""
        stored = self._readable(request.uri)
        if not 0 <= request.read_offset <= stored.size_bytes:
            raise invalid_fields(
                [
                    FieldViolation(
                        "read_offset", f"must lie between 0 and {stored.size_bytes}, the size."
                    )
                ]
            )
        yield pb.DownloadArtifactResponse(artifact=to_proto(stored))
        for chunk in self._store.read_chunks(request.uri, request.read_offset, CHUNK_BYTES):
            yield pb.DownloadArtifactResponse(chunk=chunk)

    def CreateUploadUrl(
        self, request: pb.CreateUploadUrlRequest, context: grpc.ServicerContext
    ) -> pb.CreateUploadUrlResponse:
        """Give an URL for an object of its own, which nothing reads before it is checked."""
        self._check_size("size_bytes", request.size_bytes)
        key = f"{_PENDING}{secrets.token_hex(16)}"
        url, expire_time = self._presigned("PUT", key)
        return pb.CreateUploadUrlResponse(upload=key, url=url, expire_time=expire_time)

    def FinishUpload(
        self, request: pb.FinishUploadRequest, context: grpc.ServicerContext
    ) -> pb.FinishUploadResponse:
        """Read what was put, as if it came through the call: the store has checked nothing."""
        if not request.upload.startswith(_PENDING) or not self._store.exists(request.upload):
            raise not_found(request.upload, "Put the file to the URL first, or ask for a new one.")
        try:
            chunks = self._store.read_chunks(request.upload, chunk_size=CHUNK_BYTES)
            stored = self._take_in(chunks, request.media_type, request.expected_digest)
        finally:
            self._store.delete(request.upload)
        return pb.FinishUploadResponse(artifact=to_proto(stored, request.display_name))

    def CreateDownloadUrl(
        self, request: pb.CreateDownloadUrlRequest, context: grpc.ServicerContext
    ) -> pb.CreateDownloadUrlResponse:
        """Give an URL for one object."""
        stored = self._readable(request.uri)
        url, expire_time = self._presigned("GET", request.uri)
        return pb.CreateDownloadUrlResponse(
            artifact=to_proto(stored), url=url, expire_time=expire_time
        )

    def _readable(self, uri: str) -> StoredObject:
        if not uri.startswith(_READABLE):
            raise not_found(uri, f"Readable are: {', '.join(_READABLE)}.")
        return self._store.stat(uri)

    def _check_size(self, field: str, size_bytes: int) -> None:
        limit = self._settings.max_upload_bytes
        if not 0 <= size_bytes <= limit:
            text = f"is {size_bytes}; this server takes 0 to {limit} bytes (max_upload_bytes)."
            raise invalid_fields([FieldViolation(field, text)])

    def _presigned(
        self, verb: Literal["GET", "PUT"], key: str
    ) -> tuple[str, timestamp_pb2.Timestamp]:
        endpoint, seconds = self._settings.presign_endpoint, self._settings.presign_expiry_s
        end = datetime.now(UTC) + timedelta(seconds=seconds)
        url = self._store.presigned(verb, key, seconds, endpoint) if endpoint else ""
        if not url:
            raise GranuloError(
                Reason.PRESIGNING_UNAVAILABLE,
                "This server gives no presigned URLs: its store is no S3 service, or "
                "GRANULO_PRESIGN_ENDPOINT is not set. Send the bytes through this service.",
            )
        expire_time = timestamp_pb2.Timestamp()
        expire_time.FromDatetime(end)
        return url, expire_time

    def _take_in(
        self, chunks: Iterable[bytes], media_type: str, expected_digest: str
    ) -> StoredObject:
        """Keep bytes in a temporary file until they are whole and what they should be."""
        with _scratch_file() as path:
            digest = _receive(chunks, path, self._settings.max_upload_bytes)
            if expected_digest and expected_digest != digest:
                raise GranuloError(
                    Reason.DIGEST_MISMATCH,
                    f"The received bytes have {digest}, not {expected_digest}; send them again.",
                )
            key = f"uploads/{digest.removeprefix('sha256:')}"
            return self._store.put_file(key, path, media_type)


@contextmanager
def _scratch_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="granulo-upload-") as folder:
        yield Path(folder) / "upload"


def _chunks_of(parts: Iterator[pb.UploadArtifactRequest]) -> Iterator[bytes]:
    for part in parts:
        if part.WhichOneof("part") != "chunk" or len(part.chunk) > CHUNK_BYTES:
            raise invalid_fields(
                [FieldViolation("chunk", f"must be at most {CHUNK_BYTES} bytes, one a part.")]
            )
        yield part.chunk


def _receive(chunks: Iterable[bytes], path: Path, max_bytes: int) -> str:
    """Write chunks to a file, up to a limit, and return their digest."""
    sha, size = hashlib.sha256(), 0
    try:
        with path.open("wb") as target:
            for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    text = f"more than {max_bytes} bytes in all (max_upload_bytes)."
                    raise invalid_fields([FieldViolation("chunk", text)])
                sha.update(chunk)
                target.write(chunk)
    except OSError as error:
        raise GranuloError(
            Reason.STORE_FULL,
            f"The upload cannot be kept in {path.parent} ({error.strerror}); make space there, "
            "or name another folder in the server's TMPDIR.",
        ) from error
    return f"sha256:{sha.hexdigest()}"
