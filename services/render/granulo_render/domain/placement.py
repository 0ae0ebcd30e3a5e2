# SPDX-License-Identifier: GPL-3.0-or-later
"""Filling a scene: clusters that grow by contact, stacks, rows and rafts; pure numpy."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from granulo_render.domain.contact import Body, Ground

_FLAT = 0.06  # of the radius: a body that rests this little above the ground lies on it
_ORIGINS = 10  # places tried for the first particle of a cluster
_ANCHORS = 10  # approaches tried for each further particle
_GIVE_UP = 40  # particles in a row without a place: the scene is full
_LAYERS = 7.0  # piles end at this height, in typical radii


@dataclass(frozen=True)
class Layout:
    """How one scene is filled; drawn from a recipe's arrangement."""

    side_nm: float
    """Side of the square to fill, with the margin in which cut-off particles lie."""
    target: int
    """Particles aimed at."""
    stacking: float
    """Chance that a particle climbs on its neighbour."""
    rows: bool
    """True where particles form rows and rafts."""
    overlap: float
    """Particles may sink into their neighbours by up to this share of the radius."""
    typical_radius_nm: float


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


def fill(filling: Filling) -> None:
    """Place particles until the target is met or every further attempt would be in vain.

    Each particle has a bounded number of attempts; one without a place is counted in
    ``unplaced``, so a recipe that asks for too much ends as well.
    """
    layout = filling.layout
    if layout.rows:
        _rafts(filling)
    while len(filling.placed) + filling.unplaced < layout.target:
        left = layout.target - len(filling.placed) - filling.unplaced
        if filling.failures >= _GIVE_UP:
            filling.unplaced += left
            return
        _cluster(filling, min(max(1, filling.next_size()), left))
        filling.clusters += 1


def _cluster(filling: Filling, size: int) -> None:
    rng, layout = filling.rng, filling.layout
    members: list[Placed] = []
    compact = rng.random()
    for _ in range(size):
        if filling.failures >= _GIVE_UP:
            filling.unplaced += 1
            continue
        body = filling.next_body()
        spot = _origin(filling, body) if not members else _join(filling, body, members, compact)
        if spot is None and layout.stacking > 0:
            near = members[-1] if members else None
            spot = _drop(filling, body, near)
        if spot is None and members:  # walled in: go on elsewhere
            filling.clusters += 1
            members = []
            spot = _origin(filling, body)
        if spot is None:
            filling.unplaced += 1
            filling.failures += 1
        else:
            members.append(_leave(filling, body, spot))


def _leave(filling: Filling, body: Body, spot: tuple[float, float, float]) -> Placed:
    filling.ground.add(body, *spot)
    filling.failures = 0
    placed = Placed(body, *spot, filling.clusters)
    filling.placed.append(placed)
    return placed


def _somewhere(filling: Filling) -> tuple[float, float]:
    half = filling.layout.side_nm / 2
    x, y = filling.rng.uniform(-half, half, 2)
    return float(x), float(y)


def _origin(filling: Filling, body: Body) -> tuple[float, float, float] | None:
    for _ in range(_ORIGINS):
        x, y = _somewhere(filling)
        if _lies(filling.ground.rest_nm(body, x, y), body):
            return x, y, body.ground_nm
    return None


def _lies(rest_nm: float, body: Body) -> bool:
    return rest_nm <= body.ground_nm + _FLAT * body.radius_nm


def _join(
    filling: Filling, body: Body, members: list[Placed], compact: float
) -> tuple[float, float, float] | None:
    """Bring a body to a cluster: from outside along the substrate to contact, then perhaps up."""
    rng, layout = filling.rng, filling.layout
    middle_x = float(np.mean([m.x_nm for m in members]))
    middle_y = float(np.mean([m.y_nm for m in members]))
    best: tuple[float, Placed, float, float] | None = None
    wanted = 1 + int(rng.random() < compact) + int(rng.random() < compact)
    found = 0
    for attempt in range(_ANCHORS):
        chain = rng.random() > compact and attempt < _ANCHORS // 2
        anchor = members[-1] if chain else members[int(rng.integers(len(members)))]
        angle = float(rng.uniform(0, 2 * np.pi))
        gap = _approach(filling.ground, body, anchor, angle)
        if gap is None:
            continue
        x, y = anchor.x_nm + gap * np.cos(angle), anchor.y_nm + gap * np.sin(angle)
        if max(abs(x), abs(y)) > layout.side_nm / 2:
            continue
        away = float(np.hypot(x - middle_x, y - middle_y))
        if best is None or away < best[0]:
            best = (away, anchor, angle, gap)
        found += 1
        if found == wanted:  # the more tries, the more compact the cluster
            break
    if best is None:
        return None
    _, anchor, angle, gap = best
    smaller = min(body.radius_nm, anchor.body.radius_nm)
    if rng.random() < layout.stacking:
        gap -= float(rng.uniform(0.1, 1.2)) * smaller
        x, y = anchor.x_nm + gap * np.cos(angle), anchor.y_nm + gap * np.sin(angle)
        if rng.random() < 0.5:
            return _settle(filling, body, x, y, steps=6)
        rest = filling.ground.rest_nm(body, x, y)
        return (x, y, rest) if _low_enough(layout, body, rest) else None
    gap -= float(rng.uniform(0, layout.overlap)) * smaller + 0.8 * filling.ground.slack_nm
    x, y = anchor.x_nm + gap * np.cos(angle), anchor.y_nm + gap * np.sin(angle)
    return x, y, body.ground_nm


def _approach(ground: Ground, body: Body, anchor: Placed, angle: float) -> float | None:
    """Distance at which a body that slides towards the anchor touches something, or None."""
    cos, sin = float(np.cos(angle)), float(np.sin(angle))

    def free(distance: float) -> bool:
        x, y = anchor.x_nm + distance * cos, anchor.y_nm + distance * sin
        return _lies(ground.rest_nm(body, x, y), body)

    outside = (anchor.body.reach_nm + body.reach_nm) * 1.02 + ground.slack_nm
    if not free(outside):
        return None
    inside = outside
    step = 0.3 * min(body.radius_nm, anchor.body.radius_nm)
    while free(inside):
        outside = inside
        inside -= step
        if inside < 0.2 * anchor.body.radius_nm:
            return outside  # the body fits under the anchor's overhang
    for _ in range(5):
        middle = (outside + inside) / 2
        if free(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _drop(filling: Filling, body: Body, near: Placed | None) -> tuple[float, float, float] | None:
    x, y = _somewhere(filling)
    if near is not None:
        spread = 2.0 * (body.radius_nm + near.body.radius_nm)
        x, y = np.array([near.x_nm, near.y_nm]) + filling.rng.normal(0, spread, 2)
    return _settle(filling, body, float(x), float(y), steps=12)


def _settle(
    filling: Filling, body: Body, x: float, y: float, *, steps: int
) -> tuple[float, float, float] | None:
    """Let a body roll down from (x, y) by random descent."""
    rng = filling.rng
    z = filling.ground.rest_nm(body, x, y)
    for k in range(steps):
        step = body.radius_nm * (0.5 if k < steps // 2 else 0.15)
        for angle in rng.uniform(0, 2 * np.pi, 4):
            x_new, y_new = x + step * np.cos(angle), y + step * np.sin(angle)
            z_new = filling.ground.rest_nm(body, x_new, y_new)
            if z_new < z - 0.02 * body.radius_nm:
                x, y, z = float(x_new), float(y_new), z_new
                break
        else:
            if step < 0.2 * body.radius_nm:
                break
    return (x, y, z) if _low_enough(filling.layout, body, z) else None


def _low_enough(layout: Layout, body: Body, z_nm: float) -> bool:
    return z_nm <= max(body.ground_nm, _LAYERS * layout.typical_radius_nm)


def _rafts(filling: Filling) -> None:
    """Lay close-packed rafts of few to many rows, with vacancies, bends and jitter."""
    rng, layout = filling.rng, filling.layout
    for _ in range(8):
        left = layout.target - len(filling.placed)
        if left <= 0:
            return
        _raft(filling, min(left, int(np.exp(rng.uniform(np.log(6), np.log(600))))))
        filling.clusters += 1


def _raft(filling: Filling, size: int) -> None:
    rng, layout = filling.rng, filling.layout
    body = filling.next_body()
    pitch = 2 * body.radius_nm * float(rng.uniform(1.0, 1.05))
    rows = int(rng.integers(1, max(2, round(1.2 * size**0.5)) + 1))
    columns = max(1, size // rows)
    vacancies = float(rng.choice([0.0, 0.03, 0.15]))
    jitter = float(rng.uniform(0, 0.06)) * body.radius_nm
    bend = float(rng.normal(0, 0.15)) / (columns * pitch)
    turn = float(rng.uniform(0, 2 * np.pi))
    x0, y0 = _somewhere(filling)
    half = layout.side_nm / 2
    for row in range(rows):
        first, last = rng.integers(0, columns // 4 + 1, 2)  # ragged ends
        for column in range(int(first), columns - int(last)):
            u = (column + 0.5 * (row % 2) - columns / 2) * pitch
            v = (row - rows / 2) * pitch * 0.866 + bend * u * u
            x = x0 + u * np.cos(turn) - v * np.sin(turn) + rng.normal(0, jitter)
            y = y0 + u * np.sin(turn) + v * np.cos(turn) + rng.normal(0, jitter)
            if abs(x) > half or abs(y) > half or rng.random() < vacancies:
                continue
            # Neighbours may be a little larger than the pitch: a small overlap is a contact.
            if filling.ground.rest_nm(body, x, y) <= body.ground_nm + 0.6 * body.radius_nm:
                _leave(filling, body, (float(x), float(y), body.ground_nm))
            if len(filling.placed) >= layout.target:
                return
            body = _similar(filling, body)


def _similar(filling: Filling, body: Body) -> Body:
    """Next body of nearly the same size: rows form where sizes match."""
    for _ in range(6):
        other = filling.next_body()
        if other.kind == body.kind and abs(other.radius_nm / body.radius_nm - 1) < 0.1:
            return other
    return body
