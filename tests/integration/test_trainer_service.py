# SPDX-License-Identifier: GPL-3.0-or-later
"""The trainer as a real server with a real engine on a real store."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tifffile
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import error_details_pb2, status_pb2

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo.trainer.v1 import trainer_service_pb2_grpc as rpc
from granulo.type.v1 import artifact_pb2, progress_pb2
from granulo_core.engine.local import LocalEngine
from granulo_core.imaging.appearance import Layers
from granulo_core.rpc.serve import ServiceParts
from granulo_core.rpc.server import build_server
from granulo_core.settings import CoreSettings
from granulo_core.store import LocalStore
from granulo_core.store import manifest as manifests
from granulo_trainer.domain.config import METADATA_NAME
from granulo_trainer.servicer import build

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from trainer_parts import ended

DATASET = "datasets/ds-test"


def tiff(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array)
    return buffer.getvalue()


def put_dataset(store: LocalStore) -> None:
    side = 128
    y, x = np.mgrid[:side, :side]
    ids = (((y % 32 - 16) ** 2 + (x % 32 - 16) ** 2) < 144).astype(np.uint16)
    ids *= (1 + y // 32 * 4 + x // 32).astype(np.uint16)
    layers = Layers(
        occlusion=np.full(ids.shape, 255, np.uint8),
        normals=np.tile(np.array([0, 0, 127], np.int8), (side, side, 1)),
        height_nm=np.zeros(ids.shape, np.float16),
        instances=ids,
        pixel_size_nm=2.0,
    )
    objects = []
    for number in range(2):
        stem = f"{number:06d}"
        image = np.where(ids > 0, 180, 40).astype(np.uint8)
        objects += [
            store.put(f"{DATASET}/layers/{stem}.npz", layers.save()),
            store.put(f"{DATASET}/images/{stem}.tif", tiff(image)),
            store.put(f"{DATASET}/labels/{stem}.tif", tiff(ids)),
        ]
    manifests.commit(
        store,
        DATASET,
        manifests.Manifest(
            resource=DATASET,
            kind="Dataset",
            objects=tuple(objects),
            inputs=(),
            producer=manifests.producer("render", 0),
            request={},
        ),
    )


class Trainer:
    """A running trainer and the stubs to speak to it."""

    def __init__(self, address: str, store: LocalStore) -> None:
        channel = grpc.insecure_channel(address)
        self.store = store
        self.trainer = rpc.TrainerServiceStub(channel)
        self.operations = operations_pb2_grpc.OperationsStub(channel)

    def progress(self, name: str) -> progress_pb2.Progress:
        found = self.operations.GetOperation(operations_pb2.GetOperationRequest(name=name))
        metadata = pb.CreateModelVersionMetadata()
        assert found.metadata.Unpack(metadata)
        return metadata.progress

    def finish(self, operation: operations_pb2.Operation, limit_s: float = 240) -> pb.ModelVersion:
        operation = ended(self.operations, operation, limit_s)
        assert operation.HasField("response"), operation.error
        version = pb.ModelVersion()
        assert operation.response.Unpack(version)
        return version


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    store = LocalStore(tmp_path_factory.mktemp("trainer") / "store")
    put_dataset(store)
    engine = LocalEngine()
    built = build(ServiceParts(store, engine))
    running = build_server(
        [built.registration], runners=[built.runner], store=store, settings=CoreSettings()
    )
    address = running.start("127.0.0.1:0")
    yield Trainer(address, store)
    running.stop()
    built.runner.close()
    engine.close()


def request(**config: object) -> pb.CreateModelVersionRequest:
    values = {
        "datasets": [DATASET], "epochs": 2, "steps_per_epoch": 2, "batch_size": 1, "patch_px": 64,
        **config,
    }  # fmt: skip
    return pb.CreateModelVersionRequest(
        parent="models/tiny", model_version=pb.ModelVersion(config=pb.TrainingConfig(**values))
    )


def test_train_list_promote_and_train_again(server: Trainer) -> None:
    version = server.finish(server.trainer.CreateModelVersion(request()))
    assert version.name == "models/tiny/versions/1"
    assert version.state == pb.ModelVersion.STATE_ACTIVE
    assert version.config.epochs == 2
    assert version.metrics["loss"] > 0
    assert version.parameter_count > 1_000_000
    assert version.weights_digest.startswith("sha256:")

    manifest = manifests.load(server.store, version.name)
    assert [source.name for source in manifest.inputs] == [DATASET]
    manifests.verify(server.store, manifest)

    found = server.trainer.ListCheckpoints(pb.ListCheckpointsRequest(parent=version.name))
    assert [item.epoch for item in found.checkpoints] == [1, 2]

    model = server.trainer.PromoteModelVersion(pb.PromoteModelVersionRequest(name=version.name))
    assert model.serving_version == version.name
    served = set(server.store.list("serving/tiny/1/"))
    assert {"serving/tiny/1/saved_model.pb", f"serving/tiny/1/{METADATA_NAME}"} <= served
    assert server.store.exists("refs/models/tiny.json")

    again = server.finish(server.trainer.CreateModelVersion(request()))
    assert again.name == version.name
    tuned = request(seed=3, max_steps=3, base_version=version.name)
    operation = server.trainer.CreateModelVersion(tuned)
    other = server.finish(operation)
    assert other.name == "models/tiny/versions/2"
    assert other.config.base_version == version.name
    assert (other.metrics["steps_trained"], other.metrics["epochs_trained"]) == (3, 2)
    made_from = {item.name: item.digest for item in manifests.load(server.store, other.name).inputs}
    assert made_from[version.name] == version.manifest.digest
    progress = server.progress(operation.name)
    assert (progress.units_done, progress.units_total, progress.unit) == (3, 3, "step")
    assert "max_steps 3 is reached" in progress.message
    assert not [key for key in server.store.list("models/") if key.endswith("optimizer.npz")]
    for change, text in (
        ({"preset": "paper"}, "its preset is small and this training's paper"),
        ({"width": 0.5}, "its feature maps are [24"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            server.trainer.CreateModelVersion(request(base_version=version.name, **change))
        assert violations(caught.value) == ["model_version.config.base_version"]
        assert text in caught.value.details()

    listed = server.trainer.ListModelVersions(pb.ListModelVersionsRequest(parent="models/tiny"))
    assert [item.name for item in listed.model_versions] == [version.name, other.name]
    models = server.trainer.ListModels(pb.ListModelsRequest()).models
    assert [(item.name, item.serving_version) for item in models] == [("models/tiny", version.name)]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"preset": "huge"}, "model_version.config.preset"),
        ({"epochs": -1}, "model_version.config.epochs"),
        ({"learning_rate": float("nan")}, "model_version.config.learning_rate"),
        ({"patch_px": 250}, "model_version.config.patch_px"),
        ({"batch_size": 256, "patch_px": 2048}, "model_version.config.batch_size"),
        ({"precision": "half"}, "model_version.config.precision"),
        ({"deterministic": True, "max_minutes": 1.0}, "model_version.config.deterministic"),
        ({"base_version": "models/none/versions/1"}, "model_version.config.base_version"),
        ({"base_version": "models/default"}, "model_version.config.base_version"),
        ({"datasets": ["../secret"]}, "model_version.config.datasets[0]"),
        (
            {
                "validation": [
                    pb.ValidationImage(image=artifact_pb2.Artifact(uri="operations/trainer/x"))
                ]
            },
            "model_version.config.validation[0].image.uri",
        ),
    ],
)
def test_unusable_requests_are_refused_before_any_work(
    server: Trainer, change: dict[str, object], field: str
) -> None:
    before = list(server.store.list("models/"))
    with pytest.raises(grpc.RpcError) as caught:
        server.trainer.CreateModelVersion(request(**change))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in violations(caught.value)
    assert list(server.store.list("models/")) == before


def test_missing_dataset_is_not_found(server: Trainer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.trainer.CreateModelVersion(request(datasets=["datasets/ds-none"]))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "datasets/ds-none" in caught.value.details()


def test_validation_file_that_is_no_image_is_refused(server: Trainer) -> None:
    stored = server.store.put("uploads/text", b"not an image at all")
    image = artifact_pb2.Artifact(uri=stored.key, digest=stored.digest, display_name="notes.tif")
    with pytest.raises(grpc.RpcError) as caught:
        server.trainer.CreateModelVersion(request(validation=[pb.ValidationImage(image=image)]))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "notes.tif" in caught.value.details()


def test_models_that_do_not_exist_are_not_found(server: Trainer) -> None:
    for call, message in (
        (server.trainer.GetModel, pb.GetModelRequest(name="models/none")),
        (server.trainer.GetModelVersion, pb.GetModelVersionRequest(name="models/none/versions/3")),
        (
            server.trainer.PromoteModelVersion,
            pb.PromoteModelVersionRequest(name="models/none/versions/1"),
        ),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(message)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def violations(error: grpc.RpcError) -> list[str]:
    """Fields of the BadRequest in an error's details."""
    trailing = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return [violation.field for violation in bad.field_violations]
    return []
