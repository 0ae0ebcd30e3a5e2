# SPDX-License-Identifier: GPL-3.0-or-later
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import watershed

from granulo_core.imaging.instances import (
    InstanceParams,
    decode,
    divide,
    peak_pixels,
    remove_faint,
    remove_scraps,
)


def discs(centres: list[tuple[int, int]], radius: int, side: int = 120) -> np.ndarray:
    """Labels of discs; of overlapping ones the later lies on top."""
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    for number, (row, column) in enumerate(centres, start=1):
        labels[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = number
    return labels


def ideal_outputs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a perfect network gives."""
    distance = np.zeros(labels.shape)
    for number in range(1, labels.max() + 1):
        own = ndimage.distance_transform_edt(labels == number)
        distance += own / max(own.max(), 1)
    return (labels > 0).astype(np.float16), distance.astype(np.float16)


def test_overlapping_discs_are_separated() -> None:
    truth = discs([(40, 40), (40, 62), (60, 50)], 16)
    found = decode(*ideal_outputs(truth))
    assert found.max() == 3
    for number in (1, 2, 3):
        own = truth == number
        best = max(
            (own & (found == other)).sum() / (own | (found == other)).sum() for other in (1, 2, 3)
        )
        assert best > 0.9


def test_one_particle_with_a_rough_surface_stays_one() -> None:
    truth = discs([(60, 60)], 40)
    foreground, distance = ideal_outputs(truth)
    ripples = 0.04 * np.sin(np.arange(120) / 3.0)[None, :]
    assert decode(foreground, distance + ripples).max() == 1


def test_depth_decides_whether_two_maxima_are_two_particles() -> None:
    foreground = np.ones((30, 90), np.float32)
    across = np.interp(np.arange(90), [0, 25, 45, 65, 89], [0, 1.0, 0.7, 1.0, 0])
    distance = np.tile(across, (30, 1)) * np.hanning(30)[:, None]
    params = {"smoothing_sigma_px": 0.0}
    assert decode(foreground, distance, InstanceParams(marker_depth=0.2, **params)).max() == 2
    assert decode(foreground, distance, InstanceParams(marker_depth=0.4, **params)).max() == 1


def test_labels_are_numbered_without_gaps_inside_the_foreground() -> None:
    truth = discs([(20, 20), (60, 60), (95, 30)], 12)
    foreground, distance = ideal_outputs(truth)
    found = decode(foreground, distance)
    assert set(np.unique(found)) == {0, 1, 2, 3}
    assert not found[foreground == 0].any()
    assert found.dtype == np.int32


def test_nothing_gives_nothing() -> None:
    empty = np.zeros((50, 60), np.float16)
    assert not decode(empty, empty).any()


def test_scraps_are_dropped_and_numbers_closed() -> None:
    labels = np.zeros((60, 60), np.int32)
    labels[:20, :20], labels[30:32, 30:32], labels[40:, 40:] = 1, 2, 3
    kept = remove_scraps(labels, min_area_px=10)
    assert set(np.unique(kept)) == {0, 1, 2}
    assert kept[50, 50] == 2
    assert not kept[30:32, 30:32].any()
    relative = remove_scraps(labels, min_area_px=0, min_area_fraction=0.5)
    assert relative.max() == 2


def test_maps_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        decode(np.zeros((5, 5)), np.zeros((5, 6)))


def test_impossible_thresholds_are_refused() -> None:
    with pytest.raises(ValueError, match="marker_depth"):
        InstanceParams(marker_depth=0.0)
    with pytest.raises(ValueError, match="newer version"):
        InstanceParams.from_json({"colour": 1})


def test_faint_isolated_loops_are_dropped_and_dark_neighbours_kept() -> None:
    labels = discs([(25, 25), (25, 95), (95, 25), (95, 60)], 12)
    labels[(np.add.outer((np.arange(120) - 95) ** 2, (np.arange(120) - 95) ** 2)) < 64] = 5
    labels[86:104, 66:78] = 6  # touches disc 4
    image = np.full((120, 120), 20, np.uint8)
    for number, level in enumerate((150, 160, 140, 150, 28, 24), start=1):
        image[labels == number] = level
    kept = remove_faint(labels, image, 0.25)
    assert not kept[95, 95]
    assert kept[95, 74]
    assert set(np.unique(kept)) == {0, 1, 2, 3, 4, 5}


def test_an_image_of_faint_particles_keeps_them_all() -> None:
    labels = discs([(25, 25), (25, 95), (95, 25), (95, 95)], 12)
    image = np.where(labels > 0, 28, 20).astype(np.uint8)
    assert np.array_equal(remove_faint(labels, image, 0.25), labels)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), density=st.floats(0.3, 0.8))
def test_flooding_only_crowded_components_is_the_watershed_of_all(
    seed: int, density: float
) -> None:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(60, 70)), 3)
    mask = (smooth > np.quantile(smooth, 1 - density)).astype(np.uint8)
    # No two are equal: how ties are broken is the queue's affair.
    heights = rng.permutation(mask.size).reshape(mask.shape).astype(np.int32)
    markers, _ = ndimage.label((heights > 0.96 * mask.size) & (mask > 0))
    markers = markers.astype(np.int32)
    whole = watershed(-heights, markers, mask=mask > 0)
    np.testing.assert_array_equal(divide(mask, heights, markers), whole)


def test_a_peak_is_the_first_of_the_highest_pixels_of_its_marker() -> None:
    markers = np.array([[0, 3, 3, 0], [1, 1, 0, 3]], np.int32)
    heights = np.array([[9, 5, 7, 9], [2, 2, 9, 7]], np.uint8)
    np.testing.assert_array_equal(peak_pixels(markers, heights), [-1, 4, -1, 2])
