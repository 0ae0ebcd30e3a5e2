# SPDX-License-Identifier: GPL-3.0-or-later
"""A trained version as others meet it: thresholds, card, warm-up requests, exports, rollback."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import tifffile
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import error_details_pb2, status_pb2
from tensorflow_serving.apis import prediction_log_pb2

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo.trainer.v1 import trainer_service_pb2_grpc as rpc
from granulo_core.engine.local import LocalEngine
from granulo_core.imaging.instances import InstanceParams
from granulo_core.rpc.serve import ServiceParts
from granulo_core.rpc.server import build_server
from granulo_core.settings import CoreSettings
from granulo_core.store import LocalStore
from granulo_core.store import manifest as manifests
from granulo_segmenter.domain.model import ModelFacts
from granulo_trainer import registry
from granulo_trainer.domain.config import METADATA_NAME
from granulo_trainer.servicer import build
from granulo_trainer.unet.warm_up import NAME as WARM_UP_NAME
from granulo_trainer.workflow import export_version

DATASET = "datasets/ds-test"
SCENES = 32
"""Two of them are kept back: the fewest that thresholds are tuned on."""
SAVED_MODEL = pb.ExportModelVersionRequest.FORMAT_SAVED_MODEL
ONNX = pb.ExportModelVersionRequest.FORMAT_ONNX


def put_dataset(store: LocalStore) -> None:
    y, x = np.mgrid[:64, :64]
    ids = (((y % 32 - 16) ** 2 + (x % 32 - 16) ** 2) < 144).astype(np.uint16)
    ids *= (1 + y // 32 * 2 + x // 32).astype(np.uint16)
    image = np.where(ids > 0, 180, 40).astype(np.uint8)
    objects = []
    for number in range(SCENES):
        for kind, array in (("images", image), ("labels", ids)):
            buffer = io.BytesIO()
            tifffile.imwrite(buffer, array)
            objects.append(
                store.put(f"{DATASET}/{kind}/{number:06d}.tif", buffer.getvalue(), "image/tiff")
            )
    manifests.commit(
        store,
        DATASET,
        manifests.Manifest(
            resource=DATASET,
            kind="Dataset",
            objects=tuple(objects),
            inputs=(),
            producer=manifests.producer("render", 4),
            request={},
            facts={
                "recipe": {"label": "discs", "classes": [{"sphere": {}}]},
                "particle_count": 4 * SCENES,
            },
        ),
    )


class Trainer:
    """A running trainer, the stubs to speak to it, and one version that it trained."""

    def __init__(self, address: str, store: LocalStore) -> None:
        channel = grpc.insecure_channel(address)
        self.store = store
        self.stub = rpc.TrainerServiceStub(channel)
        self._operations = operations_pb2_grpc.OperationsStub(channel)
        config = pb.TrainingConfig(
            datasets=[DATASET], epochs=1, steps_per_epoch=1, batch_size=1, patch_px=64, width=0.1
        )
        request = pb.CreateModelVersionRequest(
            parent="models/tiny", model_version=pb.ModelVersion(config=config)
        )
        self.version = pb.ModelVersion()
        self.finish(self.stub.CreateModelVersion(request), self.version)
        self.manifest = manifests.load(store, self.version.name)

    def finish(self, operation: operations_pb2.Operation, response: Any) -> None:
        deadline = time.monotonic() + 240
        while not operation.done:
            assert time.monotonic() < deadline, "the operation did not end in time"
            time.sleep(0.2)
            name = operations_pb2.GetOperationRequest(name=operation.name)
            operation = self._operations.GetOperation(name)
        assert operation.HasField("response"), operation.error
        assert operation.response.Unpack(response)

    def export(self, file_format: int) -> dict[str, bytes]:
        """Files of an export by their paths."""
        request = pb.ExportModelVersionRequest(name=self.version.name, format=file_format)  # type: ignore[arg-type]
        response = pb.ExportModelVersionResponse()
        self.finish(self.stub.ExportModelVersion(request), response)
        return {item.display_name: self.store.get(item.uri, item.digest) for item in response.files}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    store = LocalStore(tmp_path_factory.mktemp("export") / "store")
    put_dataset(store)
    engine = LocalEngine()
    built = build(ServiceParts(store, engine))
    server = build_server(
        [built.registration], runners=[built.runner], store=store, settings=CoreSettings()
    )
    yield Trainer(server.start("127.0.0.1:0"), store)
    server.stop()
    built.runner.close()
    engine.close()


@pytest.fixture(scope="module")
def saved_model(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SavedModel export in a folder, as TensorFlow Serving takes it."""
    folder = tmp_path_factory.mktemp("served") / "1"
    for name, data in trainer.export(SAVED_MODEL).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_thresholds_are_tuned_and_saved_with_the_model(trainer: Trainer) -> None:
    tuning = trainer.manifest.facts["tuning"]
    assert (tuning["scenes"], tuning["images"]) == (2, 2)  # images without layers have one look
    assert tuning["candidates"] >= 20
    stored = trainer.manifest.object(f"saved_model/{METADATA_NAME}")
    metadata = json.loads(trainer.store.get(stored.key, stored.digest))
    assert metadata["instances"] == trainer.manifest.facts["instances"]
    assert InstanceParams.from_json(metadata["instances"])
    assert metadata["parameter_count"] == trainer.version.parameter_count > 100
    assert ModelFacts.from_json(metadata).has_distance


def test_the_card_tells_the_lineage_and_shows_the_data(trainer: Trainer) -> None:
    manifests.verify(trainer.store, trainer.manifest)
    card = trainer.store.get(trainer.version.model_card.uri, trainer.version.model_card.digest)
    text = card.decode()
    digest = manifests.manifest_artifact(trainer.store, DATASET).digest
    assert f"`{DATASET}`: `{digest}`" in text
    assert f"| `{DATASET}` | discs | 4 | 32 | 128 |" in text
    assert trainer.version.weights_digest in text
    picture = trainer.manifest.object("training_data.png")
    data = np.frombuffer(trainer.store.get(picture.key, picture.digest), np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape[1] > 900


def test_warm_up_requests_are_answered_by_the_signature(saved_model: Path) -> None:
    serve = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    path = saved_model / WARM_UP_NAME
    assert path.stat().st_size < 1000
    tile_px = json.loads((saved_model / METADATA_NAME).read_text())["tile_px"]
    sides = []
    for record in tf.data.TFRecordDataset(str(path)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.signature_name == "serving_default"
        image = tf.make_ndarray(request.inputs["image"])
        assert image.dtype == np.uint8
        outputs = serve(image=tf.constant(image))
        assert {output.shape[1:] for output in outputs.values()} == {image.shape[1:3]}
        sides.append(image.shape[1])
    assert sides == [256, tile_px]


def test_a_saved_model_export_has_the_files_of_the_version(
    trainer: Trainer, saved_model: Path
) -> None:
    exported = {
        path.relative_to(saved_model).as_posix(): path.read_bytes()
        for path in saved_model.rglob("*")
        if path.is_file()
    }
    kept = dict(registry.saved_model_objects(trainer.manifest))
    assert set(exported) == set(kept) | {"MODEL_CARD.md", "training_data.png"}
    for name, stored in kept.items():
        assert exported[name] == trainer.store.get(stored.key, stored.digest)


def test_an_onnx_export_gives_the_outputs_of_the_saved_model(
    trainer: Trainer, saved_model: Path
) -> None:
    files = trainer.export(ONNX)
    assert set(files) == {"model.onnx", "granulo.json", "MODEL_CARD.md", "training_data.png"}
    session = onnxruntime.InferenceSession(files["model.onnx"], providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 1), dtype=np.uint8)
    expected = tf.saved_model.load(str(saved_model)).signatures["serving_default"](
        image=tf.constant(image)
    )
    names = [output.name for output in session.get_outputs()]
    assert set(names) == set(expected)
    for name, found in zip(names, session.run(None, {"image": image}), strict=True):
        np.testing.assert_allclose(found, expected[name].numpy(), atol=2e-3)
    # A second request meets the file of the first.
    assert trainer.export(ONNX) == files


def reason_of(error: grpc.RpcError) -> str:
    status = status_pb2.Status.FromString(
        dict(error.trailing_metadata())["grpc-status-details-bin"]
    )
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return str(info.reason)


@pytest.mark.parametrize("failed", [True, False])
def test_unfinished_versions_are_neither_promoted_nor_exported(
    trainer: Trainer, failed: bool
) -> None:
    version = registry.claim(trainer.store, "unfinished", f"sha256:{failed}")
    if failed:
        registry.mark_failed(trainer.store, version, "the loss became nan")
    name = str(version)
    for call, request in (
        (trainer.stub.PromoteModelVersion, pb.PromoteModelVersionRequest(name=name)),
        (trainer.stub.ExportModelVersion, pb.ExportModelVersionRequest(name=name, format=ONNX)),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert reason_of(caught.value) == "RESOURCE_NOT_READY"
        assert ("train again" if failed else "wait for its operation") in caught.value.details()


def test_an_export_without_a_format_is_refused(trainer: Trainer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        trainer.stub.ExportModelVersion(pb.ExportModelVersionRequest(name=trainer.version.name))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "format" in caught.value.details()


def test_a_missing_converter_is_told_before_any_work(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_version, "_CONVERTER", "no_such_package")
    with pytest.raises(grpc.RpcError) as caught:
        trainer.stub.ExportModelVersion(
            pb.ExportModelVersionRequest(name=trainer.version.name, format=ONNX)
        )
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(caught.value) == "EXTRA_NOT_INSTALLED"
    assert "granulo-trainer[onnx]" in caught.value.details()


def test_a_model_that_served_nothing_before_cannot_go_back(trainer: Trainer) -> None:
    trainer.stub.PromoteModelVersion(pb.PromoteModelVersionRequest(name=trainer.version.name))
    with pytest.raises(grpc.RpcError) as caught:
        trainer.stub.RollbackModel(pb.RollbackModelRequest(name="models/tiny"))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(caught.value) == "NO_EARLIER_VERSION"
    with pytest.raises(grpc.RpcError) as caught:
        trainer.stub.RollbackModel(pb.RollbackModelRequest(name="models/none"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
