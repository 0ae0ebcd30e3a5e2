# SPDX-License-Identifier: GPL-3.0-or-later
"""How particles arrange themselves: singly, in clusters, chains, rows, rafts and sheets."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from granulo_render.domain.contact import Body, aligned, axis_nm, extent_nm
from granulo_render.domain.placement import (
    Filling,
    Placed,
    Spot,
    alone,
    climb,
    drop,
    join,
    nestle,
    sink,
    slide,
)
from granulo_render.domain.recipe import Pattern

_SPARSE = 0.4  # coverage beyond which particles can no longer lie apart from each other
_LOOSE = 0.55  # coverage beyond which clusters that grow at random leave too large holes
_SHEET_TRIES = (5, 20)  # directions from which a particle comes to a sheet, first and then
_SLIDE = 3.0  # a particle joins a row from this far, in half thicknesses


def fill(filling: Filling) -> None:
    """Place particles by the scene's pattern until the target is met or the scene is full.

    Each particle has a bounded number of attempts; one without a place is counted in
    ``unplaced``, so a recipe that asks for too much ends as well: a number that is not met is
    counted as a whole, a coverage that is not met by the attempts in vain.

    Particles never cut into each other deeper than the layout's overlap and 0.05 of the radius.
    Where the target asks for more than a pattern can hold without stacking, particles that lie
    singly or in clusters become a sheet.
    """
    layout = filling.layout
    pattern = layout.pattern
    if layout.stacking <= 0 or filling.wanted_coverage > 0.8:
        limits = {Pattern.RANDOM: _SPARSE, Pattern.AGGLOMERATES: _LOOSE, Pattern.CHAINS: _SPARSE}
        if filling.wanted_coverage > limits.get(pattern, np.inf):
            pattern = Pattern.SHEETS
    grow = _PATTERNS[pattern]
    while not filling.over:
        grow(filling)
        filling.clusters += 1
    if layout.coverage is None and not filling.done:
        filling.unplaced += layout.target - len(filling.placed) - filling.unplaced


def _single(filling: Filling) -> None:
    body = filling.next_body()
    spot = None
    if filling.placed and filling.rng.random() < filling.layout.stacking:
        spot = climb(filling, body, filling.placed[int(filling.rng.integers(len(filling.placed)))])
    _leave_or_fail(filling, body, spot or alone(filling, body))


def _leave_or_fail(filling: Filling, body: Body, spot: Spot | None) -> Placed | None:
    """Leave a body at its place; one without may still lie on others where these may stack."""
    if spot is None and filling.layout.stacking > 0:
        spot = drop(filling, body)
    if spot is None:
        filling.fail()
        return None
    return filling.leave(body, spot)


def _agglomerate(filling: Filling) -> None:
    compact = filling.rng.random()

    def beside(body: Body, members: list[Placed]) -> Spot | None:
        return join(filling, body, members, compact)

    _grow(filling, max(1, filling.next_size()), _director(filling, 1.0), beside)


def _director(filling: Filling, widest: float) -> Callable[[Body], Body]:
    """Make what turns the long particles of a cluster: from nearly parallel to ``widest``."""
    rng = filling.rng
    heading, spread = float(rng.uniform(0, np.pi)), float(rng.uniform(0.03, widest))
    return lambda body: aligned(body, heading + float(rng.normal(0, spread)))


def _grow(
    filling: Filling,
    size: int,
    turned: Callable[[Body], Body],
    beside: Callable[[Body, list[Placed]], Spot | None],
) -> None:
    """Grow a cluster of turned particles; ``beside`` finds a place next to its members."""
    rng, stacking = filling.rng, filling.layout.stacking
    members: list[Placed] = []
    for _ in range(size):
        if filling.over:
            return
        body = turned(filling.next_body())
        spot = None
        if members and rng.random() < stacking:
            spot = climb(filling, body, members[int(rng.integers(len(members)))])
        if spot is None and members:
            spot = beside(body, members)
        if spot is None:  # the first one, or walled in: go on elsewhere
            filling.clusters += len(members) > 0
            members = []
            spot = alone(filling, body)
        left = _leave_or_fail(filling, body, spot)
        if left is not None:
            members.append(left)


def _chain(filling: Filling) -> None:
    """Grow a string that turns a little with every particle; long ones lie along it or across."""
    rng, ground = filling.rng, filling.ground
    bend = float(rng.uniform(0.05, 0.5))
    heading = float(rng.uniform(0, 2 * np.pi))
    across = np.pi / 2 if rng.random() < 0.3 else 0.0

    def beside(body: Body, members: list[Placed]) -> Spot | None:
        nonlocal heading
        # What climbed is no link: the string goes on from the last one on the substrate.
        lying = [m for m in members if m.z_nm < 1.1 * m.body.ground_nm]
        if not lying:
            return None
        last = lying[-1]
        angle = heading + rng.normal(0, bend, 6) * np.array([1, 1, 1, 1.5, 2, 3])
        x, y, _ = slide(filling, body, [last] * 6, angle)
        for k in np.flatnonzero(filling.inside(x, y)).tolist():
            closer = 0.2 * min(body.half_nm, last.body.half_nm)
            cosine, sine = float(np.cos(angle[k])), float(np.sin(angle[k]))
            number = ground.touched(body, x[k] - closer * cosine, y[k] - closer * sine)
            if number >= 0 and filling.placed[number] is last:
                heading = float(angle[k])
                return sink(filling, body, float(x[k]), float(y[k]), heading)
        return None

    def turned(body: Body) -> Body:
        return aligned(body, heading + across + float(rng.normal(0, bend)))

    _grow(filling, max(2, filling.next_size()), turned, beside)


def _rows(filling: Filling) -> None:
    """Lay rows side by side; long particles lie across their row, side by side as well."""
    rng, layout = filling.rng, filling.layout
    rows = int(rng.integers(1, 6))
    length = max(3, filling.next_size())
    heading = float(rng.uniform(0, 2 * np.pi))
    bend = float(rng.normal(0, 0.25)) / length if rng.random() < 0.5 else 0.0
    (x0,), (y0,) = filling.somewhere(1)
    for _ in range(rows):
        widest = 0.0
        last: Placed | None = None
        direction = heading
        x, y = float(x0), float(y0)
        for _ in range(length):
            if filling.over:
                return
            body = aligned(filling.next_body(), direction + np.pi / 2 + rng.normal(0, 0.04))
            spot = None
            if last is not None and rng.random() < layout.stacking:
                spot = climb(filling, body, last)
            if spot is not None:
                filling.leave(body, spot)
                continue
            along = extent_nm(body, direction)
            gap = _SLIDE * body.half_nm + along + (extent_nm(last.body, direction) if last else 0.0)
            angle = np.array([direction])
            reached = filling.ground.approach(
                body, np.array([x]), np.array([y]), angle, np.array([gap])
            )
            x_new, y_new = x + reached * np.cos(direction), y + reached * np.sin(direction)
            if not filling.inside(x_new, y_new).all():
                filling.failures += 1
                break
            x, y = float(x_new[0]), float(y_new[0])
            last = filling.leave(
                body, sink(filling, body, x, y, direction) if last else (x, y, body.ground_nm)
            )
            widest = max(widest, extent_nm(body, direction + np.pi / 2))
            direction += bend
        pitch = (2 * widest) * float(rng.uniform(1.0, 1.1))
        x0, y0 = x0 - pitch * np.sin(heading), y0 + pitch * np.cos(heading)


def _raft(filling: Filling) -> None:
    """Lay a close-packed raft of few to many rows, with vacancies, bends and jitter.

    Long particles lie side by side in their rows.
    """
    rng, layout = filling.rng, filling.layout
    size = int(np.exp(rng.uniform(np.log(6), np.log(600))))
    body = filling.next_body()
    loose = float(rng.uniform(1.0, 1.05))
    rows = int(rng.integers(1, max(2, round(1.2 * size**0.5)) + 1))
    columns = max(1, size // rows)
    vacancies = float(rng.choice([0.0, 0.03, 0.15]))
    jitter, bend = float(rng.uniform(0, 0.06)), float(rng.normal(0, 0.15)) / columns
    heading = float(rng.uniform(0, 2 * np.pi))
    cosine, sine = float(np.cos(heading)), float(np.sin(heading))
    first_body = body = aligned(body, heading + np.pi / 2)
    pitch, rise = (2 * loose * extent_nm(body, heading + way) for way in (0.0, np.pi / 2))
    shift = 0.5
    if any(axis_nm(body)):
        shift = float(rng.uniform(0, shift))
    else:
        pitch = float(np.sqrt(pitch * rise))
        rise = 0.866 * pitch
    jitter, bend = jitter * pitch / 2, bend / pitch
    (x0,), (y0,) = filling.somewhere(1)
    before = len(filling.placed)
    for row in range(rows):
        first, last = rng.integers(0, columns // 4 + 1, 2)  # ragged ends
        for column in range(int(first), columns - int(last)):
            u = (column + shift * (row % 2) - columns / 2) * pitch
            v = (row - rows / 2) * rise + bend * u * u
            x = x0 + u * cosine - v * sine + rng.normal(0, jitter)
            y = y0 + u * sine + v * cosine + rng.normal(0, jitter)
            if not filling.inside(x, y) or rng.random() < vacancies:
                continue
            if filling.over:
                return
            spot = None
            if len(filling.placed) > before and rng.random() < layout.stacking:
                spot = climb(filling, body, filling.placed[-1])
            spot = spot or _site(filling, body, float(x), float(y), 0.3 * pitch)
            if spot is not None:
                filling.leave(body, spot)
                body = aligned(_similar(filling, first_body), heading + np.pi / 2)
    if len(filling.placed) == before:
        filling.failures += 1


def _site(filling: Filling, body: Body, x: float, y: float, range_nm: float) -> Spot | None:
    """Free place nearest to a site of a lattice: neighbours may be larger than the pitch."""
    around = np.arange(12) * (np.pi / 6)
    away = np.concatenate([[0.0], np.repeat([0.04, 0.1, 0.2, 0.35], 3), np.repeat(0.6, 3)])
    angle = np.concatenate([[0.0], around, around[:3]]) * 1.0
    x_near = x + range_nm * away * np.cos(angle * 7)
    y_near = y + range_nm * away * np.sin(angle * 7)
    free = filling.ground.clear(body, x_near, y_near)
    if not free.any():
        return None
    first = int(free.argmax())
    return float(x_near[first]), float(y_near[first]), body.ground_nm


def _similar(filling: Filling, body: Body) -> Body:
    """Next body of nearly the same size: rafts form where sizes match."""
    for _ in range(6):
        other = filling.next_body()
        sizes = other.radius_nm / body.radius_nm, other.reach_nm / body.reach_nm
        if other.kind == body.kind and max(abs(size - 1) for size in sizes) < 0.1:
            return other
    return body


def _sheet(filling: Filling) -> None:
    """Grow a dense sheet: every particle is pushed towards its middle from any side."""
    rng = filling.rng
    loose = float(rng.uniform(0, 0.15))
    size = max(8, int(filling.layout.target * rng.uniform(0.3, 1.0)))

    def beside(body: Body, members: list[Placed]) -> Spot | None:
        goal = members[0].x_nm, members[0].y_nm
        for tries in _SHEET_TRIES:
            angle = rng.uniform(0, 2 * np.pi, tries)
            x, y = (np.full(tries, v) for v in goal)
            distance = filling.ground.approach(body, x, y, angle, np.full(tries, np.inf))
            x, y = x + distance * np.cos(angle), y + distance * np.sin(angle)
            arrived = np.flatnonzero(filling.inside(x, y))
            if len(arrived):
                break
        else:
            return None
        best = int(arrived[distance[arrived[:3]].argmin()])
        spot = float(x[best]), float(y[best])
        if rng.random() < loose:
            return *spot, body.ground_nm
        spot = nestle(filling, body, *spot, goal)
        to_goal = float(np.arctan2(spot[1] - goal[1], spot[0] - goal[0]))
        return sink(filling, body, *spot, to_goal)

    _grow(filling, size, _director(filling, 0.35), beside)


_PATTERNS: Mapping[Pattern, Callable[[Filling], None]] = MappingProxyType(
    {
        Pattern.RANDOM: _single,
        Pattern.AGGLOMERATES: _agglomerate,
        Pattern.CHAINS: _chain,
        Pattern.ROWS: _rows,
        Pattern.RAFTS: _raft,
        Pattern.SHEETS: _sheet,
    }
)
