# SPDX-License-Identifier: GPL-3.0-or-later
"""The segmenter end to end: a server, worker processes, a model server and a real SavedModel."""

import io
import json
import re
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
from google.longrunning import operations_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from granulo.segmenter.v1 import segmenter_service_pb2 as pb
from granulo.segmenter.v1 import segmenter_service_pb2_grpc as rpc
from granulo.type.v1 import artifact_pb2
from granulo_core.engine.local import LocalEngine
from granulo_core.imaging.labels import encode_tiff
from granulo_core.rpc.serve import ServiceParts
from granulo_core.rpc.server import build_server
from granulo_core.store import LocalStore, manifest
from granulo_segmenter.predictor.sync import sync_once
from granulo_segmenter.servicer import build
from granulo_segmenter.settings import SegmenterSettings

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from segmenter_parts import Running, png, refusal, start_model_server, with_bar
from tiny_network import DISCS, save_network

PACKAGED_NAME = r"models/packaged-default/versions/[1-9]\d*"
MEMORY_PX = 300_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("segmenter")
    store = LocalStore(folder / "store")
    packaged = folder / "packaged"
    save_network(packaged, threshold=128.0)
    models = folder / "models"
    sync_once(store, models, packaged)
    process, address = start_model_server(models)
    settings = SegmenterSettings(
        store_url=store.url, model_server=address, packaged_model=str(packaged),
        call_patience_s=1.0, job_patience_s=240.0, max_image_px=3000 * 3000, memory_px=MEMORY_PX,
    )  # fmt: skip
    engine = LocalEngine(cpus=1)
    built = build(ServiceParts(store, engine, settings))
    server = build_server(
        [built.registration], runners=[built.runner], store=store, settings=settings
    )
    bound = server.start("127.0.0.1:0")
    with grpc.insecure_channel(bound) as channel:
        made = Running(
            store, rpc.SegmenterServiceStub(channel), operations_pb2_grpc.OperationsStub(channel),
            models, process, address, folder,
        )  # fmt: skip
        yield made
    server.stop()
    built.runner.close()
    built.close()
    engine.close()
    # A test may have started another one.
    made.model_server.kill()
    made.model_server.wait()


def picture(height: int = 140, width: int = 130, shift: int = 0) -> np.ndarray:
    image = np.random.default_rng(shift).normal(50, 4, (height, width))
    y, x = np.mgrid[:height, :width]
    for row, column in DISCS:
        image[(y - row - shift) ** 2 + (x - column) ** 2 <= 121] += 130
    return image.clip(0, 255).astype(np.uint8)


def test_an_image_is_segmented_within_the_call(running: Running) -> None:
    answer = running.stub.SegmentImage(pb.SegmentImageRequest(inline=png(picture())), timeout=30)
    assert re.fullmatch(PACKAGED_NAME, answer.resolved_model_version)
    assert answer.result.particle_count == len(DISCS)
    assert not answer.result.HasField("pixel_size")
    labels = running.labels(answer.result)
    assert labels.shape == (140, 130)
    for row, column in DISCS:
        assert labels[row, column]
    assert len({labels[row, column] for row, column in DISCS}) == len(DISCS)


def test_a_set_keeps_names_sizes_and_pixel_sizes(running: Running) -> None:
    sized = encode_tiff(picture(shift=1), (7.344, 7.344), kind="micrograph")
    deep = io.BytesIO()
    tifffile.imwrite(deep, picture(shift=2).astype(np.uint16) * 200)
    operation = running.create(
        running.upload(sized, "sample.tif"),
        running.upload(deep.getvalue(), "C:\\images\\sample.tif"),
        running.upload(png(picture(shift=3), "RGB"), "Probe Nr. 7 (ü).png"),
        running.upload(png(with_bar(picture())), "bar.png"),
        running.upload(png(np.full((50, 60), 90, np.uint8)), "empty.png"),
    )
    found = running.finish(operation)
    assert re.fullmatch(PACKAGED_NAME, found.resolved_model_version)
    names = [result.labels.display_name for result in found.results]
    assert names == ["sample_labels.tif", "sample_2_labels.tif", "Probe Nr. 7 (ü)_labels.tif",
                     "bar_labels.tif", "empty_labels.tif"]  # fmt: skip
    assert [result.image.display_name for result in found.results][2] == ("Probe Nr. 7 (ü).png")
    assert [result.particle_count for result in found.results] == [5, 5, 5, 5, 0]
    assert found.results[0].pixel_size.x_nm == 7.344
    assert not found.results[1].HasField("pixel_size")
    assert [result.content_height_px for result in found.results] == [0, 0, 0, 140, 0]
    bar = running.labels(found.results[3])
    assert bar.shape == (170, 130)
    assert not bar[140:].any()
    stored = running.store.get(found.results[0].labels.uri)
    with tifffile.TiffFile(io.BytesIO(stored)) as tiff:
        assert tiff.asarray().dtype == np.uint32
        assert "7.344" in (tiff.ome_metadata or "")
    overlay = running.store.get(found.results[0].labels.uri.replace("_labels.tif", "_overlay.png"))
    assert cv2.imdecode(np.frombuffer(overlay, np.uint8), cv2.IMREAD_COLOR).shape == (140, 130, 3)
    kept = manifest.load(running.store, found.name)
    manifest.verify(running.store, kept)
    assert found.resolved_model_version in {item.name for item in kept.inputs}

    again = running.finish(running.create(
        *[artifact_pb2.Artifact(uri=r.image.uri, display_name=r.image.display_name)
          for r in found.results]))  # fmt: skip
    assert again == found
    got = running.stub.GetSegmentation(pb.GetSegmentationRequest(name=found.name), timeout=10)
    assert got == found
    listed = running.stub.ListSegmentations(pb.ListSegmentationsRequest(), timeout=10)
    assert found.name in [item.name for item in listed.segmentations]


def test_the_user_s_pixel_size_goes_before_the_file_s(running: Running) -> None:
    sized = encode_tiff(picture(), (7.344, 7.344), kind="micrograph")
    paper = pb.SegmentationOptions(method=pb.SegmentationOptions.METHOD_PAPER)
    found = running.finish(
        running.create(running.upload(sized, "a.tif"), pixel_size=2.0, options=paper)
    )
    assert found.results[0].pixel_size.y_nm == 2.0
    assert found.results[0].particle_count == len(DISCS)
    # At 0.2 nm a pixel the discs are below the paper's 376 nm².
    tiny = running.finish(
        running.create(running.upload(sized, "a.tif"), pixel_size=0.2, options=paper)
    )
    assert tiny.results[0].particle_count == 0
    assert tiny.name != found.name


def test_a_dataset_is_segmented_by_name(running: Running) -> None:
    name = "datasets/ds-test"
    stored = [
        running.store.put(f"{name}/images/{index:06d}.tif",
                          encode_tiff(picture(shift=index), (3.0, 3.0), kind="micrograph"),
                          "image/tiff")
        for index in range(2)
    ]  # fmt: skip
    manifest.commit(running.store, name, manifest.Manifest(
        resource=name, kind="Dataset", objects=tuple(stored), inputs=(),
        producer=manifest.producer("render", 1), request={}))  # fmt: skip
    request = pb.CreateSegmentationRequest()
    request.segmentation.dataset = name
    found = running.finish(running.stub.CreateSegmentation(request, timeout=30))
    assert [item.labels.display_name for item in found.results] == [
        "000000_labels.tif", "000001_labels.tif"
    ]  # fmt: skip
    assert found.dataset == name
    assert manifest.referrers(running.store, name) == [found.name]


def test_bad_images_are_refused_by_name_before_any_work(running: Running) -> None:
    before = len(list(running.store.list("operations/")))
    good = running.upload(png(picture()), "good.png")
    whole = encode_tiff(picture(), None, kind="micrograph")
    with pytest.raises(grpc.RpcError) as caught:
        running.create(
            good,
            running.upload(whole[: len(whole) // 2], "cut.tif"),
            running.upload(b"just text", "text.tif"),
        )
    code, reason, text, fields = refusal(caught)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert reason == "IMAGE_UNREADABLE"
    assert "cut.tif" in text
    assert "text.tif" in text
    assert fields == ["segmentation.images.images[1]", "segmentation.images.images[2]"]
    for data, wanted in (
        (png(np.ones((1, 1), np.uint8)), "IMAGE_TOO_SMALL"),
        (png(np.ones((3001, 3000), np.uint8)), "IMAGE_TOO_LARGE"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            running.create(running.upload(data, "odd.png"))
        assert refusal(caught)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, wanted)
    assert len(list(running.store.list("operations/"))) == before


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"model": "models/nobody"}, "", grpc.StatusCode.NOT_FOUND),
        ({"model": "nobody"}, "model", grpc.StatusCode.INVALID_ARGUMENT),
        ({"pixel_size": -1.0}, "segmentation.images.pixel_size.x_nm",
         grpc.StatusCode.INVALID_ARGUMENT),
        ({"pixel_size": float("nan")}, "segmentation.images.pixel_size.x_nm",
         grpc.StatusCode.INVALID_ARGUMENT),
        ({"options": pb.SegmentationOptions(tile_px=5000)}, "segmentation.options.tile_px",
         grpc.StatusCode.INVALID_ARGUMENT),
        ({"options": pb.SegmentationOptions(foreground_threshold=2)},
         "segmentation.options.foreground_threshold", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)  # fmt: skip
def test_bad_requests_name_their_field(
    running: Running, fields: dict[str, Any], field: str, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        running.create(running.upload(png(picture()), "a.png"), **fields)
    found = refusal(caught)
    assert found[0] is code
    if field:
        assert field in found[3]


def test_requests_without_images_or_with_missing_ones_are_refused(running: Running) -> None:
    for images in ((), (artifact_pb2.Artifact(uri="uploads/missing", display_name="m.tif"),),
                   (artifact_pb2.Artifact(uri="operations/segmenter/x"),)):  # fmt: skip
        with pytest.raises(grpc.RpcError) as caught:
            running.create(*images)
        assert refusal(caught)[0] is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as caught:
        running.stub.SegmentImage(pb.SegmentImageRequest(), timeout=10)
    assert refusal(caught)[3] == ["image"]
    with pytest.raises(grpc.RpcError) as caught:
        running.stub.SegmentImage(pb.SegmentImageRequest(inline=bytes(4 << 20)), timeout=10)
    assert "upload" in refusal(caught)[2]


def test_validate_only_does_nothing(running: Running) -> None:
    before = list(running.store.list("segmentations/"))
    request = pb.CreateSegmentationRequest(validate_only=True)
    unique = running.upload(png(picture(shift=9)), "only.png")
    request.segmentation.images.images.append(unique)
    assert running.stub.CreateSegmentation(request, timeout=30).done
    assert list(running.store.list("segmentations/")) == before


def test_a_stream_answers_every_image_and_survives_bad_ones(running: Running) -> None:
    def requests() -> Iterator[pb.SegmentImagesRequest]:
        for index in range(10):
            data = b"no image" if index == 4 else png(picture(shift=index % 3))
            yield pb.SegmentImagesRequest(
                correlation_id=f"image-{index}", request=pb.SegmentImageRequest(inline=data)
            )
        yield pb.SegmentImagesRequest(correlation_id="nothing")

    answers = {a.correlation_id: a for a in running.stub.SegmentImages(requests(), timeout=60)}
    assert len(answers) == 11
    assert answers["image-4"].error.reason == "IMAGE_UNREADABLE"
    assert answers["nothing"].error.reason == "FIELD_INVALID"
    good = [a for name, a in answers.items() if name not in ("image-4", "nothing")]
    assert {a.response.result.particle_count for a in good} == {len(DISCS)}


def test_a_promoted_version_is_used_at_once_and_gives_another_result(running: Running) -> None:
    image = running.upload(png(picture(shift=5)), "p.png")
    with_packaged = running.finish(running.create(image))
    folder = running.folder / "new"
    save_network(folder, threshold=250.0)
    objects = []
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        stored = running.store.put_file(f"serving/other/1/{path.relative_to(folder)}", path)
        objects.append({"key": stored.key, "digest": stored.digest})
    reference = json.dumps({"version": 1, "objects": objects}).encode()
    running.store.put("refs/models/other.json", reference, "application/json")
    operation = running.create(image, model="models/other")
    # The sync comes after the request: the segmenter waits for the model server to have it.
    assert sync_once(running.store, running.models).added == ("other/1",)
    found = running.finish(operation)
    assert found.resolved_model_version == "models/other/versions/1"
    assert found.name != with_packaged.name
    assert found.results[0].particle_count == 0


def test_the_end_of_the_model_server_is_told_and_survived(running: Running) -> None:
    request = pb.SegmentImageRequest(inline=png(picture()))
    running.model_server.kill()
    running.model_server.wait()
    with pytest.raises(grpc.RpcError) as caught:
        running.stub.SegmentImage(request, timeout=90)
    code, reason, text, _ = refusal(caught)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert reason == "MODEL_SERVER_UNAVAILABLE"
    assert running.model_address in text
    retry = error_details_pb2.RetryInfo()
    assert any(d.Unpack(retry) for d in rpc_status.from_call(caught.value).details)
    assert retry.retry_delay.seconds > 0
    # A job waits for the server rather than failing.
    operation = running.create(running.upload(png(picture(shift=8)), "later.png"))
    time.sleep(1.0)
    running.model_server, address = start_model_server(running.models, running.model_address)
    assert address == running.model_address
    assert running.finish(operation).results[0].particle_count == len(DISCS)
    assert running.stub.SegmentImage(request, timeout=90).result.particle_count == len(DISCS)


def many_discs(height: int, width: int) -> np.ndarray:
    image = np.random.default_rng(9).normal(50, 4, (height, width))
    y, x = np.mgrid[:height, :width]
    for row in range(25, height - 20, 45):
        for column in range(25, width - 20, 45):
            image[(y - row) ** 2 + (x - column) ** 2 <= 121] += 130
    return image.clip(0, 255).astype(np.uint8)


def test_an_image_beyond_the_memory_s_share_gives_what_it_gives_in_memory(running: Running) -> None:
    image = many_discs(640, 530)
    assert image.size > MEMORY_PX
    data = encode_tiff(image, (2.0, 2.0), kind="micrograph")
    called = running.stub.SegmentImage(pb.SegmentImageRequest(inline=png(image)), timeout=60).result
    outputs = pb.SegmentationOutputs(rois=True, coco=True, probabilities=True)
    done = running.finish(running.create(running.upload(data, "large.tif"), outputs=outputs))
    result = done.results[0]
    assert result.particle_count == called.particle_count == 14 * 11
    np.testing.assert_array_equal(running.labels(result), running.labels(called))
    stored = running.store.get(result.labels.uri, result.labels.digest)
    with tifffile.TiffFile(io.BytesIO(stored)) as tiff:
        assert tiff.is_bigtiff
        assert tiff.pages.first.is_tiled
    listed = {item.key for item in manifest.load(running.store, done.name).objects}
    for kind, ending in (
        ("labels", "large_labels.tif"), ("particles", "large_particles.csv"),
        ("overlay", "large_overlay.png"), ("rois", "large_rois.zip"), ("coco", "large_coco.json"),
        ("probabilities", "large_probabilities.tif"),
    ):  # fmt: skip
        artifact = getattr(result, kind)
        assert artifact.uri in listed
        assert artifact.display_name == ending
        assert running.store.get(artifact.uri, artifact.digest)
    table = running.store.get(result.particles.uri).decode().splitlines()
    assert len(table) == 1 + result.particle_count
    assert table[0].endswith("area_nm2")
    assert running.stub.GetSegmentation(
        pb.GetSegmentationRequest(name=done.name), timeout=10
    ).outputs == outputs  # fmt: skip


def test_an_overlay_can_be_left_out(running: Running) -> None:
    image = running.upload(png(picture(shift=3)), "plain.png")
    outputs = pb.SegmentationOutputs(no_overlay=True)
    result = running.finish(running.create(image, outputs=outputs)).results[0]
    assert not result.HasField("overlay")
    assert result.HasField("particles")


def test_a_file_of_several_pages_has_a_result_for_each(running: Running) -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page in (picture(), picture(shift=2)[:100]):
            writer.write(page, photometric="minisblack", contiguous=False)
    stack = running.upload(buffer.getvalue(), "stack.tif")
    one = running.upload(png(picture(shift=1)), "one.png")
    options = pb.SegmentationOptions(polarity=pb.SegmentationOptions.POLARITY_BRIGHT)
    done = running.finish(running.create(stack, one, options=options))
    names = [result.labels.display_name for result in done.results]
    assert names == ["stack_p1_labels.tif", "stack_p2_labels.tif", "one_labels.tif"]
    assert [result.page for result in done.results] == [1, 2, 0]
    assert done.results[0].particle_count == len(DISCS)
    assert done.results[2].particle_count == len(DISCS)
    answer = running.stub.SegmentImage(
        pb.SegmentImageRequest(inline=buffer.getvalue(), options=options), timeout=60
    )
    pages = [answer.result, *answer.further_pages]
    assert [page.page for page in pages] == [1, 2]
    assert [page.labels.digest for page in pages] == [
        result.labels.digest for result in done.results[:2]
    ]
    assert pages[1].labels.display_name == "image_p2_labels.tif"


def test_a_polarity_that_the_user_gives_is_taken(running: Running) -> None:
    dark = png(255 - picture())
    options = pb.SegmentationOptions(polarity=pb.SegmentationOptions.POLARITY_DARK)
    answer = running.stub.SegmentImage(
        pb.SegmentImageRequest(inline=dark, options=options), timeout=30
    )
    assert answer.result.inverted
    assert answer.result.particle_count == len(DISCS)
    with pytest.raises(grpc.RpcError) as caught:
        running.stub.SegmentImage(
            pb.SegmentImageRequest(inline=dark, options=pb.SegmentationOptions(polarity=9)),  # type: ignore[arg-type]
            timeout=30,
        )
    assert refusal(caught)[3] == ["options.polarity"]
