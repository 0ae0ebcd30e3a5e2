# SPDX-License-Identifier: GPL-3.0-or-later
"""Sheets of frames and of comparisons are readable pictures of what they were given."""

import cv2
import numpy as np
import pytest

from granulo_render.domain.realism import compare
from granulo_render.sheets import Frame, _distinct_colours, comparison_sheet, contact_sheet


def disc(x: float, y: float, radius: float, size: int = 128) -> np.ndarray:
    rows, columns = np.indices((size, size))
    return np.hypot(columns - x, rows - y) <= radius


def frame(caption: str = "scene 0", **kwargs) -> Frame:
    labels = np.zeros((128, 128), dtype=np.uint16)
    labels[disc(50, 64, 24)] = 1
    labels[disc(80, 64, 24)] = 2
    image = np.where(labels > 0, 150, 60).astype(np.uint8)
    return Frame(image, labels, caption, **kwargs)


def decode(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def coloured(picture: np.ndarray) -> np.ndarray:
    return np.ptp(picture.astype(int), axis=2) > 60


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_contact_sheet_is_at_most_2400_px_wide_and_grows_downwards(count) -> None:
    sheet = decode(contact_sheet([frame(f"scene {i}") for i in range(count)], "sio2"))
    assert sheet.shape[1] == 2400
    rows = 1 if count <= 2 else 2
    assert 1000 * rows < sheet.shape[0] + 500 * (count > 1) * rows < 2000 * rows


def test_only_the_right_picture_of_a_pair_is_marked_and_only_near_outlines() -> None:
    sheet = decode(contact_sheet([frame()], "sio2"))
    marks = coloured(sheet)
    assert not marks[:, :1200].any()
    assert marks[:, 1200:].any()
    scale = 1154 / 128
    rows, columns = np.nonzero(marks)
    # Upper left corner of the right picture: right of the left picture and the gap.
    x = (columns - (40 + 1154 + 12)) / scale
    y = (rows - rows.min()) / scale + 40
    off = [np.abs(np.hypot(x - centre, y - 64) - 24) for centre in (50, 80)]
    assert np.minimum(*off).max() < 2


def test_touching_particles_have_different_colours() -> None:
    labels = np.kron(np.arange(1, 26, dtype=np.uint16).reshape(5, 5), np.ones((20, 20), np.uint16))
    colours = _distinct_colours(labels)
    for one, other in ((1, 2), (1, 6), (13, 12), (13, 18), (13, 8), (24, 25)):
        assert tuple(colours[one]) != tuple(colours[other])


def test_hidden_parts_are_drawn_where_the_amodal_mask_goes_on() -> None:
    plain = coloured(decode(contact_sheet([frame()], "sio2")))
    amodal = coloured(decode(contact_sheet([frame(amodal={1: disc(50, 64, 24)})], "sio2")))
    assert (amodal & ~plain).sum() > 100
    assert not (plain & ~amodal).any()


def test_scale_bar_is_as_long_as_it_says() -> None:
    # 128 px of 10 nm: a quarter is 320 nm, so the bar is 200 nm, 20 px of the frame.
    sheet = decode(contact_sheet([frame(pixel_size_nm=10.0)], "sio2"))
    without = decode(contact_sheet([frame()], "sio2"))
    changed = (sheet != without).any(axis=2)
    rows, columns = np.nonzero(changed)
    box = sheet[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    longest = max(int((line.min(axis=1) == 255).sum()) for line in box)
    assert longest == pytest.approx(20 * 1154 / 128, abs=2)


def test_captions_that_are_too_long_are_cut() -> None:
    sheet = decode(contact_sheet([frame("very long " * 100)], "title " * 200))
    assert (sheet[:, -40:] == 255).all()


def test_frames_of_different_sizes_and_empty_frames_share_a_sheet() -> None:
    empty = Frame(np.full((60, 200), 90, np.uint8), np.zeros((60, 200), np.uint16), "empty")
    assert decode(contact_sheet([frame(), empty], "mixed")).shape[1] == 2400


def test_labels_of_another_size_and_no_frames_are_refused() -> None:
    wrong = Frame(np.zeros((8, 8), np.uint8), np.zeros((9, 8), np.uint16), "scene 7")
    with pytest.raises(ValueError, match="scene 7"):
        contact_sheet([wrong], "sio2")
    with pytest.raises(ValueError, match="at least one frame"):
        contact_sheet([], "sio2")


def test_comparison_sheet_shows_both_sets() -> None:
    rng = np.random.default_rng(0)
    references = [rng.uniform(0.2, 0.5, (80, 96))]
    rendered = [rng.uniform(0.3, 0.9, (96, 80)) for _ in range(3)]
    comparison = compare(references, rendered)
    sheet = decode(comparison_sheet(comparison, references, rendered))
    assert sheet.shape[1] == 2400
    blue, vermilion = (np.array(colour) for colour in ((178, 114, 0), (0, 94, 213)))
    assert (np.abs(sheet.astype(int) - blue).max(axis=2) < 4).sum() > 1000
    assert (np.abs(sheet.astype(int) - vermilion).max(axis=2) < 4).sum() > 1000
