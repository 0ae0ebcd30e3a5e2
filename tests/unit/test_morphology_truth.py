# SPDX-License-Identifier: GPL-3.0-or-later
"""Descriptors against shapes of known size at random places and angles; docs/metrics.md has all."""

import sys
from pathlib import Path

import numpy as np
import pytest

from granulo_analyzer.domain.morphology import measure
from granulo_analyzer.domain.morphology.columns import QUANTITIES

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import other_tools
import true_shapes as shapes

KINDS = {
    "disc": lambda ecd: shapes.ellipse(ecd, 1),
    "ellipse": lambda ecd: shapes.ellipse(ecd, 2),
    "square": lambda ecd: shapes.rectangle(ecd, 1),
    "rectangle": lambda ecd: shapes.rectangle(ecd, 2),
    "stadium": lambda ecd: shapes.stadium(ecd, 3),
    "star": lambda ecd: shapes.star(ecd),
}
COPIES = {20: 150, 60: 40}


def errors(kind: str, name: str, size_px: int, *, of: str = "ecd") -> np.ndarray:
    """Relative errors of copies of which the quantity ``of`` is ``size_px``."""
    make = KINDS[kind]
    shape = make(size_px / make(1.0).true[of])
    field = shapes.draw(shape, COPIES[size_px], "centre", np.random.default_rng(size_px))
    columns = measure(field.labels, only=[name]).columns
    values = columns[f"{name}_px"] if f"{name}_px" in columns else columns[name]
    return values / shape.true[name] - 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_equivalent_diameter_is_right_within_half_a_percent_at_20_px(kind: str) -> None:
    assert abs(errors(kind, "ecd", 20).mean()) < 0.005


@pytest.mark.parametrize("rule", ["centre", "coverage"])
@pytest.mark.parametrize("size_px", [20, 40, 60])
def test_a_disc_is_circular_within_two_percent_from_20_px_up(size_px: int, rule: str) -> None:
    disc = shapes.ellipse(size_px, 1)
    field = shapes.draw(disc, 40, rule, np.random.default_rng(1))
    circularity = measure(field.labels, only=["circularity"]).columns["circularity"]
    assert circularity.mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("size_px", [20, 60])
@pytest.mark.parametrize("name", ["max_feret", "min_feret"])
@pytest.mark.parametrize("kind", KINDS)
def test_feret_diameters_are_right_within_two_and_one_percent(
    kind: str, name: str, size_px: int
) -> None:
    allowed = {20: 0.02, 60: 0.01}[size_px]
    if (kind, name) == ("star", "min_feret"):
        allowed *= 3.5  # A tip thinner than a pixel is not seen.
    if (kind, name, size_px) == ("rectangle", "min_feret", 20):
        allowed = 0.025
    assert abs(errors(kind, name, size_px, of=name).mean()) < allowed


def test_a_plain_contour_of_a_disc_is_too_long() -> None:
    plain = other_tools.scikit_image
    disc = shapes.ellipse(20, 1)
    field = shapes.draw(disc, 40, "centre", np.random.default_rng(2))
    theirs = np.array([plain(field.labels == i + 1)["max_feret"] for i in range(40)])
    ours = measure(field.labels, only=["max_feret"]).columns["max_feret_px"]
    assert theirs.mean() / 20 - 1 > 0.05
    assert ours.mean() / 20 - 1 < 0.01


# At a right angle to a chord that is a few degrees off, an oblong particle is wider than it is.
TILTED = {"feret_90"}


@pytest.mark.parametrize("kind", ["disc", "ellipse", "square", "stadium"])
def test_every_descriptor_is_right_within_two_percent_at_60_px(kind: str) -> None:
    shape = KINDS[kind](60)
    field = shapes.draw(shape, 40, "centre", np.random.default_rng(3))
    columns = measure(field.labels).columns
    checked = 0
    for item in QUANTITIES:
        if item.name not in shape.true or item.name in TILTED | {"fractal_dimension"}:
            continue
        mean = columns[item.px_column].mean() / shape.true[item.name]
        assert mean == pytest.approx(1.0, abs=0.02), item.name
        checked += 1
    assert checked == 24


@pytest.mark.parametrize("kind", ["ellipse", "rectangle", "stadium"])
def test_place_and_direction_are_unbiased(kind: str) -> None:
    field = shapes.draw(KINDS[kind](20), 150, "centre", np.random.default_rng(4))
    columns = measure(field.labels, only=["orientation", "centroid_x", "centroid_y"]).columns
    place = np.stack((columns["centroid_x_px"], columns["centroid_y_px"]), axis=1)
    assert np.abs((place - field.centre).mean(axis=0)).max() < 0.02
    assert np.abs(place - field.centre).max() < 0.5
    turned = (columns["orientation_deg"] - field.angle_deg + 90) % 180 - 90
    assert abs(turned.mean()) < 0.2
    assert np.abs(turned).max() < 3


@pytest.mark.parametrize(("width_px", "bow_px"), [(4.0, 60.0), (9.0, 60.0), (9.0, 30.0)])
def test_a_bent_fibre_has_the_length_along_it_and_the_width_across(
    width_px: float, bow_px: float
) -> None:
    y, x = np.mgrid[:170, :170] + 0.5 - 85.2
    around, angle = np.hypot(x, y), np.arctan2(y, x)
    ends = np.array([[bow_px, 0.0], [0.0, -bow_px]])
    caps = [np.hypot(x - end[0], y - end[1]) < width_px / 2 for end in ends]
    band = (np.abs(around - bow_px) < width_px / 2) & ~((angle < 0) & (angle > -np.pi / 2))
    columns = measure((band | caps[0] | caps[1]).astype(np.uint8)).columns
    length = 1.5 * np.pi * bow_px + width_px
    assert columns["geodesic_length_px"][0] == pytest.approx(length, rel=0.02)
    assert columns["fibre_width_px"][0] == pytest.approx(width_px, rel=0.04)
    assert columns["elongation"][0] == pytest.approx(width_px / length, rel=0.05)
    assert columns["max_feret_px"][0] < 0.6 * length


def test_oblong_pixels_change_nothing_that_is_measured_in_nm() -> None:
    # A disc of 90 nm on pixels of 3 nm x 1.5 nm.
    y, x = np.mgrid[:80, :50] + 0.5
    labels = (np.hypot(3 * (x - 25.2), 1.5 * (y - 40.4)) < 45).astype(np.uint8)
    grey = np.where(labels, 200, 50)
    columns = measure(labels, pixel_size_nm=(3.0, 1.5), grey=grey).columns
    for name in (
        "ecd", "max_feret", "min_feret", "feret_90", "rectangle_width", "inscribed_diameter",
        "circumscribed_diameter", "ellipse_major", "ellipse_minor", "geodesic_length",
        "fibre_width",
    ):  # fmt: skip
        assert columns[f"{name}_nm"][0] == pytest.approx(90, rel=0.04), name
    assert columns["perimeter_nm"][0] == pytest.approx(np.pi * 90, rel=0.02)
    assert columns["polygon_perimeter_nm"][0] == pytest.approx(np.pi * 90, rel=0.02)
    assert columns["inscribed_diameter_px"][0] == pytest.approx(30, rel=0.03)
    assert (columns["feret_x_nm"][0], columns["feret_y_nm"][0]) == pytest.approx((90, 90), abs=3)
    assert columns["circularity"][0] == pytest.approx(1.0, abs=0.02)
    assert 0.25 < columns["edge_sharpness_per_nm"][0] < 0.55, "within about a pixel of 2.1 nm"
