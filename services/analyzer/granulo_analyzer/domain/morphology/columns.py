# SPDX-License-Identifier: GPL-3.0-or-later
"""The columns of a particle table: what there is, of which kind, and what each needs.

``docs/metrics.md`` states the formula of every quantity and how far off it is by construction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["area", "length", "per_length", "shape", "angle", "number", "id", "count", "flag"]
"""What a quantity is; it decides on suffix, unit and type of its columns."""

Source = Literal["labels", "grey", "confidence", "visible_fraction", "amodal"]
"""What must be known for a column to exist, beside the labels."""

AMODAL = "amodal_"
"""Begins the names of columns of the whole particle, hidden parts included."""

_PX = {"area": "_px", "length": "_px", "per_length": "_per_px", "angle": "_deg"}
_NM = {"area": "_nm2", "length": "_nm", "per_length": "_per_nm"}
_UNITS = {
    "_px": "[px]",
    "_per_px": "1/[px]",
    "_deg": "deg",
    "_nm": "nm",
    "_nm2": "nm2",
    "_per_nm": "1/nm",
}


@dataclass(frozen=True)
class Quantity:
    """One measured quantity; lengths and areas have a column in pixels and one in nm."""

    name: str
    kind: Kind
    source: Source = "labels"
    whole: bool = True
    """Whether it is also measured of the whole particle where amodal masks are given."""

    @property
    def px_column(self) -> str:
        """Name of the column that needs no pixel size."""
        return self.name + _PX.get(self.kind, "")

    @property
    def nm_column(self) -> str | None:
        """Name of the column in nm; None for a quantity that has none."""
        return self.name + _NM[self.kind] if self.kind in _NM else None


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    quantity: str
    kind: Kind
    unit: str
    """UCUM: ``nm``, ``nm2``, ``1/nm``, ``[px]``, ``[px]2``, ``1/[px]``, ``deg`` or ``1``."""
    source: Source
    needs_pixel_size: bool

    @property
    def dtype(self) -> str:
        """``int64``, ``bool`` or ``float64``."""
        kinds = {"id": "int64", "count": "int64", "flag": "bool"}
        return kinds.get(self.kind, "float64")


QUANTITIES = (
    Quantity("label", "id", whole=False),
    Quantity("area", "area"),
    Quantity("ecd", "length"),
    Quantity("sqrt_area", "length"),
    Quantity("perimeter", "length"),
    Quantity("polygon_perimeter", "length"),
    Quantity("max_feret", "length"),
    Quantity("min_feret", "length"),
    Quantity("feret_90", "length"),
    Quantity("feret_x", "length"),
    Quantity("feret_y", "length"),
    Quantity("rectangle_length", "length"),
    Quantity("rectangle_width", "length"),
    Quantity("inscribed_diameter", "length"),
    Quantity("circumscribed_diameter", "length"),
    Quantity("ellipse_major", "length"),
    Quantity("ellipse_minor", "length"),
    Quantity("geodesic_length", "length"),
    Quantity("fibre_width", "length"),
    Quantity("centroid_x", "length"),
    Quantity("centroid_y", "length"),
    Quantity("aspect_ratio", "shape"),
    Quantity("elongation", "shape"),
    Quantity("circularity", "shape"),
    Quantity("circularity_root", "shape"),
    Quantity("roundness", "shape"),
    Quantity("compactness", "shape"),
    Quantity("solidity", "shape"),
    Quantity("convexity", "shape"),
    Quantity("extent", "shape"),
    Quantity("fractal_dimension", "shape", whole=False),
    Quantity("orientation", "angle"),
    Quantity("max_feret_angle", "angle"),
    Quantity("mean_grey", "number", source="grey", whole=False),
    Quantity("edge_sharpness", "per_length", source="grey", whole=False),
    Quantity("confidence", "number", source="confidence", whole=False),
    Quantity("visible_fraction", "number", source="visible_fraction", whole=False),
    Quantity("agglomerate", "id", whole=False),
    Quantity("constituents", "count", whole=False),
    Quantity("touches_border", "flag"),
    Quantity("touched_edges", "id"),
)
"""In the order of the table."""

LENGTHS = tuple(item.name for item in QUANTITIES if item.kind == "length")
"""Quantities that have a ``_px`` column and, where the pixel size is known, a ``_nm`` column."""

SHAPES = tuple(item.name for item in QUANTITIES if item.kind == "shape")
"""Quantities without a unit, from physical lengths where these are known."""


def _columns(quantities: tuple[Quantity, ...], prefix: str = "") -> list[Column]:
    """Lengths in pixels, the same in nm, and then what is no length."""
    both = [_pair(item, prefix) for item in quantities]
    sizes = [pair for pair in both if pair[0].kind in ("area", "length")]
    others = [column for pair in both if pair not in sizes for column in pair]
    return [*(pair[0] for pair in sizes), *(pair[1] for pair in sizes), *others]


def _pair(item: Quantity, prefix: str) -> tuple[Column, ...]:
    """The column without a pixel size and, where there is one, that in nm."""
    source: Source = "amodal" if prefix else item.source
    unit = "[px]2" if item.kind == "area" else _UNITS.get(_PX.get(item.kind, ""), "1")
    first = Column(
        prefix + item.px_column, item.name, item.kind, unit, source, needs_pixel_size=False
    )
    if item.nm_column is None:
        return (first,)
    unit = _UNITS[_NM[item.kind]]
    return first, Column(
        prefix + item.nm_column, item.name, item.kind, unit, source, needs_pixel_size=True
    )


def _all_columns() -> dict[str, Column]:
    label, *middle = QUANTITIES[:-2]
    whole = tuple(item for item in QUANTITIES if item.whole)
    columns = [
        *_columns((label,)),
        *_columns(tuple(middle)),
        *_columns(whole, AMODAL),
        *_columns(QUANTITIES[-2:]),
    ]
    return {column.name: column for column in columns}


COLUMNS: Mapping[str, Column] = _all_columns()
"""Every column that a table can have, by name, in the order of tables."""


def column_names(
    *,
    has_pixel_size: bool,
    has_grey: bool = False,
    has_confidence: bool = False,
    has_visible_fraction: bool = False,
    has_amodal: bool = False,
) -> tuple[str, ...]:
    """Columns of a table in their order.

    Parameters
    ----------
    has_pixel_size : bool
        Whether lengths are known in nm.
    has_grey : bool
        Whether a micrograph belongs to the labels.
    has_confidence, has_visible_fraction : bool
        Whether they are given for the particles.
    has_amodal : bool
        Whether the whole masks are known; they tell the visible fraction, too.

    Returns
    -------
    tuple of str
    """
    known = {
        "labels": True,
        "grey": has_grey,
        "confidence": has_confidence,
        "visible_fraction": has_visible_fraction or has_amodal,
        "amodal": has_amodal,
    }
    return tuple(
        column.name
        for column in COLUMNS.values()
        if known[column.source] and (has_pixel_size or not column.needs_pixel_size)
    )
