# SPDX-License-Identifier: GPL-3.0-or-later
"""Blocks: every instance once and whole, however the image was cut."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from granulo_core.imaging.consistency import Consistency
from granulo_core.imaging.instances import InstanceParams
from granulo_core.imaging.normalise import InputConvention, to_network_input
from granulo_core.imaging.read import Micrograph
from granulo_core.imaging.scale import ScaleParams
from granulo_segmenter.domain import prepare
from granulo_segmenter.domain.blocks import stitch
from granulo_segmenter.domain.maps import Maps, rescaled
from granulo_segmenter.domain.model import ModelFacts
from granulo_segmenter.domain.options import Invert, Method, Options
from granulo_segmenter.domain.planes import ArrayPlane, Window, blocks, whole
from granulo_segmenter.domain.segmentation import Segmentation, Working, segment

FACTS = ModelFacts(stride=8, tile_px=1024, instances=InstanceParams(min_area_px=5))
PLAIN = Options(invert=Invert.NO, overlap_px=64)


class LocalNetwork:
    """Looks 13 px far: foreground by a threshold, distance by how full the neighbourhood is."""

    def __call__(
        self, tiles: Iterable[np.ndarray], names: Sequence[str]
    ) -> Iterator[Mapping[str, np.ndarray]]:
        for tile in tiles:
            foreground = (1 / (1 + np.exp(-(tile.astype(np.float32) - 110) / 12))).astype(
                np.float16
            )
            mask = (foreground > 0.5).astype(np.float32)
            distance = cv2.GaussianBlur(mask, (27, 27), 4.5, borderType=cv2.BORDER_REFLECT_101)
            outputs = {"foreground": foreground, "distance": np.clip(2 * distance - 1, 0, 1) * mask}
            yield {name: outputs[name] for name in names}


def scene(
    seed: int, height: int, width: int, largest: int, objects: int | None = None
) -> Micrograph:
    """Bright ellipses, many touching, of very different sizes, over a noisy graded ground."""
    rng = np.random.default_rng(seed)
    image = rng.normal(40, 4, (height, width)).astype(np.float32)
    for _ in range(objects or height * width // 2500):
        axes = np.exp(rng.uniform(np.log(5), np.log(largest), 2)).astype(int)
        centre = int(rng.integers(0, width)), int(rng.integers(0, height))
        level = float(rng.uniform(150, 210))
        cv2.ellipse(
            image, centre, (int(axes[0]), int(axes[1])), rng.uniform(0, 180), 0, 360, level, -1
        )
    image = cv2.GaussianBlur(image, (0, 0), 1.0)
    return Micrograph(image.clip(0, 255).astype(np.uint8), None, height, "test")


def equal_objects(one: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """How many objects are the same in both up to their number, and how many there are."""
    assert one.shape == other.shape
    sizes = np.bincount(one.ravel()), np.bincount(other.ravel())
    pairs, overlap = np.unique(
        np.stack([one.ravel(), other.ravel()]).astype(np.int64), axis=1, return_counts=True
    )
    union = sizes[0][pairs[0]] + sizes[1][pairs[1]] - overlap
    equal = np.count_nonzero((overlap >= 0.95 * union) & (pairs > 0).all(axis=0))
    return equal, max(np.count_nonzero(size[1:]) for size in sizes)


# What is cut how: tiles of the network, blocks of the watershed.
CUTS = [(128, 70, 32), (184, 128, 32), (1024, 100, 64), (128, 2048, 128)]


@pytest.mark.parametrize("method", [Method.MODEL, Method.PAPER])
def test_the_objects_do_not_depend_on_tiles_and_blocks(method: Method) -> None:
    equal = total = 0
    for seed, (tile_px, block_px, halo_px) in enumerate(CUTS):
        image = scene(seed, 310, 300, 40)
        options = Options(method=method, invert=Invert.NO, overlap_px=64, min_area_px=5)
        whole_one = segment(image, FACTS, LocalNetwork(), options=options)
        working = Working(block_px=block_px, halo_px=halo_px)
        options = replace(options, tile_px=tile_px)
        parts = segment(image, FACTS, LocalNetwork(), options=options, working=working)
        found = equal_objects(whole_one.labels, parts.labels)
        equal, total = equal + found[0], total + found[1]
        assert parts.particle_count == np.count_nonzero(np.bincount(parts.labels.ravel())[1:])
    assert total > 60
    assert equal >= 0.995 * total, f"{equal} of {total} objects are equal"


def test_an_object_larger_than_block_and_halo_is_one() -> None:
    image = np.full((300, 420), 40, np.uint8)
    cv2.ellipse(image, (210, 150), (190, 120), 0, 0, 360, 190, -1)
    micrograph = Micrograph(image, None, 300, "test")
    working = Working(block_px=64, halo_px=4)
    found = segment(micrograph, FACTS, LocalNetwork(), options=PLAIN, working=working)
    assert found.particle_count == 1
    mask = image > 110
    assert np.count_nonzero((found.labels > 0) & mask) > 0.99 * np.count_nonzero(mask)


def test_objects_that_reach_far_out_of_many_blocks_are_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("granulo_segmenter.domain.blocks.NEAR_PX", 16)
    equal = total = 0
    for seed, (block_px, halo_px) in enumerate([(32, 4), (48, 16), (64, 8), (40, 200)]):
        image = scene(seed + 10, 620, 600, 110, objects=40)
        whole_one = segment(image, FACTS, LocalNetwork(), options=PLAIN)
        working = Working(block_px=block_px, halo_px=halo_px)
        parts = segment(image, FACTS, LocalNetwork(), options=PLAIN, working=working)
        found = equal_objects(whole_one.labels, parts.labels)
        equal, total = equal + found[0], total + found[1]
        longest = np.ptp(whole_one.particles.boxes.reshape(-1, 2, 2), axis=2).max()
        assert longest > 2 * 16 + block_px, "no object is large for these blocks"
    assert total > 20
    assert equal == total, f"{equal} of {total} objects are equal"


@pytest.mark.long
def test_a_particle_of_3000_px_is_one() -> None:
    # The smaller one is no scrap beside it.
    facts = replace(FACTS, instances=InstanceParams(min_area_px=5, min_area_fraction=0))
    image = np.full((4096, 4096), 40, np.uint8)
    cv2.ellipse(image, (2100, 1990), (1500, 1350), 20, 0, 360, 190, -1)
    cv2.circle(image, (300, 3800), 60, 190, -1)
    micrograph = Micrograph(image, None, 4096, "test")
    options = replace(PLAIN, tile_px=512)
    found = segment(micrograph, facts, LocalNetwork(), options=options)
    in_one = Working(block_px=4096)
    options = replace(PLAIN, tile_px=1024)
    expected = segment(micrograph, facts, LocalNetwork(), options=options, working=in_one)
    assert found.particle_count == expected.particle_count == 2
    assert equal_objects(found.labels, expected.labels) == (2, 2)
    assert found.particles.area_px.max() > 0.99 * np.pi * 1500 * 1350


def test_an_object_beyond_the_largest_window_is_cut_and_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("granulo_segmenter.domain.blocks.NEAR_PX", 64)
    monkeypatch.setattr("granulo_segmenter.domain.blocks.MAX_WINDOW_PX", 80 * 400)
    image = np.full((80, 900), 40, np.uint8)
    image[20:60, 10:890] = 190
    micrograph = Micrograph(image, None, 80, "test")
    working = Working(block_px=64, halo_px=16)
    found = segment(micrograph, FACTS, LocalNetwork(), options=PLAIN, working=working)
    assert 1 < found.particle_count < 15
    assert np.count_nonzero(found.labels[20:60, 10:890]) > 0.95 * 40 * 880


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(5, 40), st.integers(0, 12), st.integers(1, 20),
    st.floats(0.3, 0.7),
)  # fmt: skip
def test_connected_objects_are_found_as_in_one_piece_however_they_are_cut(
    seed: int, block_px: int, halo_px: int, near_px: int, density: float
) -> None:
    rng = np.random.default_rng(seed)
    mask = cv2.GaussianBlur(rng.random((61, 53)), (0, 0), 1.5)
    mask = (mask > np.quantile(mask, density)).astype(np.uint8)
    heights = rng.permutation(mask.size).reshape(mask.shape)

    def find(window: Window) -> tuple[np.ndarray, np.ndarray]:
        # What a window cuts looks like several objects, with peaks of their own.
        count, labels = cv2.connectedComponents(mask[window.slices], connectivity=4)
        seen = heights[window.slices].ravel()
        order = np.argsort(seen)
        peaks = np.full(count, -1, np.int64)
        peaks[labels.ravel()[order]] = order
        peaks[0] = -1
        return labels, peaks

    labels = ArrayPlane.zeros(mask.shape, np.uint32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("granulo_segmenter.domain.blocks.NEAR_PX", near_px)
        found = stitch(find, labels, block_px=block_px, halo_px=halo_px)
    expected, _ = find(whole(mask.shape))
    pairs = np.unique(np.stack([labels.array.ravel(), expected.ravel()]), axis=1)
    count = expected.max() + 1
    assert pairs.shape[1] == len(np.unique(pairs[0])) == count
    assert np.count_nonzero(found.area_px) == count - 1


def test_a_large_object_is_looked_at_whole_by_one_block_only() -> None:
    everything = np.zeros((400, 400), np.int32)
    everything[50:350, 50:350] = 1
    looked: list[Window] = []

    def find(window: Window) -> tuple[np.ndarray, np.ndarray]:
        looked.append(window)
        part = everything[window.slices]
        # Its peak is in the last block that holds a part of it.
        return part, np.append(-1, np.flatnonzero(part)[-1:]) if part.any() else np.array([-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("granulo_segmenter.domain.blocks.NEAR_PX", 20)
        found = stitch(find, ArrayPlane.zeros((400, 400), np.uint32), block_px=100, halo_px=20)
    assert found.area_px[found.area_px > 0].tolist() == [300 * 300]
    assert sum(window.shape == (400, 400) for window in looked) == 1
    assert max(window.shape[0] for window in looked[-14:]) <= 140


def test_what_a_block_cannot_see_whole_takes_no_neighbour_with_it() -> None:
    large, small = np.zeros((40, 400), bool), np.zeros((40, 400), bool)
    large[10:20, 10:330] = True
    small[20:26, 310:340] = True

    def find(window: Window) -> tuple[np.ndarray, np.ndarray]:
        part = large[window.slices].astype(np.int32)
        is_whole = window.left <= 10 and window.right >= 330
        part[small[window.slices]] = 2 if is_whole else 1
        places = [np.flatnonzero(part == number) for number in range(1, part.max() + 1)]
        return part, np.array([-1] + [place[len(place) // 2] for place in places])

    labels = ArrayPlane.zeros((40, 400), np.uint32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("granulo_segmenter.domain.blocks.NEAR_PX", 20)
        found = stitch(find, labels, block_px=100, halo_px=20)
    areas = sorted(found.area_px[found.area_px > 0].tolist())
    assert areas == [np.count_nonzero(small), np.count_nonzero(large)]


def test_the_table_agrees_with_the_labels() -> None:
    found = segment(
        scene(3, 310, 300, 40), FACTS, LocalNetwork(), options=PLAIN,
        working=Working(block_px=128, halo_px=32),
    )  # fmt: skip
    table = found.particles
    assert set(np.unique(found.labels)) == set(range(len(table) + 1))
    np.testing.assert_array_equal(np.bincount(found.labels.ravel())[1:], table.area_px)
    for number in range(1, len(table) + 1):
        rows, columns = np.nonzero(found.labels == number)
        box = [rows.min(), rows.max() + 1, columns.min(), columns.max() + 1]
        assert table.boxes[number - 1].tolist() == box
        assert table.centroid_px[number - 1] == pytest.approx([columns.mean(), rows.mean()])
    assert ((table.confidence >= 0) & (table.confidence <= 1)).all()


def test_a_block_that_sees_nothing_of_its_own_draws_nothing() -> None:
    labels = ArrayPlane.zeros((60, 60), np.uint32)

    def find(window: Window) -> tuple[np.ndarray, np.ndarray]:
        # One object in the lower right block only, seen by all.
        everything = np.zeros((60, 60), np.int32)
        everything[40:44, 40:44] = 1
        part = everything[window.slices]
        peak = np.flatnonzero(part)[:1]
        return part, np.append(-1, peak) if peak.size else np.array([-1])

    found = stitch(find, labels, block_px=30, halo_px=20)
    assert len(found) == 1
    assert found.area_px.tolist() == [16]
    assert found.boxes.tolist() == [[40, 44, 40, 44]]
    assert found.block.tolist() == [3]


@pytest.mark.parametrize("scale", [Fraction(1, 2), Fraction(11, 16), Fraction(3, 2)])
@pytest.mark.parametrize("shape", [(301, 277), (64, 500)])
def test_a_rescaled_image_does_not_depend_on_its_blocks(
    scale: Fraction, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = ArrayPlane(np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8))
    once = rescaled(image, scale, ArrayPlane.zeros)
    monkeypatch.setattr("granulo_segmenter.domain.maps._RESCALED_PX", 96)
    parts = rescaled(image, scale, ArrayPlane.zeros)
    difference = once.read(whole(once.shape)).astype(int) - parts.read(whole(parts.shape))
    assert np.abs(difference).max() <= 1
    outputs = ArrayPlane(once.read(whole(once.shape)).astype(np.float16))
    maps = Maps({"foreground": outputs}, shape, scale)
    full = maps.read("foreground", whole(shape))
    assert full.shape == shape
    for window in blocks(shape, 100):
        part = maps.read("foreground", window)
        np.testing.assert_allclose(part, full[window.slices], atol=0.26)


def test_maps_of_another_scale_lie_where_the_image_is() -> None:
    image = np.zeros((320, 320), np.uint8)
    cv2.circle(image, (200, 90), 30, 255, -1)
    for scale in (Fraction(1, 2), Fraction(13, 16), Fraction(2)):
        seen = rescaled(ArrayPlane(image), scale, ArrayPlane.zeros)
        plane = ArrayPlane(seen.read(whole(seen.shape)).astype(np.float16))
        back = Maps({"foreground": plane}, image.shape, scale).read(
            "foreground", whole(image.shape)
        )
        rows, columns = np.nonzero(back > 128)
        assert (columns.mean(), rows.mean()) == pytest.approx((200, 90), abs=0.1)


@pytest.mark.parametrize(("height", "width"), [(900, 700), (1024, 768), (1000, 768)])
def test_equalisation_in_bands_is_that_of_the_whole(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = scene(2, height, width, 40).pixels
    convention = InputConvention(clahe_clip_limit=3.0)
    monkeypatch.setattr("granulo_segmenter.domain.prepare._STRIP_PX", 200_000)
    content = ArrayPlane(pixels)
    levels = prepare.grey_levels(content).range(convention)
    found = prepare.network_input(content, levels, convention, ArrayPlane.zeros)
    expected = to_network_input(pixels, convention)
    # OpenCV counts rows in single precision, so that a level may round the other way.
    assert np.abs(found.read(whole(found.shape)).astype(int) - expected).max() <= 1


def test_a_sampled_image_takes_one_scale_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("granulo_segmenter.domain.sampling.SAMPLED_ABOVE_PX", 60_000)
    monkeypatch.setattr("granulo_segmenter.domain.sampling._SAMPLE_PX", 96)
    asked: list[float] = []

    def half(
        at_one: Consistency, consistency_at: Callable[..., Consistency], *_: object
    ) -> Fraction:
        asked.extend([at_one.share, consistency_at(Fraction(1, 2)).share])
        return Fraction(1, 2)

    monkeypatch.setattr("granulo_core.imaging.scale.fitting_scale", half)
    facts = ModelFacts(
        stride=8, tile_px=256, instances=InstanceParams(min_area_px=5),
        scale=ScaleParams(),
    )  # fmt: skip
    image = scene(5, 350, 340, 30)

    def run(block_px: int) -> Segmentation:
        working = Working(block_px=block_px, halo_px=32)
        return segment(image, facts, LocalNetwork(), options=PLAIN, working=working)

    in_one, in_parts = run(2048), run(128)
    assert in_one.maps.scale == in_parts.maps.scale == Fraction(1, 2)
    # Compared in samples that do not depend on the blocks.
    assert asked[:2] == pytest.approx(asked[2:], abs=0.02)
    assert min(asked) > 0.3
    equal, total = equal_objects(in_one.labels, in_parts.labels)
    assert equal >= 0.995 * total > 8
