# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing that microscopes burn into their images: data bars and scale bars."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.look import Look
from granulo_core.imaging.streams import Effect, Streams
from granulo_core.imaging.texture import FloatImage

_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_PLAIN,
)
_LEAST_BAR_PX = 12
_LEAST_LETTER_PX = 6
_ROW_PX = 18
"""A data bar has a row of text for each of these many pixels of height, up to three."""
_ROUND = (5.0, 2.0, 1.0)
_UNITS = (("mm", 1e6), ("um", 1e3), ("nm", 1.0))


@dataclass(frozen=True)
class ScaleBar:
    """A bar whose length is a round number of nanometres."""

    length_nm: float
    length_px: float
    label: str


@dataclass(frozen=True)
class _Box:
    """Part of an image in whole pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class _Pen:
    """How letters look."""

    font: int
    letter_px: int
    thickness: int
    ink: float

    @property
    def scale(self) -> float:
        return float(cv2.getFontScaleFromHeight(self.font, self.letter_px, self.thickness))

    def width_px(self, text: str) -> int:
        return int(cv2.getTextSize(text, self.font, self.scale, self.thickness)[0][0])


class _Canvas:
    """The image, what is written on it, and where that is."""

    def __init__(self, image: FloatImage) -> None:
        self.image = image.copy()
        self.covered = np.zeros(image.shape, dtype=np.bool_)

    def fill(self, box: _Box, level: float) -> None:
        self.image[box.slices] = level
        self.covered[box.slices] = True

    def write(self, text: str, left: int, baseline: int, pen: _Pen) -> None:
        """Text whose letters stand on ``baseline``; what reaches out of the image is cut."""
        top, pad = max(0, baseline - 2 * pen.letter_px), 4
        part = np.s_[top : baseline + pen.letter_px, left : left + pen.width_px(text) + pad]
        mask = np.zeros(self.image[part].shape, dtype=np.uint8)
        place = (0, baseline - top)
        cv2.putText(mask, text, place, pen.font, pen.scale, 255, pen.thickness, cv2.LINE_AA)
        self._blend(part, mask.astype(np.float32) / np.float32(255.0), pen.ink)

    def bar(self, left: float, top: int, length: float, thickness: int, ink: float) -> None:
        """A bar of exactly ``length`` px: its last pixels are covered in part."""
        columns = np.arange(self.image.shape[1])
        share = np.minimum(columns + 1.0, left + length) - np.maximum(columns, left)
        alpha = np.clip(share, 0.0, 1.0).astype(np.float32)[None, :]
        self._blend(np.s_[max(0, top) : top + thickness, :], alpha, ink)

    def _blend(self, part: tuple[slice, slice], alpha: FloatImage, ink: float) -> None:
        self.image[part] += alpha * (np.float32(ink) - self.image[part])
        self.covered[part] |= alpha > 0


def fit_scale_bar(pixel_size_nm: float, room_px: float) -> ScaleBar:
    """The longest bar of 1, 2 or 5 times a power of ten nanometres that fits.

    Parameters
    ----------
    pixel_size_nm : float
    room_px : float
        Longest length in pixels, at least 1; the bar is at least 0.4 times as long.

    Returns
    -------
    ScaleBar
    """
    room_nm = max(room_px, 1.0) * pixel_size_nm
    power = 10.0 ** np.floor(np.log10(room_nm))
    factor = next((number for number in _ROUND if number * power <= room_nm), 1.0)
    length_nm = float(factor * power)
    unit, size_nm = next((item for item in _UNITS if length_nm >= item[1]), _UNITS[-1])
    label = f"{length_nm / size_nm:.6g} {unit}"
    return ScaleBar(length_nm, length_nm / pixel_size_nm, label)


def burn_in(
    image: FloatImage, pixel_size_nm: float, look: Look, streams: Streams
) -> tuple[FloatImage, NDArray[np.bool_]]:
    """Write a look's data bar and scale bar into an image.

    Parameters
    ----------
    image : (H, W) float32 in [0, 1]
    pixel_size_nm : float
    look : Look
    streams : Streams

    Returns
    -------
    image : (H, W) float32 in [0, 1]
    covered : (H, W) bool
        Pixels that no longer show the specimen.
    """
    canvas = _Canvas(image)
    wants_scale = look.scale_bar >= 0.5
    if look.data_bar > 0:
        _data_bar(canvas, pixel_size_nm, look.data_bar, wants_scale, streams)
    elif wants_scale:
        _free_scale_bar(canvas, pixel_size_nm, streams[Effect.SCALE_BAR])
    return canvas.image, canvas.covered


def _data_bar(
    canvas: _Canvas, pixel_size_nm: float, share: float, wants_scale: bool, streams: Streams
) -> None:
    """A bar over the whole width with rows of settings, perhaps a logo and a scale bar."""
    height, width = canvas.image.shape
    tall = min(height, max(_LEAST_BAR_PX, round(share * height)))
    rng = streams[Effect.DATA_BAR]
    ground = 0.0 if rng.random() < 0.7 else 1.0
    bar = _Box(0, height - tall, width, tall)
    canvas.fill(bar, ground)
    rows = int(np.clip(tall // _ROW_PX, 1, 3))
    tallest = min(tall / rows, max(2.0 * _LEAST_BAR_PX, width / 16.0))
    letter = max(_LEAST_LETTER_PX, int(tallest * rng.uniform(0.35, 0.5)))
    thickness = 1 + letter // 18
    pen = _Pen(int(rng.choice(_FONTS)), letter, thickness, 1.0 - ground)
    text = _Box(bar.left + 4, bar.top, bar.width - 8, bar.height)
    if rng.random() < 0.6:
        text = _logo(canvas, text, pen.ink, rng)
    settings = _settings(pixel_size_nm, width, rng)
    if wants_scale:
        wide = round(min(text.width, max(0.28 * width, 60)))
        at_left = streams[Effect.SCALE_BAR].random() < 0.4
        left = text.left if at_left else text.left + text.width - wide
        _scale_in_box(canvas, _Box(left, bar.top, wide, tall), pixel_size_nm, pen)
        text = _Box(text.left + wide * at_left, bar.top, text.width - wide, tall)
    for row in range(rows):
        baseline = bar.top + round(tall * (row + 0.5) / rows + letter / 2)
        left = text.left
        for setting in settings:
            needed = pen.width_px(setting)
            if left + needed > text.left + text.width:
                break
            canvas.write(setting, left, baseline, pen)
            left += needed + 2 * letter


def _settings(pixel_size_nm: float, width: int, rng: np.random.Generator) -> Iterator[str]:
    """Settings as microscopes print them, in any order; sizes are the image's own."""
    view_nm = pixel_size_nm * width
    field = f"{view_nm / 1000:.2f} um" if view_nm >= 1000 else f"{view_nm:.0f} nm"
    known = [
        f"HV {rng.integers(1, 31)}.00 kV",
        # Magnification of a print 127 mm wide.
        f"mag {127e6 / view_nm:.0f} x",
        f"WD {rng.uniform(2, 12):.1f} mm",
        f"det {rng.choice(['TLD', 'ETD', 'InLens', 'SE2', 'LEI'])}",
        f"spot {rng.uniform(2, 5):.1f}",
        f"HFW {field}",
        f"{pixel_size_nm:.3g} nm/px",
        f"tilt {rng.integers(0, 3)}",
    ]
    return (known[number] for number in rng.permutation(len(known)))


def _logo(canvas: _Canvas, room: _Box, ink: float, rng: np.random.Generator) -> _Box:
    """A block at one end of the bar; returns the room that it leaves."""
    side = max(4, room.height - 2 * max(1, room.height // 8))
    wide = min(round(side * rng.uniform(1.0, 2.2)), room.width // 4)
    at_left = rng.random() < 0.3
    left = room.left if at_left else room.left + room.width - wide
    top = room.top + (room.height - side) // 2
    canvas.fill(_Box(left, top, wide, side), ink)
    inner = max(1, side // 6)
    hole = _Box(left + inner, top + inner, max(1, wide // 2 - inner), max(1, side - 2 * inner))
    canvas.fill(hole, 1.0 - ink)
    taken = wide + 6
    return _Box(room.left + taken * at_left, room.top, room.width - taken, room.height)


def _free_scale_bar(canvas: _Canvas, pixel_size_nm: float, rng: np.random.Generator) -> None:
    """A scale bar in a corner, in a box or straight on the micrograph."""
    height, width = canvas.image.shape
    letter = max(_LEAST_LETTER_PX, round(min(height, width) * rng.uniform(0.025, 0.06)))
    pen = _Pen(int(rng.choice(_FONTS)), letter, 1 + letter // 12, 1.0)
    wide = round(width * rng.uniform(0.2, 0.4))
    tall = round(letter * 2.8)
    margin = round(0.03 * min(height, width))
    left = margin if rng.random() < 0.35 else width - margin - wide
    top = margin if rng.random() < 0.25 else height - margin - tall
    boxed = rng.random() < 0.4
    paper = float(rng.integers(0, 2))
    box = _Box(max(0, left), max(0, top), wide, tall)
    if boxed:
        canvas.fill(box, paper)
    else:
        # Whatever can be read on the specimen.
        paper = float(canvas.image[box.slices].mean() > 0.6)
    pen = _Pen(pen.font, pen.letter_px, pen.thickness, 1.0 - paper)
    _scale_in_box(canvas, box, pixel_size_nm, pen)


def _scale_in_box(canvas: _Canvas, box: _Box, pixel_size_nm: float, pen: _Pen) -> None:
    """The bar in the lower half of a box, its label above; side by side where the box is low."""
    stacked = box.height >= 2.4 * pen.letter_px
    thick = max(2, pen.letter_px // 3)
    middle = box.top + box.height // 2
    room = 0.9 * box.width if stacked else 0.4 * box.width
    scale = fit_scale_bar(pixel_size_nm, room)
    needed = pen.width_px(scale.label)
    if stacked:
        text_left = box.left + (box.width - needed) // 2
        bar_left = box.left + (box.width - scale.length_px) / 2
        bar_top, baseline = middle + max(2, pen.letter_px // 2), middle
    else:
        text_left, bar_left = box.left + round(scale.length_px) + 8, box.left + 2.0
        bar_top, baseline = middle - thick // 2, middle + pen.letter_px // 2
    canvas.bar(bar_left, bar_top, scale.length_px, thick, pen.ink)
    canvas.write(scale.label, text_left, baseline, pen)
