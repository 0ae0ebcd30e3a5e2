# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures for people: contact sheets of frames and their labels, sheets of comparisons."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter1d

from granulo_render.domain.realism import Comparison, Curve

_WIDTH_PX = 2400
_MARGIN_PX = 40
_GAP_PX = 12
_BAR_SHARE = 0.25  # longest scale bar, of the frame's width
_INK = (25, 25, 25)
_GREY = (95, 95, 95)
# Light and saturated: they must stand out from every grey.
_COLOURS = ((255, 176, 0), (60, 200, 255), (255, 70, 70), (70, 230, 120), (240, 110, 255),
            (250, 240, 60), (110, 140, 255))  # fmt: skip
# Okabe and Ito's blue and vermilion, which people with any colour vision tell apart.
_REFERENCE = "#0072B2"
_RENDERED = "#D55E00"
_SETS = ("references", "rendered")
_SMOOTHING = 2.0  # of grey-level densities, standard deviation in levels
_MOST_PAIRS = 4
_HEAD_IN, _PAIR_IN, _PLOT_IN = 1.75, 4.15, 5.4  # heights in the sheet of comparisons


@dataclass(frozen=True, eq=False)
class Frame:
    """One cell of a contact sheet."""

    image: NDArray[np.uint8]
    """(H, W)."""
    labels: NDArray[np.uint16]
    """(H, W) instance ids, 0 is background."""
    caption: str
    pixel_size_nm: float | None = None
    """For the scale bar; none draws no bar."""
    amodal: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    """(H, W) masks by instance id, hidden parts included; drawn of the particles in `labels`."""


def contact_sheet(frames: Sequence[Frame], title: str) -> bytes:
    """Draw frames beside themselves with their labels' outlines.

    Outlines of what can be seen are solid; those of hidden parts are dashed in the same colour.

    Parameters
    ----------
    frames : sequence of Frame
        One or more, of any size.
    title : str

    Returns
    -------
    bytes
        PNG, RGB, at most 2400 px wide.

    Raises
    ------
    ValueError
        When there is no frame, or an image and its labels differ in size.
    """
    if not frames:
        raise ValueError("a contact sheet needs at least one frame")
    for frame in frames:
        if frame.image.shape != frame.labels.shape:
            raise ValueError(
                f"image and labels of the frame {frame.caption!r} differ in size: "
                f"{frame.image.shape} and {frame.labels.shape}"
            )
    pairs_per_row = 1 if len(frames) == 1 else 2
    cell = (_WIDTH_PX - 2 * _MARGIN_PX - (pairs_per_row - 1) * 2 * _GAP_PX) // pairs_per_row
    side = (cell - _GAP_PX) // 2
    cells = [_pair(frame, side) for frame in frames]
    rows = [cells[i : i + pairs_per_row] for i in range(0, len(cells), pairs_per_row)]
    heights = [max(picture.height for picture in row) for row in rows]
    top = _MARGIN_PX + 70
    sheet = Image.new(
        "RGB", (_WIDTH_PX, top + sum(heights) + 2 * _GAP_PX * len(rows) + _MARGIN_PX), "white"
    )
    pen = ImageDraw.Draw(sheet)
    _write(pen, (_MARGIN_PX, _MARGIN_PX - 8), title, 40, _INK, _WIDTH_PX - 2 * _MARGIN_PX)
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            sheet.paste(picture, (_MARGIN_PX + column * (cell + 2 * _GAP_PX), top))
        top += height + 2 * _GAP_PX
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _pair(frame: Frame, width_px: int) -> Image.Image:
    """A frame, its outlines beside it, and its caption below."""
    height, width = frame.image.shape
    size = (width_px, max(1, round(height * width_px / width)))
    grey = cv2.resize(frame.image, size, interpolation=_interpolation(width, width_px))
    plain = np.repeat(grey[..., None], 3, axis=2)
    marked = Image.fromarray(_outlined(plain, frame))
    caption_px = 52
    cell = Image.new("RGB", (2 * width_px + _GAP_PX, size[1] + caption_px), "white")
    picture = Image.fromarray(plain)
    if frame.pixel_size_nm is not None:
        _scale_bar(picture, frame.pixel_size_nm * width / width_px)
    cell.paste(picture, (0, 0))
    cell.paste(marked, (width_px + _GAP_PX, 0))
    pen = ImageDraw.Draw(cell)
    _write(pen, (0, size[1] + 8), frame.caption, 26, _GREY, 2 * width_px + _GAP_PX)
    return cell


def _outlined(picture: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
    """The enlarged picture with every particle's outline, (H, W, 3) uint8."""
    size = picture.shape[1::-1]
    thickness_px = 3 if size[0] < 800 else 5
    labels = cv2.resize(frame.labels, size, interpolation=cv2.INTER_NEAREST)
    colours = _distinct_colours(frame.labels)
    marked = picture.copy()
    rows, columns = np.indices(labels.shape)
    dashes = (rows + columns) // (2 * thickness_px) % 2 == 0
    for instance in np.unique(frame.labels[frame.labels > 0]).tolist():
        mask = frame.amodal.get(instance)
        if mask is None:
            continue
        whole = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        hidden = (_outline(whole, 3) > 0) & (labels != instance) & dashes
        marked[hidden] = colours[instance]
    edge = _outline(labels, thickness_px)
    marked[edge > 0] = colours[edge[edge > 0]]
    return marked


def _outline(labels: NDArray[Any], thickness_px: int) -> NDArray[Any]:
    """Labels where another value is near, 0 elsewhere; the image's edge is no outline."""
    kernel = np.ones((thickness_px, thickness_px), np.uint8)
    near = cv2.erode(labels, kernel) != cv2.dilate(labels, kernel)
    return np.where(near, labels, 0)


def _distinct_colours(labels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Colours by label, (highest label + 1, 3): neighbours differ as long as colours last."""
    wide = np.ones((7, 7), np.uint8)
    pairs = np.concatenate(
        [
            np.stack([labels, cv2.dilate(labels, wide)], axis=-1).reshape(-1, 2),
            np.stack([labels, _lowest_label(labels, wide)], axis=-1).reshape(-1, 2),
        ]
    )
    pairs = np.unique(pairs[(pairs[:, 0] > 0) & (pairs[:, 0] != pairs[:, 1])], axis=0)
    near: dict[int, list[int]] = {}
    for one, other in pairs.tolist():
        near.setdefault(one, []).append(other)
        near.setdefault(other, []).append(one)
    chosen = np.full(int(labels.max(initial=0)) + 1, -1)
    for turn, label in enumerate(np.unique(labels[labels > 0]).tolist()):
        taken = {int(chosen[other]) for other in near.get(label, [])}
        order = [(turn + step) % len(_COLOURS) for step in range(len(_COLOURS))]
        chosen[label] = next((colour for colour in order if colour not in taken), order[0])
    return np.asarray(np.array(_COLOURS, dtype=np.uint8)[chosen])


def _lowest_label(labels: NDArray[np.uint16], kernel: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The lowest label near each pixel; background does not count."""
    highest = np.iinfo(labels.dtype).max
    lifted = np.where(labels > 0, labels, highest)
    return np.asarray(cv2.erode(lifted, kernel), dtype=np.uint16)


def _scale_bar(picture: Image.Image, pixel_size_nm: float) -> None:
    """Draw a bar of a round length in the lower left corner, on a dark ground."""
    length_nm = _round_length(pixel_size_nm * picture.width * _BAR_SHARE)
    length_px = round(length_nm / pixel_size_nm)
    text = f"{length_nm / 1000:g} µm" if length_nm >= 1000 else f"{length_nm:g} nm"
    font = _font(24)
    left, bottom = 20, picture.height - 20
    width = max(length_px, round(font.getlength(text)))
    pen = ImageDraw.Draw(picture, "RGBA")
    pen.rectangle((left - 12, bottom - 52, left + width + 12, bottom + 12), fill=(0, 0, 0, 190))
    pen.rectangle((left, bottom - 8, left + length_px, bottom), fill=(255, 255, 255, 255))
    pen.text((left, bottom - 46), text, font=font, fill=(255, 255, 255, 255))


def _round_length(longest_nm: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not longer."""
    power = 10.0 ** np.floor(np.log10(longest_nm))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest_nm))


def _interpolation(from_px: int, to_px: int) -> int:
    if to_px < from_px:
        return int(cv2.INTER_AREA)
    return int(cv2.INTER_CUBIC)


@lru_cache(maxsize=8)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(
        str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px
    )


def _write(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    text: str,
    size_px: int,
    colour: tuple[int, int, int],
    width_px: int,
) -> None:
    """Write one line, cut with an ellipsis where it is too long."""
    font = _font(size_px)
    shown = " ".join(text.split())
    if font.getlength(shown) > width_px:
        while shown and font.getlength(shown + "…") > width_px:
            shown = shown[:-1]
        shown += "…"
    pen.text(corner, shown, font=font, fill=colour)


def comparison_sheet(
    comparison: Comparison,
    references: Sequence[NDArray[Any]],
    rendered: Sequence[NDArray[Any]],
    title: str = "Rendered against reference micrographs",
) -> bytes:
    """Draw a comparison: pairs of images, profiles, grey levels, spectra and the distances.

    Parameters
    ----------
    comparison : Comparison
    references, rendered : sequence of (H, W) float
        The images compared, grey levels 0 to 1; the first four of each are shown, cut to the same
        size in pixels.
    title : str

    Returns
    -------
    bytes
        PNG, RGB, 2400 px wide.
    """
    pairs = min(_MOST_PAIRS, max(len(references), len(rendered)))
    pair_rows = -(-pairs // 2)
    height_in = _HEAD_IN + pair_rows * _PAIR_IN + _PLOT_IN
    figure = Figure(figsize=(16, height_in), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.02, 1 - 0.45 / height_in, title, fontsize=22, va="center", color="#191919")
    words = _in_words(comparison)
    figure.text(0.02, 1 - 0.95 / height_in, words, fontsize=14.5, va="center", color="#404040")
    pictures = figure.add_gridspec(
        pair_rows,
        4,
        left=0.02,
        right=0.985,
        top=1 - _HEAD_IN / height_in,
        bottom=_PLOT_IN / height_in,
        wspace=0.03,
    )
    side = min(min(image.shape) for image in [*references, *rendered])
    for pair in range(pairs):
        for offset, (images, name, colour) in enumerate(
            ((references, "reference", _REFERENCE), (rendered, "rendered", _RENDERED))
        ):
            # The shorter list begins again: every picture has one of the other kind beside it.
            number = pair % len(images)
            axes = figure.add_subplot(pictures[pair // 2, pair % 2 * 2 + offset])
            _show(axes, images[number], side, f"{name} {number + 1}", colour)
    plots = figure.add_gridspec(
        1,
        3,
        left=0.055,
        right=0.985,
        top=(_PLOT_IN - 0.75) / height_in,
        bottom=0.75 / height_in,
        wspace=0.22,
    )
    _plot_profiles(figure.add_subplot(plots[0]), comparison)
    _plot_grey_levels(figure.add_subplot(plots[1]), comparison.grey_levels)
    spectra = figure.add_subplot(plots[2])
    _plot_sets(spectra, comparison.spectra)
    _label(spectra, "Power spectra", "spatial frequency (cycles per pixel)", "power (dB)")
    spectra.set_xscale("log", base=2)
    spectra.xaxis.set_major_formatter(lambda value, _: f"1/{1 / value:.0f}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _in_words(comparison: Comparison) -> str:
    ratio = comparison.feature_distance_ratio
    how = (
        "no more than references among themselves"
        if ratio <= 1.2
        else f"{ratio:.1f} × as far as references among themselves"
    )
    return (
        f"Grey levels {100 * comparison.grey_level_distance:.1f} % of the range apart   ·   "
        f"spectra {comparison.spectrum_distance_db:.1f} dB apart   ·   "
        f"texture {how} ({comparison.patch_px} px patches)"
    )


def _show(axes: Axes, image: NDArray[Any], side: int, name: str, colour: str) -> None:
    height, width = image.shape
    top, left = (height - side) // 2, (width - side) // 2
    axes.imshow(
        image[top : top + side, left : left + side], cmap="gray", vmin=0, vmax=1,
        interpolation="antialiased",
    )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2.5)
    axes.set_title(name, fontsize=14, color=colour, pad=4)


def _plot_profiles(axes: Axes, comparison: Comparison) -> None:
    """Profiles of one reference and one rendered image, the rendered one above the other."""
    ends = []
    for name, colour, shift in (("reference 1", _REFERENCE, 0.0), ("rendered 1", _RENDERED, 1.1)):
        curve = next(curve for curve in comparison.profiles if curve.label == name)
        axes.plot(curve.x, curve.y + shift, color=colour, linewidth=1.1, label=name)
        ends.append(float(curve.x[-1]))
    axes.axhline(1.05, color="#c0c0c0", linewidth=1)
    axes.set_yticks([0, 0.5, 1, 1.1, 1.6, 2.1], ["0", "0.5", "", "0", "0.5", "1"])
    axes.set_ylim(-0.03, 2.13)
    axes.set_xlim(0, min(ends))
    where = "given line" if comparison.line else "middle line"
    _label(axes, f"Intensity along the {where}", "distance (px)", "intensity")


def _plot_grey_levels(axes: Axes, curves: Sequence[Curve]) -> None:
    """Densities, smoothed over the gaps that stretching 8-bit images leaves."""
    smooth = [
        Curve(curve.label, curve.x, gaussian_filter1d(curve.y, _SMOOTHING, mode="nearest"))
        for curve in curves
    ]
    _plot_sets(axes, smooth)
    # Clipped black and white may tower above all that is between them.
    inner = [curve.y[10:-10].max() for curve in smooth if curve.label in _SETS]
    axes.set_ylim(0, 1.15 * max(inner) + 0.1)
    _label(axes, "Grey levels", "grey level", "density")


def _plot_sets(axes: Axes, curves: Sequence[Curve]) -> None:
    """Single images thin, the sets thick and by name."""
    for curve in curves:
        colour = _RENDERED if curve.label.startswith("rendered") else _REFERENCE
        if curve.label in _SETS:
            style = "--" if curve.label == "rendered" else "-"
            axes.plot(
                curve.x, curve.y, style, color=colour, linewidth=2.6, label=curve.label, zorder=3
            )
        else:
            axes.plot(curve.x, curve.y, color=colour, linewidth=0.8, alpha=0.35)


def _label(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, fontsize=15, loc="left")
    axes.set_xlabel(x_label, fontsize=13)
    axes.set_ylabel(y_label, fontsize=13)
    axes.tick_params(labelsize=12)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=12, frameon=False, loc="best")
