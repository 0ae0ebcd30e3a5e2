# SPDX-License-Identifier: GPL-3.0-or-later
"""Closed-form scenes for the default model: shapes that the recipes have not (cuboids, rods).

Every particle is convex, so that its upper and lower side over a pixel follow from a formula; it is
dropped on what lies below. That is a renderer too, a fifth of a second a scene, with exact ids and
normals; only the occlusion is an approximation.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.appearance import Layers

Array = NDArray[np.float32]
SIDE_PX = 512
_SOFTNESS = 18.0
_FAR = 4.0


@dataclass(frozen=True)
class Sides:
    """Upper and lower side of a particle around its centre, in px; NaN beside it."""

    upper: Array
    lower: Array


def closed_form_scene(seed: int, index: int) -> Layers:
    """Scene ``index`` of a seed: every third one is of spheres, the others of mixed shapes."""
    rng = np.random.default_rng([seed, index])
    if index % 3 == 0:
        kinds = ["sphere"] if rng.random() < 0.75 else ["sphere", "ellipsoid"]
        typical = np.exp(rng.uniform(np.log(9), np.log(48)))
        spread = rng.choice([0.02, 0.08, 0.3])
    else:
        known = ["poly", "poly", "poly", "ellipsoid", "cuboid", "rod", "sphere"]
        kinds = list(rng.choice(known, rng.integers(1, 4)))
        typical = np.exp(rng.uniform(np.log(9), np.log(40)))
        spread = rng.uniform(0.1, 0.45)
    cover = np.exp(rng.uniform(np.log(0.04), np.log(1.6)))
    count = int(np.clip(cover * SIDE_PX**2 / (np.pi * typical**2), 6, 500))
    count = min(count, 60 if "rod" in kinds else 220)
    height, ids = _fill(rng, kinds, float(typical), float(spread), count)
    return _layers(height, ids, float(typical))


def _fill(
    rng: np.random.Generator, kinds: list[str], typical: float, spread: float, count: int
) -> tuple[Array, NDArray[np.uint16]]:
    height = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    ids = np.zeros((SIDE_PX, SIDE_PX), np.uint16)
    scattered = rng.random() < 0.4
    # Drawn and not used any more; without it, the scenes of the shipped model would change.
    rng.uniform(0, SIDE_PX, (max(1, int(count / np.exp(rng.uniform(0, 3.5)))), 2))
    bimodal = rng.random() < 0.25
    placed: list[tuple[float, float, float]] = []
    for number in range(1, count + 1):
        mode = typical * (0.55 if bimodal and rng.random() < 0.5 else 1.0)
        radius = float(np.clip(rng.lognormal(np.log(mode), spread), typical * 0.3, typical * 2.3))
        radius = max(radius, 5.0)
        sides = _sides(rng, str(rng.choice(kinds)), radius)
        spot = _lowest_of_some(rng, sides, radius, height, [] if scattered else placed)
        if spot is None or spot[0] > 6 * typical:
            continue
        level, x, y = spot
        rows, columns, upper, _ = _overlap(sides, x, y)
        top = np.where(np.isnan(upper), -1, upper + level)
        seen = top > height[rows, columns]
        height[rows, columns][seen] = top[seen]
        ids[rows, columns][seen] = number
        placed.append((x, y, radius))
    return height, ids


def _lowest_of_some(
    rng: np.random.Generator,
    sides: Sides,
    radius: float,
    height: Array,
    placed: list[tuple[float, float, float]],
) -> tuple[float, float, float] | None:
    """The lowest of twelve places (level, x, y), or the first that lies on the substrate."""
    best = None
    ground = -float(np.nanmin(sides.lower))
    for _ in range(12):
        if placed and rng.random() < 0.85:
            near_x, near_y, near_radius = placed[rng.integers(len(placed))]
            angle = rng.uniform(0, 6.3)
            distance = (near_radius + radius) * rng.uniform(0.55, 1.1)
            x, y = near_x + distance * np.cos(angle), near_y + distance * np.sin(angle)
        else:
            x, y = rng.uniform(-radius, SIDE_PX + radius, 2)
        rows, columns, upper, lower = _overlap(sides, x, y)
        inside = ~np.isnan(upper)
        if not inside.any():
            continue
        level = max(float((height[rows, columns] - lower)[inside].max()), ground)
        if best is None or level < best[0]:
            best = (level, float(x), float(y))
        if level <= ground + 0.15 * radius:
            break
    return best


def _overlap(sides: Sides, x: float, y: float) -> tuple[slice, slice, Array, Array]:
    reach = sides.upper.shape[0] // 2
    left, top = int(x) - reach, int(y) - reach
    rows = slice(max(0, top), max(0, min(SIDE_PX, top + 2 * reach + 1)))
    columns = slice(max(0, left), max(0, min(SIDE_PX, left + 2 * reach + 1)))
    own = (
        slice(rows.start - top, max(rows.start, rows.stop) - top),
        slice(columns.start - left, max(columns.start, columns.stop) - left),
    )
    return rows, columns, sides.upper[own], sides.lower[own]


def _sides(rng: np.random.Generator, kind: str, radius: float) -> Sides:
    reach = int(np.ceil(radius * (6.5 if kind == "rod" else 1.9)))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32) / radius
    if kind == "sphere":
        squared = x * x + y * y
        upper = np.where(squared < 1, np.sqrt(np.clip(1 - squared, 0, None)), np.nan)
        return Sides(upper * radius, -upper * radius)
    if kind == "ellipsoid":
        return _ellipsoid_sides(rng, x, y, radius)
    normals, offsets = _half_spaces(rng, kind)
    normals = normals @ _rotation(rng, lying=rng.random() < 0.75).T
    above, below = np.zeros_like(x), np.zeros_like(x)
    beside = np.full(x.shape, np.inf, np.float32)
    for (a, b, c), offset in zip(normals, offsets, strict=True):
        # The softened minimum over the planes rounds the edges.
        if c > 0.02:
            above += np.exp(-_SOFTNESS * np.clip((offset - a * x - b * y) / c, -_FAR, _FAR))
        elif c < -0.02:
            below += np.exp(_SOFTNESS * np.clip((offset - a * x - b * y) / c, -_FAR, _FAR))
        else:
            beside = np.minimum(beside, offset - a * x - b * y)
    upper, lower = -np.log(above + 1e-30) / _SOFTNESS, np.log(below + 1e-30) / _SOFTNESS
    inside = (upper > lower) & (beside > 0)
    return Sides(np.where(inside, upper, np.nan) * radius, np.where(inside, lower, np.nan) * radius)


def _ellipsoid_sides(rng: np.random.Generator, x: Array, y: Array, radius: float) -> Sides:
    turn = _rotation(rng, lying=False)
    axes = np.array([rng.uniform(0.8, 1.6), 1, rng.uniform(0.6, 1)])
    form = turn @ np.diag(1 / axes**2) @ turn.T
    linear = 2 * (form[0, 2] * x + form[1, 2] * y)
    rest = form[0, 0] * x * x + form[1, 1] * y * y + 2 * form[0, 1] * x * y - 1
    inner = linear * linear - 4 * form[2, 2] * rest
    root = np.sqrt(np.where(inner > 0, inner, 0))
    return Sides(
        np.where(inner > 0, (-linear + root) / (2 * form[2, 2]), np.nan) * radius,
        np.where(inner > 0, (-linear - root) / (2 * form[2, 2]), np.nan) * radius,
    )


def _half_spaces(
    rng: np.random.Generator, kind: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Outward normals and distances of the planes whose intersection is the particle."""
    if kind == "cuboid":
        half = rng.uniform(0.7, 1.2, 3)
        return np.vstack([np.eye(3), -np.eye(3)]), np.concatenate([half, half])
    if kind == "rod":
        sides = rng.choice([6, 16])
        angles = np.arange(sides) * 2 * np.pi / sides
        around = np.column_stack([np.zeros(sides), np.cos(angles), np.sin(angles)])
        length = rng.uniform(2, 6)
        ends = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
        return np.vstack([around, ends]), np.concatenate([np.ones(sides), [length, length]])
    count = rng.integers(9, 20)
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    if rng.random() < 0.4:
        normals = np.vstack([normals[: count // 2], -normals[: count // 2]])
    offsets = rng.uniform(0.75, 1.15, len(normals))
    box = np.vstack([np.eye(3) * 0.999, -np.eye(3) * 0.999])
    return np.vstack([normals, box]), np.concatenate([offsets, np.full(6, 1.3)])


def _rotation(rng: np.random.Generator, *, lying: bool) -> NDArray[np.float64]:
    """Any rotation, or one that leaves the long axis x nearly flat."""
    w, x, y, z = (quaternion := rng.normal(size=4)) / np.linalg.norm(quaternion)
    if not lying:
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
    roll, tilt, azimuth = rng.uniform(0, 6.3), rng.normal(0, 0.15), rng.uniform(0, 6.3)
    cos, sin = np.cos, np.sin
    about_x = np.array([[1, 0, 0], [0, cos(roll), -sin(roll)], [0, sin(roll), cos(roll)]])
    about_y = np.array([[cos(tilt), 0, sin(tilt)], [0, 1, 0], [-sin(tilt), 0, cos(tilt)]])
    about_z = np.array(
        [[cos(azimuth), -sin(azimuth), 0], [sin(azimuth), cos(azimuth), 0], [0, 0, 1]]
    )
    return about_z @ about_y @ about_x


def _layers(height: Array, ids: NDArray[np.uint16], typical: float) -> Layers:
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)
    normals = np.dstack([-slope_x, -slope_y, np.ones_like(slope_x)])
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    normals[ids == 0] = [0, 0, 1]
    openness = np.ones_like(height)
    for reach in (0.15, 0.4, 0.9):
        around = cv2.GaussianBlur(height, (0, 0), max(0.8, reach * typical))
        openness *= np.exp(-np.clip((around - height) / (reach * typical + 1), 0, 3) * 0.8)
    return Layers(
        occlusion=(np.clip(openness, 0, 1) * 255).astype(np.uint8),
        normals=(normals * 127).astype(np.int8),
        height_nm=height.astype(np.float16),
        instances=ids,
        pixel_size_nm=5.0,
    )
