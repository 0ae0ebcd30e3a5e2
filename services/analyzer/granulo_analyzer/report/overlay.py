# SPDX-License-Identifier: GPL-3.0-or-later
"""The micrograph with its particles coloured, outlined and numbered."""

import colorsys
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import find_objects

from granulo_analyzer.domain.morphology import ParticleTable

MIN_SIDE_PX = 900
"""Smaller images are enlarged to about this, so that numbers fit into particles."""
MAX_SIDE_PX = 2400
_FILL = 0.32
_FILL_ALONE = 0.7
_GREY = (150, 150, 150)
_SMALLEST_NUMBERED_PX = 15.0
_MAX_NUMBERS = 4000


@dataclass(frozen=True)
class _Frame:
    """How the image is shown: pixels become square, small images large."""

    scale_x: float
    scale_y: float
    width: int
    height: int
    thickness: int


def draw_overlay(
    labels: NDArray[np.integer[Any]],
    table: ParticleTable,
    grey: NDArray[Any] | None = None,
    counted: NDArray[np.bool_] | None = None,
) -> Image.Image:
    """Draw the particles of one image.

    Counted particles are coloured and carry the number of their label; those that the statistics
    leave out are grey. A scale bar stands below where the pixel size is known.

    Parameters
    ----------
    labels : (H, W) integer
    table : ParticleTable
        Of these labels.
    grey : (H, W) array, optional
        The micrograph; without it the particles stand on black.
    counted : (n,) bool, optional
        Which of the table's particles enter the statistics; those that touch no edge where it is
        left out.

    Returns
    -------
    PIL.Image.Image
        RGB; its longer side is at least `MIN_SIDE_PX` and at most `MAX_SIDE_PX` long.
    """
    if counted is None:
        counted = ~table.columns["touches_border"]
    frame = _frame_of(labels.shape, table.pixel_size_nm)
    index = _places(_resized(labels, frame), table)
    picture = _backdrop(grey, frame)
    colours = _colours(table, counted)
    tint = colours[index]
    inside = index > 0
    fill = _FILL if grey is not None else _FILL_ALONE
    picture[inside] = ((1 - fill) * picture[inside] + fill * tint[inside]).astype(np.uint8)
    outline = _outline(index, frame.thickness)
    picture[outline] = tint[outline]
    image = Image.fromarray(picture)
    _draw_numbers(image, table, counted, frame, index)
    if table.pixel_size_nm is None:
        return image
    return _with_scale_bar(image, table.pixel_size_nm[0] / frame.scale_x)


def encode_png(image: Image.Image) -> bytes:
    """Compress a picture losslessly; equal pictures give equal bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def encode_preview(png: bytes, max_side_px: int) -> bytes:
    """Make a small JPEG of a picture for the report.

    Parameters
    ----------
    png : bytes
    max_side_px : int
        Longest side of the result.

    Returns
    -------
    bytes
    """
    with Image.open(io.BytesIO(png)) as picture:
        preview = picture.convert("RGB")
    preview.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    preview.save(buffer, "JPEG", quality=86, optimize=True)
    return buffer.getvalue()


def _frame_of(shape: tuple[int, ...], pixel_size_nm: tuple[float, float] | None) -> _Frame:
    height, width = shape
    stretch = pixel_size_nm[0] / pixel_size_nm[1] if pixel_size_nm else 1.0
    longest = max(width * stretch, height)
    scale = min(max(1.0, MIN_SIDE_PX / longest), MAX_SIDE_PX / longest)
    shown = max(1, round(width * stretch * scale)), max(1, round(height * scale))
    return _Frame(
        scale_x=shown[0] / width,
        scale_y=shown[1] / height,
        width=shown[0],
        height=shown[1],
        thickness=1 if scale < 1.5 else 2,
    )


def _places(labels: NDArray[np.integer[Any]], table: ParticleTable) -> NDArray[np.int32]:
    """Row of the table of every pixel, from 1; 0 is background."""
    known = np.concatenate(([0], table.columns["label"]))
    return np.searchsorted(known, labels).astype(np.int32)


def _resized(labels: NDArray[np.integer[Any]], frame: _Frame) -> NDArray[np.integer[Any]]:
    rows = ((np.arange(frame.height) + 0.5) / frame.scale_y).astype(np.int64)
    columns = ((np.arange(frame.width) + 0.5) / frame.scale_x).astype(np.int64)
    rows, columns = rows.clip(0, labels.shape[0] - 1), columns.clip(0, labels.shape[1] - 1)
    shown: NDArray[np.integer[Any]] = labels[np.ix_(rows, columns)]
    return shown


def _backdrop(grey: NDArray[Any] | None, frame: _Frame) -> NDArray[np.uint8]:
    if grey is None:
        return np.zeros((frame.height, frame.width, 3), dtype=np.uint8)
    low, high = np.percentile(grey, (0.2, 99.8))
    span = max(float(high - low), np.finfo(np.float32).tiny)
    levels = (np.clip((grey.astype(np.float32) - low) / span, 0, 1) * 255).astype(np.uint8)
    method = cv2.INTER_AREA if frame.scale_y < 1 else cv2.INTER_CUBIC
    shown = cv2.resize(levels, (frame.width, frame.height), interpolation=method)
    return np.repeat(shown[..., None], 3, axis=2)


def _colours(table: ParticleTable, counted: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(n + 1, 3) colour of every row of the table; neighbouring labels differ most."""
    colours = np.zeros((len(table) + 1, 3), dtype=np.uint8)
    for row, label in enumerate(table.columns["label"].tolist(), start=1):
        # Steps of the golden ratio never repeat a hue and keep successive ones far apart.
        hue = (label * 0.618034) % 1.0
        value = (1.0, 0.86)[label % 2]
        colours[row] = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.78, value)]
    colours[1:][~counted] = _GREY
    return colours


def _outline(index: NDArray[np.int32], thickness: int) -> NDArray[np.bool_]:
    """Pixels of a particle that lie next to something else."""
    outline = np.zeros(index.shape, dtype=np.bool_)
    for step in range(1, thickness + 1):
        across = index[:, step:] != index[:, :-step]
        outline[:, step:] |= across
        outline[:, :-step] |= across
        down = index[step:] != index[:-step]
        outline[step:] |= down
        outline[:-step] |= down
    return outline & (index > 0)


def _draw_numbers(
    image: Image.Image,
    table: ParticleTable,
    counted: NDArray[np.bool_],
    frame: _Frame,
    index: NDArray[np.int32],
) -> None:
    draw = ImageDraw.Draw(image)
    boxes = find_objects(index, max_label=len(table))
    columns = table.columns
    shown_px = columns["sqrt_area_px"] * np.sqrt(frame.scale_x * frame.scale_y)
    large = np.flatnonzero((shown_px >= _SMALLEST_NUMBERED_PX) & counted)
    for row in large[:_MAX_NUMBERS].tolist():
        if boxes[row] is None:
            continue
        text = str(int(columns["label"][row]))
        size = min(max(0.8 * shown_px[row] / max(len(text), 2), 9), 26)
        x = float(columns["centroid_x_px"][row]) * frame.scale_x
        y = float(columns["centroid_y_px"][row]) * frame.scale_y
        if index[min(int(y), frame.height - 1), min(int(x), frame.width - 1)] != row + 1:
            x, y = _thickest_place(index, boxes[row], row + 1)
        draw.text(
            (x, y),
            text,
            font=_font(round(size)),
            anchor="mm",
            fill="white",
            stroke_width=max(1, round(size / 10)),
            stroke_fill=(20, 20, 20),
        )


def _thickest_place(
    index: NDArray[np.int32], box: tuple[slice, slice], number: int
) -> tuple[float, float]:
    """X and y farthest inside of a particle whose centroid is outside, or below another one."""
    mask = np.pad((index[box] == number).astype(np.uint8), 1)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return float(column + box[1].start) + 0.5, float(row + box[0].start) + 0.5


def _with_scale_bar(image: Image.Image, nm_per_shown_px: float) -> Image.Image:
    """Add a strip below with a bar of a round length, about a fifth of the width."""
    wanted_nm = nm_per_shown_px * image.width / 5
    magnitude = 10.0 ** np.floor(np.log10(wanted_nm))
    length_nm = max(step * magnitude for step in (1, 2, 5) if step * magnitude <= wanted_nm)
    text = f"{length_nm / 1000:g} µm" if length_nm >= 1000 else f"{length_nm:g} nm"
    unit = max(image.width, image.height) / 100
    strip = round(4.2 * unit)
    framed = Image.new("RGB", (image.width, image.height + strip), "white")
    framed.paste(image)
    draw = ImageDraw.Draw(framed)
    middle = image.height + strip / 2
    end = length_nm / nm_per_shown_px
    draw.rectangle((0, middle - 0.45 * unit, end, middle + 0.45 * unit), fill=(20, 20, 20))
    draw.text((end + unit, middle), text, font=_font(round(2.4 * unit)), anchor="lm", fill="black")
    return framed


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    # Matplotlib carries this font on every machine; system fonts differ.
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / "DejaVuSans-Bold.ttf"), size_px)
