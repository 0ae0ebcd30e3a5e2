# SPDX-License-Identifier: Apache-2.0
"""Bytes in and out: 1 MiB chunks, digests checked at both ends, broken downloads continued."""

import hashlib
import mimetypes
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from granulo.artifact.v1 import artifact_service_pb2, artifact_service_pb2_grpc
from granulo.type.v1 import artifact_pb2
from granulo_client import presigned
from granulo_client.channels import Channels
from granulo_client.errors import DataLossError, UsageError
from granulo_client.files import write_whole

CHUNK_BYTES = 1024 * 1024
_ATTEMPTS = 5
# A server that went away, and one whose places for streams are taken.
_PASSING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})
_MEDIA_TYPES = {".tif": "image/tiff", ".tiff": "image/tiff", ".bmp": "image/bmp"}

OnBytes = Callable[[int], None]
"""Called with the number of bytes that went through since the last call."""


class Transfers:
    """Uploads and downloads of artifacts.

    Parameters
    ----------
    channels : Channels
    timeout_s : float
        Longest time for one file.
    """

    def __init__(self, channels: Channels, timeout_s: float = 3600.0) -> None:
        self._channels = channels
        self._timeout_s = timeout_s

    def upload(
        self,
        source: Path | bytes,
        service: str,
        *,
        display_name: str = "",
        on_bytes: OnBytes | None = None,
    ) -> artifact_pb2.Artifact:
        """Store a file or bytes; the same bytes meet the same artifact.

        Parameters
        ----------
        source : Path or bytes
        service : str
            The service that will read it, e.g. ``segmenter``.
        display_name : str
            Name by which results call it; the file's name by default.
        on_bytes : callable, optional
            Progress.

        Raises
        ------
        UsageError
            The file cannot be read.
        GranuloClientError
            As the server answered.
        """
        name = display_name or (source.name if isinstance(source, Path) else "")
        digest = _digest(source)
        size_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
        header = artifact_service_pb2.UploadArtifactRequest.Header(
            media_type=media_type(name),
            expected_digest=digest,
            display_name=name,
            size_bytes=size_bytes,
        )

        def requests() -> Iterator[artifact_service_pb2.UploadArtifactRequest]:
            yield artifact_service_pb2.UploadArtifactRequest(header=header)
            for chunk in _chunks(source):
                yield artifact_service_pb2.UploadArtifactRequest(chunk=chunk)
                if on_bytes:
                    on_bytes(len(chunk))

        stub = artifact_service_pb2_grpc.ArtifactServiceStub(self._channels.to(service))
        stored: artifact_pb2.Artifact | None = None
        try:
            if isinstance(source, Path) and size_bytes >= presigned.BIG_BYTES:
                stored = presigned.put(stub, source, header, on_bytes or (lambda _: None))
            if stored is None:
                stored = stub.UploadArtifact(requests(), timeout=self._timeout_s).artifact
        except grpc.RpcError as error:
            raise self._channels.failed(error, service) from error
        artifact = artifact_pb2.Artifact()
        artifact.CopyFrom(stored)
        artifact.display_name = name
        return artifact

    def download(
        self,
        artifact: artifact_pb2.Artifact | str,
        target: Path,
        service: str,
        *,
        on_bytes: OnBytes | None = None,
    ) -> Path:
        """Write an artifact to a file, which appears only once it is whole.

        Raises
        ------
        DataLossError
            The bytes differ from the digest.
        UsageError
            The file cannot be written.
        GranuloClientError
            As the server answered.
        """
        with write_whole(target) as file:
            for chunk in self.stream(artifact, service):
                file.write(chunk)
                if on_bytes:
                    on_bytes(len(chunk))
        return target

    def read(self, artifact: artifact_pb2.Artifact | str, service: str) -> bytes:
        """Bytes of a small artifact."""
        return b"".join(self.stream(artifact, service))

    def stream(self, artifact: artifact_pb2.Artifact | str, service: str) -> Iterator[bytes]:
        """Chunks of an artifact; a broken stream is continued where it broke off.

        Raises
        ------
        DataLossError
            At the end, when the bytes differ from the digest.
        GranuloClientError
            As the server answered.
        """
        uri = artifact if isinstance(artifact, str) else artifact.uri
        expected = "" if isinstance(artifact, str) else artifact.digest
        stub = artifact_service_pb2_grpc.ArtifactServiceStub(self._channels.to(service))
        size_bytes = 0 if isinstance(artifact, str) else artifact.size_bytes
        seen, hashed, failures = 0, hashlib.sha256(), 0
        if size_bytes >= presigned.BIG_BYTES:
            for chunk in self._from_store(stub, uri, service):
                hashed.update(chunk)
                seen += len(chunk)
                yield chunk
        while True:  # whole or not: the service tells the digest, too
            request = artifact_service_pb2.DownloadArtifactRequest(uri=uri, read_offset=seen)
            try:
                for message in stub.DownloadArtifact(request, timeout=self._timeout_s):
                    expected = expected or message.artifact.digest
                    if message.chunk:
                        hashed.update(message.chunk)
                        seen += len(message.chunk)
                        failures = 0
                        yield message.chunk
                break
            except grpc.RpcError as error:
                failures += 1
                if error.code() not in _PASSING or failures >= _ATTEMPTS:
                    raise self._channels.failed(error, service) from error
                time.sleep(min(0.2 * 2**failures, 2.0))
        if expected and f"sha256:{hashed.hexdigest()}" != expected:
            raise DataLossError(
                f"{uri} arrived damaged: its bytes differ from its digest. Download it again; "
                "if that does not help, the stored object is damaged.",
                reason="DIGEST_MISMATCH",
            )

    def _from_store(
        self, stub: artifact_service_pb2_grpc.ArtifactServiceStub, uri: str, service: str
    ) -> Iterator[bytes]:
        try:
            yield from presigned.get(stub, uri)
        except grpc.RpcError as error:
            raise self._channels.failed(error, service) from error


def media_type(name: str) -> str:
    """Media type by a file name's ending."""
    ending = Path(name).suffix.lower()
    guessed = mimetypes.guess_type(name)[0]
    return _MEDIA_TYPES.get(ending) or guessed or "application/octet-stream"


def check_readable(path: Path) -> Path:
    """Return the path of a file that can be read.

    Raises
    ------
    UsageError
        There is none.
    """
    try:
        with path.open("rb"):
            return path
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder; name the files in it.") from None
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist. Check the path.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None


def _chunks(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        for start in range(0, len(source), CHUNK_BYTES):
            yield source[start : start + CHUNK_BYTES]
        return
    with source.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _digest(source: Path | bytes) -> str:
    if isinstance(source, Path):
        check_readable(source)
    hashed = hashlib.sha256()
    for chunk in _chunks(source):
        hashed.update(chunk)
    return f"sha256:{hashed.hexdigest()}"
