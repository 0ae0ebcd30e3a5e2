# SPDX-License-Identifier: GPL-3.0-or-later
"""Rods and bent wires: circles swept along a line."""

from dataclasses import dataclass

import numpy as np

from granulo_render.domain.shapes.icosphere import Array, Faces
from granulo_render.domain.shapes.template import (
    Level,
    Template,
    aligned,
    make_template,
)

_SIDES = (8, 16, 24, 48)
_SHARED_SIDES = (*_SIDES, 96)  # of rods, which many particles share
_MAX_VERTICES = 20_000
_SHARPEST = 0.06  # rounding of the ends that smooth shading can still carry
_KNOT_NM = 500.0  # a wire's direction changes over this length
_WIRE_END = 0.4
_SWAY = 0.25  # of a wire off the substrate's plane, in thicknesses


@dataclass(frozen=True, eq=False)
class _Line:
    """A smooth line in space at many of its lengths."""

    length: Array
    """(G,) increasing from 0."""
    place: Array
    """(G, 3)."""
    tangent: Array
    """(G, 3) about unit vectors."""
    effort: Array
    """(G,) increasing: integral of the square root of the curvature over the length.

    A chord over an effort of ``e`` is off the line by ``e ** 2 / 8`` at most.
    """


def rod(aspect_ratio: float, end_rounding: float) -> Template:
    """Make a straight cylinder.

    Parameters
    ----------
    aspect_ratio : float
        Whole length over thickness, 1 or more.
    end_rounding : float
        1: hemispheres; towards 0 the ends are flat with rounded rims.
    """
    length = 2 * max(aspect_ratio, 1.0)
    ends = np.array([0.0, length])
    place = np.stack([ends, np.zeros(2), np.zeros(2)], axis=1)
    # It bends nowhere; any increasing effort will do.
    line = _Line(ends, place, np.array([[1.0, 0.0, 0.0]] * 2), 1e-9 * ends)
    return make_template(_levels(line, 1.0, end_rounding, _SHARED_SIDES), convex=True, smooth=True)


def wire(
    thickness_nm: float, length_nm: float, bending_deg_per_um: float, rng: np.random.Generator
) -> tuple[Template, float]:
    """Make a bent wire.

    Its direction in the plane wanders like a worm-like chain: the change over a length has a
    standard deviation that grows with the square root of the length. It never bends more
    sharply than around its own thickness.

    Parameters
    ----------
    thickness_nm : float
        Diameter of its circular cross-section.
    length_nm : float
        Along the wire, ends included.
    bending_deg_per_um : float
        Standard deviation of the change of direction per 1000 nm.
    rng : numpy.random.Generator
        Draws the bends.

    Returns
    -------
    template : Template
        At most about 20,000 vertices; its plane is x, y.
    radius_nm : float
        Of the sphere of equal volume: the template's unit.
    """
    length = max(length_nm, 1.01 * thickness_nm)
    line = _wandering(length, thickness_nm, np.radians(bending_deg_per_um), rng)
    levels = _levels(line, thickness_nm / 2, _WIRE_END, _SIDES)
    finest = levels[-1].vertices
    turned = [
        Level(aligned(level.vertices, like=finest), level.faces, level.error) for level in levels
    ]
    template = make_template(turned, convex=False, smooth=True)
    length_nm = float(np.ptp(turned[-1].vertices[:, 0]))
    return template, length_nm / (2 * template.half_sizes[0])


def _wandering(length: float, thickness: float, bending: float, rng: np.random.Generator) -> _Line:
    step = max(min(_KNOT_NM, length / 4), 2 * thickness)
    knots = int(np.ceil(length / step)) + 4  # one before the start, two beyond the end
    # A turn of 1.2 over two thicknesses at least keeps the inner side from folding.
    turns = np.clip(rng.normal(0, bending * np.sqrt(step / 1000), knots), -1.2, 1.2)
    grid = np.linspace(0, length, 64 * knots)
    gap = grid[1]
    angle = _smooth(np.cumsum(turns), grid / step)
    sway = _SWAY * thickness * _smooth(rng.uniform(-1, 1, knots), grid / (2 * step))
    middle = (angle[1:] + angle[:-1]) / 2
    x, y = (np.concatenate([[0.0], np.cumsum(f(middle) * gap)]) for f in (np.cos, np.sin))
    # From end to end is x: near enough to its longest direction.
    angle -= np.arctan2(y[-1], x[-1])
    reach = max(float(np.hypot(x[-1], y[-1])), 1e-9)
    c, s = x[-1] / reach, y[-1] / reach
    place = np.stack([c * x + s * y, c * y - s * x, sway], axis=1)
    tangent = np.stack([np.cos(angle), np.sin(angle), np.gradient(sway, gap)], axis=1)
    bend = np.abs(np.diff(angle)) / gap
    # A little effort everywhere, so that straight parts have a place on the scale as well.
    effort = np.sqrt(bend + 1e-3 * bend.max() + 1e-12) * gap
    return _Line(grid, place, tangent, np.concatenate([[0.0], np.cumsum(effort)]))


def _smooth(values: Array, at: Array) -> Array:
    """Catmull-Rom spline through ``values[1:-2]``, whose first is at 0 and next at 1."""
    k = np.floor(at).astype(np.int64)
    t = at - k
    a, b, c, d = (values[k + i] for i in range(4))
    curve: Array = b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return curve


def _levels(
    line: _Line, radius: float, end_rounding: float, around: tuple[int, ...]
) -> tuple[Level, ...]:
    levels: list[Level] = []
    for sides in around:
        flat = radius * (1 - np.cos(np.pi / sides))
        rings, steps = _MAX_VERTICES // sides, sides // 4
        parts = int(np.clip(line.effort[-1] / np.sqrt(8 * flat), 1, rings - 2 * steps - 8))
        error = 2 * flat + (line.effort[-1] / parts) ** 2 / 8
        if levels and error >= levels[-1].error:
            break  # finer around would be coarser along
        stations, radii = _profile(line, radius, end_rounding, steps, parts)
        levels.append(Level(*_sweep(line, stations, radii, sides), error))
    finest = levels.pop()
    return (*levels, Level(finest.vertices, finest.faces, 0.0))


def _profile(
    line: _Line, radius: float, end_rounding: float, steps: int, parts: int
) -> tuple[Array, Array]:
    """Stations along a tube and its radius there: flat end, rounded rim, straight part."""
    length = float(line.length[-1])
    curve = radius * float(np.clip(end_rounding, _SHARPEST, 1))
    angle = np.linspace(0, np.pi / 2, steps + 1)
    along, across = curve * (1 - np.cos(angle)), radius - curve + curve * np.sin(angle)
    flat = np.array([0.0]) if curve > 0.999 * radius else np.array([0.0, 0.9 * (radius - curve)])
    along = np.concatenate([np.zeros(len(flat)), along[1:] if len(flat) == 1 else along])
    across = np.concatenate([flat, across[1:] if len(flat) == 1 else across])
    straight = length - 2 * curve
    # Rings close to the rims keep their bent normals off the straight part.
    rim = min(0.2 * curve, straight / 4)
    first, final = np.interp([curve + rim, length - curve - rim], line.length, line.effort)
    inner = np.interp(np.linspace(first, final, parts + 1), line.effort, line.length)
    if straight < 1e-3 * radius:
        inner = np.empty(0)
    last = len(along) if len(inner) else len(along) - 1
    stations = np.concatenate([along[:last], inner, length - along[::-1]])
    radii = np.concatenate([across[:last], np.full(len(inner), radius), across[::-1]])
    return stations, radii


def _sweep(line: _Line, stations: Array, radii: Array, sides: int) -> tuple[Array, Faces]:
    """Skin circles across the line; the first and the last have no radius and become poles."""
    centre, tangent = (
        np.stack([np.interp(stations, line.length, axis) for axis in values.T], axis=1)
        for values in (line.place, line.tangent)
    )
    tangent /= np.sqrt((tangent * tangent).sum(axis=1, keepdims=True))
    side = np.stack([-tangent[:, 1], tangent[:, 0], np.zeros(len(tangent))], axis=1)
    side /= np.sqrt((side * side).sum(axis=1, keepdims=True))
    up = np.cross(tangent, side)
    turn = np.arange(sides) * (2 * np.pi / sides)
    # Polygons of the circle's area: neither thinner nor thicker on average.
    fill = radii[1:-1] * np.sqrt(2 * np.pi / (sides * np.sin(2 * np.pi / sides)))
    around = np.cos(turn)[:, None] * side[1:-1, None] + np.sin(turn)[:, None] * up[1:-1, None]
    rings = centre[1:-1, None] + around * fill[:, None, None]
    vertices = np.concatenate([rings.reshape(-1, 3), centre[[0]], centre[[-1]]])
    return vertices, _skin(len(stations) - 2, sides)


def _skin(rings: int, sides: int) -> Faces:
    number = np.arange(rings * sides).reshape(rings, sides)
    following = np.roll(number, -1, axis=1)
    a, b, c, d = (x.ravel() for x in (number[:-1], following[:-1], following[1:], number[1:]))
    first, last = np.full(sides, rings * sides), np.full(sides, rings * sides + 1)
    parts = (
        (a, b, c),
        (a, c, d),
        (first, following[0], number[0]),
        (last, number[-1], following[-1]),
    )
    faces: Faces = np.concatenate([np.stack(p, axis=1) for p in parts]).astype(np.int32)
    return faces
