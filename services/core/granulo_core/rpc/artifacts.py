# SPDX-License-Identifier: GPL-3.0-or-later
"""`ArtifactService`: bytes in and out for clients without credentials of the store."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc

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
from granulo_core.store.port import ObjectStore, StoredObject

CHUNK_BYTES = 1 << 20
MAX_UPLOAD_BYTES = 8 << 30
# Operation records and pointers are nobody's business but the services'.
_READABLE = (
    "datasets/", "annotated/", "models/", "serving/", "cross-validations/", "segmentations/",
    "analyses/", "uploads/",
)  # fmt: skip


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

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def UploadArtifact(
        self, request_iterator: Iterator[pb.UploadArtifactRequest], context: grpc.ServicerContext
    ) -> pb.UploadArtifactResponse:
        """Store the streamed bytes; the same bytes meet the same artifact."""
        first = next(request_iterator, None)
        if first is None or first.WhichOneof("part") != "header" or not first.header.media_type:
            raise invalid_fields(
                [FieldViolation("header", "must come first, with the media type.")]
            )
        with tempfile.TemporaryDirectory(prefix="granulo-upload-") as folder:
            path = Path(folder) / "upload"
            try:
                digest = _receive(request_iterator, path)
            except OSError as error:
                raise GranuloError(
                    Reason.STORE_FULL,
                    f"The upload cannot be kept in {folder} ({error.strerror}); make space there, "
                    "or name another folder in the server's TMPDIR.",
                ) from error
            expected = first.header.expected_digest
            if expected and expected != digest:
                raise GranuloError(
                    Reason.DIGEST_MISMATCH,
                    f"The received bytes have {digest}, not {expected}; send them again.",
                )
            key = f"uploads/{digest.removeprefix('sha256:')}"
            stored = self._store.put_file(key, path, first.header.media_type)
        artifact = to_proto(stored, first.header.display_name)
        return pb.UploadArtifactResponse(artifact=artifact)

    def DownloadArtifact(
        self, request: pb.DownloadArtifactRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.DownloadArtifactResponse]:
        """Stream an object; the first message describes it."""
        if not request.uri.startswith(_READABLE):
            raise not_found(request.uri, f"Readable are: {', '.join(_READABLE)}.")
        stored = self._store.stat(request.uri)
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


def _receive(parts: Iterator[pb.UploadArtifactRequest], path: Path) -> str:
    sha, size = hashlib.sha256(), 0
    with path.open("wb") as target:
        for part in parts:
            chunk = part.chunk
            size += len(chunk)
            if part.WhichOneof("part") != "chunk" or len(chunk) > CHUNK_BYTES:
                raise invalid_fields(
                    [FieldViolation("chunk", f"must be at most {CHUNK_BYTES} bytes, one a part.")]
                )
            if size > MAX_UPLOAD_BYTES:
                raise invalid_fields(
                    [FieldViolation("chunk", f"more than {MAX_UPLOAD_BYTES} bytes in all.")]
                )
            sha.update(chunk)
            target.write(chunk)
    return f"sha256:{sha.hexdigest()}"
