# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of results, what workers are told, and the bounds of a stream."""

import time
from collections.abc import Iterator

import pytest

from granulo.segmenter.v1 import segmenter_service_pb2 as pb
from granulo_core.imaging.reading.isolated import IsolatedReader
from granulo_core.rpc.lifetime import ENDLESS
from granulo_core.store import LocalStore
from granulo_segmenter.calls import CallSegmenter
from granulo_segmenter.domain.jobs import Outputs, SegmentJob, SourceImage, file_name, result_stems
from granulo_segmenter.domain.model import ModelFacts, ResolvedModel, ServedModel
from granulo_segmenter.domain.options import Method, Options
from granulo_segmenter.settings import SegmenterSettings
from granulo_segmenter.slots import Slots


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["a.tif", "b.png"], ["a", "b"]),
        (["a.tif", "a.png", "A.TIF"], ["a", "a_2", "A_3"]),
        (["a.tif", "a_2.tif", "a.png"], ["a", "a_2", "a_3"]),
        (["a.tif", "a.png", "a_2.tif"], ["a", "a_3", "a_2"]),
        (["x.y.tif", "noext", ".tif", "..", "ü.tif"], ["x.y", "noext", "tif", "image", "_"]),
        (["a b/c.tif"], ["a_b_c"]),
    ],
)
def test_results_are_named_by_stems_and_numbered_where_these_meet(
    names: list[str], stems: list[str]
) -> None:
    found = result_stems(names)
    assert [stem.key for stem in found] == stems


def test_people_see_their_own_names() -> None:
    found = result_stems(["Probe Nr. 7 (ü).tif", "Probe Nr. 7 (ü).png", "x.y.tif"])
    assert [stem.shown for stem in found] == ["Probe Nr. 7 (ü)", "Probe Nr. 7 (ü)_2", "x.y"]
    assert [stem.key for stem in found] == ["Probe_Nr._7_", "Probe_Nr._7__2", "x.y"]


def test_a_file_s_name_has_no_folders_of_any_system() -> None:
    assert file_name("C:\\data\\sample 7.tif", "uploads/x") == "sample 7.tif"
    assert file_name("/home/me/s.png", "uploads/x") == "s.png"
    assert file_name("", "uploads/abc") == "abc"
    assert file_name("a\nb.tif", "uploads/abc") == "a b.tif"


def test_a_job_survives_the_way_to_a_worker() -> None:
    job = SegmentJob(
        image=SourceImage("uploads/x", "sha256:0", "x.tif"),
        stem_key="segmentations/s/x",
        outputs=Outputs(rois=True),
        model=ResolvedModel(ServedModel("default", 3), ModelFacts(tile_px=512), "sha256:1"),
        options=Options(method=Method.PAPER, dynamics=2.0),
        pixel_size_nm=(7.344, 7.344),
        model_server="127.0.0.1:1",
        patience_s=1.0,
        timeout_s=2.0,
        max_px=100,
        memory_px=50,
    )
    assert SegmentJob.from_bytes(job.to_bytes()) == job


def call_segmenter(store: LocalStore) -> CallSegmenter:
    settings = SegmenterSettings(model_server="127.0.0.1:1")
    return CallSegmenter(store, settings, Slots(at_once=2, waiting=8), IsolatedReader())


def test_a_stream_takes_in_a_few_images_ahead_and_no_more(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = call_segmenter(local_store)
    monkeypatch.setattr(calls, "segment", lambda *_args, **_more: pb.SegmentImageResponse())
    taken = []

    def requests() -> Iterator[pb.SegmentImagesRequest]:
        for index in range(50):
            taken.append(index)
            inline = pb.SegmentImageRequest(inline=b"x")
            yield pb.SegmentImagesRequest(correlation_id=str(index), request=inline)

    answers = calls.stream(requests(), ENDLESS)
    next(answers)
    time.sleep(0.3)
    assert len(taken) <= 6, "a reader that does not come must hold back the sender"
    assert len(list(answers)) == 49


def test_a_stream_ends_when_its_client_has_gone(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = call_segmenter(local_store)
    monkeypatch.setattr(calls, "segment", lambda *_args, **_more: pb.SegmentImageResponse())

    def requests() -> Iterator[pb.SegmentImagesRequest]:
        yield pb.SegmentImagesRequest(
            correlation_id="1", request=pb.SegmentImageRequest(inline=b"x")
        )
        raise ConnectionError("the client has gone")

    assert len(list(calls.stream(requests(), ENDLESS))) == 1
