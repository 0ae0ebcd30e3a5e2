# SPDX-License-Identifier: GPL-3.0-or-later
"""From a label image to the table of its particles."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.morphology.agglomerates import GAP_PX
from granulo_analyzer.domain.morphology.columns import AMODAL, COLUMNS, QUANTITIES, Quantity
from granulo_analyzer.domain.morphology.columns import column_names as names_of
from granulo_analyzer.domain.morphology.particles import FORMULAE, Particles, Sizes
from granulo_analyzer.domain.morphology.runs import Ints, runs_of

Columns = dict[str, NDArray[Any]]

_POWERS = {"length": 1, "area": 2, "per_length": -1}


@dataclass(frozen=True)
class ParticleTable:
    """One row a particle, by rising label."""

    columns: Mapping[str, NDArray[Any]]
    """Column name, with its unit, to (n,) values; their types are those of `columns.COLUMNS`. NaN
    where a particle has no such value."""
    pixel_size_nm: tuple[float, float] | None
    """Width and height of a pixel; None where unknown, and then no ``_nm`` column exists."""

    def __len__(self) -> int:
        """Number of particles."""
        return len(self.columns["label"])


def measure(
    labels: NDArray[np.integer[Any]],
    *,
    pixel_size_nm: tuple[float, float] | None = None,
    grey: NDArray[Any] | None = None,
    confidence: Mapping[int, float] | None = None,
    visible_fraction: Mapping[int, float] | None = None,
    amodal: NDArray[np.integer[Any]] | None = None,
    gap_px: float = GAP_PX,
    only: Collection[str] | None = None,
) -> ParticleTable:
    """Measure every particle of a label image.

    Parameters
    ----------
    labels : (H, W) integer
        0 is background; labels need not be consecutive, nor particles connected.
    pixel_size_nm : (float, float), optional
        Width and height of a pixel in nm. They may differ: lengths are then computed from scaled
        coordinates, areas with their product.
    grey : (H, W) array, optional
        The micrograph, for ``mean_grey`` and ``edge_sharpness``.
    confidence, visible_fraction : mapping of int to float, optional
        By label, from who made the labels; a label that is not in it has NaN.
    amodal : (P, H, W) integer, optional
        Pages with the whole particles, hidden parts included, under the same labels; they give
        the ``amodal_`` columns and, where it is not given, the visible fraction.
    gap_px : float
        Particles with at most so many pixels between them form one agglomerate.
    only : collection of str, optional
        Names of quantities (`columns.QUANTITIES`) to measure beside the label; all by default.

    Returns
    -------
    ParticleTable
        With the columns of `column_names`; no particle gives a table without rows.

    Raises
    ------
    ValueError
        When ``labels`` is no label image, ``grey`` or ``amodal`` do not fit it, a pixel size is
        not positive, the gap is negative or not finite, or ``only`` has an unknown name.
    """
    _check(labels, pixel_size_nm, grey, amodal, gap_px, only)
    runs = runs_of(labels)
    columns: Columns = {}
    if len(runs.labels):
        particles = Particles(runs, grey, gap_px)
        wanted = [
            item
            for item in QUANTITIES
            if item.name in FORMULAE
            and (grey is not None or item.source != "grey")
            and (only is None or item.name in {*only, "label"})
        ]
        columns = _measured(particles, wanted, pixel_size_nm)
        if amodal is not None:
            whole = [item for item in wanted if item.whole]
            columns |= _whole(runs.labels, amodal, whole, pixel_size_nm)
        for name, given in (("confidence", confidence), ("visible_fraction", visible_fraction)):
            if given is not None:
                columns[name] = _given(runs.labels, given)
        if amodal is not None and visible_fraction is None:
            columns["visible_fraction"] = columns["area_px"] / columns["amodal_area_px"]
    names = names_of(
        has_pixel_size=pixel_size_nm is not None,
        has_grey=grey is not None,
        has_confidence=confidence is not None,
        has_visible_fraction=visible_fraction is not None,
        has_amodal=amodal is not None,
    )
    if only is not None:
        chosen = {"label", *only}
        names = tuple(name for name in names if COLUMNS[name].quantity in chosen)
    empty: Columns = {name: np.empty(0) for name in names}
    found = columns if len(runs.labels) else empty
    return ParticleTable(
        {name: found[name].astype(COLUMNS[name].dtype, copy=False) for name in names},
        pixel_size_nm,
    )


def check_amodal(labels: NDArray[np.integer[Any]], pages: NDArray[Any]) -> None:
    """Refuse pages that do not hold the whole particles of these labels.

    Parameters
    ----------
    labels : (H, W) integer
    pages : (P, H, W) integer

    Raises
    ------
    ValueError
        When the pages have another size or are no labels, or a particle is on two of them or none.
    """
    if pages.ndim != 3 or pages.shape[1:] != labels.shape:
        raise ValueError(
            f"pages of whole particles must have the shape (P, {labels.shape[0]}, "
            f"{labels.shape[1]}) of their labels, got {pages.shape}"
        )
    if pages.dtype.kind not in "iu" or pages.min(initial=0) < 0:
        raise ValueError("pages of whole particles must hold labels: whole numbers from 0")
    present = np.concatenate([np.empty(0, np.int64), *(np.unique(page) for page in pages)])
    found, count = np.unique(present[present > 0], return_counts=True)
    for label in found[count > 1].tolist()[:1]:
        raise ValueError(f"a whole particle must be on one page, but label {label} is on two")
    for label in np.setdiff1d(np.unique(labels[labels > 0]), found).tolist()[:1]:
        raise ValueError(
            f"label {label} has no whole particle; give the pages that belong to these labels"
        )


def _measured(
    particles: Particles, wanted: list[Quantity], pixel_size_nm: tuple[float, float] | None
) -> Columns:
    """The columns of the wanted quantities."""
    pixels = Sizes(particles, (1.0, 1.0))
    square = pixel_size_nm is None or pixel_size_nm[0] == pixel_size_nm[1]
    physical = pixels if square else Sizes(particles, pixel_size_nm or (1.0, 1.0))
    columns: Columns = {}
    for item in wanted:
        formula = FORMULAE[item.name]
        if item.nm_column is None:
            # Shapes and angles are those of true lengths.
            columns[item.px_column] = formula(physical)
            continue
        columns[item.px_column] = formula(pixels)
        if pixel_size_nm is not None and square:
            # Square pixels scale every length alike.
            factor = pixel_size_nm[0] ** _POWERS[item.kind]
            columns[item.nm_column] = columns[item.px_column] * factor
        elif pixel_size_nm is not None:
            columns[item.nm_column] = formula(physical)
    return columns


def _whole(
    labels: Ints,
    pages: NDArray[np.integer[Any]],
    wanted: list[Quantity],
    pixel_size_nm: tuple[float, float] | None,
) -> Columns:
    """The ``amodal_`` columns of the labels."""
    tables = []
    for page in pages:
        runs = runs_of(page)
        if len(runs.labels):
            known = {"label": runs.labels}
            tables.append(known | _measured(Particles(runs), wanted, pixel_size_nm))
    # `check_amodal` has seen every label on exactly one page.
    found = np.concatenate([table["label"] for table in tables])
    order = np.argsort(found)
    place = order[np.searchsorted(found[order], labels)]
    names = [name for name in tables[0] if name != "label"]
    return {
        AMODAL + name: np.concatenate([table[name] for table in tables])[place] for name in names
    }


def _given(labels: Ints, values: Mapping[int, float]) -> NDArray[np.float64]:
    return np.array([values.get(label, np.nan) for label in labels.tolist()], dtype=np.float64)


def _check(
    labels: NDArray[Any],
    pixel_size_nm: tuple[float, float] | None,
    grey: NDArray[Any] | None,
    amodal: NDArray[Any] | None,
    gap_px: float,
    only: Collection[str] | None,
) -> None:
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer) or not labels.size:
        raise ValueError(
            "labels must be a two-dimensional image of integers, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if labels.dtype.kind == "i" and labels.min() < 0:
        raise ValueError("labels must not be negative; particles are 1, 2, 3, …, background is 0")
    if grey is not None and grey.shape != labels.shape:
        raise ValueError(
            f"micrograph and labels must have one shape, got {grey.shape} and {labels.shape}"
        )
    if amodal is not None:
        check_amodal(labels, amodal)
    if pixel_size_nm is not None and not all(
        np.isfinite(size) and size > 0 for size in pixel_size_nm
    ):
        raise ValueError(f"pixel sizes must be positive numbers of nm, got {pixel_size_nm}")
    if not (np.isfinite(gap_px) and gap_px >= 0):
        raise ValueError(f"the gap must be a number of pixels from 0, got {gap_px}")
    unknown = sorted(set(only or ()) - {item.name for item in QUANTITIES})
    if unknown:
        raise ValueError(f"there is no quantity {unknown[0]!r}; see the columns in docs/metrics.md")
