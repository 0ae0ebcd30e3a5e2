# SPDX-License-Identifier: GPL-3.0-or-later
"""Distributions as a paper would print them, as PNG and as SVG.

Figures are made without pyplot, whose global state is neither needed nor safe in a worker.
"""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from granulo_analyzer.domain.ensemble import Ensemble
from granulo_analyzer.domain.fits import Fit, LogNormal
from granulo_analyzer.domain.statistics import Distribution

SYMBOLS = {"sqrt_area": "√area", "ecd": "ECD"}
_HIGHEST_FIT = 1.6
"""Of the highest bar."""
_BAR, _LINE, _INK = "#8fb0d3", "#b4431f", "#222222"
# Any: the stubs list every key of the style as a literal type.
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "svg.fonttype": "path",
}


def _two_panels() -> tuple[Figure, Sequence[Axes]]:
    """An empty figure as wide as the report's text, with two panels side by side."""
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, 2)


def histogram_figure(ensemble: Ensemble) -> Figure:
    """Histograms of sqrt(area) and ECD over the whole set, with Np, median and fit.

    The fit is a log-normal distribution, of the ECD the model that was chosen.

    Parameters
    ----------
    ensemble : Ensemble

    Returns
    -------
    matplotlib.figure.Figure
    """
    with mpl.rc_context(STYLE):
        figure, panels = _two_panels()
        fits: dict[str, Fit | LogNormal | None] = {
            "sqrt_area": ensemble.distributions["sqrt_area"].lognormal,
            "ecd": None,
        }
        if ensemble.findings.fits:
            fits["ecd"] = ensemble.findings.fits[0]
        for panel, quantity in zip(panels, SYMBOLS, strict=True):
            level = ensemble.settings.confidence_level
            distribution = ensemble.distributions[quantity]
            _draw_distribution(panel, distribution, fits[quantity], ensemble.unit, level)
        handles, names = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False)
    return figure


def curves_figure(ensemble: Ensemble) -> Figure:
    """Cumulative distribution and density of the ECD, by number and by volume.

    Parameters
    ----------
    ensemble : Ensemble

    Returns
    -------
    matplotlib.figure.Figure
        Left the share of smaller particles with the confidence band by number, right the density
        by unit of ln x; sizes on a logarithmic axis.
    """
    with mpl.rc_context(STYLE):
        figure, panels = _two_panels()
        size = ensemble.findings.size
        names = ("share of smaller particles", "density by ln ECD")
        for panel, name in zip(panels, names, strict=True):
            panel.set_xlabel(f"ECD ({ensemble.unit})")
            panel.set_ylabel(name)
        if size is None:
            for panel in panels:
                _draw_nothing(panel)
            return figure
        left, right = panels
        if np.isfinite(size.band_half_width):
            share = np.array(size.band_share)
            left.fill_between(
                size.band_x,
                np.maximum(share - size.band_half_width, 0),
                np.minimum(share + size.band_half_width, 1),
                step="post",
                color=_BAR,
                alpha=0.5,
                linewidth=0,
                label=f"{100 * ensemble.settings.confidence_level:.3g} % band",
            )
        steps = np.array([(size.band_x[0], 0.0), *zip(size.band_x, size.band_share, strict=True)])
        left.step(*steps.T, where="post", color="#44658a", label="by number")
        left.plot(size.edges, size.cumulative["Q3"], color=_LINE, linewidth=1.2, label="by volume")
        left.set_ylim(0, 1.02)
        edges = np.array(size.edges)
        right.stairs(size.log_density["q0"], edges, fill=True, color=_BAR)
        right.stairs(size.log_density["q0"], edges, color="#44658a", linewidth=0.9)
        right.stairs(size.log_density["q3"], edges, color=_LINE, linewidth=1.2)
        right.set_ylim(bottom=0)
        for panel in panels:
            _label_logarithms(panel, edges)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def image_figure(ensemble: Ensemble, index: int) -> Figure:
    """Histogram of sqrt(area) of one image, in the bins of the whole set.

    Parameters
    ----------
    ensemble : Ensemble
    index : int
        Place of the image in the set.

    Returns
    -------
    matplotlib.figure.Figure
    """
    edges = np.array(ensemble.distributions["sqrt_area"].bin_edges)
    values = ensemble.values_of("sqrt_area", index)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.3, 1.9), layout="constrained")
        FigureCanvasAgg(figure)
        panel = figure.subplots()
        if len(edges):
            weights = ensemble.weights_of(index)
            counts, _ = np.histogram(values, bins=edges, weights=weights)
            counts *= len(values) / weights.sum() if len(values) else 1
            _draw_bars(panel, edges, counts)
        _label(panel, "sqrt_area", ensemble.unit, len(values))
    return figure


def png_bytes(figure: Figure, dpi: int = 200) -> bytes:
    """Rasterise a figure; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": "Granulo"})
    return buffer.getvalue()


def svg_text(figure: Figure, name: str) -> str:
    """Draw a figure as an SVG element to stand inside a page.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    name : str
        Different for every figure of a page, so that their ids do not meet.

    Returns
    -------
    str
        From ``<svg`` on, without the XML declaration.
    """
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _draw_distribution(
    panel: Axes, distribution: Distribution, fit: Fit | LogNormal | None, unit: str, level: float
) -> None:
    edges, counts = np.array(distribution.bin_edges), np.array(distribution.bin_counts)
    if distribution.count:
        _draw_bars(panel, edges, counts)
        panel.axvline(distribution.median, color=_INK, linewidth=1, label="median")
        if distribution.count > 1:
            panel.axvspan(
                distribution.median_low,
                distribution.median_high,
                color=_INK,
                alpha=0.13,
                linewidth=0,
                label=f"{100 * level:.3g} % interval of the median",
            )
    if fit is not None:
        x = np.linspace(max(edges[0], 1e-9), edges[-1], 300)
        expected = fit.density(x) * distribution.count * (edges[1] - edges[0])
        panel.plot(x, expected, "--", color=_LINE, linewidth=1.2, label="fit")
        # A narrow component may rise far above the bars, which are what is to be seen.
        highest = min(float(expected.max()), _HIGHEST_FIT * float(counts.max()))
        panel.set_ylim(0, max(panel.get_ylim()[1], 1.05 * highest))
    _label(panel, distribution.quantity, unit, distribution.count)


def _draw_bars(panel: Axes, edges: NDArray[Any], counts: NDArray[Any]) -> None:
    panel.stairs(counts, edges, fill=True, color=_BAR)
    panel.stairs(counts, edges, color="#44658a", linewidth=0.7)
    panel.set_xlim(edges[0] - 0.02 * np.ptp(edges), edges[-1] + 0.02 * np.ptp(edges))
    panel.set_ylim(0, max(1.0, 1.18 * float(counts.max())))


def _label(panel: Axes, quantity: str, unit: str, count: int) -> None:
    panel.set_xlabel(f"{SYMBOLS[quantity]} ({unit})")
    panel.set_ylabel("number of particles")
    panel.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    panel.text(
        0.99,
        0.99,
        rf"$N_\mathrm{{p}}$ = {count}",
        transform=panel.transAxes,
        ha="right",
        va="top",
    )
    if not count:
        _draw_nothing(panel)


def _draw_nothing(panel: Axes) -> None:
    panel.set(xticks=[], yticks=[])
    panel.text(0.5, 0.5, "no particle", transform=panel.transAxes, ha="center", va="center")


def _label_logarithms(panel: Axes, edges: NDArray[Any]) -> None:
    """A logarithmic axis with round numbers on it, however narrow the distribution is."""
    margin = (edges[-1] / edges[0]) ** 0.03
    panel.set_xscale("log")
    panel.set_xlim(edges[0] / margin, edges[-1] * margin)
    panel.xaxis.set_major_locator(LogLocator(subs=_subdivisions(edges[-1] / edges[0])))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_locator(NullLocator())


def _subdivisions(ratio: float) -> tuple[float, ...]:
    if ratio > 30:
        return (1.0, 3.0)
    return (1.0, 2.0, 5.0) if ratio > 8 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
