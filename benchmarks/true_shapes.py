# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of known size, drawn on pixels at random places and angles."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ellipe

Floats = NDArray[np.float64]
Rule = Literal["centre", "coverage"]

_FINE = 7
"""Samples along each side of a pixel for its coverage; odd, so that none is covered by half."""


@dataclass(frozen=True)
class Shape:
    """A shape around the origin; all its lengths in pixels."""

    name: str
    inside: Callable[[Floats, Floats], NDArray[np.bool_]]
    true: Mapping[str, float]
    """True value by quantity, without a unit in the name."""
    radius: float
    """Of a circle around the origin that holds it."""


def _shape(
    name: str,
    inside: Callable[[Floats, Floats], NDArray[np.bool_]],
    *,
    area: float,
    perimeter: float,
    hull_area: float,
    hull_perimeter: float,
    max_feret: float,
    min_feret: float,
    feret_90: float,
    rectangle: tuple[float, float],
    inscribed: float,
    circumscribed: float,
    ellipse: tuple[float, float],
    geodesic: float,
) -> Shape:
    bow = 1 - np.pi / 4
    fibre = (geodesic - np.sqrt(geodesic**2 - 4 * bow * area)) / (2 * bow)
    true = {
        "area": area,
        "ecd": np.sqrt(4 * area / np.pi),
        "sqrt_area": np.sqrt(area),
        "perimeter": perimeter,
        "polygon_perimeter": perimeter,
        "max_feret": max_feret,
        "min_feret": min_feret,
        "feret_90": feret_90,
        "rectangle_length": rectangle[0],
        "rectangle_width": rectangle[1],
        "inscribed_diameter": inscribed,
        "circumscribed_diameter": circumscribed,
        "ellipse_major": ellipse[0],
        "ellipse_minor": ellipse[1],
        "geodesic_length": geodesic,
        "fibre_width": fibre,
        "aspect_ratio": min_feret / max_feret,
        "elongation": fibre / geodesic,
        "circularity": 4 * np.pi * area / perimeter**2,
        "circularity_root": np.sqrt(4 * np.pi * area) / perimeter,
        "roundness": 4 * area / (np.pi * max_feret**2),
        "compactness": np.sqrt(4 * area / np.pi) / max_feret,
        "solidity": area / hull_area,
        "convexity": hull_perimeter / perimeter,
        "extent": area / (max_feret * min_feret),
        "fractal_dimension": 2.0,
    }
    return Shape(name, inside, true, circumscribed / 2)


def ellipse(ecd: float, ratio: float) -> Shape:
    """An ellipse of an equivalent diameter and a ratio of its axes; a disc where that is 1."""
    a, b = ecd / 2 * np.sqrt(ratio), ecd / 2 / np.sqrt(ratio)
    length = 4 * a * float(ellipe(1 - (b / a) ** 2))
    area = np.pi * a * b
    return _shape(
        "disc" if ratio == 1 else f"ellipse {ratio:g}:1",
        lambda x, y: (x / a) ** 2 + (y / b) ** 2 < 1,
        area=area, perimeter=length, hull_area=area, hull_perimeter=length, max_feret=2 * a,
        min_feret=2 * b, feret_90=2 * b, rectangle=(2 * a, 2 * b), inscribed=2 * b,
        circumscribed=2 * a, ellipse=(2 * a, 2 * b), geodesic=2 * a,
    )  # fmt: skip


def rectangle(ecd: float, ratio: float) -> Shape:
    """A rectangle of an equivalent diameter and a ratio of its sides."""
    side = ecd * np.sqrt(np.pi) / 2
    a, b = side * np.sqrt(ratio), side / np.sqrt(ratio)
    diagonal = float(np.hypot(a, b))
    return _shape(
        f"rectangle {ratio:g}:1",
        lambda x, y: (np.abs(x) < a / 2) & (np.abs(y) < b / 2),
        area=a * b, perimeter=2 * (a + b), hull_area=a * b, hull_perimeter=2 * (a + b),
        max_feret=diagonal, min_feret=b, feret_90=2 * a * b / diagonal, rectangle=(a, b),
        inscribed=b, circumscribed=diagonal, ellipse=(2 * a / np.sqrt(3), 2 * b / np.sqrt(3)),
        geodesic=diagonal,
    )  # fmt: skip


def stadium(ecd: float, ratio: float) -> Shape:
    """Two half discs and a rectangle between them; the ratio of its length to its width."""
    w = ecd * np.sqrt(np.pi / 4 / (ratio - 1 + np.pi / 4))
    h = w * (ratio - 1)
    r = w / 2
    area = h * w + np.pi * r**2
    # Second moments of the rectangle and of the half discs moved apart.
    along = w * h**3 / 12 + np.pi * r**4 / 4 + np.pi * r**2 * h**2 / 4 + 4 * h * r**3 / 3
    across = h * w**3 / 12 + np.pi * r**4 / 4
    perimeter = 2 * h + np.pi * w
    return _shape(
        f"stadium {ratio:g}:1",
        lambda x, y: np.hypot(np.maximum(np.abs(x) - h / 2, 0), y) < r,
        area=area, perimeter=perimeter, hull_area=area, hull_perimeter=perimeter, max_feret=h + w,
        min_feret=w, feret_90=w, rectangle=(h + w, w), inscribed=w, circumscribed=h + w,
        ellipse=(4 * np.sqrt(along / area), 4 * np.sqrt(across / area)), geodesic=h + w,
    )  # fmt: skip


def star(ecd: float) -> Shape:
    """A star of five tips, with its inner corners half as far out as its tips."""
    ratio, step = 0.5, np.pi / 5
    outer = float(np.sqrt(np.pi * ecd**2 / 4 / (5 * ratio * np.sin(step))))
    inner = ratio * outer
    edge = float(np.sqrt(outer**2 + inner**2 - 2 * outer * inner * np.cos(step)))

    def inside(x: Floats, y: Floats) -> NDArray[np.bool_]:
        # Folded onto one half of a tip, the edge is a straight line.
        angle = np.abs((np.arctan2(y, x) + step) % (2 * step) - step)
        u, v = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
        slope = inner * np.sin(step) / (outer - inner * np.cos(step))
        return np.asarray(v < slope * (outer - u))

    area = 5 * outer * inner * float(np.sin(step))
    side = 2 * outer * float(np.sin(step))
    # Of the regular pentagon around it: between a tip and the opposite side, and two tips.
    least = outer * (1 + float(np.cos(step)))
    chord = 2 * outer * float(np.sin(2 * step))
    axis = _star_axis(outer, inner, step, area)
    return _shape(
        "star",
        inside,
        area=area, perimeter=10 * edge, hull_area=2.5 * outer**2 * float(np.sin(2 * step)),
        hull_perimeter=5 * side, max_feret=chord, min_feret=least,
        feret_90=_star_across(outer),
        rectangle=(max(chord, least), min(chord, least)), inscribed=2 * inner,
        circumscribed=2 * outer, ellipse=(axis, axis), geodesic=chord,
    )  # fmt: skip


def _star_across(outer: float) -> float:
    """Extent of a regular pentagon at a right angle to one of its diagonals."""
    angles = 2 * np.pi * np.arange(5) / 5
    corners = outer * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    chord = corners[2] - corners[0]
    return float(np.ptp(corners @ np.array([-chord[1], chord[0]])) / np.hypot(*chord))


def _star_axis(outer: float, inner: float, step: float, area: float) -> float:
    """Axis of the circle of the same second moments: ten triangles with a corner in the middle."""
    # ∫r² over a triangle (0, p, q) is its area times (p·p + p·q + q·q)/6.
    polar = area * (outer**2 + inner**2 + outer * inner * np.cos(step)) / 6
    return float(4 * np.sqrt(polar / 2 / area))


SHAPES: tuple[Callable[[float], Shape], ...] = (
    lambda ecd: ellipse(ecd, 1),
    lambda ecd: ellipse(ecd, 2),
    lambda ecd: rectangle(ecd, 1),
    lambda ecd: rectangle(ecd, 2),
    lambda ecd: stadium(ecd, 3),
    star,
)


@dataclass(frozen=True)
class Field:
    """Copies of one shape in a label image."""

    labels: NDArray[np.int32]
    angle_deg: Floats
    """(n,) counter-clockwise as seen; label i + 1 is copy i."""
    centre: Floats
    """(n, 2) x and y, the first pixel spans 0 to 1."""


def draw(shape: Shape, count: int, rule: Rule, rng: np.random.Generator) -> Field:
    """Draw copies of a shape with random angles and sub-pixel offsets.

    Parameters
    ----------
    shape : Shape
    count : int
    rule : {"centre", "coverage"}
        Which pixels belong to it: those whose centre is inside, or of which more than half is.
    rng : numpy.random.Generator

    Returns
    -------
    Field
    """
    cell = int(2 * shape.radius) + 6
    across = int(np.ceil(np.sqrt(count)))
    labels = np.zeros((across * cell, across * cell), dtype=np.int32)
    angles = rng.uniform(0, 2 * np.pi, count)
    centres = cell / 2 + rng.uniform(-0.5, 0.5, (count, 2))
    fine = _FINE if rule == "coverage" else 1
    y, x = (np.mgrid[: cell * fine, : cell * fine] + 0.5) / fine
    for number in range(count):
        dx, dy = x - centres[number, 0], y - centres[number, 1]
        cos, sin = np.cos(angles[number]), np.sin(angles[number])
        # Rows count downwards: turned counter-clockwise as seen.
        part: NDArray[Any] = shape.inside(dx * cos - dy * sin, dx * sin + dy * cos)
        share = part.reshape(cell, fine, cell, fine).mean(axis=(1, 3))
        row, column = divmod(number, across)
        place = np.s_[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        labels[place][share > 0.5] = number + 1
        centres[number] += (column * cell, row * cell)
    return Field(labels, np.degrees(angles), centres)
