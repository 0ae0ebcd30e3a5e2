# SPDX-License-Identifier: Apache-2.0
"""Count the particles of a micrograph with nothing but gRPC and generated stubs.

Usage: python examples/bare_stubs.py HOST:PORT IMAGE
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc

from granulo.artifact.v1 import artifact_service_pb2, artifact_service_pb2_grpc
from granulo.segmenter.v1 import segmenter_service_pb2, segmenter_service_pb2_grpc

CHUNK_BYTES = 1 << 20


def parts(path: Path) -> Iterator[artifact_service_pb2.UploadArtifactRequest]:
    """First what it is, then the bytes."""
    header = artifact_service_pb2.UploadArtifactRequest.Header(
        media_type="application/octet-stream", display_name=path.name
    )
    yield artifact_service_pb2.UploadArtifactRequest(header=header)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield artifact_service_pb2.UploadArtifactRequest(chunk=chunk)


def main(address: str, image: Path) -> None:
    with grpc.insecure_channel(address) as channel:
        artifacts = artifact_service_pb2_grpc.ArtifactServiceStub(channel)
        segmenter = segmenter_service_pb2_grpc.SegmenterServiceStub(channel)
        operations = operations_pb2_grpc.OperationsStub(channel)
        uploaded = artifacts.UploadArtifact(parts(image)).artifact
        images = segmenter_service_pb2.ImageSet(images=[uploaded])
        operation = segmenter.CreateSegmentation(
            segmenter_service_pb2.CreateSegmentationRequest(
                segmentation=segmenter_service_pb2.Segmentation(images=images)
            )
        )
        while not operation.done:
            wait = operations_pb2.WaitOperationRequest(name=operation.name)
            operation = operations.WaitOperation(wait, timeout=60)
        if operation.HasField("error"):
            sys.exit(operation.error.message)
        segmentation = segmenter_service_pb2.Segmentation()
        operation.response.Unpack(segmentation)
        print(f"{segmentation.results[0].particle_count} particles")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
