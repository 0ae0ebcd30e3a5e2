# SPDX-License-Identifier: GPL-3.0-or-later
"""ImageJ's and scikit-image's definitions: reproduced, and how ours relate to them."""

import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.measure import regionprops_table

from granulo_analyzer.domain.morphology import measure

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import other_tools
import true_shapes as shapes


def mask(rows: str) -> np.ndarray:
    return np.array([[cell == "#" for cell in row] for row in rows.split()])


CORNER = 2 - np.sqrt(2)


@pytest.mark.parametrize(
    ("rows", "perimeter"),
    [
        # The two cases that ImageJ's source works out, and a bar: four corners, none adjacent.
        ("#", 4 - 2 * CORNER),
        ("## ##", 8 - 4 * CORNER),
        ("#### ####", 12 - 4 * CORNER),
        # Twelve corners, in pairs one pixel apart: every second one is cut.
        (".#. ### .#.", 12 - 6 * CORNER),
    ],
)
def test_imagej_s_perimeter_is_the_traced_one_with_cut_corners(rows: str, perimeter: float) -> None:
    assert other_tools.imagej(mask(rows))["perimeter"] == pytest.approx(perimeter)


def test_imagej_measures_feret_diameters_between_corners_of_pixels() -> None:
    found = other_tools.imagej(np.ones((3, 4), bool))
    assert found["max_feret"] == pytest.approx(5.0)
    assert found["min_feret"] == pytest.approx(3.0)
    assert found["solidity"] == pytest.approx(1.0)
    assert found["ellipse_major"] * found["ellipse_minor"] * np.pi / 4 == pytest.approx(12)
    assert found["ellipse_major"] / found["ellipse_minor"] == pytest.approx(4 / 3)


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    return shapes.draw(shapes.star(30), 12, "centre", np.random.default_rng(0)).labels


def test_what_scikit_image_has_follows_from_our_columns(field: np.ndarray) -> None:
    theirs = regionprops_table(
        field,
        properties=(
            "area", "equivalent_diameter_area", "centroid", "axis_major_length",
            "axis_minor_length", "orientation", "extent", "bbox",
        ),
    )  # fmt: skip
    ours = measure(field).columns
    box = ours["feret_x_px"] * ours["feret_y_px"]
    assert ours["area_px"] / box == pytest.approx(theirs["extent"])
    assert ours["feret_x_px"].tolist() == (theirs["bbox-3"] - theirs["bbox-1"]).tolist()
    assert ours["feret_y_px"].tolist() == (theirs["bbox-2"] - theirs["bbox-0"]).tolist()
    assert ours["ecd_px"] == pytest.approx(theirs["equivalent_diameter_area"])
    assert ours["centroid_x_px"] - 0.5 == pytest.approx(theirs["centroid-1"])
    # A pixel of ours is a square, of theirs a point: 1/12 in every second moment.
    assert ours["ellipse_major_px"] ** 2 - 16 / 12 == pytest.approx(
        theirs["axis_major_length"] ** 2
    )
    assert ours["ellipse_minor_px"] ** 2 - 16 / 12 == pytest.approx(
        theirs["axis_minor_length"] ** 2
    )
    # Theirs is measured from the rows' axis.
    turned = ours["orientation_deg"] - (np.degrees(theirs["orientation"]) + 90)
    assert (turned + 90) % 180 - 90 == pytest.approx(np.zeros(12), abs=1e-6)


def test_what_imagej_has_follows_from_our_columns(field: np.ndarray) -> None:
    ours = measure(field).columns
    for row in range(12):
        theirs = other_tools.imagej(field == row + 1)
        assert ours["area_px"][row] == theirs["area"]
        ratio = ours["ellipse_major_px"][row] / ours["ellipse_minor_px"][row]
        assert ratio == pytest.approx(theirs["ellipse_major"] / theirs["ellipse_minor"])
        # Its outline runs around the pixels: a pixel's diagonal further out at most.
        assert 0 < theirs["max_feret"] - ours["max_feret_px"][row] + 1.0 < 1.0 + np.sqrt(2)
