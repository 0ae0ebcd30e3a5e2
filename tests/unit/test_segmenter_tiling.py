# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiles: every pixel has one tile, and results do not depend on how the image was cut."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from granulo_core.imaging.instances import InstanceParams
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.read import Micrograph
from granulo_segmenter.domain.model import ModelFacts
from granulo_segmenter.domain.options import Invert, Method, Options, check_options
from granulo_segmenter.domain.overlay import draw_overlay, encode_png
from granulo_segmenter.domain.planes import ArrayPlane
from granulo_segmenter.domain.segmentation import segment
from granulo_segmenter.domain.tiling import cut_tiles, plan_tiles, store_tiles

FACTS = ModelFacts(stride=8, tile_px=128, instances=InstanceParams(min_area_px=5))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    strides=st.integers(4, 16),
    overlap=st.integers(0, 32),
)
# A last tile of one column of the image: what it sees is mirrored and exactly as wide as a tile.
@example(height=16, width=193, strides=4, overlap=0)
def test_tiles_put_together_are_the_image(
    height: int, width: int, strides: int, overlap: int
) -> None:
    image = np.arange(height * width, dtype=np.float32).reshape(height, width)
    plan = plan_tiles(height, width, tile_px=16 * strides, overlap_px=overlap, stride=16)
    tiles = list(cut_tiles(ArrayPlane(image), plan))
    assert {tile.shape for tile in tiles} == {plan.tile_shape}
    assert max(plan.tile_shape) <= 16 * strides
    assert plan.tile_shape[0] % 16 == plan.tile_shape[1] % 16 == 0
    assert all(tile.row % 16 == tile.column % 16 == 0 for tile in plan.tiles)
    outputs = ({"same": tile} for tile in tiles)
    same = ArrayPlane.zeros(image.shape, np.float32)
    store_tiles(plan, outputs, {"same": same})
    np.testing.assert_array_equal(same.array, image)


def test_an_overlap_that_leaves_no_room_is_told_with_the_needed_size() -> None:
    with pytest.raises(ValueError, match="at least 80"):
        plan_tiles(500, 500, tile_px=64, overlap_px=64, stride=16)


def micrograph(height: int = 310, width: int = 275, bar: int = 0) -> tuple[Micrograph, int]:
    """Bright discs, some near one another, three on an edge; how many there are."""
    image = np.random.default_rng(4).normal(60, 3, (height, width))
    y, x = np.mgrid[:height, :width]
    circles = [
        (40, 40), (40, 68), (130, 128), (128, 200), (200, 60), (228, 60), (0, 150), (250, 0),
        (260, 160), (256, 190), (120, 20),
    ]  # fmt: skip
    for row, column in circles:
        image[(y - row) ** 2 + (x - column) ** 2 <= 144] += 120
    content = image.clip(0, 255).astype(np.uint8)
    pixels = np.vstack([content, np.full((bar, width), 255, np.uint8)])
    return Micrograph(pixels, None, height, "test"), len(circles)


class FakeNetwork:
    """Foreground by a soft threshold, distance by a box filter: local, as a network is."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(
        self, tiles: Iterable[np.ndarray], names: Sequence[str]
    ) -> Iterator[Mapping[str, np.ndarray]]:
        for tile in tiles:
            self.shapes.append(tile.shape)
            foreground = 1 / (1 + np.exp(-(tile.astype(np.float32) - 128) / 10))
            mask = (foreground > 0.5).astype(np.float32)
            density = cv2.blur(mask, (19, 19), borderType=cv2.BORDER_CONSTANT)
            distance = np.clip(2 * density - 1, 0, 1) * mask
            outputs = {"foreground": foreground, "distance": distance}
            yield {name: outputs[name] for name in names}


@pytest.mark.parametrize("method", [Method.MODEL, Method.PAPER])
def test_labels_do_not_depend_on_the_tiling(method: Method) -> None:
    image, count = micrograph()
    whole = segment(image, ModelFacts(stride=8, tile_px=1024), FakeNetwork(),
                    options=Options(method=method, min_area_px=5))  # fmt: skip
    assert whole.particle_count == count
    for tile_px in (64, 96, 128, 256):
        network = FakeNetwork()
        options = Options(method=method, tile_px=tile_px, overlap_px=32, min_area_px=5)
        tiled = segment(image, FACTS, network, options=options)
        assert len(network.shapes) > 1
        assert max(max(shape) for shape in network.shapes) <= tile_px
        np.testing.assert_array_equal(tiled.labels, whole.labels)


def test_too_small_an_overlap_would_show() -> None:
    image, _ = micrograph()
    maps = []
    for overlap_px in (0, 32):
        options = Options(tile_px=64, overlap_px=overlap_px, min_area_px=5)
        maps.append(segment(image, FACTS, FakeNetwork(), options=options).labels)
    assert (maps[0] != maps[1]).any(), "the test network does not look beyond its tile"


def test_flips_change_nothing_for_a_symmetric_network_and_cost_four_passes() -> None:
    image, _ = micrograph()
    plain, flipped = FakeNetwork(), FakeNetwork()
    one = segment(image, FACTS, plain)
    four = segment(image, FACTS, flipped, options=Options(flips=True))
    np.testing.assert_array_equal(one.labels, four.labels)
    assert len(flipped.shapes) == 4 * len(plain.shapes)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 301), (1031, 40), (129, 128)])
def test_labels_have_the_image_s_size_whatever_it_is(height: int, width: int) -> None:
    image, _ = micrograph(height, width)
    found = segment(image, FACTS, FakeNetwork())
    assert found.labels.shape == (height, width)
    assert found.labels.dtype == np.uint32


def test_a_data_bar_is_background_and_does_not_change_the_rest() -> None:
    plain, count = micrograph()
    barred, _ = micrograph(bar=60)
    found = segment(barred, FACTS, FakeNetwork())
    assert found.labels.shape == (370, 275)
    assert not found.labels[310:].any()
    assert found.particle_count == count
    np.testing.assert_array_equal(found.labels[:310], segment(plain, FACTS, FakeNetwork()).labels)


def test_a_network_without_distance_is_read_by_the_paper_s_recipe() -> None:
    image, _ = micrograph()
    facts = ModelFacts(stride=8, tile_px=128, outputs=("foreground",))
    default = segment(image, facts, FakeNetwork())
    paper = segment(image, facts, FakeNetwork(), options=Options(method=Method.PAPER))
    np.testing.assert_array_equal(default.labels, paper.labels)


def test_the_pixel_size_scales_the_paper_s_recipe() -> None:
    image, count = micrograph()
    options = Options(method=Method.PAPER, invert=Invert.NO)
    assert segment(image, FACTS, FakeNetwork(), options=options,
                   pixel_size=PixelSize.square(2.0)).particle_count == count  # fmt: skip
    # At 0.2 nm a pixel every disc is smaller than 376 nm².
    assert segment(image, FACTS, FakeNetwork(), options=options,
                   pixel_size=PixelSize.square(0.2)).particle_count == 0  # fmt: skip


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (Options(tile_px=7), "tile_px"),
        (Options(tile_px=2048), "tile_px"),
        (Options(tile_px=64, overlap_px=64), "tile_px"),
        (Options(overlap_px=-1), "overlap_px"),
        (Options(foreground_threshold=1.0), "foreground_threshold"),
        (Options(foreground_threshold=float("nan")), "foreground_threshold"),
        (Options(min_area_px=-3), "min_area_px"),
        (Options(dynamics=1.5), "dynamics"),
        (Options(dynamics=-1, method=Method.PAPER), "dynamics"),
    ],
)
def test_unusable_options_are_named(options: Options, field: str) -> None:
    assert [name for name, _ in check_options(options, FACTS)] == [field]


def test_the_distance_method_needs_a_distance_output() -> None:
    facts = ModelFacts(outputs=("foreground",))
    problems = check_options(Options(method=Method.DISTANCE), facts)
    assert [name for name, _ in problems] == ["method"]
    assert "METHOD_PAPER" in problems[0][1]
    assert check_options(Options(), facts) == []
    assert check_options(Options(dynamics=4, method=Method.PAPER), facts) == []


def test_options_survive_the_way_to_a_worker() -> None:
    options = Options(method=Method.PAPER, tile_px=256, dynamics=2.5, flips=True)
    assert Options.from_json(options.to_json()) == options


def test_model_facts_of_another_format_or_with_unusable_values_are_refused() -> None:
    good: dict[str, Any] = {
        "format": 1, "preset": "small", "stride": 16, "tile_px": 512,
        "outputs": ["foreground", "distance"], "input": {}, "instances": {},
    }  # fmt: skip
    assert ModelFacts.from_json(good).tile_px == 512
    for change in (
        {"format": 2}, {"stride": 0}, {"tile_px": 500}, {"tile_px": 4096}, {"outputs": []},
        {"input": {"unheard_of": 1}}, {"instances": {"marker_depth": 7}},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"must|unknown"):
            ModelFacts.from_json({**good, **change})


def test_the_overlay_draws_outlines_and_leaves_the_rest_grey() -> None:
    image, _ = micrograph()
    found = segment(image, FACTS, FakeNetwork())
    picture = draw_overlay(image.pixels, found.labels)
    assert picture.shape == (310, 275, 3)
    coloured = (picture != picture[..., :1]).any(axis=2)
    assert coloured.any()
    assert not coloured[found.labels == 0].any()
    assert not coloured[130, 128], "the middle of a particle is covered"
    decoded = cv2.imdecode(np.frombuffer(encode_png(picture), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[..., ::-1], picture)
