# SPDX-License-Identifier: GPL-3.0-or-later
"""What a particle's neighbours, its frame, its micrograph and its hidden parts tell of it."""

import numpy as np
import pytest

from granulo_analyzer.domain.morphology import column_names, measure
from granulo_analyzer.domain.morphology.columns import COLUMNS


def discs(*places: tuple[float, float, float], shape: tuple[int, int] = (90, 140)) -> np.ndarray:
    """Discs (x, y, radius) with the labels 1, 2, …; later ones lie on top."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    labels = np.zeros(shape, np.int32)
    for label, (x0, y0, radius) in enumerate(places, start=1):
        labels[np.hypot(x - x0, y - y0) < radius] = label
    return labels


@pytest.mark.parametrize(("gap_px", "groups"), [(0, 4), (1, 3), (2, 2), (3, 1)])
def test_particles_belong_together_up_to_a_gap(gap_px: float, groups: int) -> None:
    labels = np.zeros((20, 60), np.int32)
    for label, column in enumerate((2, 10, 19, 29, 40), start=1):
        labels[5:15, column : column + 8] = label
    found = measure(labels, gap_px=gap_px, only=["agglomerate", "constituents"]).columns
    assert len(set(found["agglomerate"].tolist())) == groups
    assert found["agglomerate"][0] == 1
    assert found["agglomerate"][1] == 1, "the first two share an edge"
    assert found["constituents"][0] == 6 - groups
    assert found["constituents"][-1] == (1 if groups > 1 else 5)


def test_pixels_that_meet_in_a_corner_touch() -> None:
    labels = np.zeros((10, 10), np.int32)
    labels[2:5, 2:5], labels[5:8, 5:8] = 1, 2
    assert measure(labels, gap_px=0).columns["constituents"].tolist() == [2, 2]


def test_touched_edges_tell_which() -> None:
    labels = np.zeros((20, 30), np.uint16)
    labels[0:3, 0:8], labels[17:20, 5:8], labels[8:11, 27:30], labels[9:12, 10:13] = 1, 2, 3, 4
    labels[5, :] = 5
    found = measure(labels).columns
    assert found["touched_edges"].tolist() == [1 | 4, 8, 2, 0, 1 | 2]
    assert found["touches_border"].tolist() == [True, True, True, False, True]


def test_a_ragged_agglomerate_has_a_lower_dimension_than_a_full_one() -> None:
    chain = discs(*((9 + 8 * i, 40 + 4 * (i % 2), 5.0) for i in range(15)))
    full = discs((70, 45, 40.0))
    ragged = measure(chain, only=["fractal_dimension"]).columns["fractal_dimension"]
    assert len(set(ragged.tolist())) == 1, "one for the whole"
    assert ragged[0] < measure(full).columns["fractal_dimension"][0] - 0.2
    line = np.zeros((10, 300), np.uint8)
    line[5, 20:276] = 1
    assert measure(line).columns["fractal_dimension"][0] == pytest.approx(1.0, abs=0.1)


def test_edge_sharpness_is_the_reciprocal_of_the_edges_width() -> None:
    labels = discs((60.3, 45.2, 30.0))
    y, x = np.mgrid[:90, :140] + 0.5
    outwards = np.hypot(x - 60.3, y - 45.2) - 30
    sharpness = []
    for width_px in (0.0, 2.0, 4.0):
        rise = np.clip(outwards / max(width_px, 1e-9) + 0.5, 0, 1)
        grey = (200 - 120 * rise).astype(np.uint8)
        columns = measure(labels, grey=grey, pixel_size_nm=(5.0, 5.0)).columns
        sharpness.append(columns["edge_sharpness_per_px"][0])
        assert columns["edge_sharpness_per_nm"][0] == pytest.approx(sharpness[-1] / 5)
    assert 0.75 < sharpness[0] <= 1
    assert sharpness[1:] == pytest.approx([1 / 2, 1 / 4], rel=0.25)


def test_hidden_parts_are_measured_where_they_are_known() -> None:
    whole = np.stack((discs((50, 45, 20.0)), 2 * discs((75, 45, 20.0))))
    visible = np.where(whole[1] > 0, whole[1], whole[0])
    table = measure(visible, amodal=whole, pixel_size_nm=(2.0, 2.0))
    assert tuple(table.columns) == column_names(
        has_pixel_size=True, has_grey=False, has_amodal=True
    )
    found = table.columns
    assert found["amodal_ecd_px"] == pytest.approx(40, rel=0.01)
    assert found["amodal_ecd_nm"] == pytest.approx(80, rel=0.01)
    assert found["ecd_px"][0] < 38
    assert found["visible_fraction"][0] == pytest.approx((visible == 1).sum() / (whole == 1).sum())
    assert found["visible_fraction"][1] == 1
    given = measure(visible, amodal=whole, visible_fraction={1: 0.5}).columns["visible_fraction"]
    assert given[0] == 0.5, "what is given goes first"
    assert np.isnan(given[1])


def test_what_comes_with_the_labels_is_looked_up_by_label() -> None:
    labels = 10 * discs((30, 40, 9.0), (80, 40, 9.0))
    found = measure(labels, confidence={20: 0.75, 99: 0.1}, visible_fraction={10: 1.0}).columns
    assert np.isnan(found["confidence"][0])
    assert found["confidence"][1] == 0.75
    assert found["visible_fraction"][0] == 1.0
    assert "confidence" not in measure(labels).columns


def test_only_what_is_asked_for_is_measured_and_it_is_the_same() -> None:
    labels = discs((30, 40, 9.0), (47, 40, 9.0))
    every, some = measure(labels).columns, measure(labels, only=["max_feret", "ecd"]).columns
    assert tuple(some) == ("label", "ecd_px", "max_feret_px")
    assert all(values.tolist() == every[name].tolist() for name, values in some.items())


WHOLE = np.zeros((1, 90, 140), np.int32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amodal": WHOLE[0]}, "shape"),
        ({"amodal": WHOLE[:, :50]}, "shape"),
        ({"amodal": WHOLE - 1}, "whole numbers from 0"),
        ({"amodal": WHOLE.astype(float)}, "whole numbers from 0"),
        ({"amodal": WHOLE}, "label 1 has no whole particle"),
        ({"amodal": np.ones((2, 90, 140), int)}, "label 1 is on two"),
        ({"gap_px": -1.0}, "gap"),
        ({"gap_px": float("nan")}, "gap"),
        ({"only": ["diameter"]}, "no quantity 'diameter'"),
    ],
)
def test_what_does_not_fit_the_labels_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(discs((30, 40, 9.0)), **options)  # type: ignore[arg-type]


def test_every_type_is_that_of_the_registry_also_without_rows() -> None:
    labels = discs((30, 40, 9.0))
    for image in (labels, np.zeros_like(labels)):
        options = {"grey": labels, "confidence": {1: 1.0}, "amodal": image[None]}
        table = measure(image, pixel_size_nm=(1.0, 2.0), **options)  # type: ignore[arg-type]
        assert tuple(table.columns) == tuple(COLUMNS)
        for name, values in table.columns.items():
            assert values.dtype == COLUMNS[name].dtype, name


@pytest.mark.parametrize("side", [40, pytest.param(317, marks=pytest.mark.long)])
def test_a_hundred_thousand_particles_are_measured_as_one_is(side: int) -> None:
    tile = np.zeros((8, 8), np.int32)
    tile[1:7, 2:6] = 1
    tile[1, 2] = 0
    number = np.arange(1, side**2 + 1).reshape(side, side)
    labels = np.kron(number, np.ones((8, 8), np.int64)) * np.tile(tile, (side, side))
    found = measure(labels).columns
    assert len(found["label"]) == side**2
    alone = measure(np.pad(tile, 8)).columns
    for name in (
        "area_px",
        "max_feret_px",
        "min_feret_px",
        "inscribed_diameter_px",
        "perimeter_px",
    ):
        assert found[name] == pytest.approx(np.full(side**2, alone[name][0])), name
