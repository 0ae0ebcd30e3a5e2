# SPDX-License-Identifier: GPL-3.0-or-later
"""A scene being filled, and the moves by which a particle finds its place; pure numpy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from granulo_render.domain.contact import Array, Body, Flags, Ground, axis_nm, extent_nm
from granulo_render.domain.recipe import Pattern

_GIVE_UP = 30  # particles in a row without a place: the scene is full
_IN_VAIN = 60  # it is also when this many, and half of those placed, found none in all
_ORIGINS = (8, 32)  # places tried at once for a particle on its own, first and then
_ANCHORS = (4, 8)  # approaches tried at once for each further particle, first and then
_LAYERS = 7.0  # piles end at this height, in typical half thicknesses
_WIRE_LAYERS = 40.0  # wires are stiff here: where many cross, they lie high up
_STEPS = (0.5, 0.25, 0.12, 0.06, 0.03)  # of rolling, in half thicknesses
_ROLLS = 4  # steps of one size at most
_SIDES = 8  # directions tried for each step
_SPRAWLING = 0.5  # reach over the filled square's side, beyond which a body lies across it

Spot = tuple[float, float, float]


@dataclass(frozen=True)
class Layout:
    """How one scene is filled; drawn from a recipe's arrangement."""

    side_nm: float
    """Side of the square to fill, with the margin in which cut-off particles lie."""
    image_nm: float
    """Side of the image, in its middle."""
    target: int
    """Particles aimed at in the filled square; with ``coverage`` the most that are tried."""
    coverage: float | None
    """Share of the image to cover, seen from above."""
    pattern: Pattern
    stacking: float
    """Chance that a particle climbs on its neighbour."""
    overlap: float
    """Depth to which neighbours may be sintered into each other, in half thicknesses of the
    thinnest one near."""
    typical_radius_nm: float
    """Typical half thickness of the scene's particles."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A body at its place; nm, origin in the middle of the image, y up, z from the substrate."""

    body: Body
    x_nm: float
    y_nm: float
    z_nm: float
    cluster: int


@dataclass
class Filling:
    """A scene being filled."""

    layout: Layout
    ground: Ground
    next_body: Callable[[], Body]
    next_size: Callable[[], int]
    rng: np.random.Generator
    placed: list[Placed] = field(default_factory=list)
    unplaced: int = 0
    """Particles for which no place was found."""
    clusters: int = 0
    failures: int = 0
    """Particles without a place since the last one that found one."""

    @property
    def coverage(self) -> float:
        """Share of the image that the particles cover, seen from above."""
        return self.ground.coverage

    @property
    def done(self) -> bool:
        """The target is met."""
        if len(self.placed) + self.unplaced >= self.layout.target:
            return True
        wanted = self.layout.coverage
        return wanted is not None and self.coverage >= wanted

    @property
    def over(self) -> bool:
        """The target is met, or every further attempt would be in vain."""
        in_vain = self.unplaced >= _IN_VAIN + len(self.placed) // 2
        return self.done or in_vain or self.failures >= _GIVE_UP

    @property
    def wanted_coverage(self) -> float:
        """Share of the image that the target will cover, at a guess if it is a number."""
        layout = self.layout
        if layout.coverage is not None:
            return layout.coverage
        return layout.target * np.pi * (layout.typical_radius_nm / layout.side_nm) ** 2

    def leave(self, body: Body, spot: Spot) -> Placed:
        """Leave a body at its place for good."""
        x, y = self.ground.add(body, *spot)
        self.failures = 0
        placed = Placed(body, x, y, spot[2], self.clusters)
        self.placed.append(placed)
        return placed

    def fail(self) -> None:
        """Count a body without a place."""
        self.unplaced += 1
        self.failures += 1

    def inside(self, x_nm: Array, y_nm: Array) -> Flags:
        """Tell which places lie in the square to fill."""
        half = self.layout.side_nm / 2
        inside: Flags = (np.abs(x_nm) <= half) & (np.abs(y_nm) <= half)
        return inside

    def somewhere(self, count: int) -> Array:
        """Draw places (2, count) in the square to fill."""
        half = self.layout.side_nm / 2
        return self.rng.uniform(-half, half, (2, count))


def alone(filling: Filling, body: Body) -> Spot | None:
    """Find room for a body on the bare substrate; a long one may lie across others."""
    if body.reach_nm > _SPRAWLING * filling.layout.side_nm:
        return _across(filling, body)
    for tries in _ORIGINS:
        x, y = filling.somewhere(tries)
        free = filling.ground.clear(body, x, y)
        if free.any():
            first = int(free.argmax())
            return float(x[first]), float(y[first]), body.ground_nm
    return None


def _across(filling: Filling, body: Body) -> Spot | None:
    """Lay a body that reaches beyond the image where it lies lowest."""
    x, y = filling.somewhere(2)
    rest = filling.ground.rest_nm(body, x, y)
    best = int(rest.argmin())
    if rest[best] > 1.1 * body.ground_nm and filling.layout.stacking <= 0:
        return None
    return _if_low(filling, body, (float(x[best]), float(y[best]), float(rest[best])))


def join(filling: Filling, body: Body, members: list[Placed], compact: float) -> Spot | None:
    """Bring a body to a cluster: over the substrate from outside until it touches.

    Parameters
    ----------
    filling : Filling
    body : Body
    members : list of Placed
        The cluster.
    compact : float
        0: the body stays where it first arrives, 1: at the place nearest to the middle of three.
    """
    rng = filling.rng
    wanted = 1 + int(rng.random() < compact) + int(rng.random() < compact)
    for tries in _ANCHORS:
        number = rng.integers(len(members), size=tries)
        number[rng.random(tries) > compact + 0.3] = len(members) - 1
        angle = rng.uniform(0, 2 * np.pi, tries)
        anchors = [members[n] for n in number.tolist()]
        x, y, distance = slide(filling, body, anchors, angle)
        arrived = np.flatnonzero(filling.inside(x, y) & (distance > 0))[:wanted]  # NaN is outside
        if len(arrived):
            break
    else:
        return None
    middle_x = sum(m.x_nm for m in members) / len(members)
    middle_y = sum(m.y_nm for m in members) / len(members)
    away = np.hypot(x[arrived] - middle_x, y[arrived] - middle_y)
    best = int(arrived[away.argmin()])
    return sink(filling, body, float(x[best]), float(y[best]), float(angle[best]))


def slide(
    filling: Filling, body: Body, anchors: Sequence[Placed], angle: Array
) -> tuple[Array, Array, Array]:
    """Slide a body towards others from where it just clears them, anywhere along long ones.

    Parameters
    ----------
    filling : Filling
    body : Body
    anchors : sequence of Placed
        One for each slide.
    angle : (T,) float64
        Directions from which it comes, in radians.

    Returns
    -------
    x_nm, y_nm, distance_nm : (T,) float64
        Where it ends and how far that is from the place it aimed at, see `Ground.approach`.
    """
    along = filling.rng.uniform(-1, 1, len(angle))
    x, y, start = np.empty((3, len(angle)))
    for k, (anchor, way) in enumerate(zip(anchors, angle.tolist(), strict=True)):
        right, up = (float(along[k]) * part for part in axis_nm(anchor.body))
        x[k], y[k] = anchor.x_nm + right, anchor.y_nm + up
        start[k] = extent_nm(anchor.body, way) + extent_nm(body, way + np.pi)
        start[k] -= right * np.cos(way) + up * np.sin(way)
    start = 1.02 * start + 2 * filling.ground.grid_nm
    distance = filling.ground.approach(body, x, y, angle, start)
    return x + distance * np.cos(angle), y + distance * np.sin(angle), distance


def sink(filling: Filling, body: Body, x: float, y: float, angle: float) -> Spot:
    """Sinter a body that touches into what it touches, against the direction it came from."""
    deepest = filling.layout.overlap * filling.ground.smallest_near(body, x, y)
    # Coming to lie on a map's cell may add most of a cell.
    depth = max(0.0, float(filling.rng.uniform(0, deepest)) - filling.ground.grid_nm)
    return x - depth * np.cos(angle), y - depth * np.sin(angle), body.ground_nm


def climb(filling: Filling, body: Body, anchor: Placed) -> Spot | None:
    """Put a body on a neighbour, either as it falls or rolled down from there."""
    if body.reach_nm > _SPRAWLING * filling.layout.side_nm:
        return _across(filling, body)  # over the middle of another, all would meet in one point
    rng = filling.rng
    angle = float(rng.uniform(0, 2 * np.pi))
    smaller = min(body.half_nm, anchor.body.half_nm)
    gap = (body.half_nm + anchor.body.half_nm) - float(rng.uniform(0.1, 1.2)) * smaller
    x, y = anchor.x_nm + gap * np.cos(angle), anchor.y_nm + gap * np.sin(angle)
    return _rest(filling, body, float(x), float(y), rolls=rng.random() < 0.5)


def drop(filling: Filling, body: Body) -> Spot | None:
    """Let a body fall anywhere and roll down."""
    x, y = filling.somewhere(3)
    lowest = int(filling.ground.rest_nm(body, x, y).argmin())
    return _rest(filling, body, float(x[lowest]), float(y[lowest]), rolls=True)


def _rest(filling: Filling, body: Body, x: float, y: float, *, rolls: bool) -> Spot | None:
    def height(x: Array, y: Array) -> Array:
        return filling.ground.rest_nm(body, x, y)

    if rolls and body.reach_nm <= _SPRAWLING * filling.layout.side_nm:
        x, y = _roll(filling, body, x, y, height)
    if not filling.inside(np.array([x]), np.array([y])).all():
        return None
    rest = float(height(np.array([x]), np.array([y]))[0])
    return _if_low(filling, body, (x, y, rest))


def _if_low(filling: Filling, body: Body, spot: Spot) -> Spot | None:
    highest = _LAYERS * filling.layout.typical_radius_nm
    if body.reach_nm > _SPRAWLING * filling.layout.side_nm:
        highest = max(highest, _WIRE_LAYERS * body.half_nm)
    return spot if spot[2] <= max(body.ground_nm, highest) else None


def nestle(
    filling: Filling, body: Body, x: float, y: float, goal: tuple[float, float]
) -> tuple[float, float]:
    """Push a body over the substrate towards a goal, around what is in its way."""

    def remoteness(x: Array, y: Array) -> Array:
        away = np.hypot(x - goal[0], y - goal[1])
        return np.where(filling.ground.clear(body, x, y), away, np.inf)

    return _roll(filling, body, x, y, remoteness)


def _roll(
    filling: Filling, body: Body, x: float, y: float, score: Callable[[Array, Array], Array]
) -> tuple[float, float]:
    """Descend by steps that become smaller, each the best of several directions."""
    lowest = float(score(np.array([x]), np.array([y]))[0])
    around = np.arange(_SIDES) * (2 * np.pi / _SIDES)
    for size in _STEPS:
        step = size * body.half_nm
        for _ in range(_ROLLS):
            angle = around + filling.rng.uniform(0, 2 * np.pi)
            x_new, y_new = x + step * np.cos(angle), y + step * np.sin(angle)
            found = score(x_new, y_new)
            best = int(found.argmin())
            if found[best] >= lowest - 0.1 * step:
                break
            x, y, lowest = float(x_new[best]), float(y_new[best]), float(found[best])
    return x, y
