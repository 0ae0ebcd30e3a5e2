# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of a comparison of image sets: the map of the patches (M11), a profile (M12)."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from granulo_analyzer.domain.comparison import Interval
from granulo_analyzer.domain.realism.comparison import Realism
from granulo_analyzer.domain.realism.embedding import ITERATIONS, LEARNING_RATE
from granulo_analyzer.domain.realism.jobs import ComparisonSettings
from granulo_analyzer.report.figures import STYLE
from granulo_core.imaging.profiles import line_profile

# Okabe and Ito's blue and vermilion, which people with any colour vision tell apart.
_COLOURS = {"real": "#0072B2", "synthetic": "#D55E00"}
_LINES = (
    ("mixed_neighbours", "neighbours from the other set", 3),
    ("mixed_neighbours_expected", "expected of identical sets", 3),
    ("mixing", "mixing (1: cannot be told apart)", 2),
    ("classifier_accuracy", "classifier's accuracy (0.5: cannot)", 3),
    ("noise_real", "noise, real (share of the grey range)", 4),
    ("noise_synthetic", "noise, synthetic", 4),
    ("noise_ratio", "noise, synthetic / real", 2),
    ("edge_width_real", "edge width, real (px)", 2),
    ("edge_width_synthetic", "edge width, synthetic (px)", 2),
    ("edge_width_ratio", "edge width, synthetic / real", 2),
)
_BRACKETS = (
    "In brackets: 95 % intervals over images; of identical sets,\n"
    "where 95 % of all random divisions of the images lie."
)


def map_figure(found: Realism, settings: ComparisonSettings) -> Figure:
    """Draw the map of the patches beside the figures and how they were made.

    Parameters
    ----------
    found : Realism
    settings : ComparisonSettings

    Returns
    -------
    matplotlib.figure.Figure
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        panel, beside = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _draw_map(panel, found)
        beside.set_axis_off()
        beside.text(0, 1, _method(found, settings), va="top", linespacing=1.5)
        rows = [(title, _shown(found.figures[name][1], digits)) for name, title, digits in _LINES]
        height = 0.73
        for title, value in rows:
            beside.text(0, height, title, va="top")
            beside.text(0.68, height, value, va="top")
            height -= 0.055
        beside.text(0, height, _BRACKETS, va="top", fontsize=7.5, color="#555555")
        height -= 0.085
        text = "\n".join(_wrapped(f"Note: {line}") for line in found.warnings)
        beside.text(0, height - 0.02, text, va="top", fontsize=7.5, color="#7a3b00")
    return figure


def profile_figure(
    images: Sequence[NDArray[Any]], names: Sequence[str], settings: ComparisonSettings
) -> Figure:
    """Draw the same line through two images, and the grey levels along it.

    Parameters
    ----------
    images : (real, synthetic), each (H, W) float
        Grey levels 0 to 1.
    names : (str, str)
        Of the two files.
    settings : ComparisonSettings
        With a line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    assert settings.line is not None  # the caller's condition
    x0, y0, x1, y1 = settings.line
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 6.4), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplot_mosaic([["real", "synthetic"], ["curve", "curve"]])
        curve = panels["curve"]
        for kind, image, name in zip(_COLOURS, images, names, strict=True):
            panel, colour = panels[kind], _COLOURS[kind]
            height, width = image.shape
            panel.imshow(image, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
            panel.plot((x0, x1), (y0, y1), color=colour, linewidth=1.4)
            panel.set(title=f"{kind}: {_short(name)}", xticks=[], yticks=[])
            distance, level = line_profile(image, settings.line, settings.line_width_px)
            curve.plot(distance, level, color=colour, linewidth=1, label=kind)
        curve.set(xlabel="distance (px)", ylabel="grey level (share of the range)", ylim=(0, 1.02))
        curve.legend(frameon=False, loc="upper right", ncols=2)
        curve.set_title(
            f"from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) px, {settings.line_width_px:g} px wide",
            loc="left",
            fontsize=8.5,
        )
    return figure


def _draw_map(panel: Axes, found: Realism) -> None:
    synthetic = found.patches.synthetic
    # In random order, so that no set hides the other.
    order = np.random.default_rng(0).permutation(len(synthetic))
    colours = np.where(synthetic, _COLOURS["synthetic"], _COLOURS["real"])[order]
    size = float(np.clip(4000 / len(order), 4, 30))
    points = found.map[order]
    panel.scatter(points[:, 0], points[:, 1], s=size, c=colours, alpha=0.7, linewidths=0)
    for kind, count in (("real", (~synthetic).sum()), ("synthetic", synthetic.sum())):
        panel.scatter([], [], s=24, c=_COLOURS[kind], linewidths=0, label=f"{kind} ({count})")
    panel.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    panel.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0)


def _method(found: Realism, settings: ComparisonSettings) -> str:
    lowered = ""
    if found.perplexity < settings.perplexity:
        lowered = f" (not {settings.perplexity:g}: few patches)"
    return (
        f"features: {settings.features}\n"
        f"patches of {settings.patch_px} px; {found.principal_components} principal components\n"
        f"keep 90 % of the variance\n"
        f"t-SNE: perplexity {found.perplexity:g}{lowered}, learning rate {LEARNING_RATE:g},\n"
        f"at most {ITERATIONS} iterations"
    )


def _shown(found: Interval, digits: int) -> str:
    if not np.isfinite(found.value):
        return "–"
    text = f"{found.value:.{digits}f}"
    if np.isfinite(found.lower):
        text += f" ({found.lower:.{digits}f} to {found.upper:.{digits}f})"
    return text


def _wrapped(text: str, width: int = 62) -> str:
    return textwrap.fill(text, width)


def _short(name: str, length: int = 40) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
