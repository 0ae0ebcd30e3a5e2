# SPDX-License-Identifier: GPL-3.0-or-later
"""Dark particles on bright ground are known as such; a confidence is one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import cv2
import numpy as np
import pytest

from granulo_core.imaging.confidence import (
    CALIBRATIONS,
    Calibration,
    expected_calibration_error,
)
from granulo_core.imaging.instances import InstanceParams
from granulo_core.imaging.read import Micrograph
from granulo_core.imaging.traits import TRAITS, measure, with_relative_area
from granulo_segmenter.domain.model import ModelFacts
from granulo_segmenter.domain.options import Invert, Options
from granulo_segmenter.domain.polarity import Belief, is_inverted, together
from granulo_segmenter.domain.segmentation import segment

FACTS = ModelFacts(stride=8, tile_px=512, instances=InstanceParams(min_area_px=5))


class RoundNetwork:
    """Sure of bright round things of 9 px radius; what is larger and bright leaves it in doubt."""

    calls = 0

    def __call__(
        self, tiles: Iterable[np.ndarray], names: Sequence[str]
    ) -> Iterator[Mapping[str, np.ndarray]]:
        for tile in tiles:
            self.calls += 1
            mask = (tile > 128).astype(np.uint8)
            depth = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
            large = cv2.dilate((depth > 14).astype(np.uint8), np.ones((61, 61), np.uint8)) > 0
            foreground = np.where(mask > 0, np.where(large, 0.6, 0.99), 0.01)
            distance = np.where(large, 0.3, np.clip(depth / 9, 0, 1)) * mask
            outputs = {"foreground": foreground, "distance": distance}
            yield {name: outputs[name].astype(np.float16) for name in names}


def discs(*, dark: bool) -> Micrograph:
    image = np.full((240, 260), 60, np.uint8)
    for row in range(30, 230, 40):
        for column in range(30, 250, 40):
            cv2.circle(image, (column, row), 9, 190, -1)
    return Micrograph(255 - image if dark else image, None, 240, "test")


@pytest.mark.parametrize("dark", [False, True])
def test_the_polarity_is_found_and_the_particles_with_it(dark: bool) -> None:
    found = segment(discs(dark=dark), FACTS, RoundNetwork())
    assert found.inverted is dark
    assert found.particle_count == 30


def test_a_clear_image_costs_no_second_look() -> None:
    auto, told = RoundNetwork(), RoundNetwork()
    segment(discs(dark=False), FACTS, auto)
    segment(discs(dark=False), FACTS, told, options=Options(invert=Invert.NO))
    assert auto.calls == told.calls


@pytest.mark.parametrize("dark", [False, True])
def test_what_the_user_says_goes_before(dark: bool) -> None:
    for invert in (Invert.NO, Invert.YES):
        found = segment(discs(dark=dark), FACTS, RoundNetwork(), options=Options(invert=invert))
        assert found.inverted is (invert is Invert.YES)


def test_an_empty_image_is_not_inverted() -> None:
    flat = Micrograph(np.full((64, 64), 7, np.uint8), None, 64, "test")
    found = segment(flat, FACTS, RoundNetwork())
    assert (found.inverted, found.particle_count) == (False, 0)


def test_beliefs_add_up_by_area() -> None:
    both = together([Belief(90.0, 100), Belief(0.0, 100)])
    assert both.share == 0.45
    assert together([]).share == 0.0


def test_only_what_is_believed_itself_is_evidence_against_an_image() -> None:
    assert is_inverted(Belief(10, 100), Belief(90, 100))
    assert not is_inverted(Belief(10, 100), Belief(50, 100))
    assert not is_inverted(Belief(80, 100), Belief(75, 100))
    assert not is_inverted(Belief(0, 0), Belief(0, 0))


def test_traits_are_those_of_the_shapes() -> None:
    labels = np.zeros((60, 60), np.int32)
    labels[10:20, 10:30] = 1
    labels[20:30, 10:30] = 2
    labels[40:50, 40:50] = 3
    labels[43:50, 43:50] = 0
    foreground = np.where(labels > 0, 0.8, 0.1).astype(np.float32)
    distance = np.where(labels == 1, 0.5, 0.0).astype(np.float32)
    found = measure(labels, foreground, distance)
    column = {name: found[:, index] for index, name in enumerate(TRAITS[:-1])}
    assert column["foreground_mean"] == pytest.approx([0.8] * 3)
    assert column["distance_peak"] == pytest.approx([0.5, 0, 0])
    assert column["solidity"][:2] == pytest.approx([1, 1], abs=0.06)
    assert column["solidity"][2] < 0.8
    assert column["free_rim"][2] == 1
    # 20 of the 56 pixels of a rim touch the other one.
    assert column["free_rim"][0] == pytest.approx(1 - 20 / 56)
    assert column["log_area"] == pytest.approx(np.log([200, 200, 51]))
    assert with_relative_area(found)[:, -1] == pytest.approx([0, 0, np.log(200 / 51)])
    np.testing.assert_array_equal(measure(labels, foreground, distance, 2), found[:2])


def test_confidence_is_a_monotone_probability_and_stays_so_far_from_what_was_seen() -> None:
    calibration = Calibration((1.0, 5.0), (0.5, 2.0), (2.0, -1.0), 0.3)
    values = np.linspace(-1e6, 1e6, 101)
    rising = calibration.probability(np.column_stack([values, np.full(101, 5.0)]))
    assert (np.diff(rising) >= 0).all()
    assert 0 < rising[0] < rising[-1] < 1
    for known in CALIBRATIONS.values():
        assert len(known.centre) == len(known.spread) == len(known.weight) == len(TRAITS)


def test_the_calibration_error_is_that_of_its_definition() -> None:
    probability = np.array([0.95] * 10 + [0.15] * 10)
    perfect = np.array([True] * 19 + [False])
    assert expected_calibration_error(probability[:10], perfect[:10]) == pytest.approx(0.05)
    wrong = expected_calibration_error(probability, np.array([False] * 10 + [True] * 10))
    assert wrong == pytest.approx((0.95 + 0.85) / 2)
    assert expected_calibration_error(np.zeros(0), np.zeros(0, bool)) == 0.0
