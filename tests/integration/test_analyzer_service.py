# SPDX-License-Identifier: GPL-3.0-or-later
"""The analyzer behind a real server, with a real store and real worker processes."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tifffile
from google.longrunning import operations_pb2_grpc
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pyarrow import parquet

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo.analyzer.v1 import analyzer_service_pb2_grpc as rpc
from granulo.segmenter.v1 import segmenter_service_pb2 as segmenter_pb
from granulo.type.v1 import artifact_pb2
from granulo_analyzer.servicer import build
from granulo_analyzer.settings import AnalyzerSettings
from granulo_core.engine.local import LocalEngine
from granulo_core.imaging.labels import encode_tiff
from granulo_core.rpc.channel import open_channel
from granulo_core.rpc.serve import ServiceParts
from granulo_core.rpc.server import build_server
from granulo_core.store import LocalStore
from granulo_core.store import manifest as manifests

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from analyzer_parts import HEIGHT, WIDTH, Running, label_set, micrograph, png, squares


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = LocalStore(tmp_path_factory.mktemp("analyzer") / "store")
    settings = AnalyzerSettings(max_images=8, max_image_px=400 * 400)
    engine = LocalEngine(cpus=1)
    built = build(ServiceParts(store, engine, settings))
    server = build_server(
        [built.registration], runners=[built.runner], store=store, settings=settings
    )
    address = server.start("127.0.0.1:0")
    with open_channel(address) as channel:
        yield Running(
            store, rpc.AnalyzerServiceStub(channel), operations_pb2_grpc.OperationsStub(channel)
        )
    server.stop(0)
    built.runner.close()
    built.close()
    engine.close()


def refusal(call: grpc.RpcError) -> tuple[grpc.StatusCode, dict[str, str]]:
    """Canonical code and the field violations."""
    status = rpc_status.from_call(call)
    found: dict[str, str] = {}
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            found |= {item.field: item.description for item in bad.field_violations}
    return call.code(), found


def rows(analyzer: Running, analysis: pb.Analysis) -> list[dict[str, str]]:
    data = analyzer.store.get(analysis.table.uri, analysis.table.digest)
    return list(csv.DictReader(io.StringIO(data.decode())))


def test_labels_and_micrographs_become_tables_statistics_and_a_report(analyzer: Running) -> None:
    first, second = squares(), squares(shift=30)
    request = label_set(
        pb.LabelledImage(
            labels=analyzer.upload(png(first), "a_labels.png"),
            image=analyzer.upload(png(micrograph(first)), "a.png"),
        ),
        pb.LabelledImage(labels=analyzer.upload(png(second), "b_labels.png")),
        pixel_size_nm=2.5,
    )
    result = analyzer.analyse(request)
    assert result.state == pb.Analysis.STATE_ACTIVE
    assert result.particle_count == 8
    assert result.label_set == request.analysis.label_set

    table = rows(analyzer, result)
    assert [row["image"] for row in table] == ["a"] * 4 + ["b"] * 4
    assert [row["label"] for row in table] == ["1", "2", "7", "9"] * 2
    assert {row["sqrt_area_nm"] for row in table} == {"50"}
    assert [row["touches_border"] for row in table] == (["false"] * 3 + ["true"]) * 2
    assert 160 < float(table[0]["mean_grey"]) < 180
    assert table[4]["mean_grey"] == "", "b has no micrograph"

    summary = json.loads(analyzer.store.get(result.summary.uri, result.summary.digest))
    assert summary["unit"] == "nm"
    assert summary["counting_rule"]["name"] == "miles_lantuejoul"
    assert summary["particles"] == {
        "listed": 8,
        "counted": 6,
        "at_frame": 2,
        "unsure": 0,
        "near_frame": 0,
    }
    assert summary["quantities"]["sqrt_area"]["median"] == 50
    assert summary["images"][0]["pixel_size_nm"] == [2.5, 2.5]
    by_quantity = {item.quantity: item for item in result.summaries}
    assert by_quantity["sqrt_area"].unit == "nm"
    assert (by_quantity["sqrt_area"].count, by_quantity["sqrt_area"].median) == (6, 50)
    assert by_quantity["area"].unit == "nm2"

    page = analyzer.store.get(result.report.uri, result.report.digest).decode()
    assert page.count("data:image/jpeg;base64,") == 2
    assert 'src="http' not in page
    assert "<script" not in page
    assert "<link" not in page
    assert "touch the frame of the image are listed" in page
    manifest = manifests.load(analyzer.store, result.name)
    manifests.verify(analyzer.store, manifest)
    keys = {item.key.removeprefix(f"{result.name}/") for item in manifest.objects}
    assert {"particles.csv", "summary.json", "histogram.png", "report.html"} <= keys
    assert {"overlays/0001_a.png", "overlays/0002_b.png"} <= keys
    assert [item.display_name for item in result.rois] == ["0001_a_rois.zip", "0002_b_rois.zip"]
    coco = json.loads(analyzer.store.get(result.coco.uri, result.coco.digest))
    assert len(coco["annotations"]) == result.particle_count
    data = analyzer.store.get(result.parquet.uri, result.parquet.digest)
    assert parquet.read_table(io.BytesIO(data)).num_rows == result.particle_count
    assert [item.name for item in manifest.inputs] == [
        request.analysis.label_set.items[0].labels.uri,
        request.analysis.label_set.items[0].image.uri,
        request.analysis.label_set.items[1].labels.uri,
    ]


def test_the_same_request_meets_the_same_analysis(analyzer: Running) -> None:
    request = label_set(pb.LabelledImage(labels=analyzer.upload(png(squares()), "same.png")))
    first, second = analyzer.analyse(request), analyzer.analyse(request)
    assert first == second
    got = analyzer.stub.GetAnalysis(pb.GetAnalysisRequest(name=first.name), timeout=10)
    assert got == first
    listed = analyzer.stub.ListAnalyses(pb.ListAnalysesRequest(), timeout=10)
    assert first.name in [item.name for item in listed.analyses]


def test_lengths_stay_in_pixels_where_the_pixel_size_is_unknown(analyzer: Running) -> None:
    labels = analyzer.upload(png(squares()), "plain.png")
    result = analyzer.analyse(label_set(pb.LabelledImage(labels=labels)))
    table = rows(analyzer, result)
    assert table[0]["ecd_px"]
    assert not [name for name in table[0] if "nm" in name]
    units = {item.quantity: item.unit for item in result.summaries}
    assert units["ecd"] == "[px]"
    assert units["aspect_ratio"] == "1"


def test_the_pixel_size_of_the_label_file_is_used(analyzer: Running) -> None:
    data = encode_tiff(squares(), (3.0, 3.0), kind="labels")
    result = analyzer.analyse(
        label_set(pb.LabelledImage(labels=analyzer.upload(data, "own_labels.tif")))
    )
    assert rows(analyzer, result)[0]["sqrt_area_nm"] == "60"


def test_what_is_known_of_the_particles_comes_with_their_labels(analyzer: Running) -> None:
    hidden = squares()
    visible = hidden.copy()
    visible[40:60, 10:15] = 0
    given = b"label,confidence\n1,0.9\n7,0.25\n"
    item = pb.LabelledImage(
        labels=analyzer.upload(png(visible), "part_labels.png"),
        particles=analyzer.upload(given, "part_particles.csv"),
        amodal=analyzer.upload(encode_tiff(hidden[None], kind="amodal"), "part_amodal.tif"),
    )
    result = analyzer.analyse(label_set(item))
    table = rows(analyzer, result)
    assert [row["confidence"] for row in table] == ["0.9", "", "0.25", ""]
    assert [row["visible_fraction"] for row in table] == ["0.75", "1", "1", "1"]
    assert [row["amodal_area_px"] for row in table] == ["400"] * 4
    request = pb.ListParticlesRequest(parent=result.name, page_size=4)
    listed = analyzer.stub.ListParticles(request, timeout=10).particles
    assert listed[0].values["confidence"] == 0.9
    assert "confidence" not in listed[1].values
    assert listed[3].values["amodal_touches_border"] == 1
    names = {item.name for item in manifests.load(analyzer.store, result.name).inputs}
    assert {item.particles.uri, item.amodal.uri} <= names


@pytest.mark.parametrize(
    ("field", "data", "message"),
    [
        ("particles", b"confidence\n0.5\n", "no column label"),
        ("amodal", encode_tiff(squares()[None, :50], kind="amodal"), "shape"),
        ("amodal", encode_tiff(squares(shift=1)[None] // 9, kind="amodal"), "no whole particle"),
        ("amodal", b"II*\x00", "amodal"),
    ],
)
def test_what_does_not_belong_to_the_labels_is_refused_before_any_work(
    analyzer: Running, field: str, data: bytes, message: str
) -> None:
    item = pb.LabelledImage(labels=analyzer.upload(png(squares()), "own_labels.png"))
    getattr(item, field).CopyFrom(analyzer.upload(data, f"own_{field}"))
    with pytest.raises(grpc.RpcError) as caught:
        analyzer.stub.CreateAnalysis(label_set(item), timeout=30)
    code, found = refusal(caught.value)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert message in found[f"analysis.label_set.items[0].{field}"]


def test_particles_are_listed_page_by_page(analyzer: Running) -> None:
    labels = analyzer.upload(png(squares()), 'odd, "name".png')
    result = analyzer.analyse(label_set(pb.LabelledImage(labels=labels), pixel_size_nm=1.0))
    request = pb.ListParticlesRequest(parent=result.name, page_size=3)
    first = analyzer.stub.ListParticles(request, timeout=10)
    request.page_token = first.next_page_token
    second = analyzer.stub.ListParticles(request, timeout=10)
    particles = [*first.particles, *second.particles]
    assert (len(first.particles), second.next_page_token) == (3, "")
    assert [item.label for item in particles] == [1, 2, 7, 9]
    assert particles[0].name == f"{result.name}/particles/1"
    assert particles[0].image == 'odd, "name"'
    assert particles[0].values["area_px"] == 400
    assert [item.touches_border for item in particles] == [False, False, False, True]


@pytest.mark.parametrize("count", [0, 1])
def test_an_image_with_hardly_a_particle_gives_a_report_all_the_same(
    analyzer: Running, count: int
) -> None:
    labels = np.where(squares() <= count, squares(), 0)
    result = analyzer.analyse(
        label_set(pb.LabelledImage(labels=analyzer.upload(png(labels), f"few{count}.png")))
    )
    assert result.particle_count == count
    assert len(rows(analyzer, result)) == count
    assert np.isnan(result.summaries[0].stddev)
    page = analyzer.store.get(result.report.uri).decode()
    assert ("No particle was found" in page) == (count == 0)
    assert "nan" not in page.lower().replace("nano", "")


def test_a_segmentation_is_analysed_with_its_pixel_sizes_and_without_its_data_bars(
    analyzer: Running,
) -> None:
    labels = squares(shift=40)
    stored = analyzer.store.put(
        "segmentations/sg-1/x_labels.tif", encode_tiff(labels, kind="labels")
    )
    result = segmenter_pb.SegmentedImage(
        image=analyzer.upload(png(micrograph(labels)), "x.png"),
        labels=artifact_pb2.Artifact(uri=stored.key, digest=stored.digest),
        pixel_size=artifact_pb2.PixelSize(x_nm=2, y_nm=2),
        content_height_px=100,
        particles=analyzer.upload(b"label,confidence\n1,0.6000\n2,0.8000\n", "x_particles.csv"),
    )
    manifest = manifests.Manifest(
        resource="segmentations/sg-1",
        kind="Segmentation",
        objects=(stored,),
        inputs=(manifests.ManifestInput("models/default/versions/1", "sha256:" + "ab" * 32),),
        producer=manifests.producer("segmenter", 0),
        request={},
        facts={
            "results": [MessageToDict(result, preserving_proto_field_name=True)],
            "resolved_model_version": "models/default/versions/1",
        },
    )
    manifests.commit(analyzer.store, "segmentations/sg-1", manifest)
    request = pb.CreateAnalysisRequest(analysis=pb.Analysis(segmentation="segmentations/sg-1"))
    analysis = analyzer.analyse(request)
    assert analysis.segmentation == "segmentations/sg-1"
    table = rows(analyzer, analysis)
    assert {row["touches_border"] for row in table} == {"true"}, "they end at the data bar"
    assert table[0]["sqrt_area_nm"] == "40"
    assert [row["confidence"] for row in table] == ["0.6", "0.8", "", ""]
    page = analyzer.store.get(analysis.report.uri).decode()
    assert "models/default/versions/1" in page
    assert "ab" * 32 in page, "the digest of the model"
    assert manifests.referrers(analyzer.store, "segmentations/sg-1") == [analysis.name]


def test_unusable_requests_are_refused_before_any_work(analyzer: Running) -> None:
    good = analyzer.upload(png(squares()), "good.png")
    grey = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH)).astype(np.uint8)
    item = "analysis.label_set.items[0]"
    cases = {
        "analysis.source": pb.CreateAnalysisRequest(analysis=pb.Analysis(name="")),
        f"{item}.labels.uri": label_set(
            pb.LabelledImage(labels=artifact_pb2.Artifact(uri="uploads/none"))
        ),
        f"{item}.image": label_set(
            pb.LabelledImage(labels=good, image=analyzer.upload(png(grey[:100]), "cut.png"))
        ),
        "analysis.label_set.pixel_size.x_nm": label_set(
            pb.LabelledImage(labels=good), pixel_size_nm=float("nan")
        ),
        "analysis.label_set.items": label_set(*[pb.LabelledImage(labels=good)] * 9),
        "analysis.segmentation": pb.CreateAnalysisRequest(
            analysis=pb.Analysis(segmentation="datasets/x")
        ),
    }
    for data in (png(grey), b"not an image", png(squares())[:100], png(squares()[:1, :1])):
        request = label_set(pb.LabelledImage(labels=analyzer.upload(data, "bad.png")))
        with pytest.raises(grpc.RpcError) as caught:
            analyzer.stub.CreateAnalysis(request, timeout=10)
        code, fields = refusal(caught.value)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert list(fields) == [f"{item}.labels"]
    for field, request in cases.items():
        with pytest.raises(grpc.RpcError) as caught:
            analyzer.stub.CreateAnalysis(request, timeout=10)
        code, fields = refusal(caught.value)
        assert code is grpc.StatusCode.INVALID_ARGUMENT, field
        assert field in fields


def test_fractions_and_negative_labels_are_refused(analyzer: Running, tmp_path: Path) -> None:
    for pixels in (squares().astype(np.float32) / 2, squares().astype(np.int16) - 1):
        tifffile.imwrite(tmp_path / "bad.tif", pixels)
        artifact = analyzer.upload((tmp_path / "bad.tif").read_bytes(), "bad.tif")
        with pytest.raises(grpc.RpcError) as caught:
            analyzer.stub.CreateAnalysis(label_set(pb.LabelledImage(labels=artifact)), timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_does_not_exist_is_not_found(analyzer: Running) -> None:
    calls = (
        lambda: analyzer.stub.GetAnalysis(pb.GetAnalysisRequest(name="analyses/none")),
        lambda: analyzer.stub.ListParticles(pb.ListParticlesRequest(parent="analyses/none")),
        lambda: analyzer.stub.CreateAnalysis(
            pb.CreateAnalysisRequest(analysis=pb.Analysis(segmentation="segmentations/none"))
        ),
    )
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_validating_only_makes_nothing(analyzer: Running) -> None:
    request = label_set(pb.LabelledImage(labels=analyzer.upload(png(squares(shift=3)), "v.png")))
    request.validate_only = True
    before = set(manifests.list_resources(analyzer.store, "analyses"))
    operation = analyzer.stub.CreateAnalysis(request, timeout=10)
    assert operation.done
    assert not operation.name
    assert set(manifests.list_resources(analyzer.store, "analyses")) == before


def test_predictions_are_evaluated_against_instances_and_against_masks(analyzer: Running) -> None:
    truth = squares()
    predicted = np.where(truth == 7, 0, truth)
    pairs = [
        pb.EvaluationPair(
            predicted=analyzer.upload(png(predicted), "a_labels.png"),
            truth=analyzer.upload(png(truth), "a.png"),
            truth_kind=pb.EvaluationPair.TRUTH_KIND_INSTANCES,
        ),
        pb.EvaluationPair(
            predicted=analyzer.upload(png(truth), "b_labels.png"),
            truth=analyzer.upload(png(((truth > 0) * 255).astype(np.uint8)), "b_m.png"),
            truth_kind=pb.EvaluationPair.TRUTH_KIND_BINARY_4_CONNECTED,
            content_height_px=100,
        ),
    ]
    request = pb.EvaluateSegmentationRequest(pairs=pairs)
    response = analyzer.stub.EvaluateSegmentation(request, timeout=30)
    assert [item.image for item in response.images] == ["a", "b"]
    assert response.images[0].metrics["ap50"] == pytest.approx(3 / 4)
    assert response.images[1].metrics["ap50"] == 1.0
    assert response.metrics["ap50"] == pytest.approx(7 / 8)
    assert response.metrics["count_error"] == pytest.approx(1 / 8)


def test_pairs_that_do_not_fit_are_refused(analyzer: Running) -> None:
    truth, small = (
        analyzer.upload(png(squares()), "t.png"),
        analyzer.upload(png(squares()[:90]), "s.png"),
    )
    cases = {
        "pairs[0].predicted": pb.EvaluationPair(predicted=small, truth=truth),
        "pairs[0].content_height_px": pb.EvaluationPair(
            predicted=truth, truth=truth, content_height_px=500
        ),
        "pairs[0].truth": pb.EvaluationPair(
            predicted=truth, truth=truth, truth_kind=pb.EvaluationPair.TRUTH_KIND_BINARY_4_CONNECTED
        ),
    }
    for field, pair in cases.items():
        with pytest.raises(grpc.RpcError) as caught:
            analyzer.stub.EvaluateSegmentation(
                pb.EvaluateSegmentationRequest(pairs=[pair]), timeout=10
            )
        code, fields = refusal(caught.value)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert list(fields) == [field]
