# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranking and selecting checkpoints on a real server, engine and store, of one tiny training."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
import tifffile
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import error_details_pb2, status_pb2

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo.trainer.v1 import trainer_service_pb2_grpc as rpc
from granulo.type.v1 import artifact_pb2
from granulo_core.engine.local import LocalEngine
from granulo_core.rpc.serve import ServiceParts
from granulo_core.rpc.server import build_server
from granulo_core.settings import CoreSettings
from granulo_core.store import LocalStore
from granulo_core.store import manifest as manifests
from granulo_trainer import registry
from granulo_trainer.checkpoints import CheckpointName, copy_checkpoint
from granulo_trainer.domain.config import METADATA_NAME
from granulo_trainer.kept_jobs import keep_job, kept_job
from granulo_trainer.servicer import build

DATASET = "datasets/ds-test"
TRAINED = registry.VersionName("tiny", 1)


def tiff(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array)
    return buffer.getvalue()


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:128, :128]
    ids = (((y % 32 - 16) ** 2 + (x % 32 - 16) ** 2) < 144).astype(np.uint16)
    ids *= (1 + y // 32 * 4 + x // 32).astype(np.uint16)
    noise = np.random.default_rng(seed).normal(0, 6, ids.shape)
    return np.clip(np.where(ids > 0, 180, 40) + noise, 0, 255).astype(np.uint8), ids


def put_dataset(store: LocalStore) -> None:
    image, ids = scene()
    objects = []
    for number in range(16):
        objects += [
            store.put(f"{DATASET}/images/{number:06d}.tif", tiff(image)),
            store.put(f"{DATASET}/labels/{number:06d}.tif", tiff(ids)),
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
    """A running trainer with one finished version of two epochs."""

    def __init__(self, address: str, store: LocalStore) -> None:
        channel = grpc.insecure_channel(address)
        self.address = address
        self.store = store
        self.stub = rpc.TrainerServiceStub(channel)
        self._operations = operations_pb2_grpc.OperationsStub(channel)
        put_dataset(store)
        # Another image than those that are trained on.
        image, ids = scene(seed=1)
        stored = store.put("uploads/image", tiff(image)), store.put("uploads/labels", tiff(ids))
        artifacts = [
            artifact_pb2.Artifact(uri=item.key, digest=item.digest, display_name=name)
            for item, name in zip(stored, ("a.tif", "a_labels.tif"), strict=True)
        ]
        config = pb.TrainingConfig(
            datasets=[DATASET], epochs=2, steps_per_epoch=1, batch_size=1, patch_px=64,
            width=0.2,
            validation=[
                pb.ValidationImage(image=artifacts[0], labels=artifacts[1]),
                # Equal names of different files are two images.
                pb.ValidationImage(image=artifacts[0]),
            ],
        )  # fmt: skip
        request = pb.CreateModelVersionRequest(
            parent="models/tiny", model_version=pb.ModelVersion(config=config)
        )
        self.version = self.finish(self.stub.CreateModelVersion(request))

    def finish(self, operation: operations_pb2.Operation) -> pb.ModelVersion:
        deadline = time.monotonic() + 240
        while not operation.done:
            assert time.monotonic() < deadline, "the operation did not end in time"
            time.sleep(0.1)
            name = operations_pb2.GetOperationRequest(name=operation.name)
            operation = self._operations.GetOperation(name)
        assert operation.HasField("response"), operation.error
        version = pb.ModelVersion()
        assert operation.response.Unpack(version)
        return version

    def select(self, checkpoint: str, **changes: Any) -> operations_pb2.Operation:
        values = {"selected_by": "Ada", "reason": "parts the dimers", **changes}
        return self.stub.SelectCheckpoint(pb.SelectCheckpointRequest(name=checkpoint, **values))

    def unfinished(self, digest: str) -> registry.VersionName:
        """A version with the trained checkpoints and without a manifest, as a run leaves it."""
        version = registry.claim(self.store, "tiny", digest)
        for epoch in (1, 2):
            source = CheckpointName(TRAINED, epoch)
            weights = self.store.get(f"{source.folder}/weights.npz")
            copy_checkpoint(self.store, source, version, weights)
        keep_job(self.store, version, kept_job(self.store, TRAINED))
        return version


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    store = LocalStore(tmp_path_factory.mktemp("trainer") / "store")
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


def test_every_epoch_keeps_the_instances_of_every_validation_image(trainer: Trainer) -> None:
    found = trainer.stub.ListCheckpoints(pb.ListCheckpointsRequest(parent=str(TRAINED)))
    for checkpoint in found.checkpoints:
        assert [item.display_name for item in checkpoint.predictions] == ["a.tif", "a.tif"]
        for item in checkpoint.predictions:
            data = np.frombuffer(trainer.store.get(item.uri, item.digest), np.uint8)
            labels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
            assert (labels.dtype, labels.shape) == (np.uint16, (128, 128))
        assert {"label_free", "label_free_agreement", "label_free_held_out_ap50"} <= set(
            checkpoint.metrics
        )
    manifest = manifests.load(trainer.store, str(TRAINED))
    keys = {item.key.removeprefix(f"{TRAINED}/") for item in manifest.objects}
    assert {"job.json", "validation/00.png", "validation/01.png", "validation/images.json"} <= keys


def test_a_training_records_its_own_choice(trainer: Trainer) -> None:
    selection = trainer.version.selection
    assert selection.criterion == pb.CRITERION_AP50
    request = pb.RankCheckpointsRequest(parent=str(TRAINED))
    best = trainer.stub.RankCheckpoints(request).ranking[0]
    assert selection.checkpoint == best.checkpoint.name
    # The version says besides how its training went.
    assert best.checkpoint.metrics.items() <= trainer.version.metrics.items()
    assert selection.reason == best.explanation
    assert selection.selected_by == ""


@pytest.mark.parametrize(
    ("criterion", "figure"),
    [
        (pb.CRITERION_F1, "validation_dsc"),
        (pb.CRITERION_AP50, "validation_ap50"),
        (pb.CRITERION_LABEL_FREE, "label_free"),
        (pb.CRITERION_HELD_OUT_AP50, "heldout_ap50"),
    ],
)
def test_rankings_follow_the_stored_figures(trainer: Trainer, criterion: int, figure: str) -> None:
    request = pb.RankCheckpointsRequest(parent=str(TRAINED), criterion=criterion)
    answer = trainer.stub.RankCheckpoints(request)
    assert answer.criterion == criterion
    assert len(answer.ranking) == 2
    scores = [item.score for item in answer.ranking]
    assert scores == [item.checkpoint.metrics[figure] for item in answer.ranking]
    assert scores == sorted(scores, reverse=True)
    assert not answer.HasField("page")


def test_a_version_that_still_trains_is_ranked_with_a_page_and_not_selected(
    trainer: Trainer,
) -> None:
    version = trainer.unfinished("sha256:training")
    request = pb.RankCheckpointsRequest(parent=str(version), criterion=pb.CRITERION_LAST, page=True)
    answer = trainer.stub.RankCheckpoints(request)
    assert [item.checkpoint.epoch for item in answer.ranking] == [2, 1]
    assert answer.page.uri.startswith("uploads/")
    html = trainer.store.get(answer.page.uri, answer.page.digest).decode()
    assert "still training" in html
    assert f"tiny/{version.number}" in html
    with pytest.raises(grpc.RpcError) as caught:
        trainer.select(f"{version}/checkpoints/1")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_chosen_checkpoint_becomes_a_version_and_the_old_one_stays_as_it_is(
    trainer: Trainer,
) -> None:
    before = trainer.store.get(f"{TRAINED}/manifest.json")
    chosen = f"{TRAINED}/checkpoints/1"
    version = trainer.finish(trainer.select(chosen, selected_by=" Ada "))

    assert trainer.store.get(f"{TRAINED}/manifest.json") == before
    assert version.name != str(TRAINED)
    assert version.state == pb.ModelVersion.STATE_ACTIVE
    assert version.selection == pb.Selection(
        criterion=pb.CRITERION_VISUAL, checkpoint=chosen, selected_by="Ada",
        reason="parts the dimers",
    )  # fmt: skip
    first = trainer.stub.ListCheckpoints(pb.ListCheckpointsRequest(parent=str(TRAINED)))
    assert version.metrics == first.checkpoints[0].metrics
    weights = trainer.store.stat(f"{TRAINED}/checkpoints/000001/weights.npz")
    assert version.weights_digest == weights.digest

    manifest = manifests.load(trainer.store, version.name)
    manifests.verify(trainer.store, manifest)
    source = manifests.manifest_artifact(trainer.store, str(TRAINED))
    assert manifest.inputs[0] == manifests.ManifestInput(str(TRAINED), source.digest)
    assert {item.name for item in manifest.inputs[1:]} >= {DATASET, "uploads/image"}
    assert manifest.object(f"saved_model/{METADATA_NAME}").size_bytes > 0

    assert trainer.finish(trainer.select(chosen)).name == version.name
    own = trainer.stub.ListCheckpoints(pb.ListCheckpointsRequest(parent=version.name)).checkpoints
    assert [item.epoch for item in own] == [1]
    again = pb.RankCheckpointsRequest(parent=version.name, page=True)
    assert len(trainer.stub.RankCheckpoints(again).ranking) == 1
    trainer.stub.PromoteModelVersion(pb.PromoteModelVersionRequest(name=version.name))


def test_a_version_may_be_the_mean_of_the_last_epochs(trainer: Trainer) -> None:
    alone = trainer.finish(trainer.select(f"{TRAINED}/checkpoints/2"))
    version = trainer.finish(trainer.select(f"{TRAINED}/checkpoints/2", averaged_epochs=2))
    assert version.name != alone.name
    assert version.selection.averaged_epochs == 2
    assert alone.selection.averaged_epochs == 0
    assert (
        "mean of its last 2 epochs" in trainer.store.get(f"{version.name}/MODEL_CARD.md").decode()
    )

    def arrays(key: str) -> list[np.ndarray]:
        with np.load(io.BytesIO(trainer.store.get(key))) as archive:
            return [archive[name] for name in sorted(archive.files)]

    epochs = [arrays(f"{TRAINED}/checkpoints/{epoch:06d}/weights.npz") for epoch in (1, 2)]
    kept = arrays(f"{version.name}/checkpoints/000002/weights.npz")
    for first, second, mean in zip(*epochs, kept, strict=True):
        assert mean.dtype == first.dtype
        assert np.allclose(mean, (first.astype(float) + second) / 2, rtol=1e-6, atol=1e-9)
    # One epoch is the checkpoint itself.
    assert trainer.finish(trainer.select(f"{TRAINED}/checkpoints/2", averaged_epochs=1)) == alone


@pytest.mark.parametrize("count", [-1, 3])
def test_no_more_epochs_are_averaged_than_there_are(trainer: Trainer, count: int) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        trainer.select(f"{TRAINED}/checkpoints/2", averaged_epochs=count)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(caught.value) == ["averaged_epochs"]


def test_the_last_good_checkpoint_of_a_failed_run_can_be_selected(trainer: Trainer) -> None:
    failed = trainer.unfinished("sha256:failed")
    registry.mark_failed(trainer.store, failed, "the loss became nan")
    version = trainer.finish(trainer.select(f"{failed}/checkpoints/2"))
    assert version.state == pb.ModelVersion.STATE_ACTIVE
    assert version.config.patch_px == 64
    claim = trainer.store.stat(f"{failed}/claim.json")
    inputs = manifests.load(trainer.store, version.name).inputs
    assert inputs[0] == manifests.ManifestInput(claim.key, claim.digest)
    state = trainer.stub.GetModelVersion(pb.GetModelVersionRequest(name=str(failed))).state
    assert state == pb.ModelVersion.STATE_FAILED


@pytest.mark.parametrize("name", ["models/tiny/versions/1/checkpoints/9", "models/none/versions/1"])
def test_unknown_checkpoints_are_not_found(trainer: Trainer, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        trainer.select(name)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_choice_needs_a_person_and_a_reason(trainer: Trainer) -> None:
    before = list(trainer.store.list("models/"))
    with pytest.raises(grpc.RpcError) as caught:
        trainer.select(f"{TRAINED}/checkpoints/1", selected_by=" ", reason="\t")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(caught.value) == ["selected_by", "reason"]
    only_checked = trainer.select(f"{TRAINED}/checkpoints/1", reason="new", validate_only=True)
    assert only_checked.done
    assert list(trainer.store.list("models/")) == before


def test_damaged_weights_are_not_exported(trainer: Trainer) -> None:
    key = f"{TRAINED}/checkpoints/000002/weights.npz"
    whole = trainer.store.get(key)
    trainer.store.put(key, whole[:-1] + b"x")
    try:
        with pytest.raises(AssertionError, match="sha256"):
            trainer.finish(trainer.select(f"{TRAINED}/checkpoints/2", reason="damaged"))
    finally:
        trainer.store.put(key, whole)


def test_a_page_without_validation_images_is_refused_with_the_remedy(trainer: Trainer) -> None:
    version = registry.claim(trainer.store, "bare", "sha256:0")
    source = json.loads(trainer.store.get(f"{TRAINED}/checkpoints/000001/figures.json"))
    content = json.dumps({**source, "predictions": [], "names": []}).encode()
    trainer.store.put(f"{version}/checkpoints/000001/figures.json", content)
    plain = trainer.stub.RankCheckpoints(pb.RankCheckpointsRequest(parent=str(version)))
    assert len(plain.ranking) == 1
    with pytest.raises(grpc.RpcError) as caught:
        trainer.stub.RankCheckpoints(pb.RankCheckpointsRequest(parent=str(version), page=True))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "train with validation images" in caught.value.details()


def test_the_command_lists_ranks_saves_the_page_and_selects(
    trainer: Trainer, tmp_path: Path
) -> None:
    def printed(*words: str) -> str:
        command = [sys.executable, "-c", "from granulo_client.cli import main; main()"]
        command += ["checkpoints", *words, "--server", trainer.address]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def run(*words: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(printed(*words, "--json"))
        return document

    assert [item["epoch"] for item in run("list", "tiny/1")["checkpoints"]] == [1, 2]
    page = tmp_path / "new" / "pick.html"
    ranking = run("rank", "tiny/1", "--by", "label-free", "--page", str(page))
    assert ranking["criterion"] == "LABEL_FREE"
    assert [item["score"] for item in ranking["ranking"]] == sorted(
        (item["metrics"]["label_free"] for item in ranking["ranking"]), reverse=True
    )
    assert set(ranking["ranking"][0]["parts"]) == {"agreement", "held_out_ap50"}
    assert page.read_text().startswith("<!DOCTYPE html>")
    # The same choice as above meets the same version.
    selected = run("select", "tiny/1/1", "--by", "Ada", "--reason", "parts the dimers")
    assert selected["selection"]["selected_by"] == "Ada"
    assert selected["selection"]["criterion"] == "VISUAL"
    words = ("select", "tiny/1/2", "--by", "Ada", "--reason", "steadier", "--average", "2")
    assert run(*words)["selection"]["averaged_epochs"] == 2
    table = printed("rank", "tiny/1").splitlines()
    assert table[0].split()[0] == "EPOCH"
    assert "AP50 on the annotated validation images" in table[1]


def violations(error: grpc.RpcError) -> list[str]:
    """Fields of the BadRequest in an error's details."""
    trailing = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return [violation.field for violation in bad.field_violations]
    return []
