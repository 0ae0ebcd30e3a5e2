# SPDX-License-Identifier: GPL-3.0-or-later
"""Annotated datasets, mixtures and cross-validation through a real trainer."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.longrunning import operations_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo_client import Client
from granulo_client.cli import run_command
from granulo_client.commands.cross_validate import (
    cross_validation_document,
    cross_validation_table,
)
from granulo_core.engine.local import LocalEngine
from granulo_core.imaging.labels import decode_labels
from granulo_core.rpc.serve import ServiceParts
from granulo_core.rpc.server import build_server
from granulo_core.settings import CoreSettings
from granulo_core.store import LocalStore
from granulo_core.store import manifest as manifests
from granulo_trainer.servicer import build

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from trainer_parts import SIDE, Trainer, particles, tiff


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    store = LocalStore(tmp_path_factory.mktemp("data") / "store")
    engine = LocalEngine()
    built = build(ServiceParts(store, engine))
    running = build_server(
        [built.registration], runners=[built.runner], store=store, settings=CoreSettings()
    )
    yield Trainer(running.start("127.0.0.1:0"), store)
    running.stop()
    built.runner.close()
    engine.close()


def response(operation: operations_pb2.Operation, message: Message) -> Any:
    assert operation.HasField("response"), operation.error
    assert operation.response.Unpack(message)
    return message


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Code, reason and violations of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    trailing = dict(caught.value.trailing_metadata())
    return (
        caught.value.code(),
        *details(status_pb2.Status.FromString(trailing["grpc-status-details-bin"])),
    )


def details(status: status_pb2.Status) -> tuple[str, dict[str, str]]:
    reason, violations = "", {}
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            violations = {v.field: v.description for v in bad.field_violations}
    return reason, violations


def document(printed: str) -> dict[str, Any]:
    """JSON that a command printed; the server in this process logs to the same place."""
    found: dict[str, Any] = json.loads("{" + ("\n" + printed).partition("\n{")[2])
    return found


def test_a_dataset_is_imported_once_shown_and_listed(trainer: Trainer) -> None:
    made = trainer.imported("mine", range(2))
    assert made.name == "annotated/mine"
    assert [item.image.display_name for item in made.images] == ["real0.tif", "real1.tif"]
    ids = decode_labels(trainer.store.get(made.images[0].labels.uri))
    assert np.array_equal(ids > 0, particles(0)[1] > 0)
    assert made.particle_count == sum(len(np.unique(particles(s)[1])) - 1 for s in range(2))
    manifest = manifests.load(trainer.store, made.name)
    assert {source.name for source in manifest.inputs} == {
        part.uri for seed in range(2) for pair in [trainer.pair(seed)] for part in
        (pair.image, pair.labels)
    }  # fmt: skip
    manifests.verify(trainer.store, manifest)

    assert trainer.imported("mine", range(2)) == made
    named = pb.GetAnnotatedDatasetRequest(name=made.name)
    assert trainer.rpc.GetAnnotatedDataset(named) == made
    by_content = trainer.imported("", range(2))
    assert by_content.name == trainer.imported("", range(2)).name != made.name
    listed = trainer.rpc.ListAnnotatedDatasets(pb.ListAnnotatedDatasetsRequest(page_size=1))
    assert len(listed.datasets) == 1
    assert not listed.datasets[0].images
    assert listed.next_page_token

    code, reason, _ = refused(lambda: trainer.imported("mine", range(1)))
    assert (code, reason) == (grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")


def test_everything_that_is_wrong_with_an_import_is_told_at_once(trainer: Trainer) -> None:
    good, ids = particles(0)
    empty, full = np.zeros_like(ids), np.ones_like(ids)
    probabilities = np.linspace(0, 1, ids.size, dtype=np.float32).reshape(ids.shape)
    wrong: list[tuple[Any, Any]] = [
        (b"no image at all", ids),
        (good, ids[:40]),
        (good, empty),
        (good, full),
        (good, probabilities),
        (good, ids.astype(np.int16) - 3),
    ]
    before = list(trainer.store.list("annotated/"))
    images = [
        pb.AnnotatedImage(
            # Each image is another, but for the last, whose name and content come twice.
            image=trainer.upload(
                data if isinstance(data, bytes) else data + np.uint8(number), f"n{number}.tif"
            ),
            labels=trainer.upload(labels, f"n{number}_labels.tif"),
        )
        for number, (data, labels) in enumerate(wrong)
    ]
    images.append(pb.AnnotatedImage(image=images[1].image, labels=trainer.upload(ids, "ids.tif")))
    request = pb.ImportDatasetRequest(dataset=pb.AnnotatedDataset(images=images))
    code, reason, violations = refused(lambda: trainer.rpc.ImportDataset(request))

    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    expected = {
        "dataset.images[0].image": "n0.tif",
        "dataset.images[1].labels": "96 × 40",
        "dataset.images[2].labels": "no particle",
        "dataset.images[3].labels": "no background",
        "dataset.images[4].labels": "fractions",
        "dataset.images[5].labels": "outside 0",
        "dataset.images[6].image.display_name": "rename",
        "dataset.images[6].image": "same image",
    }
    assert set(violations) == set(expected)
    for field, text in expected.items():
        assert text in violations[field]
    assert list(trainer.store.list("annotated/")) == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"dataset_id": "../up"}, "dataset_id"),
        ({"dataset_id": "a", "name": "annotated/b"}, "dataset.name"),
        ({"name": "datasets/b"}, "dataset.name"),
        ({"content_height_px": -1}, "dataset.content_height_px"),
        ({"content_height_px": 500}, "dataset.images[0].image"),
        ({"pixel_size": (float("nan"), 1.0)}, "dataset.pixel_size.x_nm"),
        ({"uri": "operations/trainer/x"}, "dataset.images[0].image.uri"),
        ({"uri": "uploads/" + "0" * 64}, "dataset.images[0].image.uri"),
    ],
)
def test_unusable_imports_name_their_field(
    trainer: Trainer, change: dict[str, Any], field: str
) -> None:
    dataset = pb.AnnotatedDataset(
        images=[trainer.pair(0)],
        name=change.get("name", ""),
        content_height_px=change.get("content_height_px", 0),
    )
    if "pixel_size" in change:
        dataset.pixel_size.x_nm, dataset.pixel_size.y_nm = change["pixel_size"]
    if "uri" in change:
        dataset.images[0].image.uri = change["uri"]
        dataset.images[0].image.digest = ""
    request = pb.ImportDatasetRequest(dataset=dataset, dataset_id=change.get("dataset_id", ""))
    code, _, violations = refused(lambda: trainer.rpc.ImportDataset(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in violations


def test_an_import_can_be_checked_without_being_made(trainer: Trainer) -> None:
    before = list(trainer.store.list("annotated/"))
    request = pb.ImportDatasetRequest(
        dataset=pb.AnnotatedDataset(images=[trainer.pair(77)]), validate_only=True
    )
    checked = trainer.rpc.ImportDataset(request)
    assert checked.particle_count == len(np.unique(particles(77)[1])) - 1
    assert not checked.HasField("manifest")
    assert list(trainer.store.list("annotated/")) == before


def test_the_command_imports_and_shows(
    trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(50, 52):
        image, ids = particles(seed)
        (tmp_path / f"s{seed}.tif").write_bytes(tiff(image))
        (tmp_path / f"s{seed}_labels.tif").write_bytes(tiff(ids))
    server = ["--server", f"trainer={trainer.address}", "--json", "--quiet"]
    folders = [str(tmp_path), str(tmp_path)]
    options = ["--name", "typed", "--pixel-size", "2.5", "--content-height", "80"]

    assert run_command(["datasets", "import", *folders, *options, *server]) == 0
    made = document(capsys.readouterr().out)
    assert run_command(["datasets", "show", "typed", *server]) == 0
    assert document(capsys.readouterr().out) == made
    assert made["dataset"] == "annotated/typed"
    assert made["images"][0] == {"image": "s50.tif", "labels": "s50_labels.tif"}
    assert (made["pixel_size_nm"], made["content_height_px"]) == ([2.5, 2.5], 80)

    (tmp_path / "s51_labels.tif").write_bytes(tiff(particles(51)[1][:50]))
    options[1] = "other"
    assert run_command(["datasets", "import", *folders, *options, *server]) == 2
    assert "s51_labels.tif: have 96 × 50 pixels" in capsys.readouterr().err


def test_a_damaged_upload_is_data_loss(trainer: Trainer) -> None:
    pair = trainer.pair(78)
    trainer.store.put(pair.image.uri, b"something else")
    pair.image.digest = ""
    request = pb.ImportDatasetRequest(dataset=pb.AnnotatedDataset(images=[pair]))
    code, reason, _ = refused(lambda: trainer.rpc.ImportDataset(request))
    assert (code, reason) == (grpc.StatusCode.DATA_LOSS, "DIGEST_MISMATCH")


def test_bad_data_is_refused_before_any_training(trainer: Trainer) -> None:
    mine = trainer.imported("mine", range(2)).name
    _, ids = particles(0)
    cases: list[tuple[tuple[str, ...], dict[str, Any], str, str]] = [
        ((trainer.rendered("ds-none", []),), {}, "datasets", "no scene"),
        ((trainer.rendered("ds-empty", [ids * 0] * 2),), {}, "datasets", "no particle"),
        ((trainer.rendered("ds-full", [ids * 0 + 1]),), {}, "datasets", "no background"),
        ((mine,), {"patch_px": 128}, "patch_px", "give 96 or less"),
        ((mine, mine), {}, "datasets[1]", "named twice"),
        ((mine,), {"weights": {"datasets/x": 1.0}}, "weights[datasets/x]", "none of the"),
        ((mine,), {"weights": {mine: float("nan")}}, f"weights[{mine}]", "finite"),
        ((mine,), {"weights": {mine: 0.0}}, "weights", "all 0"),
        (
            (mine,),
            {"validation": [pb.ValidationImage(image=trainer.pair(0).image)]},
            "validation[0].image",
            "trained on",
        ),
    ]
    for names, config, field, said in cases:
        code, reason, violations = refused(lambda n=names, c=config: trainer.train(*n, **c))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        assert said in violations[f"model_version.config.{field}"]
    code, reason, _ = refused(lambda: trainer.train("annotated/none"))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert not list(trainer.store.list("models/"))


def test_cross_validations_that_cannot_be_are_refused(trainer: Trainer) -> None:
    mine = trainer.imported("mine", range(2)).name
    single = trainer.imported("single", range(1)).name
    for dataset, folds, config, field in [
        ("datasets/x", 0, {}, "dataset"),
        (mine, 3, {}, "folds"),
        (mine, 1, {}, "folds"),
        (single, 0, {}, "dataset"),
        (mine, 0, {"datasets": [mine]}, "config.datasets[0]"),
        (mine, 0, {"epochs": -1}, "config.epochs"),
        (mine, 0, {"base_version": "models/m/versions/1"}, "config.base_version"),
        (
            mine,
            0,
            {"validation": [pb.ValidationImage(image=trainer.pair(9).image)]},
            "config.validation",
        ),
        (mine, 0, {"patch_px": 128}, "config.patch_px"),
    ]:
        code, _, violations = refused(
            lambda d=dataset, f=folds, c=config: trainer.cross_validate(d, f, **c)
        )
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert f"cross_validation.{field}" in violations
    code, _, _ = refused(lambda: trainer.cross_validate("annotated/none"))
    assert code is grpc.StatusCode.NOT_FOUND


def test_every_image_is_left_out_once_and_scored(trainer: Trainer) -> None:
    mine = trainer.imported("mine", range(2)).name
    operation = trainer.finish(trainer.cross_validate(mine))
    done = response(operation, pb.CrossValidation())

    assert [list(fold.images) for fold in done.results] == [["real0.tif"], ["real1.tif"]]
    assert done.config.epochs == 2
    figures = {"dsc", "ap50", "ap75", "count_error", "loss"}
    assert set(done.metrics) == figures | {f"{name}_stddev" for name in figures}
    for name in figures:
        values = [fold.metrics[name] for fold in done.results]
        assert done.metrics[name] == pytest.approx(np.mean(values))
        assert done.metrics[f"{name}_stddev"] == pytest.approx(np.std(values, ddof=1))
    metadata = pb.CrossValidateMetadata()
    assert operation.metadata.Unpack(metadata)
    assert metadata.progress.units_done == metadata.progress.units_total == 4

    manifest = manifests.load(trainer.store, done.name)
    manifests.verify(trainer.store, manifest)
    assert [source.name for source in manifest.inputs] == [mine]
    for number, fold in enumerate(done.results):
        history = trainer.store.get(f"{done.name}/folds/{number:03d}/history.json")
        losses = [epoch["validation_loss"] for epoch in json.loads(history)]
        assert fold.epoch == 1 + int(np.argmin(losses))
        assert fold.metrics["loss"] == pytest.approx(min(losses), rel=0.02)
        predicted = trainer.store.get(
            f"{done.name}/folds/{number:03d}/predictions/{number:06d}.tif"
        )
        assert decode_labels(predicted, "instances").shape == (SIDE, SIDE)
    with Client(trainer=trainer.address) as client:
        folds = client.manifest(client.cross_validation(done.name).manifest)["facts"]["folds"]
    columns, rows = cross_validation_table(done, folds)
    assert [row[0] for row in rows] == ["real0.tif", "real1.tif", "mean", "std. deviation"]
    assert rows[2][columns.index("DSC")] == f"{done.metrics['dsc']:.3f}"
    shown = cross_validation_document(done, folds)["images"]
    assert [(item["image"], item["fold"]) for item in shown] == [("real0.tif", 1), ("real1.tif", 2)]
    stored = set(trainer.store.list(f"{done.name}/"))
    assert stored == {f"{done.name}/manifest.json", *(item.key for item in manifest.objects)}
    named = pb.GetCrossValidationRequest(name=done.name)
    assert trainer.rpc.GetCrossValidation(named) == done
    code, _, _ = refused(
        lambda: trainer.rpc.GetCrossValidation(
            pb.GetCrossValidationRequest(name="cross-validations/none")
        )
    )
    assert code is grpc.StatusCode.NOT_FOUND


def test_a_mixture_is_trained_and_damage_ends_it(trainer: Trainer) -> None:
    mine = trainer.imported("mine", range(2)).name
    rendered = trainer.rendered("ds-good", [particles(seed)[1] for seed in range(20, 22)])
    operation = trainer.finish(
        trainer.train(rendered, mine, epochs=1, weights={rendered: 2.0, mine: 1.0})
    )
    version = response(operation, pb.ModelVersion())
    assert list(version.config.datasets) == [rendered, mine]
    assert dict(version.config.weights) == {rendered: 2.0, mine: 1.0}
    inputs = manifests.load(trainer.store, version.name).inputs
    assert [source.name for source in inputs] == [rendered, mine]

    broken = trainer.imported("broken", range(30, 31))
    trainer.store.put(broken.images[0].image.uri, b"something else")
    failed = trainer.finish(trainer.train(broken.name, epochs=1))
    assert failed.error.code == grpc.StatusCode.DATA_LOSS.value[0]
    reason, _ = details(failed.error)
    assert reason == "DIGEST_MISMATCH"
    assert broken.images[0].image.uri in failed.error.message


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_an_interrupted_cross_validation_goes_on_where_it_was(trainer: Trainer) -> None:
    mine = trainer.imported("more", range(40, 43)).name
    config = {"epochs": 12, "steps_per_epoch": 2}
    operation = trainer.cross_validate(mine, **config)
    name = ""
    deadline = time.monotonic() + 600
    while not name:
        assert time.monotonic() < deadline, "the second fold did not begin in time"
        time.sleep(0.1)
        found = [
            key
            for key in trainer.store.list("cross-validations/")
            if "/folds/001/state/epochs/000003/" in key
        ]
        name = "/".join(found[0].split("/")[:2]) if found else ""
    trainer.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=operation.name))
    cancelled = trainer.finish(operation)
    assert cancelled.error.code == grpc.StatusCode.CANCELLED.value[0]
    first = trainer.store.stat(f"{name}/folds/000/history.json")
    begun = trainer.store.get(f"{name}/folds/001/state/history.json")

    again = trainer.finish(trainer.cross_validate(mine, **config), limit_s=900)
    done = response(again, pb.CrossValidation())
    assert done.name == name
    assert trainer.store.stat(f"{name}/folds/000/history.json") == first
    whole = trainer.store.get(f"{name}/folds/001/history.json")
    # The epochs of before the interruption were not trained again: their figures are the same.
    assert whole.startswith(begun[:-1])
    assert len(done.results) == 3
