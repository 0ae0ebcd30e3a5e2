# SPDX-License-Identifier: GPL-3.0-or-later
"""The network that comes with Granulo as the beginning of another training."""

import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from google.longrunning import operations_pb2, operations_pb2_grpc

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo.trainer.v1 import trainer_service_pb2_grpc as rpc
from granulo.type.v1 import artifact_pb2
from granulo_core.engine.local import LocalEngine
from granulo_core.errors import GranuloError
from granulo_core.rpc.serve import ServiceParts
from granulo_core.rpc.server import build_server
from granulo_core.settings import CoreSettings
from granulo_core.store import LocalStore
from granulo_core.store import manifest as manifests
from granulo_segmenter.predictor.versions import packaged_folder
from granulo_trainer import base_version, convert, packaged
from granulo_trainer.domain.config import METADATA_NAME, TrainingConfig, preset_config
from granulo_trainer.servicer import build
from granulo_trainer.settings import TrainerSettings
from granulo_trainer.unet import network as networks
from granulo_trainer.unet.arrays import load_weights

DATASET = "datasets/ds-test"
PACKAGED = "models/packaged-default/versions/7"
SMALL = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 1, "patch_px": 64}


def settings() -> TrainerSettings:
    return TrainerSettings.load(packaged_model=str(packaged_folder()), packaged_name=PACKAGED)


@pytest.fixture
def store(local_store: LocalStore) -> LocalStore:
    packaged.enter(local_store, settings())
    return local_store


def discs(side: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A grainy image of bright discs, and its labels."""
    y, x = np.mgrid[:side, :side]
    ids = (((y % 32 - 16) ** 2 + (x % 32 - 16) ** 2) < 144).astype(np.uint16)
    ids *= (1 + y // 32 * (side // 32) + x // 32).astype(np.uint16)
    noise = np.random.default_rng(3).normal(0.0, 12.0, ids.shape)
    return np.clip(np.where(ids > 0, 170, 50) + noise, 0, 255).astype(np.uint8), ids


def config_of(base: base_version.BaseVersion) -> TrainingConfig:
    message = pb.TrainingConfig(datasets=[DATASET], **SMALL)
    return convert.training_config(message, 10, base=base.network)


def test_training_begins_with_what_the_packaged_network_predicts(store: LocalStore) -> None:
    base = base_version.find(store, PACKAGED)
    assert base is not None
    config = config_of(base)
    base_version.check_same(base, config)
    network = networks.build_network(config)
    load_weights(network, base_version.first_weights(store, base, config))

    image = discs()[0][None, ..., None]
    probabilities = tf.sigmoid(network(image.astype(np.float32), training=False)).numpy()
    served = tf.saved_model.load(str(packaged_folder())).signatures["serving_default"]
    outputs = served(image=tf.constant(image))
    for channel, name in enumerate(networks.outputs_of(config)):
        # Half precision is what the packaged network answers in.
        np.testing.assert_allclose(outputs[name].numpy(), probabilities[..., channel], atol=2e-3)
    assert np.ptp(probabilities[..., 0]) > 0.5, "the image must make a difference"


def test_weights_of_another_network_are_refused(store: LocalStore) -> None:
    base = base_version.find(store, PACKAGED)
    assert base is not None
    narrow = preset_config(base.network.preset, width=0.25)
    unknown = replace(base, network=replace(base.network, filters=()))
    base_version.check_same(unknown, narrow)  # nothing known that differs
    with pytest.raises(GranuloError, match=f"{PACKAGED} is another network: its .* has the shape"):
        base_version.first_weights(store, unknown, narrow)
    known = replace(base, network=replace(base.network, filters=config_of(base).filters))
    for other, text in ((narrow, "feature maps"), (preset_config("paper"), "its preset is")):
        with pytest.raises(GranuloError, match=text) as caught:
            base_version.check_same(known, other)
        assert [item.field for item in caught.value.violations] == [
            "model_version.config.base_version"
        ]


def test_a_wider_network_is_the_training_s_too_where_it_asks_for_none(store: LocalStore) -> None:
    manifest = manifests.load(store, PACKAGED)
    wide = {**manifest.facts["config"], "filters": [2 * n for n in preset_config("small").filters]}
    name = "models/wide/versions/1"
    facts = {**manifest.facts, "config": wide}
    copied = [item for item in manifest.objects if item.key.endswith(METADATA_NAME)]
    moved = [store.put(f"{name}/saved_model/{METADATA_NAME}", store.get(copied[0].key))]
    moved.append(store.put(f"{name}/checkpoints/1/weights.npz", b"weights"))
    facts["weights_digest"] = moved[1].digest
    manifests.commit(
        store, name, replace(manifest, resource=name, objects=tuple(moved), facts=facts)
    )
    base = base_version.find(store, name)
    assert base is not None
    assert list(config_of(base).filters) == wide["filters"]
    base_version.check_same(base, config_of(base))
    assert base_version.first_weights(store, base, config_of(base)) == b"weights"


@dataclass(frozen=True)
class Trainer:
    store: LocalStore
    stub: rpc.TrainerServiceStub
    operations: operations_pb2_grpc.OperationsStub

    def finish(self, request: pb.CreateModelVersionRequest) -> pb.ModelVersion:
        operation = self.stub.CreateModelVersion(request)
        deadline = time.monotonic() + 240
        while not operation.done:
            assert time.monotonic() < deadline, "the training did not end in time"
            time.sleep(0.3)
            operation = self.operations.GetOperation(
                operations_pb2.GetOperationRequest(name=operation.name)
            )
        assert operation.HasField("response"), operation.error
        version = pb.ModelVersion()
        assert operation.response.Unpack(version)
        return version


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    store = LocalStore(tmp_path / "store")
    image, ids = discs()
    objects = []
    for kind, array in (("images", image), ("labels", ids)):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array)
        objects.append(store.put(f"{DATASET}/{kind}/000000.tif", buffer.getvalue(), "image/tiff"))
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
    engine = LocalEngine()
    built = build(ServiceParts(store, engine, settings()))
    server = build_server(
        [built.registration], runners=[built.runner], store=store, settings=CoreSettings()
    )
    channel = grpc.insecure_channel(server.start("127.0.0.1:0"))
    yield Trainer(
        store, rpc.TrainerServiceStub(channel), operations_pb2_grpc.OperationsStub(channel)
    )
    server.stop()
    built.runner.close()
    engine.close()


def test_default_is_a_base_whose_figures_stand_beside_those_of_the_training(
    trainer: Trainer,
) -> None:
    mine = io.BytesIO()
    tifffile.imwrite(mine, np.ascontiguousarray(discs(160)[0][:, ::-1]))
    uploaded = trainer.store.put("uploads/mine.tif", mine.getvalue(), "image/tiff")
    image = artifact_pb2.Artifact(uri=uploaded.key, display_name="mine.tif")

    def request(base: str, **change: object) -> pb.CreateModelVersionRequest:
        config = pb.TrainingConfig(
            datasets=[DATASET], base_version=base, learning_rate=1e-7,
            validation=[pb.ValidationImage(image=image)], **{**SMALL, **change},
        )  # fmt: skip
        return pb.CreateModelVersionRequest(
            parent="models/mine", model_version=pb.ModelVersion(config=config)
        )

    version = trainer.finish(request("models/default"))
    assert version.config.base_version == PACKAGED
    assert PACKAGED in [item.name for item in manifests.load(trainer.store, version.name).inputs]
    figures = dict(version.metrics)
    # Two tiny steps change next to nothing, and a fresh network agrees with itself on nothing.
    assert figures["base_label_free_agreement"] > 0.3
    assert figures["label_free_agreement"] > 0.3
    assert f"first weights from `{PACKAGED}`" in trainer.store.get(version.model_card.uri).decode()

    for name in ("models/default/versions/1", PACKAGED):
        assert trainer.finish(request(name)).name == version.name, "the same version is meant"
    tuned = trainer.stub.GetModelVersion(pb.GetModelVersionRequest(name=version.name))
    known = json.loads((packaged_folder() / METADATA_NAME).read_text())
    assert tuned.config.preset == known["preset"]
    with pytest.raises(grpc.RpcError, match="its preset is"):
        trainer.stub.CreateModelVersion(request("models/default", preset="paper"))
