# SPDX-License-Identifier: Apache-2.0
"""Big files straight to and from the object store, at URLs that the server signs for a while."""

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

import grpc

from granulo.artifact.v1 import artifact_service_pb2 as pb
from granulo.artifact.v1 import artifact_service_pb2_grpc as rpc
from granulo.type.v1 import artifact_pb2

T = TypeVar("T")

BIG_BYTES = 64 << 20
"""Smaller files are as quick through the service."""
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60.0
# The server gives no URLs, or does not know of any.
_NONE = frozenset({grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNIMPLEMENTED})


def put(
    stub: rpc.ArtifactServiceStub,
    path: Path,
    header: pb.UploadArtifactRequest.Header,
    on_bytes: Callable[[int], None],
) -> artifact_pb2.Artifact | None:
    """Upload a file to a URL of the store.

    Parameters
    ----------
    stub : ArtifactServiceStub
    path : Path
    header : UploadArtifactRequest.Header
        As for an upload through the service.
    on_bytes : callable
        Is told how many bytes went through.

    Returns
    -------
    Artifact or None
        None where there is no URL, or the store cannot be reached from here: send the file through
        the service.

    Raises
    ------
    grpc.RpcError
        The service refused it.
    """
    asked = pb.CreateUploadUrlRequest(size_bytes=header.size_bytes)
    given = _given(lambda: stub.CreateUploadUrl(asked, timeout=_TIMEOUT_S))
    if given is None or not _is_web(given.url):
        return None
    with path.open("rb") as file:
        told = _Told(file, on_bytes)
        request = urllib.request.Request(
            given.url,
            data=told,
            method="PUT",
            headers={"Content-Length": str(header.size_bytes)},
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
                pass
        except OSError:
            on_bytes(-told.bytes_read)
            return None
    answer = stub.FinishUpload(
        pb.FinishUploadRequest(
            upload=given.upload,
            media_type=header.media_type,
            expected_digest=header.expected_digest,
            display_name=header.display_name,
        ),
        # The server reads the whole file once more.
        timeout=3600.0,
    )
    return answer.artifact


def get(stub: rpc.ArtifactServiceStub, uri: str) -> Iterator[bytes]:
    """Chunks of an object at a URL of the store.

    Ends early where there is no URL, or the store cannot be reached or hangs up: what is missing is
    to be read through the service.
    """
    request = pb.CreateDownloadUrlRequest(uri=uri)
    given = _given(lambda: stub.CreateDownloadUrl(request, timeout=_TIMEOUT_S))
    if given is None or not _is_web(given.url):
        return
    try:
        with urllib.request.urlopen(given.url, timeout=_TIMEOUT_S) as answer:
            while chunk := answer.read(_CHUNK_BYTES):
                yield chunk
    except OSError:
        return


def _is_web(url: str) -> bool:
    """Whether a URL is one of a server: urllib would open files of this machine, too."""
    return url.startswith(("https://", "http://"))


def _given(call: Callable[[], T]) -> T | None:
    try:
        return call()
    except grpc.RpcError as error:
        if error.code() in _NONE:
            return None
        raise


class _Told:
    """A file that tells how far it was read."""

    def __init__(self, file: IO[bytes], on_bytes: Callable[[int], None]) -> None:
        self._file = file
        self._on_bytes = on_bytes
        self.bytes_read = 0

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        data = self._file.read(size)
        self.bytes_read += len(data)
        self._on_bytes(len(data))
        return data
