# SPDX-License-Identifier: GPL-3.0-or-later
"""Around a trainer: its store, its calls, small annotated images."""

import hashlib
import io
import time
from typing import Any

import grpc
import numpy as np
import tifffile
from google.longrunning import operations_pb2, operations_pb2_grpc

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo.trainer.v1 import trainer_service_pb2_grpc as rpc
from granulo.type.v1 import artifact_pb2
from granulo_core.store import LocalStore
from granulo_core.store import manifest as manifests

SIDE = 96


# The smallest network and the fewest steps: rules are tested here, not accuracy.
TINY = {"width": 0.1, "epochs": 2, "steps_per_epoch": 1, "batch_size": 1, "patch_px": 64}


def particles(seed: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image of a few discs, and their ids."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    ids = np.zeros((side, side), np.uint16)
    for number in range(1, 7):
        row, column = rng.uniform(8, side - 8, 2)
        ids[(y - row) ** 2 + (x - column) ** 2 < 8**2] = number
    image = np.where(ids > 0, 170, 50) + rng.integers(0, 25, ids.shape)
    return image.astype(np.uint8), ids


def tiff(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array)
    return buffer.getvalue()


def ended(
    operations: operations_pb2_grpc.OperationsStub,
    operation: operations_pb2.Operation,
    limit_s: float,
) -> operations_pb2.Operation:
    """The operation once it is over."""
    deadline = time.monotonic() + limit_s
    while not operation.done:
        assert time.monotonic() < deadline, "the operation did not end in time"
        time.sleep(0.2)
        name = operations_pb2.GetOperationRequest(name=operation.name)
        operation = operations.GetOperation(name)
    return operation


class Trainer:
    """A running trainer and the stubs to speak to it."""

    def __init__(self, address: str, store: LocalStore) -> None:
        self.address = address
        channel = grpc.insecure_channel(address)
        self.store = store
        self.rpc = rpc.TrainerServiceStub(channel)
        self.operations = operations_pb2_grpc.OperationsStub(channel)

    def upload(self, data: bytes | np.ndarray, name: str) -> artifact_pb2.Artifact:
        data = tiff(data) if isinstance(data, np.ndarray) else data
        stored = self.store.put(f"uploads/{hashlib.sha256(data).hexdigest()}", data)
        return artifact_pb2.Artifact(uri=stored.key, digest=stored.digest, display_name=name)

    def pair(self, seed: int, side: int = SIDE) -> pb.AnnotatedImage:
        image, ids = particles(seed, side)
        return pb.AnnotatedImage(
            image=self.upload(image, f"real{seed}.tif"),
            labels=self.upload(ids, f"real{seed}_labels.tif"),
        )

    def imported(self, dataset_id: str, seeds: range, side: int = SIDE) -> pb.AnnotatedDataset:
        images = [self.pair(seed, side) for seed in seeds]
        return self.rpc.ImportDataset(
            pb.ImportDatasetRequest(
                dataset=pb.AnnotatedDataset(images=images), dataset_id=dataset_id
            )
        )

    def rendered(self, dataset_id: str, labels: list[np.ndarray]) -> str:
        """A dataset as the renderer would leave it, without layers."""
        name = f"datasets/{dataset_id}"
        objects = []
        for number, ids in enumerate(labels):
            image = np.where(ids > 0, 180, 40).astype(np.uint8)
            objects += [
                self.store.put(f"{name}/images/{number:06d}.tif", tiff(image)),
                self.store.put(f"{name}/labels/{number:06d}.tif", tiff(ids)),
            ]
        producer = manifests.producer("render", 0)
        manifest = manifests.Manifest(name, "Dataset", tuple(objects), (), producer, {})
        manifests.commit(self.store, name, manifest)
        return name

    def train(self, *names: str, **config: Any) -> operations_pb2.Operation:
        values = {"datasets": names, **TINY, **config}
        return self.rpc.CreateModelVersion(
            pb.CreateModelVersionRequest(
                parent="models/data",
                model_version=pb.ModelVersion(config=pb.TrainingConfig(**values)),
            )
        )

    def cross_validate(self, dataset: str, folds: int = 0, **config: Any) -> Any:
        message = pb.CrossValidation(
            dataset=dataset, folds=folds, config=pb.TrainingConfig(**{**TINY, **config})
        )
        return self.rpc.CrossValidate(pb.CrossValidateRequest(cross_validation=message))

    def finish(
        self, operation: operations_pb2.Operation, limit_s: float = 240
    ) -> operations_pb2.Operation:
        return ended(self.operations, operation, limit_s)
